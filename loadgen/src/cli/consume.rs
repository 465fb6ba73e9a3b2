//! Arguments of `loadgen consume`, and how they become a plan.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CONSUMERS_MAX, Output, UsageError, check_group, read_token};
use crate::consume::plan::{ConsumePlan, Kind};
use crate::report::Folder;
use crate::slo::Objective;
use crate::target::Target;
use crate::units::{Sizes, parse_count, parse_duration, parse_sizes};

const CONSUME_EXAMPLES: &str = "\
Examples:
  loadgen consume --group load --consumers 1000 --until-tail
      a thousand consumers read the group from its first event to its tail
  loadgen consume --group load --consumers 1 --start latest -d 30s --slo 'p99<1ms'
      one consumer waits at the tail: how long events take from the broker's clock into its hands; exit code 99 if
      one of a hundred takes a millisecond
  loadgen consume --group load --consumers 100 --ack-rate 1000 -d 30s
      a hundred consumers ack one event at a time, a thousand a second in all
  loadgen consume --group load --consumers 5k --idle -d 10s
      five thousand live readers at the tail, and what each of them costs the broker in memory

Consumers are subscribed under new names and removed at the end. Every offset must come once and in order, else the
verdict is INCORRECT and the exit code 1.";

/// Arguments of `loadgen consume`.
#[derive(Args, Debug)]
#[command(after_help = CONSUME_EXAMPLES)]
pub struct ConsumeArguments {
    /// The broker.
    #[arg(long, env = "EDDYLINE_URL", default_value = "http://127.0.0.1:4437")]
    pub url: Target,
    /// Group to read.
    #[arg(long)]
    pub group: String,
    /// Consumers, a connection each.
    #[arg(short, long, default_value = "1", value_parser = parse_count)]
    pub consumers: u64,
    /// Where they begin: a position such as earliest, latest or last:1000.
    #[arg(long, default_value = "earliest")]
    pub start: String,
    /// How long at most.
    #[arg(short, long, default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,
    /// A consumer ends when it has everything.
    #[arg(long)]
    pub until_tail: bool,
    /// Ack one event at a time, so many a second in all, instead of with the next question.
    #[arg(long, value_name = "PER-SECOND", value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with_all = ["until_tail", "idle"])]
    pub ack_rate: Option<u32>,
    /// Only hold live answers open at the tail.
    #[arg(long, conflicts_with_all = ["until_tail", "start"])]
    pub idle: bool,
    /// Events of one answer at most.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max: u32,
    /// Bytes of one answer at most.
    #[arg(long, default_value = "1MiB", value_parser = parse_sizes)]
    pub max_bytes: Sizes,
    /// Threads that share the consumers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Longest wait for one answer.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// An objective such as p99<5ms, may be given several times: of the ack clock with --ack-rate, of the answer clock
    /// with --until-tail, else of the delivery clock. Exit code 99 if one is missed.
    #[arg(long, value_name = "OBJECTIVE", conflicts_with = "idle")]
    pub slo: Vec<Objective>,
    /// Form of the summary on stdout.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Draw rates, times and progress on the whole terminal; q or Ctrl-C ends the run.
    #[arg(long, conflicts_with = "idle")]
    pub tui: bool,
    /// Leave a report in this directory: report.html, report.json, *.hgrm and series.csv. The broker's metrics are in
    /// it, asked for once a second.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// File with the bearer token.
    #[arg(long, value_name = "FILE", env = "EDDYLINE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl ConsumeArguments {
    /// Checks the arguments.
    pub fn plan(&self) -> Result<ConsumePlan, UsageError> {
        check_group(&self.group)?;
        self.out.as_deref().map(Folder::open).transpose()?;
        if self.duration.is_zero() {
            return Err(UsageError::Zero("duration"));
        }
        if self.timeout.is_zero() {
            return Err(UsageError::Zero("timeout"));
        }
        let consumers = u32::try_from(self.consumers).ok().filter(|count| *count <= CONSUMERS_MAX);
        let consumers = consumers.ok_or(UsageError::Consumers(self.consumers))?;
        let kind = match (self.ack_rate, self.idle) {
            (Some(per_second), _) => Kind::Acks { per_second },
            (None, true) => Kind::Idle,
            (None, false) => Kind::Read,
        };
        Ok(ConsumePlan {
            target: self.url.clone(),
            token: self.token_file.as_deref().map(read_token).transpose()?,
            group: self.group.clone(),
            kind,
            consumers,
            threads: self.threads.min(consumers),
            start: self.start.clone(),
            events_max: self.max,
            bytes_max: u64::from(self.max_bytes.most),
            duration: self.duration,
            until_tail: self.until_tail,
            timeout: self.timeout,
            objectives: self.slo.clone(),
            tui: self.tui,
            watch: self.out.is_some(),
        })
    }
}
