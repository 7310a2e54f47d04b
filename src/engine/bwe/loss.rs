//! The loss-based bound: heavy loss that lasts caps the rate, light loss does not
//! (draft-ietf-rmcat-gcc-02 §6, with the loss-dependent cap of libwebrtc loss_based_bwe_v2.cc).

/// A loss figure is taken over at least this long, in microseconds.
/// libwebrtc loss_based_bwe_v2.cc, ObservationDurationLowerBound.
const OBSERVATION_US: u64 = 250_000;

/// And over at least this many packets.
/// libwebrtc send_side_bandwidth_estimation.cc, kLimitNumPackets.
const OBSERVATION_PACKETS: u32 = 20;

/// Unless it took this long: of who is sent little, an old loss must not be remembered for long.
const MAX_OBSERVATION_US: u64 = 1_000_000;

/// Weight of a figure of [`OBSERVATION_US`] in the loss that is acted on: about a second of memory,
/// so that one bad quarter second of 2 % loss stays below [`HEAVY`].
const NEWEST: f64 = 0.3;

/// Loss above this cuts the rate; below [`LIGHT`] a bound is lifted; between, it is lifted
/// slowly. draft §6.
const HEAVY: f64 = 0.10;
const LIGHT: f64 = 0.02;

/// A cut takes this share of the loss off the rate. draft §6: 1 - 0.5 p.
const CUT: f64 = 0.5;

/// Or it goes to this share of what arrives, if that is less: of a path that drops a third, what
/// arrives is all there is. libwebrtc loss_based_bwe_v2.cc has the acknowledged rate as a
/// candidate; a little less drains the queue that dropped.
const ACKED_SHARE: f64 = 0.9;

/// A cut follows another no sooner than this and a round trip, in microseconds.
/// libwebrtc send_side_bandwidth_estimation.cc, kBweDecreaseInterval.
const CUT_GAP_US: u64 = 300_000;

/// A loss p never cuts below this many bit/s divided by (p - [`FLOOR_OFFSET`]): random loss is
/// not congestion, and cutting does not cure it. libwebrtc loss_based_bwe_v2.cc,
/// InstantUpperBoundBwBalance and InstantUpperBoundLossOffset.
const FLOOR_BPS: f64 = 75_000.0;
const FLOOR_OFFSET: f64 = 0.05;

/// Growth of a bound a second under light loss. draft §6 (1.05 a feedback), libwebrtc 1.08.
const LIFT_LIGHT: f64 = 1.08;

/// Growth of a bound a second between light and heavy loss: loss that stays when the rate falls
/// is not ours. libwebrtc loss_based_bwe_v2.cc tries 1.02 as a candidate.
const LIFT_BETWEEN: f64 = 1.02;

/// A bound this far above the delay-based rate is dropped.
const SLACK: f64 = 1.5;

/// The bound that loss puts on the rate.
#[derive(Debug)]
pub(super) struct LossBound {
    /// When the observation under way began.
    began_us: u64,
    arrived: u32,
    lost: u32,
    loss: f64,
    bound_bps: Option<f64>,
    cut_us: Option<u64>,
}

impl LossBound {
    /// No loss seen, no bound.
    pub(super) fn new(now_us: u64) -> Self {
        Self {
            began_us: now_us,
            arrived: 0,
            lost: 0,
            loss: 0.0,
            bound_bps: None,
            cut_us: None,
        }
    }

    /// A packet arrived. `was_lost`: it had been counted as lost.
    pub(super) fn on_arrived(&mut self, was_lost: bool) {
        self.arrived += 1;
        self.lost = self.lost.saturating_sub(u32::from(was_lost));
    }

    /// A packet was lost.
    pub(super) fn on_lost(&mut self) {
        self.lost += 1;
    }

    /// Forgets the observation under way: its losses were an outage, not congestion.
    pub(super) fn forgive(&mut self, now_us: u64) {
        self.began_us = now_us;
        self.arrived = 0;
        self.lost = 0;
    }

    /// A measured rate was carried: a lower bound is lifted to it.
    pub(super) fn on_measured(&mut self, rate_bps: f64) {
        self.bound_bps = self.bound_bps.map(|bound| bound.max(rate_bps));
    }

