//! What happened when: the run in points of a second, each with its counts and its own percentiles, all workers together.
//! Filled by `record`, read by `verdict` and by whoever draws it.
//!
//! A point's percentiles come from its own merged histogram, which is dropped once the point is over, so a point is a
//! few hundred bytes. Points grow longer as the run does ([`Slot`]), so a run of a day has some ten thousand of them.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::record::Sample;

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When.
    #[serde(flatten)]
    pub slot: Slot,
    /// Acknowledged requests.
    pub requests: u64,
    /// Acknowledged events.
    pub events: u64,
    /// Bytes of acknowledged events.
    pub bytes: u64,
    /// Errors of any kind.
    pub errors: u64,
    /// From the planned send of a request to its answer; nothing in the closed loop.
    #[serde(rename = "response_ns")]
    pub response: Option<Quantiles>,
    /// From the actual send of a request to its answer.
    #[serde(rename = "service_ns")]
    pub service: Option<Quantiles>,
    /// From the planned send of a request to the actual one; nothing in the closed loop.
    #[serde(rename = "send_lag_ns")]
    pub send_lag: Option<Quantiles>,
}

impl Point {
    fn of(slot: Slot, sample: &Sample) -> Point {
        Point {
            slot,
            requests: sample.requests,
            events: sample.events,
            bytes: sample.bytes,
            errors: sample.errors.values().sum(),
            response: Quantiles::of(&sample.response),
            service: Quantiles::of(&sample.service),
            send_lag: Quantiles::of(&sample.send_lag),
        }
    }

    /// Acknowledged events a second.
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

    fn measured(events: u64, service: &[u64]) -> Sample {
        let mut sample = Sample { requests: service.len() as u64, events, ..Sample::default() };
        service.iter().for_each(|time| sample.service.record(*time).unwrap());
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
        series.add(at(0), &measured(10, &[1_000; 9]));
        series.add(at(1), &measured(1, &[5]));
        series.add(at(0), &measured(2, &[9_000]));
        series.add(at(2), &measured(3, &[5]));
        series.add(at(5), &measured(4, &[5]));
        // The first is closed by now, so this one counts for the oldest that is open.
        series.add(at(0), &measured(100, &[7]));
        let points = series.into_points();
        let seen: Vec<_> = points.iter().map(|point| (point.slot.at_s, point.events, point.requests)).collect();
        assert_eq!(seen, [(0, 12, 10), (1, 101, 2), (2, 3, 1), (3, 0, 0), (4, 0, 0), (5, 4, 1)]);
        let service = points[0].service.unwrap();
        assert_eq!((service.p50 / 1_000, service.p90 / 1_000, service.p99 / 1_000, service.max / 1_000), (1, 1, 9, 9));
        assert_eq!(Point::of(at(0), &Sample::default()).service, None);
    }
}
