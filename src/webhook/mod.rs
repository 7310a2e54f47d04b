//! Side job: posts events to addresses of the operator's, on a thread of its own.
//!
//! Each address has its own queue and its own worker, so that one that does not answer holds up
//! no other. What is sent, and how it is signed, is in `docs/events.md`.

mod delivery;
mod signature;

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::signal::outlets::{Outlet, OutletKind};
use delivery::Worker;
use signature::Signer;

/// Where events are posted, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The addresses; with none nothing is started.
    pub urls: Vec<Url>,
    /// What the signatures are made with.
    pub secret: String,
    /// How often a delivery that failed is tried again.
    pub retries: u32,
    /// Events that wait for one address. When full the newest is dropped and counted.
    pub queue: usize,
}

/// Why the webhooks could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no thread for them.
    #[error("cannot start the thread of the webhooks: {0}")]
    Thread(#[from] io::Error),
    /// There is no HTTP client for them.
    #[error("cannot start the client of the webhooks: {0}; are the system's certificates there?")]
    Client(#[from] reqwest::Error),
}

/// How long one attempt may take, from the connection to the answer's head.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what waits may take to be delivered when the server stops. Then it is lost.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The running thread. Dropped, it ends as well, but is not waited for.
#[derive(Debug)]
pub struct Webhooks {
    /// Dropping it is the message.
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Reads an address.
///
/// # Errors
///
/// Why it is none, as the end of a sentence.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("`{text}` is no address: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("`{text}` is no address of http:// or https://"));
    }
    Ok(url)
}

impl Webhooks {
    /// Starts the thread, and says where events for each address go.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(options: Options) -> Result<(Self, Vec<Outlet>), StartError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("corelay/", env!("CARGO_PKG_VERSION")))
            .timeout(ATTEMPT_TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut workers, mut outlets) = (Vec::new(), Vec::new());
        for url in options.urls {
            let (queue, events) = mpsc::channel(options.queue);
            let (counting, counted) = watch::channel(delivery::Counts::default().by_name());
            outlets.push(Outlet {
                kind: OutletKind::Webhook,
                queue,
                counted,
            });
            let signer = Signer::new(&options.secret);
            let client = client.clone();
            workers.push(Worker::new(
                client,
                url,
                signer,
                options.retries,
                events,
                counting,
            ));
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("webhooks".into());
        let thread = thread.spawn(move || {
            runtime.block_on(run(workers, stopped));
            runtime.shutdown_background();
        })?;
        Ok((Self { stop, thread }, outlets))
    }

    /// Gives what waits a moment to be delivered, and ends. The outlets must be gone.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the webhooks had panicked");
        }
    }
}

async fn run(workers: Vec<Worker>, stopped: oneshot::Receiver<()>) {
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(worker.run());
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    let too_late = async {
        // Nobody sends: it only ever ends.
        let _ = stopped.await;
        sleep(STOP_TIMEOUT).await;
        tracing::warn!("the server ended before all events were delivered to the webhooks");
    };
    tokio::select! {
        () = all => {}
        () = too_late => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_http_are_taken() {
        for good in ["http://127.0.0.1:9/x", "https://hooks.example.org/a?b=c"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "hooks.example.org",
            "ftp://a/",
            "file:///etc/passwd",
            "http://",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
