//! Bad requests of every kind: each gets its own refusal, says no more than it must, and harms
//! nobody.

use serde_json::{Value, json};

use super::caller::Caller;
use super::server::{self, Server};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server that asks for tokens, and tokens of its key for room `r`.
struct Guarded {
    server: Server,
    /// May join.
    member: String,
    /// May do everything in `r`, and make and list rooms.
    admin: String,
    /// As the admin's, for room `s`.
    other_admin: String,
    /// As the member's, by another key.
    foreign: String,
}

async fn mint(config: &str, room: &str, more: &[&str]) -> String {
    let mut arguments = vec![
        "token",
        "--config",
        config,
        "--room",
        room,
        "--identity",
        "ada",
    ];
    arguments.extend(more);
    let run = server::run(&arguments).await;
    assert_eq!(run.code, Some(0), "{}", run.err);
    run.out.trim().to_owned()
}

async fn guarded(name: &str, more: &str) -> Guarded {
    let yaml = format!("security: {{require_auth: true, token_secret: {SECRET}}}\n{more}");
    let config = server::file(&format!("{name}.yaml"), &yaml);
    let foreign = format!("security: {{token_secret: {}}}\n", "f".repeat(32));
    let foreign = server::file(&format!("{name}-foreign.yaml"), &foreign);
    Guarded {
        member: mint(&config, "r", &[]).await,
        admin: mint(&config, "r", &["--admin"]).await,
        other_admin: mint(&config, "s", &["--admin"]).await,
        foreign: mint(&foreign, "r", &["--admin"]).await,
        server: Server::start(&["--config", &config]).await,
    }
}

/// The token with its signature, or another part, changed.
fn forged(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let last = parts[part].pop();
    parts[part].push(if last == Some('A') { 'B' } else { 'A' });
    parts[part].insert(0, 'e');
    parts.join(".")
}

/// A token without a signature, RFC 7519 §6.
const UNSIGNED: &str = "eyJhbGciOiJub25lIn0.\
    eyJzdWIiOiJhZGEiLCJleHAiOjk5OTk5OTk5OTksInZpZGVvIjp7InJvb21BZG1pbiI6dHJ1ZSwicm9vbSI6InIifX0.";

