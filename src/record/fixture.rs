//! What tests of several files are made of.

use std::fs;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::Instant;

use super::depacketise::Setup;
use super::ebml::{Head, Id};
use super::manifest::{RecordedFile, RecordedTrack};
use super::pieces::{Repaired, Truncate};
use crate::engine::codec::{Codec, Size};
use crate::engine::command::{Kind, Source, TrackInfo};
use crate::engine::copies::CopiedPacket;
use crate::id::{PeerId, RecordingNumber, TrackId};

/// Pictures of 320 x 240.
pub(super) const SETUP: Setup = Setup {
    size: Size {
        width: 320,
        height: 240,
    },
    private: Vec::new(),
};

/// H264's parameters of Chromium's encoder: baseline, 426 x 240.
pub(super) const CHROMIUM_SPS: [u8; 18] = [
    0x67, 0x42, 0xC0, 0x1E, 0x8C, 0x8D, 0x40, 0xD8, 0xFF, 0x27, 0x35, 0x06, 0x06, 0x06, 0x07, 0x84,
    0x42, 0x35,
];

#[expect(clippy::disallowed_methods, reason = "where the tests' time begins")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// 20 ms of sound.
pub(super) fn packet(seq: u64, arrived: Instant) -> CopiedPacket {
    CopiedPacket {
        recording: RecordingNumber::new(1),
        track: TrackInfo {
            id: TrackId {
                peer: PeerId::new(1),
                number: 0,
            },
            kind: Kind::Audio,
            source: Source::Microphone,
        },
        layer: 0,
        codec: Codec::Opus,
        arrived,
        seq,
        timestamp: (seq as u32).wrapping_mul(960),
        marker: false,
        payload: [0xFC, seq as u8].as_slice().into(),
    }
}

/// What a manifest says of a track with one file.
pub(super) fn recorded(who: &str, source: &str, offset_ms: i64, duration_ms: u64) -> RecordedTrack {
    let (kind, width, height) = match source {
        "microphone" => ("audio", 0, 0),
        _ => ("video", 320, 240),
    };
    RecordedTrack {
        track_id: "t".to_owned(),
        participant_id: who.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        files: vec![RecordedFile {
            name: format!("{source}-{offset_ms}.webm"),
            codec: "vp8".to_owned(),
            offset_ms,
            duration_ms,
            frames: 3,
            bytes: 9,
            width,
            height,
        }],
        gaps: Vec::new(),
        gap_count: 0,
    }
}

/// The children of a Matroska file's segment: ID, place in the file, size.
pub(super) fn children(file: &[u8]) -> Vec<(Id, usize, usize)> {
    const SEGMENT: Id = 0x1853_8067;
    let ebml = Head::parse(file).unwrap();
    let mut at = ebml.bytes + ebml.size.unwrap() as usize;
    let segment = Head::parse(&file[at..]).unwrap();
    assert_eq!(segment.id, SEGMENT);
    at += segment.bytes;
    if let Some(size) = segment.size {
        let end = at + size as usize;
        assert_eq!(end, file.len(), "the segment ends with the file");
    }
    let mut found = Vec::new();
    while at < file.len() {
        let head = Head::parse(&file[at..]).unwrap();
        let size = head.bytes + head.size.unwrap() as usize;
        assert!(at + size <= file.len(), "an element is cut short");
        found.push((head.id, at, size));
        at += size;
    }
    found
}

impl Truncate for Cursor<Vec<u8>> {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.get_mut().truncate(length as usize);
        Ok(())
    }
}

type Repair = fn(&mut Cursor<Vec<u8>>) -> io::Result<Repaired>;

/// A file of five pieces, each of a second, lasts as long as what was left of it, wherever it was
/// cut; one that was not cut stays as it is. `pieces` counts those of a repaired file.
pub(super) fn assert_cuts_are_repaired(
    whole: &[u8],
    first_piece: usize,
    repair: Repair,
    pieces: impl Fn(&[u8]) -> usize,
) {
    for length in (first_piece..whole.len()).step_by(97) {
        let mut file = Cursor::new(whole[..length].to_vec());
        let repaired = repair(&mut file).unwrap();
        let left = pieces(&file.into_inner()) as u64;
        let (ms, frames) = (left * 1000, left * 25);
        assert_eq!(repaired, Repaired { ms, frames }, "cut at {length}");
    }
    let mut file = Cursor::new(whole.to_vec());
    let (ms, frames) = (5000, 125);
    assert_eq!(repair(&mut file).unwrap(), Repaired { ms, frames });
    assert!(file.into_inner() == whole, "a finished file was changed");
}

/// Whatever is written over its beginning, a file is refused or repaired.
pub(super) fn assert_damage_is_survived(whole: &[u8], repair: Repair) {
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..500 {
        let mut file = whole.to_vec();
        let at = random(900);
        for byte in &mut file[at..][..random(20)] {
            *byte = random(256) as u8;
        }
        // Without a panic, and without an end that is not reached.
        let _ = repair(&mut Cursor::new(file));
    }
}

/// A file in which `what` of ours is `other`, of the same length, is refused and left as it is.
pub(super) fn assert_refused(ours: &[u8], what: &[u8], other: &[u8], repair: Repair) {
    let at = ours.windows(what.len()).position(|bytes| bytes == what);
    let mut theirs = ours.to_vec();
    theirs[at.unwrap()..][..other.len()].copy_from_slice(other);
    let mut file = Cursor::new(theirs.clone());
    let refused = repair(&mut file).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert!(file.into_inner() == theirs, "it was changed");
}

/// A disk with so many bytes left.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: Cursor<Vec<u8>>,
    pub(super) left: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.left);
        if fits == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= fits;
        self.file.write(&bytes[..fits])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Truncate for Disk {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let before = self.file.get_ref().len();
        self.left += before.saturating_sub(length as usize);
        self.file.truncate(length)
    }
}

/// A directory of this test's own, gone when the test is.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corelay-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
