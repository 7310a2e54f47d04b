//! What a client publishes.

use str0m::format::Codec;

use super::encoder::Rate;
use crate::engine::command::Source;

/// A track that a client publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publish {
    /// Where it comes from; at most one track of each.
    pub(crate) source: Source,
    /// How it is encoded.
    pub(crate) codec: Codec,
    /// How much of it there is.
    pub(crate) rate: Rate,
    /// Whether its m-line also receives, as in a client that adds its tracks and nothing else.
    pub(crate) also_receives: bool,
}

impl Publish {
    /// A microphone.
    pub(crate) const VOICE: Self = Self {
        source: Source::Microphone,
        codec: Codec::Opus,
        rate: Rate::VOICE,
        also_receives: false,
    };

    /// A camera.
    pub(crate) const fn camera(codec: Codec) -> Self {
        Self {
            source: Source::Camera,
            codec,
            rate: Rate::CAMERA,
            also_receives: false,
        }
    }
}
