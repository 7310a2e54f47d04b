//! How many bytes may leave for a viewer in this tick: media at a multiple of the target,
//! probe clusters at exactly their rate. A calculation, not a queue.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

use super::probe::{ClusterId, ProbeCluster};

/// Media leaves at this multiple of the target, so that a frame does not wait for the next.
/// libwebrtc goog_cc_network_control.cc, kDefaultPaceMultiplier.
const PACE: f64 = 2.5;

/// Unused allowance that may leave at once. The trade-off of the pacer: more of it makes longer
/// runs of packets for one GSO send and less waiting here, and longer bursts into a narrow link.
/// Measured by `bench/bwe.rs` on 1.5 Mbit/s of 30 frames a second with a target of the same:
///
/// | burst | run, packets | mean wait | worst burst into the link |
/// |---|---|---|---|
/// | 5 ms | 2.0 | 11.7 ms | 13 ms of the target |
/// | 10 ms | 2.8 | 8.9 ms | 25 ms |
/// | 20 ms | 4.9 | 6.9 ms | 50 ms |
/// | 40 ms | 5.1 | 4.6 ms | 100 ms |
///
/// A frame is 33 ms of the target: 20 ms lets nearly all of it leave as one run.
/// libwebrtc has 40 ms (task_queue_paced_sender.h, kBurstyPacerBurst).
pub const BURST: Duration = Duration::from_millis(20);

/// The first of all that a viewer is sent leaves at once, in bytes, as a TCP connection begins
/// with (RFC 6928): a small first keyframe is not held back for want of an estimate.
const INITIAL_WINDOW: f64 = 14_600.0;

/// A late tick makes up for this much at most; more would be a burst of its own.
const CATCH_UP: Duration = Duration::from_millis(40);

/// Media waits at most about this long: a longer backlog is sent faster.
/// libwebrtc pacing_controller.h has 2 s (kMaxExpectedQueueLength); viewers watch live.
const MAX_WAIT: Duration = Duration::from_millis(250);

/// How often the owner asks while something waits: the shard's tick.
pub const TICK: Duration = Duration::from_millis(5);

/// A cluster this late, as a multiple of its length, is given up: it can no longer be measured.
const MAX_CLUSTER_LATENESS: f64 = 4.0;

/// What may leave now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    /// Bytes of video. A packet that begins within them may leave whole.
    pub bytes: usize,
    /// The cluster all that leaves belongs to. What video does not use of [`Grant::bytes`] is
    /// made up with padding.
    pub cluster: Option<ClusterId>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    cluster: ProbeCluster,
    /// When its first packets may have left; `None` before.
    began: Option<Instant>,
    bytes: u32,
    packets: u32,
}

/// Allowances of one viewer.
#[derive(Debug)]
pub struct Pacer {
    /// May leave now, in bytes; below zero, what has left too early.
    allowance: f64,
    /// What is left of [`INITIAL_WINDOW`], in bytes.
    initial: f64,
    asked: Instant,
    /// The pace when last asked, in bytes a second.
    bytes_per_s: f64,
    burst: Duration,
    running: Option<Running>,
}

