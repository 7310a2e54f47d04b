//! The dependency descriptor (AV1 RTP specification, appendix A): which frames a packet's frame
//! needs, and which decode targets need it. It tells without a look at the payload, which may be
//! encrypted end to end.
//!
//! A keyframe carries a [`Structure`], templates that later packets refer to by number; a
//! [`Descriptor`] is read against the structure of its stream.

use super::bits::{Bits, Writer};
use super::{SPATIAL_LAYERS, Size, Sizes};

/// Templates of one structure (A.8.2: a number of 6 bits).
const TEMPLATES: usize = 64;
/// Decode targets of one structure, and chains (5 bits and one more).
pub const DECODE_TARGETS: usize = 32;
/// Frames that one frame may refer to. AV1 has 8 reference buffers, and uses 7 for one frame.
pub const REFERENCES: usize = 8;
/// Temporal layers of one structure; AV1 knows 8.
const TEMPORAL_LAYERS: u8 = 8;

/// What one frame is to one decode target (A.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// It is not part of it.
    NotPresent,
    /// It is part of it, and no other frame of it refers to this one.
    Discardable,
    /// Who has this frame can decode all that follow in the decode target.
    Switch,
    /// Others of it refer to this one.
    Required,
}

/// The indications for every decode target, two bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications(u64);

/// A short list of distances to earlier frames, in frame numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct References {
    list: [u16; REFERENCES],
    len: u8,
}

/// Distance to the last frame of each chain; 0 when the chain begins here.
pub type Chains = [u8; DECODE_TARGETS];

/// What many frames have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What its frames are to each decode target.
    pub indications: Indications,
    /// What they refer to.
    pub references: References,
    /// Where the chains' last frames are.
    pub chains: Chains,
}

/// What a decode target is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeTarget {
    /// Its highest spatial layer.
    pub spatial: u8,
    /// Its highest temporal layer.
    pub temporal: u8,
    /// The chain whose frames it cannot do without, if chains are used.
    pub chain: Option<u8>,
}

/// The templates of a stream, from a keyframe on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Structure {
    /// The number of its first template.
    pub offset: u8,
    /// 1 to 64.
    pub templates: Vec<Template>,
    /// 1 to 32.
    pub targets: Vec<DecodeTarget>,
    /// How many chains there are.
    pub chains: u8,
    /// How big the pictures of each spatial layer are, if it says so.
    pub sizes: Option<Sizes>,
}

/// What one packet says of its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// It is the first packet of the frame.
    pub starts_frame: bool,
    /// It is the last.
    pub ends_frame: bool,
    /// Which template the frame has, as a number of the structure.
    pub template: u8,
    /// Counts frames of the stream, all layers together.
    pub frame: u16,
    /// A new structure, which the frame is read against already.
    pub attached: Option<Structure>,
    /// Which decode targets the publisher still sends, a bit each; `None` when nothing changed.
    pub active: Option<u32>,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What the frame is to each decode target.
    pub indications: Indications,
    /// What it refers to.
    pub references: References,
    /// Where the chains' last frames are.
    pub chains: Chains,
}

impl Indications {
    /// What the frame is to a decode target; to one that does not exist it is nothing.
    #[must_use]
    pub const fn of(self, target: u8) -> Indication {
        if target as usize >= DECODE_TARGETS {
            return Indication::NotPresent;
        }
        match self.0 >> (2 * target) & 0x03 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    /// The same with another indication for one decode target.
    #[must_use]
    pub const fn with(self, target: u8, indication: Indication) -> Self {
        let shift = 2 * (target as u32 % DECODE_TARGETS as u32);
        Self(self.0 & !(0x03 << shift) | (indication as u64) << shift)
    }
}

impl References {
    /// The distances.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.list[..usize::from(self.len)]
    }

    /// Adds one; `None` past [`REFERENCES`].
    fn push(&mut self, distance: u16) -> Option<()> {
        *self.list.get_mut(usize::from(self.len))? = distance;
        self.len += 1;
        Some(())
    }
}

impl FromIterator<u16> for References {
    /// Those past [`REFERENCES`] are left out.
    fn from_iter<T: IntoIterator<Item = u16>>(distances: T) -> Self {
        let mut references = Self::default();
        for distance in distances.into_iter().take(REFERENCES) {
            references.list[usize::from(references.len)] = distance;
            references.len += 1;
        }
        references
    }
}

