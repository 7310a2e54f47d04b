//! How fast a stream comes in.

use std::time::{Duration, Instant};

/// Packets are counted over this long.
const WINDOW: Duration = Duration::from_millis(500);

/// Bits per second of one stream, headers aside: of the busier of the last two windows, so that
/// the lull after a keyframe is not taken for the rate.
#[derive(Debug, Clone, Default)]
pub(crate) struct RateMeter {
    /// When the running window began; `None` before the first packet.
    began: Option<Instant>,
    bytes: u64,
    /// The rates of the two windows before.
    bps: [f64; 2],
}

impl RateMeter {
    /// A packet came in.
    pub(crate) fn count(&mut self, now: Instant, bytes: usize) {
        let began = *self.began.get_or_insert(now);
        let length = now.saturating_duration_since(began);
        if length >= WINDOW {
            let bps = self.bytes as f64 * 8.0 / length.as_secs_f64();
            self.bps = [bps, self.bps[0]];
            (self.began, self.bytes) = (Some(now), 0);
        }
        self.bytes += bytes as u64;
    }

    /// The rate; 0 before the first window is over.
    pub(crate) fn bps(&self) -> f64 {
        self.bps[0].max(self.bps[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "a test's clock has to begin somewhere"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_steady_stream_has_its_rate_after_one_window() {
        let (start, mut meter) = (origin(), RateMeter::default());
        for n in 0..=50 {
            assert_eq!(meter.bps(), 0.0);
            meter.count(start + Duration::from_millis(n * 10), 1_250);
        }
        assert!((0.99e6..1.01e6).contains(&meter.bps()), "{}", meter.bps());
    }

    #[test]
    fn a_pause_shows_after_two_windows() {
        let (start, mut meter) = (origin(), RateMeter::default());
        for n in 0..=100 {
            meter.count(start + Duration::from_millis(n * 10), 1_250);
        }
        let end = start + Duration::from_secs(1);
        meter.count(end + Duration::from_secs(5), 1_250);
        assert!(meter.bps() > 0.9e6);
        meter.count(end + Duration::from_secs(10), 1_250);
        assert!(meter.bps() < 1e5);
    }
}
