//! From a request's head to what it asks for: which resource, whether the method fits, whether the caller may, how long
//! the body may be.
//!
//! All of it is decided before the body is read, so a request that is refused costs no memory.

use super::Context;
use super::auth::Caller;
use super::consumer::Action;
use super::problem::Problem;
use crate::group::name::{BadName, is_reserved};
use crate::http::{Framing, Head, Method, decode, segments};
use crate::shard::directory::Entry;
use std::borrow::Cow;
use std::sync::Arc;

/// Largest body of a request that carries no events.
const SMALL_BODY_BYTES: u64 = 64 << 10;

/// What a request is about.
#[derive(Debug)]
pub enum Target<'b> {
    /// `/producer.js`.
    Producer,
    /// `/livez`.
    Live,
    /// `/readyz`.
    Ready,
    /// `/metrics`.
    Metrics,
    /// `/v1/status`.
    Status,
    /// `/v1/groups`.
    Groups,
    /// `/v1/groups/{group}`.
    Group(Cow<'b, str>),
    /// `/v1/groups/{group}/events`.
    Events(Cow<'b, str>),
    /// `/v1/groups/{group}/batch`.
    Batch(Cow<'b, str>),
    /// `/v1/groups/{group}/events/{offset or id}`.
    Event(Cow<'b, str>, Cow<'b, str>),
    /// `/v1/consumers`.
    AllConsumers,
    /// `/v1/groups/{group}/consumers`.
    Consumers(Cow<'b, str>),
    /// `/v1/groups/{group}/consumers/{consumer}` and what is behind it.
    Consumer(Cow<'b, str>, Cow<'b, str>, Action),
    /// `/v1/query`.
    Query,
    /// `/v1/queries`.
    Queries,
    /// `/v1/queries/{id}`.
    RunningQuery(Cow<'b, str>),
    /// `/v1/tokens`.
    Tokens,
    /// `/v1/tokens/{id}`.
    Token(Cow<'b, str>),
    /// A browser asks whether a page may ask.
    Preflight,
}

/// What is known of a request before its body is read.
#[derive(Debug)]
pub struct Route<'b> {
    /// What it is about.
    pub target: Target<'b>,
    /// Who asks.
    pub caller: Caller,
    /// The group that events are to be added to.
    pub produce: Option<Arc<Entry>>,
    /// How long the body may be.
    pub body_max: u64,
}

impl Target<'_> {
    /// What requests like this one are counted as.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Live | Self::Ready | Self::Metrics | Self::Status => "operations",
            Self::Groups | Self::Group(_) => "groups",
            Self::Events(_) => "events",
            Self::Batch(_) => "batch",
            Self::Event(..) => "event",
            Self::AllConsumers | Self::Consumers(_) => "consumers",
            Self::Consumer(_, _, action) => action.name(),
            Self::Tokens | Self::Token(_) => "tokens",
            Self::Query => "query",
            Self::Queries | Self::RunningQuery(_) => "queries",
            Self::Preflight => "preflight",
        }
    }

    fn allow(&self) -> &'static str {
        match self {
            Self::Producer
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Status
            | Self::Groups
            | Self::Event(..)
            | Self::AllConsumers
            | Self::Consumers(_)
            | Self::Queries => "GET, HEAD, OPTIONS",
            Self::Group(_) => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
            Self::Events(_) | Self::Tokens | Self::Query => "GET, HEAD, POST, OPTIONS",
            Self::Batch(_) => "POST, OPTIONS",
            Self::Consumer(_, _, action) => action.allow(),
            Self::Token(_) | Self::RunningQuery(_) => "DELETE, OPTIONS",
            Self::Preflight => "OPTIONS",
        }
    }

    fn allows(&self, method: Method) -> bool {
        let reads = matches!(method, Method::Get | Method::Head);
        match self {
            Self::Group(_) => reads || matches!(method, Method::Put | Method::Patch | Method::Delete),
            Self::Events(_) | Self::Tokens | Self::Query => reads || method == Method::Post,
            Self::Batch(_) => method == Method::Post,
            Self::Consumer(_, _, action) => action.methods().contains(&method),
            Self::Token(_) | Self::RunningQuery(_) => method == Method::Delete,
            Self::Preflight => true,
            _ => reads,
        }
    }
}

/// Finds out what a request is about; `None` where there is nothing.
///
/// # Errors
/// `host_not_allowed`, `bad_escape`.
pub fn target<'b>(context: &Context, head: &Head<'b>) -> Result<Option<Target<'b>>, Problem> {
    context.check_host(head)?;
    let target = at_path(head.path)?;
    Ok(if head.method == Method::Options { Some(Target::Preflight) } else { target })
}

/// Finds out whether and how a request is carried out.
///
/// # Errors
/// What is to be answered instead; the body was not read.
pub fn route<'b>(
    context: &Context,
    head: &Head<'b>,
    target: Option<Target<'b>>,
    caller: Caller,
) -> Result<Route<'b>, Problem> {
    let target = target.ok_or_else(|| Problem::new(404, "not_found", "there is nothing at this path"))?;
    if !target.allows(head.method) {
        let mut problem = Problem::new(405, "method_not_allowed", "this method does not fit this path");
        problem.allow = Some(target.allow());
        return Err(problem);
    }
    caller.may(&target, head.method)?;
    let (produce, body_max) = match (&target, head.method) {
        (Target::Events(name), Method::Post) => {
            let entry = producible(context, name)?;
            let most = entry.config.max_event_bytes.min(context.broker.config.limits.max_event_bytes);
            (Some(entry), most)
        }
        (Target::Batch(name), _) => {
            let entry = producible(context, name)?;
            let most = entry.config.max_batch_bytes.min(context.broker.config.limits.max_batch_bytes);
            (Some(entry), most)
        }
        _ => (None, SMALL_BODY_BYTES),
    };
    if produce.is_some() && context.draining() {
        return Err(Problem::draining());
    }
    match head.framing {
        Framing::None if produce.is_some() => {
            Err(Problem::new(411, "length_required", "events come with Content-Length or chunked").closing())
        }
        Framing::Length(length) if length > body_max => Err(too_large(body_max)),
        _ => Ok(Route { target, caller, produce, body_max }),
    }
}

