//! `eddyline tail`: prints events of a group, and goes on with those to come. The start is turned into an offset
//! first, so that whatever happens to the connection, each event is printed once and none is left out. Reading as a
//! consumer is in `consumer.rs`.

mod consumer;

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, Connection, encoded, group_path};
use super::event::{Event, Format, Line, parse};
use super::failure::Failure;
use super::interruptible;
use super::output;
use super::position::position;
use super::trouble::Trouble;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline tail orders                        the last 10 events
  eddyline tail orders -f                     and those to come
  eddyline tail orders --since 5m | jq .total
  eddyline tail orders --since 2026-11-23T10:00:00Z --until 2026-11-23T11:00:00Z -o json
  eddyline tail orders --since 1200 -f        from offset 1200 on
  eddyline tail orders --consumer billing     what this consumer has not acked
  eddyline tail orders --consumer billing --ack -f > orders.log";

/// Print events of a group, and follow it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tail {
    /// Group to read
    group: String,
    /// How many of the last events
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 10)]
    #[arg(conflicts_with_all = ["since", "until"])]
    last: u64,
    /// Go on with the events to come, also when the broker was away for a while
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// Begin there: a duration (5m), a time (2026-11-23T10:00:00Z), an offset, `earliest`, `latest`, `id:…`
    #[arg(long, value_name = "POSITION", value_parser = position)]
    since: Option<String>,
    /// End before this: as for --since
    #[arg(long, value_name = "POSITION", value_parser = position)]
    until: Option<String>,
    /// Read as this consumer, from its position on. Without --ack its position stays, and what was printed counts as
    /// an attempt that failed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["last", "since", "until"])]
    consumer: Option<String>,
    /// Ack what was printed
    #[arg(long, requires = "consumer")]
    ack: bool,
    /// How events are written [default: text on a terminal, else raw]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    connection: Connection,
}

/// Events of one request; the broker gives fewer when they are large.
const PAGE_EVENTS: u64 = 100_000;
/// Bytes of one request: as many as the broker holds of an answer, so that it reads none of them twice.
const PAGE_BYTES: &str = "2MiB";
/// Longest line that is read: the largest event in base64, with its key and headers, and some.
const LINE_BYTES_MAX: u64 = 64 << 20;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

impl Tail {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        let terminal = std::io::stdout().is_terminal();
        let format = self.output.unwrap_or(if terminal { Format::Text } else { Format::Raw });
        let mut out = std::io::stdout().lock();
        let printer = &mut Printer { out: &mut out, format };
        match &self.consumer {
            Some(name) => {
                let reader = consumer::Reader::new(&client, &self.group, name, self.ack, self.follow);
                reader.leave_when_interrupted()?;
                reader.run(printer)
            }
            None => interruptible(|| self.print(&client, printer)),
        }
    }

    fn print(&self, client: &Client, printer: &mut Printer<'_>) -> Result<(), Failure> {
        let from = match (&self.since, &self.until) {
            (Some(since), _) => since.clone(),
            (None, Some(_)) => "earliest".to_owned(),
            (None, None) if self.last == 0 => "latest".to_owned(),
            (None, None) => format!("last:{}", self.last),
        };
        let start = resolve(client, &self.group, &from)?;
        if self.follow {
            return follow(client, &self.group, start.offset, printer);
        }
        // Both ends are fixed before the first event is printed, so that a busy group comes to an end too.
        let end = match &self.until {
            None => start.tail,
            Some(until) => match until.parse::<u64>() {
                Ok(offset) => offset.min(start.tail),
                Err(_) => resolve(client, &self.group, until)?.offset.min(start.tail),
            },
        };
        pages(client, &self.group, start.offset, end, printer)
    }
}

/// Writes events; what cannot be written ends the command.
struct Printer<'a> {
    out: &'a mut dyn Write,
    format: Format,
}

impl Printer<'_> {
    fn print(&mut self, event: &Event<'_>) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        event.write(self.format, &mut bytes);
        self.out.write_all(&bytes).map_err(Failure::stdout)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::stdout)
    }
}

/// Where to begin, and where the group ended when that was asked.
struct Start {
    offset: u64,
    tail: u64,
}

