//! What congestion control costs per acknowledged packet, beside crate `goog_cc`; and the
//! pacer's trade-off between long runs of packets and delay.
//!
//! `cargo bench --bench bwe`. Times are thread CPU time; machines differ, ratios hold.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use corelay::engine::bwe::pacer::{Pacer, TICK};
use corelay::engine::bwe::twcc::{Arrival, TwccSeq};
use corelay::engine::bwe::{Bwe, Options};
use goog_cc::network_control::{NetworkControllerConfig, NetworkControllerInterface};
use goog_cc::transport::{
    NetworkAvailability, PacketResult, ProcessInterval, SentPacket, TargetRateConstraints,
    TransportPacketsFeedback,
};
use goog_cc::units::{DataRate, DataSize, Timestamp};
use goog_cc::{GoogCcConfig, GoogCcNetworkController};
use str0m::bwe::Bitrate;

/// Size of every packet, in bytes.
const PACKET_BYTES: usize = 1_200;

/// Time between packets of one viewer on average, in microseconds: 500 a second.
const GAP_US: u64 = 2_000;

/// Packets in one feedback message: one every 50 ms.
const PACKETS_PER_FEEDBACK: usize = 25;

/// Round trip, in microseconds.
const RTT_US: u64 = 50_000;

fn main() {
    println!("ns of CPU per acknowledged packet, {PACKETS_PER_FEEDBACK} a message");
    println!("  viewers  burst  corelay  goog_cc");
    for (viewers, burst) in [(1, 1), (1, 8), (200, 1), (200, 8)] {
        let ours = median(|| cost(viewers, burst, 1_000_000, Ours::new));
        let theirs = median(|| cost(viewers, burst, 200_000, Theirs::new));
        println!("  {viewers:>7}  {burst:>5}  {ours:>7.0}  {theirs:>7.0}");
    }
    println!();
    println!("pacer: 1.5 Mbit/s of video, a keyframe of ten times the size every 3 s");
    println!("  burst ms  target  run, packets  wait ms: mean  p99");
    for burst_ms in [0, 5, 10, 20, 40] {
        for headroom in [1.0, 2.0] {
            let (run, mean_ms, p99_ms) = pace(Duration::from_millis(burst_ms), headroom);
            println!(
                "  {burst_ms:>8}  {headroom:>5.1}x  {run:>12.2}  {mean_ms:>13.1}  {p99_ms:>3.0}"
            );
        }
    }
}

/// The middle one of five measurements.
fn median(measure: impl Fn() -> f64) -> f64 {
    let mut costs: Vec<f64> = (0..5).map(|_| measure()).collect();
    costs.sort_by(f64::total_cmp);
    costs[2]
}

/// Time this thread has run, in nanoseconds.
fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ran = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ran.expect("a kernel with CONFIG_SCHED_INFO")
}

/// What is measured of a controller.
trait Controller {
    fn on_sent(&mut self, at_us: u64, seq: u64);
    /// All packets from `first` to `last` arrived.
    fn on_feedback(&mut self, at_us: u64, first: u64, last: u64);
    fn on_timeout(&mut self, at_us: u64);
    fn target_bps(&self) -> f64;
}

/// Nanoseconds per packet of `packets` in all, sent to viewers in turn.
fn cost<C: Controller>(viewers: u64, burst: u64, packets: u64, new: impl Fn() -> C) -> f64 {
    let mut controllers: Vec<C> = (0..viewers).map(|_| new()).collect();
    // The ring has its size and the estimate is found when the measurement begins.
    let rounds = packets / viewers / burst;
    let warm_up = rounds / 5;
    let mut began_ns = 0.0;
    for round in 0..rounds {
        if round == warm_up {
            began_ns = cpu_ns();
        }
        let at_us = round * burst * GAP_US;
        for controller in &mut controllers {
            turn(controller, at_us, round * burst, burst);
        }
    }
    let ns = cpu_ns() - began_ns;
    let sum: f64 = controllers.iter().map(Controller::target_bps).sum();
    assert!(sum > 0.0, "the work must not be optimised away");
    ns / ((rounds - warm_up) * burst * viewers) as f64
}

