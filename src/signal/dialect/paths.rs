//! The dialects' paths under `/ws/`, and the tasks behind them.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRef, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::id::RoomId;
use crate::signal::access::Access;
use crate::signal::addresses::Network;
use crate::signal::caller::Places;
use crate::signal::dialect::call::Call;
use crate::signal::dialect::mesh::Mesh;
use crate::signal::dialect::p2p::P2p;
use crate::signal::dialect::switchboard::{Figures, Input, Switchboard};
use crate::signal::dialect::webrtc::Webrtc;
use crate::signal::dialect::{Caller, Dialect, Name, Refusal};
use crate::signal::hub::{self, Handle, Stopping};
use crate::signal::proxies::Proxies;
use crate::signal::session::Visitor;
use crate::signal::token::Denied;
use crate::signal::{Live, Options, http, limits, unix_time, websocket};

/// The running dialects. Dropped, they end as well, but are not waited for.
#[derive(Debug)]
pub struct Dialects {
    tasks: JoinSet<()>,
    /// Dropping it is the message.
    stop: watch::Sender<()>,
    handles: Handles,
}

#[derive(Debug, Clone)]
struct Handles {
    webrtc: Handle<Input>,
    call: Handle<Input>,
    p2p: Handle<Input>,
    mesh: Handle<Input>,
}

impl Dialects {
    /// Starts them on the present runtime.
    #[must_use]
    pub fn start(now: Instant, options: &Options, hub: &Handle) -> Self {
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        let limits = Arc::new(options.limits.clone());
        let rooms = &options.rooms;
        let mut ends = Ends {
            tasks: &mut tasks,
            stopped,
            limits,
            hub,
            now,
        };
        let handles = Handles {
            webrtc: ends.spawn(Webrtc::new(rooms)),
            call: ends.spawn(Call::new(rooms)),
            p2p: ends.spawn(P2p::new(rooms)),
            mesh: ends.spawn(Mesh::new(rooms)),
        };
        Self {
            tasks,
            stop,
            handles,
        }
    }

    /// Their paths.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self, hub: &Handle, live: &Live) -> Router<S> {
        let proxies = Arc::new(live.borrow().proxies.clone());
        let line = |handle: &Handle<Input>| {
            get(open).with_state(Line {
                handle: handle.clone(),
                hub: hub.clone(),
                live: live.clone(),
                proxies: proxies.clone(),
            })
        };
        let handles = &self.handles;
        Router::new()
            .route("/ws/webrtc", line(&handles.webrtc))
            .route("/ws/call", line(&handles.call))
            .route("/ws/p2p", line(&handles.p2p))
            .route("/ws/mesh", line(&handles.mesh))
            .route(
                "/api/stats/dialects",
                get(figures).with_state(handles.clone()),
            )
    }

    /// Closes all their sockets, and waits a moment for that.
    pub async fn stop(mut self) {
        drop(self.stop);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What each dialect's task is given.
struct Ends<'a> {
    tasks: &'a mut JoinSet<()>,
    stopped: watch::Receiver<()>,
    limits: Arc<limits::Options>,
    hub: &'a Handle,
    now: Instant,
}

impl Ends<'_> {
    fn spawn(&mut self, dialect: impl Dialect) -> Handle<Input> {
        let (switchboard, handle) = Switchboard::new(dialect, self.now, self.limits.clone());
        self.tasks
            .spawn(switchboard.run(self.hub.clone(), self.stopped.clone()));
        handle
    }
}

/// Where a path leads.
#[derive(Debug, Clone)]
struct Line {
    handle: Handle<Input>,
    /// Is told who was denied.
    hub: Handle,
    live: Live,
    proxies: Arc<Proxies>,
}

impl FromRef<Line> for Places {
    fn from_ref(line: &Line) -> Self {
        Self {
            live: line.live.clone(),
            proxies: Arc::clone(&line.proxies),
        }
    }
}

impl Line {
    /// What the token grants, and whom it names. Where the server has no keys its text is a name.
    fn admit(&self, token: Option<&str>) -> Result<(Option<Access>, Option<Name>), Denied> {
        let options = &self.live.borrow().access;
        if options.keys.is_empty() && !options.require_auth {
            return Ok((None, token.and_then(Name::parse)));
        }
        let access = options.admit(token, unix_time())?;
        let name = access.identity().and_then(Name::parse);
        if options.require_auth && name.is_none() {
            return Err(Denied::NoIdentity);
        }
        Ok((token.is_some().then_some(access), name))
    }
}

/// What a client may write behind the path.
#[derive(Debug, Deserialize)]
struct Address {
    token: Option<String>,
    room: Option<String>,
}

async fn open(
    State(line): State<Line>,
    visitor: Visitor,
    Query(address): Query<Address>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Ok(room) = address.room.as_deref().map(RoomId::parse).transpose() else {
        return (StatusCode::BAD_REQUEST, "this cannot be a room's name").into_response();
    };
    let upgrade = http::bounded(upgrade);
    let (access, name) = match line.admit(address.token.as_deref()) {
        Ok(admitted) => admitted,
        Err(denied) => {
            // A hub that has ended logs nothing more.
            let _ = line.hub.tell(hub::Input::Denied(denied)).await;
            return upgrade.on_upgrade(|socket| websocket::refuse(socket, "Unauthorized"));
        }
    };
    let identity = name.as_ref().map_or("guest", Name::as_str);
    let caller = Box::new(Caller {
        ice_servers: line.live.borrow().ice_servers.list(unix_time(), identity),
        name,
        access,
        room,
    });
    let network = visitor.network;
    upgrade.on_upgrade(move |socket| serve(line, network, caller, socket))
}

/// Serves a socket, if its address may have one more.
async fn serve(line: Line, network: Network, caller: Box<Caller>, mut socket: WebSocket) {
    let admitted = line.hub.ask(|reply| hub::Input::Admit(network, reply));
    match admitted.await {
        Ok(Ok(())) => {
            let opened = |reply| Input::Opened(caller, reply);
            websocket::serve(socket, line.handle, opened).await;
            // A hub that has ended counts nothing any more.
            let _ = line.hub.tell(hub::Input::Released(network)).await;
        }
        Ok(Err(_)) => {
            let told = Refusal::TooManyFromAddress.to_value().to_string();
            // Whoever is gone already need not be told.
            let _ = socket.send(Message::Text(told.into())).await;
            websocket::refuse(socket, "see the message before").await;
        }
        Err(Stopping) => {}
    }
}

#[derive(Debug, Serialize)]
struct AllFigures {
    webrtc: Figures,
    call: Figures,
    p2p: Figures,
    mesh: Figures,
}

async fn figures(State(handles): State<Handles>) -> Result<Response, Stopping> {
    let all = AllFigures {
        webrtc: handles.webrtc.ask(Input::Figures).await?,
        call: handles.call.ask(Input::Figures).await?,
        p2p: handles.p2p.ask(Input::Figures).await?,
        mesh: handles.mesh.ask(Input::Figures).await?,
    };
    Ok(Json(all).into_response())
}
