//! Which frames of a stream with layers in it (SVC) pass to one viewer, by their dependency
//! descriptors alone: payloads are not looked at, and may be encrypted end to end. Where a
//! publisher of VP9 sends none, [`vp9`] reads its payloads' descriptors as if they were.
//!
//! What passes is a *decode target*: some spatial layer up to some temporal one, and all that it
//! needs. A viewer enters another one with a frame after which all of it can be decoded, which for
//! a higher spatial layer is a keyframe, and leaves one for what it already has of a smaller one
//! at any frame.

pub(crate) mod extension;
mod vp9;

use std::sync::Arc;

use super::codec::dependency::{Descriptor, Indication, Structure};
use super::codec::{LayerSync, PayloadFacts};
use super::layers::Layering;

/// Frames whose fate is remembered, in frame numbers: nothing refers further back. Three spatial
/// layers of thirty frames a second come to it in two thirds of a second.
const REMEMBERED: usize = 64;

/// Where a descriptor has its frame number: 16 bits behind two flags and the template.
pub const FRAME_NUMBER_AT: usize = 1;

/// What one packet says of its frame, read against what came before in its stream.
#[derive(Debug)]
pub struct Frame {
    /// As the publisher sent it; empty where it sends none.
    pub bytes: Arc<[u8]>,
    /// The same, read.
    pub descriptor: Descriptor,
    /// The structure of its stream.
    structure: Arc<Known>,
    /// Decode targets that the publisher sends, a bit each.
    active: u32,
}

/// A structure, and what follows from it.
#[derive(Debug)]
struct Known {
    structure: Structure,
    /// How its spatial layers relate.
    layering: Layering,
}

/// Reads the descriptors of one stream, in the order of arrival.
#[derive(Debug, Default)]
pub struct Reader {
    known: Option<Arc<Known>>,
    active: u32,
    /// Reads payloads instead; `None` before the first.
    payloads: Option<Box<vp9::Payloads>>,
}

impl Reader {
    /// Reads a packet's descriptor. `None` when it makes no sense here: it is broken, or the
    /// keyframe it belongs to has not come.
    pub fn read(&mut self, bytes: Arc<[u8]>) -> Option<Frame> {
        let known = self.known.as_ref().map(|known| &known.structure);
        let mut descriptor = Descriptor::parse(&bytes, known)?;
        if let Some(structure) = &descriptor.attached {
            let is_new = self
                .known
                .as_ref()
                .is_none_or(|k| k.structure != *structure);
            if is_new {
                self.known = Some(Arc::new(Known::new(structure.clone())));
            }
        }
        // What is written anew for a viewer needs it as well.
        descriptor.active = descriptor.active.inspect(|active| self.active = *active);
        Some(Frame {
            bytes,
            descriptor,
            structure: Arc::clone(self.known.as_ref()?),
            active: self.active,
        })
    }

    /// Reads the payload of a VP9 packet without a descriptor. `None` as well when its stream has
    /// no spatial layers to choose from.
    pub fn read_vp9(&mut self, payload: &[u8]) -> Option<Frame> {
        self.payloads.get_or_insert_default().read(payload)
    }
}

impl Known {
    fn new(structure: Structure) -> Self {
        Self {
            layering: layering(&structure),
            structure,
        }
    }
}

/// How the spatial layers of a structure relate: whether frames that refer to others are part of
/// what shows a higher layer.
fn layering(structure: &Structure) -> Layering {
    let all = (0..structure.targets.len() as u8).max_by_key(|target| {
        let target = structure.targets[usize::from(*target)];
        (target.spatial, target.temporal)
    });
    let Some(top) = all.filter(|top| structure.targets[usize::from(*top)].spatial > 0) else {
        return Layering::Simulcast;
    };
    let mut followers = structure.templates.iter().filter(|template| {
        let is_follower = !template.references.as_slice().is_empty();
        template.spatial == 0 && template.temporal == 0 && is_follower
    });
    let is_apart = followers.all(|t| t.indications.of(top) == Indication::NotPresent);
    if is_apart {
        Layering::Keyed
    } else {
        Layering::Spatial
    }
}

