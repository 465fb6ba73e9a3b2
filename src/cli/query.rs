//! `eddyline query`: asks the broker about a group as a time series, and shows the rows as a table, as they come, or drawn.
//! The language is the broker's; a mistake is shown as the broker points at it.

mod plot;

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;
use ureq::http::Method;

use super::client::{Answer, Client, Connection};
use super::failure::{Exit, Failure};
use super::output::{self, Side, several};
use super::trouble::Trouble;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline query 'SELECT * IN orders ORDER BY received DESC LIMIT 5'
  eddyline query 'SELECT count(), avg(data.total) IN orders FROM now() - 1h SAMPLE BY 5m'
  eddyline query 'SELECT count() IN orders SAMPLE BY 1h FILL(0)' --plot
  eddyline query 'SELECT received, data.total IN orders' -o csv > totals.csv
  eddyline query 'EXPLAIN SELECT count() IN orders SAMPLE BY 1h'

Ctrl-C ends the query on the broker, too.";

/// Query a group as a time series
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Query {
    /// The query
    query: String,
    /// How rows are written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Draw the slices of a query with SAMPLE BY
    #[arg(long, conflicts_with = "output")]
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
    rows: Vec<Vec<Value>>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// How long a query runs before it is said that it does.
const QUIET: Duration = Duration::from_millis(500);

impl Query {
    pub(super) fn run(self) -> Result<(), Failure> {
        // The broker has a limit of its own, and tells when it is met.
        let client = self.connection.client()?.patient();
        // What follows comes line by line.
        let text = self.query.trim_end_matches(|c: char| c == ';' || c.is_whitespace());
        let follows = text.to_ascii_uppercase().ends_with("FOLLOW");
        match self.output.unwrap_or(if follows { Format::Ndjson } else { Format::Table }) {
            Format::Table => {
                let rows = self.ask(&client, "application/json")?.json::<Rows>()?;
                if self.plot {
                    return output::lines(&plot::draw(&rows.columns, &rows.rows)?);
                }
                show(&rows)
            }
            Format::Json => output::line(&self.ask(&client, "application/json")?.text()?),
            Format::Ndjson => copy(&client, self.ask(&client, "application/x-ndjson")?),
            Format::Csv => copy(&client, self.ask(&client, "text/csv")?),
        }
    }

    /// Asks, and shows on a terminal that it takes a while.
    fn ask(&self, client: &Client, accept: &str) -> Result<Answer, Failure> {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} the query runs, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(QUIET);
        let body = Some(("text/plain", self.query.as_bytes()));
        let answer = client.send(&Method::POST, "/v1/query", &[("Accept", accept)], body);
        bar.finish_and_clear();
        answer.map_err(|trouble| match trouble {
            Trouble::Refused(refusal) => match refusal.problem.more.get("drawn").and_then(Value::as_str) {
                Some(drawn) => {
                    Failure { exit: Exit::Refused, message: format!("{}\n{drawn}", refusal.problem.detail), hint: None }
                }
                None => Trouble::Refused(refusal).into(),
            },
            trouble => trouble.into(),
        })
    }
}

/// Writes an answer as it comes in.
fn copy(client: &Client, answer: Answer) -> Result<(), Failure> {
    let mut reader = answer.into_reader();
    let mut stdout = std::io::stdout().lock();
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = reader.read(&mut piece).map_err(|error| client.lost(error.to_string()))?;
        if read == 0 {
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
    let cells: Vec<Vec<String>> = rows.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    output::lines(&output::table(&titles, &cells))?;
    if rows.next.is_some() {
        let shown = several(rows.rows.len() as u64, "row");
        output::say(&format!("{shown} shown of more: raise LIMIT, or take all with -o ndjson or -o csv"));
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let text = format!("{:.3}", number.as_f64().unwrap_or_default());
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short() {
        for (value, expected) in [
            (json!(null), "-"),
            (json!("text"), "text"),
            (json!(7), "7"),
            (json!(7.0), "7"),
            (json!(100.0), "100"),
            (json!(2.0 / 3.0), "0.667"),
            (json!(true), "true"),
            (json!({"a": 1}), "{\"a\":1}"),
        ] {
            assert_eq!(cell(&value), expected);
        }
    }
}
