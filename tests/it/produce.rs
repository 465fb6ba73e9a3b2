//! Events in: every format, what is kept of them and what is refused.

use crate::broker::Broker;
use crate::http::Client;
use serde_json::{Value, json};

const EVENTS: &str = "/v1/groups/orders/events";
const BATCH: &str = "/v1/groups/orders/batch";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const TEXT: (&str, &str) = ("Content-Type", "text/plain;charset=UTF-8");
const BINARY: (&str, &str) = ("Content-Type", "application/vnd.eddyline.batch");

fn orders(config: &str) -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", config);
    broker
}

fn tail(client: &mut Client) -> u64 {
    client.get("/v1/groups/orders").json()["tail"].as_u64().expect("a tail")
}

/// The stored events from an offset on.
fn from(client: &mut Client, offset: u64) -> Vec<Value> {
    client.get(&format!("{EVENTS}?from={offset}")).events()
}

/// One event of a binary batch.
fn frame(key: Option<&[u8]>, content_type: Option<&[u8]>, data: &[u8]) -> Vec<u8> {
    let mut out = (data.len() as u32).to_le_bytes().to_vec();
    out.push(u8::from(key.is_some()) | u8::from(content_type.is_some()) << 1);
    for field in [key, content_type].into_iter().flatten() {
        out.extend_from_slice(&(field.len() as u16).to_le_bytes());
        out.extend_from_slice(field);
    }
    [&out, data].concat()
}

#[test]
fn an_event_comes_back_as_the_bytes_that_went_in() {
    let broker = orders("");
    let mut client = broker.client();
    for (body, content_type, encoding, shown, served) in [
        (
            &b"{\"a\": 1.0e5,\"b\":[ ] }"[..],
            "application/json",
            "json",
            "{\"a\": 1.0e5,\"b\":[ ] }",
            "application/json",
        ),
        (b"12345678901234567890.5", "", "json", "12345678901234567890.5", "application/json"),
        (b"\"caf\\u00e9\"", "", "json", "\"caf\\u00e9\"", "application/json"),
        (b"{\"a\":\n1}", "", "text", "\"{\\\"a\\\":\\n1}\"", "text/plain; charset=utf-8"),
        (b" 1\t", "", "json", " 1\t", "application/json"),
        (b"{\"a\":1}{", "", "text", "\"{\\\"a\\\":1}{\"", "text/plain; charset=utf-8"),
        ("sch\u{f6}n \u{1f30a}".as_bytes(), "text/plain", "text", "\"sch\u{f6}n \u{1f30a}\"", "text/plain"),
        (b"", "", "text", "\"\"", "text/plain; charset=utf-8"),
        (b"\0\xff\x10\x03", "image/x-own", "base64", "\"AP8QAw==\"", "image/x-own"),
        (b"\xff", "", "base64", "\"/w==\"", "application/octet-stream"),
        (
            b"<script>alert(1)</script>",
            "text/html",
            "text",
            "\"<script>alert(1)</script>\"",
            "text/plain; charset=utf-8",
        ),
        (b"<svg/>", "image/svg+xml", "text", "\"<svg/>\"", "text/plain; charset=utf-8"),
    ] {
        let name = body.escape_ascii().to_string();
        let headers = [("Content-Type", content_type)];
        let produced = client.ask("POST", EVENTS, &headers[..usize::from(!content_type.is_empty())], body);
        assert_eq!(produced.status, 200, "{name}");
        let offset = produced.json()["first_offset"].as_u64().expect("an offset");
        let list = client.get(&format!("{EVENTS}?from={offset}"));
        let event = &list.events()[0];
        assert_eq!(event["encoding"], encoding, "{name}");
        assert_eq!(event["length"], body.len(), "{name}");
        assert_eq!(event["id"], produced.json()["first_id"], "{name}");
        assert_eq!(event["received"], produced.json()["received"], "{name}");
        assert_eq!(event.get("content_type").and_then(Value::as_str).unwrap_or_default(), content_type, "{name}");
        assert!(list.text().contains(&format!("\"data\":{shown}}}")), "{name}: {}", list.text());
        let raw = client.get(&format!("{EVENTS}/{offset}"));
        assert_eq!((raw.status, &raw.body[..]), (200, body), "{name}");
        assert_eq!(raw.header("content-type"), Some(served), "{name}");
        assert_eq!(raw.header("x-content-type-options"), Some("nosniff"), "{name}");
        assert_eq!(raw.header("content-security-policy"), Some("default-src 'none'; sandbox"), "{name}");
    }
}

