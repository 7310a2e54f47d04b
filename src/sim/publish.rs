//! What a client publishes.

use str0m::format::Codec;

use super::encoder::Rate;
use super::layered::Mode;
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
    /// Its encodings, each with its RID; none without simulcast. The first is what `rate` says.
    pub(crate) simulcast: &'static [(&'static str, Rate)],
    /// How its encodings depend on each other when they are layers of one stream, which then has no
    /// RIDs and a payload that nobody can read.
    pub(crate) in_one_stream: Option<Mode>,
    /// Whether its m-line also receives, as in a client that adds its tracks and nothing else.
    pub(crate) also_receives: bool,
}

/// Three layers, offered the biggest last; their names say nothing.
const LAYERS: [(&str, Rate); 3] = [
    ("b", Rate::pictures(320, 180, 150)),
    ("c", Rate::pictures(640, 360, 500)),
    ("a", Rate::pictures(1280, 720, 1500)),
];

impl Publish {
    /// A microphone.
    pub(crate) const VOICE: Self = Self {
        source: Source::Microphone,
        codec: Codec::Opus,
        rate: Rate::VOICE,
        simulcast: &[],
        in_one_stream: None,
        also_receives: false,
    };

    /// A camera.
    pub(crate) const fn camera(codec: Codec) -> Self {
        Self {
            source: Source::Camera,
            codec,
            rate: Rate::CAMERA,
            simulcast: &[],
            in_one_stream: None,
            also_receives: false,
        }
    }

    /// A camera in three layers: 150, 500 and 1500 kbit/s.
    pub(crate) const fn layered(codec: Codec) -> Self {
        Self {
            rate: LAYERS[0].1,
            simulcast: &LAYERS,
            ..Self::camera(codec)
        }
    }

    /// The same in one stream: 150, 500 and 1500 kbit/s, each beside those below it.
    pub(crate) const fn in_one_stream(codec: Codec, mode: Mode) -> Self {
        Self {
            in_one_stream: Some(mode),
            ..Self::layered(codec)
        }
    }
}
