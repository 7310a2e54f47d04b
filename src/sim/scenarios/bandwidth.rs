//! Paths that carry more or less than what plays: pacing, probing, pausing.

use std::time::Duration;

use str0m::format::Codec;

use crate::engine::command::{Kind, Source};
use crate::engine::stats::{Dropped, Stats};
use crate::sim::encoder::Rate;
use crate::sim::link::Quality;
use crate::sim::oracle;
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

/// 2.4 Mbit/s in one layer.
const SHARP: Publish = Publish {
    source: Source::Camera,
    codec: Codec::Vp8,
    rate: Rate {
        frame_interval: Duration::from_millis(33),
        delta_bytes: 9_900,
        key_bytes: 40_000,
        percent: [100; 4],
        size: (1280, 720),
    },
    simulcast: &[],
    in_one_stream: None,
    also_receives: false,
};

/// The viewer's place.
const VIEWER: usize = 1;

/// Somebody sharp and audible, and somebody who only watches.
fn watched(seed: u64) -> World {
    let mut world = World::new(Setup::seed(seed));
    world.join(0, "room", &[Publish::VOICE, SHARP]);
    world.join(0, "room", &[]);
    world.run_until_connected();
    world
}

fn stats(world: &World) -> Stats {
    let (engine, _) = world.shards().next().unwrap();
    engine.stats()
}

/// A path down with 300 ms of queue.
fn narrow(bits_per_s: u64) -> Quality {
    Quality {
        capacity: Some(bits_per_s),
        queue_bytes: bits_per_s as usize / 8 * 3 / 10,
        ..Quality::CLEAN
    }
}

/// When the viewer could show frames of a kind, since the world began.
fn shown(world: &World, kind: Kind) -> Vec<Duration> {
    let lines = world.client(VIEWER).lines.values();
    lines
        .flat_map(|line| &line.shown)
        .filter(|(_, shown)| *shown == kind)
        .map(|(at, _)| *at)
        .collect()
}

/// The longest time without a frame from `from` on.
fn longest_gap(frames: &[Duration], from: Duration, to: Duration) -> Duration {
    let within = frames.iter().copied().filter(|at| (from..to).contains(at));
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in within.chain([to]) {
        longest = longest.max(at.saturating_sub(before));
        before = at;
    }
    longest
}

#[test]
fn a_stream_above_the_first_estimate_is_shown_while_probing_finds_out() {
    let mut world = watched(50);
    let joined = world.time();
    world.run(Duration::from_secs(5));
    let frames = shown(&world, Kind::Video);
    let gap = longest_gap(&frames, joined + Duration::from_millis(600), world.time());
    assert!(gap < Duration::from_millis(150), "{gap:?}");
    let stats = stats(&world);
    assert_eq!(stats.dropped.count(Dropped::Paused), 0);
    assert!(stats.estimated_bps > 2_400_000, "{}", stats.estimated_bps);
}

#[test]
fn a_path_that_falls_below_the_stream_keeps_its_sound_and_gets_its_picture_back() {
    let mut world = watched(51);
    world.run(Duration::from_secs(4));
    world.set_quality(VIEWER, Quality::CLEAN, narrow(400_000));
    world.run(Duration::from_secs(4));
    let settled = world.time();
    let mut queued = Duration::ZERO;
    for _ in 0..80 {
        world.run(Duration::from_millis(100));
        queued = queued.max(world.queue_down(VIEWER));
    }
    assert!(queued <= Duration::from_millis(50), "{queued:?}");
    let sound = shown(&world, Kind::Audio);
    let gap = longest_gap(&sound, settled, world.time());
    assert!(gap < Duration::from_millis(100), "{gap:?}");
    assert!(stats(&world).dropped.count(Dropped::Paused) > 0);

    let widened = world.time();
    world.set_quality(VIEWER, Quality::CLEAN, narrow(5_000_000));
    world.run(Duration::from_secs(20));
    let frames = shown(&world, Kind::Video);
    let gap = longest_gap(&frames, widened + Duration::from_secs(15), world.time());
    assert!(gap < Duration::from_millis(150), "{gap:?}");
    assert!(stats(&world).estimated_bps > 2_400_000);
    for line in world.client(VIEWER).lines.values() {
        // What the narrow path lost is lost.
        let found = oracle::stream_law(&line.received, usize::MAX, world.time());
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn who_is_not_heard_of_is_sent_sound_and_no_sharp_picture() {
    let mut world = watched(55);
    world.run(Duration::from_secs(4));
    world.set_quality(VIEWER, Quality::lossy(1.0), Quality::CLEAN);
    world.run(Duration::from_secs(6));
    let (silent, before) = (world.time(), stats(&world).bytes_out);
    world.run(Duration::from_secs(4));
    let bits_per_s = (stats(&world).bytes_out - before) * 8 / 4;
    assert!(bits_per_s < 150_000, "{bits_per_s}");
    let sound = shown(&world, Kind::Audio);
    let gap = longest_gap(&sound, silent, world.time());
    assert!(gap < Duration::from_millis(100), "{gap:?}");
}

#[test]
fn two_percent_of_loss_by_chance_does_not_stop_the_picture() {
    let mut world = watched(52);
    world.run(Duration::from_secs(2));
    world.set_quality(VIEWER, Quality::CLEAN, Quality::lossy(0.02));
    let began = world.time();
    world.run(Duration::from_secs(20));
    let frames = shown(&world, Kind::Video);
    let gap = longest_gap(&frames, began, world.time());
    assert!(gap < Duration::from_millis(300), "{gap:?}");
    assert_eq!(stats(&world).dropped.count(Dropped::Paused), 0);
}

#[test]
fn a_keyframe_leaves_in_parts_and_sound_between_them() {
    let mut world = watched(53);
    world.run(Duration::from_secs(4));
    let before = stats(&world).paced;
    world.act(0, |client, _| client.request_keyframe(Source::Camera));
    world.run(Duration::from_secs(1));
    assert!(stats(&world).paced > before);
    let end = world.time();
    let sound = shown(&world, Kind::Audio);
    let gap = longest_gap(&sound, end - Duration::from_secs(1), end);
    assert!(gap <= Duration::from_millis(30), "{gap:?}");
}

#[test]
fn who_wants_no_more_is_sent_no_padding() {
    let mut world = World::new(Setup::seed(54));
    for _ in 0..3 {
        world.join(0, "room", &[Publish::VOICE]);
    }
    world.run_until_connected();
    world.run(Duration::from_secs(10));
    assert_eq!(stats(&world).padding, 0);
    let sound = shown(&world, Kind::Audio);
    assert!(sound.len() > 900, "{}", sound.len());
}
