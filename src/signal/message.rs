//! The wire of `/ws`: what clients say and what they are told, as JSON text.
//!
//! *Participant* is the wire's word for a peer and lives only here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::engine::command::{Kind, Slot, Source, TrackInfo};
use crate::id::{PeerId, RoomId, TrackId};
use crate::signal::problem::{Code, Problem};
use crate::signal::{directory, limits};

/// A message and what its sender calls it.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// The message, or why it is none.
    pub message: Result<ClientMessage, Problem>,
    /// The sender's `ref` (or `id`), echoed in the reply.
    pub reference: Option<Reference>,
}

/// What a client says. Fields we do not know are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ClientMessage {
    /// Enter a room.
    Join {
        /// Room name, see [`RoomId`].
        room_id: String,
        /// What to call the participant.
        participant_name: Option<String>,
        /// Told to the others as it is.
        metadata: Option<Value>,
    },
    /// A session description (RFC 8829).
    Offer {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// The session description.
        sdp: String,
        /// What the sending m-lines carry, by `a=mid`.
        tracks: Option<BTreeMap<String, OfferedTrack>>,
    },
    /// A trickled ICE candidate; none or an empty one ends them.
    IceCandidate {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// The candidate as the browser gives it.
        candidate: Option<CandidateField>,
    },
    /// Leave the room; the socket stays.
    Leave {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
    },
    /// The next offer, or the one given, adds a screen.
    StartScreenShare {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// The session description that adds it.
        sdp: Option<String>,
    },
    /// The screen is shared no longer.
    StopScreenShare {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// The session description that takes it away.
        sdp: Option<String>,
    },
    /// The sender has muted its track.
    Mute {
        /// One of its own tracks.
        track_id: String,
    },
    /// The sender has unmuted its track.
    Unmute {
        /// One of its own tracks.
        track_id: String,
    },
    /// Tell one or all of the others something.
    Data {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// To whom; to everyone else in the room when left out.
        to: Option<String>,
        /// Any JSON.
        payload: Value,
        /// What it is about.
        topic: Option<String>,
    },
    /// Are you there?
    Ping,
    /// Understood, not served.
    UpdateQuality,
    /// Understood, not served.
    Subscribe,
    /// Understood, not served.
    Unsubscribe,
    /// Understood, not served.
    SetLayout,
    /// Anything else.
    #[serde(other)]
    Unknown,
}

impl ClientMessage {
    /// The session description it carries.
    #[must_use]
    pub fn sdp(&self) -> Option<&str> {
        match self {
            Self::Offer { sdp, .. }
            | Self::StartScreenShare { sdp: Some(sdp), .. }
            | Self::StopScreenShare { sdp: Some(sdp), .. } => Some(sdp),
            _ => None,
        }
    }
}

/// What a client says about a track it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct OfferedTrack {
    /// Where it comes from.
    pub source: SourceName,
}

/// A candidate as browsers and other clients write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CandidateField {
    /// The candidate line alone.
    Line(String),
    /// `RTCIceCandidateInit`; we need its line only, for all m-lines are bundled.
    Init {
        /// The candidate line.
        candidate: Option<String>,
    },
}

impl CandidateField {
    /// The candidate line, empty for the end of candidates.
    #[must_use]
    pub fn line(&self) -> &str {
        match self {
            Self::Line(line) => line,
            Self::Init { candidate } => candidate.as_deref().unwrap_or_default(),
        }
    }
}

/// What a client calls its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reference {
    /// A short text.
    Text(String),
    /// A number.
    Number(serde_json::Number),
}

/// Reads one message. Never fails as a whole: what is wrong with it is its content.
#[must_use]
pub fn parse(text: &str) -> Received {
    let refused = |code, message: &str, reference| Received {
        message: Err(Problem::new(code, message)),
        reference,
    };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(e) => return refused(Code::BadJson, &format!("not JSON: {e}"), None),
    };
    let Value::Object(fields) = &value else {
        return refused(Code::BadMessage, "a message is a JSON object", None);
    };
    let reference = [fields.get("ref"), fields.get("id")]
        .into_iter()
        .flatten()
        .find_map(reference);
    if !matches!(fields.get("type"), Some(Value::String(_))) {
        let text = "a message has a \"type\", which is a string";
        return refused(Code::BadMessage, text, reference);
    }
    match serde_json::from_value(value) {
        Ok(message) => Received {
            message: Ok(message),
            reference,
        },
        Err(e) => refused(Code::BadMessage, &e.to_string(), reference),
    }
}

