//! Families as text, in both of the formats that are asked for: OpenMetrics and Prometheus'
//! own, 0.0.4.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{Buckets, Family, Sample, Samples};

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text`, which Prometheus asks for.
    OpenMetrics,
    /// `text/plain; version=0.0.4`, which everyone else reads.
    Plain,
}

impl Format {
    /// The better one of those that a request's `Accept` names.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Plain,
        }
    }

    /// The `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes families as text.
#[must_use]
pub fn write(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a text takes any text");
    // A sample without labels needs no braces, and people look for it without.
    let text = text.replace("{} ", " ");
    match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            family.encode(&mut encoder)?;
        }
        Ok(())
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match &self.samples {
            Samples::Counter(_) => MetricType::Counter,
            Samples::Gauge(_) => MetricType::Gauge,
            Samples::Unknown(_) => MetricType::Unknown,
            Samples::Histogram(_) => MetricType::Histogram,
        };
        let mut encoder = encoder.encode_descriptor(&self.name, &self.help, None, kind)?;
        match &self.samples {
            Samples::Counter(samples) => each(&mut encoder, samples, |value, encoder| {
                ConstCounter::new(*value).encode(encoder)
            }),
            Samples::Gauge(samples) | Samples::Unknown(samples) => {
                each(&mut encoder, samples, |value, encoder| {
                    ConstGauge::new(*value).encode(encoder)
                })
            }
            Samples::Histogram(samples) => each(&mut encoder, samples, |value, mut encoder| {
                let Buckets { sum, counts } = value;
                let count = counts.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, counts, None)
            }),
        }
    }
}

fn each<T>(
    encoder: &mut MetricEncoder<'_>,
    samples: &[Sample<T>],
    encode: impl Fn(&T, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    samples
        .iter()
        .try_for_each(|Sample { labels, value }| encode(value, encoder.encode_family(labels)?))
}

/// OpenMetrics in the older format: there a counter's `_total` is part of its name, what has no
/// type is `untyped`, and nothing marks the end.
fn plain(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut plain = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        let head = (words.next(), words.next(), words.next(), words.next());
        match head {
            (Some("#"), Some(word), Some(name), Some(rest)) => {
                let total = if is_counter(name) { "_total" } else { "" };
                let is_untyped = word == "TYPE" && rest == "unknown";
                let rest = if is_untyped { "untyped" } else { rest };
                plain += &format!("# {word} {name}{total} {rest}");
            }
            _ => plain += line,
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        vec![
            Family::counter("a_joins", "Joins.", 7),
            Family::unknown("a_rooms_total", "Rooms there are.", 2),
            Family::new(
                "a_seconds",
                "How long.",
                Samples::Histogram(vec![Sample {
                    labels: vec![("shard", "0".to_owned())],
                    value: Buckets {
                        sum: 0.5,
                        counts: vec![(0.1, 3), (f64::INFINITY, 1)],
                    },
                }]),
            ),
        ]
    }

    #[test]
    fn prometheus_is_given_openmetrics() {
        let text = write(
            families(),
            Format::accepted("application/openmetrics-text;q=1"),
        );
        assert!(
            text.contains("# TYPE a_joins counter\na_joins_total 7.0\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE a_rooms_total unknown\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn everyone_else_is_given_the_older_format() {
        let text = write(families(), Format::accepted("*/*"));
        for line in [
            "# HELP a_joins_total Joins.",
            "# TYPE a_joins_total counter",
            "a_joins_total 7.0",
            "# TYPE a_rooms_total untyped",
            "a_rooms_total 2.0",
            "a_seconds_bucket{le=\"0.1\",shard=\"0\"} 3",
            "a_seconds_bucket{le=\"+Inf\",shard=\"0\"} 4",
            "a_seconds_count{shard=\"0\"} 4",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("EOF"));
    }
}
