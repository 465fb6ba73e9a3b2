//! The queries that run now: each one's place among them, how far it is, and how it is stopped.

use super::super::auth::{Caller, now_us};
use super::super::encode::EventEncoder;
use super::super::exchange::Exchange;
use super::super::parameters::Parameters;
use super::super::problem::Problem;
use super::super::{Broker, Context};
use super::work::Stats;
use crate::http::Head;
use crate::io::background::{Background, Busy};
use crate::limits::{QUERY_SHOWN_BYTES_MAX, QUERY_THREADS_MAX};
use crate::query::plan::Plan;
use crate::query::run::{Limit, Row, Running, Span};
use crate::stats::ShardStats;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use uuid::Uuid;

/// The queries that run now, and the threads that they run on.
pub struct Queries {
    /// Only cores lock it: a thread of queries that lost its CPU with it would stop them all.
    running: Mutex<BTreeMap<Uuid, Arc<Entry>>>,
    background: Background,
}

/// A query that runs, as others see it.
pub(super) struct Entry {
    caller: String,
    group: Box<str>,
    /// What was asked, or its beginning.
    text: Box<str>,
    begun: Instant,
    begun_us: u64,
    /// Offsets of its range, once it is at them; never, if it has no end or reads nothing.
    total: OnceLock<u64>,
    done: AtomicU64,
    events_read: AtomicU64,
    bytes_read: AtomicU64,
    stop: Notify,
    /// It does not run any more: whoever looks next takes it away.
    ended: AtomicBool,
}

/// A query's place among those that run. It may be given up on any thread.
pub(super) struct Place {
    pub(super) broker: Arc<Broker>,
    pub(super) id: Uuid,
    pub(super) entry: Arc<Entry>,
}

impl Queries {
    /// Starts the threads, one on each of `cpus` behind those that the cores have, or on all if none is left. They make way
    /// while one of `shards` commits.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(cpus: &[usize], cores: usize, shards: Vec<ShardStats>) -> std::io::Result<Self> {
        let cpus = cpus.get(cores..).filter(|left| !left.is_empty()).unwrap_or(cpus);
        let cpus = &cpus[..cpus.len().min(QUERY_THREADS_MAX)];
        let commits = Arc::new(move || commits(&shards));
        Ok(Self { running: Mutex::default(), background: Background::start("query", cpus, commits)? })
    }

    pub(super) fn background(&self) -> &Background {
        &self.background
    }

    /// Those that run.
    fn running(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Entry>>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, entry| !entry.ended.load(Ordering::Acquire));
        running
    }

    /// Those that the caller may see, the oldest first: its own, or all if it manages the broker.
    fn seen_by(&self, caller: &Caller) -> Vec<(Uuid, Arc<Entry>)> {
        let running = self.running();
        let (own, all) = (caller.name(), caller.is_admin());
        let seen = running.iter().filter(|(_, entry)| all || entry.caller == own);
        let mut seen: Vec<_> = seen.map(|(id, entry)| (*id, Arc::clone(entry))).collect();
        drop(running);
        seen.sort_by_key(|(_, entry)| entry.begun);
        seen
    }
}

fn commits(shards: &[ShardStats]) -> Busy {
    // Those that ended first: else one that begins and one that ends between the two looks make up for each other.
    let ended: u64 = shards.iter().map(|shard| shard.commits_ended.get()).sum();
    let begun = shards.iter().map(|shard| shard.commits.get()).sum();
    Busy { begun, under_way: begun != ended }
}

