//! Threads for work that takes long and must delay nothing: they get what the CPUs have left.
//!
//! Jobs begin in the order they were given. A job whose asker has gone is not begun, and one under way may look whether it
//! is still wanted.
//!
//! Going last is not enough to make way: the scheduler weighs groups of processes (sessions, services) before the threads in
//! them, so within a group of its own a thread that goes last takes turns of milliseconds with the kernel's own workers, and
//! those end synced writes on devices that must be flushed. A thread that sleeps is in nobody's way. So jobs rest for a moment
//! whenever they ask whether they are still wanted and have run for a while, and half of the time while others are at work.
//!
//! One of them that others keep from its CPU may stand anywhere, within the allocator, too. So what jobs allocated is given
//! back by jobs: the allocator keeps it under a lock of the thread that it was made by, which nobody else is to wait for. And
//! whoever gives a job takes no lock: it is put into a list without one, and the thread that waits for it is unparked.

use super::system;
use std::cell::Cell;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// A job that has run for so long rests when it asks. What waits for its CPU waits about so long. Measured: with 20 µs p99 of
/// commits is the same, and a query takes a quarter longer.
const STINT: Duration = Duration::from_micros(50);

/// It rests at least so long: the thread must have left its CPU before its timer ends, else nobody gets it.
const REST: Duration = Duration::from_micros(10);

/// While others are at work, and for so long after, it rests for as long as it ran. Measured, with the thread on the CPU where
/// the kernel ends writes: with 10 µs of rest p99 of commits is nearly twice what it is without a query, with 50 µs the same.
const OTHERS: Duration = Duration::from_millis(1);

/// Says what the others do that are to be made way for.
pub type Others = Arc<dyn Fn() -> Busy + Send + Sync>;

/// What others do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Busy {
    /// How much they have begun.
    pub begun: u64,
    /// Whether some of it is under way.
    pub under_way: bool,
}

/// The threads. They end when it is dropped. What may wait for them is bounded by whoever gives them jobs.
pub struct Background {
    jobs: mpsc::UnboundedSender<Job>,
    others: Others,
}

impl Background {
    /// Starts a thread on each of `cpus`. None moves from one to another: that alone costs whoever runs there milliseconds.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(name: &str, cpus: &[usize], others: Others) -> io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for &cpu in cpus {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(format!("{name}-{cpu}")).spawn(move || {
                // Refusals leave it free to move, or as important as any other thread: worse, but not wrong.
                let _ = system::pin(cpu);
                let _ = system::take_what_is_left();
                // Else it would sleep for 50 µs more, so that timers end together.
                let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
                let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                while let Some(job) = next(&queue, &waker) {
                    job();
                }
            })?;
        }
        Ok(Self { jobs, others })
    }

    /// Drops what jobs made. It also takes a while, if it is much.
    pub fn discard<T: Send + 'static>(&self, value: T) {
        let job: Job = Box::new(move || drop(value));
        assert!(self.jobs.send(job).is_ok(), "the threads live as long as this");
    }

    /// Runs `work` on one of the threads and returns what it returns. The job is queued by the call itself. `work` is to call
    /// its argument every few microseconds: it rests there when it is time to, and is told whether the future is still there.
    ///
    /// # Panics
    /// When the work itself panicked.
    pub fn run<R: Send + 'static, W>(&self, work: W) -> impl Future<Output = R> + use<R, W>
    where
        W: FnOnce(&dyn Fn() -> bool) -> R + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let others = Arc::clone(&self.others);
        let job: Job = Box::new(move || {
            if !done.is_closed() {
                let pace = Pace::new(&*others);
                let answer = work(&|| {
                    pace.rest_if_due();
                    !done.is_closed()
                });
                let _ = done.send(answer);
            }
        });
        assert!(self.jobs.send(job).is_ok(), "the threads live as long as this");
        async move { result.await.expect("a job in the background panicked") }
    }
}

/// The next job, once it is there; `None` when there will be no more. Only these threads wait in line.
fn next(queue: &Mutex<mpsc::UnboundedReceiver<Job>>, waker: &Waker) -> Option<Job> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match queue.poll_recv(&mut Context::from_waker(waker)) {
            Poll::Ready(job) => return job,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Wakes a thread without a lock.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// When a job rests, and for how long.
struct Pace<'o> {
    others: &'o dyn Fn() -> Busy,
    /// When it rested last.
    rested: Cell<Instant>,
    /// What the others had begun when they were last looked at, and when they were last seen at work.
    seen: Cell<(u64, Option<Instant>)>,
}

impl<'o> Pace<'o> {
    fn new(others: &'o dyn Fn() -> Busy) -> Self {
        Self { others, rested: Cell::new(Instant::now()), seen: Cell::new((others().begun, None)) }
    }

