//! A query under way: events in, in the order of their offsets, and rows out.

use super::aggregate::State;
pub use super::fill::Row;
use super::fill::{Filler, Slices, memory, of_each_key};
use super::filter::meets;
use super::plan::{Plan, Shape, Source};
use super::slice::{Slice, Slicer};
use super::syntax::{Align, Column, Fill, Function, Sample};
use super::value::{Cell, Value};
use super::watch::{STEP, Unwanted, Watch};
use crate::limits::QUERY_SLICES_MAX;
use crate::log::event::{Encoding, Event};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What an event takes besides its data, in bytes that are looked at.
const EVENT: usize = 128;

/// What a percentile takes: numbers are put in order, or bins added up.
const QUANTILE: usize = 4 << 10;

/// What a query would need more of than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Groups, distinct values and rows that wait.
    Memory,
    /// Slices of the range.
    Slices,
}

/// Why a query goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It would need too much.
    Limit(Limit),
    /// Nobody wants it any more.
    Unwanted,
}

impl From<Limit> for Stop {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

impl From<Unwanted> for Stop {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

/// The resolved range of a query, `[from, to)` in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// Up to when nothing more can come: a slice that reaches beyond is open.
    pub settled: u64,
}

/// What is kept of the events of one slice that have the same keys.
struct Group {
    keys: Vec<Cell>,
    count: u64,
    bytes: u64,
    states: Vec<State>,
    first: Option<Cell>,
    last: (u64, Vec<u8>),
}

/// What is to be taken of a query.
enum Ready {
    /// A row, and the offset of the event that it is, if it is one.
    Row(Option<u64>, Row),
    /// A row for each of these.
    Slices(Slices),
}

/// A query under way.
pub struct Running {
    plan: Arc<Plan>,
    span: Span,
    slicer: Option<Slicer>,
    slice: Option<Slice>,
    filler: Filler,
    /// Rows of the slice before, for FILL(PREV) of each combination of keys.
    before: Vec<Row>,
    before_memory: usize,
    groups: Vec<Group>,
    by_key: HashMap<Vec<u8>, usize>,
    /// What is complete, in order.
    ready: VecDeque<Ready>,
    memory_max: usize,
    /// Bytes that the groups of the open slice hold.
    memory: usize,
    /// Bytes of what became complete since all of it was taken.
    ready_memory: usize,
    /// Events that are not JSON, where a path was asked for.
    pub not_json: u64,
    /// Events that met the predicate.
    pub matched: u64,
    uses_paths: bool,
    counts_only: bool,
}

impl Running {
    /// A query over that range, which may keep `memory_max` bytes. `before` is what the last slice with events before it came
    /// to, for FILL(PREV): a row, or one of each combination of keys.
    ///
    /// # Errors
    /// When the range has too many slices.
    pub fn new(plan: &Arc<Plan>, span: Span, memory_max: usize, mut before: Vec<Row>) -> Result<Self, Limit> {
        let sample = plan.query.sample.as_ref();
        let slicer = sample.map(Slicer::new);
        let slices = slicer.as_ref().map_or(0, |slicer| slicer.count(span.from, span.to));
        if slices > QUERY_SLICES_MAX {
            return Err(Limit::Slices);
        }
        let begun = slicer.as_ref().is_some_and(|slicer| !slicer.wants_origin()).then_some(span.from);
        let paths = |columns: &[Column]| columns.iter().any(|column| matches!(column, Column::Path(_)));
        let inputs = plan.inputs.iter().any(|(column, _)| matches!(column, Column::Path(_)));
        let shown = matches!(&plan.shape, Shape::Columns(columns) if paths(columns));
        Ok(Self {
            plan: Arc::clone(plan),
            span,
            slicer,
            slice: None,
            filler: match sample.filter(|_| !plan.fills_keys()) {
                Some(sample) => Filler::new(sample.fill, begun, before.pop()),
                None => Filler::new(Fill::None, begun, None),
            },
            before_memory: before.iter().map(memory).sum(),
            before,
            groups: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            memory_max,
            memory: 0,
            ready_memory: 0,
            not_json: 0,
            matched: 0,
            counts_only: plan.counts_only(),
            uses_paths: inputs || shown || paths(&plan.keys) || plan.query.predicate.as_ref().is_some_and(asks_paths),
        })
    }

    /// Whether nothing is asked but how many events there were, and how many bytes their data.
    #[must_use]
    pub fn counts_only(&self) -> bool {
        self.counts_only
    }

