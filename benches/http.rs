//! What a request costs before anyone asks what it means: its head, its chunks, its target, and the reply's head.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eddyline::http::{ChunkDecoder, DateClock, Known, Query, Reply, ReplyTo, parse_head};

/// As a load generator posts one event.
const LOAD: &[u8] = b"POST /v1/groups/bench/events HTTP/1.1\r\n\
    Host: 127.0.0.1:8080\r\n\
    Content-Length: 100\r\n\
    Content-Type: application/octet-stream\r\n\
    Prefer: return=minimal\r\n\r\n";

/// As a page's script posts one event.
const BROWSER: &[u8] = b"POST /v1/groups/clicks/events?producer=tab-7f3a&epoch=1&seq=42 HTTP/1.1\r\n\
    Host: events.example:8080\r\n\
    Connection: keep-alive\r\n\
    Content-Length: 312\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
    sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
    Content-Type: text/plain;charset=UTF-8\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    Accept: */*\r\n\
    Origin: https://shop.example\r\n\
    Sec-Fetch-Site: cross-site\r\n\
    Sec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\n\
    Referer: https://shop.example/\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n\r\n";

/// As a producer that wants no duplicates posts, with headers for the event.
const PRODUCER: &[u8] = b"POST /v1/groups/orders/batch HTTP/1.1\r\n\
    Host: localhost:8080\r\n\
    Authorization: Bearer edl_0193a4b2c3d4_9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\r\n\
    Content-Type: application/vnd.eddyline.batch\r\n\
    Content-Length: 123456\r\n\
    Producer-Id: billing-3\r\n\
    Producer-Epoch: 4\r\n\
    Producer-Seq: 918273\r\n\
    Eddyline-Meta-Trace: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
    Eddyline-Meta-Source: billing\r\n\
    Prefer: return=minimal\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    for (name, input) in [("load", LOAD), ("browser", BROWSER), ("producer", PRODUCER)] {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let (head, used) = parse_head(black_box(input)).expect("good").expect("complete");
                (used, head.path.len(), head.get(Known::ContentType).map(<[u8]>::len))
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("unfinished", |bench| {
        bench.iter(|| parse_head(black_box(&LOAD[..LOAD.len() - 20])).expect("good").is_none());
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunks");
    for size in [100, 16 << 10] {
        let mut input = Vec::new();
        for _ in 0..(1 << 20) / size {
            input.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            input.resize(input.len() + size, b'x');
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\n");
        let mut out = Vec::with_capacity(1 << 20);
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(format!("of {size} B"), |bench| {
            bench.iter(|| {
                out.clear();
                ChunkDecoder::default().feed(black_box(&input), &mut out, 1 << 20).expect("well framed")
            });
        });
    }
    group.finish();
}

fn queries(criterion: &mut Criterion) {
    criterion.bench_function("query", |bench| {
        let query = Query::new("producer=tab-7f3a&epoch=1&seq=42");
        bench.iter(|| {
            black_box(query).allow_only(&["producer", "epoch", "seq", "key_path"]).expect("known");
            black_box(query).get("seq").expect("once")
        });
    });
}

fn replies(criterion: &mut Criterion) {
    let to = ReplyTo { minor_version: 1, head_only: false, keep_alive: true };
    let clock = DateClock::new(1_763_921_472);
    let mut out = Vec::with_capacity(4096);
    let mut group = criterion.benchmark_group("reply");
    group.bench_function("minimal", |bench| {
        bench.iter(|| {
            out.clear();
            Reply::new(&mut out, 204, to, &clock).number("Eddyline-Offset", black_box(918_273)).empty();
            out.len()
        });
    });
    group.bench_function("body", |bench| {
        bench.iter(|| {
            out.clear();
            Reply::new(&mut out, 200, to, &clock).body("application/json", black_box(&[b'x'; 200]));
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, heads, chunks, queries, replies);
criterion_main!(benches);
