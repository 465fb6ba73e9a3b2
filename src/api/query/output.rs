//! Rows as JSON, NDJSON or CSV; and the answer that they become.

use super::super::accept::preferred;
use super::super::encode::EventEncoder;
use super::super::exchange::Exchange;
use super::super::problem::Problem;
use super::End;
use super::ask::{Kind, Next};
use super::work::{Pause, Stats};
use crate::http::{Head, Known, Reply, Stream};
use crate::limits::READ_PIECE_BYTES;
use crate::log::event::{Encoding, Event};
use crate::log::wire::Fields;
use crate::query::plan::{Plan, Shape};
use crate::query::run::{Row, Running, Span};
use crate::query::syntax::Column;
use crate::query::value::{Cell, Value};
use crate::query::watch::{STEP, Unwanted, Watch};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Rows that are taken at once: those of empty slices are made then.
const ROWS_PER_TURN: usize = 4096;

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
}

impl Format {
    /// The format that `Accept` likes best; JSON when it does not care.
    pub(super) fn accepted(head: &Head<'_>) -> Result<Self, Problem> {
        let known = |media_type: &str| match media_type {
            "application/*" | "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Some(Self::Ndjson),
            "text/csv" | "text/*" => Some(Self::Csv),
            _ => None,
        };
        preferred(head.get(Known::Accept).unwrap_or_default(), Self::Json, known).ok_or_else(|| {
            Problem::new(406, "no_such_format", "rows are application/json, application/x-ndjson or text/csv")
        })
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// The rows of an answer, written until there are enough. Whoever holds it needs no connection.
pub(super) struct Rows {
    plan: Arc<Plan>,
    format: Format,
    encoder: EventEncoder,
    /// What was written and not yet sent.
    pub(super) body: Vec<u8>,
    limit: u64,
    skip: u64,
    /// It goes on where an answer before ended, and nothing may be missing between the two.
    continues: bool,
    rows: u64,
    /// Whether a row was refused, and the offset of its event if it is one.
    full: bool,
    refused: Option<u64>,
}

impl Rows {
    /// Goes on at `next`, if that is given, and takes `limit` rows.
    pub(super) fn new(plan: &Arc<Plan>, format: Format, span: Span, next: Option<&Next>, limit: u64) -> Self {
        let mut rows = Self {
            plan: Arc::clone(plan),
            format,
            encoder: EventEncoder::default(),
            body: Vec::new(),
            limit,
            skip: next.map_or(0, |next| next.number),
            // The newest events first end where the log begins by now.
            continues: next.is_some_and(|next| next.kind == Kind::Skip || !plan.query.descending),
            rows: 0,
            full: false,
            refused: None,
        };
        rows.open(span);
        rows
    }

    fn open(&mut self, span: Span) {
        let headings = &self.plan.headings;
        match self.format {
            Format::Json => {
                let columns: Vec<_> =
                    headings.iter().map(|heading| json!({"name": heading.name, "type": heading.kind.name()})).collect();
                let time = EventEncoder::time_text;
                let range = json!({"from": time(span.from), "to": time(span.to)});
                let head = format!("{{\"range\":{range},\"columns\":{},\"rows\":[", json!(columns));
                self.body.extend_from_slice(head.as_bytes());
            }
            Format::Csv => {
                for (place, heading) in headings.iter().enumerate() {
                    self.body.extend_from_slice(if place > 0 { b"," } else { b"" });
                    match heading.name.as_bytes() {
                        // A line with nothing in it is no line of names.
                        b"" => self.body.extend_from_slice(b"\"\""),
                        name => put_field(&mut self.body, name),
                    }
                }
                self.body.extend_from_slice(b"\r\n");
            }
            Format::Ndjson => {}
        }
    }

    /// Whether there are more rows than it takes.
    pub(super) fn full(&self) -> bool {
        self.full
    }

    /// Whether it has as many rows as it takes.
    pub(super) fn complete(&self) -> bool {
        self.rows == self.limit
    }

    /// Whether no more rows are needed: one more than it takes is, where that tells that the answer is cut.
    pub(super) fn enough(&self) -> bool {
        self.full || self.complete() && !self.tells_cut()
    }

    /// How many rows are enough.
    pub(super) fn room(&self) -> u64 {
        (self.limit - self.rows).saturating_add(self.skip).saturating_add(u64::from(self.tells_cut()))
    }

    /// JSON says where a cut answer goes on, and without LIMIT the others must not be cut.
    fn tells_cut(&self) -> bool {
        self.format == Format::Json || self.plan.query.limit.is_none()
    }

    /// Offset of the event that it did not take.
    pub(super) fn refused(&self) -> Option<u64> {
        self.refused
    }

    /// Rows that it took.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the rows that are there, until there is a piece to be sent or others have their turn.
    pub(super) fn take(&mut self, running: &mut Running, watch: &Watch<'_>) -> Result<Pause, Unwanted> {
        for _ in 0..ROWS_PER_TURN {
            if self.body.len() >= READ_PIECE_BYTES {
                break;
            }
            let before = self.body.len();
            match running.take().filter(|_| !self.full) {
                Some((offset, row)) => self.row(row, offset),
                None => return Ok(Pause::Over),
            }
            watch.spent(self.plan.headings.len() * STEP + self.body.len() - before)?;
        }
        Ok(Pause::Turn)
    }

    /// Writes a row, or leaves it out, or refuses it. With it comes the offset of the event that it is, if it is one.
    pub(super) fn row(&mut self, row: Row, offset: Option<u64>) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.rows == self.limit {
            (self.full, self.refused) = (true, offset);
            return;
        }
        match self.format {
            Format::Json => {
                self.body.extend_from_slice(if self.rows > 0 { b",[" } else { b"[" });
                self.put_row(&expanded(&self.plan, row), |rows, cell, _| rows.put_json(cell));
                self.body.push(b']');
            }
            Format::Ndjson if self.plan.shape == Shape::Events => {
                self.put_json(&row[0]);
                self.body.push(b'\n');
            }
            Format::Ndjson => {
                self.body.push(b'{');
                self.put_row(&row, |rows, cell, name| {
                    rows.put_text(name);
                    rows.body.push(b':');
                    rows.put_json(cell);
                });
                self.body.extend_from_slice(b"}\n");
            }
            Format::Csv => {
                self.put_row(&expanded(&self.plan, row), |rows, cell, _| rows.put_csv(cell));
                self.body.extend_from_slice(b"\r\n");
            }
        }
        self.rows += 1;
    }

    fn put_row(&mut self, row: &[Cell], put: impl Fn(&mut Self, &Cell, &str)) {
        let plan = Arc::clone(&self.plan);
        for (place, (cell, heading)) in row.iter().zip(&plan.headings).enumerate() {
            self.body.extend_from_slice(if place > 0 { b"," } else { b"" });
            put(self, cell, &heading.name);
        }
    }

    fn put_text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.body, text).expect("memory takes all text");
    }

    fn put_json(&mut self, cell: &Cell) {
        match cell {
            Cell::Null => self.body.extend_from_slice(b"null"),
            Cell::Bool(value) => self.body.extend_from_slice(value.to_string().as_bytes()),
            Cell::Integer(value) => self.body.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
            Cell::Number(value) => serde_json::to_writer(&mut self.body, value).expect("memory takes all numbers"),
            Cell::Text(text) => self.put_text(text),
            Cell::Time(time) => {
                self.body.push(b'"');
                self.encoder.time(&mut self.body, *time);
                self.body.push(b'"');
            }
            Cell::Json(json) => self.body.extend_from_slice(json.as_bytes()),
            Cell::Bytes(bytes) => self.put_text(&STANDARD.encode(bytes)),
            Cell::Event(offset, stored) => {
                if let Some(event) = event(*offset, stored) {
                    self.encoder.event(&mut self.body, &event);
                }
            }
        }
    }

    fn put_csv(&mut self, cell: &Cell) {
        match cell {
            // A line with nothing in it is no row to many a reader.
            Cell::Null if self.plan.headings.len() == 1 => self.body.extend_from_slice(b"\"\""),
            Cell::Null => {}
            // An empty text is not NULL.
            Cell::Text(text) if text.is_empty() => self.body.extend_from_slice(b"\"\""),
            Cell::Text(text) | Cell::Json(text) => put_field(&mut self.body, text.as_bytes()),
            Cell::Time(time) => self.encoder.time(&mut self.body, *time),
            Cell::Bytes(bytes) => put_field(&mut self.body, STANDARD.encode(bytes).as_bytes()),
            Cell::Event(..) => {
                let before = self.body.len();
                self.put_json(cell);
                let json = self.body.split_off(before);
                put_field(&mut self.body, &json);
            }
            Cell::Bool(_) | Cell::Integer(_) | Cell::Number(_) => self.put_json(cell),
        }
    }

    /// Whether the answer tells of events that are gone, in its stats or where they were. What goes on where an answer before
    /// ended must not leave any out.
    pub(super) fn tells_lost(&self) -> bool {
        self.format == Format::Json && !self.continues || self.plan.query.follow
    }

    /// Takes note of events that are not there any more.
    pub(super) fn lost(&mut self, from: u64, to: u64) {
        if self.plan.query.follow {
            self.control("gap", &format!(",\"from\":{from},\"to\":{to}"));
        }
    }

    /// Appends a control line: a live answer's own.
    pub(super) fn control(&mut self, frame: &str, members: &str) {
        self.body.extend_from_slice(format!("{{\"frame\":\"{frame}\"{members}}}\n").as_bytes());
    }

    /// Ends the answer with what was read.
    fn end(&mut self, next: Option<&str>, stats: &Stats) {
        if self.format == Format::Json {
            let next = next.map(|next| format!(",\"next\":\"{next}\"")).unwrap_or_default();
            let stats = json!({
                "segments_total": stats.segments_total,
                "segments_read": stats.segments_read,
                "blocks_read": stats.blocks_read,
                "blocks_counted": stats.blocks_counted,
                "bytes_read": stats.bytes_read,
                "events_read": stats.events_read,
                "not_json": stats.not_json,
                "lost": stats.lost,
                "ms": stats.micros as f64 / 1000.0,
            });
            self.body.extend_from_slice(format!("]{next},\"stats\":{stats}}}").as_bytes());
        }
    }
}

