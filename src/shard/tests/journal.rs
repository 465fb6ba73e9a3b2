//! Recovery of the journal, as a table: how the bytes were hurt, and what must remain.

use super::*;
use crate::log::recovery::End;

/// Entry 1 makes the group; entries 2 to 6 hold two events each.
const LAST: u64 = 6;

fn filled() -> Site {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        assert_eq!(group, 1);
        for pair in 0..5 {
            let data = [format!("{pair}a"), format!("{pair}b")];
            node.produce(group, &[&data[0], &data[1]]).await.unwrap();
        }
    });
    assert_eq!(site.entries().len() as u64, LAST);
    site
}

/// What the first `pairs` of the five requests hold.
fn pairs(pairs: usize) -> Vec<String> {
    (0..pairs).flat_map(|pair| [format!("{pair}a"), format!("{pair}b")]).collect()
}

fn damaged(site: &Site, index: u64) -> End {
    End::Damaged { index, address: site.entry(index).address }
}

struct Case {
    name: &'static str,
    /// Hurts the files, and says how the journal ends now.
    hurt: fn(&Site) -> End,
    /// Requests whose events remain.
    remain: usize,
}

const CASES: [Case; 17] = [
    Case { name: "clean", hurt: |_| End::Clean, remain: 5 },
    Case {
        name: "the header of the last, uncovered entry is torn",
        hurt: |site| {
            site.hurt_entry(LAST, 40);
            End::Clean
        },
        remain: 4,
    },
    Case {
        name: "the middle of the last, uncovered entry is torn",
        hurt: |site| {
            site.hurt_entry(LAST, 150);
            End::Torn
        },
        remain: 4,
    },
    Case {
        name: "the last entry never reached the disk",
        hurt: |site| {
            site.zero_entry(LAST);
            End::Clean
        },
        remain: 4,
    },
    Case {
        name: "the last of two in flight is there, the one before is torn",
        hurt: |site| {
            site.uncover(LAST);
            site.hurt_entry(LAST - 1, 150);
            End::Torn
        },
        remain: 3,
    },
    Case {
        name: "the last of two in flight is there, the one before is not",
        hurt: |site| {
            site.uncover(LAST);
            site.zero_entry(LAST - 1);
            End::Torn
        },
        remain: 3,
    },
    Case {
        name: "an entry that was answered is torn",
        hurt: |site| {
            let end = damaged(site, LAST - 1);
            site.hurt_entry(LAST - 1, 150);
            end
        },
        remain: 3,
    },
    Case {
        name: "an entry that was answered is gone",
        hurt: |site| {
            let end = damaged(site, 4);
            site.zero_entry(4);
            end
        },
        remain: 2,
    },
    Case {
        name: "the header of an entry that was answered is hurt",
        hurt: |site| {
            let end = damaged(site, 3);
            site.hurt_entry(3, 0);
            end
        },
        remain: 1,
    },
    Case {
        name: "an entry has right checksums and another predecessor",
        hurt: |site| {
            site.forge(LAST, |place| place.previous_crc ^= 1);
            End::Torn
        },
        remain: 4,
    },
    Case {
        name: "an entry of another lap stands where the last one belongs",
        hurt: |site| {
            let (bytes, _) = site.forged(LAST, &site.parts(LAST), |place| place.address += RING.bytes());
            let (file, position) = Site::place(site.entry(LAST).address);
            site.write(&file, position, &bytes);
            End::Clean
        },
        remain: 4,
    },
    Case {
        name: "an entry of an earlier lap has the right chain and the wrong address",
        hurt: |site| {
            let next = site.entry(LAST).address + BLOCK;
            let crc = site.entry(LAST).crc;
            let (bytes, _) = site.forged(LAST, &site.parts(LAST), |place| {
                *place = EntryPlace { index: LAST + 1, address: next + RING.bytes(), previous_crc: crc, ..*place };
            });
            let (file, position) = Site::place(next);
            site.write(&file, position, &bytes);
            End::Clean
        },
        remain: 5,
    },
    Case {
        name: "an entry of another shard follows",
        hurt: |site| {
            let last = site.entry(LAST);
            site.forge(LAST, |place| {
                *place = EntryPlace {
                    owner: Owner { shard: 1, ..place.owner },
                    index: LAST + 1,
                    address: last.address + BLOCK,
                    durable_upto: LAST + 1,
                    previous_crc: last.crc,
                    ..*place
                };
            });
            End::Clean
        },
        remain: 5,
    },
    Case {
        name: "random bytes in the files that were never written",
        hurt: |site| {
            let mut random = fastrand::Rng::with_seed(7);
            for slot in 1..RING.files {
                let bytes: Vec<u8> = (0..RING.file_bytes - BLOCK).map(|_| random.u8(..)).collect();
                site.write(&journal_file(slot), BLOCK, &bytes);
            }
            End::Clean
        },
        remain: 5,
    },
    Case {
        name: "a copy of the last entry stands in a later file",
        hurt: |site| {
            let bytes = site.entry_bytes(LAST);
            site.write(&journal_file(1), BLOCK, &bytes);
            End::Clean
        },
        remain: 5,
    },
    Case {
        name: "everything behind the group's first request is gone",
        hurt: |site| {
            (3..=LAST).for_each(|index| site.zero_entry(index));
            End::Clean
        },
        remain: 1,
    },
    Case {
        name: "only an entry that knows of much more is left behind the second",
        hurt: |site| {
            let end = damaged(site, 3);
            (3..LAST).for_each(|index| site.zero_entry(index));
            end
        },
        remain: 1,
    },
];

