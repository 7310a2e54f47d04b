//! What an operator does to a running server: it is drained, reloaded, measured and watched.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixDatagram};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::caller::Caller;
use super::server::{self, DEADLINE, Server, Socket};

const VOICE: &[u8] = b"a voice that a drain must not lose";

/// What Prometheus would read.
async fn scrape(server: &Server) -> String {
    let address = server.metrics.expect("metrics are on");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = "GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    timeout(DEADLINE, exchange)
        .await
        .expect("in time")
        .expect("an answer")
}

/// Scrapes until a line is there.
async fn scraped(server: &Server, line: &str) {
    until(async || scrape(server).await.lines().any(|found| found == line)).await;
}

#[tokio::test]
async fn what_happens_is_measured() {
    let server = Server::start(&["--shards", "2"]).await;
    let mut callers = [
        Caller::join(&server, "one", VOICE).await,
        Caller::join(&server, "one", VOICE).await,
    ];
    let talking = async {
        while callers.iter().any(|caller| caller.heard < 20) {
            let [a, b] = &mut callers;
            tokio::join!(a.turn(VOICE), b.turn(VOICE));
        }
    };
    timeout(DEADLINE, talking)
        .await
        .expect("they hear each other");
    for line in [
        "webrtc_rooms_total 1.0",
        "webrtc_participants_total 2.0",
        "webrtc_audio_tracks_total 2.0",
        "corelay_join_results_total{result=\"connected\"} 2.0",
        "corelay_draining 0.0",
    ] {
        scraped(&server, line).await;
    }
    let text = scrape(&server).await;
    assert!(
        text.contains("corelay_forwarding_delay_seconds_bucket{"),
        "{text}"
    );
    let stats = server.get("/api/stats").await.json();
    let turns = &stats["totals"]["latency"]["turn_us"]["buckets"];
    assert!(
        turns.as_array().is_some_and(|buckets| !buckets.is_empty()),
        "{stats}"
    );
    server.end().await;
}

#[tokio::test]
async fn a_drain_under_twenty_calls_loses_none() {
    let server = Server::start(&["--shards", "2"]).await;
    let mut callers = Vec::new();
    for call in 0..20 {
        for _ in 0..2 {
            callers.push(Caller::join(&server, &format!("call-{call}"), VOICE).await);
        }
    }
    let mut latecomer = server.connect().await;
    callers = talk(callers, 10).await;
    server.ask_to_drain().await;
    let not_ready = async { while server.get("/readyz").await.status != 503 {} };
    timeout(DEADLINE, not_ready).await.expect("it drains");
    // Whoever is there goes on, whoever would make a room is sent away.
    callers = talk(callers, 50).await;
    latecomer.say(r#"{"type":"join","roomId":"new"}"#).await;
    assert_eq!(latecomer.expect("error").await["code"], "server-draining");
    let drain = server.get("/api/drain").await.json();
    assert_eq!(
        (&drain["draining"], &drain["participants"]),
        (&json!(true), &json!(40))
    );
    assert_eq!(server.get("/livez").await.status, 200);
    let misheard: u64 = callers.iter().map(|caller| caller.misheard).sum();
    assert_eq!(misheard, 0);
    // The last one to leave takes the server with it.
    for caller in callers {
        caller.leave().await;
    }
    let run = server.ended().await;
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("drained: ending"), "{}", run.err);
}

/// Everyone talks until everyone has heard so many packets more.
async fn talk(callers: Vec<Caller>, packets: u64) -> Vec<Caller> {
    let wanting = Arc::new(AtomicUsize::new(callers.len()));
    let mut talking = JoinSet::new();
    for mut caller in callers {
        let wanting = Arc::clone(&wanting);
        talking.spawn(async move {
            let goal = caller.heard + packets;
            let mut wants = true;
            while wanting.load(Ordering::Relaxed) > 0 {
                caller.turn(VOICE).await;
                if wants && caller.heard >= goal {
                    wants = false;
                    wanting.fetch_sub(1, Ordering::Relaxed);
                }
            }
            caller
        });
    }
    let talked = timeout(DEADLINE, talking.join_all()).await;
    talked.expect("everyone is heard")
}

/// Asks again until something is as it should be.
async fn until(holds: impl AsyncFn() -> bool) {
    let polling = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !holds().await {
            tick.tick().await;
        }
    };
    timeout(DEADLINE, polling).await.expect("it comes to that");
}

