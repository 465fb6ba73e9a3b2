//! Repair, as a table: how the journal was hurt, and what must be readable afterwards. Whatever it is, producing goes on
//! above every offset that was ever answered, and a second repair finds nothing.

use super::*;
use crate::log::event::EVENT_FIXED_BYTES;
use crate::log::recovery::End;
use crate::log::state::file_name;
use crate::shard::repair::{Report, repair};
use std::collections::BTreeMap;

/// Most events that a lost block can have held.
const BLOCK_EVENTS: u64 = BLOCK / EVENT_FIXED_BYTES as u64;

/// What a reader is told, one thing after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Event(u64, String),
    Gap(u64, u64),
}

impl Node {
    /// Everything of a group, gaps included.
    pub(super) async fn told(&self, group: u32) -> Vec<Told> {
        let mut told = Vec::new();
        let mut offset = self.shard.range(group).unwrap().earliest;
        loop {
            let (seen, fault) = self.read_from(group, offset).await;
            told.extend(seen.into_iter().map(|seen| Told::Event(seen.offset, seen.data)));
            match fault {
                None => return told,
                Some(Fault::Lost { from, to }) => {
                    told.push(Told::Gap(from, to));
                    offset = to;
                }
                Some(fault) => panic!("{fault}"),
            }
        }
    }
}

impl Site {
    pub(super) fn repair(&self, accept_loss: bool) -> Report {
        repair(self.root.path(), accept_loss, &mut |_, _| ()).unwrap()
    }

    /// Every file but the lock, with its bytes.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for directory in ["", "journal", "segments"] {
            for entry in std::fs::read_dir(self.path(directory)).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_file() {
                    files.insert(entry.clone(), std::fs::read(entry).unwrap());
                }
            }
        }
        files
    }

    /// What readers of the groups are told after a start that finds nothing wrong.
    pub(super) fn told(&self, groups: &'static [u32]) -> Vec<Vec<Told>> {
        let (found, told) = self.look(async move |node| {
            let mut all = Vec::new();
            for group in groups {
                all.push(node.told(*group).await);
            }
            all
        });
        assert_eq!((found.end, &found.warnings), (End::Clean, &Vec::new()));
        told
    }
}

/// `a1` is event `a` at offset 1, `5-9` a gap.
fn tell(text: &str) -> Vec<Told> {
    let thing = |word: &str| match word.split_once('-') {
        Some((from, to)) => Told::Gap(from.parse().unwrap(), to.parse().unwrap()),
        None => Told::Event(word[1..].parse().unwrap(), word[..1].to_owned()),
    };
    text.split(' ').filter(|word| !word.is_empty()).map(thing).collect()
}

/// Which entry holds what, of group 1 or 2: entries 1 and 2 register them, the last one covers what is before it.
const STORY: [(u32, &[&str]); 6] = [(1, &["a"]), (2, &["p"]), (1, &["b", "c"]), (1, &["d"]), (2, &["q"]), (1, &["e"])];
const LAST: u64 = 9;

fn filled(checkpoint_behind: Option<usize>) -> Site {
    let site = Site::new();
    site.run(async move |node| {
        node.make("orders", GroupConfig::default()).await;
        node.make("clicks", GroupConfig::default()).await;
        for (place, (group, data)) in STORY.iter().enumerate() {
            node.produce(*group, data).await.unwrap();
            if checkpoint_behind == Some(place) {
                node.checkpoint().await;
            }
        }
        node.shard.close().await;
    });
    assert_eq!((site.entries().len() as u64, site.entry(LAST).kind), (LAST, EntryKind::Idle));
    site
}

struct Case {
    name: &'static str,
    hurt: fn(&Site),
    /// What readers of both groups are told; a `+` stands for the most events that may be lost.
    orders: &'static str,
    clicks: &'static str,
    /// Blocks that are lost, for groups of which no later event is left.
    blocks: u64,
}

