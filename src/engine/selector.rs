//! Which packets of a track pass to one viewer: one layer of it, up to a temporal layer.
//!
//! Another layer begins with a keyframe of its own, and until that comes the old one goes on; the
//! one exception is a viewer that sees nothing yet, whom any smaller layer's keyframe serves.
//! Temporal layers go down with the next picture, and up where a picture allows it. Whether a
//! packet passes never depends on time or on sender reports. Of a stream with layers in it
//! [`svc`](super::svc) knows what passes.

use super::codec::{LayerSync, PayloadFacts};
use super::svc::{Choice, Chooser, Frame, Wanted};
use super::timestamp::is_after;

/// What a viewer is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Which layer.
    pub layer: u8,
    /// Up to which temporal layer.
    pub temporal: u8,
    /// Layers whose keyframe serves while nothing passes, a bit each.
    pub instead: u8,
    /// Up to which temporal layer the old layer passes until [`Self::layer`] begins: when the path
    /// is too small for it, waiting for a keyframe at full rate would fill a queue.
    pub meanwhile: u8,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Forward,
    /// It passes and is the first of another layer: what came before ends.
    Begin,
    /// It is of the layer that passes, and left out: the numbers after it close up.
    Withhold,
    /// It is of another layer.
    OtherLayer,
    /// Nothing passes before a keyframe.
    AwaitingKeyframe,
    /// Nothing is wanted.
    Paused,
}

/// Decides for one viewer of one track.
#[derive(Debug, Default)]
pub struct Selector {
    target: Option<Target>,
    /// The layer that passes; `None` before the first keyframe.
    live: Option<u8>,
    /// Up to which temporal layer.
    temporal: Temporal,
    /// What passes of a stream with layers in it; `None` where each layer is a stream.
    stream: Option<Box<Chooser>>,
    /// What passed last ends its picture.
    ends_picture: bool,
}

/// Limits that late packets are judged by. One changes with a picture at most.
const REMEMBERED_LIMITS: usize = 8;

/// The temporal limit, which changes between pictures only: a picture passes whole or not at all.
#[derive(Debug, Default)]
struct Temporal {
    limit: u8,
    /// The latest limits, newest first, each with the timestamp of the first picture under it:
    /// late packets are judged as their picture was.
    changes: [(u32, u8); REMEMBERED_LIMITS],
    /// Timestamp of the newest picture.
    newest: u32,
    /// The newest picture lets the limit rise with the next one.
    opens: bool,
}

impl Selector {
    /// Nothing passes and nothing is wanted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the viewer is to get from here on; `None` pauses.
    pub fn set_target(&mut self, target: Option<Target>) {
        self.target = target;
        if target.is_none() {
            self.restart();
        }
    }

