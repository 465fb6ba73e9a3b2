//! Times and lengths as they stand in a query.

use super::syntax::Length;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// What a time may be.
pub(super) const EXPECTED: &str = "a time from 1970 to 9999-12-30T22:00Z: RFC 3339 with its offset, a date, now(), now() - 15m, or \
                                   an integer of 10, 13 or 16 digits (s, ms, µs since 1970)";

/// Reads a time: RFC 3339, a date (midnight in UTC), or an integer whose length tells its unit; µs since 1970, what is
/// behind them left out.
pub(super) fn time(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: u64 = text.parse().ok()?;
        return match text.len() {
            10 => Some(number * 1_000_000),
            13 => Some(number * 1_000),
            16 => Some(number),
            _ => None,
        };
    }
    let dated = |date: Date| date.to_zoned_datetime(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let time = match shape(text).as_str() {
        "0000-00-00" => dated(text.parse().ok()?)?,
        shape => rfc3339(shape, text)?.parse::<Timestamp>().ok()?,
    };
    u64::try_from(time.as_microsecond()).ok().filter(|_| time >= Timestamp::UNIX_EPOCH)
}

/// The text with each digit as 0.
fn shape(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
}

/// The text without digits behind nanoseconds, if it is written as RFC 3339 has it and within the 24 hours of a day; no clock
/// here knows of leap seconds.
fn rfc3339(shape: &str, text: &str) -> Option<String> {
    let rest = ["T", "t", " "].iter().find_map(|between| {
        shape.strip_prefix("0000-00-00").and_then(|rest| rest.strip_prefix(between)?.strip_prefix("00:00:00"))
    });
    let rest = rest?;
    let fraction = rest.strip_prefix(".0").map(|rest| rest.trim_start_matches('0'));
    let zone = fraction.unwrap_or(rest);
    let (local, offset) = text.split_at(text.len() - zone.len());
    let sound = match zone {
        "Z" | "z" => true,
        "+00:00" | "-00:00" => &offset[1..3] < "24" && &offset[4..] < "60",
        _ => false,
    };
    (sound && &text[17..19] < "60").then(|| format!("{}{offset}", &local[..local.len().min(29)]))
}

/// A time so long before or behind another one, if the calendar knows it: from 1970 to the year 9999.
pub(super) fn moved(time: u64, sign: &str, length: u64) -> Option<u64> {
    let moved = if sign == "-" { time.checked_sub(length) } else { time.checked_add(length) };
    moved.filter(|&time| is_known(time))
}

/// Whether the calendar knows the time, µs since 1970.
#[must_use]
pub fn is_known(time: u64) -> bool {
    i64::try_from(time).is_ok_and(|time| Timestamp::from_microsecond(time).is_ok())
}

/// Reads a length: a whole number, or none for 1, and a unit.
pub(super) fn length(text: &str) -> Option<Length> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = if digits == 0 { 1 } else { number.parse().ok()? };
    let fixed = |unit_us: u64| number.checked_mul(unit_us).map(Length::Fixed);
    let calendar = |times: u64| number.checked_mul(times).and_then(|number| u32::try_from(number).ok());
    match unit {
        "U" | "us" => fixed(1),
        "T" | "ms" => fixed(1_000),
        "s" => fixed(1_000_000),
        "m" => fixed(60_000_000),
        "h" => fixed(3_600_000_000),
        "d" => calendar(1).map(Length::Days),
        "w" => calendar(7).map(Length::Days),
        "M" => calendar(1).map(Length::Months),
        "y" => calendar(12).map(Length::Months),
        _ => None,
    }
}

/// A length as a duration, µs; days have 24 hours here, and months none.
pub(super) fn duration(text: &str) -> Option<u64> {
    match length(text)? {
        Length::Fixed(length) => Some(length),
        Length::Days(days) => u64::from(days).checked_mul(86_400_000_000),
        Length::Months(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let noon = 1_795_608_000_000_000;
        for (text, expected) in [
            ("1795608000", Some(noon)),
            ("1795608000000", Some(noon)),
            ("1795608000000000", Some(noon)),
            ("179560800000", None),
            ("1", None),
            ("2026-11-25T12:00:00Z", Some(noon)),
            ("2026-11-25T13:00:00+01:00", Some(noon)),
            ("2026-11-25T12:00:00.000001Z", Some(noon + 1)),
            ("2026-11-25T12:00:00", None),
            ("2026-11-25t12:00:00.0000019z", Some(noon + 1)),
            ("2026-11-25 13:30:00+01:30", Some(noon)),
            ("2026-11-25T12:00:00.00000199999999999999Z", Some(noon + 1)),
            ("2026-11-25T12:00:60Z", None),
            ("2026-11-25T12:00:00.Z", None),
            ("2026-11-25T12:00Z", None),
            ("20261125T120000Z", None),
            ("+002026-11-25T12:00:00Z", None),
            ("2026-11-25T12:00:00+24:00", None),
            ("2026-11-25T12:00:00+01:60", None),
            ("2026-11-25T12:00:00+01", None),
            ("2026-11-25T12:00:00+0100", None),
            ("2026-11-25T12:00:00+01:00[Europe/Berlin]", None),
            ("2026-11-25T12:00:00ß", None),
            ("1969-12-31T23:59:59.9999999Z", None),
            ("2026-11-25", Some(noon - 43_200_000_000)),
            ("2026-13-25", None),
            ("1969-12-31", None),
            ("", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }

    #[test]
    fn lengths() {
        for (text, expected) in [
            ("5U", Some(Length::Fixed(5))),
            ("5us", Some(Length::Fixed(5))),
            ("5T", Some(Length::Fixed(5_000))),
            ("ms", Some(Length::Fixed(1_000))),
            ("5m", Some(Length::Fixed(300_000_000))),
            ("0s", Some(Length::Fixed(0))),
            ("2w", Some(Length::Days(14))),
            ("M", Some(Length::Months(1))),
            ("2y", Some(Length::Months(24))),
            ("-5m", None),
            ("5", None),
            ("5min", None),
            ("99999999999999999999s", None),
            ("999999999999d", None),
        ] {
            assert_eq!(length(text), expected, "{text}");
        }
        assert_eq!((duration("2d"), duration("1M")), (Some(172_800_000_000), None));
        assert_eq!(duration("4000000000d"), None, "more than 64 bits of µs");
    }

    #[test]
    fn a_moved_time_is_one_that_the_calendar_knows() {
        let day = 86_400_000_000;
        for (sign, length, expected) in [
            ("-", day, Some(0)),
            ("-", day + 1, None),
            ("+", day, Some(2 * day)),
            ("+", 8_000 * 365 * day, Some((8_000 * 365 + 1) * day)),
            ("+", 8_100 * 365 * day, None),
            ("+", u64::MAX, None),
        ] {
            assert_eq!(moved(day, sign, length), expected, "{sign}{length}");
        }
    }
}
