//! A consumer's decisions, as stories and tables.

use super::*;
use crate::group::gaps::{Gap, Gaps};
use crate::log::wire::Fields;
use std::sync::LazyLock;

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(30);

/// A group that begins there and has lost nothing since.
fn from(earliest: u64) -> There<'static> {
    static NONE: LazyLock<Gaps> = LazyLock::new(Gaps::default);
    There { earliest, tail: 100, gaps: &NONE }
}

/// A consumer of a group of 100 events, and a clock.
struct Scene {
    consumer: Consumer,
    now: Now,
}

fn scene(terms: impl FnOnce(&mut Terms)) -> Scene {
    let now = Now { wall_us: 1_000_000, instant: Instant::now() };
    let mut granted = Terms::with_lease(LEASE);
    terms(&mut granted);
    let mut consumer = Consumer::new("earliest", granted, now.wall_us);
    consumer.approve(Some(0), granted, now).unwrap();
    Scene { consumer, now }
}

impl Scene {
    fn later(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.wall_us += by.as_micros() as u64;
    }

    fn session(&mut self) -> SessionName {
        self.consumer.open_session(7, false, true, self.now).unwrap();
        self.consumer.session_name().unwrap()
    }

    fn turn(&self, after: Option<u64>) -> Result<Turn, Refusal> {
        self.consumer.turn(&Wants { after, events: 10, bytes: 1000 }, from(0), self.now.instant)
    }

    /// Asks for events and is given them up to `next`, ten bytes each.
    fn deliver(&mut self, after: Option<u64>, next: u64) -> Grant {
        let Ok(Turn::Read(grant)) = self.turn(after) else { panic!("{:?}", self.turn(after)) };
        assert!(next <= grant.from + grant.events, "more than was granted");
        self.consumer.delivered(grant.session, grant.from, next, (next - grant.from) * 10, self.now).unwrap();
        grant
    }

    fn ack(&mut self, offset: u64) -> Result<Change, Refusal> {
        self.consumer.ack(offset, from(0), self.now)
    }

    /// What a crash and a start leave of it.
    fn restart(&mut self, tail: u64) {
        let mut stored = Vec::new();
        encode(3, "c", &self.consumer, &mut stored);
        let (_, _, mut again) = decode(&mut Fields::new(&stored)).unwrap();
        again.recovered(tail, self.now.instant);
        self.consumer = again;
    }
}

#[test]
fn acks_are_cumulative_never_go_back_and_never_beyond_what_was_delivered() {
    let mut scene = scene(|_| {});
    scene.session();
    scene.deliver(None, 5);
    for (offset, expected, head) in [
        (2, Ok(Change::Head(3)), 3),
        (2, Ok(Change::Nothing), 3),
        (0, Ok(Change::Nothing), 3),
        (5, Err(Refusal::BeyondDelivered { delivered: 5 }), 3),
        (u64::MAX - 1, Err(Refusal::BeyondDelivered { delivered: 5 }), 3),
        (4, Ok(Change::Head(5)), 5),
    ] {
        assert_eq!((scene.ack(offset), scene.consumer.head()), (expected, head), "ack {offset}");
    }
}

#[test]
fn what_was_not_acked_is_given_again_and_who_says_so_goes_on_behind_it() {
    let mut scene = scene(|_| {});
    scene.session();
    scene.deliver(None, 5);
    assert_eq!(scene.deliver(None, 5).from, 0, "the same question has the same answer");
    assert_eq!(scene.consumer.redelivered, 5);
    assert_eq!(scene.deliver(Some(4), 8).from, 5);
    scene.ack(5).unwrap();
    assert_eq!(scene.deliver(None, 8).from, 6);
    assert_eq!(scene.turn(Some(2)), scene.turn(None), "what is acked is not given again");
    assert_eq!(scene.turn(Some(8)), Err(Refusal::BeyondDelivered { delivered: 8 }));
}

#[test]
fn no_more_is_in_flight_than_was_granted() {
    let mut scene = scene(|terms| (terms.events_max, terms.bytes_max) = (6, 45));
    scene.session();
    assert_eq!(scene.deliver(None, 4).events, 6);
    let Turn::Read(grant) = scene.turn(Some(3)).unwrap() else { panic!() };
    assert_eq!((grant.from, grant.events, grant.bytes), (4, 2, 5), "40 of 45 bytes are in flight");
    scene.deliver(Some(3), 5);
    assert_eq!(scene.turn(Some(4)), Ok(Turn::Blocked(Blocked::InFlight)));
    assert_eq!(scene.consumer.blocked(from(0), scene.now.instant), Some(Blocked::InFlight));
    scene.ack(3).unwrap();
    assert_eq!(scene.consumer.blocked(from(0), scene.now.instant), None);
    assert_eq!(scene.deliver(Some(4), 8).from, 5);
}