    /// What the viewer is to get.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        self.target
    }

    /// The layer that passes.
    #[must_use]
    pub fn live(&self) -> Option<u8> {
        self.live
    }

    /// Up to which temporal layer it passes.
    #[must_use]
    pub fn temporal(&self) -> u8 {
        match self.stream.as_ref().and_then(|stream| stream.live()) {
            Some((_, temporal)) => temporal,
            None => self.temporal.limit,
        }
    }

    /// The decode targets that pass, a bit each; all where each layer is a stream.
    #[must_use]
    pub fn within(&self) -> u32 {
        let stream = self.stream.as_ref();
        stream.map_or(u32::MAX, |stream| stream.within())
    }

    /// Whether the packet that passed last is the last of its picture here, though its publisher
    /// sent more.
    #[must_use]
    pub fn ends_picture(&self) -> bool {
        self.ends_picture
    }

    /// The layer of which a keyframe is needed.
    #[must_use]
    pub fn wants_keyframe(&self) -> Option<u8> {
        let target = self.target?;
        match &self.stream {
            Some(stream) => stream
                .wants_keyframe(wanted(target))
                .then_some(target.layer),
            None => (self.live != Some(target.layer)).then_some(target.layer),
        }
    }

    /// Layers of which a packet may pass as things stand, a bit each; all while nothing is wanted,
    /// so that what is withheld is counted for what it is.
    #[must_use]
    pub fn takes(&self) -> u8 {
        match (self.target, self.live) {
            (None, _) => u8::MAX,
            (Some(_), _) if self.stream.is_some() => bit(0),
            (Some(target), None) => bit(target.layer) | target.instead,
            (Some(target), Some(live)) => bit(target.layer) | bit(live),
        }
    }

    /// What passed has a gap that nobody can close: nothing passes before a keyframe.
    pub fn restart(&mut self) {
        self.live = None;
        if let Some(stream) = &mut self.stream {
            stream.restart();
        }
    }

    /// Decides about a packet of a stream with layers in it; without a frame it has nothing that
    /// could be told apart.
    pub fn select_frame(&mut self, frame: Option<&Frame>) -> Verdict {
        let Some(target) = self.target else {
            return Verdict::Paused;
        };
        if self.stream.is_none() {
            self.live = None;
        }
        let stream = self.stream.get_or_insert_default();
        let before = self.live;
        let choice = match frame {
            Some(frame) => stream.choose(frame, wanted(target)),
            None if before.is_some() => Choice::Leave,
            None => Choice::Wait,
        };
        self.live = stream.live().map(|(spatial, _)| spatial);
        self.ends_picture = frame.is_some_and(|frame| stream.ends_picture(frame));
        match choice {
            Choice::Pass if before.is_none() => Verdict::Begin,
            Choice::Pass => Verdict::Forward,
            Choice::Leave => Verdict::Withhold,
            Choice::Wait => Verdict::AwaitingKeyframe,
        }
    }

    /// Decides about a packet. `layer` is the stream it came in.
    pub fn select(&mut self, layer: u8, timestamp: u32, facts: &PayloadFacts) -> Verdict {
        let Some(target) = self.target else {
            return Verdict::Paused;
        };
        self.ends_picture = false;
        if self.stream.take().is_some() {
            self.live = None;
        }
        if self.live != Some(layer) {
            let serves =
                layer == target.layer || (self.live.is_none() && is_set(target.instead, layer));
            if !serves {
                return Verdict::OtherLayer;
            }
            if !facts.starts_keyframe {
                return match self.live {
                    Some(_) => Verdict::OtherLayer,
                    None => Verdict::AwaitingKeyframe,
                };
            }
            self.live = Some(layer);
            let limit = self.limit(target);
            self.temporal = Temporal::starting(limit, timestamp);
            return Verdict::Begin;
        }
        let limit = self.limit(target);
        if self.temporal.passes(limit, timestamp, facts) {
            Verdict::Forward
        } else {
            Verdict::Withhold
        }
    }

    /// Up to which temporal layer the live layer is to pass.
    fn limit(&self, target: Target) -> u8 {
        if self.live == Some(target.layer) {
            target.temporal
        } else {
            target.meanwhile
        }
    }
}

/// The same of layers in one stream.
fn wanted(target: Target) -> Wanted {
    Wanted {
        spatial: target.layer,
        temporal: target.temporal,
        meanwhile: target.meanwhile,
    }
}

impl Temporal {
    fn starting(limit: u8, timestamp: u32) -> Self {
        Self {
            limit,
            changes: [(timestamp, limit); REMEMBERED_LIMITS],
            newest: timestamp,
            opens: false,
        }
    }

    fn passes(&mut self, wanted: u8, timestamp: u32, facts: &PayloadFacts) -> bool {
        let temporal = facts.temporal_layer.unwrap_or(0);
        if is_after(timestamp, self.newest) {
            self.begin_picture(wanted, timestamp, temporal, facts);
        }
        let mut changes = self.changes.iter();
        let change = changes.find(|(since, _)| !is_after(*since, timestamp));
        let (_, limit) = change.unwrap_or(&self.changes[REMEMBERED_LIMITS - 1]);
        temporal <= *limit
    }

