//! What a start makes of segments: bytes behind the recorded end do not count, bytes below it are never made up.

use super::*;
use crate::log::segment::SEGMENT_START;

const EVENT_BYTES: usize = 15 << 10;

pub(super) fn large(number: usize) -> String {
    format!("{number:03}{}", "x".repeat(EVENT_BYTES))
}

/// Twelve events, four to a segment, all of them in segments.
pub(super) fn filled() -> Site {
    let site = Site::new();
    site.run(async |node| {
        let group = node.make("orders", small_segments()).await;
        for number in 0..12 {
            node.produce(group, &[&large(number)]).await.unwrap();
        }
        node.checkpoint().await;
        let sequences: Vec<_> = node.shard.state.borrow().groups[&1].group.log.segments().iter().copied().collect();
        assert_eq!(sequences.iter().map(|segment| segment.next_offset).collect::<Vec<_>>(), [4, 8, 12]);
    });
    site
}

fn numbers(seen: &[Seen]) -> Vec<usize> {
    seen.iter().map(|seen| seen.data[..3].parse().unwrap()).collect()
}

#[test]
fn what_stands_behind_the_recorded_end_is_written_again() {
    type Bytes = fn(usize) -> Vec<u8>;
    let lost: [(&str, Bytes); 2] = [
        ("a hole", |length| vec![0; length]),
        ("something else", |length| (0..length).map(|place| place as u8).collect()),
    ];
    for (name, lost) in lost {
        for tail_memory in [1 << 20, 1 << 10] {
            let mut site = Site::new();
            let (_, recorded) = site.run(async |node| {
                let group = node.make("orders", GroupConfig::default()).await;
                node.produce(group, &["first"]).await.unwrap();
                node.checkpoint().await;
                let end = node.shard.state.borrow().groups[&1].group.log.segments()[0].end;
                // Enough for the mover to take it, too little for a checkpoint.
                for number in 0..3 {
                    node.produce(group, &[&large(number)]).await.unwrap();
                }
                end
            });
            let length = std::fs::metadata(site.path(&segment_file(1, 0))).unwrap().len();
            site.write(&segment_file(1, 0), recorded, &lost((length - recorded) as usize));
            site.tail_memory = tail_memory;
            let expected = [&["first".to_owned()][..], &[large(0), large(1), large(2)]].concat();
            let read = async |node: &Node| node.data(1).await;
            assert!(site.look(read).1 == expected, "{name}, {tail_memory}");
            site.run(async |node| {
                node.checkpoint().await;
            });
            let (found, seen) = site.look(read);
            assert!(seen == expected, "{name}, {tail_memory}: from the segment alone");
            assert_eq!((found.entries, found.warnings.len()), (0, 0));
        }
    }
}

#[test]
fn a_segment_that_is_missing_or_short_is_told_and_the_others_are_read() {
    type Hurt = fn(&Site, u32);
    let cases: [(&str, Hurt, &str, usize); 3] = [
        (
            "missing",
            |site, sequence| std::fs::remove_file(site.path(&segment_file(1, sequence))).unwrap(),
            "is missing",
            0,
        ),
        ("empty", |site, sequence| cut(site, sequence, 0), "is 0 bytes long", 0),
        ("short", |site, sequence| cut(site, sequence, 40_000), "is 40000 bytes long", 2),
    ];
    for (name, hurt, state, readable) in cases {
        for sequence in [0_u32, 1, 2] {
            let site = filled();
            hurt(&site, sequence);
            let first = sequence as usize * 4;
            for start in 0..2 {
                let (found, (before, fault, after)) = site.look(async move |node| {
                    let (before, fault) = node.read_from(1, 0).await;
                    let (after, _) = node.read_from(1, first as u64 + 4).await;
                    (numbers(&before), fault, numbers(&after))
                });
                let told = format!("{name} {sequence}, start {start}: {found:?}");
                let warning = format!("offsets {first}..{} are damaged: segment 1-{sequence} {state}", first + 4);
                assert_eq!(found.warnings.len(), 1, "{told}");
                assert!(found.warnings[0].contains(&warning), "{told}");
                assert_eq!(before, (0..first + readable).collect::<Vec<_>>(), "{told}");
                assert!(
                    matches!(fault, Some(Fault::Corrupt { offset, .. }) if offset as usize == before.len()),
                    "{told}"
                );
                assert_eq!(after, (first + 4..12).collect::<Vec<_>>(), "{told}");
            }
            let (_, receipt) = site.run(async |node| node.produce(1, &[&large(12)]).await);
            assert_eq!(receipt.unwrap().first_offset, Some(12), "{name}: the group stays writable");
            let (_, (seen, fault)) = site.look(async |node| node.read_from(1, 12).await);
            assert_eq!((numbers(&seen), fault), (vec![12], None), "{name}");
        }
    }
}

pub(super) fn cut(site: &Site, sequence: u32, length: u64) {
    File::options().write(true).open(site.path(&segment_file(1, sequence))).unwrap().set_len(length).unwrap();
}

/// Where the frames of a segment begin.
pub(super) fn frames(site: &Site, sequence: u32) -> Vec<(u64, usize)> {
    let bytes = std::fs::read(site.path(&segment_file(1, sequence))).unwrap();
    let mut at = SEGMENT_START as usize;
    let mut found = Vec::new();
    while let Ok(Some(frame)) = crate::log::frame::Frame::check(&bytes[at..]) {
        found.push((at as u64, frame.bytes.len()));
        at += frame.bytes.len();
    }
    found
}

