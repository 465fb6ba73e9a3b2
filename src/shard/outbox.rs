//! A shard's audit events on their way to the audit log.
//!
//! A change and what is told of it are parts of one journal entry. The event stays here, also over a start, until the log
//! on shard 0 holds it; shard 0 notes in the very entry that holds an event whose and which it was. So an event that is
//! brought again after a crash is known, and every change is told exactly once.
//!
//! ```text
//! part Audit           seq 8 · JSON                  seq only grows; about the time in µs since 1970
//! part AuditForwarded  shard 4 · seq 8               its events up to seq are in the log
//! record               last seq 8 · shards 4, then shard 4 · seq 8 each · events 4, then seq 8 · length 4 · JSON each
//! ```
//!
//! The numbers follow the clock, so that those of events which a damaged journal lost are not given to others: the log
//! would take these for repeats.

use crate::log::wire::{Fields, Malformed};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// One event that is not known to be in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuditEvent {
    pub(super) seq: u64,
    /// Journal entry that holds it; 0 for one that outlived a start.
    entry: u64,
    pub(super) json: Bytes,
}

/// The events of one shard, and on shard 0 how far the log has those of all shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outbox {
    last_seq: u64,
    waiting: VecDeque<AuditEvent>,
    waiting_bytes: usize,
    stored: BTreeMap<u16, u64>,
}

impl Outbox {
    /// Adds an event as part of journal entry `entry`; gives the part.
    pub(super) fn add(&mut self, json: &[u8], entry: u64, now_us: u64) -> Vec<u8> {
        self.last_seq = now_us.max(self.last_seq + 1);
        self.push(AuditEvent { seq: self.last_seq, entry, json: Bytes::copy_from_slice(json) });
        [&self.last_seq.to_le_bytes(), json].concat()
    }

    fn push(&mut self, event: AuditEvent) {
        self.waiting_bytes += event.json.len();
        self.waiting.push_back(event);
    }

    /// Notes on `shard` that the events of `from` are in the log up to `seq`.
    pub(super) fn forwarded(&mut self, shard: u16, from: u16, seq: u64) {
        if shard == 0 {
            let stored = self.stored.entry(from).or_default();
            *stored = seq.max(*stored);
        }
        if shard == from {
            while let Some(event) = self.waiting.pop_front_if(|event| event.seq <= seq) {
                self.waiting_bytes -= event.json.len();
            }
        }
    }

    /// The part that says so.
    pub(super) fn forwarded_part(from: u16, seq: u64) -> Vec<u8> {
        [&u32::from(from).to_le_bytes()[..], &seq.to_le_bytes()].concat()
    }

    /// Up to which event the log has those of `from` (shard 0).
    pub(super) fn stored(&self, from: u16) -> u64 {
        self.stored.get(&from).copied().unwrap_or(0)
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of the events that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The oldest events whose entries are durable, about so many bytes of them.
    pub(super) fn batch(&self, durable_index: u64, bytes_max: usize) -> Vec<AuditEvent> {
        let mut bytes = 0;
        let durable = self.waiting.iter().take_while(|event| event.entry <= durable_index);
        let fits = durable.take_while(|event| {
            bytes += event.json.len();
            bytes <= bytes_max || bytes == event.json.len()
        });
        fits.cloned().collect()
    }

    /// Applies a part that recovery found.
    pub(super) fn replay_event(&mut self, fields: &mut Fields<'_>) -> Result<(), Malformed> {
        let seq = fields.u64()?;
        if seq <= self.last_seq {
            return Err(Malformed("an audit event does not follow the one before"));
        }
        self.last_seq = seq;
        self.push(AuditEvent { seq, entry: 0, json: Bytes::copy_from_slice(fields.rest()) });
        Ok(())
    }

    /// The same for a part that says what the log has.
    pub(super) fn replay_forwarded(&mut self, shard: u16, fields: &mut Fields<'_>) -> Result<(), Malformed> {
        let (from, seq) = (fields.u32()? as u16, fields.u64()?);
        self.forwarded(shard, from, seq);
        Ok(())
    }

    /// Appends the stored form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last_seq.to_le_bytes());
        out.extend_from_slice(&(self.stored.len() as u32).to_le_bytes());
        for (&shard, &seq) in &self.stored {
            out.extend_from_slice(&Self::forwarded_part(shard, seq));
        }
        out.extend_from_slice(&(self.waiting.len() as u32).to_le_bytes());
        for event in &self.waiting {
            out.extend_from_slice(&event.seq.to_le_bytes());
            out.extend_from_slice(&(event.json.len() as u32).to_le_bytes());
            out.extend_from_slice(&event.json);
        }
    }

