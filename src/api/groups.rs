//! Groups: make, list, show, change, remove.

use super::Context;
use super::audit;
use super::auth::Caller;
use super::encode::EventEncoder;
use super::exchange::Exchange;
use super::parameters::Parameters;
use super::problem::Problem;
use super::tokens;
use crate::auth::Scope;
use crate::group::config::GroupConfig;
use crate::group::name;
use crate::http::{Head, Method};
use crate::limits::GROUPS_PER_PAGE_MAX;
use crate::shard::directory::Entry;
use crate::shard::groups::{Created, NewGroup};
use serde_json::{Value, json};
use std::rc::Rc;

/// Answers `GET /v1/groups`.
///
/// # Errors
/// What is to be answered instead.
pub fn list(context: &Rc<Context>, caller: &Caller, head: &Head<'_>, exchange: &mut Exchange) -> Result<(), Problem> {
    let parameters = Parameters::new(head.query, &["prefix", "after", "limit", "token"])?;
    let prefix = parameters.text("prefix")?.unwrap_or_default();
    let after = parameters.text("after")?.unwrap_or_default();
    let limit = parameters.count("limit", 100, GROUPS_PER_PAGE_MAX as u64)? as usize;
    // The broker's own groups are there for whoever asks for them.
    let own = prefix.starts_with('_');
    let shown = |name: &str| (own || !name.starts_with('_')) && caller.sees(name);
    let mut page = context.lookup.directory().page(&prefix, &after, limit + 1, shown);
    let more = page.len() > limit;
    page.truncate(limit);
    let groups: Vec<Value> = page
        .iter()
        .map(|entry| {
            json!({
                "group": entry.table.name,
                "number": entry.table.number,
                "shard": entry.table.shard,
                "created": EventEncoder::time_text(entry.table.created_us),
            })
        })
        .collect();
    let mut answer = json!({ "groups": groups });
    if let Some(last) = page.last().filter(|_| more) {
        answer["next"] = json!(last.table.name);
    }
    exchange.json(200, &answer);
    Ok(())
}

/// Answers requests for `/v1/groups/{group}`.
///
/// # Errors
/// What is to be answered instead.
pub async fn one(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    head: &Head<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    Parameters::new(head.query, &["token"])?;
    match head.method {
        Method::Put => create(context, caller, name, body, exchange).await,
        Method::Patch => {
            writable(context, name)?;
            let entry = context.group(name)?;
            let config = GroupConfig::parse(body, &entry.config)?;
            let details = json!({ "group": name, "config": shown_config(&config) });
            let audit = audit::event(caller, "group.configured", details);
            context.shards.configure_group(context.lookup.directory(), &entry, config, Some(audit)).await?;
            show(context, &*context.group(name)?, 200, exchange).await
        }
        Method::Delete => {
            writable(context, name)?;
            let (entry, readers) = (context.group(name), context.tokens.directory().of_consumers(name));
            if let Ok(entry) = &entry {
                let details = json!({ "group": name, "number": entry.table.number });
                let audit = audit::event(caller, "group.deleted", details);
                context.shards.remove_group(context.lookup.directory(), &entry.table, Some(audit)).await?;
            }
            // Whoever read it as a consumer is nobody in a group that is called so later. A deletion that was cut off before
            // it came here can be asked for again.
            for token in readers {
                tokens::revoke(context, caller, token).await?;
            }
            entry?;
            exchange.reply(204).empty();
            Ok(())
        }
        _ => show(context, &*context.group(name)?, 200, exchange).await,
    }
}

fn writable(context: &Context, name: &str) -> Result<(), Problem> {
    if context.draining() {
        return Err(Problem::draining());
    }
    name::check(name).map_err(|bad| Problem::bad_group(&bad))
}

async fn create(
    context: &Rc<Context>,
    caller: &Caller,
    name: &str,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    writable(context, name)?;
    let config = GroupConfig::parse(body, &GroupConfig::default())?;
    match make(context, caller, name, config.clone()).await? {
        Created::New(_) => show(context, &*context.group(name)?, 201, exchange).await,
        Created::Existing(_) => {
            let entry = context.group(name)?;
            if entry.config != config && !body.trim_ascii().is_empty() {
                let now = entry.config.to_json();
                return Err(Problem::new(
                    409,
                    "config_differs",
                    format!("the group is there with another configuration: {now}; PATCH changes it"),
                ));
            }
            show(context, &entry, 200, exchange).await
        }
    }
}

/// Makes a group because somebody produces to it who may manage it, where that is configured.
///
/// # Errors
/// What is to be answered instead.
pub async fn create_on_produce(context: &Rc<Context>, caller: &Caller, name: &str) -> Result<(), Problem> {
    if !caller.allows(Scope::Manage, name) {
        return Err(Problem::no_group(name));
    }
    writable(context, name)?;
    make(context, caller, name, GroupConfig::default()).await.map(drop)
}

async fn make(context: &Rc<Context>, caller: &Caller, name: &str, config: GroupConfig) -> Result<Created, Problem> {
    let most = context.broker.config.limits.groups;
    let audit = audit::event(caller, "group.created", json!({ "group": name, "config": shown_config(&config) }));
    let wanted = NewGroup { name: name.into(), config, shard: None, most, audit: Some(audit) };
    let created = context.shards.create_group(context.lookup.directory(), wanted).await?;
    created.ok_or_else(|| Problem::new(429, "too_many_groups", format!("there are {most} groups (limits.groups)")))
}

fn shown_config(config: &GroupConfig) -> Value {
    serde_json::from_str(&config.to_json()).unwrap_or_default()
}

async fn show(context: &Rc<Context>, entry: &Entry, status: u16, exchange: &mut Exchange) -> Result<(), Problem> {
    let number = entry.table.number;
    let info =
        context.shards.ask(entry.table.shard, move |shard| Box::pin(async move { shard.group_info(number) })).await?;
    let mut answer = json!({
        "group": entry.table.name,
        "number": number,
        "shard": entry.table.shard,
        "config": shown_config(&info.config),
        "earliest": info.earliest,
        "tail": info.tail,
        "events": info.events,
        "bytes": info.bytes,
        "segments": info.segments,
        "created": EventEncoder::time_text(entry.table.created_us),
    });
    if !info.not_protected.is_empty() {
        answer["not_protected"] = json!(info.not_protected);
    }
    if !info.gaps.is_empty() {
        answer["gaps"] = json!(info.gaps);
    }
    exchange.json(status, &answer);
    Ok(())
}
