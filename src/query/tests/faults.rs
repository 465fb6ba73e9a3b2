//! What is wrong with a query is pointed at, and nothing makes the parser panic.

use super::{parse, plan};
use proptest::prelude::*;

#[test]
fn every_mistake_has_its_code_and_place() {
    assert_faults(&[
        ("^", "bad_query", "expected SELECT, found the end"),
        ("^DELETE", "bad_query", "expected SELECT, found `DELETE`"),
        ("SELECT ^", "bad_query", "expected *, a column or an aggregate"),
        ("SELECT ^delay IN g", "unknown_name", "no column `delay`"),
        ("SELECT ^median(data.x) IN g", "unknown_name", "no function `median`"),
        ("SELECT count(^data.x) IN g", "bad_query", "expected `)`, for this is of events"),
        ("SELECT sum(^) IN g", "bad_query", "such as data.delay"),
        ("SELECT ^sum(key) IN g", "wrong_type", "numbers"),
        ("SELECT ^key.x IN g", "unknown_name", "only data has"),
        ("SELECT ^data..x IN g", "bad_query", "one dot"),
        ("SELECT data.x[^y] IN g", "bad_query", "a whole number"),
        ("SELECT count() AS n, ^bytes() AS n IN g", "bad_query", "two columns are called `n`"),
        ("SELECT * ^FROM g", "bad_query", "expected IN"),
        ("SELECT * IN ^", "bad_query", "the name of a group"),
        ("SELECT * IN g ^HAVING", "bad_query", "expected FROM, TO, WHERE"),
        ("SELECT * IN g FROM ^yesterday", "bad_query", "expected a time"),
        ("SELECT * IN g FROM ^123456789012", "bad_query", "10, 13 or 16 digits"),
        ("SELECT * IN g FROM ^2026-11-25T00:00:00", "bad_query", "with its offset"),
        ("SELECT * IN g ^FROM 2026-11-25 TO 2026-11-25", "bad_range", "before TO"),
        ("SELECT * IN g FROM ^now() - 5", "bad_query", "duration"),
        ("SELECT * IN g FROM ^now() - 4000000000d", "bad_query", "between 1970"),
        ("SELECT * IN g TO ^now() + 2000000000h", "bad_query", "the year 9999"),
        ("SELECT * IN g WHERE ^", "bad_query", "a column, NOT or `(`"),
        ("SELECT * IN g WHERE data.x = ^y", "bad_query", "a number, a text in single quotes"),
        ("SELECT * IN g WHERE data.x = ^NULL", "bad_query", "IS NULL"),
        ("SELECT * IN g WHERE offset = ^'5'", "wrong_type", "a number"),
        ("SELECT * IN g WHERE key = ^5", "wrong_type", "a text"),
        ("SELECT * IN g WHERE received > ^'soon'", "bad_query", "expected a time"),
        ("SELECT * IN g WHERE ^offset LIKE '5%'", "wrong_type", "LIKE is for text"),
        ("SELECT * IN g WHERE (data.x = 1 ^", "bad_query", "expected `)`"),
        ("SELECT * IN g WHERE data.x = ^'abc", "bad_query", "not closed"),
        ("SELECT * IN g SAMPLE BY ^5min", "bad_query", "length of a slice"),
        ("SELECT * IN g ^SAMPLE BY 0m", "bad_query", "longer than nothing"),
        ("SELECT * IN g SAMPLE BY ^-5m", "bad_query", "length of a slice"),
        ("SELECT * IN g SAMPLE BY 1h FILL(^ZERO)", "bad_query", "PREV"),
        ("SELECT * IN g SAMPLE BY 1h ALIGN TO ^MONDAY", "bad_query", "CALENDAR"),
        ("SELECT * IN g SAMPLE BY 1h ALIGN TO CALENDAR TIME ZONE ^'Mars/Base'", "unknown_name", "no time zone"),
        ("SELECT * IN g ORDER BY ^offset", "bad_query", "expected received"),
        ("SELECT * IN g LIMIT ^-1", "bad_query", "a whole number"),
        ("SELECT * IN g LIMIT ^99999999999999999999", "bad_query", "a whole number"),
        ("SELECT offset, ^* IN g", "bad_query", "expected a column or an aggregate"),
        ("SELECT * IN g ^SAMPLE BY 18446744073709551615U", "bad_query", "at most 10000 years"),
        ("SELECT * IN g SAMPLE BY 1h ALIGN TO CALENDAR TIME ZONE ^'Etc/Unknown'", "unknown_name", "no time zone"),
        ("SELECT * IN g FROM ^2026-11-25T12:00:60Z", "bad_query", "expected a time"),
        ("SELECT ^; IN g", "bad_query", "a column"),
        ("SELECT ^? IN g", "bad_query", "not expected"),
        ("SELECT * IN g; ^SELECT", "bad_query", "expected the end"),
        ("SELECT count() ^FROM g", "bad_query", "SELECT … IN group FROM time"),
        ("SELECT key, count() IN g ^GROUP BY key", "bad_query", "no GROUP BY is needed"),
        ("SELECT * IN g WHERE ^time > now()", "unknown_name", "is `received`"),
        ("SELECT sum(^*) IN g", "bad_query", "a column"),
        ("SELECT * IN g FROM ^1969-12-31", "bad_query", "from 1970 to 9999-12-30"),
        ("SELECT * IN g FROM ^9999-12-31", "bad_query", "from 1970 to 9999-12-30"),
        (
            "SELECT * IN g TO now() ^FROM now()",
            "bad_query",
            "expected WHERE, SAMPLE BY, ORDER BY, LIMIT, FOLLOW or the end",
        ),
        (
            "SELECT * IN g WHERE data.x ^FROM now()",
            "bad_query",
            "expected AND, OR, SAMPLE BY, ORDER BY, LIMIT, FOLLOW or",
        ),
        (
            "SELECT * IN g SAMPLE BY 1h ^WHERE data.x",
            "bad_query",
            "expected FILL, ALIGN TO, ORDER BY, LIMIT, FOLLOW or",
        ),
        ("SELECT * IN g SAMPLE BY 1h FILL(0) ^FILL(0)", "bad_query", "expected ALIGN TO, ORDER BY, LIMIT, FOLLOW or"),
        ("SELECT * IN g SAMPLE BY 1h ALIGN TO CALENDAR ^FILL(0)", "bad_query", "expected ORDER BY, LIMIT, FOLLOW or"),
        ("SELECT * IN g ORDER BY received DESC^, offset", "bad_query", "expected LIMIT, FOLLOW or the end"),
        ("SELECT * IN g LIMIT 5^, 10", "bad_query", "expected FOLLOW or the end"),
        ("SELECT * IN g FOLLOW ^LIMIT 5", "bad_query", "expected the end"),
        ("SELECT * IN g SAMPLE ^1h", "bad_query", "expected BY"),
    ]);
}

