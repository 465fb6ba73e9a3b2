//! What is shown of consumers: a table of many, a page of one, their states in words and colours.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::client::{Client, encoded, group_path};
use super::super::escape::one_line;
use super::super::failure::Failure;
use super::super::output::{self, Output, Side, Tone};
use super::super::trouble::Trouble;
use crate::units::{print_span, rough_count, rough_size, rough_span};

/// Consumers of one page: as many as the broker gives.
const PAGE: usize = 1_000;

/// What a table says of a consumer.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct Row {
    pub(in crate::cli) group: String,
    pub(in crate::cli) consumer: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) lag: Lag,
    /// Acked events a second.
    pub(in crate::cli) rate_1m: f64,
    pub(in crate::cli) cursor: Cursor,
    pub(in crate::cli) session: Option<Session>,
    #[serde(default)]
    pub(in crate::cli) standbys: u64,
}

/// How far it is behind.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(in crate::cli) struct Lag {
    pub(in crate::cli) events: u64,
    pub(in crate::cli) bytes: u64,
    pub(in crate::cli) seconds: f64,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(in crate::cli) struct Cursor {
    /// `None` while it has no position.
    next: Option<u64>,
}

/// Who reads for it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(in crate::cli) struct Session {
    streaming: bool,
}

/// A page of consumers as the broker tells them.
#[derive(Debug, Deserialize)]
struct Page {
    consumers: Vec<Value>,
    next: Option<String>,
}

/// The consumers behind `after`, and where the next ones begin: of one group, or of all.
fn page_of(client: &Client, group: Option<&str>, after: Option<&str>) -> Result<Page, Trouble> {
    let mut query = format!("/consumers?limit={PAGE}");
    if let Some(after) = after {
        query.push_str(&format!("&after={}", encoded(after)));
    }
    let path = match group {
        Some(group) => group_path(group, &query),
        None => format!("/v1{query}"),
    };
    client.get_json(&path)
}

/// All consumers, page by page.
fn all(client: &Client, group: Option<&str>) -> Result<Vec<Value>, Failure> {
    let mut consumers = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = page_of(client, group, after.as_deref())?;
        consumers.extend(page.consumers);
        // A page that goes on where it began would never end.
        if page.next.is_none() || page.next == after {
            return Ok(consumers);
        }
        after = page.next;
    }
}

/// The first consumers of all groups, as many as one page holds.
pub(in crate::cli) fn first(client: &Client) -> Result<Vec<Value>, Trouble> {
    page_of(client, None, None).map(|page| page.consumers)
}

/// What the broker said of consumers, as rows.
pub(in crate::cli) fn rows(consumers: &[Value]) -> Result<Vec<Row>, Failure> {
    let row = |value: &Value| Row::deserialize(value);
    consumers.iter().map(row).collect::<Result<_, _>>().map_err(|error| {
        Failure::failed(format!("what the broker says of consumers is not understood: {error}"))
            .hint("is it of this version?")
    })
}

/// Lists consumers.
pub(super) fn list(client: &Client, group: Option<&str>, output: Output) -> Result<(), Failure> {
    let consumers = all(client, group)?;
    if output == Output::Json {
        let all = Map::from_iter([("consumers".to_owned(), consumers.into())]);
        return output::line(&Value::Object(all).to_string());
    }
    if consumers.is_empty() {
        output::say("no consumers; `eddyline consumer subscribe GROUP CONSUMER` makes one");
        return Ok(());
    }
    output::lines(&table(&rows(&consumers)?, output::coloured()))
}

/// Titles of a table of consumers.
pub(in crate::cli) const TITLES: [(&str, Side); 8] = [
    ("GROUP", Side::Left),
    ("CONSUMER", Side::Left),
    ("LAG", Side::Right),
    ("BYTES", Side::Right),
    ("BEHIND", Side::Right),
    ("ACKED/S", Side::Right),
    ("SESSION", Side::Left),
    ("STATE", Side::Left),
];

