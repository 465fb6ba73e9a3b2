//! Finite answers: events up to a bound, sent as they are read.
//!
//! An answer ends at `limit` events, at `max_bytes` of them, at `until` or at the tail, and before a gap or damage; one that
//! begins in a gap says so and goes on behind it. All but a JSON list say in their head where they end, so the end is looked
//! for before the first byte is sent. What is met on the way there is held in memory up to a bound, and sent from there;
//! what lies beyond is read again.

use super::Context;
use super::encode::EventEncoder;
use super::exchange::Exchange;
use super::problem::Problem;
use super::read::{Format, cut_off, gap_member, media_type};
use crate::group::gaps::Gap;
use crate::http::{Reply, Stream};
use crate::io::ring;
use crate::limits::{HELD_ANSWERS_MAX, HELD_BYTES};
use crate::log::event::Event;
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use std::sync::Arc;

/// What a finite answer may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Events.
    pub events: u64,
    /// Bytes of their data, or of their frames; one may be larger.
    pub bytes: u64,
    /// The offset it ends before.
    pub until: u64,
}

/// Where a finite answer begins and ends.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// The gap before its first event, if it was asked for what is lost.
    gap: Option<Gap>,
    from: u64,
    next: u64,
    events: u64,
    bytes: u64,
}

impl Extent {
    fn at(offset: u64, gap: Option<Gap>) -> Self {
        Self { gap, from: offset, next: offset, events: 0, bytes: 0 }
    }

    /// Moves over whole frames that belong to the answer; false when it is complete.
    fn frames(&mut self, frames: &Frames, bounds: &Bounds) -> bool {
        for frame in frames.iter() {
            let bytes = frame.bytes.len() as u64;
            if self.events > 0 && self.bytes + bytes > bounds.bytes {
                return false;
            }
            let events = frame.header.next_offset().min(bounds.until) - self.next;
            let events = events.min(bounds.events - self.events);
            self.next += events;
            self.events += events;
            self.bytes += bytes;
            if self.events >= bounds.events || self.next >= bounds.until {
                return false;
            }
        }
        self.bytes < bounds.bytes
    }

    /// Moves over events that belong to the answer and hands out each; false when it is complete.
    fn events(&mut self, frames: &Frames, bounds: &Bounds, mut each: impl FnMut(&Event<'_>)) -> Result<bool, Fault> {
        for event in frames.iter().flat_map(|frame| frame.events()) {
            if self.next >= bounds.until || self.events >= bounds.events {
                return Ok(false);
            }
            let event =
                event.map_err(|fault| Fault::Corrupt { offset: self.next, detail: Arc::from(fault.to_string()) })?;
            if event.offset < self.next {
                continue;
            }
            let bytes = event.data.len() as u64;
            if self.events > 0 && self.bytes + bytes > bounds.bytes {
                return Ok(false);
            }
            each(&event);
            self.next = event.offset + 1;
            self.events += 1;
            self.bytes += bytes;
        }
        Ok(self.events < bounds.events && self.bytes < bounds.bytes && self.next < bounds.until)
    }
}

/// What is held of an answer.
struct Held<'c> {
    pieces: Vec<Frames>,
    /// Where the answer ends, as far as that was looked for.
    end: Extent,
    /// Whether it goes on behind what is held.
    more: bool,
    /// Leave to hold more than the first piece.
    _leave: Option<Leave<'c>>,
}

