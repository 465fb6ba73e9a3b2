//! The end of a run on stdout: at most twelve lines, or one JSON object. Percentiles come from the merged histogram;
//! nothing is averaged.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::pace::LATE;
use crate::plan::{Extent, Plan};
use crate::results::{Results, Verification};
use crate::sample::{Clock, Sample};
use crate::units::{counted, grouped, nanoseconds, rate};
use crate::verdict::Share;

/// Grows when a field of the JSON object changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// What a closed loop cannot see.
const NOTE: &str = "closed loop: latency is optimistic";

pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

const MEBIBYTE: f64 = (1 << 20) as f64;

/// The summary for people.
pub fn text(plan: &Plan, results: &Results) -> String {
    let (verdict, reason) = results.verdict();
    let sample = &results.sample;
    let mut first = vec![verdict.to_string(), reason];
    first.extend(results.objectives(plan).iter().map(ToString::to_string));
    first.retain(|part| !part.is_empty());
    let mut lines = vec![first.join("  ")];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
    let connections = counted(plan.connections.into(), "connection", "connections");
    let threads = counted(plan.threads.into(), "thread", "threads");
    row("target", format!("{}  {}", plan.target, groups(plan)));
    row("load", format!("{connections} × {} in flight, {threads}, {}", plan.pipeline, events(plan)));
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
    let mut clock = |name: &str, times: &Histogram<u64>| {
        row(name, QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(times.value_at_quantile(q)))).concat());
    };
    if results.punctuality.is_some() {
        clock("response", sample.times.of(Clock::Response));
    }
    clock("service", sample.times.of(Clock::Service));
    if results.punctuality.is_some() {
        clock("send lag", sample.times.of(Clock::SendLag));
    }
    if results.delivered.is_some() {
        clock("end-to-end", sample.times.of(Clock::EndToEnd));
    }
    row("plan", pacing(plan, results));
    let counted = errors(sample);
    if results.delivered.is_none() || !results.sample.errors.is_empty() {
        row("errors", counted);
    }
    let shares: Vec<String> = results.shares.iter().map(|share| share_text(*share)).collect();
    let each = results.cpu_us_per_request(plan).map_or_else(String::new, |us| format!(", {us:.2} µs CPU a request"));
    row("generator", format!("{}{each}", shares.join(" + ")));
    row("verify", verification(results));
    lines.join("\n")
}

/// How sends were planned, and how the plan was kept.
fn pacing(plan: &Plan, results: &Results) -> String {
    match (&plan.open_loop, results.punctuality) {
        (Some(open), Some(kept)) => format!(
            "{} events/s ({}{}): {} sends, {} late by more than {} ({} by the generator), {}{} never sent",
            rate(plan.planned_rate(open)),
            open.arrivals.name(),
            if open.stages.len() > 1 { format!(", the first of {} stages", open.stages.len()) } else { String::new() },
            grouped(kept.planned),
            grouped(kept.late),
            nanoseconds(LATE.as_nanos() as u64),
            grouped(kept.late_by_generator),
            if kept.overdue > 0 { format!("{} after its end, ", grouped(kept.overdue)) } else { String::new() },
            grouped(kept.unsent),
        ),
        _ => NOTE.into(),
    }
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
    let batch = counted(plan.batch.into(), "event", "events");
    format!("{batch} a request ({}) of {}, seed {}", plan.framing.name(), plan.size_text, plan.seed)
}

/// What went wrong and how often.
pub(crate) fn errors(sample: &Sample) -> String {
    if sample.errors.is_empty() {
        return "none".into();
    }
    let list: Vec<String> = sample.errors.iter().map(|(kind, count)| format!("{kind}: {}", grouped(*count))).collect();
    list.join(", ")
}

pub(crate) fn verification(results: &Results) -> String {
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

/// Each stage of an open loop that has several, as it was planned and as it went.
fn stages(plan: &Plan, results: &Results) -> Vec<Value> {
    let planned = plan.open_loop.iter().flat_map(|open| &open.stages);
    let stages = planned.zip(&results.stages).map(|(stage, sample)| {
        json!({
            "seconds": stage.length.as_secs_f64(),
            "planned_events_per_second": stage.requests_per_second * f64::from(plan.batch),
            "events": sample.events,
            "response_us": microseconds(sample.times.of(Clock::Response)),
            "service_us": microseconds(sample.times.of(Clock::Service)),
            "send_lag_us": microseconds(sample.times.of(Clock::SendLag)),
        })
    });
    stages.collect()
}

/// The stages for people, a line each.
pub fn stage_lines(plan: &Plan, results: &Results) -> Vec<String> {
    let planned = plan.open_loop.iter().flat_map(|open| &open.stages);
    let stages = planned.zip(&results.stages).enumerate().map(|(number, (stage, sample))| {
        let times = QUANTILES
            .map(|(name, q)| format!("{name} {}", nanoseconds(sample.times.of(Clock::Response).value_at_quantile(q))));
        let events_per_second = stage.requests_per_second * f64::from(plan.batch);
        format!("stage {}  {} events/s  {}", number + 1, rate(events_per_second), times.join("  "))
    });
    stages.collect()
}

/// Percentiles by name; null of a clock that did not run.
pub(crate) fn microseconds(times: &Histogram<u64>) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let value = |q: f64| json!(times.value_at_quantile(q) as f64 / 1000.0);
    QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), value(*q))).collect::<serde_json::Map<_, _>>().into()
}

