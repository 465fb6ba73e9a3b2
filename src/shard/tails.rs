//! Moving tails from memory to segments, when a group has enough pending or the shard's tail memory runs full.
//!
//! Only what is durable is moved, by the mover, in pieces that are written out before the next one starts, so that
//! commits keep the disk. Moved bytes are read from the page cache from then on; they are synced by the next checkpoint.
//! A failed write here is as final as one to the journal: the frames stay in memory, readable.

use super::checkpoint::CheckpointTurn;
use super::{Shard, State};
use crate::io::buffer::AlignedBuffer;
use crate::io::file::SegmentFile;
use crate::log::group_log::TailFrame;
use crate::log::index::{SegmentIndex, Summary};
use crate::log::scan;
use crate::log::segment::{self, SEGMENT_START, Segment};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Bytes moved in one turn of the mover.
const MOVE_BYTES: usize = 8 << 20;
/// Of these, from one group.
const MOVE_GROUP_BYTES: usize = 4 << 20;

/// From so much on a move goes past the page cache. Copying into fresh pages and writing them back costs more of the core
/// than everything else that happens to an event; whoever reads it later brings it into the cache.
const PAST_CACHE_BYTES_MIN: usize = 64 << 10;

/// A segment that is complete, of that group, with its index if it is known.
pub(super) type Finished = (u32, Segment, Option<SegmentIndex>);

/// The frames of one group that go to one segment, one behind the other.
pub(super) struct Move {
    pub(super) group: u32,
    pub(super) sequence: u32,
    pub(super) file: Option<SegmentFile>,
    pub(super) path: PathBuf,
    pub(super) frames: Vec<TailFrame>,
}

impl Shard {
    /// The loop that moves tails and makes checkpoints. Ends with the shard's failure.
    pub(super) async fn move_tails(self: Rc<Self>) {
        loop {
            if self.fault().is_some() {
                return;
            }
            let moves = self.next_moves();
            if !moves.is_empty() {
                self.carry_out(moves).await;
                continue;
            }
            match self.checkpoint_turn() {
                CheckpointTurn::Work => self.checkpoint_step().await,
                CheckpointTurn::Rest => self.tails_turn.notified().await,
            }
        }
    }

    /// What is to be moved now because there is enough of it.
    fn next_moves(&self) -> Vec<Move> {
        let state = &mut *self.state.borrow_mut();
        let mut moves = Vec::new();
        let mut bytes = 0;
        while bytes < MOVE_BYTES {
            let Some(number) = state.flush_queue.pop_front() else { break };
            if let Some(member) = state.groups.get_mut(&number) {
                member.flush_queued = false;
            }
            bytes += self.plan_moves(state, number, state.durable_index, &mut moves);
        }
        if moves.is_empty() && state.tail_bytes >= self.settings.tail_memory / 2 {
            // Many groups with a little each: all of them, largest number first is as good as any order.
            let numbers: Vec<u32> =
                state.groups.iter().filter(|(_, member)| member.group.log.tail_bytes() > 0).map(|(&n, _)| n).collect();
            for number in numbers {
                bytes += self.plan_moves(state, number, state.durable_index, &mut moves);
                if bytes >= MOVE_BYTES {
                    break;
                }
            }
        }
        moves
    }

    /// Plans to move the frames of a group that entries up to `upto` hold. Returns their bytes.
    pub(super) fn plan_moves(&self, state: &mut State, number: u32, upto: u64, moves: &mut Vec<Move>) -> usize {
        let Some(member) = state.groups.get(&number) else { return 0 };
        let frames = member.group.log.to_flush(upto.min(state.durable_index), MOVE_GROUP_BYTES);
        let bytes = frames.iter().map(|frame| frame.bytes.len()).sum();
        for run in frames.chunk_by(|one, next| one.segment == next.segment) {
            let sequence = run[0].segment;
            moves.push(Move {
                group: number,
                sequence,
                file: state.open_segment(number, sequence),
                path: segment::path(&self.segments_directory(), number, sequence),
                frames: run.to_vec(),
            });
        }
        bytes
    }

    /// Lets the mover write, and takes note of what is in segments now.
    pub(super) async fn carry_out(self: &Rc<Self>, moves: Vec<Move>) {
        let mut buffer = std::mem::take(&mut self.state.borrow_mut().move_buffer);
        let moved = self.mover.run(move || {
            let moved = moves.into_iter().map(|work| write(work, &mut buffer)).collect::<io::Result<Vec<_>>>();
            (moved, buffer)
        });
        let (moved, buffer) = moved.await;
        self.state.borrow_mut().move_buffer = buffer;
        let finished = match moved {
            Ok(moved) => self.moved(moved),
            Err(error) => {
                let cause = format!("a segment of shard {} could not be written: {error}", self.number);
                return self.fail(&mut self.state.borrow_mut(), &cause);
            }
        };
        self.room.notify_waiters();
        if !finished.is_empty() {
            self.write_footers(finished).await;
        }
    }

