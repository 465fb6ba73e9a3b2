//! A journal entry: one commit of a shard. It counts whole or not at all.
//!
//! ```text
//!  0 magic "EDJE"              16 term 8 (0 on a single broker)     48 length of the parts 4
//!  4 version 1 · 5 kind 1      24 index 8                           52 parts 4
//!  6 flags 2                   32 address 8                         56 CRC-32 of the parts
//!  8 shard 2 · 10 zero 2       40 durable up to (index) 8           60 CRC-32 of cluster id and bytes 0..60
//! 12 CRC (bytes 60..64) of the entry before                         64 the parts, then zeros to the block's end
//!
//! part: kind 1 · zero 3 · length 4 · bytes
//! ```
//!
//! The header's checksum begins with the cluster's id, which producers do not know: an event that holds the image of an
//! entry is never taken for one. It covers the parts' checksum, so the chain through bytes 12..16 covers everything. The address is
//! where the entry stands in the endless journal: a whole old entry in a recycled file has an old address, and is told
//! from a new one by it. `durable up to` is the highest index whose write had completed when this entry was written:
//! what it covers may have been answered, so it must be there.

use super::wire::{Fields, Malformed, Newer, Unreadable};
use crate::io::buffer::AlignedBuffer;
use crate::limits::BLOCK_BYTES;

/// First bytes of an entry.
pub const ENTRY_MAGIC: [u8; 4] = *b"EDJE";
/// The version written here, and the newest that is read.
pub const ENTRY_VERSION: u8 = 1;
/// Length of an entry's header.
pub const ENTRY_HEADER_BYTES: usize = 64;
/// Length of a part's header.
pub const PART_HEADER_BYTES: usize = 8;

/// Why an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// Requests were waiting.
    Commit = 1,
    /// Nothing was waiting; it says that the commits before it are durable.
    Idle = 2,
    /// First entry after recovery cut a torn tail; it begins a file.
    Link = 3,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Commit, Self::Idle, Self::Link].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a part holds. Numbers are explicit and never reused; 0 is never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PartKind {
    /// A group frame.
    Frame = 1,
    /// A group was registered in the table (shard 0).
    GroupRegistered = 2,
    /// A group was taken out of the table (shard 0).
    GroupRemoved = 3,
    /// A group's configuration changed (the group's shard).
    GroupConfigured = 4,
    /// A group takes no further events (the group's shard).
    GroupClosed = 5,
    /// A group's last segment takes no further frames: `group 4 · sequence 4`.
    SegmentSealed = 6,
    /// A group gave up its oldest segments: `group 4 · earliest offset 8`.
    GroupTrimmed = 7,
    /// A consumer subscribed, or anything but its head changed: all of it.
    Consumer = 10,
    /// A consumer's head moved: `group 4 · head 8 · when 8 · name`.
    ConsumerAcked = 11,
    /// A consumer is gone: `group 4 · name`.
    ConsumerRemoved = 12,
    /// A token was made (shard 0).
    TokenCreated = 8,
    /// A token was taken back (shard 0).
    TokenRevoked = 9,
    /// What is to be told of this entry's change in the audit log.
    Audit = 14,
    /// A shard's audit events up to this one are in the audit log (that shard, and shard 0).
    AuditForwarded = 15,
    /// Reserved: header of a bulk request whose bytes were written straight to the segment.
    Bulk = 32,
}

impl PartKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use PartKind::{Audit, AuditForwarded, Frame, TokenCreated, TokenRevoked};
        use PartKind::{Consumer, ConsumerAcked, ConsumerRemoved};
        use PartKind::{GroupClosed, GroupConfigured, GroupRegistered, GroupRemoved, GroupTrimmed, SegmentSealed};
        let groups = [Frame, GroupRegistered, GroupRemoved, GroupConfigured, GroupClosed, SegmentSealed, GroupTrimmed];
        let tokens = [TokenCreated, TokenRevoked, Audit, AuditForwarded];
        let consumers = [Consumer, ConsumerAcked, ConsumerRemoved];
        groups.into_iter().chain(tokens).chain(consumers).find(|kind| *kind as u8 == byte)
    }
}

/// Whose entries a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The shard.
    pub shard: u16,
    /// The cluster's id.
    pub cluster: u128,
}

impl Owner {
    fn checksum(&self, header: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.cluster.to_be_bytes());
        hasher.update(header);
        hasher.finalize()
    }
}