impl Frame {
    /// How the spatial layers of its stream relate; those of a stream without any do not.
    #[must_use]
    pub fn layering(&self) -> Layering {
        self.structure.layering
    }

    /// What the payload would say, if it could be read.
    #[must_use]
    pub fn facts(&self) -> PayloadFacts {
        let descriptor = &self.descriptor;
        let own =
            self.structure
                .structure
                .best_target(u32::MAX, descriptor.spatial, descriptor.temporal);
        let enters = own.map(|target| descriptor.indications.of(target));
        PayloadFacts {
            starts_keyframe: descriptor.starts_keyframe(),
            starts_frame: descriptor.starts_frame,
            temporal_layer: Some(descriptor.temporal),
            spatial_layer: Some(descriptor.spatial),
            sizes: descriptor.attached.as_ref().and_then(|new| new.sizes),
            layer_sync: if enters == Some(Indication::Switch) && descriptor.temporal > 0 {
                LayerSync::Own
            } else {
                LayerSync::None
            },
            vp8: None,
        }
    }

    /// The descriptor for a viewer who is sent only these decode targets of it.
    #[must_use]
    pub fn masked(&self, targets: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 4);
        let masked = Descriptor {
            active: Some(targets & self.active),
            ..self.descriptor.clone()
        };
        masked.write(&self.structure.structure, &mut bytes);
        bytes
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It passes.
    Pass,
    /// It is of no use to this viewer.
    Leave,
    /// Nothing passes before a keyframe.
    Wait,
}

/// What a viewer is to get at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Up to which spatial layer.
    pub spatial: u8,
    /// Up to which temporal layer.
    pub temporal: u8,
    /// Likewise, while a spatial layer passes that is higher than wanted.
    pub meanwhile: u8,
}

/// Decides for one viewer of one stream.
#[derive(Debug)]
pub struct Chooser {
    /// The decode target that passes; `None` before the first keyframe.
    current: Option<u8>,
    /// Of what the target is one, and which of those are sent.
    known: Option<(Arc<Known>, u32)>,
    /// The newest frame.
    newest: u16,
    /// The frames decided about, at their number modulo the length, and whether they pass.
    decided: [Option<(u16, bool)>; REMEMBERED],
}

impl Default for Chooser {
    fn default() -> Self {
        Self {
            current: None,
            known: None,
            newest: 0,
            decided: [None; REMEMBERED],
        }
    }
}

impl Chooser {
    /// Nothing passes before the next keyframe.
    pub fn restart(&mut self) {
        self.current = None;
    }

    /// Decides about a packet: the first of a frame decides for all of it.
    pub fn choose(&mut self, frame: &Frame, wanted: Wanted) -> Choice {
        let descriptor = &frame.descriptor;
        let number = descriptor.frame;
        if self.current.is_some()
            && let Some(passes) = self.fate(number)
        {
            return choice(passes);
        }
        // A publisher that starts over may count afresh.
        let is_late = is_before(number, self.newest) && !descriptor.starts_keyframe();
        let is_late = is_late && self.current.is_some();
        if !is_late {
            self.retarget(frame, wanted);
            self.newest = number;
        }
        let Some(current) = self.current else {
            return Choice::Wait;
        };
        let is_part = descriptor.indications.of(current) != Indication::NotPresent;
        let passes = is_part && !self.lacks_reference(descriptor);
        if is_part && !passes && !is_late {
            self.fall_below(frame, current);
        }
        self.decided[usize::from(number) % REMEMBERED] = Some((number, passes));
        choice(passes)
    }

    /// The spatial and the temporal layer that pass.
    #[must_use]
    pub fn live(&self) -> Option<(u8, u8)> {
        let (known, _) = self.known.as_ref()?;
        let target = known.structure.targets.get(usize::from(self.current?))?;
        Some((target.spatial, target.temporal))
    }

