//! Real data, as published: the flights of the npm package `vega-datasets`, imported by real programs and read back in
//! every way there is. What comes out is, byte for byte and in order, what went in.
//!
//! A debug build takes the first records of the large file only, unless `EDDYLINE_TEST_FULL=1`.

use crate::broker::Broker;
use crate::program::{loadgen, run};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Lines of one request.
const BATCH_LINES: usize = 2_000;
/// Records of the large file that a debug build takes.
pub(crate) const DEBUG_RECORDS: usize = 30_000;
/// Records that are posted one by one, and in a debug build.
const SINGLES: usize = 20_000;
const DEBUG_SINGLES: usize = 4_000;
const SEGMENTS: &str = r#"{"segment":{"max_bytes":"1MiB"}}"#;

/// Payloads in order.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    events: usize,
    sha256: Vec<u8>,
}

impl Contents {
    fn of<'l>(payloads: impl Iterator<Item = &'l str>) -> Self {
        let mut hash = Sha256::new();
        let events = payloads.map(|payload| hash.update([payload.as_bytes(), b"\n"].concat())).count();
        Self { events, sha256: hash.finalize().to_vec() }
    }

    fn of_lines(lines: &[String]) -> Self {
        Self::of(lines.iter().map(String::as_str))
    }
}

/// An event as far as it matters here.
#[derive(Deserialize)]
struct Line<'l> {
    offset: u64,
    key: Option<&'l str>,
    encoding: &'l str,
    #[serde(borrow)]
    data: &'l RawValue,
}

/// What is to be taken of `all` in this build.
pub(crate) fn some(all: usize, debug: usize) -> usize {
    let full = !cfg!(debug_assertions) || std::env::var("EDDYLINE_TEST_FULL").is_ok_and(|value| value == "1");
    if full { all } else { debug }
}

/// The records of a published file, each as it stands there.
pub(crate) fn records(name: &str, most: usize) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node_modules/vega-datasets/data").join(name);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; `npm ci --prefix tests` brings the data of these tests", file.display())
    });
    let records: Vec<&RawValue> = serde_json::from_str(&text).expect("an array");
    let lines: Vec<String> = records.iter().take(most).map(|record| record.get().to_owned()).collect();
    assert!(lines.iter().all(|line| !line.contains(['\n', '\r'])), "a record is a line");
    lines
}

/// One NDJSON file a request.
struct Requests {
    directory: tempfile::TempDir,
    count: usize,
}

impl Requests {
    fn new(lines: &[String]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let batches = lines.chunks(BATCH_LINES);
        let count = batches.len();
        for (seq, batch) in batches.enumerate() {
            std::fs::write(directory.path().join(seq.to_string()), batch.join("\n")).unwrap();
        }
        Self { directory, count }
    }

    fn file(&self, seq: usize) -> PathBuf {
        self.directory.path().join(seq.to_string())
    }

    /// The command that posts one of them.
    fn curl(&self, broker: &Broker, group: &str, query: &str, seq: usize) -> Vec<String> {
        let url = format!("{}/v1/groups/{group}/batch?{query}", broker.url());
        let body = format!("@{}", self.file(seq).display());
        let (id, seq) = ("Producer-Id: import", format!("Producer-Seq: {seq}"));
        let kind = "Content-Type: application/x-ndjson";
        ["-sS", "--fail-with-body", "-H", kind, "-H", id, "-H", &seq, "--data-binary", &body, &url]
            .map(str::to_owned)
            .to_vec()
    }

    /// Posts all of them, one after the other; gives how many were stored before.
    fn import(&self, broker: &Broker, group: &str, query: &str) -> usize {
        let mut duplicates = 0;
        for seq in 0..self.count {
            let arguments = self.curl(broker, group, query, seq);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let ended = run("curl", &arguments, "").with(0);
            let answer: serde_json::Value = serde_json::from_str(ended.text()).expect("JSON");
            duplicates += usize::from(answer["duplicate"].as_bool().expect("told"));
        }
        duplicates
    }
}

fn curl(arguments: &[&str]) -> String {
    let ended = run("curl", &[&["-sS", "--fail-with-body"], arguments].concat(), "").with(0);
    String::from_utf8(ended.stdout).expect("text")
}

/// Checks that lines are events with offsets from 0 on, and gives their payloads.
fn payloads<'l>(lines: impl Iterator<Item = &'l str>) -> Contents {
    Contents::of(lines.enumerate().map(|(expected, line)| {
        let line: Line<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((line.offset, line.encoding), (expected as u64, "json"));
        line.data.get()
    }))
}

fn by_tail(broker: &Broker, group: &str) -> Contents {
    let arguments = ["tail", group, "--since", "earliest", "--url", &broker.url()];
    Contents::of(run(env!("CARGO_BIN_EXE_eddyline"), &arguments, "").with(0).text().lines())
}

/// Pages of NDJSON, each beginning where the one before says.
fn pages(broker: &Broker, group: &str) -> String {
    let mut all = String::new();
    let mut from = "0".to_owned();
    loop {
        let url = format!("{}/v1/groups/{group}/events?from={from}&limit=7000", broker.url());
        let answer = curl(&["-i", "-H", "Accept: application/x-ndjson", &url]);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned();
        all.push_str(body);
        from = field("Eddyline-Next:");
        if from == field("Eddyline-Tail:") {
            return all;
        }
        assert!(!body.is_empty(), "a page before the tail is never empty");
    }
}

