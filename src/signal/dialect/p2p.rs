//! `/ws/p2p`: one sender and one receiver.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::id::RoomId;
use crate::signal::dialect::news::News;
use crate::signal::dialect::{Caller, Dialect, Output, Refusal, is_description, parse};
use crate::signal::directory::{RoomOptions, SocketId};
use crate::signal::happening::{DialectName, EndReason, Happening};

/// What a client says. Fields we do not know are ignored.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Said {
    Sender {},
    Receiver {},
    CreateOffer {
        #[serde(default)]
        sdp: Value,
    },
    CreateAnswer {
        #[serde(default)]
        sdp: Value,
    },
    IceCandidate {
        #[serde(default)]
        candidate: Value,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Sender,
    Receiver,
}

impl Role {
    /// As the client says it.
    fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
        }
    }
}

/// See the module. A pair lives in the room that its address names, or in the one without name.
#[derive(Debug)]
pub struct P2p {
    max_pairs: usize,
    sockets: BTreeMap<SocketId, Place>,
    pairs: BTreeMap<Option<RoomId>, Pair>,
    news: News,
}

#[derive(Debug)]
struct Place {
    caller: Caller,
    role: Option<Role>,
}

#[derive(Debug, Default)]
struct Pair {
    sender: Option<SocketId>,
    receiver: Option<SocketId>,
}

impl Pair {
    fn side(&mut self, role: Role) -> &mut Option<SocketId> {
        match role {
            Role::Sender => &mut self.sender,
            Role::Receiver => &mut self.receiver,
        }
    }
}

impl P2p {
    /// Nobody.
    #[must_use]
    pub fn new(options: &RoomOptions) -> Self {
        Self {
            max_pairs: options.max_rooms,
            sockets: BTreeMap::new(),
            pairs: BTreeMap::new(),
            news: News::new(DialectName::P2p),
        }
    }

    fn take_role(&mut self, socket: SocketId, role: Role) -> Result<Vec<Output>, Refusal> {
        let caller = &self.sockets[&socket].caller;
        caller.check_join(caller.room.as_ref())?;
        let room = caller.room.clone();
        if !self.pairs.contains_key(&room) && self.pairs.len() >= self.max_pairs {
            return Err(Refusal::TooManyRooms);
        }
        self.give_up_role(socket);
        let name = room.as_ref().map_or("", RoomId::as_str).to_owned();
        if !self.pairs.contains_key(&room) {
            self.news.started(&name);
        }
        let pair = self.pairs.entry(room).or_default();
        let replaced = pair.side(role).replace(socket);
        if replaced.is_some() {
            self.news.left(&name, role.name());
        }
        self.news.joined(&name, role.name());
        if let Some(place) = self.sockets.get_mut(&socket) {
            place.role = Some(role);
        }
        let Some(replaced) = replaced else {
            return Ok(Vec::new());
        };
        self.sockets.remove(&replaced);
        Ok(vec![Output::Replaced(replaced)])
    }

    fn give_up_role(&mut self, socket: SocketId) {
        let Some(place) = self.sockets.get_mut(&socket) else {
            return;
        };
        let (Some(role), Some(pair)) = (place.role.take(), self.pairs.get_mut(&place.caller.room))
        else {
            return;
        };
        *pair.side(role) = None;
        let name = place.caller.room.as_ref().map_or("", RoomId::as_str);
        self.news.left(name, role.name());
        if pair.sender.is_none() && pair.receiver.is_none() {
            self.news.ended(name, EndReason::Empty);
            self.pairs.remove(&place.caller.room);
        }
    }

    /// Passes a message to the other side; only what has the role for it is heard.
    fn pass(&self, socket: SocketId, role: Role, message: Value) -> Result<Vec<Output>, Refusal> {
        let place = &self.sockets[&socket];
        if place.role != Some(role) {
            return Err(Refusal::NotJoined);
        }
        let pair = &self.pairs[&place.caller.room];
        let other = match role {
            Role::Sender => pair.receiver,
            Role::Receiver => pair.sender,
        };
        let other = other.ok_or(Refusal::NoSuchParticipant)?;
        Ok(vec![Output::Tell(vec![other], message)])
    }
}

impl Dialect for P2p {
    fn handle_opened(&mut self, socket: SocketId, caller: Caller) -> Vec<Output> {
        let greeting = json!({"type": "connected", "iceServers": caller.ice_servers});
        let role = None;
        self.sockets.insert(socket, Place { caller, role });
        vec![Output::Tell(vec![socket], greeting)]
    }

