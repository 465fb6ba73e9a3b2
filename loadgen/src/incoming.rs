//! Answers of any length, with a stated length or in chunks (RFC 9112, 6 and 7.1): takes bytes as they come, gives whole
//! answers in order.

use crate::answer::Fault;

/// Longest head that is waited for.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest body that is kept: several times the most that a consumer may ask for.
const BODY_BYTES_MAX: usize = 256 << 20;

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// HTTP status.
    pub status: u16,
    /// Whether the server will close the connection after it.
    pub close: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// What has come of an answer so far.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Received, and not looked at yet.
    bytes: Vec<u8>,
    begun: Option<(Whole, Rest)>,
}

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Bytes(usize),
    /// A chunk's length is next.
    ChunkHead,
    /// So many bytes of a chunk, the line end behind them included.
    Chunk(usize),
    Trailers,
}

impl Incoming {
    /// Takes what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The status of the answer that has begun.
    pub fn status(&self) -> Option<u16> {
        self.begun.as_ref().map(|(whole, _)| whole.status)
    }

    /// The next whole answer, if it is all there.
    ///
    /// # Errors
    /// When the bytes are no answer that can be read.
    pub fn take(&mut self) -> Result<Option<Whole>, Fault> {
        let mut used = 0;
        if self.begun.is_none() {
            let Some((whole, rest, head_bytes)) = head(&self.bytes)? else { return Ok(None) };
            self.begun = Some((whole, rest));
            used = head_bytes;
        }
        let (whole, rest) = self.begun.as_mut().expect("it was just begun");
        let done = body(&self.bytes, &mut used, whole, rest)?;
        self.bytes.drain(..used);
        Ok(if done { self.begun.take().map(|(whole, _)| whole) } else { None })
    }

    /// Forgets the body that has come so far, of an answer that has no end; says how long it was.
    pub fn forget_body(&mut self) -> usize {
        self.begun.as_mut().map_or(0, |(whole, _)| whole.body.drain(..).len())
    }
}

fn head(bytes: &[u8]) -> Result<Option<(Whole, Rest, usize)>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        Err(_) => return Err(Fault::Syntax),
    };
    let status = response.code.ok_or(Fault::Syntax)?;
    let field = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let close =
        response.version == Some(0) || field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let rest = match (status, field("transfer-encoding"), field("content-length")) {
        (204 | 304, ..) => Rest::Bytes(0),
        (_, Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Rest::ChunkHead,
        (_, None, Some(length)) => Rest::Bytes(length.trim().parse().map_err(|_| Fault::Syntax)?),
        _ => return Err(Fault::Unbounded),
    };
    Ok(Some((Whole { status, close, body: Vec::new() }, rest, used)))
}

/// Moves what is there of a body into the answer; true at its end.
fn body(bytes: &[u8], used: &mut usize, whole: &mut Whole, rest: &mut Rest) -> Result<bool, Fault> {
    loop {
        let left = &bytes[*used..];
        if whole.body.len() > BODY_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        match rest {
            Rest::Bytes(length) => {
                let part = left.len().min(*length);
                whole.body.extend_from_slice(&left[..part]);
                (*used, *length) = (*used + part, *length - part);
                return Ok(*length == 0);
            }
            Rest::Chunk(length) => {
                let part = left.len().min(*length);
                let of_body = part.min(length.saturating_sub(2));
                whole.body.extend_from_slice(&left[..of_body]);
                (*used, *length) = (*used + part, *length - part);
                if *length > 0 {
                    return Ok(false);
                }
                *rest = Rest::ChunkHead;
            }
            Rest::ChunkHead => {
                let Some((line, next)) = line(left)? else { return Ok(false) };
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let digits = std::str::from_utf8(digits).map_err(|_| Fault::Syntax)?;
                let length = usize::from_str_radix(digits.trim(), 16).map_err(|_| Fault::Syntax)?;
                *used += next;
                *rest = if length == 0 { Rest::Trailers } else { Rest::Chunk(length + 2) };
            }
            Rest::Trailers => {
                let Some((line, next)) = line(left)? else { return Ok(false) };
                let end = line.is_empty();
                *used += next;
                if end {
                    return Ok(true);
                }
            }
        }
    }
}

/// The line at the front, without its end, and how many bytes it took.
fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Fault> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => Ok(Some((bytes[..end].strip_suffix(b"\r").ok_or(Fault::Syntax)?, end + 1))),
        None if bytes.len() > HEAD_BYTES_MAX => Err(Fault::TooLarge),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 503 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn answers_come_out_the_same_wherever_what_was_received_is_cut() {
        let expected = [(200, "hello", false), (200, "foo0123456789", false), (204, "", false), (503, "", true)];
        for piece in [1, 2, 3, 7, 50, ANSWERS.len()] {
            let mut incoming = Incoming::default();
            let mut answers = Vec::new();
            for bytes in ANSWERS.chunks(piece) {
                incoming.push(bytes);
                while let Some(whole) = incoming.take().unwrap() {
                    answers.push((whole.status, String::from_utf8(whole.body).unwrap(), whole.close));
                }
            }
            let seen: Vec<_> = answers.iter().map(|(status, body, close)| (*status, body.as_str(), *close)).collect();
            assert_eq!(seen, expected, "{piece}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bytes in [
            &b"HTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        ] {
            let mut incoming = Incoming::default();
            incoming.push(bytes);
            assert!(incoming.take().is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
