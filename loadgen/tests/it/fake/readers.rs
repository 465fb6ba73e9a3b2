//! Consumers of a group: subscribe, read on from what was acked, ack, leave. Withholds, refuses or falls silent where told
//! to.

use std::time::Duration;

use serde_json::json;

use super::http::{Answer, Request};
use super::{Next, State};

/// What is wrong with what consumers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderFault {
    /// The event at this offset is left out, and nothing is said about it.
    Withhold(u64),
    /// The event at this offset is given twice.
    Repeat(u64),
    /// They may not read.
    Refuse,
    /// They shall try again later.
    Busy,
    /// They get no answer.
    Silence,
    /// What they get is not JSON.
    Garble,
}

/// How long a question for events is held where there are none.
const HELD: Duration = Duration::from_millis(20);

pub(super) fn subscribe(state: &mut State, group: &str, consumer: &str, body: &[u8]) -> Answer {
    let Some(log) = state.groups.get(group) else { return Answer::problem(404, "no_group", "none") };
    let subscription: serde_json::Value = serde_json::from_slice(body).unwrap();
    let start = match subscription["start"].as_str().unwrap() {
        "latest" => log.tail(),
        "earliest" => 0,
        number => number.parse().unwrap(),
    };
    state.consumers.insert(consumer.to_owned(), start);
    Answer::of(201, b"{}")
}

pub(super) fn leave(state: &mut State, consumer: &str) -> Answer {
    state.consumers.remove(consumer);
    Answer::of(204, b"")
}

pub(super) fn next(state: &mut State, group: &str, consumer: &str, request: &Request) -> Next {
    let fault = state.manners.readers;
    match fault {
        Some(ReaderFault::Refuse) => return Next::Answer(Answer::problem(403, "consumer_suspended", "none")),
        Some(ReaderFault::Busy) => return Next::Answer(Answer::busy()),
        Some(ReaderFault::Silence) => return Next::Never,
        Some(ReaderFault::Garble) => return Next::Answer(Answer::of(200, b"{")),
        _ => {}
    }
    let position = state.consumers.get_mut(consumer).expect("it is subscribed");
    if let Some(ack) = request.parameter("ack") {
        *position = ack.parse::<u64>().unwrap() + 1;
    }
    let log = &state.groups[group];
    let (lines, next) = log.page(*position, request.parameter("max").unwrap().parse().unwrap());
    let given = |line: &&str| match fault {
        Some(ReaderFault::Withhold(offset)) if line.starts_with(&format!("{{\"offset\":{offset},")) => 0,
        Some(ReaderFault::Repeat(offset)) if line.starts_with(&format!("{{\"offset\":{offset},")) => 2,
        _ => 1,
    };
    let text = String::from_utf8(lines).unwrap();
    let events: Vec<&str> = text.lines().flat_map(|line| std::iter::repeat_n(line, given(&line))).collect();
    let (tail, up_to_date) = (log.tail(), next == log.tail());
    let body =
        format!("{{\"events\":[{}],\"next\":{next},\"tail\":{tail},\"up_to_date\":{up_to_date}}}", events.join(","));
    let answer = Answer::of(200, body.as_bytes());
    if events.is_empty() { Next::AnswerAfter(HELD, answer) } else { Next::Answer(answer) }
}

pub(super) fn ack(state: &mut State, consumer: &str, body: &[u8]) -> Answer {
    let offset = serde_json::from_slice::<serde_json::Value>(body).unwrap()["offset"].as_u64().unwrap();
    let position = state.consumers.get_mut(consumer).expect("it is subscribed");
    let changed = offset + 1 > *position;
    *position = (*position).max(offset + 1);
    Answer::of(200, json!({ "acked_offset": *position - 1, "changed": changed }).to_string().as_bytes())
}
