//! What a publisher sends, taken in, and what it is told of that.

use std::time::Instant;

use str0m::Rtc;
use str0m::media::{Mid, Pt, Rid, Rids};
use str0m::rtp::{Extension, Ssrc};

use super::Engine;
use super::arena::Key;
use super::egress::clock::{Ntp, StreamClock};
use super::ingress::header::{Header, Meaning, Meanings};
use super::ingress::receive_side::{Source, names};
use super::ingress::report;
use super::limits::PEER_STREAMS;
use super::peer::{Line, Peer, media_of};
use super::stats::Dropped;
use super::subscription::clock_rate;
use super::svc::extension;

impl Engine {
    /// Takes in an SRTP packet.
    pub(super) fn take_media(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        datagram: &[u8],
    ) -> Result<(), Dropped> {
        let mut spares = std::mem::take(&mut self.spares);
        let taken = self.with_media(key, |peer, _| {
            let Peer {
                receive_side,
                send_side,
                rtc,
                lines,
                described,
                ..
            } = peer;
            receive_side.begin(now, || send_side.opener());
            let Some(header) = receive_side.header(datagram) else {
                return Ok(Err(Dropped::Malformed));
            };
            let places = (&lines[..], &described[..]);
            let find = |header: &Header<'_>, is_rtx| find(rtc, places, header, is_rtx);
            Ok(receive_side.handle_packet(now, datagram, &header, &mut spares, find))
        });
        self.spares = spares;
        if let Some(received) = taken.unwrap_or(Ok(None))? {
            self.take_rtp(now, key, received);
        }
        Ok(())
    }

    /// A publisher told that a stream had this timestamp at this time of its clock: what plays
    /// from it is told in ours.
    pub(super) fn take_sender_report(
        &mut self,
        now: Instant,
        publisher: Key<Peer>,
        ssrc: Ssrc,
        (at, timestamp): (Ntp, u32),
    ) {
        let Self {
            peers,
            tracks,
            wall_clock,
            ..
        } = self;
        let Some(peer) = peers.get_mut(publisher) else {
            return;
        };
        let Some(source) = peer.receive_side.handle_sender_report(now, ssrc, at) else {
            return;
        };
        let Some(key) = peer.line(source.mid).and_then(|line| line.track) else {
            return;
        };
        let Some(track) = tracks.get_mut(key) else {
            return;
        };
        let ours = peer.clock.handle_report(wall_clock.at(now), at);
        let rate = clock_rate(track.info.kind);
        let mut layers = track.layers.iter_mut();
        if let Some(layer) = layers.find(|layer| layer.rid == source.rid) {
            layer.clock = Some(StreamClock::new(ours, timestamp, rate));
        }
        self.copy_report(now, key, &source, (at, timestamp));
    }

    /// Tells a client what is due of how its packets arrive.
    pub(super) fn tell_reception(&mut self, now: Instant, key: Key<Peer>) {
        let first = self.batch.packets().len();
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        while peer
            .receive_side
            .wakeup()
            .is_some_and(|wakeup| wakeup <= now)
        {
            let receive_side = &mut peer.receive_side;
            let write = |buf: &mut Vec<u8>| {
                receive_side.write_due(now, buf);
            };
            peer.send_side.write_rtcp(&mut self.batch, write);
        }
        self.send_batch(key, first);
    }

    /// Sends what the pacers of a publisher's layers let through.
    pub(super) fn send_due_keyframe_requests(&mut self, now: Instant, publisher: Key<Peer>) {
        for index in 0.. {
            let lines = self.peers.get(publisher).map(|peer| &peer.lines);
            let Some(line) = lines.and_then(|lines| lines.get(index)) else {
                return;
            };
            let Some(track) = line.track.and_then(|key| self.tracks.get_mut(key)) else {
                continue;
            };
            let mid = track.mid;
            let due: Vec<Option<Rid>> = track
                .layers
                .iter_mut()
                .filter_map(|layer| layer.keyframes.poll(now).then_some(layer.rid))
                .collect();
            for rid in due {
                let sent = self.request_keyframe(publisher, mid, rid);
                self.stats.keyframe_requests += u64::from(sent);
            }
        }
    }

    /// Asks a client for a keyframe of a layer it publishes. `false` when nothing came of it yet.
    fn request_keyframe(&mut self, publisher: Key<Peer>, mid: Mid, rid: Option<Rid>) -> bool {
        let first = self.batch.packets().len();
        let Some(peer) = self.peers.get_mut(publisher) else {
            return false;
        };
        let Some(ssrc) = peer.receive_side.ssrc_of(mid, rid) else {
            return false;
        };
        let write = |buf: &mut Vec<u8>| report::write_pli(ssrc, buf);
        peer.send_side.write_rtcp(&mut self.batch, write);
        self.send_batch(publisher, first);
        true
    }
}

