//! Send-side congestion control: how much one viewer's path carries, from the feedback the
//! viewer sends (draft-ietf-rmcat-gcc-02 and what libwebrtc does today). A pure state machine.
//!
//! A packet meets, in order: [`pacer`] (may it leave), [`sent`] (remember it); and when the
//! viewer reports on it: [`twcc`], [`groups`] → [`trendline`] → [`overuse`] → [`aimd`] (delay),
//! [`queue`] (how long, and whose), [`acked`] (throughput), [`loss`], [`alr`] and [`probe`] →
//! [`meter`]. [`silence`] acts when reports stay away, [`fallback`] where they are of the older
//! kinds.

mod acked;
mod aimd;
mod alr;
mod delay;
mod fallback;
mod groups;
mod loss;
mod meter;
mod options;
mod overuse;
pub mod pacer;
mod probe;
mod queue;
mod sent;
mod silence;
#[cfg(test)]
mod sim;
mod trendline;
pub mod twcc;

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

pub use acked::Delivered;
pub use options::Options;
pub use probe::{ClusterId, ProbeCluster};
pub use silence::UNHEARD_BPS;

use acked::AckedRate;
use aimd::{Aimd, Observed};
use alr::Alr;
use delay::Delay;
use fallback::Fallback;
use loss::LossBound;
use meter::{Found, Meter};
use overuse::Usage;
use probe::{Prober, Situation};
use sent::{Sent, SentRing};
use silence::{FEEDBACK_MISSED_US, REPORT_MISSED_US, Silence};
use twcc::{Arrival, ArrivalClock, TwccSeq};

/// Delay is forgotten when no feedback came for this long, in microseconds. libwebrtc
/// delay_based_bwe.cc, kStreamTimeOut.
const STALE_US: u64 = 2_000_000;

/// The round trip until one is known, in microseconds. libwebrtc aimd_rate_control.cc, kDefaultRtt.
const DEFAULT_RTT_US: u64 = 200_000;

/// A probe that finds less takes the rate down to no less than this share of it, as overuse
/// would: one disturbed probe is no collapse. libwebrtc kProbeDropThroughputFraction.
const PROBE_KEEPS: f64 = 0.85;

/// Who is sent less than this share of the rate does not use it. An unused rate grows to 1.5 times
/// what arrives and no further.
const USED: f64 = 0.8;

/// After an outage the path is asked for this share of what it carried before. libwebrtc
/// probe_controller.cc, kProbeFractionAfterDrop.
const RECOVERY: f64 = 0.85;

/// What one viewer's path carries.
#[derive(Debug)]
pub struct Bwe {
    options: Options,
    /// Microseconds are counted from here.
    epoch: Instant,
    sent: SentRing,
    clock: ArrivalClock,
    delay: Delay,
    acked: AckedRate,
    alr: Alr,
    aimd: Aimd,
    loss: LossBound,
    /// Losses of packets sent before this are not counted: they were an outage.
    forgiven_us: u64,
    prober: Prober,
    meter: Meter,
    /// The cluster that is being sent is to end.
    refuted: bool,
    silence: Silence,
    fallback: Fallback,
    /// When transport-wide feedback last came.
    heard_us: Option<u64>,
    rtt_us: u64,
    wanted_bps: f64,
    /// The path was seen to carry less than is wanted.
    is_short: bool,
    /// Share of the rate that may be sent while a queue is drained.
    share: f64,
    /// A queue does not go away.
    stands: bool,
}

impl Bwe {
    /// An estimator of a path nothing has been sent on.
    #[must_use]
    pub fn new(now: Instant, options: Options) -> Self {
        let start_bps = options.start.as_f64();
        let missed_us = if options.transport_wide {
            FEEDBACK_MISSED_US
        } else {
            REPORT_MISSED_US
        };
        Self {
            options,
            epoch: now,
            sent: SentRing::new(),
            clock: ArrivalClock::default(),
            delay: Delay::new(),
            acked: AckedRate::new(),
            alr: Alr::default(),
            aimd: Aimd::new(0, start_bps),
            loss: LossBound::new(0),
            forgiven_us: 0,
            prober: Prober::new(),
            meter: Meter::default(),
            refuted: false,
            silence: Silence::new(missed_us),
            fallback: Fallback::new(0, start_bps),
            heard_us: None,
            rtt_us: DEFAULT_RTT_US,
            wanted_bps: 0.0,
            is_short: false,
            share: 1.0,
            stands: false,
        }
    }

