//! A log of ten events, hurt in every way that has a name, and what must be said about it.

use super::*;
use crate::acks::Ack;
use crate::keys::{Keys, Spread};
use crate::payload::{Lines, Payload};
use crate::plan::{Extent, Framing, RequestKey, tests::plan};

/// What a test believes; what is acknowledged can be changed here, unlike in `super::Beliefs`.
#[derive(Clone, Default)]
struct Beliefs {
    bases: Vec<u64>,
    acks: Vec<Ack>,
    unplaced: Vec<RequestKey>,
    unknown: Vec<RequestKey>,
    refused: Vec<RequestKey>,
}

impl Beliefs {
    /// The acknowledgements as one worker's, and the rest.
    fn told(&self, plan: &Plan) -> (Acks, super::Beliefs) {
        let mut acks = Acks::default();
        self.acks.iter().for_each(|ack| acks.push(*ack, plan.count_of(ack.key)));
        let [unplaced, unknown, refused] =
            [&self.unplaced, &self.unknown, &self.refused].map(|keys| keys.iter().copied().collect());
        (acks, super::Beliefs { bases: self.bases.clone(), acks: Vec::new(), unplaced, unknown, refused })
    }
}

/// An event in the log that is looked at.
#[derive(Clone, Debug)]
struct Stored {
    offset: u64,
    data: String,
    id: String,
    received: String,
    key: Option<String>,
}

/// Five requests of two events each, alternating between two connections, acknowledged from offset 100 on.
fn small() -> Plan {
    Plan { connections: 2, batch: 2, extent: Extent::Events(10), ..plan() }
}

const KEYS: [(u32, u32); 5] = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)];

fn keys() -> impl Iterator<Item = RequestKey> {
    KEYS.into_iter().map(|(connection, request)| RequestKey { connection, request })
}

fn beliefs() -> Beliefs {
    let acks = keys().zip(0..).map(|(key, n)| Ack { first_offset: 100 + 2 * n, key }).collect();
    Beliefs { bases: vec![100], acks, ..Beliefs::default() }
}

fn stored(offset: u64, data: String) -> Stored {
    Stored {
        offset,
        data,
        id: format!("id-{offset:05}"),
        received: format!("2026-01-01T00:00:{offset:05}Z"),
        key: None,
    }
}

fn log(plan: &Plan) -> Vec<Stored> {
    let mut log = Vec::new();
    for key in keys() {
        for event in plan.events(key) {
            let mut data = Vec::new();
            plan.payload.append(event, &mut data);
            log.push(stored(100 + log.len() as u64, String::from_utf8(data).unwrap()));
        }
    }
    log
}

/// Gives every event the offset (id, time) of its place, as a broker that shifted its log would.
fn renumber(log: &mut [Stored]) {
    for (event, offset) in log.iter_mut().zip(100..) {
        *event = stored(offset, event.data.clone());
    }
}

fn findings(plan: &Plan, beliefs: &Beliefs, log: &[Stored]) -> Findings {
    let (acks, beliefs) = beliefs.told(plan);
    let placed = acks.events();
    let mut claims = Claims::new(plan, vec![acks]).unwrap();
    let mut ledger = Ledger::default();
    let mut walk = Walk::new(plan, 0, &mut claims, beliefs.bases[0], &mut ledger);
    for Stored { offset, data, id, received, key } in log {
        let text = serde_json::to_string(&serde_json::json!({
            "offset": offset, "id": id, "received": received, "key": key, "length": data.len(), "encoding": "text", "data": data
        }));
        let text = text.unwrap();
        let line = Line::parse(text.as_bytes()).unwrap();
        walk.see(&line, line.bytes(text.as_bytes(), &mut Vec::new()));
    }
    walk.end();
    claims.whole().unwrap();
    ledger.settle(plan, &beliefs, placed)
}

/// lost, duplicated, out of order, corrupted, holes
fn faults(found: &Findings) -> [u64; 5] {
    [found.lost, found.duplicated, found.out_of_order, found.corrupted, found.holes]
}

type Hurt = fn(&mut Vec<Stored>);

