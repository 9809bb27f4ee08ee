//! Prometheus text: families, samples, histograms.

use std::fmt::{self, Write};
use std::time::Duration;

/// Upper bounds of the buckets of latencies, in seconds.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Counter,
    Gauge,
}

/// The text under construction.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

/// Latencies by bucket.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    buckets: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
}

impl Histogram {
    pub(crate) fn observe(&mut self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.sum += seconds;
        self.count += 1;
    }
}

impl Exposition {
    /// A family with its samples: labels and value of each.
    pub(crate) fn family<'a, L, V>(
        &mut self,
        name: &str,
        type_: Type,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) where
        L: AsRef<[(&'a str, &'a str)]>,
        V: fmt::Display,
    {
        let type_ = match type_ {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        self.head(name, type_, help);
        for (labels, value) in samples {
            self.sample(name, labels.as_ref(), value);
        }
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, name: &str, type_: Type, help: &str, value: impl fmt::Display) {
        self.family(name, type_, help, [([], value)]);
    }

    /// A histogram of seconds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        self.buckets(name, None, histogram);
    }

    /// A family of histograms of seconds, one for each value of `label`.
    pub(crate) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        histograms: impl IntoIterator<Item = (&'a str, &'a Histogram)>,
    ) {
        self.head(name, "histogram", help);
        for (value, histogram) in histograms {
            self.buckets(name, Some((label, value)), histogram);
        }
    }

    fn buckets(&mut self, name: &str, label: Option<(&str, &str)>, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let bounds = BOUNDS.iter().map(ToString::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let counts = histogram.buckets.iter().chain([&histogram.count]);
        for (count, bound) in counts.zip(bounds) {
            let labels: Vec<_> = label.into_iter().chain([("le", bound.as_str())]).collect();
            self.sample(&bucket, &labels, count);
        }
        let labels: Vec<_> = label.into_iter().collect();
        self.sample(&format!("{name}_sum"), &labels, histogram.sum);
        self.sample(&format!("{name}_count"), &labels, histogram.count);
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, type_: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {type_}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_type_and_labels_are_escaped() {
        let mut text = Exposition::default();
        let samples = [([("peer", "a\"b\\c\nd"), ("x", "1")], 7)];
        text.family("ocicat_up", Type::Gauge, "Whether it is up.", samples);
        text.single("ocicat_n_total", Type::Counter, "How many.", 3);
        let expected = "# HELP ocicat_up Whether it is up.\n# TYPE ocicat_up gauge\n\
             ocicat_up{peer=\"a\\\"b\\\\c\\nd\",x=\"1\"} 7\n\
             # HELP ocicat_n_total How many.\n# TYPE ocicat_n_total counter\nocicat_n_total 3\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_micros(700));
        histogram.observe(Duration::from_secs(9));
        let mut text = Exposition::default();
        text.histogram("h_seconds", "Time.", &histogram);
        let text = text.finish();
        for line in [
            "h_seconds_bucket{le=\"0.0005\"} 0",
            "h_seconds_bucket{le=\"0.001\"} 1",
            "h_seconds_bucket{le=\"5\"} 1",
            "h_seconds_bucket{le=\"+Inf\"} 2",
            "h_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
