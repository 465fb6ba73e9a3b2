//! What one connection says and hears: which request is next, which are in flight, what an answer means for them, when
//! to pause. Takes and gives bytes; knows no sockets, so every story of a connection can be told in a test.
//!
//! A request is at every moment in exactly one of these places: not yet begun, in flight, waiting to be sent again, or
//! written down in the record as acknowledged, unknown or refused.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::answer::{Answer, Fault, Parsed, parse};
use crate::flight::Flight;
use crate::pace::Pace;
use crate::plan::{Plan, RequestKey};
use crate::record::{Record, Timing};
use crate::request::Requests;
use crate::sample::ErrorKind;

/// First pause after "busy" when the broker names none; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// What the connection may do after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Go on.
    Open,
    /// The server will close it.
    Closed,
}

/// The conversation of one connection; outlives the sockets it is held over.
#[derive(Debug)]
pub struct Exchange<'p> {
    plan: &'p Plan,
    requests: &'p Requests<'p>,
    connection: u32,
    /// Where sends are noted for consumers of the same run.
    flight: Option<&'p Flight>,
    /// The next request never sent before, and one past the last.
    next_request: u64,
    end_request: u64,
    in_flight: VecDeque<Sent>,
    /// To be sent again, in order of their numbers.
    again: VecDeque<Again>,
    /// The beginning of an answer that is not whole yet.
    partial: Vec<u8>,
    paused_until: Option<Instant>,
    pauses_in_row: u32,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Sent {
    request: u32,
    /// When it was planned to be sent, and when it was.
    timing: Timing,
    /// Whether an earlier send of it may have been stored.
    perhaps_stored: bool,
}

#[derive(Debug)]
struct Again {
    request: u32,
    planned: Instant,
    perhaps_stored: bool,
}

/// What an answer that is no success says (RFC 9457 with the broker's fields).
#[derive(Default, Deserialize)]
pub(crate) struct Problem {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    effect: Option<String>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
}

