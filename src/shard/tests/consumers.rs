//! Consumers over a start: whatever a checkpoint had noted when the crash came, and whichever generation is there, every
//! consumer is as it was last told to be.

use super::*;
use crate::group::consumer::{Change, Life, Terms};
use crate::shard::consumers::Subscription;
use tokio::sync::oneshot;

const MOST: usize = 100_000;

/// What is compared of a consumer: life, epoch, session, next, replays, failures.
type Known = (String, Life, u64, bool, u64, usize, u32);

/// A consumer that is approved at once, from the first event.
fn wanted() -> Subscription {
    let terms = Terms::with_lease(Duration::from_secs(30));
    Subscription { start: "earliest".into(), approved_at: Some(0), terms, most: MOST, audit: b"{}".to_vec() }
}

impl Node {
    async fn subscribe(&self, group: u32, name: &str) {
        self.shard.subscribe(group, name, &wanted()).await.unwrap();
    }

    /// Opens a session, and delivers up to `next`.
    async fn deliver(&self, group: u32, name: &str, next: u64) {
        let delivered = self.shard.decide_durably(group, name, None, |consumer, ground, change| {
            *change = (*change).max(consumer.open_session(7, true, true, ground.now)?);
            let session = consumer.session_name().unwrap();
            consumer.delivered(session, consumer.head(), next, 1, ground.now)
        });
        delivered.await.unwrap();
    }

    async fn ack(&self, group: u32, name: &str, offset: u64) {
        let acked = self.shard.decide_durably(group, name, None, |consumer, ground, change| {
            let acked = consumer.ack(offset, ground.there, ground.now)?;
            assert_eq!(acked, Change::Head(offset + 1), "the few bytes of an ack");
            *change = (*change).max(acked);
            Ok(())
        });
        acked.await.unwrap();
    }

    async fn rewind(&self, group: u32, name: &str, to: u64, until: Option<u64>) {
        let moved = self.shard.decide_durably(group, name, None, |consumer, ground, change| {
            *change = (*change).max(consumer.rewind(to, until, false, ground.now)?);
            Ok(())
        });
        moved.await.unwrap();
    }

    /// All consumers of a group, by name.
    fn consumers(&self, group: u32) -> Vec<Known> {
        let state = self.shard.state.borrow();
        let consumers = state.groups[&group].group.consumers.iter();
        let known = consumers.map(|(name, it)| {
            let (name, session) = (name.to_string(), it.session.is_some());
            (name, it.life, it.epoch, session, it.next, it.replays.len(), it.failures)
        });
        known.collect()
    }
}

fn known(name: &str, epoch: u64, session: bool, next: u64, replays: usize) -> Known {
    (name.to_owned(), Life::Approved, epoch, session, next, replays, 0)
}

/// A group of ten events, with consumers that were made and moved in two generations and behind them.
fn filled() -> (Site, Vec<Known>) {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        node.produce(group, &["x"; 10]).await.unwrap();
        for name in ["acked", "gone", "moved"] {
            node.subscribe(group, name).await;
            node.deliver(group, name, 10).await;
            node.ack(group, name, 3).await;
        }
        node.checkpoint().await;
        node.ack(group, "acked", 4).await;
        node.rewind(group, "moved", 1, None).await;
        node.subscribe(group, "late").await;
        node.checkpoint().await;
        node.ack(group, "acked", 5).await;
        node.ack(group, "acked", 7).await;
        node.rewind(group, "acked", 2, Some(6)).await;
        node.deliver(group, "late", 2).await;
        node.ack(group, "late", 1).await;
        node.shard.unsubscribe(group, "gone", b"{}").await.unwrap();
        node.subscribe(group, "last").await;
    });
    let expected = vec![
        known("acked", 2, true, 8, 1),
        known("last", 0, false, 0, 0),
        known("late", 1, true, 2, 0),
        known("moved", 2, true, 1, 0),
    ];
    (site, expected)
}

#[test]
fn acks_moves_and_removals_are_applied_again_whichever_generation_is_there() {
    type Hurt = fn(&Site);
    let cases: [(&str, Hurt, usize); 4] = [
        ("both are sound", |_| (), 0),
        ("a record of the newer is hurt", |site| site.hurt_newest_state(), 1),
        ("the newer is gone", |site| std::fs::remove_file(site.path("state.b")).unwrap(), 1),
        ("the older is hurt", |site| site.flip("state.a", 140), 1),
    ];
    for (name, hurt, warnings) in cases {
        let (site, expected) = filled();
        assert_eq!(site.generations().len(), 2);
        hurt(&site);
        let (found, seen) = site.look(async |node| node.consumers(1));
        assert_eq!((seen, found.warnings.len()), (expected.clone(), warnings), "{name}: {found:?}");
        // Both are written again, and then nothing is left to apply.
        site.run(async |node| {
            for _ in 0..2 {
                node.produce(1, &["y"]).await.unwrap();
                node.checkpoint().await;
            }
        });
        let (found, seen) = site.look(async |node| node.consumers(1));
        assert_eq!((seen, found.entries, found.warnings.len()), (expected, 0, 0), "{name}");
    }
}

/// A count of consumers that takes several slices to note.
const MANY: usize = 700;
/// Turns of the loop at which some of them change.
const STEPS: usize = 4;

fn name(number: usize) -> String {
    format!("c{number:04}")
}

