//! Reads the clear part of an SRTP packet: its fixed header and its header extensions.

use str0m::media::Pt;
use str0m::rtp::Ssrc;

/// Fixed header without contributing sources, in bytes (RFC 3550 §5.1).
const FIXED_BYTES: usize = 12;

/// What an element of the extension block says; which id means what was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843 §15).
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id` (RFC 8852 §3.1).
    Rid,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id` (RFC 8852 §3.2).
    RepairedRid,
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportSequence,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    AudioLevel,
    /// `urn:3gpp:video-orientation` (3GPP TS 26.114).
    VideoOrientation,
    /// The AV1 RTP specification's dependency descriptor.
    DependencyDescriptor,
}

/// Which ids mean what in one connection. All m-lines of a BUNDLE group agree (RFC 8843 §9.1).
#[derive(Debug, Clone, Default)]
pub struct Meanings(Vec<(u8, Meaning)>);

/// The clear part of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its stream.
    pub ssrc: Ssrc,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Whether padding follows the payload.
    pub is_padded: bool,
    /// Bytes from the first to the payload.
    pub len: usize,
    /// What it says in its extensions.
    pub extensions: Extensions<'a>,
}

/// The extensions of one packet that were negotiated. Values of a wrong length count as absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// Names the m-line.
    pub mid: Option<&'a [u8]>,
    /// Names the layer.
    pub rid: Option<&'a [u8]>,
    /// Names the layer that this stream repairs.
    pub repaired_rid: Option<&'a [u8]>,
    /// Counts packets of all streams.
    pub transport_sequence: Option<u16>,
    /// RFC 6464 §3: the voice flag, then how far below full scale, in decibels.
    pub audio_level: Option<u8>,
    /// 3GPP TS 26.114 §7.4.5.
    pub video_orientation: Option<u8>,
    /// Not read here: it makes sense only after those before it.
    pub dependency_descriptor: Option<&'a [u8]>,
}

impl Meanings {
    /// An id means this from here on.
    pub fn insert(&mut self, id: u8, meaning: Meaning) {
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some(entry) => entry.1 = meaning,
            None => self.0.push((id, meaning)),
        }
    }

    fn of(&self, id: u8) -> Option<Meaning> {
        let mut entries = self.0.iter();
        entries.find(|(known, _)| *known == id).map(|entry| entry.1)
    }
}

impl<'a> Header<'a> {
    /// Reads the header of an SRTP packet; `None` when it has none that makes sense.
    #[must_use]
    pub fn parse(packet: &'a [u8], meanings: &Meanings) -> Option<Self> {
        let fixed: &[u8; FIXED_BYTES] = packet.first_chunk()?;
        let [first, second, ..] = *fixed;
        if first >> 6 != 2 {
            return None;
        }
        let mut len = FIXED_BYTES + 4 * usize::from(first & 0x0f);
        let mut extensions = Extensions::default();
        if first & 0x10 != 0 {
            let head: &[u8; 4] = packet.get(len..)?.first_chunk()?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            let block = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            len += 4;
            extensions = Extensions::parse(profile, packet.get(len..len + block)?, meanings);
            len += block;
        }
        if packet.len() < len {
            return None;
        }
        let be32 = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| fixed[at + i]));
        Some(Self {
            ssrc: be32(8).into(),
            pt: (second & 0x7f).into(),
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: be32(4),
            marker: second & 0x80 != 0,
            is_padded: first & 0x20 != 0,
            len,
            extensions,
        })
    }
}

impl<'a> Extensions<'a> {
    /// Reads either form of RFC 8285; of another, or past the first element that does not fit,
    /// nothing.
    fn parse(profile: u16, mut block: &'a [u8], meanings: &Meanings) -> Self {
        let mut extensions = Self::default();
        let is_long = match profile {
            0xbede => false,
            // The low four bits are the application's.
            0x1000..=0x100f => true,
            _ => return extensions,
        };
        while let [first, rest @ ..] = block {
            if *first == 0 {
                block = rest;
                continue;
            }
            let (id, len, rest) = match rest {
                [len, rest @ ..] if is_long => (*first, usize::from(*len), rest),
                _ if is_long => break,
                // RFC 8285 §4.2: id 15 ends the block.
                _ if first >> 4 == 15 => break,
                _ => (first >> 4, usize::from(first & 0x0f) + 1, rest),
            };
            let Some((value, rest)) = rest.split_at_checked(len) else {
                break;
            };
            if let Some(meaning) = meanings.of(id) {
                extensions.set(meaning, value);
            }
            block = rest;
        }
        extensions
    }

