//! What it costs to find the events in a body: lines, an array and binary frames, of 100-byte events.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eddyline::api::split::{Format, KeyPath, classify, split};

const EVENTS: usize = 1000;

/// A typical small event of 100 bytes.
fn order(number: usize) -> String {
    let event = format!(
        r#"{{"origin":"shop-{:02}","order":{},"total":129.90,"paid":true,"items":["apple","pear"]"#,
        number % 50,
        1_000_000 + number
    );
    format!("{event},\"n\":\"{}\"}}", "x".repeat(100 - event.len() - 8))
}

fn frames<'d>(events: impl Iterator<Item = &'d [u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    for data in events {
        body.extend_from_slice(&(data.len() as u32).to_le_bytes());
        body.push(0);
        body.extend_from_slice(data);
    }
    body
}

fn bodies(criterion: &mut Criterion) {
    let orders: Vec<String> = (0..EVENTS).map(order).collect();
    assert!(orders.iter().all(|order| order.len() == 100));
    let lines = orders.join("\n").into_bytes();
    let array = format!("[{}]", orders.join(",")).into_bytes();
    let prose = vec![
        "The quick brown fox jumps over the lazy dog, and then it rests for a while below the old oak tree, ok";
        EVENTS
    ];
    let noise = [0xa5_u8; 100];
    let key = KeyPath::parse("/origin").expect("a pointer");

    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Elements(EVENTS as u64));
    for (name, format, key_path, body) in [
        ("ndjson", Format::Lines { must_be_json: true }, None, lines.clone()),
        ("ndjson with a key path", Format::Lines { must_be_json: true }, Some(&key), lines),
        ("text of prose", Format::Lines { must_be_json: false }, None, prose.join("\n").into_bytes()),
        ("array", Format::Json, None, array),
        ("frames of json", Format::Binary, None, frames(orders.iter().map(String::as_bytes))),
        ("frames of prose", Format::Binary, None, frames(prose.iter().map(|line| line.as_bytes()))),
        ("frames of noise", Format::Binary, None, frames([&noise[..]; EVENTS].into_iter())),
    ] {
        let mut pieces = Vec::new();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                pieces.clear();
                split(format, black_box(&body), key_path, 1 << 20, |piece| pieces.push(piece)).expect("a good body");
            });
        });
        assert!(pieces.is_empty() || pieces.len() == EVENTS);
    }
    group.finish();
}

fn single_events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    let small = order(7);
    let large = format!("{{\"rows\":[{}]}}", vec![small.as_str(); 10_000].join(", "));
    for (name, data) in [("100 B", small), ("1 MB", large)] {
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| classify(black_box(data.as_bytes())));
        });
    }
    group.finish();
}

criterion_group!(benches, bodies, single_events);
criterion_main!(benches);
