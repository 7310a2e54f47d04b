//! Finishes a file whose process was killed: cuts off what is not whole, adds the index.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{
    CLUSTER, CUE_MS, DURATION, DURATION_BYTES, Layout, SEEK_HEAD_BYTES, SEGMENT, SIMPLE_BLOCK,
    TIMESTAMP, TRACKS, close, info,
};
use crate::record::ebml::{self, Head};
use crate::record::pieces::{Entry, Repaired, Truncate, not_ours};

/// Bytes of a cluster that are read. A longer one is no file of ours.
const MAX_CLUSTER_BYTES: u64 = 64 << 20;

/// How long the last frame is thought to last at most, in milliseconds: what came before it may
/// have been a pause.
const MAX_LAST_MS: u64 = 1000;

/// How long the only frame is thought to last.
const USUAL_MS: u64 = 33;

/// Cuts a file of ours where it is no longer whole, and finishes it. A finished one stays as it
/// is.
///
/// # Errors
///
/// What the file system says, or [`io::ErrorKind::InvalidData`] when it is no file of ours.
pub fn repair<F: Read + Write + Seek + Truncate>(file: &mut F) -> io::Result<Repaired> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut reader = Reader { file, length };
    let (layout, mut at) = reader.layout()?;
    let mut index: Vec<Entry> = Vec::new();
    // When the last two frames were.
    let (mut before_ms, mut last_ms) = (0, 0);
    let mut frames = 0;
    while let Some(head) = reader.head(at)? {
        let begin = at + head.bytes as u64;
        let end = head.size.map(|size| begin + size);
        let Some(end) = end.filter(|end| head.id == CLUSTER && *end <= length) else {
            break;
        };
        let cluster = Cluster::read(&mut reader, begin, end)?;
        let ms = cluster.begin_ms;
        let is_due = |last: &Entry| ms >= last.ms.saturating_add(CUE_MS);
        if cluster.begins_with_keyframe && index.last().is_none_or(is_due) {
            index.push(Entry { ms, at });
        }
        for ms in cluster.times {
            (before_ms, last_ms) = (last_ms, ms);
            frames += 1;
        }
        at = end;
    }
    let lasts = match frames {
        1 => USUAL_MS,
        _ => last_ms.saturating_sub(before_ms).min(MAX_LAST_MS),
    };
    let ms = last_ms.saturating_add(lasts);
    file.truncate(at)?;
    close(file, layout, at, &index, ms)?;
    Ok(Repaired { ms, frames })
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

    /// Where the parts are, and where the first cluster is or would be. What is filled in at the
    /// end has its place: a file that others have made is not written to.
    fn layout(&mut self) -> io::Result<(Layout, u64)> {
        let ebml = self.head(0)?.ok_or_else(not_ours)?;
        let at = ebml.bytes as u64 + ebml.size.ok_or_else(not_ours)?;
        let is_ours = |head: &Head| head.id == SEGMENT && head.bytes == 12;
        let segment = self.head(at)?.filter(is_ours);
        let segment = at + segment.ok_or_else(not_ours)?.bytes as u64;
        let info_at = segment + SEEK_HEAD_BYTES as u64;
        let mut expected = info();
        let bytes = self.bytes(info_at, expected.len() as u64)?;
        let duration = expected.len() - DURATION_BYTES;
        expected.truncate(duration);
        let (said, filled_in) = bytes.split_at_checked(duration).ok_or_else(not_ours)?;
        let is_open = |head: Head| head.id == super::VOID || head.id == DURATION;
        if said != expected || !Head::parse(filled_in).is_some_and(is_open) {
            return Err(not_ours());
        }
        let tracks = info_at + bytes.len() as u64;
        let head = self.head(tracks)?.filter(|head| head.id == TRACKS);
        let head = head.ok_or_else(not_ours)?;
        let end = tracks + head.bytes as u64 + head.size.ok_or_else(not_ours)?;
        if end > self.length {
            return Err(not_ours());
        }
        let layout = Layout {
            segment,
            seek_head: segment,
            info: info_at,
            duration: info_at + duration as u64,
            tracks,
        };
        Ok((layout, end))
    }
}

/// What is read of a cluster.
struct Cluster {
    begin_ms: u64,
    begins_with_keyframe: bool,
    /// Of its frames.
    times: Vec<u64>,
}

impl Cluster {
    fn read<F: Read + Seek>(reader: &mut Reader<'_, F>, begin: u64, end: u64) -> io::Result<Self> {
        if end - begin > MAX_CLUSTER_BYTES {
            return Err(not_ours());
        }
        let bytes = reader.bytes(begin, end - begin)?;
        let mut rest = bytes.as_slice();
        let (head, time) = element(&mut rest).ok_or_else(not_ours)?;
        if head.id != TIMESTAMP {
            return Err(not_ours());
        }
        let mut cluster = Self {
            begin_ms: ebml::uint(time),
            begins_with_keyframe: false,
            times: Vec::new(),
        };
        while let Some((head, body)) = element(&mut rest) {
            if let (SIMPLE_BLOCK, &[_, high, low, flags, ..]) = (head.id, body) {
                if cluster.times.is_empty() {
                    cluster.begins_with_keyframe = flags & 0x80 != 0;
                }
                let relative = u64::from(u16::from_be_bytes([high, low]));
                cluster
                    .times
                    .push(cluster.begin_ms.saturating_add(relative));
            }
        }
        Ok(cluster)
    }
}

/// Takes the next element; `None` when it is not whole.
fn element<'a>(rest: &mut &'a [u8]) -> Option<(Head, &'a [u8])> {
    let head = Head::parse(rest)?;
    let size = usize::try_from(head.size?).ok()?;
    let (body, after) = rest.get(head.bytes..)?.split_at_checked(size)?;
    *rest = after;
    Some((head, body))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::Webm;
    use super::super::tests::five_seconds;
    use super::*;
    use crate::engine::codec::Codec;
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

    #[test]
    fn a_file_of_another_program_is_not_written_to() {
        let ours = five_seconds().finish(5000).unwrap().into_inner();
        fixture::assert_refused(&ours, b"corelay", b"another", repair);
    }

    #[test]
    fn absurd_times_are_read() {
        let out = Cursor::new(Vec::new());
        let mut webm = Webm::new(out, Codec::Vp8, Some(&fixture::SETUP), false).unwrap();
        webm.write(u64::MAX - 1, true, &[1]).unwrap();
        webm.write(u64::MAX, true, &[1]).unwrap();
        let mut file = webm.finish(3).unwrap();
        assert_eq!(repair(&mut file).unwrap().frames, 2);
        let mut webm = Webm::new(Cursor::new(Vec::new()), Codec::Opus, None, false).unwrap();
        webm.write(9000, true, &[1]).unwrap();
        webm.flush().unwrap();
        webm.write(0, true, &[1]).unwrap();
        let mut file = webm.finish(3).unwrap();
        assert_eq!(repair(&mut file).unwrap(), Repaired { ms: 0, frames: 2 });
    }
}
