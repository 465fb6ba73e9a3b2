//! A query asks whether it is still wanted throughout, also within one large event and once all events were shown; and what
//! it may not keep it does not even begin to make.

use super::super::plan::Plan;
use super::super::run::{Limit, Running, Span, Stop};
use super::super::watch::{Unwanted, Watch};
use super::{DAY, Stored, plan};
use std::cell::Cell;
use std::sync::Arc;

const SPAN: Span = Span { from: DAY, to: DAY + 1_000_000, settled: DAY + 1_000_000 };

/// A query that is told to be unwanted at the question behind so many.
fn unwanted_behind<R>(questions: u32, run: impl FnOnce(&Watch<'_>) -> R) -> (R, u32) {
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() <= questions
    };
    let result = run(&Watch::new(&wanted));
    (result, asked.get())
}

fn running(plan: &Arc<Plan>, memory: usize) -> Running {
    Running::new(plan, SPAN, memory, Vec::new()).unwrap()
}

/// A hundred times the same, each with a number of its own for `#`.
fn many(one: &str, separator: &str) -> String {
    (0..100).map(|n| one.replace('#', &n.to_string())).collect::<Vec<_>>().join(separator)
}

#[test]
fn within_one_large_event_it_asks_again_and_again() {
    let large = Stored::new(0, DAY, &format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000)));
    for query in [
        format!("SELECT * IN g WHERE {}", many("data LIKE '%_y%'", " OR ")),
        format!("SELECT * IN g WHERE NOT ({})", many("data.b IS NOT NULL", " OR ")),
        format!("SELECT {} IN g", many("data.b#", ", ")),
        format!("SELECT count(), {} IN g", many("data.b#", ", ")),
        format!("SELECT {} IN g", many("max(data.b#)", ", ")),
    ] {
        let plan = plan(&query).unwrap();
        let mut running = running(&plan, 64 << 20);
        let (result, asked) = unwanted_behind(20, |watch| running.event(&large.event(), watch));
        assert_eq!((result, asked), (Err(Stop::Unwanted), 21), "{query}");
    }
}

#[test]
fn once_all_events_were_shown_it_asks_while_it_makes_rows() {
    for query in [
        "SELECT data.k, count() IN g",
        "SELECT data.k, count() IN g SAMPLE BY 1s FILL(PREV)",
        "SELECT data.k, count() IN g SAMPLE BY 1s ORDER BY received DESC",
    ] {
        let plan = plan(query).unwrap();
        let mut running = running(&plan, 64 << 20);
        for n in 0..10_000 {
            running.event(&Stored::new(n, DAY, &format!(r#"{{"k":{n}}}"#)).event(), &super::watch()).unwrap();
        }
        let (result, asked) = unwanted_behind(20, |watch| running.finish(watch));
        assert_eq!((result, asked), (Err(Stop::Unwanted), 21), "{query}");
    }
}

/// For what the slice before came to, for each combination of keys, and for percentiles as well.
#[test]
fn what_it_does_at_the_end_is_asked_about_by_its_size() {
    let questions = |query: &str, before: &str| {
        let (plan, earlier) = (plan(query).unwrap(), plan(before).unwrap());
        let mut one = running(&earlier, 64 << 20);
        for n in 0..10_000 {
            one.event(&Stored::new(n, DAY, &format!(r#"{{"k":{n},"n":1}}"#)).event(), &super::watch()).unwrap();
        }
        let ((), alone) = unwanted_behind(u32::MAX, |watch| one.finish(watch).unwrap());
        let mut other = Running::new(&plan, SPAN, 64 << 20, super::taken(&mut one)).unwrap();
        let ((), filled) = unwanted_behind(u32::MAX, |watch| other.finish(watch).unwrap());
        (alone, filled)
    };
    let [filled, alone] =
        ["FILL(PREV)", "FILL(NONE)"].map(|fill| format!("SELECT data.k, count() IN g SAMPLE BY 1s {fill}"));
    let (closing, before) = questions(&filled, &alone);
    assert!(closing >= 200 && before >= 100, "{closing} and {before} questions for 10 000 rows each");
    let percentiles = "SELECT data.k, p50(data.n), p99(data.n) IN g SAMPLE BY 1s";
    assert!(questions(&filled, percentiles).0 >= 10_000, "a percentile takes some ten microseconds");
}

#[test]
fn a_row_that_may_not_be_kept_is_not_made_to_its_end() {
    let large = Stored::new(0, DAY, &format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000)));
    for select in [many("data AS a#", ", "), format!("count(), {}", many("data.a AS a#", ", "))] {
        let plan = plan(&format!("SELECT {select} IN g")).unwrap();
        let mut running = running(&plan, 1 << 20);
        let (result, asked) = unwanted_behind(u32::MAX, |watch| running.event(&large.event(), watch));
        assert_eq!(result, Err(Stop::Limit(Limit::Memory)), "{select}");
        assert!(asked <= 11, "some ten of a hundred cells are a megabyte: {asked} in {select}");
    }
}

#[test]
fn what_the_slice_before_came_to_counts_as_kept() {
    let plan = plan("SELECT data.k, count() IN g SAMPLE BY 1s FILL(PREV)").unwrap();
    let mut one = running(&plan, 64 << 20);
    for n in 0..1000 {
        one.event(&Stored::new(n, DAY, &format!(r#"{{"k":{n}}}"#)).event(), &super::watch()).unwrap();
    }
    one.finish(&super::watch()).unwrap();
    let before = super::taken(&mut one);
    let event = Stored::new(0, DAY, "{}");
    for (memory, kept) in [(64 << 20, Ok(())), (32 << 10, Err(Stop::Limit(Limit::Memory)))] {
        let mut other = Running::new(&plan, SPAN, memory, before.clone()).unwrap();
        assert_eq!(other.event(&event.event(), &super::watch()), kept);
    }
}

#[test]
fn it_asks_after_so_much_work_and_ends_when_told_to() {
    let (spent, asked) = unwanted_behind(2, |watch| {
        let mut spent = 0;
        while watch.spent(100) == Ok(()) {
            spent += 100;
        }
        assert_eq!(watch.spent(1 << 30), Err(Unwanted));
        spent
    });
    // A question for each 8 KiB, the third of which is answered with no.
    assert_eq!((spent, asked), ((3 * 82 - 1) * 100, 4));
}
