//! What must always hold, as functions of what was seen. Each returns its violations in words; a
//! simulation passes when there are none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::encoder::kind_of;
use super::received::{Line, Received};
use super::world::{Assignments, Seat, World};
use crate::engine::command::{CloseReason, Kind, TrackInfo};
use crate::engine::stats::{Dropped, Stats};
use crate::id::TrackId;

/// How long a lost packet may take to come back before it counts as missing.
const RECOVERY: Duration = Duration::from_secs(1);

/// What a simulation demands of every slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Law {
    /// Longest time between two pictures that can be shown while a track plays, or between two
    /// voice packets.
    pub(crate) longest_gap: Duration,
    /// Packets of one video slot that may be missing after recovery.
    pub(crate) missing_video: usize,
    /// Packets of one audio slot that may be missing: Opus is not retransmitted.
    pub(crate) missing_audio: usize,
}

impl Law {
    /// On clean paths nothing is missing and nothing is late.
    pub(crate) const CLEAN: Self = Self {
        longest_gap: Duration::from_millis(100),
        missing_video: 0,
        missing_audio: 0,
    };
}

/// Everything at once: no client complained, every slot obeys the laws, the counters add up.
pub(crate) fn check(world: &World, law: Law) {
    let mut violations = complaints(world);
    for (index, seat) in world.present() {
        for (mid, line) in &seat.client.lines {
            let empty = Vec::new();
            let told = seat.slots.get(mid).unwrap_or(&empty);
            let seen = line.received.iter().filter_map(|packet| packet.stamp);
            let missing = match seen.map(|stamp| kind_of(stamp.source)).next() {
                Some(Kind::Audio) => law.missing_audio,
                Some(Kind::Video) | None => law.missing_video,
            };
            let found = stream_law(&line.received, missing, world.time())
                .into_iter()
                .chain(belongs(world, seat, line, told))
                .chain(liveness(line, told, law.longest_gap, world.time()));
            violations.extend(found.map(|v| format!("client {index}, m-line {mid}: {v}")));
        }
    }
    violations.extend(accounts(world));
    violations.extend(conservation(world));
    assert!(violations.is_empty(), "{}", report(&violations));
}

fn report(violations: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown = violations.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    format!(
        "{} violations, first:\n{}",
        violations.len(),
        shown.join("\n")
    )
}

/// No client's state machine found fault, nobody was closed, nobody was told of strangers.
pub(crate) fn complaints(world: &World) -> Vec<String> {
    let of_clients = world.present().flat_map(|(index, seat)| {
        let errors = seat.client.errors.iter();
        errors.map(move |error| format!("client {index}: {error}"))
    });
    let closed = world
        .closed
        .iter()
        .filter(|(_, reason)| *reason != CloseReason::Left);
    let closed = closed.map(|(peer, reason)| format!("{peer} was closed: {reason:?}"));
    let strays = world
        .strays
        .iter()
        .map(|event| format!("an event for nobody: {event:?}"));
    of_clients.chain(closed).chain(strays).collect()
}

/// Everything that left for a client opens with its keys, and no index was used twice.
pub(crate) fn accounts(world: &World) -> Vec<String> {
    let of_clients = world.present().flat_map(|(index, seat)| {
        let violations = seat.account.violations.iter();
        violations.map(move |violation| format!("client {index}: {violation}"))
    });
    of_clients.collect()
}

/// One SSRC's packets are one unbroken stream, whatever tracks played in it: no number carries
/// two packets, none is missing that is older than [`RECOVERY`], time never runs back, VP8 ids
/// count frames, and every change of track begins with a keyframe.
pub(crate) fn stream_law(received: &[Received], missing: usize, end: Duration) -> Vec<String> {
    let mut violations = Vec::new();
    let mut by_seq: BTreeMap<u64, &Received> = BTreeMap::new();
    for packet in received {
        let before = by_seq.insert(packet.seq, packet);
        if let Some(before) = before
            && (before.stamp, before.time) != (packet.stamp, packet.time)
        {
            violations.push(format!(
                "number {} was sent twice: {before:?}, {packet:?}",
                packet.seq
            ));
        }
    }
    let packets: Vec<_> = by_seq.into_values().collect();
    let mut lost = 0;
    if let Some(first) = packets.first() {
        violations.extend(begins(first));
    }
    for pair in packets.windows(2) {
        let [one, two] = pair else { continue };
        let gap = usize::try_from(two.seq - one.seq - 1).unwrap_or(usize::MAX);
        if gap > 0 && two.at + RECOVERY < end {
            lost += gap;
            if lost > missing {
                violations.push(format!("{gap} packets are missing after {}", one.seq));
            }
        }
        violations.extend(follows(one, two, gap));
    }
    violations
}

