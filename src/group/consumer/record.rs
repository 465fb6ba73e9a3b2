//! A consumer as it is stored: in a journal entry when anything but its head changes, and in the state file.
//!
//! ```text
//! group 4 · name: length 2 · UTF-8 · life 1 · on poison 1 · zero 2 · attempts max 4 · lease µs 8 · events max 8 · bytes max 8
//! · expires 8 · created 8 · approved 8 · dead letters (group number) 4 · failures 4 · epoch 8 · next 8 · acked at 8
//! · redelivered 8 · dead-lettered 8 · gap from 8 · gap to 8 · start: length 2 · text · token: length 2 · id · reason: length 2 · text
//! · session 1: id 8 · anonymous 1 · opened 8 · last rewind 1: from 8 · to 8 · until 8 (2^64-1: none) · at 8
//! · replays 4: next 8 · until 8 each
//! ```
//!
//! An optional part has a byte 0 or 1 in front. A gap from 0 to 0 is none.

use super::{Consumer, Life, Live, OnPoison, Replay, Rewound, Session, Terms};
use crate::limits::CONSUMER_REPLAYS_MAX;
use crate::log::wire::{Fields, Malformed, put_short};
use std::time::Duration;

/// Appends the stored form of the consumer `name` of `group`.
pub fn encode(group: u32, name: &str, consumer: &Consumer, out: &mut Vec<u8>) {
    let terms = &consumer.terms;
    out.extend_from_slice(&group.to_le_bytes());
    put_short(out, name.as_bytes());
    out.extend_from_slice(&[consumer.life as u8, terms.on_poison as u8, 0, 0]);
    out.extend_from_slice(&terms.attempts_max.to_le_bytes());
    let lease_us = terms.lease.as_micros() as u64;
    put(out, &[lease_us, terms.events_max, terms.bytes_max, terms.expires_us]);
    put(out, &[consumer.created_us, consumer.approved_us]);
    out.extend_from_slice(&consumer.dead_letters.to_le_bytes());
    out.extend_from_slice(&consumer.failures.to_le_bytes());
    put(out, &[consumer.epoch, consumer.next, consumer.acked_at_us, consumer.redelivered, consumer.dead_lettered]);
    let (lost_from, lost_to) = consumer.gap.unwrap_or_default();
    put(out, &[lost_from, lost_to]);
    put_short(out, consumer.start.as_bytes());
    put_short(out, consumer.token.as_deref().unwrap_or_default().as_bytes());
    put_short(out, consumer.reason.as_bytes());
    out.push(u8::from(consumer.session.is_some()));
    if let Some(session) = &consumer.session {
        put(out, &[session.id]);
        out.push(u8::from(session.anonymous));
        put(out, &[session.opened_us]);
    }
    out.push(u8::from(consumer.last_rewind.is_some()));
    if let Some(rewound) = &consumer.last_rewind {
        put(out, &[rewound.from, rewound.to, rewound.until.unwrap_or(u64::MAX), rewound.at_us]);
    }
    out.extend_from_slice(&(consumer.replays.len() as u32).to_le_bytes());
    consumer.replays.iter().for_each(|replay| put(out, &[replay.next, replay.until]));
}

fn put(out: &mut Vec<u8>, fields: &[u64]) {
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
}

/// Takes the stored form: group, name, consumer.
///
/// # Errors
/// When the bytes are not a consumer.
pub fn decode<'b>(fields: &mut Fields<'b>) -> Result<(u32, &'b str, Consumer), Malformed> {
    let (group, name) = (fields.u32()?, fields.short_text()?);
    let life = match fields.u8()? {
        1 => Life::Pending,
        2 => Life::Approved,
        3 => Life::Suspended,
        4 => Life::Revoked,
        _ => return Err(Malformed("a consumer is in no known state")),
    };
    let on_poison = match fields.u8()? {
        0 => OnPoison::Stall,
        1 => OnPoison::DeadLetter,
        _ => return Err(Malformed("a consumer treats poison in no known way")),
    };
    fields.u16()?;
    let terms = Terms {
        on_poison,
        attempts_max: fields.u32()?,
        lease: Duration::from_micros(fields.u64()?),
        events_max: fields.u64()?,
        bytes_max: fields.u64()?,
        expires_us: fields.u64()?,
    };
    let (created_us, approved_us) = (fields.u64()?, fields.u64()?);
    let (dead_letters, failures) = (fields.u32()?, fields.u32()?);
    let (epoch, next, acked_at_us) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (redelivered, dead_lettered) = (fields.u64()?, fields.u64()?);
    let gap = Some((fields.u64()?, fields.u64()?)).filter(|gap| *gap != (0, 0));
    let (start, token, reason) = (fields.short_text()?, fields.short_text()?, fields.short_text()?);
    let session = match fields.u8()? {
        0 => None,
        _ => Some(Session { id: fields.u64()?, anonymous: fields.u8()? != 0, opened_us: fields.u64()? }),
    };
    let last_rewind = match fields.u8()? {
        0 => None,
        _ => Some(Rewound {
            from: fields.u64()?,
            to: fields.u64()?,
            until: Some(fields.u64()?).filter(|&until| until != u64::MAX),
            at_us: fields.u64()?,
        }),
    };
    let replays = fields.u32()? as usize;
    if replays > CONSUMER_REPLAYS_MAX {
        return Err(Malformed("a consumer has too many replays"));
    }
    let replay = |_| Ok(Replay { next: fields.u64()?, until: fields.u64()? });
    let replays = (0..replays).map(replay).collect::<Result<_, Malformed>>()?;
    let consumer = Consumer {
        life,
        start: start.into(),
        terms,
        token: Some(token).filter(|token| !token.is_empty()).map(Into::into),
        created_us,
        approved_us,
        dead_letters,
        epoch,
        next,
        acked_at_us,
        session,
        failures,
        reason: reason.into(),
        replays,
        gap,
        redelivered,
        dead_lettered,
        last_rewind,
        live: Live::default(),
    };
    Ok((group, name, consumer))
}

/// Appends what is stored when the head of the consumer `name` of `group` moved, and nothing else changed:
/// `group 4 · head 8 · when 8 · name: length 2 · UTF-8`.
pub fn encode_acked(group: u32, name: &str, consumer: &Consumer, head: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&group.to_le_bytes());
    put(out, &[head, consumer.acked_at_us]);
    put_short(out, name.as_bytes());
}

/// Takes it: group, head, when, name.
///
/// # Errors
/// When the bytes are cut.
pub fn decode_acked<'b>(fields: &mut Fields<'b>) -> Result<(u32, u64, u64, &'b str), Malformed> {
    Ok((fields.u32()?, fields.u64()?, fields.u64()?, fields.short_text()?))
}
