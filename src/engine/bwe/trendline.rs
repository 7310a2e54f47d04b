//! Is one-way delay growing? The slope of its recent course
//! (draft-ietf-rmcat-gcc-02 §5.3, in libwebrtc's form: a least-squares line for the Kalman filter).

use super::groups::Delta;

/// Groups the line is laid through. libwebrtc trendline_estimator.h, kDefaultTrendlineWindowSize.
const WINDOW: usize = 20;

/// Weight of the past in the smoothed delay. libwebrtc, kDefaultTrendlineSmoothingCoeff.
const SMOOTHING: f64 = 0.9;

/// Scales the slope to the range of the threshold. libwebrtc, kDefaultTrendlineThresholdGain.
const GAIN: f64 = 4.0;

/// Groups after which the slope has its full weight. libwebrtc, kMinNumDeltas.
const FULL_WEIGHT_GROUPS: u32 = 60;

/// A course of one-way delay and its slope.
#[derive(Debug)]
pub(super) struct Trendline {
    /// Arrival (ms after the first) and smoothed delay (ms) of the latest groups; a ring.
    points: [(f64, f64); WINDOW],
    /// Groups taken in, which also says where the ring continues.
    groups: u32,
    first_at_us: i64,
    delay_ms: f64,
    smoothed_ms: f64,
    slope: f64,
}

/// What the trendline says after a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trend {
    /// Milliseconds of delay gained per millisecond.
    pub(super) slope: f64,
    /// The slope weighted by how much is known, on the scale of the overuse threshold, in ms.
    pub(super) weighted_ms: f64,
    /// One-way delay, counted from that of the first group, in ms.
    pub(super) delay_ms: f64,
}

impl Trendline {
    /// A trendline without groups.
    pub(super) fn new() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            groups: 0,
            first_at_us: 0,
            delay_ms: 0.0,
            smoothed_ms: 0.0,
            slope: 0.0,
        }
    }

    /// Takes in how the latest group compares with the one before.
    pub(super) fn add(&mut self, delta: Delta) -> Trend {
        if self.groups == 0 {
            self.first_at_us = delta.at_us;
        }
        self.delay_ms += (delta.arrival_us - delta.send_us) as f64 / 1e3;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.delay_ms;
        let at_ms = (delta.at_us - self.first_at_us) as f64 / 1e3;
        self.points[self.groups as usize % WINDOW] = (at_ms, self.smoothed_ms);
        self.groups = self.groups.wrapping_add(1).max(1);
        if self.groups as usize >= WINDOW {
            self.slope = slope(&self.points).unwrap_or(self.slope);
        }
        let weight = f64::from(self.groups.min(FULL_WEIGHT_GROUPS));
        Trend {
            slope: self.slope,
            weighted_ms: weight * self.slope * GAIN,
            delay_ms: self.delay_ms,
        }
    }
}

/// The slope of the least-squares line; `None` when all points have one abscissa. Twenty
/// multiplications a group (not a packet): cheaper than keeping running sums from drifting.
fn slope(points: &[(f64, f64); WINDOW]) -> Option<f64> {
    let n = WINDOW as f64;
    let (x_sum, y_sum) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, y_mean) = (x_sum / n, y_sum / n);
    let (rise, run) = points.iter().fold((0.0, 0.0), |(rise, run), point| {
        let x = point.0 - x_mean;
        (rise + x * (point.1 - y_mean), run + x * x)
    });
    (run > 0.0).then(|| rise / run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(arrival_gap_us: i64, groups: i64) -> Trend {
        let mut line = Trendline::new();
        let mut trend = None;
        for n in 0..groups {
            trend = Some(line.add(Delta {
                send_us: 10_000,
                arrival_us: arrival_gap_us,
                at_us: n * arrival_gap_us,
            }));
        }
        trend.expect("at least one group")
    }

    #[test]
    fn the_slope_is_the_share_of_time_that_becomes_delay() {
        let trend = course(11_000, 200);
        assert!((trend.slope - 1.0 / 11.0).abs() < 0.002, "{trend:?}");
        assert!((trend.weighted_ms - 240.0 / 11.0).abs() < 0.5, "{trend:?}");
        assert!(course(9_000, 200).slope < -0.1);
        assert_eq!(course(10_000, 200).slope, 0.0);
    }

    #[test]
    fn nothing_is_said_before_the_window_is_full() {
        assert_eq!(course(11_000, 19).slope, 0.0);
        assert!(course(11_000, 20).slope > 0.0);
    }
}
