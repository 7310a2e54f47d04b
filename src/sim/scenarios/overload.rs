//! A shard with too much to do sends less, and all of it again when it has less to do.

use std::collections::BTreeSet;
use std::time::Duration;

use super::simulcast::{check_streams, layer, longest_gap, watched};
use super::{CAMERA_AND_VOICE, playing};
use crate::engine::command::{Command, Kind, Source, Spared};
use crate::sim::link::Quality;
use crate::sim::oracle;
use crate::sim::world::{Setup, World};

const SECOND: Duration = Duration::from_secs(1);
const SILENT: i8 = 90;
const SPEECH: i8 = 25;

/// Clients in the room of a viewer with a place for each.
const CROWD: usize = 6;

fn spare(world: &mut World, spared: Spared) {
    world.command(0, Command::Spare(spared));
}

/// Whose pictures a client got in the last second.
fn seen(world: &World, viewer: usize) -> BTreeSet<u32> {
    let since = world.time() - SECOND;
    let packets = world.client(viewer).lines.values();
    let packets = packets.flat_map(|line| &line.received);
    let stamps = packets.filter(|packet| packet.at >= since);
    let stamps = stamps.filter_map(|packet| packet.stamp);
    stamps
        .filter(|stamp| stamp.source == Source::Camera)
        .map(|stamp| stamp.publisher)
        .collect()
}

#[test]
fn the_top_layer_is_given_up_without_a_freeze_and_comes_back() {
    let mut world = watched(120, &[Quality::CLEAN]);
    world.run(SECOND * 8);
    assert_eq!(layer(&world, 1), Some(2));
    let began = world.time();
    spare(
        &mut world,
        Spared {
            top_layers: true,
            videos: None,
        },
    );
    world.run(SECOND * 4);
    assert_eq!(layer(&world, 1), Some(1));
    spare(&mut world, Spared::default());
    world.run(SECOND * 6);
    assert_eq!(layer(&world, 1), Some(2));
    let gap = longest_gap(&world, 1, began, world.time());
    assert!(gap <= Duration::from_millis(500), "{gap:?}");
    check_streams(&world, 0);
}

#[test]
fn the_few_who_are_left_are_those_who_spoke_last_and_everyone_comes_back() {
    let mut world = World::new(Setup::seed(121));
    for _ in 0..CROWD {
        let client = world.join(0, "room", &CAMERA_AND_VOICE);
        world.act(client, |client, _| client.level = SILENT);
    }
    world.run_until_connected();
    world.run(SECOND * 4);
    let speak = |world: &mut World, client: usize| {
        world.act(client, |client, _| client.level = SPEECH);
        world.run(SECOND * 4);
        world.act(client, |client, _| client.level = SILENT);
        world.run(SECOND * 4);
    };
    speak(&mut world, 4);
    assert_eq!(seen(&world, 0), BTreeSet::from([1, 2, 3, 4, 5]));
    spare(
        &mut world,
        Spared {
            top_layers: true,
            videos: Some(2),
        },
    );
    world.run(SECOND * 4);
    let few = seen(&world, 0);
    assert!(few.len() == 2 && few.contains(&4), "{few:?}");
    speak(&mut world, 3);
    speak(&mut world, 5);
    for viewer in [0, 1, 2] {
        assert_eq!(seen(&world, viewer), BTreeSet::from([3, 5]), "{viewer}");
    }
    let slots = playing(&world, 0);
    let slots = slots.iter().filter(|track| track.kind == Kind::Video);
    assert_eq!(slots.count(), CROWD - 1, "places stay as they are");
    spare(&mut world, Spared::default());
    world.run(SECOND * 6);
    assert_eq!(seen(&world, 0), BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(oracle::conservation(&world), Vec::<String>::new());
    check_streams(&world, 0);
}
