//! Sorts what did not fit into words. An event that is missing in its place may stand in another, and an event where
//! none was claimed may be one of unknown outcome: so nothing is called lost or duplicated before everything was read.

use std::collections::HashMap;

use super::Beliefs;
use crate::payload::Identity;
use crate::plan::{Plan, RequestKey};

/// Faults after which reading stops: there is nothing more to learn, and memory is bounded.
const FAULTS_MAX: u64 = 1_000_000;

/// Faults that are told one by one.
const EXAMPLES_MAX: usize = 5;

/// What the walks found, before it is explained.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Events exactly where and as they were acknowledged.
    pub(super) verified: u64,
    /// Events that are not of this run, where none of ours was claimed.
    pub(super) foreign: u64,
    /// Offsets that the group skips and nobody claimed.
    pub(super) holes: u64,
    disordered: u64,
    /// Claimed, but the place is empty or holds another whole event.
    missing: Tally,
    /// Claimed, but the place holds bytes that are no event of ours.
    damaged: Tally,
    /// Whole events of ours where none, or another, was claimed.
    strays: Tally,
    examples: Vec<String>,
}

/// How often each identity occurs, and where it was first met.
#[derive(Debug, Default)]
struct Tally {
    counts: HashMap<Identity, Met>,
    total: u64,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    times: u64,
    offset: u64,
}

/// The result of a verification, in events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged by the broker.
    pub acked: u64,
    /// Found in their place and unharmed.
    pub verified: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more often than sent.
    pub duplicated: u64,
    /// There, but not where the answer said; or offsets, ids, times or one connection's answers in the wrong order.
    pub out_of_order: u64,
    /// Their place holds other bytes.
    pub corrupted: u64,
    /// Sent without learning the outcome.
    pub unknown: u64,
    /// Of those, found.
    pub unknown_stored: u64,
    /// Requests of unknown outcome of which only some events are there.
    pub torn: u64,
    /// Refused, and there all the same.
    pub refused_stored: u64,
    /// Offsets that the group skips and nobody claimed.
    pub holes: u64,
    /// Events of somebody else; no fault.
    pub foreign: u64,
    /// Whether reading stopped early because so much was wrong.
    pub incomplete: bool,
    /// The first faults in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// How many things are wrong.
    pub fn faults(&self) -> u64 {
        let Findings { lost, duplicated, out_of_order, corrupted, torn, refused_stored, holes, .. } = self;
        lost + duplicated + out_of_order + corrupted + torn + refused_stored + holes
    }

    /// Whether everything acknowledged is there, once, in order and unharmed.
    pub fn is_right(&self) -> bool {
        self.faults() == 0 && !self.incomplete && self.verified == self.acked
    }
}

impl Ledger {
    pub(super) fn is_full(&self) -> bool {
        self.missing.total + self.damaged.total + self.strays.total + self.disordered > FAULTS_MAX
    }

    pub(super) fn disordered(&mut self, what: String) {
        self.disordered += 1;
        self.example(what);
    }

    pub(super) fn missing(&mut self, identity: Identity, offset: u64) {
        self.missing.add(identity, offset);
    }

    pub(super) fn damaged(&mut self, identity: Identity, offset: u64) {
        self.damaged.add(identity, offset);
    }

    pub(super) fn stray(&mut self, identity: Identity, offset: u64) {
        self.strays.add(identity, offset);
    }

