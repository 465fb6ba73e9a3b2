//! The text of a token, `edl_<id>_<secret>`: made once, shown once, and recognised by the digest of its secret.
//!
//! Id and secret are lower-case hexadecimal digits, 16 and 64 of them, so that a token is one word for a mouse and needs
//! no escapes in a URL. What is here never shows a secret: it has no `Debug`, and its one way out is [`Secret::text`].

use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// What every token begins with.
const PREFIX: &[u8] = b"edl_";
/// Digits of an id.
const ID_DIGITS: usize = 16;
/// Bytes of a secret: 256 random bits.
const SECRET_BYTES: usize = 32;

/// Names a token, and is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u64);

impl TokenId {
    /// An id for a token that is made now: the time in its upper bits, so that lists are in the order of making.
    #[must_use]
    pub fn new(now_us: u64) -> Self {
        Self(now_us << 12 | fastrand::u64(..1 << 12))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that names no token.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a token's id is 16 digits from 0 to 9 and a to f")]
pub struct BadId;

impl FromStr for TokenId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let digits: &[u8; ID_DIGITS] = text.as_bytes().try_into().map_err(|_| BadId)?;
        let mut bytes = [0; ID_DIGITS / 2];
        decode(digits, &mut bytes).then_some(Self(u64::from_be_bytes(bytes))).ok_or(BadId)
    }
}

/// What is stored of a secret.
pub type SecretDigest = [u8; 32];

/// 256 random bits that whoever holds the token can show.
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random bits.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// What is to be stored of it.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        Sha256::digest(self.0).into()
    }

    /// Whether it has that digest; takes as long for any answer.
    #[must_use]
    pub fn has(&self, digest: &SecretDigest) -> bool {
        self.digest().ct_eq(digest).into()
    }

    /// Whether it is the same one; takes as long for any answer.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// The token's text, for whoever it is made for.
    #[must_use]
    pub fn text(&self, id: TokenId) -> String {
        let secret: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("edl_{id}_{secret}")
    }
}

/// Takes a token's text apart; `None` if it is none.
#[must_use]
pub fn parse(text: &[u8]) -> Option<(TokenId, Secret)> {
    let (id, rest) = text.strip_prefix(PREFIX)?.split_at_checked(ID_DIGITS)?;
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    let mut secret = [0; SECRET_BYTES];
    decode(rest.strip_prefix(b"_")?, &mut secret).then_some((id, Secret(secret)))
}

/// Reads as many lower-case hexadecimal digits as `bytes` needs; false if there are others, or fewer, or more.
fn decode(digits: &[u8], bytes: &mut [u8]) -> bool {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => 0xff,
    };
    let mut good = digits.len() == bytes.len() * 2;
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (value(pair[0]), value(pair[1]));
        good &= (high | low) < 16;
        *byte = high << 4 | low & 15;
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_by_its_text_and_by_nothing_near_it() {
        let (id, secret) = (TokenId::new(1_764_000_000_123_456), Secret::new().unwrap());
        let text = secret.text(id);
        assert!(text.starts_with("edl_6445941642240"), "{}", &text[..17]);
        assert_eq!(text.len(), 4 + 16 + 1 + 64);
        let (same_id, same) = parse(text.as_bytes()).unwrap();
        assert_eq!(same_id, id);
        assert!(same.is(&secret) && same.has(&secret.digest()));
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'1' { b'2' } else { b'1' };
            if let Some((other_id, other)) = parse(&other) {
                let near = other.is(&secret) || other.has(&secret.digest());
                assert!(!near || other_id != id, "digit {at} is another one");
            }
            assert!(parse(&text.as_bytes()[..at]).is_none(), "cut at {at}");
        }
        for bad in [text.to_uppercase(), format!("{text}0"), format!(" {text}"), text.replace("edl", "edm")] {
            assert!(parse(bad.as_bytes()).is_none());
        }
    }

    #[test]
    fn secrets_are_not_alike() {
        let secrets: Vec<Secret> = (0..64).map(|_| Secret::new().unwrap()).collect();
        for (place, secret) in secrets.iter().enumerate() {
            assert!(secrets[..place].iter().all(|other| !other.is(secret)));
        }
    }

    #[test]
    fn ids_are_printed_and_read_in_one_form() {
        assert_eq!(TokenId(0xab).to_string().parse(), Ok(TokenId(0xab)));
        for bad in ["", "ab", "00000000000000AB", "00000000000000ag", "000000000000000ab", "+0000000000000ab"] {
            assert_eq!(bad.parse::<TokenId>(), Err(BadId), "{bad}");
        }
        assert!(TokenId::new(2_000_000) > TokenId::new(1_999_999), "later ones come behind");
    }
}
