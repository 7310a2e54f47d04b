//! `/ws/mesh`: rooms whose members are named by the server, and address one another or all.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::id::PeerId;
use crate::signal::dialect::rooms::Rooms;
use crate::signal::dialect::{Caller, Dialect, Output, Refusal, is_description};
use crate::signal::dialect::{parse, parse_room};
use crate::signal::directory::{RoomOptions, SocketId};
use crate::signal::happening::{DialectName, Happening};
use crate::signal::numbers::PeerNumbers;

/// The types of message, and the fields the server itself looks at.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
enum Said {
    Join {
        room_id: String,
    },
    Leave {},
    Offer(Passed),
    Answer(Passed),
    IceCandidate(Passed),
    #[serde(other)]
    Unknown,
}

/// What is for one or all others. Every field is passed on, the unknown ones too.
#[derive(Debug, Deserialize)]
struct Passed {
    #[serde(default)]
    to: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// See the module.
#[derive(Debug)]
pub struct Mesh {
    rooms: Rooms,
    names: BTreeMap<SocketId, PeerId>,
    callers: BTreeMap<SocketId, Caller>,
    sockets: BTreeMap<PeerId, SocketId>,
    numbers: PeerNumbers,
}

impl Mesh {
    /// Nobody.
    #[must_use]
    pub fn new(options: &RoomOptions) -> Self {
        Self {
            rooms: Rooms::new(DialectName::Mesh, options),
            names: BTreeMap::new(),
            callers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            numbers: PeerNumbers::default(),
        }
    }

    fn join(&mut self, socket: SocketId, room: &str) -> Result<Vec<Output>, Refusal> {
        let room = parse_room(room)?;
        self.callers[&socket].check_join(Some(&room))?;
        self.rooms.check(socket, &room)?;
        let mut outputs = self.leave(socket);
        let joined = |name: PeerId| json!({"type": "peer-joined", "peerId": name.to_string()});
        let others = self.rooms.members(&room).to_vec();
        for other in &others {
            outputs.push(Output::Tell(vec![socket], joined(self.names[other])));
        }
        outputs.push(Output::Tell(others, joined(self.names[&socket])));
        let name = self.names[&socket].to_string();
        self.rooms.enter(socket, room, &name);
        Ok(outputs)
    }

    fn leave(&mut self, socket: SocketId) -> Vec<Output> {
        let Some((_, left)) = self.rooms.leave(socket) else {
            return Vec::new();
        };
        let name = self.names[&socket].to_string();
        let news = json!({"type": "peer-left", "peerId": name});
        vec![Output::Tell(left, news)]
    }

    fn pass(
        &self,
        socket: SocketId,
        kind: &str,
        passed: Passed,
        description: Option<&str>,
    ) -> Result<Vec<Output>, Refusal> {
        let Passed { to, mut rest } = passed;
        let room = self.rooms.room_of(socket).ok_or(Refusal::NotJoined)?;
        if description.is_some_and(|field| !rest.get(field).is_some_and(is_description)) {
            return Err(Refusal::BadMessage);
        }
        let targets = match &to {
            None => {
                let others = self.rooms.members(room).iter().copied();
                others.filter(|other| *other != socket).collect()
            }
            Some(to) => {
                let target = PeerId::parse(to).and_then(|to| self.sockets.get(&to).copied());
                let target = target.filter(|target| self.rooms.room_of(*target) == Some(room));
                vec![target.ok_or(Refusal::NoSuchParticipant)?]
            }
        };
        rest.insert("type".into(), kind.into());
        rest.insert("from".into(), self.names[&socket].to_string().into());
        rest.extend(to.map(|to| ("to".into(), to.into())));
        Ok(vec![Output::Tell(targets, Value::Object(rest))])
    }
}

impl Dialect for Mesh {
    fn handle_opened(&mut self, socket: SocketId, caller: Caller) -> Vec<Output> {
        let name = loop {
            let name = self.numbers.draw();
            if !self.sockets.contains_key(&name) {
                break name;
            }
        };
        self.names.insert(socket, name);
        self.sockets.insert(name, socket);
        let greeting = json!({
            "type": "connected", "clientId": name.to_string(), "iceServers": caller.ice_servers,
        });
        self.callers.insert(socket, caller);
        vec![Output::Tell(vec![socket], greeting)]
    }

