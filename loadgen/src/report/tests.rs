//! The files of a run that is made up, so that each number in them can be told beforehand.

use super::*;
use crate::record::Sample;
use crate::series::{Series, Slot};

/// Three seconds of an open loop: 1, 2, 3 thousand events whose times are 1, 2, 3 ms and a tail.
pub(crate) fn sample() -> (Sample, Vec<Point>) {
    let (mut whole, mut series) = (Sample::default(), Series::default());
    for second in 1..=3_u64 {
        let mut part = Sample { requests: 100 * second, events: 1_000 * second, bytes: 64_000, ..Sample::default() };
        for request in 1..=part.requests {
            let tail = if request % 50 == 0 { 10 } else { 1 };
            part.response.record(second * tail * 1_100_000).unwrap();
            part.service.record(second * tail * 1_000_000).unwrap();
            part.send_lag.record(20_000 * second).unwrap();
        }
        whole.add(&part);
        series.add(Slot::of(second - 1), &part);
    }
    (whole, series.into_points())
}

pub(crate) fn report<'r>(sample: &'r Sample, points: &'r [Point]) -> Report<'r> {
    Report {
        summary: json!({ "verdict": "VALID" }),
        clocks: vec![("response", &sample.response), ("service", &sample.service), ("send-lag", &sample.send_lag)],
        points,
        began: Timestamp::UNIX_EPOCH,
        broker_version: None,
        exit_code: 0,
    }
}

#[test]
fn every_file_is_written_and_those_of_an_earlier_run_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs/1");
    let folder = Folder::open(&path).unwrap();
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert!(names().is_empty(), "trying leaves nothing");
    let (open, points) = sample();
    folder.write(&report(&open, &points)).unwrap();
    assert_eq!(names(), ["report.html", "report.json", "response.hgrm", "send-lag.hgrm", "series.csv", "service.hgrm"]);
    let mode = fs::metadata(path.join("report.json")).unwrap().permissions().mode();
    assert_ne!(mode & 0o040, 0, "others may read it, as the umask allows: {mode:o}");
    let closed = Sample { response: Sample::default().response, send_lag: Sample::default().send_lag, ..open };
    folder.write(&report(&closed, &points)).unwrap();
    assert_eq!(names(), ["report.html", "report.json", "series.csv", "service.hgrm"]);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named_with_its_cause() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/nowhere")] {
        let told = Folder::open(&path).unwrap_err().to_string();
        assert!(told.starts_with(&format!("--out: cannot write {}", path.display())), "{told}");
    }
    let folder = Folder::open(directory.path()).unwrap();
    fs::create_dir(directory.path().join("report.json")).unwrap();
    let (sample, points) = sample();
    let told = folder.write(&report(&sample, &points)).unwrap_err().to_string();
    assert!(told.contains("report.json: "), "{told}");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "nothing half-written: {left:?}");
}

#[test]
fn the_series_is_a_table_with_a_row_a_second() {
    let (sample, points) = sample();
    insta::assert_snapshot!(report(&sample, &points).csv());
    let (_, mut quiet) = self::sample();
    quiet[1] = Point { slot: quiet[1].slot, ..Point::default() };
    let table = report(&sample, &quiet).csv();
    let columns: Vec<_> = table.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [22; 4], "a second without answers has empty places: {table}");
}

#[test]
fn percentiles_are_written_as_hdrhistogram_writes_them() {
    let (sample, _) = sample();
    insta::assert_snapshot!(percentiles::hgrm(&sample.service));
}

#[test]
fn percentiles_rise_to_the_largest_time() {
    let (sample, points) = sample();
    let value = report(&sample, &points).json();
    for clock in ["response", "service", "send_lag"] {
        let clock = &value["clocks"][clock];
        let steps: Vec<(f64, u64)> = serde_json::from_value(clock["quantiles_ns"].clone()).unwrap();
        assert!(steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{steps:?}");
        assert_eq!(steps.last().unwrap(), &(1.0, clock["max_ns"].as_u64().unwrap()));
        assert_eq!(clock["count"], 600);
    }
}

#[test]
fn the_published_schema_is_one() {
    let schema: Value = serde_json::from_str(PUBLISHED).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
}
