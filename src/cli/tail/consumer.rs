//! `eddyline tail --consumer`: reads through a consumer's stream, in a session of its own, and acks what was printed.
//!
//! What is printed and not acked yet is behind a lock, so that whoever interrupts the command leaves the session between
//! two acks. A broker that went away is waited for in the same session, so nothing is printed twice on that account.

use std::io::{BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use ureq::http::Method;

use super::super::client::{Client, consumer_path, encoded};
use super::super::event::Line;
use super::super::failure::{Exit, Failure};
use super::super::output;
use super::super::trouble::{Refusal, Trouble};
use super::{BACKOFF_MAX, BACKOFF_MIN, Printer, read_line, understood};

/// How long one request stands by for the session.
const STAND_BY: &str = "20s";
/// Bytes that are read before they are printed and acked together.
const BUFFER_BYTES: usize = 256 << 10;
/// Longest wait for what is being printed, when interrupted.
const INTERRUPTED_WAIT: Duration = Duration::from_secs(2);

/// A reader in the name of a consumer.
pub(super) struct Reader<'c> {
    client: &'c Client,
    group: &'c str,
    name: &'c str,
    ack: bool,
    follow: bool,
    /// The session; locked while something is printed that is not acked.
    session: Arc<Mutex<Option<String>>>,
}

/// Where the reader is.
#[derive(Default)]
struct Progress {
    /// Offset behind the last event that was printed; what comes again because a connection broke is not printed again.
    printed: u64,
    /// The last event that was printed and is not acked.
    unacked: Option<u64>,
    /// What was said of a broker or a session that is away.
    away: bool,
    backoff: Duration,
}

/// Why a connection ended.
enum End {
    /// Everything that was to be printed is.
    Done,
    /// It may be there again later.
    Away(String),
    /// Another session reads.
    Fenced,
}

impl<'c> Reader<'c> {
    pub(super) fn new(client: &'c Client, group: &'c str, name: &'c str, ack: bool, follow: bool) -> Self {
        Self { client, group, name, ack, follow, session: Arc::default() }
    }

    fn path(&self, rest: &str) -> String {
        consumer_path(self.group, self.name, rest)
    }

