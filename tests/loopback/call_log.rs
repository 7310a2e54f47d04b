//! The call log, written by the real binary: in SQLite, and in PostgreSQL.

use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::server::{DEADLINE, Server};

/// A name for a file that no earlier run has left.
fn scratch(name: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

async fn start(url: &str, name: &str) -> Server {
    let variables = [
        ("CORELAY_CALL_LOG_URL", url),
        ("CORELAY_CALL_LOG_SERVER", name),
    ];
    Server::start_with(&[], &variables)
        .await
        .expect("it starts")
}

/// The calls of one server in the log, the latest first, as soon as they are as `awaited` says.
async fn calls(server: &Server, name: &str, awaited: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut calls = Vec::new();
    let polling = async {
        let mut tick = interval(std::time::Duration::from_millis(50));
        while !awaited(&calls) {
            tick.tick().await;
            let answer = server.get("/api/calls").await;
            if answer.status == 200 {
                calls = answer.json()["calls"].as_array().expect("a list").clone();
                calls.retain(|call| call["server"] == name);
            }
        }
    };
    let came = timeout(DEADLINE, polling).await;
    assert!(came.is_ok(), "the log does not come to that: {calls:?}");
    calls
}

/// A room and a call of a dialect are logged; a second run ends what the first left open.
async fn rooms_and_calls_are_logged(url: &str, name: &str) {
    let server = start(url, name).await;
    let mut ada = server.connect().await;
    let join = json!({"type": "join", "roomId": "r", "userId": "a\u{0}da"});
    ada.say(&join.to_string()).await;
    ada.expect("joined").await;
    let mut cid = server.connect_to("/ws/call?token=cid").await;
    let mut dan = server.connect_to("/ws/call?token=dan").await;
    dan.expect("connected").await;
    let call = json!({
        "type": "call-initiate", "callId": "c", "recipientIds": ["dan"], "callType": "audio",
    });
    cid.say(&call.to_string()).await;
    dan.expect("incoming-call").await;
    dan.say(r#"{"type":"call-answer","callId":"c"}"#).await;
    cid.expect("call-answered").await;
    cid.say(r#"{"type":"call-end","callId":"c"}"#).await;
    dan.expect("call-ended").await;
    ada.close().await;
    let logged = calls(&server, name, |calls| {
        calls.len() == 2 && calls.iter().all(|call| call["endedAt"].is_u64())
    });
    let logged = logged.await;
    assert_eq!(
        (&logged[0]["kind"], &logged[0]["name"]),
        (&json!("call"), &json!("c"))
    );
    assert_eq!(
        (&logged[0]["endReason"], &logged[0]["sessions"]),
        (&json!("ended"), &json!(2))
    );
    assert_eq!(
        (&logged[1]["kind"], &logged[1]["endReason"]),
        (&json!("room"), &json!("empty"))
    );
    let id = logged[1]["id"].as_str().expect("a name");
    let detail = server.get(&format!("/api/calls/{id}")).await.json();
    let stay = &detail["participants"][0];
    assert_eq!(
        (&stay["userId"], &stay["endReason"]),
        (&json!("ada"), &json!("disconnected"))
    );
    let first = server.get("/api/calls?limit=1").await.json();
    let next = first["next"].as_str().expect("there is more");
    let second = server
        .get(&format!("/api/calls?limit=1&before={next}"))
        .await
        .json();
    assert_ne!(second["calls"][0]["id"], first["calls"][0]["id"]);
    assert_eq!(server.get("/api/calls/e_0").await.status, 404);
    assert_eq!(server.get("/api/calls?before=x").await.status, 400);

    let mut ben = server.connect().await;
    ben.join("open", "Ben").await;
    calls(&server, name, |calls| calls.len() == 3).await;
    let log = server.end().await;
    assert!(
        !log.contains("WARN") || log.contains("cannot be reached"),
        "{log}"
    );
    let server = start(url, name).await;
    let logged = calls(&server, name, |calls| calls.len() == 3).await;
    assert_eq!(logged[0]["endReason"], "server-stopped");
    server.end().await;
}

#[tokio::test]
async fn rooms_and_calls_are_logged_in_sqlite() {
    let folder = scratch("call-log");
    std::fs::create_dir_all(&folder).expect("the folder for tests can be written");
    let url = format!("sqlite:{}", folder.join("calls.sqlite").display());
    rooms_and_calls_are_logged(&url, "sqlite").await;
}

/// The database that `scripts/database` has started.
fn postgres() -> String {
    std::env::var("CORELAY_TEST_POSTGRES").expect("scripts/database starts a PostgreSQL")
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: scripts/database starts one and runs this"]
async fn rooms_and_calls_are_logged_in_postgresql() {
    rooms_and_calls_are_logged(&postgres(), "postgres").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_stops_no_call_and_gets_its_rows_later() {
    let folder = scratch("call-log-later");
    let url = format!("sqlite:{}", folder.join("calls.sqlite").display());
    let server = start(&url, "later").await;
    let mut ada = server.connect().await;
    ada.join("r", "Ada").await;
    assert_eq!(server.get("/api/calls").await.status, 503);
    std::fs::create_dir_all(&folder).expect("the folder for tests can be written");
    let logged = calls(&server, "later", |calls| calls.len() == 1).await;
    assert_eq!(logged[0]["name"], "r");
    ada.ping().await;
    let log = server.end().await;
    assert!(
        log.contains("the call log's database cannot be written"),
        "{log}"
    );
    assert!(log.contains("takes rows again"), "{log}");
}

#[tokio::test]
async fn without_a_call_log_the_api_says_so() {
    let server = Server::start(&[]).await;
    let answer = server.get("/api/calls").await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &json!("not-supported"))
    );
    server.end().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: scripts/database starts one and runs this"]
async fn a_database_that_goes_away_costs_no_call_and_no_row_that_fits_in_memory() {
    let url = postgres();
    let (_, rest) = url.split_once('@').expect("a user");
    let (upstream, _) = rest.split_once('/').expect("a database");
    let (is_up, gate) = watch::channel(true);
    let proxy = proxy(upstream.to_owned(), gate).await;
    let server = start(&url.replace(upstream, &proxy), "cut").await;
    let mut ada = server.connect().await;
    ada.join("before", "Ada").await;
    calls(&server, "cut", |calls| calls.len() == 1).await;
    is_up.send_replace(false);
    let mut ben = server.connect().await;
    for room in 0..50 {
        ben.join(&format!("r{room}"), "Ben").await;
        ben.say(r#"{"type":"leave"}"#).await;
    }
    ben.ping().await;
    is_up.send_replace(true);
    let logged = calls(&server, "cut", |calls| {
        calls.len() == 51 && calls[0]["endedAt"].is_u64()
    });
    assert_eq!(logged.await[0]["name"], "r49");
    server.end().await;
}

/// Passes connections on to `upstream` while the gate is open, and cuts them when it closes.
async fn proxy(upstream: String, gate: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        loop {
            let (mut inner, _) = listener.accept().await.expect("it listens");
            let (mut gate, upstream) = (gate.clone(), upstream.clone());
            tokio::spawn(async move {
                if !*gate.borrow() {
                    return;
                }
                let Ok(mut outer) = TcpStream::connect(upstream).await else {
                    return;
                };
                tokio::select! {
                    _ = copy_bidirectional(&mut inner, &mut outer) => {}
                    _ = gate.wait_for(|is_up| !is_up) => {}
                }
            });
        }
    });
    address
}