impl Descriptor {
    /// Reads a descriptor. `known` is the stream's structure so far, if it has one. `None` when it
    /// is cut short, breaks a bound, or refers to a template that nobody knows.
    #[must_use]
    pub fn parse(bytes: &[u8], known: Option<&Structure>) -> Option<Self> {
        let mut bits = Bits::new(bytes);
        let starts_frame = bits.flag()?;
        let ends_frame = bits.flag()?;
        let template = bits.read(6)? as u8;
        let frame = bits.read(16)? as u16;
        let [
            has_structure,
            has_active,
            own_indications,
            own_references,
            own_chains,
        ] = if bytes.len() > 3 {
            [
                bits.flag()?,
                bits.flag()?,
                bits.flag()?,
                bits.flag()?,
                bits.flag()?,
            ]
        } else {
            [false; 5]
        };
        let attached = if has_structure {
            Some(Structure::parse(&mut bits)?)
        } else {
            None
        };
        let structure = attached.as_ref().or(known)?;
        let targets = structure.targets.len() as u32;
        let active = if has_active {
            Some(bits.read(targets)?)
        } else {
            has_structure.then_some(u32::MAX >> (32 - targets))
        };
        let common = structure.template(template)?;
        let (spatial, temporal) = (common.spatial, common.temporal);
        let indications = if own_indications {
            read_indications(&mut bits, structure.targets.len())?
        } else {
            common.indications
        };
        let references = if own_references {
            read_references(&mut bits)?
        } else {
            common.references
        };
        let mut chains = common.chains;
        if own_chains {
            for chain in chains.iter_mut().take(usize::from(structure.chains)) {
                *chain = bits.read(8)? as u8;
            }
        }
        Some(Self {
            starts_frame,
            ends_frame,
            template,
            frame,
            attached,
            active,
            spatial,
            temporal,
            indications,
            references,
            chains,
        })
    }

    /// Writes the descriptor. `structure` is the stream's; what is attached goes before it.
    ///
    /// # Panics
    ///
    /// When the descriptor's template is not one of the structure.
    pub fn write(&self, structure: &Structure, out: &mut Vec<u8>) {
        let structure = self.attached.as_ref().unwrap_or(structure);
        let common = structure
            .template(self.template)
            .expect("a descriptor is written against its structure");
        let targets = structure.targets.len();
        let chains = usize::from(structure.chains);
        let every = u32::MAX >> (32 - targets);
        let active = self
            .active
            .filter(|active| self.attached.is_none() || *active != every);
        let own_indications = self.indications != common.indications;
        let own_references = self.references != common.references;
        let own_chains = self.chains[..chains] != common.chains[..chains];

        let mut bits = Writer::new(out);
        bits.write(u32::from(self.starts_frame), 1);
        bits.write(u32::from(self.ends_frame), 1);
        bits.write(u32::from(self.template), 6);
        bits.write(u32::from(self.frame), 16);
        let flags = [
            self.attached.is_some(),
            active.is_some(),
            own_indications,
            own_references,
            own_chains,
        ];
        if !flags.contains(&true) {
            return;
        }
        for flag in flags {
            bits.write(u32::from(flag), 1);
        }
        if let Some(structure) = &self.attached {
            structure.write(&mut bits);
        }
        if let Some(active) = active {
            bits.write(active, targets as u32);
        }
        if own_indications {
            write_indications(&mut bits, self.indications, targets);
        }
        if own_references {
            write_references(&mut bits, &self.references);
        }
        if own_chains {
            for chain in &self.chains[..chains] {
                bits.write(u32::from(*chain), 8);
            }
        }
    }

    /// A decoder can begin here: a new structure, and nothing before is referred to.
    #[must_use]
    pub fn starts_keyframe(&self) -> bool {
        self.starts_frame && self.attached.is_some() && self.references.as_slice().is_empty()
    }
}

impl Structure {
    /// The template of this number.
    #[must_use]
    pub fn template(&self, number: u8) -> Option<&Template> {
        let place = number.wrapping_sub(self.offset) & 0x3F;
        self.templates.get(usize::from(place))
    }

