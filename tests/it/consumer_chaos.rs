//! Several clients for each of several consumers, doing whatever they like, and a broker that is killed under them.

use crate::broker::{Broker, PATIENCE};
use crate::consumer::{Caller, Consumer, End, orders};
use crate::consumer_history::{Ask, History, Told, check};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONSUMERS: [&str; 4] = ["billing", "search", "mail", "audit"];
const CLIENTS: usize = 3;
const KILLS: usize = 5;

/// What all threads of a test share.
struct Scene {
    address: Mutex<SocketAddr>,
    over: AtomicBool,
    /// Answered acks and rewinds, and sessions that were opened.
    acks: AtomicU64,
    rewinds: AtomicU64,
    sessions: AtomicU64,
    fenced: AtomicU64,
}

impl Scene {
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap()
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// One client of a consumer.
struct Client<'s> {
    scene: &'s Scene,
    history: &'s History,
    consumer: Consumer,
    caller: Caller,
    random: fastrand::Rng,
    session: Option<String>,
    /// A session that it had before.
    old: Option<String>,
    /// The last offset that it holds in this session.
    held: Option<u64>,
    /// What it knows to be acked: the next offset.
    acked: u64,
}

impl Client<'_> {
    fn run(mut self) {
        while !self.scene.over() {
            match self.session.clone() {
                None => self.open(),
                Some(session) => match self.random.u8(0..20) {
                    0..6 => self.next(&session),
                    6..10 => self.ack(&session),
                    10..13 => self.next_and_ack(&session),
                    13 => self.fail(&session),
                    14 => self.rewind(),
                    15 => self.leave(&session),
                    16 => self.late_ack(),
                    17 | 18 => self.stream(&session),
                    _ => self.look(),
                },
            }
        }
    }

    /// A request and its answer; a refusal that says where to go on is followed.
    fn call(&mut self, method: &str, rest: &str, body: &str) -> Option<(u16, Value)> {
        let answer = self.caller.call(self.scene.address(), method, &self.consumer.target(rest), body);
        match &answer {
            None => thread::sleep(Duration::from_millis(5)),
            Some((409, problem)) if problem["code"] == "fenced" => {
                self.scene.fenced.fetch_add(1, Ordering::Relaxed);
                self.go();
            }
            Some((409, problem)) if problem["code"] == "rewound" => {
                let session = problem["session"].as_str().unwrap().to_owned();
                self.go();
                self.session = Some(session);
            }
            Some((409, problem)) if problem["code"] == "beyond_delivered" => self.held = None,
            Some((status, problem)) => assert!(*status < 500 || *status == 503, "{status} {problem}"),
        }
        answer
    }

    fn go(&mut self) {
        self.held = None;
        self.old = self.session.take().or(self.old.take());
    }

    fn open(&mut self) {
        let takeover = self.random.u8(0..4) / 3;
        let look = self.history.begins(Ask::Look);
        let told = match self.call("POST", &format!("/session?wait=50ms&takeover={takeover}"), "") {
            Some((200, opened)) => {
                self.scene.sessions.fetch_add(1, Ordering::Relaxed);
                self.go();
                self.session = Some(opened["session"].as_str().unwrap().to_owned());
                self.acked = opened["next"].as_u64().unwrap();
                Told::Position(self.acked)
            }
            _ => Told::Unknown,
        };
        self.history.ends(look, told);
    }

    fn next(&mut self, session: &str) {
        let after = self.held.filter(|_| self.random.bool());
        let query = after.map_or(String::new(), |after| format!("&after={after}"));
        let look = self.history.begins(Ask::Look);
        let max = self.random.u64(1..60);
        let told = match self.call("GET", &format!("/next?session={session}&max={max}&wait=10ms{query}"), "") {
            Some((200, batch)) => match self.history.given(batch["events"].as_array().unwrap()) {
                Some((first, last)) => {
                    assert!(after.is_none_or(|after| first == after + 1), "{first} behind {after:?}");
                    self.held = Some(last);
                    if after.is_none() { Told::Position(first) } else { Told::Unknown }
                }
                None => Told::Unknown,
            },
            _ => Told::Unknown,
        };
        self.history.ends(look, told);
    }

    fn ack(&mut self, session: &str) {
        let Some(held) = self.held else { return };
        let offset = if self.random.bool() { held } else { self.random.u64(self.acked.min(held)..=held) };
        self.ack_as(session, offset);
    }

    fn ack_as(&mut self, session: &str, offset: u64) {
        let ack = self.history.begins(Ask::Ack(offset));
        let told = match self.call("POST", "/ack", &format!(r#"{{"offset":{offset},"session":"{session}"}}"#)) {
            Some((200, _)) => {
                self.acked = self.acked.max(offset + 1);
                self.scene.acks.fetch_add(1, Ordering::Relaxed);
                Told::Done
            }
            Some((409, _)) => Told::Refused,
            _ => Told::Unknown,
        };
        self.history.ends(ack, told);
    }

    fn next_and_ack(&mut self, session: &str) {
        let Some(held) = self.held else { return };
        let ack = self.history.begins(Ask::Ack(held));
        let told = match self.call("GET", &format!("/next?session={session}&max=40&after={held}&ack={held}"), "") {
            Some((200, batch)) => {
                self.acked = held + 1;
                if let Some((first, last)) = self.history.given(batch["events"].as_array().unwrap()) {
                    assert_eq!(first, held + 1);
                    self.held = Some(last);
                }
                Told::Done
            }
            // The ack may have been taken before the rest was refused.
            _ => Told::Unknown,
        };
        self.history.ends(ack, told);
    }

    /// An ack in the name of a session that is over, or of before a rewind.
    fn late_ack(&mut self) {
        let (Some(old), Some(held)) = (self.old.clone(), self.held) else { return };
        let session = self.session.take();
        self.ack_as(&old, held);
        self.session = session;
    }

    fn fail(&mut self, session: &str) {
        let body = format!(r#"{{"offset":{},"session":"{session}","reason":"chance"}}"#, self.acked);
        if let Some((200, _)) = self.call("POST", "/nack", &body) {
            self.held = None;
        }
    }

    fn rewind(&mut self) {
        let (to, skip) = match self.random.u8(0..4) {
            // A little forward: what is left out need not reach anybody.
            0 => (self.acked + 2, true),
            _ => (self.random.u64(0..=self.acked), false),
        };
        let rewind = self.history.begins(Ask::Rewind(to));
        let told = match self.call("POST", "/rewind", &format!(r#"{{"to":{to},"skip":{skip}}}"#)) {
            Some((200, _)) => {
                self.scene.rewinds.fetch_add(1, Ordering::Relaxed);
                Told::Done
            }
            Some((409 | 416, _)) => Told::Refused,
            _ => Told::Unknown,
        };
        self.history.ends(rewind, told);
    }

    fn leave(&mut self, session: &str) {
        if let Some((204, _)) = self.call("DELETE", &format!("/session?session={session}"), "") {
            self.go();
        }
    }

    fn look(&mut self) {
        let look = self.history.begins(Ask::Look);
        let told = match self.call("GET", "", "") {
            Some((200, status)) => Told::Position(status["cursor"]["next"].as_u64().unwrap()),
            _ => Told::Unknown,
        };
        self.history.ends(look, told);
    }

    /// Reads live for a while, and acks on the way.
    fn stream(&mut self, session: &str) {
        let target = self.consumer.target(&format!("/stream?session={session}"));
        let Some(lines) = self.caller.lines(self.scene.address(), &target) else { return };
        let most = self.random.usize(1..80);
        let mut expected = None;
        for line in lines.take(most) {
            let Ok(line) = serde_json::from_str::<Value>(&line) else { return };
            match line["frame"].as_str() {
                None => {
                    let Some((offset, _)) = self.history.given(&[line]) else { return };
                    assert!(expected.is_none_or(|expected| expected == offset), "{offset} where {expected:?} follows");
                    expected = Some(offset + 1);
                    self.held = Some(offset);
                    if self.random.u8(0..10) == 0 {
                        self.ack_as(session, offset);
                        if self.session.as_deref() != Some(session) {
                            return;
                        }
                    }
                }
                Some("rewound" | "retry") => {
                    self.held = None;
                    return;
                }
                Some("goaway") => return,
                Some(_) => {}
            }
        }
    }
}

fn produce(scene: &Scene) {
    let caller = Caller::new();
    let mut next = 0;
    while !scene.over() {
        // Repeated until it is answered: then every event is the number of its offset.
        let lines: Vec<String> = (next..next + 20).map(|number| number.to_string()).collect();
        let target = format!("/v1/groups/orders/batch?producer=p&seq={}", next / 20);
        let answer = caller.post(scene.address(), &target, &lines.join("\n"));
        match answer {
            Some(200) => next += 20,
            _ => thread::sleep(Duration::from_millis(5)),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn whatever_clients_do_and_whenever_the_broker_is_killed_nothing_is_skipped_and_no_position_moves_by_itself() {
    let seed =
        std::env::var("EDDYLINE_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"));
    println!("EDDYLINE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut broker: Broker = orders(&[("cores", "2"), ("consumers.lease", "300ms"), ("http.heartbeat", "100ms")], 0);
    let consumers = CONSUMERS.map(|name| Consumer::subscribed(&broker, "orders", name, ""));
    let scene = Scene {
        address: Mutex::new(broker.address()),
        over: AtomicBool::new(false),
        acks: AtomicU64::new(0),
        rewinds: AtomicU64::new(0),
        sessions: AtomicU64::new(0),
        fenced: AtomicU64::new(0),
    };
    let histories = CONSUMERS.map(|_| History::default());
    thread::scope(|scope| {
        let _end = End(&scene.over);
        scope.spawn(|| produce(&scene));
        for (name, history) in CONSUMERS.iter().zip(&histories) {
            for _ in 0..CLIENTS {
                let client = Client {
                    scene: &scene,
                    history,
                    consumer: Consumer::named("orders", name),
                    caller: Caller::new(),
                    random: random.fork(),
                    session: None,
                    old: None,
                    held: None,
                    acked: 0,
                };
                scope.spawn(move || client.run());
            }
        }
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(random.u64(200..700)));
            broker.kill9();
            broker.restart();
            *scene.address.lock().unwrap() = broker.address();
        }
        let deadline = Instant::now() + PATIENCE;
        while scene.acks.load(Ordering::Relaxed) < 200 || scene.rewinds.load(Ordering::Relaxed) < 20 {
            assert!(Instant::now() < deadline, "too little happens");
            thread::sleep(Duration::from_millis(20));
        }
        scene.over.store(true, Ordering::Relaxed);
    });
    println!(
        "{:?} acks, {:?} rewinds, {:?} sessions, {:?} fenced",
        scene.acks, scene.rewinds, scene.sessions, scene.fenced
    );
    assert!(scene.fenced.into_inner() > 0, "nobody was ever fenced: the test is too gentle");
    for (consumer, history) in consumers.into_iter().zip(histories) {
        let look = history.begins(Ask::Look);
        history.ends(look, Told::Position(consumer.position(&broker)));
        assert_eq!(check(&history.lines()), Ok(()), "{}, seed {seed}", consumer.target(""));
    }
}
