//! `FOLLOW`: behind its results a query goes on with what becomes durable; with slices, each of them once it is over.
//!
//! A slice is over when an event behind it is there, or its time has passed and nothing that was accepted before is under
//! way any more: then nothing can come that belongs to it.

use super::End;
use super::output::Output;
use super::scan::Scan;
use crate::query::run::Running;
use crate::shard::Fault;
use std::time::Duration;

/// How soon to ask again whether everything accepted is visible.
const SOON: Duration = Duration::from_millis(5);

/// Goes on from `offset` until the limit, the end of the client, of its token, of the group or of the broker.
pub(super) async fn follow(
    scan: &mut Scan<'_>,
    running: &mut Running<'_>,
    output: &mut Output<'_>,
    mut offset: u64,
) -> Result<(), End> {
    output.control("up_to_date", &format!(",\"tail\":{offset}"));
    loop {
        output.send().await?;
        if output.full() {
            break;
        }
        let now_us = super::super::auth::now_us();
        let pause = running.tick(0).map_or(Duration::MAX, |end| Duration::from_micros(end.saturating_sub(now_us)));
        let pause = pause.min(scan.context.broker.config.http.heartbeat).max(SOON);
        match wait(scan, offset, pause).await? {
            Woken::Events => {
                let tail = scan.cursor(offset).range().await;
                let tail = match tail {
                    Ok(range) => range.tail,
                    Err(Fault::NoGroup) => return away(output, "deleted").await,
                    Err(fault) => return Err(fault.into()),
                };
                running.extend(super::super::auth::now_us());
                scan.forward(running, offset, tail, Some(&mut *output)).await?;
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
                    running.extend(now_us);
                    running.tick(now_us);
                    output.take(running);
                }
                if output.is_empty() && pause >= scan.context.broker.config.http.heartbeat {
                    output.control("heartbeat", &format!(",\"tail\":{offset}"));
                }
            }
            Woken::Away(reason) => return away(output, reason).await,
        }
        scan.restart_clock();
    }
    output.close();
    Ok(())
}

/// Says why this is the end.
async fn away(output: &mut Output<'_>, reason: &str) -> Result<(), End> {
    output.control("goaway", &format!(",\"reason\":\"{reason}\""));
    output.send().await?;
    output.exchange.close = true;
    output.close();
    Ok(())
}

enum Woken {
    Events,
    Time,
    Away(&'static str),
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
        lapse = scan.caller.lapse(scan.context) => Woken::Away(lapse.reason()),
        _ = &mut scan.hang_up => return Err(End::HungUp),
        () = tokio::time::sleep(pause) => Woken::Time,
    })
}
