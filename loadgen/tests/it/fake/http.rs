//! Requests and answers over a blocking socket, as strict as the tests need.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

/// A request, whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    parameters: HashMap<String, String>,
    /// Names in lower case.
    headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// An answer to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) version: &'static str,
    status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    pub(super) chunked: bool,
}

impl Answer {
    pub(super) fn of(status: u16, body: &[u8]) -> Answer {
        Answer { version: "HTTP/1.1", status, headers: Vec::new(), body: body.to_vec(), chunked: false }
    }

    pub(super) fn problem(status: u16, code: &str, effect: &str) -> Answer {
        Answer::of(status, json!({ "code": code, "effect": effect, "retryable": false }).to_string().as_bytes())
    }

    pub(super) fn busy() -> Answer {
        let body = json!({ "code": "busy", "effect": "none", "retryable": true, "retry_after_ms": 20 });
        Answer::of(503, body.to_string().as_bytes())
    }

    pub(super) fn stored(first: u64, count: u64, duplicate: bool, minimal: bool) -> Answer {
        if !minimal {
            let body = json!({
                "group": "g", "first_offset": first, "last_offset": first + count - 1, "first_id": "a", "last_id": "b",
                "received": "2026-01-01T00:00:00.000000Z", "count": count, "duplicate": duplicate
            });
            return Answer::of(200, body.to_string().as_bytes());
        }
        let mut answer = Answer::of(204, b"");
        answer.headers.push(("Eddyline-Offset", first.to_string()));
        if duplicate {
            answer.headers.push(("Eddyline-Duplicate", "true".into()));
        }
        answer
    }
}

/// The other end of a connection.
pub(super) struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        Peer { stream, received: Vec::new() }
    }

    /// The next request, or `None` when the connection has ended.
    pub(super) fn request(&mut self) -> Option<Request> {
        loop {
            if let Some((request, used)) = parse(&self.received) {
                self.received.drain(..used);
                return Some(request);
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => self.received.extend_from_slice(&piece[..bytes]),
            }
        }
    }

    /// Sends an answer; whether anybody still listens is not our concern.
    pub(super) fn answer(&mut self, answer: &Answer, in_pieces: bool) {
        let mut bytes = format!("{} {} Whatever\r\n", answer.version, answer.status).into_bytes();
        for (name, value) in &answer.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if answer.chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in answer.body.chunks(1000) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            if answer.status != 204 {
                bytes.extend(format!("Content-Length: {}\r\n", answer.body.len()).bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&answer.body);
        }
        let piece = if in_pieces { 7 } else { bytes.len() };
        for part in bytes.chunks(piece) {
            if self.stream.write_all(part).is_err() {
                return;
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(bytes).expect("a well-formed request") else {
        return None;
    };
    let mut named = HashMap::new();
    for header in head.headers.iter() {
        let value = String::from_utf8(header.value.to_vec()).unwrap();
        assert!(named.insert(header.name.to_ascii_lowercase(), value).is_none(), "{} is there twice", header.name);
    }
    assert!(named.contains_key("host"), "a request without Host");
    let method = head.method.unwrap().to_owned();
    let length = match named.get("content-length") {
        Some(digits) => digits.parse().unwrap(),
        None => {
            assert!(matches!(&*method, "GET" | "DELETE"), "{method} without Content-Length");
            0
        }
    };
    let body = bytes.get(head_bytes..head_bytes + length)?.to_vec();
    let (path, query) = head.path.unwrap().split_once('?').unwrap_or((head.path.unwrap(), ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let parameters = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some((Request { method, path: path.to_owned(), parameters, headers: named, body }, head_bytes + length))
}
