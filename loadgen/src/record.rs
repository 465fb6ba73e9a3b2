//! What one worker writes down of the requests it sent: acknowledgements for the verification, latencies and counts for
//! the summary and the progress line. Judges nothing.

use std::time::Instant;

use crate::acks::{Ack, Acks, Listed};
use crate::meter::{Meter, Shelf};
use crate::plan::RequestKey;
use crate::sample::{Clock, ErrorKind, Sample};

/// When a request was to be sent, and when it was.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Planned; in the closed loop, when it was first sent.
    pub planned: Instant,
    /// Sent, the last time if more than once.
    pub sent: Instant,
}

/// The part of the run that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// End of the warm-up.
    pub from: Instant,
    /// Moment after which nothing new is sent; `None` when a count of events ends the run.
    pub until: Option<Instant>,
}

/// The ledger of one worker.
#[derive(Debug)]
pub struct Record<'a> {
    window: Window,
    /// Whether moments are planned: then all that was planned for the window is measured, however late its answer.
    planned: bool,
    keep_acks: bool,
    /// What is measured.
    pub meter: Meter<'a>,
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
    /// When the last success came.
    pub last_success: Instant,
    /// What a busy server has said since, first.
    pub busy: Option<String>,
}

impl<'a> Record<'a> {
    /// An empty ledger; acknowledgements are kept only if they will be verified.
    pub fn new(window: Window, keep_acks: bool, now: Instant, shelf: Shelf<'a>) -> Record<'a> {
        Record {
            window,
            planned: false,
            keep_acks,
            meter: Meter::new(window.from, Some(shelf)),
            stages: Vec::new(),
            stage_ends: Vec::new(),
            acks: Acks::default(),
            unplaced: Listed::default(),
            unknown: Listed::default(),
            refused: Listed::default(),
            first_refusal: None,
            acked_events: 0,
            last_answer: now,
            last_success: now,
            busy: None,
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
        self.meter.begin(window.from);
    }

    /// Notes a success: `place` is the first offset if the answer told it.
    pub fn acked(&mut self, key: RequestKey, place: Option<u64>, events: u32, now: Instant) {
        self.acked_events += u64::from(events);
        (self.last_success, self.busy) = (now, None);
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
        let nanos = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let is_planned = self.planned;
        for sample in self.samples(planned, answered) {
            sample.times.note(Clock::Service, nanos(sent, answered));
            if is_planned {
                sample.times.note(Clock::Response, nanos(planned, answered));
                sample.times.note(Clock::SendLag, nanos(planned, sent));
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
            sample.times.note(Clock::Response, waited);
            sample.times.note(Clock::SendLag, waited);
        });
    }

    /// Measures a request that was planned and sent, and will not be answered any more.
    pub fn unanswered(&mut self, planned: Instant, now: Instant) {
        self.in_vain(planned, now, |sample, waited| sample.times.note(Clock::Response, waited));
    }

    fn in_vain(&mut self, planned: Instant, now: Instant, note: impl Fn(&mut Sample, u64)) {
        if self.planned && planned >= self.window.from {
            let waited = now.saturating_duration_since(planned).as_nanos() as u64;
            self.samples(planned, now).for_each(|sample| note(sample, waited));
        }
    }

    /// Where something is measured that was planned for a moment and ended now: the interval, and the stage.
    fn samples(&mut self, planned: Instant, now: Instant) -> impl Iterator<Item = &mut Sample> {
        let stage = self.stage_ends.partition_point(|end| *end <= planned);
        [self.meter.at(now)].into_iter().chain(self.stages.get_mut(stage))
    }

    /// Counts an error; errors count during the warm-up too.
    pub fn error(&mut self, kind: ErrorKind) {
        self.meter.error(kind);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::series::Series;

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
            record.meter.publish();
            for sample in [&record.meter.total, &*kept.live.lock().unwrap()] {
                assert_eq!((sample.requests, sample.events, sample.bytes), (2, 20, 200));
                assert_eq!(sample.errors.get(&ErrorKind::Status(503)), Some(&1));
                assert_eq!(sample.times.of(Clock::Service).max() / 1_000_000, 100);
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
            record.acked(key, Some(7), 3, now);
            record.acked(key, None, 3, now);
            assert_eq!((record.acks.count(), record.unplaced.count()), (u64::from(keep), u64::from(keep)));
            assert_eq!(record.acked_events, 6);
        }
    }
}
