//! Writes replies into a buffer: status line, header fields, then a body, chunks, or nothing.
//!
//! The buffer's growth is the only allocation. When to send it, and what time it is, is the server's to know.

use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::name::META_PREFIX;
use super::stream::Stream;
use super::syntax;

/// The interim answer to a client that waits before it sends its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The last second that an HTTP date can tell: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// What an answer must know about the request that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// 0 or 1, of HTTP/1.x.
    pub minor_version: u8,
    /// A HEAD request: the header fields of what a GET would get, and nothing after them.
    pub head_only: bool,
    /// The connection goes on after this answer.
    pub keep_alive: bool,
}

impl ReplyTo {
    /// For a request whose head could not be read.
    pub const UNREADABLE: Self = Self { minor_version: 1, head_only: false, keep_alive: false };

    /// The same, but the connection ends after this answer.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }
}

/// The `Date` field, rendered at most once a second.
#[derive(Debug, Clone)]
pub struct DateClock {
    second: u64,
    line: [u8; Self::BYTES],
}

impl DateClock {
    const BYTES: usize = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".len();

    /// Shows the given second since 1970, UTC.
    pub fn new(unix_seconds: u64) -> Self {
        let second = unix_seconds.min(LAST_SECOND);
        let mut line = [b' '; Self::BYTES];
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        let written = write!(&mut line[..], "Date: {date}\r\n");
        debug_assert!(written.is_ok(), "every HTTP date has the same length");
        Self { second, line }
    }

    /// Moves on to the given second; costs nothing within the same one.
    pub fn set(&mut self, unix_seconds: u64) {
        if self.second != unix_seconds.min(LAST_SECOND) {
            *self = Self::new(unix_seconds);
        }
    }
}

/// A reply that is being written: its header fields, until one of the last four methods ends them.
#[derive(Debug)]
#[must_use = "a reply without its end is no reply"]
pub struct Reply<'o> {
    out: &'o mut Vec<u8>,
    status: u16,
    to: ReplyTo,
}

impl<'o> Reply<'o> {
    /// Begins a reply with its status line and the date. A status has three digits.
    pub fn new(out: &'o mut Vec<u8>, status: u16, to: ReplyTo, clock: &DateClock) -> Self {
        debug_assert!((200..=599).contains(&status), "{status} is a final status");
        match status_line(status) {
            Some(line) => out.extend_from_slice(line.as_bytes()),
            None => {
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
                // The reason may be empty, the space before it not.
                out.extend_from_slice(b" \r\n");
            }
        }
        out.extend_from_slice(&clock.line);
        Self { out, status, to }
    }

    /// Adds a header field. Control characters in the value become spaces, so no value can begin another field.
    pub fn header(self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        debug_assert!(!name.is_empty() && name.bytes().all(syntax::is_token), "{name} is a token");
        self.out.extend_from_slice(name.as_bytes());
        self.value(value.as_ref())
    }

    /// Adds a header field whose value is a number.
    pub fn number(self, name: &'static str, value: u64) -> Self {
        for piece in [name, ": ", itoa::Buffer::new().format(value), "\r\n"] {
            self.out.extend_from_slice(piece.as_bytes());
        }
        self
    }

    /// Adds an `Eddyline-Meta-*` field of an event. Bytes that no name may hold become `-`.
    pub fn meta(self, name: &str, value: &[u8]) -> Self {
        self.out.extend_from_slice(META_PREFIX.as_bytes());
        self.out.extend(name.bytes().map(|byte| if syntax::is_token(byte) { byte } else { b'-' }));
        self.value(value)
    }

    /// Ends a reply that has no body.
    pub fn empty(self) {
        // 204 and 304 have no body by definition; any other status must say that there is none.
        let length: &[u8] = if matches!(self.status, 204 | 304) { b"" } else { b"Content-Length: 0\r\n" };
        let keep_alive = self.to.keep_alive;
        self.end(keep_alive, length);
    }

    /// Ends a reply with its body.
    pub fn body(self, content_type: impl AsRef<[u8]>, body: &[u8]) {
        let head_only = self.to.head_only;
        let out = self.header("Content-Type", content_type).length(body.len() as u64);
        if !head_only {
            out.extend_from_slice(body);
        }
    }

