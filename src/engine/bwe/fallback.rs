//! The rate where transport-wide feedback is not negotiated: loss from receiver reports, under
//! the viewer's own estimate when it sends one (draft-ietf-rmcat-gcc-02 §6,
//! draft-alvestrand-rmcat-remb-03).

/// Loss below this lets the rate grow, above the second figure cuts it. draft §6.
const LIGHT: f64 = 0.02;
const HEAVY: f64 = 0.10;

/// Growth a second, and the constant part of it, in bit/s.
/// libwebrtc send_side_bandwidth_estimation.cc, UpdateEstimate.
const GROWTH_PER_S: f64 = 1.08;
const GROWTH_BPS: f64 = 1_000.0;

/// A cut takes this share of the loss off the rate. draft §6.
const CUT: f64 = 0.5;

/// A cut follows another no sooner than this and a round trip, in microseconds. libwebrtc
/// kBweDecreaseInterval.
const CUT_GAP_US: u64 = 300_000;

/// The rate grows to at most this multiple of what is sent: more has not been tried.
const MAX_OVER_SENT: f64 = 1.5;
const MAX_OVER_SENT_BPS: f64 = 10_000.0;

/// Growth a second under a viewer's estimate that allows more: it has seen the path's delay,
/// which loss alone has not.
const GROWTH_TO_REMB_PER_S: f64 = 1.5;

/// What is sent is counted over this long, in microseconds.
const COUNT_US: u64 = 1_000_000;

/// The rate by reports.
#[derive(Debug)]
pub(super) struct Fallback {
    rate_bps: f64,
    remb_bps: Option<f64>,
    reported_us: Option<u64>,
    cut_us: Option<u64>,
    count_began_us: u64,
    counted_bytes: u64,
    sent_bps: f64,
}

impl Fallback {
    /// Begins at a rate.
    pub(super) fn new(now_us: u64, rate_bps: f64) -> Self {
        Self {
            rate_bps,
            remb_bps: None,
            reported_us: None,
            cut_us: None,
            count_began_us: now_us,
            counted_bytes: 0,
            sent_bps: 0.0,
        }
    }

    /// A packet left.
    pub(super) fn on_sent(&mut self, now_us: u64, bytes: u16) {
        let length_us = now_us.saturating_sub(self.count_began_us);
        if length_us >= COUNT_US {
            self.sent_bps = self.counted_bytes as f64 * 8e6 / length_us as f64;
            self.count_began_us = now_us;
            self.counted_bytes = 0;
        }
        self.counted_bytes += u64::from(bytes);
    }

    /// A receiver report came: this share of the packets since the one before was lost.
    pub(super) fn on_loss_report(&mut self, now_us: u64, lost: f64, rtt_us: u64) {
        let before_us = self.reported_us.replace(now_us).unwrap_or(now_us);
        if lost > HEAVY {
            let gap_us = CUT_GAP_US + rtt_us;
            if self
                .cut_us
                .is_none_or(|at| now_us.saturating_sub(at) >= gap_us)
            {
                self.cut_us = Some(now_us);
                self.rate_bps *= 1.0 - CUT * lost;
            }
        } else if lost <= LIGHT {
            let since_s = now_us.saturating_sub(before_us).min(1_000_000) as f64 / 1e6;
            self.grow(since_s);
        }
    }

    /// The viewer's own estimate came (REMB).
    pub(super) fn on_remb(&mut self, bps: f64) {
        self.remb_bps = Some(bps);
    }

    /// Takes a rate that is forced.
    pub(super) fn set(&mut self, rate_bps: f64) {
        self.rate_bps = rate_bps;
    }

    /// The rate, in bit/s.
    pub(super) fn bps(&self) -> f64 {
        self.remb_bps
            .map_or(self.rate_bps, |remb| remb.min(self.rate_bps))
    }

    /// The rate was seen not to be what one likes: a cut, or the viewer's own estimate.
    pub(super) fn is_bounded(&self) -> bool {
        self.cut_us.is_some() || self.remb_bps.is_some()
    }

    fn grow(&mut self, since_s: f64) {
        let (factor, limit) = match self.remb_bps {
            Some(remb) => (GROWTH_TO_REMB_PER_S, remb),
            None => (
                GROWTH_PER_S,
                MAX_OVER_SENT * self.sent_bps + MAX_OVER_SENT_BPS,
            ),
        };
        let grown = self.rate_bps * factor.powf(since_s) + GROWTH_BPS * since_s;
        self.rate_bps = grown.min(limit).max(self.rate_bps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn call(fallback: &mut Fallback, seconds: std::ops::Range<u64>, lost: f64) {
        for at_s in seconds {
            for packet in 0..10 {
                let at_us = at_s * SECOND_US + packet * 100_000;
                let bytes = fallback.bps() / 80.0;
                fallback.on_sent(at_us, bytes as u16);
            }
            fallback.on_loss_report(at_s * SECOND_US + 950_000, lost, 50_000);
        }
    }

    #[test]
    fn light_loss_grows_and_heavy_loss_cuts() {
        let mut fallback = Fallback::new(0, 3e5);
        call(&mut fallback, 0..10, 0.01);
        assert!((5.5e5..7e5).contains(&fallback.bps()), "{}", fallback.bps());
        call(&mut fallback, 10..20, 0.3);
        assert!(fallback.bps() < 1.5e5, "{}", fallback.bps());
    }

    #[test]
    fn a_viewers_estimate_caps_and_hastens() {
        let mut fallback = Fallback::new(0, 3e5);
        fallback.on_remb(2e6);
        call(&mut fallback, 0..10, 0.0);
        assert_eq!(fallback.bps(), 2e6);
        fallback.on_remb(4e5);
        assert_eq!(fallback.bps(), 4e5);
    }

    #[test]
    fn a_rate_nobody_uses_does_not_grow() {
        let mut fallback = Fallback::new(0, 3e5);
        for at_s in 0..100 {
            fallback.on_loss_report(at_s * SECOND_US, 0.0, 50_000);
        }
        assert_eq!(fallback.bps(), 3e5);
    }
}
