//! One direction of a network path: capacity, queue, delay, jitter, loss, reordering, duplication.
//!
//! Not the crate `str0m-netem`: its reordering is every n-th packet instead of by chance, its
//! buffer also counts what is in flight, and it reads the clock. Everything random is drawn from
//! one generator per link, always as many draws per datagram, so that changing one probability
//! does not reshuffle the others.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// DTLS datagrams count as this long, and are neither lost, doubled nor delayed by chance: their
/// true lengths vary with the signatures in them and their timers with the library's own dice.
const DTLS_BYTES: usize = 200;

/// How one direction of a path treats datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quality {
    /// Bits per second; `None` sends everything at once.
    pub(crate) capacity: Option<u64>,
    /// Bytes that may wait for the capacity; a datagram that finds no room is dropped.
    pub(crate) queue_bytes: usize,
    /// Bytes that pass at once after a pause, as a token bucket lets them.
    pub(crate) burst_bytes: usize,
    /// Time on the way.
    pub(crate) delay: Duration,
    /// At most this much is added to the delay, without changing the order.
    pub(crate) jitter: Duration,
    /// Probability that a datagram is lost.
    pub(crate) loss: f64,
    /// Probability that a datagram is held back by up to 20 ms, so that later ones overtake it.
    pub(crate) reorder: f64,
    /// Probability that a datagram arrives twice.
    pub(crate) duplicate: f64,
}

impl Quality {
    /// 10 ms one way and nothing else.
    pub(crate) const CLEAN: Self = Self {
        capacity: None,
        queue_bytes: 64 * 1024,
        burst_bytes: 0,
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: 0.0,
        reorder: 0.0,
        duplicate: 0.0,
    };

    /// A clean path that loses this share of its datagrams.
    pub(crate) const fn lossy(loss: f64) -> Self {
        Self {
            loss,
            ..Self::CLEAN
        }
    }
}

/// What became of everything sent into a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkCounts {
    /// Datagrams sent into it.
    pub(crate) sent: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped because the queue was full.
    pub(crate) overflowed: u64,
    /// Delivered a second time.
    pub(crate) duplicated: u64,
}

/// One direction of a path.
#[derive(Debug)]
pub(crate) struct Link {
    quality: Quality,
    rng: Rng,
    /// When all that was sent would have left, had the capacity been kept to without bursts.
    busy_until: Instant,
    /// When the last datagram arrives: the next one does not overtake it.
    last_arrival: Instant,
    counts: LinkCounts,
    began: Instant,
    /// Bytes sent into it in each tenth of a second since it was made.
    tenths: Vec<usize>,
}

