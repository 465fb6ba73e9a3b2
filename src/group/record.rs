//! A group in a shard's state file.
//!
//! ```text
//! group number 4 · closed 1 · zero 3 · earliest 8 · next offset 8 · last received 8 · last id 16
//! · config: length 2 · JSON · next sequence 4 · segments 4 · segments · gaps 4 · gaps (from 8 · to 8) · producers 4 · producers
//! ```

use super::Group;
use super::config::GroupConfig;
use super::gaps::Gaps;
use super::producers::Producers;
use crate::log::segment::Segment;
use crate::log::wire::{Fields, Malformed, put_short};
use std::collections::VecDeque;

/// What a state file knows of a group.
pub struct GroupRecord {
    /// Its number.
    pub number: u32,
    /// How it is kept.
    pub config: GroupConfig,
    /// Smallest offset that can be read.
    pub earliest: u64,
    /// Offset that the next event gets.
    pub next_offset: u64,
    /// `received` of the newest event, µs.
    pub last_received_us: u64,
    /// Id of the newest event.
    pub last_id: u128,
    /// Whether it was deleted.
    pub closed: bool,
    /// Sequence number of its next segment.
    pub next_sequence: u32,
    /// Its segments, oldest first.
    pub segments: VecDeque<Segment>,
    /// Offsets that a repair gave up.
    pub gaps: Gaps,
    /// Who produced into it.
    pub producers: Producers,
}

/// Appends the stored form of a group none of whose frames is open.
pub fn encode(group: &Group, out: &mut Vec<u8>) {
    out.extend_from_slice(&group.number.to_le_bytes());
    out.extend_from_slice(&u32::from(group.closed).to_le_bytes());
    for field in [group.earliest, group.next_offset(), group.last_received_us()] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&group.last_id().to_be_bytes());
    put_short(out, group.config.to_json().as_bytes());
    out.extend_from_slice(&group.log.next_sequence().to_le_bytes());
    // Files of what was trimmed stay until that is durable; the state does not know them any more.
    let segments = group.log.segments();
    let kept = segments.range(segments.partition_point(|segment| segment.next_offset <= group.earliest)..);
    out.extend_from_slice(&(kept.len() as u32).to_le_bytes());
    kept.for_each(|segment| segment.encode(out));
    group.gaps.encode(group.earliest, out);
    group.producers.encode(out);
}

/// Takes the stored form.
///
/// # Errors
/// When the bytes are not a group's record.
pub fn decode(fields: &mut Fields<'_>) -> Result<GroupRecord, Malformed> {
    let (number, closed) = (fields.u32()?, fields.u32()? != 0);
    let (earliest, next_offset, last_received_us) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let last_id = fields.uuid()?;
    let config = decode_config(fields)?;
    let next_sequence = fields.u32()?;
    let segments = fields.u32()?;
    let segments = (0..segments).map(|_| Segment::decode(fields)).collect::<Result<_, _>>()?;
    let gaps = Gaps::decode(fields)?;
    let producers = Producers::decode(fields)?;
    Ok(GroupRecord {
        number,
        config,
        earliest,
        next_offset,
        last_received_us,
        last_id,
        closed,
        next_sequence,
        segments,
        gaps,
        producers,
    })
}

/// Takes a configuration: 16-bit length and JSON.
///
/// # Errors
/// When it is not one.
pub fn decode_config(fields: &mut Fields<'_>) -> Result<GroupConfig, Malformed> {
    let json = fields.short_bytes()?;
    GroupConfig::parse(json, &GroupConfig::default()).map_err(|_| Malformed("a group's configuration is unreadable"))
}
