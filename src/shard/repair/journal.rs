//! A damaged journal: what stands before the damage is applied, then whatever is whole behind it; groups go on above
//! everything that may be lost.
//!
//! A later frame of a group says where it goes on, so the gap before it is exact. Where no later frame is left, arithmetic
//! bounds what is lost: a hole of so many bytes held at most that many of the smallest events.

use super::report::{JournalLoss, LostEntries};
use super::segments::HurtSegments;
use crate::group::gaps::Gap;
use crate::io::buffer::AlignedBuffer;
use crate::log::entry::{PartKind, Parts};
use crate::log::event::EVENT_FIXED_BYTES;
use crate::log::frame::FrameHeader;
use crate::log::journal::Ring;
use crate::log::recovery::{End, NotApplied};
use crate::log::salvage::{Hole, Piece, Salvaged, Tolerant, salvage};
use crate::log::wire::{Fields, Malformed};
use crate::shard::examine::{Examined, Reading, RecoverFault};
use crate::shard::init::{Layout, journal_path};
use crate::shard::owner;
use crate::shard::replay::Replay;
use foldhash::{HashMap, HashMapExt};
use std::io;

/// A shard as its files say, with what was saved from behind the damage, if its journal is damaged.
pub(super) struct Saved {
    pub(super) examined: Examined,
    pub(super) loss: Option<Loss>,
    /// Segments that cannot be read as a whole.
    pub(super) hurt: HurtSegments,
    /// Where the journal goes on: behind everything that this lap can hold, so nothing of it is ever read as new.
    pub(super) next_address: u64,
    /// Index of the entry written next.
    pub(super) next_index: u64,
}

/// What a damaged journal cost.
pub(super) struct Loss {
    pub(super) journal: JournalLoss,
    /// Bytes of the journal that are lost.
    pub(super) bytes: u64,
    /// Most events that can be lost of any group.
    pub(super) events: u64,
    pub(super) gaps: Vec<LostRange>,
}

/// Offsets that a group gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostRange {
    pub(super) group: u32,
    pub(super) gap: Gap,
    /// Whether all of them held events.
    pub(super) exact: bool,
}

/// Reads a shard to its end.
///
/// # Errors
/// Why that cannot be done, or must not: a newer version wrote it.
pub(super) fn save(layout: &Layout, mut reading: Reading<'_>) -> Result<Saved, RecoverFault> {
    let files = reading.files.clone();
    let mut plain = |slot: usize, position: u64, buffer: &mut AlignedBuffer| -> io::Result<()> {
        files[slot].read(buffer, position)
    };
    let mut journal = Tolerant::new(&mut plain);
    let walked = reading.walk(&mut journal.reader())?;
    let behind = reading.behind();
    let (next_address, next_index) = (behind + Ring::first_address(), walked.head.next_index);
    let unreadable = journal.unreadable(layout.ring, walked.head.next_address, behind).next().is_some();
    if !matches!(walked.end, End::Damaged { .. }) && !unreadable {
        let (examined, hurt) = (reading.conclude(walked)?, HurtSegments::new());
        return Ok(Saved { examined, loss: None, hurt, next_address, next_index });
    }
    let number = reading.number;
    let mut saver = Saver::new(number, &mut reading.replay);
    let visit = |piece: Piece<'_>| match piece {
        Piece::Hole(hole) => {
            saver.hole(hole);
            Ok(true)
        }
        Piece::Entry(header, parts) => saver.entry(header.index, parts),
    };
    let salvaged = salvage(owner(layout.identity, number), &walked.head, behind, &mut journal, visit);
    let (events, gaps) = saver.finish();
    let Salvaged { entries, holes, next_index } = salvaged.map_err(|cause| reading.fault(cause))?;
    let lost = |hole: &Hole| {
        let (slot, byte) = layout.ring.place(hole.address);
        let file = journal_path(&reading.directory, slot as u64);
        LostEntries { index: hole.index, entries: hole.entries, file, byte, bytes: hole.bytes }
    };
    let loss = Loss {
        journal: JournalLoss { shard: number, lost: holes.iter().map(lost).collect(), saved: entries },
        bytes: holes.iter().map(|hole| hole.bytes).sum(),
        events,
        gaps,
    };
    let (examined, hurt) = (reading.conclude(walked)?, HurtSegments::new());
    Ok(Saved { examined, loss: Some(loss), hurt, next_address, next_index })
}

