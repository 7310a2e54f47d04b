//! The vocabulary between control and the recorder: [`Order`] in, [`Notice`] out.

use tokio::sync::oneshot;

use super::manifest::{EndReason, Manifest};
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
