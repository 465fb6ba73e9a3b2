//! The first bytes of every file of a data directory: whose it is and what it holds.
//!
//! ```text
//!  0 magic "EDDY"     8 shard 2 · zero 2     24 cluster id 16
//!  4 version 1       12 broker 4             40 journal: slot;       segment: group number  8
//!  5 kind 1          16 replica 4            48 journal: file bytes; segment: sequence      8
//!  6 features 2      20 zero 4               56 zero 4 · 60 CRC-32 of bytes 0..60
//! ```
//!
//! It identifies; what is valid in the file is decided by the file's own frames and entries.

use super::wire::{Fields, Malformed, Newer, Unreadable};

/// Length of a file header.
pub const FILE_HEADER_BYTES: usize = 64;
/// The version written here, and the newest that is read.
pub const FORMAT_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"EDDY";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    /// One file of a journal ring.
    Journal = 1,
    /// A part of a group's log.
    Segment = 2,
    /// One generation of a shard's state.
    State = 3,
}

/// Who wrote a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// One id for all brokers that hold the same log.
    pub cluster: u128,
    /// This broker.
    pub broker: u32,
    /// Which copy this is.
    pub replica: u32,
}

/// A file header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file holds.
    pub kind: FileKind,
    /// Who wrote it.
    pub identity: Identity,
    /// The shard it belongs to.
    pub shard: u16,
    /// Journal: slot in the ring. Segment: number of the group.
    pub first: u64,
    /// Journal: bytes of each file. Segment: its sequence number.
    pub second: u64,
}

impl FileHeader {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = Vec::with_capacity(FILE_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[FORMAT_VERSION, self.kind as u8, 0, 0]);
        out.extend_from_slice(&u32::from(self.shard).to_le_bytes());
        out.extend_from_slice(&self.identity.broker.to_le_bytes());
        out.extend_from_slice(&u64::from(self.identity.replica).to_le_bytes());
        out.extend_from_slice(&self.identity.cluster.to_be_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.second.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.try_into().expect("the fields add up to the header's length")
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// When the bytes are not a file header, or one of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = bytes.get(..FILE_HEADER_BYTES).ok_or(Malformed("the file has no header"))?;
        let mut fields = Fields::new(bytes);
        if fields.bytes(4)? != MAGIC {
            return Err(Malformed("the file is none of Eddyline's").into());
        }
        if bytes[FILE_HEADER_BYTES - 4..] != crc32fast::hash(&bytes[..FILE_HEADER_BYTES - 4]).to_le_bytes() {
            return Err(Malformed("the file's header is damaged").into());
        }
        let (version, kind, features) = (fields.u8()?, fields.u8()?, fields.u16()?);
        Newer::refuse("a file", (version, FORMAT_VERSION), (features, 0))?;
        let kind = match kind {
            1 => FileKind::Journal,
            2 => FileKind::Segment,
            3 => FileKind::State,
            _ => return Err(Newer::kind("a file", kind).into()),
        };
        let (shard, broker, replica) = (fields.u32()? as u16, fields.u32()?, fields.u64()? as u32);
        let identity = Identity { cluster: fields.uuid()?, broker, replica };
        Ok(Self { kind, identity, shard, first: fields.u64()?, second: fields.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_newer_or_damaged_one_is_refused() {
        let identity = Identity { cluster: 0x0193_0000_0000_7000_8000_0000_0000_0001, broker: 1, replica: 2 };
        let header = FileHeader { kind: FileKind::Segment, identity, shard: 1, first: 7, second: 99 };
        let bytes = header.encode();
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        for bit in 0..FILE_HEADER_BYTES * 8 {
            let mut hurt = bytes;
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&hurt).is_err(), "bit {bit}");
        }
        let mut newer = bytes;
        newer[4] = FORMAT_VERSION + 1;
        let crc = crc32fast::hash(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(FileHeader::decode(&newer), Err(Unreadable::Newer(_))));
    }
}
