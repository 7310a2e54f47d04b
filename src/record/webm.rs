//! Matroska (RFC 9559) and its subset WebM: one track in one file that plays wherever it is cut.
//!
//! The segment's size is unknown until the file is finished; clusters are written whole, with
//! their size, about once a second. Finishing adds an index and fills in what was left open at the
//! beginning: the duration, the segment's size, and where the index is.

mod repair;

use std::io::{self, Seek, SeekFrom, Write};

use super::depacketise::Setup;
use super::ebml::{
    self, Id, append_bytes, append_float, append_id, append_master, append_parts, append_size,
    append_uint, append_wide_uint, wide_size,
};
use super::pieces::{Entry, Pieces, Truncate};
use crate::engine::codec::Codec;
pub use repair::repair;

/// Time that one cluster spans, in milliseconds: what is lost when the process is killed.
pub const CLUSTER_MS: u64 = 1000;

/// Time between two entries of the index, in milliseconds.
const CUE_MS: u64 = 2000;

/// Nanoseconds of one frame at the highest frame rate. Frames come as irregularly as cameras send
/// them; a program that counts time in frames must not guess longer ones from the first few.
const FRAME_NS: u64 = 8_333_333;

/// Bytes of one cluster. Beyond it the next one begins.
const CLUSTER_BYTES: usize = 4 << 20;

const EBML: Id = 0x1A45_DFA3;
const SEGMENT: Id = 0x1853_8067;
const SEEK_HEAD: Id = 0x114D_9B74;
const SEEK: Id = 0x4DBB;
const SEEK_ID: Id = 0x53AB;
const SEEK_POSITION: Id = 0x53AC;
const VOID: Id = 0xEC;
const INFO: Id = 0x1549_A966;
const DURATION: Id = 0x4489;
const TRACKS: Id = 0x1654_AE6B;
const CLUSTER: Id = 0x1F43_B675;
const TIMESTAMP: Id = 0xE7;
const SIMPLE_BLOCK: Id = 0xA3;
const CUES: Id = 0x1C53_BB6B;

/// Bytes of a cluster's ID and size.
const CLUSTER_HEAD_BYTES: usize = 12;
/// Bytes that are left for the seek head.
const SEEK_HEAD_BYTES: usize = 96;
/// Bytes of the duration: its ID, its size, eight bytes of number.
const DURATION_BYTES: usize = 11;
/// The only track's number.
const TRACK: u64 = 1;

/// A file that is being written.
#[derive(Debug)]
pub struct Webm<W> {
    file: Pieces<W>,
    layout: Layout,
    cluster: Cluster,
    index: Vec<Entry>,
}

/// Where the parts are that are filled in at the end, from the beginning of the file.
#[derive(Debug, Clone, Copy, Default)]
struct Layout {
    /// What is in the segment; positions in the file count from there.
    segment: u64,
    /// What is reserved for the seek head.
    seek_head: u64,
    info: u64,
    duration: u64,
    tracks: u64,
}

/// The cluster that is not written yet. Its memory serves all clusters of the file, and each frame
/// is copied once: into its place there.
#[derive(Debug, Default)]
struct Cluster {
    begin_ms: u64,
    begins_with_keyframe: bool,
    /// What is written, from the cluster's head on; empty while there is no frame.
    piece: Vec<u8>,
}

impl Cluster {
    /// Begins it, with its size left open.
    fn begin(&mut self, ms: u64, is_keyframe: bool) {
        self.begin_ms = ms;
        self.begins_with_keyframe = is_keyframe;
        append_id(&mut self.piece, CLUSTER);
        append_size(&mut self.piece, 0);
        append_uint(&mut self.piece, TIMESTAMP, ms);
    }

    /// Appends a frame, as a block of the only track (RFC 9559 §10.2).
    fn push(&mut self, ms: u64, is_keyframe: bool, data: &[u8]) {
        let relative = i16::try_from(ms.saturating_sub(self.begin_ms)).unwrap_or(i16::MAX);
        let [high, low] = relative.to_be_bytes();
        let flags = if is_keyframe { 0x80 } else { 0 };
        let head = [0x80 | TRACK as u8, high, low, flags];
        append_parts(&mut self.piece, SIMPLE_BLOCK, &head, data);
    }

    /// The whole cluster, to be written.
    fn close(&mut self) -> &[u8] {
        let bytes = (self.piece.len() - CLUSTER_HEAD_BYTES) as u64;
        self.piece[CLUSTER_HEAD_BYTES - 8..CLUSTER_HEAD_BYTES].copy_from_slice(&wide_size(bytes));
        &self.piece
    }
}

