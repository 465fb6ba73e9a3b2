//! One event alone, raw; and the newest events first.

use super::Context;
use super::encode::{EventEncoder, put_id};
use super::exchange::Exchange;
use super::position::Position;
use super::problem::Problem;
use super::read::{Format, gap_member};
use crate::group::gaps::{Gap, Gaps};
use crate::limits::{DESCENDING_EVENTS_MAX, READ_BYTES_DEFAULT};
use crate::log::event::{Encoding, Event};
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use std::rc::Rc;
use uuid::Uuid;

/// Answers `GET /v1/groups/{group}/events/{offset or id}`: the bytes that went in.
///
/// # Errors
/// What is to be answered instead.
pub async fn one(context: &Rc<Context>, name: &str, which: &str, exchange: &mut Exchange) -> Result<(), Problem> {
    let entry = context.group(name)?;
    let digits = !which.is_empty() && which.bytes().all(|byte| byte.is_ascii_digit());
    let wanted = match (digits.then(|| which.parse::<u64>().ok()).flatten(), which.parse::<Uuid>()) {
        (Some(offset), _) => Position::Offset(offset),
        (None, Ok(id)) => Position::Id(id.as_u128()),
        (None, Err(_)) => return Err(Problem::new(400, "bad_position", "an event is named by its offset or its id")),
    };
    let mut cursor = Cursor::new(Rc::clone(&context.shards), entry.table.shard, entry.table.number, 0);
    let range = cursor.range().await?;
    let wanted_id = if let Position::Id(id) = wanted { Some(id) } else { None };
    cursor.advance(wanted.resolve(&context.shards, &entry, range).await?);
    let no_event = || Problem::new(404, "no_event", "there is no such event");
    if cursor.offset() < range.earliest {
        return Err(Fault::Gone { earliest: range.earliest }.into());
    }
    let mut frames = Frames::default();
    match cursor.read(&mut frames).await {
        Ok(true) => {}
        Ok(false) | Err(Fault::BehindTail { .. }) => return Err(no_event()),
        Err(fault) => return Err(fault.into()),
    }
    for frame in frames.iter() {
        for event in frame.events() {
            let event = event.map_err(|fault| cursor.corrupt(&fault))?;
            if event.offset == cursor.offset() {
                return match wanted_id {
                    Some(id) if id != event.id => Err(no_event()),
                    _ => {
                        write(&event, exchange);
                        exchange.delivered(1);
                        Ok(())
                    }
                };
            }
        }
    }
    Err(no_event())
}

/// Stored bytes are never served as something that a browser would run.
fn write(event: &Event<'_>, exchange: &mut Exchange) {
    let content_type = match (event.content_type, event.encoding) {
        (Some(content_type), _) if !is_active(content_type) => content_type,
        (_, Encoding::Json) => b"application/json",
        (_, Encoding::Text) => b"text/plain; charset=utf-8",
        (_, Encoding::Bytes) => b"application/octet-stream",
    };
    let mut id = Vec::new();
    put_id(&mut id, event.id);
    let mut reply = exchange
        .reply(200)
        .number("Eddyline-Offset", event.offset)
        .header("Eddyline-Id", id)
        .header("Eddyline-Received", EventEncoder::time_text(event.received_us))
        .header("X-Content-Type-Options", "nosniff")
        .header("Content-Security-Policy", "default-src 'none'; sandbox");
    if let Some(key) = event.key {
        reply = reply.header("Eddyline-Key", key);
    }
    for (name, value) in event.headers() {
        reply = reply.meta(name, value);
    }
    reply.body(content_type, event.data);
}

fn is_active(content_type: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content_type).to_ascii_lowercase();
    ["html", "xml", "svg", "script", "css", "pdf", "wasm"].iter().any(|kind| text.contains(kind))
}

/// What a page of `from..until` that goes down from `until` holds: the gap it begins in, if it does, the offset behind the
/// page's newest event, and where the page ends, which is before the next gap.
fn above_gaps(gaps: &Gaps, from: u64, until: u64) -> (Option<Gap>, u64, u64) {
    let mut below = gaps.iter().rev().filter(|gap| gap.from < until && gap.to > from).peekable();
    let within = below.next_if(|gap| gap.to >= until);
    let until = within.map_or(until, |gap| gap.from.max(from));
    (within, until, below.next().map_or(from, |gap| gap.to))
}

