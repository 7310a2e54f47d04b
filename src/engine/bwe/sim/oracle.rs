//! The controllers a media flow can have: ours, and crate `goog_cc` to compare with.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use goog_cc::network_control::{NetworkControllerConfig, NetworkControllerInterface};
use goog_cc::transport::{
    NetworkAvailability, NetworkControlUpdate, PacedPacketInfo, PacketResult, ProbeClusterConfig,
    ProcessInterval, SentPacket, StreamsConfig, TargetRateConstraints, TransportPacketsFeedback,
};
use goog_cc::units::{DataRate, DataSize, Timestamp};
use goog_cc::{GoogCcConfig, GoogCcNetworkController};
use str0m::bwe::Bitrate;

use super::media::Message;
use super::origin;
use crate::engine::bwe::twcc::{Arrival, TwccSeq};
use crate::engine::bwe::{Bwe, ClusterId, Options, ProbeCluster};

/// What a media flow asks of its congestion control.
pub(super) trait Controller {
    fn on_sent(&mut self, now_us: u64, seq: u64, bytes: usize, cluster: Option<ClusterId>);
    fn on_feedback(&mut self, now_us: u64, message: &Message);
    fn on_timeout(&mut self, now_us: u64);
    fn due_us(&self) -> Option<u64>;
    fn poll_probe(&mut self) -> Option<ProbeCluster>;
    fn poll_refuted(&mut self) -> bool {
        false
    }
    fn target_bps(&self) -> f64;
    fn set_wanted(&mut self, bps: f64);
}

/// Arrival times on the wire wrap after this long, in microseconds.
const WRAP_US: i64 = (1 << 24) * 64_000;

/// The estimator under test.
pub(super) struct Ours {
    epoch: Instant,
    pub(super) bwe: Bwe,
}

impl Ours {
    pub(super) fn new(start_bps: f64, wanted_bps: f64) -> Self {
        let epoch = origin();
        let options = Options {
            start: Bitrate::from(start_bps),
            ..Options::default()
        };
        let mut bwe = Bwe::new(epoch, options);
        bwe.set_wanted(Bitrate::from(wanted_bps));
        Self { epoch, bwe }
    }

    fn at(&self, us: u64) -> Instant {
        self.epoch + Duration::from_micros(us)
    }
}

impl Controller for Ours {
    fn on_sent(&mut self, now_us: u64, seq: u64, bytes: usize, cluster: Option<ClusterId>) {
        let now = self.at(now_us);
        self.bwe.on_sent(now, TwccSeq(seq as u16), bytes, cluster);
    }

    fn on_feedback(&mut self, now_us: u64, message: &Message) {
        // The viewer's clock starts somewhere else, soon wraps, and counts in 250 us.
        let clock_us = |at: u64| (at as i64 / 250 * 250 - 30_000_000).rem_euclid(WRAP_US);
        let arrivals = (message.base..).zip(&message.arrivals);
        let arrivals = arrivals.map(|(seq, at_us)| Arrival {
            seq: TwccSeq(seq as u16),
            at_us: at_us.map(clock_us),
        });
        self.bwe.on_feedback(self.at(now_us), arrivals);
    }

    fn on_timeout(&mut self, now_us: u64) {
        self.bwe.on_timeout(self.at(now_us));
    }

    fn due_us(&self) -> Option<u64> {
        let due = self.bwe.wakeup()?;
        Some(due.saturating_duration_since(self.epoch).as_micros() as u64)
    }

    fn poll_probe(&mut self) -> Option<ProbeCluster> {
        self.bwe.poll_probe()
    }

    fn poll_refuted(&mut self) -> bool {
        self.bwe.poll_refuted()
    }

    fn target_bps(&self) -> f64 {
        self.bwe.target().as_f64()
    }

    fn set_wanted(&mut self, bps: f64) {
        self.bwe.set_wanted(Bitrate::from(bps));
    }
}

/// libwebrtc's controller, as crate `goog_cc` has it.
pub(super) struct GoogCc {
    controller: GoogCcNetworkController,
    target_bps: f64,
    probes: VecDeque<ProbeClusterConfig>,
    current: Option<ProbeClusterConfig>,
    cluster: ClusterId,
    /// Packets sent and not yet reported on, in order; the first has number `first`.
    sent: VecDeque<SentPacket>,
    first: u64,
    due_us: u64,
}