#[test]
fn json_that_readers_would_stumble_over_is_shown_as_text() {
    let broker = orders("");
    let mut client = broker.client();
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for (body, encoding) in [
        (nested(120), "json"),
        (nested(121), "text"),
        (nested(100_000), "text"),
        ("{\"a\":1,\"a\":2}".to_owned(), "json"),
        ("\"\\ud83c\\udf0a\"".to_owned(), "json"),
        ("\"\\ud83c\"".to_owned(), "text"),
        ("{\"a\":[{\"\\uDF0A\":1}]}".to_owned(), "text"),
        ("\u{feff}1".to_owned(), "text"),
        ("NaN".to_owned(), "text"),
        ("01".to_owned(), "text"),
        ("\"\u{2028}\"".to_owned(), "json"),
        ("\"\0\"".to_owned(), "text"),
    ] {
        let offset = client.ask("POST", EVENTS, &[], &body).json()["first_offset"].as_u64().expect("an offset");
        let event = &from(&mut client, offset)[0];
        assert_eq!(event["encoding"], encoding, "{body:.50}");
        if encoding == "text" {
            assert_eq!(event["data"], body.as_str());
        }
        assert_eq!(client.get(&format!("{EVENTS}/{offset}")).text(), body);
    }
}

#[test]
fn a_batch_in_every_format_is_taken_apart() {
    let broker = orders("");
    let mut client = broker.client();
    let binary = [
        frame(None, None, b"{\"a\":1}"),
        frame(Some(b"k1"), None, b"text"),
        frame(Some(b"k2"), Some(b"image/png"), b"\xff\0"),
        frame(None, None, b""),
    ]
    .concat();
    for (header, body, expected) in [
        (JSON, &b" [ {\"a\": 1} ,2,\"x\",[3],null ] "[..], json!([{ "a": 1 }, 2, "x", [3], null])),
        (NDJSON, b"{\"a\":1}\r\n\n  \n2\n\"x\"", json!([{ "a": 1 }, 2, "x"])),
        (TEXT, b"plain\r\n\r\n{\"a\":1}\nlast line", json!(["plain", { "a": 1 }, "last line"])),
        (BINARY, &binary, json!([{ "a": 1 }, "text", "/wA=", ""])),
    ] {
        let before = tail(&mut client);
        let answer = client.ask("POST", BATCH, &[header], body);
        assert_eq!(answer.status, 200, "{header:?}: {answer:?}");
        let (answer, expected) = (answer.json(), expected.as_array().expect("events"));
        assert_eq!(answer["group"], "orders");
        assert_eq!(answer["count"], expected.len(), "{header:?}");
        assert_eq!(answer["first_offset"], before, "{header:?}");
        assert_eq!(answer["last_offset"], before + expected.len() as u64 - 1, "{header:?}");
        assert_eq!(answer["duplicate"], false, "{header:?}");
        let events = from(&mut client, before);
        let data: Vec<_> = events.iter().map(|event| event["data"].clone()).collect();
        assert_eq!(&data, expected, "{header:?}");
        assert_eq!(events[0]["id"], answer["first_id"], "{header:?}");
        assert_eq!(events.last().expect("events")["id"], answer["last_id"], "{header:?}");
        assert!(events.iter().all(|event| event["received"] == answer["received"]), "{header:?}: one time for a batch");
    }
    let before = tail(&mut client) - 3;
    let events = from(&mut client, before);
    assert_eq!((&events[0]["key"], &events[1]["key"], &events[2]["key"]), (&json!("k1"), &json!("k2"), &Value::Null));
    assert_eq!(events[1]["content_type"], "image/png");
}

