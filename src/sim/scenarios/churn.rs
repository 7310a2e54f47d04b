//! Many come and go, and nothing is left.

use std::time::Duration;

use super::{CAMERA_AND_VOICE, room};
use crate::engine::command::{CloseReason, MissingStep};
use crate::sim::oracle;
use crate::sim::world::{Setup, World};

#[test]
fn all_leave_and_nothing_is_left() {
    let mut world = room(80, 3);
    world.run(Duration::from_secs(1));
    for index in 0..3 {
        world.leave(index);
    }
    world.run(Duration::from_secs(1));
    oracle::quiet_exit(&world);
    assert_eq!(world.closed.len(), 3);
}

#[test]
fn two_hundred_joins_and_leaves_leave_nothing() {
    let mut world = World::new(Setup::seed(81));
    for index in 0..200 {
        world.join(0, ["one", "two", "three"][index % 3], &CAMERA_AND_VOICE);
        world.run(Duration::from_millis(60 + 10 * (index as u64 % 7)));
        let Some(oldest) = index.checked_sub(5) else {
            continue;
        };
        if oldest % 8 == 3 {
            drop(world.vanish(oldest));
        } else {
            world.leave(oldest);
        }
    }
    for index in 195..200 {
        world.leave(index);
    }
    // Those that vanished are noticed when ICE consent has expired.
    world.run(Duration::from_secs(60));
    oracle::quiet_exit(&world);
    assert_eq!(world.closed.len(), 200);
}

#[test]
fn one_who_vanishes_is_noticed() {
    let mut world = room(82, 2);
    world.run(Duration::from_secs(1));
    let gone = world.vanish(0).client.peer;
    world.run(Duration::from_secs(45));
    let reasons: Vec<_> = world
        .closed
        .iter()
        .filter(|(peer, _)| *peer == gone)
        .collect();
    assert_eq!(reasons, [&(gone, CloseReason::ConnectionLost)]);
    let watching = world
        .client(1)
        .lines
        .values()
        .filter(|line| line.track.is_some());
    assert_eq!(watching.count(), 0);
}

#[test]
fn one_who_never_connects_is_noticed() {
    let mut world = World::new(Setup::seed(83));
    world.join(0, "room", &CAMERA_AND_VOICE);
    // Long enough for the offer to have been sent, too short for ICE to be done.
    world.run(Duration::from_millis(12));
    let gone = world.vanish(0).client.peer;
    world.run(Duration::from_secs(60));
    assert_eq!(
        world.closed,
        [(gone, CloseReason::ConnectTimeout(MissingStep::Stun))]
    );
    oracle::quiet_exit(&world);
}
