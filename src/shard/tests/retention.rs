//! Retention: what goes stays gone through any restart, and no file of it stays behind.

use super::segments::{filled, large};
use super::*;
use crate::group::config::Retention;
use crate::group::consumer::{Change, Terms};

/// At most so many bytes, and segments that are small.
fn keeping(max_bytes: u64) -> GroupConfig {
    GroupConfig { retention: Retention { max_bytes: Some(max_bytes), ..Retention::default() }, ..small_segments() }
}

/// The shortest age that a configuration may name.
const SECOND: Duration = Duration::from_secs(1);

impl Node {
    async fn configure(&self, group: u32, config: GroupConfig) {
        let groups = self.shard.table_groups();
        let table = groups.iter().find(|known| known.number == group).unwrap().clone();
        let entry = crate::shard::directory::Entry { config: table.config.clone(), table };
        self.shards.configure_group(&self.directory, &entry, config, None).await.unwrap();
    }

    async fn retain(&self) {
        self.shard.retain_once(&self.directory).await.unwrap();
    }

    async fn earliest(&self, group: u32) -> u64 {
        self.shard.range(group).unwrap().earliest
    }
}

fn files(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.path("segments")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn name(sequence: u32) -> String {
    segment_file(1, sequence).strip_prefix("segments/").unwrap().to_owned()
}

#[test]
fn what_is_trimmed_stays_gone_with_its_files_whether_or_not_a_checkpoint_holds_it() {
    for checkpoint in [false, true] {
        let site = filled();
        let found = site.run(async move |node| {
            node.configure(1, keeping(100_000)).await;
            node.retain().await;
            if checkpoint {
                node.checkpoint().await;
            }
            (node.earliest(1).await, node.read_from(1, 3).await.1)
        });
        assert_eq!(found.1, (4, Some(Fault::Gone { earliest: 4 })), "{checkpoint}");
        assert!(!files(&site).contains(&name(0)) && files(&site).contains(&name(1)), "{:?}", files(&site));
        let (recovered, (earliest, seen)) = site.run(async |node| {
            let before = node.earliest(1).await;
            node.produce(1, &[&large(12)]).await.unwrap();
            (before, node.read(1).await.len())
        });
        assert_eq!((earliest, seen, recovered.warnings.len()), (4, 9, 0), "{checkpoint}: {:?}", recovered.warnings);
    }
}

#[test]
fn a_file_that_a_crash_left_behind_is_removed_by_the_next_start() {
    let site = filled();
    let before = std::fs::read(site.path(&segment_file(1, 0))).unwrap();
    site.run(async |node| {
        node.configure(1, keeping(100_000)).await;
        node.retain().await;
    });
    std::fs::write(site.path(&segment_file(1, 0)), before).unwrap();
    let (recovered, earliest) = site.run(async |node| node.earliest(1).await);
    assert_eq!((earliest, recovered.warnings.len()), (4, 0));
    assert!(!files(&site).contains(&name(0)));
}

#[test]
fn a_quiet_group_is_sealed_by_time_and_emptied_and_goes_on_behind_it_in_a_file_of_its_own() {
    for (name_of_case, checkpoint) in [("journal", false), ("state file", true)] {
        let site = Site::new();
        site.run(async move |node| {
            let retention = Retention { max_age: Some(SECOND), ..Retention::default() };
            let config = GroupConfig { retention, segment_max_age: SECOND, ..GroupConfig::default() };
            let group = node.make("orders", config).await;
            node.produce(group, &["a", "b"]).await.unwrap();
            // Sealed, moved to its file, removed.
            while node.earliest(group).await < 2 {
                node.retain().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if checkpoint {
                node.checkpoint().await;
            }
        });
        let (_, (range, receipt, sequence)) = site.run(async |node| {
            let range = node.shard.range(1).unwrap();
            let receipt = node.produce(1, &["c"]).await.unwrap();
            let sequence = node.shard.state.borrow().groups[&1].group.log.segments()[0].sequence;
            ((range.earliest, range.tail), receipt.first_offset, sequence)
        });
        assert_eq!(
            (range, receipt, sequence),
            ((2, 2), Some(2), 1),
            "{name_of_case}: no number of a file is used again"
        );
        assert_eq!(site.look(async |node| node.data(1).await).1, ["c"], "{name_of_case}");
    }
}

#[test]
fn a_segment_that_began_before_a_start_is_read_for_its_index_when_it_is_sealed() {
    let site = Site::new();
    let _ = site.run(async |node| {
        let config = GroupConfig { segment_max_age: SECOND, ..GroupConfig::default() };
        let group = node.make("orders", config).await;
        node.produce(group, &["a"]).await.unwrap();
        node.checkpoint().await;
    });
    let _ = site.run(async |node| {
        node.produce(1, &["b"]).await.unwrap();
        assert!(!node.shard.state.borrow().groups[&1].group.log.active_index().1, "nothing is known of before");
        node.checkpoint().await;
        tokio::time::sleep(SECOND).await;
        node.retain().await;
        let found = node.shard.state.borrow().groups[&1].group.log.segments()[0];
        assert!(found.sealed);
        let file = crate::io::file::SegmentFile::open(&segment::path(&node.shard.segments_directory(), 1, 0)).unwrap();
        let index = loop {
            match super::super::segments::footer(&file, found.end) {
                Ok(index) => break index,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        assert_eq!(index.seek(0), Some(segment::SEGMENT_START));
    });
}

#[test]
fn a_segment_sealed_by_time_has_its_index_behind_it_and_no_room_that_it_does_not_need() {
    let site = Site::new();
    site.run(async |node| {
        let config = GroupConfig { segment_max_age: SECOND, ..GroupConfig::default() };
        let group = node.make("orders", config).await;
        node.produce(group, &["a"]).await.unwrap();
        node.checkpoint().await;
        assert!(std::fs::metadata(segment::path(&node.shard.segments_directory(), 1, 0)).unwrap().len() > 8192);
        tokio::time::sleep(SECOND).await;
        node.retain().await;
        let found = node.shard.state.borrow().groups[&1].group.log.segments()[0];
        let file = crate::io::file::SegmentFile::open(&segment::path(&node.shard.segments_directory(), 1, 0)).unwrap();
        assert!(found.sealed && super::super::segments::footer(&file, found.end).is_ok());
        assert!(file.length().unwrap() < 1024);
    });
    // The same again after the entry alone: a start seals what was sealed.
    let (_, sealed) = site.look(async |node| node.shard.state.borrow().groups[&1].group.log.active().is_none());
    assert!(sealed);
}

#[test]
fn who_is_protected_holds_segments_up_to_the_hard_limit_and_then_has_a_gap_that_is_told() {
    let site = filled();
    let (_, events) = site.run(async |node| {
        let terms = Terms::with_lease(Duration::from_secs(30));
        let wanted = crate::shard::consumers::Subscription {
            start: "0".into(),
            approved_at: Some(5),
            terms,
            most: 10,
            audit: b"{}".to_vec(),
        };
        node.shard.subscribe(1, "billing", &wanted).await.unwrap();
        let retention = |max_bytes_hard| Retention {
            max_bytes: Some(1),
            protect: ["billing".into(), "nobody".into()].into(),
            max_bytes_hard,
            ..Retention::default()
        };
        node.configure(1, GroupConfig { retention: retention(Some(1 << 20)), ..small_segments() }).await;
        node.retain().await;
        assert_eq!(node.earliest(1).await, 4, "all of the segment is held in which the position is");
        assert_eq!(node.shard.group_info(1).unwrap().not_protected, ["nobody".into()]);
        node.configure(1, GroupConfig { retention: retention(Some(70_000)), ..small_segments() }).await;
        node.retain().await;
        assert_eq!(node.earliest(1).await, 8);
        node.shard
            .state
            .borrow()
            .outbox
            .batch(u64::MAX, 1 << 20)
            .iter()
            .map(|event| event.json.to_vec())
            .collect::<Vec<_>>()
    });
    let lost: serde_json::Value = serde_json::from_slice(events.last().unwrap()).unwrap();
    assert_eq!(lost["action"], "group.events_lost");
    assert_eq!(lost["lost"], serde_json::json!([{ "consumer": "billing", "from": 5, "to": 8 }]));
    let (_, (gap, first)) = site.run(async |node| {
        let status = node.shard.consumer_status(1, "billing").await.unwrap();
        (status.consumer.gap, status.first)
    });
    assert_eq!((gap, first), (Some((5, 8)), 8), "and a restart knows of it");
}

#[test]
fn a_consumer_is_not_blamed_for_what_went_while_it_failed() {
    let site = filled();
    let (_, attempt) = site.run(async |node| {
        let terms = Terms { attempts_max: 1, ..Terms::with_lease(Duration::from_secs(30)) };
        let wanted = crate::shard::consumers::Subscription {
            start: "0".into(),
            approved_at: Some(0),
            terms,
            most: 10,
            audit: b"{}".to_vec(),
        };
        node.shard.subscribe(1, "billing", &wanted).await.unwrap();
        let failed = node.shard.decide_durably(1, "billing", None, |consumer, ground, change| {
            *change = (*change).max(consumer.open_session(7, false, false, ground.now)?);
            let session = consumer.session_name().unwrap();
            consumer.delivered(session, 0, 1, 10, ground.now)?;
            *change = Change::Record;
            consumer.nack(0, Duration::ZERO, "no", ground.there, ground.now)?;
            Ok(consumer.poisoned())
        });
        assert_eq!(failed.await, Ok(true));
        node.configure(1, keeping(100_000)).await;
        node.retain().await;
        let status = node.shard.consumer_status(1, "billing").await.unwrap();
        (status.consumer.failures, status.blocked, status.first)
    });
    assert_eq!(attempt, (0, None, 4), "what is next was never tried");
}
