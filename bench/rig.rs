//! One engine with full str0m clients around it, in memory and in virtual time: what the exact
//! counts and the benchmarks of single paths are taken from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::engine::command::{Command, Event, Permissions};
use corelay::engine::dtls::Identity;
use corelay::engine::{Arrival, Datagram, Engine, Options, Output};
use corelay::id::{PeerId, RoomId, ShardId};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Input, Output as RtcOutput, Rtc, RtcConfig};

/// RTP payload bytes of one packet.
const PAYLOAD: usize = 1160;
/// Virtual time between packets of the publisher: 2.4 Mbit/s.
const PACKET_INTERVAL: Duration = Duration::from_millis(4);
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
    seq: u64,
}

/// A str0m client.
struct Client {
    rtc: Rtc,
    address: SocketAddr,
    connected: bool,
    pending: Option<SdpPendingOffer>,
    mid: Option<Mid>,
    wakeup: Instant,
    outbox: Vec<Vec<u8>>,
}

fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000))
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
        let options = Options {
            shard: ShardId::new(0),
            shards: 1,
            candidates: [server()].into(),
            tcp_candidates: [].into(),
            identity: Identity::generate(),
            seed: [7; 32],
            max_video_slots: 1,
            max_audio_slots: 0,
        };
        let provider = str0m::crypto::from_feature_flags();
        let certificate = provider.dtls_provider.generate_certificate();
        let mut rig = Self {
            engine: Engine::new(now, Duration::ZERO, options),
            now,
            certificate: certificate.expect("the system has randomness"),
            clients: Vec::new(),
            indices: BTreeMap::new(),
            waiting: Vec::new(),
            seq: 1000,
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
        let sdp = client.offer(direction);
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
        for client in &mut self.clients {
            if client.wakeup <= now {
                client.handle_timeout(now);
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
                    client.handle_answer(&sdp);
                    client.handle_timeout(self.now);
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
        let mid = publisher.mid.expect("it published");
        let params = publisher.rtc.codec_config().params().iter();
        let mut params = params.filter(|params| params.spec().codec == Codec::Vp8);
        let pt = params.next().expect("VP8 is on").pt();
        let mut api = publisher.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).expect("it publishes");
        for _ in 0..count {
            let time = (self.seq * 360) as u32;
            let write = RtpWrite::new(pt, self.seq.into(), time, self.now, vp8_frame(self.seq));
            stream.write_rtp(write.marker(true).nackable(true));
            self.seq += 1;
        }
        publisher.handle_timeout(self.now);
        let from = publisher.address;
        let sent = publisher.outbox.drain(..);
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
                    to: server(),
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

impl Client {
    fn new(now: Instant, index: usize, certificate: DtlsCert) -> Self {
        let [high, low] = u16::try_from(index).expect("few clients").to_be_bytes();
        let address = SocketAddr::from(([10, 0, high, low], 40_000));
        let mut rtc = RtcConfig::new()
            .clear_codecs()
            .enable_vp8(true)
            .set_rtp_mode(true)
            .set_dtls_cert(certificate)
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
        let input = Input::Timeout(now);
        self.rtc.handle_input(input).expect("the client is well");
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
