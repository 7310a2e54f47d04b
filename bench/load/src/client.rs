//! One client: str0m behind its own UDP socket, with its own WebSocket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::clock::Moment;
use crate::plan::Plan;
use crate::publisher::{Packet, RIDS, Track};
use crate::sfu::{self, Member, Say, Sfu, Told};
use crate::socket::{Buffer, Udp};
use crate::stamp::Stamp;
use crate::tally::Heard;
use crate::websocket::Signalling;

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    /// Making a certificate costs more than a handshake.
    pub(crate) certificate: DtlsCert,
    pub(crate) crypto: Arc<CryptoProvider>,
}

/// Who a client is, and what of.
pub(crate) struct Setup {
    pub(crate) member: Member,
    pub(crate) tracks: Vec<Track>,
    /// The room's sources have these numbers.
    pub(crate) sources: std::ops::Range<u32>,
}

/// What a client counts besides what it heard.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Packets received in all.
    pub(crate) packets: u64,
    /// Of these, resends (RFC 4588).
    pub(crate) resent: u64,
    /// Packets of another room: a defect of the server.
    pub(crate) strays: u64,
    /// Datagrams the kernel dropped because the generator was slow.
    pub(crate) lost: u64,
    /// RTP packets sent.
    pub(crate) sent: u64,
}

pub(crate) struct Client {
    pub(crate) member: Member,
    pub(crate) tracks: Vec<Track>,
    /// What was heard of each of the room's sources.
    pub(crate) heard: Vec<Heard>,
    pub(crate) counts: Counts,
    /// Receiving m-lines of sound and pictures.
    pub(crate) lines: (u32, u32),
    pub(crate) connected: bool,
    /// Why it cannot go on.
    pub(crate) failed: Option<String>,
    /// When str0m wants to be told the time.
    pub(crate) wakeup: Instant,
    pub(crate) udp: Udp,
    pub(crate) signalling: Signalling,
    sfu: Box<dyn Sfu>,
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    sources: std::ops::Range<u32>,
    /// The latest time str0m was told: it must not go back.
    latest: Instant,
    /// Payload types that carry resends.
    rtx: [bool; 128],
    lost_seen: u32,
}

/// What is known of a datagram that str0m is being given.
#[derive(Clone, Copy)]
struct Arriving {
    at_ns: u64,
    resent: bool,
}

impl Client {
    /// Opens the sockets and says the first word.
    pub(crate) fn open(shared: &Shared, setup: Setup, now: Moment) -> Result<Self, String> {
        let plan = &shared.plan;
        let sfu = sfu::adapter(plan.sfu, setup.member);
        let opened = Signalling::open(&plan.url, plan.token.as_deref(), sfu.subprotocol());
        let signalling = opened.map_err(|error| error.to_string())?;
        let bound = signalling.local_ip().and_then(Udp::bind);
        let udp = bound.map_err(|error| format!("no UDP socket: {error}"))?;
        let mut rtc = RtcConfig::new()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .set_rtp_mode(true)
            .set_dtls_cert(shared.certificate.clone())
            .set_crypto_provider(Arc::clone(&shared.crypto))
            .build(now.instant);
        let candidate = Candidate::host(udp.local(), "udp").map_err(|e| e.to_string())?;
        rtc.add_local_candidate(candidate);
        let mut client = Self {
            member: setup.member,
            tracks: setup.tracks,
            heard: vec![Heard::default(); setup.sources.len()],
            counts: Counts::default(),
            lines: (0, 0),
            connected: false,
            failed: None,
            wakeup: now.instant,
            udp,
            signalling,
            sfu,
            rtc,
            pending: None,
            sources: setup.sources,
            latest: now.instant,
            rtx: [false; 128],
            lost_seen: 0,
        };
        client.tell(Told::Opened);
        Ok(client)
    }

    /// Takes in what the WebSocket has.
    pub(crate) fn handle_signalling(&mut self) {
        loop {
            match self.signalling.receive() {
                Ok(Some(text)) => self.tell(Told::Text(&text)),
                Ok(None) => return,
                Err(error) => {
                    let end = || format!("the server closed the WebSocket: {error}");
                    self.failed.get_or_insert_with(end);
                    return;
                }
            }
        }
    }

