//! Applying the journal's entries again to what the state file knew.
//!
//! Frames stay in memory as a tail up to a bound and go to their segments beyond, over whatever stands there: bytes behind
//! a segment's recorded end never count.

use super::outbox::Outbox;
use crate::auth::secret::TokenId;
use crate::auth::token::{Token, Tokens};
use crate::group::Group;
use crate::group::consumer;
use crate::group::record;
use crate::group::table::{Removed, Table, TableGroup};
use crate::io::file::SegmentFile;
use crate::log::entry::{EntryHeader, PartKind, Parts};
use crate::log::frame::FrameHeader;
use crate::log::recovery::NotApplied;
use crate::log::segment;
use crate::log::wire::{Fields, Malformed};
use bytes::Bytes;
use foldhash::HashMap;
use hashlink::LinkedHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Segments that were written to and not synced.
pub(super) type Dirty = LinkedHashMap<(u32, u32), SegmentFile>;

/// The journal's changes, applied to what the state file knew.
pub(super) struct Replay {
    pub(super) groups: HashMap<u32, Group>,
    pub(super) table: Table,
    pub(super) tokens: Tokens,
    pub(super) outbox: Outbox,
    pub(super) segments: PathBuf,
    pub(super) tail_bytes: usize,
    pub(super) tail_memory: usize,
    /// Segments written to here, for the first checkpoint to sync.
    pub(super) dirty: Dirty,
    /// Groups that frames were found of, and neither a registration nor a closing: offsets of the first event and behind
    /// the last.
    pub(super) unknown: BTreeMap<u32, (u64, u64)>,
    /// Segments that lack bytes below the frames that were written to them here.
    pub(super) holed: BTreeSet<(u32, u32)>,
}

impl Replay {
    pub(super) fn open(&mut self, group: &TableGroup) {
        self.groups
            .entry(group.number)
            .or_insert_with(|| Group::new(group.number, group.first_offset, group.config.clone()));
    }

    pub(super) fn apply(&mut self, shard: u16, header: &EntryHeader, parts: Parts<'_>) -> Result<(), NotApplied> {
        for part in parts {
            let (kind, bytes) = part?;
            self.apply_part(shard, header.index, kind, bytes)?;
        }
        if self.tail_bytes > self.tail_memory {
            self.flush(header.index).map_err(|error| format!("a segment cannot be written: {error}"))?;
        }
        Ok(())
    }

    pub(super) fn apply_part(
        &mut self,
        shard: u16,
        entry: u64,
        kind: PartKind,
        bytes: &[u8],
    ) -> Result<(), NotApplied> {
        let mut fields = Fields::new(bytes);
        match kind {
            PartKind::Frame => {
                let header = FrameHeader::decode(bytes)?.ok_or(Malformed("a frame is cut"))?;
                // A group that was removed since has left its frames behind in the journal, and its closing behind them.
                let Some(group) = self.groups.get_mut(&header.group) else {
                    let offsets = self.unknown.entry(header.group).or_insert((header.first_offset, 0));
                    offsets.1 = header.next_offset();
                    return Ok(());
                };
                group.replay(&header, Bytes::copy_from_slice(bytes), entry)?;
                self.tail_bytes += bytes.len();
            }
            PartKind::GroupRegistered => {
                let group = TableGroup::decode(&mut fields)?;
                self.table.insert(group.clone());
                if group.shard == shard {
                    self.open(&group);
                }
            }
            PartKind::GroupRemoved => {
                let removed = Removed::decode(&mut fields)?;
                self.groups.remove(&removed.number);
                self.unknown.remove(&removed.number);
                self.table.remove(removed);
            }
            PartKind::GroupConfigured | PartKind::GroupClosed | PartKind::SegmentSealed | PartKind::GroupTrimmed => {
                self.apply_to_group(entry, kind, &mut fields)?;
            }
            PartKind::Consumer => {
                let (group, name, consumer) = consumer::decode(&mut fields)?;
                if let Some(group) = self.groups.get_mut(&group) {
                    group.last_entry = entry;
                    group.consumers.insert(name.into(), consumer);
                }
            }
            PartKind::ConsumerAcked => {
                let (group, head, at_us, name) = consumer::decode_acked(&mut fields)?;
                let consumer = self.groups.get_mut(&group).and_then(|group| group.consumers.get_mut(name));
                consumer.into_iter().for_each(|consumer| consumer.advance(head, at_us));
            }
            PartKind::ConsumerRemoved => {
                let (number, name) = (fields.u32()?, fields.short_text()?);
                if let Some(group) = self.groups.get_mut(&number) {
                    group.consumers.remove(name);
                }
            }
            PartKind::TokenCreated => {
                let token = Token::decode(&mut fields)?;
                self.tokens.insert(token.id, Arc::new(token));
            }
            PartKind::TokenRevoked => {
                self.tokens.remove(&TokenId(fields.u64()?));
            }
            PartKind::Audit => self.outbox.replay_event(&mut fields)?,
            PartKind::AuditForwarded => self.outbox.replay_forwarded(shard, &mut fields)?,
            PartKind::Bulk => return Err(Malformed("a part of a kind that this version does not write").into()),
        }
        Ok(())
    }

    /// A change of one group as a whole.
    fn apply_to_group(&mut self, entry: u64, kind: PartKind, fields: &mut Fields<'_>) -> Result<(), NotApplied> {
        let number = fields.u32()?;
        if kind == PartKind::GroupClosed {
            self.unknown.remove(&number);
        }
        let Some(group) = self.groups.get_mut(&number) else { return Ok(()) };
        group.last_entry = entry;
        match kind {
            PartKind::GroupConfigured => group.config = record::decode_config(fields)?,
            PartKind::GroupClosed => group.closed = true,
            PartKind::SegmentSealed => {
                let sequence = fields.u32()?;
                // A frame of the same entry may have begun the next segment.
                if group.log.active().is_some_and(|active| active.sequence == sequence) {
                    group.log.seal_active();
                }
            }
            _ => {
                let earliest = fields.u64()?;
                group.trim(earliest, |_, _| {});
                let trimmed = group.trimmed(earliest);
                self.tail_bytes -= trimmed.freed;
                for sequence in trimmed.sequences {
                    self.dirty.remove(&(number, sequence));
                    self.holed.remove(&(number, sequence));
                }
            }
        }
        Ok(())
    }

    /// Writes replayed frames to their segments, for there are more of them than memory may hold.
    fn flush(&mut self, upto: u64) -> io::Result<()> {
        for group in self.groups.values_mut() {
            loop {
                let frames = group.log.to_flush(upto, 4 << 20);
                let Some(last) = frames.last() else { break };
                for run in frames.chunk_by(|one, next| one.segment == next.segment) {
                    let key = (group.number, run[0].segment);
                    let file = match self.dirty.get(&key) {
                        Some(file) => file.clone(),
                        None => {
                            let file = SegmentFile::create(&segment::path(&self.segments, key.0, key.1))?;
                            if file.length()? < run[0].position && run[0].position > segment::SEGMENT_START {
                                self.holed.insert(key);
                            }
                            file
                        }
                    };
                    let pieces: Vec<&[u8]> = run.iter().map(|frame| &frame.bytes[..]).collect();
                    file.write(&pieces, run[0].position)?;
                    self.dirty.insert(key, file);
                }
                self.tail_bytes -= group.log.flushed(last.next_offset);
            }
        }
        Ok(())
    }
}
