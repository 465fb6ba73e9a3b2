//! The broker in its own words: its `/metrics` before a load, every second of it, and after it, and what that comes to.
//! A target that tells no such thing ends nothing: why is told instead.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::Api;
use crate::series::Slot;
use crate::units::{grouped, nanoseconds, rate};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// What of it says nothing by itself.
const PART: Duration = Duration::from_millis(500);

/// What a broker said at one moment, over all labels.
#[derive(Clone, Debug)]
pub struct Look {
    at: Instant,
    events_in: f64,
    bytes_in: f64,
    events_out: f64,
    commits: f64,
    /// Seconds that commits took, all together, and how many of them took at most so many seconds.
    commit_seconds: f64,
    commit_buckets: Vec<(f64, f64)>,
    checkpoints: f64,
    flushed_bytes: f64,
    queries: f64,
    cpu_seconds: f64,
    resident_bytes: f64,
    connections: f64,
}

/// What the time between two looks was like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// Seconds from the beginning of the measured part to the first look; a little before it at its beginning.
    pub at_s: f64,
    /// Seconds between the looks.
    pub length_s: f64,
    /// Events taken.
    pub events_in_per_second: f64,
    /// Stored bytes of them.
    pub bytes_in_per_second: f64,
    /// Events given to readers.
    pub events_out_per_second: f64,
    /// Commits begun.
    pub commits_per_second: f64,
    /// Events taken by each; nothing without any.
    pub events_per_commit: Option<f64>,
    /// From sealing a commit to its being durable.
    pub commit_mean_ns: Option<f64>,
    /// The same, half of them, as far as the broker's buckets tell.
    pub commit_p50_ns: Option<f64>,
    /// The same, 99 of 100.
    pub commit_p99_ns: Option<f64>,
    /// Commits that were on their way to the disk at a time, on average.
    pub commits_in_flight: f64,
    /// State files written.
    pub checkpoints: f64,
    /// Bytes moved from journals to segments.
    pub flushed_bytes_per_second: f64,
    /// Queries that ended.
    pub queries_per_second: f64,
    /// CPU time of the process.
    pub cpu_of_a_core: f64,
    /// The same for each event taken or given.
    pub cpu_us_per_event: Option<f64>,
    /// Resident memory at the end.
    pub resident_bytes: f64,
    /// Connections open at the end.
    pub connections: f64,
}

/// What looking came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Broker {
    /// The broker told.
    Told {
        /// The measured part as a whole.
        whole: Span,
        /// The same, a second or so each.
        series: Vec<Span>,
    },
    /// It did not.
    Silent {
        /// Why.
        why: String,
    },
}

impl Look {
    /// Asks the broker.
    ///
    /// # Errors
    /// Why it tells nothing, in words.
    pub fn take(api: &Api) -> Result<Look, String> {
        let text = api.metrics().map_err(|error| error.to_string())?;
        Look::parse(&text, Instant::now()).ok_or_else(|| "its /metrics tells of no eddyline".to_owned())
    }

    /// Resident memory.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes as u64
    }

    /// Reads what is told; nothing if nothing in it is a broker's. Lines that are not understood are skipped.
    fn parse(text: &str, at: Instant) -> Option<Look> {
        let mut look = Look {
            at,
            events_in: 0.0,
            bytes_in: 0.0,
            events_out: 0.0,
            commits: 0.0,
            commit_seconds: 0.0,
            commit_buckets: Vec::new(),
            checkpoints: 0.0,
            flushed_bytes: 0.0,
            queries: 0.0,
            cpu_seconds: 0.0,
            resident_bytes: 0.0,
            connections: 0.0,
        };
        let mut known = false;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            known |= name.starts_with("eddyline_");
            if name == "eddyline_commit_seconds_bucket" {
                look.bucket(labels, value);
            } else if let Some(sum) = look.sum(name) {
                *sum += value;
            }
        }
        look.commit_buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        known.then_some(look)
    }

    fn sum(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "eddyline_events_produced_total" => &mut self.events_in,
            "eddyline_produced_bytes_total" => &mut self.bytes_in,
            "eddyline_events_delivered_total" => &mut self.events_out,
            "eddyline_commits_total" => &mut self.commits,
            "eddyline_commit_seconds_sum" => &mut self.commit_seconds,
            "eddyline_checkpoints_total" => &mut self.checkpoints,
            "eddyline_flushed_bytes_total" => &mut self.flushed_bytes,
            "eddyline_queries_total" => &mut self.queries,
            "eddyline_connections" => &mut self.connections,
            "process_cpu_seconds_total" => &mut self.cpu_seconds,
            "process_resident_memory_bytes" => &mut self.resident_bytes,
            _ => return None,
        })
    }

    fn bucket(&mut self, labels: &str, value: f64) {
        let mut labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let Some((_, bound)) = labels.find(|(name, _)| *name == "le") else { return };
        let bound = bound.trim_matches('"').parse().unwrap_or(f64::INFINITY);
        match self.commit_buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += value,
            None => self.commit_buckets.push((bound, value)),
        }
    }
}