    /// Takes one event.
    ///
    /// # Errors
    /// When more would be kept than may be, or it is not wanted any more.
    pub fn event(&mut self, event: &Event<'_>, watch: &Watch<'_>) -> Result<(), Stop> {
        watch.spent(EVENT)?;
        if self.is_too_early(event.received_us) {
            return Ok(());
        }
        self.not_json += u64::from(self.uses_paths && event.encoding != Encoding::Json);
        if let Some(predicate) = &self.plan.query.predicate
            && meets(predicate, event, watch)? != Some(true)
        {
            return Ok(());
        }
        self.matched += 1;
        match &self.plan.shape {
            Shape::Events => {
                watch.spent(event.data.len())?;
                self.keep(Ready::Row(Some(event.offset), vec![Cell::event(event)]));
            }
            Shape::Columns(columns) => {
                let row = self.cells(event, columns, watch)?;
                self.keep(Ready::Row(Some(event.offset), row));
            }
            Shape::Groups => {
                self.enter(event.received_us, watch)?;
                let group = self.group_of(event, watch)?;
                self.add(group, event, watch)?;
            }
        }
        Ok(self.check(0)?)
    }

    /// What the event has in these columns, if that may be kept as well.
    fn cells(&self, event: &Event<'_>, columns: &[Column], watch: &Watch<'_>) -> Result<Row, Stop> {
        let (mut row, mut held) = (Row::with_capacity(columns.len()), 0);
        for column in columns {
            watch.spent(Value::cost(event, column))?;
            let cell = Value::of(event, column).into_cell();
            held += cell.memory();
            self.check(held)?;
            row.push(cell);
        }
        Ok(row)
    }

    /// Whether what follows is received before FROM, which may be a time to come.
    fn is_too_early(&self, received_us: u64) -> bool {
        self.plan.query.follow && received_us < self.span.from
    }

    /// Whether everything from one time to the other is in one slice, which `count` may then be told of.
    #[must_use]
    pub fn is_one_slice(&self, first_us: u64, last_us: u64) -> bool {
        match &self.slicer {
            _ if self.is_too_early(first_us) => false,
            None => true,
            Some(slicer) if slicer.wants_origin() => false,
            Some(slicer) => match self.slice.filter(|slice| first_us < slice.end) {
                Some(slice) => last_us < slice.end,
                None => last_us < slicer.of(first_us).end,
            },
        }
    }

    /// Takes so many events of one slice with so many bytes of data, where nothing else is [asked for](Plan::counts_only).
    ///
    /// # Errors
    /// When more would be kept than may be, or it is not wanted any more.
    pub fn count(&mut self, events: u64, data_bytes: u64, received_us: u64, watch: &Watch<'_>) -> Result<(), Stop> {
        watch.spent(EVENT)?;
        self.matched += events;
        self.enter(received_us, watch)?;
        if self.groups.is_empty() {
            self.groups.push(Group::new(&self.plan, Vec::new()));
        }
        self.groups[0].count += events;
        self.groups[0].bytes += data_bytes;
        Ok(self.check(0)?)
    }

    /// Ends the open slice if the time is behind it.
    fn enter(&mut self, received_us: u64, watch: &Watch<'_>) -> Result<(), Unwanted> {
        let Some(slicer) = &mut self.slicer else { return Ok(()) };
        if self.slice.is_some_and(|slice| received_us < slice.end) {
            return Ok(());
        }
        slicer.begin_at(received_us);
        let slice = slicer.of(received_us);
        // Nothing can come any more before an event that is there.
        self.extend(received_us);
        self.close(watch)?;
        self.filler.begin_at(slice.start);
        self.slice = Some(slice);
        Ok(())
    }

    /// Ends the open slice if its time is over, and the empty ones behind it.
    ///
    /// # Errors
    /// When it is not wanted any more.
    pub fn tick(&mut self, now_us: u64, watch: &Watch<'_>) -> Result<(), Unwanted> {
        if self.slice.is_some_and(|slice| slice.end <= now_us) {
            self.close(watch)?;
            self.slice = None;
        }
        if let (None, Some(slicer)) = (self.slice, &self.slicer)
            && self.filler.next().is_some_and(|next| next < now_us)
            && let Some(empty) = self.filler.until(slicer.of(now_us).start, u64::MAX, None)
        {
            self.keep(Ready::Slices(empty));
        }
        Ok(())
    }

