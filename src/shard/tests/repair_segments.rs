//! Repair of segments: what cannot be read of a group becomes gaps, and everything else stays, whatever a crash leaves.

use super::repair::Told;
use super::segments::{cut, filled, frames, large};
use super::*;
use crate::log::file_header::FileHeader;
use crate::log::frame::FrameHeader;
use crate::shard::repair::repair;

type Hurt = fn(&Site);
/// Lost offsets: from, to.
type Gaps = &'static [(u64, u64)];

/// Twelve events stand in three segments, four in each; a segment's index knows its first frame alone.
const CASES: [(&str, Hurt, Gaps); 11] = [
    ("a body", |site| flip(site, 1, 1, 5000), &[(5, 6)]),
    ("the first body", |site| flip(site, 0, 0, 5000), &[(0, 1)]),
    ("the last body of a segment", |site| flip(site, 1, 3, 5000), &[(7, 8)]),
    ("the last body of all", |site| flip(site, 2, 3, 5000), &[(11, 12)]),
    ("bodies apart", |site| [2, 0].iter().for_each(|&frame| flip(site, 1, frame, 5000)), &[(4, 5), (6, 7)]),
    ("a header", |site| flip(site, 1, 1, 8), &[(5, 8)]),
    ("the first header of all", |site| flip(site, 0, 0, 8), &[(0, 4)]),
    ("a segment that is gone", |site| remove(site, 1), &[(4, 8)]),
    ("a segment that is cut", |site| cut(site, 1, 40_000), &[(6, 8)]),
    (
        "segments on both sides of a boundary",
        |site| {
            flip(site, 0, 3, 5000);
            flip(site, 1, 0, 5000);
        },
        &[(3, 5)],
    ),
    ("all of them", |site| (0..3).for_each(|sequence| remove(site, sequence)), &[(0, 12)]),
];

fn flip(site: &Site, sequence: u32, frame: usize, at: u64) {
    site.flip(&segment_file(1, sequence), frames(site, sequence)[frame].0 + at);
}

fn remove(site: &Site, sequence: u32) {
    std::fs::remove_file(site.path(&segment_file(1, sequence))).unwrap();
}

/// Events `0..events`, but for what is lost.
fn expected(events: usize, gaps: &[(u64, u64)]) -> Vec<Told> {
    let mut told = Vec::new();
    for offset in 0..events as u64 {
        match gaps.iter().find(|(from, to)| (*from..*to).contains(&offset)) {
            Some((from, to)) if *from == offset => told.push(Told::Gap(*from, *to)),
            Some(_) => {}
            None => told.push(Told::Event(offset, large(offset as usize))),
        }
    }
    told
}

