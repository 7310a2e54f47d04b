//! H264 (RFC 6184): NAL units put together to access units, each behind its length.

use super::sps::Sps;
use super::{Broken, Setup};

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
        let size = Sps::parse(first)?.size;
        let with_clock = |unit: &Vec<u8>| Sps::parse(unit)?.with_clock();
        let sets = self.sps.iter();
        let sets: Vec<_> = sets
            .map(|unit| with_clock(unit).unwrap_or(unit.clone()))
            .collect();
        let mut private = vec![1];
        private.extend_from_slice(first.get(1..4)?);
        // Lengths of 4 bytes, then how many sets there are.
        private.extend([0xFF, 0xE0 | sets.len() as u8]);
        append_sets(&mut private, &sets);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::CHROMIUM_SPS;

    #[test]
    fn a_keyframe_with_its_parameter_sets_can_begin_a_file() {
        let mut unit = AccessUnit::default();
        let sps_pps = [
            &[0x78, 0, 18][..],
            &CHROMIUM_SPS,
            &[0, 4, 0x68, 0xCE, 0x3C, 0x80],
        ]
        .concat();
        unit.push(&sps_pps).unwrap();
        unit.push(&[0x65, 0x88, 1]).unwrap();
        let (is_keyframe, setup, data) = unit.finish().unwrap();
        assert!(is_keyframe);
        assert_eq!(data, [0, 0, 0, 3, 0x65, 0x88, 1]);
        let private = setup.unwrap().private;
        assert_eq!(private[..6], [1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1]);
        let with_clock = Sps::parse(&CHROMIUM_SPS).unwrap().with_clock().unwrap();
        assert_eq!(usize::from(private[7]), with_clock.len());
        assert!(private[8..].starts_with(&with_clock));
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
}
