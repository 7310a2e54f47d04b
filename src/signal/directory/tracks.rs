//! What the members of rooms publish.

use super::{Directory, MemberTrack};
use crate::engine::command::TrackInfo;
use crate::id::TrackId;
use crate::signal::happening::Happening;

impl Directory {
    /// Remembers a track of a peer. `false` when the peer is in no room.
    pub fn publish(&mut self, info: TrackInfo) -> bool {
        let Some(member) = self.member_mut(info.id.peer) else {
            return false;
        };
        member.tracks.retain(|track| track.info.id != info.id);
        let (told, muted) = (info.clone(), None);
        member.tracks.push(MemberTrack { info, muted });
        if let Some(room) = self.peers.get(&told.id.peer) {
            self.happenings
                .push_back(Happening::published(room.clone(), &told));
        }
        true
    }

    /// Forgets a track. `false` when it was not known.
    pub fn unpublish(&mut self, id: TrackId) -> bool {
        let Some(member) = self.member_mut(id.peer) else {
            return false;
        };
        let before = member.tracks.len();
        member.tracks.retain(|track| track.info.id != id);
        let known = member.tracks.len() < before;
        if let (true, Some(room)) = (known, self.peers.get(&id.peer)) {
            self.happenings
                .push_back(Happening::unpublished(room.clone(), id));
        }
        known
    }

    /// A track that is published.
    pub fn track_mut(&mut self, id: TrackId) -> Option<&mut MemberTrack> {
        let tracks = &mut self.member_mut(id.peer)?.tracks;
        tracks.iter_mut().find(|track| track.info.id == id)
    }
}
