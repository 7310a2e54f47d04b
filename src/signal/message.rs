//! The wire of `/ws`: what clients are told, as JSON text; [`request`](super::request) is what
//! they say.
//!
//! *Participant* is the wire's word for a peer and lives only here.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::engine::command::{Kind, Slot, Source, TrackInfo};
use crate::id::{PeerId, RoomId, TrackId};
use crate::record::manifest::EndReason;
use crate::signal::directory;
use crate::signal::problem::Code;
use crate::signal::quality::{ReasonName, SeverityName, TroubleName};
use crate::signal::service::Service;

/// What a client calls its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Reference {
    /// A short text.
    Text(String),
    /// A number.
    Number(serde_json::Number),
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ServerMessage {
    /// The socket is open.
    Connected {
        /// The name of the participant this socket will be in the first room it joins.
        participant_id: Shown<PeerId>,
        /// For the client's `RTCPeerConnection`.
        ice_servers: Vec<Value>,
    },
    /// The participant is in the room.
    Joined {
        /// Which room.
        room_id: Shown<RoomId>,
        /// The participant's name in it; a new one each time a socket joins.
        participant_id: Shown<PeerId>,
        /// Who else is there, in the order they came.
        participants: Vec<Participant>,
        /// For `join`, to come back as the same participant when the socket is lost.
        resume_token: String,
        /// Whether the participant has come back, and its media goes on.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        resumed: bool,
        /// The recording of the room that goes on, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        recording_id: Option<String>,
        /// The `ref` of the request.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
    },
    /// Please offer, with this many receiving m-lines in all.
    RequestOffer {
        /// The room joined.
        room_id: Shown<RoomId>,
        /// Audio m-lines.
        audio: u8,
        /// Video m-lines.
        video: u8,
    },
    /// The answer to an offer.
    Answer {
        /// Session description.
        sdp: String,
        /// What plays in each receiving m-line, by `a=mid`.
        slots: BTreeMap<String, Option<Playing>>,
    },
    /// A candidate of the other side.
    IceCandidate {
        /// `RTCIceCandidateInit`.
        candidate: Value,
    },
    /// Someone came.
    ParticipantJoined {
        /// Who.
        participant: Participant,
    },
    /// Someone left.
    ParticipantLeft {
        /// Who.
        participant_id: Shown<PeerId>,
    },
    /// A track can be watched. Its publisher is told too, and so learns its name.
    TrackPublished {
        /// Whose.
        participant_id: Shown<PeerId>,
        /// The track.
        #[serde(flatten)]
        track: Track,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Whose it was.
        participant_id: Shown<PeerId>,
        /// Which.
        track_id: Shown<TrackId>,
    },
    /// A track was muted or unmuted by its publisher.
    TrackMuted {
        /// Whose.
        participant_id: Shown<PeerId>,
        /// Which.
        track_id: Shown<TrackId>,
        /// Whether it is muted.
        muted: bool,
    },
    /// What plays in these m-lines from here on.
    Slots {
        /// By `a=mid`; those that changed.
        slots: BTreeMap<String, Option<Playing>>,
    },
    /// Another participant says something.
    Data {
        /// Who; the server's word, not the sender's.
        from: Shown<PeerId>,
        /// To whom, when not to all.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Shown<PeerId>>,
        /// As it was sent.
        payload: Value,
        /// As it was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
    },
    /// Something was refused, or went wrong.
    Error {
        /// What, for programs. Stable.
        code: Code,
        /// What, for people.
        message: String,
        /// When it makes sense to try again, in seconds, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
        /// The `ref` of the message refused.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
    },
    /// The newer token holds from here on.
    TokenAccepted {
        /// The `ref` of the request.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
    },
    /// An m-line of an offer sends what the participant may not publish: it is not forwarded.
    NotPublished {
        /// The m-line's `a=mid`.
        mid: String,
        /// What it sends.
        source: SourceName,
    },
    /// Who speaks in the room has changed.
    ActiveSpeakers {
        /// Who speaks, longest first; empty when nobody does.
        speakers: Vec<Shown<PeerId>>,
    },
    /// What the client is sent of a track has changed, or why it is not more.
    Quality {
        /// Which track.
        track_id: Shown<TrackId>,
        /// The place of the layer sent among all, 0 the smallest; `null` when nothing is sent.
        layer: Option<u8>,
        /// Why it is not a better one.
        reason: ReasonName,
    },
    /// Which encodings of a track of the client's nobody watches: it need not send them.
    UnwantedLayers {
        /// Which track.
        track_id: Shown<TrackId>,
        /// Its m-line.
        mid: String,
        /// Their RIDs; all others are wanted.
        rids: Vec<String>,
        /// Likewise the spatial layers of a track that has its layers in one stream.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        spatial_layers: Vec<u8>,
    },
    /// The client's connection has become bad, worse or better.
    QualityWarning {
        /// What is bad about it.
        kind: TroubleName,
        /// Per cent of packets lost, milliseconds of jitter or round trip, or kbit/s.
        value: u32,
        /// How bad that is.
        severity: SeverityName,
    },
    /// How the client is served, as it asked.
    Stats {
        /// That.
        #[serde(flatten)]
        service: Service,
        /// The `ref` of the request.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
    },
    /// The client reads its data channels too slowly: messages to it were dropped.
    DataLost {
        /// How many since this was last told.
        messages: u32,
    },
    /// The participant was removed from its room, and the socket closes with 1008.
    Kicked {
        /// Why, for programs. Stable.
        reason: KickReason,
        /// Why, for people, if whoever did it said so.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The room is recorded from here on.
    RecordingStarted {
        /// What the recording is called.
        recording_id: String,
    },
    /// The room is no longer recorded.
    RecordingStopped {
        /// What the recording is called.
        recording_id: String,
        /// Why, for programs. Stable.
        reason: EndReason,
    },
    /// Yes.
    Pong {
        /// The `ref` of the request.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
    },
    /// The room is no more; the participant is in no room.
    RoomClosed {
        /// Which.
        room_id: Shown<RoomId>,
        /// Why, for programs. Stable.
        reason: RoomClosedReason,
    },
    /// The server takes no new rooms any more; calls go on until they end, or until then.
    ServerDraining {
        /// When rooms are closed, in seconds since 1970; `null` when the server goes on after all.
        deadline: Option<u64>,
    },
    /// What another participant sent to this one alone: its own message, with `from`.
    #[serde(untagged)]
    Relayed(Map<String, Value>),
}

impl ServerMessage {
    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every key of every message is a string")
    }
}

