//! What a hostile or broken client sends over a raw connection, and what it gets: a clear answer, and never a request
//! that begins somewhere within another one.

use crate::broker::Broker;
use crate::http::Client;

/// A request with these header lines, each with its CRLF, to a place where events go; what follows is its body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /v1/groups/orders/events HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}")
}

fn get(lines: &str) -> String {
    format!("GET /v1/groups/orders HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

/// What a smuggler would like to be taken for a request of its own.
const SMUGGLED: &str = "POST /v1/groups/orders/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsmuggled";

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn orders() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    broker
}

fn tail(broker: &Broker) -> u64 {
    broker.get("/v1/groups/orders").json()["tail"].as_u64().expect("a tail")
}

/// Sends good, bad and smuggled bytes at once: the good one is answered, the bad one refused, and then it is over.
fn assert_ends(broker: &Broker, bad: &str, status: u16, code: &str) {
    let mut client = broker.client();
    let good = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send([good, bad, SMUGGLED].concat());
    assert_eq!(client.answer().status, 200, "before {bad:?}");
    let answer = client.answer();
    answer.assert_problem(status, code, bad);
    assert_eq!(answer.header("connection"), Some("close"), "{bad:?}");
    client.assert_closed(bad);
}

#[test]
fn a_head_that_two_readers_could_read_differently_is_refused_and_ends_the_connection() {
    let broker = orders();
    let mut table: Vec<(String, u16, &str)> = Vec::new();
    for lines in [
        "Content-Length: 8\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 8\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 8\r\n",
    ] {
        table.push((post(lines, "0\r\n\r\n"), 400, "bad_framing"));
    }
    table.push((
        format!("POST /v1/groups/orders/events HTTP/1.0\r\nHost: localhost\r\n{CHUNKED}\r\n0\r\n\r\n"),
        400,
        "bad_framing",
    ));
    for length in ["", "8, 8", "+8", "-8", "0x8", "8_0", "8 8", "8.0", "eight", "18446744073709551616"] {
        table.push((post(&format!("Content-Length: {length}\r\n"), ""), 400, "bad_length"));
    }
    for second in ["8", "9"] {
        table.push((post(&format!("Content-Length: 8\r\nContent-Length: {second}\r\n"), ""), 400, "bad_length"));
    }
    for coding in ["", "chunked, chunked", ", chunked", "chunked;q=1", "\"chunked\""] {
        table.push((post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n"), 400, "bad_transfer_encoding"));
    }
    table.push((post(&CHUNKED.repeat(2), "0\r\n\r\n"), 400, "bad_transfer_encoding"));
    for coding in ["identity", "gzip, chunked", "xchunked"] {
        let lines = format!("Transfer-Encoding: {coding}\r\n");
        table.push((post(&lines, "0\r\n\r\n"), 501, "unknown_transfer_coding"));
    }
    for lines in ["Accept: x\n", "Accept: x\ry\r\n", "Accept: x\r\r\n"] {
        table.push((get(lines), 400, "bad_line_end"));
    }
    table.push(("GET /livez HTTP/1.1\nHost: localhost\r\n\r\n".into(), 400, "bad_line_end"));
    for lines in [
        "Accept: a\0b\r\n",
        "Accept: a\x7fb\r\n",
        "Accept: a\x1bb\r\n",
        "Accept: x\r\n folded\r\n",
        "Accept: x\r\n\tfolded\r\n",
        "Accept : x\r\n",
        "Content-Length : 8\r\n",
        "no colon\r\n",
        ": no name\r\n",
        "A(b: x\r\n",
        "Ä: x\r\n",
    ] {
        table.push((get(lines), 400, "bad_header"));
    }
    for (bad, status, code) in table {
        assert_ends(&broker, &bad, status, code);
    }
    assert_eq!(tail(&broker), 0, "nothing was smuggled in");
}

#[test]
fn bad_request_lines_hosts_versions_and_methods_are_refused() {
    let broker = orders();
    let host = "Host: localhost\r\n\r\n";
    for (bad, status, code) in [
        (" GET / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET  / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET /\r\n", 400, "bad_request_line"),
        ("GET / HTTQ/1.1\r\n", 400, "bad_request_line"),
        ("G\0T / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("\x16\x03\x01 a TLS hello\r\n", 400, "bad_request_line"),
        ("GET /a#b HTTP/1.1\r\n", 400, "bad_target"),
        ("GET nothing HTTP/1.1\r\n", 400, "bad_target"),
        ("GET * HTTP/1.1\r\n", 400, "bad_target"),
        ("GET ftp://localhost/ HTTP/1.1\r\n", 400, "bad_target"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unknown_version"),
        ("GET / HTTP/1.2\r\n", 505, "unknown_version"),
        ("GET / HTTP/0.9\r\n", 505, "unknown_version"),
        ("BREW / HTTP/1.1\r\n", 501, "unknown_method"),
        ("get / HTTP/1.1\r\n", 501, "unknown_method"),
        ("CONNECT a:80 HTTP/1.1\r\n", 501, "unknown_method"),
        ("TRACE / HTTP/1.1\r\n", 501, "unknown_method"),
    ] {
        assert_ends(&broker, &[bad, host].concat(), status, code);
    }
    for (lines, status, code) in [
        ("", 400, "bad_host"),
        ("Host:\r\n", 400, "bad_host"),
        ("Host: localhost\r\nHost: localhost\r\n", 400, "bad_host"),
        ("Host: a b\r\n", 400, "bad_host"),
        ("Host: localhost:99999\r\n", 400, "bad_host"),
        ("Host: user@localhost\r\n", 400, "bad_host"),
        ("Host: evil.example\r\n", 403, "host_not_allowed"),
        ("Host: localhost.evil.example:4437\r\n", 403, "host_not_allowed"),
        ("Host: localhost\r\nExpect: miracles\r\n", 417, "unknown_expectation"),
        ("Host: localhost\r\nProducer-Id: a\r\nProducer-Id: a\r\n", 400, "duplicate_header"),
    ] {
        assert_ends(&broker, &format!("GET /livez HTTP/1.1\r\n{lines}\r\n"), status, code);
    }
    let long = format!("GET /{} HTTP/1.1\r\n{host}", "a".repeat(8 << 10));
    assert_ends(&broker, &long, 414, "target_too_long");
    assert_ends(&broker, &get(&format!("X: {}\r\n", "a".repeat(16 << 10))), 431, "head_too_large");
    assert_ends(&broker, &get(&"X: y\r\n".repeat(64)), 431, "too_many_headers");
    assert_eq!(tail(&broker), 0, "nothing was smuggled in");
}

#[test]
fn good_names_of_this_host_are_taken() {
    let broker = Broker::start(&[("http.hosts", "[\"events.example.org\"]")]);
    let mut client = broker.client();
    for host in
        ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:4437", "[::1]:4437", "10.1.2.3", "Events.Example.org:80"]
    {
        assert_eq!(client.ask("GET", "/livez", &[("Host", host)], "").status, 200, "{host}");
    }
    let answer = client.ask("GET", "/livez", &[("Host", "example.org")], "");
    answer.assert_problem(403, "host_not_allowed", "another name");
    client.assert_closed("another name");
}

#[test]
fn bad_chunks_store_nothing_and_end_the_connection() {
    let broker = orders();
    let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(257));
    for (body, status, code) in [
        ("x\r\n", 400, "bad_chunk"),
        ("\r\n", 400, "bad_chunk"),
        ("-1\r\n", 400, "bad_chunk"),
        ("+1\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("0x1\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        (" 1\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("1_0\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("1 \r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("1\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("1\r\nx\n0\r\n\r\n", 400, "bad_chunk"),
        ("1\r\nxy\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("1\r\nx\r\n0\r\n\n", 400, "bad_chunk"),
        ("1\r\nx\r\n0\n\r\n", 400, "bad_chunk"),
        ("1;a=\nb\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("00000000000000001\r\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
        ("FFFFFFFFFFFFFFFF\r\n", 413, "body_too_large"),
        ("1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n", 400, "bad_trailer"),
        ("1\r\nx\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_trailer"),
        ("1\r\nx\r\n0\r\nHost: localhost\r\n\r\n", 400, "bad_trailer"),
        ("1\r\nx\r\n0\r\nEddyline-Meta-A: b\r\n\r\n", 400, "bad_trailer"),
        ("1\r\nx\r\n0\r\nA : b\r\n\r\n", 400, "bad_header"),
        (&extension, 400, "bad_chunk"),
    ] {
        assert_ends(&broker, &post(CHUNKED, body), status, code);
    }
    assert_eq!(tail(&broker), 0, "nothing was stored");
}

#[test]
fn good_chunks_are_put_together() {
    let broker = orders();
    let mut client = broker.client();
    for (offset, (body, event)) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n006\r\n world\r\n0\r\n\r\n", "hello world"),
        ("A;name=\"v\";x\r\n0123456789\r\n0;end\r\nDigest: abc\r\n\r\n", "0123456789"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("0\r\n\r\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        client.send(post(CHUNKED, body));
        let answer = client.answer();
        assert_eq!((answer.status, answer.json()["first_offset"].as_u64()), (200, Some(offset as u64)), "{body:?}");
        assert_eq!(client.get(&format!("/v1/groups/orders/events/{offset}")).text(), event, "{body:?}");
    }
}

#[test]
fn a_request_means_the_same_however_it_is_cut() {
    let broker = orders();
    let bad_length = post("Content-Length: +5\r\n", "hello");
    for (request, status) in [
        (post("Content-Length: 5\r\n", "hello"), 200),
        (post(CHUNKED, "5;x\r\nhello\r\n0\r\nSum: 1\r\n\r\n"), 200),
        (format!("\r\n{}", post("content-length:5\r\n", "hello")), 200),
        (post("Content-Length: 5\r\nEddyline-Expect-Offset: 99\r\n", "hello"), 412),
        (bad_length, 400),
        (post(CHUNKED, "5\r\nhello\n"), 400),
    ] {
        let before = tail(&broker);
        let mut client = broker.client();
        for byte in request.as_bytes() {
            client.send_anyway([*byte]);
        }
        assert_eq!(client.answer().status, status, "{request:?}");
        if status == 400 {
            client.assert_closed(&request);
        } else {
            client.assert_in_step(&request);
        }
        assert_eq!(tail(&broker), before + u64::from(status == 200), "{request:?}");
    }
}

#[test]
fn a_refusal_that_leaves_no_doubt_where_the_next_request_begins_lets_it_be_answered() {
    let broker = orders();
    let text = [("Content-Type", "text/plain")];
    let post = |target: &str, headers: &[(&str, &str)], body: &str| Client::request("POST", target, headers, body);
    let events = "/v1/groups/orders/events";
    let batch = "/v1/groups/orders/batch";
    for (request, status, code) in [
        (Client::request("GET", "/nothing", &[], ""), 404, "not_found"),
        (Client::request("GET", "/v1/groups/none", &[], ""), 404, "no_group"),
        (post("/v1/groups/none/events", &[], "x"), 404, "no_group"),
        (Client::request("GET", batch, &[], ""), 405, "method_not_allowed"),
        (Client::request("DELETE", "/livez", &[], ""), 405, "method_not_allowed"),
        (post("/metrics", &[], "body"), 405, "method_not_allowed"),
        (Client::request("GET", "/v1/groups/orders/events?limits=1", &[], ""), 400, "unknown_parameter"),
        (Client::request("GET", "/v1/groups/orders/events?limit=1&limit=2", &[], ""), 400, "duplicate_parameter"),
        (Client::request("GET", "/v1/groups/orders/events?from=soon", &[], ""), 400, "bad_position"),
        (post(batch, &[], "a\nb"), 415, "unsupported_format"),
        (post(batch, &[("Content-Type", "application/json")], "[1,"), 400, "bad_json"),
        (post(batch, &[("Content-Type", "application/x-ndjson")], "1\nx\n3"), 400, "bad_line"),
        (post(batch, &text, " \n\r\n"), 400, "empty_batch"),
        (post(events, &[("Eddyline-Expect-Offset", "7")], "x"), 412, "unexpected_offset"),
        (post(events, &[("Producer-Id", "p")], "x"), 400, "bad_producer"),
        (post(events, &[("Producer-Id", "p"), ("Producer-Seq", "3")], "x"), 409, "producer_unknown"),
        (post("/v1/groups/orders/events?key_path=/a", &[], "x"), 400, "unknown_parameter"),
        (post("/v1/groups/orders/events", &[("Origin", "https://evil.example")], "x"), 403, "origin_not_allowed"),
    ] {
        let shown = request.escape_ascii().to_string();
        let mut client = broker.client();
        let before = tail(&broker);
        let good = post(events, &[], "good");
        client.send([&good[..], &request, &good].concat());
        let first = client.answer();
        assert_eq!(first.json()["first_offset"].as_u64(), Some(before), "before {shown}");
        let answer = client.answer();
        answer.assert_problem(status, code, &shown);
        assert_eq!(answer.json()["effect"], "none", "{shown}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{shown}");
        assert_eq!(client.answer().json()["first_offset"].as_u64(), Some(before + 1), "after {shown}");
        client.assert_in_step(&shown);
    }
}

#[test]
fn group_names_and_escapes_lead_nowhere_else() {
    let broker = orders();
    let mut client = broker.client();
    let long = format!("/v1/groups/{}/events", "a".repeat(121));
    for (target, status, code) in [
        ("/v1/groups/../events", 400, "bad_group"),
        ("/v1/groups/%2e%2e/events", 400, "bad_group"),
        ("/v1/groups/..%2f..%2fetc%2fpasswd/events", 400, "bad_group"),
        ("/v1/groups/a%00/events", 400, "bad_group"),
        ("/v1/groups/%C3%A4/events", 400, "bad_group"),
        ("/v1/groups/a%252e/events", 400, "bad_group"),
        ("/v1/groups/-a/events", 400, "bad_group"),
        (long.as_str(), 400, "bad_group"),
        ("/v1/groups/../../etc/passwd", 404, "not_found"),
        ("/v1/groups/orders/", 404, "not_found"),
        ("/v1/groups//events", 404, "not_found"),
        ("/v1//groups", 404, "not_found"),
        ("/LIVEZ", 404, "not_found"),
    ] {
        client.get(target).assert_problem(status, code, target);
        client.assert_in_step(target);
    }
    for target in ["/v1/groups/%zz/events", "/v1/groups/a%2", "/v1/groups/%FF", "/v1/groups/orders/events?from=%zz"] {
        let mut client = broker.client();
        client.get(target).assert_problem(400, "bad_escape", target);
    }
    assert_eq!(client.get("/v1/groups/%6Frders/events").status, 200, "an escape is only a way of writing");
    let names: Vec<_> = std::fs::read_dir(broker.data()).expect("a directory").map(|entry| entry.unwrap()).collect();
    assert!(names.iter().all(|entry| !entry.file_name().to_string_lossy().contains("orders")), "{names:?}");
}

#[test]
fn who_expects_100_continue_is_told_before_the_body_or_refused_without_it() {
    let broker = orders();
    let mut client = broker.client();
    let lines = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    client.send(post(lines, ""));
    assert_eq!(client.head().status, 100);
    client.send("hello");
    assert_eq!(client.answer().json()["first_offset"], 0);
    client.assert_in_step("an expected body");

    client.send(post(lines, "hello"));
    assert_eq!(client.answer().json()["first_offset"], 1, "who does not wait gets only the answer");

    let refused =
        "POST /v1/groups/none/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(refused);
    let answer = client.answer();
    answer.assert_problem(404, "no_group", "without the body");
    client.assert_closed("a refusal of a body that was not sent");

    let mut client = broker.client();
    client.send(format!("{}{}", post("Content-Length: 5\r\nExpect: 100-continue\r\n", ""), ""));
    assert_eq!(client.head().status, 100);
    client.send("h");
    client.send("ello");
    assert_eq!(client.answer().json()["first_offset"], 2);
}

#[test]
fn head_answers_as_get_without_the_body() {
    let broker = orders();
    broker.produce_lines("orders", "a\nb\nc");
    let mut client = broker.client();
    for target in [
        "/livez",
        "/readyz",
        "/v1/groups",
        "/v1/groups/orders",
        "/v1/groups/orders/events",
        "/v1/groups/orders/events?limit=2",
        "/v1/groups/orders/events/1",
        "/v1/groups/orders/events/9",
        "/nothing",
    ] {
        let expected = client.get(target);
        let answer = client.ask("HEAD", target, &[], "");
        assert_eq!(answer.status, expected.status, "{target}");
        for name in ["content-length", "content-type", "eddyline-offset"] {
            assert_eq!(answer.header(name), expected.header(name), "{target} {name}");
        }
        client.assert_in_step(target);
    }
}

#[test]
fn a_body_that_means_nothing_is_passed_over_whole() {
    let broker = orders();
    let smuggled = Client::request("POST", "/v1/groups/orders/events", &[], "smuggled");
    for (method, target, status) in [
        ("GET", "/livez", 200),
        ("HEAD", "/livez", 200),
        ("GET", "/v1/groups/orders/events", 200),
        ("GET", "/nothing", 404),
        ("OPTIONS", "/livez", 204),
        ("DELETE", "/v1/groups/none", 404),
        ("POST", "/livez", 405),
    ] {
        let chunked = [format!("{:x}\r\n", smuggled.len()).as_bytes(), &smuggled, b"\r\n0\r\n\r\n"].concat();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{CHUNKED}\r\n");
        for (request, is_chunked) in
            [(Client::request(method, target, &[], &smuggled), false), ([head.as_bytes(), &chunked].concat(), true)]
        {
            let mut client = broker.client();
            client.send(request);
            let answer = client.answer_to(method);
            assert_eq!(answer.status, status, "{method} {target}");
            // Chunks of a request that was refused at its head are not looked at.
            match is_chunked && status >= 400 && answer.header("connection") == Some("close") {
                true => client.assert_closed(target),
                false => client.assert_in_step(target),
            }
        }
    }
    assert_eq!(tail(&broker), 0, "nothing was smuggled in");
}

#[test]
fn old_clients_and_those_who_say_so_are_answered_once() {
    let broker = orders();
    for (request, keeps) in [
        ("GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n", false),
        ("GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", false),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, close\r\n\r\n", false),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
    ] {
        let mut client = broker.client();
        client.send([request, if keeps { "" } else { SMUGGLED }].concat());
        assert_eq!(client.answer().status, 200, "{request}");
        if keeps {
            client.assert_in_step(request);
        } else {
            client.assert_closed(request);
        }
    }
    // Saying that nothing more will come is no reason to lose the answer.
    let mut client = broker.client();
    client.send(post("Content-Length: 1\r\n", "x"));
    client.shutdown();
    assert_eq!(client.answer().json()["first_offset"], 0);
    client.assert_closed("the end of the client");
}
