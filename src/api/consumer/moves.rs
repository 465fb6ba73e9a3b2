//! What moves a consumer, or says who reads for it: ack, nack, rewind, replay, sessions.

use super::standby::stand_by;
use super::{Subject, body_of, status};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::parameters::Parameters;
use crate::api::position::Position;
use crate::api::problem::Problem;
use crate::group::consumer::{Change, Consumer, Refusal, Replay, SessionName};
use crate::http::Head;
use crate::limits::{CONSUMER_REPLAYS_MAX, REASON_BYTES_MAX, WAIT_SECONDS_MAX};
use crate::shard::Fault;
use crate::shard::consumers::Ground;
use crate::shard::cursor::{Cursor, Frames};
use serde::Deserialize;
use serde_json::json;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// An offset among the parameters.
///
/// # Errors
/// `bad_parameter`.
pub(super) fn offset(parameters: &Parameters<'_>, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = parameters.text(name)? else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let offset = digits.then(|| text.parse::<u64>().ok()).flatten().filter(|&offset| offset < u64::MAX);
    offset.map(Some).ok_or_else(|| Problem::bad_parameter(name, "an offset"))
}

/// A session among the parameters.
///
/// # Errors
/// `bad_session`.
pub(super) fn session(parameters: &Parameters<'_>) -> Result<Option<SessionName>, Problem> {
    parameters.text("session")?.map(|text| parse_session(&text)).transpose()
}

fn parse_session(text: &str) -> Result<SessionName, Problem> {
    text.parse().map_err(|()| Problem::new(400, "bad_session", "a session is named as the broker named it"))
}

/// Lets a decision happen on the consumer's core, durably, and tells `audit` of it if it changed more than the head.
pub(super) async fn decide<R: Send + 'static>(
    context: &Context,
    subject: &Subject<'_>,
    audit: Option<Vec<u8>>,
    decide: impl FnOnce(&mut Consumer, Ground<'_>, &mut Change) -> Result<R, Refusal> + Send + 'static,
) -> Result<R, Fault> {
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.decide_durably(group, &name, audit.as_deref(), decide).await })
    };
    context.shards.on(subject.shard(), work).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody<'b> {
    offset: u64,
    session: Option<&'b str>,
}

/// `POST …/ack`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn ack(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: AckBody<'_> = body_of(body)?;
    let named = body.session.map(parse_session).transpose()?;
    let decided = decide(context, subject, None, move |consumer, ground, change| {
        consumer.call(named, ground.now)?;
        let acked = consumer.ack(body.offset, ground.there, ground.now)?;
        *change = (*change).max(acked);
        Ok((consumer.next.checked_sub(1), acked != Change::Nothing))
    });
    let (acked_offset, changed) = decided.await?;
    exchange.json(200, &json!({ "acked_offset": acked_offset, "changed": changed }));
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NackBody<'b> {
    offset: u64,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    reason: std::borrow::Cow<'b, str>,
    session: Option<&'b str>,
}

/// Longest delay of a retry.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// `POST …/nack`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn nack(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: NackBody<'_> = body_of(body)?;
    let named = body.session.map(parse_session).transpose()?;
    if body.reason.len() > REASON_BYTES_MAX {
        return Err(Problem::new(400, "bad_reason", format!("a reason is at most {REASON_BYTES_MAX} bytes long")));
    }
    let (delay, reason) = (Duration::from_millis(body.delay_ms).min(DELAY_MAX), body.reason.into_owned());
    let decided = decide(context, subject, None, move |consumer, ground, change| {
        consumer.call(named, ground.now)?;
        *change = (*change).max(consumer.nack(body.offset, delay, &reason, ground.there, ground.now)?);
        Ok((consumer.failures, consumer.poisoned()))
    });
    let (attempts, poisoned) = decided.await?;
    exchange.json(200, &json!({ "offset": body.offset, "attempts": attempts, "poison": poisoned }));
    Ok(())
}

/// A position in JSON: a number or an expression.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Place {
    Offset(u64),
    Expression(String),
}

