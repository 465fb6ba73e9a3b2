//! A broker whose journal was damaged: read-only until it is repaired, then gaps in every way of reading, and producing
//! above them.

use crate::broker::{Broker, eventually};
use crate::consumer::Consumer;
use crate::http::Client;
use crate::journal::{Entry, entry_making, entry_of};
use crate::program::{Ended, eddyline, run};
use serde_json::{Value, json};
use std::path::Path;

const EVENTS: &str = "/v1/groups/orders/events";

fn repair(broker: &Broker, arguments: &[&str]) -> Ended {
    let data = broker.data();
    eddyline(&[&["repair", "--data", data.to_str().unwrap()], arguments].concat())
}

/// Makes a group, and waits until the audit log tells of it: whatever comes then stands in entries of its own.
fn create(broker: &Broker, group: &str) -> u32 {
    let tail = |broker: &Broker| broker.get("/v1/groups/_audit").json()["tail"].as_u64().unwrap_or(0);
    let before = tail(broker);
    broker.create(group, "");
    eventually("the audit log tells of it", || tail(broker) == before + 1);
    broker.get(&format!("/v1/groups/{group}")).json()["number"].as_u64().unwrap() as u32
}

/// Ten events, the fifth of which, and its journal entry, are damaged. Gives that entry, and the id of that event, too.
fn damaged() -> (Broker, Entry, String) {
    let mut broker = Broker::start(&[]);
    let orders = create(&broker, "orders");
    let mut lost = String::new();
    for event in 0..10 {
        let answer = broker.ask("POST", EVENTS, &[], format!("{{\"n\":{event}}}"));
        assert_eq!(answer.status, 200);
        if event == 4 {
            lost = answer.json()["first_id"].as_str().unwrap().to_owned();
        }
    }
    broker.kill9();
    let entry = entry_of(&broker.data(), 0, orders, 4);
    entry.hurt();
    (broker, entry, lost)
}

/// The same, repaired.
fn repaired() -> (Broker, String) {
    let (mut broker, _, lost) = damaged();
    repair(&broker, &["--accept-loss"]).with(0);
    broker.restart();
    (broker, lost)
}

#[test]
fn a_damaged_shard_is_read_only_until_the_loss_is_accepted() {
    let (mut broker, entry, _) = damaged();
    for _ in 0..2 {
        broker.restart();
        broker.ask("POST", EVENTS, &[], "x").assert_problem(503, "damaged", "a damaged journal");
        assert_eq!(broker.get(EVENTS).offsets(), [0, 1, 2, 3]);
        repair(&broker, &["--accept-loss"]).with(1).saying("in use by another broker");
        broker.stop();
        let told = repair(&broker, &[]).with(1).saying("1 place to repair").saying("--accept-loss");
        let lines: Vec<&str> = told.text().lines().collect();
        let (index, byte) = (entry.header.index, entry.position);
        let lost = format!("LOST shard 0: entry {index} of the journal, 4.0 KiB from byte {byte} of ");
        assert!(lines[0].starts_with(&lost) && lines[0].ends_with("shard-000/journal/000.journal on"), "{lines:?}");
        assert!(
            lines[1].starts_with("shard 0: ") && lines[1].ends_with(" later entries are whole and kept"),
            "{lines:?}"
        );
        assert!(lines.contains(&"LOST group orders (shard 0): offsets 4..5"), "{lines:?}");
        // Nobody knows whether the audit log had an event there.
        assert!(
            lines.iter().any(|line| line.starts_with("LOST group _audit (shard 0): what there was from ")),
            "{lines:?}"
        );
        assert!(lines.last().unwrap().ends_with(": nothing was changed"), "{lines:?}");
    }
    let told = repair(&broker, &["-o", "json"]).with(1);
    let told: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!((&told["repaired"], &told["journals"][0]["lost"][0]["bytes"]), (&json!(false), &json!(4096)));
    let gap = json!({ "group": "orders", "shard": 0, "from": 4, "to": 5, "exact": true });
    assert!(told["gaps"].as_array().unwrap().contains(&gap), "{told}");

    let done = repair(&broker, &["--accept-loss"]).with(0);
    assert!(done.text().ends_with(": repaired\n"), "{}", done.text());
    for arguments in [&[][..], &["--accept-loss"]] {
        let again = repair(&broker, arguments).with(0);
        assert!(again.text().ends_with(": nothing to repair\n"), "{}", again.text());
    }
    eddyline(&["verify", "--data", broker.data().to_str().unwrap()]).with(0);
    broker.restart();
    assert_eq!(broker.get("/readyz").status, 200);
    assert_eq!(broker.produce_lines("orders", "one more"), 10);
    broker.restart();
    assert_eq!(broker.get("/v1/groups/orders").json()["tail"], 11);
}