    /// The best decode target within these layers: spatial layers count before temporal ones.
    /// Those that `active` leaves out are not sent.
    #[must_use]
    pub fn best_target(&self, active: u32, spatial: u8, temporal: u8) -> Option<u8> {
        let targets = self.targets.iter().zip(0_u8..);
        targets
            .filter(|(_, index)| active >> index & 1 == 1)
            .filter(|(target, _)| target.spatial <= spatial && target.temporal <= temporal)
            .max_by_key(|(target, _)| (target.spatial, target.temporal))
            .map(|(_, index)| index)
    }

    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let offset = bits.read(6)? as u8;
        let targets = bits.read(5)? as usize + 1;
        let mut templates = Vec::new();
        let (mut spatial, mut temporal) = (0, 0);
        loop {
            if templates.len() == TEMPLATES {
                return None;
            }
            templates.push(Template {
                spatial,
                temporal,
                indications: Indications::default(),
                references: References::default(),
                chains: [0; DECODE_TARGETS],
            });
            match bits.read(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => break,
            }
            if usize::from(spatial) == SPATIAL_LAYERS || temporal == TEMPORAL_LAYERS {
                return None;
            }
        }
        for template in &mut templates {
            template.indications = read_indications(bits, targets)?;
        }
        for template in &mut templates {
            while bits.flag()? {
                let distance = bits.read(4)? as u16 + 1;
                template.references.push(distance)?;
            }
        }
        let mut list = vec![DecodeTarget::default(); targets];
        let chains = bits.non_symmetric(targets as u32 + 1)?;
        if chains > 0 {
            for target in &mut list {
                target.chain = Some(bits.non_symmetric(chains)? as u8);
            }
            for template in &mut templates {
                for chain in template.chains.iter_mut().take(chains as usize) {
                    *chain = bits.read(4)? as u8;
                }
            }
        }
        for (target, index) in list.iter_mut().zip(0..) {
            (target.spatial, target.temporal) = layers_of(&templates, index);
        }
        let mut sizes = None;
        if bits.flag()? {
            let mut read = Sizes::default();
            for size in read.iter_mut().take(usize::from(spatial) + 1) {
                *size = Size {
                    width: (bits.read(16)? as u16).saturating_add(1),
                    height: (bits.read(16)? as u16).saturating_add(1),
                };
            }
            sizes = Some(read);
        }
        Some(Self {
            offset,
            templates,
            targets: list,
            chains: chains as u8,
            sizes,
        })
    }

    fn write(&self, bits: &mut Writer<'_>) {
        let targets = self.targets.len();
        bits.write(u32::from(self.offset), 6);
        bits.write(targets as u32 - 1, 5);
        for pair in self.templates.windows(2) {
            let next = match pair[1].spatial == pair[0].spatial {
                false => 2,
                true => u32::from(pair[1].temporal != pair[0].temporal),
            };
            bits.write(next, 2);
        }
        bits.write(3, 2);
        for template in &self.templates {
            write_indications(bits, template.indications, targets);
        }
        for template in &self.templates {
            for distance in template.references.as_slice() {
                bits.write(1, 1);
                bits.write(u32::from(*distance - 1), 4);
            }
            bits.write(0, 1);
        }
        let chains = u32::from(self.chains);
        bits.non_symmetric(chains, targets as u32 + 1);
        if chains > 0 {
            for target in &self.targets {
                bits.non_symmetric(u32::from(target.chain.unwrap_or(0)), chains);
            }
            for template in &self.templates {
                for chain in template.chains.iter().take(usize::from(self.chains)) {
                    bits.write(u32::from(*chain), 4);
                }
            }
        }
        bits.write(u32::from(self.sizes.is_some()), 1);
        let spatial = self.templates.last().map_or(0, |last| last.spatial);
        for size in self.sizes.iter().flatten().take(usize::from(spatial) + 1) {
            bits.write(u32::from(size.width.saturating_sub(1)), 16);
            bits.write(u32::from(size.height.saturating_sub(1)), 16);
        }
    }
}

/// The highest layers of the frames in a decode target.
fn layers_of(templates: &[Template], target: u8) -> (u8, u8) {
    let within = templates
        .iter()
        .filter(|template| template.indications.of(target) != Indication::NotPresent);
    within.fold((0, 0), |(spatial, temporal), template| {
        (
            spatial.max(template.spatial),
            temporal.max(template.temporal),
        )
    })
}

