//! Wakes an epoll loop at a moment, to the microsecond; a timeout of epoll itself is in whole milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// A timer that shows as a readable event with its token.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    set_for: Option<Instant>,
}

impl Alarm {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the process has no more descriptors.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Alarm { timer, set_for: None })
    }

    /// The moment it was set for last.
    pub fn moment(&self) -> Option<Instant> {
        self.set_for
    }

    /// Sets it for a moment, or not at all. Setting it again for the same moment costs nothing.
    ///
    /// # Errors
    /// None that a valid timer has.
    pub fn set(&mut self, moment: Option<Instant>, now: Instant) -> io::Result<()> {
        if moment != self.set_for {
            // A time of zero would switch it off.
            let after = moment.map(|moment| moment.saturating_duration_since(now).max(Duration::from_nanos(1)));
            let after = after.unwrap_or_default();
            let it_value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Itimerspec { it_interval: never, it_value };
            rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value)?;
            self.set_for = moment;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn it_wakes_not_before_its_moment_and_once_for_each() {
        let mut poll = Poll::new().unwrap();
        let mut alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        let mut events = Events::with_capacity(4);
        for micros in [300, 0, 2_500] {
            let now = Instant::now();
            let moment = now + Duration::from_micros(micros);
            alarm.set(Some(moment), now).unwrap();
            poll.poll(&mut events, None).unwrap();
            assert!(Instant::now() >= moment);
            assert_eq!(events.iter().map(mio::event::Event::token).collect::<Vec<_>>(), [Token(7)]);
        }
        alarm.set(Some(Instant::now() + Duration::from_millis(1)), Instant::now()).unwrap();
        alarm.set(None, Instant::now()).unwrap();
        poll.poll(&mut events, Some(Duration::from_millis(20))).unwrap();
        assert!(events.is_empty(), "it was switched off");
    }
}
