//! The event loop of a simulation: virtual time, clients, engines, the paths between them.
//!
//! Time jumps from one event to the next; what happens at one instant happens in a fixed order
//! (arrivals as they were sent, then engines, then clients, each by index), and nothing iterates
//! over a hash map. Each engine is driven as a shard drives it: everything that arrived at one
//! instant is taken in, then its outputs are emptied, which is one turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use str0m::config::DtlsVersion;

use super::account::Account;
use super::client::{self, Client};
use super::clock;
use super::delivery::{Delivery, SIGNALLING_DELAY};
use super::identity::server_identity;
use super::link::{Link, Quality};
use super::publish::Publish;
use super::trace::{Entry, Fact, Who};
use crate::engine::allocate::Reason;
use crate::engine::caps::Caps;
use crate::engine::command::{CloseReason, Command, Event, PeerFigures, TrackInfo};
use crate::engine::{Engine, Options};
use crate::id::{PeerId, RoomId, ShardId, TrackId};
/// Steps at one instant after which time is said to stand still.
const STEPS_PER_INSTANT: u32 = 10_000;

/// Which socket of the reuseport group a datagram lands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    /// The one of the sender's shard.
    Right,
    /// The hash of the sender's address decides.
    Hash,
    /// Never the one of the sender's shard, if there is another.
    Wrong,
}

/// What a world is told once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Everything random starts here.
    pub(crate) seed: u64,
    pub(crate) shards: u16,
    pub(crate) steering: Steering,
    pub(crate) max_video_slots: u8,
    pub(crate) max_audio_slots: u8,
    pub(crate) caps: Caps,
    /// What every connection is made with.
    pub(crate) dtls: DtlsVersion,
}

impl Setup {
    /// One shard and the product's slot limits.
    pub(crate) const fn seed(seed: u64) -> Self {
        Self {
            seed,
            shards: 1,
            steering: Steering::Right,
            max_video_slots: 9,
            max_audio_slots: 3,
            caps: Caps::NONE,
            dtls: DtlsVersion::Dtls12,
        }
    }
}

/// What one shard was given and gave, by the world's own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Datagrams that reached its socket.
    pub(crate) datagrams_in: u64,
    /// Of those, RTP, as far as their first bytes tell.
    pub(crate) rtp_in: u64,
    /// Datagrams other shards handed to it.
    pub(crate) handed_in: u64,
    /// Datagrams it handed to others.
    pub(crate) handed_out: u64,
    /// Datagrams it sent.
    pub(crate) datagrams_out: u64,
    /// Bytes it sent.
    pub(crate) bytes_out: u64,
}

/// What an engine said plays in a slot, and since when.
pub(crate) type Assignments = Vec<(Duration, Option<TrackInfo>)>;

/// A client with the path between it and the server.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) client: Client,
    /// The address its datagrams come from, after NAT.
    pub(crate) outside: SocketAddr,
    pub(crate) shard: usize,
    /// By mid: all the server ever said about the slot.
    pub(crate) slots: BTreeMap<String, Assignments>,
    /// Everything it was sent.
    pub(crate) account: Account,
    pub(super) up: Link,
    pub(super) down: Link,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) engine: Engine,
    pub(super) traffic: Traffic,
    /// It was given something since its outputs were last emptied.
    pub(super) touched: bool,
}

/// A whole simulation.
#[derive(Debug)]
pub(crate) struct World {
    /// Clients by index; the place of one that left stays empty.
    pub(crate) seats: Vec<Option<Seat>>,
    /// Every track ever published.
    pub(crate) tracks: BTreeMap<TrackId, (RoomId, TrackInfo)>,
    /// Who speaks in each room, as the server said last.
    pub(crate) speakers: BTreeMap<RoomId, Vec<PeerId>>,
    /// What each viewer was told last that it gets of a track.
    pub(crate) told: BTreeMap<(PeerId, TrackId), (Option<u8>, Reason)>,
    /// The RIDs of each track whose publisher was told that nobody watches them.
    pub(crate) unwanted: BTreeMap<TrackId, Vec<String>>,
    /// Likewise the spatial layers.
    pub(crate) unwanted_spatial: BTreeMap<TrackId, Vec<u8>>,
    /// How each peer was served when that was asked last.
    pub(crate) measured: BTreeMap<PeerId, PeerFigures>,
    /// Every peer an engine closed.
    pub(crate) closed: Vec<(PeerId, CloseReason)>,
    /// Events for peers the world does not know: nobody should get any.
    pub(crate) strays: Vec<Event>,
    /// `Some` writes the trace down.
    pub(crate) trace: Option<Vec<Entry>>,
    pub(super) setup: Setup,
    began: Instant,
    pub(super) now: Instant,
    rng: Rng,
    pub(super) server: SocketAddr,
    pub(super) shards: Vec<Shard>,
    pub(super) peers: BTreeMap<PeerId, usize>,
    pub(super) addresses: BTreeMap<SocketAddr, usize>,
    /// Every address a client ever had.
    pub(super) had: BTreeMap<SocketAddr, usize>,
    /// Things on their way, in order of arrival, then of sending.
    agenda: BTreeMap<(Instant, u64), Delivery>,
    sent: u64,
}

