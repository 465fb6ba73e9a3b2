//! What a request means and what its answer looks like: one file per resource.
//!
//! ```text
//! head ─▶ route    which resource, may this caller, how long may the body be
//! body ─▶ produce  events in: one, or a batch (split, json, key_path take it apart)
//!         read     events out: finite answers; live: history and live on one connection; event: one alone
//!         query    the log as a time series
//!         groups   make, list, show, change, remove
//!         consumer  who reads with a position: life, reading, acks, status
//!         tokens   list, make, revoke
//!         producer  the module that pages produce with
//!         operations  livez, readyz, status;  metrics
//! auth     who asks, and may they        audit    what is told of a change
//! accept   which format a client likes best
//! problem  every error, mapped to HTTP in one place        encode  events as JSON, NDJSON, SSE
//! ```

mod accept;
pub mod audit;
pub mod auth;
pub mod consumer;
pub mod encode;
pub mod event;
pub mod exchange;
mod finite;
pub mod groups;
pub mod json;
pub mod key_path;
pub mod live;
pub mod metrics;
pub mod operations;
pub mod origin;
pub mod parameters;
pub mod pieces;
pub mod position;
pub mod problem;
pub mod produce;
pub mod producer;
pub mod query;
pub mod read;
pub mod route;
pub mod split;
pub mod tokens;

use crate::auth::directory::Lookup as Tokens;
use crate::config::Config;
use crate::http::{DateClock, Head, Known};
use crate::io::buffer::Pool;
use crate::io::deadline::Deadlines;
use crate::log::event::NewEvents;
use crate::shard::directory::{Entry, Lookup};
use crate::shard::peers::Shards;
use crate::stats::{Counter, Stats};
use exchange::Exchange;
use foldhash::HashMap;
use pieces::Pieces;
use problem::Problem;
use route::{Route, Target};
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio::sync::Notify;

/// What all cores share.
pub struct Broker {
    /// The configuration in force.
    pub config: Config,
    /// Counters.
    pub stats: Stats,
    /// Set once the broker is told to end.
    pub draining: AtomicBool,
    /// When it was started.
    pub started: Instant,
    /// Where its data is.
    pub data: PathBuf,
    /// The queries that run now.
    pub queries: query::Queries,
}

/// One core's counters of requests. Most requests end like the one before, so the last counter is at hand.
#[derive(Default)]
pub struct Requests {
    known: RefCell<HashMap<(&'static str, u16), Counter>>,
    last: RefCell<Option<(&'static str, u16, Counter)>>,
}

impl Requests {
    fn count(&self, stats: &Stats, route: &'static str, status: u16) {
        let last = &mut *self.last.borrow_mut();
        match last {
            Some((known, code, counter)) if std::ptr::eq(*known, route) && *code == status => {
                counter.inc();
            }
            _ => {
                let mut known = self.known.borrow_mut();
                let counter = known.entry((route, status)).or_insert_with(|| stats.request(route, status));
                counter.inc();
                *last = Some((route, status, counter.clone()));
            }
        }
    }
}

/// What one core's requests are answered with.
pub struct Context {
    /// What all cores share.
    pub broker: Arc<Broker>,
    /// The shards as this core sees them.
    pub shards: Rc<Shards>,
    /// The groups by name.
    pub lookup: Lookup,
    /// The tokens in force.
    pub tokens: Tokens,
    /// Told when a token was revoked or expired, for whoever reads on.
    pub token_turn: Notify,
    /// The `Date` field.
    pub dates: RefCell<DateClock>,
    /// The deadlines of this core's connections.
    pub deadlines: Deadlines,
    /// Told when the broker is to end, for live readers.
    pub drain: Notify,
    /// Value of the `Keep-Alive` field.
    pub keep_alive: String,
    /// Bytes of request bodies that are still coming in.
    pub body_bytes: Cell<u64>,
    /// Receive buffers that are not in use.
    pub buffers: RefCell<Pool>,
    /// Memory for the events of the next request.
    pub events: RefCell<NewEvents>,
    /// Encoded events that the next reader may want.
    pub pieces: RefCell<Pieces>,
    /// Finite answers that are held in memory until their end is known.
    pub held_answers: Cell<usize>,
    /// Counters of this core by route and status.
    pub requests: Requests,
    /// `Host` of the last request that was let in.
    pub host: RefCell<Vec<u8>>,
}

impl Context {
    /// Whether the broker is about to end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.broker.draining.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Counts an answered request.
    pub fn count(&self, route: &'static str, status: u16) {
        self.requests.count(&self.broker.stats, route, status);
    }

    /// Checks the request's `Host`; most requests name the same one as the request before.
    ///
    /// # Errors
    /// `host_not_allowed` for a name that is not ours.
    pub fn check_host(&self, head: &Head<'_>) -> Result<(), Problem> {
        let host = head.get(Known::Host).unwrap_or_default();
        if *self.host.borrow() != host {
            origin::host(head, &self.broker.config)?;
            self.host.replace(host.to_vec());
        }
        Ok(())
    }

    /// The group of that name, as a request may use it.
    ///
    /// # Errors
    /// `bad_group`, `no_group`.
    pub fn group(&self, name: &str) -> Result<Arc<Entry>, Problem> {
        match self.lookup.get(name) {
            Some(entry) => Ok(entry),
            None => {
                crate::group::name::check_readable(name).map_err(|bad| Problem::bad_group(&bad))?;
                Err(Problem::no_group(name))
            }
        }
    }
}

/// Answers every request that is not an append (those are answered by their commit, see `produce`).
///
/// # Errors
/// What is to be answered instead, when nothing was written yet.
pub async fn answer(
    context: &Rc<Context>,
    route: &Route<'_>,
    head: &Head<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    match &route.target {
        Target::Producer => producer::module(head, exchange),
        Target::Live => operations::live(exchange),
        Target::Ready => operations::ready(context, exchange).await,
        Target::Metrics => metrics::metrics(context, &route.caller, exchange).await,
        Target::Status => operations::status(context, exchange).await,
        Target::Tokens => tokens::all(context, &route.caller, head, body, exchange).await?,
        Target::Token(id) => tokens::one(context, &route.caller, id, head, exchange).await?,
        Target::Query => query::query(context, &route.caller, head, body, exchange).await?,
        Target::Queries => query::list(context, &route.caller, head, exchange)?,
        Target::RunningQuery(id) => query::stop(context, &route.caller, id, head, exchange)?,
        Target::Groups => groups::list(context, &route.caller, head, exchange)?,
        Target::Group(name) => groups::one(context, &route.caller, name, head, body, exchange).await?,
        Target::Events(name) => read::events(context, &route.caller, name, head, exchange).await?,
        Target::Event(name, which) => event::one(context, name, which, exchange).await?,
        Target::Consumers(name) => consumer::status::of_group(context, name, head, exchange).await?,
        Target::AllConsumers => consumer::status::of_all(context, &route.caller, head, exchange).await?,
        Target::Consumer(group, name, action) => {
            consumer::one(context, &route.caller, group, name, *action, head, body, exchange).await?;
        }
        Target::Batch(_) | Target::Preflight => unreachable!("answered where it was routed"),
    }
    Ok(())
}
