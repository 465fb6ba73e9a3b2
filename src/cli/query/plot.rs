//! Slices drawn as lines, in characters: time to the right, every column of numbers a line of its own.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Widget};
use serde_json::Value;

use super::super::failure::Failure;
use super::super::output;
use super::Column;

/// Where there is no terminal.
const SIZE: (u16, u16) = (100, 24);
const HEIGHT_MAX: u16 = 24;

/// Draws rows whose first column is the start of a slice.
pub(super) fn draw(columns: &[Column], rows: &[Vec<Value>]) -> Result<Vec<String>, Failure> {
    if columns.first().is_none_or(|column| column.name != "ts") {
        return Err(Failure::usage("--plot draws slices: the query needs SAMPLE BY"));
    }
    if rows.windows(2).any(|pair| pair[0].first() == pair[1].first()) {
        let detail = "--plot draws a line for each column of numbers, but slices have more rows than one: leave out plain \
                      columns, or choose one of their values with WHERE";
        return Err(Failure::usage(detail));
    }
    let numbers = |place: usize| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((seconds(row.first()?)?, row.get(place)?.as_f64()?))).collect()
    };
    let lines: Vec<(&str, Vec<(f64, f64)>)> =
        columns.iter().enumerate().skip(1).map(|(place, column)| (column.name.as_str(), numbers(place))).collect();
    let mut lines: Vec<_> = lines.into_iter().filter(|(_, points)| !points.is_empty()).collect();
    // What is drawn is a part of the largest: from the smallest to the largest it may be more than a double holds.
    let largest = lines.iter().flat_map(|(_, points)| points).map(|point| point.1.abs()).fold(0.0, f64::max);
    let largest = if largest > 0.0 { largest } else { 1.0 };
    lines.iter_mut().flat_map(|(_, points)| points).for_each(|point| point.1 /= largest);
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    if points().next().is_none() {
        return Err(Failure::failed("there are no numbers to draw"));
    }
    let (width, height) = terminal::size().unwrap_or(SIZE);
    let area = Rect::new(0, 0, width.max(40), height.saturating_sub(2).clamp(10, HEIGHT_MAX));
    let bounds = |value: fn((f64, f64)) -> f64| {
        let (low, high) = points().map(value).fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
        if low < high { [low, high] } else { [low - 1.0, high + 1.0] }
    };
    let (times, mut values) = (bounds(|point| point.0), bounds(|point| point.1));
    values[0] = values[0].min(0.0);
    // Without colours the lines are told apart by what they are drawn with.
    const MARKERS: [Marker; 4] = [Marker::Braille, Marker::Dot, Marker::Block, Marker::Bar];
    let datasets = lines.iter().zip(MARKERS.into_iter().cycle()).map(|((name, points), marker)| {
        Dataset::default().name(Line::from(*name)).marker(marker).graph_type(GraphType::Line).data(points)
    });
    let x = Axis::default().bounds(times).labels(times.map(time));
    let labels = [values[0], (values[0] + values[1]) / 2.0, values[1]].map(|part| short(part * largest));
    let y = Axis::default().bounds(values).labels(labels);
    let mut buffer = Buffer::empty(area);
    Chart::new(datasets.collect()).x_axis(x).y_axis(y).render(area, &mut buffer);
    let row = |y: u16| -> String { (0..area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    let mut text: Vec<String> = (0..area.height).map(|y| row(y).trim_end().to_owned()).collect();
    text.push(format!("{} ({})", names.join(", "), output::several(rows.len() as u64, "slice")));
    Ok(text)
}

fn seconds(value: &Value) -> Option<f64> {
    let time: Timestamp = value.as_str()?.parse().ok()?;
    Some(time.as_microsecond() as f64 / 1e6)
}

fn time(seconds: f64) -> String {
    Timestamp::from_second(seconds as i64).map_or_else(|_| String::new(), |time| time.to_string())
}

fn short(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    match value.abs() {
        0.0 | 0.05..1000.0 => format!("{value:.1}"),
        1000.0..1e18 => format!("{sign}{}", crate::units::rough_count(value.abs())),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column { name: (*name).to_owned(), kind: String::new() }).collect()
    }

    #[test]
    fn a_line_rises_where_numbers_do() {
        let rows: Vec<Vec<Value>> = (0..60)
            .map(|minute| vec![json!(format!("2026-11-25T10:{minute:02}:00Z")), json!(minute), json!(false)])
            .collect();
        let drawn = draw(&columns(&["ts", "count()", "partial"]), &rows).unwrap();
        let text = drawn.join("\n");
        assert!(text.contains("59.0") && text.contains("2026-11-25T10:59:00Z"), "{text}");
        assert!(text.ends_with("count() (60 slices)"), "{text}");
        let height = |part: fn(&str) -> Option<usize>| drawn.iter().position(|line| part(line).is_some());
        let dots = |line: &str| line.find(|c: char| ('\u{2801}'..='\u{28ff}').contains(&c));
        let top = height(dots).map(|line| dots(&drawn[line]));
        let lowest = drawn.iter().rposition(|line| dots(line).is_some()).map(|line| dots(&drawn[line]));
        assert!(top > lowest, "the highest dot is right of the lowest: {text}");
    }

    #[test]
    fn what_is_as_far_apart_as_can_be_is_drawn() {
        let row = |second: u8, value: f64| vec![json!(format!("2026-11-25T10:00:0{second}Z")), json!(value)];
        let rows = [row(0, -1e308), row(1, 1e308), row(2, 0.5)];
        let text = draw(&columns(&["ts", "x"]), &rows).unwrap().join("\n");
        assert!(text.starts_with("1.0e308 ") && text.contains("\n0.0 ") && text.contains("\n-1.0e308 "), "{text}");
    }

    #[test]
    fn labels_are_short() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-5.25, "-5.2"),
            (85_400_000.0, "85.4M"),
            (-59_846_652.0, "-59.8M"),
            (1e308, "1.0e308"),
            (-0.002, "-2.0e-3"),
        ] {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn what_has_no_slices_or_no_numbers_is_not_drawn() {
        assert!(draw(&columns(&["offset"]), &[vec![json!(1)]]).unwrap_err().message.contains("SAMPLE BY"));
        assert!(draw(&columns(&["ts", "x"]), &[]).unwrap_err().message.contains("no numbers"));
        let row = |key: &str| vec![json!("2026-11-25T10:00:00Z"), json!(key), json!(1)];
        let of_keys = draw(&columns(&["ts", "key", "x"]), &[row("a"), row("b")]);
        assert!(of_keys.unwrap_err().message.contains("plain columns"), "one line would go to and fro between keys");
    }
}
