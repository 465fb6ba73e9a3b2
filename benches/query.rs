//! The inner loops of queries: reading a text, and what events of about 150 bytes of JSON cost each.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eddyline::log::event::{Encoding, Event, NewEvent};
use eddyline::log::wire::Fields;
use eddyline::query::parse;
use eddyline::query::plan::Plan;
use eddyline::query::run::{Running, Span};
use eddyline::query::watch::Watch;
use std::hint::black_box;
use std::sync::Arc;

const EVENTS: u64 = 10_000;
const MEMORY: usize = 64 << 20;
const BEGUN: u64 = 1_795_564_800_000_000;

/// Events a second apart, one behind the other in stored form.
fn events() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..EVENTS {
        let data = format!(
            r#"{{"date":"2001-01-01T00:47:00","flight":{number},"carrier":"ED","origin":"SFO","destination":"JFK","distance":2586,"delay":{},"note":"on time"}}"#,
            number % 90
        );
        let data = data.as_bytes();
        let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Json, data };
        event.encode(u128::from(number), BEGUN + number * 1_000_000, &mut bytes);
    }
    bytes
}

fn run(plan: &Arc<Plan>, bytes: &[u8]) -> usize {
    let to = BEGUN + EVENTS * 1_000_000;
    let mut running =
        Running::new(plan, Span { from: BEGUN, to, settled: to }, MEMORY, Vec::new()).expect("few slices");
    let watch = Watch::new(&|| true);
    let mut fields = Fields::new(bytes);
    for offset in 0..EVENTS {
        let event = Event::decode(&mut fields, offset).expect("an event");
        running.event(&event, &watch).expect("little memory");
    }
    running.finish(&watch).expect("little memory");
    std::iter::from_fn(|| running.take()).count()
}

fn queries(criterion: &mut Criterion) {
    let bytes = events();
    let mut group = criterion.benchmark_group("query");
    group.throughput(Throughput::Elements(EVENTS));
    for query in [
        "SELECT count() IN g SAMPLE BY 5m",
        "SELECT avg(data.delay) IN g SAMPLE BY 1h",
        "SELECT avg(data.delay), p95(data.delay) IN g WHERE data.origin = 'SFO' SAMPLE BY 1h",
        "SELECT data.origin, count() IN g SAMPLE BY 1h",
    ] {
        let plan = Arc::new(parse(query, BEGUN).and_then(Plan::new).expect("a query"));
        group.bench_function(query, |bencher| bencher.iter(|| run(&plan, black_box(&bytes))));
    }
    group.finish();
    criterion.bench_function("query: parse and plan", |bencher| {
        let text = "SELECT data.origin, avg(data.delay) AS d IN g FROM now() - 1h WHERE data.delay > 5 SAMPLE BY 5m";
        bencher.iter(|| parse(black_box(text), BEGUN).and_then(Plan::new).is_ok());
    });
}

criterion_group!(benches, queries);
criterion_main!(benches);
