//! What is wrong with a query: a stable code, words, and the place, drawn with a caret under it.

use std::fmt;
use std::ops::Range;
use unicode_width::UnicodeWidthStr;

/// Characters of a line that are shown before and behind the place.
const SHOWN: usize = 60;

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Stable name, for programs.
    pub code: &'static str,
    /// What is wrong and what was expected.
    pub detail: String,
    /// Bytes of the text that it is about.
    pub place: Range<usize>,
}

impl Fault {
    pub(super) fn new(code: &'static str, detail: impl Into<String>, place: Range<usize>) -> Self {
        Self { code, detail: detail.into(), place }
    }

    /// Line and column of the place, each from 1, the column in characters.
    #[must_use]
    pub fn line_and_column(&self, text: &str) -> (usize, usize) {
        let before = &text[..floor(text, self.place.start)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    /// The line that the place is in, with a caret under it.
    #[must_use]
    pub fn drawn(&self, text: &str) -> String {
        let start = floor(text, self.place.start);
        let end = floor(text, self.place.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let plain = |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let before: Vec<char> = plain(&text[line_start..start]).chars().collect();
        let shown = &before[before.len().saturating_sub(SHOWN)..];
        let behind: String = plain(&text[start..line_end]).chars().take(SHOWN).collect();
        let marked: String = plain(&text[start..end.min(line_end)]).chars().take(SHOWN).collect();
        let shown: String = shown.iter().collect();
        // Some characters take two columns, some none.
        format!("{shown}{behind}\n{}{}", " ".repeat(shown.width()), "^".repeat(marked.width().max(1)))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// The start of the character that byte `at` is in.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_drawn_in_its_line() {
        let text = "SELECT *\nFRM é orders";
        let fault = Fault::new("bad_query", "expected IN", 9..12);
        assert_eq!(fault.line_and_column(text), (2, 1));
        assert_eq!(fault.drawn(text), "FRM é orders\n^^^");
        let end = Fault::new("bad_query", "expected more", text.len()..text.len());
        assert_eq!(end.line_and_column(text), (2, 13));
        assert_eq!(end.drawn(text), "FRM é orders\n            ^");
        let wide = "漢字 e\u{301} 漢字";
        let fault = Fault::new("bad_query", "behind what is wide, on what is", wide.len() - 6..wide.len());
        assert_eq!(fault.line_and_column(wide), (1, 7), "in characters");
        assert_eq!(fault.drawn(wide).lines().nth(1), Some("       ^^^^"), "in columns of a terminal");
        let inside = Fault::new("bad_query", "within a character", 14..99);
        assert_eq!(inside.drawn(text).lines().nth(1), Some("    ^^^^^^^^"));
    }

    #[test]
    fn of_a_long_line_only_what_is_near_is_shown() {
        let text = "x".repeat(1000);
        let drawn = Fault::new("bad_query", "", 500..501).drawn(&text);
        assert_eq!(drawn.lines().map(str::len).collect::<Vec<_>>(), [120, 61]);
    }
}
