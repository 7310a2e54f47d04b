//! The VP8 payload descriptor (RFC 7741 §4.2) and the numbers in it that forwarding rewrites.

use str0m::rtp::Vp8Patch;

use super::Size;

/// What the VP8 payload descriptor says. Valid for the payload it was parsed from.
#[derive(Debug, Clone, Copy)]
pub struct Vp8Descriptor {
    /// How long the descriptor is.
    pub head_bytes: u8,
    /// N: no other picture refers to this one.
    pub non_reference: bool,
    /// S: a VP8 partition begins with this payload.
    pub starts_partition: bool,
    /// PID: which partition, 0 to 7.
    pub partition: u8,
    /// Counts pictures.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX: counts pictures of temporal layer 0.
    pub tl0_pic_idx: Option<u8>,
    /// TID: 0 is the base.
    pub temporal_layer: Option<u8>,
    /// Y: the picture refers only to temporal layer 0, so a receiver can enter its layer here.
    pub layer_sync: bool,
    /// KEYIDX: counts keyframes, 5 bits.
    pub key_idx: Option<u8>,
    /// The payload begins a keyframe: S, PID 0, and P clear in the VP8 payload header.
    pub starts_keyframe: bool,
    /// How big the pictures are from this keyframe on.
    pub size: Option<Size>,
    /// str0m's view of the same bytes: it alone can build the patch its packetizer takes.
    stock: str0m::rtp::Vp8Descriptor,
}

/// A VP8 picture number and how wide it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureId {
    /// The number, below `2^bits`.
    pub value: u16,
    /// 7 or 15.
    pub bits: u8,
}

impl PictureId {
    /// The number nearest to `near` that has these low bits.
    #[must_use]
    pub fn nearest(self, near: u64) -> u64 {
        let circle = 1u64 << self.bits;
        let up = u64::from(self.value).wrapping_sub(near) & (circle - 1);
        if up < circle / 2 {
            near.wrapping_add(up)
        } else {
            near.wrapping_add(up).wrapping_sub(circle)
        }
    }
}

/// The numbers of one VP8 packet that are rewritten on their way to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vp8Numbers {
    /// 15 bits; a descriptor with room for 7 carries the low 7.
    pub picture_id: Option<u16>,
    /// Counts pictures of temporal layer 0.
    pub tl0_pic_idx: Option<u8>,
}

impl Vp8Descriptor {
    /// Reads the descriptor at the head of an RTP payload. `None` when it is cut short, nothing
    /// follows it, or it has a TL0PICIDX but no TID (RFC 7741 §4.2 forbids that).
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let stock = str0m::rtp::Vp8Descriptor::parse(payload).ok()?;
        let (&required, mut rest) = payload.split_first()?;
        let mut next = || {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            Some(byte)
        };
        let extension = if required & 0x80 == 0 { 0 } else { next()? };
        let has = |bit: u8| extension & bit != 0;
        if has(0x40) && !has(0x20) {
            return None;
        }

        let mut picture_id = None;
        if has(0x80) {
            let high = next()?;
            picture_id = Some(if high & 0x80 == 0 {
                PictureId {
                    value: u16::from(high),
                    bits: 7,
                }
            } else {
                PictureId {
                    value: u16::from_be_bytes([high & 0x7F, next()?]),
                    bits: 15,
                }
            });
        }
        let tl0_pic_idx = if has(0x40) { Some(next()?) } else { None };
        let tail = if has(0x20) || has(0x10) { next()? } else { 0 };

        let starts_partition = required & 0x10 != 0;
        let partition = required & 0x07;
        let header = rest.first()?;
        let starts_keyframe = starts_partition && partition == 0 && header & 0x01 == 0;
        Some(Self {
            head_bytes: (payload.len() - rest.len()) as u8,
            non_reference: required & 0x20 != 0,
            starts_partition,
            partition,
            picture_id,
            tl0_pic_idx,
            temporal_layer: has(0x20).then_some(tail >> 6),
            layer_sync: has(0x20) && tail & 0x20 != 0,
            key_idx: has(0x10).then_some(tail & 0x1F),
            starts_keyframe,
            size: if starts_keyframe { size(rest) } else { None },
            stock,
        })
    }

    /// A picture begins with this payload.
    #[must_use]
    pub const fn starts_frame(&self) -> bool {
        self.starts_partition && self.partition == 0
    }

    /// What str0m must change in a copy of the payload so that it carries `numbers`. Numbers the
    /// descriptor has no field for are left out; KEYIDX, which receivers ignore, is left alone.
    #[must_use]
    pub fn patch(&self, numbers: Vp8Numbers) -> Vp8Patch {
        let mut patch = self.stock.patch();
        if let (Some(field), Some(number)) = (self.picture_id, numbers.picture_id) {
            patch = patch.picture_id(number & ((1 << field.bits) - 1));
        }
        if let (Some(_), Some(number)) = (self.tl0_pic_idx, numbers.tl0_pic_idx) {
            patch = patch.tl0_pic_idx(number);
        }
        patch
            .build()
            .expect("only fields the descriptor has are set, each masked to its width")
    }
}

