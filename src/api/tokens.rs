//! Tokens: list, make, revoke. The secret is in the answer that makes a token, and nowhere else.

use super::Context;
use super::audit;
use super::auth::{Caller, now_us};
use super::encode::EventEncoder;
use super::exchange::Exchange;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::auth::secret::{Secret, TokenId};
use crate::auth::token::Token;
use crate::auth::{Scope, Scopes};
use crate::config::origin_fault;
use crate::group::name::check_readable;
use crate::http::{Head, Method};
use crate::limits::{
    TOKEN_GROUPS_MAX, TOKEN_NAME_BYTES_MAX, TOKEN_ORIGIN_BYTES_MAX, TOKEN_ORIGINS_MAX, TOKEN_RATE_MAX,
    TOKENS_PER_PAGE_MAX,
};
use crate::shard::tokens::Issued;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io;
use std::rc::Rc;

/// A token that is asked for.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What may be done with it.
    pub scopes: Scopes,
    /// Names of groups, exact or with a `*` at the end.
    pub groups: Box<[Box<str>]>,
    /// Until when, µs since 1970.
    pub expires_us: Option<u64>,
    /// Origins of the pages that may use it.
    pub origins: Box<[Box<str>]>,
    /// Requests a second.
    pub rate: Option<u32>,
    /// The one consumer it reads as; then `groups` is its group alone.
    pub consumer: Option<Box<str>>,
    /// What it is called by people.
    pub name: Option<Box<str>>,
}

/// What a caller may ask for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    scopes: Vec<Scope>,
    groups: Vec<Box<str>>,
    expires: Option<String>,
    #[serde(default)]
    origins: Vec<Box<str>>,
    rate: Option<Value>,
    name: Option<Box<str>>,
}

impl NewToken {
    /// Reads the body of a request for a token.
    ///
    /// # Errors
    /// `bad_body`, with what is wrong in it.
    pub fn parse(body: &[u8], now_us: u64) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(400, "bad_body", detail);
        let wanted: Wanted = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
        let scopes: Scopes = wanted.scopes.into_iter().collect();
        if scopes.is_empty() {
            return Err(bad("`scopes` must name at least one of produce, consume, query and manage".into()));
        }
        if !(1..=TOKEN_GROUPS_MAX).contains(&wanted.groups.len()) {
            return Err(bad(format!("`groups` must name 1 to {TOKEN_GROUPS_MAX} groups; \"*\" are all")));
        }
        if let Some(pattern) = wanted.groups.iter().find(|pattern| !is_pattern(pattern)) {
            return Err(bad(format!(
                "`groups`: {pattern:?} is neither a group's name nor the beginning of one and a *"
            )));
        }
        if wanted.origins.len() > TOKEN_ORIGINS_MAX {
            return Err(bad(format!("`origins` may be at most {TOKEN_ORIGINS_MAX}")));
        }
        for origin in &wanted.origins {
            if let Some(fault) = exact_origin_fault(origin) {
                return Err(bad(format!(
                    "`origins`: {origin:?} {fault}: expected for example \"https://app.example.org\""
                )));
            }
        }
        let expires_us = wanted.expires.map(|text| expiry(&text, now_us)).transpose().map_err(bad)?;
        let rate = wanted.rate.map(|value| rate(&value)).transpose().map_err(bad)?;
        if let Some(name) = wanted.name.as_deref()
            && (name.is_empty() || name.len() > TOKEN_NAME_BYTES_MAX || name.chars().any(char::is_control))
        {
            return Err(bad(format!("`name` must be 1 to {TOKEN_NAME_BYTES_MAX} bytes of text on one line")));
        }
        Ok(Self {
            scopes,
            groups: wanted.groups.into(),
            expires_us,
            origins: wanted.origins.into(),
            rate,
            consumer: None,
            name: wanted.name,
        })
    }

    /// A token like that, and the secret to show.
    ///
    /// # Errors
    /// When the system has no random bits.
    pub fn make(&self, now_us: u64) -> io::Result<(Token, Secret)> {
        let secret = Secret::new()?;
        let token = Token {
            id: TokenId::new(now_us),
            digest: secret.digest(),
            scopes: self.scopes,
            groups: self.groups.clone(),
            expires_us: self.expires_us,
            origins: self.origins.clone(),
            rate: self.rate,
            consumer: self.consumer.clone(),
            name: self.name.clone(),
            created_us: now_us,
        };
        Ok((token, secret))
    }
}

/// An exact name, or the beginning of names and a `*`; the broker's own groups included.
fn is_pattern(pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("" | "_") => true,
        Some(prefix) => check_readable(prefix).is_ok(),
        None => check_readable(pattern).is_ok(),
    }
}

/// Unlike a rule of the configuration, an origin of a token is one that a browser sends.
fn exact_origin_fault(origin: &str) -> Option<&'static str> {
    match origin {
        "*" | "localhost" => Some("is not one origin"),
        _ if origin.len() > TOKEN_ORIGIN_BYTES_MAX => Some("is too long"),
        _ => origin_fault(origin),
    }
}

