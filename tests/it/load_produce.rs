//! `loadgen produce` against the broker: what it sends in every manner is found again, keys included.

use crate::broker::Broker;
use crate::program::{loadgen, run};
use serde_json::{Value, json};

fn produce(broker: &Broker, options: &str) -> Value {
    let url = broker.url();
    let mut arguments = vec!["produce", "--url", &url, "--group", "load", "-o", "json"];
    arguments.extend(options.split(' '));
    let ended = run(loadgen(), &arguments, "");
    let summary: Value = serde_json::from_slice(&ended.with(0).stdout).expect("a summary");
    assert_eq!(summary["verify"]["state"], "ok", "{options}: {summary}");
    assert_eq!(summary["errors"], json!({}), "{options}: {summary}");
    summary
}

#[test]
fn keys_sizes_and_contents_come_back_as_they_were_sent() {
    let broker = Broker::start(&[]);
    for options in [
        "-n 300 -c 3 --keys 20 --key-spread zipf -s 100..1000 --entropy 3",
        "-n 3000 -c 3 -b 100 --format binary --keys 1k",
        "-n 3000 -c 3 -b 100 --format ndjson --keys 5 --rate 100k",
    ] {
        let summary = produce(&broker, options);
        assert_eq!(summary["verify"]["verified"], summary["measured"]["events"], "{options}: {summary}");
    }
}

#[test]
fn browsers_post_without_a_preflight_and_are_deduplicated() {
    let broker = Broker::start(&[]);
    let summary = produce(&broker, "-n 500 -c 10 --browser-like --rate 10k");
    assert_eq!((&summary["verify"]["verified"], &summary["loop"]), (&json!(500), &json!("open")), "{summary}");
    let again = "-n 500 -c 10 --browser-like --rate 10k --producer-id tab --producer-epoch 3 --seed 1 --no-verify";
    let url = broker.url();
    let tail = || broker.get("/v1/groups/load").json()["tail"].as_u64().unwrap();
    let mut tails = vec![tail()];
    for _ in 0..2 {
        let mut arguments = vec!["produce", "--url", &url, "--group", "load"];
        arguments.extend(again.split(' '));
        run(loadgen(), &arguments, "").with(0);
        tails.push(tail());
    }
    assert_eq!((tails[1] - tails[0], tails[2] - tails[1]), (500, 0), "the second time everything is known");
    let foreign = ["produce", "--url", &url, "--group", "load", "--browser-like", "--origin", "https://shop.example"];
    let refused = run(loadgen(), &foreign, "");
    let refused = refused.with(4);
    assert!(refused.stderr.contains("403 origin_not_allowed"), "{}", refused.stderr);
}

#[test]
fn pages_of_an_origin_that_the_broker_allows_may_post() {
    let broker = Broker::start(&[("http.cors", "[\"https://shop.example\"]")]);
    let summary = produce(&broker, "-n 100 -c 5 --browser-like --rate 10k --origin https://shop.example");
    assert_eq!(summary["verify"]["verified"], json!(100), "{summary}");
}
