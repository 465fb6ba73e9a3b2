//! The head that a connection had last. Most clients send the same one again, byte for byte, and what was found out about
//! it still holds: then a comparison does for parsing.

use super::fault::Fault;
use super::head::{Head, parse_head};

/// A longer head is not kept: an idle connection should hold little.
const KEPT_BYTES_MAX: usize = 512;

/// One connection's last head.
#[derive(Debug, Default)]
pub struct LastHead {
    bytes: Vec<u8>,
    head: Option<Head<'static>>,
}

impl LastHead {
    /// Does as [`parse_head`], whose result depends on nothing but the bytes up to the head's end.
    pub fn parse<'b>(&mut self, input: &'b [u8]) -> Result<Option<(Head<'b>, usize)>, Fault> {
        if let Some(head) = &self.head
            && let Some(bytes) = input.get(..self.bytes.len())
            && bytes == self.bytes
        {
            return Ok(Some((head.with_bytes(bytes), bytes.len())));
        }
        let parsed = parse_head(input)?;
        if let Some((head, used)) = &parsed
            && *used <= KEPT_BYTES_MAX
        {
            self.bytes.clear();
            self.bytes.extend_from_slice(&input[..*used]);
            self.head = Some(head.without_bytes());
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_again_means_the_same() {
        let post = b"POST /v1/groups/a/events?key=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nPrefer: x\r\n\r\n";
        let longer = b"POST /v1/groups/a/events?key=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 33\r\nPrefer: x\r\n\r\n";
        let absolute =
            b"\r\nGET http://b/v1/groups HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nEddyline-Meta-a: b\r\n\r\n";
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(KEPT_BYTES_MAX));
        let mut last = LastHead::default();
        for input in [&post[..], post, longer, post, absolute, absolute, long.as_bytes(), long.as_bytes(), absolute] {
            for body in ["", "abc", "\r\n\r\n"] {
                let whole = [input, body.as_bytes()].concat();
                assert_eq!(last.parse(&whole), parse_head(&whole), "{}", whole.escape_ascii());
                let (head, _) = last.parse(&whole).expect("a head").expect("all of it");
                assert!(whole.as_ptr_range().contains(&head.path.as_ptr()), "the path is the input's");
                assert_eq!(head.meta().count(), parse_head(&whole).unwrap().unwrap().0.meta().count());
            }
            for cut in 0..input.len() {
                assert_eq!(last.parse(&input[..cut]), Ok(None), "cut at {cut}");
            }
        }
        assert!(last.bytes.len() <= KEPT_BYTES_MAX);
        assert!(last.parse(b"nonsense\r\n\r\n").is_err());
        assert_eq!(last.parse(post), parse_head(post));
    }
}