#[test]
fn finite_answers_end_before_a_gap_and_those_that_begin_in_one_say_so() {
    let (broker, lost) = repaired();
    let mut client = broker.client();
    let gap = json!({ "from": 4, "to": 5 });
    for (query, offsets, next, told) in [
        ("from=0", vec![0, 1, 2, 3], 4, false),
        ("from=2&limit=2", vec![2, 3], 4, false),
        ("from=4", vec![5, 6, 7, 8, 9], 10, true),
        ("from=4&limit=2", vec![5, 6], 7, true),
        ("from=4&until=5", vec![], 5, true),
        ("from=5", vec![5, 6, 7, 8, 9], 10, false),
        ("from=last:5", vec![5, 6, 7, 8, 9], 10, false),
        ("from=last:6", vec![3], 4, false),
        ("from=last:100", vec![0, 1, 2, 3], 4, false),
        (&format!("from=id:{lost}"), vec![5, 6, 7, 8, 9], 10, false),
        ("order=desc", vec![9, 8, 7, 6, 5], 5, false),
        ("order=desc&limit=2", vec![9, 8], 8, false),
        ("order=desc&until=5", vec![3, 2, 1, 0], 0, true),
        ("order=desc&until=5&limit=1", vec![3], 3, true),
        ("order=desc&until=4", vec![3, 2, 1, 0], 0, false),
    ] {
        let target = format!("{EVENTS}?{query}");
        let list = client.get(&target);
        let body = list.json();
        assert_eq!((list.offsets(), body["next"].as_u64()), (offsets.clone(), Some(next)), "{query}: {body}");
        assert_eq!(body.get("gap"), told.then_some(&gap), "{query}");
        let lines = client.ask("GET", &target, &[("Accept", "application/x-ndjson")], "");
        assert_eq!((lines.offsets(), lines.number("eddyline-next")), (offsets.clone(), Some(next)), "{query}");
        assert_eq!(lines.header("eddyline-gap"), told.then_some("4-5"), "{query}");
        if !query.contains("desc") {
            let frames = client.ask("GET", &target, &[("Accept", "application/vnd.eddyline.frames")], "");
            assert_eq!(frames.header("eddyline-gap"), told.then_some("4-5"), "{query}");
            assert_eq!(frames.number("eddyline-next"), Some(next), "{query}");
            let first = offsets.first().copied().unwrap_or(next);
            assert_eq!(frames.number("eddyline-first"), Some(first), "{query}");
        }
    }
}

#[test]
fn one_lost_event_is_gone_for_good_and_the_group_tells_of_its_gaps() {
    let (broker, lost) = repaired();
    let mut client = broker.client();
    let answer = client.get(&format!("{EVENTS}/4"));
    answer.assert_problem(410, "lost", "a lost event");
    assert_eq!(answer.json()["gap"], json!({ "from": 4, "to": 5 }));
    client.get(&format!("{EVENTS}/{lost}")).assert_problem(404, "no_event", "the id of a lost event");
    assert_eq!(client.get(&format!("{EVENTS}/5")).text(), "{\"n\":5}");
    let info = client.get("/v1/groups/orders").json();
    assert_eq!((&info["earliest"], &info["tail"], &info["events"]), (&json!(0), &json!(10), &json!(9)), "{info}");
    assert_eq!(info["gaps"], json!([{ "from": 4, "to": 5 }]));
    broker.create("whole", "");
    assert_eq!(client.get("/v1/groups/whole").json().get("gaps"), None);
}