impl Place {
    /// As an expression.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Offset(offset) => offset.to_string(),
            Self::Expression(text) => text.clone(),
        }
    }

    /// The offset that is meant, within what can be read.
    ///
    /// # Errors
    /// `bad_position`, `gone`, `behind_tail`.
    pub(super) async fn resolve(&self, name: &str, context: &Context, subject: &Subject<'_>) -> Result<u64, Problem> {
        let position = Position::parse(name, &self.text())?;
        let cursor = Cursor::new(Rc::clone(&context.shards), subject.shard(), subject.group(), 0);
        let range = cursor.range().await?;
        let offset = position.resolve(&context.shards, &subject.entry, range).await?;
        if offset < range.earliest {
            return Err(Fault::Gone { earliest: range.earliest }.into());
        }
        if offset > range.tail {
            return Err(Fault::BehindTail { tail: range.tail }.into());
        }
        Ok(offset)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewindBody {
    to: Place,
    until: Option<Place>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    skip: bool,
}

/// `POST …/rewind`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn rewind(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: RewindBody = body_of(body)?;
    let to = body.to.resolve("to", context, subject).await?;
    let (shard, group) = (subject.shard(), subject.group());
    let gaps = context.shards.ask(shard, move |shard| Box::pin(async move { shard.gaps(group) })).await?;
    let until = match &body.until {
        Some(until) => {
            let until = until.resolve("until", context, subject).await?;
            // What ends a replay is an event that can be acked.
            Some(until.checked_sub(1).and_then(|last| gaps.at(last)).map_or(until, |gap| gap.from))
        }
        None => None,
    };
    if until.is_some_and(|until| until <= to) {
        return Err(Problem::bad_parameter("until", "behind `to`"));
    }
    let (dry_run, skip) = (body.dry_run, body.skip);
    let audit = subject.audit("consumer.rewound", json!({ "to": to, "until": until, "skip": skip }));
    let decided = decide(context, subject, Some(audit), move |consumer, ground, change| {
        if !consumer.has_position() {
            return Err(Refusal::NotApproved(consumer.life));
        }
        let from = consumer.next;
        if dry_run {
            consumer.clone().rewind(to, until, skip, ground.now)?;
        } else {
            *change = (*change).max(consumer.rewind(to, until, skip, ground.now)?);
        }
        Ok(from)
    });
    let from = decided.await?;
    let end = until.unwrap_or(from).min(from.max(to));
    let (low, high) = (to.min(end), to.max(end));
    let bytes = async |offset: u64| {
        context.shards.ask(shard, move |shard| Box::pin(async move { shard.bytes_from(group, offset).await })).await
    };
    let bytes = bytes(low).await?.saturating_sub(bytes(high).await?);
    let mut answer = json!({ "from": from, "to": to, "bytes": bytes, "dry_run": dry_run });
    answer[if to > from { "skipped" } else { "events" }] = json!(high - low - gaps.lost(low, high));
    if to > from {
        answer["events"] = json!(0);
    }
    if let Some(until) = until {
        answer["until"] = json!(until.min(from));
    }
    exchange.json(200, &answer);
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    /// First letter.
    from: Option<Place>,
    /// How many letters.
    limit: Option<usize>,
}

/// `POST …/replay`: what went to the dead letters is delivered again, from where it stands in the group.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn replay(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: ReplayBody = body_of(body)?;
    let most = body.limit.unwrap_or(CONSUMER_REPLAYS_MAX).min(CONSUMER_REPLAYS_MAX);
    status::ask(context, subject).await?;
    let Some(letters) = context.lookup.get(&format!("{}.dead", subject.entry.table.name)) else {
        exchange.json(200, &json!({ "events": 0, "gone": 0, "next": 0 }));
        return Ok(());
    };
    let dead = Subject { entry: letters, ..*subject };
    let mut cursor = Cursor::new(Rc::clone(&context.shards), dead.shard(), dead.group(), 0);
    let from = match &body.from {
        Some(place) => place.resolve("from", context, &dead).await?,
        None => cursor.range().await?.earliest,
    };
    cursor.advance(from);
    let (offsets, next) = letters_of(&mut cursor, subject.name, most).await?;
    let earliest = Cursor::new(Rc::clone(&context.shards), subject.shard(), subject.group(), 0).range().await?.earliest;
    let gone = offsets.iter().filter(|offset| **offset < earliest).count();
    let ranges: Vec<Replay> = ranges(offsets.iter().copied().filter(|offset| *offset >= earliest));
    let events: u64 = ranges.iter().map(|range| range.until - range.next).sum();
    if !ranges.is_empty() {
        let audit = subject.audit("consumer.replayed", json!({ "events": events }));
        decide(context, subject, Some(audit), move |consumer, _, change| {
            consumer.add_replays(&ranges)?;
            consumer.moved();
            *change = Change::Record;
            Ok(())
        })
        .await?;
    }
    // What retention took cannot be delivered from the group any more; the letters themselves are still there.
    exchange.json(200, &json!({ "events": events, "gone": gone, "next": next }));
    Ok(())
}

