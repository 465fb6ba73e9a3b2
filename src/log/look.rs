//! Looking at all of a segment: which frames of it are whole, and which offsets are damaged.
//!
//! Behind a damaged body the next frame follows. Behind a damaged header nobody knows where the next frame begins, and
//! nothing is guessed: an event may hold the image of a frame. The index says where one begins, about every 64 KiB.

use super::frame::{Frame, FrameHeader};
use super::index::{Comparison, SegmentIndex};
use super::segment::SEGMENT_START;
use super::wire::{Newer, Unreadable};
use crate::io::file::SegmentFile;
use crate::limits::{BLOCK_BYTES, READ_PIECE_BYTES};
use std::io;

/// What a segment's file should hold.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Number of the group.
    pub group: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset behind the last event.
    pub next_offset: u64,
    /// Where the frames end.
    pub end: u64,
}

/// Whole frames one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset behind the last event.
    pub next_offset: u64,
    /// Where the first frame begins.
    pub position: u64,
    /// Where the last frame ends.
    pub end: u64,
    /// `received` of the first event, µs.
    pub first_received_us: u64,
    /// `received` of the last event, µs.
    pub last_received_us: u64,
}

/// Offsets that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// The first of them.
    pub from: u64,
    /// The one behind the last.
    pub to: u64,
    /// Where in the file the damage was met.
    pub position: u64,
    /// What is wrong there.
    pub cause: String,
}

/// All of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What is whole, in order.
    pub runs: Vec<Run>,
    /// What is not, in order.
    pub hurt: Vec<Hurt>,
    /// Whether the index tells of these frames and of no others.
    pub indexed: bool,
}

/// Looks at every frame of a segment, body and events included. Behind a damaged header it goes on where `index` says that
/// a frame begins. `progress` hears how far it came. Blocks.
///
/// # Errors
/// A frame that only a newer version understands.
pub fn look(
    file: &SegmentFile,
    expected: Expected,
    index: Option<&SegmentIndex>,
    progress: &mut dyn FnMut(u64),
) -> Result<Look, Newer> {
    let mut looking = Looking {
        file,
        expected,
        look: Look::default(),
        position: SEGMENT_START,
        offset: expected.first_offset,
        comparison: index.map(Comparison::new),
    };
    let mut buffer = vec![0; READ_PIECE_BYTES];
    let mut want = READ_PIECE_BYTES;
    while looking.position < expected.end {
        progress(looking.position);
        let limit = want.min((expected.end - looking.position) as usize);
        buffer.resize(buffer.len().max(limit), 0);
        let (read, failed) = read_up_to(file, &mut buffer[..limit], looking.position);
        let (used, wrong) = looking.frames(&buffer[..read])?;
        let cut = || failed.map_or_else(|| "a frame is cut".to_owned(), |error| error.to_string());
        let grows = used == 0 && read == want;
        let wrong = wrong.or_else(|| (used == 0 && !grows).then(cut));
        want = if grows { want * 2 } else { READ_PIECE_BYTES };
        if let Some(cause) = wrong {
            looking.pass(index, cause);
        }
    }
    if looking.offset < expected.next_offset {
        looking.hurt(expected.next_offset, "frames are missing at the end".to_owned());
    }
    looking.look.indexed = looking.comparison.is_some_and(Comparison::agrees);
    Ok(looking.look)
}

struct Looking<'f> {
    file: &'f SegmentFile,
    expected: Expected,
    look: Look,
    /// Where the next frame should begin.
    position: u64,
    /// The offset it should begin with.
    offset: u64,
    comparison: Option<Comparison<'f>>,
}

