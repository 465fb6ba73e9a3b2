//! `LIKE`: `%` stands for any characters, `_` for one, and a backslash takes the next character as it is.
//!
//! A text is searched for what stands between two `%`, one piece after the other. Without `_` that takes as long as the text
//! is, however long the pattern.

use memchr::memmem;

/// What a text is to be like: the pieces between its `%`, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Box<[Piece]>);

/// Characters one behind the other.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(Box<str>),
    /// `None` is any character.
    Wild(Box<[Option<char>]>),
}

impl Pattern {
    /// Reads a pattern.
    pub(super) fn new(pattern: &str) -> Self {
        let (mut pieces, mut piece) = (Vec::new(), Vec::new());
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => pieces.push(Piece::new(std::mem::take(&mut piece))),
                '_' => piece.push(None),
                '\\' => piece.push(Some(chars.next().unwrap_or('\\'))),
                c => piece.push(Some(c)),
            }
        }
        pieces.push(Piece::new(piece));
        Self(pieces.into())
    }

    /// Whether all of the text is like it.
    pub(super) fn fits(&self, text: &str) -> bool {
        let [first, between @ .., last] = &*self.0 else {
            return self.0.first().is_some_and(|only| only.strip(text) == Some(""));
        };
        let Some(mut rest) = first.strip(text) else { return false };
        for piece in between {
            match piece.find(rest) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        last.ends(rest)
    }
}

impl Piece {
    fn new(chars: Vec<Option<char>>) -> Self {
        chars
            .iter()
            .copied()
            .collect::<Option<String>>()
            .map_or(Self::Wild(chars.into()), |text| Self::Text(text.into()))
    }

    /// What stands behind it in a text that begins with it.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(piece) => text.strip_prefix(&**piece),
            Self::Wild(piece) => {
                let mut rest = text.chars();
                let all =
                    piece.iter().all(|wanted| rest.next().is_some_and(|c| wanted.is_none_or(|wanted| wanted == c)));
                all.then_some(rest.as_str())
            }
        }
    }

    /// What stands behind the first place where it is.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Text(piece) => memmem::find(text.as_bytes(), piece.as_bytes()).map(|at| &text[at + piece.len()..]),
            Self::Wild(_) => text.char_indices().find_map(|(at, _)| self.strip(&text[at..])),
        }
    }

    fn ends(&self, text: &str) -> bool {
        match self {
            Self::Text(piece) => text.ends_with(&**piece),
            Self::Wild(piece) => {
                let at = text.char_indices().rev().nth(piece.len() - 1);
                at.is_some_and(|(at, _)| self.strip(&text[at..]).is_some())
            }
        }
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
            let like = Pattern::new(pattern);
            fits.iter().for_each(|text| assert!(like.fits(text), "{pattern} {text}"));
            fits_not.iter().for_each(|text| assert!(!like.fits(text), "{pattern} {text}"));
        }
    }

    /// Try after try, this would be some 10^11 steps.
    #[test]
    fn a_long_text_takes_no_longer_for_a_long_pattern() {
        let (many, text) = ("a".repeat(16_000), "a".repeat(8 << 20));
        assert!(!Pattern::new(&format!("%{many}b%{many}")).fits(&text));
        assert!(Pattern::new(&format!("%{many}%{many}")).fits(&text));
    }

    proptest! {
        #[test]
        fn pieces_come_to_what_trying_everything_does(pattern in "[ab_%]{0,8}", text in "[abä]{0,10}") {
            fn fits(pattern: &[char], text: &[char]) -> bool {
                match pattern {
                    [] => text.is_empty(),
                    ['%', rest @ ..] => (0..=text.len()).any(|at| fits(rest, &text[at..])),
                    [c, rest @ ..] => text.first().is_some_and(|t| *c == '_' || c == t) && fits(rest, &text[1..]),
                }
            }
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::new(&pattern).fits(&text), fits(&chars(&pattern), &chars(&text)));
        }
    }
}
