//! What happens in rooms: one test a story.

mod bandwidth;
mod call;
mod caps;
mod change;
mod churn;
mod figures;
mod garbage;
mod keys;
mod late;
mod layout;
mod loss;
mod overload;
mod repeat;
mod rooms;
mod simulcast;
mod speakers;
mod stock;
mod svc;
mod wishes;

use str0m::format::Codec;

use super::publish::Publish;
use super::world::{Setup, World};
use crate::engine::command::{Kind, TrackInfo};
use crate::id::{PeerId, TrackId};

/// What most clients publish.
const CAMERA_AND_VOICE: [Publish; 2] = [Publish::VOICE, Publish::camera(Codec::Vp8)];

/// What plays to a client, as the server says.
fn playing(world: &World, index: usize) -> Vec<TrackInfo> {
    let (_, seat) = world.present().find(|(i, _)| *i == index).unwrap();
    let slots = seat.slots.values().filter_map(|told| told.last());
    slots.filter_map(|(_, track)| track.clone()).collect()
}

/// What a peer publishes with its camera.
fn camera_of(world: &World, peer: PeerId) -> TrackId {
    let mut tracks = world.tracks.values();
    let found = tracks.find(|(_, track)| track.id.peer == peer && track.kind == Kind::Video);
    found.unwrap().1.id
}

/// One room of this many, connected.
fn room(seed: u64, size: usize) -> World {
    let mut world = World::new(Setup::seed(seed));
    for _ in 0..size {
        world.join(0, "room", &CAMERA_AND_VOICE);
    }
    world.run_until_connected();
    world
}
