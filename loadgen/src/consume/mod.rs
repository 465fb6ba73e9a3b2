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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Api;
use crate::cli::{ConsumeArguments, Output};
use crate::descriptors::make_room;
use crate::flight::Flight;
use crate::process::{Ending, Failure, conduct, exit};
use crate::units::{grouped, rate};
use crate::verdict::Verdict;
use crate::worker::Control;
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
    let outcome = run(plan, &control.stop, None)?;
    let Tally { answer, delivery, ack, examples, refusal, .. } = &outcome.tally;
    examples.iter().for_each(|example| eprintln!("wrong: {example}"));
    refusal.iter().for_each(|refusal| eprintln!("refused: {refusal}"));
    let ending = Ending {
        text: summary::text(plan, &outcome),
        summary: summary::json(plan, &outcome),
        clocks: vec![("answer", answer), ("delivery", delivery), ("ack", ack)],
        points: &[],
        began,
        code: if outcome.tally.verdict().0 == Verdict::Incorrect { exit::FAILED } else { 0 },
    };
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    Ok(ending.tell(output, out, &api, control))
}

/// Runs the plan, beside producers or alone. Beside others it ends when `stop` is set, and is quiet.
pub(crate) fn run(plan: &ConsumePlan, stop: &AtomicBool, beside: Option<&Beside<'_>>) -> Result<Outcome, Failure> {
    make_room(plan.consumers.into())?;
    let address = plan.target.reach(plan.timeout).map_err(|error| Failure::unreachable(&plan.target, &error))?;
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
