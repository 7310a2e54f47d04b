//! Finishes a file whose process was killed: cuts off what is not whole, adds the index.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{
    CLUSTER, CUE_MS, DURATION_BYTES, INFO, Layout, SEGMENT, SIMPLE_BLOCK, TIMESTAMP, TRACKS, close,
};
use crate::record::ebml::{self, Head};
use crate::record::pieces::{Entry, Truncate, not_ours};

/// Bytes of a cluster that are read to find its time and its first block's flags.
const PEEK_BYTES: usize = 64;

/// Bytes of a cluster that are read to find its last block. A longer one is no file of ours.
const MAX_CLUSTER_BYTES: u64 = 64 << 20;

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
    let mut index: Vec<Entry> = Vec::new();
    let mut last = None;
    while let Some(head) = reader.head(at)? {
        let end = at + head.bytes as u64 + head.size.unwrap_or(u64::from(u32::MAX));
        if head.id != CLUSTER || end > length {
            break;
        }
        let (ms, is_keyframe) = reader.beginning(at + head.bytes as u64)?;
        if is_keyframe && index.last().is_none_or(|entry| ms >= entry.ms + CUE_MS) {
            index.push(Entry { ms, at });
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

struct Reader<'a, F> {
    file: &'a mut F,
    length: u64,
}

impl<F: Read + Seek> Reader<'_, F> {
    /// Up to `bytes` bytes from `at`.
    fn bytes(&mut self, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = bytes.min(self.length.saturating_sub(at));
        let mut read = vec![0; usize::try_from(bytes).map_err(|_| not_ours())?];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut read)?;
        Ok(read)
    }

    fn head(&mut self, at: u64) -> io::Result<Option<Head>> {
        Ok(Head::parse(&self.bytes(at, 12)?))
    }

    /// Where the parts are, and where the first cluster is or would be.
    fn layout(&mut self) -> io::Result<(Layout, u64)> {
        let ebml = self.head(0)?.ok_or_else(not_ours)?;
        let mut at = ebml.bytes as u64 + ebml.size.ok_or_else(not_ours)?;
        let is_ours = |head: &Head| head.id == SEGMENT && head.bytes == 12;
        let segment = self.head(at)?.filter(is_ours);
        at += segment.ok_or_else(not_ours)?.bytes as u64;
        let mut layout = Layout {
            segment: at,
            seek_head: at,
            ..Layout::default()
        };
        loop {
            let head = self.head(at)?.ok_or_else(not_ours)?;
            let end = at + head.bytes as u64 + head.size.ok_or_else(not_ours)?;
            if end > self.length {
                return Err(not_ours());
            }
            match head.id {
                INFO => (layout.info, layout.duration) = (at, end - DURATION_BYTES as u64),
                TRACKS if layout.info == 0 => return Err(not_ours()),
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
        let time = time.ok_or_else(not_ours)?;
        let end = time.bytes + time.size.ok_or_else(not_ours)? as usize;
        let ms = ebml::uint(bytes.get(time.bytes..end).ok_or_else(not_ours)?);
        let block = bytes.get(end..).unwrap_or_default();
        let flags = Head::parse(block).and_then(|head| block.get(head.bytes + 3));
        Ok((ms, flags.is_some_and(|flags| flags & 0x80 != 0)))
    }

    /// When the last frame of a cluster ends, if it lasts as long as the one before.
    fn end_ms(&mut self, begin: u64, end: u64) -> io::Result<u64> {
        if end - begin > MAX_CLUSTER_BYTES {
            return Err(not_ours());
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
    use super::super::tests::five_seconds;
    use super::*;
    use crate::record::fixture::{self, children};
    use crate::record::webm::CUES;

    #[test]
    fn a_file_that_was_cut_anywhere_is_finished_again() {
        let whole = five_seconds().finish(5000).unwrap().into_inner();
        let parts = children(&whole);
        let first_cluster = parts.iter().find(|(id, ..)| *id == CLUSTER).unwrap().1;
        fixture::assert_cuts_are_repaired(&whole, first_cluster, repair, |file| {
            let parts = children(file);
            let clusters = parts.iter().filter(|(id, ..)| *id == CLUSTER).count();
            assert_eq!(parts.last().unwrap().0 == CUES, clusters > 0);
            clusters
        });
    }

    #[test]
    fn any_file_is_refused_or_repaired() {
        let whole = five_seconds().finish(5000).unwrap().into_inner();
        fixture::assert_damage_is_survived(&whole, repair);
    }
}
