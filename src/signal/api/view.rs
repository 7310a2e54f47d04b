//! What the API shows, and what it is given.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::engine::command::Kind;
use crate::id::RoomId;
use crate::record::manifest::Manifest;
use crate::record::order::RecordingId;
use crate::signal::Now;
use crate::signal::directory::{Directory, Room};
use crate::signal::message::Participant;
use crate::signal::token::VideoGrant;

/// A room that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomRequest {
    /// What clients call it in `join`; drawn when left out.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    pub id: Option<String>,
    /// What people call it.
    #[schema(max_length = 128)]
    pub name: Option<String>,
    /// Most participants; never more than the server allows.
    #[schema(minimum = 1, maximum = 10000)]
    #[serde(default, deserialize_with = "whole")]
    pub max_participants: Option<u32>,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomView {
    /// What clients call it in `join`.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// How many are in it.
    pub num_participants: usize,
    /// How many may be.
    pub max_participants: usize,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
}

impl RoomView {
    /// A room as it is now.
    #[must_use]
    pub fn new(now: Now, id: &RoomId, room: &Room) -> Self {
        let age = now.at.saturating_duration_since(room.since).as_secs();
        Self {
            id: id.to_string(),
            name: room.name.clone(),
            num_participants: room.members().len(),
            max_participants: room.max_participants,
            created_at: now.unix.saturating_sub(age),
        }
    }
}

/// A room and who is in it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoomDetail {
    /// The room.
    #[serde(flatten)]
    pub room: RoomView,
    /// Everyone in it, in the order they came.
    pub participants: Vec<Participant>,
}

/// Some rooms.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RoomList {
    /// In the order of their names.
    pub rooms: Vec<RoomView>,
    /// The `after` of the next call, when there are more.
    pub next: Option<String>,
}

/// Everyone in a room.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ParticipantList {
    /// In the order they came.
    pub participants: Vec<Participant>,
}

/// What is counted of one room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomStats {
    /// Which.
    pub id: String,
    /// How many are in it.
    pub participants: usize,
    /// How many have entered it so far.
    pub joins: u64,
    /// Published audio tracks.
    pub audio_tracks: usize,
    /// Published video tracks.
    pub video_tracks: usize,
    /// Published tracks that are muted.
    pub muted_tracks: usize,
    /// For how long it has existed, in seconds.
    pub age_seconds: u64,
    /// Which of the server's shards forwards its media.
    pub shard: usize,
}

impl RoomStats {
    /// A room as it is now; `None` when there is none of this name.
    #[must_use]
    pub fn new(now: Now, id: &RoomId, directory: &Directory) -> Option<Self> {
        let room = directory.room(id)?;
        let tracks = || room.members().iter().flat_map(|member| &member.tracks);
        let of = |kind| tracks().filter(|track| track.info.kind == kind).count();
        Some(Self {
            id: id.to_string(),
            participants: room.members().len(),
            joins: room.joins,
            audio_tracks: of(Kind::Audio),
            video_tracks: of(Kind::Video),
            muted_tracks: tracks().filter(|track| track.muted.is_some()).count(),
            age_seconds: now.at.saturating_duration_since(room.since).as_secs(),
            shard: directory.shard(id)?.index(),
        })
    }
}

/// That a room is recorded, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingView {
    /// What the recording is called.
    pub recording_id: String,
    /// Which room.
    pub room_id: String,
    /// Whether it goes on.
    pub recording: bool,
}

impl RecordingView {
    /// A recording as it is now.
    #[must_use]
    pub fn new(room: &RoomId, id: &RecordingId, recording: bool) -> Self {
        Self {
            recording_id: id.as_str().to_owned(),
            room_id: room.to_string(),
            recording,
        }
    }
}

/// All recordings that are known.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RecordingList {
    /// The newest first.
    pub recordings: Vec<Manifest>,
}

/// What is to be muted, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MuteRequest {
    /// Whether it is forwarded to nobody from here on.
    pub muted: bool,
    /// One of the participant's tracks; all that it publishes now when left out.
    #[schema(max_length = 64)]
    pub track_id: Option<String>,
}

/// A token that is to be minted.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// Who will show it.
    #[schema(min_length = 1, max_length = 128)]
    pub identity: String,
    /// What to call the participant.
    #[schema(max_length = 128)]
    pub name: Option<String>,
    /// Told to the others as it is.
    pub metadata: Option<Value>,
    /// How long it holds, in seconds; six hours when left out, a year at most.
    #[schema(minimum = 1, maximum = 31536000)]
    #[serde(default, deserialize_with = "whole")]
    pub seconds: Option<u32>,
    /// What it grants, in a room of which the caller is an administrator, and nothing that the
    /// caller may not do.
    pub video: VideoGrant,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// For `?token=`, `Authorization: Bearer` or `join`.
    pub token: String,
}

/// JSON has one kind of number: `7.0` is as whole as `7` (JSON Schema, Validation §6.1.1).
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    let whole = fits.then_some(number as u32);
    whole
        .map(Some)
        .ok_or_else(|| D::Error::custom("this is no whole number in range"))
}
