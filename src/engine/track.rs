//! One published track: its layers, its codecs as its publisher numbers them, who watches it.

use std::sync::Arc;
use std::time::Instant;

use str0m::format::PayloadParams;
use str0m::media::{Mid, Pt, Rid};

use super::arena::Key;
use super::codec::{Codec, PayloadFacts};
use super::command::TrackInfo;
use super::copies::Tap;
use super::egress::clock::StreamClock;
use super::egress::history::{HistoryId, StoredId, TrackHistory};
use super::ingress::payload::Payload;
use super::keyframe::{KeyframeRequests, Pacing};
use super::layers::{Layering, Layers};
use super::limits::TRACK_LAYERS;
use super::peer::Peer;
use super::replay::Replay;
use super::room::Room;
use super::speakers::Loudness;
use super::svc;
use super::wanted::Wanted;

/// Of a stream with layers in it those up to this place are always wanted: a publisher that sent
/// one of them only would send a stream without layers, of which nobody knows what it could have.
const LEAST_SPATIAL: u8 = 1;

/// What a peer publishes in one m-line.
#[derive(Debug)]
pub(crate) struct Track {
    /// As others may know it.
    pub(crate) info: TrackInfo,
    /// Who sends it.
    pub(crate) publisher: Key<Peer>,
    /// Where it can be watched.
    pub(crate) room: Key<Room>,
    /// The publisher's m-line.
    pub(crate) mid: Mid,
    /// One per RID; a track without simulcast has one, without a RID.
    pub(crate) layers: Vec<Layer>,
    /// What is seen of each of them.
    pub(crate) seen: Layers,
    /// What its publisher was told of its layers.
    pub(crate) wanted: Wanted,
    /// How loud it is; a picture stays silent.
    pub(crate) loudness: Loudness,
    /// When who speaks in it is to be found silent, unless more is heard; always ahead.
    pub(crate) speech_ends: Option<Instant>,
    /// The slots it plays in.
    pub(crate) watchers: Vec<Watcher>,
    /// Its packets of this turn that were not offered yet.
    pub(crate) queued: Queued,
    /// What can be sent again, all layers in one.
    pub(crate) history: TrackHistory,
    /// The payload types its publisher may send.
    formats: Vec<Format>,
    /// How it is copied for a recorder.
    pub(super) tap: Option<Tap>,
    /// How often its publisher is asked for keyframes.
    pacing: Pacing,
}

/// One encoding of a track.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Its `a=rid`; `None` without simulcast.
    pub(crate) rid: Option<Rid>,
    /// Its timestamps on our wall clock; from its first packet, then from sender reports.
    pub(crate) clock: Option<StreamClock>,
    /// Reads the dependency descriptors of its packets.
    pub(crate) descriptors: svc::Reader,
    /// Its last keyframe, for who comes just then.
    pub(crate) replay: Replay<MediaPacket>,
    /// When the publisher is asked for a keyframe of it.
    pub(crate) keyframes: KeyframeRequests,
}

/// One slot that a track plays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watcher {
    /// Whose slot.
    pub(crate) peer: Key<Peer>,
    /// Its index in [`Peer::slots`].
    pub(crate) slot: u8,
    /// Layers it may take a packet of as things stand, a bit each: the slot is asked about no
    /// others.
    pub(crate) takes: u8,
    /// Up to which place layers make sense to it, whatever its path carries.
    pub(crate) reach: u8,
}

/// Packets of a turn that were not offered yet to those who watch.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    /// Their places in the turn, in order.
    pub(crate) places: Vec<u32>,
    /// The layers they are of, a bit each.
    pub(crate) layers: u8,
}

impl Queued {
    /// All were offered.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.layers = 0;
    }
}

/// One payload type of a publisher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pt: Pt,
    /// To find the same format among a subscriber's payload types.
    pub(crate) params: PayloadParams,
    /// What its payload means; `None` when it is forwarded without being read.
    pub(crate) codec: Option<Codec>,
}

impl Format {
    /// Whether that payload type is its redundant one (RED): each packet carries earlier sound too.
    pub(crate) fn is_redundant(&self, pt: Pt) -> bool {
        self.pt != pt
    }
}

/// One packet of a track, from when it arrived to when it leaves.
#[derive(Debug, Clone)]
pub(crate) struct MediaPacket {
    /// Of which track.
    pub(crate) track: Key<Track>,
    /// In which of its streams it came.
    pub(crate) layer: u8,
    /// That stream has layers in it.
    pub(crate) is_svc: bool,
    /// When it arrived.
    pub(crate) arrived: Instant,
    /// Extended sequence number as received.
    pub(crate) seq: u64,
    /// RTP timestamp as received.
    pub(crate) timestamp: u32,
    /// RTP marker bit.
    pub(crate) marker: bool,
    /// Payload type as received.
    pub(crate) pt: Pt,
    /// Shared by every subscriber.
    pub(crate) payload: Payload,
    /// Its audio level (RFC 6464), with the voice flag on top.
    pub(crate) audio_level: Option<u8>,
    /// Its video orientation (3GPP TS 26.114).
    pub(crate) video_orientation: Option<u8>,
    /// The clock of its timestamp.
    pub(crate) clock: StreamClock,
    /// Its place in [`Track::history`].
    pub(crate) stored: StoredId,
    /// What its payload says, or its dependency descriptor.
    pub(crate) facts: PayloadFacts,
    /// Its dependency descriptor, if it has one that makes sense.
    pub(crate) frame: Option<Arc<svc::Frame>>,
}

