//! What the operator has of the server: signals of the operating system, reloads, metrics.

use std::fmt;
use std::net::TcpListener;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::signal::unix::{SignalKind, signal as on_signal};

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
    /// Whether SIGTERM, SIGINT and SIGHUP mean what [`Wanted`] says.
    pub takes_signals: bool,
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
pub(super) async fn take_signals(hub: Handle) {
    let listen = |kind| on_signal(kind).expect("its handler can be set");
    let mut terminate = listen(SignalKind::terminate());
    let mut interrupt = listen(SignalKind::interrupt());
    let mut hangup = listen(SignalKind::hangup());
    loop {
        let wanted = tokio::select! {
            _ = terminate.recv() => Wanted::Drain,
            _ = interrupt.recv() => Wanted::End,
            _ = hangup.recv() => Wanted::Reload,
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
