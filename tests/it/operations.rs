//! What an operator asks, and how a broker ends.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::http::Client;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const EVENTS: &str = "/v1/groups/orders/events";

fn orders(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(settings);
    broker.create("orders", "");
    broker
}

#[test]
fn a_broker_says_how_it_is() {
    let broker = orders(&[("cores", "2")]);
    let mut client = broker.client();
    assert_eq!(client.get("/livez").json(), json!({ "status": "alive" }));
    let ready = client.get("/readyz");
    assert_eq!((ready.status, ready.json()), (200, json!({ "ready": true, "reasons": [] })));
    eventually("earlier connections are forgotten", || client.get("/v1/status").json()["connections"] == 1);
    let status = client.get("/v1/status").json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["draining"], &status["groups"], &status["connections"]), (&json!(false), &json!(1), &json!(1)));
    assert_eq!(status["data"], broker.data().to_str().expect("text"));
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(2));
    assert!(status["disk"]["free_bytes"].as_u64() > status["disk"]["reserve_bytes"].as_u64(), "{status}");
    assert!(status["resident_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{status}");
}

#[test]
fn below_its_reserve_a_broker_reads_on_and_takes_no_more_than_it_has_room_for() {
    let mut broker = orders(&[]);
    broker.produce_lines("orders", "a\nb");
    broker.stop();
    broker.configure(&[("storage.reserve", "4EiB")]);
    broker.restart();
    let mut client = broker.client();
    // The room that was allocated before may be used up.
    let event = "x".repeat(10_000);
    let mut stored = 2;
    let answer = loop {
        let answer = client.ask("POST", EVENTS, &[], &event);
        if answer.status != 200 {
            break answer;
        }
        assert_eq!(answer.json()["first_offset"], stored);
        stored += 1;
        assert!(stored < 100, "a megabyte was found where nothing may be allocated");
    };
    answer.assert_problem(507, "disk_full", "below the reserve");
    assert_eq!((&answer.json()["effect"], &answer.json()["retryable"]), (&json!("none"), &json!(true)));
    client.assert_in_step("a full disk");
    assert_eq!(client.get(EVENTS).events().len(), stored, "reads go on, and nothing more was stored");
    assert_eq!(client.get("/livez").status, 200);
    let ready = client.get("/readyz");
    assert_eq!((ready.status, &ready.json()["reasons"][0]["code"]), (503, &json!("disk_full")));
    broker.stop();
    broker.configure(&[]);
    broker.restart();
    assert_eq!(broker.produce_lines("orders", &event), stored as u64);
}

#[test]
fn a_broker_that_ends_finishes_what_it_began_and_refuses_the_rest() {
    let mut broker = orders(&[("drain", "60s")]);
    let mut idle = broker.client();
    idle.assert_in_step("nothing");
    let mut waiting = broker.client();
    waiting.send(Client::request("GET", &format!("{EVENTS}?from=latest&wait=60s"), &[], ""));
    // Whoever began a request before the end may finish it.
    let halves = [
        Client::request("GET", "/readyz", &[], ""),
        Client::request("GET", &format!("{EVENTS}?from=0"), &[], ""),
        Client::request("POST", EVENTS, &[], "x"),
        Client::request("PUT", "/v1/groups/another", &[], ""),
    ];
    let mut clients: Vec<Client> = halves.iter().map(|_| broker.client()).collect();
    for (client, half) in clients.iter_mut().zip(&halves) {
        client.assert_in_step("nothing");
        client.send(&half[..10]);
    }
    // Enough time for ten bytes to arrive is given by whoever comes after them.
    clients.iter().for_each(|_| broker.client().assert_in_step("halves"));
    broker.terminate();
    idle.assert_closed("the broker's end");
    let answer = waiting.answer();
    assert_eq!((answer.status, answer.events().len()), (200, 0), "a wait ends");
    for (client, half) in clients.iter_mut().zip(&halves) {
        client.send(&half[10..]);
    }
    let answers: Vec<_> = clients.iter_mut().map(Client::answer).collect();
    assert_eq!((answers[0].status, &answers[0].json()["reasons"][0]["code"]), (503, &json!("draining")));
    assert_eq!(answers[1].status, 200);
    for (answer, name) in [(&answers[2], "an event"), (&answers[3], "a group")] {
        answer.assert_problem(503, "draining", name);
        assert_eq!((&answer.json()["effect"], &answer.json()["retryable"]), (&json!("none"), &json!(true)));
    }
    clients.iter_mut().for_each(|client| client.assert_closed("an answer of an ending broker"));
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn what_was_answered_before_the_end_is_there_after_it() {
    let mut broker = orders(&[("cores", "2")]);
    let answered = AtomicU64::new(0);
    let kept: Vec<(u64, String)> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let mut client = broker.client();
                let answered = &answered;
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for number in 0.. {
                        let event = format!("{producer} {number}");
                        client.send_anyway(Client::request("POST", EVENTS, &[], &event));
                        if client.closed() {
                            break;
                        }
                        let answer = client.answer();
                        if answer.status == 503 {
                            answer.assert_problem(503, "draining", &event);
                            break;
                        }
                        kept.push((answer.json()["first_offset"].as_u64().expect("an offset"), event));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    kept
                })
            })
            .collect();
        eventually("two hundred are answered", || answered.load(Ordering::Relaxed) >= 200);
        broker.terminate();
        producers.into_iter().flat_map(|producer| producer.join().expect("no panic")).collect()
    });
    assert_eq!(broker.wait().code(), Some(0));
    broker.restart();
    let events = broker.get(&format!("{EVENTS}?limit=10000")).events();
    for (offset, event) in kept {
        assert_eq!(events.get(offset as usize).map(|event| &event["data"]), Some(&Value::from(event)), "{offset}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut broker = orders(&[("drain", "1h")]);
    let mut idle = broker.client();
    idle.assert_in_step("nothing");
    let mut client = broker.client();
    client.send("POST /v1/groups/orders/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx");
    broker.client().assert_in_step("half a body");
    let told = Instant::now();
    broker.terminate();
    idle.assert_closed("the first signal");
    broker.terminate();
    assert_eq!(broker.wait().code(), Some(130));
    assert!(told.elapsed() < PATIENCE);
}
