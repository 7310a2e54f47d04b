//! The vocabulary between control and the recorder: [`Order`] in, [`Notice`] out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::manifest::{EndReason, Manifest};
use crate::engine::command::{Copying, Quality};
use crate::id::{PeerId, RecordingNumber, RoomId};
use crate::mailbox::CommandSender;

/// What the signalling thread asks of the recorder.
#[derive(Debug)]
pub enum Order {
    /// Begin a recording. Copies of its packets come from `shard`.
    Start {
        /// What the copies are marked with.
        number: RecordingNumber,
        /// What it is called.
        id: RecordingId,
        /// The room.
        room: RoomId,
        /// Who is asked for keyframes.
        shard: CommandSender,
        /// When it begins, in milliseconds since 1970.
        unix_ms: u64,
        /// What is recorded.
        mode: Mode,
    },
    /// Somebody is in a recorded room.
    Joined {
        /// Of which recording.
        number: RecordingNumber,
        /// Who.
        peer: PeerId,
        /// Who that is by its token, or by its own word.
        user_id: Option<String>,
        /// What it calls itself.
        name: Option<String>,
    },
    /// Somebody has left a recorded room.
    Left {
        /// Of which recording.
        number: RecordingNumber,
        /// Who.
        peer: PeerId,
    },
    /// Somebody else in a recorded room speaks, or nobody does.
    Speaks {
        /// Of which recording.
        number: RecordingNumber,
        /// Who, of those who speak the one who has for longest.
        peer: Option<PeerId>,
    },
    /// End a recording. What is on its way is still written.
    Stop {
        /// Which.
        number: RecordingNumber,
        /// Why.
        reason: EndReason,
    },
    /// Which recordings are there? Newest first.
    List(oneshot::Sender<Vec<Manifest>>),
}

/// What the recorder tells the signalling thread.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A recording ends by itself: nothing more of it is to be copied.
    Ending {
        /// Which.
        number: RecordingNumber,
        /// Why.
        reason: EndReason,
    },
    /// A recording has ended and its files are whole.
    Finished {
        /// Which.
        number: RecordingNumber,
        /// What it is.
        manifest: Box<Manifest>,
    },
    /// One file was made of a recording.
    Composed(Box<Manifest>),
    /// A recording is in the object store.
    Uploaded(Box<Manifest>),
}

/// Which layer of a video that comes in several sizes is recorded.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The largest that arrives.
    #[default]
    Best,
    /// The second smallest.
    Medium,
    /// The smallest.
    Low,
}

/// What of a room is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// Of videos in several sizes.
    pub layer: Layer,
    /// Frames are recorded as they are: the participants encrypt them end to end.
    pub is_opaque: bool,
}

impl Mode {
    /// What the engine is to copy for it.
    #[must_use]
    pub fn copying(self, recording: RecordingNumber) -> Copying {
        Copying {
            recording,
            quality: match self.layer {
                Layer::Best => Quality::High,
                Layer::Medium => Quality::Medium,
                Layer::Low => Quality::Low,
            },
            is_opaque: self.is_opaque,
        }
    }
}

/// How a room is to be recorded; what is left out is as the server is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema, JsonSchema)]
pub struct RecordingRequest {
    /// Which layer of a video that comes in several sizes.
    pub layer: Option<Layer>,
    /// Whether frames that clients encrypt end to end are recorded as they are.
    pub opaque: Option<bool>,
}

impl RecordingRequest {
    /// What is recorded, where `default` holds for what is left out.
    #[must_use]
    pub fn mode(self, default: Mode) -> Mode {
        Mode {
            layer: self.layer.unwrap_or(default.layer),
            is_opaque: self.opaque.unwrap_or(default.is_opaque),
        }
    }
}

/// What a recording is called: `rec_` and 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordingId(String);

impl RecordingId {
    /// The name made of a number that nobody has used and nobody can guess.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(format!("rec_{number:016x}"))
    }

    /// Parses what [`RecordingId::new`] made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("rec_")?;
        let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let fits = digits.len() == 16 && digits.bytes().all(is_hex);
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
