//! One question to a consumer, asked on the core that owns it, and what a reader does with the answer.

use super::Subject;
use crate::api::Context;
use crate::api::pieces::{Piece, PieceBounds, Style, piece};
use crate::auth::directory::Lapse;
use crate::group::Refusal as GroupRefusal;
use crate::group::consumer::{Call, Change, Grant, Refusal, SessionName, Turn};
use crate::log::event::put_header;
use crate::log::event::{NewEvent, NewEvents};
use crate::shard::Fault;
use crate::shard::consumers::Decided;
use crate::shard::cursor::{Cursor, Frames};
use crate::shard::peers::Shards;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a reader is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// What it may read, or why nothing.
    pub(super) turn: Turn,
    /// In whose name it reads from now on.
    pub(super) session: SessionName,
    /// To wait for the next change by.
    pub(super) version: u64,
    /// Offset behind the last visible event.
    pub(super) tail: u64,
    /// How long the session lives without a call.
    pub(super) lease: Duration,
    /// Where the consumer stands.
    pub(super) head: u64,
}

/// Asks. An event whose every attempt failed goes to the dead letters on the way.
pub(super) async fn ask(context: &Rc<Context>, subject: &Subject<'_>, call: Call) -> Result<Decided<Seen>, Fault> {
    let (shard, group) = (subject.shard(), subject.group());
    let mut call = call;
    loop {
        let name: Box<str> = subject.name.into();
        let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
            Box::pin(async move {
                let decided = shard.decide(group, &name, |consumer, ground, change: &mut Change| {
                    let turn = consumer.next(&call, ground.there, ground.now, change)?;
                    Ok(Seen {
                        turn,
                        session: consumer.session_name().ok_or(Refusal::Fenced { epoch: consumer.epoch })?,
                        version: consumer.live.version + u64::from(*change == Change::Record),
                        tail: ground.there.tail,
                        lease: consumer.terms.lease,
                        head: consumer.head(),
                    })
                });
                match decided.await {
                    Ok(decided) => Ok(decided),
                    Err(fault) => Err(shard.settled(fault).await),
                }
            })
        };
        let decided = context.shards.on(shard, work).await?;
        match decided.value.turn {
            Turn::Bury(offset) => {
                match bury(&context.shards, subject, offset).await {
                    // Retention was faster: there is nothing to bury any more.
                    Ok(()) | Err(Fault::Gone { .. }) => {}
                    Err(fault) => return Err(fault),
                }
                // What was acked with the first question is acked, and the session is taken.
                (call.ack, call.takeover) = (None, false);
            }
            _ => return Ok(decided),
        }
    }
}

/// The refusal in a fault, if it is one of a consumer.
pub(super) fn refusal(fault: &Fault) -> Option<Refusal> {
    match fault {
        Fault::Refused { refusal: GroupRefusal::Consumer(refusal), .. } => Some(*refusal),
        _ => None,
    }
}

/// Waits until journal entry `entry` of the consumer's shard is durable.
pub(super) async fn durable(context: &Context, subject: &Subject<'_>, entry: u64) -> Result<(), Fault> {
    context.shards.ask(subject.shard(), move |shard| Box::pin(async move { shard.durable(entry).await })).await
}

/// Reads the next piece of what was granted, and notes it as delivered before it is sent.
pub(super) async fn take(
    context: &Context,
    subject: &Subject<'_>,
    cursor: &mut Cursor,
    style: Style,
    grant: &Grant,
    entry: u64,
) -> Result<Option<Rc<Piece>>, Fault> {
    let from = cursor.offset();
    let bounds = PieceBounds { events: grant.events, bytes: grant.bytes };
    let read = piece(&context.pieces, cursor, style, bounds, grant.until).await;
    note_damage(context, subject, &read).await;
    let Some(piece) = read? else { return Ok(None) };
    let (group, name, session) = (subject.group(), Box::<str>::from(subject.name), grant.session);
    let (next, bytes) = (piece.next, piece.data_bytes);
    let noted = context.shards.on(subject.shard(), move |shard| {
        Box::pin(async move {
            let noted = shard
                .decide(group, &name, |consumer, ground, _| consumer.delivered(session, from, next, bytes, ground.now));
            match noted.await {
                // What the delivery rests on: an ack that came along, a session that was opened.
                Ok(decided) => shard.durable(decided.entry.max(entry)).await,
                Err(fault) => Err(shard.settled(fault).await),
            }
        })
    });
    noted.await.map(|()| Some(piece))
}

