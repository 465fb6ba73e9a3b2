//! Arguments of `loadgen compare`.

use std::path::PathBuf;

use clap::Args;

use super::Output;

const COMPARE_EXAMPLES: &str = "\
Examples:
  loadgen compare runs/1 runs/2
      two runs beside each other
  loadgen compare before/report.json after/report.json --max-regression 10%
      for programs: exit code 99 if the rate, or a p50, p90 or p99, is worse by more than a tenth

Exit codes: 0 ok, 1 a run's verdict is neither VALID nor OVERLOADED (with --max-regression), 2 no report, 99 regression.";

/// Arguments of `loadgen compare`.
#[derive(Args, Debug)]
#[command(after_help = COMPARE_EXAMPLES)]
pub struct CompareArguments {
    /// A report.json, or the directory it is in.
    pub a: PathBuf,
    /// The one that is compared with it.
    pub b: PathBuf,
    /// How much worse B may be, such as 10%.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub max_regression: Option<f64>,
    /// Form of the table on stdout.
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Output,
}

/// Reads `10%` as a share of one.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no percentage: write 10%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_shares() {
        assert_eq!(parse_percent("10%"), Ok(0.1));
        assert_eq!(parse_percent("2.5"), Ok(0.025));
        for bad in ["", "%", "-1%", "inf", "much"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
