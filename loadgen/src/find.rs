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
            let (results, _) = run(plan, control)?;
            let most = results.rate(results.sample.events as f64);
            eprintln!("closed loop  {} events/s", rate(most));
            (most / 2.0).max(RATE_MIN)
        }
    };
    let mut search = Search { guess, met: None, missed: None, runs: 0 };
    let mut best: Option<(Results, u8)> = None;
    let (mut last, mut limit) = (None, String::new());
    while let Some(events_per_second) = search.next() {
        let requests_per_second = events_per_second / f64::from(plan.batch);
        let stages = vec![Stage { length: Duration::ZERO, requests_per_second }];
        plan.open_loop = Some(OpenLoop { stages, arrivals });
        if let Some(producer) = &mut plan.producer {
            producer.epoch += 1;
        }
        let (results, code) = run(plan, control)?;
        let (verdict, reason) = results.verdict();
        let objectives = results.objectives(plan);
        let met = verdict == Verdict::Valid && objectives.iter().all(|objective| objective.met);
        let told: Vec<String> = objectives.iter().map(ToString::to_string).collect();
        eprintln!("{:>11} events/s  {verdict}  {}", rate(events_per_second), told.join(", "));
        if verdict == Verdict::Incorrect || control.stop.load(Ordering::Relaxed) {
            return Ok(Found { results, code, met: None, missed: search.missed, limit: reason });
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

    /// Searches for a limit from a guess; says what was found and in how many runs.
    fn search(guess: f64, limit: f64) -> (Option<f64>, u32) {
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
                let (found, runs) = search(limit * factor, limit);
                let found = found.unwrap_or_else(|| panic!("{limit} from {factor}"));
                assert!(found <= limit && found * CLOSE >= limit, "{found} for {limit} from {factor} in {runs}");
                assert!(runs <= RUNS_MAX);
            }
        }
    }

    #[test]
    fn a_search_ends_where_nothing_is_met_and_where_everything_is() {
        assert_eq!(search(100.0, 0.0).0, None);
        let (found, runs) = search(100.0, f64::MAX);
        assert_eq!((found, runs), (Some(100.0 * 2_f64.powi(15)), RUNS_MAX));
    }
}
