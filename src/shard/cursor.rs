//! One reader's way through a group: history and live are the same cursor, so there is no seam between them.

use super::Fault;
pub use super::frames::Frames;
use super::frames::Place;
use super::peers::Shards;
use super::read::{Found, Range};
use crate::io::file::SegmentFile;
use crate::limits::READ_PIECE_BYTES;
use std::rc::Rc;
use std::sync::Arc;

/// A place in a group that moves forward.
pub struct Cursor {
    shards: Rc<Shards>,
    shard: u16,
    group: u32,
    offset: u64,
    /// Offset behind the frames read last.
    read_next: u64,
    place: Option<Place>,
}

impl Cursor {
    /// A cursor at `offset` of a group.
    #[must_use]
    pub fn new(shards: Rc<Shards>, shard: u16, group: u32, offset: u64) -> Self {
        Self { shards, shard, group, offset, read_next: offset, place: None }
    }

    /// Number of its shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Number of the group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The next offset to be read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The shards it reads from.
    #[must_use]
    pub fn shards(&self) -> Rc<Shards> {
        Rc::clone(&self.shards)
    }

    /// The group's readable range.
    ///
    /// # Errors
    /// When the group was deleted.
    pub async fn range(&self) -> Result<Range, Fault> {
        let group = self.group;
        match self.shards.local(self.shard) {
            Some(shard) => shard.range(group),
            None => self.shards.ask(self.shard, move |shard| Box::pin(async move { shard.range(group) })).await,
        }
    }

    /// Moves on to `offset`; right behind the frames read last, reading goes on where it stood in the file.
    pub fn advance(&mut self, offset: u64) {
        debug_assert!(offset >= self.offset);
        self.offset = offset;
        if offset != self.read_next {
            self.place = None;
        }
    }

    /// What to tell of a frame whose bytes are right and whose content makes no sense.
    #[must_use]
    pub fn corrupt(&self, cause: &dyn std::fmt::Display) -> Fault {
        Fault::Corrupt { offset: self.offset, detail: Arc::from(cause.to_string()) }
    }

    /// Looks whether what is at the cursor can be read or passed over; the cursor stays where it is.
    ///
    /// # Errors
    /// When the offset is not there (any more), or damaged.
    pub async fn probe(&self) -> Result<(), Fault> {
        let mut probe = Self::new(self.shards(), self.shard, self.group, self.offset);
        match probe.read(&mut Frames::default()).await {
            Ok(_) | Err(Fault::Lost { .. } | Fault::Gone { .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Reads the next frames into `frames`; false when nothing more is visible.
    ///
    /// # Errors
    /// When the offset is not there (any more), or damaged; [`Fault::Lost`] at a gap, behind which the caller may
    /// [advance](Self::advance).
    pub async fn read(&mut self, frames: &mut Frames) -> Result<bool, Fault> {
        frames.buffer.clear();
        frames.used = 0;
        frames.memory.clear();
        if self.place.is_none() {
            let (group, offset) = (self.group, self.offset);
            let found = match self.shards.local(self.shard) {
                Some(shard) => shard.find(group, offset).await?,
                None => {
                    self.shards
                        .ask(self.shard, move |shard| Box::pin(async move { shard.find(group, offset).await }))
                        .await?
                }
            };
            match found {
                Found::Tail => return Ok(false),
                Found::Gap { from, to } => return Err(Fault::Lost { from, to }),
                Found::Memory(memory) => {
                    frames.memory = memory;
                    return Ok(!frames.memory.is_empty());
                }
                Found::File(place) => self.place = Some(place),
            }
        }
        self.read_file(frames).await?;
        self.read_next = frames.iter().last().map_or(self.offset, |frame| frame.header.next_offset());
        Ok(true)
    }

    /// Reads whole frames from the file, the first of which holds the cursor's offset.
    async fn read_file(&mut self, frames: &mut Frames) -> Result<(), Fault> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let mut want = READ_PIECE_BYTES;
        loop {
            let (missing, position) = place.missing(frames, want, place.end);
            let read = read_piece(&place.file, &mut frames.buffer, missing, position).await;
            let read = read.map_err(|error| place.corrupt(self.offset, &error))?;
            if place.take(frames, self.offset, read, place.end, &mut want)? {
                break;
            }
        }
        if place.position >= place.end {
            self.place = None;
        }
        Ok(())
    }

    /// Waits until there is something to read at the cursor, or the group is gone.
    pub async fn wait(&self) {
        let (group, offset) = (self.group, self.offset);
        match self.shards.local(self.shard) {
            Some(shard) => shard.visible(group, offset).await,
            None => {
                self.shards
                    .ask(self.shard, move |shard| Box::pin(async move { shard.visible(group, offset).await }))
                    .await;
            }
        }
    }
}

/// Warm pages are copied at once; cold ones are read through the ring.
async fn read_piece(file: &SegmentFile, buffer: &mut Vec<u8>, want: usize, position: u64) -> std::io::Result<usize> {
    if want == 0 {
        return Ok(0);
    }
    if let Some(read) = file.read_cached(buffer, want, position)?
        && read > 0
    {
        return Ok(read);
    }
    let (result, returned) = file.read(std::mem::take(buffer), want, position).await;
    *buffer = returned;
    result
}
