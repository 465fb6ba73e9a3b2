//! `eddyline produce`: sends events, one request at a time, and counts what the broker answered for.

use std::io::{BufReader, Cursor, IsTerminal};

use super::batches::Batches;
use super::client::{Client, Connection, group_path};
use super::failure::Failure;
use super::output;
use super::sender::{Pace, Sender, Tally, watched};
use super::trouble::Trouble;
use crate::units::parse_count;
use ureq::http::Method;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline produce orders '{\"id\":1}' '{\"id\":2}'
  eddyline produce orders --create < orders.ndjson
  journalctl -f -o json | eddyline produce logs --key \"$HOSTNAME\"
  eddyline produce orders --producer-id import-7 < orders.ndjson

With --producer-id a run that was cut off is simply started again with the same input and the
same --batch: what is stored already is recognised and not stored twice. Another input needs
another name, or the next --producer-epoch.";

/// Produce events: the VALUEs, or stdin with one event a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Produce {
    /// Group to produce to
    group: String,
    /// Events; without any, each line of stdin is one (empty lines are skipped)
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
    /// Key of all these events
    #[arg(long)]
    key: Option<String>,
    /// Events of one request [default: 500, fewer with a low --rate]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<u64>,
    /// Events a second at most, such as 50 or 10k
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    rate: Option<u64>,
    /// Create the group if it is not there
    #[arg(long)]
    create: bool,
    /// Name of this producer, so that the broker recognises what it has already
    #[arg(long, value_name = "NAME")]
    producer_id: Option<String>,
    /// Counts the inputs sent under one name; a new epoch begins a new sequence
    #[arg(long, value_name = "N", default_value_t = 0, requires = "producer_id")]
    producer_epoch: u64,
    #[command(flatten)]
    connection: Connection,
}

const BATCH_EVENTS: u64 = 500;

