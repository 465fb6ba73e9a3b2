//! One event as the broker shows it in NDJSON: its fields, and the bytes that were posted.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The fields of an event that are checked; others are skipped.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    pub(super) offset: u64,
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) received: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) key: Option<Cow<'a, str>>,
    length: u64,
    encoding: Encoding,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Json,
    Text,
    Base64,
}

impl<'a> Line<'a> {
    /// Reads one line.
    pub(super) fn parse(text: &'a [u8]) -> serde_json::Result<Line<'a>> {
        serde_json::from_slice(text)
    }

    /// The event's bytes as they were posted, or `None` if they do not fit their encoding or their stated length.
    /// `text` is the line that this was parsed from.
    pub(super) fn bytes<'b>(&self, text: &'b [u8], scratch: &'b mut Vec<u8>) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        let shown = self.data.get();
        match self.encoding {
            Encoding::Json if shown.len() as u64 == self.length => return Some(shown.as_bytes()),
            Encoding::Json => return self.with_blanks(text),
            Encoding::Text => {
                scratch.clear();
                scratch.extend_from_slice(serde_json::from_str::<Cow<'_, str>>(shown).ok()?.as_bytes());
            }
            Encoding::Base64 => {
                scratch.clear();
                let digits: Cow<'_, str> = serde_json::from_str(shown).ok()?;
                BASE64_STANDARD.decode_vec(digits.as_bytes(), scratch).ok()?;
            }
        }
        (scratch.len() as u64 == self.length).then_some(scratch)
    }

    /// The value with the blanks around it: they belong to the event if the length says so, but not to a JSON value.
    fn with_blanks<'b>(&self, text: &'b [u8]) -> Option<&'b [u8]> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let shown = self.data.get();
        // The value was borrowed from `text`, so the distance of their first bytes is its place.
        let start = (shown.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        let end = start + shown.len();
        let before = text.get(..start)?.iter().rev().take_while(|byte| blank(byte)).count();
        let after = text.get(end..)?.iter().take_while(|byte| blank(byte)).count();
        let whole = &text[start - before..end + after];
        (whole.len() as u64 == self.length).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &str) -> Option<String> {
        let text = format!(r#"{{"offset":7,"id":"a","received":"b","key":"k",{fields}}}"#);
        let line = Line::parse(text.as_bytes()).unwrap();
        let mut scratch = b"old".to_vec();
        line.bytes(text.as_bytes(), &mut scratch).map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn every_encoding_gives_the_posted_bytes() {
        for (fields, expected) in [
            (r#""length":10,"encoding":"json","data":{"a": 1.0}"#, r#"{"a": 1.0}"#),
            (r#""length":8,"encoding":"json","data":"\u0041""#, r#""\u0041""#),
            (r#""length":4,"encoding":"json","data": 12 "#, " 12 "),
            (r#""length":2,"encoding":"json","data": 12 "#, "12"),
            (r#""length":3,"encoding":"text","data":"\u0041\n!""#, "A\n!"),
            (r#""length":3,"encoding":"base64","data":"YSBi""#, "a b"),
            (r#""length":0,"encoding":"text","data":"""#, ""),
        ] {
            assert_eq!(read(fields).as_deref(), Some(expected), "{fields}");
        }
    }

    #[test]
    fn what_contradicts_its_length_or_encoding_is_no_event() {
        for fields in [
            r#""length":9,"encoding":"json","data":{}"#,
            r#""length":3,"encoding":"json","data": 12 "#,
            r#""length":4,"encoding":"text","data":"abc""#,
            r#""length":3,"encoding":"text","data":3"#,
            r#""length":3,"encoding":"base64","data":"YSB""#,
        ] {
            assert_eq!(read(fields), None, "{fields}");
        }
        assert!(Line::parse(br#"{"offset":1}"#).is_err());
    }
}