#[test]
fn consumers_that_change_while_others_are_noted_are_noted_as_they_were() {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        node.make("other", GroupConfig::default()).await;
        node.produce(group, &["x"; 10]).await.unwrap();
        // In one entry each few, for the ring is small.
        for slice in (0..MANY).collect::<Vec<_>>().chunks(50) {
            futures(slice.iter().map(|number| {
                let shard = Rc::clone(&node.shard);
                let name = name(*number);
                async move { shard.subscribe(1, &name, &wanted()).await.map(drop).unwrap() }
            }))
            .await;
        }
        node.checkpoint().await;
        node.produce(group, &["y"]).await.unwrap();
        node.checkpoint().await;
    });
    let files = site.clone();
    let (_, (begun, expected, images)) = site.run(async move |node| {
        let mut gate = node.gate().await;
        node.produce(1, &["z"]).await.unwrap();
        let before = node.shard.state.borrow().checkpoint.generation;
        let begun = (before + 1, node.consumers(1));
        node.shard.want_checkpoint();
        // Every turn of the walk meets changes on both sides of where it stands.
        let mut changes = Vec::new();
        for step in 0..STEPS {
            let busy = node.clone();
            changes.push(tokio_uring::spawn(async move {
                for number in [step, MANY / 2 + step, MANY - 1 - step] {
                    busy.deliver(1, &name(number), 10).await;
                    busy.ack(1, &name(number), 5).await;
                }
            }));
            changes.push(tokio_uring::spawn(come(node.clone(), step)));
            changes.push(tokio_uring::spawn(replace(node.clone(), step)));
            ring::park().await;
        }
        for change in changes {
            change.await.unwrap();
        }
        let expected = node.consumers(1);
        assert_eq!(expected.len(), MANY, "three went and three came in each step");
        let mut images = vec![files.copy()];
        while node.shard.state.borrow().checkpoint.generation < before + 2 && images.len() < 50 {
            let next = node.gate().await;
            drop(gate.open);
            next.reached.await.unwrap();
            images.push(files.copy());
            let (_, reached) = oneshot::channel();
            gate = checkpoint::Gate { open: next.open, reached };
            for _ in 0..16 {
                ring::park().await;
            }
            if node.shard.state.borrow().checkpoint.generation == before + 1 {
                node.shard.want_checkpoint();
            }
        }
        (begun, expected, images)
    });
    assert!(images.len() > 6, "two checkpoints have more steps than {}", images.len());
    // Nothing that came later is in the checkpoint: it may not have reached the disk.
    let bare = images.iter().find(|image| image.generations()[0].generation == begun.0).unwrap().copy();
    let upto = bare.generations()[0].index;
    let later: Vec<u64> = bare.entries().iter().map(|entry| entry.index).filter(|index| *index > upto).collect();
    assert!(later.len() > 1, "changes were written while it was under way");
    later.into_iter().for_each(|index| bare.zero_entry(index));
    let (found, seen) = bare.look(async |node| node.consumers(1));
    assert!(seen == begun.1, "{} of {}: {found:?}", seen.len(), begun.1.len());
    for (step, image) in images.iter().enumerate() {
        let hurt = image.copy();
        hurt.hurt_newest_state();
        for (name, image) in [("as it is", image), ("without the newest state", &hurt)] {
            let (found, seen) = image.look(async |node| node.consumers(1));
            assert!(seen == expected, "step {step}, {name}: {} of {} {found:?}", seen.len(), expected.len());
        }
    }
}

/// Two new consumers come, one before and one behind all others.
async fn come(node: Node, step: usize) {
    for name in [format!("d{step:04}"), format!("a{step:04}")] {
        node.subscribe(1, &name).await;
    }
}

/// Three consumers go, and one comes by a name that was there.
async fn replace(node: Node, step: usize) {
    for number in [20 + step, MANY / 2 + 20 + step, MANY - 21 - step] {
        node.shard.unsubscribe(1, &name(number), b"{}").await.unwrap();
    }
    node.subscribe(1, &name(20 + step)).await;
}

/// Waits for all of them at once.
async fn futures(all: impl Iterator<Item = impl Future<Output = ()> + 'static>) {
    let tasks: Vec<_> = all.map(tokio_uring::spawn).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn a_letter_and_the_position_behind_it_are_in_one_entry() {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        let letters = node.make("orders.dead", GroupConfig::default()).await;
        node.produce(group, &["good", "bad", "good"]).await.unwrap();
        node.subscribe(group, "c").await;
        node.deliver(group, "c", 2).await;
        node.ack(group, "c", 0).await;
        let failed = node.shard.decide_durably(group, "c", None, move |consumer, ground, change| {
            consumer.terms.attempts_max = 1;
            consumer.terms.on_poison = crate::group::consumer::OnPoison::DeadLetter;
            consumer.dead_letters = letters;
            *change = (*change).max(consumer.nack(1, Duration::ZERO, "no", ground.there, ground.now)?);
            Ok(())
        });
        failed.await.unwrap();
        let letter = NewEvents::from_iter([text("bad")]);
        assert_eq!(node.shard.bury(group, "c", 0, &letter).await, Ok(false), "another event is at the head");
        assert_eq!(node.shard.bury(group, "c", 1, &letter).await, Ok(true));
        assert_eq!(node.shard.bury(group, "c", 1, &letter).await, Ok(false), "it is buried once");
    });
    let last = site.entries().last().unwrap().index;
    let kinds: Vec<_> = site.parts(last).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [PartKind::Frame, PartKind::Consumer]);
    for (torn, letters, next) in [(true, 0, 1), (false, 1, 2)] {
        let image = site.copy();
        if torn {
            image.zero_entry(last);
        }
        let (_, seen) = image.look(async |node| (node.data(2).await.len(), node.consumers(1)[0].4));
        assert_eq!(seen, (letters, next), "torn: {torn}");
    }
}
