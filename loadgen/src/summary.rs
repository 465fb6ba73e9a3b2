//! The end of a run on stdout: at most twelve lines, or one JSON object. Percentiles come from the merged histogram;
//! nothing is averaged.

use serde_json::{Value, json};

use crate::plan::{Extent, Plan};
use crate::results::{Results, Verification};
use crate::units::{grouped, nanoseconds, rate};
use crate::verdict::Share;

/// Grows when a field of the JSON object changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What a closed loop cannot see.
const NOTE: &str = "closed loop: latency is optimistic";

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

const MEBIBYTE: f64 = (1 << 20) as f64;

/// The summary for people.
pub fn text(plan: &Plan, results: &Results) -> String {
    let (verdict, reason) = results.verdict();
    let sample = &results.sample;
    let mut lines = vec![if reason.is_empty() { verdict.to_string() } else { format!("{verdict}  {reason}") }];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
    row("target", format!("{plan_target}  {groups}", plan_target = plan.target, groups = groups(plan)));
    let threads = if plan.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", plan.threads) };
    row("load", format!("{} connections × {} in flight, {threads}, {}", plan.connections, plan.pipeline, events(plan)));
    row(
        "rate",
        format!(
            "{} events/s  {} requests/s  {:.1} MiB/s  ({} events in {:.1} s)",
            rate(results.rate(sample.events as f64)),
            rate(results.rate(sample.requests as f64)),
            results.rate(sample.bytes as f64 / MEBIBYTE),
            grouped(sample.events),
            results.measured.as_secs_f64(),
        ),
    );
    row("", QUANTILES.map(|(name, _)| format!("{name:>9}")).concat());
    row("service", QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(sample.service.value_at_quantile(q)))).concat());
    row("note", NOTE.into());
    row("errors", errors(results));
    let shares: Vec<String> = results.shares.iter().map(|share| share_text(*share)).collect();
    let each = results.cpu_us_per_request(plan).map_or_else(String::new, |us| format!(", {us:.2} µs CPU a request"));
    row("generator", format!("{}{each}", shares.join(" + ")));
    row("verify", verification(results));
    lines.join("\n")
}

fn share_text(share: Share) -> String {
    let [running, waiting] = [share.running, share.waiting].map(|share| share * 100.0);
    // A scheduler's usual hiccups are not worth a word.
    let starved = if waiting < 1.0 { String::new() } else { format!(" (and {waiting:.0} % without one)") };
    format!("{running:.0} % of a core{starved}")
}

fn groups(plan: &Plan) -> String {
    match plan.groups.as_slice() {
        [one] => format!("group {one}"),
        [first, .., last] => format!("{} groups {first} … {last}", plan.groups.len()),
        [] => String::new(),
    }
}

fn events(plan: &Plan) -> String {
    let batch = if plan.batch == 1 { "1 event".to_owned() } else { format!("{} events", plan.batch) };
    format!("{batch} a request ({}) of {}, seed {}", plan.framing.name(), plan.size_text, plan.seed)
}

fn errors(results: &Results) -> String {
    let counted = &results.sample.errors;
    if counted.is_empty() {
        return "none".into();
    }
    let list: Vec<String> = counted.iter().map(|(kind, count)| format!("{kind}: {}", grouped(*count))).collect();
    list.join(", ")
}

fn verification(results: &Results) -> String {
    match &results.verification {
        Verification::Skipped => "not asked for (--no-verify)".into(),
        Verification::Unfinished(why) => format!("unfinished: {why}"),
        Verification::Done(found) => {
            let mut parts = vec![
                format!("{} acked", grouped(found.acked)),
                format!("{} verified", grouped(found.verified)),
                format!("{} lost", grouped(found.lost)),
                format!("{} duplicated", grouped(found.duplicated)),
                format!("{} out of order", grouped(found.out_of_order)),
                format!("{} corrupted", grouped(found.corrupted)),
                format!("{} unknown", grouped(found.unknown)),
            ];
            // Told only when there is something to tell.
            for (count, name) in [
                (found.unknown_stored, "of unknown stored"),
                (found.torn, "torn batches"),
                (found.refused_stored, "refused yet stored"),
                (found.holes, "offsets skipped"),
                (found.foreign, "of others"),
            ] {
                if count > 0 {
                    parts.push(format!("{} {name}", grouped(count)));
                }
            }
            let state = if found.is_right() { "ok" } else { "WRONG" };
            let more = if found.incomplete { " (and more: reading stopped)" } else { "" };
            format!("{state}: {}{more}", parts.join(", "))
        }
    }
}

