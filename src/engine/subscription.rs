//! One peer watching one track in one of its slots: what passes, and as what.

use std::time::{Duration, Instant};

use str0m::format::CodecConfig;
use str0m::media::{Mid, Pt};
use str0m::rtp::{SeqNo, Ssrc};

use super::arena::Key;
use super::codec::Codec;
use super::command::Kind;
use super::egress::extension::PacketExtensions;
use super::egress::packet;
use super::egress::patch::HeadPatch;
use super::egress::send_side::Leaving;
use super::rewriter::{Incoming, Outgoing, Rewriter};
use super::stats::Dropped;
use super::track::{MediaPacket, Track};

/// A receiving m-line of a peer. Its SSRC and its stream live as long as the m-line; the tracks
/// that play in it come and go.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The m-line.
    pub(crate) mid: Mid,
    /// What can play in it.
    pub(crate) kind: Kind,
    /// The SSRC its packets carry.
    pub(crate) ssrc: Ssrc,
    /// The SSRC of its resends.
    pub(crate) rtx: Option<Ssrc>,
    /// Whether the peer's latest offer still receives on this m-line.
    pub(crate) open: bool,
    /// Payload types the m-line accepts.
    accepts: Vec<Pt>,
    /// Keeps the stream unbroken.
    rewriter: Rewriter,
    /// What plays in it.
    playing: Option<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    track: Key<Track>,
    /// Index of the layer that passes.
    layer: u8,
    /// Nothing passes before the next keyframe.
    awaits_keyframe: bool,
    /// Nothing passes: the path carries less.
    is_paused: bool,
    /// Since when the path has carried less.
    lacks_since: Option<Instant>,
    /// The publisher's payload type of the last packet and ours for it.
    translated: Option<(Pt, Option<Format>)>,
}

/// The payload types under which a format leaves in a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) pt: Pt,
    /// Of its resends; `None` when RTX was not negotiated.
    pub(crate) rtx_pt: Option<Pt>,
}

/// A packet as the slot sends it.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) format: Format,
    pub(crate) rewritten: Outgoing,
}

impl Slot {
    pub(crate) fn new(mid: Mid, kind: Kind, ssrc: Ssrc, rtx: Option<Ssrc>) -> Self {
        Self {
            mid,
            kind,
            ssrc,
            rtx,
            open: true,
            accepts: Vec::new(),
            rewriter: Rewriter::new(first_seq(ssrc), *ssrc, clock_rate(kind)),
            playing: None,
        }
    }

    /// Takes over what the latest offer accepts on this m-line.
    pub(crate) fn set_accepts(&mut self, pts: &[Pt]) {
        self.accepts = pts.to_vec();
        if let Some(playing) = &mut self.playing {
            playing.translated = None;
        }
    }

    /// What plays in it.
    pub(crate) fn track(&self) -> Option<Key<Track>> {
        self.playing.as_ref().map(|playing| playing.track)
    }

    /// Which layer of it.
    pub(crate) fn layer(&self) -> Option<u8> {
        self.playing.as_ref().map(|playing| playing.layer)
    }

