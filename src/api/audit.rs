//! What is told of a change in the audit log: one JSON event, made from who asked and what was done.
//!
//! A change that has a journal entry brings its event along in that entry, see `shard::audit`; [`event`] makes it.
//! [`record`] is for what has no entry of its own.

use super::Context;
use super::auth::{Caller, now_us};
use super::encode::EventEncoder;
use super::problem::Problem;
use serde_json::{Map, Value};
use std::rc::Rc;

/// The event that tells of a change: `{"action","who","who_name"?,"from","at", …details}`. Details are an object, and hold
/// no secret.
#[must_use]
pub fn event(caller: &Caller, action: &str, details: Value) -> Vec<u8> {
    told(action, &caller.name(), caller.label(), &caller.peer().to_string(), details)
}

/// The same for a change that nobody asked for over HTTP.
#[must_use]
pub fn told(action: &str, who: &str, who_name: Option<&str>, from: &str, details: Value) -> Vec<u8> {
    let mut members = match details {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let mut set = |name: &str, value: &str| members.insert(name.to_owned(), value.into());
    set("action", action);
    set("who", who);
    if let Some(name) = who_name {
        set("who_name", name);
    }
    set("from", from);
    set("at", &EventEncoder::time_text(now_us()));
    Value::Object(members).to_string().into_bytes()
}

/// Tells of something that changed nothing in a journal. It cannot be lost any more when this returns.
///
/// # Errors
/// Why shard 0 did not take it.
pub async fn record(context: &Rc<Context>, caller: &Caller, action: &str, details: Value) -> Result<(), Problem> {
    let event = event(caller, action, details);
    let told = context.shards.on(0, move |shard| Box::pin(async move { shard.tell(&event).await }));
    told.await.map_err(Problem::from)
}
