//! Rooms with more people than places: who speaks is heard and seen.

use std::time::Duration;

use super::CAMERA_AND_VOICE;
use crate::engine::command::{Kind, Source};
use crate::id::{PeerId, RoomId};
use crate::sim::oracle::{self, Law};
use crate::sim::publish::Publish;
use crate::sim::world::{Setup, World};

const SILENT: i8 = 90;
const SPEECH: i8 = 25;

/// Clients that publish this and are silent, in a room where few are heard and seen.
fn crowd(seed: u64, size: usize, publishes: &[Publish]) -> World {
    let mut world = World::new(Setup {
        max_audio_slots: 3,
        max_video_slots: 2,
        ..Setup::seed(seed)
    });
    for _ in 0..size {
        let client = world.join(0, "room", publishes);
        world.act(client, |client, _| client.level = SILENT);
    }
    world.run_until_connected();
    world.run(Duration::from_secs(3));
    world
}

fn speak(world: &mut World, client: usize, level: i8) {
    world.act(client, |client, _| client.level = level);
}

/// Whose tracks of a kind play to a client, as the server says.
fn playing(world: &World, client: usize, kind: Kind) -> Vec<PeerId> {
    let of_kind = super::playing(world, client).into_iter();
    let of_kind = of_kind.filter(|track| track.kind == kind);
    let mut playing: Vec<_> = of_kind.map(|track| track.id.peer).collect();
    playing.sort();
    playing
}

fn speakers(world: &World) -> Vec<PeerId> {
    let room = RoomId::parse("room").unwrap();
    world.speakers.get(&room).cloned().unwrap_or_default()
}

#[test]
fn who_begins_to_speak_is_heard_and_seen_by_everyone() {
    let mut world = crowd(90, 8, &CAMERA_AND_VOICE);
    assert!(speakers(&world).is_empty());
    let late = world.client(7).peer;
    for viewer in 0..7 {
        assert_eq!(playing(&world, viewer, Kind::Audio).len(), 3);
        assert_eq!(playing(&world, viewer, Kind::Video).len(), 2);
        assert!(!playing(&world, viewer, Kind::Audio).contains(&late));
    }
    speak(&mut world, 7, SPEECH);
    world.run(Duration::from_secs(1));
    assert_eq!(speakers(&world), [late]);
    for viewer in 0..7 {
        for kind in [Kind::Audio, Kind::Video] {
            assert!(
                playing(&world, viewer, kind).contains(&late),
                "{viewer} {kind:?}"
            );
        }
    }
    let before: Vec<_> = (0..8).map(|i| playing(&world, i, Kind::Audio)).collect();
    speak(&mut world, 7, SILENT);
    world.run(Duration::from_secs(5));
    assert!(speakers(&world).is_empty());
    let after: Vec<_> = (0..8).map(|i| playing(&world, i, Kind::Audio)).collect();
    assert_eq!(before, after, "nobody takes the place of who fell silent");
    oracle::check(&world, Law::CLEAN);
}

#[test]
fn a_silence_without_packets_ends_speech() {
    let mut world = crowd(91, 2, &[Publish::VOICE]);
    speak(&mut world, 0, SPEECH);
    world.run(Duration::from_secs(1));
    assert_eq!(speakers(&world), [world.client(0).peer]);
    for client in [0, 1] {
        world.act(client, |client, _| {
            client.set_layer(Source::Microphone, 0, false)
        });
    }
    world.run(Duration::from_secs(3));
    assert!(speakers(&world).is_empty());
}

#[test]
fn a_shared_screen_is_seen_whoever_speaks() {
    let screen = Publish {
        source: Source::Screen,
        ..CAMERA_AND_VOICE[1]
    };
    let mut world = crowd(92, 5, &CAMERA_AND_VOICE);
    let sharer = world.join(0, "room", &[screen]);
    world.run_until_connected();
    let shared = world.client(sharer).peer;
    for speaker in [1, 2, 3] {
        speak(&mut world, speaker, SPEECH);
    }
    world.run(Duration::from_secs(2));
    assert_eq!(speakers(&world).len(), 3);
    for viewer in 0..5 {
        assert!(
            playing(&world, viewer, Kind::Video).contains(&shared),
            "{viewer}"
        );
    }
    oracle::check(&world, Law::CLEAN);
}
