//! Makes text from elsewhere safe for a terminal or a log: control characters, which a terminal would obey and which
//! could begin a forged line, appear as `\n` or `\u{1b}`.

/// Text without control characters; line breaks and tabs stay.
pub(super) fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// Text for one line: without any control character.
pub(super) fn one_line(text: &str) -> String {
    escaped(text, char::is_control)
}

fn escaped(text: &str, unsafe_here: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if unsafe_here(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_every_kind_are_spelled_out() {
        // (text, in text of several lines, in one line)
        let table = [
            ("plain äöü 漢字", "plain äöü 漢字", "plain äöü 漢字"),
            ("a\nb\tc", "a\nb\tc", "a\\nb\\tc"),
            ("\r\u{0}\u{1b}[31m", "\\r\\u{0}\\u{1b}[31m", "\\r\\u{0}\\u{1b}[31m"),
            ("\u{7f}\u{9b}", "\\u{7f}\\u{9b}", "\\u{7f}\\u{9b}"),
        ];
        for (text, in_several, in_one) in table {
            assert_eq!(printable(text), in_several);
            assert_eq!(one_line(text), in_one);
        }
    }
}
