//! What a group is between requests: its accepted head (offsets, times, ids), who produced into it, and its log.
//!
//! Everything is decided here on the accepted head, which runs ahead of what is durable; whoever asked is answered by the
//! shard once the journal entry that holds the decision is durable.

pub mod config;
pub mod consumer;
pub mod gaps;
pub mod ids;
pub mod name;
pub mod producers;
pub mod record;
pub mod retention;
pub mod table;

use crate::log::event::NewEvents;
use crate::log::frame::{FrameHeader, ProducerStamp, request_overhead};
use crate::log::group_log::{GroupLog, Need, SegmentLimits, Trimmed};
use bytes::Bytes;
use config::GroupConfig;
use consumer::{Consumer, Consumers, There};
use gaps::{Gap, Gaps};
use ids::Ids;
use producers::{Producers, Verdict};
use std::collections::VecDeque;
use thiserror::Error;

/// One request to add events: stored together or not at all.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'b> {
    /// The events; at least one.
    pub events: &'b NewEvents,
    /// Who sends it, if it wants repeats to be known.
    pub producer: Option<ProducerStamp<'b>>,
    /// The offset that the first event must get.
    pub expect_offset: Option<u64>,
}

/// What became of a request's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of the first; `None` for a repeat that is too old to be remembered.
    pub first_offset: Option<u64>,
    /// How many; 0 with an unknown `first_offset`.
    pub count: u32,
    /// Ids of the first and the last, and when they were received (µs); `None` for a repeat.
    pub stamps: Option<Stamps>,
}

/// What the broker added to a request's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// Id of the first event.
    pub first_id: u128,
    /// Id of the last event.
    pub last_id: u128,
    /// When they were received, µs since 1970.
    pub received_us: u64,
}

/// Why events were not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The group was deleted.
    #[error("the group was deleted")]
    Closed,
    /// The next offset is another one.
    #[error("the next offset is {tail}")]
    UnexpectedOffset {
        /// The next offset.
        tail: u64,
    },
    /// The producer's sequence has a gap.
    #[error("the next sequence number is {expected}")]
    SequenceGap {
        /// What should have come.
        expected: u64,
    },
    /// Nothing is known of this producer, and it does not begin at 0.
    #[error("this producer is not known here (any more): it begins again at sequence number 0")]
    ProducerUnknown,
    /// A newer epoch of this producer has been seen.
    #[error("epoch {epoch} of this producer has begun")]
    ProducerFenced {
        /// The newest epoch.
        epoch: u64,
    },
    /// A consumer may not do it.
    #[error("{0}")]
    Consumer(consumer::Refusal),
}

/// What [`Group::accept`] may come to besides a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// Final, and resting on what was accepted before.
    Refused(Refusal),
    /// Something must happen first; then ask again.
    Needs(Need),
}

/// One group of a shard.
pub struct Group {
    /// Its number, never used again.
    pub number: u32,
    /// How it is kept.
    pub config: GroupConfig,
    /// Segments and tail.
    pub log: GroupLog,
    /// Who produced into it.
    pub producers: Producers,
    /// Who reads it with a position of its own.
    pub consumers: Consumers,
    /// Smallest offset that is kept: the accepted head of what is trimmed.
    pub earliest: u64,
    /// Offsets that a repair gave up.
    pub gaps: Gaps,
    /// Whether it was deleted and only its files are left.
    pub closed: bool,
    /// Offset that the next event gets.
    next_offset: u64,
    last_received_us: u64,
    /// Up to when somebody was told that nothing can come any more.
    settled_us: u64,
    ids: Ids,
    /// Offset behind the last event that everybody may see.
    visible_next: u64,
    /// Smallest offset that can be read.
    visible_earliest: u64,
    /// Journal entry that holds the last change, durable or not.
    pub last_entry: u64,
    /// `received` of the last frame that recovery placed, to take the last id from.
    last_replayed: Option<Bytes>,
}

