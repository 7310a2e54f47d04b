//! What was sent and not yet reported on: a bounded ring by transport-wide number.

use super::probe::ClusterId;
use super::twcc::TwccSeq;
use crate::engine::prefetch::{prefetch, some_of};

/// Packets remembered for a viewer at first: what one of 1 Mbit/s has under way in a second.
const FIRST_PACKETS: usize = 128;

/// Packets remembered at most. When full the oldest is forgotten: feedback about it is then
/// ignored. 4096 are 40 Mbit/s for a second, in 64 KiB.
const MAX_PACKETS: usize = 4096;

/// A packet younger than this is worth growing the ring for, in microseconds.
const YOUNG_US: u64 = 2_000_000;

/// Feedback about a packet older than this is ignored, in microseconds. libwebrtc keeps 60 s
/// (transport_feedback_adapter.cc, kSendTimeHistoryWindow); a path that slow carries no call.
const FORGOTTEN_US: u64 = 10_000_000;

/// What is remembered of a packet that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// When it left, in microseconds of the estimator's clock.
    pub(super) at_us: u64,
    /// Its size on the wire, without IP and UDP headers.
    pub(super) bytes: u16,
    /// The probe it belonged to.
    pub(super) cluster: Option<ClusterId>,
}

/// A packet that arrived, and what was thought of it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrived {
    /// The packet.
    pub(super) sent: Sent,
    /// An earlier message reported it lost.
    pub(super) was_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unreported,
    Lost,
    Done,
}

/// A [`Sent`] and its state in 16 bytes: the ring is most of what an estimator weighs.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at_us: u64,
    bytes: u16,
    cluster: Option<ClusterId>,
    seq: TwccSeq,
    state: State,
}

impl Entry {
    /// No feedback can name it: it was reported on already.
    const EMPTY: Self = Self {
        at_us: 0,
        bytes: 0,
        cluster: None,
        seq: TwccSeq(0),
        state: State::Done,
    };

    fn sent(&self) -> Sent {
        Sent {
            at_us: self.at_us,
            bytes: self.bytes,
            cluster: self.cluster,
        }
    }
}

/// The packets feedback may still report on.
#[derive(Debug)]
pub(super) struct SentRing {
    /// Indexed by the low bits of the number; the length is a power of two.
    entries: Box<[Entry]>,
}

impl SentRing {
    /// A ring without packets.
    pub(super) fn new() -> Self {
        Self {
            entries: vec![Entry::EMPTY; FIRST_PACKETS].into(),
        }
    }

    /// Asks for the places of the packets from `next` on.
    pub(super) fn prefetch(&self, next: TwccSeq) {
        prefetch(some_of(&self.entries, self.index(next)));
    }

    /// Remembers a packet.
    pub(super) fn insert(&mut self, seq: TwccSeq, sent: Sent) {
        let old = self.entries[self.index(seq)];
        let crowded =
            old.state == State::Unreported && sent.at_us.saturating_sub(old.at_us) < YOUNG_US;
        if crowded && old.seq != seq && self.entries.len() < MAX_PACKETS {
            self.resize(self.entries.len() * 2);
        } else if usize::from(seq.0).is_multiple_of(FIRST_PACKETS.max(self.entries.len() / 4)) {
            self.shrink(sent.at_us);
        }
        let index = self.index(seq);
        self.entries[index] = Entry {
            at_us: sent.at_us,
            bytes: sent.bytes,
            cluster: sent.cluster,
            seq,
            state: State::Unreported,
        };
    }

    /// The packet, if this is the first time it is reported to have arrived.
    pub(super) fn arrived(&mut self, now_us: u64, seq: TwccSeq) -> Option<Arrived> {
        let entry = self.find(now_us, seq)?;
        let was_lost = entry.state == State::Lost;
        entry.state = State::Done;
        Some(Arrived {
            sent: entry.sent(),
            was_lost,
        })
    }

    /// The packet, if this is the first report about it.
    pub(super) fn lost(&mut self, now_us: u64, seq: TwccSeq) -> Option<Sent> {
        let entry = self.find(now_us, seq)?;
        if entry.state == State::Lost {
            return None;
        }
        entry.state = State::Lost;
        Some(entry.sent())
    }

