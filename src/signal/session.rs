//! One client's signalling: text and events in, messages and commands out. Pure.
//!
//! A session is in at most one room. Each stay in a room is a new peer, so that nothing a shard
//! still says about an earlier stay can be taken for the present one.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::engine::command::{CloseReason, Command, Event, Refusal};
use crate::id::{PeerId, RoomId, ShardId};
use crate::signal::check::{self, check};
use crate::signal::directory::{Directory, Member, SocketId};
use crate::signal::limits::{self, Rate};
use crate::signal::message::{
    self, CandidateField, ClientMessage, OfferedTrack, Participant, Received, Reference,
    RoomClosedReason, ServerMessage, Shown, Track,
};
use crate::signal::problem::{Code, Problem};
use crate::signal::relay;
use crate::signal::stay::Stay;

/// What the hub must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this message to these sockets.
    Tell(Vec<SocketId>, ServerMessage),
    /// Give this to the shard. When that fails, the outputs after it are void: hand command and
    /// reference to [`Session::handle_undelivered`]. A [`Command::Leave`] must not fail: keep
    /// it and try again.
    Command(ShardId, Command, Option<Reference>),
    /// Close the session's socket. It is in no room.
    Close(CloseCode),
}

/// Why a socket is closed, as RFC 6455 §7.4.1 numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCode {
    /// The client broke a rule.
    Policy,
    /// Another socket has taken its place.
    Replaced,
    /// The client's message is too long.
    TooBig,
    /// The server stops.
    GoingAway,
}

/// One client's signalling.
#[derive(Debug)]
pub struct Session {
    socket: SocketId,
    /// The peer it is in its room, or will be in the next.
    peer: PeerId,
    /// `None` when it is in no room.
    stay: Option<Stay>,
    /// Set once the socket is to be closed: whatever comes after is ignored.
    over: bool,
    rate: Rate,
}

impl Session {
    /// A session in no room, and the greeting of its client.
    #[must_use]
    pub fn new(
        now: Instant,
        socket: SocketId,
        ice_servers: Vec<Value>,
        limits: &limits::Options,
        directory: &mut Directory,
    ) -> (Self, Output) {
        let peer = directory.draw_peer();
        let session = Self {
            socket,
            peer,
            stay: None,
            over: false,
            rate: Rate::new(now, limits),
        };
        let greeting = session.tell(ServerMessage::Connected {
            participant_id: Shown(peer),
            ice_servers,
        });
        (session, greeting)
    }

