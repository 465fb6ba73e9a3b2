//! Walking a data directory while no broker runs: is everything there, whole, and in order?

use super::examine::{Examined, RecoverFault, examine};
use super::init::{self, DirectoryFault, Layout, shard_directory};
use crate::group::Group;
use crate::group::table::TableGroup;
use crate::io::file::SegmentFile;
use crate::log::recovery::End;
use crate::log::scan;
use crate::log::segment::{self, SEGMENT_START};
use crate::units::counted;
use std::path::Path;
use thiserror::Error;

/// What a walk found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was looked at, for people.
    pub lines: Vec<String>,
    /// What is damaged: file, place, offsets.
    pub damage: Vec<String>,
    /// Events that were read and found whole.
    pub events: u64,
    /// Segments read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Why a directory cannot be walked.
#[derive(Debug, Error)]
pub enum VerifyFault {
    /// It is in use, or none of ours.
    #[error(transparent)]
    Directory(#[from] DirectoryFault),
    /// It was written by a newer version.
    #[error(transparent)]
    Newer(RecoverFault),
}

/// Reads every frame of every segment, the journals and the state files. `progress` hears bytes done and in all.
///
/// # Errors
/// When the directory cannot be walked at all; damage is part of the report.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Report, VerifyFault> {
    let layout = init::inspect(path)?;
    let _lock = init::lock_existing(path)?;
    let mut report = Report::default();
    report.lines.push(format!(
        "{}: {}, cluster {}",
        path.display(),
        counted(layout.shards.into(), "shard"),
        uuid::Uuid::from_u128(layout.identity.cluster)
    ));
    let mut table: Option<Vec<TableGroup>> = None;
    let mut shards = Vec::new();
    for number in 0..layout.shards {
        let own: Option<Vec<TableGroup>> =
            table.as_ref().map(|table| table.iter().filter(|group| group.shard == number).cloned().collect());
        match examine(&layout, number, own.as_deref(), usize::MAX) {
            Ok(examined) => {
                table.get_or_insert_with(|| examined.table.groups().cloned().collect());
                shards.push((number, examined));
            }
            Err(fault @ RecoverFault::Newer { .. }) => return Err(VerifyFault::Newer(fault)),
            Err(fault) => report.damage.push(describe(number, &fault)),
        }
        if table.is_none() {
            report.damage.push("without shard 0 nothing is known of the groups: the others were not read".into());
            return Ok(report);
        }
    }
    let flushed =
        |group: &Group| group.log.segments().iter().map(|found| end(group, found) - SEGMENT_START).sum::<u64>();
    let total = shards.iter().flat_map(|(_, examined)| examined.groups.values()).map(flushed).sum();
    for (number, examined) in &shards {
        read_shard(&layout, *number, examined, &mut report, &mut |done| progress(done, total));
    }
    Ok(report)
}

fn describe(shard: u16, fault: &RecoverFault) -> String {
    format!("shard {shard}: {fault}")
}

/// Where what is in the segment's file ends; the rest is still in the journal.
fn end(group: &Group, found: &segment::Segment) -> u64 {
    group.log.segment_of(found.first_offset).map_or(found.end, |(_, flushed_end)| flushed_end)
}

fn read_shard(layout: &Layout, number: u16, examined: &Examined, report: &mut Report, progress: &mut dyn FnMut(u64)) {
    let journal = match examined.walked.end {
        End::Clean => "ends cleanly".to_owned(),
        End::Torn => "has a torn, never answered end, which the next start cuts".to_owned(),
        End::Damaged { index, .. } => {
            report.damage.push(format!(
                "shard {number}: journal entry {index} is missing or damaged, and later ones rest on it"
            ));
            format!("is damaged at entry {index}")
        }
    };
    report.damage.extend(examined.warnings.iter().cloned());
    report.lines.push(format!(
        "shard {number}: {}, state at entry {}, {} journal entries behind it; the journal {journal}",
        counted(examined.groups.len() as u64, "group"),
        examined.checkpoint.index,
        examined.walked.entries,
    ));
    let directory = shard_directory(&layout.path, number).join("segments");
    let mut groups: Vec<&Group> = examined.groups.values().filter(|group| !group.closed).collect();
    groups.sort_by_key(|group| group.number);
    for group in groups {
        for found in group.log.segments() {
            let upto = end(group, found);
            let path = segment::path(&directory, group.number, found.sequence);
            let mut expected = found.first_offset;
            let mut last_received_us = 0;
            let opened = SegmentFile::open_read_only(&path).map_err(|error| error.to_string());
            let read = opened.and_then(|file| {
                let visit = |position: u64, frame: &crate::log::frame::Frame<'_>| {
                    progress(report.bytes + position);
                    if frame.header.group != group.number || frame.header.first_offset != expected {
                        return Err(format!("expected offset {expected} of group {}", group.number));
                    }
                    let (first, next) = (expected, frame.header.next_offset());
                    if let Err(cause) = frame.check_body() {
                        let place = format!("group {}: offsets {first}..{next}: {}", group.number, path.display());
                        report.damage.push(format!("{place}: at byte {position}: {cause}"));
                        expected = next;
                        return Ok(());
                    }
                    for event in frame.events() {
                        let event = event.map_err(|fault| fault.to_string())?;
                        if event.received_us < last_received_us {
                            return Err(format!("offset {} was received before the one before it", event.offset));
                        }
                        last_received_us = event.received_us;
                    }
                    report.events += next - first;
                    expected = next;
                    Ok(())
                };
                scan::scan(&file, SEGMENT_START, upto, visit).map_err(|fault| fault.to_string())
            });
            if let Err(cause) = read {
                let next = found.next_offset;
                report.damage.push(format!(
                    "group {}: offsets {expected}..{next}: {}: {cause}",
                    group.number,
                    path.display()
                ));
            }
            report.segments += 1;
            report.bytes += upto.saturating_sub(SEGMENT_START);
        }
        let waiting = group.next_offset().saturating_sub(group.log.flushed_next());
        report.events += waiting;
    }
    progress(report.bytes);
}
