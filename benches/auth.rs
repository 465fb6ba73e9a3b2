//! What a token costs a request: the first use of it on a core, every later one, and a wrong secret.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use eddyline::auth::Scope;
use eddyline::auth::directory::{Directory, Lookup};
use eddyline::auth::secret::{Secret, TokenId};
use eddyline::auth::token::Token;

/// As many tokens as a broker has by default at most; the texts of them.
fn directory() -> (Arc<Directory>, Vec<String>) {
    let directory = Arc::new(Directory::default());
    let texts = (0..10_000).map(|number| {
        let (id, secret) = (TokenId(number), Secret::new().expect("random bits"));
        directory.publish(Arc::new(Token {
            id,
            digest: secret.digest(),
            scopes: [Scope::Produce].into_iter().collect(),
            groups: ["orders", "clicks", "web-*"].map(Box::from).into(),
            expires_us: Some(u64::MAX),
            origins: Box::default(),
            rate: Some(1_000_000),
            consumer: None,
            name: None,
            created_us: 0,
        }));
        secret.text(id)
    });
    let texts = texts.collect();
    (directory, texts)
}

/// Everything a produce request asks of its token.
fn admit(lookup: &Lookup, text: &str, now_ns: u64) -> bool {
    lookup.find(black_box(text).as_bytes()).is_some_and(|token| {
        token.lapse(1).is_none() && token.take(|| now_ns).is_ok() && token.token.allows(Scope::Produce, "web-site")
    })
}

fn tokens(criterion: &mut Criterion) {
    let (directory, texts) = directory();
    let mut group = criterion.benchmark_group("token");
    let mut now_ns = 0;
    let mut next_ns = || {
        now_ns += 10_000;
        now_ns
    };
    let lookup = Lookup::new(Arc::clone(&directory));
    group.bench_function("known", |bench| bench.iter(|| assert!(admit(&lookup, &texts[77], next_ns()))));
    // One after the other, so that none of them is known any more when its turn comes again.
    let mut turn = texts.iter().cycle();
    group.bench_function("first use", |bench| {
        bench.iter(|| assert!(admit(&lookup, turn.next().expect("endless"), next_ns())));
    });
    let wrong = format!("{}{}", &texts[9][..21], &texts[10][21..]);
    group.bench_function("wrong secret", |bench| bench.iter(|| assert!(!admit(&lookup, &wrong, 0))));
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
