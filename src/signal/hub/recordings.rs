//! Which rooms are recorded: the hub's side of the recorder.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::Hub;
use crate::engine::command::{Command, Event};
use crate::id::{PeerId, RecordingNumber, RoomId};
use crate::record::Desk;
use crate::record::manifest::{EndReason, Manifest};
use crate::record::order::{Mode, Notice, Order, RecordingId, RecordingRequest};
use crate::signal::Now;
use crate::signal::api::view::RecordingView;
use crate::signal::directory::NoEntry;
use crate::signal::happening::Happening;
use crate::signal::message::{ServerMessage, Shown};
use crate::signal::problem::{Code, Problem};
use crate::signal::relay;
use crate::signal::session::Output;

/// What is recorded, and the way to the recorder.
#[derive(Debug)]
pub(super) struct Recordings {
    /// `None` where nothing may be recorded.
    desk: Option<Desk>,
    /// Whether every room is recorded from its beginning.
    is_auto: bool,
    /// What is recorded when nobody says.
    mode: Mode,
    /// Those that have not ended, and those whose files are being finished.
    live: BTreeMap<RecordingNumber, Live>,
    /// Those that are copied, by room.
    by_room: BTreeMap<RoomId, RecordingNumber>,
    started: u64,
}

/// A recording that goes on.
#[derive(Debug, Clone)]
struct Live {
    room: RoomId,
    id: RecordingId,
    mode: Mode,
}

impl Recordings {
    pub(super) fn new(desk: Option<Desk>, is_auto: bool, mode: Mode) -> Self {
        Self {
            desk,
            is_auto,
            mode,
            live: BTreeMap::new(),
            by_room: BTreeMap::new(),
            started: 0,
        }
    }

    /// The recorder's next notice; never, where there is no recorder.
    pub(super) async fn notice(&mut self) -> Option<Notice> {
        match &mut self.desk {
            Some(desk) => desk.notices.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Which recordings there are.
    pub(super) fn list(&self, reply: oneshot::Sender<Vec<Manifest>>) {
        match &self.desk {
            // A recorder with a full queue answers by dropping the question.
            Some(desk) => drop(desk.orders.try_send(Order::List(reply))),
            None => drop(reply.send(Vec::new())),
        }
    }

    fn order(&self, order: Order) -> Result<(), Problem> {
        let sent = self.desk.as_ref().map(|desk| desk.orders.try_send(order));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(busy()),
            None => Err(Problem::new(
                Code::RecordingDisabled,
                "nothing is recorded here: set recording.enabled in the server's configuration",
            )),
        }
    }
}

impl Hub {
    /// Begins or ends the recording of a room, for somebody who may.
    pub(super) fn record(
        &mut self,
        now: Now,
        room: &RoomId,
        wanted: Option<RecordingRequest>,
    ) -> Result<RecordingView, Problem> {
        match wanted {
            Some(request) => self.start_recording(now, room, request),
            None => self.stop_recording(now, room, EndReason::Stopped),
        }
    }

