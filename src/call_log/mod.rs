//! Side job: writes rooms, calls and who was in them into SQL, on a thread of its own.
//!
//! A database that is down costs rows and never a call: what happens waits in a bounded queue,
//! is written when the database is back, and is dropped and counted past the bound.

mod database;
mod statement;
mod writer;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::signal::calls::Asker;
use crate::signal::outlets::{Outlet, OutletKind};
pub use database::Address;
use writer::{Counts, Writer};

/// Where the log is, and what it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database.
    pub address: Address,
    /// What this server is called in it; what is open under this name is ended at the start.
    pub server: String,
    /// For how long a call that is over is kept; 0 for ever.
    pub days: u64,
}

/// Events that wait for the database. When full the newest is dropped and counted.
pub const QUEUE_EVENTS: usize = 10_000;

/// Questions that wait. One more is answered with 503.
const QUEUE_QUESTIONS: usize = 16;

/// How long what waits may take to be written when the server stops. Then it is lost.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The running thread. Dropped, it ends as well, but is not waited for.
#[derive(Debug)]
pub struct CallLog {
    /// Dropping it is the message.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl CallLog {
    /// Starts the thread, and says where events for it go and where it is asked. It does not wait
    /// for the database.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub fn start(options: Options) -> io::Result<(Self, Outlet, Asker)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let (asker, questions) = mpsc::channel(QUEUE_QUESTIONS);
        let (counting, counted) = watch::channel(Counts::default().by_name());
        let writer = Writer::new(options, events, questions, counting);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("call-log".into());
        let thread = thread.spawn(move || {
            runtime.block_on(run(writer, stopped));
            runtime.shutdown_background();
        })?;
        let outlet = Outlet {
            kind: OutletKind::CallLog,
            queue,
            counted,
        };
        Ok((Self { stop, thread }, outlet, asker))
    }

    /// Gives what waits a moment to be written, and ends. The outlet must be gone.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the call log had panicked");
        }
    }
}

async fn run(writer: Writer, stopped: oneshot::Receiver<()>) {
    let too_late = async {
        // Nobody sends: it only ever ends.
        let _ = stopped.await;
        sleep(STOP_TIMEOUT).await;
        tracing::warn!("the server ended before all events were in the call log");
    };
    tokio::select! {
        () = writer.run() => {}
        () = too_late => {}
    }
}

#[cfg(test)]
mod tests;
