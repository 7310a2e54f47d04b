//! The HTTP API, as an operator's program uses it.

use serde_json::{Value, json};

use super::caller::Caller;
use super::recording::{Folder, recording_server};
use super::server::{self, Server};

async fn call(server: &Server, method: &str, path: &str, body: Value) -> (u16, Value) {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = server.request(method, path, &[], &text).await;
    let body = if answer.body.is_empty() {
        Value::Null
    } else {
        answer.json()
    };
    (answer.status, body)
}

#[tokio::test]
async fn a_room_is_made_listed_filled_emptied_and_deleted() {
    let server = Server::start(&[]).await;
    let wanted = json!({"name": "Conference Room", "maxParticipants": 1});
    let (status, room) = call(&server, "POST", "/api/rooms", wanted).await;
    assert_eq!((status, &room["numParticipants"]), (201, &json!(0)));
    assert_eq!(room["name"], "Conference Room");
    let id = room["id"].as_str().expect("a name was drawn");
    let path = format!("/api/rooms/{id}");
    let again = call(&server, "POST", "/api/rooms", json!({"id": id})).await;
    assert_eq!((again.0, &again.1["code"]), (409, &json!("room-exists")));
    call(&server, "POST", "/api/rooms", json!({"id": "Zz"})).await;

    let (_, first) = call(&server, "GET", "/api/rooms?limit=1", Value::Null).await;
    assert_eq!(first["rooms"].as_array().map(Vec::len), Some(1));
    let next = format!(
        "/api/rooms?after={}",
        first["next"].as_str().expect("there are two")
    );
    let (_, last) = call(&server, "GET", &next, Value::Null).await;
    assert_eq!(
        (last["rooms"].as_array().map(Vec::len), &last["next"]),
        (Some(1), &Value::Null)
    );

    let mut ada = server.connect().await;
    let joined = ada.join(id, "Ada").await;
    let mut ben = server.connect().await;
    ben.say(&json!({"type": "join", "roomId": id}).to_string())
        .await;
    assert_eq!(ben.expect("error").await["code"], "room-full");
    let (_, detail) = call(&server, "GET", &path, Value::Null).await;
    assert_eq!(detail["participants"][0]["name"], "Ada");
    let (_, stats) = call(&server, "GET", &format!("{path}/stats"), Value::Null).await;
    assert_eq!(
        (&stats["participants"], &stats["joins"]),
        (&json!(1), &json!(1))
    );

    let pid = joined["participantId"].as_str().expect("a name");
    let one = format!("{path}/participants/{pid}");
    assert_eq!(call(&server, "GET", &one, Value::Null).await.1["id"], pid);
    let kick = format!("{one}?reason=be%20nice");
    assert_eq!(call(&server, "DELETE", &kick, Value::Null).await.0, 204);
    let kicked = ada.expect("kicked").await;
    assert_eq!(
        (&kicked["reason"], &kicked["message"]),
        (&json!("removed"), &json!("be nice"))
    );
    assert_eq!(ada.closed().await, Some(1008));
    let (status, gone) = call(&server, "GET", &one, Value::Null).await;
    assert_eq!(
        (status, &gone["code"]),
        (404, &json!("no-such-participant"))
    );

    ben.join(id, "Ben").await;
    assert_eq!(call(&server, "DELETE", &path, Value::Null).await.0, 204);
    assert_eq!(ben.expect("room-closed").await["reason"], "deleted");
    ben.join("elsewhere", "Ben").await;
    assert_eq!(call(&server, "GET", &path, Value::Null).await.0, 404);
    server.end().await;
}

