//! What is seen of each layer of a track: how much of it, how often, how big, and whether it goes
//! on. A pure state machine; names of layers mean nothing to it.
//!
//! A layer that its publisher stops (for want of bandwidth) just falls silent, and so does one
//! whose picture stands still: a shared screen may send a frame in five seconds. What tells them
//! apart is the other layers: they show the same scene, so one that goes on without this one means
//! that this one stopped. Nothing waits for a timer, and no frame rate is assumed.

use std::time::{Duration, Instant};

use super::allocate::Rung;
use super::codec::{Size, Sizes};
use super::limits::TRACK_LAYERS;

/// Temporal layers told apart; higher ones count as the highest. WebRTC uses up to 3.
pub const TEMPORAL_LAYERS: usize = 4;

/// Frames that another layer must have sent alone before a layer counts as stopped.
pub const MISSED_FRAMES: u32 = 3;

/// A layer that sends at least this often is never stopped, however often others send: a keyframe
/// on its way takes this long.
pub const MIN_SILENCE: Duration = Duration::from_millis(250);

/// Frames that a layer which stopped must send before it counts again.
pub const RESTART_FRAMES: u32 = 3;

/// How many of its own longest recent frame intervals a layer may be silent.
const PATIENCE: u32 = 4;
/// The frame interval of a layer of which only one frame was seen.
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// Frame intervals are not taken for longer than this: a track that was muted for an hour has no
/// frame rate of one in an hour.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes are counted in spans of this length.
const SPAN: Duration = Duration::from_millis(500);
/// The bitrate is that of this many spans.
const SPANS: usize = 4;
/// While a layer sends less than it did, its price falls by this share in each span: what comes
/// after a still scene costs what came before it.
const PRICE_DECAY: u64 = 16;
/// A layer that sent nothing for so many spans costs nothing.
const MAX_HELD_SPANS: u64 = 240;
/// A layer younger than this is taken to have sent as much as it did in this time: it began with
/// a keyframe, which is several frames' worth.
const MIN_MEASURED: Duration = Duration::from_millis(750);
/// Of two layers whose size is unknown one counts as the greater when it is so much dearer, and
/// both sent this many frames.
const CLEARLY_DEARER_PERCENT: u64 = 150;
const COMPARED_FRAMES: u32 = 5;

/// How the layers of a track relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layering {
    /// Each is a stream of its own.
    #[default]
    Simulcast,
    /// Each needs those below it, in one stream (SVC).
    Spatial,
    /// Likewise, but only in keyframes (K-SVC): between them each goes on by itself.
    Keyed,
}

/// One packet, as far as it counts here.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Which stream, or which spatial layer of one.
    pub layer: u8,
    /// Its temporal layer; 0 when there are none.
    pub temporal: u8,
    /// Payload bytes; padding counts nothing.
    pub bytes: usize,
    /// Packets of one frame have the same.
    pub timestamp: u32,
    /// How big pictures are from here on, if it says so. In simulcast the first is the layer's.
    pub sizes: Option<Sizes>,
}

/// What became known by a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A layer began to send, for the first time or again.
    Started(u8),
    /// A layer fell silent while others went on.
    Stopped(u8),
}

/// What was seen of the layers of one track.
#[derive(Debug, Default)]
pub struct Layers {
    layering: Layering,
    seen: [Seen; TRACK_LAYERS],
    /// Layers of which anything was seen, the smallest first.
    order: [u8; TRACK_LAYERS],
    /// How many places of it are in use.
    count: usize,
}

/// What was seen of one layer.
#[derive(Debug, Default)]
struct Seen {
    /// `None` before the first packet.
    last_at: Option<Instant>,
    timestamp: u32,
    /// Frames since the track began, wrapping.
    frames: u32,
    /// Frames since it last started.
    frames_in_row: u32,
    /// Frames of each layer when this one last sent anything.
    others: [u32; TRACK_LAYERS],
    /// The longest interval between frames of late.
    interval: Duration,
    is_live: bool,
    size: Option<Size>,
    rate: Rate,
}

