//! The VP9 payload descriptor (RFC 9628 §4.2), without what only decoders need.

use super::vp8::PictureId;
use super::{SPATIAL_LAYERS, Size, Sizes};

/// What the VP9 payload descriptor says. Reference indices and pictures of a group are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// How long the descriptor is.
    pub head_bytes: usize,
    /// I: counts pictures.
    pub picture_id: Option<PictureId>,
    /// P: the picture refers to an earlier one.
    pub inter_predicted: bool,
    /// F: references are written out in each packet.
    pub flexible: bool,
    /// B: a frame (one spatial layer of a picture) begins with this payload.
    pub starts_frame: bool,
    /// E: a frame ends with this payload.
    pub ends_frame: bool,
    /// V: the payload carries a scalability structure, of a stream of so many spatial layers.
    pub structure: Option<u8>,
    /// L: which layer it is.
    pub layers: Option<Layers>,
    /// How big the pictures of each spatial layer are, when the structure says so.
    pub sizes: Option<Sizes>,
}

/// Layer indices of one VP9 frame (RFC 9628 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// TID: 0 is the base.
    pub temporal: u8,
    /// U: a receiver can go up in temporal layers from here.
    pub switching_up: bool,
    /// SID: 0 is the base.
    pub spatial: u8,
    /// D: the frame refers to the next lower spatial layer of the same picture.
    pub inter_layer: bool,
    /// Counts pictures of temporal layer 0; absent in flexible mode.
    pub tl0_pic_idx: Option<u8>,
}

impl Vp9Descriptor {
    /// Reads the descriptor at the head of an RTP payload; `None` when it is cut short or nothing
    /// follows it.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&required, mut rest) = payload.split_first()?;
        let mut next = || {
            let (&byte, tail) = rest.split_first()?;
            rest = tail;
            Some(byte)
        };
        let has = |bit: u8| required & bit != 0;
        let flexible = has(0x10);

        let mut picture_id = None;
        if has(0x80) {
            let high = next()?;
            picture_id = Some(if high & 0x80 == 0 {
                let value = high.into();
                PictureId { value, bits: 7 }
            } else {
                let value = u16::from_be_bytes([high & 0x7F, next()?]);
                PictureId { value, bits: 15 }
            });
        }
        let mut layers = None;
        if has(0x20) {
            let indices = next()?;
            layers = Some(Layers {
                temporal: indices >> 5,
                switching_up: indices & 0x10 != 0,
                spatial: indices >> 1 & 0x07,
                inter_layer: indices & 0x01 != 0,
                tl0_pic_idx: if flexible { None } else { Some(next()?) },
            });
        }
        let inter_predicted = has(0x40);
        if flexible && inter_predicted {
            // Up to three P_DIFF, each with N when another follows.
            for _ in 0..3 {
                if next()? & 0x01 == 0 {
                    break;
                }
            }
        }
        let (structure, sizes) = if has(0x02) {
            let (layers, sizes) = structure(&mut rest)?;
            (Some(layers), sizes)
        } else {
            (None, None)
        };
        if rest.is_empty() {
            return None;
        }
        Some(Self {
            head_bytes: payload.len() - rest.len(),
            sizes,
            picture_id,
            inter_predicted,
            flexible,
            starts_frame: has(0x08),
            ends_frame: has(0x04),
            structure,
            layers,
        })
    }

    /// A decoder can begin here: the base layer's frame of a picture that refers to none before.
    #[must_use]
    pub fn starts_keyframe(&self) -> bool {
        let is_base = self.layers.is_none_or(|l| l.spatial == 0 && !l.inter_layer);
        self.starts_frame && !self.inter_predicted && is_base
    }
}

