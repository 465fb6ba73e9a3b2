//! The head of a request: request line and header fields, and what they say about where its body ends.
//!
//! httparse finds the parts; everything it tolerates and we do not is checked here. One pass over the fields fills a
//! table of the known ones. What a path or a value means is left to `target` and to `api`.

use std::mem::MaybeUninit;

use super::fault::Fault;
use super::name::{self, Known};
use super::reply::ReplyTo;
use super::syntax;
use super::value::{decimal, is_host, refused_coding};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// The methods that the broker knows; another token is 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// How the end of the body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Neither a length nor chunks: there is no body.
    None,
    /// `Content-Length`, in bytes. Nothing may be reserved on its word alone.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A parsed head. It borrows the received bytes and owns nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'b> {
    /// What is to be done.
    pub method: Method,
    /// 0 or 1, of HTTP/1.x.
    pub minor_version: u8,
    /// The connection goes on after the answer, as far as the client is concerned.
    pub keep_alive: bool,
    /// The client waits for `CONTINUE` before it sends the body.
    pub expects_continue: bool,
    /// Where the body ends.
    pub framing: Framing,
    /// Raw path: begins with `/`, or is `*` (for OPTIONS only).
    pub path: &'b str,
    /// Raw query without the `?`; empty if there is none.
    pub query: &'b str,
    /// The whole head; every place below is in it.
    bytes: &'b [u8],
    /// Where the values of known fields stand, by `Known as usize`.
    values: [Place; Known::COUNT],
    /// Where path and query stand.
    path_at: Place,
    query_at: Place,
    /// Where the first header line begins.
    fields_at: u16,
    /// A Connection field has the option `close`.
    says_close: bool,
    /// Where the first `Eddyline-Meta-*` line begins, and how many such lines there are.
    meta_at: u16,
    meta_count: u8,
}

/// A piece of a head. No value begins at its first byte, so `at == 0` is "not there".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u16,
    bytes: u16,
}

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize && HEADERS_MAX <= u8::MAX as usize, "places fit a head");
const _: () = assert!(size_of::<Head<'_>>() <= 192, "a head is kept in every connection's future");

/// Parses one request head from the beginning of what was received: the head and the bytes it took, or `None` if more
/// is needed. Every limit and every wrong byte is reported as soon as it is seen, not only when the head is complete.
pub fn parse_head(input: &[u8]) -> Result<Option<(Head<'_>, usize)>, Fault> {
    // What lies beyond the limit is never looked at, so the result cannot depend on how much more has come.
    let window = &input[..input.len().min(HEAD_BYTES_MAX)];
    // RFC 9112, 2.2: one empty line before a request is forgiven.
    let skipped = match window {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let line = &window[skipped..];
    let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(line, &mut fields) {
        Ok(httparse::Status::Complete(used)) => {
            let used = skipped + used;
            Ok(Some((accept(&window[..used], skipped, &request)?, used)))
        }
        Ok(httparse::Status::Partial) => match syntax::first_fault(line) {
            Some(fault) => Err(fault),
            None if window.len() == HEAD_BYTES_MAX => {
                let detail = format!("the head is longer than {HEAD_BYTES_MAX} bytes");
                Err(Fault::new(431, "head_too_large", detail))
            }
            None => Ok(None),
        },
        Err(_) => Err(refuse(line)),
    }
}

/// Names the fault of a head that was found to have one.
#[cold]
fn refuse(line: &[u8]) -> Fault {
    syntax::first_fault(line).unwrap_or_else(|| Fault::malformed("bad_request_line", "this is not an HTTP request"))
}

/// Makes a head of what httparse found in `bytes`, of which the first `skipped` are an empty line.
fn accept<'b>(bytes: &'b [u8], skipped: usize, request: &httparse::Request<'_, 'b>) -> Result<Head<'b>, Fault> {
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
        return Err(refuse(&bytes[skipped..]));
    };
    // httparse takes any number of empty lines, and an LF for a CRLF. Every LF of a head ends a line, so each one
    // stands before a field's name or at the very end: looking there finds all that came without their CR. This comes
    // before any other check: what is wrong with the bytes is said before what is wrong with their meaning.
    let line_at = |field: &httparse::Header<'_>| place_in(bytes, field.name.as_bytes()).at;
    let is_well_formed = target.len() <= TARGET_BYTES_MAX
        && target.is_ascii()
        && memchr::memchr(b'#', target.as_bytes()).is_none()
        && !matches!(bytes[skipped], b'\r' | b'\n')
        && bytes.ends_with(b"\r\n\r\n")
        && request.headers.iter().all(|field| bytes[usize::from(line_at(field)) - 2] == b'\r');
    if !is_well_formed {
        return Err(refuse(&bytes[skipped..]));
    }
    let mut head = Head {
        method: known_method(method)?,
        minor_version,
        keep_alive: minor_version == 1,
        expects_continue: false,
        framing: Framing::None,
        path: "",
        query: "",
        bytes,
        path_at: Place { at: 0, bytes: 0 },
        query_at: Place { at: 0, bytes: 0 },
        values: [Place { at: 0, bytes: 0 }; Known::COUNT],
        fields_at: request.headers.first().map_or(bytes.len() as u16, line_at),
        says_close: false,
        meta_at: 0,
        meta_count: 0,
    };
    for field in request.headers.iter() {
        head.take_field(line_at(field), field)?;
    }
    head.take_target(target)?;
    head.settle_host()?;
    head.settle_framing()?;
    head.settle_connection()?;
    Ok(head)
}

