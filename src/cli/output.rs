//! What commands write: data to stdout, talk to stderr; aligned tables; `-o text|json`.

use std::io::{self, BufRead, IsTerminal, Write};

use super::escape::{one_line, printable};
use super::failure::Failure;

/// How a command writes what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Output {
    /// For a person.
    #[default]
    Text,
    /// For a program.
    Json,
}

/// Writes one line of data.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    lines(std::slice::from_ref(&text))
}

/// Writes lines of data.
pub(super) fn lines(lines: &[impl AsRef<str>]) -> Result<(), Failure> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    whole(&text)
}

/// Writes a text that brings its own line breaks.
pub(super) fn whole(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

/// Says something to the person at the terminal.
pub(super) fn say(text: &str) {
    // When stderr is gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// A number of things: `1 event`, `2 events`.
pub(super) fn several(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Names and values in two columns, every line behind `indent`.
pub(super) fn facts(indent: &str, facts: &[(String, String)]) -> Vec<String> {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{indent}{name:<width$}  {}", one_line(value))).collect()
}

/// How a column of a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// What a cell says of the thing in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing in particular.
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Notice,
    /// Somebody should do something.
    Bad,
}

impl Tone {
    /// The text in the colour of the tone.
    pub(super) fn paint(self, text: &str) -> String {
        let colour = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => 32,
            Self::Notice => 33,
            Self::Bad => 31,
        };
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    }
}

/// Whether data may be coloured: it goes to a terminal that knows colours, and nobody asked for none.
pub(super) fn coloured() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Asks the person at the terminal, and gives the answer without blanks around it; empty when there is none.
pub(super) fn ask(question: &str) -> String {
    say(question);
    let mut answer = String::new();
    // Whoever cannot be read says nothing.
    let _ = io::stdin().lock().read_line(&mut answer);
    answer.trim().to_owned()
}

/// A table with a line of titles. Rows have as many cells as there are titles.
pub(super) fn table(titles: &[(&str, Side)], rows: &[Vec<String>]) -> Vec<String> {
    painted_table(titles, rows, |_, _| Tone::Plain)
}

/// The same with cells in the tone that `tone` gives for row and column.
pub(super) fn painted_table(
    titles: &[(&str, Side)],
    rows: &[Vec<String>],
    tone: impl Fn(usize, usize) -> Tone,
) -> Vec<String> {
    let safe: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            let cells = safe.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([titles[column].0.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    // A cell is painted without the blanks around it, which give it its width.
    let row_text = |cells: &mut dyn Iterator<Item = (&str, Tone)>| {
        let mut text = String::new();
        for (((cell, tone), (_, side)), width) in cells.zip(titles).zip(&widths) {
            let blanks = " ".repeat(width - cell.chars().count());
            let cell = tone.paint(cell);
            match side {
                Side::Left => text.push_str(&format!("{cell}{blanks}  ")),
                Side::Right => text.push_str(&format!("{blanks}{cell}  ")),
            }
        }
        text.trim_end().to_owned()
    };
    let mut text = vec![row_text(&mut titles.iter().map(|(title, _)| (*title, Tone::Plain)))];
    text.extend(safe.iter().enumerate().map(|(row, cells)| {
        row_text(&mut cells.iter().enumerate().map(|(column, cell)| (cell.as_str(), tone(row, column))))
    }));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let titles = [("GROUP", Side::Left), ("TAIL", Side::Right), ("NOTE", Side::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["a", "12345", "x\u{1b}"]), row(["häuser", "7", ""])];
        assert_eq!(table(&titles, &rows), ["GROUP    TAIL  NOTE", "a       12345  x\\u{1b}", "häuser      7"]);
        assert_eq!(table(&titles, &[]), ["GROUP  TAIL  NOTE"]);
    }

    #[test]
    fn colours_take_no_room() {
        let titles = [("N", Side::Right), ("STATE", Side::Left), ("X", Side::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["1", "live", "a"]), row(["20", "stuck", "b"])];
        let tone = |row, column| match (row, column) {
            (0, 1) => Tone::Good,
            (1, 0) => Tone::Bad,
            _ => Tone::Plain,
        };
        let painted = painted_table(&titles, &rows, tone);
        assert_eq!(
            painted,
            [" N  STATE  X", " 1  \u{1b}[32mlive\u{1b}[0m   a", "\u{1b}[31m20\u{1b}[0m  stuck  b"],
            "{painted:?}"
        );
    }

    #[test]
    fn facts_are_aligned() {
        let given = [("a", "1"), ("long", "2\n")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(facts("  ", &given[..1]), ["  a  1"]);
        assert_eq!(facts(" ", &given), [" a     1", " long  2\\n"]);
    }
}