/// A stream or a track begins with the first packet of something decodable.
fn begins(packet: &Received) -> Option<String> {
    let Some(stamp) = packet.stamp else {
        return Some(format!("number {} is no encoder's packet", packet.seq));
    };
    let good = stamp.keyframe && stamp.packet == 0;
    (!good).then(|| format!("number {} begins with {stamp:?}, no keyframe", packet.seq))
}

/// Whether `two` may come after `one`, with `gap` packets missing between them.
fn follows(one: &Received, two: &Received, gap: usize) -> Vec<String> {
    let (Some(a), Some(b)) = (one.stamp, two.stamp) else {
        return begins(two).into_iter().collect();
    };
    let mut violations = Vec::new();
    let at = two.seq;
    let passed = two.time.wrapping_sub(one.time) as i32;
    let same_run = a.run() == b.run();
    let same_frame = same_run && a.frame == b.frame;
    if same_frame && (passed != 0 || usize::from(b.packet) != usize::from(a.packet) + 1 + gap) {
        violations.push(format!("number {at} breaks a frame: {one:?}, {two:?}"));
    }
    if !same_frame && passed <= 0 {
        violations.push(format!(
            "at {at} time goes from {} to {}",
            one.time, two.time
        ));
    }
    if same_run && b.frame < a.frame {
        violations.push(format!(
            "at {at} frames go back from {} to {}",
            a.frame, b.frame
        ));
    }
    if !same_run && gap == 0 {
        violations.extend(begins(two));
    }
    if let (Some(ids_a), Some(ids_b)) = (one.vp8, two.vp8)
        && gap == 0
    {
        let step = u16::from(!same_frame);
        let picture = (ids_b.picture.wrapping_sub(ids_a.picture)) & 0x7FFF;
        let tl0 = u16::from(ids_b.tl0.wrapping_sub(ids_a.tl0));
        if (picture, tl0) != (step, step) {
            violations.push(format!("at {at} VP8 ids go from {ids_a:?} to {ids_b:?}"));
        }
    }
    violations
}

/// Everything on a slot is of the room and of the track the server said, in the order it said.
pub(crate) fn belongs(world: &World, seat: &Seat, line: &Line, told: &Assignments) -> Vec<String> {
    let mut violations = Vec::new();
    if line.ssrcs.len() > 1 {
        violations.push(format!(
            "a slot has one SSRC for life, this one had {:?}",
            line.ssrcs
        ));
    }
    let mut packets: Vec<_> = line.received.iter().collect();
    packets.sort_by_key(|packet| packet.seq);
    let mut place = 0;
    let mut run = None;
    for packet in packets {
        let Some(stamp) = packet.stamp else { continue };
        if run == Some(stamp.run()) {
            continue;
        }
        run = Some(stamp.run());
        let plays = |track: &TrackInfo| {
            world.peer_of(stamp.publisher) == Some(track.id.peer) && track.source == stamp.source
        };
        let found = told[place..]
            .iter()
            .position(|(_, track)| track.as_ref().is_some_and(plays));
        let Some(found) = found else {
            violations.push(format!(
                "number {} plays {stamp:?}, told {told:?}",
                packet.seq
            ));
            continue;
        };
        place += found;
        if told[place].0 > packet.at {
            violations.push(format!(
                "{stamp:?} arrived at {:?} before it was told",
                packet.at
            ));
        }
    }
    for (_, track) in told {
        let Some(track) = track else { continue };
        match world.tracks.get(&track.id) {
            None => violations.push(format!("{} was never published", track.id)),
            Some((room, _)) if *room != seat.client.room => {
                violations.push(format!("{} is of room {room}", track.id));
            }
            Some(_) if track.id.peer == seat.client.peer => {
                violations.push(format!("{} is the client's own", track.id));
            }
            Some(_) => {}
        }
    }
    violations
}

/// While a track plays in a slot, frames that can be shown keep coming.
pub(crate) fn liveness(
    line: &Line,
    told: &Assignments,
    longest: Duration,
    end: Duration,
) -> Vec<String> {
    // A track that has just been put in a slot first needs its keyframe.
    const START: Duration = Duration::from_millis(600);
    let mut violations = Vec::new();
    for (place, (since, track)) in told.iter().enumerate() {
        let Some(track) = track else { continue };
        let until = told.get(place + 1).map_or(end, |(at, _)| *at);
        let mut last = *since + START;
        let inside = line
            .shown
            .iter()
            .filter(|(at, kind)| *at > *since && *at <= until && *kind == track.kind);
        for (at, _) in inside
            .map(|(at, kind)| (*at, *kind))
            .chain([(until, track.kind)])
        {
            if at > last + longest {
                let gap = at - last;
                violations.push(format!("{} stood still for {gap:?} until {at:?}", track.id));
            }
            last = last.max(at);
        }
    }
    violations
}

