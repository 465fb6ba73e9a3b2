//! The bytes of an event, and whose they are when met again. Generated events are JSON objects that say which
//! connection sent them and as its how-manieth; events from a file are its lines. Framing is left to `request`.
//!
//! A generated event of 64 bytes, connection 3, number 1204:
//!
//! ```text
//! {"w":3,"n":1204,"pad":"Qm2x9vTbL0aYk3…"}
//! ```
//!
//! The pad is a slice of a seeded pool of letters and digits, at a place that depends on seed, connection and number,
//! so two events never share a pad by construction and a byte from another event's buffer is noticed.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::units::Sizes;

/// Smallest generated event in bytes: braces, names, ten digits of `w` and sixteen of `n` always fit.
pub const EVENT_BYTES_MIN: u32 = 48;

/// Places at which a pad may begin in the pool; powers of two. The few stay in a core's cache, which makes the generator
/// fast; but after some hundred events every pad was seen before, and a broker that compresses would find each again. With
/// an entropy asked for the pool is beyond what compressors look back on.
const PAD_PLACES: u64 = 1 << 16;
const PAD_PLACES_WITH_ENTROPY: u64 = 1 << 24;

/// Signs that pads are made of, in the order in which fewer bits of entropy leave them out.
const SIGNS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";

/// Most entropy in bits a byte.
pub const ENTROPY_MAX: f64 = 6.0;

/// Bytes of a generated event besides the digits of `w` and `n` and the pad.
const FIXED_BYTES: usize = r#"{"w":,"n":,"pad":""}"#.len();

/// Which event of the run is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKey {
    /// The connection that sends it.
    pub connection: u32,
    /// Its number on that connection, from 0.
    pub sequence: u64,
    /// Its number in the whole run if all connections took turns: what chooses the line of a file.
    pub index: u64,
}

/// What an event is recognised by: (connection, sequence) when generated, (0, hash of its bytes) from a file.
/// Lines of a file may be equal, so an identity can belong to several events. Shown as `event connection/sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(u32, u64);

impl std::fmt::Display for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "event {}/{}", self.0, self.1)
    }
}

/// Where events come from.
#[derive(Debug)]
pub enum Payload {
    /// Made up from a seed.
    Generated(Generated),
    /// Taken from the lines of a file, again from the start when it ends.
    Lines(Lines),
}

/// Seed, sizes and the pool of pads.
#[derive(Debug)]
pub struct Generated {
    seed: u64,
    sizes: Sizes,
    places: u64,
    pool: Vec<u8>,
}

/// A file's bytes and where its events are in it.
#[derive(Debug)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Start and end of each event; at least one.
    events: Vec<(usize, usize)>,
    identities: HashSet<Identity>,
}

impl Payload {
    /// The length of an event's bytes, without making them.
    pub fn length(&self, event: EventKey) -> usize {
        match self {
            Payload::Generated(generated) => generated.length(event.connection, event.sequence),
            Payload::Lines(lines) => lines.line(event.index).len(),
        }
    }

    /// Appends an event's bytes.
    pub fn append(&self, event: EventKey, out: &mut Vec<u8>) {
        match self {
            Payload::Generated(generated) => {
                generated.append(event.connection, event.sequence, out);
            }
            Payload::Lines(lines) => out.extend_from_slice(lines.line(event.index)),
        }
    }

    /// The length every event has, if they are all equally long.
    pub fn fixed_length(&self) -> Option<usize> {
        match self {
            Payload::Generated(Generated { sizes, .. }) if sizes.least == sizes.most => Some(sizes.least as usize),
            _ => None,
        }
    }

    /// What the event is recognised by.
    pub fn identity(&self, event: EventKey) -> Identity {
        match self {
            Payload::Generated(_) => Identity(event.connection, event.sequence),
            Payload::Lines(lines) => identity_of_line(lines.line(event.index)),
        }
    }

    /// Whose bytes these are: an event that this payload would have made, byte for byte, or `None`.
    pub fn recognise(&self, bytes: &[u8]) -> Option<Identity> {
        match self {
            Payload::Generated(generated) => generated.recognise(bytes),
            Payload::Lines(lines) => Some(identity_of_line(bytes)).filter(|found| lines.identities.contains(found)),
        }
    }

