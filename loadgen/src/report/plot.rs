//! Lines in a frame as inline SVG. Knows scales and ticks, not what is drawn; colours are the page's classes.

use std::fmt::Write;

use super::page::escaped;

/// The drawing and the frame in it, in the units of the `viewBox`; the page scales it to its width.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// Up to so many points each one gets a dot, and up to so many words of its own under the pointer.
const DOTS_MAX: usize = 40;
const WORDS_MAX: usize = 900;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Evenly from zero.
    Linear,
    /// By powers of ten.
    Log,
}

/// One axis: its range and where it is labelled.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to a round number that holds all values, with about `count` labels.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>, count: f64, label: impl Fn(f64) -> String) -> Axis {
        let most = values.fold(0.0, f64::max).max(1.0);
        let step = round_step(most / count);
        let steps = (most / step - 1e-9).ceil();
        let ticks = (0..=steps as u64).map(|number| number as f64 * step).map(|value| (value, label(value))).collect();
        Axis { scale: Scale::Linear, from: 0.0, to: steps * step, ticks }
    }

    /// From zero to exactly there, with about `count` labels at round numbers.
    pub(super) fn up_to(end: f64, count: f64, label: impl Fn(f64) -> String) -> Axis {
        let mut axis = Axis::from_zero([end].into_iter(), count, label);
        axis.to = end.max(f64::MIN_POSITIVE);
        axis.ticks.retain(|(value, _)| *value <= end);
        axis
    }

    /// By powers of ten around all values (that are above zero), labelled at 1, 2 and 5 where there is room.
    pub(super) fn decades(values: impl Iterator<Item = f64>, label: impl Fn(f64) -> String) -> Axis {
        let (least, most) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let (least, most) = if most > 0.0 { (least, most) } else { (1.0, 10.0) };
        let marks = |digits: &'static [f64]| {
            let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            (first..=last).flat_map(move |power| digits.iter().map(move |digit| digit * 10_f64.powi(power)))
        };
        let from = marks(&[1.0, 2.0, 5.0]).filter(|mark| *mark <= least).fold(f64::MIN, f64::max);
        let to = marks(&[1.0, 2.0, 5.0]).filter(|mark| *mark >= most).fold(f64::MAX, f64::min);
        let to = if to > from { to } else { from * 2.0 };
        let digits: &[f64] = if to / from > 200.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let inside = marks(digits).filter(|mark| (from..=to).contains(mark));
        Axis { scale: Scale::Log, from, to, ticks: inside.map(|mark| (mark, label(mark))).collect() }
    }

    /// A given range with given labels.
    pub(super) fn given(scale: Scale, from: f64, to: f64, ticks: Vec<(f64, String)>) -> Axis {
        Axis { scale, from, to, ticks }
    }

    /// Where in its range a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
        };
        share.clamp(0.0, 1.0)
    }
}

/// One, two or five times a power of ten, not below the value.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= value * 0.999).unwrap_or(power)
}

/// A line: its name, its class, and its places; `None` where there is nothing.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A whole plot.
#[derive(Debug)]
pub(super) struct Plot<'p> {
    /// What it shows, for those who cannot see it.
    pub(super) title: &'p str,
    pub(super) lines: &'p [Line],
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// A value in words, with its unit.
    pub(super) words: fn(f64) -> String,
    /// A place on the x axis in words.
    pub(super) at: fn(f64) -> String,
}