    /// Takes in one text message.
    pub fn handle_text(
        &mut self,
        now: Instant,
        text: &str,
        directory: &mut Directory,
    ) -> Vec<Output> {
        if let Err(outputs) = self.admit(now, text.len(), directory) {
            return outputs;
        }
        let Received { message, reference } = message::parse(text);
        let checked = message.and_then(|message| {
            check(&message, text.len())?;
            self.handle_message(message, reference.clone(), directory)
        });
        match checked {
            Ok(outputs) => outputs,
            Err(problem) if problem.code == Code::MessageTooBig => self.end(
                problem.into_message(reference),
                CloseCode::TooBig,
                directory,
            ),
            Err(problem) => vec![self.tell(problem.into_message(reference))],
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
        vec![self.tell(problem.into_message(None))]
    }

    /// Takes in the fact that a ping frame came. It has been answered, and counts.
    pub fn handle_ping(&mut self, now: Instant, directory: &mut Directory) -> Vec<Output> {
        self.admit(now, 0, directory).err().unwrap_or_default()
    }

    /// Takes in the fact that a message was too long to be read.
    pub fn handle_too_big(&mut self, directory: &mut Directory) -> Vec<Output> {
        if self.over {
            return Vec::new();
        }
        let problem = check::too_big();
        self.end(problem.into_message(None), CloseCode::TooBig, directory)
    }

    /// Takes in what the shard said about the peer this session is in its room.
    pub fn handle_event(&mut self, event: Event, directory: &mut Directory) -> Vec<Output> {
        let Some(stay) = &mut self.stay else {
            return Vec::new();
        };
        let room = stay.room().clone();
        match event {
            Event::Answer { sdp, slots, .. } => {
                stay.handle_verdict();
                let slots = message::slots(&slots);
                vec![self.tell(ServerMessage::Answer { sdp, slots })]
            }
            Event::Refused { refusal, .. } => {
                let is_of_offer = refusal != Refusal::BadCandidate;
                let reference = is_of_offer.then(|| stay.handle_verdict()).flatten();
                vec![self.tell(Problem::from(refusal).into_message(reference))]
            }
            Event::RequestOffer { audio, video, .. } => {
                vec![self.tell(ServerMessage::RequestOffer {
                    room_id: Shown(room),
                    audio,
                    video,
                })]
            }
            Event::Slots { slots, .. } => {
                let slots = message::slots(&slots);
                vec![self.tell(ServerMessage::Slots { slots })]
            }
            Event::TrackPublished { track, .. } => {
                let message = ServerMessage::TrackPublished {
                    participant_id: Shown(track.id.peer),
                    track: Track::from(&track),
                };
                directory.publish(track);
                vec![Output::Tell(relay::everyone(&room, directory), message)]
            }
            Event::TrackUnpublished { track, .. } => {
                if !directory.unpublish(track) {
                    return Vec::new();
                }
                let message = ServerMessage::TrackUnpublished {
                    participant_id: Shown(track.peer),
                    track_id: Shown(track),
                };
                vec![Output::Tell(relay::everyone(&room, directory), message)]
            }
            Event::Connected { .. } => Vec::new(),
            Event::Closed { reason, .. } => self.handle_closed(reason, directory),
        }
    }

    /// The shard has dropped the peer; the client may join again.
    fn handle_closed(&mut self, reason: CloseReason, directory: &mut Directory) -> Vec<Output> {
        let mut outputs = vec![self.tell(Problem::from(reason).into_message(None))];
        outputs.extend(self.step_out(directory).map(|(_, told)| told));
        self.peer = directory.draw_peer();
        outputs
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
            drop(self.step_out(directory));
        } else if let (Command::Offer { .. }, Some(stay)) = (command, &mut self.stay) {
            stay.handle_undelivered_offer();
        }
        let problem = Problem::new(Code::ServerBusy, "the server is busy; try again soon");
        vec![self.tell(problem.into_message(reference))]
    }

    /// Takes in the fact that the socket is gone, or that its reader is too slow.
    pub fn handle_gone(&mut self, directory: &mut Directory) -> Vec<Output> {
        self.over = true;
        self.leave(directory)
    }

    /// Takes in the fact that the server stops.
    pub fn handle_shutdown(&mut self, directory: &mut Directory) -> Vec<Output> {
        if self.over {
            return Vec::new();
        }
        self.over = true;
        let mut outputs = Vec::new();
        if let Some(stay) = &self.stay {
            let (room, shard, peer) = (stay.room().clone(), stay.shard(), self.peer);
            outputs.push(self.tell(ServerMessage::RoomClosed {
                room_id: Shown(room),
                reason: RoomClosedReason::ServerShutdown,
            }));
            outputs.push(Output::Command(shard, Command::Leave { peer }, None));
            // The others are told the same, and need not hear who left first.
            drop(self.step_out(directory));
        }
        outputs.push(Output::Close(CloseCode::GoingAway));
        outputs
    }

    /// The room it is in and the peer it is there.
    #[must_use]
    pub fn stay(&self) -> Option<(&RoomId, PeerId)> {
        self.stay.as_ref().map(|stay| (stay.room(), self.peer))
    }

    /// Whether a message of this length may be looked at; if not, what is to be done.
    fn admit(
        &mut self,
        now: Instant,
        bytes: usize,
        directory: &mut Directory,
    ) -> Result<(), Vec<Output>> {
        if self.over {
            return Err(Vec::new());
        }
        if self.rate.take(now, bytes) {
            return Ok(());
        }
        let problem = Problem::new(Code::RateExceeded, "too many messages in too short a time");
        Err(self.end(problem.into_message(None), CloseCode::Policy, directory))
    }

