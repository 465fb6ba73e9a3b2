//! One look at a broker, and what the time between two of them was like. Rates come of the counters in `/metrics`, the rest
//! stands in `/v1/status` and in the statuses of the consumers.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::client::Client;
use super::super::consumer::show::{self, Row};
use super::super::failure::Failure;

/// What a broker said at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    metrics: Metrics,
    status: Value,
    consumers: Vec<Value>,
    rows: Vec<Row>,
}

/// The counters and gauges that are shown.
#[derive(Debug, Default)]
struct Metrics {
    /// By name, over all labels.
    sums: HashMap<String, f64>,
    /// Commits that took at most so many seconds, over all shards, by rising time.
    commits: Vec<(f64, f64)>,
    /// Next offset by group.
    tails: HashMap<String, f64>,
}

impl Sample {
    /// Asks the broker.
    pub(super) fn take(client: &Client) -> Result<Self, Failure> {
        let metrics = Metrics::parse(&client.get("/metrics", "application/openmetrics-text")?.text()?);
        let status = client.get_json("/v1/status")?;
        let consumers = show::first(client)?;
        let rows = show::rows(&consumers)?;
        Ok(Self { at: Instant::now(), metrics, status, consumers, rows })
    }
}

/// The value of a label in what stands between the braces.
fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let found = labels.split(',').find_map(|label| label.split_once('=').filter(|(known, _)| *known == name));
    found.map(|(_, value)| value.trim_matches('"'))
}

impl Metrics {
    /// Reads what is shown from an answer; what is not understood counts as not there.
    fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            let labels = labels.trim_end_matches('}');
            *metrics.sums.entry(name.to_owned()).or_default() += value;
            match name {
                "eddyline_group_tail" => {
                    metrics.tails.extend(label(labels, "group").map(|group| (group.to_owned(), value)));
                }
                "eddyline_commit_seconds_bucket" => {
                    let Some(bound) = label(labels, "le") else { continue };
                    let bound = bound.parse().unwrap_or(f64::INFINITY);
                    match metrics.commits.iter_mut().find(|(known, _)| *known == bound) {
                        Some((_, count)) => *count += value,
                        None => metrics.commits.push((bound, value)),
                    }
                }
                _ => {}
            }
        }
        metrics.commits.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        metrics
    }

    fn sum(&self, name: &str) -> f64 {
        self.sums.get(name).copied().unwrap_or_default()
    }
}

/// How much a counter grew; one that is smaller than before began anew.
fn grown(before: f64, after: f64) -> f64 {
    if after < before { after } else { after - before }
}

/// A group that grows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Growing {
    pub(super) group: String,
    pub(super) tail: f64,
    /// Events a second.
    pub(super) rate: f64,
}

/// What is shown at once.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) version: String,
    pub(super) uptime_seconds: u64,
    pub(super) draining: bool,
    pub(super) faults: Vec<String>,
    pub(super) connections: u64,
    pub(super) groups: u64,
    pub(super) resident_bytes: u64,
    pub(super) disk_free: u64,
    pub(super) disk_reserve: u64,
    pub(super) disk_total: u64,
    /// What happened a second; `None` before the second look.
    pub(super) rates: Option<Rates>,
    /// Consumers, furthest behind first.
    pub(super) rows: Vec<Row>,
    /// The same as the broker told them.
    consumers: Vec<Value>,
    /// All consumers there are.
    pub(super) consumers_all: u64,
    /// Groups that grow, fastest first.
    pub(super) growing: Vec<Growing>,
}

/// What happened a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) events_in: f64,
    pub(super) bytes_in: f64,
    pub(super) events_out: f64,
    pub(super) acked: f64,
    pub(super) commits: f64,
    /// In seconds; `None` when nothing was committed.
    pub(super) commit_p99: Option<f64>,
}

impl Rates {
    fn between(before: &Metrics, after: &Metrics, seconds: f64) -> Self {
        let rate = |name: &str| grown(before.sum(name), after.sum(name)) / seconds;
        let commits: Vec<(f64, f64)> = after
            .commits
            .iter()
            .map(|(bound, count)| {
                let known = before.commits.iter().find(|(known, _)| known == bound);
                (*bound, grown(known.map_or(0.0, |(_, count)| *count), *count))
            })
            .collect();
        Self {
            events_in: rate("eddyline_events_produced_total"),
            bytes_in: rate("eddyline_produced_bytes_total"),
            events_out: rate("eddyline_events_delivered_total"),
            acked: rate("eddyline_consumer_acked_events_total"),
            commits: rate("eddyline_commits_total"),
            commit_p99: quantile(&commits, 0.99),
        }
    }
}

