//! Why a client's media did not come about.

use super::command::MissingStep;
use super::peer::Peer;

impl Peer {
    /// The first step on the way to media that the client has not taken.
    pub(super) fn missing_step(&self) -> MissingStep {
        if self.addresses.is_empty() {
            MissingStep::Stun
        } else if !self.nominated {
            MissingStep::Nomination
        } else if !self.heard_dtls {
            MissingStep::Dtls
        } else {
            MissingStep::DtlsEnd
        }
    }
}

/// RFC 7983 §7.
pub(super) fn is_dtls(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=63, ..])
}
