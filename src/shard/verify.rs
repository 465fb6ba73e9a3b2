//! Walking a data directory while no broker runs: is everything there, whole, and in order?

use super::examine::{Examined, RecoverFault, examine};
use super::init::{self, DirectoryFault, Layout, shard_directory};
use super::segments::footer;
use crate::group::Group;
use crate::group::table::TableGroup;
use crate::io::file::SegmentFile;
use crate::log::look::{Expected, Hurt, Look, look};
use crate::log::recovery::End;
use crate::log::segment::{self, SEGMENT_START, Segment};
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
        let progress = &mut |done| progress(done, total);
        read_shard(&layout, *number, examined, &mut report, progress).map_err(VerifyFault::Newer)?;
    }
    Ok(report)
}

fn describe(shard: u16, fault: &RecoverFault) -> String {
    format!("shard {shard}: {fault}")
}

/// Where what is in the segment's file ends; the rest is still in the journal.
pub(super) fn end(group: &Group, found: &Segment) -> u64 {
    group.log.segment_of(found.first_offset).map_or(found.end, |(_, flushed_end)| flushed_end)
}

fn read_shard(
    layout: &Layout,
    number: u16,
    examined: &Examined,
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> Result<(), RecoverFault> {
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
    report.damage.extend(
        examined.unnamed.iter().map(|group| {
            format!("group {} lives in shard {number}, and the table of shard 0 has lost it", group.number)
        }),
    );
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
        for gap in group.gaps.iter() {
            let number = group.number;
            report.lines.push(format!("group {number}: offsets {}..{} are a gap that a repair left", gap.from, gap.to));
        }
        for found in group.log.segments() {
            let path = segment::path(&directory, group.number, found.sequence);
            let (upto, before) = (end(group, found), report.bytes);
            let look = look_at(&path, group, found, &mut |position| progress(before + position))?;
            report.damage.extend(look.hurt.iter().map(|hurt| {
                let Hurt { from, to, position, cause } = hurt;
                format!("group {}: offsets {from}..{to}: {}: at byte {position}: {cause}", group.number, path.display())
            }));
            report_index(report, &path, group.number, found, &look);
            report.events += look.runs.iter().map(|run| run.next_offset - run.first_offset).sum::<u64>();
            report.segments += 1;
            report.bytes += upto.saturating_sub(SEGMENT_START);
        }
        report.events += group.log.waiting();
    }
    progress(report.bytes);
    Ok(())
}

/// Tells whether the index of a segment that is sealed and whole is so, too.
fn report_index(report: &mut Report, path: &Path, group: u32, found: &Segment, look: &Look) {
    if !found.sealed || !look.hurt.is_empty() || look.indexed {
        return;
    }
    let index = SegmentFile::open_read_only(path).map_err(|error| error.to_string());
    let missing = index.as_ref().is_ok_and(|file| file.length().is_ok_and(|length| length <= found.end));
    let again = "it is made again when it is needed";
    match index.and_then(|file| footer(&file, found.end)) {
        Err(_) if missing => {
            report.lines.push(format!("group {group}: {} has no index yet; {again}", path.display()));
        }
        Err(cause) => report.damage.push(format!("group {group}: {}: {cause}; {again}", path.display())),
        Ok(_) => report.damage.push(format!("group {group}: {}: its index tells of other frames", path.display())),
    }
}

/// Looks at what of a segment is in its file; the rest is still in the journal.
///
/// # Errors
/// When a newer version wrote it.
pub(super) fn look_at(
    path: &Path,
    group: &Group,
    found: &Segment,
    progress: &mut dyn FnMut(u64),
) -> Result<Look, RecoverFault> {
    let next_offset = found.next_offset.min(group.log.flushed_next());
    let expected =
        Expected { group: group.number, first_offset: found.first_offset, next_offset, end: end(group, found) };
    let file = match SegmentFile::open_read_only(path) {
        Ok(file) => file,
        Err(error) => {
            let hurt = Hurt { from: found.first_offset, to: next_offset, position: 0, cause: error.to_string() };
            let hurt = (hurt.from < hurt.to).then_some(hurt);
            return Ok(Look { hurt: hurt.into_iter().collect(), ..Look::default() });
        }
    };
    let index = if found.sealed { footer(&file, found.end).ok() } else { None };
    look(&file, expected, index.as_ref(), progress)
        .map_err(|found| RecoverFault::Newer { path: path.to_owned(), found })
}
