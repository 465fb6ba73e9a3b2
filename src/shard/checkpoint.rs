//! Checkpoints: a new state file, so that journal files can be used again.
//!
//! ```text
//! 1 at a seal: this entry's index is C            nothing is copied yet
//! 2 every group is noted as it was at C           the first change after C notes it; the rest is walked in slices
//! 3 frames up to C go to segments, segments are synced, then their directory
//! 4 the new generation is written over the older one and synced
//! 5 journal files wholly below the C of the generation before are free
//! ```
//!
//! So a damaged newest generation costs a longer replay, never an older truth. No commit waits for any of this: it runs
//! on the mover, between moves, one sync at a time.

use super::init::release_reserve;
use super::outbox::Outbox;
use super::tails::Move;
use super::{Fault, Member, Shard, State};
use crate::auth::token::Tokens;
use crate::group::consumer::{self, Consumer};
use crate::group::record;
use crate::group::table::Table;
use crate::io::file::{self, SegmentFile};
use crate::limits::PACE_BYTES;
use crate::log::file_header::Identity;
use crate::log::state::{self as state_file, Checkpoint, RecordKind, Records};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

/// A checkpoint starts when this part of the ring has been written since the last one.
const DUE_FRACTION: u64 = 4;
/// Groups noted at once, between two turns of the loop.
const GROUPS_PER_SLICE: usize = 64;
/// Consumers noted at once.
const CONSUMERS_PER_SLICE: usize = 256;
/// Segments synced in one turn of the mover.
const SYNCS_PER_TURN: usize = 8;
/// Bytes planned to be moved in one turn.
const MOVE_BYTES: usize = 4 << 20;

/// What the mover should do.
pub(super) enum CheckpointTurn {
    Work,
    Rest,
}

/// A checkpoint that notes what every group was at its index.
#[derive(Default)]
pub(super) struct Snapshot {
    /// Counts the checkpoints of this run; a member holds the number of the last one that noted it.
    epoch: u64,
    wanted: bool,
    taking: Option<Taking>,
}

struct Taking {
    checkpoint: Checkpoint,
    records: Records,
    table_noted: bool,
    tokens_noted: bool,
    outbox_noted: bool,
}

impl Snapshot {
    /// Notes a group as it is, if the checkpoint under way has not yet.
    pub(super) fn note(&mut self, member: &mut Member) {
        if member.snapshot < self.epoch {
            member.snapshot = self.epoch;
            if let Some(taking) = &mut self.taking {
                taking.records.add(RecordKind::Group, |out| record::encode(&member.group, out));
            }
        }
    }

    /// The same for a consumer of `group`.
    pub(super) fn note_consumer(&mut self, group: u32, name: &str, consumer: &mut Consumer) {
        if consumer.live.snapshot < self.epoch {
            consumer.live.snapshot = self.epoch;
            if let Some(taking) = &mut self.taking {
                taking.records.add(RecordKind::Consumer, |out| consumer::encode(group, name, consumer, out));
            }
        }
    }

    /// The same for the table of groups.
    pub(super) fn note_table(&mut self, table: &Table) {
        let Some(taking) = self.taking.as_mut().filter(|taking| !taking.table_noted) else { return };
        taking.table_noted = true;
        add_table(&mut taking.records, table);
    }

    /// The same for the tokens.
    pub(super) fn note_tokens(&mut self, tokens: &Tokens) {
        let Some(taking) = self.taking.as_mut().filter(|taking| !taking.tokens_noted) else { return };
        taking.tokens_noted = true;
        add_tokens(&mut taking.records, tokens);
    }

    /// The same for what waits to be told in the audit log.
    pub(super) fn note_outbox(&mut self, outbox: &Outbox) {
        let Some(taking) = self.taking.as_mut().filter(|taking| !taking.outbox_noted) else { return };
        taking.outbox_noted = true;
        add_outbox(&mut taking.records, outbox);
    }

    /// Number of the newest checkpoint: a group made now is not part of it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl State {
    /// The table, about to change.
    pub(super) fn table_mut(&mut self) -> Result<&mut Table, Fault> {
        let table = self.table.as_mut().ok_or(Fault::NoGroup)?;
        self.snapshot.note_table(table);
        Ok(table)
    }

    /// The tokens, about to change.
    pub(super) fn tokens_mut(&mut self) -> &mut Tokens {
        self.snapshot.note_tokens(&self.tokens);
        &mut self.tokens
    }

    /// What waits to be told in the audit log, about to change.
    pub(super) fn outbox_mut(&mut self) -> &mut Outbox {
        self.snapshot.note_outbox(&self.outbox);
        &mut self.outbox
    }

