//! What a packet says about itself, and about how the layers of its track relate.

use std::sync::Arc;

use super::codec::{self, Codec, PayloadFacts};
use super::command::Kind;
use super::ingress::receive_side::Received;
use super::layers::{Layering, Layers};
use super::svc::Frame;
use super::track::Track;

/// What a packet says about itself: by its dependency descriptor, else by its payload.
pub(super) fn read(
    track: &mut Track,
    layer: u8,
    packet: &Received<'_>,
) -> (PayloadFacts, Option<Arc<Frame>>) {
    let format = track.format(packet.pt);
    let codec = format.and_then(|format| format.codec);
    let frame = frame_of(track, layer, codec, packet);
    let facts = match (&frame, codec) {
        (Some(frame), _) => frame.facts(),
        (None, Some(codec)) => codec::facts(codec, &packet.payload),
        (None, None) => PayloadFacts::default(),
    };
    relate_layers(track, frame.as_deref(), &facts);
    // Sound begins with any packet, whatever its format.
    let starts_keyframe = facts.starts_keyframe || track.info.kind == Kind::Audio;
    let facts = PayloadFacts {
        starts_keyframe,
        ..facts
    };
    (facts, frame)
}

/// What a packet says of its frame: by its dependency descriptor, if it has one that makes sense,
/// or as one of several layers of VP9.
fn frame_of(
    track: &mut Track,
    layer: u8,
    codec: Option<Codec>,
    packet: &Received<'_>,
) -> Option<Arc<Frame>> {
    let is_only = track.layers.len() == 1;
    let reader = &mut track.layers.get_mut(usize::from(layer))?.descriptors;
    let frame = match packet.descriptor {
        Some(bytes) => reader.read(bytes.into()),
        None if codec == Some(Codec::Vp9) && is_only => reader.read_vp9(&packet.payload),
        None => None,
    };
    frame.map(Arc::new)
}

/// A keyframe may begin or end having layers in one stream.
fn relate_layers(track: &mut Track, frame: Option<&Frame>, facts: &PayloadFacts) {
    let layering = match frame {
        // Several streams, each with layers: what is chosen between is streams.
        Some(frame) if track.layers.len() == 1 => frame.layering(),
        _ => Layering::Simulcast,
    };
    let before = track.seen.layering();
    if layering == before {
        return;
    }
    if facts.starts_keyframe {
        track.seen = Layers::new(layering);
    } else if frame.is_some() && track.is_svc() && layering != Layering::Simulcast {
        track.seen.relate(layering);
    }
}
