//! One client's signalling: text and events in, messages and commands out. Pure.
//!
//! A session is in at most one room. Each stay in a room is a new peer, so that nothing a shard
//! still says about an earlier stay can be taken for the present one. A session whose socket was
//! lost stays for a while, so that another socket's session can take its stay over.

mod events;
mod join;
mod talk;

use std::sync::Arc;
use std::time::Instant;

use crate::engine::command::Command;
use crate::id::{PeerId, RoomId, ShardId};
use crate::record::order::RecordingRequest;
use crate::signal::access::{self, Access};
use crate::signal::addresses::Network;
use crate::signal::check::{self, check};
use crate::signal::directory::{Directory, SocketId};
use crate::signal::happening::LeaveReason;
use crate::signal::ice_servers::IceServers;
use crate::signal::limits::{self, Rate};
use crate::signal::message::{KickReason, Reference, RoomClosedReason, ServerMessage, Shown};
use crate::signal::problem::{Code, Problem};
use crate::signal::request::{self, Join, Received};
use crate::signal::stay::Stay;
use crate::signal::token::Denied;
use crate::signal::{Now, relay};

/// What the hub must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this message to these sockets.
    Tell(Vec<SocketId>, ServerMessage),
    /// Give this to the shard. When that fails, the outputs after it are void: hand command and
    /// reference to [`Session::handle_undelivered`]. A [`Command::Leave`] must not fail: keep
    /// it and try again.
    Command(ShardId, Command, Option<Reference>),
    /// Hand this to the other socket's [`Session::handle_kick`].
    Kick(SocketId, KickReason),
    /// Hand this to the session's own [`Session::handle_again`].
    Again(Box<Join>, Option<Reference>),
    /// Hand the other socket's session to [`Session::handle_resume`], if that one says that this
    /// is its resume token; else nothing.
    Resume(SocketId, String, Option<Reference>),
    /// Record this room, or no longer.
    Record(RoomId, Option<RecordingRequest>, Option<Reference>),
    /// Log that a token was refused.
    Denied(Denied),
    /// Close the session's socket. It is in no room.
    Close(CloseCode),
}

/// Why a socket is closed, as RFC 6455 §7.4.1 numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The client broke a rule, or has no right to be here.
    Policy,
    /// Another socket has taken its place.
    Replaced,
    /// The client's message is too long.
    TooBig,
    /// The server stops.
    GoingAway,
}

/// Who opens a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Where it comes from.
    pub network: Network,
    /// The token that came with the request.
    pub token: Option<String>,
}

/// What holds for every session.
#[derive(Debug)]
pub struct Rules {
    /// Who gets in.
    pub access: access::Options,
    /// What a client may send and hold.
    pub limits: limits::Options,
}

/// One client's signalling.
#[derive(Debug)]
pub struct Session {
    socket: SocketId,
    network: Network,
    rules: Arc<Rules>,
    /// What the client may do; `None` until it has shown a token where one is needed.
    access: Option<Access>,
    /// The peer it is in its room, or will be in the next.
    peer: PeerId,
    /// `None` when it is in no room.
    stay: Option<Stay>,
    phase: Phase,
    rate: Rate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The socket is open, since then.
    Open(Instant),
    /// The socket was lost then; another one may take over.
    Away(Instant),
    /// The socket is closed or to be closed: whatever comes after is ignored.
    Over,
}

impl Session {
    /// A session in no room, and what its client is told first.
    #[must_use]
    pub fn new(
        now: Now,
        socket: SocketId,
        visitor: Visitor,
        ice_servers: &IceServers,
        rules: &Arc<Rules>,
        directory: &mut Directory,
    ) -> (Self, Vec<Output>) {
        let peer = directory.draw_peer();
        let admitted = rules.access.admit(visitor.token.as_deref(), now.unix);
        let mut session = Self {
            socket,
            network: visitor.network,
            rules: Arc::clone(rules),
            access: None,
            peer,
            stay: None,
            phase: Phase::Open(now.at),
            rate: Rate::new(now.at, &rules.limits),
        };
        match admitted {
            Ok(access) => session.access = Some(access),
            // It may still come with `join`.
            Err(Denied::Missing) => {}
            Err(denied) => {
                let outputs = session.end(Problem::from(denied), CloseCode::Policy, directory);
                return (session, outputs);
            }
        }
        let greeting = session.tell(ServerMessage::Connected {
            participant_id: Shown(peer),
            ice_servers: ice_servers.list(now.unix, &peer.to_string()),
        });
        (session, vec![greeting])
    }

    /// Takes in one text message.
    pub fn handle_text(&mut self, now: Now, text: &str, directory: &mut Directory) -> Vec<Output> {
        if let Err(outputs) = self.admit(now.at, text.len(), directory) {
            return outputs;
        }
        let Received { message, reference } = request::parse(text);
        let outcome = message.and_then(|message| {
            check(&message, text.len())?;
            self.handle_message(now, message, reference.clone(), directory)
        });
        self.conclude(outcome, reference, directory)
    }

