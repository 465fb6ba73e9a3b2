//! Who reads for a consumer: one session at a time, leases, standing by, takeovers, readers that do not read, and how
//! much may be in flight.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::consumer::{Consumer, orders, produce};
use crate::http::Client;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longer than any test waits: what is answered before was woken.
const LONG: &str = "wait=60s";

#[test]
fn acks_and_failures_that_may_not_count_are_refused() {
    let broker = orders(&[], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let session = billing.session(&broker, "");
    let old = billing.session(&broker, &format!("session={session}"));
    assert_eq!(old, session, "who has one renews it");
    assert_eq!(billing.offsets(&broker, &format!("session={session}&max=4")), [0, 1, 2, 3]);
    let (id, epoch) = session.split_once('-').unwrap();
    let [another, newer] = [format!("{:0>16}-{epoch}", 1), format!("{id}-{}", epoch.parse::<u64>().unwrap() + 1)];
    for (body, status, code) in [
        (format!(r#"{{"offset":4,"session":"{session}"}}"#), 409, "beyond_delivered"),
        (format!(r#"{{"offset":18446744073709551615,"session":"{session}"}}"#), 409, "beyond_delivered"),
        (format!(r#"{{"offset":2,"session":"{another}"}}"#), 409, "fenced"),
        (format!(r#"{{"offset":2,"session":"{newer}"}}"#), 409, "fenced"),
        (r#"{"offset":2}"#.to_owned(), 409, "session_active"),
    ] {
        let answer = billing.call(&broker, "POST", "/ack", &body);
        answer.assert_problem(status, code, &body);
        assert_eq!(billing.position(&broker), 0, "{body}");
    }
    billing.acked(&broker, 2, &session);
    for below in [2, 1, 0] {
        let answer = billing.ack(&broker, below, &session).json();
        assert_eq!(answer, json!({ "acked_offset": 2, "changed": false }));
    }
    let nack = |members: &str| billing.nack(&broker, members, &session);
    nack(r#""offset":2"#).assert_problem(409, "not_next", "what is acked");
    nack(r#""offset":5"#).assert_problem(409, "not_next", "what comes later");
    assert_eq!(nack(r#""offset":3,"reason":"no""#).json(), json!({ "offset": 3, "attempts": 1, "poison": false }));
    nack(r#""offset":3"#).assert_problem(409, "beyond_delivered", "what is not in flight any more");
    billing.ack(&broker, 3, &session).assert_problem(409, "beyond_delivered", "what failed must come again first");
    let again = billing.next(&broker, &format!("session={session}")).json();
    assert_eq!((&again["attempt"], &again["events"][0]["offset"]), (&json!(2), &json!(3)));
    assert_eq!(billing.status(&broker)["last_failure"], "no");
}

#[test]
fn of_two_readers_one_reads_and_the_other_is_told_how_long_to_wait() {
    let broker = orders(&[], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let session = billing.session(&broker, "");
    for (method, rest) in [("GET", "/next"), ("GET", "/stream"), ("POST", "/session"), ("GET", "/next?ack=1")] {
        let answer = billing.call(&broker, method, rest, "");
        answer.assert_problem(409, "session_active", rest);
        let left = answer.json()["retry_after_ms"].as_u64().unwrap();
        assert!((1..=30_000).contains(&left), "{rest}: {left}");
    }
    // A second one comes in its place; the first one is shut out, with whatever it has in hand.
    assert_eq!(billing.offsets(&broker, &format!("session={session}&max=4")), [0, 1, 2, 3]);
    billing.acked(&broker, 0, &session);
    let second = billing.next(&broker, "takeover=1&max=2").json();
    assert_eq!((&second["events"][0]["offset"], &second["attempt"]), (&json!(1), &json!(2)), "its failure counts");
    billing.ack(&broker, 3, &session).assert_problem(409, "fenced", "a late ack");
    billing.next(&broker, &format!("session={session}&ack=3")).assert_problem(409, "fenced", "a late ack on a request");
    assert_eq!(billing.position(&broker), 1, "neither moved it");
    billing.acked(&broker, 2, "");
    assert_eq!(billing.call(&broker, "DELETE", "/session", "").status, 204);
    assert_eq!(billing.call(&broker, "DELETE", "/session", "").status, 409, "there is none to leave");
    assert_eq!(billing.offsets(&broker, "max=1"), [3]);
}

#[test]
fn who_names_no_session_shares_one_but_not_with_a_stream() {
    let broker = orders(&[], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    assert_eq!(billing.offsets(&broker, "max=2"), [0, 1]);
    assert_eq!(billing.offsets(&broker, "max=2&after=1"), [2, 3], "on another connection");
    billing.acked(&broker, 1, "");
    let (mut stream, session) = billing.stream(&broker, "");
    assert_eq!(stream.offset(), 2);
    for (method, rest) in [("GET", "/next"), ("GET", "/stream"), ("POST", "/session")] {
        billing.call(&broker, method, rest, "").assert_problem(409, "session_active", rest);
    }
    // Its acks come by requests of their own, in its name or in none.
    billing.acked(&broker, 2, "");
    billing.acked(&broker, 3, &session);
    drop(stream);
    eventually("its session ends with its connection", || billing.status(&broker)["session"] == Value::Null);
    assert_eq!(billing.offsets(&broker, "max=1"), [4]);
}

#[test]
fn who_stands_by_comes_as_soon_as_the_session_is_left() {
    for cores in ["1", "2"] {
        let broker = orders(&[("cores", cores), ("consumers.lease", "10m")], 10);
        let billing = Consumer::subscribed(&broker, "orders", "billing", "");
        for round in 0..3 {
            let session = billing.session(&broker, "");
            let mut poll = billing.ask_next(&broker, &format!("max=1&{LONG}"));
            eventually("it stands by", || billing.status(&broker)["standbys"] == 1);
            let left = billing.call(&broker, "DELETE", &format!("/session?session={session}"), "");
            assert_eq!(left.status, 204);
            // The lease had minutes left.
            let answer = poll.answer();
            assert_eq!((answer.status, answer.offsets()), (200, vec![round]));
            billing.acked(&broker, round, "");
            assert_eq!(billing.status(&broker)["standbys"], 0);
            assert_eq!(billing.call(&broker, "DELETE", "/session", "").status, 204);
        }
    }
}

#[test]
fn who_comes_while_the_session_is_being_left_does_not_wait_for_its_lease() {
    let broker = orders(&[("cores", "2"), ("consumers.lease", "10m")], 100);
    for number in 0..4 {
        let billing = Consumer::subscribed(&broker, "orders", &format!("billing-{number}"), "");
        let (mut holder, mut comer) = (broker.client(), broker.client());
        for round in 0..25 {
            let session = billing.session(&broker, "");
            assert_eq!(billing.offsets(&broker, &format!("session={session}&max=1")), [round]);
            // The last ack is under way when it leaves.
            let ack = format!(r#"{{"offset":{round},"session":"{session}"}}"#);
            let leave = billing.target(&format!("/session?session={session}"));
            let requests = [
                Client::request("POST", &billing.target("/ack"), &[], ack),
                Client::request("DELETE", &leave, &[], ""),
            ];
            holder.send(requests.concat());
            comer.send(Client::request("POST", &billing.target(&format!("/session?{LONG}")), &[], ""));
            assert_eq!((holder.answer().status, holder.answer().status), (200, 204));
            let answer = comer.answer();
            assert_eq!(answer.status, 200);
            let session = answer.json()["session"].as_str().unwrap().to_owned();
            let leave = billing.target(&format!("/session?session={session}"));
            assert_eq!(holder.ask("DELETE", &leave, &[], "").status, 204);
        }
    }
}

#[test]
fn who_stands_by_comes_when_the_lease_lapses() {
    let broker = orders(&[("consumers.lease", "300ms")], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let session = billing.session(&broker, "");
    assert_eq!(billing.offsets(&broker, &format!("session={session}&max=4")), [0, 1, 2, 3]);
    let mut client = broker.client();
    client.send(Client::request("GET", &billing.target(&format!("/stream?{LONG}")), &[], ""));
    let mut stream = crate::live::Reader::of(client, false);
    let told = stream.until("session");
    assert_eq!((&told["next"], &told["attempt"]), (&json!(0), &json!(2)), "the lapsed session failed");
    billing.ack(&broker, 3, &session).assert_problem(409, "fenced", "a handler that outlived its lease");
}

#[test]
fn a_handler_that_outlives_its_lease_cannot_ack() {
    let broker = orders(&[], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let grant_lease = |lease: &str| {
        assert_eq!(billing.call(&broker, "POST", "/approve", &json!({ "lease": lease }).to_string()).status, 200);
    };
    for round in 0..3 {
        grant_lease("1h");
        let session = billing.session(&broker, "");
        assert_eq!(
            billing.offsets(&broker, &format!("session={session}&max=4")),
            [round, round + 1, round + 2, round + 3]
        );
        billing.acked(&broker, round, &session);
        // The next call is the last for long.
        grant_lease("10ms");
        billing.session(&broker, &format!("session={session}"));
        eventually("the lease lapses", || billing.status(&broker)["session"] == Value::Null);
        billing.ack(&broker, round + 3, &session).assert_problem(409, "fenced", "a late ack");
        assert_eq!(billing.status(&broker)["attempt"], 2);
        assert_eq!(billing.position(&broker), round + 1);
    }
}

#[test]
fn a_session_lives_as_long_as_it_calls() {
    let broker = orders(&[("consumers.lease", "2s")], 4);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let session = billing.session(&broker, "");
    assert_eq!(billing.offsets(&broker, &format!("session={session}")), [0, 1, 2, 3]);
    let longer = Instant::now() + Duration::from_secs(4);
    while Instant::now() < longer {
        assert_eq!(billing.session(&broker, &format!("session={session}")), session);
        std::thread::sleep(Duration::from_millis(100));
    }
    billing.acked(&broker, 3, &session);
    assert_eq!(billing.status(&broker)["attempt"], 1, "nothing failed");
}

#[test]
fn a_long_poll_is_a_call_for_as_long_as_it_waits() {
    let broker = orders(&[("consumers.lease", "2s")], 4);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let session = billing.session(&broker, "");
    assert_eq!(billing.offsets(&broker, &format!("session={session}")), [0, 1, 2, 3]);
    let waited = billing.next(&broker, &format!("session={session}&after=3&wait=5s"));
    assert_eq!((waited.status, waited.offsets()), (200, vec![]), "{}", waited.text());
    billing.acked(&broker, 3, &session);
    assert_eq!(billing.status(&broker)["attempt"], 1, "nothing failed");
}

#[test]
fn what_becomes_visible_wakes_who_waits() {
    for cores in ["1", "2"] {
        let broker = orders(&[("cores", cores), ("http.heartbeat", "10m")], 0);
        broker.create("other", "");
        let [polls, streams] = ["polls", "streams"].map(|name| Consumer::subscribed(&broker, "orders", name, ""));
        let (mut stream, session) = streams.stream(&broker, "");
        stream.until("up_to_date");
        for offset in 0..50 {
            // Nobody would wait as long as this poll, or for a heartbeat.
            let mut poll = polls.ask_next(&broker, LONG);
            if offset % 2 == 0 {
                eventually("it waits", || polls.status(&broker)["session"] != Value::Null);
            }
            produce(&broker, offset..offset + 1);
            assert_eq!(poll.answer().offsets(), [offset]);
            assert_eq!(stream.offset(), offset);
            polls.acked(&broker, offset, "");
            streams.acked(&broker, offset, &session);
        }
    }
}

#[test]
fn no_more_is_in_flight_than_was_granted_by_events_and_by_bytes() {
    let broker = orders(&[("http.heartbeat", "10m")], 0);
    broker.produce_lines("orders", &vec!["x".repeat(100); 50].join("\n"));
    for (terms, most) in [(r#"{"max_in_flight":{"events":7}}"#, 7), (r#"{"max_in_flight":{"bytes":"650B"}}"#, 7)] {
        let name = format!("c{}", terms.len());
        let polls = Consumer::approved(&broker, "orders", &name, terms);
        let mut held = Vec::new();
        loop {
            let after = held.last().map_or(String::new(), |after| format!("&after={after}"));
            let answer = polls.next(&broker, &format!("max=3{after}")).json();
            let events = answer["events"].as_array().unwrap().iter().map(|event| event["offset"].as_u64().unwrap());
            let before = held.len();
            held.extend(events);
            if held.len() == before {
                assert_eq!(answer["blocked"], "in_flight", "{terms}");
                break;
            }
        }
        assert_eq!(held, (0..most).collect::<Vec<u64>>(), "{terms}");
        assert_eq!(polls.status(&broker)["reason"], "in_flight");
        // Whoever waits for room gets it with the ack.
        let mut poll = polls.ask_next(&broker, &format!("max=3&after={}&{LONG}", most - 1));
        polls.acked(&broker, 2, "");
        assert_eq!(poll.answer().offsets(), [most, most + 1, most + 2], "{terms}");
        assert_eq!(polls.offsets(&broker, "max=100").first(), Some(&3), "without `after` it comes again");
        assert_eq!(polls.call(&broker, "DELETE", "/session", "").status, 204);

        let (mut stream, session) = polls.stream(&broker, "");
        let first = polls.position(&broker);
        for offset in first..first + most {
            assert_eq!(stream.offset(), offset, "{terms}");
        }
        assert_eq!(stream.next().map(|told| told.is("blocked")), Some(true), "{terms}");
        polls.acked(&broker, first + most - 1, &session);
        assert_eq!(stream.offset(), first + most, "{terms}");
    }
    let tiny = Consumer::approved(&broker, "orders", "tiny", r#"{"max_in_flight":{"bytes":"1B"}}"#);
    assert_eq!(tiny.offsets(&broker, ""), [0], "one event comes however large it is");
}

#[test]
fn a_stream_that_nobody_reads_costs_little_and_its_session_ends() {
    const READERS: usize = 8;
    let broker = orders(&[("http.send", "1s"), ("consumers.lease", "1s")], 0);
    let lines = vec!["x".repeat(50_000); 10].join("\n");
    for _ in 0..40 {
        broker.produce_lines("orders", &lines);
    }
    let consumers: Vec<_> =
        (0..READERS).map(|n| Consumer::subscribed(&broker, "orders", &format!("c{n}"), "")).collect();
    let other = Consumer::subscribed(&broker, "orders", "other", "");
    let before = broker.resident_bytes();
    let deaf: Vec<Client> = consumers
        .iter()
        .map(|consumer| {
            let mut client = broker.client();
            client.send(Client::request("GET", &consumer.target("/stream"), &[], ""));
            client
        })
        .collect();
    let mut most = 0;
    let mut reads = 0;
    let deadline = Instant::now() + PATIENCE;
    while consumers.iter().any(|consumer| consumer.status(&broker)["session"] != Value::Null) {
        assert!(Instant::now() < deadline, "their sessions do not end");
        most = most.max(broker.resident_bytes().saturating_sub(before));
        // Another one is not disturbed.
        let first = other.offsets(&broker, "max=1")[0];
        assert_eq!(first, reads);
        other.acked(&broker, first, "");
        reads += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(most < 24 << 20, "{READERS} of them cost {most} bytes");
    for consumer in consumers {
        let again = consumer.next(&broker, "max=1").json();
        assert_eq!((&again["events"][0]["offset"], &again["attempt"]), (&json!(0), &json!(2)));
    }
    drop(deaf);
}

#[test]
fn a_broker_that_is_told_to_end_says_so_and_blames_no_event() {
    let mut broker: Broker = orders(&[], 6);
    let [polls, streams] =
        ["polls", "streams"].map(|name| Consumer::approved(&broker, "orders", name, r#"{"max_attempts":1}"#));
    assert_eq!(polls.offsets(&broker, "max=2"), [0], "its only attempt is made with it alone");
    let (mut stream, _) = streams.stream(&broker, "");
    assert_eq!(stream.offset(), 0);
    broker.terminate();
    assert_eq!(stream.until("goaway"), json!({ "reason": "draining" }));
    assert!(broker.wait().success());
    broker.restart();
    for consumer in [polls, streams] {
        assert_eq!(consumer.status(&broker)["attempt"], 1);
        assert_eq!(consumer.offsets(&broker, "max=1"), [0], "its session goes on");
        consumer.acked(&broker, 0, "");
    }
}