    /// Begins to record a room.
    fn start_recording(
        &mut self,
        now: Now,
        room: &RoomId,
        request: RecordingRequest,
    ) -> Result<RecordingView, Problem> {
        let Some(shard) = self.directory.shard(room) else {
            return Err(NoEntry::NoSuchRoom.into());
        };
        if self.recordings.by_room.contains_key(room) {
            let text = "the room is being recorded already";
            return Err(Problem::new(Code::AlreadyRecording, text));
        }
        let mode = request.mode(self.recordings.mode);
        if !mode.is_opaque && self.directory.members(room).iter().any(|m| m.is_encrypted) {
            return Err(encrypted());
        }
        self.recordings.started += 1;
        let number = RecordingNumber::new(self.recordings.started);
        let id = RecordingId::new(self.directory.draw_number());
        self.recordings.order(Order::Start {
            number,
            id: id.clone(),
            room: room.clone(),
            shard: self.shards.sender(shard),
            unix_ms: crate::record::unix_ms(),
            mode,
        })?;
        let command = Command::Record {
            room: room.clone(),
            copying: Some(mode.copying(number)),
        };
        if self.shards.send(shard, command).is_err() {
            let reason = EndReason::WriteFailed;
            self.recordings.order(Order::Stop { number, reason })?;
            return Err(busy());
        }
        self.recordings.by_room.insert(room.clone(), number);
        let live = Live {
            room: room.clone(),
            id: id.clone(),
            mode,
        };
        self.recordings.live.insert(number, live);
        self.directory.set_recording(room, Some(id.clone()));
        let members = self.directory.members(room);
        let peers: Vec<_> = members.iter().map(|member| member.peer).collect();
        for peer in peers {
            self.name_recorded(number, peer);
        }
        let recording_id = id.as_str().to_owned();
        self.tell_room(now, room, ServerMessage::RecordingStarted { recording_id });
        Ok(RecordingView::new(room, &id, true))
    }

    /// Ends the recording of a room.
    fn stop_recording(
        &mut self,
        now: Now,
        room: &RoomId,
        reason: EndReason,
    ) -> Result<RecordingView, Problem> {
        let Some(number) = self.recordings.by_room.get(room).copied() else {
            if self.directory.room(room).is_none() {
                return Err(NoEntry::NoSuchRoom.into());
            }
            let text = "the room is not being recorded";
            return Err(Problem::new(Code::NotRecording, text));
        };
        if let Some(shard) = self.directory.shard(room) {
            let command = Command::Record {
                room: room.clone(),
                copying: None,
            };
            // Stopped by somebody, it can be stopped again; else nobody waits for it.
            if self.shards.send(shard, command).is_err() && reason == EndReason::Stopped {
                return Err(busy());
            }
        }
        self.recordings.order(Order::Stop { number, reason })?;
        Ok(self.end_recording(now, number, reason))
    }

    /// Takes in what the recorder says.
    pub(super) fn handle_notice(&mut self, now: Now, notice: Notice) {
        match notice {
            Notice::Ending { number, reason } => {
                let Some(Live { room, .. }) = self.recordings.live.get(&number).cloned() else {
                    return;
                };
                if self.recordings.by_room.get(&room) != Some(&number) {
                    return;
                }
                if let Some(shard) = self.directory.shard(&room) {
                    let command = Command::Record {
                        room: room.clone(),
                        copying: None,
                    };
                    // Copies of what has ended are thrown away.
                    drop(self.shards.send(shard, command));
                }
                self.end_recording(now, number, reason);
            }
            Notice::Finished { number, manifest } => {
                if let Some(live) = self.recordings.live.remove(&number) {
                    self.directory.add_happening(Happening::RecordingFinished {
                        room_id: Shown(live.room),
                        recording_id: live.id.as_str().to_owned(),
                        reason: manifest.end_reason.unwrap_or(EndReason::Interrupted),
                    });
                }
            }
            Notice::Composed(manifest) => {
                let file = manifest.composed.as_deref().unwrap_or_default();
                let file = format!("{}/{file}", manifest.directory);
                if let Ok(room) = RoomId::parse(&manifest.room) {
                    self.directory.add_happening(Happening::RecordingComposed {
                        room_id: Shown(room),
                        recording_id: manifest.id,
                        file,
                    });
                }
            }
            Notice::Uploaded(manifest) => {
                // A manifest is a file that people can write.
                if let Ok(room) = RoomId::parse(&manifest.room) {
                    self.directory.add_happening(Happening::RecordingUploaded {
                        room_id: Shown(room),
                        recording_id: manifest.id,
                        location: manifest.uploaded_to.unwrap_or_default(),
                    });
                }
            }
        }
    }