#[test]
fn what_was_answered_remains_and_what_was_not_is_cut() {
    for case in &CASES {
        let name = case.name;
        let site = filled();
        let end = (case.hurt)(&site);
        let mut expected = pairs(case.remain);
        let (found, seen) = site.look(async |node| node.data(1).await);
        assert_eq!((found.end, found.entries), (end, case.remain as u64 + 1), "{name}");
        assert_eq!(seen, expected, "{name}");

        let (again, written) = site.run(async |node| node.produce(1, &["new"]).await);
        if matches!(end, End::Damaged { .. }) {
            assert_eq!(again.end, end, "{name}: looking at it changed nothing");
            assert!(matches!(written, Err(Fault::Damaged(_))), "{name}: {written:?}");
            assert!(again.warnings.iter().any(|warning| warning.contains("journal/000.journal")), "{name}: {again:?}");
        } else {
            assert_eq!(written.unwrap().first_offset, Some(expected.len() as u64), "{name}");
            expected.push("new".into());
        }
        for _ in 0..2 {
            let (last, seen) = site.look(async |node| node.data(1).await);
            assert_eq!(seen, expected, "{name}: after another start");
            assert_ne!(last.end, End::Torn, "{name}: what was cut stays cut");
        }
    }
}

#[test]
fn behind_a_cut_the_journal_goes_on_in_a_fresh_file() {
    let site = filled();
    site.uncover(LAST);
    site.hurt_entry(LAST - 1, 150);
    let behind = site.entry(LAST);
    site.run(async |node| {
        node.shard.want_checkpoint();
        for data in ["x", "y", "z"] {
            node.produce(1, &[data]).await.unwrap();
        }
    });
    let link = site.entry(LAST - 1);
    assert_eq!((link.kind, link.address), (EntryKind::Link, RING.file_bytes + BLOCK));
    assert_eq!(link.previous_crc, site.entry(LAST - 2).crc);
    let (file, position) = Site::place(behind.address);
    let still = EntryHeader::decode(&site.read(&file, position, BLOCK_BYTES), site.owner()).unwrap();
    assert_eq!(still, behind, "what was cut is still there, and no part of the journal");

    // The state file would begin behind the cut; without it the journal is walked over the cut again.
    site.write("state.a", 0, &[0; 128]);
    let (found, seen) = site.look(async |node| node.data(1).await);
    assert_eq!((found.end, found.entries), (End::Clean, LAST - 2 + 4));
    assert_eq!(seen[6..], ["x", "y", "z"]);
}

