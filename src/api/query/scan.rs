//! Walking the log for a query, in turns: after each, commits and other requests of the core have theirs.

use super::super::Context;
use super::super::auth::Caller;
use super::super::exchange::Exchange;
use super::super::position::Position;
use super::output::Output;
use super::{End, Range, over};
use crate::io::ring;
use crate::limits::{INDEX_STRIDE_BYTES, QUERY_TIME_MAX, QUERY_TURN};
use crate::query::plan::Plan;
use crate::query::run::{Row, Running, Span};
use crate::query::slice::Slicer;
use crate::query::syntax::Fill;
use crate::query::value::Cell;
use crate::shard::Fault;
use crate::shard::blocks::{Block, Extent};
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Events between two looks at the clock.
const EVENTS_PER_LOOK: u32 = 32;
/// Offsets that are looked at at once on the way back.
const WINDOW: u64 = 512;

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) segments_total: u64,
    pub(super) segments_read: u64,
    pub(super) blocks_read: u64,
    pub(super) blocks_counted: u64,
    pub(super) bytes_read: u64,
    pub(super) events_read: u64,
    pub(super) not_json: u64,
    pub(super) lost: u64,
    pub(super) micros: u64,
}

/// A walk through a group.
pub(super) struct Scan<'c> {
    pub(super) context: &'c Rc<Context>,
    pub(super) caller: &'c Caller,
    pub(super) entry: &'c Arc<Entry>,
    pub(super) stats: Stats,
    pub(super) hang_up: Pin<Box<dyn Future<Output = std::io::Result<u32>>>>,
    extents: Vec<Extent>,
    /// Offset behind the last segment that counts as read.
    read_upto: u64,
    /// Rows that are wanted, and one more.
    room: u64,
    begun: Instant,
    turn: Instant,
}

impl<'c> Scan<'c> {
    pub(super) fn new(
        context: &'c Rc<Context>,
        caller: &'c Caller,
        entry: &'c Arc<Entry>,
        exchange: &Exchange,
    ) -> Self {
        let now = Instant::now();
        Self {
            context,
            caller,
            entry,
            stats: Stats::default(),
            hang_up: Box::pin(exchange.hang_up()),
            extents: Vec::new(),
            read_upto: 0,
            room: u64::MAX,
            begun: now,
            turn: now,
        }
    }

    pub(super) fn cursor(&self, offset: u64) -> Cursor {
        Cursor::new(Rc::clone(&self.context.shards), self.entry.table.shard, self.entry.table.number, offset)
    }

    /// Lets others run, if this turn was long enough.
    async fn turn(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if now - self.turn < QUERY_TURN {
            return Ok(());
        }
        if now - self.begun > QUERY_TIME_MAX {
            return Err(over("time", "the query ran for 300 s").into());
        }
        self.caller.still_good()?;
        self.stats.micros = (now - self.begun).as_micros() as u64;
        tokio::select! {
            biased;
            _ = &mut self.hang_up => return Err(End::HungUp),
            () = ring::park() => {}
        }
        self.turn = Instant::now();
        Ok(())
    }

    /// Shows all events from one offset to before another to the query, and gives its rows to `output`, which may have had
    /// enough.
    pub(super) async fn forward(
        &mut self,
        running: &mut Running<'_>,
        from: u64,
        upto: u64,
        mut output: Option<&mut Output<'_>>,
    ) -> Result<(), End> {
        self.look_at_segments().await?;
        let mut offset = from;
        while offset < upto && !output.as_ref().is_some_and(|output| output.full()) {
            let blocks = if running.counts_only() { self.blocks(offset).await? } else { Vec::new() };
            let mut known = false;
            for block in blocks.iter().filter(|block| block.next_offset <= upto) {
                let whole = block.first_offset == offset
                    && running.is_one_slice(block.first_received_us, block.last_received_us);
                if whole {
                    running.count(block.next_offset - offset, block.first_received_us)?;
                    self.stats.blocks_counted += 1;
                } else {
                    self.read(running, offset, block.next_offset, &mut output).await?;
                }
                (offset, known) = (block.next_offset, true);
                self.turn().await?;
            }
            if !known {
                // Up to where an index may know more again.
                let end = self.extents.iter().map(|extent| extent.next_offset).find(|&end| end > offset);
                let end = if running.counts_only() { end.unwrap_or(upto).min(upto) } else { upto };
                self.read(running, offset, end, &mut output).await?;
                offset = end;
            }
        }
        self.stats.not_json += std::mem::take(&mut running.not_json);
        self.stats.micros = self.begun.elapsed().as_micros() as u64;
        Ok(())
    }

