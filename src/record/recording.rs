//! One recording: the tracks of a room, and the manifest that names them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Options;
use super::manifest::{
    BESIDE_NAME, EndReason, FILE_NAME, MAX_PARTICIPANTS, Manifest, Person, State,
};
use super::recorder::{LOCK_NAME, lock};
use super::timeline::{SourceClock, micros};
use super::track::Recorded;
use crate::engine::command::Command;
use crate::engine::copies::Copied;
use crate::id::{PeerId, TrackId};
use crate::mailbox::CommandSender;

/// Tracks of one recording. Further ones are not recorded.
const MAX_TRACKS: usize = 2000;

/// How often a manifest that has changed is written, and how long after the last time where it
/// lacks a file: what it does not name is not found when the process is killed.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const SAVE_SOON: Duration = Duration::from_millis(250);

/// How often a publisher is asked for the keyframe that a track waits for.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Kept free on the disk so that a recording can be ended where nothing else fits any more: the
/// last pieces and the indexes of its files, and its manifest. What needs more loses its last
/// second.
const RESERVE_BYTES: usize = 256 << 10;
pub(super) const RESERVE_NAME: &str = ".reserve";

/// Takes away what [`Recording::new`] has made where it could not make all of it.
pub(super) fn clear(directory: &Path) {
    for name in [RESERVE_NAME, BESIDE_NAME, FILE_NAME, LOCK_NAME] {
        // Which of them there are depends on how far it came.
        let _ = std::fs::remove_file(directory.join(name));
    }
    let _ = std::fs::remove_dir(directory);
}

/// A recording that goes on.
#[derive(Debug)]
pub(super) struct Recording {
    directory: PathBuf,
    /// Nobody repairs what is being written.
    _lock: File,
    manifest: Manifest,
    started: Instant,
    options: Options,
    shard: CommandSender,
    tracks: BTreeMap<TrackId, Recorded>,
    /// Tracks in the order they came, which is that of the manifest.
    order: Vec<TrackId>,
    sources: BTreeMap<PeerId, SourceClock>,
    /// When its files are closed, and why.
    ending: Option<(Instant, EndReason)>,
    /// When its manifest was last written, and whether a file was begun since.
    saved: Instant,
    lacks_file: bool,
    next_ask: Instant,
    is_changed: bool,
}

impl Recording {
    /// Begins a recording in `directory`, which is made.
    pub(super) fn new(
        now: Instant,
        directory: PathBuf,
        manifest: Manifest,
        options: Options,
        shard: CommandSender,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let lock = lock(&directory)?;
        manifest.save(&directory)?;
        std::fs::write(directory.join(RESERVE_NAME), vec![0xFF; RESERVE_BYTES])?;
        Ok(Self {
            directory,
            _lock: lock,
            manifest,
            started: now,
            options,
            shard,
            tracks: BTreeMap::new(),
            order: Vec::new(),
            sources: BTreeMap::new(),
            ending: None,
            saved: now,
            lacks_file: false,
            next_ask: now,
            is_changed: false,
        })
    }

    /// Takes in a copy.
    pub(super) fn handle_copied(&mut self, copied: Copied) -> io::Result<()> {
        match copied {
            Copied::Packet(packet) => {
                let id = packet.track.id;
                if !self.tracks.contains_key(&id) {
                    if self.tracks.len() == MAX_TRACKS {
                        return Ok(());
                    }
                    let is_opaque = self.manifest.opaque;
                    let track =
                        Recorded::new(&packet.track, self.started, &self.options, is_opaque);
                    self.tracks.insert(id, track);
                    self.order.push(id);
                }
                let track = self.tracks.get_mut(&id).expect("inserted above");
                track.handle_packet(packet, &self.directory)
            }
            Copied::Report(report) => {
                if let Some(track) = self.tracks.get_mut(&report.track) {
                    let source = self.sources.entry(report.track.peer).or_default();
                    track.handle_report(&report, source);
                }
                Ok(())
            }
            Copied::Ended { track, .. } => match self.tracks.get_mut(&track) {
                Some(track) => track.finish(&self.directory),
                None => Ok(()),
            },
        }
    }

