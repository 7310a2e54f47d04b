//! What a client publishes: when the next frame is due, and the bytes of its packets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::media::{Mid, Pt};
use str0m::rtp::{ExtensionValues, RtpWrite};

use crate::clock::Moment;
use crate::plan::TrackPlan;
use crate::stamp::Stamp;
use crate::tally::Source;

/// Names of the layers, the smallest first.
pub(crate) const RIDS: [&str; 3] = ["l", "m", "h"];
/// A keyframe comes at least this often, in frames, as encoders are commonly set.
const KEYFRAME_EVERY: u32 = 300;
/// Ticks of the RTP clocks, per second.
const VIDEO_CLOCK: f64 = 90_000.0;
const AUDIO_CLOCK: f64 = 48_000.0;

/// One published track.
#[derive(Debug)]
pub(crate) struct Track {
    /// Its number in the run, which its packets carry.
    pub(crate) id: u32,
    pub(crate) plan: TrackPlan,
    pub(crate) source: Arc<Source>,
    /// Its m-line, once it was offered, and the payload type, once that is known.
    pub(crate) mid: Option<Mid>,
    pub(crate) pt: Option<Pt>,
    /// When the next frame is due.
    pub(crate) due: Instant,
    /// The next sequence number of each layer.
    pub(crate) seq: [u64; 3],
    /// Which layers were asked for a keyframe.
    pub(crate) keyframe: [bool; 3],
    frame: u32,
}

impl Track {
    /// A track whose frames begin at `start`.
    pub(crate) fn new(id: u32, plan: TrackPlan, source: Arc<Source>, start: Instant) -> Self {
        Self {
            id,
            plan,
            source,
            mid: None,
            pt: None,
            due: start,
            seq: [1000; 3],
            keyframe: [true; 3],
            frame: 0,
        }
    }

    /// Goes on to the next frame and says which it is. One that is far too late is not made up
    /// for: a camera would not send it either.
    pub(crate) fn next_frame(&mut self, now: Instant) -> u32 {
        let interval = Duration::from_secs_f64(1.0 / self.plan.frames_per_s);
        self.due += interval;
        if self.due + Duration::from_millis(500) < now {
            self.due = now + interval;
        }
        self.frame += 1;
        self.frame
    }

    /// The RTP time of a frame.
    pub(crate) fn time(&self, frame: u32) -> u32 {
        let clock = if self.plan.video {
            VIDEO_CLOCK
        } else {
            AUDIO_CLOCK
        };
        (f64::from(frame) * clock / self.plan.frames_per_s) as u64 as u32
    }

    /// Whether this frame of this layer begins anew; it is then no longer asked for.
    pub(crate) fn is_keyframe(&mut self, frame: u32, layer: usize) -> bool {
        std::mem::take(&mut self.keyframe[layer]) || frame.is_multiple_of(KEYFRAME_EVERY)
    }

    /// The next packet, stamped.
    pub(crate) fn write(
        &mut self,
        now: Moment,
        pt: Pt,
        frame: u32,
        place: Packet,
        measured: bool,
    ) -> RtpWrite {
        let (audio, layer) = (!self.plan.video, place.layer);
        let stamp = Stamp {
            source: self.id,
            frame,
            layer: layer as u8,
            measured,
            sent_ns: now.unix_ns,
        };
        let seq = self.seq[layer];
        self.seq[layer] += 1;
        let payload = self.payload(place, &stamp);
        RtpWrite::new(pt, seq.into(), self.time(frame), now.instant, payload)
            .marker(place.last && !audio)
            .nackable(!audio)
            .ext_vals(ExtensionValues {
                audio_level: audio.then_some(-30),
                voice_activity: audio.then_some(true),
                ..ExtensionValues::default()
            })
    }

    fn payload(&self, place: Packet, stamp: &Stamp) -> Vec<u8> {
        let mut payload = if self.plan.video {
            vp8_head(place, stamp.frame)
        } else {
            Vec::new()
        };
        payload.resize(self.plan.layers[place.layer].1, 0x55);
        stamp.write(&mut payload);
        payload
    }
}

/// Where in its frame a packet stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) keyframe: bool,
    pub(crate) layer: usize,
}

/// The VP8 payload descriptor with picture number, TL0PICIDX and temporal layer (RFC 7741 §4.2),
/// and the head of the first partition in a frame's first packet.
fn vp8_head(packet: Packet, frame: u32) -> Vec<u8> {
    let [high, low] = (frame as u16 | 0x8000).to_be_bytes();
    let start = if packet.first { 0x90 } else { 0x80 };
    let mut head = vec![start, 0xE0, high, low, frame as u8, 0x20];
    if !packet.first {
        return head;
    }
    if packet.keyframe {
        let (width, height) = [(320_u16, 240_u16), (640, 480), (1280, 720)][packet.layer];
        head.extend([0x10, 0x00, 0x01, 0x9D, 0x01, 0x2A]);
        head.extend(width.to_le_bytes());
        head.extend(height.to_le_bytes());
    } else {
        head.extend([0x11, 0x00, 0x01]);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{LEAST_BYTES, Plan};

    #[test]
    fn the_least_payload_holds_a_keyframes_head_and_a_stamp() {
        let mut plan = Plan::default().tracks().remove(0);
        plan.layers = vec![(8, LEAST_BYTES)];
        let source = Arc::new(Source::new(&plan));
        let track = Track::new(9, plan, source, Moment::now().instant);
        let stamp = Stamp {
            source: 9,
            frame: 3,
            layer: 0,
            measured: false,
            sent_ns: 5,
        };
        let packet = Packet {
            first: true,
            last: false,
            keyframe: true,
            layer: 0,
        };
        let payload = track.payload(packet, &stamp);
        assert_eq!(payload[..8], [0x90, 0xE0, 0x80, 3, 3, 0x20, 0x10, 0]);
        assert_eq!(Stamp::read(&payload), Some(stamp));
    }

    #[test]
    fn frames_come_at_their_rate_and_late_ones_are_left_out() {
        let plan = Plan::default().tracks().remove(0);
        let source = Arc::new(Source::new(&plan));
        let start = Moment::now().instant;
        let mut track = Track::new(0, plan, source, start);
        assert_eq!(track.next_frame(start), 1);
        assert_eq!(track.due, start + Duration::from_millis(32));
        let late = start + Duration::from_secs(60);
        track.next_frame(late);
        assert!(track.due > late);
    }
}
