//! What a run leaves in a directory (`--out`): `report.json`, which programs read, `report.html` for people, a percentile
//! file for each clock that ran (`*.hgrm`), and each part of the run second by second (`series*.csv`). Measures nothing;
//! `schema.json` beside this says what the object holds.
//!
//! A directory is tried before the run, so that an hour's load is not lost to a typing error. Each file is written under
//! another name and then renamed, `report.json` last: where it is, the others belong to it.

mod charts;
mod machine;
mod page;
mod percentiles;
mod plot;
mod series;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::broker::Broker;
use crate::sample::{Clock, Times};
use crate::series::Point;

/// Grows when a field of `report.json` changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// What `report.json` holds, as a JSON schema.
pub const PUBLISHED: &str = include_str!("report/schema.json");

/// Names of parts, the run itself first: files of one that was not there would be another run's.
const PARTS: [&str; 4] = ["", "browsers", "consumers", "queries"];

/// A file that cannot be written.
#[derive(Debug, Error)]
#[error("--out: cannot write {path}: {cause}")]
pub struct OutError {
    path: PathBuf,
    cause: io::Error,
}

/// A part of a run that has its own clocks.
#[derive(Debug)]
pub struct Part<'r> {
    /// What its clocks and tables are called after; empty for the run itself.
    pub name: &'static str,
    /// The clocks that may run in it.
    pub clocks: &'static [Clock],
    /// What they showed.
    pub times: &'r Times,
    /// The part second by second.
    pub points: &'r [Point],
}

impl Part<'_> {
    /// What a clock of it is called, with blanks.
    fn label(&self, clock: Clock) -> String {
        label(self.name, clock)
    }
}

fn label(part: &str, clock: Clock) -> String {
    [part, clock.name()].join(" ").trim_start().to_owned()
}

/// A run to be told.
#[derive(Debug)]
pub struct Report<'r> {
    /// The object that `-o json` prints.
    pub summary: Value,
    /// The run itself, then other parts of it.
    pub parts: Vec<Part<'r>>,
    /// What the broker told of itself meanwhile, if it was asked.
    pub broker: Option<&'r Broker>,
    /// When it began.
    pub began: Timestamp,
    /// What the broker calls its version, if it says so.
    pub broker_version: Option<String>,
    /// How the process ends.
    pub exit_code: u8,
}

impl Report<'_> {
    /// The whole report as one object.
    pub fn json(&self) -> Value {
        let clocks: serde_json::Map<String, Value> =
            self.ran().map(|(label, times)| (label.replace(' ', "_"), percentiles::json(times))).collect();
        let mut parts = self.parts.iter().map(|part| (part.name, series::json(part)));
        let series = parts.next().map(|(_, series)| series);
        json!({
            "schema": SCHEMA,
            "began": self.began,
            "ended": Timestamp::now(),
            "command": std::env::args().collect::<Vec<_>>(),
            "exit_code": self.exit_code,
            "version": {
                "loadgen": env!("CARGO_PKG_VERSION"),
                "commit": option_env!("LOADGEN_COMMIT"),
                "broker": self.broker_version,
            },
            "machine": machine::describe(),
            "summary": self.summary,
            "clocks": clocks,
            "broker": self.broker,
            "series": series,
            "series_of": parts.map(|(name, series)| (name.to_owned(), series)).collect::<serde_json::Map<_, _>>(),
        })
    }

    fn ran(&self) -> impl Iterator<Item = (String, &Histogram<u64>)> {
        self.parts.iter().flat_map(|part| part.times.ran().map(|(clock, times)| (part.label(clock), times)))
    }
}

/// A directory that can be written to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the directory if it is not there, and tries it.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn open(path: &Path) -> Result<Folder, OutError> {
        let folder = Folder { path: path.to_owned() };
        fs::create_dir_all(path).and_then(|()| folder.temporary()).map_err(|cause| folder.failed("", cause))?;
        Ok(folder)
    }

    /// Writes all files of a report over those of an earlier one.
    ///
    /// # Errors
    /// When one of them cannot be written; then `report.json` is what it was.
    pub fn write(&self, report: &Report<'_>) -> Result<(), OutError> {
        for name in PARTS {
            self.remove(&table_name(name))?;
            Clock::ALL.iter().try_for_each(|clock| self.remove(&percentiles_name(&label(name, *clock))))?;
        }
        for (label, times) in report.ran() {
            self.put(&percentiles_name(&label), &percentiles::hgrm(times))?;
        }
        report.parts.iter().try_for_each(|part| self.put(&table_name(part.name), &series::csv(part)))?;
        let report = report.json();
        self.put("report.html", &page::html(&report))?;
        self.put("report.json", &format!("{report:#}\n"))
    }

    fn put(&self, name: &str, text: &str) -> Result<(), OutError> {
        let written = self.temporary().and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(self.path.join(name)).map_err(|error| error.error)
        });
        written.map(drop).map_err(|cause| self.failed(name, cause))
    }

    fn remove(&self, name: &str) -> Result<(), OutError> {
        match fs::remove_file(self.path.join(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(self.failed(name, cause)),
            _ => Ok(()),
        }
    }

    /// A file that is gone unless it is given a name; as readable as any that a program makes.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".loadgen-")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(&self.path)
    }

    fn failed(&self, name: &str, cause: io::Error) -> OutError {
        OutError { path: self.path.join(name), cause }
    }
}

fn table_name(part: &str) -> String {
    if part.is_empty() { "series.csv".to_owned() } else { format!("series-{part}.csv") }
}

fn percentiles_name(label: &str) -> String {
    format!("{}.hgrm", label.replace(' ', "-"))
}

#[cfg(test)]
pub(crate) mod tests;
