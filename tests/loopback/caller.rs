//! A participant with a voice: str0m behind a real UDP socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use str0m::change::SdpAnswer;
use str0m::crypto::from_feature_flags;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;

use super::server::{Server, Socket};

/// One Opus packet lasts this long, in milliseconds and in its clock of 48 kHz.
const PACKET_MS: u64 = 20;
const PACKET_TICKS: u32 = 960;

/// A client in a room, with one m-line on which it sends and receives sound.
pub(crate) struct Caller {
    pub(crate) signalling: Socket,
    socket: UdpSocket,
    local: SocketAddr,
    rtc: Rtc,
    mid: Mid,
    /// Opus, as it was negotiated; known once connected.
    pt: Option<Pt>,
    wakeup: Instant,
    spoken: u64,
    say: &'static [u8],
    /// Packets it sends at a time; one is what a voice needs.
    pub(crate) burst: u64,
    /// Done to each datagram before it is sent.
    pub(crate) tamper: fn(&mut [u8]),
    /// The first DTLS record that the server sent.
    pub(crate) answered: Option<Vec<u8>>,
    /// Packets heard that carry exactly this.
    pub(crate) heard: u64,
    /// Packets heard that carry anything else.
    pub(crate) misheard: u64,
}

impl Caller {
    /// Joins `room` and negotiates; what it sends says `say`, over and over.
    pub(crate) async fn join(server: &Server, room: &str, say: &'static [u8]) -> Self {
        Self::join_with(server, room, say, |offer| offer).await
    }

    /// As [`Caller::join`], with something changed in the text of its offer.
    pub(crate) async fn join_with(
        server: &Server,
        room: &str,
        say: &'static [u8],
        alter: impl FnOnce(String) -> String,
    ) -> Self {
        let mut signalling = server.connect().await;
        signalling.join(room, "Caller").await;
        signalling.expect("request-offer").await;
        let socket = UdpSocket::bind("127.0.0.1:0")
            .await
            .expect("loopback has ports");
        let local = socket.local_addr().expect("it is bound");
        let mut rtc = RtcConfig::new()
            .set_crypto_provider(Arc::new(from_feature_flags()))
            .set_rtp_mode(true)
            .build(now());
        let candidate = Candidate::host(local, "udp").expect("an address");
        rtc.add_local_candidate(candidate);
        let mut change = rtc.sdp_api();
        let mid = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = change.apply().expect("something changed");
        let offer = json!({"type": "offer", "sdp": alter(offer.to_sdp_string())});
        signalling.say(&offer.to_string()).await;
        let answer = signalling.expect("answer").await;
        let answer = answer["sdp"].as_str().expect("a session description");
        let answer = SdpAnswer::from_sdp_string(answer).expect("it can be read");
        rtc.sdp_api()
            .accept_answer(pending, answer)
            .expect("it answers the offer");
        Self {
            signalling,
            socket,
            local,
            rtc,
            mid,
            pt: None,
            wakeup: now(),
            spoken: 0,
            say,
            burst: 1,
            tamper: |_| {},
            answered: None,
            heard: 0,
            misheard: 0,
        }
    }

    /// Leaves.
    pub(crate) async fn leave(self) {
        self.signalling.close().await;
    }

    /// Takes in what comes until the next packet is due, and sends it. `expected` is what the
    /// others say.
    pub(crate) async fn turn(&mut self, expected: &[u8]) {
        let due = now() + Duration::from_millis(PACKET_MS);
        for _ in 0..self.burst {
            self.speak();
            self.drain(expected).await;
        }
        let mut datagram = [0; 2_000];
        while now() < due {
            let until = due.min(self.wakeup);
            let receiving = self.socket.recv_from(&mut datagram);
            match tokio::time::timeout_at(until.into(), receiving).await {
                Ok(received) => {
                    let (length, from) = received.expect("the server is there");
                    let bytes = &datagram[..length];
                    // RFC 7983 section 7: the first byte tells DTLS from STUN and media.
                    if self.answered.is_none() && matches!(bytes.first(), Some(20..=63)) {
                        self.answered = Some(bytes.to_vec());
                    }
                    let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, bytes) else {
                        panic!("the server sends what is no datagram of WebRTC: {bytes:?}");
                    };
                    self.input(Input::Receive(now(), receive));
                }
                Err(_) => self.input(Input::Timeout(now())),
            }
            self.drain(expected).await;
        }
    }

    fn speak(&mut self) {
        let Some(pt) = self.pt else { return };
        let seq = self.spoken.into();
        let time = PACKET_TICKS.wrapping_mul(self.spoken as u32);
        let mut api = self.rtc.direct_api();
        let stream = api
            .stream_tx_by_mid(self.mid, None)
            .expect("the m-line sends");
        stream.write_rtp(RtpWrite::new(pt, seq, time, now(), self.say.to_vec()));
        self.spoken += 1;
        self.input(Input::Timeout(now()));
    }

    fn input(&mut self, input: Input<'_>) {
        self.rtc.handle_input(input).expect("the session holds");
    }

    async fn drain(&mut self, expected: &[u8]) {
        loop {
            match self.rtc.poll_output().expect("the session holds") {
                Output::Timeout(at) => {
                    self.wakeup = at;
                    return;
                }
                Output::Transmit(datagram) => {
                    let mut bytes = datagram.contents.to_vec();
                    (self.tamper)(&mut bytes);
                    let sent = self.socket.send_to(&bytes, datagram.destination).await;
                    sent.expect("loopback takes it");
                }
                Output::Event(Event::Connected) => {
                    let media = self.rtc.media(self.mid).expect("it was negotiated");
                    let opus = |pt: &&Pt| {
                        let params = self.rtc.codec_config().params();
                        params
                            .iter()
                            .any(|p| p.pt() == **pt && p.spec().codec == Codec::Opus)
                    };
                    self.pt = media.remote_pts().iter().find(opus).copied();
                    assert!(self.pt.is_some(), "Opus was not negotiated");
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    if *packet.payload == *expected {
                        self.heard += 1;
                    } else {
                        self.misheard += 1;
                    }
                }
                Output::Event(_) => {}
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client on a real socket lives in real time"
)]
fn now() -> Instant {
    Instant::now()
}
