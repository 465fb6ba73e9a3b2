//! Damaged segments: what is whole of them stays, and what cannot be read becomes gaps.
//!
//! ```text
//! before   0 [──────]  1 [──╳╳──]  2 [──────]        a group's segments, the second one damaged
//! after    4 [──────]  5 [──] gap 6 [──]  7 [──────]  whole ones get a second name, what is behind damage a new file
//! ```
//!
//! All of a group's segments get new numbers, so that they go on in order. Until the state that names them is written, the
//! old ones count; number 3 stays free, for a broker may take a file of that name for the room it allocated ahead.

use super::journal::LostRange;
use super::report::SegmentLoss;
use super::{Plan, Saved};
use crate::group::Group;
use crate::group::gaps::Gap;
use crate::io::file::SegmentFile;
use crate::log::file_header::FILE_HEADER_BYTES;
use crate::log::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::log::group_log::GroupLog;
use crate::log::look::{Look, Run};
use crate::log::segment::{self, SEGMENT_START, Segment};
use crate::shard::examine::RecoverFault;
use crate::shard::init::{Layout, shard_directory};
use crate::shard::tails::write_footer;
use crate::shard::verify::{end, look_at};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A damaged segment: what of its file can be read. What was in the journal alone is whole.
pub(super) struct HurtSegment {
    look: Look,
    /// Where the frames end that were in the file, and the offset behind them.
    flushed: (u64, u64),
}

/// Damaged segments by group and sequence number.
pub(super) type HurtSegments = BTreeMap<u32, BTreeMap<u32, HurtSegment>>;

