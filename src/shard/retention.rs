//! Retention at work: segments of quiet groups are sealed when they are old enough, and segments that a group need not
//! keep are removed.
//!
//! ```text
//! decided ─▶ part of the entry that gathers ─▶ durable ─▶ readers see it ─▶ files are removed
//! ```
//!
//! Who loses events that `protect` was to keep is told of in the audit log, in the same entry. Files that a crash leaves
//! behind are removed by the next start.

use super::directory::Directory;
use super::tails::Finished;
use super::{Fault, Shard, State, consumers};
use crate::group::retention::Trim;
use crate::log::entry::PartKind;
use crate::log::segment;
use jiff::Timestamp;
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Groups looked at between two turns of the loop.
const GROUPS_PER_SLICE: usize = 64;

/// What was decided about some groups.
#[derive(Default)]
struct Decided {
    /// The entry that holds it.
    entry: u64,
    sealed: Vec<u32>,
    trimmed: Vec<(u32, Trim)>,
}

impl Shard {
    /// The loop that seals and trims. Ends with the shard's failure.
    pub async fn retain(self: Rc<Self>, directory: Arc<Directory>, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if self.fault().is_some() || self.retain_once(&directory).await.is_err() {
                return;
            }
        }
    }

    /// One look at all groups.
    pub(super) async fn retain_once(self: &Rc<Self>, directory: &Directory) -> Result<(), Fault> {
        let numbers: Vec<u32> = self.state.borrow().groups.keys().copied().collect();
        for slice in numbers.chunks(GROUPS_PER_SLICE) {
            let decided = self.decide_retention(slice, directory);
            self.carry_out_retention(decided).await?;
            crate::io::ring::park().await;
        }
        Ok(())
    }

    fn decide_retention(&self, groups: &[u32], directory: &Directory) -> Decided {
        let state = &mut *self.state.borrow_mut();
        let mut decided = Decided::default();
        if state.closing {
            return decided;
        }
        let now_us = self.clock.now_us();
        for &number in groups {
            if self.seal_old(state, number, now_us) {
                decided.sealed.push(number);
            }
            let trim = state.groups.get(&number).and_then(|member| member.group.to_trim(now_us));
            // What finds no room in the entry now is found again the next time.
            if let Some(trim) = trim.filter(|trim| self.trim(state, number, trim.earliest, now_us, directory).is_ok()) {
                decided.trimmed.push((number, trim));
            }
        }
        decided.entry = state.open_index();
        decided
    }

    /// Seals a group's active segment if it is old enough and nothing is under way to it.
    fn seal_old(&self, state: &mut State, number: u32, now_us: u64) -> bool {
        let Some(member) = state.groups.get(&number) else { return false };
        let growing = member.space_wanted || !member.space_waiters.is_empty();
        if growing
            || !member.group.is_to_be_sealed(now_us)
            || state.takes_change(8, None, self.entry_bytes_max).is_err()
        {
            return false;
        }
        let entry = state.open_index();
        let Ok(member) = state.member_mut(number) else { return false };
        let Some(active) = member.group.log.active().copied() else { return false };
        member.group.log.seal_active();
        member.group.last_entry = entry;
        // Only what is in its file can ever be trimmed.
        if member.group.log.tail_bytes() > 0 && !std::mem::replace(&mut member.flush_queued, true) {
            state.flush_queue.push_back(number);
        }
        let part = [number.to_le_bytes(), active.sequence.to_le_bytes()].concat();
        state.add_part(PartKind::SegmentSealed, part);
        true
    }

    fn trim(
        &self,
        state: &mut State,
        number: u32,
        earliest: u64,
        now_us: u64,
        directory: &Directory,
    ) -> Result<(), Fault> {
        let victims = state.member(number)?.group.protected_victims(earliest);
        let audit = (!victims.is_empty()).then(|| told(&victims, earliest, number, now_us, directory));
        let mut part = number.to_le_bytes().to_vec();
        part.extend_from_slice(&earliest.to_le_bytes());
        state.takes_change(part.len(), audit.as_deref(), self.entry_bytes_max)?;
        let entry = state.open_index();
        state.member_mut(number)?;
        let State { groups, snapshot, .. } = state;
        let member = groups.get_mut(&number).ok_or(Fault::NoGroup)?;
        let waits = &mut member.waits;
        member.group.trim(earliest, |name, consumer| {
            snapshot.note_consumer(number, name, consumer);
            consumer.live.last_entry = entry;
            consumer.live.version += 1;
            consumers::wake(waits, name);
        });
        member.group.last_entry = entry;
        state.add_part(PartKind::GroupTrimmed, part);
        if let Some(json) = audit {
            let consumers = victims.len();
            tracing::warn!(
                group = number,
                consumers,
                earliest,
                "max_bytes_hard took events that consumers had not acked"
            );
            self.add_audit(state, &json);
        }
        Ok(())
    }

    async fn carry_out_retention(self: &Rc<Self>, decided: Decided) -> Result<(), Fault> {
        if decided.sealed.is_empty() && decided.trimmed.is_empty() {
            return Ok(());
        }
        self.commit_turn.notify_one();
        self.durable(decided.entry).await?;
        self.tails_turn.notify_one();
        let mut finished: Vec<Finished> = Vec::new();
        let mut paths = Vec::new();
        {
            let state = &mut *self.state.borrow_mut();
            for number in decided.sealed {
                let Some(member) = state.groups.get_mut(&number) else { continue };
                let complete = member.group.log.take_finished().into_iter();
                finished.extend(complete.map(|(segment, index)| (number, segment, index)));
            }
            let directory = self.segments_directory();
            for (number, trim) in decided.trimmed {
                let Some(member) = state.groups.get_mut(&number) else { continue };
                for sequence in member.group.trimmed(trim.earliest).sequences {
                    state.segments.remove(&(number, sequence));
                    state.dirty.remove(&(number, sequence));
                    paths.push(segment::path(&directory, number, sequence));
                }
                self.stats.trimmed_segments.inc_by(trim.segments);
                self.stats.trimmed_bytes.inc_by(trim.bytes);
                tracing::debug!(group = number, earliest = trim.earliest, segments = trim.segments, "trimmed");
            }
        }
        if !finished.is_empty() {
            self.write_footers(finished).await;
        }
        // What is not removed now is removed as a leftover by the next start.
        let remove = move || paths.iter().for_each(|path| _ = std::fs::remove_file(path));
        self.opener.run(remove).await;
        Ok(())
    }
}

/// The audit event that tells whose events were lost although `protect` names them.
fn told(victims: &[(Box<str>, u64)], earliest: u64, number: u32, now_us: u64, directory: &Directory) -> Vec<u8> {
    let group = directory.name_of(number).unwrap_or_default();
    let lost = |(consumer, from): &(Box<str>, u64)| json!({ "consumer": consumer, "from": from, "to": earliest });
    let lost: Vec<_> = victims.iter().map(lost).collect();
    let at = Timestamp::from_microsecond(now_us as i64).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let event = json!({
        "action": "group.events_lost", "group": group, "lost": lost, "who": "broker", "from": "retention",
        "at": at.to_string(),
    });
    event.to_string().into_bytes()
}
