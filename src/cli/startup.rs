//! What is said when the broker is ready: aligned facts, warnings, and `ready in … s` last; or one JSON line of log.

use std::io::{self, Write};

use serde_json::Value;

use super::logging::{self, Style};
use super::{notify, output};
use crate::server::Ready;

/// Says that the broker is ready, to the person or log on stderr and to the service manager.
pub(super) fn announce(ready: &Ready, style: Style) {
    let text = match style {
        Style::Text => block(ready).join("\n"),
        Style::Json => event(ready, &logging::timestamp()),
    };
    // A broker goes on without a reader of its log.
    let _ = writeln!(io::stderr().lock(), "{text}");
    if let Err(error) = notify::ready() {
        tracing::warn!(%error, "cannot tell the service manager that the broker is ready (NOTIFY_SOCKET)");
    }
}

/// Facts with the two that clients need, unless they are among them (as `data`, and `listen` or `listening`).
fn complete(ready: &Ready) -> Vec<(String, String)> {
    let mut facts = ready.facts.clone();
    let known = |facts: &[(String, String)], name: &str| facts.iter().any(|(given, _)| given.starts_with(name));
    if !known(&facts, "data") {
        facts.push(("data".to_owned(), ready.data.display().to_string()));
    }
    if !known(&facts, "listen") {
        let addresses: Vec<String> = ready.listen.iter().map(|address| format!("http://{address}")).collect();
        facts.push(("listen".to_owned(), addresses.join(", ")));
    }
    facts
}

fn block(ready: &Ready) -> Vec<String> {
    let mut lines = output::facts("  ", &complete(ready));
    lines.extend(ready.warnings.iter().map(|warning| format!("  warning: {}", super::escape::one_line(warning))));
    lines.push(format!("ready in {:.2} s", ready.took.as_secs_f64()));
    lines
}

fn event(ready: &Ready, timestamp: &str) -> String {
    let facts: serde_json::Map<String, Value> =
        complete(ready).into_iter().map(|(name, value)| (name, value.into())).collect();
    let fields = vec![
        ("message".to_owned(), Value::from("ready")),
        ("took_ms".to_owned(), Value::from(u64::try_from(ready.took.as_millis()).unwrap_or(u64::MAX))),
        ("facts".to_owned(), Value::Object(facts)),
        ("warnings".to_owned(), Value::from(ready.warnings.clone())),
    ];
    logging::json_line(timestamp, "INFO", "eddyline", &fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    fn ready() -> Ready {
        Ready {
            listen: vec!["127.0.0.1:4437".parse().unwrap(), "[::1]:4437".parse().unwrap()],
            data: PathBuf::from("/srv/eddyline"),
            facts: vec![
                ("version".to_owned(), "0.1.0".to_owned()),
                ("cores".to_owned(), "2 of 2".to_owned()),
                ("data".to_owned(), "/srv/eddyline, 12 GiB free\u{1b}".to_owned()),
            ],
            warnings: vec!["the open-file limit is 1024".to_owned()],
            took: Duration::from_millis(123),
        }
    }

    #[test]
    fn a_person_sees_aligned_facts_then_warnings_then_ready() {
        assert_eq!(
            block(&ready()).join("\n"),
            "  version  0.1.0\n\
             \x20 cores    2 of 2\n\
             \x20 data     /srv/eddyline, 12 GiB free\\u{1b}\n\
             \x20 listen   http://127.0.0.1:4437, http://[::1]:4437\n\
             \x20 warning: the open-file limit is 1024\n\
             ready in 0.12 s"
        );
    }

    #[test]
    fn what_the_broker_told_is_not_told_twice() {
        let mut ready = ready();
        ready.facts.push(("listening".to_owned(), "there".to_owned()));
        let told = complete(&ready);
        assert!(told.iter().all(|(name, _)| name != "listen"), "{told:?}");
        assert_eq!(told.iter().filter(|(name, _)| name == "data").count(), 1);
    }

    #[test]
    fn a_machine_reads_one_event() {
        let line: Value = serde_json::from_str(&event(&ready(), "2026-11-23T10:11:12.000000Z")).unwrap();
        assert_eq!(line["timestamp"], "2026-11-23T10:11:12.000000Z");
        assert_eq!(line["message"], "ready");
        assert_eq!(line["took_ms"], 123);
        assert_eq!(line["facts"]["listen"], "http://127.0.0.1:4437, http://[::1]:4437");
        assert_eq!(line["warnings"][0], "the open-file limit is 1024");
    }
}
