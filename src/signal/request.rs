//! What clients of `/ws` say, as JSON text.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::engine::command::{Quality, Shown, Size};
use crate::record::order::RecordingRequest;
use crate::signal::limits;
use crate::signal::message::{Reference, SourceName};
use crate::signal::problem::{Code, Problem};

/// A message and what its sender calls it.
#[derive(Debug, PartialEq)]
pub struct Received {
    /// The message, or why it is none.
    pub message: Result<ClientMessage, Problem>,
    /// The sender's `ref` (or `id`), echoed in the reply.
    pub reference: Option<Reference>,
}

/// What a client says. Fields we do not know are ignored.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum ClientMessage {
    /// Enter a room, or come back to it.
    Join(Join),
    /// A newer token, for the rest of this socket's life.
    Token {
        /// It is of the same identity and, while in a room, for that room.
        token: String,
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
    /// Record the room. Everyone in it is told `recording-started`.
    StartRecording(RecordingRequest),
    /// Record the room no longer. Everyone in it is told `recording-stopped`.
    StopRecording,
    /// Are you there?
    Ping,
    /// Watch these tracks; a newcomer watches all there are.
    Subscribe {
        /// Tracks of others in the room.
        track_ids: Vec<String>,
    },
    /// Do not watch these tracks.
    Unsubscribe {
        /// Tracks of others in the room.
        track_ids: Vec<String>,
    },
    /// How is the client served? Answered by `stats`.
    Stats,
    /// How a track, or every track, should be sent to this client.
    UpdateQuality {
        /// The room joined, for clients that send it.
        room_id: Option<String>,
        /// How good it should be.
        quality: QualityName,
        /// Which track; all when left out.
        track_id: Option<String>,
    },
    /// What the client shows, so that each track is sent as large as it is seen.
    SetLayout {
        /// One entry for each picture on the screen.
        slots: Vec<Shows>,
    },
    /// Any `offer`, `answer`, `ice-candidate` or `renegotiate` that has a `to`: passed on to that
    /// participant as it is, with `from`.
    #[serde(skip)]
    Relay {
        /// To whom.
        to: String,
        /// The whole message, without `to`.
        fields: Map<String, Value>,
    },
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
            Self::Relay { fields, .. } => fields.get("sdp").and_then(Value::as_str),
            _ => None,
        }
    }
}

/// The fields of `join`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// Room name: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub room_id: String,
    /// What to call the participant. A name in its token counts more.
    pub participant_name: Option<String>,
    /// Who joins, where no token says so. Someone who joins as the same takes the place.
    pub user_id: Option<String>,
    /// Told to the others as it is. Metadata in the token counts more.
    pub metadata: Option<Value>,
    /// A token, if it did not come with the request for the WebSocket.
    pub token: Option<String>,
    /// From `joined`: come back as the same participant.
    pub resume_token: Option<String>,
    /// Whether the participant encrypts its media end to end, so that the server cannot see it.
    #[serde(default)]
    pub encrypted: bool,
}

/// How good a track should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QualityName {
    /// The smallest layer.
    Low,
    /// The middle one.
    Medium,
    /// The largest one.
    High,
    /// What fits.
    Auto,
}

/// One picture on a client's screen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shows {
    /// Which track.
    pub track_id: String,
    /// Width in device pixels; 0 when it is not seen.
    pub width: u16,
    /// Height in device pixels; 0 when it is not seen.
    pub height: u16,
    /// The higher, the longer it stays good when bandwidth is short; 0 when left out.
    #[serde(default)]
    pub priority: u8,
}

impl From<Shows> for Shown {
    fn from(shows: Shows) -> Self {
        Self {
            size: Size {
                width: shows.width,
                height: shows.height,
            },
            priority: shows.priority,
        }
    }
}

impl From<QualityName> for Quality {
    fn from(name: QualityName) -> Self {
        match name {
            QualityName::Low => Self::Low,
            QualityName::Medium => Self::Medium,
            QualityName::High => Self::High,
            QualityName::Auto => Self::Auto,
        }
    }
}

/// What a client says about a track it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct OfferedTrack {
    /// Where it comes from.
    pub source: SourceName,
}

/// A candidate as browsers and other clients write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
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
    if let Some(relay) = relay(fields) {
        return Received {
            message: Ok(relay),
            reference,
        };
    }
    match serde_json::from_value(value) {
        Ok(message) => Received {
            message: Ok(message),
            reference,
        },
        Err(e) => refused(Code::BadMessage, &e.to_string(), reference),
    }
}

/// A message for another participant, which the server passes on and need not understand.
fn relay(fields: &Map<String, Value>) -> Option<ClientMessage> {
    const RELAYED: [&str; 4] = ["offer", "answer", "ice-candidate", "renegotiate"];
    let to = fields.get("to")?.as_str()?;
    let kind = fields.get("type")?.as_str()?;
    RELAYED.contains(&kind).then(|| {
        let mut fields = fields.clone();
        fields.remove("to");
        ClientMessage::Relay {
            to: to.to_owned(),
            fields,
        }
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

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
                ClientMessage::Join(Join {
                    room_id: "room-123".to_owned(),
                    participant_name: Some("John Doe".to_owned()),
                    ..Join::default()
                }),
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
                ClientMessage::UpdateQuality {
                    room_id: room_id.clone(),
                    quality: QualityName::High,
                    track_id: None,
                },
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
            (r#"{"type":"stats"}"#, ClientMessage::Stats),
            (
                r#"{"type":"subscribe","trackIds":["t"]}"#,
                ClientMessage::Subscribe {
                    track_ids: vec!["t".to_owned()],
                },
            ),
            (
                r#"{"type":"unsubscribe","trackIds":[]}"#,
                ClientMessage::Unsubscribe {
                    track_ids: Vec::new(),
                },
            ),
            (
                r#"{"type":"set-layout","slots":[{"trackId":"t","width":640,"height":360}]}"#,
                ClientMessage::SetLayout {
                    slots: vec![Shows {
                        track_id: "t".to_owned(),
                        width: 640,
                        height: 360,
                        priority: 0,
                    }],
                },
            ),
            (
                r#"{"type":"token","token":"x"}"#,
                ClientMessage::Token {
                    token: "x".to_owned(),
                },
            ),
            (
                r#"{"type":"renegotiate","to":"p","sdp":"v=0"}"#,
                ClientMessage::Relay {
                    to: "p".to_owned(),
                    fields: serde_json::from_value(json!({"type": "renegotiate", "sdp": "v=0"}))
                        .unwrap(),
                },
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
                "{\"type\":\"answer\",\"to\":7,\"sdp\":\"\"}",
                Code::UnknownType,
            ),
            (
                "{\"type\":\"update-quality\",\"quality\":\"best\"}",
                Code::BadMessage,
            ),
            (
                "{\"type\":\"set-layout\",\"slots\":[{\"trackId\":\"t\",\"width\":-1}]}",
                Code::BadMessage,
            ),
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
            let message = parse(text).message;
            if code == Code::UnknownType {
                assert_eq!(message, Ok(ClientMessage::Unknown), "{text}");
                continue;
            }
            let problem = message.unwrap_err();
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
