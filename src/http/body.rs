//! Chunked bodies: undoes the framing of `Transfer-Encoding: chunked` (RFC 9112, 7.1), piece by piece as bytes come.
//!
//! Bodies with a length need no decoder. What the bytes mean, and how long to wait for them, is not known here.

use super::fault::Fault;
use super::{name, syntax};
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, HEAD_BYTES_MAX};

/// A size has at most so many digits, so it always fits 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// What `ChunkDecoder::feed` got done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes taken from the input: all of it, unless the body ended within it.
    pub used: usize,
    /// The body is complete, trailers included.
    pub done: bool,
}

/// Decodes one chunked body. After a fault it must not be fed again.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Size of the chunk whose first line is being read; then what is still to come of its data.
    left: u64,
    /// Data bytes given out so far.
    decoded: usize,
    /// Bytes of the trailer section so far.
    trailer_bytes: usize,
    /// The trailer line that has not ended yet.
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension { bytes: usize },
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    EndLf,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0 }
    }
}

impl ChunkDecoder {
    /// Decodes what has come and appends the data to `out`. A body of more than `max` bytes is refused when the chunk
    /// that would pass it is announced; memory grows only with data that really came.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>, max: usize) -> Result<Progress, Fault> {
        let mut used = 0;
        while used < input.len() {
            match self.state {
                State::Done => break,
                State::Data => {
                    let piece = &input[used..];
                    let piece = &piece[..piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
                    out.extend_from_slice(piece);
                    used += piece.len();
                    self.left -= piece.len() as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                }
                _ => {
                    self.state = self.after(input[used], max)?;
                    used += 1;
                }
            }
        }
        Ok(Progress { used, done: self.state == State::Done })
    }

