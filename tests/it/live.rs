//! History and live on one connection: nothing missing and nothing twice where one becomes the other, and every way
//! such a connection ends.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::http::Client;
use serde_json::{Value, json};
use std::time::Instant;

const EVENTS: &str = "/v1/groups/orders/events";

/// One thing that a live reader is told.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Event(Value),
    /// A control frame: its name and its members.
    Control(String, Value),
}

impl Told {
    pub(crate) fn offset(&self) -> Option<u64> {
        match self {
            Self::Event(event) => event["offset"].as_u64(),
            Self::Control(..) => None,
        }
    }

    pub(crate) fn is(&self, frame: &str) -> bool {
        matches!(self, Self::Control(name, _) if name == frame)
    }
}

/// A live reader, in one of both formats.
pub(crate) struct Reader {
    pub(crate) client: Client,
    sse: bool,
    text: String,
}

impl Reader {
    pub(crate) fn follow(broker: &Broker, live: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = broker.client();
        // Either way of asking will do.
        let (target, accept) = match live {
            "accept" => (format!("{EVENTS}?{}", query.trim_start_matches('&')), "text/event-stream"),
            _ => (format!("{EVENTS}?live={live}{query}"), "*/*"),
        };
        let headers = [headers, &[("Accept", accept)]].concat();
        client.send(Client::request("GET", &target, &headers, ""));
        Self::of(client, live != "ndjson")
    }

    /// The answer that comes on a connection.
    pub(crate) fn of(mut client: Client, sse: bool) -> Self {
        let head = client.head();
        assert_eq!(head.status, 200, "{head:?}");
        let media_type = if sse { "text/event-stream" } else { "application/x-ndjson" };
        assert_eq!(head.header("content-type"), Some(media_type));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        Self { client, sse, text: String::new() }
    }

    /// The next thing it is told; `None` when the answer is over.
    pub(crate) fn next(&mut self) -> Option<Told> {
        let separator = if self.sse { "\n\n" } else { "\n" };
        loop {
            if let Some((piece, rest)) = self.text.split_once(separator) {
                let told = if self.sse { server_sent(piece) } else { line(piece) };
                self.text = rest.to_owned();
                return Some(told);
            }
            let Some(chunk) = self.client.chunk() else {
                assert_eq!(self.text, "", "the answer ended within something");
                return None;
            };
            self.text.push_str(std::str::from_utf8(&chunk).expect("chunks of whole events"));
        }
    }

    /// Skips what else comes until that control frame, and gives its members.
    pub(crate) fn until(&mut self, frame: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "never: {frame}");
            match self.next().unwrap_or_else(|| panic!("the answer ended without {frame}")) {
                Told::Control(name, members) if name == frame => return members,
                _ => {}
            }
        }
    }

    /// The next event's offset; control frames before it do not matter.
    pub(crate) fn offset(&mut self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no event came");
            let told = self.next().expect("an event");
            if let Some(offset) = told.offset() {
                return offset;
            }
        }
    }
}

fn server_sent(piece: &str) -> Told {
    let fields: Vec<(&str, &str)> = piece.lines().map(|line| line.split_once(": ").expect("a field")).collect();
    match fields[..] {
        [("id", id), ("data", data)] => {
            let event: Value = serde_json::from_str(data).expect("an event");
            assert_eq!(event["offset"].to_string(), id, "the id is the offset");
            Told::Event(event)
        }
        [("event", name), ("data", data)] => Told::Control(name.into(), serde_json::from_str(data).expect("members")),
        _ => panic!("{piece:?}"),
    }
}

fn line(piece: &str) -> Told {
    let mut object: Value = serde_json::from_str(piece).expect("an object a line");
    match object.as_object_mut().expect("an object").remove("frame") {
        Some(name) => Told::Control(name.as_str().expect("a name").into(), object),
        None => Told::Event(object),
    }
}

fn orders(settings: &[(&str, &str)]) -> Broker {
    let broker = Broker::start(settings);
    broker.create("orders", "{\"segment\":{\"max_bytes\":\"64KiB\"}}");
    broker
}

