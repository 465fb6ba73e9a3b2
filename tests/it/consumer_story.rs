//! A whole story on real data: a consumer reads two hundred thousand flights from the first on and crosses into what is
//! live, is interrupted three times, moves back by time, and sees a range again.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::consumer::{Caller, Consumer, End};
use crate::consumer_history::{Ask, History, Told, check};
use crate::real_input::{DEBUG_RECORDS, records, some};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines of one request.
const BATCH_LINES: usize = 1_000;
/// Events between two acks.
const ACK_EVERY: u64 = 700;

#[derive(serde::Deserialize)]
struct Line<'l> {
    offset: Option<u64>,
    frame: Option<&'l str>,
    #[serde(borrow)]
    data: Option<&'l RawValue>,
    session: Option<&'l str>,
    next: Option<u64>,
    to: Option<u64>,
}

/// What the threads of the story share.
struct Stage<'l> {
    flights: &'l [String],
    address: Mutex<SocketAddr>,
    history: History,
    /// The next offset that the reader expects.
    reached: AtomicU64,
    /// Whether the reader is to lose its connection.
    cut: AtomicBool,
    over: AtomicBool,
    /// The tail at which it was first told that it has everything.
    up_to_date: AtomicU64,
    /// Positions at which the reader began, in order.
    begun: Mutex<Vec<u64>>,
    rewound: AtomicU64,
}

