//! The `e2e` profile: produces and, at once, consumes at the tail; measures from the planned send of an event until a
//! consumer has it in hand. Everything must come to every consumer, once and in order.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::api::Api;
use crate::cli::E2eArguments;
use crate::consume::plan::ConsumePlan;
use crate::consume::{self, Beside};
use crate::descriptors::make_room;
use crate::flight::Flight;
use crate::plan::Plan;
use crate::process::{Failure, conduct, exit};
use crate::produce::{Company, conclude, run_beside};
use crate::results::Results;
use crate::worker::Control;

/// How often it is looked whether consumers have everything.
const LOOK: Duration = Duration::from_millis(2);

/// What consumers of a run were given.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// How many consumers there were.
    pub consumers: u32,
    /// Events given, to all consumers together.
    pub events: u64,
    /// Of those, events that came so late, or in the warm-up, that they were not timed.
    pub untimed: u64,
    /// Events that did not come.
    pub lost: u64,
    /// Events that came twice or out of order.
    pub repeated: u64,
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &E2eArguments) -> ExitCode {
    conduct("e2e", arguments.plan(), |(plan, readers), control| {
        let began = Timestamp::now();
        let (results, code) = run(&plan, &readers, control)?;
        Ok(conclude(&plan, &results, code, &arguments.produce, began, control))
    })
}

/// Runs both sides.
///
/// # Errors
/// When one of them has no results.
pub fn run(plan: &Plan, readers: &ConsumePlan, control: &Control) -> Result<(Results, u8), Failure> {
    make_room(u64::from(plan.connections) + u64::from(readers.consumers))?;
    plan.target.reach(plan.timeout).map_err(|error| Failure::unreachable(&plan.target, &error))?;
    if plan.create {
        let api = Api::of(plan);
        plan.groups.iter().try_for_each(|group| api.create_group(group, Duration::ZERO))?;
    }
    let flight = Flight::new(plan);
    let from = OnceLock::new();
    let beside = Beside { flight: Some(&flight), from: Some(&from), ..Beside::default() };
    let readers_control = Control::default();
    thread::scope(|scope| {
        let reading = scope.spawn(|| consume::run(readers, &readers_control, Some(&beside)));
        while !beside.subscribed.load(Ordering::Acquire) && !reading.is_finished() {
            thread::sleep(LOOK);
        }
        let produced = if reading.is_finished() {
            None
        } else {
            Some(run_beside(plan, control, Company { flight: Some(&flight), from: Some(&from), quiet: false }))
        };
        if let Some(Ok((results, _))) = &produced {
            wait_for(results.acked_events * u64::from(readers.consumers), &beside, plan.timeout);
        }
        readers_control.stop.store(true, Ordering::Relaxed);
        let consume::Outcome { tally: given, points, .. } = match reading.join() {
            Ok(given) => given?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let (mut results, code) = produced.expect("the readers did not fail")?;
        // A reader without a core reads late, which looks like the broker.
        results.shares.extend(&given.shares);
        results.cpu += given.cpu;
        let events = given.sample().events;
        let missing = (results.acked_events * u64::from(readers.consumers)).saturating_sub(events);
        let delivered = Delivered {
            consumers: readers.consumers,
            events,
            untimed: given.untimed,
            lost: given.lost.max(missing),
            repeated: given.repeated,
        };
        results.deliver(delivered, &given.sample().times, points);
        let wrong = results.delivered.as_ref().is_some_and(|delivered| delivered.lost + delivered.repeated > 0);
        let missed = results.objectives(plan).iter().any(|objective| !objective.met);
        let code = match code {
            0 | exit::MISSED if wrong => exit::FAILED,
            0 | exit::MISSED if missed => exit::MISSED,
            exit::MISSED => 0,
            code => code,
        };
        Ok((results, code))
    })
}

/// Waits until consumers have been given so many events, for as long as any come.
pub(crate) fn wait_for(events: u64, beside: &Beside<'_>, patience: Duration) {
    let (mut seen, mut since) = (0, Instant::now());
    while seen < events && since.elapsed() < patience {
        let now = beside.events.load(Ordering::Relaxed);
        if now > seen {
            (seen, since) = (now, Instant::now());
        }
        thread::sleep(LOOK);
    }
}
