//! The delay-based rate: up while the path is free, down to below what arrives when it is
//! over-used (draft-ietf-rmcat-gcc-02 §5.5).

use super::overuse::Usage;

/// Share of the acknowledged rate kept at overuse. draft §5.5 (beta); libwebrtc
/// aimd_rate_control.cc, kDefaultBackoffFactor.
const BETA: f64 = 0.85;

/// Share kept when another flow keeps the queue: what is given up does not drain it.
const CONTESTED_BETA: f64 = 0.95;

/// And growth a second then: what is left to it, it takes.
const CONTESTED_GROWTH_PER_S: f64 = 1.15;

/// Taken off below that, in bit/s, to drain the queue sooner at low rates. libwebrtc.
const DECREASE_EXTRA_BPS: f64 = 5_000.0;

/// Growth a second while the capacity is unknown. draft §5.5 (eta); libwebrtc alpha 1.08.
const GROWTH_PER_S: f64 = 1.08;

/// Growth at least, in bit/s an update. libwebrtc MultiplicativeRateIncrease.
const MIN_GROWTH_BPS: f64 = 1_000.0;

/// The rate grows to at most this multiple of what arrives. draft §5.5 has 1.5; a viewer whose
/// layers come in steps would sit there, on a rate that nothing ever tested. Probes go further.
const MAX_OVER_ACKED: f64 = 1.2;

/// And this much more, in bit/s, so that low rates do not get stuck. libwebrtc.
const MAX_OVER_ACKED_BPS: f64 = 10_000.0;

/// Near the capacity the rate grows by half a packet a response time; these are the packet in
/// bits, the frames a second that say how a rate is cut into packets, the time the detector
/// takes on top of the round trip, and the least growth a second. libwebrtc
/// GetNearMaxIncreaseRateBpsPerSecond.
const PACKET_BITS: f64 = 9_600.0;
const FRAMES_PER_S: f64 = 30.0;
const DETECTION_S: f64 = 0.1;
const MIN_GROWTH_BPS_PER_S: f64 = 4_000.0;

/// A decrease follows another no sooner than a round trip, bounded to this, in microseconds.
/// libwebrtc TimeToReduceFurther.
const DECREASE_GAP_US: (u64, u64) = (10_000, 200_000);

/// Sooner only when less than this share of the rate arrives. libwebrtc TimeToReduceFurther.
const COLLAPSED: f64 = 0.5;

/// Weight of a sample in the capacity. libwebrtc link_capacity_estimator.cc.
const CAPACITY_WEIGHT: f64 = 0.05;

/// Range of the capacity's relative variance, in kbit/s. libwebrtc: 0.4 ~= 14 kbit/s and
/// 2.5 ~= 35 kbit/s of deviation at 500 kbit/s.
const CAPACITY_VARIANCE: (f64, f64) = (0.4, 2.5);

/// Standard deviations within which a rate is near the capacity. draft §5.5 (3).
const CAPACITY_DEVIATIONS: f64 = 3.0;

/// What the path carried when it was last over-used.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    kbps: f64,
    /// Variance divided by the capacity.
    variance: f64,
}

impl Capacity {
    fn after(capacity: Option<Self>, acked_bps: f64) -> Self {
        let sample = acked_bps / 1e3;
        let Some(Self { kbps, variance }) = capacity else {
            return Self {
                kbps: sample,
                variance: CAPACITY_VARIANCE.0,
            };
        };
        let kbps = (1.0 - CAPACITY_WEIGHT) * kbps + CAPACITY_WEIGHT * sample;
        let error = kbps - sample;
        let relative = error * error / kbps.max(1.0);
        let variance = (1.0 - CAPACITY_WEIGHT) * variance + CAPACITY_WEIGHT * relative;
        Self {
            kbps,
            variance: variance.clamp(CAPACITY_VARIANCE.0, CAPACITY_VARIANCE.1),
        }
    }

    fn spread_bps(&self) -> f64 {
        CAPACITY_DEVIATIONS * (self.variance * self.kbps).sqrt() * 1e3
    }

