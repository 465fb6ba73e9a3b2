//! A query under way: events in, in the order of their offsets, and rows out.

use super::aggregate::State;
pub use super::fill::Row;
use super::fill::{Filler, fill_keys};
use super::filter::meets;
use super::plan::{Plan, Shape, Source};
use super::slice::{Slice, Slicer};
use super::syntax::{Align, Column, Fill, Function};
use super::value::{Cell, Value};
use crate::limits::QUERY_SLICES_MAX;
use crate::log::event::{Encoding, Event};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Rows that stand for empty slices and are made at once.
const FILLED_AT_ONCE: usize = 4096;

/// What a query would need more of than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Groups, distinct values and rows that wait.
    Memory,
    /// Slices of the range.
    Slices,
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

/// A query under way.
pub struct Running {
    plan: Arc<Plan>,
    span: Span,
    slicer: Option<Slicer>,
    slice: Option<Slice>,
    filler: Filler,
    /// Rows of the slice before, for FILL(PREV) of each combination of keys.
    before: Vec<Row>,
    groups: Vec<Group>,
    by_key: HashMap<Vec<u8>, usize>,
    /// Rows that are complete, each with the offset of the event that it is, if it is one.
    pub rows: VecDeque<(Option<u64>, Row)>,
    memory_max: usize,
    /// Bytes that the groups of the open slice hold.
    memory: usize,
    /// Bytes of rows since the last look.
    row_memory: usize,
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
        // What stands for empty slices is made at once, however wide its rows are.
        let width = (plan.headings.len() as u64 / 4).max(1);
        let slices = slicer.as_ref().map_or(0, |slicer| slicer.count(span.from, span.to));
        if slices.saturating_mul(width) > QUERY_SLICES_MAX {
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
                Some(sample) => Filler::new(sample.fill, begun, before.pop(), Vec::new()),
                None => Filler::new(Fill::None, begun, None, Vec::new()),
            },
            before,
            groups: Vec::new(),
            by_key: HashMap::new(),
            rows: VecDeque::new(),
            memory_max,
            memory: 0,
            row_memory: 0,
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
    /// When more would be kept than may be.
    pub fn event(&mut self, event: &Event<'_>) -> Result<(), Limit> {
        self.not_json += u64::from(self.uses_paths && event.encoding != Encoding::Json);
        if let Some(predicate) = &self.plan.query.predicate
            && meets(predicate, event) != Some(true)
        {
            return Ok(());
        }
        self.matched += 1;
        match &self.plan.shape {
            Shape::Events => self.push(event.offset, vec![Cell::event(event)]),
            Shape::Columns(columns) => {
                let cell = |column| Value::of(event, column).into_cell();
                self.push(event.offset, columns.iter().map(cell).collect());
            }
            Shape::Groups => {
                self.enter(event.received_us);
                let group = self.group_of(event);
                self.memory = self.memory.saturating_add_signed(self.add(group, event));
            }
        }
        self.check()
    }

