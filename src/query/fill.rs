//! Rows for slices without events. They are made when they are taken, so that many empty slices need no memory.

use super::plan::{Kind, Plan, Source};
use super::slice::{Slice, Slicer};
use super::syntax::Fill;
use super::value::Cell;
use super::watch::{Unwanted, Watch};
use std::collections::HashMap;

/// A row.
pub type Row = Vec<Cell>;

/// Slices one behind the other, all of them empty but those that have rows here; taken from either end.
pub(super) struct Slices {
    /// Where the first one begins, or a time in it.
    from: u64,
    /// Where the last one ends, or a time behind its start.
    until: u64,
    /// One that reaches beyond is open.
    settled: u64,
    /// Each has a row in each slice, in this order.
    series: Vec<Series>,
    /// How many of them had theirs of the slice that is next.
    given: usize,
    /// Bytes that the rows hold.
    memory: usize,
}

/// What has the same values in plain columns, slice by slice.
#[derive(Default)]
struct Series {
    keys: Vec<Cell>,
    /// The row of the last slice before all of `rows`.
    before: Option<Row>,
    /// Rows of slices that are not empty, in order.
    rows: Vec<Row>,
}

impl Slices {
    /// The next row, which is the last one if the query's order is descending.
    pub(super) fn take(&mut self, plan: &Plan, slicer: &Slicer) -> Option<Row> {
        if self.from >= self.until || self.series.is_empty() {
            return None;
        }
        let descending = plan.query.descending;
        let slice = slicer.of(if descending { self.until - 1 } else { self.from });
        let last = self.series.len() - 1;
        let series = &self.series[if descending { last - self.given } else { self.given }];
        self.given += 1;
        if self.given > last {
            self.given = 0;
            *(if descending { &mut self.until } else { &mut self.from }) =
                if descending { slice.start } else { slice.end };
        }
        Some(series.row(plan, slice, self.settled))
    }

    /// Bytes of memory that they hold.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }
}

impl Series {
    fn row(&self, plan: &Plan, slice: Slice, settled: u64) -> Row {
        let place = self.rows.partition_point(|row| start(row) < slice.start);
        let behind = self.rows.get(place);
        if let Some(own) = behind.filter(|row| start(row) == slice.start) {
            return own.clone();
        }
        let before = place.checked_sub(1).map_or(self.before.as_ref(), |place| self.rows.get(place));
        let fill = plan.query.sample.as_ref().map_or(Fill::None, |sample| sample.fill);
        let cell = |(column, source): (usize, &Source)| match source {
            Source::Start => Cell::Time(slice.start),
            Source::Partial => Cell::Bool(slice.end > settled),
            Source::Key(place) => self.keys[*place].clone(),
            Source::State(_) | Source::FirstEvent | Source::LastEvent => match fill {
                Fill::Previous => before.map_or(Cell::Null, |row| row[column].clone()),
                Fill::Linear => before.zip(behind).map_or(Cell::Null, |rows| between(rows, column, slice.start)),
                Fill::Whole(number) => constant(plan.headings[column].kind, Cell::Integer(number)),
                Fill::Number(number) => constant(plan.headings[column].kind, Cell::Number(number)),
                Fill::Null | Fill::None => Cell::Null,
            },
        };
        plan.sources.iter().enumerate().map(cell).collect()
    }
}

/// Finds the empty slices between those that have events.
pub(super) struct Filler {
    fill: Fill,
    /// Where filling goes on: the start of the next slice.
    next: Option<u64>,
    /// The row before.
    before: Option<Row>,
}

impl Filler {
    /// `from` is the beginning of the range, `before` the row of the last slice before it that has any events.
    pub(super) fn new(fill: Fill, from: Option<u64>, before: Option<Row>) -> Self {
        Self { fill, next: from, before }
    }

    pub(super) fn begin_at(&mut self, start: u64) {
        self.next.get_or_insert(start);
    }

