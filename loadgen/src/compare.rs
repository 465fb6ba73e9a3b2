//! `loadgen compare`: two reports beside each other, and whether the second is worse by more than is allowed. Reads what
//! `report` wrote; knows nothing of how it was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::{CompareArguments, Output};
use crate::process::exit;
use crate::report;
use crate::units::{nanoseconds, rate};

/// Clocks that say something about the broker, and those of their percentiles that are judged: the rest is too rare in
/// most runs to be the same twice.
const CLOCKS: [&str; 6] = ["end_to_end", "response", "service", "answer", "delivery", "ack"];
const JUDGED: [(&str, &str); 3] = [("p50", "p50"), ("p90", "p90"), ("p99", "p99")];
const SHOWN: [(&str, &str); 2] = [("p99.9", "p99_9"), ("max", "max")];

/// What two runs should have in common.
const SETTINGS: [&str; 3] = ["/summary/profile", "/summary/loop", "/summary/load"];

/// Why two reports cannot be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// There is none.
    #[error("cannot read {0}: {1}\n  give a report.json, or the directory that --out named")]
    Unreadable(PathBuf, std::io::Error),
    /// Not what was expected.
    #[error("{0} is no report of this version of loadgen: {1}")]
    Foreign(PathBuf, String),
}

/// What is compared, and which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Nanoseconds,
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    name: String,
    unit: Unit,
    a: f64,
    b: f64,
    judged: bool,
}

impl Row {
    /// How much worse the second is, as a share of the first; less than zero if it is better.
    fn worse(&self) -> f64 {
        match self.unit {
            Unit::PerSecond => 1.0 - self.b / self.a,
            Unit::Nanoseconds => self.b / self.a - 1.0,
        }
    }

    fn regressed(&self, allowed: Option<f64>) -> bool {
        self.judged && allowed.is_some_and(|allowed| self.worse() > allowed)
    }
}

/// Compares and says how the process ends.
pub fn main(arguments: &CompareArguments) -> ExitCode {
    let (a, b) = match load(&arguments.a).and_then(|a| Ok((a, load(&arguments.b)?))) {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("error: {error}");
            return exit::USAGE.into();
        }
    };
    let allowed = arguments.max_regression;
    differences(&a, &b).iter().for_each(|difference| eprintln!("note: the runs differ in {difference}"));
    let rows = rows(&a, &b);
    match arguments.output {
        Output::Text => print!("{}", table(&a, &b, &rows, allowed)),
        Output::Json => println!("{}", object(&a, &b, &rows, allowed)),
    }
    let unsound: Vec<_> = [&a, &b].into_iter().filter(|report| !quotable(report)).collect();
    unsound.iter().for_each(|report| eprintln!("note: a run is {}: its numbers may not be quoted", verdict(report)));
    let regressed: Vec<&Row> = rows.iter().filter(|row| row.regressed(allowed)).collect();
    for row in &regressed {
        let [worse, most] = [row.worse(), allowed.unwrap_or_default()].map(|share| share * 100.0);
        eprintln!("regression: {} is worse by {worse:.1} %, more than {most} %", row.name);
    }
    match allowed {
        Some(_) if !unsound.is_empty() || rows.is_empty() => exit::FAILED.into(),
        Some(_) if !regressed.is_empty() => exit::MISSED.into(),
        _ => ExitCode::SUCCESS,
    }
}

fn load(path: &Path) -> Result<Value, CompareError> {
    let file = if path.is_dir() { path.join("report.json") } else { path.to_owned() };
    let bytes = fs::read(&file).map_err(|error| CompareError::Unreadable(file.clone(), error))?;
    let foreign = |why: String| CompareError::Foreign(file.clone(), why);
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| foreign(error.to_string()))?;
    match value["schema"].as_u64() {
        Some(schema) if schema == u64::from(report::SCHEMA) && value["clocks"].is_object() => Ok(value),
        schema => Err(foreign(format!("its schema is {schema:?}, not {}", report::SCHEMA))),
    }
}

fn verdict(report: &Value) -> &str {
    report["summary"]["verdict"].as_str().unwrap_or("of no verdict")
}

fn quotable(report: &Value) -> bool {
    matches!(verdict(report), "VALID" | "OVERLOADED")
}

/// What is set otherwise, in words. Seeds are meant to differ.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |name: &str, a: &Value, b: &Value| {
        if a != b && name != "seed" {
            found.push(format!("{name}: {a} and {b}"));
        }
    };
    for pointer in SETTINGS {
        let [a, b] = [a, b].map(|report| report.pointer(pointer).unwrap_or(&Value::Null));
        match (a.as_object(), b.as_object()) {
            (Some(of_a), Some(of_b)) => {
                let names = of_a.keys().chain(of_b.keys().filter(|name| !of_a.contains_key(*name)));
                names.for_each(|name| look(name, &a[name], &b[name]));
            }
            _ => look(pointer.rsplit('/').next().unwrap_or_default(), a, b),
        }
    }
    look("machine", &a["machine"]["processor"], &b["machine"]["processor"]);
    found
}

/// The part of a summary that the rates are in.
fn measured(report: &Value) -> &Value {
    let summary = &report["summary"];
    if summary["services"].is_object() { &summary["services"]["measured"] } else { &summary["measured"] }
}

