//! The inner loops of the log: encoding and checking frames, assembling a commit, searching an index.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eddyline::io::buffer::AlignedBuffer;
use eddyline::log::entry::{EntryBuilder, EntryKind, EntryPlace, Owner, PartKind};
use eddyline::log::event::{Encoding, NewEvent, NewEvents};
use eddyline::log::frame::{Frame, FrameBuilder};
use eddyline::log::index::SegmentIndex;
use std::hint::black_box;

const EVENTS: usize = 1000;
const DATA: [u8; 100] = [b'x'; 100];

fn frame(events: usize) -> Vec<u8> {
    let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: &DATA };
    let events = (0..events).map(|_| event).collect();
    encode(&events)
}

fn encode(events: &NewEvents) -> Vec<u8> {
    let mut builder = FrameBuilder::new(1, 0, false, events.stored_bytes());
    let mut ids = 0..;
    builder.push(None, events, 1, || ids.next().unwrap_or_default());
    builder.finish().1
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for events in [1, EVENTS] {
        let bytes = frame(events);
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(format!("encode {events}"), |bencher| bencher.iter(|| frame(black_box(events))));
        group.bench_function(format!("check {events}"), |bencher| {
            bencher.iter(|| Frame::check(black_box(&bytes)).map(|frame| frame.map(|frame| frame.header)));
        });
        group.bench_function(format!("decode events {events}"), |bencher| {
            bencher
                .iter(|| Frame::trusted(black_box(&bytes)).map(|frame| frame.events().filter(Result::is_ok).count()));
        });
    }
    group.finish();
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    let parts: Vec<Vec<u8>> = (0..64).map(|_| frame(1)).collect();
    let place = EntryPlace {
        kind: EntryKind::Commit,
        owner: Owner { shard: 0, cluster: 1 },
        index: 1,
        address: 4096,
        durable_upto: 0,
        previous_crc: 0,
    };
    group.throughput(Throughput::Bytes(parts.iter().map(|part| part.len() as u64).sum()));
    group.bench_function("assemble 64 groups", |bencher| {
        bencher.iter_batched(
            || AlignedBuffer::with_capacity(64 << 10),
            |buffer| {
                let mut builder = EntryBuilder::new(buffer);
                parts.iter().for_each(|part| builder.part(PartKind::Frame, part));
                builder.finish(&place)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn index(criterion: &mut Criterion) {
    let mut index = SegmentIndex::default();
    let header = Frame::check(&frame(1)).ok().flatten().map(|frame| frame.header).expect("a frame was just made");
    for place in 0..4096_u64 {
        let header =
            eddyline::log::frame::FrameHeader { first_offset: place * 500, first_received_us: place * 1000, ..header };
        index.note(&header, 64 + place * (64 << 10), Some(60 << 10));
    }
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    group.bench_function("seek offset in 256 MiB", |bencher| bencher.iter(|| index.seek(black_box(1_234_567))));
    group.bench_function("seek time in 256 MiB", |bencher| bencher.iter(|| index.seek_time(black_box(3_210_123))));
    group.finish();
}

criterion_group!(benches, frames, commit, index);
criterion_main!(benches);
