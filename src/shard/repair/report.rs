//! What a repair finds and does, as values: the command line makes words or JSON of it.

use serde::Serialize;
use std::path::PathBuf;

/// What is wrong in a data directory, what putting it right costs, and whether that was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The data directory.
    pub data: PathBuf,
    /// Whether it was repaired. Else nothing was changed.
    pub repaired: bool,
    /// Damaged journals.
    pub journals: Vec<JournalLoss>,
    /// Damaged segments.
    pub segments: Vec<SegmentLoss>,
    /// Offsets that groups give up.
    pub gaps: Vec<GroupGap>,
    /// Groups whose names are lost.
    pub renamed: Vec<Renamed>,
    /// Groups that go on far above, for nobody knows what they were: see [`Moved`].
    pub moved: Vec<Moved>,
}

impl Report {
    /// Whether there is anything to be repaired.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !(self.journals.is_empty() && self.segments.is_empty() && self.renamed.is_empty())
    }
}

/// A damaged journal.
#[derive(Clone, Debug, Serialize)]
pub struct JournalLoss {
    /// The shard.
    pub shard: u16,
    /// What is lost of it, in order.
    pub lost: Vec<LostEntries>,
    /// Whole entries behind the first lost one.
    pub saved: u64,
}

/// Entries that are lost.
#[derive(Clone, Debug, Serialize)]
pub struct LostEntries {
    /// Index of the first.
    pub index: u64,
    /// How many.
    pub entries: u64,
    /// File in which they begin.
    pub file: PathBuf,
    /// Place in that file.
    pub byte: u64,
    /// Bytes from there on.
    pub bytes: u64,
}

/// A damaged place in a segment.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentLoss {
    /// Name of the group.
    pub group: String,
    /// The segment's file.
    pub file: PathBuf,
    /// Where the damage was met.
    pub byte: u64,
    /// What is wrong there.
    pub cause: String,
    /// First offset that cannot be read.
    pub from: u64,
    /// The offset behind the last one.
    pub to: u64,
}

/// Offsets that a group gives up.
#[derive(Clone, Debug, Serialize)]
pub struct GroupGap {
    /// Name of the group.
    pub group: String,
    /// The shard it lives in.
    pub shard: u16,
    /// First lost offset.
    pub from: u64,
    /// The offset behind the last lost one, at which the group goes on.
    pub to: u64,
    /// Whether all of them held events; else it is only known that there were no more.
    pub exact: bool,
}

/// A group whose registration is lost.
#[derive(Clone, Debug, Serialize)]
pub struct Renamed {
    /// Its number.
    pub number: u32,
    /// The shard it lives in.
    pub shard: u16,
    /// The name it gets.
    pub group: String,
    /// Its first offset.
    pub first_offset: u64,
    /// Its next offset.
    pub next_offset: u64,
}

/// A group of the table that its own shard does not know: it never held an event, or it was removed and the removal is
/// lost. It is there, empty, and goes on so far above that no offset can be given twice.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    /// Its name.
    pub group: String,
    /// The offset its next event gets.
    pub first_offset: u64,
}
