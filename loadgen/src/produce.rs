//! The `produce` profile from its first request to its exit code: set up, drive, read back, judge, print.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use signal_hook::consts::{SIGINT, SIGTERM};
use thiserror::Error;

use crate::api::{Api, ApiError};
use crate::cli::{Output, ProduceArguments};
use crate::descriptors::make_room;
use crate::find::find_max;
use crate::flight::Flight;
use crate::plan::Plan;
use crate::progress::{self, Board};
use crate::record::Sample;
use crate::report;
use crate::request::Requests;
use crate::results::{Results, Verification, merge};
use crate::summary;
use crate::verdict::Verdict;
use crate::verify::verify;
use crate::worker::{Control, Ended, Gate, Report, Run, drive};

/// Exit codes; 0 is success.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const UNREACHABLE: u8 = 3;
    pub(crate) const REFUSED: u8 = 4;
    pub(crate) const MISSED: u8 = 99;
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// What else goes on in the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Company<'f> {
    /// Where sends are noted for consumers of the same run.
    pub flight: Option<&'f Flight>,
    /// Whether another part of the run tells the progress.
    pub quiet: bool,
}

/// Why a run has no results.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nobody listens.
    #[error("cannot reach {url}: {cause}\n  is the broker running? start one with: eddyline dev")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        cause: String,
    },
    /// The broker wants none of it.
    #[error("the broker refused the load: {0}")]
    Refused(String),
    /// A request before the load failed.
    #[error(transparent)]
    Setup(#[from] ApiError),
    /// The generator's own trouble.
    #[error("the generator cannot go on: {0}\n  with many connections, raise the limit: ulimit -n 65536")]
    Local(#[from] std::io::Error),
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &ProduceArguments) -> ExitCode {
    let mut plan = match arguments.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}\n  for all options: loadgen produce --help");
            return exit::USAGE.into();
        }
    };
    let began = Timestamp::now();
    let control = Control::default();
    if let Err(error) = stop_on_signals(&control.stop) {
        eprintln!("warning: signals end the run without a summary: {error}");
    }
    let ran = if arguments.find_max {
        let guess = arguments.rate.map(|rate| rate as f64);
        find_max(&mut plan, arguments.arrivals, guess, &control).map(|found| {
            eprintln!("{}", found.sentence());
            let missed = if found.met.is_some() { found.code } else { exit::MISSED };
            (found.results, if found.code == 0 { missed } else { found.code })
        })
    } else {
        run(&plan, &control)
    };
    match ran {
        Ok((results, code)) => conclude(&plan, &results, code, arguments, began, &control),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code().into()
        }
    }
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

/// A run's code, or that of an interrupt if nothing worse happened.
pub(crate) fn exit_code(code: u8, control: &Control) -> u8 {
    let interrupted = code == 0 && control.stop.load(Ordering::Relaxed);
    if interrupted { exit::INTERRUPTED } else { code }
}

/// Prints the summary, leaves the report if one is asked for, and says how the process ends.
pub(crate) fn conclude(
    plan: &Plan,
    results: &Results,
    code: u8,
    arguments: &ProduceArguments,
    began: Timestamp,
    control: &Control,
) -> ExitCode {
    tell_faults(results);
    summary::stage_lines(plan, results).iter().for_each(|line| eprintln!("{line}"));
    let summary = summary::json(plan, results);
    match arguments.output {
        Output::Text => println!("{}", summary::text(plan, results)),
        Output::Json => println!("{summary}"),
    }
    let exit_code = exit_code(code, control);
    let Sample { response, service, send_lag, .. } = &results.sample;
    let delivered = results.delivered.as_ref().map(|delivered| ("end-to-end", &delivered.end_to_end));
    let clocks = [("response", response), ("service", service), ("send-lag", send_lag)].into_iter().chain(delivered);
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    leave(arguments.out.as_deref(), &api, exit_code, |broker_version| report::Report {
        summary,
        clocks: clocks.collect(),
        points: &results.points,
        began,
        broker_version,
        exit_code,
    })
}

/// Writes a report, if there is a directory for it, and ends with the code, or with that of a failure to write.
pub(crate) fn leave<'r>(
    out: Option<&Path>,
    api: &Api,
    code: u8,
    report: impl FnOnce(Option<String>) -> report::Report<'r>,
) -> ExitCode {
    let written = out.map_or(Ok(()), |out| report::Folder::open(out)?.write(&report(api.version())));
    match written {
        Ok(()) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            exit::FAILED.into()
        }
    }
}

/// The first signal ends the load and leaves verification and summary; the second ends the process.
pub(crate) fn stop_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the shutdown looks at the flag before this signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
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
    let address = plan.target.reach(plan.timeout).map_err(|error| Failure::unreachable(plan, &error))?;
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    let bases = set_up(plan, &api)?;
    let requests = Requests::new(plan);
    let board = Board::new(plan.threads);
    let gate = Gate::new(plan.threads);
    let load = Run { plan, requests: &requests, address, gate: &gate, flight: company.flight, control };
    thread::scope(|scope| {
        let progress = (!company.quiet).then(|| progress::start(scope, plan, &board, control));
        let outcome = load_and_verify(load, &board, &api, bases);
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

fn load_and_verify<'p>(load: Run<'p>, board: &'p Board, api: &Api, bases: Vec<u64>) -> Result<(Results, u8), Failure> {
    let reports = drive_all(load, board)?;
    if let Some(words) = reports.iter().find_map(|report| match &report.ended {
        Ended::Refused(words) => Some(words.clone()),
        Ended::Done | Ended::Silent => None,
    }) {
        return Err(Failure::Refused(words));
    }
    let points = std::mem::take(&mut *board.series.lock().unwrap_or_else(PoisonError::into_inner)).into_points();
    let (mut results, beliefs) = merge(reports, bases, points);
    let mut code = 0;
    if load.plan.verify {
        board.to_read.store(results.acked_events, Ordering::Relaxed);
        board.verifying.store(true, Ordering::Relaxed);
        results.verification = match verify(load.plan, api, beliefs, &board.read_back) {
            Ok(findings) => Verification::Done(findings),
            Err(error) => {
                code = error_code(&error);
                Verification::Unfinished(error.to_string())
            }
        };
    }
    if results.verdict().0 == Verdict::Incorrect || results.refused > 0 {
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

fn error_code(error: &ApiError) -> u8 {
    match error {
        ApiError::Unreachable(_) => exit::UNREACHABLE,
        ApiError::Refused { .. } => exit::REFUSED,
        ApiError::Unusable { .. } => exit::FAILED,
    }
}

impl Failure {
    pub(crate) fn unreachable(plan: &Plan, error: &std::io::Error) -> Failure {
        Failure::Unreachable { url: plan.target.to_string(), cause: error.to_string() }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Unreachable { .. } => exit::UNREACHABLE,
            Failure::Refused(_) => exit::REFUSED,
            Failure::Setup(error) => error_code(error),
            Failure::Local(_) => exit::FAILED,
        }
    }
}