/// Writes a finite answer.
///
/// # Errors
/// What is to be answered instead; nothing was written.
pub(super) async fn answer(
    context: &Context,
    mut cursor: Cursor,
    format: Format,
    bounds: Bounds,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let Held { mut pieces, mut end, mut more, _leave } = hold(context, &mut cursor, format, &bounds).await?;
    let tail = cursor.range().await?.tail;
    more &= end.next < tail;
    let extent = Extent::at(end.from, end.gap);
    let mut writer = Writer { format, bounds, extent, tail, encoder: EventEncoder::default() };
    if !more && pieces.len() == 1 {
        let mut body = Vec::new();
        writer.whole(pieces.remove(0), &mut body)?;
        exchange.delivered(end.events);
        head(exchange, format, &end, tail).header("Content-Type", media_type(format)).length(body.len() as u64);
        if !exchange.to.head_only {
            // A peer that is gone wants nothing more.
            let _ = exchange.write_body(body).await;
        }
        return Ok(());
    }
    if more && format != Format::Json {
        let mut ahead = Cursor::new(cursor.shards(), cursor.shard(), cursor.group(), end.next);
        let mut piece = Frames::default();
        while step_or_end(&mut ahead, &mut piece, format, &bounds, &mut end).await? {
            ring::park().await;
        }
    }
    if format != Format::Json {
        writer.bounds.until = bounds.until.min(end.next);
    }
    let head = head(exchange, format, &end, tail);
    let stream = match format {
        Format::Frames => head.stream_of(media_type(format), end.bytes),
        _ => head.stream(media_type(format)),
    };
    if !stream.has_body() {
        return Ok(());
    }
    match writer.stream(stream, pieces, more.then_some(cursor), exchange).await {
        Ok(()) => Ok(()),
        Err(fault) => cut_off(exchange, &fault),
    }
}

/// Looks for the end of an answer and holds what is met: of a JSON list the first piece, of others as much as may be held.
async fn hold<'c>(
    context: &'c Context,
    cursor: &mut Cursor,
    format: Format,
    bounds: &Bounds,
) -> Result<Held<'c>, Fault> {
    let mut first = Frames::default();
    let mut end = Extent::at(cursor.offset(), None);
    let mut more = match step(cursor, &mut first, format, bounds, &mut end).await {
        Err(Fault::Lost { from, to }) => {
            cursor.advance(to);
            end = Extent::at(to, Some(Gap { from, to }));
            step(cursor, &mut first, format, bounds, &mut end).await?
        }
        other => other?,
    };
    let mut bytes = first.bytes();
    let mut pieces = vec![first];
    let leave = if more && format != Format::Json { Leave::take(context) } else { None };
    while more && leave.is_some() && bytes < HELD_BYTES {
        ring::park().await;
        let mut piece = Frames::default();
        more = step_or_end(cursor, &mut piece, format, bounds, &mut end).await?;
        bytes += piece.bytes();
        pieces.push(piece);
    }
    Ok(Held { pieces, end, more, _leave: leave })
}

/// Reads one piece of the log and moves over what of it belongs to the answer; false when the answer is complete.
async fn step(
    cursor: &mut Cursor,
    frames: &mut Frames,
    format: Format,
    bounds: &Bounds,
    extent: &mut Extent,
) -> Result<bool, Fault> {
    if extent.next >= bounds.until || !cursor.read(frames).await? {
        return Ok(false);
    }
    let more = match format {
        Format::Frames => extent.frames(frames, bounds),
        _ => extent.events(frames, bounds, |_| ())?,
    };
    cursor.advance(extent.next);
    Ok(more)
}

/// The pieces behind the first: the answer ends where damage or a gap begins, and whoever goes on there is told of it.
async fn step_or_end(
    cursor: &mut Cursor,
    frames: &mut Frames,
    format: Format,
    bounds: &Bounds,
    extent: &mut Extent,
) -> Result<bool, Fault> {
    match step(cursor, frames, format, bounds, extent).await {
        Err(fault) if ends(&fault) => Ok(false),
        other => other,
    }
}

/// Whether an answer may end before what is the matter.
fn ends(fault: &Fault) -> bool {
    matches!(fault, Fault::Corrupt { .. } | Fault::Lost { .. } | Fault::Gone { .. })
}

/// The head of an answer, as far as it is the same for all formats.
fn head<'o>(exchange: &'o mut Exchange, format: Format, end: &Extent, tail: u64) -> Reply<'o> {
    let reply = exchange.reply(200).header("X-Content-Type-Options", "nosniff");
    if format == Format::Json {
        return reply;
    }
    let reply = reply.number("Eddyline-First", end.from).number("Eddyline-Next", end.next);
    let reply = reply.number("Eddyline-Tail", tail);
    match end.gap {
        Some(gap) => reply.header("Eddyline-Gap", gap.to_string()),
        None => reply,
    }
}

