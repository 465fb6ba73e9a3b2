//! What one token allows, and its stored form.
//!
//! ```text
//! id 8 · digest of the secret 32 · scopes 1 · created 8 · expires 8 (0 never) · requests a second 4 (0 any number)
//! · groups: count 2, then each · origins: count 2, then each · consumer · name      texts: length 2 · UTF-8
//! ```

use super::secret::{SecretDigest, TokenId};
use super::{Scope, Scopes};
use crate::log::wire::{Fields, Malformed, put_short};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All tokens by id, on the accepted head of shard 0.
pub type Tokens = BTreeMap<TokenId, Arc<Token>>;

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name in lists and in the audit log.
    pub id: TokenId,
    /// What is known of its secret.
    pub digest: SecretDigest,
    /// What may be done with it.
    pub scopes: Scopes,
    /// Where: names of groups, exact or with a `*` at the end for all that begin so.
    pub groups: Box<[Box<str>]>,
    /// Until when, µs since 1970.
    pub expires_us: Option<u64>,
    /// Origins of the pages that may use it; if there are any, nobody else may.
    pub origins: Box<[Box<str>]>,
    /// Requests a second.
    pub rate: Option<u32>,
    /// The one consumer it reads as; then `groups` is its group alone.
    pub consumer: Option<Box<str>>,
    /// What it is called by people.
    pub name: Option<Box<str>>,
    /// When it was made, µs since 1970.
    pub created_us: u64,
}

impl Token {
    /// Whether it allows that in the group. Groups of the broker itself tell of all others, so whatever is done there is
    /// managing.
    #[must_use]
    pub fn allows(&self, scope: Scope, group: &str) -> bool {
        let scope = if group.starts_with('_') { Scope::Manage } else { scope };
        self.scopes.contains(scope) && self.groups.iter().any(|pattern| covers(pattern, group))
    }

    /// Whether it may manage the broker as a whole.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.scopes.contains(Scope::Manage) && self.groups.iter().any(|pattern| &**pattern == "*")
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.digest);
        out.push(self.scopes.bits());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        out.extend_from_slice(&self.expires_us.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&self.rate.unwrap_or(0).to_le_bytes());
        for texts in [&self.groups, &self.origins] {
            out.extend_from_slice(&(texts.len() as u16).to_le_bytes());
            texts.iter().for_each(|text| put_short(out, text.as_bytes()));
        }
        for text in [&self.consumer, &self.name] {
            put_short(out, text.as_deref().unwrap_or_default().as_bytes());
        }
    }

    /// Takes the stored form.
    ///
    /// # Errors
    /// When the bytes are not a token.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let id = TokenId(fields.u64()?);
        let digest = fields.bytes(32)?.try_into().map_err(|_| Malformed("a token's digest is cut"))?;
        let scopes = Scopes::from_bits(fields.u8()?).ok_or(Malformed("a token has an unknown scope"))?;
        let (created_us, expires_us, rate) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let mut texts = || -> Result<Box<[Box<str>]>, Malformed> {
            let count = fields.u16()?;
            (0..count).map(|_| fields.short_text().map(Box::from)).collect()
        };
        let (groups, origins) = (texts()?, texts()?);
        let mut text = || fields.short_text().map(|text| (!text.is_empty()).then(|| Box::from(text)));
        Ok(Self {
            id,
            digest,
            scopes,
            groups,
            expires_us: (expires_us != 0).then_some(expires_us),
            origins,
            rate: (rate != 0).then_some(rate),
            consumer: text()?,
            name: text()?,
            created_us,
        })
    }
}

/// Whether a group's name is meant by `pattern`.
fn covers(pattern: &str, group: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => group.starts_with(prefix),
        None => pattern == group,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::secret::Secret;
    use super::*;

    pub(in super::super) fn sample(id: u64, scopes: &[Scope], groups: &[&str]) -> Token {
        Token {
            id: TokenId(id),
            digest: Secret::new().unwrap().digest(),
            scopes: scopes.iter().copied().collect(),
            groups: groups.iter().map(|group| Box::from(*group)).collect(),
            expires_us: None,
            origins: Box::default(),
            rate: None,
            consumer: None,
            name: None,
            created_us: 1,
        }
    }

    #[test]
    fn scopes_times_groups() {
        use Scope::{Consume, Manage, Produce, Query};
        for (scopes, groups, scope, group, allowed) in [
            (&[Produce][..], &["orders"][..], Produce, "orders", true),
            (&[Produce], &["orders"], Produce, "orders2", false),
            (&[Produce], &["orders"], Query, "orders", false),
            (&[Produce], &["orders"], Manage, "orders", false),
            (&[Produce], &["web-*"], Produce, "web-a", true),
            (&[Produce], &["web-*"], Produce, "web-", true),
            (&[Produce], &["web-*"], Produce, "web", false),
            (&[Produce], &["*"], Produce, "anything", true),
            (&[Produce, Query], &["a", "b*"], Query, "b", true),
            (&[Produce, Query], &["a", "b*"], Query, "c", false),
            (&[Consume], &["a"], Query, "a", false),
            (&[Manage], &["*"], Query, "a", false),
            (&[Query], &["*"], Query, "_audit", false),
            (&[Query], &["_audit"], Query, "_audit", false),
            (&[Manage], &["*"], Query, "_audit", true),
            (&[Manage], &["_audit"], Query, "_audit", true),
            (&[Manage], &["web-*"], Query, "_audit", false),
            (&[], &["*"], Produce, "a", false),
        ] {
            assert_eq!(
                sample(1, scopes, groups).allows(scope, group),
                allowed,
                "{scopes:?} {groups:?} {scope:?} {group}"
            );
        }
        for (scopes, groups, admin) in [
            (&[Manage][..], &["*"][..], true),
            (&[Manage, Produce], &["a", "*"], true),
            (&[Manage], &["a*"], false),
            (&[Produce, Consume, Query], &["*"], false),
        ] {
            assert_eq!(sample(1, scopes, groups).is_admin(), admin, "{scopes:?} {groups:?}");
        }
    }

    #[test]
    fn the_stored_form_comes_back_and_a_cut_one_is_seen() {
        let least = sample(1, &[Scope::Query], &["a"]);
        let most = Token {
            expires_us: Some(2),
            origins: ["https://a.example", "http://localhost:8080"].map(Box::from).into(),
            rate: Some(100),
            consumer: Some("billing".into()),
            name: Some("the till".into()),
            ..sample(u64::MAX, &Scope::ALL, &["a", "web-*", "*"])
        };
        for token in [least, most] {
            let mut bytes = Vec::new();
            token.encode(&mut bytes);
            let mut fields = Fields::new(&bytes);
            assert_eq!(Token::decode(&mut fields), Ok(token));
            assert!(fields.rest().is_empty());
            for cut in 0..bytes.len() {
                assert!(Token::decode(&mut Fields::new(&bytes[..cut])).is_err(), "cut at {cut}");
            }
            bytes[40] |= 0x10;
            assert!(Token::decode(&mut Fields::new(&bytes)).is_err(), "an unknown scope");
        }
    }
}
