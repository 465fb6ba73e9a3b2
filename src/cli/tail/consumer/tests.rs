//! Stories of a reader with a position: acks, connections that break, positions that move.

use super::*;
use crate::cli::event::Format;
use crate::cli::fake::{Fake, answer};

fn event(offset: u64) -> String {
    format!("{{\"offset\":{offset},\"length\":2,\"encoding\":\"text\",\"data\":\"e{offset}\"}}\n")
}

/// A stream's answer: the session's frame, and then these lines.
fn stream(lines: &[String]) -> String {
    let opening = "{\"frame\":\"session\",\"session\":\"s-1\",\"next\":0,\"tail\":9,\"attempt\":1}\n".to_owned();
    answer("200 OK", "", &[&[opening], lines].concat().concat())
}

fn frame(text: &str) -> String {
    format!("{{\"frame\":{text}}}\n")
}

fn session() -> String {
    answer("200 OK", "", "{\"session\":\"s-1\",\"epoch\":1,\"next\":0,\"lease_ms\":30000}")
}

fn ack() -> String {
    answer("200 OK", "", "{\"acked_offset\":0,\"changed\":true}")
}

fn gone() -> String {
    "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned()
}

fn problem(status: &str, code: &str) -> String {
    answer(status, "", &format!("{{\"code\":\"{code}\",\"detail\":\"told\"}}"))
}

/// Runs a reader against `script`; gives what it printed, how it ended, and what it asked: line and body.
fn read(script: &[String], ack: bool, follow: bool) -> (String, Result<(), Failure>, Vec<(String, String)>) {
    let fake = Fake::new(script);
    let client = fake.client();
    let mut out = Vec::new();
    let mut printer = Printer { out: &mut out, format: Format::Raw };
    let result = Reader::new(&client, "g", "c", ack, follow).run(&mut printer);
    let asked = (0..script.len()).map(|_| fake.asked()).map(|asked| (asked.line, asked.body)).collect();
    (String::from_utf8(out).unwrap(), result, asked)
}

fn line(method: &str, rest: &str) -> String {
    format!("{method} /v1/groups/g/consumers/c/{rest} HTTP/1.1")
}

#[test]
fn what_is_there_is_printed_and_acked_and_the_session_is_left() {
    let lines = [event(0), event(1), frame("\"up_to_date\",\"tail\":2")];
    let (text, result, asked) = read(&[session(), stream(&lines), ack(), gone()], true, false);
    assert_eq!((text.as_str(), result), ("e0\ne1\n", Ok(())));
    assert_eq!(asked[0].0, line("POST", "session"));
    assert_eq!(asked[1].0, line("GET", "stream?session=s-1"));
    assert_eq!(asked[2], (line("POST", "ack"), r#"{"offset":1,"session":"s-1"}"#.to_owned()));
    assert_eq!(asked[3].0, line("DELETE", "session?session=s-1"));

    let (text, result, asked) = read(&[session(), stream(&lines), gone()], false, false);
    assert_eq!((text.as_str(), result), ("e0\ne1\n", Ok(())));
    assert_eq!(asked[2].0, line("DELETE", "session?session=s-1"), "nothing was acked");
}

#[test]
fn a_broken_connection_goes_on_in_the_same_session_and_prints_nothing_twice() {
    let script = [
        session(),
        stream(&[event(0), event(1)]),
        // The ack is lost, so both come again.
        problem("503 Service Unavailable", "overloaded"),
        stream(&[event(0), event(1), event(2)]),
        ack(),
        stream(&[event(3), frame("\"goaway\",\"reason\":\"suspended\"")]),
        ack(),
        gone(),
    ];
    let (text, result, asked) = read(&script, true, true);
    assert_eq!(text, "e0\ne1\ne2\ne3\n");
    let failure = result.unwrap_err();
    assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, "the consumer was suspended"));
    for place in [1, 3, 5] {
        assert_eq!(asked[place].0, line("GET", "stream?session=s-1"));
    }
    assert_eq!(
        (asked[4].1.as_str(), asked[6].1.as_str()),
        (r#"{"offset":2,"session":"s-1"}"#, r#"{"offset":3,"session":"s-1"}"#)
    );
}

#[test]
fn after_a_rewind_events_are_printed_again_and_acked_in_the_new_name() {
    let lines = [
        event(5),
        frame("\"rewound\",\"session\":\"s-2\",\"epoch\":2,\"to\":4"),
        event(4),
        event(5),
        frame("\"retry\",\"next\":5"),
        event(5),
        frame("\"up_to_date\",\"tail\":6"),
    ];
    // The first ack comes too late; that of 5 is asked for twice.
    let script = [session(), stream(&lines), problem("409 Conflict", "rewound"), ack(), ack(), gone()];
    let (text, result, asked) = read(&script, true, false);
    assert_eq!((text.as_str(), result), ("e5\ne4\ne5\ne5\n", Ok(())));
    assert_eq!(asked[2].1, r#"{"offset":5,"session":"s-1"}"#);
    assert_eq!(asked[3].1, r#"{"offset":5,"session":"s-2"}"#);
    assert_eq!(asked[5].0, line("DELETE", "session?session=s-2"));
}

#[test]
fn who_is_fenced_stands_by_and_then_begins_anew() {
    let script = [
        session(),
        stream(&[event(0), frame("\"goaway\",\"reason\":\"fenced\"")]),
        problem("409 Conflict", "session_active"),
        answer("200 OK", "", "{\"session\":\"t-3\",\"next\":0}"),
        stream(&[event(0), frame("\"goaway\",\"reason\":\"deleted\"")]),
        gone(),
    ];
    let (text, result, asked) = read(&script, false, true);
    assert_eq!((text.as_str(), result.unwrap_err().exit), ("e0\ne0\n", Exit::Refused));
    assert_eq!((&asked[2].0, &asked[3].0), (&line("POST", "session?wait=20s"), &line("POST", "session?wait=20s")));
    assert_eq!(asked[4].0, line("GET", "stream?session=t-3"));

    let (_, result, _) = read(&[problem("409 Conflict", "session_active")], false, false);
    let failure = result.unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.hint.is_some_and(|hint| hint.contains("somebody else")));
}

#[test]
fn what_blocks_it_ends_a_reader_that_does_not_follow() {
    for (reason, ack, ended) in
        [("in_flight", false, Ok(())), ("poison", false, Err(Exit::Failed)), ("delay", true, Err(Exit::Failed))]
    {
        let blocked = frame(&format!("\"blocked\",\"reason\":\"{reason}\""));
        let (_, result, _) = read(&[session(), stream(&[blocked]), gone()], ack, false);
        assert_eq!(result.map_err(|failure| failure.exit), ended, "{reason}");
    }
}
