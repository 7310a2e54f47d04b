//! How well a client is served, in words: what it is sent of each track, and how its connection is.

use schemars::JsonSchema;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::command::{Reason, Severity, Trouble};
use crate::id::{PeerId, TrackId};
use crate::signal::message::{ServerMessage, Shown};

impl ServerMessage {
    /// Who speaks.
    #[must_use]
    pub fn active_speakers(speakers: Vec<PeerId>) -> Self {
        let speakers = speakers.into_iter().map(Shown).collect();
        Self::ActiveSpeakers { speakers }
    }

    /// How a client's connection is.
    #[must_use]
    pub fn warning(trouble: Trouble, value: u32, severity: Severity) -> Self {
        let (kind, severity) = (trouble.into(), severity.into());
        Self::QualityWarning {
            kind,
            value,
            severity,
        }
    }

    /// Which encodings of a track nobody watches.
    #[must_use]
    pub fn unwanted_layers(
        track: TrackId,
        mid: String,
        rids: Vec<String>,
        spatial_layers: Vec<u8>,
    ) -> Self {
        let track_id = Shown(track);
        Self::UnwantedLayers {
            track_id,
            mid,
            rids,
            spatial_layers,
        }
    }

    /// What is sent of a track, and why not more.
    #[must_use]
    pub fn quality((track, layer, reason): (TrackId, Option<u8>, Reason)) -> Self {
        Self::Quality {
            track_id: Shown(track),
            layer,
            reason: reason.into(),
        }
    }
}

/// [`Trouble`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleName {
    /// The share of packets that do not arrive at first, in per cent.
    PacketLoss,
    /// How unevenly they arrive, in milliseconds.
    Jitter,
    /// The round trip, in milliseconds.
    Latency,
    /// What the path carries, in kbit/s, where pictures are held back for it.
    Bandwidth,
}

impl From<Trouble> for TroubleName {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::PacketLoss => Self::PacketLoss,
            Trouble::Jitter => Self::Jitter,
            Trouble::Latency => Self::Latency,
            Trouble::Bandwidth => Self::Bandwidth,
        }
    }
}

/// [`Severity`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeverityName {
    /// It is over.
    Over,
    /// It is noticed.
    Warning,
    /// It hurts.
    Critical,
}

impl From<Severity> for SeverityName {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Over => Self::Over,
            Severity::Warning => Self::Warning,
            Severity::Critical => Self::Critical,
        }
    }
}

/// [`Reason`] on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonName {
    /// The path to the client carries no more.
    Bandwidth,
    /// The client asked for no more, by `set-layout` or `update-quality`.
    Viewport,
    /// The publisher sends no more.
    Source,
    /// The path does not carry even the smallest beside what is more important.
    Paused,
}

impl From<Reason> for ReasonName {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Bandwidth => Self::Bandwidth,
            Reason::Viewport => Self::Viewport,
            Reason::Source => Self::Source,
            Reason::Paused => Self::Paused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_client_is_served_is_written_as_documented() {
        let track = TrackId {
            peer: PeerId::new(0x2a),
            number: 1,
        };
        let table = [
            (
                ServerMessage::quality((track, Some(2), Reason::Viewport)),
                r#"{"type":"quality","trackId":"t_000000000000002a_1","layer":2,
                    "reason":"viewport"}"#,
            ),
            (
                ServerMessage::unwanted_layers(
                    track,
                    "3".to_owned(),
                    vec!["f".to_owned()],
                    Vec::new(),
                ),
                r#"{"type":"unwanted-layers","trackId":"t_000000000000002a_1","mid":"3",
                    "rids":["f"]}"#,
            ),
            (
                ServerMessage::unwanted_layers(track, "3".to_owned(), Vec::new(), vec![2]),
                r#"{"type":"unwanted-layers","trackId":"t_000000000000002a_1","mid":"3",
                    "rids":[],"spatialLayers":[2]}"#,
            ),
            (
                ServerMessage::warning(Trouble::PacketLoss, 12, Severity::Critical),
                r#"{"type":"quality-warning","kind":"packet-loss","value":12,
                    "severity":"critical"}"#,
            ),
        ];
        for (message, text) in table {
            let text: String = text.lines().map(str::trim).collect();
            assert_eq!(message.to_json(), text);
        }
    }
}