impl<'b> Head<'b> {
    /// What was found out about this head, to be [applied](Self::with_bytes) to the same bytes elsewhere.
    pub(super) fn without_bytes(&self) -> Head<'static> {
        Head {
            path: "",
            query: "",
            bytes: &[],
            path_at: self.path_at,
            query_at: self.query_at,
            method: self.method,
            minor_version: self.minor_version,
            keep_alive: self.keep_alive,
            expects_continue: self.expects_continue,
            framing: self.framing,
            values: self.values,
            fields_at: self.fields_at,
            says_close: self.says_close,
            meta_at: self.meta_at,
            meta_count: self.meta_count,
        }
    }

    /// The head that these bytes are, which were parsed before.
    pub(super) fn with_bytes<'c>(&self, bytes: &'c [u8]) -> Head<'c>
    where
        'b: 'c,
    {
        let text = |Place { at, bytes: length }| {
            str::from_utf8(&bytes[usize::from(at)..][..usize::from(length)]).expect("a target is ASCII")
        };
        // The path of a target without one is written nowhere.
        let path = if self.path_at.bytes == 0 { "/" } else { text(self.path_at) };
        Head { bytes, path, query: text(self.query_at), ..self.clone() }
    }

    /// The value of a known field, or its first one where a list was sent as several (see `all`).
    pub fn get(&self, field: Known) -> Option<&'b [u8]> {
        let Place { at, bytes } = self.values[field as usize];
        let at = usize::from(at);
        (at != 0).then(|| &self.bytes[at..at + usize::from(bytes)])
    }

    /// The same as text; a value that is not UTF-8 is 400 `bad_header`.
    pub fn text(&self, field: Known) -> Result<Option<&'b str>, Fault> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        str::from_utf8(value).map(Some).map_err(|_| {
            let detail = format!("the value of {} is not UTF-8", field.name());
            Fault::malformed("bad_header", detail)
        })
    }

    /// Every value of a known field that may be sent more than once, in order.
    pub fn all(&self, field: Known) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let first = if self.get(field).is_some() { self.fields_at.into() } else { self.bytes.len() };
        let lines = Fields { rest: &self.bytes[first..] };
        lines.filter(move |(name, _)| name::known(name.as_bytes()) == Some(field)).map(|(_, value)| value)
    }

    /// The `Eddyline-Meta-*` fields in order: what follows the prefix, as it was spelled, and the value.
    pub fn meta(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'b> {
        let lines = Fields { rest: &self.bytes[self.meta_at.into()..] };
        lines
            .filter_map(|(name, value)| Some((name.get(name.len() - name::meta(name.as_bytes())?.len()..)?, value)))
            .take(self.meta_count.into())
    }

    /// What an answer must know about this request.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo {
            minor_version: self.minor_version,
            head_only: self.method == Method::Head,
            keep_alive: self.keep_alive,
        }
    }

    fn take_field(&mut self, line_at: u16, field: &httparse::Header<'b>) -> Result<(), Fault> {
        let Some(known) = name::known(field.name.as_bytes()) else {
            return match name::meta(field.name.as_bytes()) {
                Some([]) => Err(Fault::malformed("bad_header", "a name is missing after `Eddyline-Meta-`")),
                Some(_) => {
                    if self.meta_count == 0 {
                        self.meta_at = line_at;
                    }
                    self.meta_count += 1;
                    Ok(())
                }
                None => Ok(()),
            };
        };
        if known == Known::Connection {
            self.take_connection(field.value);
        }
        let place = &mut self.values[known as usize];
        if place.at == 0 {
            *place = place_in(self.bytes, field.value);
            Ok(())
        } else if known.is_single() {
            Err(repeated(known))
        } else {
            Ok(())
        }
    }

    /// The four forms of a target (RFC 9112, 3.2), of which the authority form belongs to CONNECT and is refused.
    fn take_target(&mut self, target: &'b str) -> Result<(), Fault> {
        let bad = |detail| Err(Fault::malformed("bad_target", detail));
        let origin = if target.starts_with('/') {
            target
        } else if target == "*" {
            if self.method != Method::Options {
                return bad("`*` is a target for OPTIONS only");
            }
            target
        } else {
            let Some((scheme, rest)) = target.split_once("://") else {
                return bad("the target does not begin with `/`");
            };
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return bad("the target has a scheme other than http");
            }
            let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // RFC 9112, 3.2.2: the target's own host stands in for the field, which must be there all the same.
            if self.get(Known::Host).is_none_or(|host| !is_host(host)) {
                return Err(bad_host("the Host field is missing or not a host"));
            }
            self.values[Known::Host as usize] = place_in(self.bytes, authority.as_bytes());
            origin
        };
        let (path, query) = match memchr::memchr(b'?', origin.as_bytes()) {
            Some(end) => (&origin[..end], &origin[end + 1..]),
            None => origin.split_at(origin.len()),
        };
        self.path = if path.is_empty() { "/" } else { path };
        self.query = query;
        self.path_at = place_in(self.bytes, path.as_bytes());
        self.query_at = place_in(self.bytes, query.as_bytes());
        Ok(())
    }

    fn settle_host(&self) -> Result<(), Fault> {
        match self.get(Known::Host) {
            None => Err(bad_host("the Host field is missing")),
            Some(host) if is_host(host) => Ok(()),
            Some(_) => Err(bad_host("the value of Host is not a host with an optional port")),
        }
    }

    fn settle_framing(&mut self) -> Result<(), Fault> {
        let length = self.get(Known::ContentLength);
        let Some(coding) = self.get(Known::TransferEncoding) else {
            if let Some(length) = length {
                let Some(length) = decimal(length) else {
                    return Err(Fault::malformed("bad_length", "Content-Length is not a plain decimal number"));
                };
                self.framing = Framing::Length(length);
            }
            return Ok(());
        };
        if length.is_some() {
            let detail = "both Content-Length and Transfer-Encoding are given";
            return Err(Fault::malformed("bad_framing", detail));
        }
        if self.minor_version == 0 {
            return Err(Fault::malformed("bad_framing", "HTTP/1.0 has no Transfer-Encoding"));
        }
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(refused_coding(coding));
        }
        self.framing = Framing::Chunked;
        Ok(())
    }

    /// `close` wins wherever it stands; the version decides where nothing is said.
    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',') {
            let option = option.trim_ascii();
            self.says_close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn settle_connection(&mut self) -> Result<(), Fault> {
        self.keep_alive &= !self.says_close;
        if self.get(Known::Expect).is_some() {
            if self.all(Known::Expect).any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
                return Err(Fault::new(417, "unknown_expectation", "the only expectation known is 100-continue"));
            }
            // RFC 9110, 10.1.1: a client of HTTP/1.0 could not understand the interim answer.
            self.expects_continue = self.minor_version == 1;
        }
        Ok(())
    }
}

