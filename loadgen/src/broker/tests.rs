//! Metrics as a broker tells them, and what comes of two looks at them.

use super::*;

fn metrics(events: u64, commits: u64, fast: u64, cpu: f64) -> String {
    format!(
        "# HELP eddyline_events_produced Events taken.\n# TYPE eddyline_events_produced counter\n\
         eddyline_events_produced_total{{shard=\"0\"}} {events}\n\
         eddyline_events_produced_total{{shard=\"1\"}} 5\n\
         eddyline_produced_bytes_total{{shard=\"0\"}} {}\n\
         eddyline_commits_total{{shard=\"0\"}} {commits}\n\
         eddyline_commit_seconds_sum{{shard=\"0\"}} {}\n\
         eddyline_commit_seconds_count{{shard=\"0\"}} {commits}\n\
         eddyline_commit_seconds_bucket{{le=\"0.0001\",shard=\"0\"}} {fast}\n\
         eddyline_commit_seconds_bucket{{shard=\"0\",le=\"0.0002\"}} {commits}\n\
         eddyline_commit_seconds_bucket{{le=\"+Inf\",shard=\"0\"}} {commits}\n\
         eddyline_group_tail{{group=\"a b\"}} 17\n\
         what is this\n\
         process_resident_memory_bytes 25165824\n\
         process_cpu_seconds_total {cpu}\n# EOF\n",
        events * 100,
        commits as f64 * 0.000_15,
    )
}

fn look(text: &str, start: Instant, ms: u64) -> Look {
    Look::parse(text, start + Duration::from_millis(ms)).unwrap()
}

#[test]
fn two_looks_make_a_span() {
    let start = Instant::now();
    let before = look(&metrics(1_000, 100, 100, 1.0), start, 0);
    let after = look(&metrics(5_000, 500, 300, 1.8), start, 2_000);
    let span = Span::between(&before, &after, start + Duration::from_millis(250));
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-9;
    for (name, found, expected) in [
        ("at", span.at_s, -0.25),
        ("length", span.length_s, 2.0),
        ("in", span.events_in_per_second, 2_000.0),
        ("bytes", span.bytes_in_per_second, 200_000.0),
        ("commits", span.commits_per_second, 200.0),
        ("events of each", span.events_per_commit.unwrap(), 10.0),
        ("mean", span.commit_mean_ns.unwrap(), 150_000.0),
        // Half of the 400 new ones took at most 0.1 ms, all at most 0.2.
        ("p50", span.commit_p50_ns.unwrap(), 100_000.0),
        ("p99", span.commit_p99_ns.unwrap(), 198_000.0),
        ("in flight", span.commits_in_flight, 0.03),
        ("cpu", span.cpu_of_a_core, 0.4),
        ("cpu of each", span.cpu_us_per_event.unwrap(), 200.0),
        ("memory", span.resident_bytes, 25_165_824.0),
    ] {
        assert!(near(found, expected), "{name}: {found} and not {expected}");
    }
    let still = Span::between(&after, &after, start);
    assert_eq!((still.events_per_commit, still.commit_mean_ns, still.commit_p99_ns), (None, None, None));
    // A broker that was started again counts from zero.
    let again = Span::between(&after, &look(&metrics(100, 10, 10, 0.1), start, 3_000), start);
    assert!(near(again.commits_per_second, 10.0) && near(again.cpu_of_a_core, 0.1), "{again:?}");
}

#[test]
fn the_measured_part_begins_at_the_last_look_before_it() {
    let start = Instant::now();
    let text = metrics(1, 1, 1, 1.0);
    let mut looks = Looks(Ok(vec![look(&text, start, 0)]));
    for ms in [1_000, 2_000, 3_000, 3_100] {
        looks.add(Ok(look(&text, start, ms)));
        looks.add(Err("busy".to_owned()));
    }
    let Broker::Told { whole, series } = looks.since(start + Duration::from_millis(1_500)) else { panic!("it told") };
    let spans: Vec<_> = series.iter().map(|span| ((span.at_s * 1e3).round(), (span.length_s * 1e3).round())).collect();
    assert_eq!(spans, [(-500.0, 1_000.0), (500.0, 1_100.0)], "a tenth of a second belongs to the one before it");
    assert_eq!((whole.at_s * 1e3, whole.length_s * 1e3), (-500.0, 2_100.0));
}

#[test]
fn a_long_run_has_few_spans() {
    let start = Instant::now();
    let text = metrics(1, 1, 1, 1.0);
    let mut looks = Looks(Ok(vec![look(&text, start, 0)]));
    (1..40_000).for_each(|second| looks.add(Ok(look(&text, start, second * 1_000))));
    let Broker::Told { series, .. } = looks.since(start) else { panic!("it told") };
    assert!((5_400..9_000).contains(&series.len()), "{}", series.len());
}

#[test]
fn a_target_that_is_no_eddyline_is_told_as_such() {
    assert!(Look::parse("# TYPE go_goroutines gauge\ngo_goroutines 8\n", Instant::now()).is_none());
    let silent = Broker::Silent { why: "the broker refused to tell its metrics: 404".to_owned() };
    assert_eq!(silent.line(), "note: the broker's metrics are unknown: the broker refused to tell its metrics: 404");
    let value = serde_json::to_value(&silent).unwrap();
    assert_eq!(value["state"], "silent");
}
