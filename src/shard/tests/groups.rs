//! Groups over a start: removals that a crash interrupted, names used again, producers, times and ids.

use super::*;

/// Where a crash stands between what was done and what the state file holds.
const CHECKPOINTS: [bool; 2] = [false, true];

#[test]
fn a_removed_group_stays_removed_and_its_name_goes_on_behind_it() {
    for checkpoint in CHECKPOINTS {
        let site = Site::new();
        site.run(async move |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            node.make("other", GroupConfig::default()).await;
            node.produce(group, &["a", "b", "c"]).await.unwrap();
            node.checkpoint().await;
            node.remove("orders").await;
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let left: Vec<_> = std::fs::read_dir(site.path("segments")).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(left.iter().all(|entry| !entry.file_name().to_str().unwrap().starts_with("0000000001")), "{left:?}");
        let (found, (range, made)) = site.run(async |node| {
            let range = node.shard.range(1);
            let made = node.make("orders", GroupConfig::default()).await;
            node.produce(made, &["d"]).await.unwrap();
            (range, made)
        });
        assert_eq!((found.groups, range, made), (1, Err(Fault::NoGroup), 3), "{checkpoint}");
        let (_, seen) = site.look(async |node| (node.read(3).await, node.shard.find(3, 3).await.err()));
        assert_eq!((seen.0[0].offset, &*seen.0[0].data), (4, "d"), "{checkpoint}: one behind the old tail");
        assert_eq!(seen.1, Some(Fault::Gone { earliest: 4 }), "{checkpoint}: every old position is gone");
    }
}

#[test]
fn a_removal_that_was_interrupted_is_told_and_finished() {
    for checkpoint in CHECKPOINTS {
        let site = Site::new();
        site.run(async move |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            node.produce(group, &["a", "b"]).await.unwrap();
            let entry = {
                let state = &mut *node.shard.state.borrow_mut();
                state.member_mut(group).unwrap().group.closed = true;
                state.add_part(PartKind::GroupClosed, group.to_le_bytes().to_vec())
            };
            node.shard.commit_turn.notify_one();
            node.shard.durable(entry).await.unwrap();
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let (found, closed) = site.look(async |node| node.shard.closed_groups());
        assert_eq!((found.groups, closed), (1, vec![(1, 2)]), "{checkpoint}");
        site.run(async |node| node.remove("orders").await);
        let (found, closed) = site.look(async |node| node.shard.closed_groups());
        assert_eq!((found.groups, closed), (0, vec![]), "{checkpoint}");
        assert_eq!(std::fs::read_dir(site.path("segments")).unwrap().count(), 0, "{checkpoint}");
    }
}

#[test]
fn a_configuration_survives() {
    for checkpoint in CHECKPOINTS {
        let site = Site::new();
        site.run(async move |node| {
            node.make("orders", GroupConfig::default()).await;
            let table = node.shard.table_groups().remove(0);
            let entry = crate::shard::directory::Entry { table, config: GroupConfig::default() };
            node.shards.configure_group(&node.directory, &entry, small_segments(), None).await.unwrap();
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let (_, info) = site.look(async |node| node.shard.group_info(1).unwrap());
        assert_eq!(info.config, small_segments(), "{checkpoint}");
    }
}

#[test]
fn a_request_that_is_sent_again_after_a_start_is_stored_once() {
    let stamp = |seq| Some(ProducerStamp { id: "till-7", epoch: 2, seq });
    for checkpoint in CHECKPOINTS {
        let site = Site::new();
        site.run(async move |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            for (seq, data) in [["a", "b"], ["c", "d"]].iter().enumerate() {
                node.produce_as(group, stamp(seq as u64), data).await.unwrap();
            }
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let (found, answers) = site.run(async move |node| {
            let first = node.produce_as(1, stamp(0), &["a", "b"]).await.unwrap();
            let second = node.produce_as(1, stamp(1), &["c", "d"]).await.unwrap();
            let gap = node.produce_as(1, stamp(3), &["x"]).await.unwrap_err();
            let next = node.produce_as(1, stamp(2), &["e"]).await.unwrap();
            (first, second, gap, next)
        });
        assert_eq!(found.entries > 0, !checkpoint);
        let (first, second, gap, next) = answers;
        assert_eq!((first.first_offset, first.stamps), (Some(0), None), "{checkpoint}");
        assert_eq!((second.first_offset, second.stamps), (Some(2), None), "{checkpoint}");
        assert!(matches!(gap, Fault::Refused { .. }), "{checkpoint}: {gap:?}");
        assert_eq!(next.first_offset, Some(4), "{checkpoint}");
        assert_eq!(site.look(async |node| node.data(1).await).1.concat(), "abcde", "{checkpoint}");
    }
}

/// Adds one event as if the clock showed `now_us`.
async fn produce_at(node: &Node, group: u32, now_us: u64) {
    let entry = {
        let state = &mut *node.shard.state.borrow_mut();
        let entry = state.open_index();
        let member = state.member_mut(group).unwrap();
        let batch = Batch { events: &NewEvents::from_iter([text("late")]), producer: None, expect_offset: None };
        member.group.accept(&batch, now_us, entry, 1 << 10).unwrap();
        state.open.groups.push(group);
        state.open.bytes += 1 << 10;
        entry
    };
    node.shard.commit_turn.notify_one();
    node.shard.durable(entry).await.unwrap();
}

#[test]
fn times_and_ids_ascend_also_when_the_clock_went_back_over_a_start() {
    for checkpoint in CHECKPOINTS {
        let site = Site::new();
        let (_, ahead) = site.run(async move |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            node.produce(group, &["early"]).await.unwrap();
            let ahead = node.shard.clock.now_us() + 1_800_000_000;
            produce_at(node, group, ahead).await;
            if checkpoint {
                node.checkpoint().await;
            }
            ahead
        });
        site.run(async |node| node.produce(1, &["now"]).await.unwrap());
        // That offsets, times and ids ascend is what every reading looks at.
        let (_, seen) = site.look(async |node| node.read(1).await);
        assert_eq!(seen.len(), 3);
        assert_eq!((seen[1].received_us, seen[2].received_us), (ahead, ahead), "{checkpoint}: time stood still");
    }
}

#[test]
fn a_group_that_exists_is_told_once_it_is_durable() {
    let site = Site::new();
    site.run(async |node| {
        let durable = |node: &Node| node.shard.state.borrow().durable_index;
        let first = node.make("orders", GroupConfig::default());
        let second = async {
            let group = node.make("orders", GroupConfig::default()).await;
            (group, durable(node))
        };
        let (first, (second, at)) = tokio::join!(first, second);
        assert_eq!((first, second, at), (1, 1, 1), "the answer rests on entry 1");
    });
}