    /// Takes in one message of the UDP socket. Returns how many RTP packets of a source came.
    pub(crate) fn handle_media(
        &mut self,
        now: Moment,
        buffer: &mut Buffer,
        delays: &mut Histogram<u64>,
    ) -> io::Result<u64> {
        let Some(message) = self.udp.receive(buffer)? else {
            return Ok(0);
        };
        if let Some(lost) = message.lost {
            self.counts.lost += u64::from(lost.wrapping_sub(self.lost_seen));
            self.lost_seen = lost;
        }
        let at_ns = message.at_ns.unwrap_or(now.unix_ns);
        self.latest = now.instant_of(at_ns).max(self.latest);
        let local = self.udp.local();
        let mut came = 0;
        for bytes in message.bytes.chunks(message.segment) {
            let Ok(receive) = Receive::new(Protocol::Udp, message.from, local, bytes) else {
                continue;
            };
            let rtp = bytes.len() > 1 && (128..192).contains(&bytes[0]);
            let arriving = Arriving {
                at_ns,
                resent: rtp && self.rtx[usize::from(bytes[1] & 0x7f)],
            };
            self.input(Input::Receive(self.latest, receive));
            came += self.drain(Some(arriving), delays);
        }
        Ok(came)
    }

    /// Tells str0m the time.
    pub(crate) fn handle_timeout(&mut self, now: Instant, delays: &mut Histogram<u64>) {
        self.latest = now.max(self.latest);
        self.input(Input::Timeout(self.latest));
        self.drain(None, delays);
    }

    /// Some seconds have passed.
    pub(crate) fn handle_tick(&mut self) {
        self.tell(Told::Tick);
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self) {
        self.tell(Told::Leaving);
        let _ = self.signalling.flush();
    }

    /// Sends the frame that is due of one track, each packet stamped as it goes.
    pub(crate) fn send_frame(&mut self, index: usize, measured: bool, delays: &mut Histogram<u64>) {
        let now = Moment::now();
        let track = &mut self.tracks[index];
        let frame = track.next_frame(now.instant);
        let (Some(mid), Some(pt), true) = (track.mid, track.pt, self.connected) else {
            return;
        };
        if measured {
            track.source.count_frame();
        }
        let layers = self.tracks[index].plan.layers.len();
        for (layer, name) in RIDS.iter().enumerate().take(layers) {
            let rid = (layers > 1).then(|| Rid::from(*name));
            let keyframe = self.tracks[index].is_keyframe(frame, layer);
            let packets = self.tracks[index].plan.layers[layer].0;
            for packet in 0..packets {
                let place = Packet {
                    first: packet == 0,
                    last: packet + 1 == packets,
                    keyframe,
                    layer,
                };
                let now = Moment::now();
                let write = self.tracks[index].write(now, pt, frame, place, measured);
                let mut api = self.rtc.direct_api();
                let Some(stream) = api.stream_tx_by_mid(mid, rid) else {
                    self.fail(format!("no stream to send layer {name} on"));
                    return;
                };
                stream.write_rtp(write);
                self.counts.sent += 1;
                self.handle_timeout(now.instant, delays);
            }
        }
    }

    fn tell(&mut self, told: Told<'_>) {
        let mut say = Vec::new();
        self.sfu.handle(told, &mut say);
        for said in say {
            let done = match said {
                Say::Text(text) => self.signalling.send(text).map_err(|e| e.to_string()),
                Say::Offer { audio, video } => self.offer(audio, video),
                Say::Answered(sdp) => self.accept(&sdp),
                Say::Offered(sdp) => self.answer(&sdp),
                Say::Failed(why) => Err(why),
            };
            if let Err(why) = done {
                self.fail(why);
            }
        }
    }

    fn offer(&mut self, audio: u32, video: u32) -> Result<(), String> {
        let mut api = self.rtc.sdp_api();
        for track in self.tracks.iter_mut().filter(|track| track.mid.is_none()) {
            let simulcast = (track.plan.layers.len() > 1).then(|| {
                let mut simulcast = Simulcast::new();
                for rid in RIDS {
                    simulcast.add_send_layer(SimulcastLayer::new(rid));
                }
                simulcast
            });
            let kind = kind(track.plan.video);
            let mid = api.add_media(kind, Direction::SendOnly, None, None, simulcast);
            track.mid = Some(mid);
        }
        for (count, wanted, kind) in [
            (&mut self.lines.0, audio, MediaKind::Audio),
            (&mut self.lines.1, video, MediaKind::Video),
        ] {
            while *count < wanted {
                api.add_media(kind, Direction::RecvOnly, None, None, None);
                *count += 1;
            }
        }
        let Some((offer, pending)) = api.apply() else {
            return Err("there was nothing new to offer".to_owned());
        };
        self.pending = Some(pending);
        self.tell(Told::Offer(offer.to_sdp_string()));
        Ok(())
    }