/// Applies what was saved.
struct Saver<'r> {
    shard: u16,
    replay: &'r mut Replay,
    /// Most events that the holes so far can have held.
    lost: u64,
    /// What that was when a group's next offset was last known for sure.
    known: HashMap<u32, u64>,
    gaps: Vec<LostRange>,
}

impl<'r> Saver<'r> {
    fn new(shard: u16, replay: &'r mut Replay) -> Self {
        Self { shard, replay, lost: 0, known: HashMap::new(), gaps: Vec::new() }
    }

    fn hole(&mut self, hole: Hole) {
        self.lost += hole.bytes / EVENT_FIXED_BYTES as u64;
    }

    /// How many events of a group can be lost since its last frame.
    fn lost_of(&self, group: u32) -> u64 {
        self.lost - self.known.get(&group).copied().unwrap_or(0)
    }

    /// Applies an entry, or none of it (`false`): an entry whose frames do not fit what is known is as good as lost.
    fn entry(&mut self, index: u64, parts: Parts<'_>) -> Result<bool, NotApplied> {
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let mut next_offsets = HashMap::new();
        for (_, bytes) in parts.iter().filter(|(kind, _)| *kind == PartKind::Frame) {
            let header = frame_header(bytes)?;
            let Some(group) = self.replay.groups.get(&header.group) else { continue };
            let next = next_offsets.insert(header.group, header.next_offset()).unwrap_or(group.next_offset());
            let lost = header.first_offset.checked_sub(next);
            if lost.is_none_or(|lost| lost > self.lost_of(header.group)) {
                return Ok(false);
            }
        }
        for (kind, bytes) in parts {
            match kind {
                PartKind::Frame => self.frame(index, bytes)?,
                // What it would change may be lost.
                _ => match self.replay.apply_part(self.shard, index, kind, bytes) {
                    Err(NotApplied::Senseless(_)) => continue,
                    applied => applied?,
                },
            }
            if kind == PartKind::GroupRegistered {
                self.known.insert(Fields::new(bytes).u32()?, self.lost);
            }
        }
        Ok(true)
    }

    fn frame(&mut self, index: u64, bytes: &[u8]) -> Result<(), NotApplied> {
        let header = frame_header(bytes)?;
        self.known.insert(header.group, self.lost);
        let Some(group) = self.replay.groups.get_mut(&header.group) else {
            return self.replay.apply_part(self.shard, index, PartKind::Frame, bytes);
        };
        if group.next_offset() < header.first_offset {
            let gap = Gap { from: group.next_offset(), to: header.first_offset };
            group.lose(gap.to);
            self.gaps.push(LostRange { group: header.group, gap, exact: true });
        }
        // The frame that began the segment may be lost.
        match group.log.active() {
            Some(_) => self.replay.apply_part(self.shard, index, PartKind::Frame, bytes),
            None => {
                let first = FrameHeader::beginning_segment(bytes);
                self.replay.apply_part(self.shard, index, PartKind::Frame, &first)
            }
        }
    }

    /// Every group goes on above what may be lost. Gives the most events that may be, and all gaps.
    fn finish(mut self) -> (u64, Vec<LostRange>) {
        let mut numbers: Vec<u32> = self.replay.groups.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let lost = self.lost_of(number);
            let Some(group) = self.replay.groups.get_mut(&number).filter(|_| lost > 0) else { continue };
            let gap = Gap { from: group.next_offset(), to: group.next_offset() + lost };
            group.lose(gap.to);
            self.gaps.push(LostRange { group: number, gap, exact: false });
        }
        (self.lost, self.gaps)
    }
}

fn frame_header(bytes: &[u8]) -> Result<FrameHeader, NotApplied> {
    Ok(FrameHeader::decode(bytes)?.ok_or(Malformed("a frame is cut"))?)
}
