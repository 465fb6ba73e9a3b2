//! `eddyline consumer`: the consumers of a broker, listed, shown, let in and out, and moved. What is shown of one is in
//! `show.rs`, what moves a position in `moves.rs`. To read as a consumer there is `eddyline tail --consumer`.

mod moves;
pub(super) mod show;

use std::io::IsTerminal;

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, Connection, consumer_path};
use super::failure::Failure;
use super::output::{self, Output};
use super::position::position;
use super::token::expiry;
use super::trouble::Trouble;
use crate::units::{Size, Span};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline consumer subscribe orders billing
  eddyline consumer ls
  eddyline consumer info orders billing
  eddyline tail orders --consumer billing --ack
  eddyline consumer rewind orders billing --to 1h --dry-run";

/// List, let in, show, move and remove consumers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Consumer {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

/// Which consumer.
#[derive(Debug, clap::Args)]
struct Which {
    /// Group it reads
    group: String,
    /// Its name
    consumer: String,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List consumers with how far they are behind and what they are doing
    #[command(
        visible_alias = "list",
        after_help = "EXAMPLES\n  eddyline consumer ls\n  eddyline consumer ls orders -o json"
    )]
    Ls {
        /// Only those of this group
        group: Option<String>,
        /// How to write them
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show everything about a consumer
    #[command(after_help = "EXAMPLES\n  eddyline consumer info orders billing")]
    Info {
        #[command(flatten)]
        which: Which,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Subscribe a consumer; it is no error if it is there
    #[command(
        after_help = "EXAMPLES\n  eddyline consumer subscribe orders billing\n  eddyline consumer subscribe orders audit --start latest"
    )]
    Subscribe {
        #[command(flatten)]
        which: Which,
        /// Where it wants to begin: an offset, `earliest`, `latest`, a duration (5m), a time [default: earliest]
        #[arg(long, value_name = "POSITION", value_parser = position)]
        start: Option<String>,
        /// How to write the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Let a consumer read; once more, change what it is granted, and what is not named stays
    #[command(
        after_help = "EXAMPLES\n  eddyline consumer approve orders billing\n  eddyline consumer approve orders billing --max-attempts 5 --on-poison dead-letter\n  eddyline consumer approve orders audit --start latest --expires 30d"
    )]
    Approve {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        grant: Grant,
        /// How to write the answer
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Stop a consumer from reading for now; its position is kept
    #[command(after_help = "EXAMPLES\n  eddyline consumer suspend orders billing")]
    Suspend(Which),
    /// Let a suspended consumer go on
    #[command(after_help = "EXAMPLES\n  eddyline consumer resume orders billing")]
    Resume(Which),
    /// Stop a consumer from reading until it is approved again; its position is kept
    #[command(after_help = "EXAMPLES\n  eddyline consumer revoke orders billing")]
    Revoke(Which),
    /// Remove a consumer with its position
    #[command(visible_alias = "delete", after_help = "EXAMPLES\n  eddyline consumer rm orders billing --yes")]
    Rm {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    Rewind(moves::Rewind),
    Replay(moves::Replay),
}

/// What an approval says.
#[derive(Debug, Default, clap::Args)]
struct Grant {
    /// Where it begins, if it has no position yet: as for `subscribe` [default: what it asked for]
    #[arg(long, value_name = "POSITION", value_parser = position)]
    start: Option<String>,
    /// How long its session lives without a call
    #[arg(long, value_name = "TIME")]
    lease: Option<Span>,
    /// Events that may be delivered and not acked
    #[arg(long, value_name = "N")]
    max_events: Option<u64>,
    /// Bytes of such events
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<Size>,
    /// Failures after which an event is poison; 0: never
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// What happens to poison
    #[arg(long, value_enum)]
    on_poison: Option<OnPoison>,
    /// From then on it may not read: a time (2026-11-23T10:00:00Z), or a duration from now (30d)
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<String>,
}

/// What happens to an event whose every attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnPoison {
    /// The consumer stands still until somebody decides
    Stall,
    /// The event goes to the dead letters, and the consumer goes on
    DeadLetter,
}

