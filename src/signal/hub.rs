//! Owns every session and the directory: one task, fed by the sockets and by the shards.
//!
//! It waits for nothing but its next input, so no client and no shard can hold up the others.

mod answers;
mod handle;
mod inspections;
mod operate;
mod recordings;
mod shards;
mod tell;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::command::Event;
use crate::id::{PeerId, ShardId};
use crate::mailbox::{CommandSender, Report, Undelivered};
use crate::record::Desk;
use crate::signal::addresses::{Network, TooMany};
use crate::signal::directory::{Directory, SocketId};
use crate::signal::drain::Drain;
use crate::signal::figures::Signalling;
use crate::signal::happening::Happening;
use crate::signal::idle::Idle;
use crate::signal::joins::Joins;
use crate::signal::limits::{self, LogGate};
use crate::signal::operator::{Reload, Wanted};
use crate::signal::outlets::Outlets;
use crate::signal::overload::Ladder;
use crate::signal::problem::Problem;
use crate::signal::session::{CloseCode, Output, Rules, Session, Visitor};
use crate::signal::sockets::Sockets;
use crate::signal::token::Denied;
use crate::signal::websocket::{Heard, Mail, Outbox};
use crate::signal::{Now, Options};
pub use answers::{Health, HealthConfig, Question};
pub use handle::{Handle, Stopping};
use inspections::Inspections;
pub use inspections::Reply;
use recordings::Recordings;
use shards::Shards;

/// What the hub is told or asked.
#[derive(Debug)]
pub enum Input {
    /// A WebSocket is open and wants its mail.
    Opened(Visitor, oneshot::Sender<Mail>),
    /// It heard something.
    Heard(SocketId, Heard),
    /// A socket of a dialect is open: may its address have one more?
    Admit(Network, oneshot::Sender<Result<(), TooMany>>),
    /// Such a socket is closed.
    Released(Network),
    /// Something happened elsewhere.
    Happened(Happening),
    /// A token was refused elsewhere.
    Denied(Denied),
    /// Somebody asks over HTTP.
    Asked(Question),
    /// The operator, or the system, wants something of the process.
    Operator(Wanted),
}

impl From<(SocketId, Heard)> for Input {
    fn from((socket, heard): (SocketId, Heard)) -> Self {
        Self::Heard(socket, heard)
    }
}

/// Every shard's end of the report queue is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardsEnded;

/// See the module.
#[derive(Debug)]
pub struct Hub {
    rules: Arc<Rules>,
    settings: watch::Sender<Arc<Options>>,
    reload: Option<Reload>,
    inputs: mpsc::Receiver<Input>,
    shards: Shards,
    directory: Directory,
    clients: BTreeMap<SocketId, Client>,
    sockets: Sockets,
    signalling: Signalling,
    outlets: Outlets,
    recordings: Recordings,
    joins: Joins,
    ladders: BTreeMap<ShardId, Ladder>,
    drain: Drain,
    idle: Idle,
    /// Whether the process is to end now.
    is_over: bool,
    inspections: Inspections,
    log: Log,
}

#[derive(Debug)]
struct Client {
    session: Session,
    /// `None` while its socket is lost.
    outbox: Option<Outbox>,
}

/// What strangers can bring into the log.
#[derive(Debug)]
struct Log {
    slow: LogGate,
    busy: LogGate,
    denied: LogGate,
    memory: LogGate,
}

