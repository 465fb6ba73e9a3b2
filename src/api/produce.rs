//! Events in: one as it is, or a batch; answered by the commit that holds them.
//!
//! A request is taken at once and answered later: the connection goes on with the next request of the same receive, so
//! that pipelined appends share a commit and a send.

use super::Context;
use super::encode::{EventEncoder, put_id};
use super::exchange::Exchange;
use super::key_path::KeyPath;
use super::origin::Cors;
use super::parameters::Parameters;
use super::problem::Problem;
use super::route::{Route, Target};
use super::split::{Format, classify, split};
use crate::group::{Batch, Receipt};
use crate::http::{Head, Known, ReplyTo};
use crate::limits::{CONTENT_TYPE_BYTES_MAX, EVENT_HEADERS_BYTES_MAX, KEY_BYTES_MAX, PRODUCER_ID_BYTES_MAX};
use crate::log::event::{NewEvent, NewEvents, put_header};
use crate::log::frame::ProducerStamp;
use crate::shard::directory::Entry;
use crate::shard::{Fault, Shard};
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Memory kept for the events of the next request; a larger one goes back to the allocator.
const EVENTS_BYTES_KEPT: usize = 1 << 20;

/// A request whose answer waits for its commit.
pub struct Pending {
    /// What its answer must know about it.
    pub to: ReplyTo,
    /// What its answer says about other origins.
    pub cors: Cors,
    entry: Arc<Entry>,
    minimal: bool,
    outcome: Outcome,
}

enum Outcome {
    /// On this core: durable with this journal entry.
    Taken(Rc<Shard>, Receipt, u64),
    /// On this core: refused, resting on what is not durable yet.
    Refused(Rc<Shard>, Fault),
    /// On another core.
    Elsewhere(oneshot::Receiver<Result<Receipt, Fault>>),
}

/// What a producer says about itself, in headers or (for a beacon) in parameters.
struct Stamp<'b> {
    id: Cow<'b, str>,
    epoch: u64,
    seq: u64,
}

/// Takes the events of a request.
///
/// # Errors
/// What is to be answered instead; nothing was taken.
pub async fn begin(
    context: &Rc<Context>,
    route: &Route<'_>,
    head: &Head<'_>,
    body: &[u8],
    cors: Cors,
) -> Result<Pending, Problem> {
    let entry = route.produce.as_ref().ok_or_else(|| Problem::new(404, "not_found", "nothing is produced here"))?;
    let parameters = Parameters::new(head.query, &["producer", "epoch", "seq", "key_path", "token"])?;
    let stamp = stamp(head, &parameters)?;
    let expect_offset =
        head.text(Known::ExpectOffset)?.map(|text| whole("Eddyline-Expect-Offset", text)).transpose()?;
    let headers = event_headers(head)?;
    let key = head.text(Known::Key)?;
    if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) {
        return Err(Problem::new(400, "bad_key", format!("a key is at most {KEY_BYTES_MAX} bytes long")));
    }
    let mut events = context.events.take();
    match route.target {
        Target::Batch(_) => {
            let key_path = parameters.text("key_path")?;
            let key_path = key_path.map(|pointer| KeyPath::parse(&pointer)).transpose();
            let key_path = key_path.map_err(|cause| Problem::new(400, "bad_key_path", cause))?;
            let most = entry.config.max_event_bytes.min(context.broker.config.limits.max_event_bytes) as usize;
            split(format(head)?, body, key_path.as_ref(), most, |piece| {
                events.push(&NewEvent {
                    key: piece.key.as_deref().or(key.map(str::as_bytes)),
                    content_type: piece.content_type,
                    headers: &headers,
                    encoding: piece.encoding,
                    data: piece.data,
                });
            })?;
        }
        _ => {
            if parameters.text("key_path")?.is_some() {
                return Err(Problem::new(400, "unknown_parameter", "`key_path` goes with /batch"));
            }
            events.push(&NewEvent {
                key: key.map(str::as_bytes),
                content_type: stored_content_type(head)?,
                headers: &headers,
                encoding: classify(body),
                data: body,
            });
        }
    }
    let producer = stamp.as_ref().map(|stamp| ProducerStamp { id: &stamp.id, epoch: stamp.epoch, seq: stamp.seq });
    let outcome = match context.shards.local(entry.table.shard) {
        Some(shard) => {
            let batch = Batch { events: &events, producer, expect_offset };
            let result = shard.append(entry.table.number, &batch).await;
            if events.capacity() <= EVENTS_BYTES_KEPT {
                events.clear();
                context.events.replace(events);
            }
            match result {
                Ok(accepted) => Outcome::Taken(Rc::clone(shard), accepted.receipt, accepted.entry),
                Err(fault @ Fault::Refused { .. }) => Outcome::Refused(Rc::clone(shard), fault),
                Err(fault) => return Err(fault.into()),
            }
        }
        None => Outcome::Elsewhere(send_away(context, entry, events, producer, expect_offset).await),
    };
    let minimal = head.get(Known::Prefer).is_some_and(prefers_minimal);
    Ok(Pending { to: head.reply_to(), cors, entry: Arc::clone(entry), minimal, outcome })
}

