//! A simulated path for the estimator: a link with a queue, flows that share it, one seed.

mod hostile;
mod link;
mod media;
mod oracle;
mod scenarios;
mod tcp;

use std::time::Instant;

use link::{Link, Packet};
use media::Media;
use tcp::Tcp;

/// Some time to count from. What it is does not matter: only differences are used.
#[expect(
    clippy::disallowed_methods,
    reason = "std offers no other way to make an Instant"
)]
pub(super) fn origin() -> Instant {
    Instant::now()
}

/// Length of a step, in microseconds.
const STEP_US: u64 = 1_000;

/// Steps between two entries of the log.
const LOG_STEPS: u64 = 20;

/// A small generator (splitmix64): every run of a seed is the same.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, mean 0, deviation 1.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Entries of the log in a second.
const STANDING: usize = (1_000_000 / (LOG_STEPS * STEP_US)) as usize;

/// One flow over the link.
enum Flow {
    Media(Box<Media>),
    Tcp(Tcp),
}

/// What was seen at one time.
#[derive(Debug, Clone)]
struct Seen {
    at_s: f64,
    /// Target of each flow, in bit/s.
    targets: Vec<f64>,
    /// Bytes each flow has got through so far.
    delivered: Vec<u64>,
    queue_ms: f64,
}

/// A link and the flows over it.
struct World {
    now_us: u64,
    link: Link,
    flows: Vec<Flow>,
    delivered: Vec<u64>,
    log: Vec<Seen>,
}

impl World {
    fn new(link: Link, flows: Vec<Flow>) -> Self {
        Self {
            now_us: 0,
            link,
            delivered: vec![0; flows.len()],
            flows,
            log: Vec::new(),
        }
    }

    /// Runs on for `seconds`.
    fn run(&mut self, seconds: f64) -> &mut Self {
        let end_us = self.now_us + (seconds * 1e6) as u64;
        while self.now_us < end_us {
            self.step();
        }
        self
    }

    fn step(&mut self) {
        let now_us = self.now_us;
        self.send(now_us);
        while let Some((arrival_us, packet)) = self.link.deliver(now_us) {
            self.delivered[packet.flow] += packet.bytes as u64;
            match &mut self.flows[packet.flow] {
                Flow::Media(media) => media.on_arrival(arrival_us, packet.seq),
                Flow::Tcp(tcp) => tcp.on_arrival(arrival_us + self.link.delay_us),
            }
        }
        for flow in &mut self.flows {
            if let Flow::Media(media) = flow {
                media.exchange(now_us, &self.link);
            }
        }
        if now_us.is_multiple_of(LOG_STEPS * STEP_US) {
            self.note();
        }
        self.now_us += STEP_US;
    }

    /// Every flow puts what it may on the link.
    fn send(&mut self, now_us: u64) {
        for (index, flow) in self.flows.iter_mut().enumerate() {
            let packets = match flow {
                Flow::Media(media) => media.step(now_us),
                Flow::Tcp(tcp) => tcp.step(now_us),
            };
            for (seq, bytes) in packets {
                let packet = Packet {
                    flow: index,
                    seq,
                    bytes,
                };
                let taken = self.link.offer(now_us, packet);
                if let Flow::Tcp(tcp) = flow
                    && !taken
                {
                    tcp.on_dropped(now_us + 2 * self.link.delay_us, seq);
                }
            }
        }
    }

    fn note(&mut self) {
        let target = |flow: &Flow| match flow {
            Flow::Media(media) => media.target_bps(),
            Flow::Tcp(_) => 0.0,
        };
        self.log.push(Seen {
            at_s: self.now_us as f64 / 1e6,
            targets: self.flows.iter().map(target).collect(),
            delivered: self.delivered.clone(),
            queue_ms: self.link.queue_ms(),
        });
    }

    /// The media flow of this place.
    fn media(&mut self, place: usize) -> &mut Media {
        match &mut self.flows[place] {
            Flow::Media(media) => media,
            Flow::Tcp(_) => panic!("flow {place} is not media"),
        }
    }

    /// What was seen between two times.
    fn between(&self, from_s: f64, to_s: f64) -> impl Iterator<Item = &Seen> {
        let seen = self.log.iter();
        seen.filter(move |seen| seen.at_s >= from_s && seen.at_s < to_s)
    }

    /// Mean target of a flow between two times, in bit/s.
    fn mean_target(&self, flow: usize, from_s: f64, to_s: f64) -> f64 {
        let count = self.between(from_s, to_s).count().max(1) as f64;
        let sum: f64 = self.between(from_s, to_s).map(|s| s.targets[flow]).sum();
        sum / count
    }

    /// What a flow got through between two times, in bit/s.
    fn throughput(&self, flow: usize, from_s: f64, to_s: f64) -> f64 {
        let mut seen = self.between(from_s, to_s);
        let (Some(first), Some(last)) = (seen.next(), seen.last()) else {
            return 0.0;
        };
        let bytes = last.delivered[flow] - first.delivered[flow];
        bytes as f64 * 8.0 / (last.at_s - first.at_s)
    }

    /// When the flow's target first reached a rate after a time; in seconds after it.
    fn reached(&self, flow: usize, from_s: f64, bps: f64) -> f64 {
        self.between(from_s, f64::INFINITY)
            .find(|seen| seen.targets[flow] >= bps)
            .map_or(f64::INFINITY, |seen| seen.at_s - from_s)
    }

    /// The worst standing queue between two times, in ms: what did not drain for a second
    /// (RFC 8289 §3.1 calls the rest of a queue good: frames are bursts).
    fn standing_queue_ms(&self, from_s: f64, to_s: f64) -> f64 {
        let queue: Vec<f64> = self.between(from_s, to_s).map(|s| s.queue_ms).collect();
        let minimum = |window: &[f64]| window.iter().copied().fold(f64::INFINITY, f64::min);
        queue.windows(STANDING).map(minimum).fold(0.0, f64::max)
    }

    /// The mean queue between two times, in ms.
    fn mean_queue_ms(&self, from_s: f64, to_s: f64) -> f64 {
        let count = self.between(from_s, to_s).count().max(1) as f64;
        self.between(from_s, to_s).map(|s| s.queue_ms).sum::<f64>() / count
    }
}