impl Layers {
    /// Nothing was seen.
    #[must_use]
    pub fn new(layering: Layering) -> Self {
        Self {
            layering,
            ..Self::default()
        }
    }

    /// How they relate.
    #[must_use]
    pub fn layering(&self) -> Layering {
        self.layering
    }

    /// It became known how those of one stream relate; what was seen of them holds.
    pub fn relate(&mut self, layering: Layering) {
        self.layering = layering;
    }

    /// Takes in a packet. Layers past [`TRACK_LAYERS`] count for nothing.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet) -> Option<Change> {
        let index = usize::from(packet.layer);
        let is_new = self.seen.get(index)?.last_at.is_none();
        let frames = self.seen.each_ref().map(|seen| seen.frames);
        let is_frame = self.seen[index].handle_packet(now, packet, frames);
        if let Some(sizes) = packet.sizes {
            self.take_sizes(index, sizes);
        }
        if is_new {
            self.order[self.count] = packet.layer;
            self.count += 1;
        }
        if is_new || is_frame {
            self.sort(now);
        }
        let seen = &mut self.seen[index];
        if !seen.is_live {
            // The first time it is welcome at once, later only when it lasts.
            seen.is_live = is_new || seen.frames_in_row >= RESTART_FRAMES;
            return seen.is_live.then_some(Change::Started(packet.layer));
        }
        is_frame
            .then(|| self.stop_silent(now, index))
            .flatten()
            .map(Change::Stopped)
    }

    /// Layers that go on, the smallest first.
    pub fn live(&self) -> impl DoubleEndedIterator<Item = u8> {
        let order = self.order[..self.count].iter().copied();
        order.filter(|layer| self.is_live(*layer))
    }

    /// Whether a layer goes on.
    #[must_use]
    pub fn is_live(&self, layer: u8) -> bool {
        let seen = self.seen.get(usize::from(layer));
        seen.is_some_and(|seen| seen.is_live)
    }

    /// Place of a layer in the order of size, 0 for the smallest; `None` when it was never seen.
    #[must_use]
    pub fn place(&self, layer: u8) -> Option<u8> {
        let place = self.order[..self.count].iter().position(|l| *l == layer)?;
        u8::try_from(place).ok()
    }

    /// How many layers were seen.
    #[must_use]
    pub fn places(&self) -> u8 {
        self.count as u8
    }

    /// How big a layer's pictures are, if it said so.
    #[must_use]
    pub fn size(&self, layer: u8) -> Option<Size> {
        self.seen.get(usize::from(layer))?.size
    }

    /// What a layer costs up to a temporal layer, in bits per second: what it sends, or what it
    /// sent a moment ago when its scene has become still.
    #[must_use]
    pub fn bps(&self, now: Instant, layer: u8, temporal: u8) -> u64 {
        let seen = self.seen.get(usize::from(layer));
        seen.map_or(0, |seen| seen.rate.price(now, temporal))
    }

    /// What a layer sends up to a temporal layer, with what it needs, in bits per second.
    #[must_use]
    pub fn sent_bps(&self, now: Instant, layer: u8, temporal: u8) -> u64 {
        let lowest = if self.layering == Layering::Spatial {
            0
        } else {
            layer
        };
        let all = (lowest..=layer).filter_map(|layer| self.seen.get(usize::from(layer)));
        all.map(|seen| seen.rate.measured(now, temporal)).sum()
    }

    /// What arrives of a layer alone, in bits per second.
    #[must_use]
    pub fn own_bps(&self, now: Instant, layer: u8) -> u64 {
        let seen = self.seen.get(usize::from(layer));
        seen.map_or(0, |seen| seen.rate.measured(now, u8::MAX))
    }

    /// Frames per second of late, a low estimate.
    #[must_use]
    pub fn frame_rate(&self, layer: u8) -> Option<f32> {
        let seen = self.seen.get(usize::from(layer))?;
        (seen.frames > 1).then(|| seen.interval.as_secs_f32().recip())
    }

    /// What the track can be sent as, cheapest first, appended to `rungs`: the smallest layer at
    /// any frame rate, the others at no less than half of theirs. A layer that costs no more than
    /// a smaller one takes its place. [`Rung::layer`] is the place in the order of size.
    pub fn rungs(&self, now: Instant, rungs: &mut Vec<Rung>) {
        let start = rungs.len();
        let mut below_bps = 0;
        for (place, layer) in self.live().enumerate() {
            let seen = &self.seen[usize::from(layer)];
            let top = seen.rate.highest_temporal();
            let first = if place == 0 { 0 } else { top.saturating_sub(1) };
            for temporal in first..=top {
                let own_bps = seen.rate.price(now, temporal).max(1);
                let bps = below_bps + own_bps;
                while rungs.len() > start && rungs.last().is_some_and(|last| last.bps >= bps) {
                    rungs.pop();
                }
                rungs.push(Rung {
                    layer: self.place(layer).unwrap_or(0),
                    temporal,
                    bps,
                    size: seen.size,
                });
                if self.layering == Layering::Spatial && temporal == top {
                    below_bps = bps;
                }
            }
        }
    }

    /// The layer at a place in the order of size.
    #[must_use]
    pub fn at(&self, place: u8) -> Option<u8> {
        self.order[..self.count].get(usize::from(place)).copied()
    }

    fn take_sizes(&mut self, index: usize, sizes: Sizes) {
        match self.layering {
            Layering::Simulcast => self.seen[index].size = Some(sizes[0]),
            Layering::Spatial | Layering::Keyed => {
                // What a publisher leaves out for a while comes back as big as it was.
                let told = self.seen.iter_mut().zip(sizes);
                for (seen, size) in told.filter(|(_, size)| size.pixels() > 0) {
                    seen.size = Some(size);
                }
            }
        }
    }

    /// A frame of `index` came: another layer that misses too many of its frames has stopped. One
    /// at a time: the next frame finds the next.
    fn stop_silent(&mut self, now: Instant, index: usize) -> Option<u8> {
        let frames = self.seen[index].frames;
        let stopped = self.seen.iter_mut().position(|other| {
            other.is_live
                && frames.wrapping_sub(other.others[index]) >= MISSED_FRAMES
                && other.silence(now) > other.patience()
        })?;
        self.seen[stopped].is_live = false;
        self.seen[stopped].frames_in_row = 0;
        u8::try_from(stopped).ok()
    }

    /// Keeps the order of size. Spatial layers are numbered by it already.
    fn sort(&mut self, now: Instant) {
        if self.layering != Layering::Simulcast {
            self.order[..self.count].sort_unstable();
            return;
        }
        for place in 1..self.count {
            let [small, big] = [self.order[place - 1], self.order[place]].map(usize::from);
            if self.seen[small].is_greater(now, &self.seen[big]) {
                self.order.swap(place - 1, place);
            }
        }
    }
}