    fn set(&mut self, meaning: Meaning, value: &'a [u8]) {
        let byte = || <[u8; 1]>::try_from(value).ok().map(|[byte]| byte);
        match meaning {
            Meaning::Mid => self.mid = Some(value),
            Meaning::Rid => self.rid = Some(value),
            Meaning::RepairedRid => self.repaired_rid = Some(value),
            Meaning::TransportSequence => {
                self.transport_sequence = value.try_into().ok().map(u16::from_be_bytes);
            }
            Meaning::AudioLevel => self.audio_level = byte(),
            Meaning::VideoOrientation => self.video_orientation = byte(),
            Meaning::DependencyDescriptor => self.dependency_descriptor = Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meanings() -> Meanings {
        let mut meanings = Meanings::default();
        for (id, meaning) in [
            (1, Meaning::AudioLevel),
            (3, Meaning::TransportSequence),
            (4, Meaning::Mid),
            (10, Meaning::Rid),
            (11, Meaning::RepairedRid),
            (12, Meaning::DependencyDescriptor),
            (13, Meaning::VideoOrientation),
        ] {
            meanings.insert(id, meaning);
        }
        meanings
    }

    /// A packet with this extension block and a payload of 3 bytes.
    fn packet(profile: u16, block: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 0x80 | 96, 0x12, 0x34, 0, 0, 0, 9, 1, 2, 3, 4];
        packet.extend(profile.to_be_bytes());
        packet.extend((block.len() as u16 / 4).to_be_bytes());
        packet.extend(block);
        packet.extend(b"abc");
        packet
    }

    #[test]
    fn a_header_of_the_one_byte_form_is_read() {
        let block = [
            0x10, 0x85, 0x31, 0xab, 0xcd, 0, 0x41, b'm', b'1', 0xa0, b'h', 0xb0,
        ];
        let mut block = block.to_vec();
        block.extend([b'q', 0xd0, 2, 0x20, 7, 0, 0, 0]);
        let packet = packet(0xbede, &block);
        let header = Header::parse(&packet, &meanings()).expect("it is whole");
        assert_eq!((*header.ssrc, *header.pt), (0x0102_0304, 96));
        assert_eq!((header.seq, header.timestamp), (0x1234, 9));
        assert!(header.marker && !header.is_padded);
        assert_eq!(&packet[header.len..], b"abc");
        let expected = Extensions {
            mid: Some(b"m1"),
            rid: Some(b"h"),
            repaired_rid: Some(b"q"),
            transport_sequence: Some(0xabcd),
            audio_level: Some(0x85),
            video_orientation: Some(2),
            dependency_descriptor: None,
        };
        assert_eq!(header.extensions, expected);
    }

    #[test]
    fn a_header_of_the_two_byte_form_is_read() {
        let mut block = vec![12, 20];
        block.extend([7; 20]);
        block.extend([3, 2, 0, 5, 4, 0, 99, 1, 1, 0]);
        let packet = packet(0x1003, &block);
        let header = Header::parse(&packet, &meanings()).expect("it is whole");
        assert_eq!(header.extensions.dependency_descriptor, Some(&[7; 20][..]));
        assert_eq!(header.extensions.transport_sequence, Some(5));
        assert_eq!(header.extensions.mid, Some(&b""[..]));
    }

    #[test]
    fn an_element_that_does_not_fit_ends_the_block() {
        let packet = packet(0xbede, &[0x31, 0, 1, 0x4f]);
        let header = Header::parse(&packet, &meanings()).expect("the header itself is whole");
        assert_eq!(header.extensions.transport_sequence, Some(1));
        assert_eq!(header.extensions.mid, None);
    }

    #[test]
    fn contributing_sources_are_skipped() {
        let mut packet = vec![0x82, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5];
        packet.extend([0; 8]);
        let header = Header::parse(&packet, &meanings()).expect("it is whole");
        assert_eq!(header.len, 20);
        assert_eq!(Header::parse(&packet[..11], &meanings()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_past_their_end(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80),
            profile in prop_oneof![Just(0xbede_u16), Just(0x1000), any::<u16>()],
        ) {
            if bytes.len() > 16 {
                bytes[0] = 0x90;
                bytes[12..14].copy_from_slice(&profile.to_be_bytes());
                bytes[14] = 0;
                bytes[15] %= 18;
            }
            if let Some(header) = Header::parse(&bytes, &meanings()) {
                prop_assert!(header.len <= bytes.len());
            }
        }
    }
}
