//! The part of a query that needs no shard and no socket: reading stretches of the log, showing their events to the query and
//! writing its rows. It is done on threads that get what the CPUs have left, a turn at a time; between turns it is back on
//! its connection's core, which sends what was written and finds the next stretch.

use super::End;
use super::output::Rows;
use super::place::Place;
use crate::limits::{INDEX_STRIDE_BYTES, READ_PIECE_BYTES};
use crate::query::plan::Plan;
use crate::query::run::{Limit, Row, Running, Span, Stop};
use crate::query::watch::{STEP, Unwanted, Watch};
use crate::shard::Fault;
use crate::shard::blocks::Extent;
use crate::shard::cursor::Frames;
use crate::shard::stretch::Stretch;
use std::sync::Arc;

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

impl Stats {
    /// What is told of the events of the range: those that are not JSON, and those that are lost.
    pub(super) fn told(&self) -> (u64, u64) {
        (self.not_json, self.lost)
    }

    /// Forgets what was told since.
    pub(super) fn tell(&mut self, (not_json, lost): (u64, u64)) {
        (self.not_json, self.lost) = (not_json, lost);
    }
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Others have their turn, or there is enough to be sent.
    Turn,
    /// There is no more.
    Over,
}

/// A query under way.
pub(super) struct Work {
    pub(super) running: Running,
    pub(super) rows: Rows,
    /// Whether rows are written as they come.
    pub(super) streams: bool,
    pub(super) stats: Stats,
    /// The next offset to be read.
    pub(super) offset: u64,
    pub(super) extents: Vec<Extent>,
    /// Offset behind the last segment that counts as read.
    read_upto: u64,
    /// The frames at hand hold events that were not shown yet.
    paused: bool,
    /// It counts as running until it is gone, also when nobody waits for it any more.
    pub(super) place: Place,
}

impl Work {
    pub(super) fn new(plan: &Arc<Plan>, span: Span, rows: Rows, place: Place) -> Result<Self, Limit> {
        Ok(Self {
            running: place.running(plan, span, Vec::new())?,
            rows,
            streams: !plan.waits(),
            stats: Stats::default(),
            offset: 0,
            extents: Vec::new(),
            read_upto: 0,
            paused: false,
            place,
        })
    }

    /// Begins the query, or another one whose result it needs.
    pub(super) fn begin(&mut self, plan: &Arc<Plan>, span: Span, before: Vec<Row>) -> Result<(), Limit> {
        self.running = self.place.running(plan, span, before)?;
        Ok(())
    }

    /// Makes ready to read from `offset` on.
    pub(super) fn begin_at(&mut self, offset: u64, extents: Vec<Extent>) {
        self.stats.segments_total = extents.len() as u64;
        (self.offset, self.extents, self.paused) = (offset, extents, false);
    }

    /// Passes over events that are not there any more.
    pub(super) fn pass(&mut self, to: u64) {
        // What comes in another order, or before the range, is told of in the stats alone, if at all.
        if self.streams {
            self.rows.lost(self.offset, to);
        }
        self.stats.lost += to - self.offset;
        self.place.entry.advance(to - self.offset);
        self.offset = to;
    }

    /// Whether events before `upto` are to be read.
    pub(super) fn wants(&self, upto: u64) -> bool {
        self.offset < upto && !(self.streams && self.rows.enough())
    }

    /// Goes on in the stretch, to before `upto` at most.
    pub(super) fn walk(
        &mut self,
        stretch: &mut Stretch,
        frames: &mut Frames,
        upto: u64,
        watch: &Watch<'_>,
    ) -> Result<Pause, End> {
        let (before, from) = (self.stats, self.offset);
        let pause = self.walk_on(stretch, frames, upto, watch);
        self.stats.not_json += std::mem::take(&mut self.running.not_json);
        self.place.entry.has_read(&self.stats);
        self.place.entry.advance(self.offset - from);
        let stats = &self.place.broker.stats;
        stats.query_events.inc_by(self.stats.events_read - before.events_read);
        stats.query_bytes.inc_by(self.stats.bytes_read - before.bytes_read);
        pause
    }

