//! The `catchup` profile: fills a group and then lets consumers read all of it, from its first new event to its tail. The
//! summary is that of the reading; the filling is told on stderr.

use std::process::ExitCode;
use std::time::Duration;

use crate::api::{Api, ApiError};
use crate::cli::CatchupArguments;
use crate::consume;
use crate::plan::Plan;
use crate::produce::{Failure, exit, run, stop_on_signals, tell_faults};
use crate::summary;
use crate::worker::Control;

/// Runs the profile and says how the process ends.
pub fn main(arguments: &CatchupArguments) -> ExitCode {
    let (plan, mut readers) = match arguments.plan() {
        Ok(plans) => plans,
        Err(error) => {
            eprintln!("error: {error}\n  for all options: loadgen catchup --help");
            return exit::USAGE.into();
        }
    };
    let control = Control::default();
    if let Err(error) = stop_on_signals(&control.stop) {
        eprintln!("warning: signals end the run without a summary: {error}");
    }
    let filled = start_of(&plan).map_err(Failure::from).and_then(|start| {
        readers.start = start;
        run(&plan, &control)
    });
    match filled {
        Ok((results, 0)) => {
            eprintln!("{}", summary::text(&plan, &results));
            consume::conclude(&readers, &control.stop, arguments.produce.output, arguments.produce.out.as_deref())
        }
        Ok((results, code)) => {
            tell_faults(&results);
            eprintln!("{}", summary::text(&plan, &results));
            code.into()
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code().into()
        }
    }
}

/// The offset that the first event of the run gets.
fn start_of(plan: &Plan) -> Result<String, ApiError> {
    let api = Api::new(&plan.target, plan.token.as_deref(), plan.timeout);
    if plan.create {
        api.create_group(&plan.groups[0], Duration::ZERO)?;
    }
    Ok(api.tail(&plan.groups[0], Duration::ZERO)?.to_string())
}
