//! What the hub answers those who ask over HTTP.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::oneshot::Sender;

use super::Hub;
use crate::engine::command::Command;
use crate::id::{PeerId, RoomId, TrackId};
use crate::metrics::Family;
use crate::record::manifest::Manifest;
use crate::record::order::RecordingRequest;
use crate::signal::addresses::Network;
use crate::signal::api::drain::DrainView;
use crate::signal::api::view::{RecordingView, RoomDetail, RoomList, RoomStats, RoomView};
use crate::signal::directory::{Member, MutedBy, NewRoom, NoEntry};
use crate::signal::figures::{Figures, Signalling};
use crate::signal::happening::Notice;
use crate::signal::message::{KickReason, Participant, RoomClosedReason};
use crate::signal::problem::{Code, Problem};
use crate::signal::{Now, relay};

/// What is asked, with the place where the answer is awaited.
#[derive(Debug)]
pub enum Question {
    /// How is the server?
    Health(Sender<Health>),
    /// What has been counted?
    Figures(Sender<Figures>),
    /// What happens from here on?
    Events(Sender<broadcast::Receiver<Arc<Notice>>>),
    /// Does it take participants in, and if not, why?
    Ready(Sender<Result<(), Problem>>),
    /// Everything that is counted, for Prometheus.
    Metrics(Sender<Vec<Family>>),
    /// Take no new rooms; calls may go on for so long, or as long as is configured.
    Drain(Option<Duration>, Sender<DrainView>),
    /// Take new rooms again.
    CancelDrain(Sender<DrainView>),
    /// Is the server draining?
    ShowDrain(Sender<DrainView>),
    /// Make a room, for whoever asks from there.
    CreateRoom(NewRoom, Network, Sender<Result<RoomView, NoEntry>>),
    /// Which rooms are there after this one, so many at most?
    ListRooms(Option<RoomId>, usize, Sender<RoomList>),
    /// What is this room, and who is in it?
    Room(RoomId, Sender<Option<RoomDetail>>),
    /// What is counted of this room?
    RoomStats(RoomId, Sender<Option<RoomStats>>),
    /// How far has everyone in this room come?
    Diagnose(RoomId, super::Reply),
    /// Close this room. Was there one?
    DeleteRoom(RoomId, Sender<bool>),
    /// Who is this in that room?
    Participant(RoomId, PeerId, Sender<Result<Participant, Problem>>),
    /// Remove this one from that room, and tell it this.
    Kick(RoomId, PeerId, Option<String>, Sender<Result<(), Problem>>),
    /// Mute this track of that participant, or all of them, or unmute.
    Mute(
        RoomId,
        PeerId,
        Option<TrackId>,
        bool,
        Sender<Result<Participant, Problem>>,
    ),
    /// Record this room, or no longer.
    Record(
        RoomId,
        Option<RecordingRequest>,
        Sender<Result<RecordingView, Problem>>,
    ),
    /// Which recordings are there, newest first?
    Recordings(Sender<Vec<Manifest>>),
}

/// The answer to `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Health {
    /// Always `healthy`: a hub that is not does not answer.
    pub status: &'static str,
    /// Rooms there are.
    pub rooms: usize,
    /// Participants in rooms.
    pub participants: usize,
    /// How many there may be.
    pub config: HealthConfig,
}

/// Part of [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HealthConfig {
    /// Most rooms at once.
    pub max_rooms: usize,
    /// Most participants in one room.
    pub max_participants_per_room: usize,
}

impl Hub {
    /// Whoever asked and did not wait for the answer needs none.
    pub(super) fn answer(&mut self, now: Now, question: Question) {
        match question {
            Question::Health(reply) => drop(reply.send(self.health())),
            Question::Figures(reply) => drop(reply.send(self.figures())),
            Question::Events(reply) => drop(reply.send(self.outlets.subscribe())),
            Question::Ready(reply) => drop(reply.send(self.ready())),
            Question::Metrics(reply) => drop(reply.send(self.families(now))),
            Question::Drain(patience, reply) => {
                let patience = patience.unwrap_or(self.live().drain_timeout);
                self.begin_drain(now, patience, false);
                drop(reply.send(self.drain_view()));
            }
            Question::CancelDrain(reply) => {
                self.cancel_drain();
                drop(reply.send(self.drain_view()));
            }
            Question::ShowDrain(reply) => drop(reply.send(self.drain_view())),
            Question::CreateRoom(new, maker, reply) => {
                let made = self.directory.create(now.at, new, maker);
                let room = made.map(|id| {
                    let room = self.directory.room(&id).expect("it was made");
                    RoomView::new(now, &id, room)
                });
                drop(reply.send(room));
            }
            Question::ListRooms(after, limit, reply) => {
                drop(reply.send(self.list(now, after.as_ref(), limit)));
            }
            Question::Room(id, reply) => drop(reply.send(self.room(now, &id))),
            Question::RoomStats(id, reply) => {
                drop(reply.send(RoomStats::new(now, &id, &self.directory)));
            }
            Question::Diagnose(id, reply) => self.inspect(id, reply),
            Question::DeleteRoom(id, reply) => {
                let _ = reply.send(self.close_room(now, &id, RoomClosedReason::Deleted));
            }
            Question::Participant(id, peer, reply) => {
                drop(reply.send(self.participant(&id, peer)));
            }
            Question::Kick(id, peer, message, reply) => {
                drop(reply.send(self.kick(now, &id, peer, message)));
            }
            Question::Mute(id, peer, track, muted, reply) => {
                drop(reply.send(self.mute(now, &id, peer, track, muted)));
            }
            Question::Record(id, wanted, reply) => {
                drop(reply.send(self.record(now, &id, wanted)));
            }
            Question::Recordings(reply) => self.recordings.list(reply),
        }
    }