impl Link {
    /// A link with nothing on its way.
    pub(crate) fn new(now: Instant, quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            rng: Rng::with_seed(seed),
            busy_until: now,
            last_arrival: now,
            counts: LinkCounts::default(),
            began: now,
            tenths: Vec::new(),
        }
    }

    /// The most that was sent into it within so many tenths of a second, in bits per second, of all
    /// that begin at `from` or later.
    pub(crate) fn busiest(&self, from: Instant, tenths: usize) -> u64 {
        let first = self.tenth(from) + 1;
        let spans = self.tenths.get(first..).unwrap_or_default().windows(tenths);
        let most = spans.map(|span| span.iter().sum::<usize>()).max();
        most.unwrap_or(0) as u64 * 80 / tenths as u64
    }

    fn tenth(&self, at: Instant) -> usize {
        (at.saturating_duration_since(self.began).as_millis() / 100) as usize
    }

    /// Changes how datagrams sent from here on are treated.
    pub(crate) fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// When a datagram sent now arrives: never, once or twice.
    pub(crate) fn send(&mut self, now: Instant, bytes: &[u8]) -> [Option<Instant>; 2] {
        self.counts.sent += 1;
        let tenth = self.tenth(now);
        if self.tenths.len() <= tenth {
            self.tenths.resize(tenth + 1, 0);
        }
        self.tenths[tenth] += bytes.len();
        let dtls = matches!(bytes.first(), Some(20..=63));
        let Some(departure) = self.pass_queue(now, if dtls { DTLS_BYTES } else { bytes.len() })
        else {
            self.counts.overflowed += 1;
            return [None; 2];
        };
        let [lost, late, held, behind, doubled] = std::array::from_fn(|_| self.rng.f64());
        if dtls {
            return [Some(self.arrive_in_order(departure)), None];
        }
        if lost < self.quality.loss {
            self.counts.lost += 1;
            return [None; 2];
        }
        let on_time = departure + self.quality.jitter.mul_f64(late);
        let arrival = if held < self.quality.reorder {
            on_time + self.quality.delay + Duration::from_millis(20).mul_f64(behind)
        } else {
            self.arrive_in_order(on_time)
        };
        if doubled < self.quality.duplicate {
            self.counts.duplicated += 1;
            return [Some(arrival), Some(arrival + Duration::from_micros(500))];
        }
        [Some(arrival), None]
    }

    /// How long a datagram sent now waits for the capacity.
    pub(crate) fn queue(&self, now: Instant) -> Duration {
        self.departure(now).saturating_duration_since(now)
    }

    /// What became of everything so far.
    pub(crate) fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// When a datagram of this length has left the queue; `None` when it found no room.
    fn pass_queue(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let Some(capacity) = self.quality.capacity else {
            return Some(now);
        };
        let waiting = self.queue(now).as_secs_f64() * capacity as f64 / 8.0;
        if waiting as usize + length > self.quality.queue_bytes {
            return None;
        }
        let start = self.busy_until.max(now);
        self.busy_until = start + Duration::from_secs_f64(length as f64 * 8.0 / capacity as f64);
        Some(self.departure(now))
    }

    /// When the last datagram leaves the queue: sooner than the capacity says by what may pass in
    /// a burst.
    fn departure(&self, now: Instant) -> Instant {
        let burst_s = self.quality.capacity.map_or(0.0, |capacity| {
            self.quality.burst_bytes as f64 * 8.0 / capacity as f64
        });
        let ahead = Duration::from_secs_f64(burst_s);
        self.busy_until
            .checked_sub(ahead)
            .map_or(now, |at| at.max(now))
    }

    fn arrive_in_order(&mut self, departure: Instant) -> Instant {
        self.last_arrival = self.last_arrival.max(departure + self.quality.delay);
        self.last_arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock;

    const RTP: [u8; 1000] = [0x80; 1000];

    fn link(quality: Quality) -> (Instant, Link) {
        let now = clock::origin();
        (now, Link::new(now, quality, 7))
    }

    #[test]
    fn capacity_spaces_datagrams_and_a_full_queue_drops_the_newest() {
        let (now, mut link) = link(Quality {
            capacity: Some(800_000),
            queue_bytes: 3000,
            ..Quality::CLEAN
        });
        let arrivals: Vec<_> = (0..4).map(|_| link.send(now, &RTP)[0]).collect();
        let at = |millis| Some(now + Duration::from_millis(millis));
        assert_eq!(arrivals, [at(20), at(30), at(40), None]);
        assert_eq!(link.counts().overflowed, 1);
    }

    #[test]
    fn a_bucket_lets_a_burst_pass_at_once_and_then_keeps_to_the_capacity() {
        let (now, mut link) = link(Quality {
            capacity: Some(800_000),
            queue_bytes: 2000,
            burst_bytes: 2000,
            ..Quality::CLEAN
        });
        let arrivals: Vec<_> = (0..5).map(|_| link.send(now, &RTP)[0]).collect();
        let at = |millis| Some(now + Duration::from_millis(millis));
        assert_eq!(arrivals, [at(10), at(10), at(20), at(30), None]);
        assert_eq!(link.queue(now), Duration::from_millis(20));
    }

    #[test]
    fn loss_and_duplication_happen_as_often_as_asked() {
        let (now, mut link) = link(Quality {
            loss: 0.1,
            duplicate: 0.2,
            ..Quality::CLEAN
        });
        for _ in 0..10_000 {
            link.send(now, &RTP);
        }
        assert!((900..1100).contains(&link.counts().lost));
        assert!((1650..1950).contains(&link.counts().duplicated));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it() {
        let inversions = |quality| {
            let (now, mut link) = link(quality);
            let arrivals: Vec<_> = (0..1000)
                .filter_map(|i| link.send(now + Duration::from_millis(i), &RTP)[0])
                .collect();
            arrivals.windows(2).filter(|w| w[1] < w[0]).count()
        };
        let jitter = Quality {
            jitter: Duration::from_millis(30),
            ..Quality::CLEAN
        };
        assert_eq!(inversions(jitter), 0);
        let reorder = Quality {
            reorder: 0.1,
            ..Quality::CLEAN
        };
        assert!(inversions(reorder) > 50);
    }

    #[test]
    fn dtls_passes_unharmed() {
        let (now, mut link) = link(Quality::lossy(1.0));
        assert_eq!(link.send(now, &RTP), [None; 2]);
        assert!(link.send(now, &[22; 900])[0].is_some());
    }
}