#[test]
fn one_session_at_a_time_fenced_by_the_epoch() {
    let mut scene = scene(|_| {});
    let first = scene.session();
    scene.deliver(None, 5);
    let retry_after_ms = LEASE.as_millis() as u64;
    let refused = scene.consumer.open_session(8, false, false, scene.now);
    assert_eq!(refused, Err(Refusal::SessionActive { retry_after_ms }));
    assert_eq!(scene.consumer.call(None, scene.now), Err(Refusal::SessionActive { retry_after_ms }));
    scene.consumer.open_session(8, false, true, scene.now).unwrap();
    let epoch = scene.consumer.epoch;
    assert_eq!(scene.consumer.call(Some(first), scene.now), Err(Refusal::Fenced { epoch }));
    assert_eq!(scene.consumer.head(), 0, "what the first session did not ack comes again");
    assert_eq!(scene.ack(3), Err(Refusal::BeyondDelivered { delivered: 0 }), "and must be delivered again first");
    assert_eq!(scene.consumer.failures, 1);
}

#[test]
fn a_lease_lapses_unless_somebody_calls_or_a_live_answer_holds_it() {
    let mut scene = scene(|_| {});
    let session = scene.session();
    scene.later(20 * SECOND);
    scene.consumer.call(Some(session), scene.now).unwrap();
    scene.later(20 * SECOND);
    assert_eq!(scene.consumer.lapse(scene.now), Change::Nothing, "the call renewed it");
    scene.consumer.attach(99, true).unwrap();
    scene.later(100 * SECOND);
    assert_eq!(scene.consumer.lapse(scene.now), Change::Nothing, "a live answer holds it");
    assert_eq!(scene.consumer.detach(98, scene.now), Change::Nothing, "another answer's end is not its end");
    scene.consumer.detach(99, scene.now);
    scene.later(29 * SECOND);
    assert_eq!(scene.consumer.lapse(scene.now), Change::Nothing, "its lease begins when the answer ends");
    scene.later(SECOND);
    assert_eq!(scene.consumer.lapse(scene.now), Change::Record);
    let epoch = scene.consumer.epoch;
    assert_eq!(scene.consumer.call(Some(session), scene.now), Err(Refusal::Fenced { epoch }));
}

#[test]
fn who_names_no_session_shares_one_and_a_live_answer_has_it_alone() {
    let mut scene = scene(|_| {});
    let mut change = Change::Nothing;
    let wants = Wants { after: None, events: 10, bytes: 1000 };
    let call = Call { named: None, takeover: false, hold: Hold::No, ack: None, wants, fresh: 5 };
    scene.consumer.next(&call, from(0), scene.now, &mut change).unwrap();
    assert_eq!(change, Change::Record, "a session was opened");
    let epoch = scene.consumer.epoch;
    scene.consumer.next(&call, from(0), scene.now, &mut Change::Nothing).unwrap();
    assert_eq!(scene.consumer.epoch, epoch, "and is shared");
    let live = |answer| Call { hold: Hold::Take(answer), ..call };
    scene.consumer.next(&live(1), from(0), scene.now, &mut change).unwrap();
    let refused = scene.consumer.next(&live(2), from(0), scene.now, &mut change);
    assert!(matches!(refused, Err(Refusal::SessionActive { .. })), "{refused:?}");
    // Who names the session comes back on another connection; the first one is let go.
    let named = Call { named: scene.consumer.session_name(), ..live(3) };
    scene.consumer.next(&named, from(0), scene.now, &mut change).unwrap();
    let first = Call { hold: Hold::Keep(1), named: named.named, ..call };
    let fenced = scene.consumer.next(&first, from(0), scene.now, &mut change);
    assert_eq!(fenced, Err(Refusal::Fenced { epoch }));
    assert_eq!(scene.consumer.detach(3, scene.now), Change::Record, "an anonymous session ends with its live answer");
}

