//! What the index of a segment answers for alone: counts and bytes of whole blocks, what EXPLAIN tells of it, and an index
//! that is damaged or missing.

use crate::broker::{Broker, eventually};
use crate::program::eddyline;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes of a footer behind its entries, and where in them the end of the frames stands.
const TRAILER_BYTES: usize = 44;
const FRAMES_END: usize = 28;

fn ask(broker: &Broker, query: &str) -> Value {
    let answer = broker.ask("POST", "/v1/query", &[], query);
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

/// Two segments, all of them in files.
fn broker() -> Broker {
    let mut broker = Broker::start(&[]);
    broker.create("orders", r#"{"segment":{"max_bytes":"1MiB"}}"#);
    for batch in 0..300 {
        let lines: Vec<String> = (0..10).map(|line| data(batch * 10 + line)).collect();
        broker.produce_lines("orders", &lines.join("\n"));
    }
    broker.stop();
    broker
}

fn first_segment(broker: &Broker) -> PathBuf {
    let directories = std::fs::read_dir(broker.data()).unwrap();
    let shards = directories.filter_map(|entry| std::fs::read_dir(entry.unwrap().path().join("segments")).ok());
    let files = shards.flatten().map(|entry| entry.unwrap().path());
    let sealed = files.filter(|path| path.metadata().unwrap().len() > 512 << 10);
    sealed.min().expect("a segment")
}

/// The data of an event.
fn data(number: usize) -> String {
    format!("{{\"n\":{number:>500}}}")
}

/// Makes the length of an event another one in its segment. Gives the segment.
fn hurt(broker: &Broker, number: usize) -> PathBuf {
    let data = data(number);
    let directories = std::fs::read_dir(broker.data()).unwrap();
    let shards = directories.filter_map(|entry| std::fs::read_dir(entry.unwrap().path().join("segments")).ok());
    for path in shards.flatten().map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&path).unwrap();
        let Some(place) = bytes.windows(data.len()).position(|window| window == data.as_bytes()) else { continue };
        let length = bytes[..place].windows(4).rposition(|window| window == (data.len() as u32).to_le_bytes()).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff], length as u64 + 2).unwrap();
        return path;
    }
    panic!("no segment holds event {number}");
}

/// The range of events 100 to 2 900, so that the first and the last block are cut.
fn between(broker: &Broker) -> String {
    let time = |offset: u64| {
        let rows = ask(broker, &format!("SELECT received IN orders WHERE offset = {offset}"));
        rows["rows"][0][0].as_str().expect("a time").to_owned()
    };
    format!("FROM '{}' TO '{}'", time(100), time(2_900))
}

#[test]
fn whole_blocks_are_counted_by_the_index_and_come_to_what_reading_does() {
    let mut broker = broker();
    broker.restart();
    for range in [String::new(), between(&broker)] {
        for slices in ["", "SAMPLE BY 1T", "SAMPLE BY 1h"] {
            let counted = ask(&broker, &format!("SELECT count(), bytes() IN orders {range} {slices}"));
            let read = ask(&broker, &format!("SELECT count(), bytes() IN orders {range} WHERE offset >= 0 {slices}"));
            assert_eq!(counted["rows"], read["rows"], "{range} {slices}");
            assert_eq!(read["stats"]["blocks_counted"], 0);
            if slices != "SAMPLE BY 1T" {
                assert!(counted["stats"]["blocks_counted"].as_u64() > Some(10), "{counted}");
                let bytes = |answer: &Value| answer["stats"]["bytes_read"].as_u64().unwrap();
                assert!(bytes(&counted) * 2 < bytes(&read), "{counted} {read}");
            }
        }
    }
}

#[test]
fn explain_tells_which_blocks_are_read() {
    let mut broker = broker();
    broker.restart();
    let range = between(&broker);
    let step = |query: &str, name: &str| {
        let rows = ask(&broker, query)["rows"].as_array().unwrap().clone();
        let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
        row[1].as_str().unwrap().to_owned()
    };
    let query = format!("SELECT count(), bytes() IN orders {range}");
    let stats = ask(&broker, &query)["stats"].clone();
    let told = step(&format!("EXPLAIN {query}"), "blocks");
    assert!(told.starts_with(&format!("{} counted by the index, ", stats["blocks_counted"])), "{told}: {stats}");
    assert_eq!(step(&format!("EXPLAIN {query}"), "offsets"), "100 to 2900");
    assert_eq!(step("EXPLAIN SELECT * IN orders LIMIT 1", "segments"), "2 of 2");
    assert!(step("EXPLAIN SELECT min(data.n) IN orders", "blocks").starts_with("about "));
    assert_eq!(step("EXPLAIN SELECT * IN orders WHERE data.n > 1", "filter"), "each event");
    let stats = &ask(&broker, "EXPLAIN SELECT * IN orders")["stats"];
    assert_eq!((&stats["segments_total"], &stats["bytes_read"]), (&json!(2), &json!(0)), "{stats}");
    // In each format, whatever the query itself would end with.
    for query in ["SELECT * IN orders LIMIT 1", "SELECT * IN orders FOLLOW", "SELECT count() IN orders SAMPLE BY 1U"] {
        let rows = ask(&broker, &format!("EXPLAIN {query}"))["rows"].as_array().map(Vec::len);
        assert_eq!(rows, Some(8), "{query}");
    }
    let answer = |format| broker.ask("POST", "/v1/query", &[("Accept", format)], "EXPLAIN SELECT * IN orders");
    let (csv, ndjson) = (answer("text/csv"), answer("application/x-ndjson"));
    let (csv, ndjson) = (csv.text(), ndjson.text());
    assert!(csv.starts_with("step,detail\r\ngroup,orders\r\n") && csv.ends_with("filter,none\r\n"), "{csv}");
    assert!(ndjson.starts_with("{\"step\":\"group\",\"detail\":\"orders\"}\n"), "{ndjson}");
}

