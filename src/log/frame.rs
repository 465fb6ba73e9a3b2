//! A group frame: the requests of one group in one commit, as they stand in the journal, in the segment and in a
//! binary answer, byte for byte the same.
//!
//! ```text
//!  0 magic "EDFR"          16 first offset 8         44 last offset delta 4
//!  4 version 1 · 5 compression (0 none)              48 body length 4 · 52 body length unpacked 4
//!  6 flags 2 (an unknown bit in the low byte: refuse; in the high byte: may be ignored; bit 8: begins a segment)
//!  8 group number 4        24 first received 8       56 CRC-32 of the body
//! 12 events 4              32 last received 8        60 CRC-32 of bytes 0..60
//!                          40 requests 4             64 body: the requests
//!
//! request: length 4 (all of it) · events 4 · flags 1 · [id length 1 · producer id · epoch 8 · seq 8]  flag bit 0 · events
//! ```
//!
//! All integers are little-endian. A frame counts whole or not at all.

use super::event::{Event, NewEvents};
use super::wire::{Fields, Malformed, Newer, Unreadable};

/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"EDFR";
/// The version written here, and the newest that is read.
pub const FRAME_VERSION: u8 = 1;
/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Length of a request's header without producer.
pub const REQUEST_HEADER_BYTES: usize = 9;

const PRODUCER: u8 = 1;
const BEGINS_SEGMENT: u16 = 0x0100;

/// Who sent a request, and as which of its requests, so that a repeat is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp<'b> {
    /// Name the producer gave itself, at most 128 bytes.
    pub id: &'b str,
    /// Raised by the producer whenever it starts its sequence again.
    pub epoch: u64,
    /// Counts requests from 0.
    pub seq: u64,
}

impl ProducerStamp<'_> {
    fn stored_bytes(&self) -> usize {
        1 + self.id.len() + 16
    }
}

/// Bytes a request adds to a frame besides its events.
#[must_use]
pub fn request_overhead(producer: Option<&ProducerStamp<'_>>) -> usize {
    REQUEST_HEADER_BYTES + producer.map_or(0, ProducerStamp::stored_bytes)
}

/// A frame's header as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number of the group.
    pub group: u32,
    /// Whether it is the first frame of a segment: boundaries follow from the frames alone.
    pub begins_segment: bool,
    /// Events in the frame.
    pub events: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Smallest `received`, µs.
    pub first_received_us: u64,
    /// Largest `received`, µs.
    pub last_received_us: u64,
    /// Requests in the frame.
    pub requests: u32,
    /// Offset of the last event less the first.
    pub last_offset_delta: u32,
    /// Bytes behind the header.
    pub body_bytes: u32,
    /// Checksum of those bytes.
    pub body_crc: u32,
}

