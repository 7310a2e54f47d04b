//! What a client that lost its WebSocket shows to be taken for the same participant.

use std::fmt::{self, Write as _};

use crate::id::PeerId;

/// Names a peer, and proves by 128 random bits that its bearer is that peer's client. Good for
/// one return.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeToken(String);

impl ResumeToken {
    /// A new one.
    ///
    /// # Panics
    ///
    /// When the operating system has no randomness.
    #[must_use]
    pub fn draw(peer: PeerId) -> Self {
        let mut secret = [0; 16];
        aws_lc_rs::rand::fill(&mut secret).expect("the system has randomness");
        let mut text = format!("{peer}.");
        for byte in secret {
            write!(text, "{byte:02x}").expect("a text can grow");
        }
        Self(text)
    }

    /// Whose token a text claims to be.
    #[must_use]
    pub fn peer_of(text: &str) -> Option<PeerId> {
        PeerId::parse(text.split_once('.')?.0)
    }

    /// Whether a text is this token. Takes the same time wherever they differ.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), text.as_bytes())
            .is_ok()
    }

    /// For the client, and nobody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_peer_and_is_only_itself() {
        let peer = PeerId::new(7);
        let (token, other) = (ResumeToken::draw(peer), ResumeToken::draw(peer));
        assert_eq!(ResumeToken::peer_of(token.reveal()), Some(peer));
        assert!(token.is(token.reveal()));
        assert!(!token.is(other.reveal()) && !token.is("") && !token.is("p_0.x"));
        assert_eq!(ResumeToken::peer_of("x"), None);
        assert!(!format!("{token:?}").contains('.'));
    }
}
