//! Position expressions: where in a group a reader means.
//!
//! `7` · `earliest` · `latest` · `id:<uuid>` · `time:<RFC 3339>` · `ago:<duration>` · `last:<n>` · `consumer:<name>`. A
//! time or an id means the first event at or behind it, exactly, for gaps hold no events; a consumer, what it has to ack
//! next.

use super::problem::Problem;
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use crate::shard::peers::Shards;
use crate::shard::read::Range;
use jiff::Timestamp;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// A position expression as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// That offset.
    Offset(u64),
    /// The first event that is still there.
    Earliest,
    /// Behind the last event.
    Latest,
    /// The first event whose id is not smaller.
    Id(u128),
    /// The first event received at or after that time, µs since 1970.
    Time(u64),
    /// So many events before the tail.
    Last(u64),
    /// Where that consumer stands.
    Consumer(Box<str>),
}

impl Position {
    /// Reads an expression.
    ///
    /// # Errors
    /// `bad_position`, with what was expected.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let bad = |expected: &str| Problem::new(400, "bad_position", format!("`{name}={text}`: expected {expected}"));
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten()
        };
        match kind {
            "earliest" if value.is_empty() && !text.contains(':') => Ok(Self::Earliest),
            "latest" if value.is_empty() && !text.contains(':') => Ok(Self::Latest),
            "id" => {
                let id = value.parse::<Uuid>().map_err(|_| bad("id:<uuid>"))?;
                Ok(Self::Id(id.as_u128()))
            }
            "time" => {
                let time: Timestamp = value.parse().map_err(|_| {
                    bad("time:<RFC 3339 with its offset>, such as time:2026-11-23T10:00:00Z (in a URL, + is %2B)")
                })?;
                Ok(Self::Time(u64::try_from(time.as_microsecond()).unwrap_or(0)))
            }
            "ago" => {
                let ago = crate::units::parse_span(value).map_err(|_| bad("ago:<duration>, such as ago:5m"))?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(Self::Time(now.saturating_sub(ago).as_micros() as u64))
            }
            "last" => number(value).map(Self::Last).ok_or_else(|| bad("last:<n>, such as last:10")),
            "consumer" if !value.is_empty() => Ok(Self::Consumer(value.into())),
            _ => number(text).map(Self::Offset).ok_or_else(|| {
                bad("an offset, earliest, latest, id:<uuid>, time:<RFC 3339>, ago:<duration>, last:<n> or consumer:<name>")
            }),
        }
    }

    /// The offset that is meant in a group that has this range; times, ids and consumers are looked up as things are now.
    ///
    /// # Errors
    /// When the group is gone or cannot be read.
    pub async fn resolve(self, shards: &Rc<Shards>, entry: &Entry, range: Range) -> Result<u64, Fault> {
        match self {
            Self::Offset(offset) => Ok(offset),
            Self::Earliest => Ok(range.earliest),
            Self::Latest => Ok(range.tail),
            Self::Consumer(name) => {
                let (shard, group) = (entry.table.shard, entry.table.number);
                let status =
                    shards.ask(shard, move |shard| Box::pin(async move { shard.consumer_status(group, &name).await }));
                Ok(status.await?.consumer.next)
            }
            Self::Last(count) => {
                let (shard, group) = (entry.table.shard, entry.table.number);
                shards.ask(shard, move |shard| Box::pin(async move { shard.back(group, range.tail, count) })).await
            }
            Self::Time(time) => first(shards, entry, time, |_, received_us| received_us >= time).await,
            // An id's milliseconds run ahead of its time only where a counter overflowed: look one earlier.
            Self::Id(id) => {
                first(shards, entry, ((id >> 80) as u64).saturating_sub(1) * 1000, |found, _| found >= id).await
            }
        }
    }
}

/// The first event at or after about `time` for which `reached` says so; the tail if there is none.
async fn first(
    shards: &Rc<Shards>,
    entry: &Entry,
    time: u64,
    reached: impl Fn(u128, u64) -> bool,
) -> Result<u64, Fault> {
    let (shard, group) = (entry.table.shard, entry.table.number);
    let near = shards.ask(shard, move |shard| Box::pin(async move { shard.find_time(group, time).await })).await?;
    let mut cursor = Cursor::new(Rc::clone(shards), shard, group, near);
    let mut frames = Frames::default();
    loop {
        match cursor.read(&mut frames).await {
            Ok(true) => {}
            Ok(false) => return Ok(cursor.offset()),
            // What was lost is not what is looked for.
            Err(Fault::Lost { to, .. }) => {
                cursor.advance(to);
                continue;
            }
            Err(fault) => return Err(fault),
        }
        let mut next = cursor.offset();
        for frame in frames.iter() {
            next = frame.header.next_offset();
            if frame.header.last_received_us < time {
                continue;
            }
            for event in frame.events() {
                let event = event.map_err(|fault| cursor.corrupt(&fault))?;
                if event.offset >= cursor.offset() && reached(event.id, event.received_us) {
                    return Ok(event.offset);
                }
            }
        }
        cursor.advance(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let id = "01930000-0000-7000-8000-000000000001";
        for (text, expected) in [
            ("0", Some(Position::Offset(0))),
            ("18446744073709551615", Some(Position::Offset(u64::MAX))),
            ("earliest", Some(Position::Earliest)),
            ("latest", Some(Position::Latest)),
            ("last:10", Some(Position::Last(10))),
            ("time:1970-01-01T00:00:01Z", Some(Position::Time(1_000_000))),
            ("time:1970-01-01T01:00:01+01:00", Some(Position::Time(1_000_000))),
            ("time:2026-11-23", None),
            ("time:2026-11-23T10:00:00", None),
            ("time:1700000000", None),
            ("last:-1", None),
            ("last:", None),
            ("-1", None),
            ("+1", None),
            ("", None),
            ("earliest:", None),
            ("soon", None),
            ("ago:5", None),
            ("id:7", None),
            ("consumer:billing", Some(Position::Consumer("billing".into()))),
            ("consumer:", None),
        ] {
            assert_eq!(Position::parse("from", text).ok(), expected, "{text}");
        }
        let parsed = Position::parse("from", &format!("id:{id}")).unwrap();
        assert_eq!(parsed, Position::Id(id.parse::<Uuid>().unwrap().as_u128()));
    }
}
