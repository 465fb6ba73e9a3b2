//! The commit loop: collect, seal, write and sync, make visible, answer.
//!
//! A commit gathers whatever arrived while the one before was on its way; there is no timer that lingers. It is handed
//! to the ring before anything of the one before is answered, so that the disk does not wait for the answers. A second one
//! may follow at once when enough has gathered to be worth a write of its own. Entries become visible and are answered
//! strictly in index order. A failed write is final: what was in flight is unknown, and nothing is accepted any more.

use super::{Fault, InFlight, Shard, State};
use crate::io::ring;
use crate::limits::{BLOCK_BYTES, COMMITS_IN_FLIGHT_MAX};
use crate::log::entry::{EntryBuilder, EntryKind, EntryPlace, PartKind};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A second commit follows the first at once when it fills a block; less is better gathered further.
const SECOND_COMMIT_BYTES: usize = BLOCK_BYTES;
/// Memory kept for the next entries; a larger buffer goes back to the allocator.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// What the loop does next.
enum Turn {
    Commit(EntryKind),
    /// Wait until something arrives or completes.
    Wait,
    /// The same, but at most until an entry should cover the last one.
    WaitIdle,
    End,
}

impl Shard {
    /// The loop. Ends when the shard is closed and everything accepted is durable, or when the disk failed.
    pub(super) async fn commit(self: Rc<Self>) {
        let mut quiet = false;
        loop {
            let turn = self.turn(&self.state.borrow(), quiet);
            match turn {
                Turn::Commit(kind) => {
                    quiet = false;
                    self.seal_and_write(&mut self.state.borrow_mut(), kind);
                }
                Turn::Wait => self.commit_turn.notified().await,
                Turn::WaitIdle => {
                    quiet = tokio::time::timeout(self.settings.idle, self.commit_turn.notified()).await.is_err();
                }
                Turn::End => return,
            }
        }
    }

    fn turn(&self, state: &State, quiet: bool) -> Turn {
        let covered = state.covered_index >= state.durable_index;
        match state.in_flight.len() {
            _ if state.fault.is_some() => Turn::End,
            0 if !state.open.is_empty() => Turn::Commit(EntryKind::Commit),
            0 if covered && state.closing => Turn::End,
            0 if covered => Turn::Wait,
            0 if (quiet || state.closing) && state.has_room(0, self.entry_bytes_max) => Turn::Commit(EntryKind::Idle),
            0 => Turn::WaitIdle,
            1 if state.open.bytes >= SECOND_COMMIT_BYTES => Turn::Commit(EntryKind::Commit),
            _ => Turn::Wait,
        }
    }

    /// Seals what has gathered into one entry and sends it to the disk.
    fn seal_and_write(self: &Rc<Self>, state: &mut State, kind: EntryKind) {
        debug_assert!(state.in_flight.len() < COMMITS_IN_FLIGHT_MAX);
        let (builder, reveals) = seal(state);
        let address = state.head.place_for(builder.disk_bytes()).expect("room was made sure of before accepting");
        let place = EntryPlace {
            kind,
            owner: super::owner(self.settings.identity, self.number),
            index: state.head.next_index,
            address,
            durable_upto: state.durable_index,
            previous_crc: state.head.previous_crc,
        };
        let (buffer, crc) = builder.finish(&place);
        state.head.advance(address, buffer.len() as u64, crc);
        state.in_flight.push_back(InFlight {
            index: place.index,
            kind,
            covers: place.durable_upto,
            reveals,
            written: false,
            started: Instant::now(),
        });
        self.stats.commits.inc();
        self.begin_snapshot_if_wanted(state);
        let (slot, position) = state.head.ring().place(address);
        let shard = Rc::clone(self);
        // Submitted here and not where the task first runs, which is behind everything that runs already.
        let writing = self.files[slot].write(buffer, position);
        tokio_uring::spawn(async move {
            let (result, buffer) = writing.await;
            shard.stats.commits_ended.inc();
            if buffer.capacity() <= BUFFER_BYTES_KEPT {
                shard.state.borrow_mut().free_buffers.push(buffer);
            }
            if shard.written(&mut shard.state.borrow_mut(), place.index, result) {
                // The disk begins with the next entry before the answers to this one are made.
                ring::park().await;
            }
            shard.answer(&mut shard.state.borrow_mut());
        });
    }

