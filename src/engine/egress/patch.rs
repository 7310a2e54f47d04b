//! What differs from viewer to viewer in a packet: the head of its payload, or how its frame is
//! described.

use crate::engine::codec::{Vp8Descriptor, Vp8Numbers};

/// The first bytes of a payload as one viewer must see them; as many bytes as it replaces. Or the
/// number of its frame, and whether that ends a picture: no payload needs both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadPatch {
    /// How many bytes are replaced, or [`Self::FRAME`] or [`Self::LAST_FRAME`].
    len: u8,
    bytes: [u8; Self::MAX_BYTES],
}

impl HeadPatch {
    /// Up to the end of TL0PICIDX in a VP8 descriptor with a 15-bit picture id (RFC 7741 §4.2).
    const MAX_BYTES: usize = 5;

    /// Its bytes are the number of a frame.
    const FRAME: u8 = 0x80;

    /// Likewise, and the frame is the last of its picture.
    const LAST_FRAME: u8 = 0x81;

    /// Changes nothing.
    pub const NONE: Self = Self {
        len: 0,
        bytes: [0; Self::MAX_BYTES],
    };

    /// Puts `numbers` into a VP8 payload whose descriptor is `descriptor`. Numbers that the
    /// descriptor has no field for are left out.
    #[must_use]
    pub fn vp8(payload: &[u8], descriptor: &Vp8Descriptor, numbers: Vp8Numbers) -> Self {
        let mut patch = Self::NONE;
        // RFC 7741 §4.2: two bytes of flags, then the picture id, then TL0PICIDX.
        let mut at = 2;
        if let Some(field) = descriptor.picture_id {
            let wide = field.bits == 15;
            match (numbers.picture_id, wide) {
                (Some(id), true) => {
                    patch.copy(payload, at);
                    patch.put(&(id | 0x8000).to_be_bytes());
                }
                (Some(id), false) => {
                    patch.copy(payload, at);
                    patch.put(&[id as u8 & 0x7f]);
                }
                (None, _) => {}
            }
            at += if wide { 2 } else { 1 };
        }
        if let (Some(_), Some(index)) = (descriptor.tl0_pic_idx, numbers.tl0_pic_idx) {
            patch.copy(payload, at);
            patch.put(&[index]);
        }
        patch
    }

    /// Gives a frame this number in its dependency descriptor, and its packet the marker bit if it
    /// ends a picture.
    #[must_use]
    pub fn frame(number: u16, ends_picture: bool) -> Self {
        let [high, low] = number.to_be_bytes();
        Self {
            len: if ends_picture {
                Self::LAST_FRAME
            } else {
                Self::FRAME
            },
            bytes: [high, low, 0, 0, 0],
        }
    }

    /// The number of its frame, if it has another one for this viewer.
    #[must_use]
    pub fn frame_number(&self) -> Option<u16> {
        let [high, low, ..] = self.bytes;
        (self.len >= Self::FRAME).then_some(u16::from_be_bytes([high, low]))
    }

    /// Whether the packet has the marker bit, whatever its publisher says.
    #[must_use]
    pub fn sets_marker(&self) -> bool {
        self.len == Self::LAST_FRAME
    }

    /// Takes over the payload up to `end`.
    fn copy(&mut self, payload: &[u8], end: usize) {
        let from = usize::from(self.len);
        self.bytes[from..end].copy_from_slice(&payload[from..end]);
        self.len = end as u8;
    }

    fn put(&mut self, field: &[u8]) {
        let from = usize::from(self.len);
        self.bytes[from..from + field.len()].copy_from_slice(field);
        self.len += field.len() as u8;
    }

    pub(in crate::engine) fn apply(&self, payload: &mut [u8]) {
        if self.len >= Self::FRAME {
            return;
        }
        let len = usize::from(self.len).min(payload.len());
        payload[..len].copy_from_slice(&self.bytes[..len]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_patched_vp8_payload_has_the_numbers_asked_for(
            bytes in prop::collection::vec(any::<u8>(), 0..12),
            picture_id in prop::option::of(0_u16..0x8000),
            tl0_pic_idx in prop::option::of(any::<u8>()),
        ) {
            let Some(before) = Vp8Descriptor::parse(&bytes) else {
                return Ok(());
            };
            let numbers = Vp8Numbers { picture_id, tl0_pic_idx };
            let mut patched = bytes.clone();
            HeadPatch::vp8(&bytes, &before, numbers).apply(&mut patched);
            let after = Vp8Descriptor::parse(&patched).expect("still a descriptor");
            let id = before.picture_id.map(|field| {
                picture_id.map_or(field.value, |id| id & ((1 << field.bits) - 1))
            });
            prop_assert_eq!(after.picture_id.map(|field| field.value), id);
            prop_assert_eq!(
                after.picture_id.map(|field| field.bits),
                before.picture_id.map(|field| field.bits)
            );
            let index = before.tl0_pic_idx.map(|old| tl0_pic_idx.unwrap_or(old));
            prop_assert_eq!(after.tl0_pic_idx, index);
            let changed = bytes.iter().zip(&patched).skip(5).any(|(old, new)| old != new);
            prop_assert!(!changed, "nothing behind TL0PICIDX changes");
        }
    }
}