    /// Whether enough was written since the last checkpoint, or so much of the ring is held that another generation helps,
    /// also one of the same index: what is held then is held for the older generation alone.
    pub(super) fn checkpoint_due(&self) -> bool {
        let ring = self.head.ring().bytes();
        let written = self.head.next_address - self.checkpoint.next_address;
        written >= ring / DUE_FRACTION || self.head.used_bytes() >= ring / 2
    }
}

impl Shard {
    /// Called where nothing is open: between an entry's seal and the next request.
    pub(super) fn begin_snapshot_if_wanted(&self, state: &mut State) {
        if !std::mem::take(&mut state.snapshot.wanted) {
            return;
        }
        state.snapshot.epoch += 1;
        state.snapshot.taking = Some(Taking {
            checkpoint: Checkpoint {
                generation: state.checkpoint.generation + 1,
                index: state.head.next_index - 1,
                next_address: state.head.next_address,
                crc: state.head.previous_crc,
            },
            records: Records::default(),
            table_noted: false,
            tokens_noted: false,
            outbox_noted: false,
        });
        self.tails_turn.notify_one();
    }

    pub(super) fn checkpoint_turn(&self) -> CheckpointTurn {
        let state = &mut *self.state.borrow_mut();
        if state.snapshot.taking.is_some() {
            return CheckpointTurn::Work;
        }
        if state.checkpoint_due() {
            state.snapshot.wanted = true;
            if state.open.is_empty() {
                self.begin_snapshot_if_wanted(state);
                return CheckpointTurn::Work;
            }
        }
        CheckpointTurn::Rest
    }

    /// Asks for a checkpoint now, however little there is to do; nothing if there is nothing at all.
    pub fn want_checkpoint(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.head.next_index - 1 > state.checkpoint.index && state.snapshot.taking.is_none() {
            state.snapshot.wanted = true;
            if state.open.is_empty() {
                self.begin_snapshot_if_wanted(state);
            }
            self.tails_turn.notify_one();
        }
    }

    /// A last checkpoint before the end, so that the next start has nothing to replay; given up at `deadline`.
    pub async fn final_checkpoint(&self, deadline: Instant) {
        loop {
            let room = self.room.notified();
            // One that was under way before the end does not hold the end.
            self.want_checkpoint();
            {
                let state = self.state.borrow();
                let done = state.snapshot.taking.is_none() && !state.snapshot.wanted;
                if done && state.checkpoint.index + 1 >= state.head.next_index || state.fault.is_some() {
                    return;
                }
            }
            if tokio::time::timeout_at(deadline.into(), room).await.is_err() {
                return;
            }
        }
    }

    /// Carries out the checkpoint that has begun.
    pub(super) async fn checkpoint_step(self: &Rc<Self>) {
        let started = Instant::now();
        self.note_groups().await;
        let Some(upto) = self.state.borrow().snapshot.taking.as_ref().map(|taking| taking.checkpoint.index) else {
            return;
        };
        if self.durable(upto).await.is_err() {
            return;
        }
        self.move_up_to(upto).await;
        if self.sync_segments().await.is_err() || self.fault().is_some() {
            return;
        }
        let Some(taking) = self.state.borrow_mut().snapshot.taking.take() else { return };
        let checkpoint = taking.checkpoint;
        let (directory, identity, number) = (self.settings.directory.clone(), self.settings.identity, self.number);
        // Many consumers are many megabytes: their checksum, too, is the mover's work.
        let written = self.mover.run(move || {
            let bytes = taking.records.finish(&checkpoint, identity, number);
            write_state(&directory, checkpoint.generation, &bytes)
        });
        let written = written.await;
        let state = &mut *self.state.borrow_mut();
        if let Err(error) = written {
            let cause = format!("the state file of shard {} could not be written: {error}", self.number);
            return self.fail(state, &cause);
        }
        let before = std::mem::replace(&mut state.checkpoint, checkpoint);
        state.head.release(before.next_address);
        self.stats.checkpoints.inc();
        self.stats.checkpoint_seconds.observe(started.elapsed().as_secs_f64());
        // Who waits for room: requests, and the entry that covers the last one.
        self.room.notify_waiters();
        self.commit_turn.notify_one();
    }

    async fn note_groups(self: &Rc<Self>) {
        let numbers: Vec<u32> = self.state.borrow().groups.keys().copied().collect();
        for slice in numbers.chunks(GROUPS_PER_SLICE) {
            {
                let state = &mut *self.state.borrow_mut();
                for number in slice {
                    let _ = state.member_mut(*number);
                }
            }
            crate::io::ring::park().await;
            for number in slice {
                self.note_consumers(*number).await;
            }
        }
        let state = &mut *self.state.borrow_mut();
        if let Some(table) = &state.table {
            state.snapshot.note_table(table);
        }
        state.snapshot.note_tokens(&state.tokens);
        state.snapshot.note_outbox(&state.outbox);
    }

