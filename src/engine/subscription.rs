//! One peer watching one track in one of its slots: what passes, and as what.

use std::time::{Duration, Instant};

use str0m::format::CodecConfig;
use str0m::media::{Mid, Pt};
use str0m::rtp::{SeqNo, Ssrc};

use super::allocate::{Before, Reason};
use super::arena::Key;
use super::codec::{Codec, red};
use super::command::Kind;
use super::egress::extension::PacketExtensions;
use super::egress::history::StoredId;
use super::egress::packet;
use super::egress::patch::HeadPatch;
use super::egress::send_side::Leaving;
use super::figures::{Fares, Freezes};
use super::layers::Layering;
use super::rewriter::{Incoming, Outgoing, Rewriter};
use super::selector::{Selector, Target, Verdict};
use super::stats::Dropped;
use super::svc::{Frame, FrameNumbers};
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
    /// Likewise the numbers in dependency descriptors.
    frames: FrameNumbers,
    /// How what leaves in it arrives, by the client's latest report.
    pub(crate) fares: Option<Fares>,
    /// What plays in it.
    playing: Option<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    track: Key<Track>,
    /// Which packets of it pass.
    selector: Selector,
    /// What it was granted last.
    granted: Before,
    /// What its viewer was told last that it gets, and why not more.
    told: Option<(Option<u8>, Reason)>,
    /// Since when the path has carried less than the least of it.
    lacks_since: Option<Instant>,
    /// Which decode targets the viewer's decoder was told last that it gets.
    told_targets: Option<u32>,
    /// When its picture stood still.
    freezes: Freezes,
    /// The publisher's payload type of the last packet and ours for it.
    translated: Option<(Pt, Option<Format>)>,
}

/// How a packet of the track that plays is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// As it follows from the one before.
    On {
        /// It is the last of its picture for this viewer.
        ends_picture: bool,
    },
    /// As the first of its layer.
    Begins {
        /// After this one.
        before: Option<u8>,
        /// As above.
        ends_picture: bool,
    },
    /// Not at all: the numbers of those after it close up.
    Withheld,
}

/// The payload types under which a format leaves in a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    pub(crate) pt: Pt,
    /// Of its resends; `None` when RTX was not negotiated.
    pub(crate) rtx_pt: Option<Pt>,
    /// The publisher sends it with redundancy (RED), which this viewer does not take.
    strips: bool,
}

/// A packet as the slot sends it.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) format: Format,
    pub(crate) rewritten: Outgoing,
    /// What differs in its frame's description.
    frame: HeadPatch,
    /// Its dependency descriptor, where that is not as the publisher sent it.
    descriptor: Option<Vec<u8>>,
    /// It carries nothing, but its number was promised.
    pub(crate) is_filler: bool,
    /// Bytes at the head of its payload that are left out.
    skipped: usize,
}

