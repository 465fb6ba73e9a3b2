//! Starting a shard: newest valid state file, journal entries behind it applied again, leftovers removed.
//!
//! Whatever a segment holds behind its recorded end is ignored and written again from the journal. A damaged state file
//! costs a longer replay; none at all, and the shard refuses to start: a position is never read as 0. A damaged journal
//! leaves the shard readable up to the damage, and refuses writes.

use super::examine::{Examined, examine};
use super::init::{Layout, journal_path, shard_directory};
use super::space::segment_header;
use super::{Fault, Member, Settings, Shard, State, owner};
use crate::group::Group;
use crate::group::table::TableGroup;
use crate::io::clock::Clock;
use crate::io::file::{JournalFile, SegmentFile};
use crate::io::helper::Helper;
use crate::limits::ENTRY_BYTES_MAX;
use crate::log::entry::{EntryBuilder, EntryKind, EntryPlace, Owner};
use crate::log::journal::{JournalHead, Ring};
use crate::log::recovery::End;
use crate::log::segment::{self, SEGMENT_START};
use crate::stats::ShardStats;
use foldhash::{HashMap, HashMapExt};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub use super::examine::RecoverFault;

/// What a start found and did.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The shard.
    pub shard: u16,
    /// Groups.
    pub groups: usize,
    /// Journal entries applied again.
    pub entries: u64,
    /// How the journal ended.
    pub end: End,
    /// What else should be told.
    pub warnings: Vec<String>,
    /// How long it took.
    pub took: Duration,
    /// Whether the journal bypasses the page cache.
    pub direct: bool,
}

/// Starts a shard. Blocks: before the loop runs.
///
/// # Errors
/// Why it cannot start.
pub fn recover(
    layout: &Layout,
    number: u16,
    settings: Settings,
    table: Option<&[TableGroup]>,
    cpus: &rustix::thread::CpuSet,
    stats: ShardStats,
) -> Result<(Rc<Shard>, Recovered), RecoverFault> {
    let started = Instant::now();
    let directory = shard_directory(&layout.path, number);
    let io = |cause: io::Error| RecoverFault::Io { path: directory.clone(), cause };
    let examined = examine(layout, number, table, settings.tail_memory)?;
    let Examined { mut groups, table, tokens, outbox, checkpoint, walked, mut warnings, unnamed, files, dirty, .. } =
        examined;
    // What a killed broker wrote was read, and may still stand in the disk's cache alone: nothing is told of it before.
    files.iter().try_for_each(JournalFile::sync).map_err(io)?;
    let mut head = walked.head;
    let mut fault = None;
    match walked.end {
        End::Clean => {}
        End::Torn => {
            tracing::warn!(
                shard = number,
                index = head.next_index,
                "a torn, never answered end of the journal was cut"
            );
            link(&mut head, owner(layout.identity, number), layout.ring, &files).map_err(io)?;
        }
        End::Damaged { index, address } => {
            let (slot, position) = layout.ring.place(address);
            let file = journal_path(&directory, slot as u64);
            let detail = format!("entry {index} is missing or damaged in {} at byte {position}", file.display());
            fault = Some(read_only(number, detail, &mut warnings));
        }
    }
    if !unnamed.is_empty() && fault.is_none() {
        let numbers: Vec<u32> = unnamed.iter().map(|group| group.number).collect();
        let detail = format!("groups {numbers:?} live in shard {number}, and the table of shard 0 has lost them");
        fault = Some(read_only(number, detail, &mut warnings));
    }
    warnings.extend(tidy_segments(layout, number, &directory, &mut groups, fault.is_none()).map_err(io)?);
    let recovered = Recovered {
        shard: number,
        groups: groups.len(),
        entries: walked.entries,
        end: walked.end,
        warnings,
        took: started.elapsed(),
        direct: files.iter().all(|file| file.direct),
    };
    let durable_index = head.next_index - 1;
    let shard = Shard {
        number,
        files,
        mover: Helper::start(format!("mover-{number}"), *cpus).map_err(io)?,
        opener: Helper::start(format!("opener-{number}"), *cpus).map_err(io)?,
        clock: Clock::default(),
        stats,
        state: RefCell::new(State {
            tail_bytes: groups.values().map(|group| group.log.tail_bytes()).sum(),
            groups: groups.into_iter().map(|(number, group)| (number, Member::new(group))).collect(),
            table: (number == 0).then_some(table),
            tokens,
            outbox,
            durable_index,
            // No entry says yet that the last one, which readers see from now on, must be there.
            covered_index: durable_index - u64::from(walked.end == End::Clean && walked.entries > 0),
            fault,
            dirty,
            ..State::idle(head, checkpoint, settings.segment_files)
        }),
        settings,
        commit_turn: Notify::new(),
        tails_turn: Notify::new(),
        space_turn: Notify::new(),
        room: Notify::new(),
        lease_turn: Notify::new(),
        audit_turn: Notify::new(),
        indexing: tokio::sync::Mutex::default(),
        entry_bytes_max: (layout.ring.entry_bytes_max() as usize).min(ENTRY_BYTES_MAX),
    };
    Ok((Rc::new(shard), recovered))
}