/// What both reports have; values that are zero in the first have no ratio.
fn rows(a: &Value, b: &Value) -> Vec<Row> {
    let [rates_a, rates_b] = [a, b].map(|report| &measured(report)["events_per_second"]);
    let mut rows = Vec::new();
    let mut row = |name: String, unit: Unit, judged: bool, a: &Value, b: &Value| {
        if let (Some(a), Some(b)) = (a.as_f64(), b.as_f64())
            && a > 0.0
        {
            rows.push(Row { name, unit, a, b, judged });
        }
    };
    row("events a second".into(), Unit::PerSecond, true, rates_a, rates_b);
    for clock in CLOCKS {
        let [of_a, of_b] = [a, b].map(|report| &report["clocks"][clock]["percentiles_ns"]);
        for ((name, field), judged) in JUDGED.map(|it| (it, true)).into_iter().chain(SHOWN.map(|it| (it, false))) {
            let name = format!("{} {name}", clock.replace('_', " "));
            row(name, Unit::Nanoseconds, judged, &of_a[field], &of_b[field]);
        }
    }
    rows
}

fn table(a: &Value, b: &Value, rows: &[Row], allowed: Option<f64>) -> String {
    let mut text = format!("{:<18} {:>12} {:>12} {:>8}\n", "", "A", "B", "B/A");
    text += &format!("{:<18} {:>12} {:>12}\n", "verdict", verdict(a), verdict(b));
    for row in rows {
        let [a, b] = [row.a, row.b].map(|value| match row.unit {
            Unit::PerSecond => rate(value),
            Unit::Nanoseconds => nanoseconds(value as u64),
        });
        let mark = if row.regressed(allowed) { "  regression" } else { "" };
        text += &format!("{:<18} {a:>12} {b:>12} {:>8.3}{mark}\n", row.name, row.b / row.a);
    }
    text
}

fn object(a: &Value, b: &Value, rows: &[Row], allowed: Option<f64>) -> Value {
    let rows = rows.iter().map(|row| {
        json!({
            "name": row.name,
            "unit": match row.unit { Unit::PerSecond => "per_second", Unit::Nanoseconds => "ns" },
            "a": row.a,
            "b": row.b,
            "ratio": row.b / row.a,
            "judged": row.judged,
            "regressed": row.regressed(allowed),
        })
    });
    json!({
        "verdicts": [verdict(a), verdict(b)],
        "max_regression": allowed,
        "differences": differences(a, b),
        "rows": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rate: f64, p99: u64, max: u64) -> Value {
        let percentiles = json!({ "p50": 1_000_000, "p90": 2_000_000, "p99": p99, "p99_9": p99, "max": max });
        json!({
            "schema": report::SCHEMA,
            "machine": { "processor": "x" },
            "summary": {
                "profile": "produce",
                "verdict": "VALID",
                "load": { "connections": 64, "seed": rate },
                "measured": { "events_per_second": rate },
            },
            "clocks": { "service": { "percentiles_ns": percentiles } },
        })
    }

    fn regressed(b: &Value, allowed: f64) -> Vec<String> {
        let rows = rows(&report(1000.0, 4_000_000, 9_000_000), b);
        rows.into_iter().filter(|row| row.regressed(Some(allowed))).map(|row| row.name).collect()
    }

    #[test]
    fn only_what_is_worse_by_more_than_allowed_and_judged_is_a_regression() {
        for (rate, p99, max, expected) in [
            (1000.0, 4_000_000, 9_000_000, &[][..]),
            (2000.0, 1_000_000, 1_000_000, &[]),
            (905.0, 4_390_000, 90_000_000, &[]),
            (895.0, 4_000_000, 9_000_000, &["events a second"]),
            (1000.0, 4_410_000, 9_000_000, &["service p99"]),
            (10.0, 40_000_000, 9_000_000, &["events a second", "service p99"]),
        ] {
            assert_eq!(regressed(&report(rate, p99, max), 0.1), expected, "{rate} {p99} {max}");
        }
        assert_eq!(regressed(&report(999.0, 4_000_001, 1), 0.0).len(), 2, "nothing at all is allowed");
    }

    #[test]
    fn the_table_has_both_and_their_ratio() {
        let (a, b) = (report(1000.0, 4_000_000, 9_000_000), report(800.0, 5_000_000, 4_500_000));
        insta::assert_snapshot!(table(&a, &b, &rows(&a, &b), Some(0.2)));
    }

    #[test]
    fn what_was_set_otherwise_is_told_but_not_the_seed() {
        let (a, mut b) = (report(1.0, 1, 1), report(2.0, 1, 1));
        assert!(differences(&a, &b).is_empty());
        b["summary"]["load"]["connections"] = json!(32);
        b["summary"]["load"]["keys"] = json!(7);
        b["summary"]["profile"] = json!("e2e");
        b["machine"]["processor"] = json!("y");
        let expected = [
            r#"profile: "produce" and "e2e""#,
            "connections: 64 and 32",
            "keys: null and 7",
            r#"machine: "x" and "y""#,
        ];
        assert_eq!(differences(&a, &b), expected);
    }
}
