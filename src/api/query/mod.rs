//! `/v1/query`: a query's text in, rows out.
//!
//! The core of its connection finds what to read and sends what was written; all reading and computing is done by threads of
//! its own that get what the CPUs have left, so that no commit waits for a query. It ends when its client hangs up, its token
//! lapses, it has had what one query may have or somebody stops it. `ask` reads the request, `place` knows the queries that
//! run, `scan` walks the log, `work` is what the threads do of it, `output` writes rows, `follow` goes on with what comes,
//! `explain` tells what would be read.

mod ask;
mod explain;
mod follow;
mod output;
mod place;
mod scan;
mod work;

use super::Context;
use super::auth::Caller;
use super::exchange::Exchange;
use super::position::Position;
use super::problem::Problem;
use super::read::cut_off;
use crate::auth::Scope;
use crate::http::Head;
use crate::limits::QUERY_ROWS_DEFAULT;
use crate::query::plan::Plan;
use crate::query::run::{Limit, Running, Span, Stop};
use crate::query::watch::Unwanted;
use crate::query::{self};
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use crate::units::print_span;
use ask::{Ask, Kind, Next};
use output::{Format, Output, Rows};
use place::{Entry as Listed, Place};
pub use place::{Queries, list, stop};
use scan::Scan;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use work::Work;

/// Why a query ended before its end.
enum End {
    HungUp,
    /// Somebody stopped it, and its answer says so.
    Stopped,
    Fault(Fault),
    Problem(Problem),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Limit> for Problem {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Memory => {
                over("memory", "groups, distinct values and rows that wait take more than they may (query.memory)")
            }
            Limit::Slices => over("slices", "the range is cut into more than a million slices"),
        }
    }
}

impl From<Limit> for End {
    fn from(limit: Limit) -> Self {
        Self::Problem(limit.into())
    }
}

impl From<Unwanted> for End {
    fn from(_: Unwanted) -> Self {
        Self::HungUp
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Limit(limit) => limit.into(),
            Stop::Unwanted => Unwanted.into(),
        }
    }
}

/// A query that wants more than one query may have.
fn over(limit: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
    let mut problem = Problem::new(422, "query_limit", detail);
    problem.members.push(("limit", limit.into()));
    problem
}

/// The offsets and the times that a query is about, and what `now()` is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    upto: u64,
    span: Span,
    now_us: u64,
}

