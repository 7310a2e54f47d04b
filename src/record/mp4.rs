//! Fragmented MP4 (ISO/IEC 14496-12): one track in one file that plays wherever it is cut.
//!
//! The beginning says what the track is; each fragment after it says where and how long its frames
//! are, and is written whole about once a second. Finishing adds an index and fills in how long
//! the file is.

mod repair;

use std::io::{self, Seek, SeekFrom, Write};

use super::depacketise::Setup;
use super::pieces::{Entry, Pieces, Truncate};
use crate::engine::codec::Codec;
pub use repair::repair;

/// Units of time in a second: milliseconds.
const TIMESCALE: u32 = 1000;

/// Time that one fragment spans, in milliseconds: what is lost when the process is killed.
const FRAGMENT_MS: u64 = 1000;

/// Bytes of one fragment. Beyond it the next one begins.
const FRAGMENT_BYTES: usize = 4 << 20;

/// How long a frame is thought to last when nothing came after it, in milliseconds.
const USUAL_MS: u32 = 33;

/// Pictures are further apart than this.
const CLOSEST_MS: u32 = 8;

/// The only track's number.
const TRACK: u32 = 1;

/// Sample flags (§8.8.3.1): it refers to no other, or it does and is no place to begin.
const IS_SYNC: u32 = 0x0200_0000;
const IS_NOT_SYNC: u32 = 0x0101_0000;

/// Bytes of a `moof` before its samples' table, and of one entry of that.
const MOOF_HEAD_BYTES: usize = 8 + 16 + 8 + 16 + 20 + 20;
const ENTRY_BYTES: usize = 12;
/// Where in a `moof` the time of its first sample is, and how many samples there are.
const TIME_AT: usize = 8 + 16 + 8 + 16 + 12;
const COUNT_AT: usize = TIME_AT + 8 + 12;

/// What a file of ours begins with: which brands it is of (§4.3).
const FTYP: &[u8] = b"iso6\0\0\0\0iso6isommp41";

/// What is before the duration of the whole (§8.8.2): the box's size, its name, its version.
const MEHD: &[u8] = b"\0\0\0\x14mehd\x01\0\0\0";

/// A file that is being written.
#[derive(Debug)]
pub struct Mp4<W> {
    file: Pieces<W>,
    /// Where the file's duration is filled in.
    duration_at: u64,
    fragments: u32,
    samples: Vec<Sample>,
    data: Vec<u8>,
    index: Vec<Entry>,
}

/// A frame that is not written yet.
#[derive(Debug, Clone, Copy)]
struct Sample {
    ms: u64,
    bytes: u32,
    is_keyframe: bool,
}