    /// Takes one byte of framing and gives the state after it.
    fn after(&mut self, byte: u8, max: usize) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(bad_chunk("the size of a chunk has too many digits"));
                }
                self.left = self.left << 4 | u64::from(hex_value(byte));
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. }, b';') => State::Extension { bytes: 1 },
            (State::Size { digits: 1.. } | State::Extension { .. }, b'\r') => State::SizeLf,
            (State::Size { .. }, _) => {
                return Err(bad_chunk("the size of a chunk is not a hexadecimal number"));
            }
            (State::Extension { bytes }, _) if syntax::is_value(byte) => {
                if bytes == CHUNK_EXTENSION_BYTES_MAX {
                    return Err(bad_chunk("the extensions of a chunk are too long"));
                }
                State::Extension { bytes: bytes + 1 }
            }
            (State::Extension { .. }, _) => {
                return Err(bad_chunk("an extension holds a control character"));
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => self.begin_data(max)?,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => State::Done,
            (State::SizeLf | State::DataCr | State::DataLf | State::EndLf, _) | (State::TrailerStart, b'\n') => {
                return Err(bad_chunk("a CRLF is missing"));
            }
            (State::TrailerStart | State::Trailer, _) => self.take_trailer(byte)?,
            // `feed` never asks for these.
            (State::Data | State::Done, _) => self.state,
        })
    }

    fn begin_data(&mut self, max: usize) -> Result<State, Fault> {
        let total = usize::try_from(self.left).ok().and_then(|size| self.decoded.checked_add(size));
        match total {
            Some(total) if total <= max => {
                self.decoded = total;
                Ok(State::Data)
            }
            _ => Err(Fault::new(413, "body_too_large", format!("the body is longer than {max} bytes"))),
        }
    }

    /// Trailers are checked and then dropped, so none is taken that a sender could mean something by: what frames,
    /// routes or describes the request belongs in its head (RFC 9110, 6.5.1).
    fn take_trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > HEAD_BYTES_MAX {
            return Err(Fault::new(
                431,
                "trailers_too_large",
                format!("the trailers are longer than {HEAD_BYTES_MAX} bytes"),
            ));
        }
        self.line.push(byte);
        if byte != b'\n' {
            return Ok(State::Trailer);
        }
        let field = syntax::field_name(&self.line)?;
        let forbidden = name::known(field).is_some()
            || name::meta(field).is_some()
            || [&b"trailer"[..], b"te", b"upgrade", b"cookie"].iter().any(|name| field.eq_ignore_ascii_case(name));
        if forbidden {
            return Err(Fault::malformed("bad_trailer", "a field in the trailers belongs in the head"));
        }
        self.line.clear();
        Ok(State::TrailerStart)
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cold]
fn bad_chunk(detail: &'static str) -> Fault {
    Fault::malformed("bad_chunk", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    /// Decodes `pieces` one after the other; gives the data, the bytes used and whether the body was complete.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize) -> Result<(Vec<u8>, usize, bool), Fault> {
        let (mut decoder, mut out, mut used, mut done) = (ChunkDecoder::default(), Vec::new(), 0, false);
        for piece in pieces {
            let progress = decoder.feed(piece, &mut out, max)?;
            used += progress.used;
            done = progress.done;
        }
        Ok((out, used, done))
    }

    /// Fault and status do not depend on the cut; how much was given out before a fault may.
    fn at_every_split(input: &[u8], max: usize) -> Result<(Vec<u8>, usize, bool), Fault> {
        let whole = decode([input], max);
        for cut in 0..=input.len() {
            let (first, second) = input.split_at(cut);
            assert_eq!(decode([first, second], max), whole, "cut at {cut}");
        }
        assert_eq!(decode(input.chunks(1), max), whole, "byte by byte");
        whole
    }

    #[test]
    fn bodies_are_decoded_whatever_the_cut() {
        for (input, data, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\n", b"hello", 0),
            (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", 0),
            (b"00000000000000a\r\n0123456789\r\n000\r\n\r\n", b"0123456789", 0),
            (b"A;name=\"value\";x\r\n0123456789\r\n0;end\r\n\r\n", b"0123456789", 0),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", 0),
            (b"1\r\nx\r\n0\r\nDigest: abc\r\nX-Sum:\r\n\r\n", b"x", 0),
            (b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n", b"x", 16),
        ] {
            let expected = (data.to_vec(), input.len() - left, true);
            assert_eq!(at_every_split(input, MAX), Ok(expected), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn an_unfinished_body_is_not_done() {
        let whole = b"5;x\r\nhello\r\n0\r\nDigest: abc\r\n\r\n";
        for cut in 0..whole.len() {
            let (_, used, done) = decode([&whole[..cut]], MAX).expect("a prefix of a good body is good");
            assert_eq!((used, done), (cut, false));
        }
    }

    #[test]
    fn what_is_malformed_is_refused_whatever_the_cut() {
        let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(CHUNK_EXTENSION_BYTES_MAX));
        let long_trailer = format!("0\r\nX: {}\r\n\r\n", "t".repeat(HEAD_BYTES_MAX));
        for (input, status, code) in [
            (&b"\r\n"[..], 400, "bad_chunk"),
            (b"x\r\n", 400, "bad_chunk"),
            (b"-1\r\n", 400, "bad_chunk"),
            (b"+1\r\nx\r\n", 400, "bad_chunk"),
            (b"0x1\r\nx\r\n", 400, "bad_chunk"),
            (b"1_0\r\n", 400, "bad_chunk"),
            (b" 1\r\nx\r\n", 400, "bad_chunk"),
            (b"1 \r\nx\r\n", 400, "bad_chunk"),
            (b"1 ;a\r\nx\r\n", 400, "bad_chunk"),
            (b";a\r\n", 400, "bad_chunk"),
            (b"00000000000000001\r\nx\r\n", 400, "bad_chunk"),
            (b"1\nx\r\n0\r\n\r\n", 400, "bad_chunk"),
            (b"1\rx", 400, "bad_chunk"),
            (b"1;a\nx\r\n", 400, "bad_chunk"),
            (b"1;a\rb\r\nx\r\n", 400, "bad_chunk"),
            (b"1;a\0\r\nx\r\n", 400, "bad_chunk"),
            (b"1\r\nx\n0\r\n\r\n", 400, "bad_chunk"),
            (b"1\r\nxy\r\n0\r\n\r\n", 400, "bad_chunk"),
            (b"1\r\nx0\r\n\r\n", 400, "bad_chunk"),
            (b"0\r\n\n", 400, "bad_chunk"),
            (b"0\r\n\rX", 400, "bad_chunk"),
            (b"0\r\nA: b\n\r\n", 400, "bad_line_end"),
            (b"0\r\nA: b\rc\r\n\r\n", 400, "bad_line_end"),
            (b"0\r\nA : b\r\n\r\n", 400, "bad_header"),
            (b"0\r\n A: b\r\n\r\n", 400, "bad_header"),
            (b"0\r\nno colon\r\n\r\n", 400, "bad_header"),
            (b"0\r\nContent-Length: 5\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nTRANSFER-ENCODING: chunked\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nHost: a\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nA: b\r\nHost: a\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nA: b\r\nno colon\r\n\r\n", 400, "bad_header"),
            (b"0\r\nTrailer: a\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nAuthorization: a\r\n\r\n", 400, "bad_trailer"),
            (b"0\r\nEddyline-Meta-a: b\r\n\r\n", 400, "bad_trailer"),
            (b"ffffffffffffffff\r\n", 413, "body_too_large"),
            (b"100001\r\n", 413, "body_too_large"),
            (long_extension.as_bytes(), 400, "bad_chunk"),
        ] {
            let fault = at_every_split(input, MAX).expect_err("refused");
            assert_eq!((fault.status, fault.code), (status, code), "{}", input.escape_ascii());
        }
        let fault = decode([long_trailer.as_bytes()], MAX).expect_err("refused");
        assert_eq!((fault.status, fault.code), (431, "trailers_too_large"));
    }

    #[test]
    fn the_limit_counts_data_and_not_framing() {
        let input = b"3;extension\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(at_every_split(input, 5), Ok((b"abcde".to_vec(), input.len(), true)));
        let fault = at_every_split(input, 4).expect_err("refused");
        assert_eq!((fault.status, fault.code), (413, "body_too_large"));
        let longest = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(CHUNK_EXTENSION_BYTES_MAX - 1));
        assert_eq!(at_every_split(longest.as_bytes(), 1), Ok((b"x".to_vec(), longest.len(), true)));
    }

    #[test]
    fn an_announced_size_reserves_nothing() {
        let mut out = Vec::new();
        let progress = ChunkDecoder::default().feed(b"fffffff\r\nab", &mut out, usize::MAX);
        assert_eq!(progress, Ok(Progress { used: 11, done: false }));
        assert!(out.capacity() < 64, "{}", out.capacity());
    }

    proptest! {
        #[test]
        fn random_pieces_of_random_chunks_give_the_data_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]);
            prop_assert_eq!(decode(pieces, MAX), Ok((chunks.concat(), input.len(), true)));
        }

        #[test]
        fn noise_of_framing_bytes_is_decoded_alike_at_every_split(
            noise in prop::collection::vec(prop::sample::select(&b"\r\n\r\n0012aF;: xX"[..]), 0..40),
        ) {
            let _ = at_every_split(&noise, 8);
        }
    }
}
