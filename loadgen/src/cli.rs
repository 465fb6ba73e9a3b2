//! The command line, and how it becomes a checked plan. Everything that can be wrong with a run before it begins is
//! found here and is exit code 2.

mod both;
mod compare;
mod consume;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use thiserror::Error;

pub use both::{CatchupArguments, E2eArguments, MixedArguments};
pub use compare::CompareArguments;
pub use consume::ConsumeArguments;

use crate::keys::{KEYS_MAX, Keys, Spread};
use crate::payload::{ENTROPY_MAX, EVENT_BYTES_MIN, Generated, Lines, Payload};
use crate::plan::{Extent, Framing, OpenLoop, Plan, Producer};
use crate::report::{Folder, OutError};
use crate::schedule::{Arrivals, Stage};
use crate::slo::Objective;
use crate::target::Target;
use crate::units::{Sizes, parse_count, parse_duration, parse_sizes, parse_stages};

/// Lengths and rates.
type Stages = Vec<(Duration, u64)>;

/// Time of a run that names neither time nor count.
const DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// A repeat is answered with its offsets if it is among the producer's last 64 requests, so no more may be in flight.
const DEDUPLICATED_PIPELINE_MAX: usize = 64;

/// Most connections that one process makes to one address, from 28 000 local ports or so.
const CONSUMERS_MAX: u32 = 28_000;

/// Longest group name that the broker accepts.
const GROUP_NAME_MAX: usize = 120;

const EXAMPLES: &str = "\
Examples:
  loadgen produce --group load -c 64 -d 30s -s 256B
      one event a request over 64 connections for half a minute, then everything is read back
  loadgen produce --group load -c 16 -b 1000 --format binary -s 100B -n 10M
      exactly ten million events in batches of a thousand
  loadgen produce --group lines --payload events.ndjson --once -c 1
      a file's lines, each one event, in their order
  loadgen produce --group load -s 100..1000 --keys 10k --key-spread zipf --entropy 4 --seed 1
      sizes, keys and contents like those of real events, the same ones in each run
  loadgen produce --group load --browser-like -c 1000 -d 1m
      a thousand pages that post ten events a second each
  loadgen produce --group load --producer-id rig -c 8 -d 1m
      deduplicated: lost connections are made again and the same requests repeated
  loadgen produce --group load --rate 20k -c 256 -d 1m
      open loop: 20 000 events a second whatever the broker does, so that nothing it delays is hidden
  loadgen produce --group load --stages 30s:10k,30s:20k --slo 'p99<5ms'
      two rates one after the other; exit code 99 if 99 of 100 answers did not come within 5 ms of their planned send
  loadgen produce --group load --find-max --slo 'p99<5ms' -d 10s
      the highest rate that still meets the objective
  loadgen produce --group load --rate 20k -d 1m --out runs/1
      with a report: report.json, percentiles of each clock, and the run second by second
  taskset -c 1 loadgen produce --group load --no-verify -o json
      on a core of its own, without reading back, for programs

Only the verdicts VALID and OVERLOADED may be quoted. Exit codes: 0 ok, 1 incorrect or failed, 2 usage,
3 broker unreachable, 4 refused by the broker, 99 objective missed, 130 interrupted (the summary is still printed).";

const PROFILES: &str = "\
Examples:
  loadgen produce --group load --rate 20k -c 256 -d 1m
      20 000 events a second, planned ahead; then everything is read back
  loadgen produce --group load --find-max --slo 'p99<5ms' -d 10s
      the highest rate at which 99 of 100 answers come within 5 ms of their planned send
  loadgen e2e --group load --rate 20k --consumers 2
      from the planned send into a consumer's hands

Every profile has its own examples: loadgen PROFILE --help";

/// Load generator for Eddyline: drives the broker, measures, reads back what was acknowledged.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, after_help = PROFILES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub profile: Profile,
}

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub enum Profile {
    /// Post events and read them back.
    Produce(ProduceArguments),
    /// Read a group with many consumers, ack at a rate, or only listen.
    Consume(ConsumeArguments),
    /// Post events and read them at once: how long from planned send to a consumer's hands.
    E2e(E2eArguments),
    /// Fill a group, then let consumers read all of it.
    Catchup(CatchupArguments),
    /// Services, browsers, consumers and observers together.
    Mixed(MixedArguments),
    /// Set two reports beside each other.
    Compare(CompareArguments),
    /// Print what report.json holds, as a JSON schema.
    Schema,
}

/// Where the summary goes to: people or programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A dozen lines.
    Text,
    /// One object.
    Json,
}

/// How a batch is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An array.
    Json,
    /// One JSON value a line.
    Ndjson,
    /// One line of UTF-8 an event.
    Text,
    /// Length-prefixed frames, the fastest.
    Binary,
}

