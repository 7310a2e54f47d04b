//! The whole vocabulary between control and media: [`Command`] in, [`Event`] out.

use std::net::SocketAddr;

pub use super::allocate::{Quality, Reason};
pub use super::caps::{Cap, Caps};
pub use super::codec::Size;
pub use super::figures::{Fares, LayerFigures, PeerFigures, PublishFigures, WatchFigures};
pub use super::warnings::{Severity, Trouble};
use crate::id::{PeerId, RecordingNumber, RoomId, TrackId};

/// What the signalling thread asks of the shard that owns a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A participant enters a room. It has no media until its first [`Command::Offer`].
    Join {
        /// The room, made when this is its first peer.
        room: RoomId,
        /// The participant.
        peer: PeerId,
        /// What it may do there.
        permissions: Permissions,
    },
    /// From here on a peer may do this.
    Permit {
        /// Who.
        peer: PeerId,
        /// What.
        permissions: Permissions,
    },
    /// A peer wants to watch these tracks, or does not. At first it wants all there are.
    Subscribe {
        /// Who watches.
        peer: PeerId,
        /// Tracks of others in its room.
        tracks: Vec<TrackId>,
        /// Whether it wants them.
        is_wanted: bool,
    },
    /// What a peer shows of what it watches. Before the first it shows everything as large as it
    /// gets; after it what is not named is a thumbnail.
    Show {
        /// Who shows.
        peer: PeerId,
        /// Tracks of others in its room.
        layout: Vec<(TrackId, Shown)>,
    },
    /// A peer wants no better than this.
    CapQuality {
        /// Who watches.
        peer: PeerId,
        /// Which track; `None` for all, those named before included.
        track: Option<TrackId>,
        /// How good.
        quality: Quality,
    },
    /// A track is played to nobody, or again to whoever wants it.
    Silence {
        /// Which.
        track: TrackId,
        /// Whether it is played to nobody.
        is_silent: bool,
    },
    /// An SDP offer from the client. Answered by [`Event::Answer`] or [`Event::Refused`].
    Offer {
        /// Who offers.
        peer: PeerId,
        /// RFC 8829 session description, already within the signalling size limit.
        sdp: String,
        /// What the client says its sending m-lines carry; others are a microphone or a camera
        /// by their kind.
        sources: Vec<(String, Source)>,
    },
    /// A trickled ICE candidate of the client, as in `RTCIceCandidate.candidate`.
    Candidate {
        /// Whose.
        peer: PeerId,
        /// The candidate line, with or without its `a=`.
        candidate: String,
    },
    /// From here on the shard spares itself work, or does not: who reports is weighed anew.
    Spare(Spared),
    /// From here on this much media may come in.
    Limit(Caps),
    /// Tell what is known of a room's peers. Answered by [`Event::Inspected`].
    Inspect {
        /// Which room.
        room: RoomId,
    },
    /// Tell how a peer is served. Answered by [`Event::Measured`].
    Measure {
        /// Which.
        peer: PeerId,
    },
    /// The participant leaves; everything it held is freed.
    Leave {
        /// Who leaves.
        peer: PeerId,
    },
    /// What is published in a room is copied for a recorder, or no longer. Void where nobody is in
    /// the room.
    Record {
        /// Which.
        room: RoomId,
        /// What is copied; `None` to stop.
        copying: Option<Copying>,
    },
    /// A recorder needs a keyframe of a track that it gets copies of.
    RenewRecorded {
        /// Which.
        track: TrackId,
    },
}

/// What a recorder is given of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copying {
    /// For which recording.
    pub recording: RecordingNumber,
    /// The best layer that it is given of a video that has several.
    pub quality: Quality,
    /// Whether clients encrypt their frames, so that no keyframe can be told.
    pub is_opaque: bool,
}

/// What a shard that has too much to do leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spared {
    /// Whether the highest layer of each video that has several is sent to nobody.
    pub top_layers: bool,
    /// Most videos that one viewer is sent.
    pub videos: Option<u8>,
}