/// The connection's side of an answer: sent piece by piece, or with a length if it fits one.
pub(super) struct Output<'x> {
    pub(super) exchange: &'x mut Exchange,
    pub(super) format: Format,
    /// What the query is called.
    id: String,
    /// What is lost of the range, where nothing else can say so.
    gaps: Option<String>,
    stream: Option<Stream>,
}

impl<'x> Output<'x> {
    pub(super) fn new(exchange: &'x mut Exchange, format: Format, id: Uuid, gaps: Option<String>) -> Self {
        Self { exchange, format, id: id.to_string(), gaps, stream: None }
    }

    fn head(&mut self) -> Reply<'_> {
        let reply = self.exchange.reply(200).header("X-Content-Type-Options", "nosniff");
        let reply = reply.header("Cache-Control", "no-store").header("Eddyline-Query", &self.id);
        match &self.gaps {
            Some(gaps) => reply.header("Eddyline-Gap", gaps),
            None => reply,
        }
    }

    /// Whether something of the answer may be under way.
    pub(super) fn begun(&self) -> bool {
        self.stream.is_some()
    }

    /// Sends what was written, once it is worth it.
    pub(super) async fn flush(&mut self, rows: &mut Rows) -> Result<(), End> {
        if rows.body.len() >= READ_PIECE_BYTES { self.send(rows).await } else { Ok(()) }
    }

    /// Sends what was written.
    pub(super) async fn send(&mut self, rows: &mut Rows) -> Result<(), End> {
        let stream = match self.stream {
            Some(stream) => stream,
            None => {
                let media_type = self.format.media_type();
                let stream = self.head().stream(media_type);
                *self.stream.insert(stream)
            }
        };
        stream.write(&mut self.exchange.out, &rows.body);
        rows.body.clear();
        self.exchange.flush().await.map_err(|_| End::HungUp)
    }

    /// Ends the answer.
    pub(super) async fn finish(&mut self, rows: &mut Rows, next: Option<&str>, stats: &Stats) -> Result<(), End> {
        rows.end(next, stats);
        self.exchange.delivered(rows.rows);
        if let Some(stream) = self.stream {
            self.send(rows).await?;
            stream.finish(&mut self.exchange.out);
        } else {
            let media_type = self.format.media_type();
            self.head().body(media_type, &rows.body);
        }
        Ok(())
    }

    /// Ends an answer that went on for as long as it could.
    pub(super) fn close(&mut self) {
        if let Some(stream) = self.stream {
            stream.finish(&mut self.exchange.out);
        }
    }
}

