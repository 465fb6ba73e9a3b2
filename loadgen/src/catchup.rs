//! The `catchup` profile: fills a group and then lets consumers read all of it, from its first new event to its tail. The
//! summary is that of the reading; the filling is told on stderr.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::api::{Api, ApiError};
use crate::cli::CatchupArguments;
use crate::consume;
use crate::plan::Plan;
use crate::process::{conduct, exit};
use crate::produce::{run, tell_faults};
use crate::summary;

/// Runs the profile and says how the process ends.
pub fn main(arguments: &CatchupArguments) -> ExitCode {
    conduct("catchup", arguments.plan(), |(plan, mut readers), control| {
        readers.start = start_of(&plan)?;
        let (results, code) = run(&plan, control)?;
        if code != 0 {
            tell_faults(&results);
        }
        eprintln!("{}", summary::text(&plan, &results));
        match code {
            0 if control.stop.load(Ordering::Relaxed) => Ok(exit::INTERRUPTED),
            0 => consume::conclude(&readers, control, arguments.produce.output, arguments.produce.out.as_deref()),
            code => Ok(code),
        }
    })
}

/// The offset that the first event of the run gets.
fn start_of(plan: &Plan) -> Result<String, ApiError> {
    let api = Api::of(plan);
    if plan.create {
        api.create_group(&plan.groups[0], Duration::ZERO)?;
    }
    Ok(api.tail(&plan.groups[0], Duration::ZERO)?.to_string())
}
