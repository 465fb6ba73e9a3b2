//! Events out: positions, bounds, formats, pages that follow each other, and what is gone or not there yet.

use crate::broker::{Broker, PATIENCE};
use crate::http::{Answer, Client};
use eddyline::log::frame::Frame;
use serde_json::Value;
use std::time::{Duration, Instant};

const EVENTS: &str = "/v1/groups/orders/events";
const FRAMES: (&str, &str) = ("Accept", "application/vnd.eddyline.frames");
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// A group with ten events, each of a request of its own.
fn ten() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    let mut client = broker.client();
    for number in 0..10 {
        assert_eq!(client.ask("POST", EVENTS, &[], format!("event {number}")).status, 200);
    }
    broker
}

/// A group whose first event has offset 11 and which ends at 14, as its name was used before and ended at 10.
fn ten_gone() -> Broker {
    let broker = ten();
    assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
    broker.create("orders", "");
    assert_eq!(broker.produce_lines("orders", "a\nb\nc"), 11);
    broker
}

fn get(client: &mut Client, query: &str) -> Answer {
    client.get(&format!("{EVENTS}?{query}"))
}

#[test]
fn every_position_expression_means_its_event() {
    let broker = ten();
    let mut client = broker.client();
    let events = client.get(EVENTS).events();
    let text = |offset: usize, name: &str| events[offset][name].as_str().expect("text").to_owned();
    let (id, time) = (text(5, "id"), text(5, "received"));
    // Two requests may be received in the same microsecond.
    let at_time = events.iter().position(|event| event["received"] == time.as_str()).expect("itself") as u64;
    let offset_time = time.replace('Z', "%2B00:00");
    for (from, first) in [
        ("".to_owned(), 0),
        ("from=0".to_owned(), 0),
        ("from=7".to_owned(), 7),
        ("from=10".to_owned(), 10),
        ("from=earliest".to_owned(), 0),
        ("from=latest".to_owned(), 10),
        ("from=last:3".to_owned(), 7),
        ("from=last:0".to_owned(), 10),
        ("from=last:99".to_owned(), 0),
        (format!("from=id:{id}"), 5),
        (format!("from=id%3A{id}"), 5),
        ("from=id:00000000-0000-7000-8000-000000000000".to_owned(), 0),
        ("from=id:ffffffff-ffff-7fff-bfff-ffffffffffff".to_owned(), 10),
        (format!("from=time:{time}"), at_time),
        (format!("from=time:{offset_time}"), at_time),
        ("from=time:1970-01-01T00:00:00Z".to_owned(), 0),
        ("from=time:2200-01-01T00:00:00Z".to_owned(), 10),
        ("from=ago:1h".to_owned(), 0),
        ("from=ago:0s".to_owned(), 10),
    ] {
        let answer = get(&mut client, &from);
        assert_eq!(answer.status, 200, "{from}: {answer:?}");
        assert_eq!(answer.offsets(), (first..10).collect::<Vec<_>>(), "{from}");
        let body = answer.json();
        assert_eq!(
            (&body["next"], &body["tail"], &body["up_to_date"]),
            (&10.into(), &10.into(), &true.into()),
            "{from}"
        );
    }
    for (query, expected) in [
        ("until=4".to_owned(), 0..4),
        ("from=2&until=4".to_owned(), 2..4),
        ("from=4&until=4".to_owned(), 4..4),
        ("from=6&until=4".to_owned(), 6..6),
        ("until=latest".to_owned(), 0..10),
        ("until=99".to_owned(), 0..10),
        ("until=last:4".to_owned(), 0..6),
        (format!("from=3&until=id:{id}"), 3..5),
        ("limit=3".to_owned(), 0..3),
        ("from=8&limit=3".to_owned(), 8..10),
        ("limit=99999999999999999999".to_owned(), 0..10),
        ("max_bytes=1B".to_owned(), 0..1),
        ("max_bytes=14B".to_owned(), 0..2),
        ("max_bytes=20B".to_owned(), 0..2),
        ("max_bytes=1TiB".to_owned(), 0..10),
    ] {
        let answer = get(&mut client, &query);
        assert_eq!(answer.offsets(), expected.clone().collect::<Vec<u64>>(), "{query}");
        assert_eq!(answer.json()["next"], expected.end, "{query}");
        assert_eq!(answer.json()["up_to_date"], expected.end == 10, "{query}");
        let lines = client.ask("GET", &format!("{EVENTS}?{query}"), &[NDJSON], "");
        assert_eq!(lines.offsets(), expected.clone().collect::<Vec<u64>>(), "{query}");
        assert_eq!((lines.number("eddyline-next"), lines.number("eddyline-tail")), (Some(expected.end), Some(10)));
    }
}

