//! What a client writes down about what it receives.

use std::sync::Arc;
use std::time::Duration;

use str0m::rtp::Ssrc;

use super::decoder::Decoder;
use super::encoder::{Stamp, Vp8Ids};
use crate::engine::command::{Kind, TrackInfo};

/// One received RTP packet, retransmissions among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// When, since the world began.
    pub(crate) at: Duration,
    /// Extended sequence number.
    pub(crate) seq: u64,
    /// RTP timestamp.
    pub(crate) time: u32,
    /// Marker bit.
    pub(crate) marker: bool,
    pub(crate) payload: Arc<[u8]>,
    /// What the packet says about itself; `None` when no encoder made it or it was damaged.
    pub(crate) stamp: Option<Stamp>,
    /// Its dependency descriptor.
    pub(crate) descriptor: Option<Arc<[u8]>>,
    /// Of a VP8 packet.
    pub(crate) vp8: Option<Vp8Ids>,
}

/// One m-line that receives.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// What the server says plays in it.
    pub(crate) track: Option<TrackInfo>,
    /// Everything that arrived on it, in order of arrival.
    pub(crate) received: Vec<Received>,
    /// When each frame could be shown, since the world began, and of what it was.
    pub(crate) shown: Vec<(Duration, Kind)>,
    /// What could be shown of it.
    pub(crate) decoder: Decoder,
    /// The SSRCs it arrived on.
    pub(crate) ssrcs: Vec<Ssrc>,
}
