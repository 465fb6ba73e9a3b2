//! What is kept of the events of a slice. Numbers are added exactly as long as they are whole; percentiles and distinct
//! counts are exact up to [`QUERY_EXACT_MAX`] values, then sketches: DDSketch with a relative error of 1 %, HyperLogLog
//! with a standard error of 1.6 %.

use super::syntax::Function;
use super::value::{Cell, Value};
use crate::limits::QUERY_EXACT_MAX;
use cardinality_estimator::CardinalityEstimator;
use sketches_ddsketch::{Config, DDSketch};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::BuildHasher;

/// Relative error of percentiles of many values: 1 % with room for what doubles are rounded by.
const QUANTILE_ERROR: f64 = 0.009_99;
const QUANTILE_BINS: u32 = 2048;
const QUANTILE_SMALLEST: f64 = 1e-9;

/// The state of one aggregate.
pub(super) enum State {
    /// Of `count()`, `bytes()` and `rate()`: kept once for all of them.
    Counted,
    First(Cell),
    Last(Cell),
    Extreme(Ordering, Cell),
    Sum(Sum),
    Average(Sum, u64),
    Distinct(Distinct),
    Quantile(f64, Quantiles),
}

impl State {
    pub(super) fn new(function: Function) -> Self {
        match function {
            Function::Count | Function::Bytes | Function::Rate => Self::Counted,
            Function::First => Self::First(Cell::Null),
            Function::Last => Self::Last(Cell::Null),
            Function::Min => Self::Extreme(Ordering::Less, Cell::Null),
            Function::Max => Self::Extreme(Ordering::Greater, Cell::Null),
            Function::Sum => Self::Sum(Sum::Nothing),
            Function::Average => Self::Average(Sum::Nothing, 0),
            Function::CountDistinct => Self::Distinct(Distinct::Exact(HashSet::new())),
            Function::Quantile(part) => Self::Quantile(part, Quantiles::Exact(Vec::new())),
        }
    }

    /// Takes a value that is not NULL. Returns by how many bytes it grew, or shrank.
    pub(super) fn add(&mut self, value: &Value<'_>) -> isize {
        match self {
            Self::Counted => 0,
            Self::First(first) => {
                if *first == Cell::Null {
                    return replace(first, value.clone().into_cell());
                }
                0
            }
            Self::Last(last) => replace(last, value.clone().into_cell()),
            Self::Extreme(wanted, extreme) => {
                // Numbers are the usual case.
                let order = match (value, &*extreme) {
                    (Value::Number(one), Cell::Number(other)) => one.partial_cmp(other),
                    _ => {
                        let cell = value.clone().into_cell();
                        if *extreme == Cell::Null { cell.order(&cell).map(|_| *wanted) } else { cell.order(extreme) }
                    }
                };
                if order == Some(*wanted) { replace(extreme, value.clone().into_cell()) } else { 0 }
            }
            Self::Sum(sum) => {
                sum.add(value);
                0
            }
            Self::Average(sum, count) => {
                *count += u64::from(sum.add(value));
                0
            }
            Self::Distinct(distinct) => distinct.add(value),
            Self::Quantile(_, quantiles) => value.number().map_or(0, |number| quantiles.add(number)),
        }
    }

    pub(super) fn cell(&mut self) -> Cell {
        match self {
            Self::First(cell) | Self::Last(cell) | Self::Extreme(_, cell) => std::mem::replace(cell, Cell::Null),
            Self::Counted | Self::Sum(Sum::Nothing) | Self::Average(Sum::Nothing, _) => Cell::Null,
            Self::Sum(Sum::Whole(sum)) => i64::try_from(*sum).map_or(Cell::Number(*sum as f64), Cell::Integer),
            Self::Sum(Sum::Parts(sum, rest)) => Cell::finite(*sum + *rest),
            Self::Average(Sum::Whole(sum), count) => Cell::Number(*sum as f64 / *count as f64),
            Self::Average(Sum::Parts(sum, rest), count) => Cell::finite((*sum + *rest) / *count as f64),
            Self::Distinct(distinct) => Cell::Integer(distinct.count() as i64),
            Self::Quantile(part, quantiles) => quantiles.at(*part).map_or(Cell::Null, Cell::Number),
        }
    }
}

