//! Puts packets in order, and waits a while for those that are missing. Pure.
//!
//! A lost packet that a resend brings back is worth waiting for: nobody watches a recording as it
//! is made. How long is adapted: a packet that comes too late makes the next wait longer, and time
//! without one makes it shorter again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::engine::copies::CopiedPacket;

/// Packets that wait for missing ones. Beyond it the missing ones are given up.
const WAITING_PACKETS: usize = 4096;

/// How far ahead of what is awaited a number may be. Beyond it the stream counts as a new one.
const MAX_JUMP: u64 = 1 << 15;

/// After this long without a late packet the wait becomes shorter.
const CALM: Duration = Duration::from_secs(10);

/// How long missing packets are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// At first, and in the long run.
    pub target: Duration,
    /// At most.
    pub max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: Duration::from_millis(200),
            max: Duration::from_secs(1),
        }
    }
}

/// The packets of one layer.
#[derive(Debug)]
pub struct JitterBuffer {
    options: Options,
    delay: Duration,
    /// Number of the next packet to be given out; `None` before the first.
    next: Option<u64>,
    waiting: BTreeMap<u64, CopiedPacket>,
    /// Since when no packet has been late.
    calm_since: Option<Instant>,
    /// Packets that came after they had been given up.
    late: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This packet.
    Packet(CopiedPacket),
    /// So many packets that never came.
    Lost(u64),
}

impl JitterBuffer {
    /// An empty one.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            delay: options.target,
            next: None,
            waiting: BTreeMap::new(),
            calm_since: None,
            late: 0,
        }
    }

    /// Takes in a packet.
    pub fn handle_packet(&mut self, packet: CopiedPacket) {
        let now = packet.arrived;
        match self.next {
            Some(next) if packet.seq < next => {
                self.late += 1;
                self.delay = (self.delay * 3 / 2).min(self.options.max);
                self.calm_since = Some(now);
                return;
            }
            Some(next) if packet.seq - next > MAX_JUMP => {
                self.waiting.clear();
                self.next = Some(packet.seq);
            }
            _ => {}
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) >= CALM {
            self.calm_since = Some(now);
            self.delay = (self.delay * 3 / 4).max(self.options.target);
        }
        self.waiting.insert(packet.seq, packet);
    }

    /// What comes next in the stream, if that is known by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<Next> {
        let (&seq, first) = self.waiting.first_key_value()?;
        let is_due = now.saturating_duration_since(first.arrived) >= self.delay;
        let is_full = self.waiting.len() > WAITING_PACKETS;
        match self.next {
            Some(next) if next == seq => self.take(),
            // At the beginning an earlier packet may be on its way.
            None if is_due || is_full => self.take(),
            Some(next) if is_due || is_full => {
                self.next = Some(seq);
                Some(Next::Lost(seq - next))
            }
            _ => None,
        }
    }

    /// What comes next when nothing more arrives.
    pub fn flush(&mut self) -> Option<Next> {
        let (&seq, _) = self.waiting.first_key_value()?;
        match self.next {
            Some(next) if next < seq => {
                self.next = Some(seq);
                Some(Next::Lost(seq - next))
            }
            _ => self.take(),
        }
    }

    /// How long missing packets are awaited.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Packets that came after they had been given up.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    fn take(&mut self) -> Option<Next> {
        let (seq, packet) = self.waiting.pop_first()?;
        self.next = Some(seq + 1);
        Some(Next::Packet(packet))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::fixture::{packet, start};

    const MS: Duration = Duration::from_millis(1);

    fn all(buffer: &mut JitterBuffer, now: Instant) -> Vec<Result<u64, u64>> {
        std::iter::from_fn(|| buffer.poll(now))
            .map(|next| match next {
                Next::Packet(packet) => Ok(packet.seq),
                Next::Lost(count) => Err(count),
            })
            .collect()
    }

    #[test]
    fn a_packet_that_is_brought_back_in_time_takes_its_place() {
        let begin = start();
        let mut buffer = JitterBuffer::new(Options::default());
        buffer.handle_packet(packet(10, begin));
        assert_eq!(
            all(&mut buffer, begin),
            [],
            "an earlier one may be on its way"
        );
        assert_eq!(all(&mut buffer, begin + 200 * MS), [Ok(10)]);
        let now = begin + 210 * MS;
        buffer.handle_packet(packet(12, now));
        assert_eq!(all(&mut buffer, now + 199 * MS), []);
        buffer.handle_packet(packet(11, now + 199 * MS));
        assert_eq!(all(&mut buffer, now + 199 * MS), [Ok(11), Ok(12)]);
    }

    #[test]
    fn a_late_packet_makes_the_wait_longer_and_calm_makes_it_shorter() {
        let begin = start();
        let mut buffer = JitterBuffer::new(Options::default());
        buffer.handle_packet(packet(1, begin));
        buffer.handle_packet(packet(3, begin));
        let mut now = begin + 200 * MS;
        assert_eq!(all(&mut buffer, now), [Ok(1), Err(1), Ok(3)]);
        buffer.handle_packet(packet(2, now));
        assert_eq!((buffer.late(), buffer.delay()), (1, 300 * MS));
        for seq in 0..9 {
            buffer.handle_packet(packet(seq % 3, now));
        }
        assert_eq!(buffer.delay(), Options::default().max);
        for seq in 4..6000 {
            now += 20 * MS;
            buffer.handle_packet(packet(seq, now));
            all(&mut buffer, now);
        }
        assert_eq!(buffer.delay(), Options::default().target);
    }

    proptest! {
        #[test]
        fn whatever_comes_leaves_in_order_and_what_is_missing_is_told(
            order in Just((0..60_u64).collect::<Vec<_>>()).prop_shuffle(),
            lost in prop::collection::btree_set(0..60_u64, 0..20),
        ) {
            let begin = start();
            let mut buffer = JitterBuffer::new(Options::default());
            for (place, seq) in order.iter().enumerate() {
                if !lost.contains(seq) {
                    buffer.handle_packet(packet(*seq, begin + MS * place as u32));
                }
            }
            let mut next = None;
            while let Some(step) = buffer.flush() {
                match (step, next) {
                    (Next::Packet(packet), None) => next = Some(packet.seq + 1),
                    (Next::Packet(packet), Some(seq)) => {
                        prop_assert_eq!(packet.seq, seq);
                        next = Some(seq + 1);
                    }
                    (Next::Lost(count), Some(seq)) => {
                        prop_assert!((seq..seq + count).all(|seq| lost.contains(&seq)));
                        next = Some(seq + count);
                    }
                    (Next::Lost(_), None) => prop_assert!(false, "lost before the first"),
                }
            }
        }
    }
}