impl Seen {
    /// Whether a frame began.
    fn handle_packet(
        &mut self,
        now: Instant,
        packet: &Packet,
        others: [u32; TRACK_LAYERS],
    ) -> bool {
        self.rate.add(now, packet.temporal, packet.bytes);
        let is_frame = self.last_at.is_none() || packet.timestamp != self.timestamp;
        if is_frame {
            let elapsed = self.silence(now).min(MAX_INTERVAL);
            let is_again = !self.is_live && elapsed > self.patience();
            if is_again {
                self.frames_in_row = 0;
            }
            self.interval = if self.frames == 0 || is_again {
                FIRST_INTERVAL
            } else {
                // Up at once, down slowly: frames of a screen come in bursts.
                elapsed.max(self.interval * 7 / 8)
            };
            self.timestamp = packet.timestamp;
            self.frames = self.frames.wrapping_add(1);
            self.frames_in_row = self.frames_in_row.saturating_add(1);
        }
        self.others = others;
        self.last_at = Some(now);
        is_frame
    }

    fn silence(&self, now: Instant) -> Duration {
        self.last_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// How long it may be silent while others go on.
    fn patience(&self) -> Duration {
        (self.interval * PATIENCE).max(MIN_SILENCE)
    }

    /// By size; where that is unknown, or is the same, by price, if it is clearly more.
    fn is_greater(&self, now: Instant, than: &Self) -> bool {
        match (self.size, than.size) {
            (Some(a), Some(b)) if a != b => a.pixels() > b.pixels(),
            _ => {
                let [a, b] = [self, than].map(|seen| seen.rate.price(now, u8::MAX));
                let is_known = self.frames.min(than.frames) >= COMPARED_FRAMES;
                is_known && a * 100 > b * CLEARLY_DEARER_PERCENT
            }
        }
    }
}

/// Bytes of the last spans, by temporal layer.
#[derive(Debug, Default)]
struct Rate {
    /// When counting began.
    began: Option<Instant>,
    /// Number of the current span since then.
    span: u64,
    /// Bytes of this span and those before it, at the span's number modulo [`SPANS`].
    bytes: [[u64; TEMPORAL_LAYERS]; SPANS],
    /// Bits per second up to each temporal layer, held while the layer sends less.
    held_bps: [u64; TEMPORAL_LAYERS],
    /// Temporal layers seen, a bit each.
    temporals: u8,
}

impl Rate {
    fn add(&mut self, now: Instant, temporal: u8, bytes: usize) {
        self.turn_to(now);
        let temporal = usize::from(temporal).min(TEMPORAL_LAYERS - 1);
        self.temporals |= 1 << temporal;
        self.bytes[(self.span % SPANS as u64) as usize][temporal] += bytes as u64;
    }