    /// Ends the head of a reply whose body of that many bytes the caller sends, unless it answers a HEAD request. The
    /// content type is the caller's, too.
    pub fn length(self, bytes: u64) -> &'o mut Vec<u8> {
        debug_assert!(!matches!(self.status, 204 | 304), "{} has no body", self.status);
        let keep_alive = self.to.keep_alive;
        self.number("Content-Length", bytes).end(keep_alive, b"")
    }

    /// Ends the head of a reply whose length is not known yet, and says how to write its body.
    pub fn stream(self, content_type: impl AsRef<[u8]>) -> Stream {
        debug_assert!(!matches!(self.status, 204 | 304), "{} has no body", self.status);
        let chunked = self.to.minor_version == 1;
        let framing: &[u8] = if chunked { b"Transfer-Encoding: chunked\r\n" } else { b"" };
        let stream = Stream::new(self.to);
        self.header("Content-Type", content_type).end(stream.keep_alive(), framing);
        stream
    }

    /// Ends the head of a reply whose body has that many bytes and is written piece by piece.
    pub fn stream_of(self, content_type: impl AsRef<[u8]>, bytes: u64) -> Stream {
        let stream = Stream::of_length(self.to);
        self.header("Content-Type", content_type).length(bytes);
        stream
    }

    /// Writes the fields that frame the body, and the empty line.
    fn end(self, keep_alive: bool, framing: &[u8]) -> &'o mut Vec<u8> {
        let Self { out, to, .. } = self;
        match (to.minor_version, keep_alive) {
            (1.., true) => {}
            (0, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (_, false) => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(framing);
        out.extend_from_slice(b"\r\n");
        out
    }

    fn value(self, value: &[u8]) -> Self {
        self.out.extend_from_slice(b": ");
        let start = self.out.len();
        self.out.extend_from_slice(value);
        for byte in &mut self.out[start..] {
            if !syntax::is_value(*byte) {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }
}

/// The status line of every status that the broker gives.
fn status_line(status: u16) -> Option<&'static str> {
    macro_rules! lines {
        ($($status:literal $reason:literal)*) => {
            match status {
                $($status => concat!("HTTP/1.1 ", $status, " ", $reason, "\r\n"),)*
                _ => return None,
            }
        };
    }
    Some(lines! {
        200 "OK"
        201 "Created"
        202 "Accepted"
        204 "No Content"
        206 "Partial Content"
        302 "Found"
        304 "Not Modified"
        400 "Bad Request"
        401 "Unauthorized"
        403 "Forbidden"
        404 "Not Found"
        405 "Method Not Allowed"
        406 "Not Acceptable"
        408 "Request Timeout"
        409 "Conflict"
        410 "Gone"
        411 "Length Required"
        412 "Precondition Failed"
        413 "Content Too Large"
        414 "URI Too Long"
        415 "Unsupported Media Type"
        416 "Range Not Satisfiable"
        417 "Expectation Failed"
        421 "Misdirected Request"
        422 "Unprocessable Content"
        429 "Too Many Requests"
        431 "Request Header Fields Too Large"
        500 "Internal Server Error"
        501 "Not Implemented"
        503 "Service Unavailable"
        505 "HTTP Version Not Supported"
        507 "Insufficient Storage"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: ReplyTo = ReplyTo { minor_version: 1, head_only: false, keep_alive: true };
    const HEAD: ReplyTo = ReplyTo { head_only: true, ..GET };
    const OLD: ReplyTo = ReplyTo { minor_version: 0, ..GET };

    /// What `write` writes for a request of that kind, with the date line left out.
    fn written(status: u16, to: ReplyTo, write: impl FnOnce(Reply<'_>)) -> String {
        let mut out = Vec::new();
        write(Reply::new(&mut out, status, to, &DateClock::new(784_111_777)));
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{text}");
        text.replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
    }

    #[test]
    fn replies_are_framed_by_status_method_and_version() {
        let empty = |reply: Reply<'_>| reply.empty();
        let body = |reply: Reply<'_>| reply.body("text/plain", b"hello");
        let offset = |reply: Reply<'_>| reply.number("Eddyline-Offset", 7).empty();
        for (status, to, write, expected) in [
            (204, GET, &empty as &dyn Fn(Reply<'_>), "HTTP/1.1 204 No Content\r\n\r\n"),
            (304, GET, &empty, "HTTP/1.1 304 Not Modified\r\n\r\n"),
            (200, GET, &empty, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            (299, GET, &empty, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"),
            (204, GET, &offset, "HTTP/1.1 204 No Content\r\nEddyline-Offset: 7\r\n\r\n"),
            (204, OLD, &empty, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"),
            (204, OLD.closing(), &empty, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"),
            (
                400,
                ReplyTo::UNREADABLE,
                &body,
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            ),
            (200, GET, &body, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"),
            (200, HEAD, &body, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"),
        ] {
            assert_eq!(written(status, to, write), expected);
        }
    }

    #[test]
    fn every_prepared_status_line_is_a_status_line() {
        for status in 200..600 {
            let Some(line) = status_line(status) else {
                continue;
            };
            let reason = line.strip_prefix(&format!("HTTP/1.1 {status} ")).and_then(|rest| rest.strip_suffix("\r\n"));
            assert!(reason.is_some_and(|reason| !reason.is_empty()), "{line}");
        }
    }

    #[test]
    fn no_value_begins_another_field() {
        for (value, expected) in [
            (&b"plain value"[..], "plain value"),
            (b"a\r\nSet-Cookie: x", "a  Set-Cookie: x"),
            (b"a\nb\0c\x7fd\te", "a b c d\te"),
            ("caf\u{e9}".as_bytes(), "caf\u{e9}"),
        ] {
            let text = written(204, GET, |reply| reply.header("X", value).empty());
            assert_eq!(text, format!("HTTP/1.1 204 No Content\r\nX: {expected}\r\n\r\n"));
        }
        let text = written(204, GET, |reply| {
            reply.meta("a: b\r\nc\u{e9}", b"v\r\nw").empty();
        });
        assert_eq!(text, "HTTP/1.1 204 No Content\r\nEddyline-Meta-a--b--c--: v  w\r\n\r\n");
    }

    #[test]
    fn the_date_moves_with_the_second_and_never_fails() {
        let mut clock = DateClock::new(0);
        assert_eq!(&clock.line, b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        clock.set(1_763_921_472);
        assert_eq!(&clock.line, b"Date: Sun, 23 Nov 2025 18:11:12 GMT\r\n");
        clock.set(u64::MAX);
        assert_eq!(&clock.line, b"Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
        let before = clock.clone().line;
        clock.set(u64::MAX);
        assert_eq!(clock.line, before);
    }
}
