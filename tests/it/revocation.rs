//! Tokens that end while they are in use: whoever reads on is sent away, whoever waits is told, and nothing that was
//! begun goes on.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::http::Client;
use crate::live::Reader;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const EVENTS: &str = "/v1/groups/orders/events";

/// A broker with a group of three events, and a token that may do everything.
fn orders(settings: &[(&str, &str)]) -> (Broker, String) {
    let (broker, admin) = Broker::start_guarded(settings);
    assert_eq!(broker.ask_as(&admin, "PUT", "/v1/groups/orders", "").status, 201);
    for event in ["a", "b", "c"] {
        assert_eq!(broker.ask_as(&admin, "POST", EVENTS, event).status, 200);
    }
    (broker, admin)
}

/// Makes a token that reads; gives its id and the value of its header.
fn reader(broker: &Broker, admin: &str, more: &Value) -> (String, String) {
    let mut wanted = json!({ "scopes": ["query"], "groups": ["orders"] });
    for (member, value) in more.as_object().expect("members") {
        wanted[member] = value.clone();
    }
    let made = broker.ask_as(admin, "POST", "/v1/tokens", wanted.to_string()).json();
    (made["id"].as_str().expect("an id").to_owned(), format!("Bearer {}", made["token"].as_str().expect("a text")))
}

fn revoke(broker: &Broker, admin: &str, id: &str) {
    assert_eq!(broker.ask_as(admin, "DELETE", &format!("/v1/tokens/{id}"), "").status, 204);
}

#[test]
fn a_revoked_reader_is_sent_away_and_others_read_on() {
    // A quiet broker: only the revocation can wake them before the heartbeat.
    let (broker, admin) = orders(&[("cores", "2"), ("http.heartbeat", "1h")]);
    let (id, token) = reader(&broker, &admin, &json!({}));
    let (_, other) = reader(&broker, &admin, &json!({ "expires": "2100-01-01T00:00:00Z" }));
    let follow = |live: &str, token: &str| {
        let mut reader = Reader::follow(&broker, live, "", &[("Authorization", token)]);
        reader.until("up_to_date");
        reader
    };
    let mut readers: Vec<Reader> = (0..4).flat_map(|_| ["sse", "ndjson"]).map(|live| follow(live, &token)).collect();
    let mut others = ["sse", "ndjson"].map(|live| follow(live, &other));
    let mut waiting: Vec<Client> = (0..4).map(|_| broker.client()).collect();
    for client in &mut waiting {
        let target = format!("{EVENTS}?from=latest&wait=60s");
        client.send(Client::request("GET", &target, &[("Authorization", &token)], ""));
    }
    let mut kept = broker.client();
    assert_eq!(kept.ask("GET", EVENTS, &[("Authorization", &token)], "").status, 200);
    // A wait that has begun shows nothing of itself; those that begin after the revocation are refused all the same.
    let told = Instant::now();
    revoke(&broker, &admin, &id);
    for reader in &mut readers {
        assert_eq!(reader.until("goaway"), json!({ "reason": "revoked" }));
        assert_eq!(reader.next(), None, "the answer is whole");
        reader.client.assert_closed("a revoked token");
    }
    for client in &mut waiting {
        client.answer().assert_problem(401, "bad_token", "a revoked token");
        client.assert_in_step("a revoked token");
    }
    assert!(told.elapsed() < PATIENCE, "much earlier than any wait would have ended");
    kept.ask("GET", EVENTS, &[("Authorization", &token)], "").assert_problem(401, "bad_token", "a kept connection");
    kept.assert_in_step("a revoked token");
    assert_eq!(broker.ask_as(&admin, "POST", EVENTS, "d").status, 200);
    for reader in &mut others {
        assert_eq!(reader.next().and_then(|told| told.offset()), Some(3), "others read on");
    }
}

#[test]
fn a_reader_whose_time_is_over_is_sent_away() {
    let (broker, admin) = orders(&[("http.heartbeat", "1h")]);
    // On a slow machine a token may be over before it was used; then with more time.
    for seconds in [2, 10, 25] {
        let expires = jiff::Timestamp::now() + Duration::from_secs(seconds);
        let (id, token) = reader(&broker, &admin, &json!({ "expires": expires.to_string() }));
        let header = [("Authorization", token.as_str())];
        if broker.ask("GET", EVENTS, &header, "").status != 200 {
            continue;
        }
        let mut waiting = broker.client();
        waiting.send(Client::request("GET", &format!("{EVENTS}?from=latest&wait=60s"), &header, ""));
        let mut readers = ["sse", "ndjson"].map(|live| Reader::follow(&broker, live, "", &header));
        for reader in &mut readers {
            assert_eq!(reader.until("goaway"), json!({ "reason": "expired" }));
            assert_eq!(reader.next(), None, "the answer is whole");
        }
        waiting.answer().assert_problem(401, "bad_token", "an expired token");
        assert!(jiff::Timestamp::now() >= expires, "not before its time");
        broker.ask("GET", EVENTS, &header, "").assert_problem(401, "bad_token", "an expired token");
        let list = broker.ask_as(&admin, "GET", "/v1/tokens", "").json();
        let listed = list["tokens"].as_array().expect("a list").iter().any(|token| token["id"] == *id);
        assert!(listed, "it is listed until somebody revokes it");
        return;
    }
    panic!("no token lived long enough");
}

#[test]
fn a_body_that_comes_after_its_token_was_revoked_is_not_taken() {
    let (broker, admin) = orders(&[]);
    let wanted = "{\"scopes\":[\"produce\"],\"groups\":[\"orders\"]}";
    let made = broker.ask_as(&admin, "POST", "/v1/tokens", wanted).json();
    let (id, token) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a text"));
    let mut client = broker.client();
    client.send(format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    ));
    assert_eq!(client.answer().status, 100, "its head was good");
    revoke(&broker, &admin, id);
    client.send("late");
    client.answer().assert_problem(401, "bad_token", "a late body");
    client.assert_in_step("a late body");
    assert_eq!(broker.ask_as(&admin, "GET", "/v1/groups/orders", "").json()["tail"], 3);
}

#[test]
fn an_admin_may_revoke_its_own_token_and_another_is_made_beside_the_broker() {
    let (mut broker, admin) = orders(&[]);
    let id = admin[4..20].to_owned();
    revoke(&broker, &admin, &id);
    broker.ask_as(&admin, "GET", "/v1/tokens", "").assert_problem(401, "bad_token", "its own");
    broker.stop();
    let (data, configuration) = (broker.data(), broker.configuration());
    let paths = [data.to_str(), configuration.to_str()].map(|path| path.expect("text"));
    let line = ["token", "create", "--admin", "--data", paths[0], "--config", paths[1]];
    let another = crate::program::eddyline(&line).with(0);
    broker.restart();
    let another = another.text().trim();
    assert_eq!(broker.ask_as(another, "GET", EVENTS, "").events().len(), 3);
    eventually("what was done beside the broker is told, too", || {
        let log = broker.ask_as(another, "GET", "/v1/groups/_audit/events", "");
        log.status == 200 && log.events().iter().filter(|event| event["data"]["who"] == "command line").count() == 2
    });
}
