//! The `mixed` profile: services and browsers that produce, consumers that read and ack everything of both, and observers
//! that hold live answers open and query, all at once on one group. Each part keeps its own clocks and is verified by
//! itself.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

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
use crate::produce::{Company, part, run_beside, tell_faults};
use crate::report::Part;
use crate::results::Results;
use crate::sample::{Clock, Sample};
use crate::summary::{self, QUANTILES};
use crate::units::{counted, grouped, nanoseconds, rate};
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
    /// What those ask besides.
    pub queries: ConsumePlan,
}

/// What every part came to.
struct Mixed {
    services: Results,
    browsers: Results,
    consumers: Outcome,
    observers: Outcome,
    queries: Outcome,
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
            parts: mixed.parts(),
            broker: mixed.services.broker.as_ref(),
            began,
            code,
        };
        let ProduceArguments { output, out, .. } = &arguments.produce;
        Ok(ending.tell(*output, out.as_deref(), &Api::of(&parts.services), control))
    })
}

fn run(parts: &Parts, control: &Control) -> Result<(Mixed, u8), Failure> {
    let Parts { services, browsers, consumers, observers, queries } = parts;
    let readers = [consumers, observers, queries];
    let connections =
        [services.connections, browsers.connections].into_iter().chain(readers.map(|part| part.consumers));
    make_room(connections.map(u64::from).sum())?;
    services.target.reach(services.timeout).map_err(|error| Failure::unreachable(&services.target, &error))?;
    if services.create {
        let api = Api::of(services);
        services.groups.iter().try_for_each(|group| api.create_group(group, Duration::ZERO))?;
    }
    // Everybody counts seconds from the beginning of the services' measured part.
    let from = OnceLock::new();
    let beside = [(); 3].map(|()| Beside { from: Some(&from), ..Beside::default() });
    let ending = Control::default();
    thread::scope(|scope| {
        let reading = [0, 1, 2].map(|place| {
            let (plan, beside, ending) = (readers[place], &beside[place], &ending);
            scope.spawn(move || consume::run(plan, ending, Some(beside)))
        });
        let failed = || reading.iter().any(ScopedJoinHandle::is_finished);
        while !failed() && !beside.iter().all(|beside| beside.subscribed.load(Ordering::Acquire)) {
            thread::sleep(LOOK);
        }
        let produced = (!failed()).then(|| {
            let quiet = Company { quiet: true, ..Company::default() };
            let browsing = scope.spawn(move || run_beside(browsers, control, quiet));
            let served = run_beside(services, control, Company { from: Some(&from), ..Company::default() });
            [served, joined(browsing)]
        });
        let stored: u64 = produced.iter().flatten().flatten().map(|(results, _)| results.acked_events).sum();
        let expected = stored * u64::from(consumers.consumers);
        wait_for(expected, &beside[0], services.timeout);
        ending.stop.store(true, Ordering::Relaxed);
        let [given, observed, asked] = reading.map(joined);
        let (consumers, observers, queries) = (given?, observed?, asked?);
        let [served, browsed] = produced.expect("the readers did not fail");
        let ((services, service_code), (browsers, browser_code)) = (served?, browsed?);
        let missing = expected.saturating_sub(consumers.tally.sample().events);
        let mixed = Mixed { services, browsers, consumers, observers, queries, missing };
        let code = match (service_code, browser_code) {
            (0 | exit::MISSED, 0 | exit::MISSED) if mixed.verdict().0 == Verdict::Incorrect => exit::FAILED,
            (first, second) => [first, second].into_iter().find(|code| *code != 0).unwrap_or(0),
        };
        Ok((mixed, code))
    })
}

/// What went wrong, by part, if anything did.
fn errors(parts: &[(&str, &Sample)]) -> Option<String> {
    let told = parts.iter().filter(|(_, sample)| !sample.errors.is_empty());
    let told: Vec<_> = told.map(|(name, sample)| format!("{name} {}", summary::errors(sample))).collect();
    (!told.is_empty()).then(|| format!("{:<10} {}", "errors", told.join("; ")))
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
            ("observers", self.observers.tally.verdict()),
            ("queries", self.queries.tally.verdict()),
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
        let Plan { target, groups, seed, .. } = &parts.services;
        row("target", format!("{target}  group {}  seed {seed}", groups[0]));
        for (name, plan, results) in
            [("services", &parts.services, &self.services), ("browsers", &parts.browsers, &self.browsers)]
        {
            let per_second = rate(results.rate(results.sample.events as f64));
            let what = format!("{} × {} a request", plan.connections, counted(plan.batch.into(), "event", "events"));
            row(name, format!("{what}, {per_second} events/s, verify {}", summary::verification(results)));
        }
        let (given, asked) = (self.consumers.tally.sample(), self.queries.tally.sample());
        row("consumers", format!("{}, {} events given", parts.consumers.consumers, grouped(given.events)));
        let (open, queries) = (grouped(self.observers.tally.open), counted(asked.requests, "query", "queries"));
        row("observers", format!("{open} of {} live answers open, {queries}", parts.observers.consumers));
        row("", QUANTILES.map(|(name, _)| format!("{name:>9}")).concat());
        for (name, times) in [
            ("services", self.services.reply_times()),
            ("browsers", self.browsers.reply_times()),
            ("delivery", given.times.of(Clock::Delivery)),
            ("query", asked.times.of(Clock::Query)),
        ] {
            row(name, QUANTILES.map(|(_, q)| format!("{:>9}", nanoseconds(times.value_at_quantile(q)))).concat());
        }
        lines.extend(errors(&[
            ("services", &self.services.sample),
            ("browsers", &self.browsers.sample),
            ("consumers", given),
            ("observers", self.observers.tally.sample()),
            ("queries", asked),
        ]));
        lines.join("\n")
    }

    /// The clocks of all parts; those of services have no other name than `produce`'s.
    fn parts(&self) -> Vec<Part<'_>> {
        vec![
            part("", &self.services),
            part("browsers", &self.browsers),
            self.consumers.part("consumers", &consume::CLOCKS),
            self.queries.part("queries", &[Clock::Query]),
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
            "queries": consume::json(&parts.queries, &self.queries),
            "missing": self.missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::ErrorKind;

    #[test]
    fn errors_are_told_by_part_if_there_are_any() {
        let (quiet, mut busy, mut torn) = (Sample::default(), Sample::default(), Sample::default());
        assert_eq!(errors(&[("services", &quiet), ("queries", &quiet)]), None);
        (0..2).for_each(|_| busy.error(ErrorKind::Status(503)));
        torn.error(ErrorKind::ConnectionLost);
        let told = errors(&[("services", &busy), ("browsers", &quiet), ("queries", &torn)]);
        assert_eq!(told.as_deref(), Some("errors     services 503: 2; queries connection lost: 1"));
    }
}
