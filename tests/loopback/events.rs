//! What happens is told: by signed webhooks, and to administrators as server-sent events.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::caller::Caller;
use super::recording::{Folder, talk_as};
use super::server::{self, DEADLINE, Server};

const SECRET: &str = "fedcba9876543210fedcba9876543210";

/// What was posted to a receiver.
struct Posted {
    signature: String,
    body: Vec<u8>,
}

impl Posted {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// As `docs/events.md` tells a receiver to check it.
    fn is_genuine(&self, secret: &str) -> bool {
        let (time, tag) = self.signature.split_once(",v1=").expect("two parts");
        let time = time.strip_prefix("t=").expect("a time");
        let digits = tag.as_bytes().chunks(2).map(|two| {
            let two = std::str::from_utf8(two).expect("text");
            u8::from_str_radix(two, 16).expect("hexadecimal digits")
        });
        let tag: Vec<u8> = digits.collect();
        let mut signed = format!("{time}.").into_bytes();
        signed.extend(&self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        hmac::verify(&key, &signed, &tag).is_ok()
    }
}

/// Answers what is posted with these statuses, one after the other, then with 200.
async fn receiver(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let (sender, posted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut statuses = statuses.iter();
        loop {
            let (stream, _) = listener.accept().await.expect("it listens");
            // One request for each connection: the client is told so.
            let status = statuses.next().unwrap_or(&200);
            if let Some(request) = answer(stream, *status).await {
                let _ = sender.send(request);
            }
        }
    });
    (url, posted)
}

async fn answer(stream: TcpStream, status: u16) -> Option<Posted> {
    let mut stream = BufReader::new(stream);
    let (mut length, mut signature) = (0, String::new());
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "corelay-signature" => signature = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(answer.as_bytes()).await.ok()?;
    Some(Posted { signature, body })
}

async fn next(posted: &mut mpsc::UnboundedReceiver<Posted>) -> Posted {
    let posted = timeout(DEADLINE, posted.recv()).await;
    posted.expect("it is posted in time").expect("it listens")
}