/// The summary for programs.
pub fn json(plan: &Plan, results: &Results) -> Value {
    let (verdict, reason) = results.verdict();
    let sample = &results.sample;
    let errors: serde_json::Map<String, Value> =
        sample.errors.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    json!({
        "schema": SCHEMA,
        "profile": if results.delivered.is_some() { "e2e" } else { "produce" },
        "verdict": verdict.to_string(),
        "reason": reason,
        "loop": if results.punctuality.is_some() { "open" } else { "closed" },
        "note": if results.punctuality.is_some() { Value::Null } else { json!(NOTE) },
        "plan": plan.open_loop.as_ref().zip(results.punctuality).map(|(open, kept)| json!({
            "events_per_second": plan.planned_rate(open),
            "arrivals": open.arrivals.name(),
            "sends": kept.planned,
            "late": kept.late,
            "late_by_generator": kept.late_by_generator,
            "overdue": kept.overdue,
            "unsent": kept.unsent,
        })),
        "objectives": results.objectives(plan),
        "stages": stages(plan, results),
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
            "response_us": microseconds(sample.times.of(Clock::Response)),
            "service_us": microseconds(sample.times.of(Clock::Service)),
            "send_lag_us": microseconds(sample.times.of(Clock::SendLag)),
        },
        "errors": errors,
        "delivered": results.delivered.as_ref().map(|delivered| json!({
            "consumers": delivered.consumers,
            "events": delivered.events,
            "untimed": delivered.untimed,
            "lost": delivered.lost,
            "repeated": delivered.repeated,
            "end_to_end_us": microseconds(sample.times.of(Clock::EndToEnd)),
        })),
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
    use crate::pace::Punctuality;
    use crate::plan::{OpenLoop, tests::plan};
    use crate::sample::ErrorKind;
    use crate::schedule::{Arrivals, Stage};
    use crate::verify::Findings;

    fn results() -> Results {
        let mut sample = Sample { requests: 1000, events: 2000, bytes: 2 << 20, ..Sample::default() };
        for latency in 1..=1000 {
            sample.times.note(Clock::Service, latency * 1_000);
        }
        sample.errors.insert(ErrorKind::Status(503), 2);
        sample.errors.insert(ErrorKind::ConnectionLost, 1);
        let findings = Findings { acked: 2000, verified: 2000, unknown: 2, unknown_stored: 1, ..Findings::default() };
        Results {
            sample,
            stages: Vec::new(),
            measured: Duration::from_secs(2),
            points: Vec::new(),
            acked_events: 2000,
            refused: 0,
            first_refusal: None,
            unknown: 1,
            punctuality: None,
            delivered: None,
            shares: vec![Share { running: 0.5, waiting: 0.0 }, Share { running: 0.25, waiting: 0.5 }],
            cpu: Duration::from_millis(1500),
            wall: Duration::from_secs(2),
            silent: false,
            stuck: None,
            broker: None,
            verification: Verification::Done(findings),
        }
    }

    #[test]
    fn the_text_says_everything_in_at_most_twelve_lines() {
        let text = text(&plan(), &results());
        assert!(text.lines().count() <= 12, "{text}");
        for part in [
            "UNSTABLE  1 request of unknown outcome",
            "http://127.0.0.1:4437  group load",
            "1 connection × 1 in flight, 1 thread, 1 event a request (single) of 64 B, seed 1",
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
    fn the_open_loop_shows_three_clocks_and_how_its_plan_was_kept() {
        let stages = vec![Stage { length: Duration::ZERO, requests_per_second: 2_500.0 }];
        let plan = Plan { open_loop: Some(OpenLoop { stages, arrivals: Arrivals::Poisson }), batch: 2, ..plan() };
        let mut results = results();
        results.punctuality =
            Some(Punctuality { planned: 5_000, late: 7, late_by_generator: 2, overdue: 3, unsent: 1 });
        results.sample.times.note(Clock::Response, 7_000);
        results.sample.times.note(Clock::SendLag, 2_000);
        let text = text(&plan, &results);
        assert!(text.lines().count() <= 12, "{text}");
        for part in [
            "response     7.00 µs",
            "service       500 µs",
            "send lag     2.00 µs",
            "5 000 events/s (poisson): 5 000 sends, 7 late by more than 1.00 ms (2 by the generator), 3 after its end, 1 never sent",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let value = json(&plan, &results);
        assert_eq!((&value["loop"], &value["note"]), (&json!("open"), &Value::Null));
        assert_eq!((&value["plan"]["late"], &value["plan"]["events_per_second"]), (&json!(7), &json!(5000.0)));
        assert_eq!(value["measured"]["response_us"]["max"].as_f64().unwrap().round(), 7.0);
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
