//! RTP payloads put together to frames, as containers hold them.
//!
//! Packets come in order and complete: what is missing is told by [`Depacketiser::handle_gap`].
//! After a gap nothing is given out before the next keyframe, so that every frame that is given
//! out can be decoded; but of frames that are opaque everything that is whole is given out, for
//! nobody here can tell what is a keyframe.

mod av1;
mod h264;
mod sps;
mod vp9;

use std::collections::VecDeque;

use crate::engine::codec::{Codec, Size, Vp8Descriptor};

/// Bytes of one frame. A longer one counts as lost: no camera makes such a frame.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// What a decoder must know before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// How big the pictures are.
    pub size: Size,
    /// AV1's `av1C` and H264's `avcC`; empty for VP8 and VP9, which need none.
    pub private: Vec<u8>,
}

/// One frame: a whole picture, or one packet of sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// RTP timestamp.
    pub timestamp: u32,
    /// A decoder can begin here.
    pub is_keyframe: bool,
    /// On keyframes of video, what they begin with.
    pub setup: Option<Setup>,
    /// What the container holds.
    pub data: Vec<u8>,
}

/// One packet in its place in the stream.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker bit: the last packet of a picture (RFC 3551 §4.1).
    pub marker: bool,
    /// The RTP payload.
    pub payload: &'a [u8],
}

/// A payload that no frame can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken;

/// Puts one layer's frames together.
#[derive(Debug)]
pub struct Depacketiser {
    codec: Codec,
    /// Frames are as their sender encrypted them.
    is_opaque: bool,
    /// The picture that is being put together, and its timestamp.
    open: Option<(u32, Picture)>,
    /// The rest of the picture with this timestamp is of no use.
    skipped: Option<u32>,
    /// Nothing can be decoded before the next keyframe.
    needs_keyframe: bool,
    frames: VecDeque<Frame>,
}

/// A picture of which more packets may come.
#[derive(Debug)]
enum Picture {
    Vp8 {
        data: Vec<u8>,
        size: Option<Size>,
        is_keyframe: bool,
    },
    Vp9(vp9::Picture),
    Av1(av1::TemporalUnit),
    H264(h264::AccessUnit),
}

impl Depacketiser {
    /// One for a stream of which nothing has come.
    #[must_use]
    pub fn new(codec: Codec, is_opaque: bool) -> Self {
        Self {
            codec,
            is_opaque,
            open: None,
            skipped: None,
            needs_keyframe: codec != Codec::Opus && !is_opaque,
            frames: VecDeque::new(),
        }
    }

    /// Takes in the next packet.
    pub fn handle_part(&mut self, part: Part<'_>) {
        if part.payload.is_empty() {
            return;
        }
        if self.codec == Codec::Opus {
            self.frames.push_back(Frame {
                timestamp: part.timestamp,
                is_keyframe: true,
                setup: None,
                data: part.payload.to_vec(),
            });
            return;
        }
        if self
            .open
            .as_ref()
            .is_some_and(|(at, _)| *at != part.timestamp)
        {
            self.close();
        }
        if self.skipped == Some(part.timestamp) {
            return;
        }
        self.skipped = None;
        let (_, picture) = self
            .open
            .get_or_insert_with(|| (part.timestamp, Picture::new(self.codec)));
        if picture.push(part.payload).is_err() || picture.bytes() > MAX_FRAME_BYTES {
            self.open = None;
            self.skipped = Some(part.timestamp);
            self.needs_keyframe = !self.is_opaque;
        } else if part.marker {
            self.close();
        }
    }

    /// Packets are missing before the next one.
    pub fn handle_gap(&mut self) {
        if self.codec == Codec::Opus {
            return;
        }
        if let Some((timestamp, _)) = self.open.take() {
            self.skipped = Some(timestamp);
        }
        self.needs_keyframe = !self.is_opaque;
    }

    /// The next frame, in order.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Whether nothing can be decoded before the next keyframe.
    #[must_use]
    pub fn needs_keyframe(&self) -> bool {
        self.needs_keyframe
    }

    /// No more packets of the open picture come.
    fn close(&mut self) {
        let Some((timestamp, picture)) = self.open.take() else {
            return;
        };
        let Some((is_keyframe, setup, data)) = picture.finish() else {
            self.needs_keyframe = !self.is_opaque;
            return;
        };
        let begins = is_keyframe && setup.is_some();
        if self.needs_keyframe && !begins {
            return;
        }
        self.needs_keyframe = false;
        self.frames.push_back(Frame {
            timestamp,
            is_keyframe,
            setup,
            data,
        });
    }
}

