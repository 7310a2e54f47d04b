//! What a shard with too much to do does not send.

use super::allocate::Rung;
use super::allocation::Seat;
use super::arena::{Arena, Key};
use super::command::{Kind, Spared};
use super::peer::Peer;
use super::room::Room;
use super::track::Track;

impl Spared {
    /// Takes away from a viewer's seats what is left out: all rungs of those that are not among the
    /// first few it shows, or who spoke last; of the others the rungs of their highest layers.
    pub(super) fn apply(
        self,
        (key, viewer): (Key<Peer>, &Peer),
        room: Option<&Room>,
        tracks: &Arena<Track>,
        seats: &mut [Seat],
        rungs: &[Rung],
    ) {
        let kept = self.videos.zip(room).map(|(most, room)| {
            let mut wanted = room.wanted(tracks, key, Kind::Video);
            wanted.truncate(most.into());
            wanted
        });
        for seat in seats {
            let track = viewer.slots[seat.slot].track();
            let is_kept = |kept: &Vec<_>| track.is_some_and(|track| kept.contains(&track));
            seat.is_left_out = !kept.as_ref().is_none_or(is_kept);
            let own = &rungs[seat.rungs.clone()];
            let left = match (own.first(), own.last()) {
                _ if seat.is_left_out => 0,
                (Some(first), Some(last)) if self.top_layers && first.layer != last.layer => {
                    own.iter().filter(|rung| rung.layer != last.layer).count()
                }
                _ => own.len(),
            };
            seat.rungs.end = seat.rungs.start + left;
        }
    }
}
