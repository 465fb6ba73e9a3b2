//! How a tick looks: drawn on a terminal of 80 columns and 24 lines or more, or as a plain table.
//!
//! ```text
//! broker, address, uptime, health
//! tiles   in · out · commits · connections · disk · worst lag
//! consumers, furthest behind first      as many as there is room for
//! groups that grow, fastest first       four at most
//! ```

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Cell, Paragraph, Row as TableRow, Table};

use super::super::consumer::show::{self, Row, seconds};
use super::super::escape::one_line;
use super::super::output::{self, Side, Tone};
use super::sample::{Rates, Tick};
use crate::units::{rough_count, rough_size, rough_span};

/// Groups that are shown at once.
const GROUPS: usize = 4;
/// From this width on there is room for reasons.
const WIDE: u16 = 110;
/// A lag that is worth a look, and one that somebody should do something about.
const LAG_NOTICE: Duration = Duration::from_secs(60);
const LAG_BAD: Duration = Duration::from_secs(600);

/// What a tile says: a title, a number, and something beside it.
struct Tile {
    title: &'static str,
    value: String,
    beside: String,
    tone: Tone,
}

fn tiles(tick: &Tick) -> [Tile; 6] {
    let rate =
        |rate: fn(&Rates) -> f64| tick.rates.as_ref().map_or_else(|| "-".to_owned(), |all| rough_count(rate(all)));
    let bytes = tick.rates.map_or_else(|| "-".to_owned(), |all| format!("{}/s", rough_size(all.bytes_in as u64)));
    let p99 = tick.rates.and_then(|rates| rates.commit_p99);
    let room = tick.disk_free.saturating_sub(tick.disk_reserve);
    let tile = |title, value, beside, tone| Tile { title, value, beside, tone };
    let (lag, events, lag_tone) = match tick.worst() {
        None => ("none".to_owned(), "all acked".to_owned(), Tone::Good),
        Some(row) => {
            let behind = seconds(row.lag.seconds);
            let tone = match behind {
                _ if behind >= LAG_BAD => Tone::Bad,
                _ if behind >= LAG_NOTICE => Tone::Notice,
                _ => Tone::Plain,
            };
            (rough_span(behind), format!("{} ev", rough_count(row.lag.events as f64)), tone)
        }
    };
    let disk_tone = match room {
        0 => Tone::Bad,
        _ if room < tick.disk_reserve => Tone::Notice,
        _ => Tone::Plain,
    };
    [
        tile("in/s", rate(|all| all.events_in), bytes, Tone::Plain),
        tile("out/s", rate(|all| all.events_out), format!("{} acked", rate(|all| all.acked)), Tone::Plain),
        tile(
            "commits/s",
            rate(|all| all.commits),
            format!("p99 {}", p99.map_or_else(|| "-".to_owned(), brief)),
            Tone::Plain,
        ),
        tile("conns", rough_count(tick.connections as f64), rough_size(tick.resident_bytes), Tone::Plain),
        tile("disk free", rough_size(tick.disk_free), format!("of {}", rough_size(tick.disk_total)), disk_tone),
        tile("worst lag", lag, events, lag_tone),
    ]
}

/// A short time: `0.31ms`, `4.2ms`, `1.3s`.
fn brief(seconds: f64) -> String {
    match seconds * 1e3 {
        ms if ms < 1.0 => format!("{ms:.2}ms"),
        ms if ms < 1e3 => format!("{ms:.1}ms"),
        _ => format!("{seconds:.1}s"),
    }
}

/// How the broker is, in a few words.
fn health(tick: &Tick, away: Option<&str>) -> (String, Tone) {
    match (away, tick.faults.first(), tick.draining) {
        (Some(cause), ..) => (format!("away: {}", one_line(cause)), Tone::Bad),
        (_, Some(fault), _) => (one_line(fault), Tone::Bad),
        (.., true) => ("draining".to_owned(), Tone::Notice),
        _ => ("running".to_owned(), Tone::Good),
    }
}

// ---- on a terminal