    /// Takes note of what is in segments now. Returns the segments that are complete.
    fn moved(&self, moved: Vec<(Move, SegmentFile)>) -> Vec<Finished> {
        let state = &mut *self.state.borrow_mut();
        let mut finished = Vec::new();
        for (done, file) in moved {
            let Some(next_offset) = done.frames.last().map(|frame| frame.next_offset) else { continue };
            state.dirty.entry((done.group, done.sequence)).or_insert_with(|| file.clone());
            if state.open_segment(done.group, done.sequence).is_none() || done.file.is_none() {
                state.keep_open(done.group, done.sequence, file, None);
            }
            let Some(member) = state.groups.get_mut(&done.group) else { continue };
            let freed = member.group.log.flushed(next_offset);
            let complete = member.group.log.take_finished().into_iter();
            finished.extend(complete.map(|(segment, index)| (done.group, segment, index)));
            state.tail_bytes -= freed;
            self.stats.flushed_bytes.inc_by(freed as u64);
            if member.group.log.wants_flush() && !std::mem::replace(&mut member.flush_queued, true) {
                state.flush_queue.push_back(done.group);
            }
        }
        finished
    }

    /// Puts the index behind the frames of segments that were sealed, so that it need not be made again. One that began
    /// before the last start has to be read for it, which nobody waits for.
    pub(super) async fn write_footers(self: &Rc<Self>, finished: Vec<Finished>) {
        let (mut known, mut unknown) = (Vec::with_capacity(finished.len()), Vec::new());
        for (group, segment, index) in finished {
            match index {
                Some(index) => {
                    known.extend(self.sealed_file(group, segment).await.map(|file| (group, segment, index, file)));
                }
                None => unknown.push((group, segment)),
            }
        }
        if !known.is_empty() {
            self.put_footers(known).await;
        }
        if !unknown.is_empty() {
            tokio_uring::spawn(Rc::clone(self).index_again(unknown));
        }
    }

    /// Many groups may seal such segments at once; they are read one after the other, for two at a time leave commits no rest.
    async fn index_again(self: Rc<Self>, unknown: Vec<(u32, Segment)>) {
        let _turn = self.indexing.lock().await;
        for (group, segment) in unknown {
            let Some(file) = self.sealed_file(group, segment).await else { continue };
            if let (index, Ok(())) = self.scan(&file, segment.end).await {
                self.put_footers(vec![(group, segment, index, file)]).await;
            }
        }
    }

    async fn sealed_file(&self, group: u32, segment: Segment) -> Option<SegmentFile> {
        let file = self.segment_file(group, segment.sequence).await;
        file.inspect_err(|error| {
            tracing::warn!(group, sequence = segment.sequence, %error, "a sealed segment could not be opened");
        })
        .ok()
    }

    async fn put_footers(&self, work: Vec<(u32, Segment, SegmentIndex, SegmentFile)>) {
        let written = self.mover.run(move || {
            let write = |(group, segment, index, file): (u32, Segment, SegmentIndex, SegmentFile)| {
                write_footer(&segment, Some(index), &file).map(|()| ((group, segment.sequence), file))
            };
            work.into_iter().map(write).collect::<io::Result<Vec<_>>>()
        });
        let written = written.await;
        let state = &mut *self.state.borrow_mut();
        match written {
            Ok(written) => written.into_iter().for_each(|(key, file)| {
                state.dirty.insert(key, file);
            }),
            Err(error) => {
                let cause = format!("a segment of shard {} could not be written: {error}", self.number);
                self.fail(state, &cause);
            }
        }
    }
}

/// Writes a footer and gives back the room behind it. Blocks: on the mover, and in tools, which may leave the index to it. A
/// segment without one costs a scan when it is read, so neither damage nor a full disk is a fault here.
pub(super) fn write_footer(segment: &Segment, index: Option<SegmentIndex>, file: &SegmentFile) -> io::Result<()> {
    let index = index.map_or_else(|| scan::index(file, SEGMENT_START, segment.end), Ok);
    let Ok(index) = index else { return Ok(()) };
    let footer = index.footer(&Summary {
        events: segment.next_offset - segment.first_offset,
        first_received_us: segment.first_received_us,
        last_received_us: segment.last_received_us,
        frames_end: segment.end,
    });
    match file.write(&[&footer], segment.end) {
        Ok(()) => file.truncate(segment.end + footer.len() as u64),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes one move. Blocks: on the mover.
fn write(mut work: Move, buffer: &mut AlignedBuffer) -> io::Result<(Move, SegmentFile)> {
    let file = match work.file.take() {
        Some(file) => {
            work.file = Some(file.clone());
            file
        }
        // Recovery replays frames of segments whose file a crash may have taken.
        None => SegmentFile::create(&work.path)?,
    };
    let Some(first) = work.frames.first() else { return Ok((work, file)) };
    let pieces: Vec<&[u8]> = work.frames.iter().map(|frame| &frame.bytes[..]).collect();
    match pieces.iter().map(|piece| piece.len()).sum::<usize>() {
        bytes if bytes < PAST_CACHE_BYTES_MIN => file.write(&pieces, first.position)?,
        _ => file.write_past_cache(&work.path, &pieces, first.position, buffer)?,
    }
    Ok((work, file))
}