impl Group {
    /// A new group whose first event will be `first_offset`.
    #[must_use]
    pub fn new(number: u32, first_offset: u64, config: GroupConfig) -> Self {
        Self::restore(record::GroupRecord {
            number,
            config,
            earliest: first_offset,
            next_offset: first_offset,
            last_received_us: 0,
            last_id: 0,
            closed: false,
            next_sequence: 0,
            segments: VecDeque::new(),
            gaps: Gaps::default(),
            producers: Producers::default(),
        })
    }

    /// A group as a state file knew it.
    #[must_use]
    pub fn restore(record: record::GroupRecord) -> Self {
        Self {
            number: record.number,
            config: record.config,
            log: GroupLog::restore(record.number, record.next_offset, record.segments, record.next_sequence),
            producers: record.producers,
            consumers: Consumers::new(),
            earliest: record.earliest,
            gaps: record.gaps,
            closed: record.closed,
            next_offset: record.next_offset,
            last_received_us: record.last_received_us,
            settled_us: 0,
            ids: Ids::behind(record.last_id),
            visible_next: record.next_offset,
            visible_earliest: record.earliest,
            last_entry: 0,
            last_replayed: None,
        }
    }

    /// Offset behind the last event that everybody may see: the durable tail.
    #[must_use]
    pub fn visible_next(&self) -> u64 {
        self.visible_next
    }

    /// Smallest offset that can be read.
    #[must_use]
    pub fn visible_earliest(&self) -> u64 {
        self.visible_earliest
    }

