//! What a consumer is doing: where it stands, how far behind it is in events, bytes and seconds, and what holds it up.
//!
//! Lag is computed when somebody asks: from the position, the index, and the event at the head.

use super::Subject;
use crate::api::Context;
use crate::api::auth::Caller;
use crate::api::encode::EventEncoder;
use crate::api::exchange::Exchange;
use crate::api::parameters::Parameters;
use crate::api::problem::Problem;
use crate::group::consumer::{Blocked, Consumer, Life};
use crate::http::Head;
use crate::limits::CONSUMERS_PER_PAGE_MAX;
use crate::shard::Fault;
use crate::shard::consumers::ConsumerStatus;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::directory::Entry;
use crate::shard::read::Range;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Answers `GET …/consumers/{consumer}`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn one(context: &Rc<Context>, subject: &Subject<'_>, exchange: &mut Exchange) -> Result<(), Problem> {
    show(context, subject, 200, None, exchange).await
}

/// Answers with the consumer's status, and the token that was just made for it.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn show(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    code: u16,
    token: Option<&str>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let status = ask(context, subject).await?;
    let mut shown = describe(context, &subject.entry, &status, &mut Looked::default()).await?;
    if let Some(token) = token {
        shown["token"] = json!(token);
    }
    exchange.json(code, &shown);
    Ok(())
}

/// The consumer as it is now.
///
/// # Errors
/// When it is not there.
pub(super) async fn ask(context: &Context, subject: &Subject<'_>) -> Result<ConsumerStatus, Fault> {
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let ask = context
        .shards
        .ask(subject.shard(), move |shard| Box::pin(async move { shard.consumer_status(group, &name).await }));
    ask.await
}

/// Answers `GET /v1/groups/{group}/consumers`.
///
/// # Errors
/// What is to be answered instead.
pub async fn of_group(
    context: &Rc<Context>,
    group: &str,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let entry = context.group(group)?;
    let parameters = Parameters::new(head.query, &["after", "limit"])?;
    let after = parameters.text("after")?.unwrap_or_default();
    let limit = parameters.count("limit", 100, CONSUMERS_PER_PAGE_MAX as u64)? as usize;
    let mut page = page(context, &entry, &after, limit + 1).await?;
    let more = page.len() > limit;
    page.truncate(limit);
    let mut list = List::default();
    for status in &page {
        list.add(context, &entry, status).await?;
    }
    list.answer(page.last().filter(|_| more).map(|last| &*last.name), exchange);
    Ok(())
}

/// Answers `GET /v1/consumers`: all groups' consumers, by group and name. `after` is `group/consumer`.
///
/// # Errors
/// What is to be answered instead.
pub async fn of_all(
    context: &Rc<Context>,
    caller: &Caller,
    head: &Head<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &["prefix", "after", "limit"])?;
    let prefix = parameters.text("prefix")?.unwrap_or_default();
    let after = parameters.text("after")?.unwrap_or_default();
    let (after_group, after_name) = after.split_once('/').unwrap_or((&after, ""));
    let limit = parameters.count("limit", 100, CONSUMERS_PER_PAGE_MAX as u64)? as usize;
    let mut list = List::default();
    let mut last = String::new();
    let mut more = false;
    for entry in groups_with_consumers(context, &prefix, |group| caller.sees(group)).await {
        let group = &*entry.table.name;
        if group < after_group {
            continue;
        }
        let after = if group == after_group { after_name } else { "" };
        for status in page(context, &entry, after, limit + 1 - list.consumers).await.unwrap_or_default() {
            more = list.consumers == limit;
            if more {
                break;
            }
            list.add(context, &entry, &status).await?;
            last = format!("{group}/{}", status.name);
        }
        if more {
            break;
        }
    }
    list.answer(more.then_some(&last), exchange);
    Ok(())
}

/// The groups that have consumers, by name.
pub async fn groups_with_consumers(context: &Context, prefix: &str, shown: impl Fn(&str) -> bool) -> Vec<Arc<Entry>> {
    let mut numbers = HashSet::new();
    for shard in 0..context.shards.count() {
        let known = context.shards.ask(shard as u16, |shard| Box::pin(async move { shard.groups_with_consumers() }));
        numbers.extend(known.await.into_iter().map(|(number, _)| number));
    }
    let all = context.lookup.directory().page(prefix, "", usize::MAX, shown);
    all.into_iter().filter(|entry| numbers.contains(&entry.table.number)).collect()
}

async fn page(context: &Context, entry: &Entry, after: &str, limit: usize) -> Result<Vec<ConsumerStatus>, Fault> {
    let (group, after) = (entry.table.number, Box::<str>::from(after));
    let page = context
        .shards
        .ask(entry.table.shard, move |shard| Box::pin(async move { shard.consumer_page(group, &after, limit).await }));
    page.await
}