/// A name in the form the wire knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<T>(pub T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<T> JsonSchema for Shown<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"type": "string"})
    }
}

/// A peer, as the others see it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Participant {
    #[schema(value_type = String)]
    id: Shown<PeerId>,
    /// Who it is by its token; left out where it showed none.
    #[serde(rename = "userId", skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    name: Option<String>,
    metadata: Option<Value>,
    /// Whether it encrypts its media end to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    tracks: Vec<Track>,
}

impl From<&directory::Member> for Participant {
    fn from(member: &directory::Member) -> Self {
        Self {
            id: Shown(member.peer),
            user_id: member.identity.clone().filter(|_| member.is_verified),
            name: member.name.clone(),
            metadata: member.metadata.clone(),
            encrypted: member.is_encrypted,
            tracks: member.tracks.iter().map(Track::from).collect(),
        }
    }
}

/// A published track.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    #[schema(value_type = String)]
    track_id: Shown<TrackId>,
    kind: KindName,
    source: SourceName,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    muted: bool,
}

impl From<&TrackInfo> for Track {
    fn from(info: &TrackInfo) -> Self {
        Self {
            track_id: Shown(info.id),
            kind: info.kind.into(),
            source: info.source.into(),
            muted: false,
        }
    }
}

impl From<&directory::MemberTrack> for Track {
    fn from(track: &directory::MemberTrack) -> Self {
        Self {
            muted: track.muted.is_some(),
            ..Self::from(&track.info)
        }
    }
}

/// What plays in a slot.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Playing {
    participant_id: Shown<PeerId>,
    #[serde(flatten)]
    track: Track,
}

/// Slots as the wire has them.
#[must_use]
pub fn slots(slots: &[Slot]) -> BTreeMap<String, Option<Playing>> {
    let playing = |track: &TrackInfo| Playing {
        participant_id: Shown(track.id.peer),
        track: Track::from(track),
    };
    slots
        .iter()
        .map(|slot| (slot.mid.clone(), slot.track.as_ref().map(playing)))
        .collect()
}

