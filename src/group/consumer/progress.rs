//! How a consumer moves through its group: what it is given next, and what its acks, failures and rewinds do.
//!
//! Nothing here ever moves a position but an ack of what was delivered, or somebody who says so.

use super::{Change, Consumer, Now, OnPoison, Refusal, Replay, Rewound, SessionName};
use crate::group::gaps::Gaps;
use crate::limits::CONSUMER_REPLAYS_MAX;
use std::time::{Duration, Instant};

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// The last offset the caller holds; `None` for what comes behind the last ack.
    pub after: Option<u64>,
    /// Events at most.
    pub events: u64,
    /// Bytes at most, one event aside.
    pub bytes: u64,
}

/// What a caller has to do with a session beyond its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: the lease is all.
    No,
    /// The live answer of that number takes hold of it.
    Take(u64),
    /// It holds it, and ends when another one has taken hold.
    Keep(u64),
}

/// A caller's whole question.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// In whose name; `None` for the anonymous session.
    pub named: Option<SessionName>,
    /// Whether another session is to be ended.
    pub takeover: bool,
    /// What the caller has to do with the session beyond this call.
    pub hold: Hold,
    /// What it has processed since.
    pub ack: Option<u64>,
    /// What it wants.
    pub wants: Wants,
    /// A random number, should a session be opened.
    pub fresh: u64,
}

/// What may be delivered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// In whose name.
    pub session: SessionName,
    /// First offset.
    pub from: u64,
    /// Where it ends at the latest.
    pub until: u64,
    /// Events at most.
    pub events: u64,
    /// Bytes at most, one event aside.
    pub bytes: u64,
    /// How often what begins at the head is tried, this time included.
    pub attempt: u32,
    /// Whether this is a replay.
    pub replay: bool,
    /// Events that are gone, in front of `from`.
    pub gap: Option<(u64, u64)>,
}

/// Why nothing is delivered although something may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// As much is in flight as may be: acks are awaited.
    InFlight,
    /// A failure is to be tried again later, at that time.
    Delay(Instant),
    /// Every attempt at the head failed, and somebody must decide.
    Poison,
}

impl Blocked {
    /// As callers see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Delay(_) => "delay",
            Self::Poison => "poison",
        }
    }
}

/// What of a group is there to be read.
#[derive(Clone, Copy, Debug)]
pub struct There<'g> {
    /// Smallest offset that can be read.
    pub earliest: u64,
    /// Offset behind the last event that everybody may see.
    pub tail: u64,
    /// In between, what is lost.
    pub gaps: &'g Gaps,
}

impl There<'_> {
    /// The first offset from `offset` on that is not lost.
    #[must_use]
    pub fn first_from(&self, offset: u64) -> u64 {
        let offset = offset.max(self.earliest);
        self.gaps.at(offset).map_or(offset, |gap| gap.to)
    }

    /// How many events there are from `offset` on.
    #[must_use]
    pub fn events_from(&self, offset: u64) -> u64 {
        self.tail.saturating_sub(offset) - self.lost(offset, self.tail)
    }

    /// How many offsets of `from..to` are lost, or were trimmed.
    #[must_use]
    pub fn lost(&self, from: u64, to: u64) -> u64 {
        let kept = self.earliest.clamp(from.min(to), to);
        kept - from.min(to) + self.gaps.lost(kept, to)
    }
}

/// What comes of asking for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// These.
    Read(Grant),
    /// None for now.
    Blocked(Blocked),
    /// The event at the head goes to the dead letters first.
    Bury(u64),
}

impl Consumer {
    /// Whether the event at the head is poison.
    #[must_use]
    pub fn poisoned(&self) -> bool {
        self.terms.attempts_max > 0 && self.failures >= self.terms.attempts_max
    }

    /// Why nothing would be delivered now, whoever asks.
    #[must_use]
    pub fn blocked(&self, there: There<'_>, now: Instant) -> Option<Blocked> {
        if self.poisoned() && self.terms.on_poison == OnPoison::Stall {
            return Some(Blocked::Poison);
        }
        if let Some(until) = self.live.not_before.filter(|&until| until > now) {
            return Some(Blocked::Delay(until));
        }
        let held = self.in_flight(self.live.delivered_next, there);
        let (events_max, bytes_max) = self.in_flight_max();
        let full = held >= events_max || held > 0 && self.bytes_below(u64::MAX) >= bytes_max;
        // Behind a replay nothing comes before it is acked to its end.
        (full || self.live.delivered_next >= self.end()).then_some(Blocked::InFlight)
    }

    /// The last attempt before an event counts as poison is made with it alone, so that its neighbours are not blamed.
    fn in_flight_max(&self) -> (u64, u64) {
        let last_attempt = self.terms.attempts_max > 0 && self.failures + 1 >= self.terms.attempts_max;
        if last_attempt { (1, self.terms.bytes_max) } else { (self.terms.events_max, self.terms.bytes_max) }
    }

