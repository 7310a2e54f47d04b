//! Calls of several sizes on clean paths.

use std::time::Duration;

use str0m::format::Codec;

use super::{CAMERA_AND_VOICE, room};
use crate::engine::command::Source;
use crate::sim::oracle::{self, Law};
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

const LIMITS: (usize, usize) = (3, 9);

#[test]
fn two_see_and_hear_each_other() {
    let mut world = room(1, 2);
    world.run(Duration::from_secs(5));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn five_see_and_hear_each_other() {
    let mut world = room(2, 5);
    world.run(Duration::from_secs(5));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn thirty_watch_as_many_as_they_have_slots() {
    let mut world = room(3, 30);
    world.run(Duration::from_secs(3));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn every_codec_passes() {
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        let mut world = World::new(Setup::seed(4));
        for _ in 0..2 {
            world.join(0, "room", &[Publish::VOICE, Publish::camera(codec)]);
        }
        world.run_until_connected();
        world.run(Duration::from_secs(3));
        oracle::everyone_watches_everyone(&world, LIMITS);
        oracle::check(&world, Law::CLEAN);
    }
}

#[test]
fn a_camera_and_a_screen_do_not_mix() {
    let screen = Publish {
        source: Source::Screen,
        ..Publish::camera(Codec::Vp9)
    };
    let mut world = World::new(Setup::seed(5));
    for _ in 0..3 {
        let tracks = [Publish::VOICE, Publish::camera(Codec::Vp8), screen];
        world.join(0, "room", &tracks);
    }
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_client_that_adds_only_its_own_tracks_receives_in_their_lines() {
    let both = |publish| Publish {
        also_receives: true,
        ..publish
    };
    let mut world = World::new(Setup::seed(6));
    for _ in 0..2 {
        world.join(0, "room", &CAMERA_AND_VOICE.map(both));
    }
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    for (_, seat) in world.present() {
        assert_eq!(seat.client.lines.len(), 2);
    }
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn one_who_only_watches_sees_everyone() {
    let mut world = room(7, 2);
    world.run(Duration::from_secs(1));
    world.join(0, "room", &[]);
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_late_joiner_gets_a_keyframe_and_nobody_else_notices() {
    let mut world = room(8, 3);
    world.run(Duration::from_secs(2));
    let late = world.join(0, "room", &CAMERA_AND_VOICE);
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    assert_eq!(world.client(late).lines.len(), 6);
    oracle::everyone_watches_everyone(&world, LIMITS);
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn one_alone_uses_nobody_elses_bandwidth() {
    let mut world = room(9, 1);
    world.run(Duration::from_secs(3));
    oracle::check(&world, Law::CLEAN);
    let (engine, _) = world.shards().next().unwrap();
    assert_eq!(engine.stats().forwarded, 0);
}
