//! Who may ask from where: the `Host` a request names, and the origin of a browser's page (CORS).
//!
//! `Host` is checked against DNS rebinding: on loopback any IP literal and `localhost` will do, otherwise only configured
//! names and IP literals. Origins are exact; a request from another one is refused before any work is done, and every
//! answer, errors included, tells a page that may read it so. A token may bring origins of its own.

use super::Context;
use super::problem::Problem;
use crate::config::Config;
use crate::http::{Head, Known, Reply};
use std::net::IpAddr;

/// What an answer says about other origins.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    /// The origin that may read the answer.
    allowed: Option<Box<str>>,
}

/// Headers a page may send.
const ALLOW_HEADERS: &str = "Content-Type, Authorization, Prefer, Producer-Id, Producer-Epoch, Producer-Seq, \
                             Eddyline-Key, Eddyline-Expect-Offset, Last-Event-ID";
/// Headers a page may read.
const EXPOSE_HEADERS: &str = "Eddyline-Offset, Eddyline-Duplicate, Eddyline-Next, Eddyline-Tail, Eddyline-Earliest, \
                              Eddyline-Query, Producer-Epoch, Producer-Expected-Seq, Retry-After";

impl Cors {
    /// Adds what the page's browser needs to hand the answer over.
    pub fn write<'o>(&self, reply: Reply<'o>) -> Reply<'o> {
        match &self.allowed {
            None => reply,
            Some(origin) => reply
                .header("Access-Control-Allow-Origin", origin.as_bytes())
                .header("Access-Control-Expose-Headers", EXPOSE_HEADERS)
                .header("Vary", "Origin"),
        }
    }

    /// Adds the answer to a preflight.
    pub fn write_preflight<'o>(&self, reply: Reply<'o>) -> Reply<'o> {
        match &self.allowed {
            None => reply,
            Some(_) => reply
                .header("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
                .header("Access-Control-Allow-Headers", ALLOW_HEADERS)
                .number("Access-Control-Max-Age", 86_400),
        }
    }
}

impl Cors {
    fn allowing(origin: &str) -> Self {
        Self { allowed: Some(origin.into()) }
    }
}

/// Checks the origin of a request whose token says nothing of origins, or that shows none: a preflight never does, so it
/// may come from wherever any token may.
///
/// # Errors
/// `origin_not_allowed` for a page that may not ask.
pub fn cors(context: &Context, head: &Head<'_>, has_token: bool) -> Result<Cors, Problem> {
    let Some(origin) = origin(head) else { return Ok(Cors::default()) };
    if is_configured(context, head, origin) || !has_token && is_of_a_token(context, origin) {
        return Ok(Cors::allowing(origin));
    }
    Err(Problem::new(403, "origin_not_allowed", "this origin is not in http.cors"))
}

/// Checks the origin of a request whose token may only be used from pages of these.
///
/// # Errors
/// `origin_not_allowed` for any other page, and for who is no page.
pub fn of_token(head: &Head<'_>, origins: &[Box<str>]) -> Result<Cors, Problem> {
    match origin(head) {
        Some(origin) if origins.iter().any(|known| **known == *origin) => Ok(Cors::allowing(origin)),
        _ => Err(Problem::new(403, "origin_not_allowed", "this token may only be used from pages of its own origins")),
    }
}

/// Which page may read a refusal that comes before it is known who asks.
#[must_use]
pub fn of_refusal(context: &Context, head: &Head<'_>) -> Cors {
    let known = origin(head).filter(|origin| is_configured(context, head, origin) || is_of_a_token(context, origin));
    known.map(Cors::allowing).unwrap_or_default()
}

fn origin<'b>(head: &Head<'b>) -> Option<&'b str> {
    head.get(Known::Origin).map(|origin| std::str::from_utf8(origin).unwrap_or_default())
}

fn is_configured(context: &Context, head: &Head<'_>, origin: &str) -> bool {
    let host = head.get(Known::Host).unwrap_or_default();
    same_origin(origin, host) || context.broker.config.http.cors.iter().any(|rule| rule_allows(rule, origin))
}

fn is_of_a_token(context: &Context, origin: &str) -> bool {
    context.broker.config.auth.enabled && context.tokens.directory().knows_origin(origin)
}

/// A page that the broker served itself.
fn same_origin(origin: &str, host: &[u8]) -> bool {
    origin.strip_prefix("http://").is_some_and(|rest| rest.as_bytes().eq_ignore_ascii_case(host))
}

fn rule_allows(rule: &str, origin: &str) -> bool {
    match rule {
        "*" => true,
        "localhost" => {
            let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            rest.is_some_and(|rest| matches!(without_port(rest), "localhost" | "127.0.0.1" | "[::1]"))
        }
        exact => exact == origin,
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Checks the request's `Host`.
///
/// # Errors
/// `host_not_allowed` for a name that is not ours.
pub fn host(head: &Head<'_>, config: &Config) -> Result<(), Problem> {
    let host = head.get(Known::Host).and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
    let name = without_port(host);
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    let known = name.eq_ignore_ascii_case("localhost")
        || literal.parse::<IpAddr>().is_ok()
        || config.http.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
    if known {
        return Ok(());
    }
    Err(Problem::new(403, "host_not_allowed", "this Host is not in http.hosts").closing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_origins() {
        for (rule, origin, allowed) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example:444", false),
            ("https://a.example", "https://a.example.evil", false),
            ("localhost", "http://localhost:8080", true),
            ("localhost", "https://127.0.0.1", true),
            ("localhost", "http://[::1]:3000", true),
            ("localhost", "http://localhost.evil", false),
            ("localhost", "null", false),
            ("*", "https://any.example", true),
        ] {
            assert_eq!(rule_allows(rule, origin), allowed, "{rule} {origin}");
        }
        assert!(same_origin("http://h:1", b"H:1") && !same_origin("http://h:1", b"h:2"));
    }
}
