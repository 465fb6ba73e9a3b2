//! How much of its time a thread was on a CPU, and how much it waited for one. Both mean that the generator, not the
//! broker, may have set the pace.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time of the calling thread since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadTime {
    /// On a CPU.
    pub running: Duration,
    /// Ready to run while others had the CPU; zero where the kernel does not tell.
    pub waiting: Duration,
}

impl ThreadTime {
    /// Reads both clocks.
    pub fn now() -> ThreadTime {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        let running = Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32);
        // Nanoseconds running, nanoseconds waiting, times run: Linux, Documentation/scheduler/sched-stats.rst.
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waiting = told.split_ascii_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
        ThreadTime { running, waiting: waiting.map(Duration::from_nanos).unwrap_or_default() }
    }

    /// What was added since an earlier look.
    pub fn since(self, earlier: ThreadTime) -> ThreadTime {
        let (running, waiting) = (self.running - earlier.running, self.waiting.saturating_sub(earlier.waiting));
        ThreadTime { running, waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_as_time_on_a_cpu() {
        let before = ThreadTime::now();
        let mut now = ThreadTime::now();
        while now.running < before.running + Duration::from_millis(20) {
            now = ThreadTime::now();
        }
        assert!(now.waiting >= before.waiting);
    }
}