    fn rest_if_due(&self) {
        let now = Instant::now();
        if now - self.rested.get() >= STINT {
            std::thread::sleep(self.rest(now));
            self.rested.set(Instant::now());
        }
    }

    fn rest(&self, now: Instant) -> Duration {
        let Busy { begun, under_way } = (self.others)();
        // What began and ended since the last look is seen, too.
        if under_way || begun != self.seen.get().0 {
            self.seen.set((begun, Some(now)));
        }
        let at_work = self.seen.get().1.is_some_and(|seen| now - seen < OTHERS);
        if at_work { STINT } else { REST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    #[test]
    fn a_job_rests_for_longer_while_others_are_at_work() {
        let busy = Cell::new(Busy { begun: 7, under_way: false });
        let others = || busy.get();
        let pace = Pace::new(&others);
        let begun = Instant::now();
        assert_eq!(pace.rest(begun), REST, "nobody else is there");
        busy.set(Busy { begun: 8, under_way: false });
        assert_eq!(pace.rest(begun), STINT, "something began and ended");
        assert_eq!(pace.rest(begun + OTHERS / 2), STINT);
        assert_eq!(pace.rest(begun + OTHERS), REST, "that is over");
        // What takes longer ends while it still rests.
        busy.set(Busy { begun: 9, under_way: true });
        for passed in 1..20 {
            assert_eq!(pace.rest(begun + OTHERS * passed), STINT, "after {passed}");
        }
        busy.set(Busy { begun: 9, under_way: false });
        assert_eq!(pace.rest(begun + OTHERS * 19 + OTHERS / 2), STINT);
        assert_eq!(pace.rest(begun + OTHERS * 20), REST);
    }

    #[test]
    fn a_job_that_begins_while_others_are_at_work_makes_way_at_once() {
        let others = || Busy { begun: 7, under_way: true };
        assert_eq!(Pace::new(&others).rest(Instant::now()), STINT);
    }

    #[test]
    fn a_job_that_goes_on_looks_what_others_do() {
        let (cpus, _) = system::cpus().unwrap();
        let looks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&looks);
        let others = Arc::new(move || Busy { begun: counted.fetch_add(1, Ordering::Relaxed), under_way: false });
        let background = Background::start("test", &cpus[..1], others).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // It would not end.
        runtime.block_on(background.run(move |wanted| while looks.load(Ordering::Relaxed) < 3 && wanted() {}));
    }

    #[test]
    fn a_job_that_goes_on_and_on_makes_way() {
        let (cpus, _) = system::cpus().unwrap();
        let background = Background::start("test", &cpus[..1], Arc::new(Busy::default)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let left_cpu = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
            line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
        };
        // It would not end.
        runtime.block_on(background.run(move |wanted| {
            let before = left_cpu();
            while left_cpu() < before + 3 {
                assert!(wanted());
            }
        }));
    }

    /// More threads than jobs at once: each waits for its turn to take one, and is woken for it.
    #[test]
    fn every_job_is_taken_and_threads_end_with_what_started_them() {
        let (cpus, _) = system::cpus().unwrap();
        let background = Background::start("taking", &[cpus[0]; 3], Arc::new(Busy::default)).unwrap();
        let threads = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let name =
                |task: io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
            tasks.filter_map(name).filter(|name| name.starts_with("taking-")).count()
        };
        let (told, heard) = mpsc::channel();
        let give = |number: u32| {
            let told = told.clone();
            background.run(move |_| told.send(number).unwrap())
        };
        for number in 0..1000 {
            let _asked = (give(number), give(number));
            assert_eq!([heard.recv(), heard.recv()], [Ok(number); 2]);
        }
        while threads() < 3 {
            std::thread::yield_now();
        }
        drop(background);
        while threads() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn jobs_run_with_the_lowest_priority_and_learn_that_nobody_waits() {
        let (cpus, _) = system::cpus().unwrap();
        let background = Background::start("test", &cpus[..1], Arc::new(Busy::default)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let policy = |_: &dyn Fn() -> bool| {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit(' ').nth(11).unwrap().to_owned()
        };
        assert_eq!(runtime.block_on(background.run(policy)), "5", "SCHED_IDLE");
        let (told, heard) = mpsc::channel();
        let unwanted = background.run(move |wanted| {
            told.send("begun").unwrap();
            while wanted() {
                std::thread::yield_now();
            }
            told.send("ended").unwrap();
        });
        let never = background.run(|_| panic!("nobody waits for it"));
        assert_eq!(heard.recv(), Ok("begun"));
        drop((unwanted, never));
        assert_eq!(heard.recv(), Ok("ended"));
        assert!(runtime.block_on(background.run(|wanted| wanted())), "the thread goes on");
    }
}
