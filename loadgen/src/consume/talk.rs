//! What one consumer says and hears: asks for its next events and acks them, acks at a fixed rate, or holds a live answer
//! open. Checks that every offset comes once and in order. Knows no sockets.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::{ConsumePlan, Kind};
use super::tally::Tally;
use crate::flight::Flight;
use crate::incoming::Whole;

/// How long the broker may hold a request for events; bounds how long the end of a run takes.
const WAIT: &str = "500ms";
/// Pause after an answer that may be another one later.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A consumer's side of the conversation.
#[derive(Debug)]
pub(super) struct Talk<'p> {
    plan: &'p ConsumePlan,
    name: String,
    /// When what it is given was planned to be sent, if it was in the same run.
    flight: Option<&'p Flight>,
    asked: Option<Asked>,
    /// The offset that must come next.
    expected: Option<u64>,
    /// Offset behind the last one that was acked.
    acked_next: Option<u64>,
    /// Whether the last answer reached the tail.
    at_tail: bool,
    /// When the next ack is planned.
    due: Instant,
    not_before: Instant,
    /// Everything was given that was to be read; what is left is to ack it.
    complete: bool,
    /// Nothing is to be said any more.
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// For events; when, and whether nothing was there the last time.
    Next(Instant, bool),
    /// To take an ack up to that offset that was planned for then.
    Ack(Instant, u64),
    Live,
}

/// An answer to a consumer.
#[derive(Deserialize)]
struct Batch<'b> {
    #[serde(borrow)]
    events: Vec<Given<'b>>,
    next: u64,
    up_to_date: bool,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Given<'b> {
    offset: u64,
    received: &'b str,
    #[serde(borrow, default)]
    data: Option<&'b RawValue>,
}

#[derive(Deserialize)]
struct Gap {
    to: u64,
}

impl<'p> Talk<'p> {
    /// A consumer that has said nothing yet; its first ack is planned for `first_ack`.
    pub(super) fn new(plan: &'p ConsumePlan, name: String, first_ack: Instant, flight: Option<&'p Flight>) -> Self {
        Self {
            plan,
            name,
            flight,
            asked: None,
            expected: None,
            acked_next: None,
            at_tail: false,
            due: first_ack,
            not_before: first_ack,
            complete: false,
            done: false,
        }
    }

