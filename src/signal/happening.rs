//! What has happened in rooms and calls, for whoever wants to know besides those who are in them.
//!
//! A new kind of event is a variant of [`Happening`], told to the hub as
//! [`Input::Happened`](super::hub::Input::Happened) by whoever sees it happen: webhooks,
//! `/api/events` and the call log take it from there.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::command::{CloseReason, TrackInfo};
use crate::id::{PeerId, RoomId, TrackId};
use crate::signal::message::{KickReason, KindName, RoomClosedReason, Shown, SourceName};

/// An event as it is told: once, with its name and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Notice {
    /// Its name, which no other event has. One that is told twice has it twice.
    pub id: String,
    /// When it happened, in milliseconds since 1970.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What happened. Whatever happens in rooms passes through
/// [`Directory`](super::directory::Directory), in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Happening {
    /// A room was made, by its first participant or through the API.
    #[serde(rename_all = "camelCase")]
    RoomStarted {
        /// Which.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
    },
    /// A room is no more.
    #[serde(rename_all = "camelCase")]
    RoomFinished {
        /// Which.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// Why.
        reason: FinishReason,
    },
    /// A participant is in a room.
    #[serde(rename_all = "camelCase")]
    ParticipantJoined {
        /// Where.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// Who.
        #[schema(value_type = String)]
        participant_id: Shown<PeerId>,
        /// Who that is by its token, or by its own word.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// What it calls itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A participant is no longer in its room.
    #[serde(rename_all = "camelCase")]
    ParticipantLeft {
        /// Where it was.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// Who.
        #[schema(value_type = String)]
        participant_id: Shown<PeerId>,
        /// Who that was by its token, or by its own word.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// Why.
        reason: LeaveReason,
    },
    /// A track can be watched.
    #[serde(rename_all = "camelCase")]
    TrackPublished {
        /// Where.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// Whose.
        #[schema(value_type = String)]
        participant_id: Shown<PeerId>,
        /// Which.
        #[schema(value_type = String)]
        track_id: Shown<TrackId>,
        /// Audio or video.
        kind: KindName,
        /// Where it comes from.
        source: SourceName,
    },
    /// A track is gone.
    #[serde(rename_all = "camelCase")]
    TrackUnpublished {
        /// Where.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// Whose.
        #[schema(value_type = String)]
        participant_id: Shown<PeerId>,
        /// Which.
        #[schema(value_type = String)]
        track_id: Shown<TrackId>,
    },
    /// A call, or a room, of a dialect began.
    #[serde(rename_all = "camelCase")]
    CallStarted {
        /// Where.
        dialect: DialectName,
        /// Which.
        call_id: String,
    },
    /// A user takes part in it.
    #[serde(rename_all = "camelCase")]
    CallJoined {
        /// Where.
        dialect: DialectName,
        /// Which.
        call_id: String,
        /// Who.
        user_id: String,
    },
    /// A user no longer takes part in it.
    #[serde(rename_all = "camelCase")]
    CallLeft {
        /// Where.
        dialect: DialectName,
        /// Which.
        call_id: String,
        /// Who.
        user_id: String,
    },
    /// A call, or a room, of a dialect is over.
    #[serde(rename_all = "camelCase")]
    CallEnded {
        /// Where.
        dialect: DialectName,
        /// Which.
        call_id: String,
        /// Why.
        reason: EndReason,
    },
    /// A room is being recorded.
    #[serde(rename_all = "camelCase")]
    RecordingStarted {
        /// Which.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// What the recording is called.
        recording_id: String,
    },
    /// A room is no longer recorded.
    #[serde(rename_all = "camelCase")]
    RecordingFinished {
        /// Which.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// What the recording is called.
        recording_id: String,
        /// Why.
        reason: crate::record::manifest::EndReason,
    },
    /// One file was made of all tracks of a recording.
    #[serde(rename_all = "camelCase")]
    RecordingComposed {
        /// Which room it is of.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// What the recording is called.
        recording_id: String,
        /// The file, below the directory of all recordings.
        file: String,
    },
    /// A recording is in the object store.
    #[serde(rename_all = "camelCase")]
    RecordingUploaded {
        /// Which room it is of.
        #[schema(value_type = String)]
        room_id: Shown<RoomId>,
        /// What the recording is called.
        recording_id: String,
        /// Where its files are, such as `s3://BUCKET/DIRECTORY`.
        location: String,
    },
}

/// Where something happened, as the call log names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting<'a> {
    /// A room of ours.
    Room(&'a RoomId),
    /// A call, or a room, of a dialect.
    Call(DialectName, &'a str),
}

impl Meeting<'_> {
    /// `room`, or the dialect.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Room(_) => "room",
            Self::Call(DialectName::Webrtc, _) => "webrtc",
            Self::Call(DialectName::Call, _) => "call",
            Self::Call(DialectName::P2p, _) => "p2p",
            Self::Call(DialectName::Mesh, _) => "mesh",
        }
    }

    /// What its members call it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Room(room) => room.as_str(),
            Self::Call(_, name) => name,
        }
    }
}

/// One of the protocols under `/ws/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DialectName {
    /// `/ws/webrtc`
    Webrtc,
    /// `/ws/call`
    Call,
    /// `/ws/p2p`
    P2p,
    /// `/ws/mesh`
    Mesh,
}

