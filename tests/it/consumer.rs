//! A consumer's side of the conversation, for the tests: every call is a request on a connection of its own unless it
//! must not be, for nothing of a consumer depends on which connection a call comes in on.

use crate::broker::{Broker, PATIENCE};
use crate::http::{Answer, Client};
use crate::live::Reader;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// A consumer by its name.
pub(crate) struct Consumer {
    path: String,
}

impl Consumer {
    /// One that may be there or not.
    pub(crate) fn named(group: &str, name: &str) -> Self {
        Self { path: format!("/v1/groups/{group}/consumers/{name}") }
    }

    /// One that just subscribed to a group, with that body, and was approved.
    pub(crate) fn subscribed(broker: &Broker, group: &str, name: &str, body: &str) -> Self {
        let consumer = Self::named(group, name);
        let answer = consumer.call(broker, "PUT", "", body);
        assert_eq!(answer.status, 201, "{answer:?}");
        consumer
    }

    /// One that was granted these terms, too.
    pub(crate) fn approved(broker: &Broker, group: &str, name: &str, terms: &str) -> Self {
        let consumer = Self::subscribed(broker, group, name, "");
        let answer = consumer.call(broker, "POST", "/approve", terms);
        assert_eq!(answer.status, 200, "{answer:?}");
        consumer
    }

    /// The target of a request for it.
    pub(crate) fn target(&self, rest: &str) -> String {
        format!("{}{rest}", self.path)
    }

    /// Any request.
    pub(crate) fn call(&self, broker: &Broker, method: &str, rest: &str, body: &str) -> Answer {
        broker.ask(method, &self.target(rest), &[], body)
    }

    /// The next batch.
    pub(crate) fn next(&self, broker: &Broker, query: &str) -> Answer {
        self.call(broker, "GET", &format!("/next?{query}"), "")
    }

    /// The offsets of the next batch.
    pub(crate) fn offsets(&self, broker: &Broker, query: &str) -> Vec<u64> {
        let answer = self.next(broker, query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.offsets()
    }

    /// Asks for the next batch on a connection of its own, whose answer comes later.
    pub(crate) fn ask_next(&self, broker: &Broker, query: &str) -> Client {
        let mut client = broker.client();
        client.send(Client::request("GET", &self.target(&format!("/next?{query}")), &[], ""));
        client
    }

    /// An ack in the name of a session, or of none.
    pub(crate) fn ack(&self, broker: &Broker, offset: u64, session: &str) -> Answer {
        self.call(broker, "POST", "/ack", &named(&format!(r#""offset":{offset}"#), session))
    }

    /// An ack that must move the position.
    #[track_caller]
    pub(crate) fn acked(&self, broker: &Broker, offset: u64, session: &str) {
        let answer = self.ack(broker, offset, session);
        assert_eq!((answer.status, answer.json()["changed"].as_bool()), (200, Some(true)), "{}", answer.text());
    }

    /// A failure.
    pub(crate) fn nack(&self, broker: &Broker, members: &str, session: &str) -> Answer {
        self.call(broker, "POST", "/nack", &named(members, session))
    }

    /// Opens a session and gives its name.
    pub(crate) fn session(&self, broker: &Broker, query: &str) -> String {
        let answer = self.call(broker, "POST", &format!("/session?{query}"), "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["session"].as_str().expect("a session").to_owned()
    }

    /// Moves it.
    pub(crate) fn rewind(&self, broker: &Broker, body: &str) -> Answer {
        self.call(broker, "POST", "/rewind", body)
    }

    /// What it is doing.
    pub(crate) fn status(&self, broker: &Broker) -> Value {
        let answer = self.call(broker, "GET", "", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The next offset to be acked.
    pub(crate) fn position(&self, broker: &Broker) -> u64 {
        self.status(broker)["cursor"]["next"].as_u64().expect("a position")
    }

    /// A live reader, as NDJSON, and the session it has.
    pub(crate) fn stream(&self, broker: &Broker, query: &str) -> (Reader, String) {
        let mut client = broker.client();
        client.send(Client::request("GET", &self.target(&format!("/stream?{query}")), &[], ""));
        let mut reader = Reader::of(client, false);
        let session = reader.until("session")["session"].as_str().expect("a session").to_owned();
        (reader, session)
    }
}

/// A body with a session, if there is one.
fn named(members: &str, session: &str) -> String {
    match session {
        "" => format!("{{{members}}}"),
        session => format!(r#"{{{members},"session":"{session}"}}"#),
    }
}

/// A broker with a group of so many events, which are the numbers of their offsets.
pub(crate) fn orders(settings: &[(&str, &str)], events: u64) -> Broker {
    let broker = Broker::start(settings);
    broker.create("orders", r#"{"segment":{"max_bytes":"64KiB"}}"#);
    if events > 0 {
        produce(&broker, 0..events);
    }
    broker
}

/// Adds numbers as events.
pub(crate) fn produce(broker: &Broker, numbers: std::ops::Range<u64>) {
    let lines: Vec<String> = numbers.map(|number| number.to_string()).collect();
    broker.produce_lines("orders", &lines.join("\n"));
}

/// Somebody who calls a broker that may be killed at any moment.
pub(crate) struct Caller(ureq::Agent);

impl Caller {
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        Self(config.build().into())
    }

    /// The answer's status and JSON; `None` when none came, or not all of it.
    pub(crate) fn call(&self, address: SocketAddr, method: &str, target: &str, body: &str) -> Option<(u16, Value)> {
        let request = ureq::http::Request::builder().method(method).uri(format!("http://{address}{target}"));
        let mut answer = self.0.run(request.body(body.to_owned()).expect("a request")).ok()?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().ok()?;
        let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
        Some((status, value))
    }

    /// Posts text; gives the status.
    pub(crate) fn post(&self, address: SocketAddr, target: &str, lines: &str) -> Option<u16> {
        let post = self.0.post(format!("http://{address}{target}")).header("Content-Type", "text/plain").send(lines);
        post.ok().map(|answer| answer.status().as_u16())
    }

    /// The lines of an answer that does not end by itself; `None` when it is another one.
    pub(crate) fn lines(&self, address: SocketAddr, target: &str) -> Option<impl Iterator<Item = String> + use<>> {
        let answer = self.0.get(format!("http://{address}{target}")).call().ok()?;
        if answer.status() != 200 {
            return None;
        }
        let reader = std::io::BufReader::new(answer.into_body().into_reader());
        Some(std::io::BufRead::lines(reader).map_while(Result::ok))
    }
}

/// Tells the threads of a test that it is over, also when it fails: then nobody goes on for ever.
pub(crate) struct End<'o>(pub(crate) &'o AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
