//! Decides. Pure: `now` and bytes come in, values go out; no sockets, no clock, no threads.

pub mod allocate;
mod allocation;
mod arena;
pub mod bwe;
pub mod caps;
mod channels;
pub mod codec;
pub mod command;
mod connection;
mod control;
pub mod copies;
mod credentials;
pub mod deadline;
mod demux;
mod diagnosis;
pub mod dtls;
pub mod egress;
#[cfg(debug_assertions)]
pub mod export;
mod feedback;
pub mod figures;
mod hearing;
pub mod ingress;
mod inspect;
mod intake;
pub mod keyframe;
pub mod layers;
pub mod limits;
mod lines;
mod media;
mod negotiation;
mod options;
mod pacing;
mod peer;
mod prefetch;
mod reading;
pub mod replay;
pub mod rewriter;
mod room;
mod router;
mod runs;
pub mod selector;
mod settle;
mod signing;
mod spare;
pub mod speakers;
pub mod stats;
#[cfg(test)]
pub(crate) mod stock;
mod streams;
mod subscription;
pub mod svc;
pub mod tcp;
mod thinning;
mod timestamp;
mod track;
mod wanted;
pub mod warnings;
mod wishes;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::net::Transmit;
use str0m::{Event as RtcEvent, IceConnectionState};

use crate::id::{PeerId, RoomId, ShardId};
use allocation::Share;
use arena::{Arena, Key};
use caps::Meter;
use command::{CloseReason, Command, Event, Spared};
use copies::Copied;
use credentials::Credentials;
use deadline::Deadlines;
use demux::Demux;
use egress::clock::WallClock;
use egress::feedback::Feedback;
use egress::packet::Batch;
use ingress::payload::Spares;
pub use options::Options;
use peer::Peer;
use room::Room;
use stats::Stats;
use track::Track;

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
    /// Send these datagrams: [`Engine::arena`] has them until [`Engine::release`].
    Run(Run),
    /// Tell the signalling thread.
    Event(Event),
    /// The datagram being handled belongs to another shard: give it that one.
    Handoff(ShardId, Handoff),
    /// Give this to the recorder.
    Copied(Copied),
    /// `remote` proved (by STUN integrity) that it belongs to a peer of this shard.
    Learned(SocketAddr),
    /// `remote` no longer belongs to a peer of this shard.
    Forgotten(SocketAddr),
    /// The keys of a client's connection, for a file, if one is asked for.
    #[cfg(debug_assertions)]
    Keys(SocketAddr, export::ExportedKeys),
}

/// Datagrams to one destination that lie side by side, ready for one GSO entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The local address to send from.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// Where [`Engine::arena`] has them.
    pub bytes: Range<usize>,
    /// The length of each but the last, which may be shorter.
    pub segment: usize,
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
    credentials: Credentials,
    demux: Demux,
    rooms: Arena<Room>,
    room_names: HashMap<RoomId, Key<Room>>,
    peers: Arena<Peer>,
    peer_names: HashMap<PeerId, Key<Peer>>,
    tracks: Arena<Track>,
    /// Counts tracks, to tell their histories apart.
    histories: u32,
    deadlines: Deadlines<Key<Peer>>,
    turn: router::Turn,
    /// What leaves in this turn, sealed.
    batch: Batch,
    /// What a client reported: reused.
    feedback: Feedback,
    /// What the next packets are opened into.
    spares: Spares,
    /// What a peer's share-out works with: reused.
    share: Share,
    wall_clock: WallClock,
    /// Peers that changed and whose events and datagrams are still to be looked at.
    touched: VecDeque<Key<Peer>>,
    /// Peers that may have to be woken at another time than is noted: looked at when the turn
    /// ends, once for all that came from each.
    restless: Vec<Key<Peer>>,
    /// Peers to close once nobody is in the middle of changing them.
    doomed: Vec<(Key<Peer>, CloseReason)>,
    /// What the shard must do, in order.
    outbox: VecDeque<Output>,
    /// The latest time the engine was told.
    now: Instant,
    /// What has come in, for the shard's cap.
    meter: Meter,
    stats: Stats,
    /// What is left out because there is too much to do.
    spared: Spared,
}

impl Engine {
    /// An engine with no rooms. `since_epoch` is Unix time at `now`: sender reports tell it.
    #[must_use]
    pub fn new(now: Instant, since_epoch: Duration, options: Options) -> Self {
        let provider = Arc::clone(&options.identity.provider);
        Self {
            credentials: Credentials::new(options.shard, options.seed, provider),
            demux: Demux::new(options.shard, options.shards),
            rooms: Arena::default(),
            room_names: HashMap::new(),
            peers: Arena::default(),
            peer_names: HashMap::new(),
            tracks: Arena::default(),
            histories: 0,
            deadlines: Deadlines::new(),
            turn: router::Turn::default(),
            batch: Batch::with_capacity(limits::ARENA_BYTES),
            feedback: Feedback::new(),
            spares: Spares::default(),
            share: Share::default(),
            wall_clock: WallClock::new(now, since_epoch),
            touched: VecDeque::new(),
            restless: Vec::new(),
            doomed: Vec::new(),
            outbox: VecDeque::new(),
            now,
            meter: Meter::new(now),
            stats: Stats::default(),
            spared: Spared::default(),
            options,
        }
    }