/// An entry's header as values, without what describes its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Why it was written.
    pub kind: EntryKind,
    /// The shard it belongs to.
    pub shard: u16,
    /// Counts the shard's entries from 1.
    pub index: u64,
    /// Where it stands in the endless journal.
    pub address: u64,
    /// Highest index known durable when it was written.
    pub durable_upto: u64,
    /// Checksum of the entry before, 0 for the first.
    pub previous_crc: u32,
    /// Bytes of parts.
    pub parts_bytes: u32,
    /// Checksum of the parts.
    parts_crc: u32,
    /// This entry's own checksum, to be the next one's `previous_crc`.
    pub crc: u32,
}

impl EntryHeader {
    /// Reads and checks a header of `owner`'s journal.
    ///
    /// # Errors
    /// When the bytes are not the header of an entry that this version knows.
    pub fn decode(bytes: &[u8], owner: Owner) -> Result<Self, Unreadable> {
        let bytes = bytes.get(..ENTRY_HEADER_BYTES).ok_or(Malformed("an entry's header is cut"))?;
        let mut fields = Fields::new(bytes);
        if fields.bytes(4)? != ENTRY_MAGIC {
            return Err(Malformed("no entry begins here").into());
        }
        let crc = owner.checksum(&bytes[..ENTRY_HEADER_BYTES - 4]);
        if bytes[ENTRY_HEADER_BYTES - 4..] != crc.to_le_bytes() {
            return Err(Malformed("an entry's header is damaged").into());
        }
        let (version, kind, flags) = (fields.u8()?, fields.u8()?, fields.u16()?);
        Newer::refuse("a journal entry", (version, ENTRY_VERSION), (flags & 0xff, 0))?;
        let kind = EntryKind::from_byte(kind).ok_or_else(|| Newer::kind("a journal entry", kind))?;
        let (shard, _) = (fields.u16()?, fields.u16()?);
        let (previous_crc, _term) = (fields.u32()?, fields.u64()?);
        let (index, address, durable_upto) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (parts_bytes, _parts, parts_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        Ok(Self { kind, shard, index, address, durable_upto, previous_crc, parts_bytes, parts_crc, crc })
    }

    /// Where the header in `bytes` says that it stands, whatever its version.
    #[must_use]
    pub fn address_in(bytes: &[u8]) -> Option<u64> {
        bytes.get(32..40)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Bytes of the entry on disk, padding included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        (ENTRY_HEADER_BYTES as u64 + u64::from(self.parts_bytes)).next_multiple_of(BLOCK_BYTES as u64)
    }

    /// The entry's parts in `bytes`, which begin with this header.
    ///
    /// # Errors
    /// When the parts are cut or damaged.
    pub fn parts<'b>(&self, bytes: &'b [u8]) -> Result<Parts<'b>, Malformed> {
        let end = ENTRY_HEADER_BYTES + self.parts_bytes as usize;
        let parts = bytes.get(ENTRY_HEADER_BYTES..end).ok_or(Malformed("an entry is cut"))?;
        if crc32fast::hash(parts) != self.parts_crc {
            return Err(Malformed("an entry's parts are damaged"));
        }
        Ok(Parts(Fields::new(parts)))
    }
}

/// The parts of an entry whose checksum was right.
pub struct Parts<'b>(Fields<'b>);

impl<'b> Iterator for Parts<'b> {
    type Item = Result<(PartKind, &'b [u8]), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.rest().is_empty()).then(|| {
            let kind = self.0.u8()?;
            let kind = PartKind::from_byte(kind).ok_or_else(|| Newer::kind("a part of an entry", kind))?;
            self.0.bytes(3)?;
            let length = self.0.u32()?;
            Ok((kind, self.0.bytes(length as usize)?))
        })
    }
}

/// Gathers the parts of an entry in the memory it will be written from.
pub struct EntryBuilder {
    buffer: AlignedBuffer,
    parts: u32,
}