/// The group of that name, if callers may add to it: nobody writes into the broker's own.
fn producible(context: &Context, name: &str) -> Result<Arc<Entry>, Problem> {
    if is_reserved(name) {
        return Err(Problem::bad_group(&BadName::Reserved));
    }
    context.group(name)
}

/// The refusal of a body that is longer than it may be.
#[must_use]
pub fn too_large(body_max: u64) -> Problem {
    let most = crate::units::print_size(body_max);
    Problem::new(413, "body_too_large", format!("the body may be at most {most} long here")).closing()
}

/// Where a path leads; `None` where there is nothing.
fn at_path(path: &str) -> Result<Option<Target<'_>>, Problem> {
    let mut parts = segments(path);
    let mut next = || parts.next();
    let (first, second, group, kind, which) = (next(), next(), next(), next(), next());
    let (action, more) = (next(), next());
    let group = group.filter(|group| !group.is_empty());
    if let (Some("v1"), Some("groups"), Some(group), None) = (first, second, group, more) {
        let name = decode(group)?;
        return Ok(match (kind, which) {
            (None, None) => Some(Target::Group(name)),
            (Some("events"), None) => Some(Target::Events(name)),
            (Some("batch"), None) => Some(Target::Batch(name)),
            (Some("events"), Some(which)) if !which.is_empty() && action.is_none() => {
                Some(Target::Event(name, decode(which)?))
            }
            (Some("consumers"), None) => Some(Target::Consumers(name)),
            (Some("consumers"), Some(which)) if !which.is_empty() => {
                let action = action.map_or(Some(Action::Itself), Action::parse);
                match action {
                    Some(action) => Some(Target::Consumer(name, decode(which)?, action)),
                    None => None,
                }
            }
            _ => None,
        });
    }
    match (first, second, group, kind) {
        (Some("v1"), Some("tokens"), Some(id), None) => return Ok(Some(Target::Token(decode(id)?))),
        (Some("v1"), Some("queries"), Some(id), None) => return Ok(Some(Target::RunningQuery(decode(id)?))),
        _ => {}
    }
    Ok(match path {
        "/producer.js" => Some(Target::Producer),
        "/livez" => Some(Target::Live),
        "/readyz" => Some(Target::Ready),
        "/metrics" => Some(Target::Metrics),
        "/v1/status" => Some(Target::Status),
        "/v1/groups" => Some(Target::Groups),
        "/v1/consumers" => Some(Target::AllConsumers),
        "/v1/query" => Some(Target::Query),
        "/v1/queries" => Some(Target::Queries),
        "/v1/tokens" => Some(Target::Tokens),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expected) in [
            ("/livez", "Some(Live)"),
            ("/producer.js", "Some(Producer)"),
            ("/v1/groups", "Some(Groups)"),
            ("/v1/groups/", "None"),
            ("/v1/groups/a", "Some(Group(\"a\"))"),
            ("/v1/groups/a%2Db/events", "Some(Events(\"a-b\"))"),
            ("/v1/groups/a/batch", "Some(Batch(\"a\"))"),
            ("/v1/groups/a/events/7", "Some(Event(\"a\", \"7\"))"),
            ("/v1/groups/a/events/7/x", "None"),
            ("/v1/consumers", "Some(AllConsumers)"),
            ("/v1/groups/a/consumers", "Some(Consumers(\"a\"))"),
            ("/v1/groups/a/consumers/", "None"),
            ("/v1/groups/a/consumers/c%2Dd", "Some(Consumer(\"a\", \"c-d\", Itself))"),
            ("/v1/groups/a/consumers/c/next", "Some(Consumer(\"a\", \"c\", Next))"),
            ("/v1/groups/a/consumers/c/other", "None"),
            ("/v1/groups/a/consumers/c/next/x", "None"),
            ("/v1/groups/a/other", "None"),
            ("/v1/groups/a/", "None"),
            ("/v1/groups/a/events/", "None"),
            ("/v1/groups/a////other", "None"),
            ("/v1/query", "Some(Query)"),
            ("/v1/query/x", "None"),
            ("/v1/queries", "Some(Queries)"),
            ("/v1/queries/", "None"),
            ("/v1/queries/00%61b", "Some(RunningQuery(\"00ab\"))"),
            ("/v1/queries/00ab/x", "None"),
            ("/v1/tokens", "Some(Tokens)"),
            ("/v1/tokens/", "None"),
            ("/v1/tokens/00ab", "Some(Token(\"00ab\"))"),
            ("/v1/tokens/00ab/", "None"),
            ("/v1/tokens/00ab/x", "None"),
            ("/v2/groups/a", "None"),
            ("*", "None"),
        ] {
            assert_eq!(format!("{:?}", at_path(path).unwrap()), expected, "{path}");
        }
    }
}
