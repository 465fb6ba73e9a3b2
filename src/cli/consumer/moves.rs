//! `eddyline consumer rewind` and `replay`: what they would do is shown before anything moves.

use std::io::IsTerminal;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::failure::Failure;
use super::super::output::{self, Output};
use super::super::position::position;
use super::{Which, members};
use crate::units::rough_size;

/// Move a consumer's position; first it is shown what would be delivered again, or left out
///
/// It may be reading meanwhile: it is told, and goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  eddyline consumer rewind orders billing --to 1h               events of the last hour again
  eddyline consumer rewind orders billing --to 100 --until 200  those alone, then on where it was
  eddyline consumer rewind orders billing --to latest --skip    leave out what is there
  eddyline consumer rewind orders billing --to earliest --dry-run")]
pub(super) struct Rewind {
    #[command(flatten)]
    which: Which,
    /// The next event: an offset, `earliest`, `latest`, a duration (5m), a time, `id:…`
    #[arg(long, value_name = "POSITION", value_parser = position)]
    to: String,
    /// Deliver again only what is before this, and then go on where it was
    #[arg(long, value_name = "POSITION", value_parser = position, conflicts_with = "skip")]
    until: Option<String>,
    /// Forward, too: events are left out
    #[arg(long)]
    skip: bool,
    /// Only show what would be done
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Rewind {
    pub(super) fn run(&self, client: &Client) -> Result<(), Failure> {
        if !self.yes && !self.dry_run && !std::io::stdin().is_terminal() {
            return Err(Failure::usage(format!("the position of {} would be moved", self.which.consumer))
                .hint("off a terminal this needs --yes, or --dry-run to see what it would do"));
        }
        self.carry_out(client, |plan| matches!(output::ask(&format!("{plan}? [y/N]")).as_str(), "y" | "Y" | "yes"))
    }

    pub(super) fn carry_out(&self, client: &Client, agreed: impl FnOnce(&str) -> bool) -> Result<(), Failure> {
        let (to, until) = (Value::from(self.to.as_str()), self.until.as_deref().map(Value::from));
        if self.yes {
            return self.report(&self.ask(client, to, until, false)?);
        }
        let plan = self.ask(client, to, until, true)?;
        if self.dry_run {
            return self.report(&plan);
        }
        if !agreed(&self.told(&plan)) {
            return Err(Failure::failed("nothing was moved"));
        }
        // `1h ago` is another event by now: what was shown is what is done.
        let (to, until) = (plan["to"].clone(), plan.get("until").cloned());
        self.report(&self.ask(client, to, until, false)?)
    }

    fn ask(&self, client: &Client, to: Value, until: Option<Value>, dry_run: bool) -> Result<Value, Failure> {
        let body = members([
            ("to", Some(to)),
            ("until", until),
            ("skip", self.skip.then_some(true.into())),
            ("dry_run", dry_run.then_some(true.into())),
        ]);
        Ok(self.which.post(client, "/rewind", &Value::Object(body))?)
    }

    /// A plan, or what was done, in one line.
    fn told(&self, answer: &Value) -> String {
        let number = |name: &str| answer.get(name).and_then(Value::as_u64);
        let place = |name: &str| number(name).map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let bytes = rough_size(number("bytes").unwrap_or_default());
        let (events, fate) = match (number("skipped"), number("until")) {
            (Some(skipped), _) => (skipped, "left out".to_owned()),
            (None, Some(until)) => (
                number("events").unwrap_or_default(),
                format!("delivered again up to {until}, and then on from before"),
            ),
            (None, None) => (number("events").unwrap_or_default(), "delivered again".to_owned()),
        };
        let Which { group, consumer } = &self.which;
        let events = output::several(events, "event");
        format!("{group}/{consumer}: from {} to {}, {events} ({bytes}) {fate}", place("from"), place("to"))
    }

    /// A plan is data; what was done is said.
    fn report(&self, answer: &Value) -> Result<(), Failure> {
        match self.output {
            Output::Json => output::line(&answer.to_string()),
            Output::Text if self.dry_run => output::line(&self.told(answer)),
            Output::Text => {
                output::say(&self.told(answer));
                Ok(())
            }
        }
    }
}

/// Deliver again what went to the dead letters
#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
  eddyline consumer replay orders billing
  eddyline consumer replay orders billing --from 1h --limit 100")]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// The first letter, by its place in the group of dead letters [default: the first one there is]
    #[arg(long, value_name = "POSITION", value_parser = position)]
    from: Option<String>,
    /// How many letters at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Replay {
    pub(super) fn run(&self, client: &Client) -> Result<(), Failure> {
        let from = self.from.as_deref().map(Value::from);
        let body = members([("from", from), ("limit", self.limit.map(|limit| json!(limit)))]);
        let answer = self.which.post(client, "/replay", &Value::Object(body))?;
        if self.output == Output::Json {
            return output::line(&answer.to_string());
        }
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
        let mut text = format!(
            "{}/{}: {} delivered again",
            self.which.group,
            self.which.consumer,
            output::several(number("events"), "event")
        );
        if number("gone") > 0 {
            text.push_str(&format!(", {} gone from the group; the letters are there", number("gone")));
        }
        output::say(&text);
        Ok(())
    }
}
