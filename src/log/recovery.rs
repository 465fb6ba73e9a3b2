//! Walking a journal after a start: which entries count, whether the end is a clean end, a torn tail, or damage.
//!
//! An entry counts when it stands where the chain expects it: right address, next index, checksum of the entry before,
//! and its own checksums. The chain goes on behind the last entry or at the beginning of the next file. Where it ends,
//! the rest of the ring is searched for entries of this lap: if one of them knew a later index to be durable, something
//! that may have been answered is missing, and that is damage. Otherwise what stands behind the end was never answered,
//! and is cut: the next entry then begins a fresh file.

use super::entry::{ENTRY_HEADER_BYTES, EntryHeader, Owner, Parts};
use super::journal::{JournalHead, Ring};
use super::state::Checkpoint;
use super::wire::{Malformed, Newer, Unreadable};
use crate::io::buffer::AlignedBuffer;
use crate::limits::BLOCK_BYTES;
use std::io;
use thiserror::Error;

/// Bytes of the journal read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where a journal's bytes come from: `(slot, position in its file, buffer to fill)`.
pub type Read<'r> = dyn FnMut(usize, u64, &mut AlignedBuffer) -> io::Result<()> + 'r;

/// Why a journal cannot be recovered.
#[derive(Debug, Error)]
pub enum JournalFault {
    /// The disk.
    #[error("the journal cannot be read at address {address}: {cause}")]
    Unreadable {
        /// Address in the endless journal.
        address: u64,
        /// The operating system's error.
        cause: io::Error,
    },
    /// A whole entry, or something in it, that only a newer version understands.
    #[error("at address {address}: {found}")]
    Newer {
        /// Address in the endless journal.
        address: u64,
        /// What it is.
        found: Newer,
    },
    /// A whole entry that makes no sense here.
    #[error("journal entry {index} at address {address} cannot be applied: {cause}")]
    Unusable {
        /// Index of the entry.
        index: u64,
        /// Its address.
        address: u64,
        /// What is wrong.
        cause: String,
    },
}

/// Why a whole entry is not applied.
#[derive(Debug)]
pub enum NotApplied {
    /// Something in it is of a newer version.
    Newer(Newer),
    /// It makes no sense.
    Senseless(String),
}

impl From<Unreadable> for NotApplied {
    fn from(fault: Unreadable) -> Self {
        match fault {
            Unreadable::Newer(found) => Self::Newer(found),
            Unreadable::Malformed(fault) => fault.into(),
        }
    }
}

impl From<Malformed> for NotApplied {
    fn from(fault: Malformed) -> Self {
        Self::Senseless(fault.to_string())
    }
}

impl From<String> for NotApplied {
    fn from(cause: String) -> Self {
        Self::Senseless(cause)
    }
}

impl NotApplied {
    pub(super) fn at(self, index: u64, address: u64) -> JournalFault {
        match self {
            Self::Newer(found) => JournalFault::Newer { address, found },
            Self::Senseless(cause) => JournalFault::Unusable { index, address, cause },
        }
    }
}

/// How the journal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing stands behind the last entry.
    Clean,
    /// Something that was never answered stands behind the last entry.
    Torn,
    /// Entry `index`, which may have been answered, is missing or damaged.
    Damaged {
        /// The first entry that does not count.
        index: u64,
        /// Where it was expected.
        address: u64,
    },
}

/// What a walk found.
pub struct Walked {
    /// Where the journal goes on.
    pub head: JournalHead,
    /// How it ended.
    pub end: End,
    /// Entries that were applied.
    pub entries: u64,
}

/// A journal that is read from one address to the next.
pub(super) struct Window<'r, 'f> {
    ring: Ring,
    owner: Owner,
    read: &'r mut Read<'f>,
    start: u64,
    buffer: AlignedBuffer,
}

impl<'r, 'f> Window<'r, 'f> {
    pub(super) fn new(ring: Ring, owner: Owner, read: &'r mut Read<'f>) -> Self {
        Self { ring, owner, read, start: 0, buffer: AlignedBuffer::default() }
    }

    /// `length` bytes at `address`, fewer at the end of the file.
    fn at(&mut self, address: u64, length: u64) -> Result<&[u8], JournalFault> {
        let left = self.ring.file_bytes - address % self.ring.file_bytes;
        let length = length.min(left);
        let end = self.start + self.buffer.len() as u64;
        if address < self.start || address + length > end {
            let (slot, position) = self.ring.place(address);
            self.buffer = AlignedBuffer::zeroed(length.max(WINDOW_BYTES).min(left) as usize);
            self.start = address;
            (self.read)(slot, position, &mut self.buffer)
                .map_err(|cause| JournalFault::Unreadable { address, cause })?;
        }
        let from = (address - self.start) as usize;
        Ok(&self.buffer[from..from + length as usize])
    }