/// What a shard tells the signalling thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to an offer, with what plays in each receiving m-line.
    Answer {
        /// Who offered.
        peer: PeerId,
        /// RFC 8829 session description.
        sdp: String,
        /// Every slot of the peer, also the empty ones.
        slots: Vec<Slot>,
    },
    /// An offer or a candidate that was refused; the peer's session goes on as it was.
    Refused {
        /// Who sent it.
        peer: PeerId,
        /// Why.
        refusal: Refusal,
    },
    /// The client should offer again, so that it has this many receiving m-lines of each kind.
    RequestOffer {
        /// Who should offer.
        peer: PeerId,
        /// Audio m-lines wanted in all.
        audio: u8,
        /// Video m-lines wanted in all.
        video: u8,
    },
    /// What plays in these slots from here on.
    Slots {
        /// Whose slots.
        peer: PeerId,
        /// Those that changed.
        slots: Vec<Slot>,
    },
    /// A track can be watched.
    TrackPublished {
        /// Where.
        room: RoomId,
        /// What.
        track: TrackInfo,
    },
    /// An m-line of the latest offer sends what the peer may not publish: it is not forwarded.
    NotPublished {
        /// Who offered.
        peer: PeerId,
        /// The m-line's `a=mid`.
        mid: String,
        /// What it sends.
        source: Source,
    },
    /// The peer reads its data channels too slowly: messages to it were dropped.
    DataLost {
        /// Who.
        peer: PeerId,
        /// How many since it was last told.
        messages: u32,
    },
    /// Who speaks in a room has changed.
    Speakers {
        /// Where.
        room: RoomId,
        /// Who speaks, longest first.
        speakers: Vec<PeerId>,
    },
    /// A peer's connection has become bad, worse or better.
    Warning {
        /// Whose.
        peer: PeerId,
        /// What is bad about it.
        trouble: Trouble,
        /// How much of that there is, in its unit.
        value: u32,
        /// How bad that is.
        severity: Severity,
    },
    /// What a peer is sent of these tracks has changed, or why it is not more.
    Sent {
        /// Who watches.
        peer: PeerId,
        /// Each track with the place of its layer among all, the smallest first; `None` when
        /// nothing is sent.
        tracks: Vec<(TrackId, Option<u8>, Reason)>,
    },
    /// Which layers of a track nobody watches has changed.
    Unwanted {
        /// Who publishes it.
        peer: PeerId,
        /// Which track.
        track: TrackId,
        /// Its m-line.
        mid: String,
        /// The RIDs that need not be sent; none when all are wanted.
        rids: Vec<String>,
        /// Likewise the spatial layers of a track that has its layers in one stream.
        spatial_layers: Vec<u8>,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Where.
        room: RoomId,
        /// Which.
        track: TrackId,
    },
    /// What is known of a room's peers, in the order they came.
    Inspected {
        /// Which room.
        room: RoomId,
        /// Its peers; none when this shard has no such room.
        peers: Vec<PeerReport>,
    },
    /// How a peer is served, as was asked.
    Measured {
        /// Which.
        peer: PeerId,
        /// That.
        figures: Box<PeerFigures>,
    },
    /// ICE and DTLS are up: media flows.
    Connected {
        /// Whose.
        peer: PeerId,
    },
    /// The engine closed the peer; it is no longer in its room.
    Closed {
        /// Who.
        peer: PeerId,
        /// Where it was.
        room: RoomId,
        /// Why.
        reason: CloseReason,
    },
}

/// What is known of a peer, for whoever looks for a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// Who.
    pub peer: PeerId,
    /// Whether an offer of its client was answered.
    pub has_offered: bool,
    /// The step on the way to media that it has not taken; without meaning once it is connected.
    pub missing: MissingStep,
    /// Whether ICE and DTLS are up.
    pub is_connected: bool,
    /// Where its client is sent to, once it has nominated a pair.
    pub remote: Option<SocketAddr>,
    /// Whether that is on TCP.
    pub is_tcp: bool,
    /// Its receiving m-lines.
    pub slots: usize,
    /// How it is served.
    pub figures: PeerFigures,
}

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// Where a track comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A person's voice.
    Microphone,
    /// A person's face.
    Camera,
    /// A shared screen or window.
    Screen,
    /// The sound of a shared screen.
    ScreenAudio,
}