#[test]
fn a_query_tells_what_is_lost_of_its_range() {
    let (broker, _) = repaired();
    let ask = |format: &str, query: &str| broker.ask("POST", "/v1/query", &[("Accept", format)], query);
    let all = ask("application/json", "SELECT offset, received IN orders").json();
    assert_eq!((all["rows"].as_array().map(Vec::len), &all["stats"]["lost"]), (Some(9), &json!(1)), "{all}");
    let behind = format!("SELECT offset IN orders FROM '{}'", all["rows"][4][1].as_str().expect("a time"));
    for format in ["application/x-ndjson", "text/csv"] {
        assert_eq!(ask(format, "SELECT offset IN orders").header("eddyline-gap"), Some("4-5"));
        assert_eq!(ask(format, "SELECT count() IN orders").header("eddyline-gap"), Some("4-5"));
        let answer = ask(format, &behind);
        assert!(answer.text().contains('9') && answer.header("eddyline-gap").is_none(), "{answer:?}");
    }
    // PREV looks back over what is lost before the range.
    let filled = format!(
        "SELECT count() IN orders FROM '{}' SAMPLE BY 1T FILL(PREV)",
        all["rows"][6][1].as_str().expect("a time")
    );
    let answer = ask("application/json", &filled).json();
    assert_eq!(answer["stats"]["lost"], 0, "{answer}");
    let live = ask("application/x-ndjson", &format!("{filled} LIMIT 1 FOLLOW"));
    assert!(live.status == 200 && !live.text().contains("gap"), "{live:?}");
    let live = ask("application/x-ndjson", "SELECT offset IN orders LIMIT 9 FOLLOW");
    assert!(
        live.text().contains("{\"offset\":3}\n{\"frame\":\"gap\",\"from\":4,\"to\":5}\n{\"offset\":5}\n"),
        "{live:?}"
    );
}

#[test]
fn a_live_reader_is_told_of_a_gap_and_goes_on() {
    let (broker, _) = repaired();
    for (live, told) in [
        ("ndjson", "{\"frame\":\"gap\",\"from\":4,\"to\":5}\n{\"offset\":5,"),
        ("sse", "event: gap\ndata: {\"from\":4,\"to\":5}\n\nid: 5\n"),
    ] {
        for (from, events) in [(2, 2), (4, 0)] {
            let mut client = broker.client();
            let target = format!("{EVENTS}?live={live}&from={from}&until=10");
            client.send(Client::request("GET", &target, &[], ""));
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{live} from {from}");
            let text = answer.text();
            assert_eq!(text.matches("\"offset\":").count(), events + 5, "{live} from {from}: {text}");
            assert_eq!(text.matches("gap").count(), 1, "{live} from {from}: {text}");
            assert!(text.contains(told), "{live} from {from}: {text}");
        }
    }
    let printed =
        run(env!("CARGO_BIN_EXE_eddyline"), &["tail", "orders", "--since", "earliest", "--url", &broker.url()], "");
    let printed = printed.with(0).saying("offsets 4-5 are lost");
    assert_eq!(printed.text().lines().count(), 9);
}

