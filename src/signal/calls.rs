//! What the call log is asked, and what it answers.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

/// Where the call log is asked.
pub type Asker = mpsc::Sender<Question>;

/// What it is asked, with the place where the answer is awaited.
#[derive(Debug)]
pub enum Question {
    /// Which calls began before this one, so many at most, the latest first?
    List(Place, u32, Reply<CallList>),
    /// What is known of this call?
    Show(String, Reply<Option<CallDetail>>),
}

/// Where an answer is awaited.
pub type Reply<T> = oneshot::Sender<Result<T, Unavailable>>;

/// The database is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

/// A place in the list of all calls, the latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// When the call before it began, in milliseconds since 1970.
    pub started_at: i64,
    /// Its name, which orders those that began at the same time.
    pub id: String,
}

impl Place {
    /// Before the first.
    #[must_use]
    pub fn first() -> Self {
        Self {
            started_at: i64::MAX,
            id: String::new(),
        }
    }

    /// Parses what [`CallList::next`] says; `None` when it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (started_at, id) = text.split_once('-')?;
        Some(Self {
            started_at: started_at.parse().ok()?,
            id: id.to_owned(),
        })
    }
}

/// Calls, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CallList {
    /// A part of all.
    pub calls: Vec<CallRow>,
    /// What to give as `before` for the next part; null after the last.
    pub next: Option<String>,
}

impl CallList {
    /// The first `limit` of these, of which there may be one more.
    #[must_use]
    pub fn new(mut calls: Vec<CallRow>, limit: usize) -> Self {
        let is_more = calls.len() > limit;
        calls.truncate(limit);
        let last = calls.last().filter(|_| is_more);
        let next = last.map(|call| format!("{}-{}", call.started_at, call.id));
        Self { calls, next }
    }
}

/// A room that was, or is, or a call of a dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallRow {
    /// Its name in the log.
    pub id: String,
    /// The `call_log.server` that it was on.
    pub server: String,
    /// `room`, or the dialect: `webrtc`, `call`, `p2p`, `mesh`.
    pub kind: String,
    /// What its members called it.
    pub name: String,
    /// In milliseconds since 1970.
    pub started_at: i64,
    /// In milliseconds since 1970; null while it goes on.
    pub ended_at: Option<i64>,
    /// Why it is over.
    pub end_reason: Option<String>,
    /// How many times somebody came.
    pub sessions: i64,
}

/// A call, and who was in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CallDetail {
    /// The call.
    #[serde(flatten)]
    pub call: CallRow,
    /// Who was in it, in the order they came: the first 1000.
    pub participants: Vec<SessionRow>,
    /// What was recorded, in the order in which it began: the first 1000.
    pub recordings: Vec<RecordingRow>,
}

/// One participant's stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRow {
    /// Its name there.
    pub participant: String,
    /// Who that was by its token, or by its own word.
    pub user_id: Option<String>,
    /// What it called itself.
    pub name: Option<String>,
    /// In milliseconds since 1970.
    pub started_at: i64,
    /// In milliseconds since 1970; null while it goes on.
    pub ended_at: Option<i64>,
    /// Why it left.
    pub end_reason: Option<String>,
}

/// One recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordingRow {
    /// What it is called.
    pub name: String,
    /// In milliseconds since 1970.
    pub started_at: i64,
    /// In milliseconds since 1970; null while it goes on.
    pub ended_at: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_part_begins_after_the_last_of_this_one() {
        let row = |started_at| CallRow {
            id: "e_1_2".to_owned(),
            server: "s".to_owned(),
            kind: "room".to_owned(),
            name: "r".to_owned(),
            started_at,
            ended_at: None,
            end_reason: None,
            sessions: 0,
        };
        let list = CallList::new(vec![row(9), row(8), row(7)], 2);
        assert_eq!(list.calls.len(), 2);
        let place = Place::parse(list.next.as_deref().unwrap()).unwrap();
        assert_eq!((place.started_at, place.id.as_str()), (8, "e_1_2"));
        assert_eq!(CallList::new(vec![row(9)], 2).next, None);
        assert_eq!(Place::parse("x-y"), None);
    }
}