    /// Closes the spans that are over.
    fn turn_to(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let span = Self::span_at(began, now);
        if span <= self.span {
            return;
        }
        // The first keyframe is no measure of what follows.
        if self.span >= SPANS as u64 {
            for temporal in 0..TEMPORAL_LAYERS {
                self.held_bps[temporal] = self.price(now, temporal as u8);
            }
        }
        let passed = (span - self.span).min(SPANS as u64);
        for back in 0..passed {
            self.bytes[((span - back) % SPANS as u64) as usize] = [0; TEMPORAL_LAYERS];
        }
        self.span = span;
    }

    /// Bits per second up to a temporal layer, held while the layer sends less.
    fn price(&self, now: Instant, temporal: u8) -> u64 {
        let Some(began) = self.began else { return 0 };
        let spans_over = Self::span_at(began, now).saturating_sub(self.span);
        if spans_over >= MAX_HELD_SPANS {
            return 0;
        }
        let held_bps = self.held_bps[usize::from(temporal).min(TEMPORAL_LAYERS - 1)];
        let held_bps = (0..spans_over).fold(held_bps, |bps, _| bps - bps.div_ceil(PRICE_DECAY));
        self.measured(now, temporal).max(held_bps)
    }

    /// Bits per second up to a temporal layer.
    fn measured(&self, now: Instant, temporal: u8) -> u64 {
        let temporal = usize::from(temporal).min(TEMPORAL_LAYERS - 1);
        let Some(began) = self.began else { return 0 };
        let spans_over = Self::span_at(began, now).saturating_sub(self.span);
        let kept = (SPANS as u64).saturating_sub(spans_over);
        let bytes: u64 = (0..kept.min(self.span + 1))
            .map(|back| &self.bytes[((self.span - back) % SPANS as u64) as usize])
            .map(|span| span[..=temporal].iter().sum::<u64>())
            .sum();
        let elapsed = now.saturating_duration_since(began);
        let in_span = elapsed.as_micros() as u64 % SPAN.as_micros() as u64;
        let whole = SPAN.as_micros() as u64 * (SPANS as u64 - 1) + in_span;
        let measured = whole.min(elapsed.as_micros() as u64);
        let measured = measured.max(MIN_MEASURED.as_micros() as u64);
        bytes * 8_000_000 / measured
    }

