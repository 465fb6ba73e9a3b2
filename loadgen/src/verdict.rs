//! The first word of a summary: whether its numbers may be quoted. Decides from what was counted; prints nothing.

use std::time::Duration;

use crate::pace::Punctuality;
use crate::sample::{ErrorKind, Errors};
use crate::thread_time::ThreadTime;
use crate::units::counted;
use crate::verify::Findings;

/// Share of a generator thread's time, busy or waiting for a core, above which the generator may have set the pace.
const BUSY_MAX: f64 = 0.9;

/// Below this the share of busy time says more about the start than about the load.
const JUDGED_MIN: Duration = Duration::from_secs(1);

/// Share of "busy" answers above which the broker counts as overloaded.
const PUSHED_BACK_MAX: f64 = 0.01;

/// Share of planned requests above which it matters that they were late by the generator, or not sent by the end of the
/// plan.
const UNPUNCTUAL_MAX: f64 = 0.01;

/// Whole seconds needed to say whether the rate drifted, and by how much it may.
const DRIFT_SECONDS_MIN: usize = 9;
const DRIFT_MAX: f64 = 0.25;

/// Whether a run's numbers may be quoted. Only `Valid` and `Overloaded` may. In the order of their
/// gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing speaks against them.
    Valid,
    /// The broker pushed back, or could not keep up with the plan.
    Overloaded,
    /// The generator was the limit.
    GeneratorLimited,
    /// Connections, outcomes or the rate did not hold.
    Unstable,
    /// The broker broke its promises.
    Incorrect,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Verdict::Valid => "VALID",
            Verdict::GeneratorLimited => "GENERATOR-LIMITED",
            Verdict::Overloaded => "OVERLOADED",
            Verdict::Unstable => "UNSTABLE",
            Verdict::Incorrect => "INCORRECT",
        })
    }
}

/// A generator thread's time, in shares of one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// On a CPU.
    pub running: f64,
    /// Ready, but others had the CPU.
    pub waiting: f64,
}

impl Share {
    /// The shares of a thread that has been at it for `wall`.
    pub fn of(time: ThreadTime, wall: Duration) -> Share {
        let share = |part: Duration| part.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        Share { running: share(time.running), waiting: share(time.waiting) }
    }

    /// That of the thread that had the least time left.
    pub fn busiest(shares: &[Share]) -> Share {
        shares.iter().copied().max_by(|a, b| a.taken().total_cmp(&b.taken())).unwrap_or_default()
    }

    /// The time in which it could not have done more: the rest it slept, waiting for the broker.
    pub fn taken(self) -> f64 {
        self.running + self.waiting
    }
}

/// What a verdict is made from.
#[derive(Debug, Default)]
pub struct Evidence<'r> {
    /// Counted errors.
    pub errors: Errors,
    /// Measured requests that succeeded.
    pub requests: u64,
    /// Requests refused for good.
    pub refused: u64,
    /// Requests of unknown outcome.
    pub unknown: u64,
    /// How the plan of the open loop was kept.
    pub punctuality: Option<Punctuality>,
    /// What the busiest generator thread did with its time.
    pub busiest: Share,
    /// How long that was measured.
    pub wall: Duration,
    /// Events a second, second by second.
    pub rates: &'r [f64],
    /// The result of reading back, if it was done.
    pub findings: Option<&'r Findings>,
    /// Events that consumers were not given, or not once and in order.
    pub undelivered: u64,
    /// Why reading back or the run itself could not be finished.
    pub unfinished: Option<&'r str>,
}