    /// Entry `index` is durable, or never will be. Whatever is durable in index order becomes visible. Whether the next entry
    /// was handed to the ring.
    fn written(self: &Rc<Self>, state: &mut State, index: u64, result: io::Result<()>) -> bool {
        if let Err(error) = result {
            self.fail(state, &format!("the journal of shard {} could not be written: {error}", self.number));
            return false;
        }
        if let Some(entry) = state.in_flight.iter_mut().find(|entry| entry.index == index) {
            entry.written = true;
        }
        if state.fault.is_some() {
            return false;
        }
        while let Some(entry) = state.in_flight.pop_front_if(|entry| entry.written) {
            debug_assert!(entry.index == state.durable_index + 1);
            self.stats.commit_seconds.observe(entry.started.elapsed().as_secs_f64());
            state.durable_index = entry.index;
            state.covered_index = state.covered_index.max(entry.covers);
            self.reveal(state, &entry.reveals);
            if entry.kind == EntryKind::Idle && state.open.is_empty() {
                // An idle entry holds nothing that would have to be covered by another one.
                state.covered_index = state.durable_index;
            }
        }
        let Turn::Commit(kind) = self.turn(state, false) else { return false };
        self.seal_and_write(state, kind);
        true
    }

    /// Wakes whoever waits for what is durable.
    fn answer(&self, state: &mut State) {
        let durable = state.durable_index;
        state.waiters.extract_if(.., |(entry, _)| *entry <= durable).for_each(|(_, waker)| waker.wake());
        self.commit_turn.notify_one();
        self.room.notify_waiters();
        if state.outbox.waiting_bytes() > 0 {
            self.audit_turn.notify_one();
        }
    }

    fn reveal(&self, state: &mut State, reveals: &[(u32, u64)]) {
        for &(number, next_offset) in reveals {
            let Some(member) = state.groups.get_mut(&number) else { continue };
            if member.group.reveal(next_offset) {
                member.watchers.drain().for_each(|(_, waker)| waker.wake());
            }
            if member.group.log.wants_flush() && !std::mem::replace(&mut member.flush_queued, true) {
                state.flush_queue.push_back(number);
                self.tails_turn.notify_one();
            }
        }
        if state.tail_bytes >= self.settings.tail_memory / 2 || state.checkpoint_due() {
            self.tails_turn.notify_one();
        }
    }

    /// Stops the shard for good: only a restart, which recovers, takes writes again.
    pub(super) fn fail(&self, state: &mut State, cause: &str) {
        if state.fault.is_none() {
            tracing::error!(shard = self.number, cause, "the shard stopped: restart the broker once the disk is sound");
            self.stats.failed.set(1);
            state.fault = Some(Fault::Stopped(Arc::from(cause)));
        }
        state.waiters.drain(..).for_each(|(_, waker)| waker.wake());
        state.groups.values_mut().for_each(|member| member.space_waiters.clear());
        self.room.notify_waiters();
        self.commit_turn.notify_one();
        self.tails_turn.notify_one();
        self.space_turn.notify_one();
        self.lease_turn.notify_one();
    }

    /// Takes no more events, and returns once everything accepted is durable (or the disk failed).
    pub async fn close(&self) {
        self.state.borrow_mut().closing = true;
        self.commit_turn.notify_one();
        loop {
            let room = self.room.notified();
            if self.is_quiet() {
                return;
            }
            room.await;
        }
    }

    fn is_quiet(&self) -> bool {
        let state = self.state.borrow();
        let done = state.in_flight.is_empty() && state.open.is_empty() && state.covered_index >= state.durable_index;
        done || state.fault.is_some()
    }
}

/// Moves everything that has gathered into an entry.
fn seal(state: &mut State) -> (EntryBuilder, Vec<(u32, u64)>) {
    let open = std::mem::take(&mut state.open);
    let index = state.open_index();
    let mut builder = EntryBuilder::new(state.free_buffers.pop().unwrap_or_default());
    let mut reveals = Vec::with_capacity(open.groups.len());
    for number in open.groups {
        let Some(member) = state.groups.get_mut(&number) else { continue };
        let frames = member.group.log.seal(index);
        for frame in member.group.log.newest(frames) {
            builder.part(PartKind::Frame, &frame.bytes);
            state.tail_bytes += frame.bytes.len();
        }
        reveals.push((number, member.group.next_offset()));
    }
    for (kind, bytes) in &open.parts {
        builder.part(*kind, bytes);
    }
    (builder, reveals)
}
