//! One who sends more than may be sent.

use std::time::Duration;

use str0m::format::Codec;

use crate::engine::caps::{Cap, Caps};
use crate::engine::command::{Kind, Source};
use crate::engine::stats::Dropped;
use crate::sim::oracle;
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

/// Three in a room, of whom only the first sends more than a voice: how many of its pictures the
/// second was sent, and how many voices the third; and what was dropped.
fn room(caps: Caps) -> (usize, usize, [u64; 3]) {
    let mut world = World::new(Setup {
        caps,
        ..Setup::seed(71)
    });
    let loud = world.join(0, "room", &[Publish::VOICE, Publish::layered(Codec::Vp8)]);
    let first = world.join(0, "room", &[Publish::VOICE]);
    let second = world.join(0, "room", &[Publish::VOICE]);
    world.run_until_connected();
    world.run(Duration::from_secs(5));
    let loud = world.client(loud).peer;
    let received = |index, kind, is_loud: bool| {
        let lines = world.client(index).lines.values();
        let of = lines.filter(|line| {
            let track = line.track.as_ref();
            track.is_some_and(|t| t.kind == kind && (t.id.peer == loud) == is_loud)
        });
        of.map(|line| line.received.len()).sum::<usize>()
    };
    let pictures = received(first, Kind::Video, true);
    let voices = received(second, Kind::Audio, false);
    let (engine, _) = world.shards().next().expect("there is one");
    let dropped = [Dropped::PeerCap, Dropped::RoomCap, Dropped::ServerCap];
    let dropped = dropped.map(|reason| engine.stats().dropped.count(reason));
    assert_eq!(oracle::conservation(&world), Vec::<String>::new());
    assert!(world.client(second).publishes(Source::Microphone));
    (pictures, voices, dropped)
}

#[test]
fn one_who_floods_is_cut_down_and_the_voices_of_the_others_go_on() {
    let (pictures, voices, dropped) = room(Caps::NONE);
    assert_eq!(dropped, [0; 3]);
    let peer = Cap {
        bits: 300_000,
        packets: 200,
    };
    let (fewer, same, dropped) = room(Caps { peer, ..Caps::NONE });
    assert!(fewer < pictures, "{fewer} of {pictures}");
    assert!(same.abs_diff(voices) <= 2, "{same} of {voices}");
    assert!(dropped[0] > 500 && dropped[1..] == [0, 0], "{dropped:?}");
}

#[test]
fn a_room_and_a_shard_take_in_no_more_than_they_may() {
    let cap = Cap {
        bits: 400_000,
        packets: 0,
    };
    let (_, _, dropped) = room(Caps {
        room: cap,
        ..Caps::NONE
    });
    assert!(
        dropped[1] > 500 && dropped[0] + dropped[2] == 0,
        "{dropped:?}"
    );
    let (_, _, dropped) = room(Caps {
        shard: cap,
        ..Caps::NONE
    });
    assert!(
        dropped[2] > 500 && dropped[0] + dropped[1] == 0,
        "{dropped:?}"
    );
}
