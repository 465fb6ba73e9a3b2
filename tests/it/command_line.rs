//! The commands against a real broker: what they print, how they end, and what they say of damage.

use crate::broker::{Broker, PATIENCE, eventually, own_address};
use crate::program::{eddyline, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// Runs a client command against that broker.
fn client(broker: &Broker, arguments: &[&str]) -> crate::program::Ended {
    client_with(broker, arguments, "")
}

fn client_with(broker: &Broker, arguments: &[&str], stdin: &str) -> crate::program::Ended {
    run(env!("CARGO_BIN_EXE_eddyline"), &[arguments, &["--url", &broker.url()]].concat(), stdin)
}

#[test]
fn events_go_in_and_come_out_as_they_were() {
    let broker = Broker::start(&[]);
    client(&broker, &["produce", "orders", "--create", "{\"total\": 7}"]).with(0).saying("created group orders");
    client_with(&broker, &["produce", "orders", "--key", "k"], "one\n\n  two  \nthree\r\n")
        .with(0)
        .saying("3 events in 1 request");
    client(&broker, &["produce", "orders", "plain text", "[1, 2]"])
        .with(0)
        .saying("2 events in 1 request, last offset 5");
    let all = client(&broker, &["tail", "orders", "-n", "100"]).with(0);
    assert_eq!(all.text(), "{\"total\": 7}\none\n  two  \nthree\nplain text\n[1, 2]\n");
    assert_eq!(client(&broker, &["tail", "orders", "-n", "2"]).with(0).text(), "plain text\n[1, 2]\n");
    assert_eq!(client(&broker, &["tail", "orders", "--since", "1", "--until", "3"]).with(0).text(), "one\n  two  \n");
    assert_eq!(
        client(&broker, &["tail", "orders", "--since", "1h", "--until", "1"]).with(0).text(),
        "{\"total\": 7}\n"
    );
    let json = client(&broker, &["tail", "orders", "--since", "1", "--until", "2", "-o", "json"]).with(0);
    let event: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!((&event["offset"], &event["key"], &event["data"]), (&1.into(), &"k".into(), &"one".into()));
}

#[test]
fn an_input_that_is_sent_again_under_its_name_is_stored_once() {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    let lines: String = (0..1000).map(|line| format!("line {line}\n")).collect();
    let import = ["produce", "orders", "--producer-id", "import", "--batch", "100"];
    client_with(&broker, &import, &lines[..lines.len() / 2]).with(0);
    let stored = broker.get("/v1/groups/orders").json()["tail"].as_u64().unwrap();
    // The first half ended within a line and within a batch, so that batch is another one now.
    client_with(&broker, &import, &lines).with(1).saying("nothing of this request was stored");
    assert_eq!(broker.get("/v1/groups/orders").json()["tail"], stored);
    let other = ["produce", "orders", "--producer-id", "whole", "--batch", "100"];
    client_with(&broker, &other, &lines).with(0).saying("1000 events in 10 requests");
    client_with(&broker, &other, &lines).with(0).saying("all of them were stored before");
    assert_eq!(broker.get("/v1/groups/orders").json()["tail"], stored + 1000);
}

#[test]
fn groups_are_made_listed_changed_and_removed() {
    let broker = Broker::start(&[]);
    client(&broker, &["group", "ls"]).with(0).saying("no groups");
    client(&broker, &["group", "create", "orders", "--max-event-bytes", "64KiB"]).with(0).saying("orders: created");
    client(&broker, &["group", "create", "orders"]).with(0).saying("is there already");
    client(&broker, &["group", "create", "orders", "--max-event-bytes", "1KiB"]).with(4);
    client(&broker, &["group", "create", "web-clicks"]).with(0);
    let list = client(&broker, &["group", "ls", "-o", "json", "--prefix", "web-"]).with(0);
    let list: Value = serde_json::from_str(list.text()).unwrap();
    assert_eq!(list["groups"].as_array().unwrap().len(), 1);
    assert!(client(&broker, &["group", "ls"]).with(0).text().contains("web-clicks"));
    client(&broker, &["group", "set", "orders", r#"{"max_event_bytes":"2KiB"}"#]).with(0).saying("orders: changed");
    let info: Value =
        serde_json::from_str(client(&broker, &["group", "info", "orders", "-o", "json"]).with(0).text()).unwrap();
    assert_eq!(info["config"]["max_event_bytes"], "2KiB");
    client(&broker, &["group", "rm", "orders"]).with(2).saying("--yes");
    client(&broker, &["group", "rm", "orders", "--yes"]).with(0).saying("orders: removed");
    client(&broker, &["group", "info", "orders"]).with(4).saying("no_group");
    client(&broker, &["group", "create", "_mine"]).with(4).saying("bad_group");
}

#[test]
fn the_exit_code_says_what_kind_of_no_it_is() {
    let broker = Broker::start(&[]);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let url = broker.url();
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for (arguments, code, said) in [
        (&["tail", "orders", "--url", &url][..], 4, "no_group"),
        (&["produce", "orders", "x", "--url", &url], 4, "no_group"),
        (&["tail", "orders", "--url", &closed], 3, "Connection refused"),
        (&["status", "--url", &closed], 3, "Connection refused"),
        (&["group", "ls", "--url", &closed], 3, "Connection refused"),
        (&["tail", "orders", "--url", "ftp://here"], 2, "http://"),
        (&["tail", "orders", "--since", "yesterday"], 2, "expected a duration"),
        (&["produce"], 2, "Usage"),
        (&["tial", "orders"], 2, "tail"),
        (&["serve", "--listen", "0.0.0.0:0"], 2, "insecure"),
        (&["serve", "--jornal-files", "4"], 2, "journal-files"),
        (&["verify", "--data", missing.to_str().unwrap()], 1, "missing"),
        (&["verify", "--data", broker.data().to_str().unwrap()], 1, "in use"),
    ] {
        let ended = eddyline(arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{arguments:?}: talk goes to stderr: {}", ended.stdout.escape_ascii());
    }
}

#[test]
fn status_says_ready_and_shows_the_shards() {
    let mut broker = Broker::start(&[("cores", "2")]);
    let page = client(&broker, &["status"]).with(0);
    assert!(page.text().starts_with("ready\n") && page.text().contains("\nshards\n"), "{}", page.text());
    let json: Value = serde_json::from_str(client(&broker, &["status", "-o", "json"]).with(0).text()).unwrap();
    assert_eq!((json["ready"].as_bool(), json["status"]["shards"].as_array().map(Vec::len)), (Some(true), Some(2)));
    // More in reserve than any disk has free.
    broker.configure(&[("storage.reserve", "1000TiB")]);
    broker.restart();
    client(&broker, &["status"]).with(1).saying("not ready");
}

#[test]
fn config_makes_checks_and_shows_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("eddyline.toml");
    let path = file.to_str().unwrap();
    eddyline(&["config", "init", path]).with(0).saying("wrote");
    eddyline(&["config", "init", path]).with(1).saying("File exists");
    eddyline(&["config", "check", "-c", path]).with(0).saying("the configuration is good");
    assert_eq!(eddyline(&["config", "init"]).with(0).text(), std::fs::read_to_string(&file).unwrap());
    let shown = eddyline(&["config", "show", "-c", path, "--cores", "2"]).with(0);
    assert!(shown.text().contains("cores = 2") && shown.text().contains("# --cores"), "{}", shown.text());
    std::fs::write(&file, "[journal]\nfiels = 4\n").unwrap();
    eddyline(&["config", "check", "-c", path]).with(2).saying("files");
    eddyline(&["serve", "-c", path]).with(2).saying("files");
}

#[test]
fn tail_follows_over_a_restart_and_prints_each_event_once() {
    // The same port again, as a broker of its own would have.
    let address = own_address();
    let mut broker = Broker::start(&[("listen", &format!("[\"{address}\"]"))]);
    broker.create("orders", "");
    broker.produce_lines("orders", "before\n");
    let mut tail = Command::new(env!("CARGO_BIN_EXE_eddyline"))
        .args(["tail", "orders", "-f", "--since", "earliest", "--url", &broker.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (lines, printed) = mpsc::channel();
    let stdout = tail.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let expect = |line: &str| assert_eq!(printed.recv_timeout(PATIENCE).as_deref(), Ok(line));
    expect("before");
    broker.produce_lines("orders", "live\n");
    expect("live");
    broker.kill9();
    std::thread::sleep(std::time::Duration::from_millis(300));
    broker.restart();
    broker.produce_lines("orders", "after the kill\n");
    expect("after the kill");
    broker.stop();
    broker.restart();
    broker.produce_lines("orders", "after the drain\n");
    expect("after the drain");
    assert!(tail.try_wait().unwrap().is_none(), "it goes on following");
    tail.kill().unwrap();
    tail.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(printed.try_iter().next(), None, "nothing is printed twice");
}

/// The segment files of the first shard, oldest first.
fn segments(broker: &Broker) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(broker.data().join("shard-000/segments")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Inverts a bit of a byte where that text stands in a file.
fn flip(path: &PathBuf, text: &str) {
    let bytes = std::fs::read(path).unwrap();
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is there");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[place] ^ 1], place as u64).unwrap();
}

#[test]
fn damage_in_a_segment_is_told_and_hides_nothing_else() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    for batch in 0..300 {
        let lines: String = (0..10).map(|line| format!("{:0>500}\n", batch * 10 + line)).collect();
        broker.produce_lines("orders", &lines);
    }
    broker.stop();
    let data = broker.data();
    let verify = ["verify", "--data", data.to_str().unwrap()];
    // One of them is in the audit log: that the group was made.
    let healthy = eddyline(&verify).with(0);
    assert!(healthy.text().contains("3001 events in 3 segments"), "{}", healthy.text());
    assert!(!healthy.text().contains("DAMAGED"), "{}", healthy.text());

    let (hurt, whole) = (1234, 0..1230);
    flip(&segments(&broker)[0], &format!("{hurt:0>500}"));
    let damaged = eddyline(&verify).with(1).saying("damage in 1 place");
    let file = segments(&broker)[0].file_name().unwrap().to_str().unwrap().to_owned();
    let lines: Vec<&str> = damaged.text().lines().filter(|line| line.starts_with("DAMAGED")).collect();
    assert_eq!(lines.len(), 1, "{}", damaged.text());
    assert!(lines[0].contains("offsets 1230..1240") && lines[0].contains(&file), "{}", lines[0]);
    assert!(damaged.text().contains("2991 events"), "the others were found whole: {}", damaged.text());

    broker.restart();
    for format in ["application/json", "application/x-ndjson"] {
        let read = |from: u64| {
            let target = format!("/v1/groups/orders/events?from={from}&limit=10000&max_bytes=16MiB");
            broker.ask("GET", &target, &[("Accept", format)], "")
        };
        for from in [0, 600, 1229] {
            let page = read(from);
            assert_eq!(page.status, 200, "{format} {from}: {}", page.body.escape_ascii());
            assert_eq!(page.offsets(), (from..whole.end).collect::<Vec<u64>>(), "{format}: up to the damage");
        }
        for from in [1230, hurt, 1239] {
            read(from).assert_problem(500, "corrupt", &format!("{format} from={from}"));
        }
        for from in [1240, 1500, 2999] {
            let page = read(from);
            assert_eq!(page.status, 200, "{format} {from}: {}", page.body.escape_ascii());
            assert_eq!(page.offsets(), (from..3000).collect::<Vec<u64>>(), "{format}: behind the damage");
        }
    }
    broker.get(&format!("/v1/groups/orders/events/{hurt}")).assert_problem(500, "corrupt", "one event");
    assert_eq!(broker.get("/v1/groups/orders/events/1229").status, 200);
    let printed = client(&broker, &["tail", "orders", "--since", "earliest"]).with(4).saying("corrupt");
    assert_eq!(printed.text().lines().count(), 1230, "what is whole before the damage is printed");
    // One that follows is told, too, instead of connecting for ever; from close before the damage, and from far.
    for since in [1200, 0] {
        let followed =
            client(&broker, &["tail", "orders", "-f", "--since", &since.to_string()]).with(4).saying("corrupt");
        assert_eq!(followed.text().lines().count(), 1230 - since, "following from {since}");
    }
    assert_eq!(broker.produce_lines("orders", "one more\n"), 3000, "the group stays writable");
    assert_eq!(client(&broker, &["tail", "orders", "-n", "1"]).with(0).text(), "one more\n");
    eventually("ready", || broker.get("/readyz").status == 200);
}

#[test]
fn a_damaged_header_hides_no_more_than_up_to_the_next_place_of_the_index() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    for batch in 0..300 {
        let lines: String = (0..10).map(|line| format!("{:0>500}\n", batch * 10 + line)).collect();
        broker.produce_lines("orders", &lines);
    }
    broker.stop();
    let path = &segments(&broker)[0];
    let bytes = std::fs::read(path).unwrap();
    // The events hold nothing but digits.
    let frame = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"EDFR").nth(50).unwrap().0;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[frame + 20] ^ 1], frame as u64 + 20).unwrap();
    let data = broker.data();
    let damaged = eddyline(&["verify", "--data", data.to_str().unwrap()]).with(1).saying("damage in 1 place");
    let line = damaged.text().lines().find(|line| line.starts_with("DAMAGED")).unwrap();
    let range = line.split_once("offsets ").unwrap().1.split_once(':').unwrap().0;
    let (from, to) = range.split_once("..").unwrap();
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    // An entry of the index is 64 KiB away at most, and a frame of ten events takes five and a half.
    assert!(from == 500 && to > from && to <= from + 130 && to.is_multiple_of(10), "{line}");
    assert!(line.contains(&format!("at byte {frame}: ")), "{line}");
    // The audit log has one of its own.
    assert!(damaged.text().contains(&format!("{} events", 3001 - (to - from))), "{}", damaged.text());

    broker.restart();
    let read = |from: u64| broker.get(&format!("/v1/groups/orders/events?from={from}&limit=10000&max_bytes=16MiB"));
    assert_eq!(read(0).offsets(), (0..from).collect::<Vec<u64>>());
    for offset in [from, to - 1] {
        read(offset).assert_problem(500, "corrupt", "hidden by the damage");
    }
    assert_eq!(read(to).offsets(), (to..3000).collect::<Vec<u64>>(), "behind it everything is read");
}
