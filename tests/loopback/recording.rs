//! Rooms that are recorded while something goes wrong: the call goes on.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::caller::Caller;
use super::server::{DEADLINE, Server};

const VOICE: &[u8] = b"a voice that is recorded";

/// A folder for the recordings of one test, which is gone at its end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let name = format!("corelay-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server that records into a folder, with more of its environment.
pub(super) async fn recording_server(folder: &Path, more: &[(&str, &str)]) -> Server {
    let path = folder.to_str().expect("a path of text");
    let mut variables = vec![
        ("CORELAY_RECORDING_ENABLED", "true"),
        ("CORELAY_RECORDING_PATH", path),
        ("CORELAY_RECORDING_MIN_FREE_SPACE", "0"),
    ];
    variables.extend(more);
    let started = Server::start_with(&[], &variables).await;
    started.unwrap_or_else(|refused| panic!("{}", refused.err))
}

/// Until each of the two has heard so many more packets.
async fn talk(ada: &mut Caller, ben: &mut Caller, packets: u64) {
    talk_as(VOICE, ada, ben, packets).await;
}

/// The same with another sound.
pub(super) async fn talk_as(voice: &[u8], ada: &mut Caller, ben: &mut Caller, packets: u64) {
    let until = [ada.heard + packets, ben.heard + packets];
    let talking = async {
        while ada.heard < until[0] || ben.heard < until[1] {
            tokio::join!(ada.turn(voice), ben.turn(voice));
        }
    };
    let talked = tokio::time::timeout(DEADLINE, talking).await;
    assert!(
        talked.is_ok(),
        "{} and {} of {until:?}",
        ada.heard,
        ben.heard
    );
}

async fn start_recording(server: &Server) -> Value {
    let answer = server
        .request("POST", "/api/rooms/r/recording/start", &[], "")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["recordingId"].clone()
}

#[tokio::test]
async fn a_recording_that_cannot_be_written_ends_with_a_reason_and_the_call_goes_on() {
    let folder = Folder::new("unwritable");
    let server = recording_server(&folder.0, &[]).await;
    let mut ada = Caller::join(&server, "r", VOICE).await;
    let mut ben = Caller::join(&server, "r", VOICE).await;
    talk(&mut ada, &mut ben, 10).await;
    // A file stands where the folder would: not even the superuser can make one in it.
    let _ = std::fs::remove_dir_all(&folder.0);
    std::fs::write(&folder.0, "").expect("its parent can be written");
    start_recording(&server).await;
    let told = ada.signalling.expect("recording-stopped").await;
    assert_eq!(told["reason"], "write-failed");
    talk(&mut ada, &mut ben, 50).await;

    // The disk is there again.
    std::fs::remove_file(&folder.0).expect("it is a file");
    std::fs::create_dir(&folder.0).expect("its parent can be written");
    let id = start_recording(&server).await;
    let told = ada.signalling.expect("recording-started").await;
    assert_eq!(told["recordingId"], id);
    talk(&mut ada, &mut ben, 50).await;
    ada.leave().await;
    ben.leave().await;
    server.end().await;
}

#[tokio::test]
async fn a_full_disk_ends_the_recording_with_a_reason_and_the_call_goes_on() {
    let folder = Folder::new("full");
    // In MiB: no disk has so many.
    let more = [("CORELAY_RECORDING_MIN_FREE_SPACE", "1000000000")];
    let server = recording_server(&folder.0, &more).await;
    let mut ada = Caller::join(&server, "r", VOICE).await;
    let mut ben = Caller::join(&server, "r", VOICE).await;
    talk(&mut ada, &mut ben, 10).await;
    start_recording(&server).await;
    let told = ada.signalling.expect("recording-stopped").await;
    assert_eq!(told["reason"], "disk-full");
    talk(&mut ada, &mut ben, 50).await;
    ada.leave().await;
    ben.leave().await;
    server.end().await;
}

#[tokio::test]
async fn a_voice_is_recorded_whole_while_another_participant_floods() {
    let folder = Folder::new("flooded");
    let more = [("CORELAY_WEBRTC_MAX_PACKETS", "200")];
    let server = recording_server(&folder.0, &more).await;
    let mut ada = Caller::join(&server, "r", VOICE).await;
    let mut ben = Caller::join(&server, "r", VOICE).await;
    let mut mallory = Caller::join(&server, "r", &[0xFC; 1_000]).await;
    mallory.burst = 50;
    let id = start_recording(&server).await;
    let before = ada.heard;
    let talking = async {
        while ada.heard < before + 250 {
            tokio::join!(ada.turn(VOICE), ben.turn(VOICE), mallory.turn(VOICE));
        }
    };
    let talked = tokio::time::timeout(DEADLINE, talking).await;
    assert!(talked.is_ok(), "{} of 250 were heard", ada.heard - before);
    let stats = server.counters(|engine| engine["rtp_in"].as_u64() > Some(1_000));
    let dropped = &stats.await["totals"]["dropped"]["peer_cap"];
    assert!(dropped.as_u64() > Some(1_000), "{dropped} were dropped");
    let stopped = server
        .request("POST", "/api/rooms/r/recording/stop", &[], "")
        .await;
    assert_eq!(stopped.status, 200, "{}", stopped.body);

    let path = format!("/api/recordings/{}", id.as_str().expect("a name"));
    let finished = async {
        loop {
            let manifest = server.get(&path).await.json();
            if manifest["state"] == json!("finished") {
                return manifest;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let finished = tokio::time::timeout(DEADLINE, finished).await;
    let manifest = finished.expect("it is finished in time");
    assert_eq!(manifest["endReason"], "stopped");
    let tracks = manifest["tracks"].as_array().expect("a list");
    assert_eq!(tracks.len(), 3, "{manifest}");
    // The two who talk, in the order they came.
    for track in &tracks[..2] {
        let file = &track["files"][0];
        assert!(file["frames"].as_u64() >= Some(225), "{track}");
        assert!(file["durationMs"].as_u64() >= Some(4_500), "{track}");
    }
    for caller in [ada, ben, mallory] {
        caller.leave().await;
    }
    server.end().await;
}
