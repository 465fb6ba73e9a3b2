//! The `consume` profile: consumers of one group that read, ack, query or only listen.
//!
//! ```text
//!  plan     what they do
//!  worker   one thread, one epoll loop over its consumers' sockets
//!  talk     what one consumer says and hears, and whether it got everything once and in order
//!  tally    counts, times, verdict
//!  summary  the dozen lines (or the JSON object) at the end
//! ```

pub mod plan;
mod summary;
mod talk;
mod tally;
mod worker;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Api;
use crate::broker::{Broker, Look, Watch};
use crate::cli::{ConsumeArguments, Output};
use crate::descriptors::make_room;
use crate::flight::Flight;
use crate::meter::Meter;
use crate::process::{Ending, Failure, conduct, exit};
use crate::progress::{self, Board, Course};
use crate::report::Part;
use crate::sample::Clock;
use crate::series::Point;
use crate::slo;
use crate::units::{counted, grouped};
use crate::verdict::Verdict;
use crate::worker::Control;
use plan::{ConsumePlan, Kind};
use tally::Tally;
use worker::{Run, drive};

/// How often it is looked whether live readers are there, and what they cost; and how soon their end is noticed.
const LOOK: Duration = Duration::from_secs(1);
const NOTICE: Duration = Duration::from_millis(20);

/// The clocks that may run.
pub(crate) const CLOCKS: [Clock; 3] = [Clock::Answer, Clock::Delivery, Clock::Ack];

/// What a run brought.
pub struct Outcome {
    pub(crate) tally: Tally<'static>,
    /// The run second by second.
    pub(crate) points: Vec<Point>,
    measured: Duration,
    /// The broker's resident memory before, and while all live answers were open.
    memory: Option<(u64, u64)>,
    /// What the broker told of itself meanwhile, if it was asked.
    broker: Option<Broker>,
}

impl Outcome {
    /// What clocks of it showed, for the report.
    pub(crate) fn part(&self, name: &'static str, clocks: &'static [Clock]) -> Part<'_> {
        Part { name, clocks, times: &self.tally.sample().times, points: &self.points }
    }

    fn objectives(&self, plan: &ConsumePlan) -> Vec<slo::Outcome> {
        let times = self.tally.sample().times.of(plan.judged());
        plan.objectives.iter().map(|objective| objective.judge(times)).collect()
    }
}

/// What consumers share with producers of the same run.
#[derive(Default)]
pub(crate) struct Beside<'f> {
    /// When what they are given was planned to be sent.
    pub(crate) flight: Option<&'f Flight>,
    /// Set once all are subscribed.
    pub(crate) subscribed: AtomicBool,
    /// Events given so far, to all together.
    pub(crate) events: AtomicU64,
    /// Where producers tell when the measured part begins.
    pub(crate) from: Option<&'f OnceLock<Instant>>,
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &ConsumeArguments) -> ExitCode {
    conduct("consume", arguments.plan(), |plan, control| {
        conclude(&plan, control, arguments.output, arguments.out.as_deref())
    })
}

/// The summary for programs.
pub(crate) fn json(plan: &ConsumePlan, outcome: &Outcome) -> serde_json::Value {
    summary::json(plan, outcome)
}

/// Runs a plan, tells what it came to, and gives the exit code.
pub(crate) fn conclude(
    plan: &ConsumePlan,
    control: &Control,
    output: Output,
    out: Option<&Path>,
) -> Result<u8, Failure> {
    let began = Timestamp::now();
    let outcome = run(plan, control, None)?;
    let Tally { examples, refusal, silent, stuck, .. } = &outcome.tally;
    examples.iter().for_each(|example| eprintln!("wrong: {example}"));
    refusal.iter().for_each(|refusal| eprintln!("refused: {refusal}"));
    let code = match outcome.tally.verdict().0 {
        Verdict::Incorrect => exit::FAILED,
        _ if *silent => exit::UNREACHABLE,
        _ if *stuck => exit::REFUSED,
        _ if outcome.tally.refused() > 0 => exit::FAILED,
        _ if !outcome.objectives(plan).iter().all(|objective| objective.met) => exit::MISSED,
        _ => 0,
    };
    let ending = Ending {
        text: summary::text(plan, &outcome),
        summary: summary::json(plan, &outcome),
        parts: vec![outcome.part("", &CLOCKS)],
        broker: outcome.broker.as_ref(),
        began,
        code,
    };
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    Ok(ending.tell(output, out, &api, control))
}

