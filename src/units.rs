//! Sizes, durations and counts as people write them: `64MiB`, `1h30m`, `50k`. What is printed here parses back to
//! exactly the same value, except [`rough_size`], which is for tables. Bounds are left to whoever asks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::fmt::friendly::SpanParser;
use jiff::{SignedDuration, SpanRelativeTo};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Text that is not the size, duration or count it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` {complaint}")]
pub struct UnitError {
    given: String,
    complaint: &'static str,
}

const SIZE: &str = "is not a size: expected a number of bytes with a unit, such as 256B, 10k or 64MiB";
const SIZE_TOO_LARGE: &str = "is too large: expected a size that fits 64 bits, such as 64MiB";
const SPAN: &str = "is not a duration: expected a number with a unit, such as 250ms, 20s, 15m, 1h30m or 7d";
const SPAN_WITHOUT_UNIT: &str = "has no unit: expected a duration such as 20s, 15m (minutes) or 7d";
const SPAN_NEGATIVE: &str = "is negative: expected a duration of zero or more, such as 20s";
const SPAN_CALENDAR: &str = "is no fixed duration, as months and years differ in length: expected for example 30d";
const COUNT: &str = "is not a count: expected a whole number, such as 500, 10k or 2M";

/// A number of bytes that is written with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

/// A duration that is written with units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A number with its noun: `1 shard`, `2 shards`.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Reads a number of bytes: `256B`, `10k` (10 000), `64MiB`, `1.5GiB`; without a unit it is bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let refuse = |complaint| Err(UnitError { given: text.to_owned(), complaint });
    match text.parse::<ByteSize>() {
        // The parser saturates: its largest value is taken only if it was spelled out.
        Ok(ByteSize(u64::MAX)) if !text.starts_with("18446744073709551615") => refuse(SIZE_TOO_LARGE),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) if text.parse::<u128>().is_ok() => refuse(SIZE_TOO_LARGE),
        Err(_) => refuse(SIZE),
    }
}

/// Writes a number of bytes with the largest unit that divides it: `64MiB`, `10kB`, `513B`.
pub fn print_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 10] = [
        (1 << 60, "EiB"),
        (1 << 50, "PiB"),
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1_000, "kB"),
    ];
    match UNITS.iter().find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((factor, unit)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// Writes a number of bytes for a person, to one decimal: `1.2 GiB`.
pub fn rough_size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// Reads a duration: `250ms`, `20s`, `15m` (minutes), `1h30m`, `7d` (of 24 hours). A bare number is refused.
pub fn parse_span(text: &str) -> Result<Duration, UnitError> {
    let refuse = |complaint| Err(UnitError { given: text.to_owned(), complaint });
    if text.parse::<f64>().is_ok() {
        return refuse(SPAN_WITHOUT_UNIT);
    }
    let Ok(span) = SpanParser::new().parse_span(text) else {
        return refuse(SPAN);
    };
    if span.get_years() != 0 || span.get_months() != 0 {
        return refuse(SPAN_CALENDAR);
    }
    let Ok(length) = span.to_duration(SpanRelativeTo::days_are_24_hours()) else {
        return refuse(SPAN);
    };
    if length < SignedDuration::ZERO {
        return refuse(SPAN_NEGATIVE);
    }
    Ok(length.unsigned_abs())
}

/// Writes a duration exactly, largest unit first: `7d`, `1h30m`, `250ms`, `0s`.
pub fn print_span(length: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut left_ns = length.as_nanos();
    let mut text = String::new();
    for (unit_ns, unit) in UNITS {
        if left_ns >= unit_ns {
            text.push_str(&format!("{}{unit}", left_ns / unit_ns));
            left_ns %= unit_ns;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Writes a duration for a person, by its two largest units: `0.4s`, `42s`, `1h30m`, `7d2h`.
pub fn rough_span(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    if seconds > 0.0 && seconds < 9.95 {
        return format!("{:.1}s", seconds.max(0.1));
    }
    let seconds = seconds.round() as u64;
    let unit = match seconds {
        0..3600 => 1,
        3600..86_400 => 60,
        _ => 3600,
    };
    print_span(Duration::from_secs(seconds / unit * unit))
}

/// Writes a count for a person, in at most six characters: `950`, `12.3k`, `4.0M`.
pub fn rough_count(count: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut left, mut unit) = (count, 0);
    while left >= 999.95 && unit + 1 < UNITS.len() {
        (left, unit) = (left / 1000.0, unit + 1);
    }
    match unit {
        0 if left >= 10.0 || left.fract() < 0.05 => format!("{left:.0}"),
        _ => format!("{left:.1}{}", UNITS[unit]),
    }
}

/// Reads a whole number with an optional decimal suffix: `500`, `10k`, `2M`.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    // `parse` would also take a plus sign.
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    whole
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| UnitError { given: text.to_owned(), complaint: COUNT })
}

impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&print_size(self.0))
    }
}

impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse_span(text).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&print_span(self.0))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"64MiB\"")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with a unit, such as \"20s\"")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_exactly() {
        // (text, bytes, how it is printed)
        let table: &[(&str, u64, &str)] = &[
            ("0", 0, "0B"),
            ("0B", 0, "0B"),
            ("256B", 256, "256B"),
            ("256", 256, "256B"),
            ("10k", 10_000, "10kB"),
            ("1KB", 1_000, "1kB"),
            ("1KiB", 1_024, "1KiB"),
            ("64MiB", 64 << 20, "64MiB"),
            ("64 mib", 64 << 20, "64MiB"),
            ("1.5GiB", 1_536 << 20, "1536MiB"),
            ("2T", 2_000_000_000_000, "1953125000KiB"),
            ("9007199254740993B", 9_007_199_254_740_993, "9007199254740993B"),
            ("18446744073709551615", u64::MAX, "18446744073709551615B"),
        ];
        for &(text, bytes, printed) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(print_size(bytes), printed, "{text}");
            assert_eq!(parse_size(printed), Ok(bytes), "{printed}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "MiB", "-1B", "10 x", "1e3", "64MiBs", "0x10"] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("64MiB"), "{text}: {error}");
        }
        for text in ["99999999PiB", "99999999999999999999999"] {
            assert!(parse_size(text).unwrap_err().to_string().contains("64 bits"), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_printed_exactly() {
        let table: &[(&str, u64, &str)] = &[
            ("0s", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("20s", 20_000, "20s"),
            ("15m", 900_000, "15m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1h 30m", 5_400_000, "1h30m"),
            ("7d", 604_800_000, "7d"),
            ("2w", 1_209_600_000, "14d"),
            ("1.5s", 1_500, "1s500ms"),
        ];
        for &(text, millis, printed) in table {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_span(text), Ok(length), "{text}");
            assert_eq!(print_span(length), printed, "{text}");
            assert_eq!(parse_span(printed), Ok(length), "{printed}");
        }
        let odd = Duration::new(90_061, 2_003_004);
        assert_eq!(print_span(odd), "1d1h1m1s2ms3us4ns");
        assert_eq!(parse_span("1d1h1m1s2ms3us4ns"), Ok(odd));
    }

    #[test]
    fn durations_and_counts_for_people_are_short() {
        for (millis, printed) in [
            (0, "0s"),
            (3, "0.1s"),
            (380, "0.4s"),
            (9_949, "9.9s"),
            (9_950, "10s"),
            (59_900, "1m"),
            (725_000, "12m5s"),
            (5_405_000, "1h30m"),
            (180_000_000, "2d2h"),
        ] {
            assert_eq!(rough_span(Duration::from_millis(millis)), printed, "{millis}");
        }
        for (count, printed) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (2.0, "2"),
            (10.7, "11"),
            (999.9, "1000"),
            (999.96, "1.0k"),
            (12_340.0, "12.3k"),
            (4e6, "4.0M"),
            (999_960.0, "1.0M"),
            (1e22, "10000.0E"),
        ] {
            assert_eq!(rough_count(count), printed, "{count}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_printed_is_read_back(bytes in 0..=u64::MAX, seconds in 0..10_u64.pow(10), ns in 0..10_u32.pow(9)) {
            proptest::prop_assert_eq!(parse_size(&print_size(bytes)), Ok(bytes));
            let length = Duration::new(seconds, ns);
            proptest::prop_assert_eq!(parse_span(&print_span(length)), Ok(length));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        let table = [
            ("20", "has no unit"),
            ("0", "has no unit"),
            ("1.5", "has no unit"),
            ("", "with a unit"),
            ("s", "with a unit"),
            ("5 parsecs", "with a unit"),
            ("-5s", "zero or more"),
            ("5s ago", "zero or more"),
            ("1y", "months and years"),
            ("2mo", "months and years"),
        ];
        for (text, reason) in table {
            let error = parse_span(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn counts_take_decimal_suffixes_only() {
        for (text, number) in [("0", 0), ("500", 500), ("10k", 10_000), ("2M", 2_000_000)] {
            assert_eq!(parse_count(text), Ok(number), "{text}");
        }
        for text in ["", "k", "-1", "+1", "1.5k", "10ki", "99999999999999999999", "18446744073709551615k"] {
            assert!(parse_count(text).unwrap_err().to_string().contains("10k"), "{text}");
        }
    }

    #[test]
    fn serde_writes_units_and_says_what_it_wants() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Both {
            size: Size,
            span: Span,
        }
        let both = Both { size: Size(64 << 20), span: Span(Duration::from_secs(5_400)) };
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, r#"{"size":"64MiB","span":"1h30m"}"#);
        assert_eq!(serde_json::from_str::<Both>(&text).unwrap(), both);
        assert_eq!(serde_json::from_str::<Size>("1024").unwrap(), Size(1024), "a bare number is bytes");
        let error = serde_json::from_str::<Span>("20").unwrap_err().to_string();
        assert!(error.contains("a duration with a unit"), "{error}");
    }
}
