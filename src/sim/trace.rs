//! What happened, in plain facts: two runs of one seed must leave the same trace.

use std::fmt;
use std::time::Duration;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When, since the world began.
    pub(crate) at: Duration,
    /// Who did it or to whom it happened.
    pub(crate) who: Who,
    /// What.
    pub(crate) fact: Fact,
}

/// A shard or a client, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Shard(usize),
    Client(usize),
}

/// What happened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// It sent a datagram of this class and length; of DTLS and RTCP the length counts as zero,
    /// see [`super`].
    Sent(Class, usize),
    /// It took in a datagram.
    Arrived(Class, usize),
    /// It said this over signalling; session descriptions by their length.
    Said(String),
}

/// RFC 7983 §7: what a datagram is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    Other,
}

impl Class {
    /// The class of a datagram.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0..=3, ..] => Self::Stun,
            [20..=63, ..] => Self::Dtls,
            // RFC 5761 §4: RTCP packet types, marker bit and all, are 192 to 223.
            [128..=191, 192..=223, ..] => Self::Rtcp,
            [128..=191, _, ..] => Self::Rtp,
            _ => Self::Other,
        }
    }

    /// The length that goes into a trace.
    pub(crate) fn length(self, bytes: &[u8]) -> usize {
        match self {
            Self::Dtls | Self::Rtcp => 0,
            Self::Stun | Self::Rtp | Self::Other => bytes.len(),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.at, self.who, self.fact)
    }
}

/// Where two traces part: the first differing place and what each has there.
pub(crate) fn first_difference(one: &[Entry], two: &[Entry]) -> Option<String> {
    let length = one.len().max(two.len());
    (0..length).find_map(|i| {
        let (a, b) = (one.get(i), two.get(i));
        (a != b).then(|| format!("entry {i}: {a:?} against {b:?}"))
    })
}
