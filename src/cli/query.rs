//! `eddyline query`: asks the broker about a group as a time series, and shows the rows as a table, as they come, or drawn.
//! The language is the broker's; a mistake is shown as the broker points at it. It also shows the queries that run, and
//! stops one.

mod plot;
mod progress;
mod running;

use std::io::{IsTerminal, Read, Write};

use indicatif::ProgressDrawTarget;
use rustix::fs::{FileType, fstat};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use ureq::http::Method;

use super::client::{Answer, Client, Connection};
use super::failure::{Exit, Failure};
use super::output::{self, Side, several};
use super::trouble::Trouble;
use progress::Watch;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline query 'SELECT * IN orders ORDER BY received DESC LIMIT 5'
  eddyline query 'SELECT count(), avg(data.total) IN orders FROM now() - 1h SAMPLE BY 5m'
  eddyline query 'SELECT count() IN orders SAMPLE BY 1h FILL(0)' --plot
  eddyline query 'SELECT received, data.total IN orders' -o csv > totals.csv
  eddyline query 'EXPLAIN SELECT count() IN orders SAMPLE BY 1h'
  eddyline query --running
  eddyline query --stop 3e6b1c0a-52d1-4a7e-9d0b-7f1c52a0d4be

Ctrl-C ends the query on the broker, too.";

/// Query a group as a time series
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").args(["query", "running", "stop"]).required(true))]
pub(super) struct Query {
    /// The query
    query: Option<String>,
    /// List the queries that run on the broker and how far they are
    #[arg(long)]
    running: bool,
    /// Stop the query of that id, as --running shows it
    #[arg(long, value_name = "ID", conflicts_with = "output")]
    stop: Option<String>,
    /// How rows are written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Draw the slices of a query with SAMPLE BY
    #[arg(long, conflicts_with_all = ["output", "running", "stop"])]
    plot: bool,
    #[command(flatten)]
    connection: Connection,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// In columns
    Table,
    /// The answer as it is
    Json,
    /// An object a line
    Ndjson,
    /// With a line of names
    Csv,
}

/// The answer of a broker.
#[derive(Debug, Deserialize)]
struct Rows {
    columns: Vec<Column>,
    rows: Vec<Vec<Box<RawValue>>>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Query {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.connection.client()?;
        match (&self.query, &self.stop) {
            (Some(query), _) => self.show(&client, query),
            (None, Some(id)) => running::stop(&client, id),
            (None, None) => running::list(&client, self.output.unwrap_or(Format::Table)),
        }
    }

    fn show(&self, client: &Client, query: &str) -> Result<(), Failure> {
        if self.plot && follows(query) {
            return Err(Failure::usage("--plot draws a result that has an end: leave out FOLLOW"));
        }
        match self.output.unwrap_or(if follows(query) { Format::Ndjson } else { Format::Table }) {
            Format::Table => {
                let (answer, watch) = ask(client, query, "application/json")?;
                let rows = answer.json::<Rows>()?;
                drop(watch);
                if self.plot {
                    let value = |cell: &RawValue| serde_json::from_str(cell.get()).unwrap_or_default();
                    let row = |row: &Vec<Box<RawValue>>| row.iter().map(|cell| value(cell)).collect();
                    let values: Vec<Vec<Value>> = rows.rows.iter().map(row).collect();
                    return output::lines(&plot::draw(&rows.columns, &values)?);
                }
                show(&rows)
            }
            Format::Json => {
                let (answer, watch) = ask(client, query, "application/json")?;
                let text = answer.text()?;
                drop(watch);
                output::line(&text)
            }
            Format::Ndjson => copy(client, ask(client, query, "application/x-ndjson")?),
            Format::Csv => copy(client, ask(client, query, "text/csv")?),
        }
    }
}

/// Whether a query goes on with what comes, line by line.
fn follows(query: &str) -> bool {
    let mut words = query.split(|c: char| matches!(c, ';' | ')') || c.is_whitespace()).filter(|word| !word.is_empty());
    let is = |word: Option<&str>, keyword: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(keyword));
    let (first, last, before) = (words.next(), words.next_back(), words.next_back());
    // A group may have that name.
    !is(first, "EXPLAIN") && is(last, "FOLLOW") && !is(before, "IN")
}

/// Asks, and shows on a terminal how far the query is, until what comes with the answer is dropped.
fn ask(client: &Client, query: &str, accept: &str) -> Result<(Answer, Option<Watch>), Failure> {
    let id = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid().to_string();
    let target = format!("/v1/query?id={id}");
    let terminal = std::io::stderr().is_terminal();
    let watch = terminal.then(|| Watch::begin(client.clone(), id, ProgressDrawTarget::stderr()));
    // The broker has a limit of its own, and tells when it is met.
    let client = client.clone().patient();
    let send = |target: &str| {
        client.send(&Method::POST, target, &[("Accept", accept)], Some(("text/plain", query.as_bytes())))
    };
    let answer = match send(&target) {
        // An older broker gives queries no ids.
        Err(Trouble::Refused(refusal)) if refusal.problem.code == "unknown_parameter" => send("/v1/query"),
        answer => answer,
    };
    match answer {
        Ok(answer) => Ok((answer, watch)),
        Err(Trouble::Refused(refusal)) => Err(match refusal.problem.more.get("drawn").and_then(Value::as_str) {
            Some(drawn) => {
                Failure { exit: Exit::Refused, message: format!("{}\n{drawn}", refusal.problem.detail), hint: None }
            }
            None => Trouble::Refused(refusal).into(),
        }),
        Err(trouble) => Err(trouble.into()),
    }
}

