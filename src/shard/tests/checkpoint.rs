//! Checkpoints and the ring: what is reused was not needed any more, and whatever moment a crash picks, all is there.

use super::*;
use crate::log::state::{State as StateFile, file_name};
use std::sync::mpsc;
use tokio::sync::oneshot;

fn event(number: usize) -> String {
    format!("{number:05}{}", "y".repeat(number % 5 * 700))
}

impl Site {
    /// A copy of the files as they are now.
    pub(super) fn copy(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let shard = shard_directory(copy.path(), 0);
        for directory in ["journal", "segments"] {
            std::fs::create_dir_all(shard.join(directory)).unwrap();
            for entry in std::fs::read_dir(self.path(directory)).unwrap() {
                let name = entry.unwrap().file_name();
                // A file may be removed meanwhile.
                let _ = std::fs::copy(self.path(directory).join(&name), shard.join(directory).join(&name));
            }
        }
        for name in ["state.a", "state.b"] {
            std::fs::copy(self.path(name), shard.join(name)).unwrap();
        }
        std::fs::copy(self.root.path().join("identity.toml"), copy.path().join("identity.toml")).unwrap();
        Self { root: Arc::new(copy), ..self.clone() }
    }

    /// Generations on disk, the newer first.
    pub(super) fn generations(&self) -> Vec<crate::log::state::Checkpoint> {
        let read = |generation| std::fs::read(self.path(file_name(generation))).unwrap();
        let mut found: Vec<_> =
            [read(0), read(1)].iter().filter_map(|bytes| Some(StateFile::decode(bytes).ok()?.checkpoint)).collect();
        found.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.generation));
        found
    }

    pub(super) fn hurt_newest_state(&self) {
        self.flip(file_name(self.generations()[0].generation), 140);
    }
}

#[test]
fn a_ring_that_went_round_many_times_holds_everything_also_without_the_newest_state() {
    let site = Site::new();
    site.run(async |node| node.make("orders", small_segments()).await);
    let mut written = 0;
    for _ in 0..6 {
        let from = written;
        site.run(async move |node| {
            for number in from..from + 45 {
                node.produce(1, &[&event(number)]).await.unwrap();
            }
        });
        written += 45;
        let expected: Vec<String> = (0..written).map(event).collect();
        let hurt = site.copy();
        hurt.hurt_newest_state();
        for (name, site) in [("as it is", &site), ("without the newest state", &hurt)] {
            let (found, seen) = site.look(async |node| node.data(1).await);
            assert!(seen == expected, "{name}, {written} written: {} seen, {found:?}", seen.len());
        }
    }
    let end = site.entries().last().unwrap().address;
    assert!(end > 3 * RING.bytes(), "the ring went round: {end}");
}

/// A job of the mover that holds up the ones behind it.
pub(super) struct Gate {
    pub(super) open: mpsc::Sender<()>,
    pub(super) reached: oneshot::Receiver<()>,
}

impl Node {
    /// Puts a gate behind whatever the mover has been given.
    pub(super) async fn gate(&self) -> Gate {
        let (open, opened) = mpsc::channel::<()>();
        let (reach, reached) = oneshot::channel();
        let mover = self.shard.mover.clone();
        tokio_uring::spawn(async move {
            let wait = move || {
                let _ = reach.send(());
                // A gate that is dropped is open.
                let _ = opened.recv();
            };
            mover.run(wait).await;
        });
        turns().await;
        Gate { open, reached }
    }
}

/// Lets every task take its turn a few times.
async fn turns() {
    for _ in 0..16 {
        ring::park().await;
    }
}

#[test]
fn whatever_a_checkpoint_has_done_when_the_crash_comes_everything_is_there() {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", small_segments()).await;
        let gone = node.make("gone", GroupConfig::default()).await;
        node.produce(gone, &["x"]).await.unwrap();
        for number in 0..10 {
            node.produce(group, &[&event(number)]).await.unwrap();
        }
    });
    assert_eq!(site.generations().len(), 1, "nothing is in segments for sure");
    let files = site.clone();
    let (_, images) = site.run(async move |node| {
        let mut gate = node.gate().await;
        for number in 10..14 {
            node.produce(1, &[&event(number)]).await.unwrap();
        }
        let mut images = Vec::new();
        while node.shard.state.borrow().checkpoint.generation == 1 && images.len() < 50 {
            // The one job of the checkpoint that waits between the two gates is done.
            let next = node.gate().await;
            drop(gate.open);
            next.reached.await.unwrap();
            images.push(files.copy());
            let (_, reached) = oneshot::channel();
            gate = Gate { open: next.open, reached };
            turns().await;
        }
        images
    });
    let expected: Vec<String> = (0..14).map(event).collect();
    let written = images.iter().position(|image| image.generations().len() == 2).unwrap();
    assert!(written >= 3, "frames were moved, segments synced, their directory synced: {written}");
    for (step, image) in images.iter().enumerate() {
        if step < written {
            let bare = image.copy();
            for entry in std::fs::read_dir(bare.path("segments")).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
            let (_, seen) = bare.look(async |node| node.data(1).await);
            assert!(seen == expected, "step {step}: what was not synced for sure is not needed");
        }
        let (found, seen) = image.look(async |node| node.data(1).await);
        assert!(seen == expected, "step {step}: {found:?}");
        assert_eq!((found.groups, found.warnings.len()), (2, 0), "step {step}: {found:?}");
    }
}

#[test]
fn a_ring_that_ran_full_while_a_checkpoint_was_held_up_is_freed_again() {
    let mut site = Site::new();
    site.waiting = Duration::from_millis(300);
    site.run(async |node| node.make("orders", GroupConfig::default()).await);
    let (_, (before, after)) = site.run(async |node| {
        // The checkpoint of the start, so that the next one finds little between the two generations.
        while node.shard.state.borrow().checkpoint.index == 0 {
            turns().await;
        }
        // A move that does not come back keeps the next one from beginning before the ring is full.
        let gate = node.gate().await;
        node.produce(1, &["x"]).await.unwrap();
        node.shard.state.borrow_mut().flush_queue.push_back(1);
        node.shard.tails_turn.notify_one();
        turns().await;
        let mut before = 1;
        let full = loop {
            match node.produce(1, &[&"x".repeat(3000)]).await {
                Ok(_) => before += 1,
                Err(fault) => break fault,
            }
        };
        assert_eq!(full, Fault::Overloaded);
        drop(gate);
        let mut after = 0;
        while after < 100 && node.produce(1, &[&"x".repeat(3000)]).await.is_ok() {
            after += 1;
        }
        (before, after)
    });
    assert_eq!(after, 100, "after {before} that filled the ring");
    assert_eq!(site.look(async |node| node.data(1).await.len()).1, before + after);
}

#[test]
fn a_checkpoint_begins_at_a_quarter_of_the_ring_also_when_no_group_has_much() {
    let site = Site::new();
    let (_, checkpoint) = site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        for _ in 0..24 {
            node.produce(group, &["x"]).await.unwrap();
        }
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        node.shard.state.borrow().checkpoint.index
    });
    assert!(checkpoint >= 15, "the checkpoint in force stands at {checkpoint}");
}
