//! What is wrong with a configuration, and where: one line a problem, with the line of the file below it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value, or something that should be one, was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nobody set it.
    Default,
    /// In a file that could not be read at all.
    WholeFile(PathBuf),
    /// In a file.
    File(Spot),
    /// In this variable.
    Variable(String),
    /// In this flag, written without dashes.
    Flag(String),
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// How many characters to underline.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl Spot {
    /// The place of the bytes `range` of `source`. The underline ends with the line.
    pub(super) fn new(path: &Path, source: &str, range: std::ops::Range<usize>) -> Self {
        let start = range.start.min(source.len());
        let line_start = source[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |newline| start + newline);
        let end = range.end.clamp(start, line_end);
        Self {
            path: path.to_path_buf(),
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            width: source[start..end].chars().count().max(1),
            text: source[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::File(spot) => write!(f, "{}:{}:{}", spot.path.display(), spot.line, spot.column),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, with the key's name and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != Place::Default {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)?;
        if let Place::File(spot) = &self.place {
            let number = spot.line.to_string();
            let gutter = " ".repeat(number.len());
            // Tabs are kept before the caret, so that it stands below what it means at any tab width.
            let lead: String =
                spot.text.chars().take(spot.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            write!(f, "\n  {gutter} |\n  {number} | {}", printable(&spot.text))?;
            write!(f, "\n  {gutter} | {lead}{}", "^".repeat(spot.width))?;
        }
        Ok(())
    }
}

/// Control characters, which a terminal would obey, as one question mark each.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
