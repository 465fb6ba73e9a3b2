//! The list of everything that can be set: its name, what it is for, and where it goes. Files, variables, flags, help
//! texts and the example file are all made from this list, so that a setting has one name in all of them.

use super::Config;
use super::value::Value;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name in the file, with its table: `journal.file_bytes`.
    pub key: &'static str,
    /// What it is for, in one or two lines.
    pub about: &'static str,
    /// Often wanted: its flag stands in the short help.
    pub common: bool,
    /// Its place in a configuration.
    pub at: fn(&mut Config) -> &mut dyn Value,
}

impl Setting {
    /// Name of the variable: `EDDYLINE_JOURNAL_FILE_BYTES`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("EDDYLINE_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Name of the flag, without the dashes in front: `journal-file-bytes`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// Table in the file, empty at the top.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(table, _)| table)
    }

    /// Name within its table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }

    /// The value it has in `config`, as TOML.
    #[must_use]
    pub fn toml(&self, config: &Config) -> String {
        (self.at)(&mut config.clone()).toml()
    }

    /// What it is worth when nobody sets it, as TOML.
    #[must_use]
    pub fn default_toml(&self) -> String {
        self.toml(&Config::default())
    }
}

macro_rules! settings {
    ($($common:ident $key:literal => $($field:ident).+, $about:literal;)+) => {
        /// Everything that can be set, in the order of the example file.
        pub const SETTINGS: &[Setting] = &[
            $(Setting {
                key: $key,
                about: $about,
                common: settings!(@ $common),
                at: |config| &mut config.$($field).+,
            },)+
        ];
    };
    (@ common) => { true };
    (@ rare) => { false };
}

settings! {
    common "listen" => listen,
        "Addresses to listen on. Other than loopback needs tokens, or insecure_no_auth.";
    common "data" => data,
        "Data directory. Empty: $XDG_DATA_HOME/eddyline (~/.local/share/eddyline), or /var/lib/eddyline for root.";
    common "cores" => cores,
        "Cores that serve, out of those the process may run on. 0: all of them.";
    rare "shards" => shards,
        "Shards of a new data directory; fixed from then on. 0: as many as cores.";
    common "auto_create" => auto_create,
        "Producing to a group that does not exist creates it.";
    rare "drain" => drain,
        "Longest wait for commits and live readers after SIGTERM.";
    common "insecure_no_auth" => insecure_no_auth,
        "Allow to listen beyond loopback although callers need no token.";

    rare "http.keep_alive" => http.keep_alive,
        "An idle connection is closed after this.";
    rare "http.head" => http.head,
        "Time for a request's complete headers.";
    rare "http.body_grace" => http.body_grace,
        "How long a request's body may be slower than body_rate.";
    rare "http.body_rate" => http.body_rate,
        "Slowest body after body_grace, in bytes a second.";
    rare "http.send" => http.send,
        "A reader who takes nothing for this long is dropped.";
    rare "http.connections" => http.connections,
        "Connections at once.";
    rare "http.cors" => http.cors,
        "Origins whose pages may call: exact ones such as \"https://app.example.org\", \"localhost\"\n\
         (any port of this machine), or \"*\" alone.";
    rare "http.hosts" => http.hosts,
        "Names accepted in a Host header, besides localhost and IP addresses on loopback.";
    rare "http.heartbeat" => http.heartbeat,
        "A live reader hears something at least this often.";
    rare "http.body_memory" => http.body_memory,
        "Memory for request bodies that are still coming in, a core.";

    rare "journal.file_bytes" => journal.file_bytes,
        "Size of a journal file, a multiple of 4KiB. Unless this or files is set, a smaller ring is made\n\
         where all of them would take more than 1/64 of the disk.";
    rare "journal.files" => journal.files,
        "Journal files of a shard, at least 4.";

    rare "storage.reserve" => storage.reserve,
        "Events are refused (507) when less disk space than this is free; reads go on.";
    rare "storage.tail_memory" => storage.tail_memory,
        "Memory for events that are not in a segment yet, a shard.";
    rare "storage.segment_files" => storage.segment_files,
        "Segment files kept open, a core.";
    rare "storage.retention_every" => storage.retention_every,
        "How often groups are looked at for segments to seal by age and to remove by retention.";

    rare "limits.max_event_bytes" => limits.max_event_bytes,
        "Largest event.";
    rare "limits.max_batch_bytes" => limits.max_batch_bytes,
        "Largest body of a batch.";
    rare "limits.groups" => limits.groups,
        "Groups of the broker.";
    rare "limits.consumers" => limits.consumers,
        "Consumers of a shard.";
    rare "limits.tokens" => limits.tokens,
        "Tokens of the broker.";
    rare "limits.queue" => limits.queue,
        "Requests under way from one core to another.";
    rare "limits.waiting" => limits.waiting,
        "How long a write may wait for room before it is answered 503.";

    rare "consumers.lease" => consumers.lease,
        "How long a consumer's session lives without a call, unless its approval says otherwise.";
    rare "consumers.stuck_after" => consumers.stuck_after,
        "A consumer that acks nothing for this long, although something was delivered, counts as stuck.";

    rare "query.time" => query.time,
        "How long a query may run; one that follows, until it has reached the tail.";
    rare "query.memory" => query.memory,
        "Memory for the groups, distinct values and waiting rows of a query.";
    rare "query.rows" => query.rows,
        "Rows of one answer to a query.";
    rare "query.span" => query.span,
        "Longest range of a query, from its beginning to its end in time. 0s: any.";
    rare "query.running" => query.running,
        "Queries that run at once.";
    rare "query.running_per_token" => query.running_per_token,
        "Of these, with one token, or of callers without.";

    rare "metrics.groups" => metrics.groups,
        "Groups that /metrics tells of one by one, the first by name. 0: none.";
    rare "metrics.consumers" => metrics.consumers,
        "Consumers that /metrics tells of one by one, the first by group and name. 0: none.";

    common "log.format" => log.format,
        "\"text\", \"json\", or \"auto\": text on a terminal, else json.";
    common "log.level" => log.level,
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\". EDDYLINE_LOG sets finer filters.";

    common "auth.enabled" => auth.enabled,
        "Callers need tokens.";
}

/// The known name nearest to `given`, if it is near enough to be meant.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(given.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
