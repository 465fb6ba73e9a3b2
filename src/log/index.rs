//! The sparse index of a segment: one entry per 64 KiB, sorted by offset, time and place at once.
//!
//! A sealed segment carries it as a footer behind its frames:
//!
//! ```text
//! entries: offset 8 · received 8 · position 4 · bytes of data up to the next entry 4 each
//! trailer: entries 4 · events 8 · first received 8 · last received 8 · frames end 4 · CRC-32 of the entries 4
//!          · magic "EDI2" 4 · CRC-32 of the 40 bytes before 4
//! ```
//!
//! A footer saves reading; it is never trusted over frames: whoever seeks checks the frame it finds there, and a missing
//! or damaged footer is made again by reading the segment.

use super::frame::FrameHeader;
use super::wire::{Fields, Malformed};
use crate::limits::INDEX_STRIDE_BYTES;

/// Length of a footer's trailer.
pub const TRAILER_BYTES: usize = 44;

const ENTRY_BYTES: usize = 24;
const UNKNOWN: u32 = u32::MAX;
const MAGIC: [u8; 4] = *b"EDI2";

/// One place in a segment where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of the frame's first event.
    pub offset: u64,
    /// `received` of the frame's first event, µs.
    pub received_us: u64,
    /// Where the frame begins in the file.
    pub position: u32,
    /// Bytes of data of the events from there to the next entry; the largest number where they are not known.
    data_bytes: u32,
}

impl IndexEntry {
    /// Bytes of data of the events from there to the next entry; `None` where not all of them were found whole.
    #[must_use]
    pub fn data_bytes(&self) -> Option<u64> {
        (self.data_bytes != UNKNOWN).then(|| self.data_bytes.into())
    }
}

/// Where to start reading a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentIndex {
    entries: Vec<IndexEntry>,
}

impl SegmentIndex {
    /// Takes note of a frame at `position` whose events have so many bytes of data, if they are whole; frames come in
    /// ascending order.
    pub fn note(&mut self, header: &FrameHeader, position: u64, data_bytes: Option<u64>) {
        let far = |last: &IndexEntry| position - u64::from(last.position) >= INDEX_STRIDE_BYTES;
        if self.entries.last().is_none_or(far) {
            self.entries.push(IndexEntry {
                offset: header.first_offset,
                received_us: header.first_received_us,
                position: position as u32,
                data_bytes: 0,
            });
        }
        if let Some(last) = self.entries.last_mut() {
            // What is whole behind damage does not make up for it.
            let sum = last.data_bytes().zip(data_bytes).map(|(sum, data_bytes)| sum + data_bytes);
            last.data_bytes = sum.map_or(UNKNOWN, |sum| sum as u32);
        }
    }

    /// Not all frames behind the last entry could be read.
    pub fn leave_open(&mut self) {
        if let Some(last) = self.entries.last_mut() {
            last.data_bytes = UNKNOWN;
        }
    }

    /// Position of a frame at or before the one that holds `offset`; `None` when the index begins behind it.
    #[must_use]
    pub fn seek(&self, offset: u64) -> Option<u64> {
        let behind = self.entries.partition_point(|entry| entry.offset <= offset);
        Some(u64::from(self.entries[behind.checked_sub(1)?].position))
    }

    /// Position and offset of a frame such that no event before it was received at or after `received_us`.
    #[must_use]
    pub fn seek_time(&self, received_us: u64) -> Option<(u64, u64)> {
        // Equal times may begin in the frame before, so go back to the last entry that is strictly earlier.
        let behind = self.entries.partition_point(|entry| entry.received_us < received_us);
        let entry = &self.entries[behind.checked_sub(1)?];
        Some((u64::from(entry.position), entry.offset))
    }

    /// Position of the first frame that is known.
    #[must_use]
    pub fn first_position(&self) -> Option<u64> {
        self.entries.first().map(|entry| u64::from(entry.position))
    }

