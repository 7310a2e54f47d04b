//! How much arrives: the acknowledged bitrate (draft-ietf-rmcat-gcc-02 §5.5, R_hat).
//!
//! The draft and libwebrtc's robust_throughput_estimator.cc take it over 0.5 to 1 s of packets.
//! This one counts bytes into short slices of arrival time and keeps their sums: no packets are
//! kept, and nothing is added up when it is asked.

use str0m::bwe::Bitrate;

/// Length of a slice, in microseconds.
const SLICE_US: i64 = 50_000;

/// Slices of the long window: a second. Frames come in lumps of 33 ms, so a shorter one is noise.
const LONG: usize = 20;

/// Slices of the short window, which notices a change sooner.
const SHORT: usize = 6;

/// Slices of what came just now.
const LATEST: usize = 3;

/// Slices after which a rate is known. draft §5.5 wants half a second.
const KNOWN: usize = 10;

/// The short window is believed when its rate leaves this range of the long one's.
const STEADY: std::ops::Range<f64> = 0.7..1.2;

/// What arrived lately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delivered {
    /// All of it, headers included.
    pub rate: Bitrate,
    /// Nothing is lost, and no queue stands before it.
    pub is_clear: bool,
}

/// The rate at which packets arrive.
#[derive(Debug)]
pub(super) struct AckedRate {
    /// Bytes of the latest complete slices; a ring, `at` is the oldest.
    slices: [u32; LONG],
    at: usize,
    /// Complete slices, at most [`LONG`].
    known: usize,
    long_bytes: u64,
    short_bytes: u64,
    /// Bytes of the slice under way, and which it is.
    bytes: u32,
    slice: Option<i64>,
}

impl AckedRate {
    /// A rate that is not yet known.
    pub(super) fn new() -> Self {
        Self {
            slices: [0; LONG],
            at: 0,
            known: 0,
            long_bytes: 0,
            short_bytes: 0,
            bytes: 0,
            slice: None,
        }
    }

    /// Takes in a packet that arrived at `arrival_us` of the viewer's clock. A packet out of
    /// order counts for the slice under way.
    pub(super) fn add(&mut self, arrival_us: i64, bytes: u16) {
        let slice = arrival_us.div_euclid(SLICE_US);
        let passed = slice - *self.slice.get_or_insert(slice);
        if passed.unsigned_abs() >= LONG as u64 {
            // Nothing came for the whole window, or the clock was set: what lay before says
            // nothing about the path.
            *self = Self::new();
            self.slice = Some(slice);
        } else if passed > 0 {
            self.complete();
            for _ in 1..passed {
                self.complete();
            }
            self.slice = Some(slice);
        }
        self.bytes = self.bytes.saturating_add(u32::from(bytes));
    }

    /// The rate, in bit/s, once it is known.
    pub(super) fn bps(&self) -> Option<f64> {
        if self.known < KNOWN {
            return None;
        }
        let rate =
            |bytes: u64, slices: usize| bytes as f64 * 8e6 / (slices as f64 * SLICE_US as f64);
        let long = rate(self.long_bytes, self.known);
        let short = rate(self.short_bytes, SHORT);
        let steady = STEADY.contains(&(short / long.max(1.0)));
        Some(if steady { long } else { short })
    }

    /// The rate of the latest slices alone, in bit/s: what a path that has just become narrow
    /// carries. Of pictures that come seldom it is the latest: what was not sent says nothing.
    pub(super) fn latest_bps(&self) -> Option<f64> {
        let bps = self.bps()?;
        let slice = |back: usize| self.slices[(self.at + LONG - back) % LONG];
        let busy = (1..=LATEST).take_while(|back| slice(*back) > 0).count();
        // A picture began somewhere within the first of them.
        let whole = if busy < LATEST {
            busy.saturating_sub(1)
        } else {
            busy
        };
        let slices = whole.max(busy.min(1));
        if slices == 0 {
            return Some(bps);
        }
        let bytes: u32 = (1..=slices).map(slice).sum();
        let us = slices as f64 * SLICE_US as f64;
        Some(f64::from(bytes) * 8e6 / us)
    }

    /// The slice under way is over.
    fn complete(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let leaving_short = self.slices[(self.at + LONG - SHORT) % LONG];
        self.short_bytes = self.short_bytes + u64::from(bytes) - u64::from(leaving_short);
        let leaving_long = std::mem::replace(&mut self.slices[self.at], bytes);
        self.long_bytes = self.long_bytes + u64::from(bytes) - u64::from(leaving_long);
        self.at = (self.at + 1) % LONG;
        self.known = (self.known + 1).min(LONG);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(rate: &mut AckedRate, from_ms: i64, to_ms: i64, gap_ms: i64) {
        for ms in (from_ms..to_ms).step_by(gap_ms as usize) {
            rate.add(ms * 1_000, 1_250);
        }
    }

    #[test]
    fn the_rate_is_what_arrives() {
        let mut rate = AckedRate::new();
        arrive(&mut rate, -700, -250, 10);
        assert_eq!(rate.bps(), None);
        arrive(&mut rate, -250, 3_000, 10);
        assert_eq!(rate.bps(), Some(1e6));
    }

    #[test]
    fn a_drop_is_followed_in_a_third_of_a_second() {
        let mut rate = AckedRate::new();
        arrive(&mut rate, 0, 3_000, 4);
        arrive(&mut rate, 3_000, 3_360, 25);
        assert_eq!(rate.bps(), Some(4e5));
        arrive(&mut rate, 3_360, 5_000, 25);
        let bps = rate.bps().expect("known after half a second");
        assert!((3.9e5..4.1e5).contains(&bps), "{bps}");
    }

    #[test]
    fn the_latest_is_what_came_while_something_came() {
        let mut rate = AckedRate::new();
        arrive(&mut rate, 0, 3_000, 4);
        arrive(&mut rate, 3_000, 3_200, 25);
        assert_eq!(rate.latest_bps(), Some(4e5), "a path that became narrow");
        for frame in 0..8 {
            arrive(&mut rate, 3_200 + 200 * frame, 3_330 + 200 * frame, 20);
        }
        rate.add(4_751_000, 1_250);
        let bps = rate.latest_bps().expect("known after half a second");
        assert!((4e5..=5e5).contains(&bps), "five pictures a second: {bps}");
        rate.add(4_910_000, 1_250);
        assert_eq!(rate.latest_bps(), rate.bps(), "nothing came of late");
    }

    #[test]
    fn a_silence_says_nothing() {
        let mut rate = AckedRate::new();
        arrive(&mut rate, 0, 3_000, 10);
        arrive(&mut rate, 13_000, 13_200, 10);
        assert_eq!(rate.bps(), None);
        arrive(&mut rate, 13_200, 14_000, 10);
        assert_eq!(rate.bps(), Some(1e6));
    }
}
