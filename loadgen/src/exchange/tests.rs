//! Stories of one connection, told without a socket.

use super::*;
use crate::pace::Punctuality;
use crate::plan::{Extent, Framing, Producer, tests::plan};
use crate::record::{Window, tests::Kept};
use crate::sample::Clock;
use crate::schedule::{Arrivals, Schedule, Stage};

/// Plays a connection: renders, answers, looks at what was sent and written down.
struct Story<'p> {
    exchange: Exchange<'p>,
    record: Record<'p>,
    now: Instant,
    pace: Pace,
}

impl<'p> Story<'p> {
    fn new(plan: &'p Plan, requests: &'p Requests<'p>, kept: &'p Kept) -> Story<'p> {
        let now = Instant::now();
        let record = Record::new(Window { from: now, until: None }, true, now, kept.shelf());
        Story { exchange: Exchange::new(plan, requests, 0), record, now, pace: Pace::closed_loop() }
    }

    /// Sends what may be sent and says which numbers (`n` of the payload) that was.
    fn sends(&mut self) -> Vec<u64> {
        let mut out = Vec::new();
        self.exchange.fill(self.now, &mut self.pace, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.split("\"n\":").skip(1).map(|rest| rest.split(',').next().unwrap().parse().unwrap()).collect()
    }

    fn hears(&mut self, answer: &str) -> Result<After, Fault> {
        self.exchange.receive(answer.as_bytes(), self.now, &mut self.record)
    }

    fn passes(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn acked(&self) -> Vec<(u32, u64)> {
        self.record.acks.recent().map(|ack| (ack.key.request, ack.first_offset)).collect()
    }
}

fn numbers(keys: &[RequestKey]) -> Vec<u32> {
    keys.iter().map(|key| key.request).collect()
}

fn stored_at(offset: u64) -> String {
    format!("HTTP/1.1 204 No Content\r\nEddyline-Offset: {offset}\r\n\r\n")
}

fn refused(status: u16, problem: &str) -> String {
    format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n\r\n{problem}", problem.len())
}

fn busy(retry_after_ms: u64) -> String {
    refused(503, &format!(r#"{{"code":"busy","effect":"none","retryable":true,"retry_after_ms":{retry_after_ms}}}"#))
}

/// Tells a story about `plan` with `pipeline` requests in flight.
fn told(plan: &Plan, story: impl FnOnce(&mut Story<'_>)) {
    let requests = Requests::new(plan);
    let kept = Kept::default();
    story(&mut Story::new(plan, &requests, &kept));
}

fn of(events: u64, pipeline: usize) -> Plan {
    Plan { extent: Extent::Events(events), pipeline, ..plan() }
}

fn deduplicated(events: u64, pipeline: usize) -> Plan {
    Plan { producer: Some(Producer { name: "p".into(), epoch: 1 }), ..of(events, pipeline) }
}

#[test]
fn answers_in_any_pieces_give_the_same_acks() {
    let answers = [stored_at(40), stored_at(41), refused(413, "{}"), stored_at(42)].concat();
    let plan = of(4, 4);
    for split in 0..answers.len() {
        told(&plan, |story| {
            assert_eq!(story.sends(), [0, 1, 2, 3]);
            assert_eq!(story.hears(&answers[..split]), Ok(After::Open));
            assert_eq!(story.hears(&answers[split..]), Ok(After::Open));
            assert_eq!(story.acked(), [(0, 40), (1, 41), (3, 42)]);
            assert_eq!(numbers(&story.record.refused), [2]);
            assert!(story.exchange.finished(true));
        });
    }
}

#[test]
fn the_pipeline_is_kept_full_and_no_fuller() {
    told(&of(5, 2), |story| {
        assert_eq!(story.sends(), [0, 1]);
        assert!(story.sends().is_empty());
        story.hears(&stored_at(0)).unwrap();
        assert_eq!(story.sends(), [2]);
        story.hears(&[stored_at(1), stored_at(2)].concat()).unwrap();
        assert_eq!(story.sends(), [3, 4]);
        assert!(!story.exchange.finished(true));
    });
}

#[test]
fn a_closed_run_finishes_what_it_began_and_begins_nothing() {
    let plan = Plan { extent: Extent::Time(Duration::from_secs(1)), ..plan() };
    told(&plan, |story| {
        assert_eq!(story.sends(), [0]);
        story.hears(&stored_at(0)).unwrap();
        let mut out = Vec::new();
        story.pace.shut(story.now, |_| {});
        story.exchange.fill(story.now, &mut story.pace, &mut out);
        assert!(out.is_empty() && story.exchange.finished(false) && !story.exchange.finished(true));
    });
}

#[test]
fn busy_is_waited_out_and_the_same_request_sent_again() {
    told(&of(3, 2), |story| {
        story.sends();
        story.hears(&busy(300)).unwrap();
        assert!(story.sends().is_empty(), "one is still in flight");
        story.hears(&stored_at(0)).unwrap();
        story.passes(299);
        assert!(story.sends().is_empty(), "the broker said 300 ms");
        story.passes(1);
        assert_eq!(story.sends(), [0, 2]);
        story.hears(&[stored_at(1), stored_at(2)].concat()).unwrap();
        assert_eq!(story.acked(), [(1, 0), (0, 1), (2, 2)]);
        assert_eq!(story.exchange.pauses_in_row, 0);
    });
}

#[test]
fn a_lost_connection_leaves_its_requests_unknown() {
    told(&of(4, 2), |story| {
        story.sends();
        story.hears(&stored_at(0)).unwrap();
        story.hears("HTTP/1.1 2").unwrap();
        story.exchange.lost(story.now, &mut story.record);
        assert_eq!(numbers(&story.record.unknown), [1]);
        assert_eq!(story.sends(), [2, 3]);
        story.hears(&stored_at(2)).unwrap();
        assert_eq!(story.acked(), [(0, 0), (2, 2)], "half an answer is gone with its connection");
        story.record.meter.publish();
        assert!(
            story.record.meter.total.times.of(Clock::Response).is_empty(),
            "only the open loop measures what never came"
        );
    });
}

#[test]
fn a_deduplicated_producer_sends_the_same_numbers_again() {
    told(&deduplicated(4, 3), |story| {
        assert_eq!(story.sends(), [0, 1, 2]);
        story.hears(&stored_at(0)).unwrap();
        story.exchange.lost(story.now, &mut story.record);
        assert_eq!(story.sends(), [1, 2, 3]);
        let repeat = "HTTP/1.1 204 No Content\r\nEddyline-Offset: 1\r\nEddyline-Duplicate: true\r\n\r\n";
        let forgotten = "HTTP/1.1 204 No Content\r\nEddyline-Duplicate: true\r\n\r\n";
        story.hears(&[repeat, forgotten, &stored_at(3)].concat()).unwrap();
        assert_eq!(story.acked(), [(0, 0), (1, 1), (3, 3)]);
        assert_eq!(numbers(&story.record.unplaced), [2]);
        assert!(story.record.unknown.is_empty());
    });
}

#[test]
fn a_deduplicated_pipeline_goes_back_to_what_was_refused() {
    told(&deduplicated(4, 3), |story| {
        story.sends();
        let out_of_turn = refused(409, r#"{"code":"producer_gap","effect":"none","retryable":false}"#);
        story.hears(&[busy(0), out_of_turn.clone(), out_of_turn.clone()].concat()).unwrap();
        assert_eq!(story.sends(), [0, 1, 2]);
        story.hears(&[stored_at(0), stored_at(1), stored_at(2)].concat()).unwrap();
        assert_eq!(story.sends(), [3]);
        story.hears(&out_of_turn).unwrap();
        assert_eq!(numbers(&story.record.refused), [3], "with nothing before it, it is refused for good");
    });
}

#[test]
fn each_refusal_has_its_outcome() {
    for (answer, unknown, refused_for_good, again) in [
        (refused(404, r#"{"code":"no_group","effect":"none"}"#), 0, 1, 0),
        (refused(500, ""), 1, 0, 0),
        (refused(500, r#"{"effect":"none"}"#), 0, 1, 0),
        (refused(503, ""), 0, 0, 1),
        (refused(503, r#"{"effect":"unknown","retryable":true}"#), 1, 0, 0),
        (refused(503, r#"{"effect":"none","retryable":false}"#), 0, 1, 0),
        (refused(429, "busy"), 0, 0, 1),
        (refused(507, r#"{"effect":"none"}"#), 0, 1, 0),
        (refused(408, r#"{"effect":"none","retryable":true}"#), 0, 0, 1),
    ] {
        told(&of(1, 1), |story| {
            story.sends();
            story.hears(&answer).unwrap();
            let found = (story.record.unknown.len(), story.record.refused.len(), story.exchange.again.len());
            assert_eq!(found, (unknown, refused_for_good, again), "{answer}");
        });
    }
    told(&deduplicated(1, 1), |story| {
        story.sends();
        story.hears(&refused(500, "")).unwrap();
        assert_eq!(story.exchange.again.len(), 1, "a repeat is harmless, so it is sent again");
        story.exchange.abandon(story.now, &mut story.record);
        assert_eq!(numbers(&story.record.unknown), [0]);
    });
}

#[test]
fn a_refusal_is_kept_in_words() {
    told(&of(1, 1), |story| {
        story.sends();
        story.hears(&refused(404, r#"{"code":"no_group","title":"No such group","detail":"make it first"}"#)).unwrap();
        assert_eq!(story.record.first_refusal.as_deref(), Some("404 no_group: No such group: make it first"));
    });
}

#[test]
fn full_answers_are_checked_for_what_they_claim() {
    let plan = Plan { batch: 3, framing: Framing::Ndjson, ..of(3, 1) };
    let answer = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (body, result) in [
        (r#"{"first_offset":5,"last_offset":7,"count":3,"duplicate":false}"#, Ok(After::Open)),
        (r#"{"duplicate":true}"#, Ok(After::Open)),
        (r#"{"first_offset":5,"last_offset":8,"count":3}"#, Err(Fault::Offsets)),
        (r#"{"first_offset":5,"last_offset":4,"count":3}"#, Err(Fault::Offsets)),
        (r#"{"first_offset":5,"last_offset":7,"count":2}"#, Err(Fault::Offsets)),
        ("{}", Err(Fault::Offsets)),
        ("", Err(Fault::Offsets)),
    ] {
        told(&plan, |story| {
            story.sends();
            assert_eq!(story.hears(&answer(body)), result, "{body}");
            assert_eq!(story.record.unknown.len(), usize::from(result.is_err()), "{body}");
        });
    }
    let unverified = Plan { verify: false, ..of(1, 1) };
    told(&unverified, |story| {
        story.sends();
        assert_eq!(story.hears("HTTP/1.1 204 No Content\r\n\r\n"), Ok(After::Open));
        assert_eq!(story.record.acked_events, 1);
    });
}

#[test]
fn a_closing_answer_counts_and_what_follows_it_does_not() {
    told(&of(2, 2), |story| {
        story.sends();
        let closing = "HTTP/1.1 204 No Content\r\nEddyline-Offset: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(story.hears(&[closing, &stored_at(1)].concat()), Ok(After::Closed));
        assert_eq!(story.acked(), [(0, 0)]);
        story.exchange.lost(story.now, &mut story.record);
        assert_eq!(numbers(&story.record.unknown), [1]);
    });
    told(&of(1, 1), |story| {
        assert_eq!(story.hears(&stored_at(0)), Err(Fault::Unasked));
    });
}

/// Nanoseconds that a three-digit histogram may show for these milliseconds.
fn shows(nanos: u64, ms: u64) -> bool {
    nanos.abs_diff(ms * 1_000_000) <= (ms * 1_000_000) / 1000 + 1
}

#[test]
fn a_server_that_stalls_shows_in_the_percentiles_exactly_as_it_should() {
    // 1 000 requests a second over one connection for ten seconds. The server answers at once, but for the request of
    // the fourth second, which it takes two seconds for. The 2 000 requests planned for that time have waited for
    // 2 000, 1 999, … 1 ms when they are answered: a fifth of all, evenly spread. To a closed loop it is one request.
    let (plan, kept) = (Plan { extent: Extent::Time(Duration::from_secs(10)), ..plan() }, Kept::default());
    let requests = Requests::new(&plan);
    let mut story = Story::new(&plan, &requests, &kept);
    let start = story.now;
    let window = Window { from: start, until: Some(start + Duration::from_secs(10)) };
    let stage = Stage { length: Duration::ZERO, requests_per_second: 1000.0 };
    story.pace = Pace::open_loop(Schedule::new(&[stage], Arrivals::Constant, 1, 0, 1), u64::MAX, start, window);
    story.record.begin(window, true);
    for ms in 0..10_000 {
        story.now = start + Duration::from_millis(ms);
        if (3_001..5_000).contains(&ms) {
            assert!(story.sends().is_empty(), "the connection is taken");
            continue;
        }
        if ms == 5_000 {
            story.hears(&stored_at(3_000)).unwrap();
        }
        loop {
            let sent = story.sends();
            let [number] = sent[..] else { break };
            if number == 3_000 {
                break;
            }
            story.hears(&stored_at(number)).unwrap();
        }
    }
    story.record.meter.publish();
    let sample = &story.record.meter.total;
    assert_eq!(sample.requests, 10_000, "none was skipped");
    for (percentile, ms) in [(79.9, 0), (80.01, 1), (85.0, 500), (90.0, 1_000), (99.0, 1_900), (100.0, 2_000)] {
        let found = sample.times.of(Clock::Response).value_at_percentile(percentile);
        assert!(shows(found, ms), "response p{percentile} is {found} ns and not {ms} ms");
    }
    for (percentile, ms) in [(99.98, 0), (100.0, 2_000)] {
        assert!(shows(sample.times.of(Clock::Service).value_at_percentile(percentile), ms), "service p{percentile}");
    }
    assert!(shows(sample.times.of(Clock::SendLag).max(), 1_999));
    let found = Punctuality { planned: 10_000, late: 1_998, ..Punctuality::default() };
    assert_eq!(
        story.pace.punctuality(),
        Some(found),
        "all but the one that is a millisecond late, and the server's fault"
    );
    let points = kept.series.lock().unwrap().clone().into_points();
    let max = |second: usize| points[second].times(Clock::Response).map(|response| response.max / 1_000_000);
    assert_eq!((max(2), max(3), max(4), max(6)), (Some(0), None, None, Some(0)));
    assert!(shows(points[5].times(Clock::Response).unwrap().max, 2_000) && points[5].requests == 3_000);
}

#[test]
fn what_a_stall_leaves_unsent_is_in_the_percentiles_too() {
    // The same, but the server stalls at the end: of 1 000 requests the last 500 are not even sent.
    let (plan, kept) = (Plan { extent: Extent::Time(Duration::from_secs(1)), ..plan() }, Kept::default());
    let requests = Requests::new(&plan);
    let mut story = Story::new(&plan, &requests, &kept);
    let start = story.now;
    let window = Window { from: start, until: Some(start + Duration::from_secs(1)) };
    let stage = Stage { length: Duration::ZERO, requests_per_second: 1000.0 };
    story.pace = Pace::open_loop(Schedule::new(&[stage], Arrivals::Constant, 1, 0, 1), u64::MAX, start, window);
    story.record.begin(window, true);
    for ms in 0..500 {
        story.now = start + Duration::from_millis(ms);
        assert_eq!(story.sends(), [ms]);
        if ms < 499 {
            story.hears(&stored_at(ms)).unwrap();
        }
    }
    let (end, record) = (window.until.unwrap(), &mut story.record);
    story.pace.shut(end, |planned| record.unsent(planned, end));
    // The one in flight is waited for in vain until two seconds after the start.
    story.exchange.abandon(end + Duration::from_secs(1), record);
    story.record.meter.publish();
    let total = &story.record.meter.total;
    let [response, lag] = [Clock::Response, Clock::SendLag].map(|clock| total.times.of(clock));
    let counts = (total.requests, response.len(), lag.len());
    assert_eq!(counts, (499, 1000, 999), "499 answered, one never answered, 500 unsent");
    assert!(shows(response.max(), 1_501) && shows(lag.max(), 500));
    for (percentile, ms) in [(90.0, 401), (99.85, 500)] {
        assert!(shows(response.value_at_percentile(percentile), ms), "p{percentile}");
    }
    assert_eq!(story.pace.punctuality(), Some(Punctuality { planned: 1000, unsent: 500, ..Punctuality::default() }));
}
