//! The sections of `config/media.yaml`, with their defaults.

use serde::{Deserialize, Serialize};

use super::sections::BitsPerSecond;
use super::value::Whole;

/// All of `config/media.yaml`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaFile {
    /// Pictures.
    pub video: Video,
    /// Sound.
    pub audio: Audio,
}

/// Section `video`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    /// Codecs, the one with the highest priority first choice.
    pub codecs: Vec<Codec<VideoCodec>>,
    /// What cameras are asked for.
    pub resolutions: Resolutions,
    /// The qualities a camera sends, the smallest first.
    pub simulcast: Vec<Quality>,
}

/// Section `audio`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audio {
    /// Codecs, the one with the highest priority first choice.
    pub codecs: Vec<Codec<AudioCodec>>,
    /// What browsers do to a microphone's sound.
    pub processing: Processing,
}

/// A codec and how much it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codec<Name> {
    /// Which.
    pub name: Name,
    /// More is preferred.
    pub priority: Whole<0, 1_000>,
}

/// A video codec this server forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VideoCodec {
    /// RFC 6386, in RTP by RFC 7741.
    VP8,
    /// In RTP by RFC 9628.
    VP9,
    /// In RTP by RFC 6184.
    H264,
    /// In RTP by the AV1 RTP specification.
    AV1,
}

/// An audio codec this server forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioCodec {
    /// RFC 6716, in RTP by RFC 7587.
    Opus,
}

/// Section `video.resolutions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resolutions {
    /// The one asked for first.
    pub preferred: Resolution,
}

/// A picture's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// In pixels.
    pub width: Pixels,
    /// In pixels.
    pub height: Pixels,
}

/// A length in pixels, up to 8K.
pub type Pixels = Whole<16, 8_192>;

/// One encoding of a camera's picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// In pixels.
    pub width: Pixels,
    /// In pixels.
    pub height: Pixels,
    /// At most, in bit/s.
    pub bitrate: BitsPerSecond,
    /// At most, in pictures a second.
    pub framerate: Whole<1, 120>,
}

/// Section `audio.processing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processing {
    /// Whether the loudspeaker's sound is taken out.
    pub echo_cancellation: bool,
    /// Whether background noise is taken out.
    pub noise_suppression: bool,
}

impl Default for Video {
    fn default() -> Self {
        let codec = |name, priority| Codec { name, priority };
        let quality = |width, height, bitrate, framerate| Quality {
            width,
            height,
            bitrate,
            framerate,
        };
        Self {
            codecs: vec![
                codec(VideoCodec::VP8, const { Whole::new(100) }),
                codec(VideoCodec::VP9, const { Whole::new(90) }),
                codec(VideoCodec::H264, const { Whole::new(80) }),
                codec(VideoCodec::AV1, const { Whole::new(70) }),
            ],
            resolutions: Resolutions::default(),
            simulcast: vec![
                quality(
                    const { Whole::new(320) },
                    const { Whole::new(240) },
                    const { Whole::new(150_000) },
                    const { Whole::new(15) },
                ),
                quality(
                    const { Whole::new(640) },
                    const { Whole::new(480) },
                    const { Whole::new(500_000) },
                    const { Whole::new(30) },
                ),
                quality(
                    const { Whole::new(1_280) },
                    const { Whole::new(720) },
                    const { Whole::new(2_500_000) },
                    const { Whole::new(30) },
                ),
            ],
        }
    }
}

impl Default for Resolutions {
    fn default() -> Self {
        Self {
            preferred: Resolution {
                width: const { Whole::new(1_280) },
                height: const { Whole::new(720) },
            },
        }
    }
}

impl Default for Audio {
    fn default() -> Self {
        Self {
            codecs: vec![Codec {
                name: AudioCodec::Opus,
                priority: const { Whole::new(100) },
            }],
            processing: Processing::default(),
        }
    }
}

impl Default for Processing {
    fn default() -> Self {
        Self {
            echo_cancellation: true,
            noise_suppression: true,
        }
    }
}
