//! What a session does with each message: about itself, or about its room.

use std::collections::BTreeMap;

use super::{Output, Session};
use crate::engine::command::Command;
use crate::record::order::RecordingRequest;
use crate::signal::directory::Directory;
use crate::signal::happening::LeaveReason;
use crate::signal::message::{Reference, ServerMessage};
use crate::signal::problem::{Code, Problem};
use crate::signal::request::{CandidateField, ClientMessage, OfferedTrack, Shows};
use crate::signal::{Now, relay};

impl Session {
    pub(super) fn handle_message(
        &mut self,
        now: Now,
        message: ClientMessage,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        match message {
            ClientMessage::Join(join) => self.handle_join(now, join, reference, directory),
            ClientMessage::Token { token } => self.handle_token(now, &token, reference, directory),
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
                Ok(self.leave(LeaveReason::Left, directory))
            }
            ClientMessage::StartScreenShare { room_id, sdp } => {
                self.stay_in(room_id)?.handle_screen_start();
                self.handle_screen_offer(sdp, reference)
            }
            ClientMessage::StopScreenShare { room_id, sdp } => {
                self.stay_in(room_id)?.handle_screen_stop();
                self.handle_screen_offer(sdp, reference)
            }
            ClientMessage::Ping => Ok(vec![self.tell(ServerMessage::Pong { reference })]),
            ClientMessage::Unknown => {
                let text = "no message has this \"type\"";
                Err(Problem::new(Code::UnknownType, text))
            }
            about_others => self.handle_about_others(about_others, reference, directory),
        }
    }

    /// The messages that name tracks and participants of the room.
    fn handle_about_others(
        &mut self,
        message: ClientMessage,
        reference: Option<Reference>,
        directory: &mut Directory,
    ) -> Result<Vec<Output>, Problem> {
        self.stay_in(None)?;
        match message {
            ClientMessage::StartRecording(wanted) => self.handle_record(Some(wanted), reference),
            ClientMessage::StopRecording => self.handle_record(None, reference),
            ClientMessage::Mute { track_id } => relay::mute(self.peer, &track_id, true, directory),
            ClientMessage::Unmute { track_id } => {
                relay::mute(self.peer, &track_id, false, directory)
            }
            ClientMessage::Data {
                room_id,
                to,
                payload,
                topic,
            } => {
                self.stay_in(room_id)?;
                self.check_may_tell()?;
                relay::data(self.peer, to.as_deref(), payload, topic, directory)
            }
            ClientMessage::Relay { to, fields } => {
                self.check_may_tell()?;
                relay::pass_on(self.peer, &to, fields, directory)
            }
            ClientMessage::Stats => self.handle_question(reference),
            ClientMessage::Subscribe { track_ids } => {
                self.handle_wish(&track_ids, true, reference, directory)
            }
            ClientMessage::Unsubscribe { track_ids } => {
                self.handle_wish(&track_ids, false, reference, directory)
            }
            ClientMessage::UpdateQuality {
                room_id,
                track_id,
                quality,
            } => {
                let shard = self.stay_in(room_id)?.shard();
                let tracks = relay::tracks_of_others(self.peer, track_id.as_slice(), directory)?;
                let command = Command::CapQuality {
                    peer: self.peer,
                    track: tracks.first().copied(),
                    quality: quality.into(),
                };
                Ok(vec![Output::Command(shard, command, reference)])
            }
            ClientMessage::SetLayout { slots } => {
                let shard = self.stay_in(None)?.shard();
                let peer = self.peer;
                // What is gone by now is shown no longer: no reason to refuse the others.
                let known = |shows: Shows| {
                    let track = relay::track_of_other(peer, &shows.track_id, directory)?;
                    Some((track, shows.into()))
                };
                let layout = slots.into_iter().filter_map(known).collect();
                let command = Command::Show { peer, layout };
                Ok(vec![Output::Command(shard, command, reference)])
            }
            _ => unreachable!("handle_message takes the others"),
        }
    }

    fn handle_question(&mut self, reference: Option<Reference>) -> Result<Vec<Output>, Problem> {
        let stay = self.stay_in(None)?;
        let Some(command) = stay.handle_question(reference.clone()) else {
            let text = "you ask for stats faster than they come";
            return Err(Problem::new(Code::ServerBusy, text));
        };
        Ok(vec![Output::Command(stay.shard(), command, reference)])
    }

    fn handle_record(
        &mut self,
        wanted: Option<RecordingRequest>,
        reference: Option<Reference>,
    ) -> Result<Vec<Output>, Problem> {
        let room = self.stay_in(None)?.room().clone();
        if let Some(access) = &self.access {
            access.check_record(&room)?;
        }
        Ok(vec![Output::Record(room, wanted, reference)])
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

    /// From here on these tracks are watched, or not.
    fn handle_wish(
        &mut self,
        tracks: &[String],
        is_wanted: bool,
        reference: Option<Reference>,
        directory: &Directory,
    ) -> Result<Vec<Output>, Problem> {
        let peer = self.peer;
        let stay = self.stay_in(None)?;
        let tracks = relay::tracks_of_others(peer, tracks, directory)?;
        let command = Command::Subscribe {
            peer,
            tracks,
            is_wanted,
        };
        Ok(vec![Output::Command(stay.shard(), command, reference)])
    }

    /// Whether the client's token lets it speak to the others through the server.
    fn check_may_tell(&self) -> Result<(), Problem> {
        if self
            .access
            .as_ref()
            .is_some_and(|access| access.may_send_data())
        {
            return Ok(());
        }
        let text = "your token does not let you send messages to others";
        Err(Problem::new(Code::NotPermitted, text))
    }
}