    fn accept(&mut self, sdp: &str) -> Result<(), String> {
        let pending = self.pending.take().ok_or("an answer nobody asked for")?;
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|e| e.to_string())?;
        let api = self.rtc.sdp_api();
        api.accept_answer(pending, answer)
            .map_err(|error| format!("the answer cannot be accepted: {error}"))?;
        self.negotiated(sdp);
        Ok(())
    }

    fn answer(&mut self, sdp: &str) -> Result<(), String> {
        let offer = SdpOffer::from_sdp_string(sdp).map_err(|e| e.to_string())?;
        let answer = self.rtc.sdp_api().accept_offer(offer);
        let answer = answer.map_err(|error| format!("the offer cannot be accepted: {error}"))?;
        let answer = answer.to_sdp_string();
        let lines = |kind: &str| sdp.lines().filter(|line| line.starts_with(kind)).count() as u32;
        self.lines = (lines("m=audio"), lines("m=video"));
        self.negotiated(sdp);
        self.tell(Told::Answer(answer));
        Ok(())
    }

    /// Remembers what a session description settled.
    fn negotiated(&mut self, sdp: &str) {
        for line in sdp
            .lines()
            .filter_map(|line| line.strip_prefix("a=rtpmap:"))
        {
            if let Some((pt, "rtx/90000")) = line.split_once(' ')
                && let Ok(pt @ 0..128) = pt.parse::<usize>()
            {
                self.rtx[pt] = true;
            }
        }
        for track in &mut self.tracks {
            let codec = if track.plan.video {
                Codec::Vp8
            } else {
                Codec::Opus
            };
            let media = track.mid.and_then(|mid| self.rtc.media(mid));
            let mut params = self.rtc.codec_config().params().iter();
            track.pt = media.and_then(|media| {
                let pts = media.remote_pts();
                let fits = params.find(|p| p.spec().codec == codec && pts.contains(&p.pt()));
                fits.map(|params| params.pt())
            });
        }
        self.wakeup = self.latest;
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            self.fail(format!("the session broke: {error}"));
        }
    }

    /// Empties str0m, and returns how many packets of a source came out.
    fn drain(&mut self, arriving: Option<Arriving>, delays: &mut Histogram<u64>) -> u64 {
        let mut came = 0;
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.wakeup = at;
                    return came;
                }
                Ok(Output::Transmit(datagram)) => {
                    self.udp.send(&datagram.contents, datagram.destination);
                }
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::KeyframeRequest(request))) => {
                    self.ask_keyframe(request.mid, request.rid);
                }
                Ok(Output::Event(Event::RtpPacket(packet))) => {
                    if let Some(arriving) = arriving {
                        came += 1;
                        self.hear(&packet, arriving, delays);
                    }
                }
                Ok(Output::Event(_)) => {}
                Err(error) => {
                    self.fail(format!("the session broke: {error}"));
                    self.wakeup = self.latest + Duration::from_secs(3600);
                    return came;
                }
            }
        }
    }

    fn ask_keyframe(&mut self, mid: Mid, rid: Option<Rid>) {
        let layer = rid.and_then(|rid| RIDS.iter().position(|name| Rid::from(*name) == rid));
        let tracks = self.tracks.iter_mut();
        for track in tracks.filter(|track| track.mid == Some(mid)) {
            match layer {
                Some(layer) => track.keyframe[layer] = true,
                None => track.keyframe = [true; 3],
            }
        }
    }

    fn hear(&mut self, packet: &RtpPacket, arriving: Arriving, delays: &mut Histogram<u64>) {
        self.counts.packets += 1;
        self.counts.resent += u64::from(arriving.resent);
        let Some(stamp) = Stamp::read(&packet.payload) else {
            return;
        };
        if !self.sources.contains(&stamp.source) {
            self.counts.strays += 1;
            return;
        }
        if !stamp.measured {
            return;
        }
        let heard = &mut self.heard[(stamp.source - self.sources.start) as usize];
        heard.handle_packet(&stamp, arriving.at_ns);
        if !arriving.resent {
            delays.saturating_record(arriving.at_ns.saturating_sub(stamp.sent_ns));
        }
    }

    fn fail(&mut self, why: String) {
        self.failed.get_or_insert(why);
    }
}

fn kind(video: bool) -> MediaKind {
    if video {
        MediaKind::Video
    } else {
        MediaKind::Audio
    }
}
