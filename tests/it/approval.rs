//! Consumers where tokens are on: who asks waits for an approval, and whoever is approved reads as itself alone.

use crate::broker::{Broker, eventually};
use crate::http::{Answer, Client};
use serde_json::{Value, json};

const BILLING: &str = "/v1/groups/orders/consumers/billing";

/// A broker with a group of three events, a token that may do everything, and one that may consume.
fn orders() -> (Broker, String, String) {
    let (broker, admin) = Broker::start_guarded(&[("cores", "2"), ("http.heartbeat", "1h")]);
    assert_eq!(broker.ask_as(&admin, "PUT", "/v1/groups/orders", "").status, 201);
    for event in ["a", "b", "c"] {
        assert_eq!(broker.ask_as(&admin, "POST", "/v1/groups/orders/events", event).status, 200);
    }
    let wanted = json!({ "scopes": ["consume"], "groups": ["orders"] }).to_string();
    let made = broker.ask_as(&admin, "POST", "/v1/tokens", wanted).json();
    let token = made["token"].as_str().expect("a text").to_owned();
    (broker, admin, token)
}

fn post(broker: &Broker, token: &str, action: &str, body: &str) -> Answer {
    broker.ask_as(token, "POST", &format!("{BILLING}/{action}"), body)
}

/// Reads a stream until a piece of it holds `text`.
fn until(reader: &mut Client, text: &str) {
    loop {
        let piece = reader.chunk().unwrap_or_else(|| panic!("the stream ended before {text}"));
        if String::from_utf8_lossy(&piece).contains(text) {
            return;
        }
    }
}