impl EntryBuilder {
    /// An empty entry in `buffer`, whose memory is used again.
    #[must_use]
    pub fn new(mut buffer: AlignedBuffer) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&[0; ENTRY_HEADER_BYTES]);
        Self { buffer, parts: 0 }
    }

    /// Adds a part.
    pub fn part(&mut self, kind: PartKind, bytes: &[u8]) {
        let mut header = [kind as u8, 0, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(bytes);
        self.parts += 1;
    }

    /// Bytes the entry takes on disk as it is now.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.buffer.len().next_multiple_of(BLOCK_BYTES) as u64
    }

    /// The finished entry, padded, and its checksum for the next one.
    #[must_use]
    pub fn finish(mut self, place: &EntryPlace) -> (AlignedBuffer, u32) {
        let parts = &self.buffer[ENTRY_HEADER_BYTES..];
        let (parts_bytes, parts_crc) = (parts.len() as u32, crc32fast::hash(parts));
        let mut header = Vec::with_capacity(ENTRY_HEADER_BYTES);
        header.extend_from_slice(&ENTRY_MAGIC);
        header.extend_from_slice(&[ENTRY_VERSION, place.kind as u8, 0, 0]);
        header.extend_from_slice(&place.owner.shard.to_le_bytes());
        header.extend_from_slice(&[0, 0]);
        header.extend_from_slice(&place.previous_crc.to_le_bytes());
        header.extend_from_slice(&0_u64.to_le_bytes());
        header.extend_from_slice(&place.index.to_le_bytes());
        header.extend_from_slice(&place.address.to_le_bytes());
        header.extend_from_slice(&place.durable_upto.to_le_bytes());
        header.extend_from_slice(&parts_bytes.to_le_bytes());
        header.extend_from_slice(&self.parts.to_le_bytes());
        header.extend_from_slice(&parts_crc.to_le_bytes());
        let crc = place.owner.checksum(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        self.buffer[..ENTRY_HEADER_BYTES].copy_from_slice(&header);
        self.buffer.pad();
        (self.buffer, crc)
    }
}

/// What an entry says about itself besides its parts.
#[derive(Clone, Copy, Debug)]
pub struct EntryPlace {
    /// Why it is written.
    pub kind: EntryKind,
    /// Whose journal it is written to.
    pub owner: Owner,
    /// Its index.
    pub index: u64,
    /// Its address.
    pub address: u64,
    /// Highest index known durable.
    pub durable_upto: u64,
    /// Checksum of the entry before.
    pub previous_crc: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { shard: 3, cluster: 77 };
    const PLACE: EntryPlace = EntryPlace {
        kind: EntryKind::Commit,
        owner: OWNER,
        index: 9,
        address: 81_920,
        durable_upto: 7,
        previous_crc: 5,
    };

    fn sample() -> AlignedBuffer {
        let mut builder = EntryBuilder::new(AlignedBuffer::default());
        builder.part(PartKind::Frame, b"not really a frame");
        builder.part(PartKind::GroupClosed, &[1, 2, 3, 4]);
        builder.finish(&PLACE).0
    }

    #[test]
    fn an_entry_comes_back_with_its_parts_and_whole_blocks() {
        let bytes = sample();
        assert_eq!(bytes.len(), BLOCK_BYTES);
        let header = EntryHeader::decode(&bytes, OWNER).unwrap();
        assert_eq!((header.shard, header.index, header.address), (3, 9, 81_920));
        assert_eq!((header.durable_upto, header.previous_crc, header.disk_bytes()), (7, 5, 4096));
        let parts: Vec<_> = header.parts(&bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(parts, [(PartKind::Frame, &b"not really a frame"[..]), (PartKind::GroupClosed, &[1, 2, 3, 4])]);
    }

    #[test]
    fn any_flipped_bit_of_header_or_parts_is_seen() {
        let bytes = sample();
        let end = ENTRY_HEADER_BYTES + EntryHeader::decode(&bytes, OWNER).unwrap().parts_bytes as usize;
        for bit in 0..end * 8 {
            let mut hurt = bytes.to_vec();
            hurt[bit / 8] ^= 1 << (bit % 8);
            let whole = EntryHeader::decode(&hurt, OWNER).is_ok_and(|header| header.parts(&hurt).is_ok());
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn an_entry_of_another_cluster_is_none() {
        let stranger = Owner { cluster: OWNER.cluster + 1, ..OWNER };
        assert!(EntryHeader::decode(&sample(), stranger).is_err());
    }

    #[test]
    fn zeros_are_no_entry() {
        assert!(EntryHeader::decode(&[0; ENTRY_HEADER_BYTES], OWNER).is_err());
    }
}
