//! A file that grows by whole pieces: what a full disk or a kill cuts off is never half of one.

use std::io::{self, Seek, SeekFrom, Write};

/// A file that can be cut.
pub trait Truncate {
    /// Cuts the file to this length.
    ///
    /// # Errors
    ///
    /// What the file system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

impl Truncate for std::fs::File {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// An entry of a file's index: a piece that a player can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Time of its first frame.
    pub(super) ms: u64,
    /// Where it is in the file.
    pub(super) at: u64,
}

/// What is in a file that was finished after its process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// How long it lasts, in milliseconds.
    pub ms: u64,
    /// Frames in it.
    pub frames: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pieces<W> {
    out: W,
    /// Bytes of whole pieces.
    written: u64,
}

impl<W: Write + Seek + Truncate> Pieces<W> {
    /// A file that begins with `head`.
    pub(super) fn new(mut out: W, head: &[u8]) -> io::Result<Self> {
        out.write_all(head)?;
        let written = head.len() as u64;
        Ok(Self { out, written })
    }

    /// Appends a piece, and tells where it is. Of one that does not fit nothing is left.
    pub(super) fn append(&mut self, piece: &[u8]) -> io::Result<u64> {
        let at = self.written;
        if let Err(error) = self.out.write_all(piece) {
            self.out.truncate(at)?;
            self.out.seek(SeekFrom::Start(at))?;
            return Err(error);
        }
        self.written += piece.len() as u64;
        Ok(at)
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The file, to be ended.
    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

/// That a file cannot be repaired.
pub(super) fn not_ours() -> io::Error {
    let text = "this is no file that corelay has begun";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::record::fixture::Disk;

    #[test]
    fn nothing_is_left_of_a_piece_that_does_not_fit_and_it_fits_when_there_is_room_again() {
        let file = Cursor::new(Vec::new());
        let mut pieces = Pieces::new(Disk { file, left: 8 }, b"head").unwrap();
        let full = pieces.append(b"piece").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(pieces.written(), 4);
        pieces.out.left = 100;
        assert_eq!(pieces.append(b"piece").unwrap(), 4);
        assert_eq!(pieces.into_inner().file.into_inner(), b"headpiece");
    }
}
