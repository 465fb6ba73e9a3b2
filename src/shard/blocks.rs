//! What the segments of a group hold, by their indexes alone: how many events and bytes between which times, block by block.

use super::{Fault, Shard};
use crate::log::index::{IndexEntry, SegmentIndex};
use crate::log::segment::{SEGMENT_START, Segment};

/// Events one behind the other that an index knows the edges of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Offset of the first.
    pub first_offset: u64,
    /// Offset behind the last.
    pub next_offset: u64,
    /// `received` of the first, µs.
    pub first_received_us: u64,
    /// No event in it was received later.
    pub last_received_us: u64,
    /// Where its frames end in the segment.
    pub end: u64,
    /// Bytes of the events' data.
    pub data_bytes: u64,
}

/// What a group's segments are, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset behind the last event.
    pub next_offset: u64,
    /// Bytes of frames.
    pub bytes: u64,
}

impl Shard {
    /// The segments of a group, oldest first.
    ///
    /// # Errors
    /// When the group is not there.
    pub fn extents(&self, group: u32) -> Result<Vec<Extent>, Fault> {
        let state = self.state.borrow();
        let segments = state.member(group)?.group.log.segments();
        let extent = |segment: &Segment| Extent {
            first_offset: segment.first_offset,
            next_offset: segment.next_offset,
            bytes: segment.end - SEGMENT_START,
        };
        Ok(segments.iter().map(extent).collect())
    }

    /// The blocks from `offset` on of the segment that holds it. None where no index knows: in the tail's memory, and in the
    /// last block of the active segment.
    ///
    /// # Errors
    /// When the group is not there (any more), or an index cannot be read.
    pub async fn blocks(&self, group: u32, offset: u64) -> Result<Vec<Block>, Fault> {
        let tail = self.range(group)?.tail;
        let found = {
            let state = self.state.borrow();
            let log = &state.member(group)?.group.log;
            let flushed = offset < log.flushed_next();
            log.segment_of(offset).filter(|_| flushed).map(|(segment, end)| (*segment, end))
        };
        let Some((segment, flushed_end)) = found else { return Ok(Vec::new()) };
        let (file, _) = self.seek(group, segment, flushed_end, segment.first_offset).await?;
        let (entries, end) = if segment.sealed {
            let index = self.sealed_index(group, segment, &file).await;
            let end =
                (segment.next_offset <= tail).then_some((segment.next_offset, segment.last_received_us, segment.end));
            (entries(&index), end)
        } else {
            let known = self.seek_active(group, segment, flushed_end, &file, segment.first_offset).await;
            known.map_err(|detail| Fault::Corrupt { offset, detail: detail.into() })?;
            (entries(self.state.borrow().member(group)?.group.log.active_index().0), None)
        };
        let edge = |entry: &IndexEntry| (entry.offset, entry.received_us, u64::from(entry.position));
        let edges = entries.iter().skip(1).map(edge).chain(end);
        // One that could not be read to its end is read again, so that whoever asks is told.
        let block = |(entry, (next_offset, last_received_us, end)): (&IndexEntry, (u64, u64, u64))| {
            Some(Block {
                first_offset: entry.offset,
                next_offset,
                first_received_us: entry.received_us,
                last_received_us,
                end,
                data_bytes: entry.data_bytes()?,
            })
        };
        let blocks = entries.iter().zip(edges).filter_map(block);
        Ok(blocks.filter(|block| block.next_offset > offset && block.next_offset <= tail).collect())
    }

    /// Up to when everything that was accepted is visible, and the offset behind it; `None` while something is under way.
    /// Nothing that comes later is received before that time.
    ///
    /// # Errors
    /// When the group is not there.
    pub fn all_visible(&self, group: u32) -> Result<Option<(u64, u64)>, Fault> {
        let now_us = self.clock.now_us();
        let tail = self.range(group)?.tail;
        let mut state = self.state.borrow_mut();
        let group = &mut state.groups.get_mut(&group).ok_or(Fault::NoGroup)?.group;
        if group.next_offset() != tail {
            return Ok(None);
        }
        group.settle(now_us);
        Ok(Some((now_us, tail)))
    }
}

fn entries(index: &SegmentIndex) -> Vec<IndexEntry> {
    index.behind(0).collect()
}