/// Arguments of `loadgen produce`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ProduceArguments {
    /// The broker.
    #[arg(long, env = "EDDYLINE_URL", default_value = "http://127.0.0.1:4437")]
    pub url: Target,
    /// Group to post to.
    #[arg(long)]
    pub group: String,
    /// Post to GROUP-0 … GROUP-(K-1) in turn.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub groups: Option<u32>,
    /// Create the groups first.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true",
          num_args = 0..=1, require_equals = true)]
    pub create: bool,
    /// Keep-alive connections.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// How long to post, after the warm-up [default: 30s, unless a count is given].
    #[arg(short, long, value_parser = parse_duration, conflicts_with_all = ["count", "once"])]
    pub duration: Option<Duration>,
    /// Post exactly this many events in all, such as 10k or 5M.
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_count, conflicts_with = "once")]
    pub count: Option<u64>,
    /// Open loop: events a second in all, such as 50k, each request planned ahead and none skipped [default: closed
    /// loop, as fast as answers come].
    #[arg(short, long, value_name = "EVENTS-PER-SECOND", value_parser = parse_count)]
    pub rate: Option<u64>,
    /// Open loop with stages, such as 30s:10k,30s:20k: so long, so many events a second.
    #[arg(long, value_name = "TIME:RATE,…", value_parser = parse_stages,
          conflicts_with_all = ["rate", "duration", "count", "once", "warmup"])]
    pub stages: Option<Stages>,
    /// An objective such as p99<5ms, may be given several times: of the response clock, in the closed loop of the
    /// service clock, with `e2e` from end to end, with `catchup` of the reading's answers. Exit code 99 if one is missed.
    #[arg(long, value_name = "OBJECTIVE")]
    pub slo: Vec<Objective>,
    /// Search the highest rate that meets all objectives, beginning at --rate or at half of what the closed loop comes
    /// to; -d is the length of each run.
    #[arg(long, requires = "slo", conflicts_with_all = ["stages", "count", "once"])]
    pub find_max: bool,
    /// How planned requests follow each other.
    #[arg(long, value_enum, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Size of an event, or a range such as 64B..1KiB.
    #[arg(short, long, default_value = "256B", value_parser = parse_sizes, conflicts_with = "payload")]
    pub size: Sizes,
    /// Give events keys, of so many different ones such as 10k: each its own with -b 1 and --format binary, else one a
    /// batch.
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub keys: Option<u64>,
    /// How often each key is taken.
    #[arg(long, value_enum, default_value = "uniform", requires = "keys")]
    pub key_spread: Spread,
    /// Bits of entropy in a byte of a generated event, 0 to 6; and none is like another within 16 MiB, so that
    /// compression gains no more than this [default: 6, from a pool of 64 KiB].
    #[arg(long, value_name = "BITS", conflicts_with = "payload")]
    pub entropy: Option<f64>,
    /// Be pages in browsers: every connection one that posts a batch of 10 a second (-b, --rate) as text/plain with a
    /// producer name of its own in the query.
    #[arg(long, conflicts_with_all = ["format", "pipeline", "keys", "full_answers"])]
    pub browser_like: bool,
    /// Origin of the pages, such as `https://shop.example`; the broker must allow it [default: the broker's own].
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<String>,
    /// Events in a request; 1 posts single events [default: 1, browsers 10].
    #[arg(short, long, hide_default_value = true, default_value_t = 1, default_value_if("browser_like", "true", "10"), value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub batch: u32,
    /// Layout of batches (unused with -b 1).
    #[arg(long, value_enum, default_value = "ndjson")]
    pub format: Format,
    /// Requests in flight on one connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// Threads that share the connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,
    /// Post the lines of this file, in order, from the start again when it ends.
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// Stop at the end of the payload file.
    #[arg(long, requires = "payload")]
    pub once: bool,
    /// Deduplicated: connection n posts as producer NAME-n, and repeats what it got no answer to.
    #[arg(long, value_name = "NAME")]
    pub producer_id: Option<String>,
    /// Epoch of the producers [default: the time in seconds, so that every run begins a new one].
    #[arg(long, value_name = "N", requires = "producer_id")]
    pub producer_epoch: Option<u64>,
    /// Ask for full answers instead of `Prefer: return=minimal`.
    #[arg(long)]
    pub full_answers: bool,
    /// Seed of the generated events [default: random, told in the summary].
    #[arg(long)]
    pub seed: Option<u64>,
    /// Do not read back what was acknowledged.
    #[arg(long)]
    pub no_verify: bool,
    /// Longest wait for one answer; after three times as long without any success the run is given up.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Time at the start that is not measured (but verified).
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Form of the summary on stdout.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
    /// Draw rates, times and progress on the whole terminal; q or Ctrl-C ends the load.
    #[arg(long)]
    pub tui: bool,
    /// Leave a report in this directory: report.html, report.json, *.hgrm and series.csv. The broker's metrics are in
    /// it, asked for once a second.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// File with the bearer token.
    #[arg(long, value_name = "FILE", env = "EDDYLINE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why arguments make no plan.
