//! Bytes ⇄ HTTP/1.1 requests and replies, without sockets, clocks or meaning: slices go in, values come out.
//!
//! ```text
//! received bytes ─► head    request line and header fields, framing decided (name: the fields we know; value: theirs;
//!                           last_head: the same head again)
//!                   body    chunked bodies decoded; the others are plain slices
//!                   target  path segments and query parameters, percent-decoded
//! to be sent     ◄─ reply   status line, header fields, body
//!                ◄─ stream  bodies of unknown length, in chunks
//! refused        ◄─ fault   status, code and detail; syntax names what is wrong with a head
//! ```
//!
//! "Not yet" is never a fault: a parser that needs more says so, and then gives the same result as if everything had
//! come at once. RFC 9112 is the standard; where it leaves a choice between lax and strict, this is strict, because a
//! proxy in front that reads one byte differently is how requests are smuggled.

mod body;
mod fault;
mod head;
mod last_head;
mod name;
mod reply;
mod stream;
mod syntax;
mod target;
#[cfg(test)]
mod tests;
mod value;

pub use body::{ChunkDecoder, Progress};
pub use fault::Fault;
pub use head::{Framing, Head, Method, parse_head};
pub use last_head::LastHead;
pub use name::{Known, META_PREFIX};
pub use reply::{CONTINUE, DateClock, Reply, ReplyTo};
pub use stream::{Mark, Stream};
pub use target::{Query, decode, segments};
