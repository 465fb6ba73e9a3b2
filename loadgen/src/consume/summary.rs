//! The end of a run on stdout: at most twelve lines, or one JSON object.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Outcome;
use super::plan::{ConsumePlan, Kind};
use crate::units::{grouped, nanoseconds, rate};

const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
const MEBIBYTE: f64 = (1 << 20) as f64;
const KIBIBYTE: f64 = 1024.0;

/// The summary for people.
pub(super) fn text(plan: &ConsumePlan, outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let seconds = outcome.measured.as_secs_f64();
    let (verdict, reason) = tally.verdict();
    let mut lines = vec![if reason.is_empty() { verdict.to_string() } else { format!("{verdict}  {reason}") }];
    let mut row = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
    row("target", format!("{}  group {}", plan.target, plan.group));
    row("load", load(plan));
    match plan.kind {
        Kind::Idle => row("open", format!("{} live answers", grouped(tally.open))),
        _ => row(
            "rate",
            format!(
                "{} events/s  {} acks/s  {:.1} MiB/s  ({} events in {seconds:.1} s)",
                rate(tally.events as f64 / seconds),
                rate(tally.acks as f64 / seconds),
                tally.bytes as f64 / MEBIBYTE / seconds,
                grouped(tally.events),
            ),
        ),
    }
    let times = [("answer", &tally.answer), ("delivery", &tally.delivery), ("ack", &tally.ack)];
    let times = times.into_iter().filter(|(_, times)| !times.is_empty());
    if times.clone().next().is_some() {
        row("", QUANTILES.map(|(name, _)| format!("{name:>9}")).concat());
    }
    for (name, times) in times {
        row(name, QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(times.value_at_quantile(q)))).concat());
    }
    if let Some((before, during)) = outcome.memory {
        let each = during.saturating_sub(before) as f64 / KIBIBYTE / f64::from(plan.consumers);
        let [before, during] = [before, during].map(|bytes| bytes as f64 / MEBIBYTE);
        row("memory", format!("broker {before:.1} MiB before, {during:.1} MiB with them: {each:.1} KiB each"));
    }
    let errors: Vec<String> =
        tally.errors.iter().map(|(status, count)| format!("{}: {count}", error_name(*status))).collect();
    row("errors", if errors.is_empty() { "none".into() } else { errors.join(", ") });
    let shares: Vec<String> =
        tally.shares.iter().map(|share| format!("{:.0} % of a core", share.running * 100.0)).collect();
    row("generator", shares.join(" + "));
    if plan.kind != Kind::Idle {
        row(
            "verify",
            format!(
                "{}: {} given, {} lost, {} twice or out of order, {} in gaps",
                if tally.lost + tally.repeated == 0 { "ok" } else { "WRONG" },
                grouped(tally.events),
                grouped(tally.lost),
                grouped(tally.repeated),
                grouped(tally.gaps),
            ),
        );
    }
    lines.join("\n")
}

fn error_name(status: u16) -> String {
    if status == 0 { "connection lost".into() } else { status.to_string() }
}

fn load(plan: &ConsumePlan) -> String {
    let threads = if plan.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", plan.threads) };
    let consumers = grouped(plan.consumers.into());
    match plan.kind {
        Kind::Read => {
            format!(
                "{consumers} consumers from {}, at most {} events an answer, {threads}",
                plan.start, plan.events_max
            )
        }
        Kind::Acks { per_second } => {
            format!("{consumers} consumers that ack {per_second} events a second in all, {threads}")
        }
        Kind::Idle => format!("{consumers} live readers at the tail, {threads}"),
    }
}

/// The summary for programs.
pub(super) fn json(plan: &ConsumePlan, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let seconds = outcome.measured.as_secs_f64();
    let (verdict, reason) = tally.verdict();
    let us = |times: &Histogram<u64>| -> Value {
        match times.is_empty() {
            true => Value::Null,
            false => {
                let value = |q| json!(times.value_at_quantile(q) as f64 / 1000.0);
                QUANTILES
                    .iter()
                    .map(|(name, q)| ((*name).to_owned(), value(*q)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
        }
    };
    let errors: serde_json::Map<String, Value> =
        tally.errors.iter().map(|(status, count)| (error_name(*status), json!(count))).collect();
    json!({
        "schema": 1,
        "profile": "consume",
        "verdict": verdict.to_string(),
        "reason": reason,
        "target": { "url": plan.target.to_string(), "group": plan.group },
        "load": {
            "kind": match plan.kind { Kind::Read => "read", Kind::Acks { .. } => "acks", Kind::Idle => "idle" },
            "consumers": plan.consumers,
            "threads": plan.threads,
            "events_max": plan.events_max,
            "bytes_max": plan.bytes_max,
            "acks_per_second": match plan.kind { Kind::Acks { per_second } => json!(per_second), _ => Value::Null },
        },
        "measured": {
            "seconds": seconds,
            "events": tally.events,
            "bytes": tally.bytes,
            "answers": tally.answers,
            "acks": tally.acks,
            "open": tally.open,
            "events_per_second": tally.events as f64 / seconds,
            "mib_per_second": tally.bytes as f64 / MEBIBYTE / seconds,
            "answer_us": us(&tally.answer),
            "delivery_us": us(&tally.delivery),
            "ack_us": us(&tally.ack),
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
