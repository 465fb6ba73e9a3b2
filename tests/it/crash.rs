//! Brokers that are killed: whatever was answered is there afterwards, once, whole and in order, and what a reader saw
//! stays. And directories that a broker must not take.

use crate::broker::{Broker, PATIENCE, own_address};
use crate::history::{Scene, Trouble, check, read_all, write};
use crate::program::eddyline;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

const GROUPS: [&str; 3] = ["orders", "clicks", "logs"];
const SEGMENTS: &str = r#"{"segment":{"max_bytes":"64KiB"}}"#;

#[test]
fn killed_at_random_moments_it_keeps_all_that_was_answered_and_all_that_was_seen() {
    let seed =
        std::env::var("EDDYLINE_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"));
    println!("EDDYLINE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut broker = Broker::start(&[("cores", "2")]);
    GROUPS.iter().for_each(|group| broker.create(group, SEGMENTS));
    let scene = Scene::new(broker.address());
    let mut writers = Vec::new();
    for number in 0..6 {
        let (scene, seed) = (Arc::clone(&scene), random.u64(..));
        writers.push(thread::spawn(move || {
            write(&scene, GROUPS[number % GROUPS.len()], &format!("writer-{number}"), seed, Trouble::Repeat)
        }));
    }
    let readers = GROUPS.map(|group| {
        let scene = Arc::clone(&scene);
        thread::spawn(move || observe(&scene, group))
    });
    let mut replayed = 0;
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(random.u64(200..900)));
        broker.kill9();
        broker.restart();
        replayed += entries_replayed(&broker);
        *scene.address.lock().unwrap() = broker.address();
    }
    // Until the journals have surely been round, so that recovery has read reused files.
    let deadline = Instant::now() + PATIENCE;
    while journal_turns(&broker) < 2 {
        assert!(Instant::now() < deadline, "the journals do not go round");
        thread::sleep(Duration::from_millis(50));
    }
    broker.kill9();
    broker.restart();
    replayed += entries_replayed(&broker);
    *scene.address.lock().unwrap() = broker.address();
    thread::sleep(Duration::from_millis(100));
    scene.end();
    writers.into_iter().for_each(|writer| assert_eq!(writer.join().unwrap(), None));
    assert!(replayed > 0, "no kill left anything to replay: the test is too gentle");
    for (group, reader) in GROUPS.iter().zip(readers) {
        let events = read_all(&mut broker.client(), group);
        let acked = scene.acked(group);
        println!("{group}: {} events, {} answers", events.len(), acked.len());
        assert_eq!(check(&events, &acked), Ok(()), "{group}, seed {seed}");
        let seen = reader.join().unwrap();
        assert!(!seen.is_empty(), "{group}: the reader saw nothing");
        let lost = seen.iter().zip(&events).position(|(seen, event)| seen != event);
        assert_eq!(lost, None, "{group}: an event was seen and is another now, seed {seed}");
        assert!(seen.len() <= events.len(), "{group}: events were seen and are gone, seed {seed}");
    }
    broker.stop();
}

/// Reads a group as it grows, through every crash; gives what was seen, in order.
fn observe(scene: &Scene, group: &str) -> Vec<Value> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let mut seen: Vec<Value> = Vec::new();
    while !scene.over.load(Ordering::Relaxed) {
        let address = *scene.address.lock().unwrap();
        let url = format!("http://{address}/v1/groups/{group}/events?from={}&limit=500&wait=50ms", seen.len());
        let page = agent.get(url).header("Accept", "application/x-ndjson").call();
        let text =
            page.ok().filter(|page| page.status() == 200).and_then(|mut page| page.body_mut().read_to_string().ok());
        // A page that was cut off by the kill is asked for again.
        let Some(text) = text else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).expect("an event a line");
            assert_eq!(event["offset"], seen.len(), "{group}: a reader was given another offset than the next");
            seen.push(event);
        }
    }
    seen
}

/// Journal entries that the last start applied again.
fn entries_replayed(broker: &Broker) -> u64 {
    let log = broker.log();
    let told =
        log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|line| line["message"] == "ready"));
    let facts = told.expect("it was announced")["facts"]["recovered"].as_str().expect("told").to_owned();
    let words: Vec<&str> = facts.split(' ').collect();
    let place = words.iter().position(|word| *word == "journal").unwrap_or_else(|| panic!("{facts}"));
    words[place - 1].parse().expect("a number")
}