/// lost, duplicated, out of order, corrupted, holes
const HURTS: [(&str, Hurt, [u64; 5]); 14] = [
    ("unharmed", |_| {}, [0, 0, 0, 0, 0]),
    ("somebody else's event at the end", |log| log.push(stored(110, "else".into())), [0, 0, 0, 0, 0]),
    ("one removed, its offset left empty", |log| log.retain(|event| event.offset != 104), [1, 0, 0, 0, 0]),
    ("the last one removed", |log| log.truncate(9), [1, 0, 0, 0, 0]),
    ("all removed", Vec::clear, [10, 0, 0, 0, 0]),
    (
        "one removed and the rest moved up",
        |log| {
            log.remove(4);
            renumber(log);
        },
        [1, 0, 5, 0, 0],
    ),
    ("one there again at the end", |log| log.push(stored(110, log[3].data.clone())), [0, 1, 0, 0, 0]),
    ("one there again in place of another", |log| log[4].data = log[3].data.clone(), [1, 1, 0, 0, 0]),
    (
        "two swapped",
        |log| {
            log.swap(3, 4);
            renumber(log);
        },
        [0, 0, 2, 0, 0],
    ),
    ("a byte changed", |log| log[7].data.replace_range(30..31, "?"), [0, 0, 0, 1, 0]),
    ("cut short", |log| log[7].data.truncate(63), [0, 0, 0, 1, 0]),
    ("an id that does not rise", |log| log[5].id = log[4].id.clone(), [0, 0, 1, 0, 0]),
    ("a time that falls", |log| log[5].received = log[3].received.clone(), [0, 0, 1, 0, 0]),
    ("an empty offset nobody claimed", |log| log.push(stored(112, "else".into())), [0, 0, 0, 0, 2]),
];

#[test]
fn every_way_to_hurt_a_log_has_its_name() {
    let plan = small();
    for (name, hurt, expected) in HURTS {
        let mut log = log(&plan);
        hurt(&mut log);
        let found = findings(&plan, &beliefs(), &log);
        assert_eq!(faults(&found), expected, "{name}: {found:?}");
        assert_eq!(found.is_right(), expected == [0; 5], "{name}");
        assert_eq!(found.examples.is_empty(), expected[..4] == [0; 4], "{name}: {:?}", found.examples);
        assert_eq!(found.acked, 10);
        let explained = found.verified + found.lost + found.corrupted;
        assert!((10 - found.out_of_order.min(10)..=10).contains(&explained), "{name}: {found:?}");
    }
}

#[test]
fn a_listing_out_of_order_is_noticed() {
    let plan = small();
    let mut log = log(&plan);
    log.swap(3, 4);
    let found = findings(&plan, &beliefs(), &log);
    assert!(found.out_of_order > 0 && found.lost == 0, "{found:?}");
}

#[test]
fn wrong_answers_are_noticed() {
    let plan = small();
    for (name, change) in [
        ("two requests at one offset", (|acks: &mut [Ack]| acks[3].first_offset -= 2) as fn(&mut [Ack])),
        ("an offset too high", |acks| acks[4].first_offset += 1),
        ("an offset below the group's base", |acks| {
            acks[0].first_offset = 3;
        }),
        ("a connection's answers against the order of its requests", |acks| acks.swap(0, 2)),
    ] {
        let mut beliefs = beliefs();
        change(&mut beliefs.acks);
        let found = findings(&plan, &beliefs, &log(&plan));
        assert!(!found.is_right() && found.out_of_order > 0, "{name}: {found:?}");
    }
}

#[test]
fn unknown_outcomes_may_be_there_once_and_whole() {
    let plan = small();
    let told = |change: fn(&mut Vec<Stored>)| {
        let mut beliefs = beliefs();
        beliefs.unknown.push(beliefs.acks.pop().unwrap().key);
        let mut log = log(&plan);
        change(&mut log);
        findings(&plan, &beliefs, &log)
    };
    let found = told(|_| {});
    assert_eq!((found.acked, found.unknown, found.unknown_stored, found.is_right()), (8, 2, 2, true));
    let found = told(|log| log.truncate(8));
    assert_eq!((found.unknown, found.unknown_stored, found.is_right()), (2, 0, true));
    let found = told(|log| log.truncate(9));
    assert_eq!((found.unknown_stored, found.torn, found.is_right()), (1, 1, false), "half a batch");
    let found = told(|log| log.push(stored(110, log[9].data.clone())));
    assert_eq!((found.duplicated, found.is_right()), (1, false));
}

