//! The `mixed` profile: services and browsers that produce, consumers that read and ack everything of both, and observers
//! that hold live answers open, all at once on one group. Each part keeps its own clocks and is verified by itself.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cli::{MixedArguments, ProduceArguments};
use crate::consume::plan::ConsumePlan;
use crate::consume::{self, Beside, Outcome};
use crate::descriptors::make_room;
use crate::e2e::wait_for;
use crate::plan::Plan;
use crate::process::{Ending, Failure, conduct, exit};
use crate::produce::{Company, run_beside, tell_faults};
use crate::results::Results;
use crate::summary::{self, QUANTILES};
use crate::units::{grouped, nanoseconds, rate};
use crate::verdict::Verdict;
use crate::worker::Control;

/// How often it is looked whether readers are there.
const LOOK: Duration = Duration::from_millis(2);

/// What every part does.
#[derive(Debug)]
pub struct Parts {
    /// Services: the load as `produce` has it.
    pub services: Plan,
    /// Pages that post a few events at a time.
    pub browsers: Plan,
    /// Readers with a position, who are given everything.
    pub consumers: ConsumePlan,
    /// Live readers without one.
    pub observers: ConsumePlan,
}

/// What every part came to.
struct Mixed {
    services: Results,
    browsers: Results,
    consumers: Outcome,
    observers: Outcome,
    /// Events that consumers were not given.
    missing: u64,
}

/// Runs the profile and says how the process ends.
pub fn main(arguments: &MixedArguments) -> ExitCode {
    conduct("mixed", arguments.parts(), |parts, control| {
        let began = Timestamp::now();
        let (mixed, code) = run(&parts, control)?;
        tell_faults(&mixed.services);
        tell_faults(&mixed.browsers);
        mixed.consumers.tally.examples.iter().for_each(|example| eprintln!("wrong: {example}"));
        let ending = Ending {
            text: mixed.text(&parts),
            summary: mixed.json(&parts),
            clocks: mixed.clocks(),
            points: &mixed.services.points,
            began,
            code,
        };
        let ProduceArguments { output, out, .. } = &arguments.produce;
        Ok(ending.tell(*output, out.as_deref(), &Api::of(&parts.services), control))
    })
}