impl Happening {
    /// Where it happened.
    #[must_use]
    pub fn meeting(&self) -> Meeting<'_> {
        match self {
            Self::RoomStarted { room_id }
            | Self::RoomFinished { room_id, .. }
            | Self::ParticipantJoined { room_id, .. }
            | Self::ParticipantLeft { room_id, .. }
            | Self::TrackPublished { room_id, .. }
            | Self::TrackUnpublished { room_id, .. }
            | Self::RecordingStarted { room_id, .. }
            | Self::RecordingFinished { room_id, .. }
            | Self::RecordingComposed { room_id, .. }
            | Self::RecordingUploaded { room_id, .. } => Meeting::Room(&room_id.0),
            Self::CallStarted { dialect, call_id }
            | Self::CallJoined {
                dialect, call_id, ..
            }
            | Self::CallLeft {
                dialect, call_id, ..
            }
            | Self::CallEnded {
                dialect, call_id, ..
            } => Meeting::Call(*dialect, call_id),
        }
    }

    /// A track of this room can be watched.
    #[must_use]
    pub fn published(room: RoomId, track: &TrackInfo) -> Self {
        Self::TrackPublished {
            room_id: Shown(room),
            participant_id: Shown(track.id.peer),
            track_id: Shown(track.id),
            kind: track.kind.into(),
            source: track.source.into(),
        }
    }

    /// A track of this room is gone.
    #[must_use]
    pub fn unpublished(room: RoomId, track: TrackId) -> Self {
        Self::TrackUnpublished {
            room_id: Shown(room),
            participant_id: Shown(track.peer),
            track_id: Shown(track),
        }
    }
}

/// Why a participant is no longer in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveReason {
    /// It said so.
    Left,
    /// Its WebSocket was closed or lost, and it did not come back in time.
    Disconnected,
    /// It did not read what it was told.
    TooSlow,
    /// An administrator removed it.
    Removed,
    /// Somebody of the same identity took its place.
    Replaced,
    /// It broke a rule, or its token no longer held.
    BrokeRules,
    /// Its media connection was lost, or never came about.
    MediaLost,
    /// The server had no place for it, or more to do than it can take.
    NoPlace,
    /// Our fault.
    ServerError,
    /// The room was deleted through the API.
    RoomDeleted,
    /// The server stops.
    ServerStopped,
}

impl From<CloseReason> for LeaveReason {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Left => Self::Removed,
            CloseReason::ConnectionLost | CloseReason::ConnectTimeout(_) => Self::MediaLost,
            CloseReason::Misbehaved => Self::BrokeRules,
            CloseReason::Panicked => Self::ServerError,
            CloseReason::Full => Self::NoPlace,
        }
    }
}

impl From<KickReason> for LeaveReason {
    fn from(reason: KickReason) -> Self {
        match reason {
            KickReason::Removed => Self::Removed,
            KickReason::DuplicateIdentity => Self::Replaced,
        }
    }
}

impl From<RoomClosedReason> for LeaveReason {
    fn from(reason: RoomClosedReason) -> Self {
        match reason {
            RoomClosedReason::Deleted => Self::RoomDeleted,
            RoomClosedReason::ServerShutdown => Self::ServerStopped,
        }
    }
}

/// Why a room is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// Its last participant left.
    Empty,
    /// It was kept, and nobody came for too long.
    Idle,
    /// It was deleted through the API.
    Deleted,
    /// The server stops.
    ServerStopped,
}

impl From<LeaveReason> for FinishReason {
    /// What the reason of the last one who left means for the room.
    fn from(last: LeaveReason) -> Self {
        match last {
            LeaveReason::RoomDeleted => Self::Deleted,
            LeaveReason::ServerStopped => Self::ServerStopped,
            _ => Self::Empty,
        }
    }
}

/// Why a call of a dialect is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// One of its members said so.
    Ended,
    /// All who were rung rejected it.
    Rejected,
    /// Somebody's WebSocket was closed.
    Disconnected,
    /// Its last member left.
    Empty,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::command::{Kind, Source};

    #[test]
    fn each_event_is_told_in_one_flat_object() {
        let peer = PeerId::new(42);
        let room = RoomId::parse("daily").unwrap();
        let track = TrackInfo {
            id: TrackId { peer, number: 1 },
            kind: Kind::Video,
            source: Source::Screen,
        };
        let told = |what| {
            let (id, at) = ("e_1_1".to_owned(), 5);
            serde_json::to_value(Notice { id, at, what }).unwrap()
        };
        let published = told(Happening::published(room.clone(), &track));
        let expected = json!({
            "id": "e_1_1", "at": 5, "type": "track-published", "roomId": "daily",
            "participantId": "p_000000000000002a", "trackId": "t_000000000000002a_1",
            "kind": "video", "source": "screen",
        });
        assert_eq!(published, expected);
        let left = told(Happening::ParticipantLeft {
            room_id: Shown(room),
            participant_id: Shown(peer),
            user_id: None,
            reason: LeaveReason::from(CloseReason::ConnectionLost),
        });
        let expected = json!({
            "id": "e_1_1", "at": 5, "type": "participant-left", "roomId": "daily",
            "participantId": "p_000000000000002a", "reason": "media-lost",
        });
        assert_eq!(left, expected);
    }
}
