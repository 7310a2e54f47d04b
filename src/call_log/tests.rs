//! The log in a real SQLite file: what is written, ended, kept and asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::database::{Address, Database};
use super::statement::{end_all, forget, statements};
use crate::id::{PeerId, RoomId};
use crate::signal::calls::{CallList, Place};
use crate::signal::happening::{
    DialectName, EndReason, FinishReason, Happening, LeaveReason, Notice,
};
use crate::signal::message::Shown;

/// A new file for one test, and a connection to it.
async fn database(name: &str) -> (Database, PathBuf) {
    let file = format!("corelay-{name}-{}.sqlite", std::process::id());
    let path = std::env::temp_dir().join(file);
    remove(&path);
    let address = Address::parse(&format!("sqlite:{}", path.display())).unwrap();
    (Database::open(&address).await.unwrap(), path)
}

/// Removes a database, as far as it is there.
fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}

fn room() -> Shown<RoomId> {
    Shown(RoomId::parse("daily").unwrap())
}

fn notice(at: u64, what: Happening) -> Arc<Notice> {
    let id = format!("e_1_{at}");
    Arc::new(Notice { id, at, what })
}

async fn write(database: &mut Database, at: u64, what: Happening) {
    let due = statements("here", &notice(at, what));
    database.write(&due).await.unwrap();
}

fn joined(peer: u64, user: &str) -> Happening {
    Happening::ParticipantJoined {
        room_id: room(),
        participant_id: Shown(PeerId::new(peer)),
        user_id: Some(user.to_owned()),
        name: None,
    }
}

fn left(peer: u64) -> Happening {
    Happening::ParticipantLeft {
        room_id: room(),
        participant_id: Shown(PeerId::new(peer)),
        user_id: None,
        reason: LeaveReason::Removed,
    }
}

fn started() -> Happening {
    Happening::RoomStarted { room_id: room() }
}

fn finished() -> Happening {
    Happening::RoomFinished {
        room_id: room(),
        reason: FinishReason::Empty,
    }
}

#[tokio::test]
async fn a_room_is_written_with_who_was_in_it_and_when_and_why_each_went() {
    let (mut database, path) = database("room").await;
    write(&mut database, 10, started()).await;
    // PostgreSQL takes no NUL, so it is left out everywhere.
    write(&mut database, 11, joined(1, "a\0da")).await;
    write(&mut database, 12, joined(2, "ben")).await;
    let recording = || ("r.webm".to_owned(), room());
    let (recording_id, room_id) = recording();
    write(
        &mut database,
        13,
        Happening::RecordingStarted {
            room_id,
            recording_id,
        },
    )
    .await;
    write(&mut database, 14, left(1)).await;
    let (recording_id, room_id) = recording();
    let reason = crate::record::manifest::EndReason::Stopped;
    let over = Happening::RecordingFinished {
        room_id,
        recording_id,
        reason,
    };
    write(&mut database, 15, over).await;
    // The event of the second's leaving was lost.
    write(&mut database, 20, finished()).await;
    // A room of the same name is another one.
    write(&mut database, 30, started()).await;

    let rows = database.list(&Place::first(), 10).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].started_at, rows[0].ended_at), (30, None));
    assert_eq!((rows[1].kind.as_str(), rows[1].sessions), ("room", 2));
    assert_eq!(rows[1].end_reason.as_deref(), Some("empty"));
    let call = database.show("e_1_10").await.unwrap().unwrap();
    let stays: Vec<_> = call
        .participants
        .iter()
        .map(|row| {
            (
                row.user_id.as_deref(),
                row.ended_at,
                row.end_reason.as_deref(),
            )
        })
        .collect();
    let expected = [
        (Some("ada"), Some(14), Some("removed")),
        (Some("ben"), Some(20), Some("empty")),
    ];
    assert_eq!(stays, expected);
    let recorded = &call.recordings[0];
    assert_eq!(
        (recorded.name.as_str(), recorded.ended_at),
        ("r.webm", Some(15))
    );
    assert_eq!(database.show("nothing").await.unwrap(), None);
    remove(&path);
}

