//! Random histories against a naive model: what was answered and is covered is there after every start, in order.

use super::*;
use std::time::Instant;

/// What the test knows: the events of two groups.
#[derive(Clone, Default)]
struct Model {
    groups: [Vec<String>; 2],
    /// The group and length of the last request, while it is what the last entry holds.
    last: Option<(usize, usize)>,
}

async fn live(node: &Node, mut random: fastrand::Rng, mut model: Model) -> Model {
    for _ in 0..random.usize(1..25) {
        let place = random.usize(..2);
        if random.u8(..20) == 0 {
            node.shard.want_checkpoint();
        }
        let events: Vec<String> = (0..random.usize(1..4))
            .map(|event| format!("{}-{event}{}", model.groups[place].len(), "z".repeat(random.usize(..6000))))
            .collect();
        let data: Vec<&str> = events.iter().map(String::as_str).collect();
        let receipt = node.produce(place as u32 + 1, &data).await.unwrap();
        assert_eq!(receipt.first_offset, Some(model.groups[place].len() as u64));
        model.last = Some((place, events.len()));
        model.groups[place].extend(events);
    }
    if random.bool() {
        node.shard.close().await;
        model.last = None;
    }
    model
}

/// Takes the last entry away as a crash may, if nothing says that it was durable.
fn hurt(site: &Site, random: &mut fastrand::Rng, model: &mut Model) -> &'static str {
    let last = site.entries().pop().unwrap();
    let (file, position) = Site::place(last.address);
    let tear = random.u64(..last.disk_bytes());
    let name = match random.u8(..4) {
        0 => return "nothing",
        1 => {
            site.zero_entry(last.index);
            "the last entry zeroed"
        }
        2 => {
            // Blocks reach the disk in any order; what was not written is what stood there before.
            let torn = tear / BLOCK * BLOCK;
            site.write(&file, position + torn, &vec![0; BLOCK_BYTES]);
            "a block of the last entry missing"
        }
        _ => {
            site.hurt_entry(last.index, tear % (64 + u64::from(last.parts_bytes)));
            "a bit of the last entry flipped"
        }
    };
    let in_state = site.generations()[0].index >= last.index;
    if let Some((place, events)) = model.last.take().filter(|_| !in_state) {
        let length = model.groups[place].len();
        model.groups[place].truncate(length - events);
    }
    name
}

#[test]
fn random_histories_keep_what_was_answered() {
    let seed = std::env::var("EDDYLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260);
    let mut random = fastrand::Rng::with_seed(seed);
    let started = Instant::now();
    let mut histories = 0;
    while histories < 12 && started.elapsed() < Duration::from_secs(10) {
        let site = Site::new();
        site.run(async |node| {
            node.make("one", small_segments()).await;
            node.make("two", GroupConfig::default()).await;
            node.shard.close().await;
        });
        let mut model = Model::default();
        for step in 0..8 {
            let (before, fork) = (model.clone(), random.fork());
            let (_, after) = site.run(async move |node| live(node, fork, before).await);
            model = after;
            let hurt = match model.last {
                Some(_) => hurt(&site, &mut random, &mut model),
                None => "nothing, all is covered",
            };
            let (found, seen) = site.look(async |node| [node.data(1).await, node.data(2).await]);
            let told = format!("seed {seed}, history {histories}, step {step}, {hurt}: {found:?}");
            assert!(seen == model.groups, "{told}");
            assert!(found.warnings.is_empty(), "{told}");
        }
        histories += 1;
    }
    assert!(histories > 0);
}
