//! Runs against a broker that keeps its promises: everything that was asked for arrives, and is found again.

use std::collections::HashSet;
use std::io::Write;

use serde_json::json;

use crate::fake::{Broker, Manners};
use crate::runs::{Ran, against, command, run};

fn assert_right(ran: &Ran, events: u64) {
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.value("/verify/state"), json!("ok"));
    assert_eq!((ran.verify("acked"), ran.verify("verified"), ran.verify("unknown")), (events, events, 0), "{ran:?}");
}

#[test]
fn an_exact_number_of_events_arrives_whatever_the_shape_of_the_load() {
    for options in [
        "-n 500 -c 1",
        "-n 501 -c 8",
        "-n 503 -c 8 --pipeline 16",
        "-n 500 -c 8 --threads 3 --pipeline 2",
        "-n 5 -c 64",
        "-n 1003 -c 4 -b 10 --format json",
        "-n 1003 -c 4 -b 10 --format ndjson --full-answers",
        "-n 1003 -c 4 -b 100 --format text --pipeline 3",
        "-n 1003 -c 4 -b 10 --format binary -s 48B..300B",
        "-n 400 -c 3 -s 64B..1KiB --full-answers",
        "-n 300 -c 4 --groups 7",
        "-n 300 -c 4 --groups 3 -b 5 --producer-id p --pipeline 4",
    ] {
        let broker = Broker::honest();
        let ran = against(&broker, options);
        let events: u64 = options.split(' ').nth(1).unwrap().parse().unwrap();
        assert_right(&ran, events);
        let sent: Vec<_> = broker.seen().into_iter().flat_map(|seen| seen.events).collect();
        assert_eq!(sent.len() as u64, events, "{options}");
        assert_eq!(sent.iter().collect::<HashSet<_>>().len() as u64, events, "every event is another: {options}");
    }
}

#[test]
fn requests_carry_what_the_options_ask_for() {
    let broker = Broker::honest();
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"edl_a_b\n").unwrap();
    let options = format!(
        "-n 40 -c 2 -b 4 --groups 2 --producer-id me --producer-epoch 9 --token-file {}",
        token.path().display()
    );
    assert_right(&against(&broker, &options), 40);
    let seen = broker.seen();
    assert_eq!(seen.len(), 10);
    for request in &seen {
        assert_eq!(request.authorization.as_deref(), Some("Bearer edl_a_b"));
        assert_eq!(request.content_type.as_deref(), Some("application/x-ndjson"));
        assert_eq!(request.prefer.as_deref(), Some("return=minimal"));
        assert_eq!(request.events.len(), 4);
    }
    let mut producers: Vec<_> = seen.into_iter().map(|request| (request.producer.unwrap(), request.group)).collect();
    producers.sort();
    // Ten requests over two connections and two groups: each producer counts by itself in each group.
    for (connection, even, odd) in [(0, "load-0", "load-1"), (1, "load-1", "load-0")] {
        for (request, group) in (0..5).zip([even, odd].into_iter().cycle()) {
            let expected = ((format!("me-{connection}"), 9, request / 2), group.to_owned());
            assert!(producers.contains(&expected), "{expected:?} is not among {producers:?}");
        }
    }
}

#[test]
fn one_pipelined_connection_keeps_its_order() {
    let broker = Broker::honest();
    assert_right(&against(&broker, "-n 200 -c 1 --pipeline 16"), 200);
    let numbers: Vec<u64> = broker
        .stored("load")
        .iter()
        .map(|data| serde_json::from_slice::<serde_json::Value>(data).unwrap()["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    assert!(
        broker.seen().iter().all(|seen| seen.connection == broker.seen()[0].connection),
        "one keep-alive connection"
    );
}

#[test]
fn a_file_is_sent_verbatim_and_in_order() {
    let lines: [&[u8]; 6] = [b"plain", b"{\"a\": 1}", b" 12 ", b"\xff\x00bin", b"with \"quotes\" and \\", b"cr\r"];
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&lines.join(&b"\n"[..])).unwrap();
    let path = file.path().display().to_string();
    for options in ["-c 1 --once", "-c 1 --once --pipeline 4", "-c 1 --once -b 4 --format binary", "-c 1 -n 6"] {
        let broker = Broker::honest();
        assert_right(&against(&broker, &format!("--payload {path} {options}")), 6);
        assert_eq!(broker.stored("load"), lines, "{options}");
    }
    let broker = Broker::honest();
    assert_right(&against(&broker, &format!("--payload {path} -n 15 -c 3")), 15);
    let mut stored = broker.stored("load");
    stored.sort();
    let mut expected: Vec<_> = lines.iter().cycle().take(15).map(|line| line.to_vec()).collect();
    expected.sort();
    assert_eq!(stored, expected, "again from the start when it ends");
}

#[test]
fn answers_in_pieces_and_pages_of_one_event_change_nothing() {
    let broker = Broker::with(Manners { in_pieces: true, page_events: 1, ..Manners::default() });
    assert_right(&against(&broker, "-n 60 -c 3 --pipeline 4"), 60);
}

#[test]
fn what_was_there_before_is_left_alone() {
    let broker = Broker::honest();
    for seed in [1, 1, 2] {
        broker.store("load", b"somebody else's");
        assert_right(&against(&broker, &format!("-n 50 -c 2 --create=false --seed {seed}")), 50);
    }
    assert_eq!(broker.stored("load").len(), 153);
}

#[test]
fn a_run_for_a_time_ends_and_counts_only_after_the_warm_up() {
    let broker = Broker::honest();
    let ran = against(&broker, "-c 2 -d 500ms --warmup 1s");
    assert_eq!(ran.code, 0, "{ran:?}");
    let (acked, measured) = (ran.verify("acked"), ran.number("/measured/events"));
    assert_eq!(ran.verify("verified"), acked);
    assert_eq!(acked, broker.stored("load").len() as u64);
    assert!(measured < acked, "{measured} of {acked} fell into the warm-up or after the end");
}

#[test]
fn nothing_is_read_or_made_unless_asked_for() {
    let broker = Broker::with(Manners { refuse_reads: Some(403), ..Manners::default() });
    broker.store("load", b"first");
    let ran = against(&broker, "-n 20 -c 2 --no-verify --create=false");
    assert_eq!((ran.code, ran.value("/verify/state")), (0, json!("skipped")), "{ran:?}");
    assert_eq!(ran.number("/measured/events"), 20);
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let broker = Broker::honest();
    let ran = run(&format!("--url {} --group load -n 20 -c 2", broker.url()));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!((5..=12).contains(&ran.stdout.lines().count()), "{}", ran.stdout);
    assert!(ran.stdout.contains("closed loop: latency is optimistic"));
    assert!(ran.stdout.contains("ok: 20 acked, 20 verified"));
    let by_environment = command("--group load -n 1 -c 1").env("EDDYLINE_URL", broker.url()).output().unwrap();
    assert!(by_environment.status.success());
}
