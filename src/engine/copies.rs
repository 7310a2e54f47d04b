//! What a recorder gets: copies of the packets of recorded tracks, and their publishers' clocks.
//!
//! Of a track with several layers the largest that arrives is copied, or the largest up to the one
//! that was asked for; which one that is changes at a keyframe only, so that what is written can be
//! decoded. While a room is not recorded a packet costs one look at an `Option`.

use std::time::Instant;

use super::arena::Key;
use super::codec::{Codec, PayloadFacts, red};
use super::command::{Copying, Kind, Quality, TrackInfo};
use super::egress::clock::Ntp;
use super::ingress::payload::Payload;
use super::ingress::receive_side::{Received, Source};
use super::room::Room;
use super::track::Track;
use super::{Engine, Output};
use crate::id::{RecordingNumber, RoomId, TrackId};

/// What a recorder is told by an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copied {
    /// A packet of a recorded track.
    Packet(CopiedPacket),
    /// A sender report of a recorded track.
    Report(CopiedReport),
    /// A recorded track is gone: nothing of it follows.
    Ended {
        /// Of which recording.
        recording: RecordingNumber,
        /// Which.
        track: TrackId,
    },
}

/// A packet of a recorded track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedPacket {
    /// For which recording.
    pub recording: RecordingNumber,
    /// Of which track.
    pub track: TrackInfo,
    /// Of which of its layers. Each has its own sequence numbers and timestamps.
    pub layer: u8,
    /// What the payload is.
    pub codec: Codec,
    /// When it arrived.
    pub arrived: Instant,
    /// Extended sequence number.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// The RTP payload; empty for padding.
    pub payload: Payload,
}

/// Which RTP timestamp a layer has at which time of its publisher's clock (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedReport {
    /// For which recording.
    pub recording: RecordingNumber,
    /// Of which track.
    pub track: TrackId,
    /// Of which of its layers.
    pub layer: u8,
    /// When it arrived.
    pub arrived: Instant,
    /// The publisher's clock, in microseconds since 1970 as it has it.
    pub source_us: i64,
    /// RTP timestamp.
    pub timestamp: u32,
}

/// How a track is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap {
    /// What is wanted, and for whom.
    copying: Copying,
    /// The layer that is copied; `None` until its first keyframe.
    live: Option<u8>,
    /// The layer that a keyframe was asked of, so that it is asked once.
    asked: Option<u8>,
}

impl Tap {
    pub(super) fn new(copying: Copying) -> Self {
        Self {
            copying,
            live: None,
            asked: None,
        }
    }

    /// Whether a packet of `layer` is copied, where `wanted` is the one to be copied.
    fn takes(&mut self, layer: u8, wanted: u8, starts_keyframe: bool) -> bool {
        let can_begin = starts_keyframe || self.copying.is_opaque;
        if self.live != Some(layer) && layer == wanted && can_begin {
            self.live = Some(layer);
            self.asked = None;
        }
        self.live == Some(layer)
    }

    /// The layer that is to be asked for a keyframe, once.
    fn ask(&mut self, wanted: u8) -> Option<u8> {
        if self.live == Some(wanted) || self.asked == Some(wanted) {
            return None;
        }
        self.asked = Some(wanted);
        Some(wanted)
    }
}

/// The layer that is copied, of those that arrive, the smallest first.
fn chosen(quality: Quality, mut live: impl DoubleEndedIterator<Item = u8>) -> Option<u8> {
    match quality {
        Quality::Low => live.next(),
        Quality::Medium => {
            let smallest = live.next();
            live.next().or(smallest)
        }
        Quality::High | Quality::Auto => live.next_back(),
    }
}

impl Track {
    /// The copy of a packet, if the track is recorded and this layer is the one; and the layer
    /// that is to be asked for a keyframe.
    pub(super) fn copy(
        &mut self,
        layer: u8,
        facts: &PayloadFacts,
        now: Instant,
        packet: &Received<'_>,
    ) -> (Option<CopiedPacket>, Option<u8>) {
        let Some(mut tap) = self.tap else {
            return (None, None);
        };
        let wanted = chosen(tap.copying.quality, self.seen.live()).unwrap_or(layer);
        let is_taken = tap.takes(layer, wanted, facts.starts_keyframe);
        let asked = tap.ask(wanted).filter(|_| self.info.kind == Kind::Video);
        self.tap = Some(tap);
        let format = self.format(packet.pt);
        let codec = format.and_then(|format| format.codec);
        let (true, Some(codec)) = (is_taken, codec) else {
            return (None, asked);
        };
        let is_redundant = format.is_some_and(|format| format.is_redundant(packet.pt));
        let payload = match red::primary(&packet.payload) {
            _ if !is_redundant || packet.payload.is_empty() => packet.payload.clone(),
            Some(own) => own.into(),
            None => return (None, asked),
        };
        let copied = CopiedPacket {
            recording: tap.copying.recording,
            track: self.info.clone(),
            layer,
            codec,
            arrived: now,
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            payload,
        };
        (Some(copied), asked)
    }
}