impl Picture {
    fn new(codec: Codec) -> Self {
        match codec {
            Codec::Vp9 => Self::Vp9(vp9::Picture::default()),
            Codec::Av1 => Self::Av1(av1::TemporalUnit::default()),
            Codec::H264 => Self::H264(h264::AccessUnit::default()),
            // Sound never comes here.
            Codec::Vp8 | Codec::Opus => Self::Vp8 {
                data: Vec::new(),
                size: None,
                is_keyframe: false,
            },
        }
    }

    fn push(&mut self, payload: &[u8]) -> Result<(), Broken> {
        match self {
            Self::Vp8 {
                data,
                size,
                is_keyframe,
            } => {
                let head = Vp8Descriptor::parse(payload).ok_or(Broken)?;
                if data.is_empty() != head.starts_frame() {
                    return Err(Broken);
                }
                *is_keyframe |= head.starts_keyframe;
                *size = size.or(head.size);
                data.extend_from_slice(&payload[usize::from(head.head_bytes)..]);
                Ok(())
            }
            Self::Vp9(picture) => picture.push(payload),
            Self::Av1(unit) => unit.push(payload),
            Self::H264(unit) => unit.push(payload),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Vp8 { data, .. } => data.len(),
            Self::Vp9(picture) => picture.bytes(),
            Self::Av1(unit) => unit.bytes(),
            Self::H264(unit) => unit.bytes(),
        }
    }

