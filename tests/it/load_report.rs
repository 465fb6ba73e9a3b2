//! Reports of loadgen's profiles against the broker follow the schema that `loadgen schema` prints.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::broker::Broker;
use crate::program::{loadgen, run};

#[test]
fn every_profile_leaves_a_report_that_follows_the_schema() {
    let schema: Value = serde_json::from_slice(&run(loadgen(), &["schema"], "").with(0).stdout).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a schema");
    let broker = Broker::start(&[]);
    let url = broker.url();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    for (options, clocks) in [
        ("produce -n 3000 -b 10 -c 3 --rate 30k", "response send_lag service"),
        ("consume --until-tail", "answer"),
        ("consume --idle --consumers 3 -d 1500ms", ""),
        ("e2e -n 300 -c 3 --rate 3k", "end_to_end response send_lag service"),
        (
            "mixed -c 2 --rate 1k -b 10 --browsers 20 --consumers 2 --observers 2 --query-every 200ms -d 1s",
            "browsers_response browsers_send_lag browsers_service queries_query response send_lag service",
        ),
        ("catchup -n 3000 -b 100 -c 3", "answer"),
    ] {
        let mut arguments: Vec<&str> = options.split(' ').collect();
        arguments.extend(["--url", &url, "--group", "load", "-o", "json", "--out", out]);
        let ended = run(loadgen(), &arguments, "");
        let printed: Value = serde_json::from_slice(&ended.with(0).stdout).expect("a summary");
        let report: Value = serde_json::from_slice(&fs::read(directory.path().join("report.json")).unwrap()).unwrap();
        let wrong: Vec<_> =
            schema.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{options}: {wrong:#?}\n{report:#}");
        assert_eq!((&report["summary"], &report["exit_code"]), (&printed, &json!(0)));
        assert_eq!(report["version"]["broker"], env!("CARGO_PKG_VERSION"));
        let broker = &report["broker"];
        assert_eq!(broker["state"], "told", "{options}: {broker:#}");
        if !options.starts_with("consume") {
            let handled = [&broker["whole"]["events_in_per_second"], &broker["whole"]["events_out_per_second"]];
            assert!(handled.iter().any(|rate| rate.as_f64() > Some(0.0)), "{options}: {broker:#}");
        }
        let points = report["series"].as_array().unwrap();
        assert!(options.contains("--idle") || !points.is_empty(), "{options}: {report:#}");
        let parts: Vec<_> = report["series_of"].as_object().unwrap().keys().collect();
        let mixed = ["browsers", "consumers", "queries"];
        assert_eq!(parts, if options.starts_with("mixed") { &mixed[..] } else { &[] }, "{options}");
        let ran = report["clocks"].as_object().unwrap();
        assert!(clocks.split_whitespace().all(|clock| ran.contains_key(clock)), "{options}: {:?}", ran.keys());
        let mut expected: Vec<_> = ran.keys().map(|clock| format!("{}.hgrm", clock.replace('_', "-"))).collect();
        expected.extend(["report.html", "report.json", "series.csv"].map(str::to_owned));
        expected.extend(parts.iter().map(|part| format!("series-{part}.csv")));
        expected.sort();
        let names = fs::read_dir(out).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, expected, "{options}");
        for (part, told) in parts_of(&report) {
            let name = if part.is_empty() { "series.csv".to_owned() } else { format!("series-{part}.csv") };
            let table = fs::read_to_string(directory.path().join(name)).unwrap();
            let points = if part.is_empty() { &report["series"] } else { &report["series_of"][part] };
            sums_agree(points, &told["measured"], &format!("{options}, part {part:?}"));
            table_agrees(&table, points, &format!("{options}, part {part:?}"));
            clocks_agree(&report, part, told, directory.path());
        }
    }
}

/// The parts of a run, by the names of their series, and what the summary tells of each.
fn parts_of(report: &Value) -> Vec<(&str, &Value)> {
    let summary = &report["summary"];
    if summary["profile"] != "mixed" {
        return vec![("", summary)];
    }
    let others = report["series_of"].as_object().unwrap().keys().map(|name| (name.as_str(), &summary[name]));
    [("", &summary["services"])].into_iter().chain(others).collect()
}