impl FrameHeader {
    /// Reads and checks a header; `Ok(None)` when fewer than [`FRAME_HEADER_BYTES`] are given.
    ///
    /// # Errors
    /// When the bytes are not a frame that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Unreadable> {
        let Some(bytes) = bytes.get(..FRAME_HEADER_BYTES) else { return Ok(None) };
        let (checked, crc) = bytes.split_at(FRAME_HEADER_BYTES - 4);
        if checked[..4] != FRAME_MAGIC {
            return Err(Malformed("no frame begins here").into());
        }
        if crc != crc32fast::hash(checked).to_le_bytes() {
            return Err(Malformed("a frame's header is damaged").into());
        }
        let mut fields = Fields::new(&checked[4..]);
        let (version, compression, flags) = (fields.u8()?, fields.u8()?, fields.u16()?);
        Newer::refuse("a frame", (version, FRAME_VERSION), (flags & 0xff, 0))?;
        if compression != 0 {
            return Err(Newer::kind("a frame's compression", compression).into());
        }
        let (group, events) = (fields.u32()?, fields.u32()?);
        let (first_offset, first_received_us, last_received_us) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (requests, last_offset_delta) = (fields.u32()?, fields.u32()?);
        let (body_bytes, _unpacked, body_crc) = (fields.u32()?, fields.u32()?, fields.u32()?);
        Ok(Some(Self {
            group,
            begins_segment: flags & BEGINS_SEGMENT != 0,
            events,
            first_offset,
            first_received_us,
            last_received_us,
            requests,
            last_offset_delta,
            body_bytes,
            body_crc,
        }))
    }

    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&FRAME_MAGIC);
        put(&[FRAME_VERSION, 0]);
        put(&(if self.begins_segment { BEGINS_SEGMENT } else { 0 }).to_le_bytes());
        put(&self.group.to_le_bytes());
        put(&self.events.to_le_bytes());
        put(&self.first_offset.to_le_bytes());
        put(&self.first_received_us.to_le_bytes());
        put(&self.last_received_us.to_le_bytes());
        put(&self.requests.to_le_bytes());
        put(&self.last_offset_delta.to_le_bytes());
        put(&self.body_bytes.to_le_bytes());
        put(&self.body_bytes.to_le_bytes());
        put(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..FRAME_HEADER_BYTES - 4]);
        out[FRAME_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The frame in `bytes` as the first one of a segment.
    #[must_use]
    pub fn beginning_segment(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[7] |= (BEGINS_SEGMENT >> 8) as u8;
        let crc = crc32fast::hash(&bytes[..FRAME_HEADER_BYTES - 4]);
        bytes[FRAME_HEADER_BYTES - 4..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes as usize
    }

    /// Offset behind the last event.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.first_offset + u64::from(self.last_offset_delta) + 1
    }
}

/// Gathers requests into a frame.
pub struct FrameBuilder {
    bytes: Vec<u8>,
    header: FrameHeader,
    /// Bytes of the events' data.
    data_bytes: u64,
}

impl FrameBuilder {
    /// An empty frame of `group` whose first event will be `first_offset`.
    #[must_use]
    pub fn new(group: u32, first_offset: u64, begins_segment: bool, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + capacity);
        bytes.resize(FRAME_HEADER_BYTES, 0);
        let header = FrameHeader {
            group,
            begins_segment,
            events: 0,
            first_offset,
            first_received_us: 0,
            last_received_us: 0,
            requests: 0,
            last_offset_delta: 0,
            body_bytes: 0,
            body_crc: 0,
        };
        Self { bytes, header, data_bytes: 0 }
    }

    /// Bytes of the events' data so far.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes so far, header included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a request whose events were received at `received_us`.
    pub fn push(
        &mut self,
        producer: Option<&ProducerStamp<'_>>,
        events: &NewEvents,
        received_us: u64,
        next_id: impl FnMut() -> u128,
    ) {
        let length = request_overhead(producer) + events.stored_bytes();
        self.bytes.reserve(length);
        self.bytes.extend_from_slice(&(length as u32).to_le_bytes());
        self.bytes.extend_from_slice(&events.count().to_le_bytes());
        match producer {
            None => self.bytes.push(0),
            Some(producer) => {
                self.bytes.extend_from_slice(&[PRODUCER, producer.id.len() as u8]);
                self.bytes.extend_from_slice(producer.id.as_bytes());
                self.bytes.extend_from_slice(&producer.epoch.to_le_bytes());
                self.bytes.extend_from_slice(&producer.seq.to_le_bytes());
            }
        }
        if self.header.requests == 0 {
            self.header.first_received_us = received_us;
        }
        self.header.last_received_us = received_us;
        events.encode(received_us, next_id, &mut self.bytes);
        self.header.requests += 1;
        self.header.events += events.count();
        self.data_bytes += events.data_bytes();
    }

    /// The finished frame.
    #[must_use]
    pub fn finish(mut self) -> (FrameHeader, Vec<u8>) {
        self.header.last_offset_delta = self.header.events - 1;
        self.header.body_bytes = (self.bytes.len() - FRAME_HEADER_BYTES) as u32;
        self.header.body_crc = crc32fast::hash(&self.bytes[FRAME_HEADER_BYTES..]);
        self.bytes[..FRAME_HEADER_BYTES].copy_from_slice(&self.header.encode());
        (self.header, self.bytes)
    }
}

