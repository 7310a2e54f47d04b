//! Packets that left together, and how much later than its predecessor each such group arrived
//! (draft-ietf-rmcat-gcc-02 §5.1, §5.2).

/// Packets that leave within this time of a group's first are of one group, in microseconds.
/// draft §5.2 (burst_time); libwebrtc delay_based_bwe.cc, kSendTimeGroupLength.
const GROUP_US: i64 = 5_000;

/// Packets that arrive this close behind a group, and sooner than they left, were held up
/// together with it, in microseconds. libwebrtc inter_arrival_delta.cc, kBurstDeltaThreshold.
const BURST_GAP_US: i64 = 5_000;

/// Such a burst lasts at most this long, in microseconds. libwebrtc, kMaxBurstDuration.
const MAX_BURST_US: i64 = 100_000;

/// When arrival times run away from our own clock by more than this between two groups, the
/// viewer's clock has jumped, in microseconds. libwebrtc, kArrivalTimeOffsetThreshold.
const CLOCK_JUMP_US: i64 = 3_000_000;

/// Groups in a row that seem to arrive before their predecessor until the arrival clock is
/// believed to have been set back. libwebrtc, kReorderedResetThreshold.
const REORDERED_GROUPS: u8 = 3;

/// How two successive groups compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delta {
    /// Time between their departures, in microseconds.
    pub(super) send_us: i64,
    /// Time between their arrivals, in microseconds.
    pub(super) arrival_us: i64,
    /// When the later one had arrived, in microseconds of the viewer's clock.
    pub(super) at_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_send_us: i64,
    last_send_us: i64,
    first_arrival_us: i64,
    last_arrival_us: i64,
    /// When we were told of it, on our clock.
    told_us: i64,
}

/// Collects arrivals into groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u8,
}

impl Groups {
    /// Takes in one arrival. The comparison of the two groups before is returned with the first
    /// packet of a new one: only then are they complete.
    pub(super) fn add(&mut self, told_us: i64, send_us: i64, arrival_us: i64) -> Option<Delta> {
        let fresh = Group {
            first_send_us: send_us,
            last_send_us: send_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
            told_us,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(fresh);
            return None;
        };
        if send_us < current.first_send_us {
            return None;
        }
        if current.takes(send_us, arrival_us) {
            current.last_send_us = current.last_send_us.max(send_us);
            current.last_arrival_us = current.last_arrival_us.max(arrival_us);
            current.told_us = told_us;
            return None;
        }
        let complete = *current;
        let previous = self.previous.replace(complete);
        self.current = Some(fresh);
        self.compare(previous?, complete)
    }

    fn compare(&mut self, previous: Group, complete: Group) -> Option<Delta> {
        let arrival_us = complete.last_arrival_us - previous.last_arrival_us;
        let told_us = complete.told_us - previous.told_us;
        if arrival_us - told_us >= CLOCK_JUMP_US {
            *self = Self::default();
            return None;
        }
        if arrival_us < 0 {
            self.reordered += 1;
            if self.reordered >= REORDERED_GROUPS {
                *self = Self::default();
            }
            return None;
        }
        self.reordered = 0;
        Some(Delta {
            send_us: complete.last_send_us - previous.last_send_us,
            arrival_us,
            at_us: complete.last_arrival_us,
        })
    }
}

impl Group {
    fn takes(&self, send_us: i64, arrival_us: i64) -> bool {
        let sent_later = send_us - self.last_send_us;
        if sent_later == 0 {
            return true;
        }
        let arrived_later = arrival_us - self.last_arrival_us;
        let burst = arrived_later < sent_later
            && arrived_later <= BURST_GAP_US
            && arrival_us - self.first_arrival_us < MAX_BURST_US;
        burst || send_us - self.first_send_us <= GROUP_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_compared_when_both_are_complete() {
        let mut groups = Groups::default();
        assert_eq!(groups.add(0, 0, 10_000), None);
        assert_eq!(groups.add(0, 4_000, 11_000), None);
        assert_eq!(groups.add(0, 20_000, 31_000), None);
        let delta = groups.add(0, 40_000, 53_000);
        assert_eq!(
            delta,
            Some(Delta {
                send_us: 16_000,
                arrival_us: 20_000,
                at_us: 31_000
            })
        );
    }

    #[test]
    fn packets_released_together_by_the_network_are_one_group() {
        let mut groups = Groups::default();
        assert_eq!(groups.add(0, 0, 10_000), None);
        for n in 1..6 {
            assert_eq!(groups.add(0, n * 20_000, 110_000 + n * 100), None);
        }
        let delta = groups
            .add(0, 200_000, 210_000)
            .expect("two complete groups");
        assert_eq!(delta.send_us, 100_000);
        assert_eq!(delta.arrival_us, 100_500);
    }

    #[test]
    fn a_clock_that_jumps_starts_over() {
        let mut groups = Groups::default();
        assert_eq!(groups.add(0, 0, 0), None);
        assert_eq!(groups.add(20_000, 20_000, 20_000), None);
        assert!(groups.add(40_000, 40_000, 9_000_000).is_some());
        assert_eq!(groups.add(60_000, 60_000, 9_020_000), None);
        assert!(groups.current.is_none());
    }
}