#[test]
fn followers_get_every_event_once_from_history_into_live() {
    const HISTORY: u64 = 600;
    const LIVE: u64 = 4 * 60 * 3;
    let broker = orders(&[("cores", "2")]);
    for batch in 0..HISTORY / 20 {
        let lines: Vec<String> = (0..20).map(|n| format!("{batch} {n} {}", "x".repeat(n * 40))).collect();
        broker.produce_lines("orders", &lines.join("\n"));
    }
    std::thread::scope(|scope| {
        for producer in 0..4 {
            let mut client = broker.client();
            scope.spawn(move || {
                for number in 0..60 {
                    let lines = format!("{producer} {number}\ny{}\nlast", "y".repeat(number * 50));
                    let headers = [("Content-Type", "text/plain")];
                    assert_eq!(client.ask("POST", "/v1/groups/orders/batch", &headers, lines).status, 200);
                }
            });
        }
        for (live, from) in [("sse", 0), ("ndjson", 0), ("sse", 311), ("ndjson", HISTORY), ("sse", 7), ("ndjson", 599)]
        {
            let broker = &broker;
            scope.spawn(move || {
                let mut reader = Reader::follow(broker, live, &format!("&from={from}"), &[]);
                for expected in from..HISTORY + LIVE {
                    assert_eq!(reader.offset(), expected, "{live} from {from}");
                }
            });
        }
    });
}

#[test]
fn a_follower_that_has_everything_is_told_and_then_hears_heartbeats() {
    let broker = orders(&[("http.heartbeat", "100ms")]);
    broker.produce_lines("orders", "a\nb");
    for live in ["sse", "ndjson", "accept"] {
        let tail = broker.get("/v1/groups/orders").json()["tail"].as_u64().expect("a tail");
        let mut reader = Reader::follow(&broker, live, "&from=0", &[]);
        for expected in 0..tail {
            assert_eq!(reader.next().and_then(|told| told.offset()), Some(expected));
        }
        assert_eq!(reader.next(), Some(Told::Control("up_to_date".into(), json!({ "tail": tail }))));
        for _ in 0..3 {
            assert_eq!(reader.next(), Some(Told::Control("heartbeat".into(), json!({ "tail": tail }))));
        }
        broker.produce_lines("orders", "c");
        assert_eq!(reader.offset(), tail);
        assert_eq!(reader.until("heartbeat"), json!({ "tail": tail + 1 }));
    }
}

#[test]
fn a_follower_that_comes_back_goes_on_behind_the_last_event_it_had() {
    let broker = orders(&[]);
    broker.produce_lines("orders", &"x\n".repeat(10));
    for (query, last, first) in
        [("", "", 0), ("", "0", 1), ("", "6", 7), ("&from=2", "6", 7), ("&from=2", "", 2), ("&from=last:3", "", 7)]
    {
        let headers = [("Last-Event-ID", last)];
        let mut reader = Reader::follow(&broker, "sse", query, &headers[..usize::from(!last.is_empty())]);
        assert_eq!(reader.offset(), first, "{query} {last}");
    }
    let mut reader = Reader::follow(&broker, "sse", "", &[("Last-Event-ID", "9")]);
    assert!(reader.next().is_some_and(|told| told.is("up_to_date")), "there is nothing behind the last");
    let mut client = broker.client();
    for (last, status, code) in
        [("10", 416, "behind_tail"), ("18446744073709551615", 416, "behind_tail"), ("x", 400, "bad_parameter")]
    {
        let headers = [("Last-Event-ID", last), ("Accept", "text/event-stream")];
        client.ask("GET", EVENTS, &headers, "").assert_problem(status, code, last);
        client.assert_in_step(last);
    }
}