fn read_indications(bits: &mut Bits<'_>, targets: usize) -> Option<Indications> {
    let mut indications = 0;
    for target in 0..targets {
        indications |= u64::from(bits.read(2)?) << (2 * target);
    }
    Some(Indications(indications))
}

fn write_indications(bits: &mut Writer<'_>, indications: Indications, targets: usize) {
    for target in 0..targets {
        bits.write((indications.0 >> (2 * target)) as u32 & 0x03, 2);
    }
}

/// A frame's own references: each with its length in units of four bits, 0 ends them.
fn read_references(bits: &mut Bits<'_>) -> Option<References> {
    let mut references = References::default();
    loop {
        let size = bits.read(2)?;
        if size == 0 {
            return Some(references);
        }
        references.push(bits.read(4 * size)? as u16 + 1)?;
    }
}

fn write_references(bits: &mut Writer<'_>, references: &References) {
    for distance in references.as_slice() {
        let minus_one = u32::from(distance - 1);
        let size = (u32::BITS - minus_one.leading_zeros())
            .div_ceil(4)
            .clamp(1, 3);
        bits.write(size, 2);
        bits.write(minus_one, 4 * size);
    }
    bits.write(0, 2);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes from bits as they are written in the specification, blanks between fields.
    fn bytes(fields: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for bit in fields.chars().filter(|c| !c.is_whitespace()) {
            writer.write(u32::from(bit == '1'), 1);
        }
        out
    }

    /// Two temporal layers and one chain: a template for keyframes, one for frames of the base, one
    /// for those above it.
    fn l1t2(head: &str) -> Vec<u8> {
        let structure = [
            // The first template is number 5; two decode targets.
            "000101 00001",
            // Template layers: the same, the next temporal one, no more.
            "00 01 11",
            // Indications: S S, S S, - D.
            "10 10  10 10  00 01",
            // References: none, 2 back, 1 back.
            "0  1 0001 0  1 0000 0",
            // One chain, as ns(3); it protects both targets, as ns(1), which takes no bits.
            "10  0000 0010 0001",
            // 1280x720.
            "1 0000010011111111 0000001011001111",
        ];
        bytes(&format!("{head} {}", structure.concat()))
    }

    #[test]
    fn a_keyframe_brings_its_structure() {
        let key = l1t2("1 0 000101 0000000100000010  1 0 0 0 0");
        let read = Descriptor::parse(&key, None).unwrap();
        assert!(read.starts_frame && !read.ends_frame && read.starts_keyframe());
        assert_eq!((read.template, read.frame), (5, 0x0102));
        assert_eq!(read.active, Some(0b11));
        let structure = read.attached.as_ref().unwrap();
        let layers: Vec<_> = structure
            .templates
            .iter()
            .map(|template| (template.spatial, template.temporal))
            .collect();
        assert_eq!(layers, [(0, 0), (0, 0), (0, 1)]);
        assert_eq!(structure.chains, 1);
        let target = |temporal| DecodeTarget {
            spatial: 0,
            temporal,
            chain: Some(0),
        };
        assert_eq!(structure.targets, [target(0), target(1)]);
        let sizes = structure.sizes.unwrap();
        assert_eq!((sizes[0].width, sizes[0].height), (1280, 720));
        let mut written = Vec::new();
        read.write(structure, &mut written);
        assert_eq!(written, key);
    }

    #[test]
    fn later_frames_refer_to_templates_or_say_what_differs() {
        let key = Descriptor::parse(&l1t2("1 0 000101 0000000100000010  1 0 0 0 0"), None);
        let structure = key.unwrap().attached.unwrap();
        let read = |fields: &str| Descriptor::parse(&bytes(fields), Some(&structure));
        let above = read("1 1 000111 0000000100000011").unwrap();
        assert_eq!((above.temporal, above.references.as_slice()), (1, &[1][..]));
        assert_eq!(above.indications.of(0), Indication::NotPresent);
        assert_eq!(above.indications.of(1), Indication::Discardable);
        assert_eq!(above.indications.of(2), Indication::NotPresent);
        assert_eq!((above.chains[0], above.active), (1, None));

        let own = "0 1 000110 0000000100000100  0 1 1 1 1  01  11 01
            10 00010000 01 0000 00  11111111";
        let own = read(own).unwrap();
        assert_eq!(own.active, Some(0b01));
        assert_eq!(own.indications.of(0), Indication::Required);
        assert_eq!(own.references.as_slice(), [17, 1]);
        assert_eq!(own.chains[0], 255);
        let mut written = Vec::new();
        own.write(&structure, &mut written);
        assert_eq!(Descriptor::parse(&written, Some(&structure)), Some(own));

        assert_eq!(
            read("1 1 001000 0000000100000011"),
            None,
            "no such template"
        );
        assert_eq!(
            Descriptor::parse(&bytes("11000101 00000001 00000010"), None),
            None
        );
    }

    #[test]
    fn the_best_decode_target_is_within_the_layers_and_still_sent() {
        let structure = full(3, 3);
        let every = u32::MAX;
        let table = [
            (every, 2, 2, Some((2, 2))),
            (every, 1, 0, Some((1, 0))),
            (every, 9, 9, Some((2, 2))),
            (0b000_111_111, 2, 1, Some((1, 1))),
            (0b000_000_010, 2, 0, None),
        ];
        for (active, spatial, temporal, expected) in table {
            let best = structure.best_target(active, spatial, temporal);
            let best = best.map(|best| structure.targets[usize::from(best)]);
            let layers = best.map(|best| (best.spatial, best.temporal));
            assert_eq!(layers, expected, "{active:b} {spatial} {temporal}");
        }
    }

    /// Every spatial and temporal layer with a decode target of its own.
    fn full(spatials: u8, temporals: u8) -> Structure {
        let layers = || (0..spatials).flat_map(|s| (0..temporals).map(move |t| (s, t)));
        let template = |(spatial, temporal): (u8, u8)| Template {
            spatial,
            temporal,
            indications: layers().zip(0..).fold(
                Indications::default(),
                |indications, ((s, t), target)| {
                    let within = spatial <= s && temporal <= t;
                    let what = [Indication::NotPresent, Indication::Switch];
                    indications.with(target, what[usize::from(within)])
                },
            ),
            references: References::from_iter([1, 4]),
            chains: [0; DECODE_TARGETS],
        };
        let target = |(spatial, temporal)| DecodeTarget {
            spatial,
            temporal,
            chain: None,
        };
        Structure {
            offset: 60,
            templates: layers().map(template).collect(),
            targets: layers().map(target).collect(),
            chains: 0,
            sizes: None,
        }
    }

    fn any_references(most: u16) -> impl Strategy<Value = References> {
        prop::collection::vec(1..=most, 0..=REFERENCES)
            .prop_map(|distances| distances.into_iter().collect())
    }

    fn any_indications(targets: usize) -> impl Strategy<Value = Indications> {
        let mask = u64::MAX >> (64 - 2 * targets);
        any::<u64>().prop_map(move |bits| Indications(bits & mask))
    }

    fn any_chains(chains: u8, most: u8) -> impl Strategy<Value = Chains> {
        any::<[u8; DECODE_TARGETS]>().prop_map(move |mut any| {
            for (index, chain) in any.iter_mut().enumerate() {
                *chain = if index < usize::from(chains) {
                    *chain & most
                } else {
                    0
                };
            }
            any
        })
    }

    fn any_structure() -> impl Strategy<Value = Structure> {
        (1..=DECODE_TARGETS, 0..64_u8).prop_flat_map(|(targets, offset)| {
            (0..=targets as u8).prop_flat_map(move |chains| {
                let template = (
                    0..3_u8,
                    any_indications(targets),
                    any_references(16),
                    any_chains(chains, 15),
                );
                let templates = prop::collection::vec(template, 1..=TEMPLATES);
                let protects = prop::collection::vec(any::<prop::sample::Index>(), targets);
                let sizes = prop::option::of(any::<[(u16, u16); SPATIAL_LAYERS]>());
                (templates, protects, sizes).prop_map(move |(templates, protects, sizes)| {
                    structure(offset, chains, templates, &protects, sizes)
                })
            })
        })
    }

    type Parts = (u8, Indications, References, Chains);

    fn structure(
        offset: u8,
        chains: u8,
        parts: Vec<Parts>,
        protects: &[prop::sample::Index],
        sizes: Option<[(u16, u16); SPATIAL_LAYERS]>,
    ) -> Structure {
        let (mut spatial, mut temporal) = (0, 0);
        let templates: Vec<Template> = parts
            .into_iter()
            .enumerate()
            .map(|(index, (next, indications, references, chains))| {
                match next {
                    1 if index > 0 && temporal + 1 < TEMPORAL_LAYERS => temporal += 1,
                    2 if index > 0 && usize::from(spatial) + 1 < SPATIAL_LAYERS => {
                        (spatial, temporal) = (spatial + 1, 0);
                    }
                    _ => {}
                }
                Template {
                    spatial,
                    temporal,
                    indications,
                    references,
                    chains,
                }
            })
            .collect();
        let targets = protects.iter().zip(0..).map(|(protects, index)| {
            let (spatial, temporal) = layers_of(&templates, index);
            let chain = (chains > 0).then(|| protects.index(usize::from(chains)) as u8);
            DecodeTarget {
                spatial,
                temporal,
                chain,
            }
        });
        let sizes = sizes.map(|sizes| {
            let mut read = Sizes::default();
            let places = read.iter_mut().zip(sizes).take(usize::from(spatial) + 1);
            for (size, (width, height)) in places {
                *size = Size {
                    width: width.max(1),
                    height: height.max(1),
                };
            }
            read
        });
        Structure {
            offset,
            targets: targets.collect(),
            templates,
            chains,
            sizes,
        }
    }

    fn any_descriptor() -> impl Strategy<Value = (Structure, Descriptor)> {
        any_structure().prop_flat_map(|known| {
            let targets = known.targets.len();
            let own = (
                prop::option::of(any_indications(targets)),
                prop::option::of(any_references(4096)),
                prop::option::of(any_chains(known.chains, 255)),
            );
            let head = (
                any::<[bool; 3]>(),
                any::<u16>(),
                any::<prop::sample::Index>(),
            );
            let active = prop::option::of(any::<u32>());
            (head, own, active).prop_map(move |(head, own, active)| {
                let ([starts_frame, ends_frame, attach], frame, template) = head;
                let place = template.index(known.templates.len());
                let common = &known.templates[place];
                let every = u32::MAX >> (32 - targets);
                let active = active.map(|active| active & every);
                let descriptor = Descriptor {
                    starts_frame,
                    ends_frame,
                    template: (known.offset + place as u8) % 64,
                    frame,
                    attached: attach.then(|| known.clone()),
                    active: if attach {
                        active.or(Some(every))
                    } else {
                        active
                    },
                    spatial: common.spatial,
                    temporal: common.temporal,
                    indications: own.0.unwrap_or(common.indications),
                    references: own.1.unwrap_or(common.references),
                    chains: own.2.unwrap_or(common.chains),
                };
                (known.clone(), descriptor)
            })
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back((structure, descriptor) in any_descriptor()) {
            let mut written = Vec::new();
            descriptor.write(&structure, &mut written);
            let known = descriptor.attached.is_none().then_some(&structure);
            prop_assert_eq!(Descriptor::parse(&written, known), Some(descriptor));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..256),
            structure in any_structure(),
        ) {
            for known in [None, Some(&structure)] {
                let Some(read) = Descriptor::parse(&bytes, known) else { continue };
                let against = read.attached.clone().unwrap_or_else(|| structure.clone());
                prop_assert!(against.templates.len() <= TEMPLATES);
                prop_assert!(against.targets.len() <= DECODE_TARGETS);
                // What was understood survives being written.
                let mut written = Vec::new();
                read.write(&against, &mut written);
                let known = read.attached.is_none().then_some(&against);
                prop_assert_eq!(Descriptor::parse(&written, known), Some(read));
            }
        }

        #[test]
        fn a_descriptor_cut_short_is_none((structure, descriptor) in any_descriptor()) {
            let mut written = Vec::new();
            descriptor.write(&structure, &mut written);
            for len in 0..written.len() {
                // Three bytes are a descriptor without extras.
                if len != 3 {
                    let known = descriptor.attached.is_none().then_some(&structure);
                    prop_assert_eq!(Descriptor::parse(&written[..len], known), None);
                }
            }
        }
    }
}
