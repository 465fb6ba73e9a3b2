//! Finding events: in the tail's memory, else in a segment; and waiting for the next one.
//!
//! Only what is visible, that is durable, is ever found. History may then be read by any core: a segment is handed out as
//! an open file and a range of it.

use super::frames::Place;
use super::{Fault, Shard};
use crate::group::gaps::{Gap, Gaps};
use crate::limits::READ_PIECE_BYTES;
use bytes::Bytes;
use std::task::Poll;

/// Where the events from some offset on are.
pub enum Found {
    /// Whole frames; the first one holds the offset.
    Memory(Vec<Bytes>),
    /// Frames in a file: the one that holds the offset begins there or behind.
    File(Place),
    /// Nothing is there and nothing ever will be: these events were lost. What comes next stands at `to`.
    Gap {
        /// First lost offset.
        from: u64,
        /// Offset behind the last lost one.
        to: u64,
    },
    /// Nothing is there yet.
    Tail,
}

/// A group's readable range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Smallest offset that can be read.
    pub earliest: u64,
    /// Next offset to become visible.
    pub tail: u64,
}

impl Shard {
    /// A group's readable range.
    ///
    /// # Errors
    /// When the group is not there or was deleted.
    pub fn range(&self, group: u32) -> Result<Range, Fault> {
        let state = self.state.borrow();
        let group = &state.member(group)?.group;
        if group.closed {
            return Err(Fault::NoGroup);
        }
        Ok(Range { earliest: group.visible_earliest(), tail: group.visible_next() })
    }

    /// Finds the events from `offset` on.
    ///
    /// # Errors
    /// When the group or the offset is not there (any more).
    pub async fn find(&self, group: u32, offset: u64) -> Result<Found, Fault> {
        let Range { earliest, tail } = self.range(group)?;
        if offset < earliest {
            return Err(Fault::Gone { earliest });
        }
        if offset >= tail {
            return if offset == tail { Ok(Found::Tail) } else { Err(Fault::BehindTail { tail }) };
        }
        let (segment, flushed_end) = {
            let state = self.state.borrow();
            let group = &state.member(group)?.group;
            if let Some(Gap { from, to }) = group.gaps.at(offset) {
                return Ok(Found::Gap { from, to });
            }
            let log = &group.log;
            if offset >= log.flushed_next() {
                return Ok(Found::Memory(log.read_tail(offset, tail, READ_PIECE_BYTES)));
            }
            let found = log.segment_of(offset).map(|(segment, flushed_end)| (*segment, flushed_end));
            found.ok_or(Fault::Corrupt { offset, detail: "no segment holds it".into() })?
        };
        let (file, position) = self.seek(group, segment, flushed_end, offset).await?;
        Ok(Found::File(Place { file, group, sequence: segment.sequence, position, end: flushed_end }))
    }

    /// A group's gaps, in order.
    ///
    /// # Errors
    /// When the group is not there.
    pub fn gaps(&self, group: u32) -> Result<Gaps, Fault> {
        Ok(self.state.borrow().member(group)?.group.gaps.clone())
    }

    /// The offset `count` events before `offset`, or the earliest: gaps hold no events.
    ///
    /// # Errors
    /// When the group is not there or was deleted.
    pub fn back(&self, group: u32, offset: u64, count: u64) -> Result<u64, Fault> {
        let Range { earliest, .. } = self.range(group)?;
        Ok(self.state.borrow().member(group)?.group.gaps.back(offset, count).max(earliest))
    }

    /// An offset at or before the first event received at or after `received_us`, close to it; the tail if there is none.
    ///
    /// # Errors
    /// When the group is not there (any more) or an index cannot be read.
    pub async fn find_time(&self, group: u32, received_us: u64) -> Result<u64, Fault> {
        let Range { earliest, tail } = self.range(group)?;
        let (segment, flushed_end) = {
            let state = self.state.borrow();
            let log = &state.member(group)?.group.log;
            let segments = log.segments();
            let place = segments.partition_point(|segment| segment.last_received_us < received_us);
            let Some(segment) = segments.get(place).copied() else { return Ok(tail) };
            if segment.first_offset >= log.flushed_next() {
                return Ok(log.seek_time_in_tail(received_us).unwrap_or(tail).clamp(earliest, tail));
            }
            let (_, flushed_end) = log.segment_of(segment.first_offset).unwrap_or((&segment, segment.end));
            (segment, flushed_end)
        };
        Ok(self.seek_time(group, segment, flushed_end, received_us).await?.clamp(earliest, tail))
    }

    /// Waits until the event at `offset` is visible, or the group is deleted. May be dropped at any time.
    pub async fn visible(&self, group: u32, offset: u64) {
        let mut watch = Watch { shard: self, group, id: None };
        std::future::poll_fn(|context| {
            let state = &mut *self.state.borrow_mut();
            let Some(member) = state.groups.get_mut(&group) else { return Poll::Ready(()) };
            if member.group.visible_next() > offset || member.group.closed {
                return Poll::Ready(());
            }
            let id = *watch.id.get_or_insert_with(|| {
                state.watches += 1;
                state.watches
            });
            member.watchers.insert(id, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A reader at the tail; one that goes away takes its waker along, for a quiet group would keep it for ever.
struct Watch<'s> {
    shard: &'s Shard,
    group: u32,
    id: Option<u64>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && let Some(member) = self.shard.state.borrow_mut().groups.get_mut(&self.group)
        {
            member.watchers.remove(&id);
        }
    }
}
