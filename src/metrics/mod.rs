//! What is counted, in the words of Prometheus: families of samples, written as text.

mod engine;
pub mod process;
pub mod shard;
mod text;

use std::borrow::Cow;

use hdrhistogram::Histogram;

pub use text::{Format, write};

/// Samples of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// The metric's name; of a counter without its `_total`.
    pub name: Cow<'static, str>,
    /// What it is, in a sentence.
    pub help: Cow<'static, str>,
    /// Its samples.
    pub samples: Samples,
}

/// The samples of a family, by its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// What only grows.
    Counter(Vec<Sample<f64>>),
    /// What is there now.
    Gauge(Vec<Sample<f64>>),
    /// A gauge whose name ends in `_total`, as only those of counters may: Prometheus knows no
    /// type for it.
    Unknown(Vec<Sample<f64>>),
    /// How often a value was below each of some bounds.
    Histogram(Vec<Sample<Buckets>>),
}

/// One value and what it is of. Labels take few values: shards, reasons, kinds; never names.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<T> {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: T,
}

/// A histogram's buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// Sum of all values.
    pub sum: f64,
    /// Each bucket's upper bound and how many values are in it and in no lower one.
    pub counts: Vec<(f64, u64)>,
}

impl Family {
    /// A counter without labels.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Samples::Counter(vec![alone(value as f64)]))
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self::new(name, help, Samples::Gauge(vec![alone(value)]))
    }

    /// A gauge without labels that is called as if it were a counter.
    #[must_use]
    pub fn unknown(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::new(name, help, Samples::Unknown(vec![alone(value as f64)]))
    }

    /// A family.
    #[must_use]
    pub fn new(name: &'static str, help: &'static str, samples: Samples) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            samples,
        }
    }
}

fn alone<T>(value: T) -> Sample<T> {
    Sample {
        labels: Vec::new(),
        value,
    }
}

impl Buckets {
    /// Counts a histogram's values by these bounds, which are in units of `unit` values. What is
    /// above the last is in one bucket more.
    #[must_use]
    pub fn new(histogram: &Histogram<u64>, bounds: &[f64], unit: f64) -> Self {
        let mut counts = Vec::with_capacity(bounds.len() + 1);
        let mut below = 0;
        let mut seen = 0;
        for bound in bounds {
            let up_to = (bound * unit) as u64;
            let more = match up_to > below {
                true => histogram.count_between(below, up_to - 1),
                false => 0,
            };
            counts.push((*bound, more));
            seen += more;
            below = up_to;
        }
        counts.push((f64::INFINITY, histogram.len().saturating_sub(seen)));
        let sum = histogram.mean() * histogram.len() as f64 / unit;
        Self { sum, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Histograms;

    #[test]
    fn every_value_is_in_one_bucket() {
        let mut histogram = Histograms::default().turn_ns;
        for ns in [1, 999, 40_000, 60_000, 2_000_000, 9_000_000_000] {
            histogram.record(ns).unwrap();
        }
        let buckets = Buckets::new(&histogram, &[0.000_05, 0.001], 1e9);
        let counts: Vec<u64> = buckets.counts.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [3, 1, 2]);
        assert!((buckets.sum - 9.002).abs() < 0.05, "{}", buckets.sum);
    }
}
