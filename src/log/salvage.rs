//! What a damaged journal still holds behind the damage: whole entries of this lap, in the order of their indexes, and
//! the holes between them.
//!
//! ```text
//! … k-1 ┊ hole ┊ k+2  k+3 ┊ hole ┊ k+6 …         a hole is a range of addresses; what stood there is lost
//! ```
//!
//! Not every whole entry counts. One that an earlier recovery cut stands there, too, and was never answered:
//!
//! - Writing went on behind it under indexes that it had used up, so an entry counts only if none behind it has an index
//!   as small, and only if the next index chains to it.
//! - What showed that may be lost itself. A cut one stands behind one that is not whole, does not know that one to be
//!   durable, and nothing went on from it, neither in its file nor in the next. An entry of which all of that is true does
//!   not count, even if it once did.

use super::entry::{EntryHeader, Owner, Parts};
use super::journal::{JournalHead, Ring};
use super::recovery::{Candidate, JournalFault, NotApplied, Read, Window};
use crate::io::buffer::AlignedBuffer;
use crate::limits::BLOCK_BYTES;
use std::collections::BTreeSet;
use std::io;

/// A range of the journal whose entries are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
    /// Index of the first lost entry.
    pub index: u64,
    /// How many entries are lost.
    pub entries: u64,
}

/// What stands behind the damage, piece by piece.
pub enum Piece<'p> {
    /// Nothing that counts.
    Hole(Hole),
    /// A whole entry.
    Entry(&'p EntryHeader, Parts<'p>),
}

/// What was found behind the damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Entries that were taken.
    pub entries: u64,
    /// What is lost, in order.
    pub holes: Vec<Hole>,
    /// An index that no entry had.
    pub next_index: u64,
}

