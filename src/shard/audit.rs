//! The audit log `_audit`: a group of the broker's own on shard 0, to which every shard brings what is to be told.
//!
//! ```text
//! change + event ─▶ one entry of the change's shard ─▶ outbox ─▶ one entry of shard 0: the event in `_audit`, and
//!                                                        ▲       that it is there ─┐
//!                                                        └──────── taken out ◀─────┘
//! ```
//!
//! An answer to a change waits for the first entry only: what is told of it cannot be lost any more, and comes to the log
//! as soon as shard 0 takes it. A crash anywhere brings it again, and shard 0 knows what it has.

use super::directory::{Directory, Entry};
use super::groups::NewGroup;
use super::outbox::{AuditEvent, Outbox};
use super::peers::Shards;
use super::{Fault, Shard, State};
use crate::group::Batch;
use crate::group::config::GroupConfig;
use crate::limits::AUDIT_BATCH_BYTES;
use crate::log::entry::{PART_HEADER_BYTES, PartKind};
use crate::log::event::{Encoding, NewEvent, NewEvents};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Name of the audit log.
pub const AUDIT_GROUP: &str = "_audit";
/// A pause after shard 0 did not take what was to be told.
const PAUSE: Duration = Duration::from_secs(1);

impl Shard {
    /// Adds what is to be told of a change to the entry that gathers, in the same borrow in which the change is added; room
    /// for both was made sure of by `State::takes_change`. Returns the entry's index.
    pub(super) fn add_audit(&self, state: &mut State, json: &[u8]) -> u64 {
        let (entry, now_us) = (state.open_index(), self.clock.now_us());
        let part = state.outbox_mut().add(json, entry, now_us);
        state.add_part(PartKind::Audit, part)
    }

    /// Takes what is to be told of something that has no entry of its own. Durable when it returns.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn tell(&self, json: &[u8]) -> Result<(), Fault> {
        let entry = {
            let state = &mut *self.state.borrow_mut();
            state.takes_change(0, Some(json), self.entry_bytes_max)?;
            self.add_audit(state, json)
        };
        self.commit_turn.notify_one();
        self.durable(entry).await
    }

    /// Waits for events that are durable and not known to be in the log; gives the oldest.
    pub(super) async fn untold(&self) -> Vec<AuditEvent> {
        loop {
            let turn = self.audit_turn.notified();
            let events = {
                let state = self.state.borrow();
                state.outbox.batch(state.durable_index, AUDIT_BATCH_BYTES)
            };
            if !events.is_empty() {
                return events;
            }
            turn.await;
        }
    }

    /// The log has the events of this shard up to `seq`. Without room to note it they are forgotten all the same: whoever
    /// brings them again after a crash is told that they are there.
    pub(super) fn told(&self, seq: u64) {
        let state = &mut *self.state.borrow_mut();
        state.outbox_mut().forwarded(self.number, self.number, seq);
        let part = Outbox::forwarded_part(self.number, seq);
        // Shard 0 noted it in the entry that holds the events.
        if self.number != 0 && !state.closing && state.takes_change(part.len(), None, self.entry_bytes_max).is_ok() {
            state.add_part(PartKind::AuditForwarded, part);
            self.commit_turn.notify_one();
        }
    }

    /// Adds events of shard `from` to the log (shard 0), but for those that it has. Durable when it returns.
    pub(super) async fn store_audit(&self, group: u32, from: u16, events: &[AuditEvent]) -> Result<(), Fault> {
        let deadline = Instant::now() + self.settings.waiting;
        let entry = loop {
            let room = self.room.notified();
            match self.try_store_audit(group, from, events)? {
                Ok(entry) => break entry,
                Err(wait) => wait.over(room, deadline).await?,
            }
        };
        self.durable(entry).await
    }

    fn try_store_audit(
        &self,
        group: u32,
        from: u16,
        events: &[AuditEvent],
    ) -> Result<Result<u64, super::append::Wait>, Fault> {
        let state = &mut *self.state.borrow_mut();
        if state.closing {
            return Err(Fault::Overloaded);
        }
        let stored = state.outbox.stored(from);
        let fresh = events.iter().filter(|event| event.seq > stored);
        let fresh: NewEvents = fresh
            .map(|event| NewEvent {
                key: None,
                content_type: None,
                headers: &[],
                encoding: Encoding::Json,
                data: &event.json,
            })
            .collect();
        let Some(last) = events.last().map(|event| event.seq).filter(|_| fresh.count() > 0) else {
            return Ok(Ok(state.newest_change()));
        };
        let batch = Batch { events: &fresh, producer: None, expect_offset: None };
        let part = Outbox::forwarded_part(from, last);
        match self.accept(state, group, &batch, PART_HEADER_BYTES + part.len())? {
            Ok(_) => {
                state.outbox_mut().forwarded(0, from, last);
                Ok(Ok(state.add_part(PartKind::AuditForwarded, part)))
            }
            Err(wait) => Ok(Err(wait)),
        }
    }

    /// The log's group (shard 0), made when it is first needed.
    pub(super) async fn audit_group(&self, directory: &Directory) -> Result<u32, Fault> {
        let known =
            self.state.borrow().table.as_ref().and_then(|table| table.get(AUDIT_GROUP)).map(|group| group.number);
        if let Some(number) = known.filter(|_| directory.get(AUDIT_GROUP).is_some()) {
            return Ok(number);
        }
        let wanted = NewGroup {
            name: AUDIT_GROUP.into(),
            config: GroupConfig::default(),
            shard: Some(0),
            most: usize::MAX,
            audit: None,
        };
        let group = self.register(&wanted).await?.ok_or(Fault::Overloaded)?.into_group();
        self.open_group(&group);
        directory.publish(Entry { config: group.config.clone(), table: group.clone() });
        Ok(group.number)
    }
}

impl Shards {
    /// Brings what a shard of this core has to tell to the log, for ever.
    pub async fn tell_all(self: Rc<Self>, shard: Rc<Shard>, directory: Arc<Directory>) {
        let mut failing = false;
        loop {
            let events = shard.untold().await;
            let (from, last) = (shard.number, events.last().map_or(0, |event| event.seq));
            let directory = Arc::clone(&directory);
            let stored = self.on(0, move |log: Rc<Shard>| {
                Box::pin(async move {
                    let group = log.audit_group(&directory).await?;
                    log.store_audit(group, from, &events).await
                })
            });
            match stored.await {
                Ok(()) => {
                    failing = false;
                    shard.told(last);
                }
                Err(fault) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(shard = from, %fault, "the audit log does not take what changed; it is kept");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
