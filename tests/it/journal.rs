//! The journal of a stopped broker as files: which entry holds which event, and how to hurt it.

use eddyline::group::table::TableGroup;
use eddyline::log::entry::{EntryHeader, Owner, PartKind};
use eddyline::log::frame::FrameHeader;
use eddyline::log::wire::Fields;
use eddyline::shard::init::{inspect, journal_path, shard_directory};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An entry, and where it stands.
pub(crate) struct Entry {
    pub(crate) header: EntryHeader,
    pub(crate) file: PathBuf,
    pub(crate) position: u64,
    /// Group and first offset of its frames.
    frames: Vec<(u32, u64)>,
    /// Names of the groups that it makes.
    registers: Vec<String>,
}

/// The entry of a shard that holds the frame with that first offset.
pub(crate) fn entry_of(data: &Path, shard: u16, group: u32, offset: u64) -> Entry {
    let found = entries(data, shard).into_iter().find(|entry| entry.frames.contains(&(group, offset)));
    found.expect("an entry with that frame")
}

/// The entry of the first shard that makes that group.
pub(crate) fn entry_making(data: &Path, group: &str) -> Entry {
    let found = entries(data, 0).into_iter().find(|entry| entry.registers.iter().any(|name| name == group));
    found.expect("an entry that makes the group")
}

/// All whole entries of a shard, in order.
fn entries(data: &Path, shard: u16) -> Vec<Entry> {
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
            let name = |bytes: &[u8]| TableGroup::decode(&mut Fields::new(bytes)).expect("a group").name.into_string();
            let registers = parts
                .iter()
                .filter(|(kind, _)| *kind == PartKind::GroupRegistered)
                .map(|(_, bytes)| name(bytes))
                .collect();
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
