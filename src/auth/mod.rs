//! Tokens: what they allow, what is kept of their secrets, and the ones in force as every core sees them.
//!
//! ```text
//! secret     the text that is shown once: an id to look up, and 256 random bits of which only a digest is stored
//! token      what one allows: scopes × groups, until when, from which pages, how often; its stored form
//! rate       requests a second, counted over all cores
//! directory  the tokens that are durable, for all cores, and those that one core has verified
//! ```
//!
//! Which token a request needs is said in `api`; shard 0 owns the table.

pub mod directory;
pub mod rate;
pub mod secret;
pub mod token;

use serde::{Deserialize, Serialize};

/// One kind of thing that a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Scope {
    /// Add events.
    Produce = 1,
    /// Read as a consumer, and say how far.
    Consume = 2,
    /// Read as an observer: events, groups, queries.
    Query = 4,
    /// Make, change and remove; and see what the broker tells of itself.
    Manage = 8,
}

impl Scope {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Produce, Self::Consume, Self::Query, Self::Manage];
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// The set that was stored as these bits; `None` if one of them is no scope.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        let known: u8 = Scope::ALL.iter().map(|scope| *scope as u8).sum();
        (bits & !known == 0).then_some(Self(bits))
    }

    /// The set as bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether `scope` is among them.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// Whether `scope` is the only one.
    #[must_use]
    pub fn is_only(self, scope: Scope) -> bool {
        self.0 == scope as u8
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scopes in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope as u8))
    }
}
