//! The browser producer, as pages import it: one module, part of the program, so it always fits this broker.
//!
//! A page may keep it for an hour and then asks whether it is still the same. Which pages may load it is a matter of
//! `http.cors`, as for every answer; it holds no secret and needs no token.

use super::exchange::Exchange;
use crate::http::{Head, Known};
use std::sync::OnceLock;

const MODULE: &[u8] = include_bytes!("../../producer-web/src/producer.js");

/// Answers `/producer.js`.
pub fn module(head: &Head<'_>, exchange: &mut Exchange) {
    let known = head.get(Known::IfNoneMatch).is_some_and(|tags| names(tags, entity_tag().as_bytes()));
    let reply = exchange
        .reply(if known { 304 } else { 200 })
        .header("ETag", entity_tag())
        .header("Cache-Control", "public, max-age=3600")
        .header("X-Content-Type-Options", "nosniff");
    // A copy that was fetched without an origin must not answer a page of another one from a cache.
    let reply = if head.get(Known::Origin).is_none() { reply.header("Vary", "Origin") } else { reply };
    match known {
        true => reply.empty(),
        false => reply.body("text/javascript; charset=utf-8", MODULE),
    }
}

/// Changes when the module does.
fn entity_tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| format!("\"{:08x}-{:x}\"", crc32fast::hash(MODULE), MODULE.len()))
}

/// Whether `If-None-Match` names the tag. The comparison is the weak one (RFC 9110, 13.1.2).
fn names(tags: &[u8], tag: &[u8]) -> bool {
    tags.split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .any(|one| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_of_tags() {
        for (tags, expected) in [
            (&b"\"a\""[..], true),
            (b"W/\"a\"", true),
            (b"\"b\" , \"a\"", true),
            (b"*", true),
            (b"\"b\"", false),
            (b"a", false),
            (b"", false),
        ] {
            assert_eq!(names(tags, b"\"a\""), expected, "{}", String::from_utf8_lossy(tags));
        }
    }
}
