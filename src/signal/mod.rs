//! Talks: HTTP and WebSocket, on one thread.
//!
//! A request's way: [`listener`] accepts, [`http`] routes, [`websocket`] moves frames, [`hub`]
//! owns all state and asks the one [`session`] of the socket, which asks the [`directory`].
//! Peers who need no shard, because they send their media to one another, speak a [`dialect`].

pub mod access;
pub mod addresses;
pub mod api;
pub mod caller;
pub mod calls;
pub mod check;
pub mod dialect;
pub mod directory;
pub mod drain;
pub mod figures;
pub mod happening;
pub mod http;
pub mod hub;
pub mod ice_servers;
pub mod idle;
pub mod joins;
pub mod limits;
pub mod listener;
pub mod load;
pub mod message;
pub mod numbers;
pub mod operator;
pub mod origin;
pub mod outlets;
pub mod overload;
pub mod page;
pub mod problem;
pub mod proxies;
pub mod quality;
pub mod relay;
pub mod request;
pub mod resume;
pub mod screen;
pub mod service;
pub mod session;
pub mod sockets;
pub mod stay;
pub mod tls;
pub mod token;
pub mod validity;
pub mod watchdog;
pub mod websocket;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod schema;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::engine::command::Caps;
use crate::mailbox::{CommandSender, Report};
use crate::record::Desk;
use crate::record::order::Mode;
use crate::signal::calls::Asker;
use crate::signal::dialect::paths::Dialects;
use crate::signal::directory::RoomOptions;
use crate::signal::hub::Hub;
use crate::signal::ice_servers::IceServers;
use crate::signal::operator::{EventLoop, Operator, Signals};
use crate::signal::outlets::Outlet;
use crate::signal::proxies::Proxies;

/// What the signalling thread is told once, at start-up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where [`bind`] listens for HTTP and WebSocket.
    pub listen: SocketAddr,
    /// Whether the page is served.
    pub page: bool,
    /// What clients are told for their `RTCPeerConnection`.
    pub ice_servers: IceServers,
    /// Who gets in.
    pub access: access::Options,
    /// HTTPS instead of HTTP.
    pub tls: Option<tls::Options>,
    /// Origins (RFC 6454) of pages, besides the server's own, that may open WebSockets, or `*`
    /// for all. Those that are named may call the API as well.
    pub allowed_origins: Vec<String>,
    /// Who may say, in `X-Forwarded-For`, where a request comes from.
    pub proxies: Proxies,
    /// What a client may send and hold.
    pub limits: limits::Options,
    /// How many rooms, and how full.
    pub rooms: RoomOptions,
    /// Who else is told what happens.
    pub outlets: Vec<Outlet>,
    /// Where the call log is asked, if there is one.
    pub call_log: Option<Asker>,
    /// Whether every room is recorded from its beginning.
    pub record_all: bool,
    /// What is recorded of a room when nobody says.
    pub record_mode: Mode,
    /// How long calls may go on when the server is asked to end.
    pub drain_timeout: Duration,
    /// Resident memory of the process above which nobody is taken in.
    pub max_memory_bytes: u64,
    /// How much media may come in, into all shards together. They were told at their start, and
    /// are when it changes.
    pub caps: Caps,
}

/// The latest options. Some of them count at the start only; see [`hub`].
pub type Live = watch::Receiver<Arc<Options>>;

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            page: true,
            ice_servers: IceServers::default(),
            access: access::Options::default(),
            tls: None,
            allowed_origins: vec!["*".to_owned()],
            proxies: Proxies::default(),
            limits: limits::Options::default(),
            rooms: RoomOptions::default(),
            outlets: Vec::new(),
            call_log: None,
            record_all: false,
            record_mode: Mode::default(),
            drain_timeout: Duration::from_secs(300),
            max_memory_bytes: 8 << 30,
            caps: Caps::NONE,
        }
    }
}

/// Why the signalling thread could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Nobody can listen there.
    #[error("cannot listen for HTTP on {0}: {1}; choose another address with --http")]
    Bind(SocketAddr, io::Error),
    /// The operating system refused what an event loop needs.
    #[error("cannot start the signalling thread: {0}")]
    Start(io::Error),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Every shard has ended, so nobody is left to talk for.
    #[error("all shards have ended")]
    ShardsEnded,
}

