//! How a session gets into a room: with a token, in place of an earlier self, or back again.

use super::{Output, Session};
use crate::engine::command::Command;
use crate::id::RoomId;
use crate::signal::access::Access;
use crate::signal::directory::{Directory, Member};
use crate::signal::message::{KickReason, Participant, Reference, ServerMessage, Shown};
use crate::signal::problem::{Code, Problem};
use crate::signal::request::Join;
use crate::signal::resume::ResumeToken;
use crate::signal::stay::Stay;
use crate::signal::token::Denied;
use crate::signal::{Now, relay};

impl Session {
    pub(super) fn handle_join(
        &mut self,
        now: Now,
        join: Join,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        if self.stay.is_some() {
            let text = "this socket is in a room already: leave it first";
            return Err(Problem::new(Code::AlreadyJoined, text));
        }
        let room = RoomId::parse(&join.room_id)
            .map_err(|e| Problem::new(Code::BadRoomId, &e.to_string()))?;
        if let Some(token) = join.resume_token {
            return back(token, &room, reference, directory);
        }
        let access = self.access_at(now, join.token.as_deref())?;
        access.check_join(&room)?;
        let claimed = join.user_id.as_deref().filter(|id| !id.is_empty());
        let identity = access.identity().or(claimed).map(str::to_owned);
        let earlier = identity.as_deref();
        let earlier = earlier.and_then(|id| directory.member_of_identity(&room, id));
        if let Some(earlier) = earlier {
            let out = Output::Kick(earlier.socket, KickReason::DuplicateIdentity);
            return Ok(vec![out, Output::Again(Box::new(join), reference)]);
        }
        let member = Member {
            peer: self.peer,
            socket: self.socket,
            network: self.network,
            is_verified: access.identity().is_some(),
            identity,
            name: access.name().map(str::to_owned).or(join.participant_name),
            metadata: access.metadata().cloned().or(join.metadata),
            is_hidden: access.is_hidden(),
            is_encrypted: join.encrypted,
            tracks: Vec::new(),
        };
        self.enter(now, room, member, access, reference, directory)
    }

    fn enter(
        &mut self,
        now: Now,
        room: RoomId,
        member: Member,
        access: Access,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        let peer = self.peer;
        let newcomer = (!member.is_hidden).then(|| Participant::from(&member));
        let shard = directory.enter(now.at, room.clone(), member)?;
        let command = Command::Join {
            room: room.clone(),
            peer,
            permissions: access.permissions(),
        };
        self.access = Some(access);
        self.stay = Some(Stay::new(room, shard, peer));
        let mut outputs = vec![Output::Command(shard, command, reference.clone())];
        outputs.extend(self.joined(false, reference, directory));
        outputs.extend(newcomer.map(|participant| {
            let others = relay::others(peer, directory);
            Output::Tell(others, ServerMessage::ParticipantJoined { participant })
        }));
        Ok(outputs)
    }

    /// What the client may do now: by the token it shows, else by the one it showed before, else
    /// without.
    fn access_at(&self, now: Now, token: Option<&str>) -> Result<Access, Denied> {
        match (&self.access, token) {
            (Some(access), None) => access.check_holds(now.unix).map(|()| access.clone()),
            _ => self.rules.access.admit(token, now.unix),
        }
    }

    /// Another token for the same participant: what it grants holds from here on.
    pub(super) fn handle_token(
        &mut self,
        now: Now,
        token: &str,
        reference: Option<Reference>,
        directory: &Directory,
    ) -> Result<Vec<Output>, Problem> {
        let access = self.rules.access.admit(Some(token), now.unix)?;
        let mut outputs = Vec::new();
        if let Some(stay) = &self.stay {
            access.check_join(stay.room())?;
            let member = directory.member(self.peer);
            if member.and_then(|member| member.identity.as_deref()) != access.identity() {
                return Err(Denied::WrongIdentity.into());
            }
            let command = Command::Permit {
                peer: self.peer,
                permissions: access.permissions(),
            };
            outputs.push(Output::Command(stay.shard(), command, reference.clone()));
        }
        self.access = Some(access);
        outputs.push(self.tell(ServerMessage::TokenAccepted { reference }));
        Ok(outputs)
    }

    /// Whether this text takes over the session's stay.
    #[must_use]
    pub fn is_resumed_by(&self, token: &str) -> bool {
        let stay = self.stay.as_ref();
        stay.is_some_and(|stay| stay.resume_token().is(token))
    }

    /// Takes over the stay of `earlier`, whose socket was lost or is about to be; with none its
    /// client is told that it is too late.
    pub fn handle_resume(
        &mut self,
        earlier: Option<Session>,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Vec<Output> {
        let taken = earlier.and_then(|earlier| Some((earlier.peer, earlier.access, earlier.stay?)));
        let Some((peer, access, mut stay)) = taken else {
            return self.explain(too_late(), reference);
        };
        stay.handle_resumed();
        let (room, slots) = (stay.room().clone(), stay.slots().clone());
        let requested = stay.requested();
        self.peer = peer;
        self.access = access;
        self.stay = Some(stay);
        directory.reach(peer, self.socket);
        let mut outputs = self.joined(true, reference, directory);
        outputs.push(self.tell(ServerMessage::Slots { slots }));
        // It may have been asked while nobody heard it.
        outputs.extend(requested.map(|(audio, video)| self.request_offer(room, audio, video)));
        outputs
    }

    fn joined(
        &self,
        resumed: bool,
        reference: Option<Reference>,
        directory: &Directory,
    ) -> Vec<Output> {
        let Some(stay) = &self.stay else {
            return Vec::new();
        };
        let room = directory.room(stay.room());
        let recording = room.and_then(|room| room.recording.as_ref());
        let members = directory.members(stay.room()).iter();
        let others = members.filter(|member| member.peer != self.peer && !member.is_hidden);
        vec![self.tell(ServerMessage::Joined {
            room_id: Shown(stay.room().clone()),
            participant_id: Shown(self.peer),
            participants: others.map(Participant::from).collect(),
            resume_token: stay.resume_token().reveal().to_owned(),
            resumed,
            recording_id: recording.map(|id| id.as_str().to_owned()),
            reference,
        })]
    }
}

/// Whose stay a resume token asks for is found by its name; whether it is genuine is that
/// session's to say.
fn back(
    token: String,
    room: &RoomId,
    reference: Option<Reference>,
    directory: &Directory,
) -> Result<Vec<Output>, Problem> {
    let peer = ResumeToken::peer_of(&token).filter(|peer| directory.room_of(*peer) == Some(room));
    let member = peer.and_then(|peer| directory.member(peer));
    let socket = member.ok_or_else(too_late)?.socket;
    Ok(vec![Output::Resume(socket, token, reference)])
}

fn too_late() -> Problem {
    let text = "nobody can come back with this token; join as a new participant";
    Problem::new(Code::ResumeFailed, text)
}
