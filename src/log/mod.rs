//! Formats and the decisions about them: events, group frames, journal entries, segments, index, state file, recovery.
//!
//! Every file holds one format with its picture, its writer and its reader; `docs/FORMAT.md` shows the same bytes to
//! people. What is here takes bytes and returns values; the few places that read or write files say so.

pub mod entry;
pub mod event;
pub mod file_header;
pub mod frame;
pub mod group_log;
pub mod index;
pub mod journal;
pub mod look;
pub mod recovery;
pub mod salvage;
pub mod scan;
pub mod segment;
pub mod state;
pub mod wire;

#[cfg(test)]
mod tests;
