//! All recordings: those that go on, and those that are there.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Options;
use super::after::After;
use super::container;
use super::manifest::{EndReason, FILE_NAME, Manifest, RecordedFile, State};
use super::order::{Notice, Order};
use super::pieces::Repaired;
use super::recording::{self, RESERVE_NAME, Recording};
use super::upload;
use crate::engine::copies::Copied;
use crate::id::RecordingNumber;

/// Recordings that are known at one time. The oldest are forgotten, not deleted.
const MAX_KNOWN: usize = 10_000;

/// How deep below the directory of the recordings one is looked for.
const MAX_DEPTH: usize = 8;

/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(2);

/// How often recordings that are too old are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(600);

/// What is locked while a recording goes on or is repaired.
pub(super) const LOCK_NAME: &str = ".lock";

/// See the module.
#[derive(Debug)]
pub(super) struct Recorder {
    /// Who composes and uploads, if anybody does.
    after: Option<After>,
    options: Options,
    live: BTreeMap<RecordingNumber, Recording>,
    /// Recordings that have ended, oldest first.
    known: VecDeque<Manifest>,
    notices: VecDeque<Notice>,
    next_space: Instant,
    next_retention: Instant,
}

impl Recorder {
    /// Finds what is there, and repairs what a killed process left.
    pub(super) fn new(now: Instant, options: Options, after: Option<After>) -> Self {
        let mut found = Vec::new();
        find(&options.path, 0, &mut found);
        let mut known = Vec::new();
        for directory in found {
            match mend(&directory) {
                Ok(mut manifest) => {
                    // A manifest is a file that people can write, and move.
                    let relative = directory.strip_prefix(&options.path);
                    let relative = relative.unwrap_or(&directory).display();
                    manifest.directory = relative.to_string();
                    known.push(manifest);
                }
                Err(error) => {
                    let directory = directory.display();
                    tracing::warn!(%directory, %error, "a recording cannot be read");
                }
            }
        }
        known.sort_by_key(|manifest| manifest.started_at);
        if let Some(after) = &after {
            for manifest in &known {
                let directory = options.path.join(&manifest.directory);
                if !upload::is_done(manifest, &directory) {
                    after.handle(directory);
                }
            }
        }
        Self {
            after,
            options,
            live: BTreeMap::new(),
            known: known.into(),
            notices: VecDeque::new(),
            next_space: now,
            next_retention: now,
        }
    }

