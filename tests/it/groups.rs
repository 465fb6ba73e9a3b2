//! Groups: make, list, show, change, remove, and that all of it outlives the process.

use crate::broker::Broker;
use serde_json::{Value, json};

fn names(answer: &Value) -> Vec<&str> {
    answer["groups"].as_array().expect("a list").iter().map(|group| group["group"].as_str().expect("a name")).collect()
}

#[test]
fn a_group_is_made_once_and_shows_its_configuration() {
    let broker = Broker::start(&[]);
    let mut client = broker.client();
    let config = "{\"max_event_bytes\":\"10KiB\",\"segment\":{\"max_age\":\"2h\"}}";
    for (body, status) in [
        (config, 201),
        (config, 200),
        ("", 200),
        ("{\"segment\":{\"max_age\":\"120m\"},\"max_event_bytes\":10240}", 200),
        ("{\"segment\":{\"max_age\":\"2h\"},\"max_event_bytes\":\"10KiB\",\"compact\":\"none\"}", 200),
        ("{}", 409),
        ("{\"max_event_bytes\":\"11KiB\",\"segment\":{\"max_age\":\"2h\"}}", 409),
    ] {
        let answer = client.ask("PUT", "/v1/groups/orders", &[], body);
        if status == 409 {
            answer.assert_problem(409, "config_differs", body);
            client.assert_in_step(body);
            continue;
        }
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(
            answer.json()["config"],
            json!({
                "retention": { "max_age": null, "max_bytes": null, "protect": [], "max_bytes_hard": null },
                "segment": { "max_bytes": "256MiB", "max_age": "2h" },
                "max_event_bytes": "10KiB",
                "max_batch_bytes": "8MiB",
            }),
            "{body}"
        );
    }
    let info = client.get("/v1/groups/orders").json();
    let expected = json!({ "group": "orders", "shard": 0, "earliest": 0, "tail": 0, "events": 0 });
    for (name, value) in expected.as_object().expect("members") {
        assert_eq!(&info[name], value, "{name}");
    }
    for name in ["number", "bytes", "segments"] {
        assert!(info[name].is_u64(), "{name}: {info}");
    }
    let created = info["created"].as_str().expect("a time");
    assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
}

#[test]
fn what_no_group_can_be_is_refused() {
    let broker = Broker::start(&[("limits.groups", "3")]);
    let mut client = broker.client();
    let longest = "a".repeat(120);
    for good in ["0", "Orders.v2_x-1", &longest] {
        assert_eq!(client.ask("PUT", &format!("/v1/groups/{good}"), &[], "").status, 201, "{good}");
    }
    client.ask("PUT", "/v1/groups/fourth", &[], "").assert_problem(429, "too_many_groups", "a fourth");
    let long = "a".repeat(121);
    for bad in ["-a", ".a", "_a", "orders.dead", "%20", "a%20b", "a%2Fb", "%C3%A4", "a%0A", "..", &long] {
        for (method, body) in [("PUT", ""), ("PATCH", "{}"), ("DELETE", "")] {
            let answer = client.ask(method, &format!("/v1/groups/{bad}"), &[], body);
            answer.assert_problem(400, "bad_group", &format!("{method} {bad}"));
            client.assert_in_step(bad);
        }
    }
    for method in ["GET", "PATCH", "DELETE"] {
        client.ask(method, "/v1/groups/none", &[], "").assert_problem(404, "no_group", method);
        client.assert_in_step(method);
    }
    assert_eq!(names(&client.get("/v1/groups").json()).len(), 3);
}