/// Writes the events of an answer.
struct Writer {
    format: Format,
    bounds: Bounds,
    /// What was written so far.
    extent: Extent,
    tail: u64,
    encoder: EventEncoder,
}

impl Writer {
    /// Writes all of an answer that is one piece.
    fn whole(&mut self, frames: Frames, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.format == Format::Frames {
            *out = self.stored(frames).0;
            return Ok(());
        }
        self.open(out);
        self.encode(&frames, out)?;
        self.close(out);
        Ok(())
    }

    /// Writes the pieces that are held, and what comes behind them at the cursor, each sent as soon as it is written.
    async fn stream(
        &mut self,
        stream: Stream,
        pieces: Vec<Frames>,
        mut behind: Option<Cursor>,
        exchange: &mut Exchange,
    ) -> Result<(), Fault> {
        let mark = stream.begin(&mut exchange.out);
        self.open(&mut exchange.out);
        stream.end(&mut exchange.out, mark);
        let mut pieces = pieces.into_iter();
        let mut more = true;
        while more {
            let frames = match (pieces.next(), &mut behind) {
                (Some(frames), _) => frames,
                (None, Some(cursor)) => {
                    cursor.advance(self.extent.next);
                    let mut frames = Frames::default();
                    match cursor.read(&mut frames).await {
                        Ok(true) => frames,
                        Ok(false) => break,
                        // A list says where it ends once it is there.
                        Err(fault) if self.format == Format::Json && ends(&fault) => break,
                        Err(fault) => return Err(fault),
                    }
                }
                (None, None) => break,
            };
            let sent;
            (more, sent) = if self.format == Format::Frames {
                let (bytes, more) = self.stored(frames);
                (more, exchange.write_body(bytes).await)
            } else {
                let mark = stream.begin(&mut exchange.out);
                let more = self.encode(&frames, &mut exchange.out);
                stream.end(&mut exchange.out, mark);
                (more?, exchange.flush().await)
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        let mark = stream.begin(&mut exchange.out);
        self.close(&mut exchange.out);
        stream.end(&mut exchange.out, mark);
        stream.finish(&mut exchange.out);
        exchange.delivered(self.extent.events);
        Ok(())
    }

    /// The bytes of whole frames, and whether the answer goes on behind them.
    fn stored(&mut self, frames: Frames) -> (Vec<u8>, bool) {
        let before = self.extent.bytes;
        let more = self.extent.frames(&frames, &self.bounds);
        (frames.into_bytes((self.extent.bytes - before) as usize), more)
    }

    /// Encodes events; false when the answer is complete.
    fn encode(&mut self, frames: &Frames, out: &mut Vec<u8>) -> Result<bool, Fault> {
        let Self { encoder, extent, bounds, format, .. } = self;
        let mut first = extent.events == 0;
        extent.events(frames, bounds, |event| {
            if *format == Format::Json && !std::mem::take(&mut first) {
                out.push(b',');
            }
            encoder.event(out, event);
            if *format == Format::Ndjson {
                out.push(b'\n');
            }
        })
    }

    fn open(&self, out: &mut Vec<u8>) {
        if self.format == Format::Json {
            out.extend_from_slice(b"{\"events\":[");
        }
    }

    fn close(&self, out: &mut Vec<u8>) {
        if self.format == Format::Json {
            let Extent { next, gap, .. } = self.extent;
            let (tail, up_to_date) = (self.tail.max(next), next >= self.tail);
            let gap = gap.map(gap_member).unwrap_or_default();
            out.extend_from_slice(
                format!("],\"next\":{next},\"tail\":{tail},\"up_to_date\":{up_to_date}{gap}}}").as_bytes(),
            );
        }
    }
}

/// Leave to hold an answer in memory that is larger than a piece.
struct Leave<'c>(&'c Context);

impl<'c> Leave<'c> {
    /// Takes leave, unless as many answers are held as may be.
    fn take(context: &'c Context) -> Option<Self> {
        let others = context.held_answers.get();
        (others < HELD_ANSWERS_MAX).then(|| {
            context.held_answers.set(others + 1);
            Self(context)
        })
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.held_answers.set(self.0.held_answers.get() - 1);
    }
}
