//! What can be wrong with a request: no broker, a refusal, or an answer that is none. A refusal keeps what the broker
//! said of it; each becomes a failure with its next step.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use ureq::http::HeaderMap;

use super::failure::{Exit, Failure};

/// Why there is no good answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The broker cannot be reached, or went away before it had answered.
    Unreachable {
        /// Address that was tried.
        url: String,
        /// Cause.
        cause: String,
        /// The request cannot have arrived.
        unsent: bool,
    },
    /// The broker said no.
    Refused(Box<Refusal>),
    /// What came was not an answer of a broker.
    Odd(String),
}

/// What the broker said when it refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) problem: Problem,
}

/// The body of a refusal (`application/problem+json`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) title: String,
    pub(super) detail: String,
    /// `none`: nothing was changed.
    pub(super) effect: String,
    pub(super) retryable: bool,
    pub(super) retry_after_ms: Option<u64>,
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

impl Refusal {
    /// A header with a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.headers.get(name)?.to_str().ok()?.parse().ok()
    }

    /// How long the broker asks to wait, in the body or in `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let asked = self.problem.retry_after_ms.map(Duration::from_millis);
        asked.or_else(|| self.number("Retry-After").map(Duration::from_secs))
    }

    fn text(&self) -> String {
        let Problem { code, title, detail, .. } = &self.problem;
        let said = if detail.is_empty() { title } else { detail };
        match (code.is_empty(), said.is_empty()) {
            (false, false) => format!("{code}: {said}"),
            (false, true) => code.clone(),
            (true, false) => format!("status {}: {said}", self.status),
            (true, true) => format!("status {}", self.status),
        }
    }

    /// What to do about a consumer.
    fn consumer_step(&self) -> Option<&'static str> {
        Some(match self.problem.code.as_str() {
            "no_consumer" => "`eddyline consumer ls` lists the consumers; `eddyline consumer subscribe` makes one",
            "consumer_pending" | "consumer_revoked" => "`eddyline consumer approve GROUP CONSUMER` lets it read",
            "consumer_suspended" => "`eddyline consumer resume GROUP CONSUMER` lets it read again",
            "consumer_expired" => "`eddyline consumer approve GROUP CONSUMER --expires TIME` lets it read again",
            "has_position" => "`eddyline consumer rewind` moves it; leave out --start",
            "needs_skip" => "say --skip if events are to be left out",
            "session_active" => "somebody else reads for it: `eddyline consumer info GROUP CONSUMER` says since when",
            _ => return None,
        })
    }

    fn next_step(&self) -> Option<String> {
        if let Some(step) = self.consumer_step() {
            return Some(step.to_owned());
        }
        let text = match self.status {
            _ if self.problem.code.is_empty() => "is --url the address of an Eddyline broker?".to_owned(),
            401 if self.problem.code == "bad_token" => {
                "ask for another token, and name its file with --token-file (or EDDYLINE_TOKEN_FILE)".to_owned()
            }
            401 => "name the file of a token with --token-file (or EDDYLINE_TOKEN_FILE)".to_owned(),
            403 => "the token does not allow this; ask for another".to_owned(),
            404 if self.problem.code == "no_query" => {
                "`eddyline query --running` lists the queries that run".to_owned()
            }
            404 if self.problem.code.contains("group") => {
                "`eddyline group ls` lists the groups; `eddyline group create NAME`, or `produce --create`, makes one"
                    .to_owned()
            }
            410 => match self.problem.more.get("earliest") {
                Some(earliest) => format!("the first event still kept is {earliest}; `earliest` begins there"),
                None => "`earliest` begins with the first event still kept".to_owned(),
            },
            413 => "send smaller events, or fewer in a batch (--batch)".to_owned(),
            416 => match self.problem.more.get("tail") {
                Some(tail) => format!("the next event will have offset {tail}"),
                None => return None,
            },
            429 | 503 => match self.retry_after() {
                Some(wait) => format!("try again in {} s", wait.as_secs_f64().ceil()),
                None => "`eddyline status` says how the broker is".to_owned(),
            },
            507 => "the broker's disk is full down to its reserve: free space there, then try again".to_owned(),
            500 if self.problem.effect == "unknown" => {
                "it may or may not have been done; `eddyline status` says how the broker is".to_owned()
            }
            _ => return None,
        };
        Some(text)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable { url, cause, .. } => {
                let failure = Failure { exit: Exit::Unreachable, message: format!("{url}: {cause}"), hint: None };
                failure.hint("is a broker running there? `eddyline dev` starts one, --url or EDDYLINE_URL names it")
            }
            Trouble::Refused(refusal) => {
                Failure { exit: Exit::Refused, message: refusal.text(), hint: refusal.next_step() }
            }
            Trouble::Odd(message) => Failure::failed(message),
        }
    }
}
