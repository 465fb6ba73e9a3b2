//! `GET …/stream`: everything behind the last ack on one connection, history and live on the same cursor, as NDJSON or SSE.
//!
//! ```text
//! session, event …, up_to_date, event …, heartbeat      gap, rewound, blocked as they happen      goaway at the end
//! ```
//!
//! The connection holds the session: while it lives, the lease does not lapse. Acks come by requests of their own.

use super::ask::{Seen, Woken, ask, durable, note_damage, refusal, take, wait};
use super::standby::stand_by;
use super::{Subject, moves};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::parameters::Parameters;
use crate::api::pieces::Style;
use crate::api::problem::Problem;
use crate::group::consumer::{Blocked, Call, Grant, Hold, Life, Refusal, Turn, Wants};
use crate::http::{Head, Known, Stream};
use crate::limits::{READ_BYTES_DEFAULT, READ_EVENTS_MAX, READ_PIECE_BYTES, WAIT_SECONDS_MAX};
use crate::shard::Fault;
use crate::shard::consumers::Decided;
use crate::shard::cursor::Cursor;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::{Duration, Instant};

const KNOWN: [&str; 3] = ["session", "takeover", "wait"];

/// Answers `GET …/consumers/{consumer}/stream`.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub(super) async fn stream(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &KNOWN)?;
    let accept = head.get(Known::Accept).unwrap_or_default();
    let sse = accept.windows(17).any(|part| part.eq_ignore_ascii_case(b"text/event-stream"));
    let answer = fastrand::u64(..);
    let call = Call {
        named: moves::session(&parameters)?,
        takeover: parameters.flag("takeover")?,
        hold: Hold::Take(answer),
        ack: None,
        wants: Wants { after: None, events: READ_EVENTS_MAX, bytes: READ_BYTES_DEFAULT },
        fresh: fastrand::u64(..),
    };
    let patience = parameters.duration("wait", Duration::from_secs(WAIT_SECONDS_MAX))?.unwrap_or_default();
    let opened = match open(context, subject, call, Instant::now() + patience, exchange).await {
        Ok(Some(first)) => begin(context, subject, &first).await.map(|()| first).map_err(Problem::from),
        Ok(None) => return Ok(()),
        Err(problem) => Err(problem),
    };
    // Also what came to nothing may have taken hold of the session on its way.
    let first = match opened {
        Ok(first) => first,
        Err(problem) => {
            detach(context, subject, answer).await;
            return Err(problem);
        }
    };
    let media_type = if sse { "text/event-stream" } else { "application/x-ndjson" };
    let reply = exchange.reply(200).header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff");
    let stream = reply.stream(media_type);
    let call = Call { named: Some(first.value.session), takeover: false, hold: Hold::Keep(answer), ..call };
    let mut feed = Feed { sse, stream, call, told: Told::default(), deadline: Instant::now() };
    feed.frame(&mut exchange.out, "session", &session(&first.value));
    let end = feed.run(context, subject, first, exchange).await;
    exchange.heard_enough();
    // The end of the broker is nobody's failure: the session is there when it comes back.
    if !context.draining() {
        detach(context, subject, answer).await;
    }
    match end {
        End::Goaway(reason) => {
            feed.frame(&mut exchange.out, "goaway", &json!({ "reason": reason }));
            stream.finish(&mut exchange.out);
            exchange.close = true;
        }
        End::HungUp => exchange.hung_up = true,
        End::Fault(fault) => {
            // What is whole before the damage still goes out.
            let _ = exchange.flush().await;
            return crate::api::read::cut_off(exchange, &fault);
        }
    }
    Ok(())
}

fn session(seen: &Seen) -> Value {
    let attempt = match seen.turn {
        Turn::Read(grant) => grant.attempt,
        _ => 0,
    };
    json!({
        "session": seen.session.to_string(),
        "epoch": seen.session.epoch,
        "next": seen.head,
        "tail": seen.tail,
        "attempt": attempt,
        "lease_ms": seen.lease.as_millis() as u64,
    })
}

