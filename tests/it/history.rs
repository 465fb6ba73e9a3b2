//! What producers were told and what is there in the end: writers that go on through crashes, and a checker that walks
//! a whole group once.

use crate::broker::PATIENCE;
use crate::http::Client;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An answered request of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) producer: String,
    pub(crate) seq: u64,
    pub(crate) first_offset: u64,
    pub(crate) events: u64,
}

/// What is common to all writers of a test.
pub(crate) struct Scene {
    /// Where the broker is now.
    pub(crate) address: Mutex<SocketAddr>,
    /// Whether writers should come to their end.
    pub(crate) over: AtomicBool,
    /// Answers so far, by group.
    pub(crate) acked: Mutex<HashMap<String, Vec<Acked>>>,
}

impl Scene {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address: Mutex::new(address), over: AtomicBool::new(false), acked: Mutex::default() })
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// What was answered so far for a group.
    pub(crate) fn acked(&self, group: &str) -> Vec<Acked> {
        self.acked.lock().expect("no panic").get(group).cloned().unwrap_or_default()
    }
}

/// What a writer does when it gets no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Sends the same request again, for ever.
    Repeat,
    /// Ends.
    GiveUp,
}

/// Writes batches of events that say whose and which they are. Returns the status or error that ended it, if it gave up.
pub(crate) fn write(scene: &Scene, group: &str, producer: &str, seed: u64, trouble: Trouble) -> Option<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let mut seq = 0;
    while !scene.over.load(Ordering::Relaxed) {
        let events = random.u64(1..=8);
        let pad = "·-".repeat(random.usize(0..400));
        let body: String = (0..events)
            .map(|index| {
                format!(r#"{{"producer":"{producer}","seq":{seq},"index":{index},"of":{events},"pad":"{pad}"}}"#) + "\n"
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        let first_offset = loop {
            let address = *scene.address.lock().expect("no panic");
            let url = format!("http://{address}/v1/groups/{group}/batch?producer={producer}&seq={seq}");
            match post(&agent, &url, &body) {
                Ok(first_offset) => break first_offset,
                Err(cause) if trouble == Trouble::GiveUp => return Some(cause),
                Err(cause) => assert!(Instant::now() < deadline, "{producer} gets no answer: {cause}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let acked = Acked { producer: producer.to_owned(), seq, first_offset, events };
        scene.acked.lock().expect("no panic").entry(group.to_owned()).or_default().push(acked);
        seq += 1;
    }
    None
}

/// The first offset, or what came instead of a success.
fn post(agent: &ureq::Agent, url: &str, body: &str) -> Result<u64, String> {
    let mut answer =
        agent.post(url).header("Content-Type", "application/x-ndjson").send(body).map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    if status != 200 {
        assert!(status >= 500, "{status} {text}");
        return Err(format!("{status} {text}"));
    }
    let value: Value = serde_json::from_str(&text).expect("JSON");
    Ok(value["first_offset"].as_u64().expect("an offset, for it is one of the last 64 requests"))
}

/// Every event of a group, page by page.
pub(crate) fn read_all(client: &mut Client, group: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut next = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let target = format!("/v1/groups/{group}/events?from={next}&limit=10000&max_bytes=8MiB");
        let page = client.ask("GET", &target, &[("Accept", "application/x-ndjson")], "");
        assert_eq!(page.status, 200, "{}", page.body.escape_ascii());
        events.extend(page.events());
        next = page.number("eddyline-next").expect("where to go on");
        if next == page.number("eddyline-tail").expect("the tail") {
            return events;
        }
        assert!(Instant::now() < deadline, "reading a group takes too long");
    }
}

/// Checks a whole group against everything that was answered for it; says the first thing that is wrong.
pub(crate) fn check(events: &[Value], acked: &[Acked]) -> Result<(), String> {
    let number = |event: &Value, name: &str| event[name].as_u64().ok_or_else(|| format!("no {name} in {event}"));
    let mut requests: HashMap<(&str, u64), u64> = HashMap::new();
    let mut last_seq: HashMap<&str, u64> = HashMap::new();
    let mut last = ("", "");
    for (expected, event) in events.iter().enumerate() {
        let (offset, data) = (number(event, "offset")?, &event["data"]);
        if offset != expected as u64 {
            return Err(format!("offset {expected} is not there, {offset} is"));
        }
        let (id, received) = (event["id"].as_str().unwrap_or_default(), event["received"].as_str().unwrap_or_default());
        if id <= last.0 || received < last.1 {
            return Err(format!("offset {offset}: {id} {received} come behind {} {}", last.0, last.1));
        }
        last = (id, received);
        let producer = data["producer"].as_str().ok_or_else(|| format!("no producer in {event}"))?;
        let (seq, index, of) = (number(data, "seq")?, number(data, "index")?, number(data, "of")?);
        if index == 0 {
            if let Some(before) = last_seq.insert(producer, seq).filter(|before| *before + 1 != seq) {
                return Err(format!("{producer}: request {seq} comes behind {before}"));
            }
            if requests.insert((producer, seq), offset).is_some() {
                return Err(format!("{producer}: request {seq} is there twice"));
            }
        }
        let first = requests.get(&(producer, seq)).copied();
        if first != offset.checked_sub(index) {
            return Err(format!("{producer}: event {index} of request {seq} is out of place"));
        }
        let next = events.get(expected + 1).map(|next| &next["data"]);
        let goes_on = next.is_some_and(|next| next["producer"] == producer && next["seq"] == seq);
        if goes_on != (index + 1 < of) {
            return Err(format!("{producer}: request {seq} is torn at event {index} of {of}"));
        }
    }
    for answered in acked {
        if requests.get(&(answered.producer.as_str(), answered.seq)) != Some(&answered.first_offset) {
            return Err(format!("answered, and not there: {answered:?}"));
        }
    }
    Ok(())
}

/// The checker is worth as much as what it finds.
#[test]
fn the_checker_sees_what_was_done_to_a_log() {
    let log = || -> Vec<Value> {
        let requests = [("a", 0, 2), ("b", 0, 1), ("a", 1, 1), ("b", 1, 2)];
        let events =
            requests.iter().flat_map(|(producer, seq, of)| (0..*of).map(move |index| (producer, seq, of, index)));
        let event = |(offset, (producer, seq, of, index)): (usize, (&&str, &u64, &u64, u64))| {
            serde_json::json!({
                "offset": offset, "id": format!("{offset:08}"), "received": format!("{:08}", offset / 2),
                "data": {"producer": producer, "seq": seq, "index": index, "of": of},
            })
        };
        events.enumerate().map(event).collect()
    };
    let acked = [Acked { producer: "b".to_owned(), seq: 1, first_offset: 4, events: 2 }];
    type Harm = (&'static str, fn(&mut Vec<Value>), &'static str);
    let table: [Harm; 8] = [
        ("nothing", |_| {}, ""),
        ("the end is lost", |log| log.truncate(4), "answered, and not there"),
        ("half of a batch is lost", |log| log.truncate(5), "torn"),
        ("an event is lost", |log| drop(log.remove(2)), "offset 2 is not there"),
        ("ids go back", |log| log[3]["id"] = "00000000".into(), "come behind"),
        ("time goes back", |log| log[5]["received"] = "00000000".into(), "come behind"),
        ("a request is repeated", |log| log[3]["data"]["seq"] = 0.into(), "request 0 comes behind 0"),
        ("a request is missing", |log| log[3]["data"]["seq"] = 2.into(), "request 2 comes behind 0"),
    ];
    for (harm, hurt, expected) in table {
        let mut events = log();
        hurt(&mut events);
        let found = check(&events, &acked).err().unwrap_or_default();
        assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{harm}: {found:?}");
    }
}
