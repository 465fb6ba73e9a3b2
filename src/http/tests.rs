//! Heads, good and bad, at every split point. (Bodies, targets and replies are tested where they stand.)

mod refusals;

use proptest::prelude::*;

use super::*;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

const POST: &[u8] = b"POST /v1/groups/orders/events?producer=a%20b HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    content-length: 100\r\n\
    Content-Type: application/json\r\n\
    Prefer:return=minimal  \r\n\
    Eddyline-Meta-Trace: 00-ab-01\r\n\
    X-Other: \xff obs-text\ttab\r\n\
    eddyline-meta-source:\r\n\
    Prefer: wait=5\r\n\r\n";

/// Parses, and checks on the way that no cut changes the result: a prefix of a good head needs more, a prefix of a
/// bad one needs more or is bad in the same way.
fn parsed(input: &[u8]) -> Result<Option<(Head<'_>, usize)>, Fault> {
    let whole = parse_head(input);
    for cut in 0..input.len() {
        let early = parse_head(&input[..cut]);
        match &whole {
            Ok(Some((_, used))) if cut >= *used => assert_eq!(early, whole, "cut at {cut}"),
            Err(_) if early.is_err() => assert_eq!(early, whole, "cut at {cut}"),
            _ => assert_eq!(early, Ok(None), "cut at {cut}"),
        }
    }
    whole
}

