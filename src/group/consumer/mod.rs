//! A consumer: a named reader of one group with a durable position. Everything it may do is decided here, on values.
//!
//! ```text
//! life       pending ─approve─▶ approved ⇄ suspended;  revoked from any, and approved again from there
//! position   … acked ┊ head ······ delivered ······ tail        head = acked + 1, durable; delivered in memory
//! session    one at a time, fenced by the epoch; it ends by a lease that lapses, a takeover, a change of life
//! ```
//!
//! A bounded replay has a head of its own in front of the position, which waits until the replay is acked to its end.
//! What changes for good is said by [`Change`], and written to the journal by the shard: a moved head alone as a few
//! bytes, everything else as the whole record. Who waits, and what is read, is the shard's business.

mod progress;
mod record;
mod session;
#[cfg(test)]
mod tests;

pub use progress::{Blocked, Call, Grant, Hold, There, Turn, Wants};
pub use record::{decode, decode_acked, encode, encode_acked};
pub use session::SessionName;

use crate::limits::{CONSUMER_BYTES_DEFAULT, CONSUMER_EVENTS_DEFAULT};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The consumers of a group, by name.
pub type Consumers = BTreeMap<Box<str>, Consumer>;

/// Where a consumer is in its life. Numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// It asked, and nobody has decided.
    Pending = 1,
    /// It may read.
    Approved = 2,
    /// It may not read for now; its position is kept.
    Suspended = 3,
    /// It may not read any more; its position is kept.
    Revoked = 4,
}

impl Life {
    /// As callers see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

/// What happens to an event whose every attempt failed. Numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OnPoison {
    /// The consumer stands still until somebody decides.
    Stall = 0,
    /// The event is copied to the group's dead letters, and the position moves on.
    DeadLetter = 1,
}

/// What an approval grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a session lives without a call.
    pub lease: Duration,
    /// Events that may be delivered and not acked.
    pub events_max: u64,
    /// Bytes of such events; one event may always be.
    pub bytes_max: u64,
    /// Failed attempts after which an event is poison; 0 = never.
    pub attempts_max: u32,
    /// What happens to poison.
    pub on_poison: OnPoison,
    /// From when on it may not read any more, µs since 1970; 0 = never.
    pub expires_us: u64,
}

impl Terms {
    /// What is granted unless the approval says otherwise.
    #[must_use]
    pub fn with_lease(lease: Duration) -> Self {
        Self {
            lease,
            events_max: CONSUMER_EVENTS_DEFAULT,
            bytes_max: CONSUMER_BYTES_DEFAULT,
            attempts_max: 0,
            on_poison: OnPoison::Stall,
            expires_us: 0,
        }
    }
}

/// Who reads for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Random.
    pub id: u64,
    /// Whether it was opened by a caller who names no session, and is shared by all who name none.
    pub anonymous: bool,
    /// When, µs since 1970.
    pub opened_us: u64,
}

/// A range that is delivered again before the position goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The next offset to be acked.
    pub next: u64,
    /// Where it ends.
    pub until: u64,
}

/// A position that somebody moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// The head before.
    pub from: u64,
    /// The head from then on.
    pub to: u64,
    /// End of the replay, if it was one.
    pub until: Option<u64>,
    /// When, µs since 1970.
    pub at_us: u64,
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The broker's clock, µs since 1970.
    pub wall_us: u64,
    /// For leases and delays.
    pub instant: Instant,
}

/// What a decision changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that lasts.
    Nothing,
    /// The head alone, to there.
    Head(u64),
    /// Anything of the record.
    Record,
}

