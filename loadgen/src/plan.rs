//! What a run sends: everything the command line decided, and the pure functions that say what request `r` of
//! connection `c` holds. Rendering is left to `request`, the moment of sending to `exchange`.
//!
//! Connections take turns: request `r` of connection `c` is the run's request number `r × connections + c`. So a run of
//! exactly `n` events needs no counter that threads share, and one connection sends a file's lines in their order.

use std::time::Duration;

use crate::keys::Keys;
use crate::payload::{EventKey, Payload};
use crate::schedule::{Arrivals, Stage};
use crate::slo::Objective;
use crate::target::Target;

/// One request of the run: which connection sends it and as its how-manieth, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// The connection, from 0.
    pub connection: u32,
    /// The connection's request number, from 0.
    pub request: u32,
}

/// How the events of one request are laid out in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body is one event, posted to `…/events`.
    Single,
    /// A JSON array, posted to `…/batch` like all that follow.
    Json,
    /// One JSON value a line.
    Ndjson,
    /// One UTF-8 line an event.
    Text,
    /// Length-prefixed frames.
    Binary,
}

impl Framing {
    /// The word on the command line and in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Framing::Single => "single",
            Framing::Json => "json",
            Framing::Ndjson => "ndjson",
            Framing::Text => "text",
            Framing::Binary => "binary",
        }
    }
}

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// After exactly this many events, however long it takes.
    Events(u64),
    /// After this long, counted from when all connections are made.
    Time(Duration),
}

/// Producer identity for deduplicated posts; connection `c` calls itself `name-c`.
#[derive(Clone, Debug)]
pub struct Producer {
    /// The part of the name that all connections share.
    pub name: String,
    /// A newer epoch starts every producer again at sequence 0.
    pub epoch: u64,
}

/// The open loop: requests are sent at planned moments, whatever the broker does.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenLoop {
    /// How many a second, stage by stage; at least one.
    pub stages: Vec<Stage>,
    /// How they follow each other.
    pub arrivals: Arrivals,
}

/// A run, decided.
#[derive(Debug)]
pub struct Plan {
    /// The broker.
    pub target: Target,
    /// Bearer token, if any.
    pub token: Option<String>,
    /// Groups, taken in turn by each connection.
    pub groups: Vec<String>,
    /// Whether the groups are created first.
    pub create: bool,
    /// Number of connections, at least 1.
    pub connections: u32,
    /// Number of threads, at most one a connection.
    pub threads: u32,
    /// Requests in flight on one connection at most.
    pub pipeline: usize,
    /// Events in a request (the last one of an exact run may hold fewer).
    pub batch: u32,
    /// Layout of a body.
    pub framing: Framing,
    /// Where events come from.
    pub payload: Payload,
    /// Keys of the events, if they have any: each its own in single posts and frames, one a batch in lines and arrays.
    pub keys: Option<Keys>,
    /// Requests as a page of this origin makes them: nothing in the head that would need a preflight, what is needed in
    /// the query.
    pub browser: Option<String>,
    /// Seed of the generated payload.
    pub seed: u64,
    /// How sizes are described in the summary.
    pub size_text: String,
    /// The plan of when to send; without one, the loop is closed: whenever there is room.
    pub open_loop: Option<OpenLoop>,
    /// When the run ends.
    pub extent: Extent,
    /// Time at the start that is not measured (but verified).
    pub warmup: Duration,
    /// Longest wait for one answer; three times as long without any answer ends the run.
    pub timeout: Duration,
    /// Identity for deduplication, if asked for.
    pub producer: Option<Producer>,
    /// Whether answers should carry a body.
    pub full_answers: bool,
    /// What has to be met.
    pub objectives: Vec<Objective>,
    /// Whether everything is read back.
    pub verify: bool,
    /// Whether progress is drawn on the whole terminal.
    pub tui: bool,
    /// Whether the broker's metrics are looked at.
    pub watch: bool,
}

impl Plan {
    /// How many requests a connection sends in an exact run; `None` when time decides.
    pub fn requests_of(&self, connection: u32) -> Option<u64> {
        let Extent::Events(events) = self.extent else {
            return None;
        };
        let requests = events.div_ceil(self.batch.into());
        let connections = u64::from(self.connections);
        Some(requests / connections + u64::from(u64::from(connection) < requests % connections))
    }

    /// Which of `groups` a request goes to: every connection walks through all of them, from starts
    /// that are spread evenly.
    pub fn group_of(&self, key: RequestKey) -> usize {
        match self.groups.len() {
            1 => 0,
            groups => {
                let start = u64::from(key.connection) * groups as u64 / u64::from(self.connections.max(1));
                ((u64::from(key.request) + start) % groups as u64) as usize
            }
        }
    }

    /// How many events a request holds.
    pub fn count_of(&self, key: RequestKey) -> u32 {
        match self.extent {
            Extent::Time(_) => self.batch,
            Extent::Events(events) => (events - self.first_index(key)).min(self.batch.into()) as u32,
        }
    }

