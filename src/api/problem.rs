//! Every error, mapped to HTTP in one place: `application/problem+json` (RFC 9457) with a stable `code`.

use super::split::{Place, SplitFault};
use crate::group::Refusal;
use crate::group::config::BadConfig;
use crate::group::consumer::{Life, Refusal as ConsumerRefusal};
use crate::group::gaps::Gap;
use crate::group::name::BadName;
use crate::http::{Fault as HttpFault, Reply};
use crate::shard::Fault;
use serde_json::json;
use std::borrow::Cow;

/// Whether a refused request may have been carried out after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done.
    None,
    /// Nobody knows.
    Unknown,
}

/// What a caller is told instead of an answer.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable name, for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: Cow<'static, str>,
    /// Whether something may have been done.
    pub effect: Effect,
    /// After how long another try may help.
    pub retry_after_ms: Option<u64>,
    /// A header that goes with the code, and a member of the body.
    pub extra: Option<(Extra, u64)>,
    /// Further members of the body.
    pub members: Vec<(&'static str, serde_json::Value)>,
    /// Methods that are allowed here.
    pub allow: Option<&'static str>,
    /// The connection ends after this answer.
    pub close: bool,
}

/// A number that goes with some codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// First offset that is still there.
    Earliest,
    /// Next offset to be written.
    Tail,
    /// The sequence number that should have come.
    ExpectedSeq,
    /// The producer's newest epoch.
    Epoch,
}

impl Extra {
    fn header(self) -> &'static str {
        match self {
            Self::Earliest => "Eddyline-Earliest",
            Self::Tail => "Eddyline-Tail",
            Self::ExpectedSeq => "Producer-Expected-Seq",
            Self::Epoch => "Producer-Epoch",
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Tail => "tail",
            Self::ExpectedSeq => "expected_seq",
            Self::Epoch => "epoch",
        }
    }
}

impl Problem {
    /// A problem that is the request's own.
    #[must_use]
    pub fn new(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            effect: Effect::None,
            retry_after_ms: None,
            extra: None,
            members: Vec::new(),
            allow: None,
            close: false,
        }
    }

    /// A problem that may be gone soon.
    #[must_use]
    pub fn passing(status: u16, code: &'static str, retry_after_ms: u64, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(status, code, detail) }
    }

    /// The same, with the connection ended after it.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    fn with(self, extra: Extra, value: u64) -> Self {
        Self { extra: Some((extra, value)), ..self }
    }

    /// A parameter or header whose value makes no sense.
    #[must_use]
    pub fn bad_parameter(name: &str, expected: &str) -> Self {
        Self::new(400, "bad_parameter", format!("`{name}` must be {expected}"))
    }

    /// A name that no group can have.
    #[must_use]
    pub fn bad_group(bad: &BadName) -> Self {
        Self::new(400, "bad_group", bad.to_string())
    }

    /// A group that is not there.
    #[must_use]
    pub fn no_group(name: &str) -> Self {
        Self::new(404, "no_group", format!("there is no group `{name}`: PUT /v1/groups/{name} makes it"))
    }

    /// The broker is about to end.
    #[must_use]
    pub fn draining() -> Self {
        Self::passing(503, "draining", 1000, "the broker is shutting down").closing()
    }

    /// Appends the reply.
    pub fn write(&self, reply: Reply<'_>) {
        let retryable = self.retry_after_ms.is_some();
        let mut body = json!({
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "effect": match self.effect { Effect::None => "none", Effect::Unknown => "unknown" },
            "retryable": retryable,
        });
        let mut reply = reply;
        if let Some(milliseconds) = self.retry_after_ms {
            body["retry_after_ms"] = json!(milliseconds);
            reply = reply.number("Retry-After", milliseconds.div_ceil(1000));
        }
        if let Some((extra, value)) = self.extra {
            body[extra.member()] = json!(value);
            reply = reply.number(extra.header(), value);
        }
        for (name, value) in &self.members {
            body[*name] = value.clone();
        }
        if self.status == 401 {
            reply = reply.header("WWW-Authenticate", "Bearer");
        }
        if let Some(allow) = self.allow {
            reply = reply.header("Allow", allow);
        }
        reply.body("application/problem+json", body.to_string().as_bytes());
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Malformed request",
        401 => "Not authenticated",
        403 => "Not allowed",
        404 => "Not found",
        405 => "Method not allowed here",
        406 => "No such format",
        408 => "Too slow",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length required",
        412 => "Precondition failed",
        413 => "Too large",
        414 => "Target too long",
        415 => "Unsupported format",
        416 => "Behind the tail",
        417 => "Expectation failed",
        422 => "Not possible",
        429 => "Too many requests",
        431 => "Too many headers",
        500 => "Internal error",
        501 => "Not implemented",
        503 => "Not available",
        505 => "HTTP version not supported",
        507 => "Disk full",
        _ => "Error",
    }
}