impl Plan {
    /// Reads every segment. `progress` hears bytes done and in all.
    pub(super) fn look_at_segments(
        &mut self,
        layout: &Layout,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RecoverFault> {
        let bytes = |group: &Group| group.log.segments().iter().map(|found| end(group, found)).sum::<u64>();
        let total = self.shards.iter().flat_map(|shard| shard.examined.groups.values()).map(bytes).sum();
        let mut done = 0;
        for (number, shard) in (0..).zip(&mut self.shards) {
            let directory = shard_directory(&layout.path, number).join("segments");
            for group in shard.examined.groups.values().filter(|group| !group.closed) {
                for found in group.log.segments() {
                    let path = segment::path(&directory, group.number, found.sequence);
                    let look = look_at(&path, group, found, &mut |position| progress(done + position, total))?;
                    let flushed = (end(group, found), found.next_offset.min(group.log.flushed_next()));
                    done += flushed.0;
                    if !look.hurt.is_empty() {
                        let hurt = HurtSegment { look, flushed };
                        shard.hurt.entry(group.number).or_default().insert(found.sequence, hurt);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Saved {
    /// What of this shard's segments cannot be read: damage by group, and the gaps it becomes.
    pub(super) fn segment_losses(&self, layout: &Layout, shard: u16) -> Vec<(SegmentLoss, LostRange)> {
        let directory = shard_directory(&layout.path, shard).join("segments");
        let mut losses = Vec::new();
        for (&group, segments) in &self.hurt {
            for (&sequence, segment) in segments {
                let file = segment::path(&directory, group, sequence);
                losses.extend(segment.look.hurt.iter().map(|hurt| {
                    let (from, to) = (hurt.from, hurt.to);
                    let (byte, cause) = (hurt.position, hurt.cause.clone());
                    let loss = SegmentLoss { group: String::new(), file: file.clone(), byte, cause, from, to };
                    (loss, LostRange { group, gap: Gap { from, to }, exact: true })
                }));
            }
        }
        losses
    }
}

/// What is left to be done once the state names the new segments.
pub(super) struct Settling {
    group: u32,
    /// Names that do not count any more.
    old: Vec<u32>,
    /// Segments whose file holds more than they do, or has no index.
    cut: Vec<Segment>,
    /// Segments whose file was another one's before.
    renamed: Vec<u32>,
}

/// Gives a group the segments that can be read. Only new names and new files are made, and synced.
pub(super) fn rebuild(
    group: &mut Group,
    hurt: &BTreeMap<u32, HurtSegment>,
    directory: &Path,
    header: &dyn Fn(u32) -> [u8; FILE_HEADER_BYTES],
) -> io::Result<Settling> {
    let mut settling = Settling { group: group.number, old: Vec::new(), cut: Vec::new(), renamed: Vec::new() };
    let path = |sequence: u32| segment::path(directory, group.number, sequence);
    let mut segments = VecDeque::new();
    let mut next = group.log.next_sequence() + 1;
    for found in group.log.segments() {
        settling.old.push(found.sequence);
        let old = path(found.sequence);
        let Some(hurt) = hurt.get(&found.sequence) else {
            link(&old, &path(next))?;
            settling.renamed.push(next);
            segments.push_back(Segment { sequence: next, ..*found });
            next += 1;
            continue;
        };
        for run in hurt.runs(found, &old)? {
            // Frames may still be added behind the last one.
            let sealed = found.sealed || run.next_offset < found.next_offset;
            let end = match run.position {
                SEGMENT_START => {
                    link(&old, &path(next))?;
                    settling.renamed.push(next);
                    run.end
                }
                _ => copy(&old, &run, &path(next), &header(next))?,
            };
            let piece = Segment {
                sequence: next,
                first_offset: run.first_offset,
                next_offset: run.next_offset,
                end,
                first_received_us: run.first_received_us,
                last_received_us: run.last_received_us,
                sealed,
            };
            settling.cut.extend(sealed.then_some(piece));
            segments.push_back(piece);
            next += 1;
        }
        hurt.look.hurt.iter().for_each(|hurt| group.gaps.add(Gap { from: hurt.from, to: hurt.to }));
    }
    group.log = GroupLog::restore(group.number, group.next_offset(), segments, next);
    Ok(settling)
}

impl HurtSegment {
    /// The frames that can be read, those included that came from the journal.
    fn runs(&self, found: &Segment, path: &Path) -> io::Result<Vec<Run>> {
        let mut runs = self.look.runs.clone();
        let (position, offset) = self.flushed;
        if offset < found.next_offset {
            let last = runs.last_mut().filter(|run| (run.end, run.next_offset) == (position, offset));
            let (end, last_received_us) = (found.end, found.last_received_us);
            match last {
                Some(run) => {
                    (run.next_offset, run.end, run.last_received_us) = (found.next_offset, end, last_received_us);
                }
                None => {
                    let first_received_us = frame_at(&SegmentFile::open(path)?, position)?.first_received_us;
                    let (first_offset, next_offset) = (offset, found.next_offset);
                    runs.push(Run { first_offset, next_offset, position, end, first_received_us, last_received_us });
                }
            }
        }
        Ok(runs)
    }
}

fn frame_at(file: &SegmentFile, position: u64) -> io::Result<FrameHeader> {
    let mut header = [0; FRAME_HEADER_BYTES];
    let read = file.read_blocking(&mut header, position)?;
    let header = FrameHeader::decode(&header[..read]).map_err(io::Error::other)?;
    header.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A second name for a file. What an earlier try left under it goes.
fn link(old: &Path, new: &Path) -> io::Result<()> {
    remove(new)?;
    std::fs::hard_link(old, new)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a segment of its own of a run of frames, and syncs it. Gives where its frames end.
fn copy(old: &Path, run: &Run, new: &Path, header: &[u8; FILE_HEADER_BYTES]) -> io::Result<u64> {
    remove(new)?;
    let (from, to) = (SegmentFile::open(old)?, SegmentFile::create(new)?);
    to.write(&[header], 0)?;
    let mut first = vec![0; frame_at(&from, run.position)?.frame_bytes()];
    from.read_blocking(&mut first, run.position)?;
    to.write(&[FrameHeader::beginning_segment(&first)], SEGMENT_START)?;
    let mut copied = first.len() as u64;
    let mut buffer = vec![0; COPY_BYTES];
    while run.position + copied < run.end {
        let want = buffer.len().min((run.end - run.position - copied) as usize);
        match from.read_blocking(&mut buffer[..want], run.position + copied)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                to.write(&[&buffer[..read]], SEGMENT_START + copied)?;
                copied += read as u64;
            }
        }
    }
    to.sync()?;
    Ok(SEGMENT_START + copied)
}

impl Settling {
    /// Puts the files in order now that the old names do not count. What is left undone by a crash costs nothing: names
    /// that nobody knows go at the next start, and a missing index is made again.
    pub(super) fn settle(&self, directory: &Path, header: &dyn Fn(u32) -> [u8; FILE_HEADER_BYTES]) -> io::Result<()> {
        let path = |sequence: u32| segment::path(directory, self.group, sequence);
        self.old.iter().try_for_each(|&sequence| remove(&path(sequence)))?;
        for &sequence in &self.renamed {
            let file = SegmentFile::open(&path(sequence))?;
            file.write(&[header(sequence)], 0)?;
            file.sync()?;
        }
        for segment in &self.cut {
            let file = SegmentFile::open(&path(segment.sequence))?;
            write_footer(segment, None, &file)?;
            file.sync()?;
        }
        Ok(())
    }
}
