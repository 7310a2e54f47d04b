//! What is done with recordings that have ended, one after the other: composed, then uploaded.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::mpsc;

use super::compose::{Wanted, compose};
use super::layout::Layout;
use super::manifest::Manifest;
use super::order::Notice;
use super::upload::Target;

/// Recordings that wait. Further ones are done after the next start of the server.
const WAITING: usize = 1024;

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
        let (waiting, mut next) = mpsc::channel::<PathBuf>(WAITING);
        let (tell, done) = crossbeam_channel::bounded(WAITING);
        thread::Builder::new()
            .name("recorded".to_owned())
            .spawn(move || {
                while let Some(directory) = next.blocking_recv() {
                    // A recorder that has ended needs no answer.
                    let tell = |notice| drop(tell.try_send(notice));
                    let finished = runtime.block_on(finish(&options, &directory, tell));
                    if let Err(error) = finished {
                        let directory = directory.display();
                        tracing::error!(%directory, %error, "a recording is left as it is");
                    }
                }
            })?;
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

async fn finish(options: &Options, directory: &Path, tell: impl Fn(Notice)) -> io::Result<()> {
    let mut manifest = Manifest::load(directory)?;
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
            Ok(()) => {
                manifest.composed = Some(composition.name.to_owned());
                manifest.save(directory)?;
                tell(Notice::Composed(Box::new(manifest.clone())));
            }
            // It is uploaded as it is.
            Err(error) => tracing::error!(recording = manifest.id, %error, "not composed"),
        }
    }
    if let Some(target) = &options.target
        && manifest.uploaded_to.is_none()
    {
        let uploaded = target.upload(directory, options.keeps_local).await;
        tell(Notice::Uploaded(Box::new(uploaded)));
    }
    Ok(())
}
