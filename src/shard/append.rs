//! Taking events: onto the accepted head and into the commit that gathers, or waiting for room first.

use super::{Fault, Shard, State};
use crate::group::{Batch, NotAccepted, Receipt};
use crate::limits::FRAME_BYTES_SOFT_MAX;
use crate::log::entry::{ENTRY_HEADER_BYTES, PART_HEADER_BYTES};
use crate::log::frame::{FRAME_HEADER_BYTES, request_overhead};
use crate::log::group_log::Need;
use std::future::Future;
use std::rc::Rc;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout_at};

/// Events that were taken, durable once `entry` is.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// What became of them.
    pub receipt: Receipt,
    /// The journal entry to wait for.
    pub entry: u64,
}

/// What stands in the way of a write right now.
pub(super) enum Wait {
    Room,
    Space(oneshot::Receiver<Result<(), Fault>>),
}

impl Wait {
    /// Waits until another try may help. `room` is a wait for room that began before the last try.
    pub(super) async fn over(self, room: impl Future<Output = ()>, deadline: Instant) -> Result<(), Fault> {
        let waited = match self {
            Self::Room => timeout_at(deadline, room).await.map(Ok),
            Self::Space(done) => timeout_at(deadline, done).await.map(|answer| answer.unwrap_or(Ok(()))),
        };
        waited.map_err(|_| Fault::Overloaded)?
    }
}

impl Shard {
    /// Takes a request's events into the commit that gathers, waiting for room where that is needed. Requests for one
    /// group are taken in the order they were made, also when some have to wait.
    ///
    /// # Errors
    /// Nothing was taken then. A [`Fault::Refused`] may be told once its entry is durable.
    pub async fn append(&self, group: u32, batch: &Batch<'_>) -> Result<Accepted, Fault> {
        let gate = self.state.borrow().member(group)?.gate.clone();
        match gate {
            Some(gate) => self.append_in_turn(group, batch, gate).await,
            None => match self.try_append(group, batch)? {
                Ok(accepted) => Ok(accepted),
                Err(_) => self.append_in_turn(group, batch, Rc::default()).await,
            },
        }
    }

    /// Waits behind whoever waits for this group already, then for room.
    #[cold]
    async fn append_in_turn(&self, group: u32, batch: &Batch<'_>, gate: Rc<Mutex<()>>) -> Result<Accepted, Fault> {
        if let Some(member) = self.state.borrow_mut().groups.get_mut(&group) {
            member.gate = Some(Rc::clone(&gate));
        }
        let deadline = Instant::now() + self.settings.waiting;
        let turn = timeout_at(deadline, gate.lock()).await;
        let result = match &turn {
            Ok(_) => self.append_when_room(group, batch, deadline).await,
            Err(_) => Err(Fault::Overloaded),
        };
        drop(turn);
        // The member's gate and this one: nobody else waits.
        if Rc::strong_count(&gate) == 2
            && let Some(member) = self.state.borrow_mut().groups.get_mut(&group)
        {
            member.gate = None;
        }
        result
    }

    async fn append_when_room(&self, group: u32, batch: &Batch<'_>, deadline: Instant) -> Result<Accepted, Fault> {
        loop {
            // The room may come back between the try and the wait, so the wait begins first.
            let room = self.room.notified();
            match self.try_append(group, batch)? {
                Ok(accepted) => return Ok(accepted),
                Err(wait) => wait.over(room, deadline).await?,
            }
        }
    }

    pub(super) fn try_append(&self, number: u32, batch: &Batch<'_>) -> Result<Result<Accepted, Wait>, Fault> {
        let state = &mut *self.state.borrow_mut();
        let before = state.open.bytes;
        let taken = self.accept(state, number, batch, 0)?;
        if let Ok(Accepted { receipt, .. }) = &taken {
            match receipt.stamps {
                None => _ = self.stats.duplicates.inc(),
                Some(_) => {
                    self.stats.events.inc_by(u64::from(receipt.count));
                    self.stats.bytes.inc_by((state.open.bytes - before) as u64);
                }
            }
        }
        Ok(taken)
    }