    fn session(&self) -> MutexGuard<'_, Option<String>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the session when a signal comes, once what is printed is acked; a second signal ends the process at once.
    pub(super) fn leave_when_interrupted(&self) -> Result<(), Failure> {
        let wrong = |error: std::io::Error| Failure::failed(format!("cannot handle signals: {error}"));
        let told = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&told)).map_err(wrong)?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(wrong)?;
        let (client, session) = (self.client.clone(), Arc::clone(&self.session));
        let path = self.path("/session?session=");
        std::thread::spawn(move || {
            let Some(signal) = signals.forever().next() else { return };
            told.store(true, Ordering::Relaxed);
            // Whoever reads what is printed may have stopped, too: then the session lapses by itself.
            for _ in 0..INTERRUPTED_WAIT.as_millis() / 10 {
                if let Ok(session) = session.try_lock() {
                    leave(&client, &path, session.as_deref());
                    // Still locked: the reader, whose stream ends now, must not ask for another session.
                    std::process::exit(128 + signal);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            std::process::exit(128 + signal);
        });
        Ok(())
    }

    /// Prints what the consumer has not acked: up to the tail, or, following, for ever.
    pub(super) fn run(&self, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let result = self.read(printer);
        leave(self.client, &self.path("/session?session="), self.session().take().as_deref());
        result
    }

    fn read(&self, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let mut progress = Progress { backoff: BACKOFF_MIN, ..Progress::default() };
        loop {
            match self.connection(&mut progress, printer)? {
                End::Done => return Ok(()),
                End::Away(cause) if self.follow => {
                    if !std::mem::replace(&mut progress.away, true) {
                        output::say(&format!("the broker went away ({cause}), trying again"));
                    }
                    std::thread::sleep(progress.backoff.mul_f64(0.5 + fastrand::f64() / 2.0));
                    progress.backoff = (progress.backoff * 2).min(BACKOFF_MAX);
                }
                End::Away(cause) => return Err(self.client.lost(cause).into()),
                End::Fenced if self.follow => {
                    self.session().take();
                    output::say("another session reads for this consumer, standing by");
                    progress = Progress { backoff: BACKOFF_MIN, away: true, ..Progress::default() };
                }
                End::Fenced => return Err(refused("another session reads for this consumer now")),
            }
        }
    }

    /// Reads on one connection, in the session that is there or another one.
    fn connection(&self, progress: &mut Progress, printer: &mut Printer<'_>) -> Result<End, Failure> {
        if let Some(end) = self.open()? {
            return Ok(end);
        }
        let session = self.session().clone().unwrap_or_default();
        let path = self.path(&format!("/stream?session={}", encoded(&session)));
        match self.client.get(&path, "application/x-ndjson") {
            Ok(answer) => self.lines(BufReader::with_capacity(BUFFER_BYTES, answer.into_reader()), progress, printer),
            Err(trouble) => self.troubled(trouble),
        }
    }

    /// Makes sure of a session.
    fn open(&self) -> Result<Option<End>, Failure> {
        let mut told = false;
        while self.session().is_none() {
            let wait = if self.follow { format!("?wait={STAND_BY}") } else { String::new() };
            match self.client.send(&Method::POST, &self.path(&format!("/session{wait}")), &[], None) {
                Ok(answer) => {
                    let answer: Value = answer.json()?;
                    *self.session() = answer.get("session").and_then(Value::as_str).map(str::to_owned);
                }
                Err(Trouble::Refused(refusal)) if self.follow && refusal.problem.code == "session_active" => {
                    if !std::mem::replace(&mut told, true) {
                        output::say("another session reads for this consumer, standing by");
                    }
                }
                Err(trouble) => return self.troubled(trouble).map(Some),
            }
        }
        Ok(None)
    }

    /// What went wrong with a request, as the end of a connection where that is not the end of everything.
    fn troubled(&self, trouble: Trouble) -> Result<End, Failure> {
        match trouble {
            Trouble::Unreachable { cause, .. } if self.follow => Ok(End::Away(cause)),
            Trouble::Refused(refusal) if self.follow && refusal.status == 503 => {
                Ok(End::Away(refusal.problem.code.clone()))
            }
            Trouble::Refused(refusal) if refusal.problem.code == "fenced" => Ok(End::Fenced),
            Trouble::Refused(refusal) if refusal.problem.code == "rewound" => {
                *self.session() = session_in(&refusal);
                Ok(End::Away("the position was moved".to_owned()))
            }
            trouble => Err(trouble.into()),
        }
    }

    /// Prints what one connection brings.
    fn lines(
        &self,
        mut reader: BufReader<impl Read>,
        progress: &mut Progress,
        printer: &mut Printer<'_>,
    ) -> Result<End, Failure> {
        let mut held = None;
        loop {
            if !reader.buffer().contains(&b'\n') {
                // What is printed is seen, and acked, before more is waited for.
                if let Some(end) = self.acked(held.take(), progress, printer)? {
                    return Ok(end);
                }
            }
            let line = match read_line(&mut reader) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(End::Away("it closed the connection".to_owned())),
                Err(cause) => return Ok(End::Away(cause)),
            };
            progress.backoff = BACKOFF_MIN;
            match understood(&line)? {
                Line::Event(event) => {
                    held.get_or_insert_with(|| self.session());
                    if event.offset >= progress.printed {
                        printer.print(&event)?;
                        progress.printed = event.offset + 1;
                    }
                    progress.unacked = Some(event.offset);
                }
                Line::Frame(_) => {
                    let end = self.acked(held.take(), progress, printer)?;
                    let frame: Value = serde_json::from_str(&line).unwrap_or_default();
                    if let Some(end) = end.map_or_else(|| self.frame(&frame, progress), |end| Ok(Some(end)))? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Flushes what was printed, acks it, and lets go of the session's lock.
    fn acked(
        &self,
        held: Option<MutexGuard<'_, Option<String>>>,
        progress: &mut Progress,
        printer: &mut Printer<'_>,
    ) -> Result<Option<End>, Failure> {
        printer.flush()?;
        let (Some(offset), Some(session)) = (progress.unacked.take(), held.filter(|_| self.ack)) else {
            return Ok(None);
        };
        let body = json!({ "offset": offset, "session": *session }).to_string();
        let body = Some(("application/json", body.as_bytes()));
        let answer = self.client.send(&Method::POST, &self.path("/ack"), &[], body);
        drop(session);
        match answer {
            // The connection is of use again only once its answer was read.
            Ok(answer) => answer.json::<Value>().map(|_| None).map_err(Into::into),
            // A frame that says so is on its way.
            Err(Trouble::Refused(refusal))
                if ["rewound", "beyond_delivered"].contains(&refusal.problem.code.as_str()) =>
            {
                Ok(None)
            }
            Err(trouble) => self.troubled(trouble).map(Some),
        }
    }

    /// Says what a control frame means for whoever looks on.
    fn frame(&self, frame: &Value, progress: &mut Progress) -> Result<Option<End>, Failure> {
        let text = |name: &str| frame.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| frame.get(name).and_then(Value::as_u64).unwrap_or_default();
        match text("frame") {
            "session" => {
                if std::mem::take(&mut progress.away) {
                    output::say(&format!("connected again, going on at offset {}", number("next")));
                }
                if number("attempt") > 1 {
                    output::say(&format!("attempt {} at offset {}", number("attempt"), number("next")));
                }
            }
            "up_to_date" if !self.follow => return Ok(Some(End::Done)),
            "gap" => output::say(&format!("gap: offsets {} to {} are gone", number("from"), number("to"))),
            "rewound" => {
                output::say(&format!("rewound: going on at offset {}", number("to")));
                *self.session() = Some(text("session").to_owned());
                progress.printed = 0;
            }
            "retry" => {
                output::say(&format!("retry: going on again at offset {}", number("next")));
                progress.printed = 0;
            }
            "replay" => {
                output::say(&match frame.get("done") {
                    Some(_) => format!("replay: done, going on at offset {}", number("next")),
                    None => format!("replay: offsets {} to {} again", number("from"), number("until")),
                });
                progress.printed = 0;
            }
            "blocked" => return self.blocked(text("reason")),
            "goaway" => return self.goaway(text("reason")).map(Some),
            _ => {}
        }
        Ok(None)
    }

    fn blocked(&self, reason: &str) -> Result<Option<End>, Failure> {
        let words = match reason {
            // The acks are on their way.
            "in_flight" if self.ack => return Ok(None),
            "in_flight" => "as much is delivered as may be before something is acked",
            "delay" => "a failure is tried again later",
            "poison" => "every attempt at the next event failed",
            other => other,
        };
        let said = format!("blocked: {words}");
        match (self.follow, reason) {
            (false, "poison" | "delay") => Err(Failure::failed(said)),
            (follow, _) => {
                output::say(&said);
                Ok((!follow).then_some(End::Done))
            }
        }
    }

    fn goaway(&self, reason: &str) -> Result<End, Failure> {
        match reason {
            "draining" => Ok(End::Away("it is shutting down".to_owned())),
            "fenced" => Ok(End::Fenced),
            "expired" => Err(refused("the consumer's approval has expired")),
            "deleted" => Err(refused("the group was removed")),
            "unsubscribed" => Err(refused("the consumer was removed")),
            other => Err(refused(&format!("the consumer was {other}"))),
        }
    }
}

fn refused(message: &str) -> Failure {
    Failure { exit: Exit::Refused, message: message.to_owned(), hint: None }
}

/// The session's name from now on, in a refusal that tells of a rewind.
fn session_in(refusal: &Refusal) -> Option<String> {
    refusal.problem.more.get("session").and_then(Value::as_str).map(str::to_owned)
}

/// Leaves a session. If that fails, it lapses by itself.
fn leave(client: &Client, path: &str, session: Option<&str>) {
    if let Some(session) = session {
        let _ = client.send(&Method::DELETE, &format!("{path}{}", encoded(session)), &[], None);
    }
}

#[cfg(test)]
mod tests;
