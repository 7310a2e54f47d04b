//! What a peer may do in its room, and what it does not want to watch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Engine;
use super::allocate::Quality;
use super::arena::Key;
use super::codec::Size;
use super::command::{Permissions, Shown};
use super::peer::Peer;
use crate::id::{PeerId, TrackId};

/// One peer's part in what its room plays to it.
#[derive(Debug)]
pub(crate) struct Wish {
    /// What it may do.
    pub(crate) permissions: Permissions,
    /// Tracks in the room that are not played to it.
    pub(crate) unwanted: BTreeSet<TrackId>,
    /// What it shows, and how; `None` while it has not said.
    layout: Option<BTreeMap<TrackId, Shown>>,
    /// Its caps of single tracks.
    qualities: BTreeMap<TrackId, Quality>,
    /// Its cap of all others.
    quality: Quality,
}

/// How a track is shown that a layout does not name: as the smallest of thumbnails.
const UNNAMED: Shown = Shown {
    size: Size {
        width: 1,
        height: 1,
    },
    priority: 0,
};

impl Wish {
    /// To watch everything that may be watched.
    pub(crate) fn new(permissions: Permissions) -> Self {
        Self {
            permissions,
            unwanted: BTreeSet::new(),
            layout: None,
            qualities: BTreeMap::new(),
            quality: Quality::Auto,
        }
    }

    /// Forgets a track that is gone.
    pub(crate) fn forget(&mut self, track: TrackId) {
        self.unwanted.remove(&track);
        self.qualities.remove(&track);
        if let Some(layout) = &mut self.layout {
            layout.remove(&track);
        }
    }

    /// Whether its layout names a track and has a place for it.
    pub(crate) fn shows(&self, track: TrackId) -> bool {
        let named = self.layout.as_ref().and_then(|layout| layout.get(&track));
        named.is_some_and(|shown| shown.size.pixels() > 0)
    }

    /// How it shows a track; `None` while it has not said.
    pub(crate) fn shown(&self, track: TrackId) -> Option<Shown> {
        let layout = self.layout.as_ref()?;
        Some(layout.get(&track).copied().unwrap_or(UNNAMED))
    }

    /// How good it wants a track at most.
    pub(crate) fn quality(&self, track: TrackId) -> Quality {
        self.qualities.get(&track).copied().unwrap_or(self.quality)
    }

    /// Whether a track is to be played to it.
    pub(crate) fn wants(&self, track: TrackId) -> bool {
        self.permissions.subscribe && !self.unwanted.contains(&track)
    }
}

impl Engine {
    /// From here on a peer may do this. What it publishes and may not is gone at once; what it
    /// may publish besides comes with its next offer.
    pub(super) fn permit(&mut self, now: Instant, id: PeerId, permissions: Permissions) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return;
        };
        let Some(wish) = self.wish_mut(key) else {
            return;
        };
        wish.permissions = permissions;
        self.unpublish_forbidden(key, permissions);
        if let Some(room) = self.peers.get(key).map(|peer| peer.room) {
            self.refresh_peers(now, room, None);
        }
    }

    fn unpublish_forbidden(&mut self, key: Key<Peer>, permissions: Permissions) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let mut gone = Vec::new();
        for line in &mut peer.lines {
            let track = line.track.and_then(|track| self.tracks.get(track));
            if track.is_some_and(|track| !permissions.may_publish(track.info.source)) {
                gone.extend(line.track.take());
            }
        }
        for track in gone {
            self.unpublish(track);
        }
    }

    /// From here on these tracks are played to a peer, or not.
    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        id: PeerId,
        tracks: Vec<TrackId>,
        is_wanted: bool,
    ) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return;
        };
        let published = self.published_in_room_of(key);
        let Some(wish) = self.wish_mut(key) else {
            return;
        };
        for track in tracks {
            if is_wanted {
                wish.unwanted.remove(&track);
            } else if published.contains(&track) {
                wish.unwanted.insert(track);
            }
        }
        self.refresh_peer(now, key);
    }

    /// From here on a peer shows these tracks, and how.
    pub(super) fn show(&mut self, now: Instant, id: PeerId, layout: Vec<(TrackId, Shown)>) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return;
        };
        let published = self.published_in_room_of(key);
        let Some(wish) = self.wish_mut(key) else {
            return;
        };
        let layout = layout.into_iter();
        wish.layout = Some(layout.filter(|(id, _)| published.contains(id)).collect());
        self.refresh_peer(now, key);
        self.allocate(now, key);
    }

    /// From here on a peer wants a track, or all it has not named before, at most this good.
    pub(super) fn cap_quality(
        &mut self,
        now: Instant,
        id: PeerId,
        track: Option<TrackId>,
        quality: Quality,
    ) {
        let Some(key) = self.peer_names.get(&id).copied() else {
            return;
        };
        let published = self.published_in_room_of(key);
        let Some(wish) = self.wish_mut(key) else {
            return;
        };
        match track {
            Some(track) if published.contains(&track) => {
                wish.qualities.insert(track, quality);
            }
            Some(_) => return,
            None => {
                wish.qualities.clear();
                wish.quality = quality;
            }
        }
        self.allocate(now, key);
    }

    /// From here on a track is played to nobody, or to whoever wants it.
    pub(super) fn silence(&mut self, now: Instant, track: TrackId, is_silent: bool) {
        let Some(key) = self.peer_names.get(&track.peer).copied() else {
            return;
        };
        let is_published = self.published_in_room_of(key).contains(&track);
        let Some(room_key) = self.peers.get(key).map(|peer| peer.room) else {
            return;
        };
        let Some(room) = self.rooms.get_mut(room_key) else {
            return;
        };
        if !is_silent {
            room.silenced.remove(&track);
        } else if is_published {
            room.silenced.insert(track);
        }
        self.sync_taps(now, room_key);
        self.refresh_peers(now, room_key, None);
    }

    /// What a peer may do: everything, unless its room says otherwise.
    pub(super) fn permissions_of(&self, key: Key<Peer>) -> Permissions {
        let room = self
            .peers
            .get(key)
            .and_then(|peer| self.rooms.get(peer.room));
        let wish = room.and_then(|room| room.wishes.get(&key));
        wish.map_or(Permissions::ALL, |wish| wish.permissions)
    }

    fn wish_mut(&mut self, key: Key<Peer>) -> Option<&mut Wish> {
        let room = self.peers.get(key)?.room;
        self.rooms.get_mut(room)?.wishes.get_mut(&key)
    }

    fn published_in_room_of(&self, key: Key<Peer>) -> BTreeSet<TrackId> {
        let room = self
            .peers
            .get(key)
            .and_then(|peer| self.rooms.get(peer.room));
        let tracks = room.into_iter().flat_map(|room| &room.tracks);
        tracks
            .filter_map(|track| Some(self.tracks.get(*track)?.info.id))
            .collect()
    }
}
