//! A shard: one journal and the groups that live in it, served by one core. Here group, log and io are joined.
//!
//! ```text
//! append ─▶ open entry ─(seal)─▶ journal write ─▶ durable: visible, readers woken, answered       commit.rs
//!              ▲ room in segments: space.rs                └─▶ tails move to segments              tails.rs
//!                                                              ├─▶ checkpoint, journal reused      checkpoint.rs
//!                                                              └─▶ segments nobody needs go        retention.rs
//! places, always: durable_index <= sealed_index < open_index
//! ```
//!
//! Everything of a shard happens on its core; other cores ask through `peers.rs`. What blocks goes to two helper threads,
//! one that moves tails and one that opens and allocates, so that room for a segment never waits behind a flush.

mod append;
pub mod audit;
pub mod blocks;
mod checkpoint;
mod commit;
pub mod consumers;
pub mod cursor;
pub mod directory;
mod examine;
mod frames;
pub mod groups;
pub mod init;
mod leases;
mod outbox;
pub mod peers;
pub mod read;
pub mod recover;
pub mod repair;
mod replay;
mod retention;
mod segments;
mod space;
pub mod stretch;
pub mod survey;
mod tails;
pub mod tokens;
pub mod verify;

use crate::auth::token::Tokens;
use crate::group::table::Table;
use crate::group::{Group, Refusal};
use crate::io::buffer::AlignedBuffer;
use crate::io::clock::Clock;
use crate::io::file::{JournalFile, SegmentFile};
use crate::io::helper::Helper;
use crate::limits::{AUDIT_PENDING_BYTES_MAX, BLOCK_BYTES};
use crate::log::entry::{ENTRY_HEADER_BYTES, EntryKind, Owner, PART_HEADER_BYTES, PartKind};
use crate::log::file_header::Identity;
use crate::log::group_log::Need;
use crate::log::index::SegmentIndex;
use crate::log::journal::JournalHead;
use crate::log::state::Checkpoint;
use crate::stats::ShardStats;
pub use append::Accepted;
use foldhash::HashMap;
use hashlink::LruCache;
use outbox::Outbox;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Mutex, Notify, oneshot};

/// Why a shard did not do what it was asked. What "nothing was done" means is part of every answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The group is not in this shard (any more).
    #[error("there is no such group")]
    NoGroup,
    /// The group decided against it, resting on journal entry `after`.
    #[error("{refusal}")]
    Refused {
        /// The decision.
        refusal: Refusal,
        /// It may be told once this entry is durable.
        after: u64,
    },
    /// The events do not fit an entry of this shard's journal.
    #[error("the request is larger than an entry of the journal may be ({most} bytes)")]
    TooLarge {
        /// Bytes that fit.
        most: u64,
    },
    /// It was on its way to the disk when the disk failed: nobody knows.
    #[error("the disk failed while the request was being written; whether it was stored is not known")]
    Unknown,
    /// The disk failed before; nothing was done.
    #[error("the shard stopped after a disk failure: {0}")]
    Stopped(Arc<str>),
    /// The journal is damaged; nothing was done.
    #[error("the journal is damaged: {0}")]
    Damaged(Arc<str>),
    /// There was no room in time; nothing was done.
    #[error("the disk does not keep up")]
    Overloaded,
    /// There are as many as there may be; nothing was done.
    #[error("there are as many as there may be")]
    TooMany,
    /// The disk is full but for its reserve; nothing was done.
    #[error("the disk is full up to its reserve")]
    DiskFull,
    /// Before the first event that is still there.
    #[error("the first event that is still there is {earliest}")]
    Gone {
        /// That event.
        earliest: u64,
    },
    /// In a gap: the events were lost, and a repair went on behind them.
    #[error("offsets {from}..{to} were lost: a repair went on behind them")]
    Lost {
        /// First lost offset.
        from: u64,
        /// Offset behind the last lost one.
        to: u64,
    },
    /// Behind the tail.
    #[error("the next event to be written is {tail}")]
    BehindTail {
        /// That event.
        tail: u64,
    },
    /// What was to be read is damaged on disk.
    #[error("offsets from {offset} on are damaged: {detail}")]
    Corrupt {
        /// First offset that cannot be read.
        offset: u64,
        /// Where and what.
        detail: Arc<str>,
    },
}

/// What a shard is started with.
#[derive(Clone)]
pub struct Settings {
    /// Directory of the shard.
    pub directory: PathBuf,
    /// Whose files these are.
    pub identity: Identity,
    /// Bytes of frames that may wait in memory for their segments.
    pub tail_memory: usize,
    /// Free disk space that is left alone.
    pub reserve: u64,
    /// Segments kept open.
    pub segment_files: usize,
    /// How long a write may wait for room.
    pub waiting: Duration,
    /// After this much quiet an entry is written that covers the last one.
    pub idle: Duration,
}

