//! Rooms never mix, wherever the kernel drops a datagram.

use std::time::Duration;

use super::CAMERA_AND_VOICE;
use crate::sim::oracle::{self, Law};
use crate::sim::world::{Setup, Steering, World};

const LIMITS: (usize, usize) = (3, 9);

/// Two rooms of three, on this many shards.
fn two_rooms(setup: Setup) -> World {
    let mut world = World::new(setup);
    for index in 0..6 {
        let (shard, room) = if index % 2 == 0 {
            (0, "even")
        } else {
            (usize::from(setup.shards) - 1, "odd")
        };
        world.join(shard, room, &CAMERA_AND_VOICE);
    }
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    world
}

#[test]
fn two_rooms_of_one_shard_never_mix() {
    let world = two_rooms(Setup::seed(20));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn two_rooms_of_two_shards_never_mix() {
    let setup = Setup {
        shards: 2,
        ..Setup::seed(21)
    };
    let world = two_rooms(setup);
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
    assert!(world.shards().all(|(_, traffic)| traffic.handed_in == 0));
}

#[test]
fn a_datagram_on_the_wrong_socket_reaches_its_shard() {
    for steering in [Steering::Hash, Steering::Wrong] {
        let setup = Setup {
            shards: 2,
            steering,
            ..Setup::seed(22)
        };
        let world = two_rooms(setup);
        oracle::everyone_watches_everyone(&world, LIMITS);
        oracle::check(&world, Law::CLEAN);
        assert!(world.shards().any(|(_, traffic)| traffic.handed_in > 100));
    }
}

#[test]
fn a_peer_that_leaves_is_forgotten_by_every_shard() {
    let setup = Setup {
        shards: 2,
        steering: Steering::Wrong,
        ..Setup::seed(23)
    };
    let mut world = two_rooms(setup);
    for index in 0..6 {
        world.leave(index);
    }
    world.run(Duration::from_secs(1));
    let before: Vec<_> = world.shards().map(|(_, t)| t.handed_out).collect();
    let late = std::net::SocketAddr::from(([10, 0, 0, 1], 40_000));
    for _ in 0..100 {
        world.inject(late, vec![0x80; 100]);
    }
    world.run(Duration::from_secs(1));
    let after: Vec<_> = world.shards().map(|(_, t)| t.handed_out).collect();
    assert_eq!(before, after, "nothing is handed over for a peer that left");
    oracle::quiet_exit(&world);
}
