//! Finishes a file whose process was killed: cuts off what is not whole, adds the index.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{
    CLUSTER, CUE_MS, Cue, DURATION_BYTES, INFO, Layout, SEGMENT, SIMPLE_BLOCK, TIMESTAMP, TRACKS,
    close,
};
use crate::record::ebml::{self, Head};

/// Bytes of a cluster that are read to find its time and its first block's flags.
const PEEK_BYTES: usize = 64;

/// Bytes of a cluster that are read to find its last block. A longer one is no file of ours.
const MAX_CLUSTER_BYTES: u64 = 64 << 20;

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

/// Cuts a file of ours where it is no longer whole, and finishes it. A finished one stays as it
/// is. Returns how long it lasts, in milliseconds.
///
/// # Errors
///
/// What the file system says, or [`io::ErrorKind::InvalidData`] when it is no file of ours.
pub fn repair<F: Read + Write + Seek + Truncate>(file: &mut F) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut reader = Reader { file, length };
    let (layout, mut at) = reader.layout()?;
    let mut index: Vec<Cue> = Vec::new();
    let mut last = None;
    while let Some(head) = reader.head(at)? {
        let end = at + head.bytes as u64 + head.size.unwrap_or(u64::from(u32::MAX));
        if head.id != CLUSTER || end > length {
            break;
        }
        let (ms, is_keyframe) = reader.beginning(at + head.bytes as u64)?;
        if is_keyframe && index.last().is_none_or(|cue| ms >= cue.ms + CUE_MS) {
            let position = at - layout.segment;
            index.push(Cue { ms, position });
        }
        last = Some((at + head.bytes as u64, end));
        at = end;
    }
    let end_ms = match last {
        Some((begin, end)) => reader.end_ms(begin, end)?,
        None => 0,
    };
    file.truncate(at)?;
    close(file, layout, at, &index, end_ms)?;
    Ok(end_ms)
}

fn invalid() -> io::Error {
    let text = "this is no file that corelay has begun";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

struct Reader<'a, F> {
    file: &'a mut F,
    length: u64,
}

impl<F: Read + Seek> Reader<'_, F> {
    /// Up to `bytes` bytes from `at`.
    fn bytes(&mut self, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = bytes.min(self.length.saturating_sub(at));
        let mut read = vec![0; usize::try_from(bytes).map_err(|_| invalid())?];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut read)?;
        Ok(read)
    }

    fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        Ok(Head::parse(&self.bytes(at, 12)?))
    }

    /// Where the parts are, and where the first cluster is or would be.
    fn layout(&mut self) -> io::Result<(Layout, u64)> {
        let ebml = self.head(0)?.ok_or_else(invalid)?;
        let mut at = ebml.bytes as u64 + ebml.size.ok_or_else(invalid)?;
        let is_ours = |head: &Head| head.id == SEGMENT && head.bytes == 12;
        let segment = self.head(at)?.filter(is_ours);
        at += segment.ok_or_else(invalid)?.bytes as u64;
        let mut layout = Layout {
            segment: at,
            seek_head: at,
            ..Layout::default()
        };
        loop {
            let head = self.head(at)?.ok_or_else(invalid)?;
            let end = at + head.bytes as u64 + head.size.ok_or_else(invalid)?;
            if end > self.length {
                return Err(invalid());
            }
            match head.id {
                INFO => (layout.info, layout.duration) = (at, end - DURATION_BYTES as u64),
                TRACKS if layout.info == 0 => return Err(invalid()),
                TRACKS => {
                    layout.tracks = at;
                    return Ok((layout, end));
                }
                _ => {}
            }
            at = end;
        }
    }

    /// A cluster's time, and whether its first block is a keyframe.
    fn beginning(&mut self, at: u64) -> io::Result<(u64, bool)> {
        let bytes = self.bytes(at, PEEK_BYTES as u64)?;
        let time = Head::parse(&bytes).filter(|head| head.id == TIMESTAMP);
        let time = time.ok_or_else(invalid)?;
        let end = time.bytes + time.size.ok_or_else(invalid)? as usize;
        let ms = ebml::uint(bytes.get(time.bytes..end).ok_or_else(invalid)?);
        let block = bytes.get(end..).unwrap_or_default();
        let flags = Head::parse(block).and_then(|head| block.get(head.bytes + 3));
        Ok((ms, flags.is_some_and(|flags| flags & 0x80 != 0)))
    }

    /// When the last frame of a cluster ends, if it lasts as long as the one before.
    fn end_ms(&mut self, begin: u64, end: u64) -> io::Result<u64> {
        if end - begin > MAX_CLUSTER_BYTES {
            return Err(invalid());
        }
        let (begin_ms, _) = self.beginning(begin)?;
        let bytes = self.bytes(begin, end - begin)?;
        let mut rest = bytes.as_slice();
        let mut times = Vec::new();
        while let Some(head) = Head::parse(rest) {
            let size = head.size.and_then(|size| usize::try_from(size).ok());
            let end = size.and_then(|size| head.bytes.checked_add(size));
            let Some(element) = end.and_then(|end| rest.get(..end)) else {
                break;
            };
            if head.id == SIMPLE_BLOCK
                && let Some(&[high, low]) = element.get(head.bytes + 1..head.bytes + 3)
            {
                times.push(begin_ms + u64::from(u16::from_be_bytes([high, low])));
            }
            rest = &rest[element.len()..];
        }
        let last = times.last().copied().unwrap_or(begin_ms);
        let before = times.iter().rev().nth(1).copied().unwrap_or(last);
        Ok(last + (last - before))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::super::tests::five_seconds;
    use super::*;
    use crate::record::fixture::children;
    use crate::record::webm::CUES;

    impl Truncate for Cursor<Vec<u8>> {
        fn truncate(&mut self, length: u64) -> io::Result<()> {
            self.get_mut().truncate(length as usize);
            Ok(())
        }
    }

    #[test]
    fn a_file_that_was_cut_anywhere_is_finished_again() {
        let whole = five_seconds().finish(5000).unwrap().into_inner();
        let parts = children(&whole);
        let first_cluster = parts.iter().find(|(id, ..)| *id == CLUSTER).unwrap().1;
        for length in (first_cluster..whole.len()).step_by(97) {
            let mut file = Cursor::new(whole[..length].to_vec());
            let ms = repair(&mut file).unwrap();
            let file = file.into_inner();
            let clusters: Vec<_> = children(&file)
                .into_iter()
                .filter(|(id, ..)| *id == CLUSTER)
                .collect();
            assert_eq!(ms, clusters.len() as u64 * 1000, "cut at {length}");
            let (last, ..) = *children(&file).last().unwrap();
            assert_eq!(last == CUES, !clusters.is_empty());
        }
    }

    #[test]
    fn a_finished_file_stays_as_it_is() {
        let whole = five_seconds().finish(5000).unwrap().into_inner();
        let mut file = Cursor::new(whole.clone());
        assert_eq!(repair(&mut file).unwrap(), 5000);
        assert_eq!(file.into_inner(), whole);
    }

    proptest! {
        #[test]
        fn any_file_is_refused_or_repaired(
            at in 0..600_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut file = five_seconds().finish(5000).unwrap().into_inner();
            for (old, new) in file[at..].iter_mut().zip(bytes) {
                *old = new;
            }
            let _ = repair(&mut Cursor::new(file));
        }
    }
}
