//! Events as JSON, for lists, NDJSON and SSE alike: the same object everywhere.
//!
//! `{"offset":7,"id":"…","received":"…","length":9,"content_type"?,"key"?,"headers"?,"encoding":"json","data":…}`; data
//! appears as it was classified when it was produced: `json` verbatim, `text` as a string, `base64` as a string.

use crate::log::event::{Encoding, Event};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use uuid::Uuid;

/// Appends events as JSON objects; remembers the second it last spelled out.
#[derive(Default)]
pub struct EventEncoder {
    second: u64,
    text: String,
}

impl EventEncoder {
    /// Appends one event.
    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event<'_>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"{\"offset\":");
        out.extend_from_slice(number.format(event.offset).as_bytes());
        out.extend_from_slice(b",\"id\":\"");
        put_id(out, event.id);
        out.extend_from_slice(b"\",\"received\":\"");
        self.time(out, event.received_us);
        out.extend_from_slice(b"\",\"length\":");
        out.extend_from_slice(number.format(event.data.len()).as_bytes());
        if let Some(content_type) = event.content_type {
            out.extend_from_slice(b",\"content_type\":");
            put_string(out, content_type);
        }
        if let Some(key) = event.key {
            out.extend_from_slice(b",\"key\":");
            put_string(out, key);
        }
        put_headers(out, event);
        match event.encoding {
            Encoding::Json => {
                out.extend_from_slice(b",\"encoding\":\"json\",\"data\":");
                out.extend_from_slice(event.data);
                out.push(b'}');
            }
            Encoding::Text => {
                out.extend_from_slice(b",\"encoding\":\"text\",\"data\":");
                put_string(out, event.data);
                out.push(b'}');
            }
            Encoding::Bytes => {
                out.extend_from_slice(b",\"encoding\":\"base64\",\"data\":\"");
                let start = out.len();
                out.resize(start + event.data.len().div_ceil(3) * 4, 0);
                let written = STANDARD.encode_slice(event.data, &mut out[start..]).unwrap_or_default();
                out.truncate(start + written);
                out.extend_from_slice(b"\"}");
            }
        }
    }

    /// Appends a time: RFC 3339 in UTC with six decimals.
    pub fn time(&mut self, out: &mut Vec<u8>, microseconds: u64) {
        let (second, fraction) = (microseconds / 1_000_000, microseconds % 1_000_000);
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text = second_text(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut digits = *b".000000Z";
        let mut rest = fraction;
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
    }

    /// A time as text.
    #[must_use]
    pub fn time_text(microseconds: u64) -> String {
        let mut out = Vec::new();
        Self::default().time(&mut out, microseconds);
        String::from_utf8(out).unwrap_or_default()
    }
}

fn second_text(second: u64) -> String {
    let time = Timestamp::from_second(second.try_into().unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Appends an id in its usual form.
pub fn put_id(out: &mut Vec<u8>, id: u128) {
    let mut buffer = Uuid::encode_buffer();
    out.extend_from_slice(Uuid::from_u128(id).hyphenated().encode_lower(&mut buffer).as_bytes());
}

fn put_headers(out: &mut Vec<u8>, event: &Event<'_>) {
    let mut first = true;
    for (name, value) in event.headers() {
        out.extend_from_slice(if first { b",\"headers\":{" } else { b"," });
        first = false;
        put_string(out, name.as_bytes());
        out.push(b':');
        put_string(out, value);
    }
    if !first {
        out.push(b'}');
    }
}

/// Appends a JSON string. What is stored as text was checked when it was produced.
fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    serde_json::to_writer(&mut *out, text.as_ref()).expect("memory takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::event::{NewEvent, put_header};
    use crate::log::wire::Fields;

    fn encoded(new: &NewEvent<'_>) -> String {
        let mut stored = Vec::new();
        new.encode(0x0193_0000_0000_7000_8000_0000_0000_0001, 1_764_000_000_123_456, &mut stored);
        let event = Event::decode(&mut Fields::new(&stored), 7).unwrap();
        let mut out = Vec::new();
        EventEncoder::default().event(&mut out, &event);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_shown_as_it_was_classified() {
        let plain =
            NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Json, data: b"{\"a\": 1}" };
        assert_eq!(
            encoded(&plain),
            "{\"offset\":7,\"id\":\"01930000-0000-7000-8000-000000000001\",\"received\":\"2025-11-24T16:00:00.123456Z\",\
             \"length\":8,\"encoding\":\"json\",\"data\":{\"a\": 1}}"
        );
        let mut headers = Vec::new();
        put_header(&mut headers, "trace", b"a\"b");
        put_header(&mut headers, "span", b"");
        let text = NewEvent {
            key: Some("sch\u{f6}n".as_bytes()),
            content_type: Some(b"text/plain"),
            headers: &headers,
            encoding: Encoding::Text,
            data: b"two\nlines",
        };
        let shown = encoded(&text);
        assert!(shown.ends_with(
            ",\"content_type\":\"text/plain\",\"key\":\"sch\u{f6}n\",\"headers\":{\"trace\":\"a\\\"b\",\"span\":\"\"},\
             \"encoding\":\"text\",\"data\":\"two\\nlines\"}"
        ), "{shown}");
        let bytes = NewEvent { encoding: Encoding::Bytes, data: &[0, 255, 16, 3], ..plain };
        assert!(encoded(&bytes).ends_with("\"length\":4,\"encoding\":\"base64\",\"data\":\"AP8QAw==\"}"));
    }

    #[test]
    fn times_have_six_decimals_and_sort_as_text() {
        let times = [0, 1, 999_999, 1_000_000, 1_764_000_000_000_000, 1_764_000_000_000_001];
        let texts = times.map(EventEncoder::time_text);
        assert_eq!(texts[0], "1970-01-01T00:00:00.000000Z");
        assert!(texts.is_sorted());
    }
}
