//! `/ws/call`: users ring one another; a call is initiated, answered, rejected and ended.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::signal::dialect::news::News;
use crate::signal::dialect::{Caller, Dialect, MAX_CALL_ID_BYTES, Name, Output, Refusal};
use crate::signal::dialect::{is_description, parse};
use crate::signal::directory::{RoomOptions, SocketId};
use crate::signal::happening::{DialectName, EndReason, Happening};
use crate::signal::numbers::PeerNumbers;

/// Calls that one user may be in. One more is refused with `too-many-rooms`.
const MAX_CALLS_OF_USER: usize = 16;

/// What a client says. Fields we do not know are ignored.
#[derive(Debug, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
enum Said {
    CallInitiate {
        call_id: String,
        recipient_ids: Vec<String>,
        call_type: CallType,
    },
    CallAnswer {
        call_id: String,
    },
    CallReject {
        call_id: String,
    },
    CallEnd {
        call_id: String,
    },
    Offer(Passed),
    Answer(Passed),
    Renegotiate(Passed),
    IceCandidate(Passed),
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum CallType {
    Audio,
    Video,
}

/// What is for another user. The offer of a call comes before the call is initiated.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Passed {
    recipient_id: String,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    sdp: Value,
    #[serde(default)]
    candidate: Value,
}

/// See the module.
#[derive(Debug)]
pub struct Call {
    max_calls: usize,
    max_members: usize,
    users: BTreeMap<Name, User>,
    names: BTreeMap<SocketId, Name>,
    calls: BTreeMap<Box<str>, Ring>,
    numbers: PeerNumbers,
    news: News,
}

#[derive(Debug)]
struct User {
    socket: SocketId,
    calls: BTreeSet<Box<str>>,
}

/// One call. It has at least two members.
#[derive(Debug)]
struct Ring {
    initiator: Name,
    members: BTreeMap<Name, Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Pending,
    Given,
}

impl Call {
    /// Nobody.
    #[must_use]
    pub fn new(options: &RoomOptions) -> Self {
        Self {
            max_calls: options.max_rooms,
            max_members: options.max_participants,
            users: BTreeMap::new(),
            names: BTreeMap::new(),
            calls: BTreeMap::new(),
            numbers: PeerNumbers::default(),
            news: News::new(DialectName::Call),
        }
    }

    fn initiate(
        &mut self,
        name: &Name,
        id: &str,
        recipients: &[String],
        call_type: CallType,
    ) -> Result<Vec<Output>, Refusal> {
        if !(1..=MAX_CALL_ID_BYTES).contains(&id.len()) {
            return Err(Refusal::BadMessage);
        }
        let recipients = recipients.iter().filter_map(|name| Name::parse(name));
        let mut rung: BTreeSet<Name> = recipients
            .filter(|to| to != name && self.users.contains_key(to))
            .collect();
        if rung.is_empty() {
            return Err(Refusal::NoSuchParticipant);
        }
        let call = self.calls.get(id);
        if call.is_some_and(|call| call.initiator != *name) {
            return Err(Refusal::CallExists);
        }
        if call.is_none() && (self.calls.len() >= self.max_calls || self.is_busy(name)) {
            return Err(Refusal::TooManyRooms);
        }
        if let Some(call) = call {
            rung.retain(|to| !call.members.contains_key(to));
        }
        // Whoever is in too many calls is not rung, like one who is not there.
        rung.retain(|to| !self.is_busy(to));
        let members = call.map_or(1, |call| call.members.len()) + rung.len();
        if members > self.max_members {
            return Err(Refusal::RoomFull);
        }
        if members == 1 {
            return Err(Refusal::NoSuchParticipant);
        }
        if call.is_none() {
            self.news.started(id);
            self.news.joined(id, name.as_str());
        }
        let call = self.calls.entry(id.into()).or_insert_with(|| Ring {
            initiator: name.clone(),
            members: BTreeMap::from([(name.clone(), Answer::Given)]),
        });
        let new = rung.iter().map(|to| (to.clone(), Answer::Pending));
        call.members.extend(new);
        for member in rung.iter().chain([name]) {
            if let Some(user) = self.users.get_mut(member) {
                user.calls.insert(id.into());
            }
        }
        let message = json!({
            "type": "incoming-call", "callId": id, "initiatorId": name, "callType": call_type,
        });
        Ok(vec![Output::Tell(self.sockets(rung.iter()), message)])
    }

    fn is_busy(&self, name: &Name) -> bool {
        let user = self.users.get(name);
        user.is_some_and(|user| user.calls.len() >= MAX_CALLS_OF_USER)
    }