#[derive(Debug, Error)]
pub enum UsageError {
    /// The broker would refuse such a group.
    #[error(
        "--group `{0}` is no group name: letters, digits, `.`, `_` and `-`, at most 120, the first a letter or digit, not ending in `.dead`"
    )]
    Group(String),
    /// Too small to carry its own number.
    #[error(
        "--size {0}: a generated event needs {EVENT_BYTES_MIN} B to say whose it is; for smaller ones give --payload FILE"
    )]
    Size(Sizes),
    /// A file cannot be read.
    #[error("{option} {path}: {cause}")]
    File {
        /// The option that named it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A value that cannot stand in a header.
    #[error("{0}: only visible ASCII characters, and at least one")]
    Header(&'static str),
    /// Too much in flight for deduplication.
    #[error(
        "--pipeline {0} with --producer-id: at most {DEDUPLICATED_PIPELINE_MAX}, the repeats that the broker knows"
    )]
    Pipeline(u32),
    /// More than Zipf's law is prepared for.
    #[error("--keys {0}: at most {KEYS_MAX}")]
    Keys(u64),
    /// Not so many bits in a byte of text.
    #[error("--entropy: from 0 to {ENTROPY_MAX} bits a byte")]
    Entropy,
    /// Options that contradict the profile.
    #[error("{0} cannot go with {1}")]
    Together(&'static str, &'static str),
    /// An option of something that was not asked for.
    #[error("{0} is for {1}")]
    Without(&'static str, &'static str),
    /// More than one process can have.
    #[error("--consumers {0}: at most {CONSUMERS_MAX}")]
    Consumers(u64),
    /// A wait of nothing.
    #[error("--{0} must be more than nothing")]
    Zero(&'static str),
    /// No place for the report.
    #[error(transparent)]
    Out(#[from] OutError),
}

impl ProduceArguments {
    /// Checks the arguments and decides everything they leave open.
    pub fn plan(&self) -> Result<Plan, UsageError> {
        let framing = self.framing();
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..=u64::from(u32::MAX)));
        let (payload, size_text, lines) = self.payload(seed, framing)?;
        let extent = self.extent(lines);
        if extent == Extent::Time(Duration::ZERO) {
            return Err(UsageError::Zero("duration"));
        }
        if self.timeout.is_zero() {
            return Err(UsageError::Zero("timeout"));
        }
        if self.producer_id.is_some() && self.pipeline as usize > DEDUPLICATED_PIPELINE_MAX {
            return Err(UsageError::Pipeline(self.pipeline));
        }
        self.out.as_deref().map(Folder::open).transpose()?;
        Ok(Plan {
            target: self.url.clone(),
            token: self.token_file.as_deref().map(read_token).transpose()?,
            groups: self.group_names()?,
            create: self.create,
            connections: self.connections,
            threads: self.threads.min(self.connections),
            pipeline: self.pipeline as usize,
            batch: self.batch,
            framing,
            payload,
            keys: self.keys(seed)?,
            browser: self.browser()?,
            seed,
            size_text,
            open_loop: self.open_loop(),
            extent,
            warmup: self.warmup,
            timeout: self.timeout,
            producer: self.producer()?,
            // A header that asks for less would need a preflight.
            full_answers: self.full_answers || self.browser_like,
            objectives: self.slo.clone(),
            verify: !self.no_verify,
            tui: self.tui,
            watch: self.out.is_some(),
        })
    }

    fn keys(&self, seed: u64) -> Result<Option<Keys>, UsageError> {
        match self.keys {
            Some(count) if count > KEYS_MAX => Err(UsageError::Keys(count)),
            count => Ok(count.map(|count| Keys::new(seed, count, self.key_spread))),
        }
    }

    /// The origin of the pages, if there are any.
    fn browser(&self) -> Result<Option<String>, UsageError> {
        match &self.origin {
            Some(_) if !self.browser_like => Err(UsageError::Without("--origin", "pages: --browser-like")),
            Some(origin) => header_value(origin, "--origin").map(Some),
            None => Ok(self.browser_like.then(|| format!("http://{}", self.url.authority))),
        }
    }

    fn open_loop(&self) -> Option<OpenLoop> {
        let browsing = self.browser_like.then(|| u64::from(self.connections) * u64::from(self.batch));
        let single = || Some(vec![(Duration::ZERO, self.rate.or(browsing)?)]);
        let stage = |(length, events_per_second)| Stage {
            length,
            requests_per_second: events_per_second as f64 / f64::from(self.batch),
        };
        let stages = self.stages.clone().or_else(single)?.into_iter().map(stage).collect();
        Some(OpenLoop { stages, arrivals: self.arrivals })
    }

    fn extent(&self, lines: Option<u64>) -> Extent {
        let staged = self.stages.as_ref().map(|stages| stages.iter().map(|(length, _)| *length).sum());
        match (self.count, self.once.then_some(lines).flatten()) {
            (Some(count), _) | (None, Some(count)) => Extent::Events(count),
            (None, None) => Extent::Time(staged.or(self.duration).unwrap_or(DURATION_DEFAULT)),
        }
    }

    fn framing(&self) -> Framing {
        match self.format {
            _ if self.browser_like => Framing::Text,
            _ if self.batch == 1 => Framing::Single,
            Format::Json => Framing::Json,
            Format::Ndjson => Framing::Ndjson,
            Format::Text => Framing::Text,
            Format::Binary => Framing::Binary,
        }
    }

    fn group_names(&self) -> Result<Vec<String>, UsageError> {
        let names = match self.groups {
            None => vec![self.group.clone()],
            Some(count) => (0..count).map(|number| format!("{}-{number}", self.group)).collect(),
        };
        names.iter().try_for_each(|name| check_group(name))?;
        Ok(names)
    }

    fn producer(&self) -> Result<Option<Producer>, UsageError> {
        let browser = self.browser_like.then(|| format!("tab-{:06x}", fastrand::u32(..1 << 24)));
        let Some(name) = self.producer_id.clone().or(browser) else {
            return Ok(None);
        };
        let name = &name;
        let name = header_value(name, "--producer-id")?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Some(Producer { name, epoch: self.producer_epoch.unwrap_or(since_epoch.as_secs()) }))
    }

    /// The payload, its sizes in words, and the number of a file's events.
    fn payload(&self, seed: u64, framing: Framing) -> Result<(Payload, String, Option<u64>), UsageError> {
        let Some(path) = &self.payload else {
            if self.entropy.is_some_and(|bits| !(0.0..=ENTROPY_MAX).contains(&bits)) {
                return Err(UsageError::Entropy);
            }
            if self.size.least < EVENT_BYTES_MIN {
                return Err(UsageError::Size(self.size));
            }
            return Ok((
                Payload::Generated(Generated::new(seed, self.size, self.entropy)),
                self.size.to_string(),
                None,
            ));
        };
        let failed = |cause: String| UsageError::File { option: "--payload", path: path.clone(), cause };
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let by_lines = matches!(framing, Framing::Json | Framing::Ndjson | Framing::Text);
        let lines = Lines::new(bytes, by_lines).ok_or_else(|| failed("the file holds no event".into()))?;
        check_lines(&lines, framing).map_err(failed)?;
        let count = lines.count();
        Ok((Payload::Lines(lines), format!("the lines of {}", path.display()), Some(count)))
    }
}

