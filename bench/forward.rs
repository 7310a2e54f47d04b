//! What forwarding costs: thread CPU time and allocations per forwarded packet.
//!
//! See `bench/README.md` for how to run it and what it measures.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::engine::command::{Command, Event, Permissions};
use corelay::engine::dtls::Identity;
use corelay::engine::{Arrival, Datagram, Engine, Options, Output};
use corelay::id::{PeerId, RoomId, ShardId};
use rustix::time::{ClockId, clock_gettime};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Input, Output as RtcOutput, Rtc, RtcConfig};

/// Forwarded packets one figure is measured over, about.
const FORWARDS: usize = 100_000;
/// With feedback, one datagram in this many is lost on its way to a subscriber and asked for again.
const LOST_ONE_IN: usize = 100;
/// RTP payload bytes of one packet.
const PAYLOAD: usize = 1160;
/// Virtual time between packets of the publisher: 2.4 Mbit/s.
const PACKET_INTERVAL: Duration = Duration::from_millis(4);

fn main() {
    println!("payload {PAYLOAD} B; thread CPU time and allocations per forwarded packet\n");
    println!("| subscribers | burst | feedback | ns/packet | allocations/packet | packets |");
    println!("|---:|---:|---|---:|---:|---:|");
    for subscribers in [1, 10, 50, 200] {
        for (burst, feedback) in [(1, false), (8, false), (8, true)] {
            let figure = Room::new(subscribers).measure(burst, feedback);
            println!(
                "| {subscribers} | {burst} | {} | {:.0} | {:.2} | {} |",
                if feedback { "yes" } else { "no" },
                figure.nanos as f64 / figure.packets as f64,
                figure.allocations as f64 / figure.packets as f64,
                figure.packets,
            );
        }
    }
}

/// What forwarding this many packets took.
#[derive(Debug, Default)]
struct Figure {
    packets: u64,
    nanos: u64,
    allocations: u64,
}

/// A str0m client, in memory.
struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    wakeup: Instant,
    outbox: Vec<Vec<u8>>,
}

/// One publisher, its subscribers, and the engine between them.
struct Room {
    engine: Engine,
    now: Instant,
    /// The publisher first.
    clients: Vec<Client>,
    indices: BTreeMap<SocketAddr, usize>,
    seq: u64,
    /// Counts what the subscribers were sent, to lose every [`LOST_ONE_IN`]th of it.
    lost: usize,
}

fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000))
}

impl Client {
    fn new(now: Instant, index: usize, cert: DtlsCert) -> Self {
        let [high, low] = u16::try_from(index).expect("few clients").to_be_bytes();
        let address = SocketAddr::from(([10, 0, high, low], 40_000));
        let mut rtc = RtcConfig::new()
            .clear_codecs()
            .enable_vp8(true)
            .set_rtp_mode(true)
            .set_dtls_cert(cert)
            .build(now);
        let candidate = Candidate::host(address, "udp").expect("a good address");
        rtc.add_local_candidate(candidate);
        Self {
            rtc,
            address,
            connected: false,
            pending: None,
            mid: None,
            wakeup: now,
            outbox: Vec::new(),
        }
    }

    fn offer(&mut self, direction: Direction) -> String {
        let mut api = self.rtc.sdp_api();
        self.mid = Some(api.add_media(MediaKind::Video, direction, None, None, None));
        let (offer, pending) = api.apply().expect("a new m-line needs an offer");
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    fn handle_answer(&mut self, sdp: &str) {
        let pending = self.pending.take().expect("an offer was made");
        let answer = SdpAnswer::from_sdp_string(sdp).expect("the engine's answers parse");
        let api = self.rtc.sdp_api();
        api.accept_answer(pending, answer)
            .expect("the engine's answers fit");
    }

    fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let receive = Receive::new(Protocol::Udp, server(), self.address, bytes);
        let receive = receive.expect("the engine sends what str0m reads");
        let input = Input::Receive(now, receive);
        self.rtc.handle_input(input).expect("the client is well");
        self.drain();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.rtc
            .handle_input(Input::Timeout(now))
            .expect("the client is well");
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the client is well") {
                RtcOutput::Transmit(transmit) => self.outbox.push(transmit.contents.to_vec()),
                RtcOutput::Event(str0m::Event::Connected) => self.connected = true,
                RtcOutput::Event(_) => {}
                RtcOutput::Timeout(at) => {
                    self.wakeup = at;
                    return;
                }
            }
        }
    }
}

