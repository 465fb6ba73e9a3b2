//! Finds where a JSON value ends and whether it is one (RFC 8259), without building anything.
//!
//! Strict and iterative: the stack is one bit a level. The text must be valid UTF-8, which its caller checks once for
//! a whole body. What a value means is left to others.

use crate::limits::JSON_DEPTH_MAX;

const _: () = assert!(JSON_DEPTH_MAX < u128::BITS, "every level has a bit of the stack");

/// One JSON value in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    /// Where it ends.
    pub(super) end: usize,
    /// A CR or LF stands between its tokens.
    pub(super) has_line_break: bool,
    /// An escape in one of its strings is half of a surrogate pair: the grammar allows it, but it is no character, and
    /// many parsers refuse it (RFC 8259, 8.2).
    pub(super) has_lone_surrogate: bool,
}

/// What is wrong with a text, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Checks that the text is exactly one value with nothing but white space around it; says whether a CR or LF is in it.
pub(super) fn whole(text: &[u8]) -> Result<Value, Wrong> {
    let mut has_line_break = false;
    let start = skip_space(text, 0, &mut has_line_break);
    let value = value(text, start)?;
    let end = skip_space(text, value.end, &mut has_line_break);
    if end < text.len() {
        return Err(wrong(end, "something follows the value"));
    }
    Ok(Value { end, has_line_break: has_line_break | value.has_line_break, ..value })
}

/// The first place from `at` on where no white space stands.
pub(super) fn after_space(text: &[u8], at: usize) -> usize {
    skip_space(text, at, &mut false)
}

/// The value that begins at `at`, where no white space may stand: walks down into the first token of each level, then up
/// through what ends there. Places are passed by value and not kept in a struct: they then stay in a register.
pub(super) fn value(text: &[u8], mut at: usize) -> Result<Value, Wrong> {
    // The lowest bit is the innermost level: 1 an object, 0 an array.
    let (mut levels, mut depth) = (0_u128, 0);
    let (mut has_line_break, mut has_lone_surrogate) = (false, false);
    loop {
        at = match text.get(at) {
            Some(b'"') => string(text, at, &mut has_lone_surrogate)?,
            Some(b'-' | b'0'..=b'9') => number(text, at)?,
            Some(open @ (b'{' | b'[')) => {
                if depth == JSON_DEPTH_MAX {
                    return Err(wrong(at, "it is nested too deeply"));
                }
                let is_object = *open == b'{';
                at = skip_space(text, at + 1, &mut has_line_break);
                if text.get(at) != Some(if is_object { &b'}' } else { &b']' }) {
                    depth += 1;
                    levels = levels << 1 | u128::from(is_object);
                    if is_object {
                        at = name(text, at, &mut has_line_break, &mut has_lone_surrogate)?;
                    }
                    continue;
                }
                at + 1
            }
            Some(b't') => literal(text, at, b"true")?,
            Some(b'f') => literal(text, at, b"false")?,
            Some(b'n') => literal(text, at, b"null")?,
            Some(_) => return Err(wrong(at, "no value begins here")),
            None => return Err(wrong(at, "a value is missing at the end")),
        };
        loop {
            if depth == 0 {
                return Ok(Value { end: at, has_line_break, has_lone_surrogate });
            }
            at = skip_space(text, at, &mut has_line_break);
            let is_object = levels & 1 == 1;
            match text.get(at) {
                Some(b',') => {
                    at = skip_space(text, at + 1, &mut has_line_break);
                    if is_object {
                        at = name(text, at, &mut has_line_break, &mut has_lone_surrogate)?;
                    }
                    break;
                }
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(_) => {
                    return Err(wrong(at, "neither a comma nor the matching end stands here"));
                }
                None => return Err(wrong(at, "an object or array does not end")),
            }
            at += 1;
            depth -= 1;
            levels >>= 1;
        }
    }
}

#[cold]
fn wrong(at: usize, what: &'static str) -> Wrong {
    Wrong { at, what }
}

#[inline(always)]
fn skip_space(text: &[u8], mut at: usize, has_line_break: &mut bool) -> usize {
    while let Some(byte @ (b' ' | b'\n' | b'\r' | b'\t')) = text.get(at) {
        *has_line_break |= matches!(byte, b'\n' | b'\r');
        at += 1;
    }
    at
}