fn run(parts: &Parts, control: &Control) -> Result<(Mixed, u8), Failure> {
    let Parts { services, browsers, consumers, observers } = parts;
    let connections = [services.connections, browsers.connections, consumers.consumers, observers.consumers];
    make_room(connections.into_iter().map(u64::from).sum())?;
    services.target.reach(services.timeout).map_err(|error| Failure::unreachable(&services.target, &error))?;
    if services.create {
        let api = Api::of(services);
        services.groups.iter().try_for_each(|group| api.create_group(group, Duration::ZERO))?;
    }
    let readers = || Beside { flight: None, subscribed: AtomicBool::new(false), events: AtomicU64::new(0) };
    let (consuming, observing, stop) = (readers(), readers(), AtomicBool::new(false));
    thread::scope(|scope| {
        let given = scope.spawn(|| consume::run(consumers, &stop, Some(&consuming)));
        let observed = scope.spawn(|| consume::run(observers, &stop, Some(&observing)));
        let there = |beside: &Beside<'_>, thread: &ScopedJoinHandle<'_, _>| {
            beside.subscribed.load(Ordering::Acquire) || thread.is_finished()
        };
        while !(there(&consuming, &given) && there(&observing, &observed)) {
            thread::sleep(LOOK);
        }
        let (served, browsed) = if given.is_finished() || observed.is_finished() {
            (None, None)
        } else {
            let quiet = Company { quiet: true, ..Company::default() };
            let browsing = scope.spawn(move || run_beside(browsers, control, quiet));
            (Some(run_beside(services, control, Company::default())), Some(joined(browsing)))
        };
        let stored = [&served, &browsed].map(|ran| match ran {
            Some(Ok((results, _))) => results.acked_events,
            _ => 0,
        });
        let expected = stored.iter().sum::<u64>() * u64::from(consumers.consumers);
        wait_for(expected, &consuming, services.timeout);
        stop.store(true, Ordering::Relaxed);
        let (given, observed) = (joined(given)?, joined(observed)?);
        let (served, service_code) = served.expect("the readers did not fail")?;
        let (browsed, browser_code) = browsed.expect("the readers did not fail")?;
        let missing = expected.saturating_sub(given.tally.events);
        let mixed = Mixed { services: served, browsers: browsed, consumers: given, observers: observed, missing };
        let code = match (service_code, browser_code) {
            (0 | exit::MISSED, 0 | exit::MISSED) if mixed.verdict().0 == Verdict::Incorrect => exit::FAILED,
            (first, second) => [first, second].into_iter().find(|code| *code != 0).unwrap_or(0),
        };
        Ok((mixed, code))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Mixed {
    /// The gravest verdict of all parts, and whose it is.
    fn verdict(&self) -> (Verdict, String) {
        let missing = format!("{} events were not given to consumers", self.missing);
        let parts = [
            ("services", self.services.verdict()),
            ("browsers", self.browsers.verdict()),
            ("consumers", self.consumers.tally.verdict()),
            (
                "consumers",
                if self.missing > 0 { (Verdict::Incorrect, missing) } else { (Verdict::Valid, String::new()) },
            ),
        ];
        let gravest = parts.into_iter().reduce(|gravest, part| if part.1.0 > gravest.1.0 { part } else { gravest });
        match gravest {
            Some((_, (Verdict::Valid, _))) | None => (Verdict::Valid, String::new()),
            Some((name, (verdict, reason))) => (verdict, format!("{name}: {reason}")),
        }
    }

    fn text(&self, parts: &Parts) -> String {
        let (verdict, reason) = self.verdict();
        let mut first = vec![verdict.to_string(), reason];
        first.extend(self.services.objectives(&parts.services).iter().map(ToString::to_string));
        first.retain(|part| !part.is_empty());
        let mut lines = vec![first.join("  ")];
        let mut row = |name: &str, value: String| lines.push(format!("{name:<10} {value}"));
        row("target", format!("{}  group {}", parts.services.target, parts.services.groups[0]));
        for (name, plan, results) in
            [("services", &parts.services, &self.services), ("browsers", &parts.browsers, &self.browsers)]
        {
            let per_second = rate(results.rate(results.sample.events as f64));
            let what = format!("{} × {} events a request", plan.connections, plan.batch);
            row(name, format!("{what}, {per_second} events/s, verify {}", summary::verification(results)));
        }
        let (given, observers) = (&self.consumers.tally, &self.observers.tally);
        row("consumers", format!("{}, {} events given", parts.consumers.consumers, grouped(given.events)));
        row("observers", format!("{} of {} live answers open", grouped(observers.open), parts.observers.consumers));
        row("", QUANTILES.map(|(name, _)| format!("{name:>9}")).concat());
        for (name, times) in [
            ("services", self.services.reply_times()),
            ("browsers", self.browsers.reply_times()),
            ("delivery", &given.delivery),
        ] {
            row(name, QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(times.value_at_quantile(q)))).concat());
        }
        lines.join("\n")
    }

    /// The clocks of all parts; those of services have no other name than `produce`'s.
    fn clocks(&self) -> Vec<(&'static str, &Histogram<u64>)> {
        let (services, browsers, given) = (&self.services.sample, &self.browsers.sample, &self.consumers.tally);
        vec![
            ("response", &services.response),
            ("service", &services.service),
            ("send-lag", &services.send_lag),
            ("browsers-response", &browsers.response),
            ("browsers-service", &browsers.service),
            ("browsers-send-lag", &browsers.send_lag),
            ("answer", &given.answer),
            ("delivery", &given.delivery),
            ("ack", &given.ack),
        ]
    }

    fn json(&self, parts: &Parts) -> Value {
        let (verdict, reason) = self.verdict();
        json!({
            "schema": summary::SCHEMA,
            "profile": "mixed",
            "verdict": verdict.to_string(),
            "reason": reason,
            "services": summary::json(&parts.services, &self.services),
            "browsers": summary::json(&parts.browsers, &self.browsers),
            "consumers": consume::json(&parts.consumers, &self.consumers),
            "observers": consume::json(&parts.observers, &self.observers),
            "missing": self.missing,
        })
    }
}

impl Results {
    /// From the planned send to the answer, or in the closed loop from the send.
    fn reply_times(&self) -> &Histogram<u64> {
        if self.punctuality.is_some() { &self.sample.response } else { &self.sample.service }
    }
}
