//! What a shard with too much to do does not send.

use super::allocate::Rung;
use super::allocation::Seat;
use super::command::Spared;

impl Spared {
    /// Takes away from the seats what is left out: the rungs of their highest layers, and all rungs
    /// of those past the limit.
    pub(super) fn apply(self, seats: &mut [Seat], rungs: &[Rung]) {
        for (index, seat) in seats.iter_mut().enumerate() {
            let own = &rungs[seat.rungs.clone()];
            let left = match (own.first(), own.last()) {
                _ if self.leaves_out(index) => 0,
                (Some(first), Some(last)) if self.top_layers && first.layer != last.layer => {
                    own.iter().filter(|rung| rung.layer != last.layer).count()
                }
                _ => own.len(),
            };
            seat.rungs.end = seat.rungs.start + left;
        }
    }

    /// Whether a viewer's video is not sent to it, by its place among those that it watches.
    pub(super) fn leaves_out(self, index: usize) -> bool {
        self.videos.is_some_and(|most| index >= usize::from(most))
    }
}