    /// Whether no two events of a run share an identity.
    pub fn identities_are_unique(&self) -> bool {
        matches!(self, Payload::Generated(_))
    }
}

impl Generated {
    /// Events of the given sizes; `sizes.least` must be at least [`EVENT_BYTES_MIN`]. With an entropy (in bits a byte,
    /// at most [`ENTROPY_MAX`]) each byte of a pad is one of so many signs, and pads do not come again soon.
    pub fn new(seed: u64, sizes: Sizes, entropy: Option<f64>) -> Generated {
        assert!(sizes.least >= EVENT_BYTES_MIN, "smaller events cannot say whose they are");
        let mut random = fastrand::Rng::with_seed(seed);
        let places = if entropy.is_some() { PAD_PLACES_WITH_ENTROPY } else { PAD_PLACES };
        let signs = (entropy.unwrap_or(ENTROPY_MAX).exp2().round() as usize).clamp(1, SIGNS.len());
        let length = places as usize + sizes.most as usize;
        let pool = (0..length).map(|_| SIGNS[random.usize(..signs)]).collect();
        Generated { seed, sizes, places, pool }
    }

    fn length(&self, connection: u32, sequence: u64) -> usize {
        let Sizes { least, most } = self.sizes;
        if least == most {
            return least as usize;
        }
        let span = u64::from(most - least) + 1;
        least as usize + ((self.mixed(connection, sequence) >> 16) % span) as usize
    }