/// Visits what stands behind `head`, the last entry before the damage, and before `behind`. An entry that `visit` does not
/// take (`false`) is as lost as the holes around it.
///
/// # Errors
/// When something is of a newer version, or `visit` refuses an entry.
pub fn salvage(
    owner: Owner,
    head: &JournalHead,
    behind: u64,
    journal: &mut Tolerant<'_, '_>,
    mut visit: impl FnMut(Piece<'_>) -> Result<bool, NotApplied>,
) -> Result<Salvaged, JournalFault> {
    let ring = head.ring();
    let found = survey(&mut Window::new(ring, owner, &mut journal.reader()), owner, head, behind)?;
    let highest = found.iter().map(|found| found.header.index).max().unwrap_or(head.next_index);
    let ends = found.iter().map(|found| found.header.address + found.header.disk_bytes());
    let unreadable = journal.unreadable(ring, head.next_address, behind);
    let end = ends.chain(unreadable.map(|address| address + BLOCK_BYTES as u64)).max().unwrap_or(head.next_address);
    let mut salvaged = Salvaged { entries: 0, holes: Vec::new(), next_index: highest + 1 };
    let (mut address, mut index) = (head.next_address, head.next_index);
    let mut read = journal.reader();
    let mut window = Window::new(ring, owner, &mut read);
    for header in counting(&found, head, ring) {
        let Candidate::Whole(header, bytes) = window.entry(header.address)? else { unreachable!("it was just there") };
        let refused = |fault: NotApplied| fault.at(header.index, header.address);
        if header.index > index {
            let hole = Hole { address, bytes: header.address - address, index, entries: header.index - index };
            visit(Piece::Hole(hole)).map_err(refused)?;
            salvaged.holes.push(hole);
        }
        let parts = header.parts(bytes).map_err(|fault| refused(fault.into()))?;
        // What is not taken becomes a part of the next hole.
        (address, index) = match visit(Piece::Entry(&header, parts)).map_err(refused)? {
            true => (header.address + header.disk_bytes(), header.index + 1),
            false => (header.address, header.index),
        };
        salvaged.entries += u64::from(index > header.index);
    }
    if address < end {
        let hole = Hole { address, bytes: end - address, index, entries: salvaged.next_index - index };
        visit(Piece::Hole(hole)).map_err(|fault| fault.at(index, address))?;
        salvaged.holes.push(hole);
    }
    Ok(salvaged)
}

/// The header of an entry of this lap.
struct Found {
    header: EntryHeader,
    whole: bool,
}

/// Every header behind `head`, by address.
fn survey(
    window: &mut Window<'_, '_>,
    owner: Owner,
    head: &JournalHead,
    behind: u64,
) -> Result<Vec<Found>, JournalFault> {
    let mut found = Vec::new();
    let mut address = head.next_address;
    while address < behind {
        let (header, whole) = match window.entry(address)? {
            Candidate::None => (None, false),
            Candidate::Torn(header) => (Some(header), false),
            Candidate::Whole(header, _) => (Some(header), true),
        };
        let step = header.filter(|_| whole).map_or(BLOCK_BYTES as u64, |header| header.disk_bytes());
        let later = header.filter(|header| header.shard == owner.shard && header.index >= head.next_index);
        found.extend(later.map(|header| Found { header, whole }));
        address += step;
    }
    Ok(found)
}

/// The entries that count, by address and by index.
fn counting(found: &[Found], head: &JournalHead, ring: Ring) -> Vec<EntryHeader> {
    let mut least = u64::MAX;
    let mut kept: Vec<(usize, EntryHeader)> = Vec::new();
    // From the end: what was written later is right.
    for (place, Found { header, whole }) in found.iter().enumerate().rev() {
        let was_cut = least <= header.index;
        least = least.min(header.index);
        let next = kept.last().filter(|(_, next)| next.index == header.index + 1);
        let is_other = next.is_some_and(|(_, next)| next.previous_crc != header.crc);
        // The one that chains to the last entry before the damage would have been found there.
        if *whole && !was_cut && !is_other && header.index > head.next_index {
            kept.push((place, *header));
        }
    }
    kept.reverse();
    let counts = kept.iter().enumerate().filter(|(order, (place, header))| {
        let follows = |one: Option<&(usize, EntryHeader)>, index: u64| one.is_some_and(|(_, one)| one.index == index);
        let is_chained = follows(order.checked_sub(1).map(|before| &kept[before]), header.index - 1)
            || follows(kept.get(order + 1), header.index + 1);
        let covers = header.durable_upto + 1 >= header.index;
        let next = found.get(place + 1).map(|next| next.header.address);
        let goes_on = next.is_some_and(|next| {
            ring.file_start(next) == ring.file_start(header.address) || next == ring.next_file(header.address)
        });
        is_chained || covers || goes_on
    });
    counts.map(|(_, (_, header))| *header).collect()
}

/// A journal of which the disk may not give every block: those are zeros, and noted.
pub struct Tolerant<'r, 'f> {
    read: &'r mut Read<'f>,
    /// Slots and positions of the blocks that could not be read.
    unreadable: BTreeSet<(usize, u64)>,
}

impl<'r, 'f> Tolerant<'r, 'f> {
    /// Reads by `read`, and block by block where that fails.
    pub fn new(read: &'r mut Read<'f>) -> Self {
        Self { read, unreadable: BTreeSet::new() }
    }

    /// Reads whatever can be read, and never fails.
    pub fn reader(&mut self) -> impl FnMut(usize, u64, &mut AlignedBuffer) -> io::Result<()> {
        |slot, position, buffer| {
            if (self.read)(slot, position, buffer).is_err() {
                self.read_blocks(slot, position, buffer);
            }
            Ok(())
        }
    }

    fn read_blocks(&mut self, slot: usize, position: u64, buffer: &mut AlignedBuffer) {
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        for (place, piece) in (position..).step_by(BLOCK_BYTES).zip(buffer.chunks_mut(BLOCK_BYTES)) {
            match (self.read)(slot, place, &mut block) {
                Ok(()) => piece.copy_from_slice(&block[..piece.len()]),
                Err(_) => {
                    piece.fill(0);
                    self.unreadable.insert((slot, place));
                }
            }
        }
    }

    /// Addresses from `from` to before `behind`, the end of a lap, at which blocks could not be read.
    pub fn unreadable(&self, ring: Ring, from: u64, behind: u64) -> impl Iterator<Item = u64> {
        let files = (behind - ring.bytes()..behind).step_by(ring.file_bytes as usize);
        let at = move |&(slot, position): &(usize, u64)| {
            let start = files.clone().find(|&start| ring.place(start).0 == slot);
            start.map(|start| start + position)
        };
        self.unreadable.iter().filter_map(at).filter(move |&address| address >= from)
    }
}

#[cfg(test)]
mod tests;
