//! Path segments and query parameters of a target, percent-decoded; nothing is copied where nothing is escaped.
//!
//! Which paths and parameters there are is `api`'s to say.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::fault::Fault;

/// The raw segments of a path, in order: `/v1/groups` has two, `/` has one empty one. They are split before they are
/// decoded, so an escaped slash stays within its segment.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path.strip_prefix('/').unwrap_or(path));
    std::iter::from_fn(move || {
        let path = rest?;
        // A segment is a few bytes long: too short for a wide search to pay.
        let end = path.bytes().position(|byte| byte == b'/');
        rest = end.map(|end| &path[end + 1..]);
        Some(&path[..end.unwrap_or(path.len())])
    })
}

/// Undoes percent-encoding. An incomplete escape, or bytes that are not UTF-8, are 400 `bad_escape`.
pub fn decode(raw: &str) -> Result<Cow<'_, str>, Fault> {
    if !raw.bytes().any(|byte| byte == b'%') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut escapes = raw.split('%');
    escapes.next();
    for escape in escapes {
        if !matches!(escape.as_bytes(), [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()) {
            return Err(Fault::malformed(
                "bad_escape",
                "a `%` in the target is not followed by two hexadecimal digits",
            ));
        }
    }
    percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Fault::malformed("bad_escape", "what is percent-encoded in the target is not UTF-8"))
}

/// The same for a query, where `+` stands for a space.
fn decode_form(raw: &str) -> Result<Cow<'_, str>, Fault> {
    if memchr::memchr2(b'+', b'%', raw.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(raw));
    }
    if !raw.contains('+') {
        return decode(raw);
    }
    Ok(Cow::Owned(decode(&raw.replace('+', " "))?.into_owned()))
}

/// The query of a target: `name=value` pairs joined by `&`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'b> {
    raw: &'b str,
}

impl<'b> Query<'b> {
    /// Reads a raw query, as a head has it.
    pub fn new(raw: &'b str) -> Self {
        Self { raw }
    }

    /// Whether there are no parameters at all.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// The pairs in order, decoded; a name without `=` has an empty value, and empty pairs are skipped.
    pub fn pairs(self) -> impl Iterator<Item = Result<(Cow<'b, str>, Cow<'b, str>), Fault>> {
        self.raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode_form(name)?, decode_form(value)?))
        })
    }

    /// The value of a parameter. Given twice it is 400 `duplicate_parameter`: nobody can know which was meant.
    pub fn get(self, name: &str) -> Result<Option<Cow<'b, str>>, Fault> {
        if self.raw.is_empty() {
            return Ok(None);
        }
        let mut found = None;
        for pair in self.pairs() {
            let (given, value) = pair?;
            if given == name && found.replace(value).is_some() {
                return Err(duplicate(name));
            }
        }
        Ok(found)
    }

    /// Refuses a parameter that is not among `names` (400 `unknown_parameter`) or is given twice.
    pub fn allow_only(self, names: &[&str]) -> Result<(), Fault> {
        debug_assert!(names.len() <= u64::BITS as usize, "each name has a bit of `seen`");
        if self.raw.is_empty() {
            return Ok(());
        }
        let mut seen = 0_u64;
        for pair in self.pairs() {
            let (given, _) = pair?;
            let Some(place) = names.iter().position(|name| *name == given) else {
                // Escaped, because it is shown; shortened, because it may be thousands of bytes.
                let shown: String = given.escape_default().take(40).collect();
                let detail = format!("there is no parameter `{shown}` here");
                return Err(Fault::malformed("unknown_parameter", detail));
            };
            if seen & (1 << place) != 0 {
                return Err(duplicate(names[place]));
            }
            seen |= 1 << place;
        }
        Ok(())
    }
}