impl Looking<'_> {
    /// Takes the frames in `bytes`; gives how many bytes they were, and what is wrong with the next one.
    fn frames(&mut self, bytes: &[u8]) -> Result<(usize, Option<String>), Newer> {
        let mut used = 0;
        loop {
            let frame = match Frame::whole(&bytes[used..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok((used, None)),
                Err(Unreadable::Newer(found)) => return Err(found),
                Err(Unreadable::Malformed(fault)) => return Ok((used, Some(fault.to_string()))),
            };
            if !self.is_next(&frame.header) {
                let cause = format!("a frame stands where offset {} belongs", self.offset);
                return Ok((used, Some(cause)));
            }
            match content(&frame) {
                Ok(data_bytes) => {
                    if let Some(comparison) = &mut self.comparison {
                        comparison.note(&frame.header, self.position, data_bytes);
                    }
                    self.note(&frame.header);
                }
                Err(cause) => self.hurt(frame.header.next_offset(), cause),
            }
            used += frame.bytes.len();
            self.position += frame.bytes.len() as u64;
        }
    }

    fn is_next(&self, header: &FrameHeader) -> bool {
        let last = self.look.runs.last().map_or(0, |run| run.last_received_us);
        header.group == self.expected.group
            && header.first_offset == self.offset
            && header.next_offset() <= self.expected.next_offset
            && header.first_received_us >= last
    }

    fn note(&mut self, header: &FrameHeader) {
        let position = self.position;
        let end = position + header.frame_bytes() as u64;
        match self.look.runs.last_mut().filter(|run| run.end == position && run.next_offset == header.first_offset) {
            Some(run) => {
                (run.next_offset, run.end, run.last_received_us) = (header.next_offset(), end, header.last_received_us);
            }
            None => self.look.runs.push(Run {
                first_offset: header.first_offset,
                next_offset: header.next_offset(),
                position,
                end,
                first_received_us: header.first_received_us,
                last_received_us: header.last_received_us,
            }),
        }
        self.offset = header.next_offset();
    }

    /// Offsets up to `to` cannot be read.
    fn hurt(&mut self, to: u64, cause: String) {
        self.look.hurt.push(Hurt { from: self.offset, to, position: self.position, cause });
        self.offset = to;
    }

    /// Passes a frame whose end is not known: goes on at the next one that the index knows.
    fn pass(&mut self, index: Option<&SegmentIndex>, cause: String) {
        let behind = index.into_iter().flat_map(|index| index.behind(self.position));
        let next = behind.take_while(|entry| u64::from(entry.position) < self.expected.end).find(|entry| {
            let mut header = [0; super::frame::FRAME_HEADER_BYTES];
            let read = self.file.read_blocking(&mut header, u64::from(entry.position));
            let header = read.ok().and_then(|read| FrameHeader::decode(&header[..read]).ok().flatten());
            header.is_some_and(|header| {
                let place = (header.group, header.first_offset) == (self.expected.group, entry.offset);
                place && header.first_offset > self.offset && header.next_offset() <= self.expected.next_offset
            })
        });
        let (to, position) = match next {
            Some(entry) => (entry.offset, u64::from(entry.position)),
            None => (self.expected.next_offset, self.expected.end),
        };
        self.hurt(to, cause);
        self.position = position;
    }
}

/// Whether a frame's body is right, and its events are events: the bytes of their data.
pub(super) fn content(frame: &Frame<'_>) -> Result<u64, String> {
    frame.check_body().map_err(|fault| fault.to_string())?;
    let mut last = frame.header.first_received_us;
    let (mut events, mut data_bytes) = (0, 0);
    for event in frame.events() {
        let event = event.map_err(|fault| fault.to_string())?;
        if event.received_us < last {
            return Err(format!("offset {} was received before the one before it", event.offset));
        }
        last = event.received_us;
        events += 1;
        data_bytes += event.data.len() as u64;
    }
    if events == frame.header.next_offset() - frame.header.first_offset {
        Ok(data_bytes)
    } else {
        Err(format!("a frame holds {events} events instead of those it tells of"))
    }
}