    pub(super) fn handle_order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Start { .. } => self.start(now, order),
            Order::Joined {
                number,
                peer,
                user_id,
                name,
            } => {
                if let Some(recording) = self.live.get_mut(&number) {
                    recording.handle_joined(now, peer, user_id, name);
                }
            }
            Order::Left { number, peer } => {
                if let Some(recording) = self.live.get_mut(&number) {
                    recording.handle_left(now, peer);
                }
            }
            Order::Speaks { number, peer } => {
                if let Some(recording) = self.live.get_mut(&number) {
                    recording.handle_speaker(now, peer);
                }
            }
            Order::Stop { number, reason } => {
                if let Some(recording) = self.live.get_mut(&number) {
                    recording.end(now + self.options.jitter.max, reason);
                }
            }
            Order::List(reply) => {
                let live = self.live.values_mut().map(|r| r.manifest().clone());
                let mut all: Vec<_> = live.collect();
                all.extend(self.known.iter().cloned());
                all.sort_by_key(|manifest| std::cmp::Reverse(manifest.started_at));
                // Whoever asked may have gone.
                let _ = reply.send(all);
            }
        }
    }

    fn start(&mut self, now: Instant, order: Order) {
        let Order::Start {
            number,
            id,
            room,
            shard,
            unix_ms,
            mode,
        } = order
        else {
            return;
        };
        let relative = self.options.template.fill(&room, &id, unix_ms);
        let directory = self.options.path.join(&relative);
        let mut manifest = Manifest::new(&id, room.as_str(), unix_ms, &relative);
        manifest.layer = mode.layer;
        manifest.opaque = mode.is_opaque;
        let copy = manifest.clone();
        if !self.has_room() {
            return self.refuse(number, manifest, EndReason::DiskFull);
        }
        match Recording::new(
            now,
            directory.clone(),
            manifest,
            self.options.clone(),
            shard,
        ) {
            Ok(recording) => {
                tracing::info!(recording = id.as_str(), "recording");
                self.live.insert(number, recording);
            }
            Err(error) => {
                tracing::error!(%error, "a recording could not begin");
                recording::clear(&directory);
                self.refuse(number, copy, reason_of(&error));
            }
        }
    }

    fn refuse(&mut self, number: RecordingNumber, mut manifest: Manifest, reason: EndReason) {
        manifest.state = State::Interrupted;
        manifest.end_reason = Some(reason);
        manifest.ended_at = Some(manifest.started_at);
        let manifest = Box::new(manifest);
        self.notices.push_back(Notice::Ending { number, reason });
        self.notices
            .push_back(Notice::Finished { number, manifest });
    }

    pub(super) fn handle_copied(&mut self, now: Instant, copied: Copied) {
        let number = match &copied {
            Copied::Packet(packet) => packet.recording,
            Copied::Report(report) => report.recording,
            Copied::Ended { recording, .. } => *recording,
        };
        // A recording that has ended may still be sent some.
        let Some(recording) = self.live.get_mut(&number) else {
            return;
        };
        if let Err(error) = recording.handle_copied(copied) {
            self.fail(now, number, &error);
        }
    }

    /// Writes what is due, and ends what is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let numbers: Vec<_> = self.live.keys().copied().collect();
        for number in numbers {
            let Some(recording) = self.live.get_mut(&number) else {
                continue;
            };
            if let Err(error) = recording.handle_timeout(now) {
                self.fail(now, number, &error);
            }
            self.finish_if_over(now, number);
        }
        while let Some(notice) = self.after.as_ref().and_then(After::poll) {
            if let Notice::Composed(done) | Notice::Uploaded(done) = &notice
                && let Some(known) = self.known.iter_mut().find(|one| one.id == done.id)
            {
                known.clone_from(done);
            }
            self.notices.push_back(notice);
        }
        if now >= self.next_space {
            self.next_space = now + SPACE_EVERY;
            if !self.live.is_empty() && !self.has_room() {
                self.end_all(now, EndReason::DiskFull);
            }
        }
        if now >= self.next_retention {
            self.next_retention = now + RETENTION_EVERY;
            self.forget_old();
        }
    }

    /// Ends every recording at once: the server stops.
    pub(super) fn shutdown(&mut self, now: Instant) {
        self.end_all(now, EndReason::ServerShutdown);
        let numbers: Vec<_> = self.live.keys().copied().collect();
        for number in numbers {
            self.finish_if_over(now, number);
        }
    }

    /// Whether nothing is recorded.
    pub(super) fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    fn fail(&mut self, now: Instant, number: RecordingNumber, error: &io::Error) {
        let reason = reason_of(error);
        if let Some(recording) = self.live.get_mut(&number)
            && recording.end(now, reason)
        {
            let directory = recording.directory().display().to_string();
            tracing::error!(directory, %error, "a recording ends: a file cannot be written");
            self.notices.push_back(Notice::Ending { number, reason });
        }
    }

    fn end_all(&mut self, now: Instant, reason: EndReason) {
        for (number, recording) in &mut self.live {
            if recording.end(now, reason) {
                let number = *number;
                self.notices.push_back(Notice::Ending { number, reason });
            }
        }
        if reason == EndReason::DiskFull {
            let floor = self.options.min_free_bytes;
            tracing::error!(
                floor,
                "all recordings end: the disk has too little free space"
            );
        }
    }

    fn finish_if_over(&mut self, now: Instant, number: RecordingNumber) {
        if !self.live.get(&number).is_some_and(|r| r.is_over(now)) {
            return;
        }
        let Some(recording) = self.live.remove(&number) else {
            return;
        };
        let manifest = recording.finish(now);
        tracing::info!(recording = manifest.id, "recorded");
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back(manifest.clone());
        if let Some(after) = &self.after {
            after.handle(self.options.path.join(&manifest.directory));
        }
        let manifest = Box::new(manifest);
        self.notices
            .push_back(Notice::Finished { number, manifest });
    }

    /// Whether the disk has more free space than its floor. What cannot be told is no reason not
    /// to record.
    fn has_room(&self) -> bool {
        free_bytes(&self.options.path).is_none_or(|free| free >= self.options.min_free_bytes)
    }

    /// Deletes what is older than it may be.
    fn forget_old(&mut self) {
        let Some(keep) = self.options.retention else {
            return;
        };
        let oldest = super::unix_ms().saturating_sub(keep.as_millis() as u64);
        // What an object store has not taken yet is nowhere else.
        let is_due = |manifest: &Manifest| {
            let is_old = manifest.ended_at.is_some_and(|at| at < oldest);
            is_old && (self.options.after.target.is_none() || manifest.uploaded_to.is_some())
        };
        let (due, kept) = self.known.drain(..).partition(is_due);
        self.known = kept;
        let due: VecDeque<Manifest> = due;
        for manifest in due {
            let directory = self.options.path.join(&manifest.directory);
            match fs::remove_dir_all(&directory) {
                Ok(()) => tracing::info!(recording = manifest.id, "deleted: older than it may be"),
                Err(error) => {
                    tracing::warn!(recording = manifest.id, %error, "cannot be deleted");
                }
            }
        }
    }
}

