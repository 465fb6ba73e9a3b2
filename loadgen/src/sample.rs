//! What is counted and timed: the clocks by name, and counts and histograms over some time. Says nothing of when, which
//! is `meter`'s, and judges nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in nanoseconds: an hour. Longer ones count as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// What a time is measured from, and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// From the planned send of a request to its answer.
    Response,
    /// From the actual send of a request to its answer.
    Service,
    /// From the planned send of a request to the actual one.
    SendLag,
    /// From the planned send of an event until a consumer of the same run has it.
    EndToEnd,
    /// From a consumer's question to the whole answer, where it did not have to wait for events.
    Answer,
    /// From an event's `received` until a consumer that waited has it.
    Delivery,
    /// From the planned moment of an ack to its answer.
    Ack,
    /// From the planned moment of a query to its whole answer.
    Query,
}

impl Clock {
    /// All of them.
    pub const ALL: [Clock; 8] = [
        Clock::Response,
        Clock::Service,
        Clock::SendLag,
        Clock::EndToEnd,
        Clock::Answer,
        Clock::Delivery,
        Clock::Ack,
        Clock::Query,
    ];

    /// Its name for people; in fields its blanks are `_`, in names of files `-`.
    pub fn name(self) -> &'static str {
        match self {
            Clock::Response => "response",
            Clock::Service => "service",
            Clock::SendLag => "send lag",
            Clock::EndToEnd => "end to end",
            Clock::Answer => "answer",
            Clock::Delivery => "delivery",
            Clock::Ack => "ack",
            Clock::Query => "query",
        }
    }

    /// Its name as a field.
    pub fn field(self) -> String {
        self.name().replace(' ', "_")
    }
}

/// Times by clock, in nanoseconds. A clock that never ran takes no room.
#[derive(Clone, Debug, Default)]
pub struct Times([Option<Box<Histogram<u64>>>; Clock::ALL.len()]);

static NO_TIMES: LazyLock<Histogram<u64>> = LazyLock::new(empty);

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

impl Times {
    /// Adds a time.
    pub fn note(&mut self, clock: Clock, nanos: u64) {
        self.histogram(clock).saturating_record(nanos);
    }

    /// Those of a clock; none if it never ran.
    pub fn of(&self, clock: Clock) -> &Histogram<u64> {
        self.0[clock as usize].as_deref().unwrap_or(&NO_TIMES)
    }

    /// Those of the first of some clocks that ran; none if no one did.
    pub fn first(&self, clocks: &[Clock]) -> &Histogram<u64> {
        clocks.iter().map(|clock| self.of(*clock)).find(|times| !times.is_empty()).unwrap_or(&NO_TIMES)
    }

    /// The clocks that ran.
    pub fn ran(&self) -> impl Iterator<Item = (Clock, &Histogram<u64>)> {
        Clock::ALL.into_iter().map(|clock| (clock, self.of(clock))).filter(|(_, times)| !times.is_empty())
    }

    /// Merges others into these.
    pub fn add(&mut self, other: &Times) {
        for (clock, more) in other.ran() {
            self.histogram(clock).add(more).expect("all histograms have the same bounds");
        }
    }

    fn histogram(&mut self, clock: Clock) -> &mut Histogram<u64> {
        self.0[clock as usize].get_or_insert_with(|| Box::new(empty()))
    }

    /// Takes all times out and keeps the room.
    fn clear(&mut self) {
        self.0.iter_mut().flatten().for_each(|times| times.reset());
    }

    fn is_empty(&self) -> bool {
        self.ran().next().is_none()
    }
}

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

impl ErrorKind {
    /// Whether it says that the server has too much to do.
    pub fn is_busy(self) -> bool {
        matches!(self, ErrorKind::Status(429 | 503))
    }
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

/// Counts and latencies over some time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Latencies.
    pub times: Times,
    /// Requests that succeeded: acknowledged ones of producers, answered ones of readers.
    pub requests: u64,
    /// Events acknowledged, or given.
    pub events: u64,
    /// Bytes of acknowledged events, or of answers.
    pub bytes: u64,
    /// What went wrong.
    pub errors: Errors,
}

impl Sample {
    /// Merges another sample into this one.
    pub fn add(&mut self, other: &Sample) {
        self.times.add(&other.times);
        self.requests += other.requests;
        self.events += other.events;
        self.bytes += other.bytes;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
    }

    /// Counts an error.
    pub fn error(&mut self, kind: ErrorKind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    /// Begins again, with the room it has.
    pub fn clear(&mut self) {
        self.times.clear();
        (self.requests, self.events, self.bytes) = (0, 0, 0);
        self.errors.clear();
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        (self.requests, self.events, self.bytes) == (0, 0, 0) && self.errors.is_empty() && self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_merged_each_with_its_own_and_the_first_that_ran_is_found() {
        let (mut sum, mut other) = (Times::default(), Times::default());
        sum.note(Clock::Service, 1_000);
        other.note(Clock::Service, 3_000);
        other.note(Clock::Ack, 5_000);
        other.note(Clock::Ack, u64::MAX);
        sum.add(&other);
        let ran: Vec<_> = sum.ran().map(|(clock, times)| (clock, times.len())).collect();
        assert_eq!(ran, [(Clock::Service, 2), (Clock::Ack, 2)]);
        assert!(sum.of(Clock::Ack).max() >= LATENCY_NS_MAX, "what is too long counts as the longest");
        assert_eq!(sum.first(&[Clock::Response, Clock::Ack, Clock::Service]).len(), 2);
        assert!(sum.first(&[Clock::Response]).is_empty());
        sum.clear();
        assert!(sum.is_empty() && !other.is_empty());
        let places = Clock::ALL.into_iter().enumerate().all(|(place, clock)| clock as usize == place);
        assert!(places, "each has its place");
    }
}