/// How a viewer shows a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// In device pixels; without pixels it is not seen.
    pub size: Size,
    /// More comes before less where bandwidth is short.
    pub priority: u8,
}

/// What a peer may do in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// May publish [`Source::Microphone`].
    pub microphone: bool,
    /// May publish [`Source::Camera`].
    pub camera: bool,
    /// May publish [`Source::Screen`].
    pub screen: bool,
    /// May publish [`Source::ScreenAudio`].
    pub screen_audio: bool,
    /// May watch and hear others.
    pub subscribe: bool,
    /// May send on data channels.
    pub data: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self {
        microphone: true,
        camera: true,
        screen: true,
        screen_audio: true,
        subscribe: true,
        data: true,
    };

    /// Nothing but being there.
    pub const NONE: Self = Self {
        microphone: false,
        camera: false,
        screen: false,
        screen_audio: false,
        subscribe: false,
        data: false,
    };

    /// Whether a track from there may be published.
    #[must_use]
    pub fn may_publish(&self, source: Source) -> bool {
        match source {
            Source::Microphone => self.microphone,
            Source::Camera => self.camera,
            Source::Screen => self.screen,
            Source::ScreenAudio => self.screen_audio,
        }
    }
}

/// A published track, as other participants may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    /// Its name.
    pub id: TrackId,
    /// Audio or video.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
}

/// One receiving m-line of a peer and what plays in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The m-line's `a=mid`.
    pub mid: String,
    /// The track that plays in it; `None` when it is free.
    pub track: Option<TrackInfo>,
}

/// Why an offer or a candidate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer has not joined, or has already left.
    #[error("join a room before sending an offer or a candidate")]
    NotJoined,
    /// The text is not a session description, or breaks a rule of RFC 8829 we rely on.
    #[error("the offer could not be used: {0}")]
    BadOffer(String),
    /// The text is not an ICE candidate.
    #[error("the ICE candidate could not be parsed")]
    BadCandidate,
    /// The offer has more m-lines than a peer may hold.
    #[error("the offer has {0} m-lines, at most {1} are allowed")]
    TooManyMediaLines(usize, usize),
}

/// The first step on the way to media that a client did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MissingStep {
    /// No STUN request with the credentials of its answer arrived.
    Stun,
    /// STUN arrived, but the client never chose a pair (RFC 8445 §8.1.1): what is sent back does
    /// not reach it.
    Nomination,
    /// ICE is up, but no message of a DTLS handshake arrived.
    Dtls,
    /// A DTLS handshake began and did not end.
    DtlsEnd,
}

impl MissingStep {
    /// Every step, in their order.
    pub const ALL: [Self; 4] = [Self::Stun, Self::Nomination, Self::Dtls, Self::DtlsEnd];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Nomination => "nomination",
            Self::Dtls => "dtls",
            Self::DtlsEnd => "dtls_end",
        }
    }

    /// What is missing, and why that may be.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Stun => {
                "no STUN request arrived: is UDP to the server open, and is the address that it \
                 announces its own?"
            }
            Self::Nomination => {
                "STUN arrived, but no pair was chosen: do the server's answers reach the client?"
            }
            Self::Dtls => "ICE is up, but no DTLS handshake began",
            Self::DtlsEnd => {
                "the DTLS handshake did not end: does the network drop large datagrams, or is the \
                 certificate in the offer another one?"
            }
        }
    }
}

/// Why the engine closed a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It asked to leave.
    Left,
    /// ICE consent or connectivity was lost and did not come back in time.
    ConnectionLost,
    /// It never completed ICE and DTLS after its offer; this was the first step that it missed.
    ConnectTimeout(MissingStep),
    /// It broke the protocol in a way its session cannot survive.
    Misbehaved,
    /// Our own bug: the panic boundary caught it and the peer was dropped.
    Panicked,
    /// The room or shard has no place left.
    Full,
}
