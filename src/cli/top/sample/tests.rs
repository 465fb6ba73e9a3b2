//! Two looks at a broker as a script would have them, and what comes of the time between.

use super::*;
use crate::cli::fake::{Fake, answer};
use std::time::Duration;

/// A look, taken `seconds` after `start`.
pub(in crate::cli::top) fn sample(start: Instant, seconds: u64, metrics: &str, consumers: &Value) -> Sample {
    let status = json!({
        "version": "0.1.0", "uptime_seconds": 5_400, "draining": false, "connections": 12, "groups": 3,
        "resident_bytes": 20 << 20,
        "disk": { "free_bytes": 50_u64 << 30, "reserve_bytes": 256 << 20, "total_bytes": 100_u64 << 30 },
        "shards": [{ "shard": 0, "fault": null }],
    });
    let script = [
        answer("200 OK", "", metrics),
        answer("200 OK", "", &status.to_string()),
        answer("200 OK", "", &json!({ "consumers": consumers }).to_string()),
    ];
    let fake = Fake::new(&script);
    let sample = Sample::take(&fake.client()).unwrap();
    let asked: Vec<String> = (0..3).map(|_| fake.asked().line).collect();
    assert_eq!(asked, ["GET /metrics HTTP/1.1", "GET /v1/status HTTP/1.1", "GET /v1/consumers?limit=1000 HTTP/1.1"]);
    Sample { at: start + Duration::from_secs(seconds), ..sample }
}

pub(in crate::cli::top) fn consumer(name: &str, state: &str, events: u64, seconds: f64) -> Value {
    let session = (state == "live").then(|| json!({ "streaming": true }));
    json!({
        "group": "orders", "consumer": name, "state": state, "reason": (state == "stuck").then_some("no_ack"),
        "lag": { "events": events, "bytes": events * 100, "seconds": seconds }, "rate_1m": 12.5,
        "cursor": { "next": 7 }, "session": session, "standbys": 0,
    })
}

pub(in crate::cli::top) fn metrics(events: u64, commits: [u64; 3], tail: u64) -> String {
    let [fast, slow, all] = commits;
    format!(
        "# TYPE eddyline_events_produced counter\n\
         eddyline_events_produced_total{{shard=\"0\"}} {events}\n\
         eddyline_events_produced_total{{shard=\"1\"}} {events}\n\
         eddyline_produced_bytes_total{{shard=\"0\"}} {}\n\
         eddyline_events_delivered_total {tail}\n\
         eddyline_consumer_acked_events_total{{shard=\"0\"}} {tail}\n\
         eddyline_commits_total{{shard=\"0\"}} {all}\n\
         eddyline_commit_seconds_bucket{{le=\"0.001\",shard=\"0\"}} {fast}\n\
         eddyline_commit_seconds_bucket{{le=\"0.002\",shard=\"0\"}} {slow}\n\
         eddyline_commit_seconds_bucket{{le=\"+Inf\",shard=\"0\"}} {all}\n\
         eddyline_group_tail{{group=\"orders\"}} {tail}\n\
         eddyline_group_tail{{group=\"quiet\"}} 9\n\
         eddyline_consumers{{state=\"live\"}} 40\n\
         eddyline_consumers{{state=\"stuck\"}} 2\n\
         odd line\n# EOF\n",
        events * 1024
    )
}

#[test]
fn rates_are_what_the_counters_grew_in_the_time_between() {
    let start = Instant::now();
    let none = json!([]);
    let before = sample(start, 0, &metrics(100, [10, 10, 10], 1_000), &none);
    let after = sample(start, 2, &metrics(300, [100, 110, 110], 1_500), &none);
    let tick = Tick::between(&before, &after);
    let rates = tick.rates.unwrap();
    assert_eq!((rates.events_in, rates.bytes_in, rates.events_out), (200.0, 102_400.0, 250.0));
    assert_eq!((rates.acked, rates.commits), (250.0, 50.0));
    // 90 of 100 took at most 1 ms, so the 99th is nine tenths of the way to 2 ms.
    let p99 = rates.commit_p99.unwrap();
    assert!((p99 - 0.0019).abs() < 1e-9, "{p99}");
    assert_eq!(tick.growing, [Growing { group: "orders".to_owned(), tail: 1_500.0, rate: 250.0 }]);
    assert_eq!(tick.consumers_all, 42);
    assert_eq!((tick.json()["events_in"].as_f64(), tick.json()["worst"].clone()), (Some(200.0), Value::Null));

    // A broker that began anew counts from 0.
    let rates = Tick::between(&after, &before).rates.unwrap();
    assert!(rates.events_in > 0.0 && rates.commits > 0.0, "{rates:?}");
    let rates = Tick::between(&after, &sample(start, 3, &metrics(300, [100, 110, 110], 1_500), &none)).rates.unwrap();
    assert_eq!((rates.events_in, rates.commit_p99), (0.0, None));
    assert_eq!(Tick::alone(&after).json()["events_in"], Value::Null, "one look says nothing about a second");
}

#[test]
fn consumers_stand_furthest_behind_first() {
    let consumers = json!([
        consumer("a", "idle", 0, 0.0),
        consumer("b", "stuck", 5, 90.0),
        consumer("c", "catching_up", 900, 3.0),
        consumer("d", "catching_up", 901, 3.0),
    ]);
    let tick = Tick::alone(&sample(Instant::now(), 0, &metrics(0, [0; 3], 0), &consumers));
    let names: Vec<&str> = tick.rows.iter().map(|row| row.consumer.as_str()).collect();
    assert_eq!(names, ["b", "d", "c", "a"]);
    assert_eq!(tick.worst().unwrap().consumer, "b");
    let json = tick.json();
    assert_eq!((&json["worst"]["consumer"], &json["consumers"][1]["consumer"]), (&json!("b"), &json!("d")));
    assert_eq!(quantile(&[], 0.5), None);
    assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 4.0)], 0.5), Some(1.0), "no more is known than the last bound");
}
