//! Whatever a query's text is, it is a plan or a fault whose place can be shown; and no plan makes an event a crash, in no
//! range.

#![no_main]

use eddyline::log::event::{Encoding, Event, NewEvent};
use eddyline::log::wire::Fields;
use eddyline::query::plan::Plan;
use eddyline::query::run::{Running, Span};
use eddyline::query::time;
use eddyline::query::watch::Watch;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const MEMORY: usize = 64 << 20;
const NOW_US: u64 = 1_795_564_800_000_000;

/// Rows that are taken: empty slices make a million.
const ROWS: usize = 1000;

// Two numbers of 64 bits are the range, and what stands behind a zero byte is an event's data.
fuzz_target!(|input: &[u8]| {
    let Some((from, input)) = input.split_first_chunk() else { return };
    let Some((length, input)) = input.split_first_chunk() else { return };
    let mut parts = input.splitn(2, |&byte| byte == 0);
    let Ok(text) = str::from_utf8(parts.next().unwrap_or_default()) else {
        return;
    };
    let data = parts.next().unwrap_or_default();
    let plan = match eddyline::query::parse(text, NOW_US).and_then(Plan::new) {
        Ok(plan) => Arc::new(plan),
        Err(fault) => {
            assert!(fault.drawn(text).contains('^'));
            assert!(fault.line_and_column(text) >= (1, 1));
            return;
        }
    };
    let is_json = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    let encoding = if is_json { Encoding::Json } else { Encoding::Bytes };
    let event = NewEvent { key: None, content_type: None, headers: &[], encoding, data };
    let mut bytes = Vec::new();
    event.encode(1, NOW_US, &mut bytes);
    let event = Event::decode(&mut Fields::new(&bytes), 1).expect("it was just encoded");
    let from = u64::from_le_bytes(*from);
    let to = from.saturating_add(u64::from_le_bytes(*length));
    if !time::is_known(to) {
        return;
    }
    let (span, watch) = (Span { from, to, settled: to }, Watch::new(&|| true));
    if let Ok(mut running) = Running::new(&plan, span, MEMORY, Vec::new())
        && (!(from..to).contains(&NOW_US) || running.event(&event, &watch).is_ok())
        && running.finish(&watch).is_ok()
    {
        let mut rows = std::iter::from_fn(|| running.take()).take(ROWS);
        assert!(rows.all(|(_, row)| row.len() <= plan.headings.len()));
    }
});
