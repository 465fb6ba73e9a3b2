//! A part of a run second by second: for programs, and as a table.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Part;
use crate::series::{Point, Quantiles};

/// A list of points; clocks of the part that did not run are null.
pub(super) fn json(part: &Part<'_>) -> Value {
    let point = |point: &Point| {
        let mut object = Map::from_iter([
            ("at_s".to_owned(), json!(point.slot.at_s)),
            ("length_s".to_owned(), json!(point.slot.length_s)),
            ("requests".to_owned(), json!(point.requests)),
            ("events".to_owned(), json!(point.events)),
            ("bytes".to_owned(), json!(point.bytes)),
            ("errors".to_owned(), json!(point.errors)),
        ]);
        object.extend(part.clocks.iter().map(|clock| (format!("{}_ns", clock.field()), json!(point.times(*clock)))));
        Value::Object(object)
    };
    part.points.iter().map(point).collect()
}

/// A table with a row a point.
pub(super) fn csv(part: &Part<'_>) -> String {
    let mut text = "at_s,length_s,requests,events,bytes,errors,events_per_second".to_owned();
    for clock in part.clocks {
        for name in ["p50", "p90", "p99", "p99_9", "max"] {
            let _ = write!(text, ",{}_{name}_ns", clock.field());
        }
    }
    text.push('\n');
    for point in part.points {
        let Point { slot, requests, events, bytes, errors, .. } = point;
        let rate = point.events_per_second();
        let _ = write!(text, "{},{},{requests},{events},{bytes},{errors},{rate}", slot.at_s, slot.length_s);
        for clock in part.clocks {
            let _ = match point.times(*clock) {
                None => write!(text, ",,,,,"),
                Some(Quantiles { p50, p90, p99, p99_9, max }) => write!(text, ",{p50},{p90},{p99},{p99_9},{max}"),
            };
        }
        text.push('\n');
    }
    text
}
