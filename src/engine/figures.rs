//! How a peer is served, in figures: for its client, and for who looks for a fault.
//!
//! Everything here is known already and only read when somebody asks.

use std::time::{Duration, Instant};

use super::Engine;
use super::arena::Arena;
use super::codec::Size;
use super::command::{Event, Kind, Reason};
use super::peer::Peer;
use super::subscription::Slot;
use super::track::Track;
use crate::id::{PeerId, TrackId};

/// How one peer is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// What its path carries, as estimated, in bits per second; `None` while it watches nothing.
    pub estimated_bps: Option<u64>,
    /// How it fares with all that it is sent, over the last seconds; `None` until it reports.
    pub fares: Option<Fares>,
    /// The round trip to it; `None` until it is known.
    pub rtt: Option<Duration>,
    /// What plays to it.
    pub watches: Vec<WatchFigures>,
    /// What it publishes.
    pub publishes: Vec<PublishFigures>,
}

/// How something arrives at a client, as it reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fares {
    /// Packets that do not arrive at first, in thousandths.
    pub lost_permille: u32,
    /// How unevenly they arrive (RFC 3550 §6.4.1), in microseconds.
    pub jitter_us: u32,
}

/// One track that plays to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchFigures {
    /// Which.
    pub track: TrackId,
    /// The receiving m-line.
    pub mid: String,
    /// What passes of it, in bits per second.
    pub sent_bps: u64,
    /// How that arrives, by the latest report; `None` until there is one.
    pub fares: Option<Fares>,
    /// The place of the layer that passes, 0 the smallest; `None` while nothing passes.
    pub layer: Option<u8>,
    /// How big its pictures are, if that is known.
    pub size: Option<Size>,
    /// Why it is not better; `None` for sound.
    pub reason: Option<Reason>,
    /// Where pictures stood still, as far as that can be inferred here.
    pub freezes: Freezes,
}

/// One track that a peer publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishFigures {
    /// Which.
    pub track: TrackId,
    /// The m-line it comes in.
    pub mid: String,
    /// Who watches it.
    pub watchers: usize,
    /// Its layers that arrive, the smallest first; a track without layers has one.
    pub layers: Vec<LayerFigures>,
}

/// One layer that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerFigures {
    /// Its `a=rid`; `None` without simulcast.
    pub rid: Option<String>,
    /// What arrives of it, in bits per second.
    pub bps: u64,
    /// How big its pictures are, if it said so.
    pub size: Option<Size>,
}

/// A picture that stands still for less long has not frozen: WebRTC's own count begins there
/// (`freezeCount` in W3C webrtc-stats: a frame that comes 150 ms late).
const NOTICED: Duration = Duration::from_millis(150);

/// When a viewer's picture stood still while it should have moved: from when its decoder asked
/// for a keyframe, or the server stopped in the middle of a stream, until a keyframe left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freezes {
    /// How often.
    pub count: u32,
    /// For how long in all.
    pub total: Duration,
    /// Since when it stands still.
    since: Option<Instant>,
}

impl Freezes {
    /// The picture cannot go on before a keyframe.
    pub fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.since.is_some()
    }

    /// It goes on.
    pub fn end(&mut self, now: Instant) {
        let stood = self
            .since
            .take()
            .map(|since| now.saturating_duration_since(since));
        if let Some(stood) = stood.filter(|stood| *stood >= NOTICED) {
            self.count += 1;
            self.total += stood;
        }
    }

    /// The same with what has not ended.
    #[must_use]
    pub fn until(mut self, now: Instant) -> Self {
        self.end(now);
        self
    }
}

impl Engine {
    /// Answers with [`Event::Measured`]; whoever has left is not answered.
    pub(super) fn measure(&mut self, now: Instant, id: PeerId) {
        let key = self.peer_names.get(&id);
        let Some(peer) = key.and_then(|key| self.peers.get(*key)) else {
            return;
        };
        let figures = Box::new(figures(now, peer, &self.tracks));
        self.tell(Event::Measured { peer: id, figures });
    }
}

/// How a peer is served.
pub(super) fn figures(now: Instant, peer: &Peer, tracks: &Arena<Track>) -> PeerFigures {
    let lines = peer.lines.iter().filter_map(|line| line.track);
    let published = lines.filter_map(|track| tracks.get(track));
    let slots = peer.slots.iter();
    let watches = slots.filter_map(|slot| Some(watch(now, slot, tracks.get(slot.track()?)?)));
    PeerFigures {
        estimated_bps: peer.estimate().map(|estimate| estimate.as_u64()),
        fares: peer.warnings.fares(),
        rtt: peer.warnings.rtt(),
        watches: watches.collect(),
        publishes: published.map(|track| publish(now, track)).collect(),
    }
}

fn watch(now: Instant, slot: &Slot, track: &Track) -> WatchFigures {
    let live = slot.live();
    let sent = |layer| match slot.kind {
        Kind::Audio => track.seen.bps(now, 0, 0),
        Kind::Video => track.seen.sent_bps(now, layer, slot.temporal()),
    };
    let is_picture = slot.kind == Kind::Video;
    WatchFigures {
        track: track.info.id,
        mid: slot.mid.to_string(),
        sent_bps: live.map_or(0, sent),
        fares: slot.fares,
        layer: live
            .filter(|_| is_picture)
            .and_then(|layer| track.seen.place(layer)),
        size: live.and_then(|layer| track.seen.size(layer)),
        reason: slot.reason(),
        freezes: slot.freezes().until(now),
    }
}

fn publish(now: Instant, track: &Track) -> PublishFigures {
    let layer = |layer: u8| LayerFigures {
        rid: track
            .layers
            .get(usize::from(track.stream_of(layer)))
            .and_then(|stream| stream.rid)
            .map(|rid| rid.to_string()),
        bps: track.seen.own_bps(now, layer),
        size: track.seen.size(layer),
    };
    PublishFigures {
        track: track.info.id,
        mid: track.mid.to_string(),
        watchers: track.watchers.len(),
        layers: track.seen.live().map(layer).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;

    #[test]
    fn only_pictures_that_stand_still_for_long_have_frozen() {
        let (mut freezes, start) = (Freezes::default(), origin());
        let at = |ms| start + Duration::from_millis(ms);
        for (from, to) in [(0, 149), (1_000, 1_150), (2_000, 2_400)] {
            freezes.begin(at(from));
            freezes.begin(at(from + 10));
            assert!(freezes.is_frozen());
            freezes.end(at(to));
            freezes.end(at(to + 500));
        }
        assert_eq!(
            (freezes.count, freezes.total),
            (2, Duration::from_millis(550))
        );
        freezes.begin(at(3_000));
        assert_eq!(freezes.until(at(4_000)).count, 3, "it goes on");
        assert_eq!(freezes.count, 2);
    }
}