impl<W: Write + Seek + Truncate> Webm<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn new(
        out: W,
        codec: Codec,
        setup: Option<&Setup>,
        is_encrypted: bool,
    ) -> io::Result<Self> {
        let (head, layout) = head(codec, setup, is_encrypted);
        Ok(Self {
            file: Pieces::new(out, &head)?,
            layout,
            cluster: Cluster::default(),
            index: Vec::new(),
        })
    }

    /// Appends a frame. Frames come in the order of their times.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&mut self, ms: u64, is_keyframe: bool, data: &[u8]) -> io::Result<()> {
        let Cluster {
            begin_ms, piece, ..
        } = &self.cluster;
        let is_long = ms.saturating_sub(*begin_ms) >= CLUSTER_MS;
        if !piece.is_empty() && (is_long || piece.len() + data.len() > CLUSTER_BYTES) {
            self.flush()?;
        }
        if self.cluster.piece.is_empty() {
            self.cluster.begin(ms, is_keyframe);
        }
        self.cluster.push(ms, is_keyframe, data);
        Ok(())
    }

    /// Writes what there is, so that a process that is killed does not lose it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.cluster.piece.is_empty() {
            return Ok(());
        }
        // A cluster that does not fit waits for another try.
        let at = self.file.append(self.cluster.close())?;
        let ms = self.cluster.begin_ms;
        let is_due = |last: &Entry| ms >= last.ms + CUE_MS;
        if self.cluster.begins_with_keyframe && self.index.last().is_none_or(is_due) {
            self.index.push(Entry { ms, at });
        }
        self.cluster.piece.clear();
        Ok(())
    }

    /// Ends the file, which lasts `end_ms`, and gives it back.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn finish(mut self, end_ms: u64) -> io::Result<W> {
        self.flush()?;
        let end = self.file.written();
        let mut out = self.file.into_inner();
        close(&mut out, self.layout, end, &self.index, end_ms)?;
        Ok(out)
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.file.written()
    }
}

/// Adds the index at `end` and fills in what was left open.
fn close(
    out: &mut (impl Write + Seek),
    layout: Layout,
    end: u64,
    index: &[Entry],
    end_ms: u64,
) -> io::Result<()> {
    let cues_at = end - layout.segment;
    let mut cues = Vec::new();
    append_master(&mut cues, CUES, |cues| {
        for entry in index {
            append_master(cues, 0xBB, |point| {
                append_uint(point, 0xB3, entry.ms);
                append_master(point, 0xB7, |place| {
                    append_uint(place, 0xF7, TRACK);
                    append_uint(place, 0xF1, entry.at - layout.segment);
                });
            });
        }
    });
    // An index of nothing is not allowed (RFC 9559 §5.1.5).
    if index.is_empty() {
        cues.clear();
    }
    out.seek(SeekFrom::Start(end))?;
    out.write_all(&cues)?;
    out.seek(SeekFrom::Start(layout.seek_head))?;
    out.write_all(&seek_head(layout, (!index.is_empty()).then_some(cues_at)))?;
    out.seek(SeekFrom::Start(layout.duration))?;
    let mut duration = Vec::new();
    append_float(&mut duration, DURATION, end_ms as f64);
    out.write_all(&duration)?;
    out.seek(SeekFrom::Start(layout.segment - 8))?;
    let mut size = Vec::new();
    append_size(&mut size, cues_at + cues.len() as u64);
    out.write_all(&size)?;
    out.seek(SeekFrom::End(0))?;
    out.flush()
}

/// Where the parts are, padded to [`SEEK_HEAD_BYTES`].
fn seek_head(layout: Layout, cues: Option<u64>) -> Vec<u8> {
    let parts = [
        (INFO, Some(layout.info - layout.segment)),
        (TRACKS, Some(layout.tracks - layout.segment)),
        (CUES, cues),
    ];
    let mut out = Vec::new();
    append_master(&mut out, SEEK_HEAD, |list| {
        for (id, position) in parts {
            let Some(position) = position else { continue };
            append_master(list, SEEK, |seek| {
                append_bytes(seek, SEEK_ID, &id.to_be_bytes());
                append_wide_uint(seek, SEEK_POSITION, position);
            });
        }
    });
    let left = SEEK_HEAD_BYTES - out.len();
    append_void(&mut out, left);
    out
}

/// Appends an element of `bytes` bytes, at least 2, that says nothing.
fn append_void(out: &mut Vec<u8>, bytes: usize) {
    append_bytes(out, VOID, &vec![0; bytes - 2]);
}

/// Everything before the first cluster.
fn head(codec: Codec, setup: Option<&Setup>, is_encrypted: bool) -> (Vec<u8>, Layout) {
    let mut out = Vec::new();
    let doc_type: &[u8] = if codec == Codec::H264 {
        b"matroska"
    } else {
        b"webm"
    };
    append_master(&mut out, EBML, |head| {
        append_uint(head, 0x4286, 1);
        append_uint(head, 0x42F7, 1);
        append_uint(head, 0x42F2, 4);
        append_uint(head, 0x42F3, 8);
        append_bytes(head, 0x4282, doc_type);
        append_uint(head, 0x4287, 4);
        append_uint(head, 0x4285, 2);
    });
    append_id(&mut out, SEGMENT);
    out.extend(ebml::UNKNOWN_SIZE);
    let mut layout = Layout {
        segment: out.len() as u64,
        seek_head: out.len() as u64,
        ..Layout::default()
    };
    append_void(&mut out, SEEK_HEAD_BYTES);
    layout.info = out.len() as u64;
    out.extend(info());
    layout.duration = (out.len() - DURATION_BYTES) as u64;
    layout.tracks = out.len() as u64;
    append_master(&mut out, TRACKS, |tracks| {
        append_master(tracks, 0xAE, |track| {
            append_track(track, codec, setup);
            if is_encrypted {
                append_encryption(track);
            }
        });
    });
    (out, layout)
}