/// The verdict and the reason for it, the gravest first.
pub fn judge(evidence: &Evidence<'_>) -> (Verdict, String) {
    let count = |kind: ErrorKind| evidence.errors.get(&kind).copied().unwrap_or(0);
    if let Some(findings) = evidence.findings
        && !findings.is_right()
    {
        return (Verdict::Incorrect, format!("{} faults in what was read back", findings.faults()));
    }
    if count(ErrorKind::BadAnswer) > 0 {
        return (Verdict::Incorrect, "answers that break the contract".into());
    }
    if evidence.undelivered > 0 {
        return (Verdict::Incorrect, format!("{} faults in what consumers were given", evidence.undelivered));
    }
    if let Some(why) = evidence.unfinished {
        return (Verdict::Unstable, why.to_owned());
    }
    for (number, one, many) in [
        (evidence.refused, "request refused", "requests refused"),
        (evidence.unknown, "request of unknown outcome", "requests of unknown outcome"),
        (count(ErrorKind::ConnectionLost), "connection lost", "connections lost"),
        (count(ErrorKind::ConnectFailed), "connect failed", "connects failed"),
        (count(ErrorKind::Timeout), "timeout", "timeouts"),
    ] {
        if number > 0 {
            return (Verdict::Unstable, counted(number, one, many));
        }
    }
    if let Some(drift) = drift(evidence.rates).filter(|drift| drift.abs() > DRIFT_MAX) {
        return (Verdict::Unstable, format!("the rate drifted by {:+.0} %", drift * 100.0));
    }
    let Share { running, waiting } = evidence.busiest;
    if evidence.wall >= JUDGED_MIN && evidence.busiest.taken() > BUSY_MAX {
        let [running, waiting] = [running, waiting].map(|share| share * 100.0);
        let reason =
            format!("a generator thread was busy {running:.0} % of the time and without a core {waiting:.0} %");
        return (Verdict::GeneratorLimited, reason);
    }
    if let Some(Punctuality { planned, late_by_generator, overdue, unsent, .. }) = evidence.punctuality {
        let too_many = |count: u64| count as f64 > UNPUNCTUAL_MAX * planned as f64;
        if too_many(late_by_generator) {
            let reason = format!("{late_by_generator} of {planned} sends were late though a connection was free");
            return (Verdict::GeneratorLimited, reason);
        }
        let behind = overdue + unsent;
        if too_many(behind) {
            let reason = format!(
                "{behind} of {planned} sends were not made when the plan ended: all connections waited for answers"
            );
            return (Verdict::Overloaded, reason);
        }
    }
    let busy = evidence.errors.iter().filter(|(kind, _)| kind.is_busy());
    let pushed_back: u64 = busy.map(|(_, count)| count).sum();
    if pushed_back as f64 > PUSHED_BACK_MAX * (evidence.requests + pushed_back) as f64 {
        return (Verdict::Overloaded, format!("{pushed_back} answers said busy"));
    }
    (Verdict::Valid, String::new())
}

