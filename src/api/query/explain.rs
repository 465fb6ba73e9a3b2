//! `EXPLAIN`: what a query would read, without reading it.

use super::super::encode::EventEncoder;
use super::scan::{self, Scan};
use super::work::Work;
use super::{End, Range};
use crate::limits::INDEX_STRIDE_BYTES;
use crate::query::plan::{Plan, Shape};
use crate::query::slice::Slicer;
use crate::query::value::Cell;
use crate::query::watch::{Unwanted, Watch};
use crate::shard::blocks::{Block, Extent};

/// Answers with the plan.
pub(super) async fn explain(scan: &mut Scan<'_>, plan: &Plan, range: Range) -> Result<(), End> {
    let extents = scan::extents(scan.context, scan.entry).await?;
    let touched = extents.iter().filter(|extent| extent.first_offset < range.upto && range.from < extent.next_offset);
    let (mut segments, mut bytes) = (0, 0);
    for extent in touched {
        let all = (extent.next_offset - extent.first_offset).max(1);
        let part = extent.next_offset.min(range.upto) - extent.first_offset.max(range.from);
        segments += 1;
        bytes += (u128::from(extent.bytes) * u128::from(part) / u128::from(all)) as u64;
    }
    let blocks = if plan.counts_only() { Some(blocks(scan, plan, range, &extents).await?) } else { None };
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
    scan.work().stats.segments_total = extents.len() as u64;
    for (step, detail) in rows {
        scan.work().rows.row(vec![Cell::Text(step.into()), Cell::Text(detail.into())], None);
    }
    scan.end(None).await
}

/// How many blocks of the range the index alone answers for, and how many are read because a slice or the range cuts them.
async fn blocks(scan: &mut Scan<'_>, plan: &Plan, range: Range, extents: &[Extent]) -> Result<(u64, u64), End> {
    let (shard, group) = (scan.entry.table.shard, scan.entry.table.number);
    let mut slicer = plan.query.sample.as_ref().map(Slicer::new);
    slicer.iter_mut().for_each(|slicer| slicer.begin_at(range.span.from));
    let (mut counted, mut read, mut offset) = (0, 0, range.from);
    while offset < range.upto {
        let shards = &scan.context.shards;
        let blocks = shards.ask(shard, move |shard| Box::pin(async move { shard.blocks(group, offset).await })).await?;
        let Some(last) = blocks.last() else {
            // Lost, or not known of this segment: the next one has an index of its own.
            let behind = extents.iter().map(|extent| extent.first_offset).find(|&first| first > offset);
            let Some(behind) = behind else { break };
            offset = behind;
            continue;
        };
        offset = last.next_offset;
        let slicer = slicer.clone();
        let count = move |_: &mut Work, watch: &Watch<'_>| count(&blocks, slicer.as_ref(), range, watch);
        let (more_counted, more_read) = scan.turn(count).await??;
        (counted, read) = (counted + more_counted, read + more_read);
    }
    Ok((counted, read))
}

fn count(blocks: &[Block], slicer: Option<&Slicer>, range: Range, watch: &Watch<'_>) -> Result<(u64, u64), Unwanted> {
    let (mut counted, mut read) = (0, 0);
    for block in blocks.iter().filter(|block| block.first_offset < range.upto) {
        watch.spent(size_of::<Block>())?;
        let whole = range.from <= block.first_offset && block.next_offset <= range.upto;
        let one = slicer.is_none_or(|slicer| slicer.of(block.first_received_us).end > block.last_received_us);
        *(if whole && one { &mut counted } else { &mut read }) += 1;
    }
    Ok((counted, read))
}
