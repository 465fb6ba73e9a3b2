//! The header fields that the broker knows, found by their names in any case.
//!
//! What their values mean is told in `head` for those that frame a request, and in `api` for all others.

/// A header field that some part of the broker reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the header of that name; `name` spells it")]
pub enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    ContentType,
    ContentEncoding,
    Accept,
    Origin,
    Prefer,
    Authorization,
    UserAgent,
    ProducerId,
    ProducerEpoch,
    ProducerSeq,
    ExpectOffset,
    Key,
    LastEventId,
    IfNoneMatch,
    AccessControlRequestMethod,
    AccessControlRequestHeaders,
}

/// Every known field with its name as we write it, in the order of the enum.
const NAMES: [(Known, &str); Known::COUNT] = [
    (Known::Host, "Host"),
    (Known::ContentLength, "Content-Length"),
    (Known::TransferEncoding, "Transfer-Encoding"),
    (Known::Connection, "Connection"),
    (Known::Expect, "Expect"),
    (Known::ContentType, "Content-Type"),
    (Known::ContentEncoding, "Content-Encoding"),
    (Known::Accept, "Accept"),
    (Known::Origin, "Origin"),
    (Known::Prefer, "Prefer"),
    (Known::Authorization, "Authorization"),
    (Known::UserAgent, "User-Agent"),
    (Known::ProducerId, "Producer-Id"),
    (Known::ProducerEpoch, "Producer-Epoch"),
    (Known::ProducerSeq, "Producer-Seq"),
    (Known::ExpectOffset, "Eddyline-Expect-Offset"),
    (Known::Key, "Eddyline-Key"),
    (Known::LastEventId, "Last-Event-ID"),
    (Known::IfNoneMatch, "If-None-Match"),
    (Known::AccessControlRequestMethod, "Access-Control-Request-Method"),
    (Known::AccessControlRequestHeaders, "Access-Control-Request-Headers"),
];

/// What the name of a header begins with that travels with an event.
pub const META_PREFIX: &str = "Eddyline-Meta-";

impl Known {
    /// How many there are: the size of a table indexed by `self as usize`.
    pub(super) const COUNT: usize = Self::AccessControlRequestHeaders as usize + 1;

    /// The name as it is usually written.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// May stand in a request once only; the others are lists, or do not matter to us.
    pub(super) fn is_single(self) -> bool {
        !matches!(
            self,
            Self::Connection
                | Self::Expect
                | Self::ContentEncoding
                | Self::Accept
                | Self::Prefer
                | Self::UserAgent
                | Self::IfNoneMatch
                | Self::AccessControlRequestHeaders
        )
    }
}

/// Finds the known field of that name. `name` must be a token, as every parsed header name is.
pub(super) fn known(name: &[u8]) -> Option<Known> {
    // The length leaves at most three candidates, each of them one comparison without a branch inside.
    Some(match name.len() {
        4 if is(name, b"host") => Known::Host,
        6 if is(name, b"accept") => Known::Accept,
        6 if is(name, b"prefer") => Known::Prefer,
        6 if is(name, b"origin") => Known::Origin,
        6 if is(name, b"expect") => Known::Expect,
        10 if is(name, b"connection") => Known::Connection,
        10 if is(name, b"user-agent") => Known::UserAgent,
        11 if is(name, b"producer-id") => Known::ProducerId,
        12 if is(name, b"content-type") => Known::ContentType,
        12 if is(name, b"producer-seq") => Known::ProducerSeq,
        12 if is(name, b"eddyline-key") => Known::Key,
        13 if is(name, b"authorization") => Known::Authorization,
        13 if is(name, b"last-event-id") => Known::LastEventId,
        13 if is(name, b"if-none-match") => Known::IfNoneMatch,
        14 if is(name, b"content-length") => Known::ContentLength,
        14 if is(name, b"producer-epoch") => Known::ProducerEpoch,
        16 if is(name, b"content-encoding") => Known::ContentEncoding,
        17 if is(name, b"transfer-encoding") => Known::TransferEncoding,
        22 if is(name, b"eddyline-expect-offset") => Known::ExpectOffset,
        29 if is(name, b"access-control-request-method") => Known::AccessControlRequestMethod,
        30 if is(name, b"access-control-request-headers") => Known::AccessControlRequestHeaders,
        _ => return None,
    })
}

/// What follows `Eddyline-Meta-` in a name that begins so; it may be empty.
pub(super) fn meta(name: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = name.split_at_checked(META_PREFIX.len())?;
    is(prefix, b"eddyline-meta-").then_some(rest)
}

/// Compares without regard to case. Setting bit 5 folds the letters; besides them it changes only bytes that no
/// token has (controls onto `-`, `@` and `[` onto signs that none of these names has), so the answer is exact.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else {
        return false;
    };
    let differs = name.iter().zip(lower).fold(0, |differs, (given, wanted)| differs | ((given | 0x20) ^ wanted));
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case_and_nothing_else_is() {
        for (place, (field, name)) in NAMES.into_iter().enumerate() {
            assert_eq!(field as usize, place, "{name} stands at its place");
            assert_eq!(field.name(), name);
            for spelled in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(known(spelled.as_bytes()), Some(field), "{spelled}");
            }
            for at in 0..name.len() {
                let mut other = name.to_lowercase().into_bytes();
                other[at] = b'!';
                assert_eq!(known(&other), None, "one byte of {name} is different");
            }
            assert_eq!(known(&name.as_bytes()[1..]), None, "a tail of {name}");
        }
        assert_eq!(known(b""), None);
    }

    #[test]
    fn a_meta_header_is_known_by_its_prefix() {
        for (name, rest) in [
            ("Eddyline-Meta-trace", Some("trace")),
            ("EDDYLINE-META-Trace", Some("Trace")),
            ("eddyline-meta-", Some("")),
            ("eddyline-meta", None),
            ("eddyline-metax-a", None),
            ("", None),
        ] {
            assert_eq!(meta(name.as_bytes()), rest.map(str::as_bytes), "{name}");
        }
    }
}