#[test]
fn a_rewind_is_told_to_the_old_generation_and_its_acks_are_refused() {
    let mut scene = scene(|_| {});
    let session = scene.session();
    scene.deliver(None, 10);
    scene.ack(9).unwrap();
    assert_eq!(scene.consumer.rewind(12, None, false, scene.now), Err(Refusal::NeedsSkip { next: 10 }));
    scene.consumer.rewind(4, None, false, scene.now).unwrap();
    let Err(Refusal::Rewound { session: again, next: 4 }) = scene.consumer.call(Some(session), scene.now) else {
        panic!("the old generation must be told")
    };
    scene.consumer.call(Some(again), scene.now).unwrap();
    assert_eq!(scene.ack(9), Err(Refusal::BeyondDelivered { delivered: 4 }));
    assert_eq!(scene.deliver(None, 6).from, 4);
    scene.consumer.rewind(12, None, true, scene.now).unwrap();
    assert_eq!(scene.consumer.head(), 12, "forward, since it was said");
    let rewound = scene.consumer.last_rewind.unwrap();
    assert_eq!((rewound.from, rewound.to, rewound.until), (4, 12, None));
}

#[test]
fn who_has_not_heard_of_a_rewind_may_leave_and_who_was_replaced_may_not() {
    let mut scene = scene(|_| {});
    let session = scene.session();
    scene.consumer.rewind(0, None, false, scene.now).unwrap();
    assert!(matches!(scene.consumer.call(Some(session), scene.now), Err(Refusal::Rewound { .. })));
    assert_eq!(scene.consumer.leave(Some(session), scene.now), Ok(Change::Record));
    assert_eq!(scene.consumer.session, None);
    scene.consumer.open_session(8, false, false, scene.now).unwrap();
    let epoch = scene.consumer.epoch;
    assert_eq!(scene.consumer.leave(Some(session), scene.now), Err(Refusal::Fenced { epoch }));
    assert!(scene.consumer.session.is_some(), "the other one goes on");
}

#[test]
fn a_bounded_replay_has_its_own_cursor_and_then_the_old_position_goes_on() {
    let mut scene = scene(|_| {});
    scene.session();
    scene.deliver(None, 10);
    scene.ack(7).unwrap();
    assert_eq!(scene.consumer.rewind(9, Some(12), false, scene.now), Err(Refusal::NothingToReplay { next: 8 }));
    scene.consumer.rewind(2, Some(5), false, scene.now).unwrap();
    scene.consumer.rewind(6, Some(100), false, scene.now).unwrap();
    let grant = scene.deliver(None, 5);
    assert_eq!((grant.from, grant.until, grant.replay), (2, 5, true), "no batch spans its end");
    assert_eq!(scene.turn(Some(4)), Ok(Turn::Blocked(Blocked::InFlight)), "nothing behind it before it is acked");
    scene.ack(3).unwrap();
    scene.restart(100);
    assert_eq!((scene.consumer.head(), scene.consumer.next), (4, 8), "a restart goes on in the middle of it");
    scene.ack(4).unwrap();
    let grant = scene.deliver(None, 8);
    assert_eq!((grant.from, grant.until, grant.replay), (6, 8, true), "the next range, up to the position");
    scene.ack(7).unwrap();
    let grant = scene.deliver(None, 10);
    assert_eq!((grant.from, grant.replay), (8, false), "what was in flight before comes again");
}

#[test]
fn a_failure_is_tried_again_later_and_poison_stops_or_is_buried() {
    for on_poison in [OnPoison::Stall, OnPoison::DeadLetter] {
        let mut scene = scene(|terms| (terms.attempts_max, terms.on_poison) = (3, on_poison));
        scene.session();
        scene.deliver(None, 5);
        scene.ack(0).unwrap();
        assert_eq!(scene.consumer.nack(3, SECOND, "no", from(0), scene.now), Err(Refusal::NotNext { next: 1 }));
        scene.consumer.nack(1, SECOND, "no", from(0), scene.now).unwrap();
        assert_eq!(
            scene.consumer.nack(1, SECOND, "no", from(0), scene.now),
            Err(Refusal::BeyondDelivered { delivered: 1 }),
            "it is not in flight any more"
        );
        assert!(matches!(scene.turn(None), Ok(Turn::Blocked(Blocked::Delay(_)))));
        scene.later(SECOND);
        assert_eq!(scene.deliver(None, 3).attempt, 2);
        // The second failure is a session that ends without a word.
        scene.session();
        let grant = scene.deliver(None, 2);
        assert_eq!((grant.from, grant.events, grant.attempt), (1, 1, 3), "the last attempt is made with it alone");
        assert_eq!(scene.turn(Some(1)), Ok(Turn::Blocked(Blocked::InFlight)));
        scene.consumer.nack(1, Duration::ZERO, "still no", from(0), scene.now).unwrap();
        assert!(scene.consumer.poisoned());
        match on_poison {
            OnPoison::Stall => assert_eq!(scene.turn(None), Ok(Turn::Blocked(Blocked::Poison))),
            OnPoison::DeadLetter => assert_eq!(scene.turn(None), Ok(Turn::Bury(1))),
        }
        scene.restart(100);
        assert_eq!((scene.consumer.failures, &*scene.consumer.reason), (3, "still no"), "attempts are on record");
        scene.consumer.buried(1, scene.now);
        assert_eq!((scene.consumer.head(), scene.consumer.dead_lettered, scene.consumer.failures), (2, 1, 0));
    }
}