    /// The client has gone too far: it leaves, and its socket is closed.
    fn end(
        &mut self,
        explanation: ServerMessage,
        code: CloseCode,
        directory: &mut Directory,
    ) -> Vec<Output> {
        self.over = true;
        let mut outputs = vec![self.tell(explanation)];
        outputs.extend(self.leave(directory));
        outputs.push(Output::Close(code));
        outputs
    }

    fn handle_message(
        &mut self,
        message: ClientMessage,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        match message {
            ClientMessage::Join {
                room_id,
                participant_name,
                metadata,
            } => self.handle_join(&room_id, participant_name, metadata, reference, directory),
            ClientMessage::Offer {
                room_id,
                sdp,
                tracks,
            } => self.handle_offer(room_id, sdp, &tracks.unwrap_or_default(), reference),
            ClientMessage::IceCandidate { room_id, candidate } => {
                let line = candidate.as_ref().map_or("", CandidateField::line);
                self.handle_candidate(room_id, line, reference)
            }
            ClientMessage::Leave { room_id } => {
                self.stay_in(room_id)?;
                Ok(self.leave(directory))
            }
            ClientMessage::StartScreenShare { room_id, sdp } => {
                self.stay_in(room_id)?.handle_screen_start();
                self.handle_screen_offer(sdp, reference)
            }
            ClientMessage::StopScreenShare { room_id, sdp } => {
                self.stay_in(room_id)?.handle_screen_stop();
                self.handle_screen_offer(sdp, reference)
            }
            ClientMessage::Mute { track_id } => {
                self.stay_in(None)?;
                relay::mute(self.peer, &track_id, true, directory)
            }
            ClientMessage::Unmute { track_id } => {
                self.stay_in(None)?;
                relay::mute(self.peer, &track_id, false, directory)
            }
            ClientMessage::Data {
                room_id,
                to,
                payload,
                topic,
            } => {
                self.stay_in(room_id)?;
                relay::data(self.peer, to.as_deref(), payload, topic, directory)
            }
            ClientMessage::Ping => Ok(vec![self.tell(ServerMessage::Pong { reference })]),
            ClientMessage::UpdateQuality
            | ClientMessage::Subscribe
            | ClientMessage::Unsubscribe
            | ClientMessage::SetLayout => {
                let text = "this server does not serve this message";
                Err(Problem::new(Code::NotSupported, text))
            }
            ClientMessage::Unknown => {
                let text = "no message has this \"type\"";
                Err(Problem::new(Code::UnknownType, text))
            }
        }
    }

    fn handle_join(
        &mut self,
        room: &str,
        name: Option<String>,
        metadata: Option<Value>,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        if self.stay.is_some() {
            let text = "this socket is in a room already: leave it first";
            return Err(Problem::new(Code::AlreadyJoined, text));
        }
        let room =
            RoomId::parse(room).map_err(|e| Problem::new(Code::BadRoomId, &e.to_string()))?;
        let member = Member {
            peer: self.peer,
            socket: self.socket,
            name,
            metadata,
            tracks: Vec::new(),
        };
        let participant = Participant::from(&member);
        let shard = directory.enter(room.clone(), member)?;
        let peer = self.peer;
        self.stay = Some(Stay::new(room.clone(), shard, peer));
        let others = relay::others(peer, directory);
        let participants = directory
            .members(&room)
            .iter()
            .filter(|member| member.peer != peer)
            .map(Participant::from)
            .collect();
        let command = Command::Join {
            room: room.clone(),
            peer,
        };
        let joined = ServerMessage::Joined {
            room_id: Shown(room),
            participant_id: Shown(peer),
            participants,
            reference: reference.clone(),
        };
        Ok(vec![
            Output::Command(shard, command, reference),
            self.tell(joined),
            Output::Tell(others, ServerMessage::ParticipantJoined { participant }),
        ])
    }