impl Pacer {
    /// A pacer of a viewer to whom nothing has been sent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::with_burst(now, BURST)
    }

    /// A pacer with another [`BURST`], to measure the trade-off.
    #[must_use]
    pub fn with_burst(now: Instant, burst: Duration) -> Self {
        Self {
            allowance: 0.0,
            initial: INITIAL_WINDOW,
            asked: now,
            bytes_per_s: 0.0,
            burst,
            running: None,
        }
    }

    /// No cluster is running: the next may be polled.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.running.is_none()
    }

    /// Begins a cluster with the next grant. One that is running is given up.
    pub fn start(&mut self, cluster: ProbeCluster) {
        self.running = Some(Running {
            cluster,
            began: None,
            bytes: 0,
            packets: 0,
        });
    }

    /// Ends the cluster that is running.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// What may leave now. Audio and packets sent again do not ask: they leave at once and are
    /// only told, by [`Pacer::on_sent`] like all that leaves, so that video makes way for them.
    /// `waiting` is how many bytes of video wait.
    pub fn grant(&mut self, now: Instant, target: Bitrate, waiting: usize) -> Grant {
        self.earn(now, target, waiting);
        match self.cluster_allowance(now) {
            Some((bytes, id)) => Grant {
                bytes,
                cluster: Some(id),
            },
            None => Grant {
                bytes: (self.initial + self.allowance.max(0.0)) as usize,
                cluster: None,
            },
        }
    }

    /// A packet left.
    pub fn on_sent(&mut self, bytes: usize, cluster: Option<ClusterId>) {
        let at_first = self.initial.min(bytes as f64);
        self.initial -= at_first;
        self.allowance -= bytes as f64 - at_first;
        let Some(running) = &mut self.running else {
            return;
        };
        if cluster != Some(running.cluster.id) {
            return;
        }
        running.bytes = running.bytes.saturating_add(bytes as u32);
        running.packets += 1;
        if running.bytes >= running.cluster.bytes
            && running.packets >= u32::from(running.cluster.packets)
        {
            self.running = None;
        }
    }

    /// When to ask again, given the bytes of video that wait; `None` when none do and no cluster
    /// runs.
    #[must_use]
    pub fn wakeup(&self, waiting: usize) -> Option<Instant> {
        if self.running.is_some() {
            return Some(self.asked + TICK);
        }
        if waiting == 0 {
            return None;
        }
        let owed_s = -self.allowance / self.bytes_per_s.max(1.0);
        let wait = Duration::from_secs_f64(owed_s.clamp(0.0, MAX_WAIT.as_secs_f64()));
        Some(self.asked + wait.max(TICK))
    }

    /// Adds what the time since the last call is worth.
    fn earn(&mut self, now: Instant, target: Bitrate, waiting: usize) {
        let pace = PACE * target.as_f64() / 8.0;
        self.bytes_per_s = pace.max(waiting as f64 / MAX_WAIT.as_secs_f64());
        let since = now.saturating_duration_since(self.asked);
        self.asked = self.asked.max(now);
        // A burst is at least what a tick is worth, or late ticks would slow the pace.
        let cap = self.bytes_per_s * self.burst.max(since.min(CATCH_UP)).as_secs_f64();
        let earned = self.bytes_per_s * since.as_secs_f64();
        // A debt never lasts longer than media may wait.
        let floor = -self.bytes_per_s * MAX_WAIT.as_secs_f64();
        self.allowance = (self.allowance.max(floor) + earned).min(cap);
    }

    /// What the running cluster is due, in bytes: at its rate, counted to the end of this tick.
    fn cluster_allowance(&mut self, now: Instant) -> Option<(usize, ClusterId)> {
        let running = self.running.as_mut()?;
        let began = *running.began.get_or_insert(now);
        let bytes_per_s = running.cluster.rate.as_f64() / 8.0;
        let elapsed_s = now.saturating_duration_since(began).as_secs_f64();
        let length_s = f64::from(running.cluster.bytes) / bytes_per_s.max(1.0);
        if elapsed_s > MAX_CLUSTER_LATENESS * length_s + TICK.as_secs_f64() {
            self.running = None;
            return None;
        }
        let due = bytes_per_s * (elapsed_s + TICK.as_secs_f64()) - f64::from(running.bytes);
        Some((due.max(0.0).round() as usize, running.cluster.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pacer that has sent its first window.
    fn begun(now: Instant) -> Pacer {
        let mut pacer = Pacer::new(now);
        pacer.on_sent(INITIAL_WINDOW as usize, None);
        pacer
    }

    /// An `Instant` to count from; its value does not matter.
    fn origin() -> Instant {
        crate::engine::bwe::sim::origin()
    }

    #[test]
    fn video_leaves_at_two_and_a_half_times_the_target() {
        let start = origin();
        let mut pacer = begun(start);
        let mut sent = 0;
        for tick in 1..=200 {
            let grant = pacer.grant(start + TICK * tick, Bitrate::kbps(800), 10_000);
            let mut left = grant.bytes;
            while left > 0 {
                pacer.on_sent(1_000, grant.cluster);
                sent += 1_000;
                left = left.saturating_sub(1_000);
            }
        }
        assert!((249_000..252_000).contains(&sent), "{sent}");
    }

    #[test]
    fn the_first_window_leaves_at_once() {
        let start = origin();
        let mut pacer = Pacer::new(start);
        assert_eq!(pacer.grant(start, Bitrate::kbps(300), 0).bytes, 14_600);
        pacer.on_sent(14_000, None);
        assert_eq!(pacer.grant(start, Bitrate::kbps(300), 0).bytes, 600);
        pacer.on_sent(1_000, None);
        assert_eq!(pacer.grant(start, Bitrate::kbps(300), 0).bytes, 0);
    }

    #[test]
    fn video_makes_way_for_what_does_not_ask() {
        let start = origin();
        let mut pacer = begun(start);
        assert_eq!(
            pacer.grant(start + TICK, Bitrate::kbps(1000), 9_000).bytes,
            1_562
        );
        pacer.on_sent(1_200, None);
        assert_eq!(
            pacer.grant(start + TICK, Bitrate::kbps(1000), 9_000).bytes,
            362
        );
        pacer.on_sent(50_000, None);
        assert_eq!(
            pacer
                .grant(start + TICK * 2, Bitrate::kbps(1000), 9_000)
                .bytes,
            0
        );
    }

    #[test]
    fn a_cluster_leaves_at_its_rate_made_up_with_padding() {
        let start = origin();
        let mut pacer = begun(start);
        let cluster = ProbeCluster {
            id: ClusterId::FIRST,
            rate: Bitrate::kbps(1600),
            bytes: 8_000,
            packets: 5,
            proves: false,
        };
        pacer.start(cluster);
        let mut left = Vec::new();
        for tick in 0..20 {
            let grant = pacer.grant(start + TICK * tick, Bitrate::kbps(200), 100);
            if grant.cluster.is_none() {
                break;
            }
            pacer.on_sent(100, grant.cluster);
            pacer.on_sent(grant.bytes - 100, grant.cluster);
            left.push(grant.bytes);
        }
        assert_eq!(left, [1_000; 8]);
    }

    #[test]
    fn an_idle_viewer_is_not_woken() {
        let start = origin();
        let mut pacer = begun(start);
        assert_eq!(pacer.wakeup(0), None);
        pacer.on_sent(1_000, None);
        pacer.grant(start, Bitrate::kbps(32), 1);
        let due = pacer.wakeup(1).expect("something waits");
        assert_eq!(due, start + Duration::from_millis(100));
    }

    #[test]
    fn a_long_backlog_leaves_in_time() {
        let start = origin();
        let mut pacer = begun(start);
        let mut waiting = 100_000;
        let mut ticks = 0;
        while waiting > 2_000 {
            ticks += 1;
            let grant = pacer.grant(start + TICK * ticks, Bitrate::kbps(50), waiting);
            let left = grant.bytes.min(waiting);
            pacer.on_sent(left, None);
            waiting -= left;
        }
        assert!(ticks < 450, "{ticks}");
    }
}