/// Runs the plan, beside producers or alone. Beside others it ends when `control` says so, and is quiet.
pub(crate) fn run(plan: &ConsumePlan, control: &Control, beside: Option<&Beside<'_>>) -> Result<Outcome, Failure> {
    make_room(plan.consumers.into())?;
    let address = plan.target.reach(plan.timeout).map_err(|error| Failure::unreachable(&plan.target, &error))?;
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    let run_name = format!("loadgen-{:06x}", fastrand::u32(..1 << 24));
    let names: Vec<String> = (0..plan.consumers).map(|number| format!("{run_name}-{number}")).collect();
    let subscribed = if plan.subscribes() { &names[..] } else { &[] };
    let outcome = (|| {
        subscribed.iter().try_for_each(|name| api.subscribe(&plan.group, name, &plan.start))?;
        let before = if plan.kind == Kind::Idle { resident_bytes(&api) } else { None };
        if let Some(beside) = beside {
            beside.subscribed.store(true, Ordering::Release);
        }
        let (open, board) = (AtomicU64::new(0), Board::new(plan.threads));
        let run = Run { plan, address, start: Instant::now(), stop: &control.stop, beside, open: &open };
        let Driven { tally, during, broker, measured } = drive_all(&run, &names, &api, &board, control)?;
        let points = board.series.into_inner().unwrap_or_else(PoisonError::into_inner).into_points();
        Ok::<_, Failure>(Outcome { tally, points, measured, memory: before.zip(during), broker })
    })();
    // However it went, no consumer is left behind, as far as that can be had.
    if let Some(error) = subscribed.iter().find_map(|name| api.unsubscribe(&plan.group, name).err()) {
        eprintln!("warning: consumers {run_name}-… may be left: {error}");
    }
    let outcome = outcome?;
    match &outcome.tally {
        Tally { refusal: Some(words), open: 0, .. } if outcome.tally.sample().requests == 0 => {
            Err(Failure::Refused(words.clone()))
        }
        _ => Ok(outcome),
    }
}

/// What is known beforehand of a run that nobody else tells of.
fn course(plan: &ConsumePlan) -> Course {
    Course {
        target: plan.target.to_string(),
        who: counted(plan.consumers.into(), "consumer", "consumers"),
        time: Some(plan.duration).filter(|_| !plan.until_tail),
        events: None,
        steady: false,
        tui: plan.tui,
    }
}

/// The broker's memory; unknown if it does not tell.
fn resident_bytes(api: &Api) -> Option<u64> {
    Look::take(api).ok().map(|look| look.resident_bytes())
}

/// What all threads together came to.
struct Driven {
    tally: Tally<'static>,
    /// The broker's memory near the end of a run of live readers.
    during: Option<u64>,
    broker: Option<Broker>,
    measured: Duration,
}

/// All threads.
fn drive_all(run: &Run<'_>, names: &[String], api: &Api, board: &Board, control: &Control) -> Result<Driven, Failure> {
    let plan = run.plan;
    let told = run.beside.is_none();
    thread::scope(|scope| {
        let progress = (told && plan.kind != Kind::Idle).then(|| progress::start(scope, course(plan), board, control));
        let watch = plan.watch.then(|| Watch::start(scope, api));
        let workers: Vec<_> = board
            .shelves()
            .zip(0..)
            .map(|(shelf, index)| scope.spawn(move || drive(run, index, names, shelf)))
            .collect();
        let (mut during, mut next) = (None, run.start + LOOK);
        while plan.kind == Kind::Idle && !workers.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(NOTICE);
            if Instant::now() < next {
                continue;
            }
            next += LOOK;
            let open = run.open.load(Ordering::Relaxed);
            if told {
                let [open, all] = [open, plan.consumers.into()].map(grouped);
                eprintln!("{:4} s  {open} of {all} live answers open", run.start.elapsed().as_secs());
            }
            if open == u64::from(plan.consumers) {
                during = resident_bytes(api).or(during);
            }
        }
        let mut tally = Tally::new(Meter::new(run.start, None));
        for worker in workers {
            match worker.join() {
                Ok(driven) => tally.add(driven.map_err(Failure::Local)?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let measured = run.start.elapsed().min(plan.duration);
        let broker = watch.map(|watch| watch.finish(run.start));
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(Driven { tally, during, broker, measured })
    })
}