/// Second by second it is as much as on the whole.
fn sums_agree(points: &Value, measured: &Value, what: &str) {
    let answers = if measured["answers"].is_null() { "requests" } else { "answers" };
    for (field, whole) in [("events", "events"), ("bytes", "bytes"), ("requests", answers)] {
        let sum: u64 = points.as_array().unwrap().iter().map(|point| point[field].as_u64().unwrap()).sum();
        assert_eq!(json!(sum), measured[whole], "{what}: {field}");
    }
}

/// A table holds what the points do, and nothing where they have nothing.
fn table_agrees(table: &str, points: &Value, what: &str) {
    let mut rows = table.lines().map(|line| line.split(','));
    let columns: Vec<&str> = rows.next().unwrap().collect();
    let rows: Vec<Vec<&str>> = rows.map(Iterator::collect).collect();
    assert_eq!(rows.len(), points.as_array().unwrap().len(), "{what}: {table}");
    for (row, point) in rows.iter().zip(points.as_array().unwrap()) {
        assert_eq!(row.len(), columns.len(), "{what}: {table}");
        for (column, cell) in columns.iter().zip(row).filter(|(column, _)| **column != "events_per_second") {
            let quantile = ["p50", "p90", "p99", "p99_9", "max"]
                .into_iter()
                .find_map(|quantile| Some((column.strip_suffix(&format!("_{quantile}_ns"))?, quantile)));
            let value = match quantile {
                Some((clock, quantile)) => &point[format!("{clock}_ns")][quantile],
                None => &point[*column],
            };
            assert_eq!(*cell, if value.is_null() { String::new() } else { value.to_string() }, "{what}: {column}");
        }
    }
}

/// Each clock that ran has as many times as there were such answers, and the same percentiles everywhere.
fn clocks_agree(report: &Value, part: &str, told: &Value, directory: &Path) {
    let measured = &told["measured"];
    let page = fs::read_to_string(directory.join("report.html")).unwrap();
    let mut seen = 0;
    for clock in ["response", "service", "send_lag", "end_to_end", "answer", "delivery", "ack", "query"] {
        let label = if part.is_empty() { clock.to_owned() } else { format!("{part}_{clock}") };
        let Some(times) = report["clocks"].get(&label) else { continue };
        seen += 1;
        let count = times["count"].as_u64().unwrap();
        let number = |pointer: &str| told.pointer(pointer).and_then(Value::as_u64).unwrap();
        let expected = match clock {
            // What a busy machine did not come to send has waited, too.
            "response" | "send_lag" => number("/measured/requests") + number("/plan/unsent"),
            "service" => number("/measured/requests"),
            "end_to_end" => number("/delivered/events") - number("/delivered/untimed"),
            "ack" => number("/measured/acks"),
            "query" => number("/measured/answers"),
            // What was held until events came is of the one clock, or the other.
            _ => count.max(1),
        };
        assert_eq!(count, expected, "{label}: {told:#}");
        let summed = if clock == "end_to_end" { &told["delivered"] } else { measured };
        for (quantile, field) in [("p50", "p50"), ("p99.9", "p99_9"), ("max", "max")] {
            if let Some(us) = summed[format!("{clock}_us")][quantile].as_f64() {
                assert_eq!(times["percentiles_ns"][field], (us * 1e3).round() as u64, "{label} {quantile}");
            }
        }
        let text = fs::read_to_string(directory.join(format!("{}.hgrm", label.replace('_', "-")))).unwrap();
        assert!(text.contains(&format!("Total count    = {count:12}]")), "{label}: {text}");
        let name = if label == "queries_query" { "query".to_owned() } else { label.replace('_', " ") };
        let row = page.split(&format!("<tr><th>{name}</th><td>")).nth(1).and_then(|rest| rest.split("</td>").next());
        let digits: String = row.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, count.to_string(), "{label} on the page");
    }
    assert!(seen > 0 || measured["events"] == 0, "{part}: {measured}");
}
