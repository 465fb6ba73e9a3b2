//! Retention: which of a group's oldest segments may go, decided on values.
//!
//! ```text
//! sealed segments        [0 ─ 99] [100 ─ 199] [200 ─ 299] [300 ─ …] active
//! too old or too many       ✓          ✓
//! held by `protect`                    ✓ from 150 on                    → trimmed to 100
//! above `max_bytes_hard`               ✓                                → trimmed to 200, and 150 … 199 are lost
//! ```
//!
//! Only whole sealed segments go, so more than the limits say is kept: up to one segment. As in Kafka, `max_bytes` is what
//! is left at least, while `max_bytes_hard` is a bound from above.

use super::Group;
use super::config::Retention;
use super::consumer::Consumer;
use crate::log::segment::{SEGMENT_START, Segment};

/// What is to be done to a group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// What is below goes.
    pub earliest: u64,
    /// Segments that go.
    pub segments: u64,
    /// Bytes of frames in them.
    pub bytes: u64,
}

impl Group {
    /// Whether the active segment is old enough to be sealed although nothing comes that would begin the next one.
    #[must_use]
    pub fn is_to_be_sealed(&self, now_us: u64) -> bool {
        let old =
            |active: &Segment| now_us.saturating_sub(active.first_received_us) >= self.segment_limits().age_us_max;
        !self.closed && !self.log.is_open() && self.log.active().is_some_and(old)
    }

    /// What retention takes now.
    #[must_use]
    pub fn to_trim(&self, now_us: u64) -> Option<Trim> {
        let retention = &self.config.retention;
        if self.closed || retention.is_unlimited() {
            return None;
        }
        decide(retention, self.log.finished(), self.log.bytes(), self.protected_from(), now_us)
    }

    /// The first offset that a consumer named by `protect` has not acked.
    fn protected_from(&self) -> Option<u64> {
        let named = self.config.retention.protect.iter().filter_map(|name| self.consumers.get(name));
        named.filter(|consumer| consumer.has_position()).map(needed_from).min()
    }

    /// The consumers named by `protect` that lose events to a trim to `earliest`, with the first that each of them loses.
    #[must_use]
    pub fn protected_victims(&self, earliest: u64) -> Vec<(Box<str>, u64)> {
        let named = self.config.retention.protect.iter().filter_map(|name| Some((name, self.consumers.get(name)?)));
        let victims = named.filter(|(_, consumer)| consumer.wants_below(earliest) && consumer.next < earliest);
        victims.map(|(name, consumer)| (name.clone(), consumer.next.max(self.earliest))).collect()
    }

    /// Names in `protect` that hold nothing: nobody subscribed under them, or was never approved.
    #[must_use]
    pub fn not_protected(&self) -> Vec<Box<str>> {
        let holds = |name: &str| self.consumers.get(name).is_some_and(Consumer::has_position);
        self.config.retention.protect.iter().filter(|name| !holds(name)).cloned().collect()
    }
}

/// The first offset that a consumer still wants, replays included.
fn needed_from(consumer: &Consumer) -> u64 {
    consumer.replays.iter().map(|replay| replay.next).min().map_or(consumer.next, |replay| replay.min(consumer.next))
}

fn size(segment: &Segment) -> u64 {
    segment.end - SEGMENT_START
}

/// Which of the `finished` segments, oldest first, go from a group of so many `bytes`.
fn decide<'s>(
    retention: &Retention,
    finished: impl Iterator<Item = &'s Segment>,
    mut bytes: u64,
    protected_from: Option<u64>,
    now_us: u64,
) -> Option<Trim> {
    let mut trim: Option<Trim> = None;
    for segment in finished {
        let age_us = now_us.saturating_sub(segment.last_received_us);
        let too_old = retention.max_age.is_some_and(|max| u128::from(age_us) > max.as_micros());
        let too_many = retention.max_bytes.is_some_and(|max| bytes - size(segment) >= max);
        let held = protected_from.is_some_and(|from| segment.next_offset > from);
        let too_many_held = retention.max_bytes_hard.is_some_and(|hard| bytes > hard);
        if !((too_old || too_many) && !held || too_many_held) {
            break;
        }
        bytes -= size(segment);
        let so_far = trim.map_or((0, 0), |trim| (trim.segments, trim.bytes));
        trim = Some(Trim { earliest: segment.next_offset, segments: so_far.0 + 1, bytes: so_far.1 + size(segment) });
    }
    trim
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND_US: u64 = 1_000_000;

    /// Five segments of a hundred events and a thousand bytes each; the last event of the n-th was received at second n.
    fn segments() -> Vec<Segment> {
        let segment = |n: u64| Segment {
            sequence: n as u32,
            first_offset: n * 100,
            next_offset: n * 100 + 100,
            end: SEGMENT_START + 1000,
            first_received_us: n * SECOND_US,
            last_received_us: n * SECOND_US,
            sealed: true,
        };
        (0..5).map(segment).collect()
    }

    #[test]
    fn whole_segments_go_by_age_and_by_size_and_what_is_protected_stays_up_to_the_hard_limit() {
        let age = |seconds| Some(Duration::from_secs(seconds));
        for (name, max_age, max_bytes, protected, hard, expected) in [
            ("nothing is old", age(60), None, None, None, None),
            ("the age of the last event counts", age(7), None, None, None, Some((300, 3))),
            ("and not that which is just as old", age(8), None, None, None, Some((200, 2))),
            ("as much as is asked for is left", None, Some(2500), None, None, Some((200, 2))),
            ("to the byte", None, Some(2000), None, None, Some((300, 3))),
            ("more than there is", None, Some(9000), None, None, None),
            ("either will do", age(9), Some(2500), None, None, Some((200, 2))),
            ("what is not acked is held, and all of its segment", None, Some(0), Some(250), None, Some((200, 2))),
            ("what is acked to the last event is not", None, Some(0), Some(300), None, Some((300, 3))),
            ("up to the hard limit", None, Some(0), Some(0), Some(3500), Some((200, 2))),
            ("which is a bound from above", None, Some(0), Some(0), Some(3000), Some((200, 2))),
            ("and none from below", age(1), None, None, Some(9000), Some((500, 5))),
            ("a consumer far behind holds no more than that", age(1), None, Some(450), Some(9000), Some((400, 4))),
        ] {
            let protect = Box::default();
            let retention = Retention { max_age, max_bytes, protect, max_bytes_hard: hard };
            let trim = decide(&retention, segments().iter(), 5000, protected, 10 * SECOND_US);
            assert_eq!(trim.map(|trim| (trim.earliest, trim.segments)), expected, "{name}");
            assert!(trim.is_none_or(|trim| trim.bytes == trim.segments * 1000), "{name}");
        }
    }
}
