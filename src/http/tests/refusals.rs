//! Heads that are refused, as tables: what they hold, and the status and code that answer them.

use super::{refusal, with_lines};

#[test]
fn bad_request_lines_are_refused() {
    for (line, status, code) in [
        ("\r\nGET / HTTP/1.1\r\n", 400, "bad_request_line"), // a second empty line, after the one of this test
        ("\nGET / HTTP/1.1\r\n", 400, "bad_request_line"),
        (" GET / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("G\0T / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("G:T / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET\t/ HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET\r\n", 400, "bad_request_line"),
        ("GET  / HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET /\r\n", 400, "bad_request_line"),
        ("GET /\n", 400, "bad_request_line"),
        ("GET /a b HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET /a\x7f HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET /a\t HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET /  HTTP/1.1\r\n", 400, "bad_request_line"),
        ("GET / HTTP/1.1 \r\n", 400, "bad_request_line"),
        ("GET / http/1.1\r\n", 400, "bad_request_line"),
        ("GET / HTTQ/1.1\r\n", 400, "bad_request_line"),
        ("GET / HTTP/x\r\n", 400, "bad_request_line"),
        ("GET / HTTP/1\r\n", 400, "bad_request_line"),
        ("GET / HTTP/1.\r\n", 400, "bad_request_line"),
        ("GET / HTTP/1.10\r\n", 400, "bad_request_line"),
        ("GET / HTTP/1.1\n", 400, "bad_line_end"),
        ("GET / HTTP/1.1\rX", 400, "bad_line_end"),
        ("GET / HTTP/1.1\r\r\n", 400, "bad_line_end"),
        ("GET /caf\u{e9} HTTP/1.1\r\n", 400, "bad_target"),
        ("GET /a#b HTTP/1.1\r\n", 400, "bad_target"),
        ("GET a HTTP/1.1\r\n", 400, "bad_target"),
        ("GET * HTTP/1.1\r\n", 400, "bad_target"),
        ("OPTIONS ** HTTP/1.1\r\n", 400, "bad_target"),
        ("GET a:80 HTTP/1.1\r\n", 400, "bad_target"),
        ("GET ftp://a/ HTTP/1.1\r\n", 400, "bad_target"),
        ("GET ?a=b HTTP/1.1\r\n", 400, "bad_target"),
        ("GET http:///a HTTP/1.1\r\n", 400, "bad_host"),
        ("GET http://u@a/ HTTP/1.1\r\n", 400, "bad_host"),
        ("get / HTTP/1.1\r\n", 501, "unknown_method"),
        ("BREW / HTTP/1.1\r\n", 501, "unknown_method"),
        ("TRACE / HTTP/1.1\r\n", 501, "unknown_method"),
        ("CONNECT a:80 HTTP/1.1\r\n", 501, "unknown_method"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n", 505, "unknown_version"),
        ("GET / HTTP/1.2\r\n", 505, "unknown_version"),
        ("GET / HTTP/2\r\n", 505, "unknown_version"),
        ("GET / HTTP/3.0\r\n", 505, "unknown_version"),
        ("GET / HTTP/0.9\r\n", 505, "unknown_version"),
    ] {
        for start in ["", "\r\n"] {
            if start.is_empty() && line.starts_with("\r\n") {
                continue;
            }
            let input = format!("{start}{line}Host: a\r\n\r\n");
            assert_eq!(refusal(input.as_bytes()), (status, code), "{input:?}");
        }
    }
}

#[test]
fn bad_header_lines_are_refused() {
    for lines in [
        "Accept: x\n",
        "Accept: x\nB: y\r\n",
        "Accept: x\ry\r\n",
        "Accept: x\r\r\n",
        "Host: b\r\nAccept: c\nD: e\r\n", // the bytes are judged before what they say
    ] {
        assert_eq!(refusal(&with_lines(lines)), (400, "bad_line_end"), "{lines:?}");
    }
    for input in [&b"GET / HTTP/1.1\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\r\n\n", b"BREW / HTTP/1.1\r\nHost: a\n\r\n"]
    {
        assert_eq!(refusal(input), (400, "bad_line_end"), "{}", input.escape_ascii());
    }
    for lines in [
        "Accept: x\0y\r\n",
        "Accept: x\x1fy\r\n",
        "Accept: x\x7fy\r\n",
        "Accept:\x0bx\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Accept: x\r\n y\r\n",
        "Accept: x\r\n\ty\r\n",
        " Accept: x\r\n",
        "Accept : x\r\n",
        "Accept\t: x\r\n",
        "Accept\r\n",
        ": x\r\n",
        "Acc\u{e9}pt: x\r\n",
        "A(c: x\r\n",
        "Eddyline-Meta-: x\r\n",
    ] {
        assert_eq!(refusal(&with_lines(lines)), (400, "bad_header"), "{lines:?}");
    }
}

#[test]
fn what_may_stand_once_is_refused_twice() {
    for name in [
        "Content-Type",
        "Authorization",
        "Origin",
        "Last-Event-ID",
        "Producer-Id",
        "Producer-Epoch",
        "Producer-Seq",
        "Eddyline-Key",
        "Eddyline-Expect-Offset",
        "Access-Control-Request-Method",
    ] {
        let lines = format!("{name}: 1\r\n{}: 1\r\n", name.to_lowercase());
        assert_eq!(refusal(&with_lines(&lines)), (400, "duplicate_header"), "{name}");
        let lines = format!("{name}:\r\nX: y\r\n{name}: 2\r\n");
        assert_eq!(refusal(&with_lines(&lines)), (400, "duplicate_header"), "{name}");
    }
    for host in ["a", "b", ""] {
        assert_eq!(refusal(&with_lines(&format!("host: {host}\r\n"))), (400, "bad_host"));
    }
    for length in ["5", "6"] {
        let lines = format!("Content-Length: 5\r\nContent-Length: {length}\r\n");
        assert_eq!(refusal(&with_lines(&lines)), (400, "bad_length"));
    }
    for coding in ["chunked", "identity"] {
        let lines = format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}\r\n");
        assert_eq!(refusal(&with_lines(&lines)), (400, "bad_transfer_encoding"));
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    for length in ["", "5, 5", "5,", "+5", "-5", "0x5", "a", "1_0", "1 0", "5.0", "18446744073709551616", "\u{665}"] {
        let lines = format!("Content-Length: {length}\r\n");
        assert_eq!(refusal(&with_lines(&lines)), (400, "bad_length"), "{length}");
    }
    for (status, code, codings) in [
        (
            400,
            "bad_transfer_encoding",
            &["", "chunked, chunked", "chunked,", ",chunked", "chunked;q=1", "\"chunked\""][..],
        ),
        (501, "unknown_transfer_coding", &["xchunked", "identity", "gzip, chunked"]),
    ] {
        for coding in codings {
            let lines = format!("Transfer-Encoding: {coding}\r\n");
            assert_eq!(refusal(&with_lines(&lines)), (status, code), "{coding}");
            for lines in [format!("Content-Length: 5\r\n{lines}"), format!("{lines}Content-Length: 5\r\n")] {
                assert_eq!(refusal(&with_lines(&lines)), (400, "bad_framing"), "{coding}");
            }
        }
    }
    let both = with_lines("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n");
    assert_eq!(refusal(&both), (400, "bad_framing"));
    let old = b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refusal(old), (400, "bad_framing"));
}

#[test]
fn unknown_expectations_are_refused() {
    for value in ["200-ok", "", "100-continue, x", "100-continue\r\nExpect: x"] {
        let lines = format!("Expect: {value}\r\n");
        assert_eq!(refusal(&with_lines(&lines)), (417, "unknown_expectation"), "{value}");
    }
}

#[test]
fn a_request_has_exactly_one_valid_host() {
    for version in ["1.0", "1.1"] {
        assert_eq!(refusal(format!("GET / HTTP/{version}\r\n\r\n").as_bytes()), (400, "bad_host"));
        assert_eq!(refusal(format!("GET http://b/ HTTP/{version}\r\n\r\n").as_bytes()), (400, "bad_host"));
        for host in [
            "", ":80", "a b", "a,b", "a/b", "u@a", "a:b", "a:65536", "a:80:80", "a:-1", "[::1", "::1", "[]", "[a]",
            "[::1]x", "\u{e9}", "a%20", "a?", "a#", "http://a", "\"a\"",
        ] {
            let input = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
            assert_eq!(refusal(input.as_bytes()), (400, "bad_host"), "{host}");
        }
    }
}
