//! Random queries over random events, compared with a naive evaluation that shares nothing with the one that is tested: it
//! keeps everything in memory, reads data with another library and looks at all events for every slice.

use super::{Cell, DAY, SECOND, Stored, rows};
use proptest::prelude::*;
use serde_json::Value;

/// A random event: seconds since the one before, delay, origin.
type Made = (u64, Option<i32>, Option<u8>);

#[derive(Clone, Debug)]
struct Query {
    aggregate: usize,
    predicate: usize,
    bound: i32,
    length: u64,
    fill: usize,
    from: u64,
    to: u64,
    descending: bool,
}

const AGGREGATES: [&str; 10] = [
    "count()",
    "bytes()",
    "first(data.d)",
    "last(data.d)",
    "min(data.d)",
    "max(data.d)",
    "sum(data.d)",
    "avg(data.d)",
    "count_distinct(data.o)",
    "p50(data.d)",
];
const FILLS: [&str; 5] = ["", "FILL(NULL)", "FILL(PREV)", "FILL(LINEAR)", "FILL(7)"];

impl Query {
    fn text(&self) -> String {
        let predicate = match self.predicate {
            0 => String::new(),
            1 => format!("WHERE data.d > {}", self.bound),
            2 => format!("WHERE NOT data.d <= {} OR data.o = 'a'", self.bound),
            3 => "WHERE data.o IN ('a', 'b') AND data.d IS NOT NULL".to_owned(),
            _ => "WHERE data.o NOT LIKE 'c%'".to_owned(),
        };
        let (from, to) = (DAY + self.from * SECOND, DAY + self.to * SECOND);
        let (aggregate, fill) = (AGGREGATES[self.aggregate], FILLS[self.fill]);
        let (length, order) = (self.length, if self.descending { "ORDER BY received DESC" } else { "" });
        format!("SELECT {aggregate} AS v IN g FROM {from} TO {to} {predicate} SAMPLE BY {length}s {fill} {order}")
    }

    fn meets(&self, data: &Value) -> bool {
        let (d, o) = (data["d"].as_i64(), data["o"].as_str());
        let bound = i64::from(self.bound);
        match self.predicate {
            0 => true,
            1 => d.is_some_and(|d| d > bound),
            2 => d.is_some_and(|d| d > bound) || o == Some("a"),
            3 => matches!(o, Some("a" | "b")) && d.is_some(),
            _ => o.is_some_and(|o| !o.starts_with('c')),
        }
    }

    fn value(&self, events: &[(&str, Value)]) -> Option<f64> {
        let numbers: Vec<i64> = events.iter().filter_map(|(_, data)| data["d"].as_i64()).collect();
        let sum: i64 = numbers.iter().sum();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        match self.aggregate {
            0 => Some(events.len() as f64),
            1 => Some(events.iter().map(|(text, _)| text.len()).sum::<usize>() as f64),
            2 => numbers.first().map(|&d| d as f64),
            3 => numbers.last().map(|&d| d as f64),
            4 => sorted.first().map(|&d| d as f64),
            5 => sorted.last().map(|&d| d as f64),
            6 => (!numbers.is_empty()).then_some(sum as f64),
            7 => (!numbers.is_empty()).then(|| sum as f64 / numbers.len() as f64),
            8 => {
                let mut origins: Vec<_> = events.iter().filter_map(|(_, data)| data["o"].as_str()).collect();
                origins.sort_unstable();
                origins.dedup();
                Some(origins.len() as f64)
            }
            _ => sorted.get(sorted.len().div_ceil(2).saturating_sub(1)).map(|&d| d as f64),
        }
    }

    /// Start and value of every slice.
    fn evaluate(&self, events: &[(u64, String)]) -> Vec<(u64, Option<f64>)> {
        let (from, to) = (DAY + self.from * SECOND, DAY + self.to * SECOND);
        let length = self.length * SECOND;
        let mut slices: Vec<(u64, Option<Option<f64>>)> = Vec::new();
        let mut start = from / length * length;
        while start < to {
            let inside =
                events.iter().filter(|(time, _)| (from..to).contains(time) && (start..start + length).contains(time));
            let parsed = inside.map(|(_, text)| (text.as_str(), serde_json::from_str::<Value>(text).unwrap()));
            let inside: Vec<_> = parsed.filter(|(_, data)| self.meets(data)).collect();
            slices.push((start, (!inside.is_empty()).then(|| self.value(&inside))));
            start += length;
        }
        let known = |range: &[(u64, Option<Option<f64>>)], last: bool| {
            let mut found = range.iter().filter_map(|(start, value)| value.map(|value| (*start, value)));
            if last { found.next_back() } else { found.next() }
        };
        let fill = |place: usize| {
            let (before, behind) = (known(&slices[..place], true), known(&slices[place..], false));
            match self.fill {
                0 => None,
                1 => Some(None),
                2 => Some(before.and_then(|(_, value)| value)),
                3 => Some(before.zip(behind).and_then(|((s0, v0), (s1, v1))| {
                    let part = (slices[place].0 - s0) as f64 / (s1 - s0) as f64;
                    v0.zip(v1).map(|(v0, v1)| v0 + (v1 - v0) * part)
                })),
                _ => Some(Some(7.0)),
            }
        };
        let row = |(place, (start, value)): (usize, &(u64, Option<Option<f64>>))| {
            value.or_else(|| fill(place)).map(|value| (*start, value))
        };
        let mut rows: Vec<_> = slices.iter().enumerate().filter_map(row).collect();
        if self.descending {
            rows.reverse();
        }
        rows
    }
}

fn queries() -> impl Strategy<Value = Query> {
    let kind = (0..AGGREGATES.len(), 0..5_usize, -5..20_i32);
    (kind, 1..40_u64, 0..FILLS.len(), 0..200_u64, 1..200_u64, proptest::bool::ANY).prop_map(
        |((aggregate, predicate, bound), length, fill, from, span, descending)| Query {
            aggregate,
            predicate,
            bound,
            length,
            fill,
            from,
            to: from + span,
            descending,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn random_queries_come_to_what_a_naive_evaluation_does(
        made in proptest::collection::vec((0..9_u64, proptest::option::of(-10..30), proptest::option::of(0..4_u8)), 0..60),
        query in queries(),
    ) {
        let mut time = DAY;
        let text = |(_, delay, origin): &Made| {
            let origin = origin.map_or("null".to_owned(), |origin| format!("\"{}\"", (b'a' + origin) as char));
            delay.map_or(format!(r#"{{"o":{origin}}}"#), |delay| format!(r#"{{"o":{origin},"d":{delay}}}"#))
        };
        let events: Vec<(u64, String)> = made.iter().map(|event| {
            time += event.0 * SECOND;
            (time, text(event))
        }).collect();
        let stored: Vec<Stored> =
            events.iter().enumerate().map(|(offset, (time, data))| Stored::new(offset as u64, *time, data)).collect();
        let found: Vec<(u64, Option<f64>)> = rows(&query.text(), &stored).into_iter().map(|row| match &row[..] {
            [Cell::Time(start), Cell::Null, _] => (*start, None),
            [Cell::Time(start), value, _] => (*start, value.number()),
            other => panic!("{other:?}"),
        }).collect();
        let expected = query.evaluate(&events);
        prop_assert_eq!(found.len(), expected.len(), "{}", query.text());
        for (found, expected) in found.iter().zip(&expected) {
            let close = match (found.1, expected.1) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            prop_assert!(found.0 == expected.0 && close, "{}: {:?} instead of {:?}", query.text(), found, expected);
        }
    }
}
