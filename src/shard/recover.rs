//! Starting a shard: newest valid state file, journal entries behind it applied again, leftovers removed.
//!
//! Whatever a segment holds behind its recorded end is ignored and written again from the journal. A damaged state file
//! costs a longer replay; none at all, and the shard refuses to start: a position is never read as 0. A damaged journal
//! leaves the shard readable up to the damage, and refuses writes.

use super::init::{Layout, journal_path, shard_directory};
use super::outbox::Outbox;
use super::replay::{Dirty, Replay};
use super::space::segment_header;
use super::{Fault, Member, Settings, Shard, State, owner};
use crate::auth::token::{Token, Tokens};
use crate::group::Group;
use crate::group::consumer::{self, Consumer};
use crate::group::record;
use crate::group::table::{Removed, Table, TableGroup};
use crate::io::clock::Clock;
use crate::io::file::{JournalFile, SegmentFile};
use crate::io::helper::Helper;
use crate::limits::{BLOCK_BYTES, ENTRY_BYTES_MAX};
use crate::log::entry::{EntryBuilder, EntryKind, EntryPlace, Owner};
use crate::log::file_header::{FileHeader, FileKind};
use crate::log::journal::{JournalHead, Ring};
use crate::log::recovery::{self, End, JournalFault};
use crate::log::segment::{self, SEGMENT_START};
use crate::log::state::{self as state_file, Checkpoint, RecordKind, State as StateFile};
use crate::log::wire::{Newer, Unreadable};
use crate::stats::ShardStats;
use foldhash::{HashMap, HashMapExt};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::Notify;

/// Why a shard cannot be started.
#[derive(Debug, Error)]
pub enum RecoverFault {
    /// The operating system refused.
    #[error("{path}: {cause}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file that belongs to somebody else, or is damaged.
    #[error("{path}: {cause}")]
    BadFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A newer version wrote what counts here.
    #[error("{path} holds {found}")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        found: Newer,
    },
    /// No generation of the state file can be read.
    #[error(
        "position_damaged: neither {directory}/state.a ({first}) nor state.b ({second}) can be used: \
         restore the directory from a backup"
    )]
    NoState {
        /// The shard's directory.
        directory: PathBuf,
        /// What is wrong with the one.
        first: String,
        /// What is wrong with the other.
        second: String,
    },
    /// The journal cannot be replayed.
    #[error("{directory}: {cause}")]
    Journal {
        /// The shard's directory.
        directory: PathBuf,
        /// Why.
        cause: JournalFault,
    },
}

impl RecoverFault {
    /// A file that cannot be read.
    fn file(path: PathBuf, fault: Unreadable) -> Self {
        match fault {
            Unreadable::Newer(found) => Self::Newer { path, found },
            Unreadable::Malformed(cause) => Self::BadFile { path, cause: cause.to_string() },
        }
    }

    /// A journal that cannot be replayed.
    fn journal(layout: &Layout, directory: &Path, cause: JournalFault) -> Self {
        match cause {
            JournalFault::Newer { address, found } => {
                let (slot, _) = layout.ring.place(address);
                Self::Newer { path: journal_path(directory, slot as u64), found }
            }
            cause => Self::Journal { directory: directory.to_owned(), cause },
        }
    }
}

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

/// What a shard's files say, before anything is changed.
pub(super) struct Examined {
    pub(super) groups: HashMap<u32, Group>,
    pub(super) table: Table,
    tokens: Tokens,
    outbox: Outbox,
    pub(super) checkpoint: Checkpoint,
    pub(super) walked: recovery::Walked,
    pub(super) warnings: Vec<String>,
    /// Groups that live here and that shard 0's table does not have.
    pub(super) unnamed: Vec<u32>,
    files: Vec<JournalFile>,
    dirty: Dirty,
}

/// What one shard was before the journal is replayed.
struct Before {
    checkpoint: Checkpoint,
    needed_from: u64,
    groups: HashMap<u32, Group>,
    table: Table,
    tokens: Tokens,
    outbox: Outbox,
    warnings: Vec<String>,
}

