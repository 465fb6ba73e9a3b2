//! One group's log as its shard keeps it: segments, and the tail of frames that are not in a segment yet.
//!
//! ```text
//! segments  [sealed][sealed][active ··· flushed ┊ tail in memory ┊ open frames ┊ allocated room ···][next]
//! offsets                    flushed_next <= visible_next <= sealed_next <= next (accepted)
//! ```
//!
//! Where a frame goes is decided when its first request is accepted, for a request is accepted only when the bytes it
//! needs are allocated. A frame that begins a segment carries that as a flag, so recovery draws the same boundaries from
//! the same frames. Nothing here touches a file; what must be done on disk is handed out as values.

use super::frame::{Frame, FrameBuilder, FrameHeader};
use super::index::SegmentIndex;
use super::segment::{SEGMENT_START, Segment};
use crate::limits::FLUSH_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;

/// Memory taken for a frame before its requests are there, at most.
const FRAME_BYTES_EXPECTED_MAX: usize = 16 << 10;

/// A frame that stands in the journal and in memory, and not (for sure) in its segment.
#[derive(Clone, Debug)]
pub struct TailFrame {
    /// Journal entry that holds it.
    pub entry: u64,
    /// Offset of its first event.
    pub first_offset: u64,
    /// Offset behind its last event.
    pub next_offset: u64,
    /// `received` of its last event, µs.
    pub last_received_us: u64,
    /// Sequence number of its segment, which names the file.
    pub segment: u32,
    /// Where it begins in the file.
    pub position: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What a request has to wait for before it can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The active segment's file must be allocated up to this length.
    Grow(u64),
    /// The next segment's file must be made and allocated up to this length.
    Next(u64),
    /// The open frames must be sealed first: they already go to the next segment.
    Seal,
}

/// What a trim took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Sequence numbers of the segments.
    pub sequences: Vec<u32>,
    /// Bytes of the tail that were freed.
    pub freed: usize,
}

/// How large a group's segments may become; part of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Bytes of frames; only a single larger request exceeds it.
    pub bytes_max: u64,
    /// Time between the first and the last event, µs.
    pub age_us_max: u64,
}

/// Segments and tail of one group.
pub struct GroupLog {
    group: u32,
    segments: VecDeque<Segment>,
    /// Sequence number of the segment behind the last one that there ever was.
    next_sequence: u32,
    tail: VecDeque<TailFrame>,
    tail_bytes: usize,
    open: Vec<FrameBuilder>,
    /// Length of the last frame: the next one will be about as long.
    last_frame_bytes: usize,
    /// Offset behind the last event that is in a segment.
    flushed_next: u64,
    /// Offset behind the last sealed frame.
    sealed_next: u64,
    /// End of the planned frames in the segment that the next request goes to.
    planned_end: u64,
    /// `received` of the first event of that segment.
    planned_first_received_us: u64,
    /// Whether the plan has moved on to the next segment.
    plan_uses_next: bool,
    /// Bytes allocated for the active segment's file.
    allocated: u64,
    /// Bytes allocated for the next segment's file; 0 while there is none.
    next_allocated: u64,
    /// Index of the active segment's frames that were placed since start-up.
    index: SegmentIndex,
    /// Whether `index` covers the active segment from its beginning.
    index_complete: bool,
    /// Sealed segments without a footer yet, with their index if it is known.
    unfinished: Vec<(Segment, Option<SegmentIndex>)>,
}

impl GroupLog {
    /// An empty log that begins at `first_offset`.
    #[must_use]
    pub fn new(group: u32, first_offset: u64) -> Self {
        Self::restore(group, first_offset, VecDeque::new(), 0)
    }

    /// A log whose segments hold everything below `next_offset`. The next segment gets the number `next_sequence`.
    #[must_use]
    pub fn restore(group: u32, next_offset: u64, segments: VecDeque<Segment>, next_sequence: u32) -> Self {
        let active = segments.back().filter(|segment| !segment.sealed).copied();
        Self {
            group,
            next_sequence,
            tail: VecDeque::new(),
            tail_bytes: 0,
            open: Vec::new(),
            last_frame_bytes: 0,
            flushed_next: next_offset,
            sealed_next: next_offset,
            planned_end: active.map_or(0, |segment| segment.end),
            planned_first_received_us: active.map_or(0, |segment| segment.first_received_us),
            plan_uses_next: false,
            allocated: active.map_or(0, |segment| segment.end),
            next_allocated: 0,
            index: SegmentIndex::default(),
            index_complete: active.is_none(),
            unfinished: Vec::new(),
            segments,
        }
    }

    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// The segment that frames are added to.
    #[must_use]
    pub fn active(&self) -> Option<&Segment> {
        self.segments.back().filter(|segment| !segment.sealed)
    }

