//! `/ws/webrtc`: rooms whose members are told who comes and goes, and address one another by
//! user name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::signal::dialect::rooms::Rooms;
use crate::signal::dialect::{Caller, Dialect, Name, Output, Refusal, is_description};
use crate::signal::dialect::{parse, parse_room};
use crate::signal::directory::{RoomOptions, SocketId};
use crate::signal::happening::{DialectName, Happening};
use crate::signal::numbers::PeerNumbers;

/// What a client says. Fields we do not know are ignored.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
enum Said {
    Join {
        room_id: String,
        user_id: Option<String>,
    },
    Leave {},
    Offer(Passed),
    Answer(Passed),
    IceCandidate(Passed),
    #[serde(other)]
    Unknown,
}

/// What is for another member.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Passed {
    target_user_id: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    timestamp: Value,
}

/// See the module.
#[derive(Debug)]
pub struct Webrtc {
    rooms: Rooms,
    members: BTreeMap<SocketId, Member>,
    numbers: PeerNumbers,
}

#[derive(Debug)]
struct Member {
    /// Where this has a name, it can have no other.
    caller: Caller,
    /// Who it is in its room.
    name: Name,
}

impl Webrtc {
    /// Nobody.
    #[must_use]
    pub fn new(options: &RoomOptions) -> Self {
        Self {
            rooms: Rooms::new(DialectName::Webrtc, options),
            members: BTreeMap::new(),
            numbers: PeerNumbers::default(),
        }
    }

    fn join(
        &mut self,
        socket: SocketId,
        room: &str,
        said: Option<&str>,
    ) -> Result<Vec<Output>, Refusal> {
        let room = parse_room(room)?;
        let said = said.map(|name| Name::parse(name).ok_or(Refusal::BadMessage));
        let said = said.transpose()?;
        let Some(member) = self.members.get(&socket) else {
            return Ok(Vec::new());
        };
        member.caller.check_join(Some(&room))?;
        let name = member
            .caller
            .name
            .clone()
            .or(said)
            .unwrap_or(member.name.clone());
        let namesake = self
            .named(self.rooms.members(&room), &name)
            .filter(|namesake| *namesake != socket);
        if namesake.is_none() {
            self.rooms.check(socket, &room)?;
        }
        let mut outputs = self.leave(socket);
        if let Some(namesake) = namesake {
            outputs.extend(self.handle_gone(namesake));
            outputs.push(Output::Replaced(namesake));
        }
        let others = self.rooms.members(&room).to_vec();
        let names: Vec<_> = others
            .iter()
            .map(|other| &self.members[other].name)
            .collect();
        let joined = json!({
            "type": "joined", "roomId": room.as_str(), "userId": name, "participants": names,
        });
        outputs.push(Output::Tell(vec![socket], joined));
        let news = json!({"type": "user-joined", "roomId": room.as_str(), "userId": name});
        outputs.push(Output::Tell(others, news));
        self.rooms.enter(socket, room, name.as_str());
        if let Some(member) = self.members.get_mut(&socket) {
            member.name = name;
        }
        Ok(outputs)
    }

    fn leave(&mut self, socket: SocketId) -> Vec<Output> {
        let Some((room, left)) = self.rooms.leave(socket) else {
            return Vec::new();
        };
        let name = &self.members[&socket].name;
        let news = json!({"type": "user-left", "roomId": room.as_str(), "userId": name});
        vec![Output::Tell(left, news)]
    }

    fn pass(
        &self,
        socket: SocketId,
        kind: &str,
        passed: Passed,
        is_candidate: bool,
    ) -> Result<Vec<Output>, Refusal> {
        let room = self.rooms.room_of(socket).ok_or(Refusal::NotJoined)?;
        if !is_candidate && !is_description(&passed.data) {
            return Err(Refusal::BadMessage);
        }
        let target = Name::parse(&passed.target_user_id)
            .and_then(|name| self.named(self.rooms.members(room), &name))
            .ok_or(Refusal::NoSuchParticipant)?;
        let message = json!({
            "type": kind,
            "roomId": room.as_str(),
            "userId": self.members[&socket].name,
            "targetUserId": passed.target_user_id,
            "data": passed.data,
            "timestamp": passed.timestamp,
        });
        Ok(vec![Output::Tell(vec![target], message)])
    }

    fn named(&self, sockets: &[SocketId], name: &Name) -> Option<SocketId> {
        let mut sockets = sockets.iter().copied();
        sockets.find(|socket| self.members[socket].name == *name)
    }
}

impl Dialect for Webrtc {
    fn handle_opened(&mut self, socket: SocketId, caller: Caller) -> Vec<Output> {
        let drawn = self.numbers.draw().to_string();
        let drawn = Name::parse(&drawn).expect("a drawn name is short");
        let name = caller.name.clone().unwrap_or(drawn);
        let greeting = json!({
            "type": "connected", "userId": name, "iceServers": caller.ice_servers,
        });
        self.members.insert(socket, Member { caller, name });
        vec![Output::Tell(vec![socket], greeting)]
    }

