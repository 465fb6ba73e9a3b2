//! Walks one group's events in offset order beside the acknowledgements that claim those offsets. Finds each event that
//! is where and as it should be; whatever is not goes to the ledger, which knows more once all groups are read.

use std::collections::HashMap;

use super::claims::Claims;
use super::ledger::Ledger;
use super::line::Line;
use crate::acks::{Ack, Answered};
use crate::payload::Identity;
use crate::plan::Plan;

/// An acknowledgement whose offsets are being walked through.
#[derive(Clone, Copy, Debug)]
struct Claim {
    ack: Ack,
    /// One past its last offset.
    end: u64,
}

/// The walk through one group.
#[derive(Debug)]
pub(super) struct Walk<'a, 'p> {
    plan: &'a Plan,
    group: usize,
    /// Those that have not begun, of this group and those behind it.
    claims: &'a mut Claims<'p>,
    /// Those that have begun and not ended: at most one, unless answers contradict each other.
    active: Vec<Claim>,
    /// The offset that should be seen next.
    next: u64,
    last_id: String,
    last_received: String,
    /// The latest answer of each connection so far.
    answered: HashMap<u32, u64>,
    ledger: &'a mut Ledger,
    expected: Vec<u8>,
}

impl<'a, 'p> Walk<'a, 'p> {
    /// A walk from `base`, or from the first claimed offset if that is lower.
    pub(super) fn new(
        plan: &'a Plan,
        group: usize,
        claims: &'a mut Claims<'p>,
        base: u64,
        ledger: &'a mut Ledger,
    ) -> Walk<'a, 'p> {
        let next = claims.peek(group).map_or(base, |answered| answered.ack.first_offset.min(base));
        Walk {
            plan,
            group,
            claims,
            active: Vec::new(),
            next,
            last_id: String::new(),
            last_received: String::new(),
            answered: HashMap::new(),
            ledger,
            expected: Vec::new(),
        }
    }

    /// Where reading begins.
    pub(super) fn start(&self) -> u64 {
        self.next
    }

    /// Whether so much is wrong that more of it would tell nothing.
    pub(super) fn is_hopeless(&self) -> bool {
        self.ledger.is_full()
    }

    /// Takes the next event of the group; `bytes` is `None` if the broker contradicts itself about them.
    pub(super) fn see(&mut self, line: &Line<'_>, bytes: Option<&[u8]>) {
        let offset = line.offset;
        if offset < self.next {
            self.ledger.disordered(format!("offset {offset} comes after {}", self.next - 1));
            self.stray(offset, bytes);
            return;
        }
        self.skip_to(offset);
        self.check_labels(line);
        self.next = offset + 1;
        self.begin_up_to(offset);
        let mut matched = false;
        let mut claimed = false;
        let mut misfits = Vec::new();
        for claim in &self.active {
            claimed = true;
            let within = (offset - claim.ack.first_offset) as u32;
            let event = self.plan.event(claim.ack.key, within);
            self.expected.clear();
            self.plan.payload.append(event, &mut self.expected);
            let identity = self.plan.payload.identity(event);
            if matched || bytes != Some(&*self.expected) {
                misfits.push(identity);
                continue;
            }
            matched = true;
            if self.plan.has_key(line.key.as_deref(), claim.ack.key, within) {
                self.ledger.verified += 1;
            } else {
                self.ledger.damaged(identity, offset);
            }
        }
        self.active.retain(|claim| claim.end > offset + 1);
        if !matched || !misfits.is_empty() {
            self.explain(offset, bytes, matched, claimed, misfits);
        }
    }

    /// Says what became of events that were claimed to be at `offset` and are not, and of what is there instead.
    fn explain(&mut self, offset: u64, bytes: Option<&[u8]>, matched: bool, claimed: bool, misfits: Vec<Identity>) {
        let whole = bytes.is_some_and(|bytes| self.plan.payload.recognise(bytes).is_some());
        for expected in misfits {
            if matched || whole {
                self.ledger.missing(expected, offset);
            } else {
                self.ledger.damaged(expected, offset);
            }
        }
        if !matched && (whole || !claimed) {
            self.stray(offset, bytes);
        }
    }

    /// The group has no more events: what is still claimed is missing.
    pub(super) fn end(mut self) {
        if !self.is_hopeless() {
            self.pass(u64::MAX);
        }
    }

    /// Passes over offsets that the broker did not show.
    fn skip_to(&mut self, offset: u64) {
        if offset > self.next {
            let hole = offset - self.next;
            let claimed = self.pass(offset);
            self.ledger.holes += hole.saturating_sub(claimed);
        }
    }

    /// Marks every claimed event with an offset in `next..until` as missing; says how many there were.
    fn pass(&mut self, until: u64) -> u64 {
        let mut passed = 0;
        self.begin_up_to(until - 1);
        for claim in &self.active {
            for offset in claim.ack.first_offset.max(self.next)..claim.end.min(until) {
                let event = self.plan.event(claim.ack.key, (offset - claim.ack.first_offset) as u32);
                self.ledger.missing(self.plan.payload.identity(event), offset);
                passed += 1;
            }
        }
        self.active.retain(|claim| claim.end > until);
        self.next = until;
        passed
    }

    /// Begins the claims with a first offset of at most `offset`, and checks that their connections' answers came in
    /// the order of their offsets.
    fn begin_up_to(&mut self, offset: u64) {
        while let Some(Answered { ack, turn }) =
            self.claims.peek(self.group).filter(|answered| answered.ack.first_offset <= offset)
        {
            self.claims.take();
            if self.answered.insert(ack.key.connection, turn).is_some_and(|before| before > turn) {
                let (connection, first) = (ack.key.connection, ack.first_offset);
                self.ledger.disordered(format!("connection {connection} had offset {first} answered after later ones"));
            }
            self.active.push(Claim { ack, end: ack.first_offset + u64::from(self.plan.count_of(ack.key)) });
        }
    }

    fn check_labels(&mut self, line: &Line<'_>) {
        if *line.id <= *self.last_id {
            self.ledger
                .disordered(format!("id {} at offset {} does not follow {}", line.id, line.offset, self.last_id));
        }
        if *line.received < *self.last_received {
            self.ledger.disordered(format!("offset {} was received before its predecessor", line.offset));
        }
        self.last_id.clear();
        self.last_id.push_str(&line.id);
        self.last_received.clear();
        self.last_received.push_str(&line.received);
    }

    fn stray(&mut self, offset: u64, bytes: Option<&[u8]>) {
        match bytes.and_then(|bytes| self.plan.payload.recognise(bytes)) {
            Some(identity) => self.ledger.stray(identity, offset),
            None => self.ledger.foreign += 1,
        }
    }
}