    fn handle_text(&mut self, socket: SocketId, text: &str) -> Result<Vec<Output>, Refusal> {
        if !self.names.contains_key(&socket) {
            return Ok(Vec::new());
        }
        match parse(text)? {
            Said::Join { room_id } => self.join(socket, &room_id),
            Said::Leave {} => Ok(self.leave(socket)),
            Said::Offer(passed) => self.pass(socket, "offer", passed, Some("sdp")),
            Said::Answer(passed) => self.pass(socket, "answer", passed, Some("sdp")),
            Said::IceCandidate(passed) => self.pass(socket, "ice-candidate", passed, None),
            Said::Unknown => Err(Refusal::UnknownType),
        }
    }

    fn handle_gone(&mut self, socket: SocketId) -> Vec<Output> {
        let outputs = self.leave(socket);
        self.callers.remove(&socket);
        if let Some(name) = self.names.remove(&socket) {
            self.sockets.remove(&name);
        }
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

    /// A stage with this many members of one room, and their names.
    fn joined(count: u64) -> (Stage<Mesh>, Vec<String>) {
        let mut stage = Stage::new(Mesh::new(&small()));
        let names = (1..=count).map(|socket| {
            let greeting = stage.open(socket, None).remove(0).1;
            stage.say(socket, &json!({"type": "join", "roomId": "r"}));
            greeting["clientId"].as_str().unwrap().to_owned()
        });
        let names = names.collect();
        (stage, names)
    }

    #[test]
    fn both_sides_are_told_of_each_other() {
        let (mut stage, names) = joined(2);
        let name = stage.open(3, None).remove(0).1["clientId"].clone();
        let told = stage.say(3, &json!({"type": "join", "roomId": "r"}));
        let of = |name: &Value| json!({"type": "peer-joined", "peerId": name});
        let expected = [
            (3, of(&json!(names[0]))),
            (3, of(&json!(names[1]))),
            (1, of(&name)),
            (2, of(&name)),
        ];
        assert_eq!(told, expected);
        let told = stage.say(3, &json!({"type": "leave"}));
        assert_eq!(types(&told).len(), 2);
        assert_eq!(told[0].1, json!({"type": "peer-left", "peerId": name}));
    }

    #[test]
    fn a_message_is_for_one_or_for_all_others_and_keeps_its_fields() {
        let (mut stage, names) = joined(3);
        let offer = json!({"type": "offer", "to": names[2], "from": "me", "sdp": "v=0", "x": [1]});
        let told = stage.say(1, &offer);
        let passed =
            json!({"type": "offer", "to": names[2], "from": names[0], "sdp": "v=0", "x": [1]});
        assert_eq!(told, [(3, passed)]);
        let told = stage.say(2, &json!({"type": "ice-candidate", "candidate": {"a": 1}}));
        let passed = json!({"type": "ice-candidate", "from": names[1], "candidate": {"a": 1}});
        assert_eq!(told, [(1, passed.clone()), (3, passed)]);
    }

    #[test]
    fn nobody_is_reached_in_another_room() {
        let (mut stage, names) = joined(1);
        stage.open(2, None);
        let offer = json!({"type": "offer", "to": names[0], "sdp": "v=0"});
        assert_eq!(stage.refused(2, &offer), Refusal::NotJoined);
        stage.say(2, &json!({"type": "join", "roomId": "other"}));
        assert_eq!(stage.refused(2, &offer), Refusal::NoSuchParticipant);
    }

    #[test]
    fn whoever_joins_another_room_leaves_the_first() {
        let (mut stage, _) = joined(2);
        let told = stage.say(2, &json!({"type": "join", "roomId": "other"}));
        assert_eq!(types(&told)[&1], ["peer-left"]);
        assert_eq!(stage.dialect.meetings(), 2);
        stage.open(3, None);
        let third = json!({"type": "join", "roomId": "third"});
        assert_eq!(stage.refused(3, &third), Refusal::TooManyRooms);
    }
}
