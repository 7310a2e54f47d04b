//! Payloads of received packets: opened once, shared by all who hold them, their memory used again.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// What spare memory comes in, in bytes: sound, a thumbnail's packets, a whole datagram.
const SIZES: [usize; 3] = [256, 640, 1536];

/// Spare buffers of each size that are kept; further ones are freed. What 1 s of ten cameras takes
/// out of their histories in one turn fits many times.
const SPARES: usize = 256;

/// The payload of one packet.
#[derive(Clone)]
pub struct Payload {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl Payload {
    /// Leaves out what is not in `range`.
    ///
    /// # Panics
    ///
    /// When `range` reaches past the payload.
    #[must_use]
    pub fn narrow(mut self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        let start = self.range.start;
        self.range = start + range.start..start + range.end;
        self
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            range: 0..bytes.len(),
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// Memory that payloads had which nobody holds any more.
#[derive(Debug, Default)]
pub struct Spares([Vec<Arc<[u8]>>; SIZES.len()]);

impl Spares {
    /// A payload of `len` bytes, which `fill` writes; all of them, whatever was there before.
    ///
    /// # Errors
    ///
    /// That of `fill`.
    pub fn fill<E>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Payload, E> {
        let place = SIZES.iter().position(|size| len <= *size);
        let spare = place.and_then(|place| self.0[place].pop());
        let mut bytes = spare.unwrap_or_else(|| {
            let size = place.map_or(len, |place| SIZES[place]);
            std::iter::repeat_n(0, size).collect()
        });
        let unshared = Arc::get_mut(&mut bytes).expect("nobody else holds a spare");
        let filled = fill(&mut unshared[..len]);
        let payload = Payload {
            bytes,
            range: 0..len,
        };
        match filled {
            Ok(()) => Ok(payload),
            Err(error) => {
                self.keep(payload);
                Err(error)
            }
        }
    }

    /// Keeps a payload's memory, if nobody else holds it.
    pub fn keep(&mut self, mut payload: Payload) {
        let place = SIZES.iter().position(|size| *size == payload.bytes.len());
        let Some(spares) = place.map(|place| &mut self.0[place]) else {
            return;
        };
        if spares.len() < SPARES && Arc::get_mut(&mut payload.bytes).is_some() {
            spares.push(payload.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(spares: &mut Spares, len: usize, with: u8) -> Payload {
        let fill = |out: &mut [u8]| {
            out.fill(with);
            Ok::<(), ()>(())
        };
        spares.fill(len, fill).expect("fills")
    }

    #[test]
    fn memory_is_used_again_once_nobody_holds_it() {
        let mut spares = Spares::default();
        let first = filled(&mut spares, 1200, 1);
        let place = first.as_ptr();
        let held = first.clone();
        spares.keep(first);
        let second = filled(&mut spares, 1200, 2);
        assert_ne!(second.as_ptr(), place, "somebody still holds the first");
        assert!(held.iter().all(|byte| *byte == 1));
        spares.keep(held);
        let third = filled(&mut spares, 900, 3);
        assert_eq!(third.as_ptr(), place);
        assert_eq!(third.len(), 900);
    }

    #[test]
    fn what_was_not_filled_leaves_its_memory() {
        let mut spares = Spares::default();
        assert_eq!(spares.fill(100, |_| Err("no")), Err("no"));
        assert_eq!(spares.0[0].len(), 1);
    }

    #[test]
    fn spares_are_bounded_and_of_few_sizes() {
        let mut spares = Spares::default();
        let many: Vec<_> = (0..2 * SPARES)
            .map(|_| filled(&mut spares, 10, 0))
            .collect();
        many.into_iter().for_each(|payload| spares.keep(payload));
        let odd = filled(&mut spares, 40_000, 0);
        spares.keep(odd);
        spares.keep(Payload::from(&b"abc"[..]));
        assert_eq!(spares.0.each_ref().map(Vec::len), [SPARES, 0, 0]);
    }

    #[test]
    fn a_payload_can_be_narrowed_twice() {
        let payload = Payload::from(&b"abcdef"[..]).narrow(1..5).narrow(1..3);
        assert_eq!(*payload, *b"cd");
    }
}
