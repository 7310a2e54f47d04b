//! What the operator has of the server: signals of the operating system, reloads, metrics.

use std::fmt;
use std::io;
use std::net::TcpListener;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal as on_signal};

use crate::mailbox::Pulse;
use crate::metrics::{self, Format};
use crate::signal::Options;
use crate::signal::hub::{Handle, Input, Question};

/// Connections to the metrics' port at one time. One more is dropped.
pub const MAX_SCRAPERS: usize = 32;

/// What the server has beside its clients.
#[derive(Debug, Default)]
pub struct Operator {
    /// Felt, to know that every shard turns.
    pub pulses: Vec<Pulse>,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<TcpListener>,
    /// How the options are read again, if they can be.
    pub reload: Option<Reload>,
    /// Gives memory that is free back to the system; that may hold up every thread for
    /// milliseconds.
    pub give_memory_back: Option<fn()>,
    /// The loop to serve in; without one SIGTERM, SIGINT and SIGHUP do what they do by default.
    pub event_loop: Option<EventLoop>,
}

/// The event loop of the signalling thread, which keeps the signals that come before it serves:
/// whoever starts the process may send one as soon as it says a word.
#[derive(Debug)]
pub struct EventLoop {
    pub(super) runtime: Runtime,
    pub(super) signals: Option<Signals>,
}

impl EventLoop {
    /// From here on SIGTERM, SIGINT and SIGHUP mean what [`Wanted`] says.
    ///
    /// # Errors
    ///
    /// The operating system refused what an event loop needs.
    pub fn catching_signals() -> io::Result<Self> {
        let event_loop = Self::new()?;
        let entered = event_loop.runtime.enter();
        let signals = Some(Signals {
            terminate: on_signal(SignalKind::terminate())?,
            interrupt: on_signal(SignalKind::interrupt())?,
            hangup: on_signal(SignalKind::hangup())?,
        });
        drop(entered);
        Ok(Self {
            signals,
            ..event_loop
        })
    }

    pub(super) fn new() -> io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Ok(Self {
            runtime: builder.enable_all().build()?,
            signals: None,
        })
    }
}

/// The signals that are caught.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What the operator wants of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// SIGTERM: to end when calls have ended, or at the deadline; the second time now.
    Drain,
    /// SIGINT: to end now.
    End,
    /// SIGHUP: to read its options again.
    Reload,
}

/// Reads the options again.
pub struct Reload(Box<dyn FnMut() -> Result<Reloaded, String> + Send>);

/// Options that were read again.
#[derive(Debug)]
pub struct Reloaded {
    /// All of them.
    pub options: Options,
    /// What differs and counts from here on.
    pub changed: Vec<String>,
    /// What differs and counts after a restart.
    pub waiting: Vec<String>,
}

impl Reload {
    /// `read` says why not, in a sentence, when something is wrong; it takes little time.
    pub fn new(read: impl FnMut() -> Result<Reloaded, String> + Send + 'static) -> Self {
        Self(Box::new(read))
    }

    /// The options as they are now.
    ///
    /// # Errors
    ///
    /// What is wrong with them, in a sentence.
    pub fn read(&mut self) -> Result<Reloaded, String> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// Tells the hub of signals, for ever.
pub(super) async fn take_signals(hub: Handle, mut signals: Signals) {
    loop {
        let wanted = tokio::select! {
            _ = signals.terminate.recv() => Wanted::Drain,
            _ = signals.interrupt.recv() => Wanted::End,
            _ = signals.hangup.recv() => Wanted::Reload,
        };
        if hub.tell(Input::Operator(wanted)).await.is_err() {
            return;
        }
    }
}

/// The metrics' port.
pub(super) fn scrapes(hub: Handle) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(hub)
}

async fn scrape(State(hub): State<Handle>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let asked = hub.ask(|reply| Input::Asked(Question::Metrics(reply)));
    let Ok(mut families) = asked.await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server stops").into_response();
    };
    families.extend(metrics::process::families());
    let text = metrics::write(families, format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}