fn reference(value: &Value) -> Option<Reference> {
    match value {
        Value::String(s) if s.chars().count() <= limits::MAX_REF_CHARS => {
            Some(Reference::Text(s.clone()))
        }
        Value::Number(n) => Some(Reference::Number(n.clone())),
        _ => None,
    }
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
        /// The `ref` of the message refused.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Reference>,
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

/// A peer, as the others see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Participant {
    id: Shown<PeerId>,
    name: Option<String>,
    metadata: Option<Value>,
    tracks: Vec<Track>,
}

impl From<&directory::Member> for Participant {
    fn from(member: &directory::Member) -> Self {
        Self {
            id: Shown(member.peer),
            name: member.name.clone(),
            metadata: member.metadata.clone(),
            tracks: member.tracks.iter().map(Track::from).collect(),
        }
    }
}

/// A published track.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Track {
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
            muted: track.muted,
            ..Self::from(&track.info)
        }
    }
}

/// What plays in a slot.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// [`Kind`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoomClosedReason {
    /// The server stops.
    ServerShutdown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::signal::directory::{Member, MemberTrack, SocketId};

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
            name: Some("Ada".to_owned()),
            metadata: Some(json!({"colour": "red"})),
            tracks: vec![MemberTrack { info, muted: true }],
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
                reference: Some(Reference::Number(5.into())),
            },
            r#"{"type":"joined","roomId":"room-123","participantId":"p_000000000000002a",
                "participants":[{"id":"p_000000000000002a","name":"Ada","metadata":{"colour":"red"},
                "tracks":[{"trackId":"t_000000000000002a_1","kind":"video","source":"screen",
                "muted":true}]}],"ref":5}"#,
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

    #[test]
    fn every_message_of_a_client_is_understood() {
        let room_id = Some("room-123".to_owned());
        let init = |candidate: Option<&str>| CandidateField::Init {
            candidate: candidate.map(str::to_owned),
        };
        let screen = OfferedTrack {
            source: SourceName::Screen,
        };
        let table = [
            (
                // The messages printed in the documentation of the protocol.
                r#"{"type":"join","roomId":"room-123","participantName":"John Doe"}"#,
                ClientMessage::Join {
                    room_id: "room-123".to_owned(),
                    participant_name: Some("John Doe".to_owned()),
                    metadata: None,
                },
            ),
            (
                r#"{"type":"offer","roomId":"room-123","sdp":"v=0\r\n..."}"#,
                ClientMessage::Offer {
                    room_id: room_id.clone(),
                    sdp: "v=0\r\n...".to_owned(),
                    tracks: None,
                },
            ),
            (
                r#"{"type":"ice-candidate","candidate":{"candidate":"candidate:...",
                    "sdpMLineIndex":0,"sdpMid":"0"}}"#,
                ClientMessage::IceCandidate {
                    room_id: None,
                    candidate: Some(init(Some("candidate:..."))),
                },
            ),
            (
                r#"{"type":"start-screen-share","roomId":"room-123","sdp":"v=0\r\n..."}"#,
                ClientMessage::StartScreenShare {
                    room_id: room_id.clone(),
                    sdp: Some("v=0\r\n...".to_owned()),
                },
            ),
            (
                r#"{"type":"update-quality","roomId":"room-123","quality":"high"}"#,
                ClientMessage::UpdateQuality,
            ),
            (
                r#"{"type":"offer","sdp":"","tracks":{"2":{"source":"screen","x":1}}}"#,
                ClientMessage::Offer {
                    room_id: None,
                    sdp: String::new(),
                    tracks: Some(BTreeMap::from([("2".to_owned(), screen)])),
                },
            ),
            (
                r#"{"type":"ice-candidate","candidate":null}"#,
                ClientMessage::IceCandidate {
                    room_id: None,
                    candidate: None,
                },
            ),
            (
                r#"{"type":"ice-candidate","candidate":""}"#,
                ClientMessage::IceCandidate {
                    room_id: None,
                    candidate: Some(CandidateField::Line(String::new())),
                },
            ),
            (
                r#"{"type":"leave"}"#,
                ClientMessage::Leave { room_id: None },
            ),
            (
                r#"{"type":"stop-screen-share","roomId":"room-123"}"#,
                ClientMessage::StopScreenShare { room_id, sdp: None },
            ),
            (
                r#"{"type":"mute","trackId":"t"}"#,
                ClientMessage::Mute {
                    track_id: "t".to_owned(),
                },
            ),
            (
                r#"{"type":"unmute","trackId":"t"}"#,
                ClientMessage::Unmute {
                    track_id: "t".to_owned(),
                },
            ),
            (
                r#"{"type":"data","to":"p","payload":{"a":1},"topic":"chat"}"#,
                ClientMessage::Data {
                    room_id: None,
                    to: Some("p".to_owned()),
                    payload: json!({"a": 1}),
                    topic: Some("chat".to_owned()),
                },
            ),
            (r#"{"type":"ping","at":17}"#, ClientMessage::Ping),
            (
                r#"{"type":"subscribe","trackIds":[]}"#,
                ClientMessage::Subscribe,
            ),
            (
                r#"{"type":"unsubscribe","trackIds":[]}"#,
                ClientMessage::Unsubscribe,
            ),
            (
                r#"{"type":"set-layout","slots":[]}"#,
                ClientMessage::SetLayout,
            ),
            (r#"{"type":"fly-me-to-the-moon"}"#, ClientMessage::Unknown),
        ];
        for (text, message) in table {
            assert_eq!(parse(text).message, Ok(message), "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_named_for_what_it_is() {
        let deep = "[".repeat(100_000);
        let table = [
            ("", Code::BadJson),
            ("{", Code::BadJson),
            ("hello", Code::BadJson),
            ("{\"type\":\"ping\"} x", Code::BadJson),
            (deep.as_str(), Code::BadJson),
            ("null", Code::BadMessage),
            ("[{\"type\":\"ping\"}]", Code::BadMessage),
            ("{}", Code::BadMessage),
            ("{\"type\":1}", Code::BadMessage),
            ("{\"type\":\"join\"}", Code::BadMessage),
            ("{\"type\":\"join\",\"roomId\":7}", Code::BadMessage),
            ("{\"type\":\"offer\",\"sdp\":null}", Code::BadMessage),
            ("{\"type\":\"data\"}", Code::BadMessage),
            (
                "{\"type\":\"ice-candidate\",\"candidate\":7}",
                Code::BadMessage,
            ),
            (
                "{\"type\":\"offer\",\"sdp\":\"\",\"tracks\":{\"0\":{\"source\":\"cat\"}}}",
                Code::BadMessage,
            ),
        ];
        for (text, code) in table {
            let problem = parse(text).message.unwrap_err();
            assert_eq!(problem.code, code, "{text}");
            assert!(problem.message.len() <= 200);
        }
    }

    #[test]
    fn a_reference_is_taken_from_ref_or_id_when_it_is_short() {
        let reference = |text: &str| parse(text).reference;
        let text = |s: &str| Some(Reference::Text(s.to_owned()));
        assert_eq!(reference(r#"{"type":"ping","ref":"a"}"#), text("a"));
        assert_eq!(reference(r#"{"type":"ping","id":"b"}"#), text("b"));
        assert_eq!(reference(r#"{"ref":"c","id":"d"}"#), text("c"));
        assert_eq!(reference(r#"{"ref":{},"id":"d"}"#), text("d"));
        assert_eq!(
            reference(r#"{"ref":1.5}"#),
            serde_json::Number::from_f64(1.5).map(Reference::Number)
        );
        let long = "x".repeat(limits::MAX_REF_CHARS + 1);
        assert_eq!(reference(&format!(r#"{{"ref":"{long}"}}"#)), None);
        assert_eq!(reference(r#"{"ref":null}"#), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_to_be_answered(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_object_is_too_strange_to_be_answered(
            kind in "(join|offer|ice-candidate|leave|mute|data|start-screen-share|x)",
            field in "(roomId|sdp|candidate|trackId|to|payload|tracks|metadata|ref)",
            value in "(null|1|-1e9|true|\"\"|\"x\"|\\[\\]|\\[1\\]|\\{\\}|\\{\"candidate\":1\\})",
        ) {
            let received = parse(&format!(r#"{{"type":"{kind}","{field}":{value}}}"#));
            if let Err(problem) = received.message {
                prop_assert_eq!(problem.code, Code::BadMessage);
            }
        }
    }
}
