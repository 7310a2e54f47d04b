//! What is done with recordings that have ended, one after the other: composed, then uploaded.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::clock;
use super::compose::{ComposeError, Wanted, compose};
use super::layout::Layout;
use super::manifest::Manifest;
use super::order::Notice;
use super::upload::{self, Target, UploadError};
use crate::backoff::Backoff;

/// Recordings that wait: as many as are known. Further ones are done after the next start of the
/// server.
pub(super) const WAITING: usize = 10_000;

/// Waits between two tries.
const WAITS: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// What is done.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether one file is made of each.
    pub compose: Option<Composition>,
    /// Where they are uploaded to.
    pub target: Option<Target>,
    /// Whether local media are kept after that.
    pub keeps_local: bool,
}

/// The file that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    /// How its pictures are laid out.
    pub layout: Layout,
    /// Its name.
    pub name: &'static str,
    /// Of the picture, in bit/s.
    pub video_bps: u64,
    /// Of the sound, in bit/s.
    pub audio_bps: u64,
}

/// The recorder's end of the thread.
#[derive(Debug)]
pub(super) struct After {
    waiting: mpsc::Sender<PathBuf>,
    done: crossbeam_channel::Receiver<Notice>,
}

impl After {
    /// Starts the thread; `None` when there is nothing to do.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub(super) fn start(options: Options) -> io::Result<Option<Self>> {
        if options.compose.is_none() && options.target.is_none() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (waiting, next) = mpsc::channel(WAITING);
        let (tell, done) = crossbeam_channel::bounded(WAITING);
        // A recorder that has ended needs no answer.
        let tell = move |notice| drop(tell.try_send(notice));
        thread::Builder::new()
            .name("recorded".to_owned())
            .spawn(move || runtime.block_on(work(&options, WAITS, next, tell)))?;
        Ok(Some(Self { waiting, done }))
    }

    /// Does what is to be done with the recording in a directory.
    pub(super) fn handle(&self, directory: PathBuf) {
        if self.waiting.try_send(directory).is_err() {
            tracing::warn!("too many recordings wait to be composed and uploaded");
        }
    }

    /// What was done with a recording.
    pub(super) fn poll(&self) -> Option<Notice> {
        self.done.try_recv().ok()
    }
}

/// A recording with which something is to be done.
#[derive(Debug)]
struct Waiting {
    directory: PathBuf,
    /// When it is tried, and how often it was in vain.
    due: Instant,
    failures: u32,
}

/// Does what is to be done with each recording that comes, until no more can come. One that is not
/// taken waits, and others do not wait for it.
pub(super) async fn work(
    options: &Options,
    waits: Backoff,
    mut next: mpsc::Receiver<PathBuf>,
    tell: impl Fn(Notice),
) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        let due = waiting.iter().map(|one| one.due).min();
        let until = due.unwrap_or_else(clock);
        tokio::select! {
            biased;
            directory = next.recv(), if waiting.len() < WAITING => match directory {
                Some(directory) => waiting.push(Waiting { directory, due: clock(), failures: 0 }),
                None => return,
            },
            () = tokio::time::sleep_until(until.into()), if due.is_some() => {
                let Some(place) = waiting.iter().position(|one| Some(one.due) == due) else {
                    continue;
                };
                let one = waiting.remove(place);
                waiting.extend(attempt(options, waits, one, &tell).await);
            }
        }
    }
}

/// Tries once; what is to be tried again is given back.
async fn attempt(
    options: &Options,
    waits: Backoff,
    one: Waiting,
    tell: impl Fn(Notice),
) -> Option<Waiting> {
    let shown = one.directory.display();
    let manifest = match Manifest::load(&one.directory) {
        Ok(manifest) => manifest,
        Err(error) => {
            tracing::error!(directory = %shown, %error, "a recording is left as it is");
            return None;
        }
    };
    let Err(error) = finish(options, manifest, &one.directory, tell).await else {
        return None;
    };
    let wait = waits.pause(one.failures);
    let seconds = wait.as_secs();
    tracing::warn!(directory = %shown, %error, seconds, "not uploaded yet; tried again");
    Some(Waiting {
        due: clock() + wait,
        failures: one.failures.saturating_add(1),
        ..one
    })
}

pub(super) async fn finish(
    options: &Options,
    mut manifest: Manifest,
    directory: &Path,
    tell: impl Fn(Notice),
) -> Result<(), UploadError> {
    if let Some(composition) = options.compose.as_ref()
        && manifest.composed.is_none()
        && !manifest.opaque
        && manifest.uploaded_to.is_none()
    {
        let wanted = Wanted {
            layout: composition.layout,
            out: directory.join(composition.name),
            video_bps: composition.video_bps,
            audio_bps: composition.audio_bps,
            is_nice: true,
        };
        match compose(directory, &wanted, |_, _| {}) {
            Ok(_) => {
                manifest.composed = Some(composition.name.to_owned());
                manifest.save(directory)?;
                tell(Notice::Composed(Box::new(manifest.clone())));
            }
            // It is uploaded as it is.
            Err(ComposeError::Nothing) => {}
            Err(error) => tracing::error!(recording = manifest.id, %error, "not composed"),
        }
    }
    if let Some(target) = &options.target
        && !upload::is_done(&manifest, directory)
    {
        let uploaded = target.upload(directory, options.keeps_local).await?;
        tell(Notice::Uploaded(Box::new(uploaded)));
    }
    Ok(())
}
