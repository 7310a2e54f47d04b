//! What an engine is told once.

use std::net::SocketAddr;
use std::sync::Arc;

use super::caps::Caps;
use super::dtls::Identity;
use super::keyframe::Pacing;
use super::warnings::Thresholds;
use crate::id::ShardId;

/// What an engine is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which shard this engine decides for.
    pub shard: ShardId,
    /// How many shards there are.
    pub shards: u16,
    /// The host candidates every answer carries: where clients can reach this server.
    pub candidates: Arc<[SocketAddr]>,
    /// Likewise on TCP (RFC 6544, passive), on a port that no UDP candidate has.
    pub tcp_candidates: Arc<[SocketAddr]>,
    /// The process's certificate and crypto provider, the same for every shard.
    pub identity: Identity,
    /// Where the engine's own randomness (ICE credentials) starts. Secret in production,
    /// fixed in a simulation.
    pub seed: [u8; 32],
    /// Receiving video m-lines the server asks of one client, at most.
    pub max_video_slots: u8,
    /// Receiving audio m-lines the server asks of one client, at most.
    pub max_audio_slots: u8,
    /// How often publishers are asked for keyframes.
    pub keyframes: Pacing,
    /// How much media may come in.
    pub caps: Caps,
    /// When clients are told that their connection is bad.
    pub thresholds: Thresholds,
}
