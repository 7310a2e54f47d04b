//! Slow path: who is in a room, what they publish, which slot plays what.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::arena::{Arena, Key};
use super::caps::Meter;
use super::command::{Copying, Kind, Source, TrackInfo};
use super::peer::Peer;
use super::track::{Track, Watcher};
use super::wishes::Wish;
use crate::id::{PeerId, RoomId, TrackId};

/// The peers of a room and what they publish.
#[derive(Debug)]
pub(crate) struct Room {
    /// Its name.
    pub(crate) id: RoomId,
    /// Who is in it, in the order they came.
    pub(crate) peers: Vec<Key<Peer>>,
    /// What can be watched, most wanted first; while nobody has spoken, as it was published.
    pub(crate) tracks: Vec<Key<Track>>,
    /// Who speaks, longest first.
    pub(crate) speakers: Vec<PeerId>,
    /// When voices were last weighed.
    pub(crate) weighed_at: Option<Instant>,
    /// What each peer may do and does not want.
    pub(crate) wishes: BTreeMap<Key<Peer>, Wish>,
    /// Tracks that are played to nobody.
    pub(crate) silenced: BTreeSet<TrackId>,
    /// What is copied of what is published here, and for whom.
    pub(crate) copying: Option<Copying>,
    /// What has come in from all of them.
    pub(crate) meter: Meter,
}

impl Room {
    pub(crate) fn new(now: Instant, id: RoomId) -> Self {
        Self {
            id,
            peers: Vec::new(),
            tracks: Vec::new(),
            speakers: Vec::new(),
            weighed_at: None,
            wishes: BTreeMap::new(),
            silenced: BTreeSet::new(),
            copying: None,
            meter: Meter::new(now),
        }
    }

    /// Forgets a track that is gone.
    pub(crate) fn forget(&mut self, track: TrackId) {
        self.silenced.remove(&track);
        for wish in self.wishes.values_mut() {
            wish.forget(track);
        }
    }

    /// The tracks of a kind that others than `viewer` publish and that it may and wants to watch:
    /// those it shows first, then by who speaks.
    pub(crate) fn wanted(
        &self,
        tracks: &Arena<Track>,
        viewer: Key<Peer>,
        kind: Kind,
    ) -> Vec<Key<Track>> {
        let wish = self.wishes.get(&viewer);
        let is_wanted = |track: &Track| {
            track.publisher != viewer
                && track.info.kind == kind
                && wish.is_none_or(|wish| wish.wants(track.info.id))
                && !self.silenced.contains(&track.info.id)
        };
        let is_shown = |key: &Key<Track>| {
            let track = tracks.get(*key).map(|track| track.info.id);
            wish.zip(track).is_some_and(|(wish, id)| wish.shows(id))
        };
        let mut wanted: Vec<_> = self
            .tracks
            .iter()
            .copied()
            .filter(|key| tracks.get(*key).is_some_and(is_wanted))
            .collect();
        wanted.sort_by_key(|key| !is_shown(key));
        wanted
    }
}

/// Which slots of one kind change, given what plays in them and what is wanted, best first.
/// A track that plays stays where it is; a slot whose track is gone takes the next one.
pub(crate) fn assign(
    playing: &[Option<Key<Track>>],
    wanted: &[Key<Track>],
) -> Vec<(usize, Option<Key<Track>>)> {
    let mut waiting = wanted
        .iter()
        .filter(|track| !playing.contains(&Some(**track)));
    let mut changes = Vec::new();
    for (index, plays) in playing.iter().enumerate() {
        if plays.is_some_and(|track| wanted.contains(&track)) {
            continue;
        }
        let next = waiting.next().copied();
        if next != *plays {
            changes.push((index, next));
        }
    }
    changes
}

