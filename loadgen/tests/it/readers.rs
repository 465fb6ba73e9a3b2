//! Consumers against a broker that gives them everything once and in order, or does not.

use serde_json::{Value, json};

use crate::fake::{Broker, Manners, ReaderFault};
use crate::runs::{Ran, loadgen, ran};

const EVENTS: u64 = 300;

fn filled(readers: Option<ReaderFault>) -> Broker {
    let broker = Broker::with(Manners { readers, page_events: 100, ..Manners::default() });
    (0..EVENTS).for_each(|number| broker.store("load", format!("{{\"n\":{number}}}").as_bytes()));
    broker
}

fn consume(broker: &Broker, options: &str) -> Ran {
    let mut command = loadgen();
    command.args(["consume", "--url", &broker.url(), "--group", "load", "-o", "json"]).args(options.split_whitespace());
    ran(command)
}

#[test]
fn consumers_are_given_everything_second_by_second_and_leave() {
    let broker = filled(None);
    let directory = tempfile::tempdir().unwrap();
    let options =
        format!("--consumers 3 --max 50 --until-tail --threads 2 --slo p99<1h --out {}", directory.path().display());
    let ran = consume(&broker, &options);
    assert_eq!((ran.code, ran.number("/measured/events")), (0, 3 * EVENTS), "{ran:?}");
    assert_eq!(ran.value("/objectives/0/met"), json!(true), "{ran:?}");
    assert_eq!(broker.consumers(), 0, "nobody is left behind");
    let report = std::fs::read(directory.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let points = report["series"].as_array().unwrap();
    let sum = |field: &str| points.iter().map(|point| point[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("events"), sum("bytes")), (3 * EVENTS, ran.number("/measured/bytes")), "{report:#}");
    assert_eq!(sum("requests"), ran.number("/measured/answers"));
    assert!(points[0]["answer_ns"]["p50"].as_u64() > Some(0), "{report:#}");
    assert_eq!(points[0]["ack_ns"].as_object().is_some(), report["clocks"]["ack"].is_object());
}

#[test]
fn whatever_is_wrong_with_what_they_are_given_has_its_exit_code_and_its_words() {
    for (fault, options, code, verdict, words) in [
        (Some(ReaderFault::Withhold(77)), "", 1, "INCORRECT", "offset 78 where 77 should be"),
        (Some(ReaderFault::Repeat(77)), "", 1, "INCORRECT", "offset 77 where 78 should be"),
        (Some(ReaderFault::Withhold(EVENTS - 1)), "", 1, "INCORRECT", "ends at 300 instead of 299"),
        (Some(ReaderFault::Garble), "", 1, "INCORRECT", "an answer that cannot be read"),
        (Some(ReaderFault::Refuse), "-d 1h", 4, "", "refused the load: "),
        (Some(ReaderFault::Silence), "-d 1h --timeout 300ms", 3, "UNSTABLE", ""),
        (Some(ReaderFault::Busy), "-d 1h --timeout 300ms", 4, "UNSTABLE", ""),
        (None, "--slo max<1ns", 99, "", ""),
    ] {
        let end = if options.contains("-d") { "" } else { "--until-tail -d 1s" };
        let broker = filled(fault);
        let ran = consume(&broker, &format!("--consumers 2 {options} {end}"));
        assert_eq!(ran.code, code, "{fault:?}: {ran:?}");
        assert!(ran.stderr.contains(words), "{fault:?}: {ran:?}");
        assert!(verdict.is_empty() || ran.value("/verdict") == json!(verdict), "{fault:?}: {ran:?}");
        assert_eq!(broker.consumers(), 0, "{fault:?}: nobody is left behind");
    }
}

#[test]
fn a_catchup_that_is_cut_off_is_no_whole_one() {
    let ran = consume(&filled(Some(ReaderFault::Silence)), "--consumers 2 --until-tail -d 100ms --timeout 2s");
    let reason = json!("2 consumers did not come to the tail");
    assert_eq!((ran.code, ran.value("/verdict"), ran.value("/reason")), (0, json!("UNSTABLE"), reason), "{ran:?}");
}

#[test]
fn objectives_of_acks_are_about_acks() {
    let ran = consume(&filled(None), "--ack-rate 100 -d 1s --slo max<1h --slo p50<1ns");
    let measured = |place: usize| ran.value(&format!("/objectives/{place}/measured")).as_u64().unwrap();
    assert_eq!((ran.code, ran.value("/objectives/1/met")), (99, json!(false)), "{ran:?}");
    let micros = |pointer: &str| ran.value(pointer).as_f64().unwrap();
    assert_eq!(measured(0) as f64 / 1e3, micros("/measured/ack_us/max"), "{ran:?}");
    assert_eq!(measured(1) as f64 / 1e3, micros("/measured/ack_us/p50"), "{ran:?}");
}
