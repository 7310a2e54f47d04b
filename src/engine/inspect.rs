//! What somebody who looks for a fault wants to know of a room's peers.

use std::time::Instant;

use super::Engine;
use super::arena::Arena;
use super::command::{Event, PeerReport};
use super::figures::figures;
use super::peer::Peer;
use super::tcp;
use super::track::Track;
use crate::id::RoomId;

impl Engine {
    /// Answers with [`Event::Inspected`], also for a room that has no peers here.
    pub(super) fn inspect(&mut self, now: Instant, room: RoomId) {
        let found = self.room_names.get(&room);
        let found = found.and_then(|key| self.rooms.get(*key));
        let keys = found
            .map(|found| found.peers.as_slice())
            .unwrap_or_default();
        let peers = keys.iter().filter_map(|key| self.peers.get(*key));
        let peers = peers.map(|peer| report(now, peer, &self.tracks)).collect();
        self.tell(Event::Inspected { room, peers });
    }
}

fn report(now: Instant, peer: &Peer, tracks: &Arena<Track>) -> PeerReport {
    let remote = peer.path.map(|path| path.destination);
    let is_tcp = |remote| peer.addresses.contains(tcp::marked(remote));
    PeerReport {
        peer: peer.id,
        has_offered: peer.remote_ufrag.is_some(),
        missing: peer.missing_step(),
        is_connected: peer.is_connected(),
        remote,
        is_tcp: remote.is_some_and(is_tcp),
        slots: peer.slots.iter().filter(|slot| slot.open).count(),
        figures: figures(now, peer, tracks),
    }
}
