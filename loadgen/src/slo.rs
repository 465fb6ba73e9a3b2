//! Objectives such as `p99<5ms`: how they are written, and whether a run met them.

use std::str::FromStr;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use thiserror::Error;

use crate::units::{nanoseconds, parse_duration};

/// A percentile that has to stay below a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// As it was written, without blanks.
    pub text: String,
    quantile: f64,
    below: Duration,
}

/// Why a text is no objective.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no objective: write p99<5ms, p99.9<20ms or max<1s")]
pub struct ObjectiveError(String);

/// An objective and what a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The objective as it was written.
    pub objective: String,
    /// What was measured, in nanoseconds; nothing if nothing was.
    pub measured: Option<u64>,
    /// Whether that is below the limit.
    pub met: bool,
}

impl FromStr for Objective {
    type Err = ObjectiveError;

    fn from_str(text: &str) -> Result<Objective, ObjectiveError> {
        let text: String = text.split_whitespace().collect();
        let parts = text.split_once('<').and_then(|(name, limit)| {
            let quantile = match name.strip_prefix('p') {
                Some(percent) => percent.parse::<f64>().ok()? / 100.0,
                None if name == "max" => 1.0,
                None => return None,
            };
            Some((quantile, parse_duration(limit).ok()?))
        });
        match parts {
            Some((quantile, below)) if quantile > 0.0 && quantile <= 1.0 && !below.is_zero() => {
                Ok(Objective { text, quantile, below })
            }
            _ => Err(ObjectiveError(text)),
        }
    }
}

impl Objective {
    /// Whether times in nanoseconds meet it; nothing measured is nothing met.
    pub fn judge(&self, times: &Histogram<u64>) -> Outcome {
        let measured = (!times.is_empty()).then(|| times.value_at_quantile(self.quantile));
        let met = measured.is_some_and(|nanos| u128::from(nanos) < self.below.as_nanos());
        Outcome { objective: self.text.clone(), measured, met }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.met { "met" } else { "missed" };
        let measured = self.measured.map_or_else(|| "nothing".into(), nanoseconds);
        write!(out, "{} {word} ({measured})", self.objective)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_as_people_write_them() {
        for (text, quantile, below) in [
            ("p99<5ms", 0.99, Duration::from_millis(5)),
            (" p99.9 < 20ms ", 0.999, Duration::from_millis(20)),
            ("max<1s", 1.0, Duration::from_secs(1)),
            ("p100<1m", 1.0, Duration::from_secs(60)),
        ] {
            let objective: Objective = text.parse().unwrap();
            assert!((objective.quantile - quantile).abs() < 1e-9 && objective.below == below, "{text}");
        }
        for bad in ["", "p99", "p99>5ms", "p0<5ms", "p101<5ms", "q50<1ms", "p99<", "p99<0s", "p99<5", "pnan<1s"] {
            assert!(bad.parse::<Objective>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_below_is_missed_and_so_is_nothing() {
        let objective: Objective = "p50<1ms".parse().unwrap();
        let mut times = Histogram::<u64>::new(3).unwrap();
        assert_eq!(objective.judge(&times).to_string(), "p50<1ms missed (nothing)");
        times.record(900_000).unwrap();
        assert!(objective.judge(&times).met);
        times.record_n(1_100_000, 2).unwrap();
        let outcome = objective.judge(&times);
        assert_eq!((outcome.met, outcome.to_string()), (false, "p50<1ms missed (1.10 ms)".into()));
    }
}
