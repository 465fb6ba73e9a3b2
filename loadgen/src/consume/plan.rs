//! What a run of consumers does: everything the command line decided.

use std::time::Duration;

use crate::sample::Clock;
use crate::slo::Objective;
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
    /// Ask what the last seconds were like, each of them so often.
    Query {
        /// Time between two queries of one.
        every: Duration,
    },
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
    /// Longest wait for an answer; three times as long without any ends the run.
    pub timeout: Duration,
    /// What has to be met.
    pub objectives: Vec<Objective>,
    /// Whether progress is drawn on the whole terminal.
    pub tui: bool,
    /// Whether the broker's metrics are looked at.
    pub watch: bool,
}

impl ConsumePlan {
    /// Whether they are subscribed and have a position.
    pub fn subscribes(&self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Acks { .. })
    }

    /// Time between two acks, or queries, of one consumer.
    pub fn every(&self) -> Duration {
        match self.kind {
            Kind::Acks { per_second } => Duration::from_secs(1) * self.consumers / per_second,
            Kind::Query { every } => every,
            Kind::Read | Kind::Idle => Duration::ZERO,
        }
    }

    /// The clock that objectives are about: how long what a consumer is there for takes.
    pub fn judged(&self) -> Clock {
        match self.kind {
            Kind::Acks { .. } => Clock::Ack,
            Kind::Query { .. } => Clock::Query,
            Kind::Read if self.until_tail => Clock::Answer,
            Kind::Read | Kind::Idle => Clock::Delivery,
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
            objectives: Vec::new(),
            tui: false,
            watch: false,
        }
    }
}
