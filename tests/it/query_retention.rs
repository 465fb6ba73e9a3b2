//! What queries make of events that retention takes while they run: some tell of it and go on, others break off.

use crate::broker::{Broker, eventually};
use crate::http::Client;
use serde_json::{Value, json};

const EVENTS: u64 = 20_000;

/// A broker with a group of events that are together more than any socket takes.
fn broker() -> Broker {
    // Whoever takes nothing is not sent away while a test lasts.
    let broker = Broker::start(&[("http.send", "10m"), ("storage.retention_every", "10ms")]);
    broker.create("flights", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    let more = "x".repeat(2000);
    let batch = vec![format!(r#"{{"o":"{more}"}}"#); 400].join("\n");
    (0..EVENTS / 400).for_each(|_| _ = broker.produce_lines("flights", &batch));
    broker
}

/// Begins a query whose answer nobody takes: it stands somewhere in the middle.
fn begin(broker: &Broker, query: &str, format: &str) -> Client {
    let mut client = broker.client();
    client.send(Client::request("POST", "/v1/query", &[("Accept", format)], query));
    assert_eq!(client.head().status, 200, "{query}");
    client
}

/// Lets retention take all but the end.
fn overtake(broker: &Broker) {
    let config = json!({ "retention": { "max_bytes": "2MiB" } }).to_string();
    assert_eq!(broker.ask("PATCH", "/v1/groups/flights", &[], config).status, 200);
    let earliest = || broker.get("/v1/groups/flights").json()["earliest"].as_u64();
    eventually("retention takes them", || earliest() > Some(EVENTS / 4 * 3));
}

/// The text that comes until `part` does.
fn read_until(client: &mut Client, part: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(part) {
        text.push_str(std::str::from_utf8(&client.chunk().expect("more")).expect("text"));
    }
    text
}

#[test]
fn where_retention_overtakes_them_answers_tell_of_it_or_break_off() {
    let broker = broker();
    let query = "SELECT offset, data.o IN flights";
    let lines = "application/x-ndjson";
    let mut follows = begin(&broker, &format!("{query} FOLLOW"), lines);
    let mut whole = begin(&broker, &format!("{query} LIMIT {EVENTS}"), "application/json");
    let mut broken = [(begin(&broker, query, lines), "{\"offset\":"), (begin(&broker, query, "text/csv"), "")];
    overtake(&broker);

    // Every offset is shown or told of, in order.
    let (mut next, mut gaps) = (0, 0);
    for line in read_until(&mut follows, &format!("{{\"frame\":\"up_to_date\",\"tail\":{EVENTS}}}\n")).lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["frame"] == "gap" {
            assert_eq!(line["from"], next, "{line}");
            (next, gaps) = (line["to"].as_u64().expect("an offset"), gaps + 1);
        } else if line["frame"].is_null() {
            assert_eq!(line["offset"], next);
            next += 1;
        }
    }
    assert!(next == EVENTS && gaps > 0, "{next}, {gaps} gaps");

    let mut text = String::new();
    while let Some(chunk) = whole.chunk() {
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    let (rows, stats) = text.rsplit_once("],\"stats\":").expect("stats");
    let stats: Value = serde_json::from_str(stats.strip_suffix('}').expect("an end")).expect("JSON");
    let (rows, lost) = (rows.matches("\"x").count() as u64, stats["lost"].as_u64().expect("a number"));
    assert!(lost > 0 && rows + lost == EVENTS, "{rows} rows and {stats}");

    for (client, prefix) in &mut broken {
        let mut text = String::new();
        while !client.closed() {
            text.push_str(std::str::from_utf8(&client.chunk().expect("it has no end")).expect("text"));
        }
        let lines = text.lines().filter(|line| line.contains('x'));
        let offset = |line: &str| line.strip_prefix(*prefix)?.split(',').next()?.parse::<u64>().ok();
        let offsets: Vec<u64> = lines.map(|line| offset(line).unwrap_or_else(|| panic!("{line}"))).collect();
        assert!(offsets.iter().copied().eq(0..offsets.len() as u64), "rows are left out");
        assert!((1..EVENTS as usize).contains(&offsets.len()), "{prefix}: {} rows", offsets.len());
    }
}
