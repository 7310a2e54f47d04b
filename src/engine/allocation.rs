//! What of what a peer watches its path can carry: gathers what [`allocate`] weighs, and aims the
//! peer's slots at what it grants.

use std::ops::Range;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

use super::Engine;
use super::allocate::{self, Allocator, Before, Budget, Demand, Grant, Quality, Reason, Rung};
use super::arena::{Arena, Key};
use super::command::{Event, Kind, Shown, Source};
use super::peer::Peer;
use super::room::Room;
use super::selector::Target;
use super::subscription::Slot;
use super::track::Track;
use super::warnings::Severity;
use crate::id::TrackId;

/// Video goes on at up to this multiple of what is left for it: estimates waver.
const TOLERANCE: f64 = 1.25;

/// Of what plays this share arrives where the path carries it, whatever the estimate says: a
/// client that is short of CPU reports late, which looks like a queue.
const DELIVERED: f64 = 0.9;

/// But this share where something is lost on the way or stands in a queue. Headers are counted in
/// what arrives and not in what is sent: they are 4 % and more.
const DELIVERED_UNCLEAR: f64 = 1.0;

/// And then goes on at up to this multiple only: an estimate that follows a cut is about this much
/// below what the path carries.
const TOLERANCE_UNCLEAR: f64 = 1.1;

/// A layer that takes this many times what the path carries is stopped before a smaller one
/// begins: it would arrive in shreds, and keep the other waiting.
const HOPELESS: u64 = 2;

/// A path that carries less than the least of a track still gets it for this long: by then it is
/// known what of it arrives.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What is wanted of a path for sound, as a multiple of what plays: encoders waver.
const SOUND_HEADROOM: f64 = 1.1;

/// One video slot that plays something.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) slot: usize,
    track: TrackId,
    publisher: Key<Peer>,
    source: Source,
    speaks: bool,
    /// How the viewer shows it.
    shown: Option<Shown>,
    quality: Quality,
    /// Its part of all rungs.
    pub(super) rungs: Range<usize>,
    before: Before,
    /// The layer that passes.
    live: Option<u8>,
    /// What passes of it, in bits per second.
    sent_bps: u64,
    /// Whether the shard has too much to do to send it.
    pub(super) is_left_out: bool,
}

/// What is gathered and decided for one peer, kept for the memory it has.
#[derive(Debug, Default)]
pub(super) struct Share {
    rungs: Vec<Rung>,
    seats: Vec<Seat>,
    demands: Vec<Demand<'static>>,
    allocator: Allocator,
}

/// What reports change is decided anew no more often than this: an estimate moves little in less.
const REVIEW: Duration = Duration::from_millis(150);

/// While the estimate stays where it was, only what layers cost changes.
const STEADY_REVIEW: Duration = Duration::from_secs(1);

/// At once, though, when the estimate is below this share of what it was: a path collapses.
const FALLEN: f64 = 0.7;

impl Engine {
    /// Decides anew what each slot of a peer gets, unless that was decided a moment ago.
    pub(super) fn review(&mut self, now: Instant, key: Key<Peer>) {
        let peer = self.peers.get(key);
        let is_due = |peer: &Peer| {
            peer.allocated.is_none_or(|(at, estimate)| {
                let share = peer.send_side.estimate().as_f64() / estimate.as_f64();
                let pause = match share {
                    ..FALLEN => Duration::ZERO,
                    0.95..1.05 => STEADY_REVIEW,
                    _ => REVIEW,
                };
                now.saturating_duration_since(at) >= pause
            })
        };
        if peer.is_some_and(is_due) {
            self.allocate(now, key);
        }
    }

    /// Decides anew what each slot of a peer gets, and begins what can begin.
    pub(super) fn allocate(&mut self, now: Instant, key: Key<Peer>) {
        if !self.peers.get(key).is_some_and(Peer::is_connected) {
            return;
        }
        self.offer_queued();
        let mut share = std::mem::take(&mut self.share);
        self.share_out(now, key, &mut share);
        for seat in share.seats.iter().filter(|seat| !seat.is_left_out) {
            self.weigh_wanted(now, seat.publisher);
        }
        self.share = share;
        self.begin_layers(now, key);
    }