#[test]
fn what_cannot_be_read_is_told_with_what_could_be() {
    let broker = ten_gone();
    let mut client = broker.client();
    let range = client.get("/v1/groups/orders").json();
    assert_eq!((&range["earliest"], &range["tail"], &range["events"]), (&11.into(), &14.into(), &3.into()));
    for (query, status, code) in [
        ("from=0", 410, "gone"),
        ("from=10", 410, "gone"),
        ("from=15", 416, "behind_tail"),
        ("from=18446744073709551615", 416, "behind_tail"),
        ("from=18446744073709551616", 400, "bad_position"),
        ("from=", 400, "bad_position"),
        ("from=-1", 400, "bad_position"),
        ("from=%2B1", 400, "bad_position"),
        ("from=1.5", 400, "bad_position"),
        ("from=soon", 400, "bad_position"),
        ("from=id:7", 400, "bad_position"),
        ("from=time:2026-11-23", 400, "bad_position"),
        ("from=time:2026-11-23T10:00:00", 400, "bad_position"),
        ("from=time:1700000000", 400, "bad_position"),
        ("from=ago:5", 400, "bad_position"),
        ("from=last:", 400, "bad_position"),
        ("until=soon", 400, "bad_position"),
        ("from=consumer:c", 404, "no_consumer"),
        ("limit=0", 400, "bad_parameter"),
        ("limit=-1", 400, "bad_parameter"),
        ("max_bytes=0", 400, "bad_parameter"),
        ("max_bytes=much", 400, "bad_parameter"),
        ("wait=5", 400, "bad_parameter"),
        ("wait=-5s", 400, "bad_parameter"),
        ("order=up", 400, "bad_parameter"),
        ("live=yes", 400, "bad_parameter"),
        ("live=sse&order=desc", 400, "bad_parameter"),
        ("form=1", 400, "unknown_parameter"),
        ("from=11&from=12", 400, "duplicate_parameter"),
    ] {
        let answer = get(&mut client, query);
        answer.assert_problem(status, code, query);
        let (earliest, tail) = (answer.number("eddyline-earliest"), answer.number("eddyline-tail"));
        assert_eq!((earliest, tail), ((status == 410).then_some(11), (status == 416).then_some(14)), "{query}");
        client.assert_in_step(query);
    }
    for (which, status, code) in [
        ("0", 410, "gone"),
        ("10", 410, "gone"),
        ("14", 404, "no_event"),
        ("99999999999999999999", 400, "bad_position"),
        ("00000000-0000-7000-8000-000000000000", 404, "no_event"),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", 404, "no_event"),
        ("latest", 400, "bad_position"),
        ("a%2Fb", 400, "bad_position"),
    ] {
        client.get(&format!("{EVENTS}/{which}")).assert_problem(status, code, which);
        client.assert_in_step(which);
    }
    client.get("/v1/groups/none/events").assert_problem(404, "no_group", "no group");
    client.get("/v1/groups/none/events/0").assert_problem(404, "no_group", "no group");
    assert_eq!(get(&mut client, "from=last:99").offsets(), [11, 12, 13], "as far back as there is something");
}

#[test]
fn the_format_is_agreed_on() {
    let broker = ten();
    let mut client = broker.client();
    for (accept, expected) in [
        ("", Some("application/json")),
        ("*/*", Some("application/json")),
        ("application/*", Some("application/json")),
        ("application/json", Some("application/json")),
        ("application/x-ndjson", Some("application/x-ndjson")),
        ("application/json;q=0.5, application/x-ndjson", Some("application/x-ndjson")),
        ("text/html, */*;q=0.1", Some("application/json")),
        ("application/vnd.eddyline.frames", Some("application/vnd.eddyline.frames")),
        ("text/html", None),
        ("application/json;q=0", None),
    ] {
        let answer = client.ask("GET", EVENTS, &[("Accept", accept)], "");
        match expected {
            Some(media_type) => {
                assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{accept}");
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{accept}");
            }
            None => answer.assert_problem(406, "no_such_format", accept),
        }
        client.assert_in_step(accept);
    }
}

#[test]
fn one_event_is_found_by_offset_and_by_id() {
    let broker = ten();
    let mut client = broker.client();
    for event in client.get(EVENTS).events() {
        let (offset, id) = (event["offset"].as_u64().expect("an offset"), event["id"].as_str().expect("an id"));
        for which in [offset.to_string(), id.to_owned(), id.to_uppercase()] {
            let answer = client.get(&format!("{EVENTS}/{which}"));
            assert_eq!((answer.status, answer.text()), (200, &*format!("event {offset}")), "{which}");
            assert_eq!(answer.number("eddyline-offset"), Some(offset));
            assert_eq!(answer.header("eddyline-id"), Some(id));
        }
    }
}

