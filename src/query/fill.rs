//! Rows for slices without events.

use super::plan::{Kind, Plan, Source};
use super::slice::{Slice, Slicer};
use super::syntax::Fill;
use super::value::Cell;

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
}

impl Filler {
    /// `from` is the beginning of the range, `before` the row of the last slice before it that has any events.
    pub(super) fn new(fill: Fill, from: Option<u64>, before: Option<Row>) -> Self {
        Self { fill, next: from, before, before_start: 0 }
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
                Source::Key(_) => Cell::Null,
                Source::State(_) | Source::FirstEvent | Source::LastEvent => match self.fill {
                    Fill::Previous => self.before.as_ref().map_or(Cell::Null, |row| row[column].clone()),
                    Fill::Linear => self.before.as_ref().zip(behind).map_or(Cell::Null, |(before, behind)| {
                        match (before[column].number(), behind[column].number()) {
                            (Some(before), Some(behind)) => Cell::Number(before + (behind - before) * part),
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
