//! A decoder without pictures: which frames could be shown, and when to ask for a keyframe.
//!
//! A frame can be shown when all its packets are there and it is a keyframe or follows a frame that
//! was shown, as in VP8 with one temporal layer. A viewer that waits too long sends a PLI
//! (RFC 4585 §6.3.1), as browsers do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::encoder::{Stamp, kind_of};
use crate::engine::command::{Kind, Source};

/// Waiting this long for what is missing, a viewer asks for a keyframe.
const PATIENCE: Duration = Duration::from_millis(300);

/// Which encoding of which track, since when.
type Run = (u32, Source, u16, u8);

/// One m-line's decoder.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    run: Option<Run>,
    /// Highest sequence number.
    newest: u64,
    /// Packets seen of each frame not shown yet.
    parts: BTreeMap<u32, Parts>,
    /// The last frame that was shown.
    shown: Option<u32>,
    /// Since when there are frames that cannot be shown.
    stuck_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Parts {
    seen: u64,
    whole: bool,
    keyframe: bool,
}

impl Decoder {
    /// Takes in a packet and its extended sequence number; returns how many frames can be shown
    /// with it.
    pub(crate) fn handle_packet(&mut self, now: Instant, seq: u64, stamp: &Stamp) -> usize {
        if stamp.in_one_stream {
            // What belongs together there only its descriptors say.
            return 0;
        }
        if self.run != Some(stamp.run()) {
            // A late packet of the track before does not bring it back.
            if seq < self.newest {
                return 0;
            }
            *self = Self {
                run: Some(stamp.run()),
                ..Self::default()
            };
        }
        self.newest = self.newest.max(seq);
        if self.shown.is_some_and(|shown| stamp.frame <= shown) {
            return 0;
        }
        let part = self.parts.entry(stamp.frame).or_default();
        part.seen |= 1 << stamp.packet;
        part.whole = part.seen.count_ones() == u32::from(stamp.packets);
        part.keyframe = stamp.keyframe;
        let shown = self.show();
        if shown > 0 || self.parts.is_empty() {
            self.stuck_since = None;
        }
        if !self.parts.is_empty() {
            self.stuck_since.get_or_insert(now);
        }
        shown
    }

    /// Whether it is time to ask for a keyframe; asks again after as long.
    pub(crate) fn poll_keyframe_request(&mut self, now: Instant) -> bool {
        let video = self
            .run
            .is_some_and(|(_, source, ..)| kind_of(source) == Kind::Video);
        let due = video
            && self
                .stuck_since
                .is_some_and(|since| now >= since + PATIENCE);
        if due {
            self.stuck_since = Some(now);
        }
        due
    }

    /// Shows what can be shown, in order.
    fn show(&mut self) -> usize {
        let mut count = 0;
        loop {
            let next = self.parts.iter().find(|(frame, part)| {
                part.whole && (part.keyframe || self.shown == frame.checked_sub(1))
            });
            let Some(frame) = next.map(|(frame, _)| *frame) else {
                return count;
            };
            count += 1;
            self.shown = Some(frame);
            self.parts = self.parts.split_off(&(frame + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use str0m::format::Codec;

    use super::*;
    use crate::sim::clock;
    use crate::sim::encoder::{Encoder, Rate};

    /// The stamps of four frames, the first a keyframe; and of a keyframe after them.
    fn frames() -> Vec<Vec<Stamp>> {
        let camera = (Source::Camera, Codec::Vp8, Rate::CAMERA);
        let mut encoder = Encoder::new(clock::origin(), &mut Rng::with_seed(1), 0, camera);
        let mut frame = |key| {
            if key {
                encoder.request_keyframe();
            }
            let packets = encoder.poll_frame();
            packets
                .iter()
                .filter_map(|packet| Stamp::parse(&packet.payload))
                .collect()
        };
        vec![
            frame(true),
            frame(false),
            frame(false),
            frame(false),
            frame(true),
        ]
    }

    #[test]
    fn frames_are_shown_in_order_once_they_are_whole() {
        let frames = frames();
        let (mut decoder, now) = (Decoder::default(), clock::origin());
        let mut show = |frame: &[Stamp]| -> usize {
            frame
                .iter()
                .map(|stamp| decoder.handle_packet(now, 0, stamp))
                .sum()
        };
        assert_eq!(show(&frames[0][1..]), 0);
        assert_eq!(show(&frames[2]), 0);
        assert_eq!(show(&frames[0][..1]), 1);
        assert_eq!(show(&frames[1]), 2, "the third frame waited for the second");
        assert_eq!(show(&frames[1]), 0, "nothing is shown twice");
    }

    #[test]
    fn a_lost_frame_is_waited_for_and_then_a_keyframe_is_asked_for() {
        let frames = frames();
        let (mut decoder, now) = (Decoder::default(), clock::origin());
        for stamp in frames[0].iter().chain(&frames[2]) {
            decoder.handle_packet(now, 0, stamp);
        }
        assert!(!decoder.poll_keyframe_request(now));
        assert!(decoder.poll_keyframe_request(now + PATIENCE));
        assert!(!decoder.poll_keyframe_request(now + PATIENCE));
        let shown: usize = frames[4]
            .iter()
            .map(|stamp| decoder.handle_packet(now, 0, stamp))
            .sum();
        assert_eq!(shown, 1);
        assert!(!decoder.poll_keyframe_request(now + 9 * PATIENCE));
    }
}
