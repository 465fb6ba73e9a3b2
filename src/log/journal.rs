//! Where the next entry of a shard goes: a ring of files under one endless address.
//!
//! ```text
//! address ÷ file bytes = number of the file, number mod files = the slot it stands in, the rest = place in the file
//! every file: [file header, one block][entry][entry]…        an entry never spans two files
//! ```
//!
//! A file header identifies the file (cluster, shard, slot) and never decides what is valid. Nothing here writes; it
//! decides addresses, and refuses when the ring is full, that is when the file it would enter still holds entries that
//! the older valid state file needs.

use crate::limits::BLOCK_BYTES;

/// Size and number of a ring's files; fixed when the shard is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Bytes of each file, a multiple of the block size.
    pub file_bytes: u64,
    /// Number of files.
    pub files: u64,
}

impl Ring {
    /// Bytes of the whole ring.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file_bytes * self.files
    }

    /// Largest entry that fits a file behind its header.
    #[must_use]
    pub fn entry_bytes_max(&self) -> u64 {
        self.file_bytes - BLOCK_BYTES as u64
    }

    /// Slot of the file that holds `address`, and the place in it.
    #[must_use]
    pub fn place(&self, address: u64) -> (usize, u64) {
        ((address / self.file_bytes % self.files) as usize, address % self.file_bytes)
    }

    /// Address of the first entry of the file behind the one that holds `address`.
    #[must_use]
    pub fn next_file(&self, address: u64) -> u64 {
        (address / self.file_bytes + 1) * self.file_bytes + BLOCK_BYTES as u64
    }

    /// Address of the first entry ever.
    #[must_use]
    pub fn first_address() -> u64 {
        BLOCK_BYTES as u64
    }

    /// First address that no entry can have before everything from `needed_from` on, or some of it, was released.
    #[must_use]
    pub fn end_of_lap(&self, needed_from: u64) -> u64 {
        self.file_start(needed_from) + self.bytes()
    }

    /// First address of the file that holds `address`.
    #[must_use]
    pub fn file_start(&self, address: u64) -> u64 {
        address / self.file_bytes * self.file_bytes
    }
}

/// The end of the journal, where entries are added.
#[derive(Clone, Copy, Debug)]
pub struct JournalHead {
    ring: Ring,
    /// Where the next entry goes, unless it does not fit its file any more.
    pub next_address: u64,
    /// Index of the next entry.
    pub next_index: u64,
    /// Checksum of the last entry.
    pub previous_crc: u32,
    /// Everything below is no longer needed.
    needed_from: u64,
}

impl JournalHead {
    /// The head behind the last valid entry.
    #[must_use]
    pub fn new(ring: Ring, next_address: u64, next_index: u64, previous_crc: u32, needed_from: u64) -> Self {
        Self { ring, next_address, next_index, previous_crc, needed_from }
    }

    /// The ring this head moves in.
    #[must_use]
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// Where a commit of `bytes` would go, or `None` while the ring is full. One file always stays free, so that recovery
    /// can link a fresh one behind a cut.
    #[must_use]
    pub fn place_for(&self, bytes: u64) -> Option<u64> {
        self.place_within(bytes, self.ring.bytes() - self.ring.file_bytes)
    }

    /// Where the link behind a cut goes.
    #[must_use]
    pub fn place_for_link(&self, bytes: u64) -> Option<u64> {
        self.place_within(bytes, self.ring.bytes())
    }

    fn place_within(&self, bytes: u64, span: u64) -> Option<u64> {
        debug_assert!(bytes <= self.ring.entry_bytes_max() && bytes.is_multiple_of(BLOCK_BYTES as u64));
        let left = self.ring.file_bytes - self.next_address % self.ring.file_bytes;
        let fits = !self.next_address.is_multiple_of(self.ring.file_bytes) && bytes <= left;
        let address = if fits { self.next_address } else { self.next_file_address() };
        let end = self.ring.file_start(address) + self.ring.file_bytes;
        (end - self.ring.file_start(self.needed_from) <= span).then_some(address)
    }

    /// First address of the file behind the one being written.
    #[must_use]
    pub fn next_file_address(&self) -> u64 {
        match self.next_address % self.ring.file_bytes {
            // The last entry filled its file to the last byte.
            0 => self.next_address + BLOCK_BYTES as u64,
            _ => self.ring.next_file(self.next_address),
        }
    }

    /// Leaves the current file for good: recovery cut something behind the last entry.
    pub fn skip_file(&mut self) {
        self.next_address = self.next_file_address();
    }

    /// Moves behind an entry of `bytes` at `address`, whose checksum is `crc`.
    pub fn advance(&mut self, address: u64, bytes: u64, crc: u32) {
        debug_assert!(address >= self.next_address);
        self.next_address = address + bytes;
        self.next_index += 1;
        self.previous_crc = crc;
    }

    /// Everything below `address` may be written over.
    pub fn release(&mut self, address: u64) {
        debug_assert!(address >= self.needed_from);
        self.needed_from = address;
    }

    /// Bytes that cannot be written over now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.next_address - self.ring.file_start(self.needed_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;
    const RING: Ring = Ring { file_bytes: 8 * BLOCK, files: 4 };

    fn head(address: u64) -> JournalHead {
        JournalHead::new(RING, address, 1, 0, 0)
    }

    #[test]
    fn an_entry_that_does_not_fit_goes_to_the_next_file() {
        for (next, bytes, expected) in [
            (BLOCK, 7 * BLOCK, BLOCK),
            (2 * BLOCK, 7 * BLOCK, 9 * BLOCK),
            (7 * BLOCK, BLOCK, 7 * BLOCK),
            (8 * BLOCK, BLOCK, 9 * BLOCK),
            (15 * BLOCK, 2 * BLOCK, 17 * BLOCK),
        ] {
            assert_eq!(head(next).place_for(bytes), Some(expected), "{bytes} at {next}");
        }
    }

    #[test]
    fn the_ring_is_full_when_it_would_enter_a_file_that_is_needed() {
        let mut head = head(23 * BLOCK);
        assert_eq!(head.place_for(BLOCK), Some(23 * BLOCK));
        assert_eq!(head.place_for(2 * BLOCK), None, "one file stays free");
        assert_eq!(head.place_for_link(2 * BLOCK), Some(25 * BLOCK), "for the link behind a cut");
        head.release(7 * BLOCK);
        assert_eq!(head.place_for(2 * BLOCK), None, "the file is still needed in part");
        head.release(9 * BLOCK);
        assert_eq!(head.place_for(2 * BLOCK), Some(25 * BLOCK));
        assert_eq!(RING.place(33 * BLOCK), (0, BLOCK), "the ring goes round");
    }
}
