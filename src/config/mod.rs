//! The broker's configuration: what can be set, the defaults, and the order of what wins: flag > environment
//! (`EDDYLINE_…`) > TOML file > default, one name for a setting in all four. `settings.rs` is the list of names,
//! `load.rs` reads the sources, `check.rs` refuses what cannot work, `problem.rs` says where. Nothing here opens
//! anything but the configuration file.

mod check;
mod load;
mod print;
mod problem;
mod settings;
mod value;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::origin_fault;
pub use load::{Loaded, Origin, Sources, environment, load};
pub use problem::{Place, Problem, Problems};
pub use settings::{SETTINGS, Setting};
pub use value::Value;

use crate::limits::{BLOCK_BYTES, JOURNAL_FILE_BYTES_MIN, JOURNAL_FILES_MIN};

const MIB: u64 = 1 << 20;

/// Everything that can be set, checked and resolved: `data` is a path to use, `listen` holds at least one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the broker listens.
    pub listen: Vec<SocketAddr>,
    /// Data directory.
    pub data: PathBuf,
    /// Cores that serve; 0 = all in the CPU mask of the process.
    pub cores: usize,
    /// Shards of a data directory that is made now; 0 = as many as cores.
    pub shards: usize,
    /// Producing to a group that does not exist makes it.
    pub auto_create: bool,
    /// Longest wait for commits and live readers when told to end.
    pub drain: Duration,
    /// Listening on other addresses than loopback is allowed although nobody has to show a token.
    pub insecure_no_auth: bool,
    /// Connections and what they may take.
    pub http: Http,
    /// The ring of files that commits go to.
    pub journal: Journal,
    /// Segments and memory in front of them.
    pub storage: Storage,
    /// What a request and a broker may hold.
    pub limits: Limits,
    /// Readers with a position.
    pub consumers: Consumers,
    /// What queries may take.
    pub query: Query,
    /// What `/metrics` tells.
    pub metrics: Metrics,
    /// What is said on stderr.
    pub log: Log,
    /// Tokens.
    pub auth: Auth,
}

/// Connections and what they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// An idle connection is closed after this.
    pub keep_alive: Duration,
    /// Time for complete request headers.
    pub head: Duration,
    /// A body may be slower than `body_rate` for this long.
    pub body_grace: Duration,
    /// Slowest body after `body_grace`, in bytes a second.
    pub body_rate: u64,
    /// A reader who takes nothing for this long is dropped.
    pub send: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Origins that browsers may call from: exact ones, `localhost` (any port of this machine), or `*` alone.
    pub cors: Vec<String>,
    /// Names accepted in `Host`, in lower case, besides IP literals on loopback and `localhost`.
    pub hosts: Vec<String>,
    /// A live reader hears something at least this often.
    pub heartbeat: Duration,
    /// Memory for request bodies that are still coming in, in bytes a core.
    pub body_memory: u64,
}

/// The ring of files that commits go to, one a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Files of one ring.
    pub files: usize,
    /// One of the two above was asked for, so [`Journal::ring`] keeps them on any disk.
    pub fixed: bool,
}

/// Segments and memory in front of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Free disk space below which events are refused, in bytes.
    pub reserve: u64,
    /// Memory for events that are in no segment yet, in bytes a shard.
    pub tail_memory: u64,
    /// Open segment files kept a core.
    pub segment_files: usize,
    /// How often it is looked at what retention takes.
    pub retention_every: Duration,
}

/// What a request and a broker may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest event, in bytes; a group may ask for less.
    pub max_event_bytes: u64,
    /// Largest body of a batch, in bytes; a group may ask for less.
    pub max_batch_bytes: u64,
    /// Groups of the broker.
    pub groups: usize,
    /// Consumers of a shard.
    pub consumers: usize,
    /// Tokens of the broker.
    pub tokens: usize,
    /// Requests under way to another core, a core.
    pub queue: usize,
    /// How long a write may wait for room before it is answered 503.
    pub waiting: Duration,
}

/// Readers with a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumers {
    /// How long a session lives without a call, unless an approval says otherwise.
    pub lease: Duration,
    /// A consumer that acks nothing for this long, although something was delivered, counts as stuck.
    pub stuck_after: Duration,
}

