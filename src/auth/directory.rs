//! The tokens in force, for all cores: those whose making is durable and whose revocation is not.
//!
//! Shard 0 owns the table; this is its shared shadow. Each core keeps the tokens that it has verified, so that a secret is
//! digested once and not at every request, and forgets them when the directory has changed since.

use super::rate::Bucket;
use super::secret::{Secret, TokenId, parse};
use super::token::Token;
use crate::limits::TOKENS_VERIFIED_MAX;
use foldhash::HashMap;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// Why a token is good no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Somebody took it back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Lapse {
    /// The word for it in control frames.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// One token in force, with what all cores must agree on.
pub struct Entry {
    /// What it allows.
    pub token: Arc<Token>,
    bucket: Option<Bucket>,
    revoked: AtomicBool,
}

impl Entry {
    fn new(token: Arc<Token>) -> Self {
        Self { bucket: token.rate.map(Bucket::new), token, revoked: AtomicBool::new(false) }
    }

    /// Whether it is good no more at `now_us` since 1970.
    #[must_use]
    pub fn lapse(&self, now_us: u64) -> Option<Lapse> {
        if self.revoked.load(Ordering::Acquire) {
            return Some(Lapse::Revoked);
        }
        self.token.expires_us.filter(|expires| now_us >= *expires).map(|_| Lapse::Expired)
    }

    /// Counts one use at `now_ns` of a clock that never jumps.
    ///
    /// # Errors
    /// How long to wait, when it is used too often.
    pub fn take(&self, now_ns: impl FnOnce() -> u64) -> Result<(), Duration> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.take(now_ns()))
    }
}

#[derive(Default)]
struct InForce {
    tokens: BTreeMap<TokenId, Arc<Entry>>,
    /// How many tokens name each origin.
    origins: BTreeMap<Box<str>, usize>,
}

/// All tokens in force, by id.
#[derive(Default)]
pub struct Directory {
    in_force: RwLock<InForce>,
    version: AtomicU64,
}