    /// Whether it is a keyframe, what that begins with, and the frame; `None` when it is not whole.
    fn finish(self) -> Option<(bool, Option<Setup>, Vec<u8>)> {
        match self {
            Self::Vp8 {
                data,
                size,
                is_keyframe,
            } => {
                let setup = size.filter(|_| is_keyframe).map(|size| Setup {
                    size,
                    private: Vec::new(),
                });
                (!data.is_empty()).then_some((is_keyframe, setup, data))
            }
            Self::Vp9(picture) => picture.finish(),
            Self::Av1(unit) => unit.finish(),
            Self::H264(unit) => unit.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(timestamp: u32, marker: bool, payload: &[u8]) -> Part<'_> {
        Part {
            timestamp,
            marker,
            payload,
        }
    }

    fn frames(of: &mut Depacketiser) -> Vec<Frame> {
        std::iter::from_fn(|| of.poll_frame()).collect()
    }

    /// A VP8 keyframe of 320 x 240 behind a descriptor of one byte.
    const VP8_KEY: [u8; 12] = [
        0x10, 0x10, 0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xF0, 0x00, 7,
    ];

    #[test]
    fn a_picture_of_two_packets_is_one_frame() {
        let mut vp8 = Depacketiser::new(Codec::Vp8, false);
        vp8.handle_part(part(5, false, &VP8_KEY));
        assert!(vp8.poll_frame().is_none());
        vp8.handle_part(part(5, true, &[0x00, 8, 9]));
        let frame = vp8.poll_frame().unwrap();
        assert_eq!(frame.data, [&VP8_KEY[1..], &[8, 9]].concat());
        assert!(frame.is_keyframe);
        let size = frame.setup.unwrap().size;
        assert_eq!((size.width, size.height), (320, 240));
    }

    #[test]
    fn after_a_gap_only_a_keyframe_goes_on() {
        let mut vp8 = Depacketiser::new(Codec::Vp8, false);
        vp8.handle_part(part(1, true, &[0x10, 0x11, 0]));
        assert_eq!(frames(&mut vp8), [], "nothing to refer to");
        vp8.handle_part(part(2, true, &VP8_KEY));
        vp8.handle_part(part(3, false, &[0x10, 0x11, 0]));
        vp8.handle_gap();
        vp8.handle_part(part(3, true, &[0x00, 1]));
        vp8.handle_part(part(4, true, &[0x10, 0x11, 0]));
        assert!(vp8.needs_keyframe());
        vp8.handle_part(part(5, true, &VP8_KEY));
        vp8.handle_part(part(6, true, &[0x10, 0x11, 0]));
        let stamps: Vec<u32> = frames(&mut vp8).iter().map(|f| f.timestamp).collect();
        assert_eq!(stamps, [2, 5, 6]);
    }

    #[test]
    fn a_picture_without_a_marker_ends_where_the_next_begins() {
        let mut vp8 = Depacketiser::new(Codec::Vp8, false);
        vp8.handle_part(part(2, false, &VP8_KEY));
        vp8.handle_part(part(3, true, &[0x10, 0x11, 0]));
        assert_eq!(frames(&mut vp8).len(), 2);
    }

    #[test]
    fn sound_survives_a_gap_and_padding_is_no_sound() {
        let mut opus = Depacketiser::new(Codec::Opus, false);
        opus.handle_part(part(0, false, &[1, 2]));
        opus.handle_gap();
        opus.handle_part(part(960, false, &[]));
        opus.handle_part(part(1920, false, &[3]));
        let data: Vec<Vec<u8>> = frames(&mut opus).into_iter().map(|f| f.data).collect();
        assert_eq!(data, [vec![1, 2], vec![3]]);
    }

    #[test]
    fn of_encrypted_frames_every_whole_one_is_given_out() {
        let mut vp8 = Depacketiser::new(Codec::Vp8, true);
        vp8.handle_part(part(1, true, &[0x10, 0xFF, 1]));
        vp8.handle_part(part(2, false, &[0x10, 0xFF, 2]));
        vp8.handle_gap();
        vp8.handle_part(part(2, true, &[0x00, 3]));
        vp8.handle_part(part(3, false, &[0x10, 0xFF, 4]));
        vp8.handle_part(part(3, true, &[0x00, 5]));
        assert!(!vp8.needs_keyframe());
        let data: Vec<Vec<u8>> = frames(&mut vp8).into_iter().map(|f| f.data).collect();
        assert_eq!(data, [vec![0xFF, 1], vec![0xFF, 4, 5]]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_frames_stay_in_order(
            parts in prop::collection::vec(
                (0..4u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40), 0..8u8),
                0..40,
            ),
        ) {
            for codec in Codec::ALL {
                let mut depacketiser = Depacketiser::new(codec, false);
                let mut at = 0;
                let mut fed = 0;
                let mut given = 0;
                let mut last = None;
                for (step, marker, payload, gap) in &parts {
                    at += step;
                    fed += payload.len();
                    if *gap == 0 {
                        depacketiser.handle_gap();
                    }
                    depacketiser.handle_part(part(at, *marker, payload));
                    for frame in frames(&mut depacketiser) {
                        prop_assert!(last <= Some(frame.timestamp));
                        last = Some(frame.timestamp);
                        given += frame.data.len();
                    }
                }
                prop_assert!(given <= fed * 8 + 64, "{codec:?} gives {given} of {fed}");
            }
        }

        #[test]
        fn what_h264_and_av1_take_in_is_given_out(
            units in prop::collection::vec(prop::collection::vec(any::<u8>(), 3..60), 1..5),
        ) {
            let mut h264 = Depacketiser::new(Codec::H264, false);
            h264.needs_keyframe = false;
            let mut expected = Vec::new();
            for (index, unit) in units.iter().enumerate() {
                let nal = [&[0x41], unit.as_slice()].concat();
                expected.extend((nal.len() as u32).to_be_bytes());
                expected.extend(&nal);
                // In two fragments (RFC 6184 §5.8).
                let (head, tail) = unit.split_at(unit.len() / 2);
                h264.handle_part(part(1, false, &[&[0x5C, 0x81], head].concat()));
                let is_last = index + 1 == units.len();
                h264.handle_part(part(1, is_last, &[&[0x5C, 0x41], tail].concat()));
            }
            prop_assert_eq!(h264.poll_frame().unwrap().data, expected);

            let mut av1 = Depacketiser::new(Codec::Av1, false);
            av1.needs_keyframe = false;
            let mut expected = Vec::new();
            for (index, unit) in units.iter().enumerate() {
                // A frame OBU without a size field; in the container it has one.
                expected.extend([0x32, unit.len() as u8]);
                expected.extend(unit);
                let (head, tail) = unit.split_at(unit.len() / 2);
                av1.handle_part(part(1, false, &[&[0x50, 0x30], head].concat()));
                let is_last = index + 1 == units.len();
                av1.handle_part(part(1, is_last, &[&[0x90], tail].concat()));
            }
            prop_assert_eq!(av1.poll_frame().unwrap().data, expected);
        }
    }
}
