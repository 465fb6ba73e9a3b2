//! `EXPLAIN`: what a query would read, without reading it.

use super::super::Context;
use super::super::encode::EventEncoder;
use super::super::exchange::Exchange;
use super::super::problem::Problem;
use super::{Range, scan};
use crate::limits::INDEX_STRIDE_BYTES;
use crate::query::plan::{Plan, Shape};
use crate::query::slice::Slicer;
use crate::shard::Fault;
use crate::shard::directory::Entry;
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;

/// Answers with the plan.
pub(super) async fn explain(
    context: &Rc<Context>,
    entry: &Arc<Entry>,
    plan: &Plan,
    range: Range,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let extents = scan::extents(context, entry).await?;
    let touched = extents.iter().filter(|extent| extent.first_offset < range.upto && range.from < extent.next_offset);
    let (mut segments, mut bytes) = (0, 0);
    for extent in touched {
        let all = (extent.next_offset - extent.first_offset).max(1);
        let part = extent.next_offset.min(range.upto) - extent.first_offset.max(range.from);
        segments += 1;
        bytes += (u128::from(extent.bytes) * u128::from(part) / u128::from(all)) as u64;
    }
    let blocks = if plan.counts_only() { Some(blocks(context, entry, plan, range).await?) } else { None };
    let reads = match (&plan.shape, plan.counts_only()) {
        (_, true) => "the index, and the data of blocks that a slice cuts",
        (Shape::Groups, false) if plan.query.sample.is_some() => "every event of the range, a slice at a time",
        (Shape::Groups, false) => "every event of the range",
        _ if plan.query.descending => "events from the end of the range on, until there are enough rows",
        _ => "events from the beginning of the range on, until there are enough rows",
    };
    let time = EventEncoder::time_text;
    let blocks = match blocks {
        Some((counted, read)) => format!("{counted} counted by the index, {read} read, and what no index knows yet"),
        None => format!("about {}", u64::div_ceil(bytes, INDEX_STRIDE_BYTES)),
    };
    let rows = [
        ("group", plan.query.group.to_string()),
        ("range", format!("{} to {}", time(range.span.from), time(range.span.to))),
        ("offsets", format!("{} to {}", range.from, range.upto)),
        ("segments", format!("{segments} of {}", extents.len())),
        ("bytes", format!("about {bytes}")),
        ("blocks", blocks),
        ("reads", reads.to_owned()),
        ("filter", if plan.query.predicate.is_some() { "each event" } else { "none" }.to_owned()),
    ];
    exchange.json(
        200,
        &json!({
            "range": {"from": time(range.span.from), "to": time(range.span.to)},
            "columns": [{"name": "step", "type": "text"}, {"name": "detail", "type": "text"}],
            "rows": rows.map(|(step, detail)| [step.to_owned(), detail]),
            "stats": {"segments_total": extents.len()},
        }),
    );
    Ok(())
}

/// How many blocks of the range the index alone answers for, and how many are read because a slice or the range cuts them.
async fn blocks(context: &Context, entry: &Entry, plan: &Plan, range: Range) -> Result<(u64, u64), Fault> {
    let (group, shards) = (entry.table.number, &context.shards);
    let mut slicer = plan.query.sample.as_ref().map(Slicer::new);
    slicer.iter_mut().for_each(|slicer| slicer.begin_at(range.span.from));
    let (mut counted, mut read, mut offset) = (0, 0, range.from);
    while offset < range.upto {
        let find =
            shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.blocks(group, offset).await }));
        let blocks = find.await?;
        let Some(last) = blocks.last() else { break };
        let next = last.next_offset;
        for block in blocks.iter().filter(|block| block.first_offset < range.upto) {
            let whole = range.from <= block.first_offset && block.next_offset <= range.upto;
            let one =
                slicer.as_ref().is_none_or(|slicer| slicer.of(block.first_received_us).end > block.last_received_us);
            *(if whole && one { &mut counted } else { &mut read }) += 1;
        }
        offset = next;
    }
    Ok((counted, read))
}