#[test]
fn a_configuration_with_a_mistake_makes_and_changes_nothing() {
    let broker = Broker::start(&[]);
    broker.create("there", "");
    let mut client = broker.client();
    let before = client.get("/v1/groups/there").json();
    for (body, code) in [
        ("{", "bad_config"),
        ("[]", "bad_config"),
        ("null", "bad_config"),
        ("{\"segmnet\":{}}", "bad_config"),
        ("{\"segment\":{\"bytes\":\"1MiB\"}}", "bad_config"),
        ("{\"max_event_bytes\":\"many\"}", "bad_config"),
        ("{\"max_event_bytes\":-1}", "bad_config"),
        ("{\"segment\":{\"max_age\":\"5\"}}", "bad_config"),
        ("{\"compact\":\"all\"}", "bad_config"),
        ("{} {}", "bad_config"),
        ("{\"retention\":{\"age\":\"1d\"}}", "bad_config"),
        ("{\"retention\":{\"max_age\":\"1ms\"}}", "config_out_of_range"),
        ("{\"retention\":{\"protect\":[\"billing\"]}}", "config_out_of_range"),
        ("{\"compact\":\"key\"}", "not_available"),
        ("{\"min_lag\":\"1h\"}", "not_available"),
        ("{\"tombstone_ttl\":\"1d\"}", "not_available"),
        ("{\"segment\":{\"max_bytes\":\"1KiB\"}}", "config_out_of_range"),
        ("{\"segment\":{\"max_bytes\":\"2GiB\"}}", "config_out_of_range"),
        ("{\"segment\":{\"max_age\":\"1ms\"}}", "config_out_of_range"),
        ("{\"max_event_bytes\":\"0B\"}", "config_out_of_range"),
        ("{\"max_batch_bytes\":\"1GiB\"}", "config_out_of_range"),
    ] {
        for (method, group) in [("PUT", "new"), ("PATCH", "there")] {
            let answer = client.ask(method, &format!("/v1/groups/{group}"), &[], body);
            answer.assert_problem(400, code, &format!("{method} {body}"));
            client.assert_in_step(body);
        }
    }
    client.get("/v1/groups/new").assert_problem(404, "no_group", "nothing was made");
    assert_eq!(client.get("/v1/groups/there").json(), before);
    let answer = client.ask("PUT", "/v1/groups/new?config=1", &[], "");
    answer.assert_problem(400, "unknown_parameter", "a parameter");
    let long = format!("{{\"max_event_bytes\":\"1KiB\"{}}}", " ".repeat(64 << 10));
    client.ask("PUT", "/v1/groups/new", &[], long).assert_problem(413, "body_too_large", "a long configuration");
}

#[test]
fn a_change_holds_for_what_comes_after_it() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", "{\"segment\":{\"max_bytes\":\"64KiB\"}}");
    let config = |max_event_bytes: &str, max_batch_bytes: &str| {
        json!({
            "retention": { "max_age": null, "max_bytes": null, "protect": [], "max_bytes_hard": null },
            "segment": { "max_bytes": "64KiB", "max_age": "1h" },
            "max_event_bytes": max_event_bytes,
            "max_batch_bytes": max_batch_bytes,
        })
    };
    let mut client = broker.client();
    let answer = client.ask("PATCH", "/v1/groups/orders", &[], "{\"max_event_bytes\":\"5B\"}");
    assert_eq!((answer.status, &answer.json()["config"]), (200, &config("5B", "8MiB")));
    client.ask("POST", "/v1/groups/orders/events", &[], "123456").assert_problem(413, "body_too_large", "six bytes");
    broker.restart();
    let mut client = broker.client();
    client.ask("POST", "/v1/groups/orders/events", &[], "123456").assert_problem(413, "body_too_large", "six bytes");
    let mut client = broker.client();
    let answer =
        client.ask("PATCH", "/v1/groups/orders", &[], "{\"max_batch_bytes\":\"7B\",\"max_event_bytes\":\"6B\"}");
    assert_eq!(answer.json()["config"], config("6B", "7B"), "what a change does not name stays");
    assert_eq!(client.ask("POST", "/v1/groups/orders/events", &[], "123456").status, 200);
    let headers = [("Content-Type", "text/plain")];
    assert_eq!(client.ask("POST", "/v1/groups/orders/batch", &headers, "123\n456").status, 200);
    let answer = client.ask("POST", "/v1/groups/orders/batch", &headers, "1234\n567");
    answer.assert_problem(413, "body_too_large", "a long batch");
}

#[test]
fn groups_are_listed_in_pages_by_name() {
    let broker = Broker::start(&[("cores", "2")]);
    let mut client = broker.client();
    let mut all: Vec<String> = (0..25).map(|number| format!("web-{number:02}")).collect();
    all.extend(["a", "b", "web", "x"].map(str::to_owned));
    for name in &all {
        assert_eq!(client.ask("PUT", &format!("/v1/groups/{name}"), &[], "").status, 201);
    }
    all.sort();
    for (prefix, limit) in [("", 1), ("", 7), ("", 1000), ("web-", 10), ("web-", 25), ("web-1", 3), ("none", 5)] {
        let expected: Vec<&String> = all.iter().filter(|name| name.starts_with(prefix)).collect();
        let (mut listed, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = client.get(&format!("/v1/groups?prefix={prefix}&limit={limit}&after={after}")).json();
            assert!(names(&page).len() <= limit, "{prefix} {limit}");
            listed.extend(names(&page).into_iter().map(str::to_owned));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut after),
                None => break,
            }
        }
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{prefix} {limit}");
        assert_eq!(pages, expected.len().div_ceil(limit).max(1), "{prefix} {limit}");
    }
    let page = client.get("/v1/groups?limit=1").json();
    let shown = client.get("/v1/groups/a").json();
    for name in ["group", "number", "shard", "created"] {
        assert_eq!(page["groups"][0][name], shown[name], "{name}");
    }
    for query in ["limit=0", "limit=x", "pre=web", "after=a&after=b"] {
        assert_eq!(client.get(&format!("/v1/groups?{query}")).status, 400, "{query}");
        client.assert_in_step(query);
    }
}

