//! What is known of a recording, in a JSON file beside its media files.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::order::{Layer, RecordingId};
use crate::engine::codec::Codec;
use crate::engine::command::{Kind, Source};

/// What the manifest of a recording is called in its directory.
pub const FILE_NAME: &str = "recording.json";

/// What it is called until it is whole.
pub(super) const BESIDE_NAME: &str = ".recording.json.new";

/// Gaps that are told of one track. Further ones are only counted.
pub const MAX_GAPS: usize = 1000;

/// Participants that are told. Further ones are recorded, but not named.
pub const MAX_PARTICIPANTS: usize = 10_000;

/// Changes of who speaks that are told. Further ones are not.
pub const MAX_SPEAKERS: usize = 10_000;

/// Someone who speaks for less long than this was not meant to be looked at, in milliseconds.
const SPEAKER_MS: u64 = 1000;

/// A recording: of whom, of what, in which files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// What it is called; unique.
    pub id: String,
    /// The room.
    pub room: String,
    /// How it is.
    pub state: State,
    /// When it began, in milliseconds since 1970.
    pub started_at: u64,
    /// When it ended, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// Its directory, below that of all recordings.
    pub directory: String,
    /// Whoever was there, in the order they came.
    pub participants: Vec<Person>,
    /// What they published, in the order it was first heard or seen.
    pub tracks: Vec<RecordedTrack>,
    /// Which layer of videos in several sizes was recorded.
    #[serde(default)]
    pub layer: Layer,
    /// Whether its frames are as the participants encrypted them: only their key opens them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
    /// Who spoke from when on, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speakers: Vec<Speaking>,
    /// What was made of it: a file of all tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub composed: Option<String>,
    /// Where its files were uploaded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded_to: Option<String>,
}

/// How a recording is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It goes on.
    Recording,
    /// It has ended, and all its files are whole.
    Finished,
    /// The server ended in the middle of it; its files were repaired.
    Interrupted,
}

/// Why a recording ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Somebody stopped it.
    Stopped,
    /// The room is no more.
    RoomFinished,
    /// The server was stopped.
    ServerShutdown,
    /// The disk is as full as it may be.
    DiskFull,
    /// A file could not be written.
    WriteFailed,
    /// Someone came who encrypts end to end, and the recording was not to be `opaque`.
    Encrypted,
    /// The server ended without a word.
    Interrupted,
}

/// A participant of a recorded room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Its name in the room.
    pub id: String,
    /// Who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it came, in milliseconds of the recording.
    pub joined_ms: u64,
    /// When it left, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// Someone who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Speaking {
    /// From when on, in milliseconds of the recording.
    pub at_ms: u64,
    /// Who.
    pub participant_id: String,
}

/// A track and its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedTrack {
    /// Its name in the room.
    pub track_id: String,
    /// Who published it.
    pub participant_id: String,
    /// `audio` or `video`.
    pub kind: String,
    /// `microphone`, `camera`, `screen` or `screen-audio`.
    pub source: String,
    /// Its files, one after the other.
    pub files: Vec<RecordedFile>,
    /// What is missing.
    pub gaps: Vec<Gap>,
    /// How many gaps there are in all.
    pub gap_count: u64,
}

/// One media file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedFile {
    /// Its name in the recording's directory.
    pub name: String,
    /// `opus`, `vp8`, `vp9`, `av1` or `h264`.
    pub codec: String,
    /// When its first frame was, in milliseconds of the recording; may be negative by little.
    pub offset_ms: i64,
    /// How long it lasts, in milliseconds.
    pub duration_ms: u64,
    /// Frames in it.
    pub frames: u64,
    /// Its length.
    pub bytes: u64,
    /// Width of its first picture in pixels; 0 for sound.
    pub width: u16,
    /// Height of its first picture in pixels; 0 for sound.
    pub height: u16,
}