fn replace(cell: &mut Cell, new: Cell) -> isize {
    let grown = new.memory() as isize - cell.memory() as isize;
    *cell = new;
    grown
}

/// A sum: exact while all numbers are whole, else compensated (Neumaier).
pub(super) enum Sum {
    Nothing,
    Whole(i128),
    Parts(f64, f64),
}

impl Sum {
    /// Adds a number; false for anything else.
    fn add(&mut self, value: &Value<'_>) -> bool {
        let Some(number) = value.number() else { return false };
        *self = match (&*self, value) {
            (Self::Nothing, Value::Integer(integer)) => Self::Whole(i128::from(*integer)),
            (Self::Whole(sum), Value::Integer(integer)) => Self::Whole(sum + i128::from(*integer)),
            (Self::Nothing, _) => Self::Parts(number, 0.0),
            (Self::Whole(sum), _) => compensated(*sum as f64, 0.0, number),
            (Self::Parts(sum, rest), _) => compensated(*sum, *rest, number),
        };
        true
    }
}

fn compensated(sum: f64, rest: f64, number: f64) -> Sum {
    let new = sum + number;
    let lost = if sum.abs() >= number.abs() { (sum - new) + number } else { (number - new) + sum };
    Sum::Parts(new, rest + lost)
}

/// How many different values there were.
pub(super) enum Distinct {
    Exact(HashSet<u64>),
    Sketch(Box<CardinalityEstimator<u64>>),
}

impl Distinct {
    fn add(&mut self, value: &Value<'_>) -> isize {
        let mut identity = Vec::with_capacity(32);
        value.clone().into_cell().identify(&mut identity);
        let hash = foldhash::quality::FixedState::default().hash_one(&identity);
        match self {
            Self::Exact(hashes) => {
                let new = hashes.insert(hash);
                if hashes.len() > QUERY_EXACT_MAX {
                    let mut sketch = Box::new(CardinalityEstimator::new());
                    hashes.iter().for_each(|hash| sketch.insert_hash(*hash));
                    *self = Self::Sketch(sketch);
                    return 4096;
                }
                if new { 16 } else { 0 }
            }
            Self::Sketch(sketch) => {
                sketch.insert_hash(hash);
                0
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Exact(hashes) => hashes.len(),
            Self::Sketch(sketch) => sketch.estimate(),
        }
    }
}

/// Where parts of all numbers end.
pub(super) enum Quantiles {
    Exact(Vec<f64>),
    Sketch(Box<DDSketch>),
}

impl Quantiles {
    fn add(&mut self, number: f64) -> isize {
        match self {
            Self::Exact(numbers) if numbers.len() < QUERY_EXACT_MAX => {
                numbers.push(number);
                size_of::<f64>() as isize
            }
            Self::Exact(numbers) => {
                let mut sketch = DDSketch::new(Config::new(QUANTILE_ERROR, QUANTILE_BINS, QUANTILE_SMALLEST));
                numbers.drain(..).chain([number]).for_each(|number| sketch.add(number));
                *self = Self::Sketch(Box::new(sketch));
                QUANTILE_BINS as isize * size_of::<u64>() as isize
            }
            Self::Sketch(sketch) => {
                sketch.add(number);
                0
            }
        }
    }

    /// The smallest number that at least this part of all numbers does not exceed.
    fn at(&mut self, part: f64) -> Option<f64> {
        match self {
            Self::Exact(numbers) => {
                let rank = (part * numbers.len() as f64).ceil() as usize;
                let rank = rank.clamp(1, numbers.len().max(1)) - 1;
                (rank < numbers.len()).then(|| *numbers.select_nth_unstable_by(rank, f64::total_cmp).1)
            }
            Self::Sketch(sketch) => {
                // It rounds the rank down, of all but one of them: what it is asked for is between the one that is meant
                // and the next.
                let rank = (part * sketch.count() as f64).ceil() - 1.0;
                sketch.quantile(((rank + 0.5) / (sketch.count() as f64 - 1.0)).min(1.0)).ok().flatten()
            }
        }
    }
}
