//! Commands and configurations that other servers' manuals print: they work here as they stand.

use serde_json::{Value, json};

use super::recording::Folder;
use super::server::{self, Server};

const CONFIGURATION: &str = r#"server:
  host: "0.0.0.0"
  port: 8080

webrtc:
  ice_servers:
    - urls: ["stun:stun.l.google.com:19302"]
  max_bitrate: 5000000
  simulcast: true

rooms:
  max_participants: 100
  auto_create: true
  idle_timeout: 3600

recording:
  enabled: true
  path: "recordings"
  format: "webm"
"#;

const LOCAL: &str = r#"recording:
  enabled: true
  path: "recordings"
  format: "webm"
  video_bitrate: 2500000
  audio_bitrate: 128000
"#;

const CLOUD: &str = r#"recording:
  s3_upload: true
  s3_bucket: "recordings"
  s3_region: "us-east-1"
"#;

const CREATE: &str = r#"curl -X POST http://localhost:8080/api/rooms \
  -H "Content-Type: application/json" \
  -d '{
    "name": "Conference Room",
    "maxParticipants": 50
  }'"#;
const LIST: &str = "curl http://localhost:8080/api/rooms";
const ROOM: &str = "curl http://localhost:8080/api/rooms/room-123";
const STATISTICS: &str = "curl http://localhost:8080/api/rooms/room-123/stats";
const START: &str = "curl -X POST http://localhost:8080/api/rooms/room-123/recording/start";
const STOP: &str = "curl -X POST http://localhost:8080/api/rooms/room-123/recording/stop";

/// Does what a printed command does, at another port.
async fn execute(server: &Server, command: &str) -> (u16, Value) {
    let words = words(command);
    let after = |flag: &str| {
        let at = words.iter().position(|word| word == flag)?;
        words.get(at + 1).map(String::as_str)
    };
    let url = words.iter().find(|word| word.starts_with("http://"));
    let path = url.and_then(|url| url.strip_prefix("http://localhost:8080"));
    let header = after("-H").and_then(|header| header.split_once(": "));
    let headers: Vec<_> = header.into_iter().collect();
    let answer = server
        .request(
            after("-X").unwrap_or("GET"),
            path.expect("a command with an address"),
            &headers,
            after("-d").unwrap_or_default(),
        )
        .await;
    (answer.status, answer.json())
}

/// The words of a command, as a shell reads them.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in command.replace("\\\n", " ").chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().expect("it has one").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[tokio::test]
async fn a_printed_configuration_and_the_printed_calls_make_a_recording() {
    let folder = Folder::new("printed");
    let path = folder.0.to_str().expect("a path of text");
    let file = server::file("printed.yaml", CONFIGURATION);
    let server = Server::start_with(
        &["--config", &file],
        &[
            ("CORELAY_RECORDING_PATH", path),
            ("CORELAY_RECORDING_MIN_FREE_SPACE", "0"),
        ],
    )
    .await
    .unwrap_or_else(|refused| panic!("{}", refused.err));
    let (status, made) = execute(&server, CREATE).await;
    assert_eq!((status, &made["name"]), (201, &json!("Conference Room")));
    assert_eq!(made["maxParticipants"], 50);
    let mut john = server.connect().await;
    john.join("room-123", "John Doe").await;
    let (status, all) = execute(&server, LIST).await;
    assert_eq!(
        (status, all["rooms"].as_array().map(Vec::len)),
        (200, Some(2))
    );
    let (status, room) = execute(&server, ROOM).await;
    assert_eq!((status, &room["id"]), (200, &json!("room-123")));
    let (status, statistics) = execute(&server, STATISTICS).await;
    assert_eq!((status, &statistics["participants"]), (200, &json!(1)));
    let (status, begun) = execute(&server, START).await;
    assert_eq!((status, &begun["recording"]), (200, &json!(true)));
    john.expect("recording-started").await;
    let (status, ended) = execute(&server, STOP).await;
    assert_eq!((status, &ended["recording"]), (200, &json!(false)));
    assert_eq!(ended["recordingId"], begun["recordingId"]);
    john.expect("recording-stopped").await;
    server.end().await;
}

#[tokio::test]
async fn printed_configurations_of_recording_are_fine() {
    for (name, text) in [("local.yaml", LOCAL), ("cloud.yaml", CLOUD)] {
        let file = server::file(name, text);
        let checked = server::run(&["check-config", "--config", &file]).await;
        assert_eq!(checked.code, Some(0), "{name}: {}", checked.err);
    }
}
