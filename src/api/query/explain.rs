//! `EXPLAIN`: what a query would read, without reading it.

use super::super::Context;
use super::super::encode::EventEncoder;
use super::super::exchange::Exchange;
use super::super::problem::Problem;
use super::{Range, scan};
use crate::query::plan::{Plan, Shape};
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
    let reads = match (&plan.shape, plan.counts_only()) {
        (_, true) => "the index, and the data of blocks that a slice cuts",
        (Shape::Groups, false) if plan.query.sample.is_some() => "every event of the range, a slice at a time",
        (Shape::Groups, false) => "every event of the range",
        _ if plan.query.descending => "events from the end of the range on, until there are enough rows",
        _ => "events from the beginning of the range on, until there are enough rows",
    };
    let time = EventEncoder::time_text;
    let rows = [
        ("group", plan.query.group.to_string()),
        ("range", format!("{} to {}", time(range.span.from), time(range.span.to))),
        ("offsets", format!("{} to {}", range.from, range.upto)),
        ("segments", format!("{segments} of {}", extents.len())),
        ("bytes", format!("about {bytes}")),
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
