//! A consumer's life: it asks, somebody decides, and decides again.

use super::moves::{Place, decide};
use super::{Action, Subject, body_of, status};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::position::Position;
use crate::api::problem::Problem;
use crate::api::tokens::NewToken;
use crate::api::{audit, tokens};
use crate::auth::Scope;
use crate::auth::secret::TokenId;
use crate::group::config::GroupConfig;
use crate::group::consumer::{Consumer, Life, OnPoison, Refusal, Terms};
use crate::limits::START_BYTES_MAX;
use crate::shard::consumers::Subscription;
use crate::shard::groups::{Created, NewGroup};
use crate::units::{Size, Span};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// Shortest and longest lease that an approval may grant.
const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeBody {
    start: Option<Place>,
}

/// `PUT …/consumers/{consumer}`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn subscribe(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: SubscribeBody = body_of(body)?;
    let start = body.start.unwrap_or(Place::Expression("earliest".into()));
    let text = start.text();
    if text.len() > START_BYTES_MAX {
        return Err(Problem::new(400, "bad_position", format!("`start` is at most {START_BYTES_MAX} bytes long")));
    }
    Position::parse("start", &text)?;
    let config = &context.broker.config;
    // Who may approve has approved; where nobody has to show a token, that is everybody.
    let approved_at = match subject.caller.allows(Scope::Manage, &subject.entry.table.name) {
        false => None,
        true => match start.resolve("start", context, subject).await {
            Ok(start) => Some(start),
            // Of one that is there already it does not matter where it would begin now.
            Err(problem) => match decide(context, subject, None, |_, _, _| Ok(())).await {
                Ok(()) => return status::show(context, subject, 200, None, exchange).await,
                Err(_) => return Err(problem),
            },
        },
    };
    let wanted = Subscription {
        audit: subject.audit("consumer.subscribed", json!({ "start": &text, "approved_at": approved_at })),
        start: text.into(),
        approved_at,
        terms: Terms::with_lease(config.consumers.lease),
        most: config.limits.consumers,
    };
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.subscribe(group, &name, &wanted).await })
    };
    let (life, new) = context.shards.on(subject.shard(), work).await?;
    let code = match (new, life) {
        (false, _) => 200,
        (true, Life::Approved) => 201,
        (true, _) => 202,
    };
    status::show(context, subject, code, None, exchange).await
}

/// `DELETE …/consumers/{consumer}`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn unsubscribe(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let token = status::ask(context, subject).await?.consumer.token;
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let audit = subject.audit("consumer.unsubscribed", json!({}));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.unsubscribe(group, &name, &audit).await })
    };
    context.shards.on(subject.shard(), work).await?;
    revoke(context, subject, token).await?;
    exchange.reply(204).empty();
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    start: Option<Place>,
    lease: Option<Span>,
    max_in_flight: Option<InFlightBody>,
    max_attempts: Option<u32>,
    on_poison: Option<PoisonBody>,
    expires: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InFlightBody {
    events: Option<u64>,
    bytes: Option<Size>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PoisonBody {
    Stall,
    DeadLetter,
}

impl ApproveBody {
    /// What is granted: what is not named stays.
    fn terms(&self, mut terms: Terms) -> Result<Terms, Problem> {
        if let Some(lease) = self.lease {
            terms.lease = lease.0;
        }
        if let Some(in_flight) = &self.max_in_flight {
            terms.events_max = in_flight.events.unwrap_or(terms.events_max);
            terms.bytes_max = in_flight.bytes.map_or(terms.bytes_max, |size| size.0);
        }
        terms.attempts_max = self.max_attempts.unwrap_or(terms.attempts_max);
        terms.on_poison = match self.on_poison {
            None => terms.on_poison,
            Some(PoisonBody::Stall) => OnPoison::Stall,
            Some(PoisonBody::DeadLetter) => OnPoison::DeadLetter,
        };
        if let Some(expires) = self.expires {
            terms.expires_us = u64::try_from(expires.as_microsecond()).unwrap_or(0).max(1);
        }
        if !LEASE.contains(&terms.lease) {
            return Err(Problem::bad_parameter("lease", "from 10ms to 1h"));
        }
        if terms.events_max == 0 || terms.bytes_max == 0 {
            return Err(Problem::bad_parameter("max_in_flight", "1 event and 1B or more"));
        }
        if terms.on_poison == OnPoison::DeadLetter && terms.attempts_max == 0 {
            return Err(Problem::bad_parameter("max_attempts", "1 or more where poison goes to the dead letters"));
        }
        Ok(terms)
    }
}

/// `POST …/approve`: a first one fixes where the consumer begins; a later one changes what it is granted.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn approve(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    body: &[u8],
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let body: ApproveBody = body_of(body)?;
    let known = status::ask(context, subject).await?.consumer;
    let terms = body.terms(known.terms)?;
    let start = match (&body.start, known.has_position()) {
        (Some(_), true) => return Err(Refusal::HasPosition.into()),
        (None, true) => None,
        (Some(start), false) => Some(start.resolve("start", context, subject).await?),
        (None, false) => {
            let asked = Place::Expression(known.start.to_string());
            Some(asked.resolve("start", context, subject).await?)
        }
    };
    let token = issue(context, subject, &known).await?;
    let id = token.as_ref().map(|(id, _)| Box::<str>::from(id.to_string()));
    let dead_letters = match terms.on_poison {
        OnPoison::Stall => 0,
        OnPoison::DeadLetter => dead_letters(context, subject).await?,
    };
    let details = json!({ "start": start, "terms": shown(&terms), "token": id });
    let audit = subject.audit("consumer.approved", details);
    decide(context, subject, Some(audit), move |consumer, ground, change| {
        // Somebody else may have approved it meanwhile.
        let start = start.filter(|_| !consumer.has_position());
        *change = (*change).max(consumer.approve(start, terms, ground.now)?);
        consumer.dead_letters = dead_letters;
        consumer.token = id.or(consumer.token.take());
        Ok(())
    })
    .await?;
    status::show(context, subject, 200, token.as_ref().map(|(_, text)| text.as_str()), exchange).await
}

