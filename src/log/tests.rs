//! The worked example of `docs/FORMAT.md`: made again by what writes entries, read back by what reads them.

use super::entry::{EntryBuilder, EntryHeader, EntryKind, EntryPlace, Owner, PartKind};
use super::event::{Encoding, NewEvent, NewEvents};
use super::frame::{Frame, FrameBuilder, ProducerStamp};
use crate::io::buffer::AlignedBuffer;
use crate::limits::BLOCK_BYTES;

const PAGE: &str = include_str!("../../docs/FORMAT.md");

const OWNER: Owner = Owner { shard: 0, cluster: 0x0193_0000_0000_4000_8000_0000_0000_0001 };
const PLACE: EntryPlace =
    EntryPlace { kind: EntryKind::Commit, owner: OWNER, index: 1, address: 4096, durable_upto: 0, previous_crc: 0 };
const PRODUCER: ProducerStamp<'_> = ProducerStamp { id: "p1", epoch: 0, seq: 0 };
const RECEIVED_US: u64 = 1_764_000_000_123_456;
const ID: u128 = 0x019a_b697_e87b_7000_8000_0000_015a_17c3;
const EVENT: NewEvent<'_> =
    NewEvent { key: Some(b"k"), content_type: None, headers: &[], encoding: Encoding::Json, data: b"{\"n\":1}" };

/// The bytes in the page's last block: up to two spaces on each line.
fn on_the_page() -> Vec<u8> {
    let (_, example) = PAGE.split_once("## Worked example").expect("the page has an example");
    let block = example.split("```").nth(1).expect("the example is a block");
    let columns = block.lines().skip(1).map(|line| line.split("  ").next().unwrap_or_default());
    let byte = |text: &str| u8::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{text} is no byte"));
    let mut bytes: Vec<u8> = columns.flat_map(|column| column.split_whitespace().map(byte)).collect();
    bytes.resize(BLOCK_BYTES, 0);
    bytes
}

#[test]
fn the_writers_make_the_bytes_of_the_page() {
    let mut frame = FrameBuilder::new(1, 0, true, 0);
    frame.push(Some(&PRODUCER), &NewEvents::from_iter([EVENT]), RECEIVED_US, || ID);
    let mut entry = EntryBuilder::new(AlignedBuffer::default());
    entry.part(PartKind::Frame, &frame.finish().1);
    let (made, _) = entry.finish(&PLACE);
    let page = on_the_page();
    let differs = made.iter().zip(&page).position(|(made, page)| made != page);
    assert_eq!((made.len(), differs), (page.len(), None), "made: {:02x?}", &made[..210]);
}

#[test]
fn the_readers_understand_the_bytes_of_the_page() {
    let page = on_the_page();
    let header = EntryHeader::decode(&page, OWNER).unwrap();
    assert_eq!((header.kind, header.shard, header.index, header.address), (EntryKind::Commit, 0, 1, 4096));
    let parts: Vec<_> = header.parts(&page).unwrap().map(Result::unwrap).collect();
    let [(PartKind::Frame, bytes)] = parts[..] else { panic!("one frame, not {parts:?}") };
    let frame = Frame::check(bytes).unwrap().unwrap();
    assert!(frame.header.begins_segment);
    assert_eq!((frame.header.group, frame.header.first_offset, frame.header.requests), (1, 0, 1));
    let request = frame.requests().next().unwrap().unwrap();
    assert_eq!(request.producer, Some(PRODUCER));
    let event = request.events().next().unwrap().unwrap();
    assert_eq!((event.offset, event.id, event.received_us), (0, ID, RECEIVED_US));
    assert_eq!((event.key, event.encoding, event.data), (EVENT.key, EVENT.encoding, EVENT.data));
}
