//! `/metrics`: what was counted, and what is measured now. Groups and consumers are told one by one up to a limit each, so
//! that neither the answer nor the work for it grows without bound; how many are left out is told, too.

use super::Context;
use super::auth::Caller;
use super::consumer::status::{STATES, read_stamp, state};
use super::exchange::Exchange;
use crate::io::{ring, system};
use crate::shard::audit::AUDIT_GROUP;
use crate::shard::cursor::Cursor;
use crate::shard::directory::Entry;
use crate::shard::survey::Standing;
use crate::stats::Scrape;
use foldhash::{HashMap, HashMapExt};
use std::rc::Rc;
use std::sync::Arc;

/// Groups that are looked through between two turns of the loop.
const PAGE: usize = 1_000;
/// Consumers that are told between two turns of the loop.
const SLICE: usize = 256;

/// Answers `/metrics`.
pub async fn metrics(context: &Rc<Context>, caller: &Caller, exchange: &mut Exchange) {
    let mut scrape = Scrape::default();
    let (resident, cpu_us) = system::usage();
    scrape.process(resident, cpu_us as f64 / 1e6);
    if let Ok(space) = system::disk_space(&context.broker.data) {
        scrape.bytes("disk_free", "Free space of the data directory's disk", space.free);
        scrape.bytes("disk_reserve", "Space that is left alone", context.broker.config.storage.reserve);
    }
    groups(context, caller, &mut scrape).await;
    states(context, &scrape).await;
    consumers(context, caller, &mut scrape).await;
    let text = context.broker.stats.render(&scrape);
    exchange.reply(200).body("application/openmetrics-text; version=1.0.0; charset=utf-8", text.as_bytes());
}

/// All groups but the audit log are counted, and the first of those that the caller may see are told.
async fn groups(context: &Rc<Context>, caller: &Caller, scrape: &mut Scrape) {
    let directory = context.lookup.directory();
    let seen = |group: &str| group != AUDIT_GROUP && caller.sees(group);
    let told = directory.page("", "", context.broker.config.metrics.groups, seen);
    let all = directory.count();
    scrape.gauge("groups", "Groups", all as u64);
    scrape.gauge("groups_left_out", "Groups that are not told one by one", all.saturating_sub(told.len()) as u64);
    let mut names = HashMap::with_capacity(told.len());
    let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); context.shards.count()];
    for entry in &told {
        names.insert(entry.table.number, &*entry.table.name);
        wanted[entry.table.shard as usize].push(entry.table.number);
    }
    for (shard, numbers) in wanted.into_iter().enumerate().filter(|(_, numbers)| !numbers.is_empty()) {
        let found =
            context.shards.ask(shard as u16, move |shard| Box::pin(async move { shard.survey_groups(numbers).await }));
        for (number, info) in found.await {
            let segments = info.segments as u64;
            scrape.group(names[&number], info.earliest, info.tail, info.bytes, segments);
        }
    }
}

/// Every consumer is counted by its state.
async fn states(context: &Rc<Context>, scrape: &Scrape) {
    let stuck_after = context.broker.config.consumers.stuck_after;
    let mut counts = [0; STATES.len()];
    for shard in 0..context.shards.count() {
        let counted = context.shards.ask(shard as u16, move |shard| {
            Box::pin(async move {
                let mut counts = [0_u64; STATES.len()];
                shard
                    .survey_consumers(|consumer, ground, blocked| {
                        let (state, _) = state(consumer, ground.range(), ground.now.instant, blocked, stuck_after);
                        let place = STATES.iter().position(|known| *known == state);
                        counts[place.expect("a state is one of them")] += 1;
                    })
                    .await;
                counts
            })
        });
        counts.iter_mut().zip(counted.await).for_each(|(count, more)| *count += more);
    }
    STATES.into_iter().zip(counts).for_each(|(state, count)| scrape.state(state, count));
}

/// The first consumers of groups that the caller may see are told with their position and their lag.
async fn consumers(context: &Rc<Context>, caller: &Caller, scrape: &mut Scrape) {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for shard in 0..context.shards.count() {
        let known = context.shards.ask(shard as u16, |shard| Box::pin(async move { shard.groups_with_consumers() }));
        counts.extend(known.await);
    }
    let all: usize = counts.values().sum();
    let told = first(context, caller, &counts).await;
    let left_out = all - told.iter().map(|(_, most)| most).sum::<usize>();
    scrape.gauge("consumers_left_out", "Consumers that are not told one by one", left_out as u64);
    let mut wanted: Vec<Vec<(u32, usize)>> = vec![Vec::new(); context.shards.count()];
    told.iter().for_each(|(entry, most)| wanted[entry.table.shard as usize].push((entry.table.number, *most)));
    let entries: HashMap<u32, &Arc<Entry>> = told.iter().map(|(entry, _)| (entry.table.number, entry)).collect();
    for (shard, wanted) in wanted.into_iter().enumerate().filter(|(_, wanted)| !wanted.is_empty()) {
        let found =
            context.shards.ask(shard as u16, move |shard| Box::pin(async move { shard.standings(wanted).await }));
        for (number, standings) in found.await {
            tell(context, scrape, entries[&number], &standings).await;
        }
    }
}

/// The groups whose consumers are told, by name, with how many of each.
async fn first(context: &Rc<Context>, caller: &Caller, counts: &HashMap<u32, usize>) -> Vec<(Arc<Entry>, usize)> {
    let mut room = context.broker.config.metrics.consumers;
    let mut told = Vec::new();
    let mut after: Box<str> = Box::default();
    let mut groups = counts.len();
    while room > 0 && groups > 0 {
        let page = context.lookup.directory().page("", &after, PAGE, |group| caller.sees(group));
        let Some(last) = page.last() else { break };
        after = last.table.name.clone();
        for entry in page {
            let Some(count) = counts.get(&entry.table.number) else { continue };
            let most = room.min(*count);
            (room, groups) = (room - most, groups - 1);
            if most > 0 {
                told.push((entry, most));
            }
        }
        ring::park().await;
    }
    told
}

/// Tells the consumers of one group. The age of an event is read once, however many stand there.
async fn tell(context: &Rc<Context>, scrape: &Scrape, entry: &Entry, standings: &[Standing]) {
    let mut received: HashMap<u64, Option<u64>> = HashMap::new();
    for (number, standing) in standings.iter().enumerate() {
        if number % SLICE == SLICE - 1 {
            ring::park().await;
        }
        let first = standing.first;
        let oldest = match received.get(&first) {
            _ if standing.lag == 0 => None,
            Some(known) => *known,
            None => {
                let (shard, group) = (entry.table.shard, entry.table.number);
                let cursor = Cursor::new(Rc::clone(&context.shards), shard, group, first);
                let read = read_stamp(cursor, first).await.map(|(_, received)| received);
                ring::park().await;
                *received.entry(first).or_insert(read)
            }
        };
        let age_us = oldest.map_or(0, |oldest| standing.now_us.saturating_sub(oldest));
        scrape.consumer(&entry.table.name, &standing.name, standing.next, standing.lag, age_us as f64 / 1e6);
    }
}