    /// What everybody may read.
    #[must_use]
    pub fn there(&self) -> There<'_> {
        There { earliest: self.visible_earliest, tail: self.visible_next, gaps: &self.gaps }
    }

    /// A consumer about to decide something, with what it may read.
    pub fn consumer_mut(&mut self, name: &str) -> Option<(&mut Consumer, There<'_>)> {
        let there = There { earliest: self.visible_earliest, tail: self.visible_next, gaps: &self.gaps };
        self.consumers.get_mut(name).map(|consumer| (consumer, there))
    }

    /// Offset that the next event gets: the accepted head.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// `received` of the newest event, µs; 0 when there never was one.
    #[must_use]
    pub fn last_received_us(&self) -> u64 {
        self.last_received_us
    }

    /// Nothing is received before that time any more, also if the clock is set back.
    pub fn settle(&mut self, now_us: u64) {
        self.settled_us = self.settled_us.max(now_us);
    }

    /// Id of the newest event; 0 when there never was one.
    #[must_use]
    pub fn last_id(&self) -> u128 {
        self.ids.last()
    }

    /// Takes a request's events onto the accepted head, as part of journal entry `entry`.
    ///
    /// # Errors
    /// A refusal that rests on [`last_entry`](Self::last_entry), or what must happen first; nothing changed in either case.
    pub fn accept(
        &mut self,
        batch: &Batch<'_>,
        now_us: u64,
        entry: u64,
        frame_bytes_max: usize,
    ) -> Result<Receipt, NotAccepted> {
        if self.closed {
            return Err(NotAccepted::Refused(Refusal::Closed));
        }
        let received_us = now_us.max(self.last_received_us).max(self.settled_us);
        if let Some(stamp) = &batch.producer {
            match self.producers.judge(stamp, received_us) {
                Verdict::Next => {}
                Verdict::Repeat(answer) => {
                    let (first_offset, count) = answer.map_or((None, 0), |(first, count)| (Some(first), count));
                    return Ok(Receipt { first_offset, count, stamps: None });
                }
                Verdict::Refused(refusal) => return Err(NotAccepted::Refused(refusal)),
            }
        }
        if batch.expect_offset.is_some_and(|expected| expected != self.next_offset) {
            return Err(NotAccepted::Refused(Refusal::UnexpectedOffset { tail: self.next_offset }));
        }
        let bytes = batch.events.stored_bytes() + request_overhead(batch.producer.as_ref());
        let limits = self.config.segment_limits();
        let first_offset = self.next_offset;
        let frame = self.log.frame_for(first_offset, bytes, received_us, limits, frame_bytes_max);
        let frame = frame.map_err(NotAccepted::Needs)?;

        let count = batch.events.count();
        let ids = &mut self.ids;
        let mut first_id = None;
        let next_id = || {
            let id = ids.next(received_us, self.number);
            first_id.get_or_insert(id);
            id
        };
        frame.push(batch.producer.as_ref(), batch.events, received_us, next_id);

        self.next_offset += u64::from(count);
        self.last_received_us = received_us;
        self.last_entry = entry;
        if let Some(stamp) = &batch.producer {
            self.producers.note(stamp, first_offset, count, received_us);
        }
        let first_id = first_id.expect("a request holds an event");
        let stamps = Stamps { first_id, last_id: self.ids.last(), received_us };
        Ok(Receipt { first_offset: Some(first_offset), count, stamps: Some(stamps) })
    }

    /// Everything below `next_offset` is durable. Returns whether that is news.
    pub fn reveal(&mut self, next_offset: u64) -> bool {
        debug_assert!(next_offset <= self.next_offset);
        let news = next_offset > self.visible_next;
        self.visible_next = self.visible_next.max(next_offset);
        news
    }

    /// Gives up what is below `earliest`. Consumers that still wanted it are shown to `victim` first, and then know of the
    /// gap.
    pub fn trim(&mut self, earliest: u64, mut victim: impl FnMut(&str, &mut Consumer)) {
        self.earliest = earliest;
        for (name, consumer) in self.consumers.iter_mut().filter(|(_, consumer)| consumer.wants_below(earliest)) {
            victim(name, consumer);
            consumer.lose_before(earliest);
        }
    }

    /// What was trimmed is durably gone.
    pub fn trimmed(&mut self, earliest: u64) -> Trimmed {
        self.visible_earliest = self.visible_earliest.max(earliest);
        self.log.trim(earliest)
    }

    /// How large segments may become.
    #[must_use]
    pub fn segment_limits(&self) -> SegmentLimits {
        self.config.segment_limits()
    }

    /// Applies a frame that recovery found in journal entry `entry`.
    ///
    /// # Errors
    /// When the frame does not continue this group's log.
    pub fn replay(&mut self, header: &FrameHeader, bytes: Bytes, entry: u64) -> Result<(), String> {
        if header.first_offset != self.next_offset {
            return Err(format!(
                "group {}: the next offset is {}, the frame begins at {}",
                self.number, self.next_offset, header.first_offset
            ));
        }
        if !header.begins_segment && self.log.active().is_none() {
            return Err(format!("group {}: a frame continues a segment that is not there", self.number));
        }
        let frame = crate::log::frame::Frame::check(&bytes).map_err(|fault| fault.to_string())?;
        let frame = frame.ok_or("a frame is cut")?;
        for request in frame.requests() {
            let request = request.map_err(|fault| fault.to_string())?;
            if let Some(stamp) = &request.producer {
                self.producers.note(stamp, request.first_offset, request.events, header.last_received_us);
            }
        }
        self.log.replay(&frame, bytes.clone(), entry);
        self.last_replayed = Some(bytes);
        self.next_offset = header.next_offset();
        self.last_received_us = header.last_received_us;
        self.last_entry = entry;
        Ok(())
    }

    /// Gives up the offsets below `to` that were lost: a gap is recorded, and the next frame begins a segment at `to`.
    pub fn lose(&mut self, to: u64) {
        self.gaps.add(Gap { from: self.next_offset, to });
        self.next_offset = to;
        self.log.leave_gap(to);
    }

    /// Ends recovery: takes the last id from the last frame, and shows what was recovered.
    ///
    /// # Errors
    /// When the last frame's events cannot be decoded.
    pub fn recovered(&mut self) -> Result<(), String> {
        if let Some(bytes) = self.last_replayed.take() {
            let frame = crate::log::frame::Frame::trusted(&bytes).map_err(|fault| fault.to_string())?;
            let last = frame.events().last().ok_or("a frame is empty")?.map_err(|fault| fault.to_string())?;
            self.ids = Ids::behind(last.id);
        }
        self.visible_next = self.next_offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
