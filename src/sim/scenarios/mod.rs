//! What happens in rooms: one test a story.

mod bandwidth;
mod call;
mod caps;
mod change;
mod churn;
mod garbage;
mod keys;
mod layout;
mod loss;
mod repeat;
mod rooms;
mod simulcast;
mod speakers;
mod stock;
mod wishes;

use str0m::format::Codec;

use super::publish::Publish;
use super::world::{Setup, World};

/// What most clients publish.
const CAMERA_AND_VOICE: [Publish; 2] = [Publish::VOICE, Publish::camera(Codec::Vp8)];

/// One room of this many, connected.
fn room(seed: u64, size: usize) -> World {
    let mut world = World::new(Setup::seed(seed));
    for _ in 0..size {
        world.join(0, "room", &CAMERA_AND_VOICE);
    }
    world.run_until_connected();
    world
}
