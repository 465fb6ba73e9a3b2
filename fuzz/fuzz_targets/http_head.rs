//! However the bytes of a head are cut, the result is that of the whole.

#![no_main]

use eddyline::http::{Known, parse_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let whole = parse_head(input);
    for cut in 0..input.len() {
        let early = parse_head(&input[..cut]);
        match &whole {
            Ok(Some((_, used))) if cut >= *used => assert_eq!(early, whole, "cut at {cut}"),
            Err(_) if early.is_err() => assert_eq!(early, whole, "cut at {cut}"),
            _ => assert_eq!(early, Ok(None), "cut at {cut}"),
        }
    }
    let Ok(Some((head, used))) = whole else {
        return;
    };
    let bytes = &input[..used];
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert_eq!(
        lines,
        bytes.windows(2).filter(|pair| pair == b"\r\n").count(),
        "a LF without CR"
    );
    assert_eq!(
        lines,
        bytes.iter().filter(|byte| **byte == b'\r').count(),
        "a CR without LF"
    );
    assert!(head.path.starts_with('/') || head.path == "*");
    assert!(head.get(Known::Host).is_some_and(|host| !host.is_empty()));
    assert!(
        head.meta()
            .all(|(name, value)| !name.is_empty() && !value.contains(&b'\r'))
    );
});