    /// The places behind `position`, in order.
    pub fn behind(&self, position: u64) -> impl Iterator<Item = IndexEntry> + use<'_> {
        let start = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries[start..].iter().copied()
    }

    /// Puts the index of the frames before this index's first in front of it.
    pub fn prepend(&mut self, mut earlier: Self) {
        earlier.entries.append(&mut self.entries);
        self.entries = earlier.entries;
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<IndexEntry>()
    }

    /// The footer of a sealed segment whose frames end at `frames_end`.
    #[must_use]
    pub fn footer(&self, summary: &Summary) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * ENTRY_BYTES + TRAILER_BYTES);
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.received_us.to_le_bytes());
            out.extend_from_slice(&entry.position.to_le_bytes());
            out.extend_from_slice(&entry.data_bytes.to_le_bytes());
        }
        let entries_crc = crc32fast::hash(&out);
        let trailer_start = out.len();
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&summary.events.to_le_bytes());
        out.extend_from_slice(&summary.first_received_us.to_le_bytes());
        out.extend_from_slice(&summary.last_received_us.to_le_bytes());
        out.extend_from_slice(&(summary.frames_end as u32).to_le_bytes());
        out.extend_from_slice(&entries_crc.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        let crc = crc32fast::hash(&out[trailer_start..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a footer from the bytes behind the frames.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn from_footer(footer: &[u8]) -> Result<(Self, Summary), Malformed> {
        let split = footer.len().checked_sub(TRAILER_BYTES).ok_or(Malformed("the segment has no footer"))?;
        let (entries, trailer) = footer.split_at(split);
        if trailer[TRAILER_BYTES - 4..] != crc32fast::hash(&trailer[..TRAILER_BYTES - 4]).to_le_bytes() {
            return Err(Malformed("the segment's footer is damaged"));
        }
        let mut fields = Fields::new(trailer);
        let count = fields.u32()?;
        let summary = Summary {
            events: fields.u64()?,
            first_received_us: fields.u64()?,
            last_received_us: fields.u64()?,
            frames_end: u64::from(fields.u32()?),
        };
        let entries_crc = fields.u32()?;
        if fields.bytes(4)? != MAGIC
            || entries.len() != count as usize * ENTRY_BYTES
            || crc32fast::hash(entries) != entries_crc
        {
            return Err(Malformed("the segment's footer is damaged"));
        }
        let mut fields = Fields::new(entries);
        let entry = |_| {
            Ok(IndexEntry {
                offset: fields.u64()?,
                received_us: fields.u64()?,
                position: fields.u32()?,
                data_bytes: fields.u32()?,
            })
        };
        Ok((Self { entries: (0..count).map(entry).collect::<Result<_, Malformed>>()? }, summary))
    }
}

/// Compares an index with the frames that it tells of, which come in order.
pub struct Comparison<'i> {
    rest: std::slice::Iter<'i, IndexEntry>,
    /// The entry that frames belong to, and the bytes of their data so far.
    at: Option<(&'i IndexEntry, u64)>,
    agrees: bool,
}

impl<'i> Comparison<'i> {
    /// With nothing compared.
    #[must_use]
    pub fn new(index: &'i SegmentIndex) -> Self {
        Self { rest: index.entries.iter(), at: None, agrees: true }
    }

    /// Takes the next frame.
    pub fn note(&mut self, header: &FrameHeader, position: u64, data_bytes: u64) {
        if let Some(next) = self.rest.as_slice().first().filter(|next| u64::from(next.position) <= position) {
            self.end_entry();
            let told = (u64::from(next.position), next.offset, next.received_us);
            self.agrees &= told == (position, header.first_offset, header.first_received_us);
            self.rest.next();
            self.at = Some((next, 0));
        }
        match &mut self.at {
            Some((_, sum)) => *sum += data_bytes,
            None => self.agrees = false,
        }
    }

    fn end_entry(&mut self) {
        // What it does not know it does not tell wrong.
        let told = |(entry, sum): (&IndexEntry, u64)| entry.data_bytes().is_none_or(|told| told == sum);
        self.agrees &= self.at.take().is_none_or(told);
    }

    /// Whether the index told of these frames and of no others.
    #[must_use]
    pub fn agrees(mut self) -> bool {
        self.end_entry();
        self.agrees && self.rest.as_slice().is_empty()
    }
}

/// What a sealed segment holds, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// `received` of the first, µs.
    pub first_received_us: u64,
    /// `received` of the last, µs.
    pub last_received_us: u64,
    /// Where the frames end and the footer begins.
    pub frames_end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::event::{Encoding, NewEvent, NewEvents};
    use crate::log::frame::FrameBuilder;

    fn header(first_offset: u64, received_us: u64) -> FrameHeader {
        let mut builder = FrameBuilder::new(1, first_offset, false, 0);
        let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: b"" };
        builder.push(None, &NewEvents::from_iter([event]), received_us, || 1);
        builder.finish().0
    }

    fn sample() -> SegmentIndex {
        let mut index = SegmentIndex::default();
        for frame in 0..100_u64 {
            // Times stand still for ten frames, so equal times span index entries.
            index.note(&header(1000 + frame, frame / 10 * 100), 64 + frame * 10_000, Some(9_000));
        }
        index
    }

    #[test]
    fn a_seek_never_lands_behind_its_target() {
        let index = sample();
        assert!(index.entries.len() > 10 && index.entries.len() < 20, "one entry per 64 KiB");
        assert_eq!(index.entries.iter().map(|entry| u64::from(entry.data_bytes)).sum::<u64>(), 100 * 9_000);
        assert_eq!(index.seek(999), None);
        for offset in 1000..1100 {
            let position = index.seek(offset).unwrap();
            let frame = (position - 64) / 10_000;
            assert!(frame + 1000 <= offset && offset - (frame + 1000) < 7, "{offset} found frame {frame}");
        }
        assert_eq!(index.seek_time(0), None, "nothing is strictly earlier");
        for received in [1, 100, 101, 500, 900, 10_000] {
            let (_, offset) = index.seek_time(received).unwrap();
            let first = (0..100).find(|frame| frame / 10 * 100 >= received).map_or(1100, |frame| 1000 + frame);
            assert!(offset <= first, "time {received}: {offset} is behind {first}");
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_leaves_its_block_unknown_and_no_other() {
        for hurt in 0..100_u64 {
            let mut index = SegmentIndex::default();
            for frame in 0..100_u64 {
                let data_bytes = (frame != hurt).then_some(9_000);
                index.note(&header(1000 + frame, frame), 64 + frame * 10_000, data_bytes);
            }
            let mut place = 1000;
            for (entry, whole) in index.entries.iter().zip(&sample().entries) {
                let next = place + whole.data_bytes().unwrap() / 9_000;
                let known = !(place..next).contains(&(1000 + hurt));
                assert_eq!(entry.data_bytes(), whole.data_bytes().filter(|_| known), "{hurt}: {place}..{next}");
                place = next;
            }
        }
    }

    #[test]
    fn an_index_agrees_with_its_frames_and_with_no_others() {
        let frames: Vec<(u64, u64, u64)> = (0..100).map(|frame| (1000 + frame, frame / 10 * 100, 9_000)).collect();
        let compare = |index: &SegmentIndex, frames: &[(u64, u64, u64)]| {
            let mut comparison = Comparison::new(index);
            for (place, &(offset, received_us, data_bytes)) in frames.iter().enumerate() {
                comparison.note(&header(offset, received_us), 64 + place as u64 * 10_000, data_bytes);
            }
            comparison.agrees()
        };
        let index = sample();
        assert!(compare(&index, &frames));
        // After a restart an entry may come early.
        let mut resumed = SegmentIndex::default();
        frames[50..].iter().zip(50..).for_each(|(&(offset, received_us, data_bytes), place)| {
            resumed.note(&header(offset, received_us), 64 + place * 10_000, Some(data_bytes));
        });
        let mut earlier = SegmentIndex::default();
        frames[..50].iter().zip(0..).for_each(|(&(offset, received_us, data_bytes), place)| {
            earlier.note(&header(offset, received_us), 64 + place * 10_000, Some(data_bytes));
        });
        resumed.prepend(earlier);
        assert!(compare(&resumed, &frames) && resumed != index);
        let mut open = index.clone();
        open.leave_open();
        assert!(compare(&open, &frames), "it does not know of what");
        assert!(!compare(&index, &frames[..99]), "bytes are missing");
        assert!(!compare(&index, &frames[..50]), "entries are left");
        assert!(!compare(&SegmentIndex::default(), &frames), "nothing is told");
        for place in [0, 3, 7] {
            for change in 0..4 {
                let mut wrong = index.clone();
                let entry = &mut wrong.entries[place];
                match change {
                    0 => entry.offset += 1,
                    1 => entry.received_us += 1,
                    2 => entry.position += 1,
                    _ => entry.data_bytes += 1,
                }
                assert!(!compare(&wrong, &frames), "entry {place}, change {change}");
            }
        }
    }

    #[test]
    fn a_footer_comes_back_and_damage_is_seen() {
        let index = sample();
        let summary = Summary { events: 100, first_received_us: 0, last_received_us: 900, frames_end: 1_000_064 };
        let footer = index.footer(&summary);
        assert_eq!(SegmentIndex::from_footer(&footer), Ok((index, summary)));
        for bit in (0..footer.len() * 8).step_by(7) {
            let mut hurt = footer.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentIndex::from_footer(&hurt).is_err(), "bit {bit}");
        }
        assert!(SegmentIndex::from_footer(&footer[1..]).is_err());
    }
}