/// How long a shard with a full queue is left alone before it is told what must not be lost.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl Hub {
    /// A hub without clients.
    ///
    /// # Panics
    ///
    /// When `commands` is empty.
    #[must_use]
    pub fn new(
        now: Instant,
        settings: watch::Sender<Arc<Options>>,
        reload: Option<Reload>,
        commands: Vec<CommandSender>,
        recorder: Option<Desk>,
    ) -> (Self, Handle) {
        let options = settings.borrow().clone();
        let (handle, inputs) = Handle::new();
        let ids: Vec<_> = commands.iter().map(CommandSender::shard).collect();
        let hub = Self {
            rules: Arc::new(Rules {
                access: options.access.clone(),
                limits: options.limits.clone(),
            }),
            settings,
            reload,
            inputs,
            shards: Shards::new(commands),
            directory: Directory::new(options.rooms.clone(), &ids),
            clients: BTreeMap::new(),
            sockets: Sockets::new(),
            signalling: Signalling::default(),
            outlets: Outlets::new(options.outlets.clone()),
            recordings: Recordings::new(recorder, options.record_all, options.record_mode),
            joins: Joins::new(now),
            ladders: ids.iter().map(|id| (*id, Ladder::default())).collect(),
            drain: Drain::default(),
            idle: Idle::default(),
            is_over: false,
            inspections: Inspections::default(),
            log: Log {
                slow: LogGate::new(now),
                busy: LogGate::new(now),
                denied: LogGate::new(now),
                memory: LogGate::new(now),
            },
        };
        (hub, handle)
    }

    /// Runs until `shutdown` is done; then calls `stopping`, and waits a moment for the sockets
    /// to close.
    ///
    /// # Errors
    ///
    /// [`ShardsEnded`].
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        shutdown: impl Future<Output = ()>,
        stopping: impl FnOnce(),
    ) -> Result<(), ShardsEnded> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut retry = tokio::time::interval(RETRY_INTERVAL);
        let mut sweep = tokio::time::interval(limits::SWEEP_INTERVAL);
        let ended = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                report = reports.recv() => match report {
                    Some(report) => self.handle_report(Now::read(), report),
                    None => break Err(ShardsEnded),
                },
                Some(input) = self.inputs.recv() => self.handle_input(Now::read(), input),
                Some(notice) = self.recordings.notice() => {
                    self.handle_notice(Now::read(), notice);
                }
                _ = retry.tick(), if self.shards.has_more_to_tell() => {
                    self.shards.tell_rest();
                }
                _ = sweep.tick() => self.sweep(Now::read()),
            }
            self.note(Now::read());
            if self.is_over {
                break Ok(());
            }
        };
        stopping();
        self.shutdown(Now::read()).await;
        ended
    }

    async fn shutdown(mut self, now: Now) {
        let sockets: Vec<_> = self.clients.keys().copied().collect();
        for socket in sockets {
            self.with(now, socket, Session::handle_shutdown);
        }
        self.note(now);
        drop(self.inputs);
        if !self.sockets.closed().await {
            tracing::info!("some WebSockets did not close in time");
        }
    }

    fn handle_input(&mut self, now: Now, input: Input) {
        match input {
            Input::Opened(visitor, reply) => self.handle_opened(now, visitor, reply),
            Input::Heard(socket, heard) => self.handle_heard(now, socket, heard),
            Input::Admit(network, reply) => {
                let admitted = self.directory.addresses_mut().admit(now.at, network);
                // One who is gone already is not counted.
                if let Err(Ok(())) = reply.send(admitted) {
                    self.directory.addresses_mut().release(network);
                }
            }
            Input::Released(network) => self.directory.addresses_mut().release(network),
            Input::Happened(happening) => self.tell_outlets(now, happening),
            Input::Denied(denied) => self.log_denied(now.at, &denied),
            Input::Asked(question) => self.answer(now, question),
            Input::Operator(wanted) => self.handle_wanted(now, wanted),
        }
    }

    fn handle_heard(&mut self, now: Now, socket: SocketId, heard: Heard) {
        let is_gone = matches!(heard, Heard::Gone | Heard::Lost);
        self.with(now, socket, |session, directory| match heard {
            Heard::Text(text) => session.handle_text(now, &text, directory),
            Heard::Binary(bytes) => session.handle_binary(now.at, bytes, directory),
            Heard::Ping => session.handle_ping(now.at, directory),
            Heard::TooBig => session.handle_too_big(directory),
            Heard::Gone => session.handle_gone(directory),
            Heard::Lost => session.handle_lost(now.at, directory),
        });
        if is_gone && let Some(client) = self.clients.get_mut(&socket) {
            client.outbox = None;
            self.forget_if_gone(socket);
        }
    }

    /// Forgets a client without a socket whom nobody awaits.
    fn forget_if_gone(&mut self, socket: SocketId) {
        let is_gone = |client: &Client| client.outbox.is_none() && !client.session.is_away();
        if self.clients.get(&socket).is_some_and(is_gone) {
            self.remove(socket);
        }
    }

    fn remove(&mut self, socket: SocketId) -> Option<Client> {
        let client = self.clients.remove(&socket)?;
        let network = client.session.network();
        self.directory.addresses_mut().remove_socket(network);
        Some(client)
    }

    fn handle_opened(&mut self, now: Now, visitor: Visitor, reply: oneshot::Sender<Mail>) {
        let Some((socket, outbox)) = self.sockets.open(&self.rules.limits, reply) else {
            return;
        };
        self.signalling.sockets_opened += 1;
        let addresses = self.directory.addresses_mut();
        if let Err(too_many) = addresses.add_socket(now.at, visitor.network) {
            let message = Problem::from(too_many).into_message(None);
            // An outbox that is new is not full.
            let _ = outbox.push(message.to_json().into());
            outbox.close(CloseCode::Policy);
            self.signalling.sockets_refused += 1;
            return;
        }
        let (session, outputs) = Session::new(
            now,
            socket,
            visitor,
            &self.settings.borrow().ice_servers,
            &self.rules,
            &mut self.directory,
        );
        let outbox = Some(outbox);
        self.clients.insert(socket, Client { session, outbox });
        self.act(now, socket, outputs);
    }

    fn handle_report(&mut self, now: Now, report: Report) {
        match report {
            Report::Event(Event::Inspected { room, peers }) => {
                self.handle_inspected(&room, &peers);
            }
            Report::Event(event) => {
                self.follow_speakers(&event);
                let peer = whose(&event, &self.directory);
                if let Some(peer) = peer {
                    match event {
                        Event::Connected { .. } => self.joins.handle_connected(now.at, peer),
                        Event::Closed { reason, .. } => self.joins.handle_closed(now, peer, reason),
                        _ => {}
                    }
                }
                let member = peer.and_then(|peer| self.directory.member(peer));
                // An event about somebody who has left meanwhile is nobody's.
                if let Some(socket) = member.map(|member| member.socket) {
                    self.with(now, socket, |session, directory| {
                        session.handle_event(event, directory)
                    });
                }
            }
            Report::Snapshot(id, figures) => {
                self.shards.handle_snapshot(now.at, id, figures);
            }
        }
    }

    /// Lets a session decide, and does what it decided.
    fn with(
        &mut self,
        now: Now,
        socket: SocketId,
        decide: impl FnOnce(&mut Session, &mut Directory) -> Vec<Output>,
    ) {
        if let Some(client) = self.clients.get_mut(&socket) {
            let outputs = decide(&mut client.session, &mut self.directory);
            self.act(now, socket, outputs);
        }
    }

    fn act(&mut self, now: Now, socket: SocketId, outputs: Vec<Output>) {
        let mut due = VecDeque::from([(socket, outputs)]);
        while let Some((socket, outputs)) = due.pop_front() {
            let mut outputs = outputs.into_iter();
            while let Some(output) = outputs.next() {
                let (first, then) = match output {
                    Output::Tell(sockets, message) => {
                        let slow = self.tell(&sockets, &message);
                        due.extend(slow.into_iter().map(|slow| (slow, self.cut(now, slow))));
                        continue;
                    }
                    Output::Command(shard, command, reference) => {
                        let Err(Undelivered(command)) = self.shards.send(shard, command) else {
                            continue;
                        };
                        // The rest is void.
                        outputs = Vec::new().into_iter();
                        (socket, self.undelivered(now, socket, &command, reference))
                    }
                    Output::Kick(other, reason) => (
                        other,
                        self.decide(other, |s, d| s.handle_kick(reason, None, d)),
                    ),
                    Output::Again(join, reference) => {
                        let again = |s: &mut Session, d: &mut Directory| {
                            s.handle_again(now, *join, reference, d)
                        };
                        (socket, self.decide(socket, again))
                    }
                    Output::Resume(earlier, token, reference) => {
                        let earlier = self.take_over(socket, earlier, &token);
                        (
                            socket,
                            self.decide(socket, |s, d| s.handle_resume(earlier, reference, d)),
                        )
                    }
                    Output::Record(room, wanted, reference) => {
                        let done = self.record(now, &room, wanted);
                        let told = done.err().map(|problem| {
                            let message = problem.into_message(reference);
                            Output::Tell(vec![socket], message)
                        });
                        (socket, told.into_iter().collect())
                    }
                    Output::Denied(denied) => {
                        self.log_denied(now.at, &denied);
                        continue;
                    }
                    Output::Close(code) => {
                        self.close(socket, code);
                        continue;
                    }
                };
                // What follows from an output comes before the outputs after it.
                due.push_front((socket, outputs.collect()));
                due.push_front((first, then));
                break;
            }
        }
    }

    fn decide(
        &mut self,
        socket: SocketId,
        decide: impl FnOnce(&mut Session, &mut Directory) -> Vec<Output>,
    ) -> Vec<Output> {
        let client = self.clients.get_mut(&socket);
        client.map_or_else(Vec::new, |client| {
            decide(&mut client.session, &mut self.directory)
        })
    }

    /// Takes the session away from a socket, for another one that shows its resume token.
    fn take_over(&mut self, by: SocketId, earlier: SocketId, token: &str) -> Option<Session> {
        let client = self.clients.get(&earlier)?;
        if earlier == by || !client.session.is_resumed_by(token) {
            return None;
        }
        let client = self.remove(earlier)?;
        if let Some(outbox) = client.outbox {
            outbox.close(CloseCode::Replaced);
        }
        self.signalling.resumed += 1;
        Some(client.session)
    }

    /// Looks for what has taken too long.
    fn sweep(&mut self, now: Now) {
        self.directory.handle_timeout(now.at);
        let sockets: Vec<_> = self.clients.keys().copied().collect();
        for socket in sockets {
            self.with(now, socket, |session, directory| {
                session.handle_timeout(now.at, directory)
            });
            self.forget_if_gone(socket);
        }
        self.weigh(now.at);
        self.idle
            .handle_participants(now.at, self.directory.peer_count());
        self.look_at_drain(now);
    }

    /// Tells of everything that has happened in rooms.
    fn note(&mut self, now: Now) {
        while let Some(happening) = self.directory.poll_happening() {
            self.follow(now, &happening);
            self.follow_join(now, &happening);
            self.tell_outlets(now, happening);
        }
    }

    fn tell_outlets(&mut self, now: Now, happening: Happening) {
        tracing::debug!(?happening);
        self.signalling.note(&happening);
        self.outlets.tell(now, happening);
    }

    fn log_denied(&mut self, now: Instant, denied: &Denied) {
        self.signalling.unauthorized += 1;
        if let Some(held) = self.log.denied.pass(now) {
            tracing::info!(held, "a token was refused: {denied}");
        }
    }
}

/// Whose session an event concerns; of a whole room, anyone's in it.
fn whose(event: &Event, directory: &Directory) -> Option<PeerId> {
    Some(match event {
        Event::Answer { peer, .. }
        | Event::Refused { peer, .. }
        | Event::NotPublished { peer, .. }
        | Event::DataLost { peer, .. }
        | Event::RequestOffer { peer, .. }
        | Event::Slots { peer, .. }
        | Event::Sent { peer, .. }
        | Event::Unwanted { peer, .. }
        | Event::Warning { peer, .. }
        | Event::Measured { peer, .. }
        | Event::Connected { peer }
        | Event::Closed { peer, .. } => *peer,
        Event::TrackPublished { track, .. } => track.id.peer,
        Event::TrackUnpublished { track, .. } => track.peer,
        Event::Speakers { room, .. } => directory.members(room).first()?.peer,
        Event::Inspected { .. } => return None,
    })
}