/// Tells why the shard takes no writes.
fn read_only(number: u16, detail: String, warnings: &mut Vec<String>) -> Fault {
    warnings.push(format!("shard {number} is read-only: {detail}"));
    Fault::Damaged(Arc::from(detail))
}

/// Writes the entry that begins a fresh file behind a cut.
fn link(head: &mut JournalHead, owner: Owner, ring: Ring, files: &[JournalFile]) -> io::Result<()> {
    head.skip_file();
    let builder = EntryBuilder::new(crate::io::buffer::AlignedBuffer::default());
    let address =
        head.place_for_link(builder.disk_bytes()).ok_or_else(|| io::Error::other("the journal ring is full"))?;
    let place = EntryPlace {
        kind: EntryKind::Link,
        owner,
        index: head.next_index,
        address,
        durable_upto: head.next_index - 1,
        previous_crc: head.previous_crc,
    };
    let (buffer, crc) = builder.finish(&place);
    let (slot, position) = ring.place(address);
    files[slot].write_blocking(&buffer, position)?;
    head.advance(address, buffer.len() as u64, crc);
    Ok(())
}

/// Looks at every segment's file once: what is missing or short is told, what nobody knows is removed, and what was
/// allocated ahead is used. Nothing is removed or made while the shard is not `sound`: a repair may need it.
fn tidy_segments(
    layout: &Layout,
    shard: u16,
    directory: &Path,
    groups: &mut HashMap<u32, Group>,
    sound: bool,
) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let segments = directory.join("segments");
    let mut lengths = HashMap::new();
    for entry in std::fs::read_dir(&segments)? {
        let entry = entry?;
        let Some(key) = entry.file_name().to_str().and_then(segment::parse_name) else { continue };
        lengths.insert(key, entry.metadata()?.len());
    }
    for (&number, group) in groups.iter_mut() {
        let next = group.log.next_sequence();
        for found in group.log.segments() {
            let length = lengths.get(&(number, found.sequence)).copied();
            let (_, flushed_end) = group.log.segment_of(found.first_offset).unwrap_or((found, found.end));
            if !group.closed && flushed_end > SEGMENT_START && length.is_none_or(|length| length < flushed_end) {
                warnings.push(damaged_segment(number, found, length));
            }
            // A file that nothing will be written to is left as it is, so that the next start tells of it again.
            if sound && flushed_end < found.end && length.is_none_or(|length| length < found.end) {
                // Frames that the journal still holds go here; their room is made sure of again.
                let file = SegmentFile::create(&segment::path(&segments, number, found.sequence))?;
                file.allocate(found.end)?;
                file.write(&[segment_header(layout.identity, shard, number, found.sequence).encode()], 0)?;
            }
        }
        let active = group.log.active().map(|active| (active.sequence, active.end));
        for (sequence, least) in active.into_iter().chain([(next, 0)]) {
            if let Some(length) = lengths.remove(&(number, sequence)) {
                group.log.allocated(sequence, length.max(least));
            }
        }
        group.log.segments().iter().for_each(|found| {
            lengths.remove(&(number, found.sequence));
        });
    }
    for key in lengths.keys().filter(|_| sound) {
        std::fs::remove_file(segment::path(&segments, key.0, key.1))?;
    }
    Ok(warnings)
}

fn damaged_segment(group: u32, found: &segment::Segment, length: Option<u64>) -> String {
    let state = length.map_or("missing".to_owned(), |length| format!("{length} bytes long instead of {}", found.end));
    format!(
        "group {group}: offsets {}..{} are damaged: segment {group}-{} is {state}",
        found.first_offset, found.next_offset, found.sequence
    )
}
