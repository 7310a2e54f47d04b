//! What VP9's payload descriptor says of the layers in one stream, told as a dependency descriptor
//! would tell it: for publishers that send none.
//!
//! What a frame refers to follows from its place among the layers (RFC 9628 §3): it may need the
//! newest frames before it of its spatial layer, of its own temporal layer and those below; where
//! it says so, what is below it in its picture; and a switching-up point ends the need for what
//! came before it of higher temporal layers. Whether spatial layers need each other between
//! keyframes is seen: until then they do.

use std::sync::Arc;

use super::{Frame, Known, REMEMBERED};
use crate::engine::codec::SPATIAL_LAYERS;
use crate::engine::codec::dependency::{
    Chains, DECODE_TARGETS, DecodeTarget, Descriptor, Indication, Indications, References,
    Structure,
};
use crate::engine::codec::vp9::{Layers, Vp9Descriptor};
use crate::engine::layers::{Layering, TEMPORAL_LAYERS};

/// Frame numbers from one picture to the next: one for each spatial layer there could be.
const STRIDE: u16 = SPATIAL_LAYERS as u16;

/// What picture ids count on from: far enough from 0 that none is before it.
const FIRST: u64 = 1 << 16;

/// Reads the payloads of one stream, in the order of arrival.
#[derive(Debug)]
pub(super) struct Payloads {
    /// The layers of the stream since its last keyframe; `None` when it has only one spatial layer
    /// or does not number its pictures.
    known: Option<Arc<Known>>,
    /// The newest picture, counted without wrapping from [`FIRST`] on.
    newest: u64,
    /// The latest frames, at their number modulo the length.
    seen: [Option<Seen>; REMEMBERED],
}

/// One frame.
#[derive(Debug, Clone, Copy)]
struct Seen {
    number: u16,
    temporal: u8,
    /// What follows it of higher temporal layers needs nothing of them from before it.
    switches_up: bool,
}

impl Default for Payloads {
    fn default() -> Self {
        Self {
            known: None,
            newest: FIRST,
            seen: [None; REMEMBERED],
        }
    }
}

impl Payloads {
    /// Reads a packet's payload. `None` when it is broken, its stream has no spatial layers, or the
    /// keyframe it belongs to has not come.
    pub(super) fn read(&mut self, payload: &[u8]) -> Option<Frame> {
        let vp9 = Vp9Descriptor::parse(payload)?;
        if vp9.starts_keyframe() {
            self.begin(&vp9);
        }
        let known = self.known.as_ref()?;
        let layers = vp9.layers.filter(|layers| {
            let targets = &known.structure.targets;
            targets.iter().any(|t| t.spatial == layers.spatial)
        })?;
        let layers = Layers {
            temporal: layers.temporal.min(TEMPORAL_LAYERS as u8 - 1),
            ..layers
        };
        self.relate(&vp9, layers);
        let known = Arc::clone(self.known.as_ref()?);
        let picture = vp9.picture_id?.nearest(self.newest);
        self.newest = self.newest.max(picture);
        let number = (picture as u16)
            .wrapping_mul(STRIDE)
            .wrapping_add(layers.spatial.into());
        let is_key = !vp9.inter_predicted;
        let references = self.references(number, layers, is_key);
        let switches = is_key || (layers.switching_up && !references.as_slice().is_empty());
        let descriptor = Descriptor {
            starts_frame: vp9.starts_frame,
            ends_frame: vp9.ends_frame,
            template: 0,
            frame: number,
            attached: vp9.starts_keyframe().then(|| known.structure.clone()),
            active: None,
            spatial: layers.spatial,
            temporal: layers.temporal,
            indications: indications(&known, layers, is_key, switches),
            references,
            chains: self.chains(number, known.layering),
        };
        self.seen[usize::from(number) % REMEMBERED] = Some(Seen {
            number,
            temporal: layers.temporal,
            switches_up: layers.switching_up || is_key,
        });
        Some(Frame {
            bytes: Arc::default(),
            descriptor,
            active: every(&known.structure),
            structure: known,
        })
    }