/// Behind an index that does not know its last block, and behind offsets that are lost.
#[test]
fn explain_goes_on_in_the_next_segment() {
    let mut broker = broker();
    let told = |broker: &Broker| {
        let rows = ask(broker, "EXPLAIN SELECT count(), bytes() IN orders")["rows"].clone();
        let blocks = rows[5][1].as_str().and_then(|blocks| blocks.split_once(" counted by the index, 0 read"));
        blocks.and_then(|(counted, _)| counted.parse::<u64>().ok()).unwrap_or_else(|| panic!("{rows}"))
    };
    broker.restart();
    let whole = told(&broker);
    broker.stop();
    // The index of the first segment is made again, and finds the damage.
    let bytes = std::fs::read(first_segment(&broker)).unwrap();
    let path = hurt(&broker, bytes.windows(5).filter(|window| window == b"{\"n\":").count() - 1);
    let length = path.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
    broker.restart();
    assert_eq!(told(&broker), whole - 1, "all but the last block of the first segment");
    broker.stop();
    eddyline(&["repair", "--accept-loss", "--data", broker.data().to_str().unwrap()]).with(0);
    broker.restart();
    let counted = ask(&broker, "SELECT count(), bytes() IN orders")["stats"].clone();
    assert!(counted["lost"].as_u64() > Some(0), "{counted}");
    assert_eq!(json!(told(&broker)), counted["blocks_counted"], "{counted}");
    assert!(told(&broker) + 1 >= whole, "{counted}");
}

/// On threads of queries, where it ends like any query that takes too long; on its core nothing would end it.
#[test]
fn explain_looks_at_blocks_beside_the_core() {
    let mut broker = broker();
    broker.configure(&[("query.time", "1ms")]);
    broker.restart();
    let query = "EXPLAIN SELECT count() IN orders SAMPLE BY 1U ALIGN TO CALENDAR TIME ZONE 'Europe/Berlin'";
    eventually("it takes too long", || {
        let answer = broker.ask("POST", "/v1/query", &[], query);
        answer.status == 422 && answer.json()["limit"] == "time"
    });
}

#[test]
fn a_damaged_index_is_told_and_made_again() {
    let mut broker = broker();
    let path = first_segment(&broker);
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let end = bytes.len() - TRAILER_BYTES + FRAMES_END;
    let end = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap());
    let data = broker.data();
    let verify = ["verify", "--data", data.to_str().unwrap()];
    // An entry that tells of other bytes, with right checksums; a bit; no index at all.
    let mut wrong = bytes[end as usize..].to_vec();
    wrong[20] ^= 1;
    let entries = wrong.len() - TRAILER_BYTES;
    let crc = crc32(&wrong[..entries]);
    wrong[entries + 32..entries + 36].copy_from_slice(&crc);
    let crc = crc32(&wrong[entries..entries + 40]);
    wrong[entries + 40..].copy_from_slice(&crc);
    eddyline(&verify).with(0);
    file.write_all_at(&wrong, end.into()).unwrap();
    assert!(eddyline(&verify).with(1).text().contains("its index tells of other frames"));
    for (cut, code, told) in [(false, 1, "damaged; it is made again"), (true, 0, "has no index yet")] {
        file.write_all_at(&[bytes[end as usize] ^ 1], end.into()).unwrap();
        if cut {
            file.set_len(end.into()).unwrap();
        }
        let verified = eddyline(&verify).with(code);
        assert!(verified.text().contains(told), "{}", verified.text());
        broker.restart();
        let answer = ask(&broker, "SELECT count(), bytes() IN orders");
        assert_eq!(answer["rows"], json!([[3000, 3000 * 506]]));
        assert!(answer["stats"]["blocks_counted"].as_u64() > Some(10), "{answer}");
        broker.stop();
    }
}

