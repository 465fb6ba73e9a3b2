//! `/v1/query` through the program: what its page shows, formats and pages, limits, mistakes, tokens, what follows, and
//! answers compared with those of DuckDB over real flights.

use crate::broker::{Broker, eventually};
use crate::http::{Answer, Client};
use crate::program::{eddyline, run};
use crate::real_input::{records, some};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

const QUERY: &str = "/v1/query";
const NDJSON: (&str, &str) = ("Accept", "application/x-ndjson");
const CSV: (&str, &str) = ("Accept", "text/csv");

fn ask(client: &mut Client, query: &str) -> Answer {
    client.ask("POST", QUERY, &[], query)
}

fn rows(client: &mut Client, query: &str) -> Vec<Value> {
    let answer = ask(client, query);
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()["rows"].as_array().expect("rows").clone()
}

/// A group of ten events with numbers.
fn ten() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("flights", r#"{"segment":{"max_bytes":"64KiB"}}"#);
    let lines: Vec<String> = (0..10).map(|n| format!(r#"{{"n":{n},"even":{}}}"#, n % 2 == 0)).collect();
    broker.produce_lines("flights", &lines.join("\n"));
    broker
}

#[test]
fn every_query_of_its_page_is_understood() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/QUERY.md")).expect("the page");
    let blocks = page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    let queries: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(queries.len() > 30, "queries were found");
    let broker = ten();
    let mut client = broker.client();
    for query in queries {
        assert_eq!(ask(&mut client, query).status, 200, "{query}");
    }
}

#[test]
fn rows_come_as_json_ndjson_and_csv() {
    let broker = ten();
    let mut client = broker.client();
    let query = "SELECT offset, data.even, data.none AS x IN flights WHERE data.n >= 8";
    let answer = ask(&mut client, query).json();
    assert_eq!(answer["rows"], json!([[8, true, null], [9, false, null]]));
    assert_eq!(answer["columns"][2], json!({"name": "x", "type": "json"}));
    assert!(answer["next"].is_null() && answer["stats"]["events_read"] == 10, "{answer}");
    let lines = client.ask("POST", QUERY, &[("Accept", "text/html, text/csv;q=0.5, Application/X-NDJSON")], query);
    assert_eq!(
        lines.text(),
        "{\"offset\":8,\"data.even\":true,\"x\":null}\n{\"offset\":9,\"data.even\":false,\"x\":null}\n"
    );
    let table = client.ask("POST", QUERY, &[CSV], query);
    assert_eq!(table.text(), "offset,data.even,x\r\n8,true,\r\n9,false,\r\n");
    // A row is no empty line, which readers leave out.
    let column = client.ask("POST", QUERY, &[CSV], "SELECT data.none AS x IN flights WHERE data.n >= 8");
    assert_eq!(column.text(), "x\r\n\"\"\r\n\"\"\r\n");
    let column = client.ask("POST", QUERY, &[CSV], "SELECT offset AS \"\" IN flights LIMIT 1");
    assert_eq!(column.text(), "\"\"\r\n0\r\n", "nor is the line of names");
    let url = format!("{QUERY}?q=SELECT%20count()%20IN%20flights");
    assert_eq!(client.get(&url).json()["rows"], json!([[10]]));
    let wrapped = json!({ "q": "SELECT count() IN flights" }).to_string();
    let wrapped = client.ask("POST", QUERY, &[("Content-Type", "application/json")], wrapped);
    assert_eq!(wrapped.json()["rows"], json!([[10]]));
    // Events are the same objects as everywhere.
    let events = client.ask("POST", QUERY, &[NDJSON], "SELECT * IN flights LIMIT 3");
    let listed = client.ask("GET", "/v1/groups/flights/events?limit=3", &[NDJSON], "");
    assert_eq!(events.text(), listed.text());
    let sampled = rows(&mut client, "SELECT * IN flights SAMPLE BY 1d");
    assert_eq!(
        (&sampled[0][1], &sampled[0][3]["offset"], &sampled[0][4]["offset"]),
        (&json!(10), &json!(0), &json!(9))
    );
    assert_eq!(sampled[0][5], true, "the day is not over");
}

#[test]
fn a_cut_result_goes_on_exactly_where_it_was_cut() {
    let broker = ten();
    let mut client = broker.client();
    for query in [
        "SELECT offset IN flights WHERE data.n != 4 LIMIT 2",
        "SELECT offset IN flights WHERE data.n != 4 ORDER BY received DESC LIMIT 2",
        "SELECT data.n, count() IN flights LIMIT 3",
        "SELECT data.n, count() IN flights SAMPLE BY 1d LIMIT 4",
    ] {
        let whole = rows(&mut client, query.rsplit_once(" LIMIT").expect("a limit").0);
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let body = json!({ "q": query, "next": next }).to_string();
            let answer = client.ask("POST", QUERY, &[("Content-Type", "application/json")], body).json();
            found.extend(answer["rows"].as_array().expect("rows").clone());
            // What comes meanwhile is not part of the result.
            broker.produce_lines("flights", r#"{"n":99}"#);
            match answer["next"].as_str() {
                Some(at) => next = Some(at.to_owned()),
                None => break,
            }
        }
        assert_eq!(&found[..], &whole[..], "{query}");
    }
    for query in ["SELECT offset IN flights LIMIT 0", "SELECT data.n, count() IN flights LIMIT 0"] {
        let body = json!({ "q": query }).to_string();
        let answer = client.ask("POST", QUERY, &[("Content-Type", "application/json")], body).json();
        assert!(answer["rows"] == json!([]) && answer["next"].is_null(), "who asks for nothing has had it: {answer}");
    }
    // What `now()` was is what it is on every page.
    let count = "SELECT data.n, count() IN flights WHERE received < now() LIMIT 1";
    let page = |client: &mut Client, next: Option<&str>| {
        let body = json!({ "q": count, "next": next }).to_string();
        client.ask("POST", QUERY, &[("Content-Type", "application/json")], body).json()
    };
    let first = page(&mut client, None);
    let next = first["next"].as_str().expect("there is more");
    let (mut fields, now) = (next.split('-').collect::<Vec<_>>(), next.split('-').nth(7).expect("the time"));
    assert_eq!(page(&mut client, Some(next))["rows"], json!([[1, 1]]));
    let earlier = (now.parse::<u64>().expect("a number") - 3_600_000_000).to_string();
    fields[7] = &earlier;
    assert_eq!(page(&mut client, Some(&fields.join("-")))["rows"], json!([]), "an hour ago there was nothing");
    let body = json!({ "q": "SELECT offset IN flights", "next": "o-0-0-1-0-1-1-0-00000000" }).to_string();
    let answer = client.ask("POST", QUERY, &[("Content-Type", "application/json")], body);
    answer.assert_problem(400, "bad_next", "another query's");
}

/// Of all events that were looked at, also those that do not meet the predicate.
#[test]
fn events_that_are_not_json_are_told_where_a_path_is_asked_for() {
    let broker = ten();
    broker.produce_lines("flights", "no json\n{\"n\":10}\n{\"n\":\n[1]\n\"text\"\n{} {}");
    // One is JSON, but on two lines.
    let headers = [("Content-Type", "application/json")];
    assert_eq!(broker.ask("POST", "/v1/groups/flights/events", &headers, "{\"n\":\n11}").status, 200);
    let mut client = broker.client();
    for (query, expected) in [
        ("SELECT data.n IN flights", 4),
        ("SELECT offset IN flights WHERE data.n = 10", 4),
        ("SELECT sum(data.n) IN flights SAMPLE BY 1d", 4),
        ("SELECT data.n IN flights LIMIT 11", 1),
        ("SELECT data.n IN flights ORDER BY received DESC", 4),
        ("SELECT offset, data IN flights", 0),
        ("SELECT count() IN flights WHERE data LIKE '%n%'", 0),
    ] {
        let answer = ask(&mut client, query).json();
        assert_eq!(answer["stats"]["not_json"], expected, "{query}: {answer}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let broker = ten();
    let mut client = broker.client();
    for (query, status, code) in [
        ("SELECT", 400, "bad_query"),
        ("SELECT nothing IN flights", 400, "unknown_name"),
        ("SELECT sum(key) IN flights", 400, "wrong_type"),
        ("SELECT * IN flights FROM 2026-11-25 TO 2026-11-24", 400, "bad_range"),
        ("SELECT * IN flights FROM 12345", 400, "bad_query"),
        ("SELECT * IN flights SAMPLE BY 0m", 400, "bad_query"),
        ("SELECT count() IN flights FROM 2020-01-01 SAMPLE BY 1T", 422, "query_limit"),
        ("SELECT count() IN flights FROM 2020-01-01 TO 2026-01-01 SAMPLE BY 10s FILL(0)", 422, "query_limit"),
        ("SELECT * IN flights LIMIT 10000001", 422, "query_limit"),
        ("SELECT * IN nowhere", 404, "no_group"),
        ("SELECT * IN \"../etc\"", 400, "bad_group"),
        ("SELECT * IN flights FOLLOW", 406, "no_such_format"),
    ] {
        ask(&mut client, query).assert_problem(status, code, query);
    }
    let long = "x".repeat(40 << 10);
    ask(&mut client, &long).assert_problem(400, "query_too_long", "a long text");
    let told = ask(&mut client, "SELECT *\nIN flights\nWHERE data.n == y").json();
    assert_eq!((&told["line"], &told["column"]), (&json!(3), &json!(17)), "{told}");
    assert_eq!(told["drawn"], "WHERE data.n == y\n                ^");
    let answer = client.ask("POST", QUERY, &[], [b'S', 0xff]);
    answer.assert_problem(400, "not_utf8", "a byte that is no text");
    let json = |content_type: &'static str| ("Content-Type", content_type);
    for (content_type, body, code) in [
        (json("text/plain"), r#"{"q":"SELECT"}"#, "bad_body"),
        (json("application/jsonx"), r#"{"q":"SELECT"}"#, "bad_body"),
        (json("application/json"), r#"["SELECT * IN flights",null]"#, "bad_body"),
        (json("application/json"), "SELECT * IN flights", "bad_body"),
        (json("Application/JSON; charset=utf-8"), r#"{"q":"SELECT"}"#, "bad_query"),
    ] {
        client.ask("POST", QUERY, &[content_type], body).assert_problem(400, code, body);
    }
    let twice = client.ask("POST", &format!("{QUERY}?q=SELECT"), &[], "SELECT * IN flights");
    twice.assert_problem(400, "bad_parameter", "a query in the target of a POST");
    let slices = ask(&mut client, "SELECT count() IN flights FROM 2020-01-01 SAMPLE BY 1T").json();
    assert_eq!(slices["limit"], "slices");
    let mut other = broker.client();
    other.send_anyway(Client::request("POST", QUERY, &[], vec![b'x'; 1 << 20]));
    assert_eq!(other.answer().status, 413);
}

#[test]
fn a_query_needs_its_scope_on_its_group() {
    let (broker, admin) = Broker::start_guarded(&[]);
    let mut client = broker.client();
    client.authorize(&admin);
    for group in ["flights", "orders"] {
        assert_eq!(client.ask("PUT", &format!("/v1/groups/{group}"), &[], "").status, 201);
    }
    let token = |client: &mut Client, scopes: &[&str]| {
        let body = json!({ "scopes": scopes, "groups": ["flights"] }).to_string();
        client.ask("POST", "/v1/tokens", &[], body).json()["token"].as_str().expect("a token").to_owned()
    };
    let (reader, writer) = (token(&mut client, &["query"]), token(&mut client, &["produce"]));
    for (token, group, status) in [
        (None, "flights", 401),
        (Some(&reader), "flights", 200),
        (Some(&reader), "orders", 403),
        (Some(&reader), "nowhere", 403),
        (Some(&writer), "flights", 403),
        (Some(&reader), "_audit", 403),
    ] {
        let mut client = broker.client();
        if let Some(token) = token {
            client.authorize(token);
        }
        assert_eq!(ask(&mut client, &format!("SELECT * IN {group}")).status, status, "{group}");
    }
    assert_eq!(ask(&mut client, "SELECT count() IN _audit").status, 200, "who manages everything");
}

#[test]
fn what_follows_comes_as_it_becomes_durable() {
    let broker = ten();
    let mut client = broker.client();
    client.send(Client::request("POST", QUERY, &[NDJSON], "SELECT offset IN flights WHERE data.n > 7 LIMIT 4 FOLLOW"));
    assert_eq!(client.head().status, 200);
    let mut text = String::new();
    let mut read_until = |part: &str| {
        while !text.contains(part) {
            text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
        }
        text.clone()
    };
    read_until("up_to_date");
    broker.produce_lines("flights", "{\"n\":1}\n{\"n\":10}");
    read_until("11");
    broker.produce_lines("flights", "{\"n\":11}");
    let all = read_until("{\"offset\":12}");
    let offsets: Vec<&str> = all.lines().filter(|line| line.starts_with("{\"offset\"")).collect();
    assert_eq!(offsets, ["{\"offset\":8}", "{\"offset\":9}", "{\"offset\":11}", "{\"offset\":12}"]);
    // It has what it asked for, and waits for nothing more.
    while client.chunk().is_some() {}
    client.assert_in_step("the rows of LIMIT");
}

/// Whoever follows hears something also while only events come that do not meet the predicate, and of slices without any.
#[test]
fn what_follows_is_never_silent_for_long() {
    let broker = Broker::start(&[("http.heartbeat", "300ms")]);
    broker.create("flights", "{}");
    for (query, part) in [
        ("SELECT * IN flights WHERE data.n = 1 FOLLOW", "\"heartbeat\""),
        ("SELECT count() IN flights FROM now() WHERE data.n = 1 SAMPLE BY 100T FILL(0) FOLLOW", "\"count()\":0"),
    ] {
        let mut client = broker.client();
        client.send(Client::request("POST", QUERY, &[NDJSON], query));
        assert_eq!(client.head().status, 200, "{query}");
        let mut text = String::new();
        eventually(query, || {
            broker.produce_lines("flights", r#"{"n":0}"#);
            while client.has_input() {
                text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
            }
            text.contains(part)
        });
    }
}

#[test]
fn a_slice_that_follows_comes_when_its_time_is_over() {
    let broker = ten();
    let mut client = broker.client();
    let query = "SELECT count() IN flights SAMPLE BY 200T FOLLOW";
    client.send(Client::request("POST", QUERY, &[NDJSON], query));
    assert_eq!(client.head().status, 200);
    let mut text = String::new();
    // Nothing else is produced: time alone ends the slice.
    while !text.contains("\"ts\"") {
        text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
    }
    let row = text.lines().find(|line| line.contains("\"ts\"")).expect("a row");
    let row: Value = serde_json::from_str(row).expect("JSON");
    assert_eq!((&row["count()"], &row["partial"]), (&json!(10), &json!(false)));
}

/// The last slice is over when its time is, also if nothing came behind it; not where TO cuts it.
#[test]
fn a_slice_is_partial_while_it_may_grow() {
    let broker = ten();
    let mut client = broker.client();
    let mut last = |query: &str| rows(&mut client, query).pop().expect("a slice").as_array().expect("a row").clone();
    assert_eq!(last("SELECT count() IN flights SAMPLE BY 100y")[2], true);
    eventually("its time is over", || last("SELECT count() IN flights SAMPLE BY 200T")[2] == false);
    let ts = last("SELECT count() IN flights SAMPLE BY 200T")[0].as_str().expect("a time").to_owned();
    let cut = ts.parse::<jiff::Timestamp>().expect("a time").as_microsecond() + 199_999;
    let cut = format!("SELECT count() IN flights FROM '{ts}' TO {cut} SAMPLE BY 200T FILL(0)");
    assert_eq!(last(&cut)[2], true);
}

/// While nothing at all is produced.
#[test]
fn empty_slices_that_follow_are_filled_when_their_time_is_over() {
    let broker = ten();
    for (fill, expected) in [("0", json!(0)), ("NULL", json!(null)), ("PREV", json!(9))] {
        let mut client = broker.client();
        let query =
            format!("SELECT last(data.n) AS n IN flights FROM now() SAMPLE BY 100T FILL({fill}) LIMIT 3 FOLLOW");
        client.send(Client::request("POST", QUERY, &[NDJSON], &query));
        assert_eq!(client.head().status, 200, "{query}");
        let mut text = String::new();
        while let Some(chunk) = client.chunk() {
            text.push_str(std::str::from_utf8(&chunk).expect("text"));
        }
        let rows = text.lines().filter(|line| !line.contains("frame"));
        let rows: Vec<Value> = rows.map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let time =
            |row: &Value| row["ts"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok()).expect("a time");
        let begun = time(&rows[0]).as_millisecond();
        for (row, begun) in rows.iter().zip((begun..).step_by(100)) {
            assert_eq!((&row["n"], &row["partial"]), (&expected, &json!(false)), "{query}: {text}");
            assert_eq!(time(row).as_millisecond(), begun, "{query}: {text}");
        }
        assert_eq!(rows.len(), 3, "{query}: {text}");
    }
}

/// Also while events are under way that were received within it: what is said of it does not change any more.
#[test]
fn a_slice_that_is_not_partial_has_all_its_events() {
    // The group may be on another core than the query: then it goes on between what the query asks it.
    let broker = Broker::start(&[("cores", "2")]);
    broker.create("flights", "{}");
    std::thread::scope(|scope| {
        let produce = || {
            for _ in 0..500 {
                broker.produce_lines("flights", "{}");
            }
        };
        let producers: Vec<_> = (0..4).map(|_| scope.spawn(produce)).collect();
        let (mut client, mut known) = (broker.client(), HashMap::new());
        let query = "SELECT count() IN flights FROM now() - 30T TO now() SAMPLE BY 1T FILL(0)";
        while !producers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            // FROM cuts the first one.
            for row in rows(&mut client, query).into_iter().skip(1).filter(|row| row[2] == false) {
                let known = known.entry(row[0].to_string()).or_insert_with(|| row[1].clone());
                assert_eq!(*known, row[1], "{row}");
            }
        }
    });
}

/// Zones are those that the program was built with.
#[test]
fn slices_are_the_same_whatever_the_host_says_of_time_zones() {
    let broker = ten();
    // As the host has it, a zone that is always five and a half hours ahead (RFC 9636).
    let counts = [0_u32, 0, 0, 0, 1, 1].map(u32::to_be_bytes).concat();
    let block = [&b"TZif2"[..], &[0; 15], &counts, &19_800_u32.to_be_bytes(), &[0; 3]].concat();
    let zone = [&block[..], &block, b"\n<+0530>-5:30\n"].concat();
    for name in ["Europe/Berlin", "Europe/Atlantis"] {
        let path = broker.zoneinfo().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, &zone).expect("a zone");
    }
    let mut client = broker.client();
    let query = |zone| format!("SELECT count() IN flights SAMPLE BY 1d ALIGN TO CALENDAR TIME ZONE '{zone}'");
    let day = rows(&mut client, &query("Europe/Berlin"))[0][0].as_str().expect("a time").to_owned();
    assert!(day.ends_with("T22:00:00.000000Z") || day.ends_with("T23:00:00.000000Z"), "midnight in Berlin: {day}");
    ask(&mut client, &query("Europe/Atlantis")).assert_problem(400, "unknown_name", "a zone of the host alone");
}

/// What is received before a FROM that is yet to come is not shown, nor counted.
#[test]
fn what_follows_begins_at_from_also_if_that_is_to_come() {
    let broker = Broker::start(&[("http.heartbeat", "300ms")]);
    broker.create("flights", "{}");
    for query in [
        "SELECT offset IN flights FROM now() + 1h FOLLOW",
        "SELECT count() IN flights FROM now() + 1h SAMPLE BY 1U FOLLOW",
        "SELECT data.n, count() IN flights FROM now() + 1h SAMPLE BY 1U FOLLOW",
        "SELECT count() IN flights FROM now() + 1h SAMPLE BY 1U ALIGN TO FIRST OBSERVATION FOLLOW",
    ] {
        let mut client = broker.client();
        client.send(Client::request("POST", QUERY, &[NDJSON], query));
        assert_eq!(client.head().status, 200, "{query}");
        broker.produce_lines("flights", "{\"n\":0}\n{\"n\":1}");
        let tail = broker.client().get("/v1/groups/flights").json()["tail"].clone();
        let mut text = String::new();
        while !text.contains(&format!("{{\"frame\":\"heartbeat\",\"tail\":{tail}}}")) {
            text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
        }
        assert!(text.lines().all(|line| line.starts_with("{\"frame\"")), "{query}: {text}");
    }
}

#[test]
fn the_command_line_shows_rows_draws_them_and_points_at_mistakes() {
    let broker = ten();
    let url = broker.url();
    let query = |arguments: &[&str]| eddyline(&[&["query"], arguments, &["--url", &url]].concat());
    let table = query(&["SELECT data.n, data.even IN flights LIMIT 2"]).with(0).saying("2 rows shown of more");
    assert_eq!(table.text(), "data.n  data.even\n0       true\n1       false\n");
    let csv = query(&["SELECT offset IN flights LIMIT 2", "-o", "csv"]).with(0);
    assert_eq!(csv.text(), "offset\r\n0\r\n1\r\n");
    let lines = query(&["SELECT offset IN flights LIMIT 1", "-o", "ndjson"]).with(0);
    assert_eq!(lines.text(), "{\"offset\":0}\n");
    let json = query(&["SELECT count() IN flights", "-o", "json"]).with(0);
    assert!(json.text().contains("\"rows\":[[10]]"), "{}", json.text());
    let drawn = query(&["SELECT count() IN flights SAMPLE BY 1d", "--plot"]).with(0);
    assert!(drawn.text().ends_with("count() (1 slice)\n"), "{}", drawn.text());
    broker.produce_lines("flights", r#"{"n":1e400}"#);
    let beyond = query(&["SELECT data IN flights WHERE offset = 10"]).with(0);
    assert_eq!(beyond.text(), "data\n{\"n\":1e400}\n", "a number that no double can hold");
    query(&["SELECT count() IN flights", "--plot"]).with(2).saying("SAMPLE BY");
    query(&["SELECT count() IN flights SAMPLE BY 1d FOLLOW", "--plot"]).with(2).saying("leave out FOLLOW");
    query(&["--running", "--plot"]).with(2).saying("cannot be used with");
    query(&["SELECT count() IN flights WHER"]).with(4).saying("WHER\n                          ^^^^");
    query(&["SELECT count() IN nowhere"]).with(4).saying("no group");
}

/// Events that are all in memory, then those that a restart finds in segments.
#[test]
fn real_flights_come_to_what_duckdb_computes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("tests/venv/bin/python");
    assert!(python.exists(), "`make truth` makes tests/venv with DuckDB");
    let lines = records("flights-200k.json", some(usize::MAX, 6_000));
    let mut broker = Broker::start(&[]);
    broker.create("flights", r#"{"segment":{"max_bytes":"256KiB"}}"#);
    for batch in lines.chunks(if lines.len() > 100_000 { 1_000 } else { 60 }) {
        broker.produce_lines("flights", &batch.join("\n"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("flights.ndjson");
    std::fs::write(&file, broker.export("flights")).expect("a file");
    let compare = |broker: &Broker, random: &str| {
        let script = root.join("tests/query_truth.py");
        let arguments = [script.to_str().unwrap(), &broker.url(), "flights", file.to_str().unwrap(), random];
        run(&python, &arguments, "").with(0);
    };
    compare(&broker, "40");
    broker.stop();
    broker.restart();
    compare(&broker, "5");
}
