//! The inner loops of a group: taking requests at its accepted head, and showing events to readers.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eddyline::api::encode::EventEncoder;
use eddyline::group::config::GroupConfig;
use eddyline::group::{Batch, Group};
use eddyline::log::event::{Encoding, NewEvent, NewEvents};
use eddyline::log::frame::{Frame, FrameBuilder, ProducerStamp};
use std::hint::black_box;

const TEXT: &[u8] = br#"{"order":1234567,"user":"a3f0c2","total":99.5,"items":[17,18,19],"note":"as always, at nine"}"#;

fn events(count: usize) -> NewEvents {
    let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Json, data: TEXT };
    (0..count).map(|_| event).collect()
}

fn accept(criterion: &mut Criterion) {
    const REQUESTS: u64 = 64;
    let mut group = criterion.benchmark_group("accept");
    for (name, count, producer) in
        [("single", 1, None), ("single of a producer", 1, Some("p")), ("batch of 100", 100, None)]
    {
        let events = events(count);
        group.throughput(Throughput::Elements(REQUESTS * count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let mut group = Group::new(7, 0, GroupConfig::default());
                    group.log.allocated(0, 64 << 20);
                    group
                },
                |mut group| {
                    for seq in 0..REQUESTS {
                        let producer = producer.map(|id| ProducerStamp { id, epoch: 0, seq });
                        let batch = Batch { events: &events, producer, expect_offset: None };
                        let taken = group.accept(&batch, 1_700_000_000_000_000 + seq, 1, 16 << 20);
                        assert!(taken.is_ok(), "taken");
                    }
                    group
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn show(criterion: &mut Criterion) {
    const EVENTS: usize = 1000;
    let mut builder = FrameBuilder::new(1, 0, false, 0);
    let mut ids = 0..;
    builder.push(None, &events(EVENTS), 1_700_000_000_000_000, || ids.next().unwrap_or_default());
    let bytes = builder.finish().1;
    let mut group = criterion.benchmark_group("show");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("events as JSON", |bencher| {
        let mut out = Vec::with_capacity(1 << 20);
        let mut encoder = EventEncoder::default();
        bencher.iter(|| {
            out.clear();
            let frame = Frame::trusted(black_box(&bytes)).expect("a frame that was just made");
            frame.events().flatten().for_each(|event| encoder.event(&mut out, &event));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, accept, show);
criterion_main!(benches);
