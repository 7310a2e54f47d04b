//! Owns every session and the directory: one task, fed by the sockets and by the shards.
//!
//! It waits for nothing but its next input, so no client and no shard can hold up the others.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::engine::command::{Command, Event};
use crate::id::{PeerId, ShardId};
use crate::mailbox::{CommandSender, Report, Undelivered};
use crate::signal::directory::{Directory, SocketId};
use crate::signal::figures::{Figures, Signalling};
use crate::signal::limits::{self, LogGate};
use crate::signal::message::{Reference, ServerMessage};
use crate::signal::session::{CloseCode, Output, Session};
use crate::signal::websocket::{self, Heard, Mail, Outbox};
use crate::signal::{Options, clock};

/// What the hub is told or asked.
#[derive(Debug)]
pub enum Input {
    /// A WebSocket is open and wants its mail.
    Opened(oneshot::Sender<Mail>),
    /// It heard something.
    Heard(SocketId, Heard),
    /// How is the server?
    Health(oneshot::Sender<Health>),
    /// What has been counted?
    Figures(oneshot::Sender<Figures>),
}

/// The answer to `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Always `healthy`: a hub that is not does not answer.
    pub status: &'static str,
    /// Rooms with at least one participant.
    pub rooms: usize,
    /// Participants in rooms.
    pub participants: usize,
    /// How many there may be.
    pub config: HealthConfig,
}

/// Part of [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthConfig {
    /// Most rooms at once.
    pub max_rooms: usize,
    /// Most participants in one room.
    pub max_participants_per_room: usize,
}

impl From<(SocketId, Heard)> for Input {
    fn from((socket, heard): (SocketId, Heard)) -> Self {
        Self::Heard(socket, heard)
    }
}

/// How everyone else reaches the hub, or another task that serves WebSockets.
#[derive(Debug)]
pub struct Handle<I = Input>(mpsc::Sender<I>);

impl<I> Clone for Handle<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The hub has ended: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping;

impl<I> Handle<I> {
    /// A handle, and the end where its inputs arrive.
    pub fn new() -> (Self, mpsc::Receiver<I>) {
        let (sender, inputs) = mpsc::channel(limits::INBOX_MESSAGES);
        (Self(sender), inputs)
    }

    /// Tells the hub something; waits while its queue is full.
    ///
    /// # Errors
    ///
    /// [`Stopping`].
    pub async fn tell(&self, input: I) -> Result<(), Stopping> {
        self.0.send(input).await.map_err(|_| Stopping)
    }

    /// Asks the hub something, for instance [`Input::Health`].
    ///
    /// # Errors
    ///
    /// [`Stopping`].
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> I,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.tell(question(reply)).await?;
        answer.await.map_err(|_| Stopping)
    }
}

/// Every shard's end of the report queue is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardsEnded;

/// See the module.
#[derive(Debug)]
pub struct Hub {
    limits: limits::Options,
    ice_servers: Vec<Value>,
    inputs: mpsc::Receiver<Input>,
    shards: BTreeMap<ShardId, Shard>,
    directory: Directory,
    clients: BTreeMap<SocketId, Client>,
    opened: u64,
    /// A clone is in every open socket's mail, so that the end of the last one can be awaited.
    open: mpsc::Sender<()>,
    closed: mpsc::Receiver<()>,
    signalling: Signalling,
    log: Log,
}

#[derive(Debug)]
struct Shard {
    commands: CommandSender,
    /// Those who left while the shard's queue was full. While there are any the shard takes no
    /// new peers, so there are never more than it had peers.
    leaving: VecDeque<PeerId>,
    figures: Box<crate::mailbox::Snapshot>,
}

#[derive(Debug)]
struct Client {
    session: Session,
    outbox: Outbox,
}

/// What strangers can bring into the log.
#[derive(Debug)]
struct Log {
    slow: LogGate,
    busy: LogGate,
}

/// How long a shard with a full queue is left alone before it is told again who left.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

