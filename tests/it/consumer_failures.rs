//! What cannot be processed: failures, delays, poison that stalls, dead letters and their replay, and damage on disk.

use crate::broker::{Broker, PATIENCE};
use crate::consumer::{Consumer, orders, produce};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LETTERS: &str = r#"{"max_attempts":2,"on_poison":"dead_letter"}"#;

/// Lets the event at the head fail once; gives the answer.
fn fail(broker: &Broker, consumer: &Consumer, offset: u64, reason: &str) -> Value {
    assert_eq!(consumer.offsets(broker, "max=1&wait=10s"), [offset]);
    let answer = consumer.nack(broker, &format!(r#""offset":{offset},"reason":"{reason}""#), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_failure_is_tried_again_after_its_delay_and_the_attempts_are_counted() {
    let mut broker = orders(&[("http.heartbeat", "10m")], 5);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let began = Instant::now();
    assert_eq!(billing.offsets(&broker, ""), [0, 1, 2, 3, 4]);
    let answer = billing.nack(&broker, r#""offset":0,"delay_ms":300,"reason":"not now""#, "").json();
    assert_eq!(answer, json!({ "offset": 0, "attempts": 1, "poison": false }));
    let blocked = billing.next(&broker, "").json();
    assert_eq!((&blocked["events"], &blocked["blocked"]), (&json!([]), &json!("delay")));
    assert_eq!(billing.status(&broker)["reason"], "delay");
    let again = billing.next(&broker, "wait=20s").json();
    assert_eq!((&again["attempt"], again["events"].as_array().map(Vec::len)), (&json!(2), Some(5)));
    assert!(began.elapsed() >= Duration::from_millis(300), "it came before its time");
    billing.nack(&broker, r#""offset":0,"delay_ms":3600000,"reason":"later""#, "");
    broker.restart();
    let status = billing.status(&broker);
    assert_eq!((&status["attempt"], &status["last_failure"]), (&json!(3), &json!("later")));
    assert_eq!(billing.offsets(&broker, "max=1"), [0], "a restart forgets the delay");
    billing.acked(&broker, 0, "");
    assert_eq!(
        (&billing.status(&broker)["attempt"], &billing.status(&broker)["last_failure"]),
        (&json!(1), &Value::Null)
    );

    let streams = Consumer::subscribed(&broker, "orders", "streams", "");
    let (mut stream, session) = streams.stream(&broker, "");
    stream.until("up_to_date");
    streams.acked(&broker, 1, &session);
    assert_eq!(streams.nack(&broker, r#""offset":2,"delay_ms":200"#, &session).status, 200);
    assert_eq!(stream.until("retry"), json!({ "next": 2 }));
    (2..5).for_each(|offset| assert_eq!(stream.offset(), offset));
}

#[test]
fn poison_stalls_until_somebody_decides() {
    let broker = orders(&[("http.heartbeat", "10m")], 5);
    let billing = Consumer::approved(&broker, "orders", "billing", r#"{"max_attempts":2}"#);
    assert_eq!(fail(&broker, &billing, 0, "first")["poison"], false);
    assert_eq!(billing.offsets(&broker, "max=5"), [0], "the last attempt is made with it alone");
    assert_eq!(fail(&broker, &billing, 0, "second")["poison"], true);
    let blocked = billing.next(&broker, "").json();
    assert_eq!((&blocked["events"], &blocked["blocked"]), (&json!([]), &json!("poison")));
    let status = billing.status(&broker);
    assert_eq!((&status["state"], &status["reason"]), (&json!("stuck"), &json!("poison")));
    let mut poll = billing.ask_next(&broker, "wait=60s");
    assert_eq!(billing.call(&broker, "POST", "/approve", r#"{"max_attempts":3}"#).status, 200);
    assert_eq!(poll.answer().offsets(), [0], "more attempts");
    billing.nack(&broker, r#""offset":0"#, "");
    let mut poll = billing.ask_next(&broker, "wait=60s");
    assert_eq!(billing.rewind(&broker, r#"{"to":1,"skip":true}"#).json()["skipped"], 1);
    assert_eq!(poll.answer().offsets(), [1, 2, 3, 4], "or on behind it");
}

#[test]
fn a_letter_holds_the_event_and_its_story() {
    for cores in ["1", "2"] {
        let broker = Broker::start(&[("cores", cores)]);
        for group in ["first", "orders", "third"] {
            broker.create(group, "");
        }
        let headers = [("Content-Type", "text/csv"), ("Eddyline-Key", "k1"), ("Eddyline-Meta-Trace", "t1")];
        for body in [&b"good"[..], b"b\xffd", b"good"] {
            assert_eq!(broker.ask("POST", "/v1/groups/orders/events", &headers, body).status, 200);
        }
        let event = broker.get("/v1/groups/orders/events?from=1&limit=1").events().remove(0);
        let billing = Consumer::approved(&broker, "orders", "billing", LETTERS);
        assert_eq!(billing.offsets(&broker, "max=1"), [0]);
        billing.acked(&broker, 0, "");
        fail(&broker, &billing, 1, "no such customer");
        fail(&broker, &billing, 1, "still none");
        assert_eq!(billing.offsets(&broker, "wait=10s"), [2], "it goes on behind the letter");
        let status = billing.status(&broker);
        assert_eq!((&status["dead_lettered"], &status["attempt"]), (&json!(1), &json!(1)));
        let letters = broker.get("/v1/groups/orders.dead/events").events();
        assert_eq!(letters.len(), 1, "{letters:?}");
        for member in ["key", "content_type", "encoding", "data", "length"] {
            assert_eq!(letters[0][member], event[member], "{member}");
        }
        let expected = json!({
            "trace": "t1", "dead-group": "orders", "dead-consumer": "billing", "dead-offset": "1",
            "dead-id": event["id"], "dead-received": event["received"], "dead-attempts": "2", "dead-reason": "still none",
        });
        assert_eq!(letters[0]["headers"], expected);
        let raw = broker.get("/v1/groups/orders.dead/events/0");
        assert_eq!((&raw.body[..], raw.header("eddyline-key")), (&b"b\xffd"[..], Some("k1")));
    }
}

#[test]
fn a_session_that_ends_without_an_ack_is_a_failure_and_poison_is_buried_for_a_stream_too() {
    let broker = orders(&[("http.heartbeat", "10m")], 4);
    let billing = Consumer::approved(&broker, "orders", "billing", LETTERS);
    assert_eq!(billing.offsets(&broker, ""), [0, 1, 2, 3]);
    assert_eq!(billing.offsets(&broker, "takeover=1"), [0], "the last attempt");
    assert_eq!(billing.call(&broker, "DELETE", "/session", "").status, 204);
    assert_eq!(billing.next(&broker, "").json()["attempt"], 2, "who leaves is no failure of the event");
    assert_eq!(billing.call(&broker, "POST", "/suspend", "").status, 200);
    assert_eq!(billing.call(&broker, "POST", "/resume", "").status, 200);
    assert_eq!(billing.next(&broker, "").json()["attempt"], 2, "nor is who is suspended");
    let (mut stream, session) = billing.stream(&broker, "takeover=1");
    (1..4).for_each(|offset| assert_eq!(stream.offset(), offset));
    billing.acked(&broker, 1, &session);
    for attempt in 1..=2 {
        assert_eq!(billing.nack(&broker, r#""offset":2"#, &session).json()["attempts"], attempt);
        stream.until("retry");
        assert_eq!(stream.offset(), 1 + attempt);
        if attempt == 1 {
            continue;
        }
        billing.acked(&broker, 3, &session);
    }
    let letters = broker.get("/v1/groups/orders.dead/events").events();
    let story = |name: &str| letters.iter().map(|letter| letter["headers"][name].clone()).collect::<Vec<_>>();
    assert_eq!(story("dead-offset"), ["0", "2"]);
    assert_eq!(story("dead-reason"), ["the session ended without an ack", ""]);
}

#[test]
fn letters_are_delivered_again_from_where_their_events_stand() {
    let broker = orders(&[], 12);
    let [billing, other] = ["billing", "other"].map(|name| {
        let terms = r#"{"max_attempts":1,"on_poison":"dead_letter"}"#;
        Consumer::approved(&broker, "orders", name, terms)
    });
    let nothing = billing.call(&broker, "POST", "/replay", "").json();
    assert_eq!(nothing, json!({ "events": 0, "gone": 0, "next": 0 }));
    for (consumer, poison) in [(&billing, [2, 3, 7]), (&other, [0, 1, 2])] {
        for offset in 0..10 {
            assert_eq!(consumer.offsets(&broker, "max=1&wait=10s"), [offset]);
            match poison.contains(&offset) {
                true => drop(consumer.nack(&broker, &format!(r#""offset":{offset}"#), "")),
                false => consumer.acked(&broker, offset, ""),
            }
        }
    }
    let replayed = billing.call(&broker, "POST", "/replay", "").json();
    assert_eq!((&replayed["events"], &replayed["gone"], &replayed["next"]), (&json!(3), &json!(0), &json!(6)));
    for offset in [2, 3, 7] {
        let batch = billing.next(&broker, "max=1").json();
        assert_eq!((&batch["events"][0]["offset"], &batch["replay"]), (&json!(offset), &json!(true)));
        billing.acked(&broker, offset, "");
    }
    assert_eq!(billing.offsets(&broker, "max=1"), [10], "then it goes on where it was");
    // Page by page.
    let first = other.call(&broker, "POST", "/replay", r#"{"limit":2}"#).json();
    assert_eq!(first["events"], 2);
    let rest = other.call(&broker, "POST", "/replay", &format!(r#"{{"from":{}}}"#, first["next"])).json();
    assert_eq!((&rest["events"], &rest["next"]), (&json!(1), &json!(6)));
    assert_eq!(other.status(&broker)["replays"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_group_that_is_made_again_has_its_letters_in_its_shard() {
    let broker = Broker::start(&[("cores", "2")]);
    broker.create("orders", "");
    produce(&broker, 0..2);
    Consumer::approved(&broker, "orders", "billing", LETTERS);
    // The other shard has fewer groups now.
    assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
    broker.create("orders", "");
    produce(&broker, 0..2);
    let billing = Consumer::approved(&broker, "orders", "billing", LETTERS);
    let first = billing.position(&broker);
    let shard = |group: &str| broker.get(&format!("/v1/groups/{group}")).json()["shard"].clone();
    assert_eq!(shard("orders"), shard("orders.dead"));
    fail(&broker, &billing, first, "");
    fail(&broker, &billing, first, "");
    assert_eq!(billing.offsets(&broker, "wait=10s"), [first + 1]);
}

#[test]
fn damage_at_its_position_blocks_a_consumer_and_says_so() {
    let mut broker = orders(&[], 0);
    let line = "x".repeat(1000);
    for _ in 0..200 {
        broker.produce_lines("orders", &line);
    }
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    broker.stop();
    // In the second segment.
    let segments = std::fs::read_dir(broker.data().join("shard-000/segments")).unwrap();
    let mut files: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    broker.restart();
    let mut last = None;
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        assert!(Instant::now() < deadline, "no damage is met");
        let answer = billing.next(&broker, "max=20");
        if answer.status != 200 {
            break answer;
        }
        last = answer.offsets().last().copied();
        billing.acked(&broker, last.unwrap(), "");
    };
    refused.assert_problem(500, "corrupt", "damage");
    assert!(last.is_some_and(|last| last > 10 && last < 199), "what is whole before it was given: {last:?}");
    let status = billing.status(&broker);
    assert_eq!((&status["state"], &status["reason"]), (&json!("blocked"), &json!("corrupt")));
    assert_eq!(billing.position(&broker), last.unwrap() + 1, "it stands before the damage");
    billing.call(&broker, "DELETE", "/session", "");
    billing.call(&broker, "GET", "/stream", "").assert_problem(500, "corrupt", "a stream that would begin there");
    let status = billing.status(&broker);
    assert_eq!(
        (&status["session"], &status["reason"]),
        (&Value::Null, &json!("corrupt")),
        "its session ended with that"
    );
    let behind = broker.get("/v1/groups/orders").json()["tail"].as_u64().unwrap() - 10;
    billing.rewind(&broker, &format!(r#"{{"to":{behind},"skip":true}}"#));
    assert_eq!(billing.offsets(&broker, "takeover=1"), (behind..behind + 10).collect::<Vec<_>>());
    assert_eq!(billing.status(&broker)["state"], "live");
}
