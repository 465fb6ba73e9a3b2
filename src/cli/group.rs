//! `eddyline group`: the groups of a broker, listed, made, shown, changed and removed.

use std::io::IsTerminal;

use serde::Deserialize;
use serde_json::{Map, Value};
use ureq::http::Method;

use super::client::{Client, Connection, encoded, group_path};
use super::failure::Failure;
use super::output::{self, Output, Side};
use crate::units::{Size, Span, rough_size};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline group ls --prefix web-
  eddyline group create orders --max-event-bytes 64KiB
  eddyline group info orders -o json
  eddyline group set orders '{\"max_event_bytes\":\"2MiB\"}'
  eddyline group rm orders";

/// List, create, show, change and remove groups
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Group {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List groups
    #[command(
        visible_alias = "list",
        after_help = "EXAMPLES\n  eddyline group ls\n  eddyline group ls --prefix web- -o json"
    )]
    Ls {
        /// Only groups whose names begin so
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        /// How to write them
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Create a group; it is no error if it is there with the same configuration
    #[command(
        after_help = "EXAMPLES\n  eddyline group create orders\n  eddyline group create orders --max-event-bytes 64KiB --segment-max-bytes 64MiB"
    )]
    Create {
        /// Name: letters, digits, `.`, `_` and `-`
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show a group
    #[command(after_help = "EXAMPLES\n  eddyline group info orders")]
    Info {
        /// Name
        name: String,
        /// How to write it
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Change the configuration of a group; what is not named stays
    #[command(after_help = "EXAMPLES\n  eddyline group set orders '{\"max_event_bytes\":\"2MiB\"}'")]
    Set {
        /// Name
        name: String,
        /// What changes
        #[arg(value_parser = object)]
        json: Map<String, Value>,
    },
    /// Remove a group with all its events
    #[command(visible_alias = "delete", after_help = "EXAMPLES\n  eddyline group rm orders --yes")]
    Rm {
        /// Name
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Configuration of a new group.
#[derive(Debug, Default, clap::Args)]
struct Settings {
    /// The whole configuration
    #[arg(long, value_name = "JSON", value_parser = object)]
    config: Option<Map<String, Value>>,
    /// Events older than this are removed
    #[arg(long, value_name = "TIME", conflicts_with = "config")]
    retention_max_age: Option<Span>,
    /// The oldest events are removed when the group is larger
    #[arg(long, value_name = "SIZE", conflicts_with = "config")]
    retention_max_bytes: Option<Size>,
    /// Size of a segment file
    #[arg(long, value_name = "SIZE", conflicts_with = "config")]
    segment_max_bytes: Option<Size>,
    /// A segment is sealed at this age
    #[arg(long, value_name = "TIME", conflicts_with = "config")]
    segment_max_age: Option<Span>,
    /// Largest event
    #[arg(long, value_name = "SIZE", conflicts_with = "config")]
    max_event_bytes: Option<Size>,
    /// Largest body of a batch
    #[arg(long, value_name = "SIZE", conflicts_with = "config")]
    max_batch_bytes: Option<Size>,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected a JSON object such as {{\"max_event_bytes\":\"1MiB\"}}: {error}"))
}

impl Settings {
    fn json(&self) -> Map<String, Value> {
        if let Some(config) = &self.config {
            return config.clone();
        }
        let size = |size: &Option<Size>| size.as_ref().map(Size::to_string);
        let span = |span: &Option<Span>| span.as_ref().map(Span::to_string);
        let entries = [
            ("retention", "max_age", span(&self.retention_max_age)),
            ("retention", "max_bytes", size(&self.retention_max_bytes)),
            ("segment", "max_bytes", size(&self.segment_max_bytes)),
            ("segment", "max_age", span(&self.segment_max_age)),
            ("", "max_event_bytes", size(&self.max_event_bytes)),
            ("", "max_batch_bytes", size(&self.max_batch_bytes)),
        ];
        let mut config = Map::new();
        for (table, name, value) in entries {
            let Some(value) = value else { continue };
            if table.is_empty() {
                config.insert(name.to_owned(), value.into());
            } else {
                let inner = config.entry(table).or_insert_with(|| Value::Object(Map::new()));
                inner[name] = value.into();
            }
        }
        config
    }
}

impl Group {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        match self.action {
            Action::Ls { prefix, output } => list(&client, &prefix, output),
            Action::Create { name, settings } => {
                // Without settings it is only to be there, with whatever configuration it has.
                let config = settings.json();
                let body = if config.is_empty() { String::new() } else { Value::Object(config).to_string() };
                let answer = put(&client, &Method::PUT, &name, &body)?;
                output::say(&format!("{name}: {}", if answer == 201 { "created" } else { "is there already" }));
                Ok(())
            }
            Action::Info { name, output } => info(&client, &name, output),
            Action::Set { name, json } => {
                put(&client, &Method::PATCH, &name, &Value::Object(json).to_string())?;
                output::say(&format!("{name}: changed"));
                Ok(())
            }
            Action::Rm { name, yes } => remove(&client, &name, yes),
        }
    }
}

fn put(client: &Client, method: &Method, name: &str, body: &str) -> Result<u16, Failure> {
    let body = Some(("application/json", body.as_bytes()));
    Ok(client.send(method, &group_path(name, ""), &[("Accept", "application/json")], body)?.status())
}

/// All groups that begin with `prefix`, page by page.
fn all(client: &Client, prefix: &str) -> Result<Vec<Value>, Failure> {
    #[derive(Deserialize)]
    struct Page {
        groups: Vec<Value>,
        next: Option<String>,
    }
    let mut groups = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut path = format!("/v1/groups?prefix={}", encoded(prefix));
        if let Some(after) = &after {
            path.push_str(&format!("&after={}", encoded(after)));
        }
        let page: Page = client.get_json(&path)?;
        groups.extend(page.groups);
        // A page that goes on where it began would never end.
        if page.next.is_none() || page.next == after {
            return Ok(groups);
        }
        after = page.next;
    }
}

/// Columns of the list, in this order; those the broker says nothing about are left out.
const COLUMNS: [(&str, &str, Side); 8] = [
    ("group", "GROUP", Side::Left),
    ("shard", "SHARD", Side::Right),
    ("earliest", "EARLIEST", Side::Right),
    ("tail", "TAIL", Side::Right),
    ("events", "EVENTS", Side::Right),
    ("bytes", "SIZE", Side::Right),
    ("segments", "SEGMENTS", Side::Right),
    ("created", "CREATED", Side::Left),
];

fn list(client: &Client, prefix: &str, output: Output) -> Result<(), Failure> {
    let groups = all(client, prefix)?;
    if output == Output::Json {
        let all = Map::from_iter([("groups".to_owned(), groups.into())]);
        return output::line(&Value::Object(all).to_string());
    }
    if groups.is_empty() {
        output::say("no groups; `eddyline group create NAME` makes one");
        return Ok(());
    }
    output::lines(&table_of(&groups))
}

fn table_of(groups: &[Value]) -> Vec<String> {
    let told = |name: &str| groups.iter().any(|group| group.get(name).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(|(name, ..)| told(name)).collect();
    let titles: Vec<(&str, Side)> = columns.iter().map(|(_, title, side)| (*title, *side)).collect();
    let cell = |group: &Value, name: &str| match group.get(name) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => match value.as_u64().filter(|_| name == "bytes") {
            Some(bytes) => rough_size(bytes),
            None => value.to_string(),
        },
    };
    let row = |group| columns.iter().map(|(name, ..)| cell(group, name)).collect();
    let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
    output::table(&titles, &rows)
}

fn info(client: &Client, name: &str, output: Output) -> Result<(), Failure> {
    let info: Map<String, Value> = client.get_json(&group_path(name, ""))?;
    if output == Output::Json {
        return output::line(&Value::Object(info).to_string());
    }
    output::lines(&output::facts("", &described(&info)))
}

/// The facts of a group in the order a person looks for them, and whatever else the broker says behind them.
fn described(info: &Map<String, Value>) -> Vec<(String, String)> {
    const ORDER: [&str; 10] =
        ["group", "number", "shard", "earliest", "tail", "events", "bytes", "segments", "created", "config"];
    let rest = info.keys().map(String::as_str).filter(|name| !ORDER.contains(name));
    ORDER
        .into_iter()
        .chain(rest)
        .filter_map(|name| Some((name, info.get(name)?)))
        .map(|(name, value)| {
            let text = match (name, value) {
                ("bytes", Value::Number(number)) => number
                    .as_u64()
                    .map_or_else(|| number.to_string(), |bytes| format!("{bytes} ({})", rough_size(bytes))),
                (_, Value::String(text)) => text.clone(),
                (_, other) => other.to_string(),
            };
            (name.to_owned(), text)
        })
        .collect()
}

fn remove(client: &Client, name: &str, yes: bool) -> Result<(), Failure> {
    let path = group_path(name, "");
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(format!("{name} would be removed with all its events"))
                .hint("off a terminal this needs --yes"));
        }
        let info: Map<String, Value> = client.get_json(&path)?;
        let events = info.get("events").and_then(Value::as_u64).unwrap_or_default();
        let events = output::several(events, "event");
        if output::ask(&format!("{name} has {events}. Type its name to remove it:")) != name {
            return Err(Failure::failed("nothing was removed"));
        }
    }
    client.send(&Method::DELETE, &path, &[], None)?;
    output::say(&format!("{name}: removed"));
    Ok(())
}

#[cfg(test)]
mod tests;
