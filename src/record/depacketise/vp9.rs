//! VP9 (RFC 9628): the frames of a picture's spatial layers become one superframe.

use super::{Broken, Setup};
use crate::engine::codec::Size;
use crate::engine::codec::bits::Bits;
use crate::engine::codec::vp9::Vp9Descriptor;

/// Frames of one superframe (VP9 bitstream specification, annex B).
const MAX_LAYERS: usize = 8;

/// One picture: a frame of each spatial layer.
#[derive(Debug, Default)]
pub(super) struct Picture {
    data: Vec<u8>,
    /// Where each layer's frame ends.
    ends: Vec<usize>,
    is_open: bool,
    is_keyframe: bool,
    size: Option<Size>,
}

impl Picture {
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let head = Vp9Descriptor::parse(payload).ok_or(Broken)?;
        if head.starts_frame == self.is_open || self.ends.len() == MAX_LAYERS {
            return Err(Broken);
        }
        if self.data.is_empty() {
            self.is_keyframe = head.starts_keyframe();
        }
        self.is_open = !head.ends_frame;
        let body = &payload[head.head_bytes..];
        let sizes = head.sizes.into_iter().flatten();
        let told = sizes.max_by_key(|size| size.pixels());
        if self.data.is_empty() && self.is_keyframe {
            let of_structure = told.filter(|size| size.pixels() > 0);
            self.size = of_structure.or_else(|| keyframe_size(body));
        }
        self.data.extend_from_slice(body);
        if head.ends_frame {
            self.ends.push(self.data.len());
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(super) fn finish(mut self) -> Option<(bool, Option<Setup>, Vec<u8>)> {
        if self.is_open || self.data.is_empty() {
            return None;
        }
        if self.ends.len() > 1 {
            self.append_index();
        }
        let setup = self.size.map(|size| Setup {
            size,
            private: Vec::new(),
        });
        Some((self.is_keyframe, setup, self.data))
    }

    /// The superframe index (annex B): a marker, the sizes of the frames in 4 bytes each with the
    /// lowest first, the marker again.
    fn append_index(&mut self) {
        let frames = self.ends.len() as u8;
        let marker = 0xC0 | 3 << 3 | (frames - 1);
        self.data.push(marker);
        let mut begin = 0;
        for end in &self.ends {
            let bytes = (end - begin) as u32;
            self.data.extend(bytes.to_le_bytes());
            begin = *end;
        }
        self.data.push(marker);
    }
}

/// The size in the uncompressed header of a keyframe (§6.2).
fn keyframe_size(frame: &[u8]) -> Option<Size> {
    const SYNC_CODE: u32 = 0x49_8342;
    const SRGB: u32 = 7;
    let mut bits = Bits::new(frame);
    if bits.read(2)? != 2 {
        return None;
    }
    let profile = bits.read(1)? | bits.read(1)? << 1;
    if profile == 3 {
        bits.read(1)?;
    }
    // show_existing_frame, frame_type: 0 is a keyframe.
    if bits.flag()? || bits.flag()? {
        return None;
    }
    bits.read(2)?;
    if bits.read(24)? != SYNC_CODE {
        return None;
    }
    if profile >= 2 {
        bits.read(1)?;
    }
    let has_chroma_bits = profile == 1 || profile == 3;
    if bits.read(3)? != SRGB {
        bits.read(if has_chroma_bits { 4 } else { 1 })?;
    } else if has_chroma_bits {
        bits.read(1)?;
    }
    let mut side = || u16::try_from(bits.read(16)? + 1).ok();
    Some(Size {
        width: side()?,
        height: side()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyframe of 320 x 180, profile 0: marker, profile, not existing, key, shown, sync code.
    const KEY: [u8; 9] = [0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xF0, 0x0B, 0x30];

    #[test]
    fn a_keyframe_says_how_big_it_is() {
        let size = keyframe_size(&KEY).unwrap();
        assert_eq!((size.width, size.height), (320, 180));
        assert!((0..KEY.len() - 1).all(|end| keyframe_size(&KEY[..end]).is_none()));
    }

    #[test]
    fn spatial_layers_become_a_superframe_with_an_index() {
        let mut picture = Picture::default();
        // L, F, B, E; layer 0, then layer 1 that refers to it.
        picture
            .push(&[&[0x3C, 0x00], KEY.as_slice()].concat())
            .unwrap();
        picture.push(&[0x3C, 0x03, 5, 6, 7]).unwrap();
        let (is_keyframe, setup, data) = picture.finish().unwrap();
        assert!(is_keyframe && setup.is_some());
        let index = [0xD9, 9, 0, 0, 0, 3, 0, 0, 0, 0xD9];
        assert_eq!(data, [KEY.as_slice(), &[5, 6, 7], &index].concat());
    }

    #[test]
    fn a_frame_that_does_not_begin_or_end_is_broken() {
        assert_eq!(Picture::default().push(&[0x04, 1]), Err(Broken));
        let mut picture = Picture::default();
        picture.push(&[0x08, 1]).unwrap();
        assert!(picture.finish().is_none());
    }
}