    fn bps(&self) -> f64 {
        self.kbps * 1e3
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Hold,
    Increase,
}

/// The delay-based rate.
#[derive(Debug)]
pub(super) struct Aimd {
    rate_bps: f64,
    phase: Phase,
    capacity: Option<Capacity>,
    changed_us: u64,
}

/// What an update goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed {
    /// How the path is used.
    pub(super) usage: Usage,
    /// What arrives, in bit/s, if known.
    pub(super) acked_bps: Option<f64>,
    /// The round trip, in microseconds.
    pub(super) rtt_us: u64,
    /// The viewer is sent less than it could be: a higher rate would not be tested.
    pub(super) limited: bool,
    /// The queue is kept full by another flow.
    pub(super) contested: bool,
}

impl Aimd {
    /// Begins at a rate.
    pub(super) fn new(now_us: u64, rate_bps: f64) -> Self {
        Self {
            rate_bps,
            phase: Phase::Hold,
            capacity: None,
            changed_us: now_us,
        }
    }

    /// The rate, in bit/s.
    pub(super) fn bps(&self) -> f64 {
        self.rate_bps
    }

    /// The path was over-used about here: the rate feels its way up on its own.
    pub(super) fn is_near_capacity(&self) -> bool {
        self.capacity.is_some()
    }

    /// Takes a rate that was measured or is forced.
    pub(super) fn set(&mut self, now_us: u64, rate_bps: f64) {
        self.exceed(rate_bps);
        self.rate_bps = rate_bps;
        self.changed_us = now_us;
    }

    /// Goes on at a rate on a path of which nothing is known any more.
    pub(super) fn restart(&mut self, now_us: u64, rate_bps: f64) {
        *self = Self::new(now_us, rate_bps);
    }

    /// Takes in how the path fared in the latest feedback. Says whether the rate was cut.
    pub(super) fn update(&mut self, now_us: u64, observed: Observed) -> bool {
        match observed.usage {
            Usage::Over => return self.overused(now_us, observed),
            // The queue is draining: wait for it (draft §5.5).
            Usage::Under => self.phase = Phase::Hold,
            Usage::Normal if self.phase == Phase::Hold => {
                self.phase = Phase::Increase;
                self.changed_us = now_us;
            }
            Usage::Normal => self.increase(now_us, observed),
        }
        false
    }

    fn increase(&mut self, now_us: u64, observed: Observed) {
        let since_s = now_us.saturating_sub(self.changed_us).min(1_000_000) as f64 / 1e6;
        self.changed_us = now_us;
        let Some(acked_bps) = observed.acked_bps else {
            return;
        };
        self.exceed(acked_bps);
        // Over-use would leave this much of what arrives; without it the rate is no lower. It can
        // be, where what plays is not stopped on the word of an estimate alone.
        self.rate_bps = self.rate_bps.max(BETA * acked_bps);
        let limit = MAX_OVER_ACKED * acked_bps + MAX_OVER_ACKED_BPS;
        if observed.limited || self.rate_bps >= limit {
            return;
        }
        let by_factor = |per_s: f64| {
            let growth_bps = self.rate_bps * (per_s.powf(since_s) - 1.0);
            growth_bps.max(MIN_GROWTH_BPS)
        };
        let growth = match self.capacity {
            _ if observed.contested => by_factor(CONTESTED_GROWTH_PER_S),
            Some(_) => self.near_capacity_growth(observed.rtt_us) * since_s,
            None => by_factor(GROWTH_PER_S),
        };
        self.rate_bps = (self.rate_bps + growth).min(limit);
    }

    /// So much is carried: a capacity that is clearly less is that of another time.
    fn exceed(&mut self, bps: f64) {
        let is_it = |capacity: &Capacity| bps <= capacity.bps() + capacity.spread_bps();
        self.capacity = self.capacity.filter(is_it);
    }

