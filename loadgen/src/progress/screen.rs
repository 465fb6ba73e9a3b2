//! `--tui`: progress on the whole terminal, drawn on stderr because stdout is for the summary.
//!
//! ```text
//! target, and the verdict so far
//! tiles   events/s · p50 · p99 · max · errors · events
//! rate, second by second
//! p99, second by second
//! progress of the load, then of reading back
//! ```
//!
//! The terminal is raw, so Ctrl-C is a key here: the first one ends the load as the signal would, the second one the
//! process. However the thread ends, the terminal is given back.

use std::collections::VecDeque;
use std::io::{IsTerminal, Stderr, stderr, stdin};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::prelude::CrosstermBackend;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Gauge, Paragraph, Sparkline};
use ratatui::{Frame, Terminal};

use super::{Board, Course, EVERY, Look, Told};
use crate::units::{grouped, nanoseconds, rate};
use crate::verdict::{Evidence, Verdict, judge};
use crate::worker::Control;

/// How soon a key, or the end of the run, is noticed.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Seconds that are remembered: more than the widest terminal shows.
const SECONDS_MAX: usize = 512;

/// Exit code of whoever does not want to wait for the summary.
const INTERRUPTED: i32 = 130;

/// The terminal; given back when dropped.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = disable_raw_mode();
        let _ = execute!(stderr(), LeaveAlternateScreen);
        let _ = self.terminal.show_cursor();
    }
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When there is none, in words.
    pub(super) fn open() -> Result<Screen, String> {
        if !stderr().is_terminal() || !stdin().is_terminal() {
            return Err("stdin and stderr must be a terminal".to_owned());
        }
        let terminal = Terminal::new(CrosstermBackend::new(stderr())).map_err(|error| error.to_string())?;
        let screen = Screen { terminal };
        enable_raw_mode().and_then(|()| execute!(stderr(), EnterAlternateScreen)).map_err(|error| error.to_string())?;
        Ok(screen)
    }

    /// Draws until the run is over.
    pub(super) fn show(mut self, course: &Course, board: &Board, control: &Control, ended: &Receiver<()>) {
        let mut told = Told::new(Instant::now());
        let mut seen = Seen::default();
        while ended.try_recv() == Err(TryRecvError::Empty) {
            if told.last.elapsed() >= EVERY {
                seen.add(told.next(course, board, Instant::now()));
            }
            let stopping = control.stop.load(Ordering::Relaxed);
            let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            if self.terminal.draw(|frame| seen.draw(frame, course, stopping, coloured)).is_err() {
                // A terminal that went away ends nothing: the load goes on without it.
                std::thread::sleep(KEY_WAIT);
                continue;
            }
            if quit(KEY_WAIT) && control.stop.swap(true, Ordering::Relaxed) {
                drop(self);
                std::process::exit(INTERRUPTED);
            }
        }
    }
}

/// Waits for a key that ends the load.
fn quit(wait: Duration) -> bool {
    if !event::poll(wait).unwrap_or_default() {
        return false;
    }
    let Ok(Event::Key(key)) = event::read() else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    last: Look,
    rates: VecDeque<f64>,
    tails: VecDeque<u64>,
}

impl Seen {
    fn add(&mut self, look: Look) {
        if !look.verifying {
            self.rates.push_back(look.per_second);
            self.tails.push_back(look.times.p99);
            if self.rates.len() > SECONDS_MAX {
                self.rates.pop_front();
                self.tails.pop_front();
            }
        }
        // The times of the load stay while it is read back.
        let times = if look.verifying { self.last.times } else { look.times };
        self.last = Look { times, ..look };
    }

    /// What the verdict would be by what is known now; the generator's own share is known at the end.
    fn verdict(&self, course: &Course) -> (Verdict, String) {
        // A rate that is meant to change does not drift.
        let rates: Vec<f64> = self.rates.iter().copied().filter(|_| course.steady).collect();
        let (errors, requests) = (self.last.errors.clone(), self.last.requests);
        judge(&Evidence { errors, requests, rates: &rates, ..Evidence::default() })
    }

    fn draw(&self, frame: &mut Frame<'_>, course: &Course, stopping: bool, coloured: bool) {
        let paint = Paint { coloured };
        let [head, tiles, rates, tails, progress, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(3),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Length(3),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(course, paint), head);
        let places = Layout::horizontal([Constraint::Fill(1); 6]).split(tiles);
        for ((title, value), place) in self.tiles().into_iter().zip(places.iter()) {
            let text = Paragraph::new(Line::styled(value, Modifier::BOLD)).alignment(Alignment::Center);
            frame.render_widget(text.block(paint.block(format!(" {title} "))), *place);
        }
        let whole: Vec<u64> = self.rates.iter().map(|rate| rate.round() as u64).collect();
        let most = |values: &[u64]| values.iter().copied().max().unwrap_or_default();
        let title = format!(" events/s, second by second, at most {} ", grouped(most(&whole)));
        spark(frame, rates, &whole, paint.block(title), paint.colour(Color::Blue));
        let times: Vec<u64> = self.tails.iter().copied().collect();
        let title = format!(" p99, second by second, at most {} ", nanoseconds(most(&times)));
        spark(frame, tails, &times, paint.block(title), paint.colour(Color::Cyan));
        frame.render_widget(self.gauge(paint), progress);
        let words = match (stopping, self.last.verifying) {
            (true, true) => " ended early, reading back   Ctrl-C: give up at once",
            (true, false) => " ending, waits for answers   Ctrl-C: give up at once",
            (false, true) => " reading back   q or Ctrl-C twice: give up",
            (false, false) => " q or Ctrl-C: end the load now, then read back",
        };
        frame.render_widget(Line::styled(words, paint.dim()), foot);
    }

