//! Events of one group, how they are shown, and the numbers of deduplicated producers.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::Fault;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Placed {
    At { first: u64, count: u64, duplicate: bool },
    Gap { expected: u64 },
}

/// A group's log; `None` is an offset that holds nothing.
#[derive(Debug, Default)]
pub(super) struct Group {
    events: Vec<Option<Vec<u8>>>,
    /// By name: epoch and the first offsets of all its requests.
    producers: HashMap<String, (u64, Vec<u64>)>,
}

impl Group {
    pub(super) fn tail(&self) -> u64 {
        self.events.len() as u64
    }

    pub(super) fn data(&self) -> Vec<Vec<u8>> {
        self.events.iter().flatten().cloned().collect()
    }

    pub(super) fn push(&mut self, events: Vec<Vec<u8>>) -> u64 {
        let first = self.tail();
        self.events.extend(events.into_iter().map(Some));
        first
    }

    /// The events, if they are new; else where they already are, or that something is missing before them.
    pub(super) fn deduplicated(
        &mut self,
        producer: Option<&(String, u64, u64)>,
        events: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, Placed> {
        let Some((name, epoch, seq)) = producer else {
            return Ok(events);
        };
        let known = self.producers.entry(name.clone()).or_insert((*epoch, Vec::new()));
        if *epoch > known.0 {
            *known = (*epoch, Vec::new());
        }
        let (known_epoch, firsts) = known;
        assert_eq!(known_epoch, epoch, "an epoch never goes back");
        let expected = firsts.len() as u64;
        if *seq > expected {
            return Err(Placed::Gap { expected });
        }
        match firsts.get(*seq as usize) {
            Some(first) => Err(Placed::At { first: *first, count: events.len() as u64, duplicate: true }),
            None => Ok(events),
        }
    }

    /// Stores events, wrongly if so told.
    pub(super) fn push_faulty(
        &mut self,
        events: Vec<Vec<u8>>,
        fault: Option<Fault>,
        producer: Option<(String, u64, u64)>,
    ) -> Placed {
        let count = events.len();
        let first = match fault {
            Some(Fault::Lose) => self.tail(),
            Some(Fault::LoseLeavingHole) => {
                let first = self.tail();
                self.events.extend((0..count).map(|_| None));
                first
            }
            Some(Fault::Duplicate) => {
                let first = self.push(events.clone());
                self.push(events);
                first
            }
            _ => self.push(events),
        };
        let end = self.events.len();
        match fault {
            Some(Fault::Swap) => self.events.swap(end - 1, end - 2),
            Some(Fault::Corrupt) => {
                let data = self.events[end - 1].as_mut().unwrap();
                let middle = data.len() / 2;
                data[middle] = if data[middle] == b'#' { b'+' } else { b'#' };
            }
            _ => {}
        }
        if let Some((name, _, _)) = producer {
            self.producers.get_mut(&name).unwrap().1.push(first);
        }
        Placed::At { first, count: count as u64, duplicate: false }
    }

    /// NDJSON from an offset on, and the offset to go on at.
    pub(super) fn page(&self, from: u64, limit: usize) -> (Vec<u8>, u64) {
        let mut lines = Vec::new();
        let mut next = from;
        for (offset, event) in self.events.iter().enumerate().skip(from as usize).take(limit) {
            next = offset as u64 + 1;
            if let Some(data) = event {
                lines.extend(line(offset, data).bytes());
                lines.push(b'\n');
            }
        }
        (lines, next)
    }
}

fn line(offset: usize, data: &[u8]) -> String {
    let as_json = serde_json::from_slice::<&RawValue>(data).is_ok() && !data.contains(&b'\n') && !data.contains(&b'\r');
    let (encoding, shown) = match std::str::from_utf8(data) {
        Ok(text) if as_json => ("json", text.to_owned()),
        Ok(text) => ("text", serde_json::to_string(text).unwrap()),
        Err(_) => ("base64", format!("\"{}\"", BASE64_STANDARD.encode(data))),
    };
    format!(
        r#"{{"offset":{offset},"id":"0193-{offset:08x}","received":"2026-01-01T00:00:00.{:06}Z","length":{},"encoding":"{encoding}","data":{shown}}}"#,
        offset / 3,
        data.len(),
    )
}

/// The events of a batch, read strictly.
pub(super) fn split_batch(media_type: &str, body: &[u8]) -> Vec<Vec<u8>> {
    match media_type.split(';').next().unwrap() {
        "application/json" => {
            let elements: Vec<&RawValue> = serde_json::from_slice(body).unwrap();
            elements.into_iter().map(|element| element.get().as_bytes().to_vec()).collect()
        }
        "application/x-ndjson" | "text/plain" => {
            let lines = body.strip_suffix(b"\n").expect("the last line ends too").split(|byte| *byte == b'\n');
            let lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
            for line in &lines {
                assert!(!line.is_empty() && !line.ends_with(b"\r"));
                assert!(media_type.starts_with("text/plain") || serde_json::from_slice::<&RawValue>(line).is_ok());
                std::str::from_utf8(line).unwrap();
            }
            lines
        }
        "application/vnd.eddyline.batch" => {
            let mut events = Vec::new();
            let mut rest = body;
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (flags, after) = after.split_first().unwrap();
                assert_eq!(*flags, 0);
                let (data, after) = after.split_at(u32::from_le_bytes(*length) as usize);
                events.push(data.to_vec());
                rest = after;
            }
            assert!(rest.is_empty(), "{} bytes after the last frame", rest.len());
            events
        }
        other => panic!("a batch of type `{other}`"),
    }
}