    /// When the next slice is over that a row is to be made of.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let of_empty = || self.slicer.as_ref().zip(self.filler.next()).map(|(slicer, next)| slicer.of(next).end);
        self.slice.map(|slice| slice.end).or_else(of_empty)
    }

    /// All events up to there were shown, also if none of them met the predicate: what follows can tell which slices are over.
    ///
    /// # Errors
    /// When it is not wanted any more.
    pub fn seen(&mut self, received_us: u64, watch: &Watch<'_>) -> Result<(), Unwanted> {
        if self.plan.query.follow && self.slicer.is_some() {
            self.extend(received_us);
            self.tick(received_us, watch)?;
        }
        Ok(())
    }

    /// The range goes on up to there.
    pub fn extend(&mut self, to: u64) {
        self.span.to = self.span.to.max(to);
        self.span.settled = self.span.settled.max(to);
    }

    /// All events were there: what is left becomes complete.
    ///
    /// # Errors
    /// When more would be kept than may be, or it is not wanted any more.
    pub fn finish(&mut self, watch: &Watch<'_>) -> Result<(), Stop> {
        if self.plan.shape != Shape::Groups {
            return Ok(());
        }
        if self.slicer.is_none() && self.groups.is_empty() && self.plan.keys.is_empty() {
            self.groups.push(Group::new(&self.plan, Vec::new()));
        }
        self.close(watch)?;
        if self.plan.fills_keys() {
            self.fill_keys(watch)?;
        } else if let Some(empty) = self.filler.until(self.span.to, self.span.settled, None) {
            self.keep(Ready::Slices(empty));
        }
        Ok(self.check(0)?)
    }

    fn fill_keys(&mut self, watch: &Watch<'_>) -> Result<(), Unwanted> {
        let mut rows = std::mem::take(&mut self.ready).into_iter().filter_map(Ready::into_row).peekable();
        // Where slices begin with the first event, so does the first of them.
        let first_observation = |sample: &Sample| sample.align == Align::FirstObservation;
        let from = match rows.peek().and_then(|row| row.first()) {
            Some(Cell::Time(first)) if self.plan.query.sample.as_ref().is_some_and(first_observation) => *first,
            _ => self.span.from,
        };
        let (range, before) = ((from, self.span.to, self.span.settled), std::mem::take(&mut self.before));
        let slices = of_each_key(&self.plan, range, (before, rows), watch)?;
        (self.ready_memory, self.before_memory) = (0, 0);
        self.keep(Ready::Slices(slices));
        Ok(())
    }

    /// Takes the next row that is complete: the last one if the query's order is descending. With it comes the offset of the
    /// event that it is, if it is one.
    pub fn take(&mut self) -> Option<(Option<u64>, Row)> {
        let descending = self.plan.query.descending;
        loop {
            let ready = if descending { self.ready.back_mut() } else { self.ready.front_mut() };
            if let (Some(Ready::Slices(slices)), Some(slicer)) = (ready, &self.slicer)
                && let Some(row) = slices.take(&self.plan, slicer)
            {
                return Some((None, row));
            }
            match if descending { self.ready.pop_back() } else { self.ready.pop_front() } {
                Some(Ready::Row(offset, row)) => return Some((offset, row)),
                Some(Ready::Slices(_)) => {}
                None => {
                    self.ready_memory = 0;
                    return None;
                }
            }
        }
    }

    /// Whether so many rows, or so many bytes of them, are to be taken.
    #[must_use]
    pub fn has_ready(&self, rows: u64, bytes: usize) -> bool {
        self.ready.len() as u64 >= rows || self.ready_memory >= bytes.min(self.memory_max / 2)
    }

    fn keep(&mut self, ready: Ready) {
        self.ready_memory += match &ready {
            Ready::Row(_, row) => memory(row),
            Ready::Slices(slices) => slices.memory(),
        };
        self.ready.push_back(ready);
    }

    /// Whether so many bytes may be kept besides.
    fn check(&self, more: usize) -> Result<(), Limit> {
        let kept = self.memory + self.ready_memory + self.before_memory;
        if kept + more > self.memory_max { Err(Limit::Memory) } else { Ok(()) }
    }