/// Draws a tick; `away` is why the broker does not answer now.
pub(super) fn draw(frame: &mut Frame<'_>, url: &str, tick: &Tick, away: Option<&str>, coloured: bool) {
    let paint = Paint { coloured };
    let groups = if tick.growing.is_empty() { 0 } else { tick.growing.len().min(GROUPS) as u16 + 2 };
    let [head, tiles_at, consumers_at, groups_at, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(groups),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let (words, tone) = health(tick, away);
    let uptime = rough_span(Duration::from_secs(tick.uptime_seconds));
    let line = Line::from(vec![
        Span::styled(format!(" eddyline {}", one_line(&tick.version)), Modifier::BOLD),
        Span::raw(format!("  {url}  up {uptime}  ")),
        Span::styled(words, paint.tone(tone)),
    ]);
    frame.render_widget(line, head);
    let places = Layout::horizontal([Constraint::Fill(1); 6]).split(tiles_at);
    for (tile, place) in tiles(tick).into_iter().zip(places.iter()) {
        draw_tile(frame, &tile, *place, paint);
    }
    let shown = draw_consumers(frame, tick, consumers_at, paint);
    if groups > 0 {
        draw_groups(frame, tick, groups_at, paint);
    }
    frame.render_widget(Line::styled(footer(tick, shown), paint.dim()), foot);
}

/// Styles, or none where colours are not wanted.
#[derive(Clone, Copy)]
struct Paint {
    coloured: bool,
}

impl Paint {
    fn tone(self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Plain => return Style::new(),
            Tone::Good => Color::Green,
            Tone::Notice => Color::Yellow,
            Tone::Bad => Color::Red,
        };
        if self.coloured { Style::new().fg(colour) } else { Style::new().add_modifier(Modifier::BOLD) }
    }

    fn dim(self) -> Style {
        if self.coloured { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    fn block(self, title: String) -> Block<'static> {
        let block = Block::bordered().border_type(BorderType::Rounded).border_style(self.dim());
        block.title(Span::styled(title, Style::new()))
    }
}

fn draw_tile(frame: &mut Frame<'_>, tile: &Tile, place: Rect, paint: Paint) {
    let lines = vec![
        Line::styled(tile.value.clone(), paint.tone(tile.tone).add_modifier(Modifier::BOLD)),
        Line::styled(tile.beside.clone(), paint.dim()),
    ];
    let text = Paragraph::new(lines).alignment(Alignment::Center);
    frame.render_widget(text.block(paint.block(format!(" {} ", tile.title))), place);
}

/// Draws the consumers that there is room for, and says how many.
fn draw_consumers(frame: &mut Frame<'_>, tick: &Tick, place: Rect, paint: Paint) -> usize {
    let block = paint.block(" consumers, furthest behind first ".to_owned());
    let room = place.height.saturating_sub(3) as usize;
    let wide = place.width >= WIDE;
    let widths: [Constraint; 8] = [
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(if wide { 9 } else { 7 }),
        if wide { Constraint::Fill(5) } else { Constraint::Length(12) },
    ];
    let rows = tick.rows.iter().take(room).map(|row| {
        let cells = row.cells().into_iter().zip(show::TITLES).enumerate().map(|(column, (text, (_, side)))| {
            let text = if column == 2 { compact(row, text) } else { text };
            let line = Line::from(one_line(&text)).alignment(alignment(side));
            match column {
                7 if wide => Cell::from(line).style(paint.tone(row.tone())),
                7 => Cell::from(row.state.replace('_', " ")).style(paint.tone(row.tone())),
                _ => Cell::from(line),
            }
        });
        TableRow::new(cells)
    });
    let table = Table::new(rows, widths).header(titles(&show::TITLES, paint)).block(block);
    frame.render_widget(table, place);
    tick.rows.len().min(room)
}

/// The lag in events, where there is one, with a unit.
fn compact(row: &Row, cell: String) -> String {
    if cell == "-" { cell } else { rough_count(row.lag.events as f64) }
}

fn alignment(side: Side) -> Alignment {
    match side {
        Side::Left => Alignment::Left,
        Side::Right => Alignment::Right,
    }
}

fn titles(titles: &[(&'static str, Side)], paint: Paint) -> TableRow<'static> {
    let cells = titles.iter().map(|(title, side)| Line::from(*title).alignment(alignment(*side)));
    TableRow::new(cells.map(Cell::from)).style(paint.dim())
}

fn draw_groups(frame: &mut Frame<'_>, tick: &Tick, place: Rect, paint: Paint) {
    let rows = tick.growing.iter().take(GROUPS).map(|group| {
        let cells = [group.group.clone(), format!("{}/s", rough_count(group.rate)), format!("tail {}", group.tail)];
        TableRow::new(cells.map(|text| Cell::from(one_line(&text))))
    });
    let widths = [Constraint::Fill(1), Constraint::Length(10), Constraint::Length(26)];
    let table = Table::new(rows, widths).block(paint.block(" groups, fastest first ".to_owned()));
    frame.render_widget(table, place);
}

fn footer(tick: &Tick, shown: usize) -> String {
    let consumers = output::several(tick.consumers_all, "consumer");
    let more = tick.consumers_all.saturating_sub(shown as u64);
    let more = if more == 0 { String::new() } else { format!(", {more} not shown") };
    format!(" {consumers}{more}  ·  {}  ·  q quits", output::several(tick.groups, "group"))
}

// ---- elsewhere

/// A tick as lines: the tiles, and a table of the consumers.
pub(super) fn plain(tick: &Tick) -> Vec<String> {
    let (words, _) = health(tick, None);
    let mut lines = vec![format!(
        "eddyline {}  up {}  {words}",
        one_line(&tick.version),
        rough_span(Duration::from_secs(tick.uptime_seconds))
    )];
    let facts = tiles(tick).map(|tile| (tile.title.to_owned(), format!("{}, {}", tile.value, tile.beside)));
    lines.extend(output::facts("", &facts));
    if !tick.rows.is_empty() {
        lines.push(String::new());
        lines.extend(show::table(&tick.rows, false));
    }
    lines
}

#[cfg(test)]
mod tests;
