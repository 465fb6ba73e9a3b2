//! How ticks look, on terminals of several sizes and off them.

use super::super::sample::Sample;
use super::super::sample::tests::{consumer, metrics, sample};
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};
use std::time::Instant;

fn looks(consumers: &Value) -> (Sample, Sample) {
    let start = Instant::now();
    let before = sample(start, 0, &metrics(100_000, [10, 10, 10], 1_000), consumers);
    (before, sample(start, 1, &metrics(150_000, [100, 110, 110], 15_500), consumers))
}

fn some() -> Value {
    let mut all: Vec<Value> = (0..20).map(|number| consumer(&format!("reader-{number:02}"), "live", 0, 0.0)).collect();
    all.push(consumer("billing", "stuck", 1_204_000, 4_000.0));
    all.push(consumer("mailer\u{1b}[2J", "catching_up", 12, 0.4));
    all.into()
}

fn drawn(tick: &Tick, away: Option<&str>, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, "http://127.0.0.1:4437", tick, away, true)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn it_fits_a_terminal_of_80_columns_and_24_lines() {
    let (before, after) = looks(&some());
    insta::assert_snapshot!("narrow", drawn(&Tick::between(&before, &after), None, 80, 24));
}

#[test]
fn a_wide_terminal_has_room_for_reasons() {
    let (before, after) = looks(&some());
    let text = drawn(&Tick::between(&before, &after), None, 140, 40);
    assert!(text.contains("stuck: nothing is acked"), "{text}");
    assert!(text.contains("reader-19"), "all of them are shown\n{text}");
}

#[test]
fn before_the_second_look_and_while_the_broker_is_away_it_says_so() {
    let (_, after) = looks(&json!([]));
    let text = drawn(&Tick::alone(&after), Some("connection\u{7} refused"), 80, 24);
    assert!(text.contains("away: connection\\u{7} refused"), "{text}");
    assert!(text.contains("p99 -") && text.contains("all acked"), "{text}");
    // However small it is, nothing breaks.
    for (width, height) in [(1, 1), (20, 5), (80, 8), (300, 3)] {
        drawn(&Tick::alone(&after), None, width, height);
    }
}

#[test]
fn off_a_terminal_it_is_a_plain_table() {
    let (before, after) = looks(&json!([consumer("billing", "stuck", 12, 90.0)]));
    let lines = plain(&Tick::between(&before, &after));
    assert_eq!(
        lines,
        [
            "eddyline 0.1.0  up 1h30m  running",
            "in/s       100.0k, 48.8 MiB/s",
            "out/s      14.5k, 14.5k acked",
            "commits/s  100, p99 1.9ms",
            "conns      12, 20.0 MiB",
            "disk free  50.0 GiB, of 100.0 GiB",
            "worst lag  1m30s, 12 ev",
            "",
            "GROUP   CONSUMER  LAG    BYTES  BEHIND  ACKED/S  SESSION  STATE",
            "orders  billing    12  1.2 KiB   1m30s       12  -        stuck: nothing is acked",
        ]
    );
}
