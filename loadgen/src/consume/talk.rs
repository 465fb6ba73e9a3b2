//! What one consumer says and hears: asks for its next events and acks them, acks or queries at a fixed rate, or holds a
//! live answer open. Checks that every offset comes once and in order. Knows no sockets.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::{ConsumePlan, Kind};
use super::tally::Tally;
use crate::exchange::Problem;
use crate::flight::Flight;
use crate::incoming::Whole;
use crate::sample::{Clock, ErrorKind};

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
    /// Whether it waits at the tail: it began there, or the last answer reached it.
    at_tail: bool,
    /// When the next ack, or query, is planned.
    due: Instant,
    not_before: Option<Instant>,
    /// Everything was given that was to be read; what is left is to ack it.
    complete: bool,
    /// Nothing is to be said any more.
    pub(super) done: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    what: What,
    at: Instant,
    planned: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// For events; whether it may have to wait for them.
    Next {
        waited: bool,
    },
    /// To take an ack up to that offset.
    Ack {
        offset: u64,
    },
    /// For an answer without an end.
    Live,
    Query,
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
    /// A consumer that has said nothing yet; its first ack, or query, is planned for `first`.
    pub(super) fn new(plan: &'p ConsumePlan, name: String, first: Instant, flight: Option<&'p Flight>) -> Self {
        Self {
            plan,
            name,
            flight,
            asked: None,
            expected: None,
            acked_next: None,
            // There is nothing to be had at once.
            at_tail: plan.start == "latest",
            due: first,
            not_before: None,
            complete: false,
            done: false,
        }
    }

    /// Since when an answer is awaited that must come soon.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.asked.filter(|asked| asked.what != What::Live).map(|asked| asked.at)
    }

    /// When the next ack, or query, is to be made, if nothing but time keeps it back.
    pub(super) fn due(&self) -> Option<Instant> {
        let ready = match self.plan.kind {
            Kind::Acks { .. } => self.unacked().is_some(),
            Kind::Query { .. } => true,
            Kind::Read | Kind::Idle => false,
        };
        (ready && self.asked.is_none() && !self.done).then_some(self.due)
    }

    /// Whether no pause is to be kept.
    pub(super) fn may_speak(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// The first offset that was given and not acked.
    fn unacked(&self) -> Option<u64> {
        self.acked_next.filter(|acked| self.expected.is_some_and(|given| *acked < given))
    }

    /// Whether there is more up to the tail than it was given, and that was to be read.
    pub(super) fn is_behind(&self) -> bool {
        self.plan.until_tail && !self.complete
    }

    /// Whether the answer under way has no end.
    pub(super) fn is_live(&self) -> bool {
        self.asked.is_some_and(|asked| asked.what == What::Live)
    }

    /// Says what is to be said now, if anything. Without `open` only what was given is acked.
    pub(super) fn say(&mut self, now: Instant, open: bool, out: &mut Vec<u8>) {
        if self.asked.is_some() || self.done || !self.may_speak(now) {
            return;
        }
        match self.plan.kind {
            Kind::Read => match (open && !self.complete, self.expected) {
                (true, _) => self.next(now, out),
                (false, Some(expected)) if self.acked_next != Some(expected) => self.ack(now, now, expected - 1, out),
                (false, _) => self.done = true,
            },
            _ if !open => self.done = true,
            Kind::Acks { .. } => match self.unacked() {
                Some(offset) if now >= self.due => {
                    self.ack(self.due, now, offset, out);
                    self.due += self.plan.every();
                }
                Some(_) => {}
                None => self.next(now, out),
            },
            Kind::Idle => {
                self.ask(What::Live, now, now);
                self.request(out, "GET", &self.of_group("/events?from=latest&live=ndjson"), "");
            }
            Kind::Query { .. } if now >= self.due => {
                self.ask(What::Query, self.due, now);
                self.due += self.plan.every();
                let query = format!("SELECT count(), bytes() IN \"{}\" FROM now() - 10s SAMPLE BY 1s", self.plan.group);
                self.request(out, "POST", "/v1/query", &serde_json::json!({ "q": query }).to_string());
            }
            Kind::Query { .. } => {}
        }
    }

    fn ask(&mut self, what: What, planned: Instant, at: Instant) {
        self.asked = Some(Asked { what, at, planned });
    }

    fn next(&mut self, now: Instant, out: &mut Vec<u8>) {
        let ConsumePlan { events_max, bytes_max, kind, .. } = self.plan;
        // Reading goes on behind what was acked with the request itself.
        let ack = match (kind, self.expected) {
            (Kind::Read, Some(expected)) if expected > 0 => format!("&ack={}", expected - 1),
            _ => String::new(),
        };
        self.ask(What::Next { waited: self.at_tail }, now, now);
        let path = format!("/consumers/{}/next?max={events_max}&max_bytes={bytes_max}&wait={WAIT}{ack}", self.name);
        self.request(out, "GET", &self.of_group(&path), "");
    }

    fn ack(&mut self, planned: Instant, now: Instant, offset: u64, out: &mut Vec<u8>) {
        self.ask(What::Ack { offset }, planned, now);
        let path = self.of_group(&format!("/consumers/{}/ack", self.name));
        self.request(out, "POST", &path, &format!("{{\"offset\":{offset}}}"));
    }

    fn of_group(&self, path: &str) -> String {
        format!("/v1/groups/{}{path}", self.plan.group)
    }

    fn request(&self, out: &mut Vec<u8>, method: &str, path: &str, body: &str) {
        let ConsumePlan { target, token, .. } = self.plan;
        let authorization =
            token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = match method {
            "GET" => String::new(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()),
        };
        let head = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\n{authorization}{length}\r\n{body}",
            target.prefix, target.authority
        );
        out.extend_from_slice(head.as_bytes());
    }

    /// Takes the answer to what was said last.
    pub(super) fn hear(&mut self, whole: &Whole, now: Instant, tally: &mut Tally<'_>) {
        let Some(asked) = self.asked.take() else {
            return tally.unusable(|| format!("{}: an answer that nothing was asked for", self.name));
        };
        if whole.status != 200 {
            let kind = ErrorKind::Status(whole.status);
            tally.meter.error(kind);
            if !kind.is_busy() {
                let problem: Problem = serde_json::from_slice(&whole.body).unwrap_or_default();
                let words = || format!("{}: {}", self.name, problem.in_words(whole.status));
                tally.refusal.get_or_insert_with(words);
            }
            self.not_before = Some(now + RETRY_PAUSE);
            return;
        }
        let sample = tally.meter.at(now);
        sample.requests += 1;
        sample.bytes += whole.body.len() as u64;
        let took = now.saturating_duration_since(asked.planned);
        match asked.what {
            What::Next { waited } => self.given(whole, (!waited).then_some(took), now, tally),
            What::Ack { offset } => {
                tally.acks += 1;
                tally.time(Clock::Ack, took, now);
                self.acked_next = Some(offset + 1);
            }
            What::Query => tally.time(Clock::Query, took, now),
            What::Live => self.done = true,
        }
    }

    /// The connection broke: whatever was asked is asked again.
    pub(super) fn lost(&mut self, kind: ErrorKind, now: Instant, tally: &mut Tally<'_>) {
        if self.asked.take().is_some() {
            tally.meter.error(kind);
        }
        self.not_before = Some(now + RETRY_PAUSE);
    }

    /// Takes events. `answered` is how long the answer took, if it did not wait for events.
    fn given(&mut self, whole: &Whole, answered: Option<Duration>, now: Instant, tally: &mut Tally<'_>) {
        let batch: Batch<'_> = match serde_json::from_slice(&whole.body) {
            Ok(batch) => batch,
            Err(error) => {
                self.not_before = Some(now + RETRY_PAUSE);
                return tally.unusable(|| format!("{}: an answer that cannot be read: {error}", self.name));
            }
        };
        tally.given += batch.events.len() as u64;
        tally.meter.at(now).events += batch.events.len() as u64;
        match (answered, batch.events.first()) {
            (Some(took), Some(_)) => tally.time(Clock::Answer, took, now),
            (None, Some(first)) => {
                if let Ok(received) = first.received.parse::<jiff::Timestamp>() {
                    let age = jiff::Timestamp::now().duration_since(received);
                    tally.time(Clock::Delivery, age.try_into().unwrap_or_default(), now);
                }
            }
            (_, None) => {}
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
                    Some(planned) => tally.time(Clock::EndToEnd, now.saturating_duration_since(planned), now),
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
    use super::super::tally::tests::tally;
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
        let mut tally = tally();
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
        tally.meter.publish();
        let times = [Clock::Answer, Clock::Delivery, Clock::Ack].map(|clock| tally.sample().times.of(clock).len());
        assert_eq!((tally.sample().events, tally.sample().requests, tally.acks, times), (3, 3, 1, [1, 1, 1]));
        assert_eq!((tally.lost, tally.repeated), (0, 0));
    }

    #[test]
    fn a_wait_for_events_is_no_time_of_an_answer() {
        for (start, given, expected) in [
            ("earliest", [0].as_slice(), [1, 0]),
            ("earliest", &[], [0, 0]),
            ("latest", &[0], [0, 1]),
            ("latest", &[], [0, 0]),
        ] {
            let plan = ConsumePlan { start: start.into(), ..plan(Kind::Read) };
            let now = Instant::now();
            let (mut talk, mut tally) = (Talk::new(&plan, "c".into(), now, None), tally());
            said(&mut talk, now, true);
            talk.hear(&batch(given, true, None), now, &mut tally);
            tally.meter.publish();
            let times = [Clock::Answer, Clock::Delivery].map(|clock| tally.sample().times.of(clock).len());
            assert_eq!(times, expected, "{start} {given:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let (plan, now) = (plan(Kind::Idle), Instant::now());
        let (mut talk, mut tally) = (Talk::new(&plan, "c".into(), now, None), tally());
        said(&mut talk, now, true);
        let body = br#"{"code":"no_group","title":"Not found","detail":"there is no group `g`","effect":"none"}"#;
        talk.hear(&Whole { status: 404, close: false, body: body.to_vec() }, now, &mut tally);
        assert_eq!(tally.refusal.as_deref(), Some("c: 404 no_group: Not found: there is no group `g`"));
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
            let mut tally = tally();
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
        let mut tally = tally();
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
        tally.meter.publish();
        let times = tally.sample().times.of(Clock::EndToEnd);
        assert_eq!((times.len(), tally.untimed), (1, 1), "the second one was never planned");
        assert!(times.max().abs_diff(7_000_000) <= 7_000, "{}", times.max());
    }

    #[test]
    fn acks_keep_their_planned_times_however_late_the_answers_are() {
        let (plan, start) = (plan(Kind::Acks { per_second: 10 }), Instant::now());
        let mut talk = Talk::new(&plan, "c".into(), start, None);
        let mut tally = tally();
        said(&mut talk, start, true);
        talk.hear(&batch(&[0, 1, 2], false, None), start, &mut tally);
        assert!(said(&mut talk, start, true).ends_with("{\"offset\":0}"));
        // The answer comes after a second, by when two consumers at 10 a second had planned 5 acks each.
        let late = start + Duration::from_secs(1);
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        assert!(said(&mut talk, late, true).ends_with("{\"offset\":1}"), "planned at 0.2 s and not left out");
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        tally.meter.publish();
        let times = tally.sample().times.of(Clock::Ack);
        assert_eq!((tally.acks, times.max() / 1_000_000_000, times.min() / 1_000_000), (2, 1, 799));
    }

    #[test]
    fn what_is_behind_its_plan_is_not_taken_for_a_timeout() {
        let (plan, start) = (plan(Kind::Acks { per_second: 10 }), Instant::now());
        let mut talk = Talk::new(&plan, "c".into(), start, None);
        let mut tally = tally();
        said(&mut talk, start, true);
        talk.hear(&batch(&[0, 1, 2], false, None), start, &mut tally);
        assert_eq!(talk.due(), Some(start), "only time kept it back");
        let late = start + Duration::from_secs(60);
        said(&mut talk, late, true);
        assert_eq!((talk.waiting_since(), talk.due()), (Some(late), None));
    }

    #[test]
    fn queries_are_planned_too_and_ask_for_the_last_seconds() {
        let (plan, start) = (plan(Kind::Query { every: Duration::from_secs(2) }), Instant::now());
        let mut talk = Talk::new(&plan, "c".into(), start + Duration::from_secs(1), None);
        let mut tally = tally();
        assert_eq!(said(&mut talk, start, true), "");
        let asked = said(&mut talk, start + Duration::from_secs(1), true);
        let query = r#"{"q":"SELECT count(), bytes() IN \"g\" FROM now() - 10s SAMPLE BY 1s"}"#;
        assert!(asked.starts_with("POST /v1/query HTTP/1.1\r\n") && asked.ends_with(query), "{asked}");
        let late = start + Duration::from_secs(4);
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        assert!(!said(&mut talk, late, true).is_empty(), "the next was planned for the third second");
        talk.hear(&Whole { status: 200, ..Whole::default() }, late, &mut tally);
        assert_eq!((said(&mut talk, late, true).as_str(), said(&mut talk, late, false).as_str()), ("", ""));
        assert!(talk.done);
        tally.meter.publish();
        let times = tally.sample().times.of(Clock::Query);
        assert_eq!((times.len(), times.max() / 1_000_000_000, times.min() / 900_000_000), (2, 3, 1));
    }
}