impl Engine {
    /// Starts or stops copying what is published in a room. A room that nobody is in is forgotten
    /// with its last peer, so whoever asks for this asks again when somebody joins.
    pub(super) fn record(&mut self, now: Instant, room: &RoomId, copying: Option<Copying>) {
        let Some(key) = self.room_names.get(room).copied() else {
            return;
        };
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.copying = copying;
        self.sync_taps(now, key);
    }

    /// Copies what is published in a room if it is recorded, but not what is played to nobody.
    pub(super) fn sync_taps(&mut self, now: Instant, room: Key<Room>) {
        let Some(room) = self.rooms.get(room) else {
            return;
        };
        let mut begun = Vec::new();
        for key in &room.tracks {
            let Some(track) = self.tracks.get_mut(*key) else {
                continue;
            };
            let is_played = !room.silenced.contains(&track.info.id);
            let wanted = room.copying.filter(|_| is_played);
            if track.tap.map(|tap| tap.copying) != wanted {
                track.tap = wanted.map(Tap::new);
                begun.extend(wanted.map(|_| *key));
            }
        }
        for key in begun {
            let track = self.tracks.get(key);
            let wanted = track.and_then(|track| {
                let quality = track.tap?.copying.quality;
                chosen(quality, track.seen.live())
            });
            self.want_keyframe(now, key, wanted.unwrap_or(0));
        }
    }

    /// A recorder lost what it needs to go on: the layer that it gets is asked for a keyframe.
    pub(super) fn renew_recorded(&mut self, now: Instant, id: TrackId) {
        let of_peer = self.peer_names.get(&id.peer);
        let lines = of_peer.and_then(|key| self.peers.get(*key));
        let tracks = lines.into_iter().flat_map(|peer| &peer.lines);
        let mut tracks = tracks.filter_map(|line| line.track);
        let is_it = |track: &Track| track.info.id == id;
        let Some(key) = tracks.find(|key| self.tracks.get(*key).is_some_and(is_it)) else {
            return;
        };
        let live = self.tracks.get(key).and_then(|track| track.tap?.live);
        if let Some(layer) = live {
            self.want_keyframe(now, key, layer);
        }
    }

    /// Copies a sender report: `source` had `timestamp` at `at`.
    pub(super) fn copy_report(
        &mut self,
        now: Instant,
        key: Key<Track>,
        source: &Source,
        (at, timestamp): (Ntp, u32),
    ) {
        let Some(track) = self.tracks.get(key) else {
            return;
        };
        let Some(tap) = track.tap else {
            return;
        };
        let mut layers = track.layers.iter().zip(0_u8..);
        let layer = layers.find(|(layer, _)| layer.rid == source.rid);
        let Some((_, layer)) = layer else {
            return;
        };
        self.outbox
            .push_back(Output::Copied(Copied::Report(CopiedReport {
                recording: tap.copying.recording,
                track: track.info.id,
                layer,
                arrived: now,
                source_us: at.unix_us(),
                timestamp,
            })));
    }

    /// Tells the recorder that nothing more of a track comes.
    pub(super) fn copy_end(&mut self, track: &Track) {
        if let Some(Tap { copying, .. }) = track.tap {
            let (recording, track) = (copying.recording, track.info.id);
            let ended = Copied::Ended { recording, track };
            self.outbox.push_back(Output::Copied(ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying(is_opaque: bool) -> Copying {
        Copying {
            recording: RecordingNumber::new(1),
            quality: Quality::High,
            is_opaque,
        }
    }

    #[test]
    fn the_layer_is_the_one_that_was_asked_for_or_the_next_smaller_that_arrives() {
        let picks = |live: &[u8]| {
            let qualities = [Quality::Low, Quality::Medium, Quality::High];
            qualities.map(|quality| chosen(quality, live.iter().copied()))
        };
        assert_eq!(picks(&[]), [None; 3]);
        assert_eq!(picks(&[7]), [Some(7); 3]);
        assert_eq!(picks(&[7, 3]), [Some(7), Some(3), Some(3)]);
        assert_eq!(picks(&[7, 3, 5]), [Some(7), Some(3), Some(5)]);
    }

    #[test]
    fn what_is_encrypted_is_taken_from_its_first_packet_on() {
        let mut tap = Tap::new(copying(true));
        assert!(tap.takes(0, 0, false));
    }

    #[test]
    fn another_layer_is_taken_from_its_keyframe_on() {
        let mut tap = Tap::new(copying(false));
        assert!(!tap.takes(0, 0, false), "nothing can be decoded yet");
        assert_eq!((tap.ask(0), tap.ask(0)), (Some(0), None));
        assert!(tap.takes(0, 0, true));
        assert!(
            tap.takes(0, 1, false),
            "until the better one can be decoded"
        );
        assert!(!tap.takes(1, 1, false));
        assert_eq!(tap.ask(1), Some(1));
        assert!(tap.takes(1, 1, true));
        assert!(!tap.takes(0, 1, true));
        assert_eq!(tap.ask(1), None);
    }
}
