//! The real binary on loopback: it starts, answers, survives bad input, and ends when asked.

mod api;
mod call_log;
mod caller;
mod dialects;
mod dtls;
mod events;
mod failures;
mod operations;
mod printed;
mod recording;
mod security;
mod server;

use std::net::SocketAddr;

use caller::Caller;
use serde_json::{Value, json};
use server::{Server, Socket};
use tokio::net::{TcpListener, UdpSocket};

/// Every steering, under each driver.
const STEERINGS: [&str; 3] = ["ebpf", "cbpf", "none"];

async fn a_participant_is_taken_in(driver: &str) {
    for steering in STEERINGS {
        let arguments = ["--shards", "2", "--driver", driver, "--steering", steering];
        let Some(server) = Server::start_if_allowed(&arguments).await else {
            continue;
        };
        let health = server.get("/health").await;
        assert_eq!(health.status, 200);
        assert_eq!(health.json()["status"], "healthy");
        let page = server.get("/").await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("<html"), "{}", page.body);

        let mut ada = server.connect().await;
        let connected = ada.expect("connected").await;
        assert!(connected["participantId"].is_string(), "{connected}");
        let joined = ada.join("room", "Ada").await;
        assert_eq!(joined["participants"], json!([]));
        let wanted = ada.expect("request-offer").await;
        assert_eq!((&wanted["audio"], &wanted["video"]), (&json!(0), &json!(0)));

        let mut ben = server.connect().await;
        let joined = ben.join("room", "Ben").await;
        assert_eq!(joined["participants"][0]["name"], "Ada");
        let came = ada.expect("participant-joined").await;
        assert_eq!(came["participant"]["name"], "Ben");
        assert_eq!(server.get("/health").await.json()["participants"], 2);

        ben.close().await;
        ada.expect("participant-left").await;
        assert_eq!(server.get("/health").await.json()["participants"], 1);
        server.end().await;
    }
}

#[tokio::test]
async fn glommio_takes_participants_in_under_every_steering() {
    a_participant_is_taken_in("glommio").await;
}

#[tokio::test]
async fn epoll_takes_participants_in_under_every_steering() {
    a_participant_is_taken_in("epoll").await;
}

async fn voices_cross_and_rooms_do_not(driver: &str) {
    for steering in STEERINGS {
        let arguments = ["--shards", "2", "--driver", driver, "--steering", steering];
        let Some(server) = Server::start_if_allowed(&arguments).await else {
            continue;
        };
        // The least loaded shard takes a room: each of the two has its own.
        let (one, other) = (
            &b"the voice in one room"[..],
            &b"the voice in the other room"[..],
        );
        let mut callers = [
            (Caller::join(&server, "one", one).await, one),
            (Caller::join(&server, "other", other).await, other),
            (Caller::join(&server, "one", one).await, one),
            (Caller::join(&server, "other", other).await, other),
        ];
        let talking = async {
            while callers.iter().any(|(caller, _)| caller.heard < 50) {
                let [a, b, c, d] = &mut callers;
                tokio::join!(a.0.turn(a.1), b.0.turn(b.1), c.0.turn(c.1), d.0.turn(d.1));
            }
        };
        let talked = tokio::time::timeout(server::DEADLINE, talking).await;
        let heard = callers
            .each_ref()
            .map(|(caller, _)| (caller.heard, caller.misheard));
        assert!(talked.is_ok(), "{driver} {steering}: {heard:?}");
        assert!(
            heard.iter().all(|(_, misheard)| *misheard == 0),
            "{heard:?}"
        );
        for (caller, _) in callers {
            caller.leave().await;
        }
        server
            .counters(|engine| engine["peers"] == 0 && engine["connected"] == 4)
            .await;
        server.end().await;
    }
}

#[tokio::test]
async fn voices_cross_and_rooms_do_not_on_glommio() {
    voices_cross_and_rooms_do_not("glommio").await;
}

#[tokio::test]
async fn voices_cross_and_rooms_do_not_on_epoll() {
    voices_cross_and_rooms_do_not("epoll").await;
}

