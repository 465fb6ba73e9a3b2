//! `report.html`: a report as one page that needs nothing else, drawn from the same object as `report.json`. It has no
//! script; light and dark are the reader's.

use serde_json::Value;

use super::charts::{self, clock_name};
use crate::units::{grouped, nanoseconds, rate};

const STYLE: &str = include_str!("page.css");

/// The page of a report.
pub(super) fn html(report: &Value) -> String {
    let summary = &report["summary"];
    // The parts of a mixed run are apart; its services are what the series is of.
    let main = if summary["services"].is_object() { &summary["services"] } else { summary };
    let profile = text(&summary["profile"]);
    let verdict = text(&summary["verdict"]);
    let tone = match verdict.as_str() {
        "VALID" => "good",
        "INCORRECT" => "bad",
        _ => "notice",
    };
    let body = [
        format!(
            "<header><h1>loadgen {profile}</h1><span class=\"verdict {tone}\">{verdict}</span>\
             <span class=\"quiet\">{}</span></header><p class=\"note\">{}</p><pre>{}</pre>",
            text(&summary["reason"]),
            opening(report, main),
            command(&report["command"]),
        ),
        tiles(main),
        charts::all(report, main["measured"]["seconds"].as_f64().unwrap_or(f64::MAX)),
        tables(report, summary, main),
    ]
    .concat();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{verdict} · loadgen {profile}</title>\n<style>\n{STYLE}</style></head>\n<body>{body}\
         <footer>loadgen {} · numbers: report.json, series.csv and *.hgrm beside this page</footer></body></html>\n",
        text(&report["version"]["loadgen"]),
    )
}

/// Text as it may stand in the page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A value as text: nothing for null.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escaped(text),
        Value::Number(number) => match number.as_u64() {
            Some(count) if count >= 10_000 => grouped(count),
            Some(count) => count.to_string(),
            None => {
                let digits = format!("{:.3}", number.as_f64().unwrap_or_default());
                digits.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        },
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(", "),
        other => escaped(&other.to_string()),
    }
}

