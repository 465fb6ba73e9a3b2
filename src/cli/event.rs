//! One line of an NDJSON answer: an event, whose payload is given back byte for byte, or a control frame of a live
//! connection.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::escape::one_line;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Offset, time and data, without control characters
    Text,
    /// The event object of the broker, one a line
    Json,
    /// The data as it was produced, and a line break
    Raw,
}

/// One line of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// An event.
    Event(Event<'a>),
    /// A control frame.
    Frame(Frame<'a>),
}

/// An event with its payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) offset: u64,
    received: Cow<'a, str>,
    data: Cow<'a, [u8]>,
    /// The whole line, as it came.
    line: &'a str,
}

/// A control frame.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Frame<'a> {
    /// `up_to_date`, `heartbeat`, `gap`, `goaway` …
    #[serde(rename = "frame", borrow)]
    pub(super) name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    frame: Option<Cow<'a, str>>,
    offset: Option<u64>,
    #[serde(borrow, default)]
    received: Cow<'a, str>,
    length: Option<usize>,
    #[serde(borrow, default)]
    encoding: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A value that is there, `null` included.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads one line, or says why it is none.
pub(super) fn parse(line: &str) -> Result<Line<'_>, String> {
    let wire: Wire<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if let Some(name) = wire.frame {
        return Ok(Line::Frame(Frame { name }));
    }
    let (Some(offset), Some(data)) = (wire.offset, wire.data) else {
        return Err("neither an event nor a frame".to_owned());
    };
    let data = match wire.encoding.as_ref() {
        "json" => Cow::Borrowed(verbatim(line, data.get(), wire.length).as_bytes()),
        "text" => match serde_json::from_str::<Cow<'_, str>>(data.get()).map_err(|error| error.to_string())? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        "base64" => {
            let text: Cow<'_, str> = serde_json::from_str(data.get()).map_err(|error| error.to_string())?;
            Cow::Owned(STANDARD.decode(text.as_bytes()).map_err(|error| error.to_string())?)
        }
        other => return Err(format!("unknown encoding `{other}`")),
    };
    Ok(Line::Event(Event { offset, received: wire.received, data, line }))
}

/// The bytes of a JSON payload within its line. The broker puts them there as they were produced, blanks around the
/// value included, which a JSON parser skips; when some are missing, those beside the value belong to it.
fn verbatim<'a>(line: &'a str, value: &'a str, length: Option<usize>) -> &'a str {
    if length.is_none_or(|length| length == value.len()) {
        return value;
    }
    let start = value.as_ptr() as usize - line.as_ptr() as usize;
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let before = line.as_bytes()[..start].iter().rev().take_while(|byte| blank(byte)).count();
    let after = line.as_bytes()[start + value.len()..].iter().take_while(|byte| blank(byte)).count();
    &line[start - before..start + value.len() + after]
}

impl Event<'_> {
    /// Appends the event and a line break to `out`.
    pub(super) fn write(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Json => out.extend_from_slice(self.line.as_bytes()),
            Format::Raw => out.extend_from_slice(&self.data),
            Format::Text => {
                let data = match std::str::from_utf8(&self.data) {
                    Ok(text) => one_line(text),
                    Err(_) => format!("({} bytes, base64) {}", self.data.len(), STANDARD.encode(&self.data)),
                };
                out.extend_from_slice(format!("{} {} {data}", self.offset, one_line(&self.received)).as_bytes());
            }
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str, format: Format) -> Vec<u8> {
        let Line::Event(event) = parse(line).unwrap() else { panic!("{line} is an event") };
        let mut out = Vec::new();
        event.write(format, &mut out);
        out
    }

    fn event(encoding: &str, length: usize, data: &str) -> String {
        format!(
            r#"{{"offset":7,"id":"0193","received":"2026-11-23T10:11:12.123456Z","length":{length},"encoding":"{encoding}","data":{data}}}"#
        )
    }

    #[test]
    fn the_payload_comes_back_byte_for_byte() {
        // (encoding, length, data in the line, payload)
        let table: &[(&str, usize, &str, &[u8])] = &[
            ("json", 19, r#"{"b":1.0,"a":"\u0041"}"#, br#"{"b":1.0,"a":"\u0041"}"#),
            ("json", 2, "42", b"42"),
            ("json", 5, "  42 ", b"  42 "),
            ("json", 4, " \"\" ", b" \"\" "),
            ("json", 4, "null", b"null"),
            ("text", 5, r#""a\n\"bä""#, "a\n\"bä".as_bytes()),
            ("text", 0, r#""""#, b""),
            ("base64", 3, r#""AP8K""#, b"\x00\xff\n"),
        ];
        for (encoding, length, data, payload) in table {
            let line = event(encoding, *length, data);
            assert_eq!(written(&line, Format::Raw), [payload, b"\n".as_slice()].concat(), "{line}");
            assert_eq!(written(&line, Format::Json), format!("{line}\n").into_bytes());
        }
    }

    #[test]
    fn text_is_one_safe_line() {
        let table = [
            (event("text", 5, r#""a\n\u001b[31m""#), "a\\n\\u{1b}[31m"),
            (event("base64", 2, r#""AP8=""#), "(2 bytes, base64) AP8="),
            (event("json", 9, r#"{"a":"b"}"#), r#"{"a":"b"}"#),
        ];
        for (line, data) in table {
            let text = String::from_utf8(written(&line, Format::Text)).unwrap();
            assert_eq!(text, format!("7 2026-11-23T10:11:12.123456Z {data}\n"));
        }
    }

    #[test]
    fn frames_are_told_from_events() {
        let frame = parse(r#"{"frame":"heartbeat","tail":1204}"#).unwrap();
        assert_eq!(frame, Line::Frame(Frame { name: "heartbeat".into() }));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for line in ["", "[]", "{}", r#"{"offset":1}"#, r#"{"offset":1,"data":2,"encoding":"zip"}"#, r#"{"offset":-1}"#]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse(&event("base64", 1, r#""?""#)).is_err());
    }
}
