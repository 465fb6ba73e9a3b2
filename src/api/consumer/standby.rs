//! Standing by: whoever finds another session active may wait until it lapses or is left.

use super::Subject;
use super::ask::{Woken, refusal, wait};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::problem::Problem;
use crate::group::consumer::Refusal;
use crate::shard::Fault;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Waits after a refusal until it is worth another try, at most until `until`; false when the caller is gone.
///
/// # Errors
/// The refusal itself, when it is another one, or the time is over.
pub(super) async fn stand_by(
    context: &Context,
    subject: &Subject<'_>,
    fault: Fault,
    until: Instant,
    exchange: &mut Exchange,
) -> Result<bool, Problem> {
    let now = Instant::now();
    let Some(Refusal::SessionActive { retry_after_ms }) = refusal(&fault).filter(|_| now < until) else {
        return Err(fault.into());
    };
    // What was asked before is answered now, not when this wait ends.
    let _ = exchange.flush().await;
    exchange.rest();
    let version = note(context, subject, true).await;
    let at = (now + Duration::from_millis(retry_after_ms)).min(until);
    let woken = {
        let hang_up = std::pin::pin!(exchange.hang_up());
        wait(context, subject, version, None, at, hang_up).await
    };
    exchange.heard_enough();
    note(context, subject, false).await;
    match woken {
        Woken::Turn | Woken::Time => Ok(true),
        Woken::Drain => Err(Problem::draining()),
        Woken::Lapsed(_) => subject.caller.still_good().map(|()| true),
        Woken::HungUp => {
            exchange.hung_up = true;
            Ok(false)
        }
    }
}

/// Counts the caller among those that stand by, or no longer; returns the consumer's version, to wait for a change of.
async fn note(context: &Context, subject: &Subject<'_>, comes: bool) -> u64 {
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<u64> {
        Box::pin(async move { shard.stand_by(group, &name, comes) })
    };
    context.shards.on(subject.shard(), work).await
}
