//! `/v1/query`: a query's text in, rows out.
//!
//! It runs on the core of its connection, as all reading does, in turns of a fraction of a millisecond, and ends when its
//! client hangs up, its token lapses or it has had what one query may have. `ask` reads the request, `scan` walks the log,
//! `output` writes rows, `follow` goes on with what comes, `explain` tells what would be read.

mod ask;
mod explain;
mod follow;
mod output;
mod scan;

use super::Context;
use super::auth::Caller;
use super::exchange::Exchange;
use super::position::Position;
use super::problem::Problem;
use super::read::cut_off;
use crate::auth::Scope;
use crate::http::Head;
use crate::limits::{QUERIES_MAX, QUERIES_PER_CALLER_MAX, QUERY_ROWS_DEFAULT, QUERY_ROWS_MAX};
use crate::query::plan::Plan;
use crate::query::run::{Limit, Running, Span};
use crate::query::{self};
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use ask::{Ask, Kind, Next};
use output::{Format, Output};
use scan::Scan;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a query ended before its end.
enum End {
    HungUp,
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

impl From<Limit> for End {
    fn from(limit: Limit) -> Self {
        Self::Problem(match limit {
            Limit::Memory => over("memory", "groups, distinct values and rows that wait take more than 64 MiB"),
            Limit::Slices => over("slices", "the range is cut into more than a million slices"),
        })
    }
}

/// A query that wants more than one query may have.
fn over(limit: &'static str, detail: &str) -> Problem {
    let mut problem = Problem::new(422, "query_limit", detail.to_owned());
    problem.members.push(("limit", limit.into()));
    problem
}

/// The queries that run now, by caller.
#[derive(Default)]
pub struct Queries(Mutex<BTreeMap<String, usize>>);

/// A query's place among those that run.
struct Place<'q> {
    queries: &'q Queries,
    caller: String,
}

impl Queries {
    fn enter(&self, caller: String) -> Result<Place<'_>, Problem> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.get(&caller).copied().unwrap_or(0);
        if own >= QUERIES_PER_CALLER_MAX || running.values().sum::<usize>() >= QUERIES_MAX {
            let detail = "as many queries run as may at once";
            let mut problem = Problem::passing(429, "too_many_queries", 500, detail);
            let limit = if own >= QUERIES_PER_CALLER_MAX { "queries_per_token" } else { "queries" };
            problem.members.push(("limit", limit.into()));
            return Err(problem);
        }
        *running.entry(caller.clone()).or_default() += 1;
        Ok(Place { queries: self, caller })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut running = self.queries.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = running.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                running.remove(&self.caller);
            }
        }
    }
}

/// The offsets and the times that a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    from: u64,
    upto: u64,
    span: Span,
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
    let ask = Ask::read(head, body)?;
    let format = Format::accepted(head)?;
    let wrong = |fault: query::Fault| ask::refusal(&fault, &ask.text);
    let plan = query::parse(&ask.text, super::auth::now_us()).and_then(Plan::new).map_err(wrong)?;
    if !caller.allows(Scope::Query, &plan.query.group) {
        return Err(Problem::new(403, "not_allowed", "this token does not allow to query that group"));
    }
    if plan.query.follow && format != Format::Ndjson {
        return Err(Problem::new(406, "no_such_format", "FOLLOW is answered as application/x-ndjson"));
    }
    if plan.query.limit.is_some_and(|limit| limit > QUERY_ROWS_MAX) {
        return Err(over("rows", "LIMIT is at most 10000000"));
    }
    let entry = context.group(&plan.query.group)?;
    let _place = context.broker.queries.enter(caller.name())?;
    let next = ask.next.as_deref().map(|next| Next::read(next, &ask.text)).transpose()?;
    let range = match &next {
        Some(next) => next.range,
        None => resolve(context, &entry, &plan).await?,
    };
    if plan.query.explain {
        return explain::explain(context, &entry, &plan, range, exchange).await;
    }
    let mut scan = Scan::new(context, caller, &entry, exchange);
    let limit = plan.query.limit.unwrap_or(if format == Format::Json { QUERY_ROWS_DEFAULT } else { QUERY_ROWS_MAX });
    let mut output = Output::new(exchange, format, &plan, range.span, limit);
    let end = carry_out(&mut scan, &mut output, &plan, range, next.as_ref(), &ask.text).await;
    let begun = output.begun();
    exchange.heard_enough();
    match end {
        Ok(()) => Ok(()),
        Err(End::HungUp) => {
            exchange.hung_up = true;
            Ok(())
        }
        Err(End::Fault(fault)) if begun => cut_off(exchange, &fault),
        Err(End::Fault(fault)) => Err(fault.into()),
        Err(End::Problem(problem)) if begun => {
            tracing::warn!(detail = %problem.detail, "the answer to a query was cut off");
            exchange.hung_up = true;
            Ok(())
        }
        Err(End::Problem(problem)) => Err(problem),
    }
}

