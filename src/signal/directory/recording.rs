//! Which rooms are recorded, as far as whoever is in them is told.

use super::Directory;
use crate::id::RoomId;
use crate::record::order::RecordingId;
use crate::signal::happening::Happening;
use crate::signal::message::Shown;

impl Directory {
    /// A number for a name that nobody can guess.
    pub fn draw_number(&mut self) -> u64 {
        self.numbers.draw_number()
    }

    /// Remembers that a room is recorded, or no longer.
    pub fn set_recording(&mut self, id: &RoomId, recording: Option<RecordingId>) {
        let Some(room) = self.rooms.get_mut(id) else {
            return;
        };
        room.recording.clone_from(&recording);
        if let Some(recording) = recording {
            self.add_happening(Happening::RecordingStarted {
                room_id: Shown(id.clone()),
                recording_id: recording.as_str().to_owned(),
            });
        }
    }

    /// Something happened that the directory has no part in.
    pub fn add_happening(&mut self, happening: Happening) {
        self.happenings.push_back(happening);
    }
}