/// Writes an answer as it comes in.
fn copy(client: &Client, (answer, mut watch): (Answer, Option<Watch>)) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    // What is no file may end up on the terminal, and the rows would stand among what is drawn there.
    if !fstat(&stdout).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile) {
        watch = None;
    }
    let mut reader = answer.into_reader();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut piece).map_err(|error| Failure {
            exit: Exit::Unreachable,
            message: format!("{}: the answer broke off: {error}", client.url()),
            hint: Some(
                "the query was stopped or met a limit or damage, or the broker ended: its log says which".into(),
            ),
        })?;
        if read == 0 {
            drop(watch);
            return Ok(());
        }
        stdout.write_all(&piece[..read]).and_then(|()| stdout.flush()).map_err(Failure::stdout)?;
    }
}

/// Writes rows in columns; numbers stand right.
fn show(rows: &Rows) -> Result<(), Failure> {
    let side = |column: &Column| match column.kind.as_str() {
        "integer" | "number" => Side::Right,
        _ => Side::Left,
    };
    let titles: Vec<_> = rows.columns.iter().map(|column| (column.name.as_str(), side(column))).collect();
    let cells: Vec<Vec<String>> =
        rows.rows.iter().map(|row| row.iter().map(|value| cell(value.get())).collect()).collect();
    output::lines(&output::table(&titles, &cells))?;
    if rows.next.is_some() {
        let shown = several(rows.rows.len() as u64, "row");
        output::say(&format!(
            "{shown} shown of more: raise LIMIT, or leave it out and take all with -o ndjson or -o csv"
        ));
    }
    Ok(())
}

/// A value as it stands in the answer, made short; what is no value to us, as a number that no double can hold, as it is.
fn cell(json: &str) -> String {
    match serde_json::from_str(json) {
        Ok(Value::Null) => "-".to_owned(),
        Ok(Value::String(text)) => text,
        Ok(Value::Number(number)) if number.is_f64() => short(number.as_f64().unwrap_or_default()),
        _ => json.to_owned(),
    }
}

fn short(number: f64) -> String {
    let digits = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    match number.abs() {
        0.0 => "0".to_owned(),
        0.001..1e15 => digits(&format!("{number:.3}")),
        _ => {
            let text = format!("{number:.3e}");
            text.split_once('e').map_or(text.clone(), |(number, power)| format!("{}e{power}", digits(number)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer};
    use super::*;

    #[test]
    fn an_older_broker_is_asked_without_an_id() {
        let refusal = answer("400 Bad Request", "", r#"{"code":"unknown_parameter"}"#);
        let fake = Fake::new(&[refusal, answer("200 OK", "", "rows")]);
        let (answer, _) = ask(&fake.client(), "SELECT", "text/csv").unwrap();
        assert_eq!(answer.text().unwrap(), "rows");
        assert!(fake.asked().line.starts_with("POST /v1/query?id="));
        let asked = fake.asked();
        assert_eq!((asked.line.as_str(), asked.body.as_str()), ("POST /v1/query HTTP/1.1", "SELECT"));
    }

    #[test]
    fn cells_are_short() {
        for (value, expected) in [
            ("null", "-"),
            ("\"text\"", "text"),
            ("7", "7"),
            ("7.0", "7"),
            ("100.0", "100"),
            ("0.6666666666666666", "0.667"),
            ("-0.0", "0"),
            ("-0.0004", "-4e-4"),
            ("1.5e-9", "1.5e-9"),
            ("1e308", "1e308"),
            ("-9.223372036854775e18", "-9.223e18"),
            ("9007199254740993", "9007199254740993"),
            ("1e400", "1e400"),
            ("true", "true"),
            ("{\"b\": 1e400, \"a\": 1}", "{\"b\": 1e400, \"a\": 1}"),
        ] {
            assert_eq!(cell(value), expected);
        }
    }

    #[test]
    fn a_query_that_follows_is_told_from_one_that_has_the_word() {
        for (query, expected) in [
            ("SELECT * IN g FOLLOW", true),
            ("SELECT * IN g follow ; ", true),
            ("SELECT * IN g SAMPLE BY 1h FILL(0)FOLLOW", true),
            ("SELECT * IN follow FOLLOW", true),
            ("SELECT * IN follow", false),
            ("SELECT * IN web-follow", false),
            ("EXPLAIN SELECT * IN g FOLLOW", false),
            ("", false),
        ] {
            assert_eq!(follows(query), expected, "{query}");
        }
    }
}
