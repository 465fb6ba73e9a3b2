//! The few requests that are not load: make a group, learn its tail, fetch one page of events. Blocking, one keep-alive
//! connection; what a page holds is `verify`'s to read.

use std::io::Read;
use std::time::{Duration, Instant};

use serde::Deserialize;
use thiserror::Error;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, RequestBuilder};

use crate::plan::Plan;
use crate::target::Target;

/// Events and bytes asked for in one page: the most the broker gives.
const PAGE_EVENTS: u32 = 10_000;
const PAGE_BYTES: &str = "16MiB";

/// Largest page that is read: the bytes asked for, in base64 and with every field around them, many times over.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// Largest answer with metrics that is read: some thousand groups and consumers, told one by one.
const METRICS_BYTES_MAX: u64 = 64 << 20;

/// Pause between tries while the broker is busy or away.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Why a request that is not load failed.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Nobody answers there.
    #[error("cannot reach the broker: {0}")]
    Unreachable(String),
    /// An answer, but not the one needed.
    #[error("the broker refused {what}: {status}{words}")]
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the broker says about it; empty or begins with a space.
        words: String,
    },
    /// An answer that does not follow the contract.
    #[error("cannot make sense of the answer to {what}: {why}")]
    Unusable {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A page of events as it came.
#[derive(Debug)]
pub struct Page {
    /// NDJSON lines.
    pub body: Vec<u8>,
    /// `Eddyline-Next`: where the next page begins.
    pub next: Option<u64>,
    /// `Eddyline-Tail`: the offset that the group's next event will get.
    pub tail: Option<u64>,
}

/// A client of one broker.
#[derive(Debug)]
pub struct Api {
    agent: Agent,
    root: String,
    base: String,
    authorization: Option<String>,
}

#[derive(Default, Deserialize)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
}

