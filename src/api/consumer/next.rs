//! `GET …/next`: one batch an answer. The ack of the batch before rides on the request, and at the tail it long-polls.
//!
//! An answer that was lost on its way is simply asked for again: nothing moves but by an ack.

use super::ask::{Seen, Woken, ask, durable, take, wait};
use super::standby::stand_by;
use super::{Subject, moves};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::parameters::Parameters;
use crate::api::pieces::{Piece, Style};
use crate::api::problem::Problem;
use crate::group::consumer::{Blocked, Call, Grant, Hold, SessionName, Turn, Wants};
use crate::http::Head;
use crate::limits::{NEXT_EVENTS_DEFAULT, READ_BYTES_DEFAULT, READ_BYTES_MAX, READ_EVENTS_MAX, WAIT_SECONDS_MAX};
use crate::shard::Fault;
use crate::shard::consumers::Decided;
use crate::shard::cursor::Cursor;
use std::rc::Rc;
use std::time::{Duration, Instant};

const KNOWN: [&str; 7] = ["max", "max_bytes", "wait", "after", "ack", "session", "takeover"];

/// Answers `GET …/consumers/{consumer}/next`.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub(super) async fn next(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &KNOWN)?;
    let wants = Wants {
        after: moves::offset(&parameters, "after")?,
        events: parameters.count("max", NEXT_EVENTS_DEFAULT, READ_EVENTS_MAX)?,
        bytes: parameters.size("max_bytes", READ_BYTES_DEFAULT, READ_BYTES_MAX)?,
    };
    let mut call = Call {
        named: moves::session(&parameters)?,
        takeover: parameters.flag("takeover")?,
        hold: Hold::No,
        ack: moves::offset(&parameters, "ack")?,
        wants,
        fresh: fastrand::u64(..),
    };
    let patience = parameters.duration("wait", Duration::from_secs(WAIT_SECONDS_MAX))?.unwrap_or_default();
    let until = Instant::now() + patience;
    match look(context, subject, &mut call, until, exchange).await? {
        Some(Answer { seen, cursor, grant, first, entry }) => {
            write(context, subject, &seen, cursor, grant, first, entry, exchange).await
        }
        None => Ok(()),
    }
}

/// Everything an answer is made from.
struct Answer {
    seen: Seen,
    cursor: Cursor,
    grant: Option<Grant>,
    first: Option<Rc<Piece>>,
    entry: u64,
}

/// Asks until there is something to answer; `None` when the caller is gone.
async fn look(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    call: &mut Call,
    until: Instant,
    exchange: &mut Exchange,
) -> Result<Option<Answer>, Problem> {
    let mut entry = 0;
    loop {
        let asked = ask(context, subject, *call).await;
        let (version, offset, at) = match asked {
            Ok(Decided { value: seen, entry: after }) => {
                entry = entry.max(after);
                // What was said once is not said again: the ack is taken, the session is ours or everybody's.
                (call.ack, call.takeover) = (None, false);
                let (shard, group) = (subject.shard(), subject.group());
                let grant = match seen.turn {
                    Turn::Read(grant) => Some(grant),
                    _ => None,
                };
                let from = grant.map_or(seen.head, |grant| grant.from);
                let mut cursor = Cursor::new(Rc::clone(&context.shards), shard, group, from);
                let first = match &grant {
                    Some(grant) => match take(context, subject, &mut cursor, Style::List, grant, entry).await {
                        // Retention was faster: what is there now is asked for.
                        Err(Fault::Gone { .. }) => continue,
                        taken => taken?,
                    },
                    None => None,
                };
                // A gap alone is no reason to answer: it would be told again at once to whoever asks on.
                if first.is_some() || Instant::now() >= until || context.draining() {
                    return Ok(Some(Answer { seen, cursor, grant, first, entry }));
                }
                // Who waits is calling: the lease is renewed well before it lapses.
                let renew = Instant::now() + seen.lease / 2;
                let at = match seen.turn {
                    Turn::Blocked(Blocked::Delay(at)) => at.min(renew),
                    _ => renew,
                };
                (seen.version, grant.map(|grant| grant.from), at)
            }
            Err(fault) => match stand_by(context, subject, fault, until, exchange).await? {
                true => continue,
                false => return Ok(None),
            },
        };
        // What was asked before is answered now, not when this wait ends.
        let _ = exchange.flush().await;
        exchange.rest();
        let woken = {
            let hang_up = std::pin::pin!(exchange.hang_up());
            wait(context, subject, version, offset, at.min(until), hang_up).await
        };
        exchange.heard_enough();
        subject.caller.still_good()?;
        if woken == Woken::HungUp {
            exchange.hung_up = true;
            return Ok(None);
        }
    }
}

