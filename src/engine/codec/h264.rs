//! H264 payloads (RFC 6184 §5): which NAL unit they begin, and whether a decoder can begin there.

/// NAL unit types of ITU-T H.264 table 7-1 and payload types of RFC 6184 table 1.
const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const ACCESS_UNIT_DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// A decoder can begin here: the payload has an SPS, or the first slice of an IDR picture.
#[must_use]
pub fn starts_keyframe(payload: &[u8]) -> bool {
    any_nal(payload, |nal| match nal.kind {
        SPS => true,
        IDR_SLICE => nal.is_first_slice(),
        _ => false,
    })
}

/// A picture may begin here: the payload has a NAL unit that comes before the first slice of a
/// picture (access unit delimiter, SPS, SEI) or that slice itself.
#[must_use]
pub fn starts_frame(payload: &[u8]) -> bool {
    any_nal(payload, |nal| match nal.kind {
        ACCESS_UNIT_DELIMITER | SPS | SEI => true,
        SLICE | IDR_SLICE => nal.is_first_slice(),
        _ => false,
    })
}

/// The beginning of a NAL unit.
struct Nal<'a> {
    kind: u8,
    /// What follows its one header byte, maybe only the first fragment of it.
    body: &'a [u8],
}

impl Nal<'_> {
    /// `first_mb_in_slice`, the first field of a slice header, is zero. It is an Exp-Golomb code,
    /// in which zero is a single set bit (H.264 §7.3.3, §9.1).
    fn is_first_slice(&self) -> bool {
        self.body.first().is_some_and(|byte| byte & 0x80 != 0)
    }
}

/// Whether `wanted` holds for a NAL unit that begins in this payload. STAP-A (§5.7.1) holds
/// several; FU-A (§5.8) begins one if its S bit is set; the other packetizations are not used
/// with packetization mode 0 and 1, the only ones WebRTC knows (RFC 7742 §6.2).
fn any_nal(payload: &[u8], wanted: impl Fn(&Nal<'_>) -> bool) -> bool {
    let Some((&header, mut body)) = payload.split_first() else {
        return false;
    };
    match header & 0x1F {
        kind @ 1..=23 => wanted(&Nal { kind, body }),
        STAP_A => {
            while let Some((size, rest)) = body.split_first_chunk::<2>() {
                let size = usize::from(u16::from_be_bytes(*size));
                let Some((unit, rest)) = rest.split_at_checked(size) else {
                    return false;
                };
                if let Some((&header, body)) = unit.split_first()
                    && wanted(&Nal {
                        kind: header & 0x1F,
                        body,
                    })
                {
                    return true;
                }
                body = rest;
            }
            false
        }
        FU_A => match body.split_first() {
            Some((&fragment, body)) if fragment & 0x80 != 0 => wanted(&Nal {
                kind: fragment & 0x1F,
                body,
            }),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_and_frames_are_told_from_the_rest() {
        // Bytes of the payload, starts a keyframe, starts a frame.
        let table: [(&[u8], bool, bool); 17] = [
            (&[0x67, 0x42], true, true),                         // SPS
            (&[0x68, 0xCE], false, false),                       // PPS
            (&[0x65, 0x88], true, true),                         // IDR, first slice
            (&[0x65, 0x48], false, false),                       // IDR, a later slice
            (&[0x41, 0x9A], false, true),                        // slice, first
            (&[0x41, 0x1A], false, false),                       // slice, later
            (&[0x09, 0x10], false, true),                        // access unit delimiter
            (&[0x65], false, false),                             // nothing after the header
            (&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68], true, true), // STAP-A: SPS, PPS
            (&[0x78, 0, 1, 0x68, 0, 2, 0x65, 0x88], true, true), // STAP-A: PPS, IDR
            (&[0x78, 0, 2, 0x41, 0x9A], false, true),            // STAP-A: slice
            (&[0x78, 0, 9, 0x67, 0x42], false, false),           // STAP-A: size past the end
            (&[0x78, 0, 0, 0, 2, 0x67, 0x42], true, true),       // STAP-A: an empty unit first
            (&[0x7C, 0x85, 0x88], true, true),                   // FU-A: IDR, start
            (&[0x7C, 0x05, 0x88], false, false),                 // FU-A: IDR, middle
            (&[0x7C, 0x81, 0x9A], false, true),                  // FU-A: slice, start
            (&[0x7D, 0x85, 0, 0, 0x88], false, false),           // FU-B
        ];
        for (bytes, keyframe, frame) in table {
            assert_eq!(starts_keyframe(bytes), keyframe, "keyframe {bytes:02x?}");
            assert_eq!(starts_frame(bytes), frame, "frame {bytes:02x?}");
        }
    }
}
