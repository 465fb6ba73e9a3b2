//! What happened when: the run in points of a second, each with its counts and its own percentiles, all workers together.
//! Filled by `meter`, read by `verdict` and by whoever draws it.
//!
//! A point's percentiles come from its own merged histogram, which is dropped once the point is over, so a point is a
//! few hundred bytes. Points grow longer as the run does ([`Slot`]), so a run of a day has some ten thousand of them.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::sample::{Clock, Sample};

/// Points of one second each, before they become longer.
const POINTS_A_LENGTH: u64 = 1800;

/// Points whose histograms are kept, so that workers which hand over at different moments still meet.
const OPEN_MAX: usize = 3;

/// The percentiles that are kept of a point, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half were at most this.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p99_9: u64,
    /// All.
    pub max: u64,
}

impl Quantiles {
    /// Those of a histogram of nanoseconds; `None` of an empty one.
    pub fn of(times: &Histogram<u64>) -> Option<Quantiles> {
        let at = |quantile| times.value_at_quantile(quantile);
        (!times.is_empty()).then(|| Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: times.max(),
        })
    }
}

/// A part of the measured time, a second long in the first half hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Slot {
    /// Seconds from the beginning of the measured part to the beginning of this one.
    pub at_s: u64,
    /// Its length in seconds.
    pub length_s: u64,
}

impl Slot {
    /// The slot that holds this second: 1800 of one second, then 1800 of two, 1800 of four, and so on.
    pub fn of(second: u64) -> Slot {
        let doublings = (second / POINTS_A_LENGTH + 1).ilog2();
        let length_s = 1 << doublings;
        let begin = POINTS_A_LENGTH * (length_s - 1);
        Slot { at_s: begin + (second - begin) / length_s * length_s, length_s }
    }

    fn end(self) -> u64 {
        self.at_s + self.length_s
    }
}

/// What was measured in one slot. Answers count where they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub slot: Slot,
    /// Requests that succeeded.
    pub requests: u64,
    /// Events acknowledged, or given.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Errors of any kind.
    pub errors: u64,
    /// Percentiles of the clocks that ran.
    pub times: Vec<(Clock, Quantiles)>,
}

impl Point {
    fn of(slot: Slot, sample: &Sample) -> Point {
        Point {
            slot,
            requests: sample.requests,
            events: sample.events,
            bytes: sample.bytes,
            errors: sample.errors.values().sum(),
            times: sample.times.ran().filter_map(|(clock, times)| Some((clock, Quantiles::of(times)?))).collect(),
        }
    }

    /// Percentiles of a clock, if it ran.
    pub fn times(&self, clock: Clock) -> Option<Quantiles> {
        self.times.iter().find(|(ran, _)| *ran == clock).map(|(_, times)| *times)
    }

    /// Events a second.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.slot.length_s as f64
    }
}

/// Collects points while a run goes on.
#[derive(Clone, Debug, Default)]
pub struct Series {
    closed: Vec<Point>,
    open: BTreeMap<Slot, Sample>,
}

impl Series {
    /// Adds what a worker measured in a slot. Whoever comes so late that its point is closed adds to the oldest that is
    /// not: it is a thread that had no core for seconds, which the verdict tells.
    pub fn add(&mut self, slot: Slot, sample: &Sample) {
        let slot = match self.closed.last() {
            Some(closed) if closed.slot >= slot => *self.open.keys().next().expect("one stays open behind a closed"),
            _ => slot,
        };
        self.open.entry(slot).or_default().add(sample);
        while self.open.len() > OPEN_MAX {
            self.close_first();
        }
    }

    /// All points in their order, from the first second on and without a hole.
    pub fn into_points(mut self) -> Vec<Point> {
        while !self.open.is_empty() {
            self.close_first();
        }
        self.closed
    }

    fn close_first(&mut self) {
        if let Some((slot, sample)) = self.open.pop_first() {
            while let empty = Slot::of(self.closed.last().map_or(0, |closed| closed.slot.end()))
                && empty < slot
            {
                self.closed.push(Point { slot: empty, ..Point::default() });
            }
            self.closed.push(Point::of(slot, &sample));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many events, and requests that took these microseconds.
    fn measured(events: u64, service: std::ops::RangeInclusive<u64>) -> Sample {
        let mut sample = Sample { events, bytes: 100 * events, ..Sample::default() };
        for micros in service {
            sample.requests += 1;
            sample.times.note(Clock::Service, micros * 1_000);
        }
        sample
    }

    #[test]
    fn slots_follow_each_other_without_gap_and_grow() {
        let mut next = 0;
        let mut slots = 0;
        while next < 86_400 {
            let slot = Slot::of(next);
            assert_eq!(slot.at_s, next);
            assert_eq!(Slot::of(next + slot.length_s - 1), slot, "every second of it leads to it");
            (next, slots) = (next + slot.length_s, slots + 1);
        }
        assert_eq!((Slot::of(0).length_s, Slot::of(1799).length_s, Slot::of(1800).length_s), (1, 1, 2));
        assert!(slots < 12_000, "{slots}");
    }

    #[test]
    fn points_come_from_merged_histograms_in_order_and_nothing_is_lost() {
        let mut series = Series::default();
        let at = Slot::of;
        series.add(at(0), &measured(10, 501..=1000));
        series.add(at(1), &measured(1, 5..=5));
        series.add(at(0), &measured(2, 1..=500));
        series.add(at(2), &measured(3, 5..=5));
        series.add(at(5), &measured(4, 5..=5));
        // The first is closed by now, so this one counts for the oldest that is open.
        series.add(at(0), &measured(100, 7..=7));
        let points = series.into_points();
        let seen: Vec<_> = points.iter().map(|point| (point.slot.at_s, point.events, point.requests)).collect();
        assert_eq!(seen, [(0, 12, 1000), (1, 101, 2), (2, 3, 1), (3, 0, 0), (4, 0, 0), (5, 4, 1)]);
        assert_eq!((points[0].bytes, points[1].bytes), (1_200, 10_100));
        let Quantiles { p50, p90, p99, p99_9, max } = points[0].times(Clock::Service).unwrap();
        for (found, micros) in [(p50, 500), (p90, 900), (p99, 990), (p99_9, 999), (max, 1000)] {
            assert!(found.abs_diff(micros * 1_000) <= micros, "{found} ns and not {micros} µs");
        }
        assert_eq!((&points[3].times, points[0].times(Clock::Response)), (&vec![], None), "no clock ran");
    }

    #[test]
    fn two_seconds_have_half_the_rate() {
        let mut series = Series::default();
        series.add(Slot::of(1_801), &measured(300, 1..=3));
        let points = series.into_points();
        let last = points.last().unwrap();
        assert_eq!(
            (points.len(), last.slot, last.events_per_second()),
            (1_801, Slot { at_s: 1_800, length_s: 2 }, 150.0)
        );
    }
}
