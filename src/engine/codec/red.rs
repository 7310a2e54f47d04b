//! Redundant audio (RFC 2198): a packet of it carries earlier sound before its own.

/// Bytes of the header of an earlier block (RFC 2198 §3).
const BLOCK_HEADER_BYTES: usize = 4;

/// The bit of a header that another one follows.
const FOLLOWS: u8 = 0x80;

/// What the packet would carry without redundancy: its last block. `None` when it is cut short.
#[must_use]
pub fn primary(payload: &[u8]) -> Option<&[u8]> {
    let (mut at, mut redundant) = (0, 0);
    while *payload.get(at)? & FOLLOWS != 0 {
        // 14 bits of timestamp offset, 10 of length.
        let (high, low) = (*payload.get(at + 2)?, *payload.get(at + 3)?);
        redundant += usize::from(high & 0x03) << 8 | usize::from(low);
        at += BLOCK_HEADER_BYTES;
    }
    payload.get(at + 1 + redundant..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_block_is_the_packets_own() {
        let table: [(&[u8], Option<&[u8]>); 6] = [
            (&[111, 7, 8], Some(&[7, 8])),
            (&[111], Some(&[])),
            // One earlier block of three bytes.
            (&[0xef, 0x0f, 0x00, 3, 111, 1, 2, 3, 9], Some(&[9])),
            (&[0xef, 0x0f, 0x00, 3, 111, 1, 2], None),
            (&[0xef, 0x0f], None),
            (&[], None),
        ];
        for (payload, own) in table {
            assert_eq!(primary(payload), own, "{payload:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Some(own) = primary(&bytes) {
                prop_assert!(bytes.ends_with(own) && own.len() < bytes.len());
            }
        }
    }
}
