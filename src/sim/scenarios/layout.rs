//! Viewers that say how they show what they watch, and how good they want it.

use std::time::Duration;

use str0m::format::Codec;

use super::camera_of;
use crate::engine::allocate::{Quality, Reason};
use crate::engine::codec::Size;
use crate::engine::command::{Command, Shown};
use crate::id::TrackId;
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

const SECOND: Duration = Duration::from_secs(1);

/// Two who send three layers each, and one who watches.
fn watched(seed: u64) -> (World, [TrackId; 2]) {
    let mut world = World::new(Setup::seed(seed));
    for publishes in [
        &[Publish::layered(Codec::Vp8)][..],
        &[Publish::layered(Codec::Vp8)],
        &[],
    ] {
        world.join(0, "room", publishes);
    }
    world.run_until_connected();
    world.run(SECOND * 8);
    let tracks = [0, 1].map(|index| camera_of(&world, world.client(index).peer));
    (world, tracks)
}

/// What the viewer was told that it gets of a track.
fn told(world: &World, track: TrackId) -> (Option<u8>, Reason) {
    world.told[&(world.client(2).peer, track)]
}

fn show(world: &mut World, places: &[(TrackId, (u16, u16))]) {
    let peer = world.client(2).peer;
    let shown = |(width, height)| Shown {
        size: Size { width, height },
        priority: 0,
    };
    let layout = places.iter().map(|(track, size)| (*track, shown(*size)));
    let layout = layout.collect();
    world.command(0, Command::Show { peer, layout });
    world.run(SECOND * 4);
}

#[test]
fn each_picture_is_sent_as_large_as_it_is_shown() {
    let (mut world, [first, second]) = watched(95);
    assert_eq!(told(&world, first), (Some(2), Reason::Source));
    assert_eq!(told(&world, second), (Some(2), Reason::Source));
    show(&mut world, &[(first, (640, 360)), (second, (160, 90))]);
    assert_eq!(told(&world, first), (Some(1), Reason::Viewport));
    assert_eq!(told(&world, second), (Some(0), Reason::Viewport));
    show(&mut world, &[(first, (1920, 1080))]);
    assert_eq!(told(&world, first), (Some(2), Reason::Source));
    assert_eq!(
        told(&world, second),
        (Some(0), Reason::Viewport),
        "a thumbnail"
    );
    show(&mut world, &[(first, (0, 0)), (second, (640, 360))]);
    assert_eq!(told(&world, first).0, None);
    assert_eq!(told(&world, second), (Some(1), Reason::Viewport));
    show(&mut world, &[(first, (320, 180))]);
    assert_eq!(told(&world, first), (Some(0), Reason::Viewport));
}

#[test]
fn a_viewer_gets_no_better_than_it_asked_for() {
    let (mut world, [first, second]) = watched(96);
    let peer = world.client(2).peer;
    let mut cap = |track, quality| {
        world.command(
            0,
            Command::CapQuality {
                peer,
                track,
                quality,
            },
        );
        world.run(SECOND * 4);
        [first, second].map(|track| told(&world, track).0)
    };
    assert_eq!(cap(None, Quality::Low), [Some(0), Some(0)]);
    assert_eq!(cap(Some(first), Quality::Medium), [Some(1), Some(0)]);
    assert_eq!(cap(Some(first), Quality::High), [Some(2), Some(0)]);
    assert_eq!(cap(None, Quality::Auto), [Some(2), Some(2)]);
}