#[test]
fn life_leads_on_and_ends_sessions() {
    let mut scene = scene(|_| {});
    let now = scene.now;
    let session = scene.session();
    assert_eq!(scene.consumer.approve(Some(3), scene.consumer.terms, now), Err(Refusal::HasPosition));
    for (to, expected, life) in [
        (Life::Approved, Ok(Change::Nothing), Life::Approved),
        (Life::Suspended, Ok(Change::Record), Life::Suspended),
        (Life::Revoked, Ok(Change::Record), Life::Revoked),
        (Life::Approved, Err(Refusal::WrongLife(Life::Revoked)), Life::Revoked),
        (Life::Suspended, Err(Refusal::WrongLife(Life::Revoked)), Life::Revoked),
    ] {
        assert_eq!((scene.consumer.change_life(to), scene.consumer.life), (expected, life), "{to:?}");
    }
    assert_eq!(scene.consumer.call(Some(session), now), Err(Refusal::NotApproved(Life::Revoked)));
    scene.consumer.approve(None, scene.consumer.terms, now).unwrap();
    assert_eq!(scene.consumer.life, Life::Approved, "an approval brings it back, with its position");
    scene.consumer.terms.expires_us = now.wall_us + 1;
    assert!(scene.consumer.open_session(1, false, false, now).is_ok());
    scene.later(SECOND);
    assert_eq!(scene.consumer.readable(scene.now), Err(Refusal::Expired));
}

#[test]
fn what_retention_took_is_a_gap_until_something_behind_it_is_acked() {
    let mut scene = scene(|_| {});
    assert!(!scene.consumer.wants_below(0) && scene.consumer.wants_below(10));
    scene.consumer.lose_before(10);
    scene.consumer.lose_before(20);
    assert_eq!((scene.consumer.gap, scene.consumer.next), (Some((0, 20)), 0), "the position does not jump by itself");
    scene.session();
    let wants = Wants { after: None, events: 10, bytes: 1000 };
    let Ok(Turn::Read(grant)) = scene.consumer.turn(&wants, from(20), scene.now.instant) else { panic!() };
    assert_eq!((grant.from, grant.gap), (20, Some((0, 20))));
    scene.consumer.delivered(grant.session, 20, 22, 20, scene.now).unwrap();
    scene.ack(20).unwrap();
    assert_eq!((scene.consumer.gap, scene.consumer.next), (None, 21));
}

#[test]
fn what_a_repair_gave_up_is_a_gap_that_no_answer_spans() {
    let mut scene = scene(|_| {});
    scene.session();
    let mut gaps = Gaps::default();
    gaps.add(Gap { from: 4, to: 7 });
    let wants = |after| Wants { after, events: 10, bytes: 1000 };
    let turn = |scene: &Scene, after| {
        scene.consumer.turn(&wants(after), There { earliest: 0, tail: 100, gaps: &gaps }, scene.now.instant)
    };
    let Ok(Turn::Read(before)) = turn(&scene, None) else { panic!() };
    assert_eq!((before.from, before.until, before.gap), (0, 4, None));
    scene.consumer.delivered(before.session, 0, 4, 40, scene.now).unwrap();
    let Ok(Turn::Read(behind)) = turn(&scene, Some(3)) else { panic!() };
    assert_eq!((behind.from, behind.until, behind.gap), (7, u64::MAX, Some((4, 7))));
    scene.consumer.delivered(behind.session, 7, 9, 20, scene.now).unwrap();
    scene.ack(7).unwrap();
    assert_eq!(scene.consumer.head(), 8);
}

#[test]
fn a_gap_takes_no_part_of_what_may_be_in_flight() {
    let mut scene = scene(|terms| terms.events_max = 5);
    let session = scene.session();
    let mut gaps = Gaps::default();
    gaps.add(Gap { from: 2, to: 50 });
    let turn = |scene: &Scene, after| {
        let wants = Wants { after, events: 10, bytes: 1000 };
        let there = There { earliest: 0, tail: 100, gaps: &gaps };
        let Ok(Turn::Read(grant)) = scene.consumer.turn(&wants, there, scene.now.instant) else { panic!() };
        (grant.from, grant.gap, grant.events)
    };
    assert_eq!(turn(&scene, None), (0, None, 5));
    scene.consumer.delivered(session, 0, 2, 20, scene.now).unwrap();
    assert_eq!(turn(&scene, Some(1)), (50, Some((2, 50)), 3), "two are in flight");
    scene.consumer.delivered(session, 50, 51, 10, scene.now).unwrap();
    assert_eq!(turn(&scene, Some(50)), (51, None, 2), "three are");
    scene.ack(1).unwrap();
    assert_eq!(turn(&scene, None), (50, Some((2, 50)), 5), "until something behind it is acked");
    scene.ack(50).unwrap();
    assert_eq!(turn(&scene, None), (51, None, 5));
}

