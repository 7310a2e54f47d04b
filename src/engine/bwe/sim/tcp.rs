//! A flow that fills queues until they drop: AIMD on loss, as TCP Reno does (RFC 5681).

use std::collections::VecDeque;

const PACKET_BYTES: usize = 1_200;

#[derive(Debug)]
pub(super) struct Tcp {
    window: f64,
    threshold: f64,
    in_flight: f64,
    next_seq: u64,
    /// Losses of packets before this one belong to a cut already made.
    recovered: u64,
    acks_us: VecDeque<u64>,
    drops: VecDeque<(u64, u64)>,
    starts_us: u64,
}

impl Tcp {
    pub(super) fn new(starts_us: u64) -> Self {
        Self {
            window: 10.0,
            threshold: f64::INFINITY,
            in_flight: 0.0,
            next_seq: 0,
            recovered: 0,
            acks_us: VecDeque::new(),
            drops: VecDeque::new(),
            starts_us,
        }
    }

    pub(super) fn on_arrival(&mut self, acked_us: u64) {
        self.acks_us.push_back(acked_us);
    }

    pub(super) fn on_dropped(&mut self, known_us: u64, seq: u64) {
        self.drops.push_back((known_us, seq));
    }

    pub(super) fn step(&mut self, now_us: u64) -> Vec<(u64, usize)> {
        if now_us < self.starts_us {
            return Vec::new();
        }
        while self.acks_us.front().is_some_and(|at| *at <= now_us) {
            self.acks_us.pop_front();
            self.in_flight -= 1.0;
            self.window += if self.window < self.threshold {
                1.0
            } else {
                1.0 / self.window
            };
        }
        while self.drops.front().is_some_and(|(at, _)| *at <= now_us) {
            let (_, seq) = self.drops.pop_front().expect("looked at above");
            self.in_flight -= 1.0;
            if seq >= self.recovered {
                self.recovered = self.next_seq;
                self.window = (self.window / 2.0).max(2.0);
                self.threshold = self.window;
            }
        }
        let mut packets = Vec::new();
        while self.in_flight + 1.0 <= self.window {
            packets.push((self.next_seq, PACKET_BYTES));
            self.next_seq += 1;
            self.in_flight += 1.0;
        }
        packets
    }
}
