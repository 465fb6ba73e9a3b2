//! `FOLLOW`: behind its results a query goes on with what becomes durable; with slices, each of them once it is over.
//!
//! A slice is over when an event behind it is there, or its time has passed and nothing that was accepted before is under
//! way any more: then nothing can come that belongs to it.

use super::End;
use super::scan::Scan;
use crate::query::run::Running;
use crate::query::watch::Watch;
use crate::shard::Fault;
use std::time::{Duration, Instant};

/// How soon to ask again whether everything accepted is visible.
const SOON: Duration = Duration::from_millis(5);

/// Goes on from `offset` until the limit, the end of the client, of its token, of the group or of the broker.
pub(super) async fn follow(scan: &mut Scan<'_>, mut offset: u64) -> Result<(), End> {
    scan.work().rows.control("up_to_date", &format!(",\"tail\":{offset}"));
    let heartbeat = scan.context.broker.config.http.heartbeat;
    let mut heard = Instant::now();
    loop {
        if !scan.work().rows.body.is_empty() {
            heard = Instant::now();
        }
        scan.send().await?;
        if scan.work().rows.complete() {
            break;
        }
        let now_us = super::super::auth::now_us();
        let end = scan.work().running.next_end();
        let pause = end.map_or(Duration::MAX, |end| Duration::from_micros(end.saturating_sub(now_us)));
        let pause = pause.min(heartbeat.saturating_sub(heard.elapsed())).max(SOON);
        let woken = wait(scan, offset, pause).await?;
        scan.restart_clock();
        match woken {
            Woken::Events => {
                let tail = scan.cursor(offset).range().await;
                let tail = match tail {
                    Ok(range) => range.tail,
                    Err(Fault::NoGroup) => return away(scan, "deleted").await,
                    Err(fault) => return Err(fault.into()),
                };
                scan.forward(offset, tail).await?;
                offset = tail;
            }
            Woken::Time => {
                let group = scan.entry.table.number;
                let shards = &scan.context.shards;
                let settled = shards
                    .ask(scan.entry.table.shard, move |shard| Box::pin(async move { shard.all_visible(group) }))
                    .await?;
                if let Some((now_us, tail)) = settled
                    && tail == offset
                {
                    let tick = move |running: &mut Running, watch: &Watch<'_>| {
                        running.extend(now_us);
                        Ok(running.tick(now_us, watch)?)
                    };
                    scan.write(tick).await?;
                }
            }
            Woken::Away(reason) => return away(scan, reason).await,
            Woken::Stopped => {
                away(scan, "stopped").await?;
                return Err(End::Stopped);
            }
        }
        // Also where events come that do not meet the predicate.
        if heard.elapsed() >= heartbeat && scan.work().rows.body.is_empty() {
            scan.work().rows.control("heartbeat", &format!(",\"tail\":{offset}"));
        }
    }
    scan.output.close();
    Ok(())
}

/// Says why this is the end.
async fn away(scan: &mut Scan<'_>, reason: &str) -> Result<(), End> {
    scan.work().rows.control("goaway", &format!(",\"reason\":\"{reason}\""));
    scan.send().await?;
    scan.output.exchange.close = true;
    scan.output.close();
    Ok(())
}

enum Woken {
    Events,
    Time,
    Away(&'static str),
    Stopped,
}

async fn wait(scan: &mut Scan<'_>, offset: u64, pause: Duration) -> Result<Woken, End> {
    let drain = scan.context.drain.notified();
    if scan.context.draining() {
        return Ok(Woken::Away("draining"));
    }
    let cursor = scan.cursor(offset);
    Ok(tokio::select! {
        biased;
        () = cursor.wait() => Woken::Events,
        () = drain => Woken::Away("draining"),
        () = scan.listed.stopped() => Woken::Stopped,
        lapse = scan.caller.lapse(scan.context) => Woken::Away(lapse.reason()),
        _ = &mut scan.hang_up => return Err(End::HungUp),
        () = tokio::time::sleep(pause) => Woken::Time,
    })
}