/// Why a consumer may not do what was asked.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody subscribed under this name.
    #[error("there is no such consumer: PUT it to subscribe")]
    NotThere,
    /// It is not approved (any more, or yet).
    #[error("the consumer is {}, not approved", .0.name())]
    NotApproved(Life),
    /// Its approval has ended.
    #[error("the consumer's approval has expired")]
    Expired,
    /// This step does not lead on from where it is.
    #[error("the consumer is {}: this does not lead on from there", .0.name())]
    WrongLife(Life),
    /// A start was given for a position that is there already.
    #[error("the consumer has a position already: rewind moves it")]
    HasPosition,
    /// Somebody else reads for it.
    #[error("another session is active")]
    SessionActive {
        /// After how long the lease lapses, if it is not renewed.
        retry_after_ms: u64,
    },
    /// The caller's session is over.
    #[error("this session is over: open another one and read from the position")]
    Fenced {
        /// The consumer's epoch.
        epoch: u64,
    },
    /// The position was moved since the caller last read.
    #[error("the position was moved to {next}: go on from there with the new session")]
    Rewound {
        /// The caller's session from now on.
        session: SessionName,
        /// What comes next.
        next: u64,
    },
    /// What was not delivered cannot be acked.
    #[error("offsets from {delivered} on were not delivered")]
    BeyondDelivered {
        /// Offset behind the last one that was delivered.
        delivered: u64,
    },
    /// Only what comes next can fail.
    #[error("{next} is the next event: ack what is before another one first")]
    NotNext {
        /// The head.
        next: u64,
    },
    /// Going forward leaves events out, and must be said.
    #[error("this leaves out events from {next} on: say `skip` if that is meant")]
    NeedsSkip {
        /// The head.
        next: u64,
    },
    /// A replay is of what was acked.
    #[error("{next} is the next event: there is nothing behind it to replay in this range")]
    NothingToReplay {
        /// The position.
        next: u64,
    },
    /// So many ranges cannot wait to be replayed.
    #[error("too many ranges wait to be replayed")]
    TooManyReplays,
}

/// One consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Where it is in its life.
    pub life: Life,
    /// Where it asked to begin: a position expression.
    pub start: Box<str>,
    /// What it was granted.
    pub terms: Terms,
    /// Id of its token, if it was given one.
    pub token: Option<Box<str>>,
    /// When it subscribed, µs since 1970.
    pub created_us: u64,
    /// When it was last approved, µs since 1970; 0 = never.
    pub approved_us: u64,
    /// Number of the group of dead letters; 0 = there is none.
    pub dead_letters: u32,
    /// Counts sessions and moves of the position.
    pub epoch: u64,
    /// The next offset to be acked, replays aside.
    pub next: u64,
    /// When something was last acked, µs since 1970; 0 = never.
    pub acked_at_us: u64,
    /// Who reads for it.
    pub session: Option<Session>,
    /// Failed attempts at what begins at the head.
    pub failures: u32,
    /// What was said of the last failure.
    pub reason: Box<str>,
    /// Ranges that are delivered again first.
    pub replays: VecDeque<Replay>,
    /// Events below its position that it will never see: lost to retention or repair.
    pub gap: Option<(u64, u64)>,
    /// Events delivered more than once.
    pub redelivered: u64,
    /// Events copied to the dead letters.
    pub dead_lettered: u64,
    /// The last time somebody moved the position.
    pub last_rewind: Option<Rewound>,
    /// What is not worth writing down.
    pub live: Live,
}

/// The part of a consumer that a restart forgets.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Offset behind the last event delivered since the head was last moved back.
    pub delivered_next: u64,
    /// Offset behind the last event ever delivered.
    pub seen_next: u64,
    /// What is delivered and not acked: offset behind each answer, and its bytes.
    in_flight: VecDeque<(u64, u64)>,
    /// When the session lapses; `None` while there is none.
    lease_until: Option<Instant>,
    /// The live answer that holds the session.
    pub attached: Option<u64>,
    /// Nothing is delivered before.
    not_before: Option<Instant>,
    /// When the head last moved, or something was delivered while nothing was in flight.
    pub progress: Option<Instant>,
    /// Callers that wait for the session.
    pub standbys: u32,
    /// Why reading at the head is not possible: damage.
    pub corrupt: bool,
    /// Journal entry that holds the last change, durable or not.
    pub last_entry: u64,
    /// Counts what whoever waits for this consumer should look at.
    pub version: u64,
    /// The checkpoint that already holds it as it was then.
    pub snapshot: u64,
    /// When the shard looks at its lease next.
    pub look_at: Option<Instant>,
    /// Events acked since the start.
    pub acked: u64,
    /// Acked events a second over the last minute or so.
    pub rate: Rate,
}

/// A rate that forgets what is longer ago than a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    per_second: f64,
    at: Option<Instant>,
}

impl Rate {
    const WINDOW_SECONDS: f64 = 60.0;