/// Who waits for a consumer, by its name.
type Waits = HashMap<Box<str>, HashMap<u64, Waker>>;

/// One group and who waits for it.
struct Member {
    group: Group,
    /// Readers at the tail.
    watchers: HashMap<u64, Waker>,
    /// Who waits for a consumer, by its name.
    waits: Waits,
    /// Writers that wait for room in a segment.
    space_waiters: Vec<oneshot::Sender<Result<(), Fault>>>,
    space_wanted: bool,
    /// There while somebody waits to write: whoever comes later waits behind it.
    gate: Option<Rc<Mutex<()>>>,
    flush_queued: bool,
    /// The checkpoint that already holds this group as it was then.
    snapshot: u64,
}

/// The commit that gathers.
#[derive(Default)]
struct Open {
    /// Groups with open frames, in the order they came.
    groups: Vec<u32>,
    /// Other changes.
    parts: Vec<(PartKind, Vec<u8>)>,
    /// What the entry will take, padding aside.
    bytes: usize,
}

/// A commit on its way to the disk.
struct InFlight {
    index: u64,
    kind: EntryKind,
    /// Highest index that was durable when it was written.
    covers: u64,
    /// What becomes visible with it: group and next offset.
    reveals: Vec<(u32, u64)>,
    written: bool,
    started: Instant,
}

/// A segment that was opened, with its index once it was read.
struct OpenSegment {
    file: SegmentFile,
    index: Option<Rc<SegmentIndex>>,
}

struct State {
    groups: HashMap<u32, Member>,
    table: Option<Table>,
    /// Shard 0's.
    tokens: Tokens,
    /// What is to be told in the audit log.
    outbox: Outbox,
    open: Open,
    in_flight: VecDeque<InFlight>,
    head: JournalHead,
    durable_index: u64,
    /// Highest index that a durable entry says is durable.
    covered_index: u64,
    fault: Option<Fault>,
    /// Who waits for an index to become durable.
    waiters: Vec<(u64, Waker)>,
    /// Consumers of all groups.
    consumers: usize,
    leases: leases::Leases,
    /// Counts the readers that ever waited at a tail.
    watches: u64,
    free_buffers: Vec<AlignedBuffer>,
    tail_bytes: usize,
    /// What the mover writes from.
    move_buffer: AlignedBuffer,
    flush_queue: VecDeque<u32>,
    space_queue: VecDeque<(u32, Need)>,
    segments: LruCache<(u32, u32), OpenSegment>,
    /// Segments written to since they were last synced, oldest first.
    dirty: hashlink::LinkedHashMap<(u32, u32), SegmentFile>,
    snapshot: checkpoint::Snapshot,
    /// The state file in force.
    checkpoint: Checkpoint,
    /// Whether the shard is to end once everything is written.
    closing: bool,
}

/// One shard, on its core.
pub struct Shard {
    /// Its number.
    pub number: u16,
    settings: Settings,
    files: Vec<JournalFile>,
    mover: Helper,
    opener: Helper,
    clock: Clock,
    stats: ShardStats,
    state: RefCell<State>,
    /// Something to commit, or a commit completed.
    commit_turn: Notify,
    /// Something to move to segments, or a checkpoint is due.
    tails_turn: Notify,
    /// Something to allocate.
    space_turn: Notify,
    /// Room in the entry, the ring or the tail memory.
    room: Notify,
    /// A first lease to look after.
    lease_turn: Notify,
    /// Audit events became durable.
    audit_turn: Notify,
    /// Held by whoever reads a segment for its index that nobody waits for: one after the other.
    indexing: Mutex<()>,
    entry_bytes_max: usize,
}

/// Whose entries a shard's journal holds.
fn owner(identity: Identity, shard: u16) -> Owner {
    Owner { shard, cluster: identity.cluster }
}

impl State {
    /// The state of a shard without groups, on whose journal nothing is under way.
    fn idle(head: JournalHead, checkpoint: Checkpoint, segment_files: usize) -> Self {
        Self {
            groups: HashMap::default(),
            table: None,
            tokens: Tokens::default(),
            outbox: Outbox::default(),
            open: Open::default(),
            in_flight: VecDeque::new(),
            head,
            durable_index: 0,
            covered_index: 0,
            fault: None,
            waiters: Vec::new(),
            consumers: 0,
            leases: leases::Leases::new(),
            watches: 0,
            free_buffers: Vec::new(),
            tail_bytes: 0,
            move_buffer: AlignedBuffer::default(),
            flush_queue: VecDeque::new(),
            space_queue: VecDeque::new(),
            segments: LruCache::new(segment_files),
            dirty: hashlink::LinkedHashMap::new(),
            snapshot: checkpoint::Snapshot::default(),
            checkpoint,
            closing: false,
        }
    }

