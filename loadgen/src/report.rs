//! What a run leaves in a directory (`--out`): `report.json`, which programs read, `report.html` for people, a percentile
//! file for each clock that ran (`*.hgrm`), and the run second by second (`series.csv`). Measures nothing; `schema.json` beside this says what the
//! object holds.
//!
//! A directory is tried before the run, so that an hour's load is not lost to a typing error. Each file is written under
//! another name and then renamed, `report.json` last: where it is, the others belong to it.

mod machine;
mod page;
mod percentiles;
mod plot;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::series::{Point, Quantiles};

/// Grows when a field of `report.json` changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// What `report.json` holds, as a JSON schema.
pub const PUBLISHED: &str = include_str!("report/schema.json");

/// Clocks whose percentiles may be written; a file of one that did not run would be another run's.
const CLOCKS: [&str; 10] = [
    "response",
    "service",
    "send-lag",
    "end-to-end",
    "browsers-response",
    "browsers-service",
    "browsers-send-lag",
    "answer",
    "delivery",
    "ack",
];

/// A file that cannot be written.
#[derive(Debug, Error)]
#[error("--out: cannot write {path}: {cause}")]
pub struct OutError {
    path: PathBuf,
    cause: io::Error,
}

/// A run to be told.
#[derive(Debug)]
pub struct Report<'r> {
    /// The object that `-o json` prints.
    pub summary: Value,
    /// Merged histograms by the name of their clock, in nanoseconds; those of clocks that did not run are empty.
    pub clocks: Vec<(&'static str, &'r Histogram<u64>)>,
    /// The run second by second.
    pub points: &'r [Point],
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
            self.ran().map(|(name, times)| (name.replace('-', "_"), percentiles::json(times))).collect();
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
            "series": self.points,
        })
    }

    fn ran(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        self.clocks.iter().copied().filter(|(_, times)| !times.is_empty())
    }

    fn csv(&self) -> String {
        let quantiles =
            |clock: &str| ["p50", "p90", "p99", "p99_9", "max"].map(|name| format!(",{clock}_{name}_ns")).concat();
        let clocks = ["response", "service", "send_lag"].map(quantiles).concat();
        let mut text = format!("at_s,length_s,requests,events,bytes,errors,events_per_second{clocks}\n");
        for point in self.points {
            let Point { slot, requests, events, bytes, errors, response, service, send_lag } = point;
            let rate = point.events_per_second();
            let row = format!("{},{},{requests},{events},{bytes},{errors},{rate}", slot.at_s, slot.length_s);
            let clocks = [response, service, send_lag].map(|times| match times {
                None => ",,,,,".to_owned(),
                Some(Quantiles { p50, p90, p99, p99_9, max }) => format!(",{p50},{p90},{p99},{p99_9},{max}"),
            });
            text += &format!("{row}{}\n", clocks.concat());
        }
        text
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
        CLOCKS.iter().try_for_each(|name| self.remove(&format!("{name}.hgrm")))?;
        for (name, times) in report.ran() {
            self.put(&format!("{name}.hgrm"), &percentiles::hgrm(times))?;
        }
        self.put("series.csv", &report.csv())?;
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

#[cfg(test)]
pub(crate) mod tests;
