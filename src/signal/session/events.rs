//! What the shard says about the participant, told to the client and its room.

use super::{Output, Session};
use crate::engine::command::{CloseReason, Event, Refusal};
use crate::signal::directory::Directory;
use crate::signal::message::{self, ServerMessage, Shown, Track};
use crate::signal::problem::Problem;
use crate::signal::relay;
use crate::signal::service::Service;

impl Session {
    /// Takes in what the shard said about the peer this session is in its room.
    pub fn handle_event(&mut self, event: Event, directory: &mut Directory) -> Vec<Output> {
        let Some(stay) = &mut self.stay else {
            return Vec::new();
        };
        let room = stay.room().clone();
        match event {
            Event::Answer { sdp, slots, .. } => {
                stay.handle_verdict();
                let slots = message::slots(&slots);
                stay.handle_answer(slots.clone());
                vec![self.tell(ServerMessage::Answer { sdp, slots })]
            }
            Event::Refused { refusal, .. } => {
                let is_of_offer = refusal != Refusal::BadCandidate;
                let reference = is_of_offer.then(|| stay.handle_verdict()).flatten();
                vec![self.tell(Problem::from(refusal).into_message(reference))]
            }
            Event::RequestOffer { audio, video, .. } => {
                stay.handle_request(audio, video);
                vec![self.request_offer(room, audio, video)]
            }
            Event::Slots { slots, .. } => {
                let slots = message::slots(&slots);
                stay.handle_slots(slots.clone());
                vec![self.tell(ServerMessage::Slots { slots })]
            }
            Event::TrackPublished { track, .. } => {
                let message = ServerMessage::TrackPublished {
                    participant_id: Shown(track.id.peer),
                    track: Track::from(&track),
                };
                directory.publish(track);
                vec![Output::Tell(relay::everyone(&room, directory), message)]
            }
            Event::TrackUnpublished { track, .. } => {
                if !directory.unpublish(track) {
                    return Vec::new();
                }
                let message = ServerMessage::TrackUnpublished {
                    participant_id: Shown(track.peer),
                    track_id: Shown(track),
                };
                vec![Output::Tell(relay::everyone(&room, directory), message)]
            }
            Event::NotPublished { mid, source, .. } => {
                vec![self.tell(ServerMessage::not_published(mid, source))]
            }
            Event::Speakers { speakers, .. } => {
                let message = ServerMessage::active_speakers(speakers);
                vec![Output::Tell(relay::everyone(&room, directory), message)]
            }
            Event::Measured { figures, .. } => {
                let reference = stay.handle_figures();
                let service = Service::from(&*figures);
                vec![self.tell(ServerMessage::Stats { service, reference })]
            }
            Event::Closed { reason, .. } => self.handle_closed(reason, directory),
            event => {
                let told = service(event);
                told.into_iter().map(|message| self.tell(message)).collect()
            }
        }
    }

    /// The shard has dropped the peer; the client may join again.
    fn handle_closed(&mut self, reason: CloseReason, directory: &mut Directory) -> Vec<Output> {
        let mut outputs = vec![self.tell(Problem::from(reason).into_message(None))];
        let gone = self.step_out(reason.into(), directory);
        outputs.extend(gone.map(|(_, told)| told));
        self.peer = directory.draw_peer();
        outputs
    }
}

/// How the client is served, as it is told.
fn service(event: Event) -> Vec<ServerMessage> {
    match event {
        Event::DataLost { messages, .. } => vec![ServerMessage::DataLost { messages }],
        Event::Warning {
            trouble,
            value,
            severity,
            ..
        } => vec![ServerMessage::warning(trouble, value, severity)],
        Event::Sent { tracks, .. } => tracks.into_iter().map(ServerMessage::quality).collect(),
        Event::Unwanted {
            track,
            mid,
            rids,
            spatial_layers,
            ..
        } => vec![ServerMessage::unwanted_layers(
            track,
            mid,
            rids,
            spatial_layers,
        )],
        _ => Vec::new(),
    }
}