/// One turn of one viewer: a burst leaves, and feedback comes if it is time.
fn turn(controller: &mut impl Controller, at_us: u64, first: u64, burst: u64) {
    for seq in first..first + burst {
        controller.on_sent(at_us, seq);
    }
    let per = PACKETS_PER_FEEDBACK as u64;
    let in_flight = RTT_US / GAP_US;
    for seq in first..first + burst {
        if seq % per == 0 && seq >= per + in_flight {
            let last = seq - in_flight;
            controller.on_feedback(at_us, last + 1 - per, last);
            controller.on_timeout(at_us);
        }
    }
}

/// When a packet arrives: a little later than the one before, with some jitter.
fn arrival_us(seq: u64) -> i64 {
    (seq * GAP_US + RTT_US / 2 + seq.wrapping_mul(0x9e37_79b9) % 1_000) as i64
}

struct Ours {
    epoch: Instant,
    bwe: Bwe,
}

impl Ours {
    #[expect(clippy::disallowed_methods, reason = "a time to count from")]
    fn new() -> Self {
        let epoch = Instant::now();
        let mut bwe = Bwe::new(epoch, Options::default());
        bwe.set_wanted(Bitrate::mbps(5));
        Self { epoch, bwe }
    }

    fn at(&self, us: u64) -> Instant {
        self.epoch + Duration::from_micros(us)
    }
}

impl Controller for Ours {
    fn on_sent(&mut self, at_us: u64, seq: u64) {
        let now = self.at(at_us);
        let cluster = self.bwe.poll_probe().map(|cluster| cluster.id);
        self.bwe
            .on_sent(now, TwccSeq(seq as u16), PACKET_BYTES, cluster);
    }

    fn on_feedback(&mut self, at_us: u64, first: u64, last: u64) {
        let arrivals = (first..=last).map(|seq| Arrival {
            seq: TwccSeq(seq as u16),
            at_us: Some(arrival_us(seq)),
        });
        self.bwe.on_feedback(self.at(at_us), arrivals);
    }

    fn on_timeout(&mut self, at_us: u64) {
        let now = self.at(at_us);
        if self.bwe.wakeup().is_some_and(|due| due <= now) {
            self.bwe.on_timeout(now);
        }
    }

    fn target_bps(&self) -> f64 {
        self.bwe.target().as_f64()
    }
}

struct Theirs {
    controller: GoogCcNetworkController,
    sent: VecDeque<SentPacket>,
    target_bps: f64,
}

impl Theirs {
    fn new() -> Self {
        let config = NetworkControllerConfig {
            constraints: TargetRateConstraints {
                at_time: Timestamp::from_micros(0),
                min_data_rate: Some(DataRate::from_kilobits_per_sec(50)),
                max_data_rate: Some(DataRate::from_kilobits_per_sec(30_000)),
                starting_rate: Some(DataRate::from_kilobits_per_sec(300)),
            },
            ..NetworkControllerConfig::default()
        };
        let feedback_only = GoogCcConfig {
            feedback_only: true,
        };
        let mut controller = GoogCcNetworkController::new(config, feedback_only);
        controller.on_network_availability(NetworkAvailability {
            at_time: Timestamp::from_micros(0),
            network_available: true,
        });
        Self {
            controller,
            sent: VecDeque::new(),
            target_bps: 1.0,
        }
    }
}

impl Controller for Theirs {
    fn on_sent(&mut self, at_us: u64, seq: u64) {
        let packet = SentPacket {
            send_time: Timestamp::from_micros(at_us as i64),
            size: DataSize::from_bytes(PACKET_BYTES as i64),
            sequence_number: seq as i64,
            ..SentPacket::default()
        };
        self.sent.push_back(packet);
        self.controller.on_sent_packet(packet);
    }

