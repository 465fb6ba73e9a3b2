//! What the broker counts, in the names and base units of Prometheus. What is measured only when somebody asks is in
//! `stats/scrape.rs`.

mod scrape;

pub use scrape::Scrape;

use prometheus_client::encoding::{EncodeLabelSet, text};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The shard something happened in.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ShardLabel {
    shard: u16,
}

/// The kind of request, and what became of it.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: &'static str,
    status: u16,
}

/// What became of a query.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Why a request was refused.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CodeLabel {
    code: &'static str,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 16))
}

/// What one shard counts.
#[derive(Clone)]
pub struct ShardStats {
    /// Events taken.
    pub events: Counter,
    /// Bytes of stored events taken.
    pub bytes: Counter,
    /// Requests that were repeats.
    pub duplicates: Counter,
    /// Commits begun.
    pub commits: Counter,
    /// Commits that were written, or never will be. No metric: what is under way is over before anybody reads of it.
    pub commits_ended: Counter,
    /// From sealing a commit to its being durable.
    pub commit_seconds: Histogram,
    /// Bytes moved to segments.
    pub flushed_bytes: Counter,
    /// Segments that retention removed.
    pub trimmed_segments: Counter,
    /// Bytes of frames in them.
    pub trimmed_bytes: Counter,
    /// Checkpoints completed.
    pub checkpoints: Counter,
    /// How long a checkpoint took.
    pub checkpoint_seconds: Histogram,
    /// 1 once the shard stopped after a disk failure.
    pub failed: Gauge,
    /// Events acked by consumers.
    pub acked: Counter,
    /// Events delivered to a consumer more than once.
    pub redelivered: Counter,
    /// Events copied to the dead letters.
    pub dead_lettered: Counter,
}

/// Everything the broker counts.
pub struct Stats {
    registry: std::sync::Mutex<Registry>,
    events: Family<ShardLabel, Counter>,
    bytes: Family<ShardLabel, Counter>,
    duplicates: Family<ShardLabel, Counter>,
    commits: Family<ShardLabel, Counter>,
    commits_ended: Family<ShardLabel, Counter>,
    commit_seconds: Family<ShardLabel, Histogram, fn() -> Histogram>,
    flushed_bytes: Family<ShardLabel, Counter>,
    trimmed_segments: Family<ShardLabel, Counter>,
    trimmed_bytes: Family<ShardLabel, Counter>,
    checkpoints: Family<ShardLabel, Counter>,
    checkpoint_seconds: Family<ShardLabel, Histogram, fn() -> Histogram>,
    failed: Family<ShardLabel, Gauge>,
    acked: Family<ShardLabel, Counter>,
    redelivered: Family<ShardLabel, Counter>,
    dead_lettered: Family<ShardLabel, Counter>,
    requests: Family<RouteLabel, Counter>,
    rejected: Family<CodeLabel, Counter>,
    /// Events delivered to readers.
    pub delivered: Counter,
    /// Connections open now.
    pub connections: Gauge,
    queries: Family<OutcomeLabel, Counter>,
    query_seconds: Histogram,
    /// Queries that run now.
    pub queries_running: Gauge,
    /// Events that queries read.
    pub query_events: Counter,
    /// Bytes of frames that queries read.
    pub query_bytes: Counter,
}

