//! A histogram by percentile, in steps that halve what is left of 100 % every [`STEPS`]: for programs, and in the text
//! format of HdrHistogram, which its plotter (<https://hdrhistogram.github.io/HdrHistogram/plotFiles.html>) and others read.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::series::Quantiles;

/// Steps to each half of the distance to 100 %; the number that HdrHistogram takes.
const STEPS: u32 = 5;

/// In the percentile files times are milliseconds, as other load generators write them.
const MILLISECOND: f64 = 1e6;

/// One step: at most this share of times is above, or equal to, a time.
struct Step {
    quantile: f64,
    nanoseconds: u64,
    /// Times up to here.
    count: u64,
}

fn steps(times: &Histogram<u64>) -> impl Iterator<Item = Step> + '_ {
    times.iter_quantiles(STEPS).scan(0, |count, step| {
        *count += step.count_since_last_iteration();
        // A histogram's cell ends above the largest time in it.
        let nanoseconds = step.value_iterated_to().min(times.max());
        Some(Step { quantile: step.quantile_iterated_to(), nanoseconds, count: *count })
    })
}

/// For programs: count, extremes, the percentiles that are quoted, and `[quantile, nanoseconds]` steps.
pub(super) fn json(times: &Histogram<u64>) -> Value {
    json!({
        "count": times.len(),
        "min_ns": times.min(),
        "mean_ns": times.mean(),
        "max_ns": times.max(),
        "percentiles_ns": Quantiles::of(times),
        "quantiles_ns": steps(times).map(|step| json!([step.quantile, step.nanoseconds])).collect::<Vec<_>>(),
    })
}

/// The text format.
pub(super) fn hgrm(times: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for Step { quantile, nanoseconds, count } in steps(times) {
        let row = format!("{:12.6} {quantile:2.12} {count:10}", nanoseconds as f64 / MILLISECOND);
        // There is no last column at 100 %.
        let _ = match quantile {
            1.0.. => writeln!(text, "{row}"),
            _ => writeln!(text, "{row} {:14.2}", 1.0 / (1.0 - quantile)),
        };
    }
    let [mean, deviation, max] = [times.mean(), times.stdev(), times.max() as f64].map(|value| value / MILLISECOND);
    let cells = (2 * 10_u64.pow(times.sigfig().into())).next_power_of_two();
    text + &format!(
        "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]\n\
         #[Max     = {max:12.6}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {cells:12}]\n",
        times.len(),
        times.buckets(),
    )
}