/// Width and height of a keyframe (RFC 6386 §9.1): after the frame tag and the start code, 14 bits
/// each, little end first; the two bits above them ask the receiver to scale.
fn size(keyframe: &[u8]) -> Option<Size> {
    let &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1, ..] = keyframe else {
        return None;
    };
    Some(Size {
        width: u16::from_le_bytes([w0, w1]) & 0x3FFF,
        height: u16::from_le_bytes([h0, h1]) & 0x3FFF,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bare_descriptor_has_no_numbers() {
        let d = Vp8Descriptor::parse(&[0x10, 0x00]).unwrap();
        assert!(d.starts_keyframe && d.starts_frame() && !d.non_reference);
        assert_eq!((d.picture_id, d.tl0_pic_idx), (None, None));
        assert_eq!((d.temporal_layer, d.key_idx), (None, None));
    }

    #[test]
    fn a_full_descriptor_gives_every_field() {
        let d = Vp8Descriptor::parse(&[0xB0, 0xF0, 0x92, 0x34, 0x56, 0x6B, 0x01]).unwrap();
        assert_eq!(
            d.picture_id,
            Some(PictureId {
                value: 0x1234,
                bits: 15
            })
        );
        assert_eq!(d.tl0_pic_idx, Some(0x56));
        assert_eq!(d.temporal_layer, Some(1));
        assert!(d.layer_sync && d.non_reference && d.starts_frame());
        assert_eq!(d.key_idx, Some(0x0B));
        assert!(!d.starts_keyframe, "P is set in the payload header");
    }

    #[test]
    fn a_short_picture_id_has_seven_bits() {
        let d = Vp8Descriptor::parse(&[0x80, 0x80, 0x7F, 0x00]).unwrap();
        assert_eq!(
            d.picture_id,
            Some(PictureId {
                value: 0x7F,
                bits: 7
            })
        );
        assert!(!d.starts_keyframe, "no partition starts here");
    }

    #[test]
    fn only_the_first_partition_starts_a_keyframe() {
        assert!(!Vp8Descriptor::parse(&[0x11, 0x00]).unwrap().starts_keyframe);
        assert!(!Vp8Descriptor::parse(&[0x00, 0x00]).unwrap().starts_keyframe);
    }

    #[test]
    fn a_descriptor_that_is_cut_short_or_illegal_is_none() {
        let full = [0xB0, 0xF0, 0x92, 0x34, 0x56, 0x6B];
        for len in 0..=full.len() {
            assert!(Vp8Descriptor::parse(&full[..len]).is_none(), "{len} bytes");
        }
        assert!(Vp8Descriptor::parse(&[0x90, 0x40, 1, 2, 3]).is_none());
    }

    proptest! {
        #[test]
        fn we_and_str0m_read_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let stock = str0m::rtp::Vp8Descriptor::parse(&bytes);
            let ours = Vp8Descriptor::parse(&bytes);
            prop_assert_eq!(ours.is_some(), stock.is_ok());
            if let (Some(ours), Ok(stock)) = (ours, stock) {
                prop_assert_eq!(ours.picture_id.map(|p| p.value), stock.picture_id());
                prop_assert_eq!(ours.tl0_pic_idx, stock.tl0_pic_idx());
                prop_assert_eq!(ours.key_idx, stock.key_idx());
                prop_assert_eq!(ours.starts_keyframe, stock.starts_keyframe(&bytes));
            }
        }

        #[test]
        fn any_numbers_can_be_patched_in(
            bytes in proptest::collection::vec(any::<u8>(), 0..12),
            picture_id in proptest::option::of(any::<u16>()),
            tl0_pic_idx in proptest::option::of(any::<u8>()),
        ) {
            if let Some(descriptor) = Vp8Descriptor::parse(&bytes) {
                let _ = descriptor.patch(Vp8Numbers { picture_id, tl0_pic_idx });
            }
        }
    }

    #[test]
    fn a_long_number_is_cut_to_a_short_field() {
        let d = Vp8Descriptor::parse(&[0x90, 0x80, 0x05, 0x00]).unwrap();
        let numbers = |n| Vp8Numbers {
            picture_id: Some(n),
            tl0_pic_idx: Some(3),
        };
        assert_eq!(d.patch(numbers(0x1234)), d.patch(numbers(0x34)));
        assert_ne!(d.patch(numbers(0x34)), d.patch(numbers(0x35)));
    }

    #[test]
    fn a_keyframe_says_how_big_the_pictures_are() {
        let key = |start: u8| {
            [
                0x10, 0x10, 0, 0, start, 0x01, 0x2A, 0x00, 0x45, 0xD0, 0x02, 9,
            ]
        };
        let size = Vp8Descriptor::parse(&key(0x9D)).unwrap().size;
        let expected = Size {
            width: 1280,
            height: 720,
        };
        assert_eq!(size, Some(expected), "the scaling bits are no pixels");
        assert_eq!(Vp8Descriptor::parse(&key(0x9E)).unwrap().size, None);
        let mut delta = key(0x9D);
        delta[1] |= 1;
        assert_eq!(Vp8Descriptor::parse(&delta).unwrap().size, None);
        assert_eq!(Vp8Descriptor::parse(&key(0x9D)[..10]).unwrap().size, None);
    }
}
