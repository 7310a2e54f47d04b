//! A headless client: a full str0m peer in RTP mode that offers, publishes what synthetic encoders
//! make, and writes down every packet it receives.
//!
//! It keeps the rules of the wire: it offers when the server asks for receiving m-lines, never has
//! two offers under way, and believes `slots` about what plays where.

mod actions;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::DtlsVersion;
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Input, Output as RtcOutput, Rtc, RtcConfig, RtcError};

use super::encoder::{self, Stamp, Vp8Ids};
use super::publish::Publish;
use super::received::{Line, Received};
use super::sender::{Sender, kind, of_kind};
use crate::engine::command::{Command, Event, Permissions, Slot, Source};
use crate::engine::dtls::{Identity, KeyPort, with_shared_keys};
use crate::engine::svc::extension::{self, DescriptorBytes};
use crate::id::{PeerId, RoomId};

/// What a client is told once.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Its index in the world; its packets carry it.
    pub(crate) index: u32,
    pub(crate) peer: PeerId,
    pub(crate) room: RoomId,
    /// Its own address, behind whatever NAT the world puts there.
    pub(crate) inside: SocketAddr,
    pub(crate) publish: Vec<Publish>,
    /// Where its own randomness starts.
    pub(crate) seed: u64,
    pub(crate) dtls: DtlsVersion,
}

/// What a client wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this datagram to the server.
    Transmit { to: SocketAddr, bytes: Vec<u8> },
    /// Tell the server over signalling.
    Command(Command),
}

/// One headless client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: PeerId,
    pub(crate) room: RoomId,
    pub(crate) inside: SocketAddr,
    /// The m-lines that receive, by mid.
    pub(crate) lines: BTreeMap<String, Line>,
    /// When its first offer was answered, since the world began.
    pub(crate) answered: Option<Duration>,
    /// When ICE and DTLS came up, since the world began.
    pub(crate) connected: Option<Duration>,
    /// What its own state machine complained about: always the server's fault or the test's.
    pub(crate) errors: Vec<String>,
    /// The level in its audio packets (RFC 6464), in decibels below full scale.
    pub(crate) level: i8,
    /// RTP packets written, retransmissions aside.
    pub(crate) sent: u64,
    /// Keyframe requests that reached an encoder.
    pub(crate) keyframe_requests: u64,
    /// Where its keys appear.
    pub(crate) keys: KeyPort,
    /// The `USERNAME` of its STUN requests: the server's ufrag, then its own (RFC 8445 §7.2.2).
    stun_username: String,
    rtc: Rtc,
    began: Instant,
    rtc_wakeup: Instant,
    senders: Vec<Sender>,
    /// Receiving m-lines of audio and video the server asked for.
    wanted: (u8, u8),
    receiving: (u8, u8),
    pending: Option<SdpPendingOffer>,
    offer_again: bool,
    restart_ice: bool,
    directions: Vec<(Mid, Direction)>,
    /// m-lines to stop with the next offer.
    stopped: Vec<Mid>,
    /// Receiving m-lines that were stopped: something may still be on its way to them.
    gone: Vec<String>,
    mids: BTreeMap<u32, String>,
    outbox: VecDeque<Output>,
    index: u32,
    rng: Rng,
}

/// One certificate for all clients: making one costs more than a handshake.
fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(Identity::generate)
}

