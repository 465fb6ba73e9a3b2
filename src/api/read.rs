//! Events out, without a position: `GET /v1/groups/{group}/events`.
//!
//! What is asked for is found out here; `finite` and `live` answer.

use super::Context;
use super::accept::preferred;
use super::auth::Caller;
use super::exchange::Exchange;
use super::finite::{self, Bounds};
use super::live;
use super::parameters::Parameters;
use super::position::Position;
use super::problem::Problem;
use crate::group::gaps::Gap;
use crate::http::{Head, Known};
use crate::limits::{READ_BYTES_DEFAULT, READ_BYTES_MAX, READ_EVENTS_DEFAULT, READ_EVENTS_MAX, WAIT_SECONDS_MAX};
use crate::shard::Fault;
use crate::shard::cursor::Cursor;
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
    finite::answer(context, cursor, format, bounds, exchange).await
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

/// An answer that has begun cannot turn into a problem: the connection ends in the middle of it, which no client takes for
/// a complete answer.
pub(super) fn cut_off(exchange: &mut Exchange, fault: &Fault) -> Result<(), Problem> {
    tracing::error!(%fault, "an answer was cut off");
    exchange.cut_off();
    Ok(())
}

/// A gap as a member of an object that goes on before it.
pub(super) fn gap_member(Gap { from, to }: Gap) -> String {
    format!(",\"gap\":{{\"from\":{from},\"to\":{to}}}")
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

/// The format that `Accept` likes best; JSON when it does not care.
fn accepted(accept: &[u8]) -> Option<Format> {
    preferred(accept, Format::Json, |media_type| match media_type {
        "application/*" | "application/json" => Some(Format::Json),
        "application/x-ndjson" | "application/ndjson" => Some(Format::Ndjson),
        "application/vnd.eddyline.frames" => Some(Format::Frames),
        "text/event-stream" | "text/*" => Some(Format::Sse),
        _ => None,
    })
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
