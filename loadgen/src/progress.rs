//! Progress, once a second from a thread of its own: a line in place on a terminal, line by line elsewhere, or with
//! `--tui` drawn on the whole terminal (`screen`). Only reads what the workers publish, so a slow terminal never slows the
//! load.

mod screen;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::meter::Shelf;
use crate::plan::{Extent, Plan};
use crate::sample::{Clock, Errors, Sample};
use crate::series::{Quantiles, Series};
use crate::units::{counted, grouped, nanoseconds, rate};
use crate::worker::Control;

const EVERY: Duration = Duration::from_secs(1);

/// Whose times are told: the first of these that ran.
const TOLD: [Clock; 6] = [Clock::Response, Clock::Service, Clock::Ack, Clock::Delivery, Clock::Answer, Clock::Query];

/// What is known of a run beforehand.
#[derive(Clone, Debug)]
pub struct Course {
    /// Where it goes.
    pub target: String,
    /// Who goes, such as `64 connections`.
    pub who: String,
    /// How long it takes at most, the warm-up included; `None` where a number of events ends it.
    pub time: Option<Duration>,
    /// How many events it is of, if that is known.
    pub events: Option<u64>,
    /// Whether its rate is meant to stay as it is.
    pub steady: bool,
    /// Whether progress is drawn on the whole terminal.
    pub tui: bool,
}

impl Course {
    /// That of a load.
    pub fn of(plan: &Plan) -> Course {
        let (time, events) = match plan.extent {
            Extent::Time(time) => (Some(plan.warmup + time), None),
            Extent::Events(events) => (None, Some(events)),
        };
        Course {
            target: plan.target.to_string(),
            who: counted(plan.connections.into(), "connection", "connections"),
            time,
            events,
            steady: plan.stage_ends().next().is_none(),
            tui: plan.tui,
        }
    }
}

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
            sum.add(&std::mem::take(&mut *live.lock().unwrap_or_else(PoisonError::into_inner)));
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

/// Starts telling what the board shows. Whoever looks at the whole terminal can end the run from there.
pub fn start<'s, 'e: 's>(
    scope: &'s std::thread::Scope<'s, 'e>,
    course: Course,
    board: &'e Board,
    control: &'e Control,
) -> Progress<'s> {
    let (end, ended) = channel();
    let thread = scope.spawn(move || {
        if course.tui {
            match screen::Screen::open() {
                Ok(screen) => return screen.show(&course, board, control, &ended),
                Err(why) => eprintln!("note: --tui: {why}; progress is told line by line"),
            }
        }
        tell(&course, board, &ended);
    });
    Progress { end, thread }
}

fn tell(course: &Course, board: &Board, ended: &Receiver<()>) {
    let line = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{msg}").expect("a constant template");
        ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
    });
    let mut told = Told::new(Instant::now());
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let text = told.next(course, board, Instant::now()).line();
        match &line {
            Some(line) => line.set_message(text),
            None => eprintln!("{text}"),
        }
    }
    if let Some(line) = line {
        line.finish_and_clear();
    }
}

/// One look at a run.
#[derive(Clone, Debug, Default)]
struct Look {
    elapsed: Duration,
    /// Whether events are being read back.
    verifying: bool,
    /// Events since the last look, sent or read back, a second.
    per_second: f64,
    /// Times of requests since the last look, from their planned sends if there is a plan.
    times: Quantiles,
    /// Acknowledged requests so far.
    requests: u64,
    /// Events sent so far, or read back.
    done: u64,
    /// Events to be sent or read back, if that is known.
    all: Option<u64>,
    /// How much of the phase is done, from 0 to 1.
    share: f64,
    /// Seconds until it is, if that can be told.
    left: Option<f64>,
    /// What went wrong so far.
    errors: Errors,
}

impl Look {
    fn line(&self) -> String {
        let left = self.left.map_or_else(String::new, |seconds| format!("  {seconds} s left"));
        if self.verifying {
            return format!(
                "verify  {:3} %  {} events/s  {} of {} read back{left}",
                (self.share * 100.0).floor(),
                rate(self.per_second),
                grouped(self.done),
                grouped(self.all.unwrap_or_default()),
            );
        }
        format!(
            "{:4} s  {} events/s  p50 {}  p99 {}  errors {}{left}",
            self.elapsed.as_secs(),
            rate(self.per_second),
            nanoseconds(self.times.p50),
            nanoseconds(self.times.p99),
            grouped(self.errors.values().sum()),
        )
    }
}