/// How often the journal that was written least went round, as far as checkpoints tell.
fn journal_turns(broker: &Broker) -> u64 {
    let text = String::from_utf8(broker.get("/metrics").body).unwrap();
    let checkpoints = text.lines().filter(|line| line.starts_with("eddyline_checkpoints_total"));
    // A checkpoint begins at the latest when a quarter of the ring was written.
    checkpoints.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).min().unwrap_or_default() / 4
}

#[test]
fn a_broker_that_was_told_to_end_has_nothing_to_replay() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", SEGMENTS);
    for _ in 0..20 {
        broker.produce_lines("orders", &"{\"total\":1}\n".repeat(100));
    }
    broker.stop();
    broker.restart();
    assert_eq!(entries_replayed(&broker), 0);
    let before = read_all(&mut broker.client(), "orders");
    broker.produce_lines("orders", "one more");
    broker.restart();
    assert!(entries_replayed(&broker) > 0, "a kill leaves the journal to replay");
    let after = read_all(&mut broker.client(), "orders");
    assert_eq!((before.len(), after.len()), (2000, 2001));
    assert_eq!(after[..2000], before[..]);
}

#[test]
fn directories_that_a_broker_must_not_take_are_refused_in_one_line() {
    let mut running = Broker::start(&[]);
    running.create("orders", "");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = |name: &str| directory.path().join(name);
    std::fs::create_dir(place("foreign")).unwrap();
    std::fs::write(place("foreign/letter.txt"), "not yours").unwrap();
    std::fs::write(place("file"), "").unwrap();
    let mut newer = Broker::start_on(&place("newer"), &[]);
    newer.stop();
    let identity = place("newer/identity.toml");
    let text = std::fs::read_to_string(&identity).unwrap();
    assert!(text.contains("format = 1\n"), "{text}");
    std::fs::write(&identity, text.replace("format = 1\n", "format = 99\n")).unwrap();
    let mut newer = Broker::start_on(&place("newer-state"), &[]);
    newer.stop();
    let state = place("newer-state/shard-000/state.b");
    let mut bytes = std::fs::read(&state).unwrap();
    bytes[68] = 2;
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&state, bytes).unwrap();
    for (data, expected) in [
        (running.data(), "is in use by another broker"),
        (place("foreign"), "is not empty and no data directory of Eddyline"),
        (place("newer"), "has format 99, this version knows up to 1"),
        (place("newer-state"), "state.b holds a state of version 2; this version of Eddyline knows version 1"),
        (place("file/below"), "Not a directory"),
    ] {
        refused(&data, expected);
    }
    assert_eq!(std::fs::read_dir(place("foreign")).unwrap().count(), 1, "nothing was left in the foreign directory");
    running.produce_lines("orders", "the one that runs did not notice");
    running.stop();
}

#[test]
fn an_address_that_comes_free_is_waited_for_and_one_that_does_not_is_told() {
    let address = own_address();
    let taken = TcpListener::bind(address).unwrap();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = directory.path().join("data");
    let serve = ["serve", "--data", data.to_str().unwrap(), "--listen", &address.to_string()];
    eddyline(&serve).with(1).saying(&format!("cannot listen on {address}: address in use")).saying("--listen");
    assert!(!data.exists(), "nothing is made before");
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_eddyline")).args(serve).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("address in use, trying again")));
    drop(taken);
    assert!(said.any(|line| line.contains("ready")));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn a_busy_broker_ends_soon_and_has_nothing_to_replay() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", SEGMENTS);
    let mut all = Vec::new();
    for round in 0..4 {
        let scene = Scene::new(broker.address());
        let writers: Vec<_> = (0..4)
            .map(|number| {
                let (scene, name) = (Arc::clone(&scene), format!("writer-{round}-{number}"));
                thread::spawn(move || write(&scene, "orders", &name, number, Trouble::GiveUp))
            })
            .collect();
        thread::sleep(Duration::from_millis(400 + 150 * round));
        let began = Instant::now();
        broker.stop();
        // It may drain for ten seconds; nothing here needs them.
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: it took {:?} to end", began.elapsed());
        writers.into_iter().for_each(|writer| assert!(writer.join().unwrap().is_some()));
        broker.restart();
        assert_eq!(entries_replayed(&broker), 0, "round {round}");
        all.extend(scene.acked("orders"));
        assert_eq!(check(&read_all(&mut broker.client(), "orders"), &all), Ok(()), "round {round}");
    }
}

/// A broker does not start on that directory, and says so with path and cause.
#[track_caller]
pub(crate) fn refused(data: &Path, cause: &str) {
    let path = data.to_str().unwrap();
    let ended = eddyline(&["serve", "--data", path, "--listen", "127.0.0.1:0", "--log-format", "json"]).with(1);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(path), "{}", ended.stderr);
    ended.saying(cause);
}
