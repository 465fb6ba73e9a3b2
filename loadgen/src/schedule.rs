//! When requests are planned to be sent in the open loop: moments that follow from rate, shape and seed alone, whatever
//! the broker does. Keeping to them is left to `pace`.
//!
//! Moments are counted in requests first: 0, 1, 2 … when they are evenly spaced, steps drawn from the exponential
//! distribution when they arrive as independent users do. The stages say how much time a request is worth, so a change of
//! the rate falls where it should, even between two requests.

use std::time::Duration;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Independently of each other, as from many users: sometimes close, sometimes far apart.
    Poisson,
    /// Evenly spaced.
    Constant,
}

impl Arrivals {
    /// The word on the command line and in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Arrivals::Poisson => "poisson",
            Arrivals::Constant => "constant",
        }
    }
}

/// A rate that holds for a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long; the last stage goes on for as long as the run does.
    pub length: Duration,
    /// Requests a second, all workers together; more than 0.
    pub requests_per_second: f64,
}

/// The moments of one worker, as times since the start of the run.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// What is left of the stages, the present one first.
    stages: Vec<Stage>,
    /// Where the present stage begins, in seconds.
    stage_start: f64,
    /// The next moment, in requests since the present stage began.
    next: f64,
    workers: f64,
    random: fastrand::Rng,
}

impl Schedule {
    /// The moments of worker `worker` of `workers`, all of which together keep the stages' rates. At least one stage.
    pub fn new(stages: &[Stage], arrivals: Arrivals, seed: u64, worker: u32, workers: u32) -> Schedule {
        let stages = stages.iter().rev().copied().collect();
        let random = fastrand::Rng::with_seed(seed.rotate_left(32) ^ u64::from(worker));
        let mut schedule =
            Schedule { arrivals, stages, stage_start: 0.0, next: f64::from(worker), workers: workers.into(), random };
        if arrivals == Arrivals::Poisson {
            schedule.next = schedule.step();
        }
        schedule
    }

    /// Requests between two moments of this worker.
    fn step(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => self.workers,
            // `f64` is below 1, so this is never the logarithm of 0.
            Arrivals::Poisson => -(1.0 - self.random.f64()).ln() * self.workers,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        while let [_, .., Stage { length, requests_per_second }] = self.stages[..] {
            let requests = length.as_secs_f64() * requests_per_second;
            if self.next < requests {
                break;
            }
            self.next -= requests;
            self.stage_start += length.as_secs_f64();
            self.stages.pop();
        }
        let rate = self.stages.last()?.requests_per_second;
        let moment = self.stage_start + self.next / rate;
        self.next += self.step();
        Duration::try_from_secs_f64(moment).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(seconds: u64, requests_per_second: f64) -> Stage {
        Stage { length: Duration::from_secs(seconds), requests_per_second }
    }

    fn millis(schedule: Schedule, count: usize) -> Vec<u128> {
        schedule.take(count).map(|moment| moment.as_millis()).collect()
    }

    #[test]
    fn constant_moments_are_evenly_spaced_and_shared_in_turn() {
        let of = |worker| millis(Schedule::new(&[stage(1, 100.0)], Arrivals::Constant, 1, worker, 2), 3);
        assert_eq!((of(0), of(1)), (vec![0, 20, 40], vec![10, 30, 50]));
    }

    #[test]
    fn each_stage_has_its_rate_and_the_last_one_goes_on() {
        let stages = [stage(1, 2.0), stage(1, 10.0), stage(2, 1.0)];
        let moments = millis(Schedule::new(&stages, Arrivals::Constant, 1, 0, 1), 16);
        let second: Vec<u128> = (0..10).map(|n| 1000 + n * 100).collect();
        assert_eq!(moments, [&[0, 500][..], &second, &[2000, 3000, 4000, 5000]].concat());
    }

    #[test]
    fn poisson_keeps_the_rate_scatters_and_depends_on_the_seed_alone() {
        let stages = [stage(10, 1000.0), stage(10, 3000.0)];
        let draw = |seed, worker| -> Vec<Duration> {
            let end = Duration::from_secs(20);
            Schedule::new(&stages, Arrivals::Poisson, seed, worker, 2).take_while(|moment| *moment < end).collect()
        };
        let (one, other) = (draw(7, 0), draw(7, 1));
        assert_eq!(one, draw(7, 0));
        assert!(one != other && one != draw(8, 0));
        assert!(one.is_sorted());
        let [first, second] = [0, 10].map(|from| {
            let within = |moment: &&Duration| (from..from + 10).contains(&moment.as_secs());
            one.iter().chain(&other).filter(within).count() as f64
        });
        // Six standard deviations: √10 000 and √30 000.
        assert!((first - 10_000.0).abs() < 600.0 && (second - 30_000.0).abs() < 1_040.0, "{first} {second}");
        // Of exponential gaps, 1/e are longer than the mean.
        let long = one.windows(2).take(4000).filter(|pair| pair[1] - pair[0] > Duration::from_millis(2)).count();
        assert!((long as f64 / 4000.0 - (-1.0_f64).exp()).abs() < 0.05, "{long}");
    }
}