    async fn note_consumers(&self, number: u32) {
        let mut after: Option<Box<str>> = None;
        loop {
            {
                let state = &mut *self.state.borrow_mut();
                let Some(member) = state.groups.get_mut(&number) else { return };
                let start = after.take().map_or(Bound::Unbounded, Bound::Excluded);
                let rest = member.group.consumers.range_mut::<Box<str>, _>((start, Bound::Unbounded));
                let mut last = None;
                for (name, consumer) in rest.take(CONSUMERS_PER_SLICE) {
                    state.snapshot.note_consumer(number, name, consumer);
                    last = Some(name);
                }
                after = last.cloned();
            }
            if after.is_none() {
                return;
            }
            crate::io::ring::park().await;
        }
    }

    async fn move_up_to(self: &Rc<Self>, upto: u64) {
        loop {
            let moves = {
                let state = &mut *self.state.borrow_mut();
                let numbers: Vec<u32> = state
                    .groups
                    .iter()
                    .filter(|(_, member)| member.group.log.oldest_entry().is_some_and(|entry| entry <= upto))
                    .map(|(&number, _)| number)
                    .collect();
                let mut moves: Vec<Move> = Vec::new();
                let mut bytes = 0;
                for number in numbers {
                    bytes += self.plan_moves(state, number, upto, &mut moves);
                    if bytes >= MOVE_BYTES {
                        break;
                    }
                }
                moves
            };
            if moves.is_empty() || self.fault().is_some() {
                return;
            }
            self.carry_out(moves).await;
        }
    }

    /// Syncs every segment that was written to, a few at a time, and then their directory.
    pub(super) async fn sync_segments(self: &Rc<Self>) -> Result<(), ()> {
        loop {
            let batch: Vec<((u32, u32), SegmentFile)> = {
                let state = self.state.borrow();
                state.dirty.iter().take(SYNCS_PER_TURN).map(|(key, file)| (*key, file.clone())).collect()
            };
            let last = batch.is_empty();
            let directory = self.segments_directory();
            let synced = self.mover.run(move || {
                if last {
                    return file::sync_directory(&directory).map(|()| Vec::new());
                }
                batch.into_iter().map(|(key, file)| file.sync().map(|()| key)).collect::<io::Result<Vec<_>>>()
            });
            let synced = synced.await;
            let state = &mut *self.state.borrow_mut();
            match synced {
                Ok(keys) => keys.iter().for_each(|key| {
                    state.dirty.remove(key);
                }),
                Err(error) => {
                    let cause = format!("a segment of shard {} could not be synced: {error}", self.number);
                    self.fail(state, &cause);
                    return Err(());
                }
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// Adds what shard 0's state says of the table of groups.
pub(super) fn add_table(records: &mut Records, table: &Table) {
    for group in table.groups() {
        records.add(RecordKind::TableGroup, |out| group.encode(out));
    }
    for removed in table.removed() {
        records.add(RecordKind::TableRemoved, |out| removed.encode(out));
    }
}

/// The same for the tokens.
pub(super) fn add_tokens(records: &mut Records, tokens: &Tokens) {
    tokens.values().for_each(|token| records.add(RecordKind::Token, |out| token.encode(out)));
}

/// Adds what a shard's state says of its audit events, if there is anything.
pub(super) fn add_outbox(records: &mut Records, outbox: &Outbox) {
    if *outbox != Outbox::default() {
        records.add(RecordKind::Audit, |out| outbox.encode(out));
    }
}

/// Writes a generation over the one before the last, in pieces, so that commits keep the disk. Blocks: on the mover, and
/// at start-up.
pub(super) fn write_state(directory: &Path, generation: u64, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(state_file::file_name(generation));
    let room = (bytes.len() as u64).next_power_of_two().max(state_file::STATE_FILE_BYTES_FIRST);
    match file::reserve_space(&path, room) {
        // What was set aside is for this: without a new state the journal would run full.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            release_reserve(directory)?;
            file::reserve_space(&path, room)?;
        }
        reserved => reserved?,
    }
    let file = SegmentFile::open(&path)?;
    let mut position = 0;
    for piece in bytes.chunks(PACE_BYTES as usize) {
        file.write(&[piece], position)?;
        file.write_out(position, piece.len() as u64)?;
        position += piece.len() as u64;
    }
    file.sync()
}

/// The first state of a shard: nothing in it.
pub(super) fn write_first_state(directory: &Path, identity: Identity, shard: u16) -> io::Result<()> {
    let next_address = crate::log::journal::Ring::first_address();
    let checkpoint = Checkpoint { generation: 1, index: 0, next_address, crc: 0 };
    write_state(directory, 1, &Records::default().finish(&checkpoint, identity, shard))?;
    let other = directory.join(state_file::file_name(2));
    file::reserve_space(&other, state_file::STATE_FILE_BYTES_FIRST)
}
