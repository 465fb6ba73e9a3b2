//! Frames as they are read: out of a file, whose bytes are checked on the way, or out of memory.

use super::Fault;
use crate::io::file::SegmentFile;
use crate::log::frame::Frame;
use crate::log::wire::{Malformed, Unreadable};
use bytes::Bytes;
use std::sync::Arc;

/// Frames one behind the other, checked, the first of which holds the cursor's offset.
#[derive(Default)]
pub struct Frames {
    /// Bytes that were read from a segment, or nothing.
    pub(super) buffer: Vec<u8>,
    pub(super) used: usize,
    pub(super) memory: Vec<Bytes>,
}

impl Frames {
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.used = 0;
        self.memory.clear();
    }

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

/// A place in a segment that moves forward.
pub struct Place {
    /// The segment.
    pub(super) file: SegmentFile,
    /// The group that it belongs to, and which of its segments it is.
    pub(super) group: u32,
    pub(super) sequence: u32,
    /// Where to read on.
    pub(super) position: u64,
    /// Where to stop.
    pub(super) end: u64,
}

impl Place {
    /// How many bytes to read next, and where, if `want` bytes of those before `end` are to be there.
    pub(super) fn missing(&self, frames: &Frames, want: usize, end: u64) -> (usize, u64) {
        let limit = want.min((end - self.position) as usize);
        (limit.saturating_sub(frames.buffer.len()), self.position + frames.buffer.len() as u64)
    }

    /// Takes whole frames out of what was read, of which `read` bytes are new, and moves on behind them; the first one holds
    /// `offset`. False when there is none, and `want` bytes are to be there before the next try.
    pub(super) fn take(
        &mut self,
        frames: &mut Frames,
        offset: u64,
        read: usize,
        end: u64,
        want: &mut usize,
    ) -> Result<bool, Fault> {
        // Frames before the one that holds the offset are passed over: an index is sparse.
        let mut used = 0;
        let mut skipped = 0;
        // The first frame given holds the offset; the others follow one another.
        let mut expected = offset;
        loop {
            match next_frame(&frames.buffer[used..], self.group, expected, used > skipped) {
                Ok(Some(frame)) => {
                    used += frame.bytes.len();
                    if frame.header.next_offset() <= offset {
                        skipped = used;
                    } else {
                        expected = frame.header.next_offset();
                    }
                }
                Ok(None) => break,
                // What is whole before the damage is given; the next read begins at it.
                Err(_) if used > skipped => break,
                Err(fault) => {
                    self.position += used as u64;
                    return Err(self.corrupt(offset, &fault));
                }
            }
        }
        self.position += used as u64;
        frames.buffer.drain(..skipped);
        frames.used = used - skipped;
        if frames.used > 0 {
            return Ok(true);
        }
        if self.position >= end {
            return Err(Fault::Corrupt { offset, detail: "its segment does not hold it".into() });
        }
        if used == 0 && read == 0 {
            return Err(self.corrupt(offset, &"the segment is cut"));
        }
        if used == 0 {
            *want *= 2;
        }
        Ok(false)
    }

    pub(super) fn corrupt(&self, offset: u64, cause: &dyn std::fmt::Display) -> Fault {
        let Self { group, sequence, position, .. } = self;
        Fault::Corrupt { offset, detail: Arc::from(format!("segment {group}-{sequence} at byte {position}: {cause}")) }
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