const CASES: [Case; 10] = [
    Case {
        name: "an entry is torn",
        hurt: |site| site.hurt_entry(5, 150),
        orders: "a0 1-3 d3 e4",
        clicks: "p0 q1",
        blocks: 0,
    },
    Case {
        name: "the header of an entry is hurt",
        hurt: |site| site.hurt_entry(6, 30),
        orders: "a0 b1 c2 3-4 e4",
        clicks: "p0 q1",
        blocks: 0,
    },
    Case {
        name: "an entry is gone",
        hurt: |site| site.zero_entry(4),
        orders: "a0 b1 c2 d3 e4",
        clicks: "0-1 q1",
        blocks: 0,
    },
    Case {
        name: "two entries apart",
        hurt: |site| {
            site.hurt_entry(5, 150);
            site.zero_entry(7);
        },
        orders: "a0 1-3 d3 e4",
        clicks: "p0 1-+",
        blocks: 2,
    },
    Case {
        name: "two entries in a row",
        hurt: |site| {
            site.hurt_entry(5, 150);
            site.zero_entry(6);
        },
        orders: "a0 1-4 e4",
        clicks: "p0 q1",
        blocks: 0,
    },
    Case {
        name: "the last entry, and only the one that covers it is left",
        hurt: |site| site.zero_entry(8),
        orders: "a0 b1 c2 d3 4-+",
        clicks: "p0 q1 2-+",
        blocks: 1,
    },
    Case {
        name: "everything but the one that covers all",
        hurt: |site| (3..LAST).for_each(|index| site.zero_entry(index)),
        orders: "0-+",
        clicks: "0-+",
        blocks: 6,
    },
    Case {
        name: "the last entry is torn, and so is the one that covers it",
        hurt: |site| {
            site.hurt_entry(8, 150);
            site.hurt_entry(4, 150);
            site.zero_entry(LAST);
        },
        orders: "a0 b1 c2 d3 4-+",
        clicks: "0-1 q1 2-+",
        blocks: 1,
    },
    Case {
        name: "a registration, whose events are there",
        hurt: |site| site.zero_entry(2),
        orders: "a0 b1 c2 d3 e4",
        clicks: "p0 q1",
        blocks: 0,
    },
    Case {
        name: "a registration and the first event",
        hurt: |site| (2..5).for_each(|index| site.zero_entry(index)),
        orders: "0-1 b1 c2 d3 e4",
        clicks: "q1",
        blocks: 0,
    },
];

fn expected(case: &Case, text: &str) -> Vec<Told> {
    let from = text.rsplit(' ').next().and_then(|word| word.strip_suffix("-+")).map_or(0, |from| from.parse().unwrap());
    // A hole is as long as it is, and its rest holds no event.
    let events = if case.blocks == 2 { 2 * BLOCK_EVENTS } else { case.blocks * BLOCK / EVENT_FIXED_BYTES as u64 };
    tell(&text.replace('+', &(from + events).to_string()))
}

fn next_offset(told: &[Told]) -> u64 {
    told.iter()
        .map(|told| match told {
            Told::Event(offset, _) => offset + 1,
            Told::Gap(_, to) => *to,
        })
        .max()
        .unwrap_or(0)
}

#[test]
fn what_is_whole_is_kept_and_groups_go_on_above_what_is_lost() {
    for case in &CASES {
        let name = case.name;
        let site = filled(None);
        (case.hurt)(&site);
        let before = site.files();
        let report = site.repair(false);
        assert!(report.is_needed() && !report.repaired, "{name}: {report:?}");
        assert!(site.files() == before, "{name}: looking at it changed something");

        let done = site.repair(true);
        assert!(done.repaired, "{name}");
        let addresses = site.generations().into_iter().map(|state| state.next_address);
        let behind = site.entries().iter().map(|entry| entry.address).max() < addresses.min();
        assert!(behind, "{name}: the journal goes on behind all that stands in it");
        assert_eq!(format!("{:?}", done.gaps), format!("{:?}", report.gaps), "{name}: what was told is what was done");
        let mut all = vec![expected(case, case.orders), expected(case, case.clicks)];
        assert_eq!(site.told(&[1, 2]), all, "{name}");
        let gaps = all.iter().flatten().filter(|told| matches!(told, Told::Gap(..))).count();
        assert_eq!(report.gaps.len(), gaps, "{name}: {report:?}");
        for round in 0..3 {
            assert!(!site.repair(false).is_needed(), "{name}: a second repair finds something");
            let next: Vec<u64> = all.iter().map(|told| next_offset(told)).collect();
            site.run(async move |node| {
                for (group, next) in (1..).zip(next) {
                    let receipt = node.produce(group, &["x"]).await.unwrap();
                    assert_eq!(receipt.first_offset, Some(next), "{name}, {round}");
                }
                if round == 1 {
                    node.checkpoint().await;
                }
            });
            for told in &mut all {
                told.push(Told::Event(next_offset(told), "x".into()));
            }
            assert_eq!(site.told(&[1, 2]), all, "{name}, {round}");
        }
    }
}

#[test]
fn a_repair_also_knows_what_a_checkpoint_had_moved_before_the_damage() {
    for (checkpoint_behind, hurt, orders) in
        [(0, 5, "a0 1-3 d3 e4"), (2, 6, "a0 b1 c2 3-4 e4"), (3, 7, "a0 b1 c2 d3 e4")]
    {
        let site = filled(Some(checkpoint_behind));
        site.zero_entry(hurt);
        // Also from the older state alone.
        let older = site.copy();
        older.hurt_newest_state();
        for site in [site, older] {
            site.repair(true);
            assert_eq!(site.told(&[1])[0], tell(orders), "{checkpoint_behind}, {hurt}");
            assert!(!site.repair(false).is_needed());
        }
    }
}

