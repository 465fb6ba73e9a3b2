//! A part of a group that any thread may read without its shard: a snapshot of frames in memory, or an open segment up to
//! where it was written, and what its index knows of it.

use super::Fault;
use super::blocks::Block;
use super::cursor::Frames;
use super::frames::Place;
use super::peers::Shards;
use super::read::Found;
use crate::limits::INDEX_STRIDE_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;

/// Events one behind the other.
pub struct Stretch {
    source: Source,
    /// Blocks that begin where reading goes on, and those behind them.
    blocks: VecDeque<Block>,
}

enum Source {
    Memory(Vec<Bytes>),
    File(Place),
}

impl Stretch {
    /// The stretch from `offset` on, with its blocks if they are wanted; `None` at the tail.
    ///
    /// # Errors
    /// When the offset is not there (any more), and [`Fault::Lost`] at a gap.
    pub async fn find(
        shards: &Shards,
        shard: u16,
        group: u32,
        offset: u64,
        blocks: bool,
    ) -> Result<Option<Self>, Fault> {
        let find = move |shard: std::rc::Rc<super::Shard>| -> super::peers::Work<Result<Option<Self>, Fault>> {
            Box::pin(async move {
                let source = match shard.find(group, offset).await? {
                    Found::Tail => return Ok(None),
                    Found::Gap { from, to } => return Err(Fault::Lost { from, to }),
                    Found::Memory(frames) => Source::Memory(frames),
                    Found::File(place) => Source::File(place),
                };
                let known = blocks && matches!(source, Source::File(_));
                let blocks = if known { shard.blocks(group, offset).await?.into() } else { VecDeque::new() };
                Ok(Some(Self { source, blocks }))
            })
        };
        shards.ask(shard, find).await
    }

    /// The block that begins at `offset`, if the index knows one.
    pub fn block(&mut self, offset: u64) -> Option<&Block> {
        while self.blocks.front().is_some_and(|block| block.next_offset <= offset) {
            self.blocks.pop_front();
        }
        self.blocks.front().filter(|block| block.first_offset == offset)
    }

    /// Passes over the block at the front, which need not be read.
    pub fn pass(&mut self) {
        if let (Some(block), Source::File(place)) = (self.blocks.pop_front(), &mut self.source) {
            place.position = block.end;
        }
    }

    /// Reads the next frames, the first of which holds `offset`: those of the block that holds it, if the index knows it.
    /// False when there are no more. Blocks.
    ///
    /// # Errors
    /// When they are damaged, or the file cannot be read.
    pub fn read(&mut self, offset: u64, frames: &mut Frames) -> Result<bool, Fault> {
        frames.clear();
        let block = self.blocks.iter().find(|block| block.first_offset <= offset && offset < block.next_offset);
        let place = match &mut self.source {
            Source::Memory(memory) => {
                frames.memory = std::mem::take(memory);
                return Ok(!frames.memory.is_empty());
            }
            Source::File(place) => place,
        };
        let end = block.map_or(place.end, |block| block.end.min(place.end));
        if place.position >= end {
            return Ok(false);
        }
        // Little at once: the kernel copies without a look at who else wants the CPU, and the copy stays in its cache.
        let mut want = INDEX_STRIDE_BYTES as usize;
        loop {
            let (missing, position) = place.missing(frames, want, end);
            let before = frames.buffer.len();
            frames.buffer.resize(before + missing, 0);
            let read = place.file.read_blocking(&mut frames.buffer[before..], position);
            let read = read.map_err(|error| place.corrupt(offset, &error))?;
            frames.buffer.truncate(before + read);
            if place.take(frames, offset, read, end, &mut want)? {
                return Ok(true);
            }
        }
    }
}
