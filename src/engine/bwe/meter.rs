//! What a probe cluster found: how fast it left, how fast it arrived
//! (libwebrtc probe_bitrate_estimator.cc).

use super::probe::{ClusterId, ProbeCluster};
use super::sent::Sent;

/// Clusters measured at once. A new one takes the oldest's place.
const CLUSTERS: usize = 4;

/// Share of a cluster's packets and bytes that must have arrived.
/// libwebrtc kMinReceivedProbesRatio and kMinReceivedBytesRatio.
const MIN_ARRIVED: f64 = 0.8;

/// Likewise of a proof: its end tells most.
const MIN_PROVED: f64 = 0.9;

/// A cluster that takes longer than this says nothing, in microseconds. libwebrtc
/// kMaxProbeInterval.
const MAX_INTERVAL_US: i64 = 1_000_000;

/// Nor does a proof that takes longer than this: twice as long as the longest.
const MAX_PROOF_US: i64 = 5_000_000;

/// Packets that seem to arrive this many times faster than they left were held up on the way.
/// libwebrtc kMaxValidRatio.
const MAX_SPEED_UP: f64 = 2.0;

/// A cluster that arrives slower than this share of its own rate filled the path.
/// libwebrtc kMinRatioForUnsaturatedLink.
const UNSATURATED: f64 = 0.9;

/// What is used of a path that was filled, so that the queue drains.
/// libwebrtc kTargetUtilizationFraction.
const UTILIZATION: f64 = 0.95;

/// A proof is over when its packets are later by this than its first ones were, in microseconds.
const PROOF_QUEUE_US: i64 = 50_000;

/// Packets that leave within this of each other are one burst, in microseconds: the pacer sends
/// once a tick, so a burst has no length and only the time between bursts is a rate.
const BURST_US: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Measured {
    id: ClusterId,
    wanted_bytes: u32,
    wanted_packets: u8,
    packets: u32,
    bytes: u32,
    /// The first burst that arrived: the rates are those of what came behind it.
    first_sent_us: u64,
    first_arrival_us: i64,
    first_bytes: u32,
    last_sent_us: u64,
    last_arrival_us: i64,
    /// It is over as soon as a queue grows.
    proves: bool,
    /// One grew.
    refuted: bool,
    /// Something arrived since the last result.
    fresh: bool,
}

/// What a cluster found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found {
    /// That the path carries this, in bit/s.
    Bps(f64),
    /// That a queue grows at its rate: it proves nothing.
    Queue,
}

/// Measures clusters.
#[derive(Debug, Default)]
pub(super) struct Meter {
    clusters: [Option<Measured>; CLUSTERS],
    /// Where the next cluster goes.
    next: usize,
}

impl Meter {
    /// A cluster is going to be sent.
    pub(super) fn expect(&mut self, cluster: &ProbeCluster) {
        self.clusters[self.next] = Some(Measured {
            id: cluster.id,
            wanted_bytes: cluster.bytes,
            wanted_packets: cluster.packets,
            packets: 0,
            bytes: 0,
            first_sent_us: 0,
            first_arrival_us: 0,
            first_bytes: 0,
            last_sent_us: 0,
            last_arrival_us: 0,
            proves: cluster.proves,
            refuted: false,
            fresh: false,
        });
        self.next = (self.next + 1) % CLUSTERS;
    }

    /// A packet of a cluster arrived.
    pub(super) fn on_arrived(&mut self, id: ClusterId, sent: Sent, arrival_us: i64) {
        let mut clusters = self.clusters.iter_mut().flatten();
        if let Some(measured) = clusters.find(|measured| measured.id == id) {
            measured.add(sent, arrival_us);
        }
    }

    /// The latest cluster of which enough has arrived since the call before, and what it found.
    pub(super) fn take_result(&mut self) -> Option<(ClusterId, Found)> {
        let mut result = None;
        for step in 0..CLUSTERS {
            let place = (self.next + step) % CLUSTERS;
            let Some(measured) = &mut self.clusters[place] else {
                continue;
            };
            if std::mem::take(&mut measured.fresh)
                && let Some(found) = measured.found()
            {
                result = Some((measured.id, found));
            }
        }
        result
    }
}

