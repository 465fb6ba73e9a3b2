//! Reads back what was acknowledged: every event once, in its place, unharmed. `line` reads an event as the broker shows
//! it, `claims` sorts the acknowledgements, `walk` compares one group's events with the acknowledgements in offset order, `ledger` sorts what did not fit
//! into lost, duplicated, out of order and corrupted once everything has been seen.

mod claims;
mod ledger;
mod line;
mod walk;

use std::sync::atomic::{AtomicU64, Ordering};

pub use ledger::Findings;

use crate::acks::{Acks, Listed};
use crate::api::{Api, ApiError};
use crate::plan::Plan;
use claims::Claims;
use ledger::Ledger;
use line::Line;
use walk::Walk;

/// What the run believes about the log; all of it is checked.
#[derive(Debug, Default)]
pub struct Beliefs {
    /// The tail of every group before the run: what comes from there on is ours, or somebody else's.
    pub bases: Vec<u64>,
    /// Acknowledged requests, of each worker.
    pub acks: Vec<Acks>,
    /// Acknowledged as stored earlier, without a place.
    pub unplaced: Listed,
    /// Without an answer: each event may be there, once.
    pub unknown: Listed,
    /// Refused: must not be there.
    pub refused: Listed,
}

/// Reads every group from its base to its tail and says what was found. `read_back` counts events as they are read.
pub fn verify(plan: &Plan, api: &Api, mut beliefs: Beliefs, read_back: &AtomicU64) -> Result<Findings, ApiError> {
    let unusable = |why: String| ApiError::Unusable { what: "acknowledgements".into(), why };
    if [&beliefs.unplaced, &beliefs.unknown, &beliefs.refused].iter().any(|listed| listed.is_cut()) {
        return Err(unusable("more requests failed than can be checked one by one".into()));
    }
    let acks = std::mem::take(&mut beliefs.acks);
    let placed = acks.iter().map(Acks::events).sum();
    let in_file = |error: std::io::Error| unusable(format!("temporary file: {error}"));
    let mut claims = Claims::new(plan, acks).map_err(in_file)?;
    let mut ledger = Ledger::default();
    for (group, base) in beliefs.bases.iter().enumerate() {
        let walk = Walk::new(plan, group, &mut claims, *base, &mut ledger);
        read_group(plan, api, &plan.groups[group], walk, read_back)?;
        if ledger.is_full() {
            break;
        }
    }
    claims.whole().map_err(in_file)?;
    Ok(ledger.settle(plan, &beliefs, placed))
}

fn read_group(
    plan: &Plan,
    api: &Api,
    group: &str,
    mut walk: Walk<'_, '_>,
    read_back: &AtomicU64,
) -> Result<(), ApiError> {
    let unusable = |why: String| ApiError::Unusable { what: format!("a read of {group}"), why };
    let patience = plan.timeout * 3;
    let mut from = walk.start();
    let mut tail = None;
    let mut scratch = Vec::new();
    loop {
        let page = api.page(group, &from.to_string(), patience)?;
        let mut events = 0;
        let mut last_offset = None;
        for text in page.body.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            let line = Line::parse(text).map_err(|error| unusable(format!("{error} after offset {last_offset:?}")))?;
            last_offset = Some(line.offset);
            walk.see(&line, line.bytes(text, &mut scratch));
            events += 1;
        }
        read_back.fetch_add(events, Ordering::Relaxed);
        // What arrives after this first look is not ours: all our answers were in before it.
        let end = *tail.get_or_insert(page.tail.unwrap_or(u64::MAX));
        let next = page.next.or(last_offset.map(|last| last + 1)).unwrap_or(from);
        if events == 0 || next >= end || walk.is_hopeless() {
            break;
        }
        if next <= from {
            return Err(unusable(format!("Eddyline-Next {next} does not go on from {from}")));
        }
        from = next;
    }
    walk.end();
    Ok(())
}

#[cfg(test)]
mod tests;
