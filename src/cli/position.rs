//! Positions as people write them on a command line, turned into what the broker takes.

use crate::units::{parse_span, print_span};

/// A position as the broker takes it.
pub(super) fn position(text: &str) -> Result<String, String> {
    let named = ["id:", "time:", "ago:", "last:", "consumer:"];
    if text == "earliest" || text == "latest" || named.iter().any(|prefix| text.starts_with(prefix)) {
        return Ok(text.to_owned());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().map(|offset| offset.to_string()).map_err(|error| error.to_string());
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(format!("time:{moment:.6}"));
    }
    if let Ok(length) = parse_span(text) {
        return Ok(format!("ago:{}", print_span(length)));
    }
    Err("expected a duration (5m), a time with its zone (2026-11-23T10:00:00Z), an offset, `earliest` or `latest`"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_people_write_them() {
        let table = [
            ("5m", "ago:5m"),
            ("1h 30m", "ago:1h30m"),
            ("1200", "1200"),
            ("007", "7"),
            ("2026-11-23T10:00:00Z", "time:2026-11-23T10:00:00.000000Z"),
            ("2026-11-23T10:00:00.5+01:00", "time:2026-11-23T09:00:00.500000Z"),
            ("earliest", "earliest"),
            ("latest", "latest"),
            ("last:7", "last:7"),
            ("id:0193", "id:0193"),
        ];
        for (text, expected) in table {
            assert_eq!(position(text), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "2026-11-23", "2026-11-23T10:00:00", "-5", "99999999999999999999"] {
            assert!(position(text).is_err(), "{text}");
        }
    }
}
