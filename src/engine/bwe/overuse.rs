//! Is the path over-used? The delay trend against a threshold that adapts
//! (draft-ietf-rmcat-gcc-02 §5.4).

use super::trendline::Trend;

/// The threshold at first, in ms. draft §5.4 (del_var_th(0)); libwebrtc trendline_estimator.cc.
const START_MS: f64 = 12.5;

/// The threshold never leaves this range, in ms. draft §5.4 has [6, 600].
const RANGE_MS: (f64, f64) = (6.0, 600.0);

/// How fast the threshold rises and falls. libwebrtc k_up 0.0087 and k_down 0.039 (the draft
/// has 0.01 and 0.00018).
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;

/// A trend this much above the threshold is an outlier and does not move it, in ms. draft §5.4;
/// libwebrtc kMaxAdaptOffsetMs.
const OUTLIER_MS: f64 = 15.0;

/// The threshold adapts over at most this much time at once, in ms. libwebrtc kMaxTimeDelta.
const MAX_STEP_MS: f64 = 100.0;

/// The trend must stay above the threshold this long, in ms. draft §5.4
/// (overuse_time_th); libwebrtc kOverUsingTimeThreshold.
const OVERUSE_MS: f64 = 10.0;

/// How the path is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    /// Delay stays as it is.
    Normal,
    /// Delay shrinks: a queue is draining.
    Under,
    /// Delay grows: a queue is filling.
    Over,
}

/// Compares trends with the threshold.
#[derive(Debug)]
pub(super) struct OveruseDetector {
    usage: Usage,
    threshold_ms: f64,
    /// How long the trend has been above the threshold; `None` when it is not.
    above_ms: Option<f64>,
    /// Groups in a row above the threshold.
    above_groups: u32,
    previous_slope: f64,
    adapted_us: Option<i64>,
}

impl OveruseDetector {
    /// A detector that has seen nothing.
    pub(super) fn new() -> Self {
        Self {
            usage: Usage::Normal,
            threshold_ms: START_MS,
            above_ms: None,
            above_groups: 0,
            previous_slope: 0.0,
            adapted_us: None,
        }
    }

    /// Takes in a trend. `send_us` is the time between the departures of the compared groups,
    /// `at_us` when the later one arrived.
    pub(super) fn add(&mut self, trend: Trend, send_us: i64, at_us: i64) {
        let send_ms = send_us as f64 / 1e3;
        if trend.weighted_ms > self.threshold_ms {
            let above_ms = self.above_ms.map_or(send_ms / 2.0, |ms| ms + send_ms);
            self.above_ms = Some(above_ms);
            self.above_groups += 1;
            let lasting = above_ms > OVERUSE_MS && self.above_groups > 1;
            if lasting && trend.slope >= self.previous_slope {
                self.above_ms = Some(0.0);
                self.above_groups = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.above_ms = None;
            self.above_groups = 0;
            self.usage = if trend.weighted_ms < -self.threshold_ms {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.previous_slope = trend.slope;
        self.adapt(trend.weighted_ms.abs(), at_us);
    }

    /// How the path is used.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Follows the trend slowly, so that a flow that fills the queue does not starve this one.
    fn adapt(&mut self, trend_ms: f64, at_us: i64) {
        let since_us = at_us - self.adapted_us.replace(at_us).unwrap_or(at_us);
        if trend_ms > self.threshold_ms + OUTLIER_MS {
            return;
        }
        let step_ms = (since_us as f64 / 1e3).clamp(0.0, MAX_STEP_MS);
        let speed = if trend_ms < self.threshold_ms {
            FALL
        } else {
            RISE
        };
        self.threshold_ms += speed * (trend_ms - self.threshold_ms) * step_ms;
        self.threshold_ms = self.threshold_ms.clamp(RANGE_MS.0, RANGE_MS.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(detector: &mut OveruseDetector, weighted_ms: f64, groups: std::ops::Range<i64>) {
        for n in groups {
            let trend = Trend {
                slope: weighted_ms / 240.0,
                weighted_ms,
                delay_ms: 0.0,
            };
            detector.add(trend, 6_000, n * 6_000);
        }
    }

    #[test]
    fn overuse_needs_a_trend_that_lasts() {
        let mut detector = OveruseDetector::new();
        feed(&mut detector, 20.0, 0..2);
        assert_eq!(detector.usage(), Usage::Normal);
        feed(&mut detector, 20.0, 2..3);
        assert_eq!(detector.usage(), Usage::Over);
        feed(&mut detector, 1.0, 3..4);
        assert_eq!(detector.usage(), Usage::Normal);
        feed(&mut detector, -20.0, 4..5);
        assert_eq!(detector.usage(), Usage::Under);
    }

    #[test]
    fn the_threshold_follows_the_trend_within_its_range() {
        let mut detector = OveruseDetector::new();
        feed(&mut detector, 0.0, 0..1000);
        assert_eq!(detector.threshold_ms, RANGE_MS.0);
        feed(&mut detector, 18.0, 1000..2000);
        assert!((detector.threshold_ms - 18.0).abs() < 0.5);
        feed(&mut detector, 5_000.0, 2000..3000);
        assert!((detector.threshold_ms - 18.0).abs() < 0.5);
    }
}
