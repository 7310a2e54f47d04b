//! Plays conversations against a dialect, written down or drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::signal::dialect::{Caller, Dialect, Name, Output, Refusal};
use crate::signal::directory::{RoomOptions, SocketId};

/// A dialect and the sockets that are open to it.
pub(super) struct Stage<D> {
    pub(super) dialect: D,
    open: BTreeSet<SocketId>,
}

/// What each socket was told, in order.
pub(super) type Told = Vec<(u64, Value)>;

/// Two rooms of three.
pub(super) fn small() -> RoomOptions {
    RoomOptions {
        max_rooms: 2,
        max_participants: 3,
        ..RoomOptions::default()
    }
}

impl<D: Dialect> Stage<D> {
    pub(super) fn new(dialect: D) -> Self {
        let open = BTreeSet::new();
        Self { dialect, open }
    }

    /// Opens a socket; what it and others are told.
    pub(super) fn open(&mut self, socket: u64, name: Option<&str>) -> Told {
        self.open.insert(SocketId(socket));
        let caller = Caller {
            name: name.map(|name| Name::parse(name).expect("a name")),
            ..Caller::default()
        };
        let outputs = self.dialect.handle_opened(SocketId(socket), caller);
        self.told(outputs)
    }

    /// Opens sockets 1, 2, .. of these names.
    pub(super) fn open_all(&mut self, names: &[&str]) {
        for (number, name) in names.iter().enumerate() {
            self.open(number as u64 + 1, Some(name));
        }
    }

    pub(super) fn say(&mut self, socket: u64, message: &Value) -> Told {
        self.say_text(socket, &message.to_string())
            .unwrap_or_else(|refusal| panic!("{message} is refused: {refusal:?}"))
    }

    pub(super) fn refused(&mut self, socket: u64, message: &Value) -> Refusal {
        self.say_text(socket, &message.to_string())
            .expect_err("it must be refused")
    }

    pub(super) fn say_text(&mut self, socket: u64, text: &str) -> Result<Told, Refusal> {
        let outputs = self.dialect.handle_text(SocketId(socket), text)?;
        Ok(self.told(outputs))
    }

    pub(super) fn leave(&mut self, socket: u64) -> Told {
        self.open.remove(&SocketId(socket));
        let outputs = self.dialect.handle_gone(SocketId(socket));
        self.told(outputs)
    }

    /// A socket that was replaced is told so; nobody else who is not there is told anything.
    fn told(&mut self, outputs: Vec<Output>) -> Told {
        let mut told = Vec::new();
        for output in outputs {
            match output {
                Output::Tell(sockets, message) => {
                    for socket in sockets {
                        assert!(self.open.contains(&socket), "{socket:?} is gone: {message}");
                        told.push((socket.0, message.clone()));
                    }
                }
                Output::Replaced(socket) => {
                    assert!(self.open.remove(&socket), "{socket:?} was closed before");
                    told.push((socket.0, json!("replaced")));
                }
            }
        }
        told
    }
}

