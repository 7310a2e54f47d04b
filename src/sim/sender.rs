//! What a client sends of one track: one encoding, or one for each layer.

use std::time::Instant;

use fastrand::Rng;
use str0m::media::{MediaKind, Mid, Rid, Simulcast, SimulcastLayer};

use super::encoder::{self, Encoder};
use super::publish::Publish;
use crate::engine::command::{Kind, Source};

/// A track that a client sends.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) publish: Publish,
    /// One, or one for each layer.
    pub(super) encodings: Vec<Encoding>,
    pub(super) mid: Option<Mid>,
    /// The client wants it sent.
    pub(super) on: bool,
}

/// One layer of it.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) rid: Option<Rid>,
    pub(super) encoder: Encoder,
    pub(super) seq: u64,
    /// The client's own path carries it.
    pub(super) on: bool,
}

impl Sender {
    pub(super) fn new(now: Instant, rng: &mut Rng, index: u32, publish: &Publish) -> Self {
        let made = (publish.source, publish.codec, publish.rate);
        let encoder = Encoder::new(now, rng, index, made);
        let mut encodings: Vec<Encoding> = Vec::new();
        let streams = match publish.in_one_stream {
            Some(_) => &[],
            None => publish.simulcast,
        };
        for ((rid, rate), layer) in streams.iter().zip(0..) {
            encodings.push(Encoding {
                rid: Some(Rid::from(*rid)),
                encoder: encoder.sibling(rng, layer, *rate),
                seq: u64::from(rng.u16(..)),
                on: true,
            });
        }
        if encodings.is_empty() {
            let mut encoder = encoder;
            if let Some(mode) = publish.in_one_stream {
                let rates = std::array::from_fn(|layer| publish.simulcast[layer].1);
                encoder = encoder.in_one_stream(rng, mode, rates);
            }
            encodings.push(Encoding {
                rid: None,
                encoder,
                seq: u64::from(rng.u16(..)),
                on: true,
            });
        }
        Self {
            publish: *publish,
            encodings,
            mid: None,
            on: true,
        }
    }

    pub(super) fn simulcast(&self) -> Option<Simulcast> {
        let rids: Vec<Rid> = self.encodings.iter().filter_map(|e| e.rid).collect();
        let mut simulcast = Simulcast::new();
        for rid in &rids {
            simulcast.add_send_layer(SimulcastLayer::new(rid));
        }
        (!rids.is_empty()).then_some(simulcast)
    }
}

/// Whether a source is heard or seen, as SDP says it.
pub(super) fn kind(source: Source) -> MediaKind {
    match encoder::kind_of(source) {
        Kind::Audio => MediaKind::Audio,
        Kind::Video => MediaKind::Video,
    }
}

/// The count of a kind: audio first, then video.
pub(super) fn of_kind(counts: &mut (u8, u8), kind: MediaKind) -> &mut u8 {
    match kind {
        MediaKind::Audio => &mut counts.0,
        MediaKind::Video => &mut counts.1,
    }
}
