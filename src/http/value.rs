//! What the values of the fields may look like that frame and route a request.
//!
//! `head` decides what follows from them.

use std::net::Ipv6Addr;

use super::fault::Fault;
use super::syntax;

/// Tells codings that nobody here knows (501) from a list that is not one (400).
#[cold]
pub(super) fn refused_coding(value: &[u8]) -> Fault {
    let codings = || value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let all_tokens = codings().all(|coding| !coding.is_empty() && coding.iter().all(|&byte| syntax::is_token(byte)));
    if all_tokens && codings().any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        Fault::new(501, "unknown_transfer_coding", "the only transfer coding known is `chunked`")
    } else {
        Fault::malformed("bad_transfer_encoding", "Transfer-Encoding is not exactly `chunked`")
    }
}

/// `1*DIGIT` that fits 64 bits, and nothing around it.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A name, an IPv4 address or a bracketed IPv6 address, with an optional port. Narrower than RFC 3986, whose registered
/// names may hold signs that no real host has and that others might split at.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = if let [b'[', rest @ ..] = host {
        let Some(end) = memchr::memchr(b']', rest) else {
            return false;
        };
        let address = str::from_utf8(&rest[..end]).ok().and_then(|address| address.parse::<Ipv6Addr>().ok());
        if address.is_none() {
            return false;
        }
        (&rest[..end], &rest[end + 1..])
    } else {
        let end = memchr::memchr(b':', host).unwrap_or(host.len());
        let (name, port) = host.split_at(end);
        if !name.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
            return false;
        }
        (name, port)
    };
    !name.is_empty()
        && match port {
            [] | [b':'] => true,
            [b':', digits @ ..] => decimal(digits).is_some_and(|port| port <= u16::MAX.into()),
            _ => false,
        }
}
