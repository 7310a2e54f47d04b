//! One peer watching one track in one of its slots: what passes, and as what.

use std::time::Instant;

use str0m::format::CodecConfig;
use str0m::media::{Mid, Pt};
use str0m::rtp::{SeqNo, Ssrc};

use super::arena::Key;
use super::codec::Codec;
use super::command::Kind;
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
    /// The publisher's payload type of the last packet and ours for it.
    translated: Option<(Pt, Option<Pt>)>,
}

/// A packet as the slot sends it.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) pt: Pt,
    pub(crate) rewritten: Outgoing,
}

impl Slot {
    pub(crate) fn new(mid: Mid, kind: Kind, ssrc: Ssrc) -> Self {
        Self {
            mid,
            kind,
            ssrc,
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

    /// Whether nothing can pass before a keyframe of what plays.
    pub(crate) fn awaits_keyframe(&self) -> bool {
        self.playing
            .as_ref()
            .is_some_and(|playing| playing.awaits_keyframe)
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
            translated: None,
        });
    }

    /// What becomes of a packet of the track that plays: how it leaves, or why it does not.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
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
        if playing.awaits_keyframe && !packet.facts.starts_keyframe {
            return Err(Dropped::AwaitingKeyframe);
        }
        let Some(pt) = playing.translate(packet.pt, track, ours, &self.accepts) else {
            return Err(Dropped::CodecNotNegotiated);
        };
        let incoming = Incoming {
            seq: packet.seq.into(),
            timestamp: packet.timestamp,
            vp8: packet.facts.vp8,
        };
        if packet.payload.is_empty() {
            let rewritten = self.rewriter.skip(&incoming).ok_or(Dropped::Padding)?;
            return Ok(Forward { pt, rewritten });
        }
        let rewritten = self.rewriter.rewrite(now, &incoming)?;
        playing.awaits_keyframe = false;
        Ok(Forward { pt, rewritten })
    }
}

/// A first sequence number that differs from slot to slot: the SSRC, drawn at random, is at hand.
fn first_seq(ssrc: Ssrc) -> SeqNo {
    (u64::from(*ssrc & 0x3fff) + 1).into()
}

fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => Codec::Opus.clock_rate(),
        Kind::Video => Codec::Vp8.clock_rate(),
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
    ) -> Option<Pt> {
        if let Some((theirs, translated)) = self.translated
            && theirs == pt
        {
            return translated;
        }
        let translated = track
            .format(pt)
            .and_then(|format| ours.match_params(format.params))
            .map(|params| params.pt())
            .filter(|pt| accepts.contains(pt));
        self.translated = Some((pt, translated));
        translated
    }
}
