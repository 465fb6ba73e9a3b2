//! Walking the log for a query, as seen from the core of its connection: it finds one stretch of the log after the other,
//! lets the threads of queries [work](super::work) on it, and sends what they wrote. Meanwhile the core does everything else.

use super::super::Context;
use super::super::auth::Caller;
use super::super::position::Position;
use super::super::problem::Problem;
use super::output::Output;
use super::place::Entry as Listed;
use super::work::{Pause, Work};
use super::{End, Range, STOPPED, over};
use crate::query::plan::Plan;
use crate::query::run::{Row, Running, Span, Stop};
use crate::query::slice::Slicer;
use crate::query::syntax::Fill;
use crate::query::value::Cell;
use crate::query::watch::Watch;
use crate::shard::Fault;
use crate::shard::blocks::Extent;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use crate::shard::stretch::Stretch;
use crate::units::print_span;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::time::Instant;

/// Offsets that are looked at at once on the way back, at first and where nothing is found for long.
const WINDOW: u64 = 512;
const WINDOW_MAX: u64 = 1 << 16;

/// A walk through a group.
pub(super) struct Scan<'c> {
    pub(super) context: &'c Rc<Context>,
    pub(super) caller: &'c Caller,
    pub(super) entry: &'c Arc<Entry>,
    pub(super) output: Output<'c>,
    /// The query among those that run.
    pub(super) listed: Arc<Listed>,
    pub(super) hang_up: Pin<Box<dyn Future<Output = std::io::Result<u32>>>>,
    /// It is away while a thread has it, and for good when the query has ended meanwhile.
    work: Option<Box<Work>>,
    begun: Instant,
}

impl<'c> Scan<'c> {
    pub(super) fn new(
        context: &'c Rc<Context>,
        caller: &'c Caller,
        entry: &'c Arc<Entry>,
        output: Output<'c>,
        work: Work,
    ) -> Self {
        let hang_up = Box::pin(output.exchange.hang_up());
        let listed = Arc::clone(&work.place.entry);
        Self { context, caller, entry, output, listed, hang_up, work: Some(Box::new(work)), begun: Instant::now() }
    }

    /// What the query has come to, between two turns.
    pub(super) fn work(&mut self) -> &mut Work {
        self.work.as_mut().expect("it comes back from each turn, and a query whose turn was given up has ended")
    }

    pub(super) fn cursor(&self, offset: u64) -> Cursor {
        Cursor::new(Rc::clone(&self.context.shards), self.entry.table.shard, self.entry.table.number, offset)
    }

    /// Lets a thread of queries do `part` of the work.
    pub(super) async fn turn<R: Send + 'static>(
        &mut self,
        part: impl FnOnce(&mut Work, &Watch<'_>) -> R + Send + 'static,
    ) -> Result<R, End> {
        let time_max = self.context.broker.config.query.time;
        let mut work = self.work.take().expect("it comes back from each turn");
        let done = self.context.broker.queries.background().run(move |wanted| {
            let result = part(&mut work, &Watch::new(wanted));
            (work, result)
        });
        let (work, result) = tokio::select! {
            biased;
            done = done => done,
            _ = &mut self.hang_up => return Err(End::HungUp),
            _ = self.caller.lapse(self.context) => {
                self.caller.still_good()?;
                return Err(End::HungUp);
            }
            () = self.listed.stopped() => {
                return Err(Problem::new(409, STOPPED, "the query was stopped").into());
            }
            () = tokio::time::sleep_until(self.begun + time_max) => {
                let ran = print_span(time_max);
                return Err(over("time", format!("the query ran for {ran}, as long as it may (query.time)")).into());
            }
        };
        self.work = Some(work);
        self.output.flush(&mut self.work.as_mut().expect("it is back").rows).await?;
        Ok(result)
    }

