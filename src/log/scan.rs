//! Reading a segment from one frame to the next, for an index that is missing.

use super::frame::Frame;
use super::index::SegmentIndex;
use super::look::content;
use crate::io::file::SegmentFile;
use crate::limits::READ_PIECE_BYTES;
use std::time::{Duration, Instant};
use thiserror::Error;

/// A segment that cannot be read on.
#[derive(Debug, Error)]
#[error("at byte {position}: {cause}")]
pub struct ScanFault {
    /// Where the frame that could not be read begins.
    pub position: u64,
    /// What is wrong with it.
    pub cause: String,
}

/// A scan under way: the index of the frames that begin in a range, as far as it has come. A body that is damaged is left to
/// whoever reads there, and its block is one of unknown bytes, so that whoever counts them reads there, too.
pub struct Scan {
    index: SegmentIndex,
    position: u64,
    end: u64,
    /// Bytes of one read: enough for the frame at `position`.
    want: usize,
}

impl Scan {
    /// Begins a scan of `from..end`.
    #[must_use]
    pub fn new(from: u64, end: u64) -> Self {
        Self { index: SegmentIndex::default(), position: from, end, want: READ_PIECE_BYTES }
    }

    /// Goes on by about `bytes`. Returns how long that was read for, what is done with it aside; `None` at the end. Blocks: for
    /// helper threads.
    ///
    /// # Errors
    /// The first frame whose header is damaged, that is cut or cannot be read. It ends the index: whoever seeks behind that
    /// reads into the fault and is told.
    pub fn go_on(&mut self, file: &SegmentFile, bytes: u64) -> Result<Option<Duration>, ScanFault> {
        let mut reading = Duration::ZERO;
        let upto = self.end.min(self.position.saturating_add(bytes));
        let mut buffer = Vec::new();
        while self.position < upto {
            if let Err(fault) = self.piece(file, &mut buffer, &mut reading) {
                self.index.leave_open();
                return Err(fault);
            }
        }
        Ok((self.position < self.end).then_some(reading))
    }

    fn piece(&mut self, file: &SegmentFile, buffer: &mut Vec<u8>, reading: &mut Duration) -> Result<(), ScanFault> {
        let fault = |position: u64, cause: String| Err(ScanFault { position, cause });
        let limit = self.want.min((self.end - self.position) as usize);
        buffer.resize(limit, 0);
        let asked = Instant::now();
        let read = file.read_blocking(buffer, self.position);
        *reading += asked.elapsed();
        let read = match read {
            Ok(read) => read,
            Err(error) => return fault(self.position, error.to_string()),
        };
        let begun = self.position;
        let mut rest = &buffer[..read];
        loop {
            match Frame::whole(rest) {
                Ok(Some(frame)) => {
                    self.index.note(&frame.header, self.position, content(&frame).ok());
                    self.position += frame.bytes.len() as u64;
                    rest = &rest[frame.bytes.len()..];
                }
                Ok(None) => break,
                Err(malformed) => return fault(self.position, malformed.to_string()),
            }
        }
        if self.position == begun {
            if read < self.want {
                return fault(self.position, "a frame is cut".into());
            }
            self.want *= 2;
        }
        Ok(())
    }

    /// What was found.
    #[must_use]
    pub fn into_index(self) -> SegmentIndex {
        self.index
    }
}

/// The index of the frames in `from..end`, at once. Blocks: for tools and helper threads.
///
/// # Errors
/// The first frame whose header is damaged, that is cut or cannot be read.
pub fn index(file: &SegmentFile, from: u64, end: u64) -> Result<SegmentIndex, ScanFault> {
    let mut scan = Scan::new(from, end);
    while scan.go_on(file, u64::MAX)?.is_some() {}
    Ok(scan.into_index())
}
