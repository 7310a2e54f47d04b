//! What transport-wide feedback says, decoded
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

/// A transport-wide sequence number as it is on the wire: one per packet to a viewer, wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TwccSeq(pub u16);

/// What became of one packet. Nothing in it is trusted: any value is legal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Which packet.
    pub seq: TwccSeq,
    /// When it arrived, in microseconds of the viewer's clock: the message's reference time plus
    /// the deltas up to this packet, wrapping with the reference time or not. `None` when it did
    /// not arrive.
    pub at_us: Option<i64>,
}

/// The reference time wraps after this long, in microseconds: 24 bits of 64 ms (§3.1).
const SPAN_US: i64 = (1 << 24) * 64_000;

/// No honest clock gets this far, in microseconds; a lying one stands still there, so that any
/// two times can be subtracted.
const LIMIT_US: i64 = i64::MAX / 4;

/// Unwraps arrival times, so that those of different messages can be subtracted.
#[derive(Debug, Default)]
pub(super) struct ArrivalClock {
    /// The latest time as it came, and as it was understood.
    latest_us: Option<(i64, i64)>,
}

impl ArrivalClock {
    /// A time from an origin that stays the same. Of the possible readings it is the one nearest
    /// to the time before.
    pub(super) fn unwrap(&mut self, wire_us: i64) -> i64 {
        let understood_us = match self.latest_us {
            None => wire_us.rem_euclid(SPAN_US),
            Some((wire_before_us, before_us)) => {
                let step_us = nearest(wire_us.wrapping_sub(wire_before_us));
                (before_us + step_us).clamp(-LIMIT_US, LIMIT_US)
            }
        };
        self.latest_us = Some((wire_us, understood_us));
        understood_us
    }
}

/// The shortest way forward or back that leads to the same time.
fn nearest(step_us: i64) -> i64 {
    if (-SPAN_US / 2..SPAN_US / 2).contains(&step_us) {
        return step_us;
    }
    let ahead_us = step_us.rem_euclid(SPAN_US);
    if ahead_us < SPAN_US / 2 {
        ahead_us
    } else {
        ahead_us - SPAN_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_times_go_on_across_the_wrap() {
        let mut clock = ArrivalClock::default();
        let before = clock.unwrap(SPAN_US - 64_000);
        assert_eq!(clock.unwrap(1_000) - before, 65_000);
        assert_eq!(clock.unwrap(SPAN_US - 2_000) - before, 62_000);
        assert_eq!(clock.unwrap(SPAN_US + 5_000) - before, 69_000);
    }

    #[test]
    fn no_time_is_too_strange() {
        let mut clock = ArrivalClock::default();
        let mut before = clock.unwrap(i64::MIN);
        for wire_us in [i64::MAX, 0, i64::MIN, -1, i64::MAX, 7] {
            let now = clock.unwrap(wire_us);
            assert!((now - before).abs() <= SPAN_US / 2);
            before = now;
        }
    }
}
