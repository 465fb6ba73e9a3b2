//! Repairing a data directory while no broker runs: what is whole is kept, what is lost is given up for good, and groups
//! go on above it, so that no answered offset is ever given twice.
//!
//! ```text
//! journal.rs    behind a damaged entry: whole entries are saved, groups get gaps
//! names.rs      groups whose registration is lost get names; names that may be lost go on above
//! segments.rs   damaged frames of segments become gaps
//! write.rs      segments, then both state files: the old damage or all of the repair, whenever a crash comes
//! ```
//!
//! It ends in state files that hold everything, and in journals that go on behind all that was ever written to them.

mod journal;
mod names;
mod report;
mod segments;
mod write;

use self::journal::{LostRange, Saved, save};
pub use self::report::{GroupGap, JournalLoss, LostEntries, Moved, Renamed, Report, SegmentLoss};
use super::examine::{Reading, RecoverFault};
use super::init::{self, DirectoryFault, Layout};
use crate::group::table::TableGroup;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a directory cannot be repaired.
#[derive(Debug, Error)]
pub enum RepairFault {
    /// It is in use, or none of ours.
    #[error(transparent)]
    Directory(#[from] DirectoryFault),
    /// There is nothing to begin with: both state files are damaged, a newer version wrote it, and the like.
    #[error(transparent)]
    Recover(#[from] RecoverFault),
    /// The operating system refused. The repair can be begun again.
    #[error("{path}: {cause}; nothing is worse than before, repair can be run again")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Looks for what a broker would not put right by itself, and repairs it if the loss is accepted. `progress` hears how far
/// it came, and of how much.
///
/// # Errors
/// Why that cannot be done. What a crash or an error leaves is either the old damage or the repaired shard.
pub fn repair(path: &Path, accept_loss: bool, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, RepairFault> {
    let layout = init::inspect(path)?;
    let _lock = init::lock_existing(path)?;
    let mut plan = Plan::make(&layout)?;
    plan.look_at_segments(&layout, progress)?;
    let mut report = plan.report(&layout);
    if accept_loss && report.is_needed() {
        write::carry_out(&layout, &mut plan, progress)?;
        report.repaired = true;
    }
    Ok(report)
}

/// All shards as they will be.
struct Plan {
    /// By number. The first one's table is that of the repaired directory.
    shards: Vec<Saved>,
    renamed: Vec<Renamed>,
    moved: Vec<Moved>,
}

impl Plan {
    fn make(layout: &Layout) -> Result<Self, RepairFault> {
        let mut plan = Self { shards: vec![read(layout, 0, None, &[])?], renamed: Vec::new(), moved: Vec::new() };
        let found = plan.name(0);
        if !found.is_empty() {
            plan.shards[0] = read(layout, 0, None, &found)?;
        }
        for number in 1..layout.shards {
            let own: Vec<TableGroup> = plan.table_groups(number).cloned().collect();
            plan.shards.push(read(layout, number, Some(&own), &[])?);
            let found = plan.name(number);
            if !found.is_empty() {
                plan.shards[usize::from(number)] = read(layout, number, Some(&own), &found)?;
                found.into_iter().for_each(|group| plan.shards[0].examined.table.insert(group));
            }
        }
        plan.raise();
        Ok(plan)
    }

    /// The table's groups that live in that shard.
    fn table_groups(&self, shard: u16) -> impl Iterator<Item = &TableGroup> {
        self.shards[0].examined.table.groups().filter(move |group| group.shard == shard)
    }

    /// Whether something of that shard must be written.
    fn changes(&self, shard: usize) -> bool {
        let table = shard == 0 && !self.renamed.is_empty();
        self.shards[shard].loss.is_some() || !self.shards[shard].hurt.is_empty() || table
    }

    fn report(&self, layout: &Layout) -> Report {
        let names: HashMap<u32, &TableGroup> =
            self.shards[0].examined.table.groups().map(|group| (group.number, group)).collect();
        let name = |number| names.get(&number).map(|group| group.name.to_string());
        let losses = || self.shards.iter().filter_map(|shard| shard.loss.as_ref());
        let segments = (0..).zip(&self.shards).flat_map(|(shard, saved)| saved.segment_losses(layout, shard));
        let segments: Vec<(SegmentLoss, LostRange)> = segments.collect();
        // What is closed has no name any more, and nobody will ask.
        let gap = |lost: &LostRange| {
            let group = names.get(&lost.group)?;
            let (name, shard) = (group.name.to_string(), group.shard);
            Some(GroupGap { group: name, shard, from: lost.gap.from, to: lost.gap.to, exact: lost.exact })
        };
        let lost = losses().flat_map(|loss| &loss.gaps).chain(segments.iter().map(|(_, lost)| lost));
        let mut gaps: Vec<GroupGap> = lost.filter_map(gap).collect();
        gaps.sort_by(|one, other| (&one.group, one.from).cmp(&(&other.group, other.from)));
        let named = |(loss, lost): &(SegmentLoss, LostRange)| {
            name(lost.group).map(|group| SegmentLoss { group, ..loss.clone() })
        };
        Report {
            data: layout.path.clone(),
            repaired: false,
            journals: losses().map(|loss| loss.journal.clone()).collect(),
            segments: segments.iter().filter_map(named).collect(),
            gaps,
            renamed: self.renamed.clone(),
            moved: self.moved.clone(),
        }
    }
}

/// Reads a shard, and saves what can be saved of it. `found` are groups that the table has lost, under their new names.
fn read(
    layout: &Layout,
    number: u16,
    table: Option<&[TableGroup]>,
    found: &[TableGroup],
) -> Result<Saved, RecoverFault> {
    let table = table.map(|table| [table, found].concat());
    let mut reading = Reading::begin(layout, number, table.as_deref(), usize::MAX)?;
    if number == 0 {
        for group in found {
            reading.replay.table.insert(group.clone());
            reading.replay.open(group);
        }
    }
    save(layout, reading)
}