impl ServerMessage {
    /// An m-line sends what may not be published.
    #[must_use]
    pub fn not_published(mid: String, source: Source) -> Self {
        let source = source.into();
        Self::NotPublished { mid, source }
    }
}

/// [`Kind`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KindName {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl From<Kind> for KindName {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Audio => Self::Audio,
            Kind::Video => Self::Video,
        }
    }
}

/// [`Source`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceName {
    /// A person's voice.
    Microphone,
    /// A person's face.
    Camera,
    /// A shared screen or window.
    Screen,
    /// The sound of a shared screen.
    ScreenAudio,
}

impl From<Source> for SourceName {
    fn from(source: Source) -> Self {
        match source {
            Source::Microphone => Self::Microphone,
            Source::Camera => Self::Camera,
            Source::Screen => Self::Screen,
            Source::ScreenAudio => Self::ScreenAudio,
        }
    }
}

impl From<SourceName> for Source {
    fn from(name: SourceName) -> Self {
        match name {
            SourceName::Microphone => Self::Microphone,
            SourceName::Camera => Self::Camera,
            SourceName::Screen => Self::Screen,
            SourceName::ScreenAudio => Self::ScreenAudio,
        }
    }
}

/// Why a room is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoomClosedReason {
    /// The server stops.
    ServerShutdown,
    /// It was deleted through the API.
    Deleted,
}

