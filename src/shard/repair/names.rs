//! Names, when shard 0 lost registrations or removals of groups.
//!
//! | what is lost | what becomes of it |
//! |---|---|
//! | a registration, and the group's events are there | the group is registered as `lost-<number>` |
//! | a registration, and nothing else is known of the group | its name goes on above, should it be made again |
//! | a removal, and the group's shard has forgotten the group | it is there again, empty, far above |
//!
//! So no name ever gives an offset that it may have given before, and no number is used again.

use super::report::{Moved, Renamed};
use super::{Plan, Saved};
use crate::group::table::{Table, TableGroup};
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// More events than any group has had: at a million a second it takes nine years to produce them.
const UNKNOWN_EVENTS: u64 = 1 << 48;
/// Bytes of the smallest registration in the journal: its part's header and the fields of fixed length.
const REGISTRATION_BYTES_MIN: u64 = 40;

impl Plan {
    /// Names for the groups of a shard that the table has lost.
    pub(super) fn name(&mut self, shard: u16) -> Vec<TableGroup> {
        let table = &self.shards[0].examined.table;
        // A group that was removed, and whose closing is lost, is none that lost its name.
        let removed: HashSet<u32> = table.removed().map(|removed| removed.number).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        let unnamed = self.shards[usize::from(shard)].examined.unnamed.iter();
        let mut found = Vec::new();
        for group in unnamed.filter(|group| !removed.contains(&group.number)) {
            let name = free_name(table, group.number);
            found.push(TableGroup {
                name: name.clone().into(),
                number: group.number,
                shard,
                first_offset: group.first_offset,
                created_us: now,
                config: group.config.clone(),
            });
            self.renamed.push(Renamed {
                number: group.number,
                shard,
                group: name,
                first_offset: group.first_offset,
                next_offset: group.next_offset,
            });
        }
        found
    }

    /// Raises everything that names and numbers go on at above what may be lost.
    pub(super) fn raise(&mut self) {
        let losses = || self.shards.iter().filter_map(|shard| shard.loss.as_ref());
        let highest = self.shards.iter().map(|shard| shard.examined.last_number).max().unwrap_or_default();
        let named = self.renamed.iter().map(|group| group.next_offset).max().unwrap_or_default();
        let Some(loss) = &self.shards[0].loss else {
            if !self.renamed.is_empty() {
                self.shards[0].examined.table.raise(highest, named);
            }
            return;
        };
        let numbers = highest + (loss.bytes / REGISTRATION_BYTES_MIN) as u32;
        let events: u64 = losses().map(|loss| loss.events).sum();
        self.shards[0].examined.table.raise(numbers, named + events);
        let (first, others) = self.shards.split_at_mut(1);
        for shard in others {
            let moved = move_up(&mut first[0].examined.table, shard);
            self.moved.extend(moved);
        }
    }
}

/// Moves the groups up that their shard does not know: their removal may be lost.
fn move_up(table: &mut Table, shard: &mut Saved) -> Vec<Moved> {
    let untouched: HashSet<u32> = shard.examined.untouched.iter().copied().collect();
    // Its shard opens it from the table, as it would a new one.
    shard.examined.groups.retain(|number, _| !untouched.contains(number));
    if let Some(loss) = &mut shard.loss {
        loss.gaps.retain(|lost| !untouched.contains(&lost.group));
    }
    let groups: Vec<TableGroup> = table.groups().filter(|group| untouched.contains(&group.number)).cloned().collect();
    let up = |group: TableGroup| TableGroup { first_offset: group.first_offset + UNKNOWN_EVENTS, ..group };
    let moved = groups.into_iter().map(up).map(|group| {
        table.replace(group.clone());
        Moved { group: group.name.into(), first_offset: group.first_offset }
    });
    moved.collect()
}

/// A name that nobody has or had.
fn free_name(table: &Table, number: u32) -> String {
    let taken = |name: &str| table.get(name).is_some() || table.removed().any(|removed| &*removed.name == name);
    let first = format!("lost-{number}");
    let mut others = (2..).map(|again| format!("lost-{number}-{again}"));
    if taken(&first) { others.find(|name| !taken(name)).unwrap_or(first) } else { first }
}
