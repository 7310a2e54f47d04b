//! When to probe, and how fast: a short cluster of packets above the rate shows whether the
//! path carries more (libwebrtc probe_controller.cc). Only for a viewer that wants more.

use std::num::NonZeroU16;

use str0m::bwe::Bitrate;

/// The first two clusters, as multiples of the starting rate.
/// libwebrtc first_exponential_probe_scale and second_exponential_probe_scale.
const FIRST_SCALES: [f64; 2] = [3.0, 6.0];

/// Any later cluster, as a multiple of the rate.
/// libwebrtc further_exponential_probe_scale and alr_probe_scale.
const SCALE: f64 = 2.0;

/// A cluster that finds at least this share of its own rate is followed by a faster one.
/// libwebrtc further_probe_threshold.
const FURTHER: f64 = 0.7;

/// A cluster's result is waited for this long, in microseconds.
/// libwebrtc kMaxWaitingTimeForProbingResult.
const WAIT_US: u64 = 1_000_000;

/// Time between probes, in microseconds, at first; a probe that finds nothing makes it longer,
/// up to the second figure. libwebrtc alr_probing_interval is 5 s throughout.
const INTERVAL_US: (u64, u64) = (5_000_000, 10_000_000);
const INTERVAL_GROWTH: f64 = 1.5;

/// After an outage the first probes follow each other sooner, in microseconds.
const RECOVERY_INTERVAL_US: u64 = 700_000;

/// After a cut the queue drains and the path is left alone this long, in microseconds.
/// libwebrtc kBitrateDropTimeout lets a probe follow a drop within 5 s.
const AFTER_CUT_US: u64 = 4_000_000;

/// A cut this soon after a probe was carried disproves it, in microseconds: a shaper's bucket lets
/// a cluster through that its path does not sustain. Each time in a row the next probe is put off
/// for twice as long as before, up to so many times.
const DISPROVED_US: u64 = 5_000_000;
const MAX_DOUBTS: u32 = 3;

/// When a probe is due on a congested path it is put off this long, in microseconds.
const PUT_OFF_US: u64 = 1_000_000;

/// A cluster lasts this long, in microseconds: eight ticks of the pacer. libwebrtc has 15 ms
/// (100 ms for the first); a doubled rate then leaves 40 ms of queue on a path that was full.
const CLUSTER_US: u64 = 40_000;

/// A proof lasts this long, in microseconds, unless it makes a queue grow: the buckets of shapers
/// (16 KB are common) are empty by then. Each time it was wrong the next lasts twice as long.
const PROOF_US: u64 = 600_000;

const MAX_PROOF_DOUBLINGS: u32 = 2;

/// And goes this much above the rate; after one that made a queue grow, this much: what lies
/// between may well be carried. That one lasts twice as long: it empties a bucket more slowly.
const PROOF_SCALES: (f64, f64) = (2.0, 1.5);

/// What is found must be this many times the rate to need one.
const LEAP: f64 = 1.1;

/// And has at least this many packets. libwebrtc min_probe_packets_sent.
const CLUSTER_PACKETS: u8 = 5;

/// Probing begins again at once when this many times what was found is wanted.
const WANTED_ANEW: f64 = 1.2;

/// Probing stops this far above what is wanted: results come out a little low.
const HEADROOM: f64 = 1.2;

/// Names a probe cluster of one viewer; used again after 65,535 others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(NonZeroU16);

impl ClusterId {
    /// The first cluster's name.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// The next cluster's name.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}

/// A cluster to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeCluster {
    /// What its packets must be recorded under.
    pub id: ClusterId,
    /// How fast to send: media first, padding for the rest.
    pub rate: Bitrate,
    /// It is over when this many bytes have left,
    pub bytes: u32,
    /// and this many packets.
    pub packets: u8,
    /// It is long, and over as soon as a queue grows.
    pub proves: bool,
}

/// What decides about probing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// The estimator's clock.
    pub(super) now_us: u64,
    /// The rate as estimated, in bit/s.
    pub(super) rate_bps: f64,
    /// What the viewer could use, in bit/s.
    pub(super) wanted_bps: f64,
    /// The queue is filling, or loss is heavy.
    pub(super) congested: bool,
    /// What is sent follows the rate up to a capacity that was found by over-using it: probes
    /// would only disturb those who share it.
    pub(super) settled: bool,
}

