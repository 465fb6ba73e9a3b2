//! Who produced into a group, so that a request sent twice is stored once.
//!
//! A producer counts its requests from 0 within an epoch that it chooses. What is remembered is part of the very frames
//! that hold its events, so it is as durable as they are. It is bounded: the one quiet longest is forgotten first, and
//! whoever was quiet for a week is forgotten too; a forgotten producer is told so and begins again.

use super::Refusal;
use crate::limits::{ANSWERS_PER_PRODUCER, PRODUCER_IDLE_US, PRODUCERS_PER_GROUP_MAX};
use crate::log::frame::ProducerStamp;
use crate::log::wire::{Fields, Malformed, put_short};
use hashlink::LinkedHashMap;
use std::collections::VecDeque;

/// What is remembered of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: u64,
    last_seq: u64,
    last_received_us: u64,
    /// First offset and count of its last requests, the newest last.
    answers: VecDeque<(u64, u32)>,
}

/// How a request fits a producer's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one.
    Next,
    /// It was stored before, at these offsets if they are still remembered.
    Repeat(Option<(u64, u32)>),
    /// It does not fit.
    Refused(Refusal),
}

/// The producers of one group, the one quiet longest first.
#[derive(Default)]
pub struct Producers(Option<Box<LinkedHashMap<Box<str>, Producer>>>);

impl Producers {
    /// Judges a request received at `received_us`; changes nothing.
    #[must_use]
    pub fn judge(&self, stamp: &ProducerStamp<'_>, received_us: u64) -> Verdict {
        let known = self.0.as_ref().and_then(|producers| producers.get(stamp.id));
        let known = known.filter(|producer| received_us.saturating_sub(producer.last_received_us) <= PRODUCER_IDLE_US);
        let Some(producer) = known else {
            return if stamp.seq == 0 { Verdict::Next } else { Verdict::Refused(Refusal::ProducerUnknown) };
        };
        let expected = if stamp.epoch == producer.epoch { producer.last_seq + 1 } else { 0 };
        if stamp.epoch < producer.epoch {
            Verdict::Refused(Refusal::ProducerFenced { epoch: producer.epoch })
        } else if stamp.seq == expected {
            Verdict::Next
        } else if stamp.seq < expected {
            let back = (producer.last_seq - stamp.seq) as usize;
            let answer = producer.answers.len().checked_sub(back + 1).map(|place| producer.answers[place]);
            Verdict::Repeat(answer)
        } else {
            Verdict::Refused(Refusal::SequenceGap { expected })
        }
    }

