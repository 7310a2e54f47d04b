//! What has happened in rooms, for whoever wants to know besides those who are in them.

use crate::id::{PeerId, RoomId, TrackId};

/// Everything passes through [`Directory`](super::directory::Directory), in the order in which
/// it happened; the hub takes it from there to one place, `Hub::note`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A room was made, by its first participant or through the API.
    RoomStarted {
        /// Which.
        room: RoomId,
    },
    /// A room is no more.
    RoomFinished {
        /// Which.
        room: RoomId,
    },
    /// A participant is in a room.
    ParticipantJoined {
        /// Where.
        room: RoomId,
        /// Who.
        peer: PeerId,
        /// Who that is by its token, or by its own word.
        identity: Option<String>,
    },
    /// A participant is no longer in its room.
    ParticipantLeft {
        /// Where it was.
        room: RoomId,
        /// Who.
        peer: PeerId,
        /// Who that was by its token, or by its own word.
        identity: Option<String>,
    },
    /// A track can be watched.
    TrackPublished {
        /// Which.
        track: TrackId,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Which.
        track: TrackId,
    },
}
