//! Events out, live: history and then every new event on one connection, as SSE or NDJSON.
//!
//! It is one cursor, so there is neither a hole nor a duplicate where history ends. Between events come control frames:
//! `up_to_date` when the reader has everything, `gap` where events were lost, `heartbeat` with the tail while nothing
//! happens, `goaway` when the broker is about to end or the reader's token is good no more. A client that closes, even only
//! its sending side, has hung up.

use super::Context;
use super::auth::Caller;
use super::encode::EventEncoder;
use super::exchange::{Exchange, Hangup};
use super::problem::Problem;
use super::read::{Format, cut_off, media_type};
use crate::http::Stream;
use crate::limits::READ_PIECE_BYTES;
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use std::pin::Pin;
use std::rc::Rc;

/// Why waiting at the tail ended.
enum Woken {
    Events,
    Heartbeat,
    Drain,
    Lapsed,
    HungUp,
}

/// What is left to be told.
struct Follower {
    format: Format,
    stream: Stream,
    encoder: EventEncoder,
    until: u64,
    /// Events that may still be sent.
    events: u64,
}

/// Sends everything from the cursor on until `until`, `events` of them, the end of the client or of the broker.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub async fn follow(
    context: &Rc<Context>,
    caller: &Caller,
    mut cursor: Cursor,
    format: Format,
    until: u64,
    events: u64,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    // Whoever comes back to where damage cut it off is told, instead of being cut off for ever.
    cursor.probe().await?;
    let reply = exchange.reply(200).header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff");
    let stream = reply.stream(media_type(format));
    if !stream.has_body() {
        return Ok(());
    }
    let mut follower = Follower { format, stream, encoder: EventEncoder::default(), until, events };
    let end = follower.run(context, caller, &mut cursor, exchange).await;
    exchange.heard_enough();
    match end {
        Ok(()) => {
            stream.finish(&mut exchange.out);
            Ok(())
        }
        Err(End::HungUp) => {
            exchange.hung_up = true;
            Ok(())
        }
        // The group was deleted: that is an end, and it is said.
        Err(End::Fault(Fault::NoGroup)) => {
            follower.send_away("deleted", exchange);
            stream.finish(&mut exchange.out);
            Ok(())
        }
        Err(End::Fault(fault)) => {
            // What is whole before the damage still goes out.
            let _ = exchange.flush().await;
            cut_off(exchange, &fault)
        }
    }
}

/// Why a live answer ended early.
enum End {
    HungUp,
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Hangup> for End {
    fn from(_: Hangup) -> Self {
        Self::HungUp
    }
}

impl Follower {
    async fn run(
        &mut self,
        context: &Rc<Context>,
        caller: &Caller,
        cursor: &mut Cursor,
        exchange: &mut Exchange,
    ) -> Result<(), End> {
        let mut told = false;
        // One wait for all pauses: a new one for every event would pile up in the ring.
        let mut hang_up = std::pin::pin!(exchange.hang_up());
        while cursor.offset() < self.until && self.events > 0 {
            if let Some(lapse) = caller.lapsed() {
                self.send_away(lapse.reason(), exchange);
                return Ok(());
            }
            match self.send_history(cursor, exchange).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(End::Fault(Fault::Lost { from, to })) => {
                    self.control(&mut exchange.out, "gap", &format!("\"from\":{from},\"to\":{to}"));
                    cursor.advance(to);
                    continue;
                }
                // Retention was faster than this reader.
                Err(End::Fault(Fault::Gone { earliest })) => {
                    let from = cursor.offset();
                    self.control(&mut exchange.out, "gap", &format!("\"from\":{from},\"to\":{earliest}"));
                    cursor.advance(earliest);
                    continue;
                }
                Err(end) => return Err(end),
            }
            let tail = cursor.offset();
            // Once: a reader that keeps up knows.
            if !std::mem::replace(&mut told, true) {
                self.control(&mut exchange.out, "up_to_date", &format!("\"tail\":{tail}"));
            }
            exchange.flush().await?;
            exchange.rest();
            match wait(context, caller, cursor, hang_up.as_mut()).await {
                // The next round sees what is to be done.
                Woken::Events | Woken::Lapsed => {}
                Woken::Heartbeat => self.control(&mut exchange.out, "heartbeat", &format!("\"tail\":{tail}")),
                Woken::Drain => {
                    self.send_away("draining", exchange);
                    return Ok(());
                }
                Woken::HungUp => return Err(End::HungUp),
            }
        }
        Ok(())
    }

    /// Sends what is there; false when nothing was.
    async fn send_history(&mut self, cursor: &mut Cursor, exchange: &mut Exchange) -> Result<bool, End> {
        let mut frames = Frames::default();
        if !cursor.read(&mut frames).await? {
            return Ok(false);
        }
        let mark = self.stream.begin(&mut exchange.out);
        let mut next = cursor.offset();
        let mut sent = 0;
        for frame in frames.iter() {
            for event in frame.events() {
                let event = event.map_err(|fault| cursor.corrupt(&fault))?;
                if event.offset < next || event.offset >= self.until || sent == self.events {
                    continue;
                }
                next = event.offset + 1;
                sent += 1;
                let out = &mut exchange.out;
                if self.format == Format::Sse {
                    out.extend_from_slice(b"id: ");
                    out.extend_from_slice(itoa::Buffer::new().format(event.offset).as_bytes());
                    out.extend_from_slice(b"\ndata: ");
                    self.encoder.event(out, &event);
                    out.extend_from_slice(b"\n\n");
                } else {
                    self.encoder.event(out, &event);
                    out.push(b'\n');
                }
            }
        }
        self.stream.end(&mut exchange.out, mark);
        cursor.advance(next);
        self.events -= sent;
        exchange.delivered(sent);
        drop(frames);
        if exchange.out.len() >= READ_PIECE_BYTES / 4 {
            exchange.flush().await?;
        }
        Ok(true)
    }

    /// Says why this is the end of the answer and of the connection.
    fn send_away(&self, reason: &str, exchange: &mut Exchange) {
        self.control(&mut exchange.out, "goaway", &format!("\"reason\":\"{reason}\""));
        exchange.close = true;
    }

    fn control(&self, out: &mut Vec<u8>, frame: &str, members: &str) {
        let text = match self.format {
            Format::Sse => format!("event: {frame}\ndata: {{{members}}}\n\n"),
            _ => format!("{{\"frame\":\"{frame}\",{members}}}\n"),
        };
        self.stream.write(out, text.as_bytes());
    }
}

async fn wait(context: &Rc<Context>, caller: &Caller, cursor: &Cursor, hang_up: Pin<&mut impl Future>) -> Woken {
    let drain = context.drain.notified();
    if context.draining() {
        return Woken::Drain;
    }
    tokio::select! {
        biased;
        () = cursor.wait() => Woken::Events,
        () = drain => Woken::Drain,
        _ = caller.lapse(context) => Woken::Lapsed,
        _ = hang_up => Woken::HungUp,
        () = tokio::time::sleep(context.broker.config.http.heartbeat) => Woken::Heartbeat,
    }
}
