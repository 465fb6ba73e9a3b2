//! Whoever runs a query is asked again and again whether it is still wanted; there it may rest, or end its turn.

use crate::limits::QUERY_TURN;
use std::cell::Cell;
use std::time::Instant;

/// What is done between two questions, in bytes that are looked at: some ten microseconds.
const LOOK_BYTES: usize = 8 << 10;

/// What something small takes, as if so many bytes were looked at.
pub const STEP: usize = 16;

/// Asks whether a query is still wanted, throughout one turn of it.
pub struct Watch<'w> {
    wanted: &'w dyn Fn() -> bool,
    begun: Instant,
    unwatched: Cell<usize>,
    over: Cell<bool>,
}

/// Nobody wants it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted;

impl<'w> Watch<'w> {
    /// The turn begins.
    #[must_use]
    pub fn new(wanted: &'w dyn Fn() -> bool) -> Self {
        Self { wanted, begun: Instant::now(), unwatched: Cell::new(0), over: Cell::new(false) }
    }

    /// So many bytes were looked at, or something was done that takes as long.
    ///
    /// # Errors
    /// When it is not wanted any more.
    #[inline]
    pub fn spent(&self, bytes: usize) -> Result<(), Unwanted> {
        let unwatched = self.unwatched.get().saturating_add(bytes);
        self.unwatched.set(unwatched);
        if unwatched < LOOK_BYTES { Ok(()) } else { self.look() }
    }

    fn look(&self) -> Result<(), Unwanted> {
        self.unwatched.set(0);
        self.over.set(self.begun.elapsed() >= QUERY_TURN);
        if (self.wanted)() { Ok(()) } else { Err(Unwanted) }
    }

    /// Whether others are to have their turn, as of the last question.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get()
    }
}
