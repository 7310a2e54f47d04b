//! A link: capacity, propagation delay, a tail-drop queue, random loss, jitter.

use std::collections::VecDeque;

use super::Rng;

/// Bytes of IP and UDP headers, which the link carries and the estimator does not count.
const HEADERS: usize = 28;

#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) flow: usize,
    pub(super) seq: u64,
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) bps: f64,
    /// One way, in microseconds.
    pub(super) delay_us: u64,
    /// The queue holds this much time at the present capacity, in ms.
    pub(super) max_queue_ms: f64,
    /// Share of packets lost at random.
    pub(super) loss: f64,
    /// Standard deviation of the delay beyond the queue, in microseconds. Order is kept.
    pub(super) jitter_us: f64,
    /// Nothing passes, in either direction.
    pub(super) down: bool,
    queue: VecDeque<(u64, Packet)>,
    queued_bytes: usize,
    free_us: u64,
    arrived_us: u64,
    rng: Rng,
}

impl Link {
    pub(super) fn new(bps: f64, seed: u64) -> Self {
        Self {
            bps,
            delay_us: 25_000,
            max_queue_ms: 300.0,
            loss: 0.0,
            jitter_us: 0.0,
            down: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            free_us: 0,
            arrived_us: 0,
            rng: Rng::new(seed),
        }
    }

    /// Takes a packet into the queue, or drops it and says `false`.
    pub(super) fn offer(&mut self, now_us: u64, packet: Packet) -> bool {
        let full = self.queue_ms() >= self.max_queue_ms;
        if full || self.down || self.rng.unit() < self.loss {
            return false;
        }
        self.queued_bytes += packet.bytes + HEADERS;
        self.queue.push_back((now_us, packet));
        true
    }

    /// The next packet that has left the queue by now, and when it arrives.
    pub(super) fn deliver(&mut self, now_us: u64) -> Option<(u64, Packet)> {
        let (entered_us, packet) = *self.queue.front()?;
        let bytes = packet.bytes + HEADERS;
        let starts_us = self.free_us.max(entered_us);
        let leaves_us = starts_us + (bytes as f64 * 8e6 / self.bps) as u64;
        if leaves_us > now_us {
            return None;
        }
        self.queue.pop_front();
        self.queued_bytes -= bytes;
        self.free_us = leaves_us;
        let jitter_us = (self.rng.normal().abs() * self.jitter_us) as u64;
        let arrival_us = (leaves_us + self.delay_us + jitter_us).max(self.arrived_us);
        self.arrived_us = arrival_us;
        Some((arrival_us, packet))
    }

    pub(super) fn queue_ms(&self) -> f64 {
        self.queued_bytes as f64 * 8e3 / self.bps
    }
}
