//! Making, changing and removing groups: shard 0 owns the table, each shard its own groups.
//!
//! A group is made by one entry in shard 0's journal; its own shard opens it from the table, now or at the next start.
//! It is removed by two: its own shard closes it (nothing is added any more, so its tail is final), then shard 0 takes it
//! out of the table together with that tail. A crash in between is finished by the next start.

use super::audit::AUDIT_GROUP;
use super::directory::{Directory, Entry};
use super::peers::Shards;
use super::{Fault, Member, Shard};
use crate::group::Group;
use crate::group::config::GroupConfig;
use crate::group::gaps::Gap;
use crate::group::table::{Removed, TableGroup};
use crate::log::entry::PartKind;
use crate::log::group_log::GroupLog;
use crate::log::segment;
use crate::log::wire::put_short;
use std::rc::Rc;

/// What became of a request to make a group.
#[derive(Clone, Debug)]
pub enum Created {
    /// It is there now.
    New(TableGroup),
    /// It was there before, as it was made then.
    Existing(TableGroup),
}

impl Created {
    /// The group that is there now.
    #[must_use]
    pub fn into_group(self) -> TableGroup {
        match self {
            Self::New(group) | Self::Existing(group) => group,
        }
    }
}

/// A group that is asked for.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its name.
    pub name: Box<str>,
    /// Its configuration.
    pub config: GroupConfig,
    /// The shard it must live in, if not the one with the fewest.
    pub shard: Option<u16>,
    /// How many groups there may be; the broker's own do not count.
    pub most: usize,
    /// What is to be told in the audit log, if it is made.
    pub audit: Option<Vec<u8>>,
}

/// A group's state for its info page.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// The configuration in force.
    pub config: GroupConfig,
    /// Names in `retention.protect` that protect nothing (yet).
    pub not_protected: Vec<Box<str>>,
    /// Smallest offset that can be read.
    pub earliest: u64,
    /// Next offset to be written.
    pub tail: u64,
    /// Events from the one to the other.
    pub events: u64,
    /// Offsets that a repair gave up.
    pub gaps: Vec<Gap>,
    /// Bytes of stored frames.
    pub bytes: u64,
    /// Number of segments.
    pub segments: usize,
    /// `received` of the newest event, µs; 0 when there never was one.
    pub last_received_us: u64,
}

impl Shard {
    /// Registers a name (shard 0), if the disk has room for what is to come. Durable when it returns.
    pub(super) async fn register(&self, wanted: &NewGroup) -> Result<Option<Created>, Fault> {
        let (created, entry) = {
            let state = &mut *self.state.borrow_mut();
            state.writable()?;
            let table = state.table.as_ref().ok_or(Fault::NoGroup)?;
            if let Some(group) = table.get(&wanted.name) {
                // Whoever made it may still be waiting for the disk.
                (Created::Existing(group.clone()), state.newest_change())
            } else if table.len() - usize::from(table.get(AUDIT_GROUP).is_some()) >= wanted.most {
                return Ok(None);
            } else {
                self.above_reserve()?;
                let mut group = table.plan(&wanted.name, wanted.config.clone(), self.clock.now_us());
                // A group that is made again goes to its dead letters, for both live in one shard.
                let letters = table.get(&format!("{}.dead", wanted.name)).map(|letters| letters.shard);
                group.shard = wanted.shard.or(letters).unwrap_or(group.shard);
                let mut part = Vec::new();
                group.encode(&mut part);
                let audit = wanted.audit.as_deref();
                state.takes_change(part.len(), audit, self.entry_bytes_max)?;
                state.table_mut()?.insert(group.clone());
                let entry = state.add_part(PartKind::GroupRegistered, part);
                audit.into_iter().for_each(|json| _ = self.add_audit(state, json));
                (Created::New(group), entry)
            }
        };
        self.commit_turn.notify_one();
        self.durable(entry).await?;
        Ok(Some(created))
    }

