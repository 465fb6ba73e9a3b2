//! Stories of requests: what is sent, and what a refusal becomes.

use super::*;
use crate::cli::failure::Exit;
use crate::cli::fake::{Fake, answer, connection};
use serde_json::Value;

#[test]
fn an_address_that_cannot_work_is_refused_with_an_example() {
    let table = [
        ("https://127.0.0.1:4437", "asks for TLS"),
        ("127.0.0.1:4437", "http://"),
        ("ftp://127.0.0.1", "does not begin with http://"),
        ("http://127.0.0.1:4437/v1", "has a path"),
        ("http://127.0.0.1:4437?x", "has a path"),
        ("http://a b", "is not an address"),
    ];
    for (url, reason) in table {
        let failure = connection(&["--url", url]).client().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(reason) || failure.message.contains("is not an address"), "{failure:?}");
    }
    assert_eq!(connection(&["--url", "http://localhost:1/"]).client().unwrap().url, "http://localhost:1");
}

#[test]
fn a_token_is_shown_to_the_broker_and_to_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "edl_1_secret\n").unwrap();
    let fake = Fake::new(&[answer("200 OK", "", "{}")]);
    let client = connection(&["--url", &fake.url, "--token-file", path]).client().unwrap();
    client.get_json::<Value>("/readyz").unwrap();
    assert_eq!(fake.asked().header("authorization"), Some("Bearer edl_1_secret"));

    assert!(!format!("{client:?}").contains("secret"));
    for (text, reason) in [("", "is empty"), ("edl_1_secret and more", "more than one")] {
        std::fs::write(&file, text).unwrap();
        let failure = connection(&["--token-file", path]).client().unwrap_err();
        assert!(failure.message.contains(reason) && !failure.message.contains("secret"), "{failure:?}");
    }
    let failure = connection(&["--token-file", "/nowhere/token"]).client().unwrap_err();
    assert!(failure.message.contains("/nowhere/token: No such file"), "{failure:?}");
}

/// Status, headers and body of a refusal, the message it becomes, and a part of the hint.
const REFUSALS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "401 Unauthorized",
        "",
        r#"{"code":"no_token","detail":"who are you?"}"#,
        "no_token: who are you?",
        "--token-file",
    ),
    ("403 Forbidden", "", r#"{"code":"forbidden","title":"Not allowed"}"#, "forbidden: Not allowed", "ask for another"),
    ("404 Not Found", "", r#"{"code":"no_group","detail":"no group `x`"}"#, "no_group: no group `x`", "group create"),
    ("410 Gone", "", r#"{"code":"gone","detail":"too old","earliest":12}"#, "gone: too old", "still kept is 12"),
    ("413 Content Too Large", "", r#"{"code":"too_large","detail":"9 MiB"}"#, "too_large: 9 MiB", "--batch"),
    ("429 Too Many Requests", "Retry-After: 7\r\n", r#"{"code":"rate"}"#, "rate", "again in 7 s"),
    ("503 Service Unavailable", "", r#"{"code":"draining","retry_after_ms":1200}"#, "draining", "again in 2 s"),
    ("507 Insufficient Storage", "", r#"{"code":"reserve"}"#, "reserve", "free space"),
    ("500 Internal Server Error", "", r#"{"code":"sync","effect":"unknown"}"#, "sync", "may or may not"),
    ("404 Not Found", "", "<html>nothing\n</html>", "status 404: <html>nothing", "Eddyline broker?"),
    ("302 Found", "Location: /x\r\n", "", "status 302", "Eddyline broker?"),
];

#[test]
fn refusals_say_code_detail_and_the_next_step() {
    // (status, headers, body, message, a part of the hint)
    for &(status, headers, body, message, hint) in REFUSALS {
        let fake = Fake::new(&[answer(status, headers, body)]);
        let failure = Failure::from(fake.client().get("/v1/status", "*/*").unwrap_err());
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, message));
        assert!(failure.hint.as_ref().is_some_and(|said| said.contains(hint)), "{failure:?}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_unreachable() {
    let client = connection(&["--url", "http://127.0.0.1:1"]).client().unwrap();
    let trouble = client.get("/", "*/*").unwrap_err();
    assert!(matches!(trouble, Trouble::Unreachable { unsent: true, .. }), "{trouble:?}");
    let failure = Failure::from(trouble);
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.message.starts_with("http://127.0.0.1:1: "), "{failure:?}");

    let fake = Fake::new(&[String::new()]);
    let trouble = fake.client().get("/", "*/*").unwrap_err();
    assert!(matches!(trouble, Trouble::Unreachable { unsent: false, .. }), "{trouble:?}");
}

#[test]
fn what_is_not_json_is_odd() {
    let fake = Fake::new(&[answer("200 OK", "", "hello")]);
    let failure = Failure::from(fake.client().get_json::<Value>("/").unwrap_err());
    assert_eq!(failure.exit, Exit::Failed);
}

#[test]
fn names_are_encoded_in_paths() {
    assert_eq!(group_path("a/../b c%?#ä", "/events"), "/v1/groups/a%2F..%2Fb%20c%25%3F%23%C3%A4/events");
    assert_eq!(group_path("web-1.2_3", ""), "/v1/groups/web-1.2_3");
}