    fn answer(&mut self, name: &Name, id: &str) -> Result<Vec<Output>, Refusal> {
        let call = self.calls.get_mut(id).ok_or(Refusal::NoSuchCall)?;
        let answer = call.members.get_mut(name).ok_or(Refusal::NoSuchCall)?;
        if *answer == Answer::Given {
            return Ok(Vec::new());
        }
        *answer = Answer::Given;
        self.news.joined(id, name.as_str());
        let told = self.sockets([&self.calls[id].initiator]);
        let message = json!({"type": "call-answered", "callId": id, "userId": name});
        Ok(vec![Output::Tell(told, message)])
    }

    /// One member steps out; a call that nobody else is in is over.
    fn reject(&mut self, name: &Name, id: &str) -> Vec<Output> {
        let Some(call) = self.calls.get_mut(id) else {
            return Vec::new();
        };
        if call.initiator == *name {
            return self.end(name, id, EndReason::Ended);
        }
        match call.members.remove(name) {
            Some(Answer::Given) => self.news.left(id, name.as_str()),
            Some(Answer::Pending) => {}
            None => return Vec::new(),
        }
        if let Some(user) = self.users.get_mut(name) {
            user.calls.remove(id);
        }
        let call = &self.calls[id];
        let told = self.sockets([&call.initiator]);
        let message = json!({"type": "call-rejected", "callId": id, "userId": name});
        if call.members.len() == 1 {
            self.forget(id, EndReason::Rejected);
        }
        vec![Output::Tell(told, message)]
    }

    fn end(&mut self, name: &Name, id: &str, reason: EndReason) -> Vec<Output> {
        let call = self.calls.get(id);
        if !call.is_some_and(|call| call.members.contains_key(name)) {
            return Vec::new();
        }
        let members = self.forget(id, reason);
        let told = self.sockets(members.iter().filter(|member| *member != name));
        let message = json!({"type": "call-ended", "callId": id, "endedBy": name});
        vec![Output::Tell(told, message)]
    }

    /// Takes a call away and says who was in it.
    fn forget(&mut self, id: &str, reason: EndReason) -> Vec<Name> {
        self.news.ended(id, reason);
        let members = self.calls.remove(id).map(|call| call.members);
        let members: Vec<_> = members
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        for member in &members {
            if let Some(user) = self.users.get_mut(member) {
                user.calls.remove(id);
            }
        }
        members
    }

    fn pass(&self, name: &Name, kind: &str, passed: Passed) -> Result<Vec<Output>, Refusal> {
        let (field, value) = match kind {
            "ice-candidate" => ("candidate", passed.candidate),
            _ if !is_description(&passed.sdp) => return Err(Refusal::BadMessage),
            _ => ("sdp", passed.sdp),
        };
        let id = passed.call_id.unwrap_or_default();
        if id.len() > MAX_CALL_ID_BYTES {
            return Err(Refusal::BadMessage);
        }
        let recipient = Name::parse(&passed.recipient_id).filter(|to| {
            let call = self.calls.get(&*id);
            call.is_none_or(|call| [name, to].iter().all(|who| call.members.contains_key(*who)))
        });
        let recipient = recipient.and_then(|to| self.users.get(&to));
        let recipient = recipient.ok_or(Refusal::NoSuchParticipant)?;
        let mut message = json!({"type": kind, "callId": id, "senderId": name});
        message[field] = value;
        Ok(vec![Output::Tell(vec![recipient.socket], message)])
    }

    fn sockets<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> Vec<SocketId> {
        let users = names.into_iter().filter_map(|name| self.users.get(name));
        users.map(|user| user.socket).collect()
    }
}

impl Dialect for Call {
    fn handle_opened(&mut self, socket: SocketId, caller: Caller) -> Vec<Output> {
        let name = caller.name.unwrap_or_else(|| {
            let drawn = self.numbers.draw().to_string();
            Name::parse(&drawn).expect("a drawn name is short")
        });
        let mut outputs = Vec::new();
        if let Some(older) = self.users.get(&name).map(|user| user.socket) {
            outputs.extend(self.handle_gone(older));
            outputs.push(Output::Replaced(older));
        }
        let greeting = json!({
            "type": "connected", "userId": name, "iceServers": caller.ice_servers,
        });
        outputs.push(Output::Tell(vec![socket], greeting));
        let calls = BTreeSet::new();
        self.users.insert(name.clone(), User { socket, calls });
        self.names.insert(socket, name);
        outputs
    }