/// Of what each socket was told, the names of the messages.
pub(super) fn types(told: &Told) -> BTreeMap<u64, Vec<&str>> {
    let mut types: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (socket, message) in told {
        let kind = message["type"].as_str().or(message.as_str());
        types.entry(*socket).or_default().extend(kind);
    }
    types
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::dialect::call::Call;
    use crate::signal::dialect::mesh::Mesh;
    use crate::signal::dialect::p2p::P2p;
    use crate::signal::dialect::webrtc::Webrtc;

    #[derive(Debug, Clone)]
    enum Step {
        Open(u64, Option<&'static str>),
        Say(u64, String),
        Leave(u64),
    }

    const TYPES: [&str; 20] = [
        "join",
        "leave",
        "offer",
        "answer",
        "ice-candidate",
        "renegotiate",
        "call-initiate",
        "call-initiate",
        "call-answer",
        "call-reject",
        "call-end",
        "sender",
        "receiver",
        "createOffer",
        "createAnswer",
        "iceCandidate",
        "ping",
        "connected",
        "join",
        "",
    ];

    /// A message with some fields of all dialects, well formed or not.
    fn message() -> impl Strategy<Value = String> {
        let name = || {
            let good = proptest::sample::select(vec!["ann", "bob", "cid", "dan"]);
            prop_oneof![
                4 => good.prop_map(|name| json!(name)),
                1 => Just(json!("")),
                1 => Just(json!(7)),
            ]
        };
        let field = (
            proptest::sample::select(vec![
                "roomId",
                "userId",
                "targetUserId",
                "to",
                "callId",
                "recipientId",
                "callType",
                "from",
            ]),
            name(),
        );
        let fields = proptest::collection::vec(field, 0..8);
        let names = proptest::collection::vec(name(), 0..4);
        (
            proptest::sample::select(TYPES.to_vec()),
            fields,
            names,
            any::<u8>(),
        )
            .prop_map(|(kind, fields, names, bits)| {
                let mut message = json!({
                    "type": kind, "roomId": "a", "userId": "ann", "targetUserId": "bob",
                    "callId": "c", "recipientId": "bob", "recipientIds": names, "callType": "video",
                });
                for (field, value) in fields {
                    message[field] = value;
                }
                if bits & 3 != 0 {
                    message["sdp"] = json!("v=0");
                    message["data"] = json!({"type": "offer", "sdp": "v=0"});
                }
                let text = message.to_string();
                let cut = if bits & 0xf0 == 0 {
                    text.len() / 2
                } else {
                    text.len()
                };
                text[..cut].to_owned()
            })
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let name = proptest::sample::select(vec![None, Some("ann"), Some("bob"), Some("cid")]);
        let socket = 1..6u64;
        let step = prop_oneof![
            2 => (socket.clone(), name).prop_map(|(socket, name)| Step::Open(socket, name)),
            8 => (socket.clone(), message()).prop_map(|(socket, text)| Step::Say(socket, text)),
            1 => socket.prop_map(Step::Leave),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// Whatever is said, in whatever order: nobody who is gone is told anything, a refusal changes
    /// nothing, the limits hold, and when all have left nothing is left of them.
    fn play<D: Dialect>(dialect: D, steps: &[Step]) {
        let mut stage = Stage::new(dialect);
        let mut next = 100;
        // The number of a step, and the socket it has become.
        let mut sockets = BTreeMap::new();
        for step in steps {
            match step {
                Step::Open(number, name) => {
                    next += 1;
                    if let Some(old) = sockets.insert(*number, next) {
                        stage.leave(old);
                    }
                    let told = stage.open(next, *name);
                    let greeted = told.iter().filter(|(socket, _)| *socket == next);
                    assert_eq!(greeted.count(), 1);
                }
                Step::Say(number, text) => {
                    let Some(socket) = sockets.get(number) else {
                        continue;
                    };
                    let before = stage.dialect.meetings();
                    if stage.say_text(*socket, text).is_err() {
                        assert_eq!(stage.dialect.meetings(), before);
                    }
                }
                Step::Leave(number) => {
                    if let Some(socket) = sockets.remove(number) {
                        stage.leave(socket);
                    }
                }
            }
            assert!(stage.dialect.meetings() <= small().max_rooms);
        }
        for (_, socket) in sockets {
            stage.leave(socket);
        }
        assert_eq!(stage.dialect.meetings(), 0);
    }

    proptest! {
        #[test]
        fn any_messages_in_any_order_leave_everyone_able_to_leave(steps in steps()) {
            play(Webrtc::new(&small()), &steps);
            play(Call::new(&small()), &steps);
            play(P2p::new(&small()), &steps);
            play(Mesh::new(&small()), &steps);
        }

        #[test]
        fn no_text_brings_a_dialect_down(text in "\\PC{0,200}") {
            let mut stage = Stage::new(Call::new(&small()));
            stage.open_all(&["ann"]);
            prop_assert!(stage.say_text(1, &text).is_err());
        }
    }
}