/// A whole frame whose checksums were found right.
#[derive(Clone, Copy)]
pub struct Frame<'b> {
    /// Its header.
    pub header: FrameHeader,
    /// All of its bytes, header included.
    pub bytes: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Takes the frame at the front of `bytes`; `Ok(None)` when it is not all there.
    ///
    /// # Errors
    /// When the bytes are damaged or no frame.
    pub fn check(bytes: &'b [u8]) -> Result<Option<Self>, Unreadable> {
        let Some(frame) = Self::whole(bytes)? else { return Ok(None) };
        frame.check_body()?;
        Ok(Some(frame))
    }

    /// The same without a look at the body: for passing over frames, a damaged one must not hide what is behind it.
    ///
    /// # Errors
    /// When the header is damaged or none.
    pub fn whole(bytes: &'b [u8]) -> Result<Option<Self>, Unreadable> {
        let Some(header) = FrameHeader::decode(bytes)? else { return Ok(None) };
        Ok(bytes.get(..header.frame_bytes()).map(|bytes| Self { header, bytes }))
    }

    /// Checks the body of a frame taken by [`whole`](Self::whole).
    ///
    /// # Errors
    /// When the body is damaged.
    pub fn check_body(&self) -> Result<(), Malformed> {
        let sound = crc32fast::hash(&self.bytes[FRAME_HEADER_BYTES..]) == self.header.body_crc;
        if sound { Ok(()) } else { Err(Malformed("a frame's body is damaged")) }
    }

    /// Takes the front frame of bytes that were checked before or never left memory.
    ///
    /// # Errors
    /// When the header is damaged or the frame is cut.
    pub fn trusted(bytes: &'b [u8]) -> Result<Self, Unreadable> {
        let header = FrameHeader::decode(bytes)?.ok_or(Malformed("a frame is cut"))?;
        let bytes = bytes.get(..header.frame_bytes()).ok_or(Malformed("a frame is cut"))?;
        Ok(Self { header, bytes })
    }

    /// The frame's requests.
    pub fn requests(&self) -> impl Iterator<Item = Result<Request<'b>, Malformed>> + use<'b> {
        let mut fields = Fields::new(&self.bytes[FRAME_HEADER_BYTES..]);
        let mut offset = self.header.first_offset;
        std::iter::from_fn(move || {
            (!fields.rest().is_empty()).then(|| {
                let request = Request::decode(&mut fields, offset)?;
                offset += u64::from(request.events);
                Ok(request)
            })
        })
    }

    /// Bytes of the events' data, as far as the frame is whole.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.events().map_while(Result::ok).map(|event| event.data.len() as u64).sum()
    }

    /// The frame's events in offset order.
    pub fn events(&self) -> impl Iterator<Item = Result<Event<'b>, Malformed>> + use<'b> {
        self.requests().flat_map(|request| {
            let (request, fault) = match request {
                Ok(request) => (Some(request), None),
                Err(fault) => (None, Some(Err(fault))),
            };
            request.into_iter().flat_map(|request| request.events()).chain(fault)
        })
    }
}

/// One request within a frame.
#[derive(Clone, Copy)]
pub struct Request<'b> {
    /// Who sent it, if it said so.
    pub producer: Option<ProducerStamp<'b>>,
    /// Events in it.
    pub events: u32,
    /// Offset of its first event.
    pub first_offset: u64,
    body: Fields<'b>,
}

