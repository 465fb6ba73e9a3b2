//! Consumers over HTTP: `/v1/groups/{group}/consumers/{consumer}` and what is behind it.
//!
//! ```text
//! life    subscribe, approve, suspend, resume, revoke, unsubscribe      who may read, and from where
//! ask     one question to the consumer on its core, for both ways to read
//! next    one batch an answer, the ack of the last one on the same request; long-polls
//! stream  everything on one connection, history and live
//! moves   ack, nack, rewind, replay, sessions                            where it stands
//! status  one, those of a group, those of all groups
//! ```

mod ask;
pub mod life;
mod moves;
mod next;
mod standby;
pub mod status;
mod stream;

use super::Context;
use super::audit;
use super::auth::Caller;
use super::exchange::Exchange;
use super::problem::Problem;
use crate::group::name as names;
use crate::http::{Head, Method};
use crate::shard::directory::Entry;
use std::rc::Rc;
use std::sync::Arc;

/// What a request wants of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The consumer itself.
    Itself,
    /// `…/approve`.
    Approve,
    /// `…/suspend`.
    Suspend,
    /// `…/resume`.
    Resume,
    /// `…/revoke`.
    Revoke,
    /// `…/session`.
    Session,
    /// `…/next`.
    Next,
    /// `…/stream`.
    Stream,
    /// `…/ack`.
    Ack,
    /// `…/nack`.
    Nack,
    /// `…/rewind`.
    Rewind,
    /// `…/replay`.
    Replay,
}

impl Action {
    /// The action that the last part of a path names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "approve" => Self::Approve,
            "suspend" => Self::Suspend,
            "resume" => Self::Resume,
            "revoke" => Self::Revoke,
            "session" => Self::Session,
            "next" => Self::Next,
            "stream" => Self::Stream,
            "ack" => Self::Ack,
            "nack" => Self::Nack,
            "rewind" => Self::Rewind,
            "replay" => Self::Replay,
            _ => return None,
        })
    }

    /// What requests like this one are counted as.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Stream => "stream",
            Self::Ack => "ack",
            _ => "consumers",
        }
    }

    /// The methods that fit.
    #[must_use]
    pub fn methods(self) -> &'static [Method] {
        match self {
            Self::Itself => &[Method::Get, Method::Head, Method::Put, Method::Delete],
            Self::Next | Self::Stream => &[Method::Get],
            Self::Session => &[Method::Post, Method::Delete],
            _ => &[Method::Post],
        }
    }

    /// The same as the field `Allow` has it.
    #[must_use]
    pub fn allow(self) -> &'static str {
        match self {
            Self::Itself => "GET, HEAD, PUT, DELETE, OPTIONS",
            Self::Next | Self::Stream => "GET, OPTIONS",
            Self::Session => "POST, DELETE, OPTIONS",
            _ => "POST, OPTIONS",
        }
    }
}

/// The consumer that a request is about.
pub struct Subject<'r> {
    /// Its group.
    pub entry: Arc<Entry>,
    /// Its name.
    pub name: &'r str,
    /// Who asks.
    pub caller: &'r Caller,
}

impl Subject<'_> {
    fn shard(&self) -> u16 {
        self.entry.table.shard
    }

    fn group(&self) -> u32 {
        self.entry.table.number
    }

    /// What the audit log is told of a change.
    fn audit(&self, action: &str, mut details: serde_json::Value) -> Vec<u8> {
        details["group"] = (*self.entry.table.name).into();
        details["consumer"] = self.name.into();
        audit::event(self.caller, action, details)
    }
}

/// Answers requests for a consumer.
///
/// # Errors
/// What is to be answered instead; nothing was written.
#[expect(clippy::too_many_arguments, reason = "what a request is, and what it asks for")]
pub async fn one(
    context: &Rc<Context>,
    caller: &Caller,
    group: &str,
    name: &str,
    action: Action,
    head: &Head<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let entry = context.group(group)?;
    names::check_consumer(name).map_err(|bad| Problem::new(400, "bad_consumer", bad.to_string()))?;
    let subject = Subject { entry, name, caller };
    if context.draining() && head.method != Method::Get && head.method != Method::Head {
        return Err(Problem::draining());
    }
    match (action, head.method) {
        (Action::Itself, Method::Put) => life::subscribe(context, &subject, body, exchange).await,
        (Action::Itself, Method::Delete) => life::unsubscribe(context, &subject, exchange).await,
        (Action::Itself, _) => status::one(context, &subject, exchange).await,
        (Action::Approve, _) => life::approve(context, &subject, body, exchange).await,
        (Action::Suspend | Action::Resume | Action::Revoke, _) => {
            life::change(context, &subject, action, exchange).await
        }
        (Action::Session, Method::Delete) => moves::leave(context, &subject, head, exchange).await,
        (Action::Session, _) => moves::open_session(context, &subject, head, exchange).await,
        (Action::Next, _) => next::next(context, &subject, head, exchange).await,
        (Action::Stream, _) => stream::stream(context, &subject, head, exchange).await,
        (Action::Ack, _) => moves::ack(context, &subject, body, exchange).await,
        (Action::Nack, _) => moves::nack(context, &subject, body, exchange).await,
        (Action::Rewind, _) => moves::rewind(context, &subject, body, exchange).await,
        (Action::Replay, _) => moves::replay(context, &subject, body, exchange).await,
    }
}

/// A body of JSON; none at all is an empty object.
fn body_of<'b, T: serde::Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Problem::new(400, "bad_body", error.to_string()))
}
