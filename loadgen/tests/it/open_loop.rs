//! The open loop against a broker that takes its time: what it delays shows, and so does what could not be sent. Only
//! bounds are asked for that hold on the slowest machine.

use serde_json::json;

use crate::fake::{Broker, Fault};
use crate::runs::against;

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
