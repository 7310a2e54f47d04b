//! Sent packets, kept to be sent again: payloads once per track, a few bytes per viewer.
//!
//! A track's [`TrackHistory`] holds what arrived, whoever watches. A viewer's [`SentLog`] says
//! under which number, timestamp and patch each of them left. A packet can be sent again while
//! both remember it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::extension::PacketExtensions;
use super::packet::MediaPacket;
use super::patch::HeadPatch;
use crate::engine::ingress::payload::Payload;
use crate::engine::prefetch::{prefetch, some_of};

/// How long a packet can be sent again. libwebrtc's receivers ask up to 10 times and drop what is
/// later than a second or so; its senders keep packets for 1 s or 3 round trips.
pub const HISTORY_AGE: Duration = Duration::from_secs(1);

/// Packets one track's history holds; the oldest goes first. 1 s of three simulcast layers and
/// their keyframes at 4 Mbit/s in all needs some 500.
pub const HISTORY_PACKETS: usize = 1024;

/// Payload bytes one track's history holds; the oldest packet goes first. [`HISTORY_PACKETS`] of
/// full size.
pub const HISTORY_BYTES: usize = HISTORY_PACKETS * 1200;

/// Payloads that are let go of and wait to be used again; further ones are freed.
const MOST_GONE: usize = 64;

/// Places a viewer's log begins with, per slot: enough for sound and thumbnails. 1.3 KB.
const LOG_MIN_PLACES: usize = 64;

/// Most places of a viewer's log, per slot; past it the oldest is overwritten. 20 KB; 1 s of
/// 9.8 Mbit/s in packets of 1200 B.
pub const LOG_MAX_PLACES: usize = 1024;

/// What one packet of a track was when it arrived.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its payload, shared with whoever else holds it.
    pub payload: Payload,
    /// Its dependency descriptor, shared as well; `None` when it has none.
    pub descriptor: Option<Arc<[u8]>>,
    /// Its audio level (RFC 6464), if it has one.
    pub audio_level: Option<u8>,
    /// Its video orientation (3GPP TS 26.114), if it has one.
    pub video_orientation: Option<u8>,
    /// Its marker bit.
    pub marker: bool,
}

/// One packet of one history. Its number is not used again within 2^32 packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredId {
    history: HistoryId,
    number: u32,
}

impl StoredId {
    /// A packet that no history holds: what leaves under it cannot be sent again.
    pub const NOTHING: Self = Self {
        history: HistoryId(0),
        number: 0,
    };
}

/// Tells histories apart, so that what one track sent is never taken for another's after a slot
/// changed hands. The engine gives each its own, from 1 on; 0 is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryId(pub u32);

/// The packets of one track that can be sent again, all its layers in one.
#[derive(Debug)]
pub struct TrackHistory {
    id: HistoryId,
    packets: VecDeque<(Instant, Stored)>,
    /// Payload bytes held.
    bytes: usize,
    /// The number of the oldest packet held.
    first: u32,
    /// Payloads it let go of since [`Self::reclaim`].
    gone: Vec<Payload>,
}

impl TrackHistory {
    /// An empty history.
    #[must_use]
    pub fn new(id: HistoryId) -> Self {
        Self {
            id,
            packets: VecDeque::new(),
            bytes: 0,
            first: 0,
            gone: Vec::new(),
        }
    }

    /// Keeps a packet and lets go of those that are too old or too many.
    pub fn push(&mut self, now: Instant, stored: Stored) -> StoredId {
        self.bytes += stored.payload.len();
        self.packets.push_back((now, stored));
        self.handle_timeout(now);
        let newest = self.packets.len() as u32;
        StoredId {
            history: self.id,
            number: self.first.wrapping_add(newest).wrapping_sub(1),
        }
    }