    /// Reads events and shows them.
    async fn read(
        &mut self,
        running: &mut Running<'_>,
        from: u64,
        upto: u64,
        output: &mut Option<&mut Output<'_>>,
    ) -> Result<(), End> {
        let mut cursor = self.cursor(from);
        let mut frames = Frames::default();
        self.room = output.as_ref().map_or(u64::MAX, |output| output.room());
        while cursor.offset() < upto {
            match cursor.read(&mut frames).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(Fault::Lost { from, to }) => {
                    self.stats.lost += to.min(upto) - from.max(cursor.offset());
                    cursor.advance(to);
                    continue;
                }
                Err(fault) => return Err(fault.into()),
            }
            let next = self.show(running, &frames, &cursor, upto).await?;
            cursor.advance(next);
            if let Some(output) = output {
                output.take_early(running);
                output.flush().await?;
                self.room = output.room();
                if output.full() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Shows the events of frames; gives the offset behind them.
    async fn show(
        &mut self,
        running: &mut Running<'_>,
        frames: &Frames,
        cursor: &Cursor,
        upto: u64,
    ) -> Result<u64, End> {
        let mut next = cursor.offset();
        let mut looked = 0;
        for frame in frames.iter() {
            self.note(next, frame.bytes.len() as u64);
            let header = frame.header;
            let whole = header.first_offset >= next && header.next_offset() <= upto && running.counts_only();
            if whole && running.is_one_slice(header.first_received_us, header.last_received_us) {
                running.count(u64::from(header.events), header.first_received_us)?;
                next = header.next_offset();
                self.stats.events_read += u64::from(header.events);
                self.turn().await?;
                continue;
            }
            for event in frame.events() {
                let event = event.map_err(|fault| cursor.corrupt(&fault))?;
                if event.offset < next {
                    continue;
                }
                if event.offset >= upto {
                    return Ok(upto);
                }
                running.event(&event)?;
                next = event.offset + 1;
                self.stats.events_read += 1;
                if running.rows.len() as u64 >= self.room {
                    return Ok(next);
                }
                looked += 1;
                if looked % EVENTS_PER_LOOK == 0 {
                    self.turn().await?;
                }
            }
        }
        Ok(next)
    }

    /// Takes note of what is read at that offset.
    fn note(&mut self, offset: u64, bytes: u64) {
        self.stats.bytes_read += bytes;
        self.stats.blocks_read = self.stats.bytes_read.div_ceil(INDEX_STRIDE_BYTES);
        if offset >= self.read_upto {
            let extent = self.extents.iter().find(|extent| offset < extent.next_offset);
            self.read_upto = extent.map_or(u64::MAX, |extent| extent.next_offset);
            self.stats.segments_read += u64::from(extent.is_some());
        }
    }

    async fn look_at_segments(&mut self) -> Result<(), Fault> {
        self.extents = extents(self.context, self.entry).await?;
        self.stats.segments_total = self.extents.len() as u64;
        Ok(())
    }

    async fn blocks(&self, offset: u64) -> Result<Vec<Block>, Fault> {
        let group = self.entry.table.number;
        let shards = &self.context.shards;
        shards
            .ask(self.entry.table.shard, move |shard| Box::pin(async move { shard.blocks(group, offset).await }))
            .await
    }

    /// Shows windows of events from the end on, and gives their rows to `output`, the last first. Returns where a result
    /// that was cut goes on: the offset behind the next row.
    pub(super) async fn backward(
        &mut self,
        plan: &Plan,
        range: Range,
        output: &mut Output<'_>,
    ) -> Result<Option<u64>, End> {
        let (mut upto, mut window) = (range.upto, WINDOW);
        while upto > range.from {
            let from = upto.saturating_sub(window).max(range.from);
            let mut running = Running::new(plan, range.span, None)?;
            match self.forward(&mut running, from, upto, None).await {
                // Large events: fewer at once.
                Err(End::Problem(problem)) if problem.code == "query_limit" && window > 1 && self.has_time() => {
                    window /= 2;
                    continue;
                }
                other => other?,
            }
            output.take_reversed(&mut running);
            if let Some(offset) = output.refused() {
                return Ok(Some(offset + 1));
            }
            output.flush().await?;
            upto = from;
        }
        Ok(None)
    }

    /// What follows is bounded by nothing but its client.
    pub(super) fn restart_clock(&mut self) {
        self.begun = Instant::now();
    }

    fn has_time(&self) -> bool {
        self.begun.elapsed() <= QUERY_TIME_MAX
    }

    /// What the last slice with events before the range came to, where empty slices repeat it.
    pub(super) async fn row_before(&mut self, plan: &Plan, range: Range) -> Result<Option<Row>, End> {
        let Some(sample) = plan.query.sample.as_ref().filter(|sample| sample.fill == Fill::Previous) else {
            return Ok(None);
        };
        let there = self.cursor(0).range().await?;
        let times = plan.of_times();
        let (mut upto, mut window) = (range.from, WINDOW);
        while upto > there.earliest {
            let from = upto.saturating_sub(window).max(there.earliest);
            let mut running = Running::new(&times, range.span, None)?;
            self.forward(&mut running, from, upto, None).await?;
            let last = running.rows.back().and_then(|row| row.first());
            if let Some(Cell::Time(last)) = last {
                let slice = Slicer::new(sample).of(*last);
                let shards = &self.context.shards;
                let begun = Position::Time(slice.start).resolve(shards, self.entry, there).await?;
                let before = plan.of_slice_before();
                let to = slice.end.min(range.span.from.max(slice.start + 1));
                let span = Span { from: slice.start, to, settled: to };
                let mut running = Running::new(&before, span, None)?;
                self.forward(&mut running, begun, range.from, None).await?;
                running.finish()?;
                return Ok(running.rows.pop_back());
            }
            (upto, window) = (from, (window * 2).min(1 << 16));
        }
        Ok(None)
    }
}

/// The group's segments.
pub(super) async fn extents(context: &Context, entry: &Entry) -> Result<Vec<Extent>, Fault> {
    let group = entry.table.number;
    context.shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.extents(group) })).await
}