impl Row {
    /// Its cells under [`TITLES`].
    pub(in crate::cli) fn cells(&self) -> Vec<String> {
        let positioned = |text: String| if self.cursor.next.is_some() { text } else { "-".to_owned() };
        vec![
            self.group.clone(),
            self.consumer.clone(),
            positioned(self.lag.events.to_string()),
            positioned(rough_size(self.lag.bytes)),
            positioned(rough_span(seconds(self.lag.seconds))),
            positioned(rough_count(self.rate_1m)),
            self.session_words(),
            self.state_words(),
        ]
    }

    /// Who reads: how, and how many stand by.
    fn session_words(&self) -> String {
        let how = match &self.session {
            None => "-",
            Some(Session { streaming: true }) => "stream",
            Some(_) => "next",
        };
        if self.standbys == 0 { how.to_owned() } else { format!("{how} +{}", self.standbys) }
    }

    /// Its state and the reason of it.
    pub(in crate::cli) fn state_words(&self) -> String {
        state_words(&self.state, self.reason.as_deref())
    }

    /// How well it is.
    pub(in crate::cli) fn tone(&self) -> Tone {
        tone_of(&self.state)
    }
}

/// A length of time as the broker tells it.
pub(in crate::cli) fn seconds(told: f64) -> Duration {
    Duration::try_from_secs_f64(told).unwrap_or_default()
}

/// A state and its reason in words.
fn state_words(state: &str, reason: Option<&str>) -> String {
    let state = state.replace('_', " ");
    let reason = match reason {
        None => return state,
        Some("in_flight") => "waits for acks",
        Some("delay") => "waits to try again",
        Some("corrupt") => "damage on disk at its position",
        Some("poison") => "every attempt at its next event failed",
        Some("no_ack") => "nothing is acked",
        Some(other) => other,
    };
    format!("{state}: {reason}")
}

fn tone_of(state: &str) -> Tone {
    match state {
        "live" | "idle" => Tone::Good,
        "blocked" | "stuck" | "gap" | "revoked" => Tone::Bad,
        _ => Tone::Notice,
    }
}

/// A table of consumers.
pub(in crate::cli) fn table(rows: &[Row], coloured: bool) -> Vec<String> {
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let last = TITLES.len() - 1;
    output::painted_table(
        &TITLES,
        &cells,
        |row, column| {
            if coloured && column == last { rows[row].tone() } else { Tone::Plain }
        },
    )
}

