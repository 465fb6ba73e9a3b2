//! Encoded events, kept for a moment: what a thousand readers are sent is read, checked and encoded once.
//!
//! Readers of one group who stand at the same offset and ask alike get the same bytes, since what is visible never
//! changes. A core keeps a few megabytes of them; the piece that nobody asked for longest goes first.

use super::encode::EventEncoder;
use crate::limits::PIECES_BYTES_MAX;
use crate::shard::Fault;
use crate::shard::cursor::{Cursor, Frames};
use hashlink::LinkedHashMap;
use std::rc::Rc;

/// How events stand one behind the other.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Style {
    /// JSON objects with commas in between.
    List,
    /// A JSON object a line.
    Lines,
    /// Server-sent events whose ids are the offsets.
    Sse,
}

/// What a piece may hold.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct PieceBounds {
    /// Events.
    pub events: u64,
    /// Bytes of their data; one event may be larger.
    pub bytes: u64,
}

/// Some events, encoded.
#[derive(Debug)]
pub struct Piece {
    /// They.
    pub bytes: Vec<u8>,
    /// Offset behind the last one.
    pub next: u64,
    /// How many.
    pub events: u64,
    /// Bytes of their data.
    pub data_bytes: u64,
}

type Key = (u32, u64, Style, PieceBounds);

/// The pieces that one core keeps.
#[derive(Default)]
pub struct Pieces {
    kept: LinkedHashMap<Key, Rc<Piece>>,
    bytes: usize,
}

impl Pieces {
    fn get(&mut self, key: &Key) -> Option<Rc<Piece>> {
        self.kept.to_back(key).map(|piece| Rc::clone(piece))
    }

    fn keep(&mut self, key: Key, piece: &Rc<Piece>) {
        // One that would push out most of the others is not worth it.
        if piece.bytes.len() > PIECES_BYTES_MAX / 4 {
            return;
        }
        self.bytes += piece.bytes.len();
        if let Some(before) = self.kept.insert(key, Rc::clone(piece)) {
            self.bytes -= before.bytes.len();
        }
        while self.bytes > PIECES_BYTES_MAX {
            let Some((_, oldest)) = self.kept.pop_front() else { return };
            self.bytes -= oldest.bytes.len();
        }
    }
}

/// The events at the cursor, which moves behind them; `None` when there are none (yet), or none before `until`.
///
/// # Errors
/// When they are not there (any more), or damaged.
pub async fn piece(
    pieces: &std::cell::RefCell<Pieces>,
    cursor: &mut Cursor,
    style: Style,
    bounds: PieceBounds,
    until: u64,
) -> Result<Option<Rc<Piece>>, Fault> {
    if cursor.offset() >= until {
        return Ok(None);
    }
    let key = (cursor.group(), cursor.offset(), style, bounds);
    let kept = pieces.borrow_mut().get(&key).filter(|piece| piece.next <= until);
    if let Some(piece) = kept {
        cursor.advance(piece.next);
        return Ok(Some(piece));
    }
    let mut frames = Frames::default();
    if !cursor.read(&mut frames).await? {
        return Ok(None);
    }
    let piece = Rc::new(encode(cursor, &frames, style, bounds, until)?);
    cursor.advance(piece.next);
    if piece.next < until {
        pieces.borrow_mut().keep(key, &piece);
    }
    Ok(Some(piece))
}

fn encode(cursor: &Cursor, frames: &Frames, style: Style, bounds: PieceBounds, until: u64) -> Result<Piece, Fault> {
    let mut encoder = EventEncoder::default();
    let mut piece = Piece { bytes: Vec::new(), next: cursor.offset(), events: 0, data_bytes: 0 };
    for event in frames.iter().flat_map(|frame| frame.events()) {
        let event = event.map_err(|fault| cursor.corrupt(&fault))?;
        if event.offset < piece.next {
            continue;
        }
        let bytes = event.data.len() as u64;
        let full = piece.events >= bounds.events || piece.events > 0 && piece.data_bytes + bytes > bounds.bytes;
        if full || event.offset >= until {
            break;
        }
        let out = &mut piece.bytes;
        match style {
            Style::List => {
                out.extend_from_slice(if piece.events > 0 { b"," } else { b"" });
                encoder.event(out, &event);
            }
            Style::Lines => {
                encoder.event(out, &event);
                out.push(b'\n');
            }
            Style::Sse => {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(itoa::Buffer::new().format(event.offset).as_bytes());
                out.extend_from_slice(b"\ndata: ");
                encoder.event(out, &event);
                out.extend_from_slice(b"\n\n");
            }
        }
        piece.next = event.offset + 1;
        piece.events += 1;
        piece.data_bytes += bytes;
    }
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_last_is_kept_within_the_memory() {
        let mut pieces = Pieces::default();
        let bounds = PieceBounds { events: 1, bytes: 1 };
        let key = |offset| (1, offset, Style::Lines, bounds);
        let piece = || Rc::new(Piece { bytes: vec![0; PIECES_BYTES_MAX / 4], next: 1, events: 1, data_bytes: 1 });
        for offset in 0..4 {
            pieces.keep(key(offset), &piece());
        }
        assert!(pieces.get(&key(0)).is_some(), "four quarters fit");
        pieces.keep(key(4), &piece());
        assert!(pieces.get(&key(1)).is_none(), "the one that nobody asked for longest went");
        assert!(pieces.get(&key(0)).is_some() && pieces.get(&key(4)).is_some());
        let large = Rc::new(Piece {
            bytes: vec![0; PIECES_BYTES_MAX],
            ..Piece { bytes: vec![], next: 1, events: 1, data_bytes: 1 }
        });
        pieces.keep(key(5), &large);
        assert!(pieces.get(&key(5)).is_none() && pieces.get(&key(4)).is_some(), "a huge one pushes nobody out");
        pieces.keep(key(4), &piece());
        assert_eq!(pieces.bytes, PIECES_BYTES_MAX, "what is kept again counts once");
    }
}
