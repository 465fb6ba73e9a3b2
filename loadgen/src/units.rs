//! Numbers with units: what the command line accepts and how results are written. Knows nothing of requests.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;

/// Stages of one run, each with histograms of its own.
const STAGES_MAX: usize = 100;

/// Smallest and largest size of one event in bytes, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Smallest size in bytes.
    pub least: u32,
    /// Largest size in bytes.
    pub most: u32,
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.least == self.most {
            write!(out, "{} B", self.least)
        } else {
            write!(out, "{}..{} B", self.least, self.most)
        }
    }
}

/// Reads `256B`, `1KiB` or a range such as `64B..1KiB`. The error is a sentence for the command line.
pub fn parse_sizes(text: &str) -> Result<Sizes, String> {
    let size = |part: &str| -> Result<u32, String> {
        let bytes =
            part.trim().parse::<ByteSize>().map_err(|error| format!("{error}: write 256B, 1KiB or 64B..1KiB"))?;
        u32::try_from(bytes.as_u64()).map_err(|_| format!("{part} is more than one event can be"))
    };
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let sizes = Sizes { least: size(least)?, most: size(most)? };
    if sizes.least > sizes.most {
        return Err(format!("the range {text} begins above its end"));
    }
    Ok(sizes)
}

/// Reads a count such as `1000`, `10k`, `5M` or `1G` (powers of ten), at least 1.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, scale) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a count: write 1000, 10k or 5M"))?;
    match number.checked_mul(scale) {
        Some(0) | None => Err(format!("`{text}` is out of range")),
        Some(count) => Ok(count),
    }
}

/// Reads stages such as `30s:10k,30s:20k`: how long, and how many events a second.
pub fn parse_stages(text: &str) -> Result<Vec<(Duration, u64)>, String> {
    let stage = |part: &str| -> Result<(Duration, u64), String> {
        let (length, rate) = part.split_once(':').ok_or_else(|| format!("`{part}` is no stage: write 30s:10k"))?;
        let length = parse_duration(length.trim())?;
        if length.is_zero() {
            return Err(format!("`{part}` takes no time"));
        }
        Ok((length, parse_count(rate.trim())?))
    };
    let stages: Vec<_> = text.split(',').map(stage).collect::<Result<_, _>>()?;
    if stages.len() > STAGES_MAX {
        return Err(format!("at most {STAGES_MAX} stages"));
    }
    Ok(stages)
}

/// Reads a duration such as `30s`, `1m 30s` or `500ms`; not negative.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    // What the parser says of it speaks of calendars.
    let unread = |_| format!("`{text}` is no time: write 30s, 500ms or 1m30s");
    let duration: SignedDuration = text.parse().map_err(unread)?;
    Duration::try_from(duration).map_err(|_| format!("`{text}` is negative"))
}

/// Nanoseconds in the unit a reader would choose: `830 ns`, `41.2 µs`, `3.90 ms`, `12.5 s`. Nothing takes none: that is
/// how a clock reads that did not run.
pub fn nanoseconds(nanos: u64) -> String {
    let value = nanos as f64;
    let (scaled, unit) = match nanos {
        0 => return "–".to_owned(),
        1..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (value / 1e3, "µs"),
        1_000_000..1_000_000_000 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    let digits = if scaled < 10.0 { 2 } else { usize::from(scaled < 100.0) };
    format!("{scaled:.digits$} {unit}")
}

/// A count with its thousands apart: `4 512 000`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A count and what it is of: `1 query`, `4 512 queries`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A rate (per second) as a whole number with its thousands apart.
pub fn rate(per_second: f64) -> String {
    grouped(per_second.round().max(0.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_durations_are_read_with_units() {
        assert_eq!(parse_sizes("100..1000"), Ok(Sizes { least: 100, most: 1000 }));
        assert_eq!(parse_sizes("256B"), Ok(Sizes { least: 256, most: 256 }));
        assert_eq!(parse_sizes("64B..1KiB"), Ok(Sizes { least: 64, most: 1024 }));
        for bad in ["", "x", "1KiB..64B", "5GiB", "..5B", "64B-1KiB"] {
            assert!(parse_sizes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_count("10k"), Ok(10_000));
        assert_eq!(parse_count("7"), Ok(7));
        for bad in ["", "0", "k", "1.5k", "99999999999G"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        let second = Duration::from_secs(1);
        assert_eq!(parse_stages("1s:10k, 1m:5"), Ok(vec![(second, 10_000), (second * 60, 5)]));
        for bad in ["", "1s", "1s:0", "0s:5", "1s:5,", &["1s:5"; 101].join(",")] {
            assert!(parse_stages(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!((nanoseconds(0).as_str(), nanoseconds(1).as_str()), ("–", "1 ns"));
        assert_eq!(
            [0, 1, 1000].map(|count| counted(count, "query", "queries")),
            ["0 queries", "1 query", "1 000 queries"]
        );
        assert_eq!(nanoseconds(830), "830 ns");
        assert_eq!(nanoseconds(41_230), "41.2 µs");
        assert_eq!(nanoseconds(3_904_000), "3.90 ms");
        assert_eq!(nanoseconds(123_000_000), "123 ms");
        assert_eq!(nanoseconds(12_500_000_000), "12.5 s");
        assert_eq!((grouped(0), grouped(999), grouped(4_512_000)), ("0".into(), "999".into(), "4 512 000".into()));
        assert_eq!(rate(999.6), "1 000");
    }
}