    /// Opens a group of the table in its shard, unless it is open.
    pub fn open_group(&self, group: &TableGroup) {
        let state = &mut *self.state.borrow_mut();
        let epoch = state.snapshot.epoch();
        state.groups.entry(group.number).or_insert_with(|| {
            let mut member = Member::new(Group::new(group.number, group.first_offset, group.config.clone()));
            member.snapshot = epoch;
            member
        });
    }

    /// Changes a group's configuration, and tells of it. Durable when it returns.
    async fn configure(&self, number: u32, config: GroupConfig, audit: Option<&[u8]>) -> Result<(), Fault> {
        let entry = {
            let state = &mut *self.state.borrow_mut();
            let mut part = number.to_le_bytes().to_vec();
            put_short(&mut part, config.to_json().as_bytes());
            state.takes_change(part.len(), audit, self.entry_bytes_max)?;
            let member = state.member_mut(number)?;
            member.group.config = config;
            let entry = state.add_part(PartKind::GroupConfigured, part);
            state.member_mut(number)?.group.last_entry = entry;
            audit.into_iter().for_each(|json| _ = self.add_audit(state, json));
            entry
        };
        self.commit_turn.notify_one();
        self.durable(entry).await
    }

    /// Closes a group: nothing is added any more. Returns its final tail, durably. It is told of once.
    async fn close_group(&self, number: u32, audit: Option<&[u8]>) -> Result<u64, Fault> {
        let (tail, entry) = {
            let state = &mut *self.state.borrow_mut();
            state.takes_change(4, audit, self.entry_bytes_max)?;
            let member = state.member_mut(number)?;
            let tail = member.group.next_offset();
            if std::mem::replace(&mut member.group.closed, true) {
                (tail, member.group.last_entry)
            } else {
                let entry = state.add_part(PartKind::GroupClosed, number.to_le_bytes().to_vec());
                state.member_mut(number)?.group.last_entry = entry;
                audit.into_iter().for_each(|json| _ = self.add_audit(state, json));
                (tail, entry)
            }
        };
        self.commit_turn.notify_one();
        self.durable(entry).await?;
        Ok(tail)
    }

    /// Takes a closed group out of the table (shard 0). Durable when it returns.
    async fn unregister(&self, removed: Removed) -> Result<(), Fault> {
        let entry = {
            let state = &mut *self.state.borrow_mut();
            state.writable()?;
            let known = state.table.as_ref().and_then(|table| table.get(&removed.name)).map(|group| group.number);
            if known == Some(removed.number) {
                let mut part = Vec::new();
                removed.encode(&mut part);
                if !state.has_room(part.len() + 64, self.entry_bytes_max) {
                    return Err(Fault::Overloaded);
                }
                state.table_mut()?.remove(removed);
                state.add_part(PartKind::GroupRemoved, part)
            } else {
                state.newest_change()
            }
        };
        self.commit_turn.notify_one();
        self.durable(entry).await
    }

    /// Forgets a closed group that is out of the table, and removes its files.
    pub async fn drop_group(&self, number: u32) {
        let segments = {
            let state = &mut *self.state.borrow_mut();
            let _ = state.member_mut(number);
            let Some(member) = state.groups.remove(&number) else { return };
            member.watchers.into_values().for_each(std::task::Waker::wake);
            member.waits.into_values().flatten().for_each(|(_, waker)| waker.wake());
            state.consumers -= member.group.consumers.len();
            state.tail_bytes -= member.group.log.tail_bytes();
            let sequences: Vec<u32> = sequences(&member.group.log).collect();
            for &sequence in &sequences {
                state.segments.remove(&(number, sequence));
                state.dirty.remove(&(number, sequence));
            }
            sequences
        };
        let directory = self.segments_directory();
        let removed = self.opener.run(move || {
            for sequence in segments {
                // What is not removed now is removed as a leftover by the next start.
                let _ = std::fs::remove_file(segment::path(&directory, number, sequence));
            }
        });
        removed.await;
    }

