//! However a chunked body is cut, it is decoded alike, and never beyond its limit.

#![no_main]

use eddyline::http::{ChunkDecoder, Fault};
use libfuzzer_sys::fuzz_target;

const MAX: usize = 64;

/// The data, the bytes used, and whether the body was complete.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<u8>, usize, bool), Fault> {
    let (mut decoder, mut out, mut used, mut done) =
        (ChunkDecoder::default(), Vec::new(), 0, false);
    for piece in pieces {
        let progress = decoder.feed(piece, &mut out, MAX)?;
        assert!(
            progress.done || progress.used == piece.len(),
            "bytes are left only after the end"
        );
        assert!(out.len() <= MAX);
        used += progress.used;
        done = progress.done;
    }
    Ok((out, used, done))
}

// The first byte says how long the pieces are that the rest comes in.
fuzz_target!(|input: &[u8]| {
    let Some((size, body)) = input.split_first() else {
        return;
    };
    let whole = decode([body].into_iter());
    assert_eq!(decode(body.chunks(1 + usize::from(*size))), whole);
    assert_eq!(decode(body.chunks(1)), whole);
});
