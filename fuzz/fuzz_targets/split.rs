//! Whatever a body holds, its events are what they are said to be, or there is a fault and nothing else.

#![no_main]

use eddyline::api::split::{Format, KeyPath, classify, split};
use eddyline::log::event::Encoding;
use libfuzzer_sys::fuzz_target;

const EVENT_BYTES_MAX: usize = 256;

/// One JSON value, by a parser that is not ours. It knows no limit of nesting, as it skips and does not build.
fn is_json(data: &[u8]) -> bool {
    str::from_utf8(data)
        .is_ok_and(|text| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok())
}

// The first byte chooses the format and whether there is a key path.
fuzz_target!(|input: &[u8]| {
    let Some((choice, body)) = input.split_first() else {
        return;
    };
    let format = match choice & 3 {
        0 => Format::Json,
        1 => Format::Lines { must_be_json: true },
        2 => Format::Lines {
            must_be_json: false,
        },
        _ => Format::Binary,
    };
    let path = KeyPath::parse("/a").expect("a pointer");
    let path = (choice & 4 != 0).then_some(&path);
    let mut pieces = Vec::new();
    if split(format, body, path, EVENT_BYTES_MAX, |piece| pieces.push(piece)).is_err() {
        return;
    }
    assert!(!pieces.is_empty());
    for piece in &pieces {
        assert!(piece.data.len() <= EVENT_BYTES_MAX);
        assert_eq!(piece.encoding, classify(piece.data));
        let is_one_line = !piece.data.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        if piece.encoding == Encoding::Json || choice & 3 < 2 {
            assert!(is_json(piece.data));
        }
        if piece.encoding == Encoding::Text && is_one_line && piece.data.len() < 120 {
            assert!(
                !is_json(piece.data),
                "short enough for any nesting that is allowed"
            );
        }
        assert_eq!(
            piece.encoding == Encoding::Bytes,
            str::from_utf8(piece.data).is_err()
        );
        assert!(path.is_none() || piece.key.is_some());
    }
});