/// Opens (or joins) the session, standing by where another one is active; `None` when the caller is gone.
async fn open(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    call: Call,
    until: Instant,
    exchange: &mut Exchange,
) -> Result<Option<Decided<Seen>>, Problem> {
    loop {
        match ask(context, subject, call).await {
            Ok(first) => return Ok(Some(first)),
            Err(fault) if stand_by(context, subject, fault.clone(), until, exchange).await? => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Makes sure of what the answer rests on. Whoever comes back to where damage cut it off is told, instead of being cut
/// off for ever.
async fn begin(context: &Rc<Context>, subject: &Subject<'_>, first: &Decided<Seen>) -> Result<(), Fault> {
    durable(context, subject, first.entry).await?;
    let Turn::Read(grant) = first.value.turn else { return Ok(()) };
    let cursor = Cursor::new(Rc::clone(&context.shards), subject.shard(), subject.group(), grant.from);
    let probed = cursor.probe().await;
    note_damage(context, subject, &probed).await;
    probed
}

async fn detach(context: &Context, subject: &Subject<'_>, answer: u64) {
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<()> {
        Box::pin(async move {
            // Whatever hinders it: the lease lapses all the same.
            let _ = shard
                .decide(group, &name, |consumer, ground, change| {
                    *change = (*change).max(consumer.detach(answer, ground.now));
                    Ok(())
                })
                .await;
        })
    };
    context.shards.on(subject.shard(), work).await;
}

/// Why a stream ended.
enum End {
    Goaway(&'static str),
    HungUp,
    Fault(Fault),
}

/// What was said already, so that it is said once.
#[derive(Default)]
struct Told {
    up_to_date: bool,
    blocked: Option<&'static str>,
    /// Where the replay ends that was told to have begun.
    replay: Option<u64>,
    gap: Option<(u64, u64)>,
}

/// A stream under way.
struct Feed {
    sse: bool,
    stream: Stream,
    call: Call,
    told: Told,
    /// When the next heartbeat is due.
    deadline: Instant,
}

impl Feed {
    fn frame(&self, out: &mut Vec<u8>, frame: &str, members: &Value) {
        let members = members.to_string();
        let text = match self.sse {
            true => format!("event: {frame}\ndata: {members}\n\n"),
            false => format!("{{\"frame\":\"{frame}\",{}\n", &members[1..]),
        };
        self.stream.write(out, text.as_bytes());
    }

    async fn run(
        &mut self,
        context: &Rc<Context>,
        subject: &Subject<'_>,
        first: Decided<Seen>,
        exchange: &mut Exchange,
    ) -> End {
        // One wait for all pauses: a new one for every event would pile up in the ring.
        let mut hang_up = std::pin::pin!(exchange.hang_up());
        let heartbeat = context.broker.config.http.heartbeat;
        self.deadline = Instant::now() + heartbeat;
        let mut seen = Ok(first);
        let mut cursor = None;
        loop {
            let (version, offset, at) = match seen {
                Err(fault) => match self.refused(&fault, &mut exchange.out) {
                    // What is next is another event by now: the same session goes on from there.
                    None => {
                        cursor = None;
                        seen = ask(context, subject, self.call).await;
                        continue;
                    }
                    Some(end) => return end,
                },
                Ok(Decided { value, entry }) => match value.turn {
                    Turn::Read(grant) => {
                        match self.send(context, subject, &grant, entry, &mut cursor, exchange).await {
                            Ok(true) => {
                                seen = ask(context, subject, self.call).await;
                                continue;
                            }
                            Ok(false) => (value.version, Some(grant.from), self.deadline),
                            Err(Interrupted::Fault(fault)) => {
                                seen = Err(fault);
                                continue;
                            }
                            Err(Interrupted::HungUp) => return End::HungUp,
                        }
                    }
                    Turn::Blocked(blocked) => {
                        if self.told.blocked.replace(blocked.name()) != Some(blocked.name()) {
                            self.frame(&mut exchange.out, "blocked", &json!({ "reason": blocked.name() }));
                        }
                        let at = match blocked {
                            Blocked::Delay(at) => at.min(self.deadline),
                            _ => self.deadline,
                        };
                        (value.version, None, at)
                    }
                    Turn::Bury(_) => unreachable!("what is to be buried is buried by whoever asks"),
                },
            };
            if exchange.flush().await.is_err() {
                return End::HungUp;
            }
            exchange.rest();
            match wait(context, subject, version, offset, at, hang_up.as_mut()).await {
                Woken::Turn => {}
                Woken::Drain => return End::Goaway("draining"),
                Woken::Lapsed(lapse) => return End::Goaway(lapse.reason()),
                Woken::HungUp => return End::HungUp,
                Woken::Time => {
                    if Instant::now() >= self.deadline {
                        self.deadline = Instant::now() + heartbeat;
                        let tail = match Cursor::new(context.shards.clone(), subject.shard(), subject.group(), 0)
                            .range()
                            .await
                        {
                            Ok(range) => range.tail,
                            Err(_) => return End::Goaway("deleted"),
                        };
                        self.frame(&mut exchange.out, "heartbeat", &json!({ "tail": tail }));
                    }
                }
            }
            seen = ask(context, subject, self.call).await;
        }
    }

    /// Sends one piece of what was granted; false when nothing is there yet.
    async fn send(
        &mut self,
        context: &Rc<Context>,
        subject: &Subject<'_>,
        grant: &Grant,
        entry: u64,
        cursor: &mut Option<Cursor>,
        exchange: &mut Exchange,
    ) -> Result<bool, Interrupted> {
        let out = &mut exchange.out;
        if let Some((from, to)) = grant.gap.filter(|gap| self.told.gap.replace(*gap) != Some(*gap)) {
            self.frame(out, "gap", &json!({ "from": from, "to": to }));
        }
        let replay = grant.replay.then_some(grant.until);
        if self.told.replay != replay {
            self.told.replay = replay;
            let members = match replay {
                Some(until) => json!({ "from": grant.from, "until": until }),
                None => json!({ "done": true, "next": grant.from }),
            };
            self.frame(out, "replay", &members);
        }
        self.told.blocked = None;
        let fresh = || Cursor::new(Rc::clone(&context.shards), subject.shard(), subject.group(), grant.from);
        let cursor = match cursor {
            Some(known) if known.offset() == grant.from => known,
            _ => cursor.insert(fresh()),
        };
        let style = if self.sse { Style::Sse } else { Style::Lines };
        let Some(piece) = take(context, subject, cursor, style, grant, entry).await? else {
            if !std::mem::replace(&mut self.told.up_to_date, true) {
                self.frame(&mut exchange.out, "up_to_date", &json!({ "tail": grant.from }));
            }
            return Ok(false);
        };
        self.stream.write(&mut exchange.out, &piece.bytes);
        self.call.wants.after = piece.next.checked_sub(1);
        exchange.delivered(piece.events);
        if exchange.out.len() >= READ_PIECE_BYTES / 4 && exchange.flush().await.is_err() {
            return Err(Interrupted::HungUp);
        }
        Ok(true)
    }

    /// What a refusal means for the stream; `None` when it goes on.
    fn refused(&mut self, fault: &Fault, out: &mut Vec<u8>) -> Option<End> {
        let reason = match (fault, refusal(fault)) {
            (_, Some(Refusal::Rewound { session, next })) => {
                self.call.named = Some(session);
                self.call.wants.after = None;
                self.told = Told::default();
                let members = json!({ "session": session.to_string(), "epoch": session.epoch, "to": next });
                self.frame(out, "rewound", &members);
                return None;
            }
            // A failure was told, and what was in flight is delivered again; or a replay has ended, and the next begins.
            (_, Some(Refusal::BeyondDelivered { delivered })) => {
                self.call.wants.after = None;
                // No replay ends there: what comes next is told anew.
                self.told.replay = self.told.replay.map(|_| 0);
                self.frame(out, "retry", &json!({ "next": delivered }));
                return None;
            }
            // Retention was faster: the next question tells of the gap.
            (Fault::Gone { .. }, _) => return None,
            (_, Some(Refusal::Fenced { .. })) => "fenced",
            (_, Some(Refusal::NotApproved(Life::Suspended))) => "suspended",
            (_, Some(Refusal::NotApproved(_))) => "revoked",
            (_, Some(Refusal::Expired)) => "expired",
            (_, Some(Refusal::NotThere)) => "unsubscribed",
            (Fault::NoGroup, _) => "deleted",
            _ => return Some(End::Fault(fault.clone())),
        };
        Some(End::Goaway(reason))
    }
}

/// Why a piece was not sent.
enum Interrupted {
    Fault(Fault),
    HungUp,
}

impl From<Fault> for Interrupted {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
