//! Events out, without a position: `GET /v1/groups/{group}/events`.
//!
//! A finite answer ends at `limit` events, at `max_bytes` of them, at `until` or at the tail, and says where to go on. It
//! is made from pieces of the log and sent as it is made; only what fits one piece is ever in memory. It ends before a gap;
//! one that begins in a gap says so and goes on behind it.

use super::Context;
use super::auth::Caller;
use super::encode::EventEncoder;
use super::exchange::Exchange;
use super::live;
use super::parameters::Parameters;
use super::position::Position;
use super::problem::Problem;
use crate::group::gaps::Gap;
use crate::http::{Head, Known};
use crate::limits::{READ_BYTES_DEFAULT, READ_BYTES_MAX, READ_EVENTS_DEFAULT, READ_EVENTS_MAX, WAIT_SECONDS_MAX};
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use std::rc::Rc;
use std::time::Duration;

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object with a list.
    Json,
    /// One object a line.
    Ndjson,
    /// Stored frames, verbatim.
    Frames,
    /// Server-sent events (live only).
    Sse,
}

/// What a finite answer may hold.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    events: u64,
    bytes: u64,
    until: u64,
}

/// Where a finite answer begins and ends.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// The gap before its first event, if it was asked for what is lost.
    gap: Option<Gap>,
    from: u64,
    next: u64,
    events: u64,
    bytes: u64,
}

const KNOWN: [&str; 8] = ["from", "until", "limit", "max_bytes", "wait", "live", "order", "token"];

/// Answers `GET /v1/groups/{group}/events`.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub async fn events(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let entry = context.group(name)?;
    let parameters = Parameters::new(head.query, &KNOWN)?;
    let live = match parameters.text("live")?.as_deref() {
        None => None,
        Some("sse") => Some(Format::Sse),
        Some("ndjson") => Some(Format::Ndjson),
        Some(_) => return Err(Problem::bad_parameter("live", "sse or ndjson")),
    };
    let accepted = accepted(head.get(Known::Accept).unwrap_or_default());
    let format = live.or(accepted).ok_or_else(|| {
        Problem::new(
            406,
            "no_such_format",
            "events are application/json, application/x-ndjson, application/vnd.eddyline.frames or text/event-stream",
        )
    })?;
    let descending = match parameters.text("order")?.as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(Problem::bad_parameter("order", "asc or desc")),
    };
    let range = Cursor::new(Rc::clone(&context.shards), entry.table.shard, entry.table.number, 0).range().await?;
    let position = |name: &'static str| -> Result<Option<Position>, Problem> {
        parameters.text(name)?.map(|text| Position::parse(name, &text)).transpose()
    };
    let until = match position("until")? {
        Some(until) => Some(until.resolve(&context.shards, &entry, range).await?),
        None => None,
    };
    let resumed = resumed(head, live.is_some() || format == Format::Sse)?;
    let from = match (resumed, position("from")?) {
        (Some(offset), _) => offset,
        (None, Some(from)) => from.resolve(&context.shards, &entry, range).await?,
        (None, None) => range.earliest,
    };
    let wait = parameters.duration("wait", Duration::from_secs(WAIT_SECONDS_MAX))?.unwrap_or_default();
    let bounds = Bounds {
        events: parameters.count("limit", READ_EVENTS_DEFAULT, READ_EVENTS_MAX)?,
        bytes: parameters.size("max_bytes", READ_BYTES_DEFAULT, READ_BYTES_MAX)?,
        until: until.unwrap_or(u64::MAX),
    };
    if from < range.earliest {
        return Err(Fault::Gone { earliest: range.earliest }.into());
    }
    if from > range.tail {
        return Err(Fault::BehindTail { tail: range.tail }.into());
    }
    let cursor = Cursor::new(Rc::clone(&context.shards), entry.table.shard, entry.table.number, from);
    if live.is_some() || format == Format::Sse {
        if descending {
            return Err(Problem::bad_parameter("order", "asc where reading is live"));
        }
        let events = if head.query.contains("limit=") { bounds.events } else { u64::MAX };
        return live::follow(context, caller, cursor, format, bounds.until, events, exchange).await;
    }
    if descending {
        return super::event::descending(
            context,
            &entry,
            from,
            bounds.until.min(range.tail),
            bounds.events,
            bounds.bytes,
            format,
            exchange,
        )
        .await;
    }
    if from == range.tail && from < bounds.until && !wait.is_zero() {
        wait_for_events(&cursor, wait, context, caller, exchange).await?;
    }
    finite(&entry, cursor, format, bounds, exchange).await
}

/// The offset that an event stream goes on at.
fn resumed(head: &Head<'_>, live: bool) -> Result<Option<u64>, Problem> {
    let Some(last) = head.text(Known::LastEventId)?.filter(|text| live && !text.is_empty()) else { return Ok(None) };
    let last: u64 = last.parse().map_err(|_| Problem::bad_parameter("Last-Event-ID", "an offset"))?;
    Ok(Some(last.saturating_add(1)))
}