impl Directory {
    /// Puts a token in force.
    pub fn publish(&self, token: Arc<Token>) {
        let in_force = &mut *self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        for origin in &token.origins {
            *in_force.origins.entry(origin.clone()).or_default() += 1;
        }
        in_force.tokens.insert(token.id, Arc::new(Entry::new(token)));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Takes a token out of force, also for whoever has it in use.
    pub fn withdraw(&self, id: TokenId) {
        let in_force = &mut *self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = in_force.tokens.remove(&id) else { return };
        entry.revoked.store(true, Ordering::Release);
        for origin in &entry.token.origins {
            if let Some(count) = in_force.origins.get_mut(origin) {
                *count -= 1;
                if *count == 0 {
                    in_force.origins.remove(origin);
                }
            }
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with every change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The token of that id.
    #[must_use]
    pub fn get(&self, id: TokenId) -> Option<Arc<Entry>> {
        self.read().tokens.get(&id).cloned()
    }

    /// How many tokens there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().tokens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a token may be used from pages of that origin.
    #[must_use]
    pub fn knows_origin(&self, origin: &str) -> bool {
        self.read().origins.contains_key(origin)
    }

    /// At most `limit` tokens behind `after`, oldest first.
    #[must_use]
    pub fn page(&self, after: Option<TokenId>, limit: usize) -> Vec<Arc<Entry>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read().tokens.range((start, Bound::Unbounded)).take(limit).map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// Those that consumers of the group read with.
    #[must_use]
    pub fn of_consumers(&self, group: &str) -> Vec<TokenId> {
        let reads = |token: &Token| token.consumer.is_some() && token.groups.iter().any(|of| &**of == group);
        self.read().tokens.values().filter(|entry| reads(&entry.token)).map(|entry| entry.token.id).collect()
    }

    /// The first moment behind `now_us` at which a token expires.
    #[must_use]
    pub fn next_expiry_us(&self, now_us: u64) -> Option<u64> {
        let expiries = |entry: &Arc<Entry>| entry.token.expires_us.filter(|expires| *expires > now_us);
        self.read().tokens.values().filter_map(expiries).min()
    }
}

/// A token whose secret was shown to this core.
pub struct Verified {
    secret: Secret,
    entry: Arc<Entry>,
}

impl std::ops::Deref for Verified {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// What one core has verified.
pub struct Lookup {
    directory: Arc<Directory>,
    version: Cell<u64>,
    verified: RefCell<HashMap<TokenId, Rc<Verified>>>,
}

impl Lookup {
    /// Looks up in `directory`.
    #[must_use]
    pub fn new(directory: Arc<Directory>) -> Self {
        Self { directory, version: Cell::new(0), verified: RefCell::default() }
    }

    /// The token with that text, if there is one with that very secret.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<Rc<Verified>> {
        let (id, secret) = parse(text)?;
        let version = self.directory.version();
        let verified = &mut *self.verified.borrow_mut();
        if self.version.replace(version) != version {
            verified.clear();
        }
        if let Some(known) = verified.get(&id) {
            return known.secret.is(&secret).then(|| Rc::clone(known));
        }
        let entry = self.directory.get(id).filter(|entry| secret.has(&entry.token.digest))?;
        if verified.len() >= TOKENS_VERIFIED_MAX {
            verified.clear();
        }
        let known = Rc::new(Verified { secret, entry });
        verified.insert(id, Rc::clone(&known));
        Some(known)
    }

    /// The directory itself.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::super::token::tests::sample;
    use super::*;

    fn token(id: u64) -> (Arc<Token>, String) {
        let secret = Secret::new().unwrap();
        let token = Token { digest: secret.digest(), ..sample(id, &[Scope::Produce], &["a"]) };
        (Arc::new(token), secret.text(TokenId(id)))
    }

    #[test]
    fn a_core_knows_a_token_from_its_publication_to_its_withdrawal_and_no_other_secret() {
        let directory = Arc::new(Directory::default());
        let lookup = Lookup::new(Arc::clone(&directory));
        let ((one, text), (_, other)) = (token(1), token(1));
        assert!(lookup.find(text.as_bytes()).is_none());
        directory.publish(one);
        for round in ["first", "from what is known"] {
            let found = lookup.find(text.as_bytes()).expect(round);
            assert_eq!((found.token.id, found.lapse(5)), (TokenId(1), None));
            assert!(lookup.find(other.as_bytes()).is_none(), "{round}: the same id with another secret");
        }
        let in_use = lookup.find(text.as_bytes()).unwrap();
        directory.withdraw(TokenId(1));
        assert!(lookup.find(text.as_bytes()).is_none());
        assert_eq!(in_use.lapse(5), Some(Lapse::Revoked), "also for whoever has it in use");
        assert!(directory.is_empty());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let directory = Arc::new(Directory::default());
        let lookup = Lookup::new(Arc::clone(&directory));
        let texts: Vec<String> = (0..TOKENS_VERIFIED_MAX as u64 + 10)
            .map(|id| {
                let (token, text) = token(id);
                directory.publish(token);
                text
            })
            .collect();
        for text in &texts {
            assert!(lookup.find(text.as_bytes()).is_some());
            assert!(lookup.verified.borrow().len() <= TOKENS_VERIFIED_MAX);
        }
        assert!(lookup.find(texts[0].as_bytes()).is_some(), "what was forgotten is verified again");
    }

    #[test]
    fn expiries_origins_and_pages() {
        let directory = Directory::default();
        let expiring = |id, expires_us, origin: &str| {
            let token = (*token(id).0).clone();
            Arc::new(Token { expires_us, origins: [Box::from(origin)].into(), ..token })
        };
        directory.publish(expiring(1, Some(10), "https://a"));
        directory.publish(expiring(2, Some(20), "https://a"));
        directory.publish(expiring(3, None, "https://b"));
        let next: Vec<_> = [0, 9, 10, 20].map(|now| directory.next_expiry_us(now)).into();
        assert_eq!(next, [Some(10), Some(10), Some(20), None]);
        let entry = directory.get(TokenId(1)).unwrap();
        assert_eq!((entry.lapse(9), entry.lapse(10)), (None, Some(Lapse::Expired)));
        let ids = |after, limit| directory.page(after, limit).iter().map(|entry| entry.token.id.0).collect::<Vec<_>>();
        assert_eq!((ids(None, 2), ids(Some(TokenId(2)), 9)), (vec![1, 2], vec![3]));
        let known = |directory: &Directory| ["https://a", "https://b"].map(|origin| directory.knows_origin(origin));
        assert_eq!(known(&directory), [true, true]);
        directory.withdraw(TokenId(1));
        assert_eq!(known(&directory), [true, true], "another token names it, too");
        directory.withdraw(TokenId(2));
        assert_eq!(known(&directory), [false, true]);
    }
}
