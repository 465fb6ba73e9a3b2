//! Journals in memory, hurt in every way that matters: what counts behind the damage, and where the holes are.

use super::*;
use crate::log::entry::{EntryBuilder, EntryKind, EntryPlace, PartKind};

const BLOCK: u64 = BLOCK_BYTES as u64;
const RING: Ring = Ring { file_bytes: 8 * BLOCK, files: 4 };
const OWNER: Owner = Owner { shard: 0, cluster: 7 };

/// A journal of entries of one block, each.
struct Journal {
    files: Vec<Vec<u8>>,
    /// Checksum of the entry written last.
    crc: u32,
    /// Blocks that the disk does not give.
    failing: Vec<u64>,
}

/// What is left: indexes of entries that were taken, holes as first block, blocks and entries, and an index to go on at.
type Left = (Vec<u64>, Vec<(u64, u64, u64)>, u64);

impl Journal {
    fn new() -> Self {
        Self { files: vec![vec![0; RING.file_bytes as usize]; RING.files as usize], crc: 0, failing: Vec::new() }
    }

    /// Entries 1 to 7, each written when the one before was durable.
    fn seven() -> Self {
        let mut journal = Self::new();
        journal.write(1..=7, 0);
        journal
    }

    /// Writes entries, each chained to the one before, so many blocks behind the block of their index.
    fn write(&mut self, indexes: std::ops::RangeInclusive<u64>, ahead: u64) {
        indexes.for_each(|index| self.write_one(index + ahead, index, index - 1));
    }

    fn write_one(&mut self, block: u64, index: u64, durable_upto: u64) {
        let mut builder = EntryBuilder::new(AlignedBuffer::default());
        builder.part(PartKind::GroupClosed, &index.to_le_bytes());
        let (address, previous_crc) = (block * BLOCK, self.crc);
        let place = EntryPlace { kind: EntryKind::Commit, owner: OWNER, index, address, durable_upto, previous_crc };
        let (bytes, crc) = builder.finish(&place);
        self.crc = crc;
        self.block(block).copy_from_slice(&bytes);
    }

    fn block(&mut self, block: u64) -> &mut [u8] {
        let (slot, position) = RING.place(block * BLOCK);
        &mut self.files[slot][position as usize..][..BLOCK_BYTES]
    }

    fn crc_of(&mut self, block: u64) -> u32 {
        EntryHeader::decode(self.block(block), OWNER).unwrap().crc
    }

    fn lose(&mut self, blocks: &[u64]) {
        blocks.iter().for_each(|&block| self.block(block).fill(0));
    }

    /// The header stays, the parts do not.
    fn tear(&mut self, blocks: &[u64]) {
        blocks.iter().for_each(|&block| self.block(block)[70] ^= 1);
    }

    fn read(&self, slot: usize, position: u64, buffer: &mut AlignedBuffer) -> io::Result<()> {
        let range = position..position + buffer.len() as u64;
        let mut failing = self.failing.iter().map(|block| RING.place(block * BLOCK));
        if failing.any(|(failing, position)| failing == slot && range.contains(&position)) {
            return Err(io::Error::other("a bad sector"));
        }
        let length = buffer.len();
        buffer.copy_from_slice(&self.files[slot][position as usize..][..length]);
        Ok(())
    }

    /// What is left behind entry 1 when the entries `refused` cannot be used.
    fn left(&self, refused: &[u64]) -> Left {
        let mut read = |slot: usize, position: u64, buffer: &mut AlignedBuffer| self.read(slot, position, buffer);
        let head = JournalHead::new(RING, 2 * BLOCK, 2, 0, 0);
        let mut taken = Vec::new();
        let visit = |piece: Piece<'_>| {
            let Piece::Entry(header, parts) = piece else { return Ok(true) };
            assert_eq!(parts.count(), 1);
            let is_taken = !refused.contains(&header.index);
            taken.extend(is_taken.then_some(header.index));
            Ok(is_taken)
        };
        let salvaged = salvage(OWNER, &head, RING.end_of_lap(0), &mut Tolerant::new(&mut read), visit).unwrap();
        assert_eq!(salvaged.entries, taken.len() as u64);
        let holes = salvaged.holes.iter().map(|hole| (hole.address / BLOCK, hole.bytes / BLOCK, hole.entries));
        (taken, holes.collect(), salvaged.next_index)
    }
}

