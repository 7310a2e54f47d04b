//! Publishers with layers in one stream, whose payloads nobody can read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use str0m::format::Codec;

use super::simulcast::{BUCKET, narrow};
use crate::engine::codec::dependency::{Descriptor, Structure};
use crate::engine::command::{Command, Quality as Cap, Source};
use crate::sim::encoder::Rate;
use crate::sim::layered::Mode;
use crate::sim::link::Quality;
use crate::sim::publish::Publish;
use crate::sim::received::Received;
use crate::sim::world::{Setup, World};

const SECOND: Duration = Duration::from_secs(1);

/// One who sends three layers in one stream, and viewers on these paths.
fn watched(seed: u64, codec: Codec, mode: Mode, paths: &[Quality]) -> World {
    let mut world = World::new(Setup::seed(seed));
    world.join(
        0,
        "room",
        &[Publish::VOICE, Publish::in_one_stream(codec, mode)],
    );
    for path in paths {
        let viewer = world.join(0, "room", &[]);
        world.set_quality(viewer, Quality::CLEAN, *path);
    }
    world.run_until_connected();
    world
}

/// The video packets a viewer got, by number.
fn video(world: &World, viewer: usize) -> BTreeMap<u64, &Received> {
    let lines = world.client(viewer).lines.values();
    let packets = lines.flat_map(|line| &line.received);
    packets
        .filter(|packet| packet.stamp.is_some_and(|s| s.source == Source::Camera))
        .map(|packet| (packet.seq, packet))
        .collect()
}

/// The layers of each picture that came whole: when it did, and the highest of its frames.
pub(super) fn pictures(world: &World, viewer: usize) -> Vec<(Duration, u8)> {
    let mut frames: BTreeMap<(u32, u8), (BTreeSet<u8>, u8, Duration)> = BTreeMap::new();
    for packet in video(world, viewer).values() {
        let stamp = packet.stamp.expect("only those are asked for");
        let frame = frames.entry((stamp.frame, stamp.layer)).or_default();
        frame.0.insert(stamp.packet);
        (frame.1, frame.2) = (stamp.packets, frame.2.max(packet.at));
    }
    let mut pictures: BTreeMap<u32, (Duration, u8)> = BTreeMap::new();
    for ((picture, layer), (packets, of, at)) in frames {
        if packets.len() == usize::from(of) {
            let whole = pictures.entry(picture).or_default();
            *whole = (whole.0.max(at), whole.1.max(layer));
        }
    }
    pictures.into_values().collect()
}

/// The highest layer of the last pictures a viewer got: of the very last some may be on its way.
fn layer(world: &World, viewer: usize) -> Option<u8> {
    let pictures = pictures(world, viewer);
    let last = pictures.iter().rev().take(5);
    last.map(|(_, layer)| *layer).max()
}

/// The times between pictures from then on.
fn gaps(world: &World, viewer: usize, from: Duration) -> impl Iterator<Item = Duration> {
    let mut times: Vec<_> = pictures(world, viewer).iter().map(|(at, _)| *at).collect();
    times.retain(|at| *at >= from);
    times.sort();
    (1..times.len()).map(move |at| times[at] - times[at - 1])
}

/// The longest time without a picture from then on.
fn longest_gap(world: &World, viewer: usize, from: Duration) -> Duration {
    gaps(world, viewer, from).max().unwrap_or(Duration::MAX)
}

/// What a decoder needs of a stream from which nothing was lost: no number is missing, every frame
/// refers to frames that came, each picture ends with a marker, and what is said to be active is
/// what comes. Returns the last of that.
pub(super) fn check_stream(world: &World, viewer: usize) -> u32 {
    let packets: Vec<_> = video(world, viewer).into_values().collect();
    let mut structure: Option<Structure> = None;
    let (mut active, mut seen) = (0, BTreeSet::new());
    for pair in packets.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "a number is missing");
        let is_last = pair[0].time != pair[1].time;
        assert_eq!(pair[0].marker, is_last, "number {}", pair[0].seq);
    }
    for packet in packets {
        let bytes = packet.descriptor.as_ref().expect("each has a descriptor");
        let read = Descriptor::parse(bytes, structure.as_ref()).expect("it can be read");
        structure = read.attached.clone().or(structure);
        active = read.active.unwrap_or(active);
        for distance in read.references.as_slice() {
            let needed = read.frame.wrapping_sub(*distance);
            assert!(seen.contains(&needed), "{} needs {needed}", read.frame);
        }
        seen.insert(read.frame);
    }
    active
}

fn cap(world: &mut World, viewer: usize, quality: Cap) {
    let peer = world.client(viewer).peer;
    let track = None;
    world.command(
        0,
        Command::CapQuality {
            peer,
            track,
            quality,
        },
    );
}

#[test]
fn each_viewer_gets_the_layers_that_its_path_carries_of_a_stream_nobody_can_read() {
    for (seed, codec, mode) in [
        (700, Codec::Av1, Mode::Full),
        (701, Codec::Av1, Mode::Keyed),
        (702, Codec::Vp9, Mode::Keyed),
    ] {
        let paths = [Quality::CLEAN, narrow(1_000_000), narrow(300_000)];
        let mut world = watched(seed, codec, mode, &paths);
        world.run(SECOND * 20);
        let got = [1, 2, 3].map(|viewer| layer(&world, viewer));
        let told = &world.told;
        assert_eq!(
            got,
            [Some(2), Some(1), Some(0)],
            "{codec} {mode:?}: {told:?}"
        );
        assert_eq!(check_stream(&world, 1), 0b111);
        let since = world.time() - SECOND * 5;
        for viewer in [1, 2, 3] {
            let gap = longest_gap(&world, viewer, since);
            assert!(gap < Duration::from_millis(300), "client {viewer}: {gap:?}");
        }
    }
}

