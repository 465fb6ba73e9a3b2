//! One worker's measurements on their way: into the run's total, into the run second by second, and to whoever looks on.
//!
//! Samples go to an interval that only the worker touches; a few times a second it is added to the total, to the run's
//! series and to the sample that the progress thread takes away. So the loop never waits for a lock that is held long, and
//! percentiles are always taken from merged histograms.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::sample::{ErrorKind, Sample};
use crate::series::{Series, Slot};

/// Where workers put what others may look at during the run.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// This worker's sample, taken away by the progress thread.
    pub live: &'a Mutex<Sample>,
    /// All workers' points.
    pub series: &'a Mutex<Series>,
}

/// Measurements of one worker.
#[derive(Debug)]
pub struct Meter<'a> {
    /// Begin of the measured part.
    from: Instant,
    /// Without one, nobody looks on.
    shelf: Option<Shelf<'a>>,
    interval: Sample,
    /// When the interval is; it never spans two.
    slot: Slot,
    /// Everything measured so far, up to the last [`Meter::publish`].
    pub total: Sample,
}

impl<'a> Meter<'a> {
    /// Nothing measured yet.
    pub fn new(from: Instant, shelf: Option<Shelf<'a>>) -> Meter<'a> {
        Meter { from, shelf, interval: Sample::default(), slot: Slot::of(0), total: Sample::default() }
    }

    /// Sets the begin of the measured part, once it is known.
    pub fn begin(&mut self, from: Instant) {
        self.from = from;
    }

    /// Where that is to be added which happens at a moment.
    pub fn at(&mut self, now: Instant) -> &mut Sample {
        let slot = Slot::of(now.saturating_duration_since(self.from).as_secs());
        if slot != self.slot {
            self.publish();
            self.slot = slot;
        }
        &mut self.interval
    }

    /// Requests that succeeded, published or not.
    pub fn requests(&self) -> u64 {
        self.total.requests + self.interval.requests
    }

    /// Counts an error, wherever the interval is.
    pub fn error(&mut self, kind: ErrorKind) {
        self.interval.error(kind);
    }

    /// Adds the interval to the total and puts it on the shelf.
    pub fn publish(&mut self) {
        if self.interval.is_empty() {
            return;
        }
        self.total.add(&self.interval);
        if let Some(shelf) = &self.shelf {
            // Progress is only told, never relied upon: a panic over there must not end the run.
            shelf.live.lock().unwrap_or_else(PoisonError::into_inner).add(&self.interval);
            shelf.series.lock().unwrap_or_else(PoisonError::into_inner).add(self.slot, &self.interval);
        }
        self.interval.clear();
    }
}