    /// Closes the observation if it is long enough. `acked_bps` is what arrives, `delay_bps` the
    /// delay-based rate. Says whether the bound was cut.
    pub(super) fn update(
        &mut self,
        now_us: u64,
        acked_bps: Option<f64>,
        delay_bps: f64,
        rtt_us: u64,
    ) -> bool {
        let length_us = now_us.saturating_sub(self.began_us);
        let packets = self.arrived + self.lost;
        let is_enough = packets >= OBSERVATION_PACKETS || length_us >= MAX_OBSERVATION_US;
        if length_us < OBSERVATION_US || packets == 0 || !is_enough {
            return false;
        }
        let newest = f64::from(self.lost) / f64::from(packets);
        let spans = length_us.min(MAX_OBSERVATION_US) as f64 / OBSERVATION_US as f64;
        let sample = (f64::from(packets) / f64::from(OBSERVATION_PACKETS)).min(1.0);
        self.loss += sample * (1.0 - (1.0 - NEWEST).powf(spans)) * (newest - self.loss);
        self.forgive(now_us);
        // What was lost a while ago has been answered: a cut is for what is lost still.
        if self.loss > HEAVY && newest > HEAVY {
            return self.cut(now_us, acked_bps, delay_bps, rtt_us);
        }
        let lift = if self.loss < LIGHT {
            LIFT_LIGHT
        } else {
            LIFT_BETWEEN
        };
        let length_s = length_us.min(1_000_000) as f64 / 1e6;
        self.bound_bps = self
            .bound_bps
            .map(|bound| bound * lift.powf(length_s))
            .filter(|bound| *bound < SLACK * delay_bps);
        false
    }

    /// The bound, in bit/s, if there is one.
    pub(super) fn bps(&self) -> Option<f64> {
        self.bound_bps
    }

    /// Something is lost, more than chance would have it.
    pub(super) fn is_felt(&self) -> bool {
        self.loss > LIGHT
    }

    /// Loss is heavy: sending more would be wrong.
    pub(super) fn is_heavy(&self) -> bool {
        self.loss > HEAVY
    }

    fn cut(&mut self, now_us: u64, acked_bps: Option<f64>, delay_bps: f64, rtt_us: u64) -> bool {
        let gap_us = CUT_GAP_US + rtt_us;
        if self
            .cut_us
            .is_some_and(|at| now_us.saturating_sub(at) < gap_us)
        {
            return false;
        }
        let rate = self.bound_bps.unwrap_or(delay_bps).min(delay_bps);
        let by_loss = rate * (1.0 - CUT * self.loss);
        let by_acked = acked_bps.map_or(by_loss, |acked| ACKED_SHARE * acked);
        let floor = FLOOR_BPS / (self.loss - FLOOR_OFFSET);
        let bound = by_loss.min(by_acked).max(floor).min(rate);
        self.bound_bps = Some(bound);
        if bound < rate {
            self.cut_us = Some(now_us);
        }
        bound < rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `seconds` of 100 packets each, `lost_in_100` of them lost.
    fn report(bound: &mut LossBound, seconds: std::ops::Range<u64>, lost_in_100: u64) {
        for n in seconds.start * 100..seconds.end * 100 {
            if n % 100 * 37 % 100 < lost_in_100 {
                bound.on_lost();
            } else {
                bound.on_arrived(false);
            }
            bound.update(n * 10_000, None, 2e6, 50_000);
        }
    }

    #[test]
    fn light_loss_puts_no_bound() {
        let mut bound = LossBound::new(0);
        report(&mut bound, 0..60, 2);
        assert_eq!(bound.bps(), None);
        report(&mut bound, 60..120, 8);
        assert_eq!(bound.bps(), None);
    }

    #[test]
    fn heavy_loss_that_lasts_cuts_to_what_it_warrants() {
        let mut bound = LossBound::new(0);
        report(&mut bound, 0..20, 30);
        let bps = bound.bps().expect("a bound");
        assert!((290e3..320e3).contains(&bps), "{bps}");
        report(&mut bound, 20..80, 0);
        assert_eq!(bound.bps(), None);
    }

    #[test]
    fn one_bad_moment_does_not_cut() {
        let mut bound = LossBound::new(0);
        report(&mut bound, 0..10, 1);
        for _ in 0..7 {
            bound.on_lost();
        }
        report(&mut bound, 10..20, 1);
        assert_eq!(bound.bps(), None);
    }
}