fn command(words: &Value) -> String {
    let quoted = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,%@+".contains(&byte);
        let bare = !word.is_empty() && word.bytes().all(plain);
        if bare { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words = words.as_array().into_iter().flatten().filter_map(Value::as_str);
    escaped(&words.map(quoted).collect::<Vec<_>>().join(" "))
}

fn opening(report: &Value, main: &Value) -> String {
    let seconds = main["measured"]["seconds"].as_f64().unwrap_or_default();
    let began = text(&report["began"]);
    let began = began.split('.').next().unwrap_or_default().replace('T', " ");
    let parts = [format!("{began} UTC, {seconds:.1} s measured"), text(&main["target"]["url"]), text(&main["note"])];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ")
}

/// The rate, the times of the clock that comes closest to what a user waits for, and errors.
fn tiles(main: &Value) -> String {
    let measured = &main["measured"];
    let number = |name: &str| measured[name].as_f64();
    let mut tiles = vec![
        (number("events_per_second").map(rate), "events a second".to_owned()),
        (number("mib_per_second").map(|value| format!("{value:.1}")), "MiB a second".to_owned()),
    ];
    let delivered = ("end_to_end_us", &main["delivered"]["end_to_end_us"]);
    // Readers ack, too; that is looked at only where they are there to ack.
    let readers = if main["load"]["kind"] == "acks" { ["ack_us", "answer_us"] } else { ["delivery_us", "answer_us"] };
    let clocks = ["response_us", "service_us"].into_iter().chain(readers).map(|clock| (clock, &measured[clock]));
    if let Some((clock, times)) = [delivered].into_iter().chain(clocks).find(|(_, times)| times.is_object()) {
        for quantile in ["p50", "p99", "p99.9", "max"] {
            let time = times[quantile].as_f64().map(|us| nanoseconds((us * 1e3) as u64));
            tiles.push((time, format!("{} {quantile}", clock.trim_end_matches("_us").replace('_', " "))));
        }
    }
    let errors = main["errors"].as_object().map(|errors| errors.values().filter_map(Value::as_u64).sum());
    tiles.push((errors.map(grouped), "errors".to_owned()));
    let shown = tiles.into_iter().filter_map(|(value, name)| Some((value?, name)));
    let tiles: String =
        shown.map(|(value, name)| format!("<div class=\"tile\"><b>{value}</b><span>{name}</span></div>")).collect();
    format!("<div class=\"tiles\">{tiles}</div>")
}

/// A name as the first word of a title.
pub(super) fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

// ---- tables

fn tables(report: &Value, summary: &Value, main: &Value) -> String {
    let mut sections = vec![clock_table(&report["clocks"])];
    let objectives = main["objectives"].as_array().into_iter().flatten().map(|objective| {
        let met = if objective["met"] == true { "met" } else { "missed" };
        let measured = objective["measured"].as_u64().map_or_else(|| "nothing measured".to_owned(), nanoseconds);
        (text(&objective["objective"]), format!("{met}: {measured}"))
    });
    sections.push(facts("Objectives", objectives.collect()));
    sections.push(stage_table(&main["stages"]));
    sections.push(broker(&report["broker"]));
    let parts = ["services", "browsers", "consumers", "observers", "queries"].map(|part| (part, format!("{part}: ")));
    let parts = parts.into_iter().filter(|(part, _)| summary[*part].is_object());
    let mut parts: Vec<(String, &Value)> = parts.map(|(part, name)| (name, &summary[part])).collect();
    if parts.is_empty() {
        parts.push((String::new(), summary));
    }
    for (name, part) in parts {
        let titled = |title: &str| capital(&format!("{name}{title}"));
        sections.push(facts(&titled("settings"), fields(&part["load"])));
        sections.push(facts(&titled("plan"), fields(&part["plan"])));
        sections.push(facts(&titled("read back"), fields(&part["verify"])));
        sections.push(facts(&titled("delivered"), fields(&part["delivered"])));
        sections.push(facts(&titled("memory"), fields(&part["memory"])));
        sections.push(facts(&titled("errors"), fields(&part["errors"])));
        sections.push(facts(&titled("generator"), fields(&part["generator"])));
    }
    sections.push(facts("Machine", fields(&report["machine"])));
    sections.push(facts("Versions", fields(&report["version"])));
    format!("<div class=\"columns\">{}</div>", sections.concat())
}

/// Name, field, and how its number is written.
type Shown = (&'static str, &'static str, fn(f64) -> String);

/// What the broker told of itself, or why it did not.
fn broker(broker: &Value) -> String {
    let whole = &broker["whole"];
    let shown: [Shown; 14] = [
        ("events taken a second", "events_in_per_second", rate),
        ("events given a second", "events_out_per_second", rate),
        ("MiB stored a second", "bytes_in_per_second", mebibytes),
        ("commits a second", "commits_per_second", rate),
        ("events a commit", "events_per_commit", one_digit),
        ("commit time, mean", "commit_mean_ns", time),
        ("commit time, p50", "commit_p50_ns", time),
        ("commit time, p99", "commit_p99_ns", time),
        ("commits in flight", "commits_in_flight", two_digits),
        ("checkpoints", "checkpoints", rate),
        ("MiB to segments a second", "flushed_bytes_per_second", mebibytes),
        ("CPU, of a core", "cpu_of_a_core", |cores| format!("{:.0} %", cores * 100.0)),
        ("CPU for an event", "cpu_us_per_event", |us| time(us * 1e3)),
        ("MiB of memory at the end", "resident_bytes", mebibytes),
    ];
    let rows =
        shown.into_iter().filter_map(|(name, field, words)| Some((name.to_owned(), words(whole[field].as_f64()?))));
    let silent = broker["why"].as_str().map(|why| ("its metrics".to_owned(), format!("unknown: {}", escaped(why))));
    facts("Broker, by its own metrics", rows.chain(silent).collect())
}

fn time(nanos: f64) -> String {
    nanoseconds(nanos as u64)
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / f64::from(1 << 20))
}

fn one_digit(value: f64) -> String {
    format!("{value:.1}")
}

fn two_digits(value: f64) -> String {
    format!("{value:.2}")
}

fn clock_table(clocks: &Value) -> String {
    let row = |(name, clock): (&String, &Value)| {
        let time = |name: &str| clock["percentiles_ns"][name].as_u64().unwrap_or_default();
        let times = ["p50", "p90", "p99", "p99_9", "max"].map(|name| format!("<td>{}</td>", nanoseconds(time(name))));
        format!("<tr><th>{}</th><td>{}</td>{}</tr>", clock_name(name), text(&clock["count"]), times.concat())
    };
    let rows: String = clocks.as_object().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["count", "p50", "p90", "p99", "p99.9", "max"].map(|name| format!("<th>{name}</th>")).concat();
    format!(
        "<section><h2>Clocks</h2><table class=\"numbers\"><thead><tr><th></th>{head}</tr></thead>\
         <tbody>{rows}</tbody></table></section>"
    )
}