    /// Aims the slots of a peer.
    fn share_out(&mut self, now: Instant, key: Key<Peer>, share: &mut Share) {
        let Share {
            rungs,
            seats,
            demands: kept,
            allocator,
        } = share;
        rungs.clear();
        seats.clear();
        let Self {
            peers,
            tracks,
            rooms,
            spared,
            ..
        } = self;
        let Some(peer) = peers.get_mut(key) else {
            return;
        };
        let room = rooms.get(peer.room);
        peer.allocated = Some((now, peer.send_side.estimate()));
        let sound_bps = sound(now, peer, tracks);
        take_seats(now, (key, peer), room, tracks, (seats, rungs));
        spared.apply((key, peer), room, tracks, seats, rungs);
        let mut demands = emptied(std::mem::take(kept));
        demands.extend(seats.iter().map(|seat| Demand {
            rungs: &rungs[seat.rungs.clone()],
            source: seat.source,
            speaks: seat.speaks,
            priority: seat.shown.map_or(0, |shown| shown.priority),
            view: seat.shown.map(|shown| shown.size),
            quality: seat.quality,
            before: seat.before,
        }));
        let budget = budget(peer, sound_bps, seats, &demands);
        let allocation = allocator.allocate(budget, &demands);
        *kept = emptied(demands);
        let wanted = sound_bps as f64 * SOUND_HEADROOM + allocation.wanted_bps as f64;
        peer.send_side.set_wanted(Bitrate::from(wanted));
        let mut told = Vec::new();
        peer.warnings
            .handle_held_back(held_back(&allocation.grants));
        for (seat, grant) in seats.iter().zip(&allocation.grants) {
            let slot = &mut peer.slots[seat.slot];
            let Some(track) = slot.track().and_then(|track| tracks.get_mut(track)) else {
                continue;
            };
            if seat.is_left_out {
                slot.aim(now, None, Before::Paused);
                let news = slot.news(Reason::Paused);
                told.extend(news.map(|(layer, reason)| (seat.track, layer, reason)));
                track.handle_aim(key, seat.slot, slot.takes(), reach(track, seat));
                continue;
            };
            let rungs = &rungs[seat.rungs.clone()];
            let playing = rungs.iter().find(|rung| is_live(rung, seat, track));
            aim(now, slot, track, seat, rungs, *grant);
            let is_left = slot.wants_keyframe().is_some() && budget.is_proven;
            let news = slot.news(grant.reason);
            told.extend(news.map(|(layer, reason)| (seat.track, layer, reason)));
            if is_left && playing.is_some_and(|rung| rung.bps > HOPELESS * budget.bps) {
                slot.await_keyframe(now);
            }
            track.handle_aim(key, seat.slot, slot.takes(), reach(track, seat));
        }
        if !told.is_empty() {
            let (peer, tracks) = (peer.id, told);
            self.tell(Event::Sent { peer, tracks });
        }
    }
}

/// A list without what was in it, its memory kept: what is next in it may borrow something else.
fn emptied<'a>(mut demands: Vec<Demand<'_>>) -> Vec<Demand<'a>> {
    demands.clear();
    let none = |_: Demand<'_>| unreachable!("it was cleared");
    demands.into_iter().map(none).collect()
}

/// What the sound that plays to a peer takes, in bits per second.
fn sound(now: Instant, peer: &Peer, tracks: &Arena<Track>) -> u64 {
    let slots = peer.slots.iter().filter(|slot| slot.kind == Kind::Audio);
    slots
        .filter_map(|slot| tracks.get(slot.track()?))
        .map(|track| track.seen.bps(now, 0, 0))
        .sum()
}

fn take_seats(
    now: Instant,
    (key, peer): (Key<Peer>, &Peer),
    room: Option<&Room>,
    tracks: &Arena<Track>,
    (seats, rungs): (&mut Vec<Seat>, &mut Vec<Rung>),
) {
    let wish = room.and_then(|room| room.wishes.get(&key));
    let slots = peer.slots.iter().enumerate();
    for (index, slot) in slots.filter(|(_, slot)| slot.kind == Kind::Video) {
        let Some(track) = slot.track().and_then(|track| tracks.get(track)) else {
            continue;
        };
        let first = rungs.len();
        track.seen.rungs(now, rungs);
        let id = track.info.id;
        seats.push(Seat {
            slot: index,
            track: id,
            publisher: track.publisher,
            speaks: room.is_some_and(|room| room.speakers.contains(&id.peer)),
            shown: wish.and_then(|wish| wish.shown(id)),
            quality: wish.map_or(Quality::Auto, |wish| wish.quality(id)),
            source: track.info.source,
            rungs: first..rungs.len(),
            before: slot.granted(),
            live: slot.live(),
            sent_bps: slot
                .live()
                .map_or(0, |layer| track.seen.sent_bps(now, layer, slot.temporal())),
            is_left_out: false,
        });
    }
}