impl From<HttpFault> for Problem {
    fn from(fault: HttpFault) -> Self {
        Self::new(fault.status, fault.code, fault.detail).closing()
    }
}

impl From<SplitFault> for Problem {
    fn from(fault: SplitFault) -> Self {
        let status = if fault.code.ends_with("_too_large") || fault.code == "too_many_events" { 413 } else { 400 };
        let detail = match &fault.place {
            Some(Place::Line(line)) => format!("line {line}: {}", fault.detail),
            Some(Place::Event(event)) => format!("event {event}: {}", fault.detail),
            None => fault.detail.into_owned(),
        };
        Self::new(status, fault.code, detail)
    }
}

impl From<BadConfig> for Problem {
    fn from(bad: BadConfig) -> Self {
        let code = match bad {
            BadConfig::Malformed(_) => "bad_config",
            BadConfig::NotAvailable(_) => "not_available",
            BadConfig::OutOfRange(_) => "config_out_of_range",
        };
        Self::new(400, code, bad.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Closed => Self::new(404, "no_group", detail),
            Refusal::UnexpectedOffset { tail } => Self::new(412, "unexpected_offset", detail).with(Extra::Tail, tail),
            Refusal::SequenceGap { expected } => {
                Self::new(409, "sequence_gap", detail).with(Extra::ExpectedSeq, expected)
            }
            Refusal::ProducerUnknown => Self::new(409, "producer_unknown", detail).with(Extra::ExpectedSeq, 0),
            Refusal::ProducerFenced { epoch } => Self::new(403, "producer_fenced", detail).with(Extra::Epoch, epoch),
            Refusal::Consumer(refusal) => refusal.into(),
        }
    }
}

impl From<ConsumerRefusal> for Problem {
    fn from(refusal: ConsumerRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ConsumerRefusal::NotThere => Self::new(404, "no_consumer", detail),
            ConsumerRefusal::NotApproved(life) => {
                let code = match life {
                    Life::Suspended => "consumer_suspended",
                    Life::Revoked => "consumer_revoked",
                    Life::Pending | Life::Approved => "consumer_pending",
                };
                Self::new(403, code, detail)
            }
            ConsumerRefusal::Expired => Self::new(403, "consumer_expired", detail),
            ConsumerRefusal::WrongLife(_) => Self::new(409, "wrong_state", detail),
            ConsumerRefusal::HasPosition => Self::new(409, "has_position", detail),
            ConsumerRefusal::SessionActive { retry_after_ms } => {
                Self::passing(409, "session_active", retry_after_ms, detail)
            }
            ConsumerRefusal::Fenced { epoch } => Self::new(409, "fenced", detail).member("epoch", epoch),
            ConsumerRefusal::Rewound { session, next } => Self::passing(409, "rewound", 0, detail)
                .member("session", session.to_string())
                .member("epoch", session.epoch)
                .member("next", next),
            ConsumerRefusal::BeyondDelivered { delivered } => {
                Self::new(409, "beyond_delivered", detail).member("delivered_offset", delivered.checked_sub(1))
            }
            ConsumerRefusal::NotNext { next } => Self::new(409, "not_next", detail).member("next", next),
            ConsumerRefusal::NeedsSkip { next } => Self::new(409, "needs_skip", detail).member("next", next),
            ConsumerRefusal::NothingToReplay { next } => {
                Self::new(409, "nothing_to_replay", detail).member("next", next)
            }
            ConsumerRefusal::TooManyReplays => Self::new(429, "too_many_replays", detail),
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let detail = fault.to_string();
        match fault {
            Fault::NoGroup => Self::new(404, "no_group", detail),
            Fault::Refused { refusal, .. } => refusal.into(),
            Fault::TooLarge { .. } => Self::new(413, "batch_too_large", detail),
            Fault::Unknown => Self { effect: Effect::Unknown, ..Self::passing(500, "unknown", 1000, detail) },
            Fault::Stopped(_) => Self::passing(503, "stopped", 5000, detail),
            Fault::Damaged(_) => Self::new(503, "damaged", detail),
            Fault::TooMany => {
                Self::new(429, "too_many_consumers", "there are as many consumers as limits.consumers allows")
            }
            Fault::Overloaded => Self::passing(503, "overloaded", 500, detail),
            Fault::DiskFull => Self::passing(507, "disk_full", 5000, detail),
            Fault::Gone { earliest } => Self::new(410, "gone", detail).with(Extra::Earliest, earliest),
            Fault::Lost { from, to } => {
                Self { members: vec![("gap", json!(Gap { from, to }))], ..Self::new(410, "lost", detail) }
            }
            Fault::BehindTail { tail } => Self::new(416, "behind_tail", detail).with(Extra::Tail, tail),
            Fault::Corrupt { .. } => Self::new(500, "corrupt", detail),
        }
    }
}
