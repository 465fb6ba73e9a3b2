//! Answer bytes: finds the next whole answer at the front of what was received. Knows HTTP and the few headers that
//! matter to a producer; what an answer means for a request is left to `exchange`.

use thiserror::Error;

/// Longest head and longest body that are waited for; an answer to a producer is far smaller.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;

/// One answer, still in the buffer it came in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer<'b> {
    /// HTTP status.
    pub status: u16,
    /// `Eddyline-Offset`: the first offset of what was stored.
    pub offset: Option<u64>,
    /// Whether `Eddyline-Duplicate` is there.
    pub duplicate: bool,
    /// `Retry-After` in seconds.
    pub retry_after_s: Option<u64>,
    /// Whether the server will close the connection after this answer.
    pub close: bool,
    /// The body.
    pub body: &'b [u8],
}

/// What stands at the front of the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// Not a whole answer yet.
    More,
    /// A whole answer, and how many bytes it took.
    Whole(Answer<'b>, usize),
}

/// Bytes that are no answer a producer can go on from; the connection is of no more use.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Not HTTP/1.
    #[error("not an HTTP/1 answer")]
    Syntax,
    /// A head or body above the limits of this client.
    #[error("an answer larger than this client reads")]
    TooLarge,
    /// Neither a body length nor a status that has none.
    #[error("an answer without Content-Length")]
    Unbounded,
    /// More answers than requests.
    #[error("an answer that nothing was asked for")]
    Unasked,
    /// A success that says nothing of where the events are, or contradicts itself.
    #[error("a success without (or with contradicting) offsets; --no-verify does without them")]
    Offsets,
}

/// Looks for one answer at the front of `bytes`. Calling it again with more bytes gives the same result or a longer look.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Fault> {
    if bytes.starts_with(b"HTTP/1.1 204 ") {
        return no_content(bytes);
    }
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_BYTES_MAX => {
            return Err(Fault::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(Parsed::More),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(_) => return Err(Fault::Syntax),
    };
    let mut answer =
        Answer { status: response.code.ok_or(Fault::Syntax)?, close: response.version == Some(0), ..Answer::default() };
    let mut length = if matches!(answer.status, 204 | 304) { Some(0) } else { None };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let stated = number(header.value).ok_or(Fault::Syntax)?;
            length = length.or(Some(stated));
        } else {
            answer.note(header.name.as_bytes(), header.value);
        }
    }
    if answer.status < 200 {
        return Err(Fault::Unasked);
    }
    let length = usize::try_from(length.ok_or(Fault::Unbounded)?).map_err(|_| Fault::TooLarge)?;
    if length > BODY_BYTES_MAX {
        return Err(Fault::TooLarge);
    }
    match bytes.get(head_bytes..head_bytes + length) {
        Some(body) => Ok(Parsed::Whole(Answer { body, ..answer }, head_bytes + length)),
        None => Ok(Parsed::More),
    }
}

/// The answer that nearly every request gets, read line by line without a table of headers.
fn no_content(bytes: &[u8]) -> Result<Parsed<'_>, Fault> {
    let mut answer = Answer { status: 204, ..Answer::default() };
    let mut line_start = 0;
    let mut first = true;
    for line_end in memchr::memchr_iter(b'\n', bytes) {
        let line = bytes[line_start..line_end].strip_suffix(b"\r").ok_or(Fault::Syntax)?;
        line_start = line_end + 1;
        if line.is_empty() {
            return Ok(Parsed::Whole(answer, line_start));
        }
        // Only names that `note` knows begin with these letters, so the others need no look for their colon.
        if !first && matches!(line[0] | 0x20, b'e' | b'c' | b'r') {
            let colon = memchr::memchr(b':', line).ok_or(Fault::Syntax)?;
            answer.note(&line[..colon], line[colon + 1..].trim_ascii());
        }
        first = false;
    }
    if bytes.len() > HEAD_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(Parsed::More) }
}

impl Answer<'_> {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"eddyline-offset") {
            self.offset = number(value);
        } else if name.eq_ignore_ascii_case(b"eddyline-duplicate") {
            self.duplicate = true;
        } else if name.eq_ignore_ascii_case(b"retry-after") {
            self.retry_after_s = number(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.close |= value.eq_ignore_ascii_case(b"close");
        }
    }
}

/// A number of digits only.
fn number(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [(&str, Answer<'static>); 6] = [
        ("HTTP/1.1 204 No Content\r\nEddyline-Offset: 71\r\n\r\n", answer(204, Some(71), "")),
        (
            "HTTP/1.1 204 \r\nDate: x\r\neddyline-offset:0\r\nEDDYLINE-DUPLICATE: true\r\nConnection: Close\r\n\r\n",
            Answer { duplicate: true, close: true, ..answer(204, Some(0), "") },
        ),
        ("HTTP/1.0 204 No Content\r\n\r\n", Answer { close: true, ..answer(204, None, "") }),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", answer(200, None, "{}")),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nEddyline-Offset: 5\r\n\r\n", answer(200, Some(5), "")),
        (
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nbusy",
            Answer { retry_after_s: Some(2), ..answer(503, None, "busy") },
        ),
    ];

    const fn answer(status: u16, offset: Option<u64>, body: &'static str) -> Answer<'static> {
        Answer { status, offset, duplicate: false, retry_after_s: None, close: false, body: body.as_bytes() }
    }

    #[test]
    fn every_answer_is_found_whole_and_only_when_whole() {
        for (text, expected) in SAMPLES {
            let followed = format!("{text}HTTP/1.1 204");
            match parse(followed.as_bytes()) {
                Ok(Parsed::Whole(found, used)) => {
                    assert_eq!((found, used), (expected, text.len()), "{text:?}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
            for split in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..split]), Ok(Parsed::More), "{text:?} cut at {split}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_a_fault() {
        let long = format!("HTTP/1.1 204 No Content\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        for (text, fault) in [
            ("SSH-2.0-OpenSSH\r\n", Fault::Syntax),
            ("HTTP/1.1 200 OK\r\n\r\n", Fault::Unbounded),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Unbounded),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", Fault::TooLarge),
            ("HTTP/1.1 100 Continue\r\n\r\n", Fault::Unasked),
            ("HTTP/1.1 204 No Content\nx: y\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 204 No Content\r\nEddyline-Offset 4\r\n\r\n", Fault::Syntax),
            (&long, Fault::TooLarge),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(fault), "{text:?}");
        }
    }
}