    /// Counts `events` that happened now.
    pub fn count(&mut self, events: u64, now: Instant) {
        self.per_second = self.now(now) + events as f64 / Self::WINDOW_SECONDS;
        self.at = Some(now);
    }

    /// The rate as it is now.
    #[must_use]
    pub fn now(&self, now: Instant) -> f64 {
        let age = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.per_second * (-age / Self::WINDOW_SECONDS).exp()
    }
}

impl Consumer {
    /// A consumer that just subscribed and will begin at `start` once it is approved.
    #[must_use]
    pub fn new(start: &str, terms: Terms, now_us: u64) -> Self {
        Self {
            life: Life::Pending,
            start: start.into(),
            terms,
            token: None,
            created_us: now_us,
            approved_us: 0,
            dead_letters: 0,
            epoch: 0,
            next: 0,
            acked_at_us: 0,
            session: None,
            failures: 0,
            reason: Box::default(),
            replays: VecDeque::new(),
            gap: None,
            redelivered: 0,
            dead_lettered: 0,
            last_rewind: None,
            live: Live::default(),
        }
    }

    /// The next offset to be acked.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.replays.front().map_or(self.next, |replay| replay.next)
    }

    /// Where the range that is delivered now ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.replays.front().map_or(u64::MAX, |replay| replay.until)
    }

    /// Whether it ever had a position.
    #[must_use]
    pub fn has_position(&self) -> bool {
        self.approved_us > 0
    }

    /// Approves it, or changes what it was granted. A first approval fixes where it begins.
    ///
    /// # Errors
    /// [`Refusal::HasPosition`] when a start is given a second time.
    pub fn approve(&mut self, start: Option<u64>, terms: Terms, now: Now) -> Result<Change, Refusal> {
        match (self.has_position(), start) {
            (true, Some(_)) => return Err(Refusal::HasPosition),
            (true, None) => {}
            (false, start) => {
                self.next = start.unwrap_or(0);
                self.live.restart(self.next);
            }
        }
        self.life = Life::Approved;
        self.terms = terms;
        self.approved_us = now.wall_us.max(1);
        Ok(Change::Record)
    }

    /// Suspends, resumes or revokes it. A session ends with that; the position stays.
    ///
    /// # Errors
    /// [`Refusal::WrongLife`] where that does not lead on.
    pub fn change_life(&mut self, to: Life) -> Result<Change, Refusal> {
        if self.life == to {
            return Ok(Change::Nothing);
        }
        let leads_on = match to {
            Life::Pending => false,
            Life::Approved => self.life == Life::Suspended,
            Life::Suspended => self.life == Life::Approved,
            Life::Revoked => true,
        };
        if !leads_on {
            return Err(Refusal::WrongLife(self.life));
        }
        self.life = to;
        self.end_session();
        Ok(Change::Record)
    }

    /// Whether anything below `earliest` is still to be delivered to it or acked by it.
    #[must_use]
    pub fn wants_below(&self, earliest: u64) -> bool {
        self.has_position() && (self.next < earliest || self.replays.iter().any(|replay| replay.next < earliest))
    }

    /// Everything below `earliest` is gone: what it had not acked of that is a gap, and is told. What failed or was to be
    /// replayed there is no matter any more.
    pub fn lose_before(&mut self, earliest: u64) {
        if self.next < earliest {
            self.gap = Some((self.next, earliest));
        }
        if self.head() < earliest {
            self.failures = 0;
            self.reason = Box::default();
            self.live.not_before = None;
        }
        let before = self.replays.front().copied();
        self.replays.retain(|replay| replay.until > earliest);
        if self.replays.front().copied() != before {
            let head = self.head();
            self.live.restart(head);
        }
    }

    /// After a start, and once: what was in flight counts as delivered, and the session has a fresh lease.
    pub fn recovered(&mut self, tail: u64, now: Instant) {
        self.live.restart(self.head());
        if self.session.is_some() {
            self.live.delivered_next = tail.min(self.end()).max(self.head());
            self.live.seen_next = self.live.delivered_next;
            self.live.lease_until = Some(now + self.terms.lease);
        }
    }
}

impl Live {
    /// Nothing is delivered but what was acked.
    fn restart(&mut self, head: u64) {
        self.delivered_next = head;
        self.in_flight.clear();
        self.progress = None;
    }
}