/// Free bytes of the disk that a path is on, or will be.
fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists());
    let disk = rustix::fs::statvfs(existing.unwrap_or(Path::new("."))).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

fn reason_of(error: &io::Error) -> EndReason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EndReason::DiskFull,
        _ => EndReason::WriteFailed,
    }
}

/// Directories with a manifest, at most [`MAX_DEPTH`] deep. Links are not followed.
fn find(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if directory.join(FILE_NAME).is_file() {
        found.push(directory.to_owned());
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && depth < MAX_DEPTH && found.len() < MAX_KNOWN {
            find(&entry.path(), depth + 1, found);
        }
    }
}

/// Reads a manifest, and repairs the recording if its process was killed.
///
/// # Errors
///
/// What the file system says.
pub fn mend(directory: &Path) -> io::Result<Manifest> {
    let mut manifest = Manifest::load(directory)?;
    if manifest.state == State::Recording {
        let failed = repair(directory, &mut manifest)?;
        tracing::warn!(recording = manifest.id, "was interrupted, and is repaired");
        for (name, error) in failed {
            tracing::warn!(recording = manifest.id, name, %error, "cannot be repaired");
        }
    }
    Ok(manifest)
}

/// Holds a recording for this process, until what is returned is dropped or the process ends.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] when another process has it.
pub(super) fn lock(directory: &Path) -> io::Result<fs::File> {
    let file = fs::File::create(directory.join(LOCK_NAME))?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::WouldBlock, "it is being recorded just now")
        }
        fs::TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

/// Whether a name leads nowhere else: a manifest is a file that people can write.
#[must_use]
pub(super) fn is_file_name(name: &str) -> bool {
    Path::new(name)
        .file_name()
        .is_some_and(|last| *last == *name)
}

/// Finishes every file of a recording, and tells in its manifest how long each is. Returns which
/// cannot be repaired, and why: those are left as they are.
///
/// # Errors
///
/// What the file system says when the manifest cannot be written.
pub fn repair(directory: &Path, manifest: &mut Manifest) -> io::Result<Vec<(String, io::Error)>> {
    let _lock = lock(directory)?;
    // A recording that has ended needs it no longer; one from elsewhere may have none.
    let _ = fs::remove_file(directory.join(RESERVE_NAME));
    let mut failed = Vec::new();
    let is_elsewhere = manifest.uploaded_to.is_some();
    for track in &mut manifest.tracks {
        track.files.retain_mut(|file| {
            let path = directory.join(&file.name);
            if is_elsewhere && !path.exists() {
                return true;
            }
            match repair_file(&path, file) {
                Ok(is_kept) => is_kept,
                Err(error) => {
                    failed.push((file.name.clone(), error));
                    true
                }
            }
        });
    }
    let end_ms = manifest.duration_ms();
    if manifest.state == State::Recording {
        manifest.state = State::Interrupted;
    }
    manifest
        .ended_at
        .get_or_insert(manifest.started_at.saturating_add(end_ms));
    manifest.end_reason.get_or_insert(EndReason::Interrupted);
    manifest.save(directory)?;
    Ok(failed)
}

/// Finishes a file. One in which there is nothing yet is deleted, which is told by `false`.
fn repair_file(path: &Path, file: &mut RecordedFile) -> io::Result<bool> {
    if !is_file_name(&file.name) {
        let text = "this is no name of a file of ours";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let Repaired { ms, frames } = container::repair(path)?;
    if frames == 0 {
        fs::remove_file(path)?;
        return Ok(false);
    }
    file.duration_ms = ms;
    file.frames = frames;
    file.bytes = fs::metadata(path)?.len();
    Ok(true)
}
