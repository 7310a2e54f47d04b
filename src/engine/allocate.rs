//! A viewer's bandwidth over what it watches: who gets how much picture. A pure function.
//!
//! Sound is outside: the budget is what remains after it. Then everyone is seen before anyone is
//! sharp. First each track gets its cheapest rung, the most important first; those that do not fit
//! are paused. Then tracks climb, one class of importance after another, within a class rung by
//! rung in turns. What goes up must leave some of the budget free; what is there already stays
//! while it fits: an estimate that wavers moves nothing.

use super::codec::Size;
use super::command::Source;
use super::limits::TRACK_LAYERS;

/// A rung above what was sent before is granted only if this many per cent of all that is granted
/// by then fit: an estimate that wavers by a tenth moves nothing.
pub const HEADROOM_PERCENT: u64 = 115;

/// What is wanted of a path is this many per cent of what makes sense: more than climbing there
/// needs, or probing would end just below it.
pub const WANTED_PERCENT: u64 = 150;

/// What a path carries for pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bits per second, sound already taken off: what may be climbed within.
    pub bps: u64,
    /// What is sent already may go on within this: estimates waver.
    pub stays_bps: u64,
    /// Likewise the cheapest rung of each track: better than nothing.
    pub least_bps: u64,
    /// Whether the path is known to carry no more: it was seen congested, or has been probed. As
    /// long as it is not, every track is sent its cheapest rung; else a publisher without small
    /// layers could never be seen by who begins with a low estimate.
    pub is_proven: bool,
}

/// One thing a track can be sent as: a layer of it, up to a temporal layer, at its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Which layer; those of a track are ordered, the smallest picture first.
    pub layer: u8,
    /// The highest temporal layer that is sent.
    pub temporal: u8,
    /// What it costs, in bits per second.
    pub bps: u64,
    /// How big its pictures are; `None` while that is unknown.
    pub size: Option<Size>,
}

/// How good a viewer wants a track at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quality {
    /// The smallest layer.
    Low,
    /// The layer above the smallest.
    Medium,
    /// Any layer.
    High,
    /// Any layer: bandwidth and size of the place decide.
    #[default]
    Auto,
}

/// One track that a viewer watches.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// What it can be sent as, cheapest first. Empty when its publisher sends nothing.
    pub rungs: &'a [Rung],
    /// A screen comes before every camera.
    pub source: Source,
    /// Its publisher is speaking: it comes before those who are not.
    pub speaks: bool,
    /// What the viewer says: more comes before less.
    pub priority: u8,
    /// How big it is shown; `None` when the viewer did not say. A place without pixels is not
    /// seen and gets nothing.
    pub view: Option<Size>,
    /// The viewer's own cap.
    pub quality: Quality,
    /// What it was granted last.
    pub before: Before,
}

/// What a track was granted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Before {
    /// It is new to this viewer.
    #[default]
    New,
    /// Nothing.
    Paused,
    /// A layer up to a temporal layer.
    Sent {
        /// [`Rung::layer`].
        layer: u8,
        /// [`Rung::temporal`].
        temporal: u8,
    },
}

/// What one track is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Index in [`Demand::rungs`]; `None` when nothing is sent.
    pub rung: Option<u8>,
    /// Why it is not more.
    pub reason: Reason,
}

/// Why a viewer gets no better picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its path carries no more.
    Bandwidth,
    /// It asked for no more: its place is not bigger, or it set a cap.
    Viewport,
    /// The publisher sends no more.
    Source,
    /// Its path does not carry even the cheapest rung beside what is more important.
    Paused,
}

/// What [`allocate`] decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocation {
    /// One for each demand, in the same order.
    pub grants: Vec<Grant>,
    /// Bits per second of all that is granted.
    pub used_bps: u64,
    /// Bits per second with which nothing would be paused or held back by bandwidth, headroom
    /// included: what probing is worth going for.
    pub wanted_bps: u64,
}

