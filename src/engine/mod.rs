//! Decides. Pure: `now` and bytes come in, values go out; no sockets, no clock, no threads.

pub mod bwe;
pub mod codec;
pub mod command;
pub mod deadline;
pub mod egress;
pub mod keyframe;
pub mod rewriter;
pub mod stats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use str0m::net::Transmit;

use crate::id::ShardId;
use command::{Command, Event};
use stats::Stats;

/// What an engine is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which shard this engine decides for.
    pub shard: ShardId,
    /// How many shards there are.
    pub shards: u16,
    /// The host candidates every answer carries: where clients can reach this server.
    pub candidates: Arc<[SocketAddr]>,
    /// Where the engine's own randomness (ICE credentials) starts. Secret in production,
    /// fixed in a simulation.
    pub seed: [u8; 32],
    /// Receiving video m-lines the server asks of one client, at most.
    pub max_video_slots: u8,
    /// Receiving audio m-lines the server asks of one client, at most.
    pub max_audio_slots: u8,
}

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it. IPv4-mapped IPv6 addresses are given as IPv4.
    pub from: SocketAddr,
    /// The local address it was sent to.
    pub to: SocketAddr,
    /// Its payload.
    pub bytes: &'a [u8],
    /// How it got here: a handed-over datagram is never handed over again.
    pub arrival: Arrival,
}

/// How a datagram reached its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// From the shard's own socket.
    Socket,
    /// From another shard, which found that it belongs here.
    HandedOver,
}

/// What the shard must do for the engine.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram. Those of one peer come one after another.
    Transmit(Transmit),
    /// Tell the signalling thread.
    Event(Event),
    /// The datagram being handled belongs to another shard: give it that one.
    Handoff(ShardId, Handoff),
    /// `remote` proved (by STUN integrity) that it belongs to a peer of this shard.
    Learned(SocketAddr),
    /// `remote` no longer belongs to a peer of this shard.
    Forgotten(SocketAddr),
}

/// What one shard tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handoff {
    /// A datagram that reached the wrong socket.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// The local address it was sent to.
        to: SocketAddr,
        /// Its payload.
        bytes: Box<[u8]>,
    },
    /// The sending shard owns this remote address.
    Learned(SocketAddr),
    /// The sending shard owns it no longer.
    Forgotten(SocketAddr),
}

/// All rooms and peers of one shard.
#[derive(Debug)]
pub struct Engine {
    options: Options,
}

impl Engine {
    /// An engine with no rooms.
    #[must_use]
    pub fn new(_now: Instant, options: Options) -> Self {
        Self { options }
    }

    /// Takes in one datagram.
    pub fn handle_datagram(&mut self, _now: Instant, _datagram: Datagram<'_>) {}

    /// Takes in one command of the signalling thread.
    pub fn handle_command(&mut self, _now: Instant, _command: Command) {}

    /// Takes in what another shard handed over. `from` is the shard it came from.
    pub fn handle_handoff(&mut self, _now: Instant, _from: ShardId, _handoff: Handoff) {}

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing the shard must do; `None` when there is nothing left in this turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Engine::handle_timeout`] must be called next; `None` when nothing is pending.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        None
    }

    /// The counters as they stand.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let _ = &self.options;
        Stats::default()
    }
}
