//! RFC 4571: packets in a stream of bytes, each behind its length.

/// Longest packet that is taken: what clients send fits a UDP datagram on the way here. A longer
/// one ends the connection, for its length may be no length.
pub(super) const LONGEST_BYTES: usize = 2048;
/// The length in front of each packet: 16 bits, network order.
const PREFIX_BYTES: usize = 2;
/// Bytes read at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// Adds a packet to a stream. One longer than the length can say is left out, and `false` is
/// returned; nothing we send is.
pub(super) fn frame(stream: &mut Vec<u8>, packet: &[u8]) -> bool {
    let Ok(length) = u16::try_from(packet.len()) else {
        return false;
    };
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(packet);
    true
}

/// Cuts a stream into packets.
#[derive(Debug)]
pub(super) struct Deframer {
    buffer: Box<[u8]>,
    /// What is in the buffer and not yet given out.
    start: usize,
    end: usize,
}

/// A packet is longer than [`LONGEST_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Deframer {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
        }
    }

    /// Where the next bytes of the stream go: never empty once every packet is taken out.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// So many bytes were written to [`Deframer::room`].
    pub(super) fn handle_bytes(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The next packet that is there in full.
    ///
    /// # Errors
    ///
    /// [`TooLong`]: nothing more can be found in this stream.
    pub(super) fn poll_packet(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let waiting = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = waiting.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length > LONGEST_BYTES {
            return Err(TooLong);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.start += PREFIX_BYTES + length;
        Ok(Some(&self.buffer[self.start - length..self.start]))
    }
}

const _: () = assert!(BUFFER_BYTES > PREFIX_BYTES + LONGEST_BYTES);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives the stream in pieces of these sizes, over and over.
    fn cut(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut deframer = Deframer::new();
        let mut packets = Vec::new();
        let mut sizes = pieces.iter().cycle();
        let mut rest = stream;
        while !rest.is_empty() {
            let room = deframer.room();
            let size = (*sizes.next().unwrap())
                .clamp(1, room.len())
                .min(rest.len());
            room[..size].copy_from_slice(&rest[..size]);
            rest = &rest[size..];
            deframer.handle_bytes(size);
            while let Some(packet) = deframer.poll_packet()? {
                packets.push(packet.to_vec());
            }
        }
        Ok(packets)
    }

    #[test]
    fn a_packet_that_is_too_long_ends_the_stream() {
        let mut stream = Vec::new();
        assert!(frame(&mut stream, &[1; LONGEST_BYTES]));
        assert_eq!(cut(&stream, &[100]).unwrap(), [vec![1; LONGEST_BYTES]]);
        assert!(frame(&mut stream, &[1; LONGEST_BYTES + 1]));
        assert_eq!(cut(&stream, &[100]), Err(TooLong));
        assert!(!frame(&mut stream, &[1; 65_536]));
    }

    proptest! {
        #[test]
        fn packets_come_out_as_they_went_in_however_the_stream_is_cut(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
            pieces in prop::collection::vec(1usize..20_000, 1..10),
        ) {
            let mut stream = Vec::new();
            for packet in &packets {
                prop_assert!(frame(&mut stream, packet));
            }
            prop_assert_eq!(cut(&stream, &pieces), Ok(packets));
        }
    }
}
