//! Publishers with several layers, and viewers on paths of all kinds.

use std::time::Duration;

use str0m::format::Codec;

use crate::engine::command::{self, Command, Kind, Source};
use crate::sim::link::Quality;
use crate::sim::oracle;
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

const LAYERED: [Publish; 2] = [Publish::VOICE, Publish::layered(Codec::Vp8)];

const SECOND: Duration = Duration::from_secs(1);

/// A path down with 200 ms of queue.
pub(super) fn narrow(bits_per_s: u64) -> Quality {
    Quality {
        capacity: Some(bits_per_s),
        queue_bytes: bits_per_s as usize / 8 / 5,
        ..Quality::CLEAN
    }
}

/// A token bucket: what Linux does with `tbf rate 500kbit burst 16kb latency 300ms`.
pub(super) const BUCKET: Quality = Quality {
    capacity: Some(500_000),
    queue_bytes: 18_750,
    burst_bytes: 16 * 1024,
    ..Quality::CLEAN
};

/// One who sends three layers, and viewers on these paths.
pub(super) fn watched(seed: u64, paths: &[Quality]) -> World {
    let mut world = World::new(Setup::seed(seed));
    world.join(0, "room", &LAYERED);
    for path in paths {
        let viewer = world.join(0, "room", &[]);
        world.set_quality(viewer, Quality::CLEAN, *path);
    }
    world.run_until_connected();
    world
}

/// The layer of each video packet a viewer got since then, in order of arrival.
fn layers(world: &World, viewer: usize, since: Duration) -> Vec<(Duration, u8)> {
    let lines = world.client(viewer).lines.values();
    let packets = lines.flat_map(|line| &line.received);
    let mut layers: Vec<_> = packets
        .filter(|packet| packet.at >= since)
        .filter_map(|packet| Some((packet.at, packet.stamp?)))
        .filter(|(_, stamp)| stamp.source == Source::Camera)
        .map(|(at, stamp)| (at, stamp.layer))
        .collect();
    layers.sort_by_key(|(at, _)| *at);
    layers
}

/// The layer a viewer got last.
pub(super) fn layer(world: &World, viewer: usize) -> Option<u8> {
    let since = world.time() - SECOND / 2;
    layers(world, viewer, since).last().map(|(_, layer)| *layer)
}

/// When a viewer could show pictures.
fn shown(world: &World, viewer: usize) -> Vec<Duration> {
    let lines = world.client(viewer).lines.values();
    let pictures = lines.flat_map(|line| &line.shown);
    let mut shown: Vec<_> = pictures
        .filter(|(_, kind)| *kind == Kind::Video)
        .map(|(at, _)| *at)
        .collect();
    shown.sort();
    shown
}

/// The longest time without a picture between these two moments.
pub(super) fn longest_gap(world: &World, viewer: usize, from: Duration, to: Duration) -> Duration {
    let shown = shown(world, viewer);
    let inside = shown.into_iter().filter(|at| *at > from && *at < to);
    let mut before = from;
    let mut longest = Duration::ZERO;
    for at in inside.chain([to]) {
        longest = longest.max(at - before);
        before = at;
    }
    longest
}

/// Every viewer's streams are unbroken but for what its path lost.
pub(super) fn check_streams(world: &World, missing: usize) {
    for (index, seat) in world.present() {
        assert_eq!(seat.client.errors, Vec::<String>::new(), "client {index}");
        for (mid, line) in &seat.client.lines {
            let found = oracle::stream_law(&line.received, missing, world.time());
            assert!(found.is_empty(), "client {index}, m-line {mid}: {found:?}");
        }
    }
}

#[test]
fn a_wide_path_gets_the_biggest_layer_and_a_narrow_one_what_fits() {
    let mut world = watched(60, &[Quality::CLEAN, narrow(1_000_000), narrow(300_000)]);
    world.run(SECOND * 20);
    let got = [1, 2, 3].map(|viewer| layer(&world, viewer));
    assert_eq!(got, [Some(2), Some(1), Some(0)]);
    let since = world.time() - SECOND * 5;
    for viewer in [1, 2, 3] {
        let gap = longest_gap(&world, viewer, since, world.time());
        assert!(gap < Duration::from_millis(300), "client {viewer}: {gap:?}");
    }
    check_streams(&world, usize::MAX);
}

