//! Failures that need something of the machine: `scripts/operations` provides it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::timeout;

use super::caller::Caller;
use super::recording::{recording_server, talk_as};
use super::server::DEADLINE;

/// As long as a packet of sound may be, so that a small disk is soon full.
const LOUD: &[u8] = &[0x78; 1_000];

#[tokio::test]
#[ignore = "scripts/operations mounts the small disk"]
async fn a_disk_that_fills_up_ends_recordings_and_no_call() {
    let disk = std::env::var("CORELAY_TEST_DISK").expect("the path of a small disk");
    let auto = [("CORELAY_RECORDING_AUTO", "true")];
    let server = recording_server(Path::new(&disk), &auto).await;
    let mut ada = Caller::join(&server, "recorded", LOUD).await;
    let mut ben = Caller::join(&server, "recorded", LOUD).await;
    // The disk holds less than this, beside what a recording reserves for its end.
    talk_as(LOUD, &mut ada, &mut ben, 400).await;
    let stopped = timeout(DEADLINE, ada.signalling.expect("recording-stopped")).await;
    let stopped = stopped.expect("it ends with the disk");
    talk_as(LOUD, &mut ada, &mut ben, 50).await;
    assert_eq!(stopped["reason"], "disk-full");
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(ada.misheard + ben.misheard, 0);
    let log = server.end().await;
    assert!(log.contains("disk"), "{log}");
    let manifest: Value = serde_json::from_str(&manifest(Path::new(&disk))).expect("JSON");
    assert_eq!(manifest["endReason"], "disk-full", "{manifest}");
}

/// The manifest of the one recording below a directory.
fn manifest(directory: &Path) -> String {
    let mut paths: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be listed");
            paths.extend(entries.flatten().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|kind| kind == "json") {
            return fs::read_to_string(&path).expect("it can be read");
        }
    }
    panic!("no manifest in {}", directory.display());
}