#[test]
fn a_follower_with_an_end_gets_a_whole_answer_and_its_connection_goes_on() {
    let broker = orders(&[]);
    broker.produce_lines("orders", &"x\n".repeat(10));
    for (live, query, expected) in [
        ("sse", "&limit=3", 0..3),
        ("ndjson", "&limit=3", 0..3),
        ("accept", "&from=2&limit=3", 2..5),
        ("sse", "&from=4&until=8", 4..8),
        ("ndjson", "&from=8&until=12", 8..12),
        ("ndjson", "&from=9&limit=4", 9..13),
        ("sse", "&from=3&until=3", 3..3),
    ] {
        let mut reader = Reader::follow(&broker, live, query, &[]);
        let tail = broker.get("/v1/groups/orders").json()["tail"].as_u64().expect("a tail");
        for _ in tail..expected.end {
            broker.produce_lines("orders", "more");
        }
        let mut offsets = Vec::new();
        while let Some(told) = reader.next() {
            offsets.extend(told.offset());
        }
        assert_eq!(offsets, expected.collect::<Vec<_>>(), "{live} {query}");
        reader.client.assert_in_step("an answer with an end");
    }
}

#[test]
fn a_follower_hears_why_it_is_let_go() {
    let mut broker = orders(&[("drain", "20s")]);
    broker.create("other", "");
    broker.produce_lines("orders", "a");
    for live in ["sse", "ndjson"] {
        let mut reader = Reader::follow(&broker, live, "", &[]);
        reader.until("up_to_date");
        assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
        assert_eq!(reader.until("goaway"), json!({ "reason": "deleted" }), "{live}");
        assert_eq!(reader.next(), None, "the answer is whole");
        reader.client.assert_closed("a deleted group");
        broker.create("orders", "");
        broker.produce_lines("orders", "a");
    }
    let mut readers = ["sse", "ndjson"].map(|live| Reader::follow(&broker, live, "", &[]));
    for reader in &mut readers {
        reader.until("up_to_date");
    }
    let told = Instant::now();
    broker.terminate();
    for reader in &mut readers {
        assert_eq!(reader.until("goaway"), json!({ "reason": "draining" }));
        assert_eq!(reader.next(), None, "the answer is whole");
        reader.client.assert_closed("a drained broker");
    }
    drop(readers);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(told.elapsed() < PATIENCE);
}

#[test]
fn a_follower_that_hangs_up_is_forgotten() {
    let broker = orders(&[("http.heartbeat", "1h")]);
    broker.produce_lines("orders", "a");
    let mut readers: Vec<Reader> = (0..8).map(|_| Reader::follow(&broker, "ndjson", "", &[])).collect();
    for reader in &mut readers {
        reader.until("up_to_date");
    }
    let mut waiting = broker.client();
    waiting.send(Client::request("GET", &format!("{EVENTS}?from=latest&wait=60s"), &[], ""));
    eventually("all are connected", || broker.connections() == 10);
    let half = readers.split_off(4);
    drop(readers);
    half.iter().for_each(|reader| reader.client.shutdown());
    waiting.shutdown();
    eventually("only the one who asks is connected", || broker.connections() == 1);
}

#[test]
fn a_follower_that_takes_nothing_is_dropped_and_costs_little_memory() {
    let broker = orders(&[("http.send", "500ms"), ("storage.tail_memory", "8MiB")]);
    let event = "z".repeat(500_000);
    let mut client = broker.client();
    for _ in 0..64 {
        assert_eq!(client.ask("POST", EVENTS, &[], &event).status, 200);
    }
    let before = broker.resident_bytes();
    let mut readers = Vec::new();
    for live in ["sse", "ndjson", "sse", "ndjson", "sse", "ndjson"] {
        let mut reader = broker.client();
        reader.send(Client::request("GET", &format!("{EVENTS}?from=0&live={live}"), &[], ""));
        readers.push(reader);
    }
    for format in ["application/json", "application/x-ndjson"] {
        let mut reader = broker.client();
        let target = format!("{EVENTS}?from=0&limit=10000&max_bytes=16MiB");
        reader.send(Client::request("GET", &target, &[("Accept", format)], ""));
        readers.push(reader);
    }
    // `client` and the one who asks stay.
    let mut most = 0;
    eventually("those who read nothing are dropped", || {
        most = most.max(broker.resident_bytes());
        let delivered = broker.get("/metrics").text().contains("eddyline_events_delivered_total 0");
        broker.connections() == 2 && !delivered
    });
    let grown = most.saturating_sub(before);
    assert!(grown < 24 << 20, "eight readers who take nothing of 32 MB cost {grown} bytes");
    client.assert_in_step("stuck readers");
}