#[test]
fn what_cannot_follow_and_what_is_no_arithmetic_is_told() {
    assert_faults(&[
        ("SELECT key, count() IN g SAMPLE BY 1h FILL(0) ^FOLLOW", "bad_query", "without FOLLOW"),
        ("SELECT data.a AS frame IN g ^FOLLOW", "bad_query", "control what follows"),
        ("SELECT count() IN g ^FOLLOW", "bad_query", "cut it with SAMPLE BY"),
        ("SELECT * IN g TO now() ^FOLLOW", "bad_query", "FOLLOW has no TO"),
        ("SELECT ^data.a-1 IN g", "bad_query", "in double quotes: \"a-1\""),
        ("SELECT avg(^data.b.a+1) IN g", "bad_query", "no arithmetic"),
        ("SELECT * IN g WHERE ^data.a:b = 1", "bad_query", "with signs"),
    ]);
}

/// Each text with a `^` before the place that its fault points at, the fault's code and part of its words.
fn assert_faults(faults: &[(&str, &str, &str)]) {
    for &(marked, code, said) in faults {
        let place = marked.find('^').unwrap();
        let text = marked.replacen('^', "", 1);
        let fault = plan(text.trim_end()).unwrap_err();
        assert_eq!((fault.code, fault.place.start), (code, place.min(text.trim_end().len())), "{marked}: {fault}");
        assert!(fault.detail.contains(said), "{marked}: {fault}");
        assert!(fault.drawn(&text).lines().nth(1).unwrap().trim_start().starts_with('^'), "{marked}");
    }
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let deep = |depth| format!("SELECT * IN g WHERE {}data.x = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(plan(&deep(30)).is_ok());
    let path = |steps| format!("SELECT data{} IN g", ".a".repeat(steps));
    assert!(plan(&path(32)).is_ok());
    for text in [
        deep(40),
        deep(10_000),
        path(33),
        "x".repeat(1 << 20),
        format!("SELECT * IN g WHERE offset IN ({}1)", "1,".repeat(300)),
        format!("SELECT {} IN g", vec!["offset"; 300].join(",")),
        format!("SELECT * IN g WHERE key LIKE '%{}%'", "a_".repeat(33)),
    ] {
        assert_eq!(plan(&text).unwrap_err().code, "query_too_long", "{}", &text[..40]);
    }
}

#[test]
fn words_are_read_in_any_case_and_names_in_quotes() {
    let query =
        parse(r#"select Count() as "odd name" in "web a.b-c" from NOW()-1d limit 3 follow"#, super::DAY).unwrap();
    assert_eq!((&*query.group, query.limit, query.follow), ("web a.b-c", Some(3), true));
    assert_eq!(query.from, Some(super::DAY - 86_400 * super::SECOND));
    assert_eq!(&*parse("SELECT * IN web-a.b_c", 0).unwrap().group, "web-a.b_c");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}") {
        if let Err(fault) = plan(&text) {
            prop_assert!(fault.drawn(&text).contains('^'));
            prop_assert!(fault.line_and_column(&text) >= (1, 1));
        }
    }

    #[test]
    fn no_words_in_any_order_make_it_panic(words in proptest::collection::vec(prop::sample::select(vec![
        "SELECT", "*", "IN", "g", "FROM", "TO", "now()", "-", "5m", "WHERE", "data.x", "data.", "[", "0", "]", "(", ")",
        "AND", "NOT", "'t'", "\"n\"", ".", ",", "SAMPLE BY", "1M", "FILL", "PREV", "ALIGN TO CALENDAR", "TIME ZONE",
        "'UTC'", "ORDER BY", "received", "DESC", "LIMIT", "FOLLOW", "count()", "IS", "NULL", "LIKE", "é", "=",
    ]), 0..24)) {
        let text = words.join(" ");
        if let Err(fault) = plan(&text) {
            prop_assert!(fault.drawn(&text).contains('^'));
        }
    }
}
