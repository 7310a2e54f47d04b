//! H264 (RFC 6184): NAL units put together to access units, each behind its length.

use super::{Broken, Setup};
use crate::engine::codec::Size;
use crate::engine::codec::bits::Bits;

/// NAL unit types of ITU-T H.264 table 7-1 and payload types of RFC 6184 table 1.
const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const ACCESS_UNIT_DELIMITER: u8 = 9;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Parameter sets of one access unit. More than a stream needs are left out.
const MAX_PARAMETER_SETS: usize = 8;

/// One picture.
#[derive(Debug, Default)]
pub(super) struct AccessUnit {
    /// Its NAL units, each behind its length in 4 bytes, without parameter sets.
    data: Vec<u8>,
    /// The NAL unit of which more fragments come.
    open: Vec<u8>,
    is_keyframe: bool,
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl AccessUnit {
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let (&head, body) = payload.split_first().ok_or(Broken)?;
        let kind = head & 0x1F;
        if kind != FU_A && !self.open.is_empty() {
            return Err(Broken);
        }
        match kind {
            1..=23 => self.append(payload),
            STAP_A => self.append_several(body),
            FU_A => self.append_fragment(head, body),
            _ => Err(Broken),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.open.len()
    }

    pub(super) fn finish(self) -> Option<(bool, Option<Setup>, Vec<u8>)> {
        if !self.open.is_empty() || self.data.is_empty() {
            return None;
        }
        let setup = self.setup();
        Some((self.is_keyframe, setup, self.data))
    }

    /// RFC 6184 §5.7.1: each unit behind its length in 2 bytes.
    fn append_several(&mut self, mut body: &[u8]) -> Result<(), Broken> {
        while let Some((size, rest)) = body.split_first_chunk::<2>() {
            let size = usize::from(u16::from_be_bytes(*size));
            let (unit, rest) = rest.split_at_checked(size).ok_or(Broken)?;
            if !unit.is_empty() {
                self.append(unit)?;
            }
            body = rest;
        }
        Ok(())
    }

    /// RFC 6184 §5.8.
    fn append_fragment(&mut self, indicator: u8, body: &[u8]) -> Result<(), Broken> {
        let (&fragment, body) = body.split_first().ok_or(Broken)?;
        let (is_first, is_last) = (fragment & 0x80 != 0, fragment & 0x40 != 0);
        if is_first != self.open.is_empty() {
            return Err(Broken);
        }
        if is_first {
            self.open.push(indicator & 0xE0 | fragment & 0x1F);
        }
        self.open.extend_from_slice(body);
        if is_last {
            let unit = std::mem::take(&mut self.open);
            self.append(&unit)?;
        }
        Ok(())
    }

    fn append(&mut self, unit: &[u8]) -> Result<(), Broken> {
        let kind = unit.first().ok_or(Broken)? & 0x1F;
        let sets = match kind {
            SPS => Some(&mut self.sps),
            PPS => Some(&mut self.pps),
            _ => None,
        };
        if let Some(sets) = sets {
            let is_new = !sets.iter().any(|set| set == unit);
            if is_new && sets.len() < MAX_PARAMETER_SETS && unit.len() <= usize::from(u16::MAX) {
                sets.push(unit.to_vec());
            }
            return Ok(());
        }
        if matches!(kind, ACCESS_UNIT_DELIMITER | FILLER) {
            return Ok(());
        }
        self.is_keyframe |= kind == IDR_SLICE;
        let bytes = u32::try_from(unit.len()).map_err(|_| Broken)?;
        self.data.extend(bytes.to_be_bytes());
        self.data.extend_from_slice(unit);
        Ok(())
    }

    /// `avcC` (ISO/IEC 14496-15 §5.3.3), of a keyframe that has all it needs.
    fn setup(&self) -> Option<Setup> {
        let first = self.sps.first().filter(|_| self.is_keyframe)?;
        self.pps.first()?;
        let size = picture_size(first)?;
        let mut private = vec![1];
        private.extend_from_slice(first.get(1..4)?);
        // Lengths of 4 bytes, then how many sets there are.
        private.extend([0xFF, 0xE0 | self.sps.len() as u8]);
        append_sets(&mut private, &self.sps);
        private.push(self.pps.len() as u8);
        append_sets(&mut private, &self.pps);
        Some(Setup { size, private })
    }
}

fn append_sets(out: &mut Vec<u8>, sets: &[Vec<u8>]) {
    for set in sets {
        out.extend((set.len() as u16).to_be_bytes());
        out.extend_from_slice(set);
    }
}

/// Profiles whose SPS says how colours are sampled (H.264 §7.3.2.1.1).
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// The size of the pictures of an SPS (§7.3.2.1.1), without what is cropped.
fn picture_size(sps: &[u8]) -> Option<Size> {
    let raw = without_emulation_prevention(sps.get(1..)?);
    let mut bits = Bits::new(&raw);
    let profile = bits.read(8)?;
    bits.read(16)?;
    bits.exp_golomb()?;
    let mut chroma = 1;
    if HIGH_PROFILES.contains(&profile) {
        chroma = bits.exp_golomb()?;
        skip_high_profile(&mut bits, chroma)?;
    }
    bits.exp_golomb()?;
    skip_order_count(&mut bits)?;
    bits.exp_golomb()?;
    bits.read(1)?;
    let (across, down) = (bits.exp_golomb()?, bits.exp_golomb()?);
    let fields = if bits.flag()? { 1 } else { 2 };
    if fields == 2 {
        bits.read(1)?;
    }
    bits.read(1)?;
    let mut cropped = (0, 0);
    if bits.flag()? {
        let mut sum = || bits.exp_golomb()?.checked_add(bits.exp_golomb()?);
        cropped = (sum()?, sum()?);
    }
    let unit = (
        if matches!(chroma, 1 | 2) { 2 } else { 1 },
        if chroma == 1 { 2 * fields } else { fields },
    );
    let side = |blocks: u32, fields: u32, cropped: u32, unit: u32| {
        let pixels = blocks.checked_add(1)?.checked_mul(16 * fields)?;
        let side = pixels.checked_sub(cropped.checked_mul(unit)?)?;
        u16::try_from(side).ok().filter(|side| *side > 0)
    };
    Some(Size {
        width: side(across, 1, cropped.0, unit.0)?,
        height: side(down, fields, cropped.1, unit.1)?,
    })
}

/// From `separate_colour_plane_flag` to the last scaling list.
fn skip_high_profile(bits: &mut Bits<'_>, chroma: u32) -> Option<()> {
    if chroma == 3 {
        bits.read(1)?;
    }
    bits.exp_golomb()?;
    bits.exp_golomb()?;
    bits.read(1)?;
    if !bits.flag()? {
        return Some(());
    }
    for list in 0..if chroma == 3 { 12 } else { 8 } {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.signed_exp_golomb()?).rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// `pic_order_cnt_type` and what belongs to it.
fn skip_order_count(bits: &mut Bits<'_>) -> Option<()> {
    match bits.exp_golomb()? {
        0 => drop(bits.exp_golomb()?),
        1 => {
            bits.read(1)?;
            bits.exp_golomb()?;
            bits.exp_golomb()?;
            // num_ref_frames_in_pic_order_cnt_cycle is at most 255.
            for _ in 0..bits.exp_golomb()?.min(255) {
                bits.exp_golomb()?;
            }
        }
        _ => {}
    }
    Some(())
}

/// A NAL unit's bytes without the 3 that follows two zeros (§7.4.1).
fn without_emulation_prevention(bytes: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(bytes.len());
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        raw.push(*byte);
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Baseline, 640 x 480, as Chromium's encoder writes it.
    const BASELINE_SPS: [u8; 10] = [0x67, 0x42, 0xC0, 0x1F, 0x8C, 0x8D, 0x40, 0x50, 0x1E, 0xD0];

    #[test]
    fn an_sps_gives_the_size() {
        let size = picture_size(&BASELINE_SPS).unwrap();
        assert_eq!((size.width, size.height), (640, 480));
        assert_eq!(picture_size(&BASELINE_SPS[..5]), None);
    }

    #[test]
    fn a_keyframe_with_its_parameter_sets_can_begin_a_file() {
        let mut unit = AccessUnit::default();
        let sps_pps = [
            &[0x78, 0, 10][..],
            &BASELINE_SPS,
            &[0, 4, 0x68, 0xCE, 0x3C, 0x80],
        ]
        .concat();
        unit.push(&sps_pps).unwrap();
        unit.push(&[0x65, 0x88, 1]).unwrap();
        let (is_keyframe, setup, data) = unit.finish().unwrap();
        assert!(is_keyframe);
        assert_eq!(data, [0, 0, 0, 3, 0x65, 0x88, 1]);
        let private = setup.unwrap().private;
        assert_eq!(private[..6], [1, 0x42, 0xC0, 0x1F, 0xFF, 0xE1]);
        assert_eq!(private[6..8], [0, 10]);
        assert!(private.ends_with(&[1, 0, 4, 0x68, 0xCE, 0x3C, 0x80]));
    }

    #[test]
    fn a_fragment_without_its_beginning_is_broken() {
        let mut unit = AccessUnit::default();
        assert_eq!(unit.push(&[0x7C, 0x05, 1]), Err(Broken));
        unit.push(&[0x7C, 0x85, 1]).unwrap();
        assert_eq!(
            unit.push(&[0x41, 1]),
            Err(Broken),
            "the fragments did not end"
        );
    }

    #[test]
    fn bytes_that_protect_from_start_codes_are_taken_out() {
        let raw = without_emulation_prevention(&[0, 0, 3, 1, 0, 0, 3, 0, 3]);
        assert_eq!(raw, [0, 0, 1, 0, 0, 0, 3]);
    }
}
