//! What tests of several files are made of.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use super::depacketise::Setup;
use super::ebml::{Head, Id};
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
        payload: vec![0xFC, seq as u8].into(),
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