/// Hands a request's events to the core that owns the group.
async fn send_away(
    context: &Rc<Context>,
    entry: &Entry,
    events: NewEvents,
    producer: Option<ProducerStamp<'_>>,
    expect_offset: Option<u64>,
) -> oneshot::Receiver<Result<Receipt, Fault>> {
    let number = entry.table.number;
    let producer = producer.map(|stamp| (stamp.id.to_owned(), stamp.epoch, stamp.seq));
    let work = move |shard: Rc<Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move {
            let producer = producer.as_ref().map(|(id, epoch, seq)| ProducerStamp { id, epoch: *epoch, seq: *seq });
            shard.append_durably(number, &Batch { events: &events, producer, expect_offset }).await
        })
    };
    context.shards.post(entry.table.shard, work, false).await
}

impl Pending {
    /// Waits for the commit and writes the answer.
    pub async fn settle(self, exchange: &mut Exchange) {
        let result = match self.outcome {
            Outcome::Taken(shard, receipt, entry) => match shard.durable(entry).await {
                Ok(()) => Ok(receipt),
                // There is no other way to fail; passing the fault on costs a copy for every request.
                Err(_) => Err(Fault::Unknown),
            },
            Outcome::Refused(shard, fault) => Err(shard.settled(fault).await),
            Outcome::Elsewhere(answer) => answer.await.unwrap_or(Err(Fault::Unknown)),
        };
        exchange.to = self.to;
        exchange.cors = self.cors;
        match result {
            Err(fault) => exchange.refuse(&fault.into()),
            Ok(receipt) if self.minimal => {
                let mut reply = exchange.reply(204);
                if let Some(offset) = receipt.first_offset {
                    reply = reply.number("Eddyline-Offset", offset);
                }
                if receipt.stamps.is_none() {
                    reply = reply.header("Eddyline-Duplicate", "true");
                }
                reply.empty();
            }
            Ok(receipt) => {
                let body = body(&self.entry.table.name, &receipt);
                exchange.reply(200).body("application/json", &body);
            }
        }
    }
}

/// `{"group","first_offset","last_offset","first_id","last_id","received","count","duplicate"}`
fn body(group: &str, receipt: &Receipt) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"group\":\"");
    out.extend_from_slice(group.as_bytes());
    out.push(b'"');
    if let Some(first) = receipt.first_offset {
        let last = first + u64::from(receipt.count.saturating_sub(1));
        out.extend_from_slice(format!(",\"first_offset\":{first},\"last_offset\":{last}").as_bytes());
    }
    if let Some(stamps) = receipt.stamps {
        out.extend_from_slice(b",\"first_id\":\"");
        put_id(&mut out, stamps.first_id);
        out.extend_from_slice(b"\",\"last_id\":\"");
        put_id(&mut out, stamps.last_id);
        out.extend_from_slice(b"\",\"received\":\"");
        EventEncoder::default().time(&mut out, stamps.received_us);
        out.push(b'"');
    }
    if receipt.first_offset.is_some() {
        out.extend_from_slice(format!(",\"count\":{}", receipt.count).as_bytes());
    }
    out.extend_from_slice(format!(",\"duplicate\":{}}}", receipt.stamps.is_none()).as_bytes());
    out
}

fn stamp<'b>(head: &Head<'b>, parameters: &Parameters<'b>) -> Result<Option<Stamp<'b>>, Problem> {
    let fields = [Known::ProducerId, Known::ProducerEpoch, Known::ProducerSeq];
    if parameters.is_empty() && fields.iter().all(|&field| head.get(field).is_none()) {
        return Ok(None);
    }
    let field = |field: Known, name: &'static str| -> Result<Option<Cow<'b, str>>, Problem> {
        match (head.text(field)?, parameters.text(name)?) {
            (Some(_), Some(_)) => {
                Err(Problem::new(400, "bad_producer", format!("`{name}` comes twice, as a header and in the query")))
            }
            (Some(header), None) => Ok(Some(Cow::Borrowed(header))),
            (None, parameter) => Ok(parameter),
        }
    };
    let (id, epoch, seq) = (
        field(Known::ProducerId, "producer")?,
        field(Known::ProducerEpoch, "epoch")?,
        field(Known::ProducerSeq, "seq")?,
    );
    match (id, epoch, seq) {
        (None, None, None) => Ok(None),
        (Some(id), epoch, Some(seq)) => {
            if id.is_empty() || id.len() > PRODUCER_ID_BYTES_MAX {
                return Err(Problem::new(
                    400,
                    "bad_producer",
                    format!("a producer's id is 1 to {PRODUCER_ID_BYTES_MAX} bytes long"),
                ));
            }
            let epoch = epoch.map_or(Ok(0), |epoch| whole("Producer-Epoch", &epoch))?;
            Ok(Some(Stamp { id, epoch, seq: whole("Producer-Seq", &seq)? }))
        }
        _ => Err(Problem::new(400, "bad_producer", "Producer-Id and Producer-Seq go together")),
    }
}

