//! Who may publish, who wants to watch, and what an administrator silences.

use std::time::Duration;

use super::{camera_of, room};
use crate::engine::command::{Command, Permissions};
use crate::id::TrackId;
use crate::sim::oracle::{self, Law};
use crate::sim::world::World;

/// What plays to a client, in order of name.
fn playing(world: &World, index: usize) -> Vec<TrackId> {
    let playing = super::playing(world, index);
    let mut playing: Vec<_> = playing.iter().map(|track| track.id).collect();
    playing.sort();
    playing
}

#[test]
fn a_track_that_is_not_wanted_does_not_play_until_it_is() {
    let mut world = room(81, 3);
    world.run(Duration::from_secs(1));
    let camera = camera_of(&world, world.client(0).peer);
    let peer = world.client(1).peer;
    let wish = |is_wanted| Command::Subscribe {
        peer,
        tracks: vec![camera],
        is_wanted,
    };
    world.command(0, wish(false));
    world.run(Duration::from_secs(2));
    assert!(!playing(&world, 1).contains(&camera));
    assert_eq!(playing(&world, 1).len(), 3);
    assert!(playing(&world, 2).contains(&camera));
    world.command(0, wish(true));
    world.run(Duration::from_secs(2));
    assert!(playing(&world, 1).contains(&camera));
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_silenced_track_plays_to_nobody() {
    let mut world = room(82, 3);
    world.run(Duration::from_secs(1));
    let track = camera_of(&world, world.client(0).peer);
    for is_silent in [true, false] {
        world.command(0, Command::Silence { track, is_silent });
        world.run(Duration::from_secs(2));
        for viewer in [1, 2] {
            assert_eq!(playing(&world, viewer).contains(&track), !is_silent);
        }
    }
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn who_may_no_longer_publish_or_watch_does_not() {
    let mut world = room(83, 3);
    world.run(Duration::from_secs(1));
    let peer = world.client(0).peer;
    let permissions = Permissions {
        microphone: true,
        ..Permissions::NONE
    };
    world.command(0, Command::Permit { peer, permissions });
    world.run(Duration::from_secs(2));
    let of_others: Vec<_> = playing(&world, 1);
    let of_first: Vec<_> = of_others
        .iter()
        .filter(|track| track.peer == peer)
        .collect();
    assert_eq!(of_first.len(), 1, "the voice goes on, the camera does not");
    assert!(playing(&world, 0).is_empty());
    let permissions = Permissions::ALL;
    world.command(0, Command::Permit { peer, permissions });
    world.run(Duration::from_secs(2));
    assert_eq!(playing(&world, 0).len(), 4);
}
