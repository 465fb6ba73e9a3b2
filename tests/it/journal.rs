//! The journal of a stopped broker as files: which entry holds which event, and how to hurt it.

use eddyline::log::entry::{EntryHeader, Owner, PartKind};
use eddyline::log::frame::FrameHeader;
use eddyline::shard::init::{inspect, journal_path, shard_directory};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An entry, and where it stands.
pub(crate) struct Entry {
    pub(crate) header: EntryHeader,
    pub(crate) file: PathBuf,
    pub(crate) position: u64,
    /// Group and first offset of its frames.
    pub(crate) frames: Vec<(u32, u64)>,
    /// Whether it makes a group.
    pub(crate) registers: bool,
}

/// All whole entries of a shard, in order.
pub(crate) fn entries(data: &Path, shard: u16) -> Vec<Entry> {
    const BLOCK: usize = 4096;
    let layout = inspect(data).expect("a data directory");
    let owner = Owner { shard, cluster: layout.identity.cluster };
    let mut found = Vec::new();
    for slot in 0..layout.ring.files {
        let file = journal_path(&shard_directory(data, shard), slot);
        let bytes = std::fs::read(&file).expect("a journal");
        for position in (BLOCK..bytes.len()).step_by(BLOCK) {
            let Ok(header) = EntryHeader::decode(&bytes[position..], owner) else { continue };
            let Ok(parts) = header.parts(&bytes[position..]) else { continue };
            let parts: Vec<_> = parts.map(|part| part.expect("a part")).collect();
            let frame = |bytes: &[u8]| {
                let header = FrameHeader::decode(bytes).expect("a frame").expect("a whole one");
                (header.group, header.first_offset)
            };
            let frames =
                parts.iter().filter(|(kind, _)| *kind == PartKind::Frame).map(|(_, bytes)| frame(bytes)).collect();
            let registers = parts.iter().any(|(kind, _)| *kind == PartKind::GroupRegistered);
            found.push(Entry { header, file: file.clone(), position: position as u64, frames, registers });
        }
    }
    found.sort_by_key(|entry| entry.header.index);
    found
}

impl Entry {
    /// Turns a bit of its parts over.
    pub(crate) fn hurt(&self) {
        let file = std::fs::File::options().read(true).write(true).open(&self.file).expect("a journal");
        let mut byte = [0];
        let place = self.position + 100;
        file.read_exact_at(&mut byte, place).expect("a byte");
        file.write_all_at(&[byte[0] ^ 1], place).expect("another byte");
    }
}