/// A stretch of which nothing was recorded although something was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// When it begins, in milliseconds of the recording.
    pub at_ms: i64,
    /// How long it is.
    pub duration_ms: u64,
    /// Why it is.
    pub reason: GapReason,
    /// Packets that did not come.
    pub packets: u64,
}

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapReason {
    /// Packets were lost on the way to the server, or the recorder could not keep up.
    Loss,
    /// The source stood still for a while, or its participant's clock was set.
    Clock,
}

impl Manifest {
    /// One of a recording that begins.
    #[must_use]
    pub fn new(id: &RecordingId, room: &str, started_at: u64, directory: &Path) -> Self {
        Self {
            id: id.as_str().to_owned(),
            room: room.to_owned(),
            state: State::Recording,
            started_at,
            ended_at: None,
            end_reason: None,
            directory: directory.display().to_string(),
            participants: Vec::new(),
            tracks: Vec::new(),
            layer: Layer::default(),
            opaque: false,
            speakers: Vec::new(),
            composed: None,
            uploaded_to: None,
        }
    }

    /// Someone speaks from here on. Whoever spoke for a moment only is not told.
    pub fn add_speaker(&mut self, at_ms: u64, participant_id: &str) {
        if self
            .speakers
            .last()
            .is_some_and(|last| at_ms < last.at_ms + SPEAKER_MS)
        {
            self.speakers.pop();
        }
        let is_new = |last: &Speaking| last.participant_id != participant_id;
        if self.speakers.last().is_none_or(is_new) && self.speakers.len() < MAX_SPEAKERS {
            self.speakers.push(Speaking {
                at_ms,
                participant_id: participant_id.to_owned(),
            });
        }
    }

    /// Writes it into `directory` so that a reader sees the old or the new one, never a half.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn save(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        let beside = directory.join(BESIDE_NAME);
        let mut file = fs::File::create(&beside)?;
        file.write_all(&text)?;
        file.write_all(b"\n")?;
        fs::rename(&beside, directory.join(FILE_NAME))
    }

    /// Reads the one in `directory`.
    ///
    /// # Errors
    ///
    /// What the file system says, or that it is none.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let said = |kind, why: String| {
            let text = format!("its {FILE_NAME} cannot be read: {why}");
            io::Error::new(kind, text)
        };
        let text = fs::read(directory.join(FILE_NAME));
        let text = text.map_err(|error| said(error.kind(), error.to_string()))?;
        let manifest = serde_json::from_slice(&text);
        manifest.map_err(|error| said(io::ErrorKind::InvalidData, error.to_string()))
    }

    /// Every media file with its path.
    pub fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let files = self.tracks.iter().flat_map(|track| &track.files);
        files.map(|file| directory.join(&file.name)).collect()
    }

    /// How long it lasts, in milliseconds: to the end of its last file.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        let files = self.tracks.iter().flat_map(|track| &track.files);
        let ends = files.map(|file| file.offset_ms.max(0) as u64 + file.duration_ms);
        ends.max().unwrap_or(0)
    }
}

/// What a codec is called in a manifest.
#[must_use]
pub fn codec_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "opus",
        Codec::Vp8 => "vp8",
        Codec::Vp9 => "vp9",
        Codec::H264 => "h264",
        Codec::Av1 => "av1",
    }
}

/// What a kind is called in a manifest.
#[must_use]
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

/// What a source is called in a manifest and in the names of files.
#[must_use]
pub fn source_name(source: Source) -> &'static str {
    match source {
        Source::Microphone => "microphone",
        Source::Camera => "camera",
        Source::Screen => "screen",
        Source::ScreenAudio => "screen-audio",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_for_a_moment_only_is_not_told() {
        let id = RecordingId::new(1);
        let mut manifest = Manifest::new(&id, "daily", 0, Path::new("daily"));
        for (at_ms, who) in [
            (0, "ada"),
            (5000, "ben"),
            (5500, "ada"),
            (9000, "cy"),
            (9300, "ben"),
        ] {
            manifest.add_speaker(at_ms, who);
        }
        let told = manifest
            .speakers
            .iter()
            .map(|s| (s.at_ms, &*s.participant_id));
        assert_eq!(told.collect::<Vec<_>>(), [(0, "ada"), (9300, "ben")]);
    }
}
