//! Tables of what is asked of the broker about groups.

use super::*;
use crate::cli::fake::{Fake, answer};
use clap::Parser;

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    settings: Settings,
}

fn json(line: &[&str]) -> Result<String, clap::Error> {
    let only = Only::try_parse_from([&["create"], line].concat())?;
    Ok(Value::Object(only.settings.json()).to_string())
}

#[test]
fn flags_make_the_same_configuration_as_json() {
    let table = [
        (&[][..], "{}"),
        (&["--retention-max-age", "7d"], r#"{"retention":{"max_age":"7d"}}"#),
        (
            &["--retention-max-age", "90m", "--retention-max-bytes", "10GiB", "--max-event-bytes", "64k"],
            r#"{"max_event_bytes":"64kB","retention":{"max_age":"1h30m","max_bytes":"10GiB"}}"#,
        ),
        (
            &["--segment-max-bytes", "64MiB", "--segment-max-age", "1h", "--max-batch-bytes", "1MiB"],
            r#"{"max_batch_bytes":"1MiB","segment":{"max_age":"1h","max_bytes":"64MiB"}}"#,
        ),
        (&["--config", r#"{"a":{"b":1}}"#], r#"{"a":{"b":1}}"#),
    ];
    for (line, expected) in table {
        assert_eq!(json(line).unwrap(), expected, "{line:?}");
    }
    for line in [&["--config", "[]"][..], &["--config", "{}", "--max-event-bytes", "1k"], &["--retention-max-age", "7"]]
    {
        assert!(json(line).is_err(), "{line:?}");
    }
}

#[test]
fn all_pages_of_groups_are_asked_for() {
    let fake = Fake::new(&[
        answer("200 OK", "", r#"{"groups":[{"group":"a"}],"next":"a&"}"#),
        answer("200 OK", "", r#"{"groups":[{"group":"b"}]}"#),
    ]);
    let groups = all(&fake.client(), "a b").unwrap();
    assert_eq!(Value::from(groups).to_string(), r#"[{"group":"a"},{"group":"b"}]"#);
    assert_eq!(fake.asked().line, "GET /v1/groups?prefix=a%20b HTTP/1.1");
    assert_eq!(fake.asked().line, "GET /v1/groups?prefix=a%20b&after=a%26 HTTP/1.1");
}

#[test]
fn a_group_is_described_in_a_fixed_order_with_all_it_has() {
    let info = object(r#"{"bytes":2048,"zone":1,"group":"a","config":{"x":1},"tail":5}"#).unwrap();
    let facts = described(&info);
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        facts,
        [("group", "a"), ("tail", "5"), ("bytes", "2048 (2.0 KiB)"), ("config", r#"{"x":1}"#), ("zone", "1")]
    );
}

#[test]
fn a_group_is_changed_and_removed_by_name() {
    let fake = Fake::new(&[answer("200 OK", "", "{}"), "HTTP/1.1 204 No Content\r\n\r\n".to_owned()]);
    assert_eq!(put(&fake.client(), &Method::PATCH, "a", "{\"x\":1}"), Ok(200));
    let asked = fake.asked();
    assert_eq!((asked.line.as_str(), asked.body.as_str()), ("PATCH /v1/groups/a HTTP/1.1", "{\"x\":1}"));
    remove(&fake.client(), "a", true).unwrap();
    assert_eq!(fake.asked().line, "DELETE /v1/groups/a HTTP/1.1");
}

#[test]
fn the_list_shows_what_the_broker_tells() {
    let short = [
        serde_json::json!({"group": "a", "number": 1, "shard": 0, "created": "2026-11-23"}),
        serde_json::json!({"group": "bb\u{1b}", "number": 2, "shard": 12, "created": "2026-11-24"}),
    ];
    assert_eq!(
        table_of(&short),
        ["GROUP     SHARD  CREATED", "a             0  2026-11-23", "bb\\u{1b}     12  2026-11-24"]
    );
    let long = [serde_json::json!({"group": "a", "tail": 7, "bytes": 2048, "segments": 1})];
    assert_eq!(table_of(&long), ["GROUP  TAIL     SIZE  SEGMENTS", "a         7  2.0 KiB         1"]);
}
