//! The AV1 aggregation header (AOMedia "RTP Payload Format For AV1" §4.4).

/// The first byte of every AV1 payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AggregationHeader {
    /// Z: the first OBU element continues one of the packet before.
    pub continues_obu: bool,
    /// Y: the last OBU element goes on in the next packet.
    pub obu_goes_on: bool,
    /// W: how many OBU elements there are, 1 to 3; 0 when each carries its length.
    pub elements: u8,
    /// N: the first packet of a coded video sequence, which begins with a keyframe.
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the header; `None` when no OBU element follows it.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[header, _, ..] = payload else {
            return None;
        };
        Some(Self {
            continues_obu: header & 0x80 != 0,
            obu_goes_on: header & 0x40 != 0,
            elements: header >> 4 & 0x03,
            new_sequence: header & 0x08 != 0,
        })
    }

    /// A decoder can begin here. N with Z is a contradiction (§4.4) and counts as no keyframe.
    #[must_use]
    pub const fn starts_keyframe(&self) -> bool {
        self.new_sequence && !self.continues_obu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_is_read() {
        let header = AggregationHeader::parse(&[0x68, 0x0A]).unwrap();
        assert!(!header.continues_obu && header.obu_goes_on && header.new_sequence);
        assert_eq!(header.elements, 2);
        assert!(header.starts_keyframe());
    }

    #[test]
    fn a_continued_obu_starts_nothing() {
        let header = AggregationHeader::parse(&[0x98, 0x0A]).unwrap();
        assert!(header.continues_obu && !header.starts_keyframe());
        assert!(
            !AggregationHeader::parse(&[0x10, 0x32])
                .unwrap()
                .starts_keyframe()
        );
    }

    #[test]
    fn a_header_alone_is_no_payload() {
        assert_eq!(AggregationHeader::parse(&[0x08]), None);
        assert_eq!(AggregationHeader::parse(&[]), None);
    }
}
