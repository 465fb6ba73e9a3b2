//! One request body → its events: arrays, lines and binary frames; nothing of a body with a fault in it.
//!
//! Which format a body has, and what becomes of the events, is the caller's business.

use std::borrow::Cow;

use super::json;
pub use super::key_path::KeyPath;
use crate::limits::{CONTENT_TYPE_BYTES_MAX, EVENTS_PER_BATCH_MAX, KEY_BYTES_MAX};
use crate::log::event::Encoding;

/// How the events stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: one array, of which each element's own bytes are an event.
    Json,
    /// One event a line. Blank lines (nothing but spaces and tabs) are skipped, one CR before the LF is not part of the line.
    Lines {
        /// `application/x-ndjson`: a line that is not one JSON value is a fault; in `text/plain` it is an event too.
        must_be_json: bool,
    },
    /// `application/vnd.eddyline.batch`: frames, see [`split`].
    Binary,
}

/// One event of a body, borrowed from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'b> {
    /// The event.
    pub data: &'b [u8],
    /// Its own key: from its frame, or found by the key path.
    pub key: Option<Cow<'b, [u8]>>,
    /// Its own content type, visible ASCII and spaces: only frames have one.
    pub content_type: Option<&'b [u8]>,
    /// How the data appears in JSON.
    pub encoding: Encoding,
}

/// Where in a body a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, counted from 1, blank ones too.
    Line(u64),
    /// An event, counted from 0.
    Event(u64),
}

/// Why a body was refused as a whole.
///
/// | `code` | |
/// |---|---|
/// | `not_utf8` | lines or an array that are not UTF-8 |
/// | `bad_json` | no array, or not only an array |
/// | `bad_line` | a line that is not one JSON value where it must be |
/// | `bad_frame` | a frame that is cut off, or has an unknown flag |
/// | `bad_content_type` | a frame's content type is empty, too long, or not visible ASCII and spaces |
/// | `bad_key_path` | a key path for binary frames, which have keys of their own |
/// | `bad_key` | no string, number or boolean at the key path, or a frame's key that is not UTF-8 |
/// | `key_too_long`, `event_too_large`, `too_many_events` | a limit is passed |
/// | `empty_batch` | no event at all |
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct SplitFault {
    /// Stable name of the mistake, for programs.
    pub code: &'static str,
    /// Where it is, if it is at one place.
    pub place: Option<Place>,
    /// What is wrong, for people.
    pub detail: Cow<'static, str>,
}

/// Splits a body into its events, which `emit` is given one after another; on a fault they are not to be used.
///
/// A binary body is, for each event and little-endian,
/// `u32 length · u8 flags · [u16 key length · key] · [u16 type length · content type] · data`, where flag bit 0 says that
/// there is a key, bit 1 that there is a content type, and `length` counts the data.
pub fn split<'b>(
    format: Format,
    body: &'b [u8],
    key_path: Option<&KeyPath>,
    event_bytes_max: usize,
    emit: impl FnMut(Piece<'b>),
) -> Result<(), SplitFault> {
    let mut events = Events { key_path, event_bytes_max, count: 0, emit };
    match format {
        Format::Json => events.array(body)?,
        Format::Lines { must_be_json } => events.lines(body, must_be_json)?,
        Format::Binary => events.frames(body)?,
    }
    if events.count == 0 {
        return Err(fault("empty_batch", None, "there is no event in the body"));
    }
    Ok(())
}

/// Decides how an event appears in JSON: as itself only if it is exactly one JSON value that can stand in any answer, as a
/// string if it is UTF-8.
pub fn classify(data: &[u8]) -> Encoding {
    if simdutf8::basic::from_utf8(data).is_err() {
        return Encoding::Bytes;
    }
    match json::whole(data) {
        Ok(value) => encoding_of(value),
        Err(_) => Encoding::Text,
    }
}

/// A value with a line break would end a line of NDJSON early, and one with half of a surrogate pair would make the whole
/// answer unreadable for many parsers.
fn encoding_of(value: json::Value) -> Encoding {
    if value.has_line_break || value.has_lone_surrogate { Encoding::Text } else { Encoding::Json }
}

/// What each new event must keep to, and where it goes.
struct Events<'a, E> {
    key_path: Option<&'a KeyPath>,
    event_bytes_max: usize,
    /// Events found so far.
    count: u64,
    emit: E,
}