impl Peer {
    /// One of its m-lines.
    pub(crate) fn line(&self, mid: Mid) -> Option<&Line> {
        self.lines.iter().find(|line| line.mid == mid)
    }

    /// Takes over from an offer what incoming packets mean.
    pub(super) fn sync_sources(&mut self) {
        let mut meanings = Meanings::default();
        for line in &self.lines {
            let Some(media) = media_of(&self.rtc, line.mid) else {
                continue;
            };
            for (extension, meaning) in meanings_of() {
                if let Some(id) = media.remote_extmap().id_of(extension) {
                    meanings.insert(id, meaning);
                }
            }
        }
        let params = self.rtc.codec_config().params();
        self.receive_side.set_negotiated(meanings, params);
        let Self {
            receive_side,
            rtc,
            lines,
            described,
            ..
        } = self;
        described.retain(|known| media_of(rtc, known.mid).is_some());
        for line in lines {
            withdraw(rtc, line.mid, described);
        }
        described.truncate(PEER_STREAMS);
        receive_side.retain_sources(|ssrc, source| {
            let mut described = described.iter().filter(|known| known.ssrc == ssrc);
            described.all(|known| known.mid == source.mid) && media_of(rtc, source.mid).is_some()
        });
    }
}

/// Which extension, as str0m knows it, means what.
fn meanings_of() -> [(Extension, Meaning); 7] {
    [
        (Extension::RtpMid, Meaning::Mid),
        (Extension::RtpStreamId, Meaning::Rid),
        (Extension::RepairedRtpStreamId, Meaning::RepairedRid),
        (
            Extension::TransportSequenceNumber,
            Meaning::TransportSequence,
        ),
        (Extension::AudioLevel, Meaning::AudioLevel),
        (Extension::VideoOrientation, Meaning::VideoOrientation),
        (extension::extension(), Meaning::DependencyDescriptor),
    ]
}

/// A stream that a description told of by its SSRC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    ssrc: Ssrc,
    mid: Mid,
    repairs: bool,
}

/// Takes the streams of an m-line that an offer described away from str0m, which would report on
/// them, and notes them in place of those of an earlier offer.
fn withdraw(rtc: &mut Rtc, mid: Mid, described: &mut Vec<Described>) {
    let mut api = rtc.direct_api();
    let mut has_new = false;
    while let Some(stream) = api.stream_rx_by_mid(mid, None) {
        let (ssrc, rtx) = (stream.ssrc(), stream.rtx());
        if !has_new {
            described.retain(|known| known.mid != mid);
            has_new = true;
        }
        let stream = |ssrc, repairs| Described { ssrc, mid, repairs };
        described.push(stream(ssrc, false));
        described.extend(rtx.map(|rtx| stream(rtx, true)));
        api.remove_stream_rx(ssrc);
    }
}

/// Where a stream belongs (RFC 8843 §9.2): to the m-line that the packet names, that whose
/// description has its SSRC, or the only one with its payload type.
fn find(
    rtc: &Rtc,
    (lines, described): (&[Line], &[Described]),
    header: &Header<'_>,
    is_rtx: bool,
) -> Option<Source> {
    let described = described.iter().find(|known| known.ssrc == header.ssrc);
    let line = match (header.extensions.mid, described) {
        (Some(mid), _) => lines.iter().find(|line| names(mid, &line.mid))?,
        (None, Some(described)) => lines.iter().find(|line| line.mid == described.mid)?,
        (None, None) => only_one(rtc, lines, header.pt)?,
    };
    let media = media_of(rtc, line.mid).filter(|media| media.direction().is_receiving())?;
    let source = |rid, repairs| Source {
        mid: line.mid,
        rid,
        kind: line.kind,
        repairs,
    };
    let Rids::Specific(rids) = media.rids_rx() else {
        let is_described_so = described.is_some_and(|described| described.repairs);
        return Some(source(None, is_rtx || is_described_so));
    };
    let extensions = &header.extensions;
    let is_named = |rid: &&Rid| {
        let named = extensions.rid.or(extensions.repaired_rid);
        named.is_some_and(|named| names(named, rid))
    };
    let rid = rids.iter().find(is_named)?;
    Some(source(Some(*rid), extensions.rid.is_none()))
}

/// The only m-line that may carry a payload type.
fn only_one<'a>(rtc: &Rtc, lines: &'a [Line], pt: Pt) -> Option<&'a Line> {
    let main = rtc.codec_config().find(|params| {
        params.pt() == pt || params.resend() == Some(pt) || params.red() == Some(pt)
    })?;
    let carries = |line: &&Line| {
        let media = media_of(rtc, line.mid);
        media.is_some_and(|media| {
            media.direction().is_receiving() && media.remote_pts().contains(&main.pt())
        })
    };
    let mut carrying = lines.iter().filter(carries);
    carrying.next().filter(|_| carrying.next().is_none())
}
