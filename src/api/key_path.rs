//! A JSON pointer (RFC 6901) that finds each event's key in its data.

use std::borrow::Cow;

use super::json;

/// A parsed pointer, such as `/origin` or `/items/0/id`; the empty one points at the whole value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    tokens: Vec<String>,
}

impl KeyPath {
    /// Parses a pointer; says what is wrong with it otherwise.
    pub fn parse(pointer: &str) -> Result<Self, &'static str> {
        let Some(tokens) = pointer.strip_prefix('/') else {
            return if pointer.is_empty() {
                Ok(Self { tokens: Vec::new() })
            } else {
                Err("it does not begin with `/`")
            };
        };
        let tokens = tokens.split('/').map(|token| {
            if token.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
                return Err("a `~` in it is followed by neither 0 nor 1");
            }
            // In this order, so that `~01` means `~1`.
            Ok(token.replace("~1", "/").replace("~0", "~"))
        });
        Ok(Self { tokens: tokens.collect::<Result<_, _>>()? })
    }

    /// The key in `text`, which must be one valid JSON value: a string's characters, or the text of a number or boolean.
    pub(super) fn find<'t>(&self, text: &'t [u8]) -> Result<Cow<'t, [u8]>, &'static str> {
        let mut at = json::after_space(text, 0);
        for token in &self.tokens {
            let found = match text.get(at) {
                Some(b'{') => member(text, at, token),
                Some(b'[') => element(text, at, token),
                _ => None,
            };
            at = found.ok_or("the value at the key path is missing")?;
        }
        let end = json::value(text, at).map_err(|wrong| wrong.what)?.end;
        let value = &text[at..end];
        match value {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Ok(Cow::Borrowed(inner)),
            [b'"', ..] => serde_json::from_slice::<String>(value)
                .map(|key| Cow::Owned(key.into_bytes()))
                .map_err(|_| "the string at the key path is not Unicode"),
            [b'n', ..] => Err("the value at the key path is null"),
            [b'{' | b'[', ..] => Err("the value at the key path is an object or array"),
            _ => Ok(Cow::Borrowed(value)),
        }
    }
}

/// Where the value of a member begins, in the object that begins at `at`. Of several with one name the last counts, as
/// it does for most readers of JSON.
fn member(text: &[u8], at: usize, name: &str) -> Option<usize> {
    let mut at = json::after_space(text, at + 1);
    let mut found = None;
    while text.get(at) == Some(&b'"') {
        let name_end = json::value(text, at).ok()?.end;
        let is_wanted = is_string(&text[at..name_end], name);
        let colon = json::after_space(text, name_end);
        at = json::after_space(text, colon + 1);
        if is_wanted {
            found = Some(at);
        }
        at = after_comma(text, json::value(text, at).ok()?.end);
    }
    found
}

/// Where an element begins, in the array that begins at `at`; its number has no leading zeros.
fn element(text: &[u8], at: usize, number: &str) -> Option<usize> {
    if (number.len() > 1 && number.starts_with('0')) || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: usize = number.parse().ok()?;
    let mut at = json::after_space(text, at + 1);
    for _ in 0..number {
        at = after_comma(text, json::value(text, at).ok()?.end);
    }
    (text.get(at)? != &b']').then_some(at)
}

/// Where the next member or element begins after one that ended at `end`, or where the matching bracket stands.
fn after_comma(text: &[u8], end: usize) -> usize {
    let at = json::after_space(text, end);
    if text.get(at) == Some(&b',') { json::after_space(text, at + 1) } else { at }
}

fn is_string(quoted: &[u8], wanted: &str) -> bool {
    match quoted {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => inner == wanted.as_bytes(),
        _ => serde_json::from_slice::<String>(quoted).is_ok_and(|name| name == wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The document of RFC 6901, section 5, with a few members more.
    const DOCUMENT: &str = r#" { "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
        "k\"l": 6, " ": 7, "m~n": 8, "~1": 9, "true": true, "null": null, "deep": {"x": [{"y": "z\u00e9\n"}, -1.50e3]},
        "twice": 1, "twice": 2, "": 10, "lone": "\ud800", "empty": "", "[]": [] } "#;

    #[test]
    fn pointers_find_keys() {
        for (pointer, key) in [
            ("/foo/0", Ok("bar")),
            ("/foo/1", Ok("baz")),
            ("/", Ok("10")),
            ("/a~1b", Ok("1")),
            ("/c%d", Ok("2")),
            ("/e^f", Ok("3")),
            ("/g|h", Ok("4")),
            ("/i\\j", Ok("5")),
            ("/k\"l", Ok("6")),
            ("/ ", Ok("7")),
            ("/m~0n", Ok("8")),
            ("/~01", Ok("9")),
            ("/true", Ok("true")),
            ("/deep/x/0/y", Ok("zé\n")),
            ("/deep/x/1", Ok("-1.50e3")),
            ("/twice", Ok("2")),
            ("/empty", Ok("")),
            ("", Err("the value at the key path is an object or array")),
            ("/foo", Err("the value at the key path is an object or array")),
            ("/deep", Err("the value at the key path is an object or array")),
            ("/null", Err("the value at the key path is null")),
            ("/lone", Err("the string at the key path is not Unicode")),
            ("/none", Err("the value at the key path is missing")),
            ("/foo/2", Err("the value at the key path is missing")),
            ("/foo/00", Err("the value at the key path is missing")),
            ("/foo/+1", Err("the value at the key path is missing")),
            ("/foo/-", Err("the value at the key path is missing")),
            ("/foo/", Err("the value at the key path is missing")),
            ("/foo/99999999999999999999", Err("the value at the key path is missing")),
            ("/[]/0", Err("the value at the key path is missing")),
            ("/foo/0/x", Err("the value at the key path is missing")),
            ("/null/x", Err("the value at the key path is missing")),
        ] {
            let path = KeyPath::parse(pointer).expect(pointer);
            let found = path.find(DOCUMENT.as_bytes());
            assert_eq!(found.as_deref(), key.as_ref().map(|key| key.as_bytes()), "{pointer}");
        }
        let whole = KeyPath::parse("").expect("the empty pointer");
        for (text, key) in [("\"a\"", "a"), (" 17 ", "17"), ("false", "false")] {
            assert_eq!(whole.find(text.as_bytes()).as_deref(), Ok(key.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for pointer in ["a", "a/b", "#/a", "/a~", "/~2", "/~~0", "/a~/b"] {
            assert!(KeyPath::parse(pointer).is_err(), "{pointer}");
        }
    }

    proptest! {
        #[test]
        fn pointers_find_what_serde_json_finds(
            members in prop::collection::btree_map("[a-c~/\"\\\\]{0,3}", "[ -~é]{0,5}", 0..5),
            wanted in "[a-c~/\"\\\\]{0,3}",
        ) {
            let document = serde_json::json!({ "x": [members] });
            let pointer = format!("/x/0/{}", wanted.replace('~', "~0").replace('/', "~1"));
            let expected = document.pointer(&pointer).and_then(serde_json::Value::as_str);
            for text in [document.to_string(), format!("{document:#}")] {
                let path = KeyPath::parse(&pointer).expect("a pointer");
                let found = path.find(text.as_bytes()).ok();
                prop_assert_eq!(found.as_deref(), expected.map(str::as_bytes));
            }
        }
    }
}