    /// Where the next empty slice begins, if its row can be made before it is known what follows.
    pub(super) fn next(&self) -> Option<u64> {
        self.next.filter(|_| !matches!(self.fill, Fill::None | Fill::Linear))
    }

    /// The empty slices before one that has events and this row.
    pub(super) fn before_row(&mut self, slice: Slice, row: &Row) -> Option<Slices> {
        let empty = self.until(slice.start, u64::MAX, Some(row));
        self.next = Some(slice.end);
        if matches!(self.fill, Fill::Previous | Fill::Linear) {
            self.before = Some(row.clone());
        }
        empty
    }

    /// The empty slices up to `until`; those that reach beyond `settled` are open. `behind` is the row that comes next.
    pub(super) fn until(&mut self, until: u64, settled: u64, behind: Option<&Row>) -> Option<Slices> {
        let from = self.next.filter(|&next| self.fill != Fill::None && next < until)?;
        self.next = Some(until);
        let before = self.before.clone();
        let rows: Vec<Row> = behind.filter(|_| self.fill == Fill::Linear).cloned().into_iter().collect();
        let memory = rows.iter().chain(&before).map(memory).sum();
        let series = vec![Series { before, rows, ..Series::default() }];
        Some(Slices { from, until, settled, series, given: 0, memory })
    }
}

/// All slices from one time to the other, of each combination of keys that there is in `rows`, which are in the order of
/// their slices; the combinations come in the order in which they came first. `before` are rows of the slice before the range.
pub(super) fn of_each_key(
    plan: &Plan,
    (from, until, settled): (u64, u64, u64),
    (before, rows): (Vec<Row>, impl Iterator<Item = Row>),
    watch: &Watch<'_>,
) -> Result<Slices, Unwanted> {
    let keys = |row: &Row| -> Vec<Cell> {
        let of_key = |(cell, source): (&Cell, &Source)| matches!(source, Source::Key(_)).then(|| cell.clone());
        row.iter().zip(&plan.sources).filter_map(of_key).collect()
    };
    let identity = |keys: &[Cell]| {
        let mut identity = Vec::new();
        keys.iter().for_each(|key| key.identify(&mut identity));
        identity
    };
    let mut by_keys = HashMap::with_capacity(before.len());
    for row in before {
        watch.spent(memory(&row))?;
        by_keys.insert(identity(&keys(&row)), row);
    }
    let (mut known, mut series, mut held) = (HashMap::new(), Vec::<Series>::new(), 0);
    for row in rows {
        watch.spent(memory(&row))?;
        held += memory(&row);
        let own = keys(&row);
        let place = *known.entry(identity(&own)).or_insert_with_key(|name| {
            let before = by_keys.remove(name);
            held += before.as_ref().map_or(0, memory);
            series.push(Series { keys: own, before, rows: Vec::new() });
            series.len() - 1
        });
        series[place].rows.push(row);
    }
    Ok(Slices { from, until, settled, series, given: 0, memory: held })
}

/// Bytes of memory that a row holds.
pub(super) fn memory(row: &Row) -> usize {
    size_of::<(Option<u64>, Row)>() + row.iter().map(Cell::memory).sum::<usize>()
}

/// Where its slice begins.
fn start(row: &Row) -> u64 {
    match row.first() {
        Some(Cell::Time(start)) => *start,
        _ => 0,
    }
}

/// What stands at a time on the line between two rows.
fn between((before, behind): (&Row, &Row), column: usize, time: u64) -> Cell {
    match (before[column].number(), behind[column].number()) {
        (Some(one), Some(other)) => {
            let (begun, all) = (start(before), start(behind) - start(before));
            let part = (time - begun) as f64 / all as f64;
            Cell::finite(one + (other - one) * part)
        }
        _ => Cell::Null,
    }
}

/// The number in a column of numbers.
fn constant(kind: Kind, number: Cell) -> Cell {
    match kind {
        Kind::Integer | Kind::Number | Kind::Json => number,
        Kind::Text | Kind::Time | Kind::Boolean | Kind::Event => Cell::Null,
    }
}
