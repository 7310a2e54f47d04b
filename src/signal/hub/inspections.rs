//! Questions about rooms that a shard has to answer, and those who await the answer.

use std::collections::VecDeque;

use tokio::sync::oneshot::Sender;

use super::Hub;
use crate::engine::command::{Command, PeerReport};
use crate::id::RoomId;
use crate::signal::api::diagnostics::{ParticipantDiagnosis, RoomDiagnosis};
use crate::signal::problem::{Code, Problem};

/// Questions that wait for a shard. One more is refused with `server-busy`.
const MAX_WAITING: usize = 64;

/// What is waited for.
#[derive(Debug, Default)]
pub(super) struct Inspections(VecDeque<(RoomId, Reply)>);

/// Where a diagnosis is awaited.
pub type Reply = Sender<Result<RoomDiagnosis, Problem>>;

impl Hub {
    /// Whoever asked and did not wait for the answer needs none.
    pub(super) fn inspect(&mut self, room: RoomId, reply: Reply) {
        self.inspections.0.retain(|(_, reply)| !reply.is_closed());
        let Some(shard) = self.directory.shard(&room) else {
            let text = "there is no such room";
            return drop(reply.send(Err(Problem::new(Code::NoSuchRoom, text))));
        };
        let command = Command::Inspect { room: room.clone() };
        let is_full = self.inspections.0.len() >= MAX_WAITING;
        if is_full || self.shards.send(shard, command).is_err() {
            let text = "the server is busy; try again soon";
            return drop(reply.send(Err(Problem::new(Code::ServerBusy, text))));
        }
        self.inspections.0.push_back((room, reply));
    }

    /// Takes in what a shard answered.
    pub(super) fn handle_inspected(&mut self, room: &RoomId, reports: &[PeerReport]) {
        let place = self.inspections.0.iter().position(|(of, _)| of == room);
        let Some((_, reply)) = place.and_then(|place| self.inspections.0.remove(place)) else {
            return;
        };
        let members = self.directory.members(room).iter();
        let participants = members.map(|member| {
            let client = self.clients.get(&member.socket);
            let has_socket = client.is_some_and(|client| client.outbox.is_some());
            let report = reports.iter().find(|report| report.peer == member.peer);
            ParticipantDiagnosis::new(member, has_socket, report)
        });
        let participants = participants.collect();
        drop(reply.send(Ok(RoomDiagnosis { participants })));
    }
}
