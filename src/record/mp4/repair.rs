//! Finishes a file whose process was killed: cuts off what is not whole, adds the index.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::{COUNT_AT, ENTRY_BYTES, FTYP, IS_SYNC, MEHD, MOOF_HEAD_BYTES, TIME_AT, close};
use crate::record::pieces::{Entry, Repaired, Truncate, not_ours};

/// Bytes of a `moof` that are read. A longer one is no file of ours.
const MAX_MOOF_BYTES: u64 = 1 << 20;

/// Cuts a file of ours where it is no longer whole, and finishes it. A finished one stays as it
/// is.
///
/// # Errors
///
/// What the file system says, or [`io::ErrorKind::InvalidData`] when it is no file of ours.
pub fn repair<F: Read + Write + Seek + Truncate>(file: &mut F) -> io::Result<Repaired> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut at = 0;
    for (wanted, begins) in [(b"ftyp", FTYP), (b"moov", &[])] {
        let (kind, bytes) = head(file, at, length)?.ok_or_else(not_ours)?;
        if kind != *wanted || !read(file, at + 8, begins.len())?.starts_with(begins) {
            return Err(not_ours());
        }
        at += bytes;
    }
    // What is filled in at the end has its place: a file that others have made is not written to.
    let duration_at = at - 8;
    let mehd_at = at.checked_sub(8 + MEHD.len() as u64).ok_or_else(not_ours)?;
    if read(file, mehd_at, MEHD.len())? != MEHD {
        return Err(not_ours());
    }
    let mut index = Vec::new();
    let mut repaired = Repaired { ms: 0, frames: 0 };
    while let Some((kind, bytes)) = head(file, at, length)? {
        if kind != *b"moof" || bytes > MAX_MOOF_BYTES {
            break;
        }
        let Some((data, data_bytes)) = head(file, at + bytes, length)? else {
            break;
        };
        if data != *b"mdat" {
            break;
        }
        let moof = read(file, at, bytes as usize)?;
        let fragment = Fragment::parse(&moof).ok_or_else(not_ours)?;
        if fragment.is_keyframe {
            let ms = fragment.begin_ms;
            index.push(Entry { ms, at });
        }
        repaired.ms = fragment.end_ms;
        repaired.frames += fragment.frames;
        at += bytes + data_bytes;
    }
    file.truncate(at)?;
    close(file, duration_at, at, &index, repaired.ms)?;
    Ok(repaired)
}

fn read<F: Read + Seek>(file: &mut F, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut read)?;
    Ok(read)
}

/// Kind and bytes of the box at `at`; `None` when it is not whole.
fn head<F: Read + Seek>(file: &mut F, at: u64, length: u64) -> io::Result<Option<([u8; 4], u64)>> {
    if at + 8 > length {
        return Ok(None);
    }
    let bytes = read(file, at, 8)?;
    let size = u64::from(word(&bytes, 0).unwrap_or(0));
    let kind = [bytes[4], bytes[5], bytes[6], bytes[7]];
    Ok((size >= 8 && at + size <= length).then_some((kind, size)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(
        bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte)),
    )
}

/// What is read of a fragment.
struct Fragment {
    begin_ms: u64,
    end_ms: u64,
    is_keyframe: bool,
    frames: u64,
}

impl Fragment {
    fn parse(moof: &[u8]) -> Option<Self> {
        let high = u64::from(word(moof, TIME_AT)?);
        let begin_ms = high << 32 | u64::from(word(moof, TIME_AT + 4)?);
        let count = word(moof, COUNT_AT)? as usize;
        if moof.len() != MOOF_HEAD_BYTES + count.checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let entries = moof.get(MOOF_HEAD_BYTES..)?.chunks_exact(ENTRY_BYTES);
        let lasts: u64 = entries.map(|e| u64::from(word(e, 0).unwrap_or(0))).sum();
        Some(Self {
            begin_ms,
            end_ms: begin_ms.checked_add(lasts)?,
            is_keyframe: word(moof, MOOF_HEAD_BYTES + 8)? == IS_SYNC,
            frames: count as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{boxes, five_seconds};
    use super::*;
    use crate::record::fixture;

    #[test]
    fn a_file_that_was_cut_anywhere_is_finished_again() {
        let whole = five_seconds().finish(5000).unwrap().into_inner();
        let first = boxes(&whole)[2].1;
        fixture::assert_cuts_are_repaired(&whole, first, repair, |file| {
            assert_eq!(boxes(file).last().unwrap().0, *b"mfra");
            boxes(file)
                .iter()
                .filter(|(kind, ..)| kind == b"moof")
                .count()
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
        fixture::assert_refused(&ours, FTYP, b"isom\0\0\0\0iso6isommp41", repair);
        fixture::assert_refused(&ours, MEHD, b"\0\0\0\x14mexx\x01\0\0\0", repair);
    }
}