/// Turns a position into an offset.
fn resolve(client: &Client, group: &str, from: &str) -> Result<Start, Trouble> {
    #[derive(Deserialize)]
    struct List {
        events: Vec<First>,
        next: u64,
        tail: u64,
    }
    #[derive(Deserialize)]
    struct First {
        offset: u64,
    }
    let query = format!("/events?from={}&limit=1&max_bytes=1B", encoded(from));
    let list: List = client.get_json(&group_path(group, &query))?;
    let offset = list.events.first().map_or(list.next, |event| event.offset);
    Ok(Start { offset, tail: list.tail })
}

/// Prints what is there from offset `next` to before `end`, page by page.
fn pages(client: &Client, group: &str, mut next: u64, end: u64, printer: &mut Printer<'_>) -> Result<(), Failure> {
    while next < end {
        let query = format!("/events?from={next}&until={end}&limit={PAGE_EVENTS}&max_bytes={PAGE_BYTES}");
        let answer = client.get(&group_path(group, &query), "application/x-ndjson")?;
        if let Some(gap) = answer.header("Eddyline-Gap") {
            output::say(&format!("gap: offsets {gap} are lost"));
        }
        let mut reader = BufReader::new(answer.into_reader());
        let before = next;
        while let Some(line) = read_line(&mut reader).map_err(|cause| client.lost(cause))? {
            if let Line::Event(event) = understood(&line)? {
                printer.print(&event)?;
                next = event.offset + 1;
            }
        }
        printer.flush()?;
        if next == before {
            break;
        }
    }
    Ok(())
}

/// Prints everything from `next` on, for ever: when the connection ends, for whatever reason, it is made again from
/// the event after the last one that was printed.
fn follow(client: &Client, group: &str, mut next: u64, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut backoff = BACKOFF_MIN;
    let mut lost = false;
    loop {
        let query = format!("/events?from={next}&live=ndjson");
        let cause = match client.get(&group_path(group, &query), "application/x-ndjson") {
            Ok(answer) => {
                if lost {
                    output::say(&format!("connected again, going on at offset {next}"));
                }
                lost = false;
                let mut reader = BufReader::new(answer.into_reader());
                live(&mut reader, &mut next, &mut backoff, printer)?
            }
            Err(Trouble::Unreachable { cause, .. }) => cause,
            // Draining or recovering: it will be back.
            Err(Trouble::Refused(refusal)) if refusal.status == 503 => refusal.problem.code.clone(),
            Err(trouble) => return Err(trouble.into()),
        };
        if !lost {
            output::say(&format!("the broker went away at offset {next} ({cause}), trying again"));
            lost = true;
        }
        std::thread::sleep(backoff.mul_f64(0.5 + fastrand::f64() / 2.0));
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Prints what one live connection brings; gives the reason why it ended.
fn live(
    reader: &mut BufReader<impl Read>,
    next: &mut u64,
    backoff: &mut Duration,
    printer: &mut Printer<'_>,
) -> Result<String, Failure> {
    loop {
        // What is printed is seen before more is waited for.
        if !reader.buffer().contains(&b'\n') {
            printer.flush()?;
        }
        let line = match read_line(reader) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok("it closed the connection".to_owned()),
            Err(cause) => return Ok(cause),
        };
        *backoff = BACKOFF_MIN;
        match understood(&line)? {
            Line::Event(event) => {
                printer.print(&event)?;
                *next = event.offset + 1;
            }
            Line::Frame(frame) if frame.name == "goaway" => {
                return Ok("it is shutting down".to_owned());
            }
            Line::Frame(frame) if frame.name == "gap" => output::say(&format!("gap: {line}")),
            Line::Frame(_) => {}
        }
    }
}

/// The next line that is not empty; `None` at the end of the answer. A line that is cut off is an error.
fn read_line(reader: &mut impl BufRead) -> Result<Option<String>, String> {
    loop {
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        read.map_err(|error| format!("the answer was cut short: {error}"))?;
        match bytes.pop() {
            None => return Ok(None),
            Some(b'\n') if bytes.is_empty() => {}
            Some(b'\n') => {
                return String::from_utf8(bytes).map(Some).map_err(|error| error.to_string());
            }
            Some(_) => return Err("the answer ended within a line".to_owned()),
        }
    }
}

fn understood(line: &str) -> Result<Line<'_>, Failure> {
    parse(line).map_err(|why| Failure::failed(format!("the broker sent a line that is not understood ({why}): {line}")))
}

#[cfg(test)]
mod tests;
