//! What went wrong, in a code for programs and a sentence for people.

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::command::{CloseReason, Refusal};
use crate::signal::addresses::TooMany;
use crate::signal::directory::NoEntry;
use crate::signal::message::{Reference, ServerMessage};
use crate::signal::overload::RETRY_AFTER_SECONDS;
use crate::signal::token::Denied;

/// What went wrong, for programs. Codes are never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The text is not JSON.
    BadJson,
    /// The JSON is no message, or a field is missing, mistyped or too long.
    BadMessage,
    /// No message has this `type`.
    UnknownType,
    /// The message is known, and not served here.
    NotSupported,
    /// The frame is binary; messages are text.
    BinaryFrame,
    /// The message is longer than allowed. The socket closes with 1009.
    MessageTooBig,
    /// Too many messages or bytes in too short a time. The socket closes with 1008.
    RateExceeded,
    /// There is no token, or it does not hold, or not for this. The log says which.
    Unauthorized,
    /// The participant's token does not grant this.
    NotPermitted,
    /// Nobody can come back with this `resumeToken` any more: join as a new participant.
    ResumeFailed,
    /// Join a room first.
    NotJoined,
    /// The socket is in a room already.
    AlreadyJoined,
    /// The name cannot be a room's.
    BadRoomId,
    /// The message names another room than the one joined.
    WrongRoom,
    /// There is no such room, and rooms are not made by joining here.
    NoSuchRoom,
    /// The room has as many participants as it may have.
    RoomFull,
    /// The server has as many rooms as it may have.
    TooManyRooms,
    /// Too many rooms were made from the client's address.
    TooManyRoomsFromAddress,
    /// Too many participants come from the client's address.
    TooManyFromAddress,
    /// Too many WebSockets are open from the client's address. The socket closes with 1008.
    TooManySockets,
    /// The client's address joins too often. Try again in a moment.
    JoinsTooFast,
    /// There is a room of this name already.
    RoomExists,
    /// The room is being recorded already.
    AlreadyRecording,
    /// The room is not being recorded.
    NotRecording,
    /// The server does not record.
    RecordingDisabled,
    /// There is no such recording.
    NoSuchRecording,
    /// Someone in the room encrypts end to end: the server cannot see what it would record.
    RoomEncrypted,
    /// The server has no place for one more participant.
    ServerFull,
    /// The server has more to do than it can take. Try again.
    ServerBusy,
    /// The server is about to stop and takes no new rooms.
    ServerDraining,
    /// Nobody of this name is in the room.
    NoSuchParticipant,
    /// The sender publishes no track of this name.
    NoSuchTrack,
    /// The offer could not be used. The session goes on as it was.
    BadOffer,
    /// The candidate could not be parsed. The session goes on as it was.
    BadCandidate,
    /// The offer has too many m-lines. The session goes on as it was.
    TooManyMediaLines,
    /// Connectivity was lost and did not come back: the participant is in no room.
    ConnectionLost,
    /// Connectivity never came about: the participant is in no room.
    ConnectTimeout,
    /// The media broke the protocol: the participant is in no room.
    Misbehaved,
    /// Our fault: the participant is in no room.
    InternalError,
    /// The server ended the participant's stay: it is in no room.
    Removed,
}

/// Why a message was refused or a stay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// When it makes sense to try again, in seconds, where that is known.
    pub retry_after: Option<u32>,
    /// For the log: why exactly the client is `unauthorized`.
    pub denied: Option<Denied>,
}

/// What an error quotes of a client's own text, in characters at most.
const MAX_PROBLEM_CHARS: usize = 200;

impl Problem {
    /// A problem; an overlong `message` is cut.
    #[must_use]
    pub fn new(code: Code, message: &str) -> Self {
        let message = message.chars().take(MAX_PROBLEM_CHARS).collect();
        Self {
            code,
            message,
            retry_after: None,
            denied: None,
        }
    }

    /// The message to the client.
    #[must_use]
    pub fn into_message(self, reference: Option<Reference>) -> ServerMessage {
        ServerMessage::Error {
            code: self.code,
            message: self.message,
            retry_after: self.retry_after,
            reference,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotJoined => Code::NotJoined,
            Refusal::BadOffer(_) => Code::BadOffer,
            Refusal::BadCandidate => Code::BadCandidate,
            Refusal::TooManyMediaLines(..) => Code::TooManyMediaLines,
        };
        Self::new(code, &refusal.to_string())
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self {
            denied: Some(denied),
            ..Self::new(Code::Unauthorized, "unauthorized")
        }
    }
}

impl From<TooMany> for Problem {
    fn from(too_many: TooMany) -> Self {
        let code = match too_many {
            TooMany::Rooms(_) => Code::TooManyRoomsFromAddress,
            TooMany::Participants(_) => Code::TooManyFromAddress,
            TooMany::Sockets(_) => Code::TooManySockets,
            TooMany::Joins => Code::JoinsTooFast,
        };
        Self::new(code, &too_many.to_string())
    }
}

impl From<NoEntry> for Problem {
    fn from(no: NoEntry) -> Self {
        let code = match no {
            NoEntry::TooMany(too_many) => return too_many.into(),
            NoEntry::RoomExists => Code::RoomExists,
            NoEntry::NoSuchRoom => Code::NoSuchRoom,
            NoEntry::RoomFull(_) => Code::RoomFull,
            NoEntry::TooManyRooms(_) => Code::TooManyRooms,
            NoEntry::Draining => Code::ServerDraining,
            NoEntry::Overloaded => Code::ServerBusy,
        };
        let retry_after = (no == NoEntry::Overloaded).then_some(RETRY_AFTER_SECONDS);
        Self {
            retry_after,
            ..Self::new(code, &no.to_string())
        }
    }
}

impl From<CloseReason> for Problem {
    fn from(reason: CloseReason) -> Self {
        let (code, message) = match reason {
            CloseReason::Left => (Code::Removed, "the server ended your stay in the room"),
            CloseReason::ConnectionLost => (
                Code::ConnectionLost,
                "the media connection was lost; join again",
            ),
            CloseReason::ConnectTimeout(step) => (Code::ConnectTimeout, step.sentence()),
            CloseReason::Misbehaved => (Code::Misbehaved, "your media broke the protocol"),
            CloseReason::Panicked => (
                Code::InternalError,
                "the server made a mistake and had to drop you; join again",
            ),
            CloseReason::Full => (
                Code::ServerFull,
                "the server has no place for one more participant",
            ),
        };
        Self::new(code, message)
    }
}