/// The engines' counters agree with the world's, and nobody panicked.
pub(crate) fn conservation(world: &World) -> Vec<String> {
    let mut violations = Vec::new();
    for (index, (engine, traffic)) in world.shards().enumerate() {
        let stats = engine.stats();
        let mut expect = |what: &str, holds: bool| {
            if !holds {
                violations.push(format!(
                    "shard {index}: {what}: {stats:?}, world {traffic:?}"
                ));
            }
        };
        let dropped: u64 = Dropped::ALL
            .iter()
            .map(|reason| stats.dropped.count(*reason))
            .sum();
        let taken = traffic.datagrams_in + traffic.handed_in;
        expect("a peer panicked", stats.peer_panics == 0);
        expect("str0m sent in our name", stats.guarded == 0);
        expect("datagrams in", stats.datagrams_in == taken);
        expect(
            "datagrams out",
            stats.datagrams_out == traffic.datagrams_out,
        );
        expect("bytes out", stats.bytes_out == traffic.bytes_out);
        expect(
            "more forwarded than sent",
            stats.forwarded <= stats.datagrams_out,
        );
        let rtp = traffic
            .rtp_in
            .saturating_sub(stats.rtp_in + dropped + traffic.handed_out);
        expect(
            "RTP in that was neither counted nor dropped",
            rtp == 0 || stats.rtp_in >= 1,
        );
    }
    violations
}

/// Every gauge is zero and no engine wants to be woken soon.
pub(crate) fn quiet_exit(world: &World) {
    for (engine, _) in world.shards() {
        let Stats {
            rooms,
            peers,
            audio_tracks,
            video_tracks,
            subscriptions,
            addresses,
            peer_panics,
            ..
        } = engine.stats();
        let left = [
            rooms,
            peers,
            audio_tracks,
            video_tracks,
            subscriptions,
            addresses,
        ];
        assert_eq!(
            left, [0; 6],
            "rooms, peers, audio, video, subscriptions, addresses"
        );
        assert_eq!(peer_panics, 0);
        assert_eq!(engine.wakeup(), None, "an empty engine wants to sleep");
    }
}

