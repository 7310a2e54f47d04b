//! The same seed is the same story.

use std::time::Duration;

use super::CAMERA_AND_VOICE;
use crate::sim::link::Quality;
use crate::sim::trace::{self, Entry};
use crate::sim::world::{Setup, Steering, World};

/// Everything at once: two shards, hand-overs, loss, a joiner, a leaver.
fn story(seed: u64) -> Vec<Entry> {
    let setup = Setup {
        shards: 2,
        steering: Steering::Hash,
        ..Setup::seed(seed)
    };
    let mut world = World::new(setup);
    world.trace = Some(Vec::new());
    for index in 0..6 {
        let room = ["zero", "one"][index % 2];
        world.join(index % 2, room, &CAMERA_AND_VOICE);
    }
    world.run_until_connected();
    for index in 0..6 {
        let quality = Quality {
            jitter: Duration::from_millis(5),
            reorder: 0.02,
            ..Quality::lossy(0.03)
        };
        world.set_quality(index, quality, quality);
    }
    world.run(Duration::from_secs(1));
    world.leave(2);
    world.join(0, "zero", &CAMERA_AND_VOICE);
    world.run(Duration::from_secs(2));
    world.trace.take().unwrap()
}

#[test]
fn one_seed_leaves_one_trace() {
    let (one, two) = (story(100), story(100));
    assert!(one.len() > 5000);
    assert_eq!(trace::first_difference(&one, &two), None);
}

#[test]
fn another_seed_leaves_another_trace() {
    assert!(trace::first_difference(&story(100), &story(101)).is_some());
}