/// The name of a member with its colon, up to its value.
#[inline(always)]
fn name(text: &[u8], at: usize, has_line_break: &mut bool, has_lone_surrogate: &mut bool) -> Result<usize, Wrong> {
    if text.get(at) != Some(&b'"') {
        return Err(wrong(at, "the name of a member is missing"));
    }
    let colon = skip_space(text, string(text, at, has_lone_surrogate)?, has_line_break);
    if text.get(colon) != Some(&b':') {
        return Err(wrong(colon, "a colon is missing after a name"));
    }
    Ok(skip_space(text, colon + 1, has_line_break))
}

#[inline(always)]
fn string(text: &[u8], at: usize, has_lone_surrogate: &mut bool) -> Result<usize, Wrong> {
    let mut at = at + 1;
    loop {
        at = plain_end(text, at);
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => {
                let (end, is_lone_surrogate) = escape(text, at)?;
                at = end;
                *has_lone_surrogate |= is_lone_surrogate;
            }
            Some(_) => return Err(wrong(at, "a control character stands in a string")),
            None => return Err(wrong(at, "a string does not end")),
        }
    }
}

/// The next quote, backslash or control character: eight bytes at a time by the classic test for a zero byte in a word,
/// of which the lowest hit is always exact.
#[inline(always)]
fn plain_end(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*eight);
        let quote = word ^ QUOTES;
        let backslash = word ^ BACKSLASHES;
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(SPACES) & !word);
        let hits = hits & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(b' '..=b'!' | b'#'..=b'[' | b']'..) = text.get(at) {
        at += 1;
    }
    at
}

/// Where an escape ends, a surrogate pair as one, and whether it is half of a pair that stands alone.
fn escape(text: &[u8], at: usize) -> Result<(usize, bool), Wrong> {
    let unit = match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => return Ok((at + 2, false)),
        Some(b'u') => code_unit(text, at),
        _ => return Err(wrong(at, "an escape in a string is not known")),
    };
    match unit {
        None => Err(wrong(at, "`\\u` is not followed by four hexadecimal digits")),
        Some(0xD800..0xDC00) if matches!(code_unit(text, at + 6), Some(0xDC00..0xE000)) => Ok((at + 12, false)),
        Some(unit) => Ok((at + 6, matches!(unit, 0xD800..0xE000))),
    }
}

/// The UTF-16 code unit that the escape at `at` stands for, if it is `\u` with four digits.
fn code_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..)?.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
}

#[inline(always)]
fn number(text: &[u8], mut at: usize) -> Result<usize, Wrong> {
    if text[at] == b'-' {
        at += 1;
    }
    if text.get(at) == Some(&b'0') {
        at += 1;
        if let Some(b'0'..=b'9') = text.get(at) {
            return Err(wrong(at, "a number begins with a zero that means nothing"));
        }
    } else {
        at = digits(text, at)?;
    }
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Ok(at)
}

/// One digit or more.
#[inline(always)]
fn digits(text: &[u8], start: usize) -> Result<usize, Wrong> {
    let mut at = start;
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    if at == start {
        return Err(wrong(at, "a digit is missing in a number"));
    }
    Ok(at)
}