/// Applies [`assign`] to the open slots of `viewer`, for both kinds; closed slots play nothing.
/// Returns the tracks that started to play and the indices of the slots that changed.
pub(crate) fn play_wanted(
    room: &Room,
    tracks: &mut Arena<Track>,
    viewer: Key<Peer>,
    peer: &mut Peer,
) -> Changed {
    let mut changed = Changed::default();
    for index in 0..peer.slots.len() {
        if !peer.slots[index].open && peer.slots[index].track().is_some() {
            play(tracks, viewer, peer, index, None);
            changed.slots.push(index);
        }
    }
    for kind in [Kind::Audio, Kind::Video] {
        let open: Vec<usize> = (0..peer.slots.len())
            .filter(|index| peer.slots[*index].open && peer.slots[*index].kind == kind)
            .collect();
        let playing: Vec<_> = open
            .iter()
            .map(|index| peer.slots[*index].track())
            .collect();
        let mut wanted = room.wanted(tracks, viewer, kind);
        wanted.truncate(open.len());
        for (position, track) in assign(&playing, &wanted) {
            play(tracks, viewer, peer, open[position], track);
            changed.slots.push(open[position]);
            changed.started.extend(track);
        }
    }
    changed
}

/// What [`play_wanted`] changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Indices of slots that play something else.
    pub(crate) slots: Vec<usize>,
    /// Tracks that were not played to this peer before.
    pub(crate) started: Vec<Key<Track>>,
}

/// Lets a slot play another track and tells both tracks.
fn play(
    tracks: &mut Arena<Track>,
    viewer: Key<Peer>,
    peer: &mut Peer,
    index: usize,
    track: Option<Key<Track>>,
) {
    let slot = &mut peer.slots[index];
    let place = u8::try_from(index).expect("PEER_MEDIA_LINES fits a byte");
    if let Some(before) = slot.track().and_then(|before| tracks.get_mut(before)) {
        before
            .watchers
            .retain(|w| (w.peer, w.slot) != (viewer, place));
    }
    slot.play(track);
    if let Some(after) = track.and_then(|after| tracks.get_mut(after)) {
        after.watchers.push(Watcher {
            peer: viewer,
            slot: place,
            takes: slot.takes(),
            reach: u8::MAX,
        });
    }
}

/// What a track is when its client did not say.
pub(crate) fn default_source(kind: Kind) -> Source {
    match kind {
        Kind::Audio => Source::Microphone,
        Kind::Video => Source::Camera,
    }
}

/// What a client says a track is, if that fits its kind.
pub(crate) fn source_for(kind: Kind, said: Option<Source>) -> Source {
    let fits = |source: &Source| match source {
        Source::Microphone | Source::ScreenAudio => kind == Kind::Audio,
        Source::Camera | Source::Screen => kind == Kind::Video,
    };
    said.filter(fits).unwrap_or_else(|| default_source(kind))
}

/// The [`TrackInfo`] of a track that may be gone.
pub(crate) fn info_of(tracks: &Arena<Track>, key: Option<Key<Track>>) -> Option<TrackInfo> {
    key.and_then(|key| tracks.get(key))
        .map(|track| track.info.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(n: u32) -> Key<Track> {
        Key::nth(n)
    }

    #[test]
    fn a_track_that_plays_stays_where_it_is() {
        let playing = [Some(track(1)), None, Some(track(2))];
        assert_eq!(
            assign(&playing, &[track(3), track(2), track(1)]),
            [(1, Some(track(3)))],
            "only the free slot changes"
        );
    }

    #[test]
    fn a_slot_whose_track_is_gone_takes_the_next_or_falls_silent() {
        let playing = [Some(track(1)), Some(track(2))];
        assert_eq!(
            assign(&playing, &[track(3)]),
            [(0, Some(track(3))), (1, None)]
        );
        assert_eq!(assign(&[None, None], &[]), []);
    }

    #[test]
    fn more_tracks_than_slots_leave_the_last_ones_out() {
        let wanted = [track(1), track(2), track(3)];
        assert_eq!(assign(&[None], &wanted), [(0, Some(track(1)))]);
    }

    #[test]
    fn a_source_that_does_not_fit_its_kind_is_not_believed() {
        assert_eq!(
            source_for(Kind::Audio, Some(Source::Screen)),
            Source::Microphone
        );
        assert_eq!(
            source_for(Kind::Video, Some(Source::Screen)),
            Source::Screen
        );
    }
}