#[test]
fn around_a_damaged_frame_what_is_whole_is_read() {
    for hurt in 0..4 {
        let site = filled();
        site.flip(&segment_file(1, 1), frames(&site, 1)[hurt].0 + 5000);
        let damaged = 4 + hurt as u64;
        let (_, reads) = site.look(async move |node| {
            let mut reads = Vec::new();
            for from in [0, 4, damaged, 8] {
                reads.push((from, node.read_from(1, from).await));
            }
            reads
        });
        for (from, (seen, fault)) in reads {
            let end = if from > damaged { 12 } else { damaged };
            assert_eq!(numbers(&seen), (from as usize..end as usize).collect::<Vec<_>>(), "{hurt} from {from}");
            match fault {
                None => assert_eq!(end, 12),
                Some(Fault::Corrupt { offset, detail }) => {
                    assert_eq!(offset, damaged, "{hurt} from {from}: {detail}");
                    assert!(detail.contains("segment 1-1"), "{detail}");
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn frames_that_changed_places_are_damage_and_nothing_is_passed_over() {
    let site = filled();
    let places = frames(&site, 1);
    assert_eq!(places[1].1, places[2].1, "the frames are of one size");
    let [one, two] = [1, 2].map(|place| site.read(&segment_file(1, 1), places[place].0, places[place].1));
    site.write(&segment_file(1, 1), places[1].0, &two);
    site.write(&segment_file(1, 1), places[2].0, &one);
    for from in [0_u64, 4, 5] {
        let (_, (seen, fault)) = site.look(async move |node| node.read_from(1, from).await);
        assert_eq!(numbers(&seen), (from as usize..5).collect::<Vec<_>>(), "from {from}");
        assert!(matches!(fault, Some(Fault::Corrupt { offset: 5, .. })), "from {from}: {fault:?}");
    }
}

#[test]
fn what_nobody_knows_is_removed_and_what_was_allocated_ahead_is_used() {
    let site = filled();
    site.write(&segment_file(1, 2), 0, &site.read(&segment_file(1, 2), 0, 64));
    for name in [segment_file(77, 0), segment_file(1, 9)] {
        std::fs::write(site.path(&name), b"left over").unwrap();
    }
    std::fs::write(site.path("segments/notes.txt"), b"none of ours").unwrap();
    std::fs::write(site.path(&segment_file(1, 3)), vec![0; 100_000]).unwrap();
    let (_, ahead) = site.look(async |node| node.shard.state.borrow().groups[&1].group.log.next_sequence());
    assert_eq!(ahead, 3);
    for (name, there) in [
        (segment_file(77, 0), false),
        (segment_file(1, 9), false),
        (segment_file(1, 3), true),
        ("segments/notes.txt".to_owned(), true),
    ] {
        assert_eq!(site.path(&name).exists(), there, "{name}");
    }
    site.run(async |node| {
        node.produce(1, &[&large(12)]).await.unwrap();
        node.produce(1, &[&large(13)]).await.unwrap();
        node.checkpoint().await;
    });
    assert_eq!(frames(&site, 3).len(), 2);
    assert_eq!(site.look(async |node| numbers(&node.read(1).await)).1, (0..14).collect::<Vec<_>>());
}

#[test]
fn a_damaged_journal_removes_no_files() {
    let site = Site::new();
    site.run(async |node| {
        node.make("orders", GroupConfig::default()).await;
        node.produce(1, &["x"]).await.unwrap();
        let second = node.make("second", GroupConfig::default()).await;
        node.produce(second, &["y"]).await.unwrap();
    });
    assert!(site.path(&segment_file(2, 0)).exists());
    site.hurt_entry(3, 150);
    let (found, _) = site.run(async |_| ());
    assert!(matches!(found.end, crate::log::recovery::End::Damaged { index: 3, .. }), "{found:?}");
    assert!(site.path(&segment_file(2, 0)).exists(), "what a repair may need is left alone");
}

#[test]
fn groups_that_the_table_has_lost_are_kept_and_stop_the_shard() {
    for checkpoint in [false, true] {
        let mut site = Site::new();
        site.run(async move |node| {
            let group = node.make("orders", GroupConfig::default()).await;
            node.produce(group, &["x"]).await.unwrap();
            if checkpoint {
                node.checkpoint().await;
                node.produce(group, &["y"]).await.unwrap();
            } else {
                // As another shard's journal is: it has the frames, and shard 0's has the registration.
                node.produce(group, &["y"]).await.unwrap();
            }
        });
        if !checkpoint {
            let (bytes, address) = site.forged(1, &site.parts(2), |_| ());
            let (file, position) = Site::place(address);
            site.write(&file, position, &bytes);
            (2..=3).for_each(|index| site.zero_entry(index));
        }
        site.table = Some(Vec::new());
        let (found, written) = site.run(async |node| node.produce(1, &["z"]).await);
        assert!(found.warnings.iter().any(|warning| warning.contains("groups [1] live in shard 0")), "{found:?}");
        assert!(matches!(written, Err(Fault::Damaged(_) | Fault::NoGroup)), "{checkpoint}: {written:?}");
        assert!(site.path(&segment_file(1, 0)).exists(), "{checkpoint}");
        assert_eq!(site.generations().len(), 1 + usize::from(checkpoint), "no state is written without them");
    }
}