/// The stages of an open loop that has several, by its response clock.
fn stage_table(stages: &Value) -> String {
    let row = |stage: &Value| {
        let times = ["p50", "p99", "p99.9", "max"].map(|name| {
            let time = stage["response_us"][name].as_f64().map(|us| nanoseconds((us * 1e3) as u64));
            format!("<td>{}</td>", time.unwrap_or_default())
        });
        let planned = rate(number(&stage["planned_events_per_second"]));
        format!("<tr><th>{} s at {planned}/s</th>{}</tr>", text(&stage["seconds"]), times.concat())
    };
    let rows: String = stages.as_array().into_iter().flatten().map(row).collect();
    let head = ["p50", "p99", "p99.9", "max"].map(|name| format!("<th>{name}</th>")).concat();
    match rows.is_empty() {
        true => String::new(),
        false => format!(
            "<section><h2>Stages</h2><table class=\"numbers\"><thead><tr><th></th>{head}</tr></thead>\
             <tbody>{rows}</tbody></table></section>"
        ),
    }
}

/// The fields of an object that say something; percentiles have a table of their own.
fn fields(object: &Value) -> Vec<(String, String)> {
    let silent = |value: &Value| value.is_null() || value["p50"].is_number() || *value == Value::Array(Vec::new());
    let fields = object.as_object().into_iter().flatten().filter(|(_, value)| !silent(value));
    let field = |(name, value): (&String, &Value)| match name.strip_suffix("_bytes") {
        Some(name) if value.is_u64() => {
            let mebibytes = value.as_u64().unwrap_or_default() >> 20;
            (name.replace('_', " "), format!("{} MiB", grouped(mebibytes)))
        }
        _ => (escaped(&name.replace('_', " ")), text(value)),
    };
    fields.map(field).collect()
}

