//! A media flow: an encoder that follows the target, the pacer, and a viewer that reports.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

use super::link::Link;
use super::oracle::Controller;
use super::{Rng, origin};
use crate::engine::bwe::pacer::{Pacer, TICK};

/// Frames a second of the encoder.
const FRAME_US: u64 = 33_333;

/// Largest packet, in bytes.
const PACKET_BYTES: usize = 1_200;

/// What is there to send.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// An encoder that follows the target up to this rate, in bit/s.
    Encoder(f64),
    /// Layers of these rates, in bit/s: the best that fits is sent, the lowest in any case.
    Layers(Vec<f64>),
    /// Nothing at all.
    Nothing,
}

impl Source {
    /// What it can use at best, in bit/s.
    pub(super) fn best_bps(&self) -> f64 {
        self.bps(f64::INFINITY)
    }

    fn bps(&self, target_bps: f64) -> f64 {
        match self {
            Self::Encoder(max) => max.min(target_bps),
            Self::Layers(layers) => {
                let fitting = layers.iter().copied().filter(|layer| *layer <= target_bps);
                fitting.fold(layers[0], f64::max)
            }
            Self::Nothing => 0.0,
        }
    }
}

/// One message on its way back.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) due_us: u64,
    pub(super) base: u64,
    /// Arrival of each packet from `base` on, in microseconds.
    pub(super) arrivals: Vec<Option<u64>>,
}

pub(super) struct Media {
    epoch: Instant,
    pub(super) controller: Box<dyn Controller>,
    pub(super) source: Source,
    pacer: Pacer,
    rng: Rng,
    frame_us: u64,
    tick_us: u64,
    /// Video packets waiting, by size.
    waiting: VecDeque<usize>,
    next_seq: u64,
    /// The viewer: arrivals not yet reported, from `reported` on.
    reported: u64,
    arrivals: VecDeque<Option<u64>>,
    report_us: u64,
    messages: VecDeque<Message>,
    pub(super) wakeups: u64,
    /// It is silent before this.
    pub(super) starts_us: u64,
    pub(super) padding_bytes: u64,
}

impl Media {
    pub(super) fn new(controller: Box<dyn Controller>, source: Source, seed: u64) -> Self {
        let epoch = origin();
        Self {
            epoch,
            controller,
            source,
            pacer: Pacer::new(epoch),
            rng: Rng::new(seed),
            frame_us: 0,
            tick_us: 0,
            waiting: VecDeque::new(),
            next_seq: 0,
            reported: 0,
            arrivals: VecDeque::new(),
            report_us: 0,
            messages: VecDeque::new(),
            wakeups: 0,
            starts_us: 0,
            padding_bytes: 0,
        }
    }

    pub(super) fn target_bps(&self) -> f64 {
        self.controller.target_bps()
    }

    /// What leaves in this step: numbers and sizes.
    pub(super) fn step(&mut self, now_us: u64) -> Vec<(u64, usize)> {
        if now_us < self.starts_us {
            return Vec::new();
        }
        if now_us >= self.frame_us {
            self.frame_us = now_us + FRAME_US;
            self.encode();
        }
        if now_us < self.tick_us {
            return Vec::new();
        }
        self.tick_us = now_us + TICK.as_micros() as u64;
        if self.controller.due_us().is_some_and(|due| due <= now_us) {
            self.wakeups += 1;
            self.controller.on_timeout(now_us);
        }
        if self.controller.poll_refuted() {
            self.pacer.stop();
        }
        if self.pacer.is_free()
            && let Some(cluster) = self.controller.poll_probe()
        {
            self.pacer.start(cluster);
        }
        self.pace(now_us)
    }

    fn encode(&mut self) {
        let bps = self.source.bps(self.target_bps());
        let noise = (1.0 + 0.15 * self.rng.normal()).clamp(0.4, 2.0);
        let mut bytes = (bps * noise * FRAME_US as f64 / 8e6) as usize;
        while bytes > 0 {
            let packet = bytes.min(PACKET_BYTES);
            self.waiting.push_back(packet);
            bytes -= packet;
        }
    }

    fn pace(&mut self, now_us: u64) -> Vec<(u64, usize)> {
        let waiting = self.waiting.iter().sum();
        let target = Bitrate::from(self.target_bps());
        let now = self.epoch + Duration::from_micros(now_us);
        let grant = self.pacer.grant(now, target, waiting);
        let mut sizes = Vec::new();
        let mut left = grant.bytes;
        while left > 0 {
            let Some(bytes) = self.waiting.pop_front() else {
                break;
            };
            sizes.push(bytes);
            left = left.saturating_sub(bytes);
        }
        let mut padding = grant.cluster.map_or(0, |_| left);
        self.padding_bytes += padding as u64;
        while padding > 0 {
            let bytes = padding.min(PACKET_BYTES);
            sizes.push(bytes);
            padding -= bytes;
        }
        let mut packets = Vec::new();
        for bytes in sizes {
            self.pacer.on_sent(bytes, grant.cluster);
            let seq = self.next_seq;
            self.controller.on_sent(now_us, seq, bytes, grant.cluster);
            packets.push((seq, bytes));
            self.next_seq += 1;
        }
        packets
    }

    pub(super) fn on_arrival(&mut self, arrival_us: u64, seq: u64) {
        let Some(place) = seq.checked_sub(self.reported) else {
            return;
        };
        while self.arrivals.len() <= place as usize {
            self.arrivals.push_back(None);
        }
        self.arrivals[place as usize] = Some(arrival_us);
    }

    /// The viewer reports when it is time, and reports that have come back are read.
    pub(super) fn exchange(&mut self, now_us: u64, link: &Link) {
        if now_us >= self.report_us {
            self.report_us = now_us + 50_000 + (self.rng.unit() * 50_000.0) as u64;
            self.report(now_us, link);
        }
        while self.messages.front().is_some_and(|m| m.due_us <= now_us) {
            let message = self.messages.pop_front().expect("looked at above");
            self.controller.on_feedback(now_us, &message);
        }
    }

    fn report(&mut self, now_us: u64, link: &Link) {
        // What is still on its way to the viewer is not yet known to it; order is kept.
        let here = |arrival: &Option<u64>| arrival.is_some_and(|at| at <= now_us);
        let known = self
            .arrivals
            .iter()
            .rposition(here)
            .map_or(0, |last| last + 1);
        let arrivals: Vec<_> = self.arrivals.drain(..known).collect();
        let base = self.reported;
        self.reported += arrivals.len() as u64;
        if !arrivals.is_empty() && !link.down {
            self.messages.push_back(Message {
                due_us: now_us + link.delay_us,
                base,
                arrivals,
            });
        }
    }
}