/// Every client has every track of the others in its room in a slot, up to the slot limits.
pub(crate) fn everyone_watches_everyone(world: &World, limits: (usize, usize)) {
    for (index, seat) in world.present() {
        let others = world.present().filter(|(_, other)| {
            other.client.room == seat.client.room && other.client.peer != seat.client.peer
        });
        let (mut audio, mut video) = (0, 0);
        for (_, other) in others {
            let (sounds, pictures) = other.client.sending();
            audio += sounds;
            video += pictures;
        }
        let wanted = (audio.min(limits.0), video.min(limits.1));
        let tracks: Vec<&TrackInfo> = seat
            .client
            .lines
            .values()
            .filter_map(|line| line.track.as_ref())
            .collect();
        let count = |kind| tracks.iter().filter(|track| track.kind == kind).count();
        let watched = (count(Kind::Audio), count(Kind::Video));
        assert_eq!(watched, wanted, "client {index} watches (audio, video)");
        let mut ids: Vec<TrackId> = tracks.iter().map(|track| track.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(
            ids.len(),
            tracks.len(),
            "client {index} watches a track twice"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use fastrand::Rng;
    use str0m::format::Codec;

    use super::*;
    use crate::engine::command::Source;
    use crate::id::PeerId;
    use crate::sim::clock;
    use crate::sim::encoder::{Encoder, Rate, Stamp, Vp8Ids};
    use crate::sim::publish::Publish;
    use crate::sim::world::Setup;

    /// Five frames of one camera, then five of another, renumbered into one stream.
    fn stream() -> Vec<Received> {
        let mut received: Vec<Received> = Vec::new();
        let (mut time, mut picture) = (1000, 0);
        for publisher in 0..2 {
            let camera = (Source::Camera, Codec::Vp8, Rate::CAMERA);
            let now: Instant = clock::origin();
            let mut encoder = Encoder::new(now, &mut Rng::with_seed(1), publisher, camera);
            for _ in 0..5 {
                for packet in encoder.poll_frame() {
                    let seq = 10 + received.len() as u64;
                    received.push(Received {
                        at: Duration::from_millis(seq),
                        seq,
                        time,
                        marker: packet.marker,
                        payload: packet.payload.as_slice().into(),
                        stamp: Stamp::parse(&packet.payload),
                        descriptor: None,
                        vp8: Some(Vp8Ids {
                            picture,
                            tl0: picture as u8,
                        }),
                    });
                }
                time += 6000;
                picture += 1;
            }
        }
        received
    }

    fn broken(change: impl FnOnce(&mut Vec<Received>)) -> usize {
        let mut received = stream();
        change(&mut received);
        stream_law(&received, 0, Duration::from_secs(60)).len()
    }

    #[test]
    fn a_good_stream_is_lawful_in_any_order_of_arrival() {
        assert_eq!(broken(|_| {}), 0);
        assert_eq!(broken(|received| received.reverse()), 0);
    }

    #[test]
    fn every_law_is_seen_to_be_broken() {
        // A number used for two packets.
        assert_ne!(
            broken(|r| r.push(Received {
                seq: 12,
                ..r[3].clone()
            })),
            0
        );
        // A packet missing in the middle of a frame, and a whole frame missing.
        assert_ne!(broken(|r| r.retain(|p| p.seq != 11)), 0);
        assert_ne!(broken(|r| r.retain(|p| p.stamp.unwrap().frame != 2)), 0);
        // Time standing still or running back from one frame to the next.
        assert_ne!(broken(|r| r.iter_mut().for_each(|p| p.time = 7)), 0);
        assert_ne!(broken(|r| r.last_mut().unwrap().time = 0), 0);
        // A damaged packet.
        assert_ne!(broken(|r| r[4].stamp = None), 0);
        // The second track without its keyframe.
        assert_ne!(
            broken(|r| {
                let key = |p: &Received| {
                    let stamp = p.stamp.unwrap();
                    stamp.publisher == 1 && stamp.keyframe
                };
                let keys = r.iter().filter(|p| key(p)).count() as u64;
                r.retain(|p| !key(p));
                let later = r.iter_mut().filter(|p| p.stamp.unwrap().publisher == 1);
                later.for_each(|p| p.seq -= keys);
            }),
            0
        );
        // Picture ids that jump between tracks.
        assert_ne!(
            broken(|r| {
                let second = r.iter_mut().filter(|p| p.stamp.unwrap().publisher == 1);
                second.for_each(|p| p.vp8.as_mut().unwrap().picture += 100);
            }),
            0
        );
        // Not even the first keyframe.
        assert_ne!(broken(|r| drop(r.drain(..8))), 0);
    }

    /// Two clients in rooms that have nothing to do with each other.
    fn two_rooms() -> World {
        let mut world = World::new(Setup::seed(1));
        world.join(0, "one", &[Publish::camera(Codec::Vp8)]);
        world.join(0, "other", &[]);
        world
    }

    fn camera_of(peer: PeerId) -> TrackInfo {
        TrackInfo {
            id: TrackId { peer, number: 0 },
            kind: Kind::Video,
            source: Source::Camera,
        }
    }

    #[test]
    fn a_packet_of_a_stranger_is_seen() {
        let mut world = two_rooms();
        let track = camera_of(world.client(0).peer);
        let room = world.client(0).room.clone();
        world.tracks.insert(track.id, (room, track.clone()));
        let line = Line {
            received: stream().drain(..5).collect(),
            ..Line::default()
        };
        let seat = world.seats[1].as_ref().unwrap();
        // Nothing was said, yet something plays.
        assert_eq!(belongs(&world, seat, &line, &Vec::new()).len(), 1);
        // It was said, but it is of another room.
        let told = vec![(Duration::ZERO, Some(track.clone()))];
        assert_eq!(belongs(&world, seat, &line, &told).len(), 1);
        // It was said too late, and is of another room.
        let told = vec![(Duration::from_secs(1), Some(track))];
        assert_eq!(belongs(&world, seat, &line, &told).len(), 2);
    }

    #[test]
    fn a_frozen_picture_is_seen() {
        let world = two_rooms();
        let told = vec![(Duration::ZERO, Some(camera_of(world.client(0).peer)))];
        let shown = (1..10).map(|i| (Duration::from_millis(66 * i), Kind::Video));
        let mut line = Line {
            shown: shown.collect(),
            ..Line::default()
        };
        let end = Duration::from_millis(650);
        let gap = Duration::from_millis(100);
        assert_eq!(liveness(&line, &told, gap, end), Vec::<String>::new());
        assert_eq!(liveness(&line, &told, gap, 2 * end).len(), 1);
        line.shown.clear();
        assert_eq!(liveness(&line, &told, gap, 2 * end).len(), 1);
    }
}