fn at_least_one(text: &str) -> Result<u64, String> {
    match parse_count(text) {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

impl Produce {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        if self.values.is_empty() && std::io::stdin().is_terminal() {
            output::say("reading events, one a line; Ctrl-D ends");
        }
        let tally = watched();
        let result = self.produce(&client, &tally);
        if result.is_ok() || tally.events() > 0 {
            tally.finish();
        }
        result
    }

    fn produce(&self, client: &Client, tally: &Tally) -> Result<(), Failure> {
        if self.create {
            create(client, &self.group)?;
        }
        let producer = self.producer_id.as_ref().map(|name| (name.clone(), self.producer_epoch));
        let exact = producer.is_some();
        let pace = self.rate.map(Pace::new);
        let mut sender = Sender::new(client, &self.group, self.key.clone(), producer, tally);
        if let [value] = self.values.as_slice() {
            return sender.single(value);
        }
        let mut batches = if self.values.is_empty() {
            Batches::new(BufReader::with_capacity(1 << 16, std::io::stdin()), self.batch_events(), exact)
        } else {
            Batches::new(Cursor::new(one_a_line(&self.values)?), self.batch_events(), true)
        };
        while let Some(batch) = batches.next()? {
            if let Some(pace) = &pace {
                pace.wait(tally.events());
            }
            sender.batch(&batch)?;
        }
        Ok(())
    }

    /// Events of a request. A low rate is kept smooth by at least ten requests a second.
    fn batch_events(&self) -> u64 {
        let smooth = self.rate.map_or(BATCH_EVENTS, |rate| (rate / 10).clamp(1, BATCH_EVENTS));
        self.batch.unwrap_or(smooth)
    }
}

/// Makes the group unless it is there; its configuration, if it has one, stays as it is.
fn create(client: &Client, group: &str) -> Result<(), Failure> {
    // No configuration at all: an existing group keeps its own.
    let none = Some(("application/json", b"".as_slice()));
    match client.send(&Method::PUT, &group_path(group, ""), &[], none) {
        Ok(answer) => {
            if answer.status() == 201 {
                output::say(&format!("created group {group}"));
            }
            Ok(())
        }
        Err(Trouble::Refused(refusal)) if refusal.status == 409 => Ok(()),
        Err(trouble) => Err(trouble.into()),
    }
}

/// Several values as lines. A value that cannot be a line is refused: it would arrive as something else.
fn one_a_line(values: &[String]) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    for (index, value) in values.iter().enumerate() {
        if value.trim().is_empty() || value.contains('\n') || value.ends_with('\r') {
            let message = format!("VALUE {} is empty or holds a line break", index + 1);
            return Err(Failure::usage(message).hint("such an event is produced alone: give only this VALUE"));
        }
        body.extend_from_slice(value.as_bytes());
        body.push(b'\n');
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::super::failure::Exit;
    use super::super::fake::{Asked, Fake, answer};
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        produce: Produce,
    }

    fn parsed(line: &[&str]) -> Result<Produce, clap::Error> {
        Only::try_parse_from([&["produce", "orders"], line].concat()).map(|only| only.produce)
    }

    fn stored(last: u64, count: u64) -> String {
        answer("200 OK", "", &format!("{{\"last_offset\":{last},\"count\":{count},\"duplicate\":false}}"))
    }

    /// Runs `produce orders` with `line` against `script`; gives what was asked and how it ended.
    fn produced(script: &[String], line: &[&str]) -> (Vec<Asked>, Result<(), Failure>, String) {
        let fake = Fake::new(script);
        let tally = Tally::default();
        let result = parsed(line).unwrap().produce(&fake.client(), &tally);
        (script.iter().map(|_| fake.asked()).collect(), result, tally.summary())
    }

    #[test]
    fn one_value_is_sent_as_it_is() {
        let (asked, result, said) = produced(&[stored(7, 1)], &["a\nb", "--key", "k"]);
        assert_eq!((result, said.as_str()), (Ok(()), "1 event in 1 request, last offset 7"));
        assert_eq!(asked[0].line, "POST /v1/groups/orders/events HTTP/1.1");
        assert_eq!(asked[0].body, "a\nb");
        assert_eq!(asked[0].header("eddyline-key"), Some("k"));
        assert_eq!(asked[0].header("content-type"), Some("text/plain"));
        assert_eq!(asked[0].header("producer-id"), None);
    }

    #[test]
    fn several_values_are_batches_with_numbers() {
        let line = ["a", "b", "c", "--batch", "2", "--producer-id", "p", "--producer-epoch", "3"];
        let (asked, result, said) = produced(&[stored(7, 2), stored(8, 1)], &line);
        assert_eq!((result, said.as_str()), (Ok(()), "3 events in 2 requests, last offset 8"));
        let seen: Vec<_> = asked
            .iter()
            .map(|asked| (asked.line.as_str(), asked.body.as_str(), asked.header("producer-seq")))
            .collect();
        let line = "POST /v1/groups/orders/batch HTTP/1.1";
        assert_eq!(seen, [(line, "a\nb\n", Some("0")), (line, "c\n", Some("1"))]);
        assert_eq!(asked[0].header("producer-id"), Some("p"));
        assert_eq!(asked[1].header("producer-epoch"), Some("3"));
    }

    #[test]
    fn values_that_cannot_be_lines_are_refused_before_anything_is_sent() {
        for bad in ["", " ", "a\nb", "a\r"] {
            let (_, result, _) = produced(&[], &["good", bad]);
            let failure = result.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{bad:?}");
            assert!(failure.message.starts_with("VALUE 2"), "{failure:?}");
        }
    }

    #[test]
    fn a_group_is_created_unless_it_is_there() {
        for status in ["201 Created", "200 OK", "409 Conflict"] {
            let (asked, result, _) = produced(&[answer(status, "", "{}"), stored(0, 1)], &["a", "--create"]);
            assert_eq!(result, Ok(()), "{status}");
            assert_eq!((asked[0].line.as_str(), asked[0].body.as_str()), ("PUT /v1/groups/orders HTTP/1.1", ""));
        }
        let bad = answer("400 Bad Request", "", r#"{"code":"bad_group","detail":"no such name"}"#);
        let (_, result, _) = produced(&[bad], &["a", "--create"]);
        assert_eq!(result.unwrap_err().message, "bad_group: no such name");
    }

    #[test]
    fn a_low_rate_makes_small_requests() {
        let table = [(&[][..], 500), (&["--rate", "50"], 5), (&["--rate", "3"], 1), (&["--rate", "50k"], 500)];
        for (line, events) in table {
            assert_eq!(parsed(line).unwrap().batch_events(), events, "{line:?}");
        }
        assert_eq!(parsed(&["--rate", "50", "--batch", "7"]).unwrap().batch_events(), 7);
        for line in [&["--batch", "0"][..], &["--rate", "0"], &["--producer-epoch", "1"]] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let start = std::time::Instant::now();
        let (_, result, _) = produced(&[stored(1, 2), stored(3, 2)], &["a", "b", "c", "d", "--rate", "20"]);
        assert_eq!(result, Ok(()));
        // Two events at once, and two when the time of two has passed, 50 ms each.
        assert!(start.elapsed() >= std::time::Duration::from_millis(100), "{:?}", start.elapsed());
    }
}
