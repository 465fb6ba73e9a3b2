//! What a configuration must fulfil beyond the form of its values. Each fault names its keys, the one to change first.

use std::time::Duration;

use super::{Config, Journal};
use crate::limits::{BATCH_BYTES_LIMIT, BLOCK_BYTES, JOURNAL_FILE_BYTES_MIN, JOURNAL_FILES_MIN};
use crate::units::{print_size, print_span};

/// A value, or several together, that cannot work.
pub(super) struct Fault {
    /// The keys whose values clash; the first is the one to change.
    pub(super) keys: &'static [&'static str],
    /// What must hold, and what to do.
    pub(super) message: String,
}

/// Cores and shards of one broker; beyond it a number is a typing error.
const CORES_MAX: usize = 1_024;

/// Everything in `config` that cannot work.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.top(config);
    faults.http(config);
    faults.journal(&config.journal);
    faults.limits(config);
    faults.0
}

struct Faults(Vec<Fault>);

impl Faults {
    /// Notes a fault unless `holds`.
    fn must(&mut self, holds: bool, keys: &'static [&'static str], message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Fault { keys, message: message() });
        }
    }

    fn count(&mut self, keys: &'static [&'static str], value: usize, least: usize, most: usize) {
        self.must((least..=most).contains(&value), keys, || format!("must be from {least} to {most}, and is {value}"));
    }

    fn size(&mut self, keys: &'static [&'static str], value: u64, least: u64) {
        self.must(value >= least, keys, || {
            format!("must be at least {}, and is {}", print_size(least), print_size(value))
        });
    }

    fn span(&mut self, keys: &'static [&'static str], value: Duration, least: Duration, most: Duration) {
        self.must((least..=most).contains(&value), keys, || {
            let [least, most, value] = [least, most, value].map(print_span);
            format!("must be from {least} to {most}, and is {value}")
        });
    }

    /// The memory of `keys` takes at least one batch of the largest size, or such a batch could never come in.
    fn holds_a_batch(&mut self, keys: &'static [&'static str], memory: u64, config: &Config) {
        let batch = config.limits.max_batch_bytes;
        self.must(memory >= batch, keys, || {
            let [memory, batch] = [memory, batch].map(print_size);
            format!("must hold a largest batch, which is {batch} (limits.max_batch_bytes), and is {memory}")
        });
    }

    fn top(&mut self, config: &Config) {
        self.must(!config.listen.is_empty(), &["listen"], || {
            "must name at least one address, such as 127.0.0.1:4437".to_owned()
        });
        for (index, address) in config.listen.iter().enumerate() {
            self.must(address.port() == 0 || !config.listen[..index].contains(address), &["listen"], || {
                format!("{address} is named twice")
            });
            let reachable = !address.ip().to_canonical().is_loopback();
            self.must(!reachable || config.auth.enabled || config.insecure_no_auth, &["listen"], || {
                format!(
                    "{address} can be reached from other machines, and callers need no token; turn tokens on with \
                     --auth-enabled (key `auth.enabled`), listen on 127.0.0.1, or allow it with --insecure-no-auth \
                     (key `insecure_no_auth`)"
                )
            });
        }
        self.count(&["cores"], config.cores, 0, CORES_MAX);
        self.count(&["shards"], config.shards, 0, CORES_MAX);
        self.span(&["drain"], config.drain, Duration::ZERO, Duration::from_secs(3_600));
    }

    fn http(&mut self, config: &Config) {
        let http = &config.http;
        let day = Duration::from_secs(86_400);
        let tick = Duration::from_millis(100);
        self.span(&["http.keep_alive"], http.keep_alive, tick, day);
        self.span(&["http.head"], http.head, tick, day);
        self.span(&["http.body_grace"], http.body_grace, Duration::ZERO, day);
        self.span(&["http.send"], http.send, tick, day);
        self.span(&["http.heartbeat"], http.heartbeat, tick, day);
        self.count(&["http.connections"], http.connections, 1, 10_000_000);
        self.holds_a_batch(&["http.body_memory", "limits.max_batch_bytes"], http.body_memory, config);
        for origin in &http.cors {
            self.must(origin != "*" || http.cors.len() == 1, &["http.cors"], || {
                "\"*\" lets every page call, so it stands alone; remove it or the others".to_owned()
            });
            if let Some(reason) = origin_fault(origin) {
                self.must(false, &["http.cors"], || {
                    format!("`{origin}` {reason}: expected an origin as browsers send it, such as \"https://app.example.org\"")
                });
            }
        }
        for host in &http.hosts {
            self.must(is_host_name(host), &["http.hosts"], || {
                format!(
                    "`{host}` is not a host name: expected for example \"events.example.org\", without scheme and port"
                )
            });
        }
    }

    fn journal(&mut self, journal: &Journal) {
        self.size(&["journal.file_bytes"], journal.file_bytes, JOURNAL_FILE_BYTES_MIN);
        self.must(journal.file_bytes.is_multiple_of(BLOCK_BYTES as u64), &["journal.file_bytes"], || {
            let step = print_size(BLOCK_BYTES as u64);
            format!("must be a multiple of {step}, and is {}", print_size(journal.file_bytes))
        });
        self.must(journal.file_bytes <= 1 << 40, &["journal.file_bytes"], || {
            format!("must be at most 1TiB, and is {}", print_size(journal.file_bytes))
        });
        self.count(&["journal.files"], journal.files, JOURNAL_FILES_MIN as usize, 65_536);
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        let every = config.storage.retention_every;
        self.span(&["storage.retention_every"], every, Duration::from_millis(10), Duration::from_secs(3_600));
        self.size(&["limits.max_event_bytes"], limits.max_event_bytes, 1);
        self.must(
            limits.max_event_bytes <= limits.max_batch_bytes,
            &["limits.max_event_bytes", "limits.max_batch_bytes"],
            || {
                let (event, batch) = (limits.max_event_bytes, limits.max_batch_bytes);
                let [event, batch] = [event, batch].map(print_size);
                format!("is {event}, but a batch, which holds at least one event, may only be {batch} (limits.max_batch_bytes)")
            },
        );
        self.must(limits.max_batch_bytes <= BATCH_BYTES_LIMIT, &["limits.max_batch_bytes"], || {
            format!("must be at most {}, and is {}", print_size(BATCH_BYTES_LIMIT), print_size(limits.max_batch_bytes))
        });
        let tail = config.storage.tail_memory;
        self.holds_a_batch(&["storage.tail_memory", "limits.max_batch_bytes"], tail, config);
        self.count(&["storage.segment_files"], config.storage.segment_files, 8, 1_000_000);
        self.count(&["limits.groups"], limits.groups, 1, 10_000_000);
        self.count(&["limits.tokens"], limits.tokens, 1, 1_000_000);
        self.count(&["limits.queue"], limits.queue, 1, 1 << 20);
        self.span(&["limits.waiting"], limits.waiting, Duration::ZERO, Duration::from_secs(3_600));
        let query = &config.query;
        self.span(&["query.time"], query.time, Duration::from_millis(1), Duration::from_secs(86_400));
        self.size(&["query.memory"], query.memory, 64 << 10);
        self.count(&["query.running"], query.running, 1, 1_000);
        self.count(&["query.running_per_token"], query.running_per_token, 1, 1_000);
    }
}

/// Why no browser sends this text as an origin.
#[must_use]
pub fn origin_fault(origin: &str) -> Option<&'static str> {
    if origin == "*" || origin == "localhost" {
        return None;
    }
    let Some((scheme, host)) = origin.split_once("://") else {
        return Some("has no scheme");
    };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let ipv6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match (scheme, port) {
        ("http", Some("80")) | ("https", Some("443")) => Some("names the port that its scheme implies"),
        (_, Some(port)) if port.parse::<u16>().is_err() => Some("has a bad port"),
        _ if host.contains('/') => Some("has a path"),
        _ if !is_host_name(name) && ipv6.is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()) => {
            Some("has a bad host")
        }
        _ => None,
    }
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