    /// Takes in one datagram.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.now = self.now.max(now);
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += datagram.bytes.len() as u64;
        if let Err(dropped) = self.deliver(now, datagram) {
            self.stats.dropped.add(dropped);
        }
        self.settle(now);
    }

    /// Takes in one command of the signalling thread.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.now = self.now.max(now);
        match command {
            Command::Join {
                room,
                peer,
                permissions,
            } => self.join(now, room, peer, permissions),
            Command::Permit { peer, permissions } => self.permit(now, peer, permissions),
            Command::Subscribe {
                peer,
                tracks,
                is_wanted,
            } => self.subscribe(now, peer, tracks, is_wanted),
            Command::Show { peer, layout } => self.show(now, peer, layout),
            Command::CapQuality {
                peer,
                track,
                quality,
            } => self.cap_quality(now, peer, track, quality),
            Command::Silence { track, is_silent } => self.silence(now, track, is_silent),
            Command::Offer { peer, sdp, sources } => self.offer(now, peer, &sdp, &sources),
            Command::Candidate { peer, candidate } => self.candidate(peer, &candidate),
            Command::Spare(spared) => self.spared = spared,
            Command::Limit(caps) => self.options.caps = caps,
            Command::Leave { peer } => self.leave(now, peer),
            Command::Record { room, copying } => self.record(now, &room, copying),
            Command::RenewRecorded { track } => self.renew_recorded(now, track),
            Command::Inspect { room } => self.inspect(now, room),
            Command::Measure { peer } => self.measure(now, peer),
        }
        self.settle(now);
    }

    /// Takes in what another shard handed over. `from` is the shard it came from.
    pub fn handle_handoff(&mut self, now: Instant, from: ShardId, handoff: Handoff) {
        match handoff {
            Handoff::Datagram { from, to, bytes } => {
                let arrival = Arrival::HandedOver;
                self.handle_datagram(
                    now,
                    Datagram {
                        from,
                        to,
                        bytes: &bytes,
                        arrival,
                    },
                );
            }
            Handoff::Learned(remote) => {
                if let Some(key) = self.demux.learn_foreign(remote, from)
                    && let Some(peer) = self.peers.get_mut(key)
                {
                    peer.addresses.remove(remote);
                }
            }
            Handoff::Forgotten(remote) => self.demux.forget_foreign(remote, from),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some(key) = self.deadlines.pop_due(now) {
            let over = self.with_peer(key, |peer, _| peer.handle_timeout(now));
            if let Some(Some(reason)) = over {
                self.doomed.push((key, reason));
            }
            self.tell_lost(now, key);
            self.review(now, key);
            self.weigh_silence(now, key);
            self.weigh_wanted(now, key);
            self.send_due_keyframe_requests(now, key);
            self.tell_reception(now, key);
            if let Some(peer) = self.peers.get_mut(key)
                && peer.is_pacing_due(now)
            {
                self.turn.list(key, peer);
            }
            self.settle(now);
        }
    }

    /// The next thing the shard must do; `None` when there is nothing left in this turn.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.offer_queued();
        while self.outbox.is_empty() {
            if self.batch.bytes().len() >= limits::ARENA_BYTES {
                return None;
            }
            if !self.give_out_next() {
                self.calm();
                return None;
            }
            self.settle(self.now);
        }
        let output = self.outbox.pop_front()?;
        match &output {
            Output::Transmit(transmit) => {
                self.stats.datagrams_out += 1;
                self.stats.bytes_out += transmit.contents.len() as u64;
            }
            Output::Run(run) => {
                self.stats.datagrams_out += run.bytes.len().div_ceil(run.segment) as u64;
                self.stats.bytes_out += run.bytes.len() as u64;
            }
            _ => {}
        }
        Some(output)
    }

    /// The bytes of every [`Run`] given out since [`Engine::release`].
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        self.batch.bytes()
    }

    /// Every [`Run`] given out has been sent, or copied. `true` when the turn stopped short for
    /// want of room in the arena: [`Engine::poll_output`] has more.
    pub fn release(&mut self) -> bool {
        self.batch.clear();
        !self.turn.dirty.is_empty()
    }

    /// When [`Engine::handle_timeout`] must be called next; `None` when nothing is pending.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    fn handle_event(&mut self, now: Instant, key: Key<Peer>, event: RtcEvent) {
        match event {
            RtcEvent::Connected => self.connected(now, key),
            #[cfg(test)]
            RtcEvent::KeyframeRequest(request) => self.take_stock_request(now, key, request.mid),
            RtcEvent::IceConnectionStateChange(state) => {
                let Some(peer) = self.peers.get_mut(key) else {
                    return;
                };
                match state {
                    IceConnectionState::Disconnected => peer.set_lost(now),
                    IceConnectionState::Connected | IceConnectionState::Completed => {
                        peer.set_found();
                    }
                    IceConnectionState::New | IceConnectionState::Checking => {}
                }
            }
            RtcEvent::Closed => self.renew(now, key),
            RtcEvent::ChannelOpen(id, label) => self.channel_opened(now, key, id, &label),
            RtcEvent::ChannelData(message) => self.relay_data(now, key, &message),
            RtcEvent::ChannelClose(id) => self.channel_closed(key, id),
            _ => {}
        }
    }

    /// ICE and DTLS are up: what plays to the peer begins with keyframes.
    fn connected(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        peer.set_connected();
        let id = peer.id;
        let (dtls, srtp) = (peer.dtls_version(), peer.srtp_profile());
        tracing::debug!(peer = %id, ?dtls, ?srtp, "connected");
        self.stats.connected += 1;
        self.tell(Event::Connected { peer: id });
        #[cfg(debug_assertions)]
        self.export_keys(key);
        self.allocate(now, key);
    }
}