    /// Explains what did not fit, each stray by the first that applies: it is missing elsewhere (out of order), it was
    /// acknowledged without a place, its outcome was unknown, it had been refused, it is there too often.
    /// `placed` events were acknowledged with a place.
    pub(super) fn settle(mut self, plan: &Plan, beliefs: &Beliefs, placed: u64) -> Findings {
        let events = |keys: &[RequestKey]| keys.iter().map(|key| u64::from(plan.count_of(*key))).sum::<u64>();
        let mut findings = Findings {
            acked: placed + events(&beliefs.unplaced),
            unknown: events(&beliefs.unknown),
            holes: self.holes,
            foreign: self.foreign,
            incomplete: self.is_full(),
            ..Findings::default()
        };
        findings.out_of_order = self.disordered + self.moved();
        let found = self.find(plan, &beliefs.unplaced);
        findings.verified = self.verified + found.events;
        findings.lost = events(&beliefs.unplaced) - found.events;
        let found = self.find(plan, &beliefs.unknown);
        (findings.unknown_stored, findings.torn) = (found.events, found.torn);
        findings.refused_stored = self.find(plan, &beliefs.refused).events;
        for (tally, count, words) in [
            (&self.missing, &mut findings.lost, "was acknowledged at offset {} and is not there"),
            (&self.damaged, &mut findings.corrupted, "was acknowledged at offset {}, which holds other bytes"),
            (&self.strays, &mut findings.duplicated, "is at offset {} once too often"),
        ] {
            *count += tally.total;
            for (identity, offset) in tally.first(EXAMPLES_MAX) {
                let sentence = words.replace("{}", &offset.to_string());
                self.examples.push(format!("{identity} {sentence}"));
            }
        }
        self.examples.truncate(EXAMPLES_MAX);
        findings.examples = self.examples;
        findings
    }

    /// Takes out the strays that are missing elsewhere, and says how many there were.
    fn moved(&mut self) -> u64 {
        let mut moves = self.strays.pair_off(&mut self.missing);
        moves.extend(self.strays.pair_off(&mut self.damaged));
        moves.sort_unstable();
        for (offset, acknowledged, identity) in moves.iter().take(EXAMPLES_MAX) {
            self.example(format!("{identity} was acknowledged at offset {acknowledged} and is at {offset}"));
        }
        moves.len() as u64
    }

    /// Takes the events of these requests out of the strays, each once at most.
    fn find(&mut self, plan: &Plan, keys: &[RequestKey]) -> Found {
        let mut found = Found { events: 0, torn: 0 };
        for key in keys {
            let stored = plan.events(*key).filter(|event| self.strays.take(plan.payload.identity(*event))).count();
            let torn = stored != 0 && stored as u64 != u64::from(plan.count_of(*key));
            found.events += stored as u64;
            // Equal lines of a file may be met in each other's stead, so only unique events can tell.
            found.torn += u64::from(torn && plan.payload.identities_are_unique());
        }
        found
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

struct Found {
    events: u64,
    torn: u64,
}

impl Tally {
    fn add(&mut self, identity: Identity, offset: u64) {
        self.counts.entry(identity).or_insert(Met { times: 0, offset }).times += 1;
        self.total += 1;
    }

    fn take(&mut self, identity: Identity) -> bool {
        match self.counts.get_mut(&identity) {
            Some(met) if met.times > 0 => {
                met.times -= 1;
                self.total -= 1;
                true
            }
            _ => false,
        }
    }

    /// Takes out of both what is in both: where each was met here and there, and what it was.
    fn pair_off(&mut self, other: &mut Tally) -> Vec<(u64, u64, Identity)> {
        let mut pairs = Vec::new();
        for (identity, met) in &mut self.counts {
            while met.times > 0 && other.take(*identity) {
                met.times -= 1;
                pairs.push((met.offset, other.counts[identity].offset, *identity));
            }
        }
        self.total -= pairs.len() as u64;
        pairs
    }

    /// Those with the lowest offsets.
    fn first(&self, most: usize) -> Vec<(Identity, u64)> {
        let mut left: Vec<_> = self
            .counts
            .iter()
            .filter(|(_, met)| met.times > 0)
            .map(|(identity, met)| (met.offset, *identity))
            .collect();
        left.sort_unstable();
        left.truncate(most);
        left.into_iter().map(|(offset, identity)| (identity, offset)).collect()
    }
}
