//! Queries over events in memory: each construct by hand, and random ones against a naive evaluation.

mod faults;
mod naive;
mod slices;
mod watched;

use super::plan::Plan;
use super::run::{Row, Running, Span};
use super::value::Cell;
use super::watch::Watch;
use super::{Fault, parse};
use crate::log::event::{Encoding, Event, NewEvent};
use crate::log::wire::Fields;
use std::sync::Arc;

const MEMORY: usize = 64 << 20;
/// 2026-11-25T00:00:00Z.
const DAY: u64 = 1_795_564_800_000_000;
const SECOND: u64 = 1_000_000;

/// An event in memory.
#[derive(Clone, Debug)]
struct Stored {
    offset: u64,
    received_us: u64,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(offset: u64, received_us: u64, data: &str) -> Self {
        let encoding =
            if serde_json::from_str::<serde_json::Value>(data).is_ok() { Encoding::Json } else { Encoding::Text };
        let event = NewEvent { key: Some(b"k"), content_type: None, headers: &[], encoding, data: data.as_bytes() };
        let mut bytes = Vec::new();
        event.encode(u128::from(offset), received_us, &mut bytes);
        Self { offset, received_us, bytes }
    }

    fn event(&self) -> Event<'_> {
        Event::decode(&mut Fields::new(&self.bytes), self.offset).unwrap()
    }
}

fn plan(text: &str) -> Result<Arc<Plan>, Fault> {
    parse(text, DAY).and_then(Plan::new).map(Arc::new)
}

/// Rows of a query over events, of which those outside of the range are left out as whoever runs it does.
fn rows(text: &str, events: &[Stored]) -> Vec<Row> {
    let plan = plan(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    let from = plan.query.from.or(events.first().map(|event| event.received_us)).unwrap_or(0);
    let to = plan.query.to.or(events.last().map(|event| event.received_us + 1)).unwrap_or(from);
    let mut running = Running::new(&plan, Span { from, to, settled: to }, MEMORY, Vec::new()).unwrap();
    for stored in events.iter().filter(|event| (from..to).contains(&event.received_us)) {
        running.event(&stored.event(), &watch()).unwrap();
    }
    running.finish(&watch()).unwrap();
    taken(&mut running)
}

/// Of a query that is wanted.
fn watch() -> Watch<'static> {
    Watch::new(&|| true)
}

fn taken(running: &mut Running) -> Vec<Row> {
    std::iter::from_fn(|| running.take()).map(|(_, row)| row).collect()
}