    pub(super) fn handle_joined(
        &mut self,
        now: Instant,
        peer: PeerId,
        user_id: Option<String>,
        name: Option<String>,
    ) {
        if self.manifest.participants.len() < MAX_PARTICIPANTS {
            let joined_ms = self.ms(now);
            self.manifest.participants.push(Person {
                id: peer.to_string(),
                user_id,
                name,
                joined_ms,
                left_ms: None,
            });
            self.is_changed = true;
        }
    }

    pub(super) fn handle_left(&mut self, now: Instant, peer: PeerId) {
        let left_ms = self.ms(now);
        let id = peer.to_string();
        let mut there = self.manifest.participants.iter_mut();
        if let Some(person) = there.find(|person| person.id == id) {
            person.left_ms.get_or_insert(left_ms);
            self.is_changed = true;
        }
    }

    /// Whoever spoke last stays in the picture while nobody speaks.
    pub(super) fn handle_speaker(&mut self, now: Instant, peer: Option<PeerId>) {
        if let Some(peer) = peer {
            let at_ms = self.ms(now);
            self.manifest.add_speaker(at_ms, &peer.to_string());
            self.is_changed = true;
        }
    }

    /// Ends it once what is on its way has come. The first reason counts.
    pub(super) fn end(&mut self, at: Instant, reason: EndReason) -> bool {
        let is_first = self.ending.is_none();
        self.ending.get_or_insert((at, reason));
        is_first
    }

    /// Writes what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> io::Result<()> {
        for track in self.tracks.values_mut() {
            track.handle_timeout(now, &self.directory)?;
            self.lacks_file |= track.has_begun();
        }
        if now >= self.next_ask {
            self.next_ask = now + ASK_EVERY;
            for (id, track) in &self.tracks {
                if track.needs_keyframe() {
                    // A full queue is tried again.
                    let _ = self.shard.try_send(Command::RenewRecorded { track: *id });
                }
            }
        }
        let wait = if self.lacks_file {
            SAVE_SOON
        } else {
            SAVE_EVERY
        };
        if now.saturating_duration_since(self.saved) >= wait {
            self.saved = now;
            self.lacks_file = false;
            self.gather();
            if std::mem::replace(&mut self.is_changed, false) {
                self.manifest.save(&self.directory)?;
            }
        }
        Ok(())
    }

    /// Whether it is to be finished.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ending.is_some_and(|(at, _)| now >= at)
    }

    /// Closes all files. What cannot be written is left to `corelay record repair`.
    pub(super) fn finish(mut self, now: Instant) -> Manifest {
        if let Err(error) = std::fs::remove_file(self.directory.join(RESERVE_NAME)) {
            tracing::warn!(%error, "the space that is kept for the end cannot be had");
        }
        let mut state = State::Finished;
        for (id, track) in &mut self.tracks {
            if let Err(error) = track.finish(&self.directory) {
                tracing::warn!(track = %id, %error, "a recorded file could not be finished");
                state = State::Interrupted;
            }
        }
        self.gather();
        let reason = self.ending.map(|(_, reason)| reason);
        let elapsed = self.ms(now);
        self.manifest.state = state;
        self.manifest.ended_at = Some(self.manifest.started_at + elapsed);
        self.manifest.end_reason = reason;
        if let Err(error) = self.manifest.save(&self.directory) {
            tracing::warn!(%error, "the manifest of a recording could not be written");
        }
        self.manifest
    }

    /// What is known of it.
    pub(super) fn manifest(&mut self) -> &Manifest {
        self.gather();
        &self.manifest
    }

    /// Its directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Brings the manifest's tracks up to date.
    fn gather(&mut self) {
        for (index, id) in self.order.iter().enumerate() {
            let Some(track) = self.tracks.get_mut(id) else {
                continue;
            };
            let (told, is_changed) = track.told();
            if is_changed || index >= self.manifest.tracks.len() {
                self.is_changed = true;
                match self.manifest.tracks.get_mut(index) {
                    Some(place) => *place = told.clone(),
                    None => self.manifest.tracks.push(told.clone()),
                }
            }
        }
    }

    fn ms(&self, now: Instant) -> u64 {
        micros(self.started, now).max(0) as u64 / 1000
    }
}
