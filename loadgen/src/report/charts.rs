//! The plots of a report's page: which there are, what is in them, and how their axes are labelled. Drawing is `plot`'s.

use serde_json::Value;

use super::page::capital;
use super::plot::{Axis, Line, Plot, Scale};
use crate::units::{grouped, nanoseconds, rate};

/// Colours of lines, in the order in which they are named.
const CLASSES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Percentiles over time, which are classes of their own.
const OVER_TIME: [&str; 4] = ["p50", "p90", "p99", "max"];

/// Clocks that have a plot second by second, if they ran; `service` only where `response` did not.
const TIMED: [&str; 7] = ["end_to_end", "response", "service", "delivery", "answer", "ack", "query"];

/// Shortest part of a second that says something about a rate.
const PART_MIN: f64 = 0.5;

/// A title, and a drawing.
type Chart = (String, String);

/// All that a report has something for.
pub(super) fn all(report: &Value, seconds_measured: f64) -> String {
    let parts: Vec<(&str, &[Value])> = parts(report).collect();
    let mut charts = throughput(&parts, seconds_measured).into_iter().collect::<Vec<_>>();
    for (name, points) in &parts {
        // A single moment is in the percentiles, and no line.
        let least = points.len().min(2);
        let ran = |clock: &str| points.iter().filter(|point| point[format!("{clock}_ns")].is_object()).count() >= least;
        let timed = TIMED.into_iter().filter(|clock| ran(clock) && !(*clock == "service" && ran("response")));
        let name = if parts.len() > 1 { named(name) } else { name };
        charts.extend(timed.map(|clock| over_time(name, points, clock)));
    }
    if report["clocks"].as_object().is_some_and(|clocks| !clocks.is_empty()) {
        charts.push(by_percentile(&report["clocks"]));
    }
    if let Some((_, points)) =
        parts.first().filter(|(_, points)| points.iter().any(|point| point["send_lag_ns"].is_object()))
    {
        charts.push(over_time("", points, "send_lag"));
    }
    if let Some(spans) = report["broker"]["series"].as_array() {
        charts.extend(broker(spans));
    }
    let charts: String =
        charts.into_iter().map(|(title, plot)| format!("<section><h2>{title}</h2>{plot}</section>")).collect();
    format!("<div class=\"grid2\">{charts}</div>")
}

/// The run itself, and other parts of it, with their points.
fn parts(report: &Value) -> impl Iterator<Item = (&str, &[Value])> {
    let others = report["series_of"].as_object().into_iter().flatten().map(|(name, points)| (name.as_str(), points));
    let all = [("", &report["series"])].into_iter().chain(others);
    all.filter_map(|(name, points)| Some((name, points.as_array()?.as_slice())))
        .filter(|(_, points)| !points.is_empty())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn times(value: f64) -> String {
    nanoseconds(value as u64)
}

/// Numbers of which small ones have a fraction.
fn amount(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => rate(value),
    }
}

fn percent(value: f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// Seconds up to the end of these points.
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
    format!("at {} s", grouped(value as u64))
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> + '_ {
    lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value)
}

/// Events a second of every part that has any.
fn throughput(parts: &[(&str, &[Value])], seconds_measured: f64) -> Option<Chart> {
    let several = parts.len() > 1;
    let line = |((name, points), class): (&(&str, &[Value]), &'static str)| {
        let places = points.iter().filter_map(|point| {
            let (at, length) = (number(&point["at_s"]), number(&point["length_s"]));
            // The last one may be a part of a second.
            let length = length.min(seconds_measured - at);
            let whole = length >= PART_MIN || points.len() == 1;
            whole.then(|| (at, Some(number(&point["events"]) / length.max(1e-3))))
        });
        let name = if several { named(name) } else { "events a second" };
        Line { name: name.to_owned(), class, points: places.collect() }
    };
    let with_events = parts.iter().filter(|(_, points)| points.iter().any(|point| number(&point["events"]) > 0.0));
    let lines: Vec<Line> = with_events.zip(CLASSES.into_iter().cycle()).map(line).collect();
    let longest = parts.iter().map(|(_, points)| *points).max_by_key(|points| points.len())?;
    let plot = Plot {
        title: "Events a second over time",
        lines: &lines,
        x: seconds(longest),
        y: Axis::from_zero(values(&lines), 4.0, amount),
        words: rate,
        at,
    };
    (!lines.is_empty()).then(|| ("Events a second, second by second".to_owned(), plot.svg()))
}

