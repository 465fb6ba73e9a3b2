//! Stories of a producer whose broker is slow, gone, or of another opinion.

use super::*;
use crate::cli::failure::Exit;
use crate::cli::fake::{Fake, answer, client};

const BUSY: &str = r#"{"code":"busy","effect":"none","retryable":true,"retry_after_ms":1}"#;

fn stored(last: u64, count: u64, duplicate: bool) -> String {
    answer("200 OK", "", &format!("{{\"last_offset\":{last},\"count\":{count},\"duplicate\":{duplicate}}}"))
}

fn batch(first: u64) -> Batch {
    Batch { body: b"a\nb\n".to_vec(), events: 2, lines: (first, first + 1) }
}

/// Sends two batches of two events to a broker with `script`; gives the numbers it saw and how it ended.
fn sent(script: &[String], producer: Option<&str>) -> (Vec<String>, Result<(), Failure>, String) {
    let fake = Fake::new(script);
    let (client, tally) = (fake.client(), Tally::default());
    let producer = producer.map(|name| (name.to_owned(), 0));
    let mut sender = Sender::new(&client, "orders", None, producer, &tally);
    let result = sender.batch(&batch(1)).and_then(|()| sender.batch(&batch(3)));
    let seen = script.iter().map(|_| fake.asked().header("producer-seq").unwrap_or("-").to_owned()).collect();
    (seen, result, tally.summary())
}

#[test]
fn a_request_that_was_not_taken_is_sent_again() {
    let busy = answer("503 Service Unavailable", "", BUSY);
    let script = [stored(1, 2, false), busy.clone(), busy, stored(3, 2, false)];
    let (seen, result, said) = sent(&script, Some("p"));
    assert_eq!((result, seen), (Ok(()), ["0", "1", "1", "1"].map(str::to_owned).to_vec()));
    assert_eq!(said, "4 events in 2 requests, last offset 3");
}

#[test]
fn a_lost_answer_is_asked_for_again_only_when_the_broker_would_recognise_it() {
    // The second request is read and its connection closed without an answer.
    let script = [stored(1, 2, false), String::new(), stored(3, 2, true)];
    let (seen, result, said) = sent(&script, Some("p"));
    assert_eq!((result, seen), (Ok(()), ["0", "1", "1"].map(str::to_owned).to_vec()));
    assert_eq!(said, "4 events in 2 requests, last offset 3; 2 of them were stored before");

    let (seen, result, said) = sent(&script[..2], None);
    let failure = result.unwrap_err();
    assert_eq!((seen.len(), failure.exit), (2, Exit::Unreachable));
    assert!(failure.message.starts_with("lines 3 to 4: http://"), "{failure:?}");
    assert!(failure.hint.unwrap().starts_with("lines 3 to 4 may or may not be stored"));
    assert_eq!(said, "2 events in 1 request, last offset 1");
}

#[test]
fn a_broker_that_was_never_there_is_not_waited_for() {
    let (client, tally) = (client("http://127.0.0.1:1"), Tally::default());
    let start = Instant::now();
    let failure = Sender::new(&client, "g", None, None, &tally).single("x").unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(start.elapsed() < BACKOFF_MAX);
}

#[test]
fn duplicates_are_counted_and_another_input_under_the_same_name_is_noticed() {
    let (_, result, said) = sent(&[stored(1, 2, true), stored(3, 2, true)], Some("p"));
    assert_eq!(result, Ok(()));
    assert_eq!(said, "4 events in 2 requests, last offset 3; all of them were stored before, none is new");

    let forgotten = answer("200 OK", "", r#"{"group":"orders","duplicate":true}"#);
    let (_, result, said) = sent(&[forgotten.clone(), forgotten], Some("p"));
    assert_eq!(
        (result, said.as_str()),
        (Ok(()), "4 events in 2 requests; all of them were stored before, none is new")
    );

    let (_, result, _) = sent(&[stored(1, 2, true), stored(2, 1, true)], Some("p"));
    let failure = result.unwrap_err();
    assert_eq!(failure.message, "lines 3 to 4: request 1 was stored before, but with 1 events and not 2");
    assert_eq!(failure.exit, Exit::Failed);
}

#[test]
fn a_sequence_that_does_not_fit_says_what_to_do() {
    let refusal = |status, header, code| answer(status, header, &format!("{{\"code\":\"{code}\"}}"));
    let table = [
        (
            refusal("409 Conflict", "Producer-Expected-Seq: 9\r\n", "sequence_gap"),
            "lines 1 to 2: sequence_gap",
            "expects request 9 of `p` and this is request 0",
        ),
        (
            refusal("409 Conflict", "Producer-Expected-Seq: 0\r\n", "producer_unknown"),
            "lines 1 to 2: producer_unknown",
            "has forgotten `p`",
        ),
        (
            refusal("403 Forbidden", "Producer-Epoch: 4\r\n", "producer_fenced"),
            "lines 1 to 2: producer_fenced",
            "use --producer-epoch 4",
        ),
        (refusal("404 Not Found", "", "no_group"), "lines 1 to 2: no_group", "eddyline group create"),
        (refusal("507 Insufficient Storage", "", "disk_full"), "lines 1 to 2: disk_full", "free space there"),
    ];
    for (script, message, hint) in table {
        let (_, result, _) = sent(&[script], Some("p"));
        let failure = result.unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, message));
        assert!(failure.hint.as_ref().unwrap().contains(hint), "{failure:?}");
    }
}
