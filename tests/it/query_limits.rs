//! What one query and all of them may take, each limit by its name; and that a query ends with whoever asked.

use crate::broker::{Broker, eventually};
use crate::http::Client;
use crate::program::eddyline;
use serde_json::json;
use std::io::{Read, Write};

const QUERY: &str = "/v1/query";
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");

/// A broker with these settings, and a group of some thousand events, each with a number of its own.
fn broker(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(settings);
    broker.create("flights", "{}");
    for batch in 0..20 {
        let lines: Vec<String> = (0..1000).map(|n| format!(r#"{{"n":{},"o":"SFO"}}"#, batch * 1000 + n)).collect();
        broker.produce_lines("flights", &lines.join("\n"));
    }
    broker
}

/// Takes far longer than anybody waits.
fn long_query() -> String {
    let part = "data.o LIKE '%a%b%c%' OR data.n = 'x'";
    let parts = vec![part; 200].join(" OR ");
    format!("SELECT count() IN flights WHERE {parts}")
}

/// What a query is refused with, and its limit.
fn refused(broker: &Broker, query: &str) -> (u16, String, String) {
    let answer = broker.ask("POST", QUERY, &[], query);
    let problem = answer.json();
    let member = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (answer.status, member("code"), member("limit"))
}

fn metric(broker: &Broker, name: &str) -> f64 {
    let metrics = broker.get("/metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// There the end of the connection is the end of the answer.
#[test]
fn an_answer_that_breaks_off_is_no_whole_one_to_http_1_0_either() {
    let broker = broker(&[("query.rows", "15000")]);
    let head =
        "GET /v1/query?q=SELECT+*+IN+flights HTTP/1.0\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n\r\n";
    let mut stream = std::net::TcpStream::connect(broker.address()).expect("a connection");
    stream.write_all(head.as_bytes()).expect("it is there");
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).map_err(|error| error.kind());
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer[..answer.len().min(100)].escape_ascii());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

/// Rows that wait for the end are half of what may be kept, and then come the events of a large frame.
#[test]
fn rows_that_wait_do_not_slow_down_what_comes() {
    let broker = Broker::start(&[("query.memory", "8MiB"), ("query.time", "60s")]);
    broker.create("flights", "{}");
    for numbers in [0..14_000, 14_000..28_000, 28_000..42_000] {
        let lines: Vec<String> = numbers.map(|n| format!(r#"{{"k":{n}}}"#)).collect();
        broker.produce_lines("flights", &lines.join("\n"));
    }
    // Event by event from the frame's beginning, it would take minutes.
    let query = "SELECT data.k, count() IN flights SAMPLE BY 1T ORDER BY received DESC LIMIT 1";
    let answer = broker.ask("POST", QUERY, &[], query);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["rows"][0][1], 41_999);
}

#[test]
fn each_limit_of_a_query_is_told_by_its_name() {
    let limit = |name: &str| (422, "query_limit".to_owned(), name.to_owned());
    let broker = broker(&[("query.memory", "1MiB"), ("query.rows", "100"), ("query.span", "6000d")]);
    for (query, name) in [
        ("SELECT * IN flights FROM 2000-01-01", "span"),
        ("SELECT count() IN flights FROM 2020-01-01 TO 2040-01-01", "span"),
        ("SELECT data.n, count() IN flights", "memory"),
        ("SELECT data.n, count() IN flights SAMPLE BY 1d", "memory"),
        ("SELECT * IN flights LIMIT 101", "rows"),
        ("SELECT count() IN flights FROM 2020-01-01 SAMPLE BY 1s", "slices"),
    ] {
        assert_eq!(refused(&broker, query), limit(name), "{query}");
    }
    // Nobody takes what has more rows for complete: there it is not told where it goes on.
    for format in [NDJSON, ("Accept", "text/csv")] {
        let answer = broker.ask("POST", QUERY, &[format], "SELECT offset IN flights");
        assert_eq!((answer.status, &answer.json()["limit"]), (422, &json!("rows")));
        let answer = broker.ask("POST", QUERY, &[format], "SELECT offset IN flights LIMIT 100");
        assert!(answer.status == 200 && answer.text().lines().count() >= 100, "{answer:?}");
    }
    // What fits goes on, also when much of it stands for empty slices.
    for (query, rows) in [
        ("SELECT offset IN flights LIMIT 100", 100),
        ("SELECT offset IN flights WHERE data.n >= 19900", 100),
        ("SELECT offset IN flights", 100),
        ("SELECT data.o, count() IN flights", 1),
        ("SELECT count() IN flights FROM now() - 1d TO 2040-01-01 SAMPLE BY 1h FILL(0) LIMIT 100", 100),
        ("SELECT count() IN flights FROM now() - 10d TO now() SAMPLE BY 1s FILL(0) ORDER BY received DESC", 100),
    ] {
        let answer = broker.ask("POST", QUERY, &[], query);
        assert_eq!(answer.json()["rows"].as_array().map(Vec::len), Some(rows), "{query}: {answer:?}");
    }
    assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"limit\"}"), 4.0);
    assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"answered\"}"), 8.0);
    assert_eq!(metric(&broker, "eddyline_query_seconds_count"), 12.0);
    assert_eq!(metric(&broker, "eddyline_queries_running"), 0.0);
    assert!(metric(&broker, "eddyline_query_events_total") >= 20_000.0);
    assert!(metric(&broker, "eddyline_query_read_bytes_total") >= 20_000.0 * 40.0);
}

