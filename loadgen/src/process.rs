//! What every profile does around its run: complain about arguments, listen to signals, print the summary, leave the
//! report, and say how the process ends.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;

use crate::api::{Api, ApiError};
use crate::broker::Broker;
use crate::cli::{Output, UsageError};
use crate::report::{Folder, Part, Report};
use crate::target::Target;
use crate::worker::Control;

/// Signals this close to the first are the same one, sent twice: `timeout`, for one, tells a process and then its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Exit codes; 0 is success.
pub mod exit {
    /// Incorrect, or not finished.
    pub const FAILED: u8 = 1;
    /// Arguments that make no run.
    pub const USAGE: u8 = 2;
    /// Nobody listens.
    pub const UNREACHABLE: u8 = 3;
    /// The broker wants none of it.
    pub const REFUSED: u8 = 4;
    /// An objective was missed.
    pub const MISSED: u8 = 99;
    /// A signal ended the load.
    pub const INTERRUPTED: u8 = 130;
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

impl Failure {
    /// Nobody listens there.
    pub fn unreachable(target: &Target, error: &std::io::Error) -> Failure {
        Failure::Unreachable { url: target.to_string(), cause: error.to_string() }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Unreachable { .. } => exit::UNREACHABLE,
            Failure::Refused(_) => exit::REFUSED,
            Failure::Setup(error) => api_code(error),
            Failure::Local(_) => exit::FAILED,
        }
    }
}

/// The exit code of a run that ends with such an answer.
pub fn api_code(error: &ApiError) -> u8 {
    match error {
        ApiError::Unreachable(_) => exit::UNREACHABLE,
        ApiError::Refused { .. } => exit::REFUSED,
        ApiError::Unusable { .. } => exit::FAILED,
    }
}

/// Runs a profile from its checked arguments to the exit code of the process.
pub fn conduct<P>(
    profile: &str,
    plan: Result<P, UsageError>,
    run: impl FnOnce(P, &Control) -> Result<u8, Failure>,
) -> ExitCode {
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}\n  for all options: loadgen {profile} --help");
            return exit::USAGE.into();
        }
    };
    let control = Control::default();
    if let Err(error) = stop_on_signals(&control.stop) {
        eprintln!("warning: signals end the run without a summary: {error}");
    }
    let code = run(plan, &control).unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        failure.exit_code()
    });
    code.into()
}

/// The first signal ends the load and leaves verification and summary; one after it ends the process.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    let (mut signals, stop) = (Signals::new([SIGINT, SIGTERM])?, Arc::clone(stop));
    std::thread::spawn(move || {
        let mut first = None;
        for _ in &mut signals {
            let since = *first.get_or_insert_with(Instant::now);
            if stop.swap(true, Ordering::Relaxed) && since.elapsed() > SAME_SIGNAL {
                std::process::exit(exit::INTERRUPTED.into());
            }
        }
    });
    Ok(())
}

/// What a run came to, ready to be told.
pub struct Ending<'r> {
    /// The summary for people.
    pub text: String,
    /// The summary for programs.
    pub summary: Value,
    /// The clocks of the run itself, and of other parts of it.
    pub parts: Vec<Part<'r>>,
    /// What the broker told of itself meanwhile, if it was asked.
    pub broker: Option<&'r Broker>,
    /// When it began.
    pub began: Timestamp,
    /// How the process ends, unless it was interrupted.
    pub code: u8,
}

impl Ending<'_> {
    /// Prints the summary and leaves the report, if there is a directory for it. Gives the exit code: that of the run, or
    /// if nothing worse happened that of an interrupt, or that of a failure to tell.
    pub fn tell(self, output: Output, out: Option<&Path>, api: &Api, control: &Control) -> u8 {
        let Ending { text, summary, parts, broker, began, code } = self;
        broker.iter().for_each(|broker| eprintln!("{}", broker.line()));
        let printed = match output {
            Output::Text => writeln!(std::io::stdout(), "{text}"),
            Output::Json => writeln!(std::io::stdout(), "{summary}"),
        };
        let interrupted = code == 0 && control.stop.load(Ordering::Relaxed);
        let exit_code = if interrupted { exit::INTERRUPTED } else { code };
        let written = out.map_or(Ok(()), |out| {
            let broker_version = api.version();
            Folder::open(out)?.write(&Report { summary, parts, broker, began, broker_version, exit_code })
        });
        let failures =
            [printed.err().map(|error| format!("stdout: {error}")), written.err().map(|error| error.to_string())];
        failures.into_iter().flatten().fold(exit_code, |_, failure| {
            eprintln!("error: {failure}");
            exit::FAILED
        })
    }
}