/// What happened, for the audit log.
fn told(action: Action) -> &'static str {
    match action {
        Action::Suspend => "suspended",
        Action::Resume => "resumed",
        _ => "revoked",
    }
}

/// What was granted, for the audit log.
fn shown(terms: &Terms) -> Value {
    json!({
        "lease_ms": terms.lease.as_millis() as u64,
        "max_in_flight": { "events": terms.events_max, "bytes": terms.bytes_max },
        "max_attempts": terms.attempts_max,
        "dead_letter": terms.on_poison == OnPoison::DeadLetter,
        "expires_us": terms.expires_us,
    })
}

/// The token of a consumer that is approved and has none, with its text; none where tokens are off.
async fn issue(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    known: &Consumer,
) -> Result<Option<(TokenId, String)>, Problem> {
    if !context.broker.config.auth.enabled || known.token.is_some() {
        return Ok(None);
    }
    let wanted = NewToken {
        scopes: [Scope::Consume].into_iter().collect(),
        groups: [subject.entry.table.name.clone()].into(),
        expires_us: None,
        origins: [].into(),
        rate: None,
        consumer: Some(subject.name.into()),
        name: None,
    };
    tokens::issue(context, subject.caller, &wanted).await.map(Some)
}

/// Takes a consumer's token back.
async fn revoke(context: &Rc<Context>, subject: &Subject<'_>, token: Option<Box<str>>) -> Result<(), Problem> {
    let Some(id) = token.and_then(|id| id.parse::<TokenId>().ok()) else { return Ok(()) };
    let audit = subject.audit("token.revoked", json!({ "token": id.to_string() }));
    context.shards.revoke_token(context.tokens.directory(), id, audit).await?;
    Ok(())
}

/// Number of the group that takes the dead letters of the consumer's group; it is made if it is not there. Both live in one
/// shard, so that a letter and the position behind it are one commit.
async fn dead_letters(context: &Rc<Context>, subject: &Subject<'_>) -> Result<u32, Problem> {
    let name: Box<str> = format!("{}.dead", subject.entry.table.name).into();
    let (config, shard) = (GroupConfig::default(), Some(subject.shard()));
    let audit = Some(audit::event(subject.caller, "group.created", json!({ "group": name })));
    let wanted = NewGroup { name, config, shard, most: usize::MAX, audit };
    let made = context.shards.create_group(context.lookup.directory(), wanted).await?;
    match made {
        Some(Created::New(group) | Created::Existing(group)) => Ok(group.number),
        None => Err(Problem::new(429, "too_many_groups", "there is no room for a group of dead letters")),
    }
}

/// `POST …/suspend`, `…/resume`, `…/revoke`.
///
/// # Errors
/// What is to be answered instead.
pub(super) async fn change(
    context: &Rc<Context>,
    subject: &Subject<'_>,
    action: Action,
    exchange: &mut Exchange,
) -> Result<(), Problem> {
    let to = match action {
        Action::Suspend => Life::Suspended,
        Action::Resume => Life::Approved,
        _ => Life::Revoked,
    };
    let audit = subject.audit(&format!("consumer.{}", told(action)), json!({}));
    let token = decide(context, subject, Some(audit), move |consumer, _, change| {
        *change = (*change).max(consumer.change_life(to)?);
        // A token of a consumer that was revoked is good for nothing any more.
        Ok(if to == Life::Revoked { consumer.token.take() } else { None })
    });
    revoke(context, subject, token.await?).await?;
    status::show(context, subject, 200, None, exchange).await
}