    /// Events from the head to `next`; what is lost is nothing that an ack is awaited of.
    fn in_flight(&self, next: u64, there: There<'_>) -> u64 {
        next - self.head() - there.lost(self.head(), next)
    }

    /// Bytes in flight of answers that end at or below `offset`.
    fn bytes_below(&self, offset: u64) -> u64 {
        self.live.in_flight.iter().take_while(|(next, _)| *next <= offset).map(|(_, bytes)| bytes).sum()
    }

    /// Answers a caller's whole question; what lasts of it is added to `change`.
    ///
    /// # Errors
    /// Why it is not answered. A session may have been opened all the same.
    pub fn next(&mut self, call: &Call, there: There<'_>, now: Now, change: &mut Change) -> Result<Turn, Refusal> {
        let named = match (call.named, self.session) {
            (None, Some(session)) if session.anonymous && !call.takeover => None,
            (None, _) => {
                self.may_open(call.takeover, now)?;
                // Nothing was given to the session that would begin, and it does not begin for whoever says otherwise.
                let delivered = self.head();
                if call.ack.max(call.wants.after).is_some_and(|offset| offset >= delivered) {
                    return Err(Refusal::BeyondDelivered { delivered });
                }
                *change = (*change).max(self.open_session(call.fresh, true, call.takeover, now)?);
                None
            }
            (named, _) => named,
        };
        self.call(named, now)?;
        match call.hold {
            Hold::No if named.is_none() && self.live.attached.is_some() => return Err(self.active(now)),
            Hold::No => {}
            Hold::Take(answer) => self.attach(answer, named.is_some())?,
            Hold::Keep(answer) if self.live.attached == Some(answer) => {}
            Hold::Keep(_) => return Err(Refusal::Fenced { epoch: self.epoch }),
        }
        let mut wants = call.wants;
        if let Some(offset) = call.ack {
            let ranges = self.replays.len();
            *change = (*change).max(self.ack(offset, there, now)?);
            // What the caller holds is of a range that has ended: the next one begins where it begins.
            wants.after = wants.after.filter(|_| self.replays.len() == ranges);
        }
        self.turn(&wants, there, now.instant)
    }

    /// What the session's holder may be given.
    ///
    /// # Errors
    /// [`Refusal::BeyondDelivered`] when it claims to hold what it was not given.
    pub fn turn(&self, wants: &Wants, there: There<'_>, now: Instant) -> Result<Turn, Refusal> {
        let (head, delivered) = (self.head(), self.live.delivered_next);
        let session = self.session_name().ok_or(Refusal::Fenced { epoch: self.epoch })?;
        let from = match wants.after {
            Some(after) if after >= delivered => return Err(Refusal::BeyondDelivered { delivered }),
            Some(after) => (after + 1).max(head),
            None => head,
        };
        if self.poisoned() && self.terms.on_poison == OnPoison::DeadLetter {
            return Ok(Turn::Bury(there.first_from(head)));
        }
        match self.blocked(there, now) {
            // Whoever asks again for what is in flight gets it again.
            None | Some(Blocked::InFlight) => {}
            Some(blocked) => return Ok(Turn::Blocked(blocked)),
        }
        let (events_max, bytes_max) = self.in_flight_max();
        let events = events_max.saturating_sub(self.in_flight(from, there)).min(wants.events);
        let bytes = bytes_max.saturating_sub(self.bytes_below(from)).min(wants.bytes);
        if from >= self.end() || events == 0 || bytes == 0 && from > head {
            return Ok(Turn::Blocked(Blocked::InFlight));
        }
        let first = there.first_from(from).min(self.end());
        Ok(Turn::Read(Grant {
            session,
            from: first,
            until: self.end().min(there.gaps.behind(first).map_or(u64::MAX, |gap| gap.from)),
            events,
            bytes,
            attempt: self.failures.saturating_add(1),
            replay: !self.replays.is_empty(),
            gap: (from < first).then_some((from, first)),
        }))
    }

    /// Takes note that events `from..next` are on their way to the session's holder.
    ///
    /// # Errors
    /// The session or the position is another one by now: they must not be sent.
    pub fn delivered(
        &mut self,
        session: SessionName,
        from: u64,
        next: u64,
        bytes: u64,
        now: Now,
    ) -> Result<(), Refusal> {
        self.call(Some(session), now)?;
        let live = &mut self.live;
        if live.in_flight.is_empty() {
            live.progress = Some(now.instant);
        }
        // What was asked for again is in flight once.
        while live.in_flight.back().is_some_and(|(end, _)| *end > from) {
            live.in_flight.pop_back();
        }
        live.in_flight.push_back((next, bytes));
        live.delivered_next = live.delivered_next.max(next);
        self.redelivered += live.seen_next.min(next).saturating_sub(from);
        live.seen_next = live.seen_next.max(next);
        live.corrupt = false;
        Ok(())
    }