/// What queries may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// How long one may run; one that follows, until it has reached the tail.
    pub time: Duration,
    /// What one may keep: groups, distinct values, rows that wait; in bytes.
    pub memory: u64,
    /// Rows of one answer.
    pub rows: usize,
    /// Longest range in time; 0 = any.
    pub span: Duration,
    /// How many run at once.
    pub running: usize,
    /// Of these, with one token, or of callers without.
    pub running_per_token: usize,
}

/// What `/metrics` tells one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Groups at most, the first by name.
    pub groups: usize,
    /// Consumers at most, the first by group and name.
    pub consumers: usize,
}

/// What is said on stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// Least severe level that is said.
    pub level: LogLevel,
}

/// Tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Whether callers need tokens.
    pub enabled: bool,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// How severe a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warn,
    /// What an operator wants to know.
    Info,
    /// For those who look for a cause.
    Debug,
    /// Everything.
    Trace,
}

impl Default for Config {
    /// The defaults; `data` is empty until [`load`] resolves it.
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 4437))],
            data: PathBuf::new(),
            cores: 0,
            shards: 0,
            auto_create: false,
            drain: Duration::from_secs(10),
            insecure_no_auth: false,
            http: Http {
                keep_alive: Duration::from_secs(75),
                head: Duration::from_secs(10),
                body_grace: Duration::from_secs(5),
                body_rate: 1_000,
                send: Duration::from_secs(10),
                connections: 10_000,
                cors: Vec::new(),
                hosts: Vec::new(),
                heartbeat: Duration::from_secs(15),
                body_memory: 64 * MIB,
            },
            journal: Journal { file_bytes: 32 * MIB, files: 8, fixed: false },
            storage: Storage {
                reserve: 256 * MIB,
                tail_memory: 64 * MIB,
                segment_files: 512,
                retention_every: Duration::from_secs(10),
            },
            limits: Limits {
                max_event_bytes: MIB,
                max_batch_bytes: 8 * MIB,
                groups: 100_000,
                consumers: 250_000,
                tokens: 10_000,
                queue: 4096,
                waiting: Duration::from_secs(5),
            },
            consumers: Consumers { lease: Duration::from_secs(30), stuck_after: Duration::from_secs(60) },
            query: Query {
                time: Duration::from_secs(300),
                memory: 64 * MIB,
                rows: 10_000_000,
                span: Duration::ZERO,
                running: 16,
                running_per_token: 8,
            },
            metrics: Metrics { groups: 1_000, consumers: 1_000 },
            log: Log { format: LogFormat::Auto, level: LogLevel::Info },
            auth: Auth { enabled: false },
        }
    }
}

/// Size of one shard's journal ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Bytes of one file, a multiple of the block size.
    pub file_bytes: u64,
    /// Files.
    pub files: usize,
}

impl Journal {
    /// The ring of each of `shards` shards on a disk of `disk_bytes`. Sizes that were asked for are kept; the default
    /// shrinks, files first, then their number, until all rings together take at most 1/64 of the disk, but never
    /// below the smallest ring.
    #[must_use]
    pub fn ring(&self, shards: usize, disk_bytes: u64) -> Ring {
        let room = disk_bytes / 64 / shards.max(1) as u64;
        if self.fixed || self.file_bytes * self.files as u64 <= room {
            return Ring { file_bytes: self.file_bytes, files: self.files };
        }
        let share = room / self.files as u64;
        let file_bytes = (share - share % BLOCK_BYTES as u64).max(JOURNAL_FILE_BYTES_MIN);
        let files = (room / file_bytes).clamp(JOURNAL_FILES_MIN, self.files as u64);
        Ring { file_bytes, files: files as usize }
    }
}

/// Where data lives when nobody says: `/var/lib/eddyline` for root, else `$XDG_DATA_HOME/eddyline`, else
/// `~/.local/share/eddyline`. A relative `XDG_DATA_HOME` counts as unset, as the XDG base directory page asks.
#[must_use]
pub fn default_data(root: bool, xdg_data_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/eddyline"));
    }
    let absolute = |path: Option<&Path>| path.filter(|path| path.is_absolute()).map(Path::to_path_buf);
    let base = absolute(xdg_data_home).or_else(|| absolute(home).map(|home| home.join(".local/share")));
    base.map(|base| base.join("eddyline"))
}
