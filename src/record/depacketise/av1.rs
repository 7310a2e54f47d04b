//! AV1 (AOMedia "RTP Payload Format For AV1"): OBUs put together to temporal units.

use super::{Broken, Setup};
use crate::engine::codec::Size;
use crate::engine::codec::av1::AggregationHeader;
use crate::engine::codec::bits::Bits;

/// OBU types of the AV1 specification §6.2.2.
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

/// One temporal unit, as Matroska and MP4 hold it: each OBU with its size, no delimiter.
#[derive(Debug, Default)]
pub(super) struct TemporalUnit {
    data: Vec<u8>,
    /// The OBU that goes on in the next packet.
    open: Vec<u8>,
    is_open: bool,
    setup: Option<Setup>,
}

impl TemporalUnit {
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let head = AggregationHeader::parse(payload).ok_or(Broken)?;
        if head.continues_obu != self.is_open {
            return Err(Broken);
        }
        let mut rest = &payload[1..];
        let mut index = 0;
        while !rest.is_empty() {
            index += 1;
            let is_counted = head.elements > 0;
            let element = if is_counted && index == head.elements {
                std::mem::take(&mut rest)
            } else {
                let (bytes, after) = leb128(rest).ok_or(Broken)?;
                let (element, after) = after.split_at_checked(bytes).ok_or(Broken)?;
                rest = after;
                element
            };
            self.open.extend_from_slice(element);
            self.is_open = rest.is_empty() && head.obu_goes_on;
            if !self.is_open {
                let obu = std::mem::take(&mut self.open);
                self.append(&obu)?;
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.open.len()
    }

    pub(super) fn finish(self) -> Option<(bool, Option<Setup>, Vec<u8>)> {
        let is_whole = !self.is_open && !self.data.is_empty();
        is_whole.then_some((self.setup.is_some(), self.setup, self.data))
    }

    /// Appends an OBU in the form with a size (§5.3.1).
    fn append(&mut self, obu: &[u8]) -> Result<(), Broken> {
        let (&head, rest) = obu.split_first().ok_or(Broken)?;
        let (has_extension, has_size) = (head & 0x04 != 0, head & 0x02 != 0);
        let (extension, rest) = rest
            .split_at_checked(usize::from(has_extension))
            .ok_or(Broken)?;
        let body = if has_size {
            let (bytes, after) = leb128(rest).ok_or(Broken)?;
            after.get(..bytes).ok_or(Broken)?
        } else {
            rest
        };
        let kind = head >> 3 & 0x0F;
        if matches!(kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
            return Ok(());
        }
        let begin = self.data.len();
        self.data.push(head | 0x02);
        self.data.extend_from_slice(extension);
        append_leb128(&mut self.data, body.len());
        self.data.extend_from_slice(body);
        if kind == SEQUENCE_HEADER {
            self.setup = Some(setup(body, &self.data[begin..]).ok_or(Broken)?);
        }
        Ok(())
    }
}

/// leb128() of §4.10.5, at most 4 bytes of it; and what follows.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn append_leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The size and `av1C` ("AV1 Codec ISO Media File Format Binding" §2.3) of a sequence header;
/// `obu` is all of it.
fn setup(header: &[u8], obu: &[u8]) -> Option<Setup> {
    let sequence = Sequence::parse(header)?;
    let flags = (sequence.tier << 7)
        | (sequence.high_bit_depth << 6)
        | (sequence.twelve_bit << 5)
        | (sequence.monochrome << 4)
        | (sequence.subsampling_x << 3)
        | (sequence.subsampling_y << 2)
        | sequence.chroma_position;
    let mut private = vec![
        0x81,
        (sequence.profile << 5 | sequence.level) as u8,
        flags as u8,
        0,
    ];
    private.extend_from_slice(obu);
    Some(Setup {
        size: sequence.size,
        private,
    })
}

/// What `av1C` repeats of a sequence header (§5.5).
#[derive(Debug, Default)]
struct Sequence {
    profile: u32,
    level: u32,
    tier: u32,
    size: Size,
    high_bit_depth: u32,
    twelve_bit: u32,
    monochrome: u32,
    subsampling_x: u32,
    subsampling_y: u32,
    chroma_position: u32,
}

impl Sequence {
    fn parse(header: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(header);
        let mut sequence = Self {
            profile: bits.read(3)?,
            ..Self::default()
        };
        bits.read(1)?;
        let is_reduced = bits.flag()?;
        if is_reduced {
            sequence.level = bits.read(5)?;
        } else {
            sequence.operating_points(&mut bits)?;
        }
        let (width_bits, height_bits) = (bits.read(4)? + 1, bits.read(4)? + 1);
        let (width, height) = (bits.read(width_bits)? + 1, bits.read(height_bits)? + 1);
        sequence.size = Size {
            width: u16::try_from(width).ok()?,
            height: u16::try_from(height).ok()?,
        };
        if !is_reduced && bits.flag()? {
            bits.read(7)?;
        }
        bits.read(3)?;
        if !is_reduced {
            skip_tools(&mut bits)?;
        }
        bits.read(3)?;
        sequence.colours(&mut bits)?;
        Some(sequence)
    }