impl Span {
    fn between(before: &Look, after: &Look, from: Instant) -> Span {
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        // A counter that is smaller than before began anew: the broker was started again.
        let grown = |value: fn(&Look) -> f64| {
            let (before, after) = (value(before), value(after));
            if after < before { after } else { after - before }
        };
        let per_second = |value: fn(&Look) -> f64| grown(value) / seconds;
        let of = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        let buckets: Vec<(f64, f64)> = after
            .commit_buckets
            .iter()
            .map(|(bound, count)| {
                let known =
                    before.commit_buckets.iter().find(|(known, _)| known == bound).map_or(0.0, |(_, count)| *count);
                (*bound, if *count < known { *count } else { count - known })
            })
            .collect();
        let committed = buckets.last().map_or(0.0, |(_, count)| *count);
        let commit = |part: f64| quantile(&buckets, part).map(|seconds| seconds * 1e9);
        let handled = grown(|look| look.events_in) + grown(|look| look.events_out);
        let at = before.at.saturating_duration_since(from).as_secs_f64()
            - from.saturating_duration_since(before.at).as_secs_f64();
        Span {
            at_s: at,
            length_s: seconds,
            events_in_per_second: per_second(|look| look.events_in),
            bytes_in_per_second: per_second(|look| look.bytes_in),
            events_out_per_second: per_second(|look| look.events_out),
            commits_per_second: per_second(|look| look.commits),
            events_per_commit: of(grown(|look| look.events_in), grown(|look| look.commits)),
            commit_mean_ns: of(grown(|look| look.commit_seconds) * 1e9, committed),
            commit_p50_ns: commit(0.5),
            commit_p99_ns: commit(0.99),
            commits_in_flight: per_second(|look| look.commit_seconds),
            checkpoints: grown(|look| look.checkpoints),
            flushed_bytes_per_second: per_second(|look| look.flushed_bytes),
            queries_per_second: per_second(|look| look.queries),
            cpu_of_a_core: per_second(|look| look.cpu_seconds),
            cpu_us_per_event: of(grown(|look| look.cpu_seconds) * 1e6, handled),
            resident_bytes: after.resident_bytes,
            connections: after.connections,
        }
    }
}

/// The quantile of a histogram by its cumulative buckets: within a bucket times are taken to be spread evenly.
fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<f64> {
    let rank = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)? * part;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if *count >= rank {
            let within = bound.is_finite() && *count > below;
            return Some(low + if within { (bound - low) * (rank - below) / (count - below) } else { 0.0 });
        }
        (low, below) = (*bound, *count);
    }
    None
}

/// Looks of a run, or why there are none.
#[derive(Debug)]
pub struct Looks(Result<Vec<Look>, String>);

/// A thread that looks; ends when finished or dropped.
pub struct Watch<'s> {
    end: Sender<()>,
    thread: ScopedJoinHandle<'s, Looks>,
}

impl<'s> Watch<'s> {
    /// Looks for the first time, and then every second on a thread of its own.
    pub fn start<'e: 's>(scope: &'s Scope<'s, 'e>, api: &'e Api) -> Watch<'s> {
        let (end, ended) = channel();
        let mut looks = Looks(Look::take(api).map(|look| vec![look]));
        let thread = scope.spawn(move || {
            while looks.0.is_ok() && ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                looks.add(Look::take(api));
            }
            if looks.0.is_ok() {
                looks.add(Look::take(api));
            }
            looks
        });
        Watch { end, thread }
    }

    /// Looks for the last time, and says what it was like since the beginning of the measured part.
    pub fn finish(self, from: Instant) -> Broker {
        drop(self.end);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).since(from)
    }
}

impl Looks {
    /// Adds a look. The last one before it goes if it stands too close to either side, so that spans have some length and
    /// a long run stays small; one that was not answered is left out.
    fn add(&mut self, look: Result<Look, String>) {
        let (Ok(looks), Ok(look)) = (&mut self.0, look) else { return };
        if let [first, .., before, last] | [first @ before, last] = &looks[..] {
            let length = Slot::of(look.at.saturating_duration_since(first.at).as_secs()).length_s;
            let length = Duration::from_secs(length).saturating_sub(PART);
            if last.at.saturating_duration_since(before.at) < length
                || look.at.saturating_duration_since(last.at) < PART
            {
                looks.pop();
            }
        }
        looks.push(look);
    }

    fn since(self, from: Instant) -> Broker {
        let looks = match self.0 {
            Ok(looks) => looks,
            Err(why) => return Broker::Silent { why },
        };
        // The last look that is not of the measured part is where it begins.
        let first = looks.iter().rposition(|look| look.at <= from).unwrap_or_default();
        match &looks[first..] {
            [begin, .., end] => Broker::Told {
                whole: Span::between(begin, end, from),
                series: looks[first..].windows(2).map(|pair| Span::between(&pair[0], &pair[1], from)).collect(),
            },
            _ => Broker::Silent { why: "it told its metrics only once".to_owned() },
        }
    }
}

impl Broker {
    /// The whole in a line, for people.
    pub fn line(&self) -> String {
        let whole = match self {
            Broker::Told { whole, .. } => whole,
            Broker::Silent { why } => return format!("note: the broker's metrics are unknown: {why}"),
        };
        let time = |time: Option<f64>| nanoseconds(time.unwrap_or_default() as u64);
        let each = whole
            .events_per_commit
            .filter(|_| whole.events_in_per_second > 0.0)
            .map_or_else(String::new, |each| format!(" of {each:.1} events"));
        let memory = grouped(whole.resident_bytes as u64 >> 20);
        format!(
            "broker     {} commits/s{each}, mean {} p99 {}, {:.0} % of a core, {memory} MiB",
            rate(whole.commits_per_second),
            time(whole.commit_mean_ns),
            time(whole.commit_p99_ns),
            whole.cpu_of_a_core * 100.0,
        )
    }
}

#[cfg(test)]
mod tests;