#[test]
fn the_newest_events_come_first_when_asked_for() {
    let broker = ten();
    let mut client = broker.client();
    for (query, expected, next) in [
        ("order=desc", (0..10).rev().collect::<Vec<u64>>(), 0),
        ("order=desc&limit=3", vec![9, 8, 7], 7),
        ("order=desc&limit=3&until=7", vec![6, 5, 4], 4),
        ("order=desc&limit=3&until=2", vec![1, 0], 0),
        ("order=desc&from=8", vec![9, 8], 8),
        ("order=desc&from=last:2&until=latest", vec![9, 8], 8),
        ("order=desc&until=0", vec![], 0),
    ] {
        let answer = get(&mut client, query);
        assert_eq!(answer.offsets(), expected, "{query}");
        assert_eq!(answer.json()["next"], next, "{query}");
        let lines = client.ask("GET", &format!("{EVENTS}?{query}"), &[NDJSON], "");
        assert_eq!((lines.offsets(), lines.number("eddyline-next")), (expected, Some(next)), "{query}");
    }
    client.ask("GET", &format!("{EVENTS}?order=desc"), &[FRAMES], "").assert_problem(400, "bad_parameter", "frames");
    client.assert_in_step("frames");
}

/// The events that a broker with small segments is filled with: of many sizes, in batches of many lengths. All of them are
/// more than what is held of an answer.
fn events() -> Vec<String> {
    let size = |number: usize| match number % 100 {
        0 => 50_000,
        1..10 => 1_000 + number % 777,
        _ => number * 31 % 200,
    };
    (0..5_000).map(|number| format!("{number} {}", "x".repeat(size(number)))).collect()
}

fn filled(events: &[String]) -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", "{\"segment\":{\"max_bytes\":\"64KiB\"}}");
    let mut client = broker.client();
    let (mut at, mut step) = (0, 1);
    while at < events.len() {
        let end = events.len().min(at + step);
        let batch = events[at..end].join("\n");
        let answer = client.ask("POST", "/v1/groups/orders/batch", &[("Content-Type", "text/plain")], batch);
        assert_eq!((answer.status, &answer.json()["first_offset"]), (200, &at.into()), "{answer:?}");
        (at, step) = (end, step * 7 % 61 + 1);
    }
    let info = client.get("/v1/groups/orders").json();
    assert!(info["segments"].as_u64().is_some_and(|segments| segments > 10), "segments roll: {info}");
    broker
}

/// Follows `next` from page to page; gives offset and data of everything that came, and how many pages there were.
fn pages(broker: &Broker, query: &str, format: Option<(&str, &str)>) -> (Vec<(u64, String)>, usize) {
    let mut client = broker.client();
    let (mut from, mut all, mut pages) = (0, Vec::new(), 0);
    loop {
        let target = format!("{EVENTS}?{query}&from={from}");
        let answer = client.ask("GET", &target, format.as_slice(), "");
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let next;
        if format == Some(FRAMES) {
            next = answer.number("eddyline-next").expect("next");
            let first = answer.number("eddyline-first").expect("first");
            let mut rest = &answer.body[..];
            while !rest.is_empty() {
                let frame = Frame::check(rest).expect("sound frames").expect("whole frames");
                let wanted = frame.events().map(|event| event.expect("sound events"));
                let wanted = wanted.filter(|event| (first..next).contains(&event.offset));
                all.extend(wanted.map(|event| (event.offset, String::from_utf8(event.data.to_vec()).expect("text"))));
                rest = &rest[frame.bytes.len()..];
            }
        } else {
            let pair = |event: Value| {
                (event["offset"].as_u64().expect("an offset"), event["data"].as_str().expect("text").to_owned())
            };
            all.extend(answer.events().into_iter().map(pair));
            next = match format {
                None => answer.json()["next"].as_u64().expect("next"),
                Some(_) => answer.number("eddyline-next").expect("next"),
            };
        }
        if next == from {
            return (all, pages);
        }
        assert_eq!(all.len() as u64, next, "{target}: next is behind what came");
        (from, pages) = (next, pages + 1);
    }
}