#[test]
fn forty_switches_of_layers_in_one_stream_leave_it_decodable() {
    for (seed, mode) in [(703, Mode::Full), (704, Mode::Keyed)] {
        let mut world = watched(seed, Codec::Av1, mode, &[Quality::CLEAN]);
        world.run(SECOND * 5);
        let from = world.time();
        for turn in 0..40 {
            let (quality, wanted) = match turn % 2 {
                0 => (Cap::Low, 0),
                _ => (Cap::High, 2),
            };
            cap(&mut world, 1, quality);
            world.run(SECOND);
            assert_eq!(layer(&world, 1), Some(wanted), "{mode:?}, turn {turn}");
            let active = check_stream(&world, 1);
            assert_eq!(active, if wanted == 0 { 0b001 } else { 0b111 });
        }
        let gap = longest_gap(&world, 1, from);
        assert!(gap <= Duration::from_millis(200), "{mode:?}: {gap:?}");
    }
}

#[test]
fn a_smaller_layer_of_a_full_stream_needs_no_keyframe() {
    let mut world = watched(705, Codec::Av1, Mode::Full, &[Quality::CLEAN]);
    world.run(SECOND * 6);
    assert_eq!(layer(&world, 1), Some(2));
    let requests = world.client(0).keyframe_requests;
    cap(&mut world, 1, Cap::Low);
    world.run(SECOND);
    assert_eq!(layer(&world, 1), Some(0));
    assert_eq!(world.client(0).keyframe_requests, requests);
}

#[test]
fn loss_in_a_stream_of_layers_is_made_up_for() {
    let mut world = watched(706, Codec::Av1, Mode::Full, &[Quality::lossy(0.05)]);
    world.set_quality(0, Quality::lossy(0.02), Quality::CLEAN);
    world.run(SECOND * 3);
    let from = world.time();
    world.run(SECOND * 20);
    let gap = longest_gap(&world, 1, from);
    assert!(gap <= Duration::from_millis(400), "{gap:?}");
}

#[test]
fn who_comes_late_gets_a_keyframe_of_a_stream_of_layers() {
    let mut world = watched(707, Codec::Av1, Mode::Keyed, &[Quality::CLEAN]);
    world.run(SECOND * 6);
    let late = world.join(0, "room", &[]);
    world.run(SECOND * 3);
    assert_eq!(layer(&world, late), Some(2));
    check_stream(&world, late);
    world.leave(0);
    world.join(0, "room", &[Publish::in_one_stream(Codec::Av1, Mode::Full)]);
    world.run(SECOND * 5);
    assert_eq!(
        layer(&world, late),
        Some(2),
        "another publisher, the same slot"
    );
}

#[test]
fn a_publisher_is_told_which_spatial_layers_nobody_watches() {
    let mut world = watched(708, Codec::Vp9, Mode::Keyed, &[Quality::CLEAN]);
    world.run(SECOND * 8);
    assert!(world.unwanted_spatial.is_empty());
    cap(&mut world, 1, Cap::Low);
    world.run(SECOND * 8);
    let told = |world: &World| world.unwanted_spatial.values().next().cloned();
    assert_eq!(told(&world), Some(vec![2]), "two are always wanted");
    assert!(world.unwanted.values().all(Vec::is_empty));
    cap(&mut world, 1, Cap::High);
    world.run(SECOND / 5);
    assert_eq!(told(&world), Some(vec![]));
}

/// Ten pictures a second, of which every fourth is a big one.
const SLOW: [(&str, Rate); 3] = [
    ("", Rate::slow_pictures(320, 180, 140)),
    ("", Rate::slow_pictures(640, 360, 430)),
    ("", Rate::slow_pictures(1280, 720, 1450)),
];

#[test]
fn slow_pictures_through_a_token_bucket_seldom_stand_still() {
    for seed in [741, 743, 746] {
        let publish = Publish {
            rate: SLOW[0].1,
            simulcast: &SLOW,
            ..Publish::in_one_stream(Codec::Av1, Mode::Keyed)
        };
        let mut world = World::new(Setup::seed(seed));
        world.join(0, "room", &[publish]);
        let viewer = world.join(0, "room", &[]);
        world.set_quality(viewer, Quality::CLEAN, BUCKET);
        world.run_until_connected();
        world.run(SECOND * 3);
        let from = world.time();
        for _ in 0..300 {
            world.run(SECOND / 5);
            let (engine, _) = world.shards().next().expect("there is one shard");
            let kbps = engine.stats().estimated_bps / 1000;
            assert!(
                kbps <= 800,
                "seed {seed}: {kbps} kbit/s at {:?}",
                world.time()
            );
        }
        // Browsers count a freeze where a picture comes three times later than they do at large.
        let gaps = gaps(&world, viewer, from);
        let freezes: Vec<_> = gaps.filter(|gap| *gap > SECOND * 3 / 10).collect();
        assert!(freezes.len() <= 2, "seed {seed}: {freezes:?} in a minute");
        let longest = freezes.into_iter().max().unwrap_or_default();
        assert!(longest < SECOND * 7 / 10, "seed {seed}: {longest:?}");
    }
}