#[tokio::test]
async fn what_an_administrator_mutes_plays_to_nobody_and_only_one_unmutes_it() {
    let server = Server::start(&[]).await;
    let voice = b"a voice that is muted";
    let mut ada = Caller::join(&server, "r", voice).await;
    let mut ben = Caller::join(&server, "r", voice).await;
    while ada.heard == 0 || ben.heard == 0 {
        tokio::join!(ada.turn(voice), ben.turn(voice));
    }
    let (_, room) = call(&server, "GET", "/api/rooms/r", Value::Null).await;
    let first = &room["participants"][0];
    let pid = first["id"].as_str().expect("a name");
    let path = format!("/api/rooms/r/participants/{pid}/mute");
    let (status, muted) = call(&server, "POST", &path, json!({"muted": true})).await;
    assert_eq!((status, &muted["tracks"][0]["muted"]), (200, &json!(true)));
    ben.signalling.expect("track-muted").await;
    ben.signalling.expect("slots").await;
    let counted = server.counters(|engine| engine["subscriptions"] == 1);
    let talking = async {
        loop {
            tokio::join!(ada.turn(voice), ben.turn(voice));
        }
    };
    tokio::select! {
        _ = counted => {}
        () = talking => {}
    }
    let track = first["tracks"][0]["trackId"].as_str().expect("a name");
    let unmute = json!({"type": "unmute", "trackId": track});
    ada.signalling.say(&unmute.to_string()).await;
    assert_eq!(
        ada.signalling.expect("error").await["code"],
        "not-permitted"
    );
    let (_, after) = call(
        &server,
        "POST",
        &path,
        json!({"muted": false, "trackId": track}),
    )
    .await;
    assert_eq!(after["tracks"][0].get("muted"), None);
    let before = ben.heard;
    while ben.heard == before {
        tokio::join!(ada.turn(voice), ben.turn(voice));
    }
    ada.leave().await;
    ben.leave().await;
    server.end().await;
}

