//! Bodies whose length is not known when their head is written: live reads, long answers.
//!
//! A piece is rendered right where it is sent from, and its size filled in afterwards, so nothing is copied.

use super::reply::ReplyTo;

/// How to write a body piece by piece, after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    coding: Coding,
    keep_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// The bytes as they are, until the length that the head told, or the end of the connection.
    Plain,
    /// The answer to HEAD.
    Nothing,
}

/// Where in the buffer the piece of a body begins that is being written.
#[derive(Debug)]
#[must_use = "a piece that was begun must be ended"]
pub struct Mark {
    at: usize,
}

impl Stream {
    /// Digits of a chunk's size; leading zeros are allowed, and let the size be filled in afterwards.
    const SIZE_DIGITS: usize = 8;

    /// The body of an answer to such a request. HTTP/1.0 has no chunks: there the end of the connection ends the body.
    pub(super) fn new(to: ReplyTo) -> Self {
        let coding = match to {
            ReplyTo { head_only: true, .. } => Coding::Nothing,
            ReplyTo { minor_version: 0, .. } => Coding::Plain,
            _ => Coding::Chunked,
        };
        Self { coding, keep_alive: to.keep_alive && to.minor_version == 1 }
    }

    /// The body of an answer whose head tells its length.
    pub(super) fn of_length(to: ReplyTo) -> Self {
        let coding = if to.head_only { Coding::Nothing } else { Coding::Plain };
        Self { coding, keep_alive: to.keep_alive }
    }

    /// The connection goes on after this body.
    pub fn keep_alive(self) -> bool {
        self.keep_alive
    }

    /// Something must be written at all: not so for HEAD.
    pub fn has_body(self) -> bool {
        self.coding != Coding::Nothing
    }

    /// Begins a piece, which is then appended to `out`.
    pub fn begin(self, out: &mut Vec<u8>) -> Mark {
        let at = out.len();
        if self.coding == Coding::Chunked {
            out.extend_from_slice(b"00000000\r\n");
        }
        Mark { at }
    }

    /// Ends the piece. An empty one leaves nothing behind: an empty chunk would end the body.
    #[expect(clippy::needless_pass_by_value, reason = "a mark is good for one piece")]
    pub fn end(self, out: &mut Vec<u8>, mark: Mark) {
        let at = mark.at;
        match self.coding {
            Coding::Plain => {}
            Coding::Nothing => out.truncate(at),
            Coding::Chunked => {
                let data_at = at + Self::SIZE_DIGITS + 2;
                let bytes = out.len() - data_at;
                assert!(u32::try_from(bytes).is_ok(), "a chunk of {bytes} bytes");
                if bytes == 0 {
                    out.truncate(at);
                    return;
                }
                for (place, digit) in out[at..at + Self::SIZE_DIGITS].iter_mut().rev().enumerate() {
                    *digit = b"0123456789abcdef"[(bytes >> (4 * place)) & 15];
                }
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Writes a whole piece.
    pub fn write(self, out: &mut Vec<u8>, piece: &[u8]) {
        let mark = self.begin(out);
        out.extend_from_slice(piece);
        self.end(out, mark);
    }

    /// Ends the body.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.coding == Coding::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ChunkDecoder, DateClock, Reply};
    use super::*;

    const GET: ReplyTo = ReplyTo { minor_version: 1, head_only: false, keep_alive: true };
    const HEAD: ReplyTo = ReplyTo { head_only: true, ..GET };
    const OLD: ReplyTo = ReplyTo { minor_version: 0, ..GET };

    #[test]
    fn a_body_of_unknown_length_is_chunked_or_ends_with_the_connection() {
        let chunked = "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n";
        let pieces = "00000005\r\nhello\r\n0000000c\r\n, good world\r\n0\r\n\r\n";
        for (to, keep_alive, head, body) in [
            (GET, true, chunked.to_owned(), pieces),
            (GET.closing(), false, chunked.replace("Transfer", "Connection: close\r\nTransfer"), pieces),
            (HEAD, true, chunked.to_owned(), ""),
            (OLD, false, "Content-Type: text/csv\r\nConnection: close\r\n".to_owned(), "hello, good world"),
        ] {
            let mut out = Vec::new();
            let stream = Reply::new(&mut out, 200, to, &DateClock::new(0)).stream("text/csv");
            assert_eq!(stream.keep_alive(), keep_alive);
            assert_eq!(stream.has_body(), !to.head_only);
            stream.write(&mut out, b"hello");
            stream.write(&mut out, b"");
            let mark = stream.begin(&mut out);
            out.extend_from_slice(b", good ");
            out.extend_from_slice(b"world");
            stream.end(&mut out, mark);
            stream.finish(&mut out);
            let date = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
            assert_eq!(String::from_utf8(out), Ok(format!("HTTP/1.1 200 OK\r\n{date}{head}\r\n{body}")));
        }
    }

    #[test]
    fn chunks_are_what_our_own_decoder_reads() {
        let stream = Stream::new(GET);
        let (mut out, mut data) = (Vec::new(), Vec::new());
        for bytes in [1, 15, 16, 255, 70_000] {
            stream.write(&mut out, &vec![b'x'; bytes]);
        }
        stream.finish(&mut out);
        let progress = ChunkDecoder::default().feed(&out, &mut data, usize::MAX).expect("well framed");
        assert_eq!((progress.used, progress.done, data.len()), (out.len(), true, 70_287));
    }
}