/// Sums over the looks so far.
struct Told {
    start: Instant,
    last: Instant,
    sent: u64,
    requests: u64,
    read_back: u64,
    errors: Errors,
}

impl Told {
    fn new(start: Instant) -> Told {
        Told { start, last: start, sent: 0, requests: 0, read_back: 0, errors: Errors::new() }
    }

    fn next(&mut self, course: &Course, board: &Board, now: Instant) -> Look {
        let seconds = now.duration_since(self.last).as_secs_f64();
        let elapsed = now.duration_since(self.start);
        self.last = now;
        let sample = board.take();
        self.sent += sample.events;
        self.requests += sample.requests;
        sample.errors.iter().for_each(|(kind, count)| *self.errors.entry(*kind).or_default() += count);
        let times = Quantiles::of(sample.times.first(&TOLD)).unwrap_or_default();
        let (requests, errors) = (self.requests, self.errors.clone());
        if board.verifying.load(Ordering::Relaxed) {
            let (done, all) = (board.read_back.load(Ordering::Relaxed), board.to_read.load(Ordering::Relaxed));
            let per_second = (done - self.read_back) as f64 / seconds;
            self.read_back = done;
            let left = time_left(all.saturating_sub(done), per_second);
            let share = share(done as f64, all as f64);
            return Look {
                elapsed,
                verifying: true,
                per_second,
                times,
                requests,
                done,
                all: Some(all),
                share,
                left,
                errors,
            };
        }
        let per_second = sample.events as f64 / seconds;
        let (share, left) = match (course.events, course.time) {
            (Some(events), _) => {
                let left = time_left(events.saturating_sub(self.sent), per_second);
                (share(self.sent as f64, events as f64), left)
            }
            (None, Some(time)) => {
                let left = time.saturating_sub(elapsed).as_secs_f64().ceil();
                (share(elapsed.as_secs_f64(), time.as_secs_f64()), Some(left))
            }
            (None, None) => (0.0, None),
        };
        let (done, all) = (self.sent, course.events);
        Look { elapsed, verifying: false, per_second, times, requests, done, all, share, left, errors }
    }
}

fn share(done: f64, all: f64) -> f64 {
    (done / all.max(1e-9)).clamp(0.0, 1.0)
}

fn time_left(events: u64, per_second: f64) -> Option<f64> {
    (per_second >= 1.0).then(|| (events as f64 / per_second).ceil())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sample::ErrorKind;

    /// Ten events of one connection.
    pub(super) fn course() -> Course {
        Course {
            target: "http://127.0.0.1:4437".into(),
            who: "1 connection".into(),
            time: None,
            events: Some(10),
            steady: true,
            tui: false,
        }
    }

    #[test]
    fn lines_tell_rate_percentiles_errors_and_what_is_left() {
        let course = course();
        let board = Board::new(2);
        for (live, latency) in board.live.iter().zip([1_000, 3_000]) {
            let mut sample = live.lock().unwrap();
            sample.times.note(Clock::Service, latency);
            sample.events = 2;
            sample.errors.insert(ErrorKind::Status(503), 3);
        }
        let start = Instant::now();
        let later = start + Duration::from_secs(2);
        let mut told = Told::new(start);
        let line = told.next(&course, &board, later).line();
        assert!(line.contains("2 events/s  p50 1.00 µs  p99 3.00 µs  errors 6  3 s left"), "{line}");
        board.live[0].lock().unwrap().times.note(Clock::Response, 2_000);
        let line = told.next(&course, &board, later + EVERY).line();
        assert!(line.contains("p50 2.00 µs"), "with a plan, of the response: {line}");
        assert_eq!(board.take().events, 0, "a sample is told once");
        board.verifying.store(true, Ordering::Relaxed);
        board.to_read.store(200, Ordering::Relaxed);
        board.read_back.store(50, Ordering::Relaxed);
        assert!(told.next(&course, &board, later).line().starts_with("verify   25 %"));
    }
}
