//! What consumers counted and measured, added up over all of them, and what it says of the broker.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::thread_time::ThreadTime;
use crate::verdict::{Share, Verdict};

/// Longest time that is told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Faults that are told in words.
const EXAMPLES_MAX: usize = 5;
/// Share of a generator thread's time above which the generator may have set the pace.
const BUSY_MAX: f64 = 0.9;

/// Counts and times of one worker, or of all.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Events given.
    pub(crate) events: u64,
    /// Bytes of answers.
    pub(super) bytes: u64,
    /// Answers with events, or without.
    pub(super) answers: u64,
    /// Acks taken.
    pub(super) acks: u64,
    /// Answers that are open and go on.
    pub(crate) open: u64,
    /// From asking to the whole answer, of those that did not have to wait for events, ns.
    pub(crate) answer: Histogram<u64>,
    /// From an event's `received` to its being here, of events that were waited for, ns.
    pub(crate) delivery: Histogram<u64>,
    /// From the moment an ack was planned to its answer, ns.
    pub(crate) ack: Histogram<u64>,
    /// From the planned send of an event to its being here, of events that were sent in the same run, ns.
    pub(crate) end_to_end: Histogram<u64>,
    /// Events whose planned send is not known.
    pub(crate) untimed: u64,
    /// Offsets that were never given.
    pub(crate) lost: u64,
    /// Events given a second time, or before their turn.
    pub(crate) repeated: u64,
    /// Offsets that the broker says are gone.
    pub(super) gaps: u64,
    /// Other answers by status; 0 for connections that broke.
    pub(super) errors: BTreeMap<u16, u64>,
    /// The first faults in words.
    pub(crate) examples: Vec<String>,
    /// The first refusal in words.
    pub(super) refusal: Option<String>,
    /// Threads' time.
    pub(crate) shares: Vec<Share>,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        let times = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid");
        Self {
            events: 0,
            bytes: 0,
            answers: 0,
            acks: 0,
            open: 0,
            answer: times(),
            delivery: times(),
            ack: times(),
            end_to_end: times(),
            untimed: 0,
            lost: 0,
            repeated: 0,
            gaps: 0,
            errors: BTreeMap::new(),
            examples: Vec::new(),
            refusal: None,
            shares: Vec::new(),
            cpu: Duration::ZERO,
        }
    }
}

impl Tally {
    /// Adds what another worker counted.
    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.answers += other.answers;
        self.acks += other.acks;
        self.open += other.open;
        for (mine, theirs) in [
            (&mut self.answer, &other.answer),
            (&mut self.delivery, &other.delivery),
            (&mut self.ack, &other.ack),
            (&mut self.end_to_end, &other.end_to_end),
        ] {
            mine.add(theirs).expect("equal bounds");
        }
        self.untimed += other.untimed;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        for (status, count) in other.errors {
            *self.errors.entry(status).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        self.refusal = self.refusal.take().or(other.refusal);
        self.shares.extend(other.shares);
        self.cpu += other.cpu;
    }

    /// Notes how long something took.
    pub(super) fn time(histogram: &mut Histogram<u64>, took: Duration) {
        histogram.saturating_record((took.as_nanos() as u64).clamp(1, LATENCY_NS_MAX));
    }

    /// Notes what is wrong with an answer.
    pub(super) fn wrong(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }

    /// Counts an answer that was no success, or a connection that broke (0).
    pub(super) fn error(&mut self, status: u16) {
        *self.errors.entry(status).or_default() += 1;
    }

    /// Notes what a thread did with its time.
    pub(super) fn thread(&mut self, time: ThreadTime, wall: Duration) {
        self.shares.push(Share::of(time, wall));
        self.cpu += time.running;
    }

    /// Whether the numbers may be quoted, and why not.
    pub(crate) fn verdict(&self) -> (Verdict, String) {
        if self.lost + self.repeated > 0 {
            return (Verdict::Incorrect, format!("{} lost, {} given twice or out of order", self.lost, self.repeated));
        }
        if let Some((status, count)) = self.errors.iter().next() {
            let what = if *status == 0 { "connections lost".to_owned() } else { format!("answers {status}") };
            return (Verdict::Unstable, format!("{count} {what}"));
        }
        let busiest = self.shares.iter().map(|share| share.taken()).fold(0.0, f64::max);
        if busiest > BUSY_MAX {
            return (
                Verdict::GeneratorLimited,
                format!("a thread of the generator was busy for {:.0} %", busiest * 100.0),
            );
        }
        (Verdict::Valid, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_finding_decides_and_sums_are_sums() {
        let mut sum = Tally::default();
        assert_eq!(sum.verdict().0, Verdict::Valid);
        let busy = Tally { shares: vec![Share { running: 0.5, waiting: 0.45 }], events: 3, ..Tally::default() };
        sum.add(busy);
        assert_eq!((sum.verdict().0, sum.events), (Verdict::GeneratorLimited, 3));
        let mut broken = Tally { events: 4, ..Tally::default() };
        broken.error(503);
        broken.answer.record(5_000).unwrap();
        sum.add(broken.clone());
        sum.add(broken);
        assert_eq!((sum.verdict().0, sum.errors[&503], sum.events, sum.answer.len()), (Verdict::Unstable, 2, 11, 2));
        sum.add(Tally { lost: 1, ..Tally::default() });
        assert_eq!(sum.verdict().0, Verdict::Incorrect);
    }
}