/// Reads a scalability structure (RFC 9628 §4.2.1) off `rest`; gives how many spatial layers there
/// are, and their sizes if it has them. `None` when it is cut short.
fn structure(rest: &mut &[u8]) -> Option<(u8, Option<Sizes>)> {
    let (&head, mut tail) = rest.split_first()?;
    let layers = (head >> 5) + 1;
    let mut sizes = None;
    if head & 0x10 != 0 {
        let (list, after) = tail.split_at_checked(usize::from(layers) * 4)?;
        let mut read = [Size::default(); SPATIAL_LAYERS];
        for (size, bytes) in read.iter_mut().zip(list.chunks_exact(4)) {
            size.width = u16::from_be_bytes([bytes[0], bytes[1]]);
            size.height = u16::from_be_bytes([bytes[2], bytes[3]]);
        }
        (sizes, tail) = (Some(read), after);
    }
    if head & 0x08 != 0 {
        let (&pictures, after) = tail.split_first()?;
        tail = after;
        for _ in 0..pictures {
            let (&picture, after) = tail.split_first()?;
            let references = usize::from(picture >> 2 & 0x03);
            tail = after.split_at_checked(references)?.1;
        }
    }
    *rest = tail;
    Some((layers, sizes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_starts_at_the_base_layer_only() {
        // Bytes of the payload, and whether a keyframe starts there.
        let table: [(&[u8], bool); 7] = [
            (&[0x8A, 0x81, 0x02, 0x00, 0x00], true),  // I B V, no layers
            (&[0x82, 0x81, 0x02, 0x00, 0x00], false), // not the beginning
            (&[0xC8, 0x81, 0x02, 0x00], false),       // P
            (&[0xA8, 0x05, 0x00, 0x07, 0x00], true),  // SID 0
            (&[0xA8, 0x05, 0x02, 0x07, 0x00], false), // SID 1, D clear
            (&[0xA8, 0x05, 0x03, 0x07, 0x00], false), // SID 1, D set
            (&[0x08, 0x00], true),                    // nothing but B
        ];
        for (bytes, starts) in table {
            let descriptor = Vp9Descriptor::parse(bytes).unwrap();
            assert_eq!(descriptor.starts_keyframe(), starts, "{bytes:02x?}");
        }
    }

    #[test]
    fn every_field_is_read() {
        let d = Vp9Descriptor::parse(&[0xEE, 0x92, 0x34, 0x55, 0x66, 0x00, 0x00]).unwrap();
        let id = PictureId {
            value: 0x1234,
            bits: 15,
        };
        assert_eq!(d.picture_id, Some(id));
        assert!(d.inter_predicted && d.starts_frame && d.ends_frame && d.structure == Some(1));
        assert_eq!(
            d.layers,
            Some(Layers {
                temporal: 2,
                switching_up: true,
                spatial: 2,
                inter_layer: true,
                tl0_pic_idx: Some(0x66),
            })
        );
    }

    #[test]
    fn flexible_mode_has_no_tl0_pic_idx() {
        let d = Vp9Descriptor::parse(&[0x38, 0x40, 0x00]).unwrap();
        assert!(d.flexible);
        assert_eq!(d.layers.unwrap().tl0_pic_idx, None);
    }

    #[test]
    fn a_descriptor_that_is_cut_short_is_none() {
        let full = [
            0xBA, 0x92, 0x34, 0x03, 0x18, 1, 64, 0, 180, 2, 0x01, 0x04, 7, 0xAA,
        ];
        assert!(Vp9Descriptor::parse(&full).is_some());
        for len in 0..full.len() {
            assert_eq!(Vp9Descriptor::parse(&full[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn sizes_come_with_the_structure_that_has_them() {
        let none = Size::default();
        let size = |width, height| Size { width, height };
        // N_S 2 with sizes and pictures of a group, of which the second has a reference.
        let three = [
            0xAA, 0x05, 0x00, 0x07, 0x58, 1, 64, 0, 180, 2, 128, 1, 104, 5, 0, 2, 208, 2, 0x01,
            0x04, 7, 0xAA,
        ];
        let sizes = Vp9Descriptor::parse(&three).unwrap().sizes.unwrap();
        assert_eq!(
            sizes,
            [size(320, 180), size(640, 360), size(1280, 720), none]
        );
        let without = Vp9Descriptor::parse(&[0x8A, 0x05, 0x40, 0xAA]).unwrap();
        assert!(without.structure == Some(3) && without.sizes.is_none());
        // Five layers: what is past the limit is left out.
        let mut five = vec![0x8A, 0x05, 0x90];
        five.extend((0..5).flat_map(|n| [0, n, 0, n]));
        five.push(0xAA);
        let sizes = Vp9Descriptor::parse(&five).unwrap().sizes.unwrap();
        assert_eq!(sizes, [size(0, 0), size(1, 1), size(2, 2), size(3, 3)]);
        // In flexible mode references come before it, each with a bit for the next.
        let flexible = [0xFA, 0x05, 0x00, 0x03, 0x03, 0x05, 0x10, 0, 8, 0, 6, 0xAA];
        let sizes = Vp9Descriptor::parse(&flexible).unwrap().sizes.unwrap();
        assert_eq!(sizes[0], size(8, 6));
    }
}
