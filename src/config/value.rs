//! How each kind of value is read, from TOML or from the text of a flag or variable, and written back as TOML.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::{LogFormat, LogLevel};
use crate::units;

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub enum Given<'a> {
    /// By the configuration file.
    Toml(&'a DeValue<'a>),
    /// By a flag or a variable.
    Text(&'a str),
}

/// A kind of value that can be set. The type of a field in `Config` decides what is expected of it: `u64` is a size in
/// bytes, `usize` a count.
pub trait Value {
    /// Takes a value, or says what was expected; then the old one stays.
    fn read(&mut self, given: Given<'_>) -> Result<(), String>;
    /// The value as TOML.
    fn toml(&self) -> String;
    /// What stands for the value in a help text, such as `SIZE`.
    fn placeholder(&self) -> &'static str;
    /// Whether the flag alone means something (`--auto-create`).
    fn is_switch(&self) -> bool {
        false
    }
}

impl<'a> Given<'a> {
    /// The text of a string, or what else it is, to be refused.
    fn text(self) -> Result<&'a str, String> {
        match self {
            Given::Text(text) => Ok(text),
            Given::Toml(DeValue::String(text)) => Ok(text),
            Given::Toml(other) => Err(other.type_str().to_owned()),
        }
    }

    /// A whole number as text: a TOML integer, or the text itself.
    fn number(self) -> Option<String> {
        match self {
            Given::Text(text) => Some(text.to_owned()),
            Given::Toml(DeValue::Integer(number)) if number.radix() == 10 => Some(number.as_str().to_owned()),
            Given::Toml(_) => None,
        }
    }

    /// The strings of an array, of one string, or of text with commas.
    fn list(self, expected: &str) -> Result<Vec<&'a str>, String> {
        match self {
            Given::Text(text) => Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
            Given::Toml(DeValue::String(text)) => Ok(vec![text]),
            Given::Toml(DeValue::Array(items)) => items
                .iter()
                .map(|item| Given::Toml(item.get_ref()).text().map_err(|kind| wrong(expected, &kind)))
                .collect(),
            Given::Toml(other) => Err(wrong(expected, other.type_str())),
        }
    }
}

fn wrong(expected: &str, kind: &str) -> String {
    format!("expected {expected}, not {} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.map(|item| quoted(&item)).collect::<Vec<_>>().join(", "))
}

impl Value for bool {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        *self = match given {
            Given::Toml(DeValue::Boolean(value)) => *value,
            Given::Text("true" | "1") => true,
            Given::Text("false" | "0") => false,
            Given::Text(text) => return Err(format!("`{text}` is neither `true` nor `false`")),
            Given::Toml(other) => return Err(wrong("`true` or `false`", other.type_str())),
        };
        Ok(())
    }
    fn toml(&self) -> String {
        self.to_string()
    }
    fn placeholder(&self) -> &'static str {
        "BOOL"
    }
    fn is_switch(&self) -> bool {
        true
    }
}

impl Value for usize {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        const EXPECTED: &str = "a whole number such as 8";
        let Some(text) = given.number() else {
            let kind = given.text().map_or_else(|kind| kind, |_| "string".to_owned());
            return Err(wrong(EXPECTED, &kind));
        };
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        *self = plain
            .then(|| text.parse().ok())
            .flatten()
            .ok_or_else(|| format!("`{text}` is not a count: expected {EXPECTED}"))?;
        Ok(())
    }
    fn toml(&self) -> String {
        self.to_string()
    }
    fn placeholder(&self) -> &'static str {
        "N"
    }
}

impl Value for u64 {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        let text = match (given.number(), given.text()) {
            (Some(text), _) => text,
            (None, Ok(text)) => text.to_owned(),
            (None, Err(kind)) => return Err(wrong("a size such as \"64MiB\"", &kind)),
        };
        *self = units::parse_size(&text).map_err(|error| error.to_string())?;
        Ok(())
    }
    fn toml(&self) -> String {
        quoted(&units::print_size(*self))
    }
    fn placeholder(&self) -> &'static str {
        "SIZE"
    }
}

impl Value for Duration {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        let text = given.text().map_err(|kind| wrong("a duration with a unit such as \"20s\"", &kind))?;
        *self = units::parse_span(text).map_err(|error| error.to_string())?;
        Ok(())
    }
    fn toml(&self) -> String {
        quoted(&units::print_span(*self))
    }
    fn placeholder(&self) -> &'static str {
        "TIME"
    }
}

impl Value for PathBuf {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        *self = PathBuf::from(given.text().map_err(|kind| wrong("a path", &kind))?);
        Ok(())
    }
    fn toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
    fn placeholder(&self) -> &'static str {
        "DIR"
    }
}

impl Value for Vec<String> {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        *self = given.list("a list of strings")?.into_iter().map(str::to_ascii_lowercase).collect();
        Ok(())
    }
    fn toml(&self) -> String {
        quoted_list(self.iter().cloned())
    }
    fn placeholder(&self) -> &'static str {
        "NAME,…"
    }
}

impl Value for Vec<SocketAddr> {
    fn read(&mut self, given: Given<'_>) -> Result<(), String> {
        let addresses = given.list("an address such as \"127.0.0.1:4437\" or a list of them")?;
        *self = addresses.into_iter().map(address).collect::<Result<_, _>>()?;
        Ok(())
    }
    fn toml(&self) -> String {
        quoted_list(self.iter().map(SocketAddr::to_string))
    }
    fn placeholder(&self) -> &'static str {
        "ADDRESS,…"
    }
}

/// An address with its port. `localhost` is 127.0.0.1; other names are refused, as what they mean may change.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        format!("`{text}` is not an address with a port: expected for example 127.0.0.1:4437 or [::1]:4437")
    })
}

/// A value out of a few words.
trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
    const PLACEHOLDER: &'static str;
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
    const PLACEHOLDER: &'static str = "auto|text|json";
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
    const PLACEHOLDER: &'static str = "LEVEL";
}

/// Reads one of the words of `T`.
fn read_word<T: Word>(given: Given<'_>) -> Result<T, String> {
    let words = T::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let text = given.text().map_err(|kind| wrong(&format!("one of {words}"), &kind))?;
    T::WORDS
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("`{text}` is not one of {words}"))
}

/// The word of `value`.
fn word_of<T: Word>(value: T) -> &'static str {
    T::WORDS.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

macro_rules! word_value {
    ($kind:ty) => {
        impl Value for $kind {
            fn read(&mut self, given: Given<'_>) -> Result<(), String> {
                *self = read_word(given)?;
                Ok(())
            }
            fn toml(&self) -> String {
                quoted(word_of(*self))
            }
            fn placeholder(&self) -> &'static str {
                <$kind as Word>::PLACEHOLDER
            }
        }
    };
}

word_value!(LogFormat);
word_value!(LogLevel);

impl LogLevel {
    /// The level's name in a filter, such as `info`.
    #[must_use]
    pub fn name(self) -> &'static str {
        word_of(self)
    }
}