#[test]
fn keys_and_headers_go_with_events() {
    let broker = orders("");
    let mut client = broker.client();
    let headers = [("Eddyline-Key", "k\u{f6}y"), ("Eddyline-Meta-Trace", "00-ab"), ("eddyline-meta-Empty", "")];
    client.ask("POST", EVENTS, &headers, "x");
    let event = &from(&mut client, 0)[0];
    assert_eq!(event["key"], "k\u{f6}y");
    assert_eq!(event["headers"], json!({ "trace": "00-ab", "empty": "" }));
    let raw = client.get(&format!("{EVENTS}/0"));
    assert_eq!(raw.header("eddyline-meta-trace"), Some("00-ab"));
    assert_eq!(raw.header("eddyline-id"), event["id"].as_str());
    assert_eq!(raw.number("eddyline-offset"), Some(0));
    assert_eq!(raw.header("eddyline-received"), event["received"].as_str());

    let body = "[{\"o\":{\"id\":\"a\"}},{\"o\":{\"id\":7}},{\"o\":{\"id\":true}}]";
    let answer = client.ask("POST", &format!("{BATCH}?key_path=/o/id"), &[JSON], body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let keys: Vec<_> = from(&mut client, 1).iter().map(|event| event["key"].clone()).collect();
    assert_eq!(keys, ["a", "7", "true"]);

    let both = [frame(Some(b"own"), None, b"x"), frame(None, None, b"y")].concat();
    client.ask("POST", BATCH, &[BINARY, ("Eddyline-Key", "all")], both);
    let keys: Vec<_> = from(&mut client, 4).iter().map(|event| event["key"].clone()).collect();
    assert_eq!(keys, ["own", "all"], "an event's own key wins");
}

#[test]
fn a_minimal_answer_is_wished_for() {
    let broker = orders("");
    let mut client = broker.client();
    let stamp = [("Prefer", "return=minimal"), ("Producer-Id", "p"), ("Producer-Seq", "0")];
    for (headers, offset, duplicate) in
        [(&stamp[..1], 0, None), (&stamp, 1, None), (&stamp, 1, Some("true")), (&stamp[..1], 2, None)]
    {
        let answer = client.ask("POST", EVENTS, headers, "x");
        assert_eq!((answer.status, answer.number("eddyline-offset")), (204, Some(offset)), "{answer:?}");
        assert_eq!(answer.header("eddyline-duplicate"), duplicate, "{answer:?}");
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (None, None));
    }
}

#[test]
fn a_batch_with_one_fault_stores_nothing() {
    let broker = orders("{\"max_event_bytes\":\"10B\"}");
    let mut client = broker.client();
    let cut = [frame(None, None, b"good"), frame(Some(b"k"), None, b"cut")[..6].to_vec()].concat();
    let unknown = [&frame(None, None, b"good")[..], &[1, 0, 0, 0, 0x80, b'x']].concat();
    let path = format!("{BATCH}?key_path=/k");
    for (target, header, body, status, code, place) in [
        (BATCH, JSON, &b"[1,2,]"[..], 400, "bad_json", "event 2"),
        (BATCH, JSON, b"[1,2", 400, "bad_json", "event 1"),
        (BATCH, JSON, b"[1]x", 400, "bad_json", "byte 3"),
        (BATCH, JSON, b"{\"a\":1}", 400, "bad_json", "array"),
        (BATCH, JSON, b"[]", 400, "empty_batch", "no event"),
        (BATCH, JSON, b"", 400, "bad_json", "array"),
        (BATCH, JSON, b"[1,\"12345678901\"]", 413, "event_too_large", "event 1"),
        (BATCH, JSON, b"[\"\xff\"]", 400, "not_utf8", ""),
        (BATCH, NDJSON, b"1\n\nx\n", 400, "bad_line", "line 3"),
        (BATCH, NDJSON, b"\n\n", 400, "empty_batch", ""),
        (BATCH, TEXT, b"good\n\xff\n", 400, "not_utf8", ""),
        (BATCH, TEXT, b"good\n12345678901\n", 413, "event_too_large", "line 2"),
        (BATCH, BINARY, &cut, 400, "bad_frame", "event 1"),
        (BATCH, BINARY, &unknown, 400, "bad_frame", "event 1"),
        (BATCH, BINARY, b"", 400, "empty_batch", ""),
        (BATCH, ("Content-Type", "text/csv"), b"a,b", 415, "unsupported_format", ""),
        (BATCH, ("X-No", "type"), b"a", 415, "unsupported_format", ""),
        (&path, JSON, b"[{\"k\":1},{}]", 400, "bad_key", "event 1"),
        (&path, TEXT, b"{\"k\":1}\nno", 400, "bad_line", "line 2"),
        (&path, BINARY, &cut, 400, "bad_key_path", ""),
        ("/v1/groups/orders/batch?key_path=k", JSON, b"[1]", 400, "bad_key_path", ""),
        (EVENTS, TEXT, b"12345678901", 413, "body_too_large", "10B"),
    ] {
        let name = format!("{target} {header:?} {}", body.escape_ascii());
        let answer = client.ask("POST", target, &[header], body);
        answer.assert_problem(status, code, &name);
        let detail = answer.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains(place), "{name}: {detail}");
        if code == "body_too_large" {
            client.assert_closed(&name);
            client = broker.client();
        }
        client.assert_in_step(&name);
        assert_eq!(tail(&mut client), 0, "{name}");
    }
    assert_eq!(client.ask("POST", EVENTS, &[TEXT], "1234567890").status, 200, "as long as it may be");
    assert_eq!(client.ask("POST", BATCH, &[TEXT], "1234567890\n1234567890").status, 200);
}

