//! Consumers: their decisions are taken here on the accepted head, written down in the commit that gathers, and told
//! once that is durable. Whoever waits for a consumer is woken when there is something new to look at.
//!
//! An ack shares the commit of whatever else is written at that moment, and costs no sync of its own.

use super::read::Range;
use super::{Fault, Member, Shard, State};
use crate::group::Batch;
use crate::group::consumer::{self, Blocked, Change, Consumer, Life, Now, Refusal, Terms, There};
use crate::limits::CONSUMER_RECORD_BYTES_MAX;
use crate::log::entry::PartKind;
use crate::log::event::NewEvents;
use crate::log::segment::SEGMENT_START;
use crate::log::wire::put_short;
use std::ops::Bound;
use std::task::Poll;
use std::time::Instant;
use tokio::time::timeout_at;

/// What a consumer's decision rests on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'g> {
    /// What of the group can be read.
    pub there: There<'g>,
    /// Both clocks.
    pub now: Now,
}

impl Ground<'_> {
    /// The group's readable range.
    #[must_use]
    pub fn range(&self) -> Range {
        Range { earliest: self.there.earliest, tail: self.there.tail }
    }
}

impl ConsumerStatus {
    /// The group's readable range.
    #[must_use]
    pub fn range(&self) -> Range {
        Range { earliest: self.earliest, tail: self.tail }
    }
}

/// A decision and the journal entry that holds what it rests on.
#[derive(Clone, Copy, Debug)]
pub struct Decided<R> {
    /// The decision.
    pub value: R,
    /// The journal entry to wait for.
    pub entry: u64,
}

/// A consumer that is asked for.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Where it wants to begin, as an expression.
    pub start: Box<str>,
    /// Where it begins, if it is approved at once.
    pub approved_at: Option<u64>,
    /// What it is granted unless an approval says otherwise.
    pub terms: Terms,
    /// How many consumers the shard may have.
    pub most: usize,
    /// What is told of it in the audit log.
    pub audit: Vec<u8>,
}

/// A consumer as it is now.
#[derive(Clone, Debug)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: Box<str>,
    /// All of it.
    pub consumer: Consumer,
    /// Smallest offset of its group that can be read.
    pub earliest: u64,
    /// Offset behind the last event that everybody may see.
    pub tail: u64,
    /// How many events there are from the position on.
    pub lag: u64,
    /// The first offset from the position on that is there.
    pub first: u64,
    /// When that was.
    pub now: Now,
    /// Why nothing is delivered to it now.
    pub blocked: Option<Blocked>,
}

fn refused(refusal: Refusal, after: u64) -> Fault {
    Fault::Refused { refusal: crate::group::Refusal::Consumer(refusal), after }
}

impl Shard {
    fn now(&self) -> Now {
        Now { wall_us: self.clock.now_us(), instant: Instant::now() }
    }

    /// Waits until any change of a consumer fits the entry that gathers, with so many bytes more and what is told of it.
    async fn room_for_consumer(&self, more: usize, audit: Option<&[u8]>) -> Result<(), Fault> {
        let deadline = tokio::time::Instant::now() + self.settings.waiting;
        loop {
            // The room may come back between the look and the wait, so the wait begins first.
            let room = self.room.notified();
            {
                let state = self.state.borrow();
                match state.takes_change(CONSUMER_RECORD_BYTES_MAX + more, audit, self.entry_bytes_max) {
                    Err(Fault::Overloaded) => {}
                    settled => return settled,
                }
            }
            self.tails_turn.notify_one();
            timeout_at(deadline, room).await.map_err(|_| Fault::Overloaded)?;
        }
    }

