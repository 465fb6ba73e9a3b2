//! The command line: what each command takes, what it prints, and how it ends. Data goes to stdout, talk to stderr;
//! exit codes are those of [`Exit`], and 130 when interrupted. What a broker does is left to `server`; client commands
//! know it only over HTTP.

mod batches;
mod client;
mod consumer;
mod dev;
mod escape;
mod event;
mod failure;
mod flags;
mod group;
mod logging;
mod notify;
mod output;
mod position;
mod produce;
mod query;
mod repair;
mod sender;
mod serve;
mod settings;
mod startup;
mod status;
mod tail;
mod token;
mod top;
mod trouble;
mod verify;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use signal_hook::consts::SIGINT;

pub use failure::{Exit, Failure, INTERRUPTED};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline dev                            a broker to try things with
  eddyline produce orders '{\"id\":1}' --create
  eddyline tail orders -f

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 broker unreachable, 4 refused by the broker,
130 interrupted. Client commands use --url, or EDDYLINE_URL, or http://127.0.0.1:4437.";

/// An event-log broker: durable HTTP ingest, history and live events on one cursor
#[derive(Debug, Parser)]
#[command(name = "eddyline", version, after_help = EXAMPLES, max_term_width = 110)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Serve(serve::Serve),
    Produce(produce::Produce),
    Tail(tail::Tail),
    Query(query::Query),
    Group(group::Group),
    Token(token::Token),
    Consumer(consumer::Consumer),
    Status(status::Status),
    Top(top::Top),
    Verify(verify::Verify),
    Repair(repair::Repair),
    Config(settings::Settings),
    /// Print completions for a shell
    #[command(after_help = "EXAMPLES\n  eddyline completions bash > /etc/bash_completion.d/eddyline")]
    Completions {
        /// Shell
        shell: Shell,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help goes to stdout, which may be closed already; the exit code says enough then.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    match run(line.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        // Brokers end by their own drain, `produce` with its tally; `tail` leaves its session, `top` the terminal.
        Command::Dev(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Produce(command) => command.run(),
        Command::Tail(command) => command.run(),
        Command::Top(command) => command.run(),
        Command::Query(command) => interruptible(|| command.run()),
        Command::Group(command) => interruptible(|| command.run()),
        Command::Token(command) => interruptible(|| command.run()),
        Command::Consumer(command) => interruptible(|| command.run()),
        Command::Status(command) => interruptible(|| command.run()),
        Command::Verify(command) => interruptible(|| command.run()),
        Command::Repair(command) => interruptible(|| command.run()),
        Command::Config(command) => interruptible(|| command.run()),
        Command::Completions { shell } => interruptible(|| completions(shell)),
    }
}

/// Runs what Ctrl-C may end at any moment, with the exit code that scripts know it by.
fn interruptible(command: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED, always)
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?;
    command()
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "eddyline", &mut script);
    output::whole(&String::from_utf8_lossy(&script))
}
