//! What to do while the viewer's feedback stays away although packets go out
//! (draft-ietf-rmcat-gcc-02 is silent on it; RFC 8083 §4.3 asks for a media timeout).

/// Transport-wide feedback is missed this long after the first unanswered packet, in
/// microseconds. Browsers send it every 50 to 250 ms; libwebrtc starts backing off when a round
/// trip seems to take 3 s.
pub(super) const FEEDBACK_MISSED_US: u64 = 1_000_000;

/// Receiver reports are, in microseconds: RFC 3550 §6.2 has them every 5 s, give or take half.
pub(super) const REPORT_MISSED_US: u64 = 8_000_000;

/// From then on the rate is cut this often, in microseconds, and to this share.
/// libwebrtc send_side_bandwidth_estimation.cc, RttBasedBackoff: 0.8 every second; halving
/// about every second follows RFC 8083's haste.
const CUT_US: u64 = 500_000;
const CUT: f64 = 0.7;

/// The rate of a viewer of whom nothing is heard, in bit/s: audio and the lowest layer.
pub const UNHEARD_BPS: f64 = 150_000.0;

/// Watches for feedback that does not come.
#[derive(Debug)]
pub(super) struct Silence {
    /// How long after the first unanswered packet reports are missed.
    missed_us: u64,
    /// When the first packet left that nothing was heard after.
    unanswered_us: Option<u64>,
    /// What may be sent while the silence lasts, in bit/s, and when it was last cut.
    cap: Option<(f64, u64)>,
    /// The rate when the silence was noticed, in bit/s.
    before_bps: f64,
}

/// A silence that ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ended {
    /// The rate before it, in bit/s.
    pub(super) before_bps: f64,
    /// The rate it was cut to, in bit/s.
    pub(super) cap_bps: f64,
}

impl Silence {
    /// Nothing sent, nothing missed.
    pub(super) fn new(missed_us: u64) -> Self {
        Self {
            missed_us,
            unanswered_us: None,
            cap: None,
            before_bps: 0.0,
        }
    }

    /// A packet left.
    pub(super) fn on_sent(&mut self, now_us: u64) {
        self.unanswered_us.get_or_insert(now_us);
    }

    /// Something was heard; the next is missed after `missed_us`. Says so if this had been.
    pub(super) fn on_heard(&mut self, now_us: u64, rate_bps: f64, missed_us: u64) -> Option<Ended> {
        self.on_timeout(now_us, rate_bps);
        self.missed_us = missed_us;
        self.unanswered_us = None;
        let (cap_bps, _) = self.cap.take()?;
        Some(Ended {
            before_bps: self.before_bps,
            cap_bps,
        })
    }

    /// Cuts what is due. `rate_bps` is the rate that would be sent.
    pub(super) fn on_timeout(&mut self, now_us: u64, rate_bps: f64) {
        let Some(mut due_us) = self.due_us() else {
            return;
        };
        while now_us >= due_us {
            let from_bps = match self.cap {
                Some((cap_bps, _)) => cap_bps,
                None => {
                    self.before_bps = rate_bps;
                    rate_bps
                }
            };
            let cut_bps = (from_bps * CUT).max(UNHEARD_BPS).min(from_bps);
            self.cap = Some((cut_bps, due_us));
            if cut_bps <= UNHEARD_BPS {
                return;
            }
            due_us += CUT_US;
        }
    }

    /// What may be sent at most, in bit/s.
    pub(super) fn cap_bps(&self) -> Option<f64> {
        self.cap.map(|(cap_bps, _)| cap_bps)
    }

    /// When the next cut is due.
    pub(super) fn due_us(&self) -> Option<u64> {
        let since_us = self.unanswered_us?;
        match self.cap {
            None => Some(since_us + self.missed_us),
            Some((cap_bps, at_us)) => (cap_bps > UNHEARD_BPS).then_some(at_us + CUT_US),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_never_heard_of_falls_to_the_floor_and_is_left_alone() {
        let mut silence = Silence::new(FEEDBACK_MISSED_US);
        silence.on_sent(0);
        silence.on_timeout(999_999, 1e6);
        assert_eq!(silence.cap_bps(), None);
        silence.on_timeout(1_000_000, 1e6);
        assert_eq!(silence.cap_bps(), Some(7e5));
        silence.on_timeout(60_000_000, 1e6);
        assert_eq!(silence.cap_bps(), Some(UNHEARD_BPS));
        assert_eq!(silence.due_us(), None);
    }

    #[test]
    fn a_silence_ends_with_the_rate_it_began_with() {
        let mut silence = Silence::new(FEEDBACK_MISSED_US);
        silence.on_sent(0);
        silence.on_timeout(1_100_000, 1e6);
        let ended = silence
            .on_heard(1_200_000, 1e6, 1_000_000)
            .expect("it was missed");
        assert_eq!(ended.before_bps, 1e6);
        assert_eq!(ended.cap_bps, 7e5);
        assert_eq!(silence.cap_bps(), None);
        assert_eq!(silence.due_us(), None);
    }

    #[test]
    fn nobody_is_missed_when_nothing_is_sent() {
        let mut silence = Silence::new(FEEDBACK_MISSED_US);
        silence.on_timeout(60_000_000, 1e6);
        assert_eq!(silence.due_us(), None);
        assert_eq!(silence.on_heard(60_000_000, 1e6, 1_000_000), None);
    }
}