/// The body of a full answer, as far as it matters here.
#[derive(Deserialize)]
struct Stored {
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    count: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

impl<'p> Exchange<'p> {
    /// The conversation of connection `connection`, nothing said yet.
    pub fn new(plan: &'p Plan, requests: &'p Requests<'p>, connection: u32) -> Exchange<'p> {
        Exchange {
            plan,
            requests,
            connection,
            flight: None,
            next_request: 0,
            end_request: plan.requests_of(connection).unwrap_or(u64::MAX).min(u64::from(u32::MAX)),
            in_flight: VecDeque::with_capacity(plan.pipeline),
            again: VecDeque::new(),
            partial: Vec::new(),
            paused_until: None,
            pauses_in_row: 0,
            random: fastrand::Rng::with_seed(plan.seed ^ u64::from(connection)),
        }
    }

    /// The same, with each send noted.
    pub fn noted(self, flight: Option<&'p Flight>) -> Exchange<'p> {
        Exchange { flight, ..self }
    }

    /// Renders what may be sent now. `pace` says whether a new request may begin; started ones are always finished, and
    /// one that is sent again keeps the moment that was planned for it.
    pub fn fill(&mut self, now: Instant, pace: &mut Pace, out: &mut Vec<u8>) {
        if let Some(until) = self.paused_until {
            // Sending again in order needs everything before it answered: a deduplicated producer's numbers have no gaps.
            if now < until || !self.in_flight.is_empty() {
                return;
            }
            self.paused_until = None;
        }
        while self.in_flight.len() < self.plan.pipeline {
            let sent = if let Some(Again { request, planned, perhaps_stored }) = self.again.pop_front() {
                Sent { request, timing: Timing { planned, sent: now }, perhaps_stored }
            } else if self.next_request < self.end_request
                && let Some(planned) = pace.take(now)
            {
                let request = self.next_request as u32;
                self.next_request += 1;
                if let Some(flight) = self.flight {
                    flight.sent(self.key(request), planned);
                }
                Sent { request, timing: Timing { planned, sent: now }, perhaps_stored: false }
            } else {
                break;
            };
            self.requests.render(self.key(sent.request), out);
            self.in_flight.push_back(sent);
        }
    }

    /// Takes received bytes and writes down what whole answers in them say.
    pub fn receive(&mut self, bytes: &[u8], now: Instant, record: &mut Record<'_>) -> Result<After, Fault> {
        if self.partial.is_empty() {
            let (used, after) = self.take_answers(bytes, now, record)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(after);
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        let (used, after) = self.take_answers(&joined, now, record)?;
        joined.drain(..used);
        self.partial = joined;
        Ok(after)
    }

    /// The connection is gone: what was in flight is sent again if the broker drops repeats, else its outcome is unknown.
    pub fn lost(&mut self, now: Instant, record: &mut Record<'_>) {
        self.partial.clear();
        while let Some(sent) = self.in_flight.pop_front() {
            if self.plan.producer.is_some() {
                self.again(&sent, true);
            } else {
                record.unknown.push(self.key(sent.request));
                record.unanswered(sent.timing.planned, now);
            }
        }
    }

    /// The run is over: whatever has no outcome yet gets the one that is certain not to be wrong.
    pub fn abandon(&mut self, now: Instant, record: &mut Record<'_>) {
        while let Some(sent) = self.in_flight.pop_front() {
            record.unknown.push(self.key(sent.request));
            record.unanswered(sent.timing.planned, now);
        }
        while let Some(again) = self.again.pop_front() {
            record.unanswered(again.planned, now);
            let list = if again.perhaps_stored { &mut record.unknown } else { &mut record.refused };
            list.push(self.key(again.request));
        }
    }

    /// Whether nothing is left to do if `open` stays as it is.
    pub fn finished(&self, open: bool) -> bool {
        self.in_flight.is_empty() && self.again.is_empty() && !(open && self.next_request < self.end_request)
    }

    /// How many requests it holds if the run is long enough.
    pub fn requests(&self) -> u64 {
        self.end_request
    }

    /// Whether a new request could be sent at once.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.plan.pipeline
            && self.again.is_empty()
            && self.paused_until.is_none()
            && self.next_request < self.end_request
    }

    /// When the request that has waited longest was sent.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.in_flight.front().map(|sent| sent.timing.sent)
    }

    fn key(&self, request: u32) -> RequestKey {
        RequestKey { connection: self.connection, request }
    }

    fn take_answers(&mut self, bytes: &[u8], now: Instant, record: &mut Record<'_>) -> Result<(usize, After), Fault> {
        let mut used = 0;
        while used < bytes.len() {
            let Parsed::Whole(answer, length) = parse(&bytes[used..])? else {
                break;
            };
            used += length;
            let sent = self.in_flight.pop_front().ok_or(Fault::Unasked)?;
            record.last_answer = now;
            if matches!(answer.status, 200..300) {
                self.succeeded(&answer, &sent, now, record)?;
            } else {
                self.failed(&answer, &sent, now, record);
            }
            if answer.close {
                return Ok((used, After::Closed));
            }
        }
        Ok((used, After::Open))
    }

    fn succeeded(
        &mut self,
        answer: &Answer<'_>,
        sent: &Sent,
        now: Instant,
        record: &mut Record<'_>,
    ) -> Result<(), Fault> {
        let key = self.key(sent.request);
        let events = self.plan.count_of(key);
        let Ok(place) = self.place(answer, events) else {
            record.unknown.push(key);
            return Err(Fault::Offsets);
        };
        self.pauses_in_row = 0;
        record.acked(key, place, events, now);
        record.measure(sent.timing, now, events, self.requests.event_bytes(key));
        Ok(())
    }

    /// The first offset of what was stored. Only a repeat may leave it out, or any answer when nothing will be verified.
    fn place(&self, answer: &Answer<'_>, events: u32) -> Result<Option<u64>, Fault> {
        let (first, duplicate) = if answer.body.is_empty() {
            (answer.offset, answer.duplicate)
        } else {
            match serde_json::from_slice::<Stored>(answer.body) {
                Ok(stored) => (stored.checked(events)?, stored.duplicate),
                Err(_) => (answer.offset, answer.duplicate),
            }
        };
        if first.is_none() && !duplicate && self.plan.verify { Err(Fault::Offsets) } else { Ok(first) }
    }

    fn failed(&mut self, answer: &Answer<'_>, sent: &Sent, now: Instant, record: &mut Record<'_>) {
        let status = answer.status;
        record.error(ErrorKind::Status(status));
        let problem: Problem = serde_json::from_slice(answer.body).unwrap_or_default();
        let perhaps_stored = match problem.effect.as_deref() {
            Some(effect) => effect != "none",
            // A server that does not say and failed inside, or a proxy that lost it.
            None => matches!(status, 500 | 502 | 504),
        };
        let deduplicated = self.plan.producer.is_some();
        let busy = problem.retryable.unwrap_or(matches!(status, 429 | 503));
        // The broker refuses a number whose predecessor is still to be sent again.
        let out_of_turn = deduplicated && status == 409 && !self.again.is_empty();
        let key = self.key(sent.request);
        if out_of_turn {
            // The pause is that of the predecessor.
            self.again(sent, sent.perhaps_stored);
            self.paused_until.get_or_insert(now);
        } else if (busy && !perhaps_stored) || (deduplicated && perhaps_stored) {
            self.again(sent, sent.perhaps_stored || perhaps_stored);
            self.pause(now, &problem, answer);
            record.busy.get_or_insert_with(|| problem.in_words(status));
        } else if perhaps_stored || sent.perhaps_stored {
            record.unknown.push(key);
        } else {
            record.refused.push(key);
            record.first_refusal.get_or_insert_with(|| problem.in_words(status));
        }
    }

    /// Queues a request to be sent again before all that come after it.
    fn again(&mut self, sent: &Sent, perhaps_stored: bool) {
        let (request, planned) = (sent.request, sent.timing.planned);
        let place = self.again.partition_point(|other| other.request < request);
        self.again.insert(place, Again { request, planned, perhaps_stored });
    }

    fn pause(&mut self, now: Instant, problem: &Problem, answer: &Answer<'_>) {
        let told = problem.retry_after_ms.or(answer.retry_after_s.map(|seconds| seconds.saturating_mul(1000)));
        let pause = told.map_or_else(
            || {
                let longest = (PAUSE_FIRST * (1 << self.pauses_in_row.min(8))).min(PAUSE_LONGEST);
                longest.mul_f64(0.5 + self.random.f64() / 2.0)
            },
            Duration::from_millis,
        );
        let until = now + pause.min(self.plan.timeout);
        self.pauses_in_row += 1;
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }
}

impl Stored {
    fn checked(&self, events: u32) -> Result<Option<u64>, Fault> {
        let counted = self.count.is_none_or(|count| count == u64::from(events));
        let spanned = match (self.first_offset, self.last_offset) {
            (Some(first), Some(last)) => last.checked_sub(first) == Some(u64::from(events) - 1),
            _ => true,
        };
        if counted && spanned { Ok(self.first_offset) } else { Err(Fault::Offsets) }
    }
}

impl Problem {
    /// The same for people.
    pub(crate) fn in_words(&self, status: u16) -> String {
        let parts = [self.code.as_deref(), self.title.as_deref(), self.detail.as_deref()];
        let words: Vec<&str> = parts.into_iter().flatten().collect();
        if words.is_empty() { format!("status {status}") } else { format!("{status} {}", words.join(": ")) }
    }
}

#[cfg(test)]
mod tests;