#[tokio::test]
async fn webhooks_are_told_signed_and_in_order_and_again_until_they_take_it() {
    // The first answers make two events be sent again, and the third be given up.
    let (url, mut posted) = receiver(&[500, 429, 200, 410]).await;
    let file = server::file(
        "webhooks.yaml",
        &format!("webhooks: {{urls: [\"{url}\"], secret: {SECRET}}}\n"),
    );
    let server = Server::start(&["--config", &file]).await;
    let mut ada = server.connect().await;
    let join = json!({"type": "join", "roomId": "r", "userId": "ada", "participantName": "Ada"});
    ada.say(&join.to_string()).await;
    let joined = ada.expect("joined").await;

    let mut started = Vec::new();
    for _ in 0..3 {
        let post = next(&mut posted).await;
        assert!(post.is_genuine(SECRET) && !post.is_genuine("another"));
        started.push(post);
    }
    let first = started[0].json();
    assert_eq!(
        (&first["type"], &first["roomId"]),
        (&json!("room-started"), &json!("r"))
    );
    assert!(first["at"].as_u64() > Some(1_600_000_000_000));
    for again in &started {
        assert_eq!(again.json(), first, "it keeps its name and its time");
    }
    let second = next(&mut posted).await.json();
    assert_eq!(second["type"], "participant-joined");
    assert_eq!(second["participantId"], joined["participantId"]);
    assert_eq!(
        (&second["userId"], &second["name"]),
        (&json!("ada"), &json!("Ada"))
    );
    ada.close().await;
    let left = next(&mut posted).await.json();
    assert_eq!(
        (&left["type"], &left["reason"]),
        (&json!("participant-left"), &json!("disconnected"))
    );
    let finished = next(&mut posted).await.json();
    assert_eq!(
        (&finished["type"], &finished["reason"]),
        (&json!("room-finished"), &json!("empty"))
    );

    // What happens while the server stops is told as well.
    let mut ben = server.connect().await;
    ben.join("r", "Ben").await;
    for kind in ["room-started", "participant-joined"] {
        assert_eq!(next(&mut posted).await.json()["type"], kind);
    }
    let counted = &server.get("/api/stats").await.json()["events"][0];
    let figures = ["kind", "refused", "retried", "dropped"].map(|name| counted[name].clone());
    assert_eq!(figures, [json!("webhook"), json!(1), json!(2), json!(0)]);
    let log = server.end().await;
    let left = next(&mut posted).await.json();
    assert_eq!(
        (&left["type"], &left["reason"]),
        (&json!("participant-left"), &json!("server-stopped"))
    );
    assert_eq!(next(&mut posted).await.json()["type"], "room-finished");
    assert!(log.contains("a webhook does not take events: 500"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn a_webhook_that_never_answers_costs_events_and_never_a_call() {
    // Accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("bound"));
    let file = server::file(
        "silent.yaml",
        &format!("webhooks: {{urls: [\"{url}\"], secret: {SECRET}, queue: 2}}\n"),
    );
    let server = Server::start(&["--config", &file]).await;
    for room in 0..10 {
        let mut ada = server.connect().await;
        ada.join(&format!("r{room}"), "Ada").await;
        ada.ping().await;
    }
    let counted = &server.get("/api/stats").await.json()["events"][0];
    assert_eq!(counted["waiting"], 2, "{counted}");
    assert!(counted["dropped"].as_u64() >= Some(17), "{counted}");
    // It stops all the same.
    server.end().await;
}

#[tokio::test]
async fn a_webhook_without_a_good_secret_or_address_stops_the_start() {
    for (yaml, parts) in [
        (
            "webhooks: {urls: [\"http://a/\"]}\n",
            ["webhooks.secret", "32 bytes"],
        ),
        (
            "webhooks: {urls: [\"ftp://a/\"], secret: 0123456789abcdef0123456789abcdef}\n",
            ["webhooks.urls", "ftp://a/"],
        ),
    ] {
        let file = server::file("bad-webhooks.yaml", yaml);
        let run = server::run(&["check-config", "--config", &file]).await;
        assert_eq!(run.code, Some(2));
        for part in parts {
            assert!(run.err.contains(part), "{}", run.err);
        }
    }
}

/// A reader of `/api/events`, past the answer's head.
async fn reader(server: &Server) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(server.http).await.expect("it listens");
    let mut stream = BufReader::new(stream);
    let request = b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = timeout(DEADLINE, stream.read_line(&mut head)).await;
        assert_ne!(read.expect("in time").expect("text"), 0, "{head}");
    }
    assert!(
        head.contains("200 OK") && head.contains("text/event-stream"),
        "{head}"
    );
    stream
}

/// The next event's name and data; `None` at the end.
async fn event(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    event_within(DEADLINE, stream).await
}

async fn event_within(
    deadline: Duration,
    stream: &mut BufReader<TcpStream>,
) -> Option<(String, Value)> {
    let mut name = String::new();
    loop {
        let mut line = String::new();
        let read = timeout(deadline, stream.read_line(&mut line)).await;
        if read.expect("in time").expect("text") == 0 {
            return None;
        }
        if let Some(text) = line.strip_prefix("event: ") {
            text.trim().clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            return Some((name, serde_json::from_str(data).expect("JSON")));
        }
    }
}

#[tokio::test]
async fn administrators_read_the_same_events_until_the_server_stops() {
    let server = Server::start(&[]).await;
    let mut stream = reader(&server).await;
    let mut ada = server.connect().await;
    let joined = ada.join("r", "Ada").await;
    let (name, data) = event(&mut stream).await.expect("an event");
    assert_eq!(
        (name.as_str(), &data["roomId"]),
        ("room-started", &json!("r"))
    );
    let (name, data) = event(&mut stream).await.expect("an event");
    assert_eq!(name, "participant-joined");
    assert_eq!(data["participantId"], joined["participantId"]);
    assert!(data["id"].as_str().expect("a name").starts_with("e_"));
    server.ask_to_end().await;
    let (name, data) = event(&mut stream).await.expect("an event");
    assert_eq!(
        (name.as_str(), &data["reason"]),
        ("participant-left", &json!("server-stopped"))
    );
    assert_eq!(
        event(&mut stream).await.expect("an event").0,
        "room-finished"
    );
    assert_eq!(event(&mut stream).await, None);
    assert_eq!(server.ended().await.code, Some(0));
}

#[tokio::test]
async fn there_is_a_bound_to_the_readers_of_events() {
    let server = Server::start(&[]).await;
    let mut readers = Vec::new();
    for _ in 0..64 {
        readers.push(reader(&server).await);
    }
    let answer = server.get("/api/events").await;
    assert_eq!(answer.status, 503);
    drop(readers);
    // A place is free as soon as the server has seen one of them go.
    let freed = async {
        loop {
            let stream = TcpStream::connect(server.http).await.expect("it listens");
            let mut stream = BufReader::new(stream);
            let request = b"GET /api/events HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(request).await.expect("it reads");
            let mut status = String::new();
            stream.read_line(&mut status).await.expect("text");
            if status.contains("200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, freed).await.expect("places are freed");
    server.end().await;
}

/// A film is made at the lowest priority: beside other tests that takes its time.
const PATIENCE: Duration = Duration::from_secs(180);

/// 20 ms of silence (RFC 6716 §3).
const SILENCE: &[u8] = &[0xF8, 0xFF, 0xFE];

/// An S3 server that checks signatures, with its buckets in a directory.
async fn object_store(root: &Path) -> SocketAddr {
    let mut service = S3ServiceBuilder::new(FileSystem::new(root).expect("a directory"));
    service.set_auth(SimpleAuth::from_single("ada", "lovelace"));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("it listens");
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service.clone());
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test]
async fn what_becomes_of_a_recording_is_told_by_webhook_and_as_an_event() {
    let (local, store) = (Folder::new("told"), Folder::new("told-store"));
    let bucket = store.0.join("calls");
    std::fs::create_dir_all(&bucket).expect("its parent can be written");
    let endpoint = format!("http://{}", object_store(&store.0).await);
    let (url, mut posted) = receiver(&[]).await;
    let text = format!(
        "webhooks: {{urls: [\"{url}\"], secret: {SECRET}}}\n\
         recording: {{enabled: true, min_free_space: 0, compose: true, path: \"{}\",\n  \
         s3_upload: true, s3_bucket: calls, s3_endpoint: \"{endpoint}\",\n  \
         s3_access_key_id: ada, s3_secret_access_key: lovelace}}\n",
        local.0.display()
    );
    let file = server::file("told.yaml", &text);
    let server = Server::start(&["--config", &file]).await;
    let mut stream = reader(&server).await;
    let mut ada = Caller::join(&server, "r", SILENCE).await;
    let mut ben = Caller::join(&server, "r", SILENCE).await;
    let begun = server.request("POST", "/api/rooms/r/recording/start", &[], "");
    let id = begun.await.json()["recordingId"].clone();
    talk_as(SILENCE, &mut ada, &mut ben, 50).await;
    let stopped = server.request("POST", "/api/rooms/r/recording/stop", &[], "");
    assert_eq!(stopped.await.status, 200);

    let mut told = Vec::new();
    while told
        .last()
        .is_none_or(|data: &Value| data["type"] != "recording-uploaded")
    {
        let (name, data) = event_within(PATIENCE, &mut stream).await.expect("an event");
        let post = next(&mut posted).await;
        assert!(post.is_genuine(SECRET));
        assert_eq!((&post.json(), &data["type"]), (&data, &json!(name)));
        if name.starts_with("recording-") {
            assert_eq!((&data["roomId"], &data["recordingId"]), (&json!("r"), &id));
            told.push(data);
        }
    }
    let names: Vec<_> = told.iter().map(|data| &data["type"]).collect();
    assert_eq!(
        names,
        [
            "recording-started",
            "recording-finished",
            "recording-composed",
            "recording-uploaded"
        ]
    );
    assert_eq!(told[1]["reason"], "stopped");
    let film = told[2]["file"].as_str().expect("a path");
    let film = std::fs::metadata(bucket.join(film)).expect("it is in the store");
    assert!(film.len() > 1_000, "{} bytes", film.len());
    let location = told[3]["location"].as_str().expect("a place");
    let directory = location.strip_prefix("s3://calls/").expect(location);
    let text = std::fs::read(bucket.join(directory).join("recording.json"));
    let manifest: Value = serde_json::from_slice(&text.expect("it is there")).expect("JSON");
    assert_eq!(manifest["uploadedTo"], location);
    for track in manifest["tracks"].as_array().expect("a list") {
        let name = track["files"][0]["name"].as_str().expect("a name");
        assert!(bucket.join(directory).join(name).is_file(), "{name}");
        assert!(
            !local.0.join(directory).join(name).exists(),
            "{name} is there twice"
        );
    }
    ada.leave().await;
    ben.leave().await;
    server.end().await;
}
