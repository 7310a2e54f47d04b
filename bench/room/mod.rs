//! One room in one engine, with full clients in memory: what is measured is the engine's part.

pub(crate) mod client;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::engine::command::{Command, Event, Permissions};
use corelay::engine::{Arrival, Datagram, Engine, Output};
use corelay::id::{PeerId, RoomId};
use str0m::media::Direction;
use str0m::net::{Protocol, Transmit};

use client::{Client, server};

/// With feedback, one datagram in this many is lost on its way to a viewer and asked for again.
pub(crate) const LOST_ONE_IN: usize = 100;

/// Virtual time from one wake-up of a shard to the next: its tick.
const TICK: Duration = Duration::from_millis(5);

/// How long a room runs before it is measured, so that every buffer has the size it needs and
/// congestion control has found out that the paths carry everything.
const WARM_UP: Duration = Duration::from_secs(10);

/// Who is in a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Publishers of one video track each, and receiving m-lines of each viewer.
    pub(crate) slots: usize,
    /// Clients that watch all of them.
    pub(crate) viewers: usize,
    /// Packets that a publisher sends at once.
    pub(crate) burst: usize,
    /// Virtual time between packets to one viewer, over all its slots.
    pub(crate) interval: Duration,
}

/// Whether what the viewers say about what they received is part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// Receiver reports, transport feedback, and NACKs for what is lost on purpose.
    Measured,
    /// It is given to the engine between measurements, and nothing is lost.
    Apart,
}

/// What forwarding this many packets took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figure {
    /// Packets that came from publishers.
    pub(crate) received: u64,
    /// Packets that left for viewers.
    pub(crate) forwarded: u64,
    /// Thread CPU time inside the engine's calls, by the clock that was given.
    pub(crate) nanos: u64,
    /// Heap allocations inside the engine's calls.
    pub(crate) allocations: u64,
}

impl Figure {
    /// Nanoseconds and allocations for each of so many packets.
    pub(crate) fn per(&self, packets: u64) -> (f64, f64) {
        let packets = packets as f64;
        (
            self.nanos as f64 / packets,
            self.allocations as f64 / packets,
        )
    }
}

/// One room and everyone in it.
pub(crate) struct Room {
    engine: Engine,
    now: Instant,
    shape: Shape,
    /// Publishers first.
    clients: Vec<Client>,
    indices: BTreeMap<SocketAddr, usize>,
    /// Whose turn it is to publish.
    publisher: usize,
    /// Counts what the viewers were sent, to lose every [`LOST_ONE_IN`]th of it.
    sent: usize,
    /// What the viewers have said since the last burst.
    said: Vec<(SocketAddr, Vec<u8>)>,
    clock: fn() -> u64,
}