/// How much the median rate of the last third differs from that of the first; `None` if the run is too short to say.
fn drift(rates: &[f64]) -> Option<f64> {
    // The last second is seldom whole.
    let whole = &rates[..rates.len().saturating_sub(1)];
    if whole.len() < DRIFT_SECONDS_MIN {
        return None;
    }
    let third = whole.len() / 3;
    let (first, last) = (median(&whole[..third]), median(&whole[whole.len() - third..]));
    (first > 0.0).then(|| last / first - 1.0)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { (sorted[middle - 1] + sorted[middle]) / 2.0 } else { sorted[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn share(running: f64, waiting: f64) -> Share {
        Share { running, waiting }
    }

    fn kept(planned: u64, late_by_generator: u64, unsent: u64) -> Option<Punctuality> {
        Some(Punctuality { planned, late: planned, late_by_generator, overdue: 0, unsent })
    }

    fn overdue(overdue: u64, unsent: u64) -> Option<Punctuality> {
        Some(Punctuality { planned: 1000, late: 1000, late_by_generator: 0, overdue, unsent })
    }

    fn sound<'r>() -> Evidence<'r> {
        Evidence { requests: 1000, busiest: share(0.5, 0.0), wall: Duration::from_secs(30), ..Evidence::default() }
    }

    fn error(evidence: &mut Evidence<'_>, kind: ErrorKind, count: u64) {
        evidence.errors.insert(kind, count);
    }

    /// What is changed about a sound run, and its verdict then.
    type Case = (fn(&mut Evidence<'_>), Verdict);

    const CASES: [Case; 25] = [
        (|_| {}, Verdict::Valid),
        (|run| error(run, ErrorKind::BadAnswer, 1), Verdict::Incorrect),
        (|run| run.undelivered = 1, Verdict::Incorrect),
        (|run| run.unfinished = Some("gone"), Verdict::Unstable),
        (|run| run.refused = 1, Verdict::Unstable),
        (|run| run.unknown = 1, Verdict::Unstable),
        (|run| error(run, ErrorKind::ConnectionLost, 1), Verdict::Unstable),
        (|run| error(run, ErrorKind::ConnectFailed, 1), Verdict::Unstable),
        (|run| error(run, ErrorKind::Timeout, 1), Verdict::Unstable),
        (|run| run.rates = &RISING, Verdict::Unstable),
        (|run| run.rates = &RISING[..9], Verdict::Valid),
        (|run| run.rates = &[100.0; 12], Verdict::Valid),
        (|run| run.busiest = share(0.91, 0.0), Verdict::GeneratorLimited),
        (|run| run.busiest = share(0.5, 0.41), Verdict::GeneratorLimited),
        (|run| run.busiest = share(0.5, 0.39), Verdict::Valid),
        (|run| run.punctuality = kept(1000, 10, 10), Verdict::Valid),
        (|run| run.punctuality = kept(1000, 11, 0), Verdict::GeneratorLimited),
        (|run| run.punctuality = kept(1000, 0, 11), Verdict::Overloaded),
        (|run| run.punctuality = kept(1000, 11, 900), Verdict::GeneratorLimited),
        (|run| run.punctuality = overdue(10, 0), Verdict::Valid),
        (|run| run.punctuality = overdue(11, 0), Verdict::Overloaded),
        (|run| run.punctuality = overdue(6, 5), Verdict::Overloaded),
        (|run| run.punctuality = kept(0, 0, 0), Verdict::Valid),
        (|run| error(run, ErrorKind::Status(503), 11), Verdict::Overloaded),
        (|run| error(run, ErrorKind::Status(429), 10), Verdict::Valid),
    ];

    const RISING: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0];

    #[test]
    fn each_verdict_has_its_evidence() {
        for (number, (change, verdict)) in CASES.into_iter().enumerate() {
            let mut evidence = sound();
            change(&mut evidence);
            let (found, reason) = judge(&evidence);
            assert_eq!(found, verdict, "case {number}: {evidence:?}");
            assert_eq!(reason.is_empty(), verdict == Verdict::Valid, "{reason}");
        }
    }

    #[test]
    fn what_was_read_back_outweighs_everything() {
        let right = Findings { acked: 2, verified: 2, unknown: 1, foreign: 3, ..Findings::default() };
        let short = Findings { verified: 1, ..right.clone() };
        let lost = Findings { lost: 1, ..short.clone() };
        for (findings, verdict) in [(right, Verdict::Unstable), (short, Verdict::Incorrect), (lost, Verdict::Incorrect)]
        {
            let evidence = Evidence { findings: Some(&findings), unknown: 1, ..sound() };
            assert_eq!(judge(&evidence).0, verdict);
        }
    }

    #[test]
    fn the_gravest_reason_is_given_and_a_moment_is_not_judged() {
        let mut evidence = Evidence { busiest: share(1.0, 0.0), ..sound() };
        error(&mut evidence, ErrorKind::Status(503), 1000);
        assert_eq!(judge(&evidence).0, Verdict::GeneratorLimited);
        evidence.wall = Duration::from_millis(900);
        assert_eq!(judge(&evidence).0, Verdict::Overloaded);
        error(&mut evidence, ErrorKind::Timeout, 1);
        assert_eq!(judge(&evidence), (Verdict::Unstable, "1 timeout".into()));
    }
}