/// Answers `/v1/query`.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub async fn query(
    context: &Rc<Context>,
    caller: &Caller,
    head: &Head<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let asked = Instant::now();
    let ask = Ask::read(head, body)?;
    let format = Format::accepted(head)?;
    let wrong = |fault: query::Fault| ask::refusal(&fault, &ask.text);
    let next = ask.next.as_deref().map(|next| Next::read(next, &ask.text)).transpose()?;
    let now_us = next.map_or_else(super::auth::now_us, |next| next.range.now_us);
    let plan = query::parse(&ask.text, now_us).and_then(Plan::new).map_err(wrong)?;
    if !caller.allows(Scope::Query, &plan.query.group) {
        return Err(Problem::new(403, "not_allowed", "this token does not allow to query that group"));
    }
    let explain = plan.query.explain;
    if plan.query.follow && !explain && format != Format::Ndjson {
        return Err(Problem::new(406, "no_such_format", "FOLLOW is answered as application/x-ndjson"));
    }
    let rows_max = context.broker.config.query.rows as u64;
    if plan.query.limit.is_some_and(|limit| limit > rows_max) {
        return Err(over("rows", format!("LIMIT is at most {rows_max} (query.rows)")));
    }
    let entry = context.group(&plan.query.group)?;
    let listed = Listed::new(caller.name(), &plan.query.group, &ask.text);
    let place = Place::take(&context.broker, ask.id, listed)?;
    let id = place.id;
    let range = match &next {
        Some(next) => next.range,
        None => resolve(context, &entry, &plan, now_us).await?,
    };
    if !explain {
        check_span(range.span, context.broker.config.query.span)?;
    }
    let plan = Arc::new(plan);
    let shown = if explain { Arc::new(plan.of_explanation()) } else { Arc::clone(&plan) };
    let limit = shown.query.limit.unwrap_or(match format {
        Format::Json => QUERY_ROWS_DEFAULT.min(rows_max),
        // It has no end but that of its client.
        _ if shown.query.follow => u64::MAX,
        _ => rows_max,
    });
    let skip = next.map_or(0, |next| next.number);
    let rows = Rows::new(&shown, format, range.span, next.as_ref(), limit);
    let work = Work::new(&shown, range.span, rows, place)?;
    let tells_gaps = format == Format::Json || shown.query.follow;
    let gaps = if tells_gaps { None } else { gaps(context, &entry, range).await? };
    let mut scan = Scan::new(context, caller, &entry, Output::new(exchange, format, id, gaps), work);
    let end = if explain {
        explain::explain(&mut scan, &plan, range).await
    } else {
        carry_out(&mut scan, &plan, range, skip, &ask.text).await
    };
    let begun = scan.output.begun();
    scan.leave();
    exchange.heard_enough();
    context.broker.stats.query(outcome(&end), asked.elapsed());
    match end {
        Ok(()) | Err(End::Stopped) => Ok(()),
        Err(End::HungUp) => {
            // A client that sends no more may still read.
            exchange.cut_off();
            Ok(())
        }
        Err(End::Fault(fault)) if begun => cut_off(exchange, &fault),
        Err(End::Fault(fault)) => Err(fault.into()),
        Err(End::Problem(problem)) if begun => {
            tracing::warn!(detail = %problem.detail, "the answer to a query was cut off");
            exchange.cut_off();
            Ok(())
        }
        Err(End::Problem(problem)) => Err(problem),
    }
}

/// Code of what a query is refused with that somebody stopped.
const STOPPED: &str = "query_stopped";

/// What became of a query, for the counters.
fn outcome(end: &Result<(), End>) -> &'static str {
    match end {
        Ok(()) => "answered",
        Err(End::HungUp) => "left",
        Err(End::Problem(problem)) if problem.code == "query_limit" => "limit",
        Err(End::Stopped) => "stopped",
        Err(End::Problem(problem)) if problem.code == STOPPED => "stopped",
        Err(End::Problem(_) | End::Fault(_)) => "failed",
    }
}

/// What is lost of a range.
async fn gaps(context: &Context, entry: &Entry, range: Range) -> Result<Option<String>, Fault> {
    let group = entry.table.number;
    let gaps = context.shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.gaps(group) })).await?;
    let gaps = gaps.iter().filter(|gap| gap.from < range.upto && range.from < gap.to);
    let gaps: Vec<String> = gaps.map(|gap| gap.to_string()).collect();
    Ok((!gaps.is_empty()).then(|| gaps.join(", ")))
}

/// A range may be so long; 0 is no limit.
fn check_span(span: Span, longest: Duration) -> Result<(), Problem> {
    if longest.is_zero() || u128::from(span.to.saturating_sub(span.from)) <= longest.as_micros() {
        return Ok(());
    }
    let longest = print_span(longest);
    Err(over("span", format!("from the beginning of the range to its end it is more than {longest} (query.span)")))
}

/// Finds the offsets that the query's times mean, exactly, and the times where it names none.
async fn resolve(context: &Rc<Context>, entry: &Arc<Entry>, plan: &Plan, now_us: u64) -> Result<Range, Fault> {
    loop {
        match look(context, entry, plan, now_us).await {
            // Retention went on meanwhile.
            Err(Fault::Gone { .. }) => {}
            other => return other,
        }
    }
}

