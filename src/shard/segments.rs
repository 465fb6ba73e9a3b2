//! The segments a shard keeps open, and the indexes it has read.

use super::{Fault, Member, OpenSegment, Shard, State};
use crate::io::file::SegmentFile;
use crate::log::index::{SegmentIndex, TRAILER_BYTES};
use crate::log::scan;
use crate::log::segment::{self, SEGMENT_START, Segment};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

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
        let read = move || {
            let footer = footer(&source, found.end);
            footer.unwrap_or_else(|_| scan::index_before_fault(&source, SEGMENT_START, found.end).0)
        };
        let index = Rc::new(self.opener.run(read).await);
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
        let source = file.clone();
        let end = known_from.map_or(flushed_end, |known| known.min(flushed_end));
        let (earlier, _) = self.opener.run(move || scan::index_before_fault(&source, SEGMENT_START, end)).await;
        let position = earlier.seek(offset);
        if let Ok(member) = self.state.borrow_mut().groups.get_mut(&group).ok_or(()) {
            member.group.log.complete_index(found.sequence, earlier);
        }
        Ok(position)
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