impl Client {
    /// A client that has said `join` and waits to be asked for an offer.
    pub(crate) fn new(began: Instant, now: Instant, setup: Setup) -> Self {
        let mut rng = Rng::with_seed(setup.seed);
        let config = RtcConfig::new()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_vp9(true)
            .enable_h264(true)
            .enable_av1(true)
            .set_rtp_mode(true)
            .set_extension(extension::ID, extension::extension())
            .set_dtls_version(setup.dtls)
            .set_dtls_cert(identity().certificate.clone())
            .set_crypto_provider(Arc::clone(&identity().provider));
        let (mut rtc, keys) = with_shared_keys(|| config.build(now));
        let candidate = Candidate::host(setup.inside, "udp").unwrap();
        rtc.add_local_candidate(candidate).unwrap();
        let publish = setup.publish.iter();
        let senders = publish.map(|publish| Sender::new(now, &mut rng, setup.index, publish));
        let senders = senders.collect();
        let (peer, room) = (setup.peer, setup.room.clone());
        Self {
            peer: setup.peer,
            room: setup.room,
            inside: setup.inside,
            lines: BTreeMap::new(),
            answered: None,
            connected: None,
            errors: Vec::new(),
            level: 30,
            sent: 0,
            keyframe_requests: 0,
            keys,
            stun_username: String::new(),
            rtc,
            began,
            rtc_wakeup: now,
            senders,
            wanted: (0, 0),
            receiving: (0, 0),
            pending: None,
            offer_again: false,
            restart_ice: false,
            directions: Vec::new(),
            stopped: Vec::new(),
            gone: Vec::new(),
            mids: BTreeMap::new(),
            outbox: VecDeque::from([Output::Command(Command::Join {
                room,
                peer,
                permissions: Permissions::ALL,
            })]),
            index: setup.index,
            rng,
        }
    }

