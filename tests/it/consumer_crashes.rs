//! Consumers of brokers that are killed: a position is never behind an answered ack, letters and positions move together,
//! and a hundred thousand consumers cost what they must.

use crate::broker::{Broker, PATIENCE, eventually};
use crate::consumer::{Caller, Consumer, orders, produce};
use crate::http::Client;
use crate::real_input::some;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keeps the disk busy until the broker is killed, so that what a commit gathers waits for the one before, and a kill may
/// come in between.
fn keep_busy(address: SocketAddr) {
    let caller = Caller::new();
    let lines = vec!["x".repeat(500); 80].join("\n");
    while caller.post(address, "/v1/groups/orders/batch", &lines).is_some() {}
}

#[test]
fn whatever_ack_was_answered_is_there_and_no_position_goes_back() {
    const ROUNDS: u64 = 12;
    let mut broker = orders(&[], 0);
    (0..5).for_each(|part| produce(&broker, part * 2000..(part + 1) * 2000));
    let polls = Consumer::subscribed(&broker, "orders", "polls", "");
    let mut position = 0;
    let mut gained = 0;
    for round in 0..ROUNDS {
        let (sent, answered) = (AtomicU64::new(position), AtomicU64::new(position));
        std::thread::scope(|scope| {
            let (address, polls) = (broker.address(), &polls);
            let (sent, answered) = (&sent, &answered);
            (0..3).for_each(|_| drop(scope.spawn(move || keep_busy(address))));
            scope.spawn(move || {
                let caller = Caller::new();
                // Acks ride on requests, by turns with acks of their own; the kill comes between whatever it comes.
                let target = |query: String| polls.target(&format!("/next?max=3&{query}"));
                let mut batch = caller.call(address, "GET", &target(String::new()), "");
                while let Some((200, answer)) = batch {
                    let next = answer["next"].as_u64().unwrap();
                    let first = answer["events"][0]["offset"].as_u64().unwrap();
                    assert_eq!(first, answered.load(Ordering::SeqCst), "it begins behind the last ack");
                    sent.store(next, Ordering::SeqCst);
                    if round % 2 == 0 {
                        batch = caller.call(address, "GET", &target(format!("after={0}&ack={0}", next - 1)), "");
                        if batch.is_none() {
                            return;
                        }
                    } else {
                        let body = format!(r#"{{"offset":{}}}"#, next - 1);
                        let Some((200, answer)) = caller.call(address, "POST", &polls.target("/ack"), &body) else {
                            return;
                        };
                        assert_eq!(answer["acked_offset"], next - 1);
                        batch = caller.call(address, "GET", &target(format!("after={}", next - 1)), "");
                    }
                    answered.store(next, Ordering::SeqCst);
                }
            });
            eventually("something is acked", || answered.load(Ordering::SeqCst) > position);
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..40)));
            broker.kill9();
        });
        broker.restart();
        let (sent, answered) = (sent.into_inner(), answered.into_inner());
        let found = polls.position(&broker);
        assert!((answered..=sent).contains(&found), "round {round}: {found} of {answered} answered and {sent} sent");
        assert!(found >= position);
        gained += u64::from(found > answered);
        position = found;
    }
    println!("{position} acked, {gained} of {ROUNDS} kills between an ack and its answer");
}

#[test]
fn a_letter_is_there_if_and_only_if_the_position_is_behind_its_event() {
    let mut broker = orders(&[("cores", "2")], 0);
    (0..5).for_each(|part| produce(&broker, part * 2000..(part + 1) * 2000));
    let terms = r#"{"max_attempts":1,"on_poison":"dead_letter"}"#;
    let billing = Consumer::approved(&broker, "orders", "billing", terms);
    // What the client may have acked; everything else below the position must have become a letter.
    let acked = Mutex::new(BTreeSet::new());
    let mut before = 0;
    for round in 0..10 {
        let buried = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let (address, billing, acked, buried) = (broker.address(), &billing, &acked, &buried);
            (0..3).for_each(|_| drop(scope.spawn(move || keep_busy(address))));
            scope.spawn(move || {
                let caller = Caller::new();
                while let Some((200, answer)) = caller.call(address, "GET", &billing.target("/next?max=1&wait=5s"), "")
                {
                    let Some(offset) = answer["events"][0]["offset"].as_u64() else { continue };
                    let body = format!(r#"{{"offset":{offset}}}"#);
                    let action = if offset % 3 == 0 { "/ack" } else { "/nack" };
                    if action == "/ack" {
                        acked.lock().unwrap().insert(offset);
                    }
                    buried.fetch_add(offset % 3, Ordering::SeqCst);
                    if caller.call(address, "POST", &billing.target(action), &body).is_none() {
                        return;
                    }
                }
            });
            eventually("something is buried", || buried.load(Ordering::SeqCst) > 3);
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..40)));
            broker.kill9();
        });
        broker.restart();
        let position = billing.position(&broker);
        let letters = broker.get("/v1/groups/orders.dead/events?limit=10000").events();
        let offset = |letter: &Value| letter["headers"]["dead-offset"].as_str().unwrap().parse::<u64>().unwrap();
        let letters: Vec<u64> = letters.iter().map(offset).collect();
        assert!(letters.is_sorted_by(|one, next| one < next), "round {round}: a letter is there twice: {letters:?}");
        assert!(
            letters.iter().all(|letter| *letter < position),
            "round {round}: a letter, and {position} stands before it"
        );
        let acked = acked.lock().unwrap();
        let lost: Vec<u64> =
            (0..position).filter(|offset| !acked.contains(offset) && letters.binary_search(offset).is_err()).collect();
        assert_eq!(lost, [0; 0], "round {round}: neither acked nor a letter");
        assert!(position >= before);
        before = position;
        assert_eq!(billing.status(&broker)["dead_lettered"], letters.len(), "round {round}");
    }
}

