//! The open loop against a broker that takes its time: what it delays shows, and so does what could not be sent. Only
//! bounds are asked for that hold on the slowest machine.

use serde_json::json;

use crate::fake::{Broker, Fault};
use crate::runs::{against, run};

#[test]
fn everything_planned_is_sent_and_verified() {
    for options in [
        "-n 300 -c 4 --rate 1k",
        "-n 300 -c 8 --rate 1k --arrivals constant --threads 3 --pipeline 2",
        "-n 1001 -c 3 -b 10 --rate 10k --format binary",
        "-n 100 -c 2 --rate 1k --producer-id p",
    ] {
        let ran = against(&Broker::honest(), options);
        let events: u64 = options.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!((ran.code, ran.verify("verified")), (0, events), "{options}: {ran:?}");
        assert_eq!((ran.value("/loop"), ran.number("/plan/unsent")), (json!("open"), 0), "{options}: {ran:?}");
        assert_eq!(ran.number("/plan/sends"), ran.number("/measured/requests"), "{options}: {ran:?}");
    }
}

#[test]
fn a_rate_is_never_exceeded() {
    // The last of 100 events at 200 a second is planned for 0.495 s.
    let ran = against(&Broker::honest(), "-n 100 -c 4 --rate 200 --arrivals constant");
    assert!(ran.value("/measured/seconds").as_f64().unwrap() >= 0.495, "{ran:?}");
}

#[test]
fn half_a_second_without_answers_is_seen_by_all_who_were_due_in_it() {
    // A quarter of the 400 sends fall due in the first 250 ms of the stall, and wait for at least the other 250 ms.
    let ran = against(&Broker::with_fault(100, Fault::Delay), "-n 400 -c 1 --rate 400 --arrivals constant");
    assert_eq!((ran.code, ran.number("/plan/sends"), ran.number("/plan/unsent")), (0, 400, 0), "{ran:?}");
    let micros = |pointer: &str| ran.value(pointer).as_f64().unwrap();
    assert!(micros("/measured/response_us/p90") >= 250_000.0, "{ran:?}");
    assert!(micros("/measured/service_us/max") >= 500_000.0, "{ran:?}");
    assert!(ran.number("/plan/late") >= 100, "{ran:?}");
}

#[test]
fn more_than_the_broker_takes_is_overloaded_and_the_rest_is_told() {
    let broker = Broker::with_faults((1..1000).map(|n| (n, Fault::Delay)));
    let ran = against(&broker, "-c 2 -d 2s --rate 100 --arrivals constant");
    assert_eq!((ran.code, ran.value("/verdict")), (0, json!("OVERLOADED")), "{ran:?}");
    assert_eq!(ran.number("/plan/sends"), 200, "{ran:?}");
    // Two connections of two answers a second; those under way at the end come late.
    let (sent, unsent) = (ran.verify("acked"), ran.number("/plan/unsent"));
    assert!(sent <= 10 && sent + unsent == 200, "{ran:?}");
    assert!(
        ran.value("/measured/response_us/p50").as_f64() >= Some(900_000.0),
        "they waited a second on average: {ran:?}"
    );
}

#[test]
fn a_counted_plan_that_ends_late_is_not_valid_and_what_was_late_is_told() {
    // All four fall due in the first 30 ms, and each pair takes half a second.
    let broker = Broker::with_faults((1..10).map(|n| (n, Fault::Delay)));
    let ran = against(&broker, "-c 1 -n 4 --rate 100 --arrivals constant");
    assert_eq!((ran.code, ran.number("/plan/overdue"), ran.number("/plan/unsent")), (0, 3, 0), "{ran:?}");
    // Of so few sends one that a busy machine delays would be the generator's fault.
    assert_ne!(ran.value("/verdict"), json!("VALID"), "{ran:?}");
}

#[test]
fn each_stage_has_its_own_rate_and_clocks() {
    let ran = against(&Broker::honest(), "-c 8 --stages 1s:100,500ms:40 --arrivals constant");
    assert_eq!(ran.number("/plan/sends"), 120, "{ran:?}");
    assert_eq!(ran.value("/stages/1/planned_events_per_second"), json!(40.0), "{ran:?}");
    let events = |stage: usize| ran.number(&format!("/stages/{stage}/events"));
    assert!(events(0) <= 100 && events(1) <= 20, "{ran:?}");
    assert_eq!(events(0) + events(1) + ran.number("/plan/unsent"), 120, "{ran:?}");
    assert!(ran.stderr.contains("stage 2  40 events/s  p50 "), "{ran:?}");
}

#[test]
fn a_missed_objective_is_exit_code_99_and_a_broken_promise_is_worse() {
    for (fault, options, code, told) in [
        (None, "--slo max<1h", 0, "max<1h met ("),
        (None, "--rate 1k --slo p50<1h --slo p99<1us", 99, "p50<1h met ("),
        (Some(Fault::Delay), "--rate 1k --slo p50<1h --slo max<500ms", 99, "max<500ms missed ("),
        (Some(Fault::Corrupt), "--slo p99<1us", 1, "p99<1us missed ("),
    ] {
        let broker = Broker::with_faults(fault.map(|fault| (20, fault)));
        let ran = run(&format!("--url {} --group load -n 50 -c 2 {options}", broker.url()));
        assert_eq!(ran.code, code, "{options}: {ran:?}");
        assert!(ran.stdout.lines().next().unwrap().contains(told), "{options}: {ran:?}");
        assert!(ran.stdout.lines().count() <= 12, "{options}: {ran:?}");
    }
}

#[test]
fn a_search_that_finds_no_rate_says_so() {
    let broker = Broker::honest();
    let ran = run(&format!(
        "--url {} --group load -c 1 -d 300ms --rate 400 --find-max --slo max<1ns --producer-id p --producer-epoch 1",
        broker.url()
    ));
    assert_eq!(ran.code, 99, "{ran:?}");
    for part in
        ["400 events/s  ", "200 events/s  ", "2 events/s  ", "no rate met the objectives; 2 events/s does not: "]
    {
        assert!(ran.stderr.contains(part), "{part:?}: {ran:?}");
    }
}

#[test]
fn what_is_told_of_a_search_is_all_of_its_best_run() {
    let ran = against(&Broker::honest(), "-c 1 --find-max --slo p99<1h --rate 100 -d 200ms");
    let rate = |text: &str| text.split(" events/s").next().unwrap().replace(' ', "");
    let met = ran.stderr.split("highest rate: ").nth(1).map(rate);
    // Where none was good enough, it is the last.
    let tried = ran.stderr.lines().rfind(|line| line.contains("p99<1h")).map(rate);
    let planned = ran.value("/plan/events_per_second").as_f64().unwrap();
    assert_eq!(format!("{planned:.0}"), met.or(tried).unwrap(), "{ran:?}");
}