    fn on_feedback(&mut self, at_us: u64, first: u64, last: u64) {
        let mut packet_feedbacks = Vec::with_capacity(PACKETS_PER_FEEDBACK);
        for seq in first..=last {
            let sent = |packet: &SentPacket| packet.sequence_number == seq as i64;
            while !self.sent.front().is_none_or(sent) {
                self.sent.pop_front();
            }
            packet_feedbacks.extend(self.sent.pop_front().map(|sent_packet| PacketResult {
                sent_packet,
                receive_time: Timestamp::from_micros(arrival_us(seq)),
                ..PacketResult::default()
            }));
        }
        let in_flight = self.sent.len() * PACKET_BYTES;
        let feedback = TransportPacketsFeedback {
            feedback_time: Timestamp::from_micros(at_us as i64),
            data_in_flight: DataSize::from_bytes(in_flight as i64),
            packet_feedbacks,
            ..TransportPacketsFeedback::default()
        };
        let update = self.controller.on_transport_packets_feedback(feedback);
        if let Some(target) = update.target_rate {
            self.target_bps = target.target_rate.bps() as f64;
        }
    }

    fn on_timeout(&mut self, at_us: u64) {
        self.controller.on_process_interval(ProcessInterval {
            at_time: Timestamp::from_micros(at_us as i64),
            ..ProcessInterval::default()
        });
    }

    fn target_bps(&self) -> f64 {
        self.target_bps
    }
}

/// Mean packets per tick in which any left, and mean and 99th percentile of the wait in ms,
/// over ten minutes. `headroom`: the target as a multiple of the video's rate.
#[expect(clippy::disallowed_methods, reason = "a time to count from")]
fn pace(burst: Duration, headroom: f64) -> (f64, f64, f64) {
    const VIDEO_BPS: f64 = 1.5e6;
    const FRAMES_PER_S: u64 = 30;
    let epoch = Instant::now();
    let mut pacer = Pacer::with_burst(epoch, burst);
    let target = Bitrate::from(VIDEO_BPS * headroom);
    let frame_bytes = (VIDEO_BPS / FRAMES_PER_S as f64 / 8.0) as usize;
    let mut waiting: VecDeque<(u32, usize)> = VecDeque::new();
    let mut waiting_bytes = 0;
    let (mut runs, mut waits_ms) = (0usize, Vec::new());
    let ticks = 600_000 / TICK.as_millis() as u32;
    let mut frames = 0;
    for tick in 0..ticks {
        let at_ms = u64::from(tick) * TICK.as_millis() as u64;
        while frames * 1_000 / FRAMES_PER_S <= at_ms {
            let scale = if frames % (3 * FRAMES_PER_S) == 0 {
                10
            } else {
                1
            };
            let packets = (frame_bytes * scale).div_ceil(PACKET_BYTES);
            let bytes = frame_bytes * scale / packets;
            waiting.extend((0..packets).map(|_| (tick, bytes)));
            waiting_bytes += packets * bytes;
            frames += 1;
        }
        let mut left = pacer
            .grant(epoch + TICK * tick, target, waiting_bytes)
            .bytes
            .min(waiting_bytes);
        runs += usize::from(left > 0);
        while left > 0 {
            let Some((since, bytes)) = waiting.pop_front() else {
                break;
            };
            pacer.on_sent(bytes, None);
            waiting_bytes -= bytes;
            left = left.saturating_sub(bytes);
            waits_ms.push(f64::from(tick - since) * TICK.as_secs_f64() * 1e3);
        }
    }
    waits_ms.sort_by(f64::total_cmp);
    let run = waits_ms.len() as f64 / runs as f64;
    let mean_ms = waits_ms.iter().sum::<f64>() / waits_ms.len() as f64;
    (run, mean_ms, waits_ms[waits_ms.len() * 99 / 100])
}
