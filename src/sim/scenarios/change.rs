//! What changes during a call: tracks stop and start, addresses and credentials change.

use std::time::Duration;

use super::{CAMERA_AND_VOICE, room};
use crate::engine::command::Source;
use crate::sim::oracle::{self, Law};

const LIMITS: (usize, usize) = (3, 9);

#[test]
fn a_camera_that_stops_leaves_its_slots_and_comes_back_with_a_keyframe() {
    let mut world = room(60, 3);
    world.run(Duration::from_secs(2));
    for _ in 0..2 {
        world.act(0, |client, now| client.switch(now, Source::Camera, false));
        world.run(Duration::from_secs(1));
        oracle::everyone_watches_everyone(&world, LIMITS);
        world.act(0, |client, now| client.switch(now, Source::Camera, true));
        world.run(Duration::from_secs(2));
        oracle::everyone_watches_everyone(&world, LIMITS);
    }
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_slot_is_used_again_by_the_next_track() {
    let mut world = room(61, 2);
    world.run(Duration::from_secs(1));
    for _ in 0..4 {
        let newest = world.seats.len() - 1;
        world.leave(newest);
        world.run(Duration::from_millis(500));
        world.join(0, "room", &CAMERA_AND_VOICE);
        world.run_until_connected();
        world.run(Duration::from_secs(2));
        oracle::everyone_watches_everyone(&world, LIMITS);
    }
    let lines = &world.client(0).lines;
    assert_eq!(lines.len(), 2, "one audio and one video slot are enough");
    assert!(lines.values().all(|line| line.ssrcs.len() == 1));
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn an_ice_restart_stops_no_media() {
    let mut world = room(62, 3);
    world.run(Duration::from_secs(1));
    world.act(1, |client, now| client.restart_ice(now));
    world.run(Duration::from_secs(5));
    oracle::everyone_watches_everyone(&world, LIMITS);
    let law = Law {
        longest_gap: Duration::from_millis(500),
        missing_video: 100,
        missing_audio: 100,
    };
    oracle::check(&world, law);
}

#[test]
fn a_client_whose_address_changes_is_found_again() {
    let mut world = room(63, 3);
    world.run(Duration::from_secs(2));
    world.rebind(1);
    world.run(Duration::from_secs(25));
    let law = Law {
        longest_gap: Duration::from_secs(3),
        missing_video: 1000,
        missing_audio: 1000,
    };
    oracle::check(&world, law);
    let (engine, _) = world.shards().next().unwrap();
    assert!(
        engine.stats().addresses <= 4,
        "an old address is not kept for long"
    );
}