    /// Asks for what the next packets are remembered in.
    pub(crate) fn prefetch(&self, next: TwccSeq) {
        self.sent.prefetch(next);
    }

    /// A packet left: `bytes` on the wire without IP and UDP headers, `cluster` if it was
    /// granted to a probe.
    pub fn on_sent(
        &mut self,
        now: Instant,
        seq: TwccSeq,
        bytes: usize,
        cluster: Option<ClusterId>,
    ) {
        let at_us = self.micros(now);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.silence.on_sent(at_us);
        if !self.uses_twcc() {
            self.fallback.on_sent(at_us, bytes);
        }
        if self.options.transport_wide {
            let sent = Sent {
                at_us,
                bytes,
                cluster,
            };
            self.sent.insert(seq, sent);
            self.alr.on_sent(at_us, bytes, self.aimd.bps());
        }
    }

    /// A packet left that transport-wide feedback will not speak of.
    pub fn on_sent_unnumbered(&mut self, now: Instant, bytes: usize) {
        let at_us = self.micros(now);
        if !self.options.transport_wide {
            self.silence.on_sent(at_us);
        }
        if !self.uses_twcc() {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            self.fallback.on_sent(at_us, bytes);
        }
    }

    /// Transport-wide feedback came: what one message says of each packet, in its order.
    pub fn on_feedback(&mut self, now: Instant, arrivals: impl IntoIterator<Item = Arrival>) {
        if !self.options.transport_wide {
            return;
        }
        let now_us = self.micros(now);
        self.on_heard(now_us, FEEDBACK_MISSED_US);
        if !self.is_fresh(now_us) {
            self.delay = Delay::new();
        }
        self.heard_us = Some(now_us);
        let newest_us = self.take_in(now_us, arrivals.into_iter());
        if let Some(sent_us) = newest_us {
            self.smooth_rtt(now_us.saturating_sub(sent_us));
        }
        self.decide(now_us);
    }

    /// A receiver report gave the round trip.
    pub fn on_rtt(&mut self, rtt: Duration) {
        self.smooth_rtt(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
    }

    /// A receiver report came: `lost` is its fraction lost, in 256ths (RFC 3550 §6.4.1).
    pub fn on_loss_report(&mut self, now: Instant, lost: u8) {
        let now_us = self.micros(now);
        if !self.uses_twcc() {
            self.on_heard(now_us, REPORT_MISSED_US);
            let lost = f64::from(lost) / 256.0;
            self.fallback.on_loss_report(now_us, lost, self.rtt_us);
            self.weigh(now_us);
        }
    }

    /// The viewer's own estimate came (REMB). Ignored while transport-wide feedback comes.
    pub fn on_remb(&mut self, now: Instant, estimate: Bitrate) {
        if !self.uses_twcc() {
            let now_us = self.micros(now);
            self.on_heard(now_us, REPORT_MISSED_US);
            self.fallback.on_remb(estimate.as_f64());
            self.weigh(now_us);
        }
    }

    /// Does what is due at `now`.
    pub fn on_timeout(&mut self, now: Instant) {
        let now_us = self.micros(now);
        self.silence.on_timeout(now_us, self.uncapped_bps());
        if self.options.transport_wide {
            self.prober.on_timeout(self.situation(now_us));
        }
        self.weigh(now_us);
    }

    /// What the viewer's allocation could use. More than [`Bwe::target`] makes it probe.
    pub fn set_wanted(&mut self, wanted: Bitrate) {
        self.wanted_bps = wanted.as_f64();
    }

    /// What the viewer reports to have received lately; `None` while it does not report.
    #[must_use]
    pub fn delivered(&self) -> Option<Delivered> {
        let is_heard = self.silence.cap_bps().is_none();
        let bps = self.acked.bps().filter(|_| is_heard)?;
        Some(Delivered {
            rate: Bitrate::from(bps),
            is_clear: !self.stands && !self.loss.is_felt(),
        })
    }

    /// Whether the path was seen to carry less than is wanted. While that is not known yet,
    /// [`Bwe::target`] only says what has been tried.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// The next probe cluster to give to the viewer's [`pacer::Pacer`].
    pub fn poll_probe(&mut self) -> Option<ProbeCluster> {
        let cluster = self.prober.poll()?;
        self.meter.expect(&cluster);
        Some(cluster)
    }

    /// Whether the cluster that is being sent is to end: it has shown what it can.
    pub fn poll_refuted(&mut self) -> bool {
        std::mem::take(&mut self.refuted)
    }

    /// How much may be sent to this viewer, all of it counted: audio, video, resends, padding.
    #[must_use]
    pub fn target(&self) -> Bitrate {
        let bps = self.uncapped_bps() * self.share;
        let bps = self.silence.cap_bps().map_or(bps, |cap| cap.min(bps));
        Bitrate::from(bps.clamp(self.options.min.as_f64(), self.options.max.as_f64()))
    }

    /// The round trip as far as known.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us)
    }