    fn overused(&mut self, now_us: u64, observed: Observed) -> bool {
        let gap_us = observed.rtt_us.clamp(DECREASE_GAP_US.0, DECREASE_GAP_US.1);
        let waited = now_us.saturating_sub(self.changed_us) >= gap_us || self.phase != Phase::Hold;
        let Some(acked_bps) = observed.acked_bps else {
            // Nothing measured yet: halve (libwebrtc delay_based_bwe.cc).
            if waited {
                self.rate_bps /= 2.0;
                self.phase = Phase::Hold;
                self.changed_us = now_us;
            }
            return waited;
        };
        if !waited && acked_bps >= COLLAPSED * self.rate_bps {
            return false;
        }
        let beta = if observed.contested {
            CONTESTED_BETA
        } else {
            BETA
        };
        let mut cut_bps = beta * acked_bps;
        if cut_bps > DECREASE_EXTRA_BPS {
            cut_bps -= DECREASE_EXTRA_BPS;
        }
        if cut_bps > self.rate_bps
            && let Some(capacity) = self.capacity
        {
            cut_bps = beta * capacity.bps();
        }
        let far_below = |capacity: &Capacity| acked_bps < capacity.bps() - capacity.spread_bps();
        let capacity = self.capacity.filter(|capacity| !far_below(capacity));
        self.capacity = Some(Capacity::after(capacity, acked_bps));
        let cut = cut_bps < self.rate_bps;
        self.rate_bps = self.rate_bps.min(cut_bps);
        self.phase = Phase::Hold;
        self.changed_us = now_us;
        cut
    }

    /// Growth a second near the capacity, in bit/s.
    fn near_capacity_growth(&self, rtt_us: u64) -> f64 {
        let frame_bits = self.rate_bps / FRAMES_PER_S;
        let packet_bits = frame_bits / (frame_bits / PACKET_BITS).ceil();
        let response_s = 2.0 * (rtt_us as f64 / 1e6 + DETECTION_S);
        (packet_bits / response_s).max(MIN_GROWTH_BPS_PER_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_rate_is_no_lower_than_over_use_would_leave_it() {
        let mut aimd = Aimd::new(0, 250_000.0);
        aimd.update(0, observed(Usage::Normal, 1e6));
        aimd.update(SECOND_US / 10, observed(Usage::Normal, 1e6));
        assert!(aimd.bps() >= BETA * 1e6, "{}", aimd.bps());
    }

    fn observed(usage: Usage, acked_bps: f64) -> Observed {
        Observed {
            usage,
            acked_bps: Some(acked_bps),
            rtt_us: 50_000,
            limited: false,
            contested: false,
        }
    }

    fn grow(aimd: &mut Aimd, seconds: std::ops::Range<u64>, acked_bps: f64) {
        for tick in seconds.start * 10..seconds.end * 10 {
            let at_us = tick * SECOND_US / 10;
            assert!(!aimd.update(at_us, observed(Usage::Normal, acked_bps)));
        }
    }

    #[test]
    fn a_free_path_gains_eight_per_cent_a_second() {
        let mut aimd = Aimd::new(0, 1e6);
        grow(&mut aimd, 0..2, 1e6);
        assert!((aimd.bps() / 1e6 - 1.16).abs() < 0.02, "{}", aimd.bps());
        grow(&mut aimd, 2..60, 1e6);
        assert_eq!(aimd.bps(), 1.21e6);
    }

    #[test]
    fn overuse_falls_below_what_arrives_and_then_feels_its_way_up() {
        let mut aimd = Aimd::new(0, 2e6);
        assert!(aimd.update(SECOND_US, observed(Usage::Over, 1e6)));
        assert_eq!(aimd.bps(), 845e3);
        let soon = SECOND_US + 20_000;
        assert!(!aimd.update(soon, observed(Usage::Over, 1e6)));
        grow(&mut aimd, 2..4, 1e6);
        assert!((860e3..920e3).contains(&aimd.bps()), "{}", aimd.bps());
    }

    #[test]
    fn a_rate_that_is_not_used_does_not_grow() {
        let mut aimd = Aimd::new(0, 1e6);
        for tick in 0..100 {
            let mut now = observed(Usage::Normal, 9e5);
            now.limited = true;
            aimd.update(tick * 100_000, now);
        }
        assert_eq!(aimd.bps(), 1e6);
    }
}
