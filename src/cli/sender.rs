//! Sends the requests of a producer in order: numbers them, waits and sends again where that is safe, and keeps the
//! tally of what was answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use ureq::http::Method;

use super::batches::Batch;
use super::client::{Answer, Client, group_path};
use super::failure::{Failure, INTERRUPTED};
use super::output;
use super::trouble::{Refusal, Trouble};

/// What the broker has answered for.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    counts: Arc<Mutex<Counts>>,
    bar: ProgressBar,
}

#[derive(Debug, Default)]
struct Counts {
    events: u64,
    duplicates: u64,
    requests: u64,
    last_offset: Option<u64>,
    /// Events of the request that is not answered yet.
    under_way: u64,
}

impl Default for Tally {
    /// A tally nobody watches.
    fn default() -> Self {
        Self { counts: Arc::default(), bar: ProgressBar::hidden() }
    }
}

impl Tally {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Events answered for so far, duplicates included.
    pub(super) fn events(&self) -> u64 {
        self.with(|counts| counts.events)
    }

    /// Ends the progress line and says the tally.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        output::say(&self.summary());
    }

    pub(super) fn summary(&self) -> String {
        self.with(|counts| {
            let mut text = format!(
                "{} in {}",
                output::several(counts.events, "event"),
                output::several(counts.requests, "request")
            );
            if let Some(offset) = counts.last_offset {
                text.push_str(&format!(", last offset {offset}"));
            }
            match counts.duplicates {
                0 => {}
                all if all == counts.events => {
                    text.push_str("; all of them were stored before, none is new");
                }
                some => text.push_str(&format!("; {some} of them were stored before")),
            }
            text
        })
    }
}

/// A tally with a progress line on a terminal, which is said too when the command is interrupted.
pub(super) fn watched() -> Tally {
    let visible = std::io::stderr().is_terminal() && !std::io::stdin().is_terminal();
    let bar = if visible { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}") {
        bar.set_style(style);
    }
    let tally = Tally { bar, ..Tally::default() };
    let watched = tally.clone();
    // Without signal handling the command still works; it only ends without its tally.
    if let Ok(mut signals) = Signals::new([SIGINT]) {
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                watched.finish();
                let under_way = watched.with(|counts| counts.under_way);
                if under_way > 0 {
                    output::say(&format!("interrupted; {under_way} more were under way and may be stored too"));
                }
                std::process::exit(INTERRUPTED);
            }
        });
    }
    tally
}

/// Keeps events from being sent faster than asked.
pub(super) struct Pace {
    start: Instant,
    events_a_second: u64,
}

impl Pace {
    pub(super) fn new(events_a_second: u64) -> Self {
        Self { start: Instant::now(), events_a_second }
    }

    /// Waits until `sent` events may have been sent.
    pub(super) fn wait(&self, sent: u64) {
        let due = Duration::from_secs_f64(sent as f64 / self.events_a_second as f64);
        std::thread::sleep(due.saturating_sub(self.start.elapsed()));
    }
}

/// How long a request is sent again before the command gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Sends requests to one group.
pub(super) struct Sender<'a> {
    client: &'a Client,
    group: &'a str,
    key: Option<String>,
    /// Name and epoch.
    producer: Option<(String, u64)>,
    /// Number of the next request.
    seq: u64,
    tally: &'a Tally,
}