/// Waits at the tail: for an event, the end of the time, the end of the connection, or the end of the broker.
async fn wait_for_events(
    cursor: &Cursor,
    wait: Duration,
    context: &Context,
    caller: &Caller,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let drain = context.drain.notified();
    if context.draining() {
        return Ok(());
    }
    // What was asked before is answered now, not when this wait ends.
    let _ = exchange.flush().await;
    exchange.rest();
    tokio::select! {
        () = cursor.wait() => {}
        () = tokio::time::sleep(wait) => {}
        () = drain => {}
        _ = caller.lapse(context) => {}
        _ = exchange.hang_up() => exchange.hung_up = true,
    }
    exchange.heard_enough();
    caller.still_good()?;
    // The group may have been deleted meanwhile.
    cursor.range().await?;
    Ok(())
}

/// Writes a finite answer.
async fn finite(
    entry: &Entry,
    mut cursor: Cursor,
    format: Format,
    bounds: Bounds,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let mut frames = Frames::default();
    let mut encoder = EventEncoder::default();
    let mut body = Vec::new();
    let mut extent = Extent { gap: None, from: cursor.offset(), next: cursor.offset(), events: 0, bytes: 0 };
    // The first piece decides: most answers end in it and then have a length.
    let mut first = take(&mut cursor, &mut frames, format, bounds, &mut extent, Some((&mut encoder, &mut body))).await;
    if let Err(Fault::Lost { from, to }) = first {
        cursor.advance(to);
        (extent.gap, extent.from, extent.next) = (Some(Gap { from, to }), to, to);
        first = take(&mut cursor, &mut frames, format, bounds, &mut extent, Some((&mut encoder, &mut body))).await;
    }
    let mut more = first?;
    let tail = cursor.range().await?.tail;
    more &= extent.next < tail;
    if !more {
        exchange.delivered(extent.events);
        let up_to_date = extent.next >= tail;
        match format {
            Format::Json => {
                let mut list = Vec::with_capacity(body.len() + 80);
                list.extend_from_slice(b"{\"events\":[");
                list.extend_from_slice(&body);
                list.extend_from_slice(closing(&extent, tail, up_to_date).as_bytes());
                exchange.reply(200).header("X-Content-Type-Options", "nosniff").body("application/json", &list);
            }
            _ => reply_head(exchange, &extent, tail).body(media_type(format), &body),
        }
        return Ok(());
    }
    // Everything but JSON says in its head where it ends, so the end is looked for first.
    let (reply, upto) = match format {
        Format::Json => (exchange.reply(200).header("X-Content-Type-Options", "nosniff"), u64::MAX),
        _ => {
            let mut ahead = Cursor::new(cursor.shards(), entry.table.shard, entry.table.number, extent.next);
            let mut end = extent;
            while take_more(&mut ahead, &mut frames, format, bounds, &mut end, None).await? {}
            (reply_head(exchange, &end, tail), end.next)
        }
    };
    let stream = reply.stream(media_type(format));
    if !stream.has_body() {
        return Ok(());
    }
    if format == Format::Json {
        body.splice(..0, b"{\"events\":[".iter().copied());
    }
    let bounds = Bounds { until: bounds.until.min(upto), ..bounds };
    loop {
        stream.write(&mut exchange.out, &body);
        body.clear();
        if exchange.flush().await.is_err() || !more {
            break;
        }
        match take_more(&mut cursor, &mut frames, format, bounds, &mut extent, Some((&mut encoder, &mut body))).await {
            Ok(goes_on) => more = goes_on,
            Err(fault) => return cut_off(exchange, &fault),
        }
    }
    if format == Format::Json {
        stream.write(&mut exchange.out, closing(&extent, tail, extent.next >= tail).as_bytes());
    }
    stream.finish(&mut exchange.out);
    exchange.delivered(extent.events);
    Ok(())
}

/// An answer that has begun cannot turn into a problem: the connection ends in the middle of it, which no client takes for
/// a complete answer.
pub(super) fn cut_off(exchange: &mut Exchange, fault: &Fault) -> Result<(), Problem> {
    tracing::error!(%fault, "an answer was cut off");
    exchange.hung_up = true;
    Ok(())
}

fn reply_head<'o>(exchange: &'o mut Exchange, extent: &Extent, tail: u64) -> crate::http::Reply<'o> {
    let reply = exchange.reply(200).header("X-Content-Type-Options", "nosniff");
    let reply = reply.number("Eddyline-First", extent.from).number("Eddyline-Next", extent.next);
    let reply = reply.number("Eddyline-Tail", tail);
    match extent.gap {
        Some(gap) => reply.header("Eddyline-Gap", gap.to_string()),
        None => reply,
    }
}