/// Writes the answer; what does not fit one piece is sent as it is read.
#[expect(clippy::too_many_arguments, reason = "everything an answer is made from")]
async fn write(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    seen: &Seen,
    mut cursor: Cursor,
    grant: Option<Grant>,
    first: Option<Rc<Piece>>,
    entry: u64,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    if first.is_none() {
        durable(context, subject, entry).await?;
    }
    let mut left = grant.unwrap_or(NOTHING);
    let mut sent = 0;
    let mut note = |piece: &Piece, left: &mut Grant| {
        sent += piece.events;
        left.events -= piece.events.min(left.events);
        left.bytes -= piece.data_bytes.min(left.bytes);
    };
    let mut tail = seen.tail;
    // The cursor may be ahead: what was read and could not be noted as delivered is not sent.
    let mut next = cursor.offset();
    let mut body = b"{\"events\":[".to_vec();
    if let Some(piece) = &first {
        note(piece, &mut left);
        body.extend_from_slice(&piece.bytes);
        tail = cursor.range().await?.tail.max(piece.next);
    }
    let goes_on = |cursor: &Cursor, left: &Grant, tail: u64| {
        left.events > 0 && left.bytes > 0 && cursor.offset() < tail.min(left.until)
    };
    if first.is_none() || !goes_on(&cursor, &left, tail) {
        body.extend_from_slice(closing(seen, next, grant.as_ref(), tail).as_bytes());
        exchange.delivered(sent);
        exchange.reply(200).header("X-Content-Type-Options", "nosniff").body("application/json", &body);
        return Ok(());
    }
    let stream = exchange.reply(200).header("X-Content-Type-Options", "nosniff").stream("application/json");
    loop {
        stream.write(&mut exchange.out, &body);
        body.clear();
        if exchange.flush().await.is_err() || !goes_on(&cursor, &left, tail) {
            break;
        }
        // Damage, a rewind or a takeover ends the answer here; the next request is told.
        let Ok(Some(piece)) = take(context, subject, &mut cursor, Style::List, &left, entry).await else { break };
        note(&piece, &mut left);
        next = piece.next;
        body.push(b',');
        body.extend_from_slice(&piece.bytes);
    }
    stream.write(&mut exchange.out, closing(seen, next, grant.as_ref(), tail).as_bytes());
    stream.finish(&mut exchange.out);
    exchange.delivered(sent);
    Ok(())
}

const NOTHING: Grant = Grant {
    session: SessionName { id: 0, epoch: 0 },
    from: 0,
    until: 0,
    events: 0,
    bytes: 0,
    attempt: 0,
    replay: false,
    gap: None,
};

fn closing(seen: &Seen, next: u64, grant: Option<&Grant>, tail: u64) -> String {
    let mut text = format!(
        "],\"next\":{next},\"tail\":{tail},\"up_to_date\":{},\"session\":\"{}\",\"epoch\":{}",
        next >= tail,
        seen.session,
        seen.session.epoch
    );
    match (grant, seen.turn) {
        (Some(grant), _) => {
            text.push_str(&format!(",\"attempt\":{}", grant.attempt));
            if grant.replay {
                text.push_str(",\"replay\":true");
            }
            if let Some((from, to)) = grant.gap {
                text.push_str(&format!(",\"gap\":{{\"from\":{from},\"to\":{to}}}"));
            }
        }
        (None, Turn::Blocked(blocked)) => text.push_str(&format!(",\"blocked\":\"{}\"", blocked.name())),
        (None, _) => {}
    }
    text.push('}');
    text
}
