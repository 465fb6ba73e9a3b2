//! Stories of a reader: pages, ends, and connections that break.

use super::*;
use crate::cli::failure::Exit;
use crate::cli::fake::{Fake, answer};
use clap::Parser;

#[derive(Parser)]
struct Only {
    #[command(flatten)]
    tail: Tail,
}

fn parsed(line: &[&str]) -> Result<Tail, clap::Error> {
    Only::try_parse_from([&["tail", "orders"], line].concat()).map(|only| only.tail)
}

/// A reader like `head`: takes `left` events and then closes the pipe.
struct Head {
    taken: Vec<u8>,
    left: usize,
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.left -= 1;
        self.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `tail orders` with `line` until it ends or `events` events are printed.
fn tailed(fake: &Fake, line: &[&str], events: usize) -> (String, Result<(), Failure>) {
    let mut head = Head { taken: Vec::new(), left: events };
    let mut printer = Printer { out: &mut head, format: Format::Raw };
    let result = parsed(line).unwrap().print(&fake.client(), &mut printer);
    (String::from_utf8(head.taken).unwrap(), result)
}

fn event(offset: u64) -> String {
    format!(
        "{{\"offset\":{offset},\"received\":\"2026-11-23T10:11:12.000000Z\",\"length\":2,\"encoding\":\"text\",\"data\":\"e{offset}\"}}\n"
    )
}

fn events(offsets: std::ops::Range<u64>) -> String {
    answer("200 OK", "", &offsets.map(event).collect::<String>())
}

fn list(first: Option<u64>, next: u64, tail: u64) -> String {
    let events = first.map_or(String::new(), |offset| event(offset).trim_end().to_owned());
    answer("200 OK", "", &format!("{{\"events\":[{events}],\"next\":{next},\"tail\":{tail}}}"))
}

#[test]
fn the_last_events_are_printed_page_by_page_up_to_the_tail_of_the_start() {
    let fake = Fake::new(&[list(Some(5), 6, 8), events(5..7), events(7..8)]);
    let (text, result) = tailed(&fake, &["-n", "3"], 100);
    assert_eq!((text.as_str(), result), ("e5\ne6\ne7\n", Ok(())));
    assert_eq!(fake.asked().line, "GET /v1/groups/orders/events?from=last%3A3&limit=1&max_bytes=1B HTTP/1.1");
    let page = fake.asked();
    assert_eq!(page.line, "GET /v1/groups/orders/events?from=5&until=8&limit=100000&max_bytes=2MiB HTTP/1.1");
    assert_eq!(page.header("accept"), Some("application/x-ndjson"));
    assert!(fake.asked().line.contains("from=7&until=8&"));
}

#[test]
fn until_ends_it_and_nothing_new_is_no_error() {
    let fake = Fake::new(&[list(Some(0), 1, 8), list(Some(2), 3, 9), events(0..2)]);
    let (text, result) = tailed(&fake, &["--until", "5m"], 100);
    assert_eq!((text.as_str(), result), ("e0\ne1\n", Ok(())));
    assert!(fake.asked().line.contains("from=earliest&"));
    assert!(fake.asked().line.contains("from=ago%3A5m&"));
    assert!(fake.asked().line.contains("from=0&until=2&"));

    let fake = Fake::new(&[list(None, 8, 8)]);
    assert_eq!(tailed(&fake, &["--since", "8"], 100), (String::new(), Ok(())));
}

#[test]
fn following_goes_on_after_the_last_printed_event_whatever_ends_the_connection() {
    let cut = events(0..3);
    let fake = Fake::new(&[
        list(Some(0), 1, 1),
        // An answer that ends in the middle of event 2, and one that is only a goodbye.
        cut[..cut.len() - 9].to_owned(),
        answer("503 Service Unavailable", "", "{\"code\":\"recovering\"}"),
        answer("200 OK", "", &format!("{}{{\"frame\":\"goaway\"}}\n", event(2))),
        answer("200 OK", "", &format!("{{\"frame\":\"heartbeat\",\"tail\":3}}\n\n{}", event(3))),
        answer("200 OK", "", &event(4)),
    ]);
    let (text, result) = tailed(&fake, &["-f"], 4);
    assert_eq!(text, "e0\ne1\ne2\ne3\n");
    assert_eq!(result.unwrap_err().exit, Exit::Done, "a closed pipe is a quiet end");
    let asked: Vec<String> = (0..6).map(|_| fake.asked().line).collect();
    let live = |from: u64| format!("GET /v1/groups/orders/events?from={from}&live=ndjson HTTP/1.1");
    assert_eq!(asked[1..], [live(0), live(2), live(2), live(3), live(4)]);
}

#[test]
fn an_empty_group_is_followed_from_the_tail_of_the_start() {
    let fake = Fake::new(&[list(None, 8, 8), answer("200 OK", "", ""), events(8..10)]);
    let (text, _) = tailed(&fake, &["-f", "-n", "0"], 1);
    assert_eq!(text, "e8\n");
    assert!(fake.asked().line.contains("from=latest&"));
    assert!(fake.asked().line.contains("from=8&live"));
    assert!(fake.asked().line.contains("from=8&live"), "what came in between is not lost");
}

#[test]
fn a_refusal_ends_it() {
    let gone = answer(
        "410 Gone",
        "Content-Type: application/problem+json\r\n",
        "{\"code\":\"gone\",\"detail\":\"offset 3 is no longer kept\",\"earliest\":9}",
    );
    for line in [&["--since", "3"][..], &["--since", "3", "-f"]] {
        let (_, result) = tailed(&Fake::new(std::slice::from_ref(&gone)), line, 1);
        let failure = result.unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, "gone: offset 3 is no longer kept"));
        assert!(failure.hint.unwrap().contains("event still kept is 9"));
    }
}

#[test]
fn a_page_that_is_cut_short_fails_instead_of_ending() {
    let cut = events(0..3);
    let fake = Fake::new(&[list(Some(0), 1, 3), cut[..cut.len() - 9].to_owned()]);
    let (text, result) = tailed(&fake, &["--since", "0"], 100);
    assert_eq!(text, "e0\ne1\n");
    assert_eq!(result.unwrap_err().exit, Exit::Unreachable);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for line in [&["-n", "3", "--since", "1"][..], &["-f", "--until", "9"], &["-n", "1", "--until", "2"]] {
        assert!(parsed(line).is_err(), "{line:?}");
    }
}