fn whole(name: &str, text: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    // The largest number has no successor, so it is never taken.
    number.filter(|&number: &u64| number < u64::MAX).ok_or_else(|| Problem::bad_parameter(name, "a whole number"))
}

/// The body's format, decided by its content type.
fn format(head: &Head<'_>) -> Result<Format, Problem> {
    let essence = head.text(Known::ContentType)?.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    Ok(match essence.to_ascii_lowercase().as_str() {
        "application/json" => Format::Json,
        "application/x-ndjson" => Format::Lines { must_be_json: true },
        "text/plain" => Format::Lines { must_be_json: false },
        "application/vnd.eddyline.batch" => Format::Binary,
        _ => {
            return Err(Problem::new(
                415,
                "unsupported_format",
                "a batch is application/json (an array), application/x-ndjson, text/plain (an event a line) or application/vnd.eddyline.batch",
            ));
        }
    })
}

/// The content type to be stored with a single event. What curl says when nobody told it anything is not stored.
fn stored_content_type<'b>(head: &Head<'b>) -> Result<Option<&'b [u8]>, Problem> {
    match head.text(Known::ContentType)? {
        None | Some("" | "application/x-www-form-urlencoded") => Ok(None),
        Some(text) if text.len() > CONTENT_TYPE_BYTES_MAX => Err(Problem::new(
            400,
            "bad_content_type",
            format!("a content type is at most {CONTENT_TYPE_BYTES_MAX} bytes long"),
        )),
        Some(text) => Ok(Some(text.as_bytes())),
    }
}

/// `Eddyline-Meta-*` headers in stored form, names in lower case.
fn event_headers(head: &Head<'_>) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    for (name, value) in head.meta() {
        if name.is_empty() || name.len() > usize::from(u8::MAX) || std::str::from_utf8(value).is_err() {
            return Err(Problem::new(
                400,
                "bad_header",
                "an event's header has a name of up to 255 bytes and a value in UTF-8",
            ));
        }
        put_header(&mut out, &name.to_ascii_lowercase(), value);
    }
    if out.len() > EVENT_HEADERS_BYTES_MAX {
        return Err(Problem::new(
            431,
            "headers_too_large",
            format!("an event's headers are at most {EVENT_HEADERS_BYTES_MAX} bytes"),
        ));
    }
    Ok(out)
}

fn prefers_minimal(prefer: &[u8]) -> bool {
    // The whole of it, mostly.
    if prefer == b"return=minimal" {
        return true;
    }
    let mut preferences = prefer.split(|&byte| byte == b',' || byte == b';').map(<[u8]>::trim_ascii);
    preferences.any(|preference| preference.eq_ignore_ascii_case(b"return=minimal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Stamps;

    #[test]
    fn answers_say_what_is_known() {
        let stamps = Some(Stamps { first_id: 1, last_id: 2, received_us: 0 });
        let text = |receipt| String::from_utf8(body("g", &receipt)).unwrap();
        let fresh = text(Receipt { first_offset: Some(5), count: 2, stamps });
        assert!(
            fresh.starts_with("{\"group\":\"g\",\"first_offset\":5,\"last_offset\":6,\"first_id\":\"0000"),
            "{fresh}"
        );
        assert!(
            fresh.ends_with("\"received\":\"1970-01-01T00:00:00.000000Z\",\"count\":2,\"duplicate\":false}"),
            "{fresh}"
        );
        let repeat = text(Receipt { first_offset: Some(5), count: 2, stamps: None });
        assert_eq!(repeat, "{\"group\":\"g\",\"first_offset\":5,\"last_offset\":6,\"count\":2,\"duplicate\":true}");
        let forgotten = text(Receipt { first_offset: None, count: 0, stamps: None });
        assert_eq!(forgotten, "{\"group\":\"g\",\"duplicate\":true}");
    }

    #[test]
    fn preferences() {
        for (prefer, minimal) in [
            ("return=minimal", true),
            ("respond-async, Return=Minimal", true),
            ("return=representation", false),
            ("", false),
        ] {
            assert_eq!(prefers_minimal(prefer.as_bytes()), minimal, "{prefer}");
        }
    }
}
