//! All acknowledgements in the order in which their events stand in the log: by group, then by first offset. Sorted in
//! pieces and merged as they are read, so a long run takes time to verify but no more memory than a short one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io;
use std::rc::Rc;

use crate::acks::{Acks, Answered, read, write};
use crate::plan::Plan;

/// Acknowledgements that are sorted in memory at a time: 24 MB.
const PIECE: usize = 1 << 20;

/// Acknowledgements that are read ahead, all pieces together, and of each at least.
const AHEAD: usize = 1 << 18;
const AHEAD_MIN: usize = 64;

/// Group, first offset, turn: what they are sorted by. Turns of different workers do not compare, and need not.
type Place = (usize, u64, u64);

/// The acknowledgements, to be taken in order.
#[derive(Debug)]
pub(super) struct Claims<'p> {
    plan: &'p Plan,
    pieces: Vec<Piece>,
    /// The first of each piece that has any left.
    heads: BinaryHeap<Reverse<(Place, usize)>>,
    /// Why the rest cannot be read, once that happened.
    failed: Option<io::Error>,
}

/// A sorted part.
#[derive(Debug)]
struct Piece {
    ahead: VecDeque<Answered>,
    /// The others: which of the file's.
    file: Option<Rc<File>>,
    from: u64,
    until: u64,
}

impl<'p> Claims<'p> {
    /// Sorts all workers' acknowledgements.
    ///
    /// # Errors
    /// When a temporary file cannot be written or read.
    pub(super) fn new(plan: &'p Plan, workers: Vec<Acks>) -> io::Result<Claims<'p>> {
        Claims::in_pieces(plan, workers, PIECE)
    }

    fn in_pieces(plan: &'p Plan, workers: Vec<Acks>, most: usize) -> io::Result<Claims<'p>> {
        let mut claims = Claims { plan, pieces: Vec::new(), heads: BinaryHeap::new(), failed: None };
        let mut file: Option<Rc<File>> = None;
        let mut in_file = 0;
        let in_memory = workers.iter().map(Acks::count).sum::<u64>() <= most as u64;
        for acks in workers {
            acks.in_pieces(most, |mut piece| {
                piece.sort_unstable_by_key(|answered| place(plan, answered));
                if in_memory {
                    claims.pieces.push(Piece { ahead: piece.into(), file: None, from: 0, until: 0 });
                    return Ok(());
                }
                let sorted = match &file {
                    Some(file) => Rc::clone(file),
                    None => Rc::clone(file.insert(Rc::new(tempfile::tempfile()?))),
                };
                write(&sorted, &piece)?;
                let until = in_file + piece.len() as u64;
                claims.pieces.push(Piece { ahead: VecDeque::new(), file: Some(sorted), from: in_file, until });
                in_file = until;
                Ok(())
            })?;
        }
        let ahead = (AHEAD / claims.pieces.len().max(1)).max(AHEAD_MIN);
        for number in 0..claims.pieces.len() {
            claims.pieces[number].refill(ahead)?;
            claims.show(number);
        }
        Ok(claims)
    }

    /// The next one of a group, which must be the first that has any left.
    pub(super) fn peek(&self, group: usize) -> Option<Answered> {
        let Reverse(((found, ..), number)) = self.heads.peek()?;
        (*found == group).then(|| self.pieces[*number].ahead[0])
    }

    /// Takes it.
    pub(super) fn take(&mut self) {
        let Some(Reverse((_, number))) = self.heads.pop() else { return };
        self.pieces[number].ahead.pop_front();
        let ahead = (AHEAD / self.pieces.len()).max(AHEAD_MIN);
        if let Err(error) = self.pieces[number].refill(ahead) {
            self.failed.get_or_insert(error);
        }
        self.show(number);
    }

    /// Whether all could be read.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn whole(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn show(&mut self, number: usize) {
        if let Some(first) = self.pieces[number].ahead.front() {
            self.heads.push(Reverse((place(self.plan, first), number)));
        }
    }
}

impl Piece {
    fn refill(&mut self, most: usize) -> io::Result<()> {
        if let Some(file) = &self.file
            && self.ahead.is_empty()
            && self.from < self.until
        {
            let count = most.min((self.until - self.from) as usize);
            self.ahead = read(file, self.from, count)?.into();
            self.from += count as u64;
        }
        Ok(())
    }
}

fn place(plan: &Plan, answered: &Answered) -> Place {
    (plan.group_of(answered.ack.key), answered.ack.first_offset, answered.turn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acks::Ack;
    use crate::plan::{RequestKey, tests::plan};

    #[test]
    fn pieces_in_memory_and_in_files_come_out_as_one_sorted_list() {
        let plan = Plan { groups: (0..3).map(|n| format!("g-{n}")).collect(), connections: 4, ..plan() };
        let mut random = fastrand::Rng::with_seed(5);
        let mut expected = Vec::new();
        let mut workers = |count: u32| {
            (0..2)
                .map(|worker| {
                    let mut acks = Acks::default();
                    for request in 0..count {
                        let key = RequestKey { connection: worker * 2 + request % 2, request };
                        let ack = Ack { first_offset: random.u64(..1 << 40), key };
                        expected.push((plan.group_of(key), ack.first_offset, ack));
                        acks.push(ack, 1);
                    }
                    acks
                })
                .collect::<Vec<_>>()
        };
        // Some thousands a worker go to its file, and pieces of a thousand are sorted each by itself.
        let (in_memory, in_files) = (workers(700), workers(9_001));
        let mut lists = [expected[..1_400].to_vec(), expected[1_400..].to_vec()];
        for ((workers, most), list) in [(in_memory, 1 << 20), (in_files, 1_000)].into_iter().zip(&mut lists) {
            let mut claims = Claims::in_pieces(&plan, workers, most).unwrap();
            list.sort_unstable_by_key(|(group, first_offset, _)| (*group, *first_offset));
            let mut found = Vec::new();
            for group in 0..3 {
                while let Some(answered) = claims.peek(group) {
                    found.push((group, answered.ack.first_offset, answered.ack));
                    claims.take();
                }
            }
            assert!(found == *list, "{} of {} in order", found.len(), list.len());
            claims.whole().unwrap();
        }
    }
}
