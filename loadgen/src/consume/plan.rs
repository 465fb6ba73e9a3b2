//! What a run of consumers does: everything the command line decided.

use std::time::Duration;

use crate::target::Target;

/// What the consumers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read, and ack with the next question.
    Read,
    /// Ack one event at a time, so many a second all together.
    Acks {
        /// Acks a second.
        per_second: u32,
    },
    /// Hold a live answer open at the tail.
    Idle,
}

/// A checked plan.
#[derive(Clone, Debug)]
pub struct ConsumePlan {
    /// The broker.
    pub target: Target,
    /// Bearer token.
    pub token: Option<String>,
    /// The group.
    pub group: String,
    /// What to do.
    pub kind: Kind,
    /// How many consumers.
    pub consumers: u32,
    /// Threads that share them.
    pub threads: u32,
    /// Where they begin.
    pub start: String,
    /// Events of one answer.
    pub events_max: u32,
    /// Bytes of one answer.
    pub bytes_max: u64,
    /// How long.
    pub duration: Duration,
    /// Whether a consumer ends at the tail.
    pub until_tail: bool,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

impl ConsumePlan {
    /// Time between two acks of one consumer.
    pub fn ack_every(&self) -> Duration {
        match self.kind {
            Kind::Acks { per_second } => Duration::from_secs(1) * self.consumers / per_second,
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two consumers of group `g`.
    pub(in crate::consume) fn plan(kind: Kind) -> ConsumePlan {
        ConsumePlan {
            target: "http://127.0.0.1:4437".parse().unwrap(),
            token: None,
            group: "g".into(),
            kind,
            consumers: 2,
            threads: 1,
            start: "earliest".into(),
            events_max: 10,
            bytes_max: 1000,
            duration: Duration::from_secs(1),
            until_tail: false,
            timeout: Duration::from_secs(1),
        }
    }
}