impl Measured {
    fn add(&mut self, sent: Sent, arrival_us: i64) {
        let bytes = u32::from(sent.bytes);
        if self.packets == 0 {
            self.first_sent_us = sent.at_us;
            self.first_arrival_us = arrival_us;
            self.last_sent_us = sent.at_us;
            self.last_arrival_us = arrival_us;
        }
        if sent.at_us < self.first_sent_us {
            return;
        }
        self.fresh = true;
        self.packets += 1;
        self.bytes += bytes;
        if sent.at_us - self.first_sent_us < BURST_US {
            self.first_bytes += bytes;
            self.first_arrival_us = self.first_arrival_us.max(arrival_us);
        }
        self.last_sent_us = self.last_sent_us.max(sent.at_us);
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
        let sent_after_us = (sent.at_us - self.first_sent_us) as i64;
        let queue_us = arrival_us - self.first_arrival_us - sent_after_us;
        self.refuted |= self.proves && queue_us > PROOF_QUEUE_US;
    }

    fn found(&self) -> Option<Found> {
        if self.refuted {
            return Some(Found::Queue);
        }
        self.bps().map(Found::Bps)
    }

    fn bps(&self) -> Option<f64> {
        let least = if self.proves { MIN_PROVED } else { MIN_ARRIVED };
        let enough = f64::from(self.packets) >= least * f64::from(self.wanted_packets)
            && f64::from(self.bytes) >= least * f64::from(self.wanted_bytes);
        let sent_us = (self.last_sent_us - self.first_sent_us) as i64;
        let arrival_us = self.last_arrival_us - self.first_arrival_us;
        let longest_us = if self.proves {
            MAX_PROOF_US
        } else {
            MAX_INTERVAL_US
        };
        let plausible = |us: i64| us > 0 && us <= longest_us;
        if !enough || !plausible(sent_us) || !plausible(arrival_us) {
            return None;
        }
        let bits = f64::from(self.bytes - self.first_bytes) * 8e6;
        let (sent_bps, arrival_bps) = (bits / sent_us as f64, bits / arrival_us as f64);
        if arrival_bps > MAX_SPEED_UP * sent_bps {
            return None;
        }
        if arrival_bps < UNSATURATED * sent_bps {
            return Some(UTILIZATION * arrival_bps);
        }
        Some(arrival_bps.min(sent_bps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use str0m::bwe::Bitrate;

    /// Nine bursts of 1000 bytes, 5 ms apart: 1.6 Mbit/s. Each arrives `gap_us` after the other.
    fn measure(gap_us: i64, lost: u64, proves: bool) -> Option<Found> {
        let mut meter = Meter::default();
        let id = ClusterId::FIRST;
        meter.expect(&ProbeCluster {
            id,
            rate: Bitrate::kbps(1600),
            bytes: 8000,
            packets: 5,
            proves,
        });
        for n in lost..9 {
            for packet in 0..2 {
                let sent = Sent {
                    at_us: n * 5_000,
                    bytes: 500,
                    cluster: Some(id),
                };
                meter.on_arrived(id, sent, n as i64 * gap_us + packet * gap_us / 2);
            }
        }
        let result = meter.take_result().map(|(_, found)| found);
        assert_eq!(meter.take_result(), None);
        result
    }

    #[test]
    fn a_path_that_carries_the_cluster_is_worth_its_rate() {
        assert_eq!(measure(5_000, 0, false), Some(Found::Bps(1.6e6)));
        assert_eq!(measure(5_000, 0, true), Some(Found::Bps(1.6e6)));
    }

    #[test]
    fn a_path_that_it_filled_is_worth_a_little_less_than_what_arrived() {
        assert_eq!(measure(10_000, 0, false), Some(Found::Bps(0.95 * 8e5)));
    }

    #[test]
    fn a_cluster_that_mostly_vanished_or_came_in_a_rush_says_nothing() {
        assert_eq!(measure(5_000, 3, false), None);
        assert_eq!(measure(2_000, 0, false), None);
    }

    #[test]
    fn a_proof_whose_packets_queue_up_proves_nothing() {
        assert_eq!(measure(12_000, 0, true), Some(Found::Queue));
    }
}