    /// Whether a frame of what passes is the last of its picture for this viewer.
    #[must_use]
    pub fn ends_picture(&self, frame: &Frame) -> bool {
        let spatial = self.live().map(|(spatial, _)| spatial);
        frame.descriptor.ends_frame && spatial == Some(frame.descriptor.spatial)
    }

    /// The decode targets within what passes, a bit each.
    #[must_use]
    pub fn within(&self) -> u32 {
        let (Some((known, _)), Some((spatial, temporal))) = (&self.known, self.live()) else {
            return u32::MAX;
        };
        let targets = known.structure.targets.iter().zip(0..);
        targets
            .filter(|(target, _)| target.spatial <= spatial && target.temporal <= temporal)
            .fold(0, |targets, (_, index)| targets | 1 << index)
    }

    /// Whether what is wanted cannot begin without a keyframe.
    #[must_use]
    pub fn wants_keyframe(&self, wanted: Wanted) -> bool {
        let (Some((known, active)), Some((live, _))) = (&self.known, self.live()) else {
            return true;
        };
        let structure = &known.structure;
        let Some(best) = structure.best_target(*active, wanted.spatial, wanted.temporal) else {
            return false;
        };
        let spatial = structure.targets[usize::from(best)].spatial;
        spatial > live || (spatial < live && known.layering != Layering::Spatial)
    }

    /// A frame newer than all before: another target may begin with it.
    fn retarget(&mut self, frame: &Frame, wanted: Wanted) {
        let Frame {
            descriptor,
            structure: known,
            active,
            ..
        } = frame;
        let structure = &known.structure;
        let best = structure
            .best_target(*active, wanted.spatial, wanted.temporal)
            .or_else(|| smallest(structure, *active));
        if descriptor.starts_keyframe() {
            self.known = Some((Arc::clone(known), *active));
            self.current = best;
            return;
        }
        if let Some((before, sent)) = &mut self.known {
            *sent = *active;
            if before.layering != known.layering {
                *before = Arc::clone(known);
            }
        }
        let (Some(current), Some(best)) = (self.current, best) else {
            return;
        };
        if current == best || current as usize >= structure.targets.len() {
            return;
        }
        self.current = Some(self.step(frame, current, (best, wanted)));
    }

    /// A frame of what passes cannot be decoded: what is built on it cannot pass either, and needs
    /// a keyframe.
    fn fall_below(&mut self, frame: &Frame, current: u8) {
        let structure = &frame.structure.structure;
        let Some(now) = structure.targets.get(usize::from(current)) else {
            return;
        };
        let (descriptor, active) = (&frame.descriptor, frame.active);
        let below = if descriptor.temporal > 0 {
            structure.best_target(active, now.spatial, descriptor.temporal - 1)
        } else {
            let spatial = descriptor.spatial.checked_sub(1);
            spatial.and_then(|spatial| structure.best_target(active, spatial, now.temporal))
        };
        self.current = below.or(self.current);
    }

    /// The best target that can be entered with a frame, between the current one and the best of
    /// all.
    fn step(&self, frame: &Frame, current: u8, (best, wanted): (u8, Wanted)) -> u8 {
        let structure = &frame.structure.structure;
        let of = |target: u8| structure.targets[usize::from(target)];
        let rank = |target: u8| (of(target).spatial, of(target).temporal);
        let is_within = |target: u8, top: u8| {
            of(target).spatial <= of(top).spatial && of(target).temporal <= of(top).temporal
        };
        let targets = 0..structure.targets.len() as u8;
        let mut open: Vec<u8> = targets
            .filter(|target| frame.active >> target & 1 == 1 && is_within(*target, best))
            .collect();
        open.sort_by_key(|target| std::cmp::Reverse(rank(*target)));
        for target in open {
            if target == current {
                return current;
            }
            let is_smaller = is_within(target, current) && self.has_chain(frame, target);
            if is_smaller || self.switches(&frame.descriptor, target) {
                return target;
            }
        }
        if of(current).spatial <= of(best).spatial {
            return current;
        }
        // It is too much, but what is wanted cannot begin yet.
        let temporal = of(current).temporal.min(wanted.meanwhile);
        let thinner = structure.best_target(frame.active, of(current).spatial, temporal);
        thinner
            .filter(|thinner| of(*thinner).spatial == of(current).spatial)
            .unwrap_or(current)
    }