    /// A newer picture than all before: the limit may change with it.
    fn begin_picture(&mut self, wanted: u8, timestamp: u32, temporal: u8, facts: &PayloadFacts) {
        let rises = wanted > self.limit;
        let limit = if !rises || facts.starts_keyframe || self.opens {
            wanted
        } else if facts.layer_sync == LayerSync::Own && temporal == self.limit + 1 {
            // The layers between must be there: each is entered by its own sync.
            temporal
        } else {
            self.limit
        };
        if limit != self.limit {
            self.limit = limit;
            self.changes.rotate_right(1);
            self.changes[0] = (timestamp, limit);
        }
        self.newest = timestamp;
        self.opens = facts.layer_sync == LayerSync::Above && temporal <= self.limit;
    }
}

/// A layer's bit.
const fn bit(layer: u8) -> u8 {
    if layer < 8 { 1 << layer } else { 0 }
}

/// Whether this layer's bit is set.
const fn is_set(layers: u8, layer: u8) -> bool {
    layers & bit(layer) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn target(layer: u8, temporal: u8) -> Option<Target> {
        Some(Target {
            layer,
            temporal,
            instead: (1 << layer) - 1,
            meanwhile: temporal,
        })
    }

    fn delta(temporal: u8, layer_sync: LayerSync) -> PayloadFacts {
        PayloadFacts {
            starts_frame: true,
            temporal_layer: Some(temporal),
            layer_sync,
            ..PayloadFacts::default()
        }
    }

    fn key() -> PayloadFacts {
        PayloadFacts {
            starts_keyframe: true,
            ..delta(0, LayerSync::None)
        }
    }

    /// Gives one packet a picture; returns what became of each.
    fn select(selector: &mut Selector, packets: &[(u8, u32, PayloadFacts)]) -> Vec<Verdict> {
        packets
            .iter()
            .map(|(layer, timestamp, facts)| selector.select(*layer, *timestamp, facts))
            .collect()
    }

    #[test]
    fn nothing_passes_before_it_is_wanted_and_a_keyframe_comes() {
        let mut selector = Selector::new();
        let plain = delta(0, LayerSync::None);
        assert_eq!(selector.select(0, 1, &key()), Verdict::Paused);
        assert_eq!(selector.wants_keyframe(), None);
        selector.set_target(target(0, 0));
        assert_eq!(selector.select(0, 2, &plain), Verdict::AwaitingKeyframe);
        assert_eq!(selector.wants_keyframe(), Some(0));
        assert_eq!(selector.select(0, 3, &key()), Verdict::Begin);
        assert_eq!(selector.select(0, 4, &plain), Verdict::Forward);
        assert_eq!(selector.wants_keyframe(), None);
        selector.set_target(None);
        assert_eq!(selector.select(0, 5, &plain), Verdict::Paused);
        selector.set_target(target(0, 0));
        assert_eq!(selector.select(0, 6, &plain), Verdict::AwaitingKeyframe);
    }

    #[test]
    fn the_old_layer_goes_on_until_the_new_one_has_a_keyframe() {
        use Verdict::{Begin, Forward, OtherLayer};
        let mut selector = Selector::new();
        selector.set_target(target(0, 0));
        let plain = delta(0, LayerSync::None);
        select(&mut selector, &[(0, 1, key())]);
        for (new, old) in [(2, 0), (1, 2)] {
            selector.set_target(target(new, 0));
            assert_eq!(selector.wants_keyframe(), Some(new));
            let packets = [
                (new, 12, plain),
                (old, 12, plain),
                (old, 13, key()),
                (new, 14, key()),
                (old, 14, plain),
                (old, 15, key()),
                (new, 15, plain),
            ];
            let verdicts = [
                OtherLayer, Forward, Forward, Begin, OtherLayer, OtherLayer, Forward,
            ];
            assert_eq!(select(&mut selector, &packets), verdicts);
            assert_eq!(
                (selector.live(), selector.wants_keyframe()),
                (Some(new), None)
            );
        }
    }

    #[test]
    fn who_sees_nothing_takes_a_smaller_layer_first_and_still_wants_the_other() {
        let mut selector = Selector::new();
        selector.set_target(target(1, 0));
        let packets = [(2, 5, key()), (0, 5, key()), (1, 6, key())];
        assert_eq!(
            select(&mut selector, &packets[..2]),
            [Verdict::OtherLayer, Verdict::Begin]
        );
        assert_eq!(selector.wants_keyframe(), Some(1));
        assert_eq!(select(&mut selector, &packets[2..]), [Verdict::Begin]);
    }

    #[test]
    fn while_it_waits_for_a_smaller_layer_the_big_one_passes_thinned() {
        let mut selector = Selector::new();
        selector.set_target(target(1, 2));
        let plain = |temporal| delta(temporal, LayerSync::None);
        select(&mut selector, &[(1, 1, key())]);
        assert_eq!(selector.select(1, 2, &plain(2)), Verdict::Forward);
        selector.set_target(Some(Target {
            meanwhile: 0,
            ..target(0, 2).unwrap()
        }));
        let packets = [
            (1, 2, plain(2)),
            (1, 3, plain(1)),
            (1, 4, plain(0)),
            (0, 5, key()),
        ];
        assert_eq!(
            select(&mut selector, &packets),
            [
                Verdict::Forward,
                Verdict::Withhold,
                Verdict::Forward,
                Verdict::Begin
            ],
            "the picture that began at full rate ends so"
        );
        assert_eq!(selector.select(0, 6, &plain(2)), Verdict::Forward);
    }

    #[test]
    fn temporal_layers_come_back_where_a_picture_allows_it() {
        use LayerSync::{Above, None, Own};
        // Pictures after one at the base (temporal layer, what it says), and whether they pass
        // once everything is wanted.
        type Case<'a> = (&'a [(u8, LayerSync)], &'a [bool]);
        let table: [Case<'_>; 5] = [
            (&[(2, None), (1, None), (2, None)], &[false, false, false]),
            // Enters the second layer, which does not open the third.
            (&[(1, Own), (2, None), (1, None)], &[true, false, true]),
            // The third is entered only from the second.
            (&[(2, Own), (1, Own), (2, Own)], &[false, true, true]),
            (&[(0, Above), (2, None), (1, None)], &[true, true, true]),
            // What opens is itself not passed: nothing opens.
            (&[(1, Above), (2, None), (0, None)], &[false, false, true]),
        ];
        for (pictures, passed) in table {
            let mut selector = Selector::new();
            selector.set_target(target(0, 0));
            select(&mut selector, &[(0, 1, key())]);
            selector.set_target(target(0, 2));
            let verdicts: Vec<_> = pictures
                .iter()
                .zip(2..)
                .map(|((t, sync), at)| selector.select(0, at, &delta(*t, *sync)))
                .map(|verdict| verdict == Verdict::Forward)
                .collect();
            assert_eq!(verdicts, passed, "{pictures:?}");
        }
    }

    #[test]
    fn a_late_packet_is_judged_as_its_picture_was() {
        let mut selector = Selector::new();
        selector.set_target(target(0, 2));
        let plain = delta(2, LayerSync::None);
        select(
            &mut selector,
            &[(0, u32::MAX - 1, key()), (0, u32::MAX, plain)],
        );
        selector.set_target(target(0, 0));
        assert_eq!(selector.select(0, 1, &plain), Verdict::Withhold);
        assert_eq!(selector.select(0, u32::MAX, &plain), Verdict::Forward);
    }

    /// One packet of a model of three streams with three temporal layers each.
    #[derive(Debug, Clone, Copy)]
    struct Packet {
        layer: u8,
        frame: usize,
        facts: PayloadFacts,
    }

    /// Temporal layers as libwebrtc's VP8 lays them out: period 4; the first picture of layer 2
    /// and that of layer 1 refer to the base only, the second of layer 2 to layer 1 too.
    fn temporal(since_key: usize) -> (u8, LayerSync) {
        match since_key % 4 {
            0 => (0, LayerSync::None),
            1 => (2, LayerSync::Own),
            2 => (1, LayerSync::Own),
            _ => (2, LayerSync::None),
        }
    }

    /// Frames a frame refers to, as places since its keyframe.
    fn references(since_key: usize) -> Vec<usize> {
        let base = since_key - since_key % 4;
        match since_key % 4 {
            0 if since_key == 0 => vec![],
            0 => vec![base - 4],
            1 | 2 => vec![base],
            _ => vec![base, base + 2],
        }
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_when_everything_passed_can_be_decoded(
            keys in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.06), 80), 3),
            sizes in prop::collection::vec(1..4_usize, 80),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            wishes in prop::collection::vec(
                prop::option::weighted(0.2, prop::option::weighted(0.9, (0..3_u8, 0..3_u8))),
                720,
            ),
        ) {
            let mut since_key = [[0; 80]; 3];
            let mut packets = Vec::new();
            for frame in 0..80 {
                for layer in 0..3_u8 {
                    let is_key = frame == 0 || keys[usize::from(layer)][frame];
                    let places = &mut since_key[usize::from(layer)];
                    places[frame] = if is_key { 0 } else { places[frame - 1] + 1 };
                    let place = places[frame];
                    let (temporal, sync) = temporal(place);
                    for packet in 0..sizes[frame] {
                        let facts = PayloadFacts {
                            starts_keyframe: is_key && packet == 0,
                            ..delta(temporal, sync)
                        };
                        packets.push(Packet { layer, frame, facts });
                    }
                }
            }
            // A little disorder: a packet and one of the next frame change places.
            for index in swaps {
                let at = index.index(packets.len());
                let other = (at + 5).min(packets.len() - 1);
                packets.swap(at, other);
            }

            let mut selector = Selector::new();
            // Of the layer that passes: frames by what became of their packets.
            let mut passed: BTreeMap<usize, BTreeSet<bool>> = BTreeMap::new();
            let mut began = 0;
            for (index, packet) in packets.iter().enumerate() {
                if let Some(Some(wish)) = wishes.get(index) {
                    selector.set_target(wish.and_then(|(layer, temporal)| target(layer, temporal)));
                }
                let timestamp = (packet.frame as u32).wrapping_mul(3000).wrapping_sub(60_000);
                match selector.select(packet.layer, timestamp, &packet.facts) {
                    Verdict::Begin => {
                        prop_assert!(packet.facts.starts_keyframe);
                        passed.clear();
                        began = packet.frame;
                        passed.entry(packet.frame).or_default().insert(true);
                    }
                    verdict @ (Verdict::Forward | Verdict::Withhold) => {
                        prop_assert_eq!(selector.live(), Some(packet.layer));
                        if packet.frame < began {
                            continue;
                        }
                        let passes = verdict == Verdict::Forward;
                        let frame = passed.entry(packet.frame).or_default();
                        frame.insert(passes);
                        prop_assert_eq!(frame.len(), 1, "frame {} is torn", packet.frame);
                        let place = since_key[usize::from(packet.layer)][packet.frame];
                        let first = packet.frame - place;
                        if !passes || first < began {
                            continue;
                        }
                        for reference in references(place) {
                            let was = passed.get(&(first + reference));
                            prop_assert!(
                                was.is_none_or(|was| was.contains(&true)),
                                "frame {} needs {}", packet.frame, first + reference
                            );
                        }
                    }
                    Verdict::OtherLayer | Verdict::AwaitingKeyframe | Verdict::Paused => {}
                }
            }
        }
    }
}