/// Why a participant was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KickReason {
    /// Someone of the same identity has joined the room.
    DuplicateIdentity,
    /// Somebody removed it through the API.
    Removed,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signal::directory::{Member, MemberTrack, MutedBy, SocketId};
    use crate::signal::problem::Problem;

    const PEER: PeerId = PeerId::new(0x2a);

    fn track() -> TrackInfo {
        TrackInfo {
            id: TrackId {
                peer: PEER,
                number: 1,
            },
            kind: Kind::Video,
            source: Source::Screen,
        }
    }

    fn participant() -> Participant {
        let info = track();
        Participant::from(&Member {
            peer: PEER,
            socket: SocketId(7),
            network: std::net::IpAddr::from([192, 0, 2, 1]).into(),
            identity: Some("ada".to_owned()),
            is_verified: false,
            is_hidden: false,
            is_encrypted: false,
            name: Some("Ada".to_owned()),
            metadata: Some(json!({"colour": "red"})),
            tracks: vec![MemberTrack {
                info,
                muted: Some(MutedBy::Publisher),
            }],
        })
    }

    fn room() -> Shown<RoomId> {
        Shown(RoomId::parse("room-123").unwrap())
    }

    fn playing() -> BTreeMap<String, Option<Playing>> {
        let slot = |mid: &str, track| Slot {
            mid: mid.to_owned(),
            track,
        };
        slots(&[slot("3", Some(track())), slot("4", None)])
    }

    fn assert_golden(message: &ServerMessage, golden: &str) {
        let golden: String = golden.lines().map(str::trim).collect();
        assert_eq!(message.to_json(), golden);
    }

    #[test]
    fn the_way_into_a_room_is_written_as_documented() {
        assert_golden(
            &ServerMessage::Connected {
                participant_id: Shown(PEER),
                ice_servers: vec![json!({"urls": ["stun:stun.example.org"]})],
            },
            r#"{"type":"connected","participantId":"p_000000000000002a","iceServers":[{"urls":[
                "stun:stun.example.org"]}]}"#,
        );
        assert_golden(
            &ServerMessage::Joined {
                room_id: room(),
                participant_id: Shown(PEER),
                participants: vec![participant()],
                resume_token: "p_000000000000002a.00".to_owned(),
                resumed: false,
                recording_id: None,
                reference: Some(Reference::Number(5.into())),
            },
            r#"{"type":"joined","roomId":"room-123","participantId":"p_000000000000002a",
                "participants":[{"id":"p_000000000000002a","name":"Ada","metadata":{"colour":"red"},
                "tracks":[{"trackId":"t_000000000000002a_1","kind":"video","source":"screen",
                "muted":true}]}],"resumeToken":"p_000000000000002a.00","ref":5}"#,
        );
        assert_golden(
            &ServerMessage::RequestOffer {
                room_id: room(),
                audio: 3,
                video: 9,
            },
            r#"{"type":"request-offer","roomId":"room-123","audio":3,"video":9}"#,
        );
        assert_golden(
            &ServerMessage::Answer {
                sdp: "v=0\r\n".to_owned(),
                slots: playing(),
            },
            r#"{"type":"answer","sdp":"v=0\r\n",
                "slots":{"3":{"participantId":"p_000000000000002a","trackId":"t_000000000000002a_1",
                "kind":"video","source":"screen"},"4":null}}"#,
        );
        assert_golden(
            &ServerMessage::IceCandidate {
                candidate: json!({"candidate": "candidate:1"}),
            },
            r#"{"type":"ice-candidate","candidate":{"candidate":"candidate:1"}}"#,
        );
    }

    #[test]
    fn what_happens_in_a_room_is_written_as_documented() {
        let (participant_id, track_id) = (Shown(PEER), Shown(track().id));
        assert_golden(
            &ServerMessage::ParticipantJoined {
                participant: Participant {
                    name: None,
                    metadata: None,
                    tracks: Vec::new(),
                    ..participant()
                },
            },
            r#"{"type":"participant-joined","participant":{"id":"p_000000000000002a",
                "name":null,"metadata":null,"tracks":[]}}"#,
        );
        assert_golden(
            &ServerMessage::ParticipantLeft { participant_id },
            r#"{"type":"participant-left","participantId":"p_000000000000002a"}"#,
        );
        assert_golden(
            &ServerMessage::TrackPublished {
                participant_id,
                track: Track::from(&track()),
            },
            r#"{"type":"track-published","participantId":"p_000000000000002a",
                "trackId":"t_000000000000002a_1","kind":"video","source":"screen"}"#,
        );
        assert_golden(
            &ServerMessage::TrackUnpublished {
                participant_id,
                track_id,
            },
            r#"{"type":"track-unpublished","participantId":"p_000000000000002a",
                "trackId":"t_000000000000002a_1"}"#,
        );
        assert_golden(
            &ServerMessage::TrackMuted {
                participant_id,
                track_id,
                muted: true,
            },
            r#"{"type":"track-muted","participantId":"p_000000000000002a",
                "trackId":"t_000000000000002a_1","muted":true}"#,
        );
        assert_golden(
            &ServerMessage::Slots { slots: playing() },
            r#"{"type":"slots","slots":{"3":{"participantId":"p_000000000000002a",
                "trackId":"t_000000000000002a_1","kind":"video","source":"screen"},"4":null}}"#,
        );
        assert_golden(
            &ServerMessage::Data {
                from: participant_id,
                to: None,
                payload: json!([1, "two"]),
                topic: None,
            },
            r#"{"type":"data","from":"p_000000000000002a","payload":[1,"two"]}"#,
        );
        assert_golden(
            &ServerMessage::Data {
                from: participant_id,
                to: Some(participant_id),
                payload: Value::Null,
                topic: Some("chat".to_owned()),
            },
            r#"{"type":"data","from":"p_000000000000002a","to":"p_000000000000002a",
                "payload":null,"topic":"chat"}"#,
        );
        assert_golden(
            &ServerMessage::RoomClosed {
                room_id: room(),
                reason: RoomClosedReason::ServerShutdown,
            },
            r#"{"type":"room-closed","roomId":"room-123","reason":"server-shutdown"}"#,
        );
        assert_golden(
            &ServerMessage::Kicked {
                reason: KickReason::DuplicateIdentity,
                message: None,
            },
            r#"{"type":"kicked","reason":"duplicate-identity"}"#,
        );
        assert_golden(
            &ServerMessage::NotPublished {
                mid: "2".to_owned(),
                source: SourceName::Screen,
            },
            r#"{"type":"not-published","mid":"2","source":"screen"}"#,
        );
        let relayed = json!({"type": "answer", "sdp": "v=0", "from": "p"});
        assert_golden(
            &ServerMessage::Relayed(serde_json::from_value(relayed).unwrap()),
            r#"{"from":"p","sdp":"v=0","type":"answer"}"#,
        );
    }

    #[test]
    fn replies_echo_the_reference() {
        assert_golden(
            &ServerMessage::Pong { reference: None },
            r#"{"type":"pong"}"#,
        );
        let problem = Problem::new(Code::AlreadyJoined, "no");
        assert_golden(
            &problem.into_message(Some(Reference::Text("r1".to_owned()))),
            r#"{"type":"error","code":"already-joined","message":"no","ref":"r1"}"#,
        );
    }
}
