//! Arguments of the profiles that produce and consume: `e2e`, `catchup` and `mixed`.

use std::time::Duration;

use clap::{Arg, Args};

use super::{CONSUMERS_MAX, ProduceArguments, UsageError};
use crate::consume::plan::{ConsumePlan, Kind};
use crate::mixed::Parts;
use crate::plan::{Extent, Plan};
use crate::units::{parse_count, parse_duration};

/// Longer than any run; consumers beside producers end when those do.
const NO_END: Duration = Duration::from_secs(365 * 24 * 3600);

/// Events in a page's request.
const BROWSER_BATCH: u32 = 10;

/// Events that `catchup` fills in unless told otherwise.
const FILL: u64 = 1_000_000;

const E2E_EXAMPLES: &str = "\
Examples:
  loadgen e2e --group load --rate 20k -c 256 -d 1m
      how long 20 000 events a second take from their planned send into a consumer's hands
  loadgen e2e --group load --rate 5k --consumers 10 --slo 'p99<2ms'
      ten consumers that all get everything; exit code 99 unless 99 of 100 events take less than 2 ms

Every event must come to every consumer once and in order, else the verdict is INCORRECT and the exit code 1.";

const CATCHUP_EXAMPLES: &str = "\
Examples:
  loadgen catchup --group load -n 5M -b 1000 --format binary -s 100B
      fills in five million events, then one consumer reads all of them
  loadgen catchup --group load -n 1M -b 1000 --consumers 100
      a hundred consumers read a million events each

The summary is that of the reading, and --slo is about its answers; that of the filling goes to stderr.";

const MIXED_EXAMPLES: &str = "\
Examples:
  loadgen mixed --group load -c 8 --rate 10k -b 100 --browsers 200 --consumers 4 --observers 50
      eight services post 10 000 events a second in batches of 100, 200 pages ten a second each,
      four consumers read all of it, fifty observers watch and ask for the last seconds every two seconds

Every part is verified by itself; the verdict is the gravest of them, and --slo is about the services.";

/// Consumers beside producers.
#[derive(Args, Debug)]
pub struct Readers {
    /// Consumers, a connection each.
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_count)]
    pub consumers: u64,
    /// Threads that share the consumers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub consumer_threads: u32,
    /// Events of one answer at most.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max: u32,
}

/// Arguments of `loadgen e2e`.
#[derive(Args, Debug)]
#[command(after_help = E2E_EXAMPLES, mut_args(of_one_group))]
pub struct E2eArguments {
    /// What is sent.
    #[command(flatten)]
    pub produce: ProduceArguments,
    /// Who reads it.
    #[command(flatten)]
    pub readers: Readers,
}

/// Arguments of `loadgen catchup`.
#[derive(Args, Debug)]
#[command(after_help = CATCHUP_EXAMPLES, mut_args(of_one_group))]
pub struct CatchupArguments {
    /// What is filled in.
    #[command(flatten)]
    pub produce: ProduceArguments,
    /// Who reads it.
    #[command(flatten)]
    pub readers: Readers,
}

/// Arguments of `loadgen mixed`.
#[derive(Args, Debug)]
#[command(after_help = MIXED_EXAMPLES, mut_args(of_one_group))]
pub struct MixedArguments {
    /// What services send.
    #[command(flatten)]
    pub produce: ProduceArguments,
    /// Who reads it.
    #[command(flatten)]
    pub readers: Readers,
    /// Pages that post a batch of 10 events a second each, as with --browser-like.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub browsers: u32,
    /// Live readers at the tail, without a position, who query as well.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub observers: u32,
    /// Time between two queries of an observer.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    pub query_every: Duration,
}

