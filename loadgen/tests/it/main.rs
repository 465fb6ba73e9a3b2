//! The binary against a fake broker that keeps its promises, or breaks one on purpose. No test waits for a speed: they
//! look at counts, exit codes and bytes.

mod fake;

mod clean;
mod faults;
mod open_loop;
mod readers;
mod report;
mod runs;
mod terminal;
mod trouble;
mod usage;
