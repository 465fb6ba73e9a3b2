//! `--find-max`: runs of one load at different rates, until the highest that still meets the objectives is known to
//! within a twentieth. What a run is, is `produce`'s; which rate comes next is decided here by a value that knows no
//! clock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::plan::{OpenLoop, Plan};
use crate::process::Failure;
use crate::produce::run;
use crate::results::Results;
use crate::schedule::{Arrivals, Stage};
use crate::slo;
use crate::units::rate;
use crate::verdict::Verdict;
use crate::worker::Control;

/// Runs at most, so that a search ends: from a guess a thousand times too low or too high it needs fewer.
const RUNS_MAX: u32 = 16;

/// How far the lowest rate that misses may be above the highest that meets.
const CLOSE: f64 = 1.05;

/// Slowest rate that is tried, in events a second.
const RATE_MIN: f64 = 1.0;

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// The run at the highest rate that met the objectives, or the last run if none did.
    pub results: Results,
    /// Exit code of that run by itself.
    pub code: u8,
    /// That rate in events a second; `None` if none did.
    pub met: Option<f64>,
    /// The lowest rate that did not.
    pub missed: Option<f64>,
    /// Why not.
    pub limit: String,
}

/// Which rate to try next.
#[derive(Debug)]
struct Search {
    guess: f64,
    met: Option<f64>,
    missed: Option<f64>,
    runs: u32,
}

impl Search {
    fn next(&self) -> Option<f64> {
        let next = match (self.met, self.missed) {
            _ if self.runs >= RUNS_MAX => return None,
            (None, None) => self.guess,
            (Some(met), None) => met * 2.0,
            (None, Some(missed)) => missed / 2.0,
            (Some(met), Some(missed)) if missed <= met * CLOSE => return None,
            (Some(met), Some(missed)) => (met * missed).sqrt(),
        };
        (next >= RATE_MIN).then_some(next)
    }

    fn tell(&mut self, rate: f64, met: bool) {
        self.runs += 1;
        let side = if met { &mut self.met } else { &mut self.missed };
        *side = Some(rate);
    }
}

/// A run at one rate.
struct Ran {
    results: Results,
    /// Exit code of it by itself.
    code: u8,
    objectives: Vec<slo::Outcome>,
}

/// Searches from `guess` events a second, or from half of what a closed loop comes to. Each run is as long as the plan
/// says, and told on stderr.
///
/// # Errors
/// When a run has no results.
pub fn find_max(plan: &mut Plan, arrivals: Arrivals, guess: Option<f64>, control: &Control) -> Result<Found, Failure> {
    let guess = match guess {
        Some(guess) => guess,
        None => {
            plan.open_loop = None;
            let (results, code) = run(plan, control)?;
            let most = results.rate(results.sample.events as f64);
            eprintln!("closed loop  {} events/s", rate(most));
            if control.stop.load(Ordering::Relaxed) {
                return Ok(Found { results, code, met: None, missed: None, limit: String::new() });
            }
            (most / 2.0).max(RATE_MIN)
        }
    };
    let batch = f64::from(plan.batch);
    let at = |events_per_second: f64| {
        let stages = vec![Stage { length: Duration::ZERO, requests_per_second: events_per_second / batch }];
        Some(OpenLoop { stages, arrivals })
    };
    let found = search(guess, control, |events_per_second| {
        plan.open_loop = at(events_per_second);
        if let Some(producer) = &mut plan.producer {
            producer.epoch += 1;
        }
        let (results, code) = run(plan, control)?;
        let objectives = results.objectives(plan);
        Ok(Ran { results, code, objectives })
    })?;
    if let Some(met) = found.met {
        // Of all the runs this is the one that is told of.
        plan.open_loop = at(met);
    }
    Ok(found)
}

/// Runs at one rate after the other until the highest that meets is known, or the search was interrupted.
fn search(guess: f64, control: &Control, mut run: impl FnMut(f64) -> Result<Ran, Failure>) -> Result<Found, Failure> {
    let mut search = Search { guess, met: None, missed: None, runs: 0 };
    let mut best: Option<(Results, u8)> = None;
    let (mut last, mut limit) = (None, String::new());
    while let Some(events_per_second) = search.next() {
        let Ran { results, code, objectives } = run(events_per_second)?;
        let (verdict, reason) = results.verdict();
        let met = verdict == Verdict::Valid && objectives.iter().all(|objective| objective.met);
        let told: Vec<String> = objectives.iter().map(ToString::to_string).collect();
        eprintln!("{:>11} events/s  {verdict}  {}", rate(events_per_second), told.join(", "));
        if verdict == Verdict::Incorrect {
            return Ok(Found { results, code, met: None, missed: Some(events_per_second), limit: reason });
        }
        if control.stop.load(Ordering::Relaxed) {
            // A run that was cut short says nothing of its rate.
            last = Some((results, code));
            break;
        }
        search.tell(events_per_second, met);
        if met {
            best = Some((results, code));
        } else {
            limit = if verdict == Verdict::Valid { told.join(", ") } else { format!("{verdict}: {reason}") };
            last = Some((results, code));
        }
    }
    let (results, code) = best.or(last).expect("the guess was tried");
    Ok(Found { results, code, met: search.met, missed: search.missed, limit })
}

