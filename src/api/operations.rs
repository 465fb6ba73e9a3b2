//! What an operator asks: is it alive, is it ready, what is it doing.

use super::Context;
use super::exchange::Exchange;
use crate::io::system;
use crate::shard::ShardStatus;
use serde_json::json;
use std::rc::Rc;

/// Answers `/livez`: the process answers, whatever else is wrong.
pub fn live(exchange: &mut Exchange) {
    exchange.json(200, &json!({ "status": "alive" }));
}

/// Answers `/readyz`: 200 when writes would be taken, else 503 with the reasons.
pub async fn ready(context: &Rc<Context>, exchange: &mut Exchange) {
    let mut reasons = Vec::new();
    if context.draining() {
        reasons.push(json!({ "code": "draining", "detail": "the broker is shutting down" }));
    }
    for shard in shards(context).await {
        if let Some(fault) = shard.fault {
            reasons.push(json!({ "code": "shard_stopped", "shard": shard.shard, "detail": fault }));
        }
        if shard.clock_suspect {
            reasons.push(json!({ "code": "clock_suspect", "shard": shard.shard, "detail": "the wall clock jumped and is not followed yet" }));
        }
    }
    let reserve = context.broker.config.storage.reserve;
    match system::disk_space(&context.broker.data) {
        Ok(space) if space.free <= reserve => {
            reasons.push(json!({ "code": "disk_full", "detail": format!("{} bytes are free, {reserve} are kept in reserve", space.free) }));
        }
        Ok(_) => {}
        Err(error) => reasons.push(json!({ "code": "disk_unreadable", "detail": error.to_string() })),
    }
    // A clock that jumped is worth telling, and no reason to take nothing.
    let ready = reasons.iter().all(|reason| reason["code"] == "clock_suspect");
    exchange.json(if ready { 200 } else { 503 }, &json!({ "ready": ready, "reasons": reasons }));
}

/// Answers `/metrics`.
pub fn metrics(context: &Rc<Context>, exchange: &mut Exchange) {
    let mut text = context.broker.stats.render();
    let (resident, cpu_us) = system::usage();
    let space = system::disk_space(&context.broker.data).ok();
    let mut gauge = |name: &str, help: &str, value: String| {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let family = name.strip_suffix("_total").unwrap_or(name);
        text.insert_str(
            text.rfind("# EOF").unwrap_or(text.len()),
            &format!("# HELP {family} {help}.\n# TYPE {family} {kind}\n{name} {value}\n"),
        );
    };
    gauge("eddyline_groups", "Groups", context.lookup.directory().count().to_string());
    gauge("process_resident_memory_bytes", "Resident memory", resident.to_string());
    gauge("process_cpu_seconds_total", "CPU time used", format!("{:.6}", cpu_us as f64 / 1e6));
    if let Some(space) = space {
        gauge("eddyline_disk_free_bytes", "Free space of the data directory's disk", space.free.to_string());
        gauge(
            "eddyline_disk_reserve_bytes",
            "Space that is left alone",
            context.broker.config.storage.reserve.to_string(),
        );
    }
    exchange.reply(200).body("application/openmetrics-text; version=1.0.0; charset=utf-8", text.as_bytes());
}

/// Answers `/v1/status`.
pub async fn status(context: &Rc<Context>, exchange: &mut Exchange) {
    let broker = &context.broker;
    let (resident, _) = system::usage();
    let space = system::disk_space(&broker.data).ok();
    let answer = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": broker.started.elapsed().as_secs(),
        "draining": context.draining(),
        "data": broker.data,
        "disk": space.map(|space| json!({
            "total_bytes": space.total,
            "free_bytes": space.free,
            "reserve_bytes": broker.config.storage.reserve,
        })),
        "resident_bytes": resident,
        "groups": context.lookup.directory().count(),
        "connections": broker.stats.connections.get(),
        "shards": shards(context).await,
    });
    exchange.json(200, &answer);
}

async fn shards(context: &Rc<Context>) -> Vec<ShardStatus> {
    let mut all = Vec::new();
    for number in 0..context.shards.count() {
        all.push(context.shards.ask(number as u16, |shard| Box::pin(async move { shard.status() })).await);
    }
    all
}
