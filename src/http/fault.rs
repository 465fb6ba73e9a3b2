//! The refusal of a request for what its bytes are, before anyone asks what they mean.
//!
//! Rendering it as a problem document is `api`'s; what becomes of the connection is the server's.

use std::borrow::Cow;

/// A refused head, body or target: what to answer.
///
/// After a fault of a head or of a chunked body nobody can say where the next request begins, so the answer is
/// followed by a close. A fault of a target (path or query) leaves the connection in step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Fault {
    /// HTTP status of the answer.
    pub status: u16,
    /// Stable name of the mistake, for programs.
    pub code: &'static str,
    /// What is wrong, for people. Never holds bytes of the request that are not printable ASCII.
    pub detail: Cow<'static, str>,
}

impl Fault {
    /// A refusal with any status.
    #[cold]
    pub fn new(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// A refusal as malformed: 400.
    #[cold]
    pub fn malformed(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, code, detail)
    }
}
