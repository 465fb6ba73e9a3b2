//! Who asks, and whether they may: decided on a request's head, before its body costs anything.
//!
//! One table says what each resource and method needs. A caller who shows no token gets 401, one whose token does not
//! allow it 403, whether or not there is such a group. With tokens off everybody may do everything.

use super::Context;
use super::consumer::Action;
use super::origin::{self, Cors};
use super::problem::Problem;
use super::route::Target;
use crate::auth::Scope;
use crate::auth::directory::{Lapse, Verified};
use crate::http::{Head, Known, Method, Query};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whoever asks: a token or nobody, from an address, and from a page or none.
#[derive(Clone)]
pub struct Caller {
    who: Who,
    peer: SocketAddr,
    /// What the answer says about other origins.
    pub cors: Cors,
}

#[derive(Clone)]
enum Who {
    /// Tokens are off.
    Anyone,
    /// No token was shown, or none is needed.
    Nobody,
    Token(Rc<Verified>),
}

/// What a request needs.
#[derive(Debug, PartialEq, Eq)]
enum Need<'t> {
    Nothing,
    /// That scope in that group.
    In(Scope, &'t str),
    /// To know of that group: to read or to manage it.
    See(&'t str),
    /// To read as that consumer of that group.
    As(&'t str, &'t str),
    /// To read as that consumer, or to manage its group.
    AsOrManage(&'t str, &'t str),
    /// To know of any group.
    SeeAny,
    /// To manage anything.
    ManageAny,
    /// To manage the broker as a whole.
    Admin,
}

/// What each resource and method needs.
fn need<'t>(target: &'t Target<'_>, method: Method) -> Need<'t> {
    let reads = matches!(method, Method::Get | Method::Head);
    match target {
        Target::Producer | Target::Live | Target::Ready | Target::Preflight => Need::Nothing,
        Target::Metrics | Target::Status => Need::ManageAny,
        Target::Tokens | Target::Token(_) => Need::Admin,
        // The text of a query names its group; of those that run, everybody sees and stops his own.
        Target::Groups | Target::AllConsumers | Target::Query | Target::Queries | Target::RunningQuery(_) => {
            Need::SeeAny
        }
        Target::Group(name) if reads => Need::See(name),
        Target::Consumers(group) => Need::See(group),
        Target::Consumer(group, consumer, action) => match action {
            Action::Approve | Action::Suspend | Action::Resume | Action::Revoke => Need::In(Scope::Manage, group),
            Action::Itself | Action::Rewind | Action::Replay => Need::AsOrManage(group, consumer),
            Action::Session | Action::Next | Action::Stream | Action::Ack | Action::Nack => Need::As(group, consumer),
        },
        Target::Group(name) => Need::In(Scope::Manage, name),
        Target::Event(name, _) => Need::In(Scope::Query, name),
        Target::Events(name) if reads => Need::In(Scope::Query, name),
        Target::Events(name) | Target::Batch(name) => Need::In(Scope::Produce, name),
    }
}

impl Caller {
    /// Finds out who asks, from the head alone: by `Authorization: Bearer …` or, for a key that can only produce, by
    /// `?token=`. It counts as one use of the token. A path without a resource asks for no token.
    ///
    /// # Errors
    /// `bad_token`, `token_in_url`, `duplicate_token`; `origin_not_allowed` for a page that may not ask; `rate_exceeded`.
    pub fn of(
        context: &Context,
        head: &Head<'_>,
        target: Option<&Target<'_>>,
        peer: SocketAddr,
    ) -> Result<Self, Problem> {
        let open = target.is_none_or(|target| need(target, head.method) == Need::Nothing);
        let who = match context.broker.config.auth.enabled {
            false => Who::Anyone,
            true if open => Who::Nobody,
            true => shown(context, head)?.map_or(Who::Nobody, Who::Token),
        };
        let cors = match &who {
            Who::Token(token) if !token.token.origins.is_empty() => origin::of_token(head, &token.token.origins)?,
            who => origin::cors(context, head, matches!(who, Who::Token(_)))?,
        };
        if let Who::Token(token) = &who {
            token.take(|| context.broker.started.elapsed().as_nanos() as u64).map_err(|wait| {
                let milliseconds = wait.as_millis() as u64 + 1;
                Problem::passing(429, "rate_exceeded", milliseconds, "this token is used more often than it may be")
            })?;
        }
        Ok(Self { who, peer, cors })
    }

    /// Whether this may be asked for.
    ///
    /// # Errors
    /// `no_token`, `not_allowed`.
    pub(super) fn may(&self, target: &Target<'_>, method: Method) -> Result<(), Problem> {
        let allowed = match need(target, method) {
            Need::Nothing => true,
            Need::In(scope, group) => self.allows(scope, group),
            Need::See(group) => self.sees(group),
            Need::As(group, consumer) => self.reads_as(group, consumer),
            Need::AsOrManage(group, consumer) => self.reads_as(group, consumer) || self.allows(Scope::Manage, group),
            Need::SeeAny => self.allows_somewhere(Scope::Query) || self.allows_somewhere(Scope::Manage),
            Need::ManageAny => self.allows_somewhere(Scope::Manage),
            Need::Admin => self.is_admin(),
        };
        match &self.who {
            _ if allowed => Ok(()),
            Who::Nobody => Err(Problem::new(401, "no_token", "this needs a token: Authorization: Bearer edl_…")),
            _ => Err(Problem::new(403, "not_allowed", "this token does not allow that")),
        }
    }

    fn allowed(&self, by_token: impl FnOnce(&Verified) -> bool) -> bool {
        match &self.who {
            Who::Anyone => true,
            Who::Nobody => false,
            Who::Token(token) => by_token(token),
        }
    }

    /// Whether this is allowed in the group.
    #[must_use]
    pub fn allows(&self, scope: Scope, group: &str) -> bool {
        self.allowed(|token| token.token.allows(scope, group))
    }

    /// Whether the caller may read as that consumer: a token that was made for one reads as that one alone.
    fn reads_as(&self, group: &str, consumer: &str) -> bool {
        self.allows(Scope::Consume, group) && self.consumer().is_none_or(|own| own == consumer)
    }

    fn allows_somewhere(&self, scope: Scope) -> bool {
        self.allowed(|token| token.token.scopes.contains(scope))
    }

    /// Whether the caller may know that there is such a group.
    #[must_use]
    pub fn sees(&self, group: &str) -> bool {
        self.allows(Scope::Query, group) || self.allows(Scope::Manage, group)
    }

    /// Whether the broker as a whole may be managed.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.allowed(|token| token.token.is_admin())
    }

    /// Whether it is known who asks: false for everybody when tokens are off.
    #[must_use]
    pub fn authenticated(&self) -> bool {
        matches!(self.who, Who::Token(_))
    }

    /// Who asks, for logs and the audit log: the token's id, or `anonymous`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.who {
            Who::Token(token) => token.token.id.to_string(),
            Who::Anyone | Who::Nobody => "anonymous".to_owned(),
        }
    }

    /// What people call the token.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        match &self.who {
            Who::Token(token) => token.token.name.as_deref(),
            Who::Anyone | Who::Nobody => None,
        }
    }

    /// The one consumer that the token reads as, if it is made for one.
    #[must_use]
    pub fn consumer(&self) -> Option<&str> {
        match &self.who {
            Who::Token(token) => token.token.consumer.as_deref(),
            Who::Anyone | Who::Nobody => None,
        }
    }

    /// Where the request came from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Why the token is good no more, if it is. To be asked between the pieces of a long answer: it costs next to nothing.
    #[must_use]
    pub fn lapsed(&self) -> Option<Lapse> {
        match &self.who {
            Who::Token(token) => token.lapse(now_us()),
            Who::Anyone | Who::Nobody => None,
        }
    }

    /// Completes within a second after the token was revoked or expired; without one, never. May be dropped at any time.
    pub async fn lapse(&self, context: &Context) -> Lapse {
        loop {
            let turn = context.token_turn.notified();
            if let Some(lapse) = self.lapsed() {
                return lapse;
            }
            turn.await;
        }
    }

    /// The same as an answer, for a request that is not answered yet.
    ///
    /// # Errors
    /// `bad_token`.
    pub fn still_good(&self) -> Result<(), Problem> {
        self.lapsed().map_or(Ok(()), |lapse| Err(bad_token(lapse)))
    }
}

