//! Publishers are told which of a track's layers nobody watches, so that they need not send them.
//!
//! Bandwidth does not count: who would watch a layer if its path carried it is probed by it. What
//! counts is where a track is shown and what its viewers ask for at most. The smallest layer is
//! always wanted: whoever comes begins with it.

use std::time::{Duration, Instant};

use super::Engine;
use super::arena::Key;
use super::command::Event;
use super::peer::Peer;
use super::track::Track;

/// A layer is said to be unwanted when it has been for this long: layouts change to and fro, and
/// a layer that begins again needs a keyframe.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What a publisher was told of one track.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Layers above this place were said to be unwanted; `None` when all are wanted.
    told: Option<u8>,
    /// Since when less has been wanted than was told.
    less_since: Option<Instant>,
}

impl Wanted {
    /// Takes in up to which place layers are wanted; `None` for all. Whether the publisher is to
    /// be told: of more at once, of less when that lasts.
    pub(crate) fn handle_reach(&mut self, now: Instant, reach: Option<u8>) -> bool {
        let place = |reach: Option<u8>| reach.unwrap_or(u8::MAX);
        if place(reach) >= place(self.told) {
            self.less_since = None;
            return std::mem::replace(&mut self.told, reach) != reach;
        }
        let since = *self.less_since.get_or_insert(now);
        if now.saturating_duration_since(since) < PATIENCE {
            return false;
        }
        self.less_since = None;
        self.told = reach;
        true
    }

    /// When less has been wanted for long enough to say so.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        Some(self.less_since? + PATIENCE)
    }
}

impl Engine {
    /// Tells a publisher which layers of its tracks nobody watches, where that has changed.
    pub(super) fn weigh_wanted(&mut self, now: Instant, publisher: Key<Peer>) {
        for index in 0.. {
            let Some(peer) = self.peers.get(publisher) else {
                return;
            };
            let id = peer.id;
            let Some(line) = peer.lines.get(index) else {
                return;
            };
            let Some(track) = line.track.and_then(|key| self.tracks.get_mut(key)) else {
                continue;
            };
            let reach = track.reach();
            if track.wanted.handle_reach(now, reach) {
                let event = Event::Unwanted {
                    peer: id,
                    track: track.info.id,
                    mid: track.mid.to_string(),
                    rids: unwanted_rids(track, reach),
                    spatial_layers: unwanted_spatial(track, reach),
                };
                self.tell(event);
            }
        }
    }
}

/// The spatial layers above a place of a track that has them in one stream.
fn unwanted_spatial(track: &Track, reach: Option<u8>) -> Vec<u8> {
    let Some(reach) = reach.filter(|_| track.is_svc()) else {
        return Vec::new();
    };
    (reach + 1..track.seen.places()).collect()
}

/// The RIDs of a track above a place.
fn unwanted_rids(track: &Track, reach: Option<u8>) -> Vec<String> {
    let layers = track.layers.iter().zip(0..);
    let above = layers.filter(|(_, layer)| {
        let place = track.seen.place(*layer);
        place > reach && reach.is_some()
    });
    above
        .filter_map(|(layer, _)| layer.rid.map(|rid| rid.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;

    #[test]
    fn of_more_a_publisher_is_told_at_once_and_of_less_when_it_lasts() {
        let (mut wanted, start) = (Wanted::default(), origin());
        let mut tell = |seconds: u64, reach| {
            let told = wanted.handle_reach(start + Duration::from_secs(seconds), reach);
            (told, wanted.wakeup().is_some())
        };
        assert_eq!(tell(0, None), (false, false));
        assert_eq!(tell(1, Some(0)), (false, true));
        assert_eq!(tell(5, Some(1)), (false, true));
        assert_eq!(tell(6, Some(1)), (true, false));
        assert_eq!(tell(7, Some(1)), (false, false));
        assert_eq!(tell(8, Some(0)), (false, true));
        assert_eq!(tell(9, Some(1)), (false, false), "it came back");
        assert_eq!(tell(20, Some(0)), (false, true));
        assert_eq!(tell(21, None), (true, false));
        assert_eq!(tell(60, None), (false, false));
    }
}
