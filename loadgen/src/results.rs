//! What a run measured, all workers together, and the verdict on it. Printing is left to `summary`.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::broker::Broker;
use crate::e2e::Delivered;
use crate::pace::Punctuality;
use crate::plan::Plan;
use crate::sample::{Clock, Sample, Times};
use crate::series::Point;
use crate::slo::Outcome;
use crate::verdict::{Evidence, Share, Verdict, judge};
use crate::verify::{Beliefs, Findings};
use crate::worker::{Ended, Report};

/// How reading back went.
#[derive(Clone, Debug)]
pub enum Verification {
    /// Not asked for.
    Skipped,
    /// Everything was looked at.
    Done(Findings),
    /// It could not be done; why.
    Unfinished(String),
}

/// Everything a run measured.
#[derive(Debug)]
pub struct Results {
    /// The measured part, all workers together.
    pub sample: Sample,
    /// The parts of it by stage, if there are several.
    pub stages: Vec<Sample>,
    /// Its length.
    pub measured: Duration,
    /// The measured part second by second.
    pub points: Vec<Point>,
    /// Acknowledged events of the whole run.
    pub acked_events: u64,
    /// Requests refused for good.
    pub refused: u64,
    /// The first refusal in words.
    pub first_refusal: Option<String>,
    /// Requests of unknown outcome.
    pub unknown: u64,
    /// How the plan of the open loop was kept.
    pub punctuality: Option<Punctuality>,
    /// What consumers of the same run were given.
    pub delivered: Option<Delivered>,
    /// What each thread did with its time.
    pub shares: Vec<Share>,
    /// CPU time of all threads together.
    pub cpu: Duration,
    /// The longest time a thread was at it.
    pub wall: Duration,
    /// Whether the broker fell silent before the end.
    pub silent: bool,
    /// Why it was given up though the broker answered.
    pub stuck: Option<String>,
    /// What the broker told of itself meanwhile, if it was asked.
    pub broker: Option<Broker>,
    /// How reading back went.
    pub verification: Verification,
}

impl Results {
    /// The verdict and its reason.
    pub fn verdict(&self) -> (Verdict, String) {
        let (findings, unfinished) = match &self.verification {
            Verification::Skipped => (None, None),
            Verification::Done(findings) => (Some(findings), None),
            Verification::Unfinished(why) => (None, Some(why.as_str())),
        };
        // What consumers were given after the load is no part of its rate.
        let end = self.points.iter().rposition(|point| point.requests > 0).map_or(0, |last| last + 1);
        let rates: Vec<f64> = self.points[..end].iter().map(Point::events_per_second).collect();
        judge(&Evidence {
            errors: self.sample.errors.clone(),
            requests: self.sample.requests,
            refused: self.refused,
            unknown: self.unknown,
            punctuality: self.punctuality,
            busiest: Share::busiest(&self.shares),
            wall: self.wall,
            // A rate that is meant to change does not drift.
            rates: if self.stages.is_empty() { &rates } else { &[] },
            findings,
            undelivered: self.delivered.as_ref().map_or(0, |delivered| delivered.lost + delivered.repeated),
            unfinished: unfinished.or(self.silent.then_some("the broker fell silent")).or(self.stuck.as_deref()),
        })
    }

    /// Each objective and what the run came to: by the time from end to end if that was measured, else by the response
    /// clock, or in the closed loop by the service clock.
    pub fn objectives(&self, plan: &Plan) -> Vec<Outcome> {
        let clock = match (&self.delivered, &self.punctuality) {
            (Some(_), _) => Clock::EndToEnd,
            (None, Some(_)) => Clock::Response,
            (None, None) => Clock::Service,
        };
        plan.objectives.iter().map(|objective| objective.judge(self.sample.times.of(clock))).collect()
    }

    /// From the planned send to the answer, or in the closed loop from the send.
    pub fn reply_times(&self) -> &Histogram<u64> {
        self.sample.times.of(if self.punctuality.is_some() { Clock::Response } else { Clock::Service })
    }

    /// Adds what consumers of the same run were given, second by second since the same moment.
    pub fn deliver(&mut self, delivered: Delivered, times: &Times, points: Vec<Point>) {
        self.delivered = Some(delivered);
        self.sample.times.add(times);
        for (place, point) in points.into_iter().enumerate() {
            match self.points.get_mut(place) {
                Some(known) => known.times.extend(point.times),
                None => self.points.push(Point { slot: point.slot, times: point.times, ..Point::default() }),
            }
        }
    }

    /// The first faults in words.
    pub fn examples(&self) -> &[String] {
        match &self.verification {
            Verification::Done(findings) => &findings.examples,
            Verification::Skipped | Verification::Unfinished(_) => &[],
        }
    }

    /// A count of the measured part as a rate.
    pub fn rate(&self, count: f64) -> f64 {
        count / self.measured.as_secs_f64().max(1e-9)
    }

    /// Microseconds of generator CPU for each acknowledged request, if there was any.
    pub fn cpu_us_per_request(&self, plan: &Plan) -> Option<f64> {
        let requests = self.acked_events.div_ceil(u64::from(plan.batch));
        (requests > 0).then(|| self.cpu.as_secs_f64() * 1e6 / requests as f64)
    }
}

/// Adds up what the workers bring home: what was measured, and what is to be verified. `bases` are the groups' tails
/// before the run, `points` the run second by second.
pub fn merge(reports: Vec<Report<'_>>, bases: Vec<u64>, points: Vec<Point>) -> (Results, Beliefs) {
    let mut beliefs = Beliefs { bases, ..Beliefs::default() };
    let mut results = Results {
        sample: Sample::default(),
        stages: Vec::new(),
        measured: Duration::ZERO,
        points,
        acked_events: 0,
        refused: 0,
        first_refusal: None,
        unknown: 0,
        punctuality: None,
        delivered: None,
        shares: Vec::new(),
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
        silent: false,
        stuck: None,
        broker: None,
        verification: Verification::Skipped,
    };
    for Report { record, ended, time, wall, measured, punctuality } in reports {
        results.sample.add(&record.meter.total);
        results.stages.resize_with(record.stages.len(), Sample::default);
        results.stages.iter_mut().zip(&record.stages).for_each(|(sum, stage)| sum.add(stage));
        results.measured = results.measured.max(measured);
        results.wall = results.wall.max(wall);
        results.cpu += time.running;
        results.shares.push(Share::of(time, wall));
        results.acked_events += record.acked_events;
        results.refused += record.refused.count();
        results.unknown += record.unknown.count();
        if let Some(more) = punctuality {
            results.punctuality.get_or_insert_default().add(more);
        }
        match ended {
            Ended::Silent => results.silent = true,
            Ended::Stuck(why) => results.stuck = Some(why),
            Ended::Done | Ended::Refused(_) => {}
        }
        results.first_refusal = results.first_refusal.or(record.first_refusal);
        beliefs.acks.push(record.acks);
        beliefs.unplaced.append(record.unplaced);
        beliefs.unknown.append(record.unknown);
        beliefs.refused.append(record.refused);
    }
    (results, beliefs)
}