#[test]
fn nothing_is_changed_where_nothing_is_wrong_or_a_start_puts_it_right() {
    type Hurt = fn(&Site);
    let cases: [(&str, Hurt); 4] = [
        ("nothing", |_| ()),
        ("a torn end", |site| {
            site.zero_entry(LAST);
            site.hurt_entry(LAST - 1, 150);
        }),
        ("one of two states", |site| site.write("state.a", 0, &[0; 128])),
        ("a lost segment file that the journal fills again", |site| {
            std::fs::remove_file(site.path(&segment_file(1, 0))).unwrap();
        }),
    ];
    for (name, hurt) in cases {
        let site = filled(None);
        hurt(&site);
        let before = site.files();
        for accept_loss in [false, true] {
            let report = site.repair(accept_loss);
            assert!(!report.is_needed() && !report.repaired, "{name}: {report:?}");
            assert!(site.files() == before, "{name}, {accept_loss}");
        }
    }
}

#[test]
fn what_cannot_be_repaired_is_refused_and_left_alone() {
    type Hurt = fn(&Site);
    let cases: [(&str, Hurt, &str); 3] = [
        (
            "both states",
            |site| ["state.a", "state.b"].iter().for_each(|state| site.write(state, 0, &[0; 128])),
            "position_damaged",
        ),
        ("a journal file is missing", |site| std::fs::remove_file(site.path(&journal_file(2))).unwrap(), "002.journal"),
        ("a newer version wrote it", |site| site.change_entry(7, |entry| entry[4] = 2), "start the newer version"),
    ];
    for (name, hurt, cause) in cases {
        let site = filled(None);
        site.zero_entry(5);
        hurt(&site);
        let before = site.files();
        let refused = repair(site.root.path(), true, &mut |_, _| ()).unwrap_err().to_string();
        assert!(refused.contains(cause), "{name}: {refused}");
        assert!(site.files() == before, "{name}");
    }
}

#[test]
fn a_change_that_makes_no_sense_without_what_is_lost_costs_nothing_else() {
    let site = filled(None);
    site.zero_entry(5);
    let parts = [site.parts(8), vec![(PartKind::GroupConfigured, vec![1])]].concat();
    let (bytes, address) = site.forged(8, &parts, |_| ());
    let (file, position) = Site::place(address);
    site.write(&file, position, &bytes);
    let crc = site.entry(8).crc;
    site.forge(LAST, |place| place.previous_crc = crc);
    site.repair(true);
    assert_eq!(site.told(&[1])[0], tell("a0 1-3 d3 e4"));
}

#[test]
fn a_lost_registration_costs_the_name_and_no_offset_of_it_is_given_again() {
    let site = filled(None);
    site.zero_entry(2);
    let report = site.repair(true);
    let renamed: Vec<_> = report.renamed.iter().map(|group| (group.number, &*group.group, group.next_offset)).collect();
    assert_eq!(renamed, [(2, "lost-2", 2)]);
    let (_, (names, made, other)) = site.run(async |node| {
        let names: Vec<String> = node.shard.table_groups().iter().map(|group| group.name.to_string()).collect();
        let made = node.make("clicks", GroupConfig::default()).await;
        let other = node.make("other", GroupConfig::default()).await;
        let receipts = [node.produce(made, &["x"]).await.unwrap(), node.produce(other, &["x"]).await.unwrap()];
        assert!(receipts.iter().all(|receipt| receipt.first_offset >= Some(2 + BLOCK_EVENTS)), "{receipts:?}");
        (names, made, other)
    });
    assert_eq!(names, ["lost-2", "orders"]);
    // A registration takes 40 bytes at least, so a block can have held a hundred.
    assert!(made > 2 + 100 && other == made + 1, "numbers that may have been given are not given again: {made}");
    assert_eq!(site.told(&[2])[0], tell("p0 q1"));
    site.run(async |node| node.remove("lost-2").await);
    assert!(!site.repair(false).is_needed());
}

#[test]
fn a_group_that_lost_its_closing_or_its_removal_comes_back_and_can_be_removed_again() {
    for lost in [1, 2] {
        let site = filled(None);
        site.run(async |node| {
            node.remove("clicks").await;
            node.produce(1, &["f"]).await.unwrap();
            node.shard.close().await;
        });
        // The closing, then the removal.
        site.zero_entry(LAST + lost);
        site.repair(true);
        let (found, _) = site.look(async |_| ());
        assert_eq!((found.end, found.warnings.len()), (End::Clean, 0), "{lost}: {found:?}");
        site.run(async move |node| {
            if node.shard.table_groups().iter().any(|group| &*group.name == "clicks") {
                node.remove("clicks").await;
            }
            let made = node.make("clicks", GroupConfig::default()).await;
            let receipt = node.produce(made, &["x"]).await.unwrap();
            assert!(receipt.first_offset > Some(2), "{lost}: {receipt:?}");
        });
    }
}