/// The quantile of a histogram by its cumulative buckets: within a bucket times are taken to be spread evenly.
fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = all * part;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            let inside = if bound.is_finite() && *count > below {
                (bound - low) * (rank - below) / (count - below)
            } else {
                0.0
            };
            return Some(low + inside);
        }
        (low, below) = (*bound, *count);
    }
    None
}

impl Tick {
    /// A look with nothing to compare it with.
    pub(super) fn alone(sample: &Sample) -> Self {
        let number = |path: &str| sample.status.pointer(path).and_then(Value::as_u64).unwrap_or_default();
        let mut order: Vec<usize> = (0..sample.rows.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&sample.rows[*a].lag, &sample.rows[*b].lag);
            b.seconds.total_cmp(&a.seconds).then(b.events.cmp(&a.events))
        });
        let shards = sample.status.get("shards").and_then(Value::as_array).into_iter().flatten();
        let faults = shards.filter_map(|shard| shard.get("fault")?.as_str().map(str::to_owned)).collect();
        Self {
            version: sample.status.get("version").and_then(Value::as_str).unwrap_or("?").to_owned(),
            uptime_seconds: number("/uptime_seconds"),
            draining: sample.status.get("draining").and_then(Value::as_bool).unwrap_or_default(),
            faults,
            connections: number("/connections"),
            groups: number("/groups"),
            resident_bytes: number("/resident_bytes"),
            disk_free: number("/disk/free_bytes"),
            disk_reserve: number("/disk/reserve_bytes"),
            disk_total: number("/disk/total_bytes"),
            rates: None,
            rows: order.iter().map(|place| sample.rows[*place].clone()).collect(),
            consumers: order.iter().map(|place| sample.consumers[*place].clone()).collect(),
            consumers_all: sample.metrics.sum("eddyline_consumers") as u64,
            growing: Vec::new(),
        }
    }

    /// What the time between two looks was like.
    pub(super) fn between(before: &Sample, after: &Sample) -> Self {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let mut growing: Vec<Growing> = after
            .metrics
            .tails
            .iter()
            .filter_map(|(group, tail)| {
                let grown = tail - before.metrics.tails.get(group).unwrap_or(tail);
                (grown > 0.0).then(|| Growing { group: group.clone(), tail: *tail, rate: grown / seconds })
            })
            .collect();
        growing.sort_by(|a, b| b.rate.total_cmp(&a.rate).then_with(|| a.group.cmp(&b.group)));
        let rates = Some(Rates::between(&before.metrics, &after.metrics, seconds));
        Self { rates, growing, ..Self::alone(after) }
    }

    /// The consumer that is furthest behind, if any is.
    pub(super) fn worst(&self) -> Option<&Row> {
        self.rows.first().filter(|row| row.lag.events > 0)
    }

    /// All of it for a program.
    pub(super) fn json(&self) -> Value {
        let rate = |rate: fn(&Rates) -> f64| self.rates.as_ref().map(rate);
        let worst = self.worst().map(|row| {
            let lag = &row.lag;
            let lag = json!({ "events": lag.events, "bytes": lag.bytes, "seconds": lag.seconds });
            json!({ "group": row.group, "consumer": row.consumer, "lag": lag })
        });
        let growing = self.growing.iter();
        let growing = growing.map(|group| json!({ "group": group.group, "tail": group.tail, "events_in": group.rate }));
        json!({
            "version": self.version,
            "uptime_seconds": self.uptime_seconds,
            "draining": self.draining,
            "faults": self.faults,
            "events_in": rate(|rates| rates.events_in),
            "bytes_in": rate(|rates| rates.bytes_in),
            "events_out": rate(|rates| rates.events_out),
            "acked": rate(|rates| rates.acked),
            "commits": rate(|rates| rates.commits),
            "commit_p99_seconds": self.rates.and_then(|rates| rates.commit_p99),
            "connections": self.connections,
            "groups": self.groups,
            "resident_bytes": self.resident_bytes,
            "disk": {
                "free_bytes": self.disk_free,
                "reserve_bytes": self.disk_reserve,
                "total_bytes": self.disk_total,
            },
            "worst": worst,
            "consumers_all": self.consumers_all,
            "consumers": self.consumers,
            "growing": growing.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