/// Whose tokens nobody should see, not even here.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.name(), self.peer)
    }
}

fn bad_token(lapse: Lapse) -> Problem {
    let detail = match lapse {
        Lapse::Revoked => "this token was revoked",
        Lapse::Expired => "this token has expired",
    };
    Problem::new(401, "bad_token", detail)
}

/// Microseconds since 1970.
#[must_use]
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The token that a request shows.
fn shown(context: &Context, head: &Head<'_>) -> Result<Option<Rc<Verified>>, Problem> {
    let unknown = || Problem::new(401, "bad_token", "this is no token of this broker, or it was revoked");
    let header = match head.get(Known::Authorization) {
        Some(value) => Some(bearer(value).ok_or_else(unknown)?),
        None => None,
    };
    let parameter = match head.query.is_empty() {
        true => None,
        false => {
            Query::new(head.query).get("token").map_err(|fault| Problem::new(fault.status, fault.code, fault.detail))?
        }
    };
    let text = match (header, &parameter) {
        (None, None) => return Ok(None),
        (Some(header), None) => header,
        (None, Some(parameter)) => parameter.as_bytes(),
        (Some(_), Some(_)) => {
            return Err(Problem::new(400, "duplicate_token", "a token comes in a header or in the query, not in both"));
        }
    };
    let token = context.tokens.find(text).ok_or_else(unknown)?;
    if let Some(lapse) = token.lapse(now_us()) {
        return Err(bad_token(lapse));
    }
    if parameter.is_some() && !token.token.scopes.is_only(Scope::Produce) {
        let detail = "only a key that can do nothing but produce may stand in a URL, for URLs end up in logs: \
                      revoke this token, and send another one as Authorization: Bearer";
        return Err(Problem::new(403, "token_in_url", detail));
    }
    Ok(Some(token))
}