    /// Takes in its own message once more, after what was in its way is gone.
    pub fn handle_again(
        &mut self,
        now: Now,
        join: Join,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Vec<Output> {
        let outcome = self.handle_join(now, join, reference.clone(), directory);
        self.conclude(outcome, reference, directory)
    }

    fn conclude(
        &mut self,
        outcome: Result<Vec<Output>, Problem>,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Vec<Output> {
        match outcome {
            Ok(outputs) => outputs,
            Err(problem) if problem.code == Code::MessageTooBig => {
                self.end_with(problem, reference, CloseCode::TooBig, directory)
            }
            Err(problem) => self.explain(problem, reference),
        }
    }

    /// Takes in the fact that a binary frame of this length came.
    pub fn handle_binary(
        &mut self,
        now: Instant,
        bytes: usize,
        directory: &mut Directory,
    ) -> Vec<Output> {
        if let Err(outputs) = self.admit(now, bytes, directory) {
            return outputs;
        }
        let problem = Problem::new(Code::BinaryFrame, "messages are JSON in text frames");
        self.explain(problem, None)
    }

    /// Takes in the fact that a ping frame came. It has been answered, and counts.
    pub fn handle_ping(&mut self, now: Instant, directory: &mut Directory) -> Vec<Output> {
        self.admit(now, 0, directory).err().unwrap_or_default()
    }

    /// Takes in the fact that a message was too long to be read.
    pub fn handle_too_big(&mut self, directory: &mut Directory) -> Vec<Output> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        self.end(check::too_big(), CloseCode::TooBig, directory)
    }

    /// Takes in a command that did not reach its shard.
    pub fn handle_undelivered(
        &mut self,
        command: &Command,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Vec<Output> {
        if let Command::Join { .. } = command {
            // Nobody has heard of the stay, so nobody needs to be told.
            drop(self.step_out(LeaveReason::NoPlace, directory));
        } else if let (Command::Offer { .. }, Some(stay)) = (command, &mut self.stay) {
            stay.handle_undelivered_offer();
        } else if let (Command::Measure { .. }, Some(stay)) = (command, &mut self.stay) {
            stay.handle_undelivered_question();
        }
        let problem = Problem::new(Code::ServerBusy, "the server is busy; try again soon");
        self.explain(problem, reference)
    }

    /// Takes in the fact that the client has closed the socket.
    pub fn handle_gone(&mut self, directory: &mut Directory) -> Vec<Output> {
        self.phase = Phase::Over;
        self.leave(LeaveReason::Disconnected, directory)
    }

    /// Takes in the fact that the client reads too slowly, and that its socket is cut.
    pub fn handle_cut(&mut self, directory: &mut Directory) -> Vec<Output> {
        self.phase = Phase::Over;
        self.leave(LeaveReason::TooSlow, directory)
    }

    /// Takes in the fact that the socket was lost without a word.
    pub fn handle_lost(&mut self, now: Instant, directory: &mut Directory) -> Vec<Output> {
        let is_awaited = self.stay.is_some() && !self.rules.limits.resume_timeout.is_zero();
        if self.phase == Phase::Over || !is_awaited {
            return self.handle_gone(directory);
        }
        self.phase = Phase::Away(now);
        Vec::new()
    }

    /// Looks at the time: who has lost its socket leaves in the end, and who shows no token has
    /// to go.
    pub fn handle_timeout(&mut self, now: Instant, directory: &mut Directory) -> Vec<Output> {
        let has_passed = |since, timeout| now.saturating_duration_since(since) >= timeout;
        match self.phase {
            Phase::Away(since)
                if self.stay.is_none() || has_passed(since, self.rules.limits.resume_timeout) =>
            {
                self.handle_gone(directory)
            }
            Phase::Open(since)
                if self.access.is_none() && has_passed(since, limits::TOKEN_TIMEOUT) =>
            {
                self.end(Denied::Missing.into(), CloseCode::Policy, directory)
            }
            _ => Vec::new(),
        }
    }

    /// Takes in the fact that the participant has to go.
    pub fn handle_kick(
        &mut self,
        reason: KickReason,
        message: Option<String>,
        directory: &mut Directory,
    ) -> Vec<Output> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        self.phase = Phase::Over;
        let mut outputs = vec![self.tell(ServerMessage::Kicked { reason, message })];
        outputs.extend(self.leave(reason.into(), directory));
        outputs.push(Output::Close(CloseCode::Policy));
        outputs
    }

    /// Takes in the fact that its room is no more. The others are told the same, and need not
    /// hear who left first.
    pub fn handle_room_closed(
        &mut self,
        reason: RoomClosedReason,
        directory: &mut Directory,
    ) -> Vec<Output> {
        let Some(stay) = &self.stay else {
            return Vec::new();
        };
        let (room, shard, peer) = (stay.room().clone(), stay.shard(), self.peer);
        let room_id = Shown(room);
        let told = self.tell(ServerMessage::RoomClosed { room_id, reason });
        drop(self.step_out(reason.into(), directory));
        self.peer = directory.draw_peer();
        vec![told, Output::Command(shard, Command::Leave { peer }, None)]
    }

    /// Takes in the fact that the server stops.
    pub fn handle_shutdown(&mut self, directory: &mut Directory) -> Vec<Output> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        let mut outputs = self.handle_room_closed(RoomClosedReason::ServerShutdown, directory);
        self.phase = Phase::Over;
        outputs.push(Output::Close(CloseCode::GoingAway));
        outputs
    }

    /// The room it is in and the peer it is there.
    #[must_use]
    pub fn stay(&self) -> Option<(&RoomId, PeerId)> {
        self.stay.as_ref().map(|stay| (stay.room(), self.peer))
    }