impl Found {
    /// The result in one line.
    pub fn sentence(&self) -> String {
        let beyond = |missed: f64| format!("{} events/s does not: {}", rate(missed), self.limit);
        match (self.met, self.missed) {
            (Some(met), Some(missed)) => format!("highest rate: {} events/s; {}", rate(met), beyond(missed)),
            (Some(met), None) => format!("{} events/s and perhaps more: the search ended there", rate(met)),
            (None, Some(missed)) => format!("no rate met the objectives; {}", beyond(missed)),
            (None, None) => "the search was ended".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Punctuality;
    use crate::results::merge;
    use crate::sample::Clock;
    use crate::schedule::Schedule;

    /// Searches for a limit from a guess; says what was found and in how many runs.
    fn bisected(guess: f64, limit: f64) -> (Option<f64>, u32) {
        let mut search = Search { guess, met: None, missed: None, runs: 0 };
        while let Some(rate) = search.next() {
            search.tell(rate, rate <= limit);
        }
        (search.met, search.runs)
    }

    #[test]
    fn the_limit_is_found_to_a_twentieth_from_any_sensible_guess() {
        for limit in [1_700.0, 123_456.0] {
            for factor in [0.001, 0.01, 0.5, 0.99, 1.0, 1.7, 30.0, 1000.0] {
                let (found, runs) = bisected(limit * factor, limit);
                let found = found.unwrap_or_else(|| panic!("{limit} from {factor}"));
                assert!(found <= limit && found * CLOSE >= limit, "{found} for {limit} from {factor} in {runs}");
                assert!(runs <= RUNS_MAX);
            }
        }
    }

    #[test]
    fn a_search_ends_where_nothing_is_met_and_where_everything_is() {
        assert_eq!(bisected(100.0, 0.0).0, None);
        let (found, runs) = bisected(100.0, f64::MAX);
        assert_eq!((found, runs), (Some(100.0 * 2_f64.powi(15)), RUNS_MAX));
    }

    /// What the server takes in a second, one request after the other, in the tests that follow.
    const CAPACITY: f64 = 10_000.0;

    /// Ten seconds of Poisson arrivals at that server, in a time of its own, so that the machine's speed is nothing to it.
    fn simulated(requests_per_second: f64, objective: &str) -> Ran {
        let (length, stage) = (Duration::from_secs(10), Stage { length: Duration::ZERO, requests_per_second });
        let (mut results, _) = merge(Vec::new(), Vec::new(), Vec::new());
        let mut kept = Punctuality::default();
        let mut free_at = Duration::ZERO;
        let planned = Schedule::new(&[stage], Arrivals::Poisson, 1, 0, 1).take_while(|planned| *planned < length);
        for planned in planned {
            let begun = planned.max(free_at);
            free_at = begun + Duration::from_secs_f64(1.0 / CAPACITY);
            kept.planned += 1;
            kept.unsent += u64::from(begun >= length);
            let waited = if begun < length { free_at - planned } else { length - planned };
            results.sample.times.note(Clock::Response, waited.as_nanos() as u64);
        }
        results.punctuality = Some(kept);
        let objective: slo::Objective = objective.parse().unwrap();
        let objectives = vec![objective.judge(results.sample.times.of(Clock::Response))];
        Ran { results, code: 0, objectives }
    }

    #[test]
    fn what_a_server_of_known_capacity_can_take_is_found() {
        // By the formula for such queues, 99 of 100 wait for less than 10 ms up to 97.7 % of the capacity, and half of
        // them for less than 0.5 ms up to 93.5 %; ten seconds are a sample of that.
        for (objective, least, most) in [("p99<10ms", 9_000.0, 10_000.0), ("p50<500us", 8_500.0, 9_900.0)] {
            for guess in [300.0, 5_000.0, 80_000.0] {
                let found = search(guess, &Control::default(), |rate| Ok(simulated(rate, objective))).unwrap();
                let (met, missed) = (found.met.unwrap(), found.missed.unwrap());
                assert!((least..most).contains(&met) && missed <= met * CLOSE, "{objective}: {met} and {missed}");
                let planned = found.results.punctuality.unwrap().planned as f64;
                assert!((planned / (met * 10.0) - 1.0).abs() < 0.02, "the run is that of the best rate: {planned}");
                assert_eq!(found.results.verdict().0, Verdict::Valid);
                assert!(found.sentence().starts_with(&format!("highest rate: {} events/s; ", rate(met))));
            }
        }
    }

    #[test]
    fn an_interrupt_ends_the_search_with_the_best_so_far_and_a_broken_promise_with_none() {
        let control = Control::default();
        let found = search(1_000.0, &control, |rate| {
            control.stop.store(rate > 5_000.0, Ordering::Relaxed);
            Ok(simulated(rate, "p99<10ms"))
        });
        let found = found.unwrap();
        assert_eq!((found.met, found.missed), (Some(4_000.0), None));
        let found = search(1_000.0, &Control::default(), |rate| {
            let mut ran = simulated(rate, "p99<10ms");
            ran.results.sample.error(crate::sample::ErrorKind::BadAnswer);
            Ok(Ran { code: 1, ..ran })
        });
        let found = found.unwrap();
        assert_eq!((found.met, found.missed, found.code), (None, Some(1_000.0), 1));
        assert!(found.sentence().contains("answers that break the contract"), "{}", found.sentence());
    }
}
