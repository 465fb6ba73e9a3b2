//! Reports of loadgen's profiles against the broker follow the schema that `loadgen schema` prints.

use std::fs;

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
    }
}