    fn handle_text(&mut self, socket: SocketId, text: &str) -> Result<Vec<Output>, Refusal> {
        let Some(name) = self.names.get(&socket).cloned() else {
            return Ok(Vec::new());
        };
        // One who has just gone is still sent candidates and changes: that is no news.
        let or_nothing = |passed: Result<_, Refusal>| match passed {
            Err(Refusal::NoSuchParticipant) => Ok(Vec::new()),
            passed => passed,
        };
        match parse(text)? {
            Said::CallInitiate {
                call_id,
                recipient_ids,
                call_type,
            } => self.initiate(&name, &call_id, &recipient_ids, call_type),
            Said::CallAnswer { call_id } => self.answer(&name, &call_id),
            Said::CallReject { call_id } => Ok(self.reject(&name, &call_id)),
            Said::CallEnd { call_id } => Ok(self.end(&name, &call_id, EndReason::Ended)),
            Said::Offer(passed) => self.pass(&name, "offer", passed),
            Said::Answer(passed) => self.pass(&name, "answer", passed),
            Said::Renegotiate(passed) => or_nothing(self.pass(&name, "renegotiate", passed)),
            Said::IceCandidate(passed) => or_nothing(self.pass(&name, "ice-candidate", passed)),
            Said::Unknown => Err(Refusal::UnknownType),
        }
    }

    fn handle_gone(&mut self, socket: SocketId) -> Vec<Output> {
        let Some(name) = self.names.remove(&socket) else {
            return Vec::new();
        };
        let user = self.users.remove(&name);
        let calls = user.map(|user| user.calls).unwrap_or_default();
        let mut outputs = Vec::new();
        for id in calls {
            outputs.extend(match self.calls[&id].members[&name] {
                Answer::Pending => self.reject(&name, &id),
                Answer::Given => self.end(&name, &id, EndReason::Disconnected),
            });
        }
        outputs
    }

    fn poll_happening(&mut self) -> Option<Happening> {
        self.news.poll()
    }