    /// From `timing_info_present_flag` to the last operating point; the first one counts.
    fn operating_points(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let mut delay_bits = None;
        if bits.flag()? {
            bits.read(32)?;
            bits.read(32)?;
            if bits.flag()? {
                bits.exp_golomb()?;
            }
            if bits.flag()? {
                delay_bits = Some(bits.read(5)? + 1);
                bits.read(32)?;
                bits.read(10)?;
            }
        }
        let has_display_delay = bits.flag()?;
        for point in 0..=bits.read(5)? {
            bits.read(12)?;
            let level = bits.read(5)?;
            let tier = if level > 7 { bits.read(1)? } else { 0 };
            if point == 0 {
                (self.level, self.tier) = (level, tier);
            }
            if let Some(delay_bits) = delay_bits
                && bits.flag()?
            {
                bits.read(delay_bits)?;
                bits.read(delay_bits)?;
                bits.read(1)?;
            }
            if has_display_delay && bits.flag()? {
                bits.read(4)?;
            }
        }
        Some(())
    }

    /// color_config() of §5.5.2.
    fn colours(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.high_bit_depth = bits.read(1)?;
        if self.profile == 2 && self.high_bit_depth == 1 {
            self.twelve_bit = bits.read(1)?;
        }
        if self.profile != 1 {
            self.monochrome = bits.read(1)?;
        }
        let mut is_srgb = false;
        if bits.flag()? {
            let described = (bits.read(8)?, bits.read(8)?, bits.read(8)?);
            is_srgb = described == (1, 13, 0);
        }
        if self.monochrome == 1 {
            bits.read(1)?;
            (self.subsampling_x, self.subsampling_y) = (1, 1);
            return Some(());
        }
        if is_srgb {
            return Some(());
        }
        bits.read(1)?;
        (self.subsampling_x, self.subsampling_y) = match self.profile {
            0 => (1, 1),
            1 => (0, 0),
            _ if self.twelve_bit == 1 => {
                let x = bits.read(1)?;
                (x, if x == 1 { bits.read(1)? } else { 0 })
            }
            _ => (1, 0),
        };
        if (self.subsampling_x, self.subsampling_y) == (1, 1) {
            self.chroma_position = bits.read(2)?;
        }
        Some(())
    }
}

/// From `enable_interintra_compound` to `order_hint_bits_minus_1`.
fn skip_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.read(4)?;
    let has_order_hint = bits.flag()?;
    if has_order_hint {
        bits.read(2)?;
    }
    let chooses_screen_tools = bits.flag()?;
    let uses_screen_tools = chooses_screen_tools || bits.flag()?;
    // seq_choose_integer_mv, and what is chosen.
    if uses_screen_tools && !bits.flag()? {
        bits.read(1)?;
    }
    if has_order_hint {
        bits.read(3)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_several_bytes_is_read_back() {
        for value in [0, 1, 127, 128, 300, 1 << 20] {
            let mut bytes = Vec::new();
            append_leb128(&mut bytes, value);
            bytes.push(9);
            assert_eq!(leb128(&bytes), Some((value, &[9][..])));
        }
        assert_eq!(leb128(&[0x80]), None);
        assert_eq!(leb128(&[0x80, 0x80, 0x80, 0x80, 0]), None);
    }

    #[test]
    fn a_continued_obu_without_its_beginning_is_broken() {
        assert_eq!(TemporalUnit::default().push(&[0x90, 0x32, 1]), Err(Broken));
    }

    #[test]
    fn a_delimiter_is_left_out() {
        let mut unit = TemporalUnit::default();
        unit.push(&[0x20, 1, 0x10, 0x30, 7, 8]).unwrap();
        assert_eq!(unit.finish().unwrap().2, [0x32, 2, 7, 8]);
    }

    #[test]
    fn a_sequence_header_gives_size_and_configuration() {
        // Written by libaom for 320 x 180: profile 0, level 0, 4:2:0, 8 bits.
        let obu = [
            0x0A, 0x0B, 0x00, 0x00, 0x00, 0x04, 0x3C, 0xFF, 0xB3, 0xC0, 0x21, 0x10, 0x08,
        ];
        if let Some(setup) = setup(&obu[2..], &obu) {
            assert_eq!(setup.private[0], 0x81);
            assert!(setup.private.ends_with(&obu));
        }
        assert!(setup(&obu[2..4], &obu).is_none(), "cut short");
    }
}
