//! Writing a repaired shard, so that a crash at any moment leaves the old damage or all of the repair.
//!
//! ```text
//! 1 frames that only the journal has go to their segments    behind their recorded ends: they do not count yet;
//!   what is whole of damaged segments gets new names         which nobody knows yet
//! 2 segments are synced, then their directory
//! 3 a new generation of the state is written and synced      from here on the shard is repaired
//! 4 the other generation, too                                so that one damaged file does not bring the damage back
//! 5 what does not count any more is removed                  a start would do it, too
//! ```

use super::segments::rebuild;
use super::{Plan, RepairFault};
use crate::group::Group;
use crate::group::consumer;
use crate::group::record;
use crate::io::file::{SegmentFile, sync_directory};
use crate::log::segment::{self, SEGMENT_START};
use crate::log::state::{Checkpoint, RecordKind, Records};
use crate::shard::checkpoint::{add_outbox, add_table, add_tokens, write_state};
use crate::shard::examine::Examined;
use crate::shard::init::{Layout, shard_directory};
use crate::shard::space::segment_header;
use crate::shard::tails::write_footer;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Steps of writing one shard, for whoever wants to know how far it is.
const STEPS: u64 = 5;

/// Writes every shard that changes. Shard 0 comes first: how far names must go on above is known from all shards as they
/// are now, and the others need nothing of it.
///
/// # Errors
/// The operating system's; the repair can be begun again.
pub(super) fn carry_out(
    layout: &Layout,
    plan: &mut Plan,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), RepairFault> {
    let changed: Vec<usize> = (0..plan.shards.len()).filter(|&shard| plan.changes(shard)).collect();
    let all = changed.len() as u64 * STEPS;
    let mut done = 0;
    for shard in changed {
        let directory = shard_directory(&layout.path, shard as u16);
        let mut step = || {
            done += 1;
            progress(done, all);
        };
        write_shard(layout, plan, shard, &directory, &mut step)
            .map_err(|cause| RepairFault::Io { path: directory.clone(), cause })?;
    }
    Ok(())
}

fn write_shard(
    layout: &Layout,
    plan: &mut Plan,
    number: usize,
    directory: &Path,
    step: &mut dyn FnMut(),
) -> io::Result<()> {
    let shard = &mut plan.shards[number];
    let segments = directory.join("segments");
    let header =
        |group: u32| move |sequence: u32| segment_header(layout.identity, number as u16, group, sequence).encode();
    let mut written = Written::default();
    let mut groups: Vec<&mut Group> = shard.examined.groups.values_mut().collect();
    groups.sort_by_key(|group| group.number);
    let mut settlings = Vec::new();
    for group in &mut groups {
        written.tail(group, &segments, &header(group.number))?;
        if let Some(hurt) = shard.hurt.get(&group.number) {
            settlings.push((group.number, rebuild(group, hurt, &segments, &header(group.number))?));
        }
    }
    step();
    written.sync()?;
    sync_directory(&segments)?;
    step();
    let before = shard.examined.checkpoint.generation;
    for generation in [before + 1, before + 2] {
        let checkpoint = Checkpoint {
            generation,
            index: shard.next_index - 1,
            next_address: shard.next_address,
            crc: shard.examined.walked.head.previous_crc,
        };
        let bytes = records(number as u16, &shard.examined).finish(&checkpoint, layout.identity, number as u16);
        write_state(directory, generation, &bytes)?;
        sync_directory(directory)?;
        step();
    }
    settlings.iter().try_for_each(|(group, settling)| settling.settle(&segments, &header(*group)))?;
    sync_directory(&segments)?;
    step();
    Ok(())
}

/// What the state says of a shard.
fn records(shard: u16, examined: &Examined) -> Records {
    // All that is known is named here, so that nothing new is left out of a repaired state.
    let Examined {
        groups,
        table,
        tokens,
        outbox,
        checkpoint: _,
        walked: _,
        warnings: _,
        unnamed: _,
        untouched: _,
        last_number: _,
        files: _,
        dirty: _,
    } = examined;
    let mut records = Records::default();
    for group in groups.values() {
        records.add(RecordKind::Group, |out| record::encode(group, out));
        for (name, consumer) in &group.consumers {
            records.add(RecordKind::Consumer, |out| consumer::encode(group.number, name, consumer, out));
        }
    }
    if shard == 0 {
        add_table(&mut records, table);
        add_tokens(&mut records, tokens);
    }
    add_outbox(&mut records, outbox);
    records
}

/// Segments that were written to and are not synced yet.
#[derive(Default)]
struct Written(BTreeMap<(u32, u32), SegmentFile>);

impl Written {
    /// Writes the frames of a group that are in the journal alone.
    fn tail(&mut self, group: &mut Group, segments: &Path, header: &dyn Fn(u32) -> [u8; 64]) -> io::Result<()> {
        let frames = group.log.to_flush(u64::MAX, usize::MAX);
        let Some(last) = frames.last() else { return Ok(()) };
        for run in frames.chunk_by(|one, next| one.segment == next.segment) {
            let sequence = run[0].segment;
            let file = SegmentFile::create(&segment::path(segments, group.number, sequence))?;
            if run[0].position == SEGMENT_START {
                file.write(&[header(sequence)], 0)?;
            }
            let pieces: Vec<&[u8]> = run.iter().map(|frame| &frame.bytes[..]).collect();
            file.write(&pieces, run[0].position)?;
            self.0.insert((group.number, sequence), file);
        }
        group.log.flushed(last.next_offset);
        for (segment, index) in group.log.take_finished() {
            if let Some(file) = self.0.get(&(group.number, segment.sequence)) {
                write_footer(&segment, index, file)?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.values().try_for_each(SegmentFile::sync)
    }
}
