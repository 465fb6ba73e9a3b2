//! `eddyline consumer` and `eddyline tail --consumer` against a real broker: what they print, and how they end.

use crate::broker::{Broker, PATIENCE, eventually, own_address};
use crate::program::{Ended, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Runs a client command against that broker.
fn client(broker: &Broker, arguments: &[&str]) -> Ended {
    run(env!("CARGO_BIN_EXE_eddyline"), &[arguments, &["--url", &broker.url()]].concat(), "")
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(ended.text()).unwrap_or_else(|error| panic!("{error}: {}", ended.text()))
}

/// A broker with ten events in `orders` and the consumer `billing`, who has acked five.
fn orders() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    broker.produce_lines("orders", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    client(&broker, &["consumer", "subscribe", "orders", "billing"]).with(0).saying("approved, next event 0");
    let next = broker.get("/v1/groups/orders/consumers/billing/next?max=5");
    assert_eq!(next.events().len(), 5);
    let acked = broker.ask("POST", "/v1/groups/orders/consumers/billing/ack", &[], r#"{"offset":4}"#);
    assert_eq!(acked.status, 200);
    broker
}

#[test]
fn consumers_are_listed_and_shown() {
    let broker = orders();
    broker.create("web", "");
    client(&broker, &["consumer", "subscribe", "web", "audit", "--start", "latest"]).with(0);
    let list = client(&broker, &["consumer", "ls"]).with(0);
    let lines: Vec<Vec<&str>> = list.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["GROUP", "CONSUMER", "LAG", "BYTES", "BEHIND", "ACKED/S", "SESSION", "STATE"]);
    assert_eq!(lines[1][..3], ["orders", "billing", "5"], "{}", list.text());
    assert!(list.text().lines().nth(1).unwrap().ends_with("next     catching up"), "{}", list.text());
    assert_eq!((&lines[2][..3], lines[2].last()), (&["web", "audit", "0"][..], Some(&"idle")), "{}", list.text());
    assert!(!list.text().contains('\u{1b}'), "no colours off a terminal");

    let of_group = json(&client(&broker, &["consumer", "ls", "web", "-o", "json"]).with(0));
    assert_eq!(of_group["consumers"].as_array().map(Vec::len), Some(1));
    assert_eq!(of_group["consumers"][0]["consumer"], "audit");

    let page = client(&broker, &["consumer", "info", "orders", "billing"]).with(0);
    for line in ["next event      5", "lag             5 events", "group holds     0..10"] {
        assert!(page.text().lines().any(|shown| shown == line), "{line:?} in\n{}", page.text());
    }
    let info = json(&client(&broker, &["consumer", "info", "orders", "billing", "-o", "json"]).with(0));
    assert_eq!(info["cursor"]["acked_offset"], 4);
    client(&broker, &["consumer", "ls", "nobody"]).with(4).saying("no_group");
    client(&broker, &["consumer", "info", "orders", "nobody"]).with(4).saying("consumer ls");
    client(&Broker::start(&[]), &["consumer", "ls"]).with(0).saying("no consumers");
}

#[test]
fn a_life_is_decided_by_hand() {
    let broker = orders();
    let billing =
        |verb: &str, more: &[&str]| client(&broker, &[&["consumer", verb, "orders", "billing"], more].concat());
    billing("subscribe", &["--start", "latest"]).with(0).saying("approved, next event 5");
    billing("approve", &["--start", "3"]).with(4).saying("consumer rewind");
    let granted =
        billing("approve", &["--max-attempts", "2", "--on-poison", "dead-letter", "--lease", "5s", "-o", "json"]);
    let limits = &json(&granted.with(0))["limits"];
    assert_eq!((&limits["max_attempts"], &limits["lease_ms"]), (&2.into(), &5000.into()));
    billing("suspend", &[]).with(0).saying("orders/billing: suspended");
    billing("suspend", &[]).with(0);
    client(&broker, &["tail", "orders", "--consumer", "billing"]).with(4).saying("consumer resume");
    billing("resume", &[]).with(0).saying("approved");
    billing("revoke", &[]).with(0).saying("revoked");
    billing("resume", &[]).with(4).saying("wrong_state");
    client(&broker, &["tail", "orders", "--consumer", "billing"]).with(4).saying("consumer approve");
    billing("approve", &[]).with(0).saying("approved, next event 5");
    billing("approve", &["--expires", "2020-01-01T00:00:00Z"]).with(0);
    client(&broker, &["tail", "orders", "--consumer", "billing"]).with(4).saying("--expires");
    billing("rm", &[]).with(2).saying("--yes");
    billing("rm", &["--yes"]).with(0).saying("removed");
    billing("info", &[]).with(4).saying("no_consumer");
}

#[test]
fn a_position_is_moved_only_when_somebody_says_so() {
    let broker = orders();
    let rewind = |more: &[&str]| client(&broker, &[&["consumer", "rewind", "orders", "billing"], more].concat());
    let next = || broker.get("/v1/groups/orders/consumers/billing").json()["cursor"]["next"].clone();
    rewind(&["--to", "1"]).with(2).saying("--dry-run");
    let plan = rewind(&["--to", "1", "--dry-run"]).with(0);
    assert!(plan.text().starts_with("orders/billing: from 5 to 1, 4 events ("), "{}", plan.text());
    assert_eq!(next(), 5, "a plan moves nothing");
    let done = rewind(&["--to", "1", "--yes", "-o", "json"]).with(0);
    assert_eq!((&json(&done)["events"], next()), (&4.into(), 1.into()));
    rewind(&["--to", "latest", "--yes"]).with(4).saying("--skip");
    rewind(&["--to", "latest", "--skip", "--yes"]).with(0).saying("9 events").saying("left out");
    assert_eq!(next(), 10);
    rewind(&["--to", "2", "--until", "4", "--yes"]).with(0).saying("2 events").saying("up to 4");
    let info = client(&broker, &["consumer", "info", "orders", "billing"]).with(0);
    assert!(info.text().contains("to be replayed  2..4"), "{}", info.text());
    rewind(&["--to", "20", "--yes"]).with(4).saying("behind_tail");
    client(&broker, &["consumer", "replay", "orders", "billing"]).with(0).saying("0 events");
}

#[test]
fn dead_letters_are_replayed_by_hand() {
    let broker = orders();
    let terms = ["--max-attempts", "1", "--on-poison", "dead-letter"];
    client(&broker, &[&["consumer", "approve", "orders", "billing"], &terms[..]].concat()).with(0);
    let path = "/v1/groups/orders/consumers/billing";
    broker.get(&format!("{path}/next?max=1"));
    assert_eq!(broker.ask("POST", &format!("{path}/nack"), &[], r#"{"offset":5}"#).status, 200);
    assert_eq!(broker.get(&format!("{path}/next?max=1")).offsets(), [6], "5 went to the dead letters");
    client(&broker, &["consumer", "replay", "orders", "billing"]).with(0).saying("1 event delivered again");
    assert_eq!(broker.get(&format!("{path}/next?max=1")).status, 200);
    let replay = client(&broker, &["consumer", "replay", "orders", "billing", "--from", "latest", "-o", "json"]);
    assert_eq!(json(&replay.with(0))["events"], 0);
}

#[test]
fn tail_reads_from_the_position_and_moves_it_only_with_ack() {
    let broker = orders();
    let tail = |more: &[&str]| client(&broker, &[&["tail", "orders", "--consumer", "billing"], more].concat());
    let status = || broker.get("/v1/groups/orders/consumers/billing").json();
    // Whoever named no session has the anonymous one for as long as its lease lives.
    tail(&[]).with(4).saying("session_active");
    assert_eq!(broker.ask("DELETE", "/v1/groups/orders/consumers/billing/session", &[], "").status, 204);
    assert_eq!(tail(&[]).with(0).text(), "5\n6\n7\n8\n9\n");
    assert_eq!((&status()["cursor"]["next"], &status()["session"]), (&5.into(), &Value::Null));
    assert_eq!(tail(&["--ack"]).with(0).text(), "5\n6\n7\n8\n9\n");
    assert_eq!((&status()["cursor"]["next"], &status()["session"]), (&10.into(), &Value::Null));
    assert_eq!(tail(&["--ack"]).with(0).text(), "");
    broker.produce_lines("orders", "10\n");
    client(&broker, &["consumer", "rewind", "orders", "billing", "--to", "3", "--until", "5", "--yes"]).with(0);
    let again = tail(&["--ack"]).with(0).saying("replay: offsets 3 to 5 again").saying("replay: done");
    assert_eq!(again.text(), "3\n4\n10\n");
    tail(&["-n", "3"]).with(2);
    client(&broker, &["tail", "orders", "--ack"]).with(2).saying("--consumer");
    client(&broker, &["tail", "orders", "--consumer", "nobody"]).with(4).saying("no_consumer");
}

#[test]
fn a_consumer_that_is_followed_survives_restarts_and_leaves_its_session_when_interrupted() {
    // The same port again, as a broker of its own would have.
    let address = own_address();
    let mut broker = Broker::start(&[("listen", &format!("[\"{address}\"]"))]);
    broker.create("orders", "");
    broker.produce_lines("orders", "before\n");
    client(&broker, &["consumer", "subscribe", "orders", "billing"]).with(0);
    let mut tail = Command::new(env!("CARGO_BIN_EXE_eddyline"))
        .args(["tail", "orders", "--consumer", "billing", "--ack", "-f", "--url", &broker.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = |pipe: Box<dyn Read + Send>| {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        lines
    };
    let (printed, said) = (lines(Box::new(tail.stdout.take().unwrap())), lines(Box::new(tail.stderr.take().unwrap())));
    let expect = |line: &str| assert_eq!(printed.recv_timeout(PATIENCE).as_deref(), Ok(line));
    let expect_said = |part: &str| {
        let line = said.recv_timeout(PATIENCE).expect(part);
        assert!(line.contains(part), "{part:?} in {line:?}");
    };
    expect("before");
    broker.kill9();
    expect_said("the broker went away");
    broker.restart();
    broker.produce_lines("orders", "after the kill\n");
    expect("after the kill");
    expect_said("connected again, going on at offset");
    let rewind = ["consumer", "rewind", "orders", "billing", "--to", "0", "--yes"];
    client(&broker, &rewind).with(0);
    expect("before");
    expect_said("rewound: going on at offset 0");
    expect("after the kill");
    let status = || broker.get("/v1/groups/orders/consumers/billing").json();
    eventually("both are acked", || status()["cursor"]["next"] == 2);
    assert_eq!(status()["session"]["anonymous"], false);
    kill_process(Pid::from_child(&tail), Signal::INT).expect("the process is there");
    eventually("it ends", || tail.try_wait().unwrap().is_some());
    assert_eq!(tail.wait().unwrap().code(), Some(130));
    assert_eq!(status()["session"], Value::Null, "the next one need not wait for a lease to lapse");
    assert_eq!(printed.try_iter().next(), None, "nothing is printed twice");
}

/// The head of the next request on a connection of its own.
fn asked(listener: &TcpListener) -> (TcpStream, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    drop(lines);
    (stream, first)
}

#[test]
fn who_is_interrupted_asks_for_no_other_session_when_its_stream_ends_first() {
    // A broker that ends the stream before it answers that the session is left, as ours may.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tail = Command::new(env!("CARGO_BIN_EXE_eddyline"))
        .args(["tail", "g", "--consumer", "c", "-f", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let expect = |request: &str, answer: &str| {
        let (mut stream, line) = asked(&listener);
        assert_eq!(line, format!("{request} HTTP/1.1"));
        stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{answer}").as_bytes()).unwrap();
        stream
    };
    drop(expect("POST /v1/groups/g/consumers/c/session?wait=20s", "Content-Length: 17\r\n\r\n{\"session\":\"s-1\"}"));
    let stream = expect("GET /v1/groups/g/consumers/c/stream?session=s-1", "\r\n");
    let event = r#"{"offset":0,"length":2,"encoding":"text","data":"e0"}"#;
    writeln!(&stream, "{event}").unwrap();
    let mut stdout = BufReader::new(tail.stdout.as_mut().unwrap()).lines();
    assert_eq!(stdout.next().unwrap().unwrap(), "e0");
    kill_process(Pid::from_child(&tail), Signal::INT).expect("the process is there");
    let (mut leaving, line) = asked(&listener);
    assert_eq!(line, "DELETE /v1/groups/g/consumers/c/session?session=s-1 HTTP/1.1");
    writeln!(&stream, r#"{{"frame":"goaway","reason":"fenced"}}"#).unwrap();
    drop(stream);
    // Time to ask again, for a reader that would.
    std::thread::sleep(Duration::from_millis(300));
    leaving.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    let ended = tail.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).as_deref()), (Some(130), Ok("")));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().map_err(|error| error.kind()).err(), Some(ErrorKind::WouldBlock));
}

#[test]
fn top_shows_a_broker_off_a_terminal_too() {
    let broker = orders();
    let looks = client(&broker, &["top", "-n", "2", "--interval", "100ms", "-o", "json"]).with(0);
    let ticks: Vec<Value> =
        looks.text().lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(ticks.len(), 2);
    for tick in &ticks {
        assert!(tick["events_in"].as_f64().is_some_and(|rate| rate >= 0.0), "{tick}");
        assert_eq!((&tick["groups"], &tick["consumers_all"]), (&1.into(), &1.into()));
        assert!(tick["disk"]["free_bytes"].as_u64() > tick["disk"]["reserve_bytes"].as_u64(), "{tick}");
        assert_eq!((&tick["worst"]["consumer"], &tick["worst"]["lag"]["events"]), (&"billing".into(), &5.into()));
        assert_eq!(tick["consumers"][0]["cursor"]["acked_offset"], 4);
    }
    let table = client(&broker, &["top", "-n", "1", "--interval", "100ms"]).with(0);
    let lines: Vec<&str> = table.text().lines().collect();
    assert!(lines[0].starts_with("eddyline ") && lines[0].ends_with("running"), "{}", table.text());
    assert!(lines.last().is_some_and(|line| line.starts_with("orders  billing ")), "{}", table.text());
    assert!(!table.text().contains('\u{1b}'), "no drawing off a terminal");
    client(&broker, &["top", "--interval", "1ms"]).with(2).saying("100ms");
    client(&broker, &["top", "-n", "0"]).with(2);
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    run(env!("CARGO_BIN_EXE_eddyline"), &["top", "-n", "1", "--url", &url], "").with(3).saying("Connection refused");
}

#[test]
fn an_approval_prints_the_consumers_token_once_and_alone() {
    let (broker, admin) = Broker::start_guarded(&[]);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, token: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, token).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let admin_file = file("admin", &admin);
    let as_admin = |arguments: &[&str]| client(&broker, &[arguments, &["--token-file", &admin_file]].concat());
    as_admin(&["group", "create", "orders"]).with(0);
    assert_eq!(broker.ask_as(&admin, "POST", "/v1/groups/orders/events", "first").status, 200);
    let consume = as_admin(&["token", "create", "--scope", "consume", "--group", "orders"]).with(0);
    let consume = file("consume", consume.text().trim());
    let asked = ["consumer", "subscribe", "orders", "billing", "--token-file", &consume];
    assert_eq!(client(&broker, &asked).with(0).saying("pending").text(), "");
    let approved = as_admin(&["consumer", "approve", "orders", "billing"]).with(0).saying("this once");
    let token = approved.text().strip_suffix('\n').unwrap();
    assert!(token.starts_with("edl_") && token.bytes().all(|byte| byte.is_ascii_graphic()), "one line: {token:?}");
    assert!(!approved.stderr.contains(token), "{}", approved.stderr);
    assert_eq!(as_admin(&["consumer", "approve", "orders", "billing"]).with(0).text(), "", "it is shown once");
    let own = file("own", token);
    let tail = ["tail", "orders", "--consumer", "billing", "--ack", "--token-file", &own];
    assert_eq!(client(&broker, &tail).with(0).text(), "first\n");
}