    /// The place of the group that an event belongs to.
    fn group_of(&mut self, event: &Event<'_>, watch: &Watch<'_>) -> Result<usize, Stop> {
        if self.plan.keys.is_empty() {
            if self.groups.is_empty() {
                self.groups.push(Group::new(&self.plan, Vec::new()));
            }
            return Ok(0);
        }
        let keys = self.cells(event, &self.plan.keys, watch)?;
        let mut identity = Vec::with_capacity(32);
        keys.iter().for_each(|key| key.identify(&mut identity));
        if let Some(&known) = self.by_key.get(&identity) {
            return Ok(known);
        }
        let states = self.plan.functions.len() * size_of::<State>();
        self.memory += size_of::<Group>() + states + identity.len() + keys.iter().map(Cell::memory).sum::<usize>();
        self.by_key.insert(identity, self.groups.len());
        self.groups.push(Group::new(&self.plan, keys));
        Ok(self.groups.len() - 1)
    }

    fn add(&mut self, group: usize, event: &Event<'_>, watch: &Watch<'_>) -> Result<(), Stop> {
        let group = &mut self.groups[group];
        group.count += 1;
        group.bytes += event.data.len() as u64;
        if self.plan.sources.contains(&Source::FirstEvent) {
            watch.spent(event.data.len())?;
            group.first.get_or_insert_with(|| {
                let first = Cell::event(event);
                self.memory += first.memory();
                first
            });
            self.memory -= group.last.1.len();
            group.last.0 = event.offset;
            group.last.1.clear();
            event.encode(&mut group.last.1);
            self.memory += group.last.1.len();
        }
        let others = self.ready_memory + self.before_memory;
        for (column, places) in &self.plan.inputs {
            watch.spent(Value::cost(event, column))?;
            let value = Value::of(event, column);
            for &place in places.iter().filter(|_| value != Value::Null) {
                self.memory = self.memory.saturating_add_signed(group.states[place].add(&value));
                if self.memory + others > self.memory_max {
                    return Err(Limit::Memory.into());
                }
            }
        }
        Ok(())
    }

    /// Makes rows of the open slice.
    fn close(&mut self, watch: &Watch<'_>) -> Result<(), Unwanted> {
        let slice = self.slice.unwrap_or(Slice { start: self.span.from, end: self.span.to });
        let groups = std::mem::take(&mut self.groups);
        self.by_key.clear();
        self.memory = 0;
        let quantiles = self.plan.functions.iter().filter(|function| matches!(function, Function::Quantile(_))).count();
        for mut group in groups {
            watch.spent(EVENT + self.plan.sources.len() * STEP + quantiles * QUANTILE)?;
            let row: Row = self.plan.sources.iter().map(|source| self.cell(*source, slice, &mut group)).collect();
            if let Some(empty) = self.filler.before_row(slice, &row) {
                self.keep(Ready::Slices(empty));
            }
            self.keep(Ready::Row(None, row));
        }
        Ok(())
    }

    fn cell(&self, source: Source, slice: Slice, group: &mut Group) -> Cell {
        match source {
            Source::Start => Cell::Time(slice.start),
            Source::Partial => Cell::Bool(slice.end > self.span.settled),
            Source::Key(place) => group.keys[place].clone(),
            Source::FirstEvent => group.first.take().unwrap_or(Cell::Null),
            Source::LastEvent => Cell::Event(group.last.0, group.last.1.as_slice().into()),
            Source::State(place) => match self.plan.functions[place] {
                Function::Count => Cell::Integer(group.count as i64),
                Function::Bytes => Cell::Integer(group.bytes as i64),
                Function::Rate => {
                    let (start, end) =
                        (slice.start.max(self.span.from), slice.end.min(self.span.settled).min(self.span.to));
                    let seconds = end.saturating_sub(start).max(1) as f64 / 1e6;
                    Cell::Number(group.count as f64 / seconds)
                }
                _ => group.states[place].cell(),
            },
        }
    }
}

impl Group {
    fn new(plan: &Plan, keys: Vec<Cell>) -> Self {
        let states = plan.functions.iter().map(|&function| State::new(function)).collect();
        Self { keys, count: 0, bytes: 0, states, first: None, last: (0, Vec::new()) }
    }
}

impl Ready {
    fn into_row(self) -> Option<Row> {
        match self {
            Self::Row(_, row) => Some(row),
            Self::Slices(_) => None,
        }
    }
}

fn asks_paths(predicate: &super::syntax::Predicate) -> bool {
    use super::syntax::Predicate;
    match predicate {
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().any(asks_paths),
        Predicate::Not(inside) => asks_paths(inside),
        Predicate::Test(column, _) => matches!(column, Column::Path(_)),
    }
}
