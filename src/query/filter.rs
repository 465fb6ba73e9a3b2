//! Whether an event meets a predicate. What is not there, or of another kind, is neither: as in SQL, NULL.

use super::syntax::{Comparison, Constant, Predicate, Test};
use super::value::Value;
use super::watch::{Unwanted, Watch};
use crate::log::event::Event;
use std::cmp::Ordering;

/// Whether the event meets it; `None` if nobody can say.
pub(super) fn meets(predicate: &Predicate, event: &Event<'_>, watch: &Watch<'_>) -> Result<Option<bool>, Unwanted> {
    match predicate {
        Predicate::And(parts) => all(parts, event, false, watch),
        Predicate::Or(parts) => all(parts, event, true, watch),
        Predicate::Not(inside) => Ok(meets(inside, event, watch)?.map(|met| !met)),
        Predicate::Test(column, test) => {
            watch.spent(Value::cost(event, column))?;
            Ok(passes(test, &Value::of(event, column)))
        }
    }
}

/// The first part that is `decisive`, else NULL if any part is, else the opposite.
fn all(parts: &[Predicate], event: &Event<'_>, decisive: bool, watch: &Watch<'_>) -> Result<Option<bool>, Unwanted> {
    let mut result = Some(!decisive);
    for part in parts {
        match meets(part, event, watch)? {
            Some(met) if met == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(result)
}

fn passes(test: &Test, value: &Value<'_>) -> Option<bool> {
    match test {
        Test::IsNull => Some(*value == Value::Null),
        _ if *value == Value::Null => None,
        Test::Compare(comparison, constant) => value.compare(constant).map(|order| fits(*comparison, order)),
        Test::In(list) => one_of(list, value),
        Test::Like(pattern) => match value {
            Value::Text(text) | Value::Json(text) => Some(pattern.fits(text)),
            _ => None,
        },
        Test::Truth => match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        },
    }
}

/// As if it were compared with each of them, with OR between.
fn one_of(list: &[Constant], value: &Value<'_>) -> Option<bool> {
    let mut result = Some(false);
    for constant in list {
        match value.compare(constant) {
            Some(Ordering::Equal) => return Some(true),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn fits(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}
