//! A group's accepted head: what is taken, what is refused, and what a restart finds again.

use super::*;
use crate::log::event::{Encoding, NewEvent};
use crate::log::frame::Frame;
use crate::log::wire::Fields;

const FRAME_MAX: usize = 256 << 10;

fn group() -> Group {
    let mut group = Group::new(7, 0, GroupConfig::default());
    group.log.allocated(0, 1 << 20);
    group
}

fn produce_as(
    group: &mut Group,
    entry: u64,
    producer: Option<ProducerStamp<'_>>,
    events: &[&[u8]],
) -> Result<Receipt, NotAccepted> {
    let events: NewEvents = events
        .iter()
        .map(|data| NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data })
        .collect();
    let batch = Batch { events: &events, producer, expect_offset: None };
    group.accept(&batch, 1_000_000, entry, FRAME_MAX)
}

fn produce(group: &mut Group, entry: u64, events: &[&[u8]]) -> Receipt {
    produce_as(group, entry, None, events).unwrap()
}

#[test]
fn offsets_are_contiguous_ids_ascend_and_time_never_goes_back() {
    let mut group = group();
    let first = produce(&mut group, 1, &[b"a", b"b"]);
    assert_eq!((first.first_offset, first.count), (Some(0), 2));
    let stamps = first.stamps.unwrap();
    assert!(stamps.first_id < stamps.last_id);

    let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: b"c" };
    let events = NewEvents::from_iter([event]);
    let batch = Batch { events: &events, producer: None, expect_offset: Some(2) };
    let second = group.accept(&batch, 999, 1, FRAME_MAX).unwrap();
    assert_eq!(second.first_offset, Some(2));
    let later = second.stamps.unwrap();
    assert_eq!(later.received_us, 1_000_000, "the clock went back, received did not");
    assert!(later.first_id > stamps.last_id);
    let refused = group.accept(&batch, 999, 1, FRAME_MAX).unwrap_err();
    assert_eq!(refused, NotAccepted::Refused(Refusal::UnexpectedOffset { tail: 3 }));
    // Nor before a time that somebody was told is over.
    group.settle(2_000_000);
    group.settle(1_500_000);
    let batch = Batch { expect_offset: None, ..batch };
    let third = group.accept(&batch, 1_200_000, 2, FRAME_MAX).unwrap();
    assert_eq!(third.stamps.unwrap().received_us, 2_000_000);
}

#[test]
fn a_repeat_is_answered_with_the_offsets_it_got_and_stores_nothing() {
    let mut group = group();
    let stamp = Some(ProducerStamp { id: "p", epoch: 0, seq: 0 });
    let first = produce_as(&mut group, 1, stamp, &[b"a", b"b"]).unwrap();
    let again = produce_as(&mut group, 1, stamp, &[b"a", b"b"]).unwrap();
    assert_eq!((again.first_offset, again.count, again.stamps), (first.first_offset, 2, None));
    assert_eq!(group.next_offset(), 2);
}

#[test]
fn nothing_is_accepted_without_room_and_nothing_changes_then() {
    let mut group = Group::new(7, 0, GroupConfig::default());
    let needs = produce_as(&mut group, 1, None, &[b"a"]).unwrap_err();
    assert!(matches!(needs, NotAccepted::Needs(Need::Next(_))), "{needs:?}");
    assert_eq!((group.next_offset(), group.last_entry), (0, 0));
    group.log.allocated(0, 4096);
    produce(&mut group, 1, &[b"a"]);
    let large = vec![b'x'; 8192];
    let needs = produce_as(&mut group, 1, None, &[&large]).unwrap_err();
    assert!(matches!(needs, NotAccepted::Needs(Need::Next(length)) if length > 8192), "{needs:?}");
    group.log.allocated(0, 16384);
    assert_eq!(produce(&mut group, 1, &[&large]).first_offset, Some(1));
}