/// Neither many rows nor those of many empty slices wait for one another in memory.
#[test]
fn rows_are_sent_as_they_are_made() {
    let broker = broker(&[("query.memory", "64KiB")]);
    for (query, rows) in [
        ("SELECT * IN flights", 20_000),
        ("SELECT data, received IN flights ORDER BY received DESC", 20_000),
        ("SELECT count() IN flights FROM now() - 10d TO now() - 1d SAMPLE BY 10s FILL(PREV)", 9 * 8_640 + 1),
        (
            "SELECT count() IN flights FROM now() - 10d TO now() - 1d SAMPLE BY 10s FILL(0) ORDER BY received DESC",
            9 * 8_640 + 1,
        ),
    ] {
        let answer = broker.ask("POST", QUERY, &[NDJSON], query);
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let lines = answer.text().lines().count();
        assert!(lines.abs_diff(rows) <= 1, "{query}: {lines} rows");
    }
}

/// Only JSON tells where a cut result goes on, and must know whether there is more.
#[test]
fn what_has_its_rows_reads_no_further() {
    let broker = broker(&[]);
    let mut before = 0.0;
    for (query, format, read) in [
        ("SELECT data.n IN flights WHERE data.n = 5 LIMIT 1", NDJSON, 6.0),
        ("SELECT data.n IN flights WHERE data.n = 5 LIMIT 1", ("Accept", "text/csv"), 6.0),
        ("SELECT data.n IN flights WHERE data.n = 5 LIMIT 1", ("Accept", "application/json"), 20_000.0),
        ("SELECT data.n IN flights WHERE data.n = 19990 ORDER BY received DESC LIMIT 1", NDJSON, 512.0),
        ("SELECT data.n IN flights WHERE data.n = 5 LIMIT 1 FOLLOW", NDJSON, 6.0),
        ("SELECT data.n IN flights WHERE data.n = 5", NDJSON, 20_000.0),
    ] {
        let answer = broker.ask("POST", QUERY, &[format], query);
        assert!(answer.status == 200 && (answer.text().contains('5') || answer.text().contains("19990")), "{answer:?}");
        let read_now = metric(&broker, "eddyline_query_events_total");
        assert_eq!(read_now - before, read, "{query} {format:?}");
        before = read_now;
    }
}

/// Nobody takes the rows that were sent before for all there are.
#[test]
fn an_answer_that_has_begun_ends_in_the_middle_when_there_are_too_many_rows() {
    let broker = broker(&[("query.rows", "15000")]);
    for format in [NDJSON, ("Accept", "text/csv")] {
        let mut client = broker.client();
        client.send(Client::request("POST", QUERY, &[format], "SELECT * IN flights"));
        assert_eq!(client.head().status, 200);
        while !client.closed() {
            assert!(client.chunk().is_some(), "it has no end");
        }
    }
}

