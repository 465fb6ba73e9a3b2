//! A consumer's life over HTTP: who subscribes, is approved, suspended, revoked and removed, and what each of these does
//! to whoever reads at that moment.
//!
//! Tokens are off here, so everybody is approved at once.

use crate::broker::Broker;
use crate::consumer::{Consumer, orders, produce};
use serde_json::{Value, json};

/// Longer than any test waits: what is answered before was woken.
const LONG: &str = "wait=60s";

#[test]
fn who_subscribes_again_is_where_it_was_and_nothing_changes() {
    let broker = orders(&[], 10);
    let billing = Consumer::subscribed(&broker, "orders", "billing", r#"{"start":3}"#);
    assert_eq!(billing.offsets(&broker, "max=2"), [3, 4]);
    billing.acked(&broker, 3, "");
    let before = billing.status(&broker);
    // Also with a start that is no place in the group: it is not where this one begins.
    for body in ["", "{}", r#"{"start":"latest"}"#, r#"{"start":0}"#, r#"{"start":99}"#] {
        let answer = billing.call(&broker, "PUT", "", body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        let now = answer.json();
        for member in ["life", "start", "created", "approved", "cursor", "limits"] {
            assert_eq!(now[member], before[member], "{body}: {member}");
        }
    }
    assert_eq!((&before["start"], &before["cursor"]["acked_offset"]), (&json!("3"), &json!(3)));
    assert_eq!(billing.offsets(&broker, ""), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn consumers_of_two_groups_and_two_of_one_do_not_know_each_other() {
    let broker = orders(&[("cores", "2")], 6);
    broker.create("clicks", "");
    broker.produce_lines("clicks", "a\nb");
    let one = Consumer::subscribed(&broker, "orders", "one", "");
    let two = Consumer::subscribed(&broker, "orders", "two", r#"{"start":"last:2"}"#);
    let other = Consumer::subscribed(&broker, "clicks", "one", "");
    assert_eq!(one.offsets(&broker, "max=3"), [0, 1, 2]);
    assert_eq!(two.offsets(&broker, ""), [4, 5]);
    assert_eq!(other.offsets(&broker, ""), [0, 1]);
    one.acked(&broker, 1, "");
    other.acked(&broker, 1, "");
    assert_eq!([one, two, other].map(|consumer| consumer.position(&broker)), [2, 4, 2]);
    let names = |target: &str| -> Vec<String> {
        let list = broker.get(target).json();
        let name = |one: &Value| format!("{}/{}", one["group"].as_str().unwrap(), one["consumer"].as_str().unwrap());
        list["consumers"].as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names("/v1/groups/orders/consumers"), ["orders/one", "orders/two"]);
    assert_eq!(names("/v1/consumers"), ["clicks/one", "orders/one", "orders/two"]);
    assert_eq!(names("/v1/consumers?prefix=or"), ["orders/one", "orders/two"]);
    assert_eq!(names("/v1/consumers?after=clicks/one&limit=1"), ["orders/one"]);
    assert_eq!(broker.get("/v1/consumers?limit=2").json()["next"], "orders/one");
    assert_eq!(broker.get("/v1/consumers?limit=3").json()["next"], Value::Null);
}

#[test]
fn latest_is_where_the_tail_was_when_it_was_approved() {
    let broker = orders(&[], 5);
    let late = Consumer::subscribed(&broker, "orders", "late", r#"{"start":"latest"}"#);
    produce(&broker, 5..8);
    assert_eq!(late.offsets(&broker, ""), [5, 6, 7]);
}

#[test]
fn suspend_and_revoke_end_a_stream_and_a_long_poll_at_once_and_keep_the_position() {
    let broker = orders(&[], 5);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    for (action, reason, code, back) in [
        ("/suspend", "suspended", "consumer_suspended", "/resume"),
        ("/revoke", "revoked", "consumer_revoked", "/approve"),
        ("/suspend", "suspended", "consumer_suspended", "/approve"),
    ] {
        let (mut stream, session) = billing.stream(&broker, "");
        let before = billing.position(&broker);
        stream.until("up_to_date");
        let poll = format!("session={session}&after={}&{LONG}", before + 4);
        let mut poll = billing.ask_next(&broker, &poll);
        let answer = billing.ack(&broker, before, &session);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let status = billing.call(&broker, "POST", action, "").json();
        assert_eq!(
            (&status["state"], &status["life"], &status["session"]),
            (&json!(reason), &json!(reason), &Value::Null)
        );
        assert_eq!(stream.until("goaway"), json!({ "reason": reason }));
        assert_eq!(stream.next(), None, "nothing comes behind it");
        poll.answer().assert_problem(403, code, action);
        for (method, rest, body) in [
            ("GET", "/next", ""),
            ("GET", "/stream", ""),
            ("POST", "/session", ""),
            ("POST", "/ack", r#"{"offset":4}"#),
            ("POST", "/nack", r#"{"offset":1}"#),
        ] {
            billing.call(&broker, method, rest, body).assert_problem(403, code, rest);
        }
        billing.ack(&broker, 4, &session).assert_problem(403, code, "an ack of before");
        assert_eq!(billing.call(&broker, "POST", back, "").status, 200);
        assert_eq!(billing.position(&broker), before + 1);
        billing.ack(&broker, 4, &session).assert_problem(409, "fenced", "its session did not come back");
        produce(&broker, 5 + before..6 + before);
    }
    assert_eq!(billing.offsets(&broker, ""), [3, 4, 5, 6, 7]);
}

#[test]
fn steps_of_a_life_that_do_not_lead_on_are_told() {
    let broker = orders(&[], 3);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    for (action, status, code) in [
        ("/resume", 200, ""),
        ("/suspend", 200, ""),
        ("/suspend", 200, ""),
        ("/revoke", 200, ""),
        ("/resume", 409, "wrong_state"),
        ("/suspend", 409, "wrong_state"),
        ("/approve", 200, ""),
        ("/resume", 200, ""),
    ] {
        let answer = billing.call(&broker, "POST", action, "");
        match code {
            "" => assert_eq!(answer.status, status, "{action}"),
            code => answer.assert_problem(status, code, action),
        }
    }
    billing.call(&broker, "POST", "/approve", r#"{"start":0}"#).assert_problem(409, "has_position", "a start");
    let expired = r#"{"expires":"2020-01-01T00:00:00Z"}"#;
    assert_eq!(billing.call(&broker, "POST", "/approve", expired).status, 200);
    billing.next(&broker, "").assert_problem(403, "consumer_expired", "an approval of the past");
    let later = r#"{"expires":"2120-01-01T00:00:00Z"}"#;
    assert_eq!(billing.call(&broker, "POST", "/approve", later).status, 200);
    assert_eq!(billing.offsets(&broker, ""), [0, 1, 2]);
}

#[test]
fn who_unsubscribes_is_gone_with_its_position() {
    let broker = orders(&[], 5);
    let billing = Consumer::subscribed(&broker, "orders", "billing", "");
    let (mut stream, session) = billing.stream(&broker, "");
    stream.until("up_to_date");
    let mut poll = billing.ask_next(&broker, &format!("session={session}&after=4&{LONG}"));
    billing.acked(&broker, 4, &session);
    assert_eq!(billing.call(&broker, "DELETE", "", "").status, 204);
    assert_eq!(stream.until("goaway"), json!({ "reason": "unsubscribed" }));
    poll.answer().assert_problem(404, "no_consumer", "a long poll");
    for (method, rest, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("GET", "/next", ""),
        ("GET", "/stream", ""),
        ("POST", "/session", ""),
        ("DELETE", "/session", ""),
        ("POST", "/ack", r#"{"offset":4}"#),
        ("POST", "/nack", r#"{"offset":4}"#),
        ("POST", "/rewind", r#"{"to":0}"#),
        ("POST", "/replay", ""),
        ("POST", "/approve", ""),
        ("POST", "/suspend", ""),
    ] {
        billing.call(&broker, method, rest, body).assert_problem(404, "no_consumer", &format!("{method} {rest}"));
    }
    let again = Consumer::subscribed(&broker, "orders", "billing", "");
    again.ack(&broker, 4, &session).assert_problem(409, "fenced", "a session of the one before");
    assert_eq!(again.offsets(&broker, ""), [0, 1, 2, 3, 4]);
}

#[test]
fn whoever_reads_when_the_group_is_deleted_is_told() {
    for cores in ["1", "2"] {
        let broker = orders(&[("cores", cores)], 3);
        let [polls, streams] = ["polls", "streams"].map(|name| Consumer::subscribed(&broker, "orders", name, ""));
        assert_eq!(polls.offsets(&broker, ""), [0, 1, 2]);
        let mut poll = polls.ask_next(&broker, &format!("after=2&{LONG}"));
        let (mut stream, _) = streams.stream(&broker, "");
        stream.until("up_to_date");
        assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
        poll.answer().assert_problem(404, "no_group", "a long poll");
        assert_eq!(stream.until("goaway"), json!({ "reason": "deleted" }), "{cores}");
        broker.create("orders", "");
        polls.next(&broker, "").assert_problem(404, "no_consumer", "a group of the same name is another one");
    }
}

#[test]
fn what_makes_no_sense_is_told_and_the_connection_goes_on() {
    let broker = orders(&[], 3);
    let long = "c".repeat(121);
    Consumer::subscribed(&broker, "orders", "c", "");
    let mut client = broker.client();
    let table: &[(&str, &str, &str, u16, &str)] = &[
        ("PUT", "-c", "", 400, "bad_consumer"),
        ("PUT", "a%20b", "", 400, "bad_consumer"),
        ("PUT", "%C3%A4", "", 400, "bad_consumer"),
        ("PUT", "a%2Fb", "", 400, "bad_consumer"),
        ("PUT", "..", "", 400, "bad_consumer"),
        ("PUT", &long, "", 400, "bad_consumer"),
        ("PUT", "new", "{", 400, "bad_body"),
        ("PUT", "new", "[]", 400, "bad_body"),
        ("PUT", "new", r#"{"begin":0}"#, 400, "bad_body"),
        ("PUT", "new", r#"{"start":-1}"#, 400, "bad_body"),
        ("PUT", "new", r#"{"start":"tomorrow"}"#, 400, "bad_position"),
        ("PUT", "new", r#"{"start":4}"#, 416, "behind_tail"),
        ("GET", "new", "", 404, "no_consumer"),
        ("POST", "c/approve", r#"{"lease":"1ms"}"#, 400, "bad_parameter"),
        ("POST", "c/approve", r#"{"lease":"2h"}"#, 400, "bad_parameter"),
        ("POST", "c/approve", r#"{"max_in_flight":{"events":0}}"#, 400, "bad_parameter"),
        ("POST", "c/approve", r#"{"max_in_flight":{"event":1}}"#, 400, "bad_body"),
        ("POST", "c/approve", r#"{"on_poison":"dead_letter"}"#, 400, "bad_parameter"),
        ("POST", "c/approve", r#"{"on_poison":"drop"}"#, 400, "bad_body"),
        ("POST", "c/approve", r#"{"expires":"soon"}"#, 400, "bad_body"),
        ("GET", "c/next?batch=1", "", 400, "unknown_parameter"),
        ("GET", "c/next?max=0", "", 400, "bad_parameter"),
        ("GET", "c/next?max=1&max=2", "", 400, "duplicate_parameter"),
        ("GET", "c/next?wait=20", "", 400, "bad_parameter"),
        ("GET", "c/next?after=-1", "", 400, "bad_parameter"),
        ("GET", "c/next?ack=18446744073709551615", "", 400, "bad_parameter"),
        ("GET", "c/next?session=mine", "", 400, "bad_session"),
        ("GET", "c/next?takeover=yes", "", 400, "bad_parameter"),
        ("GET", "c/stream?after=1", "", 400, "unknown_parameter"),
        ("POST", "c/session?max=1", "", 400, "unknown_parameter"),
        ("POST", "c/ack", "", 400, "bad_body"),
        ("POST", "c/ack", r#"{"offset":"1"}"#, 400, "bad_body"),
        ("POST", "c/ack", r#"{"offset":1,"session":"mine"}"#, 400, "bad_session"),
        ("POST", "c/ack", r#"{"offset":1,"epoch":1}"#, 400, "bad_body"),
        ("POST", "c/nack", r#"{"offset":1,"delay":"1s"}"#, 400, "bad_body"),
        ("POST", "c/rewind", "{}", 400, "bad_body"),
        ("POST", "c/rewind", r#"{"to":0,"until":0}"#, 400, "bad_parameter"),
        ("POST", "c/replay", r#"{"limit":-1}"#, 400, "bad_body"),
        ("DELETE", "c/next", "", 405, "method_not_allowed"),
        ("POST", "c/stream", "", 405, "method_not_allowed"),
        ("GET", "c/ack", "", 405, "method_not_allowed"),
        ("PUT", "c/session", "", 405, "method_not_allowed"),
        ("PATCH", "c", "", 405, "method_not_allowed"),
        ("POST", "c", "", 405, "method_not_allowed"),
        ("GET", "c/position", "", 404, "not_found"),
        ("GET", "c/next/more", "", 404, "not_found"),
    ];
    for (method, rest, body, status, code) in table {
        let answer = client.ask(method, &format!("/v1/groups/orders/consumers/{rest}"), &[], body);
        answer.assert_problem(*status, code, &format!("{method} {rest} {body}"));
        client.assert_in_step(rest);
    }
    let reason = format!(r#"{{"offset":0,"reason":"{}"}}"#, "r".repeat(1025));
    client.ask("POST", "/v1/groups/orders/consumers/c/nack", &[], reason).assert_problem(400, "bad_reason", "long");
    client.ask("PUT", "/v1/groups/nothing/consumers/c", &[], "").assert_problem(404, "no_group", "no group");
    assert_eq!(consumers(&broker), 1, "nothing came of any of it");
}

fn consumers(broker: &Broker) -> usize {
    broker.get("/v1/consumers").json()["consumers"].as_array().expect("a list").len()
}

#[test]
fn there_are_no_more_consumers_than_there_may_be() {
    let broker = orders(&[("limits.consumers", "2")], 1);
    let [one, _] = ["one", "two"].map(|name| Consumer::subscribed(&broker, "orders", name, ""));
    let three = Consumer::named("orders", "three");
    three.call(&broker, "PUT", "", "").assert_problem(429, "too_many_consumers", "a third");
    assert_eq!(one.call(&broker, "PUT", "", "").status, 200);
    assert_eq!(one.call(&broker, "DELETE", "", "").status, 204);
    assert_eq!(three.call(&broker, "PUT", "", "").status, 201);
}