    /// Bytes of frames that are only in memory and the journal.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Events that are only in memory and the journal.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.tail.iter().map(|frame| frame.next_offset - frame.first_offset).sum()
    }

    /// Journal entry that holds the oldest frame of the tail.
    #[must_use]
    pub fn oldest_entry(&self) -> Option<u64> {
        self.tail.front().map(|frame| frame.entry)
    }

    /// Offset behind the last event that is in a segment.
    #[must_use]
    pub fn flushed_next(&self) -> u64 {
        self.flushed_next
    }

    /// Index of the active segment, and whether it covers the segment from its beginning.
    #[must_use]
    pub fn active_index(&self) -> (&SegmentIndex, bool) {
        (&self.index, self.index_complete)
    }

    /// Takes the index of what stood in the active segment before start-up.
    pub fn complete_index(&mut self, sequence: u32, earlier: SegmentIndex) {
        if !self.index_complete && self.active().is_some_and(|active| active.sequence == sequence) {
            self.index.prepend(earlier);
            self.index_complete = true;
        }
    }

    // ---- accepting

    /// Frame for a request of `bytes` received at `received_us`, whose first event will be `offset`; or what it needs first.
    ///
    /// # Errors
    /// What must happen before the request can be accepted.
    pub fn frame_for(
        &mut self,
        offset: u64,
        bytes: usize,
        received_us: u64,
        limits: SegmentLimits,
        frame_bytes_max: usize,
    ) -> Result<&mut FrameBuilder, Need> {
        let header = super::frame::FRAME_HEADER_BYTES;
        let joins = self.open.last().is_some_and(|open| open.bytes() + bytes <= frame_bytes_max);
        let added = (bytes + if joins { 0 } else { header }) as u64;
        let aged = received_us.saturating_sub(self.planned_first_received_us) >= limits.age_us_max;
        let full = self.planned_end > SEGMENT_START && self.planned_end + added > limits.bytes_max;
        if self.planned_end == 0 || full || aged {
            return self.frame_in_next(offset, bytes, received_us);
        }
        let room = if self.plan_uses_next { self.next_allocated } else { self.allocated };
        if self.planned_end + added > room {
            let length = self.planned_end + added;
            return Err(if self.plan_uses_next { Need::Next(length) } else { Need::Grow(length) });
        }
        self.planned_end += added;
        if !joins {
            let capacity = bytes.max(self.last_frame_bytes.min(FRAME_BYTES_EXPECTED_MAX));
            self.open.push(FrameBuilder::new(self.group, offset, false, capacity));
        }
        Ok(self.open.last_mut().expect("a frame is open"))
    }

    fn frame_in_next(&mut self, offset: u64, bytes: usize, received_us: u64) -> Result<&mut FrameBuilder, Need> {
        if self.plan_uses_next {
            return Err(Need::Seal);
        }
        let end = SEGMENT_START + (super::frame::FRAME_HEADER_BYTES + bytes) as u64;
        if self.next_allocated < end {
            return Err(Need::Next(end));
        }
        self.plan_uses_next = true;
        self.planned_end = end;
        self.planned_first_received_us = received_us;
        self.open.push(FrameBuilder::new(self.group, offset, true, bytes));
        Ok(self.open.last_mut().expect("a frame was just opened"))
    }

    /// Whether more room should be allocated before it is needed, and which.
    #[must_use]
    pub fn wants(&self, limits: SegmentLimits) -> Option<Need> {
        if self.plan_uses_next || self.planned_end == 0 {
            return None;
        }
        let used = self.planned_end;
        if used * 4 > limits.bytes_max * 3 {
            return (self.next_allocated == 0).then_some(Need::Next(SEGMENT_START + 1));
        }
        (used * 2 > self.allocated && self.allocated < limits.bytes_max).then_some(Need::Grow(self.allocated + 1))
    }

    /// The length to allocate so that at least `length` is there: doubling, in steps that the disk hardly notices.
    #[must_use]
    pub fn allocation(&self, need: Need, limits: SegmentLimits) -> u64 {
        const STEP_MAX: u64 = 64 << 20;
        let (at_least, base) = match need {
            Need::Grow(length) => (length, self.allocated),
            Need::Next(length) => (length, self.active().map_or(0, |active| active.end / 2)),
            Need::Seal => (0, 0),
        };
        let doubled = (base * 2).min(base + STEP_MAX).max(crate::limits::SEGMENT_FIRST_BYTES);
        doubled.min(limits.bytes_max).max(at_least).next_multiple_of(crate::limits::BLOCK_BYTES as u64)
    }

    /// The file of the active or the next segment is allocated up to `length`.
    pub fn allocated(&mut self, sequence: u32, length: u64) {
        if self.active().is_some_and(|active| active.sequence == sequence) {
            self.allocated = self.allocated.max(length);
        } else if sequence == self.next_sequence() {
            self.next_allocated = self.next_allocated.max(length);
        }
    }

    /// Sequence number of the segment behind the last one that there ever was.
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        self.next_sequence
    }

    /// Bytes of frames in all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end - SEGMENT_START).sum()
    }

    // ---- sealing

    /// Whether a frame takes requests that are part of no journal entry yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Finishes the open frames as part of journal entry `entry`; they join the tail. Returns how many there were.
    pub fn seal(&mut self, entry: u64) -> usize {
        let count = self.open.len();
        for open in std::mem::take(&mut self.open) {
            let data_bytes = open.data_bytes();
            let (header, bytes) = open.finish();
            self.last_frame_bytes = bytes.len();
            self.place(&header, Bytes::from(bytes), data_bytes, entry);
        }
        count
    }

    /// Places a frame that recovery found in the journal.
    pub fn replay(&mut self, frame: &Frame<'_>, bytes: Bytes, entry: u64) {
        self.place(&frame.header, bytes, frame.data_bytes(), entry);
        let active = self.active().copied().expect("a frame was just placed");
        self.planned_end = active.end;
        self.planned_first_received_us = active.first_received_us;
    }

    fn place(&mut self, header: &FrameHeader, bytes: Bytes, data_bytes: u64, entry: u64) {
        if header.begins_segment {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.end_active();
            self.segments.push_back(Segment {
                sequence,
                first_offset: header.first_offset,
                next_offset: header.first_offset,
                end: SEGMENT_START,
                first_received_us: header.first_received_us,
                last_received_us: header.first_received_us,
                sealed: false,
            });
            self.allocated = std::mem::take(&mut self.next_allocated);
            self.plan_uses_next = false;
            self.index = SegmentIndex::default();
            self.index_complete = true;
        }
        let active = self.segments.back_mut().expect("a group's first frame begins a segment");
        self.index.note(header, active.end, Some(data_bytes));
        let frame = TailFrame {
            entry,
            first_offset: header.first_offset,
            next_offset: header.next_offset(),
            last_received_us: header.last_received_us,
            segment: active.sequence,
            position: active.end,
            bytes,
        };
        active.end += frame.bytes.len() as u64;
        active.next_offset = frame.next_offset;
        active.last_received_us = header.last_received_us;
        self.sealed_next = frame.next_offset;
        self.tail_bytes += frame.bytes.len();
        self.tail.push_back(frame);
    }

    fn end_active(&mut self) {
        if let Some(active) = self.segments.back_mut().filter(|segment| !segment.sealed) {
            active.sealed = true;
            let index = std::mem::take(&mut self.index);
            self.unfinished.push((*active, self.index_complete.then_some(index)));
        }
    }

    /// Seals the active segment, which no request is under way to: whatever comes next begins another one.
    pub fn seal_active(&mut self) {
        debug_assert!(self.open.is_empty());
        self.end_active();
        self.planned_end = 0;
        self.allocated = 0;
    }

    /// Leaves a gap up to `to`, which no request is under way to: whatever comes next begins a segment there.
    pub fn leave_gap(&mut self, to: u64) {
        debug_assert!(to > self.sealed_next);
        self.seal_active();
        self.sealed_next = to;
        if self.tail.is_empty() {
            self.flushed_next = to;
        }
    }

    /// The frames sealed last, newest `count` of the tail.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &TailFrame> {
        self.tail.range(self.tail.len() - count..)
    }

    // ---- flushing

    /// Whether the tail should be moved to its segments now: there is enough of it, or a segment of it takes no more.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.tail_bytes >= FLUSH_BYTES || (!self.unfinished.is_empty() && self.tail_bytes > 0)
    }

    /// The frames at the front of the tail that entries up to `durable` hold, at most `bytes_max` (one at least).
    #[must_use]
    pub fn to_flush(&self, durable: u64, bytes_max: usize) -> Vec<TailFrame> {
        let mut bytes = 0;
        let ready = self.tail.iter().take_while(|frame| frame.entry <= durable);
        let within = ready.take_while(|frame| {
            let first = bytes == 0;
            bytes += frame.bytes.len();
            first || bytes <= bytes_max
        });
        within.cloned().collect()
    }

    /// Everything below `next_offset` is in its segment; the tail forgets it. Returns the bytes freed.
    pub fn flushed(&mut self, next_offset: u64) -> usize {
        let mut freed = 0;
        while let Some(frame) = self.tail.front().filter(|frame| frame.next_offset <= next_offset) {
            freed += frame.bytes.len();
            self.flushed_next = frame.next_offset;
            self.tail.pop_front();
        }
        self.tail_bytes -= freed;
        if self.tail.is_empty() {
            self.tail.shrink_to(4);
        }
        freed
    }

    /// Sealed segments whose last frame is in the file, so that the footer can be written behind it.
    pub fn take_finished(&mut self) -> Vec<(Segment, Option<SegmentIndex>)> {
        let flushed_next = self.flushed_next;
        self.unfinished.extract_if(.., |(segment, _)| segment.next_offset <= flushed_next).collect()
    }

    // ---- trimming

    /// The segments that may go: sealed, and whole in their files.
    pub fn finished(&self) -> impl Iterator<Item = &Segment> {
        let flushed_next = self.flushed_next;
        self.segments.iter().take_while(move |segment| segment.sealed && segment.next_offset <= flushed_next)
    }

    /// Forgets the segments that end at or below `earliest`, and what of them is in memory alone, as after a start.
    pub fn trim(&mut self, earliest: u64) -> Trimmed {
        let gone = self.segments.partition_point(|segment| segment.next_offset <= earliest);
        self.unfinished.retain(|(segment, _)| segment.next_offset > earliest);
        let sequences = self.segments.drain(..gone).map(|segment| segment.sequence).collect();
        let freed = self.flushed(earliest);
        self.flushed_next = self.flushed_next.max(earliest);
        Trimmed { sequences, freed }
    }

    // ---- reading

    /// Frames of the tail from the one that holds `offset`, visible ones only, up to `bytes_max` (one at least).
    #[must_use]
    pub fn read_tail(&self, offset: u64, visible_next: u64, bytes_max: usize) -> Vec<Bytes> {
        let start = self.tail.partition_point(|frame| frame.next_offset <= offset);
        let mut bytes = 0;
        let visible = self.tail.range(start..).take_while(|frame| frame.next_offset <= visible_next);
        let within = visible.take_while(|frame| {
            let first = bytes == 0;
            bytes += frame.bytes.len();
            first || bytes <= bytes_max
        });
        within.map(|frame| frame.bytes.clone()).collect()
    }

    /// The segment that holds `offset`, with the end of what of it is flushed.
    #[must_use]
    pub fn segment_of(&self, offset: u64) -> Option<(&Segment, u64)> {
        let place = self.segments.partition_point(|segment| segment.next_offset <= offset);
        let segment = self.segments.get(place).filter(|segment| segment.first_offset <= offset)?;
        let flushed_end = match self.tail.front() {
            Some(front) if front.segment == segment.sequence => front.position,
            Some(front) if front.segment < segment.sequence => SEGMENT_START,
            _ => segment.end,
        };
        Some((segment, flushed_end))
    }

    /// Offset of the first visible event of the tail received at or after `received_us`: the frame to look in.
    #[must_use]
    pub fn seek_time_in_tail(&self, received_us: u64) -> Option<u64> {
        let place = self.tail.partition_point(|frame| frame.last_received_us < received_us);
        self.tail.get(place).map(|frame| frame.first_offset)
    }
}