impl Situation {
    fn is_short(&self) -> bool {
        self.rate_bps < self.wanted_bps
    }

    fn wants_more(&self) -> bool {
        self.is_short() && !self.settled
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Nothing is under way; the next probe is not sent before this time.
    Resting { until_us: u64 },
    /// A result is awaited until this time, for the named cluster of this rate (bit/s).
    Waiting {
        until_us: u64,
        last: ClusterId,
        rate_bps: f64,
        proves: bool,
    },
}

/// Decides when to probe.
#[derive(Debug)]
pub(super) struct Prober {
    phase: Phase,
    interval_us: u64,
    /// What was wanted when probing found all of it; infinite after it found less.
    found_bps: f64,
    /// When a probe was last carried, until that is proved or disproved.
    carried_us: Option<u64>,
    /// Probes in a row that were disproved.
    doubts: u32,
    /// The two first clusters have been asked for.
    begun: bool,
    /// The path was seen to carry less than is wanted: what a short cluster finds there may be a
    /// shaper's bucket, and is believed when a longer one has proved it.
    resisted: bool,
    /// The last proof went too high.
    timid: bool,
    next_id: ClusterId,
    /// Clusters to be polled, in order.
    queue: [Option<ProbeCluster>; 2],
}

impl Prober {
    /// A prober that may begin at once.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Resting { until_us: 0 },
            interval_us: INTERVAL_US.0,
            found_bps: f64::INFINITY,
            carried_us: None,
            doubts: 0,
            begun: false,
            resisted: false,
            timid: false,
            next_id: ClusterId::FIRST,
            queue: [None; 2],
        }
    }

    /// Does what is due.
    pub(super) fn on_timeout(&mut self, now: Situation) {
        match self.phase {
            Phase::Waiting { until_us, .. } if now.now_us >= until_us => self.rest(now, false),
            Phase::Resting { until_us }
                if now.wants_more() && (now.now_us >= until_us || self.is_wanted_anew(now)) =>
            {
                if now.congested {
                    let until_us = now.now_us + PUT_OFF_US;
                    self.found_bps = f64::INFINITY;
                    self.phase = Phase::Resting { until_us };
                } else if self.begun {
                    if self.carried_us.take().is_some() {
                        self.doubts = 0;
                    }
                    self.launch(now, &[SCALE * now.rate_bps], false);
                } else {
                    self.begun = true;
                    self.launch(now, &FIRST_SCALES.map(|scale| scale * now.rate_bps), false);
                }
            }
            Phase::Waiting { .. } | Phase::Resting { .. } => {}
        }
    }

    /// A cluster found this. Whether it is to be proved before it is believed: the proof begins,
    /// unless one has. More of a cluster may be reported while its proof is under way, or after it.
    pub(super) fn wants_proof(&mut self, now: Situation, id: ClusterId, found_bps: f64) -> bool {
        if !self.resisted || found_bps < LEAP * now.rate_bps {
            return false;
        }
        let is_last = matches!(self.phase, Phase::Waiting { last, .. } if last == id);
        if is_last && self.is_proving() {
            return false;
        }
        if is_last {
            let (bold, timid) = PROOF_SCALES;
            let scale = if self.timid { timid } else { bold };
            self.launch(now, &[found_bps.min(scale * now.rate_bps)], true);
        }
        true
    }

    /// What arrives is a proof that is not over: it says nothing yet.
    pub(super) fn is_proving(&self) -> bool {
        matches!(self.phase, Phase::Waiting { proves: true, .. })
    }

    /// A proof made a queue grow: the path carries no more than the rate.
    pub(super) fn on_refuted(&mut self, now: Situation, id: ClusterId) {
        if matches!(self.phase, Phase::Waiting { last, .. } if last == id) {
            self.timid = !self.timid;
            self.rest(now, false);
        }
    }

    /// A cluster was measured. `now.rate_bps` already counts the result in.
    pub(super) fn on_result(&mut self, now: Situation, id: ClusterId, found_bps: f64) {
        let Phase::Waiting { last, rate_bps, .. } = self.phase else {
            return;
        };
        if id != last {
            return;
        }
        let carried = found_bps > FURTHER * rate_bps;
        if carried {
            self.carried_us = Some(now.now_us);
        }
        let faster_bps = SCALE * found_bps;
        // Where a bolder proof went too high a faster probe would so, on top of what is to begin.
        let is_edge = std::mem::take(&mut self.timid) && self.resisted;
        if carried && !is_edge && now.wants_more() && now.ceiling_bps() > rate_bps {
            self.interval_us = INTERVAL_US.0;
            self.launch(now, &[faster_bps], false);
        } else {
            self.rest(now, carried);
        }
    }

    /// The rate was cut.
    pub(super) fn on_cut(&mut self, now_us: u64) {
        self.queue = [None; 2];
        let lasted_us = self.carried_us.take().map(|at| now_us.saturating_sub(at));
        let earliest_us = if lasted_us.is_some_and(|us| us < DISPROVED_US) {
            self.doubts = (self.doubts + 1).min(MAX_DOUBTS);
            now_us + (INTERVAL_US.0 << self.doubts)
        } else {
            now_us + AFTER_CUT_US
        };
        let until_us = match self.phase {
            Phase::Resting { until_us } => until_us.max(earliest_us),
            Phase::Waiting { .. } => earliest_us,
        };
        self.found_bps = f64::INFINITY;
        self.resisted = true;
        self.phase = Phase::Resting { until_us };
    }

    /// The path is back after an outage: asks it whether it still carries what it did.
    pub(super) fn on_recovery(&mut self, now: Situation, before_bps: f64) {
        self.queue = [None; 2];
        self.interval_us = RECOVERY_INTERVAL_US;
        self.launch(now, &[before_bps], false);
    }

    /// The next cluster to send.
    pub(super) fn poll(&mut self) -> Option<ProbeCluster> {
        let first = self.queue[0].take()?;
        self.queue.swap(0, 1);
        Some(first)
    }

    /// Probing has begun, and found no more than the rate.
    pub(super) fn has_given_up(&self, now: Situation) -> bool {
        let rests = matches!(self.phase, Phase::Resting { .. });
        self.begun && rests && !self.is_wanted_anew(now)
    }

    /// Much more is wanted than when probing found all that was.
    fn is_wanted_anew(&self, now: Situation) -> bool {
        now.wants_more() && now.wanted_bps > WANTED_ANEW * self.found_bps
    }

    /// When [`Prober::on_timeout`] is due next; `None` when nothing is under way or wanted.
    pub(super) fn due_us(&self, now: Situation) -> Option<u64> {
        match self.phase {
            Phase::Waiting { until_us, .. } => Some(until_us),
            Phase::Resting { .. } if self.is_wanted_anew(now) => Some(0),
            Phase::Resting { until_us } => now.wants_more().then_some(until_us),
        }
    }

    fn rest(&mut self, now: Situation, carried: bool) {
        self.interval_us = if carried {
            INTERVAL_US.0
        } else {
            let longer_us = (self.interval_us as f64 * INTERVAL_GROWTH) as u64;
            longer_us.min(INTERVAL_US.1)
        };
        self.found_bps = if carried && !now.is_short() {
            now.wanted_bps
        } else {
            f64::INFINITY
        };
        self.resisted = now.is_short();
        let until_us = now.now_us + self.interval_us;
        self.phase = Phase::Resting { until_us };
    }

    /// Queues clusters of these rates, none above the ceiling, and waits for the last.
    fn launch(&mut self, now: Situation, rates_bps: &[f64], proves: bool) {
        let length_us = if proves {
            PROOF_US << (self.doubts + u32::from(self.timid)).min(MAX_PROOF_DOUBLINGS)
        } else {
            CLUSTER_US
        };
        let ceiling_bps = now.ceiling_bps();
        for (place, rate_bps) in self.queue.iter_mut().zip(rates_bps) {
            let rate_bps = rate_bps.min(ceiling_bps);
            let bytes = rate_bps / 8.0 * length_us as f64 / 1e6;
            *place = Some(ProbeCluster {
                id: self.next_id,
                rate: Bitrate::from(rate_bps),
                bytes: bytes as u32,
                packets: CLUSTER_PACKETS,
                proves,
            });
            self.phase = Phase::Waiting {
                until_us: now.now_us + length_us + WAIT_US,
                last: self.next_id,
                rate_bps,
                proves,
            };
            self.next_id = self.next_id.next();
            if rate_bps >= ceiling_bps {
                break;
            }
        }
    }
}