#[test]
fn after_a_restart_a_session_goes_on_and_its_acks_count() {
    let mut scene = scene(|_| {});
    let session = scene.session();
    scene.deliver(None, 10);
    scene.ack(3).unwrap();
    scene.restart(50);
    scene.consumer.call(Some(session), scene.now).unwrap();
    assert_eq!(scene.ack(50), Err(Refusal::BeyondDelivered { delivered: 50 }), "not beyond the durable tail");
    assert_eq!(scene.ack(9), Ok(Change::Head(10)), "delivered counts as the durable tail");
    assert_eq!(scene.consumer.acked_at_us, scene.now.wall_us);
}

#[test]
fn the_stored_form_comes_back_and_a_cut_one_is_refused() {
    let mut scene = scene(|terms| (terms.attempts_max, terms.on_poison) = (3, OnPoison::DeadLetter));
    scene.session();
    scene.deliver(None, 9);
    scene.ack(7).unwrap();
    scene.consumer.nack(8, SECOND, "böse", from(0), scene.now).unwrap();
    scene.consumer.rewind(2, Some(4), false, scene.now).unwrap();
    scene.consumer.lose_before(20);
    (scene.consumer.token, scene.consumer.dead_letters) = (Some("t1".into()), 9);
    for consumer in [scene.consumer, Consumer::new("latest", Terms::with_lease(LEASE), 0)] {
        let mut stored = Vec::new();
        encode(3, "name", &consumer, &mut stored);
        let mut fields = Fields::new(&stored);
        let (group, name, again) = decode(&mut fields).unwrap();
        assert_eq!((group, name, fields.rest()), (3, "name", &b""[..]));
        let mut twice = Vec::new();
        encode(3, "name", &again, &mut twice);
        assert_eq!(stored, twice);
        let same = format!("{:?}", Consumer { live: Live::default(), ..consumer });
        assert_eq!(format!("{again:?}"), same);
        for cut in 0..stored.len() {
            assert!(decode(&mut Fields::new(&stored[..cut])).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn sessions_are_named_as_they_are_printed() {
    let name = SessionName { id: 0xab, epoch: 12 };
    assert_eq!(name.to_string(), "00000000000000ab-12");
    assert_eq!("00000000000000ab-12".parse(), Ok(name));
    for bad in ["", "ab-12", "00000000000000ab", "00000000000000ab-", "00000000000000ab-x", "+0000000000000ab-1"] {
        assert!(bad.parse::<SessionName>().is_err(), "{bad}");
    }
}

#[test]
fn a_rate_forgets_in_a_minute_or_so() {
    let mut rate = Rate::default();
    let start = Instant::now();
    for second in 0..600 {
        rate.count(50, start + SECOND * second);
    }
    let now = start + SECOND * 599;
    assert!((rate.now(now) - 50.0).abs() < 1.0, "{rate:?}");
    assert!(rate.now(now + 300 * SECOND) < 0.5);
}

#[test]
fn an_ack_or_a_claim_of_what_a_session_was_never_given_opens_none_and_ends_none() {
    for (ack, after) in [(Some(3), None), (None, Some(3)), (Some(0), None), (Some(2), Some(9))] {
        let mut scene = scene(|_| {});
        let other = scene.session();
        scene.deliver(None, 4);
        let wants = Wants { after, events: 10, bytes: 1000 };
        let call = Call { named: None, takeover: true, hold: Hold::No, ack, wants, fresh: 5 };
        let mut change = Change::Nothing;
        let refused = scene.consumer.next(&call, from(0), scene.now, &mut change);
        assert_eq!(refused, Err(Refusal::BeyondDelivered { delivered: 0 }), "{ack:?} {after:?}");
        assert_eq!((change, scene.consumer.session_name()), (Change::Nothing, Some(other)), "{ack:?} {after:?}");
        assert_eq!((scene.consumer.failures, scene.ack(3)), (0, Ok(Change::Head(4))), "the other one goes on");
    }
}