/// What the file is, with room for how long it is.
fn info() -> Vec<u8> {
    let mut out = Vec::new();
    append_master(&mut out, INFO, |info| {
        append_uint(info, 0x2A_D7B1, 1_000_000);
        append_bytes(info, 0x4D80, b"corelay");
        append_bytes(info, 0x5741, b"corelay");
        append_void(info, DURATION_BYTES);
    });
    out
}

fn append_track(track: &mut Vec<u8>, codec: Codec, setup: Option<&Setup>) {
    let name: &[u8] = match codec {
        Codec::Opus => b"A_OPUS",
        Codec::Vp8 => b"V_VP8",
        Codec::Vp9 => b"V_VP9",
        Codec::Av1 => b"V_AV1",
        Codec::H264 => b"V_MPEG4/ISO/AVC",
    };
    let is_audio = codec == Codec::Opus;
    append_uint(track, 0xD7, TRACK);
    append_uint(track, 0x73C5, TRACK);
    append_uint(track, 0x83, if is_audio { 2 } else { 1 });
    append_uint(track, 0x9C, 0);
    append_bytes(track, 0x86, name);
    if is_audio {
        append_bytes(track, 0x63A2, &opus_head());
        // RFC 9559 §26: 80 ms are decoded before what is heard after a jump.
        append_uint(track, 0x56BB, 80_000_000);
        append_master(track, 0xE1, |audio| {
            append_float(audio, 0xB5, 48_000.0);
            append_uint(audio, 0x9F, 2);
        });
        return;
    }
    let Some(setup) = setup else { return };
    if !setup.private.is_empty() {
        append_bytes(track, 0x63A2, &setup.private);
    }
    append_uint(track, 0x23_E383, FRAME_NS);
    append_master(track, 0xE0, |video| {
        append_uint(video, 0xB0, u64::from(setup.size.width));
        append_uint(video, 0xBA, u64::from(setup.size.height));
    });
}

/// That frames are encrypted, most likely by AES (RFC 9559 §5.1.4.1.31): by whom with what key only
/// the participants know.
fn append_encryption(track: &mut Vec<u8>) {
    append_master(track, 0x6D80, |encodings| {
        append_master(encodings, 0x6240, |encoding| {
            append_uint(encoding, 0x5031, 0);
            append_uint(encoding, 0x5032, 1);
            append_uint(encoding, 0x5033, 1);
            append_master(encoding, 0x5035, |how| append_uint(how, 0x47E1, 5));
        });
    });
}

/// RFC 7845 §5.1, without a pre-skip: the stream does not begin with a file's silence.
fn opus_head() -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, 2]);
    head.extend(0_u16.to_le_bytes());
    head.extend(48_000_u32.to_le_bytes());
    head.extend([0, 0, 0]);
    head
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::record::fixture::{SETUP, children};

    /// Five seconds of 25 pictures each, with a keyframe every second one.
    pub(crate) fn five_seconds() -> Webm<Cursor<Vec<u8>>> {
        let out = Cursor::new(Vec::new());
        let mut webm = Webm::new(out, Codec::Vp8, Some(&SETUP), false).unwrap();
        for frame in 0..125_u64 {
            let data = [frame as u8; 50];
            webm.write(frame * 40, frame % 50 == 0, &data).unwrap();
        }
        webm
    }

    #[test]
    fn clusters_are_whole_and_a_second_long() {
        let mut webm = five_seconds();
        webm.flush().unwrap();
        let file = webm.file.into_inner().into_inner();
        let clusters = children(&file);
        assert_eq!(clusters.iter().filter(|(id, ..)| *id == CLUSTER).count(), 5);
    }

    #[test]
    fn a_finished_file_leads_to_its_index() {
        let file = five_seconds().finish(5000).unwrap().into_inner();
        let parts = children(&file);
        let (cues, cues_at, _) = *parts.last().unwrap();
        assert_eq!((parts[0].0, cues), (SEEK_HEAD, CUES));
        let segment = parts[0].1;
        let place = ((cues_at - segment) as u64).to_be_bytes();
        let seek_head = &file[parts[0].1..][..parts[0].2];
        assert!(seek_head.windows(8).any(|bytes| bytes == place));
        assert!(file.windows(8).any(|bytes| bytes == 5000_f64.to_be_bytes()));
    }

    #[test]
    fn a_pause_longer_than_a_block_can_tell_begins_another_cluster() {
        let out = Cursor::new(Vec::new());
        let mut webm = Webm::new(out, Codec::Opus, None, false).unwrap();
        webm.write(0, true, &[1]).unwrap();
        webm.write(3_600_000, true, &[2]).unwrap();
        let file = webm.finish(3_600_020).unwrap().into_inner();
        let clusters = children(&file);
        assert_eq!(clusters.iter().filter(|(id, ..)| *id == CLUSTER).count(), 2);
    }
}