/// Shares a viewer's budget out.
///
/// # Panics
///
/// When a demand has more than 255 rungs, or they are not ordered by price.
#[must_use]
pub fn allocate(budget: Budget, demands: &[Demand<'_>]) -> Allocation {
    let mut allocator = Allocator::default();
    allocator.allocate(budget, demands);
    allocator.allocation
}

/// [`allocate`] in memory that is used again.
#[derive(Debug, Default)]
pub struct Allocator {
    climbs: Vec<Climb>,
    allocation: Allocation,
}

impl Allocator {
    /// As [`allocate`].
    pub fn allocate(&mut self, budget: Budget, demands: &[Demand<'_>]) -> &Allocation {
        self.climbs.clear();
        self.climbs.extend(demands.iter().zip(0..).map(Climb::new));
        let used_bps = share_out(budget, demands, &mut self.climbs);
        close(demands, &self.climbs, used_bps, &mut self.allocation);
        &self.allocation
    }
}

/// Lets every track climb as far as the budget goes; gives what that takes.
fn share_out(budget: Budget, demands: &[Demand<'_>], climbs: &mut [Climb]) -> u64 {
    climbs.sort_unstable_by_key(|climb| std::cmp::Reverse(climb.rank));

    let mut purse = Purse {
        budget,
        used_bps: 0,
    };
    for climb in climbs.iter_mut() {
        climb.step(demands, &mut purse);
    }
    if !budget.is_proven {
        for climb in climbs.iter_mut().filter(|climb| climb.is_stuck) {
            climb.at = Some(0);
            purse.used_bps += climb.price(demands, 0);
        }
    }
    for class in climbs.chunk_by_mut(|a, b| a.rank.class() == b.rank.class()) {
        while class.iter().any(Climb::can_climb) {
            for climb in class.iter_mut().filter(|climb| climb.can_climb()) {
                climb.step(demands, &mut purse);
            }
        }
    }
    purse.used_bps
}

/// Puts the grants back into the order of the demands.
fn close(demands: &[Demand<'_>], climbs: &[Climb], used_bps: u64, allocation: &mut Allocation) {
    let nothing = Grant {
        rung: None,
        reason: Reason::Source,
    };
    allocation.grants.clear();
    allocation.grants.resize(demands.len(), nothing);
    (allocation.used_bps, allocation.wanted_bps) = (used_bps, 0);
    for climb in climbs {
        allocation.grants[climb.rank.index()] = climb.grant(demands);
        if let Some(ceiling) = climb.ceiling {
            allocation.wanted_bps += climb.price(demands, ceiling);
        }
    }
    allocation.wanted_bps = allocation.wanted_bps.saturating_mul(WANTED_PERCENT) / 100;
}

/// What is left to give out.
#[derive(Debug)]
struct Purse {
    budget: Budget,
    used_bps: u64,
}

/// One track on its way up.
#[derive(Debug)]
struct Climb {
    rank: Rank,
    /// The highest rung that makes sense; `None` when none does.
    ceiling: Option<u8>,
    /// Up to here it was sent before: it stays while it fits. `None`: everything is new, and
    /// going there needs headroom.
    before: Option<u8>,
    /// The first grant of a new track needs no headroom: nothing can flap yet.
    is_new: bool,
    /// The rung it has.
    at: Option<u8>,
    /// The next rung did not fit.
    is_stuck: bool,
}

/// How important a track is, the greater the more: screen, speaker, priority (one class), then
/// size, then who comes first. Packed, because it is all that sorting looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: u16,
    pixels: u32,
    /// Counts down, so that the first demand is the greatest.
    from_last: u32,
}

impl Rank {
    fn new(demand: &Demand<'_>, index: u32) -> Self {
        let is_screen = matches!(demand.source, Source::Screen);
        // Who did not say how big it is shown means big.
        let pixels = demand.view.map_or(u32::MAX, Size::pixels);
        Self {
            class: u16::from(is_screen) << 9
                | u16::from(demand.speaks) << 8
                | u16::from(demand.priority),
            pixels,
            from_last: u32::MAX - index,
        }
    }

    fn class(self) -> u16 {
        self.class
    }

    fn index(self) -> usize {
        (u32::MAX - self.from_last) as usize
    }
}

impl Climb {
    fn new((demand, index): (&Demand<'_>, u32)) -> Self {
        let is_ordered = demand.rungs.is_sorted_by_key(|rung| rung.bps);
        assert!(is_ordered, "rungs are ordered by price");
        assert!(demand.rungs.len() < usize::from(u8::MAX), "a few rungs");
        let before = match demand.before {
            Before::New | Before::Paused => None,
            Before::Sent { layer, temporal } => highest(demand.rungs, |rung| {
                (rung.layer, rung.temporal) <= (layer, temporal)
            }),
        };
        Self {
            rank: Rank::new(demand, index),
            ceiling: ceiling(demand),
            before,
            is_new: demand.before == Before::New,
            at: None,
            is_stuck: false,
        }
    }

    /// Takes the next rung if there is one and it fits.
    fn step(&mut self, demands: &[Demand<'_>], purse: &mut Purse) {
        let next = self.at.map_or(0, |at| at + 1);
        if self.is_stuck || self.ceiling.is_none_or(|ceiling| next > ceiling) {
            return;
        }
        let paid = self.at.map_or(0, |at| self.price(demands, at));
        let used_bps = purse.used_bps - paid + self.price(demands, next);
        let stays = self.before.is_some_and(|before| next <= before);
        let fits = if self.is_new {
            used_bps <= purse.budget.bps
        } else if stays && next == 0 {
            used_bps <= purse.budget.least_bps
        } else if stays {
            used_bps <= purse.budget.stays_bps
        } else {
            used_bps.saturating_mul(HEADROOM_PERCENT) / 100 <= purse.budget.bps
        };
        if !fits {
            self.is_stuck = true;
            return;
        }
        self.at = Some(next);
        purse.used_bps = used_bps;
    }

    fn can_climb(&self) -> bool {
        !self.is_stuck && self.at.is_some() && self.at < self.ceiling
    }

    fn price(&self, demands: &[Demand<'_>], rung: u8) -> u64 {
        demands[self.rank.index()].rungs[usize::from(rung)].bps
    }

    fn grant(&self, demands: &[Demand<'_>]) -> Grant {
        let rungs = demands[self.rank.index()].rungs;
        let reason = match (self.at, self.ceiling) {
            (_, None) if rungs.is_empty() => Reason::Source,
            (_, None) => Reason::Viewport,
            (None, Some(_)) => Reason::Paused,
            (Some(at), Some(ceiling)) if at < ceiling => Reason::Bandwidth,
            (Some(at), _) if usize::from(at) + 1 == rungs.len() => Reason::Source,
            (Some(_), _) => Reason::Viewport,
        };
        Grant {
            rung: self.at,
            reason,
        }
    }
}

/// The highest rung that makes sense where the track is shown, within the viewer's cap.
fn ceiling(demand: &Demand<'_>) -> Option<u8> {
    let lowest = demand.rungs.first()?.layer;
    if demand.view.is_some_and(|view| view.pixels() == 0) {
        return None;
    }
    let next = demand.rungs.iter().map(|rung| rung.layer);
    let next = next.filter(|layer| *layer > lowest).min();
    let cap = match demand.quality {
        Quality::Low => lowest,
        Quality::Medium => next.unwrap_or(lowest),
        Quality::High | Quality::Auto => u8::MAX,
    };
    let layer = |rung: &Rung| {
        let (size, view) = (rung.size?, demand.view?);
        covers(size, view).then_some(rung.layer)
    };
    let enough = demand.rungs.iter().filter_map(layer).min();
    let top = cap.min(enough.unwrap_or(u8::MAX));
    highest(demand.rungs, |rung| rung.layer <= top)
}

/// Up to which of a track's layers, the smallest first, sending makes sense for a viewer whose path
/// carries everything; 0 as well when it sees nothing of it.
#[must_use]
pub fn reach(
    sizes: impl Iterator<Item = Option<Size>>,
    view: Option<Size>,
    quality: Quality,
) -> u8 {
    let rung = |layer| Rung {
        layer,
        temporal: 0,
        bps: layer.into(),
        size: None,
    };
    let mut rungs: [Rung; TRACK_LAYERS] = std::array::from_fn(|layer| rung(layer as u8));
    let mut known = 0;
    for (rung, size) in rungs.iter_mut().zip(sizes) {
        rung.size = size;
        known += 1;
    }
    let demand = Demand {
        rungs: &rungs[..known],
        source: Source::Camera,
        speaks: false,
        priority: 0,
        view,
        quality,
        before: Before::New,
    };
    ceiling(&demand).unwrap_or(0)
}

/// Whether a picture of this size is sharp in that place: shown whole, it is enlarged by no more
/// than a fifth.
fn covers(size: Size, view: Size) -> bool {
    let enough = |has: u16, needs: u16| u32::from(has) * 6 >= u32::from(needs) * 5;
    enough(size.width, view.width) || enough(size.height, view.height)
}

/// The last rung for which this holds.
fn highest(rungs: &[Rung], holds: impl Fn(&Rung) -> bool) -> Option<u8> {
    let place = rungs.iter().rposition(holds)?;
    u8::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KBIT: u64 = 1000;

    const fn size(width: u16, height: u16) -> Option<Size> {
        Some(Size { width, height })
    }

    const fn rung(layer: u8, temporal: u8, kbps: u64, size: Option<Size>) -> Rung {
        Rung {
            layer,
            temporal,
            bps: kbps * KBIT,
            size,
        }
    }

    /// The layers of a camera: 320x180, 640x360, 1280x720.
    const CAMERA: [Rung; 3] = [
        rung(0, 0, 150, size(320, 180)),
        rung(1, 0, 500, size(640, 360)),
        rung(2, 0, 1500, size(1280, 720)),
    ];
    /// The same with two temporal layers where they help.
    const TEMPORAL: [Rung; 5] = [
        rung(0, 0, 90, size(320, 180)),
        rung(0, 1, 150, size(320, 180)),
        rung(1, 1, 500, size(640, 360)),
        rung(2, 0, 1000, size(1280, 720)),
        rung(2, 1, 1500, size(1280, 720)),
    ];
    const SCREEN: [Rung; 2] = [
        rung(0, 0, 200, size(1920, 1080)),
        rung(1, 0, 1200, size(1920, 1080)),
    ];
    const SINGLE: [Rung; 1] = [rung(0, 0, 2400, size(1280, 720))];

    fn camera(rungs: &[Rung]) -> Demand<'_> {
        Demand {
            rungs,
            source: Source::Camera,
            speaks: false,
            priority: 0,
            view: None,
            quality: Quality::Auto,
            before: Before::New,
        }
    }

    fn proven(bps: u64) -> Budget {
        Budget {
            bps,
            stays_bps: bps,
            least_bps: bps,
            is_proven: true,
        }
    }

    /// The grants as text: the rung of each demand, or a dash.
    fn text(allocation: &Allocation) -> String {
        let digit = |grant: &Grant| grant.rung.map_or('-', |rung| char::from(b'0' + rung));
        allocation.grants.iter().map(digit).collect()
    }

    /// Sweeps the budget from 0 to `to` kbit/s; gives each list of grants with the budget, in
    /// kbit/s, from which it holds.
    fn ladder(demands: &[Demand<'_>], to: u64) -> Vec<(u64, String)> {
        let mut ladder: Vec<(u64, String)> = Vec::new();
        for kbps in 0..=to {
            let text = text(&allocate(proven(kbps * KBIT), demands));
            if ladder.last().is_none_or(|(_, last)| *last != text) {
                ladder.push((kbps, text));
            }
        }
        ladder
    }

    fn golden(demands: &[Demand<'_>], expected: &[(u64, &str)]) {
        let ladder = ladder(demands, 5000);
        let ladder: Vec<_> = ladder.iter().map(|(kbps, t)| (*kbps, t.as_str())).collect();
        assert_eq!(ladder, expected);
    }

    fn reasons(budget: Budget, demands: &[Demand<'_>]) -> Vec<Reason> {
        let allocation = allocate(budget, demands);
        allocation.grants.iter().map(|grant| grant.reason).collect()
    }

    #[test]
    fn one_camera_climbs_as_its_budget_grows() {
        let ladder = [(0, "-"), (150, "0"), (500, "1"), (1500, "2")];
        golden(&[camera(&CAMERA)], &ladder);
    }

    #[test]
    fn everyone_is_seen_before_anyone_is_sharp() {
        let demands = [camera(&CAMERA), camera(&CAMERA), camera(&CAMERA)];
        let ladder = [
            (0, "---"),
            (150, "0--"),
            (300, "00-"),
            (450, "000"),
            (800, "100"),
            (1150, "110"),
            (1500, "111"),
            (2500, "211"),
            (3500, "221"),
            (4500, "222"),
        ];
        golden(&demands, &ladder);
    }

    #[test]
    fn temporal_layers_go_first() {
        let demands = [camera(&TEMPORAL), camera(&TEMPORAL)];
        let ladder = [
            (0, "--"),
            (90, "0-"),
            (150, "1-"),
            (180, "00"),
            (240, "10"),
            (300, "11"),
            (650, "21"),
            (1000, "22"),
            (1500, "32"),
            (2000, "33"),
            (2500, "43"),
            (3000, "44"),
        ];
        golden(&demands, &ladder);
    }

    #[test]
    fn a_screen_comes_first_then_who_speaks_then_what_the_viewer_prefers() {
        let speaker = Demand {
            speaks: true,
            ..camera(&CAMERA)
        };
        let preferred = Demand {
            priority: 9,
            ..camera(&CAMERA)
        };
        let screen = Demand {
            source: Source::Screen,
            ..camera(&SCREEN)
        };
        let ladder = [
            (0, "----"),
            (150, "--0-"),
            (200, "---0"),
            (350, "--00"),
            (500, "-000"),
            (650, "0000"),
            (1000, "0010"),
            (1350, "0110"),
            (1650, "0001"),
            (2000, "0011"),
            (2350, "0111"),
            (2700, "1111"),
            (3000, "0021"),
            (3350, "0121"),
            (3700, "1121"),
            (4350, "0221"),
            (4700, "1221"),
        ];
        golden(&[camera(&CAMERA), preferred, speaker, screen], &ladder);
    }

    #[test]
    fn of_equals_the_one_shown_bigger_climbs_first() {
        let thumb = Demand {
            view: size(160, 90),
            ..camera(&CAMERA)
        };
        let stage = Demand {
            view: size(1280, 720),
            ..camera(&CAMERA)
        };
        let ladder = [
            (0, "--"),
            (150, "-0"),
            (300, "00"),
            (650, "01"),
            (1650, "02"),
        ];
        golden(&[thumb, stage], &ladder);
        let all = proven(5000 * KBIT);
        let reasons = reasons(all, &[thumb, stage]);
        assert_eq!(reasons, [Reason::Viewport, Reason::Source]);
    }

    #[test]
    fn a_place_caps_what_is_sent_to_it() {
        // The place, and the rung that an unlimited budget gives it.
        let table = [
            (None, Some(2)),
            (size(320, 180), Some(0)),
            (size(384, 216), Some(0)),
            (size(400, 240), Some(1)),
            // A tall place: the picture's width fills it.
            (size(300, 700), Some(0)),
            (size(768, 432), Some(1)),
            (size(800, 450), Some(2)),
            (size(3840, 2160), Some(2)),
            (size(0, 0), None),
        ];
        for (view, rung) in table {
            let demand = Demand {
                view,
                ..camera(&CAMERA)
            };
            let allocation = allocate(proven(9000 * KBIT), &[demand]);
            assert_eq!(allocation.grants[0].rung, rung, "{view:?}");
        }
    }

    #[test]
    fn a_viewers_own_cap_holds_and_counts_as_its_wish() {
        let table = [
            (Quality::Low, 0, Reason::Viewport),
            (Quality::Medium, 1, Reason::Viewport),
            (Quality::High, 2, Reason::Source),
            (Quality::Auto, 2, Reason::Source),
        ];
        for (quality, rung, reason) in table {
            let demand = Demand {
                quality,
                ..camera(&CAMERA)
            };
            let [grant] = allocate(proven(9000 * KBIT), &[demand]).grants[..] else {
                panic!("one demand, one grant");
            };
            assert_eq!((grant.rung, grant.reason), (Some(rung), reason));
        }
        let low = Demand {
            quality: Quality::Low,
            ..camera(&TEMPORAL)
        };
        assert_eq!(text(&allocate(proven(9000 * KBIT), &[low])), "1");
    }

    #[test]
    fn every_grant_says_why_it_is_not_more() {
        let hidden = Demand {
            view: Some(Size::default()),
            ..camera(&CAMERA)
        };
        let demands = [
            camera(&CAMERA),
            camera(&CAMERA),
            camera(&SINGLE),
            camera(&[]),
            hidden,
        ];
        use Reason::{Bandwidth, Paused, Source, Viewport};
        assert_eq!(
            reasons(proven(700 * KBIT), &demands),
            [Bandwidth, Bandwidth, Paused, Source, Viewport]
        );
        let plenty = reasons(proven(9000 * KBIT), &demands);
        assert_eq!(plenty, [Source, Source, Source, Source, Viewport]);
    }

    #[test]
    fn tracks_without_small_layers_are_tried_until_the_path_is_known() {
        let demands = [camera(&SINGLE), camera(&SINGLE), camera(&CAMERA)];
        let mut budget = proven(500 * KBIT);
        assert_eq!(text(&allocate(budget, &demands)), "--1");
        budget.is_proven = false;
        let allocation = allocate(budget, &demands);
        assert_eq!(text(&allocation), "000");
        assert_eq!(allocation.used_bps, 4950 * KBIT);
    }

    #[test]
    fn a_viewer_reaches_for_what_its_place_shows_and_its_cap_allows() {
        let sizes = CAMERA.map(|rung| rung.size);
        let of = |view, quality| reach(sizes.into_iter(), view, quality);
        assert_eq!(of(None, Quality::Auto), 2);
        assert_eq!(of(None, Quality::Medium), 1);
        assert_eq!(of(size(320, 180), Quality::High), 0);
        assert_eq!(of(size(0, 0), Quality::High), 0);
        assert_eq!(reach([].into_iter(), None, Quality::Auto), 0);
        assert_eq!(
            reach([None; 3].into_iter(), size(320, 180), Quality::Auto),
            2
        );
    }

    #[test]
    fn what_is_sent_goes_on_within_a_budget_of_its_own() {
        let mut demands = [camera(&CAMERA), camera(&CAMERA)];
        let budget = |kbps: u64| Budget {
            bps: kbps * KBIT,
            stays_bps: (kbps + 100) * KBIT,
            least_bps: (kbps + 100) * KBIT,
            is_proven: true,
        };
        let mut at = |kbps: u64| text(&again(budget(kbps), &mut demands));
        assert_eq!(at(1000), "11");
        assert_eq!(at(900), "11");
        assert_eq!(at(899), "10");
        assert_eq!(at(1149), "10");
        assert_eq!(at(1150), "11");
    }

    #[test]
    fn what_is_wanted_is_everything_that_makes_sense_and_room_to_climb() {
        let thumb = Demand {
            view: size(320, 180),
            ..camera(&CAMERA)
        };
        let demands = [thumb, camera(&CAMERA), camera(&SINGLE)];
        let allocation = allocate(proven(0), &demands);
        let all = (150 + 1500 + 2400) * KBIT;
        assert_eq!(allocation.wanted_bps, all * 150 / 100);
        assert_eq!(allocation.used_bps, 0);
    }

    /// Allocates again with what was granted as what was before.
    fn again(budget: Budget, demands: &mut [Demand<'_>]) -> Allocation {
        let allocation = allocate(budget, demands);
        for (demand, grant) in demands.iter_mut().zip(&allocation.grants) {
            demand.before = match grant.rung.map(|rung| demand.rungs[usize::from(rung)]) {
                None => Before::Paused,
                Some(Rung {
                    layer, temporal, ..
                }) => Before::Sent { layer, temporal },
            };
        }
        allocation
    }

    #[test]
    fn going_up_needs_headroom_and_staying_does_not() {
        let mut demands = [camera(&CAMERA)];
        let mut at = |kbps: u64| text(&again(proven(kbps * KBIT), &mut demands));
        assert_eq!(at(510), "1");
        assert_eq!(at(500), "1");
        assert_eq!(at(499), "0");
        assert_eq!(at(574), "0");
        assert_eq!(at(575), "1");
        assert_eq!(at(100), "-");
        assert_eq!(at(172), "-");
        assert_eq!(at(173), "0");
    }

    #[test]
    fn a_layer_that_is_gone_leaves_the_one_below_as_what_was_sent() {
        let mut demands = [camera(&CAMERA)];
        again(proven(2000 * KBIT), &mut demands);
        demands[0].rungs = &CAMERA[..2];
        assert_eq!(text(&again(proven(500 * KBIT), &mut demands)), "1");
    }

    fn any_rungs() -> impl Strategy<Value = Vec<Rung>> {
        let step = (1..900_u64, 0..2_u8);
        prop::collection::vec(step, 0..6).prop_map(|steps| {
            let (mut kbps, mut layer, mut temporal) = (0, 0, 0);
            steps
                .into_iter()
                .map(|(more, up)| {
                    kbps += more;
                    (layer, temporal) = if up == 1 {
                        (layer + 1, 0)
                    } else {
                        (layer, temporal + 1)
                    };
                    let side = 160 << layer;
                    rung(layer, temporal, kbps, size(side, side / 2))
                })
                .collect()
        })
    }

    type Wish = (Vec<Rung>, bool, bool, u8, Option<Size>, Quality);

    fn any_wish() -> impl Strategy<Value = Wish> {
        let view = prop_oneof![
            Just(None),
            Just(Some(Size::default())),
            (1..2000_u16, 1..1000_u16).prop_map(|(w, h)| size(w, h)),
        ];
        let quality = prop_oneof![
            Just(Quality::Low),
            Just(Quality::Medium),
            Just(Quality::High),
            Just(Quality::Auto),
        ];
        let screen = prop::bool::weighted(0.2);
        (any_rungs(), screen, any::<bool>(), 0..3_u8, view, quality)
    }

    fn demands(wishes: &[Wish]) -> Vec<Demand<'_>> {
        let demand = |wish: &'_ Wish| {
            let (_, screen, speaks, priority, view, quality) = *wish;
            Demand {
                rungs: &[],
                source: if screen {
                    Source::Screen
                } else {
                    Source::Camera
                },
                speaks,
                priority,
                view,
                quality,
                before: Before::New,
            }
        };
        wishes
            .iter()
            .map(|wish| Demand {
                rungs: &wish.0,
                ..demand(wish)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn no_budget_is_ever_exceeded(
            wishes in prop::collection::vec(any_wish(), 0..12),
            kbps in prop::collection::vec(0..6000_u64, 1..6),
        ) {
            let mut demands = demands(&wishes);
            for kbps in kbps {
                let allocation = again(proven(kbps * KBIT), &mut demands);
                let paid = demands.iter().zip(&allocation.grants).filter_map(|(demand, grant)| {
                    Some(demand.rungs[usize::from(grant.rung?)].bps)
                });
                prop_assert_eq!(allocation.used_bps, paid.sum::<u64>());
                prop_assert!(allocation.used_bps <= kbps * KBIT);
            }
        }

        #[test]
        fn nobody_climbs_while_someone_who_could_be_seen_is_not(
            wishes in prop::collection::vec(any_wish(), 1..12),
            kbps in 0..6000_u64,
        ) {
            let demands = demands(&wishes);
            let allocation = allocate(proven(kbps * KBIT), &demands);
            let cheapest: u64 = demands
                .iter()
                .zip(&allocation.grants)
                .filter(|(_, grant)| grant.rung.is_some())
                .map(|(demand, _)| demand.rungs[0].bps)
                .sum();
            for (demand, grant) in demands.iter().zip(&allocation.grants) {
                if grant.reason == Reason::Paused {
                    prop_assert!(cheapest + demand.rungs[0].bps > kbps * KBIT);
                }
            }
        }

        #[test]
        fn with_everyone_seen_the_most_important_never_gets_less_from_more(
            wishes in prop::collection::vec(any_wish(), 1..8),
            kbps in 0..6000_u64,
            more in 0..6000_u64,
        ) {
            let mut demands = demands(&wishes);
            demands[0].source = Source::Screen;
            demands[0].priority = 200;
            demands[0].speaks = true;
            let less = allocate(proven(kbps * KBIT), &demands);
            let more = allocate(proven((kbps + more) * KBIT), &demands);
            let is_seen = |grant: &Grant| grant.reason != Reason::Paused;
            if less.grants.iter().all(is_seen) {
                prop_assert!(less.grants[0].rung <= more.grants[0].rung);
            }
            prop_assert!(is_seen(&more.grants[0]) || !is_seen(&less.grants[0]));
        }

        #[test]
        fn a_wavering_estimate_moves_nothing(
            wishes in prop::collection::vec(any_wish(), 1..12),
            kbps in 100..6000_u64,
            waver in prop::collection::vec(0..=100_u64, 12),
        ) {
            let mut demands = demands(&wishes);
            // What was held back when there was less may still climb; then nothing moves.
            let mut settled = Allocation::default();
            for bps in [kbps * 1100, kbps * 1000].repeat(20) {
                settled = again(proven(bps), &mut demands);
            }
            for permille in waver {
                let bps = kbps * (KBIT + permille);
                prop_assert_eq!(&again(proven(bps), &mut demands).grants, &settled.grants);
            }
        }

        #[test]
        fn what_is_wanted_is_enough(wishes in prop::collection::vec(any_wish(), 0..12)) {
            let mut demands = demands(&wishes);
            let wanted_bps = again(proven(0), &mut demands).wanted_bps;
            let allocation = allocate(proven(wanted_bps + 1), &demands);
            let short = [Reason::Bandwidth, Reason::Paused];
            prop_assert!(allocation.grants.iter().all(|grant| !short.contains(&grant.reason)));
        }
    }
}
