//! The way of a client command to the broker: one request, one answer, over HTTP. What went wrong is a [`Trouble`];
//! what a request means is left to the commands.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Method, Request, Uri};

use super::failure::Failure;
use super::output;
use super::trouble::{Problem, Refusal, Trouble};

/// Where the broker is, and who asks.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Address of the broker
    #[arg(long, global = true, env = "EDDYLINE_URL", value_name = "URL", default_value = "http://127.0.0.1:4437")]
    url: String,
    /// File that holds the token to show; or the token itself stands in EDDYLINE_TOKEN
    #[arg(long, global = true, env = "EDDYLINE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A broker to talk to. Proxies of the environment are not used.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    token: Option<Secret>,
}

/// A token, which is shown to the broker and to nobody else.
#[derive(Clone)]
pub(super) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a token)")
    }
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    headers: HeaderMap,
    body: ureq::Body,
    url: String,
}

/// Longest silence in an answer; a live answer has a heartbeat more often than that.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest way to a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bodies of refusals and of answers that are one JSON value.
const BODY_BYTES_MAX: u64 = 64 << 20;

impl Connection {
    /// Makes a client; nothing is sent yet.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let url = self.url.trim_end_matches('/').to_owned();
        let refuse = |why: &str| {
            Failure::usage(format!("--url: `{}` {why}", self.url)).hint("expected for example http://127.0.0.1:4437")
        };
        let uri: Uri = url.parse().map_err(|error| refuse(&format!("is not an address: {error}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(refuse("asks for TLS, which is not built in; use a local TLS proxy"));
            }
            _ => return Err(refuse("does not begin with http://")),
        }
        if uri.path().len() > 1 || uri.query().is_some() {
            return Err(refuse("has a path"));
        }
        Ok(Client { agent: agent(Some(SILENCE)), url, token: self.token()? })
    }

    /// The token of the file, else that of the variable.
    fn token(&self) -> Result<Option<Secret>, Failure> {
        if let Some(file) = self.token_file.as_ref().filter(|file| !file.as_os_str().is_empty()) {
            let place = format!("--token-file: {}", file.display());
            let refuse = |error: std::io::Error| Failure::usage(format!("{place}: {error}"));
            let mode = file.metadata().map_err(refuse)?.permissions().mode();
            let text = std::fs::read_to_string(file).map_err(refuse)?;
            if mode & 0o077 != 0 {
                output::say(&format!("warning: {}: others can read this token: chmod 600 it", file.display()));
            }
            return one_token(&place, &text).map(Some);
        }
        match std::env::var_os("EDDYLINE_TOKEN").filter(|text| !text.is_empty()) {
            Some(text) => one_token("EDDYLINE_TOKEN", &text.to_string_lossy()).map(Some),
            None => Ok(None),
        }
    }
}

fn agent(silence: Option<Duration>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("eddyline/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(silence)
        .timeout_per_write(Some(SILENCE));
    config.build().into()
}

/// The one token of a text, which is never shown.
fn one_token(place: &str, text: &str) -> Result<Secret, Failure> {
    match text.trim() {
        "" => Err(Failure::usage(format!("{place}: it is empty"))),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret(token.to_owned())),
        _ => Err(Failure::usage(format!("{place}: there is more than one token in it"))),
    }
}

impl Client {
    /// Address of the broker.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The same, for what may take as long as it takes.
    pub(super) fn patient(self) -> Self {
        Self { agent: agent(None), ..self }
    }

    /// The broker went away in the middle of an answer.
    pub(super) fn lost(&self, cause: String) -> Trouble {
        Trouble::Unreachable { url: self.url.clone(), cause, unsent: false }
    }

    /// Asks for `path` (with its query).
    pub(super) fn get(&self, path: &str, accept: &str) -> Result<Answer, Trouble> {
        self.send(&Method::GET, path, &[("Accept", accept)], None)
    }

    /// Asks for `path` and reads the one JSON value of the answer.
    pub(super) fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.get(path, "application/json")?.json()
    }

    /// Sends `body` (type and bytes) to `path`.
    pub(super) fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, &[u8])>,
    ) -> Result<Answer, Trouble> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(Secret(token)) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some((kind, _)) = body {
            request = request.header("Content-Type", kind);
        }
        let odd = |error: ureq::http::Error| Trouble::Odd(format!("cannot ask for {url}: {error}"));
        let response = match body {
            Some((_, bytes)) => self.agent.run(request.body(bytes).map_err(odd)?),
            None => self.agent.run(request.body(()).map_err(odd)?),
        };
        let (head, body) = response.map_err(|error| trouble(&self.url, &error))?.into_parts();
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, body, url: self.url.clone() };
        if head.status.is_success() { Ok(answer) } else { Err(answer.refusal()) }
    }
}

impl Answer {
    /// Status code.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// A field of the head.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, as it comes in.
    pub(super) fn into_reader(self) -> impl Read {
        self.body.into_reader()
    }

    /// The body as text.
    pub(super) fn text(self) -> Result<String, Trouble> {
        let url = self.url;
        let body = self.body.into_with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string();
        body.map_err(|error| trouble(&url, &error))
    }

    /// The one JSON value of the body.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, Trouble> {
        let url = self.url;
        let bytes = self.body.into_with_config().limit(BODY_BYTES_MAX).read_to_vec();
        let bytes = bytes.map_err(|error| trouble(&url, &error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Trouble::Odd(format!("the answer of {url} is not what a broker says: {error}")))
    }

    fn refusal(self) -> Trouble {
        let body = self.body.into_with_config().limit(BODY_BYTES_MAX).lossy_utf8(true).read_to_string();
        let body = body.unwrap_or_default();
        let problem = serde_json::from_str(&body).unwrap_or_else(|_| Problem {
            detail: body.lines().next().unwrap_or_default().chars().take(200).collect(),
            ..Problem::default()
        });
        Trouble::Refused(Box::new(Refusal { status: self.status, headers: self.headers, problem }))
    }
}

fn trouble(url: &str, error: &ureq::Error) -> Trouble {
    let (cause, unsent) = match error {
        ureq::Error::Io(error) => (error.to_string(), error.kind() == std::io::ErrorKind::ConnectionRefused),
        ureq::Error::HostNotFound => ("no such host".to_owned(), true),
        ureq::Error::ConnectionFailed => ("no connection".to_owned(), true),
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (format!("no connection within {} s", CONNECT.as_secs()), true)
        }
        ureq::Error::Timeout(_) => (format!("no answer within {} s", SILENCE.as_secs()), false),
        other => {
            return Trouble::Odd(format!("the answer of {url} is not what a broker says: {other}"));
        }
    };
    Trouble::Unreachable { url: url.to_owned(), cause, unsent }
}

/// Everything but what RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a part of a path or as a value in a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The path of a group, with what follows it.
pub(super) fn group_path(group: &str, rest: &str) -> String {
    format!("/v1/groups/{}{rest}", encoded(group))
}

/// The path of a consumer, with what follows it.
pub(super) fn consumer_path(group: &str, consumer: &str, rest: &str) -> String {
    group_path(group, &format!("/consumers/{}{rest}", encoded(consumer)))
}

#[cfg(test)]
mod tests;