fn expiry(text: &str, now_us: u64) -> Result<u64, String> {
    let time: Timestamp = text.parse().map_err(|_| {
        format!("`expires`: {text:?} is no time: expected RFC 3339 with its offset, such as 2026-11-23T10:00:00Z")
    })?;
    let expires_us = u64::try_from(time.as_microsecond()).ok().filter(|expires| *expires > now_us);
    expires_us.ok_or_else(|| format!("`expires`: {text} is over"))
}

/// `100` and `"100/s"` are the same.
fn rate(value: &Value) -> Result<u32, String> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.strip_suffix("/s").and_then(|count| crate::units::parse_count(count).ok()),
        _ => None,
    };
    let rate = number.and_then(|number| u32::try_from(number).ok());
    rate.filter(|rate| (1..=TOKEN_RATE_MAX).contains(rate)).ok_or_else(|| {
        format!(
            "`rate`: {value} is not a number of requests a second: expected 1 to {TOKEN_RATE_MAX}, such as \"100/s\""
        )
    })
}

/// Answers requests for `/v1/tokens`.
///
/// # Errors
/// What is to be answered instead.
pub async fn all(
    context: &Rc<Context>,
    caller: &Caller,
    head: &Head<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    if head.method != Method::Post {
        return list(context, head, exchange);
    }
    Parameters::new(head.query, &[])?;
    let (id, text) = issue(context, caller, &NewToken::parse(body, now_us())?).await?;
    let answer = json!({ "id": id.to_string(), "token": text }).to_string();
    let reply = exchange.reply(201).header("Cache-Control", "no-store").header("X-Content-Type-Options", "nosniff");
    reply.body("application/json", answer.as_bytes());
    Ok(())
}

fn list(context: &Rc<Context>, head: &Head<'_>, exchange: &mut Exchange) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &["after", "limit"])?;
    let after = parameters.text("after")?.map(|id| id.parse::<TokenId>());
    let after = after.transpose().map_err(|bad| Problem::new(400, "bad_parameter", format!("`after`: {bad}")))?;
    let limit = parameters.count("limit", 100, TOKENS_PER_PAGE_MAX as u64)? as usize;
    let mut page = context.tokens.directory().page(after, limit + 1);
    let more = page.len() > limit;
    page.truncate(limit);
    let tokens: Vec<Value> = page.iter().map(|entry| shape(&entry.token)).collect();
    let mut answer = json!({ "tokens": tokens });
    if let Some(last) = page.last().filter(|_| more) {
        answer["next"] = json!(last.token.id.to_string());
    }
    exchange.json(200, &answer);
    Ok(())
}

/// Answers `DELETE /v1/tokens/{id}`.
///
/// # Errors
/// What is to be answered instead.
pub async fn one(
    context: &Rc<Context>,
    caller: &Caller,
    id: &str,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    Parameters::new(head.query, &[])?;
    let found = match id.parse() {
        Ok(id) => revoke(context, caller, id).await?,
        Err(_) => false,
    };
    if !found {
        return Err(Problem::new(404, "unknown_token", "there is no token of this id"));
    }
    exchange.reply(204).empty();
    Ok(())
}

/// Makes a token: its id, and the text to show once. Durable and in force when it returns, and told in the audit log.
///
/// # Errors
/// `too_many_tokens`, `draining`, or why shard 0 did not do it.
pub async fn issue(context: &Rc<Context>, caller: &Caller, wanted: &NewToken) -> Result<(TokenId, String), Problem> {
    let most = context.broker.config.limits.tokens;
    loop {
        if context.draining() {
            return Err(Problem::draining());
        }
        let no_bits = |error: io::Error| Problem::new(500, "no_randomness", error.to_string());
        let (token, secret) = wanted.make(now_us()).map_err(no_bits)?;
        let id = token.id;
        let audit = audit::event(caller, "token.created", json!({ "token": shape(&token) }));
        match context.shards.issue_token(context.tokens.directory(), token, most, audit).await? {
            Issued::Done => return Ok((id, secret.text(id))),
            Issued::Full => {
                let detail = format!("there are {most} tokens (limits.tokens): revoke those that nobody uses");
                return Err(Problem::new(429, "too_many_tokens", detail));
            }
            // Two of one second that happen to be alike: the next one is not.
            Issued::Taken => {}
        }
    }
}

/// Revokes a token; false if there is none of that id. Durable and out of force when it returns, and told in the audit
/// log.
///
/// # Errors
/// `draining`, or why shard 0 did not do it.
pub async fn revoke(context: &Rc<Context>, caller: &Caller, id: TokenId) -> Result<bool, Problem> {
    if context.draining() {
        return Err(Problem::draining());
    }
    let directory = context.tokens.directory();
    let known = directory.get(id).map_or_else(|| json!({ "id": id.to_string() }), |entry| shape(&entry.token));
    let audit = audit::event(caller, "token.revoked", json!({ "token": known }));
    Ok(context.shards.revoke_token(directory, id, audit).await?)
}

