//! `eddyline query --running` and `--stop`: the queries that run on the broker.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::Method;

use super::super::client::{Client, encoded};
use super::super::failure::Failure;
use super::super::output::{self, Side};
use super::Format;
use crate::units::rough_span;

/// What the broker says of the queries that run.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    pub(super) queries: Vec<Running>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Running {
    pub(super) id: String,
    group: String,
    caller: String,
    query: String,
    ms: f64,
    pub(super) events_done: Option<u64>,
    pub(super) events_total: Option<u64>,
}

const TITLES: [(&str, Side); 6] = [
    ("ID", Side::Left),
    ("GROUP", Side::Left),
    ("CALLER", Side::Left),
    ("ELAPSED", Side::Right),
    ("DONE", Side::Right),
    ("QUERY", Side::Left),
];

/// As much of a query's text stands in the table; `-o json` has more.
const TEXT_CHARS_MAX: usize = 60;

/// Shows the queries that run.
pub(super) fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let answer = || client.get("/v1/queries", "application/json");
    match format {
        Format::Json => output::line(&answer()?.text()?),
        Format::Table => match answer()?.json::<Listing>()?.queries {
            queries if queries.is_empty() => {
                output::say("no query runs");
                Ok(())
            }
            queries => output::lines(&output::table(&TITLES, &queries.iter().map(row).collect::<Vec<_>>())),
        },
        Format::Ndjson | Format::Csv => Err(Failure::usage("--running is written as table or json")),
    }
}

/// Stops a query that runs.
pub(super) fn stop(client: &Client, id: &str) -> Result<(), Failure> {
    client.send(&Method::DELETE, &format!("/v1/queries/{}", encoded(id)), &[], None)?;
    output::say(&format!("{id}: stopped"));
    Ok(())
}

fn row(query: &Running) -> Vec<String> {
    let done = match (query.events_done, query.events_total) {
        (Some(done), Some(total)) => format!("{}%", u128::from(done) * 100 / u128::from(total.max(1))),
        _ => "-".to_owned(),
    };
    let mut text: String = query.query.chars().take(TEXT_CHARS_MAX).collect();
    if text.len() < query.query.len() {
        text.push('…');
    }
    let elapsed = rough_span(Duration::from_secs_f64(query.ms.max(0.0) / 1000.0));
    vec![query.id.clone(), query.group.clone(), query.caller.clone(), elapsed, done, text]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_far_and_begins_the_text() {
        let running = |done, total, text: &str| Running {
            id: "i".to_owned(),
            group: "g".to_owned(),
            caller: "c".to_owned(),
            query: text.to_owned(),
            ms: 75_000.0,
            events_done: done,
            events_total: total,
        };
        let long = "ä".repeat(61);
        let cut = format!("{}…", "ä".repeat(60));
        for (done, total, text, expected) in [
            (Some(1), Some(3), "q", ["i", "g", "c", "1m15s", "33%", "q"]),
            (Some(u64::MAX), Some(u64::MAX), &long[..120], ["i", "g", "c", "1m15s", "100%", &long[..120]]),
            (None, None, &long, ["i", "g", "c", "1m15s", "-", &cut]),
        ] {
            assert_eq!(row(&running(done, total, text)), expected);
        }
    }
}