    fn handle_offer(
        &mut self,
        room: Option<String>,
        sdp: String,
        tracks: &BTreeMap<String, OfferedTrack>,
        reference: Option<Reference>,
    ) -> Result<Vec<Output>, Problem> {
        let stay = self.stay_in(room)?;
        let command = stay.handle_offer(sdp, tracks, reference.clone());
        Ok(vec![Output::Command(stay.shard(), command, reference)])
    }

    /// Without a session description the next offer shows the change.
    fn handle_screen_offer(
        &mut self,
        sdp: Option<String>,
        reference: Option<Reference>,
    ) -> Result<Vec<Output>, Problem> {
        match sdp {
            Some(sdp) => self.handle_offer(None, sdp, &BTreeMap::new(), reference),
            None => Ok(Vec::new()),
        }
    }

    fn handle_candidate(
        &mut self,
        room: Option<String>,
        candidate: &str,
        reference: Option<Reference>,
    ) -> Result<Vec<Output>, Problem> {
        let stay = self.stay_in(room)?;
        let command = stay.handle_candidate(candidate);
        let command = command.map(|command| Output::Command(stay.shard(), command, reference));
        Ok(command.into_iter().collect())
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
    fn leave(&mut self, directory: &mut Directory) -> Vec<Output> {
        let peer = self.peer;
        let Some((shard, told)) = self.step_out(directory) else {
            return Vec::new();
        };
        self.peer = directory.draw_peer();
        vec![Output::Command(shard, Command::Leave { peer }, None), told]
    }

    /// Leaves the room; `None` when it is in none. Returns what the others are to be told.
    fn step_out(&mut self, directory: &mut Directory) -> Option<(ShardId, Output)> {
        let stay = self.stay.take()?;
        let gone = self.peer;
        directory.leave(gone);
        let message = ServerMessage::ParticipantLeft {
            participant_id: Shown(gone),
        };
        let told = Output::Tell(relay::everyone(stay.room(), directory), message);
        Some((stay.shard(), told))
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
    use serde_json::json;

    use super::*;
    use crate::engine::command::{Kind, Slot, Source, TrackInfo};
    use crate::id::TrackId;
    use crate::signal::clock;
    use crate::signal::directory::RoomOptions;

    /// Some sessions, and everything they were told and told the shards.
    struct World {
        now: Instant,
        directory: Directory,
        sessions: Vec<Session>,
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
            let shards = [ShardId::new(0), ShardId::new(1)];
            let mut world = Self {
                now: clock(),
                directory: Directory::new(rooms, &shards),
                sessions: Vec::new(),
                told: vec![Vec::new(); clients as usize],
                commands: Vec::new(),
                closed: vec![None; clients as usize],
                busy: false,
            };
            for socket in 0..clients {
                let (session, greeting) = Session::new(
                    world.now,
                    SocketId(socket),
                    vec![json!({"urls": ["stun:192.0.2.1"]})],
                    &limits::Options::default(),
                    &mut world.directory,
                );
                world.sessions.push(session);
                world.act(socket as usize, vec![greeting]);
            }
            world
        }

        fn say(&mut self, client: usize, text: &str) {
            let session = &mut self.sessions[client];
            let outputs = session.handle_text(self.now, text, &mut self.directory);
            self.act(client, outputs);
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
                    Output::Close(code) => {
                        assert_eq!(self.closed[client].replace(code), None);
                    }
                }
            }
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
            Command::Join { room, peer },
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
        let table: [(&[&str], &str, &str); 18] = [
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
            (&["r"], r#"{"type":"update-quality"}"#, "not-supported"),
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
            auto_create: true,
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
            (CloseReason::ConnectTimeout, "connect-timeout"),
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

    #[derive(Debug, Clone)]
    enum Step {
        Say(&'static str),
        /// An event of this number about the present stay.
        Event(u8),
        Binary,
        TooBig,
        Gone,
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
            r#"{"type":"subscribe"}"#,
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
            for client in 0..3 {
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
                Command::Offer { peer, .. } | Command::Candidate { peer, .. } => {
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
                "connected" | "error" | "pong" => {}
                _ => assert!(present.is_some(), "{kind} before joined"),
            }
        }
    }
}
