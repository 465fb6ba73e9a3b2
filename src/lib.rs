//! Eddyline: an event-log broker for Linux on io_uring.
//!
//! The road of an event, and the rooms it passes; imports only ever point down this list.
//!
//! ```text
//!            socket                                              socket
//!              │ bytes                                              ▲ bytes
//!  server      ▼ a connection: receive, parse all, send once       │
//!  http        bytes ⇄ requests and replies                        │
//!  api         what a request means                       what an answer looks like
//!              │ events of one request                              ▲ events
//!  shard       ▼ collect · seal · write+sync · make visible · answer │
//!  group       offsets, times, ids, duplicates            durable head, readers woken
//!  log         frame → journal entry                      tail in memory, else segment
//!              │ one O_DIRECT|O_DSYNC write per commit              ▲ page cache, else disk
//!  io          ▼ journal ⇢ segments ⇢ state file ⇢ journal space is reused
//! ```
//!
//! An answer means durable: a request that changes anything is answered after the journal entry that holds it was
//! written and synced, and nobody sees an event before that. `docs/ARCHITECTURE.md` has the map with its invariants,
//! `docs/FORMAT.md` every byte on disk, `docs/DURABILITY.md` what a crash leaves.

pub mod cli;
pub mod server;

pub mod api;
pub mod http;

pub mod shard;

pub mod query;

pub mod auth;
pub mod group;
pub mod log;

pub mod io;

pub mod config;
pub mod limits;
pub mod stats;
pub mod units;
