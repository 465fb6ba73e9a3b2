//! One event as it is stored.
//!
//! ```text
//! id 16 (big-endian UUID) · received 8 (µs since 1970) · data length 4 · flags 1
//!   · [key length 2 · key]            flag bit 0
//!   · [type length 2 · content type]  flag bit 1
//!   · [headers length 2 · headers]    flag bit 2; each: name length 1 · name · value length 2 · value
//!   · data
//! flags bits 3 and 4: how the data appears in JSON (0 base64, 1 text, 2 json); bits 5 to 7 are zero
//! ```
//!
//! The offset is not stored: it is the frame's first offset plus the event's place in the frame.

use super::wire::{Fields, Malformed, put_short};

/// Bytes of an event besides its data and optional fields.
pub const EVENT_FIXED_BYTES: usize = 29;

const KEY: u8 = 1;
const CONTENT_TYPE: u8 = 2;
const HEADERS: u8 = 4;
const ENCODING_SHIFT: u8 = 3;
const UNKNOWN: u8 = 0b1110_0000;

/// How an event's data appears in JSON, decided when it is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Any bytes: a base64 string.
    Bytes = 0,
    /// UTF-8: a string.
    Text = 1,
    /// One JSON value without CR or LF: the value itself, byte for byte.
    Json = 2,
}

/// An event as a producer gives it, without what the broker adds.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'b> {
    /// What compaction by key and order by key go by.
    pub key: Option<&'b [u8]>,
    /// Media type of the data.
    pub content_type: Option<&'b [u8]>,
    /// Encoded headers (see [`put_header`]); empty when there are none.
    pub headers: &'b [u8],
    /// How the data appears in JSON.
    pub encoding: Encoding,
    /// The event itself.
    pub data: &'b [u8],
}

impl NewEvent<'_> {
    /// Bytes the event takes when stored.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        let optional = |field: Option<&[u8]>| field.map_or(0, |bytes| 2 + bytes.len());
        let headers = (!self.headers.is_empty()).then_some(self.headers);
        EVENT_FIXED_BYTES + optional(self.key) + optional(self.content_type) + optional(headers) + self.data.len()
    }

    /// Appends the stored form.
    pub fn encode(&self, id: u128, received_us: u64, out: &mut Vec<u8>) {
        let mut flags = (self.encoding as u8) << ENCODING_SHIFT;
        flags |= if self.key.is_some() { KEY } else { 0 };
        flags |= if self.content_type.is_some() { CONTENT_TYPE } else { 0 };
        flags |= if self.headers.is_empty() { 0 } else { HEADERS };
        let mut fixed = [0; EVENT_FIXED_BYTES];
        fixed[..16].copy_from_slice(&id.to_be_bytes());
        fixed[16..24].copy_from_slice(&received_us.to_le_bytes());
        fixed[24..28].copy_from_slice(&(self.data.len() as u32).to_le_bytes());
        fixed[28] = flags;
        out.extend_from_slice(&fixed);
        if flags & (KEY | CONTENT_TYPE | HEADERS) != 0 {
            self.key.into_iter().for_each(|key| put_short(out, key));
            self.content_type.into_iter().for_each(|content_type| put_short(out, content_type));
            if !self.headers.is_empty() {
                put_short(out, self.headers);
            }
        }
        out.extend_from_slice(self.data);
    }
}

/// The events of one request in stored form, one behind the other, without ids and times.
#[derive(Clone, Debug, Default)]
pub struct NewEvents {
    bytes: Vec<u8>,
    count: u32,
    data_bytes: u64,
}

impl NewEvents {
    /// Adds an event.
    pub fn push(&mut self, event: &NewEvent<'_>) {
        event.encode(0, 0, &mut self.bytes);
        self.count += 1;
        self.data_bytes += event.data.len() as u64;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of their data.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes they take when stored.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets them and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        self.data_bytes = 0;
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends the events, each with its id and time.
    pub fn encode(&self, received_us: u64, mut next_id: impl FnMut() -> u128, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut rest = &mut out[start..];
        for _ in 0..self.count {
            let (event, behind) = rest.split_at_mut(stored_length(rest));
            event[..16].copy_from_slice(&next_id().to_be_bytes());
            event[16..24].copy_from_slice(&received_us.to_le_bytes());
            rest = behind;
        }
    }
}

impl<'b> FromIterator<NewEvent<'b>> for NewEvents {
    fn from_iter<I: IntoIterator<Item = NewEvent<'b>>>(events: I) -> Self {
        let mut all = Self::default();
        events.into_iter().for_each(|event| all.push(&event));
        all
    }
}

/// Length of the event at the front of `bytes`, which [`NewEvent::encode`] wrote.
fn stored_length(bytes: &[u8]) -> usize {
    let data = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]) as usize;
    let optional = (bytes[28] & (KEY | CONTENT_TYPE | HEADERS)).count_ones();
    (0..optional).fold(EVENT_FIXED_BYTES, |at, _| at + 2 + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])))
        + data
}

