//! The log as a time series: the text of a query becomes a syntax tree, a plan, and a state that runs over events.
//!
//! ```text
//! text ─▶ lex ─▶ parse (predicate, time) ─▶ syntax      or a fault that points at the place
//! syntax ─▶ plan      names and types checked: what a row is made of, what an event is asked for
//! events ─▶ run       filter ─▶ slice ─▶ aggregate ─▶ fill ─▶ rows of cells
//! ```
//!
//! It knows no group, no file and no socket: whoever runs a query shows it events in the order of their offsets, and takes
//! the rows. `docs/QUERY.md` has the language.

mod aggregate;
pub mod fault;
mod fill;
mod filter;
mod lex;
mod like;
mod parse;
pub mod plan;
mod predicate;
pub mod run;
pub mod slice;
pub mod syntax;
pub mod time;
pub mod value;
pub mod watch;

#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use parse::parse;
