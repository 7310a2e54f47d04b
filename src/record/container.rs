//! One media file, in the container that its codec goes into.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::depacketise::Setup;
use super::mp4::{self, Mp4};
use super::pieces::Repaired;
use super::webm::{self, Webm};
use crate::engine::codec::Codec;

/// What kind of files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// WebM; H264, which it does not know, in Matroska, of which it is a part.
    #[default]
    Webm,
    /// Fragmented MP4; VP8, VP9 and AV1 in WebM, where players look for them.
    Mp4,
    /// As [`Format::Webm`], with frames that only their senders' key opens.
    Opaque,
}

impl Format {
    /// Whether a codec goes into MP4.
    fn is_mp4(self, codec: Codec) -> bool {
        self == Self::Mp4 && matches!(codec, Codec::H264 | Codec::Opus)
    }

    /// How the names of its files end.
    #[must_use]
    pub fn extension(self, codec: Codec) -> &'static str {
        match codec {
            _ if self.is_mp4(codec) => "mp4",
            Codec::H264 => "mkv",
            _ => "webm",
        }
    }
}

/// A media file that is being written.
#[derive(Debug)]
pub enum Container {
    /// WebM.
    Webm(Webm<File>),
    /// Fragmented MP4.
    Mp4(Mp4<File>),
}

impl Container {
    /// Begins the file `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn create(
        path: &Path,
        format: Format,
        codec: Codec,
        setup: Option<&Setup>,
    ) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(if format.is_mp4(codec) {
            Self::Mp4(Mp4::new(file, codec, setup)?)
        } else {
            let is_encrypted = format == Format::Opaque;
            Self::Webm(Webm::new(file, codec, setup, is_encrypted)?)
        })
    }

    /// Appends a frame at `ms` of the file.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&mut self, ms: u64, is_keyframe: bool, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Webm(webm) => webm.write(ms, is_keyframe, data),
            Self::Mp4(mp4) => mp4.write(ms, is_keyframe, data),
        }
    }

    /// Writes what is held back.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Webm(webm) => webm.flush(),
            Self::Mp4(mp4) => mp4.flush(),
        }
    }

    /// Ends the file and brings it to the disk. Returns its length.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn finish(self, end_ms: u64) -> io::Result<u64> {
        let file = match self {
            Self::Webm(webm) => webm.finish(end_ms)?,
            Self::Mp4(mp4) => mp4.finish(end_ms)?,
        };
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        match self {
            Self::Webm(webm) => webm.written(),
            Self::Mp4(mp4) => mp4.written(),
        }
    }
}

/// Finishes a file whose process was killed.
///
/// # Errors
///
/// What the file system says, or that it is no file of ours.
pub fn repair(path: &Path) -> io::Result<Repaired> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let repaired = if path.extension().is_some_and(|ending| ending == "mp4") {
        mp4::repair(&mut file)?
    } else {
        webm::repair(&mut file)?
    };
    file.sync_all()?;
    Ok(repaired)
}