#[test]
fn a_torn_entry_at_the_beginning_of_a_file_is_cut_once() {
    let site = Site::new();
    site.run(async |node| {
        let _no_checkpoint = node.gate().await;
        node.make("orders", GroupConfig::default()).await;
        for _ in 0..16 {
            node.produce(1, &["x"]).await.unwrap();
        }
    });
    // Entry 15 fills the first file to its end; 16 and 17 begin the second.
    assert_eq!(site.entry(16).address, RING.file_bytes + BLOCK);
    site.uncover(17);
    site.hurt_entry(16, 150);
    let ends: Vec<End> = (0..6).map(|_| site.look(async |node| node.data(1).await.len()).0.end).collect();
    assert_eq!(ends[0], End::Torn);
    assert_eq!(ends[5], End::Clean, "a start after a cut does not use up another file: {ends:?}");
    let (_, seen) = site.look(async |node| node.data(1).await.len());
    assert_eq!(seen, 14);
}

#[test]
fn every_change_is_covered_once_the_shard_is_closed() {
    for change in ["events", "a group", "a configuration", "a removal", "what the start found"] {
        let site = filled();
        site.run(async move |node| {
            match change {
                "events" => drop(node.produce(1, &["x"]).await.unwrap()),
                "a group" => drop(node.make("more", GroupConfig::default()).await),
                "a configuration" => {
                    let table = node.shard.table_groups().remove(0);
                    let entry = crate::shard::directory::Entry { table, config: GroupConfig::default() };
                    node.shards.configure_group(&node.directory, &entry, small_segments(), None).await.unwrap();
                }
                "a removal" => node.remove("orders").await,
                _ => {}
            }
            node.shard.close().await;
        });
        let entries = site.entries();
        let last = entries.iter().rfind(|entry| entry.kind == EntryKind::Commit).unwrap().index;
        let covered = entries.iter().any(|entry| entry.durable_upto >= last);
        assert!(covered, "{change}: no entry covers {last}");
    }
}

#[test]
fn a_journal_file_that_is_missing_or_of_another_broker_stops_the_start() {
    let site = filled();
    let other = filled();
    let refused = |site: &Site| site.start(false, async |_| ()).unwrap_err().to_string();
    let own = site.read(&journal_file(2), 0, BLOCK_BYTES);

    site.write(&journal_file(2), 0, &other.read(&journal_file(2), 0, BLOCK_BYTES));
    let cause = refused(&site);
    assert!(cause.contains("002.journal") && cause.contains("another broker"), "{cause}");
    site.write(&journal_file(2), 0, &site.read(&journal_file(3), 0, BLOCK_BYTES));
    assert!(refused(&site).contains("place in the ring"), "two files changed places");
    site.write(&journal_file(2), 0, &own);
    assert_eq!(site.look(async |node| node.data(1).await).1, pairs(5));

    std::fs::remove_file(site.path(&journal_file(3))).unwrap();
    let cause = refused(&site);
    assert!(cause.contains("003.journal"), "{cause}");
}

/// Before a time that was told, nothing comes any more; what is under way might have been received before it.
#[test]
fn everything_is_visible_only_while_nothing_is_under_way() {
    Site::new().run(async |node| {
        let group = node.make("g", GroupConfig::default()).await;
        node.produce(group, &["a"]).await.unwrap();
        let (told, tail) = node.shard.all_visible(group).unwrap().unwrap();
        assert_eq!(tail, 1);
        let events: NewEvents = [text("b")].into_iter().collect();
        let batch = Batch { events: &events, producer: None, expect_offset: None };
        let accepted = node.shard.append(group, &batch).await.unwrap();
        assert_eq!(node.shard.all_visible(group).unwrap(), None);
        node.shard.durable(accepted.entry).await.unwrap();
        let (_, tail) = node.shard.all_visible(group).unwrap().unwrap();
        assert!(tail == 2 && accepted.receipt.stamps.unwrap().received_us >= told);
    });
}