    /// Lets go of what is too old at `now`; of use where no packets arrive any more.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, _)) = self.packets.front() {
            let is_old = now.saturating_duration_since(*at) > HISTORY_AGE;
            let is_full = self.packets.len() > HISTORY_PACKETS || self.bytes > HISTORY_BYTES;
            if !is_old && !is_full {
                break;
            }
            if let Some((_, stored)) = self.packets.pop_front() {
                self.bytes -= stored.payload.len();
                self.first = self.first.wrapping_add(1);
                if self.gone.len() < MOST_GONE {
                    self.gone.push(stored.payload);
                }
            }
        }
    }

    /// Payloads that were let go of: their memory may be used again.
    pub fn reclaim(&mut self) -> impl Iterator<Item = Payload> {
        self.gone.drain(..)
    }

    /// A packet that is still held, and is of this history.
    #[must_use]
    pub fn packet(&self, id: StoredId) -> Option<&Stored> {
        let place = id.number.wrapping_sub(self.first) as usize;
        let (_, stored) = self.packets.get(place)?;
        (id.history == self.id).then_some(stored)
    }

    /// Packets and payload bytes held.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.packets.len(), self.bytes)
    }
}

/// How one packet left for one viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Roll-over counter and sequence number in one.
    pub seq: u64,
    /// Which packet of the track it was.
    pub stored: StoredId,
    /// RTP timestamp, as the viewer saw it.
    pub timestamp: u32,
    /// What differed at the head of its payload.
    pub patch: HeadPatch,
}

impl Sent {
    /// The packet as it left, given what its track keeps of it.
    #[must_use]
    pub fn packet<'a>(&self, stored: &'a Stored) -> MediaPacket<'a> {
        MediaPacket {
            seq: self.seq,
            timestamp: self.timestamp,
            marker: stored.marker,
            payload: &stored.payload,
            patch: self.patch,
            extensions: PacketExtensions {
                audio_level: stored.audio_level,
                video_orientation: stored.video_orientation,
                dependency_descriptor: stored.descriptor.as_deref().unwrap_or_default(),
                frame_number: self.patch.frame_number(),
            },
        }
    }
}

/// Which packets of one history left in one slot, as far back as they may be asked for.
#[derive(Debug)]
pub struct SentLog {
    /// What the milliseconds below count from.
    epoch: Instant,
    /// What all packets in it are of: one of another history begins an empty log.
    history: HistoryId,
    /// Power-of-two many; a number's place is its low bits.
    places: Vec<Place>,
}

/// One packet in the log, 20 bytes: logs are most of what a viewer weighs.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Bits 6 to 21 of its sequence number, whose low bits its place tells. What lies a round of
    /// 2^22 apart is long overwritten.
    round: u16,
    /// Milliseconds from the epoch to when it last left, modulo a minute: a packet that stayed
    /// in the log for that long may be taken for a new one, and kept or held back once too often.
    left_ms: u16,
    /// Its number in the history.
    number: u32,
    timestamp: u32,
    patch: HeadPatch,
    /// How often it was sent again; [`VACANT`] when the place is free.
    resends: u8,
}

const VACANT: u8 = u8::MAX;

/// The bits of a sequence number that the smallest log's places tell.
const ROUND_SHIFT: u32 = LOG_MIN_PLACES.trailing_zeros();