impl<W: Write + Seek + Truncate> Mp4<W> {
    /// Begins a file of Opus or H264.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn new(out: W, codec: Codec, setup: Option<&Setup>) -> io::Result<Self> {
        let (head, duration_at) = head(codec, setup);
        Ok(Self {
            file: Pieces::new(out, &head)?,
            duration_at,
            fragments: 0,
            samples: Vec::new(),
            data: Vec::new(),
            index: Vec::new(),
        })
    }

    /// Appends a frame. Frames come in the order of their times.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&mut self, ms: u64, is_keyframe: bool, data: &[u8]) -> io::Result<()> {
        let is_over = self.samples.first().is_some_and(|first| {
            ms.saturating_sub(first.ms) >= FRAGMENT_MS
                || self.data.len() + data.len() > FRAGMENT_BYTES
        });
        if is_over {
            self.end_fragment(Some(ms))?;
        }
        self.samples.push(Sample {
            ms,
            bytes: data.len() as u32,
            is_keyframe,
        });
        self.data.extend_from_slice(data);
        Ok(())
    }

    /// Writes what there is, so that a process that is killed does not lose it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn flush(&mut self) -> io::Result<()> {
        self.end_fragment(None)
    }

    /// Ends the file, which lasts `end_ms`, and gives it back.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn finish(mut self, end_ms: u64) -> io::Result<W> {
        self.end_fragment(Some(end_ms))?;
        let end = self.file.written();
        let mut out = self.file.into_inner();
        close(&mut out, self.duration_at, end, &self.index, end_ms)?;
        Ok(out)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.file.written()
    }

    /// Writes the open fragment, after which the next frame is at `next_ms`, if that is known.
    fn end_fragment(&mut self, next_ms: Option<u64>) -> io::Result<()> {
        let Some(first) = self.samples.first().copied() else {
            return Ok(());
        };
        let number = self.fragments + 1;
        let moof_bytes = MOOF_HEAD_BYTES + self.samples.len() * ENTRY_BYTES;
        let mut out = Vec::with_capacity(moof_bytes + 8 + self.data.len());
        append_box(&mut out, b"moof", |moof| {
            append_full(moof, b"mfhd", 0, |b| append_u32(b, number));
            append_box(moof, b"traf", |traf| {
                // Offsets count from the `moof` (§8.8.7.1).
                append_full(traf, b"tfhd", 0x0002_0000, |b| append_u32(b, TRACK));
                append_full(traf, b"tfdt", 0x0100_0000, |b| {
                    b.extend(first.ms.to_be_bytes());
                });
                // Offset of the data; duration, size and flags of each sample.
                append_full(traf, b"trun", 0x0000_0701, |b| {
                    append_u32(b, self.samples.len() as u32);
                    append_u32(b, (moof_bytes + 8) as u32);
                    append_entries(b, &self.samples, next_ms);
                });
            });
        });
        debug_assert_eq!(
            out.len(),
            moof_bytes,
            "the layout is the one that is read back"
        );
        append_u32(&mut out, (8 + self.data.len()) as u32);
        out.extend_from_slice(b"mdat");
        out.extend_from_slice(&self.data);
        // A fragment that does not fit waits for another try.
        let at = self.file.append(&out)?;
        self.fragments = number;
        if first.is_keyframe {
            self.index.push(Entry { ms: first.ms, at });
        }
        self.data.clear();
        self.samples.clear();
        Ok(())
    }
}

fn append_entries(out: &mut Vec<u8>, samples: &[Sample], next_ms: Option<u64>) {
    let mut before = USUAL_MS;
    for (index, sample) in samples.iter().enumerate() {
        let next = samples.get(index + 1).map(|next| next.ms).or(next_ms);
        let lasts = next.map(|next| next.saturating_sub(sample.ms));
        // A pause is no frame that lasts: the next fragment says when it begins.
        let lasts = lasts.and_then(|ms| u32::try_from(ms).ok());
        before = lasts.unwrap_or(before);
        append_u32(out, before);
        append_u32(out, sample.bytes);
        append_u32(
            out,
            if sample.is_keyframe {
                IS_SYNC
            } else {
                IS_NOT_SYNC
            },
        );
    }
}

/// Adds the index at `end` and fills in how long the file is.
fn close(
    out: &mut (impl Write + Seek),
    duration_at: u64,
    end: u64,
    index: &[Entry],
    end_ms: u64,
) -> io::Result<()> {
    let mut mfra = Vec::new();
    append_box(&mut mfra, b"mfra", |mfra| {
        append_full(mfra, b"tfra", 0x0100_0000, |b| {
            append_u32(b, TRACK);
            append_u32(b, 0);
            append_u32(b, index.len() as u32);
            for entry in index {
                b.extend(entry.ms.to_be_bytes());
                b.extend(entry.at.to_be_bytes());
                // Which track, run and sample, in a byte each.
                b.extend([1, 1, 1]);
            }
        });
        let bytes = mfra.len() as u32 + 8 + 16;
        append_full(mfra, b"mfro", 0, |b| append_u32(b, bytes));
    });
    out.seek(SeekFrom::Start(end))?;
    out.write_all(&mfra)?;
    out.seek(SeekFrom::Start(duration_at))?;
    out.write_all(&end_ms.to_be_bytes())?;
    out.seek(SeekFrom::End(0))?;
    out.flush()
}