#[test]
fn pages_give_every_event_once_in_every_format_also_after_a_crash() {
    let events = events();
    let expected: Vec<(u64, String)> = (0..).zip(events.iter().cloned()).collect();
    let mut broker = filled(&events);
    for crashed in [false, true] {
        if crashed {
            broker.restart();
        }
        for (query, format, pages_min) in [
            ("limit=97", None, 51),
            ("limit=10000&max_bytes=10KiB", None, 50),
            ("limit=10000&max_bytes=16MiB", None, 1),
            ("limit=333", Some(NDJSON), 15),
            ("limit=10000&max_bytes=100KiB", Some(NDJSON), 5),
            ("limit=10000&max_bytes=16MiB", Some(NDJSON), 1),
            ("limit=97", Some(FRAMES), 51),
            ("limit=10000&max_bytes=100KiB", Some(FRAMES), 5),
            ("limit=10000&max_bytes=16MiB", Some(FRAMES), 1),
        ] {
            let (all, pages) = pages(&broker, query, format);
            assert!(pages >= pages_min, "{query} {format:?}: {pages} pages");
            let wrong = all.iter().zip(&expected).find(|(came, wanted)| came != wanted);
            assert!(wrong.is_none(), "{query} {format:?} after a crash: {crashed}: {:.200}", format!("{wrong:?}"));
            assert_eq!(all.len(), expected.len(), "{query} {format:?} after a crash: {crashed}");
        }
        // Backwards, from page to page.
        let (mut until, mut offsets, mut client) = (5_000, Vec::new(), broker.client());
        while until > 0 {
            let answer = get(&mut client, &format!("order=desc&limit=700&until={until}"));
            offsets.extend(answer.offsets());
            until = answer.json()["next"].as_u64().expect("next");
        }
        assert_eq!(offsets, (0..5_000).rev().collect::<Vec<_>>());
    }
}

#[test]
fn a_page_holds_as_many_small_events_as_its_bytes_allow() {
    let broker = Broker::start(&[]);
    broker.create("orders", "{}");
    let mut client = broker.client();
    for _ in 0..4 {
        let batch = ["1"; 3_000].join("\n");
        assert_eq!(client.ask("POST", "/v1/groups/orders/batch", &[("Content-Type", "text/plain")], batch).status, 200);
    }
    let answer = get(&mut client, "limit=12000");
    assert_eq!((answer.offsets().len(), answer.json()["next"].as_u64()), (12_000, Some(12_000)));
}

#[test]
fn an_old_client_gets_a_long_answer_until_the_connection_ends() {
    let broker = filled(&events());
    let mut client = broker.client();
    client.send(format!("GET {EVENTS}?limit=10000&max_bytes=16MiB HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let answer = client.answer();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.offsets(), (0..5_000).collect::<Vec<_>>());
}

#[test]
fn who_waits_at_the_tail_is_woken_by_the_next_event() {
    let broker = Broker::start(&[("cores", "2")]);
    broker.create("orders", "");
    for round in 0..4_u64 {
        // More than one, so that both cores have some.
        let mut waiting: Vec<Client> = (0..8).map(|_| broker.client()).collect();
        for client in &mut waiting {
            client.send(Client::request("GET", &format!("{EVENTS}?from={round}&wait=60s"), &[], ""));
        }
        std::thread::sleep(Duration::from_millis(20));
        let asked = Instant::now();
        broker.produce_lines("orders", "event");
        for client in &mut waiting {
            assert_eq!(client.answer().offsets(), [round]);
            client.assert_in_step("a wait");
        }
        assert!(asked.elapsed() < PATIENCE, "woken, not timed out");
    }
}

#[test]
fn a_wait_ends_without_events_when_its_time_is_over_or_the_group_is_gone() {
    let broker = ten();
    let mut client = broker.client();
    let answer = get(&mut client, "from=latest&wait=50ms");
    assert_eq!((answer.status, answer.offsets().len()), (200, 0));
    let body = answer.json();
    assert_eq!((&body["next"], &body["tail"], &body["up_to_date"]), (&10.into(), &10.into(), &true.into()));
    // What is there, or will never be wanted, is not waited for.
    for query in ["from=9&wait=60s", "from=latest&until=10&wait=60s"] {
        let asked = Instant::now();
        assert_eq!(get(&mut client, query).status, 200, "{query}");
        assert!(asked.elapsed() < PATIENCE, "{query}");
    }
    client.send(Client::request("GET", &format!("{EVENTS}?from=10&wait=60s"), &[], ""));
    // The answer to the second of two requests does not hold up the first.
    let mut second = broker.client();
    second.send(Client::request("GET", "/livez", &[], ""));
    second.send(Client::request("GET", &format!("{EVENTS}?from=10&wait=60s"), &[], ""));
    assert_eq!(second.answer().text(), "{\"status\":\"alive\"}");
    assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
    for client in [&mut client, &mut second] {
        client.answer().assert_problem(404, "no_group", "deleted meanwhile");
        client.assert_in_step("a deleted group");
    }
}
