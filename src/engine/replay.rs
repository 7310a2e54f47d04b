//! The last keyframe of a layer and what followed it at once, for who joins or switches just then.
//!
//! A viewer that comes a moment after a keyframe would have to ask the publisher for another. As
//! long as few packets followed, it is given those that were sent already instead, and goes on
//! with what comes next. What is kept is bounded three ways, so that nobody is sent a burst: past
//! any bound the keyframe is old, all of it is let go of, and only the next one counts.

use std::time::{Duration, Instant};

use super::timestamp::is_after;

/// Frames that may be given again, the keyframe among them.
pub const REPLAY_FRAMES: u8 = 3;

/// Packets that may be given again: a keyframe of 100 KB.
pub const REPLAY_PACKETS: usize = 96;

/// How old a keyframe may be that is given again. A receiver plays what is late as fast as it can.
pub const REPLAY_AGE: Duration = Duration::from_millis(400);

/// What can be given again of one layer. `P` is a packet, cheap to keep.
#[derive(Debug)]
pub struct Replay<P> {
    /// The keyframe and what follows, by sequence number; empty when there is nothing fresh.
    packets: Vec<(u64, P)>,
    /// When the keyframe began.
    since: Option<Instant>,
    /// Its first sequence number.
    first: u64,
    /// Its timestamp.
    keyframe: u32,
    /// The newest timestamp, and frames so far.
    newest: u32,
    frames: u8,
}

impl<P> Default for Replay<P> {
    fn default() -> Self {
        Self {
            packets: Vec::new(),
            since: None,
            first: 0,
            keyframe: 0,
            newest: 0,
            frames: 0,
        }
    }
}

impl<P> Replay<P> {
    /// Whether a packet is worth keeping: only then is one to be made for
    /// [`Self::handle_packet`].
    #[must_use]
    pub fn wants(&self, starts_keyframe: bool) -> bool {
        starts_keyframe || self.since.is_some()
    }

    /// Takes in a packet of the layer, in the order they arrive. `seq` is extended.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        (seq, timestamp): (u64, u32),
        starts_keyframe: bool,
        packet: P,
    ) {
        // An H264 keyframe may start twice: at its parameter sets and at its first slice.
        let is_new = self.since.is_none() || timestamp != self.keyframe;
        if starts_keyframe && is_new {
            self.packets.clear();
            self.since = Some(now);
            (self.first, self.keyframe, self.newest) = (seq, timestamp, timestamp);
            self.frames = 1;
        }
        if self.since.is_none() || seq < self.first {
            return;
        }
        if is_after(timestamp, self.newest) {
            self.newest = timestamp;
            self.frames += 1;
        }
        let is_full = self.packets.len() == REPLAY_PACKETS;
        if self.frames > REPLAY_FRAMES || is_full || !self.is_fresh(now) {
            self.packets.clear();
            self.since = None;
            return;
        }
        match self.packets.binary_search_by_key(&seq, |(seq, _)| *seq) {
            Ok(_) => {}
            Err(place) => self.packets.insert(place, (seq, packet)),
        }
    }

    /// The keyframe and all that followed it, in order; empty when it is not fresh. The first is
    /// one that starts the keyframe.
    #[must_use]
    pub fn packets(&self, now: Instant) -> &[(u64, P)] {
        if self.is_fresh(now) {
            &self.packets
        } else {
            &[]
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) <= REPLAY_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn numbers(replay: &Replay<char>, now: Instant) -> String {
        replay
            .packets(now)
            .iter()
            .map(|(_, packet)| packet)
            .collect()
    }

    #[test]
    fn a_fresh_keyframe_and_what_followed_it_are_given_in_order() {
        let (mut replay, now) = (Replay::default(), origin());
        assert!(!replay.wants(false));
        replay.handle_packet(now, (9, 1000), false, 'x');
        assert_eq!(numbers(&replay, now), "");
        for (seq, time, key, packet) in [
            (10, 4000, true, 'a'),
            (12, 4000, false, 'c'),
            (11, 4000, false, 'b'),
            (9, 1000, false, 'x'),
            (13, 7000, false, 'd'),
            (12, 4000, false, 'c'),
        ] {
            replay.handle_packet(now, (seq, time), key, packet);
        }
        assert_eq!(numbers(&replay, now + REPLAY_AGE), "abcd");
        assert_eq!(numbers(&replay, now + REPLAY_AGE + ms(1)), "");
        replay.handle_packet(now, (14, 9000), true, 'e');
        assert_eq!(numbers(&replay, now), "e", "the newest keyframe counts");
    }

    #[test]
    fn too_many_frames_or_packets_or_too_much_time_make_it_stale_until_the_next() {
        let start = origin();
        for (frame_packets, interval, kept) in [(1, 10, 3), (2, 10, 6), (70, 1, 70), (1, 201, 2)] {
            let mut replay = Replay::default();
            let (mut most, mut seq) = (0, 0);
            for frame in 0..9 {
                let now = start + ms(frame * interval);
                for packet in 0..frame_packets {
                    let is_first = frame == 0 && packet == 0;
                    replay.handle_packet(now, (seq, frame as u32), is_first, ' ');
                    seq += 1;
                }
                most = most.max(replay.packets(now).len());
            }
            assert_eq!(most, kept, "{frame_packets} packets each {interval} ms");
            assert!(replay.packets(start).is_empty() && !replay.wants(false));
            replay.handle_packet(start, (seq, 50), true, ' ');
            assert_eq!(replay.packets(start).len(), 1);
        }
    }

    #[test]
    fn a_keyframe_that_starts_twice_is_one() {
        let (mut replay, now) = (Replay::default(), origin());
        for (seq, packet) in (1..).zip("spi".chars()) {
            replay.handle_packet(now, (seq, 77), seq != 2, packet);
        }
        assert_eq!(numbers(&replay, now), "spi");
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_bounded_ordered_and_begins_a_keyframe(
            packets in prop::collection::vec(
                (0..300_u64, 0..40_u32, prop::bool::weighted(0.1), 0..60_u64), 0..400),
        ) {
            let (mut replay, mut now) = (Replay::default(), origin());
            for (seq, timestamp, key, pause) in packets {
                now += ms(pause);
                replay.handle_packet(now, (seq, timestamp), key, (timestamp, key));
                let kept = replay.packets(now);
                prop_assert!(kept.len() <= REPLAY_PACKETS);
                prop_assert!(kept.is_sorted_by(|(a, _), (b, _)| a < b));
                prop_assert!(kept.first().is_none_or(|(_, (_, key))| *key));
            }
        }
    }
}