#[tokio::test]
async fn a_drain_is_told_with_its_deadline_and_can_be_undone() {
    let server = Server::start(&[]).await;
    let mut ada = server.connect().await;
    enter(&mut ada, "room").await;
    let drained = server
        .request("POST", "/api/drain", &[], r#"{"seconds": 600}"#)
        .await;
    let deadline = drained.json()["deadline"].clone();
    assert!(deadline.is_u64(), "{}", drained.body);
    assert_eq!(ada.expect("server-draining").await["deadline"], deadline);
    let refused = server.request("POST", "/api/rooms", &[], "{}").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.json()["code"], "server-draining");
    // An existing room still takes in who comes, and tells.
    let mut ben = server.connect().await;
    enter(&mut ben, "room").await;
    assert_eq!(ben.expect("server-draining").await["deadline"], deadline);

    let undone = server.request("DELETE", "/api/drain", &[], "").await;
    assert_eq!(undone.json()["draining"], false);
    assert_eq!(ada.expect("server-draining").await["deadline"], Value::Null);
    assert_eq!(server.get("/readyz").await.status, 200);
    enter(&mut server.connect().await, "another").await;

    let now = server
        .request("POST", "/api/drain", &[], r#"{"seconds": 0}"#)
        .await;
    assert_eq!(now.status, 200, "{}", now.body);
    assert_eq!(ada.expect("room-closed").await["reason"], "server-shutdown");
    assert_eq!(server.get("/health").await.json()["participants"], 0);
    server.end().await;
}

#[tokio::test]
async fn the_deadline_of_a_drain_ends_the_process() {
    let variables = [("CORELAY_SERVER_DRAIN_TIMEOUT", "1")];
    let server = Server::start_with(&[], &variables).await.unwrap();
    let mut ada = server.connect().await;
    enter(&mut ada, "room").await;
    server.ask_to_drain().await;
    ada.expect("server-draining").await;
    ada.expect("room-closed").await;
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn whoever_vanishes_holds_a_drain_up_only_while_it_may_come_back() {
    let variables = [("CORELAY_ROOMS_RESUME_TIMEOUT", "1")];
    let server = Server::start_with(&[], &variables).await.unwrap();
    let callers = vec![
        Caller::join(&server, "room", VOICE).await,
        Caller::join(&server, "room", VOICE).await,
    ];
    let callers = talk(callers, 10).await;
    // One whose media never came, in another room.
    let mut silent = server.connect().await;
    enter(&mut silent, "another").await;
    server.ask_to_drain().await;
    silent.expect("server-draining").await;
    // None of them says goodbye, and nobody answers the server's datagrams.
    drop((callers, silent));
    let run = server.ended().await;
    assert_eq!(run.code, Some(0), "{}", run.err);
    // Not by the deadline, which is minutes away.
    assert!(run.err.contains("drained: ending"), "{}", run.err);
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let server = Server::start(&[]).await;
    let mut ada = server.connect().await;
    enter(&mut ada, "room").await;
    server.ask_to_drain().await;
    ada.expect("server-draining").await;
    server.ask_to_drain().await;
    ada.expect("room-closed").await;
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_reload_changes_what_can_change_and_says_what_waits() {
    let file = server::file("reload.yaml", "rooms: {max_rooms: 5}\n");
    let server = Server::start(&["--config", &file]).await;
    let max_rooms = async |wanted: u64| {
        until(async || server.get("/health").await.json()["config"]["max_rooms"] == wanted).await;
    };
    // Whoever answers hears signals.
    max_rooms(5).await;
    let text = "rooms: {max_rooms: 7, max_video_slots: 2}\n\
                webrtc: {ice_servers: [{urls: [\"stun:stun.example.org\"]}]}\n";
    server::file("reload.yaml", text);
    server.signal("HUP").await;
    max_rooms(7).await;
    let connected = server.connect().await.expect("connected").await;
    assert_eq!(
        connected["iceServers"][0]["urls"][0],
        "stun:stun.example.org"
    );

    server::file("reload.yaml", "rooms: {max_rooms: 9, max_rom: 1}\n");
    server.signal("HUP").await;
    scraped(&server, "corelay_reloads_failed_total 1.0").await;
    max_rooms(7).await;

    server::file(
        "reload.yaml",
        "security: {require_auth: true, token_secret: an-old-and-long-secret-of-32-bytes}\n",
    );
    server.signal("HUP").await;
    scraped(&server, "corelay_reloads_total 2.0").await;
    assert_eq!(server.get("/api/rooms").await.status, 401);
    let log = server.end().await;
    assert!(log.contains("rooms.max_rooms"), "{log}");
    assert!(
        log.contains("waiting_for_restart=\"rooms.max_video_slots\""),
        "{log}"
    );
    assert!(
        log.contains("stays as it was") && log.contains("Did you mean"),
        "{log}"
    );
    assert!(!log.contains("an-old-and-long-secret"), "{log}");
}

#[tokio::test]
async fn a_reload_changes_how_much_media_may_come_in() {
    let file = server::file("caps.yaml", "webrtc: {max_packets: 0}\n");
    let server = Server::start(&["--config", &file, "--shards", "1"]).await;
    let mut callers = [
        Caller::join(&server, "one", VOICE).await,
        Caller::join(&server, "one", VOICE).await,
    ];
    let dropped = async || {
        let text = scrape(&server).await;
        let name = "corelay_dropped_total{shard=\"0\",reason=\"peer_cap\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.expect("it is counted")
            .parse::<f64>()
            .expect("a number")
    };
    let turns = async |callers: &mut [Caller; 2], count: u64| {
        for _ in 0..count {
            let [a, b] = callers;
            tokio::join!(a.turn(VOICE), b.turn(VOICE));
        }
    };
    while callers[0].heard < 20 {
        turns(&mut callers, 1).await;
    }
    assert_eq!(dropped().await, 0.0);
    server::file("caps.yaml", "webrtc: {max_packets: 5}\n");
    server.signal("HUP").await;
    scraped(&server, "corelay_reloads_total 1.0").await;
    let capped = async {
        while dropped().await == 0.0 {
            turns(&mut callers, 10).await;
        }
    };
    timeout(DEADLINE, capped).await.expect("the cap counts");
    server::file("caps.yaml", "webrtc: {max_packets: 0}\n");
    server.signal("HUP").await;
    scraped(&server, "corelay_reloads_total 2.0").await;
    let heard = callers[0].heard;
    let free = async {
        while callers[0].heard < heard + 50 {
            turns(&mut callers, 1).await;
        }
    };
    timeout(DEADLINE, free).await.expect("the cap is gone");
    let log = server.end().await;
    assert!(log.contains("changed=\"webrtc.max_packets\""), "{log}");
}

#[tokio::test]
async fn systemd_is_told_of_the_start_of_every_second_and_of_the_end() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("notify.socket");
    let _ = std::fs::remove_file(&path);
    let systemd = UnixDatagram::bind(&path).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let server = Server::start_with(&[], &variables).await.unwrap();
    let told = async |wanted: &str| {
        let hearing = async {
            let mut buffer = [0; 512];
            loop {
                let length = systemd.recv(&mut buffer).await.unwrap();
                if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                    return;
                }
            }
        };
        let heard = timeout(DEADLINE, hearing).await;
        assert!(heard.is_ok(), "{wanted} is not told");
    };
    told("READY=1").await;
    told("WATCHDOG=1").await;
    told("WATCHDOG=1").await;
    server.ask_to_drain().await;
    told("STOPPING=1").await;
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_join_without_media_names_its_first_missing_step() {
    let server = Server::start(&[]).await;
    let mut ada = server.connect().await;
    enter(&mut ada, "room").await;
    scraped(&server, "corelay_joins_waiting 1.0").await;
    ada.close().await;
    scraped(&server, "corelay_join_results_total{result=\"left\"} 1.0").await;
    server.end().await;
}

#[tokio::test]
async fn a_join_is_traced_to_the_collector() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let variables = [("CORELAY_LOG_OTLP", url.as_str())];
    let server = Server::start_with(&[], &variables).await.unwrap();
    let mut ada = server.connect().await;
    enter(&mut ada, "room").await;
    ada.close().await;
    let traced = async {
        let (mut stream, _) = collector.accept().await.unwrap();
        let mut request = Vec::new();
        // The name of the span is in the body, behind the head.
        while !request.windows(6).any(|part| part == b"result") {
            let mut some = [0; 4096];
            let length = stream.read(&mut some).await.unwrap();
            assert!(length > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&some[..length]);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        request
    };
    let request = timeout(DEADLINE, traced).await.expect("it is sent");
    assert!(request.starts_with(b"POST /v1/traces HTTP/1.1\r\n"));
    server.end().await;
}

#[tokio::test]
async fn the_log_is_json_where_that_is_asked_for() {
    let server = Server::start(&["--log-format", "json"]).await;
    // Whoever answers hears signals.
    assert_eq!(server.get("/livez").await.status, 200);
    let log = server.end().await;
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(
            line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
}

async fn enter(socket: &mut Socket, room: &str) {
    let join = json!({"type": "join", "roomId": room});
    socket.say(&join.to_string()).await;
    socket.expect("joined").await;
}