/// Writes the last events of `from..until`, the newest first. `next` of the answer is the `until` of the following page.
///
/// # Errors
/// What is to be answered instead; nothing was written.
#[expect(clippy::too_many_arguments, reason = "the parameters of one request")]
pub async fn descending(
    context: &Rc<Context>,
    entry: &Entry,
    from: u64,
    until: u64,
    events: u64,
    bytes: u64,
    format: Format,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    if format == Format::Frames {
        return Err(Problem::bad_parameter("order", "asc for stored frames"));
    }
    let (shard, group) = (entry.table.shard, entry.table.number);
    let gaps = context.shards.ask(shard, move |shard| Box::pin(async move { shard.gaps(group) })).await?;
    let (gap, until, least) = above_gaps(&gaps, from, until);
    let start = until.saturating_sub(events.min(DESCENDING_EVENTS_MAX)).max(least);
    let mut cursor = Cursor::new(Rc::clone(&context.shards), shard, group, start);
    let mut frames = Frames::default();
    let mut encoder = EventEncoder::default();
    let mut shown: Vec<(u64, Vec<u8>)> = Vec::new();
    let most = bytes.min(READ_BYTES_DEFAULT) as usize;
    let mut held = 0;
    while cursor.offset() < until && cursor.read(&mut frames).await? {
        let mut next = cursor.offset();
        for frame in frames.iter() {
            for event in frame.events() {
                let event = event.map_err(|fault| cursor.corrupt(&fault))?;
                if event.offset < next || event.offset >= until {
                    continue;
                }
                next = event.offset + 1;
                let mut text = Vec::new();
                encoder.event(&mut text, &event);
                held += text.len();
                shown.push((event.offset, text));
            }
        }
        // The oldest give way: the newest are wanted, and memory is bounded.
        let mut surplus = 0;
        while held > most && surplus + 1 < shown.len() {
            held -= shown[surplus].1.len();
            surplus += 1;
        }
        shown.drain(..surplus);
        cursor.advance(next);
    }
    let tail = cursor.range().await?.tail;
    let next = shown.first().map_or(start, |(offset, _)| *offset);
    let texts = || shown.iter().rev().map(|(_, text)| text.as_slice());
    let done = next <= from;
    exchange.delivered(shown.len() as u64);
    match format {
        Format::Ndjson => {
            let body: Vec<u8> = texts().flat_map(|text| [text, b"\n"].concat()).collect();
            let mut reply = exchange.reply(200).number("Eddyline-Next", next).number("Eddyline-Tail", tail);
            if let Some(gap) = gap {
                reply = reply.header("Eddyline-Gap", gap.to_string());
            }
            reply.body("application/x-ndjson", &body);
        }
        _ => {
            let list = texts().collect::<Vec<_>>().join(&b","[..]);
            let mut body = b"{\"events\":[".to_vec();
            body.extend_from_slice(&list);
            let gap = gap.map(gap_member).unwrap_or_default();
            body.extend_from_slice(
                format!("],\"next\":{next},\"tail\":{tail},\"up_to_date\":{done}{gap}}}").as_bytes(),
            );
            exchange.reply(200).body("application/json", &body);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_goes_down_ends_before_a_gap_and_tells_of_one_it_begins_in() {
        let (low, high) = (Gap { from: 10, to: 20 }, Gap { from: 30, to: 40 });
        let mut gaps = Gaps::default();
        [low, high].into_iter().for_each(|gap| gaps.add(gap));
        let (low, high) = (Some(low), Some(high));
        for (from, until, expected) in [
            (0, 50, (None, 50, 40)),
            (45, 50, (None, 50, 45)),
            (0, 40, (high, 30, 20)),
            (0, 35, (high, 30, 20)),
            (32, 38, (high, 32, 32)),
            (0, 30, (None, 30, 20)),
            (0, 20, (low, 10, 0)),
            (0, 10, (None, 10, 0)),
            (15, 30, (None, 30, 20)),
            (20, 30, (None, 30, 20)),
        ] {
            assert_eq!(above_gaps(&gaps, from, until), expected, "{from}..{until}");
        }
    }
}
