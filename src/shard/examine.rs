//! What a shard's files say: state file, then the journal behind it. Nothing is changed, but that replayed frames may go to
//! their segments where there are more of them than memory may hold.

use super::init::{Layout, journal_path, shard_directory};
use super::outbox::Outbox;
use super::owner;
use super::replay::{Dirty, Replay};
use crate::auth::token::{Token, Tokens};
use crate::group::Group;
use crate::group::config::GroupConfig;
use crate::group::consumer::{self, Consumer};
use crate::group::record;
use crate::group::table::{Removed, Table, TableGroup};
use crate::io::file::JournalFile;
use crate::limits::BLOCK_BYTES;
use crate::log::file_header::{FileHeader, FileKind};
use crate::log::recovery::{self, JournalFault, Walked};
use crate::log::state::{self as state_file, Checkpoint, RecordKind, State as StateFile};
use crate::log::wire::{Newer, Unreadable};
use foldhash::{HashMap, HashMapExt};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

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

/// What a shard's files say, before anything is changed.
pub(super) struct Examined {
    pub(super) groups: HashMap<u32, Group>,
    pub(super) table: Table,
    pub(super) tokens: Tokens,
    pub(super) outbox: Outbox,
    pub(super) checkpoint: Checkpoint,
    pub(super) walked: Walked,
    pub(super) warnings: Vec<String>,
    /// Groups that live here and that shard 0's table does not have.
    pub(super) unnamed: Vec<Unnamed>,
    /// Groups of the table that neither state nor journal know.
    pub(super) untouched: Vec<u32>,
    /// Highest number of a group that anything here tells of.
    pub(super) last_number: u32,
    pub(super) files: Vec<JournalFile>,
    pub(super) dirty: Dirty,
}

/// A group whose registration shard 0's table has lost.
pub(super) struct Unnamed {
    pub(super) number: u32,
    pub(super) first_offset: u64,
    /// Its next offset, as far as it is known.
    pub(super) next_offset: u64,
    pub(super) config: GroupConfig,
}

/// A shard that is being read.
pub(super) struct Reading<'l> {
    layout: &'l Layout,
    pub(super) number: u16,
    pub(super) directory: PathBuf,
    checkpoint: Checkpoint,
    needed_from: u64,
    pub(super) files: Vec<JournalFile>,
    pub(super) replay: Replay,
    /// Numbers of the groups that the table has in this shard; shard 0 brings its own table.
    named: Option<HashSet<u32>>,
    /// Groups that the state file knew.
    in_state: HashSet<u32>,
    warnings: Vec<String>,
}

/// Reads a shard. `table` holds the groups of the table that live in it; shard 0 brings its own. Replayed frames stay in
/// memory up to `tail_memory` bytes and go to their segments beyond.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn examine(
    layout: &Layout,
    number: u16,
    table: Option<&[TableGroup]>,
    tail_memory: usize,
) -> Result<Examined, RecoverFault> {
    let mut reading = Reading::begin(layout, number, table, tail_memory)?;
    let files = reading.files.clone();
    let walked = reading.walk(&mut |slot, position, buffer| files[slot].read(buffer, position))?;
    reading.conclude(walked)
}

impl<'l> Reading<'l> {
    /// Reads the state file.
    pub(super) fn begin(
        layout: &'l Layout,
        number: u16,
        table: Option<&[TableGroup]>,
        tail_memory: usize,
    ) -> Result<Self, RecoverFault> {
        let directory = shard_directory(&layout.path, number);
        let Before { checkpoint, needed_from, groups, table: known, tokens, outbox, warnings } =
            load(layout, number, &directory)?;
        let files = open_journal(layout, number, &directory)?;
        let in_state = groups.keys().copied().collect();
        let mut replay = Replay {
            groups,
            table: known,
            tokens,
            outbox,
            segments: directory.join("segments"),
            tail_bytes: 0,
            tail_memory,
            dirty: Dirty::new(),
            unknown: BTreeMap::new(),
            holed: BTreeSet::new(),
        };
        let own: Vec<TableGroup> = replay.table.groups().filter(|group| group.shard == number).cloned().collect();
        table.unwrap_or(&own).iter().for_each(|group| replay.open(group));
        let named = table.map(|groups| groups.iter().map(|group| group.number).collect());
        Ok(Self { layout, number, directory, checkpoint, needed_from, files, replay, named, in_state, warnings })
    }

    /// First address that no entry of the journal can have yet.
    pub(super) fn behind(&self) -> u64 {
        self.layout.ring.end_of_lap(self.needed_from)
    }

    /// Applies the journal.
    pub(super) fn walk(&mut self, read: &mut recovery::Read<'_>) -> Result<Walked, RecoverFault> {
        let Self { layout, number, replay, .. } = self;
        let owner = owner(layout.identity, *number);
        let walked = recovery::walk(layout.ring, owner, &self.checkpoint, self.needed_from, read, |header, parts| {
            replay.apply(*number, header, parts)
        });
        walked.map_err(|cause| self.fault(cause))
    }

    /// What to tell of a journal that cannot be replayed.
    pub(super) fn fault(&self, cause: JournalFault) -> RecoverFault {
        RecoverFault::journal(self.layout, &self.directory, cause)
    }

    /// What all of it comes to.
    pub(super) fn conclude(self, walked: Walked) -> Result<Examined, RecoverFault> {
        let Self { directory, checkpoint, files, replay, named, in_state, mut warnings, .. } = self;
        let Replay { mut groups, table, tokens, outbox, dirty, unknown, holed, .. } = replay;
        let last_number = groups.keys().chain(unknown.keys()).copied().max().unwrap_or(0);
        let named = named.unwrap_or_else(|| table.groups().map(|group| group.number).collect());
        // A group that is out of the table was removed; only its files may be left. It was closed here before: one that
        // was not is a group whose registration the table has lost.
        let lost = groups.values().filter(|group| !group.closed && !named.contains(&group.number));
        let lost = lost.map(|group| Unnamed {
            number: group.number,
            first_offset: group.earliest,
            next_offset: group.next_offset(),
            config: group.config.clone(),
        });
        let unknown = unknown.into_iter().map(|(number, (first_offset, next_offset))| Unnamed {
            number,
            first_offset,
            next_offset,
            config: GroupConfig::default(),
        });
        let mut unnamed: Vec<Unnamed> = lost.chain(unknown).collect();
        unnamed.sort_by_key(|group| group.number);
        groups.retain(|number, group| named.contains(number) || !group.closed);
        let untouched = groups.values().filter(|group| group.last_entry == 0 && !in_state.contains(&group.number));
        let untouched = untouched.map(|group| group.number).collect();
        for group in groups.values_mut() {
            group.recovered().map_err(|cause| RecoverFault::BadFile { path: directory.clone(), cause })?;
        }
        warnings.extend(holed.into_iter().map(|(group, sequence)| {
            format!("group {group}: segment {group}-{sequence} was missing or short; what it held is damaged")
        }));
        Ok(Examined {
            groups,
            table,
            tokens,
            outbox,
            checkpoint,
            walked,
            warnings,
            unnamed,
            untouched,
            last_number,
            files,
            dirty,
        })
    }
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