impl<'b, E: FnMut(Piece<'b>)> Events<'_, E> {
    fn array(&mut self, body: &'b [u8]) -> Result<(), SplitFault> {
        require_utf8(body)?;
        let bad_json = |place, at, what| fault("bad_json", place, format!("at byte {at} of the body: {what}"));
        let mut at = json::after_space(body, 0);
        if body.get(at) != Some(&b'[') {
            return Err(bad_json(None, at, "a batch of JSON is an array"));
        }
        at = json::after_space(body, at + 1);
        let mut more = body.get(at) != Some(&b']');
        while more {
            let place = Place::Event(self.count);
            let value = json::value(body, at).map_err(|wrong| bad_json(Some(place), wrong.at, wrong.what))?;
            let data = &body[at..value.end];
            self.admit(data, place)?;
            self.push_json(data, value, place)?;
            at = json::after_space(body, value.end);
            more = match body.get(at) {
                Some(b',') => true,
                Some(b']') => false,
                _ => {
                    return Err(bad_json(
                        Some(place),
                        at,
                        "neither a comma nor the end of the array follows the event",
                    ));
                }
            };
            if more {
                at = json::after_space(body, at + 1);
            }
        }
        at = json::after_space(body, at + 1);
        if at < body.len() {
            return Err(bad_json(None, at, "something follows the array"));
        }
        Ok(())
    }

    fn lines(&mut self, body: &'b [u8], must_be_json: bool) -> Result<(), SplitFault> {
        require_utf8(body)?;
        let mut number = 0;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
            let line = &body[start..end];
            start = end + 1;
            number += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
                continue;
            }
            let place = Place::Line(number);
            self.admit(line, place)?;
            match json::whole(line) {
                Ok(value) => self.push_json(line, value, place)?,
                Err(wrong) if must_be_json || self.key_path.is_some() => {
                    let detail = format!("this line must be one JSON value: at its byte {}: {}", wrong.at, wrong.what);
                    return Err(fault("bad_line", Some(place), detail));
                }
                Err(_) => {
                    self.push(Piece { data: line, key: None, content_type: None, encoding: Encoding::Text });
                }
            }
        }
        Ok(())
    }

    fn frames(&mut self, body: &'b [u8]) -> Result<(), SplitFault> {
        if self.key_path.is_some() {
            return Err(fault(
                "bad_key_path",
                None,
                "binary frames have keys of their own, a key path does not fit them",
            ));
        }
        let mut rest = body;
        while !rest.is_empty() {
            let place = Place::Event(self.count);
            let (frame, after) = Frame::take(rest).map_err(|what| fault("bad_frame", Some(place), what))?;
            rest = after;
            self.admit(frame.data, place)?;
            if let Some(key) = frame.key {
                if key.len() > KEY_BYTES_MAX {
                    return Err(key_too_long(place));
                }
                if str::from_utf8(key).is_err() {
                    return Err(fault("bad_key", Some(place), "a key is UTF-8"));
                }
            }
            if frame.content_type.is_some_and(|content_type| !is_content_type(content_type)) {
                let detail =
                    format!("a content type is 1 to {CONTENT_TYPE_BYTES_MAX} bytes of visible ASCII and spaces");
                return Err(fault("bad_content_type", Some(place), detail));
            }
            self.push(Piece {
                data: frame.data,
                key: frame.key.map(Cow::Borrowed),
                content_type: frame.content_type,
                encoding: classify(frame.data),
            });
        }
        Ok(())
    }

    fn push(&mut self, piece: Piece<'b>) {
        self.count += 1;
        (self.emit)(piece);
    }

    /// Holds the limits, before any work is done on the event where that is possible.
    fn admit(&self, data: &[u8], place: Place) -> Result<(), SplitFault> {
        if data.len() > self.event_bytes_max {
            let detail = format!("the event has {} bytes, at most {} are allowed", data.len(), self.event_bytes_max);
            return Err(fault("event_too_large", Some(place), detail));
        }
        if self.count == EVENTS_PER_BATCH_MAX as u64 {
            let detail = format!("there are more than {EVENTS_PER_BATCH_MAX} events in the batch");
            return Err(fault("too_many_events", Some(place), detail));
        }
        Ok(())
    }

    fn push_json(&mut self, data: &'b [u8], value: json::Value, place: Place) -> Result<(), SplitFault> {
        let key = match self.key_path {
            None => None,
            Some(path) => Some(path.find(data).map_err(|what| fault("bad_key", Some(place), what))?),
        };
        if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(key_too_long(place));
        }
        self.push(Piece { data, key, content_type: None, encoding: encoding_of(value) });
        Ok(())
    }
}

/// One frame of a binary body.
struct Frame<'b> {
    data: &'b [u8],
    key: Option<&'b [u8]>,
    content_type: Option<&'b [u8]>,
}

impl<'b> Frame<'b> {
    const KEY: u8 = 1;
    const CONTENT_TYPE: u8 = 2;

    /// Takes the first frame off `body`; gives what follows it, too.
    fn take(body: &'b [u8]) -> Result<(Self, &'b [u8]), &'static str> {
        const CUT_OFF: &str = "the frame is cut off";
        let (length, rest) = body.split_first_chunk().ok_or(CUT_OFF)?;
        let (&flags, mut rest) = rest.split_first().ok_or(CUT_OFF)?;
        if flags & !(Self::KEY | Self::CONTENT_TYPE) != 0 {
            return Err("the frame has a flag that is not known");
        }
        let mut field = |flag| {
            if flags & flag == 0 {
                return Some(None);
            }
            let (length, after) = rest.split_first_chunk()?;
            let (field, after) = after.split_at_checked(u16::from_le_bytes(*length).into())?;
            rest = after;
            Some(Some(field))
        };
        let key = field(Self::KEY).ok_or(CUT_OFF)?;
        let content_type = field(Self::CONTENT_TYPE).ok_or(CUT_OFF)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| CUT_OFF)?;
        let (data, rest) = rest.split_at_checked(length).ok_or(CUT_OFF)?;
        Ok((Self { data, key, content_type }, rest))
    }
}

fn is_content_type(value: &[u8]) -> bool {
    (1..=CONTENT_TYPE_BYTES_MAX).contains(&value.len()) && value.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// Checks the whole body at once, which is much faster than line by line.
fn require_utf8(body: &[u8]) -> Result<(), SplitFault> {
    let Err(error) = simdutf8::compat::from_utf8(body) else {
        return Ok(());
    };
    let good = &body[..error.valid_up_to()];
    let line = memchr::memchr_iter(b'\n', good).count() as u64 + 1;
    Err(fault("not_utf8", Some(Place::Line(line)), format!("byte {} of the body is not UTF-8", good.len())))
}

#[cold]
fn key_too_long(place: Place) -> SplitFault {
    fault("key_too_long", Some(place), format!("the key has more than {KEY_BYTES_MAX} bytes"))
}

#[cold]
fn fault(code: &'static str, place: Option<Place>, detail: impl Into<Cow<'static, str>>) -> SplitFault {
    SplitFault { code, place, detail: detail.into() }
}

#[cfg(test)]
mod tests;
