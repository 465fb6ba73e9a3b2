//! One reader's way through a group: history and live are the same cursor, so there is no seam between them.

use super::Fault;
use super::peers::Shards;
use super::read::{Found, Range};
use crate::io::file::SegmentFile;
use crate::limits::READ_PIECE_BYTES;
use crate::log::frame::Frame;
use crate::log::wire::{Malformed, Unreadable};
use bytes::Bytes;
use std::rc::Rc;
use std::sync::Arc;

/// Frames one behind the other, checked, the first of which holds the cursor's offset.
#[derive(Default)]
pub struct Frames {
    /// Bytes that were read from a segment, or nothing.
    buffer: Vec<u8>,
    used: usize,
    memory: Vec<Bytes>,
}

impl Frames {
    /// The frames in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut rest = &self.buffer[..self.used];
        let read = std::iter::from_fn(move || {
            // They were checked when they were read, and have not left memory since.
            let frame = Frame::trusted(rest).ok()?;
            rest = &rest[frame.bytes.len()..];
            Some(frame)
        });
        read.chain(self.memory.iter().filter_map(|bytes| Frame::trusted(bytes).ok()))
    }
}

impl Frames {
    /// Bytes of memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.capacity() + self.memory.iter().map(Bytes::len).sum::<usize>()
    }

    /// The first `length` bytes of the frames, which are whole frames.
    #[must_use]
    pub fn into_bytes(mut self, length: usize) -> Vec<u8> {
        self.buffer.truncate(self.used);
        for frame in &self.memory {
            self.buffer.extend_from_slice(frame);
        }
        self.buffer.truncate(length);
        self.buffer
    }
}

struct FilePlace {
    file: SegmentFile,
    name: (u32, u32),
    position: u64,
    end: u64,
}

/// A place in a group that moves forward.
pub struct Cursor {
    shards: Rc<Shards>,
    shard: u16,
    group: u32,
    offset: u64,
    /// Offset behind the frames read last.
    read_next: u64,
    place: Option<FilePlace>,
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
                Found::File { file, name, position, end } => self.place = Some(FilePlace { file, name, position, end }),
            }
        }
        self.read_file(frames).await?;
        self.read_next = frames.iter().last().map_or(self.offset, |frame| frame.header.next_offset());
        Ok(true)
    }

    /// Reads whole frames from the file, the first of which holds the cursor's offset.
    async fn read_file(&mut self, frames: &mut Frames) -> Result<(), Fault> {
        let mut want = READ_PIECE_BYTES;
        while let Some(place) = &mut self.place {
            let limit = want.min((place.end - place.position) as usize);
            let missing = limit.saturating_sub(frames.buffer.len());
            let from = place.position + frames.buffer.len() as u64;
            let read = read_piece(&place.file, &mut frames.buffer, missing, from).await;
            let corrupt = |offset: u64, place: &FilePlace, cause: &dyn std::fmt::Display| Fault::Corrupt {
                offset,
                detail: Arc::from(format!(
                    "segment {}-{} at byte {}: {cause}",
                    place.name.0, place.name.1, place.position
                )),
            };
            let read = read.map_err(|error| corrupt(self.offset, place, &error))?;
            // Frames before the one that holds the offset are passed over: an index is sparse.
            let mut used = 0;
            let mut skipped = 0;
            // The first frame given holds the offset; the others follow one another.
            let mut expected = self.offset;
            loop {
                let next = next_frame(&frames.buffer[used..], self.group, expected, used > skipped);
                match next {
                    Ok(Some(frame)) => {
                        used += frame.bytes.len();
                        if frame.header.next_offset() <= self.offset {
                            skipped = used;
                        } else {
                            expected = frame.header.next_offset();
                        }
                    }
                    Ok(None) => break,
                    // What is whole before the damage is given; the next read begins at it.
                    Err(_) if used > skipped => break,
                    Err(fault) => {
                        place.position += used as u64;
                        return Err(corrupt(self.offset, place, &fault));
                    }
                }
            }
            place.position += used as u64;
            frames.buffer.drain(..skipped);
            frames.used = used - skipped;
            let at_end = place.position >= place.end;
            if at_end {
                self.place = None;
            }
            if frames.used > 0 {
                return Ok(());
            }
            if at_end {
                return Err(Fault::Corrupt { offset: self.offset, detail: "its segment does not hold it".into() });
            }
            if used == 0 {
                if read == 0 {
                    let place = self.place.as_ref().expect("it was just read from");
                    return Err(corrupt(self.offset, place, &"the segment is cut"));
                }
                want *= 2;
            } else {
                want = READ_PIECE_BYTES;
            }
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

/// The frame at the front of `bytes`; `None` when it is not all there. It is checked unless it ends before `offset` and
/// may be passed over; once one was given, the next one begins right behind it.
fn next_frame(bytes: &[u8], group: u32, offset: u64, given: bool) -> Result<Option<Frame<'_>>, Unreadable> {
    let Some(frame) = Frame::whole(bytes)? else { return Ok(None) };
    if given || frame.header.next_offset() > offset {
        frame.check_body()?;
        if frame.header.group != group {
            return Err(Malformed("a frame of another group").into());
        }
        let first = frame.header.first_offset;
        if first > offset || given && first < offset {
            return Err(Malformed("a frame stands where another one belongs").into());
        }
    }
    Ok(Some(frame))
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