impl MixedArguments {
    /// Checks the arguments: what every part does.
    ///
    /// # Errors
    /// When they make no plan.
    pub fn parts(&self) -> Result<Parts, UsageError> {
        if self.produce.browser_like {
            return Err(UsageError::Together("--browser-like", "mixed, which has --browsers"));
        }
        let services = one_group(&ProduceArguments { origin: None, ..self.produce.clone() })?;
        let Some(length) = services.time() else {
            return Err(UsageError::Together("a number of events", "mixed, whose parts end together"));
        };
        let browsers = ProduceArguments {
            browser_like: true,
            connections: self.browsers,
            batch: BROWSER_BATCH,
            threads: 1,
            pipeline: 1,
            // Another seed, so that neither takes the other's events for its own.
            seed: Some(services.seed.wrapping_add(1)),
            duration: Some(length),
            rate: None,
            stages: None,
            keys: None,
            payload: None,
            producer_id: None,
            producer_epoch: None,
            slo: Vec::new(),
            out: None,
            ..self.produce.clone()
        };
        let consumers = self.readers.plan(&services, "latest", false)?;
        if self.query_every.is_zero() {
            return Err(UsageError::Zero("query-every"));
        }
        let observers = ConsumePlan { kind: Kind::Idle, consumers: self.observers, threads: 1, ..consumers.clone() };
        let queries = ConsumePlan { kind: Kind::Query { every: self.query_every }, ..observers.clone() };
        Ok(Parts { services, browsers: browsers.plan()?, consumers, observers, queries })
    }
}

impl E2eArguments {
    /// Checks the arguments: what is sent, and who reads it.
    ///
    /// # Errors
    /// When they make no plan.
    pub fn plan(&self) -> Result<(Plan, ConsumePlan), UsageError> {
        if self.produce.payload.is_some() {
            return Err(UsageError::Together("--payload", "e2e, which knows events by what generated ones say"));
        }
        let plan = one_group(&self.produce)?;
        let readers = self.readers.plan(&plan, "latest", false)?;
        Ok((plan, readers))
    }
}

impl CatchupArguments {
    /// Checks the arguments: what is filled in, and who reads it.
    ///
    /// # Errors
    /// When they make no plan.
    pub fn plan(&self) -> Result<(Plan, ConsumePlan), UsageError> {
        let mut plan = one_group(&self.produce)?;
        if self.produce.duration.is_none() && self.produce.stages.is_none() && plan.time().is_some() {
            plan.extent = Extent::Events(FILL);
        }
        let mut readers = self.readers.plan(&plan, "earliest", true)?;
        // The run that is judged, drawn and looked at is that of the readers.
        readers.objectives = std::mem::take(&mut plan.objectives);
        (readers.tui, readers.watch) = (plan.tui, std::mem::take(&mut plan.watch));
        Ok((plan, readers))
    }
}

/// Leaves out of the help what [`one_group`] refuses.
fn of_one_group(argument: Arg) -> Arg {
    let refused = ["groups", "find_max"].contains(&argument.get_id().as_str());
    if refused { argument.hide(true) } else { argument }
}

/// The plan of a load for one group, in one run.
fn one_group(arguments: &ProduceArguments) -> Result<Plan, UsageError> {
    match (arguments.groups.is_some(), arguments.find_max) {
        (true, _) => Err(UsageError::Together("--groups", "consumers, who read one group")),
        (_, true) => Err(UsageError::Together("--find-max", "consumers")),
        _ => arguments.plan(),
    }
}

impl Readers {
    fn plan(&self, plan: &Plan, start: &str, until_tail: bool) -> Result<ConsumePlan, UsageError> {
        let consumers = u32::try_from(self.consumers).ok().filter(|count| *count <= CONSUMERS_MAX);
        let consumers = consumers.ok_or(UsageError::Consumers(self.consumers))?;
        Ok(ConsumePlan {
            target: plan.target.clone(),
            token: plan.token.clone(),
            group: plan.groups[0].clone(),
            kind: Kind::Read,
            consumers,
            threads: self.consumer_threads.min(consumers),
            start: start.to_owned(),
            events_max: self.max,
            bytes_max: 1 << 20,
            duration: NO_END,
            until_tail,
            timeout: plan.timeout,
            objectives: Vec::new(),
            tui: false,
            watch: false,
        })
    }
}