    fn index(&self, seq: TwccSeq) -> usize {
        usize::from(seq.0) & (self.entries.len() - 1)
    }

    fn find(&mut self, now_us: u64, seq: TwccSeq) -> Option<&mut Entry> {
        let index = self.index(seq);
        let entry = &mut self.entries[index];
        let known = entry.seq == seq && entry.state != State::Done;
        (known && now_us.saturating_sub(entry.at_us) < FORGOTTEN_US).then_some(entry)
    }

    /// Halves the ring while a quarter of it would do: a probe or a first keyframe made it grow.
    fn shrink(&mut self, now_us: u64) {
        let is_under_way = |entry: &&Entry| {
            entry.state == State::Unreported && now_us.saturating_sub(entry.at_us) < YOUNG_US
        };
        let under_way = self.entries.iter().filter(is_under_way).count();
        let mut packets = self.entries.len();
        while packets > FIRST_PACKETS && under_way < packets / 4 {
            packets /= 2;
        }
        if packets < self.entries.len() {
            self.resize(packets);
        }
    }

    /// Moves what may still be reported on to a ring of another length. Where two numbers share
    /// a place the younger has it.
    fn resize(&mut self, packets: usize) {
        let resized = vec![Entry::EMPTY; packets].into();
        let entries = std::mem::replace(&mut self.entries, resized);
        for entry in entries {
            let place = self.index(entry.seq);
            let has_it = self.entries[place];
            let is_younger = has_it.state == State::Done || has_it.at_us < entry.at_us;
            if entry.state != State::Done && is_younger {
                self.entries[place] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(at_us: u64) -> Sent {
        Sent {
            at_us,
            bytes: 1200,
            cluster: None,
        }
    }

    #[test]
    fn a_packet_is_reported_once() {
        let mut ring = SentRing::new();
        ring.insert(TwccSeq(65_535), packet(5));
        assert_eq!(ring.arrived(9, TwccSeq(0)), None);
        assert_eq!(ring.lost(9, TwccSeq(65_535)), Some(packet(5)));
        assert_eq!(ring.lost(9, TwccSeq(65_535)), None);
        let late = Arrived {
            sent: packet(5),
            was_lost: true,
        };
        assert_eq!(ring.arrived(9, TwccSeq(65_535)), Some(late));
        assert_eq!(ring.arrived(9, TwccSeq(65_535)), None);
    }

    #[test]
    fn the_ring_grows_for_a_fast_viewer_and_then_forgets_the_oldest() {
        let mut ring = SentRing::new();
        for n in 0..10_000u16 {
            ring.insert(TwccSeq(n), packet(u64::from(n)));
        }
        assert_eq!(ring.entries.len(), MAX_PACKETS);
        assert_eq!(ring.arrived(10_000, TwccSeq(9_999 - 4_096)), None);
        assert!(ring.arrived(10_000, TwccSeq(9_999 - 4_095)).is_some());
    }

    #[test]
    fn the_ring_is_small_again_when_a_burst_is_over() {
        let mut ring = SentRing::new();
        let mut seq = 0u16;
        for _ in 0..1_000 {
            ring.insert(TwccSeq(seq), packet(u64::from(seq)));
            seq += 1;
        }
        assert_eq!(ring.entries.len(), 1_024);
        for n in 0..4_000 {
            let at_us = 1_000_000 + n * 4_000;
            ring.insert(TwccSeq(seq), packet(at_us));
            let about = TwccSeq(seq - 25);
            let reported = ring.arrived(at_us, about).is_some();
            assert!(reported, "{n}");
            seq += 1;
        }
        assert_eq!(ring.entries.len(), FIRST_PACKETS);
    }

    #[test]
    fn a_slow_viewer_stays_small() {
        let mut ring = SentRing::new();
        for n in 0..60_000u16 {
            ring.insert(TwccSeq(n), packet(u64::from(n) * 20_000));
        }
        assert_eq!(ring.entries.len(), FIRST_PACKETS);
        assert_eq!(size_of::<Entry>(), 16);
    }
}
