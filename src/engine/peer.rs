//! One connected client: owns its `Rtc`; every change goes through one door.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use str0m::bwe::Bitrate;
use str0m::change::SdpAnswer;
use str0m::change::SdpOffer;
use str0m::crypto::dtls::{ProtocolVersion, SrtpProfile};
use str0m::media::Mid;
use str0m::net::{Protocol, Receive, Transmit};
use str0m::{Candidate, Event, IceCreds, Input, Output, Reason, Rtc, RtcError};

use super::arena::Key;
use super::caps::Meter;
use super::channels::Channels;
use super::command::{CloseReason, Kind};
use super::connection::{self, Candidates};
use super::demux::Addresses;
use super::diagnosis;
use super::dtls::Identity;
use super::egress::clock::SourceClock;
use super::egress::send_side::SendSide;
use super::ingress::receive_side::ReceiveSide;
use super::limits::{CONNECT_TIMEOUT, LOST_TIMEOUT, PAIR_EXPIRES, PEER_CANDIDATES};
use super::media::Described;
use super::pacing::Waiting;
use super::prefetch::prefetch;
use super::room::Room;
use super::stats::Dropped;
use super::streams::{Announced, declare, withdraw};
use super::subscription::{Passing, Slot};
use super::track::Track;
use super::warnings::Warnings;
use crate::id::{PeerId, TrackId};

/// One client of one room.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) id: PeerId,
    /// Its room.
    pub(crate) room: Key<Room>,
    /// Remote addresses it proved.
    pub(crate) addresses: Addresses,
    /// Its ufrag, once it has offered.
    pub(crate) ufrag: Option<String>,
    /// The client's ufrag; another one in an offer asks for an ICE restart.
    pub(crate) remote_ufrag: Option<String>,
    /// The client's certificate; another one in an offer means another connection.
    pub(crate) remote_fingerprint: Option<String>,
    /// Its m-lines, in the order they were first offered.
    pub(crate) lines: Vec<Line>,
    /// Its receiving m-lines. A closed one is used again for the next.
    pub(crate) slots: Vec<Slot>,
    /// Receiving m-lines last asked for, so that it is asked once.
    pub(crate) requested: Option<(u8, u8)>,
    /// What str0m reported since the engine last looked.
    pub(crate) events: VecDeque<Event>,
    /// Datagrams to send.
    pub(crate) outbox: VecDeque<Transmit>,
    /// Its data channels.
    pub(crate) channels: Channels,
    /// Its packets may have header extensions of both forms (RFC 8285 §4.1.2).
    pub(crate) mixes_extensions: bool,
    /// Its latest offer has data channels.
    pub(crate) offers_data: bool,
    /// Everything it is sent besides what str0m sends.
    pub(crate) send_side: SendSide,
    /// Everything that comes from it besides what str0m takes in.
    pub(crate) receive_side: ReceiveSide,
    /// The clock of what it publishes.
    pub(crate) clock: SourceClock,
    /// Where it is sent to, and from: the pair its client nominated.
    pub(crate) path: Option<Path>,
    /// Whether the client has nominated a pair.
    pub(super) nominated: bool,
    /// Whether a DTLS message came from it.
    pub(super) heard_dtls: bool,
    /// When it last checked a pair.
    checked: Option<Instant>,
    /// Packets of this turn to forward to it, in order of arrival.
    pub(crate) due: Vec<Due>,
    /// When it was last decided what its slots get, and what was estimated then.
    pub(crate) allocated: Option<(Instant, Bitrate)>,
    /// What it is told of its connection.
    pub(crate) warnings: Warnings,
    /// Packets of earlier turns that its pacer holds back.
    pub(crate) waiting: Waiting,
    /// Whether it is listed among those with something to give out in this turn.
    pub(crate) is_listed: bool,
    /// Boxed: forwarding needs all the rest, and little of these 10 KB.
    pub(super) rtc: Box<Rtc>,
    /// When `rtc` wants to be woken; never before the first offer.
    wakeup: Option<Instant>,
    phase: Phase,
    /// The streams that its offers described.
    pub(super) described: Vec<Described>,
    /// The streams of the latest answer.
    pub(super) announced: Vec<Announced>,
    candidates: u32,
    tracks_made: u16,
    /// What has come in from it.
    pub(crate) meter: Meter,
}

