//! `--out`: what is left in the directory follows the published schema, whatever the run was like.

use std::path::Path;

use serde_json::{Value, json};

use crate::fake::{Broker, Fault, Manners};
use crate::runs::{Ran, against, loadgen};

fn published() -> jsonschema::Validator {
    let output = loadgen().arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

fn report(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("report.json")).unwrap()).unwrap()
}

fn with_report(broker: &Broker, directory: &Path, options: &str) -> (Ran, Value) {
    let ran = against(broker, &format!("{options} --out {}", directory.display()));
    let report = report(directory);
    (ran, report)
}

#[test]
fn reports_of_all_kinds_of_runs_follow_the_schema() {
    let schema = published();
    let directory = tempfile::tempdir().unwrap();
    let stages = "--stages 100ms:2k,100ms:4k --slo p99<1m --slo max<1h";
    for (options, fault, code) in [
        ("-n 300 -c 3", None, 0),
        ("-n 300 -c 3 --no-verify --threads 2", None, 0),
        ("-n 300 -c 2 -b 10 --producer-id p --rate 10k --arrivals constant", None, 0),
        (stages, None, 0),
        ("-n 300 -c 3 --slo max<1ns", None, 99),
        ("-n 300 -c 3", Some(Fault::Lose), 1),
        ("-n 300 -c 3", Some(Fault::Busy), 0),
        ("-n 300 -c 3", Some(Fault::CloseAfter), 0),
        ("-n 300 -c 3", Some(Fault::Refuse), 1),
    ] {
        let faults = fault.map(|fault| (100, fault)).into_iter().collect();
        let broker = Broker::with(Manners { faults, page_events: 100, ..Manners::default() });
        let (ran, report) = with_report(&broker, directory.path(), options);
        assert_eq!(ran.code, code, "{options} {fault:?}: {ran:?}");
        let wrong: Vec<_> =
            schema.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{options} {fault:?}: {wrong:#?}\n{report:#}");
        assert_eq!(report["summary"], ran.value(""), "the object that was printed");
        assert_eq!((&report["exit_code"], report["command"][1].as_str()), (&json!(code), Some("produce")));
        assert_eq!(report["broker"]["state"], "silent", "{options}");
        assert!(ran.stderr.contains("the broker's metrics are unknown: the broker refused to tell its metrics: 404"));
        let series = report["series"].as_array().unwrap();
        let events: u64 = series.iter().map(|point| point["events"].as_u64().unwrap()).sum();
        assert_eq!(events, ran.number("/measured/events"), "{options}");
        assert_eq!(report["clocks"]["service"]["count"], report["summary"]["measured"]["requests"], "{options}");
        let rows = std::fs::read_to_string(directory.path().join("series.csv")).unwrap();
        assert_eq!(rows.lines().count(), series.len() + 1, "{options}");
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let schema = published();
    let directory = tempfile::tempdir().unwrap();
    let (_, report) = with_report(&Broker::honest(), directory.path(), "-n 30 -c 3 --rate 1k");
    for place in ["", "/summary", "/summary/measured", "/machine", "/version", "/clocks/service", "/series/0"] {
        let mut other = report.clone();
        other.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("surprise".into(), json!("x"));
        assert!(!schema.is_valid(&other), "something new in {place}");
        let mut other = report.clone();
        let object = other.pointer_mut(place).unwrap().as_object_mut().unwrap();
        let first = object.keys().next().unwrap().clone();
        object.remove(&first);
        assert!(!schema.is_valid(&other), "{place} without {first}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_found_before_anything_is_sent() {
    let broker = Broker::honest();
    let file = tempfile::NamedTempFile::new().unwrap();
    let ran = against(&broker, &format!("-n 30 -c 3 --out {}", file.path().display()));
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.contains(&format!("--out: cannot write {}", file.path().display())), "{ran:?}");
    assert!(broker.seen().is_empty(), "nothing was sent");
}

#[test]
fn reports_are_compared_and_the_exit_code_says_what_came_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let places = ["a", "b", "wrong"].map(|name| directory.path().join(name));
    let [a, b, wrong] = &places;
    for place in [a, b] {
        with_report(&Broker::honest(), place, "-n 300 -c 3");
    }
    let liar = Broker::with(Manners { faults: [(9, Fault::Lose)].into(), page_events: 100, ..Manners::default() });
    with_report(&liar, wrong, "-n 300 -c 4");
    // Times and rates are as the machine has them; here they are as the test wants them.
    let mut other = report(b);
    other["summary"]["measured"] = report(a)["summary"]["measured"].clone();
    other["clocks"] = report(a)["clocks"].clone();
    other["clocks"]["service"]["percentiles_ns"]["p99"] =
        json!(report(a)["clocks"]["service"]["percentiles_ns"]["p99"].as_u64().unwrap() * 2);
    for place in [a, b] {
        let mut sound = if place == a { report(a) } else { other.clone() };
        sound["summary"]["verdict"] = json!("VALID");
        std::fs::write(place.join("report.json"), sound.to_string()).unwrap();
    }
    for (first, second, options, code, part) in [
        (a, b, "", 0, ""),
        (a, b, "--max-regression 99.9%", 99, "regression: service p99 is worse by 100.0 %"),
        (a, b, "--max-regression 100.1%", 0, ""),
        (b, a, "--max-regression 0%", 0, ""),
        (a, wrong, "", 0, "the runs differ in connections: 3 and 4"),
        (a, wrong, "--max-regression 1000000%", 1, "INCORRECT"),
        (a, &directory.path().join("none"), "", 2, "cannot read"),
    ] {
        let output = loadgen().arg("compare").args([first, second]).args(options.split_whitespace()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{second:?} {options}: {told}");
        assert!(told.contains(part), "{second:?} {options}: {told}");
    }
    std::fs::write(a.join("report.json"), "{\"schema\":7}").unwrap();
    let output = loadgen().arg("compare").args([a, b]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is no report of this version of loadgen"));
}
