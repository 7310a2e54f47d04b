//! Who comes while others are long there, and what that costs those who publish.

use std::collections::BTreeSet;
use std::time::Duration;

use str0m::format::Codec;

use super::svc::{check_stream, pictures};
use crate::engine::command::{Kind, Source};
use crate::sim::layered::Mode;
use crate::sim::link::Quality;
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

const SECOND: Duration = Duration::from_secs(1);

/// Five round trips and 50 ms.
const SOON: Duration = Duration::from_millis(5 * 40 + 50);

/// The way up, and a bit.
const WAY_UP: Duration = Duration::from_millis(12);

/// A call that somebody enters at 40 ms of round trip, in its sixth second.
fn entered(seed: u64, publish: Publish) -> (World, usize) {
    let mut world = World::new(Setup::seed(seed));
    world.join(0, "room", &[Publish::VOICE, publish]);
    world.join(0, "room", &[]);
    world.run_until_connected();
    world.run(SECOND * 6);
    let late = world.join(0, "room", &[]);
    let delayed = Quality {
        delay: Duration::from_millis(20),
        ..Quality::CLEAN
    };
    world.set_quality(late, delayed, delayed);
    (world, late)
}

/// When the server can send to everyone, in milliseconds from now.
fn until_connected(world: &mut World) -> u64 {
    let connected = |world: &World| {
        world
            .shards()
            .map(|(e, _)| e.stats().connected)
            .sum::<u64>()
    };
    let before = connected(world);
    let within = (0..1_000).find(|_| {
        world.run(Duration::from_millis(1));
        connected(world) > before
    });
    within.expect("it connects within a second")
}

/// How many keyframes a client has got.
fn keyframes(world: &World, viewer: usize) -> usize {
    let lines = world.client(viewer).lines.values();
    let packets = lines.flat_map(|line| &line.received);
    let video = packets.filter_map(|packet| Some((packet.time, packet.stamp?)));
    let keys = video.filter(|(_, s)| s.source == Source::Camera && s.keyframe);
    keys.map(|(time, _)| time).collect::<BTreeSet<_>>().len()
}

/// Lets time pass until a client shows a picture, and says since when it could.
fn until_picture(world: &mut World, viewer: usize, publish: Publish) -> Duration {
    let mut shown = (0..100).filter_map(|_| {
        world.run(Duration::from_millis(5));
        match publish.in_one_stream {
            None => first_picture(world, viewer),
            Some(_) => first_of_layers(world, viewer),
        }
    });
    shown
        .next()
        .expect("it sees something within half a second")
}

/// When a client could first show a picture.
fn first_picture(world: &World, viewer: usize) -> Option<Duration> {
    let lines = world.client(viewer).lines.values();
    let shown = lines.flat_map(|line| &line.shown);
    let shown = shown.filter(|(_, kind)| *kind == Kind::Video);
    shown.map(|(at, _)| *at).min()
}

/// Likewise of layers in one stream, all of which must be decodable.
fn first_of_layers(world: &World, viewer: usize) -> Option<Duration> {
    check_stream(world, viewer);
    pictures(world, viewer).first().map(|(at, _)| *at)
}

#[test]
fn who_comes_right_after_a_keyframe_sees_it_and_no_other_is_asked_for() {
    for (seed, publish) in [
        (720, Publish::camera(Codec::Vp8)),
        (721, Publish::camera(Codec::H264)),
        (722, Publish::layered(Codec::Vp8)),
        (723, Publish::in_one_stream(Codec::Av1, Mode::Full)),
        (724, Publish::in_one_stream(Codec::Vp9, Mode::Keyed)),
    ] {
        let (mut rehearsal, _) = entered(seed, publish);
        let connects = Duration::from_millis(until_connected(&mut rehearsal));
        for age in [0, 15, 30] {
            let (mut world, late) = entered(seed, publish);
            // The next frame is one, and has arrived by then.
            let takes = publish.rate.frame_interval + WAY_UP + Duration::from_millis(age);
            world.run(connects - takes);
            let (asked, seen) = (world.client(0).keyframe_requests, keyframes(&world, 1));
            world.act(0, |client, _| client.request_keyframe(Source::Camera));
            let first = until_picture(&mut world, late, publish);
            let took = first - world.client(late).answered.expect("it was answered");
            let name = format!("{publish:?}, {age} ms after it");
            assert!(took <= SOON, "{name}: {took:?}");
            assert_eq!(world.client(0).keyframe_requests, asked, "{name}: requests");
            assert_eq!(keyframes(&world, 1), seen + 1, "{name}: keyframes");
            if publish.simulcast.is_empty() {
                // What follows fits what was given again; of layers a bigger one may begin.
                world.run(SECOND);
                assert_eq!(world.client(0).keyframe_requests, asked, "{name}: requests");
            }
        }
    }
}
