//! The `consume` profile: consumers of one group that read, ack or only listen.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Api;
use crate::cli::{ConsumeArguments, Output};
use crate::descriptors::make_room;
use crate::flight::Flight;
use crate::produce::{Failure, exit, leave, stop_on_signals};
use crate::report::Report;
use crate::units::{grouped, rate};
use crate::verdict::Verdict;
use plan::{ConsumePlan, Kind};
use tally::Tally;
use worker::{Run, drive};

/// What a run brought.
pub struct Outcome {
    pub(crate) tally: Tally,
    measured: Duration,
    /// The broker's resident memory before, and while all live answers were open.
    memory: Option<(u64, u64)>,
}

/// What consumers share with producers of the same run.
pub(crate) struct Beside<'f> {
    /// When what they are given was planned to be sent.
    pub(crate) flight: Option<&'f Flight>,
    /// Set once all are subscribed.
    pub(crate) subscribed: AtomicBool,
    /// Events given so far, to all together.
    pub(crate) events: AtomicU64,
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &ConsumeArguments) -> ExitCode {
    let plan = match arguments.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}\n  for all options: loadgen consume --help");
            return exit::USAGE.into();
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    if let Err(error) = stop_on_signals(&stop) {
        eprintln!("warning: signals end the run without a summary: {error}");
    }
    conclude(&plan, &stop, arguments.output, arguments.out.as_deref())
}

/// The summary for programs.
pub(crate) fn json(plan: &ConsumePlan, outcome: &Outcome) -> serde_json::Value {
    summary::json(plan, outcome)
}

/// Runs a plan, prints its summary and leaves its report.
pub(crate) fn conclude(plan: &ConsumePlan, stop: &AtomicBool, output: Output, out: Option<&Path>) -> ExitCode {
    let began = Timestamp::now();
    match run(plan, stop, None) {
        Ok(outcome) => {
            outcome.tally.examples.iter().for_each(|example| eprintln!("wrong: {example}"));
            outcome.tally.refusal.iter().for_each(|refusal| eprintln!("refused: {refusal}"));
            let summary = summary::json(plan, &outcome);
            match output {
                Output::Text => println!("{}", summary::text(plan, &outcome)),
                Output::Json => println!("{summary}"),
            }
            let exit_code = match outcome.tally.verdict().0 {
                Verdict::Incorrect => exit::FAILED,
                _ if stop.load(Ordering::Relaxed) => exit::INTERRUPTED,
                _ => 0,
            };
            let Tally { answer, delivery, ack, .. } = &outcome.tally;
            let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
            leave(out, &api, exit_code, |broker_version| Report {
                summary,
                clocks: vec![("answer", answer), ("delivery", delivery), ("ack", ack)],
                points: &[],
                began,
                broker_version,
                exit_code,
            })
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code().into()
        }
    }
}

/// Runs the plan, beside producers or alone. Beside others it ends when `stop` is set, and is quiet.
pub(crate) fn run(plan: &ConsumePlan, stop: &AtomicBool, beside: Option<&Beside<'_>>) -> Result<Outcome, Failure> {
    make_room(plan.consumers.into())?;
    let unreachable =
        |error: std::io::Error| Failure::Unreachable { url: plan.target.to_string(), cause: error.to_string() };
    let address = plan.target.reach(plan.timeout).map_err(unreachable)?;
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    let run_name = format!("loadgen-{:06x}", fastrand::u32(..1 << 24));
    let names: Vec<String> = (0..plan.consumers).map(|number| format!("{run_name}-{number}")).collect();
    let subscribed = if plan.kind == Kind::Idle { &[] } else { &names[..] };
    for name in subscribed {
        api.subscribe(&plan.group, name, &plan.start)?;
    }
    let before = if plan.kind == Kind::Idle { Some(api.resident_bytes()?) } else { None };
    let (events, open) = (AtomicU64::new(0), AtomicU64::new(0));
    let (events, flight) = beside.map_or((&events, None), |beside| (&beside.events, beside.flight));
    if let Some(beside) = beside {
        beside.subscribed.store(true, Ordering::Release);
    }
    let run = Run { plan, address, start: Instant::now(), stop, flight, events, open: &open };
    let (tally, during) = drive_all(&run, &names, &api, beside.is_some())?;
    let measured = run.start.elapsed().min(plan.duration);
    for name in subscribed {
        api.unsubscribe(&plan.group, name)?;
    }
    Ok(Outcome { tally, measured, memory: before.zip(during) })
}

/// All threads, and a line of progress a second. Gives what they counted, and the broker's memory near the end.
fn drive_all(run: &Run<'_>, names: &[String], api: &Api, quiet: bool) -> Result<(Tally, Option<u64>), Failure> {
    thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        let workers: Vec<_> = (0..run.plan.threads)
            .map(|index| {
                let end = end.clone();
                scope.spawn(move || {
                    let driven = drive(run, index, names);
                    drop(end);
                    driven
                })
            })
            .collect();
        drop(end);
        let (mut told, mut during) = (0, None);
        while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            let (events, open) = (run.events.load(Ordering::Relaxed), run.open.load(Ordering::Relaxed));
            let seconds = run.start.elapsed().as_secs();
            match run.plan.kind {
                Kind::Idle => {
                    let all = grouped(run.plan.consumers.into());
                    if !quiet {
                        eprintln!("{seconds:4} s  {} of {all} live answers open", grouped(open));
                    }
                    if open == u64::from(run.plan.consumers) {
                        during = Some(api.resident_bytes()?);
                    }
                }
                _ if quiet => {}
                _ => eprintln!("{seconds:4} s  {} events/s  {} events", rate((events - told) as f64), grouped(events)),
            }
            told = events;
        }
        let mut sum = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(tally) => sum.add(tally.map_err(Failure::Local)?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok((sum, during))
    })
}
