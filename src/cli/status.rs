//! `eddyline status`: whether the broker is ready, and what it says of itself. The page follows the shape of the
//! answer, so that it shows whatever a broker of another version says too.

use serde_json::{Map, Value};

use super::client::{Client, Connection};
use super::escape::one_line;
use super::failure::Failure;
use super::output::{self, Output, Side};
use super::trouble::Trouble;
use crate::units::{print_span, rough_size};

const EXAMPLES: &str = "\
EXAMPLES
  eddyline status
  eddyline status -o json | jq .status
  until eddyline status > /dev/null; do sleep 1; done

Exit code 0: ready. 1: it answers and is not ready. 3: it does not answer.";

/// Show how the broker is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

impl Status {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        let (ready, reasons) = readiness(&client)?;
        // Before it is ready a broker may have nothing else to say; and what it says is not for everybody.
        let status = match client.get_json::<Value>("/v1/status") {
            Ok(status) => status,
            Err(Trouble::Refused(refusal)) if matches!(refusal.status, 401 | 403) => {
                output::say("more is told to a token that may manage something: --token-file");
                Value::Null
            }
            Err(Trouble::Refused(_)) if !ready => Value::Null,
            Err(trouble) => return Err(trouble.into()),
        };
        match self.output {
            Output::Json => {
                let all = [("ready", ready.into()), ("readyz", reasons.clone()), ("status", status)];
                let all: Map<String, Value> = all.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
                output::line(&Value::Object(all).to_string())?;
            }
            Output::Text => output::lines(&page(ready, &reasons, &status))?,
        }
        if ready { Ok(()) } else { Err(Failure::failed(format!("the broker is not ready: {}", brief(&reasons)))) }
    }
}

/// Whether the broker is ready, and the reasons it gives.
fn readiness(client: &Client) -> Result<(bool, Value), Failure> {
    match client.get_json("/readyz") {
        Ok(reasons) => Ok((true, reasons)),
        Err(Trouble::Refused(refusal)) if refusal.status == 503 => {
            let mut reasons = refusal.problem.more.clone();
            for (name, text) in [("code", &refusal.problem.code), ("detail", &refusal.problem.detail)] {
                if !text.is_empty() {
                    reasons.insert(name.to_owned(), text.as_str().into());
                }
            }
            Ok((false, reasons.into()))
        }
        Err(trouble) => Err(trouble.into()),
    }
}

/// The reasons in a few words.
fn brief(reasons: &Value) -> String {
    let reason = |reason: &Value| {
        let told = reason.get("detail").or_else(|| reason.get("code"));
        scalar(told.unwrap_or(reason))
    };
    match reasons.get("reasons") {
        Some(Value::Array(items)) => items.iter().map(reason).collect::<Vec<_>>().join("; "),
        _ => reason(reasons),
    }
}

fn page(ready: bool, reasons: &Value, status: &Value) -> Vec<String> {
    let any = reasons.get("reasons").and_then(Value::as_array).is_some_and(|items| !items.is_empty());
    let readiness = match (ready, any) {
        (true, false) => "ready".to_owned(),
        (true, true) => format!("ready, but: {}", brief(reasons)),
        (false, _) => format!("NOT READY: {}", brief(reasons)),
    };
    let mut lines = vec![one_line(&readiness)];
    if let Value::Object(status) = status {
        section(&mut lines, "", status);
    }
    lines
}

/// The entries of an object: plain ones aligned, then a part for each object and a table for each list of objects.
fn section(lines: &mut Vec<String>, title: &str, object: &Map<String, Value>) {
    if !title.is_empty() {
        lines.extend([String::new(), title.to_owned()]);
    }
    let plain = |value: &&Value| !value.is_object() && rows_of(value).is_none();
    let facts: Vec<(String, String)> = object
        .iter()
        .filter(|(_, value)| plain(value))
        .map(|(name, value)| (name.clone(), cell(name, value)))
        .collect();
    lines.extend(output::facts("  ", &facts));
    for (name, value) in object {
        let path = if title.is_empty() { name.clone() } else { format!("{title}.{name}") };
        if let Value::Object(inner) = value {
            section(lines, &path, inner);
        } else if let Some(rows) = rows_of(value) {
            lines.extend([String::new(), path]);
            lines.extend(table_of(&rows));
        }
    }
}

/// The objects of a list that holds nothing else.
fn rows_of(value: &Value) -> Option<Vec<&Map<String, Value>>> {
    let items = value.as_array().filter(|items| !items.is_empty())?;
    items.iter().map(Value::as_object).collect()
}

fn table_of(rows: &[&Map<String, Value>]) -> Vec<String> {
    let titles: Vec<(&str, Side)> = rows[0]
        .iter()
        .map(|(name, value)| (name.as_str(), if value.is_number() { Side::Right } else { Side::Left }))
        .collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            titles.iter().map(|(name, _)| row.get(*name).map_or_else(String::new, |value| cell(name, value))).collect()
        })
        .collect();
    output::table(&titles, &cells).into_iter().map(|line| format!("  {line}")).collect()
}

/// A value for a person; the end of its name says its unit.
fn cell(name: &str, value: &Value) -> String {
    let number = value.as_u64();
    match number {
        Some(bytes) if name == "bytes" || name.ends_with("_bytes") => rough_size(bytes),
        Some(seconds) if name.ends_with("_seconds") => print_span(std::time::Duration::from_secs(seconds)),
        Some(millis) if name.ends_with("_ms") => print_span(std::time::Duration::from_millis(millis)),
        _ => scalar(value),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer};
    use super::*;

    fn value(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_page_follows_the_shape_of_the_answer() {
        let status = value(
            r#"{"version":"0.1.0","uptime_seconds":5400,"clock":null,"empty":[],
                "disk":{"free_bytes":2048,"state":{"ok":true}},
                "shards":[{"shard":0,"state":"ok"},{"shard":10,"state":"read\u001b-only"}]}"#,
        );
        let text = page(true, &value(r#"{"ready":true}"#), &status).join("\n");
        assert_eq!(
            text,
            "ready\n  clock           -\n  empty           []\n  uptime_seconds  1h30m\n  version         0.1.0\n\n\
             disk\n  free_bytes  2.0 KiB\n\n\
             disk.state\n  ok  true\n\n\
             shards\n  SHARD  STATE\n      0  ok\n     10  read\\u{1b}-only"
                .replace("SHARD  STATE", "shard  state")
        );
    }

    #[test]
    fn reasons_of_a_broker_that_is_not_ready_are_told() {
        let table = [
            (
                "503 Service Unavailable",
                r#"{"ready":false,"reasons":[{"code":"draining","detail":"going away"},{"code":"disk_full"}]}"#,
                false,
                "going away; disk_full",
            ),
            ("503 Service Unavailable", r#"{"code":"draining","detail":"going away"}"#, false, "going away"),
            ("200 OK", r#"{"ready":true,"reasons":[]}"#, true, ""),
        ];
        for (status, body, ready, said) in table {
            let (is_ready, reasons) = readiness(&Fake::new(&[answer(status, "", body)]).client()).unwrap();
            assert_eq!((is_ready, brief(&reasons).as_str()), (ready, said), "{body}");
        }
        let first = |ready, reasons: &str| page(ready, &value(reasons), &Value::Null)[0].clone();
        assert_eq!(first(false, r#"{"reasons":[{"code":"x"}]}"#), "NOT READY: x");
        assert_eq!(first(true, r#"{"reasons":[{"detail":"y\\n"}]}"#), "ready, but: y\\n");
    }
}