/// A pair of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// One audio or video m-line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) mid: Mid,
    pub(crate) kind: Kind,
    /// What the client publishes in it.
    pub(crate) track: Option<Key<Track>>,
}

/// One packet of this turn and the slot it may leave in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) packet: u32,
    pub(crate) slot: u8,
    pub(crate) passing: Passing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has not offered: only its signalling connection holds it.
    Joined,
    /// ICE and DTLS are on their way.
    Connecting { since: Instant },
    /// Media flows.
    Connected,
    /// STUN stopped coming; an ICE restart or its return brings it back.
    Lost { since: Instant },
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        id: PeerId,
        room: Key<Room>,
        creds: IceCreds,
        identity: &Identity,
        candidates: Candidates<'_>,
    ) -> Self {
        let (rtc, keys) = connection::build(now, creds, identity, candidates);
        Self {
            id,
            room,
            addresses: Addresses::default(),
            ufrag: None,
            remote_ufrag: None,
            remote_fingerprint: None,
            lines: Vec::new(),
            slots: Vec::new(),
            requested: None,
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            channels: Channels::default(),
            mixes_extensions: false,
            offers_data: false,
            send_side: SendSide::new(now, keys),
            receive_side: ReceiveSide::default(),
            clock: SourceClock::default(),
            path: None,
            nominated: false,
            heard_dtls: false,
            checked: None,
            due: Vec::new(),
            allocated: None,
            warnings: Warnings::default(),
            waiting: Waiting::default(),
            is_listed: false,
            rtc: Box::new(rtc),
            wakeup: None,
            phase: Phase::Joined,
            described: Vec::new(),
            announced: Vec::new(),
            candidates: 0,
            tracks_made: 0,
            meter: Meter::new(now),
        }
    }

    /// Takes in a datagram from an address that is known or proved to be this peer's.
    ///
    /// # Errors
    ///
    /// The outer error ends the peer. The inner one says that the datagram was no use.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<Result<(), Dropped>, RtcError> {
        let Ok(receive) = Receive::new(protocol, from, to, bytes) else {
            return Ok(Err(Dropped::Malformed));
        };
        self.heard_dtls |= diagnosis::is_dtls(bytes);
        let taken = self.rtc.handle_input(Input::Receive(now, receive));
        self.drain()?;
        Ok(taken.map_err(|_| Dropped::Malformed))
    }

    /// Whether a STUN request was made with this peer's credentials: its integrity is right.
    pub(crate) fn accepts(&self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        Receive::new(Protocol::Udp, from, from, bytes)
            .is_ok_and(|receive| self.rtc.accepts(&Input::Receive(now, receive)))
    }

    /// Takes in an offer and gives str0m's answer.
    pub(crate) fn accept_offer(
        &mut self,
        now: Instant,
        offer: SdpOffer,
        mids: impl Iterator<Item = Mid>,
    ) -> Result<SdpAnswer, RtcError> {
        let known: Vec<_> = self
            .slots
            .iter()
            .map(|slot| (slot.mid, slot.ssrc, slot.rtx))
            .collect();
        let mids: Vec<Mid> = self.lines.iter().map(|line| line.mid).chain(mids).collect();
        let mut announced = Vec::new();
        #[cfg(test)]
        let is_stock = self.send_side.is_stock();
        let answer = self.mutate(|rtc| {
            declare(rtc, &known);
            // str0m 0.25 asserts that no offer gives a payload type to two codecs
            // (payload_params.rs): a client must not be able to make that our panic.
            let accept = AssertUnwindSafe(|| rtc.sdp_api().accept_offer(offer));
            let answer = catch_unwind(accept).unwrap_or_else(|_| {
                rtc.disconnect();
                Err(RtcError::RemoteSdp("it contradicts itself".into()))
            });
            #[cfg(test)]
            if is_stock {
                announced = super::streams::announced(rtc, &mids);
                return answer;
            }
            announced = withdraw(rtc, &mids);
            answer
        })?;
        self.announced = announced;
        if self.phase == Phase::Joined {
            self.phase = Phase::Connecting { since: now };
        }
        Ok(answer)
    }

    /// Replaces the credentials that str0m drew for an ICE restart; returns those.
    pub(crate) fn replace_credentials(&mut self, creds: IceCreds) -> Result<IceCreds, RtcError> {
        self.mutate(|rtc| {
            let mut api = rtc.direct_api();
            let drawn = api.local_ice_credentials();
            api.set_local_ice_credentials(creds);
            Ok(drawn)
        })
    }

    /// Takes in a trickled candidate; those past the limit are ignored.
    pub(crate) fn add_candidate(&mut self, candidate: Candidate) -> Result<(), RtcError> {
        if self.candidates == PEER_CANDIDATES {
            return Ok(());
        }
        self.candidates += 1;
        self.mutate(|rtc| {
            rtc.add_remote_candidate(candidate);
            Ok(())
        })
    }

    /// Does what is due. The peer is over when it says why.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Option<CloseReason>, RtcError> {
        if self.wakeup.is_some_and(|at| at <= now) {
            self.mutate(|rtc| rtc.handle_input(Input::Timeout(now)))?;
        }
        self.send_side.handle_timeout(now);
        if self.channels.wakeup().is_some_and(|at| at <= now) {
            self.flush_channels(now)?;
        }
        Ok(match self.phase {
            Phase::Connecting { since } if now >= since + CONNECT_TIMEOUT => {
                Some(CloseReason::ConnectTimeout(self.missing_step()))
            }
            Phase::Lost { since } if now >= since + LOST_TIMEOUT => {
                Some(CloseReason::ConnectionLost)
            }
            _ => None,
        })
    }

    /// The client checked a pair with its credentials; it wants to be sent to on one that it
    /// nominated.
    pub(crate) fn handle_check(&mut self, now: Instant, nominated: Option<Path>) {
        self.checked = Some(now);
        if nominated.is_some() {
            self.path = nominated;
            self.nominated = true;
        }
    }

    /// ICE and DTLS are up.
    pub(crate) fn set_connected(&mut self) {
        self.phase = Phase::Connected;
    }

    /// STUN stopped coming.
    pub(crate) fn set_lost(&mut self, now: Instant) {
        if self.phase == Phase::Connected {
            self.phase = Phase::Lost { since: now };
        }
    }

    /// STUN came again.
    pub(crate) fn set_found(&mut self) {
        if matches!(self.phase, Phase::Lost { .. }) {
            self.phase = Phase::Connected;
        }
    }

    /// A name for the next track it publishes.
    pub(crate) fn name_track(&mut self) -> TrackId {
        self.tracks_made = self.tracks_made.wrapping_add(1);
        TrackId {
            peer: self.id,
            number: self.tracks_made,
        }
    }

    /// Asks for what writing what is due will need, besides the peer itself.
    pub(crate) fn prefetch(&self) {
        for due in self.due.chunk_by(|a, b| a.slot == b.slot) {
            let index = usize::from(due[0].slot);
            if let Some(slot) = self.slots.get(index) {
                prefetch(slot);
            }
            self.send_side.prefetch(index);
        }
    }

    /// Takes over from the connection before what must not start again with this one.
    pub(crate) fn keep_names_of(&mut self, before: &Self) {
        self.tracks_made = before.tracks_made;
    }

    /// A new audio or video m-line was negotiated.
    pub(crate) fn add_line(&mut self, mid: Mid, kind: Kind) {
        if self.lines.iter().all(|line| line.mid != mid) {
            self.lines.push(Line {
                mid,
                kind,
                track: None,
            });
        }
    }

    /// Whether str0m still works: a hostile offer can end it.
    pub(crate) fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// What the path to it carries, when it watches anything.
    pub(crate) fn estimate(&self) -> Option<Bitrate> {
        let watches = self.slots.iter().any(|slot| slot.track().is_some());
        (watches && self.is_connected()).then(|| self.send_side.estimate())
    }

    /// Which DTLS the handshake settled on.
    pub(crate) fn dtls_version(&mut self) -> Option<ProtocolVersion> {
        self.rtc.direct_api().dtls_protocol_version()
    }

    /// Which protection profile packets are sealed with.
    pub(crate) fn srtp_profile(&self) -> Option<SrtpProfile> {
        self.send_side.profile()
    }

    /// Media flows.
    pub(crate) fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// When [`Peer::handle_timeout`] must be called.
    pub(crate) fn wakeup(&self) -> Option<Instant> {
        let end = match self.phase {
            Phase::Connecting { since } => Some(since + CONNECT_TIMEOUT),
            Phase::Lost { since } => Some(since + LOST_TIMEOUT),
            Phase::Joined | Phase::Connected => None,
        };
        self.wakeup
            .into_iter()
            .chain(end)
            .chain(self.receive_side.wakeup())
            .chain(self.channels.wakeup())
            .chain(self.sending_wakeup())
            .min()
    }

    /// As above, as far as sending media changes it.
    pub(crate) fn sending_wakeup(&self) -> Option<Instant> {
        let pacing = self.pacing_wakeup();
        self.send_side.wakeup().into_iter().chain(pacing).min()
    }

    /// When more may leave. Not asked while it is listed to give out what may leave now.
    fn pacing_wakeup(&self) -> Option<Instant> {
        let waiting = self.waiting.bytes();
        let wakeup = || self.send_side.pacing_wakeup(waiting);
        (!self.is_listed).then(wakeup).flatten()
    }

    /// Whether more may leave now.
    pub(crate) fn is_pacing_due(&self, now: Instant) -> bool {
        self.pacing_wakeup().is_some_and(|at| at <= now)
    }

    /// The only door to `rtc`: str0m must be drained after every change.
    pub(super) fn mutate<T>(
        &mut self,
        change: impl FnOnce(&mut Rtc) -> Result<T, RtcError>,
    ) -> Result<T, RtcError> {
        let value = change(&mut self.rtc);
        self.drain()?;
        value
    }

    /// What str0m sends besides STUN goes where the client nominated; before that, where str0m
    /// sends DTLS to. SRTP and SRTCP it must not send.
    fn take_transmit(&mut self, mut transmit: Transmit) {
        if !self.send_side.passes(&transmit.contents) {
            return;
        }
        let is_stun = transmit.contents.first().is_some_and(|byte| *byte <= 3);
        match self.path.filter(|_| self.nominated) {
            _ if is_stun => {}
            Some(Path {
                source,
                destination,
            }) => {
                (transmit.source, transmit.destination) = (source, destination);
            }
            None => {
                let (source, destination) = (transmit.source, transmit.destination);
                self.path = Some(Path {
                    source,
                    destination,
                });
            }
        }
        self.outbox.push_back(transmit);
    }

    /// str0m asks to be woken every 3 s to look whether its pairs are alive, which they are while
    /// the client checks them. What else it waits for besides is about data channels.
    fn postponed(&self, at: Instant) -> Instant {
        let is_idle = self.rtc.last_timeout_reason() == Reason::Ice && !self.offers_data;
        let checked = self.checked.filter(|_| is_idle && self.is_connected());
        checked.map_or(at, |checked| at.max(checked + PAIR_EXPIRES))
    }

    fn drain(&mut self) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Transmit(transmit) => self.take_transmit(transmit),
                Output::Event(event) => self.events.push_back(event),
                Output::Timeout(at) => {
                    self.wakeup = Some(self.postponed(at));
                    return Ok(());
                }
            }
        }
    }
}

pub(super) fn media_of(rtc: &Rtc, mid: Mid) -> Option<&str0m::media::Media> {
    rtc.media(mid).filter(|media| !media.disabled())
}