#[test]
fn a_query_that_runs_for_too_long_is_ended() {
    let broker = broker(&[("query.time", "50ms")]);
    let told = (422, "query_limit".to_owned(), "time".to_owned());
    assert_eq!(refused(&broker, &long_query()), told);
    eventually("it ends", || metric(&broker, "eddyline_queries_running") == 0.0);
}

#[test]
fn only_so_many_queries_run_at_once() {
    for (settings, limit) in [
        ([("query.running", "2"), ("query.running_per_token", "8")], "running"),
        ([("query.running", "8"), ("query.running_per_token", "2")], "running_per_token"),
    ] {
        let broker = broker(&settings);
        let begin = || {
            let mut client = broker.client();
            client.send(Client::request("POST", QUERY, &[NDJSON], "SELECT * IN flights FROM now() FOLLOW"));
            assert_eq!(client.head().status, 200);
            client
        };
        let running = [begin(), begin()];
        let told = (429, "too_many_queries".to_owned(), limit.to_owned());
        assert_eq!(refused(&broker, "SELECT count() IN flights"), told);
        assert_eq!(metric(&broker, "eddyline_queries_running"), 2.0);
        drop(running);
        eventually("room", || broker.ask("POST", QUERY, &[], "SELECT count() IN flights").status == 200);
        assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"left\"}"), 2.0);
    }
}

#[test]
fn tokens_do_not_take_each_others_room() {
    let settings = [("query.running", "3"), ("query.running_per_token", "1")];
    let (broker, admin) = Broker::start_guarded(&settings);
    let mut client = broker.client();
    client.authorize(&admin);
    assert_eq!(client.ask("PUT", "/v1/groups/flights", &[], "").status, 201);
    let mut token = || {
        let body = json!({ "scopes": ["query"], "groups": ["flights"] }).to_string();
        client.ask("POST", "/v1/tokens", &[], body).json()["token"].as_str().expect("a token").to_owned()
    };
    let (one, other) = (token(), token());
    let begin = |token: &str| {
        let mut client = broker.client();
        let bearer = format!("Bearer {token}");
        let headers = [NDJSON, ("Authorization", bearer.as_str())];
        client.send(Client::request("POST", QUERY, &headers, "SELECT * IN flights FOLLOW"));
        assert_eq!(client.head().status, 200);
        client
    };
    let _running = begin(&one);
    for (token, status) in [(&one, 429), (&other, 200)] {
        let mut client = broker.client();
        client.authorize(token);
        assert_eq!(client.ask("POST", QUERY, &[], "SELECT count() IN flights").status, status);
    }
}

#[test]
fn a_query_ends_when_its_client_hangs_up() {
    let broker = broker(&[]);
    let mut client = broker.client();
    client.send(Client::request("POST", QUERY, &[], long_query()));
    eventually("it runs", || metric(&broker, "eddyline_queries_running") == 1.0);
    assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"answered\"}"), 0.0);
    drop(client);
    eventually("it ends", || metric(&broker, "eddyline_queries_running") == 0.0);
    assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"left\"}"), 1.0);
    // Rows that nobody takes do not keep it either.
    let mut client = broker.client();
    client.send(Client::request("POST", QUERY, &[NDJSON], "SELECT * IN flights"));
    eventually("it runs", || metric(&broker, "eddyline_queries_running") == 1.0);
    drop(client);
    eventually("it ends", || metric(&broker, "eddyline_queries_running") == 0.0);
}

#[test]
fn ctrl_c_of_the_command_line_ends_the_query_on_the_broker() {
    let broker = broker(&[]);
    for query in [long_query(), "SELECT * IN flights FROM now() FOLLOW".to_owned()] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_eddyline"));
        let mut child = child.args(["query", &query, "--url", &broker.url()]).spawn().expect("it starts");
        eventually("it runs", || metric(&broker, "eddyline_queries_running") == 1.0);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
        child.wait().expect("it ends");
        eventually("it ends there, too", || metric(&broker, "eddyline_queries_running") == 0.0);
    }
    assert_eq!(metric(&broker, "eddyline_queries_total{outcome=\"left\"}"), 2.0);
    eddyline(&["query", "SELECT count() IN flights", "--url", &broker.url()]).with(0);
}