#[inline(always)]
fn literal(text: &[u8], at: usize, literal: &'static [u8]) -> Result<usize, Wrong> {
    if !text[at..].starts_with(literal) {
        return Err(wrong(at, "no value begins here"));
    }
    Ok(at + literal.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    #[test]
    fn values_end_where_they_end() {
        for (text, end, has_line_break) in [
            ("{}", 2, false),
            ("[ ] x", 3, false),
            ("12,", 2, false),
            ("\"a\\\"b\"c", 6, false),
            ("{\"a\":[1,{\"b\":null}],\"c\":-0.5e+3}]", 32, false),
            ("[1,\n2]", 6, true),
            ("{\r}", 3, true),
            ("[\t1 ]\n", 5, false),
        ] {
            let expected = Value { end, has_line_break, has_lone_surrogate: false };
            assert_eq!(value(text.as_bytes(), 0), Ok(expected), "{text}");
        }
        assert_eq!(whole(b"\n1").map(|value| value.has_line_break), Ok(true));
        assert_eq!(value(b"xx[7]", 2).map(|value| value.end), Ok(5));
        assert_eq!(after_space(b"a \t\r\n b", 1), 6);
    }

    #[test]
    fn half_of_a_surrogate_pair_is_noticed_wherever_it_stands() {
        for (text, lone) in [
            (r#""\ud83d\ude00""#, false),
            (r#""\uD83D\uDE00\uD83D\uDE00""#, false),
            (r#""\ud7ff\ue000""#, false),
            (r#""\\ud800""#, false),
            (r#""\ud800""#, true),
            (r#""\uDbFf""#, true),
            (r#""\udc00""#, true),
            (r#""\uDFFF\uD800""#, true),
            (r#""\ud800\ud800\udc00""#, true),
            (r#""\ud800x\udc00""#, true),
            (r#""\ud800\n""#, true),
            (r#"{"\ud800":1}"#, true),
            (r#"{"a":1,"\udc00":1}"#, true),
            (r#"[{"a":[{"b":"\ud800"}]},1]"#, true),
            (r#" ["\ud800" ] "#, true),
        ] {
            assert_eq!(whole(text.as_bytes()).map(|value| value.has_lone_surrogate), Ok(lone), "{text}");
            // A parser that builds characters takes all the others and refuses these.
            assert_eq!(serde_json::from_str::<serde_json::Value>(text).is_err(), lone, "{text}");
        }
        assert_eq!(whole(br#""\ud800\u12""#), Err(wrong(7, "`\\u` is not followed by four hexadecimal digits")));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, at) in [
            ("", 0),
            (" ", 1),
            ("nul", 0),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("[1}", 2),
            ("{\"a\"}", 4),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("\"a\nb\"", 2),
            ("\"abcdefgh\u{1f}\"", 9),
            ("\"a\\x\"", 2),
            ("\"\\u12g4\"", 1),
            ("\"\\u12", 1),
            ("\"abc", 4),
            ("[", 1),
            ("1 2", 2),
            ("\u{feff}1", 0),
        ] {
            assert_eq!(whole(text.as_bytes()).map_err(|wrong| wrong.at), Err(at), "{text:?}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: u32| format!("{}{}", "[".repeat(depth as usize), "]".repeat(depth as usize));
        assert!(whole(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        let wrong = whole(nested(JSON_DEPTH_MAX + 1).as_bytes()).expect_err("too deep");
        assert_eq!(wrong, Wrong { at: JSON_DEPTH_MAX as usize, what: "it is nested too deeply" });
        assert!(whole("[".repeat(1 << 20).as_bytes()).is_err());
    }

    /// Texts of JSON's own characters, many of them nearly JSON.
    fn nearly_json() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\"a\"",
            "\"abcdefghij\"",
            "\\",
            "\\n",
            "\\u00e9",
            "\\ud800",
            "0",
            "1",
            "-",
            ".",
            "e",
            "E+",
            "true",
            "false",
            "null",
            " ",
            "\n",
            "\r",
            "\t",
            "x",
            "\u{e9}",
            "\u{1}",
            "{\"a\":",
            "[1,",
            "\u{7f}",
        ]);
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn agrees(text: &str) -> Result<(), TestCaseError> {
        let ours = whole(text.as_bytes());
        let theirs = serde_json::from_str::<IgnoredAny>(text);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?} and {:?}", text, ours, theirs.err());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn nearly_json_is_judged_as_serde_json_does(text in nearly_json()) {
            agrees(&text)?;
        }

        #[test]
        fn strings_are_judged_as_serde_json_does(text in any::<String>(), raw in "[ -~\u{0}-\u{20}\"\\\\é]{0,24}") {
            agrees(&format!("\"{text}\""))?;
            agrees(&format!("\"{raw}\""))?;
        }

        #[test]
        fn surrogates_are_judged_as_serde_json_does(
            units in prop::collection::vec(prop::sample::select(vec![0xD800_u16, 0xDBFF, 0xDC00, 0xDFFF, 0xE9, 0xD7FF]), 0..6)
        ) {
            let text = format!("\"{}\"", units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>());
            let ours = whole(text.as_bytes()).map(|value| value.has_lone_surrogate);
            prop_assert_eq!(ours, Ok(serde_json::from_str::<String>(&text).is_err()), "{}", text);
        }
    }

    proptest! {
        #[test]
        fn values_and_their_mutations_are_judged_as_serde_json_does(
            value in any_value(),
            pretty in any::<bool>(),
            place in any::<prop::sample::Index>(),
            byte in 0_u8..128,
        ) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let found = whole(text.as_bytes());
            prop_assert_eq!(found.map(|value| value.has_line_break), Ok(text.contains('\n')));
            let mut bytes = text.into_bytes();
            let at = place.index(bytes.len());
            bytes[at] = byte;
            if let Ok(text) = str::from_utf8(&bytes) {
                agrees(text)?;
            }
        }
    }
}