    fn meetings(&self) -> usize {
        self.calls.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::dialect::stage::{Stage, small, types};

    fn users(names: &[&str]) -> Stage<Call> {
        let mut stage = Stage::new(Call::new(&small()));
        stage.open_all(names);
        stage
    }

    fn initiate(id: &str, to: &[&str]) -> Value {
        json!({"type": "call-initiate", "callId": id, "recipientIds": to, "callType": "video"})
    }

    fn about(kind: &str, id: &str) -> Value {
        json!({"type": kind, "callId": id})
    }

    #[test]
    fn a_call_is_initiated_answered_and_ended() {
        let mut stage = users(&["ann", "bob"]);
        let rung = json!({
            "type": "incoming-call", "callId": "c", "initiatorId": "ann", "callType": "video",
        });
        assert_eq!(stage.say(1, &initiate("c", &["bob"])), [(2, rung)]);
        let answered = json!({"type": "call-answered", "callId": "c", "userId": "bob"});
        assert_eq!(stage.say(2, &about("call-answer", "c")), [(1, answered)]);
        let ended = json!({"type": "call-ended", "callId": "c", "endedBy": "bob"});
        assert_eq!(stage.say(2, &about("call-end", "c")), [(1, ended)]);
        assert_eq!(stage.say(1, &about("call-end", "c")), []);
        assert_eq!(stage.dialect.meetings(), 0);
    }

    #[test]
    fn a_call_that_all_reject_is_over() {
        let mut stage = users(&["ann", "bob", "cid"]);
        stage.say(1, &initiate("c", &["bob", "cid"]));
        let rejected = json!({"type": "call-rejected", "callId": "c", "userId": "bob"});
        assert_eq!(stage.say(2, &about("call-reject", "c")), [(1, rejected)]);
        assert_eq!(stage.dialect.meetings(), 1);
        stage.say(3, &about("call-reject", "c"));
        assert_eq!(stage.dialect.meetings(), 0);
    }

    #[test]
    fn whoever_hangs_up_before_the_answer_stops_the_ringing() {
        let mut stage = users(&["ann", "bob"]);
        stage.say(1, &initiate("c", &["bob"]));
        let told = stage.say(1, &about("call-end", "c"));
        assert_eq!(types(&told)[&2], ["call-ended"]);
    }

    #[test]
    fn a_disconnect_ends_the_calls_of_the_user() {
        let mut stage = users(&["ann", "bob", "cid"]);
        stage.say(1, &initiate("one", &["bob"]));
        stage.say(3, &initiate("two", &["ann", "bob"]));
        stage.say(1, &about("call-answer", "two"));
        let told = stage.leave(1);
        assert_eq!(types(&told)[&2], ["call-ended", "call-ended"]);
        assert_eq!(types(&told)[&3], ["call-ended"]);
        // Still ringing: the others may go on.
        stage.say(3, &initiate("three", &["bob"]));
        let told = stage.leave(2);
        assert_eq!(types(&told)[&3], ["call-rejected"]);
    }

    #[test]
    fn descriptions_and_candidates_come_under_the_senders_own_name() {
        let mut stage = users(&["ann", "bob"]);
        for kind in ["offer", "answer", "renegotiate"] {
            let told = stage.say(
                1,
                &json!({
                    "type": kind, "callId": "c", "recipientId": "bob", "senderId": "x",
                    "sdp": "v=0",
                }),
            );
            let passed = json!({"type": kind, "callId": "c", "senderId": "ann", "sdp": "v=0"});
            assert_eq!(told, [(2, passed)]);
            let without = json!({"type": kind, "callId": "c", "recipientId": "bob"});
            assert_eq!(stage.refused(1, &without), Refusal::BadMessage);
        }
        let candidate = json!({
            "type": "ice-candidate", "callId": "c", "recipientId": "ann", "candidate": {"a": 1},
        });
        assert_eq!(
            stage.say(2, &candidate),
            [(
                1,
                json!({
                    "type": "ice-candidate", "callId": "c", "senderId": "bob",
                    "candidate": {"a": 1},
                })
            )]
        );
    }

    #[test]
    fn one_who_is_not_there_cannot_be_offered_to_and_its_candidates_are_no_news() {
        let mut stage = users(&["ann"]);
        let to_bob =
            |kind: &str| json!({"type": kind, "callId": "c", "recipientId": "bob", "sdp": "v=0"});
        for kind in ["offer", "answer"] {
            assert_eq!(stage.refused(1, &to_bob(kind)), Refusal::NoSuchParticipant);
        }
        for kind in ["renegotiate", "ice-candidate"] {
            assert_eq!(stage.say(1, &to_bob(kind)), []);
        }
        let call = initiate("c", &["bob", "ann"]);
        assert_eq!(stage.refused(1, &call), Refusal::NoSuchParticipant);
    }

    #[test]
    fn a_call_is_closed_to_those_who_are_not_in_it() {
        let mut stage = users(&["ann", "bob", "eve"]);
        stage.say(1, &initiate("c", &["bob"]));
        let answer = about("call-answer", "c");
        assert_eq!(stage.refused(3, &answer), Refusal::NoSuchCall);
        assert_eq!(stage.say(3, &about("call-reject", "c")), []);
        assert_eq!(stage.say(3, &about("call-end", "c")), []);
        assert_eq!(
            stage.refused(3, &initiate("c", &["bob"])),
            Refusal::CallExists
        );
        let offer = json!({"type": "offer", "callId": "c", "recipientId": "bob", "sdp": "v=0"});
        assert_eq!(stage.refused(3, &offer), Refusal::NoSuchParticipant);
        assert_eq!(stage.dialect.meetings(), 1);
    }

    #[test]
    fn calls_are_bounded_in_number_and_in_members() {
        let mut stage = users(&["ann", "bob", "cid", "dan"]);
        let all = initiate("c", &["bob", "cid", "dan"]);
        assert_eq!(stage.refused(1, &all), Refusal::RoomFull);
        stage.say(1, &initiate("c", &["bob"]));
        stage.say(1, &initiate("d", &["bob"]));
        let third = initiate("e", &["bob"]);
        assert_eq!(stage.refused(1, &third), Refusal::TooManyRooms);
        // The initiator may ring one more.
        let told = stage.say(1, &initiate("c", &["bob", "cid"]));
        assert_eq!(types(&told).into_keys().collect::<Vec<_>>(), [3]);
        let mut options = small();
        options.max_rooms = 100;
        let mut stage = Stage::new(Call::new(&options));
        stage.open_all(&["ann", "bob"]);
        for number in 0..MAX_CALLS_OF_USER {
            stage.say(1, &initiate(&number.to_string(), &["bob"]));
        }
        let refused = stage.refused(1, &initiate("more", &["bob"]));
        assert_eq!(refused, Refusal::TooManyRooms);
    }

    #[test]
    fn a_user_who_connects_again_replaces_its_older_socket() {
        let mut stage = users(&["ann", "bob"]);
        stage.say(1, &initiate("c", &["bob"]));
        stage.say(2, &about("call-answer", "c"));
        let told = stage.open(3, Some("ann"));
        assert_eq!(types(&told)[&2], ["call-ended"]);
        assert_eq!(types(&told)[&1], ["replaced"]);
        assert_eq!(types(&told)[&3], ["connected"]);
    }
}