    /// Shows all events from one offset to before another to the query, which may have had enough.
    pub(super) async fn forward(&mut self, from: u64, upto: u64) -> Result<(), End> {
        let (shard, group) = (self.entry.table.shard, self.entry.table.number);
        let extents = extents(self.context, self.entry).await?;
        self.work().begin_at(from, extents);
        let counts_only = self.work().running.counts_only();
        while self.work().wants(upto) {
            let offset = self.work().offset;
            let stretch = match Stretch::find(&self.context.shards, shard, group, offset, counts_only).await {
                Ok(Some(stretch)) => stretch,
                Ok(None) => break,
                Err(Fault::Lost { to, .. }) => {
                    self.work().pass(to.min(upto));
                    continue;
                }
                // Retention went on meanwhile.
                Err(Fault::Gone { earliest }) if self.work().rows.tells_lost() => {
                    self.work().pass(earliest.min(upto));
                    continue;
                }
                Err(fault) => return Err(fault.into()),
            };
            let mut reading = Some((stretch, Frames::default()));
            while let Some((mut stretch, mut frames)) = reading {
                let walk = move |work: &mut Work, watch: &Watch<'_>| {
                    let pause = work.walk(&mut stretch, &mut frames, upto, watch)?;
                    Ok::<_, End>((pause == Pause::Turn).then_some((stretch, frames)))
                };
                reading = self.turn(walk).await??;
            }
        }
        Ok(())
    }

    /// Begins the query, or another one whose result it needs.
    pub(super) async fn begin(&mut self, plan: &Arc<Plan>, span: Span, before: Vec<Row>) -> Result<(), End> {
        let plan = Arc::clone(plan);
        Ok(self.turn(move |work, _| work.begin(&plan, span, before)).await??)
    }

    /// Leaves the query's place to others, and what it kept to the threads.
    pub(super) fn leave(self) {
        if let Some(work) = self.work {
            let Work { running, rows, .. } = *work;
            self.context.broker.queries.background().discard((running, rows));
        }
    }

    /// Lets the query make rows, and writes them. Returns what that returns.
    pub(super) async fn write<R: Send + 'static>(
        &mut self,
        make: impl FnOnce(&mut Running, &Watch<'_>) -> Result<R, Stop> + Send + 'static,
    ) -> Result<R, End> {
        let made = self.turn(|work, watch| make(&mut work.running, watch)).await??;
        while self.turn(Work::give).await?? == Pause::Turn {}
        Ok(made)
    }

    /// Shows windows of events from the end on, and writes their rows, the last first. Returns where a result that was cut
    /// goes on: the offset behind the next row.
    pub(super) async fn backward(&mut self, plan: &Arc<Plan>, range: Range) -> Result<Option<u64>, End> {
        let (mut upto, mut window) = (range.upto, WINDOW);
        self.work().streams = false;
        while upto > range.from && !self.work().rows.enough() {
            let from = upto.saturating_sub(window).max(range.from);
            self.begin(plan, range.span, Vec::new()).await?;
            let (rows, told) = (self.work().rows.rows(), self.work().stats.told());
            match self.forward(from, upto).await {
                // Large events: fewer at once.
                Err(End::Problem(problem)) if problem.code == "query_limit" && window > 1 && self.work.is_some() => {
                    self.work().stats.tell(told);
                    window /= 2;
                    continue;
                }
                other => other?,
            }
            while self.turn(Work::give).await?? == Pause::Turn {}
            if let Some(offset) = self.work().rows.refused() {
                return Ok(Some(offset + 1));
            }
            // Few events that meet the predicate: more at once.
            if self.work().rows.rows() == rows {
                window = (window * 2).min(WINDOW_MAX);
            }
            upto = from;
        }
        Ok(None)
    }

    /// What follows is bounded by nothing but its client.
    pub(super) fn restart_clock(&mut self) {
        self.begun = Instant::now();
    }

    /// What the last slice with events before the range came to, where empty slices repeat it.
    pub(super) async fn rows_before(&mut self, plan: &Arc<Plan>, range: Range) -> Result<Vec<Row>, End> {
        let Some(sample) = plan.query.sample.as_ref().filter(|sample| sample.fill == Fill::Previous) else {
            return Ok(Vec::new());
        };
        let there = self.cursor(0).range().await?;
        let last = Arc::new(plan.of_last_time());
        let streams = std::mem::replace(&mut self.work().streams, false);
        let told = self.work().stats.told();
        let (mut upto, mut window, mut found) = (range.from, WINDOW, Vec::new());
        while upto > there.earliest && found.is_empty() {
            let from = upto.saturating_sub(window).max(there.earliest);
            self.begin(&last, range.span, Vec::new()).await?;
            self.forward(from, upto).await?;
            let rows = self.turn(Work::finish).await??;
            if let Some(Cell::Time(last)) = rows.first().and_then(|row| row.first()) {
                let slice = Slicer::new(sample).of(*last);
                let shards = &self.context.shards;
                let begun = Position::Time(slice.start).resolve(shards, self.entry, there).await?;
                let before = Arc::new(plan.of_slice_before());
                let to = slice.end.min(range.span.from.max(slice.start + 1));
                let span = Span { from: slice.start, to, settled: to };
                self.begin(&before, span, Vec::new()).await?;
                self.forward(begun, range.from).await?;
                found = self.turn(Work::finish).await??;
            }
            (upto, window) = (from, (window * 2).min(WINDOW_MAX));
        }
        // What is before the range is not told of.
        self.work().streams = streams;
        self.work().stats.tell(told);
        Ok(found)
    }

    /// Ends the answer.
    pub(super) async fn end(&mut self, next: Option<&str>) -> Result<(), End> {
        let micros = self.begun.elapsed().as_micros() as u64;
        let work = self.work.as_mut().expect("it comes back from each turn");
        work.stats.micros = micros;
        self.output.finish(&mut work.rows, next, &work.stats).await
    }

    /// Sends what was written so far.
    pub(super) async fn send(&mut self) -> Result<(), End> {
        let work = self.work.as_mut().expect("it comes back from each turn");
        self.output.send(&mut work.rows).await
    }
}

/// The group's segments.
pub(super) async fn extents(context: &Context, entry: &Entry) -> Result<Vec<Extent>, Fault> {
    let group = entry.table.number;
    context.shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.extents(group) })).await
}
