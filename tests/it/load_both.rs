//! `loadgen e2e`, `catchup` and `mixed` against the broker: everything that was sent comes to every consumer.

use crate::broker::Broker;
use crate::program::{loadgen, run};
use serde_json::{Value, json};

fn ran(broker: &Broker, profile: &str, options: &str, code: i32) -> Value {
    let url = broker.url();
    let mut arguments = vec![profile, "--url", &url, "--group", "load", "-o", "json"];
    arguments.extend(options.split(' '));
    let ended = run(loadgen(), &arguments, "");
    serde_json::from_slice(&ended.with(code).stdout).expect("a summary")
}

#[test]
fn what_is_produced_comes_to_every_consumer_and_is_timed_from_its_planned_send() {
    let broker = Broker::start(&[]);
    for (options, events, consumers) in [
        ("-n 500 -c 4 --rate 2k --consumers 3 --consumer-threads 2", 500, 3),
        ("-n 2000 -c 2 -b 50 --warmup 0s", 2000, 1),
    ] {
        let seen = ran(&broker, "e2e", options, 0);
        let delivered = &seen["delivered"];
        assert_eq!((&delivered["events"], &delivered["untimed"]), (&json!(events * consumers), &json!(0)), "{seen}");
        assert_eq!((&delivered["lost"], &delivered["repeated"]), (&json!(0), &json!(0)), "{seen}");
        assert_eq!((&seen["verify"]["verified"], &seen["profile"]), (&json!(events), &json!("e2e")), "{seen}");
        let micros = |pointer: &str| seen.pointer(pointer).and_then(Value::as_f64).unwrap();
        assert!(micros("/delivered/end_to_end_us/max") > 0.0, "{seen}");
    }
    assert_eq!(broker.get("/v1/consumers").json()["consumers"], json!([]), "they are removed at the end");
    let seen = ran(&broker, "e2e", "-n 50 -c 1 --rate 1k --slo p50<1h --slo max<1ns", 99);
    assert_eq!((&seen["objectives"][0]["met"], &seen["objectives"][1]["met"]), (&json!(true), &json!(false)), "{seen}");
}

#[test]
fn catching_up_reads_what_was_filled_in_and_nothing_before_it() {
    let broker = Broker::start(&[]);
    for (objective, code) in [("p99<1h", 0), ("max<1ns", 99)] {
        let options = format!("-n 3000 -c 2 -b 100 --consumers 4 --max 250 --slo {objective}");
        let seen = ran(&broker, "catchup", &options, code);
        assert_eq!(seen["objectives"][0]["met"], json!(code == 0), "the reading is judged, not the filling: {seen}");
        assert_eq!((&seen["measured"]["events"], &seen["profile"]), (&json!(12_000), &json!("consume")), "{seen}");
        assert_eq!(seen["verify"]["lost"], json!(0), "{seen}");
    }
}

#[test]
fn services_browsers_consumers_and_observers_go_together_and_each_part_is_verified() {
    let broker = Broker::start(&[]);
    let options = "-c 2 --rate 500 -b 5 -s 100..300 --browsers 4 --consumers 2 --observers 3 --query-every 300ms -d 1s --seed 1 --slo p50<1h";
    let seen = ran(&broker, "mixed", options, 0);
    let number = |pointer: &str| seen.pointer(pointer).and_then(Value::as_u64).unwrap();
    let stored = ["services", "browsers"].map(|part| {
        assert_eq!(seen[part]["verify"]["state"], "ok", "{seen}");
        assert_eq!(seen[part]["verify"]["verified"], seen[part]["verify"]["acked"], "{seen}");
        number(&format!("/{part}/verify/verified"))
    });
    assert!(stored[0] > 0 && stored[1] > 0, "{seen}");
    // What the one made is somebody else's to the other, as far as it was there when it was looked at.
    let foreign = ["services", "browsers"].map(|part| number(&format!("/{part}/verify/foreign")));
    assert!(foreign[0] <= stored[1] && foreign[1] <= stored[0], "{seen}");
    assert_eq!(number("/consumers/measured/events"), 2 * (stored[0] + stored[1]), "{seen}");
    assert_eq!((number("/missing"), number("/observers/measured/open")), (0, 3), "{seen}");
    assert!(number("/queries/measured/answers") > 0 && number("/observers/measured/bytes") > 0, "{seen}");
    assert_eq!(seen["services"]["objectives"][0]["met"], json!(true), "{seen}");
    let url = broker.url();
    let options = ["mixed", "--url", &url, "--group", "load", "-c", "1", "--rate", "10", "-d", "300ms", "--seed", "77"];
    let ended = run(loadgen(), &options, "").with(0);
    let text = ended.text();
    assert!(text.contains("group load  seed 77") && text.lines().count() <= 12, "{text}");
}

#[test]
fn what_consumers_cannot_take_part_in_is_a_mistake_of_the_command_line() {
    for (profile, options) in [
        ("e2e", "--groups 2"),
        ("e2e", "--payload /dev/null"),
        ("e2e", "--consumers 99k"),
        ("catchup", "--find-max --slo p50<1s"),
        ("mixed", "-n 5"),
        ("mixed", "--browser-like"),
        ("mixed", "--query-every 0s"),
    ] {
        let mut arguments = vec![profile, "--group", "load"];
        arguments.extend(options.split(' '));
        run(loadgen(), &arguments, "").with(2);
    }
}
