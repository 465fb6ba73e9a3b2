//! Real flights whose times are spread over days on which clocks change, by a broker whose clock the test moves (feature
//! `simulated-time`): slices of the calendar, filled ones and ranges come to what DuckDB computes.

use crate::broker::Broker;
use crate::http::Client;
use crate::program::run;
use crate::real_input::{records, some};
use serde_json::Value;
use std::path::Path;

const HOUR_US: u64 = 3_600_000_000;

/// Produces the flights to a group, in so many requests between two times, and compares.
fn compare(name: &str, lines: &[String], requests: usize, from: &str, hours: u64) {
    let from = from.parse::<jiff::Timestamp>().expect("a time").as_microsecond() as u64;
    let mut broker = Broker::start_at(from);
    broker.create(name, r#"{"segment":{"max_bytes":"256KiB"}}"#);
    for (number, batch) in lines.chunks(lines.len().div_ceil(requests)).enumerate() {
        broker.set_time(from + hours * HOUR_US * number as u64 / requests as u64);
        broker.produce_lines(name, &batch.join("\n"));
    }
    broker.stop();
    broker.restart();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("flights.ndjson");
    std::fs::write(&file, broker.export(name)).expect("a file");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("tests/venv/bin/python");
    assert!(python.exists(), "`make truth` makes tests/venv with DuckDB");
    let script = root.join("tests/query_day.py");
    run(&python, &[script.to_str().unwrap(), &broker.url(), name, file.to_str().unwrap()], "").with(0);
}

#[test]
fn a_day_that_is_an_hour_longer_in_berlin() {
    let lines = records("flights-200k.json", some(usize::MAX, 6_000));
    compare("day", &lines, 96, "2025-10-26T00:00:00Z", 24);
}

#[test]
fn weeks_in_which_clocks_change_in_new_york_in_berlin_and_by_half_an_hour_on_lord_howe() {
    let lines = records("flights-200k.json", some(40_000, 4_000));
    compare("weeks", &lines, 160, "2025-03-05T11:00:00Z", 34 * 24);
}

/// What comes behind a slice that was told is not in it, whatever the clock says.
#[test]
fn a_slice_that_follows_comes_once_also_when_the_clock_is_set_back() {
    let (begun, second) = (1_761_436_800_000_000, 1_000_000);
    let broker = Broker::start_at(begun);
    broker.create("day", "{}");
    broker.produce_lines("day", "{}");
    let mut client = broker.client();
    let query = "SELECT count() IN day SAMPLE BY 1m FOLLOW";
    client.send(Client::request("POST", "/v1/query", &[("Accept", "application/x-ndjson")], query));
    assert_eq!(client.head().status, 200);
    let mut text = String::new();
    let mut slices = |count: usize| {
        while text.matches("\"ts\"").count() < count {
            text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
        }
        let rows = text.lines().filter(|line| line.contains("\"ts\""));
        rows.map(|row| serde_json::from_str::<Value>(row).expect("JSON")["ts"].to_string()).collect::<Vec<_>>()
    };
    broker.set_time(begun + 60 * second);
    slices(1);
    broker.set_time(begun + 30 * second);
    broker.produce_lines("day", "{}");
    broker.set_time(begun + 120 * second);
    assert_eq!(slices(2), ["\"2025-10-26T00:00:00.000000Z\"", "\"2025-10-26T00:01:00.000000Z\""]);
}