/// The head of a request that must be good and take all of `input`.
fn head(input: &[u8]) -> Head<'_> {
    match parsed(input) {
        Ok(Some((head, used))) if used == input.len() => head,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

fn refusal(input: &[u8]) -> (u16, &'static str) {
    match parsed(input) {
        Err(fault) => {
            assert!(!fault.detail.is_empty() && fault.detail.is_ascii());
            (fault.status, fault.code)
        }
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

/// A good request with these header lines after its Host.
fn with_lines(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn a_head_tells_everything_in_it() {
    let head = head(POST);
    assert_eq!((head.method, head.minor_version, head.keep_alive), (Method::Post, 1, true));
    assert_eq!((head.path, head.query), ("/v1/groups/orders/events", "producer=a%20b"));
    assert_eq!((head.framing, head.expects_continue), (Framing::Length(100), false));
    assert_eq!(head.get(Known::Host), Some(&b"127.0.0.1:8080"[..]));
    assert_eq!(head.text(Known::ContentType), Ok(Some("application/json")));
    assert_eq!(head.get(Known::Prefer), Some(&b"return=minimal"[..]));
    assert_eq!(head.all(Known::Prefer).collect::<Vec<_>>(), [&b"return=minimal"[..], b"wait=5"]);
    assert_eq!(head.get(Known::Authorization), None);
    assert_eq!(head.all(Known::Accept).count(), 0);
    assert_eq!(head.meta().collect::<Vec<_>>(), [("Trace", &b"00-ab-01"[..]), ("source", b"")]);
    assert_eq!(head.reply_to(), ReplyTo { minor_version: 1, head_only: false, keep_alive: true });
}

#[test]
fn what_follows_a_head_is_left_alone() {
    let mut input = b"\r\n".to_vec();
    input.extend_from_slice(POST);
    let used = input.len();
    for more in [&b""[..], b"x", b"\r\n\r\n", b"\n\n\0GET"] {
        input.truncate(used);
        input.extend_from_slice(more);
        let found = parsed(&input).expect("good").expect("complete");
        assert_eq!(found.1, used);
        assert_eq!(found.0.path, "/v1/groups/orders/events");
        assert_eq!(found.0.meta().count(), 2);
    }
}

#[test]
fn empty_and_absent_values_are_told_apart() {
    let input = with_lines("Accept:\r\nPrefer: \t \r\n");
    let head = head(&input);
    assert_eq!(head.get(Known::Accept), Some(&b""[..]));
    assert_eq!(head.get(Known::Prefer), Some(&b""[..]));
    assert_eq!(head.get(Known::Origin), None);
    assert_eq!(head.meta().count(), 0);
}

#[test]
fn a_value_that_is_not_utf8_is_bytes_only() {
    let head = head(b"GET / HTTP/1.1\r\nHost: a\r\nEddyline-Key: \xff\r\n\r\n");
    assert_eq!(head.get(Known::Key), Some(&b"\xff"[..]));
    assert_eq!(head.text(Known::Key).expect_err("not text").code, "bad_header");
}

#[test]
fn targets_have_a_path_and_a_query() {
    for (line, path, query, host) in [
        ("GET / HTTP/1.1", "/", "", "a"),
        ("GET /? HTTP/1.0", "/", "", "a"),
        ("GET //x/../y?a=b?c=/d HTTP/1.1", "//x/../y", "a=b?c=/d", "a"),
        ("OPTIONS * HTTP/1.1", "*", "", "a"),
        ("OPTIONS /x HTTP/1.1", "/x", "", "a"),
        ("GET http://b:81/x?y HTTP/1.1", "/x", "y", "b:81"),
        ("GET HTTPS://b HTTP/1.1", "/", "", "b"),
        ("GET http://b?y=/z HTTP/1.1", "/", "y=/z", "b"),
    ] {
        let input = format!("{line}\r\nHost: a\r\n\r\n");
        let head = head(input.as_bytes());
        assert_eq!((head.path, head.query), (path, query), "{line}");
        assert_eq!(head.text(Known::Host), Ok(Some(host)), "{line}");
    }
}

#[test]
fn methods_are_known() {
    for (token, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
    ] {
        let input = format!("{token} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = head(input.as_bytes());
        assert_eq!(head.method, method);
        assert_eq!(head.reply_to().head_only, token == "HEAD");
    }
}

#[test]
fn a_connection_goes_on_as_version_and_client_say() {
    for (version, lines, keep_alive) in [
        ("1.1", "", true),
        ("1.0", "", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x ,\tkeep-alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: , Close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection:\r\n", true),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(head(input.as_bytes()).keep_alive, keep_alive, "{version} {lines}");
    }
}

#[test]
fn bodies_are_framed_and_hosts_are_hosts() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("Content-Length: 007\r\n", Framing::Length(7)),
        ("Content-Length:18446744073709551615 \r\n", Framing::Length(u64::MAX)),
        ("Transfer-Encoding: Chunked\r\n", Framing::Chunked),
    ] {
        assert_eq!(head(&with_lines(lines)).framing, framing, "{lines}");
    }
    for host in ["a", "a:", "a:65535", "eddy-line.example", "10.0.0.1:80", "[::1]", "[::ffff:1.2.3.4]:8080", "a_b~c"] {
        let input = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(head(input.as_bytes()).text(Known::Host), Ok(Some(host)));
    }
    assert!(head(&with_lines("Expect: 100-Continue\r\n")).expects_continue);
    assert!(!head(b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expects_continue);
}

#[test]
fn limits_hold_as_soon_as_they_are_passed() {
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(bytes - 1));
    assert!(matches!(parse_head(target(TARGET_BYTES_MAX).as_bytes()), Ok(Some(_))));
    let long = target(TARGET_BYTES_MAX + 1);
    let seen = "GET ".len() + TARGET_BYTES_MAX;
    assert_eq!(parse_head(&long.as_bytes()[..seen]), Ok(None));
    for cut in [seen + 1, long.len()] {
        let fault = parse_head(&long.as_bytes()[..cut]).expect_err("too long");
        assert_eq!((fault.status, fault.code), (414, "target_too_long"));
    }

    // A request line, Host, and one field that fills the rest.
    let sized = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    let largest = sized(HEAD_BYTES_MAX);
    assert!(matches!(parse_head(largest.as_bytes()), Ok(Some((_, HEAD_BYTES_MAX)))));
    assert_eq!(parse_head(&largest.as_bytes()[..HEAD_BYTES_MAX - 1]), Ok(None));
    let large = sized(HEAD_BYTES_MAX + 1);
    for cut in [HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1] {
        let fault = parse_head(&large.as_bytes()[..cut]).expect_err("too large");
        assert_eq!((fault.status, fault.code), (431, "head_too_large"));
    }

    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let most = many(HEADERS_MAX);
    assert!(matches!(parsed(most.as_bytes()), Ok(Some(_))));
    let too_many = many(HEADERS_MAX + 1);
    assert_eq!(refusal(too_many.as_bytes()), (431, "too_many_headers"));
    let first_byte_of_the_last = too_many.len() - "X: y\r\n\r\n".len() + 1;
    assert!(parse_head(&too_many.as_bytes()[..first_byte_of_the_last]).is_err());
}

/// Pieces that heads are made of, with what goes wrong at their seams.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET ",
        "POST ",
        "X ",
        "/",
        "a",
        "?b=c",
        " ",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/2",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "\t",
        "Host: a",
        "Host",
        ":",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "\0",
        "\u{e9}",
        "Eddyline-Meta-A: b",
        "#",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "\r\n\r\n",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

/// A good head with a few bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4).prop_map(|changes| {
        let mut input = POST.to_vec();
        for (place, byte) in changes {
            let at = place.index(input.len());
            input[at] = byte;
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Besides the cuts this holds the two parsers against each other: httparse with the checks after it refuses just
    /// what the strict walk refuses, and so no bad head is ever named by the fault that is there for none.
    #[test]
    fn every_cut_of_anything_gives_the_same_result(input in prop_oneof![pieces(), mutated()]) {
        let whole = parsed(&input);
        // The one empty line that is forgiven, or the beginning of it.
        let start = if input.starts_with(b"\r\n") || input == b"\r" { input.len().min(2) } else { 0 };
        let line = &input[start..];
        match (&whole, syntax::first_fault(line)) {
            (Err(fault), Some(first)) => prop_assert_eq!(fault, &first),
            (Ok(_), Some(first)) => prop_assert!(false, "accepted in spite of {}", first),
            (Err(fault), None) => prop_assert_ne!(fault.code, "bad_request_line"),
            (Ok(_), None) => {}
        }
        if let Ok(Some((head, used))) = whole {
            prop_assert!(input[..used].ends_with(b"\r\n\r\n"));
            prop_assert!(head.meta().all(|(name, _)| !name.is_empty()));
            prop_assert_eq!(head.get(Known::Host), head.all(Known::Host).next());
        }
    }

    #[test]
    fn noise_never_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parsed(&input);
    }
}
