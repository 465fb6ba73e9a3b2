//! What clients of a consumer did and were told, in the order in which it happened, and a checker that walks it once.
//!
//! Nobody but the broker knows when a request took effect: some time between its beginning and its answer. So the checker
//! keeps the least and the most that the position may be, and every position that a client was shown must lie between.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::Mutex;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Everything up to and including this offset is processed.
    Ack(u64),
    /// The position is to be there.
    Rewind(u64),
    /// Anything that shows the position.
    Look,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was done.
    Done,
    /// The position, as it was meanwhile.
    Position(u64),
    /// It was not done.
    Refused,
    /// Nothing, or nothing that says whether it was done.
    Unknown,
}

/// One line of the history. Requests are told apart by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Begins(usize, Ask),
    Ends(usize, Told),
    /// Events from the first offset up to before the second reached a client.
    Given(u64, u64),
}

/// A history that several clients write.
#[derive(Default)]
pub(crate) struct History(Mutex<(usize, Vec<Line>)>);

impl History {
    pub(crate) fn begins(&self, ask: Ask) -> usize {
        let (requests, lines) = &mut *self.0.lock().expect("no panic");
        *requests += 1;
        lines.push(Line::Begins(*requests, ask));
        *requests
    }

    pub(crate) fn ends(&self, request: usize, told: Told) {
        self.0.lock().expect("no panic").1.push(Line::Ends(request, told));
    }

    /// Notes the events of an answer, which must follow one another; gives the first and the last offset.
    pub(crate) fn given(&self, events: &[Value]) -> Option<(u64, u64)> {
        let offset = |event: &Value| event["offset"].as_u64().expect("an offset");
        let (first, last) = (offset(events.first()?), offset(events.last()?));
        for (place, event) in events.iter().enumerate() {
            assert_eq!(offset(event), first + place as u64, "events follow one another");
            assert_eq!(event["data"], offset(event), "an event is what was produced as that");
        }
        self.reached(first, last);
        Some((first, last))
    }

    /// Notes that the events `first..=last` reached a client.
    pub(crate) fn reached(&self, first: u64, last: u64) {
        self.0.lock().expect("no panic").1.push(Line::Given(first, last + 1));
    }

    pub(crate) fn lines(self) -> Vec<Line> {
        self.0.into_inner().expect("no panic").1
    }
}

/// A request under way.
struct Open {
    ask: Ask,
    /// Whether it may have been done.
    effective: bool,
    /// The least and the most that the position was while it was under way.
    least: u64,
    most: u64,
    /// The most that may have been acked by requests that were under way at the same time.
    acks: u64,
    /// The least that rewinds under way at the same time go to.
    rewinds: u64,
}

/// What is known of a consumer that began at 0.
#[derive(Default)]
struct Known {
    least: u64,
    most: u64,
    given: Vec<bool>,
    /// Everything below reached a client, or was skipped.
    whole: u64,
    open: HashMap<usize, Open>,
}

impl Known {
    fn give(&mut self, from: u64, until: u64) {
        if self.given.len() < until as usize {
            self.given.resize(until as usize, false);
        }
        if let Some(range) = self.given.get_mut(from as usize..until as usize) {
            range.fill(true);
        }
        while self.given.get(self.whole as usize) == Some(&true) {
            self.whole += 1;
        }
    }

    fn begin(&mut self, request: usize, ask: Ask, effective: bool) -> Result<(), String> {
        let mut now = Open { ask, effective, least: self.least, most: self.most, acks: 0, rewinds: u64::MAX };
        for other in self.open.values() {
            match other.ask {
                Ask::Ack(offset) if other.effective => now.acks = now.acks.max(offset + 1),
                Ask::Rewind(to) if other.effective => now.rewinds = now.rewinds.min(to),
                _ => {}
            }
        }
        match ask {
            Ask::Ack(offset) if effective => {
                if offset >= self.whole {
                    return Err(format!("{offset} may be acked, and {} reached nobody before", self.whole));
                }
                self.most = self.most.max(offset + 1);
                for other in self.open.values_mut() {
                    other.most = other.most.max(offset + 1);
                    other.acks = other.acks.max(offset + 1);
                }
            }
            Ask::Rewind(to) if effective => {
                // What lies between is left out, and that was said.
                self.give(self.least.min(to), to);
                (self.least, self.most) = (self.least.min(to), self.most.max(to));
                for other in self.open.values_mut() {
                    (other.least, other.most) = (other.least.min(to), other.most.max(to));
                    other.rewinds = other.rewinds.min(to);
                }
            }
            _ => {}
        }
        self.open.insert(request, now);
        Ok(())
    }