/// Sends requests over many connections, for those on one connection are answered one after the other.
fn from_many(address: SocketAddr, request: &(impl Fn(usize) -> Vec<u8> + Sync), count: usize, status: u16) {
    const THREADS: usize = 4;
    const CONNECTIONS: usize = 128;
    const DEPTH: usize = 8;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(address)).collect();
                let mine: Vec<usize> = (thread..count).step_by(THREADS).collect();
                for wave in mine.chunks(CONNECTIONS * DEPTH) {
                    let shares = || wave.chunks(DEPTH);
                    for (client, share) in clients.iter_mut().zip(shares()) {
                        client.send(share.iter().flat_map(|number| request(*number)).collect::<Vec<u8>>());
                    }
                    for (client, share) in clients.iter_mut().zip(shares()) {
                        for number in share {
                            let answer = client.answer();
                            assert_eq!(answer.status, status, "{number}: {}", answer.text());
                        }
                    }
                }
            });
        }
    });
}

#[test]
fn a_hundred_thousand_consumers_are_there_after_a_start_and_delay_no_ack() {
    // A debug build takes a fifth of them, unless `EDDYLINE_TEST_FULL=1`.
    let count = some(100_000, 20_000);
    let most = (count + 1).to_string();
    let settings = [("journal.file_bytes", "8MiB"), ("limits.consumers", most.as_str())];
    let mut broker = orders(&settings, 10);
    let busy = Consumer::subscribed(&broker, "orders", "busy", "");
    let bare = broker.resident_bytes();
    let began = Instant::now();
    let subscribe =
        |number: usize| Client::request("PUT", &format!("/v1/groups/orders/consumers/c{number:06}"), &[], "");
    from_many(broker.address(), &subscribe, count, 201);
    let registered = began.elapsed();
    Consumer::named("orders", "more").call(&broker, "PUT", "", "").assert_problem(429, "too_many_consumers", "more");
    let resident = broker.resident_bytes() - bare;

    // Acks while checkpoints are written: the slowest of them, with and without.
    let (mut slowest, mut checkpoints) = ([Duration::ZERO; 2], 0);
    produce(&broker, 10..20);
    let began = Instant::now();
    let mut client = broker.client();
    while checkpoints < 2 {
        assert!(began.elapsed() < PATIENCE, "no checkpoint comes");
        let before = checkpoints_of(&broker);
        let reset = client.ask("POST", &busy.target("/rewind"), &[], r#"{"to":0}"#);
        assert_eq!(reset.status, 200);
        assert_eq!(client.get(&busy.target("/next?max=20")).offsets().len(), 20);
        let mut round = Duration::ZERO;
        for offset in 0..20 {
            let sent = Instant::now();
            let ack = client.ask("POST", &busy.target("/ack"), &[], format!(r#"{{"offset":{offset}}}"#));
            round = round.max(sent.elapsed());
            assert_eq!(ack.status, 200);
            // So that the ring is written, and a checkpoint is due.
            broker.produce_lines("orders", &"x".repeat(100_000));
        }
        let now = checkpoints_of(&broker);
        let place = usize::from(now > before);
        slowest[place] = slowest[place].max(round);
        checkpoints += now - before;
    }

    broker.kill9();
    let state: u64 = ["state.a", "state.b"]
        .map(|name| std::fs::metadata(broker.data().join("shard-000").join(name)).unwrap().len())
        .iter()
        .sum();
    let began = Instant::now();
    broker.restart();
    let started = began.elapsed();
    let mut names = 0;
    let mut after = String::new();
    let pages = Instant::now();
    loop {
        let page = broker.get(&format!("/v1/groups/orders/consumers?limit=1000&after={after}")).json();
        names += page["consumers"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        assert!(next > after.as_str(), "pages go on");
        after = next.to_owned();
    }
    assert_eq!(names, count + 1);
    println!(
        "{count} registered in {registered:?}, {} bytes of memory each, states of {state} bytes; slowest ack {:?}, beside a \
         checkpoint {:?}; started in {started:?}, listed in {:?}",
        resident / count as u64,
        slowest[0],
        slowest[1],
        pages.elapsed()
    );
    assert!(resident < 2048 * count as u64, "{resident} bytes for them");
    assert!(state < 2 * 1024 * count as u64, "{state} bytes of state");
    assert_eq!(
        Consumer::named("orders", &format!("c{:06}", count - 1)).status(&broker)["state"],
        json!("disconnected")
    );
}

fn checkpoints_of(broker: &Broker) -> u64 {
    let text = String::from_utf8(broker.get("/metrics").body).unwrap();
    let line = text.lines().find(|line| line.starts_with("eddyline_checkpoints_total")).expect("a metric");
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}