/// Until it is known what there is to choose from, what comes first plays.
const ANYTHING: Target = Target {
    layer: 0,
    temporal: u8::MAX,
    instead: u8::MAX,
    meanwhile: u8::MAX,
};

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
            frames: FrameNumbers::default(),
            fares: None,
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

    /// The layer of what plays that passes.
    pub(crate) fn live(&self) -> Option<u8> {
        self.playing.as_ref()?.selector.live()
    }

    /// Up to which temporal layer it passes.
    pub(crate) fn temporal(&self) -> u8 {
        let playing = self.playing.as_ref();
        playing.map_or(0, |playing| playing.selector.temporal())
    }

    /// Layers of which a packet may pass as things stand, a bit each.
    pub(crate) fn takes(&self) -> u8 {
        let playing = self.playing.as_ref();
        playing.map_or(0, |playing| playing.selector.takes())
    }

    /// The layer of what plays that cannot begin without a keyframe.
    pub(crate) fn wants_keyframe(&self) -> Option<u8> {
        self.playing.as_ref()?.selector.wants_keyframe()
    }

    /// What it was granted last.
    pub(crate) fn granted(&self) -> Before {
        let playing = self.playing.as_ref();
        playing.map_or(Before::New, |playing| playing.granted)
    }

    /// Plays another track, or none.
    pub(crate) fn play(&mut self, track: Option<Key<Track>>) {
        if track.is_some() {
            self.rewriter.switch();
        }
        self.playing = track.map(|track| {
            let mut selector = Selector::new();
            selector.set_target(Some(ANYTHING));
            Subscription {
                track,
                selector,
                granted: Before::New,
                told: None,
                lacks_since: None,
                told_targets: None,
                freezes: Freezes::default(),
                translated: None,
            }
        });
    }

    /// What plays is to pass like this.
    pub(crate) fn aim(&mut self, now: Instant, target: Option<Target>, granted: Before) {
        if target.is_none() {
            self.note_freeze(now);
        }
        if let Some(playing) = &mut self.playing {
            playing.selector.set_target(target);
            playing.granted = granted;
        }
    }

    /// What was granted, if the viewer was told something else before: the place of its layer and
    /// why it is not more.
    pub(crate) fn news(&mut self, reason: Reason) -> Option<(Option<u8>, Reason)> {
        let playing = self.playing.as_mut()?;
        let gets = match playing.granted {
            Before::New => return None,
            Before::Paused => (None, reason),
            Before::Sent { layer, .. } => (Some(layer), reason),
        };
        (playing.told.replace(gets) != Some(gets)).then_some(gets)
    }

    /// The path carries less than the least of what plays. Whether that has lasted for `patience`.
    pub(crate) fn lacks(&mut self, now: Instant, patience: Duration) -> bool {
        self.playing.as_mut().is_some_and(|playing| {
            let since = *playing.lacks_since.get_or_insert(now);
            now.saturating_duration_since(since) >= patience
        })
    }

    /// The path carries something of what plays.
    pub(crate) fn suffices(&mut self) {
        if let Some(playing) = &mut self.playing {
            playing.lacks_since = None;
        }
    }

    /// Why what plays is not better, as its viewer was told.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let (_, reason) = self.playing.as_ref()?.told?;
        Some(reason)
    }

    /// When the picture of what plays stood still.
    pub(crate) fn freezes(&self) -> Freezes {
        let playing = self.playing.as_ref();
        playing.map_or_else(Freezes::default, |playing| playing.freezes)
    }

    /// The picture of what plays stands still until a keyframe leaves, if it has begun.
    pub(crate) fn note_freeze(&mut self, now: Instant) {
        let playing = self.playing.as_mut();
        if let Some(playing) = playing.filter(|playing| playing.selector.live().is_some()) {
            playing.freezes.begin(now);
        }
    }

    /// Nothing passes before the next keyframe of what plays.
    pub(crate) fn await_keyframe(&mut self, now: Instant) {
        self.note_freeze(now);
        if let Some(playing) = &mut self.playing {
            playing.selector.restart();
        }
    }

    /// Whether a packet passes: each is to be asked about once, in order.
    ///
    /// # Errors
    ///
    /// [`Dropped`] says why it does not.
    pub(crate) fn select(&mut self, packet: &MediaPacket) -> Result<Passing, Dropped> {
        let Some(playing) = self.playing.as_mut().filter(|p| p.track == packet.track) else {
            return Err(Dropped::NoTrack);
        };
        let selector = &mut playing.selector;
        let before = selector.live();
        let verdict = if packet.is_svc {
            selector.select_frame(packet.frame.as_deref())
        } else {
            selector.select(packet.layer, packet.timestamp, &packet.facts)
        };
        let ends_picture = selector.ends_picture();
        match verdict {
            Verdict::Forward => Ok(Passing::On { ends_picture }),
            Verdict::Begin => Ok(Passing::Begins {
                before,
                ends_picture,
            }),
            Verdict::Withhold => Ok(Passing::Withheld),
            Verdict::OtherLayer => Err(Dropped::OtherLayer),
            Verdict::AwaitingKeyframe => Err(Dropped::AwaitingKeyframe),
            Verdict::Paused => Err(Dropped::Paused),
        }
    }

    /// What becomes of a packet that passes: how it leaves, or why it does not after all.
    pub(crate) fn forward(
        &mut self,
        packet: &MediaPacket,
        passing: Passing,
        track: &Track,
        ours: &CodecConfig,
    ) -> Result<Forward, Dropped> {
        let Some(playing) = self.playing.as_mut().filter(|p| p.track == packet.track) else {
            return Err(Dropped::NoTrack);
        };
        if playing.selector.target().is_none() {
            return Err(Dropped::Paused);
        }
        let Some(format) = playing.translate(packet.pt, track, ours, &self.accepts) else {
            return Err(Dropped::CodecNotNegotiated);
        };
        if let Passing::Begins { before, .. } = passing {
            self.frames.switch();
            let clock = |layer: u8| track.layers.get(usize::from(layer))?.clock;
            match before.and_then(clock) {
                Some(from) => self.rewriter.switch_layer(from, packet.clock),
                None => self.rewriter.switch(),
            }
        }
        if playing.freezes.is_frozen() && packet.facts.starts_keyframe {
            playing.freezes.end(packet.arrived);
        }
        let incoming = Incoming {
            seq: packet.seq.into(),
            timestamp: packet.timestamp,
            vp8: packet.facts.vp8,
        };
        let skipped = if format.strips && !packet.payload.is_empty() {
            let own = red::primary(&packet.payload).ok_or(Dropped::CodecNotNegotiated)?;
            packet.payload.len() - own.len()
        } else {
            0
        };
        let left_out = if packet.payload.is_empty() {
            Some(Dropped::Padding)
        } else if passing == Passing::Withheld {
            Some(Dropped::TemporalLayer)
        } else {
            None
        };
        let rewritten = match left_out {
            Some(reason) => self.rewriter.skip(&incoming).ok_or(reason)?,
            None => self.rewriter.rewrite(packet.arrived, &incoming)?,
        };
        let frame = packet.frame.as_deref().filter(|_| left_out.is_none());
        Ok(Forward {
            format,
            rewritten,
            frame: frame.map_or(HeadPatch::NONE, |frame| {
                let number = self.frames.number(frame.descriptor.frame);
                HeadPatch::frame(number, passing.ends_picture())
            }),
            descriptor: frame.and_then(|frame| playing.mask(frame)),
            is_filler: left_out.is_some(),
            skipped,
        })
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
    pub(crate) fn leaving<'a>(&'a self, packet: &'a MediaPacket) -> Leaving<'a> {
        let rewritten = &self.rewritten;
        let offset = rewritten.timestamp.wrapping_sub(packet.timestamp);
        let patch = match (packet.facts.vp8, rewritten.vp8) {
            (Some(vp8), Some(numbers)) => HeadPatch::vp8(&packet.payload, &vp8, numbers),
            _ => self.frame,
        };
        let descriptor = match (&self.descriptor, &packet.frame) {
            _ if self.is_filler => &[],
            (Some(written), _) => written.as_slice(),
            (None, Some(frame)) => &frame.bytes,
            (None, None) => &[],
        };
        Leaving {
            pt: self.format.pt,
            rtx_pt: self.format.rtx_pt,
            stored: if self.is_filler {
                StoredId::NOTHING
            } else {
                packet.stored
            },
            clock: packet.clock.in_slot(offset),
            packet: packet::MediaPacket {
                seq: *rewritten.seq,
                timestamp: rewritten.timestamp,
                marker: packet.marker,
                payload: if self.is_filler {
                    &[]
                } else {
                    &packet.payload[self.skipped..]
                },
                patch,
                extensions: PacketExtensions {
                    audio_level: packet.audio_level,
                    video_orientation: packet.video_orientation,
                    dependency_descriptor: descriptor,
                    frame_number: patch.frame_number(),
                },
            },
        }
    }
}

