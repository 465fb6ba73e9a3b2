//! Tables of what is asked of the broker about consumers, and of how its answers are shown.

use super::*;
use crate::cli::failure::Exit;
use crate::cli::fake::{Fake, answer};
use clap::Parser;

#[derive(Parser)]
struct Only {
    #[command(subcommand)]
    action: Action,
}

fn parsed(line: &[&str]) -> Result<Action, clap::Error> {
    Only::try_parse_from([&["consumer"], line].concat()).map(|only| only.action)
}

fn grant(flags: &[&str]) -> Result<String, clap::Error> {
    match parsed(&[&["approve", "g", "c"], flags].concat())? {
        Action::Approve { grant, .. } => Ok(grant.json().to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_approval_says_what_was_named_and_nothing_else() {
    for (flags, expected) in [
        (&[][..], "{}"),
        (&["--start", "5m"], r#"{"start":"ago:5m"}"#),
        (
            &["--lease", "90s", "--max-events", "10", "--max-bytes", "1MiB"],
            r#"{"lease":"1m30s","max_in_flight":{"bytes":"1MiB","events":10}}"#,
        ),
        (&["--max-attempts", "3", "--on-poison", "dead-letter"], r#"{"max_attempts":3,"on_poison":"dead_letter"}"#),
        (&["--max-attempts", "0", "--on-poison", "stall"], r#"{"max_attempts":0,"on_poison":"stall"}"#),
        (&["--expires", "2026-11-23T10:00:00+01:00"], r#"{"expires":"2026-11-23T09:00:00.000000Z"}"#),
    ] {
        assert_eq!(grant(flags).unwrap(), expected, "{flags:?}");
    }
    for flags in [&["--expires", "soon"][..], &["--on-poison", "panic"], &["--max-bytes", "x"], &["--lease", "3"]] {
        assert!(grant(flags).is_err(), "{flags:?}");
    }
    for line in [&["rewind", "g", "c"][..], &["rewind", "g", "c", "--to", "1", "--until", "2", "--skip"]] {
        assert!(parsed(line).is_err(), "{line:?}");
    }
}

fn rewind(flags: &[&str]) -> moves::Rewind {
    match parsed(&[&["rewind", "g", "c"], flags].concat()) {
        Ok(Action::Rewind(rewind)) => rewind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_shown_is_what_is_done() {
    let plan = r#"{"from":90,"to":10,"until":40,"events":30,"bytes":2048,"dry_run":true}"#;
    let done = r#"{"from":90,"to":10,"until":40,"events":30,"bytes":2048,"dry_run":false}"#;
    let fake = Fake::new(&[answer("200 OK", "", plan), answer("200 OK", "", done)]);
    let asked_whether = |told: &str| {
        assert_eq!(told, "g/c: from 90 to 10, 30 events (2.0 KiB) delivered again up to 40, and then on from before");
        true
    };
    rewind(&["--to", "1h", "--until", "5m"]).carry_out(&fake.client(), asked_whether).unwrap();
    let (first, second) = (fake.asked(), fake.asked());
    assert_eq!(first.line, "POST /v1/groups/g/consumers/c/rewind HTTP/1.1");
    assert_eq!(first.body, r#"{"dry_run":true,"to":"ago:1h","until":"ago:5m"}"#);
    assert_eq!(second.body, r#"{"to":10,"until":40}"#);
}

#[test]
fn nothing_is_moved_without_a_yes() {
    let plan = r#"{"from":9,"to":20,"events":0,"skipped":11,"bytes":10,"dry_run":true}"#;
    let fake = Fake::new(&[answer("200 OK", "", plan)]);
    let failure = rewind(&["--to", "latest", "--skip"])
        .carry_out(&fake.client(), |told| {
            assert_eq!(told, "g/c: from 9 to 20, 11 events (10 B) left out");
            false
        })
        .unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Failed, "nothing was moved"));
    assert_eq!(fake.asked().body, r#"{"dry_run":true,"skip":true,"to":"latest"}"#, "and nothing else was asked");

    let fake = Fake::new(&[answer("200 OK", "", plan)]);
    let unasked = |_: &str| panic!("--yes asks nobody");
    rewind(&["--to", "20", "--skip", "--yes"]).carry_out(&fake.client(), unasked).unwrap();
    assert_eq!(fake.asked().body, r#"{"skip":true,"to":"20"}"#);
}

fn status(consumer: &str, state: &str, reason: Option<&str>, next: Option<u64>) -> Value {
    json!({
        "group": "orders", "consumer": consumer, "state": state, "reason": reason, "life": "approved",
        "start": "earliest", "created": "2026-11-23T10:00:00.000000Z",
        "cursor": { "acked_offset": next, "acked_id": null, "acked_at": null, "next": next,
            "delivered_offset": null, "earliest": 0, "tail": 1204 },
        "lag": { "events": 1162, "bytes": 126_741, "seconds": 3.6 },
        "session": { "epoch": 1, "anonymous": true, "streaming": true, "lease_left_ms": 29_000, "opened": "2026" },
        "standbys": 2, "attempt": 1, "rate_1m": 50.25, "replays": [{ "next": 3, "until": 9 }], "gap": null,
        "limits": { "lease_ms": 30_000, "max_in_flight": { "events": 10_000, "bytes": 67_108_864 },
            "max_attempts": 3, "on_poison": "dead_letter" },
        "mood": "fine",
    })
}

#[test]
fn a_table_shows_lag_in_units_and_states_in_words() {
    let mut quiet = status("audit", "pending", None, None);
    quiet["session"] = Value::Null;
    quiet["standbys"] = json!(0);
    let rows = show::rows(&[status("billing", "blocked", Some("in_flight"), Some(42)), quiet]).unwrap();
    assert_eq!(
        show::table(&rows, false),
        [
            "GROUP   CONSUMER   LAG      BYTES  BEHIND  ACKED/S  SESSION    STATE",
            "orders  billing   1162  123.8 KiB    3.6s       50  stream +2  blocked: waits for acks",
            "orders  audit        -          -       -        -  -          pending",
        ]
    );
    assert!(show::table(&rows, true)[1].ends_with("\u{1b}[31mblocked: waits for acks\u{1b}[0m"));
    assert_eq!(show::rows(&[json!({ "consumer": "x" })]).unwrap_err().exit, Exit::Failed);
}

#[test]
fn a_page_shows_everything_in_rows() {
    let page = show::page(&status("bill\u{1b}", "stuck", Some("poison"), Some(42)), false).join("\n");
    for line in [
        "consumer        bill\\u{1b}",
        "state           stuck: every attempt at its next event failed",
        "next event      42",
        "group holds     0..1204",
        "lag             1162 events",
        "lag in bytes    126741 (123.8 KiB)",
        "lag in time     3.6s",
        "session         anonymous since 2026, streaming, lease lapses in 29s",
        "to be replayed  3..9",
        "last rewind     never",
        "in flight       10000 events, 64.0 MiB",
        "attempts        3, then dead letter",
        "created         2026-11-23T10:00:00.000000Z",
        "mood            fine",
    ] {
        assert!(page.lines().any(|shown| shown == line), "no {line:?} in\n{page}");
    }
    let painted = show::page(&status("c", "live", None, None), true);
    assert_eq!(painted[2], "state           \u{1b}[32mlive\u{1b}[0m");
}

#[test]
fn all_pages_of_consumers_are_asked_for() {
    for (group, path) in [(None, "/v1/consumers"), (Some("a b"), "/v1/groups/a%20b/consumers")] {
        let fake = Fake::new(&[
            answer("200 OK", "", r#"{"consumers":[{"consumer":"a"}],"next":"g/a"}"#),
            answer("200 OK", "", r#"{"consumers":[{"consumer":"b"}]}"#),
        ]);
        show::list(&fake.client(), group, Output::Json).unwrap();
        assert_eq!(fake.asked().line, format!("GET {path}?limit=1000 HTTP/1.1"));
        assert_eq!(fake.asked().line, format!("GET {path}?limit=1000&after=g%2Fa HTTP/1.1"));
    }
}
