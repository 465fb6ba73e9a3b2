//! Who reads for a consumer: one session at a time, fenced by the epoch.
//!
//! A session is named by a random number and the epoch at which its holder last heard of the position. So a call of a
//! session that was replaced is told from a call that only missed a rewind.

use super::{Change, Consumer, Life, Now, Refusal, Session};
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

/// A session as its holder names it: `<16 hex digits>-<epoch>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// Which session.
    pub id: u64,
    /// The epoch its holder knows.
    pub epoch: u64,
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.id, self.epoch)
    }
}

impl FromStr for SessionName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, epoch) = text.split_once('-').ok_or(())?;
        let well_formed =
            id.bytes().all(|byte| byte.is_ascii_hexdigit()) && epoch.bytes().all(|byte| byte.is_ascii_digit());
        match (id.len() == 16 && well_formed, u64::from_str_radix(id, 16), epoch.parse()) {
            (true, Ok(id), Ok(epoch)) => Ok(Self { id, epoch }),
            _ => Err(()),
        }
    }
}

impl Consumer {
    /// The session's name, if there is one.
    #[must_use]
    pub fn session_name(&self) -> Option<SessionName> {
        self.session.map(|session| SessionName { id: session.id, epoch: self.epoch })
    }

    /// Whether it may read at all.
    ///
    /// # Errors
    /// Why not.
    pub fn readable(&self, now: Now) -> Result<(), Refusal> {
        match self.life {
            Life::Approved if self.terms.expires_us > 0 && now.wall_us >= self.terms.expires_us => {
                Err(Refusal::Expired)
            }
            Life::Approved => Ok(()),
            life => Err(Refusal::NotApproved(life)),
        }
    }

    /// When the session lapses if nobody calls; `None` without one, or while a live answer holds it.
    #[must_use]
    pub fn lapses_at(&self) -> Option<Instant> {
        self.live.lease_until.filter(|_| self.live.attached.is_none())
    }

    /// Ends the session if its lease has lapsed.
    pub fn lapse(&mut self, now: Now) -> Change {
        match self.lapses_at() {
            Some(until) if until <= now.instant => self.break_session(),
            _ => Change::Nothing,
        }
    }

    /// Ends the session of somebody who did not say so: what was in flight failed with it.
    fn break_session(&mut self) -> Change {
        if self.session.is_some() && self.live.delivered_next > self.head() {
            self.failures = self.failures.saturating_add(1);
            self.reason = "the session ended without an ack".into();
        }
        self.end_session()
    }

    /// Ends the session. What was in flight will be delivered again.
    pub(super) fn end_session(&mut self) -> Change {
        if self.session.take().is_none() {
            return Change::Nothing;
        }
        self.live.lease_until = None;
        self.live.attached = None;
        let head = self.head();
        self.live.restart(head);
        Change::Record
    }

    /// Opens a session of the given id.
    ///
    /// # Errors
    /// [`Refusal::SessionActive`] while another one is alive and is not to be taken over.
    pub fn open_session(&mut self, id: u64, anonymous: bool, takeover: bool, now: Now) -> Result<Change, Refusal> {
        self.may_open(takeover, now)?;
        self.break_session();
        self.epoch += 1;
        self.session = Some(Session { id, anonymous, opened_us: now.wall_us });
        self.renew(now);
        Ok(Change::Record)
    }

    /// Whether a session may be opened now.
    pub(super) fn may_open(&self, takeover: bool, now: Now) -> Result<(), Refusal> {
        self.readable(now)?;
        if self.session.is_some() && !takeover { Err(self.active(now)) } else { Ok(()) }
    }

    pub(super) fn active(&self, now: Now) -> Refusal {
        let left = self.lapses_at().map_or(self.terms.lease, |until| until.saturating_duration_since(now.instant));
        Refusal::SessionActive { retry_after_ms: (left.as_millis() as u64).max(1) }
    }

    fn renew(&mut self, now: Now) {
        self.live.lease_until = Some(now.instant + self.terms.lease);
    }

    /// A call in the name of a session, or of none, which means the anonymous one: it renews the lease.
    ///
    /// # Errors
    /// The caller may not read, its session is over, missed a rewind, or is another one.
    pub fn call(&mut self, named: Option<SessionName>, now: Now) -> Result<(), Refusal> {
        self.readable(now)?;
        let current = self.session_name().zip(self.session);
        match (named, current) {
            (Some(named), Some((current, _))) if named.id == current.id && named.epoch == current.epoch => {}
            (Some(named), Some((current, _))) if named.id == current.id && named.epoch < current.epoch => {
                self.renew(now);
                return Err(Refusal::Rewound { session: current, next: self.head() });
            }
            (Some(_), _) | (None, None) => return Err(Refusal::Fenced { epoch: self.epoch }),
            (None, Some((_, session))) if session.anonymous => {}
            (None, Some(_)) => return Err(self.active(now)),
        }
        self.renew(now);
        Ok(())
    }

    /// The holder leaves; whoever stands by may come at once.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub fn leave(&mut self, named: Option<SessionName>, now: Now) -> Result<Change, Refusal> {
        // Who has not heard of a rewind yet may leave all the same.
        let holds = named.zip(self.session).is_some_and(|(named, session)| named.id == session.id);
        if !holds {
            self.call(named, now)?;
        }
        Ok(self.end_session())
    }

    /// A live answer takes hold of the session, which then does not lapse. Who names the session may come back while the
    /// connection before is not known to be broken; that one is let go.
    ///
    /// # Errors
    /// [`Refusal::SessionActive`] when the session is anonymous and another live answer holds it.
    pub(super) fn attach(&mut self, answer: u64, named: bool) -> Result<(), Refusal> {
        match self.live.attached {
            Some(other) if other != answer && !named => {
                Err(Refusal::SessionActive { retry_after_ms: (self.terms.lease.as_millis() as u64).max(1) })
            }
            _ => {
                self.live.attached = Some(answer);
                Ok(())
            }
        }
    }

    /// A live answer has ended. An anonymous session ends with it; another one has its lease from now on.
    pub fn detach(&mut self, answer: u64, now: Now) -> Change {
        if self.live.attached != Some(answer) {
            return Change::Nothing;
        }
        self.live.attached = None;
        match self.session {
            Some(session) if session.anonymous => self.break_session(),
            _ => {
                self.renew(now);
                Change::Nothing
            }
        }
    }
}