impl Passing {
    fn ends_picture(self) -> bool {
        match self {
            Self::On { ends_picture } | Self::Begins { ends_picture, .. } => ends_picture,
            Self::Withheld => false,
        }
    }
}

impl Subscription {
    /// The descriptor of a frame that says which decode targets come here, where that must be said
    /// and is not what the publisher says.
    fn mask(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        if frame.layering() == Layering::Simulcast || frame.bytes.is_empty() {
            return None;
        }
        let descriptor = &frame.descriptor;
        let targets = self.selector.within();
        let is_news = descriptor.starts_frame && self.told_targets != Some(targets);
        if !is_news && descriptor.active.is_none() {
            return None;
        }
        self.told_targets = Some(targets);
        Some(frame.masked(targets))
    }

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
        let theirs = track.format(pt);
        let is_redundant = theirs.is_some_and(|format| format.is_redundant(pt));
        let translated = theirs
            .and_then(|format| ours.match_params(format.params))
            .filter(|params| accepts.contains(&params.pt()))
            .map(|params| {
                let redundant = params.red().filter(|_| is_redundant);
                Format {
                    pt: redundant.unwrap_or(params.pt()),
                    rtx_pt: params.resend(),
                    strips: is_redundant && redundant.is_none(),
                }
            });
        self.translated = Some((pt, translated));
        translated
    }
}