    /// Index of the entry that gathers.
    fn open_index(&self) -> u64 {
        self.head.next_index
    }

    /// Index of the entry that holds the newest change, sealed or not.
    fn newest_change(&self) -> u64 {
        self.open_index() - u64::from(self.open.is_empty())
    }

    fn writable(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn member(&self, number: u32) -> Result<&Member, Fault> {
        self.groups.get(&number).ok_or(Fault::NoGroup)
    }

    /// A group that is about to change. A checkpoint under way first notes what it was.
    fn member_mut(&mut self, number: u32) -> Result<&mut Member, Fault> {
        let member = self.groups.get_mut(&number).ok_or(Fault::NoGroup)?;
        self.snapshot.note(member);
        Ok(member)
    }

    /// Whether `bytes` more fit the entry that gathers, and that entry the ring.
    fn has_room(&self, bytes: usize, entry_bytes_max: usize) -> bool {
        let entry = ENTRY_HEADER_BYTES + self.open.bytes + bytes;
        entry <= entry_bytes_max && self.head.place_for(entry.next_multiple_of(BLOCK_BYTES) as u64).is_some()
    }

    /// Whether a change of so many bytes may be taken now, together with its audit event.
    fn takes_change(&self, bytes: usize, audit: Option<&[u8]>, entry_bytes_max: usize) -> Result<(), Fault> {
        self.writable()?;
        let audit_bytes = audit.map_or(0, <[u8]>::len);
        let told = self.outbox.waiting_bytes() + audit_bytes <= AUDIT_PENDING_BYTES_MAX;
        // Headers of two parts, and the number of the event.
        match told && self.has_room(bytes + audit_bytes + 3 * PART_HEADER_BYTES, entry_bytes_max) {
            true => Ok(()),
            false => Err(Fault::Overloaded),
        }
    }

    /// Adds a change that is no event to the entry that gathers. Returns the entry's index.
    fn add_part(&mut self, kind: PartKind, bytes: Vec<u8>) -> u64 {
        self.open.add_part(kind, bytes);
        self.open_index()
    }
}

impl Open {
    fn add_part(&mut self, kind: PartKind, bytes: Vec<u8>) {
        self.bytes += PART_HEADER_BYTES + bytes.len();
        self.parts.push((kind, bytes));
    }

    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.parts.is_empty()
    }
}

impl Member {
    fn new(group: Group) -> Self {
        Self {
            group,
            watchers: HashMap::default(),
            waits: Waits::default(),
            space_waiters: Vec::new(),
            space_wanted: false,
            gate: None,
            flush_queued: false,
            snapshot: 0,
        }
    }
}

impl Shard {
    /// Starts what goes on behind the answers: commits, allocation, tails and checkpoints.
    pub fn start(self: &Rc<Self>) {
        tokio_uring::spawn(Rc::clone(self).commit());
        tokio_uring::spawn(Rc::clone(self).allocate());
        tokio_uring::spawn(Rc::clone(self).move_tails());
        self.recover_leases();
        tokio_uring::spawn(Rc::clone(self).end_leases());
        // What was replayed would be replayed again by the next start.
        self.want_checkpoint();
    }

    /// Why writes are refused, if they are.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.state.borrow().fault.clone()
    }

    /// Whether the wall clock jumped and is not followed (yet).
    #[must_use]
    pub fn clock_suspect(&self) -> bool {
        self.clock.suspect()
    }

    /// What the shard is doing, in numbers.
    #[must_use]
    pub fn status(&self) -> ShardStatus {
        let state = self.state.borrow();
        ShardStatus {
            shard: self.number,
            groups: state.groups.len(),
            durable_index: state.durable_index,
            journal_bytes: state.head.ring().bytes(),
            journal_used_bytes: state.head.used_bytes(),
            tail_bytes: state.tail_bytes,
            checkpoint_index: state.checkpoint.index,
            audit_pending: state.outbox.len(),
            fault: state.fault.as_ref().map(ToString::to_string),
            clock_suspect: self.clock.suspect(),
        }
    }
}

/// A shard in numbers, for `/v1/status`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ShardStatus {
    /// Its number.
    pub shard: u16,
    /// Groups in it.
    pub groups: usize,
    /// Newest durable entry.
    pub durable_index: u64,
    /// Size of the journal ring.
    pub journal_bytes: u64,
    /// What of it still waits for a checkpoint.
    pub journal_used_bytes: u64,
    /// Bytes of frames that wait for their segments.
    pub tail_bytes: usize,
    /// Newest entry that the state file in force contains.
    pub checkpoint_index: u64,
    /// Changes that are not told in the audit log yet.
    pub audit_pending: usize,
    /// Why writes are refused.
    pub fault: Option<String>,
    /// Whether the wall clock jumped and is not followed.
    pub clock_suspect: bool,
}

#[cfg(test)]
mod tests;