#[test]
fn a_group_of_an_old_name_goes_on_above_the_old_tail() {
    let mut broker = Broker::start(&[]);
    let mut earliest = 0;
    for round in 0..4 {
        broker.create("orders", "");
        let info = broker.get("/v1/groups/orders").json();
        assert_eq!((&info["earliest"], &info["tail"], &info["bytes"]), (&json!(earliest), &json!(earliest), &json!(0)));
        assert_eq!(broker.produce_lines("orders", "a\nb\nc"), earliest, "round {round}");
        let stamp = [("Producer-Id", "p"), ("Producer-Seq", "0")];
        let answer = broker.ask("POST", "/v1/groups/orders/events", &stamp, "x");
        assert_eq!(answer.json()["duplicate"], false, "what the old group remembered is gone");
        if earliest > 0 {
            let answer = broker.get(&format!("/v1/groups/orders/events?from={}", earliest - 1));
            answer.assert_problem(410, "gone", "an old position");
            assert_eq!(answer.json()["earliest"], earliest);
        }
        if round % 2 == 0 {
            broker.restart();
        }
        assert_eq!(broker.get("/v1/groups/orders/events").events().len(), 4, "round {round}");
        assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
        for (method, target, body) in [
            ("GET", "/v1/groups/orders", ""),
            ("DELETE", "/v1/groups/orders", ""),
            ("GET", "/v1/groups/orders/events", ""),
            ("GET", "/v1/groups/orders/events/0", ""),
            ("POST", "/v1/groups/orders/events", "x"),
        ] {
            broker.ask(method, target, &[], body).assert_problem(404, "no_group", &format!("{method} {target}"));
        }
        assert!(names(&broker.get("/v1/groups").json()).is_empty());
        if round % 2 == 1 {
            broker.restart();
        }
        earliest += 5;
    }
}

#[test]
fn everything_outlives_the_process_however_it_ends() {
    let mut broker = Broker::start(&[("cores", "2")]);
    for number in 0..6 {
        broker.create(&format!("group-{number}"), &format!("{{\"max_event_bytes\":\"{}KiB\"}}", number + 1));
    }
    assert_eq!(broker.ask("DELETE", "/v1/groups/group-5", &[], "").status, 204);
    let mut expected: Vec<Vec<Value>> = vec![Vec::new(); 5];
    for end in ["stop", "kill", "stop", "kill", "stop"] {
        for (number, events) in expected.iter_mut().enumerate() {
            let group = format!("group-{number}");
            let first = broker.produce_lines(&group, &format!("{end} a\n{{\"n\":{}}}", events.len()));
            assert_eq!(first, events.len() as u64, "{group}");
            *events = broker.get(&format!("/v1/groups/{group}/events")).events();
            assert_eq!(events.len() as u64, first + 2);
        }
        let list = broker.get("/v1/groups").json();
        let infos: Vec<Value> = (0..5).map(|number| broker.get(&format!("/v1/groups/group-{number}")).json()).collect();
        if end == "stop" {
            broker.stop();
        }
        broker.restart();
        assert_eq!(broker.get("/v1/groups").json(), list, "after {end}");
        for (number, events) in expected.iter().enumerate() {
            let info = broker.get(&format!("/v1/groups/group-{number}")).json();
            for name in ["number", "shard", "config", "earliest", "tail", "events", "created"] {
                assert_eq!(info[name], infos[number][name], "{name} of group-{number} after {end}");
            }
            let came = broker.get(&format!("/v1/groups/group-{number}/events")).events();
            assert_eq!(&came, events, "group-{number} after {end}: same ids, same times, same bytes");
        }
    }
}