impl Room {
    /// Everyone has joined and is connected, and media has flowed for a while. `clock` is the
    /// thread's CPU time, in nanoseconds.
    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time has to start somewhere"
    )]
    pub(crate) fn new(shape: Shape, clock: fn() -> u64) -> Self {
        let now = Instant::now();
        let slots = u8::try_from(shape.slots).expect("slots are counted in a byte");
        let cert = client::certificate();
        let clients: Vec<_> = (0..shape.slots + shape.viewers)
            .map(|index| Client::new(now, index, cert.clone()))
            .collect();
        let addresses = clients.iter().map(|client| client.address);
        let mut room = Self {
            engine: client::engine(now, slots),
            now,
            shape,
            indices: addresses.enumerate().map(|(i, at)| (at, i)).collect(),
            clients,
            publisher: 0,
            sent: 0,
            said: Vec::new(),
            clock,
        };
        for index in 0..room.clients.len() {
            room.connect(index);
        }
        let packets = WARM_UP.as_micros() / shape.interval.as_micros();
        room.measure(packets as usize, Feedback::Measured);
        room
    }

    /// The engine alone: its clients are gone without a word.
    fn into_engine(self) -> Engine {
        self.engine
    }

    /// Bursts of about so many packets in all.
    pub(crate) fn measure(&mut self, packets: usize, feedback: Feedback) -> Figure {
        let mut sum = Figure::default();
        for _ in 0..(packets / self.shape.burst).clamp(50, 20_000) {
            let figure = self.burst(feedback);
            sum.received += figure.received;
            sum.forwarded += figure.forwarded;
            sum.nanos += figure.nanos;
            sum.allocations += figure.allocations;
        }
        sum
    }

    /// One publisher's next packets, at once, forwarded; and whatever else is due until the next.
    /// With feedback the viewers' reports on the burst before are part of this one's cost.
    fn burst(&mut self, feedback: Feedback) -> Figure {
        let mut figure = Figure::default();
        let packets = self.shape.burst;
        let next = self.now + self.shape.interval * packets as u32;
        while self.now + TICK < next {
            self.now += TICK;
            self.turn(&[], feedback, &mut figure);
        }
        self.now = next;
        let publisher = &mut self.clients[self.publisher];
        self.publisher = (self.publisher + 1) % self.shape.slots;
        let from = publisher.address;
        let published = publisher.publish(self.now, packets);
        let mut datagrams: Vec<_> = published.into_iter().map(|bytes| (from, bytes)).collect();
        figure.received = packets as u64;
        match feedback {
            Feedback::Measured => datagrams.append(&mut self.said),
            Feedback::Apart => {
                let said = std::mem::take(&mut self.said);
                self.turn(&said, feedback, &mut Figure::default());
            }
        }
        self.turn(&datagrams, feedback, &mut figure);
        for index in 0..self.clients.len() {
            self.hear(index);
        }
        figure
    }

    /// Has a client join, and waits until it is connected.
    fn connect(&mut self, index: usize) {
        let peer = PeerId::new(index as u64);
        let room = RoomId::parse("bench").expect("a good name");
        let permissions = Permissions::ALL;
        let join = Command::Join {
            room,
            peer,
            permissions,
        };
        self.engine.handle_command(self.now, join);
        let sdp = if index < self.shape.slots {
            self.clients[index].offer(Direction::SendOnly, 1)
        } else {
            self.clients[index].offer(Direction::RecvOnly, self.shape.slots)
        };
        let sources = Vec::new();
        let offer = Command::Offer { peer, sdp, sources };
        self.engine.handle_command(self.now, offer);
        for _ in 0..2000 {
            self.now += Duration::from_millis(1);
            let said = std::mem::take(&mut self.said);
            self.turn(&said, Feedback::Apart, &mut Figure::default());
            self.hear(index);
            if self.clients[index].connected {
                return;
            }
        }
        panic!("client {index} came up");
    }

    /// What a client has to say by itself.
    fn hear(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.wakeup <= self.now {
            client.handle_timeout(self.now);
        }
        let from = client.address;
        self.said
            .extend(client.outbox.drain(..).map(|bytes| (from, bytes)));
    }

    /// One turn of a shard, without its system calls; then what left arrives.
    fn turn(
        &mut self,
        datagrams: &[(SocketAddr, Vec<u8>)],
        feedback: Feedback,
        figure: &mut Figure,
    ) {
        let forwarded = self.engine.stats().forwarded;
        let mut datagrams = datagrams;
        let mut outputs = Vec::new();
        loop {
            // Room for what is given out is the shard's, not the engine's.
            let mut given_out = Vec::with_capacity(64 + 8 * self.clients.len());
            let mut nanos = 0;
            let allocated = allocation_counter::measure(|| {
                let start = (self.clock)();
                self.take_turn(datagrams, &mut given_out);
                nanos = (self.clock)() - start;
            });
            figure.nanos += nanos;
            figure.allocations += allocated.count_total;
            datagrams = &[];
            for output in given_out {
                self.unpack(output, &mut outputs);
            }
            if !self.engine.release() {
                break;
            }
        }
        figure.forwarded += self.engine.stats().forwarded - forwarded;
        for output in outputs {
            self.arrive(output, feedback);
        }
    }

    fn take_turn(&mut self, datagrams: &[(SocketAddr, Vec<u8>)], outputs: &mut Vec<Output>) {
        for (from, bytes) in datagrams {
            let datagram = Datagram {
                from: *from,
                to: server(),
                bytes,
                arrival: Arrival::Socket,
            };
            self.engine.handle_datagram(self.now, datagram);
        }
        if self.engine.wakeup().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        while let Some(output) = self.engine.poll_output() {
            outputs.push(output);
        }
    }

    /// Takes the datagrams of runs out of the engine's arena, as the kernel would.
    fn unpack(&self, output: Output, outputs: &mut Vec<Output>) {
        let Output::Run(run) = output else {
            outputs.push(output);
            return;
        };
        let datagrams = self.engine.arena()[run.bytes.clone()].chunks(run.segment);
        outputs.extend(datagrams.map(|bytes| {
            Output::Transmit(Transmit {
                proto: Protocol::Udp,
                source: run.source,
                destination: run.destination,
                contents: bytes.to_vec().into(),
            })
        }));
    }

    fn arrive(&mut self, output: Output, feedback: Feedback) {
        match output {
            Output::Transmit(transmit) => {
                let index = self.indices[&transmit.destination];
                let client = &mut self.clients[index];
                self.sent += usize::from(client.connected);
                let lost = client.connected && self.sent.is_multiple_of(LOST_ONE_IN);
                if !lost || feedback == Feedback::Apart {
                    client.handle_datagram(self.now, &transmit.contents);
                }
            }
            Output::Event(Event::Answer { sdp, .. }) => {
                let waiting = self.clients.iter_mut().find(|c| c.pending.is_some());
                waiting
                    .expect("somebody offered")
                    .handle_answer(self.now, &sdp);
            }
            Output::Event(Event::Refused { refusal, .. }) => panic!("{refusal}"),
            Output::Event(Event::Closed { reason, .. }) => panic!("closed: {reason:?}"),
            _ => {}
        }
    }
}

/// Heap bytes that one more viewer takes while media flows to it, in the engine.
pub(crate) fn memory_per_viewer(slots: usize, interval: Duration) -> f64 {
    const FEW: usize = 2;
    const MANY: usize = 10;
    let bytes = |viewers| {
        let mut engine = None;
        let grown = allocation_counter::measure(|| {
            // Packet by packet, so that what the viewers share for one turn stays small.
            let shape = Shape {
                slots,
                viewers,
                burst: 1,
                interval,
            };
            engine = Some(Room::new(shape, || 0).into_engine());
        });
        grown.bytes_current
    };
    // What is made once a process is not a viewer's.
    bytes(1);
    (bytes(MANY) - bytes(FEW)) as f64 / (MANY - FEW) as f64
}