#[test]
fn who_subscribes_waits_for_an_approval_and_then_has_a_token_of_its_own() {
    let (mut broker, admin, ordinary) = orders();
    let asked = broker.ask_as(&ordinary, "PUT", BILLING, r#"{"start":1}"#);
    assert_eq!((asked.status, &asked.json()["state"]), (202, &json!("pending")));
    assert_eq!(broker.ask_as(&ordinary, "PUT", BILLING, "").status, 200, "asking again changes nothing");
    broker.ask_as(&ordinary, "GET", &format!("{BILLING}/next"), "").assert_problem(403, "consumer_pending", "next");
    broker.ask_as(&ordinary, "GET", &format!("{BILLING}/stream"), "").assert_problem(403, "consumer_pending", "stream");
    post(&broker, &ordinary, "ack", r#"{"offset":0}"#).assert_problem(403, "consumer_pending", "ack");
    post(&broker, &ordinary, "session", "").assert_problem(403, "consumer_pending", "session");
    post(&broker, &ordinary, "approve", "").assert_problem(403, "not_allowed", "approve");
    // What nobody has decided is still there after a crash.
    broker.restart();
    let approved = post(&broker, &admin, "approve", r#"{"lease":"1m"}"#);
    assert_eq!(approved.status, 200, "{approved:?}");
    let token = approved.json()["token"].as_str().expect("a token, this once").to_owned();
    let again = post(&broker, &admin, "approve", r#"{"lease":"2m"}"#).json();
    assert_eq!((&again["token"], &again["limits"]["lease_ms"]), (&Value::Null, &json!(120_000)));
    let batch = broker.ask_as(&token, "GET", &format!("{BILLING}/next"), "").json();
    assert_eq!(batch["events"][0]["offset"], 1, "from where it asked to begin: {batch}");
    assert_eq!(post(&broker, &token, "ack", r#"{"offset":1}"#).json()["changed"], true);
    // As itself and as nobody else, and for nothing else.
    for (method, target) in [
        ("GET", "/v1/groups/orders/consumers/other/next"),
        ("PUT", "/v1/groups/orders/consumers/other"),
        ("GET", "/v1/groups/orders/events"),
        ("POST", "/v1/groups/orders/events"),
        ("GET", "/v1/groups/orders/consumers"),
        ("GET", "/v1/groups/other/consumers/billing/next"),
    ] {
        broker.ask_as(&token, method, target, "").assert_problem(403, "not_allowed", target);
    }
}

#[test]
fn a_manager_is_approved_at_once_and_a_revoked_consumer_is_sent_away_with_its_token() {
    let (broker, admin, ordinary) = orders();
    assert_eq!(broker.ask_as(&admin, "PUT", BILLING, "").status, 201);
    let token = post(&broker, &admin, "approve", "").json()["token"].as_str().expect("a token").to_owned();
    let mut reader = broker.client();
    let bearer = format!("Bearer {token}");
    reader.send(Client::request("GET", &format!("{BILLING}/stream"), &[("Authorization", &bearer)], ""));
    assert_eq!(reader.head().status, 200);
    until(&mut reader, "up_to_date");
    post(&broker, &ordinary, "revoke", "").assert_problem(403, "not_allowed", "revoke");
    assert_eq!(post(&broker, &admin, "revoke", "").json()["state"], "revoked");
    until(&mut reader, r#""frame":"goaway","reason":"revoked""#);
    broker.ask_as(&token, "GET", &format!("{BILLING}/next"), "").assert_problem(401, "bad_token", "next");
    let brought_back = post(&broker, &admin, "approve", "").json();
    assert!(brought_back["token"].is_string(), "another token comes with another approval");
    assert_eq!(broker.ask_as(&admin, "DELETE", BILLING, "").status, 204);
    let fresh = brought_back["token"].as_str().expect("a text");
    broker.ask_as(fresh, "GET", &format!("{BILLING}/next"), "").assert_problem(401, "bad_token", "unsubscribed");
    let expected = ["subscribed", "approved", "revoked", "approved", "unsubscribed"];
    eventually("every step is in the audit log", || {
        let log = broker.ask_as(&admin, "GET", "/v1/groups/_audit/events", "").json();
        let told = log["events"].as_array().expect("events").iter().map(|event| &event["data"]);
        let steps: Vec<&Value> = told.filter(|data| data["consumer"] == "billing").collect();
        let actions = steps.iter().filter_map(|data| data["action"].as_str()?.strip_prefix("consumer."));
        let actions: Vec<&str> = actions.collect();
        assert!(!log.to_string().contains("edl_"), "no secret stands in it");
        actions == expected && steps.iter().all(|data| data["who"] != "anonymous" && data["group"] == "orders")
    });
}

#[test]
fn a_consumers_token_is_good_for_nothing_in_a_later_group_of_that_name() {
    let (broker, admin, _) = orders();
    assert_eq!(broker.ask_as(&admin, "PUT", BILLING, "").status, 201);
    let old = post(&broker, &admin, "approve", "").json()["token"].as_str().expect("a token").to_owned();
    let mut reader = broker.client();
    let bearer = format!("Bearer {old}");
    reader.send(Client::request("GET", &format!("{BILLING}/stream"), &[("Authorization", &bearer)], ""));
    assert_eq!(reader.head().status, 200);
    until(&mut reader, "up_to_date");
    assert_eq!(broker.ask_as(&admin, "DELETE", "/v1/groups/orders", "").status, 204);
    until(&mut reader, r#""frame":"goaway","reason":"deleted""#);
    for (method, target) in [("PUT", "/v1/groups/orders"), ("PUT", BILLING)] {
        assert_eq!(broker.ask_as(&admin, method, target, "").status, 201, "{method} {target}");
    }
    let new = post(&broker, &admin, "approve", "").json()["token"].as_str().expect("another token").to_owned();
    let next = format!("{BILLING}/next");
    broker.ask_as(&old, "GET", &next, "").assert_problem(401, "bad_token", "next");
    assert_eq!(broker.ask_as(&new, "GET", &next, "").status, 200);
}

#[test]
fn a_token_that_is_revoked_ends_the_stream_that_reads_with_it() {
    let (broker, admin, _) = orders();
    broker.ask_as(&admin, "PUT", BILLING, "");
    let wanted = json!({ "scopes": ["consume"], "groups": ["orders"] }).to_string();
    let made = broker.ask_as(&admin, "POST", "/v1/tokens", wanted).json();
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a text"));
    let mut reader = broker.client();
    reader.send(Client::request("GET", &format!("{BILLING}/stream"), &[("Authorization", &bearer)], ""));
    assert_eq!(reader.head().status, 200);
    until(&mut reader, "up_to_date");
    let mut waiting = broker.client();
    broker.ask_as(&admin, "PUT", "/v1/groups/orders/consumers/second", r#"{"start":"latest"}"#);
    let target = "/v1/groups/orders/consumers/second/next?wait=60s";
    waiting.send(Client::request("GET", target, &[("Authorization", &bearer)], ""));
    let id = made["id"].as_str().expect("an id");
    assert_eq!(broker.ask_as(&admin, "DELETE", &format!("/v1/tokens/{id}"), "").status, 204);
    until(&mut reader, r#""frame":"goaway","reason":"revoked""#);
    waiting.answer_to("GET").assert_problem(401, "bad_token", "a long poll ends, too");
}