    /// Takes the stored form.
    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let mut outbox = Self { last_seq: fields.u64()?, ..Self::default() };
        for _ in 0..fields.u32()? {
            let (shard, seq) = (fields.u32()? as u16, fields.u64()?);
            outbox.stored.insert(shard, seq);
        }
        for _ in 0..fields.u32()? {
            let (seq, length) = (fields.u64()?, fields.u32()?);
            let json = Bytes::copy_from_slice(fields.bytes(length as usize)?);
            outbox.push(AuditEvent { seq, entry: 0, json });
        }
        Ok(outbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(events: &[AuditEvent]) -> Vec<(u64, &[u8])> {
        events.iter().map(|event| (event.seq, &event.json[..])).collect()
    }

    #[test]
    fn events_wait_in_order_until_they_are_in_the_log() {
        let mut outbox = Outbox::default();
        for (json, entry, now_us) in [(&b"one"[..], 7, 1), (b"two", 7, 1), (b"three", 9, 0)] {
            outbox.add(json, entry, now_us);
        }
        assert_eq!(texts(&outbox.batch(6, 100)), []);
        assert_eq!(texts(&outbox.batch(8, 100)), [(1, &b"one"[..]), (2, b"two")], "what is durable");
        assert_eq!(texts(&outbox.batch(9, 6)).len(), 2, "what fits");
        assert_eq!(texts(&outbox.batch(9, 1)).len(), 1, "at least one");
        outbox.forwarded(3, 3, 2);
        assert_eq!((texts(&outbox.batch(9, 100)), outbox.waiting_bytes()), (vec![(3, &b"three"[..])], 5));
        assert_eq!(outbox.stored(3), 0, "only shard 0 notes what the log has");
        outbox.forwarded(3, 4, 9);
        assert_eq!(outbox.waiting_bytes(), 5, "another shard's");
    }

    #[test]
    fn shard_0_notes_how_far_the_log_has_the_events_of_each() {
        let mut outbox = Outbox::default();
        outbox.add(b"own", 1, 1);
        outbox.forwarded(0, 2, 5);
        outbox.forwarded(0, 2, 4);
        assert_eq!((outbox.stored(2), outbox.waiting_bytes()), (5, 3));
        outbox.forwarded(0, 0, 1);
        assert_eq!((outbox.stored(0), outbox.waiting_bytes()), (1, 0));
    }

    #[test]
    fn parts_and_the_stored_form_make_the_same_again() {
        let (mut outbox, mut replayed) = (Outbox::default(), Outbox::default());
        for (json, now_us) in [(&b"one"[..], 1), (b"two", 1_764_000_000_000_000), (b"three", 5)] {
            replayed.replay_event(&mut Fields::new(&outbox.add(json, 0, now_us))).unwrap();
        }
        for (from, seq) in [(0, 1), (7, 4)] {
            outbox.forwarded(0, from, seq);
            replayed.replay_forwarded(0, &mut Fields::new(&Outbox::forwarded_part(from, seq))).unwrap();
        }
        assert_eq!(replayed, outbox);
        let mut bytes = Vec::new();
        outbox.encode(&mut bytes);
        assert_eq!(Outbox::decode(&mut Fields::new(&bytes)), Ok(outbox));
        for cut in 0..bytes.len() {
            assert!(Outbox::decode(&mut Fields::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
        let again = replayed.replay_event(&mut Fields::new(&9_u64.to_le_bytes()));
        assert!(again.is_err(), "a number that was there");
    }
}
