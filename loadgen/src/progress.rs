//! The line of progress, once a second from a thread of its own: in place on a terminal, line by line elsewhere. Only
//! reads what the workers publish, so a slow terminal never slows the load.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::{Extent, Plan};
use crate::record::{Sample, Shelf};
use crate::series::Series;
use crate::units::{grouped, nanoseconds, rate};

const EVERY: Duration = Duration::from_secs(1);

/// What is shown, filled by workers and the verification.
#[derive(Debug)]
pub struct Board {
    /// What each worker published and nobody took away yet.
    pub live: Vec<Mutex<Sample>>,
    /// The run so far, second by second.
    pub series: Mutex<Series>,
    /// Events to be read back, once that is known.
    pub to_read: AtomicU64,
    /// Events read back so far.
    pub read_back: AtomicU64,
    /// Whether events are being read back.
    pub verifying: AtomicBool,
}

impl Board {
    /// An empty board for so many workers.
    pub fn new(workers: u32) -> Board {
        Board {
            live: (0..workers).map(|_| Mutex::new(Sample::default())).collect(),
            series: Mutex::default(),
            to_read: AtomicU64::new(0),
            read_back: AtomicU64::new(0),
            verifying: AtomicBool::new(false),
        }
    }

    /// What each worker publishes to.
    pub fn shelves(&self) -> impl Iterator<Item = Shelf<'_>> {
        self.live.iter().map(|live| Shelf { live, series: &self.series })
    }

    /// Takes what was published since the last call.
    fn take(&self) -> Sample {
        let mut sum = Sample::default();
        for live in &self.live {
            sum.add(&live.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        sum
    }
}

/// A running progress thread; ends when dropped or finished.
pub struct Progress<'s> {
    end: Sender<()>,
    thread: ScopedJoinHandle<'s, ()>,
}

impl Progress<'_> {
    /// Ends the thread and clears its line, so that what follows stands alone.
    pub fn finish(self) {
        drop(self.end);
        // A panic in there was told on stderr already and harms nothing else.
        let _ = self.thread.join();
    }
}

/// Starts telling what the board shows.
pub fn start<'s, 'e: 's>(scope: &'s std::thread::Scope<'s, 'e>, plan: &'e Plan, board: &'e Board) -> Progress<'s> {
    let (end, ended) = channel();
    let thread = scope.spawn(move || tell(plan, board, &ended));
    Progress { end, thread }
}

fn tell(plan: &Plan, board: &Board, ended: &Receiver<()>) {
    let line = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{msg}").expect("a constant template");
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
    });
    let start = Instant::now();
    let mut told = Told { sent: 0, errors: 0, read_back: 0, last: start };
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let text = told.next(plan, board, start, Instant::now());
        match &line {
            Some(line) => line.set_message(text),
            None => eprintln!("{text}"),
        }
    }
    if let Some(line) = line {
        line.finish_and_clear();
    }
}

/// Sums over the lines told so far.
struct Told {
    sent: u64,
    errors: u64,
    read_back: u64,
    last: Instant,
}

impl Told {
    fn next(&mut self, plan: &Plan, board: &Board, start: Instant, now: Instant) -> String {
        let seconds = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        if board.verifying.load(Ordering::Relaxed) {
            let done = board.read_back.load(Ordering::Relaxed);
            let all = board.to_read.load(Ordering::Relaxed);
            let per_second = (done - self.read_back) as f64 / seconds;
            self.read_back = done;
            let share = done.min(all) * 100 / all.max(1);
            let left = time_left(all.saturating_sub(done), per_second);
            return format!(
                "verify  {share:3} %  {} events/s  {} of {} read back{left}",
                rate(per_second),
                grouped(done),
                grouped(all)
            );
        }
        let sample = board.take();
        self.sent += sample.events;
        self.errors += sample.errors.values().sum::<u64>();
        let per_second = sample.events as f64 / seconds;
        let times = if sample.response.is_empty() { &sample.service } else { &sample.response };
        let elapsed = now.duration_since(start);
        let left = match plan.extent {
            Extent::Time(time) => {
                let left = (time + plan.warmup).saturating_sub(elapsed);
                format!("  {} s left", left.as_secs_f64().ceil())
            }
            Extent::Events(events) => time_left(events.saturating_sub(self.sent), per_second),
        };
        format!(
            "{:4} s  {} events/s  p50 {}  p99 {}  errors {}{left}",
            elapsed.as_secs(),
            rate(per_second),
            nanoseconds(times.value_at_quantile(0.5)),
            nanoseconds(times.value_at_quantile(0.99)),
            grouped(self.errors),
        )
    }
}

fn time_left(events: u64, per_second: f64) -> String {
    if per_second < 1.0 {
        return String::new();
    }
    format!("  {} s left", (events as f64 / per_second).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;
    use crate::record::ErrorKind;

    #[test]
    fn lines_tell_rate_percentiles_errors_and_what_is_left() {
        let plan = plan();
        let board = Board::new(2);
        for (live, latency) in board.live.iter().zip([1_000, 3_000]) {
            let mut sample = live.lock().unwrap();
            sample.service.record(latency).unwrap();
            sample.events = 2;
            sample.errors.insert(ErrorKind::Status(503), 3);
        }
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let mut told = Told { sent: 0, errors: 0, read_back: 0, last: start };
        let line = told.next(&plan, &board, start, later);
        assert!(line.contains("2 events/s  p50 1.00 µs  p99 3.00 µs  errors 6  3 s left"), "{line}");
        board.live[0].lock().unwrap().response.record(2_000).unwrap();
        let line = told.next(&plan, &board, start, later + EVERY);
        assert!(line.contains("p50 2.00 µs"), "with a plan, of the response: {line}");
        assert_eq!(board.take().events, 0, "a sample is told once");
        board.verifying.store(true, Ordering::Relaxed);
        board.to_read.store(200, Ordering::Relaxed);
        board.read_back.store(50, Ordering::Relaxed);
        assert!(told.next(&plan, &board, start, later).starts_with("verify   25 %"));
    }
}