    /// Whether everything from one time to the other is in one slice, which `count` may then be told of.
    #[must_use]
    pub fn is_one_slice(&self, first_us: u64, last_us: u64) -> bool {
        match &self.slicer {
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
    /// When more would be kept than may be.
    pub fn count(&mut self, events: u64, data_bytes: u64, received_us: u64) -> Result<(), Limit> {
        self.matched += events;
        self.enter(received_us);
        if self.groups.is_empty() {
            self.groups.push(Group::new(&self.plan, Vec::new()));
        }
        self.groups[0].count += events;
        self.groups[0].bytes += data_bytes;
        self.check()
    }

    /// Ends the open slice if the time is behind it.
    pub fn enter(&mut self, received_us: u64) {
        let Some(slicer) = &mut self.slicer else { return };
        if self.slice.is_some_and(|slice| received_us < slice.end) {
            return;
        }
        slicer.begin_at(received_us);
        let slice = slicer.of(received_us);
        self.close();
        self.filler.begin_at(slice.start);
        self.slice = Some(slice);
    }

    /// Ends the open slice, whose time is over, also if nothing came in it. Returns when the next one is over.
    pub fn tick(&mut self, now_us: u64) -> Option<u64> {
        if self.slice?.end <= now_us {
            self.close();
            self.slice = None;
        }
        self.slice.map(|slice| slice.end)
    }

    /// The range goes on up to there.
    pub fn extend(&mut self, to: u64) {
        self.span.to = self.span.to.max(to);
        self.span.settled = self.span.settled.max(to);
    }

    /// Makes rows that are left, some thousands at once. Returns whether there are more.
    ///
    /// # Errors
    /// When more would be kept than may be.
    pub fn finish(&mut self) -> Result<bool, Limit> {
        if self.plan.shape != Shape::Groups {
            return Ok(false);
        }
        if self.slicer.is_none() && self.groups.is_empty() && self.plan.keys.is_empty() {
            self.groups.push(Group::new(&self.plan, Vec::new()));
        }
        self.close();
        if self.plan.fills_keys() {
            self.fill_keys()?;
        }
        // Those that are turned around wait for the last one.
        let at_once = if self.plan.reversed() { usize::MAX } else { FILLED_AT_ONCE };
        let mut more = false;
        if let Some(slicer) = self.slicer.as_ref().filter(|slicer| !slicer.wants_origin()) {
            let ends = (self.span.to, self.span.settled);
            let kept = (&mut self.rows, &mut self.row_memory);
            more = self.filler.empty(&self.plan, slicer, ends, None, at_once, &mut |row| keep(kept.0, kept.1, row));
        }
        if self.plan.reversed() {
            self.rows.make_contiguous().reverse();
        }
        self.check().map(|()| more)
    }

    fn fill_keys(&mut self) -> Result<(), Limit> {
        let (Some(slicer), Some(sample)) = (&self.slicer, &self.plan.query.sample) else { return Ok(()) };
        // Where slices begin with the first event, so does the first of them.
        let from = match self.rows.front().and_then(|(_, row)| row.first()) {
            Some(Cell::Time(first)) if sample.align == Align::FirstObservation => *first,
            _ => self.span.from,
        };
        let range = (from, (self.span.to, self.span.settled));
        let rows = (std::mem::take(&mut self.before), self.rows.drain(..).map(|(_, row)| row));
        let width = (self.plan.headings.len() as u64 / 4).max(1);
        let filled = fill_keys(&self.plan, (slicer, sample.fill), range, rows, QUERY_SLICES_MAX / width);
        self.row_memory = 0;
        for row in filled.ok_or(Limit::Slices)? {
            keep(&mut self.rows, &mut self.row_memory, row);
        }
        Ok(())
    }

    /// All rows were taken.
    pub fn taken(&mut self) {
        debug_assert!(self.rows.is_empty());
        self.row_memory = 0;
    }

    fn push(&mut self, offset: u64, row: Row) {
        self.row_memory += row.iter().map(Cell::memory).sum::<usize>();
        self.rows.push_back((Some(offset), row));
    }

    fn check(&self) -> Result<(), Limit> {
        if self.memory + self.row_memory > self.memory_max { Err(Limit::Memory) } else { Ok(()) }
    }

    /// The place of the group that an event belongs to.
    fn group_of(&mut self, event: &Event<'_>) -> usize {
        if self.plan.keys.is_empty() {
            if self.groups.is_empty() {
                self.groups.push(Group::new(&self.plan, Vec::new()));
            }
            return 0;
        }
        let keys: Vec<Cell> = self.plan.keys.iter().map(|column| Value::of(event, column).into_cell()).collect();
        let mut identity = Vec::with_capacity(32);
        keys.iter().for_each(|key| key.identify(&mut identity));
        if let Some(&known) = self.by_key.get(&identity) {
            return known;
        }
        let states = self.plan.functions.len() * size_of::<State>();
        self.memory += size_of::<Group>() + states + identity.len() + keys.iter().map(Cell::memory).sum::<usize>();
        self.by_key.insert(identity, self.groups.len());
        self.groups.push(Group::new(&self.plan, keys));
        self.groups.len() - 1
    }

    fn add(&mut self, group: usize, event: &Event<'_>) -> isize {
        let group = &mut self.groups[group];
        group.count += 1;
        group.bytes += event.data.len() as u64;
        if self.plan.sources.contains(&Source::FirstEvent) {
            group.first.get_or_insert_with(|| Cell::event(event));
            group.last.0 = event.offset;
            group.last.1.clear();
            event.encode(&mut group.last.1);
        }
        let mut grown = 0;
        for (column, places) in &self.plan.inputs {
            let value = Value::of(event, column);
            if value != Value::Null {
                grown += places.iter().map(|&place| group.states[place].add(&value)).sum::<isize>();
            }
        }
        grown
    }

    /// Makes rows of the open slice.
    fn close(&mut self) {
        let slice = self.slice.unwrap_or(Slice { start: self.span.from, end: self.span.to });
        let groups = std::mem::take(&mut self.groups);
        self.by_key.clear();
        self.memory = 0;
        for mut group in groups {
            let row: Row = self.plan.sources.iter().map(|source| self.cell(*source, slice, &mut group)).collect();
            let kept = (&mut self.rows, &mut self.row_memory);
            match &self.slicer {
                Some(slicer) => {
                    self.filler.row(&self.plan, slicer, slice, row, &mut |row| keep(kept.0, kept.1, row));
                }
                None => keep(kept.0, kept.1, row),
            }
        }
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

/// Keeps a row that is no event.
fn keep(rows: &mut VecDeque<(Option<u64>, Row)>, memory: &mut usize, row: Row) {
    *memory += row.iter().map(Cell::memory).sum::<usize>();
    rows.push_back((None, row));
}

fn asks_paths(predicate: &super::syntax::Predicate) -> bool {
    use super::syntax::Predicate;
    match predicate {
        Predicate::And(parts) | Predicate::Or(parts) => parts.iter().any(asks_paths),
        Predicate::Not(inside) => asks_paths(inside),
        Predicate::Test(column, _) => matches!(column, Column::Path(_)),
    }
}
