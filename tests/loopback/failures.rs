//! Failures that need something of the machine: `scripts/operations` provides it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::time::timeout;

use super::caller::Caller;
use super::server::{DEADLINE, Server};

/// As long as a packet of sound may be, so that a small disk is soon full.
const LOUD: &[u8] = &[0x78; 1_000];

#[tokio::test]
#[ignore = "scripts/operations mounts the small disk"]
async fn a_disk_that_fills_up_ends_recordings_and_no_call() {
    let disk = std::env::var("CORELAY_TEST_DISK").expect("the path of a small disk");
    let variables = [
        ("CORELAY_RECORDING_ENABLED", "true"),
        ("CORELAY_RECORDING_AUTO", "true"),
        ("CORELAY_RECORDING_MIN_FREE_SPACE", "0"),
        ("CORELAY_RECORDING_PATH", disk.as_str()),
    ];
    let server = Server::start_with(&[], &variables)
        .await
        .expect("it starts");
    let mut callers = [
        Caller::join(&server, "recorded", LOUD).await,
        Caller::join(&server, "recorded", LOUD).await,
    ];
    // The disk holds less than this, beside what a recording reserves for its end.
    talk(&mut callers, 400).await;
    let stopped = timeout(DEADLINE, callers[0].signalling.expect("recording-stopped")).await;
    let stopped = stopped.expect("it ends with the disk");
    talk(&mut callers, 50).await;
    assert_eq!(stopped["reason"], "disk-full");
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(callers.iter().map(|caller| caller.misheard).sum::<u64>(), 0);
    let log = server.end().await;
    assert!(log.contains("disk"), "{log}");
    let manifest: Value = serde_json::from_str(&manifest(Path::new(&disk))).expect("JSON");
    assert_eq!(manifest["endReason"], "disk-full", "{manifest}");
}

/// Lets both hear so many packets more.
async fn talk(callers: &mut [Caller; 2], packets: u64) {
    let goals = [0, 1].map(|index: usize| callers[index].heard + packets);
    let talking = async {
        while callers[0].heard < goals[0] || callers[1].heard < goals[1] {
            let [a, b] = &mut *callers;
            tokio::join!(a.turn(LOUD), b.turn(LOUD));
        }
    };
    timeout(DEADLINE, talking)
        .await
        .expect("they hear each other");
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
