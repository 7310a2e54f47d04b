//! Three spatial layers in one stream, as their dependency descriptors tell of them.

use crate::engine::codec::dependency::{
    DECODE_TARGETS, DecodeTarget, Descriptor, Indication, Indications, References, Structure,
    Template,
};
use crate::engine::codec::{Size, Sizes};

/// Spatial layers.
pub(crate) const LAYERS: u8 = 3;

/// How the frames of a picture refer to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `L3T1`: each to the one below it, always.
    Full,
    /// `L3T1_KEY`: only in keyframes.
    Keyed,
}

/// Writes the descriptors of one stream.
#[derive(Debug, Clone)]
pub(crate) struct Layered {
    mode: Mode,
    structure: Structure,
    frame: u16,
}

impl Layered {
    /// Of a stream whose next frame has this number.
    pub(crate) fn new(mode: Mode, frame: u16, sizes: [(u16, u16); 3]) -> Self {
        Self {
            mode,
            structure: structure(mode, sizes),
            frame,
        }
    }

    /// The next picture begins: each picture has a frame of each layer.
    pub(crate) fn next_picture(&mut self) {
        self.frame = self.frame.wrapping_add(LAYERS.into());
    }

    /// The number of a frame of this picture.
    pub(crate) fn number(&self, spatial: u8) -> u16 {
        self.frame.wrapping_add(spatial.into())
    }

    /// The descriptor of a packet of this picture.
    pub(crate) fn descriptor(
        &self,
        spatial: u8,
        key: bool,
        (first, last): (bool, bool),
    ) -> Vec<u8> {
        let place = 2 * spatial + u8::from(!key);
        let template = &self.structure.templates[usize::from(place)];
        let is_news = key && spatial == 0 && first;
        let descriptor = Descriptor {
            starts_frame: first,
            ends_frame: last,
            template: (self.structure.offset + place) & 0x3F,
            frame: self.number(spatial),
            attached: is_news.then(|| self.structure.clone()),
            active: None,
            spatial,
            temporal: 0,
            indications: template.indications,
            references: template.references,
            chains: template.chains,
        };
        let mut bytes = Vec::new();
        descriptor.write(&self.structure, &mut bytes);
        bytes
    }

    /// The numbers a frame refers to.
    pub(crate) fn references(&self, spatial: u8, key: bool) -> Vec<u16> {
        let distances = distances(self.mode, spatial, key);
        let number = self.number(spatial);
        distances.iter().map(|d| number.wrapping_sub(*d)).collect()
    }
}

fn distances(mode: Mode, spatial: u8, key: bool) -> Vec<u16> {
    let mut distances = Vec::new();
    if !key {
        distances.push(LAYERS.into());
    }
    if spatial > 0 && (key || mode == Mode::Full) {
        distances.push(1);
    }
    distances
}

/// For each layer a template of its keyframes and one of what follows; a decode target for each
/// layer, and a chain for each target.
fn structure(mode: Mode, sizes: [(u16, u16); 3]) -> Structure {
    let templates = (0..LAYERS).flat_map(|spatial| [true, false].map(|key| (spatial, key)));
    let mut list = Sizes::default();
    for (size, (width, height)) in list.iter_mut().zip(sizes) {
        *size = Size { width, height };
    }
    Structure {
        offset: 60,
        templates: templates.map(|(s, key)| template(mode, s, key)).collect(),
        targets: (0..LAYERS)
            .map(|spatial| DecodeTarget {
                spatial,
                temporal: 0,
                chain: Some(spatial),
            })
            .collect(),
        chains: LAYERS,
        sizes: Some(list),
    }
}

fn template(mode: Mode, spatial: u8, key: bool) -> Template {
    let mut indications = Indications::default();
    let mut chains = [0; DECODE_TARGETS];
    for target in 0..LAYERS {
        indications = indications.with(target, indication(mode, target, spatial, key));
        chains[usize::from(target)] = chain(mode, target, spatial, key);
    }
    Template {
        spatial,
        temporal: 0,
        indications,
        references: distances(mode, spatial, key)
            .into_iter()
            .collect::<References>(),
        chains,
    }
}

/// Whether a layer's frame is part of a decode target.
fn is_part(mode: Mode, target: u8, spatial: u8, key: bool) -> bool {
    spatial == target || (spatial < target && (key || mode == Mode::Full))
}

fn indication(mode: Mode, target: u8, spatial: u8, key: bool) -> Indication {
    if !is_part(mode, target, spatial, key) {
        Indication::NotPresent
    } else if key || spatial == target {
        Indication::Switch
    } else {
        Indication::Required
    }
}

/// The distance to the last frame of a chain, which has all frames of its target.
fn chain(mode: Mode, target: u8, spatial: u8, key: bool) -> u8 {
    if key && spatial == 0 {
        return 0;
    }
    let below = (0..spatial).rev().find(|s| is_part(mode, target, *s, key));
    match below {
        Some(below) => spatial - below,
        // The highest frame of the picture before is in every case part of its target.
        None => spatial + LAYERS - target,
    }
}
