//! A client in memory, a full str0m peer with real ICE, DTLS and SRTP, and the engine it talks to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelay::engine::dtls::Identity;
use corelay::engine::{Engine, Options};
use corelay::id::ShardId;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsCert;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// RTP payload bytes of one packet.
pub(crate) const PAYLOAD: usize = 1160;

/// Where the engine is reached.
pub(crate) fn server() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 10_000))
}

/// An engine that asks for at most so many videos.
pub(crate) fn engine(now: Instant, max_video_slots: u8) -> Engine {
    let options = Options {
        shard: ShardId::new(0),
        shards: 1,
        candidates: [server()].into(),
        tcp_candidates: [].into(),
        identity: Identity::generate(),
        seed: [7; 32],
        max_video_slots,
        max_audio_slots: 0,
        caps: corelay::engine::caps::Caps::default(),
        thresholds: Default::default(),
        keyframes: Default::default(),
    };
    Engine::new(now, Duration::ZERO, options)
}

/// A certificate for all clients: making one costs more than a handshake.
pub(crate) fn certificate() -> DtlsCert {
    let provider = str0m::crypto::from_feature_flags().dtls_provider;
    provider.generate_certificate().expect("a certificate")
}

/// One peer of the room.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) connected: bool,
    /// It offered and has no answer yet.
    pub(crate) pending: Option<SdpPendingOffer>,
    pub(crate) wakeup: Instant,
    /// What it has to send to the server.
    pub(crate) outbox: Vec<Vec<u8>>,
    rtc: Rtc,
    /// The first m-line of its offer.
    mid: Option<Mid>,
    seq: u64,
}

impl Client {
    /// The `index`th client, which makes its address.
    pub(crate) fn new(now: Instant, index: usize, cert: DtlsCert) -> Self {
        let [high, low] = u16::try_from(index).expect("few clients").to_be_bytes();
        let address = SocketAddr::from(([10, 0, high, low], 40_000));
        let mut rtc = RtcConfig::new()
            .clear_codecs()
            .enable_vp8(true)
            .set_rtp_mode(true)
            .set_dtls_cert(cert)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a good address"));
        Self {
            address,
            connected: false,
            pending: None,
            wakeup: now,
            outbox: Vec::new(),
            rtc,
            mid: None,
            seq: 1000,
        }
    }

    /// An offer of so many video m-lines.
    pub(crate) fn offer(&mut self, direction: Direction, lines: usize) -> String {
        let mut api = self.rtc.sdp_api();
        for _ in 0..lines {
            let mid = api.add_media(MediaKind::Video, direction, None, None, None);
            self.mid.get_or_insert(mid);
        }
        let (offer, pending) = api.apply().expect("a new m-line needs an offer");
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub(crate) fn handle_answer(&mut self, now: Instant, sdp: &str) {
        let pending = self.pending.take().expect("an offer was made");
        let answer = SdpAnswer::from_sdp_string(sdp).expect("the engine's answers parse");
        let api = self.rtc.sdp_api();
        api.accept_answer(pending, answer)
            .expect("the engine's answers fit");
        self.handle_timeout(now);
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let receive = Receive::new(Protocol::Udp, server(), self.address, bytes);
        let receive = receive.expect("the engine sends what str0m reads");
        let input = Input::Receive(now, receive);
        self.rtc.handle_input(input).expect("the client is well");
        self.drain();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.rtc
            .handle_input(Input::Timeout(now))
            .expect("the client is well");
        self.drain();
    }

    /// The next packets it publishes, as they leave its socket.
    pub(crate) fn publish(&mut self, now: Instant, count: usize) -> Vec<Vec<u8>> {
        let mid = self.mid.expect("it offered an m-line");
        let mut params = self.rtc.codec_config().params().iter();
        let vp8 = params.find(|params| params.spec().codec == Codec::Vp8);
        let pt = vp8.expect("VP8 is on").pt();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).expect("it publishes");
        for _ in 0..count {
            let time = (self.seq * 360) as u32;
            let payload = vp8_frame(self.seq);
            let write = RtpWrite::new(pt, self.seq.into(), time, now, payload);
            stream.write_rtp(write.marker(true).nackable(true));
            self.seq += 1;
        }
        self.handle_timeout(now);
        std::mem::take(&mut self.outbox)
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().expect("the client is well") {
                Output::Transmit(transmit) => self.outbox.push(transmit.contents.to_vec()),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(_) => {}
                Output::Timeout(at) => {
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