impl Situation {
    fn ceiling_bps(&self) -> f64 {
        HEADROOM * self.wanted_bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(now_us: u64, rate_bps: f64, wanted_bps: f64) -> Situation {
        Situation {
            now_us,
            rate_bps,
            wanted_bps,
            congested: false,
            settled: false,
        }
    }

    fn rates(prober: &mut Prober) -> Vec<u64> {
        std::iter::from_fn(|| prober.poll())
            .map(|cluster| cluster.rate.as_u64() / 1000)
            .collect()
    }

    #[test]
    fn probing_begins_with_two_clusters_and_goes_on_while_they_are_carried() {
        let mut prober = Prober::new();
        prober.on_timeout(situation(0, 3e5, 5e6));
        assert_eq!(rates(&mut prober), [900, 1800]);
        let last = ClusterId::FIRST.next();
        prober.on_result(situation(1, 9e5, 5e6), ClusterId::FIRST, 9e5);
        assert_eq!(rates(&mut prober), [0; 0]);
        prober.on_result(situation(2, 1.8e6, 5e6), last, 1.8e6);
        assert_eq!(rates(&mut prober), [3600]);
        prober.on_result(situation(3, 2e6, 5e6), last.next(), 2e6);
        assert_eq!(rates(&mut prober), [0; 0]);
        assert_eq!(prober.due_us(situation(3, 2e6, 5e6)), Some(3 + 7_500_000));
    }

    #[test]
    fn a_probe_that_is_disproved_each_time_is_repeated_ever_later() {
        let mut prober = Prober::new();
        let mut now_us = 0;
        let mut pauses = Vec::new();
        for _ in 0..5 {
            prober.on_timeout(situation(now_us, 3e5, 5e5));
            while let Some(cluster) = prober.poll() {
                let carried = situation(now_us + 1, 6e5, 5e5);
                prober.on_result(carried, cluster.id, cluster.rate.as_f64());
            }
            prober.on_cut(now_us + 1_000_000);
            let due_us = prober.due_us(situation(now_us, 3e5, 5e5)).unwrap();
            pauses.push((due_us - now_us) / 1_000_000);
            now_us = due_us;
        }
        assert_eq!(pauses, [11, 21, 41, 41, 41]);
    }

    #[test]
    fn nobody_is_probed_who_wants_no_more() {
        let mut prober = Prober::new();
        prober.on_timeout(situation(0, 3e5, 3e5));
        assert_eq!(prober.poll(), None);
        assert_eq!(prober.due_us(situation(0, 3e5, 3e5)), None);
        prober.on_timeout(situation(0, 3e5, 3.1e5));
        assert_eq!(rates(&mut prober), [372]);
    }

    #[test]
    fn who_wants_more_than_was_found_is_probed_at_once() {
        let mut prober = Prober::new();
        prober.on_timeout(situation(0, 3e5, 1e6));
        prober.on_result(situation(1, 1.2e6, 1e6), ClusterId::FIRST.next(), 1.2e6);
        assert_eq!(rates(&mut prober), [900, 1200]);
        assert_eq!(prober.due_us(situation(2, 1.2e6, 1e6)), None);
        let more = situation(2, 1.2e6, 3e6);
        assert!(!prober.has_given_up(more));
        assert_eq!(prober.due_us(more), Some(0));
        prober.on_timeout(more);
        assert_eq!(rates(&mut prober), [2400]);
        let last = ClusterId::FIRST.next().next();
        prober.on_result(situation(3, 1.5e6, 3e6), last, 1.5e6);
        assert!(prober.has_given_up(situation(4, 1.5e6, 3e6)));
    }

    #[test]
    fn a_congested_path_is_left_alone() {
        let mut prober = Prober::new();
        let mut now = situation(0, 3e5, 5e6);
        now.congested = true;
        prober.on_timeout(now);
        assert_eq!(prober.poll(), None);
        assert_eq!(prober.due_us(now), Some(PUT_OFF_US));
        prober.on_cut(PUT_OFF_US);
        assert_eq!(prober.due_us(now), Some(PUT_OFF_US + AFTER_CUT_US));
    }
}