/// A part's name; of several the first is that of the services.
fn named(name: &str) -> &str {
    if name.is_empty() { "services" } else { name }
}

/// A clock of a part in words; queries have no other clock than their own.
pub(super) fn clock_name(name: &str) -> String {
    if name == "queries_query" { "query".to_owned() } else { name.replace('_', " ").trim().to_owned() }
}

/// Percentiles of a clock over time.
fn over_time(part: &str, points: &[Value], clock: &str) -> Chart {
    let field = format!("{clock}_ns");
    let line = |name: &'static str| Line {
        name: name.to_owned(),
        class: name,
        points: points.iter().map(|point| (number(&point["at_s"]), point[&field][name].as_f64())).collect(),
    };
    let lines = OVER_TIME.map(line);
    let title = capital(&format!("{}, second by second", clock_name(&format!("{part}_{clock}"))));
    let y = Axis::decades(values(&lines), times);
    let plot = Plot { title: &title, lines: &lines, x: seconds(points), y, words: times, at };
    let svg = plot.svg();
    (title, svg)
}

/// All clocks by percentile; each further nine takes as much room as the one before.
fn by_percentile(clocks: &Value) -> Chart {
    let rarest = clocks.as_object().into_iter().flatten().map(|(_, clock)| number(&clock["count"])).fold(1.0, f64::max);
    let nines = rarest.log10().ceil().clamp(2.0, 8.0) as i32;
    let end = 10_f64.powi(nines);
    let line = |((name, clock), class): ((&String, &Value), &'static str)| {
        let steps = clock["quantiles_ns"].as_array().into_iter().flatten();
        let points = steps.map(|step| {
            let rest = 1.0 - number(&step[0]);
            ((1.0 / rest.max(1.0 / end)).min(end), step[1].as_f64())
        });
        Line { name: clock_name(name), class, points: points.collect() }
    };
    // Of a run of many parts, what nobody waits for would only hide the rest.
    let all = clocks.as_object().map_or(0, serde_json::Map::len);
    let minor =
        |name: &str| all > CLASSES.len() && ["service", "send_lag", "ack"].iter().any(|clock| name.ends_with(clock));
    let shown = clocks.as_object().into_iter().flatten().filter(|(name, _)| !minor(name));
    let lines: Vec<Line> = shown.zip(CLASSES.into_iter().cycle()).map(line).collect();
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
    let y = Axis::decades(values(&lines), times);
    let at = |value: f64| format!("{:.4} % of all", (1.0 - 1.0 / value) * 100.0);
    let plot = Plot { title: "Latency by percentile", lines: &lines, x, y, words: times, at };
    ("Latency by percentile".to_owned(), plot.svg())
}

/// What the broker told of itself: how much it does at a time, how long that takes, and what it costs.
fn broker(spans: &[Value]) -> Vec<Chart> {
    let line = |name: &str, field: &str, class: &'static str| Line {
        name: name.to_owned(),
        class,
        points: spans.iter().map(|span| (number(&span["at_s"]).max(0.0), span[field].as_f64())).collect(),
    };
    let linear = |title: &str, field: &str, words: fn(f64) -> String| {
        let lines = [line(title, field, "a")];
        let y = Axis::from_zero(values(&lines), 4.0, words);
        let title = format!("Broker: {title}");
        let plot = Plot { title: &title, lines: &lines, x: seconds(spans), y, words, at };
        let svg = plot.svg();
        (title, svg)
    };
    let commit = [("p50", "commit_p50_ns"), ("mean", "commit_mean_ns"), ("p99", "commit_p99_ns")];
    let lines: Vec<Line> =
        commit.into_iter().zip(["p50", "p90", "p99"]).map(|((name, field), class)| line(name, field, class)).collect();
    let mut charts = vec![linear("commits a second", "commits_per_second", amount)];
    if values(&lines).next().is_some() {
        let y = Axis::decades(values(&lines), times);
        let plot = Plot { title: "Broker: commit time", lines: &lines, x: seconds(spans), y, words: times, at };
        charts.push(linear("events a commit", "events_per_commit", amount));
        charts.push(("Broker: time of a commit, until durable".to_owned(), plot.svg()));
    }
    charts.push(linear("CPU, of a core", "cpu_of_a_core", percent));
    charts
}