/// The answer to a request. A duplicate so old that its offsets are forgotten has none.
#[derive(Deserialize)]
struct Stored {
    last_offset: Option<u64>,
    count: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        client: &'a Client,
        group: &'a str,
        key: Option<String>,
        producer: Option<(String, u64)>,
        tally: &'a Tally,
    ) -> Self {
        Self { client, group, key, producer, seq: 0, tally }
    }

    /// Sends one event as it is.
    pub(super) fn single(&mut self, value: &str) -> Result<(), Failure> {
        self.send("/events", value.as_bytes(), 1, "the event")
    }

    /// Sends a batch.
    pub(super) fn batch(&mut self, batch: &Batch) -> Result<(), Failure> {
        let what = format!("lines {} to {}", batch.lines.0, batch.lines.1);
        self.send("/batch", &batch.body, batch.events, &what)
    }

    fn send(&mut self, path: &str, body: &[u8], events: u64, what: &str) -> Result<(), Failure> {
        self.tally.with(|counts| counts.under_way = events);
        let answer = self.deliver(&group_path(self.group, path), body).and_then(Answer::json);
        let stored: Stored = answer.map_err(|trouble| self.failure(trouble, what))?;
        if let Some(before) = stored.count.filter(|count| stored.duplicate && *count != events) {
            // It was recognised by its number alone: this input is not the one that was stored.
            let message =
                format!("{what}: request {} was stored before, but with {before} events and not {events}", self.seq);
            return Err(Failure::failed(message).hint(
                "this is another input, or another --batch, than under that --producer-id before; \
                 nothing of this request was stored",
            ));
        }
        self.seq += 1;
        let total = self.tally.with(|counts| {
            counts.under_way = 0;
            counts.requests += 1;
            counts.events += events;
            counts.duplicates += if stored.duplicate { events } else { 0 };
            counts.last_offset = counts.last_offset.max(stored.last_offset);
            counts.events
        });
        self.tally.bar.set_position(total);
        Ok(())
    }

    /// Sends a request until it is answered, refused for good, or patience ends.
    fn deliver(&self, path: &str, body: &[u8]) -> Result<Answer, Trouble> {
        let (epoch, seq) = (self.producer.as_ref().map_or(0, |(_, epoch)| *epoch).to_string(), self.seq.to_string());
        let mut headers = vec![("Accept", "application/json")];
        if let Some(key) = &self.key {
            headers.push(("Eddyline-Key", key));
        }
        if let Some((name, _)) = &self.producer {
            headers.extend([("Producer-Id", name.as_str()), ("Producer-Epoch", &epoch), ("Producer-Seq", &seq)]);
        }
        let start = Instant::now();
        let mut backoff = BACKOFF_MIN;
        loop {
            let trouble = match self.client.send(&Method::POST, path, &headers, Some(("text/plain", body))) {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let Some(wait) = self.again_after(&trouble, backoff) else {
                return Err(trouble);
            };
            if start.elapsed() + wait > PATIENCE {
                return Err(trouble);
            }
            if backoff == BACKOFF_MIN {
                output::say(&format!("{}; trying again", Failure::from(trouble).message));
            }
            std::thread::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// How long to wait before the same request is sent again; `None` when that is of no use, or might store it twice.
    fn again_after(&self, trouble: &Trouble, backoff: Duration) -> Option<Duration> {
        match trouble {
            // A broker that was never there is more likely a wrong address than one that restarts.
            Trouble::Unreachable { .. } if self.tally.events() == 0 => None,
            Trouble::Unreachable { unsent, .. } => (*unsent || self.producer.is_some()).then_some(backoff),
            Trouble::Refused(refusal) if refusal.problem.retryable && refusal.problem.effect == "none" => {
                Some(refusal.retry_after().unwrap_or(backoff))
            }
            Trouble::Refused(_) | Trouble::Odd(_) => None,
        }
    }

    /// Says which events the trouble was with, and what to do about it.
    fn failure(&self, trouble: Trouble, what: &str) -> Failure {
        let sequence = match &trouble {
            Trouble::Refused(refusal) => self.sequence_hint(refusal),
            Trouble::Unreachable { unsent: false, .. } => Some(match &self.producer {
                Some(_) => "start it again with the same input: what is stored already is recognised".to_owned(),
                None => {
                    format!("{what} may or may not be stored; with --producer-id such a run can be repeated safely")
                }
            }),
            _ => None,
        };
        let mut failure = Failure::from(trouble);
        failure.message = format!("{what}: {}", failure.message);
        failure.hint = sequence.or(failure.hint);
        failure
    }

    /// What to do when the broker does not agree with the numbers of the requests.
    fn sequence_hint(&self, refusal: &Refusal) -> Option<String> {
        let (name, epoch) = self.producer.as_ref()?;
        if let Some(newer) = refusal.number("Producer-Epoch").filter(|_| refusal.status == 403) {
            return Some(format!(
                "`{name}` goes on in epoch {newer} elsewhere; use --producer-epoch {newer}, or another --producer-id"
            ));
        }
        let expected = refusal.number("Producer-Expected-Seq").filter(|_| refusal.status == 409)?;
        let seq = self.seq;
        Some(if refusal.problem.code == "producer_unknown" {
            format!(
                "the broker has forgotten `{name}`, so it cannot tell what it has; see with `eddyline tail {}` what is \
                 missing, and produce that with another --producer-id",
                self.group
            )
        } else {
            format!(
                "the broker expects request {expected} of `{name}` and this is request {seq}: another run of that name \
                 is under way, or this is another input. Repeat with the same input and --batch, or begin anew with \
                 --producer-epoch {}",
                epoch + 1
            )
        })
    }
}

#[cfg(test)]
mod tests;