/// Notes for the status that a read met damage; the reader is told anyway.
pub(super) async fn note_damage<T>(context: &Context, subject: &Subject<'_>, read: &Result<T, Fault>) {
    let Err(Fault::Corrupt { .. }) = read else { return };
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<()> {
        Box::pin(async move {
            let decide = shard.decide(group, &name, |consumer, _, _| {
                consumer.live.corrupt = true;
                Ok(())
            });
            let _ = decide.await;
        })
    };
    context.shards.on(subject.shard(), work).await;
}

/// What a wait for a consumer ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is something new to look at.
    Turn,
    /// The time is over.
    Time,
    /// The broker is about to end.
    Drain,
    /// The caller's token is good no more.
    Lapsed(Lapse),
    /// The caller is gone.
    HungUp,
}

/// Waits until the consumer is worth another look, at most until `until`.
pub(super) async fn wait(
    context: &Context,
    subject: &Subject<'_>,
    version: u64,
    offset: Option<u64>,
    until: Instant,
    hang_up: std::pin::Pin<&mut impl Future>,
) -> Woken {
    let drain = context.drain.notified();
    if context.draining() {
        return Woken::Drain;
    }
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let turn = context.shards.ask(subject.shard(), move |shard| {
        Box::pin(async move { shard.consumer_turn(group, &name, version, offset).await })
    });
    tokio::select! {
        biased;
        () = turn => Woken::Turn,
        () = drain => Woken::Drain,
        lapse = subject.caller.lapse(context) => Woken::Lapsed(lapse),
        _ = hang_up => Woken::HungUp,
        () = tokio::time::sleep_until(until.into()) => Woken::Time,
    }
}

/// Copies the event at `offset` to the dead letters, with its story, and moves the consumer on.
async fn bury(shards: &Rc<Shards>, subject: &Subject<'_>, offset: u64) -> Result<(), Fault> {
    let (shard, group, name) = (subject.shard(), subject.group(), Box::<str>::from(subject.name));
    let status = {
        let name = name.clone();
        shards.ask(shard, move |shard| Box::pin(async move { shard.consumer_status(group, &name).await })).await?
    };
    let mut cursor = Cursor::new(Rc::clone(shards), shard, group, offset);
    let mut frames = Frames::default();
    cursor.read(&mut frames).await?;
    let found =
        frames.iter().flat_map(|frame| frame.events()).find(|event| !matches!(event, Ok(e) if e.offset < offset));
    let event = match found {
        Some(Ok(event)) => event,
        Some(Err(fault)) => return Err(cursor.corrupt(&fault)),
        None => return Err(Fault::BehindTail { tail: offset }),
    };
    let mut headers = Vec::new();
    for (name, value) in event.headers() {
        put_header(&mut headers, name, value);
    }
    let number = |value: u64| value.to_string().into_bytes();
    for (name, value) in [
        ("dead-group", subject.entry.table.name.as_bytes().to_vec()),
        ("dead-consumer", subject.name.as_bytes().to_vec()),
        ("dead-offset", number(event.offset)),
        ("dead-id", uuid::Uuid::from_u128(event.id).to_string().into_bytes()),
        ("dead-received", crate::api::encode::EventEncoder::time_text(event.received_us).into_bytes()),
        ("dead-attempts", number(u64::from(status.consumer.failures))),
        ("dead-reason", status.consumer.reason.as_bytes().to_vec()),
    ] {
        put_header(&mut headers, name, &value);
    }
    let mut letter = NewEvents::default();
    letter.push(&NewEvent {
        key: event.key,
        content_type: event.content_type,
        headers: &headers,
        encoding: event.encoding,
        data: event.data,
    });
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.bury(group, &name, offset, &letter).await })
    };
    shards.on(shard, work).await.map(drop)
}
