//! Many groups and consumers looked at for metrics, in slices with a turn of the loop in between, so that nothing else
//! waits for the whole of it. What comes or goes meanwhile may be missed.

use super::Shard;
use super::consumers::Ground;
use super::groups::GroupInfo;
use crate::group::consumer::{Blocked, Consumer};
use crate::io::ring;
use std::ops::Bound;

/// Groups or consumers that are looked at between two turns of the loop: some tens of microseconds.
const SLICE: usize = 256;

/// Where a consumer stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub name: Box<str>,
    /// The next offset it has to ack.
    pub next: u64,
    /// The first event from there on.
    pub first: u64,
    /// Events that it has not acked and everybody may see.
    pub lag: u64,
    /// When that was so, µs since 1970.
    pub now_us: u64,
}

impl Shard {
    /// What these groups are; those that are gone are left out.
    pub async fn survey_groups(&self, numbers: Vec<u32>) -> Vec<(u32, GroupInfo)> {
        let mut found = Vec::with_capacity(numbers.len());
        for slice in numbers.chunks(SLICE) {
            found.extend(slice.iter().filter_map(|&number| Some((number, self.group_info(number).ok()?))));
            ring::park().await;
        }
        found
    }

    /// Shows every consumer to `look`, and why nothing would be delivered to it now.
    pub async fn survey_consumers(&self, mut look: impl FnMut(&Consumer, &Ground<'_>, Option<Blocked>)) {
        let mut looked = 0;
        for (group, _) in self.groups_with_consumers() {
            self.walk(group, usize::MAX, &mut looked, |_, consumer, ground| {
                look(consumer, ground, consumer.blocked(ground.there, ground.now.instant));
            })
            .await;
        }
    }

    /// Where consumers stand: of each group at most as many as asked for, the first by name. Those without a position
    /// are left out.
    pub async fn standings(&self, groups: Vec<(u32, usize)>) -> Vec<(u32, Vec<Standing>)> {
        let mut found = Vec::with_capacity(groups.len());
        let mut looked = 0;
        for (group, most) in groups {
            let mut standings = Vec::new();
            self.walk(group, most, &mut looked, |name, consumer, ground| {
                if consumer.has_position() {
                    let (next, there) = (consumer.next, &ground.there);
                    let (first, lag) = (there.first_from(next), there.events_from(next));
                    standings.push(Standing { name: name.into(), next, first, lag, now_us: ground.now.wall_us });
                }
            })
            .await;
            found.push((group, standings));
        }
        found
    }

    /// Shows the first `most` consumers of a group, by name. `looked` counts up to the next turn of the loop, over all
    /// groups, for many have few consumers.
    async fn walk(
        &self,
        group: u32,
        most: usize,
        looked: &mut usize,
        mut look: impl FnMut(&str, &Consumer, &Ground<'_>),
    ) {
        let mut after: Box<str> = Box::default();
        let mut left = most;
        while left > 0 {
            let room = (SLICE - *looked).min(left);
            let seen = self.slice(group, &mut after, room, &mut look);
            *looked += seen;
            left -= seen;
            if *looked == SLICE {
                *looked = 0;
                ring::park().await;
            }
            if seen < room {
                break;
            }
        }
    }

    /// Shows at most `most` consumers behind `after`, which then is the last of them. Returns how many there were.
    fn slice(
        &self,
        group: u32,
        after: &mut Box<str>,
        most: usize,
        look: &mut impl FnMut(&str, &Consumer, &Ground<'_>),
    ) -> usize {
        let state = self.state.borrow();
        let Some(member) = state.groups.get(&group).filter(|member| !member.group.closed) else { return 0 };
        let ground = self.ground(member);
        let rest = member.group.consumers.range::<str, _>((Bound::Excluded(&**after), Bound::Unbounded));
        let (mut seen, mut last) = (0, None);
        for (name, consumer) in rest.take(most) {
            look(name, consumer, &ground);
            (seen, last) = (seen + 1, Some(name));
        }
        if let Some(last) = last.cloned() {
            *after = last;
        }
        seen
    }
}