impl Grant {
    fn json(&self) -> Value {
        let in_flight = members([
            ("events", self.max_events.map(Value::from)),
            ("bytes", self.max_bytes.map(|size| size.to_string().into())),
        ]);
        let poison = self.on_poison.map(|poison| match poison {
            OnPoison::Stall => "stall".into(),
            OnPoison::DeadLetter => "dead_letter".into(),
        });
        let all = members([
            ("start", self.start.as_deref().map(Value::from)),
            ("lease", self.lease.map(|span| span.to_string().into())),
            ("max_in_flight", (!in_flight.is_empty()).then(|| in_flight.into())),
            ("max_attempts", self.max_attempts.map(Value::from)),
            ("on_poison", poison),
            ("expires", self.expires.as_deref().map(Value::from)),
        ]);
        Value::Object(all)
    }
}

/// An object of the members that have a value.
fn members<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

impl Which {
    fn path(&self, rest: &str) -> String {
        consumer_path(&self.group, &self.consumer, rest)
    }

    /// Posts `body` to what is below the consumer.
    fn post(&self, client: &Client, rest: &str, body: &Value) -> Result<Value, Trouble> {
        send(client, &Method::POST, &self.path(rest), body)
    }
}

fn send(client: &Client, method: &Method, path: &str, body: &Value) -> Result<Value, Trouble> {
    let body = body.to_string();
    let body = Some(("application/json", body.as_bytes()));
    client.send(method, path, &[("Accept", "application/json")], body)?.json()
}

impl Consumer {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        match self.action {
            Action::Ls { group, output } => show::list(&client, group.as_deref(), output),
            Action::Info { which, output } => {
                let status: Value = client.get_json(&which.path(""))?;
                match output {
                    Output::Json => output::line(&status.to_string()),
                    Output::Text => output::lines(&show::page(&status, output::coloured())),
                }
            }
            Action::Subscribe { which, start, output } => {
                let body = Value::Object(members([("start", start.map(Value::from))]));
                let answer = send(&client, &Method::PUT, &which.path(""), &body)?;
                answered(&which, &answer, output)
            }
            Action::Approve { which, grant, output } => {
                answered(&which, &which.post(&client, "/approve", &grant.json())?, output)
            }
            Action::Suspend(which) => change(&client, &which, "/suspend"),
            Action::Resume(which) => change(&client, &which, "/resume"),
            Action::Revoke(which) => change(&client, &which, "/revoke"),
            Action::Rm { which, yes } => remove(&client, &which, yes),
            Action::Rewind(command) => command.run(&client),
            Action::Replay(command) => command.run(&client),
        }
    }
}

fn change(client: &Client, which: &Which, rest: &str) -> Result<(), Failure> {
    answered(which, &which.post(client, rest, &json!({}))?, Output::Text)
}

/// Says what became of a consumer. A token stands in no other answer ever, so it is data, and alone on stdout.
fn answered(which: &Which, answer: &Value, output: Output) -> Result<(), Failure> {
    let life = answer.get("life").and_then(Value::as_str).unwrap_or("changed");
    let next = answer.pointer("/cursor/next").and_then(Value::as_u64);
    let place = next.map_or_else(String::new, |next| format!(", next event {next}"));
    output::say(&format!("{}/{}: {life}{place}", which.group, which.consumer));
    let token = answer.get("token").and_then(Value::as_str);
    if token.is_some() {
        output::say("its token is shown this once: keep it where the consumer finds it");
    }
    match (output, token) {
        (Output::Json, _) => output::line(&answer.to_string()),
        (Output::Text, Some(token)) => output::line(token),
        (Output::Text, None) => Ok(()),
    }
}

fn remove(client: &Client, which: &Which, yes: bool) -> Result<(), Failure> {
    let name = &which.consumer;
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{name} would be removed with its position"))
                .hint("off a terminal this needs --yes"));
        }
        let status: Value = client.get_json(&which.path(""))?;
        let behind = status.pointer("/lag/events").and_then(Value::as_u64).unwrap_or_default();
        let behind = output::several(behind, "event");
        if output::ask(&format!("{name} has a position, {behind} behind. Type its name to remove it:")) != *name {
            return Err(Failure::failed("nothing was removed"));
        }
    }
    client.send(&Method::DELETE, &which.path(""), &[], None)?;
    output::say(&format!("{}/{name}: removed", which.group));
    Ok(())
}

#[cfg(test)]
mod tests;
