//! The state file: what a shard was at one index of its journal, as two generations that are written in turn.
//!
//! ```text
//!  0 file header 64
//! 64 magic "EDST" · version 1 · zero 3            96 journal address behind that entry 8
//! 72 records 4 · zero 4                          104 CRC of that entry 4 · CRC-32 of the records 4
//! 80 generation 8                                112 length of the records 8
//! 88 index of the last entry contained 8         120 zero 4 · 124 CRC-32 of bytes 0..124
//! 128 the records: kind 1 · zero 3 · length 4 · bytes
//! ```
//!
//! Generation n stands in `state.a` when n is even and in `state.b` when it is odd, so writing one never touches the
//! other. What a record holds is its writer's business.

use super::file_header::{FILE_HEADER_BYTES, FileHeader, FileKind, Identity};
use super::wire::{Fields, Malformed, Newer, Unreadable};

/// Length of everything before the records.
pub const STATE_HEADER_BYTES: usize = 128;

const MAGIC: [u8; 4] = *b"EDST";
const VERSION: u8 = 1;

/// Bytes each generation's file is allocated at first, so that ordinary checkpoints need no space.
pub const STATE_FILE_BYTES_FIRST: u64 = 1 << 20;

/// What a record holds. Numbers are explicit and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// One group of this shard.
    Group = 1,
    /// One name of the table of groups (shard 0).
    TableGroup = 2,
    /// A name that was removed, and where its offsets go on (shard 0).
    TableRemoved = 3,
    /// One consumer of a group of this shard.
    Consumer = 4,
    /// One token (shard 0).
    Token = 5,
    /// The audit events that are not in the audit log yet, and how far it has those of each shard (shard 0).
    Audit = 6,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Group, Self::TableGroup, Self::TableRemoved, Self::Consumer, Self::Token, Self::Audit]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The place in the journal that a state stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Counts the states of a shard from 1.
    pub generation: u64,
    /// Index of the last entry contained; 0 for none.
    pub index: u64,
    /// Where the entry behind it goes.
    pub next_address: u64,
    /// Checksum of that last entry; 0 for none.
    pub crc: u32,
}

/// Name of the file that holds `generation`.
#[must_use]
pub fn file_name(generation: u64) -> &'static str {
    if generation.is_multiple_of(2) { "state.a" } else { "state.b" }
}

/// Gathers records.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    count: u32,
}

impl Records {
    /// Adds a record that `fill` writes.
    pub fn add(&mut self, kind: RecordKind, fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0]);
        let start = self.bytes.len();
        fill(&mut self.bytes);
        let length =
            u32::try_from(self.bytes.len() - start).expect("a record is bounded by the limits of what it holds");
        self.bytes[start - 4..start].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
    }

    /// The whole file.
    #[must_use]
    pub fn finish(self, checkpoint: &Checkpoint, identity: Identity, shard: u16) -> Vec<u8> {
        let file = FileHeader { kind: FileKind::State, identity, shard, first: 0, second: 0 };
        let mut out = Vec::with_capacity(STATE_HEADER_BYTES + self.bytes.len());
        out.extend_from_slice(&file.encode());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        out.extend_from_slice(&u64::from(self.count).to_le_bytes());
        out.extend_from_slice(&checkpoint.generation.to_le_bytes());
        out.extend_from_slice(&checkpoint.index.to_le_bytes());
        out.extend_from_slice(&checkpoint.next_address.to_le_bytes());
        out.extend_from_slice(&checkpoint.crc.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&self.bytes).to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// A state file whose checksums were right.
pub struct State<'b> {
    /// What it stands for.
    pub checkpoint: Checkpoint,
    /// Who wrote it.
    pub header: FileHeader,
    records: &'b [u8],
}

impl<'b> State<'b> {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it is damaged, cut, or of a newer format.
    pub fn decode(bytes: &'b [u8]) -> Result<Self, Unreadable> {
        let header = FileHeader::decode(bytes)?;
        let head = bytes.get(..STATE_HEADER_BYTES).ok_or(Malformed("the state file is cut"))?;
        let mut fields = Fields::new(&head[FILE_HEADER_BYTES..]);
        if fields.bytes(4)? != MAGIC
            || head[STATE_HEADER_BYTES - 4..] != crc32fast::hash(&head[..STATE_HEADER_BYTES - 4]).to_le_bytes()
        {
            return Err(Malformed("the state file's header is damaged").into());
        }
        Newer::refuse("a state", (fields.u8()?, VERSION), (0, 0))?;
        fields.bytes(3)?;
        let _count = fields.u64()?;
        let (generation, index, next_address) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (crc, records_crc, length) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let records = usize::try_from(length).ok().and_then(|length| bytes[STATE_HEADER_BYTES..].get(..length));
        let records = records.ok_or(Malformed("the state file is cut"))?;
        if crc32fast::hash(records) != records_crc {
            return Err(Malformed("the state file's records are damaged").into());
        }
        Ok(Self { checkpoint: Checkpoint { generation, index, next_address, crc }, header, records })
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Result<(RecordKind, Fields<'b>), Unreadable>> + use<'b> {
        let mut fields = Fields::new(self.records);
        std::iter::from_fn(move || {
            (!fields.rest().is_empty()).then(|| {
                let kind = fields.u8()?;
                let kind = RecordKind::from_byte(kind).ok_or_else(|| Newer::kind("a record of the state", kind))?;
                fields.bytes(3)?;
                let length = fields.u32()?;
                Ok((kind, Fields::new(fields.bytes(length as usize)?)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { cluster: 5, broker: 1, replica: 0 };
    const CHECKPOINT: Checkpoint = Checkpoint { generation: 3, index: 10, next_address: 4096, crc: 77 };

    fn sample() -> Vec<u8> {
        let mut records = Records::default();
        records.add(RecordKind::Group, |out| out.extend_from_slice(b"one"));
        records.add(RecordKind::TableRemoved, |out| out.extend_from_slice(b""));
        records.finish(&CHECKPOINT, IDENTITY, 1)
    }

    #[test]
    fn a_state_comes_back_also_with_old_bytes_behind_it() {
        let mut bytes = sample();
        bytes.extend_from_slice(b"left over from a longer generation");
        let state = State::decode(&bytes).unwrap();
        assert_eq!((state.checkpoint, state.header.shard), (CHECKPOINT, 1));
        let records: Vec<_> =
            state.records().map(|record| record.unwrap()).map(|(kind, fields)| (kind, fields.rest())).collect();
        assert_eq!(records, [(RecordKind::Group, &b"one"[..]), (RecordKind::TableRemoved, b"")]);
    }

    #[test]
    fn a_cut_or_a_flipped_bit_anywhere_is_seen() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(State::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(&hurt).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn generations_take_turns() {
        assert_ne!(file_name(1), file_name(2));
        assert_eq!(file_name(1), file_name(3));
    }
}
