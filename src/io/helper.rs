//! Threads for work that blocks: moving tails to segments, syncs, allocation, opening files.
//!
//! A helper runs its jobs one after another in the order they were given, so that a job may rely on the one before it.
//! The queue is bounded: whoever gives a job to a full helper waits.

use std::io;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for one helper.
const QUEUE_JOBS_MAX: usize = 64;

/// A named thread that runs jobs in order. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub struct Helper {
    jobs: mpsc::Sender<Job>,
}

impl Helper {
    /// Starts the thread, free to run on any of `cpus`.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(name: String, cpus: rustix::thread::CpuSet) -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_JOBS_MAX);
        std::thread::Builder::new().name(name).spawn(move || {
            // A refusal leaves the thread on its parent's core: slower, nothing else.
            let _ = rustix::thread::sched_setaffinity(None, &cpus);
            while let Some(job) = queue.blocking_recv() {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `work` on the helper and returns what it returns.
    ///
    /// # Panics
    /// When the work itself panicked: the state it was changing is then unknown, so the caller must not go on.
    pub async fn run<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // The asker may be gone at shutdown; then nobody needs the result.
            let _ = done.send(work());
        });
        assert!(self.jobs.send(job).await.is_ok(), "a helper thread died");
        result.await.expect("a helper's job panicked")
    }
}
