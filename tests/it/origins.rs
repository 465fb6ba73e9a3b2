//! Pages of other origins: who may call, and that every answer, good or bad, can be read by those who may.

use crate::broker::Broker;
use crate::http::Answer;

const PAGE: &str = "https://app.example.org";

fn assert_readable(answer: &Answer, after: &str) {
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{after}: {answer:?}");
    assert_eq!(answer.header("vary"), Some("Origin"), "{after}");
    let exposed = answer.header("access-control-expose-headers").expect("exposed headers");
    for name in ["Eddyline-Offset", "Eddyline-Next", "Eddyline-Query", "Producer-Expected-Seq", "Retry-After"] {
        assert!(exposed.contains(name), "{after}: {exposed}");
    }
}

#[test]
fn a_page_that_may_call_can_read_every_answer() {
    let broker = Broker::start(&[("http.cors", "[\"https://app.example.org\", \"localhost\"]")]);
    broker.create("orders", "");
    let events = "/v1/groups/orders/events";
    let mut client = broker.client();
    for (method, target, headers, body, status) in [
        ("POST", events, &[][..], "x", 200),
        ("POST", events, &[("Prefer", "return=minimal")], "x", 204),
        ("GET", events, &[], "", 200),
        ("GET", "/v1/groups/orders/events/0", &[], "", 200),
        ("GET", "/livez", &[], "", 200),
        ("GET", "/v1/groups/orders/events?from=x", &[], "", 400),
        ("GET", "/nothing", &[], "", 404),
        ("POST", "/livez", &[], "", 405),
        ("GET", events, &[("Accept", "text/html")], "", 406),
        ("POST", events, &[("Producer-Id", "p"), ("Producer-Seq", "9")], "x", 409),
        ("POST", events, &[("Eddyline-Expect-Offset", "99")], "x", 412),
        ("POST", "/v1/groups/orders/batch", &[], "x", 415),
        ("GET", "/v1/groups/orders/events?from=99", &[], "", 416),
    ] {
        let headers = [headers, &[("Origin", PAGE)]].concat();
        let answer = client.ask(method, target, &headers, body);
        assert_eq!(answer.status, status, "{method} {target}");
        assert_readable(&answer, &format!("{method} {target}"));
    }
    let length = format!("POST {events} HTTP/1.1\r\nHost: localhost\r\nOrigin: {PAGE}\r\n");
    client.send(format!("{length}\r\n"));
    let answer = client.answer();
    answer.assert_problem(411, "length_required", "no length");
    assert_readable(&answer, "no length");
    let mut client = broker.client();
    client.send(format!("{length}Content-Length: 99999999\r\n\r\n"));
    let answer = client.answer();
    answer.assert_problem(413, "body_too_large", "a long body");
    assert_readable(&answer, "a long body");
    let mut client = broker.client();
    client.send(format!("{length}Transfer-Encoding: chunked\r\n\r\nbad\r\n"));
    client.send("zz");
    let answer = client.answer();
    assert_readable(&answer, "a bad chunk");
}

#[test]
fn a_preflight_says_what_a_page_may_send() {
    let broker = Broker::start(&[("http.cors", "[\"https://app.example.org\"]")]);
    let mut client = broker.client();
    let headers = [("Origin", PAGE), ("Access-Control-Request-Method", "POST")];
    for target in ["/v1/groups/orders/events", "/v1/groups/orders/batch", "/v1/groups"] {
        let answer = client.ask("OPTIONS", target, &headers, "");
        assert_eq!(answer.status, 204, "{target}");
        assert_readable(&answer, target);
        let methods = answer.header("access-control-allow-methods").expect("methods");
        assert!(["GET", "POST", "PUT", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
        let allowed = answer.header("access-control-allow-headers").expect("headers");
        for name in ["Content-Type", "Producer-Id", "Producer-Epoch", "Producer-Seq", "Last-Event-ID", "Prefer"] {
            assert!(allowed.contains(name), "{allowed}");
        }
        assert!(answer.number("access-control-max-age").is_some_and(|seconds| seconds > 0));
    }
    let answer = client.ask("OPTIONS", "*", &[], "");
    assert_eq!(answer.status, 204);
    assert!(answer.header("allow").is_some() && answer.header("access-control-allow-origin").is_none());
    client.assert_in_step("preflights");
}

#[test]
fn the_browser_producer_is_served_to_pages_and_kept_by_them() {
    let (broker, _) = Broker::start_guarded(&[("http.cors", "[\"https://app.example.org\"]")]);
    let mut client = broker.client();
    let answer = client.ask("GET", "/producer.js", &[("Origin", PAGE)], "");
    assert_eq!(answer.status, 200, "no token is needed");
    assert_readable(&answer, "the module");
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("cache-control").is_some_and(|value| value.contains("max-age=")));
    let module = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/producer-web/src/producer.js")).expect("a file");
    assert_eq!(answer.body, module);
    let tag = answer.header("etag").expect("a tag").to_owned();
    let head = client.ask("HEAD", "/producer.js", &[], "");
    assert_eq!((head.status, head.header("etag"), head.header("vary")), (200, Some(tag.as_str()), Some("Origin")));
    for (known, status) in [(tag.clone(), 304), (format!("\"old\", W/{tag}"), 304), ("\"old\"".to_owned(), 200)] {
        let answer = client.ask("GET", "/producer.js", &[("Origin", PAGE), ("If-None-Match", &known)], "");
        assert_eq!(answer.status, status, "{known}");
        assert_readable(&answer, &known);
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    let answer = client.ask("GET", "/producer.js", &[("Origin", "https://evil.example")], "");
    answer.assert_problem(403, "origin_not_allowed", "another page");
    client.assert_in_step("the module");
}

#[test]
fn another_page_is_refused_before_anything_is_done() {
    let broker = Broker::start(&[("http.cors", "[\"https://app.example.org\"]")]);
    broker.create("orders", "");
    let mut client = broker.client();
    let own = broker.url();
    for origin in
        ["https://evil.example", "http://app.example.org", "https://app.example.org:8443", "null", "", own.as_str()]
    {
        for method in ["POST", "OPTIONS"] {
            let answer = client.ask(method, "/v1/groups/orders/events", &[("Origin", origin)], "x");
            answer.assert_problem(403, "origin_not_allowed", origin);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            client.assert_in_step(origin);
        }
    }
    assert_eq!(client.get("/v1/groups/orders").json()["tail"], 0, "nothing was stored");
    let host = own.trim_start_matches("http://").to_owned();
    let headers = [("Host", host.as_str()), ("Origin", own.as_str())];
    let answer = client.ask("POST", "/v1/groups/orders/events", &headers, "x");
    assert_eq!(answer.status, 200, "the broker's own pages may");
}

#[test]
fn what_one_request_may_says_nothing_of_the_next() {
    let broker = Broker::start(&[("http.cors", "[\"https://app.example.org\"]")]);
    let mut client = broker.client();
    assert_readable(&client.ask("GET", "/livez", &[("Origin", PAGE)], ""), "an allowed page");
    assert_eq!(client.get("/livez").header("access-control-allow-origin"), None);
    assert_readable(&client.ask("GET", "/livez", &[("Origin", PAGE)], ""), "an allowed page");
    client.send("GET /livez HTTP/1.1\r\nbad\r\n\r\n");
    let answer = client.answer();
    answer.assert_problem(400, "bad_header", "no colon");
    assert_eq!(answer.header("access-control-allow-origin"), None, "whose it was is not known");
}
