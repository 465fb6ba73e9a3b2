//! The broker's clock: wall time in microseconds that distrusts sudden jumps.
//!
//! A wall clock that jumps by more than a minute against the monotonic clock is not followed until the jump has held for
//! ten minutes; until then time goes on at the monotonic clock's pace and [`Clock::suspect`] is true. Slow drift and
//! NTP's slewing are followed. Timers of the broker use `std::time::Instant`, never this clock.

use std::cell::Cell;
use std::time::Duration;
#[cfg(not(feature = "simulated-time"))]
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A jump of the wall clock beyond this is suspect.
const JUMP_MAX: Duration = Duration::from_secs(60);
/// How long a jump must hold before it is believed.
const JUMP_HOLD: Duration = Duration::from_secs(600);

/// Where times come from; the seam for tests.
pub trait TimeSource {
    /// Wall time in microseconds since the Unix epoch.
    fn wall_us(&self) -> u64;
    /// Time of a clock that never jumps, in microseconds since some fixed moment.
    fn monotonic_us(&self) -> u64;
}

/// The machine's clocks.
#[cfg(not(feature = "simulated-time"))]
pub struct SystemTimeSource(Instant);

/// For tests alone: a file, named by `SIMULATED_TIME`, that holds the time of all clocks in microseconds, little-endian.
#[cfg(feature = "simulated-time")]
pub struct SystemTimeSource(std::fs::File);

#[cfg(feature = "simulated-time")]
impl Default for SystemTimeSource {
    fn default() -> Self {
        let path = std::env::var_os("SIMULATED_TIME").expect("SIMULATED_TIME names a file");
        Self(std::fs::File::open(path).expect("the file with the simulated time"))
    }
}

#[cfg(feature = "simulated-time")]
impl TimeSource for SystemTimeSource {
    fn wall_us(&self) -> u64 {
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&self.0, &mut bytes, 0).expect("eight bytes");
        u64::from_le_bytes(bytes)
    }

    // No jump of the wall clock is one against this.
    fn monotonic_us(&self) -> u64 {
        self.wall_us()
    }
}

#[cfg(not(feature = "simulated-time"))]
impl Default for SystemTimeSource {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[cfg(not(feature = "simulated-time"))]
impl TimeSource for SystemTimeSource {
    fn wall_us(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }

    fn monotonic_us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// Wall time for events (`received`), one per core.
pub struct Clock<S = SystemTimeSource> {
    source: S,
    /// Wall minus monotonic time that is believed.
    offset_us: Cell<i64>,
    /// Since when (monotonic) another offset is seen, if one is.
    suspect_since_us: Cell<Option<u64>>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(SystemTimeSource::default())
    }
}

impl<S: TimeSource> Clock<S> {
    /// A clock that believes `source` as it is now.
    pub fn new(source: S) -> Self {
        let offset_us = source.wall_us() as i64 - source.monotonic_us() as i64;
        Self { source, offset_us: Cell::new(offset_us), suspect_since_us: Cell::new(None) }
    }

    /// Microseconds since the Unix epoch.
    pub fn now_us(&self) -> u64 {
        let monotonic = self.source.monotonic_us();
        let offset = self.source.wall_us() as i64 - monotonic as i64;
        let held = self.suspect_since_us.get().is_some_and(|since| monotonic - since >= JUMP_HOLD.as_micros() as u64);
        if (offset - self.offset_us.get()).unsigned_abs() <= JUMP_MAX.as_micros() as u64 || held {
            self.offset_us.set(offset);
            self.suspect_since_us.set(None);
        } else if self.suspect_since_us.get().is_none() {
            self.suspect_since_us.set(Some(monotonic));
        }
        (monotonic as i64 + self.offset_us.get()).max(0) as u64
    }

    /// Whether the wall clock jumped and is not followed (yet).
    pub fn suspect(&self) -> bool {
        self.suspect_since_us.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[derive(Default)]
    struct Fake {
        wall: Cell<u64>,
        monotonic: Cell<u64>,
    }

    impl TimeSource for Rc<Fake> {
        fn wall_us(&self) -> u64 {
            self.wall.get()
        }
        fn monotonic_us(&self) -> u64 {
            self.monotonic.get()
        }
    }

    const SECOND: u64 = 1_000_000;

    fn pass(fake: &Fake, seconds: u64) {
        fake.wall.set(fake.wall.get() + seconds * SECOND);
        fake.monotonic.set(fake.monotonic.get() + seconds * SECOND);
    }

    #[test]
    fn a_jump_is_followed_only_after_it_has_held() {
        let fake = Rc::new(Fake::default());
        fake.wall.set(1_000_000 * SECOND);
        let clock = Clock::new(Rc::clone(&fake));
        pass(&fake, 5);
        assert_eq!(clock.now_us(), 1_000_005 * SECOND);

        fake.wall.set(fake.wall.get() + 3600 * SECOND);
        assert_eq!(clock.now_us(), 1_000_005 * SECOND, "the jump is not followed");
        assert!(clock.suspect());
        pass(&fake, 599);
        assert_eq!(clock.now_us(), 1_000_604 * SECOND, "time goes on");
        pass(&fake, 1);
        assert_eq!(clock.now_us(), 1_004_205 * SECOND, "a jump that held is believed");
        assert!(!clock.suspect());
    }

    #[test]
    fn small_corrections_are_followed_and_a_jump_that_is_undone_is_forgotten() {
        let fake = Rc::new(Fake::default());
        fake.wall.set(1_000_000 * SECOND);
        let clock = Clock::new(Rc::clone(&fake));
        fake.wall.set(fake.wall.get() - 30 * SECOND);
        assert_eq!(clock.now_us(), 999_970 * SECOND);
        fake.wall.set(fake.wall.get() - 300 * SECOND);
        clock.now_us();
        assert!(clock.suspect());
        fake.wall.set(fake.wall.get() + 300 * SECOND);
        assert_eq!(clock.now_us(), 999_970 * SECOND);
        assert!(!clock.suspect());
    }
}