#[test]
fn a_repeat_of_what_was_saved_is_known_and_a_repeat_of_what_was_lost_is_stored_above() {
    let stamp = |seq| Some(ProducerStamp { id: "till-7", epoch: 1, seq });
    let site = Site::new();
    site.run(async move |node| {
        let group = node.make("orders", GroupConfig::default()).await;
        for (seq, data) in (0..).zip(["a", "b", "c", "d"]) {
            node.produce_as(group, stamp(seq), &[data]).await.unwrap();
        }
        node.shard.close().await;
    });
    // The requests 1 and 3.
    site.zero_entry(3);
    site.zero_entry(5);
    site.repair(true);
    let after = 3 + 2 * BLOCK_EVENTS - BLOCK_EVENTS;
    site.run(async move |node| {
        for (seq, first_offset, duplicate) in [
            (0, None, true),
            (1, None, true),
            (2, Some(2), true),
            (3, Some(after), false),
            (3, Some(after), true),
            (4, Some(after + 1), false),
        ] {
            let receipt = node.produce_as(1, stamp(seq), &["x"]).await.unwrap();
            assert_eq!((receipt.first_offset, receipt.stamps.is_none()), (first_offset, duplicate), "{seq}");
        }
    });
    let told = [tell("a0 1-2 c2"), vec![Told::Gap(3, after)], tell(&format!("x{after} x{}", after + 1))].concat();
    assert_eq!(site.told(&[1])[0], told);
}

#[test]
fn whenever_a_repair_ends_before_its_end_it_can_be_begun_again() {
    let large = |number: usize| format!("{number:03}{}", "y".repeat(10_000));
    let site = Site::new();
    site.run(async move |node| {
        let group = node.make("orders", small_segments()).await;
        node.produce(group, &[&large(0)]).await.unwrap();
        node.checkpoint().await;
        let _no_checkpoint = node.gate().await;
        for number in 1..10 {
            node.produce(group, &[&large(number)]).await.unwrap();
        }
        node.shard.close().await;
    });
    let lost = site.entries().iter().filter(|entry| entry.kind == EntryKind::Commit).nth(4).unwrap().index;
    site.zero_entry(lost);
    let hurt = site.copy();

    let mut images = Vec::new();
    repair(site.root.path(), true, &mut |_, _| images.push(site.copy())).unwrap();
    let whole = site.told(&[1]);
    assert_eq!(whole[0].iter().filter(|told| matches!(told, Told::Event(..))).count(), 9);
    assert!(whole[0].contains(&Told::Gap(3, 4)));
    assert!(images.len() >= 4, "{} steps", images.len());
    let generation = |site: &Site| site.generations()[0].generation;
    let written = images.iter().filter(|image| generation(image) == generation(&hurt)).count();
    assert!(written >= 2, "segments are written and synced before the state");
    for (step, image) in images.iter().enumerate() {
        let mut crashes = vec![("as it is", image.copy())];
        if step < written {
            // What was not synced for sure may be as it was, and what is written next may be torn.
            let bare = image.copy();
            for entry in std::fs::read_dir(bare.path("segments")).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
            for entry in std::fs::read_dir(hurt.path("segments")).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, bare.path("segments").join(path.file_name().unwrap())).unwrap();
            }
            crashes.push(("without what was written to segments", bare));
        }
        let torn = image.copy();
        torn.write(file_name(generation(&images[step]) + 1), 0, &[7; 4096]);
        crashes.push(("with the next state torn", torn));
        for (name, crash) in crashes {
            if step >= written {
                assert!(!crash.repair(false).is_needed(), "step {step}, {name}");
                assert_eq!(crash.look(async |node| node.told(1).await).1, whole[0], "step {step}, {name}");
            } else {
                let (found, _) = crash.run(async |node| {
                    assert!(matches!(node.produce(1, &["x"]).await, Err(Fault::Damaged(_))));
                });
                assert!(matches!(found.end, End::Damaged { .. }), "step {step}, {name}");
            }
            crash.repair(true);
            assert_eq!(crash.look(async |node| node.told(1).await).1, whole[0], "step {step}, {name}");
            assert!(!crash.repair(false).is_needed(), "step {step}, {name}");
        }
    }
    // A state file that is damaged later does not bring the damage back.
    site.hurt_newest_state();
    let (found, told) = site.look(async |node| node.told(1).await);
    assert_eq!((found.end, told == whole[0], found.warnings.len()), (End::Clean, true, 1));
}