    fn end(&mut self, request: usize, told: Told) -> Result<(), String> {
        let done = self.open.remove(&request).expect("it began");
        match (done.ask, told) {
            (Ask::Ack(offset), Told::Done) => self.least = self.least.max((offset + 1).min(done.rewinds)),
            (Ask::Rewind(to), Told::Done) if done.rewinds == u64::MAX => {
                // It was there at one moment, and since then acks alone can have moved it.
                (self.least, self.most) = (to, to.max(done.acks));
            }
            (_, Told::Position(position)) => {
                if !(done.least..=done.most).contains(&position) {
                    return Err(format!("the position is {position}, and must be {} to {}", done.least, done.most));
                }
                self.least = self.least.max(position.min(done.rewinds));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Checks a consumer's history; says the first thing that is wrong, and where.
pub(crate) fn check(lines: &[Line]) -> Result<(), String> {
    let ends = lines.iter().filter_map(|line| match line {
        Line::Ends(request, told) => Some((*request, *told)),
        _ => None,
    });
    let ends: HashMap<usize, Told> = ends.collect();
    let mut known = Known::default();
    for (place, line) in lines.iter().enumerate() {
        let fine = match *line {
            Line::Given(from, until) => {
                known.give(from, until);
                Ok(())
            }
            Line::Begins(request, ask) => known.begin(request, ask, ends.get(&request) != Some(&Told::Refused)),
            Line::Ends(request, told) => known.end(request, told),
        };
        fine.map_err(|wrong| {
            let before = &lines[place.saturating_sub(40)..=place];
            format!("{wrong}: {before:?}")
        })?;
    }
    Ok(())
}

/// The checker is worth as much as what it finds.
#[test]
fn the_checker_sees_what_a_position_must_not_do() {
    use Ask::{Ack, Look, Rewind};
    use Line::{Begins, Ends, Given};
    use Told::{Done, Position, Refused, Unknown};
    let at = |request, position| [Begins(request, Look), Ends(request, Position(position))];
    let acked = |request, offset, told| [Begins(request, Ack(offset)), Ends(request, told)];
    let given = [Given(0, 5), Given(5, 10)];
    let table: Vec<(&str, Vec<Line>, bool)> = vec![
        ("acked, and there", [&given[..], &acked(1, 7, Done), &at(2, 8)].concat(), true),
        ("an answered ack is lost", [&given[..], &acked(1, 7, Done), &at(2, 0)].concat(), false),
        ("an ack without an answer is there", [&given[..], &acked(1, 7, Unknown), &at(2, 8)].concat(), true),
        ("or not", [&given[..], &acked(1, 7, Unknown), &at(2, 0)].concat(), true),
        ("or there and then gone", [&given[..], &acked(1, 7, Unknown), &at(2, 8), &at(3, 0)].concat(), false),
        ("a refused ack moved it", [&given[..], &acked(1, 7, Refused), &at(2, 8)].concat(), false),
        ("an event reached nobody", [&[Given(0, 5), Given(6, 10)][..], &acked(1, 7, Done)].concat(), false),
        ("it was given later", [&acked(1, 7, Done)[..], &given].concat(), false),
        ("it moved by itself", [&given[..], &at(1, 1)].concat(), false),
        ("rewound", [&given[..], &acked(1, 7, Done), &[Begins(2, Rewind(3)), Ends(2, Done)], &at(3, 3)].concat(), true),
        (
            "a rewind is lost",
            [&given[..], &acked(1, 7, Done), &[Begins(2, Rewind(3)), Ends(2, Done)], &at(3, 8)].concat(),
            false,
        ),
        (
            "an ack of before a rewind counted",
            [&given[..], &acked(1, 7, Done), &[Begins(2, Rewind(3)), Ends(2, Done)], &acked(3, 6, Refused), &at(4, 7)]
                .concat(),
            false,
        ),
        (
            "one under way at the same time may",
            [
                &given[..],
                &acked(1, 7, Done),
                &[Begins(2, Rewind(3)), Begins(3, Ack(6)), Ends(2, Done), Ends(3, Unknown)],
                &at(4, 7),
            ]
            .concat(),
            true,
        ),
        (
            "what a rewind skipped need not be given",
            [&[Begins(1, Rewind(4)), Ends(1, Done), Given(4, 6)][..], &acked(2, 5, Done), &at(3, 6)].concat(),
            true,
        ),
        ("shown, and then gone", [&given[..], &acked(1, 2, Unknown), &at(2, 3), &at(3, 0)].concat(), false),
    ];
    for (name, lines, sound) in table {
        assert_eq!(check(&lines).is_ok(), sound, "{name}: {:?}", check(&lines));
    }
}
