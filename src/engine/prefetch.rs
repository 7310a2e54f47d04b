//! Asks for memory before it is needed: many viewers together have more than caches hold, and while
//! one is written to, what the next one needs can be on its way.

/// Bytes that come at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for `value` itself, not for what it points to, and does not wait. Of use half a
/// microsecond before it is read.
#[inline]
#[cfg(target_arch = "x86_64")]
pub(crate) fn prefetch<T: ?Sized>(value: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let start = std::ptr::from_ref(value).cast::<i8>();
    for line in 0..size_of_val(value).div_ceil(LINE) {
        let at = start.wrapping_add(line * LINE);
        // SAFETY: it gives no value, and an address that cannot be read does nothing.
        #[expect(
            unsafe_code,
            reason = "the standard library has no prefetch that is safe"
        )]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at);
        }
    }
}

/// What is worth asking for of a table that is used from `first` on: a picture's packets.
pub(crate) fn some_of<T>(table: &[T], first: usize) -> &[T] {
    let last = table.len().min(first + 8);
    table.get(first..last).unwrap_or_default()
}

/// Elsewhere the standard library has none yet.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T: ?Sized>(_: &T) {}