fn append_u32(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

/// Appends a box (§4.2).
fn append_box(out: &mut Vec<u8>, kind: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inside = Vec::new();
    fill(&mut inside);
    append_u32(out, (8 + inside.len()) as u32);
    out.extend_from_slice(kind);
    out.append(&mut inside);
}

/// Appends a box with a version in the top byte of `flags`.
fn append_full(out: &mut Vec<u8>, kind: &[u8; 4], flags: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    append_box(out, kind, |inside| {
        append_u32(inside, flags);
        fill(inside);
    });
}

/// Everything before the first fragment, and where in it the duration is.
fn head(codec: Codec, setup: Option<&Setup>) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    append_box(&mut out, b"ftyp", |b| {
        b.extend_from_slice(FTYP);
    });
    append_box(&mut out, b"moov", |moov| {
        append_full(moov, b"mvhd", 0, |b| {
            append_zeros(b, 8);
            append_u32(b, TIMESCALE);
            append_u32(b, 0);
            append_u32(b, 0x0001_0000);
            b.extend([1, 0]);
            append_zeros(b, 10);
            append_matrix(b);
            append_zeros(b, 24);
            append_u32(b, TRACK + 1);
        });
        append_box(moov, b"trak", |trak| append_track(trak, codec, setup));
        append_box(moov, b"mvex", |mvex| {
            append_full(mvex, b"trex", 0, |b| {
                append_u32(b, TRACK);
                append_u32(b, 1);
                append_zeros(b, 12);
            });
            // Last, so that its number is the last of the head.
            append_full(mvex, b"mehd", 0x0100_0000, |b| append_zeros(b, 8));
        });
    });
    let duration_at = out.len() as u64 - 8;
    (out, duration_at)
}

fn append_track(trak: &mut Vec<u8>, codec: Codec, setup: Option<&Setup>) {
    let is_audio = codec == Codec::Opus;
    let size = setup.map(|setup| setup.size).unwrap_or_default();
    append_full(trak, b"tkhd", 3, |b| {
        append_zeros(b, 8);
        append_u32(b, TRACK);
        append_zeros(b, 20);
        b.extend(if is_audio { [1, 0] } else { [0, 0] });
        append_zeros(b, 2);
        append_matrix(b);
        append_u32(b, u32::from(size.width) << 16);
        append_u32(b, u32::from(size.height) << 16);
    });
    append_box(trak, b"mdia", |mdia| {
        append_full(mdia, b"mdhd", 0, |b| {
            append_zeros(b, 8);
            append_u32(b, TIMESCALE);
            append_u32(b, 0);
            // `und`, as three letters of five bits.
            append_u32(b, 0x55C4_0000);
        });
        append_full(mdia, b"hdlr", 0, |b| {
            append_zeros(b, 4);
            b.extend_from_slice(if is_audio { b"soun" } else { b"vide" });
            append_zeros(b, 12);
            b.extend_from_slice(b"corelay\0");
        });
        append_box(mdia, b"minf", |minf| {
            if is_audio {
                append_full(minf, b"smhd", 0, |b| append_zeros(b, 4));
            } else {
                append_full(minf, b"vmhd", 1, |b| append_zeros(b, 8));
            }
            append_box(minf, b"dinf", |dinf| {
                append_full(dinf, b"dref", 0, |b| {
                    append_u32(b, 1);
                    append_full(b, b"url ", 1, |_| {});
                });
            });
            append_box(minf, b"stbl", |stbl| {
                append_full(stbl, b"stsd", 0, |b| {
                    append_u32(b, 1);
                    append_format(b, codec, setup);
                });
                append_full(stbl, b"stts", 0, |b| append_steps(b, is_audio));
                append_full(stbl, b"stsc", 0, |b| append_u32(b, 0));
                append_full(stbl, b"stsz", 0, |b| append_zeros(b, 8));
                append_full(stbl, b"stco", 0, |b| append_u32(b, 0));
            });
        });
    });
}