/// What is left for video, and for the video that plays already.
fn budget(peer: &Peer, sound_bps: u64, seats: &[Seat], demands: &[Demand<'_>]) -> Budget {
    let estimate = peer.send_side.estimate().as_f64();
    let playing_bps: u64 = demands.iter().map(playing).sum();
    let delivered = peer.send_side.delivered();
    let sent_bps = sound_bps + seats.iter().map(|seat| seat.sent_bps).sum::<u64>();
    let arrives = |least: f64| {
        delivered.is_some_and(|delivered| delivered.rate.as_f64() >= least * sent_bps as f64)
    };
    let stays = |least: f64, tolerance: f64| {
        let tolerated = ((estimate * tolerance) as u64).saturating_sub(sound_bps);
        if arrives(least) {
            tolerated.max(playing_bps)
        } else {
            tolerated
        }
    };
    let is_clear = delivered.is_none_or(|delivered| delivered.is_clear);
    let bps = (estimate as u64).saturating_sub(sound_bps);
    Budget {
        bps,
        stays_bps: if is_clear {
            stays(DELIVERED, TOLERANCE)
        } else {
            stays(DELIVERED_UNCLEAR, TOLERANCE_UNCLEAR)
        },
        least_bps: stays(DELIVERED, TOLERANCE),
        is_proven: peer.send_side.is_short(),
    }
}

/// What a track takes as it was granted last.
fn playing(demand: &Demand<'_>) -> u64 {
    let Before::Sent { layer, temporal } = demand.before else {
        return 0;
    };
    let mut rungs = demand.rungs.iter().rev();
    let rung = rungs.find(|rung| (rung.layer, rung.temporal) <= (layer, temporal));
    rung.map_or(0, |rung| rung.bps)
}

/// Up to which place the layers of a track make sense to this viewer, whatever its path carries.
fn reach(track: &Track, seat: &Seat) -> u8 {
    let places = (0..track.seen.places()).filter_map(|place| track.seen.at(place));
    let sizes = places.map(|layer| track.seen.size(layer));
    let view = seat.shown.map(|shown| shown.size);
    allocate::reach(sizes, view, seat.quality)
}

/// How much is held back for want of bandwidth.
fn held_back(grants: &[Grant]) -> Severity {
    let each = grants.iter().map(|grant| match grant.reason {
        Reason::Paused => Severity::Critical,
        Reason::Bandwidth => Severity::Warning,
        Reason::Viewport | Reason::Source => Severity::Over,
    });
    each.max().unwrap_or(Severity::Over)
}

/// Whether a rung is of the layer that passes.
fn is_live(rung: &Rung, seat: &Seat, track: &Track) -> bool {
    seat.live.is_some() && track.seen.at(rung.layer) == seat.live
}

/// Lets a slot have what it was granted.
fn aim(now: Instant, slot: &mut Slot, track: &Track, seat: &Seat, rungs: &[Rung], grant: Grant) {
    let Some(cheapest) = rungs.first() else {
        // Nothing has come of it yet: what comes first plays.
        return;
    };
    let rung = match grant.rung {
        Some(rung) => {
            slot.suffices();
            rungs[usize::from(rung)]
        }
        None if grant.reason == Reason::Paused && !slot.lacks(now, PATIENCE) => *cheapest,
        None => return slot.aim(now, None, Before::Paused),
    };
    let Some(layer) = track.seen.at(rung.layer) else {
        return;
    };
    let smaller = track.seen.live().take_while(|smaller| *smaller != layer);
    let is_down = seat
        .live
        .and_then(|live| track.seen.place(live))
        .is_some_and(|live| live > rung.layer);
    let is_whole = !rungs
        .iter()
        .any(|above| above.layer == rung.layer && above.temporal > rung.temporal);
    let target = Target {
        layer,
        temporal: if is_whole { u8::MAX } else { rung.temporal },
        instead: smaller.fold(0, |layers, layer| layers | 1 << layer),
        // At its base a layer that is too big lasts until the smaller one begins.
        meanwhile: if is_down { 0 } else { u8::MAX },
    };
    let before = Before::Sent {
        layer: rung.layer,
        temporal: rung.temporal,
    };
    slot.aim(now, Some(target), before);
}