impl Default for Stats {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("eddyline");
        let stats = Self {
            registry: std::sync::Mutex::default(),
            events: Family::default(),
            bytes: Family::default(),
            duplicates: Family::default(),
            commits: Family::default(),
            commits_ended: Family::default(),
            commit_seconds: Family::new_with_constructor(seconds),
            flushed_bytes: Family::default(),
            trimmed_segments: Family::default(),
            trimmed_bytes: Family::default(),
            checkpoints: Family::default(),
            checkpoint_seconds: Family::new_with_constructor(seconds),
            failed: Family::default(),
            acked: Family::default(),
            redelivered: Family::default(),
            dead_lettered: Family::default(),
            requests: Family::default(),
            rejected: Family::default(),
            delivered: Counter::default(),
            connections: Gauge::default(),
            queries: Family::default(),
            query_seconds: seconds(),
            queries_running: Gauge::default(),
            query_events: Counter::default(),
            query_bytes: Counter::default(),
        };
        registry.register("events_produced", "Events taken", stats.events.clone());
        registry.register_with_unit("produced", "Stored bytes of events taken", Unit::Bytes, stats.bytes.clone());
        registry.register("duplicates", "Requests that were repeats", stats.duplicates.clone());
        registry.register("commits", "Journal entries written", stats.commits.clone());
        registry.register_with_unit(
            "commit",
            "From sealing a commit to its being durable",
            Unit::Seconds,
            stats.commit_seconds.clone(),
        );
        registry.register_with_unit("flushed", "Bytes moved to segments", Unit::Bytes, stats.flushed_bytes.clone());
        let (segments, bytes) = (stats.trimmed_segments.clone(), stats.trimmed_bytes.clone());
        registry.register("trimmed_segments", "Segments that retention removed", segments);
        registry.register_with_unit("trimmed", "Bytes that retention removed", Unit::Bytes, bytes);
        registry.register("checkpoints", "State files written", stats.checkpoints.clone());
        registry.register_with_unit(
            "checkpoint",
            "How long checkpoints took",
            Unit::Seconds,
            stats.checkpoint_seconds.clone(),
        );
        registry.register("shard_failed", "1 once a shard stopped after a disk failure", stats.failed.clone());
        registry.register("consumer_acked_events", "Events acked by consumers", stats.acked.clone());
        registry.register(
            "consumer_redelivered_events",
            "Events delivered to a consumer more than once",
            stats.redelivered.clone(),
        );
        registry.register(
            "consumer_dead_lettered_events",
            "Events copied to the dead letters",
            stats.dead_lettered.clone(),
        );
        registry.register("http_requests", "Requests by route and status", stats.requests.clone());
        registry.register("rejected", "Requests refused, by error code", stats.rejected.clone());
        registry.register("events_delivered", "Events sent to readers", stats.delivered.clone());
        registry.register("connections", "Connections open now", stats.connections.clone());
        registry.register("queries", "Queries that ended, by what became of them", stats.queries.clone());
        let (running, events, bytes) = (&stats.queries_running, &stats.query_events, &stats.query_bytes);
        registry.register("queries_running", "Queries that run now", running.clone());
        registry.register_with_unit("query", "How long queries took", Unit::Seconds, stats.query_seconds.clone());
        registry.register("query_events", "Events that queries read", events.clone());
        registry.register_with_unit("query_read", "Bytes that queries read", Unit::Bytes, bytes.clone());
        Self { registry: std::sync::Mutex::new(registry), ..stats }
    }
}

impl Stats {
    /// The counters of one shard.
    #[must_use]
    pub fn shard(&self, shard: u16) -> ShardStats {
        let label = ShardLabel { shard };
        ShardStats {
            events: self.events.get_or_create_owned(&label),
            bytes: self.bytes.get_or_create_owned(&label),
            duplicates: self.duplicates.get_or_create_owned(&label),
            commits: self.commits.get_or_create_owned(&label),
            commits_ended: self.commits_ended.get_or_create_owned(&label),
            commit_seconds: self.commit_seconds.get_or_create_owned(&label),
            flushed_bytes: self.flushed_bytes.get_or_create_owned(&label),
            trimmed_segments: self.trimmed_segments.get_or_create_owned(&label),
            trimmed_bytes: self.trimmed_bytes.get_or_create_owned(&label),
            checkpoints: self.checkpoints.get_or_create_owned(&label),
            checkpoint_seconds: self.checkpoint_seconds.get_or_create_owned(&label),
            failed: self.failed.get_or_create_owned(&label),
            acked: self.acked.get_or_create_owned(&label),
            redelivered: self.redelivered.get_or_create_owned(&label),
            dead_lettered: self.dead_lettered.get_or_create_owned(&label),
        }
    }

    /// The counter of one kind of request with one outcome; to be kept by whoever counts often.
    #[must_use]
    pub fn request(&self, route: &'static str, status: u16) -> Counter {
        self.requests.get_or_create_owned(&RouteLabel { route, status })
    }

    /// Counts a query that ended.
    pub fn query(&self, outcome: &'static str, took: std::time::Duration) {
        self.queries.get_or_create(&OutcomeLabel { outcome }).inc();
        self.query_seconds.observe(took.as_secs_f64());
    }

    /// Counts a refusal.
    pub fn reject(&self, code: &'static str) {
        self.rejected.get_or_create(&CodeLabel { code }).inc();
    }

    /// All of it, and what was measured now, as OpenMetrics text.
    #[must_use]
    pub fn render(&self, scrape: &Scrape) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let encoded = text::encode_registry(&mut out, &registry)
            .and_then(|()| text::encode_registry(&mut out, scrape.registry()))
            .and_then(|()| text::encode_eof(&mut out));
        encoded.expect("a string takes all text");
        out
    }
}