    /// A group's state.
    ///
    /// # Errors
    /// When it is not there.
    pub fn group_info(&self, number: u32) -> Result<GroupInfo, Fault> {
        let state = self.state.borrow();
        let group = &state.member(number)?.group;
        let there = group.there();
        Ok(GroupInfo {
            config: group.config.clone(),
            not_protected: group.not_protected(),
            earliest: there.earliest,
            tail: there.tail,
            events: there.events_from(there.earliest),
            gaps: group.gaps.iter().collect(),
            bytes: group.log.bytes(),
            segments: group.log.segments().len(),
            last_received_us: group.last_received_us(),
        })
    }

    /// The groups of this shard that are closed, with their tails: what a crash left of a removal.
    #[must_use]
    pub fn closed_groups(&self) -> Vec<(u32, u64)> {
        let state = self.state.borrow();
        let closed = state.groups.values().filter(|member| member.group.closed);
        closed.map(|member| (member.group.number, member.group.next_offset())).collect()
    }

    /// The table's groups (shard 0).
    #[must_use]
    pub fn table_groups(&self) -> Vec<TableGroup> {
        self.state.borrow().table.iter().flat_map(|table| table.groups().cloned()).collect()
    }
}

/// Every file a group may have, the next segment's included.
fn sequences(log: &GroupLog) -> impl Iterator<Item = u32> {
    let known = log.segments().iter().map(|segment| segment.sequence);
    known.chain([log.next_sequence()])
}

impl Shards {
    /// Makes a group, or finds it. Durable and visible when it returns; `None` when there are as many as there may be.
    ///
    /// # Errors
    /// Why a shard did not do it.
    pub async fn create_group(&self, directory: &Directory, wanted: NewGroup) -> Result<Option<Created>, Fault> {
        let created = self.on(0, move |shard| Box::pin(async move { shard.register(&wanted).await })).await?;
        if let Some(Created::New(group)) = &created {
            let opened = group.clone();
            self.on(group.shard, move |shard| {
                Box::pin(async move {
                    shard.open_group(&opened);
                })
            })
            .await;
            directory.publish(Entry { table: group.clone(), config: group.config.clone() });
        }
        Ok(created)
    }

    /// Changes a group's configuration, and tells of it. Durable and visible when it returns.
    ///
    /// # Errors
    /// Why the shard did not do it.
    pub async fn configure_group(
        &self,
        directory: &Directory,
        entry: &Entry,
        config: GroupConfig,
        audit: Option<Vec<u8>>,
    ) -> Result<(), Fault> {
        let (number, wanted) = (entry.table.number, config.clone());
        let configured = self.on(entry.table.shard, move |shard: Rc<Shard>| {
            Box::pin(async move { shard.configure(number, wanted, audit.as_deref()).await })
        });
        configured.await?;
        directory.publish(Entry { table: entry.table.clone(), config });
        Ok(())
    }

    /// Removes a group. Durable when it returns; its files go in the background.
    ///
    /// # Errors
    /// Why a shard did not do it.
    pub async fn remove_group(
        &self,
        directory: &Directory,
        group: &TableGroup,
        audit: Option<Vec<u8>>,
    ) -> Result<(), Fault> {
        let number = group.number;
        let closed = self.on(group.shard, move |shard: Rc<Shard>| {
            Box::pin(async move { shard.close_group(number, audit.as_deref()).await })
        });
        let tail = closed.await?;
        directory.withdraw(&group.name, number);
        let removed = Removed { name: group.name.clone(), number, next_first_offset: tail + 1 };
        self.on(0, move |shard| Box::pin(async move { shard.unregister(removed).await })).await?;
        self.on(group.shard, move |shard| Box::pin(async move { shard.drop_group(number).await })).await;
        Ok(())
    }
}
