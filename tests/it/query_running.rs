//! The queries that run: who sees them, how far each is, and that they can be stopped.

use crate::broker::{Broker, eventually};
use crate::http::Client;
use serde_json::{Value, json};
use std::io::Read;

const QUERY: &str = "/v1/query";
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const ID: &str = "0199c0de-0000-4000-8000-00000000000a";
const EVENTS: u64 = 20_000;

/// A broker with a group of events that are together more than any socket takes.
fn broker() -> Broker {
    // Whoever takes nothing is not sent away while a test lasts.
    let broker = Broker::start(&[("http.send", "10m")]);
    broker.create("flights", "{}");
    let more = "x".repeat(2000);
    for batch in 0..EVENTS / 400 {
        let lines: Vec<String> = (0..400).map(|n| format!(r#"{{"n":{},"o":"{more}"}}"#, batch * 400 + n)).collect();
        broker.produce_lines("flights", &lines.join("\n"));
    }
    broker
}

/// Takes far longer than anybody waits.
fn long_query() -> String {
    let parts = vec!["data.o LIKE '%a%b%c%' OR data.n = 'x'"; 400].join(" OR ");
    format!("SELECT count() IN flights WHERE {parts}")
}

fn running(broker: &Broker) -> Vec<Value> {
    let answer = broker.get("/v1/queries");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["queries"].as_array().expect("a list").clone()
}

/// Asks for rows that follow, for ever.
fn follow(broker: &Broker, target: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = broker.client();
    let headers = [headers, &[NDJSON]].concat();
    client.send(Client::request("POST", target, &headers, "SELECT * IN flights FROM now() FOLLOW"));
    client
}

fn stopped(broker: &Broker) -> bool {
    broker.get("/metrics").text().contains("eddyline_queries_total{outcome=\"stopped\"} 1\n")
}

#[test]
fn a_query_that_runs_is_listed_with_how_far_it_is() {
    let broker = broker();
    assert_eq!(running(&broker), Vec::<Value>::new());
    let mut client = broker.client();
    // It waits for the client, somewhere in the middle.
    let query = format!("SELECT * IN flights WHERE data.n >= 0 OR data.n IN ('{}')", "ä".repeat(1000));
    let before = jiff::Timestamp::now();
    client.send(Client::request("POST", &format!("{QUERY}?id={ID}"), &[NDJSON], &query));
    let head = client.head();
    assert_eq!((head.status, head.header("eddyline-query")), (200, Some(ID)));
    let listed = &running(&broker)[0];
    let text = listed["query"].as_str().expect("a text");
    // A character of two bytes does not fit the last one.
    assert!(query.starts_with(text) && text.len() == 1023, "{} bytes: {text}", text.len());
    for (member, value) in [
        ("id", json!(ID)),
        ("group", json!("flights")),
        ("caller", json!("anonymous")),
        ("events_total", json!(EVENTS)),
    ] {
        assert_eq!(listed[member], value, "{member}: {listed}");
    }
    let done = listed["events_done"].as_u64().expect("a number");
    assert!(0 < done && done < EVENTS, "{listed}");
    assert!(listed["events_read"].as_u64().is_some_and(|events| events >= done), "{listed}");
    assert!(listed["bytes_read"].as_u64().is_some_and(|bytes| bytes > done * 2000), "{listed}");
    assert!(listed["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{listed}");
    let begun: jiff::Timestamp = listed["begun"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    // It is told in whole microseconds.
    let earliest = before - jiff::SignedDuration::from_micros(1);
    assert!(earliest <= begun && begun <= jiff::Timestamp::now(), "{listed}");
    // It goes on, and is gone at its end.
    let mut lines = 0;
    while let Some(chunk) = client.chunk() {
        lines += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
    assert_eq!(lines, EVENTS);
    client.assert_in_step("its end");
    assert_eq!(running(&broker), Vec::<Value>::new());
}

#[test]
fn how_far_it_is_stays_unknown_of_what_has_no_end() {
    let broker = broker();
    let mut client = follow(&broker, QUERY, &[]);
    let head = client.head();
    let listed = &running(&broker)[0];
    assert_eq!(listed["id"].as_str(), head.header("eddyline-query"), "the broker named it: {listed}");
    assert!(listed["events_done"].is_null() && listed["events_total"].is_null(), "{listed}");
}

#[test]
fn two_that_run_have_never_the_same_id() {
    let broker = broker();
    let target = format!("{QUERY}?id={ID}");
    let mut client = follow(&broker, &target, &[]);
    assert_eq!(client.head().status, 200);
    let count = "SELECT count() IN flights";
    broker.ask("POST", &target, &[], count).assert_problem(409, "duplicate_query", "an id that runs");
    broker.ask("POST", &format!("{QUERY}?id=7"), &[], count).assert_problem(400, "bad_parameter", "no UUID");
    assert_eq!(broker.ask("POST", QUERY, &[], count).status, 200, "another one");
    drop(client);
    eventually("its id is free", || broker.ask("POST", &target, &[], count).status == 200);
    let answer = broker.get(&format!("{target}&q=SELECT%20count()%20IN%20flights"));
    assert_eq!((answer.status, answer.header("eddyline-query")), (200, Some(ID)));
}

#[test]
fn what_follows_is_told_that_it_was_stopped() {
    let broker = broker();
    let mut client = follow(&broker, &format!("{QUERY}?id={ID}"), &[]);
    assert_eq!(client.head().status, 200);
    let mut text = String::new();
    let mut stop = false;
    while let Some(chunk) = client.chunk() {
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
        if !stop && text.contains("up_to_date") {
            assert_eq!(broker.ask("DELETE", &format!("/v1/queries/{ID}"), &[], "").status, 204);
            stop = true;
        }
    }
    assert!(text.ends_with("{\"frame\":\"goaway\",\"reason\":\"stopped\"}\n"), "{text}");
    eventually("it is counted", || stopped(&broker));
    for id in [ID, "7"] {
        let answer = broker.ask("DELETE", &format!("/v1/queries/{id}"), &[], "");
        answer.assert_problem(404, "no_query", "an id that does not run");
    }
}

#[test]
fn a_query_that_is_stopped_before_its_answer_is_refused() {
    let broker = broker();
    let mut client = broker.client();
    client.send(Client::request("POST", &format!("{QUERY}?id={ID}"), &[], long_query()));
    eventually("it runs", || !running(&broker).is_empty());
    assert_eq!(broker.ask("DELETE", &format!("/v1/queries/{ID}"), &[], "").status, 204);
    client.answer().assert_problem(409, "query_stopped", "a stop");
    client.assert_in_step("a stop");
    eventually("its thread has left it", || running(&broker).is_empty());
    assert!(stopped(&broker));
}

#[test]
fn an_answer_that_has_begun_ends_in_the_middle_when_it_is_stopped() {
    let broker = broker();
    let mut client = broker.client();
    client.send(Client::request("POST", &format!("{QUERY}?id={ID}"), &[NDJSON], "SELECT * IN flights"));
    assert_eq!(client.head().status, 200);
    assert_eq!(broker.ask("DELETE", &format!("/v1/queries/{ID}"), &[], "").status, 204);
    while !client.closed() {
        assert!(client.chunk().is_some(), "it has no end");
    }
    assert!(stopped(&broker));
}

#[test]
fn the_command_line_says_that_an_answer_broke_off() {
    let broker = broker();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_eddyline"));
    command.args(["query", "SELECT * IN flights", "-o", "ndjson", "--url", &broker.url()]);
    let (stdout, stderr) = (std::process::Stdio::piped(), std::process::Stdio::piped());
    let mut child = command.stdout(stdout).stderr(stderr).spawn().expect("it starts");
    // It waits in the middle: of what it writes nobody takes more.
    child.stdout.as_mut().expect("its rows").read_exact(&mut [0]).expect("a row");
    let id = running(&broker)[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(broker.ask("DELETE", &format!("/v1/queries/{id}"), &[], "").status, 204);
    let ended = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(3) && said.contains("the answer broke off"), "{said}");
}

#[test]
fn a_token_sees_and_stops_its_own_queries_and_an_admin_all() {
    let (broker, admin) = Broker::start_guarded(&[]);
    assert_eq!(broker.ask_as(&admin, "PUT", "/v1/groups/flights", "").status, 201);
    let token = |scopes: &[&str]| {
        let body = json!({ "scopes": scopes, "groups": ["flights"] }).to_string();
        let made = broker.ask_as(&admin, "POST", "/v1/tokens", body).json();
        let text = |member: &str| made[member].as_str().expect("a text").to_owned();
        (text("id"), text("token"))
    };
    let ((id, one), (_, other), (_, writer)) =
        (token(&["query"]), token(&["query", "manage"]), token(&["produce", "consume"]));
    let mut client = follow(&broker, &format!("{QUERY}?id={ID}"), &[("Authorization", &format!("Bearer {one}"))]);
    assert_eq!(client.head().status, 200);
    let seen = |token: &str| broker.ask_as(token, "GET", "/v1/queries", "").json()["queries"].clone();
    assert_eq!(seen(&other), json!([]));
    for token in [&one, &admin] {
        let listed = seen(token);
        assert_eq!((&listed[0]["id"], &listed[0]["caller"]), (&json!(ID), &json!(id)), "{listed}");
    }
    let target = format!("/v1/queries/{ID}");
    broker.ask_as(&writer, "GET", "/v1/queries", "").assert_problem(403, "not_allowed", "no scope for queries");
    broker.ask_as(&writer, "DELETE", &target, "").assert_problem(403, "not_allowed", "no scope for queries");
    assert_eq!(broker.get("/v1/queries").status, 401);
    broker.ask_as(&other, "DELETE", &target, "").assert_problem(404, "no_query", "another's query");
    assert_eq!(seen(&one)[0]["id"], ID, "it goes on");
    assert_eq!(broker.ask_as(&one, "DELETE", &target, "").status, 204);
    while client.chunk().is_some() {}
    let mut client = follow(&broker, &format!("{QUERY}?id={ID}"), &[("Authorization", &format!("Bearer {one}"))]);
    assert_eq!(client.head().status, 200);
    assert_eq!(broker.ask_as(&admin, "DELETE", &target, "").status, 204);
    while client.chunk().is_some() {}
}