#[tokio::test]
async fn each_bad_request_gets_its_status_and_no_more() {
    let Guarded {
        server,
        member,
        admin,
        other_admin,
        foreign,
    } = guarded("bad-requests", "").await;
    let big = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
    let long_room = format!("/api/rooms/{}", "r".repeat(65));
    let in_query = format!("/api/rooms?token={}", forged(&admin, 2));
    let p = "/api/rooms/r/participants/p_0000000000000001";
    let mute = format!("{p}/mute");
    let escalate = json!({"identity": "x", "video": {"room": "s", "roomAdmin": true}}).to_string();
    let endless = json!({"identity": "x".repeat(129), "video": {"room": "r"}}).to_string();
    let (none, room, record) = ("", "/api/rooms", "/api/rooms/r/recording/start");
    let table: Vec<(&str, &str, String, &str, u16)> = vec![
        // Tokens.
        ("GET", room, none.into(), "", 401),
        ("GET", "/api/stats", none.into(), "", 401),
        ("GET", "/api/events", none.into(), "", 401),
        ("GET", "/api/events", member.clone(), "", 403),
        ("POST", room, none.into(), "{}", 401),
        ("DELETE", "/api/rooms/r", none.into(), "", 401),
        ("POST", "/api/tokens", none.into(), &escalate, 401),
        ("GET", room, "x".into(), "", 401),
        ("GET", room, "a.b.c".into(), "", 401),
        ("GET", room, UNSIGNED.into(), "", 401),
        ("GET", room, foreign.clone(), "", 401),
        ("GET", room, forged(&admin, 0), "", 401),
        ("GET", room, forged(&admin, 1), "", 401),
        ("GET", room, forged(&admin, 2), "", 401),
        ("GET", room, "x".repeat(9_000), "", 401),
        ("GET", &in_query, none.into(), "", 401),
        // Grants, and other people's rooms.
        ("GET", room, member.clone(), "", 403),
        ("POST", room, member.clone(), "{}", 403),
        ("DELETE", "/api/rooms/r", member.clone(), "", 403),
        ("GET", "/api/rooms/r", member.clone(), "", 403),
        ("GET", "/api/stats", member.clone(), "", 403),
        ("DELETE", p, member.clone(), "", 403),
        ("DELETE", p, other_admin.clone(), "", 403),
        ("POST", &mute, other_admin.clone(), r#"{"muted":true}"#, 403),
        (
            "POST",
            &mute,
            admin.clone(),
            r#"{"muted":true,"trackId":"../../x"}"#,
            404,
        ),
        ("POST", "/api/tokens", member.clone(), &escalate, 403),
        ("POST", "/api/tokens", admin.clone(), &escalate, 403),
        // Paths and names.
        (
            "GET",
            "/api/rooms/..%2f..%2fetc%2fpasswd",
            admin.clone(),
            "",
            400,
        ),
        ("GET", "/api/rooms/%00", admin.clone(), "", 400),
        ("GET", "/api/rooms/a%20b", admin.clone(), "", 400),
        ("GET", "/api/rooms/%ff", admin.clone(), "", 400),
        ("GET", &long_room, admin.clone(), "", 400),
        ("GET", "/api/rooms/r", admin.clone(), "", 404),
        ("GET", "/api/nothing", admin.clone(), "", 404),
        ("GET", "/../Cargo.toml", none.into(), "", 404),
        ("GET", "/%2e%2e/Cargo.toml", none.into(), "", 404),
        ("DELETE", p, admin.clone(), "", 404),
        (
            "DELETE",
            "/api/rooms/r/participants/1%20or%201=1",
            admin.clone(),
            "",
            404,
        ),
        // Recordings, the call log, and the server as a whole.
        ("GET", "/api/recordings", none.into(), "", 401),
        ("GET", "/api/recordings", member.clone(), "", 403),
        (
            "GET",
            "/api/recordings/..%2f..%2fetc%2fpasswd",
            admin.clone(),
            "",
            404,
        ),
        ("GET", "/api/recordings/%2e%2e", admin.clone(), "", 404),
        ("POST", record, none.into(), "", 401),
        ("POST", record, member.clone(), "", 403),
        ("POST", record, other_admin.clone(), "", 403),
        (
            "POST",
            "/api/rooms/s%2f..%2fr/recording/start",
            admin.clone(),
            "",
            400,
        ),
        ("GET", "/api/calls", member.clone(), "", 403),
        ("GET", "/api/calls/..%2f1", admin.clone(), "", 404),
        ("GET", "/api/calls?before=x", admin.clone(), "", 400),
        ("GET", "/api/rooms/r/diagnostics", member.clone(), "", 403),
        ("GET", "/api/rooms/r/stats", none.into(), "", 401),
        ("POST", "/api/drain", none.into(), "{}", 401),
        ("POST", "/api/drain", member.clone(), "{}", 403),
        ("DELETE", "/api/drain", member.clone(), "", 403),
        ("POST", "/api/drain", admin.clone(), "[]", 422),
        // Methods, bodies, sizes, encodings.
        ("PUT", room, admin.clone(), "{}", 405),
        ("PATCH", "/api/rooms/r", admin.clone(), "{}", 405),
        ("POST", "/", none.into(), "", 405),
        ("POST", room, admin.clone(), "{", 400),
        ("POST", room, admin.clone(), "[1]", 422),
        ("POST", room, admin.clone(), "[null,null]", 422),
        (
            "POST",
            room,
            admin.clone(),
            r#"{"maxParticipants":-1}"#,
            422,
        ),
        ("POST", room, admin.clone(), r#"{"maxParticipants":0}"#, 400),
        (
            "POST",
            room,
            admin.clone(),
            r#"{"maxParticipants":1e99}"#,
            422,
        ),
        ("POST", room, admin.clone(), r#"{"id":"../x"}"#, 400),
        ("POST", room, admin.clone(), &big, 413),
        ("POST", "/api/tokens", admin.clone(), &endless, 400),
        ("GET", "/api/rooms?limit=0", admin.clone(), "", 400),
        ("GET", "/api/rooms?limit=99999", admin.clone(), "", 400),
        ("GET", "/api/rooms?limit=many", admin.clone(), "", 400),
        ("GET", "/api/rooms?after=a/b", admin.clone(), "", 400),
        ("GET", "/ws", none.into(), "", 400),
    ];
    assert!(table.len() >= 70);
    for (method, path, token, body, status) in table {
        let bearer = format!("Bearer {token}");
        let auth = [("Authorization", bearer.as_str())];
        let auth = if token.is_empty() { &[][..] } else { &auth };
        let answer = server.request(method, path, auth, body).await;
        let told = format!(
            "{method} {path:.60} {body:.60} gives {} {:.300}",
            answer.status, answer.body
        );
        assert_eq!(answer.status, status, "{told}");
        assert!(
            answer.head.contains("x-content-type-options: nosniff"),
            "{told}"
        );
        if matches!(status, 401 | 403) {
            let problem = answer.json();
            let expected = if status == 401 {
                "unauthorized"
            } else {
                "the token does not grant this"
            };
            assert_eq!(problem["detail"], expected, "{told}");
            assert!(answer.head.contains("application/problem+json"), "{told}");
        }
        for secret in [SECRET, "panicked", "src/", "/root", "/work"] {
            assert!(!answer.body.contains(secret), "{told}");
        }
    }
    assert_eq!(server.get("/livez").await.status, 200);
    let log = server.end().await;
    assert!(!log.contains(&admin) && !log.contains(SECRET), "{log}");
    assert!(
        log.contains("a token was refused: there is no token"),
        "{log}"
    );
}

#[tokio::test]
async fn what_is_no_http_is_refused_without_a_word_too_many() {
    let server = Server::start(&[]).await;
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let smuggled = "POST /api/rooms HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
        Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}";
    let not_utf8 = b"POST /api/rooms HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
        Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"name\":\"\xff\xfe\"}";
    let table: [(&[u8], &[u16]); 10] = [
        (b"hello\r\n\r\n", &[400]),
        (b"GET / HTTP/9.9\r\n\r\n", &[400, 505, 0]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", &[400]),
        (
            b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: a\r\nHost: b\r\n\r\n",
            &[400],
        ),
        (
            b"CONNECT a:1 HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n",
            &[405],
        ),
        (huge.as_bytes(), &[431]),
        (smuggled.as_bytes(), &[400]),
        (not_utf8, &[400]),
    ];
    for (bytes, statuses) in table {
        let answer = server.exchange(bytes).await;
        let told = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        assert!(
            statuses.contains(&answer.status),
            "{told}: {}",
            answer.status
        );
    }
    assert_eq!(server.get("/livez").await.status, 200);
    server.end().await;
}

#[tokio::test]
async fn only_allowed_origins_open_websockets_and_call_the_api() {
    let yaml = "server: {allowed_origins: [\"https://good.org\"]}\n";
    let file = server::file("origins.yaml", yaml);
    let server = Server::start(&["--config", &file]).await;
    let upgrade = |origin| {
        [
            ("Origin", origin),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
    };
    for origin in [
        "https://evil.org",
        "null",
        "https://good.org.evil.org",
        "http://good.org",
    ] {
        for path in ["/ws", "/ws/mesh", "/ws/webrtc", "/ws/call", "/ws/p2p"] {
            let answer = server.request("GET", path, &upgrade(origin), "").await;
            assert_eq!(answer.status, 403, "{origin} {path}");
        }
        let answer = server
            .request("GET", "/api/rooms", &[("Origin", origin)], "")
            .await;
        assert!(
            !answer.head.contains("access-control-allow-origin"),
            "{origin}"
        );
    }
    let good = [("Origin", "https://good.org")];
    let answer = server.request("GET", "/api/rooms", &good, "").await;
    assert!(
        answer
            .head
            .contains("access-control-allow-origin: https://good.org")
    );
    server.end().await;
}

#[tokio::test]
async fn each_bad_message_of_a_stranger_gets_its_code() {
    let Guarded {
        server,
        member,
        foreign,
        ..
    } = guarded("bad-messages", "").await;
    let join = |token: &str| json!({"type": "join", "roomId": "r", "token": token});
    let mut stranger = server.connect().await;
    let expired_room = json!({"type": "join", "roomId": "s", "token": member});
    for message in [
        json!({"type": "join", "roomId": "r"}),
        join("x"),
        join(UNSIGNED),
        join(&foreign),
        join(&forged(&member, 1)),
        expired_room,
        json!({"type": "token", "token": foreign}),
    ] {
        stranger.say(&message.to_string()).await;
        let told = json!({"type": "error", "code": "unauthorized", "message": "unauthorized"});
        assert_eq!(stranger.expect("error").await, told, "{message}");
    }
    for message in [
        json!({"type": "offer", "sdp": "v=0"}),
        json!({"type": "data", "payload": 1}),
        json!({"type": "subscribe", "trackIds": []}),
        json!({"type": "answer", "to": "p_0000000000000001", "sdp": "v=0"}),
    ] {
        stranger.say(&message.to_string()).await;
        assert_eq!(
            stranger.expect("error").await["code"],
            "not-joined",
            "{message}"
        );
    }
    let mut bad = server.connect_to("/ws?token=x").await;
    assert_eq!(bad.expect("error").await["code"], "unauthorized");
    assert_eq!(bad.closed().await, Some(1008));

    let mut ada = server.connect().await;
    ada.say(&join(&member).to_string()).await;
    let joined = ada.expect("joined").await;
    let own = joined["participantId"].as_str().expect("a name");
    for (message, code) in [
        (
            json!({"type": "mute", "trackId": "t_0000000000000001_0"}),
            "no-such-track",
        ),
        (json!({"type": "mute", "trackId": "../x"}), "no-such-track"),
        (
            json!({"type": "subscribe", "trackIds": [format!("t_{}_0", &own[2..])]}),
            "no-such-track",
        ),
        (
            json!({"type": "data", "to": "p_0000000000000001", "payload": 1}),
            "no-such-participant",
        ),
        (
            json!({"type": "offer", "roomId": "s", "sdp": "v=0"}),
            "wrong-room",
        ),
        (json!({"type": "offer", "sdp": "\u{0}"}), "bad-offer"),
        (json!({"type": "join", "roomId": "r"}), "already-joined"),
        (
            json!({"type": "ice-candidate", "candidate": "x y z"}),
            "bad-candidate",
        ),
    ] {
        ada.say(&message.to_string()).await;
        assert_eq!(ada.expect("error").await["code"], code, "{message}");
    }
    ada.ping().await;
    server.end().await;
}

#[tokio::test]
async fn one_address_gets_its_share_and_is_told_so() {
    let limits = "security: {rate_limit: {enabled: true, max_rooms_per_ip: 2, \
        max_participants_per_ip: 3, max_sockets_per_ip: 5}}\n";
    let file = server::file("limits.yaml", limits);
    let server = Server::start(&["--config", &file]).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(server.connect().await);
    }
    let mut sixth = server.connect().await;
    assert_eq!(sixth.expect("error").await["code"], "too-many-sockets");
    assert_eq!(sixth.closed().await, Some(1008));
    for (index, room) in ["a", "b", "a"].into_iter().enumerate() {
        sockets[index].join(room, "x").await;
    }
    for (room, code) in [
        ("a", "too-many-from-address"),
        ("c", "too-many-from-address"),
    ] {
        let join: Value = json!({"type": "join", "roomId": room});
        sockets[3].say(&join.to_string()).await;
        assert_eq!(sockets[3].expect("error").await["code"], code);
    }
    sockets[2].say(r#"{"type":"leave"}"#).await;
    sockets[2].ping().await;
    sockets[3].say(r#"{"type":"join","roomId":"c"}"#).await;
    let refused = sockets[3].expect("error").await;
    assert_eq!(refused["code"], "too-many-rooms-from-address");
    let more = server.request("POST", "/api/rooms", &[], "{}").await;
    assert_eq!(more.status, 429);
    server.end().await;
}

#[tokio::test]
async fn one_address_gets_its_share_of_the_dialects_as_well() {
    let limits = "security: {rate_limit: {enabled: true, max_participants_per_ip: 3}}\n";
    let file = server::file("dialect-limits.yaml", limits);
    let server = Server::start(&["--config", &file]).await;
    let mut open = Vec::new();
    for path in ["/ws/webrtc", "/ws/call?token=a", "/ws/mesh"] {
        let mut socket = server.connect_to(path).await;
        socket.expect("connected").await;
        open.push(socket);
    }
    for path in ["/ws/webrtc", "/ws/call?token=b", "/ws/mesh", "/ws/p2p"] {
        let mut socket = server.connect_to(path).await;
        assert_eq!(
            socket.expect("error").await["code"],
            "too-many-from-address"
        );
        assert_eq!(socket.closed().await, Some(1008), "{path}");
    }
    let mut ada = server.connect().await;
    ada.say(r#"{"type":"join","roomId":"r"}"#).await;
    assert_eq!(ada.expect("error").await["code"], "too-many-from-address");
    open.pop().expect("three are open").close().await;
    // The place is free as soon as the server has seen the socket go.
    loop {
        let mut socket = server.connect_to("/ws/mesh").await;
        if socket.first().await["type"] == "connected" {
            break;
        }
    }
    server.end().await;
}

#[tokio::test]
async fn behind_a_listed_proxy_each_client_has_its_own_share() {
    let yaml = "server: {trusted_proxies: [127.0.0.1]}\n\
        security: {rate_limit: {enabled: true, max_rooms_per_ip: 1}}\n";
    let file = server::file("proxies.yaml", yaml);
    let server = Server::start(&["--config", &file]).await;
    for (from, status) in [
        ("198.51.100.7", 201),
        ("198.51.100.7", 429),
        ("10.9.9.9, 198.51.100.7", 429),
        ("198.51.100.8", 201),
    ] {
        let headers = [("X-Forwarded-For", from)];
        let made = server.request("POST", "/api/rooms", &headers, "{}").await;
        assert_eq!(made.status, status, "{from}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_client_with_another_certificate_than_its_offer_names_gets_no_media() {
    let server = Server::start(&[]).await;
    let voice = b"a voice of somebody else";
    // The first byte of the digest, in the one line there is (RFC 8122 section 5).
    let change = |offer: String| {
        let at = offer.find("a=fingerprint:sha-256 ").expect("there is one") + 22;
        let digit = if offer[at..].starts_with('A') {
            "B"
        } else {
            "A"
        };
        format!("{}{digit}{}", &offer[..at], &offer[at + 1..])
    };
    let mut mallory = Caller::join_with(&server, "r", voice, change).await;
    let dropped = server
        .counters(|engine| engine["peers"] == 0 && engine["datagrams_in"].as_u64() >= Some(3));
    let talking = async {
        loop {
            mallory.turn(voice).await;
        }
    };
    let counted = tokio::select! {
        counted = dropped => counted,
        () = talking => unreachable!("it talks for ever"),
    };
    assert_eq!(counted["totals"]["engine"]["connected"], 0, "{counted}");
    assert_eq!(
        mallory.signalling.expect("error").await["code"],
        "misbehaved"
    );
    server.end().await;
}