    /// A keyframe begins: its structure holds from here on. One without goes on with the last.
    fn begin(&mut self, vp9: &Vp9Descriptor) {
        let before = self.known.take();
        let spatial = match (vp9.structure, &before) {
            (Some(layers), _) => layers,
            (None, Some(before)) => before.structure.chains,
            (None, None) => return,
        };
        let can_choose = (2..=SPATIAL_LAYERS as u8).contains(&spatial);
        if !can_choose || vp9.picture_id.is_none() || vp9.layers.is_none() {
            return;
        }
        let structure = structure(spatial, vp9);
        self.known = match before {
            Some(before) if before.structure == structure => Some(before),
            // An encoder that is set up anew seldom does it in another way.
            Some(before) => Some(known(structure, before.layering)),
            None => Some(known(structure, Layering::Spatial)),
        };
    }

    /// Takes note of how spatial layers relate, where a frame shows it.
    fn relate(&mut self, vp9: &Vp9Descriptor, layers: Layers) {
        if layers.spatial == 0 || !vp9.inter_predicted {
            return;
        }
        let layering = if layers.inter_layer {
            Layering::Spatial
        } else {
            Layering::Keyed
        };
        if let Some(before) = self.known.as_mut().filter(|k| k.layering != layering) {
            *before = known(before.structure.clone(), layering);
        }
    }

    /// How far before a frame those are that it may need.
    fn references(&self, number: u16, layers: Layers, is_key: bool) -> References {
        let below = (layers.spatial > 0 && layers.inter_layer).then_some(1);
        // The temporal layers of which the newest is still to be found.
        let mut open = if is_key { 0..0 } else { 0..layers.temporal + 1 };
        let earlier = (1..).map(|pictures| pictures * STRIDE);
        let earlier = earlier.take_while(|distance| usize::from(*distance) < REMEMBERED);
        let earlier = earlier.filter(|distance| {
            let seen = self.seen(number.wrapping_sub(*distance));
            let Some(seen) = seen.filter(|seen| open.contains(&seen.temporal)) else {
                return false;
            };
            open.start = if seen.switches_up {
                open.end
            } else {
                // Who has it has what it needs of the layers below.
                seen.temporal + 1
            };
            true
        });
        below.into_iter().chain(earlier).collect()
    }

    /// How far before a frame the last one of the base is, by spatial layer: of that one, or of
    /// those below as well where it needs them.
    fn chains(&self, number: u16, layering: Layering) -> Chains {
        let mut chains = [0; DECODE_TARGETS];
        for distance in 1..REMEMBERED as u16 {
            let Some(seen) = self.seen(number.wrapping_sub(distance)) else {
                continue;
            };
            if seen.temporal > 0 {
                continue;
            }
            let spatial = usize::from(seen.number % STRIDE);
            let top = match layering {
                Layering::Keyed => spatial,
                Layering::Spatial | Layering::Simulcast => SPATIAL_LAYERS - 1,
            };
            for chain in &mut chains[spatial..=top] {
                *chain = if *chain == 0 { distance as u8 } else { *chain };
            }
        }
        chains
    }

    fn seen(&self, number: u16) -> Option<Seen> {
        let seen = self.seen[usize::from(number) % REMEMBERED];
        seen.filter(|seen| seen.number == number)
    }
}

fn known(structure: Structure, layering: Layering) -> Arc<Known> {
    Arc::new(Known {
        structure,
        layering,
    })
}

/// A decode target for each spatial layer up to each temporal one, and a chain for each of the
/// former.
fn structure(spatial: u8, vp9: &Vp9Descriptor) -> Structure {
    let targets = (0..spatial).flat_map(|spatial| {
        (0..TEMPORAL_LAYERS as u8).map(move |temporal| DecodeTarget {
            spatial,
            temporal,
            chain: Some(spatial),
        })
    });
    Structure {
        offset: 0,
        templates: Vec::new(),
        targets: targets.collect(),
        chains: spatial,
        sizes: vp9.sizes,
    }
}

/// All decode targets of a structure, a bit each.
fn every(structure: &Structure) -> u32 {
    u32::MAX >> (DECODE_TARGETS - structure.targets.len())
}