    fn list(&self, now: Now, after: Option<&RoomId>, limit: usize) -> RoomList {
        let mut some = self.directory.rooms_after(after);
        let rooms: Vec<_> = some
            .by_ref()
            .take(limit)
            .map(|(id, room)| RoomView::new(now, id, room))
            .collect();
        let is_more = some.next().is_some();
        let next = rooms.last().filter(|_| is_more).map(|room| room.id.clone());
        RoomList { rooms, next }
    }

    fn room(&self, now: Now, id: &RoomId) -> Option<RoomDetail> {
        let room = self.directory.room(id)?;
        Some(RoomDetail {
            room: RoomView::new(now, id, room),
            participants: room.members().iter().map(Participant::from).collect(),
        })
    }

    pub(super) fn close_room(&mut self, now: Now, id: &RoomId, reason: RoomClosedReason) -> bool {
        let members = self.directory.members(id);
        let sockets: Vec<_> = members.iter().map(|member| member.socket).collect();
        let was_there = self.directory.close(id);
        for socket in sockets {
            self.with(now, socket, |session, directory| {
                session.handle_room_closed(reason, directory)
            });
            self.forget_if_gone(socket);
        }
        was_there
    }

    fn member(&self, id: &RoomId, peer: PeerId) -> Result<&Member, Problem> {
        if self.directory.room(id).is_none() {
            return Err(NoEntry::NoSuchRoom.into());
        }
        let mut members = self.directory.members(id).iter();
        members.find(|member| member.peer == peer).ok_or_else(|| {
            let text = "nobody of this name is in the room";
            Problem::new(Code::NoSuchParticipant, text)
        })
    }

    fn participant(&self, id: &RoomId, peer: PeerId) -> Result<Participant, Problem> {
        self.member(id, peer).map(Participant::from)
    }

    fn kick(
        &mut self,
        now: Now,
        id: &RoomId,
        peer: PeerId,
        message: Option<String>,
    ) -> Result<(), Problem> {
        let socket = self.member(id, peer)?.socket;
        self.with(now, socket, |session, directory| {
            session.handle_kick(KickReason::Removed, message, directory)
        });
        Ok(())
    }

    /// An administrator's mute is the engine's: the track plays to nobody.
    fn mute(
        &mut self,
        now: Now,
        id: &RoomId,
        peer: PeerId,
        only: Option<TrackId>,
        muted: bool,
    ) -> Result<Participant, Problem> {
        let member = self.member(id, peer)?;
        let socket = member.socket;
        let published = member.tracks.iter().map(|track| track.info.id);
        let tracks: Vec<_> = published
            .filter(|track| only.is_none_or(|only| only == *track))
            .collect();
        if only.is_some() && tracks.is_empty() {
            let text = "the participant publishes no such track";
            return Err(Problem::new(Code::NoSuchTrack, text));
        }
        let shard = self.directory.shard(id).expect("the room is there");
        for track in tracks {
            let is_silent = muted;
            if self
                .shards
                .send(shard, Command::Silence { track, is_silent })
                .is_err()
            {
                let text = "the server is busy; try again soon";
                return Err(Problem::new(Code::ServerBusy, text));
            }
            if let Some(track) = self.directory.track_mut(track) {
                track.muted = muted.then_some(MutedBy::Admin);
            }
            let told = relay::tell_muted(track, muted, &self.directory);
            self.act(now, socket, vec![told]);
        }
        self.participant(id, peer)
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
        Figures::new(
            self.signalling_now(),
            self.outlets.figures(),
            self.shards.figures(),
        )
    }

    pub(super) fn signalling_now(&self) -> Signalling {
        Signalling {
            sockets: self.clients.values().filter(|c| c.outbox.is_some()).count() as u64,
            rooms: self.directory.room_count() as u64,
            participants: self.directory.peer_count() as u64,
            ..self.signalling.clone()
        }
    }
}