fn check_group(name: &str) -> Result<(), UsageError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    let good = first && name.len() <= GROUP_NAME_MAX && name.bytes().all(allowed) && !name.ends_with(".dead");
    if good { Ok(()) } else { Err(UsageError::Group(name.to_owned())) }
}

/// Refuses here what the broker would refuse or change in a batch of this layout.
fn check_lines(lines: &Lines, framing: Framing) -> Result<(), String> {
    if u32::try_from(lines.longest()).is_err() {
        return Err("a line is longer than any event can be".into());
    }
    for index in 0..lines.count() {
        let line = lines.line(index);
        let wrong = match framing {
            Framing::Json | Framing::Ndjson => {
                match serde_json::from_slice::<serde::de::IgnoredAny>(line) {
                    Err(_) => Some("is not JSON"),
                    // An element of an array is the value without the blanks around it.
                    Ok(_) if framing == Framing::Json && line.trim_ascii() != line => {
                        Some("has blanks around its value")
                    }
                    Ok(_) => None,
                }
            }
            Framing::Text if std::str::from_utf8(line).is_err() => Some("is not UTF-8"),
            Framing::Text | Framing::Single | Framing::Binary => None,
        };
        if let Some(wrong) = wrong {
            let number = index + 1;
            return Err(format!("event {number} {wrong}, which --format {} needs", framing.name()));
        }
    }
    Ok(())
}

fn read_token(path: &Path) -> Result<String, UsageError> {
    let failed = |cause: String| UsageError::File { option: "--token-file", path: path.to_owned(), cause };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    header_value(text.trim(), "--token-file")
}

fn header_value(text: &str, option: &'static str) -> Result<String, UsageError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UsageError::Header(option));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
