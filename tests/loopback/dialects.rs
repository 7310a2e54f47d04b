//! Conversations in each dialect, over real WebSockets.

use serde_json::{Value, json};

use super::server::{self, Server, Socket};

async fn say(socket: &mut Socket, message: Value) {
    socket.say(&message.to_string()).await;
}

#[tokio::test]
async fn each_dialect_greets_and_passes_messages_on() {
    let server = Server::start(&[]).await;

    let mut ann = server.connect_to("/ws/webrtc?token=ann").await;
    assert_eq!(ann.expect("connected").await["userId"], "ann");
    say(
        &mut ann,
        json!({"type": "join", "roomId": "r", "userId": "x"}),
    )
    .await;
    ann.expect("joined").await;
    let mut bob = server.connect_to("/ws/webrtc").await;
    say(
        &mut bob,
        json!({"type": "join", "roomId": "r", "userId": "bob"}),
    )
    .await;
    assert_eq!(bob.expect("joined").await["participants"], json!(["ann"]));
    assert_eq!(ann.expect("user-joined").await["userId"], "bob");
    let data = json!({"type": "offer", "sdp": "v=0"});
    say(
        &mut bob,
        json!({"type": "offer", "targetUserId": "ann", "data": data}),
    )
    .await;
    let offer = ann.expect("offer").await;
    assert_eq!((&offer["userId"], &offer["data"]), (&json!("bob"), &data));
    drop(bob);
    assert_eq!(ann.expect("user-left").await["userId"], "bob");

    let mut cid = server.connect_to("/ws/call?token=cid").await;
    let mut dan = server.connect_to("/ws/call?token=dan").await;
    dan.expect("connected").await;
    let call = json!({
        "type": "call-initiate", "callId": "c", "recipientIds": ["dan"], "callType": "audio",
    });
    say(&mut cid, call).await;
    assert_eq!(dan.expect("incoming-call").await["initiatorId"], "cid");
    drop(cid);
    assert_eq!(dan.expect("call-ended").await["endedBy"], "cid");

    let mut receiver = server.connect_to("/ws/p2p?room=r").await;
    say(&mut receiver, json!({"type": "receiver"})).await;
    let stranger = json!({"type": "createOffer", "sdp": data});
    say(&mut receiver, stranger).await;
    assert_eq!(receiver.expect("error").await["code"], "not-joined");
    let mut sender = server.connect_to("/ws/p2p?room=r").await;
    say(&mut sender, json!({"type": "sender"})).await;
    say(&mut sender, json!({"type": "createOffer", "sdp": data})).await;
    assert_eq!(receiver.expect("createOffer").await["sdp"], data);

    let mut eve = server.connect_to("/ws/mesh").await;
    let name = eve.expect("connected").await["clientId"].clone();
    say(&mut eve, json!({"type": "join", "roomId": "r"})).await;
    let mut fay = server.connect_to("/ws/mesh").await;
    say(&mut fay, json!({"type": "join", "roomId": "r"})).await;
    assert_eq!(fay.expect("peer-joined").await["peerId"], name);
    say(&mut fay, json!({"type": "offer", "to": name, "sdp": "v=0"})).await;
    assert_eq!(eve.expect("offer").await["sdp"], "v=0");

    let figures = server.get("/api/stats/dialects").await.json();
    assert_eq!(figures["mesh"]["sockets"], 2);
    assert_eq!(figures["p2p"]["refused"], 1);

    // Everybody is told when the server ends.
    server.ask_to_end().await;
    for socket in [&mut ann, &mut dan, &mut receiver, &mut sender, &mut eve] {
        assert_eq!(socket.closed().await, Some(1001));
    }
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn whoever_breaks_a_rule_of_a_dialect_is_told_which_and_closed() {
    let server = Server::start(&[]).await;
    let mut ann = server.connect_to("/ws/call?token=ann").await;
    ann.expect("connected").await;
    let long = json!({"type": "offer", "recipientId": "bob", "sdp": "x".repeat(256 * 1024)});
    say(&mut ann, long).await;
    assert_eq!(ann.expect("error").await["code"], "message-too-big");
    assert_eq!(ann.closed().await, Some(1009));

    let mut bob = server.connect_to("/ws/call?token=bob").await;
    for _ in 0..300 {
        bob.say_if_possible(r#"{"type":"call-end","callId":"c"}"#)
            .await;
    }
    assert_eq!(bob.expect("error").await["code"], "rate-exceeded");
    assert_eq!(bob.closed().await, Some(1008));

    let mut cid = server.connect_to("/ws/call?token=cid").await;
    let mut newer = server.connect_to("/ws/call?token=cid").await;
    newer.expect("connected").await;
    assert_eq!(cid.expect("error").await["code"], "replaced");
    assert_eq!(cid.closed().await, Some(1008));
    server.end().await;
}

#[tokio::test]
async fn where_tokens_are_needed_nobody_gets_in_without() {
    let secret = "a secret of more than thirty-two bytes";
    let variables = [
        ("CORELAY_SECURITY_REQUIRE_AUTH", "true"),
        ("CORELAY_SECURITY_TOKEN_SECRET", secret),
    ];
    let server = Server::start_with(&[], &variables)
        .await
        .expect("it starts");
    let token = server::mint(secret, &["--room", "r", "--identity", "ann"]).await;
    for dialect in ["webrtc", "call", "p2p", "mesh"] {
        for query in ["", "?token=x", &format!("?token={token}x")] {
            let mut socket = server.connect_to(&format!("/ws/{dialect}{query}")).await;
            assert_eq!(socket.closed().await, Some(1008), "{dialect}{query}");
        }
    }
    let address = format!("/ws/webrtc?token={token}");
    let mut ann = server.connect_to(&address).await;
    assert_eq!(ann.expect("connected").await["userId"], "ann");
    say(&mut ann, json!({"type": "join", "roomId": "other"})).await;
    assert_eq!(ann.expect("error").await["code"], "unauthorized");
    say(
        &mut ann,
        json!({"type": "join", "roomId": "r", "userId": "bob"}),
    )
    .await;
    assert_eq!(ann.expect("joined").await["userId"], "ann");
    let mut caller = server.connect_to(&format!("/ws/call?token={token}")).await;
    assert_eq!(caller.expect("connected").await["userId"], "ann");
    let mut pair = server
        .connect_to(&format!("/ws/p2p?room=other&token={token}"))
        .await;
    say(&mut pair, json!({"type": "sender"})).await;
    assert_eq!(pair.expect("error").await["code"], "unauthorized");
    server.end().await;
}

#[tokio::test]
async fn each_dialect_gives_credentials_for_the_turn_server() {
    let config = server::file(
        "turn.yaml",
        "webrtc: {turn: {urls: [\"turn:192.0.2.1:3478\"], secret: north}}",
    );
    let server = Server::start(&["--config", &config]).await;
    for path in [
        "/ws",
        "/ws/webrtc?token=ann",
        "/ws/call",
        "/ws/p2p",
        "/ws/mesh",
    ] {
        let mut socket = server.connect_to(path).await;
        let servers = &socket.expect("connected").await["iceServers"];
        assert_eq!(servers[0]["urls"], json!(["turn:192.0.2.1:3478"]), "{path}");
        assert!(servers[0]["credential"].is_string(), "{path}");
    }
    server.end().await;
}