async fn look(context: &Rc<Context>, entry: &Arc<Entry>, plan: &Plan, now_us: u64) -> Result<Range, Fault> {
    let (shards, group) = (&context.shards, entry.table.number);
    let cursor = |offset| Cursor::new(Rc::clone(shards), entry.table.shard, group, offset);
    // First, so that all of it is in what is there.
    let visible = shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.all_visible(group) })).await?;
    let there = cursor(0).range().await?;
    let from = match plan.query.from {
        Some(from) => Position::Time(from).resolve(shards, entry, there).await?,
        None => there.earliest,
    };
    let upto = match plan.query.to {
        Some(to) => Position::Time(to).resolve(shards, entry, there).await?.min(there.tail),
        None => there.tail,
    };
    let last = Position::Last(1).resolve(shards, entry, there).await?;
    let last = received(cursor(last), there.tail).await?;
    let first = match plan.query.from {
        Some(from) => from,
        None => {
            let first = received(cursor(there.earliest), there.tail).await?;
            first.unwrap_or(now_us).min(plan.query.to.unwrap_or(u64::MAX))
        }
    };
    let to = plan.query.to.unwrap_or(last.map_or(first, |last| first.max(last + 1)));
    // While something is under way, more may come in the last event's very microsecond.
    let settled = visible.map(|(now_us, _)| now_us).or(last).unwrap_or(first);
    let settled = plan.query.to.map_or(settled, |to| settled.min(to));
    Ok(Range { from: from.min(upto), upto, span: Span { from: first, to, settled }, now_us })
}

/// When the first event from the cursor on was received, if it is before `upto`.
async fn received(mut cursor: Cursor, upto: u64) -> Result<Option<u64>, Fault> {
    let mut frames = Frames::default();
    while cursor.offset() < upto {
        match cursor.read(&mut frames).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Fault::Lost { to, .. }) => {
                cursor.advance(to);
                continue;
            }
            Err(fault) => return Err(fault),
        }
        let events = frames.iter().flat_map(|frame| frame.events());
        let mut events = events.map(|event| event.map_err(|fault| cursor.corrupt(&fault)));
        let event = events.find(|event| event.as_ref().map_or(true, |event| event.offset >= cursor.offset()));
        let event = event.transpose()?.filter(|event| event.offset < upto);
        return Ok(event.map(|event| event.received_us));
    }
    Ok(None)
}

/// Runs the query and writes all of its answer.
async fn carry_out(scan: &mut Scan<'_>, plan: &Arc<Plan>, range: Range, skipped: u64, text: &str) -> Result<(), End> {
    let before = match plan.shape {
        query::plan::Shape::Groups => scan.rows_before(plan, range).await?,
        _ => Vec::new(),
    };
    if !plan.query.follow {
        scan.listed.at_range(range.upto - range.from);
    }
    let next = match plan.shape {
        query::plan::Shape::Groups => {
            scan.begin(plan, range.span, before).await?;
            scan.forward(range.from, range.upto).await?;
            if plan.query.follow && !scan.work().rows.complete() {
                return follow::follow(scan, range.upto).await;
            }
            scan.write(Running::finish).await?;
            let rows = &scan.work().rows;
            rows.full().then(|| Next { kind: Kind::Skip, number: skipped.saturating_add(rows.rows()), range })
        }
        _ if plan.query.descending => {
            let left = scan.backward(plan, range).await?;
            left.map(|upto| Next { kind: Kind::Offset, number: 0, range: Range { upto, ..range } })
        }
        _ => {
            scan.forward(range.from, range.upto).await?;
            if plan.query.follow && !scan.work().rows.complete() {
                return follow::follow(scan, range.upto).await;
            }
            let left = scan.work().rows.refused();
            left.map(|from| Next { kind: Kind::Offset, number: 0, range: Range { from, ..range } })
        }
    };
    let tells_next = scan.output.format == Format::Json;
    if next.is_some() && plan.query.limit.is_none() && !tells_next {
        return Err(over("rows", "there are more rows than one answer may have (query.rows): use FROM and TO").into());
    }
    // A page without rows would be followed by itself for ever.
    let next = next.filter(|_| plan.query.limit != Some(0)).map(|next| next.write(text));
    scan.end(next.as_deref()).await
}
