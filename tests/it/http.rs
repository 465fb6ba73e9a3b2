//! A small HTTP/1.1 client that hides nothing: what is sent is sent as it is, what comes is taken apart strictly, and a
//! second request on the same connection proves that nothing got out of step.

use crate::broker::PATIENCE;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// What came and was not taken yet.
    input: Vec<u8>,
    /// The field that shows its token, if it has one.
    authorization: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its header fields in order, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Its body, chunks joined.
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self { stream, input: Vec::new(), authorization: None }
    }

    /// Shows that token from now on.
    pub(crate) fn authorize(&mut self, token: &str) {
        self.authorization = Some(format!("Bearer {token}"));
    }

    /// The bytes of a request with a body, if any, of that length.
    pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
        let body = body.as_ref();
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        [text.as_bytes(), body].concat()
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let own = self.authorization.clone();
        let own: Vec<(&str, &str)> = own.iter().map(|value| ("Authorization", value.as_str())).collect();
        self.send(Self::request(method, target, &[headers, &own].concat(), body));
        self.answer_to(method)
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, &[], "")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the broker takes it");
    }

    /// Sends what it can; a connection that was closed meanwhile is no fault.
    pub(crate) fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one answer.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads the answer to a request of that method.
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method == "HEAD" || matches!(answer.status, 100 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                answer.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().expect("a length");
            answer.body = self.take(length);
        } else {
            assert_eq!(answer.header("connection"), Some("close"), "an answer says where it ends: {answer:?}");
            while self.fill() {}
            answer.body = std::mem::take(&mut self.input);
        }
        answer
    }

    /// Reads an answer's status line and header fields.
    pub(crate) fn head(&mut self) -> Answer {
        let status = self.line();
        let mut parts = status.splitn(3, ' ');
        assert_eq!(parts.next(), Some("HTTP/1.1"), "{status:?}");
        let status = parts.next().and_then(|digits| digits.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return Answer { status, headers, body: Vec::new() };
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no field"));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads one chunk of a body; `None` at its end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line();
        let length = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("{line:?} is no chunk"));
        let chunk = self.take(length);
        assert_eq!(self.line(), "", "a chunk ends with an empty line");
        (length > 0).then_some(chunk)
    }

    /// Whether the broker closed the connection and sent nothing before it.
    pub(crate) fn closed(&mut self) -> bool {
        while self.input.is_empty() {
            if !self.fill() {
                return true;
            }
        }
        false
    }

    /// Sends byte after byte, as slowly as that, until something comes back.
    pub(crate) fn drip(&mut self, pause: Duration) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_input() {
            assert!(Instant::now() < deadline, "nothing came back");
            self.send_anyway("a");
            std::thread::sleep(pause);
        }
    }

    /// Whether something came, or the connection ended.
    pub(crate) fn has_input(&self) -> bool {
        self.stream.set_nonblocking(true).expect("an option");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("an option");
        !self.input.is_empty() || !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// The connection goes on: the next request gets its own answer.
    pub(crate) fn assert_in_step(&mut self, after: &str) {
        let answer = self.get("/livez");
        assert_eq!((answer.status, answer.text()), (200, "{\"status\":\"alive\"}"), "out of step after {after}");
    }

    /// The connection was ended behind the answer.
    pub(crate) fn assert_closed(&mut self, after: &str) {
        assert!(self.closed(), "still open after {after}: {}", self.input.escape_ascii());
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").expect("lines end with CR and LF");
                return String::from_utf8(line.to_vec()).expect("text");
            }
            assert!(self.fill(), "closed within a line: {}", self.input.escape_ascii());
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.input.len() < length {
            assert!(self.fill(), "closed {} bytes before an answer's end", length - self.input.len());
        }
        self.input.drain(..length).collect()
    }

    /// Receives more; false when the broker closed.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(bytes) => {
                self.input.extend_from_slice(&piece[..bytes]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}; so far {}", self.input.escape_ascii()),
        }
    }
}

impl Answer {
    /// The first field of that name, which is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name).map(|value| value.parse().expect("a number"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }

    /// Its events, whatever list or lines they came in.
    pub(crate) fn events(&self) -> Vec<Value> {
        if self.header("content-type") == Some("application/x-ndjson") {
            return self.text().lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
        }
        self.json()["events"].as_array().expect("a list of events").clone()
    }

    /// The offsets of its events.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.events().iter().map(|event| event["offset"].as_u64().expect("an offset")).collect()
    }

    /// It is a problem of that status and code, with everything that belongs to one.
    pub(crate) fn assert_problem(&self, status: u16, code: &str, after: &str) {
        assert_eq!(self.status, status, "{after}: {self:?} {}", self.body.escape_ascii());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{after}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{after}: {problem}");
        assert_eq!(problem["status"], status, "{after}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{after}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{after}: {problem}");
        assert!(problem["effect"] == "none" || problem["effect"] == "unknown", "{after}: {problem}");
        let retryable = problem["retryable"].as_bool().expect("told");
        assert_eq!(retryable, problem["retry_after_ms"].is_u64(), "{after}: {problem}");
        assert_eq!(retryable, self.header("retry-after").is_some(), "{after}: {problem}");
    }
}