/// The summary for programs.
pub fn json(plan: &Plan, results: &Results) -> Value {
    let (verdict, reason) = results.verdict();
    let sample = &results.sample;
    let service: serde_json::Map<String, Value> = QUANTILES
        .iter()
        .map(|(name, q)| ((*name).to_owned(), json!(sample.service.value_at_quantile(*q) as f64 / 1000.0)))
        .collect();
    let errors: serde_json::Map<String, Value> =
        sample.errors.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    json!({
        "schema": SCHEMA,
        "profile": "produce",
        "verdict": verdict.to_string(),
        "reason": reason,
        "loop": "closed",
        "note": NOTE,
        "target": { "url": plan.target.to_string(), "groups": plan.groups.len(), "first_group": plan.groups[0] },
        "load": {
            "connections": plan.connections,
            "pipeline": plan.pipeline,
            "threads": plan.threads,
            "batch": plan.batch,
            "format": plan.framing.name(),
            "size": plan.size_text,
            "seed": plan.seed,
            "events": match plan.extent { Extent::Events(events) => json!(events), Extent::Time(_) => Value::Null },
            "warmup_seconds": plan.warmup.as_secs_f64(),
            "producer": plan.producer.as_ref().map(|producer| json!({ "id": producer.name, "epoch": producer.epoch })),
        },
        "measured": {
            "seconds": results.measured.as_secs_f64(),
            "events": sample.events,
            "requests": sample.requests,
            "bytes": sample.bytes,
            "events_per_second": results.rate(sample.events as f64),
            "requests_per_second": results.rate(sample.requests as f64),
            "mib_per_second": results.rate(sample.bytes as f64 / MEBIBYTE),
            "events_by_second": results.points.iter().map(|point| point.events).collect::<Vec<_>>(),
            "service_us": service,
        },
        "errors": errors,
        "refused_requests": results.refused,
        "first_refusal": results.first_refusal,
        "unknown_requests": results.unknown,
        "generator": {
            "busy": results.shares.iter().map(|share| share.running).collect::<Vec<_>>(),
            "without_core": results.shares.iter().map(|share| share.waiting).collect::<Vec<_>>(),
            "cpu_seconds": results.cpu.as_secs_f64(),
            "cpu_us_per_request": results.cpu_us_per_request(plan),
        },
        "verify": verification_json(results),
    })
}

fn verification_json(results: &Results) -> Value {
    match &results.verification {
        Verification::Skipped => json!({ "state": "skipped" }),
        Verification::Unfinished(why) => json!({ "state": "unfinished", "why": why }),
        Verification::Done(found) => json!({
            "state": if found.is_right() { "ok" } else { "wrong" },
            "acked": found.acked,
            "verified": found.verified,
            "lost": found.lost,
            "duplicated": found.duplicated,
            "out_of_order": found.out_of_order,
            "corrupted": found.corrupted,
            "unknown": found.unknown,
            "unknown_stored": found.unknown_stored,
            "torn": found.torn,
            "refused_stored": found.refused_stored,
            "holes": found.holes,
            "foreign": found.foreign,
            "incomplete": found.incomplete,
            "examples": found.examples,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::tests::plan;
    use crate::record::{ErrorKind, Sample};
    use crate::verify::Findings;

    fn results() -> Results {
        let mut sample = Sample { requests: 1000, events: 2000, bytes: 2 << 20, ..Sample::default() };
        for latency in 1..=1000 {
            sample.service.record(latency * 1_000).unwrap();
        }
        sample.errors.insert(ErrorKind::Status(503), 2);
        sample.errors.insert(ErrorKind::ConnectionLost, 1);
        let findings = Findings { acked: 2000, verified: 2000, unknown: 2, unknown_stored: 1, ..Findings::default() };
        Results {
            sample,
            measured: Duration::from_secs(2),
            points: Vec::new(),
            acked_events: 2000,
            refused: 0,
            first_refusal: None,
            unknown: 1,
            shares: vec![Share { running: 0.5, waiting: 0.0 }, Share { running: 0.25, waiting: 0.5 }],
            cpu: Duration::from_millis(1500),
            wall: Duration::from_secs(2),
            silent: false,
            verification: Verification::Done(findings),
        }
    }

    #[test]
    fn the_text_says_everything_in_at_most_twelve_lines() {
        let text = text(&plan(), &results());
        assert!(text.lines().count() <= 12, "{text}");
        for part in [
            "UNSTABLE  1 requests of unknown outcome",
            "http://127.0.0.1:4437  group load",
            "1 connections × 1 in flight, 1 thread, 1 event a request (single) of 64 B, seed 1",
            "1 000 events/s  500 requests/s  1.0 MiB/s  (2 000 events in 2.0 s)",
            "p50      p90      p99    p99.9      max",
            "500 µs   900 µs   990 µs   999 µs  1.00 ms",
            "closed loop: latency is optimistic",
            "503: 2, connection lost: 1",
            "50 % of a core + 25 % of a core (and 50 % without one), 750.00 µs CPU a request",
            "ok: 2 000 acked, 2 000 verified, 0 lost, 0 duplicated, 0 out of order, 0 corrupted, 2 unknown, 1 of unknown stored",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_json_object_holds_the_same() {
        let value = json(&plan(), &results());
        for (pointer, expected) in [
            ("/schema", json!(1)),
            ("/verdict", json!("UNSTABLE")),
            ("/measured/events_per_second", json!(1000.0)),
            ("/errors/503", json!(2)),
            ("/errors/connection lost", json!(1)),
            ("/verify/state", json!("ok")),
            ("/verify/unknown_stored", json!(1)),
            ("/note", json!(NOTE)),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert!((value["measured"]["service_us"]["p50"].as_f64().unwrap() - 500.0).abs() < 1.0);
    }

    #[test]
    fn what_could_not_be_verified_is_said() {
        let skipped = Results { verification: Verification::Skipped, ..results() };
        assert!(text(&plan(), &skipped).ends_with("not asked for (--no-verify)"));
        let unfinished = Results { verification: Verification::Unfinished("gone".into()), ..results() };
        assert!(text(&plan(), &unfinished).starts_with("UNSTABLE  gone"));
        let silent = Results { silent: true, ..results() };
        assert!(text(&plan(), &silent).starts_with("UNSTABLE  the broker fell silent"));
    }
}
