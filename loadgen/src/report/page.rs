//! `report.html`: a report as one page that needs nothing else, drawn from the same object as `report.json`. It has no
//! script; light and dark are the reader's.

use serde_json::Value;

use super::plot::{Axis, Line, Plot, Scale};
use crate::units::{grouped, nanoseconds, rate};

const STYLE: &str = include_str!("page.css");

/// Colours of clocks, in the order in which they are named.
const CLASSES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Percentiles over time.
const OVER_TIME: [(&str, &str, &str); 4] =
    [("p50", "p50", "p50"), ("p90", "p90", "p90"), ("p99", "p99", "p99"), ("max", "max", "max")];

/// Shortest part of a second that says something about a rate.
const PART_MIN: f64 = 0.5;

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
        plots(report, main),
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
    let clocks = ["response_us", "service_us", "delivery_us", "answer_us"].map(|clock| (clock, &measured[clock]));
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

// ---- plots

fn plots(report: &Value, main: &Value) -> String {
    let points = report["series"].as_array().map_or(&[][..], Vec::as_slice);
    let mut sections = Vec::new();
    if !points.is_empty() {
        let seconds = main["measured"]["seconds"].as_f64().unwrap_or(f64::MAX);
        sections.push(throughput(points, seconds));
        let clock = if points.iter().any(|point| point["response_ns"].is_object()) { "response" } else { "service" };
        sections.push(over_time(points, clock));
    }
    if report["clocks"].as_object().is_some_and(|clocks| !clocks.is_empty()) {
        sections.push(by_percentile(&report["clocks"]));
    }
    if points.iter().any(|point| point["send_lag_ns"].is_object()) {
        sections.push(over_time(points, "send_lag"));
    }
    let sections: String =
        sections.into_iter().map(|(title, plot)| format!("<section><h2>{title}</h2>{plot}</section>")).collect();
    format!("<div class=\"grid2\">{sections}</div>")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn times(value: f64) -> String {
    nanoseconds(value as u64)
}

fn seconds(points: &[Value]) -> Axis {
    let end = points.last().map_or(1.0, |point| number(&point["at_s"]) + number(&point["length_s"]));
    Axis::up_to(end, 6.0, |value| match value {
        0.0 => "0".to_owned(),
        _ if end > 7200.0 => format!("{:.1} h", value / 3600.0),
        _ if end > 120.0 => format!("{:.1} min", value / 60.0).replace(".0 ", " "),
        _ => format!("{value} s").replace("0.5 s", ""),
    })
}

fn at(value: f64) -> String {
    format!("at {value} s")
}

fn throughput(points: &[Value], seconds_measured: f64) -> (String, String) {
    let places = points.iter().filter_map(|point| {
        let (at, length) = (number(&point["at_s"]), number(&point["length_s"]));
        // The last one may be a part of a second.
        let length = length.min(seconds_measured - at);
        let whole = length >= PART_MIN || points.len() == 1;
        whole.then(|| (at, Some(number(&point["events"]) / length.max(1e-3))))
    });
    let line = Line { name: "events a second".to_owned(), class: "a", points: places.collect() };
    let values = line.points.iter().filter_map(|(_, value)| *value);
    let y = Axis::from_zero(values, 4.0, |value| if value < 10.0 { format!("{value}") } else { rate(value) });
    let words = |value: f64| rate(value);
    let plot = Plot { title: "Events a second over time", lines: &[line], x: seconds(points), y, words, at };
    ("Events a second, acknowledged".to_owned(), plot.svg())
}

fn over_time(points: &[Value], clock: &str) -> (String, String) {
    let field = format!("{clock}_ns");
    let line = |(name, field_of, class): (&str, &str, &'static str)| Line {
        name: name.to_owned(),
        class,
        points: points.iter().map(|point| (number(&point["at_s"]), point[&field][field_of].as_f64())).collect(),
    };
    let lines = OVER_TIME.map(line);
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
    let y = Axis::decades(values, times);
    let name = clock.replace('_', " ");
    let title = format!("{name} over time");
    let plot = Plot { title: &title, lines: &lines, x: seconds(points), y, words: times, at };
    (format!("{}, second by second", capital(&name)), plot.svg())
}

/// All clocks by percentile; each further nine takes as much room as the one before.
fn by_percentile(clocks: &Value) -> (String, String) {
    let rarest = clocks.as_object().into_iter().flatten().map(|(_, clock)| number(&clock["count"])).fold(1.0, f64::max);
    let nines = rarest.log10().ceil().clamp(2.0, 8.0) as i32;
    let end = 10_f64.powi(nines);
    let line = |((name, clock), class): ((&String, &Value), &'static str)| {
        let steps = clock["quantiles_ns"].as_array().into_iter().flatten();
        let points = steps.map(|step| {
            let rest = 1.0 - number(&step[0]);
            ((1.0 / rest.max(1.0 / end)).min(end), step[1].as_f64())
        });
        Line { name: name.replace('_', " "), class, points: points.collect() }
    };
    let classes = CLASSES.into_iter().cycle();
    let lines: Vec<Line> = clocks.as_object().into_iter().flatten().zip(classes).map(line).collect();
    let ticks = (0..=nines).map(|nines| {
        let label = match nines {
            0 => "0".to_owned(),
            1 => "90 %".to_owned(),
            2 => "99 %".to_owned(),
            more => format!("99.{} %", "9".repeat(more as usize - 2)),
        };
        (10_f64.powi(nines), label)
    });
    let x = Axis::given(Scale::Log, 1.0, end, ticks.collect());
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
    let y = Axis::decades(values, times);
    let at = |value: f64| format!("{:.4} % of all", (1.0 - 1.0 / value) * 100.0);
    let plot = Plot { title: "Latency by percentile", lines: &lines, x, y, words: times, at };
    ("Latency by percentile".to_owned(), plot.svg())
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
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
    let parts = [("services", "Services: "), ("browsers", "Browsers: "), ("consumers", "Consumers: ")];
    let parts = parts.into_iter().filter(|(part, _)| summary[*part].is_object());
    let mut parts: Vec<(&str, &Value)> = parts.map(|(part, name)| (name, &summary[part])).collect();
    if parts.is_empty() {
        parts.push(("", summary));
    }
    for (name, part) in parts {
        let titled = |title: &str| capital(&format!("{name}{title}"));
        sections.push(facts(&titled("settings"), fields(&part["load"])));
        sections.push(facts(&titled("plan"), fields(&part["plan"])));
        sections.push(facts(&titled("read back"), fields(&part["verify"])));
        sections.push(facts(&titled("delivered"), fields(&part["delivered"])));
        sections.push(facts(&titled("errors"), fields(&part["errors"])));
        sections.push(facts(&titled("generator"), fields(&part["generator"])));
    }
    sections.push(facts("Machine", fields(&report["machine"])));
    sections.push(facts("Versions", fields(&report["version"])));
    format!("<div class=\"columns\">{}</div>", sections.concat())
}

fn clock_table(clocks: &Value) -> String {
    let row = |(name, clock): (&String, &Value)| {
        let time = |name: &str| clock["percentiles_ns"][name].as_u64().unwrap_or_default();
        let times = ["p50", "p90", "p99", "p99_9", "max"].map(|name| format!("<td>{}</td>", nanoseconds(time(name))));
        format!("<tr><th>{}</th><td>{}</td>{}</tr>", name.replace('_', " "), text(&clock["count"]), times.concat())
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
        assert_eq!(page.matches("<path class=\"line").count(), 1 + 4 + 3 + 4);
        for foreign in ["<script", "http://", "https://", "url(", "@import", "src=", "<link"] {
            assert!(!page.contains(foreign), "{foreign} is in the page");
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