/// Finds the offsets that the query's times mean, exactly, and the times where it names none.
async fn resolve(context: &Rc<Context>, entry: &Arc<Entry>, plan: &Plan) -> Result<Range, Problem> {
    let shards = &context.shards;
    let cursor = |offset| Cursor::new(Rc::clone(shards), entry.table.shard, entry.table.number, offset);
    let there = cursor(0).range().await?;
    let now_us = super::auth::now_us();
    let from = match plan.query.from {
        Some(from) => Position::Time(from).resolve(shards, entry, there).await?,
        None => there.earliest,
    };
    let upto = match plan.query.to {
        Some(to) => Position::Time(to).resolve(shards, entry, there).await?.min(there.tail),
        None => there.tail,
    };
    let first = match plan.query.from {
        Some(from) => from,
        None => received(cursor(there.earliest)).await?.unwrap_or(now_us),
    };
    let to = match plan.query.to {
        Some(to) => to,
        None => {
            let last = Position::Last(1).resolve(shards, entry, there).await?;
            received(cursor(last)).await?.map_or(first, |last| last + 1).max(first)
        }
    };
    let settled = if plan.query.to.is_some() { to.min(now_us) } else { to };
    Ok(Range { from: from.min(upto), upto, span: Span { from: first, to, settled } })
}

/// When the first event from the cursor on was received.
async fn received(mut cursor: Cursor) -> Result<Option<u64>, Fault> {
    let mut frames = Frames::default();
    loop {
        match cursor.read(&mut frames).await {
            Ok(false) | Err(Fault::BehindTail { .. }) => return Ok(None),
            Err(Fault::Lost { to, .. }) => {
                cursor.advance(to);
                continue;
            }
            other => other?,
        };
        let events = frames.iter().flat_map(|frame| frame.events());
        let mut events = events.map(|event| event.map_err(|fault| cursor.corrupt(&fault)));
        let event = events.find(|event| event.as_ref().map_or(true, |event| event.offset >= cursor.offset()));
        return event.transpose().map(|event| event.map(|event| event.received_us));
    }
}

/// Runs the query and writes all of its answer.
async fn carry_out(
    scan: &mut Scan<'_>,
    output: &mut Output<'_>,
    plan: &Plan,
    range: Range,
    next: Option<&Next>,
    text: &str,
) -> Result<(), End> {
    let next = match plan.shape {
        query::plan::Shape::Groups => {
            let skipped = next.map_or(0, |next| next.number);
            output.skip(skipped);
            let before = scan.row_before(plan, range).await?;
            let mut running = Running::new(plan, range.span, before)?;
            scan.forward(&mut running, range.from, range.upto, Some(&mut *output)).await?;
            if plan.query.follow && !output.full() {
                return follow::follow(scan, &mut running, output, range.upto).await;
            }
            if !output.full() {
                running.finish()?;
                output.take(&mut running);
            }
            output.full().then(|| Next { kind: Kind::Skip, number: skipped + output.rows(), range })
        }
        _ if plan.query.descending => {
            let left = scan.backward(plan, range, output).await?;
            left.map(|upto| Next { kind: Kind::Offset, number: 0, range: Range { upto, ..range } })
        }
        _ => {
            let mut running = Running::new(plan, range.span, None)?;
            scan.forward(&mut running, range.from, range.upto, Some(&mut *output)).await?;
            if plan.query.follow && !output.full() {
                return follow::follow(scan, &mut running, output, range.upto).await;
            }
            let left = output.refused();
            left.map(|from| Next { kind: Kind::Offset, number: 0, range: Range { from, ..range } })
        }
    };
    let next = next.map(|next| next.write(text));
    output.finish(next.as_deref(), &scan.stats).await
}
