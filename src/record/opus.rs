//! How long a packet of Opus is.

/// The duration of a packet (RFC 6716 §3.1), in microseconds; 0 for one that breaks the rules.
#[must_use]
pub fn duration_us(packet: &[u8]) -> u64 {
    let Some(&toc) = packet.first() else {
        return 0;
    };
    let frame_us = match toc >> 3 {
        config @ 0..=11 => [10_000, 20_000, 40_000, 60_000][usize::from(config & 3)],
        config @ 12..=15 => [10_000, 20_000][usize::from(config & 1)],
        config => [2_500, 5_000, 10_000, 20_000][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |count| u64::from(count & 0x3F)),
    };
    // Three times 40 ms at most (§3.2.5).
    (frame_us * frames).min(120_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_length() {
        // What browsers send: 20 ms, one frame; hybrid or CELT, mono or stereo.
        assert_eq!(duration_us(&[0x78, 1]), 20_000);
        assert_eq!(duration_us(&[0xFC, 1]), 20_000);
        assert_eq!(duration_us(&[0x08]), 20_000);
        assert_eq!(duration_us(&[0x83, 4]), 10_000);
        assert_eq!(duration_us(&[0x18 | 3, 63]), 120_000);
        assert_eq!((duration_us(&[]), duration_us(&[0x83])), (0, 0));
    }
}