/// Everything about a consumer, in the order a person looks for it, and whatever else the broker says behind it.
pub(super) fn page(status: &Value, coloured: bool) -> Vec<String> {
    const KNOWN: [&str; 20] = [
        "group",
        "consumer",
        "state",
        "reason",
        "life",
        "cursor",
        "lag",
        "rate_1m",
        "session",
        "standbys",
        "attempt",
        "last_failure",
        "redelivered",
        "dead_lettered",
        "gap",
        "replays",
        "last_rewind",
        "start",
        "limits",
        "token",
    ];
    let at = |path: &str| status.pointer(path).filter(|value| !value.is_null());
    let text = |path: &str| at(path).map_or_else(|| "-".to_owned(), plain);
    let number = |path: &str| at(path).and_then(Value::as_u64).unwrap_or_default();
    let size = |path: &str| format!("{} ({})", number(path), rough_size(number(path)));
    let state = at("/state").and_then(Value::as_str).unwrap_or("-");
    let words = one_line(&state_words(state, at("/reason").and_then(Value::as_str)));
    let mut facts: Vec<(&str, String)> = vec![
        ("group", text("/group")),
        ("consumer", text("/consumer")),
        ("state", words.clone()),
        ("life", text("/life")),
        ("next event", text("/cursor/next")),
        ("acked", with(text("/cursor/acked_offset"), [("id", at("/cursor/acked_id")), ("at", at("/cursor/acked_at"))])),
        ("delivered", text("/cursor/delivered_offset")),
        ("group holds", format!("{}..{}", text("/cursor/earliest"), text("/cursor/tail"))),
        ("lag", output::several(number("/lag/events"), "event")),
        ("lag in bytes", size("/lag/bytes")),
        ("lag in time", rough_span(seconds(at("/lag/seconds").and_then(Value::as_f64).unwrap_or_default()))),
        ("acked a second", rough_count(at("/rate_1m").and_then(Value::as_f64).unwrap_or_default())),
        ("session", at("/session").map_or_else(|| "none".to_owned(), session_line)),
        ("standing by", text("/standbys")),
        ("attempt", with(text("/attempt"), [("last failure", at("/last_failure")), ("", None)])),
        ("redelivered", output::several(number("/redelivered"), "event")),
        ("dead letters", output::several(number("/dead_lettered"), "event")),
        ("gap", at("/gap").map_or_else(|| "none".to_owned(), |gap| range(gap, "from", "to"))),
        ("to be replayed", replays(at("/replays"))),
        ("last rewind", at("/last_rewind").map_or_else(|| "never".to_owned(), rewound)),
        ("asked to begin", text("/start")),
        ("lease", print_span(Duration::from_millis(number("/limits/lease_ms")))),
        (
            "in flight",
            format!(
                "{}, {}",
                output::several(number("/limits/max_in_flight/events"), "event"),
                rough_size(number("/limits/max_in_flight/bytes"))
            ),
        ),
        (
            "attempts",
            match number("/limits/max_attempts") {
                0 => "for ever".to_owned(),
                most => format!("{most}, then {}", text("/limits/on_poison").replace('_', " ")),
            },
        ),
    ];
    let rest = status.as_object().into_iter().flatten().filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    facts.extend(rest.map(|(name, value)| (name.as_str(), plain(value))));
    let facts: Vec<(String, String)> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut lines = output::facts("", &facts);
    if coloured && let Some(line) = lines.get_mut(2) {
        *line = line.replacen(&words, &tone_of(state).paint(&words), 1);
    }
    lines
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value and what is told beside it.
fn with(text: String, beside: [(&str, Option<&Value>); 2]) -> String {
    beside
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .fold(text, |text, (name, value)| format!("{text}, {name} {}", plain(value)))
}

fn session_line(session: &Value) -> String {
    let flag = |name: &str| session.get(name).and_then(Value::as_bool).unwrap_or_default();
    let name = if flag("anonymous") { "anonymous" } else { "named" };
    let how = if flag("streaming") { ", streaming" } else { "" };
    let left = session.get("lease_left_ms").and_then(Value::as_u64);
    let left =
        left.map_or_else(String::new, |ms| format!(", lease lapses in {}", rough_span(Duration::from_millis(ms))));
    let opened = session.get("opened").map_or_else(String::new, |opened| format!(" since {}", plain(opened)));
    format!("{name}{opened}{how}{left}")
}

fn range(value: &Value, from: &str, to: &str) -> String {
    let end = |name: &str| value.get(name).map_or_else(|| "-".to_owned(), plain);
    format!("{}..{}", end(from), end(to))
}

fn replays(replays: Option<&Value>) -> String {
    let ranges: Vec<String> =
        replays.and_then(Value::as_array).into_iter().flatten().map(|replay| range(replay, "next", "until")).collect();
    if ranges.is_empty() { "nothing".to_owned() } else { ranges.join(", ") }
}

fn rewound(rewound: &Value) -> String {
    let until = rewound.get("until").filter(|until| !until.is_null());
    let until = until.map_or_else(String::new, |until| format!(", replay until {}", plain(until)));
    let at = rewound.get("at").map_or_else(String::new, |at| format!(" at {}", plain(at)));
    let end = |name: &str| rewound.get(name).map_or_else(|| "-".to_owned(), plain);
    format!("from {} to {}{until}{at}", end("from"), end("to"))
}