    /// Lets recordings know who speaks.
    pub(super) fn follow_speakers(&self, event: &Event) {
        let Event::Speakers { room, speakers } = event else {
            return;
        };
        if let Some(number) = self.recordings.by_room.get(room).copied() {
            let peer = speakers.first().copied();
            // A full queue costs a place in the picture only.
            let _ = self.recordings.order(Order::Speaks { number, peer });
        }
    }

    /// Lets recordings follow what happens in rooms.
    pub(super) fn follow(&mut self, now: Now, happening: &Happening) {
        match happening {
            Happening::RoomStarted { room_id } if self.recordings.is_auto => {
                if let Err(problem) =
                    self.start_recording(now, &room_id.0, RecordingRequest::default())
                {
                    tracing::error!(room = %room_id.0, "not recorded: {}", problem.message);
                }
            }
            Happening::ParticipantJoined {
                room_id: Shown(room),
                participant_id: Shown(peer),
                ..
            } => {
                let Some(number) = self.recordings.by_room.get(room).copied() else {
                    return;
                };
                let mode = self.recordings.live.get(&number).map(|live| live.mode);
                let mode = mode.unwrap_or_default();
                let member = self.directory.member(*peer);
                if !mode.is_opaque && member.is_some_and(|member| member.is_encrypted) {
                    // Nobody waits for the answer.
                    let _ = self.stop_recording(now, room, EndReason::Encrypted);
                    return;
                }
                self.name_recorded(number, *peer);
                if let Some(shard) = self.directory.shard(room) {
                    // The shard forgets a room that nobody is in.
                    let command = Command::Record {
                        room: room.clone(),
                        copying: Some(mode.copying(number)),
                    };
                    if self.shards.send(shard, command).is_err() {
                        tracing::warn!("a shard is busy: a newcomer may not be recorded");
                    }
                }
            }
            Happening::ParticipantLeft {
                room_id: Shown(room),
                participant_id: Shown(peer),
                ..
            } => {
                if let Some(number) = self.recordings.by_room.get(room).copied() {
                    let peer = *peer;
                    // A full queue costs the time in the manifest only.
                    let _ = self.recordings.order(Order::Left { number, peer });
                }
            }
            Happening::RoomFinished { room_id, .. } => {
                // Nobody waits for the answer.
                let _ = self.stop_recording(now, &room_id.0, EndReason::RoomFinished);
            }
            _ => {}
        }
    }

    fn name_recorded(&self, number: RecordingNumber, peer: PeerId) {
        let member = self.directory.member(peer);
        let Some(member) = member.filter(|member| !member.is_hidden) else {
            return;
        };
        // A full queue costs the name in the manifest only.
        let _ = self.recordings.order(Order::Joined {
            number,
            peer,
            user_id: member.identity.clone(),
            name: member.name.clone(),
        });
    }

    /// Tells a room that it is recorded no longer.
    fn end_recording(
        &mut self,
        now: Now,
        number: RecordingNumber,
        reason: EndReason,
    ) -> RecordingView {
        let Live { room, id, .. } = self
            .recordings
            .live
            .get(&number)
            .cloned()
            .expect("it is live until the recorder says that it has finished");
        self.recordings.by_room.remove(&room);
        self.directory.set_recording(&room, None);
        let recording_id = id.as_str().to_owned();
        let message = ServerMessage::RecordingStopped {
            recording_id,
            reason,
        };
        self.tell_room(now, &room, message);
        RecordingView::new(&room, &id, false)
    }

    fn tell_room(&mut self, now: Now, room: &RoomId, message: ServerMessage) {
        let sockets = relay::everyone(room, &self.directory);
        if let Some(first) = sockets.first().copied() {
            self.act(now, first, vec![Output::Tell(sockets, message)]);
        }
    }
}

fn encrypted() -> Problem {
    let text = "someone here encrypts end to end, so the server cannot see what it would record; \
                `opaque: true` records frames that only the participants can open";
    Problem::new(Code::RoomEncrypted, text)
}

fn busy() -> Problem {
    Problem::new(Code::ServerBusy, "the server is busy; try again soon")
}