    fn handle_text(&mut self, socket: SocketId, text: &str) -> Result<Vec<Output>, Refusal> {
        if !self.members.contains_key(&socket) {
            return Ok(Vec::new());
        }
        match parse(text)? {
            Said::Join { room_id, user_id } => self.join(socket, &room_id, user_id.as_deref()),
            Said::Leave {} => Ok(self.leave(socket)),
            Said::Offer(passed) => self.pass(socket, "offer", passed, false),
            Said::Answer(passed) => self.pass(socket, "answer", passed, false),
            Said::IceCandidate(passed) => self.pass(socket, "ice-candidate", passed, true),
            Said::Unknown => Err(Refusal::UnknownType),
        }
    }

    fn handle_gone(&mut self, socket: SocketId) -> Vec<Output> {
        let outputs = self.leave(socket);
        self.members.remove(&socket);
        outputs
    }

    fn poll_happening(&mut self) -> Option<Happening> {
        self.rooms.poll_happening()
    }

    fn meetings(&self) -> usize {
        self.rooms.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::dialect::stage::{Stage, small, types};

    fn joined(names: &[&str]) -> Stage<Webrtc> {
        let mut stage = Stage::new(Webrtc::new(&small()));
        for (number, name) in names.iter().enumerate() {
            let socket = number as u64 + 1;
            stage.open(socket, None);
            stage.say(
                socket,
                &json!({"type": "join", "roomId": "r", "userId": name}),
            );
        }
        stage
    }

    #[test]
    fn whoever_joins_is_told_of_the_others_and_they_of_it() {
        let mut stage = joined(&["ann", "bob"]);
        stage.open(3, None);
        let told = stage.say(3, &json!({"type": "join", "roomId": "r", "userId": "cid"}));
        let news = json!({"type": "user-joined", "roomId": "r", "userId": "cid"});
        let joined = json!({
            "type": "joined", "roomId": "r", "userId": "cid", "participants": ["ann", "bob"],
        });
        assert_eq!(told, [(3, joined), (1, news.clone()), (2, news)]);
        let told = stage.leave(1);
        assert_eq!(types(&told)[&2], ["user-left"]);
        let told = stage.say(2, &json!({"type": "leave"}));
        assert_eq!(
            told,
            [(
                3,
                json!({"type": "user-left", "roomId": "r", "userId": "bob"})
            )]
        );
    }

    #[test]
    fn what_is_for_another_member_comes_under_the_senders_own_name() {
        let mut stage = joined(&["ann", "bob"]);
        let told = stage.say(
            1,
            &json!({
                "type": "offer", "roomId": "x", "userId": "bob", "targetUserId": "bob",
                "data": {"type": "offer", "sdp": "v=0"}, "timestamp": 5,
            }),
        );
        let offer = json!({
            "type": "offer", "roomId": "r", "userId": "ann", "targetUserId": "bob",
            "data": {"type": "offer", "sdp": "v=0"}, "timestamp": 5,
        });
        assert_eq!(told, [(2, offer)]);
        let nobody = json!({
            "type": "answer", "targetUserId": "cid", "data": {"type": "answer", "sdp": "v=0"},
        });
        assert_eq!(stage.refused(1, &nobody), Refusal::NoSuchParticipant);
        let empty = json!({"type": "offer", "targetUserId": "bob", "data": null});
        assert_eq!(stage.refused(1, &empty), Refusal::BadMessage);
    }

    #[test]
    fn nobody_is_reached_in_another_room() {
        let mut stage = joined(&["ann"]);
        stage.open(2, None);
        let candidate = json!({"type": "ice-candidate", "targetUserId": "ann", "data": {}});
        assert_eq!(stage.refused(2, &candidate), Refusal::NotJoined);
        stage.say(
            2,
            &json!({"type": "join", "roomId": "other", "userId": "bob"}),
        );
        assert_eq!(stage.refused(2, &candidate), Refusal::NoSuchParticipant);
    }

    #[test]
    fn a_token_outranks_what_a_client_says_of_itself() {
        let mut stage = joined(&["ann"]);
        stage.open(2, Some("eve"));
        let told = stage.say(2, &json!({"type": "join", "roomId": "r", "userId": "ann"}));
        assert_eq!(told[0].1["userId"], "eve");
        assert_eq!(told[1].1["userId"], "eve");
    }

    #[test]
    fn a_user_who_joins_again_takes_its_own_place_even_in_a_full_room() {
        let mut stage = joined(&["ann", "bob", "cid"]);
        stage.open(4, None);
        let join = |name| json!({"type": "join", "roomId": "r", "userId": name});
        assert_eq!(stage.refused(4, &join("dan")), Refusal::RoomFull);
        let told = stage.say(4, &join("ann"));
        assert_eq!(types(&told)[&1], ["replaced"]);
        assert_eq!(types(&told)[&2], ["user-left", "user-joined"]);
        assert_eq!(told[3].1["participants"], json!(["bob", "cid"]));
    }
}
