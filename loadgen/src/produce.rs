//! The `produce` profile from its first request to its exit code: set up, drive, read back, judge, print.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Api;
use crate::broker::Watch;
use crate::cli::ProduceArguments;
use crate::descriptors::make_room;
use crate::find::find_max;
use crate::flight::Flight;
use crate::plan::Plan;
use crate::process::{Ending, Failure, api_code, conduct, exit};
use crate::progress::{self, Board, Course};
use crate::report::Part;
use crate::request::Requests;
use crate::results::{Results, Verification, merge};
use crate::sample::Clock;
use crate::summary;
use crate::verdict::Verdict;
use crate::verify::verify;
use crate::worker::{Control, Ended, Gate, Report, Run, drive};

/// What else goes on in the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Company<'f> {
    /// Where sends are noted for consumers of the same run.
    pub flight: Option<&'f Flight>,
    /// Where they are told when the measured part begins.
    pub from: Option<&'f OnceLock<Instant>>,
    /// Whether another part of the run tells the progress.
    pub quiet: bool,
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &ProduceArguments) -> ExitCode {
    conduct("produce", arguments.plan(), |mut plan, control| {
        let began = Timestamp::now();
        let (results, code) = if arguments.find_max {
            let guess = arguments.rate.map(|rate| rate as f64);
            let found = find_max(&mut plan, arguments.arrivals, guess, control)?;
            eprintln!("{}", found.sentence());
            let code = match (found.code, found.met) {
                // What was cut short missed nothing.
                (0 | exit::MISSED, None) if control.stop.load(Ordering::Relaxed) => 0,
                (0, None) => exit::MISSED,
                (code, _) => code,
            };
            (found.results, code)
        } else {
            run(&plan, control)?
        };
        Ok(conclude(&plan, &results, code, arguments, began, control))
    })
}

/// Says on stderr what was wrong first.
pub(crate) fn tell_faults(results: &Results) {
    for example in results.examples() {
        eprintln!("wrong: {example}");
    }
    if let Some(refusal) = &results.first_refusal {
        eprintln!("refused: {refusal}");
    }
}

/// Tells what a run came to, and gives the exit code.
pub(crate) fn conclude(
    plan: &Plan,
    results: &Results,
    code: u8,
    arguments: &ProduceArguments,
    began: Timestamp,
    control: &Control,
) -> u8 {
    tell_faults(results);
    summary::stage_lines(plan, results).iter().for_each(|line| eprintln!("{line}"));
    let ending = Ending {
        text: summary::text(plan, results),
        summary: summary::json(plan, results),
        parts: vec![part("", results)],
        broker: results.broker.as_ref(),
        began,
        code,
    };
    ending.tell(arguments.output, arguments.out.as_deref(), &Api::of(plan), control)
}

/// What clocks of a load showed, for the report.
pub(crate) fn part<'r>(name: &'static str, results: &'r Results) -> Part<'r> {
    let clocks: &[Clock] = if results.delivered.is_some() {
        &[Clock::Response, Clock::Service, Clock::SendLag, Clock::EndToEnd, Clock::Answer, Clock::Delivery]
    } else {
        &[Clock::Response, Clock::Service, Clock::SendLag]
    };
    Part { name, clocks, times: &results.sample.times, points: &results.points }
}

/// Runs the plan. The code is that of the process, unless it was interrupted.
///
/// # Errors
/// When there are no results.
pub fn run(plan: &Plan, control: &Control) -> Result<(Results, u8), Failure> {
    run_beside(plan, control, Company::default())
}

/// The same, in company.
///
/// # Errors
/// When there are no results.
pub fn run_beside(plan: &Plan, control: &Control, company: Company<'_>) -> Result<(Results, u8), Failure> {
    make_room(plan.connections.into())?;
    let address = plan.target.reach(plan.timeout).map_err(|error| Failure::unreachable(&plan.target, &error))?;
    let api = Api::of(plan);
    let bases = set_up(plan, &api)?;
    let requests = Requests::new(plan);
    let board = Board::new(plan.threads);
    let gate = Gate::new(plan.threads);
    let Company { flight, from, quiet } = company;
    let load = Run { plan, requests: &requests, address, gate: &gate, flight, from, control };
    thread::scope(|scope| {
        let progress = (!quiet).then(|| progress::start(scope, Course::of(plan), &board, control));
        let watch = plan.watch.then(|| Watch::start(scope, &api));
        let outcome = load_and_verify(load, &board, &api, bases, watch);
        if let Some(progress) = progress {
            progress.finish();
        }
        outcome
    })
}

/// Makes the groups and learns where each ends, so that only what comes after is read back.
fn set_up(plan: &Plan, api: &Api) -> Result<Vec<u64>, Failure> {
    if plan.create {
        for group in &plan.groups {
            api.create_group(group, Duration::ZERO)?;
        }
    }
    let read: &[String] = if plan.verify { &plan.groups } else { &[] };
    read.iter().map(|group| api.tail(group, Duration::ZERO).map_err(Failure::from)).collect()
}

fn load_and_verify<'p>(
    load: Run<'p>,
    board: &'p Board,
    api: &Api,
    bases: Vec<u64>,
    watch: Option<Watch<'_>>,
) -> Result<(Results, u8), Failure> {
    let reports = drive_all(load, board)?;
    let broker = watch.map(|watch| watch.finish(load.gate.start() + load.plan.warmup));
    if let Some(words) = reports.iter().find_map(|report| match &report.ended {
        Ended::Refused(words) => Some(words.clone()),
        Ended::Done | Ended::Silent | Ended::Stuck(_) => None,
    }) {
        return Err(Failure::Refused(words));
    }
    let points = std::mem::take(&mut *board.series.lock().unwrap_or_else(PoisonError::into_inner)).into_points();
    let (mut results, beliefs) = merge(reports, bases, points);
    results.broker = broker;
    let mut code = 0;
    if load.plan.verify {
        board.to_read.store(results.acked_events, Ordering::Relaxed);
        board.verifying.store(true, Ordering::Relaxed);
        results.verification = match verify(load.plan, api, beliefs, &board.read_back) {
            Ok(findings) => Verification::Done(findings),
            Err(error) => {
                code = api_code(&error);
                Verification::Unfinished(error.to_string())
            }
        };
    }
    let incorrect = results.verdict().0 == Verdict::Incorrect;
    if results.stuck.is_some() && !incorrect {
        code = exit::REFUSED;
    } else if incorrect || results.refused > 0 || results.acked_events == 0 && results.unknown > 0 {
        code = exit::FAILED;
    } else if code == 0 && results.silent {
        code = exit::UNREACHABLE;
    } else if code == 0 && !results.objectives(load.plan).iter().all(|objective| objective.met) {
        code = exit::MISSED;
    }
    Ok((results, code))
}

fn drive_all<'p>(load: Run<'p>, board: &'p Board) -> Result<Vec<Report<'p>>, Failure> {
    thread::scope(|scope| {
        let workers: Vec<_> = board
            .shelves()
            .zip(0..)
            .map(|(shelf, index)| {
                scope.spawn(move || {
                    // Whoever fails ends the run for all: half a load would be measured as a whole one.
                    drive(load, index, shelf).inspect_err(|_| load.control.abort.store(true, Ordering::Relaxed))
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| match worker.join() {
                Ok(report) => report.map_err(Failure::Local),
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
