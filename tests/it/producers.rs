//! Who produces: a request sent twice is stored once, and requests sent at once are answered in order.

use crate::broker::Broker;
use crate::http::{Answer, Client};
use serde_json::Value;
use std::collections::BTreeSet;

const EVENTS: &str = "/v1/groups/orders/events";
const BATCH: &str = "/v1/groups/orders/batch";
const TEXT: (&str, &str) = ("Content-Type", "text/plain;charset=UTF-8");

fn orders() -> Broker {
    let broker = Broker::start(&[]);
    broker.create("orders", "");
    broker
}

/// What a producer is told: `stored`, `duplicate`, or the problem's code with its number.
fn told(answer: &Answer) -> String {
    let body = answer.json();
    let header = |name| answer.number(name).map_or(String::new(), |number| format!(" {number}"));
    match answer.status {
        200 if body["duplicate"] == true => format!("duplicate {}-{}", body["first_offset"], body["last_offset"]),
        200 => format!("stored {}-{}", body["first_offset"], body["last_offset"]),
        409 => format!("{}{}", body["code"].as_str().expect("a code"), header("producer-expected-seq")),
        403 => format!("{}{}", body["code"].as_str().expect("a code"), header("producer-epoch")),
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn a_producer_that_counts_its_requests_stores_each_of_them_once() {
    let mut broker = orders();
    let steps: [(u64, u64, &str, bool); 16] = [
        (0, 1, "producer_unknown 0", false),
        (0, 0, "stored 0-1", false),
        (0, 0, "duplicate 0-1", false),
        (0, 1, "stored 2-3", false),
        (0, 3, "sequence_gap 2", false),
        (0, 2, "stored 4-5", true),
        (0, 1, "duplicate 2-3", false),
        (0, 2, "duplicate 4-5", true),
        (0, 0, "duplicate 0-1", false),
        (5, 1, "sequence_gap 0", false),
        (5, 0, "stored 6-7", false),
        (4, 0, "producer_fenced 5", false),
        (0, 3, "producer_fenced 5", true),
        (5, 0, "duplicate 6-7", false),
        (5, 1, "stored 8-9", false),
        (6, 0, "stored 10-11", false),
    ];
    for (epoch, seq, expected, crash) in steps {
        let (epoch, seq) = (epoch.to_string(), seq.to_string());
        let headers = [TEXT, ("Producer-Id", "p 1"), ("Producer-Epoch", &epoch), ("Producer-Seq", &seq)];
        let answer = broker.ask("POST", BATCH, &headers, "a\nb");
        assert_eq!(told(&answer), expected, "epoch {epoch} seq {seq}");
        if crash {
            broker.restart();
        }
        // The same in the query, as a beacon would; what was stored is a duplicate now.
        let query = format!("{BATCH}?producer=p%201&epoch={epoch}&seq={seq}");
        let again = told(&broker.ask("POST", &query, &[TEXT], "a\nb"));
        assert_eq!(again, expected.replace("stored", "duplicate"), "epoch {epoch} seq {seq} again");
    }
    assert_eq!(broker.get("/v1/groups/orders").json()["tail"], 12);
}

#[test]
fn the_last_64_answers_are_remembered_and_of_older_ones_that_they_were_given() {
    let broker = orders();
    let mut client = broker.client();
    let request = |seq: u64| {
        let target = format!("{EVENTS}?producer=p&seq={seq}");
        Client::request("POST", &target, &[], seq.to_string())
    };
    client.send((0..70).flat_map(request).collect::<Vec<u8>>());
    for seq in 0..70 {
        assert_eq!(told(&client.answer()), format!("stored {seq}-{seq}"));
    }
    client.send((0..70).flat_map(request).collect::<Vec<u8>>());
    for seq in 0..70_u64 {
        let answer = client.answer().json();
        assert_eq!(answer["duplicate"], true, "{seq}");
        let offset = answer.get("first_offset").and_then(Value::as_u64);
        assert_eq!(offset, (seq >= 6).then_some(seq), "{seq}: {answer}");
    }
    assert_eq!(client.get("/v1/groups/orders").json()["tail"], 70);
}

#[test]
fn pipelined_appends_are_answered_in_order_whichever_core_they_belong_to() {
    for cores in ["1", "2"] {
        let broker = Broker::start(&[("cores", cores), ("shards", "2")]);
        broker.create("a", "");
        broker.create("b", "");
        let shards = ["a", "b"].map(|group| broker.get(&format!("/v1/groups/{group}")).json()["shard"].clone());
        assert_ne!(shards[0], shards[1], "a group of each shard");
        let mut next = [0, 0];
        // Several connections, so that with two cores some are accepted by either.
        for connection in 0..8 {
            let mut client = broker.client();
            let groups: Vec<usize> = (0..64).map(|number| (number * 7 + connection) / 3 % 2).collect();
            let request =
                |group: &usize| Client::request("POST", &format!("/v1/groups/{}/events", ["a", "b"][*group]), &[], "x");
            client.send(groups.iter().flat_map(request).collect::<Vec<u8>>());
            for group in groups {
                let answer = client.answer().json();
                assert_eq!(answer["group"], ["a", "b"][group]);
                assert_eq!(answer["first_offset"], next[group], "{cores} cores, connection {connection}");
                next[group] += 1;
            }
            client.assert_in_step("a pipeline");
        }
    }
}

#[test]
fn producers_at_once_get_every_offset_once() {
    let broker = Broker::start(&[("cores", "2")]);
    broker.create("orders", "");
    let offsets: Vec<u64> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..8)
            .map(|producer: u32| {
                let mut client = broker.client();
                scope.spawn(move || {
                    let ask = |number: u32| {
                        let lines = format!("{producer} {number}\n{producer} {number}");
                        client.ask("POST", BATCH, &[TEXT], lines).json()["first_offset"].as_u64().expect("an offset")
                    };
                    (0..50).map(ask).collect::<Vec<u64>>()
                })
            })
            .collect();
        producers.into_iter().flat_map(|producer| producer.join().expect("no panic")).collect()
    });
    let distinct: BTreeSet<u64> = offsets.iter().copied().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), (0..400).map(|number| number * 2).collect::<Vec<_>>());
    let events = broker.get(&format!("{EVENTS}?limit=1000")).events();
    assert_eq!(events.len(), 800);
    assert!(events.chunks(2).all(|pair| pair[0]["data"] == pair[1]["data"]), "batches stay together");
    assert!(events.is_sorted_by_key(|event| event["id"].as_str().map(str::to_owned)), "ids sort like offsets");
    assert!(events.is_sorted_by_key(|event| event["received"].as_str().map(str::to_owned)), "times never decrease");
}
