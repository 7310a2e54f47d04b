//! What one subscriber received of what it should have.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use crate::plan::TrackPlan;
use crate::stamp::Stamp;

/// Delays longer than this count as this, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST_NS, 2).expect("the bounds are in order")
}

/// One track of one publisher, counted by the thread that sends it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) video: bool,
    /// Packets of one frame, by layer.
    pub(crate) packets: Vec<u32>,
    /// Frames that were begun while the run was being measured.
    frames: AtomicU64,
}

impl Source {
    pub(crate) fn new(track: &TrackPlan) -> Self {
        Self {
            video: track.video,
            packets: track.layers.iter().map(|(packets, _)| *packets).collect(),
            frames: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// What a subscriber heard of one source.
#[derive(Debug, Default, Clone)]
pub(crate) struct Heard {
    /// Packets, and frames of which at least one came, by layer.
    packets: [u64; 3],
    frames: [u64; 3],
    /// First and latest frame.
    span: Option<(u32, u32)>,
    /// When the latest packet came, and the longest time without one, in nanoseconds.
    latest_ns: Option<u64>,
    gap_ns: u64,
}

/// How much of a source should have come, and did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
}

impl Heard {
    /// Takes in one packet that was sent while the run was being measured.
    pub(crate) fn handle_packet(&mut self, stamp: &Stamp, at_ns: u64) {
        let layer = usize::from(stamp.layer.min(2));
        self.packets[layer] += 1;
        match &mut self.span {
            None => {
                self.span = Some((stamp.frame, stamp.frame));
                self.frames[layer] += 1;
            }
            Some((_, latest)) if stamp.frame > *latest => {
                *latest = stamp.frame;
                self.frames[layer] += 1;
            }
            Some(_) => {}
        }
        if let Some(latest) = self.latest_ns {
            self.gap_ns = self.gap_ns.max(at_ns.saturating_sub(latest));
        }
        self.latest_ns = Some(at_ns.max(self.latest_ns.unwrap_or(0)));
    }

    pub(crate) fn gap_ns(&self) -> u64 {
        self.gap_ns
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.packets.iter().sum()
    }

    /// Holds what came against what was sent. Frames of which nothing came are taken for frames
    /// of the layer that most came of (of the smallest, when nothing came at all).
    ///
    /// `whole`: the subscriber was there for all of it; else only what lies between its first
    /// and its last frame was meant for it.
    pub(crate) fn delivery(&self, source: &Source, whole: bool) -> Delivery {
        let meant = match (whole, self.span) {
            (true, _) => source.frames(),
            (false, Some((first, last))) => u64::from(last - first) + 1,
            (false, None) => 0,
        };
        let came: u64 = self.frames.iter().sum();
        let layers = source.packets.len();
        let most = (0..layers).rev().max_by_key(|layer| self.frames[*layer]);
        let most = most.filter(|_| came > 0).unwrap_or(0);
        let touched = self.frames.iter().zip(&source.packets);
        let touched: u64 = touched.map(|(n, packets)| n * u64::from(*packets)).sum();
        let missing = meant.saturating_sub(came) * u64::from(source.packets[most]);
        Delivery {
            expected: touched + missing,
            delivered: self.delivered(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(packets: &[u32], frames: u64) -> Source {
        let source = Source {
            video: true,
            packets: packets.to_vec(),
            frames: AtomicU64::new(0),
        };
        (0..frames).for_each(|_| source.count_frame());
        source
    }

    fn hear(heard: &mut Heard, frame: u32, layer: u8, packets: u32) {
        for _ in 0..packets {
            let stamp = Stamp {
                source: 0,
                frame,
                layer,
                measured: true,
                sent_ns: 0,
            };
            heard.handle_packet(&stamp, u64::from(frame) * 1_000);
        }
    }

    #[test]
    fn everything_that_came_was_expected() {
        let mut heard = Heard::default();
        (10..20).for_each(|frame| hear(&mut heard, frame, 0, 8));
        let delivery = heard.delivery(&source(&[8], 10), true);
        assert_eq!((delivery.expected, delivery.delivered), (80, 80));
        assert_eq!(heard.gap_ns(), 1_000);
    }

    #[test]
    fn packets_and_frames_that_did_not_come_are_missed() {
        let mut heard = Heard::default();
        hear(&mut heard, 10, 0, 8);
        hear(&mut heard, 11, 0, 3);
        hear(&mut heard, 19, 0, 8);
        let delivery = heard.delivery(&source(&[8], 12), true);
        assert_eq!((delivery.expected, delivery.delivered), (96, 19));
        assert_eq!(heard.gap_ns(), 8_000);
    }

    #[test]
    fn a_source_that_never_came_is_missed_in_its_smallest_layer() {
        let delivery = Heard::default().delivery(&source(&[1, 2, 8], 10), true);
        assert_eq!((delivery.expected, delivery.delivered), (10, 0));
    }

    #[test]
    fn each_layer_is_expected_for_the_frames_it_was_chosen_for() {
        let mut heard = Heard::default();
        (0..4).for_each(|frame| hear(&mut heard, frame, 0, 1));
        (4..10).for_each(|frame| hear(&mut heard, frame, 2, 8));
        let delivery = heard.delivery(&source(&[1, 2, 8], 10), true);
        assert_eq!((delivery.expected, delivery.delivered), (52, 52));
    }

    #[test]
    fn a_visitor_is_expected_to_get_what_lies_within_its_visit() {
        let mut heard = Heard::default();
        hear(&mut heard, 5, 0, 8);
        hear(&mut heard, 7, 0, 8);
        let delivery = heard.delivery(&source(&[8], 100), false);
        assert_eq!((delivery.expected, delivery.delivered), (24, 16));
    }
}
