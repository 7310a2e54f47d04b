//! Plain counters of one engine, copied out by value.

use super::Engine;
use super::command::Kind;
use super::peer::Peer;

/// Everything one engine counts. Gauges say what is there now; the others only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Gauge: rooms with at least one peer.
    pub rooms: u64,
    /// Gauge: peers in rooms.
    pub peers: u64,
    /// Gauge: published audio tracks.
    pub audio_tracks: u64,
    /// Gauge: published video tracks.
    pub video_tracks: u64,
    /// Gauge: one peer watching one track.
    pub subscriptions: u64,
    /// Gauge: remote addresses known to belong to a peer.
    pub addresses: u64,
    /// Gauge: what the paths to all who watch something carry, as estimated, in bits per second.
    pub estimated_bps: u64,
    /// Peers whose ICE and DTLS came up.
    pub connected: u64,
    /// Datagrams taken in.
    pub datagrams_in: u64,
    /// Bytes taken in.
    pub bytes_in: u64,
    /// Datagrams given out.
    pub datagrams_out: u64,
    /// Bytes given out.
    pub bytes_out: u64,
    /// RTP packets taken in from publishers.
    pub rtp_in: u64,
    /// RTP packets given out to subscribers, retransmissions aside.
    pub forwarded: u64,
    /// RTP packets sent again (RFC 4588).
    pub resent: u64,
    /// RTP packets that waited for their subscriber's pacer.
    pub paced: u64,
    /// RTP packets of padding only, sent to find out what a path carries.
    pub padding: u64,
    /// Data channel messages taken in.
    pub data_in: u64,
    /// Data channel messages given out, one for each who gets it.
    pub data_out: u64,
    /// Data channel messages that somebody who reads slowly did not get.
    pub data_lost: u64,
    /// Data channel messages of peers that may not send any.
    pub data_refused: u64,
    /// Datagrams of str0m's that the guard stopped. Any but zero is our bug.
    pub guarded: u64,
    /// Reception reports of viewers (RFC 3550 §6.4.1).
    pub reports: u64,
    /// What those say was lost since the one before, in 256ths, summed.
    pub reported_loss_256: u64,
    /// The jitter that those say there is, in microseconds, summed.
    pub reported_jitter_us: u64,
    /// Keyframe requests passed up to publishers.
    pub keyframe_requests: u64,
    /// Panics caught at the peer boundary. Any but zero is our bug.
    pub peer_panics: u64,
    /// What was dropped, by reason.
    pub dropped: DroppedCounts,
}

/// Why something was dropped: a metric label, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// No peer here or elsewhere owns the sender's address, and it is no STUN binding request.
    UnknownAddress,
    /// A STUN request for a ufrag nobody has.
    UnknownUfrag,
    /// The peer's state machine refused the bytes (bad STUN, failed authentication).
    Malformed,
    /// It was handed over to a shard that does not own it either.
    StrayHandoff,
    /// An RTP packet for which no track exists (yet).
    NoTrack,
    /// It is older than the first packet its subscriber was sent.
    PredatesSwitch,
    /// It was taken in already, or already forwarded to or withheld from that subscriber.
    Duplicate,
    /// It is so late that which number it had for that subscriber is forgotten.
    TooLate,
    /// It belongs to a layer its subscriber does not watch, or to one past the limit.
    OtherLayer,
    /// Its subscriber did not negotiate the codec its publisher sends.
    CodecNotNegotiated,
    /// It carries padding only.
    Padding,
    /// More packets arrived in one turn than it takes in.
    TurnQueueFull,
    /// The first pictures before a keyframe: nobody could decode them.
    AwaitingKeyframe,
    /// More waited for its subscriber's pacer than is of use.
    PacerFull,
    /// The path to its subscriber carries less.
    Paused,
    /// It is of a temporal layer above what its subscriber is sent.
    TemporalLayer,
    /// Its sender sends more than one may.
    PeerCap,
    /// More comes into its room than may.
    RoomCap,
    /// More comes into the server than may.
    ServerCap,
}

impl Dropped {
    /// Every reason, in the order [`DroppedCounts`] keeps them.
    pub const ALL: [Self; 19] = [
        Self::UnknownAddress,
        Self::UnknownUfrag,
        Self::Malformed,
        Self::StrayHandoff,
        Self::NoTrack,
        Self::PredatesSwitch,
        Self::Duplicate,
        Self::TooLate,
        Self::OtherLayer,
        Self::CodecNotNegotiated,
        Self::Padding,
        Self::TurnQueueFull,
        Self::AwaitingKeyframe,
        Self::PacerFull,
        Self::Paused,
        Self::TemporalLayer,
        Self::PeerCap,
        Self::RoomCap,
        Self::ServerCap,
    ];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownAddress => "unknown_address",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::Malformed => "malformed",
            Self::StrayHandoff => "stray_handoff",
            Self::NoTrack => "no_track",
            Self::PredatesSwitch => "predates_switch",
            Self::Duplicate => "duplicate",
            Self::TooLate => "too_late",
            Self::OtherLayer => "other_layer",
            Self::CodecNotNegotiated => "codec_not_negotiated",
            Self::Padding => "padding",
            Self::TurnQueueFull => "turn_queue_full",
            Self::AwaitingKeyframe => "awaiting_keyframe",
            Self::PacerFull => "pacer_full",
            Self::Paused => "paused",
            Self::TemporalLayer => "temporal_layer",
            Self::PeerCap => "peer_cap",
            Self::RoomCap => "room_cap",
            Self::ServerCap => "server_cap",
        }
    }
}

/// One counter per [`Dropped`] reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedCounts([u64; Dropped::ALL.len()]);

impl DroppedCounts {
    /// Counts one more.
    pub fn add(&mut self, reason: Dropped) {
        self.0[reason as usize] += 1;
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub fn count(&self, reason: Dropped) -> u64 {
        self.0[reason as usize]
    }
}

impl Engine {
    /// Whether anyone is there who may send something.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.peers.len() > 0
    }

    /// The counters as they stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let tracks_of = |kind| self.tracks.iter().filter(|t| t.info.kind == kind).count() as u64;
        Stats {
            rooms: self.rooms.len() as u64,
            peers: self.peers.len() as u64,
            audio_tracks: tracks_of(Kind::Audio),
            video_tracks: tracks_of(Kind::Video),
            subscriptions: self
                .tracks
                .iter()
                .map(|track| track.watchers.len() as u64)
                .sum(),
            addresses: self.demux.addresses() as u64,
            estimated_bps: self
                .peers
                .iter()
                .filter_map(Peer::estimate)
                .map(|estimate| estimate.as_u64())
                .sum(),
            ..self.stats.clone()
        }
    }
}
