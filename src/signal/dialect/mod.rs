//! Four smaller signalling protocols, each on its own path: peers speak to one another, and the
//! server passes it on. No media comes here.
//!
//! [`webrtc`], [`call`], [`p2p`] and [`mesh`] decide and are pure; [`switchboard`] serves the
//! sockets of one of them, [`paths`] opens them.

pub mod call;
pub mod mesh;
pub mod news;
pub mod p2p;
pub mod paths;
pub mod rooms;
pub mod switchboard;
pub mod webrtc;

#[cfg(test)]
mod stage;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::id::RoomId;
use crate::signal::access::Access;
use crate::signal::directory::SocketId;
use crate::signal::happening::Happening;
use crate::signal::limits;

/// One protocol: what its clients say, and who is told what.
///
/// A socket that is unknown, or was closed, may be named to any of these and nothing comes of it.
pub trait Dialect: Send + 'static {
    /// Takes in a new socket.
    fn handle_opened(&mut self, socket: SocketId, caller: Caller) -> Vec<Output>;

    /// Takes in a text message.
    ///
    /// # Errors
    ///
    /// [`Refusal`] is what the sender is to be told. Nothing has changed.
    fn handle_text(&mut self, socket: SocketId, text: &str) -> Result<Vec<Output>, Refusal>;

    /// Takes in the fact that a socket is gone.
    fn handle_gone(&mut self, socket: SocketId) -> Vec<Output>;

    /// What has happened and nobody has looked at, oldest first.
    fn poll_happening(&mut self) -> Option<Happening>;

    /// Rooms, or calls, that exist: all of them have somebody in them.
    fn meetings(&self) -> usize;
}

/// Who opened a socket.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Caller {
    /// Who it is, by a token or, where none is needed, by its own word.
    pub name: Option<Name>,
    /// What its token grants; `None` where none is needed.
    pub access: Option<Access>,
    /// The room its address names, for protocols whose messages name none.
    pub room: Option<RoomId>,
    /// Whom it may ask for a way through its NAT: a list of `RTCIceServer`.
    pub ice_servers: Vec<Value>,
}

/// What a switchboard must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this to these sockets.
    Tell(Vec<SocketId>, Value),
    /// Close this socket with 1008: another one has taken its place. The dialect has forgotten it.
    Replaced(SocketId),
}

/// A user's name: 1 to 128 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name(Box<str>);

impl Name {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses a name; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        let legal = fits && !text.chars().any(char::is_control);
        legal.then(|| Self(text.into()))
    }

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a message is refused. The sentences are those that clients of [`call`] show people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No JSON, or a field is missing, mistyped or too long.
    #[error("Invalid message format")]
    BadMessage,
    /// No message has this `type` here.
    #[error("Unknown message type")]
    UnknownType,
    /// Longer than [`limits::MAX_SDP_BYTES`]. The socket closes with 1009.
    #[error("Message too big")]
    MessageTooBig,
    /// Messages are text.
    #[error("Messages are JSON in text frames")]
    BinaryFrame,
    /// Too many messages or bytes in too short a time. The socket closes with 1008.
    #[error("Too many messages")]
    RateExceeded,
    /// The token does not grant it.
    #[error("Unauthorized")]
    Unauthorized,
    /// Join a room, or say who you are, first.
    #[error("Not joined")]
    NotJoined,
    /// The room has as many members as it may have.
    #[error("Room is full")]
    RoomFull,
    /// There are as many rooms, or calls, as there may be.
    #[error("Too many rooms")]
    TooManyRooms,
    /// Nobody of this name can be reached from here.
    #[error("Recipient not available")]
    NoSuchParticipant,
    /// The sender has no such call.
    #[error("Call not found")]
    NoSuchCall,
    /// Somebody else has a call of this name.
    #[error("Call exists")]
    CallExists,
    /// Too many come from the client's address, or too often. The socket closes with 1008.
    #[error("Too many connections from your address")]
    TooManyFromAddress,
    /// Another socket has taken this one's place. It closes with 1008.
    #[error("Replaced by a newer connection")]
    Replaced,
}

impl Caller {
    /// Whether its token, where it needs one, is for this room.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unauthorized`] if not.
    pub fn check_join(&self, room: Option<&RoomId>) -> Result<(), Refusal> {
        let Some(access) = &self.access else {
            return Ok(());
        };
        let may_join = room.is_some_and(|room| access.check_join(room).is_ok());
        may_join.then_some(()).ok_or(Refusal::Unauthorized)
    }
}

impl Refusal {
    /// What the client is told: `error` and `message` hold the same sentence, because the
    /// protocols differ in where they look for it.
    #[must_use]
    pub fn to_value(self) -> Value {
        let text = self.to_string();
        json!({"type": "error", "code": self, "message": text, "error": text})
    }
}

/// Longest name of a call, in bytes.
const MAX_CALL_ID_BYTES: usize = 128;

/// Parses a message; an enum with an `Unknown` variant tells unknown types apart itself.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    if text.len() > limits::MAX_SDP_BYTES {
        return Err(Refusal::MessageTooBig);
    }
    serde_json::from_str(text).map_err(|_| Refusal::BadMessage)
}

fn parse_room(name: &str) -> Result<RoomId, Refusal> {
    RoomId::parse(name).map_err(|_| Refusal::BadMessage)
}

/// Whether a field holds a session description: its text, or the object browsers make of it.
fn is_description(field: &Value) -> bool {
    let text = field.as_str().or_else(|| field.get("sdp")?.as_str());
    text.is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_printable() {
        for good in ["a", "Ünal 😀", &"x".repeat(128)] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(129)] {
            assert!(Name::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_where_each_protocol_looks_for_it() {
        let told = Refusal::NoSuchParticipant.to_value();
        assert_eq!(
            told,
            json!({
                "type": "error",
                "code": "no-such-participant",
                "message": "Recipient not available",
                "error": "Recipient not available",
            })
        );
    }

    #[test]
    fn a_description_is_a_text_or_an_object_with_one() {
        assert!(is_description(&json!("v=0")));
        assert!(is_description(&json!({"type": "offer", "sdp": "v=0"})));
        for none in [json!(null), json!(""), json!({"sdp": null}), json!(["v=0"])] {
            assert!(!is_description(&none), "{none}");
        }
    }
}
