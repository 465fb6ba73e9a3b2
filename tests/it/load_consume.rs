//! `loadgen consume` against the broker: everything once and in order, acks at a rate, live readers.

use crate::broker::Broker;
use crate::program::{loadgen, run};
use serde_json::{Value, json};

const EVENTS: u64 = 3_000;

/// A group that holds events of 100 bytes.
fn filled() -> Broker {
    let broker = Broker::start(&[]);
    let url = broker.url();
    let filled =
        ["produce", "--url", &url, "--group", "load", "-n", &EVENTS.to_string(), "-b", "100", "-s", "100B", "-c", "2"];
    run(loadgen(), &filled, "").with(0);
    broker
}

fn consume(broker: &Broker, options: &[&str]) -> Value {
    let url = broker.url();
    let arguments = [&["consume", "--url", &url, "--group", "load", "-o", "json"][..], options].concat();
    let ended = run(loadgen(), &arguments, "");
    serde_json::from_slice(&ended.with(0).stdout).expect("a summary")
}

#[test]
fn many_consumers_read_everything_once_and_leave_nothing_behind() {
    let broker = filled();
    let seen = consume(&broker, &["--consumers", "20", "--until-tail", "--max", "300", "--threads", "2"]);
    assert_eq!(seen["measured"]["events"], 20 * EVENTS, "{seen}");
    assert_eq!((&seen["verify"]["lost"], &seen["verify"]["repeated"]), (&json!(0), &json!(0)), "{seen}");
    assert_eq!(seen["errors"], json!({}), "{seen}");
    assert_eq!(broker.get("/v1/consumers").json()["consumers"], json!([]), "they are removed at the end");
    let metrics = broker.get("/metrics");
    let acked: f64 = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("eddyline_consumer_acked_events_total"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    assert_eq!(acked, (20 * EVENTS) as f64, "and acked all of it");
}

#[test]
fn a_consumer_at_the_tail_measures_how_long_events_take_into_its_hands() {
    let broker = filled();
    let url = broker.url();
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let options = ["produce", "--url", &url, "--group", "load", "-d", "2s", "-c", "1", "-s", "100B"];
            run(loadgen(), &options, "").with(0);
        });
        let seen = consume(&broker, &["--start", "latest", "-d", "2s"]);
        producing.join().unwrap();
        assert!(seen["measured"]["events"].as_u64() > Some(0), "{seen}");
        assert!(seen["measured"]["delivery_us"]["p50"].as_f64() > Some(0.0), "{seen}");
        assert_eq!(seen["verify"]["lost"], 0, "{seen}");
    });
}

#[test]
fn acks_come_at_the_rate_that_was_asked_for_and_each_takes_one_event() {
    let broker = filled();
    let seen = consume(&broker, &["--consumers", "10", "--ack-rate", "100", "-d", "1s"]);
    let acks = seen["measured"]["acks"].as_u64().unwrap();
    // A busy machine is late; none is sent before its time.
    assert!((1..=110).contains(&acks), "{seen}");
    assert_eq!(seen["errors"], json!({}), "{seen}");
}

#[test]
fn live_readers_are_held_open_and_what_they_cost_is_told() {
    let broker = filled();
    let seen = consume(&broker, &["--consumers", "50", "--idle", "-d", "3s"]);
    assert_eq!(seen["measured"]["open"], 50, "{seen}");
    assert!(seen["memory"]["during_bytes"].as_u64() > Some(0), "{seen}");
}

#[test]
fn what_cannot_be_is_a_mistake_of_the_command_line_and_what_is_not_there_a_refusal() {
    let broker = Broker::start(&[]);
    let url = broker.url();
    for (options, code, words) in [
        (&["--consumers", "99k"][..], 2, "at most"),
        (&["--idle", "--ack-rate", "5"], 2, "cannot be used with"),
        (&["--idle", "--slo", "p50<1s"], 2, "cannot be used with"),
        (&["-d", "0s"], 2, "--duration"),
        (&["--until-tail"], 4, "no_group"),
    ] {
        let arguments = [&["consume", "--url", &url, "--group", "nowhere"][..], options].concat();
        let ended = run(loadgen(), &arguments, "");
        let ended = ended.with(code);
        assert!(ended.stderr.contains(words), "{options:?}: {}", ended.stderr);
    }
    let ended = run(loadgen(), &["consume", "--url", "http://127.0.0.1:1", "--group", "load"], "");
    ended.with(3);
}
