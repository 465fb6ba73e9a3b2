//! Slices: where they begin, what stands for empty ones, and days on which clocks change.

use super::{Cell, DAY, MEMORY, Row, SECOND, Stored, plan, rows, taken, watch};
use crate::query::run::{Limit, Running, Span};
use crate::query::slice::{Slice, Slicer};
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

fn at(time: &str) -> u64 {
    time.parse::<Timestamp>().unwrap().as_microsecond() as u64
}

fn slicer(sample: &str) -> Slicer {
    let plan = plan(&format!("SELECT * IN g SAMPLE BY {sample}")).unwrap();
    Slicer::new(plan.query.sample.as_ref().unwrap())
}

#[test]
fn slices_begin_where_clock_and_calendar_have_round_times() {
    for (sample, time, start, end) in [
        ("5m", "2026-11-25T10:12:13Z", "2026-11-25T10:10:00Z", "2026-11-25T10:15:00Z"),
        ("5m", "2026-11-25T10:10:00Z", "2026-11-25T10:10:00Z", "2026-11-25T10:15:00Z"),
        ("d", "2026-11-25T10:12:13Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"),
        ("w", "2026-11-25T10:12:13Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
        ("M", "2026-11-25T10:12:13Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        ("3M", "2026-11-25T10:12:13Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("y", "2026-11-25T10:12:13Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        // UTC by whatever name.
        ("7h", "2026-11-25T10:12:13Z", "2026-11-25T10:00:00Z", "2026-11-25T17:00:00Z"),
        (
            "7h ALIGN TO CALENDAR TIME ZONE 'Etc/UTC'",
            "2026-11-25T10:12:13Z",
            "2026-11-25T10:00:00Z",
            "2026-11-25T17:00:00Z",
        ),
        (
            "7h ALIGN TO CALENDAR TIME ZONE 'Zulu'",
            "2026-11-25T10:12:13Z",
            "2026-11-25T10:00:00Z",
            "2026-11-25T17:00:00Z",
        ),
        // Berlin: clocks go forward on 2026-03-29 and back on 2026-10-25.
        (
            "d ALIGN TO CALENDAR TIME ZONE 'Europe/Berlin'",
            "2026-03-29T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
        ),
        (
            "d ALIGN TO CALENDAR TIME ZONE 'Europe/Berlin'",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        ),
        (
            "6h ALIGN TO CALENDAR TIME ZONE 'Europe/Berlin'",
            "2026-10-25T22:30:00Z",
            "2026-10-25T22:00:00Z",
            "2026-10-25T23:00:00Z",
        ),
        (
            "6h ALIGN TO CALENDAR TIME ZONE 'Europe/Berlin'",
            "2026-03-29T21:30:00Z",
            "2026-03-29T17:00:00Z",
            "2026-03-29T22:00:00Z",
        ),
        // New York: forward on 2026-03-08, back on 2026-11-01.
        (
            "d ALIGN TO CALENDAR TIME ZONE 'America/New_York'",
            "2026-03-08T12:00:00Z",
            "2026-03-08T05:00:00Z",
            "2026-03-09T04:00:00Z",
        ),
        (
            "d ALIGN TO CALENDAR TIME ZONE 'America/New_York'",
            "2026-11-01T12:00:00Z",
            "2026-11-01T04:00:00Z",
            "2026-11-02T05:00:00Z",
        ),
        (
            "M ALIGN TO CALENDAR TIME ZONE 'America/New_York'",
            "2026-11-01T12:00:00Z",
            "2026-11-01T04:00:00Z",
            "2026-12-01T05:00:00Z",
        ),
        (
            "h ALIGN TO CALENDAR TIME ZONE 'Asia/Kolkata'",
            "2026-11-25T10:12:13Z",
            "2026-11-25T09:30:00Z",
            "2026-11-25T10:30:00Z",
        ),
    ] {
        assert_eq!(slicer(sample).of(at(time)), Slice { start: at(start), end: at(end) }, "{sample} {time}");
    }
}

#[test]
fn every_slice_begins_where_the_one_before_ends() {
    for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"] {
        for length in ["7m", "1h", "5h", "6h", "30h", "d", "3d", "w", "M", "5M", "y"] {
            let slicer = slicer(&format!("{length} ALIGN TO CALENDAR TIME ZONE '{zone}'"));
            let mut time = at("2026-02-27T13:14:15Z");
            for _ in 0..2000 {
                let slice = slicer.of(time);
                assert!(slice.start <= time && time < slice.end, "{zone} {length} {time}");
                assert_eq!(slicer.of(slice.start), slice, "{zone} {length} {time}");
                assert_eq!(slicer.of(slice.end - 1), slice, "{zone} {length} {time}");
                assert_eq!(slicer.of(slice.end).start, slice.end, "{zone} {length} {time}");
                time = slice.end;
            }
        }
    }
}

/// Where clocks are put back over midnight, the last part of a day comes again.
#[test]
fn a_day_whose_end_comes_twice_ends_once() {
    let zone = "ALIGN TO CALENDAR TIME ZONE 'America/St_Johns'";
    // At 00:01 on 2010-11-07 it was 23:01 on 2010-11-06 again.
    let again = at("2010-11-07T02:31:00Z") + 10 * 60 * SECOND;
    let zone_of_day = TimeZoneDatabase::bundled().get("America/St_Johns").unwrap();
    let local = zone_of_day.to_datetime(Timestamp::from_microsecond(again as i64).unwrap());
    assert_eq!(local.to_string(), "2010-11-06T23:11:00");
    let midnight = at("2010-11-07T02:30:00Z");
    for length in ["15m", "1h", "6h", "d", "w", "M"] {
        let slicer = slicer(&format!("{length} {zone}"));
        let mut time = midnight - 86_400 * SECOND;
        while time < midnight + 2 * 86_400 * SECOND {
            let slice = slicer.of(time);
            assert!(slice.start <= time && time < slice.end, "{length} {time} {slice:?}");
            assert_eq!(slicer.of(slice.end).start, slice.end, "{length} {time}");
            time += 97 * SECOND;
        }
    }
    assert_eq!(slicer(&format!("d {zone}")).of(again).start, midnight);
}

#[test]
fn the_last_slice_of_the_calendar_has_no_end() {
    for sample in ["d", "M", "9000y", "d ALIGN TO CALENDAR TIME ZONE 'Pacific/Kiritimati'"] {
        let slice = slicer(sample).of(at("9999-12-30T21:00:00Z"));
        assert!(slice.start < slice.end, "{sample} {slice:?}");
        assert_eq!(slicer(sample).of(u64::MAX - 1).end, u64::MAX, "{sample}");
    }
}

#[test]
fn slices_may_begin_at_the_first_event() {
    let mut by_minute = slicer("1m ALIGN TO FIRST OBSERVATION");
    by_minute.begin_at(DAY + 7);
    by_minute.begin_at(DAY + 9);
    assert_eq!(by_minute.of(DAY + 8), Slice { start: DAY + 7, end: DAY + 7 + 60 * SECOND });
    let mut by_month = slicer("1M ALIGN TO FIRST OBSERVATION");
    by_month.begin_at(at("2026-01-31T10:00:00Z"));
    let slice = by_month.of(at("2026-03-01T00:00:00Z"));
    assert_eq!(slice, Slice { start: at("2026-02-28T10:00:00Z"), end: at("2026-03-31T10:00:00Z") });
    for length in ["1d", "10000y", "3652425d"] {
        let mut long = slicer(&format!("{length} ALIGN TO FIRST OBSERVATION"));
        long.begin_at(DAY);
        for time in [at("9999-12-30T00:00:00Z"), u64::MAX - 1, u64::MAX] {
            assert_eq!(long.of(time).end, u64::MAX, "{length}");
        }
    }
}

/// Events at minutes 1, 2 (twice) and 5 of a day, with delays.
fn events() -> Vec<Stored> {
    let minutes = [(1, 10), (2, 20), (2, 40), (5, 60)];
    let stored = |(place, (minute, delay)): (usize, &(u64, u64))| {
        Stored::new(place as u64, DAY + minute * 60 * SECOND, &format!(r#"{{"d":{delay}}}"#))
    };
    minutes.iter().enumerate().map(stored).collect()
}

fn filled(fill: &str) -> Vec<Cell> {
    let query =
        format!("SELECT avg(data.d) IN g FROM 2026-11-25T00:00:00Z TO 2026-11-25T00:07:00Z SAMPLE BY 1m {fill}");
    let rows = rows(&query, &events());
    let starts: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    if !fill.is_empty() {
        assert_eq!(starts, [0, 1, 2, 3, 4, 5, 6].map(|minute| Cell::Time(DAY + minute * 60 * SECOND)), "{fill}");
    }
    rows.into_iter().map(|mut row| row.remove(1)).collect()
}

#[test]
fn empty_slices_are_filled_over_the_whole_range() {
    use Cell::{Integer, Null, Number};
    let [ten, thirty, sixty] = [10.0, 30.0, 60.0].map(Number);
    assert_eq!(filled(""), [ten.clone(), thirty.clone(), sixty.clone()]);
    assert_eq!(filled("FILL(NULL)"), [Null, ten.clone(), thirty.clone(), Null, Null, sixty.clone(), Null]);
    let zero = Integer(0);
    assert_eq!(
        filled("FILL(0)"),
        [zero.clone(), ten.clone(), thirty.clone(), zero.clone(), zero.clone(), sixty.clone(), zero]
    );
    let large = 9_007_199_254_740_993;
    assert_eq!(filled(&format!("FILL({large})"))[0], Integer(large), "more than a double holds");
    assert_eq!(
        filled("FILL(PREV)"),
        [Null, ten.clone(), thirty.clone(), thirty.clone(), thirty.clone(), sixty.clone(), sixty.clone()]
    );
    assert_eq!(filled("FILL(LINEAR)"), [Null, ten, thirty, Number(40.0), Number(50.0), sixty, Null]);
}

/// Of whole numbers a line is made of parts.
#[test]
fn a_column_is_of_whole_numbers_only_if_all_in_it_are() {
    use crate::query::plan::Kind::{Integer, Json, Number, Text};
    for (fill, expected) in [
        ("", Integer),
        ("FILL(NULL)", Integer),
        ("FILL(PREV)", Integer),
        ("FILL(5)", Integer),
        ("FILL(0.5)", Number),
        ("FILL(1e20)", Number),
        ("FILL(LINEAR)", Number),
    ] {
        let query = format!("SELECT count(), key, min(length), first(data.d) IN g SAMPLE BY 1m {fill}");
        let kinds: Vec<_> = plan(&query).unwrap().headings[1..5].iter().map(|heading| heading.kind).collect();
        assert_eq!(kinds, [expected, Text, expected, Json], "{fill}");
    }
}

#[test]
fn the_last_slice_is_open_where_the_range_cuts_it() {
    let partial = |to: &str| -> Vec<Cell> {
        let rows: Vec<Row> = rows(&format!("SELECT count() IN g FROM 2026-11-25 TO {to} SAMPLE BY 1m"), &events());
        rows.into_iter().map(|mut row| row.remove(2)).collect()
    };
    assert_eq!(partial("2026-11-25T00:06:00Z"), [false, false, false].map(Cell::Bool));
    assert_eq!(partial("2026-11-25T00:05:30Z"), [false, false, true].map(Cell::Bool));
}

#[test]
fn whole_slices_have_their_first_and_last_event() {
    let rows = rows("SELECT * IN g SAMPLE BY 1m ORDER BY received DESC", &events());
    let offset = |cell: &Cell| if let Cell::Event(offset, _) = cell { *offset } else { panic!("{cell:?}") };
    let shown: Vec<_> =
        rows.iter().map(|row| (row[0].clone(), row[1].clone(), offset(&row[3]), offset(&row[4]))).collect();
    let minute = |minute: u64| Cell::Time(DAY + minute * 60 * SECOND);
    assert_eq!(
        shown,
        [(minute(5), Cell::Integer(1), 3, 3), (minute(2), Cell::Integer(2), 1, 2), (minute(1), Cell::Integer(1), 0, 0)]
    );
}

/// Two events with most of a million empty slices between them, and some behind: their rows are made when they are taken.
#[test]
fn empty_slices_take_no_memory() {
    let events = [
        Stored::new(0, DAY + SECOND, r#"{"k":"a","d":0}"#),
        Stored::new(1, DAY + 700_001 * SECOND, r#"{"k":"b","d":700000}"#),
    ];
    let times = (DAY, DAY + 900_000 * SECOND);
    for order in ["ASC", "DESC"] {
        for (select, fill, series, at_3) in [
            ("avg(data.d)", "NULL", 1, Cell::Null),
            ("avg(data.d)", "7", 1, Cell::Integer(7)),
            ("avg(data.d)", "PREV", 1, Cell::Number(0.0)),
            ("avg(data.d)", "LINEAR", 1, Cell::Number(2.0)),
            ("avg(data.d), data.k", "PREV", 2, Cell::Number(0.0)),
        ] {
            let text = format!("SELECT {select} IN g SAMPLE BY 1s FILL({fill}) ORDER BY received {order}");
            let plan = plan(&text).unwrap();
            let span = Span { from: times.0, to: times.1, settled: times.1 };
            let mut running = Running::new(&plan, span, 4096, Vec::new()).unwrap();
            events.iter().for_each(|stored| running.event(&stored.event(), &watch()).unwrap());
            running.finish(&watch()).unwrap();
            let mut starts = Vec::new();
            while let Some((_, row)) = running.take() {
                let Cell::Time(start) = row[0] else { panic!("{row:?}") };
                if start == DAY + 3 * SECOND && row.len() == 3 {
                    assert_eq!(row[1], at_3, "{text}");
                }
                starts.push(start);
            }
            assert_eq!(starts.len(), series * 900_000, "{text}");
            assert!(if order == "ASC" { starts.is_sorted() } else { starts.is_sorted_by(|a, b| a >= b) }, "{text}");
        }
    }
}

/// What follows tells of each slice when its time is over, with events or without.
#[test]
fn slices_without_events_end_with_their_time() {
    for (fill, expected) in [
        ("", vec![(1, Some(1))]),
        ("FILL(0)", vec![(0, Some(0)), (1, Some(1)), (2, Some(0)), (3, Some(0))]),
        ("FILL(PREV)", vec![(0, None), (1, Some(1)), (2, Some(1)), (3, Some(1))]),
        // Known when the next one comes.
        ("FILL(LINEAR)", vec![(0, None), (1, Some(1))]),
    ] {
        let plan = plan(&format!("SELECT count() IN g SAMPLE BY 1s {fill} FOLLOW")).unwrap();
        let span = Span { from: DAY, to: DAY, settled: DAY };
        let mut running = Running::new(&plan, span, MEMORY, Vec::new()).unwrap();
        let filled = matches!(fill, "FILL(0)" | "FILL(PREV)");
        assert_eq!(running.next_end(), filled.then_some(DAY + SECOND), "{fill}");
        running.event(&Stored::new(0, DAY + SECOND + 1, "{}").event(), &watch()).unwrap();
        running.tick(DAY + 2 * SECOND - 1, &watch()).unwrap();
        assert_eq!(running.next_end(), Some(DAY + 2 * SECOND));
        // An event that does not meet the predicate tells the time as well as a clock.
        running.seen(DAY + 2 * SECOND, &watch()).unwrap();
        running.extend(DAY + 4 * SECOND + 5);
        running.tick(DAY + 4 * SECOND + 5, &watch()).unwrap();
        assert_eq!(running.next_end(), filled.then_some(DAY + 5 * SECOND), "{fill}");
        let row = |row: Row| match row[..] {
            [Cell::Time(start), Cell::Integer(count), Cell::Bool(false)] => ((start - DAY) / SECOND, Some(count)),
            [Cell::Time(start), Cell::Null, Cell::Bool(false)] => ((start - DAY) / SECOND, None),
            _ => panic!("{row:?}"),
        };
        assert_eq!(taken(&mut running).into_iter().map(row).collect::<Vec<_>>(), expected, "{fill}");
    }
}

#[test]
fn a_range_of_too_many_slices_is_refused() {
    let plan = plan("SELECT count() IN g FROM 2026-01-01 TO 2026-11-25 SAMPLE BY 1s FILL(0)").unwrap();
    let (from, to) = (plan.query.from.unwrap(), plan.query.to.unwrap());
    let span = Span { from, to, settled: to };
    let refused = Running::new(&plan, span, MEMORY, Vec::new()).err();
    assert_eq!(refused, Some(Limit::Slices));
}

#[test]
fn each_combination_of_plain_columns_is_filled() {
    let made = [(1, "a", 10), (2, "b", 20), (3, "a", 30), (3, "a", 50)];
    let stored = |(place, (minute, key, delay)): (usize, &(u64, &str, u64))| {
        let data = format!(r#"{{"k":"{key}","d":{delay}}}"#);
        Stored::new(place as u64, DAY + minute * 60 * SECOND, &data)
    };
    let events: Vec<Stored> = made.iter().enumerate().map(stored).collect();
    let shown = |rest: &str| -> Vec<(u64, String, Option<f64>)> {
        let range = "FROM 2026-11-25T00:01:00Z TO 2026-11-25T00:05:00Z";
        let rows = rows(&format!("SELECT data.k, avg(data.d) IN g {range} SAMPLE BY 1m {rest}"), &events);
        let row = |row: &Row| match &row[..] {
            [Cell::Time(start), Cell::Text(key), value, Cell::Bool(false)] => {
                ((start - DAY) / 60 / SECOND, key.to_string(), value.number())
            }
            other => panic!("{other:?}"),
        };
        rows.iter().map(row).collect()
    };
    let expected = |values: [Option<f64>; 8]| -> Vec<(u64, String, Option<f64>)> {
        let place =
            |(place, value): (usize, Option<f64>)| (1 + place as u64 / 2, ["a", "b"][place % 2].to_owned(), value);
        values.into_iter().enumerate().map(place).collect()
    };
    let (ten, twenty, forty) = (Some(10.0), Some(20.0), Some(40.0));
    assert_eq!(shown("FILL(NULL)"), expected([ten, None, None, twenty, forty, None, None, None]));
    assert_eq!(shown("FILL(PREV)"), expected([ten, None, ten, twenty, forty, twenty, forty, twenty]));
    assert_eq!(shown("FILL(LINEAR)"), expected([ten, None, Some(25.0), twenty, forty, None, None, None]));
    let mut turned = expected([ten, Some(7.0), Some(7.0), twenty, forty, Some(7.0), Some(7.0), Some(7.0)]);
    assert_eq!(shown("FILL(7)"), turned);
    turned.reverse();
    assert_eq!(shown("FILL(7) ORDER BY received DESC"), turned);
    assert_eq!(shown("").len(), 3);
}
