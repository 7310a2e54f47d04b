//! H264's sequence parameter sets (ITU-T H.264 §7.3.2.1.1): what they say of the pictures, and the
//! clock that is put into them.

use crate::engine::codec::Size;
use crate::engine::codec::bits::{Bits, Writer};

/// Profiles whose SPS says how colours are sampled (H.264 §7.3.2.1.1).
const HIGH_PROFILES: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// A field and a frame last so many units of a clock (annex E.2.1): at most 104 pictures a second.
/// Cameras send them as irregularly as they come, and a program that counts time in pictures must
/// not guess longer ones, for two would then fall together. ffmpeg 5 divides the clock's rate by
/// two, newer ones take all of it where it is below 210.
const UNITS_IN_TICK: u32 = 1;
const TIME_SCALE: u32 = 208;

/// A set that was read.
#[derive(Debug)]
pub(super) struct Sps {
    /// Without what protects from start codes, and without the NAL unit's first byte.
    raw: Vec<u8>,
    head: u8,
    /// Of the pictures, without what is cropped.
    pub(super) size: Size,
    /// Bits before `vui_parameters_present_flag`.
    vui_at: usize,
}

impl Sps {
    /// Reads a NAL unit.
    pub(super) fn parse(unit: &[u8]) -> Option<Self> {
        let (&head, raw) = unit.split_first()?;
        let raw = without_emulation_prevention(raw);
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
        let size = Size {
            width: side(across, 1, cropped.0, unit.0)?,
            height: side(down, fields, cropped.1, unit.1)?,
        };
        let vui_at = bits.at();
        Some(Self {
            raw,
            head,
            size,
            vui_at,
        })
    }

    /// The NAL unit with a clock as fine as pictures come; `None` when it cannot be read to its
    /// end.
    pub(super) fn with_clock(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.raw.len() + 16);
        let mut copy = Copy {
            from: Bits::new(&self.raw),
            to: Writer::new(&mut out),
        };
        for _ in 0..self.vui_at {
            copy.bits(1)?;
        }
        let has_vui = copy.from.flag()?;
        copy.to.write(1, 1);
        if has_vui {
            copy.before_timing()?;
            if copy.from.flag()? {
                copy.from.read(32)?;
                copy.from.read(32)?;
                copy.from.read(1)?;
            }
            copy.clock();
            for _ in copy.from.at()..self.raw.len() * 8 {
                copy.bits(1)?;
            }
        } else {
            // No aspect ratio, overscan, video signal, chroma location.
            copy.to.write(0, 4);
            copy.clock();
            // No buffering parameters of either kind, picture structure, restriction; the end.
            copy.to.write(1, 5);
        }
        while out.last() == Some(&0) {
            out.pop();
        }
        Some(with_emulation_prevention(self.head, &out))
    }
}

/// A set that is copied, with something changed.
struct Copy<'a> {
    from: Bits<'a>,
    to: Writer<'a>,
}

impl Copy<'_> {
    fn bits(&mut self, count: u32) -> Option<u32> {
        let value = self.from.read(count)?;
        self.to.write(value, count);
        Some(value)
    }

    /// From `aspect_ratio_info_present_flag` to what is before `timing_info_present_flag` (annex
    /// E.1.1).
    fn before_timing(&mut self) -> Option<()> {
        const EXTENDED_SAR: u32 = 255;
        if self.bits(1)? == 1 && self.bits(8)? == EXTENDED_SAR {
            self.bits(32)?;
        }
        if self.bits(1)? == 1 {
            self.bits(1)?;
        }
        if self.bits(1)? == 1 {
            self.bits(4)?;
            if self.bits(1)? == 1 {
                self.bits(24)?;
            }
        }
        if self.bits(1)? == 1 {
            self.exp_golomb()?;
            self.exp_golomb()?;
        }
        Some(())
    }

    fn exp_golomb(&mut self) -> Option<()> {
        let mut zeros = 0;
        while self.bits(1)? == 0 {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        self.bits(zeros)?;
        Some(())
    }

    /// Timing information, by which pictures need not come regularly.
    fn clock(&mut self) {
        self.to.write(1, 1);
        self.to.write(UNITS_IN_TICK, 32);
        self.to.write(TIME_SCALE, 32);
        self.to.write(0, 1);
    }
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

/// The reverse, behind the NAL unit's first byte.
fn with_emulation_prevention(head: u8, raw: &[u8]) -> Vec<u8> {
    let mut unit = vec![head];
    let mut zeros = 0;
    for byte in raw {
        if zeros >= 2 && *byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        unit.push(*byte);
    }
    unit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::fixture::CHROMIUM_SPS;

    #[test]
    fn an_sps_gives_the_size() {
        let size = Sps::parse(&CHROMIUM_SPS).unwrap().size;
        assert_eq!((size.width, size.height), (426, 240));
        assert!(Sps::parse(&CHROMIUM_SPS[..5]).is_none());
    }

    #[test]
    fn a_clock_is_put_in_as_ffmpeg_does_it() {
        // By its filter h264_metadata=tick_rate=208:fixed_frame_rate_flag=0.
        let chromium = "6742c01e8c8d40d8ff273506060640000003004000003403c2211a80";
        let without = "6742c01eda0280f640";
        let given = "6742c01eda0280f6840000030004000003034010";
        let x264 = "6742c01eda0280f6c044000003000400000300f03c58ba80";
        let finer = "6742c01eda0280f6c044000003000400000303403c58ba80";
        for (unit, expected) in [
            (hex(&CHROMIUM_SPS).as_str(), chromium),
            (without, given),
            (x264, finer),
        ] {
            let sps = Sps::parse(&bytes(unit)).unwrap();
            assert_eq!(hex(&sps.with_clock().unwrap()), expected);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = (0..hex.len()).step_by(2).map(|at| &hex[at..at + 2]);
        digits
            .map(|two| u8::from_str_radix(two, 16).unwrap())
            .collect()
    }

    #[test]
    fn bytes_that_protect_from_start_codes_are_taken_out_and_put_in() {
        let raw = without_emulation_prevention(&[0, 0, 3, 1, 0, 0, 3, 0, 3]);
        assert_eq!(raw, [0, 0, 1, 0, 0, 0, 3]);
        let unit = with_emulation_prevention(9, &raw);
        assert_eq!(unit, [9, 0, 0, 3, 1, 0, 0, 3, 0, 3]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_what_is_protected_is_what_it_was(
            bytes in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 1..60),
        ) {
            if let Some(with) = Sps::parse(&bytes).and_then(|sps| sps.with_clock()) {
                prop_assert!(with.len() < bytes.len() + 24);
            }
            let unit = with_emulation_prevention(0x67, &bytes);
            prop_assert!(!unit.windows(3).any(|three| three[..2] == [0, 0] && three[2] < 3));
            prop_assert_eq!(&without_emulation_prevention(&unit)[1..], &bytes[..]);
        }
    }
}