impl Hub {
    /// A hub without clients.
    ///
    /// # Panics
    ///
    /// When `commands` is empty.
    #[must_use]
    pub fn new(now: Instant, options: &Options, commands: Vec<CommandSender>) -> (Self, Handle) {
        let (handle, inputs) = Handle::new();
        let (open, closed) = mpsc::channel(1);
        let ids: Vec<_> = commands.iter().map(CommandSender::shard).collect();
        let shard = |commands: CommandSender| Shard {
            commands,
            leaving: VecDeque::new(),
            figures: Box::default(),
        };
        let hub = Self {
            limits: options.limits.clone(),
            ice_servers: options.ice_servers.clone(),
            inputs,
            shards: ids
                .iter()
                .copied()
                .zip(commands.into_iter().map(shard))
                .collect(),
            directory: Directory::new(options.rooms.clone(), &ids),
            clients: BTreeMap::new(),
            opened: 0,
            open,
            closed,
            signalling: Signalling::default(),
            log: Log {
                slow: LogGate::new(now),
                busy: LogGate::new(now),
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
        let ended = loop {
            let is_anyone_leaving = self.shards.values().any(|shard| !shard.leaving.is_empty());
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                report = reports.recv() => match report {
                    Some(report) => self.handle_report(clock(), report),
                    None => break Err(ShardsEnded),
                },
                Some(input) = self.inputs.recv() => self.handle_input(clock(), input),
                _ = retry.tick(), if is_anyone_leaving => self.tell_who_left(),
            }
        };
        stopping();
        self.shutdown(clock()).await;
        ended
    }

    async fn shutdown(mut self, now: Instant) {
        let sockets: Vec<_> = self.clients.keys().copied().collect();
        for socket in sockets {
            self.with(now, socket, Session::handle_shutdown);
        }
        let Self {
            open,
            mut closed,
            inputs,
            ..
        } = self;
        drop((open, inputs));
        if tokio::time::timeout(limits::SHUTDOWN_TIMEOUT, closed.recv())
            .await
            .is_err()
        {
            tracing::info!("some WebSockets did not close in time");
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened(reply) => self.handle_opened(now, reply),
            Input::Heard(socket, heard) => {
                let is_gone = matches!(heard, Heard::Gone);
                self.with(now, socket, |session, directory| match heard {
                    Heard::Text(text) => session.handle_text(now, &text, directory),
                    Heard::Binary(bytes) => session.handle_binary(now, bytes, directory),
                    Heard::Ping => session.handle_ping(now, directory),
                    Heard::TooBig => session.handle_too_big(directory),
                    Heard::Gone => session.handle_gone(directory),
                });
                if is_gone {
                    self.clients.remove(&socket);
                }
            }
            // Whoever asked and did not wait for the answer needs none.
            Input::Health(reply) => drop(reply.send(self.health())),
            Input::Figures(reply) => drop(reply.send(self.figures())),
        }
    }

    fn handle_opened(&mut self, now: Instant, reply: oneshot::Sender<Mail>) {
        self.opened += 1;
        let socket = SocketId(self.opened);
        let (outbox, mail) = websocket::mailbox(socket, &self.limits, self.open.clone());
        if reply.send(mail).is_err() {
            return;
        }
        let ice_servers = self.ice_servers.clone();
        let (session, greeting) =
            Session::new(now, socket, ice_servers, &self.limits, &mut self.directory);
        self.signalling.sockets_opened += 1;
        self.clients.insert(socket, Client { session, outbox });
        self.act(now, socket, vec![greeting]);
    }

    fn handle_report(&mut self, now: Instant, report: Report) {
        match report {
            Report::Event(event) => {
                let peer = whose(&event);
                // An event about somebody who has left meanwhile is nobody's.
                if let Some(socket) = self.directory.member(peer).map(|member| member.socket) {
                    self.with(now, socket, |session, directory| {
                        session.handle_event(event, directory)
                    });
                }
            }
            Report::Snapshot(id, figures) => {
                if let Some(shard) = self.shards.get_mut(&id) {
                    shard.figures = figures;
                }
            }
        }
    }

    /// Lets a session decide, and does what it decided.
    fn with(
        &mut self,
        now: Instant,
        socket: SocketId,
        decide: impl FnOnce(&mut Session, &mut Directory) -> Vec<Output>,
    ) {
        if let Some(client) = self.clients.get_mut(&socket) {
            let outputs = decide(&mut client.session, &mut self.directory);
            self.act(now, socket, outputs);
        }
    }

    fn act(&mut self, now: Instant, socket: SocketId, outputs: Vec<Output>) {
        let mut due = VecDeque::from([(socket, outputs)]);
        while let Some((socket, outputs)) = due.pop_front() {
            for output in outputs {
                match output {
                    Output::Tell(sockets, message) => {
                        let slow = self.tell(&sockets, &message);
                        due.extend(slow.into_iter().map(|slow| (slow, self.cut(now, slow))));
                    }
                    Output::Command(shard, command, reference) => {
                        if let Err(Undelivered(command)) = self.send(shard, command) {
                            let void = self.undelivered(now, socket, &command, reference);
                            due.push_front((socket, void));
                            break;
                        }
                    }
                    Output::Close(code) => self.close(socket, code),
                }
            }
        }
    }

    /// Returns those whose outbox is full.
    fn tell(&mut self, sockets: &[SocketId], message: &ServerMessage) -> Vec<SocketId> {
        if sockets.is_empty() {
            return Vec::new();
        }
        let text = Utf8Bytes::from(message.to_json());
        let mut slow = Vec::new();
        for socket in sockets {
            // A client that was found too slow a moment ago is still named by what was decided
            // before.
            let Some(client) = self.clients.get(socket) else {
                continue;
            };
            if client.outbox.push(text.clone()).is_err() {
                slow.push(*socket);
            }
        }
        slow
    }

    /// Ends a client that does not read, without waiting for its outbox.
    fn cut(&mut self, now: Instant, socket: SocketId) -> Vec<Output> {
        let Some(mut client) = self.clients.remove(&socket) else {
            return Vec::new();
        };
        client.outbox.cut();
        self.signalling.slow_readers += 1;
        if let Some(held) = self.log.slow.pass(now) {
            tracing::info!(held, "a client reads too slowly and was disconnected");
        }
        client.session.handle_gone(&mut self.directory)
    }

    fn close(&mut self, socket: SocketId, code: CloseCode) {
        if let Some(client) = self.clients.remove(&socket) {
            client.outbox.close(code);
            self.signalling.sockets_refused += u64::from(code != CloseCode::GoingAway);
        }
    }

    fn send(&mut self, shard: ShardId, command: Command) -> Result<(), Undelivered> {
        let shard = self
            .shards
            .get_mut(&shard)
            .expect("the directory names known shards");
        match command {
            Command::Join { .. } if !shard.leaving.is_empty() => Err(Undelivered(command)),
            Command::Leave { peer } => {
                shard.leaving.push_back(peer);
                shard.tell_who_left();
                Ok(())
            }
            command => shard.commands.try_send(command),
        }
    }

    fn undelivered(
        &mut self,
        now: Instant,
        socket: SocketId,
        command: &Command,
        reference: Option<Reference>,
    ) -> Vec<Output> {
        self.signalling.server_busy += 1;
        if let Some(held) = self.log.busy.pass(now) {
            tracing::warn!(
                held,
                "a shard's command queue is full: requests are refused"
            );
        }
        let Some(client) = self.clients.get_mut(&socket) else {
            return Vec::new();
        };
        client
            .session
            .handle_undelivered(command, reference, &mut self.directory)
    }

    fn tell_who_left(&mut self) {
        for shard in self.shards.values_mut() {
            shard.tell_who_left();
        }
    }

    fn health(&self) -> Health {
        Health {
            status: "healthy",
            rooms: self.directory.room_count(),
            participants: self.directory.peer_count(),
            config: HealthConfig {
                max_rooms: self.directory.options().max_rooms,
                max_participants_per_room: self.directory.options().max_participants,
            },
        }
    }

    fn figures(&self) -> Figures {
        let signalling = Signalling {
            sockets: self.clients.len() as u64,
            rooms: self.directory.room_count() as u64,
            participants: self.directory.peer_count() as u64,
            ..self.signalling.clone()
        };
        let shards = self.shards.iter();
        Figures::new(signalling, shards.map(|(id, shard)| (*id, &*shard.figures)))
    }
}

impl Shard {
    fn tell_who_left(&mut self) {
        while let Some(peer) = self.leaving.front() {
            if self
                .commands
                .try_send(Command::Leave { peer: *peer })
                .is_err()
            {
                return;
            }
            self.leaving.pop_front();
        }
    }
}

/// Whose session an event concerns.
fn whose(event: &Event) -> PeerId {
    match event {
        Event::Answer { peer, .. }
        | Event::Refused { peer, .. }
        | Event::RequestOffer { peer, .. }
        | Event::Slots { peer, .. }
        | Event::Connected { peer }
        | Event::Closed { peer, .. } => *peer,
        Event::TrackPublished { track, .. } => track.id.peer,
        Event::TrackUnpublished { track, .. } => track.peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RoomId;
    use crate::mailbox::{self, COMMAND_QUEUE, Waker};

    #[test]
    fn those_who_leave_go_before_those_who_come() {
        let id = ShardId::new(0);
        let (commands, shard) = mailbox::commands(id, Waker::new(|| {}));
        let (mut hub, _) = Hub::new(clock(), &Options::default(), vec![commands]);
        let join = |number| Command::Join {
            room: RoomId::parse("r").unwrap(),
            peer: PeerId::new(number),
        };
        for number in 0..COMMAND_QUEUE as u64 {
            hub.send(id, join(number)).unwrap();
        }
        let peer = PeerId::new(0);
        hub.send(id, Command::Leave { peer }).unwrap();
        for _ in 0..10 {
            shard.recv().unwrap();
        }
        assert!(hub.send(id, join(9999)).is_err());
        hub.tell_who_left();
        hub.send(id, join(9999)).unwrap();
        let last: Vec<_> = shard.try_iter().collect();
        assert_eq!(
            last[last.len() - 2..],
            [Command::Leave { peer }, join(9999)]
        );
    }
}