    fn walk_on(
        &mut self,
        stretch: &mut Stretch,
        frames: &mut Frames,
        upto: u64,
        watch: &Watch<'_>,
    ) -> Result<Pause, End> {
        loop {
            if self.streams && self.give(watch)? == Pause::Turn {
                return Ok(Pause::Turn);
            }
            if !self.wants(upto) {
                return Ok(Pause::Over);
            }
            if watch.is_over() {
                return Ok(Pause::Turn);
            }
            if self.paused || !self.count_block(stretch, upto, watch)? {
                if !self.paused {
                    if !stretch.read(self.offset, frames)? {
                        return Ok(Pause::Over);
                    }
                    self.note(frames);
                    watch.spent(frames.iter().map(|frame| frame.bytes.len()).sum())?;
                }
                self.paused = self.show(frames, upto, watch)?;
            }
        }
    }

    /// The rows of a query whose result another one needs.
    pub(super) fn finish(&mut self, watch: &Watch<'_>) -> Result<Vec<Row>, Stop> {
        self.running.finish(watch)?;
        let mut rows = Vec::new();
        while let Some((_, row)) = self.running.take() {
            watch.spent(row.len() * STEP)?;
            rows.push(row);
        }
        Ok(rows)
    }

    /// Writes the rows that are there.
    pub(super) fn give(&mut self, watch: &Watch<'_>) -> Result<Pause, Unwanted> {
        self.rows.take(&mut self.running, watch)
    }

    /// Counts a block by what the index knows of it, if that is all that is asked for.
    fn count_block(&mut self, stretch: &mut Stretch, upto: u64, watch: &Watch<'_>) -> Result<bool, End> {
        let Some(block) = stretch.block(self.offset).filter(|block| block.next_offset <= upto) else {
            return Ok(false);
        };
        if !self.running.is_one_slice(block.first_received_us, block.last_received_us) {
            return Ok(false);
        }
        let events = block.next_offset - block.first_offset;
        self.running.count(events, block.data_bytes, block.first_received_us, watch)?;
        self.offset = block.next_offset;
        self.stats.blocks_counted += 1;
        stretch.pass();
        Ok(true)
    }

    /// Shows the events of frames to the query. Returns whether it left some because there is enough to be sent, or the turn
    /// is over.
    fn show(&mut self, frames: &Frames, upto: u64, watch: &Watch<'_>) -> Result<bool, End> {
        let (room, shown) = (self.rows.room(), self.offset);
        // What was shown before is passed over again, which may take a whole turn by itself.
        let (mut passed, mut taken) = (0, 0);
        for frame in frames.iter() {
            let header = frame.header;
            if header.next_offset() <= shown {
                watch.spent(STEP)?;
                passed += 1;
                continue;
            }
            let whole = header.first_offset >= self.offset && header.next_offset() <= upto;
            if whole
                && self.running.counts_only()
                && self.running.is_one_slice(header.first_received_us, header.last_received_us)
            {
                watch.spent(header.events as usize * STEP)?;
                self.running.count(u64::from(header.events), frame.data_bytes(), header.first_received_us, watch)?;
                self.offset = header.next_offset();
                self.stats.events_read += u64::from(header.events);
                taken += header.events;
                if watch.is_over() && taken >= passed {
                    return Ok(true);
                }
                continue;
            }
            for event in frame.events() {
                let event = event
                    .map_err(|fault| Fault::Corrupt { offset: self.offset, detail: Arc::from(fault.to_string()) })?;
                if event.offset < self.offset {
                    watch.spent(STEP)?;
                    passed += 1;
                    continue;
                }
                if event.offset >= upto {
                    self.offset = upto;
                    return Ok(false);
                }
                self.running.event(&event, watch)?;
                self.offset = event.offset + 1;
                self.stats.events_read += 1;
                taken += 1;
                if watch.is_over() && taken >= passed || self.streams && self.running.has_ready(room, READ_PIECE_BYTES)
                {
                    return Ok(true);
                }
            }
            self.running.seen(header.last_received_us, watch)?;
        }
        Ok(false)
    }

    /// Takes note of what was read.
    fn note(&mut self, frames: &Frames) {
        for frame in frames.iter() {
            self.stats.bytes_read += frame.bytes.len() as u64;
            let offset = self.offset.max(frame.header.first_offset);
            if offset >= self.read_upto {
                let extent = self.extents.iter().find(|extent| offset < extent.next_offset);
                self.read_upto = extent.map_or(u64::MAX, |extent| extent.next_offset);
                self.stats.segments_read += u64::from(extent.is_some());
            }
        }
        self.stats.blocks_read = self.stats.bytes_read.div_ceil(INDEX_STRIDE_BYTES);
    }
}
