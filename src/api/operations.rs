//! What an operator asks: is it alive, is it ready, what is it doing. Metrics are in `metrics.rs`.

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
