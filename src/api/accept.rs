//! What a client likes best of what an answer may be (`Accept`, RFC 9110, 12.5.1).

/// The one that `accept` likes best of those that `known` tells from a media type in lower case, of equal ones the first;
/// `default` when it does not care. What it refuses by name, `*/*` does not stand for.
pub(super) fn preferred<F: Copy + PartialEq>(
    accept: &[u8],
    default: F,
    known: impl Fn(&str) -> Option<F>,
) -> Option<F> {
    let accept = std::str::from_utf8(accept).unwrap_or_default();
    if accept.trim().is_empty() {
        return Some(default);
    }
    let range = |range: &str| -> (String, f32) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (media_type, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
    };
    let ranges: Vec<_> = accept.split(',').map(range).collect();
    let refused = |format: F| ranges.iter().any(|(name, quality)| *quality == 0.0 && known(name) == Some(format));
    let mut best: Option<(F, f32)> = None;
    for (media_type, quality) in &ranges {
        let format = match media_type.as_str() {
            "*/*" => Some(default).filter(|default| !refused(*default)),
            media_type => known(media_type),
        };
        if let Some(format) = format.filter(|_| *quality > 0.0 && best.is_none_or(|(_, known)| *quality > known)) {
            best = Some((format, *quality));
        }
    }
    best.map(|(format, _)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_quality_wins_and_of_equal_ones_the_first() {
        let known = |media_type: &str| ["a/a", "b/b", "d/d"].iter().position(|known| *known == media_type);
        for (accept, chosen) in [
            ("", Some(2)),
            ("*/*", Some(2)),
            ("B/b", Some(1)),
            ("a/a, b/b", Some(0)),
            ("a/a;q=0.5, b/b", Some(1)),
            ("a/a;q=0.5;x=y, b/b;x=y;Q=0.4", Some(0)),
            ("c/c, */*;q=0.1", Some(2)),
            ("c/c", None),
            ("a/a;q=0", None),
            ("d/d;q=0, */*", None),
            ("d/d;q=0, */*, b/b;q=0.1", Some(1)),
            ("a/a;q=much", None),
        ] {
            assert_eq!(preferred(accept.as_bytes(), 2, known), chosen, "{accept}");
        }
    }
}
