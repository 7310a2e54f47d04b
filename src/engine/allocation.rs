//! What of what a peer watches its path can carry.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

use super::Engine;
use super::arena::{Arena, Key};
use super::command::Kind;
use super::peer::Peer;
use super::track::Track;

/// Video goes on at up to this multiple of what is left for it: estimates waver.
const TOLERANCE: f64 = 1.25;

/// Of what plays this share arrives where the path carries it, whatever the estimate says: a
/// client that is short of CPU reports late, which looks like a queue.
const DELIVERED: f64 = 0.95;

/// Above either it still goes on for this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is wanted of a path, as a multiple of what plays: encoders waver too.
const HEADROOM: f64 = 1.1;

impl Engine {
    /// Pauses video that the path to a peer is known not to carry, the last slots first, and
    /// plays it again once it does. What has not been tried yet is played.
    pub(super) fn allocate(&mut self, now: Instant, key: Key<Peer>) {
        let Self { peers, tracks, .. } = self;
        let Some(peer) = peers.get_mut(key).filter(|peer| peer.is_connected()) else {
            return;
        };
        let needs = |slot: &super::subscription::Slot, tracks: &Arena<Track>| {
            let track = tracks.get(slot.track()?)?;
            Some(track.layers.get(usize::from(slot.layer()?))?.rate.bps())
        };
        let (mut playing, mut total) = (0.0, 0.0);
        for slot in &peer.slots {
            let need = needs(slot, tracks).unwrap_or(0.0);
            total += need;
            playing += if slot.is_paused() { 0.0 } else { need };
        }
        peer.send_side.set_wanted(Bitrate::from(total * HEADROOM));
        let is_short = peer.send_side.is_short();
        let delivered = peer.send_side.delivered();
        let arrives = delivered.is_some_and(|d| d.as_f64() >= DELIVERED * playing);
        let mut left = peer.send_side.estimate().as_f64();
        let mut resumed = false;
        for kind in [Kind::Audio, Kind::Video] {
            for slot in peer.slots.iter_mut().filter(|slot| slot.kind == kind) {
                let Some(need) = needs(slot, tracks) else {
                    continue;
                };
                let room = if slot.is_paused() {
                    left
                } else {
                    left * TOLERANCE
                };
                let goes_on = arrives && !slot.is_paused();
                if kind == Kind::Audio || !is_short || goes_on || need <= room {
                    left = (left - need).max(0.0);
                    resumed |= slot.resume();
                } else {
                    slot.lack(now, PATIENCE);
                }
            }
        }
        if resumed {
            self.want_keyframes(now, key);
        }
    }
}