impl SentLog {
    /// An empty log. `now` only sets where its clock begins.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            history: StoredId::NOTHING.history,
            places: Vec::new(),
        }
    }

    /// Remembers a packet that was just sent.
    pub fn insert(&mut self, now: Instant, sent: &Sent) {
        if self.history != sent.stored.history {
            self.history = sent.stored.history;
            self.clear();
        }
        let left_ms = self.ms(now);
        while self.would_lose(sent.seq, left_ms) {
            self.grow();
        }
        if self.place(sent.seq) == 0 {
            self.shrink(left_ms);
        }
        let at = self.place(sent.seq);
        self.places[at] = Place {
            round: round(sent.seq),
            left_ms,
            number: sent.stored.number,
            timestamp: sent.timestamp,
            patch: sent.patch,
            resends: 0,
        };
    }

    /// Asks for the places of the next packets after `highest`.
    pub(super) fn prefetch(&self, highest: Option<u64>) {
        let first = highest.map_or(0, |highest| self.place(highest + 1));
        prefetch(some_of(&self.places, first));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.places.fill(Place::VACANT);
    }

    /// How a packet left, unless it is forgotten.
    #[must_use]
    pub fn sent(&self, seq: u64) -> Option<Sent> {
        let place = self.occupied(seq)?;
        Some(Sent {
            seq,
            stored: StoredId {
                history: self.history,
                number: place.number,
            },
            timestamp: place.timestamp,
            patch: place.patch,
        })
    }

    /// How long ago a packet last left and how often it was sent again.
    pub(super) fn resent(&self, now: Instant, seq: u64) -> Option<(Duration, u8)> {
        let place = self.occupied(seq)?;
        let ago_ms = self.ms(now).wrapping_sub(place.left_ms);
        Some((Duration::from_millis(ago_ms.into()), place.resends))
    }

    /// Notes that a packet is sent again.
    pub(super) fn handle_resend(&mut self, now: Instant, seq: u64) {
        let left_ms = self.ms(now);
        if self.occupied(seq).is_some() {
            let at = self.place(seq);
            self.places[at].left_ms = left_ms;
            self.places[at].resends = (self.places[at].resends + 1).min(VACANT - 1);
        }
    }

    /// Whether a packet that may still be asked for would have to make room.
    fn would_lose(&self, seq: u64, now_ms: u16) -> bool {
        if self.places.is_empty() {
            return true;
        }
        let place = &self.places[self.place(seq)];
        let ago_ms = u128::from(now_ms.wrapping_sub(place.left_ms));
        // What was sent again is older than when it last left; it makes room.
        let is_live = place.resends == 0 && ago_ms <= HISTORY_AGE.as_millis();
        is_live && place.round != round(seq) && self.places.len() < LOG_MAX_PLACES
    }

    /// Doubles the places. Rare: four times until there are most.
    fn grow(&mut self) {
        let places = (self.places.len() * 2).clamp(LOG_MIN_PLACES, LOG_MAX_PLACES);
        let old = std::mem::replace(&mut self.places, vec![Place::VACANT; places]);
        for (low, place) in old.into_iter().enumerate() {
            if place.resends != VACANT {
                // The bits of the round overlap with those of the place.
                let at = (usize::from(place.round) << ROUND_SHIFT) | (low % LOG_MIN_PLACES);
                self.places[at & (places - 1)] = place;
            }
        }
    }

    /// Halves the places, before the first is used again, when half of them tell enough.
    fn shrink(&mut self, now_ms: u16) {
        let half = self.places.len() / 2;
        let place = &self.places[half];
        let ago_ms = u128::from(now_ms.wrapping_sub(place.left_ms));
        let is_told_twice = place.resends == VACANT || ago_ms > HISTORY_AGE.as_millis();
        if half >= LOG_MIN_PLACES && is_told_twice {
            self.places.drain(..half);
            self.places.shrink_to_fit();
        }
    }

    fn occupied(&self, seq: u64) -> Option<&Place> {
        let place = self.places.get(self.place(seq))?;
        (place.resends != VACANT && place.round == round(seq)).then_some(place)
    }

    fn place(&self, seq: u64) -> usize {
        seq as usize & self.places.len().wrapping_sub(1)
    }

    fn ms(&self, now: Instant) -> u16 {
        now.saturating_duration_since(self.epoch).as_millis() as u16
    }
}

/// What tells apart the numbers that share a place.
fn round(seq: u64) -> u16 {
    (seq >> ROUND_SHIFT) as u16
}

impl Place {
    const VACANT: Self = Self {
        round: 0,
        left_ms: 0,
        number: 0,
        timestamp: 0,
        patch: HeadPatch::NONE,
        resends: VACANT,
    };
}