impl Plot<'_> {
    /// A legend if there are several lines, and the drawing.
    pub(super) fn svg(&self) -> String {
        let mut out = String::new();
        if self.lines.len() > 1 {
            let names =
                self.lines.iter().map(|line| format!("<span class=\"key {}\">{}</span>", line.class, line.name));
            out += &format!("<p class=\"legend\">{}</p>", names.collect::<String>());
        }
        out += &format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escaped(self.title));
        self.frame(&mut out);
        self.lines.iter().for_each(|line| self.line(line, &mut out));
        self.pointer(&mut out);
        out + "</svg>"
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn frame(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let y = self.y(*value);
            let _ = write!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let _ = write!(out, "<text class=\"left\" x=\"{}\" y=\"{:.1}\">{label}</text>", LEFT - 8.0, y + 4.0);
        }
        for (value, label) in &self.x.ticks {
            let x = self.x(*value);
            let _ = write!(out, "<path class=\"tick\" d=\"M{x:.1} {bottom}v4\"/>");
            let _ = write!(out, "<text class=\"below\" x=\"{x:.1}\" y=\"{}\">{label}</text>", HEIGHT - 7.0);
        }
        let _ = write!(out, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
    }

    fn line(&self, line: &Line, out: &mut String) {
        let mut path = String::new();
        let mut pen = 'M';
        let mut dots = String::new();
        for (x, y) in &line.points {
            let Some(y) = y else {
                pen = 'M';
                continue;
            };
            let (x, y) = (self.x(*x), self.y(*y));
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            let _ = write!(dots, "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", line.class);
            pen = 'L';
        }
        let _ = write!(out, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
        if line.points.len() <= DOTS_MAX {
            *out += &dots;
        }
    }

    /// A band for each place, which tells all values under the pointer.
    fn pointer(&self, out: &mut String) {
        let places: Vec<f64> =
            self.lines.first().map_or_else(Vec::new, |line| line.points.iter().map(|at| at.0).collect());
        if places.len() > WORDS_MAX {
            return;
        }
        for (index, at) in places.iter().enumerate() {
            let middle =
                |other: Option<&f64>, edge: f64| other.map_or(edge, |other| (self.x(*at) + self.x(*other)) / 2.0);
            let left = middle(index.checked_sub(1).map(|index| &places[index]), LEFT);
            let right = middle(places.get(index + 1), WIDTH - RIGHT);
            let values = self.lines.iter().filter_map(|line| {
                let value = line.points.iter().find(|(x, _)| x == at)?.1?;
                Some(format!("\n{} {}", line.name, (self.words)(value)))
            });
            let _ = write!(
                out,
                "<rect class=\"band\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\"><title>{}{}</title></rect>",
                (right - left).max(0.0),
                HEIGHT - TOP - BOTTOM,
                (self.at)(*at),
                values.collect::<String>(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_hold_all_values_between_round_numbers() {
        let whole = |value: f64| value.to_string();
        let axis = Axis::from_zero([3.0, 1_730.0].into_iter(), 4.0, whole);
        assert_eq!((labels(&axis), axis.to), (vec!["0", "500", "1000", "1500", "2000"], 2000.0));
        assert_eq!(labels(&Axis::from_zero([].into_iter(), 4.0, whole)), ["0", "0.5", "1"]);
        let axis = Axis::decades([300.0, 4_100.0].into_iter(), whole);
        assert_eq!(labels(&axis), ["200", "500", "1000", "2000", "5000"]);
        assert_eq!(labels(&Axis::decades([1.0, 9e5].into_iter(), whole)).len(), 7);
        assert_eq!(labels(&Axis::decades([1_000.0].into_iter(), whole)), ["1000", "2000"], "one value has a range");
        assert!(!labels(&Axis::decades([0.0].into_iter(), whole)).is_empty(), "nothing has one, too");
    }

    #[test]
    fn lines_are_drawn_where_their_values_are_and_broken_where_there_are_none() {
        let points = vec![(0.0, Some(0.0)), (1.0, Some(50.0)), (2.0, None), (3.0, Some(100.0)), (4.0, Some(25.0))];
        let line = Line { name: "rate".into(), class: "a", points };
        let axis = |to: f64| Axis::given(Scale::Linear, 0.0, to, Vec::new());
        let words = |value: f64| format!("{value} a second");
        let plot = Plot { title: "<t>", lines: &[line], x: axis(4.0), y: axis(100.0), words, at: |x| format!("{x} s") };
        let svg = plot.svg();
        let right = WIDTH - RIGHT;
        let at = |share: f64| LEFT + share * (right - LEFT);
        let path = format!("d=\"M{LEFT:.1} 224.0L{:.1} 117.0M{:.1} 10.0L{right:.1} 170.5\"", at(0.25), at(0.75));
        assert!(svg.contains(&path), "{path} is not in {svg}");
        assert!(svg.contains("<title>3 s\nrate 100 a second</title>") && svg.contains("<title>2 s</title>"), "{svg}");
        assert!(svg.contains("aria-label=\"&lt;t&gt;\""), "{svg}");
    }
}