#[test]
fn what_comes_with_an_event_has_limits() {
    let broker = orders("");
    let mut client = broker.client();
    let long = "a".repeat(1025);
    let value = "v".repeat(4000);
    for (headers, target, status, code) in [
        (&[("Eddyline-Key", &*long)][..], EVENTS, 400, "bad_key"),
        (&[("Content-Type", &long[..257])], EVENTS, 400, "bad_content_type"),
        (&[("Producer-Id", &long[..129]), ("Producer-Seq", "0")], EVENTS, 400, "bad_producer"),
        (&[("Producer-Id", ""), ("Producer-Seq", "0")], EVENTS, 400, "bad_producer"),
        (&[("Producer-Seq", "0")], EVENTS, 400, "bad_producer"),
        (&[("Producer-Id", "p"), ("Producer-Seq", "x")], EVENTS, 400, "bad_parameter"),
        (&[("Producer-Id", "p"), ("Producer-Seq", "-1")], EVENTS, 400, "bad_parameter"),
        (&[("Producer-Id", "p"), ("Producer-Seq", "18446744073709551615")], EVENTS, 400, "bad_parameter"),
        (&[("Producer-Id", "p"), ("Producer-Epoch", "1.5"), ("Producer-Seq", "0")], EVENTS, 400, "bad_parameter"),
        (
            &[("Producer-Id", "p"), ("Producer-Seq", "0")],
            "/v1/groups/orders/events?producer=p&seq=0",
            400,
            "bad_producer",
        ),
        (&[("Eddyline-Expect-Offset", "soon")], EVENTS, 400, "bad_parameter"),
        (
            &[("Eddyline-Meta-A", &*value), ("Eddyline-Meta-B", &*value), ("Eddyline-Meta-C", &*value)],
            EVENTS,
            431,
            "headers_too_large",
        ),
    ] {
        client.ask("POST", target, headers, "x").assert_problem(status, code, &format!("{headers:?}"));
        client.assert_in_step(code);
    }
    client.ask("POST", BATCH, &[TEXT], "x\n".repeat(100_001)).assert_problem(413, "too_many_events", "one too many");
    assert_eq!(tail(&mut client), 0);
    assert_eq!(client.ask("POST", EVENTS, &[("Eddyline-Key", &long[..1024])], "x").status, 200);
}

#[test]
fn an_expected_offset_is_kept_or_refused() {
    let broker = orders("");
    let mut client = broker.client();
    let mut ask = |expected: &str| client.ask("POST", BATCH, &[TEXT, ("Eddyline-Expect-Offset", expected)], "a\nb");
    for (expected, tail) in [("1", 0), ("0", 2), ("0", 2), ("3", 2), ("2", 4)] {
        let answer = ask(expected);
        if answer.status == 200 {
            assert_eq!(answer.json()["last_offset"], tail - 1, "{expected}");
        } else {
            answer.assert_problem(412, "unexpected_offset", expected);
            assert_eq!((answer.number("eddyline-tail"), &answer.json()["tail"]), (Some(tail), &json!(tail)));
        }
    }
    // Of many who expect the same offset one wins.
    let requests: Vec<u8> =
        (0..8).flat_map(|_| Client::request("POST", EVENTS, &[("Eddyline-Expect-Offset", "4")], "x")).collect();
    client.send(requests);
    let statuses: Vec<u16> = (0..8).map(|_| client.answer().status).collect();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

#[test]
fn a_group_is_made_by_producing_where_that_is_configured() {
    let broker = Broker::start(&[("auto_create", "true"), ("limits.groups", "2")]);
    let mut client = broker.client();
    assert_eq!(client.ask("POST", "/v1/groups/a/events", &[], "x").json()["first_offset"], 0);
    assert_eq!(client.ask("POST", "/v1/groups/b/batch", &[TEXT], "x\ny").json()["last_offset"], 1);
    client.ask("POST", "/v1/groups/c/events", &[], "x").assert_problem(429, "too_many_groups", "a third group");
    client.ask("POST", "/v1/groups/_c/events", &[], "x").assert_problem(400, "bad_group", "the broker's own");
    client.get("/v1/groups/c/events").assert_problem(404, "no_group", "reading makes none");
    assert_eq!(client.ask("POST", "/v1/groups/a/events", &[], "x").json()["first_offset"], 1);
}
