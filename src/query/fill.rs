//! Rows for slices without events.

use super::plan::{Kind, Plan, Source};
use super::slice::{Slice, Slicer};
use super::syntax::Fill;
use super::value::Cell;
use std::collections::HashMap;

/// A row.
pub type Row = Vec<Cell>;

/// Puts rows for empty slices between those of others.
pub(super) struct Filler {
    fill: Fill,
    /// Where filling goes on: the start of the next slice.
    next: Option<u64>,
    /// The row before.
    before: Option<Row>,
    /// Where the row before stands in time.
    before_start: u64,
    /// What stands in the plain columns of all its rows.
    keys: Vec<Cell>,
}

impl Filler {
    /// `from` is the beginning of the range, `before` the row of the last slice before it that has any events.
    pub(super) fn new(fill: Fill, from: Option<u64>, before: Option<Row>, keys: Vec<Cell>) -> Self {
        Self { fill, next: from, before, before_start: 0, keys }
    }

    pub(super) fn begin_at(&mut self, start: u64) {
        self.next.get_or_insert(start);
    }

    /// Takes the row of a slice that has events; it follows those of the empty ones before it.
    pub(super) fn row(&mut self, plan: &Plan, slicer: &Slicer, slice: Slice, row: Row, out: &mut impl FnMut(Row)) {
        self.empty(plan, slicer, (slice.start, u64::MAX), Some(&row), usize::MAX, out);
        self.next = Some(slice.end);
        if matches!(self.fill, Fill::Previous | Fill::Linear) {
            self.before = Some(row.clone());
            self.before_start = slice.start;
        }
        out(row);
    }

    /// Rows for the empty slices up to `until`, at most `rows_max`; those that reach beyond `to` are open. Returns whether there
    /// are more.
    pub(super) fn empty(
        &mut self,
        plan: &Plan,
        slicer: &Slicer,
        (until, to): (u64, u64),
        behind: Option<&Row>,
        rows_max: usize,
        out: &mut impl FnMut(Row),
    ) -> bool {
        if self.fill == Fill::None {
            return false;
        }
        let mut rows = 0;
        while let Some(next) = self.next.filter(|&next| next < until) {
            let slice = slicer.of(next);
            if slice.start >= until {
                break;
            }
            if rows == rows_max {
                return true;
            }
            rows += 1;
            let part = (slice.start.saturating_sub(self.before_start)) as f64
                / until.saturating_sub(self.before_start).max(1) as f64;
            let cell = |(column, source): (usize, &Source)| match source {
                Source::Start => Cell::Time(slice.start),
                Source::Partial => Cell::Bool(slice.end > to),
                Source::Key(place) => self.keys[*place].clone(),
                Source::State(_) | Source::FirstEvent | Source::LastEvent => match self.fill {
                    Fill::Previous => self.before.as_ref().map_or(Cell::Null, |row| row[column].clone()),
                    Fill::Linear => self.before.as_ref().zip(behind).map_or(Cell::Null, |(before, behind)| {
                        match (before[column].number(), behind[column].number()) {
                            (Some(before), Some(behind)) => Cell::finite(before + (behind - before) * part),
                            _ => Cell::Null,
                        }
                    }),
                    Fill::Number(number) => constant(plan.headings[column].kind, number),
                    Fill::Null | Fill::None => Cell::Null,
                },
            };
            out(plan.sources.iter().enumerate().map(cell).collect());
            self.next = Some(slice.end);
        }
        false
    }
}

/// Fills the slices of each combination of keys that there is in `rows`, which are in the order of their slices and let no
/// more than `rows_max` come of it: a row for each slice and combination, in the order in which these came first. `before` are
/// rows of the slice before the range, `ends` as for [`Filler::empty`]. `None` when that is too many.
pub(super) fn fill_keys(
    plan: &Plan,
    (slicer, fill): (&Slicer, Fill),
    (from, ends): (u64, (u64, u64)),
    (before, rows): (Vec<Row>, impl Iterator<Item = Row>),
    rows_max: u64,
) -> Option<Vec<Row>> {
    let keys = |row: &Row| -> Vec<Cell> {
        let of_key = |(cell, source): (&Cell, &Source)| matches!(source, Source::Key(_)).then(|| cell.clone());
        row.iter().zip(&plan.sources).filter_map(of_key).collect()
    };
    let identity = |keys: &[Cell]| {
        let mut identity = Vec::new();
        keys.iter().for_each(|key| key.identify(&mut identity));
        identity
    };
    let mut before: HashMap<Vec<u8>, Row> = before.into_iter().map(|row| (identity(&keys(&row)), row)).collect();
    let (mut known, mut filled) = (HashMap::new(), Vec::<(Filler, Vec<Row>)>::new());
    let slices = slicer.count(from, ends.0) + 1;
    for row in rows {
        let own = keys(&row);
        let name = identity(&own);
        let place = *known.entry(name).or_insert_with_key(|name| {
            filled.push((Filler::new(fill, Some(from), before.remove(name), own), Vec::new()));
            filled.len() - 1
        });
        if slices.saturating_mul(filled.len() as u64) > rows_max {
            return None;
        }
        let (filler, out) = &mut filled[place];
        if let Some(&Cell::Time(start)) = row.first() {
            filler.row(plan, slicer, slicer.of(start), row, &mut |row| out.push(row));
        }
    }
    for (filler, out) in &mut filled {
        filler.empty(plan, slicer, ends, None, usize::MAX, &mut |row| out.push(row));
    }
    let mut each: Vec<_> = filled.into_iter().map(|(_, rows)| rows.into_iter()).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(each.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return Some(all);
        }
    }
}

/// The number in a column of numbers.
fn constant(kind: Kind, number: f64) -> Cell {
    match kind {
        Kind::Integer | Kind::Number | Kind::Json if number.fract() == 0.0 && number.abs() < 1e15 => {
            Cell::Integer(number as i64)
        }
        Kind::Integer | Kind::Number | Kind::Json => Cell::Number(number),
        Kind::Text | Kind::Time | Kind::Boolean | Kind::Event => Cell::Null,
    }
}
