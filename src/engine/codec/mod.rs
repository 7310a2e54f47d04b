//! Facts about one RTP payload: keyframe, layers, picture numbers. No state.
//!
//! Every function here takes any bytes, never panics, and looks at each byte at most once.

pub mod av1;
pub(crate) mod bits;
pub mod dependency;
pub mod h264;
pub mod red;
pub mod vp8;
pub mod vp9;

pub use vp8::{Vp8Descriptor, Vp8Numbers};

/// The codecs that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// The AOMedia "RTP Payload Format For AV1".
    Av1,
}

impl Codec {
    /// Every codec that is forwarded.
    pub const ALL: [Self; 5] = [Self::Opus, Self::Vp8, Self::Vp9, Self::H264, Self::Av1];

    /// str0m's codec as one of ours; `None` when it is not forwarded.
    #[must_use]
    pub const fn from_str0m(codec: str0m::format::Codec) -> Option<Self> {
        match codec {
            str0m::format::Codec::Opus => Some(Self::Opus),
            str0m::format::Codec::Vp8 => Some(Self::Vp8),
            str0m::format::Codec::Vp9 => Some(Self::Vp9),
            str0m::format::Codec::H264 => Some(Self::H264),
            str0m::format::Codec::Av1 => Some(Self::Av1),
            _ => None,
        }
    }

    /// RTP timestamp units per second.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 => 90_000,
        }
    }
}

/// Spatial layers of one stream whose sizes are read. VP9 knows 8, WebRTC uses up to 3.
pub const SPATIAL_LAYERS: usize = 4;

/// Pixels of a picture, or of the place where it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Pixels from left to right.
    pub width: u16,
    /// Pixels from top to bottom.
    pub height: u16,
}

impl Size {
    /// How many there are.
    #[must_use]
    pub fn pixels(self) -> u32 {
        u32::from(self.width) * u32::from(self.height)
    }
}

/// The sizes of a stream's pictures by spatial layer; zero where it has no such layer. A stream
/// without spatial layers has the first only.
pub type Sizes = [Size; SPATIAL_LAYERS];

/// How a picture lets a receiver of fewer temporal layers go up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerSync {
    /// It does not.
    #[default]
    None,
    /// Its own temporal layer can be entered with it: it refers to the base only (VP8's Y).
    Own,
    /// Higher temporal layers than its own can be entered after it (VP9's U).
    Above,
}

/// What one payload says about itself. A payload that cannot be parsed says nothing
/// (the [`Default`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct PayloadFacts {
    /// A decoder can begin with this packet. True for every Opus packet that is not empty.
    /// For H264 it can be true twice in one picture: at its parameter sets and at its first slice.
    pub starts_keyframe: bool,
    /// A picture (of one spatial layer) begins with this packet. For H264 and AV1, whose payloads
    /// do not say so, it can be true more than once in one picture, but not in the middle of a
    /// NAL unit or OBU.
    pub starts_frame: bool,
    /// VP8 and VP9: the temporal layer, 0 is the base.
    pub temporal_layer: Option<u8>,
    /// VP9: the spatial layer, 0 is the base.
    pub spatial_layer: Option<u8>,
    /// VP8 and VP9: how big the pictures are from here on. Not every keyframe of VP9 says so.
    pub sizes: Option<Sizes>,
    /// VP8 and VP9: where a receiver of fewer temporal layers can go up.
    pub layer_sync: LayerSync,
    /// VP8: the numbers that [`Rewriter`](crate::engine::rewriter::Rewriter) must make continuous.
    pub vp8: Option<Vp8Descriptor>,
}

/// Reads what a payload says about itself.
#[must_use]
pub fn facts(codec: Codec, payload: &[u8]) -> PayloadFacts {
    match codec {
        Codec::Opus => PayloadFacts {
            starts_keyframe: !payload.is_empty(),
            starts_frame: !payload.is_empty(),
            ..PayloadFacts::default()
        },
        Codec::Vp8 => {
            Vp8Descriptor::parse(payload).map_or_else(PayloadFacts::default, |vp8| PayloadFacts {
                starts_keyframe: vp8.starts_keyframe,
                starts_frame: vp8.starts_frame(),
                temporal_layer: vp8.temporal_layer,
                spatial_layer: None,
                sizes: vp8.size.map(|size| {
                    let none = Size::default();
                    [size, none, none, none]
                }),
                layer_sync: if vp8.layer_sync {
                    LayerSync::Own
                } else {
                    LayerSync::None
                },
                vp8: Some(vp8),
            })
        }
        Codec::Vp9 => {
            vp9::Vp9Descriptor::parse(payload).map_or_else(PayloadFacts::default, |vp9| {
                PayloadFacts {
                    starts_keyframe: vp9.starts_keyframe(),
                    starts_frame: vp9.starts_frame,
                    temporal_layer: vp9.layers.map(|l| l.temporal),
                    spatial_layer: vp9.layers.map(|l| l.spatial),
                    sizes: vp9.sizes,
                    layer_sync: match vp9.layers {
                        Some(layers) if layers.switching_up => LayerSync::Above,
                        _ => LayerSync::None,
                    },
                    vp8: None,
                }
            })
        }
        Codec::H264 => PayloadFacts {
            starts_keyframe: h264::starts_keyframe(payload),
            starts_frame: h264::starts_frame(payload),
            ..PayloadFacts::default()
        },
        Codec::Av1 => {
            av1::AggregationHeader::parse(payload).map_or_else(PayloadFacts::default, |av1| {
                PayloadFacts {
                    starts_keyframe: av1.starts_keyframe(),
                    starts_frame: !av1.continues_obu,
                    ..PayloadFacts::default()
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_give_facts_and_never_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for codec in Codec::ALL {
                let facts = facts(codec, &bytes);
                prop_assert!(!facts.starts_keyframe || facts.starts_frame);
                prop_assert!(facts.temporal_layer.is_none_or(|t| t < 8));
                prop_assert!(facts.spatial_layer.is_none_or(|s| s < 8));
            }
        }
    }

    #[test]
    fn an_empty_payload_says_nothing() {
        for codec in Codec::ALL {
            let facts = facts(codec, &[]);
            assert!(!facts.starts_keyframe && !facts.starts_frame, "{codec:?}");
            assert!(facts.vp8.is_none() && facts.temporal_layer.is_none());
        }
    }

    #[test]
    fn any_opus_packet_can_be_the_first() {
        assert!(facts(Codec::Opus, &[0x78, 1, 2]).starts_keyframe);
    }

    #[test]
    fn layers_reach_the_facts() {
        let vp8 = facts(Codec::Vp8, &[0x90, 0x20, 0x80, 0x01]);
        assert_eq!((vp8.temporal_layer, vp8.spatial_layer), (Some(2), None));
        let vp9 = facts(Codec::Vp9, &[0xA8, 0x05, 0x22, 0x07, 0x00]);
        assert_eq!((vp9.temporal_layer, vp9.spatial_layer), (Some(1), Some(1)));
    }

    #[test]
    fn what_is_not_forwarded_has_no_codec() {
        assert_eq!(Codec::from_str0m(str0m::format::Codec::PCMU), None);
        assert_eq!(Codec::from_str0m(str0m::format::Codec::Rtx), None);
        assert_eq!(
            Codec::from_str0m(str0m::format::Codec::Av1),
            Some(Codec::Av1)
        );
    }
}
