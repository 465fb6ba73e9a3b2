//! The `loadgen` binary: reads the command line and hands over to the profile asked for.

use std::process::ExitCode;

use clap::Parser;
use loadgen::cli::{Cli, Profile};
use loadgen::{catchup, compare, consume, e2e, mixed, produce, report};

fn main() -> ExitCode {
    match Cli::parse().profile {
        Profile::Produce(arguments) => produce::main(&arguments),
        Profile::Consume(arguments) => consume::main(&arguments),
        Profile::E2e(arguments) => e2e::main(&arguments),
        Profile::Catchup(arguments) => catchup::main(&arguments),
        Profile::Mixed(arguments) => mixed::main(&arguments),
        Profile::Compare(arguments) => compare::main(&arguments),
        Profile::Schema => {
            print!("{}", report::PUBLISHED);
            ExitCode::SUCCESS
        }
    }
}