    /// Whether all that a target cannot do without has passed so far.
    fn has_chain(&self, frame: &Frame, target: u8) -> bool {
        let Some(chain) = frame.structure.structure.targets[usize::from(target)].chain else {
            return false;
        };
        let distance = frame.descriptor.chains[usize::from(chain)];
        distance > 0
            && self.fate(frame.descriptor.frame.wrapping_sub(distance.into())) == Some(true)
    }

    /// Whether who has this frame can decode what follows in a target, and this viewer has it.
    fn switches(&self, descriptor: &Descriptor, target: u8) -> bool {
        descriptor.indications.of(target) == Indication::Switch
            && self.references(descriptor).all(|fate| fate == Some(true))
    }

    /// Whether a frame refers to one that did not pass. One that nobody has seen may still come.
    fn lacks_reference(&self, descriptor: &Descriptor) -> bool {
        self.references(descriptor).any(|fate| fate == Some(false))
    }

    fn references(&self, descriptor: &Descriptor) -> impl Iterator<Item = Option<bool>> {
        let distances = descriptor.references.as_slice().iter();
        distances.map(|distance| self.fate(descriptor.frame.wrapping_sub(*distance)))
    }

    /// Whether a frame passed, if it was decided about.
    fn fate(&self, number: u16) -> Option<bool> {
        let decided = self.decided[usize::from(number) % REMEMBERED];
        decided
            .filter(|(of, _)| *of == number)
            .map(|(_, passes)| passes)
    }
}

/// The smallest of the decode targets that are sent.
fn smallest(structure: &Structure, active: u32) -> Option<u8> {
    let targets = structure.targets.iter().zip(0_u8..);
    targets
        .filter(|(_, index)| active >> index & 1 == 1)
        .min_by_key(|(target, _)| (target.spatial, target.temporal))
        .map(|(_, index)| index)
}

fn choice(passes: bool) -> Choice {
    if passes { Choice::Pass } else { Choice::Leave }
}

/// Whether frame `a` is before `b`, when they are less than 2^15 apart.
fn is_before(a: u16, b: u16) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The frame numbers of one slot: streams of several publishers, one after the other, count on.
#[derive(Debug, Default)]
pub struct FrameNumbers {
    /// Added, wrapping, to an incoming number; `None` before the first of a stream.
    offset: Option<u16>,
    /// The newest that left.
    sent: Option<u16>,
}

impl FrameNumbers {
    /// Another stream begins.
    pub fn switch(&mut self) {
        self.offset = None;
    }