/// What stands behind `Bearer` (RFC 6750; the scheme in any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, text) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| text.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_resource_and_method_needs() {
        use Method::{Delete, Get, Head, Options, Patch, Post, Put};
        let group = || "g".into();
        for (target, methods, expected) in [
            (Target::Producer, &[Get, Head][..], Need::Nothing),
            (Target::Live, &[Get, Head], Need::Nothing),
            (Target::Ready, &[Get], Need::Nothing),
            (Target::Preflight, &[Options], Need::Nothing),
            (Target::Metrics, &[Get, Head], Need::ManageAny),
            (Target::Status, &[Get], Need::ManageAny),
            (Target::Tokens, &[Get, Post], Need::Admin),
            (Target::Token(group()), &[Delete], Need::Admin),
            (Target::Groups, &[Get, Head], Need::SeeAny),
            (Target::Query, &[Get, Head, Post], Need::SeeAny),
            (Target::Queries, &[Get, Head], Need::SeeAny),
            (Target::RunningQuery(group()), &[Delete], Need::SeeAny),
            (Target::Group(group()), &[Get, Head], Need::See("g")),
            (Target::Group(group()), &[Put, Patch, Delete], Need::In(Scope::Manage, "g")),
            (Target::Events(group()), &[Get, Head], Need::In(Scope::Query, "g")),
            (Target::Event(group(), "7".into()), &[Get, Head], Need::In(Scope::Query, "g")),
            (Target::Events(group()), &[Post], Need::In(Scope::Produce, "g")),
            (Target::Batch(group()), &[Post], Need::In(Scope::Produce, "g")),
            (Target::AllConsumers, &[Get], Need::SeeAny),
            (Target::Consumers(group()), &[Get], Need::See("g")),
            (Target::Consumer(group(), "c".into(), Action::Itself), &[Get, Put, Delete], Need::AsOrManage("g", "c")),
            (Target::Consumer(group(), "c".into(), Action::Approve), &[Post], Need::In(Scope::Manage, "g")),
            (Target::Consumer(group(), "c".into(), Action::Revoke), &[Post], Need::In(Scope::Manage, "g")),
            (Target::Consumer(group(), "c".into(), Action::Next), &[Get], Need::As("g", "c")),
            (Target::Consumer(group(), "c".into(), Action::Ack), &[Post], Need::As("g", "c")),
            (Target::Consumer(group(), "c".into(), Action::Rewind), &[Post], Need::AsOrManage("g", "c")),
        ] {
            for method in methods {
                assert_eq!(need(&target, *method), expected, "{method:?} {target:?}");
            }
        }
    }

    #[test]
    fn the_scheme_is_bearer() {
        for (value, expected) in [
            ("Bearer edl_1", Some("edl_1")),
            ("bearer   edl_1 ", Some("edl_1")),
            ("BEARER ", Some("")),
            ("Bearer", None),
            ("Basic edl_1", None),
            ("edl_1", None),
            ("", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), expected.map(str::as_bytes), "{value:?}");
        }
    }
}
