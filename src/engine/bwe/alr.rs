//! Is the viewer sent less than it could be? Then what arrives says little about the path
//! (libwebrtc alr_detector.cc: the application-limited region).

/// Share of the target that counts as using it. libwebrtc AlrDetectorConfig, 0.65.
const USAGE: f64 = 0.65;

/// The budget is this long, in seconds. libwebrtc interval_budget.cc, kWindowMs.
const WINDOW_S: f64 = 0.5;

/// Share of the budget left at which the region begins, and at which it ends.
/// libwebrtc start_budget_level_ratio and stop_budget_level_ratio.
const BEGIN_LEFT: f64 = 0.8;
const END_LEFT: f64 = 0.5;

/// Watches how much of the target is used.
#[derive(Debug, Default)]
pub(super) struct Alr {
    /// Unused part of the budget, in bytes: grows by the target's share, shrinks by what is sent.
    left_bytes: f64,
    sent_us: Option<u64>,
    limited: bool,
}

impl Alr {
    /// Takes in a packet sent.
    pub(super) fn on_sent(&mut self, now_us: u64, bytes: u16, target_bps: f64) {
        let bytes_per_s = target_bps * USAGE / 8.0;
        let cap = bytes_per_s * WINDOW_S;
        let since_us = now_us.saturating_sub(self.sent_us.replace(now_us).unwrap_or(now_us));
        let gained = bytes_per_s * since_us as f64 / 1e6;
        self.left_bytes = (self.left_bytes + gained).min(cap) - f64::from(bytes);
        self.left_bytes = self.left_bytes.max(-cap);
        if self.limited && self.left_bytes < cap * END_LEFT {
            self.limited = false;
        } else if !self.limited && self.left_bytes > cap * BEGIN_LEFT {
            self.limited = true;
        }
    }

    /// The viewer is sent less than it could be.
    pub(super) fn is_limited(&self) -> bool {
        self.limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(alr: &mut Alr, from_ms: u64, to_ms: u64, gap_ms: u64) {
        for ms in (from_ms..to_ms).step_by(gap_ms as usize) {
            alr.on_sent(ms * 1_000, 1_250, 1e6);
        }
    }

    #[test]
    fn a_viewer_sent_a_third_of_its_target_is_limited() {
        let mut alr = Alr::default();
        send(&mut alr, 0, 2_000, 30);
        assert!(alr.is_limited());
        send(&mut alr, 2_000, 4_000, 10);
        assert!(!alr.is_limited());
    }

    #[test]
    fn a_viewer_sent_its_target_is_not() {
        let mut alr = Alr::default();
        send(&mut alr, 0, 4_000, 10);
        assert!(!alr.is_limited());
    }
}