impl Stage<'_> {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    /// Posts some of the flights; live, every other batch waits until the reader has everything before it.
    fn produce(&self, batches: std::ops::Range<usize>, live: bool) {
        let caller = Caller::new();
        for seq in batches {
            let lines = self.flights[seq * BATCH_LINES..][..BATCH_LINES].join("\n");
            let before = (seq * BATCH_LINES) as u64;
            while live && seq % 2 == 0 && self.reached.load(Ordering::SeqCst) < before && !self.over() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let deadline = Instant::now() + PATIENCE;
            // The same request until it is answered, so nothing is there twice.
            let target = format!("/v1/groups/flights/batch?producer=import&seq={seq}");
            while caller.post(self.address(), &target, &lines) != Some(200) {
                assert!(Instant::now() < deadline, "no answer to batch {seq}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Reads and acks on one connection after the other.
    fn read(&self, billing: &Consumer) {
        let caller = Caller::new();
        while !self.over() {
            match caller.lines(self.address(), &billing.target("/stream?wait=10s")) {
                Some(lines) => self.read_connection(billing, &caller, lines),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn read_connection(&self, billing: &Consumer, caller: &Caller, lines: impl Iterator<Item = String>) {
        let mut session = String::new();
        let (mut expected, mut acked, mut first) = (0, 0, 0);
        for line in lines {
            // A kill cuts within a line.
            let Ok(line) = serde_json::from_str::<Line<'_>>(&line) else { break };
            if self.over() || self.cut.swap(false, Ordering::SeqCst) {
                break;
            }
            if let Some(offset) = line.offset {
                assert_eq!(offset, expected, "in order, and none skipped");
                assert_eq!(line.data.unwrap().get(), self.flights[offset as usize], "{offset}");
                expected = offset + 1;
                self.reached.store(expected, Ordering::SeqCst);
            }
            match line.frame {
                Some("session") => {
                    expected = line.next.unwrap();
                    let look = self.history.begins(Ask::Look);
                    self.history.ends(look, Told::Position(expected));
                    self.begun.lock().unwrap().push(expected);
                }
                Some("rewound") => {
                    expected = line.to.unwrap();
                    self.rewound.store(expected, Ordering::SeqCst);
                }
                Some("up_to_date") => drop(self.up_to_date.fetch_min(expected, Ordering::SeqCst)),
                Some("goaway") => panic!("nobody sent it away"),
                Some(_) | None => {}
            }
            if let Some(named) = line.session {
                (session, acked, first) = (named.to_owned(), expected, expected);
            }
            let due = expected >= acked + ACK_EVERY || expected == self.flights.len() as u64;
            if line.offset.is_some() && due {
                self.history.reached(first, expected - 1);
                let ack = self.history.begins(Ask::Ack(expected - 1));
                let body = format!(r#"{{"offset":{},"session":"{session}"}}"#, expected - 1);
                let told = match caller.call(self.address(), "POST", &billing.target("/ack"), &body) {
                    Some((200, _)) => Told::Done,
                    Some((409, _)) => Told::Refused,
                    _ => Told::Unknown,
                };
                self.history.ends(ack, told);
                acked = expected;
            }
        }
    }
}

#[test]
fn a_consumer_reads_all_flights_through_kills_goes_back_by_time_and_sees_a_range_again() {
    let flights = records("flights-200k.json", some(usize::MAX, DEBUG_RECORDS));
    let all = flights.len() as u64;
    let batches = flights.len() / BATCH_LINES;
    let mut broker = Broker::start(&[("cores", "2"), ("consumers.lease", "2s")]);
    broker.create("flights", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    let billing = Consumer::subscribed(&broker, "flights", "billing", r#"{"start":"earliest"}"#);
    let mut stage = Stage {
        flights: &flights,
        address: Mutex::new(broker.address()),
        history: History::default(),
        reached: AtomicU64::new(0),
        cut: AtomicBool::new(false),
        over: AtomicBool::new(false),
        up_to_date: AtomicU64::new(u64::MAX),
        begun: Mutex::default(),
        rewound: AtomicU64::new(u64::MAX),
    };
    let history = batches / 2;
    stage.produce(0..history, false);
    std::thread::scope(|scope| {
        let _end = End(&stage.over);
        let reader = scope.spawn(|| stage.read(&billing));
        let reach = |offset: u64| {
            eventually(&format!("offset {offset} is reached"), || {
                assert!(!reader.is_finished(), "the reader gave up");
                stage.reached.load(Ordering::SeqCst) >= offset
            });
        };
        let begun = |times: usize| {
            eventually("the reader begins again", || {
                assert!(!reader.is_finished(), "the reader gave up");
                stage.begun.lock().unwrap().len() == times
            });
        };
        // In history, with nobody producing; while it crosses; and live.
        reach(all / 8);
        kill(&mut broker, &stage);
        begun(2);
        reach(all / 4);
        let producer = scope.spawn(|| stage.produce(history..batches, true));
        stage.cut.store(true, Ordering::SeqCst);
        begun(3);
        eventually("it has crossed into live", || stage.up_to_date.load(Ordering::SeqCst) != u64::MAX);
        reach(all * 5 / 8);
        kill(&mut broker, &stage);
        begun(4);
        reach(all);
        producer.join().unwrap();
        eventually("all is acked", || billing.position(&broker) == all);

        // Back to the first flight that was received when this one was.
        let event = broker.get(&format!("/v1/groups/flights/events?from={}&limit=1", all - 1500)).events().remove(0);
        let time = event["received"].as_str().unwrap();
        let first = (all - 1500) / BATCH_LINES as u64 * BATCH_LINES as u64;
        stage.reached.store(0, Ordering::SeqCst);
        let rewind = stage.history.begins(Ask::Rewind(first));
        let moved = billing.rewind(&broker, &format!(r#"{{"to":"time:{time}"}}"#)).json();
        stage.history.ends(rewind, Told::Done);
        assert_eq!((&moved["from"], &moved["to"], &moved["events"]), (&json!(all), &json!(first), &json!(all - first)));
        reach(all);
        assert_eq!(stage.rewound.load(Ordering::SeqCst), first, "the reader was told");
        eventually("all is acked again", || billing.position(&broker) == all);
        let look = stage.history.begins(Ask::Look);
        stage.history.ends(look, Told::Position(billing.position(&broker)));
        stage.over.store(true, Ordering::SeqCst);
        // The next heartbeat would wake it, too.
        broker.kill9();
    });
    broker.restart();
    let tail = stage.up_to_date.load(Ordering::SeqCst);
    assert!((history * BATCH_LINES) as u64 <= tail && tail < all, "it was live at {tail}, and others went on");
    let begun = stage.begun.lock().unwrap();
    assert!(begun.len() == 4 && begun.is_sorted(), "each time it went on behind its last ack: {begun:?}");
    assert_eq!(check(&std::mem::take(&mut stage.history).lines()), Ok(()));

    sees_a_range_again(&broker, &billing, &flights);
}

/// A bounded replay of a consumer that has acked everything.
fn sees_a_range_again(broker: &Broker, billing: &Consumer, flights: &[String]) {
    let all = flights.len() as u64;
    let (from, until) = (all / 3, all / 3 + 2500);
    let answer = billing.rewind(broker, &format!(r#"{{"to":{from},"until":{until}}}"#)).json();
    assert_eq!((&answer["events"], billing.position(broker)), (&json!(until - from), all));
    let mut next = from;
    let mut query = "takeover=1".to_owned();
    while next < until {
        let batch = billing.next(broker, &format!("{query}&max=1000&max_bytes=4MiB")).json();
        assert_eq!(batch["replay"], true);
        for event in batch["events"].as_array().unwrap() {
            assert_eq!(event["offset"], next);
            let published: Value = serde_json::from_str(&flights[next as usize]).unwrap();
            assert_eq!(event["data"], published);
            next += 1;
        }
        query = format!("after={0}&ack={0}", next - 1);
    }
    assert_eq!(next, until, "no batch spans its end");
    let rest = billing.next(broker, &query).json();
    assert_eq!((&rest["events"], &rest["replay"], &rest["next"]), (&json!([]), &Value::Null, &json!(all)));
    assert_eq!(billing.status(broker)["state"], "live");
}

fn kill(broker: &mut Broker, stage: &Stage<'_>) {
    broker.kill9();
    broker.restart();
    *stage.address.lock().unwrap() = broker.address();
}