impl GoogCc {
    pub(super) fn new(start_bps: f64, wanted_bps: f64) -> Self {
        let constraints = TargetRateConstraints {
            at_time: Timestamp::from_micros(0),
            min_data_rate: Some(DataRate::from_kilobits_per_sec(50)),
            max_data_rate: Some(DataRate::from_kilobits_per_sec(30_000)),
            starting_rate: Some(DataRate::from_bits_per_sec(start_bps as i64)),
        };
        let streams = StreamsConfig {
            at_time: Timestamp::from_micros(0),
            requests_alr_probing: Some(true),
            max_total_allocated_bitrate: Some(DataRate::from_bits_per_sec(wanted_bps as i64)),
            ..StreamsConfig::default()
        };
        let config = NetworkControllerConfig {
            constraints,
            stream_based_config: streams,
            ..NetworkControllerConfig::default()
        };
        let feedback_only = GoogCcConfig {
            feedback_only: true,
        };
        let mut oracle = Self {
            controller: GoogCcNetworkController::new(config, feedback_only),
            target_bps: start_bps,
            probes: VecDeque::new(),
            current: None,
            cluster: ClusterId::FIRST,
            sent: VecDeque::new(),
            first: 0,
            due_us: 0,
        };
        let available = NetworkAvailability {
            at_time: Timestamp::from_micros(0),
            network_available: true,
        };
        let update = oracle.controller.on_network_availability(available);
        oracle.take(update);
        let update = oracle.controller.on_streams_config(streams);
        oracle.take(update);
        oracle
    }

    fn take(&mut self, update: NetworkControlUpdate) {
        if let Some(target) = update.target_rate {
            self.target_bps = target.target_rate.bps() as f64;
        }
        self.probes.extend(update.probe_cluster_configs);
    }
}

impl Controller for GoogCc {
    fn on_sent(&mut self, now_us: u64, seq: u64, bytes: usize, cluster: Option<ClusterId>) {
        assert_eq!(seq, self.first + self.sent.len() as u64);
        let mut packet = SentPacket {
            send_time: Timestamp::from_micros(now_us as i64),
            size: DataSize::from_bytes(bytes as i64),
            sequence_number: seq as i64,
            ..SentPacket::default()
        };
        if let (Some(_), Some(probe)) = (cluster, &self.current) {
            let bytes =
                probe.target_data_rate.bps() as f64 / 8e6 * probe.target_duration.us() as f64;
            packet.pacing_info =
                PacedPacketInfo::new(probe.id, probe.target_probe_count.into(), bytes as i64);
        }
        self.sent.push_back(packet);
        let update = self.controller.on_sent_packet(packet);
        self.take(update);
    }

    fn on_feedback(&mut self, now_us: u64, message: &Message) {
        let mut results = Vec::new();
        for (seq, arrival) in (message.base..).zip(&message.arrivals) {
            while self.first < seq {
                self.sent.pop_front();
                self.first += 1;
            }
            let Some(sent_packet) = self.sent.pop_front() else {
                break;
            };
            self.first += 1;
            let received = |at: u64| Timestamp::from_micros(at as i64);
            results.push(PacketResult {
                sent_packet,
                receive_time: arrival.map_or(Timestamp::plus_infinity(), received),
                ..PacketResult::default()
            });
        }
        let in_flight: i64 = self.sent.iter().map(|p| p.size.bytes()).sum();
        let update = self
            .controller
            .on_transport_packets_feedback(TransportPacketsFeedback {
                feedback_time: Timestamp::from_micros(now_us as i64),
                data_in_flight: DataSize::from_bytes(in_flight),
                packet_feedbacks: results,
                ..TransportPacketsFeedback::default()
            });
        self.take(update);
    }

    fn on_timeout(&mut self, now_us: u64) {
        self.due_us = now_us + 25_000;
        let update = self.controller.on_process_interval(ProcessInterval {
            at_time: Timestamp::from_micros(now_us as i64),
            ..ProcessInterval::default()
        });
        self.take(update);
    }

    fn due_us(&self) -> Option<u64> {
        Some(self.due_us)
    }

    fn poll_probe(&mut self) -> Option<ProbeCluster> {
        let probe = self.probes.pop_front()?;
        self.cluster = self.cluster.next();
        let bytes = probe.target_data_rate.bps() as f64 / 8e6 * probe.target_duration.us() as f64;
        let cluster = ProbeCluster {
            id: self.cluster,
            rate: Bitrate::from(probe.target_data_rate.bps() as f64),
            bytes: bytes as u32,
            packets: probe.target_probe_count as u8,
            proves: false,
        };
        self.current = Some(probe);
        Some(cluster)
    }

    fn target_bps(&self) -> f64 {
        self.target_bps
    }

    fn set_wanted(&mut self, bps: f64) {
        let update = self.controller.on_streams_config(StreamsConfig {
            at_time: Timestamp::from_micros(self.due_us as i64),
            requests_alr_probing: Some(true),
            max_total_allocated_bitrate: Some(DataRate::from_bits_per_sec(bps as i64)),
            ..StreamsConfig::default()
        });
        self.take(update);
    }
}