/// How far frames are apart (§8.6.1.2). All are in fragments, which say so for each; but before it
/// has read them ffmpeg guesses how many pictures a second there may be, from the first few, and
/// would complain of those that then come closer. So none are said to be so far apart as pictures
/// are at least.
fn append_steps(out: &mut Vec<u8>, is_audio: bool) {
    if is_audio {
        return append_u32(out, 0);
    }
    append_u32(out, 1);
    append_u32(out, 0);
    append_u32(out, CLOSEST_MS);
}

/// The sample entry, with what a decoder must know.
fn append_format(out: &mut Vec<u8>, codec: Codec, setup: Option<&Setup>) {
    let is_audio = codec == Codec::Opus;
    let entry = if is_audio { b"Opus" } else { b"avc1" };
    append_box(out, entry, |b| {
        append_zeros(b, 6);
        b.extend([0, 1]);
        if is_audio {
            // §12.2.3: two channels of 16 bits, 48 kHz.
            append_zeros(b, 8);
            b.extend([0, 2, 0, 16, 0, 0, 0, 0]);
            append_u32(b, 48_000 << 16);
            // "Encapsulation of Opus in ISO BMFF" §4.3.2: no pre-skip.
            append_box(b, b"dOps", |b| {
                b.extend([0, 2, 0, 0]);
                append_u32(b, 48_000);
                b.extend([0, 0, 0]);
            });
            return;
        }
        let Some(setup) = setup else { return };
        append_zeros(b, 16);
        b.extend(setup.size.width.to_be_bytes());
        b.extend(setup.size.height.to_be_bytes());
        // 72 dots per inch, one frame a sample, no name, 24 bits.
        b.extend([0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1]);
        append_zeros(b, 32);
        b.extend([0, 0x18, 0xFF, 0xFF]);
        append_box(b, b"avcC", |b| b.extend_from_slice(&setup.private));
    });
}

fn append_zeros(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, 0);
}

/// The matrix that changes nothing (§6.2.2).
fn append_matrix(out: &mut Vec<u8>) {
    for number in [0x0001_0000, 0, 0, 0, 0x0001_0000, 0, 0, 0, 0x4000_0000] {
        append_u32(out, number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::record::fixture::SETUP;

    /// Five seconds of 25 pictures each, with a keyframe every second one.
    pub(crate) fn five_seconds() -> Mp4<Cursor<Vec<u8>>> {
        let out = Cursor::new(Vec::new());
        let mut mp4 = Mp4::new(out, Codec::H264, Some(&SETUP)).unwrap();
        for frame in 0..125_u64 {
            let data = [frame as u8; 50];
            mp4.write(frame * 40, frame % 50 == 0, &data).unwrap();
        }
        mp4
    }

    /// The boxes of the file: kind, place, bytes.
    pub(crate) fn boxes(file: &[u8]) -> Vec<([u8; 4], usize, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < file.len() {
            let head: [u8; 8] = file[at..at + 8].try_into().unwrap();
            let bytes = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            assert!(at + bytes <= file.len(), "a box is cut short");
            found.push(([head[4], head[5], head[6], head[7]], at, bytes));
            at += bytes;
        }
        found
    }

    #[test]
    fn fragments_are_whole_and_a_second_long() {
        let file = five_seconds().finish(5000).unwrap().into_inner();
        let kinds: Vec<_> = boxes(&file).into_iter().map(|(kind, ..)| kind).collect();
        let mut expected = vec![*b"ftyp", *b"moov"];
        for _ in 0..5 {
            expected.extend([*b"moof", *b"mdat"]);
        }
        expected.push(*b"mfra");
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_finished_file_says_how_long_it_is_and_how_long_its_index_is() {
        let file = five_seconds().finish(5000).unwrap().into_inner();
        assert!(file.windows(8).any(|bytes| bytes == 5000_u64.to_be_bytes()));
        let (_, _, bytes) = *boxes(&file).last().unwrap();
        assert!(file.ends_with(&(bytes as u32).to_be_bytes()));
    }

    #[test]
    fn how_close_pictures_come_is_said_before_the_first() {
        let file = five_seconds().finish(5000).unwrap().into_inner();
        let said = b"\0\0\0\x18stts\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x08";
        assert!(file.windows(said.len()).any(|bytes| bytes == said));
    }
}
