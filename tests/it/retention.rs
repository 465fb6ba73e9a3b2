//! Retention as its users see it: the log's beginning moves on, and everybody who wanted what went is told.

use crate::broker::{Broker, eventually};
use crate::consumer::Consumer;
use crate::live::{Reader, Told};
use serde_json::{Value, json};

/// Looks often, so that a test need not wait.
const OFTEN: (&str, &str) = ("storage.retention_every", "20ms");
const EVENT_BYTES: usize = 4000;

/// A group of small segments that holds events 0..`events`, 16 to a segment.
fn filled(options: &[(&str, &str)], events: u64) -> Broker {
    let broker = Broker::start(&[options, &[OFTEN]].concat());
    broker.create("orders", r#"{"segment":{"max_bytes":"64KiB"}}"#);
    fill(&broker, events);
    broker
}

fn fill(broker: &Broker, events: u64) {
    for _ in 0..events {
        broker.produce_lines("orders", &"x".repeat(EVENT_BYTES));
    }
}

fn info(broker: &Broker) -> Value {
    broker.get("/v1/groups/orders").json()
}

fn earliest(broker: &Broker) -> u64 {
    info(broker)["earliest"].as_u64().unwrap()
}

fn retain(broker: &Broker, retention: &Value) {
    let answer = broker.ask("PATCH", "/v1/groups/orders", &[], json!({ "retention": retention }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn the_oldest_segments_go_by_size_and_what_went_is_gone_also_after_a_kill() {
    let mut broker = filled(&[], 100);
    assert_eq!(earliest(&broker), 0, "nothing goes that nobody asked to go");
    retain(&broker, &json!({ "max_bytes": "150KiB" }));
    eventually("the first segments go", || earliest(&broker) > 0);
    let before = info(&broker);
    let (first, tail) = (earliest(&broker), before["tail"].as_u64().unwrap());
    assert_eq!((tail, before["events"].as_u64()), (100, Some(100 - first)));
    assert!(before["bytes"].as_u64() >= Some(150 << 10), "{before}");
    for (target, code) in [
        ("/v1/groups/orders/events?from=0".to_owned(), "gone"),
        ("/v1/groups/orders/events/0".to_owned(), "gone"),
        (format!("/v1/groups/orders/events?from={}", first - 1), "gone"),
    ] {
        let answer = broker.get(&target);
        answer.assert_problem(410, code, &target);
        assert_eq!(
            (answer.json()["earliest"].as_u64(), answer.header("eddyline-earliest")),
            (Some(first), Some(&*first.to_string()))
        );
    }
    assert_eq!(broker.get("/v1/groups/orders/events").offsets()[0], first);
    assert_eq!(broker.get("/v1/groups/orders/events?from=last:1000").offsets()[0], first);
    broker.kill9();
    broker.restart();
    assert!(earliest(&broker) >= first, "what went does not come back");
    assert_eq!(broker.get("/v1/groups/orders/events").offsets().last(), Some(&99));
    let metrics = broker.get("/metrics");
    assert!(metrics.text().contains("eddyline_trimmed_segments_total"), "{metrics:?}");
}

#[test]
fn a_quiet_group_is_emptied_by_age_and_goes_on_behind_what_it_had() {
    let broker = Broker::start(&[OFTEN]);
    broker.create("orders", r#"{"retention":{"max_age":"1s"},"segment":{"max_age":"1s"}}"#);
    broker.produce_lines("orders", "a\nb");
    eventually("all of it is old", || earliest(&broker) == 2);
    let now = info(&broker);
    assert_eq!(
        (&now["tail"], &now["events"], &now["bytes"], &now["segments"]),
        (&json!(2), &json!(0), &json!(0), &json!(0))
    );
    assert_eq!(broker.get("/v1/groups/orders/events").offsets(), [0_u64; 0]);
    broker.produce_lines("orders", "c");
    assert_eq!(broker.get("/v1/groups/orders/events").offsets(), [2]);
}

#[test]
fn a_consumer_left_behind_has_a_gap_in_every_way_to_read_and_can_fail_and_ack_behind_it() {
    let broker = filled(&[], 100);
    let billing = Consumer::approved(&broker, "orders", "billing", r#"{"max_in_flight":{"events":5}}"#);
    assert_eq!(billing.offsets(&broker, "max=3"), [0, 1, 2]);
    billing.acked(&broker, 1, "");
    retain(&broker, &json!({ "max_bytes": "150KiB" }));
    eventually("the first segments go", || earliest(&broker) > 2);
    let first = earliest(&broker);
    let status = billing.status(&broker);
    assert_eq!((&status["state"], &status["gap"]), (&json!("gap"), &json!({ "from": 2, "to": first })));
    assert_eq!((&status["lag"]["events"], &status["cursor"]["next"]), (&json!(100 - first), &json!(2)));
    let (mut stream, _) = billing.stream(&broker, "");
    assert_eq!(stream.next(), Some(Told::Control("gap".into(), json!({ "from": 2, "to": first }))), "before any event");
    drop(stream);
    let batch = billing.next(&broker, "takeover=1");
    assert_eq!(
        (batch.offsets(), &batch.json()["gap"]),
        ((first..first + 5).collect(), &json!({ "from": 2, "to": first }))
    );
    let nack = billing.call(&broker, "POST", "/nack", &json!({ "offset": first }).to_string());
    assert_eq!(nack.status, 200, "{}", nack.text());
    let attempts = nack.json()["attempts"].as_u64().unwrap();
    assert_eq!(billing.next(&broker, "").json()["attempt"], attempts + 1);
    billing.acked(&broker, first + 1, "");
    assert_eq!(billing.status(&broker)["gap"], Value::Null);
    let rewind = billing.call(&broker, "POST", "/rewind", r#"{"to":0}"#);
    rewind.assert_problem(410, "gone", "what went");
}

#[test]
fn who_is_protected_loses_nothing_up_to_the_hard_limit_and_then_is_told_of_in_the_audit_log() {
    let mut broker = filled(&[], 60);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    billing.offsets(&broker, "max=50");
    billing.acked(&broker, 39, "");
    retain(&broker, &json!({ "max_bytes": "1B", "protect": ["billing", "nobody"], "max_bytes_hard": "1MiB" }));
    eventually("what is acked goes", || earliest(&broker) > 0);
    let held = earliest(&broker);
    assert!(held <= 40 && held > 20, "{held}");
    assert_eq!(info(&broker)["not_protected"], json!(["nobody"]));
    fill(&broker, 60);
    assert_eq!(earliest(&broker), held, "nothing that it did not ack");
    retain(&broker, &json!({ "max_bytes_hard": "200KiB" }));
    eventually("the disk matters more", || earliest(&broker) > 40);
    let first = earliest(&broker);
    eventually("it is told", || {
        let told = broker.get("/v1/groups/_audit/events").json();
        told["events"].as_array().unwrap().iter().any(|event| {
            let data = &event["data"];
            data["action"] == "group.events_lost"
                && data["group"] == "orders"
                && data["lost"][0] == json!({ "consumer": "billing", "from": 40, "to": first })
        })
    });
    broker.kill9();
    broker.restart();
    let status = billing.status(&broker);
    assert_eq!((&status["state"], status["gap"]["from"].as_u64()), (&json!("gap"), Some(40)));
}

#[test]
fn a_live_reader_that_is_overtaken_is_told_of_the_gap_and_goes_on() {
    for live in ["sse", "ndjson"] {
        // More than sockets hold, so that the reader stands still where it is until it reads on.
        let broker = filled(&[], 0);
        let lines = vec!["x".repeat(EVENT_BYTES); 100].join("\n");
        (0..60).for_each(|_| _ = broker.produce_lines("orders", &lines));
        let mut reader = Reader::follow(&broker, live, "&from=0", &[]);
        retain(&broker, &json!({ "max_bytes": "100KiB" }));
        eventually("the segment it stands in goes", || earliest(&broker) >= 5000);
        let (mut next, mut gaps) = (0, 0);
        loop {
            match reader.next().expect("it goes on") {
                Told::Event(event) => {
                    assert_eq!(event["offset"], next, "{live}");
                    next += 1;
                }
                Told::Control(name, members) if name == "gap" => {
                    assert_eq!(members["from"], next, "{live}");
                    next = members["to"].as_u64().unwrap();
                    gaps += 1;
                }
                Told::Control(name, _) if name == "up_to_date" => break,
                Told::Control(..) => {}
            }
        }
        assert_eq!((next, gaps), (6000, 1), "{live}: it was overtaken once");
    }
}