fn sample() -> Vec<Stored> {
    let data = [
        r#"{"delay":5,"origin":"SFO","user":{"id":1},"legs":[{"km":10},{"km":2.5}],"ok":true}"#,
        r#"{"delay":-3,"origin":"LAX","user":{"id":2},"legs":[],"ok":false}"#,
        r#"{"delay":null,"origin":"SFO"}"#,
        "no json",
        r#"{"delay":2.5,"origin":"a\"b","odd name":"x","a":{"b c":7}}"#,
    ];
    let stored = |(place, data): (usize, &&str)| Stored::new(place as u64, DAY + place as u64 * 60 * SECOND, data);
    data.iter().enumerate().map(stored).collect()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

#[test]
fn columns_and_paths() {
    let cells =
        |query: &str| -> Vec<Cell> { rows(query, &sample()).into_iter().map(|mut row| row.remove(0)).collect() };
    use Cell::{Integer, Null, Number};
    assert_eq!(cells("SELECT offset IN g"), [0, 1, 2, 3, 4].map(Integer));
    assert_eq!(cells("SELECT count(*) IN g;"), [Integer(5)]);
    assert_eq!(cells("select data.delay in g"), [Integer(5), Integer(-3), Null, Null, Number(2.5)]);
    assert_eq!(cells("SELECT data.user.id IN g LIMIT 5"), [Integer(1), Integer(2), Null, Null, Null]);
    assert_eq!(cells("SELECT data.legs[1].km IN g WHERE offset = 0"), [Number(2.5)]);
    assert_eq!(cells(r#"SELECT data."odd name" IN g WHERE offset = 4"#), [text("x")]);
    assert_eq!(cells(r#"SELECT data.a."b c" IN g WHERE offset = 4"#), [Integer(7)]);
    assert_eq!(cells("SELECT data.origin IN g WHERE offset = 4"), [text("a\"b")]);
    assert_eq!(cells("SELECT data.user IN g WHERE offset = 0"), [Cell::Json(r#"{"id":1}"#.into())]);
    assert_eq!(cells("SELECT data IN g WHERE offset = 3"), [text("no json")]);
    let twice = [Stored::new(0, DAY, r#"{"a":{"x":1},"a":{"x":2}}"#)];
    assert_eq!(rows("SELECT data.a.x IN g", &twice), [[Integer(1)]], "the first of two of one name");
    assert_eq!(cells("SELECT length IN g WHERE offset = 3"), [Integer(7)]);
    assert_eq!(cells("SELECT received IN g WHERE offset = 1"), [Cell::Time(DAY + 60 * SECOND)]);
    assert_eq!(cells("SELECT key IN g WHERE offset = 1"), [text("k")]);
    assert_eq!(cells("SELECT id IN g WHERE offset = 1"), [text("00000000-0000-0000-0000-000000000001")]);
    assert!(matches!(cells("SELECT * IN g WHERE offset = 1")[..], [Cell::Event(1, _)]));
}

#[test]
fn predicates() {
    let offsets = |predicate: &str| -> Vec<i64> {
        let rows = rows(&format!("SELECT offset IN g WHERE {predicate}"), &sample());
        rows.into_iter().map(|row| if let Cell::Integer(offset) = row[0] { offset } else { panic!() }).collect()
    };
    for (predicate, expected) in [
        ("data.delay > 2", &[0, 4][..]),
        ("data.delay >= 2.5 AND data.delay <= 5", &[0, 4]),
        ("data.delay = 5", &[0]),
        ("data.delay <> 5", &[1, 4]),
        ("NOT data.delay = 5", &[1, 4]),
        ("data.delay IS NULL", &[2, 3]),
        ("data.delay is not null", &[0, 1, 4]),
        ("data.origin = 'SFO' OR data.delay < 0", &[0, 1, 2]),
        ("data.origin = 'SFO' OR data.delay < 0 AND data.ok", &[0, 2]),
        ("(data.origin = 'SFO' OR data.delay < 0) AND data.ok", &[0]),
        ("data.ok = false", &[1]),
        ("NOT data.ok", &[1]),
        ("data.origin IN ('LAX', 'x')", &[1]),
        ("data.origin NOT IN ('LAX', 'x')", &[0, 2, 4]),
        ("data.origin NOT IN (5)", &[]),
        ("data.delay NOT IN (5, 'x')", &[]),
        ("data.delay IN (5, 'x')", &[0]),
        ("data.origin LIKE 'S%'", &[0, 2]),
        ("data.origin LIKE '_A_'", &[1]),
        ("data.origin NOT LIKE '%A%'", &[0, 2, 4]),
        ("data LIKE '%json'", &[3]),
        ("data LIKE '%\"LAX\"%'", &[1]),
        ("data.user = '{\"id\":1}'", &[0]),
        ("data.legs LIKE '[%'", &[0, 1]),
        ("data.origin > 'M'", &[0, 2, 4]),
        ("data.origin = 5", &[]),
        ("received >= 2026-11-25T00:02:00Z", &[2, 3, 4]),
        ("received < '2026-11-25T00:01:00Z'", &[0]),
        ("received < now() + 1m", &[0]),
        ("offset IN (1, 3)", &[1, 3]),
        ("length < 10", &[3]),
        ("key = 'k' AND id = '00000000-0000-0000-0000-000000000002'", &[2]),
    ] {
        assert_eq!(offsets(predicate), expected, "{predicate}");
    }
}

#[test]
fn aggregates() {
    use Cell::{Integer, Null, Number};
    for (item, expected) in [
        ("count()", Integer(5)),
        ("bytes()", Integer(sample().iter().map(|stored| stored.event().data.len() as i64).sum())),
        ("rate()", Number(5.0 / 240.000001)),
        ("first(data.delay)", Integer(5)),
        ("last(data.delay)", Number(2.5)),
        ("min(data.delay)", Integer(-3)),
        ("max(data.delay)", Integer(5)),
        ("min(data.origin)", text("LAX")),
        ("max(received)", Cell::Time(DAY + 240 * SECOND)),
        ("sum(data.delay)", Number(4.5)),
        ("sum(data.user.id)", Integer(3)),
        ("avg(data.delay)", Number(1.5)),
        ("avg(data.none)", Null),
        ("count_distinct(data.origin)", Integer(3)),
        ("p50(data.delay)", Number(2.5)),
        ("p99(data.delay)", Number(5.0)),
        ("p50(data.none)", Null),
        ("max(data.ok)", Cell::Bool(true)),
    ] {
        assert_eq!(rows(&format!("SELECT {item} IN g"), &sample()), [[expected]], "{item}");
    }
    assert_eq!(
        rows("SELECT count(), avg(data.x) IN g WHERE data.x = 1", &sample()),
        [[Integer(0), Null]],
        "of nothing"
    );
    let huge: Vec<_> = ["1e308", "1e308", "1e400"]
        .iter()
        .enumerate()
        .map(|(place, x)| Stored::new(place as u64, DAY, &format!(r#"{{"x":{x}}}"#)))
        .collect();
    let row = rows("SELECT sum(data.x), avg(data.x), max(data.x), last(data.x) IN g", &huge).remove(0);
    assert_eq!(row, [Null, Null, Number(1e308), Number(1e308)], "no number is endless");
    let grouped = rows("SELECT data.origin, count() AS n IN g", &sample());
    let pair = |key: Cell, count| vec![key, Integer(count)];
    assert_eq!(grouped, [pair(text("SFO"), 2), pair(text("LAX"), 1), pair(Null, 1), pair(text("a\"b"), 1)]);
}

/// Beyond 2^53 not every whole number is a double.
#[test]
fn large_numbers_are_equal_only_if_they_are_the_same() {
    use Cell::{Integer, Number};
    let numbers =
        ["9007199254740992", "9007199254740993", "9007199254740992.0", "9007199254740992.5", "-0.0", "0", "-0.5"];
    let stored = |(place, x): (usize, &&str)| Stored::new(place as u64, DAY + place as u64, &format!(r#"{{"x":{x}}}"#));
    let events: Vec<_> = numbers.iter().enumerate().map(stored).collect();
    let offsets = |predicate: &str| rows(&format!("SELECT offset IN g WHERE {predicate}"), &events).concat();
    for (predicate, expected) in [
        ("data.x = 9007199254740992", &[0, 2, 3][..]),
        ("data.x = 9007199254740992.0", &[0, 2, 3]),
        ("data.x = 9007199254740993", &[1]),
        ("data.x > 9007199254740992.0", &[1]),
        ("data.x IN (0)", &[4, 5]),
        ("data.x < 0", &[6]),
        ("data.x < 0.5", &[4, 5, 6]),
        ("data.x > -0.5", &[0, 1, 2, 3, 4, 5]),
        ("data.x < 9223372036854775807.0", &[0, 1, 2, 3, 4, 5, 6]),
        ("data.x <= -9223372036854775808.0", &[]),
    ] {
        assert_eq!(
            offsets(predicate),
            expected.iter().map(|&offset| Integer(offset)).collect::<Vec<_>>(),
            "{predicate}"
        );
    }
    let grouped = rows("SELECT data.x, count() IN g WHERE data.x > 0", &events);
    assert_eq!(grouped, [[Integer(1 << 53), Integer(3)], [Integer((1 << 53) + 1), Integer(1)]]);
    assert_eq!(rows("SELECT count_distinct(data.x) IN g", &events), [[Integer(4)]]);
    let extremes = rows("SELECT max(data.x), min(data.x) IN g", &events);
    assert_eq!(extremes, [[Integer((1 << 53) + 1), Number(-0.5)]]);
    let behind = rows("SELECT min(data.x) IN g WHERE offset IN (1, 2)", &events);
    assert_eq!(behind, [[Number(9007199254740992.0)]], "the double is less");
}

#[test]
fn sketches_stay_within_their_bounds() {
    let events: Vec<_> =
        (0..20_000).map(|n| Stored::new(n, DAY + n, &format!(r#"{{"n":{}}}"#, (n * 7919) % 20_000 + 1))).collect();
    let row = rows("SELECT p50(data.n), p95(data.n), p99(data.n), count_distinct(data.n) IN g", &events).remove(0);
    for (cell, (exact, error)) in
        row.iter().zip([(10_000.0, 0.01), (19_000.0, 0.01), (19_800.0, 0.01), (20_000.0, 0.065)])
    {
        let found = cell.number().unwrap();
        assert!((found - exact).abs() <= exact * error, "{found} instead of {exact}");
    }
    let row = rows("SELECT p50(data.n), count_distinct(data.n) IN g", &events[..1000]).remove(0);
    let mut numbers: Vec<u64> = (0..1000).map(|n| (n * 7919) % 20_000 + 1).collect();
    numbers.sort_unstable();
    assert_eq!(row, [Cell::Number(numbers[499] as f64), Cell::Integer(1000)], "exact");
    // The rank is exact, too: where it falls on the first of some large numbers behind small ones.
    for (part, small) in [("p50", 500), ("p95", 951), ("p99", 991)] {
        let number = |n| if n < small { 1 } else { 1_000_000 };
        let event = |n: u64| Stored::new(n, DAY + n, &format!(r#"{{"n":{}}}"#, number(n)));
        let found = |count: u64| {
            let events: Vec<_> = (0..count).map(event).collect();
            rows(&format!("SELECT {part}(data.n) IN g"), &events)[0][0].number().unwrap()
        };
        let count = (small as f64 * 100.0 / part[1..].parse::<f64>().unwrap()) as u64;
        for count in count - 3..count + 4 {
            let rank = (count * part[1..].parse::<u64>().unwrap()).div_ceil(100);
            let exact = f64::from(number(rank - 1));
            assert!((found(count) - exact).abs() <= exact * 0.01, "{part} of {count}: {} for {exact}", found(count));
        }
    }
}

/// The percentiles of more numbers than are kept.
#[test]
fn sketches_know_of_numbers_below_zero_and_close_to_it() {
    let many = |count: usize, number: fn(f64) -> f64| (1..=count).map(move |n| number(n as f64));
    let cases: [(&str, Vec<f64>); 8] = [
        ("all below", many(3000, |n| -n).collect()),
        ("both sides", many(1500, |n| n * 0.37).chain(many(1500, |n| -n * n)).collect()),
        (
            "many decades",
            many(3000, |n| (if n % 2.0 == 0.0 { 1.0 } else { -1.0 }) * 1.01_f64.powf(n / 2.0 - 750.0)).collect(),
        ),
        ("zeros in the middle", many(1400, |n| -n).chain(many(200, |_| 0.0)).chain(many(1400, |n| n)).collect()),
        ("zeros at the end", many(2000, |n| -n).chain(many(1000, |_| 0.0)).collect()),
        ("as good as zero", many(2000, |n| (n - 1000.0) * 1e-12).chain(many(1000, |n| n)).collect()),
        ("just not zero", many(2000, |n| 1.001e-9 + n * 1e-13).chain(many(1000, |n| -n)).collect()),
        ("just not zero, below", many(2000, |n| -1.001e-9 - n * 1e-13).chain(many(1000, |n| -n)).collect()),
    ];
    for (name, numbers) in cases {
        let count = numbers.len();
        let stored = |n: usize| {
            let data = format!(r#"{{"n":{:e}}}"#, numbers[n * 7919 % count]);
            Stored::new(n as u64, DAY + n as u64, &data)
        };
        let events: Vec<_> = (0..count).map(stored).collect();
        let mut sorted: Vec<f64> = numbers.iter().map(|&n| if n.abs() <= 1e-9 { 0.0 } else { n }).collect();
        sorted.sort_by(f64::total_cmp);
        for part in [50, 95, 99] {
            let found = rows(&format!("SELECT p{part}(data.n) IN g"), &events)[0][0].number().unwrap();
            let exact = sorted[(count * part).div_ceil(100) - 1];
            assert!((found - exact).abs() <= exact.abs() * 0.01, "{name}, p{part}: {found} for {exact}");
        }
    }
}

/// What is kept of a value that gives way to another one is not counted twice.
#[test]
fn values_that_come_and_go_take_no_more_memory_than_one() {
    let plan = plan("SELECT last(data), max(data.x) IN g").unwrap();
    let span = Span { from: DAY, to: DAY + 1, settled: DAY + 1 };
    let mut running = Running::new(&plan, span, 64 << 10, Vec::new()).unwrap();
    for n in 0..2000_u64 {
        let data = format!(r#"{{"x":"{n:04}{}"}}"#, "x".repeat((n % 2 * 1000) as usize));
        running.event(&Stored::new(n, DAY, &data).event(), &watch()).unwrap();
    }
}

#[test]
fn what_is_counted_from_summaries_is_what_events_come_to() {
    let events: Vec<_> = (0..100).map(|n| Stored::new(n, DAY + n * 7 * SECOND, "{}")).collect();
    for query in
        ["SELECT count(), rate() IN g SAMPLE BY 1m FILL(0)", "SELECT count() IN g", "SELECT bytes() IN g SAMPLE BY 1m"]
    {
        let plan = plan(query).unwrap();
        assert!(plan.counts_only());
        let to = DAY + 99 * 7 * SECOND + 1;
        let span = Span { from: DAY, to, settled: to };
        let mut running = Running::new(&plan, span, MEMORY, Vec::new()).unwrap();
        for block in events.chunks(4) {
            let (first, last) = (block[0].received_us, block[block.len() - 1].received_us);
            if running.is_one_slice(first, last) {
                let bytes = block.iter().map(|stored| stored.event().data.len() as u64).sum();
                running.count(block.len() as u64, bytes, first, &watch()).unwrap();
            } else {
                block.iter().for_each(|stored| running.event(&stored.event(), &watch()).unwrap());
            }
        }
        running.finish(&watch()).unwrap();
        assert_eq!(taken(&mut running), rows(query, &events), "{query}");
    }
    for query in [
        "SELECT count() IN g WHERE offset > 1",
        "SELECT bytes(), min(length) IN g",
        "SELECT key, count() IN g",
        "SELECT * IN g SAMPLE BY 1m",
    ] {
        assert!(!plan(query).unwrap().counts_only(), "{query}");
    }
}