/// How far a consumer is behind.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// Events that are not acked.
    events: u64,
    /// Their stored bytes, from the frame that holds the first.
    bytes: u64,
    /// Age of the oldest of them.
    seconds: f64,
}

/// Consumers described between two turns of the loop.
const CONSUMERS_PER_SLICE: usize = 16;

/// The body of a list, written consumer by consumer: a thousand of them at once would hold the core.
#[derive(Default)]
struct List {
    consumers: usize,
    body: String,
    looked: Looked,
}

impl List {
    async fn add(&mut self, context: &Rc<Context>, entry: &Entry, status: &ConsumerStatus) -> Result<(), Fault> {
        let described = describe(context, entry, status, &mut self.looked).await?;
        self.body.push_str(if self.consumers == 0 { "" } else { "," });
        self.body.push_str(&described.to_string());
        self.consumers += 1;
        if self.consumers.is_multiple_of(CONSUMERS_PER_SLICE) {
            crate::io::ring::park().await;
        }
        Ok(())
    }

    /// Answers with the list, and with where it goes on.
    fn answer(self, next: Option<&str>, exchange: &mut Exchange) {
        let next = next.map(|next| format!(",\"next\":{}", json!(next))).unwrap_or_default();
        let body = format!("{{\"consumers\":[{}]{next}}}", self.body);
        let reply = exchange.reply(200).header("X-Content-Type-Options", "nosniff");
        reply.body("application/json", body.as_bytes());
    }
}

/// What was looked up for one answer: most consumers of a group stand at the same few offsets.
#[derive(Default)]
struct Looked {
    /// By group and offset: stored bytes from there on.
    bytes: HashMap<(u32, u64), u64>,
    /// The same: id and time of the event, if it can be read.
    stamps: HashMap<(u32, u64), Option<(u128, u64)>>,
}

/// Computes how far a consumer is behind.
async fn lag(context: &Rc<Context>, entry: &Entry, status: &ConsumerStatus, looked: &mut Looked) -> Result<Lag, Fault> {
    let head = status.consumer.next.max(status.earliest);
    if !status.consumer.has_position() || head >= status.tail {
        return Ok(Lag::default());
    }
    let (shard, group) = (entry.table.shard, entry.table.number);
    let bytes = match looked.bytes.get(&(group, head)) {
        Some(known) => *known,
        None => {
            let bytes =
                context.shards.ask(shard, move |shard| Box::pin(async move { shard.bytes_from(group, head).await }));
            let bytes = bytes.await.unwrap_or_default();
            looked.bytes.insert((group, head), bytes);
            bytes
        }
    };
    let oldest = stamp(context, entry, status.first, looked).await.map_or(status.now.wall_us, |(_, received)| received);
    let seconds = status.now.wall_us.saturating_sub(oldest) as f64 / 1e6;
    Ok(Lag { events: status.lag, bytes, seconds })
}

/// Id and time of an event, if it can be read.
async fn stamp(context: &Rc<Context>, entry: &Entry, offset: u64, looked: &mut Looked) -> Option<(u128, u64)> {
    let key = (entry.table.number, offset);
    if let Some(known) = looked.stamps.get(&key) {
        return *known;
    }
    let cursor = Cursor::new(Rc::clone(&context.shards), entry.table.shard, entry.table.number, offset);
    let stamp = read_stamp(cursor, offset).await;
    looked.stamps.insert(key, stamp);
    stamp
}

/// The same, looked up alone.
pub async fn read_stamp(mut cursor: Cursor, offset: u64) -> Option<(u128, u64)> {
    let mut frames = Frames::default();
    if !cursor.read(&mut frames).await.ok()? {
        return None;
    }
    let mut events = frames.iter().flat_map(|frame| frame.events()).filter_map(Result::ok);
    events.find(|event| event.offset == offset).map(|event| (event.id, event.received_us))
}

/// What a consumer may be doing.
pub const STATES: [&str; 10] =
    ["pending", "suspended", "revoked", "idle", "disconnected", "catching_up", "live", "blocked", "stuck", "gap"];

