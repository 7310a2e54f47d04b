//! What every packet says of itself, in the last bytes of its payload: whose, which, when sent.
//!
//! At the end, because SFUs rewrite the head of a VP8 payload (RFC 7741 §4.2), and cannot know
//! of this.

/// Bytes of a stamp.
pub(crate) const STAMP_BYTES: usize = 28;

/// Tells our payloads from any other.
const MAGIC: u32 = 0x6c6f_6164;

/// One packet's stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which track: unique in the run.
    pub(crate) source: u32,
    /// Counts the track's frames; the layers of one frame share it.
    pub(crate) frame: u32,
    /// Which layer, 0 the smallest.
    pub(crate) layer: u8,
    /// Whether its frame was begun while the run was being measured.
    pub(crate) measured: bool,
    /// Unix time at which it was handed to the state machine that encrypts it, in nanoseconds.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// Writes it over the end of `payload`, which must have room.
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let at = payload.len() - STAMP_BYTES;
        let tail = &mut payload[at..];
        tail[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        tail[4..8].copy_from_slice(&self.source.to_be_bytes());
        tail[8..12].copy_from_slice(&self.frame.to_be_bytes());
        tail[12] = self.layer;
        tail[13] = u8::from(self.measured);
        tail[14..20].fill(0);
        tail[20..28].copy_from_slice(&self.sent_ns.to_be_bytes());
    }

    /// Reads one back; `None` when it is not ours.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let tail = payload.last_chunk::<STAMP_BYTES>()?;
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| tail[at + i]));
        let long = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| tail[20 + i]));
        (word(0) == MAGIC).then_some(Self {
            source: word(4),
            frame: word(8),
            layer: tail[12],
            measured: tail[13] == 1,
            sent_ns: long,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            source: 7,
            frame: 70_000,
            layer: 2,
            measured: true,
            sent_ns: 1_700_000_000_123_456_789,
        };
        let mut payload = [9; 100];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(payload[..100 - STAMP_BYTES], [9; 100 - STAMP_BYTES]);
    }

    #[test]
    fn what_is_not_ours_has_no_stamp() {
        assert_eq!(Stamp::read(&[0; 200]), None);
        assert_eq!(Stamp::read(&[]), None);
    }
}
