//! When a client's connection is bad enough that it is to be told: what its reports say, smoothed,
//! against thresholds.

use std::time::{Duration, Instant};

use super::figures::Fares;

/// What is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The share of packets that do not arrive at first, in per cent.
    PacketLoss,
    /// How unevenly they arrive (RFC 3550 §6.4.1), in milliseconds.
    Jitter,
    /// The round trip, in milliseconds.
    Latency,
    /// What the path carries, in kbit/s, where pictures are held back for it.
    Bandwidth,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It is over.
    Over,
    /// Past the threshold; pictures are smaller than they could be.
    Warning,
    /// Past twice the threshold; pictures are paused.
    Critical,
}

/// From where on something is bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Of [`Trouble::PacketLoss`].
    pub loss_percent: f32,
    /// Of [`Trouble::Jitter`].
    pub jitter_ms: f32,
    /// Of [`Trouble::Latency`].
    pub latency_ms: f32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            loss_percent: 10.0,
            jitter_ms: 100.0,
            latency_ms: 400.0,
        }
    }
}

/// The weight of a report in what is smoothed: some five seconds' worth count.
const WEIGHT: f32 = 0.2;
/// It is over below this share of its threshold.
const OVER: f32 = 0.7;
/// Somebody is told of the same kind no more often than this.
const TOLD_AGAIN: Duration = Duration::from_secs(2);

/// What one client is told, and was.
#[derive(Debug)]
pub struct Warnings {
    /// Smoothed, by kind; bandwidth is not.
    values: [f32; 3],
    /// The round trip as of the last report.
    rtt: Option<Duration>,
    /// How much is held back for want of bandwidth.
    held_back: Severity,
    /// What was told last of each kind, and when.
    told: [(Severity, Option<Instant>); 4],
}

const KINDS: [Trouble; 4] = [
    Trouble::PacketLoss,
    Trouble::Jitter,
    Trouble::Latency,
    Trouble::Bandwidth,
];

impl Default for Warnings {
    /// Nothing is bad.
    fn default() -> Self {
        Self {
            values: [0.0; 3],
            rtt: None,
            held_back: Severity::Over,
            told: [(Severity::Over, None); 4],
        }
    }
}

impl Warnings {
    /// A receiver report came about one of the client's streams.
    pub fn handle_report(&mut self, lost_256ths: u8, jitter_ms: f32, rtt: Duration) {
        self.rtt = Some(rtt);
        let loss = f32::from(lost_256ths) * 100.0 / 256.0;
        let now = [loss, jitter_ms, rtt.as_secs_f32() * 1e3];
        for (value, now) in self.values.iter_mut().zip(now) {
            *value += (now - *value) * WEIGHT;
        }
    }

    /// How the client fares by its reports, smoothed; `None` until one has come.
    #[must_use]
    pub fn fares(&self) -> Option<Fares> {
        let [loss_percent, jitter_ms, _] = self.values;
        self.rtt.map(|_| Fares {
            lost_permille: (loss_percent * 10.0).round() as u32,
            jitter_us: (jitter_ms * 1e3).round() as u32,
        })
    }

    /// The round trip to it, likewise.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// How much of what the client watches is held back for want of bandwidth.
    pub fn handle_held_back(&mut self, held_back: Severity) {
        self.held_back = held_back;
    }

    /// The next thing to tell the client: what, its value, and how bad it is. `estimate_kbps` is
    /// what its path carries.
    pub fn poll(
        &mut self,
        now: Instant,
        thresholds: &Thresholds,
        estimate_kbps: f32,
    ) -> Option<(Trouble, f32, Severity)> {
        let severities = self.severities(thresholds);
        let news = (0..KINDS.len()).find(|kind| {
            let (told, at) = self.told[*kind];
            let is_recent = at.is_some_and(|at| now.saturating_duration_since(at) < TOLD_AGAIN);
            told != severities[*kind] && !is_recent
        })?;
        self.told[news] = (severities[news], Some(now));
        let value = self.values.get(news).copied().unwrap_or(estimate_kbps);
        Some((KINDS[news], value, severities[news]))
    }

    fn severities(&self, thresholds: &Thresholds) -> [Severity; 4] {
        let thresholds = [
            thresholds.loss_percent,
            thresholds.jitter_ms,
            thresholds.latency_ms,
        ];
        let mut severities = [self.held_back; 4];
        for (kind, threshold) in thresholds.into_iter().enumerate() {
            let (value, (told, _)) = (self.values[kind], self.told[kind]);
            // What was told stays so until it is clearly less.
            let reaches =
                |at: f32, severity| value >= at || (told >= severity && value >= at * OVER);
            severities[kind] = if reaches(2.0 * threshold, Severity::Critical) {
                Severity::Critical
            } else if reaches(threshold, Severity::Warning) {
                Severity::Warning
            } else {
                Severity::Over
            };
        }
        severities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;

    const RTT: Duration = Duration::from_millis(40);

    fn told(warnings: &mut Warnings, second: u64) -> Vec<(Trouble, Severity)> {
        let now = origin() + Duration::from_secs(second);
        let news = std::iter::from_fn(|| warnings.poll(now, &Thresholds::default(), 300.0));
        news.map(|(trouble, _, severity)| (trouble, severity))
            .collect()
    }

    #[test]
    fn loss_that_lasts_is_told_once_for_each_degree_and_when_it_is_over() {
        let mut warnings = Warnings::default();
        let mut all = Vec::new();
        for second in 0..60 {
            let lost = match second {
                10..20 => 40,
                20..30 => 120,
                _ => 0,
            };
            warnings.handle_report(lost, 5.0, RTT);
            all.extend(told(&mut warnings, second));
        }
        let expected = [
            Severity::Warning,
            Severity::Critical,
            Severity::Warning,
            Severity::Over,
        ];
        assert_eq!(
            all,
            expected.map(|severity| (Trouble::PacketLoss, severity))
        );
    }

    #[test]
    fn one_bad_report_is_no_trouble() {
        let mut warnings = Warnings::default();
        warnings.handle_report(100, 5.0, RTT);
        assert_eq!(told(&mut warnings, 0), []);
    }

    #[test]
    fn held_back_pictures_are_told_with_what_the_path_carries() {
        let mut warnings = Warnings::default();
        warnings.handle_held_back(Severity::Critical);
        let news = warnings.poll(origin(), &Thresholds::default(), 300.0);
        assert_eq!(news, Some((Trouble::Bandwidth, 300.0, Severity::Critical)));
        warnings.handle_held_back(Severity::Over);
        assert_eq!(
            told(&mut warnings, 1),
            [],
            "a moment ago it was told otherwise"
        );
        assert_eq!(
            told(&mut warnings, 3),
            [(Trouble::Bandwidth, Severity::Over)]
        );
    }
}