fn facts(title: &str, rows: Vec<(String, String)>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let rows: String =
        rows.into_iter().map(|(name, value)| format!("<tr><th>{name}</th><td>{value}</td></tr>")).collect();
    format!("<section><h2>{title}</h2><table class=\"facts\">{rows}</table></section>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::tests::{report, sample};

    #[test]
    fn the_page_holds_every_number_and_needs_nothing_else() {
        let (sample, points) = sample();
        let mut report = report(&sample, &points).json();
        report["summary"] = json!({
            "profile": "produce", "verdict": "VALID", "reason": "", "errors": { "503": 2 },
            "measured": { "seconds": 3.0, "events_per_second": 2000.0, "response_us": { "p50": 2200.0, "p99": 11000.0 } },
            "load": { "size": "<b>" },
            "stages": [{ "seconds": 2.0, "planned_events_per_second": 1e4, "response_us": { "p50": 1500.0 } }],
        });
        let page = html(&report);
        for part in [
            "class=\"verdict good\">VALID<",
            "<b>2 000</b><span>events a second</span>",
            "<b>2.20 ms</b><span>response p50</span>",
            "<title>at 2 s\nevents a second 3 000</title>",
            "<title>at 1 s\np50 2.20 ms\np90 2.20 ms\np99 22.0 ms\nmax 22.0 ms</title>",
            "<h2>Send lag, second by second</h2>",
            "<th>service</th><td>600</td><td>3.00 ms</td>",
            "<td>&lt;b&gt;</td>",
            "<th>2 s at 10 000/s</th><td>1.50 ms</td>",
            "prefers-color-scheme: dark",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        report["summary"]["delivered"] = json!({ "end_to_end_us": { "p50": 7000.0 } });
        assert!(html(&report).contains("<b>7.00 ms</b><span>end to end p50</span>"), "what consumers felt comes first");
        assert_eq!(page.matches("<svg ").count(), 4, "rate, response, percentiles, send lag");
        assert!(!page.contains("Broker"), "it was not asked");
        assert_eq!(page.matches("<path class=\"line").count(), 1 + 4 + 3 + 4);
        for foreign in ["<script", "http://", "https://", "url(", "@import", "src=", "<link"] {
            assert!(!page.contains(foreign), "{foreign} is in the page");
        }
    }

    #[test]
    fn what_the_broker_told_is_drawn_and_what_it_did_not_is_said() {
        let (sample, points) = sample();
        let mut report = report(&sample, &points).json();
        let span = |second: u64| {
            json!({
                "at_s": second as f64 - 0.01, "length_s": 1.0, "commits_per_second": 1_000 * second, "cpu_of_a_core": 0.25,
                "events_per_commit": 12.5, "commit_mean_ns": 150_000.0, "commit_p50_ns": 100_000, "commit_p99_ns": 200_000,
                "resident_bytes": 24 << 20,
            })
        };
        report["broker"] = json!({ "state": "told", "whole": span(1), "series": [span(0), span(1), span(2)] });
        let page = html(&report);
        assert_eq!(page.matches("<svg ").count(), 4 + 4, "commits, events of each, times of each, CPU");
        for part in [
            "<h2>Broker: commits a second</h2>",
            "\ncommits a second 2 000</title>",
            "\np50 100 µs\nmean 150 µs\np99 200 µs</title>",
            "\nCPU, of a core 25 %</title>",
            "<th>events a commit</th><td>12.5</td>",
            "<th>MiB of memory at the end</th><td>24.0</td>",
        ] {
            assert!(page.contains(part), "{part:?} is not in {page}");
        }
        report["broker"] = json!({ "state": "silent", "why": "it is <nginx>" });
        assert!(html(&report).contains("<th>its metrics</th><td>unknown: it is &lt;nginx&gt;</td>"));
    }

    #[test]
    fn readers_are_told_by_the_clock_that_they_are_there_for() {
        let measured = json!({ "answer_us": { "p50": 1.0 }, "delivery_us": { "p50": 2.0 }, "ack_us": { "p50": 3.0 } });
        for (kind, tile) in [("read", "<b>2.00 µs</b><span>delivery p50"), ("acks", "<b>3.00 µs</b><span>ack p50")] {
            let page = html(&json!({ "summary": { "load": { "kind": kind }, "measured": measured } }));
            assert!(page.contains(tile), "{tile} is not in {page}");
        }
    }

    #[test]
    fn of_many_clocks_those_that_somebody_waits_for_are_drawn() {
        let clock = json!({ "count": 9, "quantiles_ns": [[0.0, 1_000], [1.0, 2_000]] });
        let names =
            ["response", "service", "send_lag", "browsers_response", "browsers_service", "consumers_ack", "query"];
        for (count, drawn) in [(6, 6), (7, 3)] {
            let clocks: serde_json::Map<String, Value> =
                names[..count].iter().map(|name| ((*name).to_owned(), clock.clone())).collect();
            let page = html(&json!({ "clocks": clocks }));
            assert_eq!(page.matches("<path class=\"line").count(), drawn, "{page}");
        }
    }

    #[test]
    fn the_parts_of_a_mixed_run_are_drawn_apart() {
        let (sample, points) = sample();
        let mut report = report(&sample, &points).json();
        report["series_of"] = json!({ "browsers": report["series"], "consumers": [] });
        let page = html(&report);
        assert!(page.contains("<title>at 2 s\nservices 3 000\nbrowsers 3 000</title>"), "{page}");
        assert!(page.contains("<h2>Browsers response, second by second</h2>"), "{page}");
        assert_eq!(page.matches("<svg ").count(), 5, "and no consumers, of whom there is nothing");
    }

    #[test]
    fn clocks_of_parts_are_named_in_words() {
        let clock = json!({ "count": 9, "quantiles_ns": [[0.0, 1_000], [1.0, 2_000]] });
        let page = html(&json!({ "clocks": { "browsers_send_lag": clock, "queries_query": clock } }));
        for name in ["browsers send lag", "query"] {
            assert!(page.contains(&format!("<tr><th>{name}</th>")), "{page}");
        }
    }

    #[test]
    fn a_run_without_series_or_clocks_has_a_page() {
        let page =
            html(&json!({ "summary": { "profile": "consume", "verdict": "UNSTABLE" }, "clocks": {}, "series": [] }));
        assert!(page.contains("class=\"verdict notice\">UNSTABLE<") && !page.contains("<svg "), "{page}");
    }

    #[test]
    fn a_command_can_be_copied_and_no_text_becomes_markup() {
        assert_eq!(
            command(&json!(["loadgen", "--slo", "p99<5ms", "it's", ""])),
            "loadgen --slo 'p99&lt;5ms' 'it'\\''s' ''"
        );
    }
}