    fn append(&self, connection: u32, sequence: u64, out: &mut Vec<u8>) {
        let (mut w, mut n) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (w, n) = (w.format(connection).as_bytes(), n.format(sequence).as_bytes());
        let pad = self.length(connection, sequence) - FIXED_BYTES - w.len() - n.len();
        let start = (self.mixed(connection, sequence) % self.places) as usize;
        out.extend_from_slice(br#"{"w":"#);
        out.extend_from_slice(w);
        out.extend_from_slice(br#","n":"#);
        out.extend_from_slice(n);
        out.extend_from_slice(br#","pad":""#);
        out.extend_from_slice(&self.pool[start..start + pad]);
        out.extend_from_slice(br#""}"#);
    }

    fn recognise(&self, bytes: &[u8]) -> Option<Identity> {
        let (connection, sequence) = sender(bytes)?;
        // Numbers with more digits than any run reaches would not fit the smallest event.
        if sequence >= 10_000_000_000_000_000 || self.length(connection, sequence) != bytes.len() {
            return None;
        }
        let mut expected = Vec::with_capacity(bytes.len());
        self.append(connection, sequence, &mut expected);
        (expected == bytes).then_some(Identity(connection, sequence))
    }

    fn mixed(&self, connection: u32, sequence: u64) -> u64 {
        mixed(self.seed, connection, sequence)
    }
}

/// splitmix64's finalizer over seed, connection and number (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014): cheap, and neighbours land far apart.
pub fn mixed(seed: u64, connection: u32, sequence: u64) -> u64 {
    let mut z = seed ^ (u64::from(connection) << 40) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Lines {
    /// Cuts a file at its line feeds; empty lines are no events. With `trimmed` a carriage return at the end of a line
    /// is not part of the event either, as the line formats of the broker have it.
    pub fn new(bytes: Vec<u8>, trimmed: bool) -> Option<Lines> {
        let mut events = Vec::new();
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', &bytes).chain([bytes.len()]);
        for line_end in ends {
            let mut end = line_end;
            if trimmed && bytes[start..end].last() == Some(&b'\r') {
                end -= 1;
            }
            if end > start {
                events.push((start, end));
            }
            start = line_end + 1;
        }
        let identities = events.iter().map(|&(start, end)| identity_of_line(&bytes[start..end])).collect();
        (!events.is_empty()).then_some(Lines { bytes, events, identities })
    }

    /// How many events the file holds; never 0.
    pub fn count(&self) -> u64 {
        self.events.len() as u64
    }

    /// The event with this number in the run, the file repeated as often as needed.
    pub fn line(&self, index: u64) -> &[u8] {
        let (start, end) = self.events[(index % self.count()) as usize];
        &self.bytes[start..end]
    }

    /// The length of the longest event in bytes.
    pub fn longest(&self) -> usize {
        self.events.iter().map(|(start, end)| end - start).max().unwrap_or(0)
    }
}

/// Which connection sent a generated event and as its how-manieth, by what it says itself; its other bytes are not looked
/// at.
pub fn sender(bytes: &[u8]) -> Option<(u32, u64)> {
    let (connection, rest) = leading_number(bytes.strip_prefix(br#"{"w":"#)?)?;
    let (sequence, _) = leading_number(rest.strip_prefix(br#","n":"#)?)?;
    Some((u32::try_from(connection).ok()?, sequence))
}

fn identity_of_line(line: &[u8]) -> Identity {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    Identity(0, hasher.finish())
}

/// A decimal number without sign or leading zeros at the start, and what follows it.
fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    Some((number, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(connection: u32, sequence: u64) -> EventKey {
        EventKey { connection, sequence, index: sequence }
    }

    fn bytes_of(payload: &Payload, event: EventKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        payload.append(event, &mut bytes);
        bytes
    }

    #[test]
    fn generated_events_are_json_of_the_asked_size_and_know_whose_they_are() {
        for (least, most) in [(48, 48), (64, 64), (256, 1024)] {
            let payload = Payload::Generated(Generated::new(7, Sizes { least, most }, None));
            let mut lengths = HashSet::new();
            for (connection, sequence) in [(0, 0), (9, 1), (65_535, 4_000_000_000), (u32::MAX, 9_999_999_999_999_999)] {
                let event = key(connection, sequence);
                let bytes = bytes_of(&payload, event);
                assert_eq!(bytes.len(), payload.length(event));
                assert!((least as usize..=most as usize).contains(&bytes.len()));
                lengths.insert(bytes.len());
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!((value["w"].as_u64(), value["n"].as_u64()), (Some(connection.into()), Some(sequence)));
                assert_eq!(payload.recognise(&bytes), Some(payload.identity(event)));
            }
            assert_eq!(lengths.len() > 1, least < most, "a range must give several lengths");
        }
    }

    #[test]
    fn pads_have_the_entropy_that_was_asked_for() {
        for (entropy, expected) in [(0.0, 0.0), (1.0, 1.0), (3.5, 3.46), (6.0, 6.0)] {
            let generated = Generated::new(7, Sizes { least: 100, most: 100 }, Some(entropy));
            let mut counts = [0_u32; 256];
            generated.pool.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
            let shares = counts.iter().map(|count| f64::from(*count) / generated.pool.len() as f64);
            let found: f64 = shares.filter(|share| *share > 0.0).map(|share| -share * share.log2()).sum();
            assert!((found - expected).abs() < 0.01, "{found} for {entropy}");
        }
    }

    #[test]
    fn a_changed_byte_or_another_seed_is_not_recognised() {
        let sizes = Sizes { least: 100, most: 100 };
        let payload = Payload::Generated(Generated::new(1, sizes, None));
        let bytes = bytes_of(&payload, key(2, 3));
        for at in 0..bytes.len() {
            let mut hurt = bytes.clone();
            hurt[at] ^= 1;
            assert_eq!(payload.recognise(&hurt), None, "byte {at}");
        }
        assert_eq!(payload.recognise(&bytes[..99]), None);
        assert_eq!(payload.recognise(b""), None);
        assert_eq!(Payload::Generated(Generated::new(2, sizes, None)).recognise(&bytes), None);
    }

    #[test]
    fn lines_are_taken_verbatim_and_in_order() {
        for (text, trimmed, events) in [
            ("a\nb\n", false, vec!["a", "b"]),
            ("a\n\n b ", false, vec!["a", " b "]),
            ("a\r\n\r\nb", false, vec!["a\r", "\r", "b"]),
            ("a\r\n\r\nb\r", true, vec!["a", "b"]),
        ] {
            let lines = Lines::new(text.into(), trimmed).unwrap();
            let found: Vec<_> =
                (0..lines.count()).map(|index| String::from_utf8(lines.line(index).to_vec()).unwrap()).collect();
            assert_eq!(found, events, "{text:?}");
            assert_eq!(lines.line(lines.count()), events[0].as_bytes(), "after the end comes the start");
            let payload = Payload::Lines(lines);
            assert!(payload.recognise(events[0].as_bytes()).is_some());
            assert_eq!(payload.recognise(b"never in the file"), None);
        }
        assert!(Lines::new(b"\n\n".to_vec(), false).is_none());
    }
}
