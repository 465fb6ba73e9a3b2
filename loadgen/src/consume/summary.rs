//! The end of a run on stdout: at most twelve lines, or one JSON object.

use serde_json::{Value, json};

use super::Outcome;
use super::plan::{ConsumePlan, Kind};
use crate::sample::Clock;
use crate::summary::{QUANTILES, SCHEMA, errors, microseconds};
use crate::units::{counted, grouped, nanoseconds, rate};

const MEBIBYTE: f64 = (1 << 20) as f64;
const KIBIBYTE: f64 = 1024.0;

/// The summary for people.
pub(super) fn text(plan: &ConsumePlan, outcome: &Outcome) -> String {
    let (tally, sample) = (&outcome.tally, outcome.tally.sample());
    let seconds = outcome.measured.as_secs_f64();
    let (verdict, reason) = tally.verdict();
    let mut first = vec![verdict.to_string(), reason];
    first.extend(outcome.objectives(plan).iter().map(ToString::to_string));
    first.retain(|part| !part.is_empty());
    let mut lines = vec![first.join("  ")];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
    row("target", format!("{}  group {}", plan.target, plan.group));
    row("load", load(plan));
    match plan.kind {
        Kind::Idle => row("open", counted(tally.open, "live answer", "live answers")),
        Kind::Query { .. } => row("rate", format!("{} queries/s", rate(sample.requests as f64 / seconds))),
        Kind::Read | Kind::Acks { .. } => row(
            "rate",
            format!(
                "{} events/s  {} acks/s  {:.1} MiB/s  ({} events in {seconds:.1} s)",
                rate(sample.events as f64 / seconds),
                rate(tally.acks as f64 / seconds),
                sample.bytes as f64 / MEBIBYTE / seconds,
                grouped(sample.events),
            ),
        ),
    }
    let mut ran = sample.times.ran().peekable();
    if ran.peek().is_some() {
        row("", QUANTILES.map(|(name, _)| format!("{name:>9}")).concat());
    }
    for (clock, times) in ran {
        let times = QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(times.value_at_quantile(q))));
        row(clock.name(), times.concat());
    }
    if let Some((before, during)) = outcome.memory {
        let each = during.saturating_sub(before) as f64 / KIBIBYTE / f64::from(plan.consumers);
        let [before, during] = [before, during].map(|bytes| bytes as f64 / MEBIBYTE);
        row("memory", format!("broker {before:.1} MiB before, {during:.1} MiB with them: {each:.1} KiB each"));
    }
    row("errors", errors(sample));
    let shares: Vec<String> =
        tally.shares.iter().map(|share| format!("{:.0} % of a core", share.running * 100.0)).collect();
    row("generator", shares.join(" + "));
    if plan.subscribes() {
        row(
            "verify",
            format!(
                "{}: {} given, {} lost, {} twice or out of order, {} in gaps",
                if tally.lost + tally.repeated == 0 { "ok" } else { "WRONG" },
                grouped(sample.events),
                grouped(tally.lost),
                grouped(tally.repeated),
                grouped(tally.gaps),
            ),
        );
    }
    lines.join("\n")
}

fn load(plan: &ConsumePlan) -> String {
    let threads = counted(plan.threads.into(), "thread", "threads");
    let who = |one: &str, many: &str| counted(plan.consumers.into(), one, many);
    let consumers = who("consumer", "consumers");
    match plan.kind {
        Kind::Read => {
            format!("{consumers} from {}, at most {} events an answer, {threads}", plan.start, plan.events_max)
        }
        Kind::Acks { per_second } => {
            format!("{consumers}, {per_second} acks a second in all, {threads}")
        }
        Kind::Idle => format!("{} at the tail, {threads}", who("live reader", "live readers")),
        Kind::Query { every } => {
            format!("{}, a query of each every {} s", who("observer", "observers"), every.as_secs_f64())
        }
    }
}

/// The summary for programs.
pub(super) fn json(plan: &ConsumePlan, outcome: &Outcome) -> Value {
    let (tally, sample) = (&outcome.tally, outcome.tally.sample());
    let seconds = outcome.measured.as_secs_f64();
    let (verdict, reason) = tally.verdict();
    let us = |clock: Clock| microseconds(sample.times.of(clock));
    let errors: serde_json::Map<String, Value> =
        sample.errors.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    json!({
        "schema": SCHEMA,
        "profile": "consume",
        "verdict": verdict.to_string(),
        "reason": reason,
        "objectives": outcome.objectives(plan),
        "target": { "url": plan.target.to_string(), "group": plan.group },
        "load": {
            "kind": match plan.kind {
                Kind::Read => "read",
                Kind::Acks { .. } => "acks",
                Kind::Idle => "idle",
                Kind::Query { .. } => "query",
            },
            "consumers": plan.consumers,
            "threads": plan.threads,
            "events_max": plan.events_max,
            "bytes_max": plan.bytes_max,
            "query_every_seconds": match plan.kind { Kind::Query { every } => json!(every.as_secs_f64()), _ => Value::Null },
            "acks_per_second": match plan.kind { Kind::Acks { per_second } => json!(per_second), _ => Value::Null },
        },
        "measured": {
            "seconds": seconds,
            "events": sample.events,
            "bytes": sample.bytes,
            "answers": sample.requests,
            "acks": tally.acks,
            "open": tally.open,
            "events_per_second": sample.events as f64 / seconds,
            "mib_per_second": sample.bytes as f64 / MEBIBYTE / seconds,
            "answer_us": us(Clock::Answer),
            "delivery_us": us(Clock::Delivery),
            "ack_us": us(Clock::Ack),
            "query_us": us(Clock::Query),
        },
        "memory": outcome.memory.map(|(before, during)| json!({
            "before_bytes": before,
            "during_bytes": during,
            "bytes_each": during.saturating_sub(before) as f64 / f64::from(plan.consumers),
        })),
        "errors": errors,
        "generator": {
            "of_a_core": tally.shares.iter().map(|share| share.running).collect::<Vec<_>>(),
            "cpu_seconds": tally.cpu.as_secs_f64(),
        },
        "verify": { "lost": tally.lost, "repeated": tally.repeated, "gaps": tally.gaps, "examples": tally.examples },
    })
}
