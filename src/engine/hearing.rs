//! Who is heard and seen where not everyone can be: a room's tracks, most wanted first, by who
//! speaks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::arena::{Arena, Key};
use super::command::{Event, Kind, Source};
use super::peer::Peer;
use super::room::Room;
use super::speakers::{self, Candidate, Loudness};
use super::track::Track;
use crate::id::PeerId;

/// Voices are weighed against each other no more often than this: a word takes longer.
const REVIEW: Duration = Duration::from_millis(200);

/// How many of each kind a viewer is played.
#[derive(Debug, Clone, Copy)]
struct Places {
    sounds: usize,
    pictures: usize,
}

impl Engine {
    /// Weighs a room's voices, unless that was done a moment ago: who speaks is told, and played
    /// where there is no place for everyone.
    pub(super) fn weigh_voices(&mut self, now: Instant, key: Key<Room>) {
        let Self {
            rooms,
            tracks,
            options,
            spared,
            ..
        } = self;
        let Some(room) = rooms.get_mut(key) else {
            return;
        };
        let is_recent = |at| now.saturating_duration_since(at) < REVIEW;
        if room.weighed_at.is_some_and(is_recent) {
            return;
        }
        room.weighed_at = Some(now);
        let slots = options.max_video_slots;
        let videos = spared.videos.map_or(slots, |most| most.min(slots));
        // Everyone misses their own: one more may be played.
        let places = Places {
            sounds: usize::from(options.max_audio_slots) + 1,
            pictures: usize::from(videos) + 1,
        };
        let has_moved = rank(now, room, tracks, places);
        let is_news = find_speakers(now, room, tracks);
        if is_news {
            let (room, speakers) = (room.id.clone(), room.speakers.clone());
            self.tell(Event::Speakers { room, speakers });
        }
        if has_moved {
            self.refresh_peers(now, key, None);
        }
    }

    /// Weighs the voices of a peer's room if one of its own has fallen silent.
    pub(super) fn weigh_silence(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get(key) else {
            return;
        };
        let mut tracks = peer.lines.iter().filter_map(|line| line.track);
        let is_over = |track: &Track| track.speech_ends.is_some_and(|at| at <= now);
        if tracks.any(|track| self.tracks.get(track).is_some_and(is_over)) {
            let room = peer.room;
            if let Some(room) = self.rooms.get_mut(room) {
                room.weighed_at = None;
            }
            self.weigh_voices(now, room);
        }
    }
}

/// Orders a room's tracks, most wanted first; `true` when that changes who is played.
fn rank(now: Instant, room: &mut Room, tracks: &Arena<Track>, places: Places) -> bool {
    let voices: BTreeMap<PeerId, Loudness> = voices(room, tracks).collect();
    let of_kind = |kind, places| {
        let of_kind = room
            .tracks
            .iter()
            .filter_map(|key| Some((*key, tracks.get(*key)?)))
            .filter(|(_, track)| track.info.kind == kind);
        let candidates = of_kind.enumerate().map(|(place, (key, track))| Candidate {
            key,
            loudness: voices.get(&track.info.id.peer).copied().unwrap_or_default(),
            is_pinned: matches!(track.info.source, Source::Screen | Source::ScreenAudio),
            passes: place < places,
        });
        candidates.collect::<Vec<_>>()
    };
    let mut sounds = of_kind(Kind::Audio, places.sounds);
    let mut pictures = of_kind(Kind::Video, places.pictures);
    speakers::rank_sounds(now, &mut sounds);
    speakers::rank_pictures(now, &mut pictures);
    let has_moved = |ranked: &[Candidate<_>], places| {
        let first = ranked.iter().take(places);
        first.into_iter().any(|candidate| !candidate.passes)
    };
    let moved = has_moved(&sounds, places.sounds) || has_moved(&pictures, places.pictures);
    if moved {
        let ranked = sounds.iter().chain(&pictures);
        room.tracks = ranked.map(|candidate| candidate.key).collect();
    }
    moved
}

/// Notes who speaks, longest first; `true` when it is not who did.
fn find_speakers(now: Instant, room: &mut Room, tracks: &mut Arena<Track>) -> bool {
    let voices: Vec<Candidate<PeerId>> = voices(room, tracks)
        .map(|(key, loudness)| Candidate {
            key,
            loudness,
            is_pinned: false,
            passes: false,
        })
        .collect();
    let mut speaking = Vec::new();
    speakers::active(now, &voices, &mut speaking);
    for key in &room.tracks {
        if let Some(track) = tracks.get_mut(*key) {
            track.speech_ends = track.loudness.speech_ends(now);
        }
    }
    let mut names: Vec<PeerId> = Vec::new();
    for peer in speaking {
        if !names.contains(&peer) {
            names.push(peer);
        }
    }
    let is_news = names != room.speakers;
    room.speakers = names;
    is_news
}

/// How loud each microphone of a room is, and whose it is.
fn voices(room: &Room, tracks: &Arena<Track>) -> impl Iterator<Item = (PeerId, Loudness)> {
    let tracks = room.tracks.iter().filter_map(|key| tracks.get(*key));
    tracks
        .filter(|track| track.info.source == Source::Microphone)
        .map(|track| (track.info.id.peer, track.loudness))
}