/// How many files the group has, allocated room aside.
fn segment_files(site: &Site) -> Vec<String> {
    let names = std::fs::read_dir(site.path("segments")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A segment's file says which one it is, and its first frame that it begins there.
fn assert_begins_right(site: &Site, file: &str, name: &str) {
    let (group, sequence) = segment::parse_name(file).unwrap();
    let bytes = std::fs::read(site.path("segments").join(file)).unwrap();
    let header = FileHeader::decode(&bytes).unwrap();
    assert_eq!((header.first, header.second), (group.into(), sequence.into()), "{name}: {file}");
    // One that is allocated ahead holds no frame yet.
    let first = &bytes[segment::SEGMENT_START as usize..];
    let begins = first.starts_with(&[0; 4]) || FrameHeader::decode(first).unwrap().unwrap().begins_segment;
    assert!(begins, "{name}: {file}");
}

#[test]
fn what_cannot_be_read_becomes_a_gap_and_the_rest_is_read_and_written() {
    for (name, hurt, gaps) in CASES {
        let site = filled();
        hurt(&site);
        let before = site.files();
        let report = site.repair(false);
        let told: Vec<(u64, u64)> = report.segments.iter().map(|loss| (loss.from, loss.to)).collect();
        let lost: u64 = told.iter().map(|(from, to)| to - from).sum();
        assert_eq!(lost, gaps.iter().map(|(from, to)| to - from).sum::<u64>(), "{name}: {told:?}");
        assert!(site.files() == before, "{name}: looking at it changed something");
        assert!(site.repair(true).repaired, "{name}");
        segment_files(&site).iter().for_each(|file| assert_begins_right(&site, file, name));
        for (round, events) in (0..3).zip(12..) {
            let all = expected(events, gaps);
            assert!(site.told(&[1])[0] == all, "{name}, round {round}");
            assert!(!site.repair(false).is_needed(), "{name}, round {round}");
            site.run(async move |node| {
                let receipt = node.produce(1, &[&large(events)]).await.unwrap();
                assert_eq!(receipt.first_offset, Some(events as u64), "{name}");
                if round == 1 {
                    node.checkpoint().await;
                }
            });
        }
    }
}

#[test]
fn frames_that_the_journal_still_has_are_never_lost_with_what_stands_before_them() {
    for (name, at, gap) in [("a header", 8, (1, 4)), ("a body", 5000, (1, 2))] {
        let site = Site::new();
        site.run(async |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            for number in 0..4 {
                node.produce(group, &[&large(number)]).await.unwrap();
            }
            node.checkpoint().await;
            let _no_checkpoint = node.gate().await;
            for number in 4..7 {
                node.produce(group, &[&large(number)]).await.unwrap();
            }
        });
        flip(&site, 0, 1, at);
        site.repair(true);
        assert!(site.told(&[1])[0] == expected(7, &[gap]), "{name}");
        assert!(!site.repair(false).is_needed(), "{name}");
    }
}

#[test]
fn a_damaged_journal_and_a_damaged_segment_are_repaired_together() {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", small_segments()).await;
        for number in 0..6 {
            node.produce(group, &[&large(number)]).await.unwrap();
        }
        node.checkpoint().await;
        let _no_checkpoint = node.gate().await;
        for number in 6..10 {
            node.produce(group, &[&large(number)]).await.unwrap();
        }
    });
    flip(&site, 0, 2, 5000);
    let lost = site.entries().len() as u64 - 1;
    site.zero_entry(lost);
    let report = site.repair(true);
    assert_eq!((report.journals.len(), report.segments.len(), report.gaps.len()), (1, 1, 2), "{report:?}");
    assert!(site.told(&[1])[0] == expected(10, &[(2, 3), (8, 9)]));
    assert!(!site.repair(false).is_needed());
}

/// Repairs until so many steps are done, and stops there as a kill does. Gives whether there were so many.
fn repair_in_part(site: &Site, steps: usize) -> bool {
    let mut done = 0;
    let part = std::panic::AssertUnwindSafe(|| {
        let mut step = |_, _| {
            done += 1;
            if done == steps {
                std::panic::resume_unwind(Box::new(()));
            }
        };
        repair(site.root.path(), true, &mut step).unwrap()
    });
    std::panic::catch_unwind(part).is_err()
}

#[test]
fn a_broker_between_two_tries_of_a_repair_harms_nothing() {
    let mut steps = 0;
    let mut written = Vec::new();
    loop {
        let site = filled();
        flip(&site, 1, 1, 5000);
        let generation = site.generations()[0].generation;
        steps += 1;
        let in_part = repair_in_part(&site, steps);
        written.push(site.generations()[0].generation - generation);
        // More events than fit the file that is allocated ahead.
        site.run(async |node| {
            for number in 12..20 {
                node.produce(1, &[&large(number)]).await.unwrap();
            }
            node.checkpoint().await;
        });
        site.repair(true);
        assert!(site.told(&[1])[0] == expected(20, &[(5, 6)]), "step {steps}");
        assert!(!site.repair(false).is_needed(), "step {steps}");
        let names = segment_files(&site);
        let count = site.look(async |node| node.shard.group_info(1).unwrap().segments).1;
        assert!(names.len() <= count + 1, "step {steps}: files are left over: {names:?}");
        if !in_part {
            break;
        }
    }
    // While segments are looked at and written; with one state, and with both of them, written.
    let times = |states| written.iter().filter(|written| **written == states).count();
    assert!(times(0) >= 2 && times(1) == 1 && times(2) >= 2, "{written:?}");
}