/// Fills `buffer` from `position` on as far as the disk gives bytes: how many, and why not more if it is not the end.
fn read_up_to(file: &SegmentFile, buffer: &mut [u8], position: u64) -> (usize, Option<io::Error>) {
    if let Ok(read) = file.read_blocking(buffer, position) {
        return (read, None);
    }
    let mut filled = 0;
    while filled < buffer.len() {
        let at = position + filled as u64;
        let block = BLOCK_BYTES - (at % BLOCK_BYTES as u64) as usize;
        let end = buffer.len().min(filled + block);
        match file.read_blocking(&mut buffer[filled..end], at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::event::{Encoding, NewEvent, NewEvents};
    use crate::log::frame::FrameBuilder;
    use crate::log::index::Summary;

    /// Offsets of each frame.
    const FRAME_EVENTS: u64 = 3;
    const FRAMES: u64 = 40;
    const FIRST: u64 = 100;

    fn frame(group: u32, number: u64) -> Vec<u8> {
        let data = vec![b'x'; 4000];
        let event = NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: &data };
        let mut builder = FrameBuilder::new(group, FIRST + number * FRAME_EVENTS, number == 0, 0);
        let mut ids = u128::from(number * 10)..;
        let events = NewEvents::from_iter((0..FRAME_EVENTS).map(|_| event));
        builder.push(None, &events, 1000 + number, || ids.next().unwrap());
        builder.finish().1
    }

    /// Ranges of frames.
    type Ranges = Vec<(u64, u64)>;

    struct Segment {
        file: SegmentFile,
        path: tempfile::TempPath,
        index: SegmentIndex,
        expected: Expected,
        frame_bytes: u64,
    }

    /// Frames 0 to 39 of group 7, one behind the other; the index knows every sixth.
    fn segment() -> Segment {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let file = SegmentFile::create(&path).unwrap();
        let mut index = SegmentIndex::default();
        let mut position = SEGMENT_START;
        for number in 0..FRAMES {
            let bytes = frame(7, number);
            index.note(&FrameHeader::decode(&bytes).unwrap().unwrap(), position, Some(FRAME_EVENTS * 4000));
            file.write(&[&bytes], position).unwrap();
            position += bytes.len() as u64;
        }
        let next_offset = FIRST + FRAMES * FRAME_EVENTS;
        let expected = Expected { group: 7, first_offset: FIRST, next_offset, end: position };
        let frame_bytes = (position - SEGMENT_START) / FRAMES;
        assert_eq!(index.behind(0).nth(1).unwrap().offset, FIRST + 6 * FRAME_EVENTS);
        Segment { file, path, index, expected, frame_bytes }
    }

    impl Segment {
        fn at(&self, frame: u64) -> u64 {
            SEGMENT_START + frame * self.frame_bytes
        }

        fn flip(&self, position: u64) {
            let mut byte = [0];
            self.file.read_blocking(&mut byte, position).unwrap();
            self.file.write(&[[byte[0] ^ 1]], position).unwrap();
        }

        /// Numbers of the frames in each run, and in each damaged range.
        fn look(&self, index: Option<&SegmentIndex>) -> (Ranges, Ranges) {
            let look = look(&self.file, self.expected, index, &mut |_| ()).unwrap();
            let number = |offset: u64| (offset - FIRST) / FRAME_EVENTS;
            for run in &look.runs {
                assert_eq!(
                    (run.position, run.end),
                    (self.at(number(run.first_offset)), self.at(number(run.next_offset)))
                );
                let times = (1000 + number(run.first_offset), 999 + number(run.next_offset));
                assert_eq!((run.first_received_us, run.last_received_us), times);
            }
            let runs = look.runs.iter().map(|run| (number(run.first_offset), number(run.next_offset)));
            let hurt = look.hurt.iter().map(|hurt| (number(hurt.from), number(hurt.to)));
            (runs.collect(), hurt.collect())
        }
    }

    #[test]
    fn damage_is_as_small_as_the_frame_or_ends_where_the_index_knows_the_next_one() {
        type Damage = fn(&Segment);
        type Expected = &'static [(u64, u64)];
        let cases: [(&str, Damage, Expected, Expected); 9] = [
            ("none", |_| (), &[(0, 40)], &[]),
            ("a body", |segment| segment.flip(segment.at(8) + 100), &[(0, 8), (9, 40)], &[(8, 9)]),
            ("the first body", |segment| segment.flip(segment.at(0) + 100), &[(1, 40)], &[(0, 1)]),
            ("the last body", |segment| segment.flip(segment.at(39) + 100), &[(0, 39)], &[(39, 40)]),
            ("a header", |segment| segment.flip(segment.at(8) + 20), &[(0, 8), (12, 40)], &[(8, 12)]),
            (
                "the header of one the index knows",
                |segment| segment.flip(segment.at(6)),
                &[(0, 6), (12, 40)],
                &[(6, 12)],
            ),
            (
                "two headers, one of them where it would go on",
                |segment| [8, 12].iter().for_each(|&frame| segment.flip(segment.at(frame))),
                &[(0, 8), (18, 40)],
                &[(8, 18)],
            ),
            (
                "a header behind the last place the index knows",
                |segment| segment.flip(segment.at(37)),
                &[(0, 37)],
                &[(37, 40)],
            ),
            (
                "frames that changed places",
                |segment| segment.file.write(&[frame(7, 9), frame(7, 8)], segment.at(8)).unwrap(),
                &[(0, 8), (12, 40)],
                &[(8, 12)],
            ),
        ];
        for (name, damage, runs, hurt) in cases {
            let segment = segment();
            damage(&segment);
            assert_eq!(segment.look(Some(&segment.index)), (runs.to_vec(), hurt.to_vec()), "{name}");
        }
    }

    #[test]
    fn without_an_index_a_damaged_header_hides_what_is_behind_it() {
        let segment = segment();
        segment.flip(segment.at(8) + 100);
        segment.flip(segment.at(10));
        assert_eq!(segment.look(None), (vec![(0, 8), (9, 10)], vec![(8, 9), (10, 40)]));
        // An index that is wrong is not believed.
        let summary = Summary { events: 0, first_received_us: 0, last_received_us: 0, frames_end: 0 };
        let mut footer = segment.index.footer(&summary);
        footer[2 * 24 + 16] ^= 1;
        let entries = footer.len() - 44;
        let crc = crc32fast::hash(&footer[..entries]);
        footer[entries + 32..entries + 36].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&footer[entries..entries + 40]);
        footer[entries + 40..].copy_from_slice(&crc.to_le_bytes());
        let (wrong, _) = SegmentIndex::from_footer(&footer).unwrap();
        assert_eq!(segment.look(Some(&wrong)).1, [(8, 9), (10, 18)]);
    }

    #[test]
    fn a_short_file_and_one_of_another_group_are_damaged_from_there_on() {
        let segment = segment();
        segment.file.truncate(segment.at(20) + 5).unwrap();
        assert_eq!(segment.look(Some(&segment.index)), (vec![(0, 20)], vec![(20, 40)]));
        segment.file.truncate(0).unwrap();
        assert_eq!(segment.look(Some(&segment.index)), (vec![], vec![(0, 40)]));
        (0..FRAMES).for_each(|number| segment.file.write(&[frame(8, number)], segment.at(number)).unwrap());
        assert_eq!(segment.look(Some(&segment.index)), (vec![], vec![(0, 40)]));
        assert!(segment.path.exists());
    }

    #[test]
    fn a_newer_frame_is_no_damage() {
        let segment = segment();
        let mut newer = frame(7, 9);
        newer[4] = 2;
        let crc = crc32fast::hash(&newer[..60]);
        newer[60..64].copy_from_slice(&crc.to_le_bytes());
        segment.file.write(&[newer], segment.at(9)).unwrap();
        assert!(look(&segment.file, segment.expected, Some(&segment.index), &mut |_| ()).is_err());
    }
}