#[test]
fn a_segment_is_sealed_by_size_and_by_age_and_replay_draws_the_same_boundaries() {
    let config = GroupConfig { segment_max_bytes: 64 << 10, ..GroupConfig::default() };
    let mut original = Group::new(7, 100, config.clone());
    let mut copy = Group::new(7, 100, config.clone());
    let data = vec![b'x'; 10_000];
    let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: &data };
    let event = NewEvents::from_iter([event]);
    let mut now_us = 1_000_000;
    for entry in 1..40 {
        for _ in 0..entry % 3 + 1 {
            let batch = Batch { events: &event, producer: None, expect_offset: None };
            loop {
                match original.accept(&batch, now_us, entry, FRAME_MAX) {
                    Ok(_) => break,
                    Err(NotAccepted::Needs(Need::Seal)) => panic!("one commit needs two segments"),
                    Err(NotAccepted::Needs(need)) => {
                        let length = original.log.allocation(need, config.segment_limits());
                        let next = original.log.next_sequence();
                        let sequence = if matches!(need, Need::Grow(_)) { next - 1 } else { next };
                        original.log.allocated(sequence, length);
                    }
                    Err(refused) => panic!("{refused:?}"),
                }
            }
        }
        if entry == 28 {
            now_us += config.segment_max_age.as_micros() as u64;
        }
        let count = original.log.seal(entry);
        for frame in original.log.newest(count) {
            let header = Frame::check(&frame.bytes).unwrap().unwrap().header;
            copy.replay(&header, frame.bytes.clone(), entry).unwrap();
        }
    }
    let segments = original.log.segments();
    assert!(segments.len() > 10);
    assert!(segments.iter().rev().skip(1).all(|segment| segment.sealed && segment.end <= 64 << 10));
    assert!(segments.iter().any(|segment| segment.sealed && segment.end < 60_000), "one was sealed by age");
    copy.recovered().unwrap();
    assert_eq!(copy.log.segments(), segments);
    assert_eq!(
        (copy.next_offset(), copy.last_id(), copy.visible_next()),
        (original.next_offset(), original.last_id(), original.next_offset())
    );
}

#[test]
fn a_record_comes_back() {
    let mut group = group();
    produce_as(&mut group, 1, Some(ProducerStamp { id: "p", epoch: 3, seq: 0 }), &[b"a"]).unwrap();
    group.log.seal(1);
    let mut bytes = Vec::new();
    record::encode(&group, &mut bytes);
    let mut restored = Group::restore(record::decode(&mut Fields::new(&bytes)).unwrap());
    assert_eq!((restored.next_offset(), restored.last_id()), (1, group.last_id()));
    assert_eq!(restored.log.segments(), group.log.segments());
    let repeat = produce_as(&mut restored, 2, Some(ProducerStamp { id: "p", epoch: 3, seq: 0 }), &[b"a"]).unwrap();
    assert_eq!((repeat.first_offset, repeat.stamps), (Some(0), None));
}

#[test]
fn behind_a_gap_events_go_on_in_a_segment_of_their_own_also_after_a_restart() {
    let mut original = group();
    produce(&mut original, 1, &[b"a", b"b"]);
    original.log.seal(1);
    original.log.flushed(2);
    original.lose(10);
    let mut bytes = Vec::new();
    record::encode(&original, &mut bytes);
    let restored = Group::restore(record::decode(&mut Fields::new(&bytes)).unwrap());
    for (name, mut group) in [("before", original), ("after", restored)] {
        assert_eq!(
            (group.next_offset(), group.gaps.at(2), group.gaps.at(10)),
            (10, Some(Gap { from: 2, to: 10 }), None)
        );
        assert_eq!(group.log.flushed_next(), 10, "{name}");
        group.log.allocated(1, 1 << 20);
        assert_eq!(produce(&mut group, 2, &[b"c"]).first_offset, Some(10), "{name}");
        group.log.seal(2);
        let ranges: Vec<_> =
            group.log.segments().iter().map(|found| (found.first_offset, found.next_offset, found.sealed)).collect();
        assert_eq!(ranges, [(0, 2, true), (10, 11, false)], "{name}");
        assert!(group.log.segment_of(5).is_none(), "{name}");
    }
}

#[test]
fn a_trim_takes_what_of_the_segments_is_in_memory_alone_and_numbers_of_files_go_on() {
    let mut group = group();
    for (entry, first) in [(1, 0), (2, 2), (3, 4)] {
        group.log.allocated(group.log.next_sequence(), 1 << 20);
        assert_eq!(produce(&mut group, entry, &[b"a", b"b"]).first_offset, Some(first));
        group.log.seal(entry);
        group.log.seal_active();
    }
    let bytes = group.log.tail_bytes();
    group.trim(4, |_, _| {});
    let mut record = Vec::new();
    record::encode(&group, &mut record);
    let restored = Group::restore(record::decode(&mut Fields::new(&record)).unwrap());
    assert_eq!((restored.visible_earliest(), restored.log.segments().len(), restored.log.next_sequence()), (4, 1, 3));
    let trimmed = group.trimmed(4);
    assert_eq!((trimmed.sequences, trimmed.freed + group.log.tail_bytes()), (vec![0, 1], bytes));
    assert_eq!(group.log.to_flush(3, 1 << 20).iter().map(|frame| frame.first_offset).collect::<Vec<_>>(), [4]);
    group.trim(6, |_, _| {});
    assert_eq!(group.trimmed(6).sequences, [2]);
    assert_eq!((group.log.flushed_next(), group.log.bytes(), group.log.next_sequence()), (6, 0, 3));
}