#[tokio::test]
async fn what_is_written_twice_is_there_once() {
    let (mut database, path) = database("twice").await;
    for _ in 0..2 {
        write(&mut database, 10, started()).await;
        write(&mut database, 11, joined(1, "ada")).await;
    }
    let rows = database.list(&Place::first(), 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].sessions), (1, 1));
    remove(&path);
}

#[tokio::test]
async fn calls_of_dialects_are_told_apart_from_rooms_of_the_same_name() {
    let (mut database, path) = database("dialects").await;
    let dialect = DialectName::Call;
    let call_id = || "daily".to_owned();
    write(&mut database, 10, started()).await;
    let began = Happening::CallStarted {
        dialect,
        call_id: call_id(),
    };
    write(&mut database, 11, began).await;
    let user_id = "ann".to_owned();
    let came = Happening::CallJoined {
        dialect,
        call_id: call_id(),
        user_id,
    };
    write(&mut database, 12, came).await;
    let reason = EndReason::Rejected;
    let over = Happening::CallEnded {
        dialect,
        call_id: call_id(),
        reason,
    };
    write(&mut database, 13, over).await;
    let rows = database.list(&Place::first(), 10).await.unwrap();
    assert_eq!(
        (rows[0].kind.as_str(), rows[0].ended_at, rows[0].sessions),
        ("call", Some(13), 1)
    );
    assert_eq!(
        (rows[1].kind.as_str(), rows[1].ended_at, rows[1].sessions),
        ("room", None, 0)
    );
    remove(&path);
}

#[tokio::test]
async fn the_list_is_read_in_parts_without_gaps_or_repeats() {
    let (mut database, path) = database("parts").await;
    for at in [10, 20, 30, 40, 50] {
        write(&mut database, at, started()).await;
        write(&mut database, at + 5, finished()).await;
    }
    let (mut place, mut seen) = (Place::first(), Vec::new());
    loop {
        let rows = database.list(&place, 3).await.unwrap();
        let list = CallList::new(rows, 2);
        seen.extend(list.calls.iter().map(|call| call.started_at));
        match list.next {
            Some(next) => place = Place::parse(&next).unwrap(),
            None => break,
        }
    }
    assert_eq!(seen, [50, 40, 30, 20, 10]);
    remove(&path);
}

#[tokio::test]
async fn what_a_server_left_open_is_ended_and_what_is_old_is_forgotten() {
    let (mut database, path) = database("open").await;
    write(&mut database, 10, started()).await;
    write(&mut database, 11, joined(1, "ada")).await;
    let other = statements("elsewhere", &notice(12, started()));
    database.write(&other).await.unwrap();
    database
        .write(&end_all("here", 90, "server-lost"))
        .await
        .unwrap();
    let rows = database.list(&Place::first(), 10).await.unwrap();
    assert_eq!(
        (rows[0].server.as_str(), rows[0].ended_at),
        ("elsewhere", None)
    );
    assert_eq!(rows[1].end_reason.as_deref(), Some("server-lost"));
    let call = database.show("e_1_10").await.unwrap().unwrap();
    assert_eq!(call.participants[0].ended_at, Some(90));

    database.write(&forget("here", 90)).await.unwrap();
    assert!(database.show("e_1_10").await.unwrap().is_some());
    database.write(&forget("here", 91)).await.unwrap();
    assert_eq!(database.show("e_1_10").await.unwrap(), None);
    let rows = database.list(&Place::first(), 10).await.unwrap();
    assert_eq!(rows.len(), 1);
    remove(&path);
}

#[test]
fn an_address_is_of_sqlite_or_postgresql_and_a_bad_one_is_not_repeated() {
    assert!(matches!(
        Address::parse("sqlite:/tmp/x"),
        Ok(Address::Sqlite(_))
    ));
    let url = "postgres://u:hunter2@127.0.0.1/x";
    assert!(matches!(Address::parse(url), Ok(Address::Postgres(_))));
    for bad in [
        "",
        "mysql://u:hunter2@h/x",
        "/tmp/x",
        "postgres://u:hunter2@h:port/x",
    ] {
        let said = Address::parse(bad).unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }
}
