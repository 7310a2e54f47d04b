//! RTP timestamps compared: they count modulo 2^32 (RFC 3550 §5.1).

/// Whether timestamp `a` is after `b`, when they are less than 2^31 ticks apart.
pub(super) const fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
