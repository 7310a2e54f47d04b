//! A peer's m-lines: what it publishes and receives in them.

use str0m::format::PayloadParams;
use str0m::media::Mid;

use super::command::Kind;
use super::peer::{Peer, media_of};

impl Peer {
    /// Which of its m-lines the client sends on.
    pub(crate) fn publishes(&self, mid: Mid) -> bool {
        media_of(&self.rtc, mid).is_some_and(|media| media.direction().is_receiving())
    }

    /// Whether an m-line still exists.
    pub(crate) fn has_line(&self, mid: Mid) -> bool {
        media_of(&self.rtc, mid).is_some()
    }

    /// The payload types it may send.
    pub(crate) fn formats(&self) -> Vec<PayloadParams> {
        self.rtc.codec_config().params().to_vec()
    }

    /// How many m-lines of a kind the client receives on.
    pub(crate) fn receives(&self, kind: Kind) -> u8 {
        let open = self
            .slots
            .iter()
            .filter(|slot| slot.open && slot.kind == kind)
            .count();
        u8::try_from(open).unwrap_or(u8::MAX)
    }
}
