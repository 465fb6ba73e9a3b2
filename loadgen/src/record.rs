//! What one worker writes down: acknowledgements for the verification, latencies and counts for the summary and the
//! progress line. Judges nothing.
//!
//! Samples go to an interval that only the worker touches; a few times a second it is added to the run's total, to the
//! run's series and to the sample that the progress thread takes away. So the loop never waits for a lock that is held long, and
//! percentiles are always taken from merged histograms.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::acks::{Ack, Acks, Listed};
use crate::plan::RequestKey;
use crate::series::{Series, Slot};

/// Longest latency that is told apart, in nanoseconds: an hour. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// What went wrong with a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// An answer with this status, which was not a success.
    Status(u16),
    /// The connection ended while requests were in flight.
    ConnectionLost,
    /// A connection could not be made.
    ConnectFailed,
    /// No answer within the time allowed.
    Timeout,
    /// An answer that could not be understood or contradicts itself.
    BadAnswer,
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ErrorKind::Status(status) => write!(out, "{status}"),
            ErrorKind::ConnectionLost => out.write_str("connection lost"),
            ErrorKind::ConnectFailed => out.write_str("connect failed"),
            ErrorKind::Timeout => out.write_str("timeout"),
            ErrorKind::BadAnswer => out.write_str("bad answer"),
        }
    }
}

/// Counts by kind of error.
pub type Errors = BTreeMap<ErrorKind, u64>;

/// When a request was to be sent, and when it was.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Planned; in the closed loop, when it was first sent.
    pub planned: Instant,
    /// Sent, the last time if more than once.
    pub sent: Instant,
}

/// Counts and latencies over some time. The three clocks, in nanoseconds; without a plan only the second one runs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// From the planned send of a request to its answer.
    pub response: Histogram<u64>,
    /// From the actual send of a request to its answer.
    pub service: Histogram<u64>,
    /// From the planned send of a request to the actual one.
    pub send_lag: Histogram<u64>,
    /// Acknowledged requests.
    pub requests: u64,
    /// Acknowledged events.
    pub events: u64,
    /// Bytes of acknowledged events.
    pub bytes: u64,
    /// What went wrong.
    pub errors: Errors,
}

impl Default for Sample {
    fn default() -> Sample {
        let empty = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid");
        let [response, service, send_lag] = [empty.clone(), empty.clone(), empty];
        Sample { response, service, send_lag, requests: 0, events: 0, bytes: 0, errors: Errors::new() }
    }
}

impl Sample {
    /// Merges another sample into this one.
    pub fn add(&mut self, other: &Sample) {
        for (times, more) in [
            (&mut self.response, &other.response),
            (&mut self.service, &other.service),
            (&mut self.send_lag, &other.send_lag),
        ] {
            times.add(more).expect("all samples have the same bounds");
        }
        self.requests += other.requests;
        self.events += other.events;
        self.bytes += other.bytes;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Sample {
        std::mem::take(self)
    }

    fn clear(&mut self) {
        [&mut self.response, &mut self.service, &mut self.send_lag].into_iter().for_each(Histogram::reset);
        (self.requests, self.events, self.bytes) = (0, 0, 0);
        self.errors.clear();
    }

    fn is_empty(&self) -> bool {
        self.requests == 0 && self.errors.is_empty() && self.response.is_empty()
    }
}

/// The part of the run that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// End of the warm-up.
    pub from: Instant,
    /// Moment after which nothing new is sent; `None` when a count of events ends the run.
    pub until: Option<Instant>,
}

/// Where workers put what others may look at during the run.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// This worker's sample, taken away by the progress thread.
    pub live: &'a Mutex<Sample>,
    /// All workers' points.
    pub series: &'a Mutex<Series>,
}

/// The ledger of one worker.
#[derive(Debug)]
pub struct Record<'a> {
    window: Window,
    /// Whether moments are planned: then all that was planned for the window is measured, however late its answer.
    planned: bool,
    keep_acks: bool,
    shelf: Shelf<'a>,
    interval: Sample,
    /// When the interval is; it never spans two.
    slot: Slot,
    /// Everything measured so far, up to the last [`Record::publish`].
    pub total: Sample,
    /// What was planned for each stage, if there are several.
    pub stages: Vec<Sample>,
    /// Where the stages end, but for the last.
    stage_ends: Vec<Instant>,
    /// Acknowledged requests in the order of their answers: for one connection, the order they were sent in.
    pub acks: Acks,
    /// Acknowledged as stored earlier, without saying where.
    pub unplaced: Listed,
    /// Sent, but nobody knows what became of it.
    pub unknown: Listed,
    /// Refused for good: not stored, says the broker.
    pub refused: Listed,
    /// The first such refusal in words.
    pub first_refusal: Option<String>,
    /// Acknowledged events of the whole run, measured or not.
    pub acked_events: u64,
    /// When the last answer came, of any kind.
    pub last_answer: Instant,
}