    /// Whether it waits for another socket to take over.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.phase, Phase::Away(_))
    }

    /// Where its client comes from.
    #[must_use]
    pub fn network(&self) -> Network {
        self.network
    }

    /// Whether a message of this length may be looked at; if not, what is to be done.
    fn admit(
        &mut self,
        now: Instant,
        bytes: usize,
        directory: &mut Directory,
    ) -> Result<(), Vec<Output>> {
        if self.phase == Phase::Over {
            return Err(Vec::new());
        }
        if self.rate.take(now, bytes) {
            return Ok(());
        }
        let problem = Problem::new(Code::RateExceeded, "too many messages in too short a time");
        Err(self.end(problem, CloseCode::Policy, directory))
    }

    /// The client has gone too far: it leaves, and its socket is closed.
    fn end(&mut self, problem: Problem, code: CloseCode, directory: &mut Directory) -> Vec<Output> {
        self.end_with(problem, None, code, directory)
    }

    fn end_with(
        &mut self,
        problem: Problem,
        reference: Option<Reference>,
        code: CloseCode,
        directory: &mut Directory,
    ) -> Vec<Output> {
        self.phase = Phase::Over;
        let mut outputs = self.explain(problem, reference);
        outputs.extend(self.leave(LeaveReason::BrokeRules, directory));
        outputs.push(Output::Close(code));
        outputs
    }

    /// Tells the client what went wrong, and the log what the client must not know.
    fn explain(&self, mut problem: Problem, reference: Option<Reference>) -> Vec<Output> {
        let denied = problem.denied.take().map(Output::Denied);
        let told = self.tell(problem.into_message(reference));
        denied.into_iter().chain([told]).collect()
    }

    /// The stay in a room; when the message names a room it is that one.
    fn stay_in(&mut self, room: Option<String>) -> Result<&mut Stay, Problem> {
        let Some(stay) = &mut self.stay else {
            return Err(Problem::new(Code::NotJoined, "join a room first"));
        };
        if room.is_some_and(|room| room != stay.room().as_str()) {
            let text = "the message names another room than the one joined";
            return Err(Problem::new(Code::WrongRoom, text));
        }
        Ok(stay)
    }

    /// Leaves the room, if it is in one, and tells shard and room.
    fn leave(&mut self, reason: LeaveReason, directory: &mut Directory) -> Vec<Output> {
        let peer = self.peer;
        let Some((shard, told)) = self.step_out(reason, directory) else {
            return Vec::new();
        };
        self.peer = directory.draw_peer();
        vec![Output::Command(shard, Command::Leave { peer }, None), told]
    }

    /// Leaves the room; `None` when it is in none. Returns what the others are to be told.
    fn step_out(
        &mut self,
        reason: LeaveReason,
        directory: &mut Directory,
    ) -> Option<(ShardId, Output)> {
        let stay = self.stay.take()?;
        let gone = directory.leave(self.peer, reason);
        let was_seen = gone.is_some_and(|member| !member.is_hidden);
        let message = ServerMessage::ParticipantLeft {
            participant_id: Shown(self.peer),
        };
        let room = was_seen.then(|| relay::everyone(stay.room(), directory));
        let told = Output::Tell(room.unwrap_or_default(), message);
        Some((stay.shard(), told))
    }

    fn request_offer(&self, room: RoomId, audio: u8, video: u8) -> Output {
        self.tell(ServerMessage::RequestOffer {
            room_id: Shown(room),
            audio,
            video,
        })
    }

    fn tell(&self, message: ServerMessage) -> Output {
        Output::Tell(vec![self.socket], message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::command::{CloseReason, Event, Refusal};
    use crate::engine::command::{Kind, MissingStep, Permissions, Slot, Source, TrackInfo};
    use crate::id::TrackId;
    use crate::record::order::Layer;
    use crate::signal::directory::RoomOptions;
    use crate::signal::{clock, fixture};

    const NOW: u64 = 1_800_000_000;

    fn stun() -> IceServers {
        IceServers {
            fixed: vec![json!({"urls": ["stun:192.0.2.1"]})],
            turn: None,
        }
    }

    /// Some sessions, and everything they were told and told the shards.
    struct World {
        now: Instant,
        directory: Directory,
        sessions: Vec<Session>,
        rules: Arc<Rules>,
        denied: Vec<Denied>,
        /// Rooms to be recorded, or no longer.
        recorded: Vec<(RoomId, Option<RecordingRequest>)>,
        /// By socket.
        told: Vec<Vec<Value>>,
        commands: Vec<Command>,
        closed: Vec<Option<CloseCode>>,
        /// Whether the shards' queues are full.
        busy: bool,
    }

    impl World {
        fn new(clients: u64) -> Self {
            Self::with_rooms(clients, RoomOptions::default())
        }

        fn with_rooms(clients: u64, rooms: RoomOptions) -> Self {
            Self::with(clients, rooms, access::Options::default())
        }

        /// Nobody gets in without a token of the fixture's key.
        fn guarded(clients: u64) -> Self {
            let access = access::Options {
                require_auth: true,
                token_header: String::new(),
                keys: vec![fixture::key()],
            };
            Self::with(clients, RoomOptions::default(), access)
        }

        fn with(clients: u64, rooms: RoomOptions, access: access::Options) -> Self {
            let shards = [ShardId::new(0), ShardId::new(1)];
            let limits = limits::Options::default();
            let mut world = Self {
                now: clock(),
                directory: Directory::new(rooms, &shards),
                sessions: Vec::new(),
                rules: Arc::new(Rules { access, limits }),
                denied: Vec::new(),
                recorded: Vec::new(),
                told: Vec::new(),
                commands: Vec::new(),
                closed: Vec::new(),
                busy: false,
            };
            for _ in 0..clients {
                world.open(None);
            }
            world
        }

        /// Opens one more socket, with a token or without.
        fn open(&mut self, token: Option<String>) -> usize {
            let client = self.sessions.len();
            let network = std::net::IpAddr::from([192, 0, 2, 1]).into();
            let (session, outputs) = Session::new(
                self.now(),
                SocketId(client as u64),
                Visitor { network, token },
                &stun(),
                &self.rules,
                &mut self.directory,
            );
            self.sessions.push(session);
            self.told.push(Vec::new());
            self.closed.push(None);
            self.act(client, outputs);
            client
        }

        fn now(&self) -> Now {
            Now {
                at: self.now,
                unix: NOW,
                unix_ms: NOW * 1000,
            }
        }

        fn say(&mut self, client: usize, text: &str) {
            let now = self.now();
            self.decide(client, |session, directory| {
                session.handle_text(now, text, directory)
            });
        }

        fn decide(
            &mut self,
            client: usize,
            decide: impl FnOnce(&mut Session, &mut Directory) -> Vec<Output>,
        ) {
            let outputs = decide(&mut self.sessions[client], &mut self.directory);
            self.act(client, outputs);
        }

        fn act(&mut self, client: usize, outputs: Vec<Output>) {
            for output in outputs {
                match output {
                    Output::Tell(sockets, message) => {
                        let value: Value = serde_json::from_str(&message.to_json()).unwrap();
                        for socket in sockets {
                            self.told[socket.0 as usize].push(value.clone());
                        }
                    }
                    Output::Command(_, command, reference) => {
                        let must_arrive = matches!(command, Command::Leave { .. });
                        if self.busy && !must_arrive {
                            return self.decide(client, |session, directory| {
                                session.handle_undelivered(&command, reference, directory)
                            });
                        }
                        self.commands.push(command);
                    }
                    Output::Kick(other, reason) => {
                        self.decide(other.0 as usize, |session, directory| {
                            session.handle_kick(reason, None, directory)
                        });
                    }
                    Output::Again(join, reference) => {
                        let now = self.now();
                        self.decide(client, |session, directory| {
                            session.handle_again(now, *join, reference, directory)
                        });
                    }
                    Output::Resume(earlier, token, reference) => {
                        let taken = self.take(earlier.0 as usize, &token);
                        self.decide(client, |session, directory| {
                            session.handle_resume(taken, reference, directory)
                        });
                    }
                    Output::Record(room, wanted, _) => self.recorded.push((room, wanted)),
                    Output::Denied(denied) => self.denied.push(denied),
                    Output::Close(code) => {
                        assert_eq!(self.closed[client].replace(code), None);
                    }
                }
            }
        }

        /// The session of a client whom this token stands for; another one takes its place.
        fn take(&mut self, client: usize, token: &str) -> Option<Session> {
            if !self.sessions[client].is_resumed_by(token) {
                return None;
            }
            let network = std::net::IpAddr::from([192, 0, 2, 1]).into();
            let visitor = Visitor {
                network,
                token: None,
            };
            let (now, socket) = (self.now(), SocketId(client as u64));
            let rules = &self.rules;
            let (mut empty, _) =
                Session::new(now, socket, visitor, &stun(), rules, &mut self.directory);
            empty.handle_gone(&mut self.directory);
            Some(std::mem::replace(&mut self.sessions[client], empty))
        }

        fn join(&mut self, client: usize) -> PeerId {
            self.say(client, r#"{"type":"join","roomId":"r"}"#);
            self.sessions[client].stay().unwrap().1
        }

        /// What a client was told since it was last asked.
        fn news(&mut self, client: usize) -> Vec<Value> {
            std::mem::take(&mut self.told[client])
        }

        fn types(&mut self, client: usize) -> Vec<String> {
            let news = self.news(client);
            news.iter()
                .map(|m| m["type"].as_str().unwrap().to_owned())
                .collect()
        }

        /// A new socket shows the latest resume token that this client was given.
        fn come_back(&mut self, client: usize) {
            let told = self.told[client].iter().rev();
            let token = told
                .filter(|message| message["type"] == "joined")
                .find_map(|message| message["resumeToken"].as_str());
            let Some(token) = token.map(str::to_owned) else {
                return;
            };
            let back = self.open(None);
            let join = json!({"type": "join", "roomId": "r", "resumeToken": token});
            self.say(back, &join.to_string());
        }

        /// Time passes, and is looked at.
        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            let now = self.now;
            self.directory.handle_timeout(now);
            for client in 0..self.sessions.len() {
                self.decide(client, |session, directory| {
                    session.handle_timeout(now, directory)
                });
            }
        }

        /// The code of the one error a client was told.
        fn error(&mut self, client: usize) -> String {
            let news = self.news(client);
            assert_eq!(news.len(), 1, "{news:?}");
            news[0]["code"].as_str().expect("an error").to_owned()
        }
    }

    fn track(peer: PeerId) -> TrackInfo {
        TrackInfo {
            id: TrackId { peer, number: 0 },
            kind: Kind::Video,
            source: Source::Camera,
        }
    }

    fn published(peer: PeerId) -> Event {
        Event::TrackPublished {
            room: RoomId::parse("r").unwrap(),
            track: track(peer),
        }
    }

    #[test]
    fn a_newcomer_learns_who_is_there_and_the_others_learn_who_came() {
        let mut world = World::new(2);
        let join = r#"{"type":"join","roomId":"r","participantName":"Ada","metadata":[1]}"#;
        world.say(0, join);
        let ada = world.sessions[0].stay().unwrap().1;
        world.decide(0, |session, directory| {
            session.handle_event(published(ada), directory)
        });
        let connected = &world.told[0][0];
        assert_eq!(connected["type"], "connected");
        assert_eq!(connected["participantId"], json!(ada.to_string()));
        assert_eq!(connected["iceServers"][0]["urls"][0], "stun:192.0.2.1");
        assert_eq!(world.types(0), ["connected", "joined", "track-published"]);

        world.say(1, r#"{"type":"join","roomId":"r","ref":9}"#);
        let news = world.news(1);
        let joined = news.last().unwrap();
        assert_eq!(joined["ref"], 9);
        assert_eq!(joined["roomId"], "r");
        let there = joined["participants"].as_array().unwrap();
        assert_eq!(there.len(), 1);
        assert_eq!(there[0]["id"], json!(ada.to_string()));
        assert_eq!(there[0]["name"], "Ada");
        assert_eq!(there[0]["metadata"], json!([1]));
        assert_eq!(there[0]["tracks"][0]["kind"], "video");
        let news = world.news(0);
        assert_eq!(news[0]["type"], "participant-joined");
        assert_eq!(news[0]["participant"]["id"], joined["participantId"]);

        world.say(1, r#"{"type":"leave"}"#);
        let news = world.news(0);
        assert_eq!(news[0]["type"], "participant-left");
        assert_eq!(news[0]["participantId"], joined["participantId"]);
    }

    #[test]
    fn offers_and_answers_pass_between_client_and_shard() {
        let mut world = World::new(1);
        let peer = world.join(0);
        world.say(0, r#"{"type":"offer","roomId":"r","sdp":"v=0"}"#);
        world.say(
            0,
            r#"{"type":"ice-candidate",
                "candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host"}}"#,
        );
        world.say(0, r#"{"type":"ice-candidate","candidate":null}"#);
        let candidate = "candidate:1 1 udp 1 192.0.2.1 9 typ host".to_owned();
        let room = RoomId::parse("r").unwrap();
        let sdp = "v=0".to_owned();
        let expected = [
            Command::Join {
                room,
                peer,
                permissions: Permissions::ALL,
            },
            Command::Offer {
                peer,
                sdp: sdp.clone(),
                sources: Vec::new(),
            },
            Command::Candidate { peer, candidate },
        ];
        assert_eq!(world.commands, expected);
        world.news(0);
        let slots = vec![Slot {
            mid: "0".to_owned(),
            track: None,
        }];
        let events = [
            Event::RequestOffer {
                peer,
                audio: 1,
                video: 2,
            },
            Event::Answer {
                peer,
                sdp,
                slots: slots.clone(),
            },
            Event::Connected { peer },
            Event::Slots { peer, slots },
        ];
        for event in events {
            world.decide(0, |session, directory| {
                session.handle_event(event, directory)
            });
        }
        assert_eq!(world.types(0), ["request-offer", "answer", "slots"]);
    }

    #[test]
    fn a_refusal_names_the_offer_it_refuses() {
        let mut world = World::new(1);
        let peer = world.join(0);
        world.say(0, r#"{"type":"offer","sdp":"a","ref":"first"}"#);
        world.say(0, r#"{"type":"offer","sdp":"b","ref":"second"}"#);
        world.news(0);
        let refused = |refusal| Event::Refused { peer, refusal };
        for refusal in [Refusal::BadCandidate, Refusal::BadOffer("no".to_owned())] {
            world.decide(0, |session, directory| {
                session.handle_event(refused(refusal), directory)
            });
        }
        let news = world.news(0);
        assert_eq!(news[0]["code"], "bad-candidate");
        assert_eq!(news[0].get("ref"), None);
        assert_eq!(news[1]["code"], "bad-offer");
        assert_eq!(news[1]["ref"], "first");
    }

    #[test]
    fn a_started_screen_share_names_the_new_m_line_a_screen() {
        let mut world = World::new(1);
        let peer = world.join(0);
        let camera = r"v=0\r\nm=video 9 x 96\r\na=mid:0";
        let both = r"v=0\r\nm=video 9 x 96\r\na=mid:0\r\nm=video 9 x 96\r\na=mid:1";
        world.say(0, &format!(r#"{{"type":"offer","sdp":"{camera}"}}"#));
        world.say(
            0,
            &format!(r#"{{"type":"start-screen-share","sdp":"{both}"}}"#),
        );
        let expected = Command::Offer {
            peer,
            sdp: both.replace(r"\r\n", "\r\n"),
            sources: vec![("1".to_owned(), Source::Screen)],
        };
        assert_eq!(world.commands.last(), Some(&expected));
        // Without a session description the next offer shows it.
        let mut world = World::new(1);
        world.join(0);
        world.say(0, r#"{"type":"start-screen-share"}"#);
        world.say(0, &format!(r#"{{"type":"offer","sdp":"{camera}"}}"#));
        let Some(Command::Offer { sources, .. }) = world.commands.last() else {
            panic!("no offer");
        };
        assert_eq!(sources, &[("0".to_owned(), Source::Screen)]);
    }

    #[test]
    fn a_mute_of_an_own_track_is_told_to_everyone_also_later() {
        let mut world = World::new(3);
        let peer = world.join(0);
        world.join(1);
        world.decide(0, |session, directory| {
            session.handle_event(published(peer), directory)
        });
        world.news(0);
        world.news(1);
        let mute = format!(r#"{{"type":"mute","trackId":"{}"}}"#, track(peer).id);
        world.say(1, &mute);
        assert_eq!(world.error(1), "no-such-track");
        world.say(0, &mute);
        assert_eq!(world.types(0), ["track-muted"]);
        assert_eq!(world.news(1)[0]["muted"], true);
        world.join(2);
        let news = world.news(2);
        assert_eq!(news[1]["participants"][0]["tracks"][0]["muted"], true);
        world.say(0, &mute.replace("mute", "unmute"));
        assert_eq!(world.news(1).pop().unwrap()["muted"], false);
    }

    #[test]
    fn data_reaches_one_or_all_others_of_the_room_and_nobody_else() {
        let mut world = World::new(4);
        let from = world.join(0);
        let to = world.join(1);
        world.join(2);
        world.say(3, r#"{"type":"join","roomId":"elsewhere"}"#);
        let stranger = world.sessions[3].stay().unwrap().1;
        world.told.iter_mut().for_each(Vec::clear);
        world.say(
            0,
            r#"{"type":"data","payload":{"x":[null]},"topic":"chat"}"#,
        );
        let heard = json!({"type": "data", "from": from.to_string(),
            "payload": {"x": [null]}, "topic": "chat"});
        assert_eq!(world.news(1), std::slice::from_ref(&heard));
        assert_eq!(world.news(2), [heard]);
        world.say(0, &format!(r#"{{"type":"data","to":"{to}","payload":1}}"#));
        assert_eq!(world.types(1), ["data"]);
        assert_eq!(
            world.types(0).len() + world.types(2).len() + world.types(3).len(),
            0
        );
        world.say(
            0,
            &format!(r#"{{"type":"data","to":"{stranger}","payload":1}}"#),
        );
        assert_eq!(world.error(0), "no-such-participant");
        assert_eq!(world.types(3).len(), 0);
    }

    #[test]
    fn each_misuse_has_its_code_and_leaves_the_session_usable() {
        let table: [(&[&str], &str, &str); 25] = [
            (&[], "{", "bad-json"),
            (&[], "[]", "bad-message"),
            (&[], r#"{"type":"join"}"#, "bad-message"),
            (&[], r#"{"type":"fly"}"#, "unknown-type"),
            (&[], r#"{"type":"join","roomId":""}"#, "bad-room-id"),
            (&[], r#"{"type":"join","roomId":"../x"}"#, "bad-room-id"),
            (&[], r#"{"type":"offer","sdp":"v=0"}"#, "not-joined"),
            (
                &[],
                r#"{"type":"ice-candidate","candidate":""}"#,
                "not-joined",
            ),
            (&[], r#"{"type":"leave"}"#, "not-joined"),
            (&[], r#"{"type":"mute","trackId":"t"}"#, "not-joined"),
            (&[], r#"{"type":"data","payload":1}"#, "not-joined"),
            (&[], r#"{"type":"start-screen-share"}"#, "not-joined"),
            (&["r"], r#"{"type":"join","roomId":"r"}"#, "already-joined"),
            (
                &["r"],
                r#"{"type":"offer","roomId":"s","sdp":""}"#,
                "wrong-room",
            ),
            (&["r"], r#"{"type":"leave","roomId":"s"}"#, "wrong-room"),
            (&["r"], r#"{"type":"mute","trackId":"t"}"#, "no-such-track"),
            (
                &["r"],
                r#"{"type":"data","to":"x","payload":1}"#,
                "no-such-participant",
            ),
            (&["r"], r#"{"type":"update-quality"}"#, "bad-message"),
            (
                &["r"],
                r#"{"type":"subscribe","trackIds":["t"]}"#,
                "no-such-track",
            ),
            (&[], r#"{"type":"unsubscribe","trackIds":[]}"#, "not-joined"),
            (&[], r#"{"type":"set-layout","slots":[]}"#, "not-joined"),
            (
                &["r"],
                r#"{"type":"update-quality","quality":"low","trackId":"t"}"#,
                "no-such-track",
            ),
            (
                &["r"],
                r#"{"type":"offer","to":"p_0000000000000000","sdp":"v=0"}"#,
                "no-such-participant",
            ),
            (
                &[],
                r#"{"type":"join","roomId":"r","resumeToken":"p_0000000000000000.0"}"#,
                "resume-failed",
            ),
            (&[], r#"{"type":"token","token":"x"}"#, "unauthorized"),
        ];
        for (rooms, text, code) in table {
            let mut world = World::new(1);
            for room in rooms {
                world.say(0, &format!(r#"{{"type":"join","roomId":"{room}"}}"#));
            }
            world.news(0);
            world.say(0, text);
            assert_eq!(world.error(0), code, "{text}");
            world.say(0, r#"{"type":"ping","ref":1}"#);
            assert_eq!(world.news(0), [json!({"type": "pong", "ref": 1})]);
            assert_eq!(world.commands.len(), rooms.len());
        }
    }

    #[test]
    fn an_error_echoes_the_reference_of_what_it_refuses() {
        let mut world = World::new(1);
        world.news(0);
        world.say(0, r#"{"type":"offer","sdp":"","ref":"o1"}"#);
        assert_eq!(world.news(0)[0]["ref"], "o1");
    }

    #[test]
    fn a_message_too_big_ends_the_session_and_frees_its_place() {
        let mut world = World::new(1);
        let peer = world.join(0);
        let sdp = "x".repeat(limits::MAX_SDP_BYTES + 1);
        world.say(0, &format!(r#"{{"type":"offer","sdp":"{sdp}"}}"#));
        assert_eq!(world.news(0).pop().unwrap()["code"], "message-too-big");
        assert_eq!(world.closed[0], Some(CloseCode::TooBig));
        assert_eq!(world.commands.last(), Some(&Command::Leave { peer }));
        assert_eq!(world.directory.peer_count(), 0);
        world.say(0, r#"{"type":"ping"}"#);
        assert_eq!(world.types(0).len(), 0);
    }

    #[test]
    fn too_many_messages_end_the_session_and_a_steady_few_do_not() {
        let mut world = World::new(1);
        for _ in 0..1000 {
            world.now += Duration::from_millis(25);
            world.say(0, r#"{"type":"ping"}"#);
        }
        assert_eq!(world.closed[0], None);
        for _ in 0..1000 {
            world.say(0, r#"{"type":"ping"}"#);
        }
        assert_eq!(world.closed[0], Some(CloseCode::Policy));
        assert_eq!(world.news(0).pop().unwrap()["code"], "rate-exceeded");
    }

    #[test]
    fn a_binary_frame_is_refused_and_counts() {
        let mut world = World::new(1);
        world.news(0);
        let now = world.now;
        world.decide(0, |session, directory| {
            session.handle_binary(now, 10, directory)
        });
        assert_eq!(world.error(0), "binary-frame");
        for _ in 0..1000 {
            world.decide(0, |session, directory| {
                session.handle_binary(now, 10, directory)
            });
        }
        assert_eq!(world.closed[0], Some(CloseCode::Policy));
    }

    #[test]
    fn pings_are_free_until_they_are_a_flood() {
        let mut world = World::new(1);
        world.news(0);
        let now = world.now;
        world.decide(0, |session, directory| session.handle_ping(now, directory));
        assert_eq!(world.types(0).len(), 0);
        for _ in 0..1000 {
            world.decide(0, |session, directory| session.handle_ping(now, directory));
        }
        assert_eq!(world.closed[0], Some(CloseCode::Policy));
    }

    #[test]
    fn a_join_that_does_not_reach_its_shard_never_was() {
        let mut world = World::new(2);
        world.join(0);
        world.told.iter_mut().for_each(Vec::clear);
        world.busy = true;
        world.say(1, r#"{"type":"join","roomId":"r","ref":3}"#);
        let news = world.news(1);
        assert_eq!(news[0]["code"], "server-busy");
        assert_eq!(news[0]["ref"], 3);
        assert_eq!(world.types(0).len(), 0);
        assert_eq!(world.directory.peer_count(), 1);
        world.say(0, r#"{"type":"offer","sdp":""}"#);
        assert_eq!(world.error(0), "server-busy");
        world.busy = false;
        world.join(1);
        assert_eq!(world.types(0), ["participant-joined"]);
    }

    #[test]
    fn a_full_room_or_server_refuses_and_can_be_tried_again() {
        let rooms = RoomOptions {
            max_rooms: 1,
            max_participants: 1,
            ..RoomOptions::default()
        };
        let mut world = World::with_rooms(2, rooms);
        world.join(0);
        world.news(1);
        world.say(1, r#"{"type":"join","roomId":"r"}"#);
        assert_eq!(world.error(1), "room-full");
        world.say(1, r#"{"type":"join","roomId":"s"}"#);
        assert_eq!(world.error(1), "too-many-rooms");
        world.say(0, r#"{"type":"leave"}"#);
        world.join(1);
    }

    #[test]
    fn whoever_joins_again_is_a_new_participant_whom_old_events_cannot_reach() {
        let mut world = World::new(1);
        let first = world.join(0);
        world.say(0, r#"{"type":"leave"}"#);
        let second = world.join(0);
        assert_ne!(first, second);
        assert_eq!(world.directory.member(first), None);
        let news = world.news(0);
        assert_eq!(
            news.last().unwrap()["participantId"],
            json!(second.to_string())
        );
    }

    #[test]
    fn whoever_the_shard_drops_is_told_why_and_may_join_again() {
        let codes = [
            (CloseReason::Left, "removed"),
            (CloseReason::ConnectionLost, "connection-lost"),
            (
                CloseReason::ConnectTimeout(MissingStep::Stun),
                "connect-timeout",
            ),
            (CloseReason::Misbehaved, "misbehaved"),
            (CloseReason::Panicked, "internal-error"),
            (CloseReason::Full, "server-full"),
        ];
        for (reason, code) in codes {
            let mut world = World::new(2);
            let peer = world.join(0);
            world.join(1);
            world.told.iter_mut().for_each(Vec::clear);
            let commands = world.commands.len();
            let room = RoomId::parse("r").unwrap();
            let closed = Event::Closed { peer, room, reason };
            world.decide(0, |session, directory| {
                session.handle_event(closed, directory)
            });
            assert_eq!(world.error(0), code);
            assert_eq!(world.types(1), ["participant-left"]);
            assert_eq!(world.commands.len(), commands);
            assert_ne!(world.join(0), peer);
        }
    }

    #[test]
    fn when_the_server_stops_everyone_is_told_and_everyone_leaves() {
        let mut world = World::new(3);
        world.join(0);
        world.join(1);
        world.told.iter_mut().for_each(Vec::clear);
        for client in 0..3 {
            world.decide(client, Session::handle_shutdown);
        }
        assert_eq!(world.types(0), ["room-closed"]);
        assert_eq!(world.types(1), ["room-closed"]);
        assert_eq!(world.types(2).len(), 0);
        assert_eq!(world.closed, [Some(CloseCode::GoingAway); 3]);
        assert_eq!(world.directory.peer_count(), 0);
        let left = |command: &&Command| matches!(command, Command::Leave { .. });
        assert_eq!(world.commands.iter().filter(left).count(), 2);
    }

    fn joins(room: &str) -> Value {
        json!({"roomJoin": true, "room": room})
    }

    #[test]
    fn nobody_joins_without_a_token_where_one_is_required() {
        let mut world = World::guarded(1);
        assert_eq!(world.types(0), ["connected"]);
        world.say(0, r#"{"type":"join","roomId":"r"}"#);
        assert_eq!(world.error(0), "unauthorized");
        let table = [
            (fixture::token("ada", joins("s")), Denied::WrongRoom),
            (
                fixture::token("ada", json!({})),
                Denied::NotGranted("roomJoin"),
            ),
            (fixture::token("", joins("r")), Denied::NoIdentity),
            (
                fixture::token_at(NOW - 600, "ada", joins("r")),
                Denied::Expired,
            ),
            ("x.y.z".to_owned(), Denied::Malformed),
        ];
        for (token, denied) in table {
            let join = json!({"type": "join", "roomId": "r", "token": token});
            world.say(0, &join.to_string());
            let news = world.news(0);
            let told = json!({"type": "error", "code": "unauthorized", "message": "unauthorized"});
            assert_eq!(news, [told], "no reason is told");
            assert_eq!(world.denied.pop(), Some(denied));
        }
        assert!(world.commands.is_empty());
        let token = fixture::token("ada", joins("r"));
        world.say(
            0,
            &json!({"type": "join", "roomId": "r", "token": token}).to_string(),
        );
        assert_eq!(world.types(0), ["joined"]);
    }

    #[test]
    fn a_token_may_come_with_the_socket_and_a_bad_one_closes_it() {
        let mut world = World::guarded(0);
        let good = world.open(Some(fixture::token("ada", joins("r"))));
        world.join(good);
        let bad = world.open(Some("x".to_owned()));
        assert_eq!(world.error(bad), "unauthorized");
        assert_eq!(world.closed[bad], Some(CloseCode::Policy));
        // Whoever shows none has ten seconds.
        let silent = world.open(None);
        world.wait(9);
        assert_eq!(world.closed[silent], None);
        world.wait(1);
        assert_eq!(world.closed[silent], Some(CloseCode::Policy));
        assert_eq!(world.closed[good], None);
    }

    #[test]
    fn what_a_token_does_not_grant_is_refused_and_a_newer_one_may_grant_it() {
        let mut world = World::guarded(0);
        let grant = |more: &str| {
            let mut video = joins("r");
            video["canPublish"] = json!(false);
            video["canPublishData"] = json!(more == "data");
            fixture::token("ada", video)
        };
        let ada = world.open(Some(grant("nothing")));
        let peer = world.join(ada);
        let only = Permissions {
            subscribe: true,
            ..Permissions::NONE
        };
        let room = RoomId::parse("r").unwrap();
        let join = Command::Join {
            room,
            peer,
            permissions: only,
        };
        assert_eq!(world.commands, [join]);
        world.news(ada);
        world.say(ada, r#"{"type":"data","payload":1}"#);
        assert_eq!(world.error(ada), "not-permitted");
        world.say(ada, r#"{"type":"answer","to":"p_0000000000000001"}"#);
        assert_eq!(world.error(ada), "not-permitted");
        for other in [
            fixture::token("eve", joins("r")),
            fixture::token("ada", joins("s")),
        ] {
            world.say(ada, &json!({"type": "token", "token": other}).to_string());
            assert_eq!(world.error(ada), "unauthorized");
        }
        let newer = json!({"type": "token", "token": grant("data"), "ref": 1});
        world.say(ada, &newer.to_string());
        assert_eq!(
            world.news(ada),
            [json!({"type": "token-accepted", "ref": 1})]
        );
        world.say(ada, r#"{"type":"data","payload":1}"#);
        assert!(world.news(ada).is_empty());
    }

    #[test]
    fn a_room_is_recorded_for_those_who_have_the_grant() {
        let mut world = World::guarded(0);
        let ada = world.open(Some(fixture::token("ada", joins("r"))));
        world.join(ada);
        world.news(ada);
        world.say(ada, r#"{"type":"start-recording"}"#);
        assert_eq!(world.error(ada), "unauthorized");
        let mut video = joins("r");
        video["roomRecord"] = json!(true);
        let token = fixture::token("ada", video);
        world.say(ada, &json!({"type": "token", "token": token}).to_string());
        world.say(ada, r#"{"type":"start-recording","layer":"low"}"#);
        world.say(ada, r#"{"type":"stop-recording"}"#);
        let room = RoomId::parse("r").unwrap();
        let wanted = RecordingRequest {
            layer: Some(Layer::Low),
            opaque: None,
        };
        assert_eq!(world.recorded, [(room.clone(), Some(wanted)), (room, None)]);
    }

    #[test]
    fn a_hidden_participant_hears_and_is_not_heard_of() {
        let mut world = World::guarded(0);
        let ada = world.open(Some(fixture::token("ada", joins("r"))));
        world.join(ada);
        world.news(ada);
        let mut video = joins("r");
        video["hidden"] = json!(true);
        let spy = world.open(Some(fixture::token("spy", video)));
        let peer = world.join(spy);
        let news = world.news(spy);
        assert_eq!(news[1]["participants"].as_array().unwrap().len(), 1);
        assert!(world.news(ada).is_empty());
        world.say(
            ada,
            &json!({"type": "data", "to": peer.to_string(), "payload": 1}).to_string(),
        );
        assert_eq!(world.error(ada), "no-such-participant");
        world.say(ada, r#"{"type":"data","payload":1}"#);
        assert_eq!(world.types(spy), ["data"]);
        world.say(spy, r#"{"type":"leave"}"#);
        assert!(world.news(ada).is_empty());
    }

    #[test]
    fn who_joins_as_someone_takes_that_ones_place_in_the_room() {
        let mut world = World::new(3);
        world.say(0, r#"{"type":"join","roomId":"r","userId":"ada"}"#);
        world.join(1);
        world.told.iter_mut().for_each(Vec::clear);
        world.say(2, r#"{"type":"join","roomId":"r","userId":"ada"}"#);
        let news = world.news(0);
        assert_eq!(
            news,
            [json!({"type": "kicked", "reason": "duplicate-identity"})]
        );
        assert_eq!(world.closed[0], Some(CloseCode::Policy));
        assert_eq!(world.types(1), ["participant-left", "participant-joined"]);
        assert_eq!(world.types(2), ["joined"]);
        assert_eq!(world.directory.peer_count(), 2);
    }

    #[test]
    fn who_lost_the_socket_comes_back_as_the_same_and_nobody_noticed() {
        let mut world = World::new(2);
        let peer = world.join(0);
        world.join(1);
        let slots = vec![Slot {
            mid: "1".to_owned(),
            track: Some(track(peer)),
        }];
        let events = [
            Event::RequestOffer {
                peer,
                audio: 1,
                video: 1,
            },
            Event::Slots { peer, slots },
        ];
        for event in events {
            world.decide(0, |session, directory| {
                session.handle_event(event, directory)
            });
        }
        world.told[1].clear();
        let commands = world.commands.len();
        let now = world.now;
        world.decide(0, |session, directory| session.handle_lost(now, directory));
        world.wait(29);
        world.come_back(0);
        assert_eq!(
            world.types(2),
            ["connected", "joined", "slots", "request-offer"]
        );
        assert_eq!(world.sessions[2].stay().unwrap().1, peer);
        assert_eq!(
            world.commands.len(),
            commands,
            "the shard hears nothing of it"
        );
        assert!(world.news(1).is_empty());
        // What it came back with is used up, and the one it got is good.
        world.come_back(0);
        assert_eq!(world.news(3).pop().unwrap()["code"], "resume-failed");
        world.say(1, r#"{"type":"data","payload":1}"#);
        assert_eq!(world.types(2), ["data"]);
    }

    #[test]
    fn who_does_not_come_back_in_time_has_left() {
        let mut world = World::new(2);
        let peer = world.join(0);
        world.join(1);
        world.told[1].clear();
        let now = world.now;
        world.decide(0, |session, directory| session.handle_lost(now, directory));
        world.wait(29);
        assert!(world.news(1).is_empty());
        world.wait(1);
        assert_eq!(world.types(1), ["participant-left"]);
        assert_eq!(world.commands.last(), Some(&Command::Leave { peer }));
        world.come_back(0);
        assert_eq!(world.news(2).pop().unwrap()["code"], "resume-failed");
    }

    #[test]
    fn a_wish_reaches_the_shard_and_a_message_for_one_reaches_that_one() {
        let mut world = World::new(2);
        let ada = world.join(0);
        let ben = world.join(1);
        world.decide(0, |session, directory| {
            session.handle_event(published(ada), directory)
        });
        let id = track(ada).id;
        for (kind, is_wanted) in [("unsubscribe", false), ("subscribe", true)] {
            let wish = json!({"type": kind, "trackIds": [id.to_string()]});
            world.say(1, &wish.to_string());
            let command = Command::Subscribe {
                peer: ben,
                tracks: vec![id],
                is_wanted,
            };
            assert_eq!(world.commands.last(), Some(&command));
        }
        world.told.iter_mut().for_each(Vec::clear);
        let wish = json!({"type": "subscribe", "trackIds": [id.to_string()]});
        world.say(0, &wish.to_string());
        assert_eq!(world.error(0), "no-such-track", "one's own");
        let offer = json!({"type": "offer", "to": ben.to_string(), "sdp": "v=0", "x": [1],
            "from": "somebody else"});
        world.say(0, &offer.to_string());
        let heard = json!({"type": "offer", "from": ada.to_string(), "sdp": "v=0", "x": [1]});
        assert_eq!(world.news(1), [heard]);
    }

    #[test]
    fn when_a_room_is_deleted_everyone_is_told_and_may_go_elsewhere() {
        let mut world = World::new(1);
        world.join(0);
        world.news(0);
        world.decide(0, |session, directory| {
            session.handle_room_closed(RoomClosedReason::Deleted, directory)
        });
        assert_eq!(world.news(0)[0]["reason"], "deleted");
        assert_eq!(world.closed[0], None);
        assert_eq!(world.directory.room_count(), 0);
        world.join(0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Say(&'static str),
        /// An event of this number about the present stay.
        Event(u8),
        Binary,
        TooBig,
        Gone,
        /// The socket is lost.
        Lost,
        /// A new socket comes back with the latest resume token of this one.
        Back,
        /// So many seconds pass.
        Wait(u64),
        Kick,
        RoomClosed,
        Busy(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let texts = prop::sample::select(vec![
            r#"{"type":"join","roomId":"r"}"#,
            r#"{"type":"join","roomId":"r","participantName":"x","ref":1}"#,
            r#"{"type":"join","roomId":"s"}"#,
            r#"{"type":"join","roomId":"no room"}"#,
            r#"{"type":"leave"}"#,
            r#"{"type":"leave","roomId":"s"}"#,
            r#"{"type":"offer","sdp":"v=0\nm=video 9\na=mid:0"}"#,
            r#"{"type":"offer","roomId":"r","sdp":"","tracks":{"0":{"source":"screen"}}}"#,
            r#"{"type":"ice-candidate","candidate":{"candidate":"x"}}"#,
            r#"{"type":"ice-candidate"}"#,
            r#"{"type":"start-screen-share","sdp":"v=0\nm=video 9\na=mid:1"}"#,
            r#"{"type":"stop-screen-share"}"#,
            r#"{"type":"mute","trackId":"t_0000000000000001_0"}"#,
            r#"{"type":"data","payload":[]}"#,
            r#"{"type":"data","to":"p_0000000000000001","payload":[]}"#,
            r#"{"type":"subscribe","trackIds":["t_0000000000000001_0"]}"#,
            r#"{"type":"unsubscribe","trackIds":[]}"#,
            r#"{"type":"join","roomId":"r","userId":"ada"}"#,
            r#"{"type":"join","roomId":"r","resumeToken":"p_0000000000000001.00"}"#,
            r#"{"type":"answer","to":"p_0000000000000001","sdp":"v=0"}"#,
            r#"{"type":"token","token":"x"}"#,
            r#"{"type":"set-layout","slots":[]}"#,
            r#"{"type":"update-quality","quality":"low"}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"?"}"#,
            "nonsense",
        ]);
        let step = prop_oneof![
            20 => texts.prop_map(Step::Say),
            8 => (0..9u8).prop_map(Step::Event),
            1 => Just(Step::Binary),
            1 => Just(Step::TooBig),
            1 => Just(Step::Gone),
            2 => Just(Step::Lost),
            2 => Just(Step::Back),
            2 => (0..60u64).prop_map(Step::Wait),
            1 => Just(Step::Kick),
            1 => Just(Step::RoomClosed),
            2 => any::<bool>().prop_map(Step::Busy),
        ];
        prop::collection::vec((0..3usize, step), 0..150)
    }

    fn event(number: u8, peer: PeerId, room: RoomId) -> Event {
        let slots = Vec::new();
        let sdp = String::new();
        match number {
            0 => Event::Answer { peer, sdp, slots },
            1 => Event::Refused {
                peer,
                refusal: Refusal::BadOffer(sdp),
            },
            2 => Event::RequestOffer {
                peer,
                audio: 0,
                video: 1,
            },
            3 => Event::Slots { peer, slots },
            4 | 5 => published(peer),
            6 => Event::TrackUnpublished {
                room,
                track: track(peer).id,
            },
            7 => Event::Connected { peer },
            _ => Event::Closed {
                peer,
                room,
                reason: CloseReason::ConnectionLost,
            },
        }
    }

    proptest! {
        #[test]
        fn any_order_of_messages_ends_in_a_legal_state_and_all_can_leave(steps in steps()) {
            let mut world = World::new(3);
            let mut dropped = Vec::new();
            for (client, step) in steps {
                let now = world.now;
                match step {
                    Step::Say(text) => world.say(client, text),
                    Step::Event(number) => {
                        let stay = world.sessions[client].stay();
                        if let Some((room, peer)) = stay.map(|(room, peer)| (room.clone(), peer)) {
                            let event = event(number, peer, room);
                            if let Event::Closed { .. } = event {
                                dropped.push(peer);
                            }
                            world.decide(client, |session, directory| {
                                session.handle_event(event, directory)
                            });
                        }
                    }
                    Step::Binary => world.decide(client, |session, directory| {
                        session.handle_binary(now, 1, directory)
                    }),
                    Step::TooBig => world.decide(client, Session::handle_too_big),
                    Step::Gone => world.decide(client, Session::handle_gone),
                    Step::Lost => world.decide(client, |session, directory| {
                        session.handle_lost(now, directory)
                    }),
                    Step::Back => world.come_back(client),
                    Step::Wait(seconds) => world.wait(seconds),
                    Step::Kick => world.decide(client, |session, directory| {
                        session.handle_kick(KickReason::Removed, None, directory)
                    }),
                    Step::RoomClosed => world.decide(client, |session, directory| {
                        session.handle_room_closed(RoomClosedReason::Deleted, directory)
                    }),
                    Step::Busy(busy) => world.busy = busy,
                }
                for session in &world.sessions {
                    let known = session.stay().map(|(room, peer)| (peer, room.clone()));
                    if let Some((peer, room)) = known {
                        prop_assert_eq!(world.directory.room_of(peer), Some(&room));
                    }
                }
                let staying = world.sessions.iter().filter(|s| s.stay().is_some()).count();
                prop_assert_eq!(world.directory.peer_count(), staying);
            }
            for client in 0..world.sessions.len() {
                world.decide(client, Session::handle_gone);
            }
            prop_assert_eq!(world.directory.room_count(), 0);
            assert_shards_were_told_a_sane_story(&world.commands, &dropped);
            for told in &world.told {
                assert_client_was_told_a_sane_story(told);
            }
        }
    }

    /// Every peer joins once, speaks while it is there, and leaves once unless it was dropped.
    fn assert_shards_were_told_a_sane_story(commands: &[Command], dropped: &[PeerId]) {
        let mut there: BTreeMap<PeerId, bool> = BTreeMap::new();
        for command in commands {
            match command {
                Command::Join { peer, .. } => assert_eq!(there.insert(*peer, true), None),
                Command::Leave { peer } => assert_eq!(there.insert(*peer, false), Some(true)),
                Command::Silence { .. }
                | Command::Inspect { .. }
                | Command::Record { .. }
                | Command::Spare(_)
                | Command::Limit(_)
                | Command::RenewRecorded { .. } => panic!("a session does not ask for this"),
                Command::Offer { peer, .. }
                | Command::Permit { peer, .. }
                | Command::Subscribe { peer, .. }
                | Command::Show { peer, .. }
                | Command::CapQuality { peer, .. }
                | Command::Measure { peer }
                | Command::Candidate { peer, .. } => {
                    assert_eq!(there.get(peer), Some(&true));
                }
            }
        }
        for (peer, is_there) in there {
            assert_eq!(is_there, dropped.contains(&peer));
        }
    }

    /// Whoever is told of others was told that it joined, and of each newcomer once.
    fn assert_client_was_told_a_sane_story(told: &[Value]) {
        let mut present: Option<Vec<String>> = None;
        let id = |value: &Value| value.as_str().expect("an id").to_owned();
        for message in told {
            let kind = message["type"].as_str().unwrap();
            match kind {
                "joined" => {
                    let there = message["participants"].as_array().unwrap();
                    present = Some(there.iter().map(|member| id(&member["id"])).collect());
                }
                "participant-joined" => {
                    let newcomer = id(&message["participant"]["id"]);
                    let present = present.as_mut().expect("joined comes first");
                    assert!(!present.contains(&newcomer));
                    present.push(newcomer);
                }
                "participant-left" => {
                    let gone = id(&message["participantId"]);
                    let present = present.as_mut().expect("joined comes first");
                    assert!(present.contains(&gone));
                    present.retain(|there| *there != gone);
                }
                "room-closed" => present = None,
                "connected" | "error" | "pong" | "kicked" | "token-accepted" => {}
                _ => assert!(present.is_some(), "{kind} before joined"),
            }
        }
    }
}