impl Entry {
    pub(super) fn new(caller: String, group: &str, text: &str) -> Self {
        Self {
            caller,
            group: group.into(),
            text: text[..text.floor_char_boundary(QUERY_SHOWN_BYTES_MAX)].into(),
            begun: Instant::now(),
            begun_us: now_us(),
            total: OnceLock::new(),
            done: AtomicU64::new(0),
            events_read: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            stop: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// The query is at its range now, which has so many offsets. What it read before is not counted as done.
    pub(super) fn at_range(&self, total: u64) {
        let _ = self.total.set(total);
    }

    /// The query has dealt with that many offsets more.
    pub(super) fn advance(&self, offsets: u64) {
        if self.total.get().is_some() {
            self.done.fetch_add(offsets, Ordering::Relaxed);
        }
    }

    /// What it has read so far.
    pub(super) fn has_read(&self, stats: &Stats) {
        self.events_read.store(stats.events_read, Ordering::Relaxed);
        self.bytes_read.store(stats.bytes_read, Ordering::Relaxed);
    }

    /// Completes once the query is to stop. May be dropped at any time.
    pub(super) async fn stopped(&self) {
        self.stop.notified().await;
    }

    fn shape(&self, id: Uuid) -> Value {
        let total = self.total.get();
        // A window that was too large is read again.
        let done = total.map(|total| self.done.load(Ordering::Relaxed).min(*total));
        json!({
            "id": id.to_string(),
            "group": self.group,
            "query": self.text,
            "caller": self.caller,
            "begun": EventEncoder::time_text(self.begun_us),
            "ms": self.begun.elapsed().as_micros() as f64 / 1000.0,
            "events_done": done,
            "events_total": total,
            "events_read": self.events_read.load(Ordering::Relaxed),
            "bytes_read": self.bytes_read.load(Ordering::Relaxed),
        })
    }
}

impl Place {
    pub(super) fn take(broker: &Arc<Broker>, id: Option<Uuid>, entry: Entry) -> Result<Self, Problem> {
        let id = id.unwrap_or_else(|| uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid());
        let may = &broker.config.query;
        let mut running = broker.queries.running();
        let own = running.values().filter(|other| other.caller == entry.caller).count();
        let limit = match () {
            () if running.contains_key(&id) => {
                return Err(Problem::new(409, "duplicate_query", "a query of this id runs now"));
            }
            () if running.len() >= may.running => "running",
            () if own >= may.running_per_token => "running_per_token",
            () => {
                let entry = Arc::new(entry);
                running.insert(id, Arc::clone(&entry));
                drop(running);
                broker.stats.queries_running.inc();
                return Ok(Self { broker: Arc::clone(broker), id, entry });
            }
        };
        let mut problem = Problem::passing(429, "too_many_queries", 500, "as many queries run as may at once");
        problem.members.push(("limit", limit.into()));
        Err(problem)
    }

    /// The plan, about to run within what a query may keep.
    pub(super) fn running(&self, plan: &Arc<Plan>, span: Span, before: Vec<Row>) -> Result<Running, Limit> {
        Running::new(plan, span, self.broker.config.query.memory as usize, before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entry.ended.store(true, Ordering::Release);
        self.broker.stats.queries_running.dec();
    }
}

/// Answers `GET /v1/queries`.
///
/// # Errors
/// What is to be answered instead.
pub fn list(context: &Context, caller: &Caller, head: &Head<'_>, exchange: &mut Exchange) -> Result<(), Problem> {
    Parameters::new(head.query, &["token"])?;
    let seen = context.broker.queries.seen_by(caller);
    let queries: Vec<Value> = seen.iter().map(|(id, entry)| entry.shape(*id)).collect();
    exchange.json(200, &json!({ "queries": queries }));
    Ok(())
}

/// Answers `DELETE /v1/queries/{id}`.
///
/// # Errors
/// What is to be answered instead.
pub fn stop(
    context: &Context,
    caller: &Caller,
    id: &str,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    Parameters::new(head.query, &["token"])?;
    let seen = context.broker.queries.seen_by(caller);
    let found = id.parse::<Uuid>().ok().and_then(|id| seen.into_iter().find(|(known, _)| *known == id));
    let (id, entry) = found.ok_or_else(|| Problem::new(404, "no_query", "no query of this id runs"))?;
    tracing::info!(query = %id, caller = entry.caller, by = caller.name(), "a query is stopped");
    entry.stop.notify_one();
    exchange.reply(204).empty();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::io::system;
    use crate::stats::Stats;
    use std::sync::mpsc;
    use std::time::Duration;

    fn broker() -> Arc<Broker> {
        let (cpus, _) = system::cpus().unwrap();
        let mut config = Config::default();
        (config.query.running, config.query.running_per_token) = (2, 1);
        Arc::new(Broker {
            stats: Stats::default(),
            draining: AtomicBool::new(false),
            started: Instant::now(),
            data: config.data.clone(),
            queries: Queries::start(&cpus[..1], 1, Vec::new()).unwrap(),
            config,
        })
    }

    #[test]
    fn a_query_ends_without_a_wait_for_whoever_looks_at_those_that_run() {
        let broker = broker();
        let take = |id, caller: &str| {
            Place::take(&broker, Some(Uuid::from_u128(id)), Entry::new(caller.to_owned(), "g", "SELECT"))
        };
        let refused = |id, caller| take(id, caller).err().map(|problem| problem.code);
        let places =
            [take(1, "a"), take(2, "b")].map(|place| place.unwrap_or_else(|problem| panic!("{}", problem.detail)));
        assert_eq!(refused(1, "c"), Some("duplicate_query"));
        assert_eq!((refused(3, "a"), refused(3, "c")), (Some("too_many_queries"), Some("too_many_queries")));
        let running = broker.queries.running();
        assert_eq!(running.len(), 2);
        let (told, heard) = mpsc::channel();
        let [first, second] = places;
        std::thread::spawn(move || {
            drop(first);
            told.send(()).unwrap();
        });
        // Nothing that works takes so long.
        let ended = heard.recv_timeout(Duration::from_secs(30));
        drop(running);
        assert_eq!(ended, Ok(()));
        assert_eq!(broker.stats.queries_running.get(), 1);
        assert_eq!(broker.queries.running().keys().copied().collect::<Vec<_>>(), [second.id]);
        for (id, caller) in [(1, "c"), (1, "a"), (3, "a")] {
            assert_eq!(refused(id, caller), None, "its id, and its place for all and for its caller, are free again");
        }
        drop(second);
        assert!(broker.stats.queries_running.get() == 0 && broker.queries.running().is_empty());
    }

    #[test]
    fn commits_of_any_shard_are_under_way_until_they_have_ended() {
        let stats = Stats::default();
        let shards = [stats.shard(0), stats.shard(1)];
        assert_eq!(commits(&shards), Busy::default());
        shards[1].commits.inc();
        shards[1].commits.inc();
        shards[1].commits_ended.inc();
        assert_eq!(commits(&shards), Busy { begun: 2, under_way: true });
        shards[1].commits_ended.inc();
        shards[0].commits.inc();
        assert_eq!(commits(&shards), Busy { begun: 3, under_way: true });
        shards[0].commits_ended.inc();
        assert_eq!(commits(&shards), Busy { begun: 3, under_way: false });
    }

    #[test]
    fn what_is_done_is_of_the_range_and_never_more_than_all() {
        let entry = Entry::new("c".to_owned(), "g", "SELECT");
        let figures = || {
            let shape = entry.shape(Uuid::nil());
            (shape["events_done"].as_u64(), shape["events_total"].as_u64())
        };
        entry.advance(5);
        assert_eq!(figures(), (None, None), "what stands before the range was read first");
        entry.at_range(10);
        assert_eq!(figures(), (Some(0), Some(10)));
        for (more, done) in [(4, 4), (6, 10), (3, 10)] {
            entry.advance(more);
            assert_eq!(figures(), (Some(done), Some(10)));
        }
    }
}