    /// Takes a request's events into the commit that gathers, if there is room for them and for `more` bytes of parts that
    /// belong to them.
    pub(super) fn accept(
        &self,
        state: &mut State,
        number: u32,
        batch: &Batch<'_>,
        more: usize,
    ) -> Result<Result<Accepted, Wait>, Fault> {
        state.writable()?;
        let bytes = PART_HEADER_BYTES
            + FRAME_HEADER_BYTES
            + batch.events.stored_bytes()
            + request_overhead(batch.producer.as_ref());
        if ENTRY_HEADER_BYTES + bytes + more > self.entry_bytes_max {
            return Err(Fault::TooLarge { most: self.entry_bytes_max as u64 });
        }
        if !state.has_room(bytes + more, self.entry_bytes_max) || state.tail_bytes >= self.settings.tail_memory {
            self.tails_turn.notify_one();
            return Ok(Err(Wait::Room));
        }
        let entry = state.open_index();
        let member = state.member_mut(number)?;
        let was_open = member.group.log.is_open();
        match member.group.accept(batch, self.clock.now_us(), entry, FRAME_BYTES_SOFT_MAX) {
            Ok(receipt) if receipt.stamps.is_none() => Ok(Ok(Accepted { receipt, entry: member.group.last_entry })),
            Ok(receipt) => {
                if let Some(need) = member.group.log.wants(member.group.segment_limits()) {
                    self.want_space(state, number, need);
                }
                if !was_open {
                    state.open.groups.push(number);
                }
                state.open.bytes += bytes;
                self.commit_turn.notify_one();
                Ok(Ok(Accepted { receipt, entry }))
            }
            Err(NotAccepted::Refused(refusal)) => Err(Fault::Refused { refusal, after: member.group.last_entry }),
            Err(NotAccepted::Needs(Need::Seal)) => Ok(Err(Wait::Room)),
            Err(NotAccepted::Needs(need)) => {
                let (done, waiter) = oneshot::channel();
                member.space_waiters.push(done);
                self.want_space(state, number, need);
                Ok(Err(Wait::Space(waiter)))
            }
        }
    }

    fn want_space(&self, state: &mut State, number: u32, need: Need) {
        let Some(member) = state.groups.get_mut(&number) else { return };
        if !std::mem::replace(&mut member.space_wanted, true) {
            state.space_queue.push_back((number, need));
            self.space_turn.notify_one();
        }
    }

    /// Waits until journal entry `entry` is durable.
    ///
    /// # Errors
    /// [`Fault::Unknown`] when the disk failed first.
    pub async fn durable(&self, entry: u64) -> Result<(), Fault> {
        std::future::poll_fn(|context| {
            let state = &mut *self.state.borrow_mut();
            if state.durable_index >= entry {
                return std::task::Poll::Ready(Ok(()));
            }
            if state.fault.is_some() {
                return std::task::Poll::Ready(Err(Fault::Unknown));
            }
            state.waiters.push((entry, context.waker().clone()));
            std::task::Poll::Pending
        })
        .await
    }

    /// Takes a request's events and waits until they are durable.
    ///
    /// # Errors
    /// What [`append`](Self::append) and [`durable`](Self::durable) say.
    pub async fn append_durably(&self, group: u32, batch: &Batch<'_>) -> Result<Receipt, Fault> {
        match self.append(group, batch).await {
            Ok(accepted) => self.durable(accepted.entry).await.map(|()| accepted.receipt),
            Err(fault) => Err(self.settled(fault).await),
        }
    }

    /// A refusal is told only once what it rests on is durable.
    pub async fn settled(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Refused { after, .. } => self.durable(after).await.err().unwrap_or(fault),
            other => other,
        }
    }
}
