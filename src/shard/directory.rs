//! The groups that everybody may see, for all cores: those whose creation is durable.
//!
//! Shard 0 owns the table; this is its shared shadow, read at every request. Each core keeps what it looked up and asks
//! again when the directory has changed since.

use super::audit::AUDIT_GROUP;
use crate::group::config::GroupConfig;
use crate::group::table::TableGroup;
use foldhash::HashMap;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One group as requests see it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name, number, shard and when it was made.
    pub table: TableGroup,
    /// The configuration in force.
    pub config: GroupConfig,
}

/// All visible groups by name.
#[derive(Default)]
pub struct Directory {
    groups: RwLock<BTreeMap<Box<str>, Arc<Entry>>>,
    version: AtomicU64,
}

impl Directory {
    /// Shows a group, or its new configuration.
    pub fn publish(&self, entry: Entry) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.insert(entry.table.name.clone(), Arc::new(entry));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Hides the group of that name and number.
    pub fn withdraw(&self, name: &str, number: u32) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.get(name).is_some_and(|entry| entry.table.number == number) {
            groups.remove(name);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// The group of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The name of the group of that number.
    #[must_use]
    pub fn name_of(&self, number: u32) -> Option<Box<str>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().find(|(_, entry)| entry.table.number == number).map(|(name, _)| name.clone())
    }

    /// How many groups there are, the broker's audit log aside.
    #[must_use]
    pub fn count(&self) -> usize {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.len() - usize::from(groups.contains_key(AUDIT_GROUP))
    }

    /// At most `limit` groups behind the name `after` whose names begin with `prefix` and are to be `shown`, by name.
    #[must_use]
    pub fn page(&self, prefix: &str, after: &str, limit: usize, shown: impl Fn(&str) -> bool) -> Vec<Arc<Entry>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        let found = groups.range::<str, _>((start, Bound::Unbounded));
        let found = found.take_while(|(name, _)| name.starts_with(prefix)).filter(|(name, _)| shown(name));
        found.take(limit).map(|(_, entry)| Arc::clone(entry)).collect()
    }
}

/// What one core has looked up.
pub struct Lookup {
    directory: Arc<Directory>,
    version: Cell<u64>,
    known: RefCell<HashMap<Box<str>, Arc<Entry>>>,
}

impl Lookup {
    /// Looks up in `directory`.
    #[must_use]
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory, version: Cell::new(0), known: RefCell::default() }
    }

    /// The group of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Entry>> {
        let version = self.directory.version.load(Ordering::Acquire);
        let known = &mut *self.known.borrow_mut();
        if self.version.replace(version) != version {
            known.clear();
        }
        if let Some(entry) = known.get(name) {
            return Some(Arc::clone(entry));
        }
        let entry = self.directory.get(name)?;
        known.insert(name.into(), Arc::clone(&entry));
        Some(entry)
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::table::Table;

    fn entry(table: &mut Table, name: &str) -> Entry {
        let group = table.plan(name, GroupConfig::default(), 0);
        table.insert(group.clone());
        Entry { table: group, config: GroupConfig::default() }
    }

    #[test]
    fn pages_follow_each_other_and_a_lookup_sees_every_change() {
        let directory = Arc::new(Directory::default());
        let lookup = Lookup::new(Arc::clone(&directory));
        let mut table = Table::new(1);
        for name in ["a", "web-1", "web-2", "web-3", "x"] {
            directory.publish(entry(&mut table, name));
        }
        let names = |page: Vec<Arc<Entry>>| page.iter().map(|entry| entry.table.name.to_string()).collect::<Vec<_>>();
        let all = |_: &str| true;
        assert_eq!(names(directory.page("web-", "", 2, all)), ["web-1", "web-2"]);
        assert_eq!(names(directory.page("web-", "web-2", 2, all)), ["web-3"]);
        assert_eq!(names(directory.page("", "", 9, all)).len(), 5);
        assert_eq!(names(directory.page("", "a", 2, |name| name != "web-1")), ["web-2", "web-3"]);

        let number = lookup.get("x").unwrap().table.number;
        directory.withdraw("x", number + 1);
        assert!(lookup.get("x").is_some(), "another number is another group");
        directory.withdraw("x", number);
        assert!(lookup.get("x").is_none());
    }
}
