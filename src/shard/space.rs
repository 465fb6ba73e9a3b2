//! Room for what is accepted: segment files are made and allocated by the opener before events may be taken for them.
//!
//! So a flush can never meet a full disk. When the disk is full up to its reserve, whoever waits for room is told so, and
//! the next request tries again: it resumes by itself. No group is made then, either.

use super::{Fault, Shard};
use crate::io::file::SegmentFile;
use crate::io::system;
use crate::log::file_header::{FileHeader, FileKind, Identity};
use crate::log::group_log::Need;
use crate::log::segment;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// Files allocated in one turn of the opener.
const ALLOCATIONS_PER_TURN: usize = 64;

/// One file to make or to grow.
struct Allocation {
    group: u32,
    sequence: u32,
    length: u64,
    path: PathBuf,
    header: [u8; crate::log::file_header::FILE_HEADER_BYTES],
    /// Whether the file is the next segment, and not there yet (or only from an earlier try).
    create: bool,
}

impl Shard {
    /// The loop that allocates. Ends with the shard's failure.
    pub(super) async fn allocate(self: Rc<Self>) {
        loop {
            let batch = self.allocations();
            if batch.is_empty() {
                if self.fault().is_some() {
                    return;
                }
                self.space_turn.notified().await;
                continue;
            }
            let (directory, reserve) = (self.settings.directory.clone(), self.settings.reserve);
            let results = self.opener.run(move || {
                batch
                    .into_iter()
                    .map(|allocation| {
                        let result = allocate(&allocation, &directory, reserve);
                        (allocation.group, allocation.sequence, allocation.length, result)
                    })
                    .collect::<Vec<_>>()
            });
            for (group, sequence, length, result) in results.await {
                self.allocated(group, sequence, length, result);
            }
        }
    }

    fn allocations(&self) -> Vec<Allocation> {
        let state = &mut *self.state.borrow_mut();
        let count = state.space_queue.len().min(ALLOCATIONS_PER_TURN);
        let mut batch = Vec::with_capacity(count);
        for (number, need) in state.space_queue.drain(..count) {
            let Some(member) = state.groups.get(&number) else { continue };
            let log = &member.group.log;
            let next = log.next_sequence();
            let create = !matches!(need, Need::Grow(_));
            debug_assert!(create || log.active().is_some(), "what grows is not sealed meanwhile");
            let sequence = if create { next } else { next.saturating_sub(1) };
            batch.push(Allocation {
                group: number,
                sequence,
                length: log.allocation(need, member.group.segment_limits()),
                path: segment::path(&self.segments_directory(), number, sequence),
                header: segment_header(self.settings.identity, self.number, number, sequence).encode(),
                create,
            });
        }
        batch
    }

    /// Whether more than the reserve is free.
    ///
    /// # Errors
    /// When it is not, or the disk does not say.
    pub(super) fn above_reserve(&self) -> Result<(), Fault> {
        let space = system::disk_space(&self.settings.directory).map_err(|error| {
            tracing::error!(%error, "the disk does not say what is free");
            Fault::Overloaded
        })?;
        if space.free < self.settings.reserve { Err(Fault::DiskFull) } else { Ok(()) }
    }

    fn allocated(&self, number: u32, sequence: u32, length: u64, result: io::Result<()>) {
        let state = &mut *self.state.borrow_mut();
        let Some(member) = state.groups.get_mut(&number) else { return };
        member.space_wanted = false;
        let answer = match result {
            Ok(()) => {
                member.group.log.allocated(sequence, length);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(Fault::DiskFull),
            Err(error) => {
                tracing::error!(group = number, %error, "no room could be made for a segment");
                Err(Fault::Overloaded)
            }
        };
        for waiter in member.space_waiters.drain(..) {
            // Whoever waited may have given up.
            let _ = waiter.send(answer.clone());
        }
    }
}

/// The header of a segment's file.
pub(super) fn segment_header(identity: Identity, shard: u16, group: u32, sequence: u32) -> FileHeader {
    FileHeader { kind: FileKind::Segment, identity, shard, first: u64::from(group), second: u64::from(sequence) }
}

fn allocate(allocation: &Allocation, directory: &std::path::Path, reserve: u64) -> io::Result<()> {
    if system::disk_space(directory)?.free < reserve.saturating_add(allocation.length) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let file = SegmentFile::create(&allocation.path)?;
    let made = match allocation.create {
        true => file.allocate(allocation.length).and_then(|()| file.write(&[&allocation.header], 0)),
        false => file.allocate(allocation.length),
    };
    if made.is_err() && allocation.create {
        // A partial file would only hold space that is missing.
        let _ = std::fs::remove_file(&allocation.path);
    }
    made
}
