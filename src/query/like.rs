//! `LIKE`: `%` stands for any characters, `_` for one, and a backslash takes the next character as it is.
//!
//! A text is searched for what stands between two `%`, one piece after the other, which takes as long as the text is,
//! however long the pattern.

use crate::limits::QUERY_LIKE_PIECE_MAX;
use memchr::memmem;
use std::collections::BTreeMap;

/// What a text is to be like: the pieces between its `%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    first: Piece,
    between: Box<[Sought]>,
    /// `None` if there is no `%`.
    last: Option<Piece>,
}

/// Characters one behind the other, at an end of a text; `None` is any character.
#[derive(Clone, Debug, PartialEq)]
struct Piece(Box<[Option<char>]>);

/// Characters one behind the other, anywhere in a text.
#[derive(Clone, Debug, PartialEq)]
enum Sought {
    Text(Box<str>),
    Wild(Wild),
}

/// A piece with `_`. Bit `n` of a mask stands for its character `n`.
#[derive(Clone, Debug, PartialEq)]
struct Wild {
    last: u64,
    /// Where any character may be.
    any: u64,
    /// Where each character that it names may be.
    named: Box<[(char, u64)]>,
}

impl Pattern {
    /// Reads a pattern; `None` if what has `_` between two `%` is longer than [`QUERY_LIKE_PIECE_MAX`] characters.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let (mut pieces, mut piece) = (Vec::new(), Vec::new());
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => pieces.push(std::mem::take(&mut piece)),
                '_' => piece.push(None),
                '\\' => piece.push(Some(chars.next().unwrap_or('\\'))),
                c => piece.push(Some(c)),
            }
        }
        let mut pieces = pieces.into_iter();
        let Some(first) = pieces.next() else {
            return Some(Self { first: Piece(piece.into()), between: Box::default(), last: None });
        };
        let between = pieces.map(|piece| Sought::new(&piece)).collect::<Option<_>>()?;
        Some(Self { first: Piece(first.into()), between, last: Some(Piece(piece.into())) })
    }

    /// Whether all of the text is like it.
    pub(super) fn fits(&self, text: &str) -> bool {
        let Some(mut rest) = self.first.strip(text) else { return false };
        let Some(last) = &self.last else { return rest.is_empty() };
        for sought in &self.between {
            match sought.find(rest) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        last.ends(rest)
    }
}

impl Piece {
    /// What stands behind it in a text that begins with it.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut rest = text.chars();
        let fits = |wanted: &Option<char>| rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c));
        self.0.iter().all(fits).then_some(rest.as_str())
    }

    fn ends(&self, text: &str) -> bool {
        let mut rest = text.chars().rev();
        self.0.iter().rev().all(|wanted| rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c)))
    }
}

impl Sought {
    fn new(piece: &[Option<char>]) -> Option<Self> {
        if let Some(text) = piece.iter().copied().collect::<Option<String>>() {
            return Some(Self::Text(text.into()));
        }
        if piece.len() > QUERY_LIKE_PIECE_MAX {
            return None;
        }
        let (mut any, mut named) = (0, BTreeMap::<char, u64>::new());
        for (place, c) in piece.iter().enumerate() {
            *c.map_or(&mut any, |c| named.entry(c).or_default()) |= 1 << place;
        }
        Some(Self::Wild(Wild { last: 1 << (piece.len() - 1), any, named: named.into_iter().collect() }))
    }

    /// What stands behind the first place where it is.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(piece) => memmem::find(text.as_bytes(), piece.as_bytes()).map(|at| &text[at + piece.len()..]),
            Self::Wild(wild) => wild.find(text),
        }
    }
}

impl Wild {
    /// Keeps for each of its beginnings whether the text read so far ends with it (Baeza-Yates and Gonnet, "A new approach to
    /// text searching", 1992).
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (mut rest, mut ends_with) = (text.chars(), 0);
        while ends_with & self.last == 0 {
            let c = rest.next()?;
            let named = self.named.binary_search_by_key(&c, |(named, _)| *named).map_or(0, |at| self.named[at].1);
            ends_with = (ends_with << 1 | 1) & (self.any | named);
        }
        Some(rest.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, fits, fits_not) in [
            ("", &[""][..], &["a", " "][..]),
            ("%", &["", "a", "ä漢"], &[]),
            ("%%", &["", "a"], &[]),
            ("abc", &["abc"], &["ab", "abcd", "ABC"]),
            ("a%", &["a", "abc"], &["", "ba"]),
            ("%a", &["a", "cba"], &["", "ab"]),
            ("%a%", &["a", "bab"], &["", "b"]),
            ("a%a", &["aa", "aba"], &["a", "ab"]),
            ("ab%ba", &["abba"], &["aba"]),
            ("%ab%ab%", &["abab", "xabxabx"], &["ab", "aab"]),
            ("%aab", &["aaab", "aab"], &["aaba"]),
            ("_", &["a", "漢"], &["", "ab"]),
            ("_%_", &["ab", "äöü"], &["a"]),
            ("%_", &["a", "ä"], &[""]),
            ("%a_c%", &["abacc", "xaxcx", "aaac"], &["ac", "abac", "abbc"]),
            ("%a_", &["aab", "xaä"], &["a", "abc"]),
            ("100\\%", &["100%"], &["1000", "100"]),
            ("a\\_b", &["a_b"], &["acb"]),
            ("a\\\\b", &["a\\b"], &["ab"]),
            ("\\a", &["a"], &["\\a"]),
            ("a\\", &["a\\"], &["a"]),
        ] {
            let like = Pattern::new(pattern).unwrap();
            fits.iter().for_each(|text| assert!(like.fits(text), "{pattern} {text}"));
            fits_not.iter().for_each(|text| assert!(!like.fits(text), "{pattern} {text}"));
        }
    }

    /// Try after try, this would be some 10^11 steps.
    #[test]
    fn a_long_text_takes_no_longer_for_a_long_pattern() {
        let (many, text) = ("a".repeat(16_000), "a".repeat(8 << 20));
        let fits = |pattern: &str| Pattern::new(pattern).unwrap().fits(&text);
        assert!(!fits(&format!("%{many}b%{many}")));
        assert!(fits(&format!("%{many}%{many}")));
        assert!(fits(&format!("{many}_%_{many}")));
        let many = "a_".repeat(31);
        assert!(!fits(&format!("%{many}b%").repeat(400)));
        assert!(fits(&format!("%{many}a%").repeat(400)));
    }

    #[test]
    fn what_is_wild_between_two_is_not_longer_than_it_may_be() {
        let (text, rest) = ("a".repeat(200), "a".repeat(63));
        for (pattern, may) in [
            (format!("%_{rest}%"), true),
            (format!("%_a{rest}%"), false),
            (format!("_a{rest}%a{rest}%_a{rest}"), true),
            (format!("_a{rest}%"), true),
        ] {
            assert_eq!(Pattern::new(&pattern).map(|like| like.fits(&text)), may.then_some(true), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn pieces_come_to_what_trying_everything_does(pattern in "[aä_%]{0,9}", text in "[abä]{0,12}") {
            fn fits(pattern: &[char], text: &[char]) -> bool {
                match pattern {
                    [] => text.is_empty(),
                    ['%', rest @ ..] => (0..=text.len()).any(|at| fits(rest, &text[at..])),
                    [c, rest @ ..] => text.first().is_some_and(|t| *c == '_' || c == t) && fits(rest, &text[1..]),
                }
            }
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&pattern).unwrap().fits(&text), fits(&chars(&pattern), &chars(&text)));
        }
    }
}