/// Original offsets of the letters that a consumer left behind, at most `most`, and where the next letters begin.
async fn letters_of(cursor: &mut Cursor, consumer: &str, most: usize) -> Result<(Vec<u64>, u64), Fault> {
    let mut frames = Frames::default();
    let mut offsets = Vec::new();
    while offsets.len() < most {
        match cursor.read(&mut frames).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Fault::Lost { to: there, .. } | Fault::Gone { earliest: there }) => {
                cursor.advance(there);
                continue;
            }
            Err(fault) => return Err(fault),
        }
        let mut next = cursor.offset();
        for event in frames.iter().flat_map(|frame| frame.events()) {
            let event = event.map_err(|fault| cursor.corrupt(&fault))?;
            if event.offset < next || offsets.len() == most {
                continue;
            }
            next = event.offset + 1;
            let header = |wanted: &str| {
                let found = event.headers().find(|(name, _)| *name == wanted);
                found.and_then(|(_, value)| std::str::from_utf8(value).ok())
            };
            if header("dead-consumer") == Some(consumer)
                && let Some(offset) = header("dead-offset").and_then(|text| text.parse().ok())
            {
                offsets.push(offset);
            }
        }
        cursor.advance(next);
        // Letters of others may be many, and what is read from memory makes no pause.
        crate::io::ring::park().await;
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok((offsets, cursor.offset()))
}

/// Rising offsets as ranges.
fn ranges(offsets: impl Iterator<Item = u64>) -> Vec<Replay> {
    let mut ranges: Vec<Replay> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some(last) if last.until == offset => last.until += 1,
            _ => ranges.push(Replay { next: offset, until: offset + 1 }),
        }
    }
    ranges
}

/// `POST …/session`: opens a session, standing by for as long as `wait` says.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn open_session(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &["takeover", "wait", "session"])?;
    let takeover = parameters.flag("takeover")?;
    let named = session(&parameters)?;
    let patience = parameters.duration("wait", Duration::from_secs(WAIT_SECONDS_MAX))?.unwrap_or_default();
    let until = Instant::now() + patience;
    let fresh = fastrand::u64(..);
    loop {
        let opened = decide(context, subject, None, move |consumer, ground, change| {
            match named {
                // Who has one already renews it.
                Some(named) => consumer.call(Some(named), ground.now)?,
                None => *change = (*change).max(consumer.open_session(fresh, false, takeover, ground.now)?),
            }
            let name = consumer.session_name().ok_or(Refusal::Fenced { epoch: consumer.epoch })?;
            Ok((name, consumer.head(), consumer.terms.lease))
        });
        let fault = match opened.await {
            Ok((name, next, lease)) => {
                let (session, lease_ms) = (name.to_string(), lease.as_millis() as u64);
                let answer = json!({ "session": session, "epoch": name.epoch, "next": next, "lease_ms": lease_ms });
                exchange.json(200, &answer);
                return Ok(());
            }
            Err(fault) => fault,
        };
        if !stand_by(context, subject, fault, until, exchange).await? {
            return Ok(());
        }
    }
}

/// `DELETE …/session`: the holder leaves, and whoever stands by may come at once.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn leave(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &["session"])?;
    let named = session(&parameters)?;
    decide(context, subject, None, move |consumer, ground, change| {
        *change = (*change).max(consumer.leave(named, ground.now)?);
        Ok(())
    })
    .await?;
    exchange.reply(204).empty();
    Ok(())
}