#[test]
fn whole_entries_behind_the_damage_are_taken_in_order_and_the_rest_is_holes() {
    struct Case {
        name: &'static str,
        lost: &'static [u64],
        torn: &'static [u64],
        failing: &'static [u64],
        taken: &'static [u64],
        holes: &'static [(u64, u64, u64)],
    }
    let hurt =
        Case { name: "one is lost", lost: &[2], torn: &[], failing: &[], taken: &[3, 4, 5, 6, 7], holes: &[(2, 1, 1)] };
    for case in [
        Case { name: "one is torn", lost: &[], torn: &[2], ..hurt },
        Case { name: "several in a row", lost: &[2, 3], torn: &[4], taken: &[5, 6, 7], holes: &[(2, 3, 3)], ..hurt },
        Case { name: "several apart", lost: &[2, 5], taken: &[3, 4, 6, 7], holes: &[(2, 1, 1), (5, 1, 1)], ..hurt },
        Case { name: "all but the last", lost: &[2, 3, 4, 5, 6], taken: &[7], holes: &[(2, 5, 5)], ..hurt },
        Case {
            name: "the last is torn, too",
            torn: &[7],
            taken: &[3, 4, 5, 6],
            holes: &[(2, 1, 1), (7, 1, 1)],
            ..hurt
        },
        Case {
            name: "only a torn one is left",
            lost: &[2, 3, 4, 5, 6],
            torn: &[7],
            taken: &[],
            holes: &[(2, 6, 6)],
            ..hurt
        },
        Case {
            name: "blocks cannot be read",
            lost: &[],
            failing: &[2, 4],
            taken: &[3, 5, 6, 7],
            holes: &[(2, 1, 1), (4, 1, 1)],
            ..hurt
        },
        Case { name: "a block behind all cannot be read", failing: &[12], holes: &[(2, 1, 1), (8, 5, 0)], ..hurt },
        Case { name: "a block before it cannot be read", failing: &[1], ..hurt },
        hurt,
    ] {
        let mut journal = Journal::seven();
        journal.lose(case.lost);
        journal.tear(case.torn);
        journal.failing = case.failing.to_vec();
        assert_eq!(journal.left(&[]), (case.taken.to_vec(), case.holes.to_vec(), 8), "{}", case.name);
    }
}

#[test]
fn an_entry_that_is_not_taken_is_part_of_a_hole() {
    let mut journal = Journal::seven();
    journal.lose(&[2]);
    for (refused, taken, holes) in [
        (&[4][..], vec![3, 5, 6, 7], vec![(2, 1, 1), (4, 1, 1)]),
        (&[3, 4], vec![5, 6, 7], vec![(2, 1, 1), (3, 1, 1), (4, 1, 1)]),
        (&[7], vec![3, 4, 5, 6], vec![(2, 1, 1), (7, 1, 1)]),
    ] {
        assert_eq!(journal.left(refused), (taken, holes, 8), "{refused:?}");
    }
}

/// Entries 1 to 4 count; a crash tore 5 and left 6, which was in flight with it, whole. Recovery linked file 1 to 4, and
/// entries 5 to `upto` were written there.
fn cut(upto: u64) -> Journal {
    let mut journal = Journal::new();
    journal.write(1..=5, 0);
    journal.write_one(6, 6, 4);
    journal.lose(&[5]);
    journal.crc = journal.crc_of(4);
    journal.write(5..=upto, 4);
    journal
}

#[test]
fn an_entry_that_was_cut_is_never_taken_for_one_that_counts() {
    let cases: [(&str, u64, &[u64], &[u64]); 7] = [
        ("the link shows it", 8, &[2], &[3, 4, 5, 6, 7, 8]),
        ("the one behind the link shows it", 8, &[2, 9], &[3, 4, 6, 7, 8]),
        ("the chain shows it", 8, &[2, 9, 10], &[3, 4, 7, 8]),
        ("its place shows it", 8, &[2, 9, 10, 11], &[3, 4, 8]),
        ("nothing but its place is left", 6, &[2, 9, 10], &[3, 4]),
        ("what stood before it is lost, too", 8, &[2, 3, 4, 9, 10, 11], &[8]),
        ("it is all that is left", 6, &[2, 3, 4, 9, 10], &[]),
    ];
    for (name, upto, lost, taken) in cases {
        let mut journal = cut(upto);
        journal.lose(lost);
        assert_eq!(journal.left(&[]).0, taken, "{name}");
    }
}

#[test]
fn an_entry_that_was_written_while_a_lost_one_was_in_flight_counts_where_that_can_be_told() {
    // As above, but nothing was cut: 5 was answered, and is damaged now.
    let whole = || {
        let mut journal = Journal::new();
        journal.write(1..=5, 0);
        journal.write_one(6, 6, 4);
        journal.lose(&[2, 5]);
        journal
    };
    assert_eq!(whole().left(&[]).0, [3, 4], "it cannot be told");
    let mut journal = whole();
    journal.write_one(7, 7, 6);
    assert_eq!(journal.left(&[]).0, [3, 4, 6, 7], "another one follows it in its file");
    let mut journal = whole();
    journal.write_one(9, 7, 6);
    assert_eq!(journal.left(&[]).0, [3, 4, 6, 7], "another one begins the next file");
    journal.tear(&[9]);
    assert_eq!(journal.left(&[]).0, [3, 4, 6], "its header is enough");
    let mut journal = whole();
    journal.write_one(10, 7, 6);
    assert_eq!(journal.left(&[]).0, [3, 4, 6, 7], "the next one chains to it");
}
