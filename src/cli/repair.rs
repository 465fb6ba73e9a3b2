//! `eddyline repair`: says what of a damaged data directory is lost for good, and once that is accepted, repairs it.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::output::{self, Output, several};
use super::serve;
use crate::shard::repair::{GroupGap, JournalLoss, Moved, Renamed, Report, SegmentLoss, repair};
use crate::units::rough_size;

const EXAMPLES: &str = "\
EXAMPLES
  eddyline repair --data /srv/eddyline                 what is lost; nothing is changed
  eddyline repair --data /srv/eddyline --accept-loss   give it up, and go on above it
  eddyline repair --data /srv/eddyline -o json

Copy the directory first. Exit code 0: nothing is wrong, or it is repaired now. 1: there is something to repair.";

/// Say what of a damaged data directory is lost, and repair it; no broker may be running on it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Repair {
    /// Data directory [default: the one `serve` uses]
    #[arg(long, env = "EDDYLINE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Give up what is lost for good, and make the rest writable again
    #[arg(long)]
    accept_loss: bool,
    /// How to write what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Repair {
    pub(super) fn run(self) -> Result<(), Failure> {
        let directory = self
            .data
            .filter(|data| !data.as_os_str().is_empty())
            .or_else(serve::default_data)
            .ok_or_else(|| Failure::usage("which data directory?").hint("name it with --data DIR"))?;
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %, {eta} left") {
            bar.set_style(style);
        }
        let report = repair(&directory, self.accept_loss, &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let report = report.map_err(|error| Failure::failed(error.to_string()))?;
        match self.output {
            Output::Text => output::lines(&lines(&report))?,
            Output::Json => {
                let json = serde_json::to_string(&report).map_err(|error| Failure::failed(error.to_string()))?;
                output::line(&json)?;
            }
        }
        verdict(&report)
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report.journals.iter().flat_map(journal).collect();
    lines.extend(report.segments.iter().map(segment));
    lines.extend(report.gaps.iter().map(gap));
    lines.extend(report.renamed.iter().map(renamed));
    lines.extend(report.moved.iter().map(moved));
    let end = match (report.is_needed(), report.repaired) {
        (false, _) => "nothing to repair",
        (true, false) => "nothing was changed",
        (true, true) => "repaired",
    };
    lines.push(format!("{}: {end}", report.data.display()));
    lines
}

fn journal(loss: &JournalLoss) -> Vec<String> {
    let mut lines: Vec<String> = loss
        .lost
        .iter()
        .map(|lost| {
            let (file, bytes) = (lost.file.display(), rough_size(lost.bytes));
            let entries = match lost.entries {
                1 => format!("entry {}", lost.index),
                more => format!("{more} entries from {} on", lost.index),
            };
            format!("LOST shard {}: {entries} of the journal, {bytes} from byte {} of {file} on", loss.shard, lost.byte)
        })
        .collect();
    let saved = match loss.saved {
        1 => "1 later entry is".to_owned(),
        more => format!("{more} later entries are"),
    };
    lines.push(format!("shard {}: {saved} whole and kept", loss.shard));
    if loss.shard == 0 {
        lines.push(
            "LOST what was said of tokens there: one that was revoked may be good again (eddyline token ls)".into(),
        );
    }
    lines
}

fn segment(loss: &SegmentLoss) -> String {
    let SegmentLoss { group, file, byte, cause, from, to } = loss;
    format!("LOST group {group}: offsets {from}..{to}: {}: at byte {byte}: {cause}", file.display())
}

fn gap(gap: &GroupGap) -> String {
    let GroupGap { group, shard, from, to, exact } = gap;
    match exact {
        true => format!("LOST group {group} (shard {shard}): offsets {from}..{to}"),
        false => format!("LOST group {group} (shard {shard}): what there was from {from} on; it goes on at {to}"),
    }
}

fn renamed(group: &Renamed) -> String {
    let Renamed { number, shard, group, first_offset, next_offset } = group;
    format!("LOST the name of group {number} (shard {shard}, offsets {first_offset}..{next_offset}): now {group}")
}

fn moved(group: &Moved) -> String {
    let Moved { group, first_offset } = group;
    format!("LOST whether group {group} was removed: it is there, without events, and goes on at {first_offset}")
}

fn verdict(report: &Report) -> Result<(), Failure> {
    if report.repaired || !report.is_needed() {
        return Ok(());
    }
    let places = report.journals.len() + report.segments.len() + report.renamed.len();
    Err(Failure::failed(format!("{} to repair", several(places as u64, "place")))
        .hint("copy the directory, then run it with --accept-loss: what is listed as lost is given up for good"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::repair::LostEntries;

    #[test]
    fn what_is_lost_is_listed_and_fails_until_it_is_accepted() {
        let mut report = Report { data: "/data".into(), ..Report::default() };
        assert_eq!(lines(&report), ["/data: nothing to repair"]);
        assert!(verdict(&report).is_ok());
        let lost = |entries| LostEntries { index: 7, entries, file: "000.journal".into(), byte: 8192, bytes: 4096 };
        report.journals.push(JournalLoss { shard: 0, lost: vec![lost(1)], saved: 1 });
        report.journals.push(JournalLoss { shard: 1, lost: vec![lost(1), lost(3)], saved: 2 });
        let gap = |exact| GroupGap { group: "orders".into(), shard: 1, from: 3, to: 9, exact };
        report.gaps = vec![gap(true), gap(false)];
        report.segments.push(SegmentLoss {
            group: "clicks".into(),
            file: "1-0.seg".into(),
            byte: 64,
            cause: "cut".into(),
            from: 0,
            to: 4,
        });
        let lost = Renamed { number: 4, shard: 0, group: "lost-4".into(), first_offset: 0, next_offset: 9 };
        report.renamed.push(lost);
        report.moved.push(Moved { group: "old".into(), first_offset: 99 });
        assert_eq!(
            lines(&report),
            [
                "LOST shard 0: entry 7 of the journal, 4.0 KiB from byte 8192 of 000.journal on",
                "shard 0: 1 later entry is whole and kept",
                "LOST what was said of tokens there: one that was revoked may be good again (eddyline token ls)",
                "LOST shard 1: entry 7 of the journal, 4.0 KiB from byte 8192 of 000.journal on",
                "LOST shard 1: 3 entries from 7 on of the journal, 4.0 KiB from byte 8192 of 000.journal on",
                "shard 1: 2 later entries are whole and kept",
                "LOST group clicks: offsets 0..4: 1-0.seg: at byte 64: cut",
                "LOST group orders (shard 1): offsets 3..9",
                "LOST group orders (shard 1): what there was from 3 on; it goes on at 9",
                "LOST the name of group 4 (shard 0, offsets 0..9): now lost-4",
                "LOST whether group old was removed: it is there, without events, and goes on at 99",
                "/data: nothing was changed",
            ]
        );
        let failure = verdict(&report).unwrap_err();
        assert_eq!(failure.message, "4 places to repair");
        assert!(failure.hint.is_some_and(|hint| hint.contains("--accept-loss")));
        report.repaired = true;
        assert!(verdict(&report).is_ok());
        assert_eq!(lines(&report).pop().as_deref(), Some("/data: repaired"));
    }
}