fn closing(extent: &Extent, tail: u64, up_to_date: bool) -> String {
    let gap = extent.gap.map(gap_member).unwrap_or_default();
    format!("],\"next\":{},\"tail\":{},\"up_to_date\":{up_to_date}{gap}}}", extent.next, tail.max(extent.next))
}

/// A gap as a member of an object that goes on before it.
pub(super) fn gap_member(Gap { from, to }: Gap) -> String {
    format!(",\"gap\":{{\"from\":{from},\"to\":{to}}}")
}

/// Reads one piece of the log and appends what of it belongs to the answer; false when the answer is complete. Without
/// anything to append to, the extent alone is wanted.
async fn take(
    cursor: &mut Cursor,
    frames: &mut Frames,
    format: Format,
    bounds: Bounds,
    extent: &mut Extent,
    mut to: Option<(&mut EventEncoder, &mut Vec<u8>)>,
) -> Result<bool, Fault> {
    if extent.next >= bounds.until || !cursor.read(frames).await? {
        return Ok(false);
    }
    let before = cursor.offset();
    for frame in frames.iter() {
        if format == Format::Frames {
            let end = frame.header.next_offset().min(bounds.until);
            let events = end - extent.next;
            let fits = extent.bytes + frame.bytes.len() as u64 <= bounds.bytes || extent.events == 0;
            if !fits {
                return Ok(false);
            }
            if let Some((_, out)) = &mut to {
                out.extend_from_slice(frame.bytes);
            }
            let taken = events.min(bounds.events - extent.events);
            extent.next += taken;
            extent.events += taken;
            extent.bytes += frame.bytes.len() as u64;
            if extent.events >= bounds.events || extent.next >= bounds.until {
                return Ok(false);
            }
            continue;
        }
        for event in frame.events() {
            let event = event.map_err(|fault| cursor.corrupt(&fault))?;
            if event.offset < before {
                continue;
            }
            let bytes = event.data.len() as u64;
            let full = extent.events >= bounds.events || (extent.events > 0 && extent.bytes + bytes > bounds.bytes);
            if full || event.offset >= bounds.until {
                return Ok(false);
            }
            if let Some((encoder, out)) = &mut to {
                if format == Format::Json && extent.events > 0 {
                    out.push(b',');
                }
                encoder.event(out, &event);
                if format == Format::Ndjson {
                    out.push(b'\n');
                }
            }
            extent.next = event.offset + 1;
            extent.events += 1;
            extent.bytes += bytes;
        }
    }
    cursor.advance(extent.next);
    Ok(extent.events < bounds.events && extent.bytes < bounds.bytes && extent.next < bounds.until)
}

/// The pieces behind the first: the answer ends where damage or a gap begins, and whoever goes on there is told of it.
async fn take_more(
    cursor: &mut Cursor,
    frames: &mut Frames,
    format: Format,
    bounds: Bounds,
    extent: &mut Extent,
    to: Option<(&mut EventEncoder, &mut Vec<u8>)>,
) -> Result<bool, Fault> {
    match take(cursor, frames, format, bounds, extent, to).await {
        Err(Fault::Corrupt { .. } | Fault::Lost { .. } | Fault::Gone { .. }) => Ok(false),
        other => other,
    }
}

/// Media type of a finite answer.
#[must_use]
pub fn media_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        Format::Ndjson => "application/x-ndjson",
        Format::Frames => "application/vnd.eddyline.frames",
        Format::Sse => "text/event-stream",
    }
}

/// The format that `Accept` (RFC 9110, 12.5.1) likes best; JSON when it does not care.
fn accepted(accept: &[u8]) -> Option<Format> {
    let accept = std::str::from_utf8(accept).unwrap_or_default();
    if accept.trim().is_empty() {
        return Some(Format::Json);
    }
    let mut best: Option<(Format, f32)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => Format::Json,
            "application/x-ndjson" | "application/ndjson" => Format::Ndjson,
            "application/vnd.eddyline.frames" => Format::Frames,
            "text/event-stream" | "text/*" => Format::Sse,
            _ => continue,
        };
        let quality =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        if quality > 0.0 && best.is_none_or(|(_, known)| quality > known) {
            best = Some((format, quality));
        }
    }
    best.map(|(format, _)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_by_preference() {
        for (accept, format) in [
            ("", Some(Format::Json)),
            ("*/*", Some(Format::Json)),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("application/json;q=0.5, application/x-ndjson", Some(Format::Ndjson)),
            ("text/html, */*;q=0.1", Some(Format::Json)),
            ("application/vnd.eddyline.frames", Some(Format::Frames)),
            ("text/event-stream", Some(Format::Sse)),
            ("text/html", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(accepted(accept.as_bytes()), format, "{accept}");
        }
    }
}
