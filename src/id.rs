//! Names as types: rooms, peers, tracks, shards. Parsed once, at the edge.

use std::fmt;
use std::sync::Arc;

/// A room name as the client wrote it: 1 to 64 bytes of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId(Arc<str>);

/// Why a room name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRoomId {
    /// The name is empty or longer than [`RoomId::MAX_BYTES`].
    #[error("a room name has 1 to 64 characters, this one has {0}")]
    Length(usize),
    /// The name has a character outside `[A-Za-z0-9_-]`.
    #[error("a room name may contain letters, digits, '_' and '-' only")]
    Character,
}

impl RoomId {
    /// Longest room name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Parses a room name. There is no other way to make a `RoomId`.
    ///
    /// # Errors
    ///
    /// [`BadRoomId`] says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, BadRoomId> {
        if name.is_empty() || name.len() > Self::MAX_BYTES {
            return Err(BadRoomId::Length(name.chars().count()));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !name.bytes().all(legal) {
            return Err(BadRoomId::Character);
        }
        Ok(Self(name.into()))
    }

    /// The name as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomId({})", self.0)
    }
}

/// One connected client, unique in the process. Drawn at random by the signalling thread, so
/// that knowing one name does not give the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(u64);

impl PeerId {
    /// Wraps a number that the caller has made unique.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Parses what [`fmt::Display`] printed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("p_")?;
        if digits.len() != 16
            || !digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p_{:016x}", self.0)
    }
}

/// One track: the peer that publishes it and a number that peer never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId {
    /// Who publishes it.
    pub peer: PeerId,
    /// Counts the peer's tracks in the order they were first offered.
    pub number: u16,
}

impl TrackId {
    /// Parses what [`fmt::Display`] printed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (peer, number) = text.strip_prefix("t_")?.split_once('_')?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let peer = PeerId::parse(&format!("p_{peer}"))?;
        Some(Self {
            peer,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t_{:016x}_{}", self.peer.0, self.number)
    }
}

/// One recording of one room, unique in the process. A room that is recorded again has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordingNumber(u64);

impl RecordingNumber {
    /// Wraps a number that the caller has made unique.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// A core and all it owns: its socket, its rooms, its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(u16);

impl ShardId {
    /// How many shards two ufrag characters can name.
    pub const MAX: u16 = 36 * 36;

    /// The shard of this index.
    ///
    /// # Panics
    ///
    /// When `index` is [`ShardId::MAX`] or more: the number of shards is checked at start-up.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        assert!(
            index < Self::MAX,
            "more shards than two ufrag characters can name"
        );
        Self(index)
    }

    /// Its place in start-up order, which is also its socket's in the reuseport group.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The two characters that begin every ICE ufrag this shard hands out (base 36, `0-9a-z`),
    /// so that a datagram's STUN USERNAME names its shard.
    #[must_use]
    pub fn ufrag_prefix(self) -> [u8; 2] {
        let digit = |n: u16| b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(n)];
        [digit(self.0 / 36), digit(self.0 % 36)]
    }

    /// Which shard handed out this ufrag, if any could have.
    #[must_use]
    pub fn from_ufrag(ufrag: &[u8]) -> Option<Self> {
        let value = |b: u8| match b {
            b'0'..=b'9' => Some(u16::from(b - b'0')),
            b'a'..=b'z' => Some(u16::from(b - b'a') + 10),
            _ => None,
        };
        let [high, low, ..] = ufrag else { return None };
        Some(Self(value(*high)? * 36 + value(*low)?))
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_are_checked_at_the_edge() {
        assert!(RoomId::parse("daily-standup_2").is_ok());
        assert_eq!(RoomId::parse(""), Err(BadRoomId::Length(0)));
        assert_eq!(RoomId::parse(&"a".repeat(65)), Err(BadRoomId::Length(65)));
        assert_eq!(RoomId::parse("../etc"), Err(BadRoomId::Character));
    }

    #[test]
    fn names_survive_the_wire() {
        let peer = PeerId::new(0x1234_5678_9abc_def0);
        let track = TrackId { peer, number: 7 };
        assert_eq!(PeerId::parse(&peer.to_string()), Some(peer));
        assert_eq!(TrackId::parse(&track.to_string()), Some(track));
        assert_eq!(TrackId::parse("t_zz_1"), None);
        assert_eq!(PeerId::parse("p_+123456789abcdef"), None);
    }

    #[test]
    fn every_shard_is_named_by_two_characters() {
        for index in 0..ShardId::MAX {
            let shard = ShardId::new(index);
            assert_eq!(ShardId::from_ufrag(&shard.ufrag_prefix()), Some(shard));
        }
        assert_eq!(ShardId::from_ufrag(b"A0rest"), None);
        assert_eq!(ShardId::from_ufrag(b"0"), None);
    }
}