    /// Remembers a request that was judged to be next and stored.
    pub fn note(&mut self, stamp: &ProducerStamp<'_>, first_offset: u64, count: u32, received_us: u64) {
        let producers = self.0.get_or_insert_default();
        if let Some(producer) = producers.to_back(stamp.id) {
            // What is remembered is one row of requests: behind one that was lost it begins again.
            if producer.epoch != stamp.epoch || stamp.seq != producer.last_seq.wrapping_add(1) {
                producer.answers.clear();
            }
            producer.epoch = stamp.epoch;
            producer.last_seq = stamp.seq;
            producer.last_received_us = received_us;
            if producer.answers.len() == ANSWERS_PER_PRODUCER {
                producer.answers.pop_front();
            }
            producer.answers.push_back((first_offset, count));
            return;
        }
        let idle = |producer: &Producer| received_us.saturating_sub(producer.last_received_us) > PRODUCER_IDLE_US;
        while producers.len() >= PRODUCERS_PER_GROUP_MAX || producers.front().is_some_and(|(_, oldest)| idle(oldest)) {
            producers.pop_front();
        }
        producers.insert(
            stamp.id.into(),
            Producer {
                epoch: stamp.epoch,
                last_seq: stamp.seq,
                last_received_us: received_us,
                answers: VecDeque::from([(first_offset, count)]),
            },
        );
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = self.0.as_ref().map_or(0, |producers| producers.len());
        out.extend_from_slice(&(count as u32).to_le_bytes());
        for (id, producer) in self.0.iter().flat_map(|producers| producers.iter()) {
            put_short(out, id.as_bytes());
            for field in [producer.epoch, producer.last_seq, producer.last_received_us] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            out.push(producer.answers.len() as u8);
            for (first_offset, count) in &producer.answers {
                out.extend_from_slice(&first_offset.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
    }

    /// Takes the stored form.
    ///
    /// # Errors
    /// When the bytes are cut.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let count = fields.u32()?;
        if count == 0 {
            return Ok(Self(None));
        }
        let mut producers = LinkedHashMap::new();
        for _ in 0..count {
            let id = fields.short_text()?;
            let (epoch, last_seq, last_received_us) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let answers = fields.u8()?;
            let answers = (0..answers).map(|_| Ok((fields.u64()?, fields.u32()?))).collect::<Result<_, Malformed>>()?;
            producers.insert(id.into(), Producer { epoch, last_seq, last_received_us, answers });
        }
        Ok(Self(Some(Box::new(producers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: u64, seq: u64) -> ProducerStamp<'static> {
        ProducerStamp { id: "p", epoch, seq }
    }

    #[test]
    fn a_sequence_its_repeats_its_gaps_and_its_epochs() {
        let mut producers = Producers::default();
        assert_eq!(producers.judge(&stamp(1, 3), 0), Verdict::Refused(Refusal::ProducerUnknown));
        for seq in 0..70 {
            assert_eq!(producers.judge(&stamp(1, seq), 0), Verdict::Next, "seq {seq}");
            producers.note(&stamp(1, seq), seq * 10, 10, 0);
        }
        for (epoch, seq, verdict) in [
            (1, 69, Verdict::Repeat(Some((690, 10)))),
            (1, 6, Verdict::Repeat(Some((60, 10)))),
            (1, 5, Verdict::Repeat(None)),
            (1, 71, Verdict::Refused(Refusal::SequenceGap { expected: 70 })),
            (0, 70, Verdict::Refused(Refusal::ProducerFenced { epoch: 1 })),
            (2, 1, Verdict::Refused(Refusal::SequenceGap { expected: 0 })),
            (2, 0, Verdict::Next),
        ] {
            assert_eq!(producers.judge(&stamp(epoch, seq), 0), verdict, "{epoch}/{seq}");
        }
        producers.note(&stamp(2, 0), 1000, 1, 0);
        assert_eq!(producers.judge(&stamp(2, 0), 0), Verdict::Repeat(Some((1000, 1))));
    }

    #[test]
    fn behind_a_request_that_was_lost_repeats_are_known_without_their_offsets() {
        let mut producers = Producers::default();
        (0..3).for_each(|seq| producers.note(&stamp(1, seq), seq * 10, 10, 0));
        producers.note(&stamp(1, 4), 50, 10, 0);
        for (seq, verdict) in [
            (2, Verdict::Repeat(None)),
            (3, Verdict::Repeat(None)),
            (4, Verdict::Repeat(Some((50, 10)))),
            (5, Verdict::Next),
        ] {
            assert_eq!(producers.judge(&stamp(1, seq), 0), verdict, "{seq}");
        }
    }

    #[test]
    fn whoever_was_quiet_for_a_week_begins_again() {
        let mut producers = Producers::default();
        producers.note(&stamp(1, 0), 0, 1, 5);
        assert_eq!(producers.judge(&stamp(1, 1), PRODUCER_IDLE_US + 5), Verdict::Next);
        assert_eq!(producers.judge(&stamp(1, 1), PRODUCER_IDLE_US + 6), Verdict::Refused(Refusal::ProducerUnknown));
        producers.note(&ProducerStamp { id: "q", epoch: 0, seq: 0 }, 1, 1, PRODUCER_IDLE_US + 6);
        assert_eq!(producers.0.as_ref().unwrap().len(), 1, "the idle one is gone");
    }

    #[test]
    fn there_are_never_too_many_and_the_oldest_goes_first() {
        let mut producers = Producers::default();
        let id = |number: usize| format!("producer-{number}");
        for number in 0..=PRODUCERS_PER_GROUP_MAX {
            producers.note(&ProducerStamp { id: &id(number), epoch: 0, seq: 0 }, 0, 1, number as u64);
        }
        let known = producers.0.as_ref().unwrap();
        assert_eq!(known.len(), PRODUCERS_PER_GROUP_MAX);
        assert!(!known.contains_key(id(0).as_str()) && known.contains_key(id(1).as_str()));
    }

    #[test]
    fn the_stored_form_comes_back_in_order() {
        let mut producers = Producers::default();
        producers.note(&stamp(1, 0), 0, 3, 5);
        producers.note(&ProducerStamp { id: "other", epoch: 9, seq: 0 }, 3, 1, 6);
        producers.note(&stamp(1, 1), 4, 2, 7);
        let mut bytes = Vec::new();
        producers.encode(&mut bytes);
        let mut fields = Fields::new(&bytes);
        let decoded = Producers::decode(&mut fields).unwrap();
        assert!(fields.rest().is_empty());
        let list = |producers: &Producers| {
            producers.0.as_ref().unwrap().iter().map(|(id, p)| (id.clone(), p.clone())).collect::<Vec<_>>()
        };
        assert_eq!(list(&decoded), list(&producers));
        for cut in 0..bytes.len() {
            assert!(Producers::decode(&mut Fields::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
}