/// A stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'b> {
    /// Place in the group.
    pub offset: u64,
    /// UUIDv7.
    pub id: u128,
    /// Broker's clock, µs since 1970.
    pub received_us: u64,
    /// What compaction by key and order by key go by.
    pub key: Option<&'b [u8]>,
    /// Media type of the data.
    pub content_type: Option<&'b [u8]>,
    /// Encoded headers, to be read by [`headers`](Self::headers).
    encoded_headers: Option<&'b [u8]>,
    /// How the data appears in JSON.
    pub encoding: Encoding,
    /// The event itself.
    pub data: &'b [u8],
}

impl<'b> Event<'b> {
    /// Takes one event from the front of `fields`.
    ///
    /// # Errors
    /// When the bytes are not an event.
    pub fn decode(fields: &mut Fields<'b>, offset: u64) -> Result<Self, Malformed> {
        let id = fields.uuid()?;
        let received_us = fields.u64()?;
        let length = fields.u32()?;
        let flags = fields.u8()?;
        if flags & UNKNOWN != 0 {
            return Err(Malformed("an event has unknown flags"));
        }
        let encoding = match flags >> ENCODING_SHIFT {
            0 => Encoding::Bytes,
            1 => Encoding::Text,
            2 => Encoding::Json,
            _ => return Err(Malformed("an event has an unknown encoding")),
        };
        let mut optional = |flag: u8| (flags & flag != 0).then(|| fields.short_bytes()).transpose();
        let key = optional(KEY)?;
        let content_type = optional(CONTENT_TYPE)?;
        let encoded_headers = optional(HEADERS)?;
        let data = fields.bytes(length as usize)?;
        Ok(Self { offset, id, received_us, key, content_type, encoded_headers, encoding, data })
    }

    /// Appends the stored form, as it was read.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let headers = self.encoded_headers.unwrap_or_default();
        let Self { key, content_type, encoding, data, .. } = *self;
        NewEvent { key, content_type, headers, encoding, data }.encode(self.id, self.received_us, out);
    }

    /// The event's headers, name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let mut fields = Fields::new(self.encoded_headers.unwrap_or_default());
        std::iter::from_fn(move || {
            let length = fields.u8().ok()?;
            let name = std::str::from_utf8(fields.bytes(length as usize).ok()?).ok()?;
            Some((name, fields.short_bytes().ok()?))
        })
    }
}

/// Appends one header to an event's encoded headers.
///
/// # Panics
/// When the name is longer than 255 bytes or the value longer than 65 535: HTTP's limits are tighter.
pub fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(u8::try_from(name.len()).expect("a header's name is bounded by the head's limit"));
    out.extend_from_slice(name.as_bytes());
    put_short(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_fields_comes_back() {
        let mut headers = Vec::new();
        put_header(&mut headers, "trace", b"abc");
        put_header(&mut headers, "empty", b"");
        for (key, content_type, headers, encoding, data) in [
            (None, None, &[][..], Encoding::Bytes, &b"\x00\xff"[..]),
            (Some(&b"k"[..]), None, &[][..], Encoding::Text, b"hello"),
            (None, Some(&b"image/png"[..]), &headers[..], Encoding::Bytes, b""),
            (Some(b""), Some(b"application/json"), &headers, Encoding::Json, b"{}"),
        ] {
            let new = NewEvent { key, content_type, headers, encoding, data };
            let mut bytes = Vec::new();
            new.encode(7, 9, &mut bytes);
            assert_eq!(bytes.len(), new.stored_bytes());
            let mut fields = Fields::new(&bytes);
            let event = Event::decode(&mut fields, 3).unwrap();
            assert!(fields.rest().is_empty());
            assert_eq!((event.offset, event.id, event.received_us), (3, 7, 9));
            assert_eq!(
                (event.key, event.content_type, event.encoding, event.data),
                (key, content_type, encoding, data)
            );
            assert_eq!(event.headers().count(), if headers.is_empty() { 0 } else { 2 });
            for cut in 0..bytes.len() {
                assert!(Event::decode(&mut Fields::new(&bytes[..cut]), 3).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn new_events_get_their_ids_and_times_where_they_are_stored() {
        let plain =
            NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: b"one".as_slice() };
        let events = [
            plain,
            NewEvent { key: Some(b"k"), data: b"", ..plain },
            NewEvent { key: Some(b""), content_type: Some(b"image/png"), headers: b"\x01a\0\0", ..plain },
            NewEvent { headers: b"\x01a\0\0", data: b"three", ..plain },
        ];
        let (mut whole, mut apart) = (b"before".to_vec(), b"before".to_vec());
        let all: NewEvents = events.into_iter().collect();
        let mut ids = 7..;
        all.encode(99, || ids.next().unwrap(), &mut whole);
        events.iter().zip(7..).for_each(|(event, id)| event.encode(id, 99, &mut apart));
        assert_eq!(whole, apart);
        assert_eq!((all.count(), all.stored_bytes()), (4, apart.len() - 6));
        assert_eq!(events.map(|event| event.stored_bytes()).iter().sum::<usize>(), all.stored_bytes());
    }

    #[test]
    fn unknown_flags_and_encodings_are_refused() {
        let mut bytes = Vec::new();
        NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data: b"x" }
            .encode(1, 2, &mut bytes);
        for flags in [0b0010_0000, 0b1000_0000, 0b0001_1000] {
            bytes[28] = flags;
            assert!(Event::decode(&mut Fields::new(&bytes), 0).is_err(), "{flags:08b}");
        }
    }
}