#[tokio::test]
async fn bad_messages_are_answered_and_harm_nobody_else() {
    let server = Server::start(&[]).await;
    let mut witness = server.connect().await;
    witness.join("room", "Witness").await;
    for (text, code) in [
        ("{", "bad-json"),
        ("[]", "bad-message"),
        (r#"{"type":"fly"}"#, "unknown-type"),
        (r#"{"type":"join","roomId":"../etc"}"#, "bad-room-id"),
        (r#"{"type":"offer","sdp":"v=0"}"#, "not-joined"),
        (
            r#"{"type":"ice-candidate","candidate":"candidate:1"}"#,
            "not-joined",
        ),
    ] {
        let mut stranger = server.connect().await;
        stranger.say(text).await;
        assert_eq!(stranger.expect("error").await["code"], code, "{text}");
    }
    let mut guest = server.connect().await;
    guest.join("room", "Guest").await;
    for (message, code) in [
        (
            json!({"type": "offer", "sdp": "this is no session description"}),
            "bad-offer",
        ),
        (
            json!({"type": "ice-candidate", "candidate": "nonsense"}),
            "bad-candidate",
        ),
        (
            json!({"type": "join", "roomId": "another"}),
            "already-joined",
        ),
    ] {
        guest.say(&message.to_string()).await;
        assert_eq!(guest.expect("error").await["code"], code, "{message}");
    }
    let huge = json!({"type": "offer", "sdp": "x".repeat(10_000_000)}).to_string();
    guest.say_if_possible(&huge).await;
    assert_eq!(guest.closed().await, Some(1009));
    witness.expect("participant-left").await;
    witness.ping().await;
    server.end().await;
}

#[tokio::test]
async fn bad_datagrams_are_counted_and_harm_nobody() {
    let server = Server::start(&["--shards", "2"]).await;
    let mut witness = server.connect().await;
    witness.join("room", "Witness").await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.connect(server.udp).await.unwrap();
    for datagram in bad_datagrams() {
        stranger.send(&datagram).await.unwrap();
    }
    let stats = server
        .counters(|engine| engine["datagrams_in"].as_u64() >= Some(1_000))
        .await;
    assert_eq!(stats["totals"]["engine"]["peer_panics"], 0, "{stats}");
    assert_eq!(stats["totals"]["engine"]["addresses"], 0, "{stats}");
    witness.ping().await;
    assert_eq!(server.get("/health").await.json()["participants"], 1);
    let log = server.end().await;
    assert!(log.lines().count() < 30, "{log}");
}

/// Noise, STUN requests for nobody, and RTP, DTLS and RTCP from an unknown address.
fn bad_datagrams() -> Vec<Vec<u8>> {
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut byte = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    };
    let stun = |ufrag: &[u8]| {
        let padded = ufrag.len().next_multiple_of(4);
        let mut request = vec![0, 1, 0, (4 + padded) as u8, 0x21, 0x12, 0xa4, 0x42];
        request.extend([7; 12]);
        request.extend([0, 6, 0, ufrag.len() as u8]);
        request.extend_from_slice(ufrag);
        request.resize(24 + padded, 0);
        request
    };
    let mut datagrams = vec![
        vec![],
        vec![0],
        stun(b"00nobody:me"),
        stun(b"01nobody:me"),
        stun(b"zz:me"),
        vec![0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        vec![0x80, 200, 0, 1, 0, 0, 0, 1],
        vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    while datagrams.len() < 1_200 {
        let length = usize::from(byte()) * 5;
        datagrams.push((0..length).map(|_| byte()).collect());
    }
    datagrams
}

#[tokio::test]
async fn an_end_that_was_asked_for_is_told_to_everyone() {
    let server = Server::start(&[]).await;
    let mut ada = server.connect().await;
    ada.join("room", "Ada").await;
    server.ask_to_end().await;
    let closed = ada.expect("room-closed").await;
    assert_eq!(closed["reason"], "server-shutdown");
    assert_eq!(ada.closed().await, Some(1001));
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_taken_port_is_told_in_one_line() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = tcp.local_addr().unwrap();
    let refused = server::run(&["--http", &taken.to_string(), "--udp", "127.0.0.1:0"]).await;
    assert_one_line(&refused, 1, &[&taken.to_string(), "--http"]);

    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let taken = udp.local_addr().unwrap();
    let refused = server::run(&["--http", "127.0.0.1:0", "--udp", &taken.to_string()]).await;
    assert_one_line(&refused, 1, &[&taken.port().to_string(), "--udp"]);
}

#[tokio::test]
async fn a_bad_configuration_is_told_in_one_line_with_its_place() {
    let file = server::file("bad.yaml", "rooms:\n  max_particpants: 3\n");
    let refused = server::run(&["check-config", "--config", &file]).await;
    assert_one_line(
        &refused,
        2,
        &["bad.yaml:2:", "Did you mean `rooms.max_participants`"],
    );

    let file = server::file("auth.yaml", "security:\n  require_auth: true\n");
    let refused = server::run(&["--config", &file]).await;
    assert_one_line(&refused, 2, &["auth.yaml:2:", "security.require_auth"]);

    assert_eq!(server::run(&["--driver", "kqueue"]).await.code, Some(2));
}

fn assert_one_line(run: &server::Run, code: i32, parts: &[&str]) {
    assert_eq!(run.code, Some(code), "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    for part in parts {
        assert!(run.err.contains(part), "{part} is not in: {}", run.err);
    }
}

#[tokio::test]
async fn a_good_configuration_is_told_to_be_good() {
    let shipped = [
        "--config",
        "config/webrtc.yaml",
        "--media",
        "config/media.yaml",
    ];
    let checked = server::run(&[&["check-config"], &shipped[..]].concat()).await;
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(
        checked.out.contains("The configuration is fine"),
        "{}",
        checked.out
    );
}

#[tokio::test]
async fn flags_outrank_the_environment_and_the_environment_a_file() {
    let text = "rooms: {max_participants: 5, max_rooms: 6}\nperformance: {worker_threads: 1}\n";
    let file = server::file("ranks.yaml", text);
    let variables = [
        ("CORELAY_ROOMS_MAX_PARTICIPANTS", "7"),
        ("CORELAY_PERFORMANCE_WORKER_THREADS", "2"),
    ];
    let arguments = ["--config", &file, "--shards", "3"];
    let server = Server::start_with(&arguments, &variables).await.unwrap();
    let health = server.get("/health").await.json();
    assert_eq!(health["config"]["max_participants_per_room"], 7);
    assert_eq!(health["config"]["max_rooms"], 6);
    assert!(
        server.greeting.contains("Shards     3,"),
        "{}",
        server.greeting
    );
    server.end().await;
}

#[tokio::test]
async fn a_full_room_takes_nobody_in() {
    let variables = [("CORELAY_ROOMS_MAX_PARTICIPANTS", "1")];
    let server = Server::start_with(&[], &variables).await.unwrap();
    let mut ada = server.connect().await;
    ada.join("room", "Ada").await;
    let mut ben = server.connect().await;
    ben.say(r#"{"type":"join","roomId":"room"}"#).await;
    assert_eq!(ben.expect("error").await["code"], "room-full");
    server.end().await;
}

impl Socket {
    /// Joins, and returns what `joined` says.
    async fn join(&mut self, room: &str, name: &str) -> Value {
        let join = json!({"type": "join", "roomId": room, "participantName": name});
        self.say(&join.to_string()).await;
        self.expect("joined").await
    }

    /// Asks for a pong and awaits it.
    async fn ping(&mut self) {
        self.say(r#"{"type":"ping"}"#).await;
        self.expect("pong").await;
    }
}

/// An address that the greeting names.
fn address_in(greeting: &str, before: &str) -> SocketAddr {
    let (_, rest) = greeting.split_once(before).expect("the greeting names it");
    let end = rest.find([';', '\n', ' ']).unwrap_or(rest.len());
    let text = rest[..end].replace("localhost", "127.0.0.1");
    text.parse().expect("an address")
}
