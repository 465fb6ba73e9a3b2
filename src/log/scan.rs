//! Reading a segment from one frame to the next, for an index that is missing.

use super::frame::Frame;
use super::index::SegmentIndex;
use crate::io::file::SegmentFile;
use crate::limits::READ_PIECE_BYTES;
use std::io;
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

/// Visits every frame that begins in `from..end`, with its position; bodies are left to be checked. The first frame whose
/// header is damaged, that is cut or cannot be read ends it.
fn scan(file: &SegmentFile, from: u64, end: u64, mut visit: impl FnMut(u64, &Frame<'_>)) -> Result<(), ScanFault> {
    let mut position = from;
    let mut want = READ_PIECE_BYTES;
    let mut buffer = vec![0; want];
    while position < end {
        let fault = |cause: String| ScanFault { position, cause };
        let limit = want.min((end - position) as usize);
        buffer.resize(buffer.len().max(limit), 0);
        let read =
            file.read_blocking(&mut buffer[..limit], position).map_err(|error: io::Error| fault(error.to_string()))?;
        let mut used = 0;
        loop {
            let at = position + used as u64;
            let frame = Frame::whole(&buffer[used..read])
                .map_err(|malformed| ScanFault { position: at, cause: malformed.to_string() })?;
            let Some(frame) = frame else { break };
            visit(at, &frame);
            used += frame.bytes.len();
        }
        if used == 0 {
            if read < want {
                return Err(fault("a frame is cut".into()));
            }
            want *= 2;
        }
        position += used as u64;
    }
    Ok(())
}

/// The index of the frames in `from..end`. A damaged body does not matter to it: whoever reads there checks it. Blocks:
/// for helper threads.
///
/// # Errors
/// The first frame whose header is damaged, that is cut or cannot be read.
pub fn index(file: &SegmentFile, from: u64, end: u64) -> Result<SegmentIndex, ScanFault> {
    let (index, fault) = index_before_fault(file, from, end);
    fault.map_or(Ok(index), Err)
}

/// The same as far as it can be read, and why not further: whoever seeks behind that reads into the fault and is told.
pub fn index_before_fault(file: &SegmentFile, from: u64, end: u64) -> (SegmentIndex, Option<ScanFault>) {
    let mut index = SegmentIndex::default();
    let scanned = scan(file, from, end, |position, frame| index.note(&frame.header, position, frame.data_bytes()));
    if scanned.is_err() {
        index.leave_open();
    }
    (index, scanned.err())
}