    /// Takes in what the server says over signalling.
    pub(crate) fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::RequestOffer { audio, video, .. } => {
                self.wanted = (audio, video);
                self.offer_again = true;
                self.offer();
            }
            Event::Answer { sdp, slots, .. } => self.handle_answer(now, &sdp, slots),
            Event::Slots { slots, .. } => self.apply_slots(slots),
            Event::Refused { refusal, .. } => {
                self.pending = None;
                self.errors.push(format!("refused: {refusal}"));
            }
            _ => {}
        }
        self.drain(now);
    }

    /// Takes in a datagram from the server.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let to = self.inside;
        match Receive::new(Protocol::Udp, from, to, bytes) {
            Ok(receive) => self.input(Input::Receive(now, receive)),
            Err(error) => self.errors.push(format!("unreadable datagram: {error}")),
        }
        self.drain(now);
    }

    /// Does what is due: frames and str0m's own timers.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.rtc_wakeup <= now {
            self.input(Input::Timeout(now));
        }
        if self.connected.is_some() {
            for index in 0..self.senders.len() {
                for layer in 0..self.senders[index].encodings.len() {
                    while self.senders[index].encodings[layer].encoder.next_at() <= now {
                        self.send_frame(now, index, layer);
                    }
                }
            }
        }
        self.drain(now);
    }

    /// What the client wants done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// When [`Client::handle_timeout`] is due.
    pub(crate) fn wakeup(&self) -> Instant {
        let encodings = self.senders.iter().flat_map(|sender| &sender.encodings);
        let frames = encodings.map(|encoding| encoding.encoder.next_at());
        let frame = frames.min().filter(|_| self.connected.is_some());
        frame.map_or(self.rtc_wakeup, |at| at.min(self.rtc_wakeup))
    }

    /// Sends an offer if there is a reason for one and none is under way.
    fn offer(&mut self) {
        if self.pending.is_some() || !std::mem::take(&mut self.offer_again) {
            return;
        }
        let mut sources = Vec::new();
        let mut api = self.rtc.sdp_api();
        for sender in self.senders.iter_mut().filter(|s| s.mid.is_none()) {
            let (kind, both) = (kind(sender.publish.source), sender.publish.also_receives);
            let direction = if both {
                Direction::SendRecv
            } else {
                Direction::SendOnly
            };
            let mid = api.add_media(kind, direction, None, None, sender.simulcast());
            sender.mid = Some(mid);
            if both {
                let count = of_kind(&mut self.receiving, kind);
                *count += 1;
                self.lines.insert(mid.to_string(), Line::default());
            }
        }
        for (kind, wanted) in [
            (MediaKind::Audio, self.wanted.0),
            (MediaKind::Video, self.wanted.1),
        ] {
            let count = of_kind(&mut self.receiving, kind);
            while *count < wanted {
                *count += 1;
                let mid = api.add_media(kind, Direction::RecvOnly, None, None, None);
                self.lines.insert(mid.to_string(), Line::default());
            }
        }
        for (mid, direction) in self.directions.drain(..) {
            api.set_direction(mid, direction);
        }
        for mid in self.stopped.drain(..) {
            api.stop_media(mid);
        }
        if std::mem::take(&mut self.restart_ice) {
            api.ice_restart(true);
        }
        let Some((offer, pending)) = api.apply() else {
            return;
        };
        self.pending = Some(pending);
        for sender in &self.senders {
            let mid = sender.mid.expect("offered above").to_string();
            sources.push((mid, sender.publish.source));
        }
        self.outbox.push_back(Output::Command(Command::Offer {
            peer: self.peer,
            sdp: offer.to_sdp_string(),
            sources,
        }));
    }

    fn handle_answer(&mut self, now: Instant, sdp: &str, slots: Vec<Slot>) {
        self.answered.get_or_insert(now - self.began);
        let Some(pending) = self.pending.take() else {
            self.errors.push("an answer nobody asked for".into());
            return;
        };
        let answer = match SdpAnswer::from_sdp_string(sdp) {
            Ok(answer) => answer,
            Err(error) => return self.errors.push(format!("unreadable answer: {error}")),
        };
        if let Err(error) = self.rtc.sdp_api().accept_answer(pending, answer) {
            self.errors.push(format!("answer not accepted: {error}"));
        }
        let own = self.rtc.direct_api().local_ice_credentials().ufrag;
        let servers = sdp
            .lines()
            .find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        self.stun_username = format!("{}:{own}", servers.unwrap_or_default());
        let lines: Vec<_> = slots.iter().map(|slot| &slot.mid).collect();
        for mid in self.lines.keys().filter(|mid| !lines.contains(mid)) {
            self.errors
                .push(format!("m-line {mid} is no slot in the answer"));
        }
        self.apply_slots(slots);
        self.input(Input::Timeout(now));
        self.offer();
    }

    fn apply_slots(&mut self, slots: Vec<Slot>) {
        for slot in slots {
            match self.lines.get_mut(&slot.mid) {
                Some(line) => line.track = slot.track,
                None if self.gone.contains(&slot.mid) => {}
                None => self
                    .errors
                    .push(format!("slot for unknown m-line {}", slot.mid)),
            }
        }
    }

    /// Takes the frame that is due out of an encoder and sends it, if it may be sent.
    fn send_frame(&mut self, now: Instant, index: usize, layer: usize) {
        let sender = &mut self.senders[index];
        let encoding = &mut sender.encodings[layer];
        let key_pending = encoding.encoder.wants_keyframe();
        let packets = encoding.encoder.poll_frame();
        let ready = sender
            .mid
            .filter(|_| sender.on && encoding.on)
            .and_then(|mid| {
                let media = self.rtc.media(mid)?;
                let sending = media.direction().is_sending();
                let codec = sender.publish.codec;
                let params = self.rtc.codec_config().params().iter();
                let mut params = params.filter(|p| media.remote_pts().contains(&p.pt()));
                let pt = params.find(|p| p.spec().codec == codec)?.pt();
                sending.then_some((mid, pt))
            });
        let Some((mid, pt)) = ready else {
            if key_pending {
                encoding.encoder.request_keyframe();
            }
            return;
        };
        let audio = kind(sender.publish.source) == MediaKind::Audio;
        let level = self.level;
        let mut api = self.rtc.direct_api();
        let Some(stream) = api.stream_tx_by_mid(mid, encoding.rid) else {
            self.errors.push(format!("no stream to send {mid} on"));
            return;
        };
        for packet in packets {
            let mut ext_vals = ExtensionValues {
                audio_level: audio.then_some(-level),
                voice_activity: audio.then_some(true),
                ..ExtensionValues::default()
            };
            if let Some(bytes) = packet.descriptor {
                ext_vals.user_values.set(DescriptorBytes(bytes.into()));
            }
            let write = RtpWrite::new(pt, encoding.seq.into(), packet.time, now, packet.payload);
            stream.write_rtp(
                write
                    .marker(packet.marker)
                    .ext_vals(ext_vals)
                    .nackable(true),
            );
            encoding.seq += 1;
            self.sent += 1;
        }
        self.input(Input::Timeout(now));
        self.drain(now);
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.errors.push(format!("input: {error}"));
        }
    }

    /// Empties str0m, which must happen after every change.
    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(RtcOutput::Transmit(transmit)) => self.outbox.push_back(Output::Transmit {
                    to: transmit.destination,
                    bytes: transmit.contents.to_vec(),
                }),
                Ok(RtcOutput::Event(event)) => self.handle_rtc_event(now, event),
                Ok(RtcOutput::Timeout(at)) => {
                    self.rtc_wakeup = at;
                    return;
                }
                Err(error) => return self.fail(now, &error),
            }
        }
    }

    fn fail(&mut self, now: Instant, error: &RtcError) {
        self.errors.push(format!("state machine: {error}"));
        self.rtc_wakeup = now + Duration::from_secs(3600);
    }

    fn handle_rtc_event(&mut self, now: Instant, event: str0m::Event) {
        match event {
            str0m::Event::Connected => self.connected = Some(now - self.began),
            str0m::Event::KeyframeRequest(request) => {
                let mut senders = self.senders.iter_mut();
                let sender = senders.find(|s| s.mid == Some(request.mid));
                let encoding = sender.and_then(|sender| {
                    let mut encodings = sender.encodings.iter_mut();
                    encodings.find(|encoding| encoding.rid == request.rid)
                });
                if let Some(encoding) = encoding {
                    encoding.encoder.request_keyframe();
                    self.keyframe_requests += 1;
                }
            }
            str0m::Event::RtpPacket(packet) => self.record(now, &packet),
            _ => {}
        }
    }

    fn record(&mut self, now: Instant, packet: &RtpPacket) {
        let ssrc = packet.header.ssrc;
        if !self.mids.contains_key(&*ssrc) {
            let mut api = self.rtc.direct_api();
            let mid = api.stream_rx(&ssrc).map(|stream| stream.mid().to_string());
            self.mids.insert(*ssrc, mid.unwrap_or_default());
        }
        let mid = &self.mids[&*ssrc];
        let Some(line) = self.lines.get_mut(mid) else {
            if self.gone.contains(mid) {
                return;
            }
            self.errors
                .push(format!("RTP on {mid:?}, which does not receive"));
            return;
        };
        if !line.ssrcs.contains(&ssrc) {
            line.ssrcs.push(ssrc);
        }
        let stamp = Stamp::parse(&packet.payload);
        let at = now - self.began;
        if let Some(stamp) = &stamp {
            let shown = line.decoder.handle_packet(now, *packet.seq_no, stamp);
            let kind = encoder::kind_of(stamp.source);
            line.shown.extend(std::iter::repeat_n((at, kind), shown));
        }
        if line.decoder.poll_keyframe_request(now)
            && let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc)
        {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        let vp8 = self.rtc.codec_config().params().iter().any(|params| {
            params.pt() == packet.header.payload_type && params.spec().codec == Codec::Vp8
        });
        line.received.push(Received {
            at,
            seq: *packet.seq_no,
            time: packet.header.timestamp,
            marker: packet.header.marker,
            payload: Arc::clone(&packet.payload),
            stamp,
            descriptor: descriptor(&packet.header.ext_vals),
            vp8: vp8.then(|| Vp8Ids::parse(&packet.payload)).flatten(),
        });
    }
}

