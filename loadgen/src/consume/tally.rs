//! What consumers counted and measured, added up over all of them, and what it says of the broker.

use std::time::{Duration, Instant};

use crate::meter::Meter;
use crate::sample::{Clock, ErrorKind, Sample};
use crate::thread_time::ThreadTime;
use crate::units::counted;
use crate::verdict::{Evidence, Share, Verdict, judge};

/// Faults that are told in words.
const EXAMPLES_MAX: usize = 5;

/// Counts and times of one worker, or of all.
#[derive(Debug)]
pub(crate) struct Tally<'a> {
    /// Answers, what came with them, and their times.
    pub(super) meter: Meter<'a>,
    /// Events given so far, published or not.
    pub(super) given: u64,
    /// Acks taken.
    pub(super) acks: u64,
    /// Answers that are open and go on.
    pub(crate) open: u64,
    /// Events whose planned send is not known.
    pub(crate) untimed: u64,
    /// Offsets that were never given.
    pub(crate) lost: u64,
    /// Events given a second time, or before their turn.
    pub(crate) repeated: u64,
    /// Offsets that the broker says are gone.
    pub(super) gaps: u64,
    /// The first faults in words.
    pub(crate) examples: Vec<String>,
    /// The first refusal in words.
    pub(super) refusal: Option<String>,
    /// Whether the broker fell silent before the end.
    pub(super) silent: bool,
    /// Whether nothing it answered was a success for as long.
    pub(super) stuck: bool,
    /// Consumers that were to read up to the tail, and did not.
    pub(super) behind: u64,
    /// Threads' time.
    pub(crate) shares: Vec<Share>,
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// The longest time a thread was at it.
    wall: Duration,
}

impl<'a> Tally<'a> {
    /// Nothing counted yet.
    pub(super) fn new(meter: Meter<'a>) -> Self {
        Self {
            meter,
            given: 0,
            acks: 0,
            open: 0,
            untimed: 0,
            lost: 0,
            repeated: 0,
            gaps: 0,
            examples: Vec::new(),
            refusal: None,
            silent: false,
            stuck: false,
            behind: 0,
            shares: Vec::new(),
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
        }
    }

    /// Everything measured, once it was published.
    pub(crate) fn sample(&self) -> &Sample {
        &self.meter.total
    }

    /// Adds what another worker counted.
    pub(super) fn add(&mut self, other: Tally<'_>) {
        self.meter.total.add(&other.meter.total);
        self.given += other.given;
        self.acks += other.acks;
        self.open += other.open;
        self.untimed += other.untimed;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.gaps += other.gaps;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
        self.refusal = self.refusal.take().or(other.refusal);
        self.silent |= other.silent;
        self.stuck |= other.stuck;
        self.behind += other.behind;
        self.shares.extend(other.shares);
        self.cpu += other.cpu;
        self.wall = self.wall.max(other.wall);
    }

    /// Notes how long something took that ended now.
    pub(super) fn time(&mut self, clock: Clock, took: Duration, now: Instant) {
        self.meter.at(now).times.note(clock, (took.as_nanos() as u64).max(1));
    }

    /// Notes what is wrong with an answer.
    pub(super) fn wrong(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(words());
        }
    }

    /// Notes an answer that breaks the contract.
    pub(super) fn unusable(&mut self, words: impl FnOnce() -> String) {
        self.meter.error(ErrorKind::BadAnswer);
        self.wrong(words);
    }

    /// Notes what a thread did with its time.
    pub(super) fn thread(&mut self, time: ThreadTime, wall: Duration) {
        self.shares.push(Share::of(time, wall));
        self.cpu += time.running;
        self.wall = self.wall.max(wall);
    }

    /// Answers that were neither a success nor a sign of too much load.
    pub(super) fn refused(&self) -> u64 {
        let refusals = self.sample().errors.iter();
        let refusals = refusals.filter(|(kind, _)| matches!(kind, ErrorKind::Status(_)) && !kind.is_busy());
        refusals.map(|(_, count)| count).sum()
    }

    /// Whether the numbers may be quoted, and why not.
    pub(crate) fn verdict(&self) -> (Verdict, String) {
        let behind = || format!("{} did not come to the tail", counted(self.behind, "consumer", "consumers"));
        let unfinished = match self {
            Tally { silent: true, .. } => Some("the broker fell silent".to_owned()),
            Tally { stuck: true, .. } => Some("no answer was a success for three timeouts".to_owned()),
            Tally { behind: 1.., .. } => Some(behind()),
            _ => None,
        };
        judge(&Evidence {
            errors: self.sample().errors.clone(),
            requests: self.sample().requests,
            refused: self.refused(),
            busiest: Share::busiest(&self.shares),
            wall: self.wall,
            undelivered: self.lost + self.repeated,
            unfinished: unfinished.as_deref(),
            ..Evidence::default()
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tally that nobody looks at.
    pub(in crate::consume) fn tally() -> Tally<'static> {
        Tally::new(Meter::new(Instant::now(), None))
    }

    #[test]
    fn the_gravest_finding_decides_and_sums_are_sums() {
        let mut sum = tally();
        assert_eq!(sum.verdict().0, Verdict::Valid);
        let part = |change: fn(&mut Tally<'_>)| {
            let mut part = tally();
            change(&mut part);
            part.meter.publish();
            part
        };
        let busy = ThreadTime { running: Duration::from_secs(1), waiting: Duration::from_millis(900) };
        let mut other = part(|part| part.meter.at(Instant::now()).events = 3);
        other.thread(busy, Duration::from_secs(2));
        sum.add(other);
        assert_eq!((sum.verdict().0, sum.sample().events), (Verdict::GeneratorLimited, 3));
        for _ in 0..2 {
            sum.add(part(|part| {
                part.meter.error(ErrorKind::Status(403));
                part.time(Clock::Answer, Duration::from_micros(5), Instant::now());
            }));
        }
        assert_eq!((sum.verdict(), sum.refused()), ((Verdict::Unstable, "2 requests refused".into()), 2));
        assert_eq!(sum.sample().times.of(Clock::Answer).len(), 2);
        sum.add(part(|part| part.behind = 2));
        assert_eq!(sum.verdict(), (Verdict::Unstable, "2 consumers did not come to the tail".into()));
        sum.add(part(|part| part.stuck = true));
        assert_eq!(sum.verdict(), (Verdict::Unstable, "no answer was a success for three timeouts".into()));
        sum.add(part(|part| part.silent = true));
        assert_eq!(sum.verdict(), (Verdict::Unstable, "the broker fell silent".into()));
        sum.add(part(|part| part.lost = 1));
        assert_eq!(sum.verdict().0, Verdict::Incorrect);
        let busy_answers = part(|part| part.meter.error(ErrorKind::Status(503)));
        assert_eq!((busy_answers.verdict().0, busy_answers.refused()), (Verdict::Overloaded, 0));
        let unreadable = part(|part| part.unusable(|| "no".into()));
        assert_eq!((unreadable.verdict().0, unreadable.examples.len()), (Verdict::Incorrect, 1));
    }
}