/// Reads a shard: state file, then the journal behind it. `table` holds the groups of the table that live in it; shard 0
/// brings its own. Replayed frames stay in memory up to `tail_memory` bytes and go to their segments beyond.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn examine(
    layout: &Layout,
    number: u16,
    table: Option<&[TableGroup]>,
    tail_memory: usize,
) -> Result<Examined, RecoverFault> {
    let directory = shard_directory(&layout.path, number);
    let Before { checkpoint, needed_from, groups, table: known, tokens, outbox, mut warnings } =
        load(layout, number, &directory)?;
    let files = open_journal(layout, number, &directory)?;
    let mut replay = Replay {
        groups,
        table: known,
        tokens,
        outbox,
        segments: directory.join("segments"),
        tail_bytes: 0,
        tail_memory,
        dirty: Dirty::new(),
        unknown: BTreeSet::new(),
        holed: BTreeSet::new(),
    };
    let own: Vec<TableGroup> = replay.table.groups().filter(|group| group.shard == number).cloned().collect();
    table.unwrap_or(&own).iter().for_each(|group| replay.open(group));
    let mut read = |slot: usize, position: u64, buffer: &mut _| files[slot].read(buffer, position);
    let walked = recovery::walk(
        layout.ring,
        owner(layout.identity, number),
        &checkpoint,
        needed_from,
        &mut read,
        |header, parts| replay.apply(number, header, parts),
    );
    let walked = walked.map_err(|cause| RecoverFault::journal(layout, &directory, cause))?;
    let Replay { mut groups, table: own_table, tokens, outbox, dirty, unknown, holed, .. } = replay;
    // A group that is out of the table was removed; only its files may be left. It was closed here before: one that was
    // not is a group whose registration the table has lost.
    let named: HashSet<u32> = match table {
        Some(groups) => groups.iter().map(|group| group.number).collect(),
        None => own_table.groups().map(|group| group.number).collect(),
    };
    let lost = groups.values().filter(|group| !group.closed && !named.contains(&group.number));
    let unnamed: Vec<u32> = lost.map(|group| group.number).chain(unknown).collect();
    groups.retain(|number, group| named.contains(number) || !group.closed);
    for group in groups.values_mut() {
        group.recovered().map_err(|cause| RecoverFault::BadFile { path: directory.clone(), cause })?;
    }
    warnings.extend(holed.into_iter().map(|(group, sequence)| {
        format!("group {group}: segment {group}-{sequence} was missing or short; what it held is damaged")
    }));
    Ok(Examined { groups, table: own_table, tokens, outbox, checkpoint, walked, warnings, unnamed, files, dirty })
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
    let Examined { mut groups, table, tokens, outbox, checkpoint, walked, mut warnings, unnamed, files, dirty } =
        examine(layout, number, table, settings.tail_memory)?;
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
        let detail = format!("groups {unnamed:?} live in shard {number}, and the table of shard 0 has lost them");
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
        entry_bytes_max: (layout.ring.entry_bytes_max() as usize).min(ENTRY_BYTES_MAX),
    };
    Ok((Rc::new(shard), recovered))
}

/// Tells why the shard takes no writes.
fn read_only(number: u16, detail: String, warnings: &mut Vec<String>) -> Fault {
    warnings.push(format!("shard {number} is read-only: {detail}"));
    Fault::Damaged(Arc::from(detail))
}