impl Room {
    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time has to start somewhere"
    )]
    fn new(subscribers: usize) -> Self {
        let now = Instant::now();
        let options = Options {
            shard: ShardId::new(0),
            shards: 1,
            candidates: [server()].into(),
            identity: Identity::generate(),
            seed: [7; 32],
            max_video_slots: 1,
            max_audio_slots: 0,
        };
        let provider = str0m::crypto::from_feature_flags();
        let cert = provider
            .dtls_provider
            .generate_certificate()
            .expect("a certificate");
        let clients = (0..=subscribers).map(|index| Client::new(now, index, cert.clone()));
        let clients: Vec<_> = clients.collect();
        let indices = clients
            .iter()
            .enumerate()
            .map(|(i, client)| (client.address, i))
            .collect();
        let mut room = Self {
            engine: Engine::new(now, Duration::ZERO, options),
            now,
            clients,
            indices,
            seq: 1000,
            lost: 0,
        };
        room.connect();
        room
    }

    /// Has everyone join, one after the other, and come up.
    fn connect(&mut self) {
        for index in 0..self.clients.len() {
            let peer = PeerId::new(index as u64);
            let room = RoomId::parse("bench").expect("a good name");
            self.engine.handle_command(
                self.now,
                Command::Join {
                    room,
                    peer,
                    permissions: Permissions::ALL,
                },
            );
            let direction = if index == 0 {
                Direction::SendOnly
            } else {
                Direction::RecvOnly
            };
            let sdp = self.clients[index].offer(direction);
            let sources = Vec::new();
            self.engine
                .handle_command(self.now, Command::Offer { peer, sdp, sources });
            for _ in 0..2000 {
                self.turn();
                if self.clients[index].connected {
                    break;
                }
            }
            assert!(self.clients[index].connected, "client {index} came up");
        }
        // The publisher's first frame is a keyframe, and its SSRC becomes known with it.
        for _ in 0..500 {
            let datagrams = self.encrypt(1);
            self.feed(&datagrams);
            self.turn();
        }
    }

    /// One virtual millisecond of everything, unmeasured.
    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        self.engine.handle_timeout(self.now);
        let outputs = self.outputs();
        self.deliver(outputs);
        for index in 0..self.clients.len() {
            if self.clients[index].wakeup <= self.now {
                self.clients[index].handle_timeout(self.now);
            }
            let from = self.clients[index].address;
            for bytes in std::mem::take(&mut self.clients[index].outbox) {
                self.feed(&[(from, bytes)]);
            }
        }
        let outputs = self.outputs();
        self.deliver(outputs);
    }

    fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        loop {
            let given_out = std::iter::from_fn(|| self.engine.poll_output()).collect();
            self.unpack(given_out, &mut outputs);
            if !self.engine.release() {
                return outputs;
            }
        }
    }

    /// Takes the datagrams of runs out of the engine's arena, as the kernel would.
    fn unpack(&self, given_out: Vec<Output>, outputs: &mut Vec<Output>) {
        for output in given_out {
            let Output::Run(run) = output else {
                outputs.push(output);
                continue;
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
    }

    fn deliver(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Transmit(transmit) => {
                    let index = self.indices[&transmit.destination];
                    self.clients[index].handle_datagram(self.now, &transmit.contents);
                }
                Output::Event(Event::Answer { sdp, .. }) => {
                    let waiting = self.clients.iter_mut().find(|c| c.pending.is_some());
                    let client = waiting.expect("somebody offered");
                    client.handle_answer(&sdp);
                    client.handle_timeout(self.now);
                }
                Output::Event(Event::Refused { refusal, .. }) => panic!("{refusal}"),
                Output::Event(Event::Closed { reason, .. }) => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
    }

    /// The publisher's next packets, as they leave its socket.
    fn encrypt(&mut self, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let publisher = &mut self.clients[0];
        let mid = publisher.mid.expect("it published");
        let params = publisher.rtc.codec_config().params().iter();
        let mut params = params.filter(|params| params.spec().codec == Codec::Vp8);
        let pt = params.next().expect("VP8 is on").pt();
        let mut api = publisher.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).expect("it publishes");
        for _ in 0..count {
            let write = RtpWrite::new(
                pt,
                self.seq.into(),
                (self.seq * 360) as u32,
                self.now,
                vp8_frame(self.seq),
            );
            stream.write_rtp(write.marker(true).nackable(true));
            self.seq += 1;
        }
        publisher.handle_timeout(self.now);
        let from = publisher.address;
        publisher
            .outbox
            .drain(..)
            .map(|bytes| (from, bytes))
            .collect()
    }

    fn feed(&mut self, datagrams: &[(SocketAddr, Vec<u8>)]) {
        for (from, bytes) in datagrams {
            let datagram = Datagram {
                from: *from,
                to: server(),
                bytes,
                arrival: Arrival::Socket,
            };
            self.engine.handle_datagram(self.now, datagram);
        }
    }

    /// Replays bursts of the publisher. With `feedback` the subscribers' reports, sent for what
    /// they received, are part of the next burst and of its cost; without, only the clients'
    /// keep-alives are, unmeasured.
    fn measure(&mut self, burst: usize, feedback: bool) -> Figure {
        let subscribers = self.clients.len() - 1;
        let rounds = (FORWARDS / subscribers / burst).clamp(50, 20_000);
        let mut figure = Figure::default();
        let mut reports = Vec::new();
        for _ in 0..rounds {
            self.now += PACKET_INTERVAL * burst as u32;
            let mut datagrams = self.encrypt(burst);
            datagrams.append(&mut reports);
            let mut outputs = Vec::with_capacity(4 * burst * subscribers + 64);
            let forwarded = self.engine.stats().forwarded;
            let mut nanos = 0;
            loop {
                let mut given_out = Vec::with_capacity(4 * burst * subscribers + 64);
                let allocated = allocation_counter::measure(|| {
                    let start = cpu_nanos();
                    self.take_turn(&datagrams, &mut given_out);
                    nanos = cpu_nanos() - start;
                });
                figure.nanos += nanos;
                figure.allocations += allocated.count_total;
                datagrams.clear();
                self.unpack(given_out, &mut outputs);
                if !self.engine.release() {
                    break;
                }
            }
            figure.packets += self.engine.stats().forwarded - forwarded;
            if feedback {
                lose(&mut outputs, &mut self.lost);
            }
            self.deliver(outputs);
            reports = self.reports();
            if !feedback {
                self.feed(&std::mem::take(&mut reports));
                let outputs = self.outputs();
                self.deliver(outputs);
            }
        }
        figure
    }

    /// One turn of a shard, without its system calls.
    fn take_turn(&mut self, datagrams: &[(SocketAddr, Vec<u8>)], outputs: &mut Vec<Output>) {
        self.feed(datagrams);
        if self.engine.wakeup().is_some_and(|at| at <= self.now) {
            self.engine.handle_timeout(self.now);
        }
        while let Some(output) = self.engine.poll_output() {
            outputs.push(output);
        }
    }

    /// What the clients have to say by themselves.
    fn reports(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut reports = Vec::new();
        for client in &mut self.clients {
            if client.wakeup <= self.now {
                client.handle_timeout(self.now);
            }
            let from = client.address;
            reports.extend(client.outbox.drain(..).map(|bytes| (from, bytes)));
        }
        reports
    }
}

/// Drops every [`LOST_ONE_IN`]th datagram.
fn lose(outputs: &mut Vec<Output>, counter: &mut usize) {
    outputs.retain(|output| {
        *counter += usize::from(matches!(output, Output::Transmit(_)));
        !matches!(output, Output::Transmit(_)) || !counter.is_multiple_of(LOST_ONE_IN)
    });
}

/// A frame of one packet (RFC 7741 §4.2), every 64th a keyframe.
fn vp8_frame(number: u64) -> Vec<u8> {
    let [high, low] = (number as u16 | 0x8000).to_be_bytes();
    let mut payload = vec![0x90, 0xE0, high, low, number as u8, 0x20];
    if number % 64 == 1000 % 64 {
        payload.extend([0x10, 0x00, 0x01, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xF0, 0x00]);
    } else {
        payload.extend([0x11, 0x00, 0x01]);
    }
    payload.resize(PAYLOAD, 0x55);
    payload
}

/// CPU time this thread has used.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