fn event(offset: u64, stored: &[u8]) -> Option<Event<'_>> {
    Event::decode(&mut Fields::new(stored), offset).ok()
}

/// The cells of a row that is a whole event.
fn expanded(plan: &Plan, row: Row) -> Row {
    let event = match (&plan.shape, row.first()) {
        (Shape::Events, Some(Cell::Event(offset, stored))) => event(*offset, stored),
        _ => None,
    };
    let Some(event) = event else { return row };
    let cell = |column| Value::of(&event, &column).into_cell();
    let text = |bytes: &[u8]| Cell::Text(String::from_utf8_lossy(bytes).into());
    let headers: serde_json::Map<_, _> =
        event.headers().map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into())).collect();
    let encoding = match event.encoding {
        Encoding::Json => "json",
        Encoding::Text => "text",
        Encoding::Bytes => "base64",
    };
    vec![
        cell(Column::Offset),
        cell(Column::Id),
        cell(Column::Received),
        cell(Column::Length),
        event.content_type.map_or(Cell::Null, text),
        cell(Column::Key),
        if headers.is_empty() { Cell::Null } else { Cell::Json(json!(headers).to_string().into()) },
        Cell::Text(encoding.into()),
        cell(Column::Data),
    ]
}

/// Appends a field of CSV (RFC 4180).
fn put_field(out: &mut Vec<u8>, text: &[u8]) {
    if !text.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        out.extend_from_slice(if byte == b'"' { b"\"\"" } else { std::slice::from_ref(&byte) });
    }
    out.push(b'"');
}
