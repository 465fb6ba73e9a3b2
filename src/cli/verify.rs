//! `eddyline verify`: reads a data directory that no broker uses, and says what is damaged.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::{output, serve};
use crate::shard::verify::{Report, verify};
use crate::units::rough_size;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline verify --data /srv/eddyline   exit code 1 if anything is damaged";

/// Read a whole data directory and report damage; no broker may be running on it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// Data directory [default: the one `serve` uses]
    #[arg(long, env = "EDDYLINE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let directory = self
            .data
            .filter(|data| !data.as_os_str().is_empty())
            .or_else(serve::default_data)
            .ok_or_else(|| Failure::usage("which data directory?").hint("name it with --data DIR"))?;
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style);
        }
        let report = verify(&directory, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let report = report.map_err(|error| Failure::failed(error.to_string()))?;
        output::lines(&lines(&report))?;
        verdict(&report)
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = report.lines.clone();
    lines.extend(report.damage.iter().map(|damage| format!("DAMAGED {damage}")));
    let (events, segments) = (output::several(report.events, "event"), output::several(report.segments, "segment"));
    lines.push(format!("{events} in {segments}, {}", rough_size(report.bytes)));
    lines
}

fn verdict(report: &Report) -> Result<(), Failure> {
    match report.damage.len() as u64 {
        0 => Ok(()),
        places => Err(Failure::failed(format!("damage in {}", output::several(places, "place")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_listed_and_fails() {
        let mut report = Report {
            lines: vec!["shard 0: 1 segment".to_owned()],
            events: 3,
            segments: 1,
            bytes: 2048,
            damage: Vec::new(),
        };
        assert_eq!(lines(&report), ["shard 0: 1 segment", "3 events in 1 segment, 2.0 KiB"]);
        assert!(verdict(&report).is_ok());
        report.damage.push("group 1, offset 2".to_owned());
        assert_eq!(lines(&report)[1], "DAMAGED group 1, offset 2");
        assert_eq!(verdict(&report).unwrap_err().message, "damage in 1 place");
    }
}