    /// One event of a request, `within` counted from 0.
    pub fn event(&self, key: RequestKey, within: u32) -> EventKey {
        EventKey {
            connection: key.connection,
            sequence: u64::from(key.request) * u64::from(self.batch) + u64::from(within),
            index: self.first_index(key) + u64::from(within),
        }
    }

    /// The event whose key one of a request has: in lines and arrays, the first of its batch.
    pub fn keyed_by(&self, key: RequestKey, within: u32) -> EventKey {
        match self.framing {
            Framing::Single | Framing::Binary => self.event(key, within),
            Framing::Json | Framing::Ndjson | Framing::Text => self.event(key, 0),
        }
    }

    /// Whether a key is the one that an event of a request was sent with. What is sent without is not looked at.
    pub fn has_key(&self, shown: Option<&str>, key: RequestKey, within: u32) -> bool {
        let Some(keys) = &self.keys else { return true };
        let digits = shown.and_then(|shown| shown.strip_prefix('k'));
        digits.and_then(|digits| digits.parse().ok()) == Some(keys.rank(self.keyed_by(key, within)))
    }

    /// All events of a request in their order.
    pub fn events(&self, key: RequestKey) -> impl Iterator<Item = EventKey> + '_ {
        (0..self.count_of(key)).map(move |within| self.event(key, within))
    }

    /// The request's number among those of its connection to the same group: what `Producer-Seq` counts, because the
    /// broker keeps a producer's last number per group.
    pub fn producer_sequence(&self, key: RequestKey) -> u64 {
        u64::from(key.request) / self.groups.len() as u64
    }

    /// Events a second at the start of an open loop.
    pub fn planned_rate(&self, open: &OpenLoop) -> f64 {
        open.stages.first().map_or(0.0, |stage| stage.requests_per_second * f64::from(self.batch))
    }

    /// When the stages of an open loop end, but for the last, counted from the start.
    pub fn stage_ends(&self) -> impl Iterator<Item = Duration> + '_ {
        let stages = self.open_loop.as_ref().map_or(&[][..], |open| &open.stages);
        let lengths = stages.split_last().map_or(&[][..], |(_, before)| before).iter().map(|stage| stage.length);
        lengths.scan(Duration::ZERO, |end, length| {
            *end += length;
            Some(*end)
        })
    }

    /// The whole run's length when time decides it.
    pub fn time(&self) -> Option<Duration> {
        match self.extent {
            Extent::Time(time) => Some(time),
            Extent::Events(_) => None,
        }
    }

    fn first_index(&self, key: RequestKey) -> u64 {
        (u64::from(key.request) * u64::from(self.connections) + u64::from(key.connection)) * u64::from(self.batch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::payload::Generated;
    use crate::units::Sizes;

    /// A small plan that tests change where they need to.
    pub(crate) fn plan() -> Plan {
        Plan {
            target: "http://127.0.0.1:4437".parse().unwrap(),
            token: None,
            groups: vec!["load".into()],
            create: true,
            connections: 1,
            threads: 1,
            pipeline: 1,
            batch: 1,
            framing: Framing::Single,
            payload: Payload::Generated(Generated::new(1, Sizes { least: 64, most: 64 }, None)),
            keys: None,
            browser: None,
            seed: 1,
            size_text: "64 B".into(),
            open_loop: None,
            extent: Extent::Events(10),
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(10),
            producer: None,
            full_answers: false,
            objectives: Vec::new(),
            verify: true,
            tui: false,
            watch: false,
        }
    }

    #[test]
    fn an_exact_run_holds_every_event_once_however_it_is_split() {
        for (events, batch, connections) in
            [(1, 1, 1), (10, 1, 3), (10, 4, 3), (1000, 7, 64), (5, 100, 64), (128, 2, 64)]
        {
            let plan = Plan { extent: Extent::Events(events), batch, connections, ..plan() };
            let mut seen = HashSet::new();
            for connection in 0..connections {
                for request in 0..plan.requests_of(connection).unwrap() as u32 {
                    for event in plan.events(RequestKey { connection, request }) {
                        assert!(seen.insert(event.index), "event {} is there twice", event.index);
                    }
                }
            }
            assert_eq!(seen.len() as u64, events);
            assert_eq!(seen.into_iter().max(), Some(events - 1));
        }
    }

    #[test]
    fn a_producers_numbers_have_no_gap_in_any_group() {
        let plan = Plan { groups: (0..3).map(|n| format!("load-{n}")).collect(), connections: 2, ..plan() };
        for connection in 0..2 {
            let mut next = [0; 3];
            for request in 0..30 {
                let key = RequestKey { connection, request };
                let group = plan.group_of(key);
                assert_eq!(plan.producer_sequence(key), next[group]);
                next[group] += 1;
            }
            assert_eq!(next, [10; 3]);
        }
    }
}
