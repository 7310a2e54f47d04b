//! One engine with full str0m clients around it, in memory and in virtual time: what the exact
//! counts and the benchmarks of single paths are taken from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::engine::command::{Command, Event, Permissions};
use corelay::engine::{Arrival, Datagram, Engine, Output};
use corelay::id::{PeerId, RoomId};
use str0m::config::DtlsCert;
use str0m::media::Direction;

#[path = "room/client.rs"]
mod client;

use client::Client;

/// Virtual time between packets of the publisher: 2.4 Mbit/s.
const PACKET_INTERVAL: Duration = Duration::from_millis(4);
/// How often a shard does what is due, at most.
const TICK: Duration = Duration::from_millis(5);
/// Packets by which everyone who watches has had a keyframe and an estimate.
const WARM_UP: usize = 400;

/// What goes into the engine.
pub(crate) enum Given {
    Command(Command),
    Datagram(SocketAddr, Vec<u8>),
}

/// Runs the engine's calls of one turn: the place to count or to time.
pub(crate) type Observer<'a> = &'a mut dyn FnMut(&mut dyn FnMut());

/// One room, its publisher, and who watches.
pub(crate) struct Rig {
    engine: Engine,
    now: Instant,
    certificate: DtlsCert,
    /// The publisher first.
    clients: Vec<Client>,
    indices: BTreeMap<SocketAddr, usize>,
    /// What clients have said since the last turn.
    waiting: Vec<Given>,
}

/// Observes nothing.
pub(crate) fn unobserved(turn: &mut dyn FnMut()) {
    turn();
}

impl Rig {
    /// A room whose publisher sends and whose `subscribers` watch.
    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time has to start somewhere"
    )]
    pub(crate) fn new(subscribers: usize) -> Self {
        let now = Instant::now();
        let mut rig = Self {
            engine: client::engine(now, 1),
            now,
            certificate: client::certificate(),
            clients: Vec::new(),
            indices: BTreeMap::new(),
            waiting: Vec::new(),
        };
        for _ in 0..=subscribers {
            rig.join(&mut unobserved);
        }
        for _ in 0..WARM_UP / 8 {
            rig.burst(8, &mut unobserved);
        }
        rig
    }

    /// One more client joins and comes up; the first of all publishes, the others watch it.
    pub(crate) fn join(&mut self, observe: Observer<'_>) {
        let index = self.clients.len();
        let mut client = Client::new(self.now, index, self.certificate.clone());
        let peer = PeerId::new(index as u64);
        let room = RoomId::parse("bench").expect("a good name");
        let direction = if index == 0 {
            Direction::SendOnly
        } else {
            Direction::RecvOnly
        };
        let sdp = client.offer(direction, 1);
        let sources = Vec::new();
        self.indices.insert(client.address, index);
        self.clients.push(client);
        let join = Command::Join {
            room,
            peer,
            permissions: Permissions::ALL,
        };
        let offer = Command::Offer { peer, sdp, sources };
        self.waiting.extend([join, offer].map(Given::Command));
        for _ in 0..2000 {
            self.now += Duration::from_millis(1);
            self.turn(observe);
            if self.clients[index].connected {
                return;
            }
        }
        panic!("client {index} did not come up");
    }

    /// The publisher's next `count` packets are forwarded in one turn, which also takes in what
    /// the subscribers have reported. Returns how many packets were forwarded.
    pub(crate) fn burst(&mut self, count: usize, observe: Observer<'_>) -> u64 {
        self.now += PACKET_INTERVAL * count as u32;
        self.encrypt(count);
        let before = self.engine.stats().forwarded;
        self.turn(observe);
        self.engine.stats().forwarded - before
    }

    /// Time passes in which the publisher sends nothing but one packet in `interval`, if any.
    pub(crate) fn idle(
        &mut self,
        span: Duration,
        interval: Option<Duration>,
        observe: Observer<'_>,
    ) {
        let end = self.now + span;
        let mut next = interval.map(|interval| self.now + interval);
        while self.now < end {
            self.now += TICK;
            if next.is_some_and(|next| next <= self.now) {
                next = next.zip(interval).map(|(next, interval)| next + interval);
                self.encrypt(1);
            }
            let is_due = self.engine.wakeup().is_some_and(|at| at <= self.now);
            if is_due || !self.waiting.is_empty() {
                self.turn(observe);
            } else {
                self.hear();
            }
        }
    }

    /// One turn of a shard, without its system calls: all that waits goes in, then everything
    /// comes out and reaches the clients.
    fn turn(&mut self, observe: Observer<'_>) {
        let now = self.now;
        let mut given = std::mem::take(&mut self.waiting);
        loop {
            let mut outputs = Vec::with_capacity(4096);
            let engine = &mut self.engine;
            observe(&mut || take_turn(engine, now, &mut given, &mut outputs));
            self.deliver(outputs);
            if !self.engine.release() {
                break;
            }
        }
        self.hear();
    }

    /// What the clients have to say by now waits for the next turn.
    fn hear(&mut self) {
        for client in &mut self.clients {
            if client.wakeup <= self.now {
                client.handle_timeout(self.now);
            }
            let from = client.address;
            let said = client.outbox.drain(..);
            let said = said.map(|bytes| Given::Datagram(from, bytes));
            self.waiting.extend(said);
        }
    }

    fn deliver(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Transmit(transmit) => {
                    let index = self.indices[&transmit.destination];
                    self.clients[index].handle_datagram(self.now, &transmit.contents);
                }
                Output::Run(run) => {
                    let index = self.indices[&run.destination];
                    let bytes = &self.engine.arena()[run.bytes.clone()];
                    for bytes in bytes.chunks(run.segment) {
                        self.clients[index].handle_datagram(self.now, bytes);
                    }
                }
                Output::Event(Event::Answer { sdp, .. }) => {
                    let mut clients = self.clients.iter_mut();
                    let client = clients.find(|client| client.pending.is_some());
                    let client = client.expect("somebody offered");
                    client.handle_answer(self.now, &sdp);
                }
                Output::Event(Event::Refused { refusal, .. }) => panic!("{refusal}"),
                Output::Event(Event::Closed { reason, .. }) => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
    }

    /// Has the publisher send.
    fn encrypt(&mut self, count: usize) {
        let publisher = &mut self.clients[0];
        let from = publisher.address;
        let sent = publisher.publish(self.now, count).into_iter();
        self.waiting
            .extend(sent.map(|bytes| Given::Datagram(from, bytes)));
    }
}

fn take_turn(engine: &mut Engine, now: Instant, given: &mut Vec<Given>, outputs: &mut Vec<Output>) {
    for given in given.drain(..) {
        match given {
            Given::Command(command) => engine.handle_command(now, command),
            Given::Datagram(from, bytes) => {
                let datagram = Datagram {
                    from,
                    to: client::server(),
                    bytes: &bytes,
                    arrival: Arrival::Socket,
                };
                engine.handle_datagram(now, datagram);
            }
        }
    }
    if engine.wakeup().is_some_and(|at| at <= now) {
        engine.handle_timeout(now);
    }
    while let Some(output) = engine.poll_output() {
        outputs.push(output);
    }
}
