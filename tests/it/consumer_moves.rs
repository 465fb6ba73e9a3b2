//! Moving a position: back, forward, for a while; by every position expression; looked at first; and told to whoever
//! reads at that moment.

use crate::broker::Broker;
use crate::consumer::{Consumer, orders, produce};
use serde_json::{Value, json};

/// A consumer that has acked the first fifty of a hundred events.
fn half_way(broker: &Broker) -> Consumer {
    let billing = Consumer::subscribed(broker, "orders", "billing", "");
    assert_eq!(billing.offsets(broker, "max=60").len(), 60);
    billing.acked(broker, 49, "");
    billing
}

#[test]
fn every_position_expression_says_where_to() {
    let broker = orders(&[], 0);
    (0..4).for_each(|part| produce(&broker, part * 25..(part + 1) * 25));
    half_way(&broker);
    let billing = Consumer::named("orders", "billing");
    Consumer::subscribed(&broker, "orders", "other", r#"{"start":33}"#);
    let event = |offset: u64| broker.get(&format!("/v1/groups/orders/events?from={offset}&limit=1")).events().remove(0);
    let text = |offset, member: &str| event(offset)[member].as_str().unwrap().to_owned();
    for (to, expected) in [
        ("7".to_owned(), 7),
        (r#""7""#.to_owned(), 7),
        (r#""earliest""#.to_owned(), 0),
        (r#""last:90""#.to_owned(), 10),
        (r#""last:1000""#.to_owned(), 0),
        (format!(r#""id:{}""#, text(31, "id")), 31),
        // Events of one batch were received at one time; a time means the first of them.
        (format!(r#""time:{}""#, text(31, "received")), 25),
        (r#""time:2020-01-01T00:00:00Z""#.to_owned(), 0),
        (r#""ago:1h""#.to_owned(), 0),
        (r#""consumer:other""#.to_owned(), 33),
        ("50".to_owned(), 50),
    ] {
        let answer = billing.rewind(&broker, &format!(r#"{{"to":{to}}}"#));
        assert_eq!(answer.status, 200, "{to}: {}", answer.text());
        let moved = answer.json();
        assert_eq!((&moved["to"], &moved["dry_run"]), (&json!(expected), &json!(false)), "{to}");
        assert_eq!(moved["events"].as_u64(), moved["from"].as_u64().map(|from| from - expected), "{to}");
        assert_eq!(billing.offsets(&broker, "max=1"), [expected], "{to}");
        assert_eq!(billing.status(&broker)["last_rewind"]["to"], expected);
        assert_eq!(billing.rewind(&broker, r#"{"to":50,"skip":true}"#).status, 200);
    }
    for (body, status, code) in [
        (r#"{"to":51}"#, 409, "needs_skip"),
        (r#"{"to":"latest"}"#, 409, "needs_skip"),
        (r#"{"to":101,"skip":true}"#, 416, "behind_tail"),
        (r#"{"to":51,"until":60}"#, 409, "nothing_to_replay"),
        (r#"{"to":"consumer:nobody"}"#, 404, "no_consumer"),
    ] {
        billing.rewind(&broker, body).assert_problem(status, code, body);
        assert_eq!(billing.position(&broker), 50, "{body}");
    }
    let skipped = billing.rewind(&broker, r#"{"to":"latest","skip":true}"#).json();
    assert_eq!((&skipped["events"], &skipped["skipped"], &skipped["to"]), (&json!(0), &json!(50), &json!(100)));
    assert_eq!(billing.offsets(&broker, ""), [0_u64; 0]);
}

#[test]
fn nothing_is_before_the_first_event_of_a_group_that_was_made_again() {
    let broker = orders(&[], 10);
    assert_eq!(broker.ask("DELETE", "/v1/groups/orders", &[], "").status, 204);
    broker.create("orders", "");
    produce(&broker, 11..15);
    let billing = Consumer::named("orders", "billing");
    billing.call(&broker, "PUT", "", r#"{"start":10}"#).assert_problem(410, "gone", "a start of before");
    Consumer::subscribed(&broker, "orders", "billing", "");
    assert_eq!(billing.offsets(&broker, ""), [11, 12, 13, 14]);
    billing.acked(&broker, 13, "");
    let gone = billing.rewind(&broker, r#"{"to":10}"#);
    gone.assert_problem(410, "gone", "a rewind to before");
    assert_eq!((gone.json()["earliest"].as_u64(), gone.number("eddyline-earliest")), (Some(11), Some(11)));
    assert_eq!(billing.rewind(&broker, r#"{"to":11}"#).json()["events"], 3);
}

#[test]
fn a_dry_run_says_what_would_come_and_changes_nothing() {
    let broker = orders(&[], 100);
    let billing = half_way(&broker);
    let before = billing.status(&broker);
    for (members, events) in [(r#""to":10"#, 40), (r#""to":10,"until":20"#, 10), (r#""to":10,"until":100"#, 40)] {
        let answer = billing.rewind(&broker, &format!(r#"{{{members},"dry_run":true}}"#)).json();
        assert_eq!((&answer["events"], &answer["dry_run"]), (&json!(events), &json!(true)), "{members}");
        assert_eq!(answer["from"], 50);
    }
    billing.rewind(&broker, r#"{"to":60,"dry_run":true}"#).assert_problem(409, "needs_skip", "forward");
    let after = billing.status(&broker);
    for member in ["cursor", "replays", "last_rewind"] {
        assert_eq!(before[member], after[member], "{member}");
    }
    billing.acked(&broker, 59, "");
}

#[test]
fn whoever_reads_is_told_and_an_ack_of_before_does_not_count() {
    let broker = orders(&[("http.heartbeat", "10m")], 20);
    let [polls, streams] = ["polls", "streams"].map(|name| Consumer::subscribed(&broker, "orders", name, ""));
    let (mut stream, old) = streams.stream(&broker, "");
    stream.until("up_to_date");
    streams.acked(&broker, 19, &old);
    assert_eq!(streams.rewind(&broker, r#"{"to":5}"#).json()["events"], 15);
    let told = stream.until("rewound");
    assert_eq!(told["to"], 5);
    let new = told["session"].as_str().unwrap();
    (5..20).for_each(|offset| assert_eq!(stream.offset(), offset));
    let late = streams.ack(&broker, 19, &old);
    late.assert_problem(409, "rewound", "an ack of before");
    assert_eq!((&late.json()["session"], &late.json()["next"]), (&json!(new), &json!(5)));
    assert_eq!(streams.position(&broker), 5);
    streams.acked(&broker, 7, new);

    let session = polls.session(&broker, "");
    assert_eq!(polls.offsets(&broker, &format!("session={session}")).len(), 20);
    polls.acked(&broker, 19, &session);
    let mut poll = polls.ask_next(&broker, &format!("session={session}&after=19&wait=60s"));
    assert_eq!(polls.rewind(&broker, r#"{"to":18}"#).status, 200);
    let told = poll.answer();
    told.assert_problem(409, "rewound", "a long poll");
    let session = told.json()["session"].as_str().unwrap().to_owned();
    assert_eq!(polls.offsets(&broker, &format!("session={session}")), [18, 19]);
    polls.acked(&broker, 19, &session);
    // One who names no session is simply given what comes next.
    assert_eq!(polls.call(&broker, "DELETE", &format!("/session?session={session}"), "").status, 204);
    let mut poll = polls.ask_next(&broker, "wait=60s");
    assert_eq!(polls.rewind(&broker, r#"{"to":17}"#).status, 200);
    assert_eq!(poll.answer().offsets(), [17, 18, 19]);
}

#[test]
fn a_bounded_replay_comes_first_also_after_a_restart_and_then_the_old_position_goes_on() {
    let mut broker = orders(&[], 100);
    let billing = half_way(&broker);
    for body in [r#"{"to":40,"until":43}"#, r#"{"to":10,"until":15}"#] {
        let answer = billing.rewind(&broker, body).json();
        assert_eq!((&answer["from"], billing.position(&broker)), (&json!(50), 50), "the position waits");
    }
    let batch = billing.next(&broker, "max=2").json();
    assert_eq!((&batch["replay"], &batch["events"][0]["offset"]), (&json!(true), &json!(40)));
    billing.acked(&broker, 40, "");
    for stop in [Broker::kill9 as fn(&mut Broker), Broker::stop] {
        stop(&mut broker);
        broker.restart();
        assert_eq!(billing.offsets(&broker, ""), [41, 42], "no batch spans its end");
        let status = billing.status(&broker);
        assert_eq!(status["replays"], json!([{ "next": 41, "until": 43 }, { "next": 10, "until": 15 }]));
        assert_eq!(status["cursor"]["next"], 50);
    }
    // Acks ride on requests, also where the next range begins before the one that ends.
    let batch = billing.next(&broker, "after=42&ack=42").json();
    assert_eq!(
        (&batch["replay"], &batch["events"][0]["offset"], &batch["next"]),
        (&json!(true), &json!(10), &json!(15))
    );
    let batch = billing.next(&broker, "after=14&ack=14&max=3").json();
    assert_eq!((&batch["replay"], &batch["events"][0]["offset"]), (&Value::Null, &json!(50)));
    billing.acked(&broker, 52, "");
    assert_eq!(billing.status(&broker)["replays"], json!([]));
}

#[test]
fn a_stream_goes_from_a_replay_to_the_old_position_as_soon_as_it_is_acked() {
    // Nobody would wait for a heartbeat.
    let broker = orders(&[("http.heartbeat", "10m")], 60);
    let billing = half_way(&broker);
    assert_eq!(billing.call(&broker, "DELETE", "/session", "").status, 204);
    assert_eq!(billing.rewind(&broker, r#"{"to":10,"until":12}"#).status, 200);
    assert_eq!(billing.rewind(&broker, r#"{"to":5,"until":7}"#).status, 200);
    let (mut stream, session) = billing.stream(&broker, "");
    for (from, until) in [(10, 12), (5, 7)] {
        assert_eq!(stream.until("replay"), json!({ "from": from, "until": until }));
        (from..until).for_each(|offset| assert_eq!(stream.offset(), offset));
        assert_eq!(stream.next().map(|told| told.is("blocked")), Some(true), "nothing more before it is acked");
        billing.acked(&broker, until - 1, &session);
    }
    assert_eq!(stream.until("replay"), json!({ "done": true, "next": 50 }));
    (50..60).for_each(|offset| assert_eq!(stream.offset(), offset));
    // A long poll likewise.
    drop(stream);
    billing.rewind(&broker, r#"{"to":10,"until":12}"#);
    assert_eq!(billing.offsets(&broker, "wait=20s"), [10, 11]);
    let mut poll = billing.ask_next(&broker, "after=11&wait=60s");
    billing.acked(&broker, 11, "");
    assert_eq!(poll.answer().offsets().first(), Some(&50));
}