/// Listens there, so that a taken port is known before anything else starts.
///
/// # Errors
///
/// [`ServeError::Bind`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).map_err(|e| ServeError::Bind(address, e))
}

/// Serves until `shutdown` is done, the operator wants an end, or all shards have ended. Blocks its
/// thread, which does nothing else.
///
/// At the end everyone in a room is told `room-closed`, and every WebSocket is closed with 1001.
///
/// # Errors
///
/// [`ServeError`].
///
/// # Panics
///
/// When `commands` is empty.
pub fn serve(
    options: Options,
    listener: TcpListener,
    commands: Vec<CommandSender>,
    reports: Receiver<Report>,
    recorder: Option<Desk>,
    mut operator: Operator,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let event_loop = operator.event_loop.take().map_or_else(EventLoop::new, Ok);
    let EventLoop { runtime, signals } = event_loop.map_err(ServeError::Start)?;
    let running = run(
        options,
        listener,
        commands,
        reports,
        recorder,
        (operator, signals),
        shutdown,
    );
    let served = runtime.block_on(running);
    // Connections that did not end in time are not waited for.
    runtime.shutdown_background();
    served
}

async fn run(
    options: Options,
    listener: TcpListener,
    commands: Vec<CommandSender>,
    reports: Receiver<Report>,
    recorder: Option<Desk>,
    (operator, signals): (Operator, Option<Signals>),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = listen(listener)?;
    let metrics = operator.metrics.map(listen).transpose()?;
    let (settings, live) = watch::channel(Arc::new(options.clone()));
    let (mut hub, handle) = Hub::new(clock(), settings, operator.reload, commands, recorder);
    hub.when_idle(operator.give_memory_back);
    let dialects = Dialects::start(clock(), &options, &handle);
    let routes = dialects.routes(&handle, &live);
    let (stuck, vitals) = watch::channel(Vec::new());
    tokio::spawn(watchdog::watch(operator.pulses, handle.clone(), stuck));
    if let Some(listener) = metrics {
        let scrapes = operator::scrapes(handle.clone());
        tokio::spawn(listener::accept(
            listener,
            scrapes,
            None,
            operator::MAX_SCRAPERS,
        ));
    }
    if let Some(signals) = signals {
        tokio::spawn(operator::take_signals(handle.clone(), signals));
    }
    let site = http::Site::new(handle, live, vitals);
    let app = http::router(site, options.page, routes);
    let max_connections = options.limits.max_connections;
    let tls = options.tls.map(start_tls).transpose()?;
    let accepting = tokio::spawn(listener::accept(listener, app, tls, max_connections));
    watchdog::tell_systemd(&[NotifyState::Ready]);
    let served = hub.run(reports, shutdown, || accepting.abort()).await;
    dialects.stop().await;
    served.map_err(|_| ServeError::ShardsEnded)
}

fn listen(listener: TcpListener) -> Result<tokio::net::TcpListener, ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Start)?;
    tokio::net::TcpListener::from_std(listener).map_err(ServeError::Start)
}

fn start_tls(options: tls::Options) -> Result<tls::Current, ServeError> {
    let (current, latest) = watch::channel(tls::load(&options)?);
    tokio::spawn(tls::follow(options, current));
    Ok(latest)
}

/// The present, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For how long things take.
    pub at: Instant,
    /// For the times in tokens: seconds since 1970.
    pub unix: u64,
    /// For the times of events: milliseconds since 1970.
    pub unix_ms: u64,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        let unix_ms = unix_millis();
        Self {
            at: clock(),
            unix: unix_ms / 1000,
            unix_ms,
        }
    }
}

/// The one place where signalling reads the clock: tokio's, which a test can move.
fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, in seconds since 1970: the times in tokens are of it.
#[must_use]
pub fn unix_time() -> u64 {
    unix_millis() / 1000
}

/// The wall clock, in milliseconds since 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where signalling reads the wall clock"
)]
pub fn unix_millis() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