    /// Everything up to and including `offset` is processed.
    ///
    /// # Errors
    /// [`Refusal::BeyondDelivered`].
    pub fn ack(&mut self, offset: u64, there: There<'_>, now: Now) -> Result<Change, Refusal> {
        let (head, delivered) = (self.head(), self.live.delivered_next);
        if offset < head {
            return Ok(Change::Nothing);
        }
        if offset >= delivered {
            return Err(Refusal::BeyondDelivered { delivered });
        }
        let events = self.in_flight(offset + 1, there);
        self.live.acked += events;
        self.live.rate.count(events, now.instant);
        self.advance(offset + 1, now.wall_us);
        self.live.progress = (!self.live.in_flight.is_empty()).then_some(now.instant);
        Ok(Change::Head(offset + 1))
    }

    /// Moves the head forward to `to`, as an ack did, or does when the journal is applied again.
    pub fn advance(&mut self, to: u64, at_us: u64) {
        self.failures = 0;
        self.reason = Box::default();
        self.acked_at_us = at_us;
        self.live.not_before = None;
        match self.replays.front_mut() {
            Some(replay) if to < replay.until => replay.next = to,
            Some(_) => {
                self.replays.pop_front();
                // What was in flight when the replay began is delivered again behind it.
                let head = self.head();
                self.live.restart(head);
                return;
            }
            None => self.next = to,
        }
        if self.gap.is_some_and(|(_, lost)| self.next >= lost) {
            self.gap = None;
        }
        self.live.delivered_next = self.live.delivered_next.max(to);
        while self.live.in_flight.front().is_some_and(|(end, _)| *end <= to) {
            self.live.in_flight.pop_front();
        }
    }

    /// The first event from the head on could not be processed: it is delivered again after `delay`.
    ///
    /// # Errors
    /// [`Refusal::NotNext`] for any other event, [`Refusal::BeyondDelivered`] if it was not delivered.
    pub fn nack(
        &mut self,
        offset: u64,
        delay: Duration,
        reason: &str,
        there: There<'_>,
        now: Now,
    ) -> Result<Change, Refusal> {
        let (head, delivered) = (self.head(), self.live.delivered_next);
        let next = there.first_from(head);
        if offset != next {
            return Err(Refusal::NotNext { next });
        }
        if delivered <= next {
            return Err(Refusal::BeyondDelivered { delivered });
        }
        self.failures = self.failures.saturating_add(1);
        self.reason = reason.into();
        self.live.restart(head);
        self.live.not_before = Some(now.instant + delay);
        Ok(Change::Record)
    }

    /// The event at `offset`, the first from the head on, went to the dead letters.
    pub fn buried(&mut self, offset: u64, now: Now) {
        self.dead_lettered += 1;
        self.advance(offset + 1, now.wall_us);
    }

    /// Moves the position, or puts a replay of `to..until` in front of it. Acks of before are refused from now on.
    ///
    /// # Errors
    /// When it is not said that events are left out, or there is nothing to replay.
    pub fn rewind(&mut self, to: u64, until: Option<u64>, skip: bool, now: Now) -> Result<Change, Refusal> {
        let from = self.head();
        match until {
            Some(until) => self.add_replays(&[Replay { next: to, until: until.min(self.next) }])?,
            None if to > self.next && !skip => return Err(Refusal::NeedsSkip { next: self.next }),
            None => {
                self.replays.clear();
                self.next = to;
                self.gap = None;
            }
        }
        self.last_rewind = Some(Rewound { from, to, until, at_us: now.wall_us });
        self.moved();
        Ok(Change::Record)
    }

    /// Puts ranges behind the replays that wait already.
    ///
    /// # Errors
    /// When there are too many, or one of them has nothing to replay.
    pub fn add_replays(&mut self, ranges: &[Replay]) -> Result<(), Refusal> {
        if ranges.iter().any(|range| range.next >= range.until) {
            return Err(Refusal::NothingToReplay { next: self.next });
        }
        if self.replays.len() + ranges.len() > CONSUMER_REPLAYS_MAX {
            return Err(Refusal::TooManyReplays);
        }
        self.replays.extend(ranges);
        Ok(())
    }

    /// The head is where somebody put it: what was delivered before does not count any more.
    pub fn moved(&mut self) {
        self.epoch += 1;
        self.failures = 0;
        self.reason = Box::default();
        (self.live.not_before, self.live.corrupt) = (None, false);
        let head = self.head();
        self.live.restart(head);
    }
}