#[cold]
fn duplicate(name: &str) -> Fault {
    Fault::malformed("duplicate_parameter", format!("the parameter `{name}` is given more than once"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code<T>(result: Result<T, Fault>) -> Result<T, &'static str> {
        result.map_err(|fault| {
            assert_eq!(fault.status, 400, "{fault}");
            fault.code
        })
    }

    #[test]
    fn escapes_are_undone_or_refused() {
        for (raw, decoded) in [
            ("", Ok("")),
            ("orders", Ok("orders")),
            ("a+b", Ok("a+b")),
            ("%41%2f%2F%25", Ok("A//%")),
            ("caf%C3%A9", Ok("café")),
            ("%00", Ok("\0")),
            ("%", Err("bad_escape")),
            ("%4", Err("bad_escape")),
            ("%4g", Err("bad_escape")),
            ("%%41", Err("bad_escape")),
            ("%+1", Err("bad_escape")),
            ("a%C3", Err("bad_escape")),
            ("%ff", Err("bad_escape")),
            ("%ed%a0%80", Err("bad_escape")),
        ] {
            assert_eq!(code(decode(raw)).as_deref(), decoded.as_ref().copied(), "{raw}");
        }
    }

    #[test]
    fn what_is_not_escaped_is_not_copied() {
        assert!(matches!(decode("orders"), Ok(Cow::Borrowed("orders"))));
        let pair = Query::new("from=last:5").pairs().next().expect("one pair");
        assert!(matches!(pair, Ok((Cow::Borrowed("from"), Cow::Borrowed("last:5")))));
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        for (path, expected) in [
            ("/", &[""][..]),
            ("/v1/groups/a%2Fb/events", &["v1", "groups", "a%2Fb", "events"]),
            ("/v1//x/", &["v1", "", "x", ""]),
            ("*", &["*"]),
        ] {
            assert_eq!(segments(path).collect::<Vec<_>>(), expected, "{path}");
        }
    }

    #[test]
    fn queries_are_pairs() {
        for (raw, pairs) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a=1", &[("a", "1")]),
            ("a=1&b=&c&=d", &[("a", "1"), ("b", ""), ("c", ""), ("", "d")]),
            ("q=a+b%2Bc=d&p%5b=%26", &[("q", "a b+c=d"), ("p[", "&")]),
            ("from=time:2026-11-23T10:11:12Z", &[("from", "time:2026-11-23T10:11:12Z")]),
        ] {
            let found: Vec<_> = Query::new(raw).pairs().collect::<Result<_, _>>().expect(raw);
            let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, pairs, "{raw}");
        }
        assert_eq!(code(Query::new("a=1&b=%").pairs().collect::<Result<Vec<_>, _>>()), Err("bad_escape"));
    }

    #[test]
    fn a_parameter_is_looked_up_once() {
        for (raw, found) in [
            ("", Ok(None)),
            ("limit=5", Ok(Some("5"))),
            ("x=1&limit=5&y", Ok(Some("5"))),
            ("%6cimit=5", Ok(Some("5"))),
            ("limit=5&limit=5", Err("duplicate_parameter")),
            ("limit=5&%6cimit=6", Err("duplicate_parameter")),
            ("x=%zz&limit=5", Err("bad_escape")),
        ] {
            let value = code(Query::new(raw).get("limit"));
            assert_eq!(value.as_ref().map(Option::as_deref), found.as_ref().map(|value| *value), "{raw}");
        }
    }

    #[test]
    fn unknown_and_double_parameters_are_refused() {
        for (raw, expected) in [
            ("", Ok(())),
            ("from=1&limit=5", Ok(())),
            ("form=1", Err("unknown_parameter")),
            ("From=1", Err("unknown_parameter")),
            ("from=1&limit=5&from=1", Err("duplicate_parameter")),
        ] {
            assert_eq!(code(Query::new(raw).allow_only(&["from", "limit"])), expected, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_undoes_encoding(text in any::<String>()) {
            let _ = decode(&text);
            let _ = Query::new(&text).allow_only(&[]);
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            prop_assert_eq!(decode(&encoded).expect("well escaped"), text.clone());
            let query = format!("a=1&{encoded}={encoded}");
            let pair = Query::new(&query).pairs().last().expect("two pairs").expect("well escaped");
            prop_assert_eq!(pair, (Cow::Borrowed(text.as_str()), Cow::Borrowed(text.as_str())));
        }
    }
}
