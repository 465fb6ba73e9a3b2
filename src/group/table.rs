//! The table of groups: which names there are, their numbers, and the shards they live in. Shard 0 owns it.
//!
//! A name that was removed keeps the offset at which it goes on, so that a group made again under the same name never
//! gives an offset twice: every position of the old one is below the new one's earliest.

use super::config::GroupConfig;
use super::record::decode_config;
use crate::log::wire::{Fields, Malformed, put_short};
use std::collections::BTreeMap;

/// Name under which the table remembers what may have been given to groups that a repair could not save; no group has it.
const LOST: &str = "";

/// One name of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableGroup {
    /// The name.
    pub name: Box<str>,
    /// Never used again.
    pub number: u32,
    /// The shard it lives in, for good.
    pub shard: u16,
    /// Offset of its first event.
    pub first_offset: u64,
    /// When it was made, µs since 1970.
    pub created_us: u64,
    /// The configuration it was made with.
    pub config: GroupConfig,
}

impl TableGroup {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&u32::from(self.shard).to_le_bytes());
        out.extend_from_slice(&self.first_offset.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        put_short(out, self.name.as_bytes());
        put_short(out, self.config.to_json().as_bytes());
    }

    /// Takes the stored form.
    ///
    /// # Errors
    /// When the bytes are not a group of the table.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let (number, shard) = (fields.u32()?, fields.u32()? as u16);
        let (first_offset, created_us) = (fields.u64()?, fields.u64()?);
        let name = fields.short_text()?.into();
        Ok(Self { name, number, shard, first_offset, created_us, config: decode_config(fields)? })
    }
}

/// A name that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The name.
    pub name: Box<str>,
    /// Number of the group that had it.
    pub number: u32,
    /// Where offsets go on if the name is used again.
    pub next_first_offset: u64,
}

impl Removed {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&u64::from(self.number).to_le_bytes());
        out.extend_from_slice(&self.next_first_offset.to_le_bytes());
        put_short(out, self.name.as_bytes());
    }

    /// Takes the stored form.
    ///
    /// # Errors
    /// When the bytes are not a removed name.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let (number, next_first_offset) = (fields.u64()? as u32, fields.u64()?);
        Ok(Self { name: fields.short_text()?.into(), number, next_first_offset })
    }
}

/// All names, on the accepted head of shard 0.
#[derive(Default)]
pub struct Table {
    groups: BTreeMap<Box<str>, TableGroup>,
    removed: BTreeMap<Box<str>, Removed>,
    last_number: u32,
    /// Groups per shard, to put the next one where there are fewest.
    per_shard: Vec<usize>,
}

impl Table {
    /// An empty table for so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { per_shard: vec![0; shards], ..Self::default() }
    }

    /// The group of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&TableGroup> {
        self.groups.get(name)
    }

    /// All groups by name.
    pub fn groups(&self) -> impl Iterator<Item = &TableGroup> {
        self.groups.values()
    }

    /// All removed names.
    pub fn removed(&self) -> impl Iterator<Item = &Removed> {
        self.removed.values()
    }

    /// How many groups there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// What a new group of that name would be; changes nothing.
    #[must_use]
    pub fn plan(&self, name: &str, config: GroupConfig, created_us: u64) -> TableGroup {
        let fewest = self.per_shard.iter().enumerate().min_by_key(|(_, groups)| **groups);
        TableGroup {
            name: name.into(),
            number: self.last_number + 1,
            shard: fewest.map_or(0, |(shard, _)| shard as u16),
            first_offset: self.floor() + self.removed.get(name).map_or(0, |removed| removed.next_first_offset),
            created_us,
            config,
        }
    }

    /// Offsets below this may have been given under names that a repair could not save.
    fn floor(&self) -> u64 {
        self.removed.get(LOST).map_or(0, |lost| lost.next_first_offset)
    }

    /// Numbers up to `number` may have been given to groups that nobody knows of any more, and each of them may have had
    /// `events` more events than is known of its name: no new group will repeat any of that.
    pub fn raise(&mut self, number: u32, events: u64) {
        let (number, next_first_offset) = (number.max(self.last_number), self.floor() + events);
        self.remove(Removed { name: LOST.into(), number, next_first_offset });
    }

    /// Changes a group that is there.
    pub fn replace(&mut self, group: TableGroup) {
        debug_assert!(self.get(&group.name).is_some_and(|known| known.number == group.number));
        self.groups.insert(group.name.clone(), group);
    }

    /// Adds a group.
    pub fn insert(&mut self, group: TableGroup) {
        self.last_number = self.last_number.max(group.number);
        if let Some(count) = self.per_shard.get_mut(group.shard as usize) {
            *count += 1;
        }
        self.removed.remove(&group.name);
        self.groups.insert(group.name.clone(), group);
    }

    /// Takes a group out, and remembers where its name goes on.
    pub fn remove(&mut self, removed: Removed) {
        self.last_number = self.last_number.max(removed.number);
        if self.groups.get(&removed.name).is_some_and(|group| group.number == removed.number)
            && let Some(group) = self.groups.remove(&removed.name)
            && let Some(count) = self.per_shard.get_mut(group.shard as usize)
        {
            *count -= 1;
        }
        self.removed.insert(removed.name.clone(), removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spread_over_shards_and_go_on_behind_what_they_were() {
        let mut table = Table::new(2);
        let make = |table: &mut Table, name: &str| {
            let group = table.plan(name, GroupConfig::default(), 5);
            table.insert(group.clone());
            group
        };
        let (first, second) = (make(&mut table, "a"), make(&mut table, "b"));
        assert_eq!((first.number, first.shard, first.first_offset), (1, 0, 0));
        assert_eq!((second.number, second.shard), (2, 1));
        table.remove(Removed { name: "a".into(), number: 1, next_first_offset: 11 });
        assert!(table.get("a").is_none());
        let again = make(&mut table, "a");
        assert_eq!((again.number, again.shard, again.first_offset), (3, 0, 11));
        assert_eq!(table.removed().count(), 0);
    }

    #[test]
    fn what_a_repair_could_not_save_is_never_given_again() {
        let mut table = Table::new(1);
        table.insert(table.plan("a", GroupConfig::default(), 0));
        table.remove(Removed { name: "a".into(), number: 1, next_first_offset: 11 });
        table.raise(40, 100);
        for _ in 0..2 {
            let [new, again] = ["new", "a"].map(|name| table.plan(name, GroupConfig::default(), 0));
            assert_eq!((new.number, new.first_offset, again.first_offset), (41, 100, 111));
            // As the state file has it.
            let mut restored = Table::new(1);
            table.removed().cloned().for_each(|removed| restored.remove(removed));
            table = restored;
        }
        table.raise(0, 7);
        assert_eq!(table.plan("new", GroupConfig::default(), 0).first_offset, 107);
        assert_eq!(table.len(), 0, "it is no group");
    }

    #[test]
    fn stored_forms_come_back() {
        let group = Table::new(1).plan("orders", GroupConfig::default(), 77);
        let mut bytes = Vec::new();
        group.encode(&mut bytes);
        assert_eq!(TableGroup::decode(&mut Fields::new(&bytes)), Ok(group));
        let removed = Removed { name: "orders".into(), number: 9, next_first_offset: 12 };
        bytes.clear();
        removed.encode(&mut bytes);
        assert_eq!(Removed::decode(&mut Fields::new(&bytes)), Ok(removed));
    }
}
