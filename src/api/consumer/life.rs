//! A consumer's life: it asks, somebody decides, and decides again.

use super::moves::{Place, decide};
use super::{Action, Subject, body_of, status};
use crate::api::Context;
use crate::api::exchange::Exchange;
use crate::api::position::Position;
use crate::api::problem::Problem;
use crate::group::config::GroupConfig;
use crate::group::consumer::{Life, OnPoison, Refusal, Terms};
use crate::limits::START_BYTES_MAX;
use crate::shard::consumers::Approval;
use crate::shard::groups::{Created, NewGroup};
use crate::units::{Size, Span};
use jiff::Timestamp;
use serde::Deserialize;
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
    let terms = Terms::with_lease(config.consumers.lease);
    // Where nobody has to show a token, everybody may approve.
    let approval = Some(Approval { start: start.resolve("start", context, subject).await?, terms });
    let (group, name, most) = (subject.group(), Box::<str>::from(subject.name), config.limits.consumers);
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.subscribe(group, &name, &text, terms, approval, most).await })
    };
    let (life, new) = context.shards.on(subject.shard(), work).await?;
    let code = match (new, life) {
        (false, _) => 200,
        (true, Life::Approved) => 201,
        (true, _) => 202,
    };
    status::show(context, subject, code, exchange).await
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
    let (group, name) = (subject.group(), Box::<str>::from(subject.name));
    let work = move |shard: Rc<crate::shard::Shard>| -> crate::shard::peers::Work<_> {
        Box::pin(async move { shard.unsubscribe(group, &name).await })
    };
    context.shards.on(subject.shard(), work).await?;
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
    let dead_letters = match terms.on_poison {
        OnPoison::Stall => 0,
        OnPoison::DeadLetter => dead_letters(context, subject).await?,
    };
    decide(context, subject, move |consumer, ground, change| {
        // Somebody else may have approved it meanwhile.
        let start = start.filter(|_| !consumer.has_position());
        *change = (*change).max(consumer.approve(start, terms, ground.now)?);
        consumer.dead_letters = dead_letters;
        Ok(())
    })
    .await?;
    status::show(context, subject, 200, exchange).await
}

/// Number of the group that takes the dead letters of the consumer's group; it is made if it is not there. Both live in one
/// shard, so that a letter and the position behind it are one commit.
async fn dead_letters(context: &Rc<Context>, subject: &Subject<'_>) -> Result<u32, Problem> {
    let name: Box<str> = format!("{}.dead", subject.entry.table.name).into();
    let (config, shard) = (GroupConfig::default(), Some(subject.shard()));
    let wanted = NewGroup { name, config, shard, most: usize::MAX };
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
    decide(context, subject, move |consumer, _, change| {
        *change = (*change).max(consumer.change_life(to)?);
        Ok(())
    })
    .await?;
    status::show(context, subject, 200, exchange).await
}