impl Track {
    pub(crate) fn new(
        info: TrackInfo,
        publisher: Key<Peer>,
        room: Key<Room>,
        mid: Mid,
        history: HistoryId,
        pacing: Pacing,
    ) -> Self {
        Self {
            info,
            publisher,
            room,
            mid,
            layers: Vec::new(),
            seen: Layers::default(),
            wanted: Wanted::default(),
            loudness: Loudness::default(),
            speech_ends: None,
            watchers: Vec::new(),
            queued: Queued::default(),
            history: TrackHistory::new(history),
            formats: Vec::new(),
            tap: None,
            pacing,
        }
    }

    /// The layer of this RID, made when it is new; `None` past [`TRACK_LAYERS`].
    pub(crate) fn layer(&mut self, rid: Option<Rid>) -> Option<u8> {
        let index = match self.layers.iter().position(|layer| layer.rid == rid) {
            Some(index) => index,
            None if self.layers.len() < TRACK_LAYERS => {
                self.layers.push(Layer {
                    rid,
                    clock: None,
                    descriptors: svc::Reader::default(),
                    replay: Replay::default(),
                    keyframes: KeyframeRequests::new(self.pacing.of(true)),
                });
                self.layers.len() - 1
            }
            None => return None,
        };
        u8::try_from(index).ok()
    }

    /// Queues the packet at `place` of the turn. `true` for the first since all were offered.
    pub(crate) fn queue(&mut self, place: usize, layer: u8) -> bool {
        let queued = &mut self.queued;
        let is_first = queued.places.is_empty();
        queued
            .places
            .push(u32::try_from(place).expect("TURN_PACKETS is small"));
        queued.layers |= 1 << layer;
        is_first
    }

    /// Whether its layers are in one stream.
    pub(crate) fn is_svc(&self) -> bool {
        self.seen.layering() != Layering::Simulcast
    }

    /// The stream a layer is in: its own, or the only one.
    pub(crate) fn stream_of(&self, layer: u8) -> u8 {
        if self.is_svc() { 0 } else { layer }
    }

    /// Takes note of which layers one of its slots takes from here on.
    pub(crate) fn handle_aim(&mut self, viewer: Key<Peer>, slot: usize, takes: u8, reach: u8) {
        let takes = if self.is_svc() { 1 } else { takes };
        let mut watchers = self.watchers.iter_mut();
        let is_slot = |w: &&mut Watcher| w.peer == viewer && usize::from(w.slot) == slot;
        if let Some(watcher) = watchers.find(is_slot) {
            watcher.takes = takes;
            watcher.reach = reach;
        }
    }

    /// Up to which place its layers make sense to anybody; `None` when all do.
    pub(crate) fn reach(&self) -> Option<u8> {
        let top = self.seen.places().checked_sub(1)?;
        if self.tap.is_some() {
            return None;
        }
        let reach = self.watchers.iter().map(|watcher| watcher.reach).max();
        let least = if self.is_svc() { LEAST_SPATIAL } else { 0 };
        let reach = reach.unwrap_or(0).max(least);
        Some(reach).filter(|reach| *reach < top)
    }

    /// Asks less often for keyframes of the smaller layers; of use after their order changed.
    pub(crate) fn pace_keyframes(&mut self) {
        let top = self.seen.live().next_back();
        let top = top.map(|top| self.stream_of(top));
        for (layer, index) in self.layers.iter_mut().zip(0..) {
            let is_biggest = top.is_none_or(|top| top == index);
            layer.keyframes.set_options(self.pacing.of(is_biggest));
        }
    }

    /// Which payload types the publisher may send, from its latest offer.
    pub(crate) fn set_formats(&mut self, params: impl Iterator<Item = PayloadParams>) {
        self.formats = params
            .map(|params| Format {
                pt: params.pt(),
                params,
                codec: Codec::from_str0m(params.spec().codec),
            })
            .collect();
    }

    /// The format of one of the publisher's payload types.
    pub(crate) fn format(&self, pt: Pt) -> Option<&Format> {
        let mut formats = self.formats.iter();
        formats.find(|format| format.pt == pt || format.params.red() == Some(pt))
    }

    /// When a keyframe request is due, over all layers, or speech is over.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let keyframes = self
            .layers
            .iter()
            .filter_map(|layer| layer.keyframes.wakeup());
        let wanted = self.wanted.wakeup();
        keyframes.chain(self.speech_ends).chain(wanted).min()
    }
}