/// In a word what a consumer is doing, and where that needs one, the reason.
#[must_use]
pub fn state(
    consumer: &Consumer,
    range: Range,
    now: Instant,
    blocked: Option<Blocked>,
    stuck_after: Duration,
) -> (&'static str, Option<&'static str>) {
    let in_flight = consumer.live.delivered_next > consumer.head();
    match consumer.life {
        Life::Pending => return ("pending", None),
        Life::Suspended => return ("suspended", None),
        Life::Revoked => return ("revoked", None),
        Life::Approved => {}
    }
    if consumer.live.corrupt {
        return ("blocked", Some("corrupt"));
    }
    if let Some(Blocked::Poison) = blocked {
        return ("stuck", Some("poison"));
    }
    if consumer.gap.is_some() || consumer.next < range.earliest {
        return ("gap", Some("events were lost before they were acked"));
    }
    let waits = consumer.live.progress.map(|since| now.saturating_duration_since(since));
    let caught_up = consumer.head() >= range.tail;
    match (consumer.session.is_some(), blocked) {
        (false, _) if caught_up => ("idle", None),
        (false, _) => ("disconnected", None),
        (true, _) if in_flight && waits.is_some_and(|waits| waits >= stuck_after) => ("stuck", Some("no_ack")),
        (true, Some(blocked)) => ("blocked", Some(blocked.name())),
        (true, None) if consumer.live.delivered_next >= range.tail => ("live", None),
        (true, None) => ("catching_up", None),
    }
}

fn time(us: u64) -> Value {
    if us == 0 { Value::Null } else { json!(EventEncoder::time_text(us)) }
}

/// Everything about a consumer.
async fn describe(
    context: &Rc<Context>,
    entry: &Entry,
    status: &ConsumerStatus,
    looked: &mut Looked,
) -> Result<Value, Fault> {
    let consumer = &status.consumer;
    let lag = lag(context, entry, status, looked).await?;
    let stuck_after = context.broker.config.consumers.stuck_after;
    let (state, reason) = state(consumer, status.range(), status.now.instant, status.blocked, stuck_after);
    let acked = consumer.next.checked_sub(1).filter(|_| consumer.acked_at_us > 0);
    let stamped = match acked {
        Some(offset) if offset >= status.earliest => stamp(context, entry, offset, looked).await,
        _ => None,
    };
    let lease_left = consumer.lapses_at().map(|at| at.saturating_duration_since(status.now.instant).as_millis() as u64);
    let positioned = consumer.has_position();
    Ok(json!({
        "group": entry.table.name,
        "consumer": status.name,
        "state": state,
        "reason": reason,
        "life": consumer.life.name(),
        "start": consumer.start,
        "created": time(consumer.created_us),
        "approved": time(consumer.approved_us),
        "expires": time(consumer.terms.expires_us),
        "cursor": {
            "acked_offset": acked,
            "acked_id": stamped.map(|(id, _)| Uuid::from_u128(id).to_string()),
            "acked_received": stamped.map(|(_, received)| EventEncoder::time_text(received)),
            "acked_at": time(consumer.acked_at_us),
            "next": positioned.then_some(consumer.next),
            "delivered_offset": consumer.live.delivered_next.checked_sub(1).filter(|_| consumer.live.delivered_next > consumer.head()).or(acked),
            "earliest": status.earliest,
            "tail": status.tail,
        },
        "lag": { "events": lag.events, "bytes": lag.bytes, "seconds": lag.seconds },
        "session": consumer.session.map(|session| json!({
            "epoch": consumer.epoch,
            "anonymous": session.anonymous,
            "opened": time(session.opened_us),
            "streaming": consumer.live.attached.is_some(),
            "lease_left_ms": lease_left,
        })),
        "standbys": consumer.live.standbys,
        "attempt": consumer.failures + 1,
        "last_failure": (!consumer.reason.is_empty()).then_some(&consumer.reason),
        "redelivered": consumer.redelivered,
        "dead_lettered": consumer.dead_lettered,
        "gap": gap(consumer),
        "replays": consumer.replays.iter().map(|range| json!({ "next": range.next, "until": range.until })).collect::<Vec<_>>(),
        "rate_1m": (consumer.live.rate.now(status.now.instant) * 1000.0).round() / 1000.0,
        "last_rewind": consumer.last_rewind.map(|rewound| json!({
            "from": rewound.from, "to": rewound.to, "until": rewound.until, "at": time(rewound.at_us),
        })),
        "limits": {
            "lease_ms": consumer.terms.lease.as_millis() as u64,
            "max_in_flight": { "events": consumer.terms.events_max, "bytes": consumer.terms.bytes_max },
            "max_attempts": consumer.terms.attempts_max,
            "on_poison": match consumer.terms.on_poison {
                crate::group::consumer::OnPoison::Stall => "stall",
                crate::group::consumer::OnPoison::DeadLetter => "dead_letter",
            },
        },
    }))
}

fn gap(consumer: &Consumer) -> Value {
    consumer.gap.map_or(Value::Null, |(from, to)| json!({ "from": from, "to": to }))
}