    /// When [`Bwe::on_timeout`] must be called next; `None` when nothing is sent and nobody
    /// wants more. May lie in the past: then it is due.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        let probe_us = if self.options.transport_wide {
            let due_us = self.prober.due_us(self.situation(0));
            due_us.or_else(|| self.due_when_stale_us())
        } else {
            None
        };
        let due_us = match (self.silence.due_us(), probe_us) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        due_us.map(|us| self.epoch + Duration::from_micros(us))
    }

    /// Takes in the reports on single packets. Returns when the newest that arrived was sent.
    fn take_in(&mut self, now_us: u64, arrivals: impl Iterator<Item = Arrival>) -> Option<u64> {
        let mut newest_us = None;
        for arrival in arrivals {
            if let Some(at_us) = arrival.at_us {
                if let Some(arrived) = self.sent.arrived(now_us, arrival.seq) {
                    let arrival_us = self.clock.unwrap(at_us);
                    self.loss.on_arrived(arrived.was_lost);
                    self.on_arrived(now_us, arrived.sent, arrival_us);
                    newest_us = newest_us.max(Some(arrived.sent.at_us));
                }
            } else if let Some(sent) = self.sent.lost(now_us, arrival.seq)
                && sent.at_us >= self.forgiven_us
            {
                self.loss.on_lost();
            }
        }
        newest_us
    }

    fn on_arrived(&mut self, now_us: u64, sent: Sent, arrival_us: i64) {
        self.acked.add(arrival_us, sent.bytes);
        match sent.cluster {
            // A cluster fills the queue on purpose: its delay is measured, not acted on.
            Some(id) => self.meter.on_arrived(id, sent, arrival_us),
            None => self.delay.on_arrived(now_us, sent, arrival_us),
        }
    }

    /// Turns what was taken in into a rate.
    fn decide(&mut self, now_us: u64) {
        let (usage, acked_bps) = if self.delay.queue.on_report() {
            (Usage::Over, self.acked.latest_bps())
        } else {
            (self.delay.detector.usage(), self.acked.bps())
        };
        let observed = Observed {
            usage,
            acked_bps,
            rtt_us: self.rtt_us,
            limited: self.alr.is_limited() || self.delay.queue.is_long(now_us),
            contested: self.delay.queue.is_contested(now_us),
        };
        let result = self.meter.take_result();
        if let Some((id, found)) = result.filter(|_| observed.usage != Usage::Over) {
            self.on_found(now_us, id, found);
        } else if observed.usage != Usage::Over && self.prober.is_proving() {
            // What arrives now is padding for the most part, and may be a shaper's bucket.
        } else if self.aimd.update(now_us, observed) {
            self.on_cut(now_us);
        }
        let (min_bps, max_bps) = (self.options.min.as_f64(), self.options.max.as_f64());
        let bounded_bps = self.aimd.bps().clamp(min_bps, max_bps);
        if bounded_bps != self.aimd.bps() {
            self.aimd.set(now_us, bounded_bps);
        }
        if self
            .loss
            .update(now_us, observed.acked_bps, self.aimd.bps(), self.rtt_us)
        {
            self.on_cut(now_us);
        }
        self.share = self.delay.queue.share(now_us);
        self.stands = self.delay.queue.stands(now_us);
        self.prober.on_timeout(self.situation(now_us));
        self.weigh(now_us);
    }

    /// Whether what is wanted is out of reach: a probe did not find it, reports tell of heavy
    /// loss or a lower estimate, or nothing is heard at all.
    fn weigh(&mut self, now_us: u64) {
        let lacks = self.target().as_f64() < self.reach_bps();
        let bounded = if self.uses_twcc() {
            self.prober.has_given_up(self.situation(now_us))
        } else {
            self.fallback.is_bounded()
        };
        self.is_short = lacks && (self.is_short || bounded || self.silence.cap_bps().is_some());
    }

    fn on_found(&mut self, now_us: u64, id: ClusterId, found: Found) {
        let now = self.situation(now_us);
        match found {
            Found::Queue => {
                self.prober.on_refuted(now, id);
                self.refuted = true;
            }
            Found::Bps(bps) if self.prober.wants_proof(now, id, bps) => {}
            Found::Bps(bps) => {
                self.aimd
                    .set(now_us, bps.max(PROBE_KEEPS * self.aimd.bps()));
                self.loss.on_measured(bps);
                self.prober.on_result(self.situation(now_us), id, bps);
            }
        }
    }

    fn on_cut(&mut self, now_us: u64) {
        self.delay.queue.on_cut(now_us);
        self.prober.on_cut(now_us);
    }

    /// Something was heard of the viewer. If it had been missed, the path is taken to be a new
    /// one that may well be the old one: on from the cut rate, and a probe for the old one.
    fn on_heard(&mut self, now_us: u64, missed_us: u64) {
        let Some(ended) = self
            .silence
            .on_heard(now_us, self.uncapped_bps(), missed_us)
        else {
            return;
        };
        self.fallback.set(ended.cap_bps);
        self.aimd.restart(now_us, ended.cap_bps);
        self.delay = Delay::new();
        self.loss.forgive(now_us);
        self.forgiven_us = now_us;
        if self.options.transport_wide {
            let before_bps = RECOVERY * ended.before_bps;
            self.prober.on_recovery(self.situation(now_us), before_bps);
        }
    }

    fn situation(&self, now_us: u64) -> Situation {
        Situation {
            now_us,
            rate_bps: self.uncapped_bps(),
            wanted_bps: self.reach_bps(),
            congested: self.is_fresh(now_us)
                && (self.delay.detector.usage() == Usage::Over || self.loss.is_heavy()),
            settled: self.is_fresh(now_us)
                && self.aimd.is_near_capacity()
                && !self.alr.is_limited()
                && self.is_used(),
        }
    }

    /// When to probe if nothing more is reported until then.
    fn due_when_stale_us(&self) -> Option<u64> {
        let stale_us = self.heard_us? + STALE_US + 1;
        let due_us = self.prober.due_us(self.situation(stale_us))?;
        Some(due_us.max(stale_us))
    }

    /// What was last reported of the path still says how it is. When all is paused nothing is
    /// reported, and the queue that was found then has long drained.
    fn is_fresh(&self, now_us: u64) -> bool {
        self.heard_us
            .is_some_and(|at| now_us.saturating_sub(at) <= STALE_US)
    }

    /// What is sent follows the rate. It does not where the next layer of a picture takes more
    /// than the rate: then only probes can find out about it.
    fn is_used(&self) -> bool {
        let acked_bps = self.acked.bps();
        acked_bps.is_none_or(|acked_bps| acked_bps >= USED * self.uncapped_bps())
    }

    /// What is worth probing for, in bit/s.
    fn reach_bps(&self) -> f64 {
        self.wanted_bps.min(self.options.max.as_f64())
    }

    /// The estimate, in bit/s, before a silence caps it.
    fn uncapped_bps(&self) -> f64 {
        if self.uses_twcc() {
            let delay_bps = self.aimd.bps();
            self.loss
                .bps()
                .map_or(delay_bps, |loss| loss.min(delay_bps))
        } else {
            self.fallback.bps()
        }
    }

    /// Transport-wide feedback decides. It does not before the first of it has come: a viewer
    /// that negotiated it and sends only receiver reports is judged by those.
    fn uses_twcc(&self) -> bool {
        self.heard_us.is_some()
    }

    /// A new round trip counts an eighth (RFC 6298 §2.3).
    fn smooth_rtt(&mut self, rtt_us: u64) {
        let rtt_us = rtt_us.min(STALE_US);
        self.rtt_us = (7 * self.rtt_us + rtt_us) / 8;
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bwe(transport_wide: bool) -> (Instant, Bwe) {
        let now = sim::origin();
        let options = Options {
            start: Bitrate::mbps(1),
            transport_wide,
            ..Options::default()
        };
        (now, Bwe::new(now, options))
    }

    /// Sends 100 packets a second for some time, doing what is due.
    fn send(bwe: &mut Bwe, from: Instant, seconds: u64) -> Instant {
        for step in 0..seconds * 100 {
            let now = from + SECOND / 100 * step as u32;
            bwe.on_sent(now, TwccSeq(step as u16), 1_200, None);
            if bwe.wakeup().is_some_and(|at| at <= now) {
                bwe.on_timeout(now);
            }
        }
        from + SECOND * seconds as u32
    }

    #[test]
    fn a_viewer_that_never_reports_gets_little() {
        for transport_wide in [true, false] {
            let (start, mut bwe) = bwe(transport_wide);
            send(&mut bwe, start, 20);
            assert_eq!(bwe.target().as_f64(), UNHEARD_BPS);
        }
    }

    #[test]
    fn a_path_that_was_full_when_all_was_paused_is_asked_again() {
        let (start, mut bwe) = bwe(true);
        bwe.set_wanted(Bitrate::mbps(5));
        // Each packet is later than the one before by half the time between them.
        for step in 0..300_u32 {
            let now = start + SECOND / 100 * step;
            bwe.on_sent(now, TwccSeq(step as u16), 1_200, None);
            while bwe.poll_probe().is_some() {}
            let arrival = Arrival {
                seq: TwccSeq(step as u16),
                at_us: Some(i64::from(step) * 15_000),
            };
            bwe.on_feedback(now + SECOND / 2, [arrival]);
        }
        let mut now = start + SECOND * 4;
        assert!(bwe.situation(bwe.micros(now)).congested);
        let paused = now;
        while bwe.poll_probe().is_none() {
            now = now.max(bwe.wakeup().unwrap()) + Duration::from_millis(1);
            assert!(now < paused + SECOND * 30, "it is never asked again");
            bwe.on_timeout(now);
        }
    }

    #[test]
    fn a_viewer_that_only_sends_receiver_reports_is_judged_by_those() {
        let (mut now, mut bwe) = bwe(true);
        for _ in 0..20 {
            now = send(&mut bwe, now, 1);
            bwe.on_loss_report(now, 0);
        }
        let clean = bwe.target();
        assert!(clean >= Bitrate::mbps(1), "{clean}");
        for _ in 0..5 {
            now = send(&mut bwe, now, 1);
            bwe.on_loss_report(now, 64);
        }
        assert!(bwe.target() < clean * 0.6, "{}", bwe.target());
    }

    #[test]
    fn a_viewers_own_estimate_counts_until_transport_wide_feedback_comes() {
        let (now, mut bwe) = bwe(true);
        bwe.on_remb(now, Bitrate::kbps(400));
        assert_eq!(bwe.target(), Bitrate::kbps(400));
        bwe.on_sent(now, TwccSeq(0), 1_200, None);
        let arrival = Arrival {
            seq: TwccSeq(0),
            at_us: Some(0),
        };
        bwe.on_feedback(now + SECOND / 20, [arrival]);
        assert_eq!(bwe.target(), Bitrate::mbps(1));
        bwe.on_remb(now + SECOND / 10, Bitrate::kbps(400));
        assert_eq!(bwe.target(), Bitrate::mbps(1));
    }

    #[test]
    fn nobody_without_transport_wide_feedback_is_probed() {
        let (now, mut bwe) = bwe(false);
        bwe.set_wanted(Bitrate::mbps(5));
        bwe.on_timeout(now);
        assert_eq!(bwe.poll_probe(), None);
        assert_eq!(bwe.wakeup(), None);
    }

    #[test]
    fn nothing_is_allocated_once_the_ring_has_its_size() {
        let (start, mut bwe) = bwe(true);
        bwe.set_wanted(Bitrate::mbps(5));
        let mut run = |rounds: std::ops::Range<u32>| {
            for round in rounds {
                let now = start + SECOND / 20 * round;
                bwe.on_timeout(now);
                let cluster = bwe.poll_probe().map(|cluster| cluster.id);
                let base = (round * 25) as u16;
                let seqs = (0..25).map(|step| TwccSeq(base.wrapping_add(step)));
                for seq in seqs.clone() {
                    bwe.on_sent(now, seq, 1_200, cluster);
                }
                let at_us = |seq: TwccSeq| (seq.0 & 7 != 0).then(|| i64::from(round) * 50_000);
                let arrivals = seqs.map(|seq| Arrival {
                    seq,
                    at_us: at_us(seq),
                });
                bwe.on_feedback(now + SECOND / 40, arrivals);
            }
        };
        run(0..400);
        let allocated = allocation_counter::measure(|| run(400..2_000));
        assert_eq!(allocated.count_total, 0);
    }
}
