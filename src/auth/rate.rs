//! How often a token may be used: so many requests a second, counted by all cores in one atomic.
//!
//! The generic cell rate algorithm: the bucket holds the time at which it would be empty. A request moves that time on by
//! the share of a second that it is worth, and is refused where it would then lie more than a second ahead. So a second's
//! worth may come at once, and what is refused costs nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What may come at once, in time.
const BURST_NS: u64 = 1_000_000_000;

/// Counts the uses of one token.
pub struct Bucket {
    /// When it would be empty, in nanoseconds of the clock that callers bring.
    empty_at_ns: AtomicU64,
    interval_ns: u64,
}

impl Bucket {
    /// A bucket for so many requests a second, at least one.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self { empty_at_ns: AtomicU64::new(0), interval_ns: BURST_NS / u64::from(rate.max(1)) }
    }

    /// Takes one request at `now_ns` of a clock that never jumps.
    ///
    /// # Errors
    /// How long to wait, when there have been too many.
    pub fn take(&self, now_ns: u64) -> Result<(), Duration> {
        let mut empty_at = self.empty_at_ns.load(Ordering::Relaxed);
        loop {
            let next = empty_at.max(now_ns) + self.interval_ns;
            if let Some(wait) = next.checked_sub(now_ns + BURST_NS).filter(|wait| *wait > 0) {
                return Err(Duration::from_nanos(wait));
            }
            match self.empty_at_ns.compare_exchange_weak(empty_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => empty_at = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_one_after_the_other() {
        for rate in [1, 3, 100, 1_000_000] {
            let bucket = Bucket::new(rate);
            let start = 77 * SECOND;
            let taken = (0..rate * 2).take_while(|_| bucket.take(start).is_ok()).count();
            assert_eq!(taken, rate as usize, "{rate}");
            let wait = bucket.take(start).unwrap_err();
            assert!(wait <= Duration::from_nanos(SECOND / u64::from(rate)), "{rate}: {wait:?}");
            assert!(bucket.take(start + wait.as_nanos() as u64 - 1).is_err(), "{rate}: a nanosecond early");
            assert!(bucket.take(start + wait.as_nanos() as u64).is_ok(), "{rate}");
            assert!(bucket.take(start + wait.as_nanos() as u64).is_err(), "{rate}: only one more");
        }
    }

    #[test]
    fn rest_is_worth_a_second_and_no_more() {
        let bucket = Bucket::new(10);
        for hour in 0..3 {
            let now = hour * 3600 * SECOND;
            assert_eq!((0..50).filter(|_| bucket.take(now).is_ok()).count(), 10);
        }
    }

    #[test]
    fn all_cores_together_take_no_more_than_one() {
        let bucket = Bucket::new(1000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| bucket.take(SECOND).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