    /// Since when an answer is awaited that must come soon.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        match self.asked? {
            Asked::Next(since, _) | Asked::Ack(since, _) => Some(since),
            Asked::Live => None,
        }
    }

    /// Whether the answer under way has no end.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.asked, Some(Asked::Live))
    }

    /// Says what is to be said now, if anything. Without `open` only what was given is acked.
    pub(super) fn say(&mut self, now: Instant, open: bool, out: &mut Vec<u8>) {
        if self.asked.is_some() || self.done || now < self.not_before {
            return;
        }
        match self.plan.kind {
            Kind::Read => match (open && !self.complete, self.expected) {
                (true, _) => self.next(now, out),
                (false, Some(expected)) if self.acked_next != Some(expected) => self.ack(now, expected - 1, out),
                (false, _) => self.done = true,
            },
            Kind::Acks { .. } if !open => self.done = true,
            Kind::Acks { .. } => match (self.acked_next, self.expected) {
                (Some(acked), Some(given)) if acked < given => {
                    if now >= self.due {
                        self.ack(self.due, acked, out);
                        self.due += self.plan.ack_every();
                    }
                }
                _ => self.next(now, out),
            },
            Kind::Idle if open => {
                self.asked = Some(Asked::Live);
                self.request(out, "GET", "/events?from=latest&live=ndjson", "");
            }
            Kind::Idle => self.done = true,
        }
    }

    fn next(&mut self, now: Instant, out: &mut Vec<u8>) {
        let ConsumePlan { events_max, bytes_max, kind, .. } = self.plan;
        // Reading goes on behind what was acked with the request itself.
        let ack = match (kind, self.expected) {
            (Kind::Read, Some(expected)) if expected > 0 => format!("&ack={}", expected - 1),
            _ => String::new(),
        };
        self.asked = Some(Asked::Next(now, self.at_tail));
        let path = format!("/consumers/{}/next?max={events_max}&max_bytes={bytes_max}&wait={WAIT}{ack}", self.name);
        self.request(out, "GET", &path, "");
    }

    fn ack(&mut self, planned: Instant, offset: u64, out: &mut Vec<u8>) {
        self.asked = Some(Asked::Ack(planned, offset));
        let path = format!("/consumers/{}/ack", self.name);
        self.request(out, "POST", &path, &format!("{{\"offset\":{offset}}}"));
    }

    fn request(&self, out: &mut Vec<u8>, method: &str, path: &str, body: &str) {
        let ConsumePlan { target, group, token, .. } = self.plan;
        let authorization =
            token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = match method {
            "GET" => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        let head = format!(
            "{method} {}/v1/groups/{group}{path} HTTP/1.1\r\nHost: {}\r\n{authorization}{length}\r\n{body}",
            target.prefix, target.authority
        );
        out.extend_from_slice(head.as_bytes());
    }

    /// Takes the answer to what was said last.
    pub(super) fn hear(&mut self, whole: &Whole, now: Instant, tally: &mut Tally) {
        let Some(asked) = self.asked.take() else {
            return tally.wrong(|| format!("{}: an answer that nothing was asked for", self.name));
        };
        if whole.status != 200 {
            tally.error(whole.status);
            let words = || format!("{}: {} {}", self.name, whole.status, String::from_utf8_lossy(&whole.body));
            tally.refusal.get_or_insert_with(words);
            self.not_before = now + RETRY_PAUSE;
            return;
        }
        match asked {
            Asked::Next(since, waited) => self.given(whole, since, waited, now, tally),
            Asked::Ack(planned, offset) => {
                tally.acks += 1;
                Tally::time(&mut tally.ack, now.saturating_duration_since(planned));
                self.acked_next = Some(offset + 1);
            }
            Asked::Live => self.done = true,
        }
    }

    /// The connection broke: whatever was asked is asked again.
    pub(super) fn lost(&mut self, now: Instant, tally: &mut Tally) {
        if self.asked.take().is_some() {
            tally.error(0);
        }
        self.not_before = now + RETRY_PAUSE;
    }

    fn given(&mut self, whole: &Whole, since: Instant, waited: bool, now: Instant, tally: &mut Tally) {
        let batch: Batch<'_> = match serde_json::from_slice(&whole.body) {
            Ok(batch) => batch,
            Err(error) => {
                tally.lost += 1;
                return tally.wrong(|| format!("{}: an answer that cannot be read: {error}", self.name));
            }
        };
        tally.answers += 1;
        tally.bytes += whole.body.len() as u64;
        tally.events += batch.events.len() as u64;
        match (waited, batch.events.first()) {
            (true, Some(first)) => {
                if let Ok(received) = first.received.parse::<jiff::Timestamp>() {
                    let age = jiff::Timestamp::now().duration_since(received);
                    Tally::time(&mut tally.delivery, age.try_into().unwrap_or_default());
                }
            }
            (true, None) => {}
            (false, _) => Tally::time(&mut tally.answer, now.saturating_duration_since(since)),
        }
        // What went with this question is acked.
        if self.plan.kind == Kind::Read {
            self.acked_next = self.expected;
        }
        if let Some(gap) = &batch.gap {
            let from = self.expected.unwrap_or(gap.to);
            tally.gaps += gap.to.saturating_sub(from);
            self.expected = Some(self.expected.map_or(gap.to, |expected| expected.max(gap.to)));
        }
        for event in &batch.events {
            if let Some(flight) = self.flight {
                match event.data.and_then(|data| flight.planned(data.get().as_bytes())) {
                    Some(planned) => Tally::time(&mut tally.end_to_end, now.saturating_duration_since(planned)),
                    None => tally.untimed += 1,
                }
            }
            let expected = self.expected.unwrap_or(event.offset);
            if event.offset != expected {
                match event.offset > expected {
                    true => tally.lost += event.offset - expected,
                    false => tally.repeated += 1,
                }
                tally.wrong(|| format!("{}: offset {} where {expected} should be", self.name, event.offset));
            }
            self.expected = Some(self.expected.map_or(event.offset + 1, |expected| expected.max(event.offset + 1)));
        }
        self.at_tail = batch.up_to_date;
        let first = batch.events.first().map(|event| event.offset);
        match self.plan.kind {
            Kind::Acks { .. } => self.acked_next = self.acked_next.or(first),
            _ if self.plan.until_tail && batch.up_to_date => {
                self.complete = true;
                let expected = self.expected.unwrap_or(batch.next);
                if batch.next != expected {
                    tally.lost += batch.next.saturating_sub(expected);
                    tally.wrong(|| format!("{}: ends at {} instead of {expected}", self.name, batch.next));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::plan;
    use super::*;
    use crate::plan::RequestKey;

    fn batch(offsets: &[u64], up_to_date: bool, gap: Option<(u64, u64)>) -> Whole {
        let event = |offset: &u64| format!("{{\"offset\":{offset},\"received\":\"2026-11-25T00:00:00.000001Z\"}}");
        let events: Vec<String> = offsets.iter().map(event).collect();
        let gap = gap.map(|(from, to)| format!(",\"gap\":{{\"from\":{from},\"to\":{to}}}")).unwrap_or_default();
        let next = offsets.last().map_or(0, |last| last + 1);
        let body = format!("{{\"events\":[{}],\"next\":{next},\"up_to_date\":{up_to_date}{gap}}}", events.join(","));
        Whole { status: 200, close: false, body: body.into_bytes() }
    }

    fn said(talk: &mut Talk<'_>, now: Instant, open: bool) -> String {
        let mut out = Vec::new();
        talk.say(now, open, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_reader_acks_what_it_was_given_with_the_next_question_and_the_rest_at_the_end() {
        let (plan, now) = (plan(Kind::Read), Instant::now());
        let mut talk = Talk::new(&plan, "c".into(), now, None);
        let mut tally = Tally::default();
        assert!(
            said(&mut talk, now, true)
                .starts_with("GET /v1/groups/g/consumers/c/next?max=10&max_bytes=1000&wait=500ms HTTP")
        );
        assert_eq!(said(&mut talk, now, true), "", "one question at a time");
        talk.hear(&batch(&[3, 4], true, None), now, &mut tally);
        assert!(said(&mut talk, now, true).contains("&ack=4 HTTP"));
        talk.hear(&batch(&[5], true, None), now, &mut tally);
        assert!(said(&mut talk, now, false).ends_with("{\"offset\":5}"));
        talk.hear(&Whole { status: 200, ..Whole::default() }, now, &mut tally);
        assert_eq!(said(&mut talk, now, false), "");
        assert!(talk.done);
        assert_eq!((tally.events, tally.acks, tally.answer.len(), tally.delivery.len()), (3, 1, 1, 1));
        assert_eq!((tally.lost, tally.repeated), (0, 0));
    }

    #[test]
    fn what_is_missing_or_comes_again_is_counted_and_a_gap_that_is_told_is_none() {
        for (name, answers, lost, repeated, gaps) in [
            ("a hole", vec![batch(&[0, 1, 4], false, None)], 2, 0, 0),
            ("a hole between answers", vec![batch(&[0], false, None), batch(&[2], false, None)], 1, 0, 0),
            ("twice", vec![batch(&[0, 1], false, None), batch(&[1, 2], false, None)], 0, 1, 0),
            ("backwards", vec![batch(&[1, 0], false, None)], 0, 1, 0),
            ("a gap", vec![batch(&[0], false, None), batch(&[9], false, Some((1, 9)))], 0, 0, 8),
            ("a hole behind a gap", vec![batch(&[0], false, None), batch(&[9], false, Some((1, 8)))], 1, 0, 7),
        ] {
            let (plan, now) = (plan(Kind::Read), Instant::now());
            let mut talk = Talk::new(&plan, "c".into(), now, None);
            let mut tally = Tally::default();
            for answer in answers {
                said(&mut talk, now, true);
                talk.hear(&answer, now, &mut tally);
            }
            assert_eq!((tally.lost, tally.repeated, tally.gaps), (lost, repeated, gaps), "{name}");
        }
    }

    #[test]
    fn an_event_of_the_same_run_is_timed_from_its_planned_send() {
        let (plan, start) = (plan(Kind::Read), Instant::now());
        let flight = Flight::new(&crate::plan::tests::plan());
        let mut talk = Talk::new(&plan, "c".into(), start, Some(&flight));
        let mut tally = Tally::default();
        let planned = Instant::now();
        flight.sent(RequestKey { connection: 0, request: 5 }, planned);
        said(&mut talk, start, true);
        let event = |offset, number| {
            let received = "2026-11-25T00:00:00.000001Z";
            format!(r#"{{"offset":{offset},"received":"{received}","data":{{"w":0,"n":{number},"pad":""}}}}"#)
        };
        let body = format!(r#"{{"events":[{},{}],"next":2,"up_to_date":true}}"#, event(0, 5), event(1, 4));
        let whole = Whole { status: 200, close: false, body: body.into_bytes() };
        talk.hear(&whole, planned + Duration::from_millis(7), &mut tally);
        assert_eq!((tally.end_to_end.len(), tally.untimed), (1, 1), "the second one was never planned");
        assert!(tally.end_to_end.max().abs_diff(7_000_000) <= 7_000, "{}", tally.end_to_end.max());
    }

    #[test]
    fn acks_keep_their_planned_times_however_late_the_answers_are() {
        let (plan, start) = (plan(Kind::Acks { per_second: 10 }), Instant::now());
        let mut talk = Talk::new(&plan, "c".into(), start, None);
        let mut tally = Tally::default();
        said(&mut talk, start, true);
        talk.hear(&batch(&[0, 1, 2], false, None), start, &mut tally);
        assert!(said(&mut talk, start, true).ends_with("{\"offset\":0}"));
        // The answer comes after a second, by when two consumers at 10 a second had planned 5 acks each.
        let late = start + Duration::from_secs(1);
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        assert!(said(&mut talk, late, true).ends_with("{\"offset\":1}"), "planned at 0.2 s and not left out");
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        assert_eq!((tally.acks, tally.ack.max() / 1_000_000_000, tally.ack.min() / 1_000_000), (2, 1, 799));
    }
}