#[test]
fn what_was_acknowledged_without_a_place_must_be_somewhere_and_what_was_refused_nowhere() {
    let plan = small();
    let mut unplaced = beliefs();
    unplaced.unplaced.push(unplaced.acks.pop().unwrap().key);
    let found = findings(&plan, &unplaced, &log(&plan));
    assert_eq!((found.acked, found.verified, found.is_right()), (10, 10, true));
    let found = findings(&plan, &unplaced, &log(&plan)[..8]);
    assert_eq!((found.lost, found.is_right()), (2, false));

    let mut refused = beliefs();
    refused.refused.push(refused.acks.pop().unwrap().key);
    let found = findings(&plan, &refused, &log(&plan));
    assert_eq!((found.refused_stored, found.is_right()), (2, false));
    assert!(findings(&plan, &refused, &log(&plan)[..8]).is_right());
}

#[test]
fn equal_lines_of_a_file_are_told_apart_by_their_place() {
    let lines = Payload::Lines(Lines::new(b"a\nb\na\nb\na\na\nb\nb\nc\nc".to_vec(), false).unwrap());
    let plan = Plan { payload: lines, ..small() };
    let found = findings(&plan, &beliefs(), &log(&plan));
    assert!(found.is_right(), "{found:?}");
    let mut hurt = log(&plan);
    hurt.swap(0, 1);
    renumber(&mut hurt);
    assert_eq!(findings(&plan, &beliefs(), &hurt).out_of_order, 2);
    let mut hurt = log(&plan);
    hurt[2].data = "b".into();
    let found = findings(&plan, &beliefs(), &hurt);
    assert_eq!((found.lost, found.duplicated), (1, 1));
    hurt[2].data = "z".into();
    assert_eq!(findings(&plan, &beliefs(), &hurt).corrupted, 1);
}

#[test]
fn a_key_that_is_wrong_or_missing_is_corruption() {
    let plan = Plan { keys: Some(Keys::new(1, 1_000, Spread::Uniform)), framing: Framing::Binary, ..small() };
    let mut sound = log(&plan);
    let events = keys().flat_map(|key| plan.events(key));
    for (event, stored) in events.zip(&mut sound) {
        stored.key = Some(format!("k{}", plan.keys.as_ref().unwrap().rank(event)));
    }
    assert!(findings(&plan, &beliefs(), &sound).is_right());
    for wrong in [None, Some("k1000".to_owned()), Some("1".to_owned())] {
        let mut hurt = sound.clone();
        hurt[3].key = wrong;
        assert_eq!(faults(&findings(&plan, &beliefs(), &hurt)), [0, 0, 0, 1, 0]);
    }
    // One key a batch, that of its first event, where the layout has no room for more.
    let plan = Plan { framing: Framing::Ndjson, ..plan };
    for pair in sound.chunks_mut(2) {
        pair[1].key.clone_from(&pair[0].key.clone());
    }
    assert!(findings(&plan, &beliefs(), &sound).is_right());
}

#[test]
fn groups_are_checked_each_by_itself() {
    let plan = Plan { groups: vec!["a".into(), "b".into()], connections: 1, batch: 1, ..small() };
    let key = |request| RequestKey { connection: 0, request };
    let acks = (0..10).map(|n| Ack { first_offset: u64::from(n / 2), key: key(n) }).collect::<Vec<_>>();
    let (acks, beliefs) = Beliefs { bases: vec![0, 0], acks, ..Beliefs::default() }.told(&plan);
    let mut claims = Claims::new(&plan, vec![acks]).unwrap();
    let mut ledger = Ledger::default();
    for group in 0..2 {
        Walk::new(&plan, group, &mut claims, 0, &mut ledger).end();
    }
    assert_eq!(ledger.settle(&plan, &beliefs, 10).lost, 10, "each group has its five");
}

#[test]
fn a_batch_of_a_file_is_not_called_torn_because_another_holds_the_same_lines() {
    let lines = Payload::Lines(Lines::new(b"x\ny\ny\nz".to_vec(), false).unwrap());
    let plan = Plan { payload: lines, extent: Extent::Events(4), ..small() };
    let beliefs = Beliefs { bases: vec![100], unknown: keys().take(2).collect(), ..Beliefs::default() };
    let only_the_second = [stored(100, "y".into()), stored(101, "z".into())];
    let found = findings(&plan, &beliefs, &only_the_second);
    assert_eq!((found.unknown_stored, found.torn, found.is_right()), (2, 0, true));
}