#[test]
fn a_layer_that_its_publisher_stops_is_left_without_a_freeze() {
    let mut world = watched(61, &[Quality::CLEAN]);
    world.run(SECOND * 6);
    assert_eq!(layer(&world, 1), Some(2));
    let stopped = world.time();
    world.act(0, |client, _| client.set_layer(Source::Camera, 2, false));
    world.run(SECOND * 5);
    assert_eq!(layer(&world, 1), Some(1));
    let gap = longest_gap(&world, 1, stopped, world.time());
    assert!(gap <= Duration::from_millis(500), "{gap:?}");
    world.act(0, |client, _| client.set_layer(Source::Camera, 2, true));
    world.run(SECOND * 5);
    assert_eq!(layer(&world, 1), Some(2));
    check_streams(&world, 0);
}

/// Within no two seconds from then on more than 1.25 times that was sent to the viewer.
fn check_within(world: &World, from: Duration, capacity: u64) {
    let most = world.busiest_down(1, from);
    assert!(most * 4 <= capacity * 5, "{most} of {capacity} bit/s");
}

#[test]
fn a_path_that_falls_and_rises_gets_what_fits_and_never_freezes() {
    let mut world = watched(62, &[narrow(3_000_000)]);
    let joined = world.time();
    world.run(SECOND * 10);
    assert_eq!(layer(&world, 1), Some(2));
    check_within(&world, joined + SECOND * 2, 3_000_000);
    let fell = world.time();
    world.set_quality(1, Quality::CLEAN, narrow(400_000));
    world.run(SECOND * 15);
    let after = layers(&world, 1, fell);
    let smaller = after.iter().find(|(_, layer)| *layer == 0);
    let down = smaller.expect("it goes down").0 - fell;
    assert!(down <= Duration::from_millis(1500), "down after {down:?}");
    assert_eq!(layer(&world, 1), Some(0));
    check_within(&world, fell + SECOND * 2, 400_000);
    let rose = world.time();
    world.set_quality(1, Quality::CLEAN, narrow(3_000_000));
    world.run(SECOND * 20);
    let after = layers(&world, 1, rose);
    let bigger = after.iter().find(|(_, layer)| *layer == 2);
    let up = bigger.expect("it goes up").0 - rose;
    assert!(up <= SECOND * 15, "up after {up:?}");
    check_within(&world, rose + SECOND * 2, 3_000_000);
    // What was on its way fills 200 ms of queue, and what comes after it is lost until that is
    // noticed.
    let gap = longest_gap(&world, 1, fell - SECOND, world.time());
    assert!(gap <= Duration::from_millis(500), "{gap:?}");
    check_streams(&world, usize::MAX);
}

#[test]
fn five_per_cent_of_loss_at_60_ms_freezes_nobody() {
    let lossy = Quality {
        delay: Duration::from_millis(30),
        loss: 0.05,
        ..Quality::CLEAN
    };
    let mut world = World::new(Setup::seed(63));
    world.join(0, "room", &LAYERED);
    let viewer = world.join(0, "room", &[]);
    world.set_quality(viewer, Quality { loss: 0.0, ..lossy }, lossy);
    world.run_until_connected();
    world.run(SECOND * 5);
    let from = world.time();
    world.run(SECOND * 60);
    let gap = longest_gap(&world, viewer, from, world.time());
    assert!(gap <= Duration::from_millis(400), "{gap:?}");
}

#[test]
fn a_token_bucket_of_500_kbit_per_s_keeps_its_layer_and_never_freezes() {
    for seed in 670..674 {
        let mut world = watched(seed, &[BUCKET]);
        world.run(SECOND * 2);
        let from = world.time();
        world.run(SECOND * 40);
        let gap = longest_gap(&world, 1, from, world.time());
        let after = layers(&world, 1, from);
        let switches: Vec<_> = after
            .windows(2)
            .filter(|pair| pair[0].1 != pair[1].1)
            .map(|pair| pair[1])
            .collect();
        let low = after.iter().filter(|(_, layer)| *layer == 0).count();
        assert!(gap <= SECOND / 2, "{seed}: {gap:?}, {switches:?}");
        // Now and then it is tried whether the next layer fits.
        assert!(switches.len() <= 8, "{seed}: {switches:?}");
        assert!(
            low * 3 > after.len() * 2,
            "{seed}: {low} of {}",
            after.len()
        );
    }
}

