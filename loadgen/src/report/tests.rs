//! The files of a run that is made up, so that each number in them can be told beforehand.

use super::*;
use crate::sample::Sample;
use crate::series::{Series, Slot};

/// Three seconds of an open loop: 1, 2, 3 thousand events whose times are 1, 2, 3 ms and a tail.
pub(crate) fn sample() -> (Sample, Vec<Point>) {
    let (mut whole, mut series) = (Sample::default(), Series::default());
    for second in 1..=3_u64 {
        let mut part = Sample { requests: 100 * second, events: 1_000 * second, bytes: 64_000, ..Sample::default() };
        for request in 1..=part.requests {
            let tail = if request % 50 == 0 { 10 } else { 1 };
            part.times.note(Clock::Response, second * tail * 1_100_000);
            part.times.note(Clock::Service, second * tail * 1_000_000);
            part.times.note(Clock::SendLag, 20_000 * second);
        }
        whole.add(&part);
        series.add(Slot::of(second - 1), &part);
    }
    (whole, series.into_points())
}

const PRODUCERS: [Clock; 3] = [Clock::Response, Clock::Service, Clock::SendLag];

pub(crate) fn report<'r>(sample: &'r Sample, points: &'r [Point]) -> Report<'r> {
    Report {
        summary: json!({ "verdict": "VALID" }),
        parts: vec![Part { name: "", clocks: &PRODUCERS, times: &sample.times, points }],
        broker: None,
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
    let mut of_two = report(&open, &points);
    of_two.parts.push(Part { name: "browsers", clocks: &PRODUCERS, times: &open.times, points: &points[..1] });
    folder.write(&of_two).unwrap();
    let expected = [
        "browsers-response.hgrm",
        "browsers-send-lag.hgrm",
        "browsers-service.hgrm",
        "report.html",
        "report.json",
        "response.hgrm",
        "send-lag.hgrm",
        "series-browsers.csv",
        "series.csv",
        "service.hgrm",
    ];
    assert_eq!(names(), expected);
    let value = of_two.json();
    assert_eq!(value["series"].as_array().map(Vec::len), Some(3));
    assert_eq!(value["series_of"]["browsers"][0], value["series"][0]);
    let mode = fs::metadata(path.join("report.json")).unwrap().permissions().mode();
    assert_ne!(mode & 0o040, 0, "others may read it, as the umask allows: {mode:o}");
    let mut closed = Sample::default();
    closed.times.note(Clock::Service, 1_000);
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
    let csv = |points: &[Point]| series::csv(&report(&sample, points).parts[0]);
    insta::assert_snapshot!(csv(&points));
    let (_, mut quiet) = self::sample();
    quiet[1] = Point { slot: quiet[1].slot, ..Point::default() };
    let table = csv(&quiet);
    let columns: Vec<_> = table.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(columns, [22; 4], "a second without answers has empty places: {table}");
}

#[test]
fn percentiles_are_written_as_hdrhistogram_writes_them() {
    let (sample, _) = sample();
    insta::assert_snapshot!(percentiles::hgrm(sample.times.of(Clock::Service)));
}

#[test]
fn a_reader_of_the_percentile_format_finds_the_times_again() {
    let (sample, _) = sample();
    let times = sample.times.of(Clock::Service);
    let text = percentiles::hgrm(times);
    // As HdrHistogram's plotter does: lines of four numbers, of which the first is a time and the last its place.
    let numbers = |line: &str| -> Option<Vec<f64>> { line.split_whitespace().map(|word| word.parse().ok()).collect() };
    let rows: Vec<Vec<f64>> = text.lines().filter(|line| !line.starts_with('#')).filter_map(numbers).collect();
    let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).filter(|row| row.len() == 4).collect();
    assert!(rows.len() > 20 && rows.is_sorted_by(|a, b| a[0] <= b[0] && a[3] < b[3]), "{text}");
    for row in rows {
        let [milliseconds, quantile, count, place] = row.try_into().unwrap();
        let nanos = (milliseconds * 1e6_f64).round() as u64;
        assert!(times.equivalent(nanos, times.value_at_quantile(quantile)), "{quantile} is {nanos} in {text}");
        assert_eq!(times.count_between(0, nanos), count as u64, "{quantile} in {text}");
        assert!((place * (1.0 - quantile) - 1.0).abs() < 0.01 || place > 100.0, "{quantile} in {text}");
    }
    let told = |name: &str| {
        let rest = text.split(&format!("{name} ")).nth(1).unwrap().split('=').nth(1).unwrap();
        rest.split([',', ']']).next().unwrap().trim().parse::<f64>().unwrap()
    };
    assert!((told("Mean") * 1e6 / times.mean() - 1.0).abs() < 1e-6 && told("Total count") == 600.0, "{text}");
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
