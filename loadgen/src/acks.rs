//! Acknowledgements, kept until they are read back, in memory that does not grow with the run: some thousands per worker,
//! all others in a temporary file without a name, 24 bytes each, in the order of the answers. `verify` sorts them.
//!
//! The file is written from the worker's loop, a hundred kilobytes at a time into the page cache, which takes tens of
//! microseconds; sorting waits until the load is over.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::plan::RequestKey;

/// Acknowledgements in memory before they go to the file.
const RECENT_MAX: usize = 4096;

/// Bytes of one in the file.
const BYTES: usize = 24;

/// Requests whose outcome is not simply a success, per worker and kind; more are counted only.
const LISTED_MAX: usize = 1_000_000;

/// An acknowledged request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The offset of its first event; the others follow without a gap.
    pub first_offset: u64,
    /// Which request it was; the plan knows what was in it.
    pub key: RequestKey,
}

/// An acknowledgement and when it came: on one connection, a later answer has a larger turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What was acknowledged.
    pub ack: Ack,
    /// Counted by the worker.
    pub turn: u64,
}

/// All acknowledgements of one worker.
#[derive(Debug, Default)]
pub struct Acks {
    recent: Vec<Answered>,
    file: Option<File>,
    in_file: u64,
    events: u64,
    failed: Option<io::Error>,
}

impl Acks {
    /// Adds one of so many events.
    pub fn push(&mut self, ack: Ack, events: u32) {
        let turn = self.count();
        self.recent.push(Answered { ack, turn });
        self.events += u64::from(events);
        if self.recent.len() >= RECENT_MAX
            && self.failed.is_none()
            && let Err(error) = self.spill()
        {
            self.failed = Some(error);
        }
        if self.failed.is_some() {
            // Nothing can be verified any more, so nothing is kept.
            self.recent.clear();
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.in_file + self.recent.len() as u64
    }

    /// How many events they stand for.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Those that came last.
    pub fn recent(&self) -> impl Iterator<Item = Ack> + '_ {
        self.recent.iter().map(|answered| answered.ack)
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        if let Some(file) = &self.file {
            write(file, &self.recent)?;
        }
        self.in_file += self.recent.len() as u64;
        self.recent.clear();
        Ok(())
    }

    /// Passes them on in their order, so many at a time at most.
    ///
    /// # Errors
    /// When the file could not be written or cannot be read.
    pub fn in_pieces(self, most: usize, mut each: impl FnMut(Vec<Answered>) -> io::Result<()>) -> io::Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(file) = &self.file {
            let mut from = 0;
            while from < self.in_file {
                let piece = read(file, from, most.min((self.in_file - from) as usize))?;
                from += piece.len() as u64;
                each(piece)?;
            }
        }
        if self.recent.is_empty() { Ok(()) } else { each(self.recent) }
    }
}

/// Appends acknowledgements to a file.
///
/// # Errors
/// What the kernel says.
pub fn write(mut file: &File, acks: &[Answered]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(acks.len() * BYTES);
    for Answered { ack, turn } in acks {
        bytes.extend_from_slice(&ack.first_offset.to_le_bytes());
        bytes.extend_from_slice(&turn.to_le_bytes());
        bytes.extend_from_slice(&ack.key.connection.to_le_bytes());
        bytes.extend_from_slice(&ack.key.request.to_le_bytes());
    }
    file.write_all(&bytes)
}

/// Reads acknowledgements from the one numbered `from` on.
///
/// # Errors
/// What the kernel says.
pub fn read(file: &File, from: u64, count: usize) -> io::Result<Vec<Answered>> {
    let mut bytes = vec![0; count * BYTES];
    file.read_exact_at(&mut bytes, from * BYTES as u64)?;
    let (whole, _) = bytes.as_chunks::<BYTES>();
    let answered = whole.iter().map(|bytes| {
        let ([first_offset, turn], rest) = ([0, 8].map(|at| number(&bytes[at..at + 8])), &bytes[16..]);
        let [connection, request] = [0, 4].map(|at| number(&rest[at..at + 4]) as u32);
        Answered { ack: Ack { first_offset, key: RequestKey { connection, request } }, turn }
    });
    Ok(answered.collect())
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Requests that came to something else than an acknowledged place; there are few, or the run is not worth much.
#[derive(Debug, Default)]
pub struct Listed {
    keys: Vec<RequestKey>,
    beyond: u64,
}

impl Listed {
    /// Adds one.
    pub fn push(&mut self, key: RequestKey) {
        if self.keys.len() < LISTED_MAX {
            self.keys.push(key);
        } else {
            self.beyond += 1;
        }
    }

    /// Adds another worker's.
    pub fn append(&mut self, mut other: Listed) {
        self.keys.append(&mut other.keys);
        self.beyond += other.beyond;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.keys.len() as u64 + self.beyond
    }

    /// Whether there are more than are known one by one.
    pub fn is_cut(&self) -> bool {
        self.beyond > 0
    }
}

impl std::ops::Deref for Listed {
    type Target = [RequestKey];

    fn deref(&self) -> &[RequestKey] {
        &self.keys
    }
}

impl FromIterator<RequestKey> for Listed {
    fn from_iter<T: IntoIterator<Item = RequestKey>>(keys: T) -> Listed {
        Listed { keys: keys.into_iter().collect(), beyond: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn ack(number: u64) -> Ack {
        Ack { first_offset: number << 33 | 7, key: RequestKey { connection: number as u32 % 5, request: u32::MAX - 9 } }
    }

    #[test]
    fn however_many_come_few_are_in_memory_and_all_come_back_in_order() {
        for count in [0, 1, RECENT_MAX as u64, 3 * RECENT_MAX as u64 + 5] {
            let mut acks = Acks::default();
            for number in 0..count {
                acks.push(ack(number), 3);
                assert!(acks.recent.len() < RECENT_MAX);
            }
            assert_eq!(
                (acks.count(), acks.events(), acks.file.is_some()),
                (count, 3 * count, count >= RECENT_MAX as u64)
            );
            let mut found = Vec::new();
            acks.in_pieces(1000, |piece| {
                assert!(piece.len() <= RECENT_MAX);
                found.extend(piece);
                Ok(())
            })
            .unwrap();
            assert!(found.iter().map(|answered| answered.ack).eq((0..count).map(ack)));
            assert!(found.iter().map(|answered| answered.turn).eq(0..count));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_nothing_piles_up() {
        let mut acks = Acks { file: Some(File::open("/dev/null").unwrap()), ..Acks::default() };
        for number in 0..3 * RECENT_MAX as u64 {
            acks.push(ack(number), 1);
        }
        assert!(acks.recent.is_empty());
        assert!(acks.in_pieces(1, |_| Ok(())).is_err());
    }

    #[test]
    fn lists_are_counted_beyond_what_they_hold() {
        let mut listed: Listed = (0..LISTED_MAX as u64).map(|number| ack(number).key).collect();
        assert!(!listed.is_cut());
        listed.push(ack(0).key);
        listed.append([ack(1).key].into_iter().collect());
        assert_eq!((listed.len(), listed.count(), listed.is_cut()), (LISTED_MAX + 1, LISTED_MAX as u64 + 2, true));
    }
}