impl<'a> Record<'a> {
    /// An empty ledger; acknowledgements are kept only if they will be verified.
    pub fn new(window: Window, keep_acks: bool, now: Instant, shelf: Shelf<'a>) -> Record<'a> {
        Record {
            window,
            planned: false,
            keep_acks,
            shelf,
            interval: Sample::default(),
            slot: Slot::of(0),
            total: Sample::default(),
            stages: Vec::new(),
            stage_ends: Vec::new(),
            acks: Acks::default(),
            unplaced: Listed::default(),
            unknown: Listed::default(),
            refused: Listed::default(),
            first_refusal: None,
            acked_events: 0,
            last_answer: now,
        }
    }

    /// Measures the stages apart, of which all but the last end at these moments; a single one is the whole.
    pub fn begin_stages(&mut self, ends: Vec<Instant>) {
        let stages = if ends.is_empty() { 0 } else { ends.len() + 1 };
        self.stages = (0..stages).map(|_| Sample::default()).collect();
        self.stage_ends = ends;
    }

    /// Begins to measure. With `planned`, a request is measured if its planned moment is in the window, else if it was
    /// sent and answered in it.
    pub fn begin(&mut self, window: Window, planned: bool) {
        (self.window, self.planned) = (window, planned);
    }

    /// Notes a success: `place` is the first offset if the answer told it.
    pub fn acked(&mut self, key: RequestKey, place: Option<u64>, events: u32) {
        self.acked_events += u64::from(events);
        if self.keep_acks {
            match place {
                Some(first_offset) => self.acks.push(Ack { first_offset, key }, events),
                None => self.unplaced.push(key),
            }
        }
    }

    /// Measures a success, if it falls into the window.
    pub fn measure(&mut self, timing: Timing, answered: Instant, events: u32, bytes: usize) {
        let Window { from, until } = self.window;
        let Timing { planned, sent } = timing;
        if planned < from || !self.planned && until.is_some_and(|until| answered > until) {
            return;
        }
        self.turn_to(answered);
        let nanos = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let is_planned = self.planned;
        for sample in self.samples(planned) {
            sample.service.saturating_record(nanos(sent, answered));
            if is_planned {
                sample.response.saturating_record(nanos(planned, answered));
                sample.send_lag.saturating_record(nanos(planned, sent));
            }
            sample.requests += 1;
            sample.events += u64::from(events);
            sample.bytes += bytes as u64;
        }
    }

    /// Measures a request that was planned and never sent. It has waited at least until now; to leave it out would hide
    /// what the broker could not take.
    pub fn unsent(&mut self, planned: Instant, now: Instant) {
        self.in_vain(planned, now, |sample, waited| {
            sample.response.saturating_record(waited);
            sample.send_lag.saturating_record(waited);
        });
    }

    /// Measures a request that was planned and sent, and will not be answered any more.
    pub fn unanswered(&mut self, planned: Instant, now: Instant) {
        self.in_vain(planned, now, |sample, waited| sample.response.saturating_record(waited));
    }

    fn in_vain(&mut self, planned: Instant, now: Instant, note: impl Fn(&mut Sample, u64)) {
        if self.planned && planned >= self.window.from {
            self.turn_to(now);
            let waited = now.saturating_duration_since(planned).as_nanos() as u64;
            self.samples(planned).for_each(|sample| note(sample, waited));
        }
    }

    /// Where something is measured that was planned for a moment: the interval, and the stage.
    fn samples(&mut self, planned: Instant) -> impl Iterator<Item = &mut Sample> {
        let stage = self.stage_ends.partition_point(|end| *end <= planned);
        [&mut self.interval].into_iter().chain(self.stages.get_mut(stage))
    }

    /// Makes the interval that of a moment.
    fn turn_to(&mut self, now: Instant) {
        let slot = Slot::of(now.saturating_duration_since(self.window.from).as_secs());
        if slot != self.slot {
            self.publish();
            self.slot = slot;
        }
    }

    /// Counts an error; errors count during the warm-up too.
    pub fn error(&mut self, kind: ErrorKind) {
        *self.interval.errors.entry(kind).or_default() += 1;
    }

    /// Adds the interval to the total and puts it on the shelf.
    pub fn publish(&mut self) {
        if self.interval.is_empty() {
            return;
        }
        self.total.add(&self.interval);
        // Progress is only told, never relied upon: a panic over there must not end the run.
        self.shelf.live.lock().unwrap_or_else(PoisonError::into_inner).add(&self.interval);
        self.shelf.series.lock().unwrap_or_else(PoisonError::into_inner).add(self.slot, &self.interval);
        self.interval.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// What a test's record puts aside.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub(crate) live: Mutex<Sample>,
        pub(crate) series: Mutex<Series>,
    }

    impl Kept {
        pub(crate) fn shelf(&self) -> Shelf<'_> {
            Shelf { live: &self.live, series: &self.series }
        }
    }

    #[test]
    fn only_the_window_is_measured_and_publishing_moves_everything_once() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let kept = Kept::default();
        let window = Window { from: at(1000), until: Some(at(3000)) };
        let mut record = Record::new(window, true, start, kept.shelf());
        for (sent, answered) in [(900, 1100), (1000, 1001), (2500, 2600), (2999, 3001)] {
            record.measure(Timing { planned: at(sent), sent: at(sent) }, at(answered), 10, 100);
        }
        record.error(ErrorKind::Status(503));
        for _ in 0..2 {
            record.publish();
            for sample in [&record.total, &*kept.live.lock().unwrap()] {
                assert_eq!((sample.requests, sample.events, sample.bytes), (2, 20, 200));
                assert_eq!(sample.errors.get(&ErrorKind::Status(503)), Some(&1));
                assert_eq!(sample.service.max() / 1_000_000, 100);
            }
        }
        let points = kept.series.into_inner().unwrap().into_points();
        let seen: Vec<_> = points.iter().map(|point| (point.slot.at_s, point.events, point.errors)).collect();
        assert_eq!(seen, [(0, 10, 0), (1, 10, 1)]);
    }

    #[test]
    fn acks_are_kept_only_to_be_verified() {
        let kept = Kept::default();
        let now = Instant::now();
        let key = RequestKey { connection: 1, request: 2 };
        for keep in [true, false] {
            let mut record = Record::new(Window { from: now, until: None }, keep, now, kept.shelf());
            record.acked(key, Some(7), 3);
            record.acked(key, None, 3);
            assert_eq!((record.acks.count(), record.unplaced.count()), (u64::from(keep), u64::from(keep)));
            assert_eq!(record.acked_events, 6);
        }
    }
}