    /// The outgoing number of a frame.
    pub fn number(&mut self, incoming: u16) -> u16 {
        let sent = self.sent;
        let next = || sent.map_or(incoming, |sent| sent.wrapping_add(1));
        let offset = *self
            .offset
            .get_or_insert_with(|| next().wrapping_sub(incoming));
        let number = incoming.wrapping_add(offset);
        if sent.is_none_or(|sent| is_before(sent, number)) {
            self.sent = Some(number);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::layered::{LAYERS, Layered, Mode};

    const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];

    fn upto(spatial: u8) -> Wanted {
        Wanted {
            spatial,
            temporal: u8::MAX,
            meanwhile: 0,
        }
    }

    /// A publisher and one viewer of it; a frame is one packet.
    struct Call {
        stream: Layered,
        reader: Reader,
        chooser: Chooser,
    }

    /// What becomes of a frame, as a letter: it passes (and ends its picture), is left out, waits
    /// for a keyframe, or could not be read.
    pub(super) fn chosen(chooser: &mut Chooser, frame: Option<Frame>, wanted: Wanted) -> char {
        let Some(frame) = frame else {
            return '?';
        };
        match chooser.choose(&frame, wanted) {
            Choice::Pass if chooser.ends_picture(&frame) => 'E',
            Choice::Pass => 'P',
            Choice::Leave => '-',
            Choice::Wait => 'w',
        }
    }

    impl Call {
        fn new(mode: Mode) -> Self {
            Self {
                stream: Layered::new(mode, u16::MAX - 7, SIZES),
                reader: Reader::default(),
                chooser: Chooser::default(),
            }
        }

        /// Sends a picture; says which of its layers pass.
        fn picture(&mut self, key: bool, wanted: Wanted) -> String {
            let passes = (0..LAYERS).map(|spatial| {
                let bytes = self.stream.descriptor(spatial, key, (true, true));
                chosen(&mut self.chooser, self.reader.read(bytes.into()), wanted)
            });
            let passes = passes.collect();
            self.stream.next_picture();
            passes
        }
    }

    #[test]
    fn nothing_passes_before_a_keyframe() {
        let mut call = Call::new(Mode::Full);
        assert_eq!(call.picture(false, upto(2)), "???", "no structure");
        assert_eq!(call.picture(true, upto(2)), "PPE");
        call.chooser.restart();
        assert!(call.chooser.wants_keyframe(upto(0)));
        assert_eq!(call.picture(false, upto(2)), "www");
        assert_eq!(call.picture(true, upto(1)), "PE-");
    }

    #[test]
    fn where_all_is_built_on_the_layer_below_it_goes_down_at_once_and_up_at_a_keyframe() {
        let mut call = Call::new(Mode::Full);
        assert_eq!(call.picture(true, upto(2)), "PPE");
        assert_eq!(call.chooser.within(), 0b111);
        assert!(!call.chooser.wants_keyframe(upto(0)));
        assert_eq!(call.picture(false, upto(0)), "E--");
        assert_eq!(call.chooser.within(), 0b001);
        assert!(call.chooser.wants_keyframe(upto(2)));
        assert_eq!(call.picture(false, upto(2)), "E--");
        assert_eq!(call.picture(true, upto(2)), "PPE");
        assert!(!call.chooser.wants_keyframe(upto(2)));
    }

    #[test]
    fn where_layers_go_on_by_themselves_another_begins_with_a_keyframe() {
        let mut call = Call::new(Mode::Keyed);
        assert_eq!(call.picture(true, upto(2)), "PPE");
        assert_eq!(call.picture(false, upto(2)), "--E");
        assert!(call.chooser.wants_keyframe(upto(0)));
        assert_eq!(call.picture(false, upto(0)), "--E");
        assert_eq!(call.picture(true, upto(0)), "E--");
        assert_eq!(call.picture(false, upto(2)), "E--");
        assert_eq!(call.picture(true, upto(1)), "PE-");
        assert_eq!(call.picture(false, upto(1)), "-E-");
    }

    #[test]
    fn layers_that_the_publisher_stopped_are_not_waited_for() {
        let mut call = Call::new(Mode::Full);
        call.picture(true, upto(2));
        let bytes = call.stream.descriptor(0, false, (true, true));
        let mut frame = call.reader.read(bytes.into()).unwrap();
        frame.active = 0b011;
        assert_eq!(call.chooser.choose(&frame, upto(2)), Choice::Pass);
        assert_eq!(call.chooser.live(), Some((1, 0)));
        assert!(!call.chooser.wants_keyframe(upto(2)));
    }

    #[test]
    fn a_masked_descriptor_says_what_comes_and_nothing_else_changes() {
        let mut call = Call::new(Mode::Full);
        for key in [true, false] {
            let bytes = call.stream.descriptor(0, key, (true, true));
            let frame = call.reader.read(bytes.into()).unwrap();
            let known = &frame.structure.structure;
            let masked = Descriptor::parse(&frame.masked(0b001), Some(known)).unwrap();
            let expected = Descriptor {
                active: Some(0b001),
                ..frame.descriptor.clone()
            };
            assert_eq!(masked, expected);
            let number = &frame.bytes[FRAME_NUMBER_AT..FRAME_NUMBER_AT + 2];
            assert_eq!(number, frame.descriptor.frame.to_be_bytes());
        }
    }

    #[test]
    fn frame_numbers_of_one_publisher_after_another_count_on() {
        let mut numbers = FrameNumbers::default();
        let told = [65_534, 65_535, 1, 0].map(|number| numbers.number(number));
        assert_eq!(told, [65_534, 65_535, 1, 0]);
        numbers.switch();
        assert_eq!([500, 502].map(|number| numbers.number(number)), [2, 4]);
        numbers.switch();
        assert_eq!(numbers.number(7), 5);
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_lost_or_late_what_passes_can_be_decoded(
            keyed in any::<bool>(),
            pictures in prop::collection::vec(
                (prop::bool::weighted(0.1), prop::option::weighted(0.2, 0..3_u8)), 1..120),
            lost in prop::collection::vec(prop::bool::weighted(0.03), 360),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mode = if keyed { Mode::Keyed } else { Mode::Full };
            let mut stream = Layered::new(mode, 65_000, SIZES);
            let mut sent = Vec::new();
            let mut wanted = 2;
            for (place, (key, wish)) in pictures.iter().enumerate() {
                let key = *key || place == 0;
                wanted = wish.unwrap_or(wanted);
                for spatial in 0..LAYERS {
                    let bytes = stream.descriptor(spatial, key, (true, true));
                    let references = stream.references(spatial, key);
                    sent.push((stream.number(spatial), references, bytes, wanted, key));
                }
                stream.next_picture();
            }
            let mut arrived: Vec<_> = sent
                .iter()
                .zip(&lost)
                .filter(|((number, ..), lost)| *number == 65_000 || !**lost)
                .map(|(frame, _)| frame)
                .collect();
            for swap in swaps {
                let at = swap.index(arrived.len());
                // The first keyframe comes first.
                if at > 1 {
                    arrived.swap(at - 1, at);
                }
            }
            let came: BTreeSet<u16> = arrived.iter().map(|(number, ..)| *number).collect();
            let (mut reader, mut chooser) = (Reader::default(), Chooser::default());
            let mut passed = BTreeSet::new();
            let mut left = BTreeSet::new();
            for (number, references, bytes, wanted, _) in arrived {
                let Some(frame) = reader.read(bytes.as_slice().into()) else { continue };
                match chooser.choose(&frame, upto(*wanted)) {
                    Choice::Pass => {
                        passed.insert(*number);
                        let missing: Vec<_> = references
                            .iter()
                            .filter(|needed| left.contains(*needed) && came.contains(*needed))
                            .collect();
                        prop_assert!(missing.is_empty(), "{number} needs {missing:?}");
                    }
                    Choice::Leave | Choice::Wait => {
                        left.insert(*number);
                    }
                }
                let again = chooser.choose(&frame, upto(*wanted));
                prop_assert_eq!(again == Choice::Pass, passed.contains(number), "one fate");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..40),
            wanted in 0..4_u8,
        ) {
            let mut call = Call::new(Mode::Full);
            call.picture(true, upto(2));
            for mut bytes in packets {
                // Half of them with a template that exists.
                if let Some(first) = bytes.first_mut().filter(|first| **first & 1 == 1) {
                    *first = *first & 0xC0 | (60 + (*first >> 1) % 6) & 0x3F;
                }
                if let Some(frame) = call.reader.read(bytes.into()) {
                    call.chooser.choose(&frame, upto(wanted));
                    let within = call.chooser.within();
                    let told = (
                        call.chooser.ends_picture(&frame),
                        call.chooser.wants_keyframe(upto(wanted)),
                        frame.masked(within),
                        frame.facts(),
                    );
                    std::hint::black_box(told);
                }
            }
        }
    }
}
