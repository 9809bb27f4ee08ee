//! Rows of a benchmark.

use serde::{Serialize, Serializer};
use std::fmt;

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum Better {
    Lower,
    Higher,
}

/// One measured quantity.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// Median of ours; infinite beyond `limit`.
    #[serde(serialize_with = "or_null")]
    pub ours: f64,
    /// The peer or floor measured in the same run.
    pub beside: String,
    /// Median of theirs; none where there is nothing to compare with, infinite beyond `limit`.
    #[serde(serialize_with = "or_null")]
    pub theirs: f64,
    /// Median of the paired ratios ours / theirs.
    #[serde(serialize_with = "or_null")]
    pub ratio: f64,
    /// Which direction is better.
    pub better: Better,
    /// First quartile of the ratios.
    #[serde(serialize_with = "or_null")]
    pub q1: f64,
    /// Third quartile of the ratios.
    #[serde(serialize_with = "or_null")]
    pub q3: f64,
    /// How many pairs.
    pub n: usize,
    /// Share of the processors' time that others took, 0 to 1.
    pub steal: f64,
    /// The largest value that could have been told, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What the issue of this benchmark asks for; not in the JSON.
    #[serde(skip)]
    pub target: Option<Target>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// On the ratio, with the quartiles as the span of doubt.
    Ratio(f64),
    /// On ours as it stands.
    Ours(f64),
}

/// Pairs of measurements that were taken in turns.
#[derive(Debug, Clone, Default)]
pub struct Series {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

/// A benchmark's result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub bench: String,
    /// Where it ran.
    pub machine: String,
    /// What came out.
    pub rows: Vec<Row>,
}

impl Series {
    /// Adds a pair.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// The row of these pairs; lower is better.
    pub fn row(
        &self,
        what: &str,
        unit: &str,
        beside: &str,
        steal: f64,
        target: impl Into<Option<Target>>,
    ) -> Row {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.theirs)
            .map(|(o, t)| match o.is_finite() && t.is_finite() {
                true => o / t,
                // Nothing is known of how far beyond it is.
                false => f64::NAN,
            })
            .collect();
        Row {
            what: what.to_owned(),
            unit: unit.to_owned(),
            ours: quantile(&self.ours, 0.5),
            beside: beside.to_owned(),
            theirs: quantile(&self.theirs, 0.5),
            ratio: quantile(&ratios, 0.5),
            better: Better::Lower,
            q1: quantile(&ratios, 0.25),
            q3: quantile(&ratios, 0.75),
            n: ratios.len(),
            steal,
            limit: None,
            failure: None,
            target: target.into(),
        }
    }
}

/// A quantile by linear interpolation between the nearest ranks; not a number for no values.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let rank = q * last as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    if low == high {
        // Also of two that are infinite.
        return low;
    }
    low + (high - low) * (rank - rank.floor())
}

impl Row {
    /// Measurements with nothing to compare them with.
    pub(crate) fn alone(what: &str, unit: &str, values: &[f64], steal: f64) -> Self {
        Self {
            what: what.to_owned(),
            unit: unit.to_owned(),
            ours: quantile(values, 0.5),
            beside: String::new(),
            theirs: f64::NAN,
            ratio: f64::NAN,
            better: Better::Lower,
            q1: f64::NAN,
            q3: f64::NAN,
            n: values.len(),
            steal,
            limit: None,
            failure: None,
            target: None,
        }
    }

    /// What could not be measured, and why.
    pub(crate) fn failed(what: &str, failure: String) -> Self {
        Self {
            failure: Some(failure),
            ..Self::alone(what, "", &[], 0.0)
        }
    }

    /// A value of this row, in words where it lies beyond what could be told.
    fn text(&self, value: f64) -> String {
        match self.limit {
            Some(limit) if value.is_infinite() => format!("> {limit:.3}"),
            _ => format!("{value:.3}"),
        }
    }

    /// Whether the target is met, as far as this run can tell.
    fn verdict(&self) -> String {
        match self.target {
            None => String::new(),
            Some(Target::Ours(target)) if self.ours <= target => format!("<= {target}: met"),
            Some(Target::Ours(target)) => format!("<= {target}: MISSED"),
            Some(Target::Ratio(target)) => {
                let (sign, met) = match self.better {
                    Better::Lower => ("<=", self.ratio <= target),
                    Better::Higher => (">=", self.ratio >= target),
                };
                let verdict = match met {
                    _ if self.q1 <= target && target <= self.q3 => "not separable",
                    true => "met",
                    false => "MISSED",
                };
                format!("ratio {sign} {target}: {verdict}")
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for row in &self.rows {
            if let Some(failure) = &row.failure {
                writeln!(f, "{:<20} NOT MEASURED: {failure}", row.what)?;
                continue;
            }
            let ours = row.text(row.ours);
            write!(f, "{:<20} ours {ours:>9} {}", row.what, row.unit)?;
            if !row.theirs.is_nan() {
                write!(f, "   {} {}", row.beside, row.text(row.theirs))?;
            }
            if row.ratio.is_finite() {
                write!(
                    f,
                    "   ratio {:.3} [{:.3}, {:.3}] n={} steal={:.1}%",
                    row.ratio,
                    row.q1,
                    row.q3,
                    row.n,
                    row.steal * 100.0
                )?;
            }
            writeln!(f, "   {}", row.verdict())?;
        }
        Ok(())
    }
}

/// JSON has neither NaN nor infinity.
fn or_null<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.serialize_none()
    }
}

/// Kernel, processors and memory, in a line.
pub(super) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = model.map_or("unknown processor", |(_, model)| model);
    format!("Linux {}, {cpus} CPUs, {model}", release.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pairs: &[(f64, f64)], target: f64) -> String {
        let mut series = Series::default();
        for (ours, theirs) in pairs {
            series.push(*ours, *theirs);
        }
        series
            .row("x", "ms", "y", 0.0, Target::Ratio(target))
            .verdict()
    }

    #[test]
    fn a_target_inside_the_quartiles_is_not_separable() {
        let pairs = [
            (4.0, 10.0),
            (5.0, 10.0),
            (6.0, 10.0),
            (4.5, 10.0),
            (5.5, 10.0),
        ];
        assert_eq!(verdict(&pairs, 0.5), "ratio <= 0.5: not separable");
        assert_eq!(verdict(&pairs, 0.9), "ratio <= 0.9: met");
        assert_eq!(verdict(&pairs, 0.1), "ratio <= 0.1: MISSED");
    }

    #[test]
    fn quantiles_interpolate_between_ranks() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn what_lies_beyond_the_largest_value_is_said_to() {
        let mut series = Series::default();
        for (ours, theirs) in [(9.0, f64::INFINITY), (8.0, f64::INFINITY), (7.0, 10.0)] {
            series.push(ours, theirs);
        }
        let row = Row {
            limit: Some(10.0),
            ..series.row("x", "s", "y", 0.0, None)
        };
        let report = Report {
            bench: "b".to_owned(),
            machine: "m".to_owned(),
            rows: vec![row],
        };
        let text = report.to_string();
        assert!(text.contains("ours     8.000 s   y > 10.000"), "{text}");
        assert!(!text.contains("ratio"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["rows"][0]["theirs"].is_null() && json["rows"][0]["limit"] == 10.0);
        assert_eq!(
            quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.75),
            f64::INFINITY
        );
    }

    #[test]
    fn what_has_no_peer_is_null_in_json() {
        let row = Row {
            target: None,
            ..Series::default().row("x", "MiB", "", 0.0, Target::Ours(1.0))
        };
        assert!(serde_json::to_value(&row).unwrap()["ratio"].is_null());
    }
}