impl World {
    /// A world without clients. Seeds the thread's `fastrand`, which str0m draws from: only one
    /// world at a time can be deterministic on a thread.
    pub(crate) fn new(setup: Setup) -> Self {
        fastrand::seed(setup.seed);
        let now = clock::origin();
        let server = SocketAddr::from(([192, 0, 2, 1], 10_000));
        let shard = |index| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&setup.seed.to_be_bytes());
            seed[8..10].copy_from_slice(&u16::to_be_bytes(index));
            let options = Options {
                shard: ShardId::new(index),
                shards: setup.shards,
                candidates: [server].into(),
                tcp_candidates: [].into(),
                identity: server_identity(setup.dtls),
                seed,
                max_video_slots: setup.max_video_slots,
                max_audio_slots: setup.max_audio_slots,
                caps: setup.caps,
                thresholds: Default::default(),
                keyframes: Default::default(),
            };
            Shard {
                engine: Engine::new(now, clock::SINCE_EPOCH, options),
                traffic: Traffic::default(),
                touched: false,
            }
        };
        Self {
            seats: Vec::new(),
            tracks: BTreeMap::new(),
            speakers: BTreeMap::new(),
            told: BTreeMap::new(),
            unwanted: BTreeMap::new(),
            unwanted_spatial: BTreeMap::new(),
            measured: BTreeMap::new(),
            closed: Vec::new(),
            strays: Vec::new(),
            trace: None,
            setup,
            began: now,
            now,
            rng: Rng::with_seed(setup.seed),
            server,
            shards: (0..setup.shards).map(shard).collect(),
            peers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            had: BTreeMap::new(),
            agenda: BTreeMap::new(),
            sent: 0,
        }
    }

    /// A client enters a room of this shard; the paths are clean until said otherwise.
    pub(crate) fn join(&mut self, shard: usize, room: &str, publish: &[Publish]) -> usize {
        let index = self.seats.len();
        let number = u16::try_from(index).unwrap();
        let [high, low] = number.to_be_bytes();
        let inside = SocketAddr::from(([10, 0, high, low], 40_000));
        let peer = PeerId::new(self.rng.u64(..));
        let setup = client::Setup {
            index: u32::from(number),
            peer,
            room: RoomId::parse(room).unwrap(),
            inside,
            publish: publish.to_vec(),
            seed: self.rng.u64(..),
            dtls: self.setup.dtls,
        };
        let client = Client::new(self.began, self.now, setup);
        let seat = Seat {
            account: Account::new(client.keys.clone()),
            client,
            outside: inside,
            shard,
            slots: BTreeMap::new(),
            up: Link::new(self.now, Quality::CLEAN, self.rng.u64(..)),
            down: Link::new(self.now, Quality::CLEAN, self.rng.u64(..)),
        };
        self.seats.push(Some(seat));
        self.peers.insert(peer, index);
        self.addresses.insert(inside, index);
        self.had.insert(inside, index);
        self.empty_client(index);
        index
    }

    /// The client says so and goes.
    pub(crate) fn leave(&mut self, index: usize) {
        let seat = self.vanish(index);
        let peer = seat.client.peer;
        self.command(seat.shard, Command::Leave { peer });
    }

    /// The client is gone without a word.
    pub(crate) fn vanish(&mut self, index: usize) -> Seat {
        let seat = self.seats[index].take().expect("the client is here");
        self.addresses.remove(&seat.outside);
        seat
    }

    /// The client's NAT gives it another address.
    pub(crate) fn rebind(&mut self, index: usize) {
        let seat = self.seats[index].as_mut().expect("the client is here");
        self.addresses.remove(&seat.outside);
        seat.outside.set_port(seat.outside.port() + 1);
        self.addresses.insert(seat.outside, index);
        self.had.insert(seat.outside, index);
    }

    /// Changes both directions of a client's path.
    pub(crate) fn set_quality(&mut self, index: usize, up: Quality, down: Quality) {
        let seat = self.seats[index].as_mut().expect("the client is here");
        seat.up.set_quality(up);
        seat.down.set_quality(down);
    }

    /// What waits on the path down to a client, as a time.
    pub(crate) fn queue_down(&self, index: usize) -> Duration {
        let seat = self.seats[index].as_ref().expect("the client is here");
        seat.down.queue(self.now)
    }

    /// The most that was sent to a client within two seconds that began then or later, in bits per
    /// second.
    pub(crate) fn busiest_down(&self, index: usize, from: Duration) -> u64 {
        let seat = self.seats[index].as_ref().expect("the client is here");
        seat.down.busiest(self.began + from, 20)
    }

    /// Has a client do something.
    pub(crate) fn act(&mut self, index: usize, action: impl FnOnce(&mut Client, Instant)) {
        let seat = self.seats[index].as_mut().expect("the client is here");
        action(&mut seat.client, self.now);
        self.empty_client(index);
    }

    /// Sends a command that no client made.
    pub(crate) fn command(&mut self, shard: usize, command: Command) {
        let at = self.now + SIGNALLING_DELAY;
        self.schedule(at, Delivery::Command { shard, command });
    }

    /// Sends a datagram that no client made.
    pub(crate) fn inject(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        let at = self.now + Duration::from_millis(1);
        self.schedule(at, Delivery::ToServer { from, bytes });
    }

    /// Lets this much virtual time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut still = 0;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(
                still < STEPS_PER_INSTANT,
                "time stands still at {:?}",
                self.time()
            );
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until every client is connected.
    ///
    /// # Panics
    ///
    /// When one is not within ten seconds.
    pub(crate) fn run_until_connected(&mut self) {
        for _ in 0..1000 {
            let mut seats = self.seats.iter().flatten();
            if seats.all(|seat| seat.client.connected.is_some()) {
                return;
            }
            self.run(Duration::from_millis(10));
        }
        let waiting: Vec<_> = self
            .present()
            .filter(|(_, s)| s.client.connected.is_none())
            .collect();
        let errors: Vec<_> = waiting.iter().map(|(i, s)| (i, &s.client.errors)).collect();
        panic!("not connected after 10 s: {errors:?}");
    }

    /// Virtual time since the world began.
    pub(crate) fn time(&self) -> Duration {
        self.now - self.began
    }

    /// The clients that are here, by index.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, &Seat)> {
        self.seats
            .iter()
            .enumerate()
            .filter_map(|(index, seat)| Some((index, seat.as_ref()?)))
    }

    /// A client that is here.
    pub(crate) fn client(&self, index: usize) -> &Client {
        &self.seats[index]
            .as_ref()
            .expect("the client is here")
            .client
    }

    /// Whose client has this index, also after it left.
    pub(crate) fn peer_of(&self, index: u32) -> Option<PeerId> {
        let mut peers = self.peers.iter();
        peers
            .find(|(_, i)| **i == index as usize)
            .map(|(peer, _)| *peer)
    }

    /// Each shard's engine and what passed its socket.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (&Engine, &Traffic)> {
        self.shards
            .iter()
            .map(|shard| (&shard.engine, &shard.traffic))
    }

    fn next_at(&self) -> Option<Instant> {
        let delivery = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let shard = self
            .shards
            .iter()
            .filter_map(|shard| shard.engine.wakeup())
            .min();
        let client = self.present().map(|(_, seat)| seat.client.wakeup()).min();
        [delivery, shard, client].into_iter().flatten().min()
    }

    /// One instant: arrivals, then engines, then clients.
    fn step(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let delivery = entry.remove();
            self.deliver(delivery);
        }
        for index in 0..self.shards.len() {
            let shard = &mut self.shards[index];
            if shard.engine.wakeup().is_some_and(|at| at <= self.now) {
                shard.engine.handle_timeout(self.now);
                shard.touched = true;
            }
            self.empty_shard(index);
        }
        for index in 0..self.seats.len() {
            let Some(seat) = &mut self.seats[index] else {
                continue;
            };
            if seat.client.wakeup() <= self.now {
                seat.client.handle_timeout(self.now);
            }
            self.empty_client(index);
        }
    }

    pub(super) fn schedule(&mut self, at: Instant, delivery: Delivery) {
        self.sent += 1;
        self.agenda.insert((at, self.sent), delivery);
    }

    pub(super) fn note(&mut self, who: Who, fact: impl FnOnce() -> Fact) {
        let at = self.time();
        if let Some(trace) = &mut self.trace {
            let fact = fact();
            trace.push(Entry { at, who, fact });
        }
    }
}