    /// The whole entry that claims to stand at `address`.
    pub(super) fn entry(&mut self, address: u64) -> Result<Candidate<'_>, JournalFault> {
        let owner = self.owner;
        let block = self.at(address, BLOCK_BYTES as u64)?;
        let header = match EntryHeader::decode(block, owner) {
            Ok(header) if header.address == address => header,
            // One of an earlier lap counts as little as any other.
            Err(Unreadable::Newer(found)) if EntryHeader::address_in(block) == Some(address) => {
                return Err(JournalFault::Newer { address, found });
            }
            _ => return Ok(Candidate::None),
        };
        let bytes = self.at(address, header.disk_bytes())?;
        if header.parts(bytes).is_err() {
            return Ok(Candidate::Torn(header));
        }
        Ok(Candidate::Whole(header, bytes))
    }
}

/// What stands at an address.
pub(super) enum Candidate<'b> {
    /// Zeros, bytes of an entry's middle, an entry of an earlier lap, or anything else.
    None,
    /// The header of an entry of this lap, without its parts.
    Torn(EntryHeader),
    /// An entry of this lap.
    Whole(EntryHeader, &'b [u8]),
}

/// Applies every entry behind `checkpoint` in order.
///
/// # Errors
/// When the disk cannot be read, or `apply` refuses an entry.
pub fn walk(
    ring: Ring,
    owner: Owner,
    checkpoint: &Checkpoint,
    needed_from: u64,
    read: &mut Read<'_>,
    mut apply: impl FnMut(&EntryHeader, Parts<'_>) -> Result<(), NotApplied>,
) -> Result<Walked, JournalFault> {
    let mut head = JournalHead::new(ring, checkpoint.next_address, checkpoint.index + 1, checkpoint.crc, needed_from);
    let mut window = Window::new(ring, owner, read);
    let mut entries = 0;
    while let Some(address) = next(&mut window, &head)? {
        let Candidate::Whole(header, bytes) = window.entry(address)? else { unreachable!("it was just there") };
        let parts = header.parts(bytes).map_err(NotApplied::from);
        parts.and_then(|parts| apply(&header, parts)).map_err(|fault| fault.at(header.index, address))?;
        head.advance(address, header.disk_bytes(), header.crc);
        entries += 1;
    }
    let end = end(&mut window, &head, needed_from)?;
    Ok(Walked { head, end, entries })
}

/// Address of the entry that continues the chain.
fn next(window: &mut Window<'_, '_>, head: &JournalHead) -> Result<Option<u64>, JournalFault> {
    let at_end = head.next_address.is_multiple_of(window.ring.file_bytes);
    let here = (!at_end).then_some(head.next_address);
    let shard = window.owner.shard;
    for address in here.into_iter().chain([head.next_file_address()]) {
        if let Candidate::Whole(header, _) = window.entry(address)?
            && (header.shard, header.index, header.previous_crc) == (shard, head.next_index, head.previous_crc)
        {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Searches the rest of the ring for what stands behind the last entry.
fn end(window: &mut Window<'_, '_>, head: &JournalHead, needed_from: u64) -> Result<End, JournalFault> {
    let (ring, shard) = (window.ring, window.owner.shard);
    let mut end = End::Clean;
    let mut address = head.next_address;
    let behind = ring.end_of_lap(needed_from);
    while address < behind {
        // What an entry knew to be durable counts whether or not all of it was written.
        let (header, step) = match window.entry(address)? {
            Candidate::None => (None, 0),
            Candidate::Torn(header) => (Some(header), 0),
            Candidate::Whole(header, _) => (Some(header), header.disk_bytes()),
        };
        let later = header.filter(|header| header.shard == shard && header.index >= head.next_index);
        if later.is_some_and(|header| header.durable_upto >= head.next_index) {
            return Ok(End::Damaged { index: head.next_index, address: head.next_address });
        }
        if later.is_some() {
            end = End::Torn;
        }
        let step = step.max(BLOCK_BYTES as u64);
        address += step;
    }
    Ok(end)
}

/// The smallest read that can hold an entry's header.
const _: () = assert!(ENTRY_HEADER_BYTES <= BLOCK_BYTES);