    fn head(&self, course: &Course, paint: Paint) -> Line<'static> {
        let (verdict, reason) = self.verdict(course);
        let colour = match verdict {
            Verdict::Valid => Color::Green,
            Verdict::Incorrect => Color::Red,
            _ => Color::Yellow,
        };
        Line::from(vec![
            Span::styled(" loadgen", Modifier::BOLD),
            Span::raw(format!("  {}  {}  so far ", course.target, course.who)),
            Span::styled(verdict.to_string(), paint.colour(colour).add_modifier(Modifier::BOLD)),
            Span::raw(format!(" {reason}")),
        ])
    }

    fn tiles(&self) -> [(&'static str, String); 6] {
        let Look { per_second, times, errors, done, verifying, .. } = &self.last;
        [
            (if *verifying { "read/s" } else { "events/s" }, rate(*per_second)),
            ("p50", nanoseconds(times.p50)),
            ("p99", nanoseconds(times.p99)),
            ("max", nanoseconds(times.max)),
            ("errors", grouped(errors.values().sum())),
            (if *verifying { "read back" } else { "events" }, grouped(*done)),
        ]
    }

    fn gauge(&self, paint: Paint) -> Gauge<'static> {
        let Look { elapsed, share, left, verifying, .. } = &self.last;
        let left = left.map_or_else(String::new, |seconds| format!(", {seconds} s left"));
        let title = if *verifying { " reading back " } else { " load " };
        let label = format!("{:.0} % after {} s{left}", share * 100.0, elapsed.as_secs());
        Gauge::default()
            .block(paint.block(title.to_owned()))
            .gauge_style(paint.colour(Color::Blue))
            .ratio(*share)
            .label(label)
    }
}

/// The latest seconds that there is room for, the newest at the right.
fn spark(frame: &mut Frame<'_>, place: Rect, values: &[u64], block: Block<'static>, style: Style) {
    let room = usize::from(place.width.saturating_sub(2));
    let shown = &values[values.len().saturating_sub(room)..];
    frame.render_widget(Sparkline::default().block(block).style(style).data(shown), place);
}

/// Styles, or none where colours are not wanted.
#[derive(Clone, Copy)]
struct Paint {
    coloured: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(self) -> Style {
        if self.coloured { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    fn block(self, title: String) -> Block<'static> {
        let block = Block::bordered().border_type(BorderType::Rounded).border_style(self.dim());
        block.title(Span::styled(title, Style::new()))
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::progress::tests::course;
    use crate::sample::ErrorKind;
    use crate::series::Quantiles;

    fn drawn(seen: &Seen, stopping: bool) -> String {
        let mut terminal = Terminal::new(TestBackend::new(80, 16)).unwrap();
        terminal.draw(|frame| seen.draw(frame, &course(), stopping, false)).unwrap();
        terminal.backend().to_string()
    }

    fn look(second: u64) -> Look {
        let p99 = second * 1_000_000;
        Look {
            elapsed: Duration::from_secs(second),
            per_second: 100.0 * second as f64,
            times: Quantiles { p50: 500_000, p90: 800_000, p99, p99_9: p99, max: 2 * p99 },
            requests: 1000,
            done: 50 * second * second,
            share: second as f64 / 10.0,
            left: Some(10.0 - second as f64),
            ..Look::default()
        }
    }

    #[test]
    fn a_load_and_its_reading_back_are_drawn() {
        let mut seen = Seen::default();
        (1..=6).for_each(|second| seen.add(look(second)));
        insta::assert_snapshot!("load", drawn(&seen, false));
        let mut reading = Look { verifying: true, done: 900, all: Some(1800), share: 0.5, ..look(7) };
        reading.errors.insert(ErrorKind::Timeout, 2);
        seen.add(reading);
        insta::assert_snapshot!("reading_back", drawn(&seen, true));
    }

    #[test]
    fn only_as_many_seconds_are_kept_as_can_be_shown_and_a_small_terminal_is_no_trouble() {
        let mut seen = Seen::default();
        (0..2000).for_each(|second| seen.add(look(second % 9)));
        assert_eq!((seen.rates.len(), seen.tails.len()), (SECONDS_MAX, SECONDS_MAX));
        for (width, height) in [(1, 1), (10, 3), (80, 5), (300, 80)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| seen.draw(frame, &course(), false, true)).unwrap();
        }
    }
}