/// The dependency descriptor of a received packet.
fn descriptor(values: &ExtensionValues) -> Option<Arc<[u8]>> {
    let DescriptorBytes(bytes) = values.user_values.get()?;
    Some(Arc::clone(bytes))
}

#[cfg(test)]
mod tests {
    use str0m::change::SdpOffer;

    use super::*;
    use crate::sim::clock;

    const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 10_000);

    /// Runs a client against a bare ICE-lite str0m peer, and returns what that peer received.
    fn converse(publish: &[Publish], time: Duration) -> (Client, Vec<RtpPacket>) {
        fastrand::seed(1);
        let begin = clock::origin();
        let inside = SocketAddr::from(([10, 0, 0, 1], 40_000));
        let setup = Setup {
            index: 0,
            peer: PeerId::new(1),
            room: RoomId::parse("room").unwrap(),
            inside,
            publish: publish.to_vec(),
            seed: 1,
            dtls: DtlsVersion::Dtls12,
        };
        let mut client = Client::new(begin, begin, setup);
        let mut server = RtcConfig::new()
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .build(begin);
        let address = SocketAddr::from(SERVER);
        server.add_local_candidate(Candidate::host(address, "udp").unwrap());
        let (audio, video, peer) = (1, 1, PeerId::new(1));
        client.handle_event(begin, Event::RequestOffer { peer, audio, video });
        let mut received = Vec::new();
        for milli in 0..time.as_millis() as u64 {
            let now = begin + Duration::from_millis(milli);
            client.handle_timeout(now);
            server.handle_input(Input::Timeout(now)).unwrap();
            while let Some(output) = client.poll_output() {
                match output {
                    Output::Transmit { to, bytes } => {
                        let receive = Receive::new(Protocol::Udp, inside, to, &bytes).unwrap();
                        server.handle_input(Input::Receive(now, receive)).unwrap();
                    }
                    Output::Command(Command::Offer { sdp, .. }) => {
                        let offer = SdpOffer::from_sdp_string(&sdp).unwrap();
                        let sdp = server
                            .sdp_api()
                            .accept_offer(offer)
                            .unwrap()
                            .to_sdp_string();
                        let mids = client.lines.keys().cloned();
                        let slots = mids.map(|mid| Slot { mid, track: None }).collect();
                        client.handle_event(now, Event::Answer { peer, sdp, slots });
                    }
                    Output::Command(_) => {}
                }
                received.extend(answer(&mut server, &mut client, now));
            }
            received.extend(answer(&mut server, &mut client, now));
        }
        (client, received)
    }

    fn answer(server: &mut Rtc, client: &mut Client, now: Instant) -> Vec<RtpPacket> {
        let mut received = Vec::new();
        loop {
            match server.poll_output().unwrap() {
                RtcOutput::Transmit(transmit) => {
                    client.handle_datagram(now, transmit.source, &transmit.contents);
                }
                RtcOutput::Event(str0m::Event::RtpPacket(packet)) => received.push(packet),
                RtcOutput::Event(_) => {}
                RtcOutput::Timeout(_) => return received,
            }
        }
    }

    #[test]
    fn a_client_connects_and_sends_what_it_publishes_with_any_codec() {
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let publish = [Publish::VOICE, Publish::camera(codec)];
            let (client, received) = converse(&publish, Duration::from_secs(2));
            assert_eq!(client.errors, Vec::<String>::new());
            assert!(client.connected.unwrap() < Duration::from_millis(500));
            assert_eq!(received.len() as u64, client.sent);
            let stamps: Vec<_> = received
                .iter()
                .map(|packet| Stamp::parse(&packet.payload).unwrap())
                .collect();
            let voice = stamps
                .iter()
                .filter(|stamp| stamp.source == Source::Microphone);
            assert!(voice.count() > 60);
            let camera = stamps
                .iter()
                .find(|stamp| stamp.source == Source::Camera)
                .unwrap();
            assert!(camera.keyframe && camera.packet == 0);
        }
    }

    #[test]
    fn a_client_offers_the_receiving_lines_it_was_asked_for() {
        let mut naive = Publish::VOICE;
        naive.also_receives = true;
        let (client, _) = converse(&[naive], Duration::from_millis(300));
        assert_eq!(client.receiving, (1, 1));
        assert_eq!(client.lines.len(), 2);
    }
}