    /// Whether what plays is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.playing
            .as_ref()
            .is_some_and(|playing| playing.is_paused)
    }

    /// The path carries what plays. `true` when it was paused: it goes on with a keyframe.
    pub(crate) fn resume(&mut self) -> bool {
        let Some(playing) = &mut self.playing else {
            return false;
        };
        playing.lacks_since = None;
        let was_paused = std::mem::take(&mut playing.is_paused);
        playing.awaits_keyframe |= was_paused && self.kind == Kind::Video;
        was_paused
    }

    /// The path carries less than what plays. When that has lasted for `patience`, it is paused.
    pub(crate) fn lack(&mut self, now: Instant, patience: Duration) {
        if let Some(playing) = &mut self.playing {
            let since = *playing.lacks_since.get_or_insert(now);
            playing.is_paused |= now.saturating_duration_since(since) >= patience;
        }
    }

    /// Whether nothing can pass before a keyframe of what plays, and one would.
    pub(crate) fn awaits_keyframe(&self) -> bool {
        self.playing
            .as_ref()
            .is_some_and(|playing| playing.awaits_keyframe && !playing.is_paused)
    }

    /// Plays another track, or none.
    pub(crate) fn play(&mut self, track: Option<Key<Track>>) {
        if track.is_some() {
            self.rewriter.switch();
        }
        self.playing = track.map(|track| Subscription {
            track,
            layer: 0,
            awaits_keyframe: self.kind == Kind::Video,
            is_paused: false,
            lacks_since: None,
            translated: None,
        });
    }

    /// Nothing passes before the next keyframe of what plays.
    pub(crate) fn await_keyframe(&mut self) {
        if let Some(playing) = &mut self.playing {
            playing.awaits_keyframe = self.kind == Kind::Video;
        }
    }

    /// Whether a packet is of what plays: whether it passes is seen when it leaves.
    pub(crate) fn watches(&self, packet: &MediaPacket) -> bool {
        self.playing.as_ref().is_some_and(|playing| {
            playing.track == packet.track && playing.layer == packet.layer && !playing.is_paused
        })
    }

    /// What becomes of a packet of the track that plays: how it leaves, or why it does not.
    pub(crate) fn forward(
        &mut self,
        packet: &MediaPacket,
        track: &Track,
        ours: &CodecConfig,
    ) -> Result<Forward, Dropped> {
        let Some(playing) = self.playing.as_mut().filter(|p| p.track == packet.track) else {
            return Err(Dropped::NoTrack);
        };
        if playing.layer != packet.layer {
            return Err(Dropped::OtherLayer);
        }
        if playing.is_paused {
            return Err(Dropped::Paused);
        }
        if playing.awaits_keyframe && !packet.facts.starts_keyframe {
            return Err(Dropped::AwaitingKeyframe);
        }
        let Some(format) = playing.translate(packet.pt, track, ours, &self.accepts) else {
            return Err(Dropped::CodecNotNegotiated);
        };
        let incoming = Incoming {
            seq: packet.seq.into(),
            timestamp: packet.timestamp,
            vp8: packet.facts.vp8,
        };
        let rewritten = if packet.payload.is_empty() {
            self.rewriter.skip(&incoming).ok_or(Dropped::Padding)?
        } else {
            let rewritten = self.rewriter.rewrite(packet.arrived, &incoming)?;
            playing.awaits_keyframe = false;
            rewritten
        };
        Ok(Forward { format, rewritten })
    }
}

/// A first sequence number that differs from slot to slot: the SSRC, drawn at random, is at hand.
fn first_seq(ssrc: Ssrc) -> SeqNo {
    (u64::from(*ssrc & 0x3fff) + 1).into()
}

/// RTP timestamp ticks per second of a kind: every codec we forward agrees.
pub(crate) fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => Codec::Opus.clock_rate(),
        Kind::Video => Codec::Vp8.clock_rate(),
    }
}

impl Forward {
    /// The packet as the send side writes it.
    pub(crate) fn leaving<'a>(&self, packet: &'a MediaPacket) -> Leaving<'a> {
        let rewritten = &self.rewritten;
        let offset = rewritten.timestamp.wrapping_sub(packet.timestamp);
        let patch = match (packet.facts.vp8, rewritten.vp8) {
            (Some(vp8), Some(numbers)) => HeadPatch::vp8(&packet.payload, &vp8, numbers),
            _ => HeadPatch::NONE,
        };
        Leaving {
            pt: self.format.pt,
            rtx_pt: self.format.rtx_pt,
            stored: packet.stored,
            clock: packet.clock.in_slot(offset),
            packet: packet::MediaPacket {
                seq: *rewritten.seq,
                timestamp: rewritten.timestamp,
                marker: packet.marker,
                payload: &packet.payload,
                patch,
                extensions: PacketExtensions {
                    audio_level: packet.audio_level,
                    video_orientation: packet.video_orientation,
                    dependency_descriptor: &[],
                },
            },
        }
    }
}

impl Subscription {
    /// Our payload type for the publisher's: the same format as the subscriber numbers it.
    fn translate(
        &mut self,
        pt: Pt,
        track: &Track,
        ours: &CodecConfig,
        accepts: &[Pt],
    ) -> Option<Format> {
        if let Some((theirs, translated)) = self.translated
            && theirs == pt
        {
            return translated;
        }
        let translated = track
            .format(pt)
            .and_then(|format| ours.match_params(format.params))
            .filter(|params| accepts.contains(&params.pt()))
            .map(|params| Format {
                pt: params.pt(),
                rtx_pt: params.resend(),
            });
        self.translated = Some((pt, translated));
        translated
    }
}