    fn handle_text(&mut self, socket: SocketId, text: &str) -> Result<Vec<Output>, Refusal> {
        let Some(place) = self.sockets.get(&socket) else {
            return Ok(Vec::new());
        };
        match parse(text)? {
            Said::Sender {} => self.take_role(socket, Role::Sender),
            Said::Receiver {} => self.take_role(socket, Role::Receiver),
            Said::CreateOffer { sdp } | Said::CreateAnswer { sdp } if !is_description(&sdp) => {
                Err(Refusal::BadMessage)
            }
            Said::CreateOffer { sdp } => {
                let offer = json!({"type": "createOffer", "sdp": sdp});
                self.pass(socket, Role::Sender, offer)
            }
            Said::CreateAnswer { sdp } => {
                let answer = json!({"type": "createAnswer", "sdp": sdp});
                self.pass(socket, Role::Receiver, answer)
            }
            Said::IceCandidate { candidate } => {
                let role = place.role.ok_or(Refusal::NotJoined)?;
                let message = json!({"type": "iceCandidate", "candidate": candidate});
                self.pass(socket, role, message)
            }
            Said::Unknown => Err(Refusal::UnknownType),
        }
    }

    fn handle_gone(&mut self, socket: SocketId) -> Vec<Output> {
        self.give_up_role(socket);
        self.sockets.remove(&socket);
        Vec::new()
    }

    fn poll_happening(&mut self) -> Option<Happening> {
        self.news.poll()
    }

    fn meetings(&self) -> usize {
        self.pairs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::dialect::stage::{Stage, small};

    fn pair() -> Stage<P2p> {
        let mut stage = Stage::new(P2p::new(&small()));
        stage.open(1, None);
        stage.open(2, None);
        stage.say(1, &json!({"type": "sender"}));
        stage.say(2, &json!({"type": "receiver"}));
        stage
    }

    #[test]
    fn the_sender_offers_the_receiver_answers_and_both_send_candidates() {
        let mut stage = pair();
        let offer = json!({"type": "createOffer", "sdp": {"type": "offer", "sdp": "v=0"}});
        assert_eq!(stage.say(1, &offer), [(2, offer)]);
        let answer = json!({"type": "createAnswer", "sdp": {"type": "answer", "sdp": "v=0"}});
        assert_eq!(stage.say(2, &answer), [(1, answer)]);
        let candidate = json!({"type": "iceCandidate", "candidate": {"candidate": "c"}});
        assert_eq!(stage.say(1, &candidate), [(2, candidate.clone())]);
        assert_eq!(stage.say(2, &candidate), [(1, candidate)]);
    }

    #[test]
    fn only_the_sender_offers_and_only_the_receiver_answers() {
        let mut stage = pair();
        let offer = json!({"type": "createOffer", "sdp": "v=0"});
        let answer = json!({"type": "createAnswer", "sdp": "v=0"});
        assert_eq!(stage.refused(2, &offer), Refusal::NotJoined);
        assert_eq!(stage.refused(1, &answer), Refusal::NotJoined);
        stage.open(3, None);
        for message in [offer, answer, json!({"type": "iceCandidate"})] {
            assert_eq!(stage.refused(3, &message), Refusal::NotJoined);
        }
    }

    #[test]
    fn a_new_receiver_takes_the_place_of_the_old_one() {
        let mut stage = pair();
        stage.open(3, None);
        let told = stage.say(3, &json!({"type": "receiver"}));
        assert_eq!(told, [(2, json!("replaced"))]);
        let offer = json!({"type": "createOffer", "sdp": "v=0"});
        assert_eq!(stage.say(1, &offer)[0].0, 3);
        stage.leave(3);
        assert_eq!(stage.refused(1, &offer), Refusal::NoSuchParticipant);
    }

    #[test]
    fn pairs_of_different_rooms_do_not_hear_each_other() {
        let mut stage = pair();
        let room = RoomId::parse("other").unwrap();
        let caller = Caller {
            room: Some(room),
            ..Caller::default()
        };
        stage.dialect.handle_opened(SocketId(3), caller);
        assert_eq!(stage.say(3, &json!({"type": "sender"})), []);
        let offer = json!({"type": "createOffer", "sdp": "v=0"});
        assert_eq!(stage.refused(3, &offer), Refusal::NoSuchParticipant);
    }
}