impl Api {
    /// A client of a broker; connects at the first request.
    pub fn new(target: &Target, token: Option<&str>, timeout: Duration) -> Api {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Load and verification must reach the same server, whatever the environment's proxy variables say.
            .proxy(None)
            .timeout_connect(Some(timeout))
            .timeout_recv_response(Some(timeout))
            .timeout_recv_body(Some(timeout * 10))
            .build();
        Api {
            agent: config.new_agent(),
            root: target.to_string(),
            base: format!("{target}/v1/groups"),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    /// A client of the broker that a plan is about.
    pub fn of(plan: &Plan) -> Api {
        Api::new(&plan.target, plan.token.as_deref(), plan.timeout)
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    /// Makes a group if it is not there. One that is there with another configuration is left as it is.
    pub fn create_group(&self, group: &str, patience: Duration) -> Result<(), ApiError> {
        let what = format!("to create group {group}");
        self.patiently(patience, |api| {
            let request = api.authorized(api.agent.put(format!("{}/{group}", api.base)));
            let mut response = request.send_empty().map_err(|error| failed(&what, error))?;
            match response.status() {
                StatusCode::OK | StatusCode::CREATED | StatusCode::CONFLICT => {
                    // Read to its end, so that the connection can be used again.
                    drain(&mut response);
                    Ok(())
                }
                _ => Err(refused(&what, &mut response)),
            }
        })
    }

    /// Subscribes a consumer that begins at `start`, and approves it where that is not done at once.
    pub fn subscribe(&self, group: &str, consumer: &str, start: &str) -> Result<(), ApiError> {
        let path = format!("{}/{group}/consumers/{consumer}", self.base);
        let what = format!("to subscribe {consumer} to {group}");
        let body = serde_json::json!({ "start": start }).to_string();
        let request = self.authorized(self.agent.put(&path).header("Content-Type", "application/json"));
        let mut response = request.send(&body).map_err(|error| failed(&what, error))?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => _ = drain(&mut response),
            StatusCode::ACCEPTED => {
                drain(&mut response);
                let request = self.authorized(self.agent.post(format!("{path}/approve")));
                let mut response = request.send_empty().map_err(|error| failed(&what, error))?;
                if response.status() != StatusCode::OK {
                    return Err(refused(&what, &mut response));
                }
                drain(&mut response);
            }
            _ => return Err(refused(&what, &mut response)),
        }
        Ok(())
    }

    /// Removes a consumer and its position.
    pub fn unsubscribe(&self, group: &str, consumer: &str) -> Result<(), ApiError> {
        let what = format!("to remove {consumer} of {group}");
        let request = self.authorized(self.agent.delete(format!("{}/{group}/consumers/{consumer}", self.base)));
        let mut response = request.call().map_err(|error| failed(&what, error))?;
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => {
                drain(&mut response);
                Ok(())
            }
            _ => Err(refused(&what, &mut response)),
        }
    }

    /// What the broker says of itself in `/metrics`.
    pub fn metrics(&self) -> Result<String, ApiError> {
        let what = "to tell its metrics";
        let request = self.authorized(self.agent.get(format!("{}/metrics", self.root)));
        let mut response = request.call().map_err(|error| failed(what, error))?;
        if response.status() != StatusCode::OK {
            return Err(refused(what, &mut response));
        }
        let text = response.body_mut().with_config().limit(METRICS_BYTES_MAX).read_to_string();
        text.map_err(|error| failed(what, error))
    }

    /// What the broker calls its version; nothing if it does not say.
    pub fn version(&self) -> Option<String> {
        let request = self.authorized(self.agent.get(format!("{}/v1/status", self.root)));
        let mut response = request.call().ok()?;
        let status: serde_json::Value = serde_json::from_slice(&drain(&mut response)).ok()?;
        status["version"].as_str().map(str::to_owned)
    }

    /// The offset that the group's next event will get.
    pub fn tail(&self, group: &str, patience: Duration) -> Result<u64, ApiError> {
        let page = self.page(group, "latest", patience)?;
        page.tail.ok_or_else(|| ApiError::Unusable {
            what: format!("a read of {group}"),
            why: "the header Eddyline-Tail is missing".into(),
        })
    }

    /// Reads events from a position on. Tries again while the broker is busy or away, for as long as `patience` lasts.
    pub fn page(&self, group: &str, from: &str, patience: Duration) -> Result<Page, ApiError> {
        let what = format!("to read {group} from {from}");
        let url = format!("{}/{group}/events?from={from}&limit={PAGE_EVENTS}&max_bytes={PAGE_BYTES}", self.base);
        self.patiently(patience, |api| {
            let request = api.authorized(api.agent.get(&url).header("Accept", "application/x-ndjson"));
            let mut response = request.call().map_err(|error| failed(&what, error))?;
            if response.status() != StatusCode::OK {
                return Err(refused(&what, &mut response));
            }
            let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
            let (next, tail) = (number("Eddyline-Next"), number("Eddyline-Tail"));
            let mut body = Vec::new();
            let mut reader = response.body_mut().with_config().limit(PAGE_BYTES_MAX).reader();
            reader.read_to_end(&mut body).map_err(|error| ApiError::Unreachable(format!("{what}: {error}")))?;
            Ok(Page { body, next, tail })
        })
    }

    fn patiently<T>(&self, patience: Duration, attempt: impl Fn(&Api) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let give_up = Instant::now() + patience;
        loop {
            let result = attempt(self);
            let passing = match &result {
                Err(ApiError::Unreachable(_)) => true,
                Err(ApiError::Refused { status, .. }) => matches!(status, 429 | 503),
                _ => false,
            };
            if !passing || Instant::now() >= give_up {
                return result;
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}

fn failed(what: &str, error: ureq::Error) -> ApiError {
    match error {
        ureq::Error::Protocol(error) => ApiError::Unusable { what: what.to_owned(), why: error.to_string() },
        ureq::Error::Http(error) => ApiError::Unusable { what: what.to_owned(), why: error.to_string() },
        other => ApiError::Unreachable(other.to_string()),
    }
}

fn refused(what: &str, response: &mut Response<ureq::Body>) -> ApiError {
    let status = response.status().as_u16();
    let problem: Problem = serde_json::from_slice(&drain(response)).unwrap_or_default();
    let words = [problem.code, problem.detail].into_iter().flatten().map(|part| format!(" {part}")).collect();
    ApiError::Refused { what: what.to_owned(), status, words }
}

fn drain(response: &mut Response<ureq::Body>) -> Vec<u8> {
    response.body_mut().with_config().limit(1 << 20).read_to_vec().unwrap_or_default()
}
