//! Numbers that nobody can guess, for the names of participants and rooms.

use std::hash::{BuildHasher, RandomState};

use crate::id::PeerId;

/// Draws numbers that cannot be guessed from one another: a counter under SipHash with the
/// operating system's randomness as its key.
#[derive(Debug, Default)]
pub struct PeerNumbers {
    key: RandomState,
    drawn: u64,
}

impl PeerNumbers {
    /// The next one. Two may be equal, as seldom as two of 64 random bits.
    pub fn draw(&mut self) -> PeerId {
        PeerId::new(self.draw_number())
    }

    /// As [`PeerNumbers::draw`], for something that is no peer.
    pub fn draw_number(&mut self) -> u64 {
        self.drawn += 1;
        self.key.hash_one(self.drawn)
    }
}