/// What a frame is to each decode target.
fn indications(known: &Known, layers: Layers, is_key: bool, switches: bool) -> Indications {
    let targets = known.structure.targets.iter().zip(0..);
    targets.fold(Indications::default(), |all, (target, index)| {
        let is_own = target.spatial == layers.spatial;
        let is_below =
            target.spatial > layers.spatial && (is_key || known.layering == Layering::Spatial);
        let is_part = (is_own || is_below) && target.temporal >= layers.temporal;
        let indication = match (is_part, is_own && switches) {
            (false, _) => Indication::NotPresent,
            (true, true) => Indication::Switch,
            (true, false) => Indication::Required,
        };
        all.with(index, indication)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::codec::Size;
    use crate::engine::svc::tests::chosen;
    use crate::engine::svc::{Choice, Chooser, Reader, Wanted};

    const SPATIAL: u8 = 3;

    /// The head of a payload (RFC 9628 §4.2) of one of three layers, in one packet.
    #[derive(Debug, Clone, Copy)]
    struct Head {
        picture: u16,
        is_wide: bool,
        key: bool,
        temporal: u8,
        switching_up: bool,
        spatial: u8,
        inter_layer: bool,
    }

    impl Head {
        fn payload(self) -> Vec<u8> {
            let has_structure = self.key && self.spatial == 0;
            let flags = [
                (true, 0x80),
                (!self.key, 0x40),
                (true, 0x20),
                (true, 0x08),
                (true, 0x04),
                (has_structure, 0x02),
            ];
            let set = flags.iter().filter(|(is_set, _)| *is_set);
            let mut payload = vec![set.map(|(_, bit)| bit).sum()];
            if self.is_wide {
                payload.extend((self.picture | 0x8000).to_be_bytes());
            } else {
                payload.push(self.picture as u8 & 0x7F);
            }
            let up = u8::from(self.switching_up) << 4;
            let indices = self.temporal << 5 | up | self.spatial << 1;
            payload.extend([indices | u8::from(self.inter_layer), 0]);
            if has_structure {
                payload.push((SPATIAL - 1) << 5 | 0x10);
                for (width, height) in [(320_u16, 180_u16), (640, 360), (1280, 720)] {
                    payload.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
                }
            }
            payload.push(0xAA);
            payload
        }
    }

    fn upto(spatial: u8, temporal: u8) -> Wanted {
        Wanted {
            spatial,
            temporal,
            meanwhile: 0,
        }
    }

    /// A publisher and one viewer of it.
    struct Call {
        keyed: bool,
        picture: u16,
        reader: Reader,
        chooser: Chooser,
    }

    impl Call {
        fn new(keyed: bool) -> Self {
            Self {
                keyed,
                // Its ids soon begin anew.
                picture: 0x7FFE,
                reader: Reader::default(),
                chooser: Chooser::default(),
            }
        }

        /// Sends a picture of a temporal layer, as a switching-up point or not; says which of its
        /// spatial layers pass.
        fn picture(&mut self, key: bool, (temporal, up): (u8, bool), wanted: Wanted) -> String {
            let passes = (0..SPATIAL).map(|spatial| {
                let head = Head {
                    picture: self.picture,
                    is_wide: true,
                    key,
                    temporal,
                    switching_up: up,
                    spatial,
                    inter_layer: spatial > 0 && (key || !self.keyed),
                };
                let frame = self.reader.read_vp9(&head.payload());
                chosen(&mut self.chooser, frame, wanted)
            });
            let passes = passes.collect();
            self.picture = self.picture.wrapping_add(1) % 0x8000;
            passes
        }
    }

    const BASE: (u8, bool) = (0, false);

    #[test]
    fn where_all_is_built_on_the_layer_below_it_goes_down_at_once_and_up_at_a_keyframe() {
        let mut call = Call::new(false);
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "???", "no structure");
        assert_eq!(call.picture(true, BASE, upto(2, 3)), "PPE");
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "PPE");
        assert!(!call.chooser.wants_keyframe(upto(0, 3)));
        assert_eq!(call.picture(false, BASE, upto(0, 3)), "E--");
        assert!(call.chooser.wants_keyframe(upto(2, 3)));
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "E--");
        assert_eq!(call.picture(true, BASE, upto(1, 3)), "PE-");
        assert_eq!(call.picture(false, BASE, upto(1, 3)), "PE-");
    }

    #[test]
    fn where_layers_go_on_by_themselves_that_is_seen_and_another_begins_with_a_keyframe() {
        let mut call = Call::new(true);
        assert_eq!(call.picture(true, BASE, upto(2, 3)), "PPE");
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "P-E");
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "--E");
        assert!(call.chooser.wants_keyframe(upto(0, 3)));
        assert_eq!(call.picture(false, BASE, upto(0, 3)), "--E");
        assert_eq!(call.picture(true, BASE, upto(0, 3)), "E--");
        assert_eq!(call.picture(false, BASE, upto(2, 3)), "E--");
        assert_eq!(call.picture(true, BASE, upto(1, 3)), "PE-");
        assert_eq!(call.picture(false, BASE, upto(1, 3)), "-E-");
    }

    #[test]
    fn temporal_layers_end_at_once_and_come_back_at_a_switching_up_point() {
        let mut call = Call::new(false);
        let pictures = [(0, false), (2, false), (1, false), (2, false)];
        for (temporal, up) in pictures {
            let key = call.chooser.live().is_none();
            assert_eq!(call.picture(key, (temporal, up), upto(1, 3)), "PE-");
        }
        for (picture, passes) in pictures.into_iter().zip(["PE-", "---", "---", "---"]) {
            assert_eq!(call.picture(false, picture, upto(1, 0)), passes);
        }
        for (picture, passes) in [
            ((0, false), "PE-"),
            ((2, false), "---"),
            ((1, false), "---"),
            ((0, true), "PE-"),
            ((2, false), "PE-"),
            ((1, false), "PE-"),
        ] {
            assert_eq!(
                call.picture(false, picture, upto(1, 3)),
                passes,
                "{picture:?}"
            );
        }
    }

    #[test]
    fn it_says_how_its_layers_relate_and_how_big_they_are() {
        let size = |width, height| Size { width, height };
        let mut reader = Reader::default();
        let head = Head {
            picture: 9,
            is_wide: false,
            key: true,
            temporal: 0,
            switching_up: false,
            spatial: 0,
            inter_layer: false,
        };
        let frame = reader.read_vp9(&head.payload()).unwrap();
        let facts = frame.facts();
        assert!(facts.starts_keyframe && frame.bytes.is_empty());
        assert_eq!(
            facts.sizes.unwrap()[..3],
            [size(320, 180), size(640, 360), size(1280, 720)]
        );
        assert_eq!(frame.layering(), Layering::Spatial);
        let above = Head {
            key: false,
            spatial: 1,
            ..head
        };
        let frame = reader.read_vp9(&above.payload()).unwrap();
        assert_eq!(frame.layering(), Layering::Keyed);
        let again = reader.read_vp9(&head.payload()).unwrap();
        assert_eq!(again.layering(), Layering::Keyed, "the encoder is the same");
    }

    #[test]
    fn a_stream_without_spatial_layers_is_left_to_others() {
        let mut reader = Reader::default();
        // I B E V with one layer; then the same of two, without layer indices.
        for keyframe in [
            [0x8E, 0x01, 0x10, 1, 64, 0, 180, 0xAA].as_slice(),
            &[0x8E, 0x02, 0x20, 0xAA],
            &[0x2E, 0x00, 0x00, 0x20, 0xAA],
        ] {
            assert!(reader.read_vp9(keyframe).is_none());
        }
        // P B E.
        assert!(reader.read_vp9(&[0xCC, 0x03, 0xAA]).is_none());
    }

    /// What an encoder could do in one picture: what it refers to is drawn from what it may.
    #[derive(Debug, Clone)]
    struct Picture {
        key: bool,
        temporal: u8,
        switching_up: bool,
        wanted: Option<(u8, u8)>,
        refers: u8,
    }

    fn pictures() -> impl Strategy<Value = Vec<Picture>> {
        let wanted = prop::option::weighted(0.2, (0..SPATIAL, 0..3_u8));
        let picture = (
            prop::bool::weighted(0.08),
            0..3_u8,
            any::<bool>(),
            wanted,
            any::<u8>(),
        );
        let picture = picture.prop_map(|(key, temporal, switching_up, wanted, refers)| Picture {
            key,
            temporal: if key { 0 } else { temporal },
            switching_up,
            wanted,
            refers,
        });
        prop::collection::vec(picture, 1..100)
    }

    /// The pictures one may refer to: of the last eight since the keyframe those that no layer
    /// index and no switching-up point forbids.
    fn allowed(pictures: &[Picture], at: usize) -> Vec<usize> {
        let mut allowed = Vec::new();
        let mut top = pictures[at].temporal;
        for earlier in (at.saturating_sub(8)..at).rev() {
            let Picture {
                temporal,
                switching_up,
                key,
                ..
            } = pictures[earlier];
            if temporal <= top {
                allowed.push(earlier);
            }
            if switching_up && temporal < pictures[at].temporal {
                top = top.min(temporal);
            }
            if key {
                break;
            }
        }
        allowed
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_lost_or_late_what_passes_can_be_decoded(
            keyed in any::<bool>(),
            is_wide in any::<bool>(),
            mut pictures in pictures(),
            lost in prop::collection::vec(prop::bool::weighted(0.03), 300),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            pictures[0].key = true;
            pictures[0].temporal = 0;
            let mut wanted = (2, 2);
            let mut sent = Vec::new();
            for (at, picture) in pictures.iter().enumerate() {
                wanted = picture.wanted.unwrap_or(wanted);
                let allowed = allowed(&pictures, at);
                // A picture refers to at least one, if it is no keyframe: the newest it may.
                let refers = |n: usize| n == 0 || picture.refers >> (n % 8) & 1 == 1;
                for spatial in 0..SPATIAL {
                    let inter_layer = spatial > 0 && (picture.key || !keyed);
                    let earlier = allowed.iter().enumerate();
                    let earlier = earlier.filter(|(n, _)| !picture.key && refers(*n));
                    let mut needs: Vec<_> = earlier.map(|(_, p)| (*p, spatial)).collect();
                    if inter_layer {
                        needs.push((at, spatial - 1));
                    }
                    let head = Head {
                        picture: 0x7FF0 + at as u16,
                        is_wide,
                        key: picture.key,
                        temporal: picture.temporal,
                        switching_up: picture.switching_up,
                        spatial,
                        inter_layer,
                    };
                    sent.push(((at, spatial), needs, head.payload(), wanted));
                }
            }
            let mut arrived: Vec<_> = sent
                .iter()
                .zip(&lost)
                .filter(|((place, ..), lost)| *place == (0, 0) || !**lost)
                .map(|(frame, _)| frame)
                .collect();
            for swap in swaps {
                let at = swap.index(arrived.len());
                if at > 1 {
                    arrived.swap(at - 1, at);
                }
            }
            let (mut reader, mut chooser) = (Reader::default(), Chooser::default());
            let mut fate = BTreeMap::new();
            for (place, needs, payload, (spatial, temporal)) in arrived {
                let wanted = upto(*spatial, *temporal);
                let passes = reader
                    .read_vp9(payload)
                    .is_some_and(|frame| chooser.choose(&frame, wanted) == Choice::Pass);
                if passes {
                    let missing: Vec<_> = needs
                        .iter()
                        .filter(|needed| fate.get(*needed) == Some(&false))
                        .collect();
                    prop_assert!(missing.is_empty(), "{place:?} needs {missing:?}");
                }
                fate.insert(*place, passes);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 1..60),
            wanted in (0..4_u8, 0..4_u8),
        ) {
            let (mut reader, mut chooser) = (Reader::default(), Chooser::default());
            for mut bytes in packets {
                // Half of them begin a keyframe of three layers.
                if let [0, rest @ ..] = bytes.as_slice() {
                    bytes = [&[0xAE, 0x05, 0x00, 0x07, 0x40], rest].concat();
                }
                let Some(frame) = reader.read_vp9(&bytes) else { continue };
                chooser.choose(&frame, upto(wanted.0, wanted.1));
                let told = (
                    chooser.ends_picture(&frame),
                    chooser.wants_keyframe(upto(wanted.0, wanted.1)),
                    chooser.within(),
                    frame.facts(),
                );
                std::hint::black_box(told);
            }
        }
    }
}