/// Walks the lines of a head that was parsed before, so each has its colon and its CRLF.
struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Fields<'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let colon = memchr::memchr(b':', self.rest)?;
        let (name, rest) = self.rest.split_at(colon);
        let end = memchr::memchr(b'\r', rest)?;
        self.rest = rest.get(end + 2..)?;
        Some((str::from_utf8(name).ok()?, rest[1..end].trim_ascii()))
    }
}

/// Where `part` stands in `bytes`, which it is a slice of.
fn place_in(bytes: &[u8], part: &[u8]) -> Place {
    let at = part.as_ptr().addr() - bytes.as_ptr().addr();
    Place { at: at as u16, bytes: part.len() as u16 }
}

fn known_method(token: &str) -> Result<Method, Fault> {
    Ok(match token {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "HEAD" => Method::Head,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => {
            return Err(Fault::new(501, "unknown_method", "the method is not known here; methods are upper case"));
        }
    })
}

#[cold]
fn repeated(field: Known) -> Fault {
    let detail = format!("{} is given more than once", field.name());
    match field {
        Known::Host => Fault::malformed("bad_host", detail),
        Known::ContentLength => Fault::malformed("bad_length", detail),
        Known::TransferEncoding => Fault::malformed("bad_transfer_encoding", detail),
        _ => Fault::malformed("duplicate_header", detail),
    }
}

#[cold]
fn bad_host(detail: &'static str) -> Fault {
    Fault::malformed("bad_host", detail)
}