fn by_sse(broker: &Broker, group: &str, events: usize) -> Contents {
    let url = format!("{}/v1/groups/{group}/events?live=sse&from=earliest&until={events}", broker.url());
    let text = curl(&["-N", &url]);
    payloads(text.lines().filter_map(|line| line.strip_prefix("data: ")))
}

fn assert_same_each_way(broker: &Broker, group: &str, expected: &Contents) {
    assert_eq!(&by_tail(broker, group), expected, "tail");
    assert_eq!(&payloads(pages(broker, group).lines()), expected, "NDJSON pages");
    assert_eq!(&by_sse(broker, group, expected.events), expected, "server-sent events");
}

#[test]
fn two_hundred_thousand_flights_come_out_the_same_each_way() {
    let lines = records("flights-200k.json", some(usize::MAX, DEBUG_RECORDS));
    assert_eq!(lines.len(), some(200_000, DEBUG_RECORDS), "the published file");
    let expected = Contents::of_lines(&lines);
    let requests = Requests::new(&lines);
    let mut broker = Broker::start(&[]);
    broker.create("flights", SEGMENTS);
    assert_eq!(requests.import(&broker, "flights", ""), 0);
    assert_same_each_way(&broker, "flights", &expected);
    // From memory before, from segments now.
    broker.stop();
    broker.restart();
    assert_same_each_way(&broker, "flights", &expected);
    assert_eq!(requests.import(&broker, "flights", ""), requests.count, "all of it was stored before");
    assert_eq!(by_tail(&broker, "flights"), expected);
}

#[test]
fn flights_posted_one_by_one_by_loadgen_come_out_the_same() {
    let lines = records("flights-20k.json", some(SINGLES, DEBUG_SINGLES));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flights.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let broker = Broker::start(&[]);
    let file = file.to_str().unwrap();
    let ended = run(
        loadgen(),
        &["produce", "--url", &broker.url(), "--group", "singles", "--payload", file, "--once", "-c", "1"],
        "",
    );
    // It reads back what it posted, and exits with 1 if anything is missing or wrong.
    ended.with(0);
    assert_same_each_way(&broker, "singles", &Contents::of_lines(&lines));
}

#[test]
fn keys_are_taken_from_each_flight() {
    let lines = records("flights-20k.json", usize::MAX);
    assert_eq!(lines.len(), 20_000, "the published file");
    let broker = Broker::start(&[]);
    broker.create("flights", SEGMENTS);
    Requests::new(&lines).import(&broker, "flights", "key_path=/origin");
    assert_same_each_way(&broker, "flights", &Contents::of_lines(&lines));
    let read = pages(&broker, "flights");
    for (line, published) in read.lines().zip(&lines) {
        let event: Line<'_> = serde_json::from_str(line).unwrap();
        let published: serde_json::Value = serde_json::from_str(published).unwrap();
        assert_eq!(event.key, published["origin"].as_str(), "offset {}", event.offset);
    }
}

#[test]
fn an_import_that_a_kill_cut_off_goes_on_without_loss_or_repetition() {
    killed_and_resumed("1");
}

#[test]
fn the_same_on_two_cores_and_then_on_one() {
    let (mut broker, groups, expected) = killed_and_resumed("2");
    let shards: Vec<_> =
        groups.iter().map(|group| broker.get(&format!("/v1/groups/{group}")).json()["shard"].clone()).collect();
    assert!(shards.contains(&0.into()) && shards.contains(&1.into()), "both shards were used: {shards:?}");
    broker.configure(&[("cores", "1")]);
    broker.restart();
    for group in groups {
        assert_same_each_way(&broker, group, &expected);
    }
}

/// Imports into four groups, killing the broker in the middle of each; gives what should be there.
fn killed_and_resumed(cores: &str) -> (Broker, [&'static str; 4], Contents) {
    let groups = ["flights-0", "flights-1", "flights-2", "flights-3"];
    let lines = records("flights-20k.json", usize::MAX);
    let (expected, requests) = (Contents::of_lines(&lines), Requests::new(&lines));
    let mut broker = Broker::start(&[("cores", cores)]);
    for (number, group) in groups.iter().enumerate() {
        broker.create(group, SEGMENTS);
        let answered = 2 + number;
        for seq in 0..answered {
            let arguments = requests.curl(&broker, group, "", seq);
            run("curl", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), "").with(0);
        }
        let mut command = Command::new("curl");
        command.args(requests.curl(&broker, group, "", answered)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut under_way = command.spawn().expect("curl");
        std::thread::sleep(Duration::from_millis(4 * number as u64));
        broker.kill9();
        let told = under_way.wait().expect("a child").success();
        broker.restart();
        let tail = broker.get(&format!("/v1/groups/{group}")).json()["tail"].as_u64().unwrap() as usize;
        // The request under way is there as a whole or not at all, and if it was answered it is there.
        let stored = [answered * BATCH_LINES, (answered + 1) * BATCH_LINES];
        assert!(stored.contains(&tail), "{group}: {tail} after {answered} answers");
        assert!(!told || tail == stored[1], "{group}: an answered request is gone");
        let before = usize::from(tail == stored[1]);
        assert_eq!(requests.import(&broker, group, ""), answered + before, "{group}: requests stored before");
        assert_eq!(by_tail(&broker, group), expected, "{group}");
    }
    for group in groups {
        assert_same_each_way(&broker, group, &expected);
    }
    (broker, groups, expected)
}
