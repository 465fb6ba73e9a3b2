//! The segments a shard keeps open, and the indexes it has read.

use super::{Fault, Member, OpenSegment, Shard, State};
use crate::io::file::SegmentFile;
use crate::limits::PACE_BYTES;
use crate::log::index::{SegmentIndex, TRAILER_BYTES};
use crate::log::scan::{Scan, ScanFault};
use crate::log::segment::{self, SEGMENT_START, Segment};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A piece of a scan that was read for so long came from the disk, at least in part: from memory it takes a tenth of a
/// millisecond.
const FROM_DISK: Duration = Duration::from_micros(250);

impl Shard {
    /// Where the segments of this shard lie.
    pub(super) fn segments_directory(&self) -> PathBuf {
        self.settings.directory.join("segments")
    }

    /// A segment's file, opened if it is not open yet.
    pub(super) async fn segment_file(&self, group: u32, sequence: u32) -> io::Result<SegmentFile> {
        if let Some(file) = self.state.borrow_mut().open_segment(group, sequence) {
            return Ok(file);
        }
        let path = segment::path(&self.segments_directory(), group, sequence);
        let file = self.opener.run(move || SegmentFile::open(&path)).await?;
        self.state.borrow_mut().keep_open(group, sequence, file.clone(), None);
        Ok(file)
    }

    /// A segment's file and where in it to look for `offset`.
    pub(super) async fn seek(
        &self,
        group: u32,
        found: Segment,
        flushed_end: u64,
        offset: u64,
    ) -> Result<(SegmentFile, u64), Fault> {
        let corrupt = |detail: String| Fault::Corrupt { offset: found.first_offset, detail: Arc::from(detail) };
        let file = self.segment_file(group, found.sequence).await;
        let file = file.map_err(|error| corrupt(format!("segment {group}-{}: {error}", found.sequence)))?;
        if offset == found.first_offset {
            return Ok((file, SEGMENT_START));
        }
        let position = match found.sealed {
            true => self.sealed_index(group, found, &file).await.seek(offset),
            false => self.seek_active(group, found, flushed_end, &file, offset).await.map_err(corrupt)?,
        };
        Ok((file, position.unwrap_or(SEGMENT_START)))
    }

    /// Like [`seek`](Self::seek), for the first event received at or after `received_us`: an offset not behind it.
    pub(super) async fn seek_time(
        &self,
        group: u32,
        found: Segment,
        flushed_end: u64,
        received_us: u64,
    ) -> Result<u64, Fault> {
        let corrupt = |detail: String| Fault::Corrupt { offset: found.first_offset, detail: Arc::from(detail) };
        let file = self.segment_file(group, found.sequence).await;
        let file = file.map_err(|error| corrupt(format!("segment {group}-{}: {error}", found.sequence)))?;
        let place = match found.sealed {
            true => self.sealed_index(group, found, &file).await.seek_time(received_us),
            false => {
                self.seek_active(group, found, flushed_end, &file, found.first_offset).await.map_err(corrupt)?;
                let state = self.state.borrow();
                state.member(group)?.group.log.active_index().0.seek_time(received_us)
            }
        };
        Ok(place.map_or(found.first_offset, |(_, offset)| offset))
    }

    pub(super) async fn sealed_index(&self, group: u32, found: Segment, file: &SegmentFile) -> Rc<SegmentIndex> {
        if let Some(index) =
            self.state.borrow_mut().segments.get(&(group, found.sequence)).and_then(|open| open.index.clone())
        {
            return index;
        }
        // What is still in memory is missing in the file.
        let flushed = |member: &Member| found.next_offset <= member.group.log.flushed_next();
        let all_there = self.state.borrow().member(group).is_ok_and(flushed);
        let source = file.clone();
        let index = match self.opener.run(move || footer(&source, found.end)).await {
            Ok(index) => index,
            Err(_) => self.scan(file, found.end).await.0,
        };
        let index = Rc::new(index);
        let kept = all_there.then(|| Rc::clone(&index));
        self.state.borrow_mut().keep_open(group, found.sequence, file.clone(), kept);
        index
    }

    /// The active segment's index grows with it; what stood there before start-up is read when it is first asked for.
    pub(super) async fn seek_active(
        &self,
        group: u32,
        found: Segment,
        flushed_end: u64,
        file: &SegmentFile,
        offset: u64,
    ) -> Result<Option<u64>, String> {
        let (position, complete, known_from) = {
            let state = self.state.borrow();
            let log = &state.member(group).map_err(|fault| fault.to_string())?.group.log;
            let (index, complete) = log.active_index();
            (index.seek(offset), complete, index.first_position())
        };
        if position.is_some() || complete {
            return Ok(position);
        }
        let end = known_from.map_or(flushed_end, |known| known.min(flushed_end));
        let (earlier, _) = self.scan(file, end).await;
        let position = earlier.seek(offset);
        if let Ok(member) = self.state.borrow_mut().groups.get_mut(&group).ok_or(()) {
            member.group.log.complete_index(found.sequence, earlier);
        }
        Ok(position)
    }

    /// The index of a segment up to `end`, as far as it can be read. It is read a piece at a time: in between others have
    /// their files opened and, where pieces come from the disk, commits have the disk, which would else serve reads first.
    pub(super) async fn scan(&self, file: &SegmentFile, end: u64) -> (SegmentIndex, Result<(), ScanFault>) {
        let mut scan = Scan::new(SEGMENT_START, end);
        loop {
            let source = file.clone();
            let went;
            (went, scan) = self.opener.run(move || (scan.go_on(&source, PACE_BYTES), scan)).await;
            match went {
                Ok(Some(took)) if took >= FROM_DISK => tokio::time::sleep(took).await,
                Ok(Some(_)) => {}
                Ok(None) => return (scan.into_index(), Ok(())),
                Err(fault) => return (scan.into_index(), Err(fault)),
            }
        }
    }
}

impl State {
    /// A file that is open already.
    pub(super) fn open_segment(&mut self, group: u32, sequence: u32) -> Option<SegmentFile> {
        let key = (group, sequence);
        let open = self.segments.get(&key).map(|open| open.file.clone());
        open.or_else(|| self.dirty.get(&key).cloned())
    }

    /// Keeps a file open; the one used least recently is closed when there are too many. (What is not synced stays open
    /// as long as it is dirty.)
    pub(super) fn keep_open(&mut self, group: u32, sequence: u32, file: SegmentFile, index: Option<Rc<SegmentIndex>>) {
        self.segments.insert((group, sequence), OpenSegment { file, index });
    }
}

/// Reads a sealed segment's footer. Blocks.
pub(super) fn footer(file: &SegmentFile, frames_end: u64) -> Result<SegmentIndex, String> {
    let length = file.length().map_err(|error| error.to_string())?;
    let bytes = length.checked_sub(frames_end).filter(|&bytes| bytes >= TRAILER_BYTES as u64).ok_or("no footer")?;
    let mut footer = vec![0; bytes as usize];
    let read = file.read_blocking(&mut footer, frames_end).map_err(|error| error.to_string())?;
    let (index, summary) = SegmentIndex::from_footer(&footer[..read]).map_err(|fault| fault.to_string())?;
    if summary.frames_end == frames_end { Ok(index) } else { Err("the footer is another segment's".into()) }
}