#[tokio::test]
async fn a_diagnosis_says_how_far_each_participant_has_come() {
    let server = Server::start(&[]).await;
    let (status, nothing) = call(&server, "GET", "/api/rooms/r/diagnostics", Value::Null).await;
    assert_eq!((status, &nothing["code"]), (404, &json!("no-such-room")));
    let voice = b"a voice to be diagnosed";
    let mut ada = Caller::join(&server, "r", voice).await;
    let mut ben = Caller::join(&server, "r", voice).await;
    while ada.heard == 0 || ben.heard == 0 {
        tokio::join!(ada.turn(voice), ben.turn(voice));
    }
    let mut cid = server.connect().await;
    cid.join("r", "Cid").await;
    // What is sent is known after it was for a while.
    let mut found = Value::Null;
    while found["participants"][0]["service"]["subscriptions"][0]["bitrate"].as_u64() <= Some(0) {
        tokio::join!(ada.turn(voice), ben.turn(voice));
        let path = "/api/rooms/r/diagnostics";
        found = call(&server, "GET", path, Value::Null).await.1;
    }
    let first = &found["participants"][0];
    assert_eq!(first["missing"], Value::Null, "{found}");
    assert_eq!(
        (&first["family"], &first["transport"]),
        (&json!("ipv4"), &json!("udp"))
    );
    assert_eq!(
        (&first["hasSocket"], &first["watched"]),
        (&json!(true), &json!(1))
    );
    assert!(first["estimatedBps"].as_u64() > Some(0), "{found}");
    assert_eq!(first["participant"]["tracks"][0]["kind"], "audio");
    let service = &first["service"];
    let heard = &service["subscriptions"][0];
    assert_eq!(
        heard["trackId"],
        found["participants"][1]["participant"]["tracks"][0]["trackId"]
    );
    assert_eq!(service["tracks"][0]["watchers"], 1, "{found}");
    // The client is told the same when it asks.
    ada.signalling.say(r#"{"type":"stats","ref":"how"}"#).await;
    let told = ada.signalling.expect("stats").await;
    assert_eq!(told["ref"], "how");
    assert_eq!(told["subscriptions"][0]["mid"], heard["mid"], "{told}");
    assert!(told["connection"]["estimate"].as_u64() > Some(0), "{told}");
    let third = &found["participants"][2];
    assert_eq!(
        (&third["missing"], &third["transport"]),
        (&json!("offer"), &Value::Null)
    );
    server.end().await;
}

#[tokio::test]
async fn the_description_of_the_api_names_every_path_of_the_protocol() {
    let server = Server::start(&[]).await;
    let description = server.get("/api/openapi.json").await.json();
    assert_eq!(description["openapi"], "3.1.0");
    for (path, methods) in [
        ("/api/rooms", &["get", "post"][..]),
        ("/api/rooms/{id}", &["get", "delete"]),
        ("/api/rooms/{id}/stats", &["get"]),
        ("/api/rooms/{id}/diagnostics", &["get"]),
        ("/api/calls", &["get"]),
        ("/api/rooms/{id}/participants", &["get"]),
        ("/api/rooms/{id}/participants/{pid}", &["get", "delete"]),
        ("/api/rooms/{id}/participants/{pid}/mute", &["post"]),
        ("/api/tokens", &["post"]),
        ("/api/stats", &["get"]),
        ("/api/events", &["get"]),
        ("/health", &["get"]),
        ("/livez", &["get"]),
        ("/readyz", &["get"]),
    ] {
        for method in methods {
            let found = &description["paths"][path][method]["responses"];
            assert!(found.is_object(), "{method} {path}");
        }
    }
    // Every event names what it is about as it is told.
    let events = &description["components"]["schemas"]["Happening"]["oneOf"];
    let events = events.as_array().expect("there are several");
    for event in events {
        let fields = event["properties"].as_object().expect("it has fields");
        let known = |name: &String| {
            let names = "type roomId participantId userId trackId callId recordingId reason";
            let others = "name kind source dialect file location";
            let mut names = names.split(' ').chain(others.split(' '));
            names.any(|known| known == name)
        };
        assert!(fields.keys().all(known), "{event}");
    }
    assert!(events.len() >= 12, "{}", events.len());
    for path in ["/livez", "/readyz"] {
        assert_eq!(server.get(path).await.json(), json!({"status": "ok"}));
    }
    server.end().await;
}

#[tokio::test]
async fn a_token_is_minted_on_the_command_line_and_by_the_api_and_lets_its_holder_in() {
    let file = server::file(
        "tokens.yaml",
        "security: {require_auth: true, token_secret: 0123456789abcdef0123456789abcdef}\n",
    );
    let server = Server::start(&["--config", &file]).await;
    let minted = [
        "token",
        "--config",
        &file,
        "--room",
        "r",
        "--identity",
        "ada",
        "--admin",
    ];
    let run = server::run(&minted).await;
    assert_eq!(run.code, Some(0), "{}", run.err);
    let admin = run.out.trim();
    let bearer = format!("Bearer {admin}");
    let auth = [("Authorization", bearer.as_str())];
    let wanted = json!({"identity": "ben", "video": {"roomJoin": true, "room": "r"}});
    let answer = server
        .request("POST", "/api/tokens", &auth, &wanted.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let token = answer["token"].as_str().expect("a token");
    let mut ben = server.connect_to(&format!("/ws?token={token}")).await;
    let joined = ben.join("r", "somebody else").await;
    let mut ada = server.connect().await;
    let join = json!({"type": "join", "roomId": "r", "token": admin});
    ada.say(&join.to_string()).await;
    let there = ada.expect("joined").await;
    assert_eq!(there["participants"][0]["userId"], "ben");
    assert_eq!(there["participants"][0]["id"], joined["participantId"]);
    // What it may not do itself it cannot grant.
    let bearer = format!("Bearer {token}");
    let refused = server
        .request(
            "POST",
            "/api/tokens",
            &[("Authorization", &bearer)],
            &wanted.to_string(),
        )
        .await;
    assert_eq!(refused.status, 403);
    let log = server.end().await;
    assert!(log.contains("the token does not grant roomAdmin"), "{log}");
}

#[tokio::test]
async fn a_room_is_recorded_on_request_and_everyone_in_it_is_told() {
    let folder = Folder::new("recorded");
    let server = recording_server(&folder.0, &[]).await;
    let start = "/api/rooms/room-123/recording/start";
    let stop = "/api/rooms/room-123/recording/stop";
    let (status, none) = call(&server, "POST", start, Value::Null).await;
    assert_eq!((status, &none["code"]), (404, &json!("no-such-room")));
    let mut ada = server.connect().await;
    ada.join("room-123", "Ada").await;
    let (status, begun) = call(&server, "POST", start, Value::Null).await;
    assert_eq!((status, &begun["recording"]), (200, &json!(true)));
    let told = ada.expect("recording-started").await;
    assert_eq!(told["recordingId"], begun["recordingId"]);
    let (status, again) = call(&server, "POST", start, Value::Null).await;
    assert_eq!((status, &again["code"]), (409, &json!("already-recording")));
    let mut ben = server.connect().await;
    let joined = ben.join("room-123", "Ben").await;
    assert_eq!(joined["recordingId"], begun["recordingId"]);
    ben.say(r#"{"type":"stop-recording"}"#).await;
    let told = ada.expect("recording-stopped").await;
    assert_eq!(told["reason"], "stopped");
    let (status, twice) = call(&server, "POST", stop, Value::Null).await;
    assert_eq!((status, &twice["code"]), (409, &json!("not-recording")));

    let id = begun["recordingId"].as_str().expect("it has a name");
    let one = format!("/api/recordings/{id}");
    let (_, manifest) = call(&server, "GET", &one, Value::Null).await;
    assert_eq!(manifest["room"], "room-123");
    let people = manifest["participants"].as_array().expect("a list");
    let names: Vec<_> = people.iter().map(|person| &person["name"]).collect();
    assert_eq!(names, ["Ada", "Ben"]);
    let (_, all) = call(&server, "GET", "/api/recordings", Value::Null).await;
    assert_eq!(all["recordings"].as_array().map(Vec::len), Some(1));
    let nothing = call(&server, "GET", "/api/recordings/rec_0", Value::Null).await;
    assert_eq!(
        (nothing.0, &nothing.1["code"]),
        (404, &json!("no-such-recording"))
    );
    server.end().await;
}

#[tokio::test]
async fn what_is_encrypted_end_to_end_is_recorded_only_when_that_was_asked_for() {
    let folder = Folder::new("opaque");
    let server = recording_server(&folder.0, &[]).await;
    let start = "/api/rooms/sealed/recording/start";
    let mut ben = server.connect().await;
    ben.join("sealed", "Ben").await;
    let wrong = call(&server, "POST", start, json!({"layer": "worst"})).await;
    assert_eq!((wrong.0, &wrong.1["code"]), (422, &json!("bad-message")));
    let (status, low) = call(&server, "POST", start, json!({"layer": "low"})).await;
    assert_eq!(status, 200, "{low}");

    let mut ada = server.connect().await;
    ada.say(r#"{"type":"join","roomId":"sealed","participantName":"Ada","encrypted":true}"#)
        .await;
    let news = ben.expect("participant-joined").await;
    assert_eq!(news["participant"]["encrypted"], true);
    let told = ben.expect("recording-stopped").await;
    assert_eq!(told["reason"], "encrypted");
    let (status, refused) = call(&server, "POST", start, Value::Null).await;
    assert_eq!((status, &refused["code"]), (409, &json!("room-encrypted")));
    ben.say(r#"{"type":"start-recording","ref":7}"#).await;
    let refused = ben.expect("error").await;
    assert_eq!(
        (&refused["code"], &refused["ref"]),
        (&json!("room-encrypted"), &json!(7))
    );
    ben.say(r#"{"type":"start-recording","opaque":true}"#).await;
    let begun = ben.expect("recording-started").await;
    let id = begun["recordingId"].as_str().expect("it has a name");
    let (_, manifest) = call(
        &server,
        "GET",
        &format!("/api/recordings/{id}"),
        Value::Null,
    )
    .await;
    assert_eq!(
        (&manifest["opaque"], &manifest["layer"]),
        (&json!(true), &json!("best"))
    );
    let id = low["recordingId"].as_str().expect("it has a name");
    let (_, manifest) = call(
        &server,
        "GET",
        &format!("/api/recordings/{id}"),
        Value::Null,
    )
    .await;
    assert_eq!(
        (&manifest["opaque"], &manifest["layer"]),
        (&Value::Null, &json!("low"))
    );
    server.end().await;
}

#[tokio::test]
async fn a_server_that_does_not_record_says_how_it_would() {
    let server = Server::start(&[]).await;
    let mut ada = server.connect().await;
    ada.join("room-123", "Ada").await;
    let start = "/api/rooms/room-123/recording/start";
    let (status, refused) = call(&server, "POST", start, Value::Null).await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("recording-disabled"))
    );
    let detail = refused["detail"].as_str().expect("a sentence");
    assert!(detail.contains("recording.enabled"), "{detail}");
    server.end().await;
}