    fn highest_temporal(&self) -> u8 {
        (u8::BITS - self.temporals.leading_zeros()).saturating_sub(1) as u8
    }

    fn span_at(began: Instant, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(began);
        (elapsed.as_micros() / SPAN.as_micros()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::clock::origin;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn size(width: u16, height: u16) -> Sizes {
        let mut sizes = Sizes::default();
        sizes[0] = Size { width, height };
        sizes
    }

    /// One layer as its encoder sends it.
    #[derive(Debug, Clone)]
    struct Source {
        layer: u8,
        /// Milliseconds between frames, from when on and until when.
        interval: u64,
        from: u64,
        until: u64,
        bytes: usize,
        /// Temporal layers of its frames, in turns.
        temporals: &'static [u8],
        sizes: Option<Sizes>,
    }

    fn source(layer: u8, interval: u64, bytes: usize) -> Source {
        Source {
            layer,
            interval,
            from: 0,
            until: u64::MAX,
            bytes,
            temporals: &[0],
            sizes: None,
        }
    }

    /// Sends for so many milliseconds; returns when what changed.
    fn run(
        layers: &mut Layers,
        start: Instant,
        sources: &[Source],
        end: u64,
    ) -> Vec<(u64, Change)> {
        let mut changes = Vec::new();
        for at in 0..end {
            for source in sources {
                let sends = (source.from..source.until).contains(&at);
                if !sends || !(at - source.from).is_multiple_of(source.interval) {
                    continue;
                }
                let frame = (at - source.from) / source.interval;
                let turn = frame as usize % source.temporals.len();
                let packet = Packet {
                    layer: source.layer,
                    temporal: source.temporals[turn],
                    bytes: source.bytes,
                    timestamp: at as u32 * 90,
                    sizes: source.sizes.filter(|_| frame == 0),
                };
                let change = layers.handle_packet(start + ms(at), &packet);
                changes.extend(change.map(|change| (at, change)));
            }
        }
        changes
    }

    fn stops(changes: &[(u64, Change)]) -> Vec<(u64, u8)> {
        let stop = |(at, change): &(u64, Change)| match change {
            Change::Stopped(layer) => Some((*at, *layer)),
            Change::Started(_) => None,
        };
        changes.iter().filter_map(stop).collect()
    }

    #[test]
    fn the_order_is_what_is_seen_not_how_it_came() {
        let mut layers = Layers::default();
        let mut sources = [source(0, 33, 500), source(1, 33, 500), source(2, 33, 500)];
        sources[0].sizes = Some(size(1280, 720));
        sources[1].sizes = Some(size(320, 180));
        sources[2].sizes = Some(size(640, 360));
        run(&mut layers, origin(), &sources, 200);
        assert_eq!(layers.live().collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(
            [0, 1, 2].map(|l| layers.place(l)),
            [Some(2), Some(0), Some(1)]
        );
        assert_eq!(
            (layers.at(2), layers.at(3), layers.place(3)),
            (Some(0), None, None)
        );
    }

    #[test]
    fn without_sizes_the_price_orders_layers_and_small_differences_do_not() {
        let mut layers = Layers::default();
        let sources = [source(0, 33, 6000), source(1, 33, 600), source(2, 33, 650)];
        run(&mut layers, origin(), &sources, 3000);
        assert_eq!(layers.live().collect::<Vec<_>>(), [1, 2, 0]);
    }

    #[test]
    fn what_a_layer_costs_is_measured_up_to_each_temporal_layer() {
        let (mut layers, start) = (Layers::default(), origin());
        let mut one = source(0, 25, 1000);
        one.temporals = &[0, 2, 1, 2];
        run(&mut layers, start, &[one], 5000);
        // 40 frames a second of 8000 bits: a quarter, half, all of it.
        let at = start + ms(5000);
        for (temporal, expected) in [(0, 80_000), (1, 160_000), (2, 320_000), (7, 320_000)] {
            let bps = layers.bps(at, 0, temporal);
            assert!(bps.abs_diff(expected) < expected / 10, "T{temporal}: {bps}");
        }
        assert!((layers.frame_rate(0).unwrap() - 40.0).abs() < 4.0);
    }

    #[test]
    fn a_new_layer_is_not_judged_by_the_moment_it_began() {
        let start = origin();
        let key = Source {
            until: 1,
            ..source(0, 33, 20_000)
        };
        let rest = Source {
            from: 33,
            ..source(0, 33, 4000)
        };
        for (age, at_least, at_most) in [(400, 500_000, 1_000_000), (1000, 900_000, 1_200_000)] {
            let mut layers = Layers::default();
            run(&mut layers, start, &[key.clone(), rest.clone()], age);
            let bps = layers.bps(start + ms(age), 0, 0);
            assert!((at_least..at_most).contains(&bps), "{bps} at {age} ms");
        }
    }

    #[test]
    fn a_still_scene_costs_what_came_before_it_for_a_while() {
        let (mut layers, start) = (Layers::default(), origin());
        let mut moving = source(0, 33, 4000);
        moving.until = 3000;
        run(&mut layers, start, &[moving], 3000);
        let moving = layers.bps(start + ms(3000), 0, 0);
        let soon = layers.bps(start + ms(5000), 0, 0);
        let later = layers.bps(start + ms(60_000), 0, 0);
        assert!(soon > moving * 2 / 3, "{soon} of {moving}");
        assert!(later < moving / 10, "{later} of {moving}");
        assert_eq!(layers.bps(start + ms(9_000_000), 0, 0), 0);
    }

    #[test]
    fn a_layer_that_stops_while_others_go_on_is_noticed_by_its_own_frame_rate() {
        // Frame interval of both layers, and the latest that the stop at 10 s may be noticed.
        for (interval, noticed_by) in [
            (33, 300),
            (66, 350),
            (200, 1000),
            (1000, 5000),
            (5000, 25_000),
        ] {
            let mut layers = Layers::default();
            let begin = interval * 12;
            let sources = [
                source(0, interval, 500),
                Source {
                    until: begin + 1,
                    ..source(1, interval, 2000)
                },
            ];
            let changes = run(&mut layers, origin(), &sources, begin + 60_000);
            let [(at, 1)] = stops(&changes)[..] else {
                panic!("{interval} ms: {changes:?}");
            };
            assert!(
                at - begin <= noticed_by,
                "{interval} ms: after {}",
                at - begin
            );
            assert!(layers.is_live(0) && !layers.is_live(1));
            assert_eq!(layers.live().collect::<Vec<_>>(), [0]);
        }
    }

    #[test]
    fn a_scene_that_stands_still_stops_no_layer() {
        let mut layers = Layers::default();
        // 30 frames a second for 3 s, then a frame in five seconds, then 30 again.
        let phase = |layer, interval, from, until| Source {
            from,
            until,
            ..source(layer, interval, 900)
        };
        let sources: Vec<_> = [0, 1, 2]
            .into_iter()
            .flat_map(|layer| {
                [
                    phase(layer, 33, 0, 3000),
                    phase(layer, 5000, 3000, 60_000),
                    phase(layer, 33, 60_000, 70_000),
                ]
            })
            .collect();
        let changes = run(&mut layers, origin(), &sources, 70_000);
        assert_eq!(stops(&changes), []);
    }

    #[test]
    fn a_layer_with_fewer_frames_than_others_is_alive() {
        let mut layers = Layers::default();
        let sources = [source(0, 200, 900), source(1, 33, 900)];
        let changes = run(&mut layers, origin(), &sources, 10_000);
        assert_eq!(stops(&changes), []);
    }

    #[test]
    fn a_layer_that_comes_back_counts_again_when_it_lasts() {
        let mut layers = Layers::default();
        let phase = |from, until| Source {
            from,
            until,
            ..source(1, 33, 900)
        };
        let sources = [
            source(0, 33, 500),
            phase(0, 1000),
            phase(3000, 3034),
            phase(5000, 9000),
        ];
        let changes = run(&mut layers, origin(), &sources, 9000);
        let of_one: Vec<_> = changes
            .iter()
            .filter(|(_, change)| matches!(change, Change::Started(1)))
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(of_one, [0, 5066], "{changes:?}");
        assert!(layers.is_live(1));
    }

    #[test]
    fn rungs_are_ordered_and_leave_out_what_helps_nobody() {
        let (mut layers, start) = (Layers::default(), origin());
        let temporals: &[u8] = &[0, 2, 1, 2];
        let sources = [
            Source {
                temporals,
                ..source(2, 25, 400)
            },
            Source {
                temporals,
                ..source(0, 25, 1600)
            },
            Source {
                temporals,
                ..source(1, 25, 6000)
            },
        ];
        run(&mut layers, start, &sources, 4000);
        let mut rungs = Vec::new();
        layers.rungs(start + ms(4000), &mut rungs);
        let shape: Vec<_> = rungs
            .iter()
            .map(|rung| (rung.layer, rung.temporal))
            .collect();
        assert_eq!(
            shape,
            [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
        );
        assert!(rungs.is_sorted_by_key(|rung| rung.bps));
        assert_eq!(
            [0, 1, 2].map(|place| layers.at(place)),
            [Some(2), Some(0), Some(1)]
        );
    }

    #[test]
    fn spatial_layers_cost_what_they_need_below_them() {
        let (mut layers, start) = (Layers::new(Layering::Spatial), origin());
        let mut sources = [source(0, 25, 500), source(1, 25, 500), source(2, 25, 2000)];
        let [mut sizes, _, _, _] = [Sizes::default(); 4];
        for (size, width) in sizes.iter_mut().zip([320, 640, 1280]) {
            *size = Size { width, height: 180 };
        }
        sources[0].sizes = Some(sizes);
        run(&mut layers, start, &sources, 4000);
        let mut rungs = Vec::new();
        layers.rungs(start + ms(4000), &mut rungs);
        let widths: Vec<_> = rungs.iter().map(|rung| rung.size.unwrap().width).collect();
        assert_eq!(widths, [320, 640, 1280]);
        assert!(rungs[1].bps > rungs[0].bps * 9 / 5 && rungs[2].bps > rungs[0].bps * 5);
        assert_eq!(layers.size(3), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_order_is_one_and_rungs_climb(
            packets in prop::collection::vec(
                (0..6_u8, any::<u8>(), 0..2000_usize, 0..4_u32, 0..4000_u64, 0..3_u16), 0..200),
            spatial in any::<bool>(),
        ) {
            let layering = if spatial { Layering::Spatial } else { Layering::Simulcast };
            let (mut layers, mut now) = (Layers::new(layering), origin());
            let mut live = [false; TRACK_LAYERS];
            let mut rungs = Vec::new();
            for (layer, temporal, bytes, timestamp, pause, wide) in packets {
                now += ms(pause);
                let sizes = (wide > 0).then(|| size(wide * 320, 100));
                let packet = Packet { layer, temporal, bytes, timestamp, sizes };
                match layers.handle_packet(now, &packet) {
                    Some(Change::Started(layer)) => {
                        prop_assert!(!std::mem::replace(&mut live[usize::from(layer)], true));
                    }
                    Some(Change::Stopped(layer)) => {
                        prop_assert!(std::mem::replace(&mut live[usize::from(layer)], false));
                    }
                    None => {}
                }
                for layer in 0..TRACK_LAYERS as u8 {
                    prop_assert_eq!(layers.is_live(layer), live[usize::from(layer)]);
                    if let Some(place) = layers.place(layer) {
                        prop_assert_eq!(layers.at(place), Some(layer));
                    }
                }
                rungs.clear();
                layers.rungs(now, &mut rungs);
                prop_assert!(rungs.is_sorted_by(|a, b| a.bps < b.bps));
                prop_assert!(rungs.is_sorted_by_key(|rung| (rung.layer, rung.temporal)));
                prop_assert_eq!(rungs.is_empty(), !live.contains(&true));
            }
        }
    }
}