impl<'b> Request<'b> {
    fn decode(fields: &mut Fields<'b>, first_offset: u64) -> Result<Self, Malformed> {
        let length = fields.u32()?;
        let rest = (length as usize).checked_sub(4).ok_or(Malformed("a request's length is too small"))?;
        let mut body = Fields::new(fields.bytes(rest)?);
        let events = body.u32()?;
        let producer = match body.u8()? {
            0 => None,
            PRODUCER => {
                let length = body.u8()?;
                let id = std::str::from_utf8(body.bytes(length as usize)?);
                let id = id.map_err(|_| Malformed("a producer's id is not UTF-8"))?;
                Some(ProducerStamp { id, epoch: body.u64()?, seq: body.u64()? })
            }
            _ => return Err(Malformed("a request has unknown flags")),
        };
        Ok(Self { producer, events, first_offset, body })
    }

    /// The request's events in offset order.
    pub fn events(&self) -> impl Iterator<Item = Result<Event<'b>, Malformed>> + use<'b> {
        let mut fields = self.body;
        (0..u64::from(self.events)).map({
            let first = self.first_offset;
            move |place| Event::decode(&mut fields, first + place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::{Encoding, NewEvent};
    use super::*;

    fn event(data: &[u8]) -> NewEvent<'_> {
        NewEvent { key: None, content_type: None, headers: &[], encoding: Encoding::Text, data }
    }

    fn sample() -> Vec<u8> {
        let mut builder = FrameBuilder::new(5, 100, true, 0);
        let producer = ProducerStamp { id: "p", epoch: 1, seq: 2 };
        let mut ids = 1..;
        let events = |data: &[&[u8]]| data.iter().map(|data| event(data)).collect::<NewEvents>();
        builder.push(Some(&producer), &events(&[b"a", b"bc"]), 1000, || ids.next().unwrap());
        builder.push(None, &events(&[b""]), 1001, || ids.next().unwrap());
        builder.finish().1
    }

    #[test]
    fn a_frame_comes_back_whole() {
        let bytes = sample();
        let frame = Frame::check(&bytes).unwrap().unwrap();
        assert_eq!((frame.header.group, frame.header.events, frame.header.requests), (5, 3, 2));
        assert!(frame.header.begins_segment);
        assert_eq!((frame.header.first_offset, frame.header.next_offset()), (100, 103));
        assert_eq!((frame.header.first_received_us, frame.header.last_received_us), (1000, 1001));
        let requests: Vec<_> = frame.requests().map(Result::unwrap).collect();
        assert_eq!(requests[0].producer, Some(ProducerStamp { id: "p", epoch: 1, seq: 2 }));
        assert_eq!((requests[1].producer, requests[1].first_offset), (None, 102));
        let events: Vec<_> =
            frame.events().map(|event| event.unwrap()).map(|event| (event.offset, event.id, event.data)).collect();
        assert_eq!(events, [(100, 1, &b"a"[..]), (101, 2, b"bc"), (102, 3, b"")]);
    }

    #[test]
    fn a_cut_frame_is_not_yet_a_frame_and_a_flipped_bit_is_damage() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            assert!(Frame::check(&bytes[..cut]).unwrap().is_none(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut hurt = bytes.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::check(&hurt).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn any_frame_can_be_the_first_of_a_segment() {
        for begins_segment in [false, true] {
            let mut builder = FrameBuilder::new(5, 100, begins_segment, 0);
            builder.push(None, &NewEvents::from_iter([event(b"a")]), 1000, || 1);
            let (header, bytes) = builder.finish();
            let first = FrameHeader::beginning_segment(&bytes);
            let frame = Frame::check(&first).unwrap().unwrap();
            assert_eq!(frame.header, FrameHeader { begins_segment: true, ..header });
        }
    }

    #[test]
    fn an_unknown_low_flag_is_refused_and_a_high_one_ignored() {
        for (flags, known) in [(0x0001_u16, false), (0x0100, true)] {
            let mut bytes = sample();
            bytes[6..8].copy_from_slice(&flags.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Frame::check(&bytes).is_ok(), known);
        }
    }
}
