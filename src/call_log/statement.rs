//! What each event writes: SQL that SQLite and PostgreSQL both take. Pure.
//!
//! Nothing is remembered between events: what ends is found by its name among what is open.

use serde_json::Value as Json;

use crate::signal::happening::{Happening, Meeting, Notice};

/// One statement, and what its `$1`, `$2`, .. are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

/// What a `$1` is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(Option<String>),
    Number(i64),
}

impl From<&str> for Value {
    /// Without NUL, which PostgreSQL's texts cannot hold.
    fn from(text: &str) -> Self {
        Self::Text(Some(text.replace('\0', "")))
    }
}

impl From<&Option<String>> for Value {
    fn from(text: &Option<String>) -> Self {
        text.as_deref().map_or(Self::Text(None), Self::from)
    }
}

const START_CALL: &str = "INSERT INTO calls (id, server, kind, name, started_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING";

const END_SESSIONS: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2 \
    WHERE ended_at IS NULL AND call_id IN (SELECT id FROM calls \
    WHERE server = $3 AND kind = $4 AND name = $5 AND ended_at IS NULL)";

const END_CALL: &str = "UPDATE calls SET ended_at = $1, end_reason = $2 \
    WHERE server = $3 AND kind = $4 AND name = $5 AND ended_at IS NULL";

const START_SESSION: &str = "INSERT INTO sessions \
    (id, call_id, participant, identity, name, started_at) \
    VALUES ($1, (SELECT id FROM calls WHERE server = $2 AND kind = $3 AND name = $4 \
    AND ended_at IS NULL ORDER BY started_at DESC LIMIT 1), $5, $6, $7, $8) \
    ON CONFLICT (id) DO NOTHING";

const END_SESSION: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2 \
    WHERE ended_at IS NULL AND participant = $6 AND call_id IN (SELECT id FROM calls \
    WHERE server = $3 AND kind = $4 AND name = $5 AND ended_at IS NULL)";

const START_RECORDING: &str = "INSERT INTO recordings (id, call_id, name, started_at) \
    VALUES ($1, (SELECT id FROM calls WHERE server = $2 AND kind = $3 AND name = $4 \
    AND ended_at IS NULL ORDER BY started_at DESC LIMIT 1), $5, $6) \
    ON CONFLICT (id) DO NOTHING";

const END_RECORDING: &str = "UPDATE recordings SET ended_at = $1, end_reason = $2 \
    WHERE ended_at IS NULL AND name = $4 AND call_id IN \
    (SELECT id FROM calls WHERE server = $3)";

/// What an event writes; nothing for those that the log does not hold.
pub(super) fn statements(server: &str, notice: &Notice) -> Vec<Statement> {
    let at = number(notice.at);
    let id = || Value::from(notice.id.as_str());
    let named = |meeting: &Meeting| {
        let (kind, name) = (meeting.kind(), meeting.name());
        [server.into(), kind.into(), name.into()]
    };
    match &notice.what {
        Happening::RoomStarted { .. } | Happening::CallStarted { .. } => {
            let [server, kind, name] = named(&notice.what.meeting());
            vec![statement(START_CALL, [id(), server, kind, name, at])]
        }
        Happening::RoomFinished { .. } | Happening::CallEnded { .. } => {
            let [server, kind, name] = named(&notice.what.meeting());
            let values = [at, reason(&notice.what), server, kind, name];
            vec![
                statement(END_SESSIONS, values.clone()),
                statement(END_CALL, values),
            ]
        }
        Happening::ParticipantJoined {
            participant_id,
            user_id,
            name: called,
            ..
        } => {
            let [server, kind, name] = named(&notice.what.meeting());
            let who = participant_id.0.to_string();
            let who = [who.as_str().into(), user_id.into(), called.into(), at];
            let values = [id(), server, kind, name].into_iter().chain(who);
            vec![statement(START_SESSION, values)]
        }
        Happening::CallJoined { user_id, .. } => {
            let [server, kind, name] = named(&notice.what.meeting());
            let nothing = || Value::Text(None);
            let who = [user_id.as_str().into(), nothing(), nothing(), at];
            let values = [id(), server, kind, name].into_iter().chain(who);
            vec![statement(START_SESSION, values)]
        }
        Happening::ParticipantLeft { .. } | Happening::CallLeft { .. } => {
            let who = match &notice.what {
                Happening::ParticipantLeft { participant_id, .. } => participant_id.0.to_string(),
                Happening::CallLeft { user_id, .. } => user_id.clone(),
                _ => return Vec::new(),
            };
            let [server, kind, name] = named(&notice.what.meeting());
            let who = who.as_str().into();
            let values = [at, reason(&notice.what), server, kind, name, who];
            vec![statement(END_SESSION, values)]
        }
        Happening::RecordingStarted { recording_id, .. } => {
            let [server, kind, name] = named(&notice.what.meeting());
            let recording = recording_id.as_str().into();
            let values = [id(), server, kind, name, recording, at];
            vec![statement(START_RECORDING, values)]
        }
        Happening::RecordingFinished { recording_id, .. } => {
            let recording = recording_id.as_str().into();
            let values = [at, reason(&notice.what), server.into(), recording];
            vec![statement(END_RECORDING, values)]
        }
        Happening::TrackPublished { .. }
        | Happening::TrackUnpublished { .. }
        | Happening::RecordingComposed { .. }
        | Happening::RecordingUploaded { .. } => Vec::new(),
    }
}

/// Ends whatever this server has open.
pub(super) fn end_all(server: &str, unix_ms: u64, reason: &str) -> Vec<Statement> {
    const SESSIONS: &str = "UPDATE sessions SET ended_at = $1, end_reason = $2 \
        WHERE ended_at IS NULL AND call_id IN (SELECT id FROM calls WHERE server = $3)";
    const RECORDINGS: &str = "UPDATE recordings SET ended_at = $1, end_reason = $2 \
        WHERE ended_at IS NULL AND call_id IN (SELECT id FROM calls WHERE server = $3)";
    const CALLS: &str = "UPDATE calls SET ended_at = $1, end_reason = $2 \
        WHERE ended_at IS NULL AND server = $3";
    let values = [number(unix_ms), reason.into(), server.into()];
    [SESSIONS, RECORDINGS, CALLS]
        .into_iter()
        .map(|sql| statement(sql, values.clone()))
        .collect()
}

/// Deletes what this server wrote and what ended before then.
pub(super) fn forget(server: &str, before_ms: u64) -> Vec<Statement> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE call_id IN \
        (SELECT id FROM calls WHERE server = $2 AND ended_at < $1)";
    const RECORDINGS: &str = "DELETE FROM recordings WHERE call_id IN \
        (SELECT id FROM calls WHERE server = $2 AND ended_at < $1)";
    const CALLS: &str = "DELETE FROM calls WHERE server = $2 AND ended_at < $1";
    let values = [number(before_ms), server.into()];
    [SESSIONS, RECORDINGS, CALLS]
        .into_iter()
        .map(|sql| statement(sql, values.clone()))
        .collect()
}

fn statement(sql: &'static str, values: impl IntoIterator<Item = Value>) -> Statement {
    let values = values.into_iter().collect();
    Statement { sql, values }
}

fn number(unix_ms: u64) -> Value {
    Value::Number(i64::try_from(unix_ms).unwrap_or(i64::MAX))
}

/// The reason as the event tells it.
fn reason(what: &Happening) -> Value {
    let told = serde_json::to_value(what).expect("an event is a map of texts");
    told.get("reason")
        .and_then(Json::as_str)
        .map_or(Value::Text(None), Value::from)
}
