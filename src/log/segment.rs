//! Segments as values: what a shard remembers of each, and what its file is called.
//!
//! ```text
//! [file header 64][frame][frame]…[frame]                    active: allocated room behind the frames
//! [file header 64][frame][frame]…[frame][index footer]      sealed: cut to its length
//! ```
//!
//! A file is named by numbers alone, `<group>-<sequence>.seg`, so that the next one can be allocated before its first
//! offset is known.

use super::file_header::FILE_HEADER_BYTES;
use super::wire::{Fields, Malformed};
use std::path::{Path, PathBuf};

/// Where the first frame of a segment begins.
pub const SEGMENT_START: u64 = FILE_HEADER_BYTES as u64;

/// What is known of a segment without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Counts the segments of a group from 0; names the file.
    pub sequence: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset behind the last event.
    pub next_offset: u64,
    /// Where the frames end.
    pub end: u64,
    /// `received` of the first event, µs.
    pub first_received_us: u64,
    /// `received` of the last event, µs.
    pub last_received_us: u64,
    /// Whether no frame will follow.
    pub sealed: bool,
}

impl Segment {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        for field in [self.first_offset, self.next_offset, self.end, self.first_received_us, self.last_received_us] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.push(u8::from(self.sealed));
    }

    /// Takes one segment.
    ///
    /// # Errors
    /// When the bytes are cut.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            sequence: fields.u32()?,
            first_offset: fields.u64()?,
            next_offset: fields.u64()?,
            end: fields.u64()?,
            first_received_us: fields.u64()?,
            last_received_us: fields.u64()?,
            sealed: fields.u8()? != 0,
        })
    }
}

/// The file of a segment.
#[must_use]
pub fn path(directory: &Path, group: u32, sequence: u32) -> PathBuf {
    directory.join(format!("{group:010}-{sequence:010}.seg"))
}

/// Group and sequence from a segment's file name; `None` for any other name.
#[must_use]
pub fn parse_name(name: &str) -> Option<(u32, u32)> {
    let (group, sequence) = name.strip_suffix(".seg")?.split_once('-')?;
    Some((group.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_groups_and_sequences_and_come_back() {
        let name = |group, sequence| path(Path::new(""), group, sequence).to_str().unwrap().to_owned();
        let mut names = [name(2, 0), name(1, 10), name(1, 9), name(10, 0)];
        names.sort();
        let parsed: Vec<_> = names.iter().map(|name| parse_name(name).unwrap()).collect();
        assert_eq!(parsed, [(1, 9), (1, 10), (2, 0), (10, 0)]);
        assert_eq!(parse_name("0000000001.seg"), None);
    }
}