#[test]
fn a_damaged_segment_is_told_and_becomes_a_gap_once_that_is_accepted() {
    let mut broker = Broker::start(&[]);
    broker.create("orders", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    for batch in 0..300 {
        let lines: String = (0..10).map(|line| format!("{:0>500}\n", batch * 10 + line)).collect();
        broker.produce_lines("orders", &lines);
    }
    broker.stop();
    let segment = broker.data().join("shard-000/segments/0000000001-0000000000.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let text = format!("{:0>500}", 1234);
    let place = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[place] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let told = repair(&broker, &[]).with(1).saying("1 place to repair");
    assert!(told.text().contains("LOST group orders: offsets 1230..1240: "), "{}", told.text());
    assert!(told.text().contains("LOST group orders (shard 0): offsets 1230..1240\n"), "{}", told.text());
    repair(&broker, &["--accept-loss"]).with(0);
    repair(&broker, &[]).with(0);
    let verified = eddyline(&["verify", "--data", broker.data().to_str().unwrap()]).with(0);
    assert!(verified.text().contains(": offsets 1230..1240 are a gap"), "{}", verified.text());
    assert!(verified.text().contains("2991 events in 4 segments"), "{}", verified.text());
    broker.restart();
    let read = |from: u64| broker.get(&format!("{EVENTS}?from={from}&limit=10000&max_bytes=16MiB"));
    assert_eq!(read(0).offsets(), (0..1230).collect::<Vec<u64>>());
    assert_eq!(read(1230).json()["gap"], json!({ "from": 1230, "to": 1240 }));
    assert_eq!(read(1235).offsets(), (1240..3000).collect::<Vec<u64>>());
    assert_eq!(broker.produce_lines("orders", "one more\n"), 3000);
}

/// Two shards: `orders` and `empty` live in the first, `clicks` and `unused` in the second. Gives the numbers of the first
/// in each, too.
fn two_shards() -> (Broker, [u32; 2]) {
    let mut broker = Broker::start(&[("cores", "2")]);
    let [orders, clicks, ..] = ["orders", "clicks", "unused", "empty"].map(|group| create(&broker, group));
    for event in 0..6 {
        for group in ["orders", "clicks"] {
            assert_eq!(broker.produce_lines(group, &format!("{group}-{event}")), event);
        }
    }
    let shard = |group: &str| broker.get(&format!("/v1/groups/{group}")).json()["shard"].as_u64();
    assert_eq!(["orders", "clicks", "empty", "unused"].map(shard), [Some(0), Some(1), Some(0), Some(1)]);
    broker.kill9();
    (broker, [orders, clicks])
}

fn data_of(broker: &Broker, group: &str, from: u64) -> Vec<String> {
    let events = broker.get(&format!("/v1/groups/{group}/events?from={from}")).events();
    events.iter().map(|event| event["data"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_damaged_shard_does_not_touch_the_other_one() {
    for hurt in [0, 1] {
        let (mut broker, numbers) = two_shards();
        entry_of(&broker.data(), hurt, numbers[usize::from(hurt)], 3).hurt();
        let (damaged, sound) = if hurt == 0 { ("orders", "clicks") } else { ("clicks", "orders") };
        let done = repair(&broker, &["--accept-loss"]).with(0);
        assert!(
            done.text().contains(&format!("LOST group {damaged} (shard {hurt}): offsets 3..4\n")),
            "{}",
            done.text()
        );
        assert!(!done.text().contains(&format!("group {sound} ")), "{}", done.text());
        broker.restart();
        assert_eq!(data_of(&broker, sound, 0).len(), 6);
        assert_eq!([data_of(&broker, damaged, 0).len(), data_of(&broker, damaged, 3).len()], [3, 2]);
        for group in [damaged, sound] {
            assert_eq!(broker.produce_lines(group, "x"), 6, "{group}");
        }
        // A group without a later event goes on above what may be lost of it.
        let empty = if hurt == 0 { "empty" } else { "unused" };
        assert!(broker.produce_lines(empty, "x") >= 100);
        broker.stop();
        repair(&broker, &[]).with(0);
    }
}

#[test]
fn a_table_that_lost_a_group_of_another_shard_gets_it_back_under_another_name() {
    let (mut broker, [_, clicks]) = two_shards();
    let lost = format!("lost-{clicks}");
    entry_making(&broker.data(), "clicks").hurt();
    broker.restart();
    broker.get("/v1/groups/clicks").assert_problem(404, "no_group", "its registration is lost");
    broker.stop();
    let told = repair(&broker, &[]).with(1).saying("2 places to repair");
    let renamed = format!("LOST the name of group {clicks} (shard 1, offsets 0..6): now {lost}\n");
    assert!(told.text().contains(&renamed), "{}", told.text());
    assert!(told.text().contains("LOST whether group unused was removed"), "{}", told.text());
    repair(&broker, &["--accept-loss"]).with(0);
    broker.restart();
    assert_eq!(data_of(&broker, &lost, 0).len(), 6);
    assert_eq!(broker.produce_lines(&lost, "x"), 6, "nothing of its own shard is lost");
    assert_eq!(data_of(&broker, "orders", 0).len(), 6);
    broker.create("clicks", "");
    assert!(broker.produce_lines("clicks", "x") >= 6, "no offset of the lost name is given again");
    assert_eq!(broker.produce_lines("unused", "x"), 1 << 48);
    assert_eq!(broker.ask("DELETE", &format!("/v1/groups/{lost}"), &[], "").status, 204);
    broker.stop();
    repair(&broker, &[]).with(0);
    broker.restart();
    assert_eq!(data_of(&broker, "unused", 1 << 48), ["x"]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_repair_of_two_shards_that_was_killed_is_finished_by_the_next_one() {
    let (mut broker, [_, clicks]) = two_shards();
    let (data, lost) = (broker.data(), format!("lost-{clicks}"));
    entry_making(&data, "clicks").hurt();
    entry_of(&data, 1, clicks, 3).hurt();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = |step: usize| directory.path().join(step.to_string());
    copy(&data, &image(0));
    let mut steps = 0;
    let mut killed = |_, _| {
        steps += 1;
        copy(&data, &image(steps));
    };
    eddyline::shard::repair::repair(&data, true, &mut killed).unwrap();
    assert!(steps >= 10, "five for each shard");
    for step in 0..=steps {
        let path = image(step);
        eddyline(&["repair", "--accept-loss", "--data", path.to_str().unwrap()]).with(0);
        eddyline(&["repair", "--data", path.to_str().unwrap()]).with(0);
        broker = Broker::start_on(&path, &[("cores", "2")]);
        assert_eq!(data_of(&broker, "orders", 0).len(), 6, "step {step}");
        assert_eq!(data_of(&broker, &lost, 3), ["clicks-4", "clicks-5"], "step {step}");
        // Between the two states of a shard its ring is held for the older one, until the first checkpoint.
        let made = || broker.ask("PUT", "/v1/groups/clicks", &[], "").status;
        eventually("there is room in the journal", || made() == 201);
        assert!(broker.produce_lines("clicks", "x") >= 6, "step {step}: an offset of the lost name is given again");
        assert_eq!(broker.produce_lines(&lost, "x"), 6, "step {step}");
        assert!(broker.produce_lines("unused", "x") >= 100, "step {step}");
        broker.stop();
    }
}

/// What the metrics say of how many events `polls` has not acked.
fn told_by_metrics(broker: &Broker) -> Option<f64> {
    let metrics = broker.get("/metrics");
    let name = "eddyline_consumer_lag_events{group=\"orders\",consumer=\"polls\"} ";
    metrics.text().lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
}

#[test]
fn a_consumer_is_told_of_a_gap_once_it_comes_there_and_is_carried_over_it() {
    let (broker, _) = repaired();
    let polls = Consumer::subscribed(&broker, "orders", "polls", "");
    let [lag, gap] = ["lag", "gap"].map(|member| polls.status(&broker)[member].clone());
    assert_eq!((&lag["events"], &gap), (&json!(9), &json!(null)));
    assert_eq!(told_by_metrics(&broker), Some(9.0));
    let first = polls.next(&broker, "");
    assert_eq!((first.offsets(), &first.json()["next"]), (vec![0, 1, 2, 3], &json!(4)));
    assert_eq!(first.json().get("gap"), None);
    for query in ["after=3", "after=3&ack=3"] {
        let second = polls.next(&broker, query);
        assert_eq!(second.json()["gap"], json!({ "from": 4, "to": 5 }), "{query}");
        assert_eq!(second.offsets(), [5, 6, 7, 8, 9], "{query}");
    }
    let status = polls.status(&broker);
    assert_eq!((&status["state"], &status["gap"]), (&json!("gap"), &json!({ "from": 4, "to": 5 })), "{status}");
    polls.acked(&broker, 9, "");
    assert_eq!((&polls.status(&broker)["gap"], polls.position(&broker)), (&json!(null), 10));
    // A replay that would end with lost events ends before them.
    for (to, until, events, offsets) in [(2, 5, 2, vec![2, 3]), (4, 7, 2, vec![5, 6]), (3, 6, 2, vec![3])] {
        let answer = polls.rewind(&broker, &format!(r#"{{"to":{to},"until":{until}}}"#));
        assert_eq!(
            (answer.status, &answer.json()["events"]),
            (200, &json!(events)),
            "{to}..{until}: {}",
            answer.text()
        );
        let batch = polls.next(&broker, "");
        assert_eq!(batch.offsets(), offsets, "{to}..{until}");
        polls.acked(&broker, *offsets.last().unwrap(), "");
        if to == 3 {
            assert_eq!(polls.offsets(&broker, ""), [5]);
            polls.acked(&broker, 5, "");
        }
        assert_eq!(polls.position(&broker), 10);
    }
    let streams = Consumer::subscribed(&broker, "orders", "streams", "");
    let (mut stream, session) = streams.stream(&broker, "");
    assert_eq!([stream.offset(), stream.offset(), stream.offset(), stream.offset()], [0, 1, 2, 3]);
    assert_eq!(stream.until("gap"), json!({ "from": 4, "to": 5 }));
    assert_eq!(stream.offset(), 5);
    streams.acked(&broker, 5, &session);
}

#[test]
fn a_consumer_whose_gap_reaches_to_the_tail_waits_and_goes_on_with_the_next_event() {
    let mut broker = Broker::start(&[]);
    let orders = create(&broker, "orders");
    for event in 0..4 {
        assert_eq!(broker.produce_lines("orders", &event.to_string()), event);
    }
    let polls = Consumer::approved(&broker, "orders", "polls", r#"{"max_in_flight":{"events":10}}"#);
    assert_eq!(polls.offsets(&broker, ""), [0, 1, 2, 3]);
    polls.acked(&broker, 2, "");
    broker.kill9();
    entry_of(&broker.data(), 0, orders, 3).hurt();
    repair(&broker, &["--accept-loss"]).with(0);
    broker.restart();
    let tail = broker.get("/v1/groups/orders").json()["tail"].as_u64().unwrap();
    assert!(tail > 100, "{tail}");
    let gap = json!({ "from": 3, "to": tail });
    let told = polls.next(&broker, "wait=200ms");
    assert_eq!((told.status, told.offsets(), &told.json()["gap"]), (200, vec![], &gap), "{}", told.text());
    assert_eq!(polls.status(&broker)["lag"]["events"], 0, "nothing is there that it did not ack");
    assert_eq!(told_by_metrics(&broker), Some(0.0));
    let mut waiting = polls.ask_next(&broker, "wait=60s");
    assert_eq!(broker.produce_lines("orders", "more"), tail);
    let answer = waiting.answer();
    assert_eq!((answer.offsets(), &answer.json()["gap"]), (vec![tail], &gap));
    polls.acked(&broker, tail, "");
    assert_eq!(polls.position(&broker), tail + 1);
}