/// A token as it is shown: everything but its secret.
#[must_use]
pub fn shape(token: &Token) -> Value {
    let mut shape = json!({
        "id": token.id.to_string(),
        "scopes": token.scopes.iter().collect::<Vec<_>>(),
        "groups": token.groups,
        "created": EventEncoder::time_text(token.created_us),
    });
    if let Some(expires_us) = token.expires_us {
        shape["expires"] = json!(EventEncoder::time_text(expires_us));
    }
    if !token.origins.is_empty() {
        shape["origins"] = json!(token.origins);
    }
    if let Some(rate) = token.rate {
        shape["rate"] = json!(format!("{rate}/s"));
    }
    for (member, text) in [("consumer", &token.consumer), ("name", &token.name)] {
        if let Some(text) = text {
            shape[member] = json!(text);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_000_000_000_000;

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        let body = r#"{"scopes":["query","produce"],"groups":["orders","web-*"],"expires":"2030-01-02T03:04:05Z",
                       "origins":["https://a.example","http://localhost:8080"],"rate":"2k/s","name":"the till"}"#;
        let (token, secret) = NewToken::parse(body.as_bytes(), NOW).unwrap().make(NOW).unwrap();
        let shown = shape(&token);
        assert_eq!(
            shown,
            json!({
                "id": token.id.to_string(), "scopes": ["produce", "query"], "groups": ["orders", "web-*"],
                "expires": "2030-01-02T03:04:05.000000Z", "origins": ["https://a.example", "http://localhost:8080"],
                "rate": "2000/s", "name": "the till", "created": "2025-11-24T16:00:00.000000Z",
            })
        );
        let text = secret.text(token.id);
        assert!(!format!("{shown} {token:?}").contains(&text[21..]), "the secret is in neither");
    }

    #[test]
    fn what_no_token_can_be_is_refused() {
        let many: Vec<String> = (0..=TOKEN_GROUPS_MAX).map(|number| format!("\"g{number}\"")).collect();
        let many = format!(r#"{{"scopes":["query"],"groups":[{}]}}"#, many.join(","));
        for (body, expected) in [
            ("", "EOF"),
            ("[]", "expected"),
            (r#"{"groups":["a"]}"#, "missing field `scopes`"),
            (r#"{"scopes":[],"groups":["a"]}"#, "at least one"),
            (r#"{"scopes":["admin"],"groups":["a"]}"#, "unknown variant `admin`"),
            (r#"{"scopes":["query"]}"#, "missing field `groups`"),
            (r#"{"scopes":["query"],"groups":[]}"#, "1 to"),
            (&many, "1 to"),
            (r#"{"scopes":["query"],"groups":["a b"]}"#, "neither"),
            (r#"{"scopes":["query"],"groups":["a*b"]}"#, "neither"),
            (r#"{"scopes":["query"],"groups":["**"]}"#, "neither"),
            (r#"{"scopes":["query"],"groups":["-*"]}"#, "neither"),
            (r#"{"scopes":["query"],"groups":["a"],"consumer":"c"}"#, "unknown field `consumer`"),
            (r#"{"scopes":["query"],"groups":["a"],"expires":"tomorrow"}"#, "is no time"),
            (r#"{"scopes":["query"],"groups":["a"],"expires":"2030-01-01T00:00:00"}"#, "is no time"),
            (r#"{"scopes":["query"],"groups":["a"],"expires":"2020-01-01T00:00:00Z"}"#, "is over"),
            (r#"{"scopes":["query"],"groups":["a"],"origins":["*"]}"#, "not one origin"),
            (r#"{"scopes":["query"],"groups":["a"],"origins":["localhost"]}"#, "not one origin"),
            (r#"{"scopes":["query"],"groups":["a"],"origins":["https://a.example/"]}"#, "has a path"),
            (r#"{"scopes":["query"],"groups":["a"],"rate":0}"#, "`rate`"),
            (r#"{"scopes":["query"],"groups":["a"],"rate":1.5}"#, "`rate`"),
            (r#"{"scopes":["query"],"groups":["a"],"rate":"100"}"#, "`rate`"),
            (r#"{"scopes":["query"],"groups":["a"],"rate":"100/m"}"#, "`rate`"),
            (r#"{"scopes":["query"],"groups":["a"],"rate":"2M/s"}"#, "`rate`"),
            (r#"{"scopes":["query"],"groups":["a"],"name":""}"#, "`name`"),
            (r#"{"scopes":["query"],"groups":["a"],"name":"a\nb"}"#, "`name`"),
        ] {
            let problem = NewToken::parse(body.as_bytes(), NOW).unwrap_err();
            assert_eq!((problem.status, problem.code), (400, "bad_body"), "{body}");
            assert!(problem.detail.contains(expected), "{body}: {}", problem.detail);
        }
    }

    #[test]
    fn groups_of_a_token() {
        for (pattern, good) in [
            ("*", true),
            ("orders", true),
            ("orders*", true),
            ("web-*", true),
            ("_audit", true),
            ("_*", true),
            ("orders.dead", true),
            ("", false),
            ("*a", false),
            ("_", false),
        ] {
            assert_eq!(is_pattern(pattern), good, "{pattern}");
        }
    }
}