/// An index that is made of damaged frames answers for those blocks alone that are whole, and so does the footer it becomes.
#[test]
fn what_was_damaged_before_its_index_was_made_is_met_by_whoever_counts_bytes() {
    let mut broker = broker();
    broker.restart();
    let time = ask(&broker, "SELECT received IN orders WHERE offset = 2000")["rows"][0][0].clone();
    broker.stop();
    // In the segment that is still written to.
    hurt(&broker, 2500);
    let data = data(2500);
    for sealed in [false, true] {
        broker.restart();
        let before = ask(&broker, &format!("SELECT bytes() IN orders TO {}", time.to_string().replace('"', "'")));
        assert_eq!(before["rows"], json!([[2000 * data.len()]]), "sealed: {sealed}");
        assert!(before["stats"]["blocks_counted"].as_u64() > Some(10), "{before}");
        for query in ["bytes()", "count(), bytes()", "sum(length)"] {
            let answer = broker.ask("POST", "/v1/query", &[], format!("SELECT {query} IN orders"));
            answer.assert_problem(500, "corrupt", &format!("{query}, sealed: {sealed}"));
        }
        let lines = vec![data.clone(); 100].join("\n");
        eventually("the segment is sealed", || {
            broker.produce_lines("orders", &lines);
            broker.get("/v1/groups/orders").json()["segments"].as_u64() > Some(2)
        });
        broker.stop();
    }
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    });
    (!sum).to_le_bytes()
}

/// Rows that are left out because an answer before had them must be the same ones.
#[test]
fn a_result_that_retention_changed_does_not_go_on() {
    let broker = Broker::start(&[("storage.retention_every", "10ms")]);
    broker.create("orders", r#"{"segment":{"max_bytes":"64KiB"},"retention":{"max_bytes":"256KiB"}}"#);
    let batch = vec![format!("{{\"n\":1,\"pad\":\"{:0>100}\"}}", 7); 200].join("\n");
    broker.produce_lines("orders", &batch);
    let grouped = "SELECT offset, count() IN orders LIMIT 1";
    let page_of = |q: &str, next: &Value, accept: &str| {
        let body = json!({ "q": q, "next": next }).to_string();
        broker.ask("POST", "/v1/query", &[("Content-Type", "application/json"), ("Accept", accept)], body)
    };
    let page = |next: &Value| page_of(grouped, next, "application/json");
    let first = page(&Value::Null).json();
    let second = page(&first["next"]).json();
    assert_eq!((&first["rows"], &second["rows"]), (&json!([[0, 1]]), &json!([[1, 1]])));
    let plain = ["ASC LIMIT 1", "DESC LIMIT 150"]
        .map(|order| format!("SELECT offset IN orders ORDER BY received {order}"))
        .map(|q| (page_of(&q, &Value::Null, "application/json").json()["next"].clone(), q));
    eventually("retention takes the first segment", || {
        broker.produce_lines("orders", &batch);
        broker.get("/v1/groups/orders").json()["earliest"] != 0
    });
    page(&first["next"]).assert_problem(410, "gone", "the first row is another one now");
    let [(ascending, asc), (descending, desc)] = plain;
    for accept in ["application/json", "application/x-ndjson", "text/csv"] {
        page_of(&asc, &ascending, accept).assert_problem(410, "gone", accept);
    }
    let rest = page_of(&desc, &descending, "application/json").json();
    assert_eq!((&rest["rows"], &rest["stats"]["lost"]), (&json!([]), &json!(50)), "there the log begins now");
    let whole = page(&Value::Null).json();
    assert!(whole["rows"][0][0].as_u64() > Some(0), "{whole}");
}

/// Meanwhile events come and retention takes others: whatever a query sees is one piece of the log, but for what it says was
/// taken.
#[test]
fn queries_go_on_while_events_come_and_go() {
    let broker = Broker::start(&[("storage.retention_every", "10ms")]);
    broker.create("orders", r#"{"segment":{"max_bytes":"64KiB"},"retention":{"max_bytes":"512KiB"}}"#);
    let batch = vec![format!("{{\"n\":1,\"pad\":\"{:0>100}\"}}", 7); 200].join("\n");
    broker.produce_lines("orders", &batch);
    let produced = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..200).for_each(|_| _ = broker.produce_lines("orders", &batch));
            produced.store(true, std::sync::atomic::Ordering::Release);
        });
        let mut earliest = 0;
        while !produced.load(std::sync::atomic::Ordering::Acquire) {
            let answer = ask(&broker, "SELECT count(), min(offset), max(offset), sum(data.n), sum(offset) IN orders");
            let row: Vec<u64> =
                answer["rows"][0].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as u64).collect();
            let [count, min, max, ones, offsets] = row[..] else { panic!("{answer}") };
            let lost = answer["stats"]["lost"].as_u64().unwrap();
            assert!(count <= max - min + 1 && count + lost > max - min, "{answer}");
            assert!(ones == count && min >= earliest && max % 200 == 199, "{answer}");
            if lost == 0 {
                assert_eq!(offsets, (min + max) * count / 2, "{answer}");
            }
            earliest = min;
            let counted = ask(&broker, "SELECT count(), bytes() IN orders");
            let event = batch.find('\n').unwrap() as u64;
            let row = &counted["rows"][0];
            assert_eq!(row[1].as_u64().unwrap(), row[0].as_u64().unwrap() * event, "{counted}");
        }
        assert!(earliest > 0, "retention took something");
    });
}