#[test]
fn ten_viewers_on_ten_paths_each_get_the_best_that_fits() {
    const KBPS: [u64; 10] = [200, 300, 500, 700, 900, 1_500, 2_500, 4_000, 6_000, 10_000];
    let mut world = watched(64, &KBPS.map(|kbps| narrow(kbps * 1_000)));
    world.run(SECOND * 30);
    // 150, 500 and 1500 kbit/s, with sound and headers.
    let best = |kbps: u64| match kbps * 3 / 4 {
        0..=580 => 0,
        581..=1_700 => 1,
        _ => 2,
    };
    let settled: Vec<_> = (1..=10).map(|viewer| layer(&world, viewer)).collect();
    for (kbps, got) in KBPS.iter().zip(&settled) {
        assert!(*got >= Some(best(*kbps)), "{kbps} kbit/s: {settled:?}");
    }
    world.set_quality(10, Quality::CLEAN, narrow(150_000));
    world.run(SECOND * 15);
    let after: Vec<_> = (1..10).map(|viewer| layer(&world, viewer)).collect();
    assert_eq!(after, settled[..9], "one bad path changes nobody else's");
}

#[test]
fn a_hundred_switches_leave_one_unbroken_stream() {
    let mut world = watched(65, &[Quality::CLEAN]);
    world.run(SECOND * 5);
    let peer = world.client(1).peer;
    for turn in 0..100 {
        let quality = match turn % 2 {
            0 => command::Quality::Low,
            _ => command::Quality::High,
        };
        let track = None;
        world.command(
            0,
            Command::CapQuality {
                peer,
                track,
                quality,
            },
        );
        world.run(SECOND);
    }
    let switches = layers(&world, 1, SECOND * 3)
        .windows(2)
        .filter(|pair| pair[0].1 != pair[1].1)
        .count();
    assert!(switches >= 95, "{switches} switches");
    check_streams(&world, 0);
    let gap = longest_gap(&world, 1, SECOND * 5, world.time());
    assert!(gap <= Duration::from_millis(200), "{gap:?}");
}

/// What the only publisher was told that nobody watches, in order.
fn unwanted(world: &World) -> Vec<&str> {
    let mut tracks = world.unwanted.values();
    let mut rids: Vec<_> = tracks
        .next()
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    assert!(tracks.next().is_none(), "one track has layers");
    rids.sort_unstable();
    rids
}

#[test]
fn a_publisher_is_told_which_layers_nobody_watches_and_when_somebody_does() {
    let mut world = watched(68, &[Quality::CLEAN, narrow(300_000)]);
    world.run(SECOND * 8);
    assert_eq!(unwanted(&world), [""; 0], "a narrow path may become wide");
    let cap = |world: &mut World, quality| {
        for viewer in [1, 2] {
            let (peer, track) = (world.client(viewer).peer, None);
            let command = Command::CapQuality {
                peer,
                track,
                quality,
            };
            world.command(0, command);
        }
    };
    cap(&mut world, command::Quality::Low);
    world.run(SECOND * 4);
    assert_eq!(unwanted(&world), [""; 0], "it has not lasted");
    world.run(SECOND * 3);
    assert_eq!(unwanted(&world), ["a", "c"]);
    for layer in [1, 2] {
        world.act(0, |client, _| {
            client.set_layer(Source::Camera, layer, false)
        });
    }
    world.run(SECOND * 5);
    assert_eq!(layer(&world, 1), Some(0));
    cap(&mut world, command::Quality::High);
    world.run(SECOND / 5);
    assert_eq!(unwanted(&world), [""; 0]);
    for layer in [1, 2] {
        world.act(0, |client, _| client.set_layer(Source::Camera, layer, true));
    }
    world.run(SECOND * 3);
    assert_eq!(layer(&world, 1), Some(2));
    check_streams(&world, usize::MAX);
}

#[test]
fn who_comes_late_sees_a_picture_five_round_trips_after_the_answer() {
    let delayed = Quality {
        delay: Duration::from_millis(20),
        ..Quality::CLEAN
    };
    let mut world = watched(66, &[Quality::CLEAN]);
    world.run(SECOND * 6);
    let late = world.join(0, "room", &[]);
    world.set_quality(late, delayed, delayed);
    world.run(SECOND * 2);
    let (answered, first) = (world.client(late).answered, shown(&world, late)[0]);
    let took = first - answered.expect("it was answered");
    assert!(took <= Duration::from_millis(5 * 40 + 50), "{took:?}");
}