    /// Lets `decide` change a consumer, and writes down what changed, whether or not it came to a refusal.
    ///
    /// # Errors
    /// The refusal, to be told once its entry is durable; or why nothing can be written.
    pub async fn decide<R>(
        &self,
        group: u32,
        name: &str,
        decide: impl FnOnce(&mut Consumer, Ground<'_>, &mut Change) -> Result<R, Refusal>,
    ) -> Result<Decided<R>, Fault> {
        self.room_for_consumer(0, None).await?;
        self.decide_now(&mut self.state.borrow_mut(), group, name, None, decide)
    }

    /// The same, where room was made sure of.
    fn decide_now<R>(
        &self,
        state: &mut State,
        number: u32,
        name: &str,
        audit: Option<&[u8]>,
        decide: impl FnOnce(&mut Consumer, Ground<'_>, &mut Change) -> Result<R, Refusal>,
    ) -> Result<Decided<R>, Fault> {
        let now = self.now();
        let member = state.groups.get_mut(&number).filter(|member| !member.group.closed).ok_or(Fault::NoGroup)?;
        let Some((consumer, there)) = member.group.consumer_mut(name) else {
            let after = state.newest_change();
            return Err(refused(Refusal::NotThere, after));
        };
        let ground = Ground { there, now };
        state.snapshot.note_consumer(number, name, consumer);
        let was_blocked = consumer.blocked(there, now.instant).is_some();
        let counted = [consumer.live.acked, consumer.redelivered, consumer.dead_lettered];
        let mut change = consumer.lapse(now);
        let result = decide(consumer, ground, &mut change);
        let counters = [&self.stats.acked, &self.stats.redelivered, &self.stats.dead_lettered];
        let counts = [consumer.live.acked, consumer.redelivered, consumer.dead_lettered];
        for ((counter, before), count) in counters.into_iter().zip(counted).zip(counts) {
            if count > before {
                counter.inc_by(count - before);
            }
        }
        let part = match change {
            Change::Nothing => None,
            Change::Head(head) => {
                let mut part = Vec::with_capacity(32 + name.len());
                consumer::encode_acked(number, name, consumer, head, &mut part);
                Some((PartKind::ConsumerAcked, part))
            }
            Change::Record => {
                let mut part = Vec::with_capacity(256);
                consumer::encode(number, name, consumer, &mut part);
                Some((PartKind::Consumer, part))
            }
        };
        if let Some((kind, part)) = part {
            consumer.live.last_entry = state.head.next_index;
            state.open.add_part(kind, part);
            self.commit_turn.notify_one();
        }
        let entry = consumer.live.last_entry;
        if change == Change::Record || was_blocked && change != Change::Nothing {
            consumer.live.version += 1;
            wake(&mut member.waits, name);
        }
        self.look_after_lease(&mut state.leases, number, name, consumer);
        if let Some(json) = audit.filter(|_| result.is_ok() && change == Change::Record) {
            self.add_audit(state, json);
        }
        result.map(|value| Decided { value, entry }).map_err(|refusal| refused(refusal, entry))
    }

    /// [`decide`](Self::decide), durably, and told of in the audit log if it changed more than the head.
    ///
    /// # Errors
    /// As there; a refusal may be told at once.
    pub async fn decide_durably<R>(
        &self,
        group: u32,
        name: &str,
        audit: Option<&[u8]>,
        decide: impl FnOnce(&mut Consumer, Ground<'_>, &mut Change) -> Result<R, Refusal>,
    ) -> Result<R, Fault> {
        self.room_for_consumer(0, audit).await?;
        let decided = self.decide_now(&mut self.state.borrow_mut(), group, name, audit, decide);
        match decided {
            Ok(decided) => self.durable(decided.entry).await.map(|()| decided.value),
            Err(fault) => Err(self.settled(fault).await),
        }
    }

    /// Adds a consumer, approved at once where an approval comes along. Returns its state and whether it is new; durable
    /// when it returns.
    ///
    /// # Errors
    /// [`Fault::TooMany`] beyond `most` consumers of the shard; why nothing can be written.
    pub async fn subscribe(&self, group: u32, name: &str, wanted: &Subscription) -> Result<(Life, bool), Fault> {
        self.room_for_consumer(0, Some(&wanted.audit)).await?;
        let (life, entry, new) = {
            let state = &mut *self.state.borrow_mut();
            let now = self.now();
            let member = state.groups.get_mut(&group).filter(|member| !member.group.closed).ok_or(Fault::NoGroup)?;
            if let Some(known) = member.group.consumers.get(name) {
                (known.life, known.live.last_entry, false)
            } else if state.consumers >= wanted.most {
                return Err(Fault::TooMany);
            } else {
                let mut consumer = Consumer::new(&wanted.start, wanted.terms, now.wall_us);
                if let Some(start) = wanted.approved_at {
                    let _ = consumer.approve(Some(start), wanted.terms, now);
                }
                // A checkpoint that has begun does not contain it.
                consumer.live.snapshot = state.snapshot.epoch();
                consumer.live.last_entry = state.head.next_index;
                let mut part = Vec::with_capacity(256);
                consumer::encode(group, name, &consumer, &mut part);
                state.open.add_part(PartKind::Consumer, part);
                let known = (consumer.life, consumer.live.last_entry, true);
                member.group.consumers.insert(name.into(), consumer);
                state.consumers += 1;
                self.add_audit(state, &wanted.audit);
                known
            }
        };
        self.commit_turn.notify_one();
        self.durable(entry).await?;
        Ok((life, new))
    }

    /// Removes a consumer and its position. Durable when it returns.
    ///
    /// # Errors
    /// [`Refusal::NotThere`]; why nothing can be written.
    pub async fn unsubscribe(&self, group: u32, name: &str, audit: &[u8]) -> Result<(), Fault> {
        self.room_for_consumer(0, Some(audit)).await?;
        let entry = {
            let state = &mut *self.state.borrow_mut();
            let member = state.groups.get_mut(&group).filter(|member| !member.group.closed).ok_or(Fault::NoGroup)?;
            match member.group.consumers.get_mut(name) {
                None => Err(state.newest_change()),
                Some(consumer) => {
                    state.snapshot.note_consumer(group, name, consumer);
                    member.group.consumers.remove(name);
                    wake(&mut member.waits, name);
                    let mut part = group.to_le_bytes().to_vec();
                    put_short(&mut part, name.as_bytes());
                    state.open.add_part(PartKind::ConsumerRemoved, part);
                    state.consumers -= 1;
                    Ok(self.add_audit(state, audit))
                }
            }
        };
        self.commit_turn.notify_one();
        match entry {
            Ok(entry) => self.durable(entry).await,
            Err(after) => Err(self.settled(refused(Refusal::NotThere, after)).await),
        }
    }

    /// Copies the event at the head of a consumer to the dead letters and moves the position on, in one commit. Returns
    /// false when the head is another one by now, or no poison.
    ///
    /// # Errors
    /// Why nothing can be written.
    pub async fn bury(&self, group: u32, name: &str, offset: u64, letter: &NewEvents) -> Result<bool, Fault> {
        let batch = Batch { events: letter, producer: None, expect_offset: None };
        let deadline = tokio::time::Instant::now() + self.settings.waiting;
        let entry = loop {
            self.room_for_consumer(letter.stored_bytes() + 256, None).await?;
            let room = self.room.notified();
            let still = |state: &State| {
                let group = &state.groups.get(&group)?.group;
                let first = |known: &Consumer| group.there().first_from(known.head());
                let consumer = group.consumers.get(name).filter(|known| first(known) == offset && known.poisoned());
                consumer.map(|known| known.dead_letters)
            };
            let Some(dead_letters) = still(&self.state.borrow()) else { return Ok(false) };
            // The letter and the move are taken without a wait in between, so one entry holds both.
            match self.try_append(dead_letters, &batch)? {
                Err(wait) => wait.over(room, deadline).await?,
                Ok(_) => {
                    let moved =
                        self.decide_now(&mut self.state.borrow_mut(), group, name, None, |consumer, ground, change| {
                            consumer.buried(offset, ground.now);
                            *change = Change::Record;
                            Ok(())
                        });
                    break moved?.entry;
                }
            }
        };
        self.durable(entry).await?;
        Ok(true)
    }

    /// Waits until there is something new to look at for a reader of this consumer: it changed since `version`, or the
    /// event at `offset` is visible. May be dropped at any time.
    pub async fn consumer_turn(&self, group: u32, name: &str, version: u64, offset: Option<u64>) {
        let mut watch = ConsumerWatch { shard: self, group, name, id: None };
        std::future::poll_fn(|context| {
            let state = &mut *self.state.borrow_mut();
            let Some(member) = state.groups.get_mut(&group) else { return Poll::Ready(()) };
            let same = member.group.consumers.get(name).is_some_and(|known| known.live.version == version);
            let visible = offset.is_some_and(|offset| member.group.visible_next() > offset);
            if !same || visible || member.group.closed {
                return Poll::Ready(());
            }
            let id = *watch.id.get_or_insert_with(|| {
                state.watches += 1;
                state.watches
            });
            if offset.is_some() {
                member.watchers.insert(id, context.waker().clone());
            }
            member.waits.entry(name.into()).or_default().insert(id, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Counts a caller that stands by, or no longer does. Returns the consumer's version, to wait for a change of; none
    /// that ever was when the session has ended meanwhile.
    pub fn stand_by(&self, group: u32, name: &str, comes: bool) -> u64 {
        let state = &mut *self.state.borrow_mut();
        let member = state.groups.get_mut(&group);
        let Some(consumer) = member.and_then(|member| member.group.consumers.get_mut(name)) else { return 0 };
        let standbys = &mut consumer.live.standbys;
        *standbys = if comes { *standbys + 1 } else { standbys.saturating_sub(1) };
        consumer.session.map_or(u64::MAX, |_| consumer.live.version)
    }

    // ---- looking

    /// One consumer as it was a moment ago; what is said of it is durable.
    ///
    /// # Errors
    /// When it or its group is not there; [`Fault::Unknown`] when the disk failed under its last change.
    pub async fn consumer_status(&self, group: u32, name: &str) -> Result<ConsumerStatus, Fault> {
        let found = {
            let state = self.state.borrow();
            let member = state.member(group)?;
            match member.group.consumers.get(name).filter(|_| !member.group.closed) {
                Some(consumer) => Ok(self.status_of(member, name, consumer)),
                None => Err(refused(Refusal::NotThere, state.newest_change())),
            }
        };
        match found {
            Ok(status) => self.durable(status.consumer.live.last_entry).await.map(|()| status),
            Err(fault) => Err(self.settled(fault).await),
        }
    }

    /// At most `limit` consumers of a group behind the name `after`, by name.
    ///
    /// # Errors
    /// As for [`consumer_status`](Self::consumer_status).
    pub async fn consumer_page(&self, group: u32, after: &str, limit: usize) -> Result<Vec<ConsumerStatus>, Fault> {
        let (page, newest) = {
            let state = self.state.borrow();
            let member = state.member(group)?;
            let rest = member.group.consumers.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
            let page: Vec<_> =
                rest.take(limit).map(|(name, consumer)| self.status_of(member, name, consumer)).collect();
            let newest = page.iter().map(|status| status.consumer.live.last_entry).max();
            (page, newest.unwrap_or_default())
        };
        self.durable(newest).await.map(|()| page)
    }

    /// What the decisions of a group's consumers rest on now.
    pub(super) fn ground<'m>(&self, member: &'m Member) -> Ground<'m> {
        Ground { there: member.group.there(), now: self.now() }
    }

    fn status_of(&self, member: &Member, name: &str, consumer: &Consumer) -> ConsumerStatus {
        let Ground { there, now } = self.ground(member);
        let mut consumer = consumer.clone();
        consumer.gap = consumer.gap.or(there.gaps.at(consumer.next).map(|gap| (gap.from, gap.to)));
        let blocked = consumer.blocked(there, now.instant);
        ConsumerStatus {
            name: name.into(),
            earliest: there.earliest,
            tail: there.tail,
            lag: there.events_from(consumer.next),
            first: there.first_from(consumer.next),
            now,
            blocked,
            consumer,
        }
    }

    /// Numbers of the groups that have consumers, with how many.
    #[must_use]
    pub fn groups_with_consumers(&self) -> Vec<(u32, usize)> {
        let state = self.state.borrow();
        let groups = state.groups.iter().filter(|(_, member)| !member.group.closed);
        groups.map(|(&number, member)| (number, member.group.consumers.len())).filter(|(_, count)| *count > 0).collect()
    }

    /// Stored bytes of a group from the frame that holds `offset` on.
    ///
    /// # Errors
    /// When the group is not there or its index cannot be read.
    pub async fn bytes_from(&self, group: u32, offset: u64) -> Result<u64, Fault> {
        let (mut bytes, first) = {
            let state = self.state.borrow();
            let log = &state.member(group)?.group.log;
            let segments = log.segments();
            let place = segments.partition_point(|segment| segment.next_offset <= offset);
            let behind = segments.range((place + 1).min(segments.len())..);
            let first = segments.get(place).map(|segment| (*segment, log.segment_of(segment.first_offset)));
            let first = first.map(|(segment, flushed)| (segment, flushed.map_or(segment.end, |(_, end)| end)));
            (behind.map(|segment| segment.end - SEGMENT_START).sum::<u64>(), first)
        };
        if let Some((segment, flushed_end)) = first {
            let position = match flushed_end > SEGMENT_START {
                true => self.seek(group, segment, flushed_end, offset).await?.1,
                false => SEGMENT_START,
            };
            bytes += segment.end.saturating_sub(position);
        }
        Ok(bytes)
    }
}

/// Wakes whoever waits for a consumer.
pub(super) fn wake(waits: &mut super::Waits, name: &str) {
    waits.remove(name).into_iter().flatten().for_each(|(_, waker)| waker.wake());
}

/// Somebody who waits for a consumer; who goes away takes the wakers along.
struct ConsumerWatch<'s> {
    shard: &'s Shard,
    group: u32,
    name: &'s str,
    id: Option<u64>,
}

impl Drop for ConsumerWatch<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let state = &mut *self.shard.state.borrow_mut();
        let Some(member) = state.groups.get_mut(&self.group) else { return };
        member.watchers.remove(&id);
        if let Some(waits) = member.waits.get_mut(self.name) {
            waits.remove(&id);
            if waits.is_empty() {
                member.waits.remove(self.name);
            }
        }
    }
}