/// Reads both generations and takes the newest valid one.
fn load(data: &Layout, number: u16, directory: &Path) -> Result<Before, RecoverFault> {
    let read = |generation: u64| -> Result<Result<Vec<u8>, String>, RecoverFault> {
        let path = directory.join(state_file::file_name(generation));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        Ok(match StateFile::decode(&bytes) {
            // It may say more than the other generation: that one alone would be an older truth.
            Err(Unreadable::Newer(found)) => return Err(RecoverFault::Newer { path, found }),
            Err(fault) => Err(fault.to_string()),
            Ok(state) if (state.header.identity, state.header.shard) != (data.identity, number) => {
                Err("it belongs to another broker or shard".into())
            }
            Ok(_) => Ok(bytes),
        })
    };
    let (first, second) = (read(0)?, read(1)?);
    let mut warnings = Vec::new();
    let decode = |bytes: &Vec<u8>| StateFile::decode(bytes).ok().map(|state| state.checkpoint);
    let mut valid: Vec<(Checkpoint, &Vec<u8>)> =
        [&first, &second].into_iter().flatten().filter_map(|bytes| Some((decode(bytes)?, bytes))).collect();
    valid.sort_by_key(|(checkpoint, _)| checkpoint.generation);
    let (Some((checkpoint, bytes)), oldest) = (valid.last().copied(), valid.first().copied()) else {
        let fault = |read: Result<Vec<u8>, String>| read.err().unwrap_or_default();
        return Err(RecoverFault::NoState {
            directory: directory.to_owned(),
            first: fault(first),
            second: fault(second),
        });
    };
    if valid.len() == 1 && checkpoint.generation > 1 {
        warnings.push(format!(
            "shard {number}: one generation of its state file is damaged; generation {} is used, more of the journal is replayed",
            checkpoint.generation
        ));
    }
    let mut groups: HashMap<u32, Group> = HashMap::new();
    let mut consumers: Vec<(u32, Box<str>, Consumer)> = Vec::new();
    let (mut table, mut tokens, mut outbox) = (Table::new(data.shards as usize), Tokens::default(), Outbox::default());
    let bad = |fault| RecoverFault::file(directory.join(state_file::file_name(checkpoint.generation)), fault);
    let state = StateFile::decode(bytes).map_err(bad)?;
    for item in state.records() {
        let (kind, mut fields) = item.map_err(bad)?;
        let read = match kind {
            RecordKind::Group => record::decode(&mut fields).map(|record| {
                groups.insert(record.number, Group::restore(record));
            }),
            RecordKind::TableGroup => TableGroup::decode(&mut fields).map(|group| table.insert(group)),
            RecordKind::TableRemoved => Removed::decode(&mut fields).map(|removed| table.remove(removed)),
            RecordKind::Consumer => consumer::decode(&mut fields).map(|(group, name, consumer)| {
                consumers.push((group, name.into(), consumer));
            }),
            RecordKind::Token => Token::decode(&mut fields).map(|token| {
                tokens.insert(token.id, Arc::new(token));
            }),
            RecordKind::Audit => Outbox::decode(&mut fields).map(|found| outbox = found),
        };
        read.map_err(|fault| bad(fault.into()))?;
    }
    // Each was noted when it first changed, so in any order with its group.
    for (group, name, consumer) in consumers {
        if let Some(group) = groups.get_mut(&group) {
            group.consumers.insert(name, consumer);
        }
    }
    let needed_from = oldest.map_or(checkpoint.next_address, |(oldest, _)| oldest.next_address);
    Ok(Before { checkpoint, needed_from, groups, table, tokens, outbox, warnings })
}

fn open_journal(data: &Layout, number: u16, directory: &Path) -> Result<Vec<JournalFile>, RecoverFault> {
    (0..data.ring.files)
        .map(|slot| {
            let path = journal_path(directory, slot);
            let file = JournalFile::open(&path).map_err(|cause| RecoverFault::Io { path: path.clone(), cause })?;
            let mut block = crate::io::buffer::AlignedBuffer::zeroed(BLOCK_BYTES);
            file.read(&mut block, 0).map_err(|cause| RecoverFault::Io { path: path.clone(), cause })?;
            let expected = FileHeader {
                kind: FileKind::Journal,
                identity: data.identity,
                shard: number,
                first: slot,
                second: data.ring.file_bytes,
            };
            match FileHeader::decode(&block) {
                Ok(header) if header == expected => Ok(file),
                Ok(_) => Err(RecoverFault::BadFile {
                    path,
                    cause: "it belongs to another broker, shard or place in the ring".into(),
                }),
                Err(fault) => Err(RecoverFault::file(path, fault)),
            }
        })
        .collect()
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
