//! Bad paths: loss, reordering, duplicates, too little capacity.

use std::time::Duration;

use super::room;
use crate::sim::link::Quality;
use crate::sim::oracle::{self, Law};
use crate::sim::world::World;

/// Changes the path of every client, both ways.
fn everyone(world: &mut World, quality: Quality) {
    for index in 0..world.seats.len() {
        world.set_quality(index, quality, quality);
    }
}

/// Lets the last retransmissions arrive.
fn settle(world: &mut World) {
    everyone(world, Quality::CLEAN);
    world.run(Duration::from_secs(2));
}

#[test]
fn three_percent_loss_both_ways_is_recovered() {
    for seed in [40, 41] {
        let mut world = room(seed, 3);
        world.run(Duration::from_secs(1));
        everyone(&mut world, Quality::lossy(0.03));
        world.run(Duration::from_secs(8));
        settle(&mut world);
        let law = Law {
            longest_gap: Duration::from_millis(300),
            missing_video: 0,
            missing_audio: 100,
        };
        oracle::check(&world, law);
    }
}

#[test]
fn reordered_and_doubled_packets_arrive_once_and_whole() {
    let mut world = room(42, 3);
    let quality = Quality {
        jitter: Duration::from_millis(15),
        reorder: 0.05,
        duplicate: 0.05,
        ..Quality::CLEAN
    };
    everyone(&mut world, quality);
    world.run(Duration::from_secs(5));
    settle(&mut world);
    let law = Law {
        longest_gap: Duration::from_millis(200),
        ..Law::CLEAN
    };
    oracle::check(&world, law);
}

#[test]
fn a_second_of_silence_is_survived() {
    let mut world = room(44, 3);
    world.run(Duration::from_secs(1));
    for victim in [0, 1] {
        world.set_quality(victim, Quality::lossy(1.0), Quality::lossy(1.0));
        world.run(Duration::from_secs(1));
        settle(&mut world);
    }
    let law = Law {
        longest_gap: Duration::from_millis(2200),
        missing_video: 300,
        missing_audio: 300,
    };
    oracle::check(&world, law);
}

#[test]
fn one_bad_path_harms_nobody_else() {
    let mut world = room(43, 4);
    let terrible = Quality {
        capacity: Some(200_000),
        queue_bytes: 20_000,
        loss: 0.2,
        ..Quality::CLEAN
    };
    // Its own downstream only: what it sends still reaches everyone.
    world.set_quality(3, Quality::CLEAN, terrible);
    world.run(Duration::from_secs(5));
    let suffering = world.vanish(3);
    assert!(suffering.client.errors.is_empty());
    world.run(Duration::from_millis(100));
    for (index, seat) in world.present() {
        for (mid, line) in &seat.client.lines {
            let end = world.time();
            let found = oracle::stream_law(&line.received, 0, end);
            assert!(found.is_empty(), "client {index}, m-line {mid}: {found:?}");
            let told = seat.slots.get(mid).cloned().unwrap_or_default();
            let gap = Duration::from_millis(300);
            let found = oracle::liveness(line, &told, gap, end);
            assert!(found.is_empty(), "client {index}, m-line {mid}: {found:?}");
        }
    }
}

#[test]
fn a_narrow_path_lowers_its_own_estimate_and_no_others() {
    let estimated = |narrow: Option<u64>| {
        let mut world = room(45, 2);
        world.run(Duration::from_secs(1));
        let down = Quality {
            capacity: narrow,
            ..Quality::CLEAN
        };
        world.set_quality(1, Quality::CLEAN, down);
        world.run(Duration::from_secs(8));
        let (engine, _) = world.shards().next().unwrap();
        engine.stats().estimated_bps
    };
    let (both_wide, one_narrow) = (estimated(None), estimated(Some(200_000)));
    let wide = both_wide / 2;
    assert!(
        one_narrow > wide,
        "the wide path's estimate stays: {one_narrow} of {both_wide}"
    );
    assert!(
        one_narrow < wide + 300_000,
        "the narrow path is known: {one_narrow} of {both_wide}"
    );
}