const _: () = assert!(size_of::<Place>() <= 20, "the sizes above say 20 bytes");
const _: () = assert!(LOG_MAX_PLACES.is_power_of_two() && LOG_MIN_PLACES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::super::fixture::some_instant;
    use super::*;

    fn stored(len: usize) -> Stored {
        Stored {
            payload: vec![7; len].as_slice().into(),
            descriptor: None,
            audio_level: None,
            video_orientation: None,
            marker: false,
        }
    }

    fn id(number: u32) -> StoredId {
        let history = HistoryId(1);
        StoredId { history, number }
    }

    fn sent(seq: u64, stored: StoredId) -> Sent {
        Sent {
            seq,
            stored,
            timestamp: seq as u32 * 3_000,
            patch: HeadPatch::NONE,
        }
    }

    #[test]
    fn a_history_is_bounded_in_packets_bytes_and_age() {
        let now = some_instant();
        let mut history = TrackHistory::new(HistoryId(1));
        let first = history.push(now, stored(1));
        for _ in 1..HISTORY_PACKETS {
            history.push(now, stored(1));
        }
        assert!(history.packet(first).is_some());
        history.push(now, stored(1));
        assert!(history.packet(first).is_none());
        assert_eq!(history.size(), (HISTORY_PACKETS, HISTORY_PACKETS));

        let big = history.push(now, stored(HISTORY_BYTES));
        assert_eq!(history.size(), (1, HISTORY_BYTES));
        let later = now + HISTORY_AGE;
        history.handle_timeout(later);
        assert!(history.packet(big).is_some());
        history.handle_timeout(later + Duration::from_millis(1));
        assert_eq!(history.size(), (0, 0));
        assert!(history.packet(big).is_none());
    }

    #[test]
    fn ids_stay_true_when_they_wrap() {
        let now = some_instant();
        let mut history = TrackHistory::new(HistoryId(1));
        history.first = u32::MAX - 1;
        let ids: Vec<StoredId> = (0..5).map(|len| history.push(now, stored(len))).collect();
        for (len, id) in ids.iter().enumerate() {
            let found = history.packet(*id).map(|stored| stored.payload.len());
            assert_eq!(found, Some(len));
        }
        assert!(history.packet(id(u32::MAX - 2)).is_none());
        assert!(history.packet(id(4)).is_none());
    }

    #[test]
    fn a_packet_of_one_track_is_never_taken_for_anothers() {
        let now = some_instant();
        let mut before = TrackHistory::new(HistoryId(1));
        let mut after = TrackHistory::new(HistoryId(2));
        let old = before.push(now, stored(1));
        let new = after.push(now, stored(2));
        assert!(before.packet(old).is_some() && after.packet(new).is_some());
        assert!(after.packet(old).is_none() && before.packet(new).is_none());
    }

    #[test]
    fn a_log_grows_while_packets_are_young_and_stops_at_its_limit() {
        let now = some_instant();
        let mut log = SentLog::new(now);
        let stored = id(0);
        assert!(log.sent(0).is_none());
        for seq in 1..=500 {
            log.insert(now, &sent(seq, stored));
        }
        assert!((1..=500).all(|seq| log.sent(seq) == Some(sent(seq, stored))));
        assert_eq!(log.places.len(), 512);
        for seq in 501..=5_000 {
            log.insert(now, &sent(seq, stored));
        }
        assert_eq!(log.places.len(), LOG_MAX_PLACES);
        let kept = 5_001 - LOG_MAX_PLACES as u64;
        assert!(log.sent(kept - 1).is_none() && log.sent(kept).is_some());
    }

    #[test]
    fn a_slow_stream_keeps_a_small_log() {
        let now = some_instant();
        let mut log = SentLog::new(now);
        for seq in 1..=2_000_u32 {
            let now = now + Duration::from_millis(20) * seq;
            log.insert(now, &sent(seq.into(), id(seq)));
        }
        assert_eq!(log.places.len(), LOG_MIN_PLACES);
        assert!(log.sent(1_950).is_some());
    }

    #[test]
    fn resends_do_not_make_a_log_grow() {
        let now = some_instant();
        let mut log = SentLog::new(now);
        for seq in 1..=5_000_u32 {
            let now = now + Duration::from_millis(10) * seq;
            log.insert(now, &sent(seq.into(), id(seq)));
            log.handle_resend(now, seq.saturating_sub(90).into());
        }
        assert_eq!(log.places.len(), 2 * LOG_MIN_PLACES);
    }

    #[test]
    fn a_cleared_log_knows_nothing() {
        let now = some_instant();
        let mut log = SentLog::new(now);
        log.insert(now, &sent(9, id(1)));
        log.clear();
        assert_eq!(log.sent(9), None);
        assert_eq!(log.sent(0), None);
    }

    #[test]
    fn numbers_with_equal_low_bits_are_not_confused() {
        let now = some_instant();
        let mut log = SentLog::new(now);
        log.insert(now, &sent(0x1_0005, id(1)));
        assert_eq!(log.sent(5), None);
        assert_eq!(log.sent(0x2_0005), None);
        assert!(log.sent(0x1_0005).is_some());
    }
}
