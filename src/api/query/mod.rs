//! `/v1/query`: a query's text in, rows out.
//!
//! The core of its connection finds what to read and sends what was written; all reading and computing is done by threads of
//! its own that get what the CPUs have left, so that no commit waits for a query. It ends when its client hangs up, its token
//! lapses or it has had what one query may have. `ask` reads the request, `scan` walks the log, `work` is what the threads do
//! of it, `output` writes rows, `follow` goes on with what comes, `explain` tells what would be read.

mod ask;
mod explain;
mod follow;
mod output;
mod scan;
mod work;

use super::auth::Caller;
use super::exchange::Exchange;
use super::position::Position;
use super::problem::Problem;
use super::read::cut_off;
use super::{Broker, Context};
use crate::auth::Scope;
use crate::http::Head;
use crate::io::background::Background;
use crate::limits::{QUERY_ROWS_DEFAULT, QUERY_THREADS_MAX};
use crate::query::plan::Plan;
use crate::query::run::{Limit, Row, Running, Span};
use crate::query::{self};
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use crate::units::print_span;
use ask::{Ask, Kind, Next};
use output::{Format, Output, Rows};
use scan::Scan;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use work::Work;

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

/// A query that wants more than one query may have.
fn over(limit: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
    let mut problem = Problem::new(422, "query_limit", detail);
    problem.members.push(("limit", limit.into()));
    problem
}

/// The queries that run now, by caller, and the threads that they run on.
pub struct Queries {
    running: Mutex<BTreeMap<String, usize>>,
    background: Background,
}

/// A query's place among those that run.
struct Place {
    broker: Arc<Broker>,
    caller: String,
}

impl Queries {
    /// Starts the threads, one on each of `cpus` behind those that the cores have, or on all if none is left.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(cpus: &[usize], cores: usize) -> std::io::Result<Self> {
        let cpus = cpus.get(cores..).filter(|left| !left.is_empty()).unwrap_or(cpus);
        let cpus = &cpus[..cpus.len().min(QUERY_THREADS_MAX)];
        Ok(Self { running: Mutex::default(), background: Background::start("query", cpus)? })
    }

    fn background(&self) -> &Background {
        &self.background
    }
}

impl Place {
    fn take(broker: &Arc<Broker>, caller: String) -> Result<Self, Problem> {
        let may = &broker.config.query;
        let mut running = broker.queries.running.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.get(&caller).copied().unwrap_or(0);
        let limit = match () {
            () if running.values().sum::<usize>() >= may.running => "running",
            () if own >= may.running_per_token => "running_per_token",
            () => {
                *running.entry(caller.clone()).or_default() += 1;
                drop(running);
                broker.stats.queries_running.inc();
                return Ok(Self { broker: Arc::clone(broker), caller });
            }
        };
        let mut problem = Problem::passing(429, "too_many_queries", 500, "as many queries run as may at once");
        problem.members.push(("limit", limit.into()));
        Err(problem)
    }

    /// The plan, about to run within what a query may keep.
    fn running(&self, plan: &Arc<Plan>, span: Span, before: Vec<Row>) -> Result<Running, Limit> {
        Running::new(plan, span, self.broker.config.query.memory as usize, before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.broker.stats.queries_running.dec();
        let mut running = self.broker.queries.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = running.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                running.remove(&self.caller);
            }
        }
    }
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
    let place = Place::take(&context.broker, caller.name())?;
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
    let rows = Rows::new(&shown, format, range.span, skip, limit);
    let work = Work::new(&shown, range.span, rows, place)?;
    let tells_gaps = format == Format::Json || shown.query.follow;
    let gaps = if tells_gaps { None } else { gaps(context, &entry, range).await? };
    let mut scan = Scan::new(context, caller, &entry, Output::new(exchange, format, gaps), work);
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

/// What became of a query, for the counters.
fn outcome(end: &Result<(), End>) -> &'static str {
    match end {
        Ok(()) => "answered",
        Err(End::HungUp) => "left",
        Err(End::Problem(problem)) if problem.code == "query_limit" => "limit",
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
async fn resolve(context: &Rc<Context>, entry: &Arc<Entry>, plan: &Plan, now_us: u64) -> Result<Range, Problem> {
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
    let behind_last = received(cursor(last)).await?.map(|last| last + 1);
    let first = match plan.query.from {
        Some(from) => from,
        None => received(cursor(there.earliest)).await?.unwrap_or(now_us).min(plan.query.to.unwrap_or(u64::MAX)),
    };
    let to = plan.query.to.unwrap_or(behind_last.unwrap_or(first).max(first));
    // While something is under way, events may still come right behind the last one.
    let settled = visible.map_or(behind_last, |(now_us, _)| Some(now_us)).unwrap_or(first);
    let settled = plan.query.to.map_or(settled, |to| settled.min(to));
    Ok(Range { from: from.min(upto), upto, span: Span { from: first, to, settled }, now_us })
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
async fn carry_out(scan: &mut Scan<'_>, plan: &Arc<Plan>, range: Range, skipped: u64, text: &str) -> Result<(), End> {
    let next = match plan.shape {
        query::plan::Shape::Groups => {
            let before = scan.rows_before(plan, range).await?;
            scan.begin(plan, range.span, before)?;
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
    let next = next.map(|next| next.write(text));
    scan.end(next.as_deref()).await
}
