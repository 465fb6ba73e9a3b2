//! Says what is wrong with the bytes of a head: a strict walk, byte by byte, in the order in which they came.
//!
//! `head` parses with httparse, which is fast but lax in places and does not tell where it stopped. This walk is taken
//! only when something is amiss or missing, and it alone decides which fault is named. Because it reports the *first*
//! fault by position, a head gets the same answer however it was cut into pieces.

use super::fault::Fault;
use crate::limits::{HEADERS_MAX, TARGET_BYTES_MAX};

/// The first fault of a head that may not have come in full, from its request line to its empty line.
#[cold]
pub(super) fn first_fault(head: &[u8]) -> Option<Fault> {
    let mut walk = Walk { bytes: head };
    match walk.request_line().and_then(|()| walk.header_lines()) {
        Err(Stop::Fault(fault)) => Some(fault),
        Err(Stop::End) | Ok(()) => None,
    }
}

/// The name in one complete field line with its CRLF, or what is wrong with it.
pub(super) fn field_name(line: &[u8]) -> Result<&[u8], Fault> {
    let mut walk = Walk { bytes: line };
    let first = walk.next_byte();
    match first.and_then(|first| walk.field_line(first)) {
        Ok(name_bytes) => Ok(&line[..name_bytes]),
        Err(Stop::Fault(fault)) => Err(fault),
        Err(Stop::End) => Err(Fault::malformed("bad_header", "a field line ends too early")),
    }
}

/// A character of a token: method and field names (RFC 9110, 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte that a field value may hold: visible ASCII, space, tab, and the opaque upper half (RFC 9110, 5.5).
pub(super) fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Why the walk stopped.
enum Stop {
    /// The bytes ran out; nothing was wrong so far.
    End,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The bytes that were not walked yet.
struct Walk<'b> {
    bytes: &'b [u8],
}

impl Walk<'_> {
    fn next_byte(&mut self) -> Result<u8, Stop> {
        let (first, rest) = self.bytes.split_first().ok_or(Stop::End)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn request_line(&mut self) -> Result<(), Stop> {
        let mut method_bytes = 0;
        loop {
            match self.next_byte()? {
                b' ' if method_bytes > 0 => break,
                byte if is_token(byte) => method_bytes += 1,
                _ => {
                    return Err(malformed("bad_request_line", "the request line does not begin with a method"));
                }
            }
        }
        let mut target_bytes = 0;
        loop {
            match self.next_byte()? {
                b' ' if target_bytes > 0 => break,
                byte @ b'!'..=b'~' if byte != b'#' => target_bytes += 1,
                b'#' | 0x80.. => {
                    let detail = "the target holds a `#` or bytes that are not ASCII: percent-encode them";
                    return Err(malformed("bad_target", detail));
                }
                _ => {
                    return Err(malformed("bad_request_line", "the request line is not `method target version`"));
                }
            }
            if target_bytes > TARGET_BYTES_MAX {
                let detail = format!("the target is longer than {TARGET_BYTES_MAX} bytes");
                return Err(Fault::new(414, "target_too_long", detail).into());
            }
        }
        self.version()?;
        let byte = self.next_byte()?;
        self.line_end(byte, "bad_request_line")
    }

    /// Any version that is well formed, but not 1.0 or 1.1, is 505 as soon as the digit that makes it so is seen.
    fn version(&mut self) -> Result<(), Stop> {
        let unknown = || Fault::new(505, "unknown_version", "this is HTTP/1.1 (and 1.0)").into();
        let bad = || malformed("bad_request_line", "the request line does not end with a version");
        for expected in *b"HTTP/" {
            if self.next_byte()? != expected {
                return Err(bad());
            }
        }
        match self.next_byte()? {
            b'1' => {}
            b'0'..=b'9' => return Err(unknown()),
            _ => return Err(bad()),
        }
        if self.next_byte()? != b'.' {
            return Err(bad());
        }
        match self.next_byte()? {
            b'0' | b'1' => Ok(()),
            b'2'..=b'9' => Err(unknown()),
            _ => Err(bad()),
        }
    }

    fn header_lines(&mut self) -> Result<(), Stop> {
        let mut lines = 0;
        loop {
            match self.next_byte()? {
                byte @ (b'\r' | b'\n') => return self.line_end(byte, "bad_line_end"),
                _ if lines == HEADERS_MAX => {
                    let detail = format!("there are more than {HEADERS_MAX} header fields");
                    return Err(Fault::new(431, "too_many_headers", detail).into());
                }
                first => self.field_line(first)?,
            };
            lines += 1;
        }
    }

    /// Walks one line whose first byte was taken already; gives the length of its name.
    fn field_line(&mut self, first: u8) -> Result<usize, Stop> {
        let mut byte = first;
        let mut name_bytes = 0;
        while byte != b':' {
            if !is_token(byte) {
                let detail = match byte {
                    b' ' | b'\t' if name_bytes == 0 => "a header line begins with white space (folding is obsolete)",
                    b' ' | b'\t' => "white space before the colon of a header field",
                    b'\r' | b'\n' => "a header line has no colon",
                    _ => "the name of a header field holds a byte that is not allowed there",
                };
                return Err(malformed("bad_header", detail));
            }
            name_bytes += 1;
            byte = self.next_byte()?;
        }
        if name_bytes == 0 {
            return Err(malformed("bad_header", "a header field has no name"));
        }
        loop {
            match self.next_byte()? {
                byte @ (b'\r' | b'\n') => {
                    self.line_end(byte, "bad_line_end")?;
                    return Ok(name_bytes);
                }
                byte if is_value(byte) => {}
                _ => {
                    return Err(malformed("bad_header", "the value of a header field holds a control character"));
                }
            }
        }
    }

    /// Wants CRLF, of which the first byte was taken already.
    fn line_end(&mut self, first: u8, code: &'static str) -> Result<(), Stop> {
        match first {
            b'\r' if self.next_byte()? == b'\n' => Ok(()),
            b'\r' => Err(malformed("bad_line_end", "a CR without LF")),
            b'\n' => Err(malformed("bad_line_end", "a LF without CR")),
            _ => Err(malformed(code, "something follows the version")),
        }
    }
}

fn malformed(code: &'static str, detail: &'static str) -> Stop {
    Stop::Fault(Fault::malformed(code, detail))
}
